package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emmansun/gmsm/sm3"
	"github.com/mr-tron/base58"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

const order = "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123"
const prime = "fffffffeffffffffffffffffffffffffffffffff00000000ffffffffffffffff"

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// offset is a number of 32 octets plus a small one.
func offset(t testing.TB, number string, by int64) string {
	n := new(big.Int).SetBytes(unhex(t, number))
	return hex.EncodeToString(n.Add(n, big.NewInt(by)).FillBytes(make([]byte, 32)))
}

type identityVectors struct {
	About string           `json:"about"`
	Cases []identityVector `json:"cases"`

	RefusedScalars []refused `json:"refused_private_keys"`
	RefusedTexts   []refused `json:"refused_private_texts"`
	RefusedPoints  []refused `json:"refused_public_keys"`
	RefusedIDs     []refused `json:"refused_ids"`
}

type identityVector struct {
	Comment     string `json:"comment"`
	PrivateKey  string `json:"private_key"`
	PrivateText string `json:"private_text"`
	PublicKey   string `json:"public_key"`
	IDHash      string `json:"id_hash"`
	ID          string `json:"id"`
	ZA          string `json:"za"`
}

type refused struct {
	Comment string `json:"comment"`
	Value   string `json:"value"` // hex, or the text itself where texts are refused
	Class   string `json:"class"`
}

func generate(t testing.TB) identityVectors {
	v := identityVectors{About: "Node identities (PROTOCOL 2). private_key is the scalar of 32 octets, big-endian; public_key is X||Y; id_hash is SHA-256 of it, which is also the user ID of SM2; za is GB/T 32918.2 5.5 with that user ID. Texts are base58 (Bitcoin's alphabet, no checksum). Keys are refused as malformed before any arithmetic."}
	for _, c := range []struct{ comment, scalar string }{
		{"an ordinary key", "1a7c4e1553e11845ea09b66b2d1f770c5b12983da44021f783ce3f0d6a908b01"},
		{"scalar with a leading zero octet, which the text keeps as a leading 1", "00529dd761c82e0bb47f36e91d8843fa256cd09e57b1043be2718fc619ad6402"},
		{"the smallest scalar", offset(t, "00", 1)},
		{"the largest scalar, n-2", offset(t, order, -2)},
		{"public key whose X begins with a zero octet", zeroKey(t, 0)},
		{"public key whose Y begins with a zero octet", zeroKey(t, 32)},
		{"ID hash that begins with a zero octet, which the text keeps as a leading 1", zeroID(t)},
	} {
		k, err := NewPrivateKey(unhex(t, c.scalar))
		if err != nil {
			t.Fatal(c.comment, err)
		}
		id := k.ID()
		v.Cases = append(v.Cases, identityVector{
			Comment: c.comment, PrivateKey: c.scalar, PrivateText: k.Text(), PublicKey: hex.EncodeToString(k.Public().Bytes()),
			IDHash: hex.EncodeToString(id[:]), ID: id.String(), ZA: hex.EncodeToString(k.pub.za[:]),
		})
	}
	good := v.Cases[0]
	y := good.PublicKey[64:]
	bad := func(list *[]refused, comment, value string) {
		*list = append(*list, refused{comment, value, "malformed"})
	}
	for _, c := range [][2]string{
		{"zero", offset(t, "00", 0)}, {"n-1", offset(t, order, -1)}, {"n", order}, {"n+1", offset(t, order, 1)}, {"2^256-1", strings.Repeat("ff", 32)},
		{"31 octets", good.PrivateKey[2:]}, {"33 octets", "00" + good.PrivateKey}, {"nothing", ""},
	} {
		bad(&v.RefusedScalars, c[0], c[1])
		bad(&v.RefusedTexts, c[0], base58.Encode(unhex(t, c[1])))
	}
	bad(&v.RefusedTexts, "a character that base58 has not", "0"+good.PrivateText[1:])
	bad(&v.RefusedTexts, "white space behind", good.PrivateText+" ")
	bad(&v.RefusedTexts, "a megabyte", strings.Repeat("z", 200)+"... and so on; any text of more than 44 characters is refused unread")
	x := shiftedPoint(t)
	for _, c := range [][2]string{
		{"off the curve", good.PublicKey[:126] + fmt.Sprintf("%02x", unhex(t, good.PublicKey)[63]^1)},
		{"all zeros", strings.Repeat("00", 64)}, {"all ones", strings.Repeat("ff", 64)},
		{"x is p", prime + y}, {"y is p", good.PublicKey[:64] + prime}, {"x + p instead of x, which names the same residue", x},
		{"x and y exchanged", y + good.PublicKey[:64]},
		{"63 octets", good.PublicKey[2:]}, {"65 octets: SEC 1 with its 04", "04" + good.PublicKey}, {"33 octets: compressed", "02" + good.PublicKey[:64]},
		{"one octet: infinity", "00"}, {"nothing", ""},
	} {
		bad(&v.RefusedPoints, c[0], c[1])
	}
	for _, c := range [][2]string{
		{"31 octets", base58.Encode(unhex(t, good.IDHash)[1:])}, {"33 octets", base58.Encode(append(unhex(t, good.IDHash), 0))},
		{"a leading 1 too many", "1" + good.ID}, {"a public key", base58.Encode(unhex(t, good.PublicKey))},
		{"a character that base58 has not", "l" + good.ID[1:]}, {"white space in front", " " + good.ID}, {"nothing", ""},
		{"no ASCII", good.ID[:43] + "\u00e9"},
	} {
		bad(&v.RefusedIDs, c[0], c[1])
	}
	return v
}

