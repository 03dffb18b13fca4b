package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/owtp-go/owtp/internal/testpb"
	"github.com/owtp-go/owtp/internal/teststubs"
)

// The descriptors of a hostile node are an error or a description.
func FuzzDescriptors(f *testing.F) {
	var files [][]byte
	for _, d := range []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(descriptorpb.File_google_protobuf_descriptor_proto),
		protodesc.ToFileDescriptorProto(testpb.File_internal_testpb_testpb_proto),
		protodesc.ToFileDescriptorProto(teststubs.File_internal_teststubs_teststubs_proto),
	} {
		b, err := proto.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		files = append(files, b)
		f.Add(b, "wallet.test.Wallet/Balance")
	}
	f.Fuzz(func(t *testing.T, octets []byte, method string) {
		for _, with := range [][][]byte{{octets}, {files[0], files[1], octets}, {octets, files[2]}} {
			a := &api{files: new(descriptorpb.FileDescriptorSet), seen: make(map[string]bool)}
			if a.add(&description{Methods: []describedMethod{{Name: method}}, Files: with}) != nil || a.link() != nil {
				continue
			}
			var out bytes.Buffer
			if err := a.print(&console{out: &out, err: io.Discard}, false); err != nil || out.Len() == 0 {
				t.Errorf("%q: %v", out.String(), err)
			}
		}
	})
}

// A node that tells too much is refused before it is read: a message that is two
// octets long takes a hundred times as many in memory.
func TestDescriptionsAreBounded(t *testing.T) {
	a := &api{files: new(descriptorpb.FileDescriptorSet), seen: make(map[string]bool)}
	file := bytes.Repeat([]byte{0x22, 0}, 512<<10) // a million octets of empty messages
	var err error
	for range 2 * maxDescription / len(file) {
		if err = a.add(&description{Files: [][]byte{append([]byte{0x0a, 1, byte('a' + len(a.files.File))}, file...)}}); err != nil {
			break
		}
	}
	if err == nil || len(a.files.File)*len(file) >= maxDescription {
		t.Errorf("%d files of %d octets are kept: %v", len(a.files.File), len(file), err)
	}
	// Each declaration has the names of all around it: those of a message that
	// hardly anything fits into are long, and so are those of what it holds.
	inside := new(descriptorpb.DescriptorProto)
	long, many := strings.Repeat("a", 1<<20), make([]*descriptorpb.DescriptorProto, 0, 1000)
	for i := range cap(many) {
		many = append(many, &descriptorpb.DescriptorProto{Name: proto.String(fmt.Sprint("a", i))})
	}
	inside.Name, inside.NestedType = &long, many
	deep := &descriptorpb.DescriptorProto{Name: proto.String("a")}
	for range 1000 {
		deep = &descriptorpb.DescriptorProto{Name: proto.String("a"), NestedType: []*descriptorpb.DescriptorProto{deep}}
	}
	for what, m := range map[string]*descriptorpb.DescriptorProto{"names of": inside, "cannot be read": deep} {
		octets, err := proto.Marshal(&descriptorpb.FileDescriptorProto{Name: proto.String("a.proto"), MessageType: []*descriptorpb.DescriptorProto{m}})
		if err != nil {
			t.Fatal(err)
		}
		a = &api{files: new(descriptorpb.FileDescriptorSet), seen: make(map[string]bool)}
		if err := a.add(&description{Files: [][]byte{octets}}); err == nil || !strings.Contains(err.Error(), what) || len(a.files.File) != 0 {
			t.Errorf("%d files are kept: %v, want %q", len(a.files.File), err, what)
		}
	}
	a = &api{files: new(descriptorpb.FileDescriptorSet), seen: make(map[string]bool)}
	if err := a.add(&description{Files: [][]byte{bytes.Repeat([]byte{0x22, 0}, maxDescription/2+1)}}); err == nil || len(a.files.File) != 0 {
		t.Errorf("a file larger than all may be is kept: %v", err)
	}
}

// What is small in a descriptor and large in memory is counted before it is
// decoded, over all files and however deep it lies.
func TestDescriptionsCostLittle(t *testing.T) {
	empty := bytes.Repeat([]byte{0x22, 0}, maxDescription/2-100)
	within := func(tag byte, b []byte) []byte {
		return append(protowire.AppendVarint([]byte{tag}, uint64(len(b))), b...)
	}
	half := empty[:maxPeerParts+10] // half as many messages
	for name, files := range map[string][][]byte{
		"messages":          {empty},
		"fields":            {within(0x22, bytes.Repeat([]byte{0x12, 0}, maxPeerParts+1))},
		"messages within":   {within(0x22, within(0x1a, bytes.Repeat([]byte{0x1a, 0}, maxPeerParts+1)))},
		"places":            {within(0x4a, bytes.Repeat([]byte{0x0a, 0}, maxPeerParts+1))},
		"in several files":  {append([]byte{0x0a, 1, 'a'}, half...), append([]byte{0x0a, 1, 'b'}, half...)},
		"one file repeated": {half, half},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		a := &api{files: new(descriptorpb.FileDescriptorSet), seen: make(map[string]bool)}
		err := a.add(&description{Files: files})
		runtime.ReadMemStats(&after)
		if most := fmt.Sprint("more than ", maxPeerParts, " messages"); err == nil || !strings.Contains(err.Error(), most) {
			t.Errorf("%s: %v, want %q", name, err, most)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 400*maxPeerParts {
			t.Errorf("%s: %d octets are allocated before it is refused", name, got)
		}
		if len(files) == 1 { // a file of descriptors has the same bound, and a larger one
			if _, err := descriptorSet(within(0x0a, bytes.Repeat(files[0], 1+2*maxFileParts/maxPeerParts))); err == nil || !strings.Contains(err.Error(), fmt.Sprint("more than ", maxFileParts, " messages")) {
				t.Errorf("%s in a file: %v", name, err)
			}
		}
	}
	a := &api{files: new(descriptorpb.FileDescriptorSet), seen: make(map[string]bool)}
	if err := a.add(&description{Files: [][]byte{half}}); err != nil {
		t.Errorf("half as many: %v", err)
	}
}

// A .proto file is compiled within bounds, with all that it imports.
func TestProtoFilesAreBounded(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, size int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, append([]byte(text), bytes.Repeat([]byte{' '}, size-len(text))...), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	imports := `syntax = "proto3";`
	for i := range maxProto / maxProtoText {
		name := fmt.Sprint("part", i, ".proto")
		write(name, `syntax = "proto3";`, maxProtoText)
		imports += fmt.Sprintf("import %q;", name)
	}
	for path, want := range map[string]string{
		write("large.proto", `syntax = "proto3";`, maxProtoText+1): "more than 1 MiB",
		write("many.proto", imports, 1000):                         "more than 8 MiB",
		write("large.binpb", "", maxProto+1):                       "more than 8 MiB",
	} {
		if _, err := (&protoFlags{file: path}).method(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", filepath.Base(path), err, want)
		}
	}
}

// Files that import each other in many ways are looked at once each.
func TestFilesAreKnownOnce(t *testing.T) {
	set := new(descriptorpb.FileDescriptorSet)
	var before []string
	for i := range 60 {
		var level []string
		for _, side := range []string{"a", "b"} {
			name := fmt.Sprint(side, i, ".proto")
			level = append(level, name)
			set.File = append(set.File, &descriptorpb.FileDescriptorProto{Name: &name, Dependency: before})
		}
		before = level
	}
	octets, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "many.binpb")
	if err := os.WriteFile(name, octets, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := (&protoFlags{file: name}).method(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "no service") {
		t.Error(err)
	}
}
