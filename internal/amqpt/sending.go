package amqpt

import (
	"errors"
	"fmt"
	"net/http"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/transport"
)

// A sending is a message that was given to the socket, and that the broker will
// confirm or refuse. Who has one calls leave once.
type sending struct {
	*amqp.DeferredConfirmation
	p     *publisher
	lane  *lane
	queue string
}

// publish gives a message to the socket; admit has let it in before. Errors
// satisfy ErrNotSent.
func (p *publisher) publish(of **lane, queue string, m amqp.Publishing) (sending, error) {
	l := p.enter(of)
	confirmation, err := l.PublishWithDeferredConfirm(p.e.cfg.Exchange, queue, true, false, m)
	if err != nil {
		p.leave(l, false)
		// The socket did not take the message to its end, so that the broker
		// has none of it.
		select {
		case <-p.ended:
			return sending{}, transport.NotSent(p.session.lost("not published"))
		default:
			return sending{}, transport.NotSent(fmt.Errorf("owtp: publishing to queue %q: %w", queue, readable(err)))
		}
	}
	return sending{confirmation, p, l, queue}, nil
}

// confirmed reports whether the broker has spoken.
func (s sending) confirmed() bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

func (s sending) leave() { s.p.leave(s.lane, !s.confirmed()) }

// errLost is the end of a connection on which a message was published and not
// confirmed.
var errLost = errors.New("the connection ended before the broker confirmed the message")

func (s sending) lost() error { return s.p.lost(errLost.Error()) }

// isLost tells a negative confirmation from that which the library gives when
// the channel ends before the broker has spoken.
func (s sending) isLost() bool { return !s.Acked() && s.lane.IsClosed() }

// refused is what a negative confirmation means.
func (s sending) refused() error {
	if s.isLost() {
		<-s.p.ended // about to be
		return s.lost()
	}
	return &transport.Refusal{Status: http.StatusServiceUnavailable, Reason: "the queue is full: " + oneLine(s.queue)}
}

// late says how far the message had come when its sender's time was up.
func (s sending) late(why error) error {
	if s.confirmed() {
		return fmt.Errorf("owtp: no answer from queue %q: %w", s.queue, why)
	}
	if until, reason := s.p.blocking(); until != nil {
		return fmt.Errorf("owtp: the broker has blocked publishing (%s) and not confirmed the message: %w", reason, why)
	}
	return fmt.Errorf("owtp: the broker has not confirmed the message to queue %q: %w", s.queue, why)
}
