package owtp

import (
	"sync"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
)

// claims are the calls that this process runs, and what peers have taken of the
// room for call records and kept answers.
type claims struct {
	named   *named
	waiters *quota

	mu      sync.Mutex
	running map[string]*claim
	later   map[*claim]finish // what the store could not be told yet
	records *shares           // further attempts count as records, since they make one longer
	replies *shares           // octets of answers
	room    int               // of replies
}

func newClaims(l Limits, names *named) claims {
	return claims{
		named: names, waiters: newQuota(maxWaitersPerPeer, maxWaiters, l.MaxReceiving, names),
		running: make(map[string]*claim), later: make(map[*claim]finish), records: newShares(), replies: newShares(), room: maxKeptReplies,
	}
}

// take counts one more record of a peer, or one more attempt in one, and
// reports whether that is within its bound: one peer has half of all.
func (c *claims) take(s slot, now time.Time, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.records.add(s, 1, now, bounds{all: most, others: c.named.part(most), one: most / 2})
}

// give takes back a record that was not made.
func (c *claims) give(s slot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records.remove(s, 1)
}

// keep reports whether there is room for an answer of that size. A record is
// never dropped early, but its answer may be: then a further attempt ends 504.
// One peer has a quarter of the room.
func (c *claims) keep(s slot, octets int, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return octets <= maxKeptReply && c.replies.add(s, octets, now, bounds{all: c.room, others: c.named.part(c.room), one: c.room / 4})
}

// passing are the calls of queues that run without a record, where a cancel finds
// them. It is safe for concurrent use.
type passing struct {
	mu    sync.Mutex
	calls map[wire.Nonce]*handlerContext
}

// enter reports whether no other call runs under that nonce.
func (p *passing) enter(nonce wire.Nonce, ctx *handlerContext) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, twice := p.calls[nonce]; twice {
		return false
	}
	if p.calls == nil {
		p.calls = make(map[wire.Nonce]*handlerContext)
	}
	p.calls[nonce] = ctx
	return true
}

func (p *passing) leave(nonce wire.Nonce) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.calls, nonce)
}

func (p *passing) cancel(nonce wire.Nonce) {
	p.mu.Lock()
	ctx := p.calls[nonce]
	p.mu.Unlock()
	if ctx != nil {
		ctx.endFor(errCancelled)
	}
}

func (c *claims) sweep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records.prune(now)
	c.replies.prune(now)
}
