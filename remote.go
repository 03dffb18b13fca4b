package owtp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// A remote is a peer that Connect was called for: how it is reached, who it
// must be, and what calls to it demand (PROTOCOL §2). It lives until ClosePeer,
// across reconnects.
type remote struct {
	node *OWTPNode
	name string
	tr   transport.Transport
	exch transport.Exchanger // nil where the transport has connections
	cfg  atomic.Pointer[spec]

	v1 *v1Dialled // nil unless it is called in version 1

	queues  transport.Queues // of this side, on MQ
	passive bool             // on MQ: the peer called first, and starts every agreement

	ctx    context.Context // ends with ClosePeer
	cancel context.CancelCauseFunc
	keyed  keyedCalls
	gate   chan struct{} // holds one token; who has it may shake hands

	mu           sync.Mutex
	pin          identity.ID // who the peer must be; zero if nobody has been proved yet
	sealed       bool        // KeyAgreement was called: nothing goes out unsealed any more
	suites       []*secure.Suite
	link         *link
	changed      chan struct{} // closed and replaced when link or state changes
	stopped      bool          // the peer said that it is gone for good
	reconnecting bool
	linked       time.Time // when the last connection was adopted
	short        int       // connections in a row that did not last
	waiting      int       // calls that wait for a connection
	proof        proofState
	session      *clientSession
	earlier      *clientSession // that session replaced
}

func (n *OWTPNode) newRemote(name string, s *spec, tr transport.Transport) *remote {
	r := &remote{node: n, name: name, tr: tr, suites: s.suites, pin: s.peer, gate: make(chan struct{}, 1), changed: make(chan struct{})}
	r.cfg.Store(s)
	if s.isV1() {
		r.v1 = n.newV1Dialled(r)
	}
	r.ctx, r.cancel = context.WithCancelCause(n.ctx)
	return r
}

func (r *remote) spec() *spec { return r.cfg.Load() }

// mode is what calls to the remote ask for now. A peer whose ID is known is
// asked for proof: an open call to it does not exist. In version 1 nothing is
// proved by asking for more.
func (r *remote) mode() wire.Mode {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.modeLocked()
}

func (r *remote) modeLocked() wire.Mode {
	seal := r.spec().EnableKeyAgreement || r.sealed
	sign := r.spec().EnableSignature || !seal && !r.pin.IsZero() && r.v1 == nil
	return modeOf(sign, seal)
}

func (r *remote) pinned() identity.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pin
}

