package wire

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// The samples parse, give back what was put in, and marshal to what they were.
func TestSamples(t *testing.T) {
	for name, f := range binaryForms {
		marshal, err := f.parse(f.sample)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(marshal(), f.sample) {
			t.Errorf("%s: marshals to other octets", name)
		}
	}
	for _, m := range []struct {
		want any
		get  func() (any, error)
	}{
		{samplePacket(), func() (any, error) { return ParsePacket(samplePacket().Append(nil)) }},
		{sampleHello(), func() (any, error) { return ParseHello(sampleHello().Append(nil)) }},
		{sampleProofHello(), func() (any, error) { return ParseHello(sampleProofHello().Append(nil)) }},
		{sampleReply(), func() (any, error) { return ParseHelloReply(sampleReply().Append(nil)) }},
		{sampleProofReply(), func() (any, error) { return ParseHelloReply(sampleProofReply().Append(nil)) }},
		{sampleFinish(), func() (any, error) { return ParseFinish(sampleFinish().Append(nil)) }},
		{sampleSession(), func() (any, error) { return ParseSessionRecord(sampleSession().Append(nil)) }},
		{sampleCall(), func() (any, error) { return ParseCallRecord(sampleCall().Append(nil)) }},
	} {
		got, err := m.get()
		if err != nil || !reflect.DeepEqual(got, m.want) {
			t.Errorf("%T: %v\n%#v\n%#v", m.want, err, got, m.want)
		}
	}
}

// A sample that leaves a field out would leave it untested.
func TestSamplesHaveEveryField(t *testing.T) {
	for _, s := range []any{samplePacket(), sampleHello(), sampleReply(), sampleFinish(), sampleSession(), sampleCall()} {
		v := reflect.ValueOf(s).Elem()
		for i := range v.NumField() {
			// A named format would make the data of the sample another kind.
			if v.Field(i).IsZero() && v.Type().Field(i).Name != "Format" {
				t.Errorf("%T leaves out %s", s, v.Type().Field(i).Name)
			}
		}
	}
}

// The signature covers every field but itself: whatever is changed, the signed
// octets change.
func TestUnsignedCoversEveryField(t *testing.T) {
	base := samplePacket().AppendUnsigned(nil)
	v := reflect.ValueOf(samplePacket()).Elem()
	for i := range v.NumField() {
		p := samplePacket()
		f := reflect.ValueOf(p).Elem().Field(i)
		name := v.Type().Field(i).Name
		if name == "Format" {
			p.Format = "protobuf"
		} else {
			f.SetZero()
		}
		if changed := !bytes.Equal(p.AppendUnsigned(nil), base); changed == (name == "Signature") {
			t.Errorf("%s: octets changed: %v", name, changed)
		}
	}
}

// Every octet of a packet counts: with any bit changed it is refused or another
// packet.
func TestPacketBitFlips(t *testing.T) {
	good := samplePacket().Append(nil)
	want, err := ParsePacket(good)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			p, err := ParsePacket(b)
			if err == nil && reflect.DeepEqual(p, want) {
				t.Fatalf("bit %d of octet %d does not count", bit, i)
			}
			if err == nil && !bytes.Equal(p.Append(nil), b) {
				t.Fatalf("bit %d of octet %d: marshals to other octets", bit, i)
			}
		}
	}
}

