package secure

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/emmansun/gmsm/ecdh"
	"github.com/emmansun/gmsm/sm3"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
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
