package transporttest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/owtp-go/owtp/transport"
)

// An endpoint is one node's place at the broker. Its fields are guarded by the
// broker's lock.
type endpoint struct {
	b       *Broker
	cfg     transport.Config
	h       transport.Handler
	names   transport.Queues
	ctx     context.Context
	cancel  context.CancelFunc
	answers map[string]chan Queued
	held    map[*delivery]string // and the queue that it came from
	taken   []string             // reply queues of others
	closing bool
	gone    bool
	latest  time.Time     // a request came
	idle    chan struct{} // closed when nothing is held; nil if nobody waits
	running sync.WaitGroup
}

func (e *endpoint) hasRoom(q *queue) bool {
	if e.gone {
		return false
	}
	if q.name == e.names.Reply || slices.Contains(e.taken, q.name) {
		return true
	}
	if e.closing { // what comes now is refused by the handler, and needs no room
		return q.name == e.names.Own
	}
	return len(e.held) < e.cfg.MaxDeliveries
}

func (e *endpoint) take(q *queue, d delivery) {
	if q.name == e.names.Reply || slices.Contains(e.taken, q.name) {
		if answer := e.answers[d.Correlation]; answer != nil {
			delete(e.answers, d.Correlation)
			answer <- d.Queued
		}
		return
	}
	held := &d
	held.Message.Late = held.Message.Late || e.closing // or the broker's owner says so
	e.latest = time.Now()
	e.held[held] = q.name
	e.running.Go(func() { e.serve(held) })
}

func (e *endpoint) serve(d *delivery) {
	m := d.Message
	m.To, m.ReplyTo = d.To, d.ReplyTo
	var answer transport.Message
	var err error = &transport.Refusal{Status: 413, Reason: "message too large"}
	if len(m.Data) <= e.cfg.MaxMessage {
		answer, err = e.call(m)
	}
	e.b.mu.Lock()
	_, mine := e.held[d]
	e.b.mu.Unlock()
	if mine {
		e.reply(d, answer, err)
	}
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	delete(e.held, d)
	if len(e.held) == 0 && e.idle != nil {
		close(e.idle)
		e.idle = nil
	}
	for _, q := range e.b.queues {
		e.b.pump(q)
	}
}

// call keeps a handler's panic on its own request, as real brokers' transports do.
func (e *endpoint) call(m transport.Message) (answer transport.Message, err error) {
	defer func() {
		if recover() != nil {
			err = &transport.Refusal{Status: 500, Reason: "internal error"}
		}
	}()
	return e.h.ServeExchange(e.ctx, transport.Remote{Addr: e.RemoteAddr(), LocalAddr: "local"}, m)
}

func (e *endpoint) reply(d *delivery, answer transport.Message, err error) {
	to := answer.To
	if to == "" && strings.HasPrefix(d.ReplyTo, transport.ReplyQueuePrefix) {
		to = d.ReplyTo
	}
	out := Queued{From: e.names.Reply, To: to, Answer: true, Correlation: d.Correlation, Message: answer}
	if d.served != nil {
		defer func() { d.served <- out }()
	}
	if err != nil && !errors.As(err, &out.Refusal) {
		return
	}
	if len(answer.Data) > 0 || out.Refusal != nil {
		_ = e.b.send(out, time.Time{}) // whoever asked may be gone
	}
}

