package sessiontest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

func randomUint64() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

func testRecords(t *testing.T, s *store) {
	ctx, k := t.Context(), s.key("a")
	s.wantAbsent(t, k)
	must(t, s.Delete(ctx, k))
	must(t, s.Put(ctx, k, []byte("1"), 0))
	if r := s.wantValue(t, k, "1"); r.TTL != 0 {
		t.Errorf("a record that never expires has TTL %v", r.TTL)
	}
	must(t, s.Put(ctx, k, []byte("2"), time.Hour))
	if r := s.wantValue(t, k, "2"); r.TTL < time.Hour-time.Minute || r.TTL > time.Hour+slack {
		t.Errorf("TTL is %v, want an hour", r.TTL)
	}
	if v, err := s.PutIfAbsent(ctx, k, []byte("3"), 0); v != 0 || err != nil {
		t.Errorf("PutIfAbsent over a record: %d, %v", v, err)
	}
	s.wantValue(t, k, "2")
	must(t, s.Delete(ctx, k))
	s.wantAbsent(t, k)
	v, err := s.PutIfAbsent(ctx, k, []byte("4"), 0)
	must(t, err)
	if r := s.wantValue(t, k, "4"); r.Version != v {
		t.Errorf("PutIfAbsent returned version %d, the record has %d", v, r.Version)
	}
}

func testVersions(t *testing.T, s *store) {
	ctx, k := t.Context(), s.key("a")
	used := make(map[uint64]bool)
	draw := func(v uint64) uint64 {
		t.Helper()
		if v == 0 || used[v] {
			t.Fatalf("version %d was used before or is zero", v)
		}
		used[v] = true
		return v
	}
	if v, err := s.CompareAndSwap(ctx, k, 1, []byte("x"), 0); v != 0 || err != nil {
		t.Fatalf("CompareAndSwap made a record: %d, %v", v, err)
	}
	for range 3 {
		must(t, s.Put(ctx, k, []byte("same"), 0))
		first := draw(s.wantValue(t, k, "same").Version)
		must(t, s.Put(ctx, k, []byte("same"), 0))
		second := draw(s.wantValue(t, k, "same").Version)
		if v, err := s.CompareAndSwap(ctx, k, first, []byte("x"), 0); v != 0 || err != nil {
			t.Fatalf("CompareAndSwap of an old version: %d, %v", v, err)
		}
		third, err := s.CompareAndSwap(ctx, k, second, []byte("y"), time.Hour)
		must(t, err)
		draw(third)
		if r := s.wantValue(t, k, "y"); r.Version != third || r.TTL == 0 {
			t.Fatalf("after the swap: version %d, TTL %v", r.Version, r.TTL)
		}
		ok, err := s.Touch(ctx, k, second, time.Minute)
		if ok || err != nil {
			t.Fatalf("Touch of an old version: %v, %v", ok, err)
		}
		ok, err = s.Touch(ctx, k, third, time.Minute)
		if r := s.wantValue(t, k, "y"); !ok || err != nil || r.Version != third || r.TTL > time.Minute+slack {
			t.Fatalf("Touch: %v, %v; version %d, want %d; TTL %v", ok, err, r.Version, third, r.TTL)
		}
		must(t, s.Delete(ctx, k))
		if v, err := s.CompareAndSwap(ctx, k, third, []byte("z"), 0); v != 0 || err != nil {
			t.Fatalf("CompareAndSwap revived a record: %d, %v", v, err)
		}
		if ok, err := s.Touch(ctx, k, third, time.Hour); ok || err != nil {
			t.Fatalf("Touch of nothing: %v, %v", ok, err)
		}
		v, err := s.PutIfAbsent(ctx, k, []byte("again"), 0)
		must(t, err)
		draw(v)
		if v, err := s.CompareAndSwap(ctx, k, third, []byte("z"), 0); v != 0 || err != nil {
			t.Fatalf("CompareAndSwap took the next record for the one before: %d, %v", v, err)
		}
		must(t, s.Delete(ctx, k))
	}
}

