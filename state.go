package owtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

// A state is what a node itself must remember: bindings of aliases, agreed
// sessions, call records and the epoch. All of it lies in one store under keys
// that begin with "n/" and the node's ID, where no session manager reaches, and
// is sealed at rest for its place (PROTOCOL §7).
type state struct {
	store   session.Provider // every operation of it is bounded
	shared  bool             // other replicas may read and write the same
	forgets bool             // what is in it does not outlive the process
	born    time.Time
	owned   bool // closed with the node
	vault   *secure.Vault
	rand    io.Reader
	now     func() time.Time
	own     identity.ID
	base    string // prefix of all keys

	named       *named
	maxSessions int // of one peer
	maxAgreed   int // of all
	// callRoom is how many call records there are at most at one time, with
	// further attempts, so that the rest of the state has room beside them.
	callRoom int

	calls callStore

	epochs cachedEpoch

	mu        sync.Mutex
	sessions  map[string]*heldSession  // by session ID
	halfOpen  map[string]struct{}      // of these, the ones whose initiator is not proved
	byPeer    map[identity.ID][]string // of these, the others
	agreed    int                      // how many byPeer has
	questions map[string]*question     // to the store, by session ID
}

const (
	purposeBinding = "binding"
	purposeSession = "session"
	purposeCall    = "call"
	purposeEpoch   = "epoch"

	// maxRecords and maxStateBytes bound the memory of a node's own state
	// where no store is given, beside the answers that are kept and ownCallRoom
	// records of calls. These have some 300 bytes each, for a call's deadline
	// and two windows: 13,600 recorded calls a second in 512 MB.
	maxRecords    = 1 << 22
	maxStateBytes = 128 << 20
	ownCallRoom   = 1664 << 10
	// givenCallRoom is the same for a store of the program's, which has a
	// memory store's default at least. What it takes itself comes first.
	givenCallRoom = 1 << 20
	// maxAlias keeps a binding's key within every store's bound.
	maxAlias = 255
	// cacheAge is how long a shared store's facts are believed without asking
	// again: what one replica ends is dead on all within it.
	cacheAge = 2 * time.Second
)

func newState(cfg *NodeConfig, names *named, rand io.Reader, now func() time.Time) (*state, error) {
	vault, err := secure.NewVault(cfg.StoreKey, cfg.PreviousStoreKey, cfg.Cert.key.ID())
	if err != nil {
		return nil, err
	}
	st := &state{
		store: cfg.Store, vault: vault, rand: rand, now: now, own: cfg.Cert.key.ID(), named: names, maxSessions: cfg.Limits.MaxSessions, maxAgreed: maxAgreed, callRoom: givenCallRoom,
		base: session.NodePrefix + cfg.Cert.ID() + "/", sessions: make(map[string]*heldSession), halfOpen: make(map[string]struct{}), byPeer: make(map[identity.ID][]string),
		questions: make(map[string]*question),
	}
	if st.store == nil {
		if m, ok := cfg.Peerstore.(*SessionManager); ok && m != nil && m.Provider().Traits().Lists && !m.Provider().Traits().MayEvict {
			st.store = m.Provider()
		}
	}
	if st.store == nil {
		if st.store, err = memory.New(memory.Options{MaxEntries: maxRecords, MaxBytes: maxStateBytes, MaxSessions: 1}); err != nil {
			return nil, err
		}
		st.owned, st.callRoom, st.calls = true, ownCallRoom, newOwnCalls()
	} else {
		st.calls = sealedCalls{st}
	}
	if t := st.store.Traits(); t.MayEvict {
		why := t.Evicts
		if why == "" {
			why = "use another store, or configure it not to evict"
		}
		return nil, fmt.Errorf("owtp: store %q may evict records and cannot keep a node's state: a forgotten call record would let a call run twice. It can be a Peerstore; as Store: %s", t.Name, why)
	}
	st.shared, st.born = st.store.Traits().Shared, now()
	st.forgets = !st.shared && !st.store.Traits().Durable
	st.epochs.stale = setBackWhileClosed(st.store.Traits(), now())
	st.store = session.Bounded(st.store, cfg.Limits.StoreTimeout)
	return st, nil
}

