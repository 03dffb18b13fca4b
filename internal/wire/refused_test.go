package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

type refusedVectors struct {
	About    string    `json:"about"`
	Accepted []example `json:"accepted"`
	Refused  []example `json:"refused"`
}

// An example is given to the parser of its form. What is too long to be written
// down is given as pieces that repeat.
type example struct {
	Comment string  `json:"comment"`
	Form    string  `json:"form"` // a name of owtp.proto, "JSON" or "header"
	Hex     string  `json:"hex,omitempty"`
	Text    string  `json:"text,omitempty"`
	Pieces  []piece `json:"pieces,omitempty"`
	Binary  string  `json:"binary,omitempty"` // of an accepted JSON text: the packet's binary form
	Class   string  `json:"class"`
}

type piece struct {
	Text   string `json:"text,omitempty"`
	Hex    string `json:"hex,omitempty"`
	Repeat int    `json:"repeat"`
}

func (e *example) input(t testing.TB) []byte {
	t.Helper()
	if len(e.Pieces) > 0 {
		var b []byte
		for _, p := range e.Pieces {
			one, err := hex.DecodeString(p.Hex)
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, bytes.Repeat(append(one, p.Text...), p.Repeat)...)
		}
		return b
	}
	if e.Text != "" {
		return []byte(e.Text)
	}
	b, err := hex.DecodeString(e.Hex)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (e *example) parse(t testing.TB) (func() []byte, error) {
	t.Helper()
	in := e.input(t)
	switch e.Form {
	case "JSON":
		return marshaller(ParseJSON(in))
	case "header":
		_, _, err := ParseHeader(in)
		return nil, err
	}
	f, ok := binaryForms[e.Form]
	if !ok {
		t.Fatalf("no form %q", e.Form)
	}
	return f.parse(in)
}

func class(err error) string {
	switch {
	case err == nil:
		return "none"
	case errors.Is(err, ErrVersion):
		return "version"
	case errors.Is(err, ErrMalformed):
		return "malformed"
	}
	return "other: " + err.Error()
}

type examples []example

func (l *examples) hex(form, comment string, b []byte, class ...string) {
	e := example{Comment: comment, Form: form, Hex: hex.EncodeToString(b)}
	// Long runs of one octet, as in the samples of ML-KEM, are written short.
	for start, i := 0, 0; i < len(b); {
		n := 1
		for i+n < len(b) && b[i+n] == b[i] {
			n++
		}
		if n >= 100 {
			e.Pieces = append(e.Pieces, piece{Hex: hex.EncodeToString(b[start:i]), Repeat: 1}, piece{Hex: hex.EncodeToString(b[i : i+1]), Repeat: n})
			start = i + n
		}
		if i += n; i >= len(b) && len(e.Pieces) > 0 {
			e.Hex = ""
			e.Pieces = append(e.Pieces, piece{Hex: hex.EncodeToString(b[start:]), Repeat: 1})
		}
	}
	l.add(e, class)
}

