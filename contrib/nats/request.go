package nats

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp/transport"
)

// smallMessage is up to where a message is not counted in Config.Receiving.
const smallMessage = 4 << 10

// A request is one message from a queue on its way to the handler and back. One
// goroutine at a time has it.
type request struct {
	e       *endpoint
	message transport.Message
	from    transport.Remote
	mark    string // of the answer; "" if nobody wants one
	until   time.Time
	held    int // octets of the budget
}

// arrived is called with each request, one after the other, and does not wait.
func (e *endpoint) arrived(s *session, m *natsgo.Msg, queue string) {
	r := &request{e: e, from: transport.Remote{Addr: e.addr.host, LocalAddr: s.local}}
	r.message = transport.Message{Data: m.Data, To: queue, OneWay: one(m.Header, headerOneWay) != ""}
	if m.Reply == "" {
		r.message.OneWay = true
	} else {
		var ok bool
		if r.message.ReplyTo, r.mark, ok = splitReply(m.Reply); !ok {
			e.cfg.Logger.Warn("owtp: a request was dropped that wants its answer elsewhere than in a reply queue", "queue", queue, "reply", line(m.Reply))
			return
		}
	}
	r.until = time.Now().Add(patience(r.mark, e.cfg.MaxQueueTime))
	if refusal := r.admit(m.Header); refusal != nil {
		r.refuse(refusal.Status, refusal.Reason)
		return
	}
	if !e.desk.take(r) {
		r.refuse(503, "too busy; try again later")
		r.release()
		return
	}
	if r.message.OneWay && r.mark != "" {
		r.refuse(taken, "")
	}
}

// admit checks the message and takes what it costs.
func (r *request) admit(h natsgo.Header) *transport.Refusal {
	form, ok := formOf(h)
	switch {
	case !ok:
		return &transport.Refusal{Status: 415, Reason: "content type is neither " + typeBinary + " nor " + typeJSON}
	case len(r.message.Data) == 0:
		return &transport.Refusal{Status: 400, Reason: "empty message"}
	case len(r.message.Data) > r.e.cfg.MaxMessage:
		return &transport.Refusal{Status: 413, Reason: "message too large"}
	}
	r.message.Form = form
	if len(r.message.Data) > smallMessage {
		if !r.e.cfg.Receiving.Take(len(r.message.Data)) {
			return &transport.Refusal{Status: 503, Reason: "too busy; try again later"}
		}
		r.held = len(r.message.Data)
	}
	return nil
}

// release gives back what the request costs.
func (r *request) release() {
	r.e.cfg.Receiving.Give(r.held)
	r.held = 0
}

// serve asks the handler and answers.
func (r *request) serve() {
	if time.Now().After(r.until) {
		r.refuse(408, "nobody has come to it in time")
		return
	}
	answer, err := r.call()
	switch {
	case r.message.OneWay:
		if err != nil {
			r.refusal(err) // for the log
		}
	case err != nil:
		refusal := r.refusal(err)
		r.refuse(refusal.Status, refusal.Reason)
	default:
		r.answer(answer)
	}
}

// call keeps a handler's panic from ending the program.
func (r *request) call() (answer transport.Message, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.e.cfg.Logger.Error("owtp: handler panicked", "queue", r.message.To, "panic", p, "stack", string(debug.Stack()))
			err = &transport.Refusal{Status: 500, Reason: "internal error"}
		}
	}()
	return r.e.handler.ServeExchange(r.e.handling, r.from, r.message)
}

// refusal passes on what a handler says of the message, and tells a stranger
// nothing about an error that was not made for it.
func (r *request) refusal(err error) *transport.Refusal {
	var refusal *transport.Refusal
	if !errors.As(err, &refusal) {
		r.e.cfg.Logger.Error("owtp: exchange failed", "queue", r.message.To, "error", err)
		refusal = &transport.Refusal{Status: 500, Reason: "internal error"}
	}
	r.e.cfg.Logger.Debug("owtp: request refused", "queue", r.message.To, "status", refusal.Status, "reason", refusal.Reason)
	return refusal
}

// answer sends the answer. It may wait for the connection to come back, as long
// as the caller waits for it.
func (r *request) answer(m transport.Message) {
	to := m.To
	if to == "" {
		to = r.message.ReplyTo
	}
	if !isReplyQueue(to) {
		r.e.cfg.Logger.Error("owtp: an answer goes to reply queues only", "queue", line(to))
		r.refuse(500, "internal error")
		return
	}
	err := r.publish(to, headerOf(m.Form), m.Data)
	var tooLarge *transport.Refusal
	if errors.As(err, &tooLarge) {
		r.refuse(tooLarge.Status, "the answer is too large: "+tooLarge.Reason)
	} else if err != nil {
		r.e.cfg.Logger.Warn("owtp: an answer was lost", "queue", line(to), "error", err)
	}
}

// refuse answers with a status instead of a packet, if anybody wants to hear it.
func (r *request) refuse(status int, reason string) {
	if r.mark == "" {
		return
	}
	s := r.e.session.Load()
	if s == nil {
		return
	}
	if !s.pipe.hasRoom() {
		return // it would have to wait; its caller waits no longer for it than for any loss
	}
	_ = s.publish(r.message.ReplyTo+"."+r.mark, "", refusalHeader(status), []byte(line(reason)))
}

// publish sends an answer when there is a connection and room.
func (r *request) publish(to string, h natsgo.Header, data []byte) error {
	s := r.e.session.Load()
	if s == nil || !s.ready() {
		ctx, cancel := context.WithDeadline(r.e.ctx, r.until)
		defer cancel()
		var err error
		if s, err = r.e.connected(ctx); err != nil {
			return fmt.Errorf("the broker is away: %w", err)
		}
		if err := s.pipe.room(ctx); err != nil {
			return fmt.Errorf("the broker does not read: %w", err)
		}
	}
	if err := s.fits(len(data)); err != nil {
		return err
	}
	return s.publish(to+"."+r.mark, "", h, data)
}

// ready reports whether a message can be published without waiting.
func (s *session) ready() bool {
	return s.pipe.hasRoom()
}

// fits returns a refusal for a message that the broker would not take.
func (s *session) fits(octets int) error {
	if int64(octets)+headerRoom > s.most {
		return &transport.Refusal{Status: 413, Reason: fmt.Sprintf("%d octets and up to %d of headers, and the broker takes messages of %d (max_payload)", octets, headerRoom, s.most)}
	}
	return nil
}
