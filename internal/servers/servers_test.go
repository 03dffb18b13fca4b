//go:build unix

package servers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(RunMain(m)) }

// TestLife leads one server of each kind through all that tests do to it.
func TestLife(t *testing.T) {
	for _, k := range []*kind{&redis, &mariadb, &postgres, &memcached, &nats, &rabbitmq} {
		t.Run(k.name, func(t *testing.T) {
			s := own(t, k, nil)
			if s.Dir == "" {
				t.Skip("it is not started here, but by " + k.env + "_CONTROL")
			}
			answers := func() error { return ask(s.Addr, k.ready) }
			if err := answers(); err != nil {
				t.Fatal(err)
			}
			s.Pause(t)
			if answers() == nil {
				t.Error("it answers while it is paused")
			}
			s.Resume(t)
			if err := answers(); err != nil {
				t.Errorf("after Resume: %v", err)
			}
			s.Kill(t)
			if answers() == nil {
				t.Error("it answers after it was killed")
			}
			s.Start(t)
			s.Stop(t)
			if answers() == nil {
				t.Error("it answers after it was stopped")
			}
			s.Start(t)
			if err := answers(); err != nil {
				t.Errorf("after Start: %v", err)
			}
		})
	}
}

func TestShared(t *testing.T) {
	a, b := Redis(t), Redis(t)
	if a != b {
		t.Error("two shared servers of one kind")
	}
	if c := NewRedis(t); c.Addr == a.Addr && c.Dir != "" {
		t.Error("a test's own server is the shared one")
	}
}

// TestLaunchAgain: what watches a program that has ended by itself does not remove
// the folder of the one that takes its place.
func TestLaunchAgain(t *testing.T) {
	s := NewRedis(t)
	if s.Dir == "" {
		t.Skip("a server of others'")
	}
	first := s.process
	if err := signal(first.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.done
	watch := first.watch
	if err := s.launch(true); err != nil {
		t.Fatal(err)
	}
	if watch.ProcessState == nil {
		t.Error("the first program's watchdog is still there")
	}
	runtime.GC() // closes what nobody can reach
	runtime.GC()
	if _, err := os.Stat(s.Dir); err != nil {
		t.Error(err)
	}
}

// TestOrphan kills a test process, which cannot do anything about its servers
// any more: the watchdog ends them, also a paused one, and removes their files.
func TestOrphan(t *testing.T) {
	if out := os.Getenv("OWTP_ORPHAN"); out != "" {
		s := own(t, &redis, nil)
		s.Pause(t)
		if err := os.WriteFile(out, []byte(strconv.Itoa(s.process.cmd.Process.Pid)+" "+s.Dir), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
	}
	if redis.missing() != "" {
		unavailable(t, &redis)
	}
	out := filepath.Join(t.TempDir(), "out")
	cmd := exec.Command(os.Args[0], "-test.run=^TestOrphan$")
	cmd.Env = append(os.Environ(), "OWTP_ORPHAN="+out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var told []byte
	wait(t, func() bool { told, _ = os.ReadFile(out); return len(told) > 0 })
	cmd.Process.Kill()
	cmd.Wait()
	pid, dir, _ := strings.Cut(string(told), " ")
	wait(t, func() bool {
		_, err := os.Stat(dir)
		state, _ := os.ReadFile("/proc/" + pid + "/stat")
		return os.IsNotExist(err) && (len(state) == 0 || strings.Contains(string(state), ") Z "))
	})
}

func wait(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}

func TestAddrOf(t *testing.T) {
	for dsn, want := range map[string]string{
		"redis://u:p@h:1/0": "h:1", "postgres://u:p@h:2/db?sslmode=disable": "h:2", "u:p@tcp(h:3)/db?x=y": "h:3", "h:4": "h:4",
	} {
		if got := addrOf(dsn); got != want {
			t.Errorf("addrOf(%q) = %q, want %q", dsn, got, want)
		}
	}
}

// TestControl leads a server of others' through its command.
func TestControl(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	said := filepath.Join(t.TempDir(), "said")
	s := &Server{Addr: l.Addr().String(), kind: &redis, control: "echo >>" + said}
	s.Pause(t)
	s.Resume(t)
	s.Kill(t)
	s.Start(t)
	s.Stop(t)
	if got, _ := os.ReadFile(said); string(got) != "pause\nresume\nkill\nstart\nstop\n" {
		t.Errorf("the command was told %q", got)
	}
}

// A verdict is a test that remembers how it was ended.
type verdict struct {
	testing.TB
	failed, skipped string
}

func (v *verdict) Helper()                      {}
func (v *verdict) Fatalf(f string, args ...any) { v.failed = fmt.Sprintf(f, args...); runtime.Goexit() }
func (v *verdict) Skipf(f string, args ...any)  { v.skipped = fmt.Sprintf(f, args...); runtime.Goexit() }

// TestUnavailable: a server that cannot be had is said so, and fails in CI.
func TestUnavailable(t *testing.T) {
	none := kind{name: "none", env: "OWTP_TEST_NONE", packages: "none-server", programs: []string{"owtp-no-such-program"}}
	judge := func(have func(t testing.TB, k *kind)) *verdict {
		v, done := new(verdict), make(chan struct{})
		go func() {
			defer close(done)
			have(v, &none)
		}()
		<-done
		return v
	}
	for name, have := range map[string]func(t testing.TB, k *kind){
		"shared": func(t testing.TB, k *kind) { share(t, k) },
		"own":    func(t testing.TB, k *kind) { own(t, k, nil) },
	} {
		t.Setenv("CI", "")
		if v := judge(have); !strings.Contains(v.skipped, "apt-get install none-server") || v.failed != "" {
			t.Errorf("%s: %+v, want it skipped with what to install", name, v)
		}
		t.Setenv("CI", "true")
		if v := judge(have); !strings.Contains(v.failed, "apt-get install none-server") || v.skipped != "" {
			t.Errorf("%s: %+v, want it failed in CI", name, v)
		}
	}
	t.Setenv(none.env, "127.0.0.1:1")
	v := judge(func(t testing.TB, k *kind) { share(t, k).Pause(t) })
	if !strings.Contains(v.failed, "OWTP_TEST_NONE_CONTROL") {
		t.Errorf("a server of others' that nobody can pause: %+v", v)
	}
}
