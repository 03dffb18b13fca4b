package codec_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/internal/testpb"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/proto/owtppb"
)

var (
	asJSON  = codec.JSON()
	asProto = codec.Protobuf()
)

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func decodeAny(t testing.TB, f codec.Format, data []byte) (v any) {
	t.Helper()
	if err := f.Unmarshal(data, &v); err != nil {
		t.Fatalf("%x: %v", data, err)
	}
	return v
}

// Numbers keep every digit and, but for what fits into int64, their kind.
func TestNumbersAtTheEdges(t *testing.T) {
	for _, c := range []struct {
		in   any
		want any
		text string
	}{
		{0, int64(0), "0"},
		{int64(math.MaxInt64), int64(math.MaxInt64), "9223372036854775807"},
		{int64(math.MinInt64), int64(math.MinInt64), "-9223372036854775808"},
		{uint64(math.MaxInt64), int64(math.MaxInt64), "9223372036854775807"},
		{uint64(1 << 63), uint64(1 << 63), "9223372036854775808"},
		{uint64(math.MaxUint64), uint64(math.MaxUint64), "18446744073709551615"},
		{int64(1<<53 + 1), int64(1<<53 + 1), "9007199254740993"},
		{math.MaxFloat64, math.MaxFloat64, "1.7976931348623157e+308"},
		{math.SmallestNonzeroFloat64, math.SmallestNonzeroFloat64, "5e-324"},
		{0.1, 0.1, "0.1"},
		{3.0, 3.0, "3"},
		{math.Copysign(0, -1), math.Copysign(0, -1), "-0"},
		{float32(0.1), 0.1, "0.1"},
		{1e21, 1e21, "1e+21"},
	} {
		data := must[[]byte](t)(asProto.Marshal(c.in))
		if got := decodeAny(t, asProto, data); got != c.want || math.Signbit(float(got)) != math.Signbit(float(c.want)) {
			t.Errorf("%T %v became %T %v", c.in, c.in, got, got)
		}
		text := must[[]byte](t)(codec.ToJSON(asProto, data))
		if string(text) != c.text {
			t.Errorf("%v is %s in JSON, want %s", c.in, text, c.text)
		}
		again := must[[]byte](t)(asProto.Marshal(json.RawMessage(text)))
		back := must[[]byte](t)(codec.ToJSON(asProto, again))
		if string(back) != c.text {
			t.Errorf("%s came back as %s", c.text, back)
		}
	}
	for _, v := range []any{math.NaN(), math.Inf(1), math.Inf(-1), float32(math.Inf(1)), []float64{math.NaN()}} {
		if data, err := asProto.Marshal(v); err == nil {
			t.Errorf("%v became %x", v, data)
		}
	}
}

func float(v any) float64 {
	f, _ := v.(float64)
	return f
}

// A number that no kind holds is refused, and not rounded.
func TestNumbersOfJSONAreExactOrRefused(t *testing.T) {
	for text, ok := range map[string]bool{
		"18446744073709551615": true, "18446744073709551616": false, "18446744073709552000": true, // the double 2^64 by its own text
		"-9223372036854775808": true, "-9223372036854775809": false,
		"123456789012345678901234567890": false, "1e999": false, "-1e999": false, "1e-400": false, "0e99999999999999999999": true,
		"0.1": true, "0.10000": true, "1.0e0": true, "0.1000000000000000055511151231257827": false, "1.000000000000000001": false,
		"1e99999999999999999999": false, "1e-99999999999999999999": false, "9007199254740993.0": false, "5e-324": true, "1E+2": true, "-0.0": true,
	} {
		if data, err := asProto.Marshal(json.RawMessage(text)); (err == nil) != ok {
			t.Errorf("%s: %x, %v", text, data, err)
		}
	}
	var e *codec.Error
	_, err := asProto.Marshal(json.RawMessage(`{"a":[0,{"b":1e999}]}`))
	if !asError(err, &e) || e.Field != "a.1.b" {
		t.Errorf("the error %v does not name the field", err)
	}
}

func asError(err error, target **codec.Error) (ok bool) {
	*target, ok = err.(*codec.Error)
	return ok
}

