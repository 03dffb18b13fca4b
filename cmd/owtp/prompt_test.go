//go:build linux || darwin

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// A typist runs the tool on a terminal, waits for what it says and types.
type typist struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	slave  *os.File // kept open, so that its settings can be looked at

	mu     sync.Mutex
	screen bytes.Buffer
	grown  chan struct{}
	done   chan struct{}
}

func newTypist(t *testing.T, args ...string) *typist {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// testscript.Main runs the tool when the test binary is called by its name.
	tool := filepath.Join(t.TempDir(), "owtp")
	if err := os.Symlink(self, tool); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "GORACE="+quickRace)
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	y := &typist{t: t, cmd: cmd, master: master, slave: slave, grown: make(chan struct{}, 1), done: make(chan struct{})}
	go y.watch()
	t.Cleanup(func() {
		cmd.Process.Kill()
		slave.Close()
		master.Close()
		<-y.done
	})
	return y
}

func (y *typist) watch() {
	defer close(y.done)
	io.Copy(y, y.master)
}

func (y *typist) Write(b []byte) (int, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	select {
	case y.grown <- struct{}{}:
	default:
	}
	return y.screen.Write(b)
}

func (y *typist) text() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.screen.String()
}

// waitFor waits until the screen shows a text n times.
func (y *typist) waitFor(text string, n int) {
	y.t.Helper()
	timeout := time.After(10 * time.Second)
	for strings.Count(y.text(), text) < n {
		select {
		case <-y.grown:
		case <-y.done:
			if strings.Count(y.text(), text) < n {
				y.t.Fatalf("it ended without %q; the screen shows %q", text, y.text())
			}
		case <-timeout:
			y.t.Fatalf("waiting for %q; the screen shows %q", text, y.text())
		}
	}
}

func (y *typist) enter(line string) {
	y.t.Helper()
	// The prompt is on the screen a moment before the echo is off.
	time.Sleep(100 * time.Millisecond)
	if _, err := io.WriteString(y.master, line+"\r"); err != nil {
		y.t.Fatal(err)
	}
}

// end waits for the tool and returns its exit code.
func (y *typist) end() int {
	y.t.Helper()
	timer := time.AfterFunc(30*time.Second, func() { y.cmd.Process.Kill() })
	defer timer.Stop()
	y.cmd.Wait()
	return y.cmd.ProcessState.ExitCode()
}

func TestPassphraseIsNotShown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.pem")
	y := newTypist(t, "keygen", "-o", file, "--encrypt")
	y.waitFor("New passphrase", 1)
	y.enter("correct horse")
	y.waitFor("The same again", 1)
	y.enter("correct horse")
	if code := y.end(); code != exitOK {
		t.Fatalf("exit code %d: %q", code, y.text())
	}
	if strings.Contains(y.text(), "horse") {
		t.Errorf("the screen shows the passphrase: %q", y.text())
	}
	if text, err := os.ReadFile(file); err != nil || !bytes.Contains(text, []byte(pemEncrypted)) {
		t.Errorf("the key file: %v", err)
	}
}

func TestPassphrasesDiffer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.pem")
	y := newTypist(t, "keygen", "-o", file, "--encrypt")
	y.waitFor("New passphrase", 1)
	y.enter("correct horse")
	y.waitFor("The same again", 1)
	y.enter("battery staple")
	if code := y.end(); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a key was written")
	}
}

func TestPassphraseOfExistingKey(t *testing.T) {
	text, err := os.ReadFile("testdata/keys/openssl-sm2-pbkdf2.pem")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "node.pem")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for passphrase, want := range map[string]int{"correct horse": exitOK, "battery staple": exitUsage, "": exitUsage} {
		y := newTypist(t, "id", file)
		y.waitFor("Passphrase for ", 1)
		y.enter(passphrase)
		if code := y.end(); code != want {
			t.Errorf("%q: exit code %d, want %d: %q", passphrase, code, want, y.text())
		}
	}
}

// TestInterruptedPrompt sends what Ctrl-C sends: the tool must end at once and
// leave the terminal as it was.
func TestInterruptedPrompt(t *testing.T) {
	y := newTypist(t, "keygen", "-o", filepath.Join(t.TempDir(), "node.pem"), "--encrypt")
	before, err := term.GetState(int(y.slave.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	y.waitFor("New passphrase", 1)
	time.Sleep(100 * time.Millisecond)
	if during, err := term.GetState(int(y.slave.Fd())); err != nil || reflect.DeepEqual(before, during) {
		t.Errorf("the terminal echoes while it asks: %v", err)
	}
	if err := y.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := y.end(); code != exitUsage {
		t.Errorf("exit code %d: %q", code, y.text())
	}
	y.waitFor("interrupted", 1)
	if after, err := term.GetState(int(y.slave.Fd())); err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("the terminal was left changed: %v", err)
	}
}

// TestTerminalLayout prints on a terminal, where JSON is laid out for people.
func TestTerminalLayout(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	c := &console{in: slave, out: slave, err: slave}
	if err := c.printJSON([]byte(`{"b":[1],"a":"\u001b"}`)); err != nil {
		t.Fatal(err)
	}
	const want = "{\r\n  \"b\": [\r\n    1\r\n  ],\r\n  \"a\": \"\\u001b\"\r\n}\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(master, got); err != nil || string(got) != want {
		t.Errorf("the terminal shows %q, want %q (%v)", got, want, err)
	}
}
