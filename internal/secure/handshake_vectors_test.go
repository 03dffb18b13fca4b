package secure

import (
	"bytes"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"testing"

	"github.com/emmansun/gmsm/ecdh"
	"github.com/emmansun/gmsm/sm3"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
)

type handshakeVectors struct {
	About string            `json:"about"`
	Cases []handshakeVector `json:"cases"`
	Proof proofVector       `json:"proof"`
}

type handshakeVector struct {
	Comment string `json:"comment"`
	Suite   string `json:"suite"`

	InitiatorKey octets `json:"initiator_key"`
	ResponderKey octets `json:"responder_key"`

	InitiatorRandom        octets `json:"initiator_random"`
	InitiatorEphemeral     octets `json:"initiator_ephemeral"`
	InitiatorKEMSeed       octets `json:"initiator_kem_seed,omitempty"`
	InitiatorSigningRandom octets `json:"initiator_signing_random"`
	ResponderRandom        octets `json:"responder_random"`
	ResponderEphemeral     octets `json:"responder_ephemeral"`
	ResponderKEMRandom     octets `json:"responder_kem_random,omitempty"`
	ResponderSigningRandom octets `json:"responder_signing_random"`

	HelloFields []refField `json:"hello_fields"`
	Hello       octets     `json:"hello"`
	ReplyFields []refField `json:"reply_fields"`
	Reply       octets     `json:"reply"`
	Transcript  octets     `json:"transcript_hash"`

	SM2Exchange octets `json:"sm2_exchange"`
	ECDH        octets `json:"ecdh"`
	KEMSecret   octets `json:"kem_secret,omitempty"`
	PRK         octets `json:"prk"`

	ToResponder  octets `json:"key_initiator_to_responder"`
	ToInitiator  octets `json:"key_responder_to_initiator"`
	InitiatorMAC octets `json:"key_initiator_mac"`
	ResponderMAC octets `json:"key_responder_mac"`

	FinishFields []refField `json:"finish_fields"`
	Finish       octets     `json:"finish"`

	Refused []refusedMessage `json:"refused"`
}

type refusedMessage struct {
	Comment string `json:"comment"`
	To      string `json:"to"` // what is replaced: hello, reply or finish
	Message octets `json:"message"`
	Class   string `json:"class"`
}

type proofVector struct {
	Comment                string           `json:"comment"`
	InitiatorKey           octets           `json:"initiator_key"`
	ResponderKey           octets           `json:"responder_key"`
	InitiatorRandom        octets           `json:"initiator_random"`
	ResponderRandom        octets           `json:"responder_random"`
	ResponderSigningRandom octets           `json:"responder_signing_random"`
	HelloFields            []refField       `json:"hello_fields"`
	Hello                  octets           `json:"hello"`
	ReplyFields            []refField       `json:"reply_fields"`
	Reply                  octets           `json:"reply"`
	Transcript             octets           `json:"transcript_hash"`
	Refused                []refusedMessage `json:"refused"`
}

// start runs the initiator's first half of a vector with its randomness.
func (v *handshakeVector) start(t testing.TB, o Offer) (*Initiator, []byte, *tape) {
	random := newTape(v.InitiatorRandom, v.InitiatorEphemeral, v.InitiatorKEMSeed, v.InitiatorSigningRandom)
	i, hello, err := Start(Local{Key: key(t, v.InitiatorKey), Rand: random}, o)
	if err != nil {
		t.Fatal(err)
	}
	return i, hello, random
}

func (v *handshakeVector) offer(t testing.TB) Offer {
	suite, err := SuiteByName(v.Suite)
	if err != nil {
		t.Fatal(err)
	}
	o := Offer{
		Transport: 2, Mode: wire.ModeSealed, Suites: []*Suite{suite},
		Recipient: key(t, v.ResponderKey).ID(), Epoch: wire.Nonce(pattern(0xa0, 16)),
	}
	if suite == AES {
		o.Transport, o.Suites = 1, Suites()
		o.Mode, o.Retires = wire.ModeSealedSigned, pattern(0xd0, 32)
	}
	return o
}

