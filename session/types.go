package session

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"
)

// ErrUnstorable says that a value cannot be stored, or that what is stored is
// not of the type that was asked for.
var ErrUnstorable = errors.New("session: value cannot be stored")

// ErrCorrupt says that a stored session is not one, or that a newer release
// wrote it.
var ErrCorrupt = errors.New("session: stored data is not readable")

const (
	maxTypeDepth  = 16       // composites in one type: map[string][]map... is beyond reason long before
	maxValueDepth = 128      // values within values, twice for each any: 64 lists of any; also what ends a cycle of pointers
	maxTypeName   = 512      // bytes of a registered type's full name
	maxArraySize  = 64 << 10 // bytes of an array in memory: hashes and keys, not tables

	// Types that are met in stored records only and that this program never
	// stored itself are made by package reflect, which never forgets a type.
	maxForeignTypes = 4096
)

// A kind is the first octet of a stored type. The numbers are stored: they are
// never changed and never used again.
const (
	kindNil byte = iota
	kindBool
	kindInt
	kindInt8
	kindInt16
	kindInt32
	kindInt64
	kindUint
	kindUint8
	kindUint16
	kindUint32
	kindUint64
	kindFloat32
	kindFloat64
	kindComplex64
	kindComplex128
	kindString
	kindTime
	kindDuration
	kindRawMessage
	kindNumber
	numBasic
)

const (
	kindSlice byte = 32 + iota
	kindArray
	kindMap
	kindPointer
	kindAny
	kindNamed
)

var basicTypes = [numBasic]reflect.Type{
	kindBool: reflect.TypeFor[bool](), kindInt: reflect.TypeFor[int](), kindInt8: reflect.TypeFor[int8](),
	kindInt16: reflect.TypeFor[int16](), kindInt32: reflect.TypeFor[int32](), kindInt64: reflect.TypeFor[int64](),
	kindUint: reflect.TypeFor[uint](), kindUint8: reflect.TypeFor[uint8](), kindUint16: reflect.TypeFor[uint16](),
	kindUint32: reflect.TypeFor[uint32](), kindUint64: reflect.TypeFor[uint64](),
	kindFloat32: reflect.TypeFor[float32](), kindFloat64: reflect.TypeFor[float64](),
	kindComplex64: reflect.TypeFor[complex64](), kindComplex128: reflect.TypeFor[complex128](),
	kindString: reflect.TypeFor[string](), kindTime: typeTime, kindDuration: reflect.TypeFor[time.Duration](),
	kindRawMessage: reflect.TypeFor[json.RawMessage](), kindNumber: reflect.TypeFor[json.Number](),
}

var (
	typeAny  = reflect.TypeFor[any]()
	typeTime = reflect.TypeFor[time.Time]()

	basicKinds = func() map[reflect.Type]byte {
		m := make(map[reflect.Type]byte, numBasic)
		for k, t := range basicTypes {
			if t != nil {
				m[t] = byte(k)
			}
		}
		return m
	}()
)

// form is how values of a registered type are stored.
type form byte

const (
	formPlain  form = iota // as the type's underlying one
	formStruct             // field by field
	formBinary             // by its encoding.BinaryMarshaler
	formText               // by its encoding.TextMarshaler
)

type field struct {
	index int
	name  string
	typ   reflect.Type
}

type namedType struct {
	typ    reflect.Type
	name   string
	form   form
	fields []field
	byName map[string]int // index in fields
}

var registered = struct {
	sync.RWMutex
	byType  map[reflect.Type]*namedType
	byName  map[string]*namedType
	foreign map[string]reflect.Type // composite types by what describes them
}{
	byType:  make(map[reflect.Type]*namedType),
	byName:  make(map[string]*namedType),
	foreign: make(map[string]reflect.Type),
}

func lookupType(t reflect.Type) *namedType {
	registered.RLock()
	defer registered.RUnlock()
	return registered.byType[t]
}

func lookupName(name string) *namedType {
	registered.RLock()
	defer registered.RUnlock()
	return registered.byName[name]
}

// RegisterType makes values of v's type storable, and those of the named types
// that it is made of. It is called once, before the first value is stored or
// read, usually from an init function, with the same types in every process
// that shares the store; a second call does nothing.
//
// Storable without it are bool, the integers, floats and complex numbers,
// string, []byte, time.Time, time.Duration, json.RawMessage, json.Number, nil,
// and slices, arrays, maps and pointers of storable types and of any. Map keys
// are booleans, numbers and strings.
//
// A registered struct is stored field by field under the fields' names, so that
// a release may add and remove fields. All its fields must be exported, or left
// out by the tag `session:"-"`. A type with MarshalBinary and UnmarshalBinary is
// stored by these instead; a type that has unexported fields by MarshalText and
// UnmarshalText, if it has them. Any other type (channels, functions,
// interfaces with methods, unregistered structs) is [ErrUnstorable], here as
// well as when it is stored. Types are told apart by their package path and
// name; two with the same one, as there may be within functions, are an error.
//
// A time.Time comes back as the same instant with the same offset from UTC, but
// without the name of its zone and the monotonic clock.
func RegisterType(v any) error {
	if v == nil {
		return fmt.Errorf("%w: RegisterType of nil", ErrUnstorable)
	}
	found := make(map[reflect.Type]*namedType)
	if err := plan(reflect.TypeOf(v), found, 0); err != nil {
		return err
	}
	if err := enter(found); err != nil {
		return err
	}
	for _, n := range found {
		for _, f := range n.fields {
			if text, err := describe(nil, f.typ, 0); err == nil {
				remember(text, f.typ)
			}
		}
	}
	return nil
}

