// Package leakcheck fails a package's tests when they leave goroutines behind.
package leakcheck

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// patience is for goroutines that are about to end.
const patience = 5 * time.Second

// Runner is a *testing.M.
type Runner interface{ Run() int }

// RunMain runs the tests and returns the code to exit with. It is the whole of
// a TestMain: os.Exit(leakcheck.RunMain(m)).
func RunMain(m Runner) int {
	return run(m, patience, os.Stderr)
}

func run(m Runner, patience time.Duration, out io.Writer) int {
	code := m.Run()
	if code != 0 {
		return code // a failed test may well leave something behind
	}
	left := Wait(patience)
	if len(left) == 0 {
		return 0
	}
	fmt.Fprintf(out, "leakcheck: %d goroutines are left after the tests:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
	return 1
}

// Wait waits until no goroutine but those of the runtime and the tests is left,
// and returns the stacks of those that are still there when patience ends.
func Wait(patience time.Duration) []string {
	end := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		left := strangers()
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
		time.Sleep(pause)
	}
}

// strangers returns the stacks of all goroutines but the caller's and those
// that belong to every test program.
func strangers() []string {
	stacks := allStacks()
	var left []string
	for i, stack := range strings.Split(strings.TrimSpace(stacks), "\n\n") {
		if i > 0 && !ofTestProgram(stack) { // the first is the caller
			left = append(left, stack)
		}
	}
	return left
}

func allStacks() string {
	for size := 64 << 10; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return string(buf[:n])
		}
	}
}

// ofTestProgram knows goroutines by the functions that stand at a line's
// beginning, never by what a path or an argument may contain.
func ofTestProgram(stack string) bool {
	for line := range strings.SplitSeq(stack, "\n") {
		for _, own := range []string{
			"testing.Main(", "testing.(*M).", "testing.(*T).Run(", "testing.tRunner(",
			"testing.runFuzzing(", "testing.runTests(", "testing.(*F).Fuzz(",
			"runtime.goexit0(", "runtime.ensureSigM(", "created by runtime.",
			"os/signal.signal_recv(", "os/signal.loop(",
			"runtime.ReadTrace(", "runtime/pprof.",
		} {
			if strings.HasPrefix(line, own) {
				return true
			}
		}
	}
	return false
}
