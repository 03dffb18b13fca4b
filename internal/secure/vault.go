package secure

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"sync"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/atrest"
	"github.com/owtp-go/owtp/internal/wire"
)

// StoreKeySize is the size of an operator's store key in bytes.
const StoreKeySize = atrest.KeySize

// ErrRecord says that a stored record does not open: it was changed, moved,
// written for another purpose or sealed under another key.
var ErrRecord = atrest.ErrRecord

// A Vault seals what a node gives to a store (docs/PROTOCOL.md §7.3) and marks
// the session IDs that it gives out. It is safe for concurrent use.
type Vault struct {
	records *atrest.Keys
	tags    *tagKeys
}

// tagKeys are the keys of session IDs: what marks new ones, and what is taken
// as well.
type tagKeys struct {
	mu   sync.RWMutex
	keys [][StoreKeySize]byte
}

// NewVault returns the vault of a node. storeKey has 32 bytes and seals;
// previous is nil, or the key before it, and opens as well.
func NewVault(storeKey, previous []byte, node identity.ID) (*Vault, error) {
	records, err := atrest.NewKeys(storeKey, previous, string(node[:]))
	if err != nil {
		return nil, err
	}
	keys, err := records.Derive(infoSessionTagKey)
	if err != nil {
		return nil, err
	}
	return &Vault{records, &tagKeys{keys: keys}}, nil
}

// DefaultStoreKey derives a store key from the private key, for a node whose
// operator gives none.
func DefaultStoreKey(key *identity.PrivateKey) ([]byte, error) {
	scalar := key.Bytes()
	defer clear(scalar)
	return hkdf.Key(sha256.New, scalar, nil, infoStoreKey, StoreKeySize)
}

// Seal seals value for the place key and the purpose.
func (v *Vault) Seal(rand io.Reader, purpose, key string, value []byte) ([]byte, error) {
	return v.records.Seal(nil, rand, purpose, key, value)
}

// Open opens what Seal sealed for the same place and purpose. stale says that
// it is sealed under the previous key.
func (v *Vault) Open(purpose, key string, record []byte) (value []byte, stale bool, err error) {
	return v.records.Open(purpose, key, record)
}

// NewSessionID draws a session ID: 16 random octets and 16 of their tag.
func (v *Vault) NewSessionID(rand io.Reader) ([]byte, error) {
	id := make([]byte, 16, wire.SessionIDSize)
	if _, err := io.ReadFull(rand, id); err != nil {
		return nil, err
	}
	v.tags.mu.RLock()
	defer v.tags.mu.RUnlock()
	if len(v.tags.keys) == 0 {
		return nil, ErrErased
	}
	return append(id, tag(&v.tags.keys[0], id)...), nil
}

// CheckSessionID reports whether this node's vault made the ID, so that an
// invented one costs no look-up.
func (v *Vault) CheckSessionID(id []byte) bool {
	if len(id) != wire.SessionIDSize {
		return false
	}
	v.tags.mu.RLock()
	defer v.tags.mu.RUnlock()
	made := 0
	for i := range v.tags.keys {
		made |= subtle.ConstantTimeCompare(tag(&v.tags.keys[i], id[:16]), id[16:])
	}
	return made == 1
}

func tag(key *[StoreKeySize]byte, id []byte) []byte {
	m := hmac.New(sha256.New, key[:])
	m.Write(id)
	return m.Sum(nil)[:wire.SessionIDSize-16]
}

// Erase forgets the keys: whoever uses the vault afterwards gets ErrErased.
func (v *Vault) Erase() {
	v.records.Erase()
	v.tags.mu.Lock()
	defer v.tags.mu.Unlock()
	clear(v.tags.keys)
	v.tags.keys = nil
}

// Format keeps the keys out of logs, whatever the verb and even if somebody
// prints a copy.
func (v Vault) Format(f fmt.State, _ rune) { io.WriteString(f, "Vault") }
