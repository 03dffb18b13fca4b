package owtp

import (
	"context"
	"errors"
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
// nothing is at stake (PROTOCOL §8).
const proofAge = 30 * time.Second

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
	return age > 0 && r.proof.key != nil && time.Since(r.proof.at) < age
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
	resp, _, _, err := r.exchange(ctx, &wire.Packet{Kind: wire.Heartbeat, Nonce: nonce})
	if err != nil {
		return err
	}
	return isPong(resp, r.name, true)
}

// shake makes one handshake; without suites it is a proof hello and returns no
// session. The gate is held.
func (r *remote) shake(ctx context.Context, suites []*secure.Suite, mode wire.Mode) (*clientSession, error) {
	n := r.node
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Limits.HandshakeTimeout)
	defer cancel()
	o := secure.Offer{Transport: uint8(r.tr.Kind()), Mode: mode, Suites: suites, Recipient: r.pinned()}
	r.mu.Lock()
	if r.session != nil && suites != nil {
		o.Retires = r.session.ID
	}
	r.mu.Unlock()
	var err error
	if o.Epoch, err = n.state.epoch(ctx); err != nil {
		return nil, newError(ErrDenialOfService, "the store cannot give the epoch: %w", err)
	}
	proof, s, err := n.shakeHands(ctx, o, exchangeWith(r.exch))
	if err != nil {
		return nil, err
	}
	if err := r.recognise(ctx, proof.Key); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proof.key, r.proof.epoch, r.proof.at = proof.Key, proof.Epoch, time.Now()
	if s == nil {
		return nil, nil
	}
	if s.ID == nil {
		return nil, newError(ErrKeyAgreementFailed, "the peer gave the session no ID")
	}
	life := min(time.Duration(s.Lifetime)*time.Millisecond, n.cfg.Limits.SessionLifetime)
	r.session = &clientSession{Session: s, renew: time.Now().Add(life - life/8)}
	return r.session, nil
}

// exchange sends a request and returns the verified answer and the request as
// it was sent. After a refusal it makes at most one more attempt, under the
// first one's call key, so that the peer never runs the handler twice
// (PROTOCOL §§8, 9).
func (r *remote) exchange(ctx context.Context, p *wire.Packet) (resp, req *wire.Packet, sent bool, err error) {
	first := *p
	resp, epoch, sent, err := r.attempt(ctx, &first)
	again, reason := r.repair(resp, err)
	if !again {
		return resp, &first, sent, err
	}
	r.node.log.Info("call refused; one more attempt", "peer", r.name, "method", p.Method, "reason", reason)
	unproved := err != nil
	if unproved {
		// Whoever refused did not prove it: the first attempt may have run,
		// so the second must belong to the same epoch.
		if err2 := r.renewFor(ctx); err2 != nil {
			return nil, nil, true, errors.Join(err, err2)
		}
		if now := r.currentEpoch(); now != epoch {
			return nil, nil, true, newError(ErrOutcomeUnknown, "the peer has restarted or forgotten; whether the call ran is not known")
		}
	}
	second := *p
	if second.CallKey.IsZero() {
		second.CallKey = p.Nonce
	}
	if second.Nonce, err = r.node.nonce(); err != nil {
		return nil, nil, sent, err
	}
	resp, _, sent2, err := r.attempt(ctx, &second)
	return resp, &second, unproved || sent2, err
}

func (r *remote) currentEpoch() wire.Nonce {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proof.epoch
}

// renewFor gets what the mode needs anew.
func (r *remote) renewFor(ctx context.Context) error {
	if r.mode().Sealed() {
		_, err := r.agreed(ctx)
		return err
	}
	return r.proved(ctx, 0)
}

// repair decides whether a refused call is worth a second attempt, and mends
// what it was refused for.
func (r *remote) repair(resp *wire.Packet, err error) (again bool, reason string) {
	n := r.node
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		var e *Error
		if errors.As(err, &e) && !e.Proved && e.Status == ErrSecretKeyInvalid && r.session != nil {
			r.session = nil
			return true, "the peer does not know the session"
		}
		return false, ""
	}
	if resp.Status != ErrReplayAttack || r.modeLocked() == wire.ModeOpen {
		return false, ""
	}
	switch resp.Reason {
	case wire.ReasonEpoch:
		// Proved: this attempt has not run and never will.
		r.proof.epoch, r.session = resp.Epoch, nil
		return !resp.Epoch.IsZero(), "the peer has a new epoch"
	case wire.ReasonClock:
		offset := time.UnixMilli(int64(resp.Time)).Sub(n.now())
		if offset.Abs() > maxClockOffset || (offset-r.proof.offset).Abs() < n.cfg.Window/4 {
			return false, ""
		}
		n.log.Warn("this node's clock and the peer's differ; times are corrected for this peer", "peer", r.name, "offset", offset)
		r.proof.offset = offset
		return true, "the clocks differ"
	}
	return false, ""
}

// maxClockOffset bounds what a caller corrects itself for.
const maxClockOffset = 24 * time.Hour

// attempt makes one exchange. epoch is the one that the request belonged to.
func (r *remote) attempt(ctx context.Context, p *wire.Packet) (resp *wire.Packet, epoch wire.Nonce, sent bool, err error) {
	n, mode := r.node, r.mode()
	peer := &Peer{Name: r.name, kind: r.tr.Kind()}
	var s *clientSession
	if mode == wire.ModeSigned || mode.Sealed() && r.freshSession() != nil {
		if err := r.proved(ctx, proofAge); err != nil {
			return nil, epoch, false, err
		}
	}
	if mode.Sealed() {
		if s, err = r.agreed(ctx); err != nil {
			return nil, epoch, false, err
		}
		mode = s.Mode
	}
	r.mu.Lock()
	proof := r.proof
	r.mu.Unlock()
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
	if mode.Signed() {
		p.Mode, p.Transport, p.Recipient, p.Epoch = mode, uint8(peer.kind), wire.ID(proof.key.ID()), epoch
		if err := secure.Sign(n.local.Rand, n.local.Key, p); err != nil {
			return nil, epoch, false, err
		}
	}
	m, err := r.encode(p, s)
	if err != nil {
		return nil, epoch, false, err
	}
	answer, err := r.exch.Exchange(ctx, m)
	if err != nil {
		return nil, epoch, !errors.Is(err, transport.ErrNotSent), err
	}
	resp, err = r.decode(answer, p, s, peer)
	if err == nil && mode != wire.ModeOpen {
		r.mu.Lock()
		r.proof.at = time.Now()
		r.mu.Unlock()
	}
	return resp, epoch, true, err
}

func (r *remote) encode(p *wire.Packet, s *clientSession) (transport.Message, error) {
	if s != nil {
		b, err := s.SealMessage(r.node.local.Rand, p.Append(nil), wire.Nonce{})
		return transport.Message{Form: transport.Binary, Data: b}, err
	}
	in := inbound{form: transport.JSON}
	if f := r.spec().DataFormat; f != "" && f != wire.FormatJSON {
		in.form = transport.Binary
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
