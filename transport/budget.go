package transport

import "sync/atomic"

// A Budget bounds the octets of messages that are being received at one time,
// by all listeners of a node together: ten thousand strangers who each send
// half of a large message must not use up the memory. It is safe for concurrent
// use; a nil Budget has no bound.
type Budget struct {
	most int64
	used atomic.Int64
}

// NewBudget returns a budget of so many octets.
func NewBudget(most int) *Budget { return &Budget{most: int64(most)} }

// Take reports whether n more octets are free, and takes them.
func (b *Budget) Take(n int) bool {
	if b == nil {
		return true
	}
	if b.used.Add(int64(n)) > b.most {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

// Give gives n octets back.
func (b *Budget) Give(n int) {
	if b != nil {
		b.used.Add(-int64(n))
	}
}
