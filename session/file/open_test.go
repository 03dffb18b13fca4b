package file_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/file"
)

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // which has no such bits
	}
	path := newPath(t)
	open(t, file.Options{Path: path})
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): os.ModeDir | 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
	}
}

func TestOneAtATime(t *testing.T) {
	path := newPath(t)
	first := open(t, file.Options{Path: path})
	begin := time.Now()
	second, err := file.New(file.Options{Path: path})
	if err == nil {
		second.Close()
		t.Fatal("the store is open twice")
	}
	if !strings.Contains(err.Error(), "open already") || errors.Is(err, file.ErrCorrupt) {
		t.Errorf("the error does not say it: %v", err)
	}
	if waited := time.Since(begin); waited > 20*time.Second {
		t.Errorf("New has waited %v", waited)
	}
	if err := first.Put(t.Context(), "a", []byte("1"), 0); err != nil {
		t.Errorf("the first one is disturbed: %v", err)
	}
	// One that is about to end is waited for.
	go func() { time.Sleep(100 * time.Millisecond); first.Close() }()
	open(t, file.Options{Path: path})
}

// What is not a store of ours is refused with a reason, and stays as it is.
func TestRefusesOthersFiles(t *testing.T) {
	foreign := func(o *bbolt.Options, change func(*bbolt.Tx) error) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			db, err := bbolt.Open(path, 0o600, o)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(change), db.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	bucket := func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("records"))
		return err
	}
	content := func(b []byte, mode os.FileMode) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := errors.Join(os.WriteFile(path, b, 0o600), os.Chmod(path, mode)); err != nil {
				t.Fatal(err)
			}
		}
	}
	ours := func(change func(t *testing.T, path string)) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			open(t, file.Options{Path: path}).Close()
			change(t, path)
		}
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		says string
	}{
		"text":                    {content([]byte(strings.Repeat("no store\n", 10_000)), 0o600), "no bbolt"},
		"short":                   {content([]byte("x"), 0o600), "no bbolt"},
		"zeros":                   {content(make([]byte, 1<<16), 0o600), "no bbolt"},
		"another's database":      {foreign(nil, bucket), "another program"},
		"one without a free list": {foreign(&bbolt.Options{NoFreelistSync: true}, bucket), "another program"},
		"folder":                  {func(t *testing.T, path string) { os.Mkdir(path, 0o700) }, "not a regular file"},
		"others may read":         {ours(func(t *testing.T, path string) { os.Chmod(path, 0o640) }), "chmod 600"},
		"others may write":        {ours(func(t *testing.T, path string) { os.Chmod(path, 0o602) }), "chmod 600"},
		"newer format": {ours(foreign(nil, func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("state")).Put([]byte("format"), []byte("owtp session store 2"))
		})), "newer release"},
		"no totals": {ours(foreign(nil, func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("state")).Delete([]byte("totals"))
		})), "totals"},
		"cut off": {ours(func(t *testing.T, path string) { os.Truncate(path, 9000) }), "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store")
			c.make(t, path)
			before, _ := os.ReadFile(path)
			s, err := file.New(file.Options{Path: path})
			if err == nil {
				s.Close()
				t.Fatal("it is opened")
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %q in it", err, c.says)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("it was changed")
			}
		})
	}
}

func TestProviderConfig(t *testing.T) {
	dir := t.TempDir()
	for config, good := range map[string]bool{
		dir + "/a": true, dir + "/b?maxEntries=10": true, dir + "/c?maxEntries=10&maxBytes=1000": true, dir + "/d?": true,
		"": false, "?maxEntries=1": false, dir + "/e?maxEntries=0": false, dir + "/e?maxEntries=x": false, dir + "/e?maxEntries=1&maxEntries=2": false,
		dir + "/e?entries=1": false, dir + "/e?%zz": false, dir + "/\x00": false, dir + "/e?maxBytes=9223372036854775807": false,
	} {
		p, err := session.Open(t.Context(), "file", &session.ManagerConfig{ProviderConfig: config})
		if (err == nil) != good {
			t.Errorf("%q: %v", config, err)
		}
		if err == nil {
			if got := p.Traits(); got.Name != "file" || !got.Durable || got.Shared || got.MayEvict || !got.Lists {
				t.Errorf("traits are %+v", got)
			}
			p.Close()
		}
	}
	for _, o := range []file.Options{{MaxEntries: -1}, {MaxBytes: -1}, {MaxSessions: -1}, {MaxEntries: 1, MaxSessions: 2}} {
		o.Path = dir + "/e"
		if _, err := file.New(o); err == nil {
			t.Errorf("New(%+v) is no error", o)
		}
	}
	if _, err := os.Stat(dir + "/e"); err == nil {
		t.Error("a refused configuration has made a file")
	}
}
