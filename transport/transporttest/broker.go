package transporttest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/owtp-go/owtp/transport"
)

// A Broker is a message broker within the test's process: bounded queues that
// several endpoints may consume, private ones that end with their endpoint,
// deliveries that come again when a consumer is lost. Its owner may read and
// change everything that passes. It is safe for concurrent use.
type Broker struct {
	mu     sync.Mutex
	queues map[string]*queue
	ends   map[*endpoint]struct{}
	hook   func(Queued) []Queued
	down   bool
	rest   *endpoint // takes what is for queues that do not exist
}

// Queued is a message on its way to a queue.
type Queued struct {
	From        string // reply queue of the endpoint that sent it
	To          string
	Answer      bool // to the request that has the correlation
	ReplyTo     string
	Correlation string
	Message     transport.Message
	Refusal     *transport.Refusal // an answer that is no packet
}

type queue struct {
	name      string
	limit     int
	waiting   []delivery
	consumers []*endpoint // who has the next turn is first
	private   bool
}

type delivery struct {
	Queued
	until time.Time
}

// NewBroker returns a broker without queues.
func NewBroker() *Broker {
	return &Broker{queues: make(map[string]*queue), ends: make(map[*endpoint]struct{})}
}

// OnMessage makes f decide what becomes of each message: none, one or several.
// nil lets all pass. f runs without locks and may call the broker.
func (b *Broker) OnMessage(f func(Queued) []Queued) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hook = f
}

// Inject puts a message into a queue, as the broker's owner can.
func (b *Broker) Inject(m Queued) error { return b.put(m, time.Time{}) }

// Waiting returns the number of messages in a queue that nobody has taken.
func (b *Broker) Waiting(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.queues[name]; q != nil {
		return len(q.waiting)
	}
	return 0
}

// Queues returns the names of all queues.
func (b *Broker) Queues() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for name := range b.queues {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// SetDown makes the broker unreachable, or reachable again.
func (b *Broker) SetDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

// Lose ends an endpoint as a killed process does: what it has not answered goes
// back to the shared queue, marked as redelivered, and its own queues are gone.
// The endpoint is named by its reply queue; its handlers go on, unheard.
func (b *Broker) Lose(reply string) {
	b.mu.Lock()
	var lost *endpoint
	for e := range b.ends {
		if e.names.Reply == reply {
			lost = e
		}
	}
	b.mu.Unlock()
	if lost != nil {
		lost.lose()
	}
}

// Kind implements [transport.Transport].
func (b *Broker) Kind() transport.Kind { return transport.MQ }

// Listen implements [transport.Transport]. Without ReadQueueName the listener
// takes what is for any queue that does not exist, as a man in the middle does.
func (b *Broker) Listen(ctx context.Context, cfg transport.Config, h transport.Handler) (transport.Listener, error) {
	e, err := b.Open(ctx, cfg, h)
	if err == nil && cfg.ReadQueueName == "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.rest != nil {
			return nil, errors.Join(errors.New("transporttest: the broker has a man in the middle already"), e.Close())
		}
		b.rest = e.(*endpoint)
	}
	return e, err
}

// DialExchange implements [transport.ExchangeDialer]. Without WriteQueueName it
// is some shared queue of the broker that is written to.
func (b *Broker) DialExchange(ctx context.Context, cfg transport.Config) (transport.Exchanger, error) {
	b.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(b.queues)) {
		if cfg.WriteQueueName == "" && !b.queues[name].private {
			cfg.WriteQueueName = name
		}
	}
	b.mu.Unlock()
	return b.Open(ctx, cfg, nil)
}

