package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"errors"

	"github.com/emmansun/gmsm/ecdh"
	"github.com/emmansun/gmsm/sm4"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
)

// bounds are work without a network: what primitives alone cost, on all
// processors.
var bounds = []*subject{
	{name: "sm2", setting: "two signatures and two verifications, as a call has that is signed both ways", open: openSM2},
	{name: "aes-gcm", setting: "the payload sealed and opened twice from memory to memory, as a call and its answer are", open: openCipher(aes.NewCipher, 32)},
	{name: "sm4-gcm", setting: "the same with SM4", open: openCipher(sm4.NewCipher, 16)},
	{name: "handshake", setting: "a hybrid handshake from memory to memory, both sides", open: openHandshake},
	{name: "handshake-parts", setting: "the primitives that it consists of, each as often", open: openHandshakeParts},
}

func openSM2(_ context.Context, _ *env, j job) (*line, error) {
	key, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	message := jsonPayload(j.octets)
	return work(func(int) error {
		for range 2 {
			sig, err := key.Sign(rand.Reader, message)
			if err != nil {
				return err
			}
			if !key.Public().Verify(sig, message) {
				return errors.New("the signature does not verify")
			}
		}
		return nil
	}), nil
}

func work(f func(caller int) error) *line {
	return &line{func(_ context.Context, caller int) error { return f(caller) }, func() {}}
}

func openCipher(block func(key []byte) (cipher.Block, error), size int) func(context.Context, *env, job) (*line, error) {
	return func(_ context.Context, _ *env, j job) (*line, error) {
		aead, err := newGCM(block, size)
		if err != nil {
			return nil, err
		}
		type buffers struct{ plain, sealed, opened []byte }
		each := make([]buffers, j.callers)
		for i := range each {
			each[i] = buffers{make([]byte, j.octets), make([]byte, 0, j.octets+aead.Overhead()), make([]byte, 0, j.octets)}
		}
		nonce := make([]byte, aead.NonceSize())
		return work(func(caller int) error {
			b := &each[caller]
			for range 2 {
				if _, err := aead.Open(b.opened, nonce, aead.Seal(b.sealed, nonce, b.plain, nil), nil); err != nil {
					return err
				}
			}
			return nil
		}), nil
	}
}

// handshakeKeys are the keys of both sides, which outlive a handshake.
func handshakeKeys() (a, b *identity.PrivateKey, err error) {
	if a, err = identity.GenerateKey(rand.Reader); err != nil {
		return nil, nil, err
	}
	b, err = identity.GenerateKey(rand.Reader)
	return a, b, err
}

func openHandshake(context.Context, *env, job) (*line, error) {
	a, b, err := handshakeKeys()
	if err != nil {
		return nil, err
	}
	return work(func(int) error {
		start, hello, err := secure.Start(secure.Local{Key: a, Rand: rand.Reader}, secure.Offer{
			Transport: 2, Mode: wire.ModeSealed, Suites: []*secure.Suite{secure.AES}, Recipient: b.ID(), Epoch: wire.Nonce{1},
		})
		if err != nil {
			return err
		}
		_, body, err := wire.ParseHeader(hello)
		if err != nil {
			return err
		}
		h, err := wire.ParseHello(body)
		if err != nil {
			return err
		}
		reply, responder, err := secure.Respond(secure.Local{Key: b, Rand: rand.Reader}, h, body, secure.Reply{Suites: secure.Suites(), Epoch: wire.Nonce{2}, Time: 1, Lifetime: 5})
		if err != nil {
			return err
		}
		_, initiator, err := start.Finish(reply)
		if err != nil {
			return err
		}
		return responder.Confirm(initiator.Finish)
	}), nil
}

// openHandshakeParts does, on each side, what no handshake of this kind can do
// without: an ephemeral key, the other's two keys read, the SM2 exchange and the
// plain one, a signature made and one verified, a key schedule; and ML-KEM-768
// once for both.
func openHandshakeParts(context.Context, *env, job) (*line, error) {
	a, b, err := handshakeKeys()
	if err != nil {
		return nil, err
	}
	return work(func(int) error {
		decapsulation, err := mlkem.GenerateKey768()
		if err != nil {
			return err
		}
		encapsulation, err := mlkem.NewEncapsulationKey768(decapsulation.EncapsulationKey().Bytes())
		if err != nil {
			return err
		}
		_, ciphertext := encapsulation.Encapsulate()
		kem, err := decapsulation.Decapsulate(ciphertext)
		if err != nil {
			return err
		}
		ea, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		eb, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		if err := handshakeSide(a, ea, b.Public().Bytes(), eb.PublicKey().Bytes(), kem, true); err != nil {
			return err
		}
		return handshakeSide(b, eb, a.Public().Bytes(), ea.PublicKey().Bytes(), kem, false)
	}), nil
}

func handshakeSide(own *identity.PrivateKey, ephemeral *ecdh.PrivateKey, static, point, kem []byte, initiator bool) error {
	peer, err := identity.ParsePublicKey(static)
	if err != nil {
		return err
	}
	remote, err := ecdh.P256().NewPublicKey(point)
	if err != nil {
		return err
	}
	uv, err := own.ECDH().SM2MQV(ephemeral, peer.ECDH(), remote)
	if err != nil {
		return err
	}
	ownID, peerID := own.ID(), peer.ID()
	shared, err := uv.SM2SharedKey(!initiator, 32, own.Public().ECDH(), peer.ECDH(), ownID[:], peerID[:])
	if err != nil {
		return err
	}
	plain, err := ephemeral.ECDH(remote)
	if err != nil {
		return err
	}
	prk, err := hkdf.Extract(sha256.New, append(append(shared, plain...), kem...), point)
	if err != nil {
		return err
	}
	for range 4 { // two directions and two MACs
		if _, err := hkdf.Expand(sha256.New, prk, "bench", 32); err != nil {
			return err
		}
	}
	sig, err := own.Sign(rand.Reader, prk)
	if err != nil {
		return err
	}
	if !own.Public().Verify(sig, prk) {
		return errors.New("the signature does not verify")
	}
	return nil
}
