package owtp

import (
	"context"
	"errors"
	"fmt"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// dial makes one connection of the wanted mode, with the peer's sealed
// acceptance if there is a handshake.
func (r *remote) dial(ctx context.Context, mode wire.Mode) (*link, error) {
	n := r.node
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Limits.HandshakeTimeout)
	defer cancel()
	r.mu.Lock()
	s, suites, pin := r.spec(), r.suites, r.pin
	r.mu.Unlock()
	if r.v1 != nil {
		return r.dialV1(ctx, mode)
	}
	conn, err := r.tr.(transport.ConnDialer).DialConn(ctx, n.transportConfig(s))
	if err != nil {
		return nil, err
	}
	l := n.newLink(conn, r.tr.Kind())
	l.remote, l.mode = r, mode
	l.peer.Name, l.peer.config, l.peer.dialed = r.name, &s.ConnectConfig, true
	if mode == wire.ModeOpen {
		err = r.startOpen(ctx, l)
	} else {
		err = r.startSecure(ctx, l, secure.Offer{Transport: uint8(r.tr.Kind()), Mode: mode, Suites: suites, Recipient: pin})
	}
	if err != nil {
		l.fail(err)
		n.forgetLink(l)
		return nil, err
	}
	return l, nil
}

// startOpen begins a connection without proof and waits until the peer agrees.
func (r *remote) startOpen(ctx context.Context, l *link) error {
	n := r.node
	if r.spec().DataFormat == "" || r.spec().DataFormat == wire.FormatJSON {
		l.form = transport.JSON
	}
	var err error
	if l.peer.id, err = n.anonymousID(); err != nil {
		return err
	}
	m, err := l.alone(&wire.Packet{Kind: wire.Open})
	if err != nil {
		return err
	}
	if err := l.conn.Send(ctx, m); err != nil {
		return err
	}
	answer, err := l.conn.Recv(ctx)
	if err != nil {
		return err
	}
	packets, err := l.open(answer)
	if err != nil {
		return err
	}
	switch p := packets[0]; p.Kind {
	case wire.Open:
		if refused := n.register(l); refused != nil {
			return newError(refused.status, "%s", refused.msg)
		}
		return n.startLink(l, packets[1:])
	case wire.Response:
		return refusedBy(p, l.peer, false)
	default:
		return fmt.Errorf("%w: answered open with a %s", wire.ErrMalformed, p.Kind)
	}
}

// startSecure is the initiator's side of a handshake on a connection.
func (r *remote) startSecure(ctx context.Context, l *link, o secure.Offer) error {
	n := r.node
	var err error
	if o.Epoch, err = n.state.epoch(ctx); err != nil {
		return newError(ErrDenialOfService, "the store cannot give the epoch: %w", err)
	}
	proof, s, err := n.shakeHands(ctx, o, exchangeOver(l.conn))
	if err != nil {
		return err
	}
	defer s.Erase()
	if err := r.recognise(ctx, proof.Key); err != nil {
		return err
	}
	if err := l.secured(s); err != nil {
		return err
	}
	if err := n.startLink(l, nil); err != nil {
		return err
	}
	// The finish rides on a heartbeat; its answer is the sealed acceptance.
	if err := l.ping(ctx, s.Finish); err != nil {
		return err
	}
	if refused := n.register(l); refused != nil {
		return newError(refused.status, "%s", refused.msg)
	}
	return nil
}

func (n *OWTPNode) startLink(l *link, first []*wire.Packet) error {
	if !n.spawn(func() { n.serveLink(l, first) }) {
		return errNodeClosed
	}
	return nil
}

// exchangeOver sends one message and takes the next as its answer.
func exchangeOver(conn transport.Conn) func(context.Context, []byte) (transport.Message, error) {
	return func(ctx context.Context, hello []byte) (transport.Message, error) {
		if err := conn.Send(ctx, transport.Message{Form: transport.Binary, Data: hello}); err != nil {
			return transport.Message{}, err
		}
		return conn.Recv(ctx)
	}
}

// shakeHands sends a hello and verifies the answer to it.
func (n *OWTPNode) shakeHands(ctx context.Context, o secure.Offer, exchange func(context.Context, []byte) (transport.Message, error)) (*secure.Proof, *secure.Session, error) {
	i, hello, err := secure.Start(n.local, o)
	if err != nil {
		return nil, nil, err
	}
	m, err := exchange(ctx, hello)
	if err != nil {
		return nil, nil, err
	}
	if typ, _, err := wire.ParseHeader(m.Data); err == nil && typ == wire.TypePackets || m.Form == transport.JSON {
		if p, err := parseOne(m); err == nil && p.Kind == wire.Response {
			e := refusedBy(p, &Peer{}, false)
			e.MayHaveRun = false
			if !o.Recipient.IsZero() && e.Status == ErrKeyAgreementFailed {
				e.Msg += fmt.Sprintf("; it was asked to be %s: if the peer has a new key, check that with its owner, then ForgetPeer", o.Recipient)
			}
			return nil, nil, e
		}
	}
	return i.Finish(m.Data)
}

