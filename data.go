package owtp

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tidwall/gjson"

	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/internal/wire"
)

// The data of packets: parameters, results and the details of errors, in the
// format that the caller chose.

// encodeData turns a value into octets of a format.
func encodeData(f codec.Format, v any) ([]byte, error) {
	if r, ok := v.(gjson.Result); ok {
		v = json.RawMessage(r.Raw)
	}
	data, err := codec.Encode(f, v)
	if _, encoded := v.(json.RawMessage); encoded && err != nil {
		return nil, newError(ErrBadRequest, "the JSON that was given cannot be sent as %s: %w", f.Name(), err)
	}
	if err != nil {
		return nil, newError(ErrBadRequest, "value of type %T does not encode as %s: %w", v, f.Name(), err)
	}
	return data, nil
}

// logPanic reports whether an error is a panic of the program's own code, and logs
// it if so: a peer is told nothing of it.
func (n *OWTPNode) logPanic(err error, method string) bool {
	if err == nil {
		return false
	}
	var p *codec.PanicError
	if !errors.As(err, &p) {
		return false
	}
	n.log.Error("the program's code for data panicked", "method", method, "panic", p.Value, "stack", string(p.Stack))
	return true
}

// formatOf finds the format of a packet's data and refuses data that is not well
// formed. That of JSON was looked at when the packet was read.
func (n *OWTPNode) formatOf(p *wire.Packet) (codec.Format, *refusal) {
	f, err := codec.Lookup(p.Format)
	if err != nil {
		return nil, refuse(ErrUnsupportedType, 0, err.Error())
	}
	if p.Format != "" && len(p.Data) > 0 {
		if err := codec.Check(f, p.Data); n.logPanic(err, p.Method) {
			return nil, refuse(ErrInternalServerError, 0, "the data could not be checked")
		} else if err != nil {
			return nil, refuse(ErrBadRequest, 0, clip(fmt.Sprintf("the data is not acceptable %s: %v", f.Name(), err), 512))
		}
	}
	return f, nil
}

// wireFormat is a format's name as packets have it.
func wireFormat(f codec.Format) string {
	if name := f.Name(); name != wire.FormatJSON {
		return name
	}
	return ""
}

// formatTo returns the name of the format that calls to a peer have if nothing
// else is asked for.
func (n *OWTPNode) formatTo(pid string) string {
	if r := n.remoteOf(pid); r != nil {
		return r.spec().DataFormat
	}
	if l := n.linkOf(pid); l != nil {
		if l.v1 != nil {
			return wire.FormatJSON
		}
		return l.peer.config.DataFormat
	}
	if r := n.callerOf(pid); r != nil {
		return r.spec().DataFormat
	}
	return wire.FormatJSON
}

// resultOf makes what a caller gets of an answer's data. It must be as the request
// was, but for the null of refusals, which know nothing of formats.
func (n *OWTPNode) resultOf(req, resp *wire.Packet) (any, error) {
	if len(resp.Data) == 0 || resp.Format == "" && string(resp.Data) == "null" {
		return json.RawMessage("null"), nil
	}
	if req == nil || resp.Format != req.Format {
		return nil, newError(ErrResponseMethodDiffer, "the answer's data has the format %.40q, which nobody asked for", cmp.Or(resp.Format, wire.FormatJSON))
	}
	if resp.Format == "" {
		return json.RawMessage(resp.Data), nil
	}
	f, refused := n.formatOf(resp)
	if refused != nil {
		return nil, newError(ErrResponseMethodDiffer, "the answer cannot be read: %s", refused.msg)
	}
	return codec.Raw{Format: f.Name(), Data: resp.Data}, nil
}

// jsonOf returns a value for reading by path; one that does not encode is empty.
func jsonOf(v any) gjson.Result {
	switch v := v.(type) {
	case nil:
		return gjson.Result{}
	case json.RawMessage:
		return gjson.ParseBytes(v)
	case gjson.Result:
		return v
	}
	text, err := codec.Encode(codec.JSON(), v)
	if err != nil {
		return gjson.Result{}
	}
	return gjson.ParseBytes(text)
}

// isNull reports whether data, as it came, is null. No format needs more than a
// few octets to say so.
func isNull(v any) bool {
	switch d := v.(type) {
	case nil:
		return true
	case json.RawMessage:
		return string(d) == "null"
	case codec.Raw:
		if len(d.Data) <= 16 {
			if f, err := codec.Lookup(d.Format); err == nil {
				text, err := codec.ToJSON(f, d.Data)
				return err == nil && string(text) == "null"
			}
		}
	}
	return false
}

// decodeValue decodes what encodes to data, or is data already, into what to
// points to. sound says that it was checked when it came.
func decodeValue(v any, sound bool, to any) error {
	switch d := v.(type) {
	case json.RawMessage:
		return codec.Decode(codec.JSON(), d, to)
	case codec.Raw:
		f, err := codec.Lookup(d.Format)
		if err != nil {
			return err
		}
		if !sound {
			if err := codec.Check(f, d.Data); err != nil {
				return err
			}
		}
		return codec.Decode(f, d.Data, to)
	}
	f := codec.Protobuf() // keeps integers and octets what they are
	data, err := encodeData(f, v)
	if err != nil {
		return err
	}
	return codec.Decode(f, data, to)
}
