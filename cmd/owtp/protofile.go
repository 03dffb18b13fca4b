package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/bufbuild/protocompile"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/owtp-go/owtp"
)

// protoFlags name the .proto file that describes the method of a call.
type protoFlags struct {
	file  string
	paths []string
}

func (p *protoFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.file, "proto", "", "the .proto `file` with the method's service, or a FileDescriptorSet; parameters and result are then its messages")
	f.StringArrayVarP(&p.paths, "proto-path", "I", nil, "`folder` that the .proto file and its imports are looked up in; may be repeated (default: the file's own)")
}

// A protoMethod is a method that a .proto file describes. nil is any other.
type protoMethod struct{ protoreflect.MethodDescriptor }

// method finds a method in the file, if there is one.
func (p *protoFlags) method(ctx context.Context, name string) (*protoMethod, error) {
	if p.file == "" {
		if p.paths != nil {
			return nil, errors.New("--proto-path needs --proto")
		}
		return nil, nil
	}
	files, err := p.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("--proto %s: %w", printable(p.file), err)
	}
	seen := make(map[string]bool)
	for _, f := range files {
		makeKnown(f, seen)
	}
	var names []string
	for _, f := range files {
		for m := range methods(f) {
			if full := wireName(m); full != name {
				names = append(names, full)
			} else if m.IsStreamingClient() || m.IsStreamingServer() {
				return nil, fmt.Errorf("--proto %s: %s is a stream, and OWTP has none yet", printable(p.file), name)
			} else {
				return &protoMethod{m}, nil
			}
		}
	}
	if names == nil {
		return nil, fmt.Errorf("--proto %s: there is no service in it", printable(p.file))
	}
	slices.Sort(names)
	const most = 20
	if n := len(names) - most; n > 0 {
		names = append(names[:most], fmt.Sprintf("and %d more", n))
	}
	return nil, fmt.Errorf("--proto %s: there is no method %.140q in it; it has %s", printable(p.file), printable(name), strings.Join(names, ", "))
}

func wireName(m protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("%s/%s", m.Parent().FullName(), m.Name())
}

// methods are those of all services of a file.
func methods(f protoreflect.FileDescriptor) func(yield func(protoreflect.MethodDescriptor) bool) {
	return func(yield func(protoreflect.MethodDescriptor) bool) {
		for i := range f.Services().Len() {
			of := f.Services().Get(i).Methods()
			for j := range of.Len() {
				if !yield(of.Get(j)) {
					return
				}
			}
		}
	}
}

// load reads the file: text, or descriptors as protoc and owtp describe write
// them.
func (p *protoFlags) load(ctx context.Context) ([]protoreflect.FileDescriptor, error) {
	if filepath.Ext(p.file) != ".proto" {
		octets, err := readProto(p.file, maxProto)
		if err != nil {
			return nil, err
		}
		return descriptorSet(octets)
	}
	_, err := os.Stat(p.file)
	if err != nil {
		return nil, err
	}
	name, paths := filepath.Base(p.file), []string{filepath.Dir(p.file)}
	if p.paths != nil {
		if name, err = p.nameInPaths(); err != nil {
			return nil, err
		}
		paths = p.paths
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(protoFolders(paths))}
	compiled, err := compiler.Compile(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("it does not compile: %w", err)
	}
	var files []protoreflect.FileDescriptor
	for _, f := range compiled {
		files = append(files, f)
	}
	return files, nil
}

// The most octets of a FileDescriptorSet, or of a .proto file with all that it
// imports, and of each by itself: they are somebody else's, as the peer is, and a
// compiler takes two hundred times as many.
const (
	maxProto     = 8 << 20
	maxProtoText = 1 << 20
)

// readProto reads a file that is one, and not without end.
func readProto(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", printable(path))
	}
	octets, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(octets)) > most {
		err = fmt.Errorf("%s has more than %d MiB", printable(path), most>>20)
	}
	return octets, err
}

