package codec_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/quick"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/internal/testpb"
)

// A hexFormat is a format of a program's: JSON as hexadecimal digits, which
// knows nothing of messages and of values that are encoded already.
type hexFormat struct{ name string }

func (f hexFormat) Name() string      { return f.name }
func (hexFormat) ContentType() string { return "text/hex" }

func (hexFormat) Marshal(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return []byte(hex.EncodeToString(text)), err
}

func (hexFormat) Unmarshal(data []byte, v any) error {
	text, err := hex.DecodeString(string(data))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// registerHex registers once, however often the tests run in one process.
var registerHex = sync.OnceValue(func() error { return codec.Register(hexFormat{"hex"}) })

func TestRegister(t *testing.T) {
	if err := registerHex(); err != nil {
		t.Fatal(err)
	}
	if f, err := codec.Lookup("hex"); err != nil || f != (hexFormat{"hex"}) {
		t.Errorf("Lookup: %v, %v", f, err)
	}
	for _, f := range []codec.Format{hexFormat{"hex"}, hexFormat{"json"}, hexFormat{"protobuf"}, hexFormat{""}, hexFormat{"Hex"}, hexFormat{"a b"}, hexFormat{strings.Repeat("a", 33)}, nil} {
		if err := codec.Register(f); err == nil {
			t.Errorf("%v is registered", f)
		}
	}
	if got := codec.Names(); !slices.Equal(got, []string{"hex", "json", "protobuf"}) {
		t.Errorf("names %q", got)
	}
	if _, err := codec.Lookup("xml"); err == nil || !strings.Contains(err.Error(), `"xml"; known are hex, json, protobuf`) {
		t.Errorf("Lookup of another: %v", err)
	}
	for _, name := range []string{"", "json", "protobuf"} {
		if f, err := codec.Lookup(name); err != nil || f.Name() == "" || f.ContentType() == "" {
			t.Errorf("Lookup of %q: %v, %v", name, f, err)
		}
	}

	// What a program's format does not know is done for it.
	f := hexFormat{"hex"}
	order := anOrder()
	for _, v := range []any{json.RawMessage(`{"customer":"c","n":18446744073709551615}`), codec.Raw{Format: "json", Data: []byte(`{"customer":"c","n":18446744073709551615}`)},
		codec.Raw{Format: "protobuf", Data: must[[]byte](t)(asProto.Marshal(map[string]any{"customer": "c", "n": uint64(1<<64 - 1)}))}} {
		data := must[[]byte](t)(codec.Encode(f, v))
		if text := must[[]byte](t)(codec.ToJSON(f, data)); !bytes.Contains(text, []byte(`"customer":"c"`)) {
			t.Errorf("%T became %s", v, text)
		}
	}
	data := must[[]byte](t)(codec.Encode(f, order))
	var got *testpb.Order
	if err := codec.Decode(f, data, &got); err != nil || !proto.Equal(got, order) {
		t.Errorf("got %v, %v", got, err)
	}
	var text json.RawMessage
	var raw codec.Raw
	if err := codec.Decode(f, data, &text); err != nil || !bytes.Contains(text, []byte("STATE_PAID")) {
		t.Errorf("as JSON %s, %v", text, err)
	}
	if err := codec.Decode(f, data, &raw); err != nil || raw.Format != "hex" || !bytes.Equal(raw.Data, data) {
		t.Errorf("as it is %v, %v", raw, err)
	}
}

func anOrder() *testpb.Order {
	return &testpb.Order{
		Customer: "c", State: testpb.State_STATE_PAID, Labels: map[string]string{"b": "2", "a": "1"}, Payment: &testpb.Order_Cash{Cash: 1<<64 - 1},
		Items: []*testpb.Item{{Id: -1 << 63, Name: "é\x00", Price: "1.50", Ok: true}, {}},
	}
}

// everything is what encoding/json does with types; the format protobuf does the
// same.
type everything struct {
	Bool     bool
	Int      int8 `json:"int"`
	Int64    int64
	Uint     uint16
	Uint64   uint64 `json:"uint64,omitempty"`
	Float    float64
	Float32  float32
	Text     string           `json:"text,omitempty"`
	Octets   []byte           `json:",omitempty"`
	Array    [3]int           `json:"array"`
	Bytes    [2]byte          `json:"bytes"`
	List     []string         `json:"list"`
	Map      map[string]int32 `json:"map"`
	ByNumber map[int]string   `json:"byNumber"`
	Pointer  *string          `json:"pointer"`
	Omitted  *int             `json:"omitted,omitzero"`
	Inside   *inside          `json:"inside,omitempty"`
	Insides  []inside         `json:"insides"`
	Skipped  string           `json:"-"`
	Quoted   int64            `json:"quoted,string"`
	unseen   int
	Time     time.Duration
	Named    map[kind]kind
	Sorted   map[string]string `json:"<odd> name"`
}

type kind string

type inside struct {
	embedded
	ID    int64   `json:"id"`
	Name  string  `json:"name"`
	Ratio float64 `json:"ratio"`
	Next  *inside `json:"next,omitempty"`
}

type embedded struct{ Deep string }

// plain is like everything, without what goes by way of JSON as a whole.
type plain struct {
	B      bool             `json:"b"`
	I      int8             `json:"i"`
	J      int64            `json:"j,omitempty"`
	U      uint64           `json:"u"`
	F      float64          `json:"f"`
	G      float32          `json:"g"`
	S      string           `json:"s,omitempty"`
	O      []byte           `json:"o,omitempty"`
	A      [2]uint16        `json:"a"`
	L      []string         `json:"l"`
	M      map[string]int32 `json:"m"`
	N      map[int8]string  `json:"n"`
	P      *plain           `json:"p,omitempty"`
	Q      **int            `json:"q"`
	X      any              `json:"x"`
	T      time.Time        `json:"t"`
	Z      int              `json:"z,omitzero"`
	Hidden int              `json:"-"`
	Number json.Number      `json:"number,omitempty"`
	Raw    json.RawMessage  `json:"raw,omitempty"`
	Hex    hexed            `json:"hex"`
}

// hexed has methods of its own, on the pointer.
type hexed struct{ b byte }

func (h *hexed) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString([]byte{h.b})), nil }

