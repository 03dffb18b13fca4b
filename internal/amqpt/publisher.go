package amqpt

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/transport"
)

// A publisher is the session that messages go out on: requests on one lane and
// answers on another, so that neither waits for the other's confirms.
type publisher struct {
	*session
	e *endpoint

	stopped    chan struct{} // closed when the broker blocks publishing for the first time
	worn, idle chan *lane    // to renewLanes: to be replaced, to be closed

	mu                sync.Mutex
	requests, answers *lane
	blocked           chan struct{} // closed when the broker takes messages again; nil while it does
	reason            string
}

// openPublisher connects and makes sure that publishing is allowed.
func (e *endpoint) openPublisher(ctx context.Context) (*publisher, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.HandshakeTimeout)
	defer cancel()
	s, err := dial(ctx, e, "out")
	if err != nil {
		return nil, err
	}
	p := &publisher{session: s, e: e, stopped: make(chan struct{}), worn: make(chan *lane), idle: make(chan *lane)}
	stop := s.within(ctx)
	if err = p.setUp(); err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		s.close()
		return nil, inTime(ctx, err)
	}
	return p, nil
}

func (p *publisher) setUp() (err error) {
	blocking := p.conn.NotifyBlocked(make(chan amqp.Blocking, 16))
	p.tasks.Go(func() { p.watchBlocking(blocking) })
	if p.requests, err = p.openLane("the channel of requests", p.e.unroutable); err != nil {
		return err
	}
	if p.answers, err = p.openLane("the channel of answers", ignore); err != nil {
		return err
	}
	p.tasks.Go(p.renewLanes)
	return p.probe()
}

// probe publishes to the own reply queue, so that a missing permission is known
// before a call depends on it: the broker says so only by closing the channel.
func (p *publisher) probe() error {
	exchange := p.e.cfg.Exchange
	confirmation, err := p.answers.PublishWithDeferredConfirm(exchange, p.e.queues.Reply, false, false, amqp.Publishing{Type: probeType})
	if err == nil {
		select {
		case <-confirmation.Done():
			if confirmation.Acked() || !p.answers.IsClosed() {
				return nil
			}
			<-p.ended
			err = p.cause
		case <-p.ended:
			err = p.cause
		case <-p.stopped:
			return nil // a broker that is short of memory has let us in, at least
		}
	}
	name := cmp.Or(exchange, "amq.default")
	return step{"publishing on exchange", name, "write to exchange " + name}.explain(err, p.e)
}

// watchBlocking follows what the broker says of its memory and its disk.
func (p *publisher) watchBlocking(blocking <-chan amqp.Blocking) {
	var first sync.Once
	for b := range blocking {
		first.Do(func() { close(p.stopped) })
		switch changed, reason := p.setBlocked(b); {
		case changed && b.Active:
			p.e.log.Warn("owtp: the broker has blocked publishing", "broker", p.e.at.String(), "reason", reason)
		case changed:
			p.e.log.Info("owtp: the broker takes messages again", "broker", p.e.at.String())
		}
	}
}

func (p *publisher) setBlocked(b amqp.Blocking) (changed bool, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.Active == (p.blocked != nil) {
		return false, ""
	}
	if b.Active {
		p.blocked, p.reason = make(chan struct{}), oneLine(b.Reason)
	} else {
		close(p.blocked)
		p.blocked = nil
	}
	return true, p.reason
}

func (p *publisher) blocking() (until <-chan struct{}, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blocked, p.reason
}

// admit waits until the broker takes messages and the socket has room, or closing
// is closed. Errors satisfy ErrNotSent.
func (p *publisher) admit(ctx context.Context, closing <-chan struct{}) error {
	for {
		until, reason := p.blocking()
		if until != nil {
			reason = "the broker has blocked publishing (" + reason + ")"
		} else if until = p.socket.room(); until != nil {
			reason = "the broker does not read what it is sent"
		} else {
			return nil
		}
		if err := p.wait(ctx, closing, until, reason); err != nil {
			return err
		}
	}
}

func (p *publisher) wait(ctx context.Context, closing, until <-chan struct{}, reason string) error {
	leave, err := p.e.waiting.enter()
	if err != nil {
		return err
	}
	defer leave()
	select {
	case <-until:
		return nil
	case <-p.ended:
		return transport.NotSent(p.lost("not published"))
	case <-closing:
		return transport.NotSent(net.ErrClosed)
	case <-ctx.Done():
		return transport.NotSent(fmt.Errorf("owtp: %s: %w", reason, context.Cause(ctx)))
	}
}
