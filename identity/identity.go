// Package identity holds what a node is: an SM2 key pair and the node ID that
// follows from its public key (PROTOCOL §2).
//
// Every key that enters, from a file, from the wire or from a caller, is
// checked before any arithmetic is done with it: its length, its range and
// that the point is on the curve. A value of one of these types is therefore
// always usable, and the zero value never is.
//
// The package has no source of randomness of its own; who signs brings one.
package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/mr-tron/base58"
)

const (
	// IDSize is the size in bytes of a node ID before base58.
	IDSize = sha256.Size
	// PublicKeySize is the size in bytes of X‖Y, big-endian.
	PublicKeySize = 64
	// PrivateKeySize is the size in bytes of the scalar, big-endian.
	PrivateKeySize = 32
	// SignatureSize is the size in bytes of r‖s, big-endian.
	SignatureSize = 64

	// maxIDText is the most characters that base58 makes of 32 bytes.
	maxIDText = 44
)

// An ID names a node: SHA-256 of its public key X‖Y. The zero ID names nobody.
type ID [IDSize]byte

// String returns the ID as people see it: base58 in Bitcoin's alphabet,
// without a checksum, 32 to 44 characters.
func (id ID) String() string { return base58.Encode(id[:]) }

// IsZero reports whether the ID names nobody.
func (id ID) IsZero() bool { return id == ID{} }

// ErrNotID is wrapped by the errors of ParseID.
var ErrNotID = errors.New("not a node ID")

// ParseID reads an ID as String writes it.
func ParseID(text string) (ID, error) {
	var id ID
	if len(text) == 0 || len(text) > maxIDText {
		return id, fmt.Errorf("%w: %d characters, want 32 to %d of base58", ErrNotID, len(text), maxIDText)
	}
	raw, err := base58.Decode(text)
	if err != nil {
		return id, fmt.Errorf("%w: %q is not base58", ErrNotID, text)
	}
	if len(raw) != IDSize {
		return id, fmt.Errorf("%w: %q holds %d bytes, want %d", ErrNotID, text, len(raw), IDSize)
	}
	copy(id[:], raw)
	return id, nil
}
