package owtp

import (
	"context"
	"fmt"

	"github.com/owtp-go/owtp/identity"
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
	anonymous string       // ID of the peer where a request does not prove more

	// Over a broker both sides are dialled, and each begins agreements of its own:
	own *v1Sessions // answers the peer's; nil elsewhere
}

// dialV1 makes one connection in version 1, and agrees on a key first if calls
// are to be sealed.
func (r *remote) dialV1(ctx context.Context, mode wire.Mode) (*link, error) {
	n, s := r.node, r.spec()
	conn, err := r.tr.(transport.ConnDialer).DialConn(ctx, n.dialConfig(s))
	if err != nil {
		return nil, err
	}
	line := &v1Line{v1Dialled: r.v1}
	if conn, err = line.begin(ctx, conn, mode); err != nil {
		conn.Close("no agreement")
		return nil, err
	}
	l := n.newV1Link(conn, r.tr.Kind(), line, line.serve)
	l.remote, l.mode = r, mode
	l.peer.Name, l.peer.config, l.peer.dialed = r.name, &s.ConnectConfig, true
	l.peer.id = line.anonymous
	if a := line.agreement; a != nil {
		l.peer.key, l.peer.id, l.peer.sealed = a.peer, v1ID(a.peer.ID()), true
	}
	if err := line.start(l); err != nil {
		l.fail(err)
		n.forgetLink(l)
		line.end(l)
		return nil, err
	}
	r.v1.tell(mode)
	return l, nil
}

// begin settles what the line is, with an agreement if there is to be one.
func (v *v1Line) begin(ctx context.Context, conn transport.Conn, mode wire.Mode) (transport.Conn, error) {
	n, s := v.node, v.remote.spec()
	var err error
	if v.anonymous, err = n.anonymousID(); err != nil {
		return conn, err
	}
	v.rules = &v1Rules{key: v.key, sign: mode.Signed(), agree: mode.Sealed(), bareText: s.InsecureV1BareText, trust: s.InsecureV1TrustAgreement, version0: s.InsecureV1PacketVersion0}
	ask := v.askOver(conn)
	if s.broker != nil {
		v.own = n.newV1Sessions(v.key, false)
		v.rules.allowed = v.mayCall(mode)
		later := &v1Backlog{Conn: conn}
		conn, ask = later, v.askBehind(later)
	}
	if !mode.Sealed() {
		return conn, nil
	}
	if v.agreement, err = v.agree(ctx, mode, ask); err != nil {
		return conn, err
	}
	if v.own != nil {
		v.rules.allowed = v.mayCall(mode)
	}
	return conn, nil
}

// mayCall are those whose signatures and agreements are taken; nil means all.
func (v *v1Line) mayCall(mode wire.Mode) map[identity.ID]bool {
	if pin := v.remote.pinned(); !pin.IsZero() {
		return map[identity.ID]bool{pin: true}
	}
	if mode.Signed() {
		return map[identity.ID]bool{} // nobody knows whose signature that would be
	}
	return nil
}

// start makes the line known and begins to read.
func (v *v1Line) start(l *link) error {
	n := v.node
	if refused := n.register(l); refused != nil {
		return newError(refused.status, "%s", refused.msg)
	}
	n.mu.Lock()
	if v.own != nil {
		n.v1Sessions[v.own] = struct{}{}
	}
	if l.entry != nil && l.peer.id != v.anonymous { // handlers can call back whom they see
		l.v1.known = v.anonymous
		n.v1Links[v.anonymous] = l
	}
	n.mu.Unlock()
	if !n.spawn(func() {
		n.serveLink(l, nil)
		v.end(l)
	}) {
		return errNodeClosed
	}
	return nil
}

// end forgets the line's keys, and what handlers have kept for its peer.
func (v *v1Line) end(l *link) {
	if v.agreement != nil {
		v.agreement.erase()
	}
	if v.own != nil {
		v.node.forgetV1(v.own)
	}
	if l.peer.id != v.anonymous {
		if err := v.node.Peerstore().Destroy(v.anonymous); err != nil {
			v.node.log.Warn("session of an anonymous peer is not destroyed", "err", err)
		}
	}
}

// maxV1Aside is how many other messages may come before the answer to the
// request for an agreement.
const maxV1Aside = 64

// askOver asks on a connection that nobody reads yet. Whoever calls back before
// there is an agreement is told so.
func (d *v1Dialled) askOver(conn transport.Conn) v1Ask {
	return func(ctx context.Context, q *legacy.Packet) (*legacy.Packet, error) {
		others := 0
		return d.askAside(ctx, conn, q, func(_ transport.Message, p *legacy.Packet) error {
			if others++; others == maxV1Aside {
				return errV1Another
			}
			if p == nil || p.Kind != legacy.Request {
				return nil
			}
			b, err := d.node.v1Refusal(p, v1NoKey).Append(nil)
			if err != nil {
				return err
			}
			return conn.Send(ctx, transport.Message{Form: transport.JSON, Data: b})
		})
	}
}

// maxV1Backlog is how many messages of a queue are put by until there is an
// agreement: they may have waited there for this node. All of them together have
// as many octets as one message may.
const maxV1Backlog = 1024

// A v1Backlog is a connection some of whose messages have come before their time.
type v1Backlog struct {
	transport.Conn
	first  []transport.Message
	octets int
}

