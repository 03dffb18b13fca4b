package codec

import (
	"cmp"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/owtp-go/owtp/internal/wire"
)

// An encoder appends Values. Lengths are written once what they count is there:
// most take the one octet that was left for them, and the others move what
// follows by one to four.
type encoder struct {
	b        []byte
	left     int
	pointers int // being followed; more than that many point to themselves
	types    *types
}

const maxPointers = 1000

// open begins something that has a length; close ends it.
func (e *encoder) open(tag byte) (at int) {
	e.b = append(e.b, tag, 0)
	return len(e.b)
}

func (e *encoder) close(at int) {
	n := len(e.b) - at
	if n < 0x80 {
		e.b[at-1] = byte(n)
		return
	}
	more := protowire.SizeVarint(uint64(n)) - 1
	e.b = append(e.b, "0000"[:more]...)
	copy(e.b[at+more:], e.b[at:at+n])
	protowire.AppendVarint(e.b[:at-1], uint64(n))
}

func (e *encoder) octets(tag byte, v []byte) {
	e.b = append(e.b, tag)
	e.b = protowire.AppendBytes(e.b, v)
}

func (e *encoder) text(tag byte, v string) error {
	if !utf8.ValidString(v) {
		return errorf("text that is not valid UTF-8; octets are a []byte")
	}
	e.b = append(e.b, tag)
	e.b = protowire.AppendString(e.b, v)
	return nil
}

func (e *encoder) integer(v int64) {
	e.b = append(e.b, tagInteger)
	e.b = protowire.AppendVarint(e.b, protowire.EncodeZigZag(v))
}

// unsigned writes an integer as the kind that all integers have, if it fits.
func (e *encoder) unsigned(v uint64) {
	if v <= math.MaxInt64 {
		e.integer(int64(v))
		return
	}
	e.b = append(e.b, tagUnsigned)
	e.b = protowire.AppendVarint(e.b, v)
}

func (e *encoder) number(v float64) error {
	if notFinite(v) {
		return errorf("the number %v has no place in data", v)
	}
	e.b = append(e.b, tagNumber)
	e.b = protowire.AppendFixed64(e.b, math.Float64bits(v))
	return nil
}

func (e *encoder) null() { e.b = append(e.b, tagNull, 0) }

