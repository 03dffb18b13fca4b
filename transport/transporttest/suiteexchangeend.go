package transporttest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/transport"
)

func (s *suite) testExchangeContextEnds(t *testing.T) {
	h, entered, ended := blocking()
	_, peer := s.listen(t, h)
	x := s.dialExchange(t, peer)
	ctx, cancel := context.WithCancel(t.Context())
	failed := inBackground(ctx, x)
	within(t, "the handler runs", entered)
	cancel()
	err := within(t, "Exchange returns", failed)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want that of the context", err)
	}
	if errors.Is(err, transport.ErrNotSent) {
		t.Error("the error says that nothing was sent")
	}
	if !s.opts.Broker { // which would not know whom to tell
		within(t, "the handler learns that nobody waits", ended)
	}
}

func (s *suite) testExchangeContextEndsBefore(t *testing.T) {
	var ran atomic.Bool
	_, peer := s.listen(t, HandlerFuncs{Exchange: func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
		ran.Store(true)
		return Answer(m), nil
	}})
	x := s.dialExchange(t, peer)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := within(t, "Exchange returns", inBackground(ctx, x))
	if !errors.Is(err, context.Canceled) || !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got error %v, want ErrNotSent with that of the context", err)
	}
	if ran.Load() {
		t.Error("the handler ran")
	}
}

func (s *suite) testExchangeCloseHere(t *testing.T) {
	h, entered, _ := blocking()
	_, peer := s.listen(t, h)
	x := s.dialExchange(t, peer)
	failed := inBackground(t.Context(), x)
	within(t, "the handler runs", entered)
	_ = x.Close()
	err := within(t, "Exchange returns", failed)
	wantClosed(t, "Exchange under way", err)
	if errors.Is(err, transport.ErrNotSent) {
		t.Error("the error says that nothing was sent")
	}
	err = within(t, "Exchange returns", inBackground(t.Context(), x))
	wantClosed(t, "Exchange after Close", err)
	if !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("Exchange after Close: got error %v, want ErrNotSent", err)
	}
}

func (s *suite) testExchangeShutdown(t *testing.T) {
	entered, proceed := make(chan struct{}), make(chan struct{})
	l, peer := s.listen(t, HandlerFuncs{Exchange: func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
		close(entered)
		<-proceed
		return Answer(m), nil
	}})
	x := s.dialExchange(t, peer)
	failed := inBackground(t.Context(), x)
	within(t, "the handler runs", entered)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := l.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown with an exchange under way: got error %v, want that of the context", err)
	}
	shut := make(chan error, 1)
	go func() { shut <- l.Shutdown(context.Background()) }()
	close(proceed)
	if err := within(t, "the exchange ends", failed); err != nil {
		t.Errorf("the exchange under way was broken off: %v", err)
	}
	if err := within(t, "Shutdown returns", shut); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func (s *suite) testExchangeListenerClose(t *testing.T) {
	h, entered, ended := blocking()
	l, peer := s.listen(t, h)
	x := s.dialExchange(t, peer)
	failed := inBackground(t.Context(), x)
	within(t, "the handler runs", entered)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	default:
		t.Error("Close returned before the handler did")
	}
	within(t, "Exchange returns", failed) // with an error or an answer that was just in time
}

// testExchangeSenderReusesData writes to the memory of a message as soon as
// Exchange has returned, however it ended. The race detector sees who still reads.
func (s *suite) testExchangeSenderReusesData(t *testing.T) {
	_, peer := s.listen(t, HandlerFuncs{Exchange: func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
		for _, c := range m.Data[1:] {
			if c != m.Data[0] {
				t.Errorf("a message begins with %q and has %q in it", m.Data[0], c)
				break
			}
		}
		return Answer(m), nil
	}})
	large := peer
	large.MaxMessage *= 8 // is refused before it was read
	for _, peer := range []transport.Config{peer, large} {
		x := s.dialExchange(t, peer)
		data := make([]byte, peer.MaxMessage)
		for i := range 20 {
			for n := range data {
				data[n] = 'a' + byte(i)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*i)*50*time.Microsecond)
			_, _ = x.Exchange(ctx, transport.Message{Form: transport.Binary, Data: data})
			cancel()
		}
	}
}
