package codec

import (
	"encoding/base64"
	"math"
	"reflect"
	"strconv"
)

// A decoder decodes Values that have been checked into Go values, as
// encoding/json decodes the same in JSON.
type decoder struct{ types *types }

func (d *decoder) value(b []byte, v reflect.Value) error {
	n, err := read(b)
	if err != nil {
		return err
	}
	return d.node(&n, b, v)
}

// scalar is value for what isScalar says.
func (d *decoder) scalar(b []byte, v reflect.Value) error {
	n, err := read(b)
	if err != nil || n.tag == tagNull {
		return err
	}
	switch v.Kind() {
	case reflect.Bool:
		return d.boolean(&n, v)
	case reflect.String:
		return d.text(&n, b, v)
	}
	return d.number(&n, v)
}

func (d *decoder) boolean(n *node, v reflect.Value) error {
	if n.tag != tagBool {
		return misfit(n, v.Type())
	}
	v.SetBool(n.num == 1)
	return nil
}

func (d *decoder) node(n *node, b []byte, v reflect.Value) error {
	t := v.Type()
	if t.Kind() != reflect.Interface && decodesItself(t) {
		return d.viaJSON(b, v)
	}
	if n.tag == tagNull {
		switch t.Kind() {
		case reflect.Interface, reflect.Pointer, reflect.Map, reflect.Slice:
			v.SetZero()
		}
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(t.Elem()))
		}
		return d.node(n, b, v.Elem())
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return misfit(n, t)
		}
		x, err := anyOf(n)
		if err == nil {
			v.Set(reflect.ValueOf(&x).Elem())
		}
		return err
	case reflect.Bool:
		return d.boolean(n, v)
	case reflect.String:
		return d.text(n, b, v)
	case reflect.Slice, reflect.Array:
		return d.list(n, v)
	case reflect.Map:
		return d.mapValue(n, b, v)
	case reflect.Struct:
		return d.structValue(n, b, v)
	}
	return d.number(n, v)
}

// misfit says that a value is of another kind than its place.
func misfit(n *node, t reflect.Type) error {
	what := kindNames[n.tag]
	switch n.tag {
	case tagInteger:
		what = "number " + strconv.FormatInt(n.integer(), 10)
	case tagUnsigned:
		what = "number " + strconv.FormatUint(n.num, 10)
	case tagNumber:
		what = "number " + string(appendNumber(nil, n.float()))
	}
	return errorf("%s does not fit into %s", what, t)
}

func (d *decoder) number(n *node, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, ok := n.int64()
		if !ok || v.OverflowInt(i) {
			return misfit(n, v.Type())
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		u, ok := n.uint64()
		if !ok || v.OverflowUint(u) {
			return misfit(n, v.Type())
		}
		v.SetUint(u)
	case reflect.Float32, reflect.Float64:
		f, ok := n.float64()
		if !ok || v.OverflowFloat(f) {
			return misfit(n, v.Type())
		}
		v.SetFloat(f)
	default:
		return misfit(n, v.Type())
	}
	return nil
}

// int64 returns a number that is one, whichever kind it has: what was 3.0 here is
// 3 in JSON.
func (n *node) int64() (int64, bool) {
	switch n.tag {
	case tagInteger:
		return n.integer(), true
	case tagUnsigned:
		return int64(n.num), n.num <= math.MaxInt64
	case tagNumber:
		f := n.float()
		return int64(f), f == math.Trunc(f) && f >= -1<<63 && f < 1<<63
	}
	return 0, false
}

func (n *node) uint64() (uint64, bool) {
	if n.tag == tagUnsigned {
		return n.num, true
	}
	if n.tag == tagNumber && n.float() >= 1<<63 {
		f := n.float()
		return uint64(f), f < 1<<64
	}
	i, ok := n.int64()
	return uint64(i), ok && i >= 0
}

func (n *node) float64() (float64, bool) {
	switch n.tag {
	case tagInteger:
		return float64(n.integer()), true
	case tagUnsigned:
		return float64(n.num), true
	case tagNumber:
		return n.float(), true
	}
	return 0, false
}

func (d *decoder) text(n *node, b []byte, v reflect.Value) error {
	switch {
	case n.tag == tagText && v.Type() != numberType:
		v.SetString(string(n.oct))
	case n.tag == tagOctets && v.Type() != numberType: // JSON has no octets
		v.SetString(base64.StdEncoding.EncodeToString(n.oct))
	case v.Type() == numberType && n.tag >= tagInteger && n.tag <= tagNumber:
		return d.viaJSON(b, v)
	default:
		return misfit(n, v.Type())
	}
	return nil
}

