package secure

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
)

// StoreKeySize is the size of an operator's store key in bytes.
const StoreKeySize = 32

// ErrRecord says that a stored record does not open: it was changed, moved,
// written for another purpose or sealed under another key.
var ErrRecord = errors.New("stored record does not open")

// A Vault seals what a node gives to a store (docs/PROTOCOL.md §7.3). It is
// safe for concurrent use.
type Vault struct {
	key    [StoreKeySize]byte
	tagKey [StoreKeySize]byte
	node   identity.ID
}

// NewVault returns the vault of a node. storeKey has 32 bytes.
func NewVault(storeKey []byte, node identity.ID) (*Vault, error) {
	if len(storeKey) != StoreKeySize {
		return nil, fmt.Errorf("store key has %d bytes, want %d", len(storeKey), StoreKeySize)
	}
	if [StoreKeySize]byte(storeKey) == ([StoreKeySize]byte{}) {
		return nil, errors.New("store key is all zeros: it was never set, or erased")
	}
	v := &Vault{node: node}
	copy(v.key[:], storeKey)
	tag, err := hkdf.Key(sha256.New, storeKey, nil, infoSessionTagKey+string(node[:]), len(v.tagKey))
	if err != nil {
		return nil, err
	}
	copy(v.tagKey[:], tag)
	clear(tag)
	return v, nil
}

// DefaultStoreKey derives a store key from the private key, for a node whose
// operator gives none.
func DefaultStoreKey(key *identity.PrivateKey) ([]byte, error) {
	scalar := key.Bytes()
	defer clear(scalar)
	return hkdf.Key(sha256.New, scalar, nil, infoStoreKey, StoreKeySize)
}

const (
	vaultFormat = 1
	vaultSalt   = 32
)

// Seal seals value for the place key and the purpose:
//
//	1 ‖ salt (32) ‖ ciphertext ‖ tag
//
// Each record has a key of its own, so its nonce is zero.
func (v *Vault) Seal(rand io.Reader, purpose, key string, value []byte) ([]byte, error) {
	out := make([]byte, 1+vaultSalt, 1+vaultSalt+len(value)+Overhead)
	out[0] = vaultFormat
	if _, err := io.ReadFull(rand, out[1:]); err != nil {
		return nil, err
	}
	aead, err := v.recordAEAD(out[1:], purpose)
	if err != nil {
		return nil, err
	}
	return aead.Seal(out, make([]byte, ivSize), value, vaultAAD(purpose, key)), nil
}

// Open opens what Seal sealed for the same place and purpose.
func (v *Vault) Open(purpose, key string, record []byte) ([]byte, error) {
	if len(record) < 1+vaultSalt+Overhead || record[0] != vaultFormat {
		return nil, ErrRecord
	}
	aead, err := v.recordAEAD(record[1:1+vaultSalt], purpose)
	if err != nil {
		return nil, err
	}
	value, err := aead.Open(nil, make([]byte, ivSize), record[1+vaultSalt:], vaultAAD(purpose, key))
	if err != nil {
		return nil, ErrRecord
	}
	return value, nil
}

func (v *Vault) recordAEAD(salt []byte, purpose string) (cipher.AEAD, error) {
	if v.erased() {
		return nil, ErrErased
	}
	key, err := hkdf.Key(sha256.New, v.key[:], salt, infoStoreRecord+purpose+"\x00"+string(v.node[:]), 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

func vaultAAD(purpose, key string) []byte { return []byte(purpose + "\x00" + key) }

// NewSessionID draws a session ID: 16 random octets and 16 of their tag.
func (v *Vault) NewSessionID(rand io.Reader) ([]byte, error) {
	if v.erased() {
		return nil, ErrErased
	}
	id := make([]byte, 16, wire.SessionIDSize)
	if _, err := io.ReadFull(rand, id); err != nil {
		return nil, err
	}
	return append(id, v.tag(id)...), nil
}

// CheckSessionID reports whether this node's vault made the ID, so that an
// invented one costs no look-up.
func (v *Vault) CheckSessionID(id []byte) bool {
	return len(id) == wire.SessionIDSize && !v.erased() && subtle.ConstantTimeCompare(v.tag(id[:16]), id[16:]) == 1
}

func (v *Vault) tag(id []byte) []byte {
	m := hmac.New(sha256.New, v.tagKey[:])
	m.Write(id)
	return m.Sum(nil)[:wire.SessionIDSize-16]
}

func (v *Vault) erased() bool { return v.key == [StoreKeySize]byte{} }

// Erase forgets the keys. Nobody may use the vault at that moment; whoever uses
// it afterwards gets ErrErased.
func (v *Vault) Erase() {
	clear(v.key[:])
	clear(v.tagKey[:])
}

// Format keeps the keys out of logs, whatever the verb and even if somebody
// prints a copy.
func (v Vault) Format(f fmt.State, _ rune) { io.WriteString(f, "Vault") }
