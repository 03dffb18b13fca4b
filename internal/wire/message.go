package wire

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// A binary message begins with two octets: the protocol version and the type
// of what follows (docs/PROTOCOL.md §3.5). JSON begins with "{" or white space,
// so the first octet also tells the two forms apart.

// A MessageType is the second octet of a binary message.
type MessageType uint8

const (
	TypeHello       MessageType = 1 // Hello
	TypeHelloReply  MessageType = 2 // HelloReply
	TypePackets     MessageType = 3 // packets that are not sealed
	TypeRecord      MessageType = 4 // sealed packets on a long connection
	TypeSealed      MessageType = 5 // one sealed packet that is no response, HTTP and MQ
	TypeSealedReply MessageType = 6 // one sealed response, HTTP and MQ

	maxType = TypeSealedReply
)

// HeaderSize is the number of octets before the body of a binary message.
const HeaderSize = 2

// AppendHeader begins a binary message.
func AppendHeader(b []byte, t MessageType) []byte { return append(b, Version, byte(t)) }

// ParseHeader reads the first two octets and returns the rest.
func ParseHeader(b []byte) (MessageType, []byte, error) {
	if len(b) < HeaderSize {
		return 0, nil, malformed("%d octets are no message", len(b))
	}
	if b[0] != Version {
		return 0, nil, versionError(uint64(b[0]))
	}
	t := MessageType(b[1])
	if t == 0 || t > maxType {
		return 0, nil, malformed("unknown message type %d", b[1])
	}
	return t, b[HeaderSize:], nil
}

// AppendRecordPacket appends one packet, already in binary form, to the body of
// a record: field 1 of Record in owtp.proto, repeated.
func AppendRecordPacket(b, packet []byte) []byte { return appendOctets(b, 1, packet) }

// AppendToRecord appends p to the body of a record.
func (p *Packet) AppendToRecord(b []byte) []byte {
	// The length comes first and is known last. Almost always the room for it
	// is right; otherwise it is too much, and the packet moves to where its
	// length ends.
	prefix := 1 + sizeVarint(p.Room())
	at := len(b)
	b = slices.Grow(b, prefix+p.Room())[:at+prefix]
	b = p.Append(b)
	n := len(b) - at - prefix
	if prefix == 1+sizeVarint(n) {
		b[at] = 1<<3 | typeBytes
		binary.PutUvarint(b[at+1:], uint64(n))
		return b
	}
	return AppendRecordPacket(b[:at], b[at+prefix:])
}

// sizeVarint is how many octets a length takes.
func sizeVarint(n int) int { return (bits.Len64(uint64(n)|1) + 6) / 7 }

// AppendMessage appends a message of type packets that holds p alone.
func (p *Packet) AppendMessage(b []byte) []byte {
	return p.AppendToRecord(AppendHeader(slices.Grow(b, HeaderSize+1+binary.MaxVarintLen32+p.Room()), TypePackets))
}

// ParseRecord reads the packets of a record's body: all of them or, if one is
// wrong, none, so that half a record has no effect.
func ParseRecord(b []byte) ([]*Packet, error) { return AppendRecord(nil, b) }

// AppendRecord is ParseRecord that appends to packets, which has none yet.
func AppendRecord(packets []*Packet, b []byte) ([]*Packet, error) {
	r := reader{rest: b}
	for r.next(1) {
		if r.field != 1 {
			r.unknown()
			break
		}
		oct := r.octets(len(r.oct))
		if r.err != nil {
			break
		}
		if len(packets) == MaxRecordPackets {
			return nil, malformed("more than %d packets in one record", MaxRecordPackets)
		}
		p, err := ParsePacket(oct)
		if err != nil {
			return nil, err
		}
		packets = append(packets, p)
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(packets) == 0 {
		return nil, malformed("record without packets")
	}
	return packets, nil
}

// ParseJSONRecord reads the packets of one JSON message: one object after the
// other, with white space between them or none.
func ParseJSONRecord(b []byte) ([]*Packet, error) {
	var packets []*Packet
	for i := skipSpace(b, 0); i < len(b); i = skipSpace(b, i) {
		if len(packets) == MaxRecordPackets {
			return nil, malformed("more than %d packets in one message", MaxRecordPackets)
		}
		p, end, err := parseJSONAt(b, i)
		if err != nil {
			return nil, err
		}
		packets = append(packets, p)
		i = end
	}
	if len(packets) == 0 {
		return nil, malformed("message without packets")
	}
	return packets, nil
}
