// Package legacy alone knows the octets of protocol version 1: its packets, the
// text that they sign, its key agreement and how it encrypts.
//
// Like internal/secure it has no sockets, no goroutines and no clock, and
// randomness comes in. What version 1 leaves open and a check can close
// without turning real peers away is closed here: every point is checked before
// any arithmetic, nothing panics, and what cannot be read is refused.
package legacy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/owtp-go/owtp/internal/wire"
)

// The kinds of packets.
const (
	Request  = 1
	Response = 2
)

// MethodAgree is the method of a request that only agrees on a key.
const MethodAgree = "internal_keyAgreement"

// maxText is the most characters of a key, a check value or a signature:
// base58 makes at most 88 of 64 octets.
const maxText = 88

// ErrMalformed is wrapped by every error of ParsePacket.
var ErrMalformed = errors.New("malformed version 1 packet")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}

// A Packet is one message of version 1.
type Packet struct {
	Kind      uint64          `json:"r"`
	Method    string          `json:"m"`
	Nonce     uint64          `json:"n"`
	Time      int64           `json:"t"` // Unix seconds of the sender
	Data      json.RawMessage `json:"d"` // as on the wire; see Text, SetText and SetJSON
	Signature string          `json:"s"`
	Keys      Keys            `json:"k"`
	Version   int64           `json:"v"` // 1 from current senders, 0 from old ones
}

// Keys are what packets say about a key agreement, in base58 all but Type.
type Keys struct {
	Initiator          string `json:"pk"` // public key of who began; of the signer in a signed request
	InitiatorEphemeral string `json:"tpk"`
	Type               string `json:"et"`  // a label
	Responder          string `json:"pko"` // public key of the other side
	ResponderEphemeral string `json:"tpo"`
	ResponderCheck     string `json:"sb"` // proves that the responder has the key
	InitiatorCheck     string `json:"sa"` // proves that the initiator has it
	CallbackCheck      string `json:"s2"` // the same value, in requests of the responder
}

// Append appends the packet as version 1's nodes write it, HTML escaped.
func (p *Packet) Append(b []byte) ([]byte, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return b, fmt.Errorf("version 1 packet: data is not JSON: %w", err)
	}
	return append(b, text...), nil
}

// SetText makes the data a JSON string: a text, or one that Session.Seal gave.
func (p *Packet) SetText(text string) error {
	if !utf8.ValidString(text) {
		return errors.New("version 1 packet: text is not UTF-8")
	}
	var err error
	p.Data, err = json.Marshal(text)
	return err
}

// SetJSON makes the data this JSON value, in the form that goes out: what is
// signed are its octets.
func (p *Packet) SetJSON(value []byte) error {
	if err := wire.ValidJSON(value, &limits); err != nil {
		return fmt.Errorf("version 1 packet: data: %w", err)
	}
	var err error
	p.Data, err = json.Marshal(json.RawMessage(value))
	return err
}

// limits of data that we send; what is received is bounded by ParsePacket.
var limits = wire.ScanLimits{Depth: wire.MaxDepth - 1, Members: wire.MaxMembers, Total: wire.MaxValues}

// Text returns the data as a receiver flattens it: what is signed, what is
// encrypted, and what a handler's parameters are read from. A string is what it
// stands for, an object or array its octets, null or nothing the empty text.
func (p *Packet) Text() (string, error) {
	d := string(p.Data)
	switch {
	case d == "" || d == "null":
		return "", nil
	case d[0] == '"':
		var text string
		if err := json.Unmarshal(p.Data, &text); err != nil {
			return "", malformed("d is no JSON string")
		}
		return text, nil
	case d[0] == '-' || '0' <= d[0] && d[0] <= '9':
		return decimal(d)
	}
	return d, nil
}

// decimal leaves an integer as it is written, and writes other numbers without
// an exponent.
func decimal(number string) (string, error) {
	if !strings.ContainsAny(number, ".eE") {
		return number, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return "", malformed("d is a number out of range")
	}
	return strconv.FormatFloat(f, 'f', -1, 64), nil
}

