package transporttest

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp/transport"
)

func (s *suite) testConns(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"RoundTrips":          s.testConnRoundTrips,
		"Order":               s.testConnOrder,
		"TooLargeToSend":      s.testConnTooLargeToSend,
		"TooLargeToReceive":   s.testConnTooLargeToReceive,
		"CloseHere":           s.testConnCloseHere,
		"CloseThere":          s.testConnCloseThere,
		"CloseFreesSend":      s.testConnCloseFreesSend,
		"CloseAmidTraffic":    s.testConnCloseAmidTraffic,
		"SentBeforeClose":     s.testConnSentBeforeClose,
		"ContextEnds":         s.testConnContextEnds,
		"DialContextEnds":     s.testConnDialContextEnds,
		"DialNobody":          s.testConnDialNobody,
		"ListenerClose":       s.testConnListenerClose,
		"ShutdownKeepsConns":  s.testConnShutdown,
		"HandlerReturns":      s.testConnHandlerReturns,
		"HandlerPanics":       s.testConnHandlerPanics,
		"SenderReusesData":    s.testConnSenderReusesData,
		"ReceiverOwnsItsData": s.testConnReceiverOwnsData,
	} {
		t.Run(name, test)
	}
}

func (s *suite) dialConn(t *testing.T, peer transport.Config) transport.Conn {
	t.Helper()
	c, err := s.new().(transport.ConnDialer).DialConn(t.Context(), peer)
	if err != nil {
		t.Fatalf("DialConn: %v", err)
	}
	t.Cleanup(func() { _ = c.Close("test over") })
	return c
}

// pair returns the two ends of a connection.
func (s *suite) pair(t *testing.T) (near, far transport.Conn) {
	t.Helper()
	ends, done := make(chan transport.Conn), make(chan struct{})
	_, peer := s.listen(t, HandlerFuncs{Conn: func(ctx context.Context, c transport.Conn) {
		ends <- c
		<-done
	}})
	t.Cleanup(func() { close(done) }) // before the listener is closed
	near = s.dialConn(t, peer)
	return near, within(t, "the listener has the connection", ends)
}

func (s *suite) testConnRoundTrips(t *testing.T) {
	_, peer := s.listen(t, Echo())
	c := s.dialConn(t, peer)
	for _, form := range []transport.Form{transport.Binary, transport.JSON} {
		for _, size := range []int{0, 1, 100, 4096, 64 << 10, peer.MaxMessage} {
			roundTrip(t, overConn(c), transport.Message{Form: form, Data: pattern(size)})
		}
	}
	if c.LocalAddr() == "" || c.RemoteAddr() == "" {
		t.Error("the connection does not know its addresses")
	}
}

func (s *suite) testConnOrder(t *testing.T) {
	near, far := s.pair(t)
	const count = 500
	var all sync.WaitGroup
	for i, c := range []transport.Conn{near, far} {
		all.Go(func() {
			for n := range uint32(count) {
				data := binary.BigEndian.AppendUint32(nil, n)
				if err := c.Send(t.Context(), transport.Message{Form: transport.Binary, Data: data}); err != nil {
					t.Errorf("side %d: sending number %d: %v", i, n, err)
					return
				}
			}
		})
		all.Go(func() {
			for n := range uint32(count) {
				m, err := c.Recv(t.Context())
				if err != nil || len(m.Data) != 4 || binary.BigEndian.Uint32(m.Data) != n {
					t.Errorf("side %d: want message %d, got %v, %v", i, n, m.Data, err)
					_ = c.Close("")
					return
				}
			}
		})
	}
	all.Wait()
}

func (s *suite) testConnTooLargeToSend(t *testing.T) {
	_, peer := s.listen(t, Echo())
	c := s.dialConn(t, peer)
	err := c.Send(t.Context(), transport.Message{Form: transport.Binary, Data: pattern(peer.MaxMessage + 1)})
	wantRefusal(t, err, http.StatusRequestEntityTooLarge)
	if !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got error %v, want ErrNotSent", err)
	}
	roundTrip(t, overConn(c), transport.Message{Form: transport.Binary, Data: []byte("the connection lives")})
}

