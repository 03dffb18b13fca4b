package transporttest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/leakcheck"
	"github.com/owtp-go/owtp/transport"
)

// patience is how long the suite waits for what must happen soon.
const patience = 5 * time.Second

// Options fit the suite to a transport.
type Options struct {
	ServerTLS, ClientTLS *tls.Config // both or neither

	// Broker says that a message broker lies between the two sides: addr names
	// it, listeners at one address share its queue, what is in the queue waits
	// for the next of them, and a handler does not learn that its caller left.
	// addr gives each listener an empty queue.
	Broker bool

	// Tune changes the configurations of listeners and peers, for example to
	// name queues.
	Tune func(*transport.Config)
}

// suite is what every test of the suite needs.
type suite struct {
	new  func() transport.Transport
	addr func(t testing.TB) string
	opts Options
}

// TestTransport runs the tests that fit the transport's capability. newTransport
// makes a new one, and addr an address that nobody listens on, such as
// "127.0.0.1:0"; clients dial what the listener then says is its address.
func TestTransport(t *testing.T, newTransport func() transport.Transport, addr func(t testing.TB) string, opts Options) {
	s := &suite{new: newTransport, addr: addr, opts: opts}
	tr := newTransport()
	_, conns := tr.(transport.ConnDialer)
	_, exchanges := tr.(transport.ExchangeDialer)
	if !conns && !exchanges {
		t.Fatalf("%T can neither dial connections nor exchanges", tr)
	}
	t.Run("Listener", s.testListener)
	if conns {
		t.Run("Conn", s.testConns)
	}
	if exchanges {
		t.Run("Exchange", s.testExchanges)
	}
}

// listen starts a listener that ends with the test, and returns the
// configuration to dial it with.
func (s *suite) listen(t *testing.T, h transport.Handler) (transport.Listener, transport.Config) {
	t.Helper()
	cfg := Config(s.addr(t))
	cfg.TLS = s.opts.ServerTLS
	s.tune(&cfg)
	l, err := s.new().Listen(t.Context(), cfg, h)
	if err != nil {
		t.Fatalf("Listen: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Listener.Close: %v", err)
		}
	})
	peer := Config(l.Addr().String())
	peer.TLS = s.opts.ClientTLS
	s.tune(&peer)
	return l, peer
}

func (s *suite) tune(cfg *transport.Config) {
	if s.opts.Tune != nil {
		s.opts.Tune(cfg)
	}
}

func (s *suite) testListener(t *testing.T) {
	t.Run("AddressInUse", func(t *testing.T) {
		if s.opts.Broker {
			s.testListenersShare(t)
			return
		}
		l, _ := s.listen(t, Echo())
		cfg := Config(l.Addr().String())
		cfg.TLS = s.opts.ServerTLS
		s.tune(&cfg)
		second, err := s.new().Listen(t.Context(), cfg, Echo())
		if err == nil {
			_ = second.Close()
			t.Fatal("two listeners have the same address")
		}
		if second != nil {
			t.Error("Listen returned a Listener with its error")
		}
		if !bytes.Contains([]byte(err.Error()), []byte(cfg.Address)) {
			t.Errorf("the error %q does not name the address %s", err, cfg.Address)
		}
	})
	t.Run("CloseTwiceAndListenAgain", func(t *testing.T) {
		l, _ := s.listen(t, Echo())
		for range 2 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		cfg := Config(l.Addr().String())
		cfg.TLS = s.opts.ServerTLS
		s.tune(&cfg)
		again, err := s.new().Listen(t.Context(), cfg, Echo())
		if err != nil {
			t.Fatalf("the address is still taken after Close: %v", err)
		}
		_ = again.Close()
	})
	t.Run("ListenContextEndsOnlyListen", func(t *testing.T) {
		cfg := Config(s.addr(t))
		cfg.TLS = s.opts.ServerTLS
		s.tune(&cfg)
		ctx, cancel := context.WithCancel(t.Context())
		l, err := s.new().Listen(ctx, cfg, Echo())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		cancel()
		peer := Config(l.Addr().String())
		peer.TLS = s.opts.ClientTLS
		s.tune(&peer)
		s.mustEcho(t, peer)
	})
	t.Run("CloseLeavesNoGoroutine", s.testNoGoroutineLeft)
}

// testListenersShare lets two listeners consume one queue, and one of them leave.
func (s *suite) testListenersShare(t *testing.T) {
	l, peer := s.listen(t, Echo())
	second, err := s.new().Listen(t.Context(), peer, Echo())
	if err != nil {
		t.Fatalf("a second listener: %v", err)
	}
	for range 4 {
		s.mustEcho(t, peer)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	s.mustEcho(t, peer)
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

// mustEcho makes one round trip, whatever the capability.
func (s *suite) mustEcho(t *testing.T, peer transport.Config) {
	t.Helper()
	if _, ok := s.new().(transport.ExchangeDialer); ok {
		x := s.dialExchange(t, peer)
		roundTrip(t, x.Exchange, transport.Message{Form: transport.Binary, Data: []byte("still there?")})
		return
	}
	roundTrip(t, overConn(s.dialConn(t, peer)), transport.Message{Form: transport.Binary, Data: []byte("still there?")})
}

func (s *suite) testNoGoroutineLeft(t *testing.T) {
	before := len(leakcheck.Wait(0))
	l, peer := s.listen(t, Echo())
	t.Run("traffic", func(t *testing.T) {
		for range 3 {
			s.mustEcho(t, peer)
		}
	})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	soon(t, "the goroutines of the listener are gone", func() bool {
		return len(leakcheck.Wait(0)) <= before
	})
}

type exchange func(context.Context, transport.Message) (transport.Message, error)

// overConn is an exchange with a peer that echoes.
func overConn(c transport.Conn) exchange {
	return func(ctx context.Context, m transport.Message) (transport.Message, error) {
		if err := c.Send(ctx, m); err != nil {
			return transport.Message{}, err
		}
		return c.Recv(ctx)
	}
}

func roundTrip(t *testing.T, do exchange, m transport.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	want := clone(m)
	got, err := do(ctx, m)
	if err != nil {
		t.Fatalf("a message of %d bytes: %v", len(want.Data), err)
	}
	if got.Form != want.Form || !bytes.Equal(got.Data, want.Data) {
		t.Fatalf("sent form %d with %d bytes, got form %d with %d bytes", want.Form, len(want.Data), got.Form, len(got.Data))
	}
}

// pattern returns n bytes that are valid in a text message too.
func pattern(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = 'a' + byte(i%23)
	}
	return data
}

func soon(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// within fails when ch is silent for too long.
func within[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("not in time: %s", what)
		panic("unreachable")
	}
}

func wantClosed(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("%s: got error %v, want net.ErrClosed", what, err)
	}
}
