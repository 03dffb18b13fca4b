package codec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/internal/testpb"
	"github.com/owtp-go/owtp/internal/wire"
)

// Who reads a number by path and who decodes it see the same one, whichever kind
// its sender gave it.
func TestNumbersByPathAndByType(t *testing.T) {
	for _, f := range []float64{0, 1 << 53, 1<<53 + 2, 123456789012345678, 1 << 60, 1<<63 - 1024, -1 << 63, -(1<<62 + 512)} {
		data := must[[]byte](t)(asProto.Marshal(f))
		var typed int64
		if err := asProto.Unmarshal(data, &typed); err != nil || typed != int64(f) {
			t.Errorf("%v is decoded as %d, %v", f, typed, err)
		}
		text := must[[]byte](t)(codec.ToJSON(asProto, data))
		if got := gjson.ParseBytes(text).Int(); got != typed {
			t.Errorf("%v reads as %d by path and as %d by type", f, got, typed)
		}
	}
	for _, f := range []float64{1 << 63, 1<<64 - 2048} {
		data := must[[]byte](t)(asProto.Marshal(f))
		var typed uint64
		text := must[[]byte](t)(codec.ToJSON(asProto, data))
		if err := asProto.Unmarshal(data, &typed); err != nil || gjson.ParseBytes(text).Uint() != typed {
			t.Errorf("%v reads as %s by path and as %d by type, %v", f, text, typed, err)
		}
	}
	// Above, the text must still be read as the double.
	for _, f := range []float64{1 << 64, -1 << 64, math.Nextafter(-1<<63, -math.MaxFloat64), 1e20, 1e300} {
		text := must[[]byte](t)(codec.ToJSON(asProto, must[[]byte](t)(asProto.Marshal(f))))
		back := must[[]byte](t)(asProto.Marshal(json.RawMessage(text)))
		if got := decodeAny(t, asProto, back); got != f {
			t.Errorf("%v became %v by way of %s", f, got, text)
		}
	}
}

// Integers are int64 if that holds them, however their sender wrote them.
func TestSmallUnsignedNumbers(t *testing.T) {
	for _, n := range []uint64{0, 5, math.MaxInt64} {
		if got := decodeAny(t, asProto, number(4, n)); got != int64(n) {
			t.Errorf("an unsigned %d became %T %v", n, got, got)
		}
	}
	if got := decodeAny(t, asProto, number(4, 1<<63)); got != uint64(1<<63) {
		t.Errorf("2^63 became %T %v", got, got)
	}
}

// In JSON a message's names have one spelling, and its enumerations the values
// that they have: who allows a call by path must see what the handler will.
func TestMessagesHaveOneSpelling(t *testing.T) {
	for _, c := range []struct {
		text, field string
		into        proto.Message
	}{
		{`{"aInt64":5,"inside":{"byNumber":{"7":{"aState":"STATE_PAID"}}},"unknown":{"a_int64":1}}`, "", new(testpb.Everything)},
		{`{"aState":2,"inside":null,"numbers":["5"]}`, "", new(testpb.Everything)},
		{`{"a_int64":5}`, "a_int64", new(testpb.Everything)},
		{`{"AINT64":5}`, "AINT64", new(testpb.Everything)},
		{`{"inside":{"byNumber":{"7":{"\u0061_int64":5}}}}`, "inside.byNumber.7.a_int64", new(testpb.Everything)},
		{`{"by_number":{}}`, "by_number", new(testpb.Everything)},
		{`{"state":"STATE_REFUNDED"}`, "state", new(testpb.Order)},
		{`{"aState":"state_paid"}`, "aState", new(testpb.Everything)},
		{`{"inside":{"aState":"STATE_\u0050AID"}}`, "", new(testpb.Everything)},
		{`{"kind":"KIND_NEW","label":"LABEL_REPEATED","x":{"y":1}}`, "", new(structpb.Struct)},
		{`{"aInt64":"1","@type":"x/owtp.test.Everything"}`, "", new(anypb.Any)},
		{`{"a_int64":"1","@type":"x/owtp.test.Everything"}`, "a_int64", new(anypb.Any)},
		{`{"@type":"x/google.protobuf.Any","value":{"@type":"x/owtp.test.Everything","aState":"PAID"}}`, "value.aState", new(anypb.Any)},
	} {
		for _, f := range []codec.Format{asJSON, asProto, hexFormat{"hex"}} {
			data := must[[]byte](t)(codec.Encode(f, json.RawMessage(c.text)))
			err := codec.Decode(f, data, c.into)
			var e *codec.Error
			if c.field == "" && err != nil || c.field != "" && (!errors.As(err, &e) || e.Field != c.field) {
				t.Errorf("%s: %s gives %v, want field %q", f.Name(), c.text, err, c.field)
			}
		}
	}
}

