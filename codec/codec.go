// Package codec turns Go values into the octets of a packet's data and back. A
// [Format] is one way to do that. JSON and Protobuf are here; a program adds
// others with [Register], and every node of it then speaks them:
// ConnectConfig.DataFormat and CallOptions.Format name the format of a call, and
// the answer comes in the same.
//
// The functions of this package are what a node uses. They give every format
// what not every format has: values that are encoded already, Protobuf messages,
// and reading by path as JSON.
package codec

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// A Format is one way to write data. Its methods are safe for concurrent use.
type Format interface {
	// Name stands in every packet whose data has the format, signed and
	// sealed: 1 to 32 lower-case letters, digits and . + - _.
	Name() string
	// ContentType is the media type of such data by itself.
	ContentType() string
	// Marshal encodes a value.
	Marshal(v any) ([]byte, error)
	// Unmarshal decodes into what v points to: of the types that Marshal
	// takes, and of the type any, into which maps with string keys, slices,
	// strings, numbers, bool and nil are decoded. The data is somebody else's:
	// it must bound what it costs. An [*Error] says which field is wrong.
	Unmarshal(data []byte, v any) error
}

// A Checker is a Format that can tell, without a type, whether data is well
// formed. It is asked before a handler runs: what one reader could take for
// another value than the next one belongs refused here.
type Checker interface {
	Check(data []byte) error
}

// A Transcoder is a Format that turns its data into JSON by itself. For others
// that is Unmarshal into any, and JSON made of it.
type Transcoder interface {
	ToJSON(data []byte) ([]byte, error)
}

// Raw is data that is encoded already. As a parameter or a result it travels as
// it is if the call has that format, otherwise by way of JSON. What a caller gets
// in a format other than JSON is a Raw.
type Raw struct {
	Format string
	Data   []byte
}

// The names of the formats that are always there.
const (
	NameJSON     = "json"
	NameProtobuf = "protobuf"
)

var registry = struct {
	sync.RWMutex
	byName map[string]Format
}{byName: map[string]Format{NameJSON: jsonFormat{}, NameProtobuf: newProtobuf()}}

var goodName = regexp.MustCompile(`^[a-z0-9][a-z0-9.+_-]{0,31}$`)

// Register makes a format known to all nodes of the process. A name that is taken
// is an error, and nothing changes.
func Register(f Format) error {
	if f == nil {
		return fmt.Errorf("codec: the format to register is nil")
	}
	name := f.Name()
	if !goodName.MatchString(name) {
		return fmt.Errorf("codec: a format cannot be called %.40q: want 1 to 32 lower-case letters, digits and . + - _", name)
	}
	registry.Lock()
	defer registry.Unlock()
	if registry.byName[name] != nil {
		return fmt.Errorf("codec: the format %q is registered already", name)
	}
	registry.byName[name] = f
	return nil
}

// Lookup returns the format of that name; "" is JSON. The error names those that
// are known.
func Lookup(name string) (Format, error) {
	if name == "" || name == NameJSON {
		return jsonFormat{}, nil
	}
	registry.RLock()
	f := registry.byName[name]
	registry.RUnlock()
	if f == nil {
		return nil, fmt.Errorf("unknown data format %.40q; known are %s", name, strings.Join(Names(), ", "))
	}
	return f, nil
}

// Names returns the names of all formats, sorted.
func Names() []string {
	registry.RLock()
	defer registry.RUnlock()
	return slices.Sorted(maps.Keys(registry.byName))
}

// An Error says where in a value the mistake is.
type Error struct {
	Field string // path as in "order.items.3.price"; "" is the value itself
	Msg   string
}

func (e *Error) Error() string {
	if e.Field == "" {
		return e.Msg
	}
	return fmt.Sprintf("field %q: %s", e.Field, e.Msg)
}

func errorf(format string, args ...any) *Error { return &Error{Msg: fmt.Sprintf(format, args...)} }

// within puts the name of a member or the index of an element before the field
// of an error.
func within(name string, err error) error {
	e, ok := err.(*Error)
	if !ok {
		e = &Error{Msg: err.Error()}
	}
	if e.Field == "" {
		e.Field = name
	} else {
		e.Field = name + "." + e.Field
	}
	return e
}
