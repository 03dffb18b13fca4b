// Package nats carries messages over NATS: requests through the subject that is
// the peer's queue, answers through one subject of each connection. Importing it
// is enough; addresses of the form nats://host:port and tls://host:port then
// work:
//
//	import _ "github.com/owtp-go/owtp/contrib/nats"
//
// # Addresses and accounts
//
// The port is 4222 if none is given. "tls://" demands TLS; over "nats://" it is
// used if the server demands it. Account and Password are a user and a password;
// a Password alone is a token. A file of credentials (NKEY and JWT) is named in
// the address, as "?creds=/path/to/file". An address never holds a password.
//
// # What is kept
//
// As a rule nothing: a request reaches a replica that is connected at that
// moment, or ends at once with [transport.ErrNotSent] if there is none. With
// "?durable=true" in the addresses of both sides requests to a shared queue lie
// in a JetStream stream until a replica has answered: see durable.go for what
// that promises. A listener with "?durable=true" serves callers without it too.
//
// # What the account must be allowed
//
// Q is the node's own queue, P the queue of a peer that it calls, N the node's
// name in queues.
//
//	publish    P, owtp.own.>      requests
//	           owtp.reply.>       answers
//	subscribe  Q with the queue group "owtp"
//	           owtp.own.N.>, owtp.reply.N.>
//
// A caller that serves nothing needs neither Q nor owtp.own.N.>. What "durable"
// needs beside this is in the README of this module.
package nats

import (
	"context"
	"errors"

	"github.com/owtp-go/owtp/transport"
)

func init() {
	b := New()
	transport.RegisterBroker("nats", b)
	transport.RegisterBroker("tls", b)
}

// Broker implements [transport.Broker] and [transport.ExchangeDialer]. It has no
// state.
type Broker struct{}

var (
	_ transport.Broker         = (*Broker)(nil)
	_ transport.ExchangeDialer = (*Broker)(nil)
)

// New returns the transport. Importing the package registers one already.
func New() *Broker { return new(Broker) }

// Kind implements [transport.Transport].
func (*Broker) Kind() transport.Kind { return transport.MQ }

// Open implements [transport.Broker]. ctx and cfg.HandshakeTimeout bound the
// first connection only; later ones are made until Close.
func (*Broker) Open(ctx context.Context, cfg transport.Config, h transport.Handler) (transport.Endpoint, error) {
	e, err := open(ctx, cfg, h)
	if err != nil {
		return nil, err // a nil *endpoint must not become a non-nil Endpoint
	}
	return e, nil
}

// Listen implements [transport.Transport]: Open with a handler and a shared queue.
func (b *Broker) Listen(ctx context.Context, cfg transport.Config, h transport.Handler) (transport.Listener, error) {
	if h == nil || cfg.ReadQueueName == "" {
		return nil, errors.New("owtp: listening on NATS needs a handler and ReadQueueName, the queue to serve")
	}
	return b.Open(ctx, cfg, h)
}

// DialExchange implements [transport.ExchangeDialer]: Open to call alone. Messages
// go to cfg.WriteQueueName. Whatever goes wrong here, no message was sent.
func (b *Broker) DialExchange(ctx context.Context, cfg transport.Config) (transport.Exchanger, error) {
	cfg.ReadQueueName = ""
	x, err := b.Open(ctx, cfg, nil)
	if err != nil {
		return nil, transport.NotSent(err)
	}
	return x, nil
}
