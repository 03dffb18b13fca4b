package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp"
)

// The exit codes are part of the tool's interface: scripts decide by them
// whether to retry, to alarm or to give up. `owtp help exit-codes` lists them.
const (
	exitOK      = 0
	exitUsage   = 1 // also everything about files and configuration
	exitConnect = 2
	exitStatus  = 3
	exitTrust   = 4
	exitUnknown = 5
)

// A codedError is an error that knows the tool's exit code for it.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func withCode(code int, format string, args ...any) error {
	return &codedError{code, fmt.Errorf(format, args...)}
}

// exitCode returns the code that an error of a command ends the tool with. An
// error that nobody has classified is one of usage or configuration.
func exitCode(err error) int {
	var coded *codedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.code
	}
	return exitUsage
}

// classify gives an error of the node its exit code. Whether a call may be
// repeated without doing anything twice matters more to a script than what
// broke, so MayHaveRun comes before the status.
func classify(err error) error {
	var coded *codedError
	if err == nil || errors.As(err, &coded) {
		return err
	}
	var e *owtp.Error
	switch {
	case errors.Is(err, owtp.ErrTrust):
		return &codedError{exitTrust, oneLine{err}}
	case errors.As(err, &e):
		return &codedError{codeOf(e), oneLine{err}}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &codedError{exitConnect, err}
	}
	return err
}

// oneLine is an error that may quote a peer, who must not write lines that look
// like this program's.
type oneLine struct{ error }

func (e oneLine) Error() string { return printable(e.error.Error()) }

func (e oneLine) Unwrap() error { return e.error }

func codeOf(e *owtp.Error) int {
	switch {
	case e.Status == owtp.ErrOutcomeUnknown || e.MayHaveRun:
		return exitUnknown
	case !e.Proved && (e.Status == owtp.ErrBadRequest || e.Status == owtp.ErrTooLarge):
		return exitUsage // this node refused to send it
	case e.Status == owtp.ErrRequestTimeout, e.Status == owtp.ErrNetworkDisconnected:
		return exitConnect
	case e.Proved:
		return exitStatus
	}
	return exitConnect
}

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `The exit code says what a script may do next.

  0  It worked.
  1  The command, a file or a setting is wrong. Nothing was sent.
  2  No connection, or no answer in time to something that cannot have done
     anything yet. The call did not run; it may be made again.
  3  The peer answered with a status that is no success, or refused the call.
     Status and message are on standard error.
  4  The peer is not who it should be: unknown and not accepted, another node
     ID than the pinned one, or a signature that does not verify. Do not
     retry; find out why.
  5  The outcome is unknown: the call was sent, and no answer that can be
     believed came back. It may have run. Ask the peer before repeating
     anything that must not happen twice.`,
		Example: `  owtp call http://127.0.0.1:9432 transfer @order.json --sign
  case $? in
    0) echo done ;;
    2) echo "not sent, trying again later" ;;
    5) echo "unknown: asking the peer first" ;;
    *) echo failed ;;
  esac`,
	}
}