func (h *hexed) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err == nil {
		h.b = append(b, 0)[0]
	}
	return err
}

func (plain) Generate(r *rand.Rand, size int) reflect.Value {
	text := func() string { return strings.ToValidUTF8(quickValue[string](r), "?") }
	p := plain{
		B: r.Intn(2) == 1, I: int8(r.Int()), J: int64(r.Uint64()), U: r.Uint64(), F: r.NormFloat64() * 1e10, G: float32(r.NormFloat64()),
		S: text(), O: []byte(text()), A: [2]uint16{uint16(r.Int())}, L: []string{text(), text()}, M: map[string]int32{text(): int32(r.Int())},
		N: map[int8]string{int8(r.Int()): text()}, T: time.Unix(r.Int63n(1e9), 0).UTC(), Z: r.Intn(2), Hidden: 1, Hex: hexed{byte(r.Int())},
	}
	switch r.Intn(4) {
	case 0:
		p.L, p.M, p.O = nil, nil, nil
	case 1:
		n := r.Int()
		q := &n
		p.Q, p.X = &q, text()
		p.Raw, p.Number = json.RawMessage(`{"a":[1,"x"]}`), "12"
	case 2:
		inner := plain{}.Generate(r, size/2).Interface().(plain)
		p.P = &inner
	}
	return reflect.ValueOf(p)
}

func quickValue[T any](r *rand.Rand) (v T) {
	x, _ := quick.Value(reflect.TypeFor[T](), r)
	return x.Interface().(T)
}

