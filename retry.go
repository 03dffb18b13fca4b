package owtp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

const (
	// maxAttempts bounds how often one call is sent, but for one with a call key
	// on a connection. Whoever stands in between makes a caller slower by that
	// much, and no more.
	maxAttempts = 4
	// firstPause is before the second attempt; it doubles, and varies by half.
	firstPause = 40 * time.Millisecond
	// maxClockOffset bounds what a caller corrects itself for.
	maxClockOffset = 24 * time.Hour
)

var errOtherEpoch = errors.New("the peer has another epoch")

// A retry is what is known of a call after some attempts (PROTOCOL §§8, 9).
type retry struct {
	remote     *remote
	call       *wire.Packet
	repeatable bool
	keyed      bool // the program has given the call key
	attempts   int
	maybe      bool       // one that was sent may have run
	epoch      wire.Nonce // of the first attempt that was sent
	refused    bool       // an unproved refusal has been answered by an attempt
	repaired   wire.Reason
}

// An outcome is what a call came to: the verified answer, and the request as it
// was sent last.
type outcome struct {
	resp, req *wire.Packet
	sent      bool // the peer may have got it, in one attempt or another
	proved    bool // the answer is as strong as a mode with proof
	received  bool // resp was parsed for this call, and nobody else has it or req
}

// exchange sends a request and returns the verified answer. After a broken
// exchange or a refusal it tries again, under the first attempt's call key and
// in the same epoch, so that the peer never runs the handler twice.
func (r *remote) exchange(ctx context.Context, p *wire.Packet, repeatable bool) (out outcome, err error) {
	if r.v1 != nil {
		return r.exchangeV1(ctx, p, repeatable)
	}
	t := &retry{remote: r, call: p, repeatable: repeatable}
	t.keyed = !p.CallKey.IsZero() && r.mode() != wire.ModeOpen
	if t.keyed {
		defer r.keyed.enter(p.CallKey, t)()
		if t.epoch, err = r.keyed.first(p.CallKey); err != nil {
			return out, err
		}
		t.maybe = !t.epoch.IsZero()
	}
	for pause := firstPause; ; pause *= 2 {
		q := wire.NewPacket(*p)
		if t.attempts++; t.attempts > 1 {
			q.CallKey = p.Key()
			if q.Nonce, err = r.node.nonce(); err != nil {
				return out, err
			}
		}
		a, err := r.attempt(ctx, q, t.belongs)
		if a.sent && t.epoch.IsZero() {
			t.epoch = a.epoch
		}
		if t.keyed && t.epoch.IsZero() && !t.maybe {
			r.keyed.unsent(p.CallKey, t)
		}
		again, reason := t.judge(a, err)
		out = outcome{resp: a.resp, req: q, sent: a.sent || t.maybe, proved: a.mode != wire.ModeOpen, received: a.resp != nil}
		if !again {
			if errors.Is(ctx.Err(), context.Canceled) && a.sent && (a.mode != wire.ModeOpen || r.queues.Reply != "") {
				r.cancelCall(q)
			}
			if errors.Is(err, context.DeadlineExceeded) && a.sent && a.to != "" && r.replicaIsGone(a.to, q) {
				err = newError(ErrOutcomeUnknown, "the replica that was asked is gone; whether the call ran is not known")
			}
			if t.maybe && err == nil && a.resp.Reason == wire.ReasonEpoch || errors.Is(err, errOtherEpoch) {
				err = newError(ErrOutcomeUnknown, "the peer has restarted or forgotten since the first attempt; whether the call ran is not known")
			}
			if t.maybe && err == nil && ofAttempt(a.resp) {
				err = errAttemptRefused
			}
			return out, err
		}
		r.node.log.Info("call is tried again", "peer", r.name, "method", p.Method, "attempt", t.attempts+1, "reason", reason)
		if !sleep(ctx, pause/2+rand.N(pause)) {
			out.sent = t.maybe
			return out, ctx.Err()
		}
	}
}

// belongs reports whether an attempt may be sent in an epoch: not in another one
// than what may have run, be it an attempt of this call or of another one under
// the same key, unless that may run twice.
func (t *retry) belongs(epoch wire.Nonce) bool {
	if t.keyed {
		r := t.remote
		if first := r.keyed.bind(t.call.CallKey, epoch, r.node.recordLife(t.call), t); first != epoch {
			t.epoch, t.maybe = first, true
		}
	}
	return !t.maybe || t.repeatable || epoch == t.epoch
}

