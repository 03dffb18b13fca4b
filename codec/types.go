package codec

import (
	"cmp"
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// types remembers how Go types become Values. What a type does here is what it
// does with encoding/json: where that takes more than the plain cases, the value
// goes by way of JSON, so that there is one set of rules.
type types struct {
	structs sync.Map  // of reflect.Type to *structType
	scratch sync.Pool // of *[]byte: what values are encoded in before their size is known
}

// maxScratch keeps one large value from holding its memory for good.
const maxScratch = 1 << 20

var (
	marshalerType       = reflect.TypeFor[json.Marshaler]()
	textMarshalerType   = reflect.TypeFor[encoding.TextMarshaler]()
	unmarshalerType     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
	numberType          = reflect.TypeFor[json.Number]()
	anyType             = reflect.TypeFor[any]()
)

// A structType is the plain fields of a struct, by ascending names.
type structType struct {
	fields  []structField
	byName  map[string]int
	folded  map[string]string // names by what foldName makes of them
	viaJSON bool              // it has what only encoding/json knows
}

type structField struct {
	name      string
	index     int
	typ       reflect.Type
	omitEmpty bool
	omitZero  bool
	scalar    bool   // a kind of its own without methods, so that nobody need ask for them
	head      []byte // a member up to its value's length
}

// encodesItself reports whether encoding/json would call a method of the type.
func encodesItself(t reflect.Type) bool {
	return t.Implements(marshalerType) || t.Implements(textMarshalerType)
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(unmarshalerType) || p.Implements(textUnmarshalerType)
}

func (ts *types) of(t reflect.Type) *structType {
	if s, ok := ts.structs.Load(t); ok {
		return s.(*structType)
	}
	s, _ := ts.structs.LoadOrStore(t, newStructType(t))
	return s.(*structType)
}

func newStructType(t reflect.Type) *structType {
	s := &structType{byName: make(map[string]int), folded: make(map[string]string)}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		if tag == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		if name == "" {
			name = f.Name
		}
		out := structField{name: name, index: i, typ: f.Type, scalar: isScalar(f.Type)}
		for option := range strings.SplitSeq(options, ",") {
			switch option {
			case "omitempty":
				out.omitEmpty = true
			case "omitzero":
				out.omitZero = true
				if _, own := reflect.PointerTo(f.Type).MethodByName("IsZero"); own {
					s.viaJSON = true
				}
			case "":
			default:
				s.viaJSON = true // "string", and what is not known yet
			}
		}
		if _, taken := s.byName[name]; taken || f.Anonymous || !plainName(name) {
			s.viaJSON = true
		}
		s.byName[name] = 0
		s.fields = append(s.fields, out)
	}
	slices.SortFunc(s.fields, func(a, b structField) int { return cmp.Compare(a.name, b.name) })
	for i, f := range s.fields {
		s.byName[f.name] = i
		s.fields[i].head = append(protowire.AppendString([]byte{tagFirst}, f.name), tagSecond)
		s.folded[foldName([]byte(f.name))] = f.name
	}
	return s
}

// isScalar reports whether values of the type are one value each, by their kind
// alone.
func isScalar(t reflect.Type) bool {
	if t == numberType || encodesItself(reflect.PointerTo(t)) || decodesItself(t) {
		return false
	}
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return true
	}
	return false
}

// plainName lets through names that encoding/json takes as they are.
func plainName(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

// field finds the field of a name; nil if there is none. next is where it may
// well be, since they are written in this order.
func (s *structType) field(name []byte, next int) (*structField, error) {
	if next < len(s.fields) && s.fields[next].name == string(name) {
		return &s.fields[next], nil
	}
	if i, ok := s.byName[string(name)]; ok {
		return &s.fields[i], nil
	}
	if field, ok := s.folded[foldName(name)]; ok {
		return nil, misspelt(name, field)
	}
	return nil, nil
}
