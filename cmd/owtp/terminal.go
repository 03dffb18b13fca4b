package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// A console is where the tool reads and writes. Tests give it other streams.
type console struct {
	in  io.Reader
	out io.Writer // results only, so that scripts can read them
	err io.Writer // everything else
}

// note writes a line for people.
func (c *console) note(format string, args ...any) {
	fmt.Fprintf(c.err, format+"\n", args...)
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// interactive reports whether somebody sits there who can answer a question.
func (c *console) interactive() bool { return isTerminal(c.in) }

// asking is where questions go: where notes go, unless those are kept in a
// file, in which case the person would wait for a question that nobody sees.
func (c *console) asking() io.Writer {
	if f, ok := c.in.(*os.File); ok && isTerminal(f) && !isTerminal(c.err) {
		return f
	}
	return c.err
}

// confirm asks a question whose answer is no unless somebody types yes.
func (c *console) confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(c.asking(), "%s [y/N] ", question)
	line, err := interruptible(ctx, func() (string, error) {
		line, err := bufio.NewReader(c.in).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return line, err
	})
	if err != nil {
		fmt.Fprintln(c.asking())
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// readSecret asks for a line that is not shown. The terminal is put back as it
// was when the context ends meanwhile.
func (c *console) readSecret(ctx context.Context, prompt string) ([]byte, error) {
	f, ok := c.in.(*os.File)
	if !ok {
		return nil, errors.New("no terminal to ask on")
	}
	state, err := term.GetState(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("no terminal to ask on: %w", err)
	}
	fmt.Fprint(c.asking(), prompt)
	defer fmt.Fprintln(c.asking())
	secret, err := interruptible(ctx, func() ([]byte, error) { return term.ReadPassword(int(f.Fd())) })
	if ctx.Err() != nil {
		term.Restore(int(f.Fd()), state)
	}
	return secret, err
}

// interruptible lets go of a read that nothing can end when the context ends.
// The goroutine stays behind; the process ends soon after.
func interruptible[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	ch := make(chan answer, 1)
	go func() {
		v, err := read()
		ch <- answer{v, err}
	}()
	select {
	case a := <-ch:
		return a.v, a.err
	case <-ctx.Done():
		var zero T
		return zero, errors.New("interrupted")
	}
}

// printable makes text of a stranger safe to print: control characters could
// move the cursor, rewrite what stands there or type into the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// printableLines is printable for text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = printable(l)
	}
	return strings.Join(lines, "\n")
}
