package owtp

import (
	"context"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// A v1Line is a connection that this node has dialled in version 1: what it asks
// and what it is asked there. Whether it is sealed is settled before anything
// else passes.
type v1Line struct {
	*v1Dialled
	agreement *v1Agreement // nil without one
	rules     *v1Rules     // for what the peer calls back
}

// dialV1 makes one connection in version 1, and agrees on a key first if calls
// are to be sealed.
func (r *remote) dialV1(ctx context.Context, mode wire.Mode) (*link, error) {
	n, s := r.node, r.spec()
	conn, err := r.tr.(transport.ConnDialer).DialConn(ctx, n.dialConfig(s))
	if err != nil {
		return nil, err
	}
	line := &v1Line{v1Dialled: r.v1, rules: &v1Rules{key: r.v1.key, sign: mode.Signed(), agree: mode.Sealed(), bareText: s.InsecureV1BareText}}
	if mode.Sealed() {
		if line.agreement, err = r.v1.agree(ctx, mode, r.v1.askOver(conn)); err != nil {
			conn.Close("no agreement")
			return nil, err
		}
	}
	l := n.newV1Link(conn, r.tr.Kind(), line, line.serve)
	l.remote, l.mode = r, mode
	l.peer.Name, l.peer.config, l.peer.dialed = r.name, &s.ConnectConfig, true
	if a := line.agreement; a != nil {
		l.peer.key, l.peer.id, l.peer.sealed = a.peer, v1ID(a.peer.ID()), true
		context.AfterFunc(l.ctx, a.erase)
	} else if l.peer.id, err = n.anonymousID(); err != nil {
		l.fail(err)
		return nil, err
	}
	if refused := n.register(l); refused != nil {
		err = newError(refused.status, "%s", refused.msg)
	} else {
		err = n.startLink(l, nil)
	}
	if err != nil {
		l.fail(err)
		n.forgetLink(l)
		return nil, err
	}
	r.v1.tell(mode)
	return l, nil
}

// maxV1Aside is how many other messages may come before the answer to the
// request for an agreement.
const maxV1Aside = 64

// askOver asks on a connection that nobody reads yet. Whoever calls back before
// there is an agreement is told so.
func (d *v1Dialled) askOver(conn transport.Conn) v1Ask {
	return func(ctx context.Context, q *legacy.Packet) (*legacy.Packet, error) {
		send := func(p *legacy.Packet) error {
			b, err := p.Append(nil)
			if err != nil {
				return err
			}
			return conn.Send(ctx, transport.Message{Form: transport.JSON, Data: b})
		}
		if err := send(q); err != nil {
			return nil, err
		}
		for range maxV1Aside {
			m, err := conn.Recv(ctx)
			if err != nil {
				return nil, err
			}
			p, err := legacy.ParsePacket(m.Data, d.node.cfg.Limits.MaxMessage)
			switch {
			case err != nil:
			case p.Kind == legacy.Response && p.Nonce == q.Nonce && p.Method == q.Method:
				return p, nil
			case p.Kind == legacy.Request:
				if err := send(d.node.v1Refusal(p, v1NoKey)); err != nil {
					return nil, err
				}
			}
		}
		return nil, errV1Another
	}
}

// request implements v1Caller.
func (v *v1Line) request(p *wire.Packet) (*legacy.Packet, v1Answer, error) {
	return v.v1Dialled.request(p, v.remote.mode(), v.agreement)
}

// serve answers what the peer calls back.
func (v *v1Line) serve(ctx context.Context, l *link, p *legacy.Packet) (answer *legacy.Packet, closeAfter bool) {
	in := &v1Inbound{rules: v.rules, line: v, peer: l.peer}
	if v.agreement != nil {
		in.sessions = &v.agreement.sessions
	}
	return l.node.serveV1(ctx, in, p)
}

// checkBack is check for what comes over a connection that this node has
// dialled. Under an agreement only who has its key can ask for something, and
// what comes in the clear, or under another key, is refused and changes nothing.
func (q *v1Request) checkBack() *refusal {
	if q.n.v1nonces.drew(q.p.Nonce) {
		return v1OwnNumber // a request of this node's, sent back perhaps
	}
	if r := q.proveBack(); r != nil {
		return r
	}
	k, a := &q.p.Keys, q.in.line.agreement
	switch {
	case a != nil && k.CallbackCheck == "":
		return v1Plain
	case a != nil:
		s := a.sessions.current()
		if s == nil {
			return v1NoKey
		}
		q.request, q.response = s, s
		is := false
		s.use(func(s *legacy.Session) error {
			is = s.IsCallback(*k)
			return nil
		})
		if !is || q.p.Version != 1 {
			q.in.sessions.release(s)
			q.request, q.response = nil, nil
			return v1NoKey
		}
		p := *q.p // recorded as the initiator's requests are
		p.Keys.InitiatorCheck = k.CallbackCheck
		q.p = &p
	case k.CallbackCheck != "" || k.InitiatorEphemeral != "" || k.InitiatorCheck != "":
		return v1NoKey // nobody agrees with this node on anything here
	}
	return q.read()
}

// proveBack verifies the signature of a call back, which must be that of the
// peer that was dialled. Where nobody was named, nobody can sign.
func (q *v1Request) proveBack() *refusal {
	r := q.in.line.remote
	pin := r.pinned()
	if q.p.Signature == "" || pin.IsZero() {
		if q.in.rules.sign {
			return v1Unsigned
		}
		return nil
	}
	key, err := legacy.Verify(q.p, nil)
	if err != nil || key.ID() != pin {
		q.log("signature of who was called", err)
		return v1Unsigned
	}
	if r := q.fresh(); r != nil {
		return r
	}
	q.signed = true
	q.peer.key, q.peer.id = key, v1ID(key.ID())
	return nil
}

// drew reports whether a nonce is one of this node's own requests to peers that
// it has dialled.
func (s *v1Nonces) drew(nonce uint64) bool {
	v := int64(nonce)
	if v < 0 {
		v = -v // the sign makes no difference to the key
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	high := uint64(v) >> v1Random
	return 0 < high && high <= s.count
}

// bySession reports whether a signed request is recorded as one that is only
// sealed: somebody could take the signature off a copy.
func (q *v1Request) bySession() bool {
	text, err := q.p.Text()
	return q.in.line != nil && q.request != nil && err == nil && text != ""
}
