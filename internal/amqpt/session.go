package amqpt

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/transport"
)

// closePatience is how long a close waits for the broker to agree to it.
const closePatience = 500 * time.Millisecond

// frameSize is RabbitMQ's own.
const frameSize = 128 << 10

// A session is one connection to the broker, from its dial to its end. It is not
// mended: who needs another opens one.
type session struct {
	conn   *amqp.Connection
	socket *socket
	local  string // our address of it

	once  sync.Once
	ended chan struct{} // closed with the first failure, or by close
	cause error         // why; valid when ended is closed

	tasks sync.WaitGroup // the goroutines of this session
}

// dial connects, shakes hands and logs in, within ctx and the handshake's time.
func dial(ctx context.Context, e *endpoint, purpose string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.HandshakeTimeout)
	defer cancel()
	conn, err := connect(ctx, e.at)
	if err != nil {
		return nil, err
	}
	s := &session{socket: newSocket(conn), local: conn.LocalAddr().String(), ended: make(chan struct{})}
	s.tasks.Go(s.socket.run)
	stop := context.AfterFunc(ctx, func() { _ = s.socket.Close() })
	// The library shakes hands without a context, and ends if the socket does.
	s.conn, err = amqp.Open(s.socket, amqp.Config{
		SASL:       []amqp.Authentication{login(e.cfg, e.at)},
		Vhost:      e.at.vhost,
		Heartbeat:  e.heartbeat,
		FrameSize:  frameSize,
		Locale:     "en_US",
		Properties: amqp.Table{"product": "owtp", "connection_name": "owtp " + e.cfg.Name + " " + purpose},
	})
	if !stop() && err == nil {
		err = net.ErrClosed
	}
	if err != nil {
		_ = s.socket.Close()
		s.tasks.Wait()
		return nil, explainLogin(cmp.Or(context.Cause(ctx), err), e)
	}
	// The broker gives a sign of life every half heartbeat.
	s.socket.expectWithin(e.heartbeat + e.heartbeat/2)
	closed := s.conn.NotifyClose(make(chan *amqp.Error, 1))
	s.tasks.Go(func() {
		s.watch("the connection", closed)
		s.fail(net.ErrClosed) // unless there was another reason
	})
	return s, nil
}

func connect(ctx context.Context, at address) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.host)
	if err != nil {
		return nil, explainDial(err, at)
	}
	if at.tls == nil {
		return conn, nil
	}
	secured := tls.Client(conn, at.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, explainTLS(err, at)
	}
	return secured, nil
}

// login is EXTERNAL, the client's certificate, where there is one and no
// account. Without an account it is RabbitMQ's guest, whom it lets in from its
// own machine only.
func login(cfg transport.Config, at address) amqp.Authentication {
	if cfg.Account == "" && at.tls != nil && (len(at.tls.Certificates) > 0 || at.tls.GetClientCertificate != nil) {
		return &amqp.ExternalAuth{}
	}
	if cfg.Account == "" {
		return &amqp.PlainAuth{Username: "guest", Password: "guest"}
	}
	return &amqp.PlainAuth{Username: cfg.Account, Password: cfg.Password}
}

// watch ends the session when one of its parts is closed by somebody else.
func (s *session) watch(what string, closed <-chan *amqp.Error) {
	if err := <-closed; err != nil {
		s.fail(fmt.Errorf("%s was closed: %w", what, readable(err)))
	}
}

// fail ends the session for a reason. Further failures change nothing.
func (s *session) fail(err error) {
	s.once.Do(func() {
		s.cause = err
		close(s.ended)
	})
}

// channel opens a channel. If it is closed by anybody but us, the session ends.
func (s *session) channel(what string) (*amqp.Channel, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, err
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	s.tasks.Go(func() { s.watch(what, closed) })
	return ch, nil
}

// within lets the library's calls, which know no context, fail when ctx ends.
func (s *session) within(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		s.fail(context.Cause(ctx))
		_ = s.socket.Close()
	})
}

// inTime is the error of a session that could not be set up: where its time was up
// the socket was closed for that, and all that the library says is that it was.
func inTime(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("owtp: the broker has let us in and then did not answer in time: %w (%v)", cause, err)
	}
	return err
}

// close ends the connection, in good manners if the broker answers soon, and
// returns when no goroutine of the session is left.
func (s *session) close() {
	s.fail(net.ErrClosed)
	timer := time.AfterFunc(closePatience, func() { _ = s.socket.Close() })
	_ = s.conn.Close()
	timer.Stop()
	_ = s.socket.Close()
	s.tasks.Wait()
}

// done is closed when the session has ended.
func (s *session) done() <-chan struct{} { return s.ended }

// err says why the session ended; done must be closed.
func (s *session) err() error { return s.cause }

// lost is the error of what was under way when the session ended.
func (s *session) lost(what string) error {
	if errors.Is(s.cause, net.ErrClosed) {
		return fmt.Errorf("owtp: %s: %w", what, net.ErrClosed)
	}
	return fmt.Errorf("owtp: %s: %w", what, s.cause)
}