func (d *decoder) list(n *node, v reflect.Value) error {
	t := v.Type()
	if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 && (n.tag == tagOctets || n.tag == tagText) {
		oct := append([]byte{}, n.oct...)
		if n.tag == tagText {
			var err error
			if oct, err = base64.StdEncoding.AppendDecode([]byte{}, n.oct); err != nil {
				return errorf("text that is no base64 does not fit into %s", t)
			}
		}
		v.SetBytes(oct)
		return nil
	}
	if n.tag != tagList {
		return misfit(n, t)
	}
	count := 0
	for b := n.oct; len(b) > 0; count++ {
		_, rest, err := element(b)
		if err != nil {
			return err
		}
		b = rest
	}
	if t.Kind() == reflect.Slice {
		v.Set(reflect.MakeSlice(t, count, count))
	} else {
		v.SetZero()
	}
	decode := d.value
	if isScalar(t.Elem()) {
		decode = d.scalar
	} else if t.Elem().Kind() == reflect.Struct && !decodesItself(t.Elem()) {
		decode = d.aStruct(d.types.of(t.Elem()))
	}
	b := n.oct
	for i := range min(count, v.Len()) { // an array drops what has no room, as in encoding/json
		inner, rest, _ := element(b)
		if err := decode(inner, v.Index(i)); err != nil {
			return within(strconv.Itoa(i), err)
		}
		b = rest
	}
	return nil
}

func (d *decoder) mapValue(n *node, b []byte, v reflect.Value) error {
	t := v.Type()
	if n.tag != tagMap {
		return misfit(n, t)
	}
	if t.Key().Kind() != reflect.String || decodesItself(t.Key()) {
		return d.viaJSON(b, v)
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(t))
	}
	for b := n.oct; len(b) > 0; {
		name, inner, rest, err := member(b)
		if err != nil {
			return err
		}
		elem := reflect.New(t.Elem()).Elem()
		if err := d.value(inner, elem); err != nil {
			return within(string(name), err)
		}
		v.SetMapIndex(reflect.ValueOf(string(name)).Convert(t.Key()), elem)
		b = rest
	}
	return nil
}

func (d *decoder) structValue(n *node, b []byte, v reflect.Value) error {
	return d.members(n, b, v, d.types.of(v.Type()))
}

// aStruct is value for structs of one type that do not decode themselves.
func (d *decoder) aStruct(s *structType) func([]byte, reflect.Value) error {
	return func(b []byte, v reflect.Value) error {
		n, err := read(b)
		if err != nil || n.tag == tagNull {
			return err
		}
		return d.members(&n, b, v, s)
	}
}

func (d *decoder) members(n *node, b []byte, v reflect.Value, s *structType) error {
	if n.tag != tagMap {
		return misfit(n, v.Type())
	}
	if s.viaJSON {
		return d.viaJSON(b, v)
	}
	next := 0
	for b := n.oct; len(b) > 0; {
		name, inner, rest, err := member(b)
		if err != nil {
			return err
		}
		f, err := s.field(name, next)
		if err != nil {
			return err
		}
		if next++; f != nil { // what the struct does not have is passed over
			if f.scalar {
				err = d.scalar(inner, v.Field(f.index))
			} else {
				err = d.value(inner, v.Field(f.index))
			}
			if err != nil {
				return within(f.name, err)
			}
		}
		b = rest
	}
	return nil
}

// viaJSON decodes as encoding/json does.
func (d *decoder) viaJSON(b []byte, v reflect.Value) error {
	text, err := appendJSON(nil, b)
	if err != nil {
		return err
	}
	return jsonFormat{}.decode(text, v.Addr().Interface())
}

// anyOf is a Value without a type to fit into. Integers are int64, or uint64 if
// only that holds them, other numbers float64.
func anyOf(n *node) (any, error) {
	switch n.tag {
	case tagBool:
		return n.num == 1, nil
	case tagInteger:
		return n.integer(), nil
	case tagUnsigned:
		if i, ok := n.int64(); ok { // others may write small ones so
			return i, nil
		}
		return n.num, nil
	case tagNumber:
		return n.float(), nil
	case tagText:
		return string(n.oct), nil
	case tagOctets:
		return append([]byte{}, n.oct...), nil
	case tagList:
		out := []any{}
		for b := n.oct; len(b) > 0; {
			v, rest, err := element(b)
			if err != nil {
				return nil, err
			}
			x, err := anyIn(v)
			if err != nil {
				return nil, err
			}
			out, b = append(out, x), rest
		}
		return out, nil
	case tagMap:
		out := make(map[string]any)
		for b := n.oct; len(b) > 0; {
			name, v, rest, err := member(b)
			if err != nil {
				return nil, err
			}
			if out[string(name)], err = anyIn(v); err != nil {
				return nil, err
			}
			b = rest
		}
		return out, nil
	}
	return nil, nil
}

func anyIn(b []byte) (any, error) {
	n, err := read(b)
	if err != nil {
		return nil, err
	}
	return anyOf(&n)
}
