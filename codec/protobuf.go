package codec

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/owtp-go/owtp/internal/wire"
)

// protobufFormat is the format "protobuf": one Value of proto/value.proto. A
// Protobuf message of the program's is a Value too, with its name.
type protobufFormat struct{ types types }

func newProtobuf() *protobufFormat { return new(protobufFormat) }

// Protobuf returns the format "protobuf". Values of other types than Protobuf
// messages are encoded and decoded by the rules of encoding/json, tags included,
// but for numbers of 64 bits and octets, which keep their kind: decoded into
// any, integers are int64, or uint64 if only that holds them, other numbers are
// float64, and octets are []byte. NaN and infinities are refused, and so is text
// that is not UTF-8.
func Protobuf() Format {
	f, _ := Lookup(NameProtobuf)
	return f
}

func (*protobufFormat) Name() string        { return NameProtobuf }
func (*protobufFormat) ContentType() string { return "application/protobuf" }

func (f *protobufFormat) Marshal(v any) ([]byte, error) {
	if m, ok := v.(proto.Message); ok {
		return appendMessage(nil, m)
	}
	e := encoder{left: wire.MaxValues, types: &f.types}
	if raw, ok := v.(json.RawMessage); ok {
		if len(strings.Trim(string(raw), " \t\r\n")) == 0 {
			raw = json.RawMessage("null")
		}
		e.left--
		err := e.valueOfJSON(raw, maxDepth)
		return e.b, err
	}
	scratch, ok := f.types.scratch.Get().(*[]byte)
	if !ok {
		scratch = new([]byte)
	}
	e.b = (*scratch)[:0]
	if err := e.value(reflect.ValueOf(v), maxDepth); err != nil {
		return nil, err
	}
	out := bytes.Clone(e.b)
	if *scratch = e.b; cap(e.b) <= maxScratch {
		f.types.scratch.Put(scratch)
	}
	return out, nil
}

func (*protobufFormat) Check(data []byte) error { return check(data) }

func (f *protobufFormat) Unmarshal(data []byte, v any) error {
	if err := check(data); err != nil {
		return err
	}
	return f.decode(data, v)
}

func (f *protobufFormat) decode(data []byte, v any) error {
	n, err := read(data)
	if err != nil {
		return err
	}
	if n.tag != tagNull {
		v = pointedTo(v)
	}
	m := messageIn(v)
	if n.tag == tagMessage {
		return decodeMessage(n.oct, m, v)
	}
	if m != nil { // a Value for a message: by way of Protobuf's JSON mapping
		text, err := appendJSON(nil, data)
		if err != nil {
			return err
		}
		return messageFromJSON(text, m)
	}
	target := reflect.ValueOf(v)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return errorf("cannot decode into %T: it is no pointer", v)
	}
	d := decoder{types: &f.types}
	return d.node(&n, data, target.Elem())
}

// decodeMessage decodes a message into m, or if that is nil into what v points to.
func decodeMessage(b []byte, m proto.Message, v any) error {
	name, value, err := readMessage(b)
	if err != nil {
		return err
	}
	if m != nil {
		return unmarshalMessage(name, value, m)
	}
	if m, err = knownMessage(name, value); err != nil {
		return err
	}
	if target, ok := v.(*any); ok {
		*target = m
		return nil
	}
	text, err := messageJSON(m)
	if err != nil {
		return err
	}
	return jsonFormat{}.decode(text, v)
}

func (f *protobufFormat) ToJSON(data []byte) ([]byte, error) {
	n, err := read(data)
	if err != nil {
		return nil, err
	}
	if n.tag != tagMessage {
		return appendJSON(make([]byte, 0, len(data)+len(data)/4), data)
	}
	name, value, err := readMessage(n.oct)
	if err != nil {
		return nil, err
	}
	m, err := knownMessage(name, value)
	if err != nil {
		return nil, err
	}
	return messageJSON(m)
}
