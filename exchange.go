package owtp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// An inbound is one exchange on its way in: what has been verified of it, and
// how its answer is to be proved.
type inbound struct {
	form    transport.Form
	peer    *Peer
	mode    wire.Mode
	epoch   wire.Nonce   // this node's, at the time
	session *heldSession // nil unless sealed
	request *wire.Packet

	// For message queues.
	replyTo     string // queue for the answer, once the message has named it
	redelivered bool
	once        bool // the broker has no copy of it
	late        bool // it came to a replica's own queue after Shutdown
}

// ServeExchange answers one message that is no part of a connection.
func (f *listener) ServeExchange(ctx context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
	n := f.node
	if !n.tasks.begin() {
		return transport.Message{}, &transport.Refusal{Status: int(ErrDenialOfService), Reason: "shutting down"}
	}
	defer n.tasks.end()
	in := &inbound{
		form: m.Form, redelivered: m.Redelivered, once: m.Once, late: m.Late,
		peer: &Peer{kind: f.kind, config: &f.spec.ConnectConfig, local: from.LocalAddr, remote: from.Addr},
	}
	if f.remote != nil {
		in.peer.Name, in.peer.dialed = f.remote.name, true
	}
	if f.kind == transport.MQ { // its context is the endpoint's, which Close closes at once
		return f.serveQueued(ctx, in, m)
	}
	c := newExchangeContext(ctx, n.ctx)
	defer c.end()
	if m.Form == transport.Legacy {
		return f.answerV1(c, in.peer, m)
	}
	return f.answer(c, in, m)
}

// answer finds out what a message is and answers it.
func (f *listener) answer(ctx context.Context, in *inbound, m transport.Message) (transport.Message, error) {
	if m.Form == transport.Binary {
		typ, body, err := wire.ParseHeader(m.Data)
		if err != nil {
			return transport.Message{}, badMessage(err)
		}
		switch typ {
		case wire.TypeHello:
			return f.answerHello(ctx, in, body)
		case wire.TypeSealed:
			return f.answerSealed(ctx, in, m.Data)
		case wire.TypePackets:
		default:
			return transport.Message{}, badMessage(fmt.Errorf("message of type %d in a request", typ))
		}
	}
	return f.answerPlain(ctx, in, m)
}

func badMessage(err error) error {
	return &transport.Refusal{Status: int(ErrBadRequest), Reason: err.Error()}
}

// answerHello is the responder's side of a handshake in one exchange. What it
// leaves behind is half open until the initiator's finish comes with a request.
func (f *listener) answerHello(ctx context.Context, in *inbound, body []byte) (transport.Message, error) {
	n := f.node
	h, err := wire.ParseHello(body)
	if err != nil {
		return transport.Message{}, badMessage(err)
	}
	if err := f.named(in, h.ReplyQueue); err != nil {
		return transport.Message{}, err
	}
	r := refuseClosing // whoever asks this replica is to ask another
	if !in.late {
		r = f.checkHello(h, in.peer.remote)
	}
	if r == nil && !h.Proof() {
		r = f.demands(h.Mode)
	}
	reply := secure.Reply{Queue: f.ownQueue()}
	if r == nil && !h.Proof() {
		if reply.Session, err = n.state.newSessionID(); err != nil {
			return transport.Message{}, err
		}
		reply.Lifetime = uint64(n.cfg.Limits.SessionLifetime.Milliseconds())
	}
	var message []byte
	var s *secure.Session
	if r == nil {
		message, s, r = f.respond(ctx, in.peer.remote, h, body, reply)
	}
	if r == nil && s != nil {
		if err := n.state.addSession(ctx, s, h.Retires, n.cfg.Limits.HandshakeTimeout+2*n.cfg.Window); err != nil {
			n.log.Error("session cannot be stored; the handshake is refused", "err", err)
			r = refuseBusy
		}
	}
	if r != nil {
		return f.unproved(in, r)
	}
	return transport.Message{Form: transport.Binary, Data: message}, nil
}

