// Package servers gives tests the real servers that packages here and in contrib
// are clients of: started from what the system has installed, on loopback, with
// a password and a data folder of their own, and ended with the tests.
//
// A [Relay] is a network before one of them that a test cuts and stalls.
//
// A server that all tests of a package share is made when the first of them
// asks (Redis, MariaDB, Postgres, Memcached, NATS, RabbitMQ); one that a test
// pauses, breaks or configures is its own (NewRedis and so on). A package that
// uses them has
//
//	func TestMain(m *testing.M) { os.Exit(servers.RunMain(m)) }
//
// An environment variable may name a server that runs already, in the form that
// its driver takes: OWTP_TEST_REDIS, OWTP_TEST_MYSQL, OWTP_TEST_POSTGRES,
// OWTP_TEST_MEMCACHED, OWTP_TEST_NATS, OWTP_TEST_RABBITMQ. The shared server is
// then that one. Tests that pause and restart a server start one of their own all
// the same if they can; if its programs are not installed, they run the command
// in OWTP_TEST_REDIS_CONTROL (and so on) with one more argument, which is pause,
// resume, kill, stop or start, and which must have taken effect when the command
// ends. OWTP_TEST_RABBITMQ_CONTROL is also given "ctl" and rabbitmqctl's
// arguments.
//
// Where no server can be had a test is skipped with a message that says what to
// install, and fails if the variable CI is set: there, nobody reads messages.
package servers

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a server may take to be ready. MariaDB after a crash on a
// crowded machine takes ten seconds.
const patience = 60 * time.Second

// A Server is one that runs, or did until a test stopped it. Its methods fail
// the test where they cannot do what they say. One test uses them at a time.
type Server struct {
	// Addr is the host and port.
	Addr string

	// DSN is what the usual driver is configured with, password included.
	DSN string

	// Password is that of the user in DSN; empty where the server has none.
	Password string

	// Dir is the folder of data and log; empty if others have started it.
	Dir string

	kind    *kind
	args    []string
	env     []string // of RabbitMQ's programs
	process *process
	control string // the command that controls a server of others'
	paused  bool
}

// start makes the data folder and starts the server.
func start(k *kind, args ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "owtp-"+k.name+"-")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, kind: k, args: args}
	if k.password {
		s.Password = secret()
	}
	if err := s.begin(); err != nil {
		s.end()
		return nil, fmt.Errorf("%s does not start: %w\n%s", k.name, err, s.logTail())
	}
	return s, nil
}

func (s *Server) begin() (err error) {
	if err = s.kind.account().own(s.Dir); err != nil {
		return err
	}
	if s.kind.prepare != nil {
		if err = s.kind.prepare(s); err != nil {
			return err
		}
	}
	// Somebody else may take a free port first.
	for range 3 {
		var port int
		if port, err = freePort(); err != nil {
			return err
		}
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		s.DSN = s.kind.dsn(s)
		if err = s.launch(false); err == nil {
			return nil
		}
	}
	return err
}

// Port is that of Addr.
func (s *Server) Port() string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}

// launch starts the program and waits until it is ready. Where the data was used
// before, one that ends at once is started again: a database that was killed
// refuses while its last process is about to end.
func (s *Server) launch(again bool) (err error) {
	s.dismiss()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		switch {
		case s.process == nil || again && s.process.ended():
			s.dismiss()
			var argv []string
			if argv, err = s.kind.command(s); err != nil {
				return err
			}
			if s.process, err = launch(argv, s.Dir, s.kind.account(), s.kind.quit); err != nil {
				return err
			}
		case s.process.ended():
			return errors.New("it ended at once")
		}
		if err = ask(s.Addr, s.kind.ready); err == nil && !s.process.ended() {
			return nil
		}
	}
	return fmt.Errorf("not ready after %v: %w", patience, err)
}

// dismiss ends what was launched before, and its watchdog: that would take the
// end of its leash, which the garbage collector closes, for the end of the test,
// and remove the folder that the next program works in.
func (s *Server) dismiss() {
	if s.process != nil {
		s.process.kill()
		s.process = nil
	}
}

// ask dials and lets ready decide.
func ask(addr string, ready func(net.Conn) error) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	return ready(conn)
}

// end ends the server for good.
func (s *Server) end() {
	if s.process != nil {
		s.process.stop(s.kind.quit)
	}
	if s.Dir != "" {
		os.RemoveAll(s.Dir)
	}
}

// Pause stops the server's processes where they are: connections stay open and
// nothing answers.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	s.paused = true
	s.do(t, "pause", func() error { return s.process.halt() })
}

// Resume lets a paused server go on.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	s.paused = false
	s.do(t, "resume", func() error { return s.process.signalAll(ResumeSignal) })
}

// Kill ends the server as a crash would.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.do(t, "kill", func() error { s.process.kill(); return nil })
}

// Stop ends the server as its operator would.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.do(t, "stop", func() error { s.process.stop(s.kind.quit); return nil })
}

// Start starts a server that was stopped or killed, with the data and at the
// address that it had, and returns when it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.do(t, "start", func() error { return s.launch(true) })
}

// Signal sends a signal to the program alone, of a server that the test has started.
func (s *Server) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if s.Dir == "" {
		t.Fatalf("this test sends signals to %s, which %s names but does not start: %s", s.kind.name, s.kind.env, s.kind.advice())
	}
	if err := signal(s.process.cmd.Process.Pid, sig); err != nil {
		t.Fatalf("%s: %v", s.kind.name, err)
	}
}

func (s *Server) do(t testing.TB, verb string, own func() error) {
	t.Helper()
	var err error
	switch {
	case s.Dir != "":
		err = own()
	case s.control == "":
		t.Fatalf("this test must %s %s, which %s names but does not start: set %s_CONTROL to a command that does it, or %s",
			verb, s.kind.name, s.kind.env, s.kind.env, s.kind.advice())
	default:
		var out []byte
		if out, err = exec.Command("sh", "-c", s.control+` "$@"`, "sh", verb).CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		} else if verb == "start" {
			err = s.answers()
		}
	}
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", s.kind.name, verb, err, s.logTail())
	}
}

// answers waits until a server of others' accepts connections.
func (s *Server) answers() (err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = ask(s.Addr, func(net.Conn) error { return nil }); err == nil {
			return nil
		}
	}
	return err
}

// restore leaves a server of others' as it was found.
func (s *Server) restore(t testing.TB) {
	if s.paused {
		s.Resume(t)
	}
	if s.answers() != nil {
		s.Start(t)
	}
}

func (s *Server) logTail() string {
	if s.Dir == "" {
		return ""
	}
	log, err := os.ReadFile(logOf(s.Dir))
	if err != nil {
		return ""
	}
	return string(log[max(0, len(log)-4096):])
}

func logOf(dir string) string { return filepath.Join(dir, "log") }

// addrOf finds host and port in a driver's URL or DSN.
func addrOf(dsn string) string {
	if _, rest, ok := strings.Cut(dsn, "@tcp("); ok {
		addr, _, _ := strings.Cut(rest, ")")
		return addr
	}
	if u, err := url.Parse(dsn); err == nil && u.Host != "" {
		return u.Host
	}
	return dsn
}

// signal sends a signal, which a process that has ended does not mind.
func signal(pid int, sig syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Signal(sig)
	}
	if err == os.ErrProcessDone {
		return nil
	}
	return err
}
