package wire

import (
	"encoding/base64"
	"slices"
	"strconv"

	"github.com/mr-tron/base58"
)

// The readable envelope (docs/PROTOCOL.md §3.3): one JSON object with one
// letter a member. Octets are base64 (RFC 4648 §4, padded), node IDs base58,
// numbers of 64 bits are strings of digits, as in Protobuf's JSON mapping.

// AppendJSON appends the packet as a JSON object without white space.
func (p *Packet) AppendJSON(b []byte) ([]byte, error) {
	b = slices.Grow(b, 192+len(p.Method)+len(p.ReplyTo)+len(p.Msg)+len(p.Data)) // one piece, if nothing is signed
	b = append(b, `{"v":2,"r":`...)
	b = strconv.AppendUint(b, uint64(p.Kind), 10)
	var err error
	text := func(name byte, s string) {
		if s == "" || err != nil {
			return
		}
		b, err = AppendJSONString(member(b, name), s)
	}
	octets := func(name byte, oct []byte) {
		if len(oct) == 0 {
			return
		}
		b = append(member(b, name), '"')
		b = base64.StdEncoding.AppendEncode(b, oct)
		b = append(b, '"')
	}
	fixed := func(name byte, oct []byte) {
		for _, c := range oct {
			if c != 0 {
				octets(name, oct)
				return
			}
		}
	}
	number := func(name byte, v uint64) {
		if v == 0 {
			return
		}
		b = append(member(b, name), '"')
		b = strconv.AppendUint(b, v, 10)
		b = append(b, '"')
	}
	small := func(name byte, v uint64) {
		if v != 0 {
			b = strconv.AppendUint(member(b, name), v, 10)
		}
	}
	text('m', p.Method)
	fixed('n', p.Nonce[:])
	fixed('c', p.CallKey[:])
	number('t', p.Time)
	text('f', p.Format)
	number('l', p.Remaining)
	text('w', p.Trace)
	if len(p.Meta) > 0 {
		b, err = p.appendJSONMeta(b, err)
	}
	octets('k', p.SenderKey)
	if p.Recipient != (ID{}) {
		b = append(member(b, 'i'), '"')
		b = append(b, base58.Encode(p.Recipient[:])...)
		b = append(b, '"')
	}
	fixed('e', p.Epoch[:])
	fixed('q', p.Digest[:])
	small('o', uint64(p.Mode))
	small('p', uint64(p.Transport))
	text('b', p.ReplyTo)
	number('u', p.Status)
	text('g', p.Msg)
	small('y', uint64(p.Reason))
	octets('h', p.Handshake)
	if len(p.Data) > 0 {
		if p.DataFormat() == FormatJSON {
			b = append(member(b, 'd'), p.Data...)
		} else {
			octets('d', p.Data)
		}
	}
	octets('s', p.Signature)
	return append(b, '}'), err
}

func member(b []byte, name byte) []byte { return append(b, ',', '"', name, '"', ':') }

