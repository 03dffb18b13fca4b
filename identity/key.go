package identity

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"

	"github.com/emmansun/gmsm/ecdh"
	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/sm3"
	"github.com/mr-tron/base58"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A PublicKey is a point of the SM2 curve that has been checked. It is
// immutable and safe for concurrent use.
type PublicKey struct {
	raw [PublicKeySize]byte
	id  ID
	za  [sm3.Size]byte // GB/T 32918.2 §5.5, with the ID's 32 bytes as user ID
	ec  *ecdsa.PublicKey
	dh  *ecdh.PublicKey
}

// ParsePublicKey reads X‖Y, 64 bytes. It refuses another length, coordinates
// that are not below p and points that are not on the curve.
func ParsePublicKey(xy []byte) (*PublicKey, error) {
	if len(xy) != PublicKeySize {
		return nil, fmt.Errorf("public key has %d bytes, want %d (X and Y)", len(xy), PublicKeySize)
	}
	var point [1 + PublicKeySize]byte
	point[0] = 4 // uncompressed, SEC 1 §2.3.3
	copy(point[1:], xy)
	dh, err := ecdh.P256().NewPublicKey(point[:])
	if err != nil {
		return nil, errors.New("public key is not a point of the SM2 curve")
	}
	ec, err := sm2.NewPublicKey(point[:])
	if err != nil {
		return nil, errors.New("public key is not a point of the SM2 curve")
	}
	k := &PublicKey{ec: ec, dh: dh, id: sha256.Sum256(xy)}
	copy(k.raw[:], xy)
	za, err := dh.SM2ZA(sm3.New(), k.id[:])
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	copy(k.za[:], za)
	return k, nil
}

// Bytes returns a copy of X‖Y.
func (k *PublicKey) Bytes() []byte { return append([]byte(nil), k.raw[:]...) }

// ID returns the node ID of the key.
func (k *PublicKey) ID() ID { return k.id }

// ECDH returns the key for key agreement.
func (k *PublicKey) ECDH() *ecdh.PublicKey { return k.dh }

// Equal reports whether both are the same point.
func (k *PublicKey) Equal(x *PublicKey) bool {
	return x != nil && subtle.ConstantTimeCompare(k.raw[:], x.raw[:]) == 1
}

func (k *PublicKey) String() string { return base58.Encode(k.raw[:]) }

// Verify reports whether sig, r‖s, is the key's SM2 signature over the
// concatenation of parts (GB/T 32918.2 with SM3; the user ID is the 32 bytes of
// the key's node ID).
func (k *PublicKey) Verify(sig []byte, parts ...[]byte) bool {
	if len(sig) != SignatureSize {
		return false
	}
	r := new(big.Int).SetBytes(sig[:32])
	s := new(big.Int).SetBytes(sig[32:])
	return sm2.Verify(k.ec, k.digest(parts), r, s)
}

