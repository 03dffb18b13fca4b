package redis_test

import (
	"context"
	"errors"
	"fmt"
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

// patience is what the tests' store waits for at most, and margin what a
// crowded machine may add.
const (
	patience = "dial_timeout=1s&read_timeout=1s&write_timeout=1s&pool_timeout=1s"
	margin   = 10 * time.Second
)

// A load writes, and remembers what the store said about it.
type load struct {
	p        session.Provider
	bound    time.Duration
	sequence atomic.Int64
	done     sync.Map // key: version of a PutIfAbsent that was reported as done
	failed   atomic.Int64
	good     atomic.Int64
	slowest  atomic.Int64
	last     atomic.Pointer[error] // for the log
}

// run writes from workers goroutines until ctx ends.
func (l *load) run(ctx context.Context, workers int) (wait func()) {
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for ctx.Err() == nil {
				l.one()
			}
		})
	}
	return all.Wait
}

func (l *load) one() {
	key := "load/" + strconv.FormatInt(l.sequence.Add(1), 10)
	call, cancel := context.WithTimeout(context.Background(), l.bound)
	defer cancel()
	begin := time.Now()
	version, err := l.p.PutIfAbsent(call, key, []byte(key), time.Hour)
	if took := int64(time.Since(begin)); took > l.slowest.Load() {
		l.slowest.Store(took)
	}
	switch {
	case err != nil:
		l.failed.Add(1)
		l.last.Store(&err)
		time.Sleep(time.Millisecond) // as somebody who answers 503 has other things to do
	case version == 0:
		// Nobody else writes this key: the store has hidden a second attempt.
		l.done.Store(key, uint64(0))
	default:
		l.good.Add(1)
		l.done.Store(key, version)
	}
}

// check reads back all that was reported as done.
func (l *load) check(t *testing.T) {
	t.Helper()
	n := 0
	l.done.Range(func(k, v any) bool {
		key, version := k.(string), v.(uint64)
		if version == 0 {
			t.Errorf("%s: PutIfAbsent says that somebody else was first", key)
			return true
		}
		var r session.Record
		eventually(t, "reading back", func() (err error) {
			r, err = l.p.Get(bounded(t, margin), key)
			if errors.Is(err, session.ErrNotFound) {
				return nil
			}
			return err
		})
		if string(r.Value) != key || r.Version != version {
			t.Errorf("%s was reported as done with version %d; it is %q, version %d", key, version, r.Value, r.Version)
		}
		n++
		return true
	})
	if n == 0 {
		t.Error("nothing was reported as done")
	}
	t.Logf("%d writes done, %d failed, the slowest took %v", n, l.failed.Load(), time.Duration(l.slowest.Load()))
}

// grows waits until more calls succeed (or fail) than now.
func (l *load) grows(t *testing.T, what string, n *atomic.Int64) {
	t.Helper()
	before := n.Load()
	eventually(t, what, func() error {
		if n.Load() < before+20 {
			if last := l.last.Load(); last != nil {
				return fmt.Errorf("%d calls, and %d then; the last error is: %w", before, n.Load(), *last)
			}
			return errors.New("no error")
		}
		return nil
	})
}

// TestServerBreaks pauses, kills and restarts the server in the middle of load:
// no wait is longer than its bound, no write is reported as done that was not,
// and the store recovers by itself.
func TestServerBreaks(t *testing.T) {
	// With "everysec", Redis may put off writing what it has said is done.
	s := servers.NewRedis(t, "--appendfsync", "always")
	l := &load{p: open(t, s.DSN+"?"+patience), bound: 500 * time.Millisecond}
	ctx, stop := context.WithCancel(t.Context())
	wait := l.run(ctx, 16)
	defer wait()
	defer stop()
	l.grows(t, "the first calls succeed", &l.good)
	for _, fault := range []struct {
		name       string
		make, mend func(t testing.TB)
	}{
		{"paused", s.Pause, s.Resume},
		{"killed", s.Kill, s.Start},
		{"stopped", s.Stop, s.Start},
	} {
		fault.make(t)
		l.grows(t, "calls to a server that is "+fault.name+" fail", &l.failed)
		fault.mend(t)
		l.grows(t, "calls succeed after it was "+fault.name, &l.good)
	}
	stop()
	wait()
	if slowest := time.Duration(l.slowest.Load()); slowest > l.bound+margin {
		t.Errorf("a call with %v of time took %v", l.bound, slowest)
	}
	l.check(t)
}

