package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp/transport"
)

// Exchange implements [transport.Exchanger].
func (e *endpoint) Exchange(ctx context.Context, m transport.Message) (transport.Message, error) {
	to := cmp.Or(m.To, e.cfg.WriteQueueName)
	s, err := e.prepare(ctx, to, m)
	if err != nil {
		return transport.Message{}, transport.NotSent(err)
	}
	if e.addr.durable && !strings.HasPrefix(to, transport.OwnQueuePrefix) {
		return e.deposit(ctx, s, to, m)
	}
	reply, token := newReply(e.queues.Reply, e.expires(ctx, m))
	w := e.waiting.add(to, "", token)
	defer e.waiting.remove(w, token)
	if err := s.publish(to, reply, requestHeader(m), m.Data); err != nil {
		return transport.Message{}, e.notPublished(to, err)
	}
	select {
	case r := <-w.results:
		return e.read(r, to)
	case <-ctx.Done():
		return transport.Message{}, noAnswer(ctx, to)
	case <-s.gone:
	}
	select {
	case r := <-w.results: // just in time
		return e.read(r, to)
	default:
		return transport.Message{}, e.explain(errors.New("owtp: the connection to the NATS server was lost; whether the message has arrived is not known"))
	}
}

// deposit is Exchange through a stream. Once that has the message, a lost
// connection is no reason to give up: the answer comes to the next one.
func (e *endpoint) deposit(ctx context.Context, s *session, to string, m transport.Message) (transport.Message, error) {
	reply, token := newReply(e.queues.Reply, e.expires(ctx, m))
	receipt, secret := newReply(e.queues.Reply, 0)
	w := e.waiting.add(durablePrefix+to, secret, token, secret)
	defer e.waiting.remove(w, token, secret)
	h := natsgo.Header{headerReply: {reply}}
	for name, values := range requestHeader(m) {
		h[name] = values
	}
	if err := s.publish(w.to, receipt, h, m.Data); err != nil {
		return transport.Message{}, e.notPublished(to, err)
	}
	gone := s.gone
	for {
		select {
		case r := <-w.results:
			if !r.receipt {
				return e.read(r, to)
			}
			if err := readReceipt(r.msg, to); err != nil || m.OneWay {
				return transport.Message{}, err
			}
			gone = nil // but e.ctx still ends
		case <-ctx.Done():
			return transport.Message{}, noAnswer(ctx, to)
		case <-e.ctx.Done():
			return transport.Message{}, e.explain(nil)
		case <-gone:
			return transport.Message{}, e.explain(errors.New("owtp: the connection to the NATS server was lost; whether the stream has the message is not known"))
		}
	}
}

func requestHeader(m transport.Message) natsgo.Header {
	h := headerOf(m.Form)
	if m.OneWay {
		h = natsgo.Header{headerOneWay: {"1"}, headerType: {contentType(m.Form)}}
	}
	return h
}

// publish does not wait, if there is room.
func (s *session) publish(subject, reply string, h natsgo.Header, data []byte) error {
	if h == nil {
		return s.nc.PublishRequest(subject, reply, data)
	}
	return s.nc.PublishMsg(&natsgo.Msg{Subject: subject, Reply: reply, Header: h, Data: data})
}

// prepare checks what can be checked before anything is sent.
func (e *endpoint) prepare(ctx context.Context, to string, m transport.Message) (*session, error) {
	if e.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkName("queue to send to", to); err != nil {
		return nil, err
	}
	switch {
	case len(m.Data) == 0:
		return nil, &transport.Refusal{Status: 400, Reason: "a message over NATS cannot be empty"}
	case len(m.Data) > e.cfg.MaxMessage:
		return nil, &transport.Refusal{Status: 413, Reason: "message too large to send"}
	}
	s := e.session.Load()
	if s == nil {
		return nil, e.explain(fmt.Errorf("owtp: no connection to the NATS server %s at present", e.addr.host))
	}
	if err := s.fits(len(m.Data)); err != nil {
		return nil, err
	}
	return s, s.pipe.Room(ctx)
}

// expires is how long the sender of a message waits.
func (e *endpoint) expires(ctx context.Context, m transport.Message) time.Duration {
	d := m.Expires
	if end, ok := ctx.Deadline(); ok && d == 0 {
		d = max(time.Until(end), 1)
	}
	if e.cfg.MaxQueueTime > 0 && (d == 0 || d > e.cfg.MaxQueueTime) {
		d = e.cfg.MaxQueueTime
	}
	return d
}

// read is what an exchange makes of its answer.
func (e *endpoint) read(r result, to string) (transport.Message, error) {
	if r.err != nil {
		return transport.Message{}, r.err
	}
	m := r.msg
	if noResponders(m) {
		return transport.Message{}, transport.NotSent(&transport.Refusal{Status: 430, Reason: fmt.Sprintf("nobody serves the queue %s", to)})
	}
	if refusal := refusalOf(m); refusal != nil {
		if refusal.Status == taken {
			return transport.Message{}, nil
		}
		return transport.Message{}, refusal
	}
	form, ok := formOf(m.Header)
	switch {
	case !ok:
		return transport.Message{}, &transport.Refusal{Status: 415, Reason: "the answer is no OWTP message"}
	case len(m.Data) > e.cfg.MaxMessage:
		return transport.Message{}, &transport.Refusal{Status: 413, Reason: "the answer is too large"}
	}
	return transport.Message{Form: form, Data: m.Data, To: e.queues.Reply}, nil
}

func noAnswer(ctx context.Context, to string) error {
	return fmt.Errorf("owtp: no answer from the queue %s: %w", to, ctx.Err())
}

func (e *endpoint) notPublished(to string, err error) error {
	return transport.NotSent(e.explain(fmt.Errorf("owtp: publishing to the queue %s: %w", to, err)))
}

// explain names Close as the cause of what it broke off.
func (e *endpoint) explain(err error) error {
	if e.ctx.Err() != nil {
		return fmt.Errorf("owtp: exchange broken off: %w", net.ErrClosed)
	}
	return err
}