// setBackWhileClosed reports whether a durable store may have let records expire
// whose packets would be fresh again, because the wall clock was set back when no
// process watched it. A store that cannot tell has to be taken for one that has.
func setBackWhileClosed(t session.Traits, now time.Time) bool {
	return t.Durable && !t.Shared && (t.LastUsed.IsZero() || now.Before(t.LastUsed.Add(-clockSlack)))
}

func (st *state) close() {
	st.vault.Erase()
	if st.owned {
		st.store.Close()
	}
}

// A stored value is what lies under a key, opened.
type stored struct {
	value   []byte
	version uint64
	ttl     time.Duration // what is left of it; 0: it never expires
	stale   bool          // sealed under the previous key
}

func (st *state) get(ctx context.Context, purpose, key string) (stored, error) {
	rec, err := st.store.Get(ctx, key)
	if err != nil {
		return stored{}, err
	}
	value, stale, err := st.vault.Open(purpose, key, rec.Value)
	if err != nil {
		return stored{}, fmt.Errorf("%w: purpose %s", err, purpose)
	}
	return stored{value, rec.Version, rec.TTL, stale}, nil
}

// insert stores a sealed value if there is none, and returns its version or 0.
// Once begun it does not end with its caller: who hangs up in the middle must
// not leave behind what nobody knows to be there. The store's timeout bounds it.
func (st *state) insert(ctx context.Context, purpose, key string, value []byte, ttl time.Duration) (uint64, error) {
	sealed, err := st.vault.Seal(st.rand, purpose, key, value)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, notWritten{err}
	}
	return st.store.PutIfAbsent(context.WithoutCancel(ctx), key, sealed, ttl)
}

// notWritten is an error before the store was asked.
type notWritten struct{ error }

func (e notWritten) Unwrap() error { return e.error }

// maybeWritten reports whether a store that returned err to a writing operation
// may have carried it out, or may do so yet.
func maybeWritten(err error) bool {
	for _, is := range []error{session.ErrFull, session.ErrTooLarge, session.ErrKey, session.ErrTTL, session.ErrClosed, session.ErrNotAsked} {
		if errors.Is(err, is) {
			return false
		}
	}
	return err != nil && !errors.As(err, new(notWritten))
}

// swap replaces the value of that version, and returns the new version or 0. As
// insert, it does not end with its caller.
func (st *state) swap(ctx context.Context, purpose, key string, version uint64, value []byte, ttl time.Duration) (uint64, error) {
	sealed, err := st.vault.Seal(st.rand, purpose, key, value)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, notWritten{err}
	}
	return st.store.CompareAndSwap(context.WithoutCancel(ctx), key, version, sealed, max(ttl, time.Millisecond))
}

// cachedEpoch is the store's epoch as last seen.
type cachedEpoch struct {
	mu   sync.Mutex
	seen time.Time
	is   wire.Nonce

	// ahead is the most that the wall clock was ahead of the monotonic one.
	ahead time.Duration
	began time.Time
	stale bool // the clock was set back and the epoch is not replaced yet
}

// clockSlack is how far the wall clock may step back before a private store
// begins a new epoch. Records are kept for as much longer, so that a packet
// whose time comes again still finds its record.
const clockSlack = 5 * time.Second

// steppedBack reports whether the wall clock has been set back by more than the
// slack. Records expire by the monotonic clock; packets are judged by the wall
// clock, and what was too old an hour ago must not be fresh again.
func (c *cachedEpoch) steppedBack(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.began.IsZero() {
		c.began = time.Now()
	}
	ahead := time.Duration(now.UnixNano()) - time.Since(c.began)
	if c.ahead == 0 || ahead > c.ahead {
		c.ahead = ahead
	}
	if c.ahead-ahead > clockSlack {
		c.ahead, c.stale = ahead, true
	}
	return c.stale
}

