package secure

import (
	"bytes"
	"crypto/sha256"
	"math/big"
	"testing"

	"github.com/emmansun/gmsm/sm3"

	"github.com/owtp-go/owtp/internal/wire"
)

type packetVectors struct {
	About   string         `json:"about"`
	Cases   []packetVector `json:"cases"`
	Refused []struct {
		Comment string `json:"comment"`
		Binary  octets `json:"binary"`
		Class   string `json:"class"`
	} `json:"refused"`
}

type packetVector struct {
	Comment       string     `json:"comment"`
	Fields        []refField `json:"fields"`   // without the signature
	Unsigned      octets     `json:"unsigned"` // strict binary form of the fields
	Label         string     `json:"label"`
	SigningKey    octets     `json:"signing_key,omitempty"`
	SigningRandom octets     `json:"signing_random,omitempty"`
	Signature     octets     `json:"signature,omitempty"`
	Binary        octets     `json:"binary"`
	JSON          string     `json:"json"`
	RequestDigest octets     `json:"request_digest,omitempty"`
	CallDigest    octets     `json:"call_digest,omitempty"`
}

var (
	scalarA = octets{0x1a, 0x7c, 0x4e, 0x15, 0x53, 0xe1, 0x18, 0x45, 0xea, 0x09, 0xb6, 0x6b, 0x2d, 0x1f, 0x77, 0x0c, 0x5b, 0x12, 0x98, 0x3d, 0xa4, 0x40, 0x21, 0xf7, 0x83, 0xce, 0x3f, 0x0d, 0x6a, 0x90, 0x8b, 0x01}
	scalarB = octets{0x00, 0x52, 0x9d, 0xd7, 0x61, 0xc8, 0x2e, 0x0b, 0xb4, 0x7f, 0x36, 0xe9, 0x1d, 0x88, 0x43, 0xfa, 0x25, 0x6c, 0xd0, 0x9e, 0x57, 0xb1, 0x04, 0x3b, 0xe2, 0x71, 0x8f, 0xc6, 0x19, 0xad, 0x64, 0x02}
)