// ParsePacket reads a packet of at most so many octets. Like version 1's nodes it
// takes numbers that are written as strings, packets that lack members, and the
// first of members with the same name. Unlike them it takes one JSON value
// only, nothing behind it, and no number that does not fit.
func ParsePacket(b []byte, most int) (*Packet, error) {
	if len(b) > most {
		return nil, malformed("%d octets, at most %d", len(b), most)
	}
	if !utf8.Valid(b) || !json.Valid(b) {
		return nil, malformed("not one JSON value in UTF-8")
	}
	if depth(b) > wire.MaxDepth {
		return nil, malformed("nested deeper than %d", wire.MaxDepth)
	}
	p := new(Packet)
	var legacySA *string
	err := members(b, func(name string, value []byte) (err error) {
		switch name {
		case "r":
			p.Kind, err = unsigned(value)
		case "m":
			p.Method, err = text(value, wire.MaxMethod)
		case "n":
			p.Nonce, err = unsigned(value)
		case "t":
			p.Time, err = signed(value)
		case "d":
			p.Data = value
			_, err = p.Text()
		case "s":
			p.Signature, err = text(value, maxText)
		case "k":
			err = p.Keys.parse(value)
		case "v":
			p.Version, err = signed(value)
		case "z":
			legacySA = new(string)
			*legacySA, err = text(value, maxText)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if legacySA != nil {
		p.Keys.InitiatorCheck = *legacySA
	}
	return p, nil
}

func (k *Keys) parse(object []byte) error {
	if string(object) == "null" {
		return nil
	}
	fields := map[string]*string{
		"pk": &k.Initiator, "tpk": &k.InitiatorEphemeral, "et": &k.Type, "pko": &k.Responder, "tpo": &k.ResponderEphemeral,
		"sb": &k.ResponderCheck, "sa": &k.InitiatorCheck, "s2": &k.CallbackCheck,
	}
	return members(object, func(name string, value []byte) (err error) {
		if field := fields[name]; field != nil {
			*field, err = text(value, maxText)
		}
		return err
	})
}

// members calls f for the members of an object that has been checked, of those
// with the same name for the first.
func members(object []byte, f func(name string, value []byte) error) error {
	d := json.NewDecoder(bytes.NewReader(object))
	if begin, err := d.Token(); err != nil || begin != json.Delim('{') {
		return malformed("not an object")
	}
	seen := make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return malformed("%w", err)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return malformed("%w", err)
		}
		name := token.(string) // Token gives nothing else where a name is due
		if seen[name] {
			continue
		}
		if len(seen) == maxMembers {
			return malformed("more than %d members in the packet or in k", maxMembers)
		}
		seen[name] = true
		if err := f(name, value); err != nil {
			return fmt.Errorf("%w (member %.20q)", err, name)
		}
	}
	return nil
}

// maxMembers is far more than the nine that a packet has.
const maxMembers = 64

// depth is how deep a JSON value that has been checked is nested.
func depth(b []byte) (deepest int) {
	level, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}

func text(value []byte, most int) (string, error) {
	if string(value) == "null" {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil {
		return "", malformed("a string expected")
	}
	if len(s) > most {
		return "", malformed("%d octets, at most %d", len(s), most)
	}
	return s, nil
}

// digits are those of a number, or of a string that holds one.
func digits(value []byte) string {
	if string(value) == "null" {
		return "0"
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(value), `"`), `"`)
}

func unsigned(value []byte) (uint64, error) {
	v, err := strconv.ParseUint(digits(value), 10, 64)
	if err != nil {
		return 0, malformed("no whole number from 0 to 2^64-1")
	}
	return v, nil
}

func signed(value []byte) (int64, error) {
	v, err := strconv.ParseInt(digits(value), 10, 64)
	if err != nil {
		return 0, malformed("no whole number of 64 bits")
	}
	return v, nil
}
