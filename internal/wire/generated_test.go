package wire

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/owtp-go/owtp/proto/owtppb"
)

// checkGenerated reads strict octets with the code that is generated from
// owtp.proto, which must know every field and write the same octets.
func checkGenerated(t *testing.T, name string, b []byte) proto.Message {
	t.Helper()
	m := map[string]proto.Message{
		"Packet": new(owtppb.Packet), "Record": new(owtppb.Record), "Hello": new(owtppb.Hello), "HelloReply": new(owtppb.HelloReply),
		"Finish": new(owtppb.Finish), "SessionRecord": new(owtppb.SessionRecord), "CallRecord": new(owtppb.CallRecord),
	}[name]
	if m == nil {
		t.Fatalf("no generated message %s", name)
	}
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatalf("%s: %v\n%x", name, err, b)
	}
	if unknown := m.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		t.Fatalf("%s: %x are unknown to owtp.proto", name, unknown)
	}
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil || !bytes.Equal(again, b) {
		t.Fatalf("%s: %v\n%x\nbecame\n%x", name, err, b, again)
	}
	return m
}

// What this package writes is Protobuf, to the letter of owtp.proto.
func TestGeneratedCodeReadsStrictOctets(t *testing.T) {
	for name, f := range binaryForms {
		checkGenerated(t, name, f.sample)
	}
	p := samplePacket()
	m := checkGenerated(t, "Packet", p.Append(nil)).(*owtppb.Packet)
	if m.GetMethod() != p.Method || !bytes.Equal(m.GetData(), p.Data) || m.GetStatus() != p.Status || !bytes.Equal(m.GetSignature(), p.Signature) ||
		len(m.GetMeta()) != 2 || m.GetMeta()[1].GetValue() != "2" || m.GetTransport() != 4 {
		t.Errorf("the fields of %v are not those of %v", m, p)
	}
}

// And what Protobuf writes of such a message is read here.
func TestStrictParserReadsGeneratedCode(t *testing.T) {
	b, err := proto.Marshal(&owtppb.Packet{
		Version: Version, Kind: uint32(Request), Method: "echo", Nonce: seq(0x10, 16), Data: []byte{8, 0}, Format: "protobuf",
		Meta: []*owtppb.Entry{{Key: "a"}, {Key: "b", Value: "2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePacket(b)
	if err != nil || p.Method != "echo" || p.DataFormat() != "protobuf" || len(p.Meta) != 2 {
		t.Errorf("%+v: %v", p, err)
	}
}
