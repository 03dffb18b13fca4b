package codec

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Names in data are those of fields exactly, or others. encoding/json would take
// "AMOUNT" for the field "amount" as well, and who has read the same data by path,
// to allow it or not, has seen another value, or none (PROTOCOL §3.4).

// names are what a type knows of the names in its values; nil is nothing.
type names struct {
	fields map[string]*names                 // of a struct or a message
	folded map[string]string                 // the same, by what foldName makes of them
	elem   *names                            // of a list, or of a map whose names are its own
	enum   protoreflect.EnumValueDescriptors // of an enumeration
	any    bool                              // of a message that says itself of which type it is
}

var namesOfTypes sync.Map // of reflect.Type or protoreflect.MessageDescriptor to *names

func namesOf(t reflect.Type) *names {
	if n, ok := namesOfTypes.Load(t); ok {
		return n.(*names)
	}
	n := findNames(t, make(map[reflect.Type]*names))
	namesOfTypes.Store(t, n)
	return n
}

// findNames looks through a type; seen has those that it has begun with, since
// types hold themselves.
func findNames(t reflect.Type, seen map[reflect.Type]*names) *names {
	if decodesItself(t) {
		return nil
	}
	if n, ok := seen[t]; ok {
		return n
	}
	n := new(names)
	seen[t] = n
	switch t.Kind() {
	case reflect.Pointer:
		delete(seen, t) // no type is a pointer to itself alone that could be decoded
		return findNames(t.Elem(), seen)
	case reflect.Slice, reflect.Array, reflect.Map:
		if n.elem = findNames(t.Elem(), seen); n.elem == nil {
			return nil
		}
	case reflect.Struct:
		n.fields, n.folded = make(map[string]*names), make(map[string]string)
		depth := make(map[string]int)
		var keeps [][]int // embedded structs that keep their fields to themselves
		for _, f := range reflect.VisibleFields(t) {
			if slices.ContainsFunc(keeps, func(outer []int) bool { return len(f.Index) > len(outer) && slices.Equal(f.Index[:len(outer)], outer) }) {
				continue
			}
			if f.Anonymous && f.Tag.Get("json") != "" && !strings.HasPrefix(f.Tag.Get("json"), ",") {
				keeps = append(keeps, f.Index)
			}
			name, ok := jsonName(f)
			if at, taken := depth[name]; ok && (!taken || len(f.Index) < at) { // the outermost is meant
				depth[name] = len(f.Index)
				n.fields[name], n.folded[foldName([]byte(name))] = findNames(f.Type, seen), name
			}
		}
	default:
		return nil
	}
	return n
}

// jsonName returns the name of a field, if it has one: an embedded struct lends
// the names of its fields instead.
func jsonName(f reflect.StructField) (string, bool) {
	tag := f.Tag.Get("json")
	name, _, _ := strings.Cut(tag, ",")
	if tag == "-" || !f.IsExported() || f.Anonymous && name == "" && isStruct(f.Type) {
		return "", false
	}
	if name == "" {
		name = f.Name
	}
	return name, true
}

func isStruct(t reflect.Type) bool {
	return t.Kind() == reflect.Struct || t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct
}

func namesOfMessage(d protoreflect.MessageDescriptor) *names {
	if n, ok := namesOfTypes.Load(d); ok {
		return n.(*names)
	}
	n := findMessageNames(d, make(map[protoreflect.FullName]*names))
	namesOfTypes.Store(d, n)
	return n
}

// findMessageNames looks through a message as findNames does through a type. Of
// the two names that Protobuf's JSON mapping reads, only the one that it writes is
// the field's: a name must not be of two spellings here either.
func findMessageNames(d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]*names) *names {
	if n, ok := seen[d.FullName()]; ok {
		return n
	}
	switch {
	case d.FullName() == "google.protobuf.Any":
		return &names{any: true}
	case d.FullName().Parent() == "google.protobuf": // these have forms of their own in JSON
		return nil
	}
	n := &names{fields: make(map[string]*names), folded: make(map[string]string)}
	seen[d.FullName()] = n
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		n.fields[f.JSONName()] = findFieldNames(f, seen)
		for _, name := range []string{f.TextName(), f.JSONName()} {
			n.folded[foldName([]byte(name))] = f.JSONName()
		}
	}
	return n
}

func findFieldNames(f protoreflect.FieldDescriptor, seen map[protoreflect.FullName]*names) *names {
	value := f
	if f.IsMap() {
		value = f.MapValue()
	}
	var n *names
	switch {
	case value.Message() != nil:
		n = findMessageNames(value.Message(), seen)
	case value.Enum() != nil:
		n = &names{enum: value.Enum().Values()}
	}
	if n != nil && (f.IsMap() || f.IsList()) {
		n = &names{elem: n}
	}
	return n
}