// vectorPackets are packets of every kind and with every field.
func vectorPackets(t testing.TB) []struct {
	comment string
	signed  bool
	p       wire.Packet
} {
	a, b := key(t, scalarA), key(t, scalarB)
	epochA, epochB := wire.Nonce(pattern(0xa0, 16)), wire.Nonce(pattern(0xb0, 16))
	nonce := wire.Nonce(pattern(0x10, 16))
	request := wire.Packet{
		Kind: wire.Request, Method: "getBalance", Nonce: nonce, Time: 1767225600000,
		Data: []byte(`{"address":"0x1","n":1.0}`), Remaining: 30000, Recipient: wire.ID(b.ID()), Epoch: epochB,
		Mode: wire.ModeSigned, Transport: 1,
	}
	signedRequest := request
	if err := Sign(newTape(pattern(0x40, 32)), a, &signedRequest); err != nil {
		t.Fatal(err)
	}
	type row = struct {
		comment string
		signed  bool
		p       wire.Packet
	}
	full := request
	full.CallKey = wire.Nonce(pattern(0x30, 16))
	full.Trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	full.Meta = []wire.MetaEntry{{Key: "A", Value: ""}, {Key: "lang", Value: "zh"}, {Key: "\u7528\u6237", Value: "\u5f20\u4e09"}}
	full.Mode, full.Transport, full.ReplyTo = wire.ModeSealedSigned, 4, "owtp.reply.7"
	full.Handshake = pattern(0x50, 100)
	return []row{
		{"open request with the fewest fields", false, wire.Packet{Kind: wire.Request, Method: "echo", Nonce: nonce}},
		{"signed request over HTTP; the data keeps 1.0 and the order of its members", true, request},
		{"request with every field that a request can have; entries sorted by octets, the first without a value", true, full},
		{"request whose data is not JSON: base64 in the envelope", false, wire.Packet{Kind: wire.Request, Method: "put", Nonce: nonce, Data: []byte{0, 0xff, 0xfe, '"'}, Format: "protobuf"}},
		{"data with white space inside, an escape and a large number: octets, never a value", false,
			wire.Packet{Kind: wire.Request, Method: "say \"hi\"\\\u2028", Nonce: nonce, Data: []byte("[ 1 ,\n\"\\u4e2d\\/\", 18446744073709551617 ]")}},
		{"signed response with the digest of the signed request above", true, wire.Packet{
			Kind: wire.Response, Method: "getBalance", Nonce: nonce, Time: 1767225600100, Data: []byte(`"1000000000000000000000"`), Epoch: epochB,
			Digest: RequestDigest(&signedRequest), Mode: wire.ModeSigned, Transport: 1, Recipient: wire.ID(a.ID()), Status: 200}},
		{"refusal: 409, a copy", true, wire.Packet{
			Kind: wire.Response, Method: "getBalance", Nonce: nonce, Time: 1767225600100, Epoch: epochB, Digest: RequestDigest(&signedRequest),
			Mode: wire.ModeSigned, Transport: 1, Recipient: wire.ID(a.ID()), Status: 409, Msg: "request was here before", Reason: wire.ReasonCopy}},
		{"unproved refusal without a request to name", false, wire.Packet{Kind: wire.Response, Status: 400, Msg: "not a packet\n"}},
		{"response with the largest status, no data", false, wire.Packet{Kind: wire.Response, Nonce: nonce, Time: 1<<63 - 1, Status: 1<<64 - 1}},
		{"one-way", true, wire.Packet{Kind: wire.OneWay, Method: "notify", Nonce: nonce, Time: 1767225600000, Data: []byte("null"), Recipient: wire.ID(a.ID()), Epoch: epochA, Mode: wire.ModeSigned, Transport: 2}},
		{"cancel of the request with this nonce", true, wire.Packet{Kind: wire.Cancel, Nonce: nonce, Mode: wire.ModeSigned, Transport: 2, Recipient: wire.ID(b.ID()), Epoch: epochB}},
		{"heartbeat, the question", false, wire.Packet{Kind: wire.Heartbeat, Nonce: wire.Nonce(pattern(0x20, 16))}},
		{"heartbeat, the answer", false, wire.Packet{Kind: wire.Heartbeat, Nonce: wire.Nonce(pattern(0x20, 16)), Reason: wire.ReasonPong}},
		{"going away: shutdown", false, wire.Packet{Kind: wire.GoingAway, Reason: wire.ReasonShutdown}},
		{"going away: renew", false, wire.Packet{Kind: wire.GoingAway, Reason: wire.ReasonRenew}},
		{"going away: closed", false, wire.Packet{Kind: wire.GoingAway, Reason: wire.ReasonClosed}},
		{"open: the first packet of a connection without a handshake, and its answer", false, wire.Packet{Kind: wire.Open}},
	}
}

// refFields lists the fields of p in the order of docs/PROTOCOL.md §3.2.
func refFields(p *wire.Packet) []refField {
	f := fieldList{}
	f.number(1, 2)
	f.number(2, uint64(p.Kind))
	f.text(3, p.Method)
	f.octets(4, p.Nonce[:])
	f.octets(5, p.CallKey[:])
	f.number(6, p.Time)
	f.octets(7, p.Data)
	f.text(8, p.Format)
	f.number(9, p.Remaining)
	f.text(10, p.Trace)
	for _, m := range p.Meta {
		f = append(f, refField{Number: 11, Type: "entry", Entry: []string{m.Key, m.Value}})
	}
	f.octets(12, p.SenderKey)
	f.octets(13, p.Recipient[:])
	f.octets(14, p.Epoch[:])
	f.octets(15, p.Digest[:])
	f.number(16, uint64(p.Mode))
	f.number(17, uint64(p.Transport))
	f.text(18, p.ReplyTo)
	f.number(19, p.Status)
	f.text(20, p.Msg)
	f.number(21, uint64(p.Reason))
	f.octets(22, p.Handshake)
	return f
}