// epoch returns the store's epoch and makes one if there is none
// (PROTOCOL §8).
func (st *state) epoch(ctx context.Context) (wire.Nonce, error) {
	c := &st.epochs
	if !st.shared && c.steppedBack(st.now()) {
		if err := st.store.Delete(ctx, st.base+"epoch"); err != nil {
			return wire.Nonce{}, err
		}
		c.mu.Lock()
		c.seen, c.stale = time.Time{}, false
		c.mu.Unlock()
	}
	c.mu.Lock()
	is, fresh := c.is, !c.seen.IsZero() && (!st.shared || st.now().Sub(c.seen) < cacheAge)
	c.mu.Unlock()
	if fresh {
		return is, nil
	}
	return st.readEpoch(ctx)
}

// readEpoch asks the store, whatever is remembered of it.
func (st *state) readEpoch(ctx context.Context) (wire.Nonce, error) {
	c := &st.epochs
	key := st.base + "epoch"
	got, err := st.get(ctx, purposeEpoch, key)
	if errors.Is(err, session.ErrNotFound) {
		var drawn wire.Nonce
		if _, err := io.ReadFull(st.rand, drawn[:]); err != nil {
			return drawn, err
		}
		// Of several that find none, one wins, and all read what is there then.
		if _, err := st.insert(ctx, purposeEpoch, key, drawn[:], 0); err != nil {
			return drawn, err
		}
		got, err = st.get(ctx, purposeEpoch, key)
	}
	if err != nil {
		return wire.Nonce{}, err
	}
	if len(got.value) != len(wire.Nonce{}) {
		return wire.Nonce{}, secure.ErrRecord
	}
	is := wire.Nonce(got.value)
	c.mu.Lock()
	c.is, c.seen = is, st.now()
	c.mu.Unlock()
	return is, nil
}

// binding returns the ID that an alias is bound to, or the zero ID.
func (st *state) binding(ctx context.Context, alias string) (identity.ID, error) {
	got, err := st.get(ctx, purposeBinding, st.bindKey(alias))
	if errors.Is(err, session.ErrNotFound) {
		return identity.ID{}, nil
	}
	if err != nil {
		return identity.ID{}, err
	}
	if len(got.value) != identity.IDSize {
		return identity.ID{}, secure.ErrRecord
	}
	return identity.ID(got.value), nil
}

// bind binds an alias unless it is bound, and returns what it is bound to then.
func (st *state) bind(ctx context.Context, alias string, id identity.ID) (bound identity.ID, first bool, err error) {
	version, err := st.insert(ctx, purposeBinding, st.bindKey(alias), id[:], 0)
	if err != nil || version != 0 {
		return id, version != 0, err
	}
	bound, err = st.binding(ctx, alias)
	return bound, false, err
}

// bindKey escapes the alias: a store sees nothing that somebody else chose.
func (st *state) bindKey(alias string) string { return st.base + "bind/" + session.EscapeKey(alias) }

func (st *state) forget(ctx context.Context, alias string) error {
	return st.store.Delete(ctx, st.bindKey(alias))
}

// bindings returns all bound aliases.
func (st *state) bindings(ctx context.Context) (map[string]identity.ID, error) {
	prefix := st.base + "bind/"
	all := make(map[string]identity.ID)
	for after := ""; ; {
		keys, err := st.store.List(ctx, prefix, after, 1000)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			alias, err := session.UnescapeKey(k[len(prefix):])
			if err != nil {
				return nil, err
			}
			id, err := st.binding(ctx, alias)
			if err != nil {
				return nil, err
			}
			if !id.IsZero() {
				all[alias] = id
			}
			after = k
		}
		if len(keys) == 0 {
			return all, nil
		}
	}
}
