package owtp

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// Serving requests of version 1. What a packet must pass before its handler runs
// stands here in its order: floors, signature, time, agreement, encryption,
// record. Unlike with the nodes that speak version 1 today, nothing is changed
// before the signature was verified, and nothing runs before it was recorded
// (V1-WIRE §9).

// v1Rules are what one listener asks of version 1 peers.
type v1Rules struct {
	key      *identity.PrivateKey              // this node's towards them
	sign     bool                              // EnableSignature
	agree    bool                              // EnableKeyAgreement
	proved   bool                              // only peers that are proved come in: AllowV1Peers, Authorize
	allowed  map[identity.ID]bool              // AllowV1Peers; nil means all
	trust    bool                              // InsecureV1TrustAgreement
	bareText bool                              // InsecureV1BareText
	anyTime  bool                              // InsecureV1AnyTime
	version0 bool                              // InsecureV1PacketVersion0
	admits   func(peerID, remote string) error // Authorize
}

// A v1Inbound is where requests of version 1 come from: a connection, or one
// exchange.
type v1Inbound struct {
	rules       *v1Rules
	sessions    *v1Sessions
	peer        *Peer               // each request has a copy; its ID is a connection's, "" of an exchange
	line        *v1Line             // that this node has dialled; nil where it was
	announced   *identity.PublicKey // header a; nil where there is none
	redelivered bool                // by a broker
	accepted    bool                // it was delivered before this node began to go away
}

// The answers that version 1's nodes know. Their texts are what people who run
// such nodes look for.
var (
	v1Unsigned  = refuse(ErrUnauthorized, 0, "verify signature failed, unauthorized")
	v1NoNonce   = refuse(ErrReplayAttack, 0, "no nonce")
	v1Replay    = refuse(ErrReplayAttack, 0, "this is a replay attack")
	v1Clock     = refuse(ErrReplayAttack, 0, "the packet's time is outside this node's window; check both clocks")
	v1Restarted = refuse(ErrReplayAttack, 0, "the packet may be from before this node's records begin; try again")
	v1Plain     = refuse(ErrSecretKeyInvalid, 0, "key agreement required")
	v1NoKey     = refuse(ErrKeyAgreementFailed, 0, "key agreement failed")
	v1OldPacket = refuse(ErrKeyAgreementFailed, 0, "key agreement failed: packets of this version (v) are not taken here under an agreement")
	v1OneKey    = refuse(ErrKeyAgreementFailed, 0, "key agreement failed: under an agreement with packets of version 0 nobody is called back")
	v1NotOpened = refuse(ErrKeyAgreementFailed, 0, "Decrypt data error")
	v1OwnNumber = refuse(ErrReplayAttack, 0, "this nonce is the other side's")
	v1Garbled   = refuse(ErrBadRequest, 0, "the parameters are not acceptable JSON")
)

// A v1Request is one request on its way in.
type v1Request struct {
	n  *OWTPNode
	in *v1Inbound
	p  *legacy.Packet

	peer   Peer
	signed bool
	data   []byte // the parameters as JSON
	bare   bool   // they were sealed and no JSON: nothing tells them from junk

	request  *v1Session // whose keys it was sealed with; nil if with none that is known
	response *v1Session // under which it is answered; nil for a plain answer
}

// serveV1 answers a request of version 1, or returns nil where version 1 says
// nothing. It blocks as long as the handler.
func (n *OWTPNode) serveV1(ctx context.Context, in *v1Inbound, p *legacy.Packet) (answer *legacy.Packet, closeAfter bool) {
	if p.Kind != legacy.Request {
		return nil, false
	}
	q := &v1Request{n: n, in: in, p: p, peer: *in.peer}
	defer q.release()
	if r := q.check(ctx); r != nil {
		return q.refuse(q.again(r)), false
	}
	if q.response != nil && q.request == nil { // it began an agreement, and that is all
		return q.answer(&wire.Packet{Status: StatusSuccess, Msg: "success", Data: []byte("null")}), false
	}
	resp, closeAfter := q.execute(ctx)
	return q.answer(resp), closeAfter
}

// again is the refusal of what a broker has delivered before, perhaps. Whoever
// got it first may have run it, so that it must not be said that nobody has,
// unless nobody would.
func (q *v1Request) again(r *refusal) *refusal {
	switch r {
	case v1Unsigned, v1NoNonce, v1Plain, v1NoKey, v1OldPacket, v1OneKey, v1Garbled:
		return r
	}
	if q.in.redelivered {
		return refuseUnknown
	}
	return r
}

func (q *v1Request) release() {
	if q.in.sessions == nil {
		return
	}
	q.in.sessions.release(q.response)
	if q.request != q.response {
		q.in.sessions.release(q.request)
	}
}

func (q *v1Request) check(ctx context.Context) *refusal {
	if q.in.line != nil {
		return q.checkBack(ctx)
	}
	return q.checkAnybody(ctx)
}

// checkAnybody is check where this node does not know beforehand whose request
// it is.
func (q *v1Request) checkAnybody(ctx context.Context) *refusal {
	if r := q.prove(ctx); r != nil {
		return r
	}
	if r := q.agree(ctx); r != nil {
		return r
	}
	if r := q.read(); r != nil {
		return r
	}
	rules := q.in.rules
	if rules.trust && q.request != nil && !q.signed && !q.bare {
		return q.trust()
	}
	begins := q.response != nil && q.request == nil
	if rules.proved && q.peer.key == nil && !(rules.trust && begins) {
		return v1Unsigned
	}
	if q.peer.id == "" {
		var err error
		if q.peer.id, err = q.n.anonymousID(); err != nil {
			return refuseBusy
		}
	}
	return nil
}

