// Package brokertest gives tests an embedded broker in a process of its own, so that
// it can be killed and stopped, and its goroutines are not taken for the client's.
// A package that uses it begins its TestMain with brokertest.Main().
package brokertest

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/owtp-go/owtp/contrib/nats/broker"
	"github.com/owtp-go/owtp/internal/servers"
)

// variable makes a test process an embedded broker, with these options.
const variable = "OWTP_TEST_BROKER_PROCESS"

// Main does not return in a process that is a broker.
func Main() {
	if text := os.Getenv(variable); text != "" {
		if err := run(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func run(text string) error {
	var o broker.Options
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	b, err := broker.Start(o)
	if err != nil {
		return err
	}
	fmt.Println(b.URL())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends, whatever ends it
	return b.Close()
}

// A Broker is one that runs, or did until a test stopped it. Its methods are those
// of servers.Server. One test uses them at a time.
type Broker struct {
	// Addr is the host and port, and Account and Password are those of a user who
	// may do everything.
	Addr, Account, Password string

	options broker.Options
	cmd     *exec.Cmd
	stdin   io.Closer
}

// New starts a broker of the test's own.
func New(t testing.TB, o broker.Options) *Broker {
	t.Helper()
	b := &Broker{Account: "owtp", Password: rand.Text(), options: o}
	b.options.Users = append(slices.Clone(o.Users), broker.User{Name: b.Account, Password: b.Password})
	if o.StoreDir == "" {
		b.options.StoreDir = t.TempDir()
	}
	b.Start(t)
	t.Cleanup(b.end)
	return b
}

// URL has the user and the password in it.
func (b *Broker) URL() string { return "nats://" + b.Account + ":" + b.Password + "@" + b.Addr }

// Start starts it, with the data and at the address that it had.
func (b *Broker) Start(t testing.TB) {
	t.Helper()
	options, err := json.Marshal(b.options)
	if err != nil {
		t.Fatal(err)
	}
	b.cmd = exec.Command(os.Args[0])
	b.cmd.Env = append(os.Environ(), variable+"="+string(options))
	b.cmd.Stderr = os.Stderr
	stdout, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if b.stdin, err = b.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.end()
		t.Fatalf("the broker does not start: %v", err)
	}
	b.Addr = strings.TrimPrefix(strings.TrimSpace(line), "nats://")
	b.options.Address = b.Addr // the same one when it is started again
}

func (b *Broker) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := b.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Pause stops the process where it is: connections stay open and nothing answers.
func (b *Broker) Pause(t testing.TB) { b.signal(t, servers.PauseSignal) }

// Resume lets a paused broker go on.
func (b *Broker) Resume(t testing.TB) { b.signal(t, servers.ResumeSignal) }

// Kill ends it as a crash would.
func (b *Broker) Kill(t testing.TB) {
	t.Helper()
	b.signal(t, syscall.SIGKILL)
	b.end()
}

// Stop ends it as its operator would.
func (b *Broker) Stop(t testing.TB) {
	t.Helper()
	b.stdin.Close()
	if err := b.cmd.Wait(); err != nil {
		t.Fatalf("the broker did not end well: %v", err)
	}
	b.cmd = nil
}

func (b *Broker) end() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill()
		b.stdin.Close()
		_ = b.cmd.Wait()
		b.cmd = nil
	}
}
