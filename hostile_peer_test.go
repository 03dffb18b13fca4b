package owtp

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/transport"
)

// What strangers, peers and those in between can make a node do.

// A deafConn delivers what a test puts in and never gets rid of an answer.
type deafConn struct {
	in   chan []byte
	over context.Context
	end  context.CancelFunc
}

func newDeafConn() *deafConn {
	c := &deafConn{in: make(chan []byte)}
	c.over, c.end = context.WithCancel(context.Background())
	return c
}

func (c *deafConn) Send(ctx context.Context, _ transport.Message) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.over.Done():
		return net.ErrClosed
	}
}

func (c *deafConn) Recv(ctx context.Context) (transport.Message, error) {
	select {
	case b := <-c.in:
		return transport.Message{Form: transport.Binary, Data: b}, nil
	case <-ctx.Done():
		return transport.Message{}, ctx.Err()
	case <-c.over.Done():
		return transport.Message{}, net.ErrClosed
	}
}

func (c *deafConn) Close(string) error {
	c.end()
	return nil
}
func (c *deafConn) LocalAddr() string  { return "here" }
func (c *deafConn) RemoteAddr() string { return "there" }

// A stranger who asks and does not read is cut off before the refusals that
// wait for him grow to what a proved peer may have waiting.
func TestUnreadAnswersAreBounded(t *testing.T) {
	srv := lifeNode(t, NodeConfig{})
	l, _, _, err := srv.newListener(ConnectConfig{ConnectType: Memory, Address: "unread", EnableSignature: true})
	if err != nil {
		t.Fatal(err)
	}
	conn := newDeafConn()
	over := make(chan struct{})
	go func() {
		defer close(over)
		l.ServeConn(context.Background(), conn)
	}()
	conn.in <- wire.AppendRecordPacket(wire.AppendHeader(nil, wire.TypePackets), (&wire.Packet{Kind: wire.Open}).Append(nil))
	record := wire.AppendHeader(nil, wire.TypePackets)
	for range wire.MaxRecordPackets {
		record = wire.AppendRecordPacket(record, (&wire.Packet{Kind: wire.Request, Method: "m", Nonce: wire.Nonce{1}, Data: []byte("1")}).Append(nil))
	}
	// More answers than there is room for, at their least cost, and one batch
	// that is being written.
	for range controlRoom/(packetCost*wire.MaxRecordPackets) + 6 {
		select {
		case conn.in <- record:
		case <-over:
			return
		}
	}
	select {
	case <-over:
	case <-time.After(5 * time.Second):
		t.Error("a stranger who reads nothing is still served")
	}
}