// zeroKey finds the smallest scalar whose public key has a zero octet there.
func zeroKey(t testing.TB, at int) string {
	return search(t, func(k *PrivateKey) bool { return k.pub.raw[at] == 0 })
}

func zeroID(t testing.TB) string {
	return search(t, func(k *PrivateKey) bool { return k.pub.id[0] == 0 })
}

func search(t testing.TB, ok func(*PrivateKey) bool) string {
	for n := int64(2); n < 10000; n++ {
		s := offset(t, "00", n)
		if k, err := NewPrivateKey(unhex(t, s)); err == nil && ok(k) {
			return s
		}
	}
	t.Fatal("no such key")
	return ""
}

// shiftedPoint encodes a point whose x is so small that x + p fits into 32
// octets, with x + p.
func shiftedPoint(t testing.TB) string {
	p := new(big.Int).SetBytes(unhex(t, prime))
	b := new(big.Int).SetBytes(unhex(t, "28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93"))
	for n := int64(1); ; n++ {
		x := big.NewInt(n)
		// y² = x³ - 3x + b
		y := new(big.Int).Exp(x, big.NewInt(3), p)
		y.Sub(y, new(big.Int).Mul(x, big.NewInt(3))).Add(y, b).Mod(y, p)
		if y.ModSqrt(y, p) == nil {
			continue
		}
		plain := append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...)
		if _, err := ParsePublicKey(plain); err != nil {
			t.Fatal("the point itself must be good")
		}
		return hex.EncodeToString(append(x.Add(x, p).FillBytes(make([]byte, 32)), plain[32:]...))
	}
}

func TestVectors(t *testing.T) {
	path := filepath.Join("..", "testdata", "vectors", "identity.json")
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetIndent("", "  ")
	if err := e.Encode(generate(t)); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, buf.Bytes()) {
		t.Fatal("identity.json is not what the code gives")
	}
	var v identityVectors
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Cases) == 0 || len(v.RefusedScalars) == 0 || len(v.RefusedTexts) == 0 || len(v.RefusedPoints) == 0 || len(v.RefusedIDs) == 0 {
		t.Fatal("no vectors")
	}
	for _, c := range v.Cases {
		checkIdentity(t, c)
	}
	for _, r := range v.RefusedScalars {
		if _, err := NewPrivateKey(unhex(t, r.Value)); err == nil {
			t.Errorf("private key %s is taken", r.Comment)
		}
	}
	for _, r := range v.RefusedTexts {
		_, err := ParsePrivateKey(r.Value)
		if err == nil {
			t.Errorf("private text %s is taken", r.Comment)
		} else if len(r.Value) > 3 && strings.Contains(err.Error(), r.Value[1:]) {
			t.Errorf("private text %s: the error repeats it", r.Comment)
		}
	}
	for _, r := range v.RefusedPoints {
		if _, err := ParsePublicKey(unhex(t, r.Value)); err == nil {
			t.Errorf("public key %s is taken", r.Comment)
		}
	}
	for _, r := range v.RefusedIDs {
		if _, err := ParseID(r.Value); !errors.Is(err, ErrNotID) {
			t.Errorf("ID %s: %v", r.Comment, err)
		}
	}
}

// checkIdentity recomputes what needs no curve; the points themselves are
// checked against a second implementation in internal/secure.
func checkIdentity(t *testing.T, c identityVector) {
	t.Helper()
	hash := sha256.Sum256(unhex(t, c.PublicKey))
	if hex.EncodeToString(hash[:]) != c.IDHash || slowBase58(hash[:]) != c.ID || slowBase58(unhex(t, c.PrivateKey)) != c.PrivateText {
		t.Errorf("%s: hash or text", c.Comment)
	}
	k, err := ParsePrivateKey(c.PrivateText)
	if err != nil {
		t.Fatal(c.Comment, err)
	}
	id, err := ParseID(c.ID)
	if err != nil {
		t.Fatal(c.Comment, err)
	}
	pub, err := ParsePublicKey(unhex(t, c.PublicKey))
	if err != nil {
		t.Fatal(c.Comment, err)
	}
	if k.ID() != id || pub.ID() != id || !pub.Equal(k.Public()) || hex.EncodeToString(k.Bytes()) != c.PrivateKey {
		t.Errorf("%s: the forms do not belong together", c.Comment)
	}
}