// Messages that hold messages as octets are opened as deep as all data may nest,
// and no deeper: each step copies what is inside.
func TestAnyWithinAny(t *testing.T) {
	t.Parallel()
	nest := func(n int) *anypb.Any {
		m := must[*anypb.Any](t)(anypb.New(&testpb.Item{Id: 1}))
		for range n {
			m = must[*anypb.Any](t)(anypb.New(m))
		}
		return m
	}
	for n, ok := range map[int]bool{0: true, 20: true, 60: true, 64: false, 300: false} {
		data := must[[]byte](t)(asProto.Marshal(nest(n)))
		text, err := codec.ToJSON(asProto, data)
		if (err == nil) != ok {
			t.Errorf("%d deep: %d octets of JSON, %v", n, len(text), err)
		}
		var v map[string]any
		if err := codec.Decode(asProto, data, &v); (err == nil) != ok {
			t.Errorf("%d deep into a map: %v", n, err)
		}
		if _, err := asJSON.Marshal(nest(n)); (err == nil) != ok {
			t.Errorf("%d deep as JSON: %v", n, err)
		}
	}
}

// Fields count wherever JSON is made of them: inside of a message that an Any holds
// as octets, over all of them, and in lists of an enumeration, which have one octet
// for each name. None of them costs what the message would.
func TestFieldsOfAnyAndPackedValuesAreBounded(t *testing.T) {
	items := func(n int) *anypb.Any {
		return &anypb.Any{TypeUrl: "x/owtp.test.Order", Value: bytes.Repeat(field(2, nil), n)}
	}
	inAny := func(n int, wrapped int) []byte {
		a := items(n)
		for range wrapped {
			a = must[*anypb.Any](t)(anypb.New(a))
		}
		return must[[]byte](t)(asProto.Marshal(a))
	}
	for name, c := range map[string]struct {
		data []byte
		ok   bool
	}{
		"a few in an Any":     {inAny(1000, 0), true},
		"many in an Any":      {inAny(wire.MaxValues+1, 0), false},
		"many far inside":     {inAny(wire.MaxValues+1, 20), false},
		"a few packed names":  {packedStates(t, 1000), true},
		"many packed names":   {packedStates(t, wire.MaxValues+1), false},
		"many Anys with some": {anysOf(t, 1001, items(1000)), false},
		"some Anys with some": {anysOf(t, 10, items(1000)), true},
	} {
		if err := codec.Check(asProto, c.data); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		text, err := codec.ToJSON(asProto, c.data)
		runtime.ReadMemStats(&after)
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "more than 1000000 fields") {
			t.Errorf("%s: %d octets of JSON, %v", name, len(text), err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; err != nil && got > 30*uint64(len(c.data)) {
			t.Errorf("%s: %d octets cost %d before they are refused", name, len(c.data), got)
		}
	}
}

// packedStates is a message known as packed.M with a packed list of n names.
func packedStates(t *testing.T, n int) []byte {
	if err := registerPacked(); err != nil {
		t.Fatal(err)
	}
	return field(10, join(field(1, []byte("packed.M")), field(2, field(1, bytes.Repeat([]byte{1}, n)))))
}

func anysOf(t *testing.T, n int, a *anypb.Any) []byte {
	if err := registerPacked(); err != nil {
		t.Fatal(err)
	}
	one := field(2, must[[]byte](t)(proto.Marshal(a)))
	return field(10, join(field(1, []byte("packed.M")), field(2, bytes.Repeat(one, n))))
}

var registerPacked = sync.OnceValue(func() error {
	repeated := descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("packed.proto"), Package: proto.String("packed"), Syntax: proto.String("proto3"),
		Dependency: []string{"google/protobuf/any.proto", "internal/testpb/testpb.proto"},
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("M"), Field: []*descriptorpb.FieldDescriptorProto{
			{Name: proto.String("states"), Number: proto.Int32(1), Label: repeated, Type: descriptorpb.FieldDescriptorProto_TYPE_ENUM.Enum(), TypeName: proto.String(".owtp.test.State")},
			{Name: proto.String("anys"), Number: proto.Int32(2), Label: repeated, Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(".google.protobuf.Any")},
		}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		return err
	}
	return protoregistry.GlobalTypes.RegisterMessage(dynamicpb.NewMessageType(file.Messages().Get(0)))
})

