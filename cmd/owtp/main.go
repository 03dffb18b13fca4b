// Command owtp makes node keys, runs a node, calls methods of other nodes and
// checks signed evidence. `owtp help` shows how; `owtp demo` shows what the
// protocol does.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks to end, the second one ends.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], &console{in: os.Stdin, out: os.Stdout, err: os.Stderr})
	stop()
	os.Exit(code)
}

// run is the whole tool. It returns the exit code.
func run(ctx context.Context, args []string, c *console) int {
	out := &checkedWriter{w: c.out}
	inner := *c
	// A terminal stays one: who asks whether it is needs the file itself.
	if !isTerminal(c.out) {
		inner.out = out
	}
	root := newRootCommand(&inner)
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(inner.out)
	root.SetErr(c.err)
	err := root.ExecuteContext(ctx)
	if err == nil && out.err != nil {
		err = fmt.Errorf("writing the output: %w", out.err)
	}
	var silent *silentError
	if err != nil && !errors.As(err, &silent) {
		fmt.Fprintf(c.err, "owtp: %s\n", printableLines(strings.TrimPrefix(err.Error(), "owtp: ")))
	}
	return exitCode(err)
}

// A silentError is one about which everything has been said.
type silentError struct{ code int }

func (e *silentError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// checkedWriter remembers that the output could not be written, so that a full
// disk or a closed pipe does not look like success.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (w *checkedWriter) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	if w.err == nil {
		w.err = err
	}
	return n, err
}