// slowBase58 is base58 by its definition.
func slowBase58(b []byte) string {
	const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	n, m, base := new(big.Int).SetBytes(b), new(big.Int), big.NewInt(58)
	var out []byte
	for n.Sign() > 0 {
		n.DivMod(n, base, m)
		out = append([]byte{alphabet[m.Int64()]}, out...)
	}
	for _, c := range b {
		if c != 0 {
			break
		}
		out = append([]byte{'1'}, out...)
	}
	return string(out)
}

// The example of GB/T 32918.5 Annex A.2 through Verify, with the standard's
// user ID in the place of ours.
func TestStandardSignature(t *testing.T) {
	k, err := NewPrivateKey(unhex(t, "3945208F 7B2144B1 3F36E38A C6D39F95 88939369 2860B51A 42FB81EF 4DF7C5B8"))
	if err != nil {
		t.Fatal(err)
	}
	za, err := k.dh.PublicKey().SM2ZA(sm3.New(), []byte("1234567812345678"))
	if err != nil {
		t.Fatal(err)
	}
	if want := unhex(t, "B2E14C5C 79C6DF5B 85F4FE7E D8DB7A26 2B9DA7E0 7CCB0EA9 F4747B8C CDA8A4F3"); !bytes.Equal(za, want) {
		t.Fatalf("ZA is %x", za)
	}
	pub := *k.pub
	copy(pub.za[:], za)
	if e := pub.digest([][]byte{[]byte("message"), []byte(" digest")}); !bytes.Equal(e, unhex(t, "F0B43E94 BA45ACCA ACE692ED 534382EB 17E6AB5A 19CE7B31 F4486FDF C0D28640")) {
		t.Errorf("e is %x", e)
	}
	sig := unhex(t, `F5A03B06 48D2C463 0EEAC513 E1BB81A1 5944DA38 27D5B741 43AC7EAC EEE720B3
		B1B6AA29 DF212FD8 763182BC 0D421CA1 BB9038FD 1F7F42D4 840B69C4 85BBC1AA`)
	if !pub.Verify(sig, []byte("message digest")) {
		t.Error("does not verify")
	}
	if k.pub.Verify(sig, []byte("message digest")) {
		t.Error("verifies under another user ID")
	}
	for i := range sig {
		for bit := range 8 {
			sig[i] ^= 1 << bit
			if pub.Verify(sig, []byte("message digest")) {
				t.Fatalf("verifies with bit %d of octet %d changed", bit, i)
			}
			sig[i] ^= 1 << bit
		}
	}
}

// Signatures keep their 64 octets when r or s begins with zeros.
func TestShortSignatures(t *testing.T) {
	k, err := GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var short [2]bool
	for n := 0; n < 20000 && !(short[0] && short[1]); n++ {
		msg := []byte(fmt.Sprint(n))
		sig, err := k.Sign(rand.Reader, msg)
		if err != nil || len(sig) != SignatureSize {
			t.Fatal(len(sig), err)
		}
		for i := range short {
			if sig[32*i] == 0 && !short[i] {
				short[i] = true
				if !k.Public().Verify(sig, msg) {
					t.Fatalf("half %d begins with zero and the signature does not verify", i)
				}
			}
		}
	}
	if !short[0] || !short[1] {
		t.Fatal("no short half in 20000 signatures")
	}
}

func TestBadSignatures(t *testing.T) {
	k, err := GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	msg := []byte("message")
	good, err := k.Sign(rand.Reader, msg)
	if err != nil {
		t.Fatal(err)
	}
	n := unhex(t, order)
	zero := make([]byte, 32)
	rest := new(big.Int).SetBytes(n)
	rest.Sub(rest, new(big.Int).SetBytes(good[:32]))
	join := func(a, b []byte) []byte { return append(bytes.Clone(a), b...) }
	for name, sig := range map[string][]byte{
		"nil": nil, "empty": {}, "63 octets": good[:63], "65 octets": join(good, []byte{0}),
		"r zero": join(zero, good[32:]), "s zero": join(good[:32], zero), "both zero": join(zero, zero),
		"r is n": join(n, good[32:]), "s is n": join(good[:32], n), "all ones": bytes.Repeat([]byte{255}, 64),
		"r + s is n": join(good[:32], rest.FillBytes(make([]byte, 32))), "halves exchanged": join(good[32:], good[:32]),
	} {
		if k.Public().Verify(sig, msg) {
			t.Errorf("%s: verifies", name)
		}
	}
	if !k.Public().Verify(good, []byte("mess"), nil, []byte("age")) {
		t.Error("the parts' borders matter, but only their concatenation may")
	}
	if k.Public().Verify(good, msg, []byte{0}) || k.Public().Verify(good) {
		t.Error("another message verifies")
	}
}

