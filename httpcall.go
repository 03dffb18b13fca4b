package owtp

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// A proofState is what a caller knows of a peer that it meets in exchanges.
type proofState struct {
	key    *identity.PublicKey
	epoch  wire.Nonce
	at     time.Time     // of the last answer that was proved
	ended  uint64        // connections that had ended by then
	queue  string        // on MQ: of the replica that proved itself, if it wants to be asked there
	offset time.Duration // of the peer's clock, once it has refused ours
}

// A clientSession is an agreed session on the initiator's side.
type clientSession struct {
	*secure.Session
	renew   time.Time   // agree anew from then on
	answers atomic.Bool // one answer was opened: the finish need not ride any more
}

// proofAge is how old the last proved answer may be before a caller asks for
// another proof first, so that an ordinary restart of the peer is noticed while
// nothing is at stake (PROTOCOL §8). The same is done after a failed exchange
// and after a connection has ended, as those of a peer that restarts do.
const proofAge = 30 * time.Second

// A replica that is asked at a queue of its own goes away more often, and what
// is sent there afterwards has an outcome that nobody knows. So its proof is old
// sooner, and while it shuts down it refuses what comes, under proof, for longer
// than a proof is young: between the two a request may be on its way.
const (
	replicaAge    = time.Second
	replicaLinger = 2 * time.Second
)

// proofAge is how old the proof may be that the next request relies on.
func (r *remote) proofAge() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proof.queue != "" && !r.passive {
		return replicaAge
	}
	return proofAge
}

// ended counts the connections to the peer that have ended.
func (r *remote) ended() uint64 {
	if w, ok := r.exch.(transport.Watcher); ok {
		return w.Ended()
	}
	return 0
}

// proved makes sure that the peer has proved itself within age; 0 asks anew.
func (r *remote) proved(ctx context.Context, age time.Duration) error {
	if r.provedWithin(age) {
		return nil
	}
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	if r.provedWithin(age) {
		return nil // by who held the gate
	}
	_, err := r.shake(ctx, nil, wire.ModeSigned)
	return err
}

func (r *remote) provedWithin(age time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return age > 0 && r.proof.key != nil && time.Since(r.proof.at) < age && r.proof.ended == r.ended()
}

// agreed returns a session that is fresh enough, and agrees on one if there is
// none. Concurrent callers join one agreement.
func (r *remote) agreed(ctx context.Context) (*clientSession, error) {
	if s := r.freshSession(); s != nil {
		return s, nil
	}
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.unlock()
	if s := r.freshSession(); s != nil {
		return s, nil
	}
	r.mu.Lock()
	suites := r.suites
	r.mu.Unlock()
	return r.shake(ctx, suites, r.mode())
}

func (r *remote) freshSession() *clientSession {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.session
	if s == nil || !time.Now().Before(s.renew) || s.PeerEpoch != r.proof.epoch || s.Mode != r.modeLocked() {
		return nil
	}
	return s
}

// accepted waits for the peer's sealed acceptance of a session.
func (r *remote) accepted(ctx context.Context) error {
	s, err := r.agreed(ctx)
	if err != nil || s.answers.Load() {
		return err
	}
	nonce, err := r.node.nonce()
	if err != nil {
		return err
	}
	a, err := r.exchange(ctx, &wire.Packet{Kind: wire.Heartbeat, Nonce: nonce}, false)
	if err != nil {
		return err
	}
	return isPong(a.resp, r.name, a.proved)
}

