package legacy

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"github.com/emmansun/gmsm/sm3"
	"github.com/mr-tron/base58"

	"github.com/owtp-go/owtp/identity"
)

// ErrAgreement is wrapped by every error of a key agreement. Its text is for
// the log; a peer learns only that the agreement failed.
var ErrAgreement = errors.New("version 1 key agreement failed")

func failed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrAgreement, fmt.Errorf(format, args...))
}

// typeAES is the label that initiators give; nobody reads it.
const typeAES = "aes"

// An Initiator has begun an agreement (GB/T 32918.3) and can finish it with
// every answer that names another responder's ephemeral: version 1 agrees anew
// in any response, as after the other side has lost its state.
type Initiator struct {
	key, ephemeral *identity.PrivateKey
}

// Initiate begins an agreement with a fresh ephemeral.
func Initiate(rand io.Reader, key *identity.PrivateKey) (*Initiator, error) {
	ephemeral, err := identity.GenerateKey(rand)
	if err != nil {
		return nil, failed("%w", err)
	}
	return &Initiator{key, ephemeral}, nil
}

// Keys are those of the request that begins.
func (i *Initiator) Keys() Keys {
	return Keys{Initiator: i.key.Public().String(), InitiatorEphemeral: i.ephemeral.Public().String(), Type: typeAES}
}

// Finish takes the keys of a response. It refuses another responder than the
// one that was asked for, which is nil if nobody was named.
func (i *Initiator) Finish(k Keys, responder *identity.PublicKey) (*Session, error) {
	remote, err := ParseKey(k.Responder)
	if err != nil {
		return nil, failed("pko: %w", err)
	}
	if responder != nil && !remote.Equal(responder) {
		return nil, failed("%s answered where %s was asked for", remote.ID(), responder.ID())
	}
	ephemeral, err := ParseKey(k.ResponderEphemeral)
	if err != nil {
		return nil, failed("tpo: %w", err)
	}
	s, err := agree(i.key, i.ephemeral, remote, ephemeral, true)
	if err != nil {
		return nil, err
	}
	if !s.responderCheck.is(k.ResponderCheck) {
		s.Erase()
		return nil, failed("sb is not what the responder must have")
	}
	return s, nil
}

// Respond answers any request with pk and tpk, with a fresh ephemeral: nobody
// can then decrypt later what was recorded, and there is no constant scalar for
// points to be tried against. The initiator has proved nothing until it sends a
// check value, and that one travels in clear.
func Respond(rand io.Reader, key *identity.PrivateKey, k Keys) (*Session, error) {
	ephemeral, err := identity.GenerateKey(rand)
	if err != nil {
		return nil, failed("%w", err)
	}
	return respond(key, ephemeral, k)
}

func respond(key, ephemeral *identity.PrivateKey, k Keys) (*Session, error) {
	remote, err := ParseKey(k.Initiator)
	if err != nil {
		return nil, failed("pk: %w", err)
	}
	remoteEphemeral, err := ParseKey(k.InitiatorEphemeral)
	if err != nil {
		return nil, failed("tpk: %w", err)
	}
	return agree(key, ephemeral, remote, remoteEphemeral, false)
}

// A check is a value that only who has agreed can know, in base58 on the wire.
type check [sm3.Size]byte

func (c *check) String() string { return base58.Encode(c[:]) }

func (c *check) is(text string) bool {
	b, err := decode(text)
	return err == nil && subtle.ConstantTimeCompare(b, c[:]) == 1
}

// A Session is what both sides have agreed on.
type Session struct {
	live                           bool // until it is erased: zeros are no secret
	key                            [sha256.Size]byte
	responderCheck, initiatorCheck check
	initiator, responder           *identity.PublicKey
	initiatorEphemeral             *identity.PublicKey
	responderEphemeral             *identity.PublicKey
}

