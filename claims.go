package owtp

import (
	"sync"
	"time"
)

// claims are the calls that this process runs.
type claims struct {
	mu      sync.Mutex
	running map[string]*claim
	shares  map[string]*share // by peer
	kept    *share            // octets of answers
	keptBy  map[string]*share // the same by peer
	waiters *quota
}

// take counts one more record of a peer and reports whether that is within its
// bound.
func (c *claims) take(peerID string, now, end time.Time, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.shares[peerID]
	if s == nil {
		s = newShare()
		c.shares[peerID] = s
	}
	return s.add(1, now, end, most)
}

// give takes back a record that was not made or is removed.
func (c *claims) give(peerID string, end time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.shares[peerID]; s != nil {
		s.remove(1, end)
	}
}

// keep reports whether there is room for an answer of that size. A record is
// never dropped early, but its answer may be: then a further attempt ends 504.
// One peer has a quarter of the room.
func (c *claims) keep(peerID string, octets int, now, end time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if octets > maxKeptReply {
		return false
	}
	s := c.keptBy[peerID]
	if s == nil {
		s = newShare()
		c.keptBy[peerID] = s
	}
	if !s.add(octets, now, end, maxKeptReplies/4) {
		return false
	}
	if !c.kept.add(octets, now, end, maxKeptReplies) {
		s.remove(octets, end)
		return false
	}
	return true
}

func (c *claims) sweep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept.prune(now)
	for _, byPeer := range []map[string]*share{c.shares, c.keptBy} {
		for peer, s := range byPeer {
			if s.prune(now); s.total == 0 {
				delete(byPeer, peer)
			}
		}
	}
}
