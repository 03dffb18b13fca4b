package memcache_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

// eventually waits for what a server that comes back makes true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// TestServerBreaks pauses, kills and restarts the server in the middle of load:
// no wait is longer than its bound, no write is attempted twice, and the store
// recovers by itself.
func TestServerBreaks(t *testing.T) {
	s := servers.NewMemcached(t)
	p := open(t, s.DSN+"?timeout=1s&pool_size=8")
	const bound = 300 * time.Millisecond
	var sequence, good, failed, twice, slow atomic.Int64
	one := func() {
		key := "load/" + strconv.FormatInt(sequence.Add(1), 10)
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		defer cancel()
		begin := time.Now()
		version, err := p.PutIfAbsent(ctx, key, []byte(key), time.Hour)
		if time.Since(begin) > bound+5*time.Second {
			slow.Add(1)
		}
		switch {
		case err != nil:
			failed.Add(1)
			time.Sleep(time.Millisecond)
		case version == 0:
			twice.Add(1) // nobody else writes this key
		default:
			good.Add(1)
			if r, err := p.Get(ctx, key); err == nil && (string(r.Value) != key || r.Version != version) {
				t.Errorf("%s has %q, version %d; stored with version %d", key, r.Value, r.Version, version)
			}
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	defer workers.Wait()
	defer stop()
	for range 32 {
		workers.Go(func() {
			for ctx.Err() == nil {
				one()
			}
		})
	}
	grows := func(what string, n *atomic.Int64) {
		before := n.Load()
		eventually(t, what, func() bool { return n.Load() >= before+50 })
	}
	grows("calls succeed", &good)
	for _, fault := range []struct {
		name       string
		make, mend func(t testing.TB)
	}{{"paused", s.Pause, s.Resume}, {"killed", s.Kill, s.Start}, {"stopped", s.Stop, s.Start}} {
		fault.make(t)
		grows("calls to a server that is "+fault.name+" fail", &failed)
		fault.mend(t)
		grows("calls succeed after the server was "+fault.name, &good)
	}
	stop()
	workers.Wait()
	if twice.Load() > 0 || slow.Load() > 0 {
		t.Errorf("%d keys were found to be there, which nobody else has written; %d calls were slow", twice.Load(), slow.Load())
	}
}

// After a restart, whatever is asked finds nothing and no old connection: not
// even the first reader sees an error.
func TestRestart(t *testing.T) {
	s := servers.NewMemcached(t)
	p := open(t, s.DSN)
	ctx := t.Context()
	var wg sync.WaitGroup
	for i := range 32 { // so that there are connections
		wg.Go(func() {
			if err := p.Put(ctx, strconv.Itoa(i), nil, 0); err != nil {
				t.Errorf("Put: %v", err)
			}
		})
	}
	wg.Wait()
	r, err := p.Get(ctx, "1")
	if err != nil {
		t.Fatal(err)
	}
	s.Stop(t)
	s.Start(t)
	for i := range 100 {
		if _, err := p.Get(ctx, strconv.Itoa(i%32)); !errors.Is(err, session.ErrNotFound) {
			t.Fatalf("read %d after the restart: %v", i, err)
		}
	}
	if v, err := p.CompareAndSwap(ctx, "1", r.Version, nil, 0); v != 0 || err != nil {
		t.Errorf("CompareAndSwap: %d, %v", v, err)
	}
}

// A context ends: the call returns at once, with its error, and the store has
// all its connections afterwards.
func TestContext(t *testing.T) {
	s := servers.NewMemcached(t)
	p := open(t, s.DSN+"?timeout=10m&pool_size=4")
	if err := p.Put(t.Context(), "a", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	pause := func() {
		s.Pause(t)
		eventually(t, "the server has stopped", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := p.Get(ctx, "a")
			return err != nil
		})
	}
	pause()
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	for range 20 { // more than there are connections
		go func() {
			_, err := p.Get(ctx, "a")
			errs <- err
		}()
	}
	time.Sleep(50 * time.Millisecond)
	begin := time.Now()
	cancel()
	for range 20 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("Get: %v", err)
		}
	}
	late, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Delete(late, "b"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Delete: %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	s.Resume(t)
	for range 20 {
		if r, err := p.Get(t.Context(), "a"); err != nil || string(r.Value) != "1" {
			t.Fatalf("after it: %q, %v", r.Value, err)
		}
	}
	// Close does not wait for a server that does not answer.
	pause()
	go func() {
		_, err := p.Get(context.Background(), "a")
		errs <- err
	}()
	time.Sleep(50 * time.Millisecond)
	begin = time.Now()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-errs; !errors.Is(err, session.ErrClosed) {
		t.Errorf("Get during Close: %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("Close took %v", took)
	}
}

// What does not speak the protocol, or not at all, is an error of Open, in time.
func TestWrongServer(t *testing.T) {
	serve := func(answer func(net.Conn)) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		all.Go(func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				all.Go(func() { defer conn.Close(); answer(conn) })
			}
		})
		t.Cleanup(func() { ln.Close(); all.Wait() })
		return ln.Addr().String()
	}
	says := func(text string) func(net.Conn) {
		return func(conn net.Conn) {
			bufio.NewReader(conn).ReadString('\n')
			io.WriteString(conn, text)
		}
	}
	closed := serve(func(net.Conn) {})
	for name, address := range map[string]string{
		"http":          serve(says("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")),
		"redis":         serve(says("-ERR unknown command 'version'\r\n")),
		"silence":       serve(func(conn net.Conn) { io.Copy(io.Discard, conn) }),
		"closes":        closed,
		"without end":   serve(func(conn net.Conn) { io.Copy(conn, neverEnds{}) }),
		"nobody":        "127.0.0.1:1",
		"no such host":  "memcached.invalid:11211",
		"no such file":  "/nonexistent/socket",
		"one of two":    servers.Memcached(t).Addr + ",127.0.0.1:1",
		"several wrong": "127.0.0.1:1,127.0.0.1:2",
	} {
		begin := time.Now()
		p, err := connect(t.Context(), address+"?timeout=500ms")
		if err == nil {
			p.Close()
			t.Errorf("%s: it is opened", name)
		} else if !strings.Contains(err.Error(), "memcache") {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s: %v", name, took)
		}
	}
}

type neverEnds struct{}

func (neverEnds) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}