// agreed reports whether the packet says that it belongs to an agreement, or
// begins one.
func (q *v1Request) agreed() bool {
	k := &q.p.Keys
	return k.InitiatorCheck != "" || k.Initiator != "" && k.InitiatorEphemeral != ""
}

// prove verifies the signature, if there is one, and what it covers. Only that
// makes the sender a peer with an ID.
func (q *v1Request) prove(ctx context.Context) *refusal {
	rules, p := q.in.rules, q.p
	if p.Signature == "" {
		if rules.sign || rules.proved && !(rules.trust && q.agreed()) {
			return v1Unsigned
		}
		return nil
	}
	claimed, err := q.claimed()
	if err != nil || !q.admits(claimed) {
		q.log("no signer", err)
		return v1Unsigned
	}
	leave, r := q.enter(ctx, claimed)
	if r != nil {
		return r
	}
	defer leave()
	key, err := legacy.Verify(p, q.in.announced)
	if err != nil {
		q.n.gate.forget(q.from(), v1Source(claimed))
		q.log("signature", err)
		return v1Unsigned
	}
	q.n.gate.remember(q.from(), v1Source(claimed))
	if r := q.fresh(); r != nil {
		return r
	}
	q.signed = true
	q.peer.key, q.peer.id = key, v1ID(key.ID())
	return nil
}

// claimed returns the ID of the key that the sender says to have. Its own must
// not come back to a node.
func (q *v1Request) claimed() (identity.ID, error) {
	key := q.in.announced
	if q.p.Keys.Initiator != "" {
		var err error
		if key, err = legacy.ParseKey(q.p.Keys.Initiator); err != nil {
			return identity.ID{}, err
		}
	}
	switch {
	case key == nil:
		return identity.ID{}, legacy.ErrKey
	case q.in.announced != nil && !key.Equal(q.in.announced):
		return identity.ID{}, newError(ErrUnauthorized, "the packet's key is not the one in header a")
	case key.Equal(q.in.rules.key.Public()):
		return identity.ID{}, newError(ErrUnauthorized, "this node's own key")
	}
	return key.ID(), nil
}

// admits reports whether a version 1 peer of that ID may come in. As with this
// version it is asked before anything expensive, and the proof follows.
func (q *v1Request) admits(id identity.ID) bool {
	rules := q.in.rules
	if rules.allowed != nil && !rules.allowed[id] {
		return false
	}
	return rules.admits == nil || q.n.authorized(rules.admits, v1ID(id), q.peer.remote) == nil
}

// from is where the sender is, to the gate: apart from what comes in this version
// from there, so that a flood of one takes nothing from the other.
func (q *v1Request) from() string { return "v1/" + network(q.peer.remote) }

// v1Source keeps what version 1 proves of a key apart from what this version
// does, where work is shared out.
func v1Source(id identity.ID) identity.ID { return sha256.Sum256(append([]byte("v1:"), id[:]...)) }

// enter asks for a share of the work for strangers, where it is one who claims
// to have the key.
func (q *v1Request) enter(ctx context.Context, claimed identity.ID) (leave func(), r *refusal) {
	n, from := q.n, v1Source(claimed)
	if n.gate.isKnown(source(q.from(), from)) {
		return func() {}, nil
	}
	leave, err := n.gate.enter(ctx, q.from(), from, q.in.rules.allowed != nil, false)
	if err != nil {
		return nil, refuseRate
	}
	return leave, nil
}

// fresh judges what the signature covers. Digits can be moved from the nonce to
// the time without the signature noticing, and then the time is off by far.
func (q *v1Request) fresh() *refusal {
	n, p := q.n, q.p
	if p.Nonce == 0 {
		return v1NoNonce
	}
	if q.in.rules.anyTime {
		return nil
	}
	now, window := n.now().Unix(), int64(n.cfg.Window/time.Second)
	age := window
	if q.peer.kind == transport.MQ { // as long as its caller waits it may lie in a queue
		age = max(age, int64(n.timeout()/time.Second))
	}
	if p.Time < now-age || p.Time > now+window {
		return v1Clock
	}
	return nil
}

// agree finds the session that the request belongs to, or begins one.
func (q *v1Request) agree(ctx context.Context) *refusal {
	if !q.agreed() {
		if q.in.rules.agree {
			return v1Plain
		}
		return nil
	}
	if q.peer.link != nil && v1OwnNonce(q.p.Nonce) {
		return v1OwnNumber
	}
	if v := q.p.Version; v != 1 && !(v == 0 && q.in.rules.version0) {
		q.log("packet version under a key agreement; 1 is taken, and 0 with ConnectConfig.InsecureV1PacketVersion0", fmt.Errorf("it is %d", v))
		return v1OldPacket
	}
	if s := q.in.sessions.known(q.p); s != nil {
		q.request, q.response = s, s
		return nil
	}
	claimed, err := q.claimed()
	if err != nil || !q.admits(claimed) {
		q.log("no initiator", err)
		return v1NoKey
	}
	if !q.signed { // or it has been counted already
		leave, r := q.enter(ctx, claimed)
		if r != nil {
			return r
		}
		defer leave()
	}
	if q.request, q.response, err = q.in.sessions.of(q.p); err != nil {
		q.log("agreement", err)
		return v1NoKey
	}
	return nil
}

// log says what the sender is not told.
func (q *v1Request) log(what string, err error) {
	q.n.log.Warn("version 1 packet refused", "remote", q.peer.remote, "reason", what, "err", err)
}
