package secure

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
)

func newKey(t testing.TB) *identity.PrivateKey {
	t.Helper()
	k, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// agree runs a whole handshake.
func agree(t testing.TB, suite *Suite, transport uint8) (initiator, responder *Session) {
	t.Helper()
	a, b := Local{Key: newKey(t), Rand: rand.Reader}, Local{Key: newKey(t), Rand: rand.Reader}
	start, hello, err := Start(a, Offer{Transport: transport, Mode: wire.ModeSealed, Suites: []*Suite{suite}, Recipient: b.Key.ID(), Epoch: wire.Nonce{1}})
	if err != nil {
		t.Fatal(err)
	}
	_, body, err := wire.ParseHeader(hello)
	if err != nil {
		t.Fatal(err)
	}
	h, err := wire.ParseHello(body)
	if err != nil {
		t.Fatal(err)
	}
	session := bytes.Repeat([]byte{7}, wire.SessionIDSize)
	reply, responder, err := Respond(b, h, body, Reply{Suites: Suites(), Session: session, Epoch: wire.Nonce{2}, Time: 1, Lifetime: 5})
	if err != nil {
		t.Fatal(err)
	}
	proof, initiator, err := start.Finish(reply)
	if err != nil {
		t.Fatal(err)
	}
	if proof.Key.ID() != b.Key.ID() || responder.PeerKey.ID() != a.Key.ID() {
		t.Fatal("wrong peers")
	}
	if responder.Confirmed {
		t.Fatal("confirmed without a finish")
	}
	if err := responder.Confirm(initiator.Finish); err != nil {
		t.Fatal(err)
	}
	return initiator, responder
}

func TestHandshakeAgreesOnKeys(t *testing.T) {
	for _, suite := range Suites() {
		t.Run(suite.Alias, func(t *testing.T) {
			i, r := agree(t, suite, 2)
			send, _, err := i.Directions()
			if err != nil {
				t.Fatal(err)
			}
			_, receive, err := r.Directions()
			if err != nil {
				t.Fatal(err)
			}
			for n := range 3 {
				record := append(wire.AppendHeader(nil, wire.TypeRecord), "hello"...)
				sealed, err := send.Seal(record)
				if err != nil {
					t.Fatal(err)
				}
				plain, err := receive.Open(sealed)
				if err != nil || string(plain) != "hello" {
					t.Fatalf("record %d: %q, %v", n, plain, err)
				}
			}
		})
	}
}

func TestMessageRoundTrip(t *testing.T) {
	for _, suite := range Suites() {
		i, r := agree(t, suite, 1)
		msg, err := i.SealMessage(rand.Reader, []byte("request"), wire.Nonce{})
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := r.OpenMessage(msg, wire.Nonce{}); err != nil || string(plain) != "request" {
			t.Fatalf("%q, %v", plain, err)
		}
		nonce := wire.Nonce{9}
		msg, err = r.SealMessage(rand.Reader, []byte("response"), nonce)
		if err != nil {
			t.Fatal(err)
		}
		other := bytes.Clone(msg)
		if _, err := i.OpenMessage(other, wire.Nonce{8}); err == nil {
			t.Fatal("a response opened for another request")
		}
		if plain, err := i.OpenMessage(msg, nonce); err != nil || string(plain) != "response" {
			t.Fatalf("%q, %v", plain, err)
		}
	}
}

func BenchmarkHandshake(b *testing.B) {
	for _, suite := range Suites() {
		b.Run(suite.Alias, func(b *testing.B) {
			for b.Loop() {
				agree(b, suite, 2)
			}
		})
	}
}
