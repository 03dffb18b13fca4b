package transporttest_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/httpt"
	"github.com/owtp-go/owtp/internal/memt"
	"github.com/owtp-go/owtp/internal/wst"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// server notes what arrives and answers "re:" and the message.
type server struct {
	mu  sync.Mutex
	got []string
	in  chan string
}

func newServer() *server { return &server{in: make(chan string, 100)} }

func (s *server) note(m transport.Message) transport.Message {
	s.mu.Lock()
	s.got = append(s.got, string(m.Data))
	s.mu.Unlock()
	s.in <- string(m.Data)
	m.Data = append([]byte("re:"), m.Data...)
	return m
}

func (s *server) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func (s *server) ServeConn(ctx context.Context, c transport.Conn) {
	for {
		m, err := c.Recv(ctx)
		if err != nil || c.Send(ctx, s.note(m)) != nil {
			return
		}
	}
}

func (s *server) ServeExchange(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
	return s.note(m), nil
}

func listen(t *testing.T, tr transport.Transport, addr string, h transport.Handler) transport.Config {
	t.Helper()
	l, err := tr.Listen(t.Context(), transporttest.Config(addr), h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return transporttest.Config(l.Addr().String())
}

func msg(s string) transport.Message {
	return transport.Message{Form: transport.Binary, Data: []byte(s)}
}

// overConns runs a test over both duplex transports.
func overConns(t *testing.T, test func(t *testing.T, s *server, p *transporttest.Proxy, dial func() transport.Conn)) {
	for _, tr := range []transport.ConnDialer{memt.New(), wst.New()} {
		t.Run(tr.Kind().String(), func(t *testing.T) {
			addr, proxyAddr := "127.0.0.1:0", "127.0.0.1:0"
			if tr.Kind() == transport.Memory {
				addr, proxyAddr = t.Name(), t.Name()+"/proxy"
			}
			s := newServer()
			p := transporttest.NewProxy(t, tr, transporttest.Config(proxyAddr), listen(t, tr, addr, s))
			test(t, s, p, func() transport.Conn {
				c, err := tr.DialConn(t.Context(), transporttest.Config(p.Addr()))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close("") })
				return c
			})
		})
	}
}

func send(t *testing.T, c transport.Conn, s string) {
	t.Helper()
	if err := c.Send(t.Context(), msg(s)); err != nil {
		t.Fatal(err)
	}
}

func wantRecv(t *testing.T, c transport.Conn, want string) {
	t.Helper()
	m, err := c.Recv(t.Context())
	if err != nil || string(m.Data) != want {
		t.Fatalf("got %q, %v, want %q", m.Data, err, want)
	}
}

func TestProxyConnHook(t *testing.T) {
	overConns(t, func(t *testing.T, s *server, p *transporttest.Proxy, dial func() transport.Conn) {
		var old transport.Message
		p.OnMessage(func(f transporttest.Flow) []transport.Message {
			switch text := string(f.Message.Data); {
			case f.Dir == transporttest.ToClient:
			case text == "drop":
				return nil
			case text == "twice":
				return []transport.Message{f.Message, f.Message}
			case text == "change":
				f.Message.Data[0] = 'X'
			case text == "keep":
				old = f.Message
			case text == "replay":
				return []transport.Message{old}
			}
			return []transport.Message{f.Message}
		})
		c := dial()
		for _, text := range []string{"keep", "drop", "twice", "change", "replay"} {
			send(t, c, text)
		}
		for _, want := range []string{"re:keep", "re:twice", "re:twice", "re:Xhange", "re:keep"} {
			wantRecv(t, c, want)
		}
		if got := s.seen(); !slices.Equal(got, []string{"keep", "twice", "twice", "Xhange", "keep"}) {
			t.Errorf("the server saw %q", got)
		}
		n := 0
		for _, f := range p.Recorded() {
			if f.Dir == transporttest.ToServer {
				if want := []string{"keep", "drop", "twice", "change", "replay"}[n]; string(f.Message.Data) != want || f.N != n || f.Conn != 0 {
					t.Errorf("record %d is %+v, want %q", n, f, want)
				}
				n++
			}
		}
		if n != 5 {
			t.Errorf("%d messages were recorded", n)
		}
	})
}

func TestProxyConnInject(t *testing.T) {
	overConns(t, func(t *testing.T, s *server, p *transporttest.Proxy, dial func() transport.Conn) {
		c := dial()
		send(t, c, "one")
		wantRecv(t, c, "re:one")
		if err := p.Inject(0, transporttest.ToClient, msg("forged")); err != nil {
			t.Fatal(err)
		}
		wantRecv(t, c, "forged")
		if err := p.Inject(0, transporttest.ToServer, msg("smuggled")); err != nil {
			t.Fatal(err)
		}
		wantRecv(t, c, "re:smuggled")
		if err := p.Inject(7, transporttest.ToServer, msg("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got error %v", err)
		}
		direct, err := p.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer direct.Close("")
		send(t, direct, "direct")
		wantRecv(t, direct, "re:direct")
	})
}

