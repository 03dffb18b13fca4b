package owtp

import (
	"bytes"
	"context"
	"strings"

	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
)

// A refusal is an answer that no handler gave.
type refusal struct {
	status uint64
	reason wire.Reason
	msg    string
}

func refuse(status uint64, reason wire.Reason, msg string) *refusal {
	return &refusal{status, reason, msg}
}

// One code and one text per demand: a stranger learns nothing else. What
// exactly was wrong stands in the log.
var (
	refuseUnsigned = refuse(ErrUnauthorized, 0, "unauthorized: a valid signature of an allowed peer is required")
	refuseUnsealed = refuse(ErrSecretKeyInvalid, 0, "key agreement required, or the sealed message does not open")
	refuseClosing  = refuse(ErrDenialOfService, 0, "shutting down")
	refuseBusy     = refuse(ErrDenialOfService, 0, "too busy; try again later")
	refuseEpoch    = refuse(ErrReplayAttack, wire.ReasonEpoch, "the packet belongs to another epoch of this node")
	refuseRate     = refuse(ErrTooManyRequests, 0, "too many handshakes from this address; try again later")
	refuseMany     = refuse(ErrTooManyRequests, 0, "too many requests at one time")
)

// response begins the answer to a request.
func response(p *wire.Packet) *wire.Packet {
	return &wire.Packet{Kind: wire.Response, Method: p.Method, Nonce: p.Nonce}
}

func (r *refusal) response(p *wire.Packet) *wire.Packet {
	out := response(p)
	out.Status, out.Reason, out.Msg, out.Data = r.status, r.reason, r.msg, []byte("null")
	if out.Reason == 0 && !out.OKStatus() {
		out.Reason = wire.ReasonNotRun // unlike a handler's own 429
	}
	return out
}

// run takes a verified request through prepare, middleware, handler and finish.
// It returns the response, which is not proved yet, whether the handler asked
// for its connection to be closed, and whether anything ran at all. It ends ctx.
func (n *OWTPNode) run(ctx *handlerContext, peer *Peer, p *wire.Packet, signed bool) (resp *wire.Packet, closeAfter, ran bool) {
	f, refused := n.formatOf(p)
	if refused != nil {
		ctx.end()
		return refused.response(p), false, false
	}
	c := &ctx.request
	*c = Context{
		PID: peer.id, Method: p.Method, RemoteAddress: peer.remote, Peer: peer,
		node: n, ctx: ctx, req: p, format: f, signed: signed,
	}
	n.router.serve(c)
	ctx.end()
	resp = n.encodeResponse(p, f, &c.Resp)
	if c.missing {
		resp.Reason = wire.ReasonNotRun
	}
	return resp, c.close, !c.missing
}

// claimed makes a call's record and lets it in, in this order: what is refused
// after it was proved must not run later because somebody recorded it. It
// returns the answer of everything that is not to run.
//
// Where others share the store, the epoch is read once more after that: if the
// store was flushed, the record of an earlier copy is gone and so is the epoch
// that the packet belongs to, whatever was remembered of it.
func (n *OWTPNode) claimed(ctx context.Context, peerID string, p *wire.Packet, epoch wire.Nonce, redelivered bool, admit func() *refusal) (*claim, *wire.Packet) {
	c, reply, refused := n.claimCall(ctx, peerID, p, redelivered)
	switch {
	case refused != nil:
		return nil, refused.response(p)
	case reply != nil:
		return nil, reply
	}
	r := n.epochStands(ctx, epoch)
	if r == nil {
		r = admit()
	}
	if r != nil {
		n.settle(c, nil, false)
		return nil, r.response(p)
	}
	return c, nil
}

func (n *OWTPNode) epochStands(ctx context.Context, epoch wire.Nonce) *refusal {
	if !n.state.shared {
		return nil
	}
	now, err := n.state.readEpoch(ctx)
	switch {
	case err != nil:
		return n.storeRefusal(err)
	case now != epoch:
		return refuseEpoch
	}
	return nil
}

// runClaimed is run for the first packet under a call key; further attempts get
// its answer.
func (n *OWTPNode) runClaimed(ctx context.Context, peer *Peer, p *wire.Packet, signed bool, c *claim) (resp *wire.Packet, closeAfter bool) {
	c.context = n.claimedContext(ctx, peer.kind, p, c)
	n.hold(c)
	resp, closeAfter, ran := n.run(c.context, peer, p, signed)
	n.settle(c, resp, ran)
	return resp, closeAfter
}

