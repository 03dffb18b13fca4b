package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gengo "google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/pluginpb"

	"github.com/owtp-go/owtp/internal/stubs"
)

var update = flag.Bool("update", false, "write the golden files anew")

// What the generator of stubs writes for the files of testdata/stubs, or why it
// does not. A first line "// option: x=y" is what --owtp_opt=x=y says. That such
// code runs is tested with internal/teststubs.
func TestStubs(t *testing.T) {
	files, err := filepath.Glob("testdata/stubs/*.proto")
	if err != nil || len(files) == 0 {
		t.Fatalf("no .proto files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".proto"), func(t *testing.T) {
			got := stubsOf(t, file)
			golden := strings.TrimSuffix(file, ".proto") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("not as in %s; if it should be so: go test -run TestStubs -update\n%s", golden, got)
			}
		})
	}
}

func stubsOf(t *testing.T, file string) string {
	var flags flag.FlagSet
	var o stubs.Options
	o.Register(&flags)
	plugin, err := protogen.Options{ParamFunc: flags.Set}.New(request(t, file))
	if err != nil {
		t.Fatal(err)
	}
	stubs.Generate(plugin, o)
	return text(plugin.Response())
}

// All that the generator writes compiles beside the messages.
func TestStubsCompile(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	const library = "module github.com/owtp-go/owtp\n"
	text := strings.Replace(string(mod), library, "module example.com\n", 1) +
		fmt.Sprintf("\nrequire github.com/owtp-go/owtp v0.0.0\nreplace github.com/owtp-go/owtp => %q\n", root)
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, []byte(text), 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", text)
	write("go.sum", string(sum))
	files, err := filepath.Glob("testdata/stubs/*.proto")
	if err != nil {
		t.Fatal(err)
	}
	compiled := 0
	for _, file := range files {
		var flags flag.FlagSet
		var o stubs.Options
		o.Register(&flags)
		plugin, err := protogen.Options{ParamFunc: flags.Set}.New(request(t, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range plugin.Files {
			if f.Generate {
				gengo.GenerateFile(plugin, f)
			}
		}
		stubs.Generate(plugin, o)
		response := plugin.Response()
		if response.Error != nil {
			continue // what it says is in the golden file
		}
		for _, f := range response.File {
			name, ok := strings.CutPrefix(f.GetName(), "example.com/")
			if !ok {
				t.Fatalf("%s: its go_package must begin with example.com/", file)
			}
			write(name, f.GetContent())
			compiled++
		}
	}
	if compiled < 10 {
		t.Fatalf("only %d files were written", compiled)
	}
	cmd := exec.Command("go", "build", "./...")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// request is what protoc sends to the plugin for a file.
func request(t *testing.T, file string) *pluginpb.CodeGeneratorRequest {
	out, err := compile(filepath.Dir(file), []string{filepath.Base(file)})
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if line, _, _ := strings.Cut(string(source), "\n"); strings.HasPrefix(line, "// option: ") {
		out.Parameter = proto.String(strings.TrimPrefix(line, "// option: "))
	}
	return out
}

func text(response *pluginpb.CodeGeneratorResponse) string {
	var b strings.Builder
	if response.Error != nil {
		fmt.Fprintf(&b, "error:\n%s\n", response.GetError())
	}
	for _, f := range response.File {
		fmt.Fprintf(&b, "-- %s --\n%s", f.GetName(), f.GetContent())
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

// The plugin itself does what protoc and buf ask of it.
func TestPlugin(t *testing.T) {
	program := filepath.Join(t.TempDir(), "protoc-gen-owtp")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/owtp-go/owtp/cmd/protoc-gen-owtp").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"plain", "suffix", "streams", "none"} {
		file := filepath.Join("testdata", "stubs", name+".proto")
		octets, err := proto.Marshal(request(t, file))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program)
		cmd.Stdin = bytes.NewReader(octets)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var response pluginpb.CodeGeneratorResponse
		if err := proto.Unmarshal(out, &response); err != nil {
			t.Fatal(err)
		}
		if got := text(&response); got != stubsOf(t, file) {
			t.Errorf("%s: the plugin writes\n%s", name, got)
		}
		if features := pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL | pluginpb.CodeGeneratorResponse_FEATURE_SUPPORTS_EDITIONS; response.GetSupportedFeatures() != uint64(features) {
			t.Errorf("%s: features %d", name, response.GetSupportedFeatures())
		}
	}
	// It is not started by people.
	if out, err := exec.Command(program, "wallet.proto").CombinedOutput(); err == nil || !strings.Contains(string(out), "protoc or buf starts this program") {
		t.Errorf("with an argument: %v\n%s", err, out)
	}
	if out, err := exec.Command(program, "--version").Output(); err != nil || !strings.HasPrefix(string(out), "protoc-gen-owtp ") {
		t.Errorf("--version: %v\n%s", err, out)
	}
}
