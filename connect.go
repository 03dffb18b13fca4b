package owtp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// Connect makes a peer known under a name and reaches it. The name is its node
// ID, which it must then prove, or an alias, which is bound to the first ID
// that is proved under it. WebSocket dials and shakes hands; HTTP and MQ make
// one exchange in which the peer proves itself, and none at all in open mode. A
// name that is connected with an equal configuration is left as it is, or
// dialled if it has no connection just now; with another it is an error.
func (n *OWTPNode) Connect(pid string, cfg ConnectConfig) error {
	return n.ConnectContext(context.Background(), pid, cfg)
}

// ConnectContext is Connect with a context.
func (n *OWTPNode) ConnectContext(ctx context.Context, pid string, cfg ConnectConfig) error {
	if err := n.use(); err != nil {
		return err
	}
	return n.during(ctx, func(ctx context.Context) error { return n.connect(ctx, pid, cfg) })
}

func (n *OWTPNode) connect(ctx context.Context, pid string, cfg ConnectConfig) error {
	s, err := cfg.checkDial()
	if err != nil {
		return err
	}
	if err := n.expectedPeer(ctx, pid, s); err != nil {
		return err
	}
	if err := s.writeQueue(pid); err != nil {
		return err
	}
	r := n.newRemote(pid, s, s.transport())
	if err := r.dialExchanger(ctx); err != nil {
		return localError(err, false)
	}
	if added, err := n.addRemote(r); !added {
		r.close()
		if err != nil {
			return err
		}
		return n.connectAgain(ctx, pid)
	}
	if err := r.open(ctx); err != nil {
		n.removeRemote(r)
		err = r.whoElse(ctx, err)
		r.close()
		e := *localError(err, false) // a copy: it may be everybody's
		e.PeerID, e.MayHaveRun = pid, false
		return &e
	}
	return nil
}

// whoElse finds out whether an agreement failed because somebody else answers:
// a node refuses a hello that is for another, and who merely reads "agreement
// failed" would look in the wrong place.
func (r *remote) whoElse(ctx context.Context, err error) error {
	pin := r.pinned()
	if pin.IsZero() || r.v1 != nil || localError(err, false).Status != ErrKeyAgreementFailed {
		return err
	}
	n := r.node
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Limits.HandshakeTimeout)
	defer cancel()
	o := secure.Offer{Transport: uint8(r.tr.Kind()), Mode: wire.ModeSigned}
	epoch, err2 := n.state.epoch(ctx)
	if err2 != nil {
		return err
	}
	o.Epoch = epoch
	proof, err2 := n.identify(ctx, o, r.spec(), r.tr)
	if err2 != nil || proof.Key.ID() == pin {
		return err
	}
	return trustError("%q must be %s, but %s answers at %s: somebody is in between, or the peer has a new key. Check it with the peer's owner; then pin the new ID, or ForgetPeer(%q) where the name is an alias",
		r.name, pin, proof.Key.ID(), r.spec().Address, r.name)
}

// connectAgain is Connect for a name that is known with the same configuration.
// One that has no connection just now, also because the peer closed it for good,
// is dialled, with the demands that were made of it before.
func (n *OWTPNode) connectAgain(ctx context.Context, name string) error {
	r := n.remoteOf(name)
	if r == nil || r.exch != nil {
		return nil
	}
	r.mu.Lock()
	r.stopped = false
	r.mu.Unlock()
	if err := r.establish(ctx); err != nil {
		e := *localError(err, false) // a copy: it may be everybody's
		e.PeerID, e.MayHaveRun = name, false
		return &e
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return errNameEmpty
	case len(name) > maxAlias || !utf8.ValidString(name):
		return fmt.Errorf("owtp: the peer's name %.20q... must be UTF-8 of at most %d bytes", name, maxAlias)
	case strings.HasPrefix(name, "anon:") || strings.HasPrefix(name, "v1:"):
		return fmt.Errorf("owtp: the peer's name %q begins like an ID that this node gives itself", name)
	}
	return nil
}

