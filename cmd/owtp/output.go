package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
)

// printJSON prints a value: laid out for people on a terminal, one line for
// scripts otherwise. The octets are the peer's, so numbers and the order of
// names stay as they came.
func (c *console) printJSON(raw []byte) error {
	var b bytes.Buffer
	var err error
	if isTerminal(c.out) {
		err = json.Indent(&b, raw, "", "  ")
	} else {
		err = json.Compact(&b, raw)
	}
	if err != nil {
		return fmt.Errorf("the answer is not JSON: %w", err)
	}
	_, err = fmt.Fprintf(c.out, "%s\n", escapeControls(b.Bytes()))
	return err
}

// escapeControls writes the control characters that JSON allows unescaped as
// \uXXXX, which means the same: some terminals obey them. They stand in strings
// only, as JSON allows no other place.
func escapeControls(text []byte) []byte {
	if bytes.IndexFunc(text, risky) < 0 {
		return text
	}
	var b bytes.Buffer
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if risky(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.Write(text[:n])
		}
		text = text[n:]
	}
	return b.Bytes()
}

func risky(r rune) bool {
	return r != '\n' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
}

// resultJSON returns a response's result as JSON, if it was JSON octet for octet.
func resultJSON(resp *owtp.Response) ([]byte, error) {
	if raw, ok := resp.Result.(codec.Raw); ok {
		text, err := dataJSON(raw.Format, raw.Data)
		if err != nil {
			return nil, withCode(exitStatus, "the peer has answered, but the result cannot be shown: %w", err)
		}
		return text, nil
	}
	if raw := resp.JsonData().Raw; raw != "" {
		return []byte(raw), nil
	}
	return []byte("null"), nil
}

// dataJSON returns data of a format as JSON.
func dataJSON(format string, data []byte) ([]byte, error) {
	f, err := codec.Lookup(format)
	if err != nil {
		return nil, err
	}
	return codec.ToJSON(f, data)
}

// fullJSON returns a response with its status and message.
func fullJSON(resp *owtp.Response, typed *protoMethod) ([]byte, error) {
	result, err := typed.resultJSON(resp)
	if err != nil {
		return nil, err
	}
	return marshalPlain(struct {
		Status uint64          `json:"status"`
		Msg    string          `json:"msg"`
		Result json.RawMessage `json:"result"`
	}{resp.Status, resp.Msg, result})
}

// marshalPlain encodes without turning <, > and & into escapes, which would
// change what the peer wrote.
func marshalPlain(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}
