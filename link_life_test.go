package owtp

import (
	"context"
	"crypto/rand"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// What is left when connections end early, and how a caller goes on.

// A hangsUp peer completes the handshake and is gone.
type hangsUp struct {
	local secure.Local
	after time.Duration
	count atomic.Int64 // handshakes
}

func newHangsUp(c Certificate, after time.Duration) *hangsUp {
	return &hangsUp{local: secure.Local{Key: c.key, Rand: rand.Reader}, after: after}
}

func (h *hangsUp) ServeExchange(context.Context, transport.Remote, transport.Message) (transport.Message, error) {
	return transport.Message{}, errors.New("only connections")
}

func (h *hangsUp) ServeConn(ctx context.Context, c transport.Conn) {
	defer c.Close("bye")
	m, err := c.Recv(ctx)
	if err != nil {
		return
	}
	_, body, err := wire.ParseHeader(m.Data)
	if err != nil {
		return
	}
	hello, err := wire.ParseHello(body)
	if err != nil {
		return
	}
	reply, s, err := secure.Respond(h.local, hello, body, secure.Reply{Suites: secure.Suites(), Epoch: wire.Nonce{1}, Time: 1})
	if err != nil || s == nil || c.Send(ctx, transport.Message{Form: transport.Binary, Data: reply}) != nil {
		return
	}
	send, recv, err := s.Directions()
	if err != nil {
		return
	}
	if m, err = c.Recv(ctx); err != nil {
		return
	}
	plain, err := recv.Open(m.Data)
	if err != nil {
		return
	}
	ps, err := wire.ParseRecord(plain)
	if err != nil || len(ps) == 0 {
		return
	}
	h.count.Add(1)
	b := wire.AppendHeader(nil, wire.TypeRecord)
	b = wire.AppendRecordPacket(b, (&wire.Packet{Kind: wire.Heartbeat, Nonce: ps[0].Nonce, Reason: wire.ReasonPong}).Append(nil))
	b = append(b, make([]byte, secure.Overhead)...)[:len(b)]
	if b, err = send.Seal(b); err != nil {
		return
	}
	c.Send(ctx, transport.Message{Form: transport.Binary, Data: b})
	time.Sleep(h.after)
}

func lifeNode(t *testing.T, cfg NodeConfig) *OWTPNode {
	t.Helper()
	if cfg.Cert.key == nil {
		cfg.Cert = NewRandomCertificate()
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// lifeListen puts something else than a node behind an address in the process.
func lifeListen(t *testing.T, n *OWTPNode, addr string, acceptor transport.Handler) (stop func()) {
	t.Helper()
	tr := transports[Memory]
	spec, err := ConnectConfig{ConnectType: Memory, Address: addr}.checkListen()
	if err != nil {
		t.Fatal(err)
	}
	l, err := tr.Listen(context.Background(), n.transportConfig(spec), acceptor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return func() { l.Close() }
}

// The end of a link is told once. One that is registered after that would stay
// among its peer's connections for ever.
func TestEndedLinkLeavesNothingBehind(t *testing.T) {
	n := lifeNode(t, NodeConfig{})
	l := n.newLink(newDeafConn(), transport.Memory)
	l.proved(NewRandomCertificate().key.Public())
	l.fail(errors.New("gone"))
	if n.register(l) == nil {
		t.Error("a link that has ended was registered")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.peers) != 0 {
		t.Errorf("%d peers are left", len(n.peers))
	}
}

// What ended at once must not use up the connections that its peer may have:
// whoever spoils a server's connections for a while would lock it out for good.
func TestConnectionsThatEndAtOnceDoNotBlockAPeer(t *testing.T) {
	const addr = "ends-at-once"
	cert := NewRandomCertificate()
	victim := lifeNode(t, NodeConfig{})
	stop := lifeListen(t, victim, addr, newHangsUp(cert, 0))
	cfg := ConnectConfig{ConnectType: Memory, Address: addr, EnableKeyAgreement: true}
	for range 100 {
		victim.Connect(cert.ID(), cfg) // it may succeed for a moment
		victim.ClosePeer(cert.ID())
	}
	stop()

	srv, err := New(NodeConfig{Cert: cert})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	if err := srv.Listen(cfg); err != nil {
		t.Fatal(err)
	}
	if err := victim.Connect(cert.ID(), cfg); err != nil {
		t.Error("the honest server cannot be reached any more:", err)
	}
}

// A peer that accepts and hangs up must not make a caller shake hands without
// end; nor must the caller give up.
func TestReconnectPauses(t *testing.T) {
	const addr = "hangs-up"
	cert := NewRandomCertificate()
	h := newHangsUp(cert, 10*time.Millisecond)
	n := lifeNode(t, NodeConfig{})
	lifeListen(t, n, addr, h)
	cfg := ConnectConfig{ConnectType: Memory, Address: addr, EnableKeyAgreement: true}
	err := n.Connect(cert.ID(), cfg)
	for i := 0; err != nil && i < 20; i++ { // the end was quicker
		err = n.Connect(cert.ID(), cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	before := h.count.Load()
	time.Sleep(800 * time.Millisecond)
	if made := h.count.Load() - before; made < 1 || made > 8 {
		t.Errorf("%d handshakes in 800 ms", made)
	}
}

// An asksForRenewal peer asks for a new connection thousands of times.
type asksForRenewal struct{}

func (asksForRenewal) ServeExchange(context.Context, transport.Remote, transport.Message) (transport.Message, error) {
	return transport.Message{}, errors.New("only connections")
}

func (asksForRenewal) ServeConn(ctx context.Context, c transport.Conn) {
	if _, err := c.Recv(ctx); err != nil {
		return
	}
	b, err := (&wire.Packet{Kind: wire.Open}).AppendJSON(nil)
	if err != nil || c.Send(ctx, transport.Message{Form: transport.JSON, Data: b}) != nil {
		return
	}
	one, err := (&wire.Packet{Kind: wire.GoingAway, Reason: wire.ReasonRenew}).AppendJSON(nil)
	if err != nil {
		return
	}
	var record []byte
	for range wire.MaxRecordPackets {
		record = append(append(record, one...), '\n')
	}
	for range 10 {
		if c.Send(ctx, transport.Message{Form: transport.JSON, Data: record}) != nil {
			return
		}
	}
	<-ctx.Done()
}

// Each question for a new connection would cost a goroutine that waits.
func TestAskingForRenewalIsBounded(t *testing.T) {
	const addr = "asks-for-renewal"
	n := lifeNode(t, NodeConfig{})
	lifeListen(t, n, addr, asksForRenewal{})
	before := runtime.NumGoroutine()
	if err := n.Connect("x", ConnectConfig{ConnectType: Memory, Address: addr}); err != nil {
		t.Fatal(err)
	}
	most := 0
	for range 100 {
		time.Sleep(2 * time.Millisecond)
		most = max(most, runtime.NumGoroutine()-before)
	}
	if most > 60 {
		t.Errorf("%d goroutines more", most)
	}
	n.Close()
}
