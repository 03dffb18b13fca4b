package owtp

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// describeMethod tells what a node serves, if NodeConfig.Describe asks for it
// (PROTOCOL §3.7). It is a method like any other: prepare, middleware and what a
// listener demands hold for it.
const describeMethod = "owtp.describe"

// An answer has at most so many octets of names, and of descriptors, whatever
// was registered: it can be asked for by anybody who may call. An eighth of a
// message leaves room for what a format makes of them.
const (
	maxDescribedNames = 128 << 10
	maxDescribedFiles = 256 << 10
)

type describeRequest struct {
	Service string `json:"service"` // only the methods that begin with it and a slash
	After   string `json:"after"`   // only those behind that name
}

type description struct {
	Methods []describedMethod `json:"methods"`
	More    bool              `json:"more,omitempty"` // ask again for those after the last one
	// Files are the descriptors (google.protobuf.FileDescriptorProto) of the
	// services among the methods, each behind all that it imports.
	Files        [][]byte `json:"files,omitempty"`
	FilesLeftOut bool     `json:"filesLeftOut,omitempty"` // not all fit; ask for one service
}

type describedMethod struct {
	Name       string `json:"name"`
	Repeatable bool   `json:"repeatable,omitempty"`
}

// describe handles describeMethod.
func (n *OWTPNode) describe(c *Context) {
	var in describeRequest
	if err := c.Decode(&in); err != nil {
		c.Response(nil, ErrBadRequest, err.(*Error).Msg)
		return
	}
	eighth := n.cfg.Limits.MaxMessage / 8
	out := description{Methods: []describedMethod{}}
	routes := *n.router.routes.Load()
	left := min(maxDescribedNames, eighth)
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		if name <= in.After || name == describeMethod || in.Service != "" && !strings.HasPrefix(name, in.Service+"/") {
			continue
		}
		if left -= len(name) + 24; left < 0 {
			out.More = true
			break
		}
		out.Methods = append(out.Methods, describedMethod{name, routes[name].repeatable})
	}
	files := newDescribedFiles(min(maxDescribedFiles, eighth))
	for _, m := range out.Methods {
		if f := fileOf(m.Name); f != nil && !files.add(f) {
			out.FilesLeftOut = true
		}
	}
	out.Files = files.octets
	c.Response(out, StatusSuccess, "")
}

// fileOf returns the file of a method that was generated from a .proto file, or
// nil.
func fileOf(method string) protoreflect.FileDescriptor {
	service, name, ok := strings.Cut(method, "/")
	if !ok {
		return nil
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil
	}
	if s, ok := d.(protoreflect.ServiceDescriptor); ok && s.Methods().ByName(protoreflect.Name(name)) != nil {
		return s.ParentFile()
	}
	return nil
}

// describedFiles are the descriptors of an answer.
type describedFiles struct {
	octets [][]byte
	left   int // octets
	seen   map[string]bool
	added  map[string]bool // what add has said of a file: it is asked for each method
}

func newDescribedFiles(octets int) *describedFiles {
	return &describedFiles{left: octets, seen: make(map[string]bool), added: make(map[string]bool)}
}

// add adds a file with all that it imports, or nothing of it if that is too much.
func (d *describedFiles) add(f protoreflect.FileDescriptor) bool {
	ok, known := d.added[f.Path()]
	if known {
		return ok
	}
	before := describedFiles{d.octets, d.left, maps.Clone(d.seen), d.added}
	if ok = d.addAll(f); !ok {
		*d = before
	}
	d.added[f.Path()] = ok
	return ok
}

func (d *describedFiles) addAll(f protoreflect.FileDescriptor) bool {
	if d.seen[f.Path()] || f.IsPlaceholder() {
		return true
	}
	d.seen[f.Path()] = true
	for i := range f.Imports().Len() {
		if !d.addAll(f.Imports().Get(i).FileDescriptor) {
			return false
		}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(f))
	if d.left -= len(b); err != nil || d.left < 0 {
		return false
	}
	d.octets = append(d.octets, b)
	return true
}