// Open implements [transport.Broker].
func (b *Broker) Open(ctx context.Context, cfg transport.Config, h transport.Handler) (transport.Endpoint, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return nil, transport.NotSent(errBrokerDown)
	}
	if cfg.MaxDeliveries == 0 {
		cfg.MaxDeliveries = 1 << 10
	}
	if cfg.MaxQueueLength == 0 {
		cfg.MaxQueueLength = 1 << 16
	}
	var letters [8]byte
	rand.Read(letters[:])
	suffix := cfg.Name + "." + hex.EncodeToString(letters[:])
	e := &endpoint{
		b: b, cfg: cfg, h: h, answers: make(map[string]chan Queued), held: make(map[*delivery]string),
		names: transport.Queues{Reply: transport.ReplyQueuePrefix + suffix},
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	b.queues[e.names.Reply] = &queue{name: e.names.Reply, limit: 1 << 16, private: true, consumers: []*endpoint{e}}
	if h != nil {
		e.names.Own = transport.OwnQueuePrefix + suffix
		b.queues[e.names.Own] = &queue{name: e.names.Own, limit: cfg.MaxQueueLength, private: true, consumers: []*endpoint{e}}
		if e.names.Shared = cfg.ReadQueueName; e.names.Shared != "" {
			q := b.queues[e.names.Shared]
			if q == nil {
				q = &queue{name: e.names.Shared, limit: cfg.MaxQueueLength}
				b.queues[q.name] = q
			}
			q.consumers = append(q.consumers, e)
			defer b.pump(q)
		}
	}
	b.ends[e] = struct{}{}
	return e, nil
}

var (
	errBrokerDown = errors.New("the broker is not reachable")
	errNoQueue    = errors.New("nobody consumes the queue")
)

// send lets the broker's owner have his way with a message.
func (b *Broker) send(m Queued, until time.Time) error {
	b.mu.Lock()
	hook, down := b.hook, b.down
	b.mu.Unlock()
	if down {
		return transport.NotSent(errBrokerDown)
	}
	if hook == nil {
		return b.put(m, until)
	}
	m.Message.Data = slices.Clone(m.Message.Data)
	var err error
	for _, m := range hook(m) {
		err = errors.Join(err, b.put(m, until))
	}
	return err
}

func (b *Broker) put(m Queued, until time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[m.To]
	if q == nil && b.rest != nil {
		q = b.queues[b.rest.names.Own]
	}
	switch {
	case q == nil:
		return transport.NotSent(fmt.Errorf("queue %q: %w", m.To, errNoQueue))
	case len(q.waiting) >= q.limit:
		return transport.NotSent(&transport.Refusal{Status: 503, Reason: "the queue is full"})
	}
	m.Message.Data = slices.Clone(m.Message.Data)
	q.waiting = append(q.waiting, delivery{m, until})
	b.pump(q)
	return nil
}

// pump gives what waits to consumers that have room, with the lock held.
func (b *Broker) pump(q *queue) {
	for len(q.waiting) > 0 {
		i := slices.IndexFunc(q.consumers, func(e *endpoint) bool { return e.hasRoom(q) })
		if i < 0 {
			return
		}
		e := q.consumers[i]
		q.consumers = append(slices.Delete(q.consumers, i, i+1), e) // the next turn is another's
		d := q.waiting[0]
		q.waiting = q.waiting[1:]
		if !d.until.IsZero() && time.Now().After(d.until) {
			continue
		}
		e.take(q, d)
	}
}

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
	running sync.WaitGroup
}

func (e *endpoint) hasRoom(q *queue) bool {
	if e.gone {
		return false
	}
	return q.name == e.names.Reply || slices.Contains(e.taken, q.name) || !e.closing && len(e.held) < e.cfg.MaxDeliveries
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
	e.held[held] = q.name
	e.running.Go(func() { e.serve(held) })
}

func (e *endpoint) serve(d *delivery) {
	m := d.Message
	m.To, m.ReplyTo = d.To, d.ReplyTo
	var answer transport.Message
	var err error = &transport.Refusal{Status: 413, Reason: "message too large"}
	if len(m.Data) <= e.cfg.MaxMessage {
		answer, err = e.h.ServeExchange(e.ctx, transport.Remote{Addr: e.RemoteAddr(), LocalAddr: "local"}, m)
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
	for _, q := range e.b.queues {
		e.b.pump(q)
	}
}

func (e *endpoint) reply(d *delivery, answer transport.Message, err error) {
	to := answer.To
	if to == "" {
		to = d.ReplyTo
	}
	out := Queued{From: e.names.Reply, To: to, Answer: true, Correlation: d.Correlation, Message: answer}
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
	case a := <-answer:
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

// Shutdown implements [transport.Listener].
func (e *endpoint) Shutdown(ctx context.Context) error {
	e.b.mu.Lock()
	e.closing = true
	e.b.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends with the handlers, whose contexts Close ends
		defer close(done)
		e.running.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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
			d.Message.Redelivered = true
			q.waiting = slices.Insert(q.waiting, 0, *d)
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
