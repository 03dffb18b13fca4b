// Package loglimit bounds what others can make a program log: a flood must not
// fill a disk, nor hide one line behind ten thousand of another kind.
package loglimit

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// Burst is how many lines of one kind are logged at once. It shows what
	// happens, from where and how often.
	Burst = 64
	// Pause is after how long one more is logged: with 300 bytes a line, less
	// than 3 MB of one kind a day.
	Pause = 10 * time.Second
	// maxKinds bounds the kinds that are told apart. Further ones share an
	// allowance.
	maxKinds = 256
	// Dropped is the attribute that says how many lines of its kind were left
	// out before one.
	Dropped = "dropped"
)

// New returns a handler that passes on to h what is within the allowance of its
// kind. Lines with the same message are of one kind, whatever their attributes;
// so a message must be constant. Handlers and loggers derived from the result
// share its allowances.
func New(h slog.Handler) slog.Handler { return newAt(h, time.Now) }

func newAt(h slog.Handler, now func() time.Time) slog.Handler {
	return &handler{next: h, kinds: &kinds{now: now, of: make(map[string]*kind)}}
}

type handler struct {
	next  slog.Handler
	kinds *kinds
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	dropped, ok := h.kinds.pass(r.Message)
	if !ok {
		return nil
	}
	if dropped > 0 {
		r = r.Clone() // the caller's attributes are not ours to append to
		r.AddAttrs(slog.Int(Dropped, dropped))
	}
	return h.next.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{next: h.next.WithAttrs(attrs), kinds: h.kinds}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{next: h.next.WithGroup(name), kinds: h.kinds}
}

type kinds struct {
	now func() time.Time

	mu sync.Mutex
	of map[string]*kind // by message; "" for those that are too many
}

// A kind has used its allowance up when full lies more than Burst-1 pauses
// ahead.
type kind struct {
	full    time.Time // when the allowance is whole again
	dropped int
}

// pass takes one line from a kind's allowance. It returns how many were dropped
// since the last one that passed.
func (k *kinds) pass(message string) (dropped int, ok bool) {
	now := k.now()
	k.mu.Lock()
	defer k.mu.Unlock()
	one := k.of[message]
	if one == nil && len(k.of) >= maxKinds {
		message = ""
		one = k.of[message]
	}
	if one == nil {
		one = new(kind)
		k.of[message] = one
	}
	if one.full.Before(now) {
		one.full = now
	}
	if one.full.Sub(now) > (Burst-1)*Pause {
		one.dropped++
		return 0, false
	}
	one.full = one.full.Add(Pause)
	dropped, one.dropped = one.dropped, 0
	return dropped, true
}
