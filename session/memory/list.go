package memory

import (
	"context"
	"slices"
	"strings"

	"github.com/owtp-go/owtp/session"
)

// List implements [session.Provider]. It looks at every key, one shard after the
// other, and keeps twice the page at most.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	if err := session.CheckLimit(limit); err != nil {
		return nil, err
	}
	p := page{prefix: prefix, after: after, limit: limit}
	for i := range s.shards {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sh := &s.shards[i]
		sh.mu.RLock()
		now := s.clock.now()
		for key, e := range sh.entries {
			if !e.expired(now) {
				p.offer(key)
			}
		}
		sh.mu.RUnlock()
	}
	p.trim()
	return p.keys, nil
}

// page collects the lowest keys of those offered.
type page struct {
	prefix, after string
	limit         int
	keys          []string
	full          bool
	highest       string // once full, keys from here on are of no use
}

func (p *page) offer(key string) {
	if key <= p.after || !strings.HasPrefix(key, p.prefix) || p.full && key >= p.highest {
		return
	}
	p.keys = append(p.keys, key)
	if len(p.keys) >= 2*p.limit {
		p.trim()
	}
}

func (p *page) trim() {
	slices.Sort(p.keys)
	if len(p.keys) >= p.limit {
		p.keys = p.keys[:p.limit]
		p.full, p.highest = true, p.keys[p.limit-1]
	}
}
