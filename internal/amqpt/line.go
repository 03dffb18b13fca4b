package amqpt

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/owtp-go/owtp/transport"
)

const (
	firstPause   = 50 * time.Millisecond // before a connection is restored
	longestPause = 3 * time.Second
)

// A connected is a session with what was set up on it.
type connected interface {
	comparable
	done() <-chan struct{}
	err() error
	close()
}

// A line is a way to the broker that is restored when it breaks: one session
// after the other. Its methods are safe for concurrent use, but for keep.
type line[T connected] struct {
	purpose string
	open    func(context.Context) (T, error)
	waiting *waiters

	mu      sync.Mutex
	session T
	up      bool
	trouble error         // of the last attempt, while it is not up
	changed chan struct{} // closed when it is up, or never will be again
	ended   bool
}

func newLine[T connected](purpose string, w *waiters, open func(context.Context) (T, error)) *line[T] {
	return &line[T]{purpose: purpose, open: open, waiting: w, changed: make(chan struct{})}
}

// start opens the first session.
func (l *line[T]) start(ctx context.Context) error {
	s, err := l.open(ctx)
	if err != nil {
		return err
	}
	l.set(s)
	return nil
}

// keep restores the session until ctx ends, and then closes it. start has
// succeeded before.
func (l *line[T]) keep(ctx context.Context, e *endpoint) {
	for {
		s := l.session // nobody else changes it
		select {
		case <-s.done():
		case <-ctx.Done():
		}
		l.down(s)
		s.close()
		if ctx.Err() != nil {
			l.end()
			return
		}
		e.log.Warn("owtp: connection to the broker lost", "broker", e.at.String(), "for", l.purpose, "error", s.err())
		began := time.Now()
		if !l.restore(ctx, e) {
			l.end()
			return
		}
		e.log.Warn("owtp: connection to the broker restored", "broker", e.at.String(), "for", l.purpose, "after", time.Since(began))
	}
}

// restore tries until it succeeds or ctx ends. The first attempts follow each
// other quickly, since a connection that was cut is there again at once.
func (l *line[T]) restore(ctx context.Context, e *endpoint) bool {
	told := ""
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			return false
		}
		s, err := l.open(ctx)
		if err == nil {
			l.set(s)
			return true
		}
		l.mu.Lock()
		l.trouble = err
		l.mu.Unlock()
		if text := err.Error(); text != told && ctx.Err() == nil { // a broker that is away for a day is news once
			told = text
			e.log.Warn("owtp: connection to the broker cannot be restored yet", "broker", e.at.String(), "for", l.purpose, "error", err)
		}
	}
}

func (l *line[T]) set(s T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session, l.up, l.trouble = s, true, nil
	close(l.changed)
}

// down is called by keep, or before that by who finds that the session has ended.
func (l *line[T]) down(s T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.up || l.session != s {
		return
	}
	l.up, l.changed = false, make(chan struct{})
	select {
	case <-s.done():
		l.trouble = s.err()
	default:
	}
}

// end tells those who wait that there will be no session any more.
func (l *line[T]) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	close(l.changed)
}

// now returns the session if there is one.
func (l *line[T]) now() (s T, ok bool) {
	l.mu.Lock()
	s, ok = l.session, l.up
	l.mu.Unlock()
	if !ok {
		return s, false
	}
	select {
	case <-s.done():
		l.down(s)
		return s, false
	default:
		return s, true
	}
}

// get returns the session, and waits while it is being restored: until ctx ends
// or closing is closed, and for patience at most. Errors satisfy ErrNotSent.
func (l *line[T]) get(ctx context.Context, closing <-chan struct{}, patience time.Duration) (T, error) {
	s, ok := l.now()
	if ok {
		return s, nil
	}
	leave, err := l.waiting.enter()
	if err != nil {
		return s, err
	}
	defer leave()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		l.mu.Lock()
		s, up, ended, changed, trouble := l.session, l.up, l.ended, l.changed, l.trouble
		l.mu.Unlock()
		switch {
		case ended:
			return s, transport.NotSent(net.ErrClosed)
		case up:
			return s, nil
		}
		select {
		case <-changed:
		case <-closing:
			return s, transport.NotSent(net.ErrClosed)
		case <-timer.C:
			return s, transport.NotSent(fmt.Errorf("owtp: no connection to the broker: %w", trouble))
		case <-ctx.Done():
			return s, transport.NotSent(fmt.Errorf("owtp: no connection to the broker (%w): %w", trouble, context.Cause(ctx)))
		}
	}
}
