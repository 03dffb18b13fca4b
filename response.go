package owtp

import (
	"encoding/json"
	"fmt"

	"github.com/tidwall/gjson"

	"github.com/owtp-go/owtp/internal/wire"
)

// A Response is what a handler answers and what a caller gets.
type Response struct {
	Status uint64 `json:"status"` // 0 and 200 are success, from 600 on the application's own
	Msg    string `json:"msg"`    // for people, at most 4096 bytes
	// Result is what the handler returns: anything that encoding/json encodes.
	// At the caller it is a json.RawMessage with the octets as they came.
	Result any `json:"result"`

	evidence []byte
	proved   bool // the peer itself said so
	refused  bool // no handler ran, and none will for what was sent
}

// OK reports whether the status is a success: 200, or the 0 of a handler that
// set none.
func (r *Response) OK() bool { return r.Status == 0 || r.Status == StatusSuccess }

// JsonData returns the result for reading by path, as in
// resp.JsonData().Get("user.name"). A result that is no JSON gives an empty
// value.
func (r *Response) JsonData() gjson.Result {
	switch v := r.Result.(type) {
	case nil:
		return gjson.Result{}
	case json.RawMessage:
		return gjson.ParseBytes(v)
	case gjson.Result:
		return v
	}
	b, err := json.Marshal(r.Result)
	if err != nil {
		return gjson.Result{}
	}
	return gjson.ParseBytes(b)
}

// Evidence returns the signed request and the signed response to it, for
// [VerifyEvidence], or nil if they were not signed. Keep it where a later
// dispute needs it: it verifies from itself alone, by anybody, offline.
func (r *Response) Evidence() []byte { return r.evidence }

// Err returns nil for a success and an [*Error] for any other status.
func (r *Response) Err() error {
	if r.OK() {
		return nil
	}
	return &Error{Status: r.Status, Msg: r.Msg, Proved: r.proved, MayHaveRun: !r.refused}
}

// encodeData turns a value into JSON octets. What the program has encoded
// itself is checked, what encoding/json makes is right by construction.
func encodeData(v any) ([]byte, error) {
	var raw []byte
	switch v := v.(type) {
	case nil:
		return []byte("null"), nil
	case json.RawMessage:
		raw = v
	case gjson.Result:
		raw = []byte(v.Raw)
	default:
		b, err := marshal(v)
		if err != nil {
			return nil, newError(ErrBadRequest, "value of type %T does not encode as JSON: %w", v, err)
		}
		return b, nil
	}
	raw = trimSpace(raw)
	if len(raw) == 0 {
		return []byte("null"), nil
	}
	p := wire.Packet{Data: raw}
	if err := p.CheckData(); err != nil {
		return nil, newError(ErrBadRequest, "raw value is not acceptable JSON: %w", err)
	}
	return raw, nil
}

// marshal is json.Marshal, for values whose own MarshalJSON may panic: that must
// end the call and not the program.
func marshal(v any) (b []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return json.Marshal(v)
}

func trimSpace(b []byte) []byte {
	space := func(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
	for len(b) > 0 && space(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && space(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}
