package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/owtp-go/owtp/internal/atrest"
)

const (
	// sealedFormat is the first octet of a session that is sealed for its key:
	// what opens is a record that begins with recordFormat.
	sealedFormat = 2

	// purposeUser keeps sessions apart from a node's own records, whichever key
	// both are sealed under. They have no owner but the manager: several nodes
	// in one process may share it (PROTOCOL.md §7.3).
	purposeUser = "user"

	sealOverhead = 1 + atrest.Overhead
)

var errNoKey = errors.New("session: the store lies outside this process and the manager has no key to seal sessions with: " +
	"set ManagerConfig.StoreKey (32 bytes, the same at all replicas), or give the manager to a node (NodeConfig.Peerstore, SetPeerstore), whose key it uses then; " +
	"ManagerConfig.InsecurePlaintext stores them readable")

var errOtherKey = errors.New("session: the manager seals sessions under the key of another node already: " +
	"set ManagerConfig.StoreKey, so that it has one of its own, or give all nodes the same StoreKey and PreviousStoreKey")

// UseStoreKey gives the manager the key that seals sessions, and with previous,
// unless it is nil, one that opens as well; both are copied. A node does it with
// its own keys for the manager that it is given. Nothing happens where the
// manager needs no key: ManagerConfig.StoreKey or InsecurePlaintext is set, or
// the store lies in this process. It is an error if it was given others before,
// since the two would not read each other's sessions.
func (m *Manager) UseStoreKey(key, previous []byte) error {
	if m.unsealed || m.ownKey {
		return nil
	}
	keys, err := atrest.NewKeys(key, previous, "")
	if err != nil {
		return fmt.Errorf("session: UseStoreKey: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch has := m.keys.Load(); {
	case m.ctx.Err() != nil:
		err = ErrClosed
	case has == nil:
		m.keys.Store(keys)
		return nil
	case !has.Equal(keys):
		err = errOtherKey
	}
	keys.Erase()
	return err
}

// chooseKeys decides what a new manager does: it seals under its own key, stores
// readable, or waits for a node's key.
func (m *Manager) chooseKeys() error {
	if m.cfg.StoreKey != nil {
		keys, err := atrest.NewKeys(m.cfg.StoreKey, m.cfg.PreviousStoreKey, "")
		m.cfg.eraseKeys()
		m.keys.Store(keys)
		m.ownKey = true
		return err
	}
	m.unsealed = m.cfg.InsecurePlaintext || !outside(m.p)
	if m.unsealed && outside(m.p) {
		m.cfg.Logger.Warn("session: InsecurePlaintext: whoever reads the store reads the sessions in it, and whoever writes there makes some", "provider", m.p.Traits().Name)
	}
	return nil
}

// outside reports whether somebody else than this process may read the store.
func outside(p Provider) bool {
	t := p.Traits()
	return t.Shared || t.Durable
}

// read returns the record of a session with the value opened. stale says that
// it is sealed under the previous key.
func (m *Manager) read(ctx context.Context, key string) (rec Record, stale bool, err error) {
	keys := m.keys.Load()
	if keys == nil && !m.unsealed {
		return Record{}, false, errNoKey
	}
	if rec, err = m.p.Get(ctx, key); err != nil {
		return Record{}, false, err
	}
	rec.Value, stale, err = open(keys, key, rec.Value)
	return rec, stale, err
}

// open opens what lies under a key. What is not sealed is refused where sessions
// are sealed: whoever owns the store could have written it.
func open(keys *atrest.Keys, key string, b []byte) (plain []byte, stale bool, err error) {
	sealed := len(b) > 0 && b[0] == sealedFormat
	switch {
	case keys == nil && sealed:
		return nil, false, fmt.Errorf("%w: it is sealed, and this manager has no key", ErrCorrupt)
	case keys == nil:
		return b, false, nil // parseLife looks at its format
	case len(b) > 0 && b[0] == recordFormat:
		return nil, false, fmt.Errorf("%w: it is not sealed, and this manager takes nothing that anybody could have written; destroy it", ErrCorrupt)
	case !sealed:
		_, _, err = parseLife(b)
		return nil, false, err
	}
	plain, stale, err = keys.Open(purposeUser, key, b[1:])
	switch {
	case errors.Is(err, atrest.ErrErased):
		err = ErrClosed
	case errors.Is(err, atrest.ErrRecord):
		err = fmt.Errorf("%w: %w; it was changed, moved, or sealed under a key that is neither StoreKey nor PreviousStoreKey", ErrCorrupt, err)
	}
	return plain, stale, err
}

// seal makes of an encoded session what is stored under the key.
func (m *Manager) seal(key string, plain []byte) ([]byte, error) {
	keys := m.keys.Load()
	switch {
	case keys == nil && m.unsealed:
		return plain, nil
	case keys == nil:
		return nil, errNoKey
	}
	out := append(make([]byte, 0, sealOverhead+len(plain)), sealedFormat)
	out, err := keys.Seal(out, rand.Reader, purposeUser, key, plain)
	if errors.Is(err, atrest.ErrErased) {
		return nil, ErrClosed
	}
	return out, err
}

// reseal seals a session that was used under the current key, with the expiry
// that its use gives it.
func (m *Manager) reseal(ctx context.Context, key string, rec Record, l life) error {
	value, err := m.seal(key, rec.Value)
	if err != nil {
		return err
	}
	// Where another writer was faster, it has sealed the session.
	_, err = m.p.CompareAndSwap(ctx, key, rec.Version, value, m.ttl(l))
	return err
}
