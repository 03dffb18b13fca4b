package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/owtp-go/owtp/session"
)

// failed says what could not be done, in terms of [session.Provider] where it
// has one. The driver's errors name addresses and never a password.
func (s *Store) failed(ctx context.Context, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case ended(ctx, err) != nil:
		// The driver watches the clock by itself and says "i/o timeout".
		return fmt.Errorf("redis: %s: %w (%v)", what, ended(ctx, err), err)
	case errors.Is(err, redis.ErrClosed) && s.closed.Load():
		return session.ErrClosed
	case redis.HasErrorPrefix(err, "OOM"):
		return fmt.Errorf("redis: %s: %w: %v (raise maxmemory)", what, session.ErrFull, err)
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		return corrupt("%v", err)
	default:
		return fmt.Errorf("redis: %s: %w", what, err)
	}
}

// ended returns the context's error if that is why err happened.
func ended(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	var timeout net.Error
	if end, ok := ctx.Deadline(); ok && errors.As(err, &timeout) && timeout.Timeout() && !time.Now().Before(end) {
		return context.DeadlineExceeded
	}
	return nil
}
