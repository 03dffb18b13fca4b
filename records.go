package owtp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
)

// One record per call makes retries honest (PROTOCOL §8): of any number of
// packets under one key, at whichever replica, one runs the handler; copies are
// refused; further attempts with a nonce of their own get the first one's
// answer, or are told that nobody knows it.

const (
	// lease is how long a record's owner is believed to be alive without
	// renewing it; it renews three times as often.
	lease = 30 * time.Second
	// maxKeptReply is the most octets of an answer that is kept for further
	// attempts. Larger ones are not, and the attempt ends 504.
	maxKeptReply = 256 << 10
	// maxWaiters is the most attempts that wait for calls that run, on the
	// node and for one peer. More are refused with 429 and may come again.
	maxWaiters        = 4096
	maxWaitersPerPeer = 64
	// maxKeptReplies is the most octets of answers that are kept at one time.
	// A caller that lost one comes back within seconds; most are kept for
	// nothing.
	maxKeptReplies = 64 << 20
	// pollFirst and pollMost are the pauses between two looks at a record
	// that another replica owns.
	pollFirst = 20 * time.Millisecond
	pollMost  = 500 * time.Millisecond
	// orphanPatience is how long a handler goes on after its exchange or
	// connection broke, unless another attempt comes to wait for it. A caller
	// that really cancels says so.
	orphanPatience = 5 * time.Second
)

// A claim is the right to run one call's handler.
type claim struct {
	key     string
	slot    slot
	listed  bool // a further attempt was added to the record
	record  wire.CallRecord
	version uint64
	expires time.Time
	done    chan struct{}   // closed when the record says the outcome, or never will
	context *handlerContext // of the handler
	waiting atomic.Int32    // further attempts that wait for it here
	known   atomic.Int32    // attempts in the record that came by this process

	redelivered bool // the broker has delivered the packet before, perhaps
	once        bool // nobody can ask for the answer again

	mu sync.Mutex // orders changes of the record in the store
}

// claimCall makes the record of a call, or finds it. It returns the claim if
// the handler is to run, otherwise the answer or the refusal.
func (n *OWTPNode) claimCall(ctx context.Context, peerID string, p *wire.Packet, redelivered bool) (*claim, *wire.Packet, *refusal) {
	life := n.recordLife(p)
	end := n.now().Add(life)
	owner, err := n.nonce()
	if err != nil {
		return nil, nil, n.storeRefusal(err)
	}
	c := &claim{
		key: n.state.calls.key(peerID, p), slot: slot{peerID, n.named.has(peerID), end}, expires: end, done: make(chan struct{}), redelivered: redelivered,
		record: wire.CallRecord{
			State: wire.CallRunning, Owner: owner, Lease: n.leaseEnd(),
			Attempts: []wire.Nonce{p.Nonce},
		},
	}
	if peerID != openCalls { // whose attempts all have one nonce, and are told apart by nothing else
		c.record.Digest = secure.CallDigest(p)
	}
	if redelivered {
		if r := n.ranElsewhere(ctx, c.key); r != nil {
			return nil, nil, r
		}
	}
	if !n.claims.take(c.slot, n.now(), n.state.callRoom) {
		return nil, nil, refuse(ErrTooManyRequests, wire.ReasonUnknown, "too many calls of this peer, or of peers like it, are remembered; try again later")
	}
	version, err := n.state.calls.insert(ctx, c.key, &c.record, life)
	if maybeWritten(err) {
		n.postpone(c, n.release)
		return nil, nil, n.storeRefusal(err)
	}
	if err != nil {
		n.claims.give(c.slot)
		return nil, nil, n.storeRefusal(err)
	}
	if version == 0 {
		mine, reply, refused := n.retried(ctx, peerID, p, c)
		if !c.listed {
			n.claims.give(c.slot)
		}
		return mine, reply, refused
	}
	c.version = version
	return c, nil, nil
}

func (n *OWTPNode) leaseEnd() uint64 { return uint64(n.now().Add(lease).UnixMilli()) }

func (n *OWTPNode) hold(c *claim) {
	c.known.Store(int32(len(c.record.Attempts)))
	n.claims.mu.Lock()
	n.claims.running[c.key] = c
	n.claims.mu.Unlock()
}

