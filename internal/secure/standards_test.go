package secure

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/emmansun/gmsm/ecdh"

	"github.com/owtp-go/owtp/identity"
)

// unhex reads hex with white space in it, as standards print it.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const standardUser = "1234567812345678"

// The example of GB/T 32918.5 Annex A.2. Our signatures have another user ID,
// so it proves the reference here and the library in identity's own test.
func TestStandardSignature(t *testing.T) {
	pub := unhex(t, `09F9DF31 1E5421A1 50DD7D16 1E4BC5C6 72179FAD 1833FC07 6BB08FF3 56F35020
		CCEA490C E26775A5 2DC6EA71 8CC1AA60 0AED05FB F35E084A 6632F607 2DA9AD13`)
	scalar := unhex(t, "3945208F 7B2144B1 3F36E38A C6D39F95 88939369 2860B51A 42FB81EF 4DF7C5B8")
	sig := unhex(t, `F5A03B06 48D2C463 0EEAC513 E1BB81A1 5944DA38 27D5B741 43AC7EAC EEE720B3
		B1B6AA29 DF212FD8 763182BC 0D421CA1 BB9038FD 1F7F42D4 840B69C4 85BBC1AA`)
	if !bytes.Equal(refBase(scalar).bytes(), pub) {
		t.Error("public key")
	}
	if za := unhex(t, "B2E14C5C 79C6DF5B 85F4FE7E D8DB7A26 2B9DA7E0 7CCB0EA9 F4747B8C CDA8A4F3"); !bytes.Equal(refZA(pub, []byte(standardUser)), za) {
		t.Error("ZA")
	}
	if !refVerify(pub, []byte(standardUser), sig, []byte("message "), []byte("digest")) {
		t.Error("signature")
	}
	if k, err := identity.NewPrivateKey(scalar); err != nil || !bytes.Equal(k.Public().Bytes(), pub) {
		t.Error("identity", err)
	}
}

// The example of GB/T 32918.5 Annex B.2, through the two calls that
// exchange.material makes, and through the reference.
func TestStandardKeyExchange(t *testing.T) {
	dA := unhex(t, "81EB26E9 41BB5AF1 6DF11649 5F906952 72AE2CD6 3D6C4AE1 678418BE 48230029")
	dB := unhex(t, "78512991 7D45A9EA 5437A593 56B82338 EAADDA6C EB199088 F14AE10D EFA229B5")
	rA := unhex(t, "D4DE1547 4DB74D06 491C440D 305E0124 00990F3E 390C7E87 153C12DB 2EA60BB3")
	rB := unhex(t, "7E071248 14B30948 9125EAED 10111316 4EBF0F34 58C5BD88 335C1F9D 596243D6")
	pA := unhex(t, `160E1289 7DF4EDB6 1DD812FE B96748FB D3CCF4FF E26AA6F6 DB9540AF 49C94232
		4A7DAD08 BB9A4595 31694BEB 20AA489D 6649975E 1BFCF8C4 741B78B4 B223007F`)
	pB := unhex(t, `6AE848C5 7C53C7B1 B5FA99EB 2286AF07 8BA64C64 591B8B56 6F7357D5 76F16DFB
		EE489D77 1621A27B 36C5C799 2062E9CD 09A92643 86F3FBEA 54DFF693 05621C4D`)
	eA := unhex(t, `64CED1BD BC99D590 049B434D 0FD73428 CF608A5D B8FE5CE0 7F150269 40BAE40E
		376629C7 AB21E7DB 26092249 9DDB118F 07CE8EAA E3E7720A FEF6A5CC 062070C0`)
	eB := unhex(t, `ACC27688 A6F7B706 098BC91F F3AD1BFF 7DC2802C DB14CCCC DB0A9047 1F9BD707
		2FEDAC04 94B2FFC4 D6853876 C79B8F30 1C6573AD 0AA50F39 FC87181E 1A1B46FE`)
	want := unhex(t, "6C893473 54DE2484 C60B4AB1 FDE4C6E5")
	for i, pair := range [][2][]byte{{dA, pA}, {dB, pB}, {rA, eA}, {rB, eB}} {
		if !bytes.Equal(refBase(pair[0]).bytes(), pair[1]) {
			t.Errorf("key %d", i)
		}
	}
	user := []byte(standardUser)
	za, zb := refZA(pA, user), refZA(pB, user)
	if k := refExchange(dA, rA, pB, eB, za, zb, 16); !bytes.Equal(k, want) {
		t.Errorf("reference, A: %x", k)
	}
	if k := refExchange(dB, rB, pA, eA, za, zb, 16); !bytes.Equal(k, want) {
		t.Errorf("reference, B: %x", k)
	}
	if k := libraryExchange(t, true, dA, rA, pB, eB, user, user, 16); !bytes.Equal(k, want) {
		t.Errorf("library, A: %x", k)
	}
	if k := libraryExchange(t, false, dB, rB, pA, eA, user, user, 16); !bytes.Equal(k, want) {
		t.Errorf("library, B: %x", k)
	}
}