// failure is the answer for a handler that ran and has none that can be sent.
func failure(p *wire.Packet, status uint64, msg string) *wire.Packet {
	out := response(p)
	out.Status, out.Msg, out.Data = status, msg, []byte("null")
	return out
}

func (n *OWTPNode) encodeResponse(p *wire.Packet, f codec.Format, r *Response) *wire.Packet {
	out := wire.NewPacket(wire.Packet{Kind: wire.Response, Method: p.Method, Nonce: p.Nonce})
	data, err := encodeData(f, r.Result)
	if err != nil && !n.logPanic(err, p.Method) {
		n.log.Error("the handler's result does not encode", "method", p.Method, "err", err)
	}
	if err != nil {
		return failure(p, ErrInternalServerError, "the result does not encode")
	}
	out.Status, out.Msg, out.Data, out.Format = r.Status, clip(r.Msg, wire.MaxMessage), data, wireFormat(f)
	if len(data)+packetOverhead > n.cfg.Limits.MaxMessage {
		n.log.Error("the handler's result is larger than a message may be", "method", p.Method, "bytes", len(data), "limit", n.cfg.Limits.MaxMessage)
		return failure(p, ErrTooLarge, "the result is larger than a message may be")
	}
	return out
}

// packetOverhead is more than everything of a message but its data.
const packetOverhead = wire.MaxMeta*(wire.MaxMetaKey+wire.MaxMetaValue+16) + 2*wire.MaxMessage

// clip makes text valid and short enough for a packet.
func clip(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}

// checkSigned checks what a signature covers beside the data: that the packet
// was made by that key, for this node, this transport and this mode
// (PROTOCOL §5). What is wrong goes to the log only.
func (n *OWTPNode) checkSigned(p *wire.Packet, peer *Peer, mode wire.Mode) bool {
	key, err := secure.Verify(p, peer.key)
	switch {
	case err != nil:
		n.log.Warn("signed packet refused", "peer", peer.id, "remote", peer.remote, "reason", "signature does not verify")
	case peer.key != nil && !key.Equal(peer.key):
		n.log.Warn("signed packet refused", "peer", peer.id, "remote", peer.remote, "reason", "signed by another key")
	case p.Recipient != wire.ID(n.local.Key.ID()):
		n.log.Warn("signed packet refused", "peer", peer.id, "remote", peer.remote, "reason", "made for another recipient")
	case p.Mode != mode || p.Transport != uint8(peer.kind):
		n.log.Warn("signed packet refused", "peer", peer.id, "remote", peer.remote, "reason", "made for another mode or transport")
	default:
		if peer.key == nil {
			peer.key, peer.id = key, key.ID().String()
		}
		return true
	}
	return false
}

// signResponse binds the response to its request and signs it.
func (n *OWTPNode) signResponse(resp, req *wire.Packet, peer *Peer, mode wire.Mode, epoch wire.Nonce) error {
	resp.Digest = secure.RequestDigest(req)
	resp.Recipient = wire.ID(peer.key.ID())
	resp.Mode, resp.Transport = mode, uint8(peer.kind)
	resp.Time, resp.Epoch = uint64(n.now().UnixMilli()), epoch
	return secure.Sign(n.local.Rand, n.local.Key, resp)
}

// checkResponse checks that a response is the answer to the request, and as
// strong.
func (n *OWTPNode) checkResponse(resp, req *wire.Packet, peer *Peer) error {
	switch {
	case resp.Kind != wire.Response && !(req.Kind == wire.Heartbeat && resp.Kind == wire.Heartbeat && resp.Reason == wire.ReasonPong):
		return newError(ErrResponseMethodDiffer, "answer of kind %s to a %s", resp.Kind, req.Kind)
	case resp.Nonce != req.Nonce || resp.Method != req.Method:
		return newError(ErrResponseMethodDiffer, "the answer belongs to another request")
	}
	if req.Signature == nil {
		return nil
	}
	if _, err := secure.Verify(resp, peer.key); err != nil || !bytes.Equal(resp.SenderKey, peer.key.Bytes()) {
		return newError(ErrUnauthorized, "the answer is not signed by %s", peer.id)
	}
	if resp.Digest != secure.RequestDigest(req) || resp.Recipient != wire.ID(n.local.Key.ID()) || resp.Mode != req.Mode || resp.Transport != req.Transport {
		return newError(ErrResponseMethodDiffer, "the signed answer belongs to another request")
	}
	return nil
}
