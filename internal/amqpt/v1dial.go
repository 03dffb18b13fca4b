package amqpt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/transport"
)

// Calling in protocol version 1. Its nodes read one queue and write to another,
// with requests and answers in both: that is a connection, which ends when that
// to the broker does.

// Legacy dials as version 1's nodes do. It implements [transport.ConnDialer] and
// has no state.
type Legacy struct{ t *Transport }

var _ transport.ConnDialer = (*Legacy)(nil)

// NewLegacy returns the transport.
func NewLegacy() *Legacy { return &Legacy{New()} }

// Kind implements [transport.Transport].
func (*Legacy) Kind() transport.Kind { return transport.MQ }

// Listen implements [transport.Transport]: that is [Transport.Listen] with
// Config.Legacy.
func (l *Legacy) Listen(context.Context, transport.Config, transport.Handler) (transport.Listener, error) {
	return nil, errors.New("owtp: this transport only dials")
}

// legacyPrefetch is how many messages are on the way to us.
const legacyPrefetch = 64

// DialConn implements [transport.ConnDialer]. It reads cfg.ReadQueueName alone,
// which it makes as version 1's nodes do if it is not there, and writes to
// cfg.WriteQueueName, which its peer makes. Whatever goes wrong here, no message
// was sent.
func (l *Legacy) DialConn(ctx context.Context, cfg transport.Config) (transport.Conn, error) {
	c, err := l.dial(ctx, cfg)
	if err != nil {
		return nil, transport.NotSent(err)
	}
	return c, nil
}

func (l *Legacy) dial(ctx context.Context, cfg transport.Config) (*legacyConn, error) {
	at, err := parseAddress(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.ReadQueueName == "" || cfg.WriteQueueName == "" || cfg.Exchange == "" || max(len(cfg.ReadQueueName), len(cfg.WriteQueueName), len(cfg.Exchange)) > maxName {
		return nil, fmt.Errorf("owtp: version 1 needs an exchange and two queues with names of at most %d bytes", maxName)
	}
	e := &endpoint{cfg: cfg, at: at, heartbeat: l.t.heartbeat, log: cfg.Logger}
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	s, err := dial(ctx, e, "version 1")
	if err != nil {
		return nil, err
	}
	c := &legacyConn{session: s, e: e}
	stop := s.within(ctx)
	if err = c.setUp(); err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		s.close()
		return nil, inTime(ctx, err)
	}
	return c, nil
}

// A legacyConn implements [transport.Conn].
type legacyConn struct {
	*session
	e          *endpoint
	ch         *amqp.Channel
	deliveries <-chan amqp.Delivery
	closing    sync.Once
}

func (c *legacyConn) setUp() (err error) {
	cfg := &c.e.cfg
	there, err := c.has(cfg.ReadQueueName)
	if err != nil {
		return err
	}
	if c.ch, err = c.channel("the channel"); err != nil {
		return readable(err)
	}
	t := &topology{e: c.e, ch: c.ch}
	t.find(cfg.Exchange)
	if !there {
		t.do(step{"declaring queue", cfg.ReadQueueName, "configure queue " + cfg.ReadQueueName}, func() error {
			_, err := c.ch.QueueDeclare(cfg.ReadQueueName, true, false, false, false, nil)
			return err
		})
	}
	t.do(step{"binding queue", cfg.ReadQueueName, "write to queue " + cfg.ReadQueueName + " and read from exchange " + cfg.Exchange}, func() error {
		return c.ch.QueueBind(cfg.ReadQueueName, cfg.ReadQueueName, cfg.Exchange, false, nil)
	})
	inUse := false
	t.do(step{"consuming queue", cfg.ReadQueueName, "read queue " + cfg.ReadQueueName}, func() (err error) {
		if err = c.ch.Qos(legacyPrefetch, 0, false); err == nil {
			c.deliveries, err = c.ch.Consume(cfg.ReadQueueName, "", false, true, false, false, nil)
		}
		inUse = err != nil && strings.Contains(err.Error(), "exclusive")
		return err
	})
	if inUse {
		return fmt.Errorf("owtp: queue %q is read by somebody else already, or by a connection of ours that the broker has not given up yet: each node that calls in version 1 needs a queue of its own, or it would lose answers", cfg.ReadQueueName)
	}
	if t.err != nil {
		return t.err
	}
	returned := c.ch.NotifyReturn(make(chan amqp.Return, 1))
	c.tasks.Go(func() {
		for r := range returned {
			c.fail(fmt.Errorf("queue %q does not exist, or is not bound to exchange %q: the peer makes it when it comes for the first time", oneLine(r.RoutingKey), oneLine(r.Exchange)))
		}
	})
	return nil
}

