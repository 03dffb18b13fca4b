// Package transporttest is the conformance suite for transports, a man in the
// middle for tests of what runs over them, and small helpers for both.
package transporttest

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/owtp-go/owtp/internal/leakcheck"
	"github.com/owtp-go/owtp/transport"
)

// RunMain runs a package's tests and fails when goroutines are left behind. It
// is the whole of a TestMain: os.Exit(transporttest.RunMain(m)).
func RunMain(m interface{ Run() int }) int {
	return leakcheck.RunMain(m)
}

// Config returns a configuration for tests on this machine: generous sizes,
// short times, no log.
func Config(address string) transport.Config {
	return transport.Config{
		Address:          address,
		MaxMessage:       256 << 10,
		MaxHeader:        16 << 10,
		HandshakeTimeout: 5 * time.Second,
		BodyTimeout:      5 * time.Second,
		IdleTimeout:      30 * time.Second,
		MaxConns:         256,
		MaxConnsPerPeer:  16,
		Logger:           slog.New(slog.DiscardHandler),
	}
}

// HandlerFuncs is a [transport.Handler] of two functions, of which one may be nil.
type HandlerFuncs struct {
	Conn     func(ctx context.Context, c transport.Conn)
	Exchange func(ctx context.Context, from transport.Remote, m transport.Message) (transport.Message, error)
}

// ServeConn implements [transport.Handler].
func (h HandlerFuncs) ServeConn(ctx context.Context, c transport.Conn) {
	if h.Conn != nil {
		h.Conn(ctx, c)
	}
}

// ServeExchange implements [transport.Handler].
func (h HandlerFuncs) ServeExchange(ctx context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
	if h.Exchange == nil {
		return transport.Message{}, errors.New("transporttest: no exchange expected")
	}
	return h.Exchange(ctx, from, m)
}

// Echo sends every message back.
func Echo() HandlerFuncs {
	return HandlerFuncs{
		Conn: func(ctx context.Context, c transport.Conn) {
			for {
				m, err := c.Recv(ctx)
				if err != nil {
					return
				}
				if err := c.Send(ctx, m); err != nil {
					return
				}
			}
		},
		Exchange: func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
			return Answer(m), nil
		},
	}
}

// Answer is a message with the form and the data of m and none of its queues,
// so that it goes back to who sent m.
func Answer(m transport.Message) transport.Message {
	return transport.Message{Form: m.Form, Data: m.Data}
}

func clone(m transport.Message) transport.Message {
	m.Data = slices.Clone(m.Data)
	return m
}