func generatePackets(t testing.TB) packetVectors {
	v := packetVectors{About: "Packets in both forms (PROTOCOL 3), what is signed (PROTOCOL 5) and their digests. " +
		"fields are the logical fields but the signature in ascending order; unsigned is their strict binary form; the signature is over label followed by unsigned, " +
		"with the user ID SHA-256 of the signer's public key, which is field 12. Signatures were made with the 32 octets signing_random by a hedged generator " +
		"(draft-irtf-cfrg-det-sigs-with-noise-04 with HMAC-SM3); another implementation verifies them and need not reproduce them. " +
		"json is what this implementation writes; every JSON text that parses to the same fields is the same packet. request_digest covers the unsigned form, call_digest the fields 1, 2, 3, 7, 8 and 11 of it."}
	for n, row := range vectorPackets(t) {
		p := row.p
		c := packetVector{Comment: row.comment, Label: signLabel(p.Kind)}
		if row.signed {
			c.SigningKey, c.SigningRandom = scalarA, pattern(0x40, 32)
			if p.Kind == wire.Response || p.Kind == wire.OneWay {
				c.SigningKey = scalarB
			}
			random := newTape(c.SigningRandom)
			if err := Sign(random, key(t, c.SigningKey), &p); err != nil {
				t.Fatal(err)
			}
			random.end(t)
			c.Signature = p.Signature
		}
		c.Fields = refFields(&p)
		c.Unsigned, c.Binary = p.AppendUnsigned(nil), p.Append(nil)
		text, err := p.AppendJSON(nil)
		if err != nil {
			t.Fatal(n, err)
		}
		c.JSON = string(text)
		if p.Kind == wire.Request {
			digest, call := RequestDigest(&p), CallDigest(&p)
			c.RequestDigest, c.CallDigest = digest[:], call[:]
		}
		v.Cases = append(v.Cases, c)
	}
	refuse := func(comment string, p wire.Packet, class string) {
		v.Refused = append(v.Refused, struct {
			Comment string `json:"comment"`
			Binary  octets `json:"binary"`
			Class   string `json:"class"`
		}{comment, p.Append(nil), class})
	}
	good, err := wire.ParsePacket(v.Cases[1].Binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		comment string
		change  func(*wire.Packet)
	}{
		{"the signature's first octet changed", func(p *wire.Packet) { p.Signature = flipped(p.Signature, 0) }},
		{"the signature's last octet changed", func(p *wire.Packet) { p.Signature = flipped(p.Signature, -1) }},
		{"no signature", func(p *wire.Packet) { p.Signature = nil }},
		{"no key", func(p *wire.Packet) { p.SenderKey = nil }},
		{"another key", func(p *wire.Packet) { p.SenderKey = key(t, scalarB).Public().Bytes() }},
		{"key off the curve", func(p *wire.Packet) { p.SenderKey = flipped(p.SenderKey, -1) }},
		{"another method", func(p *wire.Packet) { p.Method = "getBalancf" }},
		{"another recipient", func(p *wire.Packet) { p.Recipient[0] ^= 1 }},
		{"another epoch", func(p *wire.Packet) { p.Epoch[15] ^= 1 }},
		{"another transport", func(p *wire.Packet) { p.Transport = 2 }},
		{"another mode", func(p *wire.Packet) { p.Mode = wire.ModeSealedSigned }},
		{"another time", func(p *wire.Packet) { p.Time++ }},
		{"other data", func(p *wire.Packet) { p.Data = []byte(`{"address":"0x1","n":1}`) }},
		{"another call key", func(p *wire.Packet) { p.CallKey = wire.Nonce(pattern(0x30, 16)) }},
		{"the same fields as one-way", func(p *wire.Packet) { p.Kind = wire.OneWay }},
		{"r is n", func(p *wire.Packet) {
			p.Signature = append(refN.FillBytes(make([]byte, 32)), p.Signature[32:]...)
		}},
		{"r and s are zero", func(p *wire.Packet) { p.Signature = make([]byte, 64) }},
		{"s is zero", func(p *wire.Packet) { p.Signature = append(bytes.Clone(p.Signature[:32]), make([]byte, 32)...) }},
		{"s is n - r, so that r + s is zero", func(p *wire.Packet) {
			s := new(big.Int).Sub(refN, refPointInt(p.Signature[:32]))
			p.Signature = append(bytes.Clone(p.Signature[:32]), s.FillBytes(make([]byte, 32))...)
		}},
	} {
		p := *good
		c.change(&p)
		refuse(c.comment, p, "signature")
	}
	return v
}

