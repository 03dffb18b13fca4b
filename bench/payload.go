package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/owtp-go/owtp/bench/benchpb"
)

// A format is what a call carries, and what a program that is given nothing but
// octets does with it: once to write a value and once to read it, on each side.
type format struct {
	name   string
	sample func(octets int) any // encodes to that many octets
	encode func(v any) ([]byte, error)
	decode func(data []byte) (any, error)
}

var (
	formatRaw = &format{
		name:   "raw",
		sample: func(n int) any { return bytes.Repeat([]byte{0xa5}, n) },
		encode: func(v any) ([]byte, error) { return v.([]byte), nil },
		decode: func(b []byte) (any, error) { return b, nil },
	}
	// JSON stays text: it is checked by who reads it and never taken apart.
	formatJSON = &format{
		name:   "json",
		sample: func(n int) any { return json.RawMessage(jsonPayload(n)) },
		encode: func(v any) ([]byte, error) { return v.(json.RawMessage), nil },
		decode: func(b []byte) (any, error) {
			if !json.Valid(b) {
				return nil, fmt.Errorf("%d octets that are no JSON", len(b))
			}
			return json.RawMessage(b), nil
		},
	}
	// Protobuf messages are taken apart and put together on both sides.
	formatProto = &format{
		name:   "pb",
		sample: func(n int) any { return protoPayload(n) },
		encode: func(v any) ([]byte, error) { return proto.Marshal(v.(proto.Message)) },
		decode: func(b []byte) (any, error) {
			m := new(benchpb.Payload)
			return m, proto.Unmarshal(b, m)
		},
	}
	formats = []*format{formatRaw, formatJSON, formatProto}

	// Structs are taken apart and put together on both sides, too: one value, of
	// so many octets in JSON, in each of this library's formats.
	formatStructJSON = &format{name: "struct-json", sample: structPayload, encode: json.Marshal, decode: decodeStruct}
	formatStructPB   = &format{name: "struct-pb", sample: structPayload, encode: json.Marshal, decode: decodeStruct}
)

type payload struct {
	Items []item `json:"items"`
	Rest  string `json:"rest"`
}

type item struct {
	ID    int64  `json:"id"`
	Name  string `json:"name,omitempty"`
	Price string `json:"price,omitempty"`
	OK    bool   `json:"ok,omitempty"`
}

// structPayload is jsonPayload for who has declared what is in it.
func structPayload(octets int) any {
	v, err := decodeStruct(jsonPayload(octets))
	if err != nil {
		panic(err) // it is ours
	}
	return v
}

func decodeStruct(b []byte) (any, error) {
	p := new(payload)
	return p, json.Unmarshal(b, p)
}

// jsonPayload is an object with a list of small objects: a single long string
// would flatter whatever reads JSON.
func jsonPayload(octets int) []byte {
	const begin, end = `{"items":[{"id":0}`, `],"rest":"`
	t := []byte(begin)
	for i := 1; ; i++ {
		item := fmt.Sprintf(`,{"id":%d,"name":"entry %d","price":"%d.50","ok":true}`, i, i, i)
		if len(t)+len(item)+len(end)+len(`"}`) > octets {
			break
		}
		t = append(t, item...)
	}
	t = append(t, end...)
	t = append(t, strings.Repeat("x", octets-len(t)-len(`"}`))...)
	return append(t, `"}`...)
}

// protoPayload has as many items as jsonPayload has room for, and the same
// number of octets in its own encoding.
func protoPayload(octets int) *benchpb.Payload {
	var asJSON struct{ Items []struct{ Id int64 } }
	if err := json.Unmarshal(jsonPayload(octets), &asJSON); err != nil {
		panic(err) // it is ours
	}
	m := new(benchpb.Payload)
	for i := range asJSON.Items {
		m.Items = append(m.Items, &benchpb.Item{Id: int64(i), Name: fmt.Sprintf("entry %d", i), Price: fmt.Sprintf("%d.50", i), Ok: true})
	}
	// The length of the rest has a length of its own.
	for rest := octets - proto.Size(m); rest > 0; rest-- {
		m.Rest = strings.Repeat("x", rest)
		if proto.Size(m) <= octets {
			break
		}
	}
	return m
}

// sameSize reports whether an answer is what was asked for, by a look that costs
// nothing beside the call.
func sameSize(got, want any) bool {
	switch w := want.(type) {
	case []byte:
		g, ok := got.([]byte)
		return ok && len(g) == len(w)
	case json.RawMessage:
		g, ok := got.(json.RawMessage)
		return ok && len(g) == len(w)
	case *payload:
		g, ok := got.(*payload)
		return ok && len(g.Items) == len(w.Items) && len(g.Rest) == len(w.Rest)
	case *benchpb.Payload:
		g, ok := got.(*benchpb.Payload)
		return ok && len(g.Items) == len(w.Items) && len(g.Rest) == len(w.Rest)
	}
	return false
}
