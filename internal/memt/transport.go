// Package memt carries messages between nodes of one process, for tests and for
// services that live together.
package memt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/owtp-go/owtp/transport"
)

// Transport implements [transport.ConnDialer]. It has no state; who listens
// under which name is known to the whole process.
type Transport struct{}

var _ transport.ConnDialer = (*Transport)(nil)

// New returns the transport.
func New() *Transport { return new(Transport) }

// Kind implements [transport.Transport].
func (*Transport) Kind() transport.Kind { return transport.Memory }

// Listen implements [transport.Transport]. cfg.Address is a name of the caller's choice.
func (*Transport) Listen(ctx context.Context, cfg transport.Config, h transport.Handler) (transport.Listener, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if cfg.Address == "" {
		return nil, errors.New("owtp: listening in memory needs a name")
	}
	l := newListener(cfg, h)
	if !listening.add(cfg.Address, l) {
		l.cancel()
		return nil, fmt.Errorf("owtp: the memory name %q is in use", cfg.Address)
	}
	return l, nil
}

// DialConn implements [transport.ConnDialer]. Where the listener has all the
// connections that it wants, it waits for HandshakeTimeout.
func (*Transport) DialConn(ctx context.Context, cfg transport.Config) (transport.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, transport.NotSent(err)
	}
	l := listening.find(cfg.Address)
	if l == nil {
		return nil, transport.NotSent(fmt.Errorf("owtp: nobody listens under the memory name %q", cfg.Address))
	}
	if err := l.place(ctx, cfg.HandshakeTimeout); err != nil {
		return nil, transport.NotSent(err)
	}
	near, far := newPipe(cfg.Address, cfg, l.cfg)
	if !l.accept(far) {
		return nil, transport.NotSent(fmt.Errorf("owtp: the memory listener %q has closed: %w", cfg.Address, net.ErrClosed))
	}
	return near, nil
}

// place waits until the listener takes one more connection.
func (l *listener) place(ctx context.Context, patience time.Duration) error {
	if l.places == nil {
		return nil
	}
	select {
	case l.places <- struct{}{}:
		return nil
	default:
	}
	var late <-chan time.Time
	if patience > 0 {
		t := time.NewTimer(patience)
		defer t.Stop()
		late = t.C
	}
	select {
	case l.places <- struct{}{}:
		return nil
	case <-late:
		return fmt.Errorf("owtp: the memory listener %q is full", l.cfg.Address)
	case <-l.ctx.Done():
		return fmt.Errorf("owtp: the memory listener %q has closed: %w", l.cfg.Address, net.ErrClosed)
	case <-ctx.Done():
		return ctx.Err()
	}
}