// expectedPeer finds out who must answer: the ID that is the name, the ID in
// the configuration, or the one that the alias is bound to.
func (n *OWTPNode) expectedPeer(ctx context.Context, name string, s *spec) error {
	if err := checkName(name); err != nil {
		return err
	}
	if id, err := identity.ParseID(name); err == nil {
		if !s.peer.IsZero() && s.peer != id {
			return fmt.Errorf("owtp: the name is node %s, but ConnectConfig.PeerID is %s", name, s.PeerID)
		}
		s.peer = id
		return n.expectedV1(ctx, name, s)
	}
	alias := s.alias(name)
	bound, err := n.state.binding(ctx, alias)
	if err != nil {
		return newError(ErrDenialOfService, "the binding of %q cannot be read: %w", name, err)
	}
	if !bound.IsZero() && !s.peer.IsZero() && bound != s.peer {
		return trustError("%q is bound to %s, but ConnectConfig.PeerID is %s; ForgetPeer first if that is right", alias, bound, s.PeerID)
	}
	if !bound.IsZero() {
		s.peer = bound
	}
	if s.peer.IsZero() && n.cfg.Trust == TrustPinned {
		return trustError("nothing is known of %q and this node trusts pinned peers only; set ConnectConfig.PeerID or PinPeer", name)
	}
	if s.peer == n.local.Key.ID() {
		return trustError("%q is this node itself", name)
	}
	return n.expectedV1(ctx, name, s)
}

// addRemote registers the name. It adds nothing, without an error, if the name
// is connected already in the same way.
func (n *OWTPNode) addRemote(r *remote) (added bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := r.spec()
	if n.ctx.Err() != nil {
		return false, errNodeClosed // or Close would not know of it
	}
	if old := n.remotes[r.name]; old != nil {
		if old.spec().sameTarget(s) {
			return false, nil
		}
		return false, fmt.Errorf("owtp: %q is connected with another configuration; ClosePeer first", r.name)
	}
	n.remotes[r.name] = r
	if id := s.peerID(); id != "" {
		n.named.addText(id)
		if r.v1 == nil {
			n.byID[s.peer] = r.name
		}
	}
	return true, nil
}

func (n *OWTPNode) removeRemote(r *remote) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.remotes[r.name] == r {
		delete(n.remotes, r.name)
		if id := r.spec().peerID(); id != "" {
			n.named.removeText(id)
		}
	}
	for id, name := range n.byID {
		if name != r.name || n.remotes[name] != nil {
			continue
		}
		delete(n.byID, id)
		for other, o := range n.remotes {
			if o.v1 == nil && o.pinned() == id {
				n.byID[id] = other
			}
		}
	}
}

// remoteOf finds a dialled peer by name or ID.
func (n *OWTPNode) remoteOf(pid string) *remote {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.remotes[pid]; r != nil {
		return r
	}
	if id, err := identity.ParseID(pid); err == nil {
		return n.remotes[n.byID[id]]
	}
	if e := n.peers[pid]; e != nil {
		for _, l := range e.links {
			if l.remote != nil {
				return l.remote
			}
		}
	}
	return nil
}

// open reaches the peer for the first time.
func (r *remote) open(ctx context.Context) error {
	if r.exch == nil {
		return r.establish(ctx)
	}
	if r.v1 != nil {
		return r.v1.reach(ctx)
	}
	switch mode := r.mode(); {
	case mode != wire.ModeOpen && r.queues.Reply != "":
		return r.introduce(ctx)
	case mode.Sealed():
		_, err := r.agreed(ctx)
		return err
	case mode.Signed():
		return r.proved(ctx, 0)
	}
	return nil
}

// dialExchanger opens what the remote exchanges messages with, if its transport
// has exchanges.
func (r *remote) dialExchanger(ctx context.Context) (err error) {
	cfg := r.node.dialConfig(r.spec())
	switch tr := r.tr.(type) {
	case transport.Broker:
		err = r.openEndpoint(ctx, tr, cfg)
		if errors.Is(err, context.DeadlineExceeded) { // it says what the broker has not done
			err = newError(ErrRequestTimeout, "%w", bare{err})
		}
	case transport.ExchangeDialer:
		r.exch, err = tr.DialExchange(ctx, cfg)
	}
	return err
}

