//go:build unix

package owtp_test

import (
	"fmt"
	"syscall"
)

// files raises the limit of open files, or says that it cannot.
func files(need uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if uint64(l.Cur) >= need {
		return nil
	}
	l.Cur = max(l.Cur, l.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || uint64(l.Cur) < need {
		return fmt.Errorf("%d files are needed, the limit is %d (%v): raise it with ulimit -n", need, l.Cur, err)
	}
	return nil
}
