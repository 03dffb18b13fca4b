package session_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

// elsewhere is a store that somebody else can read.
type elsewhere struct{ session.Provider }

func (e elsewhere) Traits() session.Traits {
	t := e.Provider.Traits()
	t.Name, t.Shared, t.Durable = "elsewhere", true, true
	return t
}

var keyA, keyB = bytes.Repeat([]byte{0xa1}, 32), bytes.Repeat([]byte{0xb2}, 32)

func newElsewhere(t testing.TB) elsewhere {
	t.Helper()
	store, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return elsewhere{store}
}

func managerOf(t testing.TB, p session.Provider, cfg session.ManagerConfig) *session.Manager {
	t.Helper()
	m, err := session.ManagerOf(p, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// dump returns all that the store's owner sees.
func dump(t *testing.T, p session.Provider) map[string]session.Record {
	t.Helper()
	keys, err := p.List(t.Context(), "", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]session.Record)
	for _, k := range keys {
		if all[k], err = p.Get(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// planted stores octets as the store's owner can.
func planted(t *testing.T, p session.Provider, key string, value []byte) {
	t.Helper()
	if err := p.Put(t.Context(), key, value, time.Hour); err != nil {
		t.Fatal(err)
	}
}

// wantCorrupt checks that a session neither reads nor is replaced, and that
// destroying it still works.
func wantCorrupt(t *testing.T, m *session.Manager, id, what string) {
	t.Helper()
	ctx := t.Context()
	if v, err := m.Session(id).Get(ctx, "user"); !errors.Is(err, session.ErrCorrupt) {
		t.Errorf("%s: Get: %v, %v", what, v, err)
	}
	if err := m.Session(id).Set(ctx, "user", "other"); !errors.Is(err, session.ErrCorrupt) {
		t.Errorf("%s: Set: %v", what, err)
	}
	if err := m.Session(id).Delete(ctx, "user"); !errors.Is(err, session.ErrCorrupt) {
		t.Errorf("%s: Delete: %v", what, err)
	}
}

// What a stolen store, or its owner, can do with sealed sessions: see whose they
// are and nothing else, and neither change, move nor make one.
func TestSealedSessions(t *testing.T) {
	p := newElsewhere(t)
	m := managerOf(t, p, session.ManagerConfig{StoreKey: keyA, SessionIDPrefix: "web"})
	set(t, m, "peer", "user", "plain-value-of-the-session")
	set(t, m, "peer", "field-name-that-tells", []byte("more plaintext"))
	set(t, m, "other", "user", "somebody else")
	all := dump(t, p)
	const key = "s/web/peer"
	if len(all) != 2 || all[key].Value == nil {
		t.Fatalf("the store has %d records", len(all))
	}
	for k, r := range all {
		for _, secret := range []string{"plain-value", "field-name", "plaintext", "user", "somebody"} {
			if bytes.Contains(r.Value, []byte(secret)) {
				t.Errorf("%q stands readable under %q", secret, k)
			}
		}
	}
	if v := managerOf(t, p, session.ManagerConfig{StoreKey: keyA, SessionIDPrefix: "web"}).GetString("peer", "user"); v != "plain-value-of-the-session" {
		t.Errorf("a replica reads %q", v)
	}
	sealed := all[key].Value
	wantCorrupt(t, managerOf(t, p, session.ManagerConfig{StoreKey: keyB, SessionIDPrefix: "web"}), "peer", "another key")
	wantCorrupt(t, managerOf(t, p, session.ManagerConfig{InsecurePlaintext: true, SessionIDPrefix: "web"}), "peer", "a manager without a key")

	planted(t, p, "s/web/third", sealed)
	wantCorrupt(t, m, "third", "moved to another peer")
	planted(t, p, key, all["s/web/other"].Value)
	wantCorrupt(t, m, "peer", "another peer's")
	planted(t, p, "s/app/peer", sealed)
	wantCorrupt(t, managerOf(t, p, session.ManagerConfig{StoreKey: keyA, SessionIDPrefix: "app"}), "peer", "moved to another prefix")
	for at := range sealed {
		changed := bytes.Clone(sealed)
		changed[at] ^= 1
		planted(t, p, key, changed)
		wantCorrupt(t, m, "peer", fmt.Sprintf("octet %d changed", at))
		planted(t, p, key, sealed[:at])
		wantCorrupt(t, m, "peer", fmt.Sprintf("cut to %d octets", at))
	}
	planted(t, p, key, append(bytes.Clone(sealed), 0))
	wantCorrupt(t, m, "peer", "an octet more")

	// A session in plain, such as the owner can make, with whatever is in it.
	own := newElsewhere(t)
	forger := managerOf(t, own, session.ManagerConfig{InsecurePlaintext: true, SessionIDPrefix: "web"})
	set(t, forger, "peer", "user", "admin")
	forged := dump(t, own)[key].Value
	planted(t, p, key, forged)
	wantCorrupt(t, m, "peer", "in plain")
	planted(t, p, key, append([]byte{2}, forged...))
	wantCorrupt(t, m, "peer", "in plain, said to be sealed")
	planted(t, p, key, append([]byte{9}, sealed[1:]...))
	if _, err := m.Session("peer").Get(t.Context(), "user"); !errors.Is(err, session.ErrCorrupt) || !strings.Contains(err.Error(), "format 9") {
		t.Errorf("an unknown format: %v", err)
	}
	planted(t, p, key, append([]byte{2, 7}, sealed[2:]...))
	if _, err := m.Session("peer").Get(t.Context(), "user"); !errors.Is(err, session.ErrCorrupt) || !strings.Contains(err.Error(), "format 7") {
		t.Errorf("an unknown format of the seal: %v", err)
	}
	if err := m.Destroy("peer"); err != nil {
		t.Fatal(err)
	}
	set(t, m, "peer", "user", "new")
}

// What SECURITY.md says of a store's owner who rolls back one session.
func TestSealedSessionRollsBack(t *testing.T) {
	p := newElsewhere(t)
	m := managerOf(t, p, session.ManagerConfig{StoreKey: keyA})
	set(t, m, "peer", "role", "admin")
	old := dump(t, p)["s//peer"].Value
	set(t, m, "peer", "role", "guest")
	planted(t, p, "s//peer", old)
	if v := m.GetString("peer", "role"); v != "admin" {
		t.Errorf("an older value of the same place gives %q; SECURITY.md says that it opens", v)
	}
}

// A manager whose store others can read does nothing without a key, says what to
// do, and does it once it has one.
func TestNoKeyFailsClosed(t *testing.T) {
	ctx := t.Context()
	for what, traits := range map[string]func(*session.Traits){
		"shared":  func(t *session.Traits) { t.Shared = true },
		"durable": func(t *session.Traits) { t.Durable = true },
	} {
		p := newElsewhere(t).Provider
		tr := p.Traits()
		traits(&tr)
		m := managerOf(t, withTraits{p, tr}, session.ManagerConfig{})
		s := m.Session("peer")
		_, getErr := s.Get(ctx, "a")
		for name, err := range map[string]error{"Get": getErr, "Set": s.Set(ctx, "a", 1), "Delete": s.Delete(ctx, "a"), "Put": m.Put("peer", "a", 1)} {
			if err == nil || !strings.Contains(err.Error(), "ManagerConfig.StoreKey") || !strings.Contains(err.Error(), "SetPeerstore") || !strings.Contains(err.Error(), "InsecurePlaintext") {
				t.Errorf("%s: %s without a key: %v", what, name, err)
			}
		}
		if m.Get("peer", "a") != nil || len(dump(t, p)) != 0 {
			t.Errorf("%s: something was stored", what)
		}
		if err := errors.Join(m.Destroy("peer"), m.Flush(ctx)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if err := m.UseStoreKey(keyA[:31], nil); err == nil {
			t.Errorf("%s: a short key was taken", what)
		}
		if err := errors.Join(m.UseStoreKey(keyA, keyB), m.UseStoreKey(keyA, keyB)); err != nil {
			t.Errorf("%s: the same key twice: %v", what, err)
		}
		for _, other := range [][2][]byte{{keyB, keyA}, {keyA, nil}, {keyB, nil}} {
			if err := m.UseStoreKey(other[0], other[1]); err == nil || !strings.Contains(err.Error(), "ManagerConfig.StoreKey") {
				t.Errorf("%s: other keys: %v", what, err)
			}
		}
		set(t, m, "peer", "a", "with a key")
		if v := m.GetString("peer", "a"); v != "with a key" {
			t.Errorf("%s: %q", what, v)
		}
	}
}

type withTraits struct {
	session.Provider
	traits session.Traits
}

func (w withTraits) Traits() session.Traits { return w.traits }

// A key of the manager's own, none that is wanted, and none that is needed: a
// node's changes nothing.
func TestUseStoreKeyYields(t *testing.T) {
	var said bytes.Buffer
	for what, c := range map[string]struct {
		outside, sealed bool
		cfg             session.ManagerConfig
	}{
		"own key":                       {true, true, session.ManagerConfig{StoreKey: keyB}},
		"own key, a store in memory":    {false, true, session.ManagerConfig{StoreKey: keyB}},
		"plaintext":                     {true, false, session.ManagerConfig{InsecurePlaintext: true, Logger: slog.New(slog.NewTextHandler(&said, nil))}},
		"a store in this process":       {false, false, session.ManagerConfig{}},
		"plaintext, a store in process": {false, false, session.ManagerConfig{InsecurePlaintext: true}},
	} {
		p := newElsewhere(t)
		var store session.Provider = p
		if !c.outside {
			store = p.Provider
		}
		m := managerOf(t, store, c.cfg)
		if err := errors.Join(m.UseStoreKey(keyA, nil), m.UseStoreKey(keyB, keyA)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		set(t, m, "peer", "user", "plain-value")
		value := dump(t, p)["s//peer"].Value
		if readable := bytes.Contains(value, []byte("plain-value")); readable == c.sealed {
			t.Errorf("%s: readable in the store: %v", what, readable)
		}
		if c.sealed {
			if v := managerOf(t, p, session.ManagerConfig{StoreKey: keyB}).GetString("peer", "user"); v != "plain-value" {
				t.Errorf("%s: not sealed under the manager's key: %q", what, v)
			}
		}
	}
	if !strings.Contains(said.String(), "InsecurePlaintext") || !strings.Contains(said.String(), "WARN") {
		t.Errorf("the log says %q", said.String())
	}
}

// Two replicas in the middle of a change of keys read each other's sessions;
// what is used moves to the new key, keeps its life, and the old key can go.
func TestRotation(t *testing.T) {
	ctx := t.Context()
	p := newElsewhere(t)
	before := managerOf(t, p, session.ManagerConfig{StoreKey: keyA, PreviousStoreKey: keyB})
	after := managerOf(t, p, session.ManagerConfig{StoreKey: keyB, PreviousStoreKey: keyA})
	onlyOld := managerOf(t, p, session.ManagerConfig{StoreKey: keyA})
	onlyNew := managerOf(t, p, session.ManagerConfig{StoreKey: keyB})
	for id, use := range map[string]func(*session.Session) error{
		"read":           func(s *session.Session) error { _, err := s.Get(ctx, "user"); return err },
		"written":        func(s *session.Session) error { return s.Set(ctx, "b", 2) },
		"nothing to del": func(s *session.Session) error { return s.Delete(ctx, "not there") },
	} {
		set(t, onlyOld, id, "user", "kkk")
		wantCorrupt(t, onlyNew, id, id+" before its move")
		for range 3 {
			if v := before.GetString(id, "user"); v != "kkk" {
				t.Errorf("%s: a replica that waits reads %q", id, v)
			}
		}
		if v := onlyOld.GetString(id, "user"); v != "kkk" {
			t.Errorf("%s: a replica that waits has sealed under the new key", id)
		}
		if err := use(after.Session(id)); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if v := onlyNew.GetString(id, "user"); v != "kkk" {
			t.Errorf("%s: not sealed under the new key: %q", id, v)
		}
		wantCorrupt(t, onlyOld, id, id+" after its move")
		if v := before.GetString(id, "user"); v != "kkk" {
			t.Errorf("%s: a replica that waits reads %q after the move", id, v)
		}
	}
	// Back and forth by two that both know both keys, at the same time: nothing
	// that was set is lost.
	set(t, before, "both", "user", "kkk")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			m := []*session.Manager{before, after}[i%2]
			for n := range 50 {
				if err := m.Session("both").Set(ctx, fmt.Sprint("f", i), n); err != nil {
					t.Error(err)
				}
				if v, err := session.Get[string](ctx, m.Session("both"), "user"); err != nil || v != "kkk" {
					t.Error(v, err)
				}
			}
		})
	}
	all.Wait()
	for i := range 8 {
		if v := after.Get("both", fmt.Sprint("f", i)); v != 49 {
			t.Errorf("field %d is %v", i, v)
		}
	}
}

// Moving a session gives it the life that its use gives it, and no more than
// one write.
func TestRotationKeepsLife(t *testing.T) {
	w := newWorld(t, session.ManagerConfig{Maxlifetime: 800, AbsoluteLifetime: 1000, StoreKey: keyA})
	cfg := session.ManagerConfig{Maxlifetime: 800, AbsoluteLifetime: 1000, StoreKey: keyB, PreviousStoreKey: keyA, Now: w.clock}
	after := managerOf(t, w.kept, cfg)
	set(t, w.Manager, "peer", "user", "kkk")
	record := func() session.Record { return dump(t, w.kept)["s//peer"] }
	first := record()
	w.advance(600 * time.Second)
	if v := after.GetString("peer", "user"); v != "kkk" {
		t.Fatalf("%q", v)
	}
	moved := record()
	if moved.Version == first.Version || moved.TTL != 400*time.Second {
		t.Errorf("after the move: version %d was %d, %v left; the session ends in 400 s", moved.Version, first.Version, moved.TTL)
	}
	if v := after.GetString("peer", "user"); v != "kkk" || record().Version != moved.Version {
		t.Errorf("it was moved twice, or reads %q", v)
	}
	w.advance(401 * time.Second)
	if v := after.Get("peer", "user"); v != nil {
		t.Errorf("it outlives its absolute end: %v", v)
	}
}

// A session that is destroyed while it is moved stays destroyed, and a read is
// not spoilt by a store that takes no writes.
func TestRotationNeverRevives(t *testing.T) {
	w := newWorld(t, session.ManagerConfig{StoreKey: keyB, PreviousStoreKey: keyA})
	before := managerOf(t, w.kept, session.ManagerConfig{StoreKey: keyA, Now: w.clock})
	set(t, before, "peer", "user", "kkk")
	w.meet = func() {
		if err := before.Destroy("peer"); err != nil {
			t.Error(err)
		}
	}
	if v := w.GetString("peer", "user"); v != "kkk" {
		t.Errorf("read %q", v)
	}
	if n := len(dump(t, w.kept)); n != 0 {
		t.Errorf("%d records after a destroy", n)
	}
}

// Nothing is sealed under a key that is being erased, and who comes too late is
// told that the manager is closed.
func TestCloseForgetsKeys(t *testing.T) {
	p := newElsewhere(t)
	m := managerOf(t, p, session.ManagerConfig{StoreKey: keyA})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for i := range 4 {
		id := fmt.Sprint("peer", i)
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := m.Session(id).Set(ctx, "n", n); err != nil {
					if !errors.Is(err, session.ErrClosed) {
						t.Errorf("after Close: %v", err)
					}
					return
				}
			}
		})
	}
	for m.Get("peer3", "n") == nil && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	again := managerOf(t, p, session.ManagerConfig{StoreKey: keyA})
	for k := range dump(t, p) {
		if _, err := again.Session(strings.TrimPrefix(k, "s//")).Get(ctx, "n"); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
	if err := m.UseStoreKey(keyB, nil); err != nil {
		t.Errorf("a manager with its own key: %v", err)
	}
	late := managerOf(t, p, session.ManagerConfig{})
	late.Close()
	if err := late.UseStoreKey(keyA, nil); !errors.Is(err, session.ErrClosed) {
		t.Errorf("a closed manager takes a key: %v", err)
	}
}

// The known answers of testdata/vectors/store.json.
func TestSealedSessionVectors(t *testing.T) {
	raw, err := os.ReadFile("../testdata/vectors/store.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Users []struct {
			StoreKey string `json:"store_key"`
			Place    string `json:"place"`
			Record   string `json:"record"`
		} `json:"user_sessions"`
	}
	if err := json.Unmarshal(raw, &file); err != nil || len(file.Users) == 0 {
		t.Fatal("no vectors", err)
	}
	for _, v := range file.Users {
		key, errKey := hex.DecodeString(v.StoreKey)
		record, errRecord := hex.DecodeString(v.Record)
		if errKey != nil || errRecord != nil {
			t.Fatal(errKey, errRecord)
		}
		p := newElsewhere(t)
		planted(t, p, v.Place, append([]byte{2}, record...))
		m := managerOf(t, p, session.ManagerConfig{StoreKey: key, SessionIDPrefix: "web"})
		if got := m.GetString("a/b", "username"); got != "kkk" {
			t.Errorf("%s: %q", v.Place, got)
		}
	}
}

// What sealing costs beside a store that costs nothing.
func BenchmarkSession(b *testing.B) {
	for _, size := range []int{100, 10_000} {
		for name, cfg := range map[string]session.ManagerConfig{"plain": {}, "sealed": {StoreKey: keyA}, "rotating": {StoreKey: keyA, PreviousStoreKey: keyB}} {
			m := managerOf(b, newElsewhere(b).Provider, cfg)
			ctx := b.Context()
			value := bytes.Repeat([]byte{7}, size)
			b.Run(fmt.Sprintf("get/%s/%dB", name, size), func(b *testing.B) {
				if err := m.Session("peer").Set(ctx, "user", value); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := m.Session("peer").Get(ctx, "user"); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(fmt.Sprintf("set/%s/%dB", name, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := m.Session("peer").Set(ctx, "user", value); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