// KeyAgreement agrees on keys with a connected peer, which seals everything
// that follows until ClosePeer, across reconnects. The suite is "aes" (hybrid
// post-quantum) or "sm4". It returns nil only when the peer has accepted. If it
// fails, nothing goes out in the clear either: calls try to agree anew.
func (n *OWTPNode) KeyAgreement(pid, suite string) error {
	return n.KeyAgreementContext(context.Background(), pid, suite)
}

// KeyAgreementContext is KeyAgreement with a context.
func (n *OWTPNode) KeyAgreementContext(ctx context.Context, pid, suite string) error {
	if n.err != nil {
		return n.err
	}
	return n.during(ctx, func(ctx context.Context) error { return n.agree(ctx, pid, suite) })
}

func (n *OWTPNode) agree(ctx context.Context, pid, suite string) error {
	s, err := secure.SuiteByName(suite)
	if err != nil {
		return fmt.Errorf("owtp: KeyAgreement: %w", err)
	}
	r := n.remoteOf(pid)
	if r == nil {
		return unknownPeer(pid)
	}
	if r.v1 != nil && suite != v1Suite {
		return fmt.Errorf("owtp: KeyAgreement: the suite is %.40q; %q is called in version 1, which has %q only", suite, r.name, v1Suite)
	}
	ctx, cancel := context.WithTimeout(ctx, n.timeout())
	defer cancel()
	r.mu.Lock()
	r.sealed = true
	if r.v1 != nil && r.link != nil && !meets(r.link.mode, r.modeLocked()) {
		r.link.leaving.Store(true) // no call goes out on it any more
	}
	if len(r.suites) != 1 || r.suites[0] != s {
		r.suites = []*secure.Suite{s}
		if r.session != nil && r.session.Suite != s {
			r.session = nil
		}
		if r.link != nil && r.link.suite != s {
			r.link.leaving.Store(true) // sealed with another suite
		}
	}
	r.mu.Unlock()
	if r.v1 != nil && r.exch != nil {
		err = r.v1.reach(ctx)
	} else if r.exch != nil {
		err = r.accepted(ctx)
	} else {
		err = r.establish(ctx)
	}
	if err != nil {
		if r.exch == nil {
			r.reconnect()
		}
		e := *localError(err, false) // a copy: it may be everybody's
		e.PeerID, e.MayHaveRun = pid, false
		if e.Status == ErrNetworkDisconnected {
			e.Status = ErrKeyAgreementFailed
		}
		return &e
	}
	return nil
}

func unknownPeer(pid string) *Error {
	return &Error{Status: ErrNetworkDisconnected, PeerID: pid, cause: ErrUnknownPeer,
		Msg: "no such peer: it was never connected, or it has only called this node over HTTP or, unproved, over a message queue, where nothing can be sent back"}
}

// ClosePeer ends every connection of a peer, by name or ID, and forgets its
// session and demands. Inside a handler or callback it takes effect after that
// request's answer is written. It waits for nobody; calling it again does
// nothing. For a peer that only called over HTTP it does nothing.
func (n *OWTPNode) ClosePeer(pid string) {
	if n.err != nil {
		return
	}
	if pid == "" {
		return // nobody's ID, and what many have that are not proved yet
	}
	id := pid
	var closing []*remote // the name's and all others of the same peer
	if r := n.remoteOf(pid); r != nil {
		closing = append(closing, r)
		if known := r.id(); known != "" {
			id = known
		}
	}
	var links []*link
	n.mu.Lock()
	for _, r := range n.remotes {
		if r.id() == id && (len(closing) == 0 || r != closing[0]) {
			closing = append(closing, r)
		}
	}
	if e := n.peers[id]; e != nil {
		links = append(links, e.links...)
	}
	if l := n.v1Links[id]; l != nil {
		links = append(links, l)
	}
	n.mu.Unlock()
	n.forgetCaller(id)
	for _, r := range closing {
		n.removeRemote(r)
		r.close()
	}
	for _, l := range links {
		l.closeGently()
	}
}
