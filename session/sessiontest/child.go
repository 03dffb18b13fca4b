package sessiontest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// childVar makes a test binary one of the suite's other processes: it has
	// the name of the test that is to call Run there.
	childVar = "OWTP_SESSIONTEST_CHILD"

	// childTime is how long one such process lives at most, whatever happens.
	childTime = 3 * time.Minute

	// says begins the lines that are for the parent; testing prints others.
	says = "\x1esessiontest "
)

// A child is another process with the same store: this test binary, started
// again. It gets one command a line and answers with a line each.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// startChild starts a process that calls o.Connect with config.
func startChild(t *testing.T, run, config string) *child {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), childTime)
	parts := strings.Split(run, "/")
	for i := range parts {
		parts[i] = "^" + regexp.QuoteMeta(parts[i]) + "$"
	}
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run="+strings.Join(parts, "/"), "-test.count=1", "-test.timeout="+childTime.String())
	cmd.Env = append(os.Environ(), childVar+"="+run)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	c := &child{cmd: cmd, in: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() { c.kill(); cancel() })
	// By the pipe and not by an argument: a DSN may hold a password.
	c.send(t, strconv.Quote(config))
	if got := c.hear(t); got != "ready" {
		t.Fatalf("a process that opens the same store says %q", got)
	}
	return c
}

func (c *child) send(t *testing.T, command string) {
	t.Helper()
	_, err := io.WriteString(c.in, command+"\n")
	must(t, err)
}

// hear returns the next line; the test fails if the process has ended.
func (c *child) hear(t *testing.T) string {
	t.Helper()
	var other []string
	for c.out.Scan() {
		// What testing prints may stand before it in the same line.
		if _, line, ok := strings.Cut(c.out.Text(), says); ok {
			return line
		}
		other = append(other, c.out.Text())
	}
	t.Fatalf("another process of the test has ended (%v):\n%s", c.out.Err(), strings.Join(other, "\n"))
	return ""
}

// end lets the process end by itself and checks that its tests have passed.
func (c *child) end(t *testing.T) {
	t.Helper()
	must(t, c.in.Close())
	var other []string
	for c.out.Scan() {
		other = append(other, c.out.Text())
	}
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("another process of the test: %v\n%s", err, strings.Join(other, "\n"))
	}
}

// kill ends the process as a crash would: nothing of its own runs any more.
func (c *child) kill() {
	c.cmd.Process.Kill()
	for c.out.Scan() {
	}
	c.cmd.Wait()
}

// answer is the child's side: it opens the store and does what it is told until
// its standard input ends.
func answer(t *testing.T, o Options) {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	if !in.Scan() {
		return
	}
	config, err := strconv.Unquote(in.Text())
	must(t, err)
	p, err := o.Connect(t.Context(), config)
	if err != nil {
		fmt.Println(says + "error " + err.Error())
		t.Fatal(err)
	}
	s := newStore(t, p, o)
	fmt.Println(says + "ready")
	for in.Scan() {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		key, err := strconv.Unquote(arg)
		must(t, err)
		switch verb {
		case "race":
			fmt.Println(says + s.race(key))
		case "count":
			fmt.Println(says + s.count(key, counts))
		case "write":
			s.writeUntilKilled(key)
		default:
			t.Fatalf("unknown command %q", verb)
		}
	}
}
