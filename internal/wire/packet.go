// Package wire is the protocol's shape: packets, hellos and records, their one
// strict binary form and the readable JSON envelope, and the bounds on all of
// them (docs/PROTOCOL.md §3). It opens no socket, starts no goroutine and knows
// no clock and no key; it never trusts a length before it has the octets.
package wire

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// Version is the protocol version in every packet and hello.
const Version = 2

// A Kind says what a packet is for.
type Kind uint8

const (
	Request   Kind = 1
	Response  Kind = 2
	OneWay    Kind = 3
	Cancel    Kind = 4 // of the sender's own request with this nonce
	Heartbeat Kind = 5 // Reason tells the question from the answer
	GoingAway Kind = 6 // Reason tells why
	Open      Kind = 7 // first packet of a connection without a handshake, and the answer to it
)

func (k Kind) String() string {
	names := [...]string{"", "request", "response", "one-way", "cancel", "heartbeat", "going-away", "open"}
	if int(k) < len(names) && k > 0 {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// A Mode says what protects a packet (PROTOCOL §4). Zero is not a mode.
type Mode uint8

const (
	ModeOpen         Mode = 1
	ModeSigned       Mode = 2
	ModeSealed       Mode = 3
	ModeSealedSigned Mode = 4
)

func (m Mode) String() string {
	names := [...]string{"", "open", "signed", "sealed", "sealed+signed"}
	if int(m) < len(names) && m > 0 {
		return names[m]
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// Signed reports whether packets of the mode carry a signature.
func (m Mode) Signed() bool { return m == ModeSigned || m == ModeSealedSigned }

// Sealed reports whether the mode asks for the seal on every transport.
func (m Mode) Sealed() bool { return m == ModeSealed || m == ModeSealedSigned }

// A Reason explains a going-away, a refusal or a heartbeat.
type Reason uint8

const (
	ReasonShutdown Reason = 1  // going-away: the sender is shutting down
	ReasonRenew    Reason = 2  // going-away: another connection takes over
	ReasonClosed   Reason = 3  // going-away: closed for good; do not reconnect
	ReasonPong     Reason = 4  // heartbeat: the answer
	ReasonEpoch    Reason = 5  // refusal: the packet belongs to another epoch
	ReasonClock    Reason = 6  // refusal: the packet's time is outside the window
	ReasonCopy     Reason = 7  // refusal: a packet with this nonce was here before
	ReasonKey      Reason = 8  // refusal: the call key belongs to a call with another digest
	ReasonUnknown  Reason = 9  // 504: what became of the call is not known
	ReasonNotRun   Reason = 10 // refusal: the packet did not reach a handler, and never will

	maxReason = ReasonNotRun
)

// A Nonce is 16 random octets: a packet's own, a call key or an epoch. All
// zeros means absent.
type Nonce [16]byte

// IsZero reports whether n is absent.
func (n Nonce) IsZero() bool { return n == Nonce{} }

// An ID is a node ID before base58. All zeros means absent.
type ID [32]byte

// A Digest is the SM3 digest of a request's signed octets.
type Digest [32]byte

// A MetaEntry is one user entry of the metadata.
type MetaEntry struct{ Key, Value string }

// A Packet is one packet. Fields that are zero are absent. After a Parse its
// slices alias the octets that were parsed.
type Packet struct {
	Kind      Kind
	Method    string
	Nonce     Nonce  // a response, a cancel and a pong repeat their request's
	CallKey   Nonce  // absent: the nonce
	Time      uint64 // milliseconds since 1970, UTC
	Data      []byte
	Format    string // absent: "json"
	Remaining uint64 // milliseconds until the caller stops waiting
	Trace     string
	Meta      []MetaEntry // sorted by key, no key twice
	SenderKey []byte      // X‖Y, 64 octets
	Recipient ID
	Epoch     Nonce // request: the receiver's; response: the sender's
	Digest    Digest
	Mode      Mode
	Transport uint8
	ReplyTo   string
	Status    uint64
	Msg       string
	Reason    Reason
	Handshake []byte // the initiator's finish
	Signature []byte // r‖s, 64 octets
}

// FormatJSON is the data format that an absent Format stands for.
const FormatJSON = "json"

// DataFormat returns the name of the data's format.
func (p *Packet) DataFormat() string {
	if p.Format == "" {
		return FormatJSON
	}
	return p.Format
}

// Key returns the call key: the caller's own or the nonce.
func (p *Packet) Key() Nonce {
	if p.CallKey.IsZero() {
		return p.Nonce
	}
	return p.CallKey
}

// AppendUnsigned appends the strict binary form without the signature: the
// octets that a signature and a digest cover, after their label.
func (p *Packet) AppendUnsigned(b []byte) []byte {
	b = slices.Grow(b, p.Room())
	b = appendUint(b, 1, Version)
	b = appendUint(b, 2, uint64(p.Kind))
	b = appendOctets(b, 3, p.Method)
	b = appendFixed(b, 4, p.Nonce[:])
	b = appendFixed(b, 5, p.CallKey[:])
	b = appendUint(b, 6, p.Time)
	b = appendOctets(b, 7, p.Data)
	b = appendOctets(b, 8, p.Format)
	b = appendUint(b, 9, p.Remaining)
	b = appendOctets(b, 10, p.Trace)
	for _, m := range p.Meta {
		b = appendMeta(b, m)
	}
	b = appendOctets(b, 12, p.SenderKey)
	b = appendFixed(b, 13, p.Recipient[:])
	b = appendFixed(b, 14, p.Epoch[:])
	b = appendFixed(b, 15, p.Digest[:])
	b = appendUint(b, 16, uint64(p.Mode))
	b = appendUint(b, 17, uint64(p.Transport))
	b = appendOctets(b, 18, p.ReplyTo)
	b = appendUint(b, 19, p.Status)
	b = appendOctets(b, 20, p.Msg)
	b = appendUint(b, 21, uint64(p.Reason))
	return appendOctets(b, 22, p.Handshake)
}

// Room is at least the length of the binary form with a signature: growing step
// by step would copy the data several times. The constants are what all numbers
// and fixed fields take and the tags and lengths of the others.
func (p *Packet) Room() int {
	n := 128 + len(p.Method) + len(p.Data) + len(p.Format) + len(p.Trace) + len(p.SenderKey) +
		len(p.ReplyTo) + len(p.Msg) + len(p.Handshake)
	if p.Mode != 0 || p.SenderKey != nil { // signed, or about to be
		n += 128 + 66
	}
	for _, m := range p.Meta {
		n += len(m.Key) + len(m.Value) + 10
	}
	return n
}

func appendMeta(b []byte, m MetaEntry) []byte {
	var buf [MaxMetaKey + MaxMetaValue + 8]byte
	entry := appendOctets(buf[:0], 1, m.Key)
	entry = appendOctets(entry, 2, m.Value)
	return appendOctets(b, 11, entry)
}

// Unprove takes away what a signature and its signer have added.
func (p *Packet) Unprove() {
	p.Time, p.SenderKey, p.Recipient, p.Epoch, p.Digest = 0, nil, ID{}, Nonce{}, Digest{}
	p.Mode, p.Transport, p.Signature = 0, 0, nil
}

// Append appends the strict binary form.
func (p *Packet) Append(b []byte) []byte {
	return appendOctets(p.AppendUnsigned(b), 23, p.Signature)
}

// spare are packets that were released.
var spare = sync.Pool{New: func() any { return new(Packet) }}

// NewPacket returns one with p's fields, for who will release it.
func NewPacket(p Packet) *Packet {
	n := spare.Get().(*Packet)
	*n = p
	return n
}

// Release gives back a packet that came from a Parse or NewPacket and that nobody
// uses any more. The octets that it aliases stay whose they are. Who keeps a packet, or
// does not know who else does, just leaves it to the collector.
func (p *Packet) Release() {
	*p = Packet{Method: p.Method, Format: p.Format} // names come again, and then cost nothing
	spare.Put(p)
}

// ParsePacket reads one packet in the strict binary form; all of b belongs to
// it. The packet aliases b.
func ParsePacket(b []byte) (*Packet, error) {
	p := spare.Get().(*Packet)
	method, format := p.Method, p.Format
	p.Method, p.Format = "", ""
	r := reader{rest: b}
	version := false
	for r.next(11) {
		if r.field == 1 {
			version = true
			if v := r.uint(1 << 32); r.err == nil && v != Version {
				return nil, versionError(v)
			}
			continue
		}
		switch r.field {
		case 3:
			p.Method = r.textAs(method, MaxMethod)
		case 8:
			p.Format = r.textAs(format, MaxFormat)
		default:
			p.readField(&r)
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	if !version {
		return nil, malformed("no version")
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	if err := p.CheckData(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Packet) readField(r *reader) {
	switch r.field {
	case 2:
		p.Kind = Kind(r.uint(uint64(Open)))
	case 4:
		r.fixed(p.Nonce[:])
	case 5:
		r.fixed(p.CallKey[:])
	case 6:
		p.Time = r.uint(1<<63 - 1)
	case 7:
		p.Data = r.octets(len(r.oct))
	case 9:
		p.Remaining = r.uint(1<<63 - 1)
	case 10:
		p.Trace = r.text(MaxTrace)
	case 11:
		p.readMeta(r)
	case 12:
		p.SenderKey = r.exactly(64)
	case 13:
		r.fixed(p.Recipient[:])
	case 14:
		r.fixed(p.Epoch[:])
	case 15:
		r.fixed(p.Digest[:])
	case 16:
		p.Mode = Mode(r.uint(uint64(ModeSealedSigned)))
	case 17:
		p.Transport = uint8(r.uint(255))
	case 18:
		p.ReplyTo = r.text(MaxQueue)
	case 19:
		p.Status = r.uint(1<<64 - 1)
	case 20:
		p.Msg = r.text(MaxMessage)
	case 21:
		p.Reason = Reason(r.uint(uint64(maxReason)))
	case 22:
		p.Handshake = r.octets(MaxHandshake)
	case 23:
		p.Signature = r.exactly(64)
	default:
		r.unknown()
	}
}

func (p *Packet) readMeta(r *reader) {
	oct := r.octets(MaxMetaKey + MaxMetaValue + 8)
	if r.err != nil {
		return
	}
	var m MetaEntry
	e := reader{rest: oct}
	for e.next(0) {
		switch e.field {
		case 1:
			m.Key = e.text(MaxMetaKey)
		case 2:
			m.Value = e.text(MaxMetaValue)
		default:
			e.unknown()
		}
	}
	if e.err != nil {
		r.err = e.err
		return
	}
	p.Meta = append(p.Meta, m)
	if len(p.Meta) > MaxMeta {
		r.fail("more than %d entries of metadata", MaxMeta)
	}
}

// check looks at what holds for a packet as a whole, whichever form it had.
func (p *Packet) check() error {
	switch p.Kind {
	case Request, OneWay:
		if p.Method == "" {
			return malformed("%s without a method", p.Kind)
		}
	case Response, Cancel, Heartbeat:
	case GoingAway, Open:
		if !p.Nonce.IsZero() {
			return malformed("%s with a nonce", p.Kind)
		}
	default:
		return malformed("unknown kind %d", p.Kind)
	}
	// A refusal from before anything was read has no request to name.
	if p.Nonce.IsZero() && (p.Kind <= OneWay && p.Kind != Response || p.Kind == Cancel || p.Kind == Heartbeat) {
		return malformed("%s without a nonce", p.Kind)
	}
	if p.CallKey == p.Nonce && !p.CallKey.IsZero() {
		return malformed("call key that repeats the nonce") // one call, one encoding
	}
	if p.Format == FormatJSON {
		return malformed("the default format is not named")
	}
	return checkNames(p)
}

func checkNames(p *Packet) error {
	if !plain(p.Method) || !plain(p.Format) || !plain(p.Trace) || !plain(p.ReplyTo) {
		return malformed("control character in a name")
	}
	for i, m := range p.Meta {
		if m.Key == "" || !plain(m.Key) {
			return malformed("metadata with an empty or unprintable key")
		}
		if i > 0 && p.Meta[i-1].Key >= m.Key {
			return malformed("metadata keys are not sorted or repeat")
		}
	}
	return nil
}

// CheckData makes sure that no two readers of JSON data see two values. Parsing
// does it; a sender does it for data that it did not encode itself.
func (p *Packet) CheckData() error {
	if p.DataFormat() != FormatJSON || len(p.Data) == 0 {
		return nil
	}
	return checkJSONData(p.Data)
}

func checkJSONData(data []byte) error {
	// Octets, not a value with space around it: the readable envelope could
	// not carry the space, and one packet has one signature.
	if isSpace(data[0]) || isSpace(data[len(data)-1]) {
		return malformed("data: white space around the JSON value")
	}
	if err := ValidJSON(data, &dataLimits); err != nil {
		return malformed("data: %v", err)
	}
	return nil
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// Validate reports what would make a peer refuse the packet, but for its data
// (CheckData), so that a mistake is the sender's error and not the receiver's.
func (p *Packet) Validate() error {
	for _, f := range []struct {
		name  string
		value string
		limit int
	}{
		{"method", p.Method, MaxMethod}, {"message", p.Msg, MaxMessage}, {"format", p.Format, MaxFormat},
		{"trace context", p.Trace, MaxTrace}, {"reply queue", p.ReplyTo, MaxQueue},
	} {
		if len(f.value) > f.limit {
			return malformed("%s has %d bytes, at most %d", f.name, len(f.value), f.limit)
		}
		if !utf8.ValidString(f.value) {
			return malformed("%s is not valid UTF-8", f.name)
		}
	}
	if len(p.Meta) > MaxMeta {
		return malformed("%d entries of metadata, at most %d", len(p.Meta), MaxMeta)
	}
	for _, m := range p.Meta {
		if len(m.Key) > MaxMetaKey || len(m.Value) > MaxMetaValue || !utf8.ValidString(m.Key) || !utf8.ValidString(m.Value) {
			return malformed("metadata %.20q: key of at most %d and value of at most %d bytes of UTF-8", m.Key, MaxMetaKey, MaxMetaValue)
		}
	}
	return p.check()
}

// SetMeta replaces the user entries.
func (p *Packet) SetMeta(meta map[string]string) {
	p.Meta = nil
	for k, v := range meta {
		p.Meta = append(p.Meta, MetaEntry{k, v})
	}
	slices.SortFunc(p.Meta, func(a, b MetaEntry) int { return strings.Compare(a.Key, b.Key) })
}

// OKStatus reports whether the status of a response says success.
func (p *Packet) OKStatus() bool { return p.Status == 0 || p.Status == 200 }