// digest is e = SM3(ZA ‖ M), GB/T 32918.2 §6.1.
func (k *PublicKey) digest(parts [][]byte) []byte {
	h := sm3.New()
	h.Write(k.za[:])
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// A PrivateKey is a scalar in [1, n-2] and its public key. It is immutable and
// safe for concurrent use, and whatever prints it prints its node ID only.
type PrivateKey struct {
	sign *sm2.PrivateKey
	dh   *ecdh.PrivateKey
	pub  *PublicKey
}

// NewPrivateKey reads a scalar of exactly 32 bytes, big-endian.
func NewPrivateKey(scalar []byte) (*PrivateKey, error) {
	if len(scalar) != PrivateKeySize {
		return nil, fmt.Errorf("private key has %d bytes, want %d", len(scalar), PrivateKeySize)
	}
	dh, err := ecdh.P256().NewPrivateKey(scalar)
	if err != nil {
		return nil, errors.New("private key is not in [1, n-2]")
	}
	sign, err := sm2.NewPrivateKey(scalar)
	if err != nil {
		return nil, errors.New("private key is not in [1, n-2]")
	}
	pub, err := ParsePublicKey(dh.PublicKey().Bytes()[1:])
	if err != nil {
		return nil, err
	}
	return &PrivateKey{sign: sign, dh: dh, pub: pub}, nil
}

// ParsePrivateKey reads the text form: base58 of the 32 bytes. Its errors never
// repeat the text.
func ParsePrivateKey(text string) (*PrivateKey, error) {
	if len(text) == 0 || len(text) > maxIDText {
		return nil, fmt.Errorf("private key text has %d characters, want 32 to %d of base58", len(text), maxIDText)
	}
	scalar, err := base58.Decode(text)
	if err != nil {
		return nil, errors.New("private key text is not base58")
	}
	defer clear(scalar)
	return NewPrivateKey(scalar)
}

// GenerateKey draws scalars of 32 bytes from rand until one is in range, which
// the first one is but for a chance of 2^-32. It reads nothing else, so that
// the same bytes give the same key.
func GenerateKey(rand io.Reader) (*PrivateKey, error) {
	scalar := make([]byte, PrivateKeySize)
	defer clear(scalar)
	// A source that always gives something out of range is broken; it must
	// not make us loop.
	for range 16 {
		if _, err := io.ReadFull(rand, scalar); err != nil {
			return nil, fmt.Errorf("private key: reading randomness: %w", err)
		}
		if k, err := NewPrivateKey(scalar); err == nil {
			return k, nil
		}
	}
	return nil, errors.New("private key: the source of randomness gives no scalar in [1, n-2]")
}

// Public returns the public key.
func (k *PrivateKey) Public() *PublicKey { return k.pub }

// ID returns the node ID of the public key.
func (k *PrivateKey) ID() ID { return k.pub.id }

// ECDH returns the key for key agreement.
func (k *PrivateKey) ECDH() *ecdh.PrivateKey { return k.dh }

// Bytes returns a copy of the scalar. Who asks for it erases it.
func (k *PrivateKey) Bytes() []byte { return k.dh.Bytes() }

// Text returns the scalar as ParsePrivateKey reads it.
func (k *PrivateKey) Text() string {
	b := k.dh.Bytes()
	defer clear(b)
	return base58.Encode(b)
}

// Sign returns the SM2 signature r‖s over the concatenation of parts. It reads
// 32 bytes from rand; the library hedges, so that a weak source does not give
// the key away.
func (k *PrivateKey) Sign(rand io.Reader, parts ...[]byte) ([]byte, error) {
	der, err := sm2.SignASN1(rand, k.sign, k.pub.digest(parts), nil)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	var rs cryptobyte.String
	in := cryptobyte.String(der)
	sig := make([]byte, SignatureSize)
	if !in.ReadASN1(&rs, asn1.SEQUENCE) || !readScalar(&rs, sig[:32]) || !readScalar(&rs, sig[32:]) || !rs.Empty() {
		return nil, errors.New("signing: the library returned an unreadable signature")
	}
	return sig, nil
}

func readScalar(s *cryptobyte.String, out []byte) bool {
	var b []byte
	if !s.ReadASN1Integer(&b) || len(b) > len(out) {
		return false
	}
	copy(out[len(out)-len(b):], b)
	return true
}

// Format prints the node ID, whatever the verb and even for a copy: a key must
// not reach a log.
func (k PrivateKey) Format(f fmt.State, _ rune) {
	if k.pub == nil {
		io.WriteString(f, "PrivateKey(none)")
		return
	}
	fmt.Fprintf(f, "PrivateKey(of node %s)", k.pub.id)
}

// LogValue keeps the key out of structured logs.
func (k *PrivateKey) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(k)) }

// MarshalText refuses: a private key is written out by asking for it, never by
// encoding a struct that happens to hold it.
func (k *PrivateKey) MarshalText() ([]byte, error) {
	return nil, errors.New("a private key does not encode itself; ask for Text")
}
