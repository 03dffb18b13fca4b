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

// Marshal is json.Marshal, and checks what comes of it: messages and Go values
// nest as deep as they like, and a MarshalJSON of the program's own or two keys
// with one text may make a member twice. A peer ends the connection on such data,
// with all calls on it. What is encoded already is kept octet for octet.
func (f jsonFormat) Marshal(v any) (text []byte, err error) {
	switch v := v.(type) {
	case proto.Message:
		text, err = messageJSON(v)
	case json.RawMessage:
		if text = bytes.Trim(v, " \t\r\n"); len(text) == 0 {
			return []byte("null"), nil
		}
	default:
		text, err = json.Marshal(v)
	}
	if err == nil {
		err = f.Check(text)
	}
	if err != nil {
		return nil, err
	}
	return text, nil
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
	if string(data) != "null" {
		v = pointedTo(v)
	}
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