func (l *examples) json(comment, text string, class ...string) {
	e := example{Comment: comment, Form: "JSON", Text: text}
	if !json.Valid([]byte(`"`+strings.NewReplacer(`"`, ``, `\`, ``).Replace(text)+`"`)) || strings.Contains(text, "\xff") {
		e.Text, e.Hex = "", hex.EncodeToString([]byte(text)) // no text that a JSON file can hold
	}
	l.add(e, class)
}

func (l *examples) pieces(form, comment string, p ...piece) {
	l.add(example{Comment: comment, Form: form, Pieces: p}, nil)
}

func (l *examples) add(e example, class []string) {
	e.Class = "malformed"
	if len(class) > 0 {
		e.Class = class[0]
	}
	*l = append(*l, e)
}

// everyForm are the mistakes that the strict binary form knows, made in each
// message.
func everyForm(l *examples) {
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range binaryForms {
			if !yield(name) {
				return
			}
		}
	}) {
		good := binaryForms[name].sample
		fields := split(good)
		first, last := fields[0], fields[len(fields)-1]
		l.hex(name, "nothing", nil)
		l.hex(name, "an octet too many", append(slices.Clone(good), 0))
		l.hex(name, "an octet too few", good[:len(good)-1])
		l.hex(name, "unknown field 30", append(slices.Clone(good), rawNumber(30, 1).bytes()...))
		l.hex(name, "unknown field 30 with octets", append(slices.Clone(good), rawBytes(30, []byte("x")).bytes()...))
		l.hex(name, "field 0", append(raw{0, 0, []byte{1}}.bytes(), good...))
		l.hex(name, "field number of 2^40", append(slices.Clone(good), append(uvarintOf(1<<43), 1)...))
		l.hex(name, "tag without a value", append(slices.Clone(good), last.bytes()[:1]...))
		l.hex(name, "length of 2^63", append(slices.Clone(good), append([]byte{31<<3 | 2}, uvarintOf(1<<63)...)...))
		l.hex(name, "varint of eleven octets", append(slices.Clone(good), append([]byte{31 << 3}, bytes.Repeat([]byte{0x80}, 10)...)...))
		l.hex(name, "wire type 1 (fixed64)", append(slices.Clone(good), 31<<3|1, 1, 2, 3, 4, 5, 6, 7, 8))
		l.hex(name, "wire type 3 (group)", append(slices.Clone(good), 31<<3|3))
		l.hex(name, "wire type 5 (fixed32)", append(slices.Clone(good), 31<<3|5, 1, 2, 3, 4))
		if name != "Record" {
			l.hex(name, "last field twice", append(slices.Clone(good), last.bytes()...))
			l.hex(name, "first field twice", append(first.bytes(), good...))
			l.hex(name, "two fields exchanged", join(append([]raw{fields[1], fields[0]}, fields[2:]...)))
			l.hex(name, "tag with a padded varint", append([]byte{good[0] | 0x80, 0}, good[1:]...))
		}
		for _, f := range fields {
			if name == "Record" {
				break
			}
			at := func(with ...raw) []byte { return replaceField(good, f.field, with...) }
			if f.typ == typeVarint {
				l.hex(name, fmt.Sprintf("field %d: octets instead of a number", f.field), at(rawBytes(f.field, []byte{2})))
				l.hex(name, fmt.Sprintf("field %d: default value written", f.field), at(raw{f.field, 0, []byte{0}}))
				v, _ := uvarint(f.octets)
				padded := append([]byte(nil), uvarintOf(v)...)
				padded[len(padded)-1] |= 0x80
				l.hex(name, fmt.Sprintf("field %d: padded varint", f.field), at(raw{f.field, 0, append(padded, 0)}))
				continue
			}
			l.hex(name, fmt.Sprintf("field %d: number instead of octets", f.field), at(rawNumber(f.field, 2)))
			l.hex(name, fmt.Sprintf("field %d: empty value written", f.field), at(raw{f.field, typeBytes, []byte{0}}))
			n, size := uvarint(f.octets)
			long := append(uvarintOf(n), f.octets[size:]...)
			long[size-1] |= 0x80
			long = slices.Insert(long, size, 0)
			l.hex(name, fmt.Sprintf("field %d: padded length", f.field), at(raw{f.field, typeBytes, long}))
		}
	}
}