// respond answers a hello as the vector's responder.
func (v *handshakeVector) respond(t testing.TB, hello []byte) ([]byte, *Session, error) {
	random := newTape(v.ResponderRandom, v.ResponderEphemeral, v.ResponderSigningRandom)
	local := Local{Key: key(t, v.ResponderKey), Rand: random, Encapsulate: func(ek *mlkem.EncapsulationKey768) ([]byte, []byte, error) {
		return mlkemtest.Encapsulate768(ek, v.ResponderKEMRandom)
	}}
	typ, body, err := wire.ParseHeader(hello)
	if err != nil {
		return nil, nil, err
	}
	if typ != wire.TypeHello {
		return nil, nil, wire.ErrMalformed
	}
	h, err := wire.ParseHello(body)
	if err != nil {
		return nil, nil, err
	}
	r := Reply{Suites: Suites(), Epoch: wire.Nonce(pattern(0xb0, 16)), Time: 1767225600000}
	if h.Transport == 1 && !h.Proof() {
		r.Session, r.Lifetime = sessionID(t), 3600000
	}
	reply, s, err := Respond(local, h, body, r)
	if err == nil {
		random.end(t)
	}
	return reply, s, err
}

// sessionID is the first ID of the vectors of the store.
func sessionID(t testing.TB) []byte {
	v, err := NewVault(pattern(0x01, 32), nil, key(t, scalarB).ID())
	if err != nil {
		t.Fatal(err)
	}
	id, err := v.NewSessionID(newTape(pattern(0xc0, 16)))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func baseVector(suite *Suite) handshakeVector {
	v := handshakeVector{
		Comment: suite.Name, Suite: suite.Name, InitiatorKey: scalarA, ResponderKey: scalarB,
		InitiatorRandom: pattern(0x01, 32), InitiatorEphemeral: pattern(0x21, 32), InitiatorSigningRandom: pattern(0x41, 32),
		ResponderRandom: pattern(0x61, 32), ResponderEphemeral: pattern(0x81, 32), ResponderSigningRandom: pattern(0x91, 32),
	}
	if suite.Hybrid {
		v.InitiatorKEMSeed, v.ResponderKEMRandom = pattern(0x11, 64), pattern(0xe1-0x20, 32)
	}
	return v
}

// vectorSessions runs the handshake of the vectors.
func vectorSessions(t testing.TB, suite *Suite) (v handshakeVector, initiator, responder *Session) {
	t.Helper()
	v = baseVector(suite)
	i, hello, random := v.start(t, v.offer(t))
	reply, responder, err := v.respond(t, hello)
	if err != nil {
		t.Fatal(err)
	}
	v.Hello, v.Reply = hello, reply
	v.InitiatorMAC = bytes.Clone(responder.initiatorMAC[:])
	_, initiator, err = i.Finish(reply)
	if err != nil {
		t.Fatal(err)
	}
	random.end(t)
	v.Finish = initiator.Finish
	v.Transcript = bytes.Clone(initiator.transcript[:])
	v.ToResponder, v.ToInitiator = bytes.Clone(initiator.send[:]), bytes.Clone(initiator.receive[:])
	if err := responder.Confirm(initiator.Finish); err != nil {
		t.Fatal(err)
	}
	return v, initiator, responder
}

func generateHandshake(t testing.TB, suite *Suite) handshakeVector {
	v, _, _ := vectorSessions(t, suite)
	h, err := wire.ParseHello(v.Hello[2:])
	if err != nil {
		t.Fatal(err)
	}
	r, err := wire.ParseHelloReply(v.Reply[2:])
	if err != nil {
		t.Fatal(err)
	}
	f, err := wire.ParseFinish(v.Finish)
	if err != nil {
		t.Fatal(err)
	}
	v.HelloFields, v.ReplyFields = helloFields(h), replyFields(r)
	var ff fieldList
	ff.octets(1, f.Signature)
	ff.octets(2, f.MAC)
	v.FinishFields = ff
	v.material(t, suite, h, r)
	v.Refused = refusedHandshakes(t, &v, h, r)
	return v
}

// material fills in the key schedule as the code runs it.
func (v *handshakeVector) material(t testing.TB, suite *Suite, h *wire.Hello, r *wire.HelloReply) {
	ephemeral, err := ecdh.P256().NewPrivateKey(v.InitiatorEphemeral)
	if err != nil {
		t.Fatal(err)
	}
	point, err := parsePoint(r.Ephemeral)
	if err != nil {
		t.Fatal(err)
	}
	var kem []byte
	if suite.Hybrid {
		dk, err := mlkem.NewDecapsulationKey768(v.InitiatorKEMSeed)
		if err != nil {
			t.Fatal(err)
		}
		if kem, err = dk.Decapsulate(r.KEM); err != nil {
			t.Fatal(err)
		}
		v.KEMSecret = bytes.Clone(kem)
	}
	ex := exchange{local: key(t, v.InitiatorKey), ephemeral: ephemeral, remote: key(t, v.ResponderKey).Public(), remoteEphemeral: point, initiator: true}
	ikm, err := ex.material(kem)
	if err != nil {
		t.Fatal(err)
	}
	v.SM2Exchange, v.ECDH = bytes.Clone(ikm[:32]), bytes.Clone(ikm[32:64])
	v.PRK = refHMAC(suite.hash, v.Transcript, ikm)
	s, err := deriveSession(suite, ikm, v.Transcript, true)
	if err != nil {
		t.Fatal(err)
	}
	v.ResponderMAC = bytes.Clone(s.responderMAC[:])
}

// badPoints are encodings that are no keys.
func badPoints(t testing.TB) map[string][]byte {
	t.Helper()
	g := refBase(scalarB)
	shifted := make([]byte, 64)
	// The smallest x of a point for which x + p fits into 32 octets: both
	// encode the same residue, and only one is allowed.
	for x := int64(1); ; x++ {
		if p, ok := refLift(x); ok {
			p.x.Add(p.x, refP).FillBytes(shifted[:32])
			p.y.FillBytes(shifted[32:])
			break
		}
	}
	return map[string][]byte{
		"off the curve":            flipped(g.bytes(), -1),
		"x + p instead of x":       shifted,
		"all zeros":                make([]byte, 64),
		"infinity as SEC 1 has it": append(make([]byte, 63), 1),
		"all ones":                 bytes.Repeat([]byte{0xff}, 64),
		"x is p":                   append(refP.FillBytes(make([]byte, 32)), g.bytes()[32:]...),
	}
}

func refusedHandshakes(t testing.TB, v *handshakeVector, h *wire.Hello, r *wire.HelloReply) []refusedMessage {
	var out []refusedMessage
	hello := func(comment, class string, change func(*wire.Hello)) {
		c := *h
		c.Suites = append([]string(nil), h.Suites...)
		change(&c)
		out = append(out, refusedMessage{comment, "hello", c.Append(wire.AppendHeader(nil, wire.TypeHello)), class})
	}
	reply := func(comment, class string, change func(*wire.HelloReply)) {
		c := *r
		change(&c)
		out = append(out, refusedMessage{comment, "reply", c.Append(wire.AppendHeader(nil, wire.TypeHelloReply)), class})
	}
	own := key(t, v.ResponderKey).Public().Bytes()
	hello("the responder's own key", "identity", func(h *wire.Hello) { h.Key = own })
	hello("for another node", "identity", func(h *wire.Hello) { h.Recipient[0] ^= 1 })
	hello("no suite that the responder knows", "handshake", func(h *wire.Hello) { h.Suites = []string{"SM2-NULL"} })
	hello("a suite by its short name", "handshake", func(h *wire.Hello) { h.Suites = []string{"aes", "sm4"} })
	hello("ephemeral is the initiator's static key", "handshake", func(h *wire.Hello) { h.Ephemeral = h.Key })
	hello("ephemeral is the responder's static key", "handshake", func(h *wire.Hello) { h.Ephemeral = own })
	hello("open mode", "malformed", func(h *wire.Hello) { h.Mode = wire.ModeOpen })
	hello("suites and no ephemeral", "malformed", func(h *wire.Hello) { h.Ephemeral = nil })
	hello("no suites and an ephemeral", "malformed", func(h *wire.Hello) { h.Suites = nil })
	hello("no random", "malformed", func(h *wire.Hello) { h.Random = [32]byte{} })
	hello("no epoch", "malformed", func(h *wire.Hello) { h.Epoch = wire.Nonce{} })
	for _, name := range sortedKeys(badPoints(t)) {
		p := badPoints(t)[name]
		hello("static key "+name, "handshake", func(h *wire.Hello) { h.Key = p })
		hello("ephemeral key "+name, "handshake", func(h *wire.Hello) { h.Ephemeral = p })
		reply("static key "+name, "handshake", func(r *wire.HelloReply) { r.Key = p })
		reply("ephemeral key "+name, "handshake", func(r *wire.HelloReply) { r.Ephemeral = p })
	}
	out = append(out, refusedMessage{"header of version 1", "hello", append(octets{1, 1}, v.Hello[2:]...), "version"},
		refusedMessage{"header of a reply", "hello", append(octets{2, 2}, v.Hello[2:]...), "malformed"},
		refusedMessage{"version 3 inside", "hello", append(octets{2, 1, 8, 3}, v.Hello[4:]...), "version"},
		refusedMessage{"an octet too many", "hello", append(bytes.Clone(v.Hello), 0), "malformed"},
		refusedMessage{"an octet too few", "hello", v.Hello[:len(v.Hello)-1], "malformed"})
	if h.KEM != nil {
		hello("ML-KEM key with a coefficient that is not below q", "handshake", func(h *wire.Hello) {
			h.KEM = bytes.Clone(h.KEM)
			h.KEM[0], h.KEM[1] = 0xff, h.KEM[1]|0x0f
		})
		reply("ML-KEM ciphertext changed", "handshake", func(r *wire.HelloReply) { r.KEM = flipped(r.KEM, 7) })
		reply("no ML-KEM ciphertext", "handshake", func(r *wire.HelloReply) { r.KEM = nil })
		reply("the other suite, offered but weaker", "handshake", func(r *wire.HelloReply) { r.Suite, r.KEM = SM4.Name, nil })
		reply("no session", "handshake", func(r *wire.HelloReply) { r.Session = nil })
		reply("another session", "handshake", func(r *wire.HelloReply) { r.Session = flipped(r.Session, 0) })
	} else {
		reply("a suite that was not offered", "handshake", func(r *wire.HelloReply) { r.Suite = AES.Name })
		reply("ML-KEM ciphertext that was not asked for", "handshake", func(r *wire.HelloReply) { r.KEM = make([]byte, wire.KEMCiphertextSize) })
	}
	initiator := key(t, v.InitiatorKey).Public().Bytes()
	reply("from another node", "identity", func(r *wire.HelloReply) { r.Key = refBase(pattern(0x77, 32)).bytes() })
	reply("the initiator's own key", "identity", func(r *wire.HelloReply) { r.Key = initiator })
	reply("the initiator's ephemeral key as static key", "handshake", func(r *wire.HelloReply) { r.Key = h.Ephemeral })
	reply("ephemeral is the responder's static key", "handshake", func(r *wire.HelloReply) { r.Ephemeral = r.Key })
	reply("ephemeral is the initiator's static key", "handshake", func(r *wire.HelloReply) { r.Ephemeral = initiator })
	reply("ephemeral is the initiator's ephemeral", "handshake", func(r *wire.HelloReply) { r.Ephemeral = h.Ephemeral })
	reply("signature changed", "handshake", func(r *wire.HelloReply) { r.Signature = flipped(r.Signature, 40) })
	reply("MAC changed", "handshake", func(r *wire.HelloReply) { r.MAC = flipped(r.MAC, 31) })
	reply("epoch changed", "handshake", func(r *wire.HelloReply) { r.Epoch[3] ^= 1 })
	reply("time changed", "handshake", func(r *wire.HelloReply) { r.Time++ })
	reply("random changed", "handshake", func(r *wire.HelloReply) { r.Random[31] ^= 1 })
	reply("no MAC", "malformed", func(r *wire.HelloReply) { r.MAC = nil })
	reply("answer to a proof hello", "handshake", func(r *wire.HelloReply) {
		*r = wire.HelloReply{Key: r.Key, Random: r.Random, Epoch: r.Epoch, Time: r.Time, Signature: r.Signature}
	})
	f := wire.Finish{Signature: r.Signature, MAC: r.MAC}
	return append(out,
		refusedMessage{"the hello sent back", "reply", v.Hello, "handshake"},
		refusedMessage{"the responder's own signature and MAC sent back", "finish", f.Append(nil), "handshake"},
		refusedMessage{"signature changed", "finish", flipped(v.Finish, 10), "handshake"},
		refusedMessage{"MAC changed", "finish", flipped(v.Finish, -1), "handshake"},
		refusedMessage{"without MAC", "finish", v.Finish[:66], "malformed"},
		refusedMessage{"nothing", "finish", octets{}, "malformed"})
}

func generateProof(t testing.TB) proofVector {
	v := proofVector{
		Comment: "a proof hello: no suites, no ephemerals, no MAC; the transcript is hashed with SM3", InitiatorKey: scalarA, ResponderKey: scalarB,
		InitiatorRandom: pattern(0x01, 32), ResponderRandom: pattern(0x61, 32), ResponderSigningRandom: pattern(0x91, 32),
	}
	run := v.base()
	i, hello, random := run.start(t, v.offer())
	random.end(t)
	reply, s, err := run.respond(t, hello)
	if err != nil || s != nil {
		t.Fatal(err, s)
	}
	if _, s, err := i.Finish(reply); err != nil || s != nil {
		t.Fatal(err, s)
	}
	h, err := wire.ParseHello(hello[2:])
	if err != nil {
		t.Fatal(err)
	}
	r, err := wire.ParseHelloReply(reply[2:])
	if err != nil {
		t.Fatal(err)
	}
	v.Hello, v.Reply, v.HelloFields, v.ReplyFields = hello, reply, helloFields(h), replyFields(r)
	v.Transcript = transcript(nil, hello[2:], r)
	refuse := func(comment, class string, change func(*wire.HelloReply)) {
		c := *r
		change(&c)
		v.Refused = append(v.Refused, refusedMessage{comment, "reply", c.Append(wire.AppendHeader(nil, wire.TypeHelloReply)), class})
	}
	refuse("signature changed", "handshake", func(r *wire.HelloReply) { r.Signature = flipped(r.Signature, 1) })
	refuse("key changed to another good one", "handshake", func(r *wire.HelloReply) { r.Key = refBase(pattern(0x77, 32)).bytes() })
	refuse("epoch changed", "handshake", func(r *wire.HelloReply) { r.Epoch[0] ^= 1 })
	refuse("time changed", "handshake", func(r *wire.HelloReply) { r.Time ^= 1 })
	refuse("queue added", "handshake", func(r *wire.HelloReply) { r.Queue = "elsewhere" })
	refuse("the initiator's own key", "identity", func(r *wire.HelloReply) { r.Key = h.Key })
	refuse("with a suite", "malformed", func(r *wire.HelloReply) { r.Suite = SM4.Name })
	bad := *h
	bad.Key = badPoints(t)["off the curve"]
	v.Refused = append(v.Refused, refusedMessage{"key off the curve", "hello", bad.Append(wire.AppendHeader(nil, wire.TypeHello)), "handshake"})
	return v
}

func (v *proofVector) base() *handshakeVector {
	return &handshakeVector{InitiatorKey: v.InitiatorKey, ResponderKey: v.ResponderKey, InitiatorRandom: v.InitiatorRandom,
		ResponderRandom: v.ResponderRandom, ResponderSigningRandom: v.ResponderSigningRandom}
}

func (v *proofVector) offer() Offer {
	return Offer{Transport: 1, Mode: wire.ModeSigned, Epoch: wire.Nonce(pattern(0xa0, 16))}
}

func TestHandshakeVectors(t *testing.T) {
	generated := handshakeVectors{
		About: "Whole handshakes with fixed randomness (PROTOCOL 6). initiator_key, responder_key and the ephemerals are scalars. " +
			"hello and reply are whole messages with their header of two octets; finish is what rides in field 22 of packets. " +
			"The draws are taken in the order: initiator random, ephemeral, ML-KEM seed d||z; responder random, ephemeral, ML-KEM randomness m, signing; initiator signing. " +
			"prk is HKDF-Extract with the transcript hash as salt over sm2_exchange || ecdh || kem_secret. " +
			"refused replaces one message of the run, the others being as they are; class names the failure.",
		Proof: generateProof(t),
	}
	for _, s := range Suites() {
		generated.Cases = append(generated.Cases, generateHandshake(t, s))
	}
	v := compareVectors(t, "handshake.json", generated)
	if len(v.Cases) != len(Suites()) {
		t.Fatal("a suite without a case")
	}
	for _, c := range v.Cases {
		checkHandshake(t, &c)
		if len(c.Refused) == 0 {
			t.Fatal("nothing is refused")
		}
		for _, r := range c.Refused {
			if got := class(c.refuse(t, c.offer(t), r)); got != r.Class {
				t.Errorf("%s: %s, %s: class %s, want %s", c.Comment, r.To, r.Comment, got, r.Class)
			}
		}
	}
	checkProof(t, &v.Proof)
	for _, r := range v.Proof.Refused {
		if got := class(v.Proof.base().refuse(t, v.Proof.offer(), r)); got != r.Class {
			t.Errorf("proof: %s, %s: class %s, want %s", r.To, r.Comment, got, r.Class)
		}
	}
}

// refuse runs the handshake with one message replaced and returns the error.
func (v *handshakeVector) refuse(t testing.TB, o Offer, m refusedMessage) error {
	i, hello, _ := v.start(t, o)
	if m.To == "hello" {
		_, _, err := v.respond(t, m.Message)
		return err
	}
	reply, s, err := v.respond(t, hello)
	if err != nil {
		t.Fatal(err)
	}
	if m.To == "finish" {
		return s.Confirm(m.Message)
	}
	_, _, err = i.Finish(bytes.Clone(m.Message))
	if err != nil && len(reply) > 0 {
		if _, _, again := i.Finish(reply); again == nil {
			t.Errorf("%s: a handshake that failed went on", m.Comment)
		}
	}
	return err
}

// checkHandshake recomputes a case from its draws without the code under test.
func checkHandshake(t *testing.T, c *handshakeVector) {
	newHash := map[string]func() hash.Hash{AES.Name: sha256.New, SM4.Name: sm3.New}[c.Suite]
	eq := func(what string, got, want []byte) {
		t.Helper()
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %s: the reference has\n%x, the vector\n%x", c.Comment, what, got, want)
		}
	}
	eq("hello", append([]byte{2, 1}, refEncode(c.HelloFields)...), c.Hello)
	eq("reply", append([]byte{2, 2}, refEncode(c.ReplyFields)...), c.Reply)
	eq("finish", refEncode(c.FinishFields), c.Finish)
	a, b := refBase(c.InitiatorKey).bytes(), refBase(c.ResponderKey).bytes()
	ea, eb := refBase(c.InitiatorEphemeral).bytes(), refBase(c.ResponderEphemeral).bytes()
	ida, idb := sha256.Sum256(a), sha256.Sum256(b)
	eq("initiator's key", field(t, c.HelloFields, 5), a)
	eq("recipient", field(t, c.HelloFields, 6), idb[:])
	eq("initiator's random", field(t, c.HelloFields, 7), c.InitiatorRandom)
	eq("initiator's ephemeral", field(t, c.HelloFields, 8), ea)
	eq("responder's key", field(t, c.ReplyFields, 3), b)
	eq("responder's random", field(t, c.ReplyFields, 4), c.ResponderRandom)
	eq("responder's ephemeral", field(t, c.ReplyFields, 5), eb)

	th := refTranscript(newHash, c.HelloFields, c.ReplyFields)
	eq("transcript hash", th, c.Transcript)
	za, zb := refZA(a, ida[:]), refZA(b, idb[:])
	eq("SM2 exchange, initiator", refExchange(c.InitiatorKey, c.InitiatorEphemeral, b, eb, za, zb, 32), c.SM2Exchange)
	eq("SM2 exchange, responder", refExchange(c.ResponderKey, c.ResponderEphemeral, a, ea, za, zb, 32), c.SM2Exchange)
	eq("ECDH", refParse(eb).mul(refPointInt(c.InitiatorEphemeral)).bytes()[:32], c.ECDH)
	if c.Suite == AES.Name {
		dk, err := mlkem.NewDecapsulationKey768(c.InitiatorKEMSeed)
		if err != nil {
			t.Fatal(err)
		}
		eq("ML-KEM key", field(t, c.HelloFields, 9), dk.EncapsulationKey().Bytes())
		secret, ciphertext, err := mlkemtest.Encapsulate768(dk.EncapsulationKey(), c.ResponderKEMRandom)
		if err != nil {
			t.Fatal(err)
		}
		eq("ML-KEM ciphertext", field(t, c.ReplyFields, 6), ciphertext)
		eq("ML-KEM secret", secret, c.KEMSecret)
	}
	prk := refHMAC(newHash, th, c.SM2Exchange, c.ECDH, c.KEMSecret)
	eq("prk", prk, c.PRK)
	for label, want := range map[string][]byte{
		"OWTP/2 key initiator to responder\x00": c.ToResponder, "OWTP/2 key responder to initiator\x00": c.ToInitiator,
		"OWTP/2 key initiator mac\x00": c.InitiatorMAC, "OWTP/2 key responder mac\x00": c.ResponderMAC,
	} {
		eq(label, refExpand(newHash, prk, []byte(label), 32), want)
	}
	for _, side := range []struct {
		label, mac            string
		signer, id, sign, tag []byte
		key                   []byte
	}{
		{"OWTP/2 responder\x00", "reply", b, idb[:], field(t, c.ReplyFields, 12), field(t, c.ReplyFields, 13), c.ResponderMAC},
		{"OWTP/2 initiator\x00", "finish", a, ida[:], field(t, c.FinishFields, 1), field(t, c.FinishFields, 2), c.InitiatorMAC},
	} {
		if !refVerify(side.signer, side.id, side.sign, []byte(side.label), th) {
			t.Errorf("%s: %s: signature", c.Comment, side.mac)
		}
		eq(side.mac+": MAC", refHMAC(newHash, side.key, []byte(side.label), th, ida[:], idb[:], side.sign), side.tag)
	}
}

