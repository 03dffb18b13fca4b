package owtp

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// A v1Link is what makes a link one of version 1: packets in the place of
// records, one to a message (V1-WIRE §8). Everything else of a link stays:
// limits, its writer, how it ends, who is told of it.
type v1Link struct {
	caller v1Caller
	serve  v1Server

	heard atomic.Bool // a packet of version 1 has come

	known string // the ID that the peer of an accepted connection has proved; guarded by the node's lock

	pinged  atomic.Int64 // Unix nanoseconds of the last sign of life that was asked for and came
	pinging atomic.Bool
}

// A v1Caller makes the requests of this node.
type v1Caller interface {
	// request makes the packet of a request. The answer to it is given to
	// open, at most once.
	request(p *wire.Packet) (q *legacy.Packet, open v1Answer, err error)
}

// A v1Answer opens the response to a request, which is the request's by its
// nonce and method. proved reports that who had to answer has encrypted it.
type v1Answer func(resp *legacy.Packet) (p *wire.Packet, proved bool, err error)

// A v1Server answers a request of the peer's, on the request's own goroutine,
// which counts as running already. A nil answer says nothing.
type v1Server func(ctx context.Context, l *link, p *legacy.Packet) (answer *legacy.Packet, closeAfter bool)

const (
	// v1PingInterval is how often both sides ask for a sign of life.
	v1PingInterval = 27 * time.Second
	// v1PongTime is how long it may take. Version 1's own nodes give three
	// seconds, which one large message can use up.
	v1PongTime = 30 * time.Second
)

// newV1Link is newLink for a connection that speaks version 1.
func (n *OWTPNode) newV1Link(conn transport.Conn, kind transport.Kind, caller v1Caller, serve v1Server) *link {
	l := n.newLink(conn, kind)
	l.form = transport.JSON
	l.v1 = &v1Link{caller: caller, serve: serve}
	l.v1.pinged.Store(time.Now().UnixNano())
	close(l.drained) // nobody says so in version 1
	return l
}

// readV1 takes one message. What cannot be read is no reason to hang up: version
// 1's nodes do not, and whoever sends it gains nothing.
func (l *link) readV1() error {
	m, err := l.conn.Recv(l.ctx)
	if err != nil {
		return err
	}
	l.lastRecv.Store(time.Now().UnixNano())
	p, err := legacy.ParsePacket(m.Data, l.node.cfg.Limits.MaxMessage)
	if err != nil {
		l.node.log.Debug("message that is no packet of version 1", "peer", l.peer.remote, "err", err)
		return nil
	}
	if spokenV1(p) {
		l.v1.heard.Store(true)
	}
	switch p.Kind {
	case legacy.Request:
		if m.Redelivered { // by a broker: whoever got it first may have run it
			return l.refuseV1(p, refuseUnknown)
		}
		return l.requestV1(p)
	case legacy.Response:
		l.deliverV1(p)
	}
	return nil
}

// deliverV1 hands a response to who waits for it. A response is the request's if
// it has its nonce and its method; any other is late or made up.
func (l *link) deliverV1(p *legacy.Packet) {
	key := v1Key(p.Nonce)
	l.mu.Lock()
	c := l.calls[key]
	if c != nil && c.method != p.Method {
		c = nil
	}
	if c != nil {
		delete(l.calls, key)
	}
	l.mu.Unlock()
	if c != nil {
		c.legacy <- p
		return
	}
	l.node.log.Debug("answer that nobody waits for", "peer", l.peer.id, "method", clip(p.Method, 64))
}

// requestV1 starts what answers a request, unless too many run already.
func (l *link) requestV1(p *legacy.Packet) error {
	n := l.node
	switch {
	case l.closing.Load() || n.closing.Load():
		return l.refuseV1(p, refuseClosing)
	case !n.running.take(l.peer.id, len(p.Data)):
		return l.refuseV1(p, refuseMany)
	}
	l.active.begin()
	if !n.spawn(func() {
		answer, closeAfter := l.v1.serve(l.ctx, l, p)
		l.answerV1(answer)
		n.running.give(l.peer.id, len(p.Data)) // not before: who reads no answers must not have any number of them wait
		l.active.end()
		if closeAfter {
			l.closeGently()
		}
	}) {
		n.running.give(l.peer.id, len(p.Data))
		l.active.end()
		return errNodeClosed
	}
	return nil
}

