package legacy

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/mr-tron/base58"

	"github.com/owtp-go/owtp/identity"
)

func TestIdentityVectors(t *testing.T) {
	var v struct {
		Valid []struct {
			Note        string `json:"note"`
			Private     string `json:"private_hex"`
			PrivateText string `json:"private_base58"`
			Public      string `json:"public_hex"`
			PublicText  string `json:"public_base58"`
			Hash        string `json:"node_id_hex"`
			ID          string `json:"node_id"`
		} `json:"valid"`
		Invalid []struct {
			Note        string `json:"note"`
			PrivateText string `json:"private_base58"`
		} `json:"invalid"`
	}
	readVectors(t, "identity.json", &v)
	if len(v.Valid) != 24 || len(v.Invalid) != 8 {
		t.Fatalf("%d valid and %d invalid identities", len(v.Valid), len(v.Invalid))
	}
	last := "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54122"
	refused := 0
	for _, c := range v.Valid {
		pub, err := ParseKey(c.PublicText)
		if err != nil {
			t.Fatal(c.Note, err)
		}
		if id := pub.ID(); hex.EncodeToString(pub.Bytes()) != c.Public || pub.String() != c.PublicText || id.String() != c.ID || hex.EncodeToString(id[:]) != c.Hash {
			t.Errorf("%s %s: public key", c.Note, c.ID)
		}
		key, err := identity.ParsePrivateKey(c.PrivateText)
		if c.Private == last { // n-1, with which SM2 cannot sign
			if refused++; err == nil {
				t.Error("n-1 is taken")
			}
			continue
		}
		if err != nil {
			t.Fatal(c.Note, err)
		}
		if hex.EncodeToString(key.Bytes()) != c.Private || key.Text() != c.PrivateText || !key.Public().Equal(pub) {
			t.Errorf("%s %s: private key", c.Note, c.ID)
		}
	}
	if refused != 1 {
		t.Error("n-1 is not among the vectors")
	}
	// The reference takes most of these and then silently has a random identity.
	for _, c := range v.Invalid {
		if _, err := identity.ParsePrivateKey(c.PrivateText); err == nil {
			t.Errorf("%s: taken", c.Note)
		}
	}
}

type signedVector struct {
	Note          string `json:"note"`
	Changed       string `json:"changed"`
	Packet        string `json:"packet"`
	HeaderA       string `json:"header_a"`
	Data          string `json:"data_as_received"`
	Hash          string `json:"double_sha256_hex"`
	Signature     string `json:"signature_hex"`
	SignerID      string `json:"signer_node_id"`
	SignerPrivate string `json:"signer_private"`
	SignerPublic  string `json:"signer_public"`
	Text          string `json:"signing_string_hex"`
	ReceiverText  string `json:"receiver_string"`
	Verify        bool   `json:"verify"`
}

type signatureVectors struct {
	Signed     []signedVector `json:"signed"`
	Tampered   []signedVector `json:"tampered"`
	NotCovered []signedVector `json:"not_covered"`
	Broken     []signedVector `json:"reference_cannot_verify_itself"`
}

func readSignatures(t testing.TB) (v signatureVectors) {
	readVectors(t, "signature.json", &v)
	if len(v.Signed) != 23 || len(v.Tampered) != 26 || len(v.NotCovered) != 16 || len(v.Broken) != 4 {
		t.Fatalf("%d signed, %d tampered, %d not covered, %d broken", len(v.Signed), len(v.Tampered), len(v.NotCovered), len(v.Broken))
	}
	return v
}

func TestSignatureVectors(t *testing.T) {
	for _, c := range readSignatures(t).Signed {
		p := parse(t, c.Packet)
		text, err := p.Text()
		if err != nil || text != c.Data {
			t.Errorf("%s: the data is %q: %v", c.Note, text, err)
		}
		signed, err := p.signedText()
		if err != nil || hex.EncodeToString(signed) != c.Text {
			t.Errorf("%s: the signed text is %q: %v", c.Note, signed, err)
		}
		hash, err := p.hashed()
		if err != nil || hex.EncodeToString(hash) != c.Hash {
			t.Errorf("%s: its hash is %x: %v", c.Note, hash, err)
		}
		if p.Signature != base58.Encode(unhex(t, c.Signature)) {
			t.Errorf("%s: the signature is %s", c.Note, p.Signature)
		}
		announced, err := ParseKey(c.SignerPublic)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []*identity.PublicKey{announced, nil} {
			key, err := Verify(p, a)
			if err != nil || key.ID().String() != c.SignerID {
				t.Errorf("%s: %v", c.Note, err)
			}
		}
		if b, err := p.Append(nil); err != nil || string(b) != c.Packet {
			t.Errorf("%s is written as %s: %v", c.Packet, b, err)
		}
		checkOurs(t, c, text)
	}
}