func TestJSONRoundTrip(t *testing.T) {
	odd := samplePacket()
	odd.Format, odd.Data = "protobuf", []byte{0, 1, 0xff}
	odd.Method, odd.Msg = "\"\\\u2028\u4e2d/<", "\x00\b\f\n\r\t\x1f\x7f\U0001f600"
	odd.Meta = []MetaEntry{{"\"", "\n"}, {"\u00e9", "\x01"}}
	odd.Time, odd.Remaining, odd.Status = 1<<63-1, 1<<63-1, 1<<64-1
	for _, p := range []*Packet{samplePacket(), odd, {Kind: Open}} {
		text, err := p.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseJSON(text)
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%v: %s", err, text)
		}
		record, err := ParseJSONRecord(append(append([]byte(" "), text...), append([]byte("\n"), text...)...))
		if err != nil || len(record) != 2 {
			t.Errorf("record: %d packets, %v", len(record), err)
		}
	}
	for name, p := range map[string]*Packet{
		"method": {Kind: Request, Method: "\xff"}, "metadata key": {Kind: Request, Meta: []MetaEntry{{"\xff", ""}}}, "metadata value": {Kind: Request, Meta: []MetaEntry{{"a", "\xff"}}},
	} {
		if _, err := p.AppendJSON(nil); err == nil {
			t.Errorf("%s: invalid UTF-8 is written", name)
		}
	}
}

func TestJSONRecordBounds(t *testing.T) {
	one, err := (&Packet{Kind: Open}).AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := ParseJSONRecord(bytes.Repeat(one, MaxRecordPackets)); err != nil || len(p) != MaxRecordPackets {
		t.Error(len(p), err)
	}
	for name, b := range map[string][]byte{
		"too many": bytes.Repeat(one, MaxRecordPackets+1), "nothing": nil, "white space": []byte(" \n"),
		"comma between": []byte(string(one) + "," + string(one)), "half a packet behind": append(bytes.Clone(one), one[:5]...),
	} {
		if p, err := ParseJSONRecord(b); !errors.Is(err, ErrMalformed) || p != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What Validate and CheckData let through, a peer does not refuse.
func TestValidate(t *testing.T) {
	if err := samplePacket().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Packet){
		"method too long": func(p *Packet) { p.Method = strings.Repeat("m", MaxMethod+1) }, "method not UTF-8": func(p *Packet) { p.Method = "\xff" },
		"no method": func(p *Packet) { p.Method = "" }, "no nonce": func(p *Packet) { p.Nonce = Nonce{} }, "no kind": func(p *Packet) { p.Kind = 0 },
		"message too long": func(p *Packet) { p.Msg = strings.Repeat("m", MaxMessage+1) }, "format too long": func(p *Packet) { p.Format = strings.Repeat("m", MaxFormat+1) },
		"trace too long": func(p *Packet) { p.Trace = strings.Repeat("m", MaxTrace+1) }, "queue too long": func(p *Packet) { p.ReplyTo = strings.Repeat("m", MaxQueue+1) },
		"format json": func(p *Packet) { p.Format = "json" }, "meta not sorted": func(p *Packet) { p.Meta = []MetaEntry{{"b", ""}, {"a", ""}} },
		"meta key too long": func(p *Packet) { p.Meta = []MetaEntry{{strings.Repeat("k", MaxMetaKey+1), ""}} }, "meta not UTF-8": func(p *Packet) { p.Meta = []MetaEntry{{"k", "\xff"}} },
		"too much meta": func(p *Packet) {
			m := map[string]string{}
			for i := range MaxMeta + 1 {
				m[fmt.Sprint(i)] = ""
			}
			p.SetMeta(m)
		},
	} {
		p := samplePacket()
		change(p)
		err := p.Validate()
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if _, parseErr := ParsePacket(p.Append(nil)); parseErr == nil {
			t.Errorf("%s: a peer takes it", name)
		}
	}
	p := samplePacket()
	p.Data = []byte(`{"a":1,"a":2}`)
	if !errors.Is(p.CheckData(), ErrMalformed) {
		t.Error("data with a name twice")
	}
	p.Format = "protobuf"
	if err := p.CheckData(); err != nil {
		t.Error("data that is not JSON:", err)
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for k := range Kind(10) {
		if seen[k.String()] {
			t.Errorf("kind %d is named as another: two labels would be the same", k)
		}
		seen[k.String()] = true
	}
	if ModeOpen.Signed() || !ModeSigned.Signed() || ModeSealed.Signed() || !ModeSealedSigned.Signed() ||
		ModeOpen.Sealed() || ModeSigned.Sealed() || !ModeSealed.Sealed() || !ModeSealedSigned.Sealed() {
		t.Error("modes")
	}
	p := samplePacket()
	if p.Key() != p.CallKey || p.DataFormat() != FormatJSON {
		t.Error("call key or format")
	}
	p.CallKey, p.Format = Nonce{}, "x"
	if p.Key() != p.Nonce || p.DataFormat() != "x" {
		t.Error("call key or format")
	}
}

func TestSessionRecordsAreNotPrinted(t *testing.T) {
	s := sampleSession()
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb+"\n", s, *s, struct{ S *SessionRecord }{s})
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "s", s, "v", *s)
	}
	for _, secret := range [][]byte{s.Send, s.Receive, s.InitiatorMAC} {
		for _, form := range []string{fmt.Sprintf("%x", secret[:8]), fmt.Sprint(secret[:8])[1:20], fmt.Sprintf("%#v", secret[:4])[7:20], base64.StdEncoding.EncodeToString(secret)} {
			if strings.Contains(out.String(), form) {
				t.Errorf("printed: %s", form)
			}
		}
	}
}