// Identify asks whoever answers at an address for the proof of its identity and
// returns the node ID. Nothing is remembered and nothing is bound. With Version 1
// the proof is a key agreement, whether or not the configuration asks for one.
func (n *OWTPNode) Identify(ctx context.Context, cfg ConnectConfig) (string, error) {
	if err := n.use(); err != nil {
		return "", err
	}
	s, err := cfg.checkDial()
	if err != nil {
		return "", err
	}
	if err := s.writeQueue(s.Address); err != nil {
		return "", err
	}
	tr := s.transport()
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Limits.HandshakeTimeout)
	defer cancel()
	o := secure.Offer{Transport: uint8(tr.Kind()), Mode: wire.ModeSigned, Recipient: s.peer}
	if s.isV1() {
		var id string
		err := n.during(ctx, func(ctx context.Context) (err error) {
			if id, err = n.identifyV1(ctx, s); err != nil {
				return localError(err, false)
			}
			return nil
		})
		return id, err
	}
	var proof *secure.Proof
	err = n.during(ctx, func(ctx context.Context) (err error) {
		if o.Epoch, err = n.state.epoch(ctx); err != nil {
			return err
		}
		if proof, err = n.identify(ctx, o, s, tr); err != nil {
			return localError(err, false)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return proof.Key.ID().String(), nil
}

func (n *OWTPNode) identify(ctx context.Context, o secure.Offer, s *spec, tr transport.Transport) (*secure.Proof, error) {
	r := n.newRemote(s.Address, s, tr)
	if err := r.dialExchanger(ctx); err != nil {
		return nil, err
	}
	if r.exch != nil {
		defer r.close()
		o.ReplyQueue = r.queues.Reply
		proof, _, err := n.shakeHands(ctx, o, exchangeWith(r.exch, ""))
		return proof, err
	}
	conn, err := tr.(transport.ConnDialer).DialConn(ctx, n.transportConfig(s))
	if err != nil {
		return nil, err
	}
	defer conn.Close("identified")
	proof, _, err := n.shakeHands(ctx, o, exchangeOver(conn))
	return proof, err
}

// exchangeWith sends a message to a queue, "" being the dialled one or no queue
// at all, and returns the answer.
func exchangeWith(exch transport.Exchanger, to string) func(context.Context, []byte) (transport.Message, error) {
	return func(ctx context.Context, hello []byte) (transport.Message, error) {
		return exch.Exchange(ctx, transport.Message{Form: transport.Binary, Data: hello, To: to})
	}
}

// Bindings returns all aliases and the node IDs that they are bound to.
func (n *OWTPNode) Bindings(ctx context.Context) (map[string]string, error) {
	if n.err != nil {
		return nil, n.err
	}
	var all map[string]identity.ID
	err := n.during(ctx, func(ctx context.Context) (err error) {
		all, err = n.state.bindings(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("owtp: bindings: %w", err)
	}
	out := make(map[string]string, len(all))
	for alias, id := range all {
		out[alias] = id.String()
	}
	return out, nil
}

// PinPeer binds an alias to a node ID before the first contact. An alias that
// is bound to another ID is an error.
func (n *OWTPNode) PinPeer(ctx context.Context, alias, peerID string) error {
	if err := n.use(); err != nil {
		return err
	}
	if err := checkName(alias); err != nil {
		return err
	}
	if _, err := identity.ParseID(alias); err == nil {
		return fmt.Errorf("owtp: %q is a node ID itself and needs no pin", alias)
	}
	id, err := identity.ParseID(peerID)
	if err != nil {
		return fmt.Errorf("owtp: PinPeer: %w", err)
	}
	var bound identity.ID
	err = n.during(ctx, func(ctx context.Context) (err error) {
		bound, _, err = n.state.bind(ctx, alias, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("owtp: PinPeer: %w", err)
	}
	if bound != id {
		return trustError("%q is bound to %s already; ForgetPeer first", alias, bound)
	}
	n.named.pin(alias, id)
	return nil
}

// ForgetPeer removes the binding of an alias. A connection that is open stays.
func (n *OWTPNode) ForgetPeer(ctx context.Context, alias string) error {
	if err := n.use(); err != nil {
		return err
	}
	err := n.during(ctx, func(ctx context.Context) error { return n.state.forget(ctx, alias) })
	if err != nil {
		return fmt.Errorf("owtp: ForgetPeer: %w", err)
	}
	n.named.unpin(alias)
	return nil
}

var errNameEmpty = errors.New("owtp: the peer's name is empty; give a node ID or an alias")
