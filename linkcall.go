package owtp

import (
	"context"
	"sync"
	"time"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
)

// A pending call waits for its answer. The channel has room for it, so that the
// reader never waits for a caller; it is closed if the link ends first.
type pending struct {
	answer chan *wire.Packet
	timer  *time.Timer // runs in ends only

	// In version 1, in its place:
	legacy chan *legacy.Packet
	method string // that the answer must repeat
}

// pendings are those of version 2 that nobody waits for any more and nobody can
// answer.
var pendings = sync.Pool{New: func() any {
	c := &pending{answer: make(chan *wire.Packet, 1), timer: time.NewTimer(time.Hour)}
	c.timer.Stop()
	return c
}}

func (c *pending) release() {
	if c.timer != nil {
		c.timer.Stop()
		pendings.Put(c)
	}
}

// ends returns what is closed or sends when ctx ends. Most calls are answered
// before that, and the context of one needs no context of the standard library's.
func (c *pending) ends(ctx context.Context) (expired <-chan time.Time, parted <-chan struct{}) {
	if h, ok := ctx.(*callContext); ok {
		c.timer.Reset(time.Until(h.deadline))
		return c.timer.C, h.parent.Done()
	}
	return nil, ctx.Done()
}

// end is for a call whose link has ended.
func (c *pending) end() {
	if c.legacy != nil {
		close(c.legacy)
	} else {
		close(c.answer)
	}
}

// deliver hands an answer to who waits for it. One that nobody waits for is
// late or made up, and changes nothing.
func (l *link) deliver(p *wire.Packet) {
	l.mu.Lock()
	c := l.calls[p.Nonce]
	delete(l.calls, p.Nonce)
	l.mu.Unlock()
	if c != nil {
		c.answer <- p
		return
	}
	l.node.log.Debug("answer that nobody waits for", "peer", l.peer.id, "method", p.Method)
}

// call sends a request and waits for the answer to it. sent reports whether the
// peer may have got the request.
func (l *link) call(ctx context.Context, p *wire.Packet) (resp *wire.Packet, sent bool, err error) {
	if l.v1 != nil {
		resp, sent, _, err = l.callV1(ctx, p)
		return resp, sent, err
	}
	if l.mode.Signed() && p.Kind != wire.Heartbeat {
		if err := l.sign(p); err != nil {
			return nil, false, err
		}
	}
	c := pendings.Get().(*pending)
	if err := l.expect(p.Nonce, c); err != nil {
		c.release()
		return nil, false, err
	}
	if err := l.write(l.out.push(ctx, l, outgoing{packet: p})); err != nil {
		l.unexpect(p.Nonce, c)
		return nil, false, err
	}
	expired, parted := c.ends(ctx)
	select {
	case resp, ok := <-c.answer:
		l.going.Add(-1)
		if !ok {
			return nil, true, newError(ErrNetworkDisconnected, "the connection ended before the answer: %w", l.cause())
		}
		c.release()
		return resp, true, l.node.checkResponse(resp, p, l.peer)
	case <-expired:
		err = context.DeadlineExceeded
	case <-parted:
		err = ctx.Err()
	}
	l.unexpect(p.Nonce, c)
	// The handler has no more reason to run. This may come too late.
	l.control(&wire.Packet{Kind: wire.Cancel, Nonce: p.Nonce, CallKey: p.CallKey})
	return nil, true, err
}

// notify sends a one-way packet.
func (l *link) notify(ctx context.Context, p *wire.Packet) error {
	if l.v1 != nil {
		return errV1OneWay
	}
	if l.mode.Signed() {
		if err := l.sign(p); err != nil {
			return err
		}
	}
	return l.write(l.out.push(ctx, l, outgoing{packet: p}))
}

func (l *link) sign(p *wire.Packet) error {
	n := l.node
	p.Mode, p.Transport = l.mode, uint8(l.peer.kind)
	p.Time, p.Recipient, p.Epoch = uint64(n.now().UnixMilli()), wire.ID(l.peer.key.ID()), l.peerEpoch
	return secure.Sign(n.local.Rand, n.local.Key, p)
}

