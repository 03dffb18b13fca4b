package file_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/file"
)

// inParallel runs f for 0 to n-1 in 64 goroutines.
func inParallel(n int, f func(i int)) {
	const goroutines = 64
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := g; i < n; i += goroutines {
				f(i)
			}
		})
	}
	wg.Wait()
}

// commits reads from the file how many transactions it has seen.
func commits(t *testing.T, path string) uint64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var most uint64
	for page := range int64(2) {
		var b [8]byte
		if _, err := f.ReadAt(b[:], page*int64(os.Getpagesize())+16+48); err != nil {
			t.Fatal(err)
		}
		most = max(most, binary.NativeEndian.Uint64(b[:]))
	}
	return most
}

func TestWritersShareACommit(t *testing.T) {
	path := newPath(t)
	s := open(t, file.Options{Path: path})
	ctx := t.Context()
	before := commits(t, path)
	release := s.Block()
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			if err := s.Put(ctx, strconv.Itoa(i), nil, 0); err != nil {
				t.Errorf("Put: %v", err)
			}
		})
	}
	for s.Waiting() < 64 {
		time.Sleep(time.Millisecond)
	}
	release()
	wg.Wait()
	if n := commits(t, path) - before; n != 1 {
		t.Errorf("64 writers that wait have made %d commits", n)
	}
	// What changes nothing is none.
	before = commits(t, path)
	for range 100 {
		if v, err := s.PutIfAbsent(ctx, "0", nil, 0); v != 0 || err != nil {
			t.Fatal(v, err)
		}
		if v, err := s.CompareAndSwap(ctx, "0", 1<<60, nil, 0); v != 0 || err != nil {
			t.Fatal(v, err)
		}
		if err := s.Delete(ctx, "none"); err != nil {
			t.Fatal(err)
		}
	}
	if n := commits(t, path) - before; n != 0 {
		t.Errorf("what changes nothing has made %d commits", n)
	}
}