// shake makes one handshake; without suites it is a proof hello and returns no
// session. The gate is held.
func (r *remote) shake(ctx context.Context, suites []*secure.Suite, mode wire.Mode) (*clientSession, error) {
	n := r.node
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Limits.HandshakeTimeout)
	defer cancel()
	if r.passive && suites != nil {
		return nil, errPassive
	}
	o := secure.Offer{
		Transport: uint8(r.tr.Kind()), Mode: mode, Suites: suites, Recipient: r.pinned(),
		ReplyQueue: r.queues.Reply, RequestQueue: r.queues.Own,
	}
	r.mu.Lock()
	to := r.proof.queue
	if r.session != nil && suites != nil {
		o.Retires = r.session.ID
	}
	r.mu.Unlock()
	var err error
	if o.Epoch, err = n.state.epoch(ctx); err != nil {
		return nil, newError(ErrDenialOfService, "the store cannot give the epoch: %w", err)
	}
	ended := r.ended()
	proof, s, err := r.shakeWith(ctx, o, to)
	if err != nil {
		return nil, err
	}
	if err := r.recognise(ctx, proof.Key); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proof.key, r.proof.epoch, r.proof.at, r.proof.ended = proof.Key, proof.Epoch, time.Now(), ended
	r.proof.queue = proof.Queue
	if s == nil {
		return nil, nil
	}
	if s.ID == nil {
		return nil, newError(ErrKeyAgreementFailed, "the peer gave the session no ID")
	}
	life := min(time.Duration(s.Lifetime)*time.Millisecond, n.cfg.Limits.SessionLifetime)
	r.earlier = r.session
	r.session = &clientSession{Session: s, renew: time.Now().Add(life - life/8)}
	return r.session, nil
}

// shakeWith shakes hands with the replica that takes a queue, "" being whichever
// is there, and with whichever is there if that one is gone, stuck or full. The
// broker need not say so, and somebody else, who merely listens, may subscribe
// to its queue. So it has half of the time; to be asked twice does nothing to a
// peer.
func (r *remote) shakeWith(ctx context.Context, o secure.Offer, to string) (*secure.Proof, *secure.Session, error) {
	if to == "" {
		return r.node.shakeHands(ctx, o, exchangeWith(r.exch, ""))
	}
	first := ctx
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		first, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
	}
	proof, s, err := r.node.shakeHands(first, o, exchangeWith(r.exch, to))
	if err == nil || !r.leaveReplica(to) || ctx.Err() != nil {
		return proof, s, err
	}
	return r.node.shakeHands(ctx, o, exchangeWith(r.exch, ""))
}

// An attempted is what one attempt was and came to.
type attempted struct {
	mode  wire.Mode  // that it was made in; KeyAgreement may change the remote's meanwhile
	epoch wire.Nonce // of the peer, that it belonged to
	sent  bool       // the peer may have got it

	proved bool // in version 1: the answer is under an agreement
	under  *clientSession
	to     string // the queue of one replica that it went to; "" is everybody's
	resp   *wire.Packet
}

// attempt makes one exchange. Nothing is sent in an epoch of the peer that the
// request does not belong to; without belongs it belongs to all.
func (r *remote) attempt(ctx context.Context, p *wire.Packet, belongs func(epoch wire.Nonce) bool) (a attempted, err error) {
	n := r.node
	epoch := wire.Nonce{}
	peer := &Peer{Name: r.name, kind: r.tr.Kind()}
	mode, proof, s, err := r.prepared(ctx)
	a.mode, a.under = mode, s
	if err != nil {
		return a, err
	}
	if mode != wire.ModeOpen {
		peer.key, peer.id = proof.key, proof.key.ID().String()
		p.Time = uint64(n.now().Add(proof.offset).UnixMilli())
		epoch = proof.epoch
	}
	if s != nil {
		epoch = s.PeerEpoch
		if !s.answers.Load() {
			p.Handshake = s.Finish
		}
	}
	a.epoch = epoch
	if belongs != nil && !belongs(epoch) {
		return a, errOtherEpoch
	}
	if p.Kind != wire.OneWay {
		p.ReplyTo = r.queues.Reply
	}
	if mode.Signed() {
		p.Mode, p.Transport, p.Recipient, p.Epoch = mode, uint8(peer.kind), wire.ID(proof.key.ID()), epoch
		if err := secure.Sign(n.local.Rand, n.local.Key, p); err != nil {
			return a, err
		}
	}
	m, err := r.encode(p, s)
	if err != nil {
		return a, err
	}
	if mode != wire.ModeOpen {
		a.to = proof.queue
	}
	m.To, m.OneWay = a.to, p.Kind == wire.OneWay && r.queues.Reply != ""
	answer, err := r.exch.Exchange(ctx, m)
	if err != nil {
		word := r.brokersWord(err)
		a.sent = !errors.Is(err, transport.ErrNotSent) || word && mode != wire.ModeOpen
		if a.to != "" && word && r.leaveReplica(a.to) {
			return a, fmt.Errorf("%w: %w", errReplicaGone, err)
		}
		r.doubt()
		return a, err
	}
	a.sent = true
	if m.OneWay {
		return a, nil // the broker has taken it, and nobody answers
	}
	a.resp, err = r.decode(answer, p, s, peer)
	if err == nil && mode != wire.ModeOpen {
		r.mu.Lock()
		r.proof.at = time.Now()
		r.mu.Unlock()
	}
	return a, err
}