// unproved refuses before anything is proved: an open response, which the
// caller does not take for the peer's answer.
func (f *listener) unproved(in *inbound, r *refusal) (transport.Message, error) {
	p := in.request
	if p == nil {
		p = &wire.Packet{}
	}
	return in.encode(r.response(p))
}

func (in *inbound) encode(p *wire.Packet) (transport.Message, error) {
	if in.form == transport.JSON {
		b, err := p.AppendJSON(nil)
		return transport.Message{Form: transport.JSON, Data: b}, err
	}
	return transport.Message{Form: transport.Binary, Data: p.AppendMessage(nil)}, nil
}

// answerPlain answers one packet that is not sealed: open or signed.
func (f *listener) answerPlain(ctx context.Context, in *inbound, m transport.Message) (transport.Message, error) {
	p, err := parseOne(m)
	if err != nil {
		return transport.Message{}, badMessage(err)
	}
	if p.Kind != wire.OneWay {
		if err := f.named(in, p.ReplyTo); err != nil {
			return transport.Message{}, err
		}
	}
	in.request, in.mode = p, wire.ModeOpen
	if p.Signature != nil {
		in.mode = wire.ModeSigned
	}
	if r := f.demands(in.mode); r != nil {
		return f.unproved(in, r)
	}
	if in.mode == wire.ModeOpen {
		p.CallKey = wire.Nonce{} // counts for proved peers only
		if in.peer.id, err = f.node.anonymousID(); err != nil {
			return transport.Message{}, err
		}
		return f.handle(ctx, in)
	}
	if len(p.SenderKey) == 0 {
		return f.unproved(in, refuseUnsigned)
	}
	// Whether it is a key at all is found out once, and not before somebody
	// who is admitted claims it.
	claimed := identity.ID(sha256.Sum256(p.SenderKey))
	if !f.admits(claimed, in.peer.remote) {
		return f.unproved(in, refuseUnsigned)
	}
	if r := f.verify(ctx, in, claimed); r != nil {
		return f.unproved(in, r)
	}
	return f.handle(ctx, in)
}

// verify checks the signature of a request. A stranger's costs as much as half
// a handshake and counts as one.
func (f *listener) verify(ctx context.Context, in *inbound, claimed identity.ID) *refusal {
	n := f.node
	if !n.gate.isKnown(source(in.peer.remote, claimed)) {
		leave, err := n.gate.enter(ctx, in.peer.remote, claimed, f.spec.allowed != nil, f.kind == transport.Memory)
		if err != nil {
			return refuseRate
		}
		defer leave()
	}
	if !n.checkSigned(in.request, in.peer, wire.ModeSigned) {
		n.gate.forget(in.peer.remote, claimed)
		return refuseUnsigned
	}
	n.gate.remember(in.peer.remote, claimed)
	return nil
}

func parseOne(m transport.Message) (*wire.Packet, error) {
	if m.Form == transport.JSON {
		return wire.ParseJSON(m.Data)
	}
	_, body, err := wire.ParseHeader(m.Data)
	if err != nil {
		return nil, err
	}
	var room [1]*wire.Packet // almost always
	packets, err := wire.AppendRecord(room[:0], body)
	if err != nil {
		return nil, err
	}
	if len(packets) != 1 {
		return nil, fmt.Errorf("%w: %d packets in one exchange", wire.ErrMalformed, len(packets))
	}
	return packets[0], nil
}

