package memory

import (
	"strings"
	"sync/atomic"

	"github.com/owtp-go/owtp/session"
)

// An account counts what one kind of records uses, and what it may use.
type account struct {
	entries, bytes       atomic.Int64
	maxEntries, maxBytes int64
}

func (a *account) reserve(entries, bytes int64) bool {
	if !add(&a.entries, entries, a.maxEntries) {
		return false
	}
	if !add(&a.bytes, bytes, a.maxBytes) {
		a.entries.Add(-entries)
		return false
	}
	return true
}

// add adds n unless that would pass most; giving back always succeeds.
func add(v *atomic.Int64, n, most int64) bool {
	if n == 0 {
		return true // most rewrites have the old one's size
	}
	for {
		old := v.Load()
		if n > 0 && old+n > most {
			return false
		}
		if v.CompareAndSwap(old, old+n) {
			return true
		}
	}
}

// reserve takes room for a record under key, in the store and, for a user
// session, in the sessions' part of it.
func (s *Store) reserve(key string, entries, bytes int64) bool {
	user := strings.HasPrefix(key, session.UserPrefix)
	if user && !s.users.reserve(entries, bytes) {
		return false
	}
	if !s.total.reserve(entries, bytes) {
		if user {
			s.users.reserve(-entries, -bytes)
		}
		return false
	}
	return true
}

func (s *Store) release(key string, entries, bytes int64) {
	s.reserve(key, -entries, -bytes)
}
