// Package secure is what proves and protects: the handshake, the key schedule,
// sealed messages, signatures and sealing at rest (docs/PROTOCOL.md §§5-7).
//
// It is a pure state machine. Octets go in, octets and secrets come out;
// randomness and time are parameters; it never sees a connection or a store. A
// handshake that has failed is dead and cannot be tried again.
package secure

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
	"hash"
	"strings"

	"github.com/emmansun/gmsm/sm3"
	"github.com/emmansun/gmsm/sm4"
)

// A Suite is a set of algorithms that an agreement uses (docs/PROTOCOL.md §6.3).
type Suite struct {
	Name   string // in hellos
	Alias  string // what callers type
	Hybrid bool   // with ML-KEM-768

	hash    func() hash.Hash
	keySize int
	block   func(key []byte) (cipher.Block, error)
}

var (
	// AES is hybrid post-quantum and the first choice.
	AES = &Suite{Name: "SM2-MLKEM768-AES256GCM", Alias: "aes", Hybrid: true,
		hash: sha256.New, keySize: 32, block: aes.NewCipher}
	// SM4 uses nothing but the national algorithms, save for the node ID.
	SM4 = &Suite{Name: "SM2-SM4GCM", Alias: "sm4",
		hash: sm3.New, keySize: 16, block: sm4.NewCipher}
)

// Suites returns all that this node knows, the preferred one first.
func Suites() []*Suite { return []*Suite{AES, SM4} }

// SuiteByName finds a suite by its name or its alias.
func SuiteByName(name string) (*Suite, error) {
	var known []string
	for _, s := range Suites() {
		if name == s.Name || name == s.Alias {
			return s, nil
		}
		known = append(known, fmt.Sprintf("%q (%s)", s.Alias, s.Name))
	}
	return nil, fmt.Errorf("unknown suite %.40q; known are %s", name, strings.Join(known, ", "))
}

func (s *Suite) String() string { return s.Name }

func (s *Suite) aead(key []byte) (cipher.AEAD, error) {
	b, err := s.block(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}
