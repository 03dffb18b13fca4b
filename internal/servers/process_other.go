//go:build !unix

package servers

import (
	"errors"
	"os/exec"
	"syscall"
)

// Servers are begun and ended as Unix does it; elsewhere the tests that need one
// say so.
var errNotUnix = errors.New("servers for tests are started on Unix only")

// PauseSignal and ResumeSignal are none here.
const PauseSignal, ResumeSignal = syscall.Signal(0), syscall.Signal(0)

type process struct{ cmd *exec.Cmd }

func launch([]string, string, *account, syscall.Signal) (*process, error) { return nil, errNotUnix }

func (*process) ended() bool                    { return true }
func (*process) signalAll(syscall.Signal) error { return errNotUnix }
func (*process) halt() error                    { return errNotUnix }
func (*process) stop(syscall.Signal)            {}
func (*process) kill()                          {}

type account struct{}

func unprivileged(string) *account { return nil }

func (*account) own(string) error                 { return nil }
func (*account) attributes() *syscall.SysProcAttr { return nil }

func run(string, *account, ...string) error { return errNotUnix }
