package amqpt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	amqp "github.com/rabbitmq/amqp091-go"
)

// maxReason bounds what is repeated of a broker's or a peer's words.
const maxReason = 300

// oneLine makes one line of printable ASCII of somebody else's text.
func oneLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s[:min(len(s), maxReason)]))
}

// A brokerError is what the broker said.
type brokerError struct {
	code   int
	reason string
}

func (e *brokerError) Error() string { return fmt.Sprintf("%s (%d)", e.reason, e.code) }

// readable is the library's error without its quotes, and with the meaning that
// it hides in some of them.
func readable(err error) error {
	var ae *amqp.Error
	if !errors.As(err, &ae) {
		return err
	}
	if ae.Server {
		return &brokerError{ae.Code, oneLine(ae.Reason)}
	}
	switch {
	case ae == amqp.ErrClosed:
		return net.ErrClosed
	case strings.Contains(ae.Reason, os.ErrDeadlineExceeded.Error()):
		return errors.New("the broker has fallen silent")
	case strings.HasSuffix(ae.Reason, io.EOF.Error()):
		return errors.New("the connection broke off")
	}
	return errors.New(oneLine(ae.Reason))
}

func codeOf(err error) int {
	var be *brokerError
	if errors.As(readable(err), &be) {
		return be.code
	}
	return 0
}

// explainLogin says what a failed handshake means. The library says "credentials"
// when the socket is closed at that point, as RabbitMQ does.
func explainLogin(err error, e *endpoint) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("owtp: the broker at %s did not answer in time: is it RabbitMQ, and does the port speak TLS (amqps://) or not (amqp://)? %w", e.at.host, err)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("owtp: connecting to the broker: %w", err)
	case errors.Is(err, amqp.ErrCredentials) && e.cfg.Account == "":
		return fmt.Errorf("owtp: the broker at %s refused the login of RabbitMQ's guest, since no account was given: give one", e.at.host)
	case errors.Is(err, amqp.ErrCredentials):
		return fmt.Errorf("owtp: the broker at %s refused the login of account %q: the account or its password is wrong, or it may not log in from here", e.at.host, e.cfg.Account)
	case errors.Is(err, amqp.ErrSASL):
		return fmt.Errorf("owtp: the broker at %s takes no login of the kind that was offered (%s)", e.at.host, login(e.cfg, e.at).Mechanism())
	case errors.Is(err, amqp.ErrVhost), codeOf(err) == amqp.NotAllowed:
		return fmt.Errorf("owtp: the broker at %s refused virtual host %q to account %q: create it, or give the account permissions there: %w", e.at.host, e.at.vhost, e.cfg.Account, readable(err))
	}
	if e.at.tls == nil && codeOf(err) == 0 {
		return fmt.Errorf("owtp: the broker at %s does not speak AMQP without TLS there (amqps:// is with TLS): %w", e.at.host, readable(err))
	}
	return fmt.Errorf("owtp: the broker at %s refused the connection: %w", e.at.host, readable(err))
}

func explainDial(err error, at address) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("owtp: connecting to the broker at %s: nothing listens there: start the broker, or correct host and port: %w", at.host, err)
	}
	return fmt.Errorf("owtp: connecting to the broker at %s: %w", at.host, err)
}

func explainTLS(err error, at address) error {
	var header tls.RecordHeaderError
	if errors.As(err, &header) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("owtp: the broker at %s does not speak TLS there (amqp:// is without): %w", at.host, err)
	}
	return fmt.Errorf("owtp: TLS with the broker at %s: %w", at.host, err)
}

// A step is one thing that an endpoint asks of the broker, and what it needs
// for that.
type step struct {
	doing      string // "declaring queue"
	name       string
	permission string // "configure on queue ..."
}

// explain says what the broker's refusal of a step means and what to do.
func (s step) explain(err error, e *endpoint) error {
	what := fmt.Sprintf("owtp: %s %q", s.doing, s.name)
	err = readable(err)
	switch codeOf(err) {
	case amqp.AccessRefused:
		return fmt.Errorf("%s: account %q needs the permission to %s in virtual host %q (rabbitmqctl set_permissions): %w", what, e.cfg.Account, s.permission, e.at.vhost, err)
	case amqp.NotFound:
		return fmt.Errorf("%s: it does not exist in virtual host %q: create it, or correct the name: %w", what, e.at.vhost, err)
	case amqp.PreconditionFailed:
		return fmt.Errorf("%s: it exists with other arguments: give all replicas the same queue limits, or delete it (rabbitmqctl delete_queue) when it is empty: %w", what, err)
	case amqp.ResourceLocked:
		return fmt.Errorf("%s: it belongs to another connection, or to one of ours that the broker has not given up yet: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
