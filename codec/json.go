package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/owtp-go/owtp/internal/wire"
)

// jsonFormat is JSON as encoding/json reads and writes it, and without what two
// readers could understand differently (PROTOCOL §3.4).
type jsonFormat struct{}

// JSON returns the format "json".
func JSON() Format { return jsonFormat{} }

func (jsonFormat) Name() string        { return NameJSON }
func (jsonFormat) ContentType() string { return "application/json" }

// Marshal is json.Marshal. What encoding/json makes is right by construction;
// what the program has encoded itself is checked, and kept octet for octet.
func (f jsonFormat) Marshal(v any) ([]byte, error) {
	if m, ok := v.(proto.Message); ok {
		text, err := messageJSON(m)
		if err == nil { // Protobuf nests as deep as it likes
			err = f.Check(text)
		}
		return text, err
	}
	raw, ok := v.(json.RawMessage)
	if !ok {
		return json.Marshal(v)
	}
	if raw = bytes.Trim(raw, " \t\r\n"); len(raw) == 0 {
		return []byte("null"), nil
	}
	if err := f.Check(raw); err != nil {
		return nil, err
	}
	return raw, nil
}

func (jsonFormat) Check(data []byte) error {
	p := wire.Packet{Data: data}
	return p.CheckData()
}

func (f jsonFormat) Unmarshal(data []byte, v any) error {
	if err := f.Check(data); err != nil {
		return err
	}
	return f.decode(data, v)
}

func (jsonFormat) decode(data []byte, v any) error {
	if m := messageIn(v); m != nil {
		return messageFromJSON(data, m)
	}
	err := json.Unmarshal(data, v)
	var e *json.UnmarshalTypeError
	if errors.As(err, &e) {
		return &Error{Field: e.Field, Msg: e.Value + " does not fit into " + e.Type.String()}
	}
	if err != nil {
		return err
	}
	return exactNames(data, reflect.TypeOf(v)) // which are well formed by now
}

func (jsonFormat) ToJSON(data []byte) ([]byte, error) { return data, nil }
