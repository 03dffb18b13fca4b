package memcache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	driver "github.com/bradfitz/gomemcache/memcache"

	"github.com/owtp-go/owtp/session"
)

// lives counts how often a connection has broken: the others are probably dead
// as well, and are dialled anew.
type lives struct{ atomic.Uint64 }

// A slot is the right to one operation at a time, with a client of its own that
// has one connection to each server. The driver knows no contexts: as nobody
// else uses the slot's connections, the operation's context governs them.
type slot struct {
	s      *Store
	client *driver.Client
	life   uint64 // of the connections

	mu   sync.Mutex
	ctx  context.Context // of the operation that is under way
	end  time.Time       // of its time; none of its waits is longer
	conn *conn           // that it uses
	shut bool
}

var past = time.Unix(1, 0)

func newSlot(s *Store) *slot {
	c := &slot{s: s, client: driver.NewFromSelector(s.servers)}
	c.client.Timeout, c.client.MaxIdleConns, c.client.DialContext = s.o.Timeout, 1, c.dial
	return c
}

// do runs an operation in a free slot. It returns when ctx ends, or after the
// timeout.
func (s *Store) do(ctx context.Context, op func(c *slot) error) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	end := time.Now().Add(s.o.Timeout)
	if first, ok := ctx.Deadline(); ok && first.Before(end) {
		end = first
	}
	c, err := s.take(ctx, end)
	if err != nil {
		return err
	}
	err = c.run(ctx, end, op)
	s.release(c)
	if err == nil || settled(err) {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	if !time.Now().Before(end) {
		return s.ended(ctx)
	}
	return fmt.Errorf("memcache: %w", err)
}

// take waits for a free slot.
func (s *Store) take(ctx context.Context, end time.Time) (*slot, error) {
	select {
	case <-s.tokens:
		return s.pop(), nil
	default:
	}
	patience := time.NewTimer(time.Until(end))
	defer patience.Stop()
	select {
	case <-s.tokens:
		return s.pop(), nil
	case <-s.closing:
		return nil, session.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-patience.C:
		return nil, s.ended(ctx)
	}
}

func (s *Store) pop() *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return c
}

func (s *Store) release(c *slot) {
	s.mu.Lock()
	s.free = append(s.free, c)
	s.mu.Unlock()
	s.tokens <- struct{}{}
}

// ended is the error of an operation that took too long.
func (s *Store) ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
		return context.DeadlineExceeded
	}
	return fmt.Errorf("memcache: no answer within %v: %w", s.o.Timeout, context.DeadlineExceeded)
}

// settled are errors that are answers; the connection is as good as before.
func settled(err error) bool {
	for _, e := range []error{
		driver.ErrCacheMiss, driver.ErrCASConflict, driver.ErrNotStored,
		session.ErrNotFound, session.ErrCorrupt,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// run runs an operation under ctx, until end at the latest.
func (c *slot) run(ctx context.Context, end time.Time, op func(c *slot) error) error {
	if now := c.s.life.Load(); c.life != now {
		c.client.Close()
		c.life = now
	}
	c.mu.Lock()
	c.ctx, c.end = ctx, end
	c.mu.Unlock()
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.interruptConn()
		close(interrupted)
	})
	err := op(c)
	if !stop() {
		<-interrupted // it must not meet the next operation
	}
	c.mu.Lock()
	c.ctx, c.conn = nil, nil
	c.mu.Unlock()
	if err != nil && !settled(err) {
		c.s.life.Add(1)
	}
	return err
}

// interrupt ends what is under way for good.
func (c *slot) interrupt() {
	c.mu.Lock()
	c.shut = true
	c.mu.Unlock()
	c.interruptConn()
}

func (c *slot) interruptConn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Conn.SetDeadline(past)
	}
}

func (c *slot) dial(_ context.Context, network, address string) (net.Conn, error) {
	c.mu.Lock()
	ctx, end, shut := c.ctx, c.end, c.shut
	c.mu.Unlock()
	if shut || ctx == nil {
		return nil, session.ErrClosed
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: nc, slot: c}, nil
}

// A conn is a slot's connection. The driver sets its deadline each time that it
// begins to use it and whenever something has come; none is later than the end
// of the operation.
type conn struct {
	net.Conn
	slot *slot
}

func (n *conn) SetDeadline(t time.Time) error {
	n.slot.mu.Lock()
	defer n.slot.mu.Unlock()
	n.slot.conn = n
	ctx := n.slot.ctx
	if n.slot.shut || ctx == nil || ctx.Err() != nil {
		t = past
	} else if n.slot.end.Before(t) {
		t = n.slot.end
	}
	return n.Conn.SetDeadline(t)
}
