package owtp

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// The calling side of message queues, in both directions: who connected also
// takes requests from a queue of its own, and who listens calls back there.

var (
	errReplicaGone = errors.New("the replica that was asked takes no more messages")
	errPassive     = newError(ErrNetworkDisconnected, "the session with this peer has ended; the side that connected agrees on the next one, with its next call")
)

// openEndpoint opens this node's end at the broker. What comes to its own queue
// is the peer calling back.
func (r *remote) openEndpoint(ctx context.Context, b transport.Broker, cfg transport.Config) error {
	face := &listener{node: r.node, spec: r.spec(), kind: b.Kind(), remote: r, bound: make(chan struct{})}
	e, err := b.Open(ctx, cfg, face)
	if err != nil {
		return err
	}
	r.exch, r.queues = e, e.Queues()
	close(face.bound)
	return nil
}

// introduce proves both sides to each other. The peer can call back from then
// on.
func (r *remote) introduce(ctx context.Context) error {
	nonce, err := r.node.nonce()
	if err != nil {
		return err
	}
	out, err := r.exchange(ctx, &wire.Packet{Kind: wire.Heartbeat, Nonce: nonce}, false)
	if err != nil {
		return err
	}
	return isPong(out.resp, r.name, out.proved)
}

// brokersWord reports whether a message has reached nobody by the word of the
// broker only, which returned it or did not want it. If an attacker owns the
// broker, it may have been delivered all the same.
func (r *remote) brokersWord(err error) bool {
	var refusal *transport.Refusal
	if r.queues.Reply == "" || !errors.Is(err, transport.ErrNotSent) || !errors.As(err, &refusal) {
		return false
	}
	return refusal.Status == int(ErrNetworkDisconnected) || refusal.Status == int(ErrDenialOfService)
}

// leaveReplica forgets what was agreed with a replica that is gone, unless
// somebody else has done so already.
func (r *remote) leaveReplica(queue string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.passive {
		return false // the peer itself is gone
	}
	if r.proof.queue == queue {
		r.proof.key, r.proof.queue, r.session = nil, "", nil
	}
	return true
}

// closeExchanger ends what exchanges were made with. An endpoint waits for the
// handlers of requests that came to it, and one of these may be who closes.
func (r *remote) closeExchanger() {
	switch x := r.exch.(type) {
	case nil:
	case transport.Endpoint:
		if r.passive {
			return // it is the listener's
		}
		if !r.node.spawn(func() {
			ctx, cancel := context.WithTimeout(context.Background(), closePatience)
			defer cancel()
			defer context.AfterFunc(r.node.ctx, cancel)()
			x.Shutdown(ctx)
			x.Close()
		}) {
			x.Close()
		}
	default:
		x.Close() // what runs ends by its own context; only idle sockets close now
	}
}

// A caller is a peer that has called this node through a broker and proved
// itself. It can be called back at its own queue.
type caller struct {
	remote *remote // nil once this node has closed the peer, until it calls again
	latest uint64  // time of the last request that was noted, in ms of the peer's clock
	seen   time.Time
}

// maxCallers bounds the peers that can be called back, some KiB each. When there
// are more, another one makes room by chance, until it calls again.
const maxCallers = 1 << 16

// noteCaller remembers where a peer that has just proved itself can be called
// back: at the own queue of the connection whose reply queue it names. Copies of
// earlier requests, which are fresh for a while, change nothing: they would take
// calls back to where the peer is no more, or to a mode that it has given up.
func (f *listener) noteCaller(in *inbound) {
	if f.kind != transport.MQ || f.remote != nil || in.replyTo == "" {
		return
	}
	n := f.node
	queue := transport.OwnQueuePrefix + strings.TrimPrefix(in.replyTo, transport.ReplyQueuePrefix)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing.Load() {
		return
	}
	c := n.callers[in.peer.id]
	if c == nil {
		if len(n.callers) >= maxCallers {
			for id, other := range n.callers { // the order is random
				other.forget(errPassive)
				delete(n.callers, id)
				break
			}
		}
		c = new(caller)
		n.callers[in.peer.id] = c
	} else if in.request.Time < c.latest || in.request.Time == c.latest && c.remote == nil {
		return
	}
	if c.remote == nil || !c.remote.isAt(f.tl, queue) || c.remote.spec().mode() != in.mode {
		c.forget(errPassive)
		c.remote = f.callBack(in, queue)
	}
	c.latest, c.seen = in.request.Time, time.Now()
	c.remote.meet(in)
}

