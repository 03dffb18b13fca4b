// Package memcache keeps user sessions in memcached, and in what speaks its text
// protocol. It is registered under the name "memcache":
//
//	import _ "github.com/owtp-go/owtp/contrib/memcache"
//
//	m, err := owtp.NewSessionManager("memcache", &session.ManagerConfig{
//		ProviderConfig: "10.0.0.1:11211,10.0.0.2:11211",
//	})
//
// memcached is a cache: it forgets records when it needs their room, and all of
// them when it ends. So it keeps user sessions only, which end early then. A
// node that is given it for its own state refuses it, and it cannot list, so
// that a manager's All, Count and Flush are errors.
//
// # Servers
//
// Several servers share the records: each key belongs to one of them, whichever
// order they are given in, and one that is added or removed moves its own share
// and no other. All replicas name the same ones. A server that is away makes the
// operations on its share fail; there are no copies.
//
// memcached asks nobody who he is: whoever reaches it can read, delete and put
// back records. Sessions are sealed, so that nothing can be read or forged, but
// a copy of a session's earlier state can be put back. Keep it in a network of
// its own.
//
// # Time
//
// memcached counts in seconds, and its second may have begun: a time to live is
// rounded up to whole seconds, and one more. Record.TTL is what the clock of the
// process that wrote says; a manager goes by it when it moves a session's expiry,
// so that clocks may differ by a small part of Maxlifetime. Times of more than
// thirty days go by the client's clock altogether, and end in 2038 at the latest.
package memcache

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/owtp-go/owtp/session"
)

func init() { session.Register("memcache", Open) }

// A Store is a [session.Provider] in memcached. All methods are safe for
// concurrent use. At most PoolSize of them talk to servers at one time, each
// over a connection of its own, and the others wait as long as their contexts
// last. It starts no goroutines.
type Store struct {
	o       Options
	servers servers
	slots   []*slot
	tokens  chan struct{} // one for each slot that nobody uses
	closing chan struct{}
	once    sync.Once
	life    lives

	mu   sync.Mutex
	free []*slot // what was used last is used first: few connections where few are needed
}

var _ session.Provider = (*Store)(nil)

// New connects to the servers. It fails if one does not answer, or answers as
// something else than memcached.
func New(ctx context.Context, o Options) (*Store, error) {
	o, err := o.checked()
	if err != nil {
		return nil, err
	}
	s := &Store{o: o, tokens: make(chan struct{}, o.PoolSize), closing: make(chan struct{})}
	for _, address := range o.Servers {
		s.servers = append(s.servers, newServer(address))
	}
	for range o.PoolSize {
		c := newSlot(s)
		s.slots = append(s.slots, c)
		s.release(c)
	}
	if err := s.do(ctx, func(c *slot) error { return c.client.Ping() }); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Traits implements [session.Provider].
func (s *Store) Traits() session.Traits {
	return session.Traits{
		Name: "memcache", Shared: true, MayEvict: true,
		Evicts:   "memcached is a cache, which forgets what it has no room for and everything when it restarts; use file, redis, mysql or postgres",
		MaxValue: s.o.MaxValue,
	}
}

// List returns [errors.ErrUnsupported]: memcached cannot list.
func (s *Store) List(ctx context.Context, _, _ string, limit int) ([]string, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("memcache: listing: %w", errors.ErrUnsupported)
}

// Sweep does nothing: memcached removes what has expired.
func (s *Store) Sweep(ctx context.Context, _ int) (int, error) { return 0, s.ready(ctx) }

func (s *Store) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-s.closing:
		return session.ErrClosed
	default:
		return nil
	}
}

// Close ends the operations that are under way and closes the connections.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.closing)
		for _, c := range s.slots {
			c.interrupt()
		}
		for range s.slots {
			<-s.tokens // each comes back as soon as its slot was interrupted
		}
		for _, c := range s.slots {
			c.client.Close()
		}
	})
	return nil
}
