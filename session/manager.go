package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp/internal/atrest"
)

const (
	// plainTimeout bounds the methods that take no context: a caller who
	// cannot say how long to wait gets an answer while it may still matter.
	plainTimeout = 5 * time.Second

	// A session's expiry moves when an eighth of its lifetime has passed, so
	// that reading does not mean writing. It ends up to an eighth early.
	slideFraction = 8

	// flushWorkers delete at the same time in Flush: each waits for a disk or
	// a server most of its time.
	flushWorkers = 32

	sweepBatch = 1000 // records per call, so that Close never waits for long
)

// A Manager keeps user sessions in a [Provider], one for each peer ID. It is
// safe for concurrent use. It reads and writes keys under [UserPrefix] and its
// own SessionIDPrefix only; whatever else the provider keeps is out of reach of
// Flush and Destroy, and GC removes from there only what has expired anyway.
//
// Session gives the view with contexts and errors that new programs use. Get,
// GetString, Put, Delete and Destroy are the short forms: they wait five
// seconds for the store at most, and each call is a request of its own.
type Manager struct {
	p      Provider // every operation of it is bounded
	opened Provider // the same, as it was given
	owned  bool     // Close closes it
	cfg    *ManagerConfig
	prefix string
	now    func() time.Time

	keys     atomic.Pointer[atrest.Keys] // nil: none yet, or none ever
	ownKey   bool                        // keys are the manager's own and no node's
	unsealed bool                        // without keys, sessions are stored as they are

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu      sync.Mutex // orders running.Add before running.Wait, and changes of keys
	running sync.WaitGroup
}

// NewManager opens the store that is registered under name and returns a manager
// that closes it again. ctx bounds the opening. A nil cfg means all defaults.
func NewManager(ctx context.Context, name string, cfg *ManagerConfig) (*Manager, error) {
	p, err := Open(ctx, name, cfg)
	if err != nil {
		return nil, err
	}
	m, err := ManagerOf(p, cfg)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	m.owned = true
	return m, nil
}

// ManagerOf returns a manager over a store that the caller has opened and
// closes, after the manager.
func ManagerOf(p Provider, cfg *ManagerConfig) (*Manager, error) {
	if p == nil {
		return nil, errors.New("session: ManagerOf needs a provider")
	}
	checked, err := cfg.checked()
	if err != nil {
		return nil, err
	}
	if most := p.Traits().MaxValue; most > 0 && checked.MaxSessionBytes > most {
		return nil, fmt.Errorf("session: MaxSessionBytes is %d, provider %s takes values of %d bytes", checked.MaxSessionBytes, p.Traits().Name, most)
	}
	m := &Manager{p: Bounded(p, checked.StoreTimeout), opened: p, cfg: checked, prefix: userPrefix(checked.SessionIDPrefix), now: checked.Now}
	if m.now == nil {
		m.now = time.Now
	}
	if err := m.chooseKeys(); err != nil {
		return nil, err
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m, nil
}

// Format prints the store's kind and the prefix, whatever the verb: nothing of
// keys, of ProviderConfig and of what is stored.
func (m *Manager) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "session.Manager(%s, prefix %q)", m.p.Traits().Name, m.cfg.SessionIDPrefix)
}

// Provider returns the store, for state beside the user sessions: keep away
// from [UserPrefix] there, and do not close it.
func (m *Manager) Provider() Provider { return m.opened }

// Session returns a view of a peer's session for one request. The ID may be any
// string that is escaped to less than about 1000 bytes; the methods of the view
// return [ErrKey] for another.
func (m *Manager) Session(id string) *Session {
	key, err := userKey(m.prefix, id)
	return &Session{m: m, id: id, key: key, err: err}
}

// Get returns a field of a peer's session, or nil if there is none. It is nil as
// well if the store cannot answer, which is logged; where the difference
// matters, use Session.
func (m *Manager) Get(id, key string) any {
	ctx, cancel := m.plain()
	defer cancel()
	v, err := m.Session(id).Get(ctx, key)
	if err != nil {
		if !errors.Is(err, ErrNotFound) {
			m.cfg.Logger.Warn("session: a field cannot be read", "field", key, "err", err)
		}
		return nil
	}
	return v
}

// GetString is Get for strings: a field that is not a string is "".
func (m *Manager) GetString(id, key string) string {
	s, _ := m.Get(id, key).(string)
	return s
}

// Put is [Session.Set].
func (m *Manager) Put(id, key string, val any) error {
	ctx, cancel := m.plain()
	defer cancel()
	return m.Session(id).Set(ctx, key, val)
}