// has reports whether a queue exists, with whatever arguments. To ask costs a
// channel if it does not.
func (c *legacyConn) has(queue string) (bool, error) {
	ch, err := c.conn.Channel()
	if err != nil {
		return false, readable(err)
	}
	if _, err = ch.QueueDeclarePassive(queue, true, false, false, false, nil); err == nil {
		_ = ch.Close()
		return true, nil
	}
	if codeOf(err) == amqp.NotFound {
		return false, nil
	}
	return false, step{"looking for queue", queue, "configure queue " + queue}.explain(err, c.e)
}

// Send implements [transport.Conn]. The broker drops the message if nobody has
// read it for Config.MaxQueueTime.
func (c *legacyConn) Send(ctx context.Context, m transport.Message) error {
	if len(m.Data) > c.e.cfg.MaxMessage {
		return transport.NotSent(&transport.Refusal{Status: http.StatusRequestEntityTooLarge, Reason: "message too large to send"})
	}
	ctx, cancel := context.WithTimeout(ctx, c.e.cfg.BodyTimeout)
	defer cancel()
	for room := c.socket.room(); room != nil; room = c.socket.room() {
		select {
		case <-room:
		case <-c.ended:
			return c.gone("not published")
		case <-ctx.Done():
			return transport.NotSent(context.Cause(ctx))
		}
	}
	err := c.ch.Publish(c.e.cfg.Exchange, c.e.cfg.WriteQueueName, true, false, amqp.Publishing{
		ContentType: typeLegacy, Expiration: expiration(c.e.cfg.MaxQueueTime), Body: m.Data,
	})
	if err != nil {
		c.fail(readable(err))
		return c.gone("not published")
	}
	return nil
}

// Recv implements [transport.Conn]. What is no message of version 1 is dropped.
func (c *legacyConn) Recv(ctx context.Context) (transport.Message, error) {
	for {
		select {
		case d, open := <-c.deliveries:
			if !open {
				c.fail(fmt.Errorf("the broker stopped the delivery from queue %q, as if it had been deleted", c.e.cfg.ReadQueueName))
				return transport.Message{}, c.gone("receive")
			}
			_ = d.Ack(false)
			if refusal := c.e.checkBody(d); refusal != nil || d.ContentType != typeLegacy {
				c.e.log.Debug("owtp: AMQP message dropped", "queue", c.e.cfg.ReadQueueName, "reason", "no message of version 1")
				continue
			}
			return transport.Message{Form: transport.JSON, Data: d.Body, Redelivered: d.Redelivered}, nil
		case <-c.ended:
			return transport.Message{}, c.gone("receive")
		case <-ctx.Done():
			c.fail(context.Cause(ctx))
			return transport.Message{}, c.gone("receive")
		}
	}
}

// gone is the error of what is asked of a connection that has ended.
func (c *legacyConn) gone(doing string) error {
	return endedError{c.lost(doing)}
}

// An endedError is the end of a connection with its cause.
type endedError struct{ cause error }

func (e endedError) Error() string        { return e.cause.Error() }
func (e endedError) Unwrap() error        { return e.cause }
func (e endedError) Is(target error) bool { return target == net.ErrClosed }

// Close implements [transport.Conn]. What was sent before goes out.
func (c *legacyConn) Close(string) error {
	c.closing.Do(func() { c.session.close() })
	return nil
}

// LocalAddr implements [transport.Conn].
func (c *legacyConn) LocalAddr() string { return c.local }

// RemoteAddr implements [transport.Conn]: the broker's host and port.
func (c *legacyConn) RemoteAddr() string { return c.e.at.host }