// A source counts what is drawn from it.
type source struct {
	drawn int
	fill  byte
	limit int
}

func (s *source) Read(b []byte) (int, error) {
	if s.limit > 0 && s.drawn+len(b) > s.limit {
		return 0, io.ErrUnexpectedEOF
	}
	s.drawn += len(b)
	for i := range b {
		b[i] = s.fill
	}
	return len(b), nil
}

func TestRandomnessThatIsDrawn(t *testing.T) {
	s := &source{fill: 7}
	k, err := GenerateKey(s)
	if err != nil || s.drawn != PrivateKeySize {
		t.Fatalf("a key took %d octets: %v", s.drawn, err)
	}
	var first []byte
	for range 5 {
		s := &source{fill: 9}
		sig, err := k.Sign(s, []byte("m"))
		if err != nil || s.drawn != 32 {
			t.Fatalf("a signature took %d octets: %v", s.drawn, err)
		}
		if first != nil && !bytes.Equal(sig, first) {
			t.Fatal("the same randomness gave two signatures")
		}
		first = sig
	}
	// A source that stands still must not give the key away: another message
	// has another nonce, so r differs.
	sig, err := k.Sign(&source{fill: 9}, []byte("n"))
	if err != nil || bytes.Equal(sig[:32], first[:32]) {
		t.Fatal("two messages with one nonce", err)
	}
	if _, err := GenerateKey(&source{limit: 31}); err == nil {
		t.Error("a key from 31 octets")
	}
	if _, err := k.Sign(&source{limit: 31}, nil); err == nil {
		t.Error("a signature from 31 octets")
	}
	stuck := &source{fill: 0xff}
	if _, err := GenerateKey(stuck); err == nil || stuck.drawn > 1024 {
		t.Errorf("a source of 0xff gave a key or was read for %d octets: %v", stuck.drawn, err)
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	k, err := NewPrivateKey(unhex(t, "1a7c4e1553e11845ea09b66b2d1f770c5b12983da44021f783ce3f0d6a908b01"))
	if err != nil {
		t.Fatal(err)
	}
	holder := struct {
		K *PrivateKey
		V PrivateKey
		m map[string]*PrivateKey
	}{k, *k, map[string]*PrivateKey{"a": k}}
	d := new(big.Int).SetBytes(k.Bytes())
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
		for _, v := range []any{k, *k, holder, &holder, []*PrivateKey{k}, []PrivateKey{*k}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "k", k, "v", *k, "h", holder)
	}
	fmt.Fprintln(&out, error(fmt.Errorf("key %v", k)))
	for _, secret := range []string{k.Text(), hex.EncodeToString(k.Bytes()), strings.ToUpper(hex.EncodeToString(k.Bytes())), d.String(), fmt.Sprint(k.Bytes()), fmt.Sprintf("%#v", k.Bytes())} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("printed: %s", secret)
		}
	}
	if !strings.Contains(out.String(), k.ID().String()) {
		t.Error("a printed key does not say whose it is")
	}
	if b, err := json.Marshal(map[string]any{"k": k}); err == nil {
		t.Errorf("JSON: %s", b)
	}
	var nobody *PrivateKey
	_ = fmt.Sprintf("%v %+v", nobody, PrivateKey{})
}

func TestPublicKeyIsACopy(t *testing.T) {
	k, err := GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k.Public().Bytes()[0] ^= 1
	k.Bytes()[0] ^= 1
	again, err := NewPrivateKey(k.Bytes())
	if err != nil || !again.Public().Equal(k.Public()) || k.Public().Equal(nil) {
		t.Error("a caller can change a key")
	}
	if k.Public().String() != base58.Encode(k.Public().Bytes()) {
		t.Error("text of a public key")
	}
}

// What parses as an ID is written the same way again.
func FuzzParseID(f *testing.F) {
	k, err := GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.ID().String())
	f.Add(strings.Repeat("1", 32))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseID(text)
		if err == nil && id.String() != text {
			t.Fatalf("%q is read as %q", text, id)
		}
	})
}

// A public key is one that the arithmetic takes, and has one encoding.
func FuzzParsePublicKey(f *testing.F) {
	k, err := GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.Public().Bytes())
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, xy []byte) {
		p, err := ParsePublicKey(xy)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Bytes(), xy) {
			t.Fatal("another encoding")
		}
		if _, err := k.ECDH().ECDH(p.ECDH()); err != nil {
			t.Fatal(err)
		}
		if p.Verify(make([]byte, 64), xy) {
			t.Fatal("zeros verify")
		}
	})
}
