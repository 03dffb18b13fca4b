package amqpt

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/transport"
)

// A publisher is the session that messages go out on: requests on one lane and
// answers on another, so that neither waits for the other's confirms.
type publisher struct {
	*session
	e *endpoint

	requests, answers *lane

	stopped chan struct{} // closed when the broker blocks publishing for the first time

	mu      sync.Mutex
	blocked chan struct{} // closed when the broker takes messages again; nil while it does
	reason  string
}

// openPublisher connects and makes sure that publishing is allowed.
func (e *endpoint) openPublisher(ctx context.Context) (*publisher, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.HandshakeTimeout)
	defer cancel()
	s, err := dial(ctx, e, "out")
	if err != nil {
		return nil, err
	}
	p := &publisher{session: s, e: e, stopped: make(chan struct{})}
	stop := s.within(ctx)
	if err = p.setUp(); err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return p, nil
}

func (p *publisher) setUp() (err error) {
	blocking := p.conn.NotifyBlocked(make(chan amqp.Blocking, 16))
	p.tasks.Go(func() { p.watchBlocking(blocking) })
	if p.requests, err = p.openLane("the channel of requests"); err != nil {
		return err
	}
	if p.answers, err = p.openLane("the channel of answers"); err != nil {
		return err
	}
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
		p.mu.Lock()
		switch {
		case b.Active && p.blocked == nil:
			p.blocked, p.reason = make(chan struct{}), oneLine(b.Reason)
			p.e.log.Warn("owtp: the broker has blocked publishing", "broker", p.e.at.String(), "reason", p.reason)
		case !b.Active && p.blocked != nil:
			close(p.blocked)
			p.blocked = nil
			p.e.log.Info("owtp: the broker takes messages again", "broker", p.e.at.String())
		}
		p.mu.Unlock()
	}
}

func (p *publisher) blocking() (until <-chan struct{}, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blocked, p.reason
}

// admit waits until the broker takes messages and the socket has room. Errors
// satisfy ErrNotSent.
func (p *publisher) admit(ctx context.Context) error {
	for {
		until, reason := p.blocking()
		if until != nil {
			reason = "the broker has blocked publishing (" + reason + ")"
		} else if until = p.socket.room(); until != nil {
			reason = "the broker does not read what it is sent"
		} else {
			return nil
		}
		if err := p.wait(ctx, until, reason); err != nil {
			return err
		}
	}
}

func (p *publisher) wait(ctx context.Context, until <-chan struct{}, reason string) error {
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
	case <-p.e.ctx.Done():
		return nil // what is to end says so itself
	case <-ctx.Done():
		return transport.NotSent(fmt.Errorf("owtp: %s: %w", reason, context.Cause(ctx)))
	}
}

// A lane is a channel with publisher confirms.
type lane struct {
	*amqp.Channel
	barriers chan chan struct{}
}

func (p *publisher) openLane(what string) (*lane, error) {
	ch, err := p.channel(what)
	if err != nil {
		return nil, readable(err)
	}
	if err := ch.Confirm(false); err != nil {
		return nil, readable(err)
	}
	l := &lane{Channel: ch, barriers: make(chan chan struct{})}
	// Without a buffer, so that a message's return has been taken before its
	// confirm is read.
	returns := ch.NotifyReturn(make(chan amqp.Return))
	p.tasks.Go(func() { p.takeReturns(l, returns) })
	return l, nil
}

// takeReturns tells calls that their messages went nowhere.
func (p *publisher) takeReturns(l *lane, returns <-chan amqp.Return) {
	for {
		select {
		case r, open := <-returns:
			if !open {
				return
			}
			p.e.calls.end(r.CorrelationId, result{err: unroutable(r)})
		case b := <-l.barriers:
			close(b)
		}
	}
}

// returned waits until all returns that came before now have been taken.
func (l *lane) returned(ended <-chan struct{}) {
	b := make(chan struct{})
	select {
	case l.barriers <- b:
		<-b
	case <-ended:
	}
}

func unroutable(r amqp.Return) error {
	reason := "nobody consumes queue " + oneLine(r.RoutingKey)
	if r.Exchange != "" {
		reason += " on exchange " + oneLine(r.Exchange)
	}
	return transport.NotSent(&transport.Refusal{Status: statusDisconnected, Reason: reason})
}

// statusDisconnected is PROTOCOL §9's; HTTP has none like it.
const statusDisconnected = 430

// publish hands a message to the broker. The confirmation comes later. Errors
// satisfy ErrNotSent.
func (p *publisher) publish(ctx context.Context, l *lane, queue string, m amqp.Publishing) (*amqp.DeferredConfirmation, error) {
	if err := p.admit(ctx); err != nil {
		return nil, err
	}
	confirmation, err := l.PublishWithDeferredConfirm(p.e.cfg.Exchange, queue, true, false, m)
	if err != nil {
		// The socket did not take the message to its end, so that the broker
		// has none of it.
		return nil, transport.NotSent(fmt.Errorf("owtp: publishing to queue %q: %w", queue, readable(err)))
	}
	return confirmation, nil
}

// refused is what a negative confirmation means. The library gives one too when
// the channel ends before the broker has spoken; then nobody knows.
func (p *publisher) refused(l *lane, queue string) error {
	if l.IsClosed() {
		<-p.ended // about to be
		return p.lost("the connection ended before the broker confirmed the message")
	}
	return &transport.Refusal{Status: http.StatusServiceUnavailable, Reason: "the queue is full: " + oneLine(queue)}
}
