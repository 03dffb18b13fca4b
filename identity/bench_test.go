package identity_test

import (
	"crypto/rand"
	"testing"

	"github.com/owtp-go/owtp/identity"
)

func BenchmarkSign(b *testing.B) {
	k, _ := identity.GenerateKey(rand.Reader)
	msg := make([]byte, 512)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Sign(rand.Reader, msg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	k, _ := identity.GenerateKey(rand.Reader)
	msg := make([]byte, 512)
	sig, err := k.Sign(rand.Reader, msg)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !k.Public().Verify(sig, msg) {
			b.Fatal("does not verify")
		}
	}
}

func BenchmarkParsePublicKey(b *testing.B) {
	k, _ := identity.GenerateKey(rand.Reader)
	xy := k.Public().Bytes()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := identity.ParsePublicKey(xy); err != nil {
			b.Fatal(err)
		}
	}
}
