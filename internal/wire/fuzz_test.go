package wire

import (
	"bytes"
	"reflect"
	"testing"
)

// What parses marshals to the same octets, in every message of the strict
// binary form: there is one encoding of a value and nothing is dropped.
func fuzzBinary(f *testing.F, name string, more ...[]byte) {
	form, ok := binaryForms[name]
	if !ok {
		f.Fatal("no such form")
	}
	f.Add(form.sample)
	for _, b := range more {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		marshal, err := form.parse(b)
		if c := class(err); c != "none" && c != "malformed" && c != "version" {
			t.Fatal(err)
		}
		if err == nil && !bytes.Equal(marshal(), in) {
			t.Fatalf("%x\nmarshals to\n%x", in, marshal())
		}
		if err == nil {
			checkGenerated(t, name, in)
		}
		if !bytes.Equal(b, in) {
			t.Fatal("the parser wrote to its input")
		}
	})
}

func FuzzPacketBinary(f *testing.F) {
	other := samplePacket()
	other.Format, other.Data = "protobuf", []byte{0}
	fuzzBinary(f, "Packet", (&Packet{Kind: Open}).Append(nil), other.Append(nil))
}
func FuzzRecord(f *testing.F)        { fuzzBinary(f, "Record") }
func FuzzHello(f *testing.F)         { fuzzBinary(f, "Hello", sampleProofHello().Append(nil)) }
func FuzzHelloReply(f *testing.F)    { fuzzBinary(f, "HelloReply", sampleProofReply().Append(nil)) }
func FuzzFinish(f *testing.F)        { fuzzBinary(f, "Finish") }
func FuzzSessionRecord(f *testing.F) { fuzzBinary(f, "SessionRecord") }
func FuzzCallRecord(f *testing.F)    { fuzzBinary(f, "CallRecord") }

// The envelope and the binary form say the same: whatever JSON parses to has a
// binary form that parses to it, and JSON that does.
func FuzzPacketJSON(f *testing.F) {
	text, err := samplePacket().AppendJSON(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, e := range accepted() {
		f.Add(e.input(f))
	}
	f.Add([]byte(envelopeWith("f", `"protobuf"`, "d", `"AP8="`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseJSON(b)
		if err != nil {
			if c := class(err); c != "malformed" && c != "version" || p != nil {
				t.Fatal(err)
			}
			return
		}
		binary := p.Append(nil)
		q, err := ParsePacket(binary)
		if err != nil || !bytes.Equal(q.Append(nil), binary) {
			t.Fatalf("binary form %x: %v", binary, err)
		}
		text, err := q.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ParseJSON(text)
		if err != nil || !reflect.DeepEqual(normal(r), normal(p)) || !reflect.DeepEqual(normal(r), normal(q)) {
			t.Fatalf("%s\nbecame\n%s\n%v", b, text, err)
		}
		if err := p.Validate(); err != nil {
			t.Fatalf("a packet that parses does not validate: %v", err)
		}
	})
}

// normal makes absent slices comparable: empty and nil are both absent.
func normal(p *Packet) *Packet {
	c := *p
	for _, s := range []*[]byte{&c.Data, &c.SenderKey, &c.Handshake, &c.Signature} {
		if len(*s) == 0 {
			*s = nil
		}
	}
	if len(c.Meta) == 0 {
		c.Meta = nil
	}
	return &c
}

func FuzzHeader(f *testing.F) {
	f.Add(AppendHeader(nil, TypeHello))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		typ, body, err := ParseHeader(b)
		if err == nil && !bytes.Equal(append(AppendHeader(nil, typ), body...), b) {
			t.Fatal("header")
		}
	})
}