func (l *link) expect(nonce wire.Nonce, c *pending) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil:
		return newError(ErrNetworkDisconnected, "the connection has ended: %w", l.err)
	case l.retired:
		return errReplaced
	case len(l.calls) >= l.node.cfg.Limits.MaxCalls:
		return newError(ErrTooManyRequests, "%d calls wait on one connection already", len(l.calls))
	}
	l.calls[nonce] = c
	l.going.Add(1)
	return nil
}

// unexpect gives a call up. If an answer is on its way to it nobody else may
// have c yet.
func (l *link) unexpect(nonce wire.Nonce, c *pending) {
	l.going.Add(-1)
	l.mu.Lock()
	mine := l.calls[nonce] == c
	if mine {
		delete(l.calls, nonce)
	}
	l.mu.Unlock()
	if mine {
		c.release()
	}
}

// ping asks the peer for a sign of life. A finish may ride on it.
func (l *link) ping(ctx context.Context, finish []byte) error {
	nonce, err := l.node.nonce()
	if err != nil {
		return err
	}
	p := &wire.Packet{Kind: wire.Heartbeat, Nonce: nonce, Handshake: finish}
	resp, _, err := l.call(ctx, p)
	if err != nil {
		return err
	}
	return isPong(resp, l.peer.id, l.send != nil)
}

// isPong returns the error of a heartbeat that was refused.
func isPong(resp *wire.Packet, pid string, proved bool) error {
	if resp.Kind == wire.Heartbeat {
		return nil
	}
	return refusedBy(resp, &Peer{id: pid}, proved)
}

// refusedBy makes an error of a refusal.
func refusedBy(resp *wire.Packet, peer *Peer, proved bool) *Error {
	msg := resp.Msg
	if !proved {
		msg += " (not proved)"
	}
	return &Error{Status: resp.Status, Msg: msg, PeerID: peer.id, Proved: proved}
}

// announce tells the peer that this node goes away.
func (l *link) announce(reason wire.Reason) {
	if reason == wire.ReasonShutdown {
		l.closing.Store(true) // handlers that finish may still call
	} else {
		l.leaving.Store(true)
	}
	if err := l.control(&wire.Packet{Kind: wire.GoingAway, Reason: reason}); err != nil {
		l.fail(err)
	}
}

// goingAway is what the peer announced.
func (l *link) goingAway(reason wire.Reason) error {
	if reason != wire.ReasonRenew {
		l.leaving.Store(true)
	}
	switch reason {
	case wire.ReasonClosed:
		if l.remote != nil {
			l.remote.stop(l)
		}
	case wire.ReasonShutdown:
		if l.remote != nil {
			l.remote.lost(l)
		}
	case wire.ReasonRenew:
		l.renewedByPeer()
	default:
		return wire.ErrMalformed
	}
	return nil
}

// finish waits until nothing runs on the link, or ctx ends, and closes it.
func (l *link) finish(ctx context.Context) error {
	err := l.active.wait(ctx)
	if err == nil {
		err = l.retire(ctx)
	}
	l.out.flush(l, time.Second)
	l.fail(errClosedHere)
	return err
}

// closeGently closes the link for good once the answers of what runs now are
// written: a handler may close its own connection and still answer.
func (l *link) closeGently() {
	if l.closing.Swap(true) {
		return
	}
	l.leaving.Store(true)
	l.mu.Lock()
	calls := l.calls
	l.calls = make(map[wire.Nonce]*pending)
	l.mu.Unlock()
	for _, c := range calls {
		c.end()
	}
	n := l.node
	if !n.spawn(func() {
		ctx, cancel := context.WithTimeout(l.ctx, n.timeout())
		defer cancel()
		l.active.wait(ctx)
		l.control(&wire.Packet{Kind: wire.GoingAway, Reason: wire.ReasonClosed})
		l.out.flush(l, time.Second)
		l.fail(errClosedHere)
	}) {
		l.fail(errClosedHere)
	}
}
