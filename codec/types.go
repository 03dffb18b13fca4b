package codec

import (
	"cmp"
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// types remembers how Go types become Values. What a type does here is what it
// does with encoding/json: where that takes more than the plain cases, the value
// goes by way of JSON, so that there is one set of rules.
type types struct{ structs sync.Map } // of reflect.Type to *structType

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
	omitEmpty bool
	omitZero  bool
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
		out := structField{name: name, index: i}
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
		s.folded[foldName([]byte(f.name))] = f.name
	}
	return s
}

// plainName lets through names that encoding/json takes as they are.
func plainName(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

// field finds the field of a name; nil if there is none.
func (s *structType) field(name []byte) (*structField, error) {
	if i, ok := s.byName[string(name)]; ok {
		return &s.fields[i], nil
	}
	if field, ok := s.folded[foldName(name)]; ok {
		return nil, misspelt(name, field)
	}
	return nil, nil
}
