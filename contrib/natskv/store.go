// Package natskv keeps sessions and a node's state in NATS JetStream. Importing it
// makes the store known as "nats":
//
//	import _ "github.com/owtp-go/owtp/contrib/natskv"
//
//	session.Open(ctx, "nats", &session.ManagerConfig{ProviderConfig: "nats://user:password@host:4222?bucket=owtp"})
//
// It needs nats-server 2.11, the first in which each record has a time to live of
// its own (Debian 12 has 2.9), with JetStream. ProviderConfig is the URL of a
// server, nats:// or, over TLS, tls://; write special characters of a password as
// %XX. A password without a user is a token. Parameters:
//
//	bucket       name of the store, letters, digits, - and _; default owtp
//	replicas     copies of the store in a cluster, when it is made; default 1
//	max_records  bound of the records; default none but the server's
//	max_bytes    bound of their octets; default none but the server's
//	addr         further servers of the cluster, host:port, any number of times
//	inbox        beginning of the subjects for the server's answers; default _INBOX
//	creds        file of credentials (NKEY and JWT)
//	ca_file, cert_file, key_file, server_name   for tls://
//	timeout      for dialling, 2s
//
// Each record is the only message of its subject in one stream. Its version is
// drawn at random and kept in it: the stream's own numbers change when a record is
// touched, and come again after a crash that has lost some of them.
package natskv

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/owtp-go/owtp/session"
)

func init() {
	session.Register("nats", Open)
}

// A Store is a [session.Provider] in one JetStream stream. All methods are safe for
// concurrent use. While the server is away they fail at once.
type Store struct {
	options options
	link    link
	js      jetstream.JetStream
	stream  jetstream.Stream
	traits  session.Traits
	clock   clock
	markTTL time.Duration // markTTL, but in tests
	closed  atomic.Bool
}

var _ session.Provider = (*Store)(nil)

// Open is the [session.Opener] of this package. ctx bounds the opening.
func Open(ctx context.Context, cfg *session.ManagerConfig) (session.Provider, error) {
	o, err := parse(cfg.ProviderConfig)
	if err != nil {
		return nil, err
	}
	s := &Store{options: *o, markTTL: markTTL}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) (err error) {
	if err = s.link.open(ctx, &s.options); err != nil {
		return err
	}
	if err = s.link.modern(); err != nil {
		return err
	}
	if s.js, err = jetstream.New(s.link.nc); err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	if s.stream, err = s.options.ensure(ctx, s.js); err != nil {
		return s.failed(ctx, "opening the stream "+s.options.streamName(), err)
	}
	s.clock.set(s.stream.CachedInfo().TimeStamp)
	s.traits = session.Traits{
		Name: "nats", Shared: true, Durable: true, Lists: true,
		MaxValue: int(min(s.link.nc.MaxPayload()-overhead, session.MaxValueLen)),
	}
	return nil
}

// Traits implements [session.Provider]. MaxValue is what the server's max_payload
// has room for.
func (s *Store) Traits() session.Traits { return s.traits }

// begin is asked first by each method. The context that it returns ends with the
// connection, too: the client would wait for an answer that cannot come any more.
func (s *Store) begin(ctx context.Context) (context.Context, func(), error) {
	link := s.link.living.Load()
	switch {
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case s.closed.Load():
		return nil, nil, session.ErrClosed
	case link == nil:
		return nil, nil, fmt.Errorf("nats: no connection to %s at present", s.options.host)
	}
	if err := s.link.room(ctx); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(link.ctx, func() { cancel(errLost) })
	return ctx, func() { stop(); cancel(nil) }, nil
}

// errLost leaves open whether a write was done.
var errLost = errors.New("the connection was lost before the server had answered")

// Sweep implements [session.Provider]. The server removes what has expired by
// itself.
func (s *Store) Sweep(ctx context.Context, _ int) (int, error) {
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case s.closed.Load():
		return 0, session.ErrClosed
	}
	return 0, nil
}

// Close implements [session.Provider].
func (s *Store) Close() error {
	if !s.closed.Swap(true) {
		s.link.close()
	}
	return nil
}

// The server's codes of a stream without room.
var noRoom = map[jetstream.ErrorCode]bool{
	10077: true,                                        // over its bounds
	10047: true, 10023: true, 10002: true, 10028: true, // over the server's, or the account's
}

// failed says what could not be done, in terms of [session.Provider] where it has
// one.
func (s *Store) failed(ctx context.Context, what string, err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case s.closed.Load():
		return session.ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("nats: %s: %w", what, context.Cause(ctx))
	case errors.As(err, &api) && noRoom[api.ErrorCode]:
		return fmt.Errorf("nats: %s: %w: %s (%d)", what, session.ErrFull, api.Description, api.ErrorCode)
	case errors.Is(err, natsgo.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("nats: %s: the server does not answer for its streams (is JetStream on, for this account, and is the stream there?): %w", what, err)
	}
	if denied := s.link.denied(); denied != nil {
		return fmt.Errorf("nats: %s: %w", what, denied)
	}
	return fmt.Errorf("nats: %s: %w", what, err)
}
