// Package atrest seals what is given to a store (docs/PROTOCOL.md §7.3). Each
// value is sealed for its place and its purpose: who owns the store reads
// nothing, changes nothing and moves nothing without being noticed. It has no
// I/O; randomness comes in.
package atrest

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"sync"
)

// KeySize is the size of a store key in bytes.
const KeySize = 32

var (
	// ErrRecord says that a stored record does not open: it was changed, moved,
	// written for another purpose or sealed under another key.
	ErrRecord = errors.New("stored record does not open")

	// ErrErased says that the secrets are gone. Zeros are a key that everybody
	// knows, so nothing may be sealed under them.
	ErrErased = errors.New("secrets were erased")
)

// Check says what is wrong with a key and the one before it; a nil previous is
// none. The errors begin with the name that configurations have for the field.
func Check(key, previous []byte) error {
	if err := check("StoreKey", key); err != nil {
		return err
	}
	if previous == nil {
		return nil
	}
	if err := check("PreviousStoreKey", previous); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(key, previous) == 1 {
		return errors.New("PreviousStoreKey is the key that seals already: set the other one, or nil if there is none")
	}
	return nil
}

func check(name string, key []byte) error {
	if len(key) != KeySize {
		return fmt.Errorf("%s has %d bytes; it must have %d", name, len(key), KeySize)
	}
	if subtle.ConstantTimeCompare(key, make([]byte, KeySize)) == 1 {
		return fmt.Errorf("%s is all zeros: it was never set, or erased", name)
	}
	return nil
}

// Keys seal under one key and open under two while keys are being changed. They
// are safe for concurrent use.
type Keys struct {
	owner string

	mu      sync.RWMutex // Erase waits for derivations, so that none sees half a key
	secrets [][KeySize]byte
}

// NewKeys returns the keys of an owner, who alone opens what they seal; it is
// part of the derivation and may be empty. previous may be nil. Both are copied.
func NewKeys(key, previous []byte, owner string) (*Keys, error) {
	if err := Check(key, previous); err != nil {
		return nil, err
	}
	k := &Keys{owner: owner, secrets: make([][KeySize]byte, 1, 2)}
	copy(k.secrets[0][:], key)
	if previous != nil {
		k.secrets = append(k.secrets, [KeySize]byte(previous))
	}
	return k, nil
}

// Equal reports whether both seal and open the same.
func (k *Keys) Equal(o *Keys) bool {
	if k == o {
		return true
	}
	a, b := k.digest(), o.digest()
	return k.owner == o.owner && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// digest stands for the secrets, so that no two locks are held at one time.
func (k *Keys) digest() [sha256.Size]byte {
	k.mu.RLock()
	defer k.mu.RUnlock()
	all := make([]byte, 0, 2*KeySize)
	for i := range k.secrets {
		all = append(all, k.secrets[i][:]...)
	}
	defer clear(all[:cap(all)])
	return sha256.Sum256(all)
}

// Erase forgets the secrets. What is asked of the keys afterwards is ErrErased.
func (k *Keys) Erase() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.secrets)
	k.secrets = nil
}

// Format keeps the secrets out of logs, whatever the verb.
func (k *Keys) Format(f fmt.State, _ rune) { io.WriteString(f, "store keys") }
