package secure

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/mlkem"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/emmansun/gmsm/ecdh"
	"github.com/emmansun/gmsm/sm3"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
)

// ErrHandshake is wrapped by every error of an agreement. Its text is for the
// log; a peer learns only that the agreement failed.
var ErrHandshake = errors.New("key agreement failed")

// ErrIdentity is wrapped when the other side is not who was asked for, or is
// this node itself.
var ErrIdentity = errors.New("wrong identity")

func failed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrHandshake, fmt.Errorf(format, args...))
}

// A Local is this side of handshakes.
type Local struct {
	Key  *identity.PrivateKey
	Rand io.Reader
	// Encapsulate is nil but in tests with known answers, since the library
	// draws its randomness itself.
	Encapsulate func(*mlkem.EncapsulationKey768) (secret, ciphertext []byte, err error)
}

// drawEphemeral builds a key from 32 octets of rand. The library's generator
// would read more than it says, and known answers could not be made.
func drawEphemeral(rand io.Reader) (*ecdh.PrivateKey, error) {
	scalar := make([]byte, identity.PrivateKeySize)
	defer clear(scalar)
	for range 16 {
		if _, err := io.ReadFull(rand, scalar); err != nil {
			return nil, failed("reading randomness: %w", err)
		}
		if k, err := ecdh.P256().NewPrivateKey(scalar); err == nil {
			return k, nil
		}
	}
	return nil, failed("the source of randomness gives no scalar in range")
}

func parsePoint(xy []byte) (*ecdh.PublicKey, error) {
	var point [1 + identity.PublicKeySize]byte
	point[0] = 4
	copy(point[1:], xy)
	k, err := ecdh.P256().NewPublicKey(point[:])
	if err != nil {
		return nil, failed("ephemeral key is not a point of the SM2 curve")
	}
	return k, nil
}

// transcript hashes both hellos; the responder's without signature and MAC.
func transcript(suite *Suite, hello []byte, reply *wire.HelloReply) []byte {
	newHash := sm3.New
	if suite != nil {
		newHash = suite.hash
	}
	h := newHash()
	for _, part := range [][]byte{hello, reply.AppendUnsigned(nil)} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

// An exchange has everything that the key material comes from.
type exchange struct {
	local           *identity.PrivateKey
	ephemeral       *ecdh.PrivateKey
	remote          *identity.PublicKey
	remoteEphemeral *ecdh.PublicKey
	initiator       bool
}

// material is the SM2 exchange (GB/T 32918.3, 32 octets) ‖ plain ECDH of the
// ephemerals (x, 32 octets) ‖ the ML-KEM secret (32 octets) if there is one.
func (e *exchange) material(kem []byte) ([]byte, error) {
	defer clear(kem)
	uv, err := e.local.ECDH().SM2MQV(e.ephemeral, e.remote.ECDH(), e.remoteEphemeral)
	if err != nil {
		return nil, failed("SM2 exchange: %w", err)
	}
	ownID, remoteID := e.local.ID(), e.remote.ID()
	shared, err := uv.SM2SharedKey(!e.initiator, 32, e.local.Public().ECDH(), e.remote.ECDH(), ownID[:], remoteID[:])
	if err != nil {
		return nil, failed("SM2 exchange: %w", err)
	}
	defer clear(shared)
	plain, err := e.ephemeral.ECDH(e.remoteEphemeral)
	if err != nil {
		return nil, failed("ECDH: %w", err)
	}
	defer clear(plain)
	ikm := make([]byte, 0, 96)
	ikm = append(ikm, shared...)
	ikm = append(ikm, plain...)
	return append(ikm, kem...), nil
}

// deriveSession runs the key schedule and erases the key material.
func deriveSession(suite *Suite, ikm, th []byte, initiator bool) (*Session, error) {
	defer clear(ikm)
	prk, err := hkdf.Extract(suite.hash, ikm, th)
	if err != nil {
		return nil, failed("%w", err)
	}
	defer clear(prk)
	s := &Session{Suite: suite, Initiator: initiator}
	copy(s.transcript[:], th)
	toResponder, toInitiator := &s.send, &s.receive
	if !initiator {
		toResponder, toInitiator = &s.receive, &s.send
	}
	for _, k := range []struct {
		info string
		out  *[secretSize]byte
	}{
		{infoToResponder, toResponder}, {infoToInitiator, toInitiator},
		{infoInitiatorMAC, &s.initiatorMAC}, {infoResponderMAC, &s.responderMAC},
	} {
		key, err := hkdf.Expand(suite.hash, prk, k.info, secretSize)
		if err != nil {
			return nil, failed("%w", err)
		}
		copy(k.out[:], key)
		clear(key)
	}
	return s, nil
}

func (s *Session) mac(key [secretSize]byte, label string, initiator, responder identity.ID, sig []byte) []byte {
	m := hmac.New(s.Suite.hash, key[:])
	io.WriteString(m, label)
	m.Write(s.transcript[:])
	m.Write(initiator[:])
	m.Write(responder[:])
	m.Write(sig)
	return m.Sum(nil)
}
