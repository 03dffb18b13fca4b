package session

import (
	"encoding"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"time"
)

// decodeValue reads what encodeValue wrote. It never panics and never takes
// much more memory than the data: every element of a list or map has at least
// one octet, and lists grow as their elements are read.
func decodeValue(data []byte) (any, error) {
	d := decoder{rest: data}
	v, err := d.any(0)
	if err != nil {
		return nil, err
	}
	if len(d.rest) > 0 {
		return nil, d.corrupt("%d bytes follow the value", len(d.rest))
	}
	if !v.IsValid() {
		return nil, nil
	}
	return v.Interface(), nil
}

// any reads a value with its type; the zero Value is nil.
func (d *decoder) any(depth int) (reflect.Value, error) {
	t, err := d.readType()
	if err != nil || t == nil {
		return reflect.Value{}, err
	}
	if t == typeAny {
		return reflect.Value{}, d.corrupt("a value without a type of its own")
	}
	v := reflect.New(t).Elem()
	return v, d.value(v, depth)
}

// value reads into v, which is settable and zero.
func (d *decoder) value(v reflect.Value, depth int) error {
	if depth > maxValueDepth {
		return d.corrupt("nested deeper than %d", maxValueDepth)
	}
	t := v.Type()
	if t == typeTime {
		return d.time(v)
	}
	if _, basic := basicKinds[t]; !basic && t.Name() != "" && t != typeAny {
		n := lookupType(t)
		if n == nil {
			return unstorable(t)
		}
		switch n.form {
		case formStruct:
			return d.structure(n, v, depth)
		case formBinary, formText:
			return d.marshaled(n, v)
		}
	}
	return d.kind(v, depth)
}

func (d *decoder) kind(v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Slice:
		return d.slice(v, depth)
	case reflect.Array:
		for i := range v.Len() {
			if err := d.value(v.Index(i), depth+1); err != nil {
				return err
			}
		}
		return nil
	case reflect.Map:
		return d.mapping(v, depth)
	case reflect.Pointer:
		b, err := d.octet()
		if err != nil || b == 0 {
			return err
		}
		if b != 1 {
			return d.corrupt("bad pointer")
		}
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem(), depth+1)
	case reflect.Interface:
		elem, err := d.any(depth + 1)
		if err == nil && elem.IsValid() {
			v.Set(elem)
		}
		return err
	}
	return d.scalar(v)
}

func (d *decoder) scalar(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Bool:
		b, err := d.octet()
		if b > 1 {
			return d.corrupt("bad boolean")
		}
		v.SetBool(b == 1)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, n := binary.Varint(d.rest)
		if n <= 0 || v.OverflowInt(i) {
			return d.corrupt("bad %v", v.Type())
		}
		d.rest = d.rest[n:]
		v.SetInt(i)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := d.uvarint()
		if err != nil || v.OverflowUint(u) {
			return d.corrupt("bad %v", v.Type())
		}
		v.SetUint(u)
	case reflect.Float32:
		b, err := d.take(4)
		if err != nil {
			return err
		}
		v.SetFloat(float64(math.Float32frombits(binary.BigEndian.Uint32(b))))
	case reflect.Float64:
		b, err := d.take(8)
		if err != nil {
			return err
		}
		v.SetFloat(math.Float64frombits(binary.BigEndian.Uint64(b)))
	case reflect.Complex64, reflect.Complex128:
		b, err := d.take(16)
		if err != nil {
			return err
		}
		v.SetComplex(complex(math.Float64frombits(binary.BigEndian.Uint64(b)), math.Float64frombits(binary.BigEndian.Uint64(b[8:]))))
	case reflect.String:
		b, err := d.name(len(d.rest))
		v.SetString(string(b))
		return err
	default:
		return unstorable(v.Type())
	}
	return nil
}

func (d *decoder) slice(v reflect.Value, depth int) error {
	n, ok, err := d.length()
	if err != nil || !ok {
		return err
	}
	t := v.Type()
	if t.Elem() == basicTypes[kindUint8] {
		b, err := d.take(uint64(n))
		if err != nil {
			return err
		}
		v.SetBytes(append(make([]byte, 0, n), b...)) // the record is shared, the value is the caller's
		return nil
	}
	v.Set(reflect.MakeSlice(t, 0, min(n, 64)))
	for i := range n {
		if i == v.Cap() {
			v.Grow(1)
		}
		v.SetLen(i + 1)
		if err := d.value(v.Index(i), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) mapping(v reflect.Value, depth int) error {
	n, ok, err := d.length()
	if err != nil || !ok {
		return err
	}
	t := v.Type()
	v.Set(reflect.MakeMapWithSize(t, min(n, 64)))
	for range n {
		key, elem := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if err := d.value(key, depth+1); err != nil {
			return err
		}
		if err := d.value(elem, depth+1); err != nil {
			return err
		}
		if v.MapIndex(key).IsValid() {
			return d.corrupt("a map has a key twice")
		}
		v.SetMapIndex(key, elem)
	}
	return nil
}

func (d *decoder) time(v reflect.Value) error {
	b, err := d.name(64)
	if err != nil {
		return err
	}
	var t time.Time
	if err := t.UnmarshalBinary(b); err != nil {
		return d.corrupt("%v", err)
	}
	v.Set(reflect.ValueOf(t))
	return nil
}

// structure reads fields by name: one that the type no longer has is skipped,
// one that the data does not have yet stays zero.
func (d *decoder) structure(n *namedType, v reflect.Value, depth int) error {
	count, err := d.uvarint()
	if err != nil || count > uint64(len(d.rest)) {
		return d.corrupt("bad number of fields")
	}
	for range count {
		name, err := d.name(len(d.rest))
		if err != nil {
			return err
		}
		t, err := d.readType()
		if err != nil {
			return err
		}
		if t == nil {
			return d.corrupt("field %.80q has no type", name)
		}
		target := reflect.New(t).Elem()
		if i, ok := n.byName[string(name)]; ok {
			f := n.fields[i]
			if f.typ != t {
				return fmt.Errorf("%w: field %s of %v is %v here and %v in the record", ErrUnstorable, f.name, n.typ, f.typ, t)
			}
			target = v.Field(f.index)
			if !target.IsZero() {
				return d.corrupt("field %s is there twice", f.name)
			}
		}
		if err := d.value(target, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) marshaled(n *namedType, v reflect.Value) (err error) {
	data, err := d.name(len(d.rest))
	if err != nil {
		return err
	}
	// The type's own code reads what somebody else may have written.
	defer func() {
		if r := recover(); r != nil {
			err = d.corrupt("reading a %v panicked: %v", n.typ, r)
		}
	}()
	data = append([]byte(nil), data...)
	if n.form == formBinary {
		err = v.Addr().Interface().(encoding.BinaryUnmarshaler).UnmarshalBinary(data)
	} else {
		err = v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText(data)
	}
	if err != nil {
		return d.corrupt("%v: %v", n.typ, err)
	}
	return nil
}