func field(number protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), v)
}

func number(number protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), v)
}

func join(b ...[]byte) []byte { return bytes.Join(b, nil) }

func list(values ...[]byte) []byte {
	var b []byte
	for _, v := range values {
		b = append(b, field(1, v)...)
	}
	return field(8, b)
}

func mapOf(pairs ...any) []byte {
	var b []byte
	for i := 0; i < len(pairs); i += 2 {
		b = append(b, field(1, join(field(1, []byte(pairs[i].(string))), field(2, pairs[i+1].([]byte))))...)
	}
	return field(9, b)
}

func nested(depth int) []byte {
	v := number(1, 0)
	for range depth {
		v = list(v)
	}
	return v
}

func many(n int) []any {
	var pairs []any
	null := number(1, 0)
	for i := range n {
		pairs = append(pairs, strconv.Itoa(i*7919%n), null) // each once, in no order
	}
	return pairs
}

// What two readers could understand differently, and what would cost more than
// JSON may, is refused.
func TestRefusedValues(t *testing.T) {
	t.Parallel()
	text := func(s string) []byte { return field(6, []byte(s)) }
	for name, c := range map[string]struct {
		data []byte
		ok   bool
	}{
		"null":                   {number(1, 0), true},
		"no kind":                {nil, false},
		"another null":           {number(1, 1), false},
		"a bool of 2":            {number(2, 2), false},
		"two kinds":              {join(number(2, 1), number(3, 1)), false},
		"one kind twice":         {join(number(2, 1), number(2, 1)), false},
		"unknown kind":           {number(11, 1), false},
		"unknown kind behind":    {join(number(2, 1), field(15, nil)), false},
		"wrong wire type":        {field(2, []byte{1}), false},
		"padded number":          {[]byte{2 << 3, 0x81, 0}, false},
		"padded tag":             {[]byte{0x90, 0, 1}, false},
		"padded length":          {append([]byte{6<<3 | 2, 0x81, 0}, 'a'), false},
		"length beyond the end":  {[]byte{6<<3 | 2, 2, 'a'}, false},
		"number that is cut off": {[]byte{5<<3 | 1, 1, 2, 3}, false},
		"NaN":                    {protowire.AppendFixed64([]byte{5<<3 | 1}, math.Float64bits(math.NaN())), false},
		"infinite":               {protowire.AppendFixed64([]byte{5<<3 | 1}, math.Float64bits(math.Inf(-1))), false},
		"NUL in text":            {text("a\x00b"), true},
		"text that is no UTF-8":  {text("a\xff"), false},
		"surrogate in text":      {text("\xed\xa0\x80"), false},
		"octets that are no UTF": {field(7, []byte{0xff}), true},
		"empty list":             {list(), true},
		"element without a kind": {list(nil), false},
		"unknown field in list":  {field(8, field(2, number(1, 0))), false},
		"empty name":             {mapOf("", number(1, 0)), true},
		"name left out":          {field(9, field(1, field(2, number(1, 0)))), true},
		"value left out":         {field(9, field(1, field(1, []byte("a")))), false},
		"member upside down":     {field(9, field(1, join(field(2, number(1, 0)), field(1, []byte("a"))))), false},
		"name that is no UTF-8":  {mapOf("\xff", number(1, 0)), false},
		"name twice":             {mapOf("a", number(1, 0), "a", number(1, 0)), false},
		"name twice, apart":      {mapOf("b", number(1, 0), "a", number(1, 0), "b", number(1, 0)), false},
		"name twice, inside":     {list(mapOf("a", number(1, 0), "a", number(1, 0))), false},
		"names in any order":     {mapOf("b", number(1, 0), "a", number(1, 0), "c", number(1, 0)), true},
		"many names":             {mapOf(many(1000)...), true},
		"one of many twice":      {mapOf(append(many(1000), "77", number(1, 0))...), false},
		"deepest":                {nested(63), true},
		"too deep":               {nested(64), false},
		"too many members":       {mapOf(many(wire.MaxMembers + 1)...), false},
		"as many values":         {field(8, bytes.Repeat(field(1, number(1, 0)), wire.MaxValues-1)), true},
		"too many values":        {field(8, bytes.Repeat(field(1, number(1, 0)), wire.MaxValues)), false},
		"message":                {field(10, join(field(1, []byte("a.B")), field(2, []byte{1}))), true},
		"empty message":          {field(10, field(1, []byte("a.B"))), true},
		"message without a name": {field(10, field(2, []byte{1})), false},
		"message of a bad name":  {field(10, field(1, []byte("a..B"))), false},
		"message of a long name": {field(10, field(1, []byte(strings.Repeat("a", 256)))), false},
		"more in a message":      {field(10, join(field(1, []byte("a.B")), field(3, nil))), false},
		"message inside":         {list(field(10, field(1, []byte("a.B")))), false},
	} {
		err := codec.Check(asProto, c.data)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		var v any
		if !c.ok && asProto.Unmarshal(c.data, &v) == nil {
			t.Errorf("%s decodes to %v", name, v)
		}
	}
}

