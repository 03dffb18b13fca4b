package secure

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
)

// The vectors in testdata/vectors are written by these tests with -update and
// compared by them without. Each file is then checked a second time against
// reference_test.go, so that an -update cannot make a mistake the standard.
var update = flag.Bool("update", false, "write testdata/vectors anew")

// octets are written as hex.
type octets []byte

func (o octets) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(o)), nil }
func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

func vectorPath(name string) string { return filepath.Join("..", "..", "testdata", "vectors", name) }

func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile(vectorPath(name))
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// compareVectors makes sure that the file is what the code gives, and reads it
// back into the type of generated.
func compareVectors[T any](t testing.TB, name string, generated T) T {
	t.Helper()
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(generated); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(vectorPath(name), buf.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(vectorPath(name))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, buf.Bytes()) {
		a, b := bytes.Split(raw, []byte("\n")), bytes.Split(buf.Bytes(), []byte("\n"))
		for i := range min(len(a), len(b)) {
			if !bytes.Equal(a[i], b[i]) {
				t.Fatalf("%s:%d: the file has\n%s\nthe code gives\n%s", name, i+1, a[i], b[i])
			}
		}
		t.Fatalf("%s: the file has %d lines, the code gives %d", name, len(a), len(b))
	}
	var out T
	readVectors(t, name, &out)
	return out
}

// key reads a scalar that a test knows to be good.
func key(t testing.TB, scalar []byte) *identity.PrivateKey {
	t.Helper()
	k, err := identity.NewPrivateKey(scalar)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func refPointInt(b []byte) *big.Int { return new(big.Int).SetBytes(b) }

// pattern gives n octets that a reader of the vectors recognises.
func pattern(first byte, n int) octets {
	out := make([]byte, n)
	for i := range out {
		out[i] = first + byte(i)
	}
	return out
}

// A tape is a source of randomness that has been written down.
type tape struct{ rest []byte }

func newTape(parts ...[]byte) *tape { return &tape{bytes.Join(parts, nil)} }

func (p *tape) Read(b []byte) (int, error) {
	if len(p.rest) < len(b) {
		return 0, io.ErrUnexpectedEOF
	}
	p.rest = p.rest[copy(b, p.rest):]
	return len(b), nil
}

// end makes sure that everything was drawn: a vector names no more than is used.
func (p *tape) end(t testing.TB) {
	t.Helper()
	if len(p.rest) != 0 {
		t.Errorf("%d octets of randomness were not drawn", len(p.rest))
	}
}

// class is the class of failure that the vectors name.
func class(err error) string {
	switch {
	case err == nil:
		return "none"
	case errors.Is(err, wire.ErrVersion):
		return "version"
	case errors.Is(err, wire.ErrMalformed):
		return "malformed"
	case errors.Is(err, ErrIdentity):
		return "identity"
	case errors.Is(err, ErrHandshake):
		return "handshake"
	case errors.Is(err, ErrSignature):
		return "signature"
	case errors.Is(err, ErrOpen), errors.Is(err, ErrRecord):
		return "open"
	case errors.Is(err, ErrLimit):
		return "limit"
	}
	return fmt.Sprintf("other: %v", err)
}

func flipped(b []byte, at int) octets {
	if at < 0 {
		at += len(b)
	}
	c := bytes.Clone(b)
	c[at] ^= 1
	return c
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