func (s *suite) testConnTooLargeToReceive(t *testing.T) {
	failed := make(chan error, 1)
	_, peer := s.listen(t, HandlerFuncs{Conn: func(ctx context.Context, c transport.Conn) {
		_, err := c.Recv(ctx)
		failed <- err
	}})
	limit := peer.MaxMessage
	peer.MaxMessage *= 4
	c := s.dialConn(t, peer)
	sent := make(chan error, 1)
	go func() {
		sent <- c.Send(context.Background(), transport.Message{Form: transport.Binary, Data: pattern(limit + 1)})
	}()
	err := within(t, "the receiver refuses", failed)
	wantRefusal(t, err, http.StatusRequestEntityTooLarge)
	wantClosed(t, "Recv of too much", err)
	within(t, "the sender is free", sent)
	_, err = c.Recv(t.Context())
	wantClosed(t, "the sender's Recv", err)
}

// testConnCloseFreesSend fills the way to a peer that does not read.
// testConnCloseAmidTraffic is for the race detector.
func (s *suite) testConnDialContextEnds(t *testing.T) {
	_, peer := s.listen(t, Echo())
	ctx, cancel := context.WithCancel(t.Context())
	c, err := s.new().(transport.ConnDialer).DialConn(ctx, peer)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close("")
	cancel()
	time.Sleep(10 * time.Millisecond) // were it bound to the context, it would end now
	roundTrip(t, overConn(c), transport.Message{Form: transport.Binary, Data: []byte("x")})

	c, err = s.new().(transport.ConnDialer).DialConn(ctx, peer)
	if err == nil {
		_ = c.Close("")
		t.Fatal("dialled with an ended context")
	}
	if !errors.Is(err, transport.ErrNotSent) || !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want ErrNotSent with that of the context", err)
	}
}

func (s *suite) testConnDialNobody(t *testing.T) {
	l, peer := s.listen(t, Echo())
	_ = l.Close()
	c, err := s.new().(transport.ConnDialer).DialConn(t.Context(), peer)
	if err == nil {
		_ = c.Close("")
		t.Fatal("somebody answers at a closed address")
	}
	if !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got error %v, want ErrNotSent", err)
	}
	if c != nil {
		t.Error("got a connection with the error")
	}
}

// testConnReceiverOwnsData keeps every message and writes to it while the next
// ones arrive: buffers must not be shared.
func (s *suite) testConnReceiverOwnsData(t *testing.T) {
	near, far := s.pair(t)
	go func() {
		for i := range 10 {
			data := pattern(100)
			data[0] = byte(i)
			_ = far.Send(context.Background(), transport.Message{Form: transport.Binary, Data: data})
		}
	}()
	var kept [][]byte
	for range 10 {
		m, err := near.Recv(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m.Data = append(m.Data, "grown"...)
		m.Data[1] = '!'
		kept = append(kept, m.Data)
	}
	for i, data := range kept {
		if data[0] != byte(i) || data[1] != '!' || data[2] != 'c' {
			t.Errorf("message %d was overwritten: % x", i, data[:3])
		}
	}
}

// testConnSenderReusesData sends everything from one buffer.
func (s *suite) testConnSenderReusesData(t *testing.T) {
	near, far := s.pair(t)
	go func() {
		data := make([]byte, 20_000)
		for i := range 10 {
			for n := range data {
				data[n] = byte(i)
			}
			_ = far.Send(context.Background(), transport.Message{Form: transport.Binary, Data: data})
		}
	}()
	for i := range 10 {
		m, err := near.Recv(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range m.Data {
			if c != byte(i) {
				t.Fatalf("message %d has a byte of message %d in it", i, c)
			}
		}
	}
}
