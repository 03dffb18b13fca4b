package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/transport"
)

func (s *suite) testExchanges(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"RoundTrips":        s.testExchangeRoundTrips,
		"Concurrent":        s.testExchangeConcurrent,
		"TooLarge":          s.testExchangeTooLarge,
		"AnswerTooLarge":    s.testExchangeAnswerTooLarge,
		"Refusals":          s.testExchangeRefusals,
		"HandlerPanics":     s.testExchangePanics,
		"ContextEnds":       s.testExchangeContextEnds,
		"ContextEndsBefore": s.testExchangeContextEndsBefore,
		"CloseHere":         s.testExchangeCloseHere,
		"DialNobody":        s.testExchangeDialNobody,
		"ConnectionsReused": s.testExchangeReuse,
		"SenderReusesData":  s.testExchangeSenderReusesData,
		"Shutdown":          s.testExchangeShutdown,
		"ListenerClose":     s.testExchangeListenerClose,
	} {
		t.Run(name, test)
	}
	if s.opts.Broker {
		t.Run("EndpointShutdown", s.testEndpointShutdown)
	}
}

func (s *suite) dialExchange(t *testing.T, peer transport.Config) transport.Exchanger {
	t.Helper()
	x, err := s.new().(transport.ExchangeDialer).DialExchange(t.Context(), peer)
	if err != nil {
		t.Fatalf("DialExchange: %v", err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Errorf("Exchanger.Close: %v", err)
		}
	})
	return x
}

// blocking is a handler that says when it has begun and waits for its context.
func blocking() (HandlerFuncs, chan struct{}, chan struct{}) {
	entered, ended := make(chan struct{}, 16), make(chan struct{}, 16)
	return HandlerFuncs{Exchange: func(ctx context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
		entered <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return Answer(m), nil
	}}, entered, ended
}

func inBackground(ctx context.Context, x transport.Exchanger) <-chan error {
	failed := make(chan error, 1)
	go func() {
		_, err := x.Exchange(ctx, transport.Message{Form: transport.Binary, Data: []byte("x")})
		failed <- err
	}()
	return failed
}

func wantRefusal(t *testing.T, err error, status int) {
	t.Helper()
	var refusal *transport.Refusal
	if !errors.As(err, &refusal) || refusal.Status != status {
		t.Errorf("got error %v, want a refusal with status %d", err, status)
	}
}

func (s *suite) testExchangeRoundTrips(t *testing.T) {
	_, peer := s.listen(t, Echo())
	x := s.dialExchange(t, peer)
	for _, form := range []transport.Form{transport.Binary, transport.JSON} {
		for _, size := range []int{1, 100, 4096, 64 << 10, 64<<10 + 1, peer.MaxMessage} {
			roundTrip(t, x.Exchange, transport.Message{Form: form, Data: pattern(size)})
		}
	}
	// A transport may have no way to say nothing, but must not hang or invent.
	m, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary})
	var refusal *transport.Refusal
	if err == nil && len(m.Data) > 0 || err != nil && !errors.As(err, &refusal) {
		t.Errorf("an empty message: got %q and error %v", m.Data, err)
	}
	if x.RemoteAddr() == "" {
		t.Error("the exchanger does not know its peer's address")
	}
}

func (s *suite) testExchangeConcurrent(t *testing.T) {
	_, peer := s.listen(t, Echo())
	x := s.dialExchange(t, peer)
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			for n := range 8 {
				want := fmt.Appendf(pattern(i*n*10), "-%d-%d", i, n)
				m, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: bytes.Clone(want)})
				if err != nil || !bytes.Equal(m.Data, want) {
					t.Errorf("exchange %d of %d: got %d bytes, error %v", n, i, len(m.Data), err)
				}
			}
		})
	}
	all.Wait()
}

func (s *suite) testExchangeTooLarge(t *testing.T) {
	_, peer := s.listen(t, Echo())
	x := s.dialExchange(t, peer)
	_, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: pattern(peer.MaxMessage + 1)})
	wantRefusal(t, err, http.StatusRequestEntityTooLarge)
	if !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got error %v, want ErrNotSent: the limit is this side's own", err)
	}
	limit := peer.MaxMessage
	peer.MaxMessage *= 2
	x = s.dialExchange(t, peer)
	_, err = x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: pattern(limit + 1)})
	wantRefusal(t, err, http.StatusRequestEntityTooLarge)
	roundTrip(t, x.Exchange, transport.Message{Form: transport.Binary, Data: []byte("goes on")})
}

