package wire

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
)

// Samples that tests begin with; each uses every field that its message has.

func seq(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

func samplePacket() *Packet {
	return &Packet{
		Kind: Request, Method: "getBalance", Nonce: Nonce(seq(0x10, 16)), CallKey: Nonce(seq(0x30, 16)), Time: 1767225600000,
		Data: []byte(`{"a":[1,"x"]}`), Remaining: 30000, Trace: "00-trace-01", Meta: []MetaEntry{{"a", ""}, {"b", "2"}},
		SenderKey: seq(1, 64), Recipient: ID(seq(2, 32)), Epoch: Nonce(seq(0x40, 16)), Digest: Digest(seq(0x50, 32)),
		Mode: ModeSealedSigned, Transport: 4, ReplyTo: "queue", Status: 200, Msg: "text\n", Reason: ReasonCopy,
		Handshake: seq(3, 100), Signature: seq(4, 64),
	}
}

func sampleHello() *Hello {
	return &Hello{
		Transport: 4, Mode: ModeSealed, Suites: []string{"one", "two"}, Key: seq(1, 64), Recipient: ID(seq(2, 32)), Random: [32]byte(seq(3, 32)),
		Ephemeral: seq(4, 64), KEM: bytes.Repeat([]byte{5}, KEMKeySize), Epoch: Nonce(seq(6, 16)), ReplyQueue: "reply", RequestQueue: "request", Retires: seq(7, 32),
	}
}

func sampleProofHello() *Hello {
	return &Hello{Transport: 1, Mode: ModeSigned, Key: seq(1, 64), Random: [32]byte(seq(3, 32)), Epoch: Nonce(seq(6, 16))}
}

func sampleReply() *HelloReply {
	return &HelloReply{
		Suite: "one", Key: seq(1, 64), Random: [32]byte(seq(2, 32)), Ephemeral: seq(3, 64), KEM: bytes.Repeat([]byte{4}, KEMCiphertextSize),
		Session: seq(5, 32), Epoch: Nonce(seq(6, 16)), Time: 1767225600000, Queue: "queue", Lifetime: 3600000, Signature: seq(7, 64), MAC: seq(8, 32),
	}
}

func sampleProofReply() *HelloReply {
	return &HelloReply{Key: seq(1, 64), Random: [32]byte(seq(2, 32)), Epoch: Nonce(seq(6, 16)), Time: 1, Signature: seq(7, 64)}
}

func sampleFinish() *Finish { return &Finish{Signature: seq(1, 64), MAC: seq(2, 32)} }

func sampleSession() *SessionRecord {
	return &SessionRecord{
		Suite: "one", Mode: ModeSealed, Transport: 1, PeerKey: seq(1, 64), OwnEpoch: Nonce(seq(2, 16)), PeerEpoch: Nonce(seq(3, 16)),
		Transcript: seq(4, 32), Send: seq(5, 32), Receive: seq(6, 32), InitiatorMAC: seq(7, 32), Expires: 1767229200000,
		ReplyQueue: "reply", RequestQueue: "request", Retires: seq(8, 32),
	}
}

func sampleCall() *CallRecord {
	return &CallRecord{State: CallDone, Owner: Nonce(seq(1, 16)), Lease: 1767225630000, Digest: Digest(seq(2, 32)),
		Attempts: []Nonce{Nonce(seq(3, 16)), Nonce(seq(4, 16))}, Reply: []byte("reply")}
}

// A form is one parser, and its writer if it has one.
type form struct {
	sample []byte
	parse  func([]byte) (marshal func() []byte, err error)
}

func marshaller[T interface{ Append([]byte) []byte }](v T, err error) (func() []byte, error) {
	return func() []byte { return v.Append(nil) }, err
}

// binaryForms are all parsers of the strict binary form, by their name in
// owtp.proto.
var binaryForms = map[string]form{
	"Packet":        {samplePacket().Append(nil), func(b []byte) (func() []byte, error) { return marshaller(ParsePacket(b)) }},
	"Hello":         {sampleHello().Append(nil), func(b []byte) (func() []byte, error) { return marshaller(ParseHello(b)) }},
	"HelloReply":    {sampleReply().Append(nil), func(b []byte) (func() []byte, error) { return marshaller(ParseHelloReply(b)) }},
	"Finish":        {sampleFinish().Append(nil), func(b []byte) (func() []byte, error) { return marshaller(ParseFinish(b)) }},
	"SessionRecord": {sampleSession().Append(nil), func(b []byte) (func() []byte, error) { return marshaller(ParseSessionRecord(b)) }},
	"CallRecord":    {sampleCall().Append(nil), func(b []byte) (func() []byte, error) { return marshaller(ParseCallRecord(b)) }},
	"Record": {appendRecord(samplePacket(), &Packet{Kind: Open}), func(b []byte) (func() []byte, error) {
		packets, err := ParseRecord(b)
		return func() []byte { return appendRecord(packets...) }, err
	}},
}

func appendRecord(packets ...*Packet) []byte {
	var b []byte
	for _, p := range packets {
		b = AppendRecordPacket(b, p.Append(nil))
	}
	return b
}

// A raw is one field as it stands on the wire, so that tests can write what no
// encoder writes.
type raw struct {
	field, typ int
	octets     []byte // tag excluded, length included
}

func (r raw) bytes() []byte { return append(uvarintOf(uint64(r.field)<<3|uint64(r.typ)), r.octets...) }

func uvarintOf(v uint64) []byte {
	var b []byte
	for v > 127 {
		b = append(b, byte(v)|128)
		v >>= 7
	}
	return append(b, byte(v))
}

func rawBytes(field int, v []byte) raw {
	return raw{field, typeBytes, append(uvarintOf(uint64(len(v))), v...)}
}

func rawNumber(field int, v uint64) raw { return raw{field, typeVarint, uvarintOf(v)} }

// split cuts a message into its fields.
func split(b []byte) []raw {
	var out []raw
	for len(b) > 0 {
		tag, n := uvarint(b)
		b = b[n:]
		v, n := uvarint(b)
		end := n
		if tag&7 == typeBytes {
			end += int(v)
		}
		out = append(out, raw{int(tag >> 3), int(tag & 7), b[:end:end]})
		b = b[end:]
	}
	return out
}

func join(fields []raw) []byte {
	var b []byte
	for _, f := range fields {
		b = append(b, f.bytes()...)
	}
	return b
}

// replaceField puts with in the place of the first field of that number.
func replaceField(b []byte, number int, with ...raw) []byte {
	fields := split(b)
	for i, f := range fields {
		if f.field == number {
			return join(append(append(append([]raw(nil), fields[:i]...), with...), fields[i+1:]...))
		}
	}
	panic(fmt.Sprintf("no field %d", number))
}

// envelopeWith is a good JSON request with members put behind it; a name that
// is given again replaces the good member.
func envelopeWith(members ...string) string {
	order := []string{"v", "r", "m", "n"}
	values := map[string]string{"v": "2", "r": "1", "m": `"echo"`, "n": `"` + base64.StdEncoding.EncodeToString(seq(0x10, 16)) + `"`}
	for i := 0; i+1 < len(members); i += 2 {
		if _, known := values[members[i]]; !known {
			order = append(order, members[i])
		}
		values[members[i]] = members[i+1]
	}
	var out []string
	for _, name := range order {
		if values[name] != "" {
			out = append(out, `"`+name+`":`+values[name])
		}
	}
	return "{" + strings.Join(out, ",") + "}"
}