func testValues(t *testing.T, s *store) {
	ctx, k := t.Context(), s.key("a")
	most := s.Traits().MaxValue
	if most == 0 {
		most = session.MaxValueLen
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	huge := bytes.Repeat(all, most/256+1)[:most]
	for _, value := range [][]byte{nil, {}, {0}, []byte("\r\n"), all, huge} {
		must(t, s.Put(ctx, k, value, time.Hour))
		r := s.wantValue(t, k, string(value))
		_, err := s.CompareAndSwap(ctx, k, r.Version, value, 0)
		must(t, err)
		s.wantValue(t, k, string(value))
		must(t, s.Delete(ctx, k))
		_, err = s.PutIfAbsent(ctx, k, value, 0)
		must(t, err)
		s.wantValue(t, k, string(value))
	}
	r := s.wantValue(t, k, string(huge))
	tooLong := append(huge, 0)
	wantErr(t, "Put", s.Put(ctx, k, tooLong, 0), session.ErrTooLarge)
	_, err := s.PutIfAbsent(ctx, s.key("b"), tooLong, 0)
	wantErr(t, "PutIfAbsent", err, session.ErrTooLarge)
	_, err = s.CompareAndSwap(ctx, k, r.Version, tooLong, 0)
	wantErr(t, "CompareAndSwap", err, session.ErrTooLarge)
	s.wantAbsent(t, s.key("b"))
	s.wantValue(t, k, string(huge))
}

func testValuesAreCopied(t *testing.T, s *store) {
	ctx, k := t.Context(), s.key("a")
	value := []byte("first")
	must(t, s.Put(ctx, k, value, 0))
	copy(value, "XXXXX")
	read := s.wantValue(t, k, "first")
	must(t, s.Put(ctx, k, []byte("later"), 0))
	if string(read.Value) != "first" {
		t.Errorf("a value that was read changed to %q", read.Value)
	}
}

// hostileKeys mean something to some store, shell, file system or query.
func hostileKeys() []string {
	return []string{
		"a", "A", "a ", " a", "a\x00", "a\x00b", "\x00", "\n", "a\r\nset b 0 0 1\r\n1\r\n", "'", `"`, "`", `\`, "%", "%00", "_", "*", "?", "[a]",
		"../../etc/passwd", "..", ".", "/", "//", "a/../b", "'; DROP TABLE session; --", "{a}", "{a}{b}", "\xff\xfe", "\xc3\x28", "é", "e\u0301",
		"会话", "\U0001F600", "${jndi:x}", "$(id)", strings.Repeat("k", 200), strings.Repeat("会", 300),
	}
}

func testKeys(t *testing.T, s *store) {
	ctx := t.Context()
	keys := hostileKeys()
	longest := strings.Repeat("x", session.MaxKeyLen-len(s.prefix))
	keys = append(keys, longest, longest[1:]+"y")
	for _, name := range keys {
		if v, err := s.PutIfAbsent(ctx, s.key(name), []byte(name), time.Hour); v == 0 || err != nil {
			t.Fatalf("PutIfAbsent(%.40q): %d, %v", name, v, err)
		}
	}
	for _, name := range keys {
		r := s.wantValue(t, s.key(name), name)
		if ok, err := s.Touch(ctx, s.key(name), r.Version, time.Minute); !ok || err != nil {
			t.Fatalf("Touch(%.40q): %v, %v", name, ok, err)
		}
		_, err := s.CompareAndSwap(ctx, s.key(name), r.Version, []byte("!"+name), time.Hour)
		must(t, err)
		s.wantValue(t, s.key(name), "!"+name)
	}
	if s.Traits().Lists {
		got, err := s.List(ctx, s.prefix, "", 1000)
		must(t, err)
		if len(got) != len(keys) {
			t.Errorf("List returned %d of %d keys", len(got), len(keys))
		}
	}
	for _, name := range keys {
		must(t, s.Delete(ctx, s.key(name)))
		s.wantAbsent(t, s.key(name))
	}
}

func testKeysOutOfBounds(t *testing.T, s *store) {
	ctx := t.Context()
	for _, k := range []string{"", strings.Repeat("x", session.MaxKeyLen+1), strings.Repeat("x", 1<<20)} {
		_, err := s.Get(ctx, k)
		wantErr(t, "Get", err, session.ErrKey)
		wantErr(t, "Put", s.Put(ctx, k, nil, 0), session.ErrKey)
		_, err = s.PutIfAbsent(ctx, k, nil, 0)
		wantErr(t, "PutIfAbsent", err, session.ErrKey)
		_, err = s.CompareAndSwap(ctx, k, 1, nil, 0)
		wantErr(t, "CompareAndSwap", err, session.ErrKey)
		_, err = s.Touch(ctx, k, 1, 0)
		wantErr(t, "Touch", err, session.ErrKey)
		wantErr(t, "Delete", s.Delete(ctx, k), session.ErrKey)
	}
}

func testNegativeTTL(t *testing.T, s *store) {
	ctx, k := t.Context(), s.key("a")
	must(t, s.Put(ctx, k, []byte("1"), 0))
	r := s.wantValue(t, k, "1")
	wantErr(t, "Put", s.Put(ctx, k, nil, -1), session.ErrTTL)
	_, err := s.PutIfAbsent(ctx, s.key("b"), nil, -1)
	wantErr(t, "PutIfAbsent", err, session.ErrTTL)
	_, err = s.CompareAndSwap(ctx, k, r.Version, nil, -time.Hour)
	wantErr(t, "CompareAndSwap", err, session.ErrTTL)
	_, err = s.Touch(ctx, k, r.Version, -1)
	wantErr(t, "Touch", err, session.ErrTTL)
	if after := s.wantValue(t, k, "1"); after.Version != r.Version {
		t.Errorf("a refused ttl changed the record")
	}
	// The longest time there is must not turn into a short one.
	must(t, s.Put(ctx, k, []byte("1"), 1<<63-1))
	s.wantValue(t, k, "1")
}

// operations are all methods that ask the store, on key k.
func (s *store) operations(ctx context.Context, k string) map[string]error {
	errs := make(map[string]error)
	_, errs["Get"] = s.Get(ctx, k)
	errs["Put"] = s.Put(ctx, k, []byte("changed"), 0)
	_, errs["PutIfAbsent"] = s.PutIfAbsent(ctx, k+"2", []byte("changed"), 0)
	_, errs["CompareAndSwap"] = s.CompareAndSwap(ctx, k, 1, []byte("changed"), 0)
	_, errs["Touch"] = s.Touch(ctx, k, 1, time.Hour)
	errs["Delete"] = s.Delete(ctx, k)
	_, errs["Sweep"] = s.Sweep(ctx, 10)
	if s.Traits().Lists {
		_, errs["List"] = s.List(ctx, s.prefix, "", 10)
	}
	return errs
}

func testCancelled(t *testing.T, s *store) {
	k := s.key("a")
	must(t, s.Put(t.Context(), k, []byte("kept"), 0))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range s.operations(ctx, k) {
		wantErr(t, name, err, context.Canceled)
	}
	late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	for name, err := range s.operations(late, k) {
		wantErr(t, name, err, context.DeadlineExceeded)
	}
	s.wantValue(t, k, "kept")
	s.wantAbsent(t, k+"2")
}

func testClosed(t *testing.T, s *store) {
	must(t, s.Close())
	must(t, s.Close())
	for name, err := range s.operations(t.Context(), s.key("a")) {
		wantErr(t, name, err, session.ErrClosed)
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v is no net.ErrClosed", name, err)
		}
	}
}
