package main

import (
	"errors"
	"reflect"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/owtp-go/owtp/codec"
)

// CBOR is the data format "cbor" (RFC 8949). Struct tags are those of JSON.
type CBOR struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

// NewCBOR returns the format, with the bounds and the rules that all data has:
// nothing that two readers could understand differently.
func NewCBOR() (f CBOR, err error) {
	if f.enc, err = (cbor.EncOptions{Sort: cbor.SortBytewiseLexical, TagsMd: cbor.TagsForbidden}).EncMode(); err != nil {
		return f, err
	}
	f.dec, err = cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive, DefaultMapType: reflect.TypeFor[map[string]any](),
		MaxNestedLevels: 63, MaxMapPairs: 100_000, MaxArrayElements: 1_000_000,
		TagsMd: cbor.TagsForbidden, NaN: cbor.NaNDecodeForbidden, Inf: cbor.InfDecodeForbidden,
	}.DecMode()
	return f, err
}

func (CBOR) Name() string                    { return "cbor" }
func (CBOR) ContentType() string             { return "application/cbor" }
func (f CBOR) Marshal(v any) ([]byte, error) { return f.enc.Marshal(v) }

func (f CBOR) Unmarshal(data []byte, v any) error {
	err := f.dec.Unmarshal(data, v)
	if e := new(cbor.UnmarshalTypeError); errors.As(err, &e) {
		field := e.StructFieldName // as in "main.Order.customer"
		return &codec.Error{Field: field[strings.LastIndexByte(field, '.')+1:], Msg: e.CBORType + " does not fit into " + e.GoType}
	}
	return err
}

// Check is asked before a handler runs.
func (f CBOR) Check(data []byte) error {
	var v any
	return f.dec.Unmarshal(data, &v)
}
