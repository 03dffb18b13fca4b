package secure

import (
	"bytes"
	"crypto/mlkem"
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/emmansun/gmsm/ecdh"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// An Offer is what an initiator puts into its hello. Without suites it becomes
// a proof hello.
type Offer struct {
	Transport    uint8
	Mode         wire.Mode
	Suites       []*Suite
	Recipient    identity.ID // zero: whoever answers
	Epoch        wire.Nonce
	ReplyQueue   string
	RequestQueue string
	Retires      []byte
}

// An Initiator has sent a hello and waits for the answer.
type Initiator struct {
	local     Local
	hello     wire.Hello
	raw       []byte
	ephemeral *ecdh.PrivateKey
	kem       *mlkem.DecapsulationKey768
	done      bool
}

// Format keeps the ephemeral keys out of logs, whatever the verb.
func (i Initiator) Format(f fmt.State, _ rune) { io.WriteString(f, "Initiator") }

// Start begins a handshake and returns the message to send.
func Start(local Local, o Offer) (*Initiator, []byte, error) {
	i := &Initiator{local: local, hello: wire.Hello{
		Transport: o.Transport, Mode: o.Mode, Key: local.Key.Public().Bytes(),
		Recipient: wire.ID(o.Recipient), Epoch: o.Epoch,
		ReplyQueue: o.ReplyQueue, RequestQueue: o.RequestQueue, Retires: o.Retires,
	}}
	h := &i.hello
	if _, err := io.ReadFull(local.Rand, h.Random[:]); err != nil {
		return nil, nil, failed("reading randomness: %w", err)
	}
	hybrid := false
	for _, s := range o.Suites {
		h.Suites = append(h.Suites, s.Name)
		hybrid = hybrid || s.Hybrid
	}
	if len(o.Suites) > 0 {
		var err error
		if i.ephemeral, err = drawEphemeral(local.Rand); err != nil {
			return nil, nil, err
		}
		h.Ephemeral = i.ephemeral.PublicKey().Bytes()[1:]
	}
	if hybrid {
		seed := make([]byte, mlkem.SeedSize)
		defer clear(seed)
		if _, err := io.ReadFull(local.Rand, seed); err != nil {
			return nil, nil, failed("reading randomness: %w", err)
		}
		var err error
		if i.kem, err = mlkem.NewDecapsulationKey768(seed); err != nil {
			return nil, nil, failed("ML-KEM key: %w", err)
		}
		h.KEM = i.kem.EncapsulationKey().Bytes()
	}
	message := h.Append(wire.AppendHeader(nil, wire.TypeHello))
	i.raw = message[wire.HeaderSize:]
	return i, message, nil
}

// A Proof is what a verified answer to a hello says about the responder.
type Proof struct {
	Key   *identity.PublicKey
	Epoch wire.Nonce
	Time  uint64 // the responder's clock, milliseconds since 1970
	Queue string
}

// Finish reads the responder's answer. For a proof hello the session is nil.
// The handshake is over afterwards, however it ends.
func (i *Initiator) Finish(message []byte) (*Proof, *Session, error) {
	if i.done {
		return nil, nil, failed("this handshake is over")
	}
	i.done = true
	defer func() { i.ephemeral, i.kem = nil, nil }()
	typ, body, err := wire.ParseHeader(message)
	if err != nil || typ != wire.TypeHelloReply {
		return nil, nil, failed("answer is no hello reply")
	}
	reply, err := wire.ParseHelloReply(body)
	if err != nil {
		return nil, nil, failed("%w", err)
	}
	key, err := i.checkResponder(reply)
	if err != nil {
		return nil, nil, err
	}
	proof := &Proof{Key: key, Epoch: reply.Epoch, Time: reply.Time, Queue: reply.Queue}
	if i.hello.Proof() {
		th := transcript(nil, i.raw, reply)
		if reply.Suite != "" || !key.Verify(reply.Signature, []byte(labelProof), th) {
			return nil, nil, failed("the responder's signature does not verify")
		}
		return proof, nil, nil
	}
	s, err := i.agree(reply, key)
	if err != nil {
		return nil, nil, err
	}
	return proof, s, nil
}

func (i *Initiator) checkResponder(reply *wire.HelloReply) (*identity.PublicKey, error) {
	own := i.hello.Key
	if bytes.Equal(reply.Key, own) {
		return nil, failed("%w: the answer comes from this node's own key", ErrIdentity)
	}
	if i.hello.Ephemeral != nil && bytes.Equal(reply.Key, i.hello.Ephemeral) {
		return nil, failed("the responder's static key is our ephemeral key")
	}
	if reply.Ephemeral != nil && (bytes.Equal(reply.Ephemeral, own) || bytes.Equal(reply.Ephemeral, i.hello.Ephemeral) || bytes.Equal(reply.Ephemeral, reply.Key)) {
		return nil, failed("the responder's ephemeral key is one of ours or its static key")
	}
	key, err := identity.ParsePublicKey(reply.Key)
	if err != nil {
		return nil, failed("responder: %w", err)
	}
	if want := identity.ID(i.hello.Recipient); !want.IsZero() && key.ID() != want {
		return nil, failed("%w: dialled %s, the answer comes from %s", ErrIdentity, want, key.ID())
	}
	return key, nil
}

func (i *Initiator) agree(reply *wire.HelloReply, key *identity.PublicKey) (*Session, error) {
	suite := chosen(i.hello.Suites, reply.Suite)
	if suite == nil {
		return nil, failed("the responder chose %.40q, which was not offered", reply.Suite)
	}
	if suite.Hybrid != (reply.KEM != nil) {
		return nil, failed("ML-KEM ciphertext missing or not asked for")
	}
	if oneShot(i.hello.Transport) && reply.Session == nil {
		return nil, failed("the responder named no session")
	}
	point, err := parsePoint(reply.Ephemeral)
	if err != nil {
		return nil, err
	}
	var kem []byte
	if suite.Hybrid {
		if kem, err = i.kem.Decapsulate(reply.KEM); err != nil {
			return nil, failed("ML-KEM: %w", err)
		}
	}
	ex := exchange{local: i.local.Key, ephemeral: i.ephemeral, remote: key, remoteEphemeral: point, initiator: true}
	ikm, err := ex.material(kem)
	if err != nil {
		return nil, err
	}
	th := transcript(suite, i.raw, reply)
	s, err := deriveSession(suite, ikm, th, true)
	if err != nil {
		return nil, err
	}
	s.ID, s.Mode, s.Transport, s.PeerKey = bytes.Clone(reply.Session), i.hello.Mode, i.hello.Transport, key
	s.OwnEpoch, s.PeerEpoch, s.Lifetime = i.hello.Epoch, reply.Epoch, reply.Lifetime
	// The MAC first: it is cheap, and both must hold.
	mac := s.mac(s.responderMAC, labelResponder, i.local.Key.ID(), key.ID(), reply.Signature)
	if subtle.ConstantTimeCompare(mac, reply.MAC) != 1 {
		return nil, failed("the responder's MAC does not verify")
	}
	if !key.Verify(reply.Signature, []byte(labelResponder), th) {
		return nil, failed("the responder's signature does not verify")
	}
	sig, err := i.local.Key.Sign(i.local.Rand, []byte(labelInitiator), th)
	if err != nil {
		return nil, failed("%w", err)
	}
	f := wire.Finish{Signature: sig, MAC: s.mac(s.initiatorMAC, labelInitiator, i.local.Key.ID(), key.ID(), sig)}
	s.Finish = f.Append(nil)
	s.confirmed()
	return s, nil
}

// oneShot reports whether messages on the transport name their session.
func oneShot(kind uint8) bool {
	return transport.Kind(kind) == transport.HTTP || transport.Kind(kind) == transport.MQ
}

// chosen finds the suite of that name if it was offered.
func chosen(offered []string, name string) *Suite {
	for _, o := range offered {
		if o == name {
			if s, err := SuiteByName(name); err == nil && s.Name == name {
				return s
			}
		}
	}
	return nil
}