// What an any points to is decoded into, in each format, and its names are as
// exact there.
func TestDecodeIntoWhatAnAnyPointsTo(t *testing.T) {
	type pay struct {
		Amount int `json:"amount"`
	}
	for _, f := range []codec.Format{asJSON, asProto} {
		var p pay
		var into any = &p
		if err := codec.Decode(f, must[[]byte](t)(f.Marshal(map[string]int{"amount": 5})), &into); err != nil || p.Amount != 5 || into != any(&p) {
			t.Errorf("%s: %+v, %v", f.Name(), p, err)
		}
		if err := codec.Decode(f, must[[]byte](t)(f.Marshal(map[string]int{"AMOUNT": 7})), &into); err == nil {
			t.Errorf("%s: another spelling gives %+v", f.Name(), p)
		}
		var m any = new(testpb.Order)
		if err := codec.Decode(f, must[[]byte](t)(f.Marshal(anOrder())), &m); err != nil || !proto.Equal(m.(proto.Message), anOrder()) {
			t.Errorf("%s: %v, %v", f.Name(), m, err)
		}
		if err := codec.Decode(f, must[[]byte](t)(f.Marshal(nil)), &into); err != nil || into != nil {
			t.Errorf("%s: null gives %v, %v", f.Name(), into, err)
		}
		var self any
		self = &self
		_ = codec.Decode(f, must[[]byte](t)(f.Marshal(1)), &self) // which ends
	}
}

// An embedded struct with a name of its own lends none of its fields' names.
func TestEmbeddedNamesAreTheirOwn(t *testing.T) {
	type Lent struct {
		Amount int `json:"amount"`
	}
	type Hidden struct {
		Secret int `json:"secret"`
	}
	type outer struct {
		Lent   `json:"lent"`
		Hidden `json:"-"`
		To     string `json:"to"`
	}
	for text, ok := range map[string]bool{
		`{"to":"a","AMOUNT":1,"SECRET":[1]}`: true, // unknown here, whatever they are inside
		`{"lent":{"amount":1}}`:              true,
		`{"lent":{"AMOUNT":1}}`:              false,
		`{"TO":"a"}`:                         false,
	} {
		for _, f := range []codec.Format{asJSON, asProto} {
			var o outer
			if err := codec.Decode(f, must[[]byte](t)(codec.Encode(f, json.RawMessage(text))), &o); (err == nil) != ok || o.Secret != 0 {
				t.Errorf("%s: %s gives %+v, %v", f.Name(), text, o, err)
			}
		}
	}
}

// Fields inside of groups count like all others.
func TestGroupsAreBounded(t *testing.T) {
	t.Parallel()
	optional, repeated := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	file := must[protoreflect.FileDescriptor](t)(protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("group.proto"), Package: proto.String("owtp.test.group"), Syntax: proto.String("proto2"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("M"),
			Field: []*descriptorpb.FieldDescriptorProto{
				{Name: proto.String("g"), Number: proto.Int32(1), Label: optional, Type: descriptorpb.FieldDescriptorProto_TYPE_GROUP.Enum(), TypeName: proto.String(".owtp.test.group.M.G")},
			},
			NestedType: []*descriptorpb.DescriptorProto{{
				Name: proto.String("G"),
				Field: []*descriptorpb.FieldDescriptorProto{
					{Name: proto.String("m"), Number: proto.Int32(2), Label: repeated, Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(".owtp.test.group.M")},
				},
			}},
		}},
	}, nil))
	group := func(n int) []byte {
		value := protowire.AppendTag(nil, 1, protowire.StartGroupType)
		value = append(value, bytes.Repeat(field(2, nil), n)...)
		value = protowire.AppendTag(value, 1, protowire.EndGroupType)
		return field(10, join(field(1, []byte("owtp.test.group.M")), field(2, value)))
	}
	for n, ok := range map[int]bool{1000: true, wire.MaxValues + 1: false} {
		m := dynamicpb.NewMessage(file.Messages().Get(0))
		if err := asProto.Unmarshal(group(n), m); (err == nil) != ok {
			t.Errorf("%d fields in a group: %v", n, err)
		}
	}
}
