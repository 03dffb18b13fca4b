package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/owtp-go/owtp/contrib/internal/natslink"
)

const (
	// A broker that does not answer two pings is gone: the next one is dialled
	// half a minute after the network has begun to swallow everything.
	pingInterval = 10 * time.Second
	pingsLost    = 2
)

// A session is one connection to the broker with its subscriptions. It is never
// mended: the endpoint makes a new one. The client's own way of reconnecting holds its lock while it
// dials, and sends afterwards what nobody waits for any more.
type session struct {
	nc     *natsgo.Conn
	pipe   *natslink.Pipe
	gone   chan struct{}          // closed when the connection has ended
	local  string                 // address of the socket
	server string                 // its identity, another one each time it is started
	most   int64                  // octets of a message with its headers
	jobs   []*natsgo.Subscription // those that requests of any replica come from
	own    []*natsgo.Subscription // those that requests of this endpoint come from

	js     jetstream.JetStream
	asking atomic.Pointer[context.CancelCauseFunc] // ends what waits for the server's API
	puller *puller                                 // nil without a stream
	work   context.Context                         // ends when no more requests are wanted
	stop   context.CancelFunc
	pulled chan struct{} // closed when the puller has ended
	begun  bool

	draining, leaving sync.Once
	drained, left     []chan struct{} // of jobs and own, closed when a subscription has ended
}

// connect dials and subscribes. ctx bounds both.
func (e *endpoint) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.HandshakeTimeout)
	defer cancel()
	s := &session{gone: make(chan struct{}), pulled: make(chan struct{})}
	s.work, s.stop = context.WithCancel(e.ctx)
	d := natslink.NewDialer(ctx, e.cfg.BodyTimeout)
	o, err := e.options(s, d)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, d.Abort)
	s.nc, err = o.Connect()
	if err == nil && !stop() {
		err = ctx.Err()
		s.nc.Close()
		d.Wait()
	}
	if err != nil {
		stop()
		d.Abort()
		d.Wait()
		s.stop()
		return nil, e.noConnection(d.Explain(err))
	}
	s.pipe = d.Last()
	s.server = s.nc.ConnectedServerId()
	s.local, s.most = s.pipe.LocalAddr().String(), s.nc.MaxPayload()
	if s.js, err = jetstream.New(s.nc); err == nil {
		err = e.subscribe(ctx, s)
	}
	if err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// noConnection says why there is none, and what to do.
