package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if os.Getenv("OWTP_PORTING_RUN") != "" {
		main()
		return
	}
	os.Exit(leakcheck.RunMain(m))
}

// TestProgram keeps what the documents say the program prints true, in a
// process of its own: it ends where something is wrong.
func TestProgram(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "OWTP_PORTING_RUN=1")
	var problems bytes.Buffer
	cmd.Stderr = &problems
	printed, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, problems.Bytes())
	}
	for _, name := range []string{"../../docs/PORTING.md", "../../docs/PORTING.zh-CN.md"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "```text\n")
		if want, _, _ := strings.Cut(rest, "```\n"); string(printed) != want {
			t.Errorf("the program prints\n%s\nbut %s says\n%s", printed, name, want)
		}
	}
}
