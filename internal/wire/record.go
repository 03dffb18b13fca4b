package wire

import (
	"fmt"
	"log/slog"
	"slices"
)

// A SessionRecord is a responder's session as a store keeps it, sealed at rest
// (docs/PROTOCOL.md §7.3).
type SessionRecord struct {
	Suite        string
	Mode         Mode
	Transport    uint8
	PeerKey      []byte
	OwnEpoch     Nonce
	PeerEpoch    Nonce
	Transcript   []byte
	Send         []byte
	Receive      []byte
	InitiatorMAC []byte // only while half open
	Expires      uint64 // milliseconds since 1970
	ReplyQueue   string
	RequestQueue string
	Retires      []byte // session that ends once this one is confirmed
}

const recordVersion = 1

// Append appends the strict binary form.
func (s *SessionRecord) Append(b []byte) []byte {
	b = appendUint(b, 1, recordVersion)
	b = appendOctets(b, 2, s.Suite)
	b = appendUint(b, 3, uint64(s.Mode))
	b = appendUint(b, 4, uint64(s.Transport))
	b = appendOctets(b, 5, s.PeerKey)
	b = appendFixed(b, 6, s.OwnEpoch[:])
	b = appendFixed(b, 7, s.PeerEpoch[:])
	b = appendOctets(b, 8, s.Transcript)
	b = appendOctets(b, 9, s.Send)
	b = appendOctets(b, 10, s.Receive)
	b = appendOctets(b, 11, s.InitiatorMAC)
	b = appendUint(b, 12, s.Expires)
	b = appendOctets(b, 13, s.ReplyQueue)
	b = appendOctets(b, 14, s.RequestQueue)
	return appendOctets(b, 15, s.Retires)
}

// ParseSessionRecord reads a session record.
func ParseSessionRecord(b []byte) (*SessionRecord, error) {
	s := new(SessionRecord)
	r := reader{rest: b}
	version := uint64(0)
	for r.next(0) {
		switch r.field {
		case 1:
			version = r.uint(recordVersion)
		case 2:
			s.Suite = r.text(maxSuiteName)
		case 3:
			s.Mode = Mode(r.uint(uint64(ModeSealedSigned)))
		case 4:
			s.Transport = uint8(r.uint(255))
		case 5:
			s.PeerKey = r.exactly(64)
		case 6:
			r.fixed(s.OwnEpoch[:])
		case 7:
			r.fixed(s.PeerEpoch[:])
		case 8:
			s.Transcript = r.exactly(32)
		case 9:
			s.Send = r.exactly(32)
		case 10:
			s.Receive = r.exactly(32)
		case 11:
			s.InitiatorMAC = r.exactly(32)
		case 12:
			s.Expires = r.uint(1<<63 - 1)
		case 13:
			s.ReplyQueue = r.text(MaxQueue)
		case 14:
			s.RequestQueue = r.text(MaxQueue)
		case 15:
			s.Retires = r.exactly(SessionIDSize)
		default:
			r.unknown()
		}
	}
	if r.err == nil && (version != recordVersion || s.Suite == "" || s.Mode < ModeSigned || s.Transport == 0 || s.OwnEpoch.IsZero() || s.PeerEpoch.IsZero() || s.PeerKey == nil || s.Transcript == nil || s.Send == nil || s.Receive == nil) {
		r.fail("incomplete session record")
	}
	if r.err != nil {
		return nil, r.err
	}
	return s, nil
}

// Format keeps the secrets of a record out of logs, whatever the verb.
func (s SessionRecord) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "SessionRecord(%s, %s)", s.Suite, s.Mode)
}

// LogValue keeps them out of structured logs, which encode the fields.
func (s SessionRecord) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(s)) }

// A CallState is where a recorded call stands (PROTOCOL §8).
type CallState uint8

const (
	CallRunning CallState = 1
	CallDone    CallState = 2
	// CallFree: no handler has run. The attempts that are listed were refused
	// and never run; a further one may.
	CallFree CallState = 3
)

// A CallRecord is the one record of a call, sealed at rest.
type CallRecord struct {
	State    CallState
	Owner    Nonce  // drawn by the process that runs it
	Lease    uint64 // milliseconds since 1970 until which the owner is believed alive
	Digest   Digest
	Attempts []Nonce // nonces of the packets seen under the key
	Reply    []byte  // the response's binary form, without proof
}

// MaxAttempts is the most attempts that one call may have.
const MaxAttempts = 64

// Append appends the strict binary form.
func (c *CallRecord) Append(b []byte) []byte {
	b = slices.Grow(b, 96+18*len(c.Attempts)+len(c.Reply)) // one piece: the reply may be large
	b = appendUint(b, 1, recordVersion)
	b = appendUint(b, 2, uint64(c.State))
	b = appendFixed(b, 3, c.Owner[:])
	b = appendUint(b, 4, c.Lease)
	b = appendFixed(b, 5, c.Digest[:])
	for _, n := range c.Attempts {
		b = appendFixed(b, 6, n[:])
	}
	return appendOctets(b, 7, c.Reply)
}

// ParseCallRecord reads a call record.
func ParseCallRecord(b []byte) (*CallRecord, error) {
	c := new(CallRecord)
	r := reader{rest: b}
	version := uint64(0)
	for r.next(6) {
		switch r.field {
		case 1:
			version = r.uint(recordVersion)
		case 2:
			c.State = CallState(r.uint(uint64(CallFree)))
		case 3:
			r.fixed(c.Owner[:])
		case 4:
			c.Lease = r.uint(1<<63 - 1)
		case 5:
			r.fixed(c.Digest[:])
		case 6:
			var n Nonce
			r.fixed(n[:])
			if c.Attempts = append(c.Attempts, n); len(c.Attempts) > MaxAttempts {
				r.fail("more than %d attempts", MaxAttempts)
			}
		case 7:
			c.Reply = r.octets(len(r.oct))
		default:
			r.unknown()
		}
	}
	if r.err == nil && (version != recordVersion || c.State == 0 || c.Owner.IsZero() || len(c.Attempts) == 0) {
		r.fail("incomplete call record")
	}
	if r.err != nil {
		return nil, r.err
	}
	return c, nil
}
