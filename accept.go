package owtp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// ServeConn is the life of an accepted connection: its first record decides
// what it is, then it is a link (PROTOCOL §4).
func (f *listener) ServeConn(ctx context.Context, conn transport.Conn) {
	n := f.node
	if !n.tasks.begin() {
		conn.Close("shutting down")
		return
	}
	defer n.tasks.end()
	if announced, is := f.version1(conn); is {
		f.serveV1Conn(ctx, conn, announced)
		return
	}
	l := n.newLink(conn, f.kind)
	l.face, l.peer.config = f, &f.spec.ConnectConfig
	// The listener's end is the link's too.
	stop := context.AfterFunc(ctx, func() { l.fail(errClosedHere) })
	defer stop()
	hctx, cancel := context.WithTimeout(l.ctx, n.cfg.Limits.HandshakeTimeout)
	first, err := f.accept(hctx, l)
	cancel()
	if err != nil {
		n.log.Debug("connection refused", "remote", conn.RemoteAddr(), "err", err)
		l.fail(err)
		n.forgetLink(l) // it may have been registered
		return
	}
	n.serveLink(l, first)
}

var errProofOnly = errors.New("the peer asked for a proof only")

// accept reads the first record and does what it asks for. It returns the
// packets that came with the initiator's proof.
func (f *listener) accept(ctx context.Context, l *link) ([]*wire.Packet, error) {
	m, err := l.conn.Recv(ctx)
	if err != nil {
		return nil, err
	}
	if m.Form == transport.JSON {
		p, err := wire.ParseJSON(m.Data)
		if err != nil {
			f.refuseConn(ctx, l, m.Form, refuse(ErrBadRequest, 0, err.Error()))
			return nil, err
		}
		return nil, f.acceptOpen(ctx, l, m.Form, p)
	}
	typ, body, err := wire.ParseHeader(m.Data)
	if err != nil {
		f.refuseConn(ctx, l, m.Form, refuse(ErrBadRequest, 0, err.Error()))
		return nil, err
	}
	switch typ {
	case wire.TypePackets:
		packets, err := wire.ParseRecord(body)
		if err != nil || len(packets) != 1 {
			f.refuseConn(ctx, l, m.Form, refuse(ErrBadRequest, 0, "the first record must hold one packet of kind open"))
			return nil, errors.Join(wire.ErrMalformed, err)
		}
		return nil, f.acceptOpen(ctx, l, m.Form, packets[0])
	case wire.TypeHello:
		return f.acceptHello(ctx, l, body)
	}
	f.refuseConn(ctx, l, m.Form, refuse(ErrBadRequest, 0, "a connection begins with open or a hello"))
	return nil, fmt.Errorf("%w: first message of type %d", wire.ErrMalformed, typ)
}

// acceptOpen begins a connection without proof. Where the listener demands
// more, it stays only to be told so with each request.
func (f *listener) acceptOpen(ctx context.Context, l *link, form transport.Form, p *wire.Packet) error {
	if p.Kind != wire.Open {
		f.refuseConn(ctx, l, form, refuse(ErrBadRequest, 0, "a connection begins with open or a hello"))
		return fmt.Errorf("%w: first packet is a %s", wire.ErrMalformed, p.Kind)
	}
	id, err := f.node.anonymousID()
	if err != nil {
		return err
	}
	l.mode, l.form, l.peer.id = wire.ModeOpen, form, id
	if l.bar = f.demands(wire.ModeOpen); l.bar == nil {
		if r := f.node.register(l); r != nil {
			f.refuseConn(ctx, l, form, r)
			return errBusy
		}
	}
	return l.control(&wire.Packet{Kind: wire.Open})
}

// refuseConn tells the peer in the clear; nobody proves it.
func (f *listener) refuseConn(ctx context.Context, l *link, form transport.Form, r *refusal) {
	l.form = form
	p := &wire.Packet{Kind: wire.Response, Status: r.status, Msg: clip(r.msg, 512), Data: []byte("null")}
	if m, err := l.alone(p); err == nil {
		l.conn.Send(ctx, m)
	}
}

