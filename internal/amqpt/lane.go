package amqpt

import (
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/transport"
)

// maxAbandoned is how many messages of a lane may lack a confirm that nobody
// waits for any more. The library remembers each of them until its channel ends,
// and a quorum queue that has lost its quorum confirms nothing for days.
const maxAbandoned = 4096

// A lane is a channel with publisher confirms. When too much was abandoned on it
// another takes its place, and it is closed when its last user has left.
type lane struct {
	*amqp.Channel
	what      string
	abandoned atomic.Int64
	barriers  chan chan struct{}

	// Guarded by the publisher's mu.
	users   int
	retired bool
}

// openLane opens a channel. The returns of requests end their calls; those of
// answers mean that their callers have gone, which is nothing special. They
// must not be mixed up: the ID of an answer was chosen by a stranger.
func (p *publisher) openLane(what string, onReturn func(amqp.Return)) (*lane, error) {
	ch, err := p.channel(what)
	if err != nil {
		return nil, readable(err)
	}
	if err := ch.Confirm(false); err != nil {
		return nil, readable(err)
	}
	l := &lane{Channel: ch, what: what, barriers: make(chan chan struct{})}
	// Without a buffer, so that a message's return has been taken before its
	// confirm is read.
	returns := ch.NotifyReturn(make(chan amqp.Return))
	p.tasks.Go(func() { l.takeReturns(returns, onReturn) })
	return l, nil
}

// takeReturns ends with the channel.
func (l *lane) takeReturns(returns <-chan amqp.Return, take func(amqp.Return)) {
	for {
		select {
		case r, open := <-returns:
			if !open {
				return
			}
			take(r)
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

// unroutable is the end of a call whose message the broker has returned.
func (e *endpoint) unroutable(r amqp.Return) {
	reason := "nobody consumes queue " + oneLine(r.RoutingKey)
	if r.Exchange != "" {
		reason += " on exchange " + oneLine(r.Exchange)
	}
	e.calls.end(r.CorrelationId, result{err: transport.NotSent(&transport.Refusal{Status: statusDisconnected, Reason: reason})})
}

// statusDisconnected is PROTOCOL §9's; HTTP has none like it.
const statusDisconnected = 430

// enter returns the lane to publish on at present. Each enter asks for one leave.
func (p *publisher) enter(of **lane) *lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	(*of).users++
	return *of
}

// leave says whether the message still lacks its confirm.
func (p *publisher) leave(l *lane, abandoned bool) {
	if abandoned && l.abandoned.Add(1) == maxAbandoned {
		p.tell(p.worn, l)
	}
	p.mu.Lock()
	l.users--
	last := l.retired && l.users == 0
	p.mu.Unlock()
	if last {
		p.tell(p.idle, l)
	}
}

func (p *publisher) tell(who chan<- *lane, l *lane) {
	select {
	case who <- l:
	case <-p.ended:
	}
}

// renewLanes replaces lanes and closes those that were replaced.
func (p *publisher) renewLanes() {
	for {
		select {
		case l := <-p.idle:
			_ = l.Close()
		case l := <-p.worn:
			if err := p.renew(l); err != nil {
				p.fail(err)
			}
		case <-p.ended:
			return
		}
	}
}

func (p *publisher) renew(old *lane) error {
	of, onReturn := &p.requests, p.e.unroutable
	if old == p.answers { // only this goroutine changes it
		of, onReturn = &p.answers, ignore
	}
	l, err := p.openLane(old.what, onReturn)
	if err != nil {
		return err
	}
	p.mu.Lock()
	*of, old.retired = l, true
	idle := old.users == 0
	p.mu.Unlock()
	if idle {
		_ = old.Close()
	}
	return nil
}

func ignore(amqp.Return) {}
