//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package file_test

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/file"
)

// A pipe would make New wait for its other end.
func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := file.New(file.Options{Path: path}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("New: %v", err)
	}
}

// TestDiskFull writes until the system takes no more: the process may not make
// files longer than some MiB, which fails as a full disk does, in the middle of
// a commit.
func TestDiskFull(t *testing.T) {
	path := os.Getenv(childVar)
	if path == "" {
		path = newPath(t)
		if out := child(t, path); !strings.Contains(out, "still here") {
			t.Errorf("the process has not got through:\n%s", out)
		}
		// The file is whole: another process reads what was confirmed.
		s := open(t, file.Options{Path: path})
		if r, err := s.Get(t.Context(), "0"); err != nil || len(r.Value) != 10_000 {
			t.Errorf("after it: %d bytes, %v", len(r.Value), err)
		}
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	few := syscall.Rlimit{Cur: 3 << 20, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &few); err != nil {
		t.Fatal(err)
	}
	s := open(t, file.Options{Path: path})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var kept []string
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		k := strconv.Itoa(i)
		if _, err = s.PutIfAbsent(ctx, k, make([]byte, 10_000), 0); err == nil {
			kept = append(kept, k)
		}
	}
	if err == nil || errors.Is(err, file.ErrCorrupt) || len(kept) < 10 {
		t.Fatalf("after %d records: %v", len(kept), err)
	}
	// Reading goes on, and what failed has changed nothing.
	for _, k := range kept {
		if r, err := s.Get(ctx, k); err != nil || len(r.Value) != 10_000 {
			t.Fatalf("%s: %d bytes, %v", k, len(r.Value), err)
		}
	}
	if _, err := s.Get(ctx, strconv.Itoa(len(kept))); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("what was refused is there: %v", err)
	}
	// There is room again: the same store goes on.
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := s.Put(ctx, "later"+strconv.Itoa(i), make([]byte, 10_000), 0); err != nil {
			t.Fatalf("writing does not go on: %v", err)
		}
	}
	println("still here")
}
