package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/owtp-go/owtp/internal/wire"
)

// Protobuf messages of the program's own. Within the format protobuf they travel
// as they are, with their full name; elsewhere in Protobuf's JSON mapping.

const (
	// maxDepth is how deep data nests, in any format (PROTOCOL §3.4).
	maxDepth = wire.MaxDepth - 1
	// maxTypeName is the most octets of a message's name.
	maxTypeName = 255
)

// pointedTo returns the pointer that v points to in an any, if it does: that is
// decoded into, as by encoding/json.
func pointedTo(v any) any {
	for range maxDepth { // and an any may point to itself
		p, ok := v.(*any)
		if !ok || p == nil {
			break
		}
		if inner := reflect.ValueOf(*p); inner.Kind() != reflect.Pointer || inner.IsNil() {
			break
		}
		v = *p
	}
	return v
}

// messageIn returns the message that v, the target of decoding, is or points to;
// a nil pointer to one is given a new message. nil means that it is none.
func messageIn(v any) proto.Message {
	if m, ok := v.(proto.Message); ok {
		return m
	}
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() || p.Type().Elem().Kind() != reflect.Pointer {
		return nil
	}
	m, ok := p.Elem().Interface().(proto.Message)
	if !ok {
		return nil
	}
	if p.Elem().IsNil() {
		p.Elem().Set(reflect.ValueOf(m.ProtoReflect().New().Interface()))
		m = p.Elem().Interface().(proto.Message)
	}
	return m
}

// isNilMessage reports whether a message is a nil pointer, which travels as null.
func isNilMessage(m proto.Message) bool { return m == nil || !m.ProtoReflect().IsValid() }

// messageJSON is compact, since what protojson writes has white space that
// differs from one build of a program to the next: a call that is made again
// must have the same octets.
func messageJSON(m proto.Message) ([]byte, error) {
	if isNilMessage(m) {
		return []byte("null"), nil
	}
	left := wire.MaxValues
	if err := boundAny(m.ProtoReflect(), maxDepth+1, &left); err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, plainError(err)
	}
	var b bytes.Buffer
	b.Grow(len(text))
	err = json.Compact(&b, text)
	return b.Bytes(), err
}

// boundAny bounds how deep messages nest, and how many fields are left, with those
// that an Any holds as octets: the library opens each of them for JSON, and copies
// all that is inside at every step.
func boundAny(m protoreflect.Message, depth int, left *int) (err error) {
	if !holdsAny(m.Descriptor()) {
		return nil
	}
	if depth == 0 {
		return errorf("nested deeper than %d", maxDepth)
	}
	if d := m.Descriptor(); d.FullName() == anyName {
		t, err := protoregistry.GlobalTypes.FindMessageByURL(m.Get(d.Fields().ByNumber(1)).String())
		if err != nil {
			return nil // the library says what is wrong
		}
		value := m.Get(d.Fields().ByNumber(2)).Bytes()
		if err := countFields(t.Descriptor(), value, depth, left); err != nil || !holdsAny(t.Descriptor()) {
			return err
		}
		inner := t.New()
		opts := proto.UnmarshalOptions{AllowPartial: true, RecursionLimit: depth}
		if err := opts.Unmarshal(value, inner.Interface()); err != nil {
			return plainError(err)
		}
		return boundAny(inner, depth-1, left)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				err = boundAny(v.Message(), depth-1, left)
				return err == nil
			})
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = boundAny(v.List().Get(i).Message(), depth-1, left)
			}
		default:
			err = boundAny(v.Message(), depth-1, left)
		}
		return err == nil
	})
	return err
}

const anyName = "google.protobuf.Any"

var anyHolders sync.Map // of protoreflect.MessageDescriptor to bool

// holdsAny reports whether an Any may be anywhere inside of a message.
func holdsAny(d protoreflect.MessageDescriptor) bool {
	holds, ok := anyHolders.Load(d)
	if !ok {
		holds = findAny(d, make(map[protoreflect.FullName]bool))
		anyHolders.Store(d, holds)
	}
	return holds.(bool)
}

func findAny(d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if d.FullName() == anyName {
		return true
	}
	if seen[d.FullName()] {
		return false
	}
	seen[d.FullName()] = true
	for i := range d.Fields().Len() {
		if inner := d.Fields().Get(i).Message(); inner != nil && findAny(inner, seen) {
			return true
		}
	}
	return d.ExtensionRanges().Len() > 0 // nobody knows
}

// messageFromJSON reads Protobuf's JSON mapping. Names that the message does not
// have are passed over, as in structs, but for other spellings of those that it
// has; null is an empty message.
func messageFromJSON(text []byte, m proto.Message) error {
	if string(text) == "null" {
		proto.Reset(m)
		return nil
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxDepth + 1}).Unmarshal(text, m); err != nil {
		return plainError(err)
	}
	return exactMessageNames(text, m.ProtoReflect().Descriptor()) // which is well formed by now
}

// plainError drops what the library puts before its texts: it begins with a
// blank or with one that does not break, by chance.
func plainError(err error) error {
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto:"))
	if field, ok := fieldOf(text); ok {
		return &Error{Field: field, Msg: text}
	}
	return errors.New(text)
}

