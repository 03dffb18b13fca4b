package natskv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/owtp-go/owtp/session"
)

const (
	// listBatch is how many records are asked for at once. Only their headers come.
	listBatch = 1000

	// listPause is how long a batch may be silent before the server is asked
	// whether anything is still to come.
	listPause = 500 * time.Millisecond

	// listPatience is how long an abandoned pass stays on the server.
	listPatience = 30 * time.Second
)

// List implements [session.Provider]. It passes over the whole stream in the order
// in which its records were written: one that is written meanwhile moves to the end
// and is met there.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := session.CheckLimit(limit); err != nil {
		return nil, err
	}
	p := &page{prefix: prefix, after: after, limit: limit}
	if err := s.pass(ctx, p); err != nil {
		return nil, s.failed(ctx, "listing", err)
	}
	p.trim()
	return p.keys, nil
}

func (s *Store) pass(ctx context.Context, p *page) error {
	c, err := s.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckNonePolicy, HeadersOnly: true,
		InactiveThreshold: listPatience, MemoryStorage: true,
	})
	if err != nil {
		return err
	}
	defer s.forget(ctx, c.CachedInfo().Name)
	seen := uint64(0)
	for left := c.CachedInfo().NumPending; left > 0; {
		got, err := c.Fetch(int(min(left, listBatch)), jetstream.FetchMaxWait(listPause))
		if err != nil {
			return err
		}
		n := 0
		for m := range got.Messages() {
			n++
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			if seen++; meta.Sequence.Consumer != seen {
				return errors.New("a part of the list was lost on its way")
			}
			left = meta.NumPending
			if m.Headers().Get(headerDeleted) != "" {
				continue
			}
			key, err := s.keyOf(m.Subject())
			if err != nil {
				return err
			}
			p.offer(key)
		}
		if err := errors.Join(got.Error(), ctx.Err()); err != nil {
			return err
		}
		if n == 0 { // what was to come may have been removed
			info, err := c.Info(ctx)
			if err != nil {
				return err
			}
			if info.Delivered.Consumer != seen {
				return fmt.Errorf("%d records of the list were lost on their way", info.Delivered.Consumer-seen)
			}
			left = info.NumPending
		}
	}
	return nil
}

// forget removes a pass from the server, which does so by itself in half a minute.
func (s *Store) forget(ctx context.Context, consumer string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = s.stream.DeleteConsumer(ctx, consumer)
}

// A page keeps the smallest keys that fit it, without duplicates.
type page struct {
	prefix, after string
	limit         int
	keys          []string
	highest       string // once there are enough, keys beyond are of no use
}

func (p *page) offer(key string) {
	if key <= p.after || !strings.HasPrefix(key, p.prefix) || p.highest != "" && key > p.highest {
		return
	}
	p.keys = append(p.keys, key)
	if len(p.keys) >= 2*p.limit {
		p.trim()
	}
}

func (p *page) trim() {
	slices.Sort(p.keys)
	p.keys = slices.Compact(p.keys)
	if len(p.keys) >= p.limit {
		p.keys = p.keys[:p.limit]
		p.highest = p.keys[p.limit-1]
	}
}