// checkHello does what is cheap before the budget is asked (PROTOCOL §6).
func (f *listener) checkHello(h *wire.Hello, remote string) *refusal {
	if h.Transport != uint8(f.kind) {
		return refuse(ErrKeyAgreementFailed, 0, "key agreement failed")
	}
	if want := h.Recipient; want != (wire.ID{}) && want != wire.ID(f.node.local.Key.ID()) {
		return refuse(ErrKeyAgreementFailed, 0, "key agreement failed")
	}
	if !f.admits(identity.ID(sha256.Sum256(h.Key)), remote) {
		return refuseUnsigned
	}
	if h.Proof() {
		return nil
	}
	if f.remote != nil {
		return refuse(ErrKeyAgreementFailed, 0, "key agreement failed: the side that connected starts it")
	}
	if _, err := secure.ChooseSuite(h, f.spec.suites); err != nil {
		return refuse(ErrKeyAgreementFailed, 0, "key agreement failed: no suite in common")
	}
	return nil
}

// respond answers a hello within the budget for strangers.
func (f *listener) respond(ctx context.Context, remote string, h *wire.Hello, raw []byte, r secure.Reply) ([]byte, *secure.Session, *refusal) {
	n := f.node
	leave, err := n.gate.enter(ctx, remote, identity.ID(sha256.Sum256(h.Key)), f.spec.allowed != nil, f.kind == transport.Memory)
	switch {
	case errors.Is(err, errRate):
		n.log.Debug("handshake refused", "remote", remote, "err", err)
		return nil, nil, refuseRate
	case err != nil:
		n.log.Debug("handshake refused", "remote", remote, "err", err)
		return nil, nil, refuseBusy
	}
	defer leave()
	epoch, err := n.state.epoch(ctx)
	if err != nil {
		n.log.Error("the store cannot give the epoch; the handshake is refused", "err", err)
		return nil, nil, refuseBusy
	}
	r.Epoch, r.Time, r.Suites = epoch, uint64(n.now().UnixMilli()), f.spec.suites
	reply, s, err := secure.Respond(n.local, h, raw, r)
	if err != nil {
		n.log.Warn("handshake failed", "err", err)
		return nil, nil, refuse(ErrKeyAgreementFailed, 0, "key agreement failed")
	}
	return reply, s, nil
}

// acceptHello is the responder's side of a handshake on a connection. No
// handler runs and nothing is believed before the initiator's finish.
func (f *listener) acceptHello(ctx context.Context, l *link, body []byte) ([]*wire.Packet, error) {
	h, err := wire.ParseHello(body)
	if err != nil {
		f.refuseConn(ctx, l, transport.Binary, refuse(ErrBadRequest, 0, err.Error()))
		return nil, err
	}
	// Every mode with proof is sealed on a connection, so only the demand for
	// signatures can be missed.
	r := f.checkHello(h, l.peer.remote)
	if r == nil && !h.Proof() && f.spec.EnableSignature && !h.Mode.Signed() {
		r = refuseUnsigned
	}
	var reply []byte
	var s *secure.Session
	if r == nil {
		reply, s, r = f.respond(ctx, l.peer.remote, h, body, secure.Reply{})
	}
	if r != nil {
		f.refuseConn(ctx, l, transport.Binary, r)
		return nil, fmt.Errorf("%w: %s", secure.ErrHandshake, r.msg)
	}
	if err := l.conn.Send(ctx, transport.Message{Form: transport.Binary, Data: reply}); err != nil {
		return nil, err
	}
	if s == nil {
		l.conn.Recv(ctx) // the peer closes first, so that it gets the answer
		return nil, errProofOnly
	}
	return f.confirm(ctx, l, s)
}

// confirm reads the initiator's first record, which proves it.
func (f *listener) confirm(ctx context.Context, l *link, s *secure.Session) ([]*wire.Packet, error) {
	defer s.Erase()
	if err := l.secured(s); err != nil {
		return nil, err
	}
	m, err := l.conn.Recv(ctx)
	if err != nil {
		return nil, err
	}
	packets, err := l.open(m)
	if err != nil {
		return nil, err
	}
	if err := s.Confirm(packets[0].Handshake); err != nil {
		return nil, err
	}
	f.node.gate.remember(l.peer.remote, s.PeerKey.ID())
	if r := f.node.register(l); r != nil {
		// Sealed, since the peer is proved.
		if m, err := l.alone(r.response(packets[0])); err == nil {
			l.conn.Send(ctx, m)
		}
		return nil, errBusy
	}
	return packets, nil
}