// Recv implements [transport.Conn].
func (b *v1Backlog) Recv(ctx context.Context) (transport.Message, error) {
	if len(b.first) == 0 {
		return b.Conn.Recv(ctx)
	}
	m := b.first[0]
	b.first = b.first[1:]
	return m, nil
}

// askBehind asks on a queue in which others' messages may lie before the answer.
// The peer may be asking for the same: it would wait for this node as long as
// this node for it.
func (v *v1Line) askBehind(b *v1Backlog) v1Ask {
	return func(ctx context.Context, q *legacy.Packet) (*legacy.Packet, error) {
		return v.askAside(ctx, b.Conn, q, func(m transport.Message, p *legacy.Packet) error {
			switch {
			case p == nil || p.Kind != legacy.Request:
			case p.Method == legacy.MethodAgree && v.own != nil:
				return v.answerAgreement(ctx, b.Conn, p)
			case len(b.first) == maxV1Backlog || b.octets+len(m.Data) > v.node.cfg.Limits.MaxMessage:
				v.node.log.Warn("a request is dropped: too many have come before there is an agreement", "peer", v.remote.name)
			default:
				b.first = append(b.first, m)
				b.octets += len(m.Data)
			}
			return nil
		})
	}
}

func (v *v1Line) answerAgreement(ctx context.Context, conn transport.Conn, p *legacy.Packet) error {
	peer := &Peer{Name: v.remote.name, id: v.anonymous, kind: transport.MQ, dialed: true, local: conn.LocalAddr(), remote: conn.RemoteAddr()}
	answer, _ := v.node.serveV1(ctx, &v1Inbound{rules: v.rules, line: v, peer: peer, sessions: v.own}, p)
	if answer == nil {
		return nil
	}
	b, err := answer.Append(nil)
	if err != nil {
		return err
	}
	return conn.Send(ctx, transport.Message{Form: transport.JSON, Data: b})
}

// askAside sends a packet and takes messages until one is the response to it; of
// the others it tells aside, with nil for what is no packet.
func (d *v1Dialled) askAside(ctx context.Context, conn transport.Conn, q *legacy.Packet, aside func(transport.Message, *legacy.Packet) error) (*legacy.Packet, error) {
	b, err := q.Append(nil)
	if err != nil {
		return nil, err
	}
	if err := conn.Send(ctx, transport.Message{Form: transport.JSON, Data: b}); err != nil {
		return nil, err
	}
	for heard := false; ; {
		m, err := conn.Recv(ctx)
		switch {
		case err != nil && !heard && ctx.Err() == nil && d.remote.spec().ConnectType == Websocket:
			return nil, fmt.Errorf("%w. %s", bare{err}, v1NotSpoken)
		case err != nil:
			return nil, err
		}
		p, err := legacy.ParsePacket(m.Data, d.node.cfg.Limits.MaxMessage)
		heard = heard || err == nil && spokenV1(p)
		if err == nil && p.Kind == legacy.Response && p.Nonce == q.Nonce && p.Method == q.Method {
			return p, nil
		}
		if err != nil {
			p = nil
		}
		if err := aside(m, p); err != nil {
			return nil, err
		}
	}
}

// request implements v1Caller.
func (v *v1Line) request(p *wire.Packet) (*legacy.Packet, v1Answer, error) {
	return v.v1Dialled.request(p, v.remote.mode(), v.agreement)
}

// serve answers what the peer calls back. The agreement proves who is at the
// other end and not who has made this packet, so that without a signature its
// sender is nobody.
func (v *v1Line) serve(ctx context.Context, l *link, p *legacy.Packet) (answer *legacy.Packet, closeAfter bool) {
	peer := *l.peer
	peer.id, peer.key, peer.sealed = v.anonymous, nil, false
	in := &v1Inbound{rules: v.rules, line: v, peer: &peer, sessions: v.own}
	if v.agreement != nil && v.own == nil {
		in.sessions = &v.agreement.sessions
	}
	return l.node.serveV1(ctx, in, p)
}

// checkBack is check for what comes over a connection that this node has
// dialled. Under an agreement only who has its key can ask for something, and
// what comes in the clear, or under another key, is refused and changes nothing.
func (q *v1Request) checkBack(ctx context.Context) *refusal {
	if q.in.line.own != nil { // this node's own requests, put back, have its own key
		return q.checkAnybody(ctx)
	}
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
	case a != nil && q.in.line.remote.spec().packetVersion() == 0:
		return v1OneKey // or what this node answers could be sent back as the answer to its own calls
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
	if r := q.read(); r != nil {
		return r
	}
	if a != nil && q.in.rules.trust && !q.bare {
		q.peer.key, q.peer.id = a.peer, v1ID(a.peer.ID())
	}
	return nil
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
	return q.in.line != nil && q.in.line.own == nil && q.request != nil && err == nil && text != ""
}

// agreedWith is who has agreed with this node on the key of a sealed request.
func (q *v1Request) agreedWith() (id string) {
	q.request.use(func(s *legacy.Session) error {
		if id = v1ID(s.Initiator().ID()); s.Initiator().Equal(q.in.rules.key.Public()) {
			id = v1ID(s.Responder().ID())
		}
		return nil
	})
	return id
}
