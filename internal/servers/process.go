//go:build unix

package servers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// PauseSignal stops a process where it is, and ResumeSignal lets it go on.
const (
	PauseSignal  = syscall.SIGSTOP
	ResumeSignal = syscall.SIGCONT
)

// stopPatience is how long a server may take to end when it is asked to.
const stopPatience = 15 * time.Second

// watchdog waits for the end of its standard input, which is the end of the test
// process, whatever ends that: then it ends the server $1 with the signal $2, or
// by force, and removes its folder $3. "done" means that there is nothing to do.
//
// It is a process because no code of ours runs after a SIGKILL or the timeout of
// go test, and a shell because that is there wherever the servers are. The
// kernel's own way (PR_SET_PDEATHSIG) is Linux's alone, goes by the thread that
// started the server instead of the process, does not reach one that is
// stopped, and leaves its files.
const watchdog = `
trap '' HUP INT TERM
read -r word && [ "$word" = done ] && exit
kill -CONT "$1" $(cat /proc/"$1"/task/*/children)
kill -"$2" "$1"
n=0
while kill -0 "$1" && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done
kill -KILL "$1" $(cat /proc/"$1"/task/*/children)
rm -rf "$3"
`

// A process is a server's program and its watchdog.
type process struct {
	cmd   *exec.Cmd
	done  chan struct{} // closed when the program has ended
	watch *exec.Cmd
	leash *os.File
}

// launch starts a program. The goroutine that waits for it ends with it.
func launch(argv []string, dir string, as *account, quit syscall.Signal) (*process, error) {
	log, err := os.OpenFile(logOf(dir), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, log, log
	p.cmd.SysProcAttr = as.attributes()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		p.cmd.Wait()
	}()
	if err := p.guard(dir, quit); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

func (p *process) guard(dir string, quit syscall.Signal) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	p.leash = w
	p.watch = exec.Command("sh", "-c", watchdog, "sh", strconv.Itoa(p.cmd.Process.Pid), strconv.Itoa(int(quit)), dir)
	p.watch.Stdin = r
	p.watch.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.watch.Start(); err != nil {
		w.Close()
		p.watch = nil
		return err
	}
	return nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// signalAll reaches the program's children too: PostgreSQL has one for each
// connection, in a process group of its own.
func (p *process) signalAll(sig syscall.Signal) error {
	if p.ended() {
		return fmt.Errorf("it has ended")
	}
	children := childrenOf(p.cmd.Process.Pid)
	if err := signal(p.cmd.Process.Pid, sig); err != nil {
		return err
	}
	for _, pid := range children {
		if err := signal(pid, sig); err != nil {
			return err
		}
	}
	return nil
}

// halt stops the program and its children where they are, and returns when their
// threads stand still: the signal alone reaches them when the kernel comes round
// to it.
func (p *process) halt() error {
	if err := p.signalAll(PauseSignal); err != nil {
		return err
	}
	all := append(childrenOf(p.cmd.Process.Pid), p.cmd.Process.Pid)
	for end := time.Now().Add(stopPatience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if all = slices.DeleteFunc(all, standsStill); len(all) == 0 {
			return nil
		}
	}
	return fmt.Errorf("it still runs %v after it was stopped", stopPatience)
}

// standsStill reports whether all threads of a process are stopped; where there
// is no /proc that says so, it believes the signal.
func standsStill(pid int) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, task := range tasks {
		stat, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		// The state follows the program's name, which may hold anything.
		if i := bytes.LastIndexByte(stat, ')'); i >= 0 && len(stat) > i+2 && bytes.IndexByte([]byte("TtZX"), stat[i+2]) < 0 { // stopped, traced, dead
			return false
		}
	}
	return true
}

// stop asks the program to end, and ends it by force if it does not.
func (p *process) stop(quit syscall.Signal) {
	if !p.ended() {
		p.signalAll(syscall.SIGCONT)
		signal(p.cmd.Process.Pid, quit)
		select {
		case <-p.done:
		case <-time.After(stopPatience):
		}
	}
	p.kill()
}

// kill ends the program, its children and the watchdog.
func (p *process) kill() {
	if !p.ended() {
		p.signalAll(syscall.SIGKILL)
	}
	<-p.done
	if p.watch != nil {
		p.leash.WriteString("done\n")
		p.leash.Close()
		p.watch.Wait()
		p.watch = nil
	}
}

// childrenOf returns the processes that pid has begun, on systems with /proc;
// the servers that have any are tested on those.
func childrenOf(pid int) (pids []int) {
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, thread := range threads {
		list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, thread.Name()))
		for field := range strings.FieldsSeq(string(list)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// An account is the user that a program runs as; nil is our own.
type account struct{ uid, gid int }

// unprivileged returns the account of that name, or nobody's: databases refuse
// to run as root. nil if we are not root.
func unprivileged(name string) *account {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, candidate := range []string{name, "nobody"} {
		if u, err := user.Lookup(candidate); err == nil {
			uid, _ := strconv.Atoi(u.Uid)
			gid, _ := strconv.Atoi(u.Gid)
			return &account{uid, gid}
		}
	}
	return &account{65534, 65534}
}

// own gives a folder to the account.
func (a *account) own(dir string) error {
	if a == nil {
		return nil
	}
	return os.Chown(dir, a.uid, a.gid)
}

// attributes keep the terminal's signals away from the program: a test that is
// interrupted ends it through the watchdog.
func (a *account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

// run runs a program that sets something up.
func run(dir string, as *account, argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.SysProcAttr = dir, as.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", argv[0], err, out)
	}
	return nil
}