// Deep values are refused where they are made, too, and a value that holds
// itself ends.
func TestValuesThatHoldThemselves(t *testing.T) {
	type node struct {
		Next *node
		Any  any
	}
	n := &node{}
	n.Next = n
	m := map[string]any{}
	m["m"] = m
	var p any
	p = &p
	for _, v := range []any{n, m, p, json.RawMessage(strings.Repeat("[", 64) + strings.Repeat("]", 64)), json.RawMessage(`{"a":1,"a":2}`), func() {}, make(chan int), complex(1, 2), "a\xff", map[string]any{"\xff": 1}} {
		if data, err := asProto.Marshal(v); err == nil {
			t.Errorf("%T became %d octets", v, len(data))
		}
	}
	if _, err := asProto.Marshal(json.RawMessage(strings.Repeat("[", 63) + strings.Repeat("]", 63))); err != nil {
		t.Error(err)
	}
}

// The octets are those of value.proto: what is written here is read by generated
// code, and the other way round.
func TestGeneratedCodeReadsValues(t *testing.T) {
	value := map[string]any{
		"null": nil, "bool": true, "int": -5, "uint": uint64(math.MaxUint64), "float": 0.5, "text": "é\x00", "octets": []byte{0, 255},
		"list": []any{1, "two", []int{}}, "map": map[string]any{"": map[string]int{}}, "long": strings.Repeat("x", 70_000),
	}
	data := must[[]byte](t)(asProto.Marshal(value))
	var m owtppb.Value
	if err := proto.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	members := m.GetMap().GetMembers()
	if len(members) != len(value) || members["int"].GetInteger() != -5 || members["uint"].GetUnsigned() != math.MaxUint64 || members["float"].GetNumber() != 0.5 ||
		members["text"].GetText() != "é\x00" || !bytes.Equal(members["octets"].GetOctets(), []byte{0, 255}) || len(members["list"].GetList().GetValues()) != 3 ||
		len(members["long"].GetText()) != 70_000 || !members["bool"].GetBool() || members["null"].GetKind().(*owtppb.Value_Null).Null != owtppb.Null_NULL_VALUE {
		t.Errorf("read as %v", &m)
	}
	for range 20 { // its maps are written in another order each time
		other := must[[]byte](t)(proto.Marshal(&m))
		if got, want := decodeAny(t, asProto, other), decodeAny(t, asProto, data); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

// Whatever is accepted has one meaning, which survives JSON and being written
// again, and which generated code agrees on.
func FuzzValue(f *testing.F) {
	for _, v := range []any{nil, true, -1, uint64(math.MaxUint64), 0.1, "text", []byte{1}, []any{1, nil, []any{}}, map[string]any{"a": map[string]any{}, "b": -0.0}} {
		f.Add(must[[]byte](f)(asProto.Marshal(v)))
	}
	f.Add(mapOf("b", number(1, 0), "a", list(number(4, 7))))
	f.Add(field(10, join(field(1, []byte("owtp.v2.Finish")), field(2, field(1, []byte("x"))))))
	f.Fuzz(func(t *testing.T, data []byte) {
		if codec.Check(asProto, data) != nil {
			var v any
			if asProto.Unmarshal(data, &v) == nil {
				t.Fatal("decoded although it was refused")
			}
			asProto.(codec.Transcoder).ToJSON(data) // must not panic
			codec.Decode(asProto, data, &v)
			return
		}
		var typed everything
		var flat plain
		var message *testpb.Everything
		for _, target := range []any{&typed, &flat, &message, new([]any), new(map[string]plain), new(*uint8), new(json.RawMessage)} {
			asProto.Unmarshal(data, target) // must not panic
		}
		var m owtppb.Value
		if err := proto.Unmarshal(data, &m); err != nil || len(m.ProtoReflect().GetUnknown()) > 0 || m.Kind == nil {
			t.Fatalf("generated code reads %x as %v, %v", data, &m, err)
		}
		if m.GetMessage() != nil {
			return
		}
		v := decodeAny(t, asProto, data)
		text := must[[]byte](t)(codec.ToJSON(asProto, data))
		if err := codec.Check(asJSON, text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		again := must[[]byte](t)(asProto.Marshal(v))
		if w := decodeAny(t, asProto, again); !reflect.DeepEqual(small(w), small(v)) {
			t.Fatalf("%#v became %#v", v, w)
		}
		sorted := must[[]byte](t)(codec.ToJSON(asProto, again))
		through := must[[]byte](t)(asProto.Marshal(json.RawMessage(text)))
		var x, y any
		if json.Unmarshal(sorted, &x) != nil || json.Unmarshal(must[[]byte](t)(codec.ToJSON(asProto, through)), &y) != nil || !reflect.DeepEqual(x, y) {
			t.Fatalf("%s became %s", sorted, must[[]byte](t)(codec.ToJSON(asProto, through)))
		}
	})
}

// small makes unsigned numbers that others write as such what they are here.
func small(v any) any {
	switch v := v.(type) {
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v)
		}
	case []any:
		for i := range v {
			v[i] = small(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = small(v[k])
		}
	}
	return v
}

// JSON that a node accepts goes through protobuf with nothing lost, or is refused
// for a number that no kind holds.
func FuzzJSONThroughProtobuf(f *testing.F) {
	for _, text := range []string{`null`, `{"b":1,"a":[1.5,-0,18446744073709551615,"\u0000\ud83d\ude00",{}]}`, ` [ ] `, `1e999`, `"\u00e9<>&"`, `{"":{"":""}}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		data, err := asProto.Marshal(json.RawMessage(text))
		trimmed := bytes.Trim(text, " \t\r\n")
		if codec.Check(asJSON, trimmed) != nil || len(trimmed) == 0 {
			if err == nil && len(trimmed) > 0 {
				t.Fatalf("%q is no JSON and became %x", text, data)
			}
			return
		}
		if err != nil {
			if !strings.Contains(err.Error(), "no number of 64 bits") {
				t.Fatalf("%s: %v", text, err)
			}
			return
		}
		if err := codec.Check(asProto, data); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		back := must[[]byte](t)(codec.ToJSON(asProto, data))
		if !sameJSON(t, trimmed, back) {
			t.Fatalf("%s became %s", text, back)
		}
		again := must[[]byte](t)(asProto.Marshal(json.RawMessage(back)))
		if string(must[[]byte](t)(codec.ToJSON(asProto, again))) != string(back) {
			t.Fatalf("%s became another text the second time", back)
		}
	})
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	parse := func(text []byte) (v any) {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return v
	}
	return sameValue(parse(a), parse(b))
}

func sameValue(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		x, errX := strconv.ParseFloat(a.String(), 64)
		y, errY := strconv.ParseFloat(b.String(), 64)
		return ok && errX == nil && errY == nil && x == y && (len(a) < 17 || len(b) < 17 || strings.ContainsAny(string(a+b), ".eE") || a == b)
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !sameValue(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k := range a {
			if v, ok := b[k]; !ok || !sameValue(a[k], v) {
				return false
			}
		}
		return true
	}
	return fmt.Sprint(a) == fmt.Sprint(b)
}