func TestProxyConnCutAndPause(t *testing.T) {
	overConns(t, func(t *testing.T, s *server, p *transporttest.Proxy, dial func() transport.Conn) {
		c := dial()
		p.Pause()
		send(t, c, "held")
		select {
		case <-s.in:
			t.Fatal("a message passed while the proxy was paused")
		case <-time.After(30 * time.Millisecond):
		}
		p.Resume()
		wantRecv(t, c, "re:held")

		p.CutAll()
		if _, err := c.Recv(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got error %v", err)
		}
		again := dial()
		send(t, again, "again")
		wantRecv(t, again, "re:again")

		p.SetDown(true)
		p.CutAll()
		if _, err := dial().Recv(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got error %v", err)
		}
		p.SetDown(false)
		p.Pause()
		_ = dial().Send(t.Context(), msg("held until the end")) // must not hold up the clean-up
	})
}

// overHTTP returns what a test of exchanges needs.
func overHTTP(t *testing.T) (*server, *transporttest.Proxy, func(string) (string, error)) {
	s := newServer()
	p := transporttest.NewProxy(t, httpt.New(), transporttest.Config("127.0.0.1:0"), listen(t, httpt.New(), "127.0.0.1:0", s))
	x, err := httpt.New().DialExchange(t.Context(), transporttest.Config(p.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	return s, p, func(text string) (string, error) {
		m, err := x.Exchange(t.Context(), msg(text))
		return string(m.Data), err
	}
}

func TestProxyExchangeHook(t *testing.T) {
	s, p, call := overHTTP(t)
	p.OnMessage(func(f transporttest.Flow) []transport.Message {
		text := string(f.Message.Data)
		switch {
		case text == "drop", text == "re:mute":
			return nil
		case text == "twice":
			return []transport.Message{msg("first"), msg("second")}
		case text == "re:change":
			return []transport.Message{msg("forged")}
		}
		return []transport.Message{f.Message}
	})
	for _, c := range []struct {
		text, want string
		status     int
		reaches    []string
	}{
		{"plain", "re:plain", 0, []string{"plain"}},
		{"drop", "", 502, nil},
		{"mute", "", 502, []string{"mute"}},
		{"change", "forged", 0, []string{"change"}},
		{"twice", "re:first", 0, []string{"first", "second"}},
	} {
		before := len(s.seen())
		got, err := call(c.text)
		var refusal *transport.Refusal
		if got != c.want || (err == nil) != (c.status == 0) || err != nil && (!errors.As(err, &refusal) || refusal.Status != c.status) {
			t.Errorf("%s: got %q, %v", c.text, got, err)
		}
		if reached := s.seen()[before:]; !slices.Equal(reached, c.reaches) {
			t.Errorf("%s: the server saw %q", c.text, reached)
		}
	}
	p.SetPick(transporttest.LastAnswer)
	if got, err := call("twice"); got != "re:second" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestProxyExchangeReplayAndTarget(t *testing.T) {
	s, p, call := overHTTP(t)
	if _, err := call("one"); err != nil {
		t.Fatal(err)
	}
	recorded := p.Recorded()
	if len(recorded) != 2 || string(recorded[0].Message.Data) != "one" || string(recorded[1].Message.Data) != "re:one" || recorded[1].Dir != transporttest.ToClient {
		t.Fatalf("recorded %v", recorded)
	}
	if m, err := p.Exchange(t.Context(), recorded[0].Message); err != nil || string(m.Data) != "re:one" {
		t.Errorf("got %q, %v", m.Data, err)
	}
	other := newServer()
	target := listen(t, httpt.New(), "127.0.0.1:0", other)
	if _, err := p.ExchangeWith(t.Context(), target, recorded[0].Message); err != nil {
		t.Error(err)
	}
	p.SetTarget(target)
	if got, err := call("two"); got != "re:two" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got := s.seen(); !slices.Equal(got, []string{"one", "one"}) {
		t.Errorf("the first server saw %q", got)
	}
	if got := other.seen(); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("the other server saw %q", got)
	}
	p.SetDown(true)
	var refusal *transport.Refusal
	if _, err := call("three"); !errors.As(err, &refusal) || refusal.Status != 502 || !strings.Contains(refusal.Reason, "down") {
		t.Errorf("got error %v", err)
	}
}

func TestProxyExchangeCut(t *testing.T) {
	_, p, call := overHTTP(t)
	p.Pause()
	done := make(chan error, 1)
	go func() {
		_, err := call("held")
		done <- err
	}()
	for {
		select {
		case err := <-done:
			var refusal *transport.Refusal
			if !errors.As(err, &refusal) || refusal.Status != 502 {
				t.Errorf("got error %v", err)
			}
			return
		case <-time.After(5 * time.Millisecond):
			p.CutAll()
		}
	}
}

func TestProxyUnderLoad(t *testing.T) {
	overConns(t, func(t *testing.T, _ *server, p *transporttest.Proxy, dial func() transport.Conn) {
		p.OnMessage(func(f transporttest.Flow) []transport.Message { return []transport.Message{f.Message} })
		var all sync.WaitGroup
		for range 4 {
			c := dial()
			all.Go(func() {
				for range 20 {
					if err := c.Send(t.Context(), msg("x")); err != nil {
						t.Error(err)
						return
					}
					if _, err := c.Recv(t.Context()); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		if n := len(p.Recorded()); n != 4*20*2 {
			t.Errorf("%d messages were recorded", n)
		}
	})
}
