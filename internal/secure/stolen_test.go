package secure

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/emmansun/gmsm/ecdh"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
)

// Both private keys, stolen later, and everything that passed: no traffic secret
// of the session follows from them, not even for somebody who can break ML-KEM.
// The same work with an ephemeral key does find them, so the test can see.
func TestStolenPrivateKeys(t *testing.T) {
	for _, suite := range Suites() {
		a, b := Local{Key: newKey(t), Rand: rand.Reader}, Local{Key: newKey(t), Rand: rand.Reader}
		i, hello, err := Start(a, Offer{Transport: 1, Mode: wire.ModeSealed, Suites: []*Suite{suite}, Epoch: wire.Nonce{1}})
		check(t, err)
		ephemeral, kem := i.ephemeral, i.kem
		_, raw, err := wire.ParseHeader(hello)
		check(t, err)
		h, err := wire.ParseHello(raw)
		check(t, err)
		answer, real, err := Respond(b, h, raw, Reply{Suites: Suites(), Session: bytes.Repeat([]byte{7}, wire.SessionIDSize), Epoch: wire.Nonce{2}, Time: 1, Lifetime: 5})
		check(t, err)
		_, body, err := wire.ParseHeader(answer)
		check(t, err)
		reply, err := wire.ParseHelloReply(body)
		check(t, err)
		th := transcript(suite, raw, reply)
		point := func(octets []byte) *ecdh.PublicKey {
			p, err := parsePoint(octets)
			check(t, err)
			return p
		}
		// found reports whether the key schedule comes to the real secrets.
		found := func(e exchange, kem []byte) bool {
			ikm, err := e.material(bytes.Clone(kem))
			check(t, err)
			s, err := deriveSession(suite, ikm, th, true)
			check(t, err)
			return s.send == real.receive || s.send == real.send || s.receive == real.send || s.receive == real.receive
		}
		var secret []byte
		if suite.Hybrid {
			secret, err = kem.Decapsulate(reply.KEM)
			check(t, err)
		}
		if !found(exchange{a.Key, ephemeral, b.Key.Public(), point(reply.Ephemeral), true}, secret) {
			t.Fatalf("%s: not even the ephemeral key finds the secrets: the test is blind", suite.Name)
		}
		if suite.Hybrid && found(exchange{a.Key, ephemeral, b.Key.Public(), point(reply.Ephemeral), true}, make([]byte, 32)) {
			t.Errorf("%s: ML-KEM protects nothing from who breaks SM2", suite.Name)
		}
		fresh, err := drawEphemeral(rand.Reader)
		check(t, err)
		guesses := []*ecdh.PrivateKey{fresh, static(t, a.Key), static(t, b.Key)}
		points := []*ecdh.PublicKey{point(h.Ephemeral), point(reply.Ephemeral), a.Key.Public().ECDH(), b.Key.Public().ECDH(), fresh.PublicKey()}
		tried := 0
		for _, guess := range guesses {
			for _, p := range points {
				for _, initiator := range []bool{true, false} {
					for _, e := range []exchange{
						{a.Key, guess, b.Key.Public(), p, initiator}, {b.Key, guess, a.Key.Public(), p, initiator},
					} {
						tried++
						if found(e, secret) {
							t.Fatalf("%s: the private keys alone give the session away", suite.Name)
						}
					}
				}
			}
		}
		if tried != 60 {
			t.Errorf("%d ways tried", tried)
		}
	}
}

func static(t *testing.T, key *identity.PrivateKey) *ecdh.PrivateKey {
	t.Helper()
	k, err := ecdh.P256().NewPrivateKey(key.Bytes())
	check(t, err)
	return k
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