// enter makes the types known, all of them or none.
func enter(found map[reflect.Type]*namedType) error {
	registered.Lock()
	defer registered.Unlock()
	for t, n := range found {
		if old := registered.byName[n.name]; old != nil && old.typ != t {
			return fmt.Errorf("%w: two types are named %s", ErrUnstorable, n.name)
		}
	}
	for t, n := range found {
		if registered.byType[t] == nil {
			registered.byType[t], registered.byName[n.name] = n, n
		}
	}
	return nil
}

// plan collects the named types that t is made of.
func plan(t reflect.Type, found map[reflect.Type]*namedType, depth int) error {
	if depth > maxTypeDepth {
		return fmt.Errorf("%w: type %v is nested too deep", ErrUnstorable, t)
	}
	if _, basic := basicKinds[t]; basic || t == typeAny || found[t] != nil {
		return nil
	}
	if t.Name() == "" {
		return planParts(t, found, depth)
	}
	n := &namedType{typ: t, name: t.PkgPath() + "." + t.Name()}
	if len(n.name) > maxTypeName {
		return fmt.Errorf("%w: the name of %v is longer than %d bytes", ErrUnstorable, t, maxTypeName)
	}
	found[t] = n // before its parts: a type may contain pointers to itself
	if marshals[encoding.BinaryMarshaler, encoding.BinaryUnmarshaler](t) {
		n.form = formBinary
		return nil
	}
	err := planNamed(n, found)
	if err != nil && marshals[encoding.TextMarshaler, encoding.TextUnmarshaler](t) {
		n.form, n.fields, n.byName = formText, nil, nil
		return nil
	}
	return err
}

func planNamed(n *namedType, found map[reflect.Type]*namedType) error {
	if n.typ.Kind() != reflect.Struct {
		if k := n.typ.Kind(); isScalar(k) {
			return nil
		}
		return planParts(n.typ, found, 0)
	}
	n.form, n.byName = formStruct, make(map[string]int)
	for i := range n.typ.NumField() {
		f := n.typ.Field(i)
		if f.Tag.Get("session") == "-" {
			continue
		}
		if !f.IsExported() {
			return fmt.Errorf("%w: field %s of %v is not exported (tag it `session:\"-\"` to leave it out)", ErrUnstorable, f.Name, n.typ)
		}
		if err := plan(f.Type, found, 1); err != nil {
			return fmt.Errorf("field %s of %v: %w", f.Name, n.typ, err)
		}
		n.byName[f.Name] = len(n.fields)
		n.fields = append(n.fields, field{i, f.Name, f.Type})
	}
	return nil
}

func planParts(t reflect.Type, found map[reflect.Type]*namedType, depth int) error {
	if isHollow(t) {
		return hollow(t)
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer:
		return plan(t.Elem(), found, depth+1)
	case reflect.Array:
		if t.Size() > maxArraySize {
			return fmt.Errorf("%w: array %v is larger than %d bytes", ErrUnstorable, t, maxArraySize)
		}
		return plan(t.Elem(), found, depth+1)
	case reflect.Map:
		if !isScalar(t.Key().Kind()) {
			return fmt.Errorf("%w: keys of %v are neither boolean, number nor string", ErrUnstorable, t)
		}
		return errors.Join(plan(t.Key(), found, depth+1), plan(t.Elem(), found, depth+1))
	}
	return unstorable(t)
}

// isHollow tells lists whose elements are arrays of length 0. Such an element
// takes no octet when it is stored, so that a few octets could stand for a list
// of any length.
func isHollow(t reflect.Type) bool {
	if k := t.Kind(); k != reflect.Slice && k != reflect.Array {
		return false
	}
	return t.Elem().Kind() == reflect.Array && t.Elem().Len() == 0
}

func hollow(t reflect.Type) error {
	return fmt.Errorf("%w: the elements of %v are arrays of length 0", ErrUnstorable, t)
}

func unstorable(t reflect.Type) error {
	return fmt.Errorf("%w: type %v (structs and other named types need session.RegisterType)", ErrUnstorable, t)
}

// isScalar tells the kinds that may be keys: comparable without a panic.
func isScalar(k reflect.Kind) bool {
	return reflect.Bool <= k && k <= reflect.Complex128 && k != reflect.Uintptr || k == reflect.String
}

// marshals reports whether t itself writes its values as M and reads them as U.
// A struct that has these methods from an embedded field does not count: they
// would write that field and forget the others.
func marshals[M, U any](t reflect.Type) bool {
	m, u := reflect.TypeFor[M](), reflect.TypeFor[U]()
	if p := reflect.PointerTo(t); t.Kind() == reflect.Interface || !p.Implements(m) || !p.Implements(u) {
		return false
	}
	if t.Kind() != reflect.Struct {
		return true
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if p := reflect.PointerTo(f.Type); f.Anonymous && (f.Type.Implements(m) || p.Implements(m) || f.Type.Implements(u) || p.Implements(u)) {
			return false
		}
	}
	return true
}
