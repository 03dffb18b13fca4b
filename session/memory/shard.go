package memory

import (
	"container/heap"
	"sync"
)

const (
	// Each write adds one record at most and takes up to four expired ones
	// away, so that memory is bounded without any sweeper.
	collectOnWrite = 4

	// A sweep holds a shard for this many removals, some ten microseconds.
	collectOnSweep = 64

	never   = 0  // the expiry of what does not expire; the clock starts at 1
	noPlace = -1 // not in the heap
)

// An entry is one record. All but the key change under the shard's lock; the
// octets of value never do.
type entry struct {
	key     string
	value   []byte
	version uint64
	expires int64 // on the store's clock, or never
	place   int   // index in the shard's heap
}

func (e *entry) expired(now int64) bool { return e.expires != never && now >= e.expires }

// A shard is a part of the keys with a lock of its own. A key is always in the
// same shard, whose counter therefore never gives it the same version twice.
type shard struct {
	mu      sync.RWMutex
	entries map[string]*entry
	heap    expiries
	version uint64
	_       [64]byte // keeps neighbours' locks on cache lines of their own
}

// schedule sets when e expires.
func (sh *shard) schedule(e *entry, expires int64) {
	e.expires = expires
	switch {
	case expires == never && e.place != noPlace:
		heap.Remove(&sh.heap, e.place)
	case expires == never:
	case e.place != noPlace:
		heap.Fix(&sh.heap, e.place)
	default:
		heap.Push(&sh.heap, e)
	}
}

// collect removes up to max expired entries and returns how many.
func (s *Store) collect(sh *shard, now int64, max int) int {
	n := 0
	for ; n < max && len(sh.heap) > 0 && sh.heap[0].expired(now); n++ {
		s.remove(sh, sh.heap[0])
	}
	return n
}

func (s *Store) remove(sh *shard, e *entry) {
	if e.place != noPlace {
		heap.Remove(&sh.heap, e.place)
	}
	delete(sh.entries, e.key)
	s.release(e.key, 1, size(e.key, e.value))
}

// expiries is a heap.Interface with what expires first on top.
type expiries []*entry

func (h expiries) Len() int           { return len(h) }
func (h expiries) Less(i, j int) bool { return h[i].expires < h[j].expires }

func (h expiries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *expiries) Push(x any) {
	e := x.(*entry)
	e.place = len(*h)
	*h = append(*h, e)
}

func (h *expiries) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.place = noPlace
	return e
}
