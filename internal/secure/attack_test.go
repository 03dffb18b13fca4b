package secure

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
)

// Every octet of every handshake message counts.
func TestHandshakeOctetFlips(t *testing.T) {
	for _, suite := range Suites() {
		t.Run(suite.Alias, func(t *testing.T) {
			v, _, _ := vectorSessions(t, suite)
			o := v.offer(t)
			for at := range v.Hello {
				i, _, _ := v.start(t, o)
				reply, _, err := v.respond(t, flipped(v.Hello, at))
				if err != nil {
					continue
				}
				if _, _, err := i.Finish(reply); !errors.Is(err, ErrHandshake) {
					t.Fatalf("hello, octet %d: %v", at, err)
				}
			}
			for at := range v.Reply {
				i, _, _ := v.start(t, o)
				if _, s, err := i.Finish(flipped(v.Reply, at)); !errors.Is(err, ErrHandshake) || s != nil {
					t.Fatalf("reply, octet %d: %v", at, err)
				}
			}
			_, s, err := v.respond(t, v.Hello)
			if err != nil {
				t.Fatal(err)
			}
			for at := range v.Finish {
				if err := s.Confirm(flipped(v.Finish, at)); !errors.Is(err, ErrHandshake) || s.Confirmed {
					t.Fatalf("finish, octet %d: %v", at, err)
				}
			}
			if err := s.Confirm(v.Finish); err != nil {
				t.Fatal("a wrong finish spoiled the right one:", err)
			}
		})
	}
}

func TestProofOctetFlips(t *testing.T) {
	v := generateProof(t)
	run := v.base()
	for at := range v.Hello {
		i, _, _ := run.start(t, v.offer())
		reply, _, err := run.respond(t, flipped(v.Hello, at))
		if err != nil {
			continue
		}
		if _, _, err := i.Finish(reply); !errors.Is(err, ErrHandshake) {
			t.Fatalf("hello, octet %d: %v", at, err)
		}
	}
	for at := range v.Reply {
		i, _, _ := run.start(t, v.offer())
		if p, _, err := i.Finish(flipped(v.Reply, at)); !errors.Is(err, ErrHandshake) || p != nil {
			t.Fatalf("reply, octet %d: %v", at, err)
		}
	}
}

// Somebody in the middle changes what the two agree about.
func TestHelloChangedInFlight(t *testing.T) {
	third := newKey(t)
	for name, change := range map[string]func(*wire.Hello){
		"suite removed":         func(h *wire.Hello) { h.Suites, h.KEM = h.Suites[1:], nil },
		"suites reordered":      func(h *wire.Hello) { h.Suites = []string{h.Suites[1], h.Suites[0]} },
		"suite added":           func(h *wire.Hello) { h.Suites = append(h.Suites, "SM2-NEXT") },
		"ML-KEM key removed":    func(h *wire.Hello) { h.KEM = nil },
		"mode weakened":         func(h *wire.Hello) { h.Mode = wire.ModeSealed },
		"mode signed":           func(h *wire.Hello) { h.Mode = wire.ModeSigned },
		"transport changed":     func(h *wire.Hello) { h.Transport = 2 },
		"recipient removed":     func(h *wire.Hello) { h.Recipient = wire.ID{} },
		"epoch changed":         func(h *wire.Hello) { h.Epoch[0] ^= 1 },
		"reply queue changed":   func(h *wire.Hello) { h.ReplyQueue = "elsewhere" },
		"request queue changed": func(h *wire.Hello) { h.RequestQueue = "elsewhere" },
		"retired session added": func(h *wire.Hello) { h.Retires = pattern(0xe0, 32) },
		"initiator replaced":    func(h *wire.Hello) { h.Key = third.Public().Bytes() },
		"ephemeral replaced":    func(h *wire.Hello) { h.Ephemeral = newKey(t).Public().Bytes() },
	} {
		t.Run(name, func(t *testing.T) {
			v := baseVector(AES)
			i, hello, _ := v.start(t, v.offer(t))
			h, err := wire.ParseHello(hello[wire.HeaderSize:])
			if err != nil {
				t.Fatal(err)
			}
			change(h)
			reply, _, err := v.respond(t, h.Append(wire.AppendHeader(nil, wire.TypeHello)))
			if err != nil {
				t.Fatal("the responder sees nothing wrong with it, so it must answer:", err)
			}
			if _, s, err := i.Finish(reply); !errors.Is(err, ErrHandshake) || s != nil {
				t.Fatalf("the initiator agrees: %v", err)
			}
		})
	}
}