// storeRefusal refuses a call that cannot be recorded. Nothing keeps its packet
// from running later, so it does not say that it never will.
func (n *OWTPNode) storeRefusal(err error) *refusal {
	switch {
	case errors.Is(err, session.ErrFull):
		return refuse(ErrTooManyRequests, wire.ReasonUnknown, "too many calls are remembered; try again later")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return refuseUnknown // the caller's own patience, not the store's
	}
	n.log.Error("call record cannot be read or stored; the call is refused", "err", err)
	return refuse(ErrDenialOfService, wire.ReasonUnknown, "the store cannot answer")
}

var (
	refuseCopy    = refuse(ErrReplayAttack, wire.ReasonCopy, "a packet with this nonce was received before")
	refuseKey     = refuse(ErrReplayAttack, wire.ReasonKey, "the call key belongs to a call with other content")
	refuseAgain   = refuse(ErrDenialOfService, 0, "refused before; nothing has run")
	refuseUnknown = refuse(ErrOutcomeUnknown, wire.ReasonUnknown, "whether the call ran is not known")
)

// retried handles a packet under a key that has a record already.
func (n *OWTPNode) retried(ctx context.Context, peerID string, p *wire.Packet, fresh *claim) (*claim, *wire.Packet, *refusal) {
	ctx, cancel := context.WithTimeout(ctx, n.remaining(p))
	defer cancel()
	listed, waiting := false, false
	defer func() {
		if waiting {
			n.claims.waiters.give(peerID, len(p.Data))
		}
	}()
	for pause := pollFirst; ; pause = min(2*pause, pollMost) {
		got, err := n.state.calls.get(ctx, fresh.key)
		if errors.Is(err, session.ErrNotFound) {
			// Its time is over. What came before cannot be told any more.
			return nil, nil, refuseUnknown
		}
		if err != nil {
			return nil, nil, n.storeRefusal(err)
		}
		rec, version := &got.CallRecord, got.version
		// Each attempt makes the record last as long as itself; none shortens
		// it, or a copy of an earlier one would find nothing.
		if end := n.now().Add(got.ttl); end.After(fresh.expires) {
			fresh.expires = end
		}
		if !listed {
			if r := n.list(ctx, fresh, rec, version, p.Nonce); r != nil {
				if r == errChanged {
					continue
				}
				return nil, nil, r
			}
			listed = true
			continue // what was read has changed by that
		}
		switch {
		case rec.State == wire.CallFree:
			c, err := n.seize(ctx, fresh, rec, version)
			if err != nil {
				return nil, nil, n.storeRefusal(err)
			}
			if c != nil {
				return c, nil, nil
			}
			continue // somebody else was quicker
		case rec.State == wire.CallDone && rec.Reply == nil:
			return nil, nil, refuseUnknown
		case rec.State == wire.CallDone:
			reply, err := wire.ParsePacket(rec.Reply)
			if err != nil {
				return nil, nil, n.storeRefusal(err)
			}
			reply.Nonce, reply.Method = p.Nonce, p.Method
			return nil, reply, nil
		case n.now().UnixMilli() > int64(rec.Lease):
			if c := n.takeOver(ctx, fresh, rec, version, p); c != nil {
				return c, nil, nil
			}
			return nil, nil, refuseUnknown
		}
		if !waiting {
			if !n.claims.waiters.take(peerID, len(p.Data)) {
				return nil, nil, refuseMany
			}
			waiting = true
			n.knows(fresh.key)
		}
		if n.waitFor(ctx, fresh.key, pause) != nil {
			return nil, nil, refuseUnknown
		}
	}
}

// ranElsewhere refuses what a broker delivers again where nobody can know what
// became of the first delivery: another replica, with a store of its own, may
// have got it (PROTOCOL §8).
func (n *OWTPNode) ranElsewhere(ctx context.Context, key string) *refusal {
	if n.state.shared {
		return nil
	}
	_, err := n.state.calls.get(ctx, key)
	switch {
	case errors.Is(err, session.ErrNotFound):
		return refuseUnknown
	case err != nil:
		return n.storeRefusal(err)
	}
	return nil
}

// errChanged says that somebody else changed the record first.
var errChanged = refuse(0, 0, "")