// protoFolders finds a .proto file and what it imports: in the folders and nowhere
// else, as protoc does.
func protoFolders(paths []string) protocompile.Resolver {
	var all atomic.Int64
	source := &protocompile.SourceResolver{ImportPaths: paths, Accessor: func(path string) (io.ReadCloser, error) {
		octets, err := readProto(path, maxProtoText)
		if err == nil && all.Add(int64(len(octets))) > maxProto {
			err = fmt.Errorf("with all imports there are more than %d MiB", maxProto>>20)
		}
		return io.NopCloser(bytes.NewReader(octets)), err
	}}
	return protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
		if !filepath.IsLocal(filepath.FromSlash(path)) {
			return protocompile.SearchResult{}, fmt.Errorf("%q leads out of the folders of --proto-path", path)
		}
		return source.FindFileByPath(path)
	})
}

// nameInPaths returns the file's name as imports would give it.
func (p *protoFlags) nameInPaths() (string, error) {
	file, err := filepath.Abs(p.file)
	if err != nil {
		return "", err
	}
	for _, dir := range p.paths {
		if dir, err = filepath.Abs(dir); err != nil {
			return "", err
		}
		if name, err := filepath.Rel(dir, file); err == nil && filepath.IsLocal(name) {
			return filepath.ToSlash(name), nil
		}
	}
	return "", errors.New("it is in no folder that --proto-path names")
}

func descriptorSet(octets []byte) ([]protoreflect.FileDescriptor, error) {
	set := new(descriptorpb.FileDescriptorSet)
	var cost descriptorCost
	if err := cost.addParts(octets, set.ProtoReflect().Descriptor(), maxFileParts); err != nil {
		return nil, fmt.Errorf("it has %w", err)
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: maxNesting}).Unmarshal(octets, set); err != nil {
		return nil, errors.New("it is neither a .proto file, by its name, nor a FileDescriptorSet")
	}
	for _, f := range set.GetFile() {
		if err := cost.addNames(f); err != nil {
			return nil, fmt.Errorf("it has %w", err)
		}
	}
	registry, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, err
	}
	var files []protoreflect.FileDescriptor
	registry.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		files = append(files, f)
		return true
	})
	return files, nil
}

// makeKnown tells the Protobuf library the messages of a file and its imports, as
// generated code would: what an Any holds, and the details of an error.
func makeKnown(f protoreflect.FileDescriptor, seen map[string]bool) {
	if seen[f.Path()] {
		return
	}
	seen[f.Path()] = true
	for i := range f.Imports().Len() {
		makeKnown(f.Imports().Get(i).FileDescriptor, seen)
	}
	makeMessagesKnown(f.Messages())
}

func makeMessagesKnown(messages protoreflect.MessageDescriptors) {
	for i := range messages.Len() {
		m := messages.Get(i)
		makeMessagesKnown(m.Messages())
		// The library panics where a name is taken, as those are that it has itself.
		if _, err := protoregistry.GlobalTypes.FindMessageByName(m.FullName()); err != nil && !m.IsMapEntry() {
			_ = protoregistry.GlobalTypes.RegisterMessage(dynamicpb.NewMessageType(m))
		}
	}
}

// params makes the message of JSON; null is an empty one.
func (m *protoMethod) params(text []byte) (proto.Message, error) {
	in := dynamicpb.NewMessage(m.Input())
	if string(text) == "null" {
		return in, nil
	}
	if err := protojson.Unmarshal(text, in); err != nil {
		return nil, fmt.Errorf("the parameters are no %s: %s", m.Input().FullName(), protoText(err))
	}
	return in, nil
}

// repeatable reports whether the .proto file says that the method may be called
// twice.
func (m *protoMethod) repeatable() bool {
	if m == nil {
		return false
	}
	o, _ := m.Options().(*descriptorpb.MethodOptions)
	return o.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
}

// resultJSON returns the answer's message as JSON, and whatever else it is if it
// is none.
func (m *protoMethod) resultJSON(resp *owtp.Response) ([]byte, error) {
	if m == nil || !resp.OK() {
		return resultJSON(resp)
	}
	out := dynamicpb.NewMessage(m.Output())
	err := resp.Decode(out)
	if err == nil {
		var text []byte
		if text, err = protojson.Marshal(out); err == nil {
			return text, nil
		}
	}
	return nil, withCode(exitStatus, "the peer answered, and not with a %s: %s", m.Output().FullName(), printable(protoText(err)))
}

// protoText is an error of the Protobuf library without the prefix that it varies
// on purpose.
func protoText(err error) string {
	return strings.TrimSpace(strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto:"))
}
