package legacy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/emmansun/gmsm/sm3"
	"github.com/mr-tron/base58"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
)

// ErrSignature says that a request carries no signature, or one that does not
// verify under the key it must be from; which, is for the log.
var ErrSignature = errors.New("signature missing or wrong")

// ErrKey is wrapped where a public key of version 1 is no usable one.
var ErrKey = errors.New("not a public key")

// ParseKey reads a public key as version 1 writes it: base58 of X‖Y. Who has
// it has a point of the curve.
func ParseKey(text string) (*identity.PublicKey, error) {
	xy, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	key, err := identity.ParsePublicKey(xy)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return key, nil
}

// decode reads base58, whose cost is the square of its length.
func decode(text string) ([]byte, error) {
	if len(text) == 0 || len(text) > maxText {
		return nil, fmt.Errorf("%d characters, want 1 to %d of base58", len(text), maxText)
	}
	b, err := base58.Decode(text)
	if err != nil {
		return nil, errors.New("not base58")
	}
	return b, nil
}

// signedText is what version 1 signs. Nothing stands between its parts, so one
// text has many readings: a record of what has been seen must be of the text
// (see Digest), and Time must be judged, lest digits be moved into the nonce.
// Version, Keys and the JSON type of the data are not signed at all.
func (p *Packet) signedText() ([]byte, error) {
	text, err := p.Text()
	if err != nil {
		return nil, err
	}
	b := strconv.AppendUint(nil, p.Kind, 10)
	b = append(b, p.Method...)
	b = strconv.AppendUint(b, p.Nonce, 10)
	b = strconv.AppendInt(b, p.Time, 10)
	return append(b, text...), nil
}

// hashed is what SM2 is given of the signed text.
func (p *Packet) hashed() ([]byte, error) {
	text, err := p.signedText()
	if err != nil {
		return nil, err
	}
	once := sha256.Sum256(text)
	twice := sha256.Sum256(once[:])
	return twice[:], nil
}

// Sign puts the signer's key and its signature into a request, whose data must
// be complete, and encrypted if it is to be. Responses are never signed.
func Sign(rand io.Reader, key *identity.PrivateKey, p *Packet) error {
	if p.Kind != Request {
		return fmt.Errorf("version 1 signs requests only, not kind %d", p.Kind)
	}
	hash, err := p.hashed()
	if err != nil {
		return err
	}
	sig, err := key.Sign(rand, hash)
	if err != nil {
		return err
	}
	p.Keys.Initiator = key.Public().String()
	p.Signature = base58.Encode(sig)
	return nil
}

// Verify checks the signature of a request and returns the key that it is
// from: the one in the packet or, if there is none, the one that its sender has
// announced in header a. If both are there they must be the same; announced is
// nil where a transport has no header.
func Verify(p *Packet, announced *identity.PublicKey) (*identity.PublicKey, error) {
	if p.Kind != Request || p.Signature == "" {
		return nil, ErrSignature
	}
	key := announced
	if p.Keys.Initiator != "" {
		var err error
		if key, err = ParseKey(p.Keys.Initiator); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSignature, err)
		}
	}
	if key == nil || announced != nil && !key.Equal(announced) {
		return nil, fmt.Errorf("%w: not the key that the sender announced", ErrSignature)
	}
	sig, err := decode(p.Signature)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	hash, err := p.hashed()
	if err != nil {
		return nil, err
	}
	if !key.Verify(sig, hash) {
		return nil, ErrSignature
	}
	return key, nil
}

// Digest names what is signed of a request, for the record of what has been
// seen: whoever moves a digit from the nonce to the time has the same digest.
func Digest(p *Packet) (d wire.Digest, err error) {
	text, err := p.signedText()
	return sm3.Sum(text), err
}

// Once names a request that is sealed and not signed, for the same record: the
// session and the nonce that its key is made of, which its sender uses once. The
// method and the time are left out, since anybody can change them. It reports
// false for the packets of old senders, whose keys are made of nothing: of two
// that are the same, one may be a copy or not.
func Once(p *Packet) (d wire.Digest, ok bool) {
	text := append([]byte(p.Keys.InitiatorCheck+"\x00"), nonceKey(p.Nonce)...)
	return sm3.Sum(text), p.Version == 1
}

// Whole names a packet by everything in it, for those that nothing else tells
// from a copy of a message broker's.
func Whole(p *Packet) (d wire.Digest, err error) {
	text, err := p.Append(nil)
	return sm3.Sum(text), err
}

// Complaint is what version 1's nodes answer to a key that they cannot read.
func Complaint(key string) string {
	for _, r := range key {
		if r >= utf8.RuneSelf || !strings.ContainsRune(alphabet, r) {
			return fmt.Sprintf("Invalid base58 digit (%q)", r)
		}
	}
	return "header a is not a public key"
}

// alphabet is that of base58.
const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
