package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/internal/leakcheck"
)

func TestMain(m *testing.M) { os.Exit(leakcheck.RunMain(m)) }

// TestReadmeFirstProgram keeps the README's first program the one of this
// folder, to the letter, and its output what the program prints.
func TestReadmeFirstProgram(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	// Its first Go block, and what stands in the block behind it.
	_, rest, ok := strings.Cut(string(readme), "```go\n")
	program, rest, ok2 := strings.Cut(rest, "```\n")
	if !ok || !ok2 {
		t.Fatal("README.md has no Go program")
	}
	if program != string(source) {
		t.Error("the README's first program is not the text of examples/hello/main.go")
	}
	_, rest, ok = strings.Cut(rest, "```text\n")
	output, _, ok2 := strings.Cut(rest, "```\n")
	if !ok || !ok2 {
		t.Fatal("README.md does not say what the program prints")
	}
	if got := printed(t, main); got != output {
		t.Errorf("the program prints\n%s\nbut the README says\n%s", got, output)
	}
}

func printed(t *testing.T, f func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	f() // prints far less than a pipe holds
	w.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
