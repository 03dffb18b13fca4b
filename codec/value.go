package codec

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/owtp-go/owtp/internal/wire"
)

// A Value of proto/value.proto, as it stands on the wire (PROTOCOL §3.6): one
// tag, which says the kind, and what belongs to it.
const (
	tagNull     = 1<<3 | 0
	tagBool     = 2<<3 | 0
	tagInteger  = 3<<3 | 0
	tagUnsigned = 4<<3 | 0
	tagNumber   = 5<<3 | 1
	tagText     = 6<<3 | 2
	tagOctets   = 7<<3 | 2
	tagList     = 8<<3 | 2
	tagMap      = 9<<3 | 2
	tagMessage  = 10<<3 | 2

	// Of a List's values, a Map's members, a member's name and a Message's
	// type; of a member's value and a Message's value.
	tagFirst  = 1<<3 | 2
	tagSecond = 2<<3 | 2
)

var kindNames = map[byte]string{
	tagNull: "null", tagBool: "a bool", tagInteger: "an integer", tagUnsigned: "an integer", tagNumber: "a number", tagText: "text",
	tagOctets: "octets", tagList: "a list", tagMap: "a map", tagMessage: "a message",
}

// A node is one Value that has been taken apart, but for what is inside of it.
type node struct {
	tag byte
	num uint64 // of the kinds that are numbers, their bits
	oct []byte // of all others
}

// read takes one Value apart, which is all of b.
func read(b []byte) (n node, err error) {
	if len(b) == 0 {
		return n, errorf("a value without a kind")
	}
	n.tag = b[0]
	rest := b[1:]
	switch n.tag {
	case tagNull, tagBool, tagInteger, tagUnsigned:
		n.num, rest, err = varint(rest)
	case tagNumber:
		if len(rest) < 8 {
			return n, errorf("a number is cut off")
		}
		n.num, rest = binary.LittleEndian.Uint64(rest), rest[8:]
	case tagText, tagOctets, tagList, tagMap, tagMessage:
		n.oct, rest, err = take(rest)
	default:
		return n, errorf("a value of unknown kind")
	}
	switch {
	case err != nil:
	case len(rest) > 0:
		err = errorf("a value of two kinds")
	case n.tag == tagNull && n.num != 0:
		err = errorf("a null of unknown number %d", n.num)
	case n.tag == tagBool && n.num > 1:
		err = errorf("a bool that is %d", n.num)
	case n.tag == tagNumber && notFinite(n.float()):
		err = errorf("a number that is infinite or none")
	}
	return n, err
}

func (n *node) integer() int64 { return protowire.DecodeZigZag(n.num) }
func (n *node) float() float64 { return math.Float64frombits(n.num) }

func notFinite(f float64) bool { return math.IsNaN(f) || math.IsInf(f, 0) }

// varint reads a minimal varint.
func varint(b []byte) (uint64, []byte, error) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], nil
	}
	v, n := binary.Uvarint(b)
	if n <= 0 || b[n-1] == 0 {
		return 0, nil, errorf("a varint that is cut off, too long or padded")
	}
	return v, b[n:], nil
}

// take reads a length and so many octets. Most have a length of one octet.
func take(b []byte) (oct, rest []byte, err error) {
	if len(b) > 0 && b[0] < 0x80 && int(b[0]) < len(b) {
		n := int(b[0]) + 1
		return b[1:n], b[n:], nil
	}
	return takeMany(b)
}

func takeMany(b []byte) (oct, rest []byte, err error) {
	n, b, err := varint(b)
	if err != nil {
		return nil, nil, err
	}
	if n > uint64(len(b)) {
		return nil, nil, errorf("%d octets where %d are said to be", len(b), n)
	}
	return b[:n], b[n:], nil
}

// element takes the first Value off a List's octets.
func element(b []byte) (value, rest []byte, err error) {
	if b[0] != tagFirst {
		return nil, nil, errorf("unknown field in a list")
	}
	return take(b[1:])
}

// member takes the first member off a Map's octets.
func member(b []byte) (name, value, rest []byte, err error) {
	if b[0] != tagFirst {
		return nil, nil, nil, errorf("unknown field in a map")
	}
	entry, rest, err := take(b[1:])
	if err != nil {
		return nil, nil, nil, err
	}
	if len(entry) > 0 && entry[0] == tagFirst {
		if name, entry, err = take(entry[1:]); err != nil {
			return nil, nil, nil, err
		}
	}
	if len(entry) == 0 || entry[0] != tagSecond {
		return nil, nil, nil, errorf("a member without a value")
	}
	value, entry, err = take(entry[1:])
	if err == nil && len(entry) > 0 {
		err = errorf("unknown field in a member")
	}
	return name, value, rest, err
}

// A checker walks a whole Value within the bounds that JSON has.
type checker struct{ left int }

func check(b []byte) error {
	c := checker{left: wire.MaxValues}
	if len(b) > 0 && b[0] == tagMessage {
		n, err := read(b)
		if err == nil {
			_, _, err = readMessage(n.oct)
		}
		return err
	}
	return c.value(b, maxDepth)
}

func (c *checker) value(b []byte, depth int) error {
	if c.left--; c.left < 0 {
		return errorf("more than %d values", wire.MaxValues)
	}
	// Short text is most of what there is.
	if len(b) > 1 && b[0] == tagText && int(b[1]) == len(b)-2 && b[1] < 0x80 && utf8.Valid(b[2:]) {
		return nil
	}
	n, err := read(b)
	if err != nil {
		return err
	}
	switch n.tag {
	case tagText:
		if !utf8.Valid(n.oct) {
			return errorf("text that is not valid UTF-8")
		}
	case tagMessage:
		return errorf("a message inside of another value")
	case tagList, tagMap:
		if depth == 0 {
			return errorf("nested deeper than %d", maxDepth)
		}
		if n.tag == tagMap {
			return c.members(n.oct, depth-1)
		}
		return c.elements(n.oct, depth-1)
	}
	return nil
}

func (c *checker) elements(b []byte, depth int) error {
	for len(b) > 0 {
		v, rest, err := element(b)
		if err == nil {
			err = c.value(v, depth)
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}

func (c *checker) members(b []byte, depth int) error {
	var last []byte
	all, n, ascending := b, 0, true
	for len(b) > 0 {
		name, v, rest, err := member(b)
		if err != nil {
			return err
		}
		if !utf8.Valid(name) {
			return errorf("a name that is not valid UTF-8")
		}
		ascending = ascending && (n == 0 || bytes.Compare(last, name) < 0)
		if n++; n > wire.MaxMembers {
			return errorf("more than %d members in one map", wire.MaxMembers)
		}
		if err := c.value(v, depth); err != nil {
			return err
		}
		last, b = name, rest
	}
	if ascending { // as they are written here
		return nil
	}
	return checkNames(all, n)
}

// checkNames finds a name that stands twice among the n of a Map that has been
// read once.
func checkNames(b []byte, n int) error {
	names := make([][]byte, 0, n)
	for len(b) > 0 {
		name, _, rest, err := member(b)
		if err != nil {
			return err
		}
		names, b = append(names, name), rest
	}
	slices.SortFunc(names, bytes.Compare)
	for i := 1; i < len(names); i++ {
		if bytes.Equal(names[i-1], names[i]) {
			return within(string(names[i]), errorf("the name stands twice"))
		}
	}
	return nil
}
