package owtp

import (
	"context"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
)

// The keys of a long connection have an end (PROTOCOL §§4, 6). Before it comes,
// the side that dialled makes a second connection, moves new calls there and
// lets the old one drain; the other side asks for it. Nobody who calls notices,
// and no handler of the program's runs, since the peer stays.

// renewShare is the share of a key's life after which a new one is made: half,
// so that what is in flight has the other half to end.
const renewShare = 0.5

// minKeyAge is how old a connection is at least when the peer has it replaced.
const minKeyAge = 250 * time.Millisecond

// paceShare is the share from which on records are spaced out, and paceTime is
// divided by how many are left: the pauses grow from next to nothing to a
// second, and what waits meanwhile goes out together. So a connection does not
// run into its limit while its successor is being made, however many call.
const (
	paceShare = 0.75
	paceTime  = time.Second
)

// pace is called by the writer before it takes what waits.
func (l *link) pace() {
	if l.send == nil || l.send.Used() < paceShare {
		return
	}
	limits := l.node.cfg.Limits
	left := (1 - l.send.Used()) * min(float64(limits.MaxKeyRecords), float64(limits.MaxKeyBytes)/maxBatch)
	sleep(l.ctx, time.Duration(float64(paceTime)/max(left, 1)))
}

var errReplaced = newError(ErrNetworkDisconnected, "the connection is being replaced")

// renew asks for a new connection, once.
func (l *link) renew() {
	if l.leaving.Load() || l.ended() || l.renewing.Swap(true) {
		return
	}
	if l.remote == nil {
		// Only who dialled can dial again.
		l.control(&wire.Packet{Kind: wire.GoingAway, Reason: wire.ReasonRenew})
		return
	}
	l.node.spawn(func() { l.remote.replace(l) })
}

// replace makes a new connection in place of old. If that fails it is tried
// again until the old one ends; then reconnecting goes on.
func (r *remote) replace(old *link) {
	for pause := firstPause; !old.ended() && r.currentLink() == old; pause = min(2*pause, r.node.cfg.Limits.MaxReconnectDelay) {
		if err := r.swap(old); err == nil {
			return
		} else {
			r.node.log.Warn("a connection whose keys grow old cannot be replaced yet", "peer", r.name, "err", err)
		}
		if !sleep(old.ctx, pause) {
			return
		}
	}
}

func (r *remote) swap(old *link) error {
	if err := r.lock(r.ctx); err != nil {
		return err
	}
	defer r.unlock()
	if r.currentLink() != old {
		return nil
	}
	l, err := r.dial(r.ctx, r.mode())
	if err != nil {
		return err
	}
	r.adopt(l)
	return nil
}

// drain lets a replaced connection finish what runs on it, both ways, and then
// closes it.
func (l *link) drain() {
	l.announce(wire.ReasonRenew)
	ctx, cancel := context.WithTimeout(l.ctx, l.node.timeout())
	defer cancel()
	select {
	case <-l.drained: // the peer will call no more
	case <-ctx.Done():
	}
	l.finish(ctx)
}

// renewedByPeer is told that the peer has made, or wants, a new connection.
func (l *link) renewedByPeer() {
	switch {
	case l.remote == nil && !l.leaving.Swap(true):
		l.node.spawn(func() {
			ctx, cancel := context.WithTimeout(l.ctx, l.node.timeout())
			defer cancel()
			l.retire(ctx)
			// Now it may be closed: nothing of ours waits or will. A question
			// from here may be crossing the peer's answer to it, so that one
			// going-away alone says nothing: it is always the second.
			if !l.renewing.Swap(true) {
				l.control(&wire.Packet{Kind: wire.GoingAway, Reason: wire.ReasonRenew})
			}
			l.control(&wire.Packet{Kind: wire.GoingAway, Reason: wire.ReasonRenew})
		})
	case l.remote == nil || l.renewals == 2:
	case l.renewals == 1:
		l.renewals++
		close(l.drained)
	default:
		l.renewals++
		// A peer that asks at once, again and again, must not make this node
		// shake hands without a pause.
		l.node.spawn(func() {
			if sleep(l.ctx, minKeyAge-time.Since(l.born)) {
				l.renew()
			}
		})
	}
}

// retire waits until no call waits on the link, and lets no other begin.
func (l *link) retire(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		l.mu.Lock()
		if len(l.calls) == 0 || l.err != nil {
			l.retired = true
			l.mu.Unlock()
			return nil
		}
		l.mu.Unlock()
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