func (s *suite) testExchangeAnswerTooLarge(t *testing.T) {
	var size atomic.Int64
	_, peer := s.listen(t, HandlerFuncs{Exchange: func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
		m.Data = pattern(int(size.Load()))
		return Answer(m), nil
	}})
	peer.MaxMessage /= 2
	x := s.dialExchange(t, peer)
	size.Store(int64(peer.MaxMessage) + 1)
	_, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x")})
	wantRefusal(t, err, http.StatusRequestEntityTooLarge)
	size.Store(int64(peer.MaxMessage))
	if _, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x")}); err != nil {
		t.Errorf("an answer of just the limit: %v", err)
	}
}

func (s *suite) testExchangeRefusals(t *testing.T) {
	var answer atomic.Value
	_, peer := s.listen(t, HandlerFuncs{Exchange: func(context.Context, transport.Remote, transport.Message) (transport.Message, error) {
		return transport.Message{}, answer.Load().(func() error)()
	}})
	x := s.dialExchange(t, peer)
	for _, c := range []struct {
		name   string
		err    error
		status int
	}{
		{"bad request", &transport.Refusal{Status: 400, Reason: "no packet"}, 400},
		{"too many", &transport.Refusal{Status: 429, Reason: "slow down"}, 429},
		{"wrapped", fmt.Errorf("wrapped: %w", &transport.Refusal{Status: 503, Reason: "later"}), 503},
		{"any other error", errors.New("secret detail"), 500},
	} {
		answer.Store(func() error { return c.err })
		_, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x")})
		wantRefusal(t, err, c.status)
		if errors.Is(err, transport.ErrNotSent) {
			t.Errorf("%s: the error says that nothing was sent", c.name)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the peer learns of the error: %v", c.name, err)
		}
	}
}

func (s *suite) testExchangePanics(t *testing.T) {
	var once sync.Once
	_, peer := s.listen(t, HandlerFuncs{Exchange: func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
		once.Do(func() { panic("planted") })
		return Answer(m), nil
	}})
	x := s.dialExchange(t, peer)
	_, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x")})
	wantRefusal(t, err, http.StatusInternalServerError)
	roundTrip(t, x.Exchange, transport.Message{Form: transport.Binary, Data: []byte("alive")})
}

func (s *suite) testExchangeDialNobody(t *testing.T) {
	l, peer := s.listen(t, Echo())
	_ = l.Close()
	if s.opts.Broker {
		s.testExchangeWaitsInQueue(t, peer)
		return
	}
	x, err := s.new().(transport.ExchangeDialer).DialExchange(t.Context(), peer)
	if err == nil {
		_, err = x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x")})
		_ = x.Close()
	}
	if !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got error %v, want ErrNotSent", err)
	}
}

// testExchangeWaitsInQueue: a broker keeps what nobody serves at the moment for
// who comes next, or knows that nobody does.
func (s *suite) testExchangeWaitsInQueue(t *testing.T, peer transport.Config) {
	x := s.dialExchange(t, peer)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := x.Exchange(ctx, transport.Message{Form: transport.Binary, Data: []byte("x")})
	if !errors.Is(err, transport.ErrNotSent) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want that of the context, or ErrNotSent", err)
	}
}

func (s *suite) testExchangeReuse(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[string]bool)
	_, peer := s.listen(t, HandlerFuncs{Exchange: func(_ context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
		mu.Lock()
		defer mu.Unlock()
		seen[from.Addr] = true
		return Answer(m), nil
	}})
	x := s.dialExchange(t, peer)
	for _, size := range []int{1, 100, 4096, 64 << 10, 1, 1000} {
		roundTrip(t, x.Exchange, transport.Message{Form: transport.Binary, Data: pattern(size)})
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 1 {
		t.Errorf("exchanges one after the other came from %d addresses: %v", len(seen), seen)
	}
	for addr := range seen {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			t.Errorf("the remote address: %v", err)
		}
	}
}