// A disk that does not answer: callers return when their contexts end, reading
// goes on, and what waits is bounded.
func TestDiskIsSlow(t *testing.T) {
	s := open(t, file.Options{})
	if err := s.Put(t.Context(), "there", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	release := s.Block()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	var late atomic.Int32
	inParallel(200, func(i int) {
		if err := s.Put(ctx, strconv.Itoa(i), nil, 0); errors.Is(err, context.DeadlineExceeded) {
			late.Add(1)
		}
	})
	if n := late.Load(); n != 200 {
		t.Errorf("%d of 200 writers have returned with their context's error", n)
	}
	if waited := time.Since(begin); waited > 10*time.Second {
		t.Errorf("they have waited %v", waited)
	}
	if r, err := s.Get(t.Context(), "there"); err != nil || string(r.Value) != "1" {
		t.Errorf("Get: %q, %v", r.Value, err)
	}
	// More than the queue takes: they wait for room, as long as they like to.
	gone, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range file.QueueLen + 100 {
		wg.Go(func() {
			if err := s.Put(gone, "q"+strconv.Itoa(i), nil, 0); !errors.Is(err, context.Canceled) {
				t.Errorf("Put: %v", err)
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	stop()
	wg.Wait()
	release()
	if err := s.Put(t.Context(), "after", nil, 0); err != nil {
		t.Error(err)
	}
	// Who went before its turn has written nothing.
	if keys, err := s.List(t.Context(), "", "", 100); err != nil || len(keys) != 2 {
		t.Errorf("%q, %v", keys, err)
	}
}

func TestCloseEndsWaiting(t *testing.T) {
	s := open(t, file.Options{})
	release := s.Block()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := s.Put(t.Context(), strconv.Itoa(i), nil, 0); err != nil && !errors.Is(err, session.ErrClosed) {
				t.Errorf("Put: %v", err)
			}
		})
	}
	wg.Go(func() {
		for {
			if _, err := s.Get(t.Context(), "a"); errors.Is(err, session.ErrClosed) {
				return
			} else if !errors.Is(err, session.ErrNotFound) {
				t.Errorf("Get: %v", err)
				return
			}
		}
	})
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	time.Sleep(10 * time.Millisecond)
	release()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestFullOfBytes(t *testing.T) {
	s := open(t, file.Options{MaxBytes: 10_000})
	ctx := t.Context()
	if err := s.Put(ctx, "a", make([]byte, 5_000), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(ctx, "b", make([]byte, 5_000), 0); !errors.Is(err, session.ErrFull) {
		t.Errorf("Put: %v, want ErrFull", err)
	}
	r, _ := s.Get(ctx, "a")
	if v, err := s.CompareAndSwap(ctx, "a", r.Version, make([]byte, 20_000), 0); v != 0 || !errors.Is(err, session.ErrFull) {
		t.Errorf("CompareAndSwap: %d, %v, want ErrFull", v, err)
	}
	if after, err := s.Get(ctx, "a"); err != nil || len(after.Value) != 5_000 || after.Version != r.Version {
		t.Errorf("the old record is damaged: %d bytes, %v", len(after.Value), err)
	}
	// Room is counted back exactly, however often it is taken.
	for i := range 100 {
		if err := errors.Join(s.Put(ctx, "b", make([]byte, i*40), time.Hour), s.Delete(ctx, "b")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSessionsLeaveRoomForTheNode(t *testing.T) {
	path := newPath(t)
	s := open(t, file.Options{Path: path, MaxEntries: 100})
	fill := func(prefix string) int {
		for i := 0; ; i++ {
			if err := s.Put(t.Context(), prefix+strconv.Itoa(i), nil, 0); err != nil {
				if !errors.Is(err, session.ErrFull) {
					t.Fatal(err)
				}
				return i
			}
		}
	}
	if n := fill(session.UserPrefix); n != 75 {
		t.Errorf("%d user sessions, want 75", n)
	}
	// What is counted outlives the process.
	s.Close()
	s = open(t, file.Options{Path: path, MaxEntries: 100})
	if n := fill(session.UserPrefix + "again"); n != 0 {
		t.Errorf("%d more after opening again", n)
	}
	if n := fill(session.NodePrefix); n != 25 {
		t.Errorf("%d records of the node beside them, want 25", n)
	}
}

// Nobody sweeps and nobody reads: writers alone keep the file bounded, whose
// pages are used again.
func TestBoundedWithoutSweeping(t *testing.T) {
	c, path := newClock(), newPath(t)
	s := open(t, file.Options{Path: path, Now: c.Now, MaxEntries: 3_000})
	var first int64
	for round := range 12 {
		inParallel(2_000, func(i int) {
			if err := s.Put(t.Context(), fmt.Sprintf("%d/%d", round, i), make([]byte, 200), time.Second); err != nil {
				t.Errorf("round %d, record %d: %v", round, i, err)
			}
		})
		c.advance(time.Minute)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case round == 2:
			first = info.Size()
		case round > 2 && info.Size() > 2*first:
			t.Fatalf("round %d: the file has grown from %d to %d bytes", round, first, info.Size())
		}
	}
}

// The hard limit of the file is a full store, too.
func TestFileLimit(t *testing.T) {
	s := open(t, file.Options{})
	s.SetLimit(1 << 20)
	ctx := t.Context()
	var kept []string
	var err error
	for i := 0; err == nil; i++ {
		if i == 1000 {
			t.Fatal("a thousand records of 10,000 bytes in a file of 1 MiB")
		}
		k := strconv.Itoa(i)
		if _, err = s.PutIfAbsent(ctx, k, make([]byte, 10_000), 0); err == nil {
			kept = append(kept, k)
		}
	}
	if !errors.Is(err, session.ErrFull) || len(kept) < 10 {
		t.Fatalf("after %d records: %v", len(kept), err)
	}
	for _, k := range kept {
		if r, err := s.Get(ctx, k); err != nil || len(r.Value) != 10_000 {
			t.Fatalf("%s: %d bytes, %v", k, len(r.Value), err)
		}
	}
	// Those that are refused together do not take along one that has room.
	inParallel(64, func(i int) {
		switch i {
		case 0, 1, 2, 3:
			if err := s.Delete(ctx, kept[i]); err != nil {
				t.Errorf("Delete: %v", err)
			}
		default:
			if err := s.Put(ctx, "big"+strconv.Itoa(i), make([]byte, 300_000), 0); err != nil && !errors.Is(err, session.ErrFull) {
				t.Errorf("Put: %v", err)
			}
		}
	})
	// Removing goes on beyond the limit, and gives room back.
	for _, k := range kept {
		if err := s.Delete(ctx, k); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	if err := s.Put(ctx, kept[0], make([]byte, 10_000), 0); err != nil {
		t.Errorf("room that was given back is not there: %v", err)
	}
}
