package codec

import (
	"encoding/json"
	"fmt"
	"runtime/debug"

	"google.golang.org/protobuf/proto"
)

// A builtIn format knows json.RawMessage and Protobuf messages, and decodes
// without checking again what has been checked.
type builtIn interface {
	Checker
	Transcoder
	decode(data []byte, v any) error
}

// Encode is Marshal for whatever a program hands to a call: Raw, too, and
// json.RawMessage and Protobuf messages in formats that know nothing of them. A
// value whose own methods panic is an error.
func Encode(f Format, v any) (data []byte, err error) {
	defer recovered(&err)
	if raw, ok := v.(Raw); ok {
		return encodeRaw(f, raw)
	}
	if _, ok := f.(builtIn); ok {
		return f.Marshal(v)
	}
	switch v := v.(type) {
	case json.RawMessage:
		return encodeRaw(f, Raw{NameJSON, v})
	case proto.Message:
		text, err := messageJSON(v)
		if err != nil {
			return nil, err
		}
		return encodeRaw(f, Raw{NameJSON, text})
	}
	return f.Marshal(v)
}

func encodeRaw(f Format, raw Raw) ([]byte, error) {
	if raw.Format == f.Name() {
		if err := Check(f, raw.Data); err != nil {
			return nil, err
		}
		return raw.Data, nil
	}
	from, err := Lookup(raw.Format)
	if err != nil {
		return nil, err
	}
	if err := Check(from, raw.Data); err != nil {
		return nil, err
	}
	text, err := ToJSON(from, raw.Data)
	if err != nil {
		return nil, err
	}
	if _, ok := f.(builtIn); ok {
		return f.Marshal(json.RawMessage(text))
	}
	value, err := anyOfJSON(text)
	if err != nil {
		return nil, err
	}
	return f.Marshal(value)
}

// Check asks the format whether data is well formed. A format that is no Checker
// finds out when the data is decoded.
func Check(f Format, data []byte) (err error) {
	if c, ok := f.(Checker); ok {
		defer recovered(&err)
		return c.Check(data)
	}
	return nil
}

// Decode decodes data that has passed Check into what v points to. No data is
// null. A Protobuf message in a format that knows nothing of them is read by way
// of JSON.
func Decode(f Format, data []byte, v any) (err error) {
	defer recovered(&err)
	if len(data) == 0 {
		f, data = jsonFormat{}, []byte("null")
	}
	if raw, ok := v.(*Raw); ok {
		*raw = Raw{f.Name(), data}
		return nil
	}
	if b, ok := f.(builtIn); ok {
		return b.decode(data, v)
	}
	_, isRaw := v.(*json.RawMessage)
	if !isRaw && messageIn(v) == nil {
		return f.Unmarshal(data, v)
	}
	text, err := ToJSON(f, data)
	if err != nil {
		return err
	}
	return jsonFormat{}.decode(text, v)
}

// ToJSON returns data that has passed Check as JSON.
func ToJSON(f Format, data []byte) (text []byte, err error) {
	defer recovered(&err)
	if len(data) == 0 {
		return []byte("null"), nil
	}
	if t, ok := f.(Transcoder); ok {
		return t.ToJSON(data)
	}
	var v any
	if err := f.Unmarshal(data, &v); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// A PanicError is a panic of the program's own code, a method of a type or a
// format, which must end a call and not the process. What it says is for the
// program's log and nobody else.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

func recovered(err *error) {
	if p := recover(); p != nil {
		*err = &PanicError{p, debug.Stack()}
	}
}