// Plain Go values mean in protobuf what they mean in JSON, tags and all.
func TestGoValuesAsInJSON(t *testing.T) {
	same := func(v any) bool {
		text := must[[]byte](t)(json.Marshal(v))
		data := must[[]byte](t)(asProto.Marshal(v))
		if err := codec.Check(asProto, data); err != nil {
			t.Errorf("%+v: %v", v, err)
			return false
		}
		if got := must[[]byte](t)(codec.ToJSON(asProto, data)); !sameJSON(t, text, got) {
			t.Errorf("in JSON\n%s\nin protobuf\n%s", text, got)
			return false
		}
		want, got := reflect.New(reflect.TypeOf(v)), reflect.New(reflect.TypeOf(v))
		if err := json.Unmarshal(text, want.Interface()); err != nil {
			t.Fatal(err)
		}
		if err := asProto.Unmarshal(data, got.Interface()); err != nil {
			t.Errorf("%+v: %v", v, err)
			return false
		}
		w, g := must[[]byte](t)(json.Marshal(want.Interface())), must[[]byte](t)(json.Marshal(got.Interface()))
		if !bytes.Equal(w, g) {
			t.Errorf("from JSON\n%s\nfrom protobuf\n%s", w, g)
			return false
		}
		return true
	}
	if err := quick.Check(func(p plain) bool { return same(&p) }, &quick.Config{MaxCount: 200, Rand: rand.New(rand.NewSource(1))}); err != nil {
		t.Error(err)
	}
	n, s := 7, "s"
	for _, v := range []any{
		everything{}, everything{Int: -3, Pointer: &s, Omitted: &n, Quoted: 5, Octets: []byte{}, Named: map[kind]kind{"a": "b"}, ByNumber: map[int]string{2: "x"},
			Inside: &inside{embedded: embedded{"deep"}, Next: &inside{ID: 1}}, Insides: []inside{{Name: "n"}}, unseen: 1, Skipped: "x", Sorted: map[string]string{"b": "", "a": ""}},
		[]any{1, "a", nil, map[string]any{"x": []int{}}}, map[string]*plain{"nil": nil}, [2]*int{&n}, time.Unix(1, 0).UTC(), big.NewInt(1 << 62), kind("k"), &s,
	} {
		same(v)
	}
}

// A value that does not fit says where, in both formats.
func TestErrorsNameTheField(t *testing.T) {
	type item struct {
		Count uint8  `json:"count"`
		Name  string `json:"name"`
	}
	type order struct {
		ID    int64           `json:"id"`
		Items []item          `json:"items"`
		By    map[string]item `json:"by"`
		Part  *item           `json:"part"`
		Data  []byte          `json:"data"`
		Yes   bool            `json:"yes"`
	}
	for _, c := range []struct {
		value   any
		field   string
		of, msg string
	}{
		{map[string]any{"id": "one"}, "id", "", "int64"},
		{map[string]any{"id": 1.5}, "id", "", "number 1.5 does not fit into int64"},
		{map[string]any{"items": []any{map[string]any{"count": 1}, map[string]any{"count": 256}}}, "items.1.count", "items.count", "number 256 does not fit into uint8"},
		{map[string]any{"by": map[string]any{"a": map[string]any{"count": -1}}}, "by.a.count", "by.count", "number -1 does not fit into uint8"},
		{map[string]any{"part": map[string]any{"name": true}}, "part.name", "", "does not fit into string"},
		{map[string]any{"part": []int{1}}, "part", "", "does not fit into codec_test.item"},
		{map[string]any{"yes": 1}, "yes", "", "does not fit into bool"},
	} {
		for _, f := range []codec.Format{asJSON, asProto} {
			data := must[[]byte](t)(f.Marshal(c.value))
			var e *codec.Error
			var o order
			err := f.Unmarshal(data, &o)
			// encoding/json leaves indexes and keys out.
			if !asError(err, &e) || e.Field != c.field && (f != asJSON || e.Field != c.of) || !strings.Contains(e.Msg, c.msg) && f == asProto {
				t.Errorf("%s: %v in %v: %v", f.Name(), c.field, c.value, err)
			}
		}
		var m *testpb.Order
		for _, f := range []codec.Format{asJSON, asProto} {
			var e *codec.Error
			err := f.Unmarshal(must[[]byte](t)(f.Marshal(map[string]any{"customer": 5})), &m)
			if !asError(err, &e) || e.Field != "customer" {
				t.Errorf("%s: message: %v", f.Name(), err)
			}
		}
	}
}

func someOfEverything() *testpb.Everything {
	return &testpb.Everything{
		AInt32: -1 << 31, AInt64: -1 << 63, AUint32: 1<<32 - 1, AUint64: 1<<64 - 1, ASint32: 1<<31 - 1, ASint64: 1<<63 - 1, AFixed32: 1, AFixed64: 1<<64 - 1,
		ASfixed32: -1, ASfixed64: -1 << 63, AFloat: 0.1, ADouble: 1e300, ABool: true, AString: "é\x00", ABytes: []byte{0, 255}, AState: testpb.State_STATE_OPEN,
		Inside: &testpb.Everything{}, Numbers: []int64{-1, 1 << 62}, ByNumber: map[int32]*testpb.Everything{-1: {AString: "x"}, 7: {}},
	}
}