// answerSealed answers one sealed packet.
func (f *listener) answerSealed(ctx context.Context, in *inbound, message []byte) (transport.Message, error) {
	n := f.node
	id, err := secure.SessionOf(message)
	if err != nil {
		return transport.Message{}, badMessage(err)
	}
	s, err := f.session(ctx, id)
	if err != nil {
		if !errors.Is(err, errUnknownSession) {
			n.log.Error("session cannot be read", "err", err)
			return f.unproved(in, refuseBusy)
		}
		return f.unproved(in, refuseUnsealed)
	}
	plain, err := s.OpenMessage(message, wire.Nonce{})
	if err != nil || s.Transport != uint8(f.kind) {
		n.log.Warn("sealed message refused", "remote", in.peer.remote, "reason", "does not open")
		return f.unproved(in, refuseUnsealed)
	}
	p, err := wire.ParsePacket(plain)
	if err != nil {
		return transport.Message{}, badMessage(err)
	}
	if p.Kind != wire.OneWay {
		if err := f.named(in, p.ReplyTo); err != nil {
			return transport.Message{}, err
		}
	}
	s, err = n.state.confirm(ctx, s, p.Handshake, n.cfg.Limits.SessionLifetime)
	switch {
	case errors.Is(err, secure.ErrHandshake) || errors.Is(err, errUnknownSession):
		n.log.Warn("sealed message refused", "remote", in.peer.remote, "reason", err)
		return f.unproved(in, refuseUnsealed)
	case err != nil:
		n.log.Error("session cannot be confirmed", "err", err)
		return f.unproved(in, refuseBusy)
	}
	n.gate.remember(in.peer.remote, s.PeerKey.ID())
	in.session, in.request, in.mode = s, p, s.Mode
	in.peer.key, in.peer.id, in.peer.sealed = s.PeerKey, s.PeerKey.ID().String(), true
	if !f.admits(s.PeerKey.ID(), in.peer.remote) {
		return f.prove(in, refuseUnsigned.response(p))
	}
	if r := f.demands(s.Mode); r != nil {
		return f.prove(in, r.response(p))
	}
	if s.Mode.Signed() && !n.checkSigned(p, in.peer, s.Mode) {
		return f.prove(in, refuseUnsigned.response(p))
	}
	return f.handle(ctx, in)
}

// handle does what is left once a packet has been verified: epoch, window,
// record, handler (PROTOCOL §8).
func (f *listener) handle(ctx context.Context, in *inbound) (transport.Message, error) {
	n, p := f.node, in.request
	if f.records(in) {
		var err error
		if in.epoch, err = n.state.epoch(ctx); err != nil {
			n.log.Error("the store cannot give the epoch; the request is refused", "err", err)
			return f.unproved(in, refuseBusy)
		}
	}
	if in.mode != wire.ModeOpen {
		if r := f.fresh(in); r != nil {
			return f.prove(in, r.response(p))
		}
		f.noteCaller(in)
	}
	if f.kind == transport.MQ && p.Time != 0 { // some of its caller's patience was spent in the queue
		left := time.UnixMilli(int64(p.Time)).Add(n.remaining(p) + n.cfg.Window).Sub(n.now())
		c := newCallContext(ctx, time.Now().Add(left))
		defer c.end()
		ctx = c
	}
	switch p.Kind {
	case wire.Heartbeat:
		return f.prove(in, &wire.Packet{Kind: wire.Heartbeat, Nonce: p.Nonce, Reason: wire.ReasonPong})
	case wire.Cancel:
		if f.records(in) {
			n.cancelCall(in.recordedAs(), p)
		} else {
			n.passing.cancel(p.Nonce)
		}
		return f.prove(in, refuse(0, 0, "").response(p))
	case wire.Request, wire.OneWay:
	default:
		return f.prove(in, refuse(ErrBadRequest, 0, "a "+p.Kind.String()+" is no request").response(p))
	}
	return f.execute(ctx, in)
}

// records reports whether a request has a record, against copies or a broker that
// delivers again. What has none needs nothing of the store's.
func (f *listener) records(in *inbound) bool {
	return in.mode != wire.ModeOpen || f.kind == transport.MQ && !in.once
}

