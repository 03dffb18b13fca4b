package owtp

import "github.com/tidwall/gjson"

// A Response is what a handler answers and what a caller gets.
type Response struct {
	Status uint64 `json:"status"` // 0 and 200 are success, from 600 on the application's own
	Msg    string `json:"msg"`    // for people, at most 4096 bytes
	// Result is what the handler returns: anything that encoding/json encodes,
	// or a Protobuf message. At the caller it has the octets as they came, in a
	// json.RawMessage or, in another format than JSON, a codec.Raw.
	Result any `json:"result"`

	evidence []byte
	proved   bool // the peer itself said so
	refused  bool // no handler ran, and none will for what was sent
	came     bool // from the peer, so that Result has been checked
}

// OK reports whether the status is a success: 200, or the 0 of a handler that
// set none.
func (r *Response) OK() bool { return r.Status == 0 || r.Status == StatusSuccess }

// JsonData returns the result for reading by path, as in
// resp.JsonData().Get("user.name"), whichever format carried it. A result that
// has no JSON form gives an empty value.
func (r *Response) JsonData() gjson.Result { return jsonOf(r.Result) }

// Decode decodes the result into what v points to: a struct by its JSON tags or a
// Protobuf message, whichever format carried it.
func (r *Response) Decode(v any) error { return decodeValue(r.Result, r.came, v) }

// Evidence returns the signed request and the signed response to it, for
// [VerifyEvidence], or nil if they were not signed. Keep it where a later
// dispute needs it: it verifies from itself alone, by anybody, offline.
func (r *Response) Evidence() []byte { return r.evidence }

// Err returns nil for a success and an [*Error] for any other status.
func (r *Response) Err() error {
	if r.OK() {
		return nil
	}
	e := &Error{Status: r.Status, Msg: r.Msg, Proved: r.proved, MayHaveRun: !r.refused}
	if !isNull(r.Result) {
		e.Details, e.came = r.Result, r.came
	}
	return e
}
