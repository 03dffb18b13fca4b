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
	own, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	var c *slot
	select {
	case c = <-s.free:
	case <-s.closing:
		return session.ErrClosed
	case <-own.Done():
		return s.ended(ctx)
	}
	err := c.run(own, op)
	s.free <- c
	if err == nil || settled(err) {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	if own.Err() != nil {
		return s.ended(ctx)
	}
	return fmt.Errorf("memcache: %w", err)
}

// ended is the error of an operation that took too long.
func (s *Store) ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
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

// run runs an operation under ctx.
func (c *slot) run(ctx context.Context, op func(c *slot) error) error {
	if now := c.s.life.Load(); c.life != now {
		c.client.Close()
		c.life = now
	}
	c.mu.Lock()
	c.ctx = ctx
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
	ctx, shut := c.ctx, c.shut
	c.mu.Unlock()
	if shut || ctx == nil {
		return nil, session.ErrClosed
	}
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
	} else if end, ok := ctx.Deadline(); ok && end.Before(t) {
		t = end
	}
	return n.Conn.SetDeadline(t)
}
