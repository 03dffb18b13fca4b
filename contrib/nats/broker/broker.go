// Package broker is a NATS server inside a program: for a demonstration, a test,
// or a machine on which nothing else is installed. Only who imports it links it.
//
//	b, err := broker.Start(broker.Options{Users: []broker.User{{Name: "node", Password: password}}})
//	...
//	defer b.Close()
//	node.Connect("exchange", owtp.ConnectConfig{Address: b.URL(), ConnectType: owtp.MQ, Account: "node", Password: password})
//
// One server is a single point of failure, and its stream is on one disk. Where
// that is not enough, run a cluster of nats-server; clients need not change.
package broker

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// startPatience is how long a server may take to read its store.
const startPatience = 30 * time.Second

// A Broker is a running server.
type Broker struct {
	server *server.Server
	url    string
}

// Start starts a server and returns when it accepts connections.
func Start(o Options) (*Broker, error) {
	opts, err := o.checked()
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	log := &logger{to: o.Logger}
	s.SetLogger(log, false, false)
	s.Start() // returns at once, whatever becomes of it
	if err := ready(s, log, opts); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, err
	}
	return &Broker{server: s, url: urlOf(s, opts)}, nil
}

// ready waits until the server accepts connections, or has said why it cannot.
func ready(s *server.Server, log *logger, opts *server.Options) error {
	for end := time.Now().Add(startPatience); time.Now().Before(end); {
		if s.ReadyForConnections(50 * time.Millisecond) {
			break
		}
		if err := log.fatal(); err != nil {
			return err
		}
	}
	switch {
	case log.fatal() != nil:
		return log.fatal()
	case s.Addr() == nil:
		return fmt.Errorf("broker: the server does not accept connections after %v", startPatience)
	case opts.JetStream && !s.JetStreamEnabled():
		return errors.New("broker: the server has not begun to keep streams")
	}
	return nil
}

func urlOf(s *server.Server, opts *server.Options) string {
	scheme := "nats://"
	if opts.TLSConfig != nil {
		scheme = "tls://"
	}
	return scheme + s.Addr().String()
}

// URL is what nodes dial: nats://host:port, or tls://host:port. There is no
// password in it.
func (b *Broker) URL() string { return b.url }

// Addr is where the server listens.
func (b *Broker) Addr() net.Addr { return b.server.Addr() }

// Close ends the server and all connections to it, and returns when it has
// written what it keeps.
func (b *Broker) Close() error {
	b.server.Shutdown()
	b.server.WaitForShutdown()
	return nil
}
