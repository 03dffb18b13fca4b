package legacy

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/owtp-go/owtp/internal/wire"
)

// A Result is the data of a response: what a handler answers, or how the other
// side refuses.
type Result struct {
	Status uint64          `json:"status"` // 0 and 200 are success
	Msg    string          `json:"msg"`
	Result json.RawMessage `json:"result"`
}

// Append appends the result as version 1's nodes write it.
func (r *Result) Append(b []byte) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return b, fmt.Errorf("version 1 response: result is not JSON: %w", err)
	}
	return append(b, text...), nil
}

// ParseResult reads the data of a response, as Packet.Text or Session.Open gives
// it. It takes the three members and no other, once each: since nothing but the
// form of encrypted data tells it from junk, this is strict.
func ParseResult(text []byte) (*Result, error) {
	r := new(Result)
	has := make(map[string]bool)
	end, err := wire.ScanObject(text, 0, &limits, func(name, value []byte) (err error) {
		has[string(name)] = true
		switch string(name) {
		case "status":
			r.Status, err = strconv.ParseUint(string(value), 10, 64)
		case "msg":
			err = json.Unmarshal(value, &r.Msg)
			if value[0] != '"' {
				err = malformed("msg is no string")
			}
		case "result":
			r.Result = append(json.RawMessage(nil), value...)
		default:
			err = malformed("unknown member %.20q", name)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, malformed("response: %w", err)
	case len(has) != 3:
		return nil, malformed("response: status, msg and result are not all there")
	}
	for _, c := range text[end:] {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return nil, malformed("response: more than one value")
		}
	}
	return r, nil
}