// Messages travel in every format, and between messages, structs and maps.
func TestMessages(t *testing.T) {
	all := someOfEverything()
	for _, f := range []codec.Format{asJSON, asProto} {
		data := must[[]byte](t)(f.Marshal(all))
		if err := codec.Check(f, data); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if again := must[[]byte](t)(f.Marshal(all)); !bytes.Equal(again, data) {
				t.Fatalf("%s: the same message has other octets the second time", f.Name())
			}
		}
		var m *testpb.Everything
		var v testpb.Everything
		for _, target := range []any{&m, &v} {
			if err := f.Unmarshal(data, target); err != nil {
				t.Fatalf("%s: %v", f.Name(), err)
			}
		}
		if !proto.Equal(m, all) || !proto.Equal(&v, all) {
			t.Errorf("%s: got %v", f.Name(), m)
		}
		// Through the other format and back.
		for _, g := range []codec.Format{asJSON, asProto} {
			other := must[[]byte](t)(codec.Encode(g, codec.Raw{Format: f.Name(), Data: data}))
			var n *testpb.Everything
			if err := codec.Decode(g, other, &n); err != nil || !proto.Equal(n, all) {
				t.Errorf("%s by %s: %v, %v", f.Name(), g.Name(), n, err)
			}
		}
		var s struct {
			AString string `json:"aString"`
			ABytes  []byte `json:"aBytes"`
			AInt32  int32  `json:"aInt32"`
			AUint64 uint64 `json:"aUint64,string"`
		}
		if err := f.Unmarshal(data, &s); err != nil || s.AString != "é\x00" || !bytes.Equal(s.ABytes, []byte{0, 255}) || s.AInt32 != -1<<31 || s.AUint64 != 1<<64-1 {
			t.Errorf("%s: the struct is %+v, %v", f.Name(), s, err)
		}
		var nobody *testpb.Everything
		if data := must[[]byte](t)(f.Marshal(nobody)); string(must[[]byte](t)(codec.ToJSON(f, data))) != "null" {
			t.Errorf("%s: a nil message became %q", f.Name(), data)
		}
		m = someOfEverything()
		if err := f.Unmarshal(must[[]byte](t)(f.Marshal(nil)), &m); err != nil || !proto.Equal(m, &testpb.Everything{}) {
			t.Errorf("%s: null is %v, %v", f.Name(), m, err)
		}
		if err := f.Unmarshal(must[[]byte](t)(f.Marshal(map[string]any{"aInt64": 5, "unknown": 1, "inside": map[string]any{"aState": "STATE_PAID"}})), &m); err != nil ||
			m.GetAInt64() != 5 || m.GetInside().GetAState() != testpb.State_STATE_PAID {
			t.Errorf("%s: a map became %v, %v", f.Name(), m, err)
		}
	}
}

