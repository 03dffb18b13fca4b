package owtp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// A link is one long connection after its first record: it has one identity,
// one mode and one set of keys for its life (PROTOCOL §4). One goroutine reads;
// one writes while there is something to write; each request has its own.
type link struct {
	node   *OWTPNode
	conn   transport.Conn
	peer   *Peer
	mode   wire.Mode
	form   transport.Form    // of an open connection's packets
	remote *remote           // who dialled it; nil on the listening side
	face   *listener         // where it was accepted; nil on the dialling side
	bar    *refusal          // open connection to a listener that demands more
	send   *secure.Direction // nil if open; the writer's
	recv   *secure.Direction // nil if open; the reader's

	entry *peerEntry // once registered; guarded by the node's lock

	suite *secure.Suite // nil if open
	v1    *v1Link       // nil but for version 1

	ownEpoch, peerEpoch wire.Nonce

	ctx    context.Context // parent of the handlers'; ends with the link
	cancel context.CancelCauseFunc
	out    writer
	active tracker // handlers

	lastRecv atomic.Int64 // Unix nanoseconds
	asked    atomic.Bool  // a heartbeat is out
	renewing atomic.Bool  // a new connection was asked for
	leaving  atomic.Bool  // no new calls: going away or being replaced
	closing  atomic.Bool  // no new requests either

	mu      sync.Mutex
	calls   map[wire.Nonce]*pending
	running map[wire.Nonce]*handlerContext // the peer's requests
	going   atomic.Int32                   // calls and requests under way
	retired bool                           // no call begins any more
	err     error                          // why it ended

	born     time.Time
	packets  []*wire.Packet // of the record that is read; the reader's
	renewals int            // going-aways for renewal that came from the accepting side; the reader's
	drained  chan struct{}  // closed when the peer will call no more on this link
}

// newLink builds a link. Nothing runs before start.
func (n *OWTPNode) newLink(conn transport.Conn, kind transport.Kind) *link {
	l := &link{
		node: n, conn: conn, form: transport.Binary,
		born: time.Now(), drained: make(chan struct{}),
		calls: make(map[wire.Nonce]*pending), running: make(map[wire.Nonce]*handlerContext),
		peer: &Peer{kind: kind, local: conn.LocalAddr(), remote: conn.RemoteAddr()},
	}
	l.peer.link = l
	l.ctx, l.cancel = context.WithCancelCause(n.ctx)
	l.lastRecv.Store(time.Now().UnixNano())
	return l
}

// secured makes the link one of an agreed session.
func (l *link) secured(s *secure.Session) error {
	var err error
	if l.send, l.recv, err = s.Directions(); err != nil {
		return err
	}
	l.mode, l.suite, l.ownEpoch, l.peerEpoch = s.Mode, s.Suite, s.OwnEpoch, s.PeerEpoch
	limits := l.node.cfg.Limits
	l.send.Limit(uint64(limits.MaxKeyRecords), uint64(limits.MaxKeyBytes))
	l.recv.Limit(uint64(limits.MaxKeyRecords), uint64(limits.MaxKeyBytes))
	l.proved(s.PeerKey)
	l.peer.sealed = true
	return nil
}

func (l *link) proved(key *identity.PublicKey) { l.peer.key, l.peer.id = key, key.ID().String() }

// read runs until the link ends, and returns when its handlers have ended too
// or have had five seconds to heed their context.
func (l *link) read(first []*wire.Packet) {
	err := l.dispatchAll(first)
	for err == nil {
		err = l.readOne()
	}
	if errors.Is(err, wire.ErrMalformed) || errors.Is(err, wire.ErrVersion) {
		// Whoever wrote the other side wants to know.
		l.control(&wire.Packet{Kind: wire.Response, Status: ErrBadRequest, Msg: clip(err.Error(), 512), Data: []byte("null")})
		l.out.flush(l, time.Second)
	}
	l.fail(err)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if l.active.wait(ctx) != nil {
		l.node.log.Warn("a handler outlives its connection and does not heed its context", "peer", l.peer.id)
	}
}

