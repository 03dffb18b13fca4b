package secure

import (
	"crypto/cipher"
	"crypto/hkdf"
	"io"

	"github.com/owtp-go/owtp/internal/wire"
)

// Sealed messages of HTTP and message queues (docs/PROTOCOL.md §7.2):
//
//	version ‖ type ‖ session ID (32) ‖ random (24) ‖ ciphertext ‖ tag
//
// Every message has its own key and nonce, derived from 24 random octets, so
// that two replicas that answer the same request never use a pair twice and no
// counter depends on a store.

const (
	messageRandom = 24
	messageHeader = wire.HeaderSize + wire.SessionIDSize
	// MessageOverhead is the number of octets that sealing adds to a packet.
	MessageOverhead = messageHeader + messageRandom + Overhead
)

// SessionOf returns the session ID that a sealed message names.
func SessionOf(message []byte) ([]byte, error) {
	if len(message) < MessageOverhead {
		return nil, ErrOpen
	}
	return message[wire.HeaderSize:messageHeader], nil
}

// SealMessage seals one packet. For a response, request is the nonce of the
// request that it answers; otherwise it is zero.
func (s *Session) SealMessage(rand io.Reader, packet []byte, request wire.Nonce) ([]byte, error) {
	typ := wire.TypeSealed
	if !request.IsZero() {
		typ = wire.TypeSealedReply
	}
	out := make([]byte, 0, len(packet)+MessageOverhead)
	out = append(wire.AppendHeader(out, typ), s.ID...)
	random := out[len(out) : len(out)+messageRandom]
	if _, err := io.ReadFull(rand, random); err != nil {
		return nil, err
	}
	aead, nonce, err := s.messageKey(s.send[:], random)
	if err != nil {
		return nil, err
	}
	aad := s.messageAAD(out, s.Initiator, request)
	out = out[:len(out)+messageRandom]
	return aead.Seal(out, nonce, packet, aad), nil
}

// OpenMessage opens one packet in place.
func (s *Session) OpenMessage(message []byte, request wire.Nonce) ([]byte, error) {
	typ, _, err := wire.ParseHeader(message)
	if err != nil {
		return nil, err
	}
	want := wire.TypeSealed
	if !request.IsZero() {
		want = wire.TypeSealedReply
	}
	if typ != want || len(message) < MessageOverhead {
		return nil, ErrOpen
	}
	body := message[messageHeader:]
	aead, nonce, err := s.messageKey(s.receive[:], body[:messageRandom])
	if err != nil {
		return nil, err
	}
	// The session ID in the additional data is our own, not the message's.
	header := append(append(make([]byte, 0, messageHeader), message[:wire.HeaderSize]...), s.ID...)
	plain, err := aead.Open(body[messageRandom:messageRandom], nonce, body[messageRandom:], s.messageAAD(header, !s.Initiator, request))
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

func (s *Session) messageKey(secret, random []byte) (cipher.AEAD, []byte, error) {
	okm, err := hkdf.Expand(s.Suite.hash, secret, infoMessage+string(random), s.Suite.keySize+ivSize)
	if err != nil {
		return nil, nil, err
	}
	defer clear(okm[:s.Suite.keySize])
	aead, err := s.Suite.aead(okm[:s.Suite.keySize])
	return aead, okm[s.Suite.keySize:], err
}

// messageAAD is header ‖ session ID ‖ transport ‖ direction ‖ the request's
// nonce in a response. Direction is 1 towards the responder of the handshake
// and 2 towards the initiator.
func (s *Session) messageAAD(header []byte, fromInitiator bool, request wire.Nonce) []byte {
	direction := byte(2)
	if fromInitiator {
		direction = 1
	}
	aad := make([]byte, 0, messageHeader+2+len(request))
	aad = append(aad, header...)
	aad = append(aad, s.Transport, direction)
	if !request.IsZero() {
		aad = append(aad, request[:]...)
	}
	return aad
}