// sizes are octet strings of the wrong size and numbers that are too large.
func sizes(l *examples) {
	for _, c := range []struct {
		form  string
		field int
		size  int
	}{
		{"Packet", 4, 16}, {"Packet", 5, 16}, {"Packet", 12, 64}, {"Packet", 13, 32}, {"Packet", 14, 16}, {"Packet", 15, 32}, {"Packet", 23, 64},
		{"Hello", 5, 64}, {"Hello", 6, 32}, {"Hello", 7, 32}, {"Hello", 8, 64}, {"Hello", 9, KEMKeySize}, {"Hello", 10, 16}, {"Hello", 13, 32},
		{"HelloReply", 3, 64}, {"HelloReply", 4, 32}, {"HelloReply", 5, 64}, {"HelloReply", 6, KEMCiphertextSize}, {"HelloReply", 7, 32}, {"HelloReply", 8, 16}, {"HelloReply", 12, 64}, {"HelloReply", 13, 32},
		{"Finish", 1, 64}, {"Finish", 2, 32},
		{"SessionRecord", 5, 64}, {"SessionRecord", 6, 16}, {"SessionRecord", 8, 32}, {"SessionRecord", 9, 32}, {"SessionRecord", 10, 32}, {"SessionRecord", 11, 32}, {"SessionRecord", 15, 32},
		{"CallRecord", 3, 16}, {"CallRecord", 5, 32}, {"CallRecord", 6, 16},
	} {
		for _, n := range []int{c.size - 1, c.size + 1} {
			l.hex(c.form, fmt.Sprintf("field %d: %d octets", c.field, n), replaceField(binaryForms[c.form].sample, c.field, rawBytes(c.field, bytes.Repeat([]byte{1}, n))))
		}
	}
	for _, c := range []struct {
		form  string
		field int
		size  int
	}{{"Packet", 4, 16}, {"Packet", 5, 16}, {"Packet", 13, 32}, {"Packet", 14, 16}, {"Packet", 15, 32}, {"Hello", 6, 32}, {"Hello", 7, 32}, {"Hello", 10, 16}, {"HelloReply", 4, 32}, {"HelloReply", 8, 16}, {"SessionRecord", 6, 16}, {"CallRecord", 3, 16}, {"CallRecord", 5, 32}, {"CallRecord", 6, 16}} {
		l.hex(c.form, fmt.Sprintf("field %d: all zeros", c.field), replaceField(binaryForms[c.form].sample, c.field, rawBytes(c.field, make([]byte, c.size))))
	}
	for _, c := range []struct {
		form  string
		field int
		limit int
	}{{"Packet", 3, MaxMethod}, {"Packet", 8, MaxFormat}, {"Packet", 10, MaxTrace}, {"Packet", 18, MaxQueue}, {"Packet", 20, MaxMessage}, {"Packet", 22, MaxHandshake}, {"Hello", 4, maxSuiteName}, {"Hello", 11, MaxQueue}, {"HelloReply", 2, maxSuiteName}, {"HelloReply", 10, MaxQueue}, {"SessionRecord", 2, maxSuiteName}} {
		good := binaryForms[c.form].sample
		if c.form == "Packet" && c.field == 8 {
			p := samplePacket()
			p.Format = "x"
			good = p.Append(nil)
		}
		l.hex(c.form, fmt.Sprintf("field %d: %d octets", c.field, c.limit+1), replaceField(good, c.field, rawBytes(c.field, bytes.Repeat([]byte{'x'}, c.limit+1))))
		if !(c.form == "Packet" && c.field == 22) {
			l.hex(c.form, fmt.Sprintf("field %d: invalid UTF-8", c.field), replaceField(good, c.field, rawBytes(c.field, []byte("a\xff"))))
		}
	}
	for _, c := range []struct {
		form  string
		field int
		value uint64
	}{{"Packet", 2, 8}, {"Packet", 6, 1 << 63}, {"Packet", 9, 1 << 63}, {"Packet", 16, 5}, {"Packet", 17, 256}, {"Packet", 21, uint64(maxReason) + 1}, {"Hello", 2, 256}, {"Hello", 3, 5}, {"Hello", 3, 1}, {"HelloReply", 9, 1 << 63}, {"HelloReply", 11, 1 << 63}, {"SessionRecord", 1, 2}, {"SessionRecord", 3, 5}, {"SessionRecord", 12, 1 << 63}, {"CallRecord", 1, 2}, {"CallRecord", 2, 4}} {
		l.hex(c.form, fmt.Sprintf("field %d: %d", c.field, c.value), replaceField(binaryForms[c.form].sample, c.field, rawNumber(c.field, c.value)))
	}
}

