// Package examples_test keeps what the documents show true: every Go block of
// the READMEs and of PORTING is part of a program in one of these folders, and every
// one of V1 of an example of the package, which are built and vetted with everything
// else.
package examples_test

import (
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadmeBlocksAreExamples(t *testing.T) {
	files, err := filepath.Glob("*/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no example programs: %v", err)
	}
	programs := make(map[string]string)
	for _, f := range append(files, "../v1_example_test.go") {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		programs[f] = tokens(b)
	}
	for name, least := range map[string]int{"../README.md": 5, "../README.zh-CN.md": 5, "../docs/PORTING.md": 1, "../docs/PORTING.zh-CN.md": 1, "../docs/V1.md": 3, "../docs/V1.zh-CN.md": 3} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			blocks := goBlocks(string(b))
			if len(blocks) < least {
				t.Fatalf("%d Go blocks; the check looks at the wrong thing", len(blocks))
			}
			for _, block := range blocks {
				if !isPart(tokens([]byte(block)), programs) {
					t.Errorf("this block is part of no program in examples:\n%s", block)
				}
			}
		})
	}
}

// TestTokens proves that the comparison can fail.
func TestTokens(t *testing.T) {
	programs := map[string]string{"x": tokens([]byte("package x\nvar a = f(1, 2) // why\n"))}
	for block, want := range map[string]bool{
		"a = f(1, 2)": true, "a   = f(1,\t2) // 为什么": true, "a = f(1, 3)": false, "a = ff(1, 2)": false, "f(1": true, "a = f(12)": false,
	} {
		if got := isPart(tokens([]byte(block)), programs); got != want {
			t.Errorf("%q: got %v, want %v", block, got, want)
		}
	}
}

func goBlocks(text string) []string {
	var blocks []string
	for {
		_, rest, ok := strings.Cut(text, "```go\n")
		if !ok {
			return blocks
		}
		var block string
		block, text, _ = strings.Cut(rest, "```")
		blocks = append(blocks, block)
	}
}

func isPart(block string, programs map[string]string) bool {
	block = strings.TrimSuffix(block, "\x00;\x00")
	for _, p := range programs {
		if strings.Contains(p, strings.TrimSuffix(block, "\x00")+"\x00") {
			return true
		}
	}
	return false
}

// tokens is Go text without white space and comments, each token between zero
// bytes: the READMEs' comments are in two languages.
func tokens(src []byte) string {
	var s scanner.Scanner
	fset := token.NewFileSet()
	s.Init(fset.AddFile("", fset.Base(), len(src)), src, nil, 0)
	var b strings.Builder
	b.WriteByte(0)
	for {
		_, tok, lit := s.Scan()
		switch {
		case tok == token.EOF:
			return b.String()
		case tok == token.SEMICOLON:
			lit = ";"
		case lit == "":
			lit = tok.String()
		}
		b.WriteString(lit)
		b.WriteByte(0)
	}
}