// execute brings a fresh request to its handler.
func (f *listener) execute(ctx context.Context, in *inbound) (transport.Message, error) {
	n, p := f.node, in.request
	who := in.peer.id
	if in.peer.key == nil {
		who = host(in.peer.remote)
	}
	admit := func() *refusal {
		switch {
		case f.refuses(in):
			return refuseClosing
		case !n.running.take(who, len(p.Data)):
			return refuseMany
		}
		return nil
	}
	var c *claim
	if !f.records(in) {
		if r := admit(); r != nil {
			return f.prove(in, r.response(p))
		}
	} else {
		var answer *wire.Packet
		if c, answer = n.claimed(ctx, in.recordedAs(), p, in.epoch, in.redelivered, admit); answer != nil {
			if now, err := n.state.epoch(ctx); err == nil {
				in.epoch = now // another one is why, perhaps
			}
			return f.prove(in, answer)
		}
	}
	run := func(ctx context.Context) (resp *wire.Packet) {
		defer n.running.give(who, len(p.Data))
		if c != nil {
			resp, _ = n.runClaimed(ctx, in.peer, p, in.mode.Signed(), c)
			return resp
		}
		h := n.handlerContext(ctx, p)
		if f.kind == transport.MQ && p.Kind == wire.Request { // HTTP ends with its exchange
			if !n.passing.enter(p.Nonce, h) {
				return refuseCopy.response(p)
			}
			defer n.passing.leave(p.Nonce)
		}
		resp, _, _ = n.run(h, in.peer, p, false)
		return resp
	}
	if p.Kind != wire.OneWay {
		return f.prove(in, run(ctx))
	}
	// Acknowledged by the exchange only; the handler outlives it.
	n.oneWay.begin()
	if !n.spawn(func() {
		defer n.oneWay.end()
		run(n.ctx)
	}) {
		n.oneWay.end()
		n.running.give(who, len(p.Data))
	}
	return f.prove(in, refuse(0, 0, "").response(p))
}

// refuses reports whether a request is not to run because the node goes away.
// The endpoint at a broker knows which were delivered before that. A one-way one
// that comes late runs all the same: its sender would not learn of a refusal.
func (f *listener) refuses(in *inbound) bool {
	if f.kind == transport.MQ {
		return in.late && in.request.Kind != wire.OneWay
	}
	return f.node.closing.Load()
}

// fresh checks epoch and window of a packet that has been proved.
func (f *listener) fresh(in *inbound) *refusal {
	p := in.request
	epoch := p.Epoch
	if in.session != nil {
		epoch = in.session.OwnEpoch
	}
	if epoch != in.epoch || in.mode.Signed() && p.Epoch != in.epoch {
		if in.redelivered {
			return refuseUnknown // whoever got it first may have run it
		}
		return refuseEpoch
	}
	if f.kind == transport.MQ {
		return f.freshInQueue(p)
	}
	now, window := f.node.now().UnixMilli(), f.node.cfg.Window.Milliseconds()
	if p.Time > 1<<62 || int64(p.Time) < now-window || int64(p.Time) > now+window {
		return refuse(ErrReplayAttack, wire.ReasonClock, "the packet's time is outside this node's window; check both clocks")
	}
	return nil
}

// prove makes the answer as strong as the request and binds it to it.
func (f *listener) prove(in *inbound, resp *wire.Packet) (transport.Message, error) {
	n, p := f.node, in.request
	resp.Method = p.Method
	if in.mode != wire.ModeOpen {
		resp.Time, resp.Epoch = uint64(n.now().UnixMilli()), in.epoch
	}
	if in.mode.Signed() {
		if err := n.signResponse(resp, p, in.peer, in.mode, in.epoch); err != nil {
			return transport.Message{}, err
		}
	}
	if in.session == nil {
		return in.encode(resp)
	}
	message, err := in.session.SealMessage(n.local.Rand, resp.Append(nil), p.Nonce)
	return transport.Message{Form: transport.Binary, Data: message}, err
}

// host is the address without its port, under which strangers are counted.
func host(remote string) string {
	if h, _, err := net.SplitHostPort(remote); err == nil {
		return h
	}
	return remote
}

// ServeConn and ServeExchange make a listener a transport's handler.
var _ transport.Handler = (*listener)(nil)