// list adds the nonce to the record's attempts.
func (n *OWTPNode) list(ctx context.Context, fresh *claim, rec *wire.CallRecord, version uint64, nonce wire.Nonce) *refusal {
	switch {
	case slices.Contains(rec.Attempts, nonce) && rec.State == wire.CallFree && fresh.redelivered:
		return refuseAgain
	case slices.Contains(rec.Attempts, nonce) && fresh.redelivered:
		return nil // the same attempt, which the broker brings once more
	case slices.Contains(rec.Attempts, nonce):
		return refuseCopy
	case rec.Digest != fresh.record.Digest:
		return refuseKey
	case len(rec.Attempts) >= wire.MaxAttempts:
		return refuse(ErrTooManyRequests, 0, "too many attempts of one call")
	}
	rec.Attempts = append(rec.Attempts, nonce)
	swapped, err := n.state.calls.swap(ctx, fresh.key, version, rec, fresh.expires.Sub(n.now()))
	if err != nil {
		return n.storeRefusal(err)
	}
	if swapped == 0 {
		return errChanged
	}
	fresh.listed = true
	return nil
}

// takeOver makes this process the owner of a repeatable call whose owner has
// died.
func (n *OWTPNode) takeOver(ctx context.Context, fresh *claim, rec *wire.CallRecord, version uint64, p *wire.Packet) *claim {
	rt := n.router.route(p.Method)
	if rt == nil || !rt.repeatable {
		return nil
	}
	c, err := n.seize(ctx, fresh, rec, version)
	if err != nil {
		n.log.Error("a call whose owner died cannot be taken over", "err", err)
	}
	return c
}

// seize makes this process the owner of a call that nobody runs.
func (n *OWTPNode) seize(ctx context.Context, fresh *claim, rec *wire.CallRecord, version uint64) (*claim, error) {
	state, lease := rec.State, rec.Lease
	rec.State, rec.Owner, rec.Lease = wire.CallRunning, fresh.record.Owner, n.leaseEnd()
	swapped, err := n.state.calls.swap(ctx, fresh.key, version, rec, fresh.expires.Sub(n.now()))
	if maybeWritten(err) {
		fresh.record, fresh.version = *rec, version
		n.postpone(fresh, func(ctx context.Context, c *claim) error {
			return n.change(ctx, c, func(rec *wire.CallRecord) { rec.State, rec.Lease = state, lease })
		})
	}
	if err != nil || swapped == 0 {
		return nil, err
	}
	fresh.record, fresh.version = *rec, swapped
	return fresh, nil
}

// knows counts an attempt that came by this process, if it is here that its call
// runs.
func (n *OWTPNode) knows(key string) {
	n.claims.mu.Lock()
	defer n.claims.mu.Unlock()
	if c := n.claims.running[key]; c != nil {
		c.known.Add(1)
	}
}

// wantedElsewhere reports whether an attempt came by another replica since the
// handler began. It may wait there, and a store that cannot say is no reason to
// disappoint it.
func (n *OWTPNode) wantedElsewhere(c *claim) bool {
	if !n.state.shared {
		return false
	}
	ctx, cancel := context.WithTimeout(n.ctx, storePatience)
	defer cancel()
	got, err := n.state.calls.get(ctx, c.key)
	if err != nil {
		return !errors.Is(err, session.ErrNotFound) && !errors.Is(err, wire.ErrMalformed)
	}
	return len(got.Attempts) > int(c.known.Load())
}

// waitFor waits for a call that this process runs, or a pause for another's.
func (n *OWTPNode) waitFor(ctx context.Context, key string, pause time.Duration) error {
	n.claims.mu.Lock()
	c := n.claims.running[key]
	n.claims.mu.Unlock()
	var done chan struct{}
	var tick <-chan time.Time
	if c != nil {
		done = c.done
		c.waiting.Add(1)
		defer c.waiting.Add(-1)
	} else {
		t := time.NewTimer(pause)
		defer t.Stop()
		tick = t.C
	}
	select {
	case <-done:
	case <-tick:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

var errCancelled = fmt.Errorf("the caller cancelled: %w", context.Canceled)

// cancelCall ends the context of a recorded call's handler, if this process
// runs it for that peer. A cancel that reaches another replica is lost, and the
// handler goes on until its deadline.
func (n *OWTPNode) cancelCall(peerID string, p *wire.Packet) {
	n.claims.mu.Lock()
	c := n.claims.running[n.state.calls.key(peerID, p)]
	n.claims.mu.Unlock()
	if c != nil {
		c.context.endFor(errCancelled)
	}
}
