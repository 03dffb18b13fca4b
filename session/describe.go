package session

import (
	"encoding/binary"
	"fmt"
	"reflect"
)

// Before a value stands what describes its type: a kind, behind it the parts of
// a composite one or the length and name of a registered one.

// describe appends what describes t.
func describe(b []byte, t reflect.Type, depth int) ([]byte, error) {
	if depth > maxTypeDepth {
		return nil, fmt.Errorf("%w: type %v is nested too deep", ErrUnstorable, t)
	}
	if k, ok := basicKinds[t]; ok {
		return append(b, k), nil
	}
	if t == typeAny {
		return append(b, kindAny), nil
	}
	if t.Name() != "" {
		n := lookupType(t)
		if n == nil {
			return nil, unstorable(t)
		}
		b = binary.AppendUvarint(append(b, kindNamed), uint64(len(n.name)))
		return append(b, n.name...), nil
	}
	if isHollow(t) {
		return nil, hollow(t)
	}
	switch t.Kind() {
	case reflect.Slice:
		return describe(append(b, kindSlice), t.Elem(), depth+1)
	case reflect.Pointer:
		return describe(append(b, kindPointer), t.Elem(), depth+1)
	case reflect.Array:
		if t.Size() > maxArraySize {
			return nil, fmt.Errorf("%w: array %v is larger than %d bytes", ErrUnstorable, t, maxArraySize)
		}
		return describe(binary.AppendUvarint(append(b, kindArray), uint64(t.Len())), t.Elem(), depth+1)
	case reflect.Map:
		if !isScalar(t.Key().Kind()) {
			return nil, fmt.Errorf("%w: keys of %v are neither boolean, number nor string", ErrUnstorable, t)
		}
		b, err := describe(append(b, kindMap), t.Key(), depth+1)
		if err != nil {
			return nil, err
		}
		return describe(b, t.Elem(), depth+1)
	}
	return nil, unstorable(t)
}

// readType reads what describes a type; nil is that of nil.
func (d *decoder) readType() (reflect.Type, error) {
	if len(d.rest) == 0 {
		return nil, d.corrupt("a type is missing")
	}
	if k := d.rest[0]; k < numBasic {
		d.rest = d.rest[1:]
		return basicTypes[k], nil
	}
	start := d.rest
	if err := d.skipType(0); err != nil {
		return nil, err
	}
	text := start[:len(start)-len(d.rest)]
	registered.RLock()
	t := registered.foreign[string(text)]
	registered.RUnlock()
	if t != nil {
		return t, nil
	}
	b := decoder{rest: text}
	return b.buildType()
}

// skipType goes over what describes a type without making one.
func (d *decoder) skipType(depth int) error {
	if depth > maxTypeDepth {
		return d.corrupt("a type is nested too deep")
	}
	k, err := d.octet()
	if err != nil {
		return err
	}
	switch {
	case k == kindNil && depth > 0:
		return d.corrupt("nil is no part of a type")
	case k < numBasic, k == kindAny:
		return nil
	case k == kindSlice, k == kindPointer:
		return d.skipType(depth + 1)
	case k == kindArray:
		if _, err := d.uvarint(); err != nil {
			return err
		}
		return d.skipType(depth + 1)
	case k == kindMap:
		if err := d.skipType(depth + 1); err != nil {
			return err
		}
		return d.skipType(depth + 1)
	case k == kindNamed:
		_, err := d.name(maxTypeName)
		return err
	}
	return d.corrupt("unknown kind %d", k)
}

// buildType makes the type that skipType has found well-formed. Each composite
// type is made once and kept, and there are not many: see maxForeignTypes.
func (d *decoder) buildType() (reflect.Type, error) {
	start := d.rest
	k, err := d.octet()
	if err != nil {
		return nil, err
	}
	switch {
	case k < numBasic:
		return basicTypes[k], nil
	case k == kindAny:
		return typeAny, nil
	case k == kindNamed:
		name, err := d.name(maxTypeName)
		if err != nil {
			return nil, err
		}
		n := lookupName(string(name))
		if n == nil {
			return nil, fmt.Errorf("%w: type %.80q is not registered here", ErrUnstorable, name)
		}
		return n.typ, nil
	}
	var size uint64
	if k == kindArray {
		if size, err = d.uvarint(); err != nil {
			return nil, err
		}
	}
	part, err := d.buildType()
	if err != nil {
		return nil, err
	}
	elem := part
	if k == kindMap {
		if elem, err = d.buildType(); err != nil {
			return nil, err
		}
		if !isScalar(part.Kind()) {
			return nil, d.corrupt("%v cannot be a map's key", part)
		}
	}
	if (k == kindArray || k == kindSlice) && elem.Kind() == reflect.Array && elem.Len() == 0 {
		return nil, d.corrupt("a list of arrays of length 0")
	}
	if k == kindArray && (size > maxArraySize || size*uint64(max(elem.Size(), 1)) > maxArraySize) {
		return nil, d.corrupt("an array of %d elements", size)
	}
	return intern(string(start[:len(start)-len(d.rest)]), func() reflect.Type {
		switch k {
		case kindSlice:
			return reflect.SliceOf(elem)
		case kindPointer:
			return reflect.PointerTo(elem)
		case kindArray:
			return reflect.ArrayOf(int(size), elem)
		default:
			return reflect.MapOf(part, elem)
		}
	})
}

// remember keeps a type that this program stores, so that no number of foreign
// types keeps it from being read again.
func remember(text []byte, t reflect.Type) {
	registered.RLock()
	known := registered.foreign[string(text)] != nil
	registered.RUnlock()
	if !known {
		registered.Lock()
		registered.foreign[string(text)] = t
		registered.Unlock()
	}
}

// intern returns the type with that description, made at most once.
func intern(text string, build func() reflect.Type) (reflect.Type, error) {
	registered.Lock()
	defer registered.Unlock()
	if t := registered.foreign[text]; t != nil {
		return t, nil
	}
	if len(registered.foreign) >= maxForeignTypes {
		return nil, fmt.Errorf("%w: more than %d different types", ErrCorrupt, maxForeignTypes)
	}
	t := build()
	registered.foreign[text] = t
	return t, nil
}
