package nats_test

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/owtp-go/owtp/contrib/nats/broker"
	"github.com/owtp-go/owtp/internal/servers"
)

// brokerEnv makes a test process an embedded broker, with these options. It is a
// process of its own so that it can be killed and stopped, and its goroutines are
// not taken for the client's.
const brokerEnv = "OWTP_TEST_BROKER_PROCESS"

func runBroker() {
	var o broker.Options
	if err := json.Unmarshal([]byte(os.Getenv(brokerEnv)), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	b, err := broker.Start(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(b.URL())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends, whatever ends it
	b.Close()
	os.Exit(0)
}

// A machine is a server that a test may pause, kill, stop and start again.
type machine interface {
	Pause(testing.TB)
	Resume(testing.TB)
	Kill(testing.TB)
	Stop(testing.TB)
	Start(testing.TB)
}

var _ machine = (*servers.Server)(nil)

// brokerProcess implements machine.
type brokerProcess struct {
	options broker.Options
	url     string
	cmd     *exec.Cmd
	stdin   io.Closer
}

// newBroker starts an embedded broker of the test's own, with a user who may do
// everything.
func newBroker(t testing.TB, o broker.Options) (*brokerProcess, place) {
	t.Helper()
	p := place{account: "owtp", password: rand.Text()}
	o.Users = append(o.Users, broker.User{Name: p.account, Password: p.password})
	if o.StoreDir == "" {
		o.StoreDir = t.TempDir()
	}
	b := &brokerProcess{options: o}
	b.Start(t)
	t.Cleanup(func() { b.end() })
	b.options.Address = strings.TrimPrefix(b.url, "nats://")
	p.url = b.url
	return b, p
}

func (b *brokerProcess) Start(t testing.TB) {
	t.Helper()
	options, err := json.Marshal(b.options)
	if err != nil {
		t.Fatal(err)
	}
	b.cmd = exec.Command(os.Args[0])
	b.cmd.Env = append(os.Environ(), brokerEnv+"="+string(options))
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
	b.url = strings.TrimSpace(line)
}

func (b *brokerProcess) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := b.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (b *brokerProcess) Pause(t testing.TB)  { b.signal(t, syscall.SIGSTOP) }
func (b *brokerProcess) Resume(t testing.TB) { b.signal(t, syscall.SIGCONT) }

func (b *brokerProcess) Kill(t testing.TB) {
	b.signal(t, syscall.SIGKILL)
	b.end()
}

func (b *brokerProcess) Stop(t testing.TB) {
	t.Helper()
	b.stdin.Close()
	if err := b.cmd.Wait(); err != nil {
		t.Fatalf("the broker did not end well: %v", err)
	}
	b.cmd = nil
}

func (b *brokerProcess) end() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill()
		b.stdin.Close()
		_ = b.cmd.Wait()
		b.cmd = nil
	}
}