func (p *Packet) appendJSONMeta(b []byte, err error) ([]byte, error) {
	b = append(member(b, 'x'), '{')
	for i, m := range p.Meta {
		if err != nil {
			return b, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = AppendJSONString(b, m.Key); err != nil {
			return b, err
		}
		b, err = AppendJSONString(append(b, ':'), m.Value)
	}
	return append(b, '}'), err
}

// ParseJSON reads one packet of the readable envelope; all of b belongs to it.
// JSON data aliases b.
func ParseJSON(b []byte) (*Packet, error) {
	p, end, err := parseJSONAt(b, 0)
	if err != nil {
		return nil, err
	}
	if end = skipSpace(b, end); end != len(b) {
		return nil, malformed("octets behind the packet")
	}
	return p, nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	return i
}

func parseJSONAt(b []byte, i int) (*Packet, int, error) {
	e := envelope{p: new(Packet)}
	end, err := ScanObject(b, i, &envelopeLimits, e.member)
	if err != nil {
		if e.err != nil {
			err = e.err
		} else {
			err = malformed("%v", err)
		}
		return nil, 0, err
	}
	p, err := e.finish()
	return p, end, err
}

// An envelope collects the members of a JSON packet.
type envelope struct {
	p       *Packet
	data    []byte
	version bool
	err     error
}

// member reads one member. A mistake does not end the scan: the version may
// stand behind it, and a packet of another version has the right to look
// different and is to be told that.
func (e *envelope) member(name, value []byte) error {
	if string(name) == "v" {
		return e.readVersion(value)
	}
	if e.err == nil {
		e.read(name, value)
	}
	return nil
}

func (e *envelope) readVersion(value []byte) error {
	e.version = true
	other := envelope{}
	if v := other.small(value, 'v', 1<<32); other.err == nil && v != Version {
		e.err = versionError(v)
		return e.err
	}
	if e.err == nil {
		e.err = other.err
	}
	return nil
}

func (e *envelope) read(name, value []byte) {
	if len(name) != 1 {
		e.fail("unknown member %.20q", name)
		return
	}
	p := e.p
	switch name[0] {
	case 'r':
		p.Kind = Kind(e.small(value, 'r', uint64(Open)))
	case 'm':
		p.Method = e.text(value, 'm', MaxMethod)
	case 'n':
		e.fixed(value, 'n', p.Nonce[:])
	case 'c':
		e.fixed(value, 'c', p.CallKey[:])
	case 't':
		p.Time = e.number(value, 't', 1<<63-1)
	case 'd':
		e.data = value
	case 'f':
		p.Format = e.text(value, 'f', MaxFormat)
	case 'l':
		p.Remaining = e.number(value, 'l', 1<<63-1)
	case 'w':
		p.Trace = e.text(value, 'w', MaxTrace)
	case 'x':
		e.meta(value)
	case 'k':
		p.SenderKey = e.exactly(value, 'k', 64)
	case 'i':
		e.id(value)
	case 'e':
		e.fixed(value, 'e', p.Epoch[:])
	case 'q':
		e.fixed(value, 'q', p.Digest[:])
	case 'o':
		p.Mode = Mode(e.small(value, 'o', uint64(ModeSealedSigned)))
	case 'p':
		p.Transport = uint8(e.small(value, 'p', 255))
	case 'b':
		p.ReplyTo = e.text(value, 'b', MaxQueue)
	case 'u':
		p.Status = e.number(value, 'u', 1<<64-1)
	case 'g':
		p.Msg = e.text(value, 'g', MaxMessage)
	case 'y':
		p.Reason = Reason(e.small(value, 'y', uint64(maxReason)))
	case 'h':
		p.Handshake = e.octets(value, 'h', MaxHandshake)
	case 's':
		p.Signature = e.exactly(value, 's', 64)
	default:
		e.fail("unknown member %q", name)
	}
}

func (e *envelope) finish() (*Packet, error) {
	if e.err != nil {
		return nil, e.err
	}
	if !e.version {
		return nil, malformed(`no version: member "v" is missing`)
	}
	p := e.p
	if e.data != nil {
		if p.DataFormat() == FormatJSON {
			p.Data = e.data
		} else if p.Data = e.octets(e.data, 'd', len(e.data)); e.err != nil {
			return nil, e.err
		}
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return p, nil
}

func (e *envelope) fail(format string, args ...any) {
	if e.err == nil {
		e.err = malformed(format, args...)
	}
}

// small reads a plain number: digits and nothing else.
func (e *envelope) small(value []byte, name byte, limit uint64) uint64 {
	return e.digits(value, name, limit, "a plain number")
}

// number reads a number of 64 bits: a string of digits.
func (e *envelope) number(value []byte, name byte, limit uint64) uint64 {
	if len(value) < 3 || value[0] != '"' {
		e.fail("member %q: want a string of digits", name)
		return 0
	}
	return e.digits(value[1:len(value)-1], name, limit, "a string of digits")
}

func (e *envelope) digits(value []byte, name byte, limit uint64, want string) uint64 {
	if len(value) == 0 || value[0] == '+' || len(value) > 1 && value[0] == '0' {
		e.fail("member %q: want %s", name, want)
		return 0
	}
	v, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil || v > limit {
		e.fail("member %q: want %s up to %d", name, want, limit)
		return 0
	}
	return v
}

func (e *envelope) text(value []byte, name byte, limit int) string {
	// An escape has at most six octets for one; what is longer cannot fit.
	if value[0] != '"' || len(value) > 6*limit+2 {
		e.fail("member %q: want a string of at most %d bytes", name, limit)
		return ""
	}
	s, err := UnquoteJSON(value)
	if err != nil || len(s) > limit {
		e.fail("member %q: want a string of at most %d bytes", name, limit)
		return ""
	}
	return string(s)
}

// strictBase64 refuses bits behind the last octet; line breaks, which the
// library would skip, cannot pass octets below.
var strictBase64 = base64.StdEncoding.Strict()

func (e *envelope) octets(value []byte, name byte, limit int) []byte {
	if len(value) < 2 || value[0] != '"' || len(value)-2 > base64.StdEncoding.EncodedLen(limit) {
		e.fail("member %q: want base64 of at most %d octets", name, limit)
		return nil
	}
	text := value[1 : len(value)-1]
	out := make([]byte, strictBase64.DecodedLen(len(text)))
	n, err := strictBase64.Decode(out, text)
	if err != nil || n > limit || strictBase64.EncodedLen(n) != len(text) {
		e.fail("member %q: want base64 of at most %d octets", name, limit)
		return nil
	}
	return out[:n]
}

func (e *envelope) exactly(value []byte, name byte, size int) []byte {
	b := e.octets(value, name, size)
	if e.err == nil && len(b) != size {
		e.fail("member %q: %d octets, want %d", name, len(b), size)
		return nil
	}
	return b
}

func (e *envelope) fixed(value []byte, name byte, out []byte) {
	b := e.exactly(value, name, len(out))
	if e.err != nil {
		return
	}
	zero := true
	for i, c := range b {
		out[i] = c
		zero = zero && c == 0
	}
	if zero {
		e.fail("member %q: all zeros", name)
	}
}

func (e *envelope) id(value []byte) {
	s := e.text(value, 'i', 44)
	if e.err != nil {
		return
	}
	raw, err := base58.Decode(s)
	if err != nil || len(raw) != len(e.p.Recipient) {
		e.fail("member \"i\": want a node ID")
		return
	}
	copy(e.p.Recipient[:], raw)
	if e.p.Recipient == (ID{}) {
		e.fail("member \"i\": want a node ID")
	}
}

func (e *envelope) meta(value []byte) {
	if value[0] != '{' {
		e.fail(`member "x": want an object of strings`)
		return
	}
	meta := make(map[string]string)
	_, err := ScanObject(value, 0, &dataLimits, func(name, v []byte) error {
		if len(meta) == MaxMeta || len(name) > MaxMetaKey {
			e.fail(`member "x": at most %d entries with names of at most %d bytes`, MaxMeta, MaxMetaKey)
			return e.err
		}
		meta[string(name)] = e.text(v, 'x', MaxMetaValue)
		return e.err
	})
	if err != nil {
		e.fail(`member "x": %v`, err)
		return
	}
	e.p.SetMeta(meta)
}