// value appends what a Go value is as a Value. depth is how many lists and maps
// may still nest.
func (e *encoder) value(v reflect.Value, depth int) error {
	if e.left--; e.left < 0 {
		return errorf("more than %d values", wire.MaxValues)
	}
	if !v.IsValid() {
		e.null()
		return nil
	}
	t := v.Type()
	if t.NumMethod() > 0 && t.Kind() != reflect.Interface && encodesItself(t) {
		if t.Kind() == reflect.Pointer && v.IsNil() {
			e.null()
			return nil
		}
		return e.viaJSON(v, depth)
	}
	if v.CanAddr() && t.Kind() != reflect.Interface && encodesItself(reflect.PointerTo(t)) {
		return e.viaJSON(v.Addr(), depth)
	}
	switch t.Kind() {
	case reflect.Bool:
		e.b = append(e.b, tagBool, 0)
		if v.Bool() {
			e.b[len(e.b)-1] = 1
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.integer(v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		e.unsigned(v.Uint())
	case reflect.Float32: // its own shortest text, as encoding/json has it
		f, _ := strconv.ParseFloat(strconv.FormatFloat(v.Float(), 'g', -1, 32), 64)
		return e.number(f)
	case reflect.Float64:
		return e.number(v.Float())
	case reflect.String:
		if t == numberType {
			return e.viaJSON(v, depth)
		}
		return e.text(tagText, v.String())
	default:
		return e.composite(v, depth)
	}
	return nil
}

func (e *encoder) composite(v reflect.Value, depth int) error {
	t := v.Type()
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice:
		if v.IsNil() {
			e.null()
			return nil
		}
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface:
		if e.pointers++; e.pointers > maxPointers {
			return errorf("it points to itself")
		}
		defer func() { e.pointers-- }()
		e.left++ // it is the one value
		return e.value(v.Elem(), depth)
	case reflect.Slice, reflect.Array:
		if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 && !encodesItself(reflect.PointerTo(t.Elem())) {
			e.octets(tagOctets, v.Bytes())
			return nil
		}
		return e.list(v, depth)
	case reflect.Map:
		if t.Key().Kind() != reflect.String || encodesItself(t.Key()) {
			return e.viaJSON(v, depth)
		}
		return e.mapValue(v, depth)
	case reflect.Struct:
		s := e.types.of(t)
		if s.viaJSON {
			return e.viaJSON(v, depth)
		}
		return e.structValue(v, s, depth)
	}
	return errorf("a %s has no place in data", t)
}

// viaJSON encodes as encoding/json does.
func (e *encoder) viaJSON(v reflect.Value, depth int) error {
	text, err := json.Marshal(v.Interface())
	if err != nil {
		return err
	}
	return e.valueOfJSON(text, depth)
}

// valueOfJSON checks JSON that somebody else has written and appends it.
func (e *encoder) valueOfJSON(text []byte, depth int) error {
	if err := wire.ValidJSON(text, &wire.ScanLimits{Depth: max(depth, 1), Members: wire.MaxMembers, Total: max(e.left, 1)}); err != nil {
		return err
	}
	e.left++ // it has been counted
	_, err := e.json(text, 0, depth)
	return err
}

func (e *encoder) list(v reflect.Value, depth int) error {
	if depth == 0 {
		return errorf("nested deeper than %d", maxDepth)
	}
	encode := e.value
	if t := v.Type().Elem(); t.Kind() == reflect.Struct && !encodesItself(reflect.PointerTo(t)) {
		if s := e.types.of(t); !s.viaJSON {
			encode = func(v reflect.Value, depth int) error {
				if e.left--; e.left < 0 {
					return errorf("more than %d values", wire.MaxValues)
				}
				return e.structValue(v, s, depth)
			}
		}
	}
	outer := e.open(tagList)
	for i := range v.Len() {
		inner := e.open(tagFirst)
		if err := encode(v.Index(i), depth-1); err != nil {
			return within(strconv.Itoa(i), err)
		}
		e.close(inner)
	}
	e.close(outer)
	return nil
}

// mapValue sorts the members, as encoding/json does: a call that is made again
// must have the same octets.
func (e *encoder) mapValue(v reflect.Value, depth int) error {
	if depth == 0 {
		return errorf("nested deeper than %d", maxDepth)
	}
	if v.Len() > wire.MaxMembers {
		return errorf("more than %d members in one map", wire.MaxMembers)
	}
	type pair struct {
		name  string
		value reflect.Value
	}
	pairs := make([]pair, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		pairs = append(pairs, pair{it.Key().String(), it.Value()})
	}
	slices.SortFunc(pairs, func(a, b pair) int { return cmp.Compare(a.name, b.name) })
	outer := e.open(tagMap)
	for _, p := range pairs {
		if err := e.member(p.name, p.value, depth-1); err != nil {
			return err
		}
	}
	e.close(outer)
	return nil
}

func (e *encoder) structValue(v reflect.Value, s *structType, depth int) error {
	if depth == 0 {
		return errorf("nested deeper than %d", maxDepth)
	}
	outer := e.open(tagMap)
	for i := range s.fields {
		f := &s.fields[i]
		inner := v.Field(f.index)
		if f.omitEmpty && isEmpty(inner) || f.omitZero && inner.IsZero() {
			continue
		}
		if f.scalar {
			if err := e.scalar(f, inner); err != nil {
				return within(f.name, err)
			}
			continue
		}
		if err := e.member(f.name, inner, depth-1); err != nil {
			return err
		}
	}
	e.close(outer)
	return nil
}

// scalar is member for what isScalar says, whose length is known beforehand.
func (e *encoder) scalar(f *structField, v reflect.Value) error {
	if e.left--; e.left < 0 {
		return errorf("more than %d values", wire.MaxValues)
	}
	var n uint64 // what is behind the tag, if it is a number
	tag := byte(tagInteger)
	switch v.Kind() {
	case reflect.String:
		s := v.String()
		e.head(f, 1+protowire.SizeBytes(len(s)))
		return e.text(tagText, s)
	case reflect.Float64:
		e.head(f, 9)
		return e.number(v.Float())
	case reflect.Bool:
		if tag = tagBool; v.Bool() {
			n = 1
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n = protowire.EncodeZigZag(v.Int())
	default:
		if n = v.Uint(); n > math.MaxInt64 {
			tag = tagUnsigned
		} else {
			n = protowire.EncodeZigZag(int64(n))
		}
	}
	e.head(f, 1+protowire.SizeVarint(n))
	e.b = append(e.b, tag)
	e.b = protowire.AppendVarint(e.b, n)
	return nil
}

// head begins a member whose value has so many octets.
func (e *encoder) head(f *structField, size int) {
	e.b = append(e.b, tagFirst)
	e.b = protowire.AppendVarint(e.b, uint64(len(f.head)+protowire.SizeBytes(size)))
	e.b = append(e.b, f.head...)
	e.b = protowire.AppendVarint(e.b, uint64(size))
}

func (e *encoder) member(name string, v reflect.Value, depth int) error {
	entry := e.open(tagFirst)
	if err := e.text(tagFirst, name); err != nil {
		return err
	}
	inner := e.open(tagSecond)
	if err := e.value(v, depth); err != nil {
		return within(name, err)
	}
	e.close(inner)
	e.close(entry)
	return nil
}

// isEmpty is what encoding/json leaves out for omitempty.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}
