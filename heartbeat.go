package owtp

import (
	"context"
	"errors"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
)

var errDeadPeer = errors.New("the peer gives no sign of life")

func stack() string { return string(debug.Stack()) }

// startSweeping starts the node's one timer, with the lock held. An idle
// connection has no timer and no goroutine but its reader.
func (n *OWTPNode) startSweeping() {
	if n.sweeping {
		return
	}
	n.sweeping = n.spawn(n.sweep)
}

// allLinks is called with the lock held.
func (n *OWTPNode) allLinks() []*link {
	return slices.AppendSeq(make([]*link, 0, len(n.links)), maps.Keys(n.links))
}

// sweep asks silent peers for a sign of life after one interval and gives them
// up before two are over; and forgets sessions that have expired.
func (n *OWTPNode) sweep() {
	interval := n.cfg.Limits.Heartbeat
	tick := time.NewTicker(max(min(interval, n.cfg.Limits.MaxKeyAge, lease)/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		n.state.sweep()
		n.state.calls.sweep()
		if !n.leasing.Swap(true) && !n.spawn(func() {
			defer n.leasing.Store(false)
			n.tendCalls() // a store that hangs must not stop the heart
		}) {
			return
		}
		n.claims.sweep(n.now())
		n.gate.sweep()
		n.sweepCallers()
		n.sweepV1()
		n.mu.Lock()
		links := n.allLinks()
		n.mu.Unlock()
		now := time.Now().UnixNano()
		for _, l := range links {
			l.checkLife(time.Duration(now-l.lastRecv.Load()), interval)
			l.checkAge(n.cfg.Limits.MaxKeyAge)
		}
	}
}

func (l *link) checkLife(silent, interval time.Duration) {
	switch {
	case l.v1 != nil:
		l.checkLifeV1(interval)
	case silent >= 2*interval-interval/4:
		l.fail(errDeadPeer)
	case silent >= interval && !l.asked.Swap(true):
		nonce, err := l.node.nonce()
		if err == nil {
			err = l.control(&wire.Packet{Kind: wire.Heartbeat, Nonce: nonce})
		}
		if err != nil {
			l.fail(err)
		}
	}
}

// checkAge renews the keys of a link by time.
func (l *link) checkAge(most time.Duration) {
	if l.send == nil {
		return
	}
	switch age := time.Since(l.born); {
	case age >= most:
		l.fail(secure.ErrLimit)
	case age >= time.Duration(renewShare*float64(most)):
		l.renew()
	}
}

// Ping asks a peer, by ID or name, for a sign of life and returns how long the
// answer took. Over HTTP in a mode with proof the peer has proved itself.
func (n *OWTPNode) Ping(ctx context.Context, pid string) (time.Duration, error) {
	if n.err != nil {
		return 0, n.err
	}
	begin := time.Now()
	c := newCallContext(ctx, time.Now().Add(n.timeout()))
	defer c.end()
	nonce, err := n.nonce()
	if err != nil {
		return 0, err
	}
	p := &wire.Packet{Kind: wire.Heartbeat, Nonce: nonce}
	if _, err := n.send(c, pid, p, nil); err != nil {
		return 0, err
	}
	return time.Since(begin), nil
}