func TestPacketVectors(t *testing.T) {
	v := compareVectors(t, "packets.json", generatePackets(t))
	if len(v.Cases) == 0 || len(v.Refused) == 0 {
		t.Fatal("no vectors")
	}
	kinds := map[wire.Kind]bool{}
	for _, c := range v.Cases {
		p := checkPacketVector(t, c)
		kinds[p.Kind] = true
	}
	if len(kinds) != int(wire.Open) {
		t.Errorf("packets of %d kinds, there are %d", len(kinds), wire.Open)
	}
	for _, c := range v.Refused {
		p, err := wire.ParsePacket(c.Binary)
		if err == nil {
			_, err = Verify(p, nil)
		}
		if class(err) != c.Class {
			t.Errorf("%s: %v, want class %s", c.Comment, err, c.Class)
		}
	}
}

// checkPacketVector checks a case against the reference and both parsers.
func checkPacketVector(t *testing.T, c packetVector) *wire.Packet {
	t.Helper()
	if got := refEncode(c.Fields); !bytes.Equal(got, c.Unsigned) {
		t.Errorf("%s: reference encodes\n%x, the vector has\n%x", c.Comment, got, c.Unsigned)
	}
	whole := bytes.Clone(c.Unsigned)
	if len(c.Signature) > 0 {
		whole = refBytes(whole, 23, c.Signature)
		pub := refBase(c.SigningKey).bytes()
		id := sha256.Sum256(pub)
		if !refVerify(pub, id[:], c.Signature, []byte(c.Label), c.Unsigned) {
			t.Errorf("%s: the reference refuses the signature", c.Comment)
		}
		if !bytes.Contains(c.Unsigned, pub) {
			t.Errorf("%s: the signer's key is not inside", c.Comment)
		}
	}
	if !bytes.Equal(whole, c.Binary) {
		t.Errorf("%s: binary form is not the unsigned form and field 23", c.Comment)
	}
	for _, form := range []struct {
		name  string
		octet []byte
		parse func([]byte) (*wire.Packet, error)
	}{{"binary", c.Binary, wire.ParsePacket}, {"JSON", []byte(c.JSON), wire.ParseJSON}} {
		p, err := form.parse(form.octet)
		if err != nil {
			t.Fatalf("%s: %s: %v", c.Comment, form.name, err)
		}
		if !bytes.Equal(p.Append(nil), c.Binary) {
			t.Errorf("%s: %s parses to another packet", c.Comment, form.name)
		}
		if _, err := Verify(p, nil); (err == nil) != (len(c.Signature) > 0) {
			t.Errorf("%s: %s: Verify: %v", c.Comment, form.name, err)
		}
	}
	if len(c.RequestDigest) > 0 {
		if d := sm3.Sum(append([]byte("OWTP/2 request digest\x00"), c.Unsigned...)); !bytes.Equal(d[:], c.RequestDigest) {
			t.Errorf("%s: request digest", c.Comment)
		}
		var call []refField
		for _, f := range c.Fields {
			switch f.Number {
			case 1, 2, 3, 7, 8, 11:
				call = append(call, f)
			}
		}
		if d := sm3.Sum(append([]byte("OWTP/2 call digest\x00"), refEncode(call)...)); !bytes.Equal(d[:], c.CallDigest) {
			t.Errorf("%s: call digest", c.Comment)
		}
	}
	p, err := wire.ParsePacket(c.Binary)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