// Absent is not zero where the message says so, unknown numbers of an enum stay,
// and what a newer message has is kept by who does not know it.
func TestMessagesPresenceEnumsAndUnknownFields(t *testing.T) {
	for _, f := range []codec.Format{asJSON, asProto} {
		for _, discount := range []*int64{nil, new(int64)} {
			var got *testpb.Order
			if err := f.Unmarshal(must[[]byte](t)(f.Marshal(&testpb.Order{Discount: discount, State: 77})), &got); err != nil {
				t.Fatal(err)
			}
			if (got.Discount == nil) != (discount == nil) || got.State != 77 || got.Payment != nil {
				t.Errorf("%s: %v", f.Name(), got)
			}
		}
		var got *testpb.Order
		if err := f.Unmarshal(must[[]byte](t)(f.Marshal(&testpb.Order{Payment: &testpb.Order_Cash{}})), &got); err != nil || got.Payment == nil {
			t.Errorf("%s: the chosen zero of a oneof is %v, %v", f.Name(), got, err)
		}
	}
	newer := field(77, []byte("new"))
	data := field(10, join(field(1, []byte("owtp.test.Order")), field(2, newer)))
	var got *testpb.Order
	if err := asProto.Unmarshal(data, &got); err != nil || !bytes.Equal(got.ProtoReflect().GetUnknown(), newer) {
		t.Errorf("unknown field: %v, %v", got, err)
	}
	if again := must[[]byte](t)(asProto.Marshal(got)); !bytes.Equal(again, data) {
		t.Errorf("%x came back as %x", data, again)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	t.Parallel()
	deep := func(n int) *testpb.Everything {
		m := &testpb.Everything{}
		for range n - 1 {
			m = &testpb.Everything{Inside: m}
		}
		return m
	}
	var m *testpb.Everything
	for n, ok := range map[int]bool{62: true, 65: false} {
		for _, f := range []codec.Format{asJSON, asProto} {
			data := must[[]byte](t)(codec.Protobuf().Marshal(deep(n)))
			if f == asJSON {
				text, err := f.Marshal(deep(n))
				if (err == nil) != ok {
					t.Errorf("%d deep are written as JSON: %v", n, err)
				}
				if data = text; err != nil {
					data = []byte(strings.Repeat(`{"inside":`, n-1) + "{}" + strings.Repeat("}", n-1))
				}
			}
			if err := f.Unmarshal(data, &m); (err == nil) != ok {
				t.Errorf("%s: %d deep: %v", f.Name(), n, err)
			}
		}
	}
	wide := func(n int) []byte {
		value := bytes.Repeat(field(2, nil), n) // empty items
		return field(10, join(field(1, []byte("owtp.test.Order")), field(2, value)))
	}
	var o *testpb.Order
	if err := asProto.Unmarshal(wide(1000), &o); err != nil || len(o.GetItems()) != 1000 {
		t.Errorf("a thousand fields: %v", err)
	}
	if err := asProto.Unmarshal(wide(1_000_001), &o); err == nil {
		t.Error("more than a million fields are decoded")
	}
	const holder = "extended.Holder"
	many, err := anExtension()
	if err != nil {
		t.Fatal(err)
	}
	if err := asProto.Unmarshal(field(10, join(field(1, []byte(holder)), field(2, field(100, bytes.Repeat(field(1, nil), 1000))))), new(any)); err != nil {
		t.Errorf("a thousand fields in an extension: %v", err)
	}
	if err := asProto.Unmarshal(field(10, join(field(1, []byte(holder)), field(2, many))), new(any)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("more than a million fields in an extension: %v", err)
	}
	for name, c := range map[string]struct {
		data []byte
		text string
	}{
		"another message": {field(10, field(1, []byte("owtp.test.Item"))), "a message owtp.test.Item, and owtp.test.Order is wanted"},
		"cut off":         {field(10, join(field(1, []byte("owtp.test.Order")), field(2, []byte{0x0a, 5, 'a'}))), "cannot parse"},
		"no UTF-8":        {field(10, join(field(1, []byte("owtp.test.Order")), field(2, field(1, []byte{0xff})))), "UTF-8"},
	} {
		if err := asProto.Unmarshal(c.data, &o); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var v any
	if err := asProto.Unmarshal(field(10, field(1, []byte("no.such.Message"))), &v); err == nil || !strings.Contains(err.Error(), "does not know") {
		t.Errorf("an unknown message into any: %v", err)
	}
	if err := asProto.Unmarshal(must[[]byte](t)(asProto.Marshal(anOrder())), &v); err != nil || !proto.Equal(v.(proto.Message), anOrder()) {
		t.Errorf("a known message into any: %v, %v", v, err)
	}
}

// anExtension makes the message extended.Holder known, whose extension is a
// message, once, and returns one with more than a million empty messages in it.
var anExtension = sync.OnceValues(func() (many []byte, err error) {
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("extended.proto"), Package: proto.String("extended"),
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("Holder"), ExtensionRange: []*descriptorpb.DescriptorProto_ExtensionRange{{Start: proto.Int32(100), End: proto.Int32(200)}}},
			{Name: proto.String("Many"), Field: []*descriptorpb.FieldDescriptorProto{{
				Name: proto.String("all"), Number: proto.Int32(1), TypeName: proto.String(".extended.Many"),
				Label: descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(),
			}}},
		},
		Extension: []*descriptorpb.FieldDescriptorProto{{
			Name: proto.String("many"), Number: proto.Int32(100), TypeName: proto.String(".extended.Many"), Extendee: proto.String(".extended.Holder"),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(),
		}},
	}
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		return nil, err
	}
	for i := range fd.Messages().Len() {
		if err := protoregistry.GlobalTypes.RegisterMessage(dynamicpb.NewMessageType(fd.Messages().Get(i))); err != nil {
			return nil, err
		}
	}
	err = protoregistry.GlobalTypes.RegisterExtension(dynamicpb.NewExtensionType(fd.Extensions().Get(0)))
	return field(100, bytes.Repeat(field(1, nil), 1_000_001)), err
})

