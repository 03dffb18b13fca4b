package secure

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"errors"
	"io"

	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
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
	typ, err := s.messageType(s.Initiator, request)
	if err != nil {
		return nil, err
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
	want, err := s.messageType(!s.Initiator, request)
	if err != nil {
		return nil, err
	}
	if typ != want || len(message) < MessageOverhead || !bytes.Equal(message[wire.HeaderSize:messageHeader], s.ID) {
		return nil, ErrOpen
	}
	body := message[messageHeader:]
	aead, nonce, err := s.messageKey(s.receive[:], body[:messageRandom])
	if err != nil {
		return nil, err
	}
	aad := s.messageAAD(message[:messageHeader], !s.Initiator, request)
	plain, err := aead.Open(body[messageRandom:messageRandom], nonce, body[messageRandom:], aad)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

// messageType is the type of a message in that direction. Over HTTP who started
// the agreement asks and the other side answers; over a queue both ask. An
// answer without the nonce of its request would be bound to nothing.
func (s *Session) messageType(fromInitiator bool, request wire.Nonce) (wire.MessageType, error) {
	bothAsk := transport.Kind(s.Transport) == transport.MQ
	switch {
	case s.erased():
		return 0, ErrErased
	case len(s.ID) != wire.SessionIDSize:
		return 0, errors.New("session without an ID seals no single messages")
	case request.IsZero() && (fromInitiator || bothAsk):
		return wire.TypeSealed, nil
	case !request.IsZero() && (!fromInitiator || bothAsk):
		return wire.TypeSealedReply, nil
	}
	return 0, errors.New("sealed message that does not fit this side's role")
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
