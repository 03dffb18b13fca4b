package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
