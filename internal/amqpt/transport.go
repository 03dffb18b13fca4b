package amqpt

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/owtp-go/owtp/transport"
)

// The schemes of addresses.
const (
	Scheme    = "amqp"
	SchemeTLS = "amqps"
)

// Transport implements [transport.Broker] and [transport.ExchangeDialer]. It has
// no state.
type Transport struct {
	heartbeat time.Duration // between two signs of life of a silent connection
}

var (
	_ transport.Broker         = (*Transport)(nil)
	_ transport.ExchangeDialer = (*Transport)(nil)
)

// New returns the transport.
func New() *Transport { return &Transport{heartbeat: 10 * time.Second} }

// Kind implements [transport.Transport].
func (*Transport) Kind() transport.Kind { return transport.MQ }

// Listen implements [transport.Transport]: it is Open with a handler and a
// shared queue.
func (t *Transport) Listen(ctx context.Context, cfg transport.Config, h transport.Handler) (transport.Listener, error) {
	if h == nil || cfg.ReadQueueName == "" {
		return nil, errors.New("owtp: a listener over AMQP needs a handler and a queue to read")
	}
	e, err := t.open(ctx, cfg, h)
	if err != nil {
		return nil, err // a nil *endpoint must not become a non-nil Listener
	}
	return e, nil
}

// DialExchange implements [transport.ExchangeDialer]: it is Open without a
// handler. Messages go to cfg.WriteQueueName unless they say otherwise.
func (t *Transport) DialExchange(ctx context.Context, cfg transport.Config) (transport.Exchanger, error) {
	e, err := t.open(ctx, cfg, nil)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Open implements [transport.Broker]. ctx and cfg.HandshakeTimeout bound the
// first connection only. Without a handler nothing consumes requests, and no
// queue for them is declared. Whatever goes wrong here, no message was sent.
func (t *Transport) Open(ctx context.Context, cfg transport.Config, h transport.Handler) (transport.Endpoint, error) {
	e, err := t.open(ctx, cfg, h)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// An address is that of a virtual host of a broker. It implements net.Addr.
type address struct {
	host  string // and port
	vhost string
	tls   *tls.Config // nil: none
}

// parseAddress reads amqp[s]://host[:port][/vhost]. Without a path the virtual
// host is "/", as a slash in its name is written %2f. Errors do not repeat what
// might hold a password.
func parseAddress(cfg transport.Config) (address, error) {
	u, err := url.Parse(cfg.Address)
	if err != nil {
		return address{}, errors.New("owtp: the broker's address is not a URL")
	}
	if u.User != nil {
		return address{}, errors.New("owtp: the broker's address must not contain a user or password: they have fields of their own")
	}
	a := address{vhost: "/"}
	port := "5672"
	switch u.Scheme {
	case Scheme:
	case SchemeTLS:
		port = "5671"
		a.tls = tlsConfig(cfg.TLS, u.Hostname())
	default:
		return address{}, fmt.Errorf("owtp: the address of a RabbitMQ broker begins with amqp:// or amqps://, not %q", u.Scheme)
	}
	if u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return address{}, fmt.Errorf("owtp: %s is not an address of the form %s://host:port/vhost", u.Redacted(), u.Scheme)
	}
	a.host = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
	if path := u.EscapedPath(); len(path) > 1 {
		if strings.Contains(path[1:], "/") {
			return address{}, fmt.Errorf("owtp: in %s the virtual host contains a slash: write it as %%2f", u.Redacted())
		}
		if a.vhost, err = url.PathUnescape(path[1:]); err != nil {
			return address{}, fmt.Errorf("owtp: in %s the virtual host cannot be unescaped", u.Redacted())
		}
	}
	return a, nil
}

func tlsConfig(given *tls.Config, host string) *tls.Config {
	c := new(tls.Config)
	if given != nil {
		c = given.Clone()
	}
	c.NextProtos = nil
	c.ServerName = cmp.Or(c.ServerName, host)
	return c
}

// Network implements net.Addr.
func (a address) Network() string { return "tcp" }

// String implements net.Addr. It is what parseAddress reads.
func (a address) String() string {
	scheme := Scheme
	if a.tls != nil {
		scheme = SchemeTLS
	}
	s := scheme + "://" + a.host
	if a.vhost != "/" {
		s += "/" + strings.ReplaceAll(url.PathEscape(a.vhost), "/", "%2f")
	}
	return s
}