// Delete is [Session.Delete].
func (m *Manager) Delete(id, key string) error {
	ctx, cancel := m.plain()
	defer cancel()
	return m.Session(id).Delete(ctx, key)
}

// Destroy is [Session.Destroy].
func (m *Manager) Destroy(id string) error {
	ctx, cancel := m.plain()
	defer cancel()
	return m.Session(id).Destroy(ctx)
}

func (m *Manager) plain() (context.Context, context.CancelFunc) {
	return context.WithTimeout(m.ctx, plainTimeout)
}

// All returns the IDs of up to limit sessions that follow after, in ascending
// order of their escaped form; after = "" begins, and a page shorter than limit
// is the last. limit is 1 to [MaxListLimit]. It may cost a pass over the whole
// store. Where the provider cannot list, the error is [errors.ErrUnsupported].
func (m *Manager) All(ctx context.Context, after string, limit int) ([]string, error) {
	if after != "" {
		key, err := userKey(m.prefix, after)
		if err != nil {
			return nil, err
		}
		after = key
	}
	keys, err := m.page(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	for i, key := range keys {
		if keys[i], err = UnescapeKey(strings.TrimPrefix(key, m.prefix)); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func (m *Manager) page(ctx context.Context, after string, limit int) ([]string, error) {
	if m.ctx.Err() != nil {
		return nil, ErrClosed
	}
	return m.p.List(ctx, m.prefix, after, limit)
}

// Count returns the number of sessions. It costs as much as [Manager.All] for
// all of them.
func (m *Manager) Count(ctx context.Context) (int, error) {
	count := 0
	err := m.pages(ctx, func(keys []string) error { count += len(keys); return nil })
	return count, err
}

// Flush destroys every session of this manager's prefix that is there when it
// begins, and nothing else.
func (m *Manager) Flush(ctx context.Context) error {
	return m.pages(ctx, func(keys []string) error { return m.deleteAll(ctx, keys) })
}

// deleteAll deletes in several goroutines, which have ended when it returns.
func (m *Manager) deleteAll(ctx context.Context, keys []string) error {
	each, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers sync.WaitGroup
	var once sync.Once
	var first error
	for w := range flushWorkers {
		workers.Go(func() {
			for i := w; i < len(keys) && each.Err() == nil; i += flushWorkers {
				if err := m.p.Delete(each, keys[i]); err != nil {
					once.Do(func() { first = err })
					cancel()
				}
			}
		})
	}
	workers.Wait()
	return errors.Join(first, ctx.Err())
}

func (m *Manager) pages(ctx context.Context, visit func(keys []string) error) error {
	after := ""
	for {
		keys, err := m.page(ctx, after, MaxListLimit)
		if err != nil {
			return err
		}
		if err := visit(keys); err != nil || len(keys) < MaxListLimit {
			return err
		}
		after = keys[len(keys)-1]
	}
}

func (m *Manager) newLife() life {
	return newLife(m.now().UnixMilli(), m.cfg.AbsoluteLifetime*1000)
}

// ended reports whether a session is past its absolute end. The store expires
// it at about the same time; this is for the difference between clocks.
func (m *Manager) ended(l life) bool {
	return l.ends != 0 && m.now().UnixMilli() >= l.ends
}

// ttl is how long a session lives from now if nobody uses it. It is positive.
func (m *Manager) ttl(l life) time.Duration {
	idle := time.Duration(m.cfg.Maxlifetime) * time.Second
	if l.ends == 0 {
		return idle
	}
	left := time.Duration(l.ends-m.now().UnixMilli()) * time.Millisecond
	return max(min(idle, left), time.Millisecond)
}

// slide moves a session's expiry because it was used, and a session that is
// sealed under the previous key under the current one. A failure is only
// logged: the read has succeeded, and the next one tries again.
func (m *Manager) slide(ctx context.Context, key string, rec Record, stale bool, l life) {
	if stale {
		if err := m.reseal(ctx, key, rec, l); err != nil {
			m.cfg.Logger.Warn("session: a session was not sealed under the new key", "err", err)
		}
		return
	}
	want := m.ttl(l)
	step := time.Duration(m.cfg.Maxlifetime) * time.Second / slideFraction
	if rec.TTL != 0 && rec.TTL > want-step {
		return
	}
	if _, err := m.p.Touch(ctx, key, rec.Version, want); err != nil {
		m.cfg.Logger.Warn("session: a session's expiry was not moved", "err", err)
	}
}
