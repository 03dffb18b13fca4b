package owtp

import (
	"context"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// serveV1Conn is the life of a connection whose upgrade says that it speaks
// version 1. The key in header a is claimed, not proved: it can only turn the
// connection away, and each request proves itself or stays anonymous.
func (f *listener) serveV1Conn(ctx context.Context, conn transport.Conn, announced string) {
	n := f.node
	sessions := n.newV1Sessions(f.spec.v1.key, true)
	defer sessions.erase()
	in := v1Inbound{rules: f.spec.v1, sessions: sessions}
	if complaint := in.announce(announced); complaint != "" || in.announced.Equal(in.rules.key.Public()) {
		n.log.Debug("connection refused", "remote", conn.RemoteAddr(), "reason", "header a is no key of somebody else's")
		conn.Close("header a is no key")
		return
	}
	l := n.newV1Link(conn, f.kind, &v1Back{node: n, rules: in.rules, sessions: sessions}, func(ctx context.Context, l *link, p *legacy.Packet) (*legacy.Packet, bool) {
		each := in
		each.peer = l.peer
		return n.serveV1(ctx, &each, p)
	})
	l.face, l.mode, l.peer.config = f, wire.ModeOpen, &f.spec.ConnectConfig
	stop := context.AfterFunc(ctx, func() { l.fail(errClosedHere) })
	defer stop()
	var err error
	if l.peer.id, err = n.anonymousID(); err != nil {
		l.fail(err)
		return
	}
	if r := n.register(l); r != nil {
		l.fail(errBusy)
		n.forgetLink(l)
		return
	}
	n.serveLink(l, nil)
}

// version1 returns the key that a connection of version 1 announces. Its upgrade
// decides which version it speaks, and nothing that comes later.
func (f *listener) version1(conn transport.Conn) (announced string, is bool) {
	c, ok := conn.(transport.LegacyConn)
	if !ok || f.spec.v1 == nil {
		return "", false
	}
	announced, is = c.Announced()
	return announced, is && announced != ""
}

// A v1Back makes this node's requests to a version 1 peer that has dialled it.
// Such a peer is whoever the connection belongs to; if it has agreed on a key,
// only who knows that reads what is asked and can answer it.
type v1Back struct {
	node     *OWTPNode
	rules    *v1Rules
	sessions *v1Sessions
}

var (
	errV1Unopened  = newError(ErrKeyAgreementFailed, "the peer has agreed on a key and has not used it yet, or must agree on one: version 1 cannot be called back before")
	errV1NoBack    = newError(ErrKeyAgreementFailed, "the peer has agreed on a key with packets of version 0, which has one for both directions: anybody on the way could send this call back as the peer's own. Only peers that send packets of version 1 can be called back under an agreement")
	errV1Extras    = newError(ErrBadRequest, "version 1 carries no Meta, Trace or CallKey of CallOptions")
	errV1Weaker    = newError(ErrResponseMethodDiffer, "the answer is not sealed as the request was")
	errV1Mirrored  = newError(ErrResponseMethodDiffer, "the answer is the request itself, sent back")
	errV1Illegible = newError(ErrResponseMethodDiffer, "the answer does not open, or is no response of version 1")
)

// request implements v1Caller.
func (b *v1Back) request(p *wire.Packet) (*legacy.Packet, v1Answer, error) {
	if err := v1Carries(p); err != nil {
		return nil, nil, err
	}
	nonce, err := b.node.v1BackNonce()
	if err != nil {
		return nil, nil, err
	}
	q := &legacy.Packet{Kind: legacy.Request, Method: p.Method, Nonce: nonce, Time: b.node.now().Unix(), Version: 1}
	s := b.sessions.current()
	switch {
	case s != nil && s.version != 1:
		b.sessions.release(s)
		return nil, nil, errV1NoBack
	case s != nil:
		defer b.sessions.release(s)
		err = s.use(func(s *legacy.Session) error {
			q.Keys = s.CallbackKeys()
			return q.SealJSON(s, p.Data)
		})
	case b.rules.agree || b.sessions.begun():
		return nil, nil, errV1Unopened
	default:
		err = q.SetJSON(p.Data)
	}
	if err != nil {
		return nil, nil, newError(ErrBadRequest, "the parameters do not go into a packet of version 1: %w", err)
	}
	if b.rules.sign { // as it asks of the peer
		if err := legacy.Sign(b.node.local.Rand, b.rules.key, q); err != nil {
			return nil, nil, err
		}
	}
	return q, func(resp *legacy.Packet) (*wire.Packet, bool, error) { return b.open(q, resp) }, nil
}

// open reads the response to a request. What comes in the clear answers nothing
// that was sealed.
func (b *v1Back) open(q, resp *legacy.Packet) (p *wire.Packet, proved bool, err error) {
	if err := v1SameVersion(q, resp); err != nil {
		return nil, false, err
	}
	text, err := resp.Text()
	if err != nil {
		return nil, false, errV1Illegible
	}
	data := []byte(text)
	if q.Keys.CallbackCheck != "" {
		if asked, err := q.Text(); err != nil || asked == text {
			return nil, false, errV1Mirrored
		}
		if data, err = b.unseal(q, resp, text); err != nil {
			return nil, false, err
		}
	}
	p, err = v1Opened(q, data)
	return p, err == nil && q.Keys.CallbackCheck != "", err
}

func (b *v1Back) unseal(q, resp *legacy.Packet, sealed string) (text []byte, err error) {
	s := b.sessions.current()
	if s == nil {
		return nil, errV1Illegible
	}
	defer b.sessions.release(s)
	err = s.use(func(s *legacy.Session) (err error) {
		if !s.IsCallback(q.Keys) || !s.IsResponse(resp.Keys) {
			return errV1Weaker
		}
		if text, err = s.Open(sealed, q.Version, q.Nonce); err != nil {
			err = errV1Illegible
		}
		return err
	})
	return text, err
}

// v1Known remembers that a connection's peer has proved that ID under a key that
// it agreed on here, so that calls back to the ID find it. A signature alone is
// not enough: it may be a copy, made for another connection or another node.
func (n *OWTPNode) v1Known(l *link, id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.remote != nil || l.entry == nil || n.v1Links[id] == l {
		return
	}
	l.v1.known = id
	n.v1Links[id] = l
}

// v1Forget is called with the lock held when a connection has ended.
func (n *OWTPNode) v1Forget(l *link) {
	if l.v1 != nil && n.v1Links[l.v1.known] == l {
		delete(n.v1Links, l.v1.known)
	}
}

// v1BackMark marks the nonces of this node's requests to peers that have dialled it.
// One key and nonce seal a request and its response in both directions, so that
// this side answers nothing under a nonce that a request of its own may have;
// the sign of a nonce makes no difference to the key.
const v1BackMark = 1 << 62

func (n *OWTPNode) v1BackNonce() (uint64, error) {
	v, err := n.v1Nonce()
	return v | v1BackMark, err
}

func v1OwnNonce(nonce uint64) bool {
	v := int64(nonce)
	if v < 0 {
		v = -v
	}
	return uint64(v)&v1BackMark != 0 || v < 0
}