// fieldOf finds the name in "invalid value for int32 field age: ...", which is
// the library's text for a value that does not fit.
func fieldOf(text string) (string, bool) {
	_, rest, ok := strings.Cut(text, " field ")
	if !ok {
		return "", false
	}
	name, _, ok := strings.Cut(rest, ":")
	return name, ok && name != "" && !strings.ContainsAny(name, " \"")
}

// appendMessage appends the Value that holds a message. Entries of maps are
// sorted: a call that is made again must have the same octets.
func appendMessage(b []byte, m proto.Message) ([]byte, error) {
	if isNilMessage(m) {
		return append(b, tagNull, 0), nil
	}
	name := string(m.ProtoReflect().Descriptor().FullName())
	if len(name) > maxTypeName {
		return nil, errorf("the message's name %.40q... has %d bytes; at most %d", name, len(name), maxTypeName)
	}
	opts := proto.MarshalOptions{Deterministic: true}
	size := opts.Size(m)
	opts.UseCachedSize = true
	inner := 2 + len(name) + 1 + protowire.SizeVarint(uint64(size)) + size
	if len(name) > 127 {
		inner++
	}
	b = append(b, tagMessage)
	b = protowire.AppendVarint(b, uint64(inner))
	b = append(b, tagFirst)
	b = protowire.AppendString(b, name)
	b = append(b, tagSecond)
	b = protowire.AppendVarint(b, uint64(size))
	before := len(b)
	b, err := opts.MarshalAppend(b, m)
	if err != nil {
		return nil, plainError(err)
	}
	if len(b)-before != size {
		return nil, errorf("the message %s was changed while it was encoded", name)
	}
	return b, nil
}

// readMessage takes apart what appendMessage wrote.
func readMessage(b []byte) (name, value []byte, err error) {
	if len(b) == 0 || b[0] != tagFirst {
		return nil, nil, errorf("a message without a name")
	}
	name, rest, err := take(b[1:])
	if err != nil {
		return nil, nil, err
	}
	if len(name) == 0 || len(name) > maxTypeName || !protoreflect.FullName(name).IsValid() {
		return nil, nil, errorf("%.40q is no name of a message", name)
	}
	if len(rest) == 0 {
		return name, nil, nil
	}
	if rest[0] != tagSecond {
		return nil, nil, errorf("unknown field in a message")
	}
	value, rest, err = take(rest[1:])
	if err == nil && len(rest) > 0 {
		err = errorf("octets behind the message")
	}
	return name, value, err
}

// unmarshalMessage decodes into a message, within the bounds of all data.
func unmarshalMessage(name, value []byte, m proto.Message) error {
	d := m.ProtoReflect().Descriptor()
	if d.FullName() != protoreflect.FullName(name) {
		return errorf("the value is a message %s, and %s is wanted", name, d.FullName())
	}
	// What is counted takes at least one octet, so that shorter ones need none.
	if left := wire.MaxValues; len(value) > left {
		if err := countFields(d, value, maxDepth, &left); err != nil {
			return err
		}
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(value, m); err != nil {
		return plainError(err)
	}
	return nil
}

// countFields bounds how many fields there are in all: an empty message in a list
// has two octets here and a hundred times as many in memory. So has a value of an
// enumeration in a packed list, which is one octet here and a name in JSON.
func countFields(d protoreflect.MessageDescriptor, b []byte, depth int, left *int) error {
	if depth == 0 {
		return errorf("nested deeper than %d", maxDepth)
	}
	for len(b) > 0 {
		if *left--; *left < 0 {
			return errorf("more than %d fields", wire.MaxValues)
		}
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errorf("bad field tag")
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, typ, b); n < 0 {
			return errorf("field %d is cut off", number)
		}
		f := d.Fields().ByNumber(number)
		if f == nil && d.ExtensionRanges().Has(number) {
			if x, err := protoregistry.GlobalTypes.FindExtensionByNumber(d.FullName(), number); err == nil {
				f = x.TypeDescriptor()
			}
		}
		if f != nil && f.Message() != nil && (typ == protowire.BytesType || typ == protowire.StartGroupType) {
			inner, _ := protowire.ConsumeBytes(b)
			if typ == protowire.StartGroupType {
				inner, _ = protowire.ConsumeGroup(number, b)
			}
			if err := countFields(f.Message(), inner, depth-1, left); err != nil {
				return within(string(f.Name()), err)
			}
		}
		if f != nil && f.Enum() != nil && typ == protowire.BytesType {
			packed, _ := protowire.ConsumeBytes(b)
			for _, c := range packed {
				if c < 0x80 { // the last octet of a value
					*left--
				}
			}
		}
		b = b[n:]
	}
	if *left < 0 {
		return errorf("more than %d fields", wire.MaxValues)
	}
	return nil
}

// knownMessage decodes a message of a type that is linked into the program.
func knownMessage(name, value []byte) (proto.Message, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, errorf("the value is a message %s, which this program does not know", name)
	}
	m := t.New().Interface()
	return m, unmarshalMessage(name, value, m)
}
