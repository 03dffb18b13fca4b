package natslink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// A Dialer makes the pipes of one attempt to connect.
type Dialer struct {
	ctx     context.Context
	timeout time.Duration

	mu      sync.Mutex
	pipes   []*Pipe
	err     error
	aborted bool
}

// NewDialer returns a dialler for attempts that ctx bounds. One write to what it
// makes may take so long.
func NewDialer(ctx context.Context, timeout time.Duration) *Dialer {
	return &Dialer{ctx: ctx, timeout: timeout}
}

// Dial implements the client's CustomDialer.
func (d *Dialer) Dial(network, addr string) (net.Conn, error) {
	var nd net.Dialer
	conn, err := nd.DialContext(d.ctx, network, addr)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.err = err
		return nil, err
	}
	if d.aborted {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	p := NewPipe(conn, d.timeout)
	d.pipes = append(slices.DeleteFunc(d.pipes, (*Pipe).ended), p)
	return p, nil
}

// Abort hangs up, also in the midst of a handshake.
func (d *Dialer) Abort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.aborted = true
	for _, p := range d.pipes {
		_ = p.Close()
		_ = p.Conn.Close()
	}
}

// Wait waits for the pipes, which have been closed.
func (d *Dialer) Wait() {
	d.mu.Lock()
	pipes := slices.Clone(d.pipes)
	d.mu.Unlock()
	for _, p := range pipes {
		<-p.done
	}
}

// Last returns the pipe that was made last.
func (d *Dialer) Last() *Pipe {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pipes[len(d.pipes)-1]
}

// Explain finds the cause of an error of the client, which keeps a refused dial
// to itself.
func (d *Dialer) Explain(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.ctx.Err() != nil:
		return fmt.Errorf("no connection in time: %w", d.ctx.Err())
	case errors.Is(err, natsgo.ErrNoServers) && d.err != nil:
		return d.err
	}
	return err
}