// Exchange implements [transport.Exchanger].
func (e *endpoint) Exchange(ctx context.Context, m transport.Message) (transport.Message, error) {
	to := m.To
	if to == "" {
		to = e.cfg.WriteQueueName
	}
	if len(m.Data) > e.cfg.MaxMessage {
		return transport.Message{}, transport.NotSent(&transport.Refusal{Status: 413, Reason: "message too large to send"})
	}
	until, _ := ctx.Deadline()
	var letters [16]byte
	rand.Read(letters[:])
	out := Queued{From: e.names.Reply, To: to, ReplyTo: e.names.Reply, Correlation: hex.EncodeToString(letters[:]), Message: m}
	if m.ReplyTo != "" { // a man in the middle takes the answer in the sender's place
		out.ReplyTo = m.ReplyTo
	}
	answer := make(chan Queued, 1)
	e.b.mu.Lock()
	if e.gone {
		e.b.mu.Unlock()
		return transport.Message{}, transport.NotSent(net.ErrClosed)
	}
	if q := e.b.queues[out.ReplyTo]; q == nil {
		e.b.queues[out.ReplyTo] = &queue{name: out.ReplyTo, limit: 1 << 16, private: true, consumers: []*endpoint{e}}
		e.taken = append(e.taken, out.ReplyTo)
	}
	if !m.OneWay {
		e.answers[out.Correlation] = answer
	}
	e.b.mu.Unlock()
	defer func() {
		e.b.mu.Lock()
		delete(e.answers, out.Correlation)
		e.b.mu.Unlock()
	}()
	if err := e.b.send(out, until); err != nil || m.OneWay {
		return transport.Message{}, err
	}
	select {
	case a, ok := <-answer:
		if !ok {
			return transport.Message{}, fmt.Errorf("exchange broken off: %w", net.ErrClosed)
		}
		if a.Refusal != nil {
			return transport.Message{}, a.Refusal
		}
		return transport.Message{Form: a.Message.Form, Data: a.Message.Data}, nil
	case <-ctx.Done():
		return transport.Message{}, ctx.Err()
	case <-e.ctx.Done():
		return transport.Message{}, fmt.Errorf("exchange broken off: %w", net.ErrClosed)
	}
}

// Queues implements [transport.Endpoint].
func (e *endpoint) Queues() transport.Queues { return e.names }

// RemoteAddr implements [transport.Exchanger].
func (e *endpoint) RemoteAddr() string { return "broker:1" }

// Addr implements [transport.Listener].
func (e *endpoint) Addr() net.Addr { return brokerAddr(e.cfg.Address) }

type brokerAddr string

func (a brokerAddr) Network() string { return "mq" }
func (a brokerAddr) String() string  { return string(a) }

// Shutdown implements [transport.Endpoint].
func (e *endpoint) Shutdown(ctx context.Context) error {
	e.b.mu.Lock()
	e.closing = true
	if q := e.b.queues[e.names.Own]; q != nil {
		e.b.pump(q)
	}
	e.b.mu.Unlock()
	for {
		left, idle := e.drained()
		if idle == nil && left <= 0 {
			return nil
		}
		var again <-chan time.Time
		if left > 0 {
			again = time.After(left)
		}
		select {
		case <-idle:
		case <-again:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drained ends the own queue if nobody writes to it any more, and returns for how
// long somebody may, and what is closed when nothing is held; nil if nothing is.
func (e *endpoint) drained() (left time.Duration, idle <-chan struct{}) {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	left = e.cfg.OwnQueueLinger - time.Since(e.latest)
	if left <= 0 {
		delete(e.b.queues, e.names.Own)
	}
	if len(e.held) == 0 {
		return left, nil
	}
	if e.idle == nil {
		e.idle = make(chan struct{})
	}
	return left, e.idle
}

// lose takes the endpoint from the broker, and what it holds back.
func (e *endpoint) lose() {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	if e.gone {
		return
	}
	e.gone = true
	delete(e.b.ends, e)
	for d, from := range e.held {
		delete(e.held, d)
		if q := e.b.queues[from]; q != nil && !q.private {
			again := *d // its handler goes on with the first
			again.Message.Redelivered = true
			q.waiting = slices.Insert(q.waiting, 0, again)
		}
	}
	delete(e.b.queues, e.names.Reply)
	delete(e.b.queues, e.names.Own)
	for _, name := range e.taken {
		delete(e.b.queues, name)
	}
	if e.b.rest == e {
		e.b.rest = nil
	}
	if q := e.b.queues[e.names.Shared]; q != nil {
		q.consumers = slices.DeleteFunc(q.consumers, func(o *endpoint) bool { return o == e })
		e.b.pump(q)
	}
}

// Close implements [transport.Exchanger] and [transport.Listener].
func (e *endpoint) Close() error {
	e.cancel()
	e.lose()
	e.running.Wait()
	return nil
}