// lock waits for the right to shake hands.
func (r *remote) lock(ctx context.Context) error {
	select {
	case r.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

func (r *remote) unlock() { <-r.gate }

// recognise decides whether a proved key is the one that the name stands for,
// and binds an alias at first contact (PROTOCOL §2).
func (r *remote) recognise(ctx context.Context, key *identity.PublicKey) error {
	n, id := r.node, key.ID()
	if r.v1 != nil && key.Equal(r.v1.key.Public()) {
		return trustError("this node itself answers at %s, where %q is", r.spec().Address, r.name)
	}
	if pin := r.pinned(); !pin.IsZero() && pin != id {
		return trustError("%q must be %s, but %s answers at %s", r.name, pin, id, r.spec().Address)
	}
	if own, err := identity.ParseID(r.name); err == nil && own != id {
		return trustError("%q was dialled, but %s answers at %s", r.name, id, r.spec().Address)
	} else if err != nil {
		alias := r.spec().alias(r.name)
		bound, first, err := n.state.bind(ctx, alias, id)
		if err != nil {
			return newError(ErrDenialOfService, "the binding of %q cannot be stored: %w", r.name, err)
		}
		if bound != id {
			return trustError("%q is bound to %s, but %s answers at %s: somebody is in between, or the peer has a new key. Check it with the peer's owner, then ForgetPeer(%q)", r.name, bound, id, r.spec().Address, alias)
		}
		if first {
			n.told.Warn("first contact: the alias is bound to the ID that answers", "alias", alias, "peer", id.String(), "address", r.spec().Address)
		}
	}
	r.mu.Lock()
	r.pin = id
	r.mu.Unlock()
	n.mu.Lock()
	if n.remotes[r.name] == r && r.v1 == nil {
		n.byID[id] = r.name
	}
	n.mu.Unlock()
	return nil
}

// signal wakes all who wait for a change, with the lock held.
func (r *remote) signal() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *remote) currentLink() *link {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.link
}

// ready waits for a connection that meets the demands of now.
func (r *remote) ready(ctx context.Context) (*link, error) {
	for first := true; ; first = false {
		r.mu.Lock()
		l, changed, stopped, mode := r.link, r.changed, r.stopped, r.modeLocked()
		ok := l != nil && l.usable() && meets(l.mode, mode)
		if first && !ok {
			if r.waiting >= r.node.cfg.Limits.MaxCalls {
				r.mu.Unlock()
				return nil, newError(ErrTooManyRequests, "too many calls wait for a connection to %s", r.spec().Address)
			}
			r.waiting++
			defer func() {
				r.mu.Lock()
				r.waiting--
				r.mu.Unlock()
			}()
		}
		r.mu.Unlock()
		if ok {
			return l, nil
		}
		if stopped {
			return nil, newError(ErrNetworkDisconnected, "the peer has closed the connection for good; call Connect again")
		}
		r.reconnect()
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, newError(ErrNetworkDisconnected, "no connection to %s in time; it is tried again in the background", r.spec().Address)
			}
			return nil, ctx.Err()
		case <-r.ctx.Done():
			return nil, context.Cause(r.ctx)
		}
	}
}

// meets reports whether a connection of mode m is as strong as want. Every
// mode with proof is sealed on a connection, but only KeyAgreement's says so.
func meets(m, want wire.Mode) bool {
	return (m.Signed() || !want.Signed()) && (m.Sealed() || !want.Sealed())
}

// adopt makes a new link the one that calls take, and lets the old one drain.
func (r *remote) adopt(l *link) {
	r.mu.Lock()
	old := r.link
	r.link, r.stopped, r.linked = l, false, time.Now()
	r.signal()
	r.mu.Unlock()
	if old != nil && old != l && !old.ended() {
		r.node.spawn(old.drain)
	}
	if r.ctx.Err() != nil {
		l.closeGently() // ClosePeer came while it was dialled
	}
	if l.ended() {
		r.lost(l) // it told us before we knew it
	}
}

// lost is told that a link has ended or is going away.
func (r *remote) lost(l *link) {
	r.mu.Lock()
	mine := r.link == l
	if mine {
		r.link = nil
		r.signal()
	}
	r.mu.Unlock()
	if mine {
		r.reconnect()
	}
}

// stop is told that the peer closed a link for good: nothing is dialled any
// more, unless another link has taken its place.
func (r *remote) stop(l *link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link == nil || r.link == l {
		r.stopped = true
		r.signal()
	}
}

// reconnect dials in the background until it succeeds, with pauses that grow
// and vary, so that a thousand clients do not come back at the same moment.
func (r *remote) reconnect() {
	r.mu.Lock()
	if r.reconnecting || r.stopped || r.ctx.Err() != nil || r.exch != nil || r.node.closing.Load() {
		r.mu.Unlock()
		return
	}
	r.reconnecting = true
	r.mu.Unlock()
	if !r.node.spawn(r.redial) {
		r.mu.Lock()
		r.reconnecting = false
		r.mu.Unlock()
	}
}