// TestBoundsWithoutDeadline: a context without an end waits for the timeouts of
// the store.
func TestBoundsWithoutDeadline(t *testing.T) {
	s := servers.NewRedis(t)
	p := open(t, s.DSN+"?"+patience)
	must(t, p.Put(t.Context(), "a", []byte("1"), time.Hour))
	s.Pause(t)
	for what, f := range map[string]func(ctx context.Context) error{
		"Get":         func(ctx context.Context) error { return second(p.Get(ctx, "a")) },
		"Put":         func(ctx context.Context) error { return p.Put(ctx, "a", nil, 0) },
		"PutIfAbsent": func(ctx context.Context) error { return second(p.PutIfAbsent(ctx, "b", nil, 0)) },
		"List":        func(ctx context.Context) error { return second(p.List(ctx, "", "", 1)) },
	} {
		begin := time.Now()
		err := f(context.Background())
		if took := time.Since(begin); err == nil || took > 4*time.Second+margin {
			t.Errorf("%s: %v after %v", what, err, took)
		}
		begin = time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		err = f(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > margin {
			t.Errorf("%s with a deadline: %v after %v", what, err, time.Since(begin))
		}
	}
	s.Resume(t)
	eventually(t, "it recovers", func() error { return second(p.Get(t.Context(), "a")) })
}

// TestUnreachable: nobody listens, nobody answers, somebody else answers, and
// the wrong password.
func TestUnreachable(t *testing.T) {
	s := servers.Redis(t)
	silent := listen(t, func(conn net.Conn) { io.Copy(io.Discard, conn) })
	chatty := listen(t, func(conn net.Conn) { io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	for name, url := range map[string]string{
		"nobody listens":  "redis://:hunter2@127.0.0.1:" + freePort(t),
		"no answer":       "redis://:hunter2@" + silent,
		"no Redis":        "redis://:hunter2@" + chatty,
		"no such host":    "redis://:hunter2@host.invalid",
		"no such socket":  "unix://:hunter2@/nonexistent/redis.sock",
		"wrong password":  "redis://:hunter2@" + s.Addr,
		"wrong user":      "redis://nobody:hunter2@" + s.Addr,
		"no password":     "redis://" + s.Addr,
		"no database":     strings.TrimSuffix(s.DSN, "/0") + "/999",
		"no cluster":      s.DSN + "?cluster=true",
		"no sentinel":     "redis://:hunter2@" + s.Addr + "?master_name=m&password=hunter2",
		"nobody sentinel": "redis://:hunter2@127.0.0.1:" + freePort(t) + "?master_name=m&password=hunter2",
	} {
		t.Run(name, func(t *testing.T) {
			sep := "?"
			if strings.Contains(url, "?") {
				sep = "&"
			}
			begin := time.Now()
			_, err := tryOpen(t, url+sep+patience)
			if err == nil {
				t.Fatal("the store opens")
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), s.Password) {
				t.Errorf("the error repeats the password: %v", err)
			}
			t.Log(err)
		})
	}
}

// listen serves connections in one way until the test ends.
func listen(t *testing.T, serve func(conn net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return l.Addr().String()
}

// TestWritesAreSentOnce cuts the connection when a command is on its way: the
// server has run it once, and the caller is told that nobody knows.
func TestWritesAreSentOnce(t *testing.T) {
	s := servers.NewRedis(t)
	a := admin(t, s)
	var cut atomic.Bool
	proxy := listen(t, func(client net.Conn) {
		server, err := net.Dial("tcp", s.Addr)
		if err != nil {
			return
		}
		var both sync.WaitGroup
		both.Go(func() {
			io.Copy(server, client)
			server.(*net.TCPConn).CloseWrite()
		})
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil || cut.Load() {
				break
			}
			client.Write(buf[:n])
		}
		server.Close()
		client.Close()
		both.Wait()
	})
	p := open(t, "redis://:"+s.Password+"@"+proxy+"?max_retries=5")
	ctx := t.Context()
	must(t, p.Put(ctx, "a", []byte("1"), time.Hour))
	r, err := p.Get(ctx, "a")
	must(t, err)
	must(t, second(p.Touch(ctx, "a", r.Version, time.Hour)))
	must(t, second(p.CompareAndSwap(ctx, "b", 1, nil, time.Hour)))
	for what, test := range map[string]struct {
		command string
		run     func() error
	}{
		"Put":            {"set", func() error { return p.Put(ctx, "a", []byte("2"), time.Hour) }},
		"PutIfAbsent":    {"set", func() error { return second(p.PutIfAbsent(ctx, "c", nil, time.Hour)) }},
		"CompareAndSwap": {"evalsha", func() error { return second(p.CompareAndSwap(ctx, "a", r.Version, nil, time.Hour)) }},
		"Touch":          {"evalsha", func() error { return second(p.Touch(ctx, "a", r.Version, time.Hour)) }},
		"Delete":         {"del", func() error { return p.Delete(ctx, "a") }},
	} {
		before := calls(t, a, test.command)
		cut.Store(true)
		err := test.run()
		cut.Store(false)
		if err == nil || errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s whose answer was lost: %v", what, err)
		}
		if n := calls(t, a, test.command) - before; n != 1 {
			t.Errorf("%s was sent %d times, want once", what, n)
		}
		// A connection that is broken by now is not used again.
		eventually(t, "it recovers", func() error {
			if _, err := p.Get(ctx, "none"); !errors.Is(err, session.ErrNotFound) {
				return fmt.Errorf("Get: %w", err)
			}
			return nil
		})
	}
}
