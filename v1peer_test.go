package owtp

import (
	"bytes"
	"crypto/rand"
	"testing"
)

// Numbers of version 1 are keys to the data: none comes twice, even from a random
// source that is broken, and with one that is not nobody knows the next.
func TestV1Nonces(t *testing.T) {
	t.Parallel()
	seen := make(map[uint64]bool)
	var s v1Nonces
	for i := range 1000 {
		random := bytes.NewReader(bytes.Repeat([]byte{byte(i % 2 * 255)}, 4))
		v, err := s.next(random)
		if err != nil || v == 0 || v >= 1<<63 || seen[v] {
			t.Fatalf("nonce %d is %d, %v", i, v, err)
		}
		seen[v] = true
	}
	if _, err := s.next(bytes.NewReader(nil)); err == nil {
		t.Error("a nonce without randomness")
	}
	a, _ := (&v1Nonces{}).next(rand.Reader)
	b, _ := (&v1Nonces{}).next(rand.Reader)
	if a == b {
		t.Error("the first nonce of every node is the same")
	}
	s.count = maxV1Nonces
	if v, err := s.next(rand.Reader); err == nil {
		t.Errorf("after the last nonce comes %d", v)
	}
}
