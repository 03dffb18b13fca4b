package atrest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

var (
	keyA = bytes.Repeat([]byte{0xa1}, KeySize)
	keyB = bytes.Repeat([]byte{0xb2}, KeySize)
	keyC = bytes.Repeat([]byte{0xc3}, KeySize)
)

func newKeys(t testing.TB, key, previous []byte, owner string) *Keys {
	t.Helper()
	k, err := NewKeys(key, previous, owner)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestCheck(t *testing.T) {
	for want, c := range map[string][2][]byte{
		"StoreKey has 31 bytes; it must have 32":         {keyA[:31], nil},
		"StoreKey has 0 bytes":                           {nil, nil},
		"StoreKey is all zeros":                          {make([]byte, 32), nil},
		"PreviousStoreKey has 33 bytes":                  {keyA, append(bytes.Clone(keyB), 1)},
		"PreviousStoreKey has 0 bytes":                   {keyA, []byte{}},
		"PreviousStoreKey is all zeros":                  {keyA, make([]byte, 32)},
		"PreviousStoreKey is the key that seals already": {keyA, bytes.Clone(keyA)},
	} {
		if err := Check(c[0], c[1]); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if k, err := NewKeys(c[0], c[1], ""); err == nil || k != nil {
			t.Errorf("%s: keys were made", want)
		}
	}
	if err := errors.Join(Check(keyA, nil), Check(keyA, keyB)); err != nil {
		t.Error(err)
	}
}

// A record opens at its place, for its purpose, for its owner and under its key.
func TestOpensNowhereElse(t *testing.T) {
	k := newKeys(t, keyA, nil, "owner")
	record, err := k.Seal([]byte("before "), rand.Reader, "purpose", "place", []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	record, had := bytes.CutPrefix(record, []byte("before "))
	if !had || len(record) != Overhead+len("value") {
		t.Fatalf("%q", record)
	}
	if v, stale, err := k.Open("purpose", "place", record); string(v) != "value" || stale || err != nil {
		t.Fatalf("%q, %v, %v", v, stale, err)
	}
	refused := func(what string, k *Keys, purpose, place string, record []byte) {
		t.Helper()
		if v, _, err := k.Open(purpose, place, record); !errors.Is(err, ErrRecord) || v != nil {
			t.Errorf("%s: %q, %v", what, v, err)
		}
	}
	refused("another place", k, "purpose", "places", record)
	refused("another purpose", k, "purposes", "place", record)
	refused("the border moved", k, "purpos", "e\x00place", record)
	refused("another owner", newKeys(t, keyA, nil, "ownerr"), "purpose", "place", record)
	refused("no owner", newKeys(t, keyA, nil, ""), "purpose", "place", record)
	refused("another key", newKeys(t, keyB, nil, "owner"), "purpose", "place", record)
	refused("two other keys", newKeys(t, keyB, keyC, "owner"), "purpose", "place", record)
	for at := range record {
		changed := bytes.Clone(record)
		changed[at] ^= 1
		refused(fmt.Sprint("octet ", at), k, "purpose", "place", changed)
		refused(fmt.Sprint("cut at ", at), k, "purpose", "place", record[:at])
	}
	refused("longer", k, "purpose", "place", append(bytes.Clone(record), 0))
	if _, _, err := k.Open("purpose", "place", append([]byte{7}, record[1:]...)); !strings.Contains(err.Error(), "format 7") {
		t.Errorf("an unknown format: %v", err)
	}
	if _, err := k.Seal(nil, bytes.NewReader(make([]byte, 31)), "p", "k", nil); err == nil {
		t.Error("sealed with 31 octets of salt")
	}
}

// Two replicas in the middle of a change of keys.
func TestTwoKeys(t *testing.T) {
	old, both, back, only := newKeys(t, keyA, nil, "o"), newKeys(t, keyB, keyA, "o"), newKeys(t, keyA, keyB, "o"), newKeys(t, keyB, nil, "o")
	seal := func(k *Keys) []byte {
		r, err := k.Seal(nil, rand.Reader, "p", "k", []byte("v"))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, c := range []struct {
		name         string
		by, to       *Keys
		opens, stale bool
	}{
		{"old, after the switch", old, both, true, true}, {"new, after the switch", both, both, true, false},
		{"new, before the switch", both, back, true, true}, {"old, before the switch", old, back, true, false},
		{"new, by the new alone", both, only, true, false}, {"old, by the new alone", old, only, false, false},
		{"new, by the old alone", both, old, false, false},
	} {
		v, stale, err := c.to.Open("p", "k", seal(c.by))
		if (err == nil) != c.opens || stale != c.stale || c.opens && string(v) != "v" || !c.opens && !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %q, %v, %v", c.name, v, stale, err)
		}
	}
	if !both.Equal(both) || !both.Equal(newKeys(t, keyB, keyA, "o")) {
		t.Error("the same keys are not equal")
	}
	for _, o := range []*Keys{old, back, only, newKeys(t, keyB, keyA, "x"), newKeys(t, keyB, keyC, "o")} {
		if both.Equal(o) || o.Equal(both) {
			t.Error("other keys are equal")
		}
	}
	one, errOne := both.Derive("info")
	two, errTwo := back.Derive("info")
	other, errOther := both.Derive("other")
	if errOne != nil || errTwo != nil || errOther != nil || len(one) != 2 || len(two) != 2 {
		t.Fatal(errOne, errTwo, errOther, len(one), len(two))
	}
	if one[0] != two[1] || one[1] != two[0] || one[0] == one[1] || one[0] == other[0] || one[0] == [KeySize]byte(keyB) {
		t.Error("derived keys")
	}
}

func TestErase(t *testing.T) {
	k := newKeys(t, keyA, keyB, "o")
	record, err := k.Seal(nil, rand.Reader, "p", "k", []byte("v"))
	if err != nil {
		t.Fatal(err)
	}
	memory := k.secrets[:2:2]
	k.Erase()
	if memory[0] != [KeySize]byte{} || memory[1] != [KeySize]byte{} {
		t.Error("the secrets are still in memory")
	}
	k.Erase()
	if _, err := k.Seal(nil, rand.Reader, "p", "k", nil); !errors.Is(err, ErrErased) {
		t.Error(err)
	}
	if _, _, err := k.Open("p", "k", record); !errors.Is(err, ErrErased) {
		t.Error(err)
	}
	if _, err := k.Derive("i"); !errors.Is(err, ErrErased) {
		t.Error(err)
	}
}

// Whatever is sealed while the keys are erased is sealed under a key that
// nobody else knows.
func TestEraseWhileSealing(t *testing.T) {
	for range 50 {
		k := newKeys(t, keyA, nil, "")
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for {
					record, err := k.Seal(nil, rand.Reader, "p", "k", []byte("v"))
					if errors.Is(err, ErrErased) {
						return
					}
					if _, _, err := newKeys(t, keyA, nil, "").Open("p", "k", record); err != nil {
						t.Error("sealed under another key:", err)
						return
					}
				}
			})
		}
		k.Erase()
		all.Wait()
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	k := newKeys(t, keyA, keyB, "o")
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+"\n", k)
		fmt.Fprintf(&out, verb+"\n", struct{ K *Keys }{k})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "k", k)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "k", k)
	for _, form := range []string{string(keyA[:8]), "a1a1a1", "A1A1A1", "161 161", "161, 161", "0xa1", "b2b2b2", "178 178", "obKh", "oaGh"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q is printed", form)
		}
	}
}