// ofAttempt reports whether a refusal is true of one attempt only: whoever
// delays or copies packets, and a peer that is full or goes away, must not make
// a call look refused that may have run before.
func ofAttempt(resp *wire.Packet) bool {
	switch resp.Reason {
	case wire.ReasonClock, wire.ReasonCopy, wire.ReasonNotRun:
		return true
	}
	return false
}

var errAttemptRefused = newError(ErrOutcomeUnknown, "the peer refused the last attempt, but an earlier one may have run")

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// judge decides whether one more attempt makes sense, and mends what the last
// one was refused for.
func (t *retry) judge(a attempted, err error) (again bool, reason string) {
	sent := a.sent
	if a.mode == wire.ModeOpen || t.call.Kind == wire.OneWay || t.attempts >= maxAttempts {
		t.maybe = t.maybe || sent && err != nil
		return false, ""
	}
	if err == nil {
		return t.judgeAnswer(a)
	}
	before := t.maybe
	t.maybe = before || sent
	var e *Error
	var refusal *transport.Refusal
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errOtherEpoch), errors.Is(err, ErrTrust):
		return false, ""
	case errors.Is(err, errReplicaGone):
		return true, err.Error() // another replica is asked for its proof first
	case !before && t.remote.brokersWord(err):
		return false, "" // nobody there, it is said; the caller is told at once
	case !sent && !before:
		return false, "" // nobody there; say so at once
	case errors.As(err, &e) && !e.Proved || errors.As(err, &refusal):
		// Whoever refused did not prove it: one more attempt, with a new
		// agreement if that is what is said to be missing. A call that may be
		// repeated is worth all attempts: a proxy that finds nobody, and then
		// a peer that has forgotten the session, is what a restart looks like.
		if t.refused && !t.repeatable {
			return false, ""
		}
		t.refused = true
		if e != nil && e.Status == ErrSecretKeyInvalid {
			t.remote.dropSession(a.under)
		}
		return true, err.Error()
	}
	return true, err.Error()
}

// judgeAnswer looks at an answer that is the peer's own.
func (t *retry) judgeAnswer(a attempted) (again bool, reason string) {
	resp := a.resp
	switch {
	case resp.Reason != wire.ReasonNotRun:
	case t.maybe:
		return true, resp.Msg // full or going away: another attempt may learn more
	case resp.Status == ErrDenialOfService && t.elsewhere(a):
		return true, resp.Msg + "; another replica is asked"
	}
	r := t.remote
	r.mu.Lock()
	defer r.mu.Unlock()
	if resp.Status == ErrRequestTimeout && r.queues.Reply != "" {
		// Too old, perhaps, and because an answer lay in a queue from which
		// this side has learned the time. The next call learns it anew.
		r.proof.offset = 0
	}
	if resp.Status != ErrReplayAttack || resp.Reason == t.repaired {
		return false, ""
	}
	switch resp.Reason {
	case wire.ReasonEpoch:
		// The peer of now has not run this packet and never will. What the one
		// before it did, or a replica with a store of its own, it cannot
		// know: somebody may have delivered the packet to that one first.
		t.maybe = true
		if resp.Epoch.IsZero() {
			return false, ""
		}
		r.proof.epoch, r.session = resp.Epoch, nil
		if !t.repeatable {
			return false, ""
		}
		t.epoch, t.repaired = wire.Nonce{}, resp.Reason
		return true, "the peer has a new epoch"
	case wire.ReasonClock:
		offset := time.UnixMilli(int64(resp.Time)).Sub(r.node.now())
		if offset.Abs() > maxClockOffset {
			return false, ""
		}
		// What was ahead of the peer's window will be within it soon, and
		// somebody may have recorded it.
		r.proof.offset, t.repaired, t.maybe = offset, resp.Reason, true
		return true, fmt.Sprintf("the clocks differ by %v; times are corrected for this peer", offset)
	case wire.ReasonCopy:
		// Somebody delivered a copy first, and its answer is kept.
		t.maybe, t.repaired = true, resp.Reason
		return true, "a copy of the packet came first"
	}
	return false, ""
}