// missing are fields that a message needs.
func missing(l *examples) {
	for form, fields := range map[string][]int{
		"Packet": {1, 2, 3, 4}, "Hello": {1, 2, 3, 5, 7, 8, 10}, "HelloReply": {1, 2, 3, 4, 5, 8, 9, 12, 13}, "Finish": {1, 2},
		"SessionRecord": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, "CallRecord": {1, 2, 3},
	} {
		for _, f := range fields {
			l.hex(form, fmt.Sprintf("field %d is missing", f), replaceField(binaryForms[form].sample, f))
		}
	}
	slices.SortStableFunc(*l, func(a, b example) int {
		if a.Form == b.Form {
			return 0
		}
		return strings.Compare(a.Form, b.Form)
	})
}

func packets(l *examples) {
	edit := func(comment string, change func(*Packet), class ...string) {
		p := samplePacket()
		change(p)
		l.hex("Packet", comment, p.Append(nil), class...)
	}
	l.hex("Packet", "version 1", replaceField(samplePacket().Append(nil), 1, rawNumber(1, 1)), "version")
	l.hex("Packet", "version 3", replaceField(samplePacket().Append(nil), 1, rawNumber(1, 3)), "version")
	l.hex("Hello", "version 3", replaceField(sampleHello().Append(nil), 1, rawNumber(1, 3)), "version")
	l.hex("HelloReply", "version 3", replaceField(sampleReply().Append(nil), 1, rawNumber(1, 3)), "version")
	for _, k := range []Kind{Request, OneWay, Cancel, Heartbeat} {
		edit(k.String()+" without a nonce", func(p *Packet) { p.Kind, p.Nonce = k, Nonce{} })
	}
	for _, k := range []Kind{GoingAway, Open} {
		edit(k.String()+" with a nonce", func(p *Packet) { p.Kind = k })
	}
	edit("call key that repeats the nonce", func(p *Packet) { p.CallKey = p.Nonce })
	edit("the default format is named", func(p *Packet) { p.Format = "json" })
	edit("control character in the method", func(p *Packet) { p.Method = "a\nb" })
	edit("DEL in the trace context", func(p *Packet) { p.Trace = "a\x7f" })
	edit("zero octet in the reply queue", func(p *Packet) { p.ReplyTo = "a\x00" })
	edit("metadata not sorted", func(p *Packet) { p.Meta = []MetaEntry{{"b", ""}, {"a", ""}} })
	edit("metadata key twice", func(p *Packet) { p.Meta = []MetaEntry{{"a", "1"}, {"a", "2"}} })
	edit("metadata without a key", func(p *Packet) { p.Meta = []MetaEntry{{"", "1"}} })
	edit("metadata key with a control character", func(p *Packet) { p.Meta = []MetaEntry{{"\x1f", "1"}} })
	edit("metadata key of 65 octets", func(p *Packet) { p.Meta = []MetaEntry{{strings.Repeat("k", MaxMetaKey+1), ""}} })
	edit("metadata value of 1025 octets", func(p *Packet) { p.Meta = []MetaEntry{{"k", strings.Repeat("v", MaxMetaValue+1)}} })
	edit("33 entries of metadata", func(p *Packet) {
		p.Meta = nil
		for i := range MaxMeta + 1 {
			p.Meta = append(p.Meta, MetaEntry{fmt.Sprintf("%02d", i), ""})
		}
	})
	good := samplePacket().Append(nil)
	for comment, entry := range map[string][]byte{
		"metadata entry with a third field": append(appendOctets(nil, 1, "a"), rawNumber(3, 1).bytes()...),
		"metadata entry in the wrong order": append(rawBytes(2, []byte("v")).bytes(), rawBytes(1, []byte("a")).bytes()...),
		"metadata value that is a number":   append(appendOctets(nil, 1, "a"), rawNumber(2, 1).bytes()...),
		"metadata with invalid UTF-8":       appendOctets(nil, 1, "a\xff"),
	} {
		l.hex("Packet", comment, replaceField(good, 11, rawBytes(11, entry)))
	}
	for comment, data := range map[string]string{
		"data that is no JSON": "{", "data with a space in front": " 1", "data with a line end behind": "1\n", "data of two values": "1 2",
		"data with a name twice": `{"a":1,"a":2}`, "data with a name twice, once escaped": `{"a":1,"\u0061":2}`, "data with a name twice, deep inside": `[[{"x":{"a":1,"b":2,"a":3}}]]`,
		"data with invalid UTF-8": "\"\xff\"", "data with a lone surrogate": `"\ud800"`, "data with a byte order mark": "\ufeff1",
		"data with a leading zero": "01", "data with NaN": "NaN", "data with a comment": "1//", "data with a trailing comma": "[1,]",
		"data that is nested 64 deep": strings.Repeat("[", 64) + strings.Repeat("]", 64),
	} {
		l.hex("Packet", comment, replaceField(good, 7, rawBytes(7, []byte(data))))
	}
	l.hex("Record", "packet inside is wrong", rawBytes(1, good[:len(good)-1]).bytes())
	l.hex("Record", "second packet is of version 3", append(rawBytes(1, good).bytes(), rawBytes(1, []byte{8, 3, 16, 7}).bytes()...), "version")
	l.hex("Record", "257 packets", bytes.Repeat(rawBytes(1, (&Packet{Kind: Open}).Append(nil)).bytes(), MaxRecordPackets+1))
	l.hex("CallRecord", "no attempt", replaceField(replaceField(sampleCall().Append(nil), 6), 6))
	many := sampleCall()
	for range MaxAttempts {
		many.Attempts = append(many.Attempts, Nonce(seq(9, 16)))
	}
	l.hex("CallRecord", "66 attempts", many.Append(nil))
	for comment, change := range map[string]func(*Hello){
		"nine suites":                        func(h *Hello) { h.Suites = strings.Split("a b c d e f g h i", " ") },
		"queue with a control character":     func(h *Hello) { h.ReplyQueue = "a\n" },
		"no suites, but an ephemeral key":    func(h *Hello) { h.Suites = nil },
		"no suites, but an ML-KEM key":       func(h *Hello) { h.Suites, h.Ephemeral, h.Retires = nil, nil, nil },
		"no suites, but a session to retire": func(h *Hello) { h.Suites, h.Ephemeral, h.KEM = nil, nil, nil },
	} {
		h := sampleHello()
		change(h)
		l.hex("Hello", comment, h.Append(nil))
	}
	for comment, change := range map[string]func(*HelloReply){
		"no suite, but an ephemeral key": func(h *HelloReply) { h.Suite, h.MAC, h.KEM, h.Session, h.Lifetime = "", nil, nil, nil, 0 },
		"no suite, but a MAC":            func(h *HelloReply) { h.Suite, h.Ephemeral, h.KEM, h.Session, h.Lifetime = "", nil, nil, nil, 0 },
		"no suite, but a session":        func(h *HelloReply) { h.Suite, h.Ephemeral, h.KEM, h.MAC, h.Lifetime = "", nil, nil, nil, 0 },
		"no suite, but a lifetime":       func(h *HelloReply) { h.Suite, h.Ephemeral, h.KEM, h.MAC, h.Session = "", nil, nil, nil, nil },
		"no suite, but a ciphertext":     func(h *HelloReply) { h.Suite, h.Ephemeral, h.Lifetime, h.MAC, h.Session = "", nil, 0, nil, nil },
		"queue with a control character": func(h *HelloReply) { h.Queue = "\x01" },
	} {
		h := sampleReply()
		change(h)
		l.hex("HelloReply", comment, h.Append(nil))
	}
	l.hex("header", "nothing", nil)
	l.hex("header", "one octet", []byte{2})
	l.hex("header", "version 1", []byte{1, 3}, "version")
	l.hex("header", "a brace: JSON", []byte("{}"), "version")
	l.hex("header", "type 0", []byte{2, 0})
	l.hex("header", "type 7", []byte{2, 7})
	slices.SortStableFunc(*l, func(a, b example) int { return strings.Compare(a.Form+a.Comment, b.Form+b.Comment) })
}

