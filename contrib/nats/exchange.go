package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
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
	reply, token := newReply(e.queues.Reply, e.expires(ctx, m))
	w := s.expect(token, to, 1)
	defer s.forget(token)
	if err := s.publish(to, reply, requestHeader(m), m.Data); err != nil {
		return transport.Message{}, transport.NotSent(e.explain(fmt.Errorf("owtp: publishing to %s: %w", to, err)))
	}
	return e.await(ctx, s, w)
}

func requestHeader(m transport.Message) natsgo.Header {
	h := headerOf(m.Form)
	if m.OneWay {
		h = natsgo.Header{headerOneWay: {"1"}}
		maps.Copy(h, headerOf(m.Form))
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
	return s, s.pipe.room(ctx)
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

// await waits for the answer.
func (e *endpoint) await(ctx context.Context, s *session, w *waiter) (transport.Message, error) {
	select {
	case r := <-w.results:
		return e.read(r, w.to)
	case <-ctx.Done():
		return transport.Message{}, fmt.Errorf("owtp: no answer from %s: %w", w.to, ctx.Err())
	case <-s.gone:
	}
	select {
	case r := <-w.results: // just in time
		return e.read(r, w.to)
	default:
		return transport.Message{}, e.explain(errors.New("owtp: the connection to the NATS server was lost; whether the message has arrived is not known"))
	}
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

// explain names Close as the cause of what it broke off.
func (e *endpoint) explain(err error) error {
	if e.ctx.Err() != nil {
		return fmt.Errorf("owtp: exchange broken off: %w", net.ErrClosed)
	}
	return err
}
