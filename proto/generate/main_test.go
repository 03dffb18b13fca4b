package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The code in the repository is what make generate writes.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	root := filepath.Join("..", "..")
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"proto/owtppb/owtp.pb.go", "proto/owtppb/value.pb.go"} {
		if files[name] == "" {
			t.Errorf("%s is not among what is generated", name)
		}
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is not what its .proto file gives: run make generate", name)
		}
	}
}
