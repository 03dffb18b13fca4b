package session

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrUnavailable says that a store did not answer in time, or is not asked
// because it did not answer others. A node answers 503. After it, a writing
// operation may have been carried out or may be still.
var ErrUnavailable = errors.New("session: the store does not answer")

// ErrNotAsked is the [ErrUnavailable] of an operation that was not begun:
// nothing has been written, and nothing will be.
var ErrNotAsked = fmt.Errorf("%w and is not asked", ErrUnavailable)

const (
	// DefaultStoreTimeout is how long one operation of a store may take unless
	// the configuration says otherwise: a store in the same network answers
	// within milliseconds, and fails over within a second or is away.
	DefaultStoreTimeout = 2 * time.Second

	// A pass over the whole store may take so many times as long.
	passFactor = 15
)

// Bounded returns p with every operation bounded in time and in number, as a
// [Manager] and a node use it: one that takes longer than timeout (0 means
// [DefaultStoreTimeout]) ends with [ErrUnavailable]; after five such in a row
// the others fail at once, except one at a time that finds out whether the
// store is back. List and Sweep, which may pass over the whole store, have
// fifteen times as long. p must heed its contexts.
//
// A store that lives in this process's memory, which is neither Shared nor
// Durable, is returned as it is.
func Bounded(p Provider, timeout time.Duration) Provider {
	if t := p.Traits(); !t.Shared && !t.Durable {
		return p
	}
	if timeout <= 0 {
		timeout = DefaultStoreTimeout
	}
	return &bounded{Provider: p, timeout: timeout}
}

type bounded struct {
	Provider
	timeout time.Duration
	breaker breaker
}

// answers are errors that a store that works returns.
var answers = []error{ErrNotFound, ErrFull, ErrKey, ErrTooLarge, ErrTTL, ErrClosed, errors.ErrUnsupported}

func judge(err error) outcome {
	if err == nil {
		return answered
	}
	for _, a := range answers {
		if errors.Is(err, a) {
			return answered
		}
	}
	return nothing
}

// ask runs one operation.
func (b *bounded) ask(ctx context.Context, op func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t, err := b.breaker.enter()
	if err != nil {
		return err
	}
	o := nothing
	defer func() { b.breaker.leave(t, o) }()
	own, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	err = op(own)
	if o = judge(err); o == nothing && ctx.Err() == nil && own.Err() != nil {
		o = silent
		// Not the context's error: no deadline of the caller's has passed.
		return fmt.Errorf("%w within %v: %v", ErrUnavailable, b.timeout, err)
	}
	return err
}

// pass runs an operation that may visit every record. It neither opens nor
// closes the breaker.
func (b *bounded) pass(ctx context.Context, op func(context.Context) error) error {
	if err := b.breaker.broken(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, passFactor*b.timeout)
	defer cancel()
	return op(ctx)
}

func (b *bounded) Get(ctx context.Context, key string) (rec Record, err error) {
	err = b.ask(ctx, func(ctx context.Context) (err error) {
		rec, err = b.Provider.Get(ctx, key)
		return err
	})
	return rec, err
}

func (b *bounded) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return b.ask(ctx, func(ctx context.Context) error { return b.Provider.Put(ctx, key, value, ttl) })
}

func (b *bounded) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (version uint64, err error) {
	err = b.ask(ctx, func(ctx context.Context) (err error) {
		version, err = b.Provider.PutIfAbsent(ctx, key, value, ttl)
		return err
	})
	return version, err
}

func (b *bounded) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (newVersion uint64, err error) {
	err = b.ask(ctx, func(ctx context.Context) (err error) {
		newVersion, err = b.Provider.CompareAndSwap(ctx, key, version, value, ttl)
		return err
	})
	return newVersion, err
}

func (b *bounded) Touch(ctx context.Context, key string, version uint64, ttl time.Duration) (there bool, err error) {
	err = b.ask(ctx, func(ctx context.Context) (err error) {
		there, err = b.Provider.Touch(ctx, key, version, ttl)
		return err
	})
	return there, err
}

func (b *bounded) Delete(ctx context.Context, key string) error {
	return b.ask(ctx, func(ctx context.Context) error { return b.Provider.Delete(ctx, key) })
}

func (b *bounded) List(ctx context.Context, prefix, after string, limit int) (keys []string, err error) {
	err = b.pass(ctx, func(ctx context.Context) (err error) {
		keys, err = b.Provider.List(ctx, prefix, after, limit)
		return err
	})
	return keys, err
}

func (b *bounded) Sweep(ctx context.Context, max int) (removed int, err error) {
	err = b.pass(ctx, func(ctx context.Context) (err error) {
		removed, err = b.Provider.Sweep(ctx, max)
		return err
	})
	return removed, err
}
