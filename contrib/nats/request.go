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
	header  natsgo.Header
	from    transport.Remote
	mark    string // what follows the reply queue in the answer's subject; "" if nobody wants one
	until   time.Time
	held    int                // octets of the budget
	job     *job               // its place in the stream; nil if it comes from none
	refused *transport.Refusal // why no handler is to see it, where it is put aside first
}

func (e *endpoint) newRequest(s *session, m *natsgo.Msg, queue string) *request {
	return &request{
		e: e, header: m.Header, from: transport.Remote{Addr: e.addr.host, LocalAddr: s.local},
		message: transport.Message{Data: m.Data, To: queue, OneWay: m.Header != nil && one(m.Header, headerOneWay) != ""},
	}
}

// arrived is called with each request that nothing keeps, one after the other,
// and does not wait.
func (e *endpoint) arrived(s *session, m *natsgo.Msg, queue string) {
	e.came()
	r := e.newRequest(s, m, queue)
	r.message.Once = true
	at := &e.desk
	if r.message.Late = queue == e.queues.Own && e.shut.Load(); r.message.Late {
		at = &e.late
	}
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
	taking := r.message.OneWay && r.mark != ""
	if !at.take(r, true) {
		r.refuse(503, "too busy; try again later")
		r.release()
		return
	}
	if taking {
		e.refuse(r.message.ReplyTo, r.mark, taken, "")
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

func (r *request) isJob() bool { return r.job != nil }

// drop ends a request that was taken and will not be served: the endpoint closes.
func (r *request) drop() {
	if r.job != nil {
		r.again(0)
	} else {
		r.refuse(503, "shutting down")
	}
	r.release()
}

// serve asks the handler and answers. The stream forgets the request when its
// answer is on its way, and not before.
func (r *request) serve() {
	switch {
	case r.job == nil:
		r.handle()
	case r.job.doom != "":
		r.bury()
	case r.handle():
		r.done()
	default:
		r.again(0)
	}
}

// handle reports whether the request needs nothing more.
func (r *request) handle() bool {
	if time.Now().After(r.until) {
		r.e.cfg.Logger.Warn("owtp: a request has waited for longer than its sender", "queue", r.message.To)
		return r.refuse(408, "nobody has come to it in time")
	}
	answer, err := r.call()
	switch {
	case err == nil && r.message.OneWay:
		return true
	case err == nil && len(answer.Data) == 0: // the message says inside that nobody waits
		return r.refuse(taken, "")
	case err == nil:
		return r.answer(answer)
	}
	var refusal *transport.Refusal
	if !errors.As(err, &refusal) {
		r.e.cfg.Logger.Error("owtp: exchange failed", "queue", r.message.To, "error", err)
		if r.job != nil && r.e.handling.Err() != nil {
			return false // it was broken off, and somebody else may know what to make of it
		}
		refusal = &transport.Refusal{Status: 500, Reason: "internal error"} // a stranger learns no more
	}
	r.e.cfg.Logger.Debug("owtp: request refused", "queue", r.message.To, "status", refusal.Status, "reason", refusal.Reason)
	return r.message.OneWay || r.refuse(refusal.Status, refusal.Reason)
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

// answer sends the answer, and reports whether it is on its way. It may wait for
// the connection to come back, as long as the caller waits for it.
func (r *request) answer(m transport.Message) bool {
	to := m.To
	if to == "" {
		to = r.message.ReplyTo
	}
	if !isReplyQueue(to) {
		r.e.cfg.Logger.Error("owtp: an answer goes to reply queues only", "queue", line(to))
		return r.refuse(500, "internal error")
	}
	err := r.publish(to, headerOf(m.Form), m.Data)
	if err == nil {
		return true
	}
	var tooLarge *transport.Refusal
	if errors.As(err, &tooLarge) {
		return r.refuse(tooLarge.Status, "the answer is too large: "+tooLarge.Reason)
	}
	r.e.cfg.Logger.Warn("owtp: an answer was lost", "queue", line(to), "error", err)
	return false
}

// refuse answers with a status instead of a packet, if anybody wants to hear it.
// It reports whether nothing was left unsaid.
func (r *request) refuse(status int, reason string) bool {
	if r.mark == "" || r.message.OneWay && r.job != nil {
		return true
	}
	return r.e.refuse(r.message.ReplyTo, r.mark, status, reason)
}

// refuse does not wait: to who is told nothing it is as any other loss.
func (e *endpoint) refuse(queue, mark string, status int, reason string) bool {
	s := e.session.Load()
	return s != nil && s.pipe.HasRoom() && s.publish(queue+"."+mark, "", refusalHeader(status), []byte(line(reason))) == nil
}

// publish sends an answer when there is a connection and room.
func (r *request) publish(to string, h natsgo.Header, data []byte) error {
	for {
		s, err := r.session()
		if err != nil {
			return err
		}
		if err := s.fits(len(data)); err != nil {
			return err
		}
		err = s.publish(to+"."+r.mark, "", h, data)
		if !errors.Is(err, natsgo.ErrConnectionClosed) {
			return err
		}
		r.e.lost(s) // nothing has gone out
	}
}

// session waits for a connection and for room, as long as the caller waits.
func (r *request) session() (*session, error) {
	if s := r.e.session.Load(); s != nil && s.pipe.HasRoom() {
		return s, nil
	}
	ctx, cancel := context.WithDeadline(r.e.handling, r.until) // Close does not wait for it
	defer cancel()
	s, err := r.e.connected(ctx)
	if err != nil {
		return nil, fmt.Errorf("the broker is away: %w", err)
	}
	if err := s.pipe.Room(ctx); err != nil {
		return nil, fmt.Errorf("the broker does not read: %w", err)
	}
	return s, nil
}

// fits returns a refusal for a message that the broker would not take.
func (s *session) fits(octets int) error {
	if int64(octets)+headerRoom > s.most {
		return &transport.Refusal{Status: 413, Reason: fmt.Sprintf("%d octets and up to %d of headers, and the broker takes messages of %d (max_payload)", octets, headerRoom, s.most)}
	}
	return nil
}