// checkOurs makes the packet of a vector anew, from what a caller has.
func checkOurs(t *testing.T, c signedVector, text string) {
	t.Helper()
	recorded := parse(t, c.Packet)
	p := &Packet{Kind: Request, Method: recorded.Method, Nonce: recorded.Nonce, Time: recorded.Time, Version: recorded.Version}
	var err error
	if recorded.Data[0] == '"' {
		err = p.SetText(text)
	} else {
		err = p.SetJSON(recorded.Data)
	}
	if err != nil {
		t.Fatal(c.Note, err)
	}
	key := privateKey(t, c.SignerPrivate)
	if err := Sign(rand.Reader, key, p); err != nil {
		t.Fatal(c.Note, err)
	}
	sent, err := p.Append(nil)
	if err != nil {
		t.Fatal(c.Note, err)
	}
	if got, err := Verify(parse(t, string(sent)), key.Public()); err != nil || got.ID() != key.ID() {
		t.Errorf("%s: our own does not verify: %v", c.Note, err)
	}
	p.Signature = recorded.Signature
	if sent, err = p.Append(nil); err != nil || string(sent) != c.Packet {
		t.Errorf("%s is written as\n%s: %v", c.Packet, sent, err)
	}
}

func TestTamperedSignatures(t *testing.T) {
	for _, c := range readSignatures(t).Tampered {
		announced, err := ParseKey(c.HeaderA)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParsePacket([]byte(c.Packet), maxPacket)
		if err == nil {
			_, err = Verify(p, announced)
		}
		if c.Verify || !errors.Is(err, ErrSignature) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s, %s: %v", c.Changed, c.Note, err)
		}
	}
}

// What version 1 does not sign verifies with us as well, since nobody could
// tell it from what was sent. The digest shows what is a replay.
func TestNotCoveredBySignature(t *testing.T) {
	v := readSignatures(t)
	digests := make(map[string]bool)
	for _, c := range v.NotCovered {
		announced, err := ParseKey(c.HeaderA)
		if err != nil {
			t.Fatal(err)
		}
		p := parse(t, c.Packet)
		if _, err := Verify(p, announced); err != nil || !c.Verify {
			t.Errorf("%s, %s: %v", c.Changed, c.Note, err)
		}
		d, err := Digest(p)
		if err != nil {
			t.Fatal(err)
		}
		digests[p.Signature+string(d[:])] = true
	}
	if len(digests) != 2 { // two packets were changed in sixteen ways
		t.Errorf("%d digests of two signed texts", len(digests))
	}
}

// The reference cannot verify these itself: it signs another text than it sends.
// We sign what the receiver reads.
func TestTextsThatTheReferenceSignsWrongly(t *testing.T) {
	v := readSignatures(t)
	key := privateKey(t, v.Signed[0].SignerPrivate)
	for _, c := range v.Broken {
		p := parse(t, c.Packet)
		text, err := p.signedText()
		if err != nil || string(text) != c.ReceiverText {
			t.Errorf("%s: the signed text is %q: %v", c.Note, text, err)
		}
		if _, err := Verify(p, nil); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", c.Note, err)
		}
		if err := Sign(rand.Reader, key, p); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(p, key.Public()); err != nil {
			t.Errorf("%s: our own: %v", c.Note, err)
		}
	}
}

func TestWhoMustHaveSigned(t *testing.T) {
	v := readSignatures(t)
	p := parse(t, v.Signed[0].Packet)
	key := privateKey(t, v.Signed[0].SignerPrivate)
	p.Keys.Initiator = ""
	if got, err := Verify(p, key.Public()); err != nil || got.ID() != key.ID() {
		t.Errorf("under the announced key: %v", err)
	}
	if _, err := Verify(p, nil); !errors.Is(err, ErrSignature) {
		t.Errorf("from nobody: %v", err)
	}
	response := &Packet{Kind: Response, Method: "m", Nonce: 1}
	if err := Sign(rand.Reader, key, response); err == nil || response.Signature != "" {
		t.Error("a response is signed")
	}
	// The reference verifies signatures that nobody made under the point (0, 0).
	// Here no such key exists, in a packet or announced.
	p.Keys.Initiator = base58.Encode(make([]byte, 64))
	if _, err := Verify(p, nil); !errors.Is(err, ErrSignature) || !errors.Is(err, ErrKey) {
		t.Errorf("under the zero point: %v", err)
	}
	for name, xy := range map[string][]byte{"zero": make([]byte, 64), "ones": bytes.Repeat([]byte{255}, 64), "short": key.Public().Bytes()[1:], "SEC 1": append([]byte{4}, key.Public().Bytes()...), "infinity": {0}} {
		if _, err := ParseKey(base58.Encode(xy)); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "0", "l", string(bytes.Repeat([]byte("z"), 1<<20))} {
		if _, err := ParseKey(text); !errors.Is(err, ErrKey) {
			t.Errorf("%.10q: %v", text, err)
		}
	}
}