func (r *remote) redial() {
	defer func() {
		r.mu.Lock()
		r.reconnecting = false
		again := r.link == nil && !r.stopped // lost while we were at it
		r.signal()                           // who waits looks again and may start anew
		r.mu.Unlock()
		if again {
			r.reconnect()
		}
	}()
	pause := firstPause
	if !r.calm(&pause) {
		return
	}
	for {
		r.mu.Lock()
		done := r.stopped || r.link != nil && r.link.usable() && meets(r.link.mode, r.modeLocked())
		r.mu.Unlock()
		if done || r.ctx.Err() != nil {
			return
		}
		r.reload()
		err := r.establish(r.ctx)
		if err == nil {
			return
		}
		r.node.log.Info("reconnecting failed; it is tried again", "peer", r.name, "pause", pause, "err", err)
		t := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-t.C:
		case <-r.ctx.Done():
			t.Stop()
			return
		}
		pause = min(2*pause, r.node.cfg.Limits.MaxReconnectDelay)
	}
}

// calm pauses before the first attempt if the last connection was lost as soon
// as it was there, again and again for longer: a peer that accepts and hangs up
// must not make this node shake hands without end.
func (r *remote) calm(pause *time.Duration) bool {
	r.mu.Lock()
	if time.Since(r.linked) > shortLife {
		r.short = 0
	} else {
		r.short++
	}
	for range min(r.short-1, 16) {
		*pause = min(2**pause, r.node.cfg.Limits.MaxReconnectDelay)
	}
	wait := r.short > 1
	r.mu.Unlock()
	return !wait || sleep(r.ctx, *pause/2+rand.N(*pause))
}

// shortLife is how long a connection lasts that was worth making.
const shortLife = 5 * time.Second

// reload lets the program say where the peer is now. Who it is and what is
// demanded of it cannot change.
func (r *remote) reload() {
	n := r.node
	n.mu.Lock()
	h := n.handlers.reload
	n.mu.Unlock()
	if h == nil {
		return
	}
	info := PeerInfo{ID: r.id(), Name: r.name, Config: r.spec().ConnectConfig}
	n.guardCallback("reload handler", func() { info = h(n, info) })
	s, err := info.Config.checkDial()
	if err != nil {
		n.log.Warn("the reload handler's configuration is ignored", "err", err)
		return
	}
	c := *r.spec()
	c.Address, c.TLS, c.EnableSSL = s.Address, s.TLS, s.EnableSSL
	r.cfg.Store(&c)
}

// establish makes a new connection and adopts it, one at a time.
func (r *remote) establish(ctx context.Context) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	r.mu.Lock()
	l, mode := r.link, r.modeLocked()
	r.mu.Unlock()
	if l != nil && l.usable() && meets(l.mode, mode) {
		return nil // somebody else was quicker
	}
	if l != nil && r.v1 != nil {
		// Version 1's nodes know a peer by its last connection, and forget it
		// when an earlier one ends.
		r.finish(ctx, l)
	}
	l, err := r.dial(ctx, mode)
	if err != nil {
		return err
	}
	r.adopt(l)
	return context.Cause(r.ctx)
}

// finish ends a link whose place another one takes, but does not wait for ever:
// a handler of it may be who wants the other one.
func (r *remote) finish(ctx context.Context, l *link) {
	ctx, cancel := context.WithTimeout(ctx, r.node.cfg.Limits.HandshakeTimeout)
	defer cancel()
	l.finish(ctx)
}

// id returns the peer's ID if it is known.
func (r *remote) id() string {
	if pin := r.pinned(); !pin.IsZero() && r.v1 != nil {
		return v1ID(pin)
	} else if !pin.IsZero() {
		return pin.String()
	}
	if l := r.currentLink(); l != nil {
		return l.peer.id
	}
	return ""
}

// close forgets everything: the session, the demands, the connection.
func (r *remote) close() {
	r.cancel(newError(ErrNetworkDisconnected, "the peer was closed by this node"))
	r.mu.Lock()
	l := r.link
	r.session, r.earlier = nil, nil
	r.signal()
	r.mu.Unlock()
	if l != nil {
		l.closeGently()
	}
	r.closeExchanger()
	if r.v1 != nil {
		r.v1.close()
	}
}

func (r *remote) String() string { return fmt.Sprintf("%s at %s", r.name, r.spec().Address) }