func envelopes(l *examples) {
	b64 := func(n int) string { return `"` + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, n)) + `"` }
	l.json("no JSON", "hello")
	l.json("an array", "[1]")
	l.json("a string", `"x"`)
	l.json("empty object", "{}")
	l.json("not closed", envelopeWith()[:20])
	l.json("text behind", envelopeWith()+"x")
	l.json("two packets", envelopeWith()+envelopeWith())
	l.json("a comma too many", envelopeWith()+",")
	l.json("version 1", envelopeWith("v", "1"), "version")
	l.json("version 3", envelopeWith("v", "3"), "version")
	l.json("version 3 behind members that version 2 has not", `{"zz":1,"n":5,"v":3}`, "version")
	l.json("a packet of version 1", `{"r":1,"m":"getInfo","n":1234567890123456789,"t":1700000000,"d":null,"s":"","k":{"pk":"","tpk":""},"v":1}`, "version")
	l.json("version as text", envelopeWith("v", `"2"`))
	l.json("version 2.0", envelopeWith("v", "2.0"))
	l.json("version 2e0", envelopeWith("v", "2e0"))
	l.json("no version", envelopeWith("v", ""))
	l.json("kind 0", envelopeWith("r", "0"))
	l.json("kind 8", envelopeWith("r", "8"))
	l.json("kind -1", envelopeWith("r", "-1"))
	l.json("kind 1.0", envelopeWith("r", "1.0"))
	l.json("no kind", envelopeWith("r", ""))
	l.json("no nonce", envelopeWith("n", ""))
	l.json("no method", envelopeWith("m", ""))
	l.json("empty method", envelopeWith("m", `""`))
	l.json("unknown member", envelopeWith("z", "1"))
	l.json("unknown member of two letters", envelopeWith("vv", "1"))
	l.json("member with an empty name", `{"":1,`+envelopeWith()[1:])
	l.json("member in the other case", envelopeWith("M", `"x"`))
	l.json("member twice", `{"m":"a",`+envelopeWith()[1:])
	l.json("member twice, once escaped", `{"\u006d":"a",`+envelopeWith()[1:])
	l.json("name twice in the data", envelopeWith("d", `{"a":1,"a":2}`))
	l.json("name twice in the data, once escaped", envelopeWith("d", `[{"a":1,"\u0061":2}]`))
	l.json("name twice in the metadata", envelopeWith("x", `{"a":"1","a":"2"}`))
	l.json("invalid UTF-8 in the method", envelopeWith("m", "\"\xff\""))
	l.json("invalid UTF-8 in the data", envelopeWith("d", "\"\xff\""))
	l.json("lone surrogate in the method", envelopeWith("m", `"\udc00"`))
	l.json("byte order mark", "\ufeff"+envelopeWith())
	l.json("control character in the method", envelopeWith("m", `"a\u0000"`))
	wrong := func(name string, values ...string) {
		for _, v := range values {
			l.json(fmt.Sprintf("member %s is %.30s", name, v), envelopeWith(name, v))
		}
	}
	notText := []string{"1", "null", "true", "[]", "{}"}
	for _, name := range []string{"m", "f", "w", "b", "g", "n", "c", "k", "i", "e", "q", "h", "s", "t", "l", "u"} {
		wrong(name, notText...)
	}
	for _, name := range []string{"r", "o", "p", "y"} {
		wrong(name, `"1"`, "null", "true", "[]", "{}", "1.5", "1e1", "-1")
	}
	wrong("x", `"a"`, "1", "null", "[]", `{"a":1}`, `{"a":null}`, `{"":"1"}`, `{"a\n":"1"}`)
	for _, name := range []string{"t", "l", "u"} {
		wrong(name, `""`, `"01"`, `"+1"`, `"-1"`, `" 1"`, `"1 "`, `"1.0"`, `"1e3"`, `"0x1"`, `"1_0"`, `"\u0031"`, `"18446744073709551616"`)
	}
	wrong("t", `"9223372036854775808"`)
	wrong("l", `"9223372036854775808"`)
	wrong("o", "5", "18446744073709551616")
	wrong("p", "256")
	wrong("y", "11")
	for name, size := range map[string]int{"n": 16, "c": 16, "k": 64, "e": 16, "q": 32, "s": 64} {
		l.json("member "+name+" is too short", envelopeWith(name, b64(size-1)))
		l.json("member "+name+" is too long", envelopeWith(name, b64(size+1)))
		l.json("member "+name+" is empty", envelopeWith(name, `""`))
		l.json("member "+name+" without padding", envelopeWith(name, strings.ReplaceAll(b64(size), "=", "")))
		l.json("member "+name+" in base64url", envelopeWith(name, `"`+base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, size))+`"`))
		l.json("member "+name+" with an escaped solidus", envelopeWith(name, `"`+strings.ReplaceAll(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, size)), "/", `\/`)+`"`))
		l.json("member "+name+" with a line end inside", envelopeWith(name, b64(size)[:5]+`\n`+b64(size)[5:]))
	}
	l.json("nonce with bits behind its last octet", envelopeWith("n", `"AQEBAQEBAQEBAQEBAQEBAR=="`))
	for _, name := range []string{"n", "c", "e"} {
		l.json("member "+name+" is all zeros", envelopeWith(name, `"AAAAAAAAAAAAAAAAAAAAAA=="`))
	}
	l.json("finish of 257 octets", envelopeWith("h", b64(MaxHandshake+1)))
	l.json("call key that repeats the nonce", envelopeWith("c", `"EBESExQVFhcYGRobHB0eHw=="`))
	l.json("recipient of 31 octets", envelopeWith("i", `"`+strings.Repeat("1", 31)+`"`))
	l.json("recipient of zeros", envelopeWith("i", `"`+strings.Repeat("1", 32)+`"`))
	l.json("recipient that is no base58", envelopeWith("i", `"0OIl"`))
	l.json("the default format is named", envelopeWith("f", `"json"`))
	l.json("other format and data that is no text", envelopeWith("f", `"protobuf"`, "d", "[1]"))
	l.json("other format and data that is no base64", envelopeWith("f", `"protobuf"`, "d", `"*"`))
	l.json("method of 129 octets", envelopeWith("m", `"`+strings.Repeat("m", MaxMethod+1)+`"`))
	l.json("method of 129 octets, escaped", envelopeWith("m", `"`+strings.Repeat(`\u006d`, MaxMethod+1)+`"`))
	l.json("33 entries of metadata", envelopeWith("x", manyMeta(MaxMeta+1)))
	l.json("metadata value of 1025 octets", envelopeWith("x", `{"a":"`+strings.Repeat("v", MaxMetaValue+1)+`"}`))
	l.json("data that is nested 64 deep", envelopeWith("d", strings.Repeat("[", 64)+strings.Repeat("]", 64)))
	head := envelopeWith()
	head = head[:len(head)-1]
	l.pieces("JSON", "a method of 10 MB", piece{Text: `{"v":2,"r":1,"m":"`, Repeat: 1}, piece{Text: "m", Repeat: 10 << 20}, piece{Text: `"}`, Repeat: 1})
	l.pieces("JSON", "data that is nested a million deep", piece{Text: head + `,"d":`, Repeat: 1}, piece{Text: "[", Repeat: 1 << 20}, piece{Text: "]", Repeat: 1 << 20}, piece{Text: "}", Repeat: 1})
	l.pieces("JSON", "data of more than a million values", piece{Text: head + `,"d":[0`, Repeat: 1}, piece{Text: ",0", Repeat: MaxValues}, piece{Text: "]}", Repeat: 1})
	l.pieces("JSON", "an endless number", piece{Text: head + `,"t":"`, Repeat: 1}, piece{Text: "9", Repeat: 1 << 20}, piece{Text: `"}`, Repeat: 1})
	l.pieces("JSON", "ten thousand members", piece{Text: head, Repeat: 1}, piece{Text: `,"z":1`, Repeat: 10000}, piece{Text: "}", Repeat: 1})
}