// foldName returns what names that differ in letter case only have in common.
func foldName(name []byte) string {
	return string(bytes.Map(func(r rune) rune {
		for { // the smallest of those that fold into each other
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, name))
}

// inside returns what is known of the value of a name.
func (n *names) inside(name []byte) (*names, error) {
	if n.fields == nil {
		return n.elem, nil
	}
	if inner, ok := n.fields[string(name)]; ok {
		return inner, nil
	}
	if field, ok := n.folded[foldName(name)]; ok {
		return nil, misspelt(name, field)
	}
	return nil, nil // what the struct does not have is passed over
}

func misspelt(name []byte, field string) error {
	return &Error{Field: string(name), Msg: "unknown; the name is spelt " + strconv.Quote(field)}
}

// exactNames checks the names in JSON that is well formed against the type that it
// is to be decoded into.
func exactNames(text []byte, t reflect.Type) error {
	n := namesOf(t)
	if n == nil {
		return nil
	}
	r := nameReader{text: text}
	return r.value(n)
}

// exactMessageNames does so for a message, and refuses names that its enumerations
// do not have: the library drops them where it drops unknown fields, and what was
// "REFUNDED" would be the value 0.
func exactMessageNames(text []byte, d protoreflect.MessageDescriptor) error {
	n := namesOfMessage(d)
	if n == nil {
		return nil
	}
	r := nameReader{text: text}
	return r.value(n)
}

// A nameReader walks over JSON that is well formed.
type nameReader struct {
	text []byte
	at   int
}

// next passes over white space and returns the octet behind it.
func (r *nameReader) next() byte {
	for {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return c
		}
	}
}

func (r *nameReader) value(n *names) error {
	switch c := r.next(); {
	case n != nil && n.any && c == '{':
		at := r.at
		n = r.insideAny()
		r.at = at
		return r.value(n)
	case n != nil && c == '{':
		return r.members(n)
	case n != nil && c == '[' && n.elem != nil:
		return r.elements(n.elem)
	case n != nil && c == '"' && n.enum != nil:
		name, err := r.name()
		if err == nil && n.enum.ByName(protoreflect.Name(name)) == nil {
			err = errorf("%.80q is no value of the enumeration", name)
		}
		return err
	}
	r.skip()
	return nil
}

func (r *nameReader) elements(n *names) error {
	r.at++
	for i := 0; r.next() != ']'; i++ {
		if err := r.value(n); err != nil {
			return within(strconv.Itoa(i), err)
		}
		if r.next() == ',' {
			r.at++
		}
	}
	r.at++
	return nil
}

func (r *nameReader) members(n *names) error {
	r.at++
	for r.next() != '}' {
		name, err := r.name()
		if err != nil {
			return err
		}
		inner, err := n.inside(name)
		if err != nil {
			return err
		}
		r.next()
		r.at++ // the colon
		if err := r.value(inner); err != nil {
			return within(string(name), err)
		}
		if r.next() == ',' {
			r.at++
		}
	}
	r.at++
	return nil
}

// insideAny finds out what the message is that an Any holds.
func (r *nameReader) insideAny() *names {
	for r.at++; r.next() != '}'; {
		name, err := r.name()
		if err != nil {
			return nil
		}
		r.next()
		r.at++ // the colon
		if c := r.next(); string(name) != "@type" || c != '"' {
			r.skip()
		} else if url, err := r.name(); err != nil {
			return nil
		} else if t, err := protoregistry.GlobalTypes.FindMessageByURL(string(url)); err != nil {
			return nil
		} else if d := t.Descriptor(); d.FullName().Parent() != "google.protobuf" {
			return namesOfMessage(d)
		} else {
			return &names{fields: map[string]*names{"value": namesOfMessage(d)}}
		}
		if r.next() == ',' {
			r.at++
		}
	}
	return nil
}

// name reads a string.
func (r *nameReader) name() ([]byte, error) {
	from := r.at
	r.skipString()
	name := r.text[from+1 : r.at-1]
	if bytes.IndexByte(name, '\\') < 0 {
		return name, nil
	}
	var s string
	err := json.Unmarshal(r.text[from:r.at], &s)
	return []byte(s), err
}

// skip passes over a value, whatever it is.
func (r *nameReader) skip() {
	for depth := 0; r.at < len(r.text); r.at++ {
		switch r.text[r.at] {
		case '"':
			r.skipString()
			r.at--
			if depth == 0 {
				r.at++
				return
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return // of what is around
			}
			if depth--; depth == 0 {
				r.at++
				return
			}
		case ',':
			if depth == 0 {
				return
			}
		}
	}
}

func (r *nameReader) skipString() {
	for r.at++; ; r.at++ {
		r.at += bytes.IndexByte(r.text[r.at:], '"')
		slashes := 0
		for r.text[r.at-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			r.at++
			return
		}
	}
}