func (l *link) readOne() error {
	if l.v1 != nil {
		return l.readV1()
	}
	m, err := l.conn.Recv(context.Background()) // until the link ends, which closes conn
	if err != nil {
		return err
	}
	packets, err := l.open(m)
	if err != nil {
		return err
	}
	l.lastRecv.Store(time.Now().UnixNano())
	l.asked.Store(false)
	if l.recv != nil && l.recv.Used() >= renewShare {
		l.renew()
	}
	return l.dispatchAll(packets)
}

// open turns a message into its packets.
func (l *link) open(m transport.Message) ([]*wire.Packet, error) {
	if m.Form != l.form {
		return nil, fmt.Errorf("%w: text where binary is due, or the other way round", wire.ErrMalformed)
	}
	if l.form == transport.JSON {
		return wire.ParseJSONRecord(m.Data)
	}
	if l.recv != nil {
		body, err := l.recv.Open(m.Data)
		if err != nil {
			return nil, err
		}
		return l.parse(body)
	}
	typ, body, err := wire.ParseHeader(m.Data)
	if err != nil {
		return nil, err
	}
	if typ != wire.TypePackets {
		return nil, fmt.Errorf("%w: message of type %d on an open connection", wire.ErrMalformed, typ)
	}
	return l.parse(body)
}

// parse reads a record into the slice of the one before.
func (l *link) parse(body []byte) ([]*wire.Packet, error) {
	packets, err := wire.AppendRecord(l.packets[:0], body)
	l.packets = packets[:0]
	return packets, err
}

func (l *link) dispatchAll(packets []*wire.Packet) error {
	for i, p := range packets {
		packets[i] = nil // it is whose it is now
		if err := l.dispatch(p); err != nil {
			return err
		}
	}
	return nil
}

// dispatch never blocks on anything that the peer or a handler decides.
func (l *link) dispatch(p *wire.Packet) error {
	switch p.Kind {
	case wire.Response:
		l.deliver(p)
	case wire.Request, wire.OneWay:
		return l.request(p)
	case wire.Cancel:
		l.mu.Lock()
		ctx := l.running[p.Nonce]
		l.mu.Unlock()
		if !p.CallKey.IsZero() && l.peer.key != nil {
			l.node.cancelCall(l.peer.id, p)
		}
		if ctx != nil {
			ctx.endFor(errCancelled)
		}
	case wire.Heartbeat:
		if p.Reason == wire.ReasonPong {
			l.deliver(p)
			return nil
		}
		return l.control(&wire.Packet{Kind: wire.Heartbeat, Nonce: p.Nonce, Reason: wire.ReasonPong})
	case wire.GoingAway:
		return l.goingAway(p.Reason)
	default:
		return fmt.Errorf("%w: %s in the middle of a connection", wire.ErrMalformed, p.Kind)
	}
	return nil
}

// control queues a small packet without waiting for room. Version 1 has none of
// these packets.
func (l *link) control(p *wire.Packet) error {
	if l.v1 != nil {
		return nil
	}
	return l.write(l.out.pushNow(l, outgoing{packet: p}))
}

// request starts the handler of a request, or refuses it.
func (l *link) request(p *wire.Packet) error {
	n := l.node
	switch {
	case l.bar != nil:
		return l.control(l.bar.response(p))
	case l.closing.Load() || n.closing.Load():
		return l.refuse(p, refuseClosing)
	case !n.running.take(l.peer.id, len(p.Data)):
		return l.refuse(p, refuseMany)
	}
	ctx := n.handlerContext(l.ctx, p)
	l.mu.Lock()
	_, twice := l.running[p.Nonce]
	if !twice {
		l.running[p.Nonce] = ctx
	}
	l.mu.Unlock()
	if twice {
		n.running.give(l.peer.id, len(p.Data))
		return l.refuse(p, refuse(ErrReplayAttack, wire.ReasonCopy, "a request with this nonce is running"))
	}
	l.active.begin()
	l.going.Add(1)
	if n.tasks.begin() {
		go l.handle(ctx, p)
	} else {
		n.running.give(l.peer.id, len(p.Data))
		l.going.Add(-1)
		l.active.end()
		return errNodeClosed
	}
	return nil
}

