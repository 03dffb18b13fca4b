package file_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/file"
)

// use calls every method and returns what they say that is no answer. In some
// damaged files a page says that it is very long, and each write takes its time.
func use(s *file.Store, n int) (errs []error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	say := func(err error) {
		if err != nil && !errors.Is(err, session.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	for i := range n {
		key := strconv.Itoa(i)
		r, err := s.Get(ctx, key)
		say(err)
		if i%10 == 0 {
			_, err = s.CompareAndSwap(ctx, key, r.Version, make([]byte, 100), time.Hour)
			say(err)
			_, err = s.PutIfAbsent(ctx, "new"+key, make([]byte, 100), time.Hour)
			say(err)
			say(s.Delete(ctx, key))
		}
	}
	_, err := s.List(ctx, "", "", 1000)
	say(err)
	_, err = s.Sweep(ctx, 1000)
	say(err)
	return errs
}

func fill(t *testing.T, path string, n int) {
	t.Helper()
	s := open(t, file.Options{Path: path})
	inParallel(n, func(i int) {
		if err := s.Put(t.Context(), strconv.Itoa(i), make([]byte, 100), time.Hour*time.Duration(i%2)); err != nil {
			t.Errorf("Put: %v", err)
		}
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Octets of the file change at random: every method answers or returns an error,
// and nothing panics.
func TestDamaged(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "whole")
	fill(t, whole, 500)
	good, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		bad := append([]byte(nil), good...)
		switch seed % 3 {
		case 0: // a page of something else
			page := r.IntN(len(bad)/4096) * 4096
			for i := range 4096 {
				bad[page+i] = byte(r.Uint32())
			}
		case 1: // heads of pages
			for range 4 {
				bad[r.IntN(len(bad)/4096)*4096+r.IntN(64)] ^= 1 << r.IntN(8)
			}
		default: // a page of zeros, as a file system leaves it
			clear(bad[r.IntN(len(bad)/4096)*4096:][:4096])
		}
		path := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := file.New(file.Options{Path: path})
		if err != nil {
			if !errors.Is(err, file.ErrCorrupt) {
				t.Errorf("seed %d: New: %v, want ErrCorrupt", seed, err)
			}
			seen++
			continue
		}
		errs := use(s, 500)
		for _, err := range errs {
			if !errors.Is(err, file.ErrCorrupt) && !strings.HasPrefix(err.Error(), "file: ") {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
		if len(errs) > 0 {
			seen++
		}
		s.Close()
		again, err := file.New(file.Options{Path: path})
		if err == nil {
			again.Close()
		} else if !errors.Is(err, file.ErrCorrupt) {
			t.Errorf("seed %d: the lock is not given back: %v", seed, err)
		}
	}
	if seen < 6 {
		t.Errorf("%d of 30 damaged files were noticed; does the test damage anything?", seen)
	}
}

const childVar = "OWTP_FILE_CHILD"

// child runs a test's other half in a process of its own and returns its output.
func child(t *testing.T, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), childVar+"="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// TestTruncated cuts the file off under an open store: pages that are read are no
// longer there, which is a fault of the processor and not an error of a call.
func TestTruncated(t *testing.T) {
	path := os.Getenv(childVar)
	if path == "" {
		path = newPath(t)
		fill(t, path, 5000)
		if out := child(t, path); !strings.Contains(out, "still here") {
			t.Errorf("the process has not got through:\n%s", out)
		}
		return
	}
	// Not among the others' goroutines: bbolt may have stopped for good with
	// its locks held.
	s, err := file.New(file.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 3*4096); err != nil {
		t.Fatal(err)
	}
	errs := use(s, 5000)
	corrupt := false
	for _, err := range errs {
		corrupt = corrupt || errors.Is(err, file.ErrCorrupt)
	}
	if !corrupt {
		t.Errorf("nothing says that the file is damaged: %d errors", len(errs))
	}
	if err := s.Put(t.Context(), "a", nil, 0); !errors.Is(err, file.ErrCorrupt) {
		t.Errorf("Put afterwards: %v", err)
	}
	begin := time.Now()
	s.Close()
	if time.Since(begin) > 10*time.Second {
		t.Error("Close has waited for what never comes")
	}
	println("still here")
}