// refuseV1 answers in the clear, without waiting for room, whatever the request
// was: nothing of it has been looked at.
func (l *link) refuseV1(p *legacy.Packet, r *refusal) error {
	b, err := l.node.v1Refusal(p, r).Append(nil)
	if err != nil {
		return err
	}
	return l.write(l.out.pushNow(l, outgoing{octets: b}))
}

func (l *link) answerV1(answer *legacy.Packet) {
	if answer == nil {
		return
	}
	b, err := answer.Append(nil)
	if err == nil {
		err = l.write(l.out.push(l.ctx, l, outgoing{octets: b}))
	}
	if err != nil && !l.ended() {
		l.fail(err)
	}
}

// callV1 sends a request and waits for the answer to it. sent reports whether the
// peer may have got the request.
func (l *link) callV1(ctx context.Context, p *wire.Packet) (resp *wire.Packet, sent, proved bool, err error) {
	q, open, err := l.v1.caller.request(p)
	if err != nil {
		return nil, false, false, err
	}
	answer, sent, err := l.askV1(ctx, q)
	if err != nil {
		return nil, sent, false, err
	}
	resp, proved, err = open(answer)
	return resp, true, proved, err
}

// askV1 sends a packet and waits for the response to it.
func (l *link) askV1(ctx context.Context, q *legacy.Packet) (answer *legacy.Packet, sent bool, err error) {
	b, err := q.Append(nil)
	if err != nil {
		return nil, false, err
	}
	c := &pending{legacy: make(chan *legacy.Packet, 1), method: q.Method}
	key := v1Key(q.Nonce)
	if err := l.expect(key, c); err != nil {
		return nil, false, err
	}
	if err := l.write(l.out.push(ctx, l, outgoing{octets: b})); err != nil {
		l.unexpect(key, c)
		return nil, false, err
	}
	select {
	case answer, ok := <-c.legacy:
		l.going.Add(-1)
		if !ok {
			return nil, true, newError(ErrNetworkDisconnected, "the connection ended before the answer: %w", l.silent(bare{l.cause()}))
		}
		return answer, true, nil
	case <-ctx.Done():
		l.unexpect(key, c)
		return nil, true, ctx.Err()
	}
}

// spokenV1 tells a packet of version 1 from what a node of version 2 says to who
// does not speak that.
func spokenV1(p *legacy.Packet) bool {
	return p.Version != 2 && (p.Kind == legacy.Request || p.Kind == legacy.Response)
}

// silent adds to why a connection ended that nobody has spoken version 1 on it.
func (l *link) silent(err error) error {
	if l.remote == nil || l.peer.kind != transport.WebSocket || l.v1.heard.Load() || l.mode.Sealed() {
		return err
	}
	return fmt.Errorf("%w. %s", err, v1NotSpoken)
}

// checkLifeV1 asks the peer for a sign of life when it is time, below the
// packets, and gives it up if none comes.
func (l *link) checkLifeV1(interval time.Duration) {
	v := l.v1
	pinger, ok := l.conn.(transport.Pinger)
	every := min(9*interval/5, v1PingInterval)
	if !ok || time.Since(time.Unix(0, v.pinged.Load())) < every || v.pinging.Swap(true) {
		return
	}
	if !l.node.spawn(func() {
		defer v.pinging.Store(false)
		ctx, cancel := context.WithTimeout(l.ctx, min(2*interval, v1PongTime))
		defer cancel()
		if err := pinger.Ping(ctx); err != nil {
			l.fail(errDeadPeer)
			return
		}
		v.pinged.Store(time.Now().UnixNano())
	}) {
		v.pinging.Store(false)
	}
}

var errV1OneWay = newError(ErrBadRequest, "version 1 has no one-way messages; use Call")

var errV1Format = newError(ErrUnsupportedType, "version 1 knows no data format but JSON; leave CallOptions.Format empty")
