package transporttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp/transport"
)

func (s *suite) testConnCloseHere(t *testing.T) {
	near, far := s.pair(t)
	for i, c := range []transport.Conn{near, far} {
		received := recvInBackground(c)
		time.Sleep(5 * time.Millisecond) // let it block
		for range 2 {
			if err := c.Close("enough"); err != nil {
				t.Errorf("side %d: Close: %v", i, err)
			}
		}
		wantClosed(t, fmt.Sprintf("side %d: blocked Recv", i), within(t, "Recv returns", received))
		_, err := c.Recv(t.Context())
		wantClosed(t, "Recv after Close", err)
		wantClosed(t, "Send after Close", c.Send(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x")}))
	}
}

func (s *suite) testConnCloseThere(t *testing.T) {
	for _, closer := range []string{"dialler", "listener"} {
		t.Run(closer, func(t *testing.T) {
			here, there := s.pair(t)
			if closer == "dialler" {
				here, there = there, here
			}
			received := recvInBackground(here)
			_ = there.Close("enough")
			wantClosed(t, "blocked Recv", within(t, "Recv returns", received))
			// A network may swallow a first message, but not for ever.
			var err error
			soon(t, "Send fails", func() bool {
				err = here.Send(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x")})
				return err != nil
			})
			wantClosed(t, "Send", err)
		})
	}
}

func recvInBackground(c transport.Conn) <-chan error {
	received := make(chan error, 1)
	go func() {
		_, err := c.Recv(context.Background())
		received <- err
	}()
	return received
}

func (s *suite) testConnCloseFreesSend(t *testing.T) {
	near, _ := s.pair(t)
	failed, sending := make(chan error, 1), make(chan struct{}, 1<<16)
	go func() {
		for {
			if err := near.Send(context.Background(), transport.Message{Form: transport.Binary, Data: pattern(64 << 10)}); err != nil {
				failed <- err
				return
			}
			select {
			case sending <- struct{}{}:
			default:
			}
		}
	}()
	for blocked := false; !blocked; {
		select {
		case <-sending:
		case <-time.After(100 * time.Millisecond):
			blocked = true
		}
	}
	start := time.Now()
	_ = near.Close("enough")
	wantClosed(t, "blocked Send", within(t, "Send returns", failed))
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
}

func (s *suite) testConnCloseAmidTraffic(t *testing.T) {
	_, peer := s.listen(t, Echo())
	for i := range 5 {
		c := s.dialConn(t, peer)
		var all sync.WaitGroup
		all.Go(func() {
			for c.Send(context.Background(), transport.Message{Form: transport.Binary, Data: pattern(1000)}) == nil {
			}
		})
		all.Go(func() {
			for {
				if _, err := c.Recv(context.Background()); err != nil {
					wantClosed(t, "Recv", err)
					return
				}
			}
		})
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		for range 3 {
			all.Go(func() { _ = c.Close("enough") })
		}
		all.Wait()
	}
}

func (s *suite) testConnSentBeforeClose(t *testing.T) {
	near, far := s.pair(t)
	for range 5 {
		if err := far.Send(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("last words")}); err != nil {
			t.Fatal(err)
		}
	}
	go far.Close("said all")
	for i := range 5 {
		if _, err := near.Recv(t.Context()); err != nil {
			t.Fatalf("message %d that was sent before Close is lost: %v", i, err)
		}
	}
	_, err := near.Recv(t.Context())
	wantClosed(t, "Recv after the last", err)
}

func (s *suite) testConnContextEnds(t *testing.T) {
	near, _ := s.pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	received := make(chan error, 1)
	go func() {
		_, err := near.Recv(ctx)
		received <- err
	}()
	if err := within(t, "Recv returns", received); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Recv: got error %v, want that of the context", err)
	}
	if err := near.Send(ctx, transport.Message{Form: transport.Binary, Data: []byte("x")}); err == nil {
		t.Error("Send with an ended context succeeded")
	}
}

func (s *suite) testConnListenerClose(t *testing.T) {
	ended, entered := make(chan struct{}), make(chan struct{})
	l, peer := s.listen(t, HandlerFuncs{Conn: func(ctx context.Context, c transport.Conn) {
		defer close(ended)
		close(entered)
		_, _ = c.Recv(context.Background())
		<-ctx.Done()
	}})
	c := s.dialConn(t, peer)
	within(t, "the handler runs", entered)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	default:
		t.Error("Close returned before the handler did")
	}
	_, err := c.Recv(t.Context())
	wantClosed(t, "Recv", err)
}

func (s *suite) testConnShutdown(t *testing.T) {
	l, peer := s.listen(t, Echo())
	c := s.dialConn(t, peer)
	roundTrip(t, overConn(c), transport.Message{Form: transport.Binary, Data: []byte("before")})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.Shutdown(ctx); err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
	roundTrip(t, overConn(c), transport.Message{Form: transport.Binary, Data: []byte("after")})
	if c, err := s.new().(transport.ConnDialer).DialConn(t.Context(), peer); err == nil {
		_ = c.Close("")
		t.Error("a new connection was taken after Shutdown")
	}
}

func (s *suite) testConnHandlerReturns(t *testing.T) {
	_, peer := s.listen(t, HandlerFuncs{Conn: func(context.Context, transport.Conn) {}})
	_, err := s.dialConn(t, peer).Recv(t.Context())
	wantClosed(t, "Recv", err)
}

func (s *suite) testConnHandlerPanics(t *testing.T) {
	var once sync.Once
	_, peer := s.listen(t, HandlerFuncs{Conn: func(ctx context.Context, c transport.Conn) {
		once.Do(func() { panic("planted") })
		Echo().ServeConn(ctx, c)
	}})
	_, err := s.dialConn(t, peer).Recv(t.Context())
	wantClosed(t, "Recv from a handler that panicked", err)
	roundTrip(t, overConn(s.dialConn(t, peer)), transport.Message{Form: transport.Binary, Data: []byte("alive")})
}
