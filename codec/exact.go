package codec

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// Names in data are those of fields exactly, or others. encoding/json would take
// "AMOUNT" for the field "amount" as well, and who has read the same data by path,
// to allow it or not, has seen another value, or none (PROTOCOL §3.4).

// names are what a type knows of the names in its values; nil is nothing.
type names struct {
	fields map[string]*names // of a struct
	folded map[string]string // the same, by what foldName makes of them
	elem   *names            // of a list, or of a map whose names are its own
}

var namesOfTypes sync.Map // of reflect.Type to *names

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
		for _, f := range reflect.VisibleFields(t) {
			if name, ok := jsonName(f); ok {
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
	if tag == "-" || !f.IsExported() || f.Anonymous && name == "" {
		return "", false
	}
	if name == "" {
		name = f.Name
	}
	return name, true
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
	case n != nil && c == '{':
		return r.members(n)
	case n != nil && c == '[' && n.elem != nil:
		return r.elements(n.elem)
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
		from := r.at
		r.skipString()
		name := r.text[from+1 : r.at-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			var s string
			if err := json.Unmarshal(r.text[from:r.at], &s); err != nil {
				return err
			}
			name = []byte(s)
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