// agree runs the exchange with keys that have been checked.
func agree(key, ephemeral *identity.PrivateKey, remote, remoteEphemeral *identity.PublicKey, initiator bool) (*Session, error) {
	uv, err := key.ECDH().SM2MQV(ephemeral.ECDH(), remote.ECDH(), remoteEphemeral.ECDH())
	if err != nil {
		return nil, failed("SM2 exchange: %w", err)
	}
	ownID, remoteID := key.ID(), remote.ID()
	shared, err := uv.SM2SharedKey(!initiator, sha256.Size, key.Public().ECDH(), remote.ECDH(), ownID[:], remoteID[:])
	if err != nil {
		return nil, failed("SM2 exchange: %w", err)
	}
	defer clear(shared)
	s := &Session{
		live:      true,
		initiator: key.Public(), initiatorEphemeral: ephemeral.Public(),
		responder: remote, responderEphemeral: remoteEphemeral,
	}
	if !initiator {
		s.initiator, s.responder = s.responder, s.initiator
		s.initiatorEphemeral, s.responderEphemeral = s.responderEphemeral, s.initiatorEphemeral
	}
	copy(s.key[:], shared)
	point := uv.Bytes()
	defer clear(point)
	return s, s.deriveChecks(point[1:33], point[33:])
}

// deriveChecks is GB/T 32918.3 §6.1, steps A9, A10, B8 and B10, from the
// coordinates of the shared point.
func (s *Session) deriveChecks(x, y []byte) error {
	inner := sm3.New()
	inner.Write(x)
	for _, k := range []*identity.PublicKey{s.initiator, s.responder} {
		id := k.ID()
		za, err := k.ECDH().SM2ZA(sm3.New(), id[:])
		if err != nil {
			return failed("%w", err)
		}
		inner.Write(za)
	}
	inner.Write(s.initiatorEphemeral.Bytes())
	inner.Write(s.responderEphemeral.Bytes())
	hash := inner.Sum(nil)
	for label, out := range map[byte]*check{2: &s.responderCheck, 3: &s.initiatorCheck} {
		outer := sm3.New()
		outer.Write([]byte{label})
		outer.Write(y)
		outer.Write(hash)
		outer.Sum(out[:0])
	}
	return nil
}

// Initiator is the key of who began. With the responder's side of an agreement
// it is claimed and not proved.
func (s *Session) Initiator() *identity.PublicKey { return s.initiator }

// Responder is the key of who answered.
func (s *Session) Responder() *identity.PublicKey { return s.responder }

// RequestKeys are those of the initiator's requests.
func (s *Session) RequestKeys() Keys {
	return Keys{Initiator: s.initiator.String(), InitiatorEphemeral: s.initiatorEphemeral.String(), Type: typeAES, InitiatorCheck: s.initiatorCheck.String()}
}

// ResponseKeys are those of the responder's responses. Every one carries them,
// so that an initiator whose session is another one agrees anew.
func (s *Session) ResponseKeys() Keys {
	return Keys{Responder: s.responder.String(), ResponderEphemeral: s.responderEphemeral.String(), ResponderCheck: s.responderCheck.String()}
}

// CallbackKeys are those of the responder's own requests. They repeat what the
// initiator has sent, which forgets it otherwise. Its responses then carry
// ResponseKeys.
func (s *Session) CallbackKeys() Keys {
	return Keys{Initiator: s.initiator.String(), InitiatorEphemeral: s.initiatorEphemeral.String(), CallbackCheck: s.initiatorCheck.String()}
}

// IsRequest reports whether a request of the initiator belongs to the session.
func (s *Session) IsRequest(k Keys) bool { return s.live && s.initiatorCheck.is(k.InitiatorCheck) }

// IsResponse reports whether a response of the responder does; if not, the
// initiator finishes its agreement again.
func (s *Session) IsResponse(k Keys) bool { return s.live && s.responderCheck.is(k.ResponderCheck) }

// IsCallback reports whether a request of the responder does.
func (s *Session) IsCallback(k Keys) bool { return s.live && s.initiatorCheck.is(k.CallbackCheck) }

// Erase forgets the key. Nothing opens after it, and nothing is recognised.
func (s *Session) Erase() {
	s.live = false
	clear(s.key[:])
	clear(s.responderCheck[:])
	clear(s.initiatorCheck[:])
}
