// Command generate writes the Go code of every .proto file of the repository, the
// messages and the stubs of services:
//
//	cd proto/generate && go run . ../..
//
// The compiler and the generator are the versions in go.mod, so that everybody
// gets the same octets and needs no protoc.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	gengo "google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"

	"github.com/owtp-go/owtp/internal/stubs"
)

// module is the prefix of the go_package of each file: the rest of it is the
// folder that the code is written to.
const module = "github.com/owtp-go/owtp/"

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: generate ROOT, the folder of the repository")
	}
	root := os.Args[1]
	files, err := generate(root)
	if err != nil {
		log.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			log.Fatal(err)
		}
		fmt.Println(name)
	}
}

// generate returns the text of each Go file by its path under root.
func generate(root string) (map[string]string, error) {
	names, err := protoFiles(root)
	if err != nil {
		return nil, err
	}
	request, err := compile(root, names)
	if err != nil {
		return nil, err
	}
	plugin, err := protogen.Options{}.New(request)
	if err != nil {
		return nil, err
	}
	for _, f := range plugin.Files {
		if f.Generate {
			gengo.GenerateFile(plugin, f)
		}
	}
	stubs.Generate(plugin, stubs.Options{})
	response := plugin.Response()
	if response.Error != nil {
		return nil, errors.New(response.GetError())
	}
	out := make(map[string]string)
	for _, f := range response.File {
		name, ok := strings.CutPrefix(f.GetName(), module)
		if !ok {
			return nil, fmt.Errorf("%s: its go_package must begin with %q", f.GetName(), module)
		}
		out[name] = f.GetContent()
	}
	return out, nil
}

// protoFiles finds the files, by their paths under root.
func protoFiles(root string) (names []string, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) == ".proto" {
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			names = append(names, filepath.ToSlash(name))
		}
		return nil
	})
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("no .proto file under %s", root)
	}
	return names, err
}

// compile makes what protoc would give to a generator.
func compile(root string, names []string) (*pluginpb.CodeGeneratorRequest, error) {
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{root}}),
		SourceInfoMode: protocompile.SourceInfoStandard, // for the comments
	}
	files, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		return nil, err
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: names, CompilerVersion: &pluginpb.Version{Suffix: proto.String("protocompile")}}
	seen := make(map[string]bool)
	for _, f := range files {
		request.ProtoFile = appendFile(request.ProtoFile, f, seen)
	}
	return request, nil
}

// appendFile appends a file behind all that it imports, as a generator wants it.
func appendFile(to []*descriptorpb.FileDescriptorProto, f protoreflect.FileDescriptor, seen map[string]bool) []*descriptorpb.FileDescriptorProto {
	if seen[f.Path()] {
		return to
	}
	seen[f.Path()] = true
	for i := range f.Imports().Len() {
		to = appendFile(to, f.Imports().Get(i).FileDescriptor, seen)
	}
	return append(to, protoutil.ProtoFromFileDescriptor(f))
}
