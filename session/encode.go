package session

import (
	"encoding"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"time"
)

// encodeValue writes a value with its type. Behind the type stand numbers as
// varints, floats as their bits, text and octets behind their length, and lists
// and maps behind their length plus one, so that nil and empty stay apart.
func encodeValue(v any, limit int) ([]byte, error) {
	e := encoder{limit: limit}
	if err := e.any(reflect.ValueOf(v), 0); err != nil {
		return nil, err
	}
	return e.buf, nil
}

type encoder struct {
	buf   []byte
	limit int
}

// room fails before n more octets would make the value too large.
func (e *encoder) room(n int) error {
	if n > e.limit-len(e.buf) {
		return fmt.Errorf("%w: it has more than %d bytes", ErrTooLarge, e.limit)
	}
	return nil
}

func (e *encoder) any(v reflect.Value, depth int) error {
	if err := e.room(1); err != nil {
		return err
	}
	if !v.IsValid() {
		e.buf = append(e.buf, kindNil)
		return nil
	}
	b, err := describe(e.buf, v.Type(), 0)
	if err != nil {
		return err
	}
	if v.Type().Name() == "" {
		remember(b[len(e.buf):], v.Type())
	}
	e.buf = b
	return e.value(v, depth)
}

func (e *encoder) value(v reflect.Value, depth int) error {
	if depth > maxValueDepth {
		return fmt.Errorf("%w: nested deeper than %d, or a cycle", ErrUnstorable, maxValueDepth)
	}
	// 16 octets hold any scalar but strings.
	if err := e.room(16); err != nil {
		return err
	}
	t := v.Type()
	if t == typeTime {
		data, err := v.Interface().(time.Time).MarshalBinary()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnstorable, err)
		}
		return e.octets(data)
	}
	if _, basic := basicKinds[t]; !basic && t.Name() != "" && t != typeAny {
		n := lookupType(t)
		if n == nil {
			return unstorable(t)
		}
		if n.form != formPlain {
			return e.named(n, v, depth)
		}
	}
	return e.kind(v, depth)
}

func (e *encoder) kind(v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Bool:
		b := byte(0)
		if v.Bool() {
			b = 1
		}
		e.buf = append(e.buf, b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.buf = binary.AppendVarint(e.buf, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.buf = binary.AppendUvarint(e.buf, v.Uint())
	case reflect.Float32:
		e.buf = binary.BigEndian.AppendUint32(e.buf, math.Float32bits(float32(v.Float())))
	case reflect.Float64:
		e.buf = binary.BigEndian.AppendUint64(e.buf, math.Float64bits(v.Float()))
	case reflect.Complex64, reflect.Complex128:
		c := v.Complex()
		e.buf = binary.BigEndian.AppendUint64(e.buf, math.Float64bits(real(c)))
		e.buf = binary.BigEndian.AppendUint64(e.buf, math.Float64bits(imag(c)))
	case reflect.String:
		return e.octets([]byte(v.String()))
	case reflect.Interface:
		return e.any(v.Elem(), depth+1)
	case reflect.Pointer:
		if v.IsNil() {
			e.buf = append(e.buf, 0)
			return nil
		}
		e.buf = append(e.buf, 1)
		return e.value(v.Elem(), depth+1)
	case reflect.Slice:
		return e.slice(v, depth)
	case reflect.Array:
		return e.elements(v, depth)
	case reflect.Map:
		return e.mapping(v, depth)
	default:
		return unstorable(v.Type())
	}
	return nil
}

func (e *encoder) octets(data []byte) error {
	if err := e.room(len(data) + binary.MaxVarintLen64); err != nil {
		return err
	}
	e.buf = append(binary.AppendUvarint(e.buf, uint64(len(data))), data...)
	return nil
}

func (e *encoder) slice(v reflect.Value, depth int) error {
	if v.IsNil() {
		e.buf = append(e.buf, 0)
		return nil
	}
	e.buf = binary.AppendUvarint(e.buf, uint64(v.Len())+1)
	if v.Type().Elem() == basicTypes[kindUint8] {
		if err := e.room(v.Len()); err != nil {
			return err
		}
		e.buf = append(e.buf, v.Bytes()...)
		return nil
	}
	return e.elements(v, depth)
}

func (e *encoder) elements(v reflect.Value, depth int) error {
	for i := range v.Len() {
		if err := e.value(v.Index(i), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (e *encoder) mapping(v reflect.Value, depth int) error {
	if v.IsNil() {
		e.buf = append(e.buf, 0)
		return nil
	}
	e.buf = binary.AppendUvarint(e.buf, uint64(v.Len())+1)
	for it := v.MapRange(); it.Next(); {
		if err := e.value(it.Key(), depth+1); err != nil {
			return err
		}
		if err := e.value(it.Value(), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (e *encoder) named(n *namedType, v reflect.Value, depth int) error {
	if n.form == formStruct {
		e.buf = binary.AppendUvarint(e.buf, uint64(len(n.fields)))
		for _, f := range n.fields {
			if err := e.octets([]byte(f.name)); err != nil {
				return err
			}
			b, err := describe(e.buf, f.typ, 0)
			if err != nil {
				return err
			}
			e.buf = b
			if err := e.value(v.Field(f.index), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	// The marshaller may have a pointer receiver; v need not be addressable.
	p := reflect.New(n.typ)
	p.Elem().Set(v)
	var data []byte
	var err error
	if n.form == formBinary {
		data, err = p.Interface().(encoding.BinaryMarshaler).MarshalBinary()
	} else {
		data, err = p.Interface().(encoding.TextMarshaler).MarshalText()
	}
	if err != nil {
		return fmt.Errorf("%w: %v: %w", ErrUnstorable, n.typ, err)
	}
	return e.octets(data)
}
