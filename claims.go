package owtp

import (
	"sync"
	"time"
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

func (c *claims) sweep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records.prune(now)
	c.replies.prune(now)
}