// Junk of n octets must not make a parser allocate far more than n. The
// constant covers 256 packets of one record and the error's text.
func TestAllocationIsBounded(t *testing.T) {
	const size = 1 << 20
	deep := strings.Repeat("[", size/2) + strings.Repeat("]", size/2)
	names := &strings.Builder{}
	names.WriteString("{")
	for i := 0; names.Len() < size; i++ {
		fmt.Fprintf(names, `"%d":1,`, i)
	}
	names.WriteString(`"x":1}`)
	inputs := map[string][]byte{
		"zeros": make([]byte, size), "ones": bytes.Repeat([]byte{255}, size), "braces": bytes.Repeat([]byte("{"), size), "deep": []byte(deep), "names": []byte(names.String()),
		"open packets": bytes.Repeat(rawBytes(1, (&Packet{Kind: Open}).Append(nil)).bytes(), size/6), "quotes": bytes.Repeat([]byte(`"`), size),
		"metadata": append(rawNumber(1, 2).bytes(), bytes.Repeat(rawBytes(11, appendOctets(nil, 1, "a")).bytes(), size/5)...), "suites": append(rawNumber(1, 2).bytes(), bytes.Repeat(rawBytes(4, []byte("a")).bytes(), size/3)...),
		"attempts":           append(rawNumber(1, 1).bytes(), bytes.Repeat(rawBytes(6, seq(1, 16)).bytes(), size/18)...),
		"length of the rest": append(rawNumber(1, 2).bytes(), append([]byte{7<<3 | 2}, uvarintOf(1<<40)...)...), "JSON packets": bytes.Repeat([]byte(`{"v":2,"r":7}`), size/13),
		"data of base64": []byte(`{"v":2,"f":"x","r":1,"d":"` + strings.Repeat("A", size) + `"}`), "data of names": []byte(envelopeWith("d", names.String())),
		"metadata of names": []byte(envelopeWith("x", names.String())), "members": []byte(`{"v":2` + strings.Repeat(`,"z":1`, size/6) + "}"),
	}
	parsers := map[string]func([]byte) error{
		"JSON":       func(b []byte) error { _, err := ParseJSON(b); return err },
		"JSONRecord": func(b []byte) error { _, err := ParseJSONRecord(b); return err },
	}
	for name, f := range binaryForms {
		parsers[name] = func(b []byte) error { _, err := f.parse(b); return err }
	}
	for parser, parse := range parsers {
		for name, in := range inputs {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			parse(in)
			runtime.ReadMemStats(&after)
			if spent := after.TotalAlloc - before.TotalAlloc; spent > 8*uint64(len(in))+512<<10 {
				t.Errorf("%s, %s: %d octets allocated for %d", parser, name, spent, len(in))
			}
		}
	}
}