// forget ends what goes on with the peer.
func (c *caller) forget(why error) {
	if c.remote != nil {
		c.remote.cancel(why)
		c.remote = nil
	}
}

// isAt reports whether a peer is called back there.
func (r *remote) isAt(l transport.Listener, queue string) bool {
	x := r.exch.(*queueExchanger)
	return x.Endpoint == l && x.queue == queue
}

// callBack is the remote for calls back to a peer.
func (f *listener) callBack(in *inbound, queue string) *remote {
	s := &spec{
		ConnectConfig: ConnectConfig{
			ConnectType: MQ, Address: f.spec.Address, Exchange: f.spec.Exchange, WriteQueueName: queue,
			EnableSignature: in.mode.Signed(), EnableKeyAgreement: in.mode.Sealed(), DataFormat: f.spec.DataFormat,
		},
		suites: f.spec.suites, peer: in.peer.key.ID(), broker: f.spec.broker,
	}
	r := f.node.newRemote(in.peer.id, s, s.broker)
	e := f.tl.(transport.Endpoint)
	r.exch, r.queues, r.passive = &queueExchanger{e, queue}, e.Queues(), true
	return r
}

// meet notes what a verified request says about its sender: it lives, and under
// which session.
func (r *remote) meet(in *inbound) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proof.key = in.peer.key
	if in.session == nil || r.session != nil && slices.Equal(r.session.ID, in.session.ID) {
		return
	}
	s := &clientSession{Session: in.session.Session, renew: in.session.expires}
	s.answers.Store(true) // the finish is the other side's
	r.earlier, r.session = r.session, s
	r.proof.epoch, r.proof.at, r.proof.ended = in.session.PeerEpoch, time.Now(), r.ended()
}

// callerOf returns the remote of a peer that can be called back, or nil.
func (n *OWTPNode) callerOf(pid string) *remote {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.callers[pid]; c != nil {
		return c.remote
	}
	return nil
}

func (n *OWTPNode) forgetCaller(pid string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.callers[pid]; c != nil { // it stays, so that copies do not bring the peer back
		c.forget(newError(ErrNetworkDisconnected, "the peer was closed by this node"))
	}
}

// sweepCallers forgets peers that have not called for as long as a session
// lives, and for as long as copies of their requests are fresh.
func (n *OWTPNode) sweepCallers() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, c := range n.callers {
		if time.Since(c.seen) > max(n.cfg.Limits.SessionLifetime, maxRemaining+n.replayable()) {
			c.forget(errPassive)
			delete(n.callers, id)
		}
	}
}

// A queueExchanger is a listener's endpoint as seen by one peer that is called
// back.
type queueExchanger struct {
	transport.Endpoint
	queue string
}

// Exchange implements [transport.Exchanger].
func (x *queueExchanger) Exchange(ctx context.Context, m transport.Message) (transport.Message, error) {
	if m.To == "" {
		m.To = x.queue
	}
	return x.Endpoint.Exchange(ctx, m)
}

// session finds the session that a sealed message names: one that a peer agreed
// on with this node or, where this side has connected, the other way round.
func (f *listener) session(ctx context.Context, id []byte) (*heldSession, error) {
	if f.remote == nil {
		return f.node.state.session(ctx, id)
	}
	r := f.remote
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range []*clientSession{r.session, r.earlier} {
		if s != nil && slices.Equal(s.ID, id) {
			return &heldSession{Session: s.Session, expires: s.renew, proved: true}, nil
		}
	}
	return nil, errUnknownSession
}
