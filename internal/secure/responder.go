package secure

import (
	"bytes"
	"crypto/mlkem"
	"io"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
)

// A Reply is what a responder puts into its answer.
type Reply struct {
	Suites   []*Suite // what it accepts
	Session  []byte   // on HTTP and MQ
	Epoch    wire.Nonce
	Time     uint64
	Queue    string
	Lifetime uint64
}

// ChooseSuite returns the first suite of the hello that is among the accepted.
func ChooseSuite(h *wire.Hello, accepted []*Suite) (*Suite, error) {
	for _, name := range h.Suites {
		for _, s := range accepted {
			if s.Name == name && (!s.Hybrid || h.KEM != nil) {
				return s, nil
			}
		}
	}
	return nil, failed("no suite in common: offered %.200q", h.Suites)
}

// Respond answers a hello. raw is the hello's body as it was received. For a
// proof hello the session is nil and nothing need be kept; otherwise it is half
// open until Confirm. What is cheap to check comes before what is dear.
func Respond(local Local, h *wire.Hello, raw []byte, r Reply) ([]byte, *Session, error) {
	own := local.Key.Public().Bytes()
	if bytes.Equal(h.Key, own) {
		return nil, nil, failed("%w: the hello carries this node's own key", ErrIdentity)
	}
	if want := identity.ID(h.Recipient); !want.IsZero() && want != local.Key.ID() {
		return nil, nil, failed("%w: the hello is for %s", ErrIdentity, want)
	}
	reply := wire.HelloReply{Key: own, Epoch: r.Epoch, Time: r.Time, Queue: r.Queue}
	if _, err := io.ReadFull(local.Rand, reply.Random[:]); err != nil {
		return nil, nil, failed("reading randomness: %w", err)
	}
	if h.Proof() {
		// The key is used for nothing yet, but what is no key enters nowhere,
		// least of all something that this node signs.
		if _, err := identity.ParsePublicKey(h.Key); err != nil {
			return nil, nil, failed("initiator: %w", err)
		}
		sig, err := local.Key.Sign(local.Rand, []byte(labelProof), transcript(nil, raw, &reply))
		if err != nil {
			return nil, nil, failed("%w", err)
		}
		reply.Signature = sig
		return reply.Append(wire.AppendHeader(nil, wire.TypeHelloReply)), nil, nil
	}
	reply.Session, reply.Lifetime = r.Session, r.Lifetime
	s, err := respondAgreement(local, h, raw, r.Suites, &reply)
	if err != nil {
		return nil, nil, err
	}
	return reply.Append(wire.AppendHeader(nil, wire.TypeHelloReply)), s, nil
}

func respondAgreement(local Local, h *wire.Hello, raw []byte, accepted []*Suite, reply *wire.HelloReply) (*Session, error) {
	suite, err := ChooseSuite(h, accepted)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(h.Ephemeral, reply.Key) || bytes.Equal(h.Ephemeral, h.Key) {
		return nil, failed("the initiator's ephemeral key is a static key")
	}
	key, err := identity.ParsePublicKey(h.Key)
	if err != nil {
		return nil, failed("initiator: %w", err)
	}
	point, err := parsePoint(h.Ephemeral)
	if err != nil {
		return nil, err
	}
	ephemeral, err := drawEphemeral(local.Rand)
	if err != nil {
		return nil, err
	}
	reply.Suite, reply.Ephemeral = suite.Name, ephemeral.PublicKey().Bytes()[1:]
	if bytes.Equal(reply.Ephemeral, h.Ephemeral) {
		return nil, failed("both ephemeral keys are the same")
	}
	var kem []byte
	if suite.Hybrid {
		if kem, reply.KEM, err = encapsulate(local, h.KEM); err != nil {
			return nil, err
		}
	}
	ex := exchange{local: local.Key, ephemeral: ephemeral, remote: key, remoteEphemeral: point}
	ikm, err := ex.material(kem)
	if err != nil {
		return nil, err
	}
	th := transcript(suite, raw, reply)
	s, err := deriveSession(suite, ikm, th, false)
	if err != nil {
		return nil, err
	}
	s.ID, s.Mode, s.Transport, s.PeerKey = reply.Session, h.Mode, h.Transport, key
	s.OwnEpoch, s.PeerEpoch, s.Lifetime = reply.Epoch, h.Epoch, reply.Lifetime
	s.own = local.Key.ID()
	if reply.Signature, err = local.Key.Sign(local.Rand, []byte(labelResponder), th); err != nil {
		return nil, failed("%w", err)
	}
	reply.MAC = s.mac(s.responderMAC, labelResponder, key.ID(), local.Key.ID(), reply.Signature)
	clear(s.responderMAC[:])
	return s, nil
}

func encapsulate(local Local, encoded []byte) (secret, ciphertext []byte, err error) {
	ek, err := mlkem.NewEncapsulationKey768(encoded)
	if err != nil {
		return nil, nil, failed("ML-KEM key: %w", err)
	}
	if local.Encapsulate != nil {
		return local.Encapsulate(ek)
	}
	secret, ciphertext = ek.Encapsulate()
	return secret, ciphertext, nil
}