// libraryExchange makes the calls of exchange.material with given user IDs.
func libraryExchange(t testing.TB, initiator bool, d, r, remote, remoteEphemeral, user, remoteUser []byte, size int) []byte {
	t.Helper()
	static, err := ecdh.P256().NewPrivateKey(d)
	if err != nil {
		t.Fatal(err)
	}
	ephemeral, err := ecdh.P256().NewPrivateKey(r)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := parsePoint(remote)
	if err != nil {
		t.Fatal(err)
	}
	peerEphemeral, err := parsePoint(remoteEphemeral)
	if err != nil {
		t.Fatal(err)
	}
	uv, err := static.SM2MQV(ephemeral, peer, peerEphemeral)
	if err != nil {
		t.Fatal(err)
	}
	k, err := uv.SM2SharedKey(!initiator, size, static.PublicKey(), peer, user, remoteUser)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// exchange.material is the library's exchange with node IDs as user IDs and the
// plain ECDH behind it. Version 1 nodes, whose responder uses its static key as
// the ephemeral one, gave the K of these runs.
func TestExchangeOfVersion1Runs(t *testing.T) {
	var file struct {
		About string `json:"about"`
		Cases []struct {
			Comment            string `json:"comment"`
			InitiatorPrivate   octets `json:"initiator_private"`
			InitiatorEphemeral octets `json:"initiator_ephemeral"`
			ResponderPrivate   octets `json:"responder_private"`
			ResponderEphemeral octets `json:"responder_ephemeral"`
			K                  octets `json:"k"`
		} `json:"cases"`
	}
	readVectors(t, "sm2-exchange.json", &file)
	if len(file.Cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range file.Cases {
		a, b := key(t, c.InitiatorPrivate), key(t, c.ResponderPrivate)
		ea, err := ecdh.P256().NewPrivateKey(c.InitiatorEphemeral)
		if err != nil {
			t.Fatal(err)
		}
		eb, err := ecdh.P256().NewPrivateKey(c.ResponderEphemeral)
		if err != nil {
			t.Fatal(err)
		}
		i := exchange{local: a, ephemeral: ea, remote: b.Public(), remoteEphemeral: eb.PublicKey(), initiator: true}
		r := exchange{local: b, ephemeral: eb, remote: a.Public(), remoteEphemeral: ea.PublicKey()}
		for side, ex := range map[string]*exchange{"initiator": &i, "responder": &r} {
			ikm, err := ex.material(nil)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(ikm[:32], c.K) {
				t.Errorf("%s, %s: K is %x", c.Comment, side, ikm[:32])
			}
			plain := refParse(eb.PublicKey().Bytes()[1:]).mul(refPointInt(c.InitiatorEphemeral))
			if !bytes.Equal(ikm[32:], plain.bytes()[:32]) {
				t.Errorf("%s, %s: ECDH of the ephemerals is %x", c.Comment, side, ikm[32:])
			}
		}
	}
}

// GB/T 32905 Annex A, through the suite's hash.
func TestStandardSM3(t *testing.T) {
	for in, want := range map[string]string{
		"abc":                      "66c7f0f4 62eeedd9 d1f2d46b dc10e4e2 4167c487 5cf2f7a2 297da02b 8f4ba8e0",
		strings.Repeat("abcd", 16): "debe9ff9 2275b8a1 38604889 c18e5a4d 6fdb70e5 387e5765 293dcba3 9c0c5732",
	} {
		h := SM4.hash()
		h.Write([]byte(in))
		if !bytes.Equal(h.Sum(nil), unhex(t, want)) {
			t.Errorf("%q: %x", in, h.Sum(nil))
		}
	}
}

// GB/T 32907 Annex A, through the suite's block cipher.
func TestStandardSM4(t *testing.T) {
	key := unhex(t, "01234567 89abcdef fedcba98 76543210")
	c, err := SM4.block(key)
	if err != nil {
		t.Fatal(err)
	}
	x := bytes.Clone(key)
	c.Encrypt(x, x)
	if !bytes.Equal(x, unhex(t, "681edf34 d206965e 86b3e94f 536e4246")) {
		t.Errorf("once: %x", x)
	}
	if testing.Short() {
		return
	}
	for range 1_000_000 - 1 {
		c.Encrypt(x, x)
	}
	if !bytes.Equal(x, unhex(t, "595298c7 c6fd271f 0402f804 c33d3f66")) {
		t.Errorf("a million times: %x", x)
	}
}

// RFC 8998 A.1 and the last case of the GCM proposal, through Suite.aead.
func TestStandardGCM(t *testing.T) {
	for _, c := range []struct {
		suite                               *Suite
		key, iv, plain, aad, cipher, tagged string
	}{
		{SM4, "0123456789ABCDEFFEDCBA9876543210", "00001234567800000000ABCD",
			`AAAAAAAAAAAAAAAABBBBBBBBBBBBBBBBCCCCCCCCCCCCCCCCDDDDDDDDDDDDDDDD
			EEEEEEEEEEEEEEEEFFFFFFFFFFFFFFFFEEEEEEEEEEEEEEEEAAAAAAAAAAAAAAAA`,
			"FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2",
			`17F399F08C67D5EE19D0DC9969C4BB7D5FD46FD3756489069157B282BB200735
			D82710CA5C22F0CCFA7CBF93D496AC15A56834CBCF98C397B4024A2691233B8D`,
			"83DE3541E4C2B58177E065A9BF7B62EC"},
		{AES, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
			`d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
			1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39`,
			"feedfacedeadbeeffeedfacedeadbeefabaddad2",
			`522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
			8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662`,
			"76fc6ece0f4e1768cddf8853bb2d551b"},
	} {
		a, err := c.suite.aead(unhex(t, c.key))
		if err != nil {
			t.Fatal(err)
		}
		want := unhex(t, c.cipher+c.tagged)
		got := a.Seal(nil, unhex(t, c.iv), unhex(t, c.plain), unhex(t, c.aad))
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %x", c.suite, got)
		}
		if plain, err := a.Open(nil, unhex(t, c.iv), got, unhex(t, c.aad)); err != nil || !bytes.Equal(plain, unhex(t, c.plain)) {
			t.Errorf("%s: does not open: %v", c.suite, err)
		}
	}
}
