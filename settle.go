package owtp

import (
	"context"
	"errors"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
)

// What becomes of a claim. A store that is away when a call ends must not turn
// an outcome that this process knows into one that nobody knows: what cannot be
// written is tried again until the record's time is over or the node closes, and
// the lease is renewed as long as that.

const (
	// storePatience bounds what is written for others than the one who waits.
	storePatience = 5 * time.Second
	// maxLater is the most claims that wait for the store to come back. With
	// the breaker open few requests get as far as that; each holds an answer
	// of up to maxKeptReply, and all of them maxKeptReplies.
	maxLater = 4096
)

// A finish tells the store what became of a claim. Its error is final, or it is
// tried again.
type finish func(ctx context.Context, c *claim) error

var errRecordLost = errors.New("the call's record is gone or another's")

func final(err error) bool {
	return err == nil || errors.Is(err, errRecordLost) || errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrClosed)
}

// settle keeps what the handler returned for further attempts. Where none ran,
// the packets that were refused never will, since somebody may have recorded
// them and their sender was told so; but the call may come again.
func (n *OWTPNode) settle(c *claim, resp *wire.Packet, ran bool) {
	f := n.free
	if ran {
		f = n.outcome(c, resp)
	}
	// The caller may be gone; its next attempt wants to find the answer.
	ctx := context.WithoutCancel(n.ctx)
	if !n.state.owned { // the node's own does not wait
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, storePatience)
		defer cancel()
	}
	err := f(ctx, c)
	if !final(err) {
		n.postpone(c, f)
		return
	}
	if err != nil {
		n.log.Error("the outcome of a call cannot be kept; further attempts end 504", "err", err)
	}
	n.settled(c)
}

// outcome returns what keeps the answer of a handler that ran.
func (n *OWTPNode) outcome(c *claim, resp *wire.Packet) finish {
	var reply []byte
	if !c.once {
		// The parser wants a response's nonce; each attempt gets its own.
		kept := wire.Packet{Kind: wire.Response, Status: resp.Status, Msg: resp.Msg, Data: resp.Data, Format: resp.Format}
		reply = kept.Append(nil)
		if !n.claims.keep(slot{c.slot.peerID, c.slot.named, c.end()}, len(reply), n.now()) {
			reply = nil
		}
	}
	done := func(ctx context.Context, c *claim) error {
		return n.change(ctx, c, func(rec *wire.CallRecord) { rec.State, rec.Reply = wire.CallDone, reply })
	}
	return func(ctx context.Context, c *claim) error {
		err := done(ctx, c)
		if reply != nil && (errors.Is(err, session.ErrFull) || errors.Is(err, session.ErrTooLarge)) {
			reply = nil // no room for the answer, perhaps for the fact
			err = done(ctx, c)
		}
		return err
	}
}

// free says that no handler has run.
func (n *OWTPNode) free(ctx context.Context, c *claim) error {
	return n.change(ctx, c, func(rec *wire.CallRecord) { rec.State = wire.CallFree })
}

// release makes a call free whose record was written without an answer: it may
// be there, may come yet, or never. No handler has run for it.
func (n *OWTPNode) release(ctx context.Context, c *claim) error {
	c.mu.Lock()
	rec := c.record
	c.mu.Unlock()
	rec.State = wire.CallFree
	// Where it is not there yet, this takes its place.
	version, err := n.state.calls.insert(ctx, c.key, &rec, max(c.end().Sub(n.now()), n.replayable()))
	if err != nil || version != 0 {
		return err
	}
	err = n.free(ctx, c)
	if errors.Is(err, errRecordLost) || errors.Is(err, session.ErrNotFound) {
		return nil // there is another one, and this never was
	}
	return err
}

// end is when the claim's record may end.
func (c *claim) end() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.expires
}

// settled is told that the store knows, or never will.
func (n *OWTPNode) settled(c *claim) {
	n.claims.mu.Lock()
	if n.claims.running[c.key] == c {
		delete(n.claims.running, c.key)
	}
	delete(n.claims.later, c)
	n.claims.mu.Unlock()
	close(c.done)
}

// postpone has the store told when it is back.
func (n *OWTPNode) postpone(c *claim, f finish) {
	n.claims.mu.Lock()
	room := len(n.claims.later) < maxLater
	if room {
		n.claims.later[c] = f
	}
	n.claims.mu.Unlock()
	if !room {
		n.log.Error("the store is away and too many outcomes wait for it; further attempts of a call end 504")
		n.settled(c)
	}
}

// change changes the claim's record in the store, where attempts may have been
// listed in between. An earlier change whose answer was lost counts.
func (n *OWTPNode) change(ctx context.Context, c *claim, f func(*wire.CallRecord)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		rec := c.record
		f(&rec)
		if c.version != 0 {
			// A handler that overruns its deadline keeps its record.
			life := max(c.expires.Sub(n.now()), n.replayable())
			version, err := n.state.calls.swap(ctx, c.key, c.version, &rec, life)
			if err != nil {
				return err
			}
			if version != 0 {
				c.record, c.version = rec, version
				return nil
			}
		}
		got, err := n.state.calls.get(ctx, c.key)
		if err != nil {
			return err
		}
		if end := n.now().Add(got.ttl); end.After(c.expires) {
			c.expires = end // an attempt that was listed lasts longer
		}
		switch {
		case got.Owner != c.record.Owner:
			return errRecordLost
		case got.State == wire.CallRunning:
		case got.State == rec.State:
			return nil
		default:
			return errRecordLost
		}
		c.record, c.version = got.CallRecord, got.version
	}
}

// tendCalls tells other replicas that this one still runs its calls, and the
// store what it could not be told before.
func (n *OWTPNode) tendCalls() {
	n.finishLater()
	soon := n.now().Add(2 * lease / 3).UnixMilli()
	var old []*claim
	n.claims.mu.Lock()
	for _, c := range n.claims.running {
		old = append(old, c)
	}
	n.claims.mu.Unlock()
	failed := 0
	var last error
	for _, c := range old {
		c.mu.Lock()
		due := c.record.State == wire.CallRunning && int64(c.record.Lease) < soon
		c.mu.Unlock()
		if !due {
			continue
		}
		ctx, cancel := context.WithTimeout(n.ctx, storePatience)
		err := n.change(ctx, c, func(rec *wire.CallRecord) { rec.Lease = n.leaseEnd() })
		cancel()
		if err != nil {
			failed, last = failed+1, err
		}
	}
	if failed > 0 && n.ctx.Err() == nil {
		n.log.Warn("the leases of running calls cannot be renewed", "calls", failed, "err", last)
	}
}

func (n *OWTPNode) finishLater() {
	n.claims.mu.Lock()
	later := make(map[*claim]finish, len(n.claims.later))
	for c, f := range n.claims.later {
		later[c] = f
	}
	n.claims.mu.Unlock()
	for c, f := range later {
		ctx, cancel := context.WithTimeout(n.ctx, storePatience)
		err := f(ctx, c)
		cancel()
		switch {
		case n.ctx.Err() != nil:
			return
		case final(err):
			if err != nil {
				n.log.Error("the outcome of a call cannot be kept; further attempts end 504", "err", err)
			}
			n.settled(c)
		case n.now().After(c.end()):
			n.log.Error("the store was away until a call's record ended; its outcome is not kept", "err", err)
			n.settled(c)
		case errors.Is(err, session.ErrUnavailable):
			return // the others would wait for nothing, too
		}
	}
}