func benchPackets() map[string]*Packet {
	out := map[string]*Packet{}
	for name, size := range map[string]int{"256B": 256, "64KiB": 64 << 10} {
		p := samplePacket()
		p.Meta, p.Handshake, p.Status, p.Msg, p.Reason, p.Digest, p.ReplyTo = nil, nil, 0, "", 0, Digest{}, ""
		p.Data = []byte(`"` + strings.Repeat("x", size-2) + `"`)
		out[name] = p
	}
	return out
}

func benchEach(b *testing.B, run func(b *testing.B, p *Packet, binary, text []byte)) {
	for _, name := range []string{"256B", "64KiB"} {
		p := benchPackets()[name]
		text, err := p.AppendJSON(nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(p.Data)))
			run(b, p, p.Append(nil), text)
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	benchEach(b, func(b *testing.B, p *Packet, binary, _ []byte) {
		for b.Loop() {
			binary = p.Append(binary[:0])
		}
	})
}

func BenchmarkParse(b *testing.B) {
	benchEach(b, func(b *testing.B, _ *Packet, binary, _ []byte) {
		for b.Loop() {
			if _, err := ParsePacket(binary); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAppendJSON(b *testing.B) {
	benchEach(b, func(b *testing.B, p *Packet, _, text []byte) {
		for b.Loop() {
			var err error
			if text, err = p.AppendJSON(text[:0]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkParseJSON(b *testing.B) {
	benchEach(b, func(b *testing.B, _ *Packet, _, text []byte) {
		for b.Loop() {
			if _, err := ParseJSON(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A packet that was released leaves nothing in the one that is parsed into its
// place, whatever is absent there.
func TestReleaseLeavesNothing(t *testing.T) {
	bare := &Packet{Kind: Request, Method: "m", Nonce: Nonce{1}}
	for _, format := range []string{"", "protobuf"} {
		for range 100 { // the pool may give another one
			full := samplePacket()
			if full.Format = format; format != "" {
				full.Data = []byte{1}
			}
			p, err := ParsePacket(full.Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			p.Release()
			if p, err = ParsePacket(bare.Append(nil)); err != nil || !reflect.DeepEqual(p, bare) {
				t.Fatalf("%v: got %#v", err, p)
			}
			p.Release()
			if p = NewPacket(*bare); !reflect.DeepEqual(p, bare) {
				t.Fatalf("got %#v", p)
			}
		}
	}
}

// A packet of any length stands in a record as its length says.
func TestAppendToRecord(t *testing.T) {
	sizes := []int{0, 1, 1 << 20}
	for _, border := range []int{1 << 7, 1 << 14, 1 << 21} { // where its length takes one octet more
		for n := max(2, border-400); n < border+40; n += 1 + border>>18 {
			sizes = append(sizes, n)
		}
	}
	all := []*Packet{samplePacket(), samplePacket()}
	v := reflect.ValueOf(all[1]).Elem() // with numbers that take most
	for i := range v.NumField() {
		if f := v.Field(i); f.CanSet() && f.Kind() == reflect.Uint64 {
			f.SetUint(math.MaxUint64)
		}
	}
	for _, size := range sizes {
		all = append(all, &Packet{Kind: Response, Nonce: Nonce{1}, Format: "raw", Data: bytes.Repeat([]byte{7}, size)})
	}
	for _, p := range all {
		size, packet := len(p.Data), p.Append(nil)
		got := p.AppendToRecord([]byte("head"))
		if want := AppendRecordPacket([]byte("head"), packet); !bytes.Equal(got, want) {
			t.Errorf("%d octets of data: % x, want % x", size, got[:20], want[:20])
		}
		if len(packet) > p.Room() {
			t.Errorf("%d octets of data: a packet of %d octets, and room for %d", size, len(packet), p.Room())
		}
	}
}