func manyMeta(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`"k%02d":""`, i))
	}
	return "{" + strings.Join(out, ",") + "}"
}

// accepted are texts that look wrong and are not.
func accepted() examples {
	var l examples
	ok := func(comment, text string) { l.json(comment, text, "none") }
	ok("white space", " {\n\t\"v\" : 2 , \"r\":1,\"m\":\"echo\",\"n\":\"EBESExQVFhcYGRobHB0eHw==\"} \r\n")
	ok("members in another order", `{"n":"EBESExQVFhcYGRobHB0eHw==","m":"echo","d":1,"r":1,"v":2}`)
	ok("an escaped name", `{"\u006e":"EBESExQVFhcYGRobHB0eHw==","m":"\u0065cho","r":1,"v":2}`)
	ok("defaults written", envelopeWith("t", `"0"`, "f", `""`, "x", "{}", "y", "0", "h", `""`))
	ok("data null is data", envelopeWith("d", "null"))
	ok("numbers that no float64 holds", envelopeWith("d", "[1e999,18446744073709551617,-0,1.0]"))
	ok("data keeps its own white space inside", envelopeWith("d", "{ \"a\" : 1 }"))
	ok("data that is nested 63 deep", envelopeWith("d", strings.Repeat("[", 63)+strings.Repeat("]", 63)))
	ok("names that differ in case, in the data", envelopeWith("d", `{"a":1,"A":2}`))
	ok("data of another format before its name", `{"v":2,"d":"AP8=","r":1,"m":"echo","n":"EBESExQVFhcYGRobHB0eHw==","f":"protobuf"}`)
	ok("the longest method", envelopeWith("m", `"`+strings.Repeat("m", MaxMethod)+`"`))
	ok("32 entries of metadata", envelopeWith("x", manyMeta(MaxMeta)))
	ok("metadata not sorted", envelopeWith("x", `{"b":"1","a":"2"}`))
	ok("response without a nonce", `{"v":2,"r":2,"u":"400"}`)
	return l
}