func checkProof(t *testing.T, v *proofVector) {
	if !bytes.Equal(append([]byte{2, 1}, refEncode(v.HelloFields)...), v.Hello) || !bytes.Equal(append([]byte{2, 2}, refEncode(v.ReplyFields)...), v.Reply) {
		t.Error("proof: encoding")
	}
	th := refTranscript(sm3.New, v.HelloFields, v.ReplyFields)
	if !bytes.Equal(th, v.Transcript) {
		t.Error("proof: transcript hash")
	}
	b := refBase(v.ResponderKey).bytes()
	id := sha256.Sum256(b)
	if !refVerify(b, id[:], field(t, v.ReplyFields, 12), []byte("OWTP/2 proof\x00"), th) {
		t.Error("proof: signature")
	}
	if identity.ID(id) != key(t, v.ResponderKey).ID() {
		t.Error("proof: ID")
	}
}

func field(t testing.TB, fields []refField, number int) []byte {
	t.Helper()
	for _, f := range fields {
		if f.Number == number {
			return unhex(t, f.Value)
		}
	}
	t.Fatalf("no field %d", number)
	return nil
}

// refTranscript hashes len ‖ hello ‖ len ‖ reply without fields 12 and 13.
func refTranscript(newHash func() hash.Hash, hello, reply []refField) []byte {
	var unsigned []refField
	for _, f := range reply {
		if f.Number < 12 {
			unsigned = append(unsigned, f)
		}
	}
	h := newHash()
	for _, fields := range [][]refField{hello, unsigned} {
		b := refEncode(fields)
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		h.Write(b)
	}
	return h.Sum(nil)
}
