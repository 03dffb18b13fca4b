package transporttest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
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
	until  time.Time
	served chan Queued // gets what the consumer answers, if somebody wants to know
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
func (b *Broker) Inject(m Queued) error { return b.put(delivery{Queued: m}) }

// Deliver injects a message and waits until a consumer is done with it. It
// returns the answer, of no octets where there is none, which goes its own way
// as well. Without To it is some shared queue that gets the message.
func (b *Broker) Deliver(ctx context.Context, m Queued) (Queued, error) {
	if m.To == "" {
		m.To = b.someQueue()
	}
	served := make(chan Queued, 1)
	if err := b.put(delivery{Queued: m, served: served}); err != nil {
		return Queued{}, err
	}
	select {
	case answer := <-served:
		return answer, nil
	case <-ctx.Done():
		return Queued{}, fmt.Errorf("nobody is done with a message in %q: %w", m.To, ctx.Err())
	}
}

// someQueue is the last of the shared queues by name, or "".
func (b *Broker) someQueue() (last string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, q := range b.queues {
		if !q.private {
			last = max(last, name)
		}
	}
	return last
}

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

// CutExchanges breaks off every exchange under way, as a lost connection to the
// broker does. What was sent stays where it is, and the answers reach nobody.
func (b *Broker) CutExchanges() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for e := range b.ends {
		for id, answer := range e.answers {
			close(answer)
			delete(e.answers, id)
		}
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
	if cfg.WriteQueueName == "" {
		cfg.WriteQueueName = b.someQueue()
	}
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

var errBrokerDown = errors.New("the broker is not reachable")

// send lets the broker's owner have his way with a message.
func (b *Broker) send(m Queued, until time.Time) error {
	b.mu.Lock()
	hook, down := b.hook, b.down
	b.mu.Unlock()
	if down {
		return transport.NotSent(errBrokerDown)
	}
	if hook == nil {
		return b.put(delivery{Queued: m, until: until})
	}
	m.Message.Data = slices.Clone(m.Message.Data)
	var err error
	for _, m := range hook(m) {
		err = errors.Join(err, b.put(delivery{Queued: m, until: until}))
	}
	return err
}

func (b *Broker) put(m delivery) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[m.To]
	if q == nil && b.rest != nil {
		q = b.queues[b.rest.names.Own]
	}
	switch {
	case q == nil:
		return transport.NotSent(&transport.Refusal{Status: 430, Reason: fmt.Sprintf("nobody consumes queue %q", m.To)})
	case len(q.waiting) >= q.limit:
		return transport.NotSent(&transport.Refusal{Status: 503, Reason: "the queue is full"})
	}
	m.Message.Data = slices.Clone(m.Message.Data)
	q.waiting = append(q.waiting, m)
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
