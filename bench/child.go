package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// A child is this program as another process, which is told by lines on its
// standard input what to do, answers by a line of JSON, and ends with its input.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// childEnv holds the task of a child.
const childEnv = "OWTP_BENCH_CHILD"

func startChild(task, what string, n int) (*child, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(path)}
	c.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", childEnv, task, n, what), "GORACE=atexit_sleep_ms=0") // or it ends a second late
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return c, c.cmd.Start()
}

func (c *child) ask(what string, answer any) error {
	if _, err := fmt.Fprintln(c.in, what); err != nil {
		return err
	}
	text, err := c.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the process that was asked to %s is gone: %w", what, err)
	}
	return json.Unmarshal(text, answer)
}

func (c *child) end(err *error) {
	c.in.Close()
	if e := c.cmd.Wait(); *err == nil && e != nil {
		*err = e
	}
}

// runChild is the life of a child.
func runChild(spec string) error {
	task, rest, _ := strings.Cut(spec, " ")
	var n int
	var kind, address string
	if fields := strings.Fields(rest); len(fields) > 1 {
		if _, err := fmt.Sscan(fields[0], &n); err != nil {
			return err
		}
		kind = fields[1]
		if len(fields) > 2 {
			address = fields[2]
		}
	}
	if err := openFiles(uint64(n + 1000)); err != nil {
		return err
	}
	var answer func(what string) (any, error)
	var stop func()
	var err error
	switch task {
	case "serve":
		answer, stop, err = serveIdle(kind, n)
	case "hold":
		answer, stop, err = holdConns(kind, address, n)
	default:
		err = fmt.Errorf("there is no task %q", task)
	}
	if err != nil {
		return err
	}
	defer stop()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		v, err := answer(lines.Text())
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
			return err
		}
	}
	return lines.Err()
}