// A hello for somebody else is not answered, whoever passes it on.
func TestRecipientChanged(t *testing.T) {
	a, b, c := Local{Key: newKey(t), Rand: rand.Reader}, Local{Key: newKey(t), Rand: rand.Reader}, Local{Key: newKey(t), Rand: rand.Reader}
	offer := Offer{Transport: 2, Mode: wire.ModeSealed, Suites: Suites(), Recipient: b.Key.ID(), Epoch: wire.Nonce{1}}
	start, hello, err := Start(a, offer)
	if err != nil {
		t.Fatal(err)
	}
	h, err := wire.ParseHello(hello[2:])
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Respond(c, h, hello[2:], Reply{Suites: Suites(), Epoch: wire.Nonce{2}, Time: 1}); !errors.Is(err, ErrIdentity) {
		t.Fatal(err)
	}
	// C pretends that the hello was for it. A dialled B.
	h.Recipient = wire.ID(c.Key.ID())
	reply, _, err := Respond(c, h, h.Append(nil), Reply{Suites: Suites(), Epoch: wire.Nonce{2}, Time: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := start.Finish(reply); !errors.Is(err, ErrIdentity) {
		t.Fatal(err)
	}
}

// The wrong key, the wrong role, one's own mirror image.
func TestReflectedHandshake(t *testing.T) {
	a := Local{Key: newKey(t), Rand: rand.Reader}
	start, hello, err := Start(a, Offer{Transport: 2, Mode: wire.ModeSealed, Suites: Suites(), Epoch: wire.Nonce{1}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := wire.ParseHello(hello[2:])
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Respond(a, h, hello[2:], Reply{Suites: Suites(), Epoch: wire.Nonce{1}, Time: 1}); !errors.Is(err, ErrIdentity) {
		t.Fatal("a node agrees with itself:", err)
	}
	if _, _, err := start.Finish(hello); !errors.Is(err, ErrHandshake) {
		t.Fatal(err)
	}
	for _, suite := range Suites() {
		i, r := agree(t, suite, 2)
		// The initiator's finish is no responder's proof, and the other way round.
		f, err := wire.ParseFinish(i.Finish)
		if err != nil {
			t.Fatal(err)
		}
		if r.PeerKey.Verify(f.Signature, []byte(labelResponder), r.transcript[:]) || r.PeerKey.Verify(f.Signature, []byte(labelProof), r.transcript[:]) {
			t.Fatal("a signature serves two roles")
		}
		if i.send == i.receive || i.initiatorMAC != [32]byte{} && i.initiatorMAC == i.responderMAC {
			t.Fatal("one key serves two directions")
		}
	}
}

// Halves of two handshakes of the same two nodes do not fit together.
func TestSplicedSessions(t *testing.T) {
	for _, suite := range Suites() {
		a, b := Local{Key: newKey(t), Rand: rand.Reader}, Local{Key: newKey(t), Rand: rand.Reader}
		var starts [2]*Initiator
		var replies [2][]byte
		var responders, initiators [2]*Session
		for n := range 2 {
			var hello []byte
			var err error
			if starts[n], hello, err = Start(a, Offer{Transport: 1, Mode: wire.ModeSealed, Suites: []*Suite{suite}, Recipient: b.Key.ID(), Epoch: wire.Nonce{1}}); err != nil {
				t.Fatal(err)
			}
			h, err := wire.ParseHello(hello[2:])
			if err != nil {
				t.Fatal(err)
			}
			if replies[n], responders[n], err = Respond(b, h, hello[2:], Reply{Suites: Suites(), Session: pattern(byte(n), 32), Epoch: wire.Nonce{2}, Time: 1, Lifetime: 1}); err != nil {
				t.Fatal(err)
			}
		}
		lost, _, err := Start(a, Offer{Transport: 1, Mode: wire.ModeSealed, Suites: []*Suite{suite}, Recipient: b.Key.ID(), Epoch: wire.Nonce{1}})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := lost.Finish(replies[0]); !errors.Is(err, ErrHandshake) {
			t.Fatal("the answer to another hello is taken:", err)
		}
		for n := range 2 {
			if _, initiators[n], err = starts[n].Finish(replies[n]); err != nil {
				t.Fatal(err)
			}
		}
		if err := responders[1].Confirm(initiators[0].Finish); !errors.Is(err, ErrHandshake) {
			t.Fatal("the finish of another session confirms:", err)
		}
		message, err := initiators[0].SealMessage(rand.Reader, []byte("x"), wire.Nonce{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := responders[1].OpenMessage(bytes.Clone(message), wire.Nonce{}); !errors.Is(err, ErrOpen) {
			t.Fatal(err)
		}
		copy(message[wire.HeaderSize:], responders[1].ID)
		if _, err := responders[1].OpenMessage(message, wire.Nonce{}); !errors.Is(err, ErrOpen) {
			t.Fatal("a message moved to another session opens:", err)
		}
		send, _, err := initiators[0].Directions()
		if err != nil {
			t.Fatal(err)
		}
		_, receive, err := responders[1].Directions()
		if err != nil {
			t.Fatal(err)
		}
		record, err := send.Seal(append(wire.AppendHeader(nil, wire.TypeRecord), "x"...))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := receive.Open(record); !errors.Is(err, ErrOpen) {
			t.Fatal(err)
		}
	}
}

func TestMessageOctetFlips(t *testing.T) {
	for _, suite := range Suites() {
		i, r := agree(t, suite, 1)
		nonce := wire.Nonce{9}
		request, err := i.SealMessage(rand.Reader, []byte("request"), wire.Nonce{})
		if err != nil {
			t.Fatal(err)
		}
		response, err := r.SealMessage(rand.Reader, []byte("response"), nonce)
		if err != nil {
			t.Fatal(err)
		}
		for at := range request {
			if _, err := r.OpenMessage(flipped(request, at), wire.Nonce{}); err == nil {
				t.Fatalf("request, octet %d", at)
			}
		}
		for at := range response {
			if _, err := i.OpenMessage(flipped(response, at), nonce); err == nil {
				t.Fatalf("response, octet %d", at)
			}
		}
		for n := range request {
			if _, err := r.OpenMessage(bytes.Clone(request[:n]), wire.Nonce{}); err == nil {
				t.Fatalf("%d octets of the request", n)
			}
		}
		// Sent back to where they came from, and in the other's place.
		for name, open := range map[string]func() ([]byte, error){
			"request to its sender":          func() ([]byte, error) { return i.OpenMessage(bytes.Clone(request), nonce) },
			"request to its sender as asked": func() ([]byte, error) { return i.OpenMessage(bytes.Clone(request), wire.Nonce{}) },
			"response to its sender":         func() ([]byte, error) { return r.OpenMessage(bytes.Clone(response), wire.Nonce{}) },
			"response as an answer":          func() ([]byte, error) { return r.OpenMessage(bytes.Clone(response), nonce) },
			"response without a request":     func() ([]byte, error) { return i.OpenMessage(bytes.Clone(response), wire.Nonce{}) },
			"response to another request":    func() ([]byte, error) { return i.OpenMessage(bytes.Clone(response), wire.Nonce{8}) },
		} {
			if _, err := open(); err == nil {
				t.Errorf("%s opens", name)
			}
		}
		r.Transport = 4
		if _, err := r.OpenMessage(bytes.Clone(request), wire.Nonce{}); !errors.Is(err, ErrOpen) {
			t.Error("a message opens on another transport")
		}
	}
}

// The initiator asks and the responder answers, and nothing is sealed without
// an ID, without a request's nonce or with secrets that are gone.
func TestMessagesThatMustNotBeSealed(t *testing.T) {
	i, r := agree(t, SM4, 1)
	if _, err := i.SealMessage(rand.Reader, nil, wire.Nonce{1}); err == nil {
		t.Error("the initiator answers")
	}
	if _, err := r.SealMessage(rand.Reader, nil, wire.Nonce{}); err == nil {
		t.Error("the responder seals what answers nothing")
	}
	if _, err := i.SealMessage(bytes.NewReader(make([]byte, 23)), nil, wire.Nonce{}); err == nil {
		t.Error("sealed with 23 random octets")
	}
	id := i.ID
	i.ID = nil
	if _, err := i.SealMessage(rand.Reader, nil, wire.Nonce{}); err == nil {
		t.Error("sealed without an ID")
	}
	i.ID = id
	message, err := i.SealMessage(rand.Reader, nil, wire.Nonce{})
	if err != nil {
		t.Fatal(err)
	}
	r.Erase()
	if _, err := r.OpenMessage(message, wire.Nonce{}); !errors.Is(err, ErrErased) {
		t.Error(err)
	}
	if _, err := r.SealMessage(rand.Reader, nil, wire.Nonce{1}); !errors.Is(err, ErrErased) {
		t.Error(err)
	}
	if _, _, err := r.Directions(); !errors.Is(err, ErrErased) {
		t.Error(err)
	}
	if _, _, err := i.Directions(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := i.Directions(); !errors.Is(err, ErrErased) {
		t.Error("two pairs of directions would use one key and one nonce twice:", err)
	}
	if _, err := i.SealMessage(rand.Reader, nil, wire.Nonce{}); !errors.Is(err, ErrErased) {
		t.Error(err)
	}
}

func TestRecordOctetFlips(t *testing.T) {
	for _, suite := range Suites() {
		v := generateRecords(t, suite)[0]
		record := v.Sealed[0].Record
		for at := range record {
			d := directionOf(t, suite.Name, v.Secret)
			if _, err := d.Open(flipped(record, at)); err == nil {
				t.Fatalf("octet %d", at)
			}
			if _, err := d.Open(bytes.Clone(record)); err == nil {
				t.Fatal("the direction lives on")
			}
		}
		for n := range record {
			if _, err := directionOf(t, suite.Name, v.Secret).Open(bytes.Clone(record[:n])); err == nil {
				t.Fatalf("%d octets", n)
			}
		}
	}
}

func TestKeyLimits(t *testing.T) {
	secret := pattern(1, 32)
	pair := func(records, octets uint64) (*Direction, *Direction) {
		s, r := directionOf(t, SM4.Name, secret), directionOf(t, SM4.Name, secret)
		s.Limit(records, octets)
		r.Limit(records, octets)
		return s, r
	}
	record := func() []byte { return append(wire.AppendHeader(nil, wire.TypeRecord), make([]byte, 98)...) }
	for name, c := range map[string]struct{ records, octets uint64 }{"records": {3, math.MaxUint64}, "octets": {math.MaxUint64, 300}} {
		send, receive := pair(c.records, c.octets)
		for n := range 3 {
			if used := send.Used(); used != float64(n)/3 {
				t.Errorf("%s: %v is used before record %d", name, used, n)
			}
			b, err := send.Seal(record())
			if err != nil {
				t.Fatalf("%s: record %d: %v", name, n, err)
			}
			if _, err := receive.Open(b); err != nil {
				t.Fatalf("%s: record %d: %v", name, n, err)
			}
		}
		if _, err := send.Seal(record()); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: sealed one too many: %v", name, err)
		}
		other := directionOf(t, SM4.Name, secret)
		var last []byte
		for range 4 {
			last, _ = other.Seal(record())
		}
		if _, err := receive.Open(last); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: opened one too many: %v", name, err)
		}
	}
	d := directionOf(t, SM4.Name, secret)
	d.Limit(5, 5)
	d.Limit(math.MaxUint64, math.MaxUint64)
	if d.maxRecords != 5 || d.maxOctets != 5 {
		t.Error("a limit was raised")
	}
	d.Limit(0, 0)
	if d.Used() != 1 {
		t.Error("a limit of zero is used up")
	}
	if MaxRecords != 1<<24 || MaxOctets != 64<<30 {
		t.Error("PROTOCOL names 2^24 records and 64 GiB")
	}
}

// A record that has no room for its tag is moved, not cut.
func TestSealGrows(t *testing.T) {
	for spare := range Overhead + 2 {
		v := generateRecords(t, SM4)[0]
		b := make([]byte, 0, wire.HeaderSize+len(v.Sealed[0].Body)+spare)
		b = append(wire.AppendHeader(b, wire.TypeRecord), v.Sealed[0].Body...)
		got, err := directionOf(t, SM4.Name, v.Secret).Seal(b)
		if err != nil || !bytes.Equal(got, v.Sealed[0].Record) {
			t.Errorf("%d octets to spare: %x, %v", spare, got, err)
		}
	}
}

func TestSignedPacketOctetFlips(t *testing.T) {
	for _, c := range generatePackets(t).Cases {
		if len(c.Signature) == 0 {
			continue
		}
		for at := range c.Binary {
			p, err := wire.ParsePacket(flipped(c.Binary, at))
			if err != nil {
				continue
			}
			if _, err := Verify(p, nil); !errors.Is(err, ErrSignature) {
				t.Fatalf("%s: octet %d: %v", c.Comment, at, err)
			}
			if _, err := Verify(p, key(t, c.SigningKey).Public()); !errors.Is(err, ErrSignature) {
				t.Fatalf("%s: octet %d, key known: %v", c.Comment, at, err)
			}
		}
	}
}

// The key that is known saves work and decides nothing.
func TestVerifyUsesThePacketsKey(t *testing.T) {
	a, b := newKey(t), newKey(t)
	p := &wire.Packet{Kind: wire.Request, Method: "m", Nonce: wire.Nonce{1}}
	if err := Sign(rand.Reader, a, p); err != nil {
		t.Fatal(err)
	}
	for name, known := range map[string]*identity.PublicKey{"none": nil, "right": a.Public(), "wrong": b.Public()} {
		k, err := Verify(p, known)
		if err != nil || k.ID() != a.ID() {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.SenderKey = b.Public().Bytes()
	if _, err := Verify(p, a.Public()); !errors.Is(err, ErrSignature) {
		t.Error("a signature under the known key stands for the packet's other key")
	}
}

// No input that version 1 signs is one of ours. Version 1 signs exactly 32
// octets, SHA-256(SHA-256(text)), under the same user ID; what we sign is a
// label and more, and longer in every case.
func TestNoSigningInputOfVersion1(t *testing.T) {
	const version1 = 32
	shortest := map[string]int{labelProof: 32, labelInitiator: 32, labelResponder: 32}
	for k := range wire.Open + 1 {
		p := wire.Packet{Kind: k, SenderKey: make([]byte, 64)}
		shortest[signLabel(k)] = len(p.AppendUnsigned(nil))
	}
	for label, rest := range shortest {
		if n := len(label) + rest; n <= version1 {
			t.Errorf("%q signs %d octets", label, n)
		}
		if !strings.HasPrefix(label, "OWTP/2 ") || strings.IndexByte(label, 0) != len(label)-1 {
			t.Errorf("%q does not end with its only zero octet", label)
		}
	}
}

// No label is the beginning of another, so no input of one purpose is one of
// another.
func TestLabelsArePrefixFree(t *testing.T) {
	labels := []string{labelProof, labelInitiator, labelResponder, labelDigest, labelCall,
		infoInitiatorMAC, infoResponderMAC, infoToResponder, infoToInitiator, infoRecordKey, infoRecordIV, infoMessage, infoStoreKey, infoStoreRecord, infoSessionTagKey}
	for k := range wire.Open + 1 {
		labels = append(labels, signLabel(k))
	}
	for i, a := range labels {
		for j, b := range labels {
			if i != j && strings.HasPrefix(a, b) {
				t.Errorf("%q begins with %q", a, b)
			}
		}
	}
}

// Nothing that must be fresh is used twice.
func TestNothingIsReused(t *testing.T) {
	seen := map[string]string{}
	once := func(what string, b []byte) {
		if len(b) == 0 {
			return
		}
		if old, ok := seen[string(b)]; ok {
			t.Fatalf("%s was used before as %s", what, old)
		}
		seen[string(b)] = what
	}
	a, b := Local{Key: newKey(t), Rand: rand.Reader}, Local{Key: newKey(t), Rand: rand.Reader}
	for n := range 200 {
		suite := Suites()[n%2]
		start, hello, err := Start(a, Offer{Transport: 1, Mode: wire.ModeSealed, Suites: []*Suite{suite}, Epoch: wire.Nonce{1}})
		if err != nil {
			t.Fatal(err)
		}
		h, err := wire.ParseHello(hello[2:])
		if err != nil {
			t.Fatal(err)
		}
		// The same hello twice: a responder's side is fresh each time.
		for range 2 {
			raw, s, err := Respond(b, h, hello[2:], Reply{Suites: Suites(), Session: make([]byte, 32), Epoch: wire.Nonce{2}, Time: 1})
			if err != nil {
				t.Fatal(err)
			}
			r, err := wire.ParseHelloReply(raw[2:])
			if err != nil {
				t.Fatal(err)
			}
			once("responder's ephemeral", r.Ephemeral)
			once("responder's random", r.Random[:])
			once("ML-KEM ciphertext", r.KEM)
			once("secret", s.send[:])
			once("secret", s.receive[:])
			once("MAC key", s.initiatorMAC[:])
		}
		once("initiator's ephemeral", h.Ephemeral)
		once("initiator's random", h.Random[:])
		once("ML-KEM key", h.KEM)
		if start.ephemeral == nil {
			t.Fatal("no ephemeral")
		}
	}
	i, _ := agree(t, SM4, 1)
	for range 1000 {
		m, err := i.SealMessage(rand.Reader, nil, wire.Nonce{})
		if err != nil {
			t.Fatal(err)
		}
		once("message's random", m[messageHeader:messageHeader+messageRandom])
	}
	// A nonce that came twice on a connection would seal the same octets to the
	// same octets.
	i, _ = agree(t, SM4, 2)
	out, _, err := i.Directions()
	check(t, err)
	for range 1000 {
		r, err := out.Seal(append(wire.AppendHeader(nil, wire.TypeRecord), make([]byte, 32)...))
		check(t, err)
		once("key and nonce of a record", r)
	}
}

// What is over is forgotten.
func TestSecretsAreErased(t *testing.T) {
	for _, suite := range Suites() {
		v := baseVector(suite)
		i, hello, _ := v.start(t, v.offer(t))
		reply, r, err := v.respond(t, hello)
		if err != nil {
			t.Fatal(err)
		}
		_, s, err := i.Finish(reply)
		if err != nil {
			t.Fatal(err)
		}
		if i.ephemeral != nil || i.kem != nil {
			t.Error("the initiator keeps its ephemeral keys")
		}
		if s.initiatorMAC != [32]byte{} || s.responderMAC != [32]byte{} || r.responderMAC != [32]byte{} {
			t.Error("MAC keys that have no more use")
		}
		if err := r.Confirm(s.Finish); err != nil || r.initiatorMAC != [32]byte{} {
			t.Error("the initiator's MAC key has no more use", err)
		}
		if err := r.Confirm([]byte("anything")); err != nil {
			t.Error("a finish that rides again is read again:", err)
		}
		if _, _, err := s.Directions(); err != nil || s.send != [32]byte{} || s.receive != [32]byte{} {
			t.Error("the secrets of directions that are set up", err)
		}
		if _, _, err := i.Finish(reply); !errors.Is(err, ErrHandshake) {
			t.Error("a handshake ends twice")
		}
	}
}

// Both states of a session survive a store.
func TestRecordAndRestore(t *testing.T) {
	for _, suite := range Suites() {
		v := baseVector(suite)
		o := v.offer(t)
		o.Transport = 1
		i, hello, _ := v.start(t, o)
		reply, r, err := v.respond(t, hello)
		if err != nil {
			t.Fatal(err)
		}
		_, s, err := i.Finish(reply)
		if err != nil {
			t.Fatal(err)
		}
		own := key(t, v.ResponderKey).ID()
		stored := func(from *Session) *Session {
			rec, err := wire.ParseSessionRecord(from.Record().Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			back, err := Restore(from.ID, own, rec)
			if err != nil {
				t.Fatal(err)
			}
			return back
		}
		half := stored(r)
		if half.Confirmed || half.Initiator {
			t.Fatal("half open session is confirmed after a store")
		}
		if err := half.Confirm(flipped(s.Finish, 20)); !errors.Is(err, ErrHandshake) {
			t.Fatal(err)
		}
		if err := half.Confirm(s.Finish); err != nil {
			t.Fatal(err)
		}
		full := stored(half)
		if !full.Confirmed || full.PeerKey.ID() != key(t, v.InitiatorKey).ID() || full.Mode != r.Mode || full.Transport != r.Transport ||
			full.OwnEpoch != r.OwnEpoch || full.PeerEpoch != r.PeerEpoch || !bytes.Equal(full.ID, r.ID) || full.Suite != suite {
			t.Error("restored session differs")
		}
		m, err := s.SealMessage(rand.Reader, []byte("q"), wire.Nonce{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := full.OpenMessage(m, wire.Nonce{}); err != nil {
			t.Error(err)
		}
		if m, err = full.SealMessage(rand.Reader, []byte("a"), wire.Nonce{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.OpenMessage(m, wire.Nonce{1}); err != nil {
			t.Error(err)
		}
		bad := full.Record()
		bad.Suite = "none"
		if _, err := Restore(r.ID, own, bad); err == nil {
			t.Error("unknown suite")
		}
		bad = full.Record()
		bad.PeerKey = make([]byte, 64)
		if _, err := Restore(r.ID, own, bad); err == nil {
			t.Error("bad key")
		}
		if _, err := Restore(r.ID[:31], own, full.Record()); err == nil {
			t.Error("short ID")
		}
	}
}

func TestVault(t *testing.T) {
	node := newKey(t)
	for name, k := range map[string][]byte{"short": make([]byte, 31), "long": bytes.Repeat([]byte{1}, 33), "zeros": make([]byte, 32), "nil": nil} {
		if _, err := NewVault(k, nil, node.ID()); err == nil {
			t.Errorf("%s store key", name)
		}
	}
	v, err := NewVault(pattern(1, 32), nil, node.ID())
	if err != nil {
		t.Fatal(err)
	}
	record, err := v.Seal(rand.Reader, "p", "k", []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := v.Seal(rand.Reader, "p", "k", []byte("value"))
	if err != nil || bytes.Equal(record, again) {
		t.Error("two records are the same", err)
	}
	for at := range record {
		if _, _, err := v.Open("p", "k", flipped(record, at)); !errors.Is(err, ErrRecord) {
			t.Fatalf("octet %d: %v", at, err)
		}
	}
	for n := range record {
		if _, _, err := v.Open("p", "k", record[:n]); !errors.Is(err, ErrRecord) {
			t.Fatalf("%d octets: %v", n, err)
		}
	}
	if value, stale, err := v.Open("p", "k", record); err != nil || stale || string(value) != "value" {
		t.Error("opening changed the record", err)
	}
	if _, err := v.Seal(bytes.NewReader(make([]byte, 31)), "p", "k", nil); err == nil {
		t.Error("sealed with 31 octets of salt")
	}
	id, err := v.NewSessionID(rand.Reader)
	if err != nil || !v.CheckSessionID(id) {
		t.Fatal(err)
	}
	other, err := NewVault(pattern(1, 32), nil, newKey(t).ID())
	if err != nil || other.CheckSessionID(id) {
		t.Error("another node takes the session ID", err)
	}
	v.Erase()
	if _, err := v.Seal(rand.Reader, "p", "k", nil); !errors.Is(err, ErrErased) {
		t.Error(err)
	}
	if _, _, err := v.Open("p", "k", record); !errors.Is(err, ErrErased) {
		t.Error(err)
	}
	if _, err := v.NewSessionID(rand.Reader); !errors.Is(err, ErrErased) || v.CheckSessionID(id) {
		t.Error(err)
	}
	a, errA := DefaultStoreKey(node)
	b, errB := DefaultStoreKey(newKey(t))
	if errA != nil || errB != nil || bytes.Equal(a, b) || bytes.Equal(a, node.Bytes()) {
		t.Error("default store key", errA, errB)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	_, i, r := vectorSessions(t, AES)
	half := baseVector(AES)
	half.InitiatorRandom = bytes.Repeat([]byte{0xee}, 32) // shares nothing with the secrets
	start, hello, _ := half.start(t, half.offer(t))
	_, open, err := half.respond(t, hello)
	if err != nil {
		t.Fatal(err)
	}
	vault, err := NewVault(pattern(0x31, 32), pattern(0xb1, 32), key(t, scalarB).ID())
	if err != nil {
		t.Fatal(err)
	}
	local := Local{Key: key(t, scalarA), Rand: rand.Reader}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
		for _, v := range []any{i, *i, r, open, *open, vault, *vault, local, &local, start, struct{ S Session }{*open}, []*Session{i}, struct{ V Vault }{*vault}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "i", i, "o", *open, "v", vault, "w", *vault)
	}
	fmt.Fprintf(&out, "%v %+v", (*Session)(nil), Session{})
	secrets := map[string][]byte{"send": i.send[:], "receive": i.receive[:], "MAC": open.initiatorMAC[:], "vault": pattern(0x31, 32), "previous": pattern(0xb1, 32), "tag": vault.tags.keys[0][:],
		"key": scalarA, "ephemeral": half.InitiatorEphemeral, "KEM seed": half.InitiatorKEMSeed}
	for name, s := range secrets {
		// Eight octets are enough to say that it was no chance.
		for _, form := range []string{fmt.Sprintf("%x", s[:8]), fmt.Sprintf("%X", s[:8]), strings.Trim(fmt.Sprint(s[:8]), "[]"), strings.Trim(fmt.Sprintf("%#v", s[:8]), "[]byte{}"), fmt.Sprintf("%q", s[:8])} {
			if strings.Contains(out.String(), form) {
				t.Errorf("%s is printed: %s", name, form)
			}
		}
	}
}

func TestRandomnessThatRunsOut(t *testing.T) {
	for _, suite := range Suites() {
		v := baseVector(suite)
		full := newTape(v.InitiatorRandom, v.InitiatorEphemeral, v.InitiatorKEMSeed).rest
		for n := range len(full) {
			if _, _, err := Start(Local{Key: newKey(t), Rand: bytes.NewReader(full[:n])}, v.offer(t)); !errors.Is(err, ErrHandshake) {
				t.Fatalf("a hello from %d octets: %v", n, err)
			}
		}
		_, hello, _ := v.start(t, v.offer(t))
		h, err := wire.ParseHello(hello[2:])
		if err != nil {
			t.Fatal(err)
		}
		draws := newTape(v.ResponderRandom, v.ResponderEphemeral, v.ResponderSigningRandom).rest
		for n := 0; n < len(draws); n += 31 {
			_, s, err := Respond(Local{Key: key(t, v.ResponderKey), Rand: bytes.NewReader(draws[:n])}, h, hello[2:], Reply{Suites: Suites(), Epoch: wire.Nonce{1}, Time: 1})
			if !errors.Is(err, ErrHandshake) || s != nil {
				t.Fatalf("an answer from %d octets: %v", n, err)
			}
		}
	}
	zeros := Local{Key: newKey(t), Rand: bytes.NewReader(append(make([]byte, 32+16*32), 1))}
	if _, _, err := Start(zeros, Offer{Transport: 2, Mode: wire.ModeSealed, Suites: Suites(), Epoch: wire.Nonce{1}}); !errors.Is(err, ErrHandshake) {
		t.Error("a source of zeros:", err)
	}
}

func TestSuites(t *testing.T) {
	for name, want := range map[string]*Suite{"aes": AES, "sm4": SM4, "SM2-MLKEM768-AES256GCM": AES, "SM2-SM4GCM": SM4} {
		if s, err := SuiteByName(name); err != nil || s != want {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	for _, name := range []string{"", "AES", "SM4", "aes ", "SM2-SM4GCM\x00", "none"} {
		_, err := SuiteByName(name)
		if err == nil || !strings.Contains(err.Error(), `"aes"`) || !strings.Contains(err.Error(), `"sm4"`) {
			t.Errorf("%q: %v", name, err)
		}
	}
	h := &wire.Hello{Suites: []string{AES.Name, SM4.Name}}
	if s, err := ChooseSuite(h, Suites()); err != nil || s != SM4 {
		t.Error("a hybrid suite without its key:", s, err)
	}
	h.KEM = []byte{1}
	if s, err := ChooseSuite(h, []*Suite{SM4, AES}); err != nil || s != AES {
		t.Error("the initiator's order decides:", s, err)
	}
	if _, err := ChooseSuite(h, nil); !errors.Is(err, ErrHandshake) {
		t.Error(err)
	}
	if !reflect.DeepEqual(Suites(), []*Suite{AES, SM4}) {
		t.Error("order of preference")
	}
}

// Identities of the vectors against the second implementation.
func TestIdentityVectorsAgainstReference(t *testing.T) {
	var v struct {
		Cases []struct {
			Comment    string `json:"comment"`
			PrivateKey octets `json:"private_key"`
			PublicKey  octets `json:"public_key"`
			IDHash     octets `json:"id_hash"`
			ZA         octets `json:"za"`
			Text       string `json:"private_text"`
			ID         string `json:"id"`
		} `json:"cases"`
		About   string `json:"about"`
		Scalars []any  `json:"refused_private_keys"`
		Texts   []any  `json:"refused_private_texts"`
		Points  []any  `json:"refused_public_keys"`
		IDs     []any  `json:"refused_ids"`
	}
	readVectors(t, "identity.json", &v)
	if len(v.Cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range v.Cases {
		if !bytes.Equal(refBase(c.PrivateKey).bytes(), c.PublicKey) || !bytes.Equal(refZA(c.PublicKey, c.IDHash), c.ZA) {
			t.Errorf("%s: the reference has another key or ZA", c.Comment)
		}
	}
}