// prepared returns what an attempt goes by: the mode of now and, unless that is
// open, a proof of the peer's and the session, if there is to be one.
func (r *remote) prepared(ctx context.Context) (mode wire.Mode, proof proofState, s *clientSession, err error) {
	for {
		mode, s = r.mode(), nil
		if mode == wire.ModeSigned || mode.Sealed() && r.freshSession() != nil {
			if err := r.proved(ctx, r.proofAge()); err != nil {
				return mode, proof, nil, err
			}
		}
		if mode.Sealed() {
			if s, err = r.agreed(ctx); err != nil {
				return mode, proof, nil, err
			}
			mode = s.Mode
		}
		r.mu.Lock()
		proof = r.proof
		r.mu.Unlock()
		if mode == wire.ModeOpen || proof.key != nil {
			return mode, proof, s, nil
		}
		// Another call has found the replica gone in between.
	}
}

// doubt makes the next call ask for a proof first: the peer has not answered.
func (r *remote) doubt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proof.at = time.Time{}
}

func (r *remote) encode(p *wire.Packet, s *clientSession) (transport.Message, error) {
	if s != nil {
		b, err := s.SealMessage(r.node.local.Rand, p.Append(nil), wire.Nonce{})
		return transport.Message{Form: transport.Binary, Data: b}, err
	}
	in := inbound{form: transport.JSON}
	if f := r.spec().DataFormat; r.tr.Kind() == transport.MQ || p.Format != "" || f != "" && f != wire.FormatJSON {
		in.form = transport.Binary // nobody types messages of queues by hand
	}
	return in.encode(p)
}

// decode opens and verifies an answer. What is weaker than the request is
// nobody's answer.
func (r *remote) decode(m transport.Message, p *wire.Packet, s *clientSession, peer *Peer) (*wire.Packet, error) {
	sealed := false
	if m.Form == transport.Binary {
		typ, _, err := wire.ParseHeader(m.Data)
		if err != nil {
			return nil, err
		}
		sealed = typ == wire.TypeSealedReply
	}
	if s != nil && sealed {
		plain, err := s.OpenMessage(m.Data, p.Nonce)
		if err != nil {
			return nil, newError(ErrSecretKeyInvalid, "the sealed answer does not open: %w", err)
		}
		resp, err := wire.ParsePacket(plain)
		if err != nil {
			return nil, err
		}
		if err := r.node.checkResponse(resp, p, peer); err != nil {
			return nil, err
		}
		s.answers.Store(true)
		return resp, nil
	}
	if sealed {
		return nil, newError(ErrResponseMethodDiffer, "a sealed answer to a request that is not sealed")
	}
	resp, err := parseOne(m)
	if err != nil {
		return nil, err
	}
	if s != nil || p.Signature != nil && resp.Signature == nil {
		if resp.Kind != wire.Response || resp.OKStatus() {
			return nil, newError(ErrResponseMethodDiffer, "an answer that is weaker than the request")
		}
		e := refusedBy(resp, peer, false)
		e.MayHaveRun = true
		return nil, e
	}
	return resp, r.node.checkResponse(resp, p, peer)
}