// A type whose own methods panic is an error.
func TestPanicsAreErrors(t *testing.T) {
	for _, f := range []codec.Format{asJSON, asProto, hexFormat{"hex"}} {
		if _, err := codec.Encode(f, panics{}); err == nil {
			t.Errorf("%s encodes", f.Name())
		}
		var p panics
		if err := codec.Decode(f, must[[]byte](t)(f.Marshal("x")), &p); err == nil {
			t.Errorf("%s decodes", f.Name())
		}
	}
	var n *testpb.Order
	if err := codec.Decode(asProto, must[[]byte](t)(asProto.Marshal(1)), n); err == nil {
		t.Error("decoded into a nil message")
	}
	if err := codec.Decode(asProto, must[[]byte](t)(asProto.Marshal(1)), 5); err == nil {
		t.Error("decoded into no pointer")
	}
}

type panics struct{}

func (panics) MarshalJSON() ([]byte, error)     { panic("marshal") }
func (*panics) UnmarshalJSON(text []byte) error { panic("unmarshal") }

// Octets and their base64 text meet in the same field.
func TestOctetsAndText(t *testing.T) {
	oct := []byte{0, 1, 254}
	text := base64.StdEncoding.EncodeToString(oct)
	var b []byte
	var s string
	for _, v := range []any{oct, text} {
		data := must[[]byte](t)(asProto.Marshal(v))
		if err := asProto.Unmarshal(data, &b); err != nil || !bytes.Equal(b, oct) {
			t.Errorf("%T into octets: %x, %v", v, b, err)
		}
		if err := asProto.Unmarshal(data, &s); err != nil || s != text {
			t.Errorf("%T into text: %q, %v", v, s, err)
		}
	}
	if err := asProto.Unmarshal(must[[]byte](t)(asProto.Marshal("*")), &b); err == nil {
		t.Errorf("no base64 became %x", b)
	}
	if _, err := codec.Encode(asJSON, codec.Raw{Format: "json", Data: []byte(`{"a":1,"a":2}`)}); err == nil {
		t.Error("a name that stands twice passes as raw data")
	}
}

// twice writes a member of itself twice, as a MarshalJSON by hand may.
type twice struct{}

func (twice) MarshalJSON() ([]byte, error) { return []byte(`{"to":"a","to":"b"}`), nil }

// sameText are keys of a map which all have the same text.
type sameText int

func (sameText) MarshalText() ([]byte, error) { return []byte("to"), nil }

// What no receiver takes is not made: the sender has the error, and not a peer,
// which would end the connection.
func TestSendersAreTold(t *testing.T) {
	nested := func(n int) (v any) {
		for range n {
			v = []any{v}
		}
		return v
	}
	for name, c := range map[string]struct {
		v    any
		text string
	}{
		"a member twice":               {twice{}, "duplicate member"},
		"a member twice, further in":   {map[string]any{"list": []any{1, twice{}}}, "duplicate member"},
		"keys with one text":           {map[sameText]int{1: 1, 2: 2}, "duplicate member"},
		"encoded, with a member twice": {json.RawMessage(`{"to":"a","to":"b"}`), "duplicate member"},
		"encoded further in":           {map[string]any{"x": json.RawMessage(`{"to":"a","to":"b"}`)}, "duplicate member"},
		"Raw":                          {codec.Raw{Format: "json", Data: []byte(`{"to":"a","to":"b"}`)}, "duplicate member"},
		"too deep":                     {nested(64), "deep"},
		"encoded, too deep":            {json.RawMessage(strings.Repeat("[", 64) + strings.Repeat("]", 64)), "deep"},
		"no JSON":                      {json.RawMessage(`{"to":`), ""},
		"no UTF-8":                     {json.RawMessage("\"\xff\""), "UTF-8"},
	} {
		for _, f := range []codec.Format{asJSON, asProto} {
			data, err := codec.Encode(f, c.v)
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s in %s: %.60q, %v", name, f.Name(), data, err)
			}
		}
	}
	for _, f := range []codec.Format{asJSON, asProto} {
		for _, v := range []any{nested(63), json.RawMessage(strings.Repeat("[", 63) + strings.Repeat("]", 63)), map[string]any{"a": 1, "b": []any{map[string]any{"a": 2}}}} {
			if _, err := codec.Encode(f, v); err != nil {
				t.Errorf("%s: %v", f.Name(), err)
			}
		}
	}
}