// maxRefusals and maxRefusalsPerPeer bound the refusals that are being signed.
const (
	maxRefusals        = 1024
	maxRefusalsPerPeer = 64
)

// refuse answers without a handler. In a signed mode that costs a signature,
// which the reader must not wait for.
func (l *link) refuse(p *wire.Packet, r *refusal) error {
	if p.Kind == wire.OneWay {
		return nil
	}
	resp := r.response(p)
	if !l.mode.Signed() {
		return l.control(resp)
	}
	if !l.node.refusals.take(l.peer.id, 0) {
		return nil // the caller times out; it has sent far more than it may
	}
	l.node.spawn(func() {
		defer l.node.refusals.give(l.peer.id, 0)
		if l.answer(p, resp) {
			l.out.run(l)
		}
	})
	return nil
}

// handle is one of the node's tasks, which it ends.
func (l *link) handle(ctx *handlerContext, p *wire.Packet) {
	n := l.node
	defer n.tasks.end()
	write := false
	defer func() {
		ctx.end()
		l.mu.Lock()
		delete(l.running, p.Nonce)
		l.mu.Unlock()
		n.running.give(l.peer.id, len(p.Data))
		l.going.Add(-1)
		l.active.end()
		if write { // the request is over, and this goroutine as good as another
			l.out.run(l)
		}
	}()
	resp, closeAfter := l.serve(ctx, p)
	if p.Kind != wire.OneWay {
		write = l.answer(p, resp)
		if p.CallKey.IsZero() { // nobody keeps it for a further attempt
			resp.Release()
		}
	}
	if closeAfter {
		l.closeGently()
	}
}

// serve checks what the reader had no time for and runs the handler.
func (l *link) serve(ctx *handlerContext, p *wire.Packet) (resp *wire.Packet, closeAfter bool) {
	n := l.node
	if l.mode.Signed() {
		if !n.checkSigned(p, l.peer, l.mode) || p.Epoch != l.ownEpoch {
			return refuseUnsigned.response(p), false
		}
	}
	// Order needs no record here; a call key of the caller's does (PROTOCOL §8).
	if !p.CallKey.IsZero() && l.peer.key != nil {
		c, answer := n.claimed(ctx, l.peer.id, p, l.ownEpoch, false, func() *refusal { return nil })
		if answer != nil {
			return answer, false
		}
		return n.runClaimed(ctx, l.peer, p, l.mode.Signed(), c)
	}
	resp, closeAfter, _ = n.run(ctx, l.peer, p, l.mode.Signed())
	return resp, closeAfter
}

// answer proves the response as the mode asks and queues it. If it returns true
// the caller runs the writer.
func (l *link) answer(p, resp *wire.Packet) (run bool) {
	if l.mode.Signed() {
		if err := l.node.signResponse(resp, p, l.peer, l.mode, l.ownEpoch); err != nil {
			l.fail(err)
			return false
		}
	}
	run, err := l.out.push(l.ctx, l, outgoing{packet: resp})
	if err != nil && !l.ended() {
		l.fail(err)
	}
	return run
}

// proves reports whether the answers that are taken are the peer's own.
func (l *link) proves() bool { return l.send != nil || l.v1 != nil && l.mode.Sealed() }

// ended reports whether the link is over.
func (l *link) ended() bool { return l.ctx.Err() != nil }

// usable reports whether new calls may take the link.
func (l *link) usable() bool { return !l.ended() && !l.leaving.Load() }

var errClosedHere = errors.New("closed by this node")

// fail ends the link at once. Only the first reason counts.
func (l *link) fail(err error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = err
	calls := l.calls
	l.calls = nil
	l.mu.Unlock()
	l.cancel(err)
	l.node.unregister(l)
	for _, c := range calls {
		c.end()
	}
	reason := "closed"
	if !errors.Is(err, errClosedHere) && !errors.Is(err, errNodeClosed) {
		l.node.log.Debug("connection ended", "peer", l.peer.id, "remote", l.peer.remote, "err", err)
		reason = "protocol error"
	}
	l.conn.Close(reason)
}

func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		return errClosedHere // it is about to be
	}
	return l.err
}
