package sqltest

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

// LostAnswer cuts a connection off when the server has done what it was told and
// before the store knows. The method must fail: a second attempt would find what
// the first has done and report somebody else's.
func LostAnswer(t *testing.T, addr string, open func(addr string) session.Provider) {
	t.Helper()
	m := between(t, addr)
	p := open(m.Addr().String())
	ctx := t.Context()
	// warm makes the connection one that knows the statements: the next answer
	// is to the statement itself.
	warm := func() {
		t.Helper()
		if v, err := p.PutIfAbsent(ctx, Prefix(), nil, time.Hour); v == 0 || err != nil {
			t.Fatal(v, err)
		}
		if v, err := p.CompareAndSwap(ctx, "warm", 1, nil, time.Hour); v != 0 || err != nil {
			t.Fatal(v, err)
		}
	}
	for range 3 {
		key := Prefix()
		for what, do := range map[string]func() error{
			"PutIfAbsent": func() error {
				v, err := p.PutIfAbsent(ctx, key+"absent", []byte("done"), time.Hour)
				if err == nil {
					t.Errorf("PutIfAbsent: version %d and no error", v)
				}
				return err
			},
			"CompareAndSwap": func() error {
				version := must[uint64](t)(p.PutIfAbsent(ctx, key+"swap", []byte("before"), time.Hour))
				m.cut.Store(true)
				v, err := p.CompareAndSwap(ctx, key+"swap", version, []byte("done"), time.Hour)
				if err == nil {
					t.Errorf("CompareAndSwap: version %d and no error", v)
				}
				return err
			},
		} {
			warm()
			m.cut.Store(what == "PutIfAbsent")
			if err := do(); err == nil || m.cut.Load() {
				t.Fatalf("%s: %v; the answer was lost: %v", what, err, !m.cut.Load())
			}
		}
		for _, k := range []string{"absent", "swap"} {
			if r, err := p.Get(ctx, key+k); err != nil || string(r.Value) != "done" {
				t.Errorf("what the server has done: %q, %v", r.Value, err)
			}
		}
	}
}

// A middle passes bytes on, and loses the next answer where it is told to.
type middle struct {
	net.Listener
	to    string
	cut   atomic.Bool
	conns sync.WaitGroup
}

func between(t *testing.T, addr string) *middle {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &middle{Listener: l, to: addr}
	m.conns.Go(m.accept)
	t.Cleanup(func() { l.Close(); m.conns.Wait() })
	return m
}

func (m *middle) accept() {
	for {
		client, err := m.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", m.to)
		if err != nil {
			client.Close()
			continue
		}
		m.conns.Go(func() { m.pass(server, client, false) })
		m.conns.Go(func() { m.pass(client, server, true) })
	}
}

func (m *middle) pass(to, from net.Conn, answers bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || answers && m.cut.CompareAndSwap(true, false) {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// At replaces the address in a DSN.
func At(dsn, old, addr string) string { return strings.Replace(dsn, old, addr, 1) }
