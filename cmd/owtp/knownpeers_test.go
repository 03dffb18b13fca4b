package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/owtp-go/owtp/identity"
)

func mustAddress(t testing.TB, text string) peerAddress {
	t.Helper()
	a, err := parseAddress(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func someID(n byte) identity.ID { return identity.ID{1: n, 31: 7} }

func tempKnown(t testing.TB) knownPeers {
	return knownPeers{filepath.Join(t.TempDir(), "owtp", "known_peers")}
}

func TestPinFindForget(t *testing.T) {
	k := tempKnown(t)
	a := mustAddress(t, "http://Node.example:9432/")
	if _, ok, err := k.find(a); ok || err != nil {
		t.Fatalf("in a missing file: %v, %v", ok, err)
	}
	if err := k.pin(a, someID(1), "the exchange"); err != nil {
		t.Fatal(err)
	}
	for _, same := range []string{"http://node.example:9432", "HTTP://NODE.EXAMPLE:09432"} {
		if id, ok, err := k.find(mustAddress(t, same)); !ok || err != nil || id != someID(1) {
			t.Errorf("%s: %v, %v, %v", same, id, ok, err)
		}
	}
	for _, other := range []string{"ws://node.example:9432", "https://node.example:9432", "http://node.example", "http://node.example.evil:9432"} {
		if _, ok, _ := k.find(mustAddress(t, other)); ok {
			t.Errorf("%s is found", other)
		}
	}
	if err := k.pin(a, someID(1), ""); err != nil {
		t.Errorf("pinning the same again: %v", err)
	}
	if err := k.pin(a, someID(2), ""); exitCode(err) != exitTrust {
		t.Errorf("pinning another ID: %v", err)
	}
	if id, _, _ := k.find(a); id != someID(1) {
		t.Error("the pin has changed")
	}
	if err := k.forget(a); err != nil {
		t.Fatal(err)
	}
	if err := k.forget(a); err == nil {
		t.Error("forgotten twice")
	}
	if _, ok, _ := k.find(a); ok {
		t.Error("still there")
	}
}

func TestKnownPeersIsPrivate(t *testing.T) {
	if !hasModeBits {
		t.Skip("this system's modes say nothing")
	}
	k := tempKnown(t)
	if err := k.pin(mustAddress(t, "ws://a:1"), someID(1), ""); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{k.path: 0o600, k.path + ".lock": 0o600, filepath.Dir(k.path): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if err := os.Chmod(k.path, 0o622); err != nil {
		t.Fatal(err)
	}
	if _, err := k.list(); err == nil || !strings.Contains(err.Error(), "changed by others") {
		t.Errorf("a file that others can write: %v", err)
	}
}

func TestOtherLinesStay(t *testing.T) {
	k := tempKnown(t)
	if err := makePrivateDir(k.path); err != nil {
		t.Fatal(err)
	}
	before := "# my peers\n\nhttp://a:1 " + someID(1).String() + " since=2026  two  blanks \r\n\t\nws://b:2\t" + someID(2).String()
	if err := os.WriteFile(k.path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.pin(mustAddress(t, "ws://c:3"), someID(3), "three"); err != nil {
		t.Fatal(err)
	}
	want := before + "\nws://c:3 " + someID(3).String() + " three\n"
	if got, _ := os.ReadFile(k.path); string(got) != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if err := k.forget(mustAddress(t, "ws://b:2")); err != nil {
		t.Fatal(err)
	}
	want = strings.Replace(want, "ws://b:2\t"+someID(2).String()+"\n", "", 1)
	if got, _ := os.ReadFile(k.path); string(got) != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestBadLines(t *testing.T) {
	id := someID(1).String()
	good := "http://a:1 " + id + "\n"
	for name, tc := range map[string]struct{ text, want string }{
		"no ID":           {good + "http://b:1\n", "line 2"},
		"bad ID":          {good + "# x\nhttp://b:1 hello\n", "line 3"},
		"short ID":        {"http://b:1 " + id[:20] + "\n", "line 1"},
		"bad address":     {"\n\nb:1 " + id, "line 3"},
		"unknown scheme":  {"ftp://b:1 " + id + "\n", "line 1"},
		"twice":           {good + good, "line 2: http://a:1 stands in line 1"},
		"twice otherwise": {good + "HTTP://A:01/ " + id, "line 2"},
		"rubbish":         {"\x00\xff\x1b[2J", "line 1"},
	} {
		k := tempKnown(t)
		if err := makePrivateDir(k.path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(k.path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := k.list(); err == nil || !strings.Contains(err.Error(), tc.want) || strings.ContainsRune(err.Error(), 0x1b) {
			t.Errorf("%s: list: %v, want %q", name, err, tc.want)
		}
		if err := k.pin(mustAddress(t, "ws://c:3"), someID(3), ""); err == nil {
			t.Errorf("%s: a file that cannot be read was written", name)
		}
		if got, _ := os.ReadFile(k.path); string(got) != tc.text {
			t.Errorf("%s: the file has changed", name)
		}
	}
}

// TestConcurrentWriters has many writers and readers at once: no pin is lost,
// and nobody ever sees half a file.
func TestConcurrentWriters(t *testing.T) {
	k := tempKnown(t)
	const writers, each = 8, 5
	var writing, reading sync.WaitGroup
	stop := make(chan struct{})
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := k.list(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				if err := k.pin(mustAddress(t, fmt.Sprintf("ws://w%d:%d", w, i+1)), someID(byte(w)), ""); err != nil {
					t.Error(err)
				}
			}
			if err := k.forget(mustAddress(t, fmt.Sprintf("ws://w%d:1", w))); err != nil {
				t.Error(err)
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	peers, err := k.list()
	if err != nil || len(peers) != writers*(each-1) {
		t.Errorf("%d pins are left, want %d (%v)", len(peers), writers*(each-1), err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(k.path), ".known_peers-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestReplacementIsAtomic keeps the old file open: it must stay whole, since a
// new file took its place.
func TestReplacementIsAtomic(t *testing.T) {
	k := tempKnown(t)
	if err := k.pin(mustAddress(t, "ws://a:1"), someID(1), ""); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(k.path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	want, _ := os.ReadFile(k.path)
	if err := k.pin(mustAddress(t, "ws://b:1"), someID(2), ""); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(old); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the old file holds %q (%v), want %q", got.Bytes(), err, want)
	}
}

func TestKnownPeersBehindLink(t *testing.T) {
	k := tempKnown(t)
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	if err := os.WriteFile(real, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := makePrivateDir(k.path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, k.path); err != nil {
		t.Fatal(err)
	}
	if err := k.pin(mustAddress(t, "ws://a:1"), someID(1), ""); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(real); !strings.HasPrefix(string(text), "ws://a:1 ") {
		t.Errorf("the real file holds %q", text)
	}
	if info, err := os.Lstat(k.path); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
}

func FuzzKnownPeers(f *testing.F) {
	f.Add([]byte("# c\nhttp://a:1 " + someID(1).String() + " x\n\nws://b:2 " + someID(2).String()))
	f.Add([]byte("http://a:1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines, err := parseKnownPeers(text)
		if err != nil {
			return
		}
		var again bytes.Buffer
		for _, l := range lines {
			again.WriteString(l.text + "\n")
		}
		if got := bytes.TrimSuffix(again.Bytes(), []byte("\n")); !bytes.Equal(got, bytes.TrimSuffix(text, []byte("\n"))) {
			t.Fatalf("%q became %q", text, got)
		}
	})
}
