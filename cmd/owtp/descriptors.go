package main

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Descriptors are somebody else's. An empty message in one has two octets there,
// 300 in memory and as many again once it is linked, and each declaration has the
// names of all around it.
const (
	maxPeerParts = 200_000 // 20 octets each in maxDescription, and real ones have more
	maxFileParts = 500_000 // a file may say, too, in which line each of them stands
	maxFullNames = 16 << 20
	maxNesting   = 64 // protoc stops at 32 messages in each other
)

// A descriptorCost is what descriptors cost that are kept together.
type descriptorCost struct {
	parts int // messages, fields, values, options, ...
	names int // octets of full names, of all declarations
}

// addParts counts the parts of a descriptor of the type d before it is decoded.
func (c *descriptorCost) addParts(b []byte, d protoreflect.MessageDescriptor, most int) error {
	c.parts += countParts(b, d, most-c.parts, maxNesting)
	if c.parts > most {
		return fmt.Errorf("more than %d messages, fields and other parts of .proto files", most)
	}
	return nil
}

// countParts counts the messages in a message, and may stop behind most. What
// cannot be read, who decodes it will tell.
func countParts(b []byte, d protoreflect.MessageDescriptor, most, depth int) (parts int) {
	for len(b) > 0 && depth > 0 && parts <= most {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return parts
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, typ, b); n < 0 {
			return parts
		}
		if f := d.Fields().ByNumber(number); f != nil && f.Message() != nil && typ == protowire.BytesType {
			inner, _ := protowire.ConsumeBytes(b)
			parts++
			parts += countParts(inner, f.Message(), most-parts, depth-1)
		}
		b = b[n:]
	}
	return parts
}

// addNames counts the full names that a file's declarations will have.
func (c *descriptorCost) addNames(f *descriptorpb.FileDescriptorProto) error {
	if c.names += fullNames(f); c.names > maxFullNames {
		return fmt.Errorf("names of more than %d MiB", maxFullNames>>20)
	}
	return nil
}

// fullNames returns how many octets the full names of all that a file declares
// have.
func fullNames(f *descriptorpb.FileDescriptorProto) (octets int) {
	type named interface{ GetName() string }
	of := func(prefix int, d named) int {
		n := prefix + 1 + len(d.GetName())
		octets += n
		return n
	}
	enums := func(prefix int, all []*descriptorpb.EnumDescriptorProto) {
		for _, e := range all {
			of(prefix, e)
			for _, v := range e.GetValue() {
				of(prefix, v)
			}
		}
	}
	fields := func(prefix int, all []*descriptorpb.FieldDescriptorProto) {
		for _, d := range all {
			of(prefix, d)
		}
	}
	var messages func(prefix int, all []*descriptorpb.DescriptorProto)
	messages = func(prefix int, all []*descriptorpb.DescriptorProto) {
		for _, m := range all {
			n := of(prefix, m)
			fields(n, m.GetField())
			fields(n, m.GetExtension())
			for _, o := range m.GetOneofDecl() {
				of(n, o)
			}
			enums(n, m.GetEnumType())
			messages(n, m.GetNestedType())
		}
	}
	top := len(f.GetPackage())
	messages(top, f.GetMessageType())
	enums(top, f.GetEnumType())
	fields(top, f.GetExtension())
	for _, s := range f.GetService() {
		n := of(top, s)
		for _, m := range s.GetMethod() {
			of(n, m)
		}
	}
	return octets
}