// Only what was sealed opens, and only where it belongs, whatever the octets.
func FuzzOpen(f *testing.F) {
	k := newKeys(f, keyB, keyA, "owner")
	sealed := make(map[string]string) // record by place
	for place, by := range map[string]*Keys{"s/a/peer": k, "s/a/other": newKeys(f, keyA, nil, "owner")} {
		record, err := by.Seal(nil, bytes.NewReader(make([]byte, saltSize)), "user", place, []byte("value"))
		if err != nil {
			f.Fatal(err)
		}
		sealed[place] = string(record)
		f.Add(record, place)
		f.Add(record, "s/b/peer")
		f.Add(record[:Overhead], place)
	}
	f.Add([]byte{format}, "s/a/peer")
	f.Fuzz(func(t *testing.T, record []byte, place string) {
		before := bytes.Clone(record)
		v, _, err := k.Open("user", place, record)
		if !bytes.Equal(before, record) {
			t.Fatal("opening changed the record, which belongs to the store")
		}
		if good := sealed[place] == string(record) && len(record) > 0; good != (err == nil) || good && string(v) != "value" {
			t.Fatalf("as sealed: %v: %q, %v", good, v, err)
		}
		if err != nil && !errors.Is(err, ErrRecord) {
			t.Fatal(err)
		}
	})
}

func Benchmark(b *testing.B) {
	for _, size := range []int{100, 1000, 10_000} {
		k, old := newKeys(b, keyB, keyA, "owner"), newKeys(b, keyA, nil, "owner")
		value := make([]byte, size)
		run := func(name string, f func() error) {
			b.Run(fmt.Sprintf("%s/%dB", name, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("seal", func() error { _, err := k.Seal(nil, rand.Reader, "user", "s/web/peer", value); return err })
		record, err := k.Seal(nil, rand.Reader, "user", "s/web/peer", value)
		if err != nil {
			b.Fatal(err)
		}
		run("open", func() error { _, _, err := k.Open("user", "s/web/peer", record); return err })
		if record, err = old.Seal(nil, rand.Reader, "user", "s/web/peer", value); err != nil {
			b.Fatal(err)
		}
		run("open previous", func() error { _, _, err := k.Open("user", "s/web/peer", record); return err })
	}
}