// elsewhere lets the next attempt go to another replica, after one that goes away
// has refused the only attempts that there were, under proof: no packet of this
// call has reached a handler or ever will, since each was made for the epoch of
// who refused it. Thus the call is bound to no epoch (PROTOCOL §8).
func (t *retry) elsewhere(a attempted) bool {
	r := t.remote
	switch {
	case r.queues.Reply == "" || r.passive:
		return false // there is but one place to ask
	case !t.call.CallKey.IsZero() && !r.keyed.unsent(t.call.CallKey, t):
		return false
	}
	if a.to != "" {
		r.leaveReplica(a.to)
	}
	t.epoch = wire.Nonce{}
	return true
}

// dropSession forgets the session that an attempt was refused under, unless
// another call has agreed on a new one already.
func (r *remote) dropSession(s *clientSession) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session == s {
		r.session = nil
	}
}

// cancelCall tells the peer that nobody waits for a call any more. An exchange
// that merely breaks does not: the caller may come again.
func (r *remote) cancelCall(q *wire.Packet) {
	p := &wire.Packet{Kind: wire.Cancel, Nonce: q.Nonce, CallKey: q.CallKey}
	r.node.spawn(func() {
		ctx, cancel := context.WithTimeout(r.ctx, 2*time.Second)
		defer cancel()
		r.attempt(ctx, p, nil)
	})
}

// replicaIsGone finds out whether the replica that was asked still takes
// messages, by cancelling the call there: 504 tells more than 408 where nobody
// will ever know.
func (r *remote) replicaIsGone(queue string, q *wire.Packet) bool {
	ctx, cancel := context.WithTimeout(r.ctx, cancelPatience)
	defer cancel()
	r.attempt(ctx, &wire.Packet{Kind: wire.Cancel, Nonce: q.Nonce, CallKey: q.CallKey}, nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proof.queue != queue // leaveReplica, or a new agreement after it
}

// cancelPatience is short: the caller's time is over already.
const cancelPatience = 100 * time.Millisecond

// transact brings a request over the connection of now. With a call key of the
// caller's it is sent again over the next connection if this one is lost, and so
// is one that is repeatable, maxAttempts times in all: its handler may be what
// ends the connection. No other call is sent twice (PROTOCOL §8).
func (r *remote) transact(ctx context.Context, p *wire.Packet, repeatable bool) (out outcome, err error) {
	var epoch wire.Nonce
	keyed := !p.CallKey.IsZero() && r.mode() != wire.ModeOpen
	if keyed {
		if epoch, err = r.keyed.first(p.CallKey); err != nil {
			return out, err
		}
	}
	maybe := !epoch.IsZero()
	for attempts := 1; ; attempts++ {
		l, err := r.ready(ctx)
		if err != nil {
			return outcome{sent: maybe}, err
		}
		p.Unprove() // of the attempt before
		q := p
		if maybe {
			again := *p
			q = &again
			if q.Nonce, err = r.node.nonce(); err != nil {
				return outcome{sent: true}, err
			}
			if l.peerEpoch != epoch && !repeatable {
				return outcome{sent: true}, newError(ErrOutcomeUnknown, "the peer has restarted or forgotten since the first attempt; whether the call ran is not known")
			}
		}
		resp, sent, err := l.transact(ctx, q)
		if err == nil && maybe && ofAttempt(resp) {
			return outcome{sent: true}, errAttemptRefused
		}
		if sent && !maybe {
			epoch, maybe = l.peerEpoch, true
		}
		if sent && keyed {
			r.keyed.bind(p.CallKey, l.peerEpoch, r.node.recordLife(p), nil)
		}
		if err != nil && !sent && !l.usable() && ctx.Err() == nil {
			attempts--
			continue // the connection was replaced in between; nothing was sent
		}
		again := !p.CallKey.IsZero() || repeatable && attempts < maxAttempts
		if err == nil || !again || p.Kind != wire.Request || !l.proves() || !l.ended() && !errors.Is(err, errV1Forgot) || ctx.Err() != nil {
			return outcome{resp: resp, req: q, sent: maybe, proved: l.proves(), received: l.v1 == nil && resp != nil}, err
		}
		if !sleep(ctx, firstPause/2) {
			return outcome{sent: maybe}, ctx.Err()
		}
	}
}
