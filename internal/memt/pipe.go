package memt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/owtp-go/owtp/transport"
)

// backlog is how many messages wait between the two sides before Send blocks:
// enough that neither waits for the other's scheduling, little enough that a
// slow reader is felt.
const backlog = 16

// conn implements [transport.Conn]: one end of a pipe.
type conn struct {
	out, in       chan transport.Message
	maxMessage    int
	patience      time.Duration // for one message to be written
	local, remote string

	end  *ending // of this side
	peer *ending // of the other side
}

// ending is how one side of a pipe ends.
type ending struct {
	once sync.Once
	done chan struct{}
	why  error // set before done is closed
}

func (e *ending) end(why error) {
	e.once.Do(func() {
		e.why = why
		close(e.done)
	})
}

// Pipe returns the two ends of a connection that nobody listens for. Messages
// of any size pass.
func Pipe() (a, b transport.Conn) {
	endless := transport.Config{MaxMessage: math.MaxInt, BodyTimeout: math.MaxInt64}
	return newPipe("pipe", endless, endless)
}

func newPipe(name string, nearCfg, farCfg transport.Config) (near, far *conn) {
	there, back := make(chan transport.Message, backlog), make(chan transport.Message, backlog)
	nearEnd, farEnd := &ending{done: make(chan struct{})}, &ending{done: make(chan struct{})}
	near = &conn{out: there, in: back, maxMessage: nearCfg.MaxMessage, patience: nearCfg.BodyTimeout, local: name + "/dialler", remote: name, end: nearEnd, peer: farEnd}
	far = &conn{out: back, in: there, maxMessage: farCfg.MaxMessage, patience: farCfg.BodyTimeout, local: name, remote: name + "/dialler", end: farEnd, peer: nearEnd}
	return near, far
}

// Send implements [transport.Conn]. The peer gets a copy, so that the two sides
// share no memory, just as if there were a network between them.
func (c *conn) Send(ctx context.Context, m transport.Message) error {
	if len(m.Data) > c.maxMessage {
		return transport.NotSent(&transport.Refusal{Status: http.StatusRequestEntityTooLarge, Reason: "message too large to send"})
	}
	if err := c.ended(); err != nil {
		return transport.NotSent(err)
	}
	if err := ctx.Err(); err != nil {
		return transport.NotSent(err)
	}
	m.Data = append(make([]byte, 0, len(m.Data)), m.Data...)
	select {
	case c.out <- m:
		return nil
	default:
	}
	t := time.NewTimer(c.patience)
	defer t.Stop()
	select {
	case c.out <- m:
		return nil
	case <-t.C:
		return transport.NotSent(fmt.Errorf("owtp: the peer does not read: %w", os.ErrDeadlineExceeded))
	case <-c.end.done:
		return transport.NotSent(closedHere())
	case <-c.peer.done:
		return transport.NotSent(c.closedThere())
	case <-ctx.Done():
		return transport.NotSent(ctx.Err())
	}
}

// Recv implements [transport.Conn]. What the peer sent before it closed is
// still delivered.
func (c *conn) Recv(ctx context.Context) (transport.Message, error) {
	select {
	case <-c.end.done:
		return transport.Message{}, closedHere()
	default:
	}
	select {
	case m := <-c.in:
		return c.bounded(m)
	case <-c.end.done:
		return transport.Message{}, closedHere()
	case <-ctx.Done():
		return transport.Message{}, ctx.Err()
	case <-c.peer.done:
	}
	select {
	case m := <-c.in:
		return c.bounded(m)
	default:
		return transport.Message{}, c.closedThere()
	}
}

// bounded ends the connection for a message that this side does not take.
func (c *conn) bounded(m transport.Message) (transport.Message, error) {
	if len(m.Data) <= c.maxMessage {
		return m, nil
	}
	why := &transport.Refusal{Status: http.StatusRequestEntityTooLarge, Reason: "message too large"}
	c.end.end(why)
	return transport.Message{}, closedError{why}
}

func (c *conn) ended() error {
	select {
	case <-c.end.done:
		return closedHere()
	case <-c.peer.done:
		return c.closedThere()
	default:
		return nil
	}
}

func closedHere() error { return closedError{errors.New("owtp: connection closed")} }

func (c *conn) closedThere() error {
	return closedError{fmt.Errorf("owtp: connection closed by the peer: %w", c.peer.why)}
}

// Close implements [transport.Conn].
func (c *conn) Close(reason string) error {
	c.end.end(errors.New(reason))
	return nil
}

// LocalAddr implements [transport.Conn].
func (c *conn) LocalAddr() string { return c.local }

// RemoteAddr implements [transport.Conn].
func (c *conn) RemoteAddr() string { return c.remote }

// closedError is the end of a connection with its cause.
type closedError struct{ cause error }

func (e closedError) Error() string        { return e.cause.Error() }
func (e closedError) Unwrap() error        { return e.cause }
func (e closedError) Is(target error) bool { return target == net.ErrClosed }