// What one address keeps busy must leave the others a place to wait.
func TestOneAddressLeavesRoomInTheQueue(t *testing.T) {
	for _, known := range []bool{false, true} {
		limits := defaultLimits(2)
		limits.MaxHandshakeRate = 1000
		g := newGate(limits, newNamed())
		enter := func(ctx context.Context, remote string, key byte) (func(), error) {
			id := identity.ID{key}
			if known {
				g.remember(remote, id)
			}
			return g.enter(ctx, remote, id, false, false)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		// As many as there are workers and places in the queue.
		b := &g.strangers
		if known {
			b = &g.known
		}
		all := cap(b.slots) + limits.MaxHandshakeQueue
		var refused atomic.Int64
		release := make(chan struct{})
		for k := range all {
			go func() {
				leave, err := enter(ctx, "192.0.2.6:1", byte(k))
				if err != nil {
					refused.Add(1)
					return
				}
				<-release
				leave()
			}()
		}
		for int(refused.Load()+b.waiting.Load())+len(b.slots) < all && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		done := make(chan error, 1)
		go func() {
			leave, err := enter(ctx, "198.51.100.9:1", 200)
			if err == nil {
				leave()
			}
			done <- err
		}()
		select {
		case err := <-done:
			t.Errorf("known %v: another address was not let wait: %v", known, err)
			close(release)
			continue
		case <-time.After(20 * time.Millisecond):
		}
		close(release)
		if err := <-done; err != nil {
			t.Errorf("known %v: another address was refused: %v", known, err)
		}
	}
}

// A sharedStore is one that others write, so that it can be flushed by them.
type sharedStore struct{ *memory.Store }

func (s sharedStore) Traits() session.Traits {
	traits := s.Store.Traits()
	traits.Shared = true
	return traits
}

// A payee serves a method over HTTP from a store that the test can look into.
type payee struct {
	node  *OWTPNode
	face  *listener
	store *memory.Store
	key   *identity.PrivateKey // the caller's
}

func newPayee(t *testing.T, window time.Duration, pay HandlerFunc) *payee {
	t.Helper()
	store, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := &payee{store: store, key: NewRandomCertificate().key}
	p.node = lifeNode(t, NodeConfig{Store: sharedStore{store}, Window: window})
	p.node.HandleFunc("pay", pay)
	if p.face, _, _, err = p.node.newListener(ConnectConfig{ConnectType: HTTP, Address: "127.0.0.1:0", EnableSignature: true}); err != nil {
		t.Fatal(err)
	}
	return p
}

// request is a signed one that waits so many milliseconds for its answer.
func (p *payee) request(t *testing.T, nonce byte, callKey wire.Nonce, remaining uint64) []byte {
	t.Helper()
	epoch, err := p.node.state.epoch(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	q := &wire.Packet{
		Kind: wire.Request, Method: "pay", Nonce: wire.Nonce{nonce}, CallKey: callKey, Data: []byte("null"), Remaining: remaining,
		Mode: wire.ModeSigned, Transport: uint8(transport.HTTP), Recipient: wire.ID(p.node.local.Key.ID()), Epoch: epoch,
		Time: uint64(time.Now().UnixMilli()),
	}
	if err := secure.Sign(rand.Reader, p.key, q); err != nil {
		t.Fatal(err)
	}
	m, err := (&inbound{}).encode(q)
	if err != nil {
		t.Fatal(err)
	}
	return m.Data
}

// send delivers a request and returns the answer's status.
func (p *payee) send(request []byte) (uint64, error) {
	m := transport.Message{Form: transport.Binary, Data: append([]byte(nil), request...)}
	m, err := p.face.ServeExchange(context.Background(), transport.Remote{Addr: "192.0.2.4:5"}, m)
	if err != nil {
		return 0, err
	}
	answer, err := parseOne(m)
	if err != nil {
		return 0, err
	}
	return uint64(answer.Status), nil
}

// A flush takes the records of what ran, so it must take the epoch of the
// copies as well, though the node remembers that for a moment.
func TestFlushedStoreRunsNothingTwice(t *testing.T) {
	var runs atomic.Int64
	p := newPayee(t, 0, func(*Context) { runs.Add(1) })
	request := p.request(t, 9, wire.Nonce{}, 5000)
	if status, err := p.send(request); err != nil || status != 0 {
		t.Fatal(status, err)
	}
	ctx := context.Background()
	keys, err := p.store.List(ctx, "", "", 1000)
	if err != nil || len(keys) == 0 {
		t.Fatal(keys, err)
	}
	for _, k := range keys {
		if err := p.store.Delete(ctx, k); err != nil {
			t.Fatal(err)
		}
	}
	if status, err := p.send(request); err != nil || status != ErrReplayAttack {
		t.Errorf("the copy was answered %d, %v", status, err)
	}
	if runs.Load() != 1 {
		t.Errorf("the handler ran %d times", runs.Load())
	}
}

// life is what is left of the record of the only call.
func (p *payee) life(t *testing.T) time.Duration {
	t.Helper()
	ctx := context.Background()
	keys, err := p.store.List(ctx, "", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if strings.Contains(k, "call/") {
			rec, err := p.store.Get(ctx, k)
			if err != nil {
				t.Fatal(err)
			}
			return rec.TTL
		}
	}
	return 0
}

// The record of a call lasts as long as the longest attempt needs it, or a copy
// of that one would find nothing: neither the end of a shorter attempt nor
// another short one takes anything from it.
func TestRecordsNeverGetShorter(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	p := newPayee(t, time.Second, func(*Context) { close(begun); <-end })
	callKey := wire.Nonce{7}
	answers := make(chan error, 3)
	send := func(nonce byte, remaining uint64) {
		request := p.request(t, nonce, callKey, remaining)
		go func() {
			_, err := p.send(request)
			answers <- err
		}()
	}
	const long = 20 * time.Second
	send(1, 2000)
	<-begun
	send(2, uint64(long.Milliseconds()))
	for until := time.Now().Add(5 * time.Second); p.life(t) < long; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the longer attempt was not recorded")
		}
	}
	close(end)
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if left := p.life(t); left < long {
		t.Errorf("%v are left after the first attempt's end", left)
	}
	send(3, 100)
	if err := <-answers; err != nil {
		t.Error(err)
	}
	if left := p.life(t); left < long {
		t.Errorf("%v are left after a shorter attempt", left)
	}
}

