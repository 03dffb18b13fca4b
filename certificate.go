package owtp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"

	"github.com/mr-tron/base58"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
)

// A Certificate is a node's identity: an SM2 key pair. Nobody issues or signs
// it. The zero value is no identity and no node takes it. However it is printed
// or logged, it shows its node ID only.
type Certificate struct {
	key *identity.PrivateKey
}

// NewCertificate reads a private key: base58 of its 32 bytes, big-endian, in
// [1, n-2]. Further arguments are the names of suites that older programs pass;
// they are checked and otherwise ignored, since suites belong to ConnectConfig.
func NewCertificate(privateKey string, suites ...string) (Certificate, error) {
	for _, s := range suites {
		if s == "" {
			continue
		}
		if _, err := secure.SuiteByName(s); err != nil {
			return Certificate{}, fmt.Errorf("owtp: certificate: %w", err)
		}
	}
	key, err := identity.ParsePrivateKey(privateKey)
	if err != nil {
		return Certificate{}, fmt.Errorf("owtp: certificate: %w", err)
	}
	return Certificate{key}, nil
}

// RandomPrivateKey returns a new private key as NewCertificate reads it. It is
// a secret.
func RandomPrivateKey() string {
	key, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		panic("owtp: the system's source of randomness fails: " + err.Error())
	}
	return key.Text()
}

// NewRandomCertificate returns a new identity.
func NewRandomCertificate() Certificate {
	key, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		panic("owtp: the system's source of randomness fails: " + err.Error())
	}
	return Certificate{key}
}

var errNoCertificate = errors.New("owtp: the certificate is empty: make one with NewCertificate or NewRandomCertificate")

// ID returns the node ID: base58 of SHA-256 of the public key, or "" for the
// zero value.
func (c Certificate) ID() string {
	if c.key == nil {
		return ""
	}
	return c.key.ID().String()
}

// KeyPair returns the private and the public key in base58. The first is a
// secret.
func (c Certificate) KeyPair() (privateKey, publicKey string) {
	if c.key == nil {
		return "", ""
	}
	return c.key.Text(), base58.Encode(c.PublicKeyBytes())
}

// PublicKeyBytes returns X‖Y, 64 bytes.
func (c Certificate) PublicKeyBytes() []byte {
	if c.key == nil {
		return nil
	}
	return c.key.Public().Bytes()
}

// PrivateKeyBytes returns the scalar, 32 bytes. It is a secret.
func (c Certificate) PrivateKeyBytes() []byte {
	if c.key == nil {
		return nil
	}
	return c.key.Bytes()
}

// DerivedStoreKey returns the key that seals what a node with this identity
// stores where NodeConfig.StoreKey is nil: it is the PreviousStoreKey of a node
// that is given a StoreKey for the first time. It is a secret; the zero value
// has none.
func (c Certificate) DerivedStoreKey() []byte {
	if c.key == nil {
		return nil
	}
	key, err := secure.DefaultStoreKey(c.key)
	if err != nil {
		panic("owtp: deriving 32 bytes fails: " + err.Error()) // only more than 8160 do
	}
	return key
}

// Format prints the node ID, whatever the verb.
func (c Certificate) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "Certificate(%s)", c.ID()) }

// LogValue logs the node ID.
func (c Certificate) LogValue() slog.Value { return slog.StringValue(c.ID()) }

// MarshalText refuses: a secret does not encode itself by accident.
func (c Certificate) MarshalText() ([]byte, error) {
	return nil, errors.New("owtp: a certificate holds a private key and does not encode itself; ask for KeyPair")
}