func generateRefused(t testing.TB) refusedVectors {
	v := refusedVectors{About: "Input for the parsers (PROTOCOL 3.2 to 3.4). form is the message's name in owtp.proto, JSON for the readable envelope, header for the first two octets of a binary message. " +
		"Input is hex, text (UTF-8), or pieces that are repeated and joined. accepted texts give the packet whose binary form is in binary."}
	for _, e := range accepted() {
		marshal, err := e.parse(t)
		if err != nil {
			t.Fatalf("%s: %v", e.Comment, err)
		}
		e.Binary = hex.EncodeToString(marshal())
		v.Accepted = append(v.Accepted, e)
	}
	var l, m, p, j examples
	everyForm(&l)
	sizes(&l)
	missing(&m)
	packets(&p)
	envelopes(&j)
	slices.SortStableFunc(j, func(a, b example) int { return strings.Compare(a.Comment, b.Comment) })
	v.Refused = slices.Concat(l, m, p, j)
	return v
}

func TestRefusedVectors(t *testing.T) {
	path := filepath.Join("..", "..", "testdata", "vectors", "refused.json")
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(generateRefused(t)); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	octets, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(octets, buf.Bytes()) {
		t.Fatal("refused.json is not what the tables give")
	}
	var v refusedVectors
	if err := json.Unmarshal(octets, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Refused) == 0 || len(v.Accepted) == 0 {
		t.Fatal("no vectors")
	}
	for _, e := range v.Refused {
		if _, err := e.parse(t); class(err) != e.Class {
			t.Errorf("%s: %s: %v, want class %s", e.Form, e.Comment, err, e.Class)
		}
	}
	for _, e := range v.Accepted {
		marshal, err := e.parse(t)
		if err != nil || hex.EncodeToString(marshal()) != e.Binary {
			t.Errorf("%s: %v", e.Comment, err)
		}
	}
}