// A meddler does something else with the first exchange.
type meddler struct {
	transport.Exchanger
	begun atomic.Bool
	first func(transport.Message, transport.Exchanger) (transport.Message, error)
}

func (w *meddler) Exchange(ctx context.Context, m transport.Message) (transport.Message, error) {
	if !w.begun.Swap(true) {
		return w.first(m, w.Exchanger)
	}
	return w.Exchanger.Exchange(ctx, m)
}

// openThenSealed calls in the open; while the call is under way the caller
// agrees on keys, and what the first exchange comes to is end's to say.
func openThenSealed(t *testing.T, end func(transport.Message) (transport.Message, error)) (resp *Response, err error, runs int64) {
	t.Helper()
	srv := lifeNode(t, NodeConfig{})
	var ran atomic.Int64
	srv.HandleFunc("pay", func(*Context) { ran.Add(1) })
	if err := srv.Listen(ConnectConfig{ConnectType: HTTP, Address: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	cl := lifeNode(t, NodeConfig{})
	if err := cl.Connect("bank", ConnectConfig{ConnectType: HTTP, Address: srv.ListenerAddr(HTTP)}); err != nil {
		t.Fatal(err)
	}
	r := cl.remoteOf("bank")
	r.exch = &meddler{Exchanger: r.exch, first: func(m transport.Message, real transport.Exchanger) (transport.Message, error) {
		if _, err := real.Exchange(context.Background(), m); err != nil {
			t.Error(err)
		}
		if err := cl.KeyAgreement("bank", "sm4"); err != nil {
			t.Error(err)
		}
		return end(m)
	}}
	resp, err = cl.CallSync("bank", "pay", nil)
	return resp, err, ran.Load()
}

// The peer kept no record of what came in the open, so it would run it again.
func TestOpenAttemptIsNotResentSealed(t *testing.T) {
	_, err, runs := openThenSealed(t, func(transport.Message) (transport.Message, error) {
		return transport.Message{}, errors.New("cut")
	})
	if runs != 1 {
		t.Errorf("the handler ran %d times", runs)
	}
	if e := (*Error)(nil); !errors.As(err, &e) || !e.MayHaveRun {
		t.Errorf("the caller is told %v", err)
	}
}

// Anybody can answer what was sent in the open; a refusal from nowhere must not
// count as the peer's word that nothing ran.
func TestOpenAnswerIsNeverProved(t *testing.T) {
	resp, err, runs := openThenSealed(t, func(m transport.Message) (transport.Message, error) {
		p, err := parseOne(m)
		if err != nil {
			return m, err
		}
		return (&inbound{form: transport.JSON}).encode(refuseMany.response(p))
	})
	if err != nil {
		t.Fatal(err)
	}
	var e *Error
	if !errors.As(resp.Err(), &e) {
		t.Fatal(resp.Err())
	}
	if e.Proved || !e.MayHaveRun || runs != 1 {
		t.Errorf("Proved %v, MayHaveRun %v after %d runs", e.Proved, e.MayHaveRun, runs)
	}
}