func (e *endpoint) noConnection(err error) error {
	what := "owtp: connecting to the NATS server " + e.addr.host
	switch {
	case errors.Is(err, natsgo.ErrAuthorization) && e.cfg.Account == "" && e.cfg.Password == "" && e.addr.credentials == "":
		return fmt.Errorf("%s: it wants an account, and none was given: %w", what, err)
	case errors.Is(err, natsgo.ErrAuthorization):
		return fmt.Errorf("%s: it refused the login of account %q: the account or its password is wrong: %w", what, e.cfg.Account, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: nothing listens there: start the server, or correct host and port: %w", what, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: is it NATS, and not another program's port? %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// options are the client's for one connection.
func (e *endpoint) options(s *session, d *natslink.Dialer) (natsgo.Options, error) {
	o := natsgo.GetDefaultOptions()
	o.Servers = e.servers()
	o.NoRandomize = true
	o.AllowReconnect = false
	o.Name = "owtp " + e.cfg.Name
	o.Timeout = e.cfg.HandshakeTimeout + time.Second // ctx ends first, and says so
	o.PingInterval, o.MaxPingsOut = pingInterval, pingsLost
	o.FlusherTimeout = 0 // the pipe has its own
	o.CustomDialer = d
	o.SkipHostLookup = true // the dialler does it, in ctx's time
	o.SkipSubjectValidation = true
	o.InboxPrefix = e.inbox // the account may subscribe to nothing else
	switch {
	case e.cfg.Account != "":
		o.User, o.Password = e.cfg.Account, e.cfg.Password
	default:
		o.Token = e.cfg.Password
	}
	if e.addr.credentials != "" {
		if err := natsgo.UserCredentials(e.addr.credentials)(&o); err != nil {
			return o, fmt.Errorf("owtp: the file of credentials %s: %w", e.addr.credentials, err)
		}
	}
	o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if e.cfg.TLS != nil {
		o.TLSConfig = e.cfg.TLS.Clone()
		o.TLSConfig.NextProtos = nil
	}
	if o.TLSConfig.ServerName == "" {
		// Servers that this one has named are known by their addresses alone.
		o.TLSConfig.ServerName = e.addr.name
	}
	o.Secure = e.addr.tls
	o.ClosedCB = func(*natsgo.Conn) { s.stop(); close(s.gone) }
	o.AsyncErrorCB = func(_ *natsgo.Conn, sub *natsgo.Subscription, err error) { e.complaint(s, sub, err) }
	o.LameDuckModeHandler = func(*natsgo.Conn) {
		e.cfg.Logger.Info("owtp: the NATS server is about to shut down and will end the connection", "server", e.addr.host)
	}
	return o, nil
}

// subscribe asks for what comes to this endpoint and waits until the broker has
// agreed.
func (e *endpoint) subscribe(ctx context.Context, s *session) error {
	if !s.nc.HeadersSupported() {
		return fmt.Errorf("owtp: the NATS server %s (version %s) takes no headers; 2.2 is the first that does", e.addr.host, s.nc.ConnectedServerVersion())
	}
	_, err := s.nc.Subscribe(e.queues.Reply+".*", func(m *natsgo.Msg) {
		e.waiting.answered(tokenOf(m.Subject, e.queues.Reply), m)
	})
	if err == nil && e.serves() {
		err = e.subscribeRequests(s)
	}
	if err == nil {
		err = s.nc.FlushWithContext(ctx)
	}
	if err == nil {
		err = s.nc.LastError() // a subscription that is not allowed
	}
	if err != nil {
		return fmt.Errorf("owtp: subscribing at the NATS server %s: %w", e.addr.host, err)
	}
	return nil
}

func (e *endpoint) subscribeRequests(s *session) error {
	own, err := s.nc.Subscribe(e.queues.Own, func(m *natsgo.Msg) { e.arrived(s, m, e.queues.Own) })
	if err != nil {
		return err
	}
	s.own = append(s.own, own)
	if e.queues.Shared == "" {
		return nil
	}
	shared, err := s.nc.QueueSubscribe(e.queues.Shared, group, func(m *natsgo.Msg) { e.arrived(s, m, e.queues.Shared) })
	if err != nil {
		return err
	}
	s.jobs = append(s.jobs, shared)
	if e.store == nil {
		return nil
	}
	s.puller = &puller{e: e, s: s}
	pulls, err := s.nc.Subscribe(s.puller.inbox()+"*", s.puller.came)
	if err != nil {
		return err
	}
	s.jobs = append(s.jobs, pulls)
	return nil
}

// begin takes requests from the stream, if there is one, and is told whether it is
// known to be there.
func (s *session) begin(ready bool) {
	if s.puller != nil {
		go s.puller.run(ready)
	} else {
		close(s.pulled)
	}
	s.begun = true
}

// complaint is what the client says on the side.
func (e *endpoint) complaint(s *session, sub *natsgo.Subscription, err error) {
	switch {
	case errors.Is(err, natsgo.ErrPermissionViolation):
		if denied := deniedSubject.FindStringSubmatch(err.Error()); denied != nil {
			e.waiting.deny(denied[1])
		}
		if end := s.asking.Load(); end != nil {
			(*end)(err)
		}
		e.cfg.Logger.Error("owtp: the NATS server refuses", "server", e.addr.host, "error", err)
	case errors.Is(err, natsgo.ErrSlowConsumer) && sub != nil:
		dropped, _ := sub.Dropped()
		e.cfg.Logger.Error("owtp: messages were lost: they came faster than they could be looked at", "subject", sub.Subject, "lost", dropped)
	default:
		e.cfg.Logger.Warn("owtp: the NATS connection complains", "server", e.addr.host, "error", err)
	}
}

// deniedSubject finds the subject in what a server says when it does not let a
// client publish. There is nothing but the text.
var deniedSubject = regexp.MustCompile(`Publish to "([^"]+)"`)

// end closes the connection and waits for it.
func (s *session) end() {
	s.stop()
	s.nc.Close()
	<-s.gone
	<-s.pipe.Done()
	if s.begun {
		<-s.pulled
	}
}
