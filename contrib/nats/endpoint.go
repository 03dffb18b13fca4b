package nats

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp/transport"
)

// After a loss the first attempt comes within firstPause, and pauses double up to
// lastPause. Each is random between nothing and that: all clients of a broker
// lose it at the same moment, and should not all come back at the same moment.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// waitingEach is how many requests wait here for each that is handled. Nobody
// keeps them elsewhere, and who waits for the sixteenth handler in a row has
// better been told to try another replica.
const waitingEach = 16

// maxLate is how many requests are refused at one time that come too late.
const maxLate = 64

// endpoint implements [transport.Endpoint]. It is safe for concurrent use.
type endpoint struct {
	cfg     transport.Config
	addr    address
	queues  transport.Queues
	inbox   string            // what the server answers to; no peer ever sees it
	handler transport.Handler // nil if it serves nothing
	waiting waiting
	desk    desk
	late    desk         // of requests that come to the own queue after Shutdown, which are refused
	latest  atomic.Int64 // when a request came last, after born; 0: none has
	born    time.Time
	store   *store // of the shared queue, if it is durable
	hands   hands

	ctx      context.Context // ends with Close, when the handlers have returned
	cancel   context.CancelFunc
	handling context.Context // of handlers; ends when Close begins
	stop     context.CancelFunc

	session atomic.Pointer[session] // nil while there is no connection
	shut    atomic.Bool             // requests are not consumed any more
	kept    chan struct{}           // closed when keep has ended
	closed  chan struct{}           // closed when Close is done
	closing sync.Once

	mu    sync.Mutex
	back  chan struct{} // closed when there is a connection again; nil if nobody waits
	known []string      // further servers, which the broker has named
}

func open(ctx context.Context, cfg transport.Config, h transport.Handler) (*endpoint, error) {
	e := &endpoint{cfg: cfg, handler: h, born: time.Now(), kept: make(chan struct{}), closed: make(chan struct{})}
	if err := e.check(); err != nil {
		return nil, err
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.handling, e.stop = context.WithCancel(e.ctx)
	s, err := e.connect(ctx)
	if err == nil && e.store != nil {
		if err = e.store.ensure(ctx, s); err != nil {
			s.end()
		}
	}
	if err != nil {
		e.cancel()
		return nil, err
	}
	e.session.Store(s)
	s.begin(true)
	go e.keep(s)
	return e, nil
}

// check completes the endpoint from its configuration.
func (e *endpoint) check() (err error) {
	if e.addr, err = parseAddress(e.cfg); err != nil {
		return err
	}
	if e.cfg.WriteQueueName != "" {
		if err := checkName("queue to write to", e.cfg.WriteQueueName); err != nil {
			return err
		}
	}
	if e.queues.Own, e.queues.Reply, e.inbox, err = ownNames(e.cfg.Name); err != nil {
		return err
	}
	if e.handler == nil {
		if e.cfg.ReadQueueName != "" {
			return errors.New("owtp: a queue to read is named, but there is no handler")
		}
		e.queues.Own = ""
		return nil
	}
	if e.cfg.ReadQueueName != "" {
		if err := checkShared("queue to read", e.cfg.ReadQueueName); err != nil {
			return err
		}
		e.queues.Shared = e.cfg.ReadQueueName
		if e.addr.durable {
			e.store = e.newStore()
		}
	}
	if e.cfg.MaxDeliveries < 1 || e.cfg.MaxQueueLength < 1 || e.cfg.MaxQueueTime <= 0 {
		return fmt.Errorf("owtp: serving over NATS needs MaxDeliveries, MaxQueueLength and MaxQueueTime above zero; they are %d, %d and %v",
			e.cfg.MaxDeliveries, e.cfg.MaxQueueLength, e.cfg.MaxQueueTime)
	}
	e.desk.most, e.desk.room = e.cfg.MaxDeliveries, min(e.cfg.MaxQueueLength, waitingEach*e.cfg.MaxDeliveries)
	e.late.most, e.late.room = min(e.cfg.MaxDeliveries, maxLate), e.desk.room
	return nil
}

// keep replaces lost connections until the endpoint is closed.
func (e *endpoint) keep(s *session) {
	defer close(e.kept)
	for s != nil {
		select {
		case <-e.ctx.Done():
			e.session.Store(nil)
			s.end()
			return
		case <-s.gone:
		}
		e.lost(s)
		e.learn(s)
		server := s.server
		e.cfg.Logger.Warn("owtp: the connection to the NATS server is lost", "server", e.addr.host, "error", s.nc.LastError())
		s.end()
		if s = e.redial(); s != nil {
			e.resume(s)
			s.begin(s.server == server) // one that was started again may have forgotten
			if e.shut.Load() {
				_ = s.drain(e.ctx, func() time.Duration { return 0 }) // Shutdown came while it was made
			}
			e.cfg.Logger.Warn("owtp: connected to the NATS server again", "server", e.addr.host)
		}
	}
}

// lost makes nobody take that connection any more: who finds it closed knows of it
// before keep does.
func (e *endpoint) lost(s *session) { e.session.CompareAndSwap(s, nil) }

// redial tries until there is a connection, or returns nil when the endpoint is
// closed.
func (e *endpoint) redial() *session {
	told := ""
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		t := time.NewTimer(rand.N(pause))
		select {
		case <-e.ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		s, err := e.connect(e.ctx)
		if err == nil {
			return s
		}
		if text := err.Error(); text != told && e.ctx.Err() == nil { // a server that is away for a day is news once
			told = text
			e.cfg.Logger.Warn("owtp: no connection to the NATS server yet", "error", err)
		}
	}
}

// learn keeps what other servers of its cluster the broker has told of. The one
// that was configured is always tried first.
func (e *endpoint) learn(s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known = slices.DeleteFunc(s.nc.DiscoveredServers(), func(u string) bool { return u == e.addr.server() })
}

func (e *endpoint) servers() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string{e.addr.server()}, e.known...)
}

// resume tells those who wait that there is a connection again.
func (e *endpoint) resume(s *session) {
	e.session.Store(s)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.back != nil {
		close(e.back)
		e.back = nil
	}
}

// connected waits for a connection until ctx ends.
func (e *endpoint) connected(ctx context.Context) (*session, error) {
	for {
		if s := e.session.Load(); s != nil {
			return s, nil
		}
		e.mu.Lock()
		if e.back == nil {
			e.back = make(chan struct{})
		}
		back := e.back
		e.mu.Unlock()
		if s := e.session.Load(); s != nil { // came between
			return s, nil
		}
		select {
		case <-back:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// serves reports whether requests are to be consumed.
func (e *endpoint) serves() bool { return e.handler != nil && !e.shut.Load() }

// Queues implements [transport.Endpoint].
func (e *endpoint) Queues() transport.Queues { return e.queues }

// Addr implements [transport.Listener]: the broker's address.
func (e *endpoint) Addr() net.Addr { return e.addr }

// RemoteAddr implements [transport.Exchanger]: the broker's address.
func (e *endpoint) RemoteAddr() string { return e.addr.url() }

// Shutdown implements [transport.Endpoint]. Requests from the stream that wait for
// their turn go back to it; others have nowhere to go, and are handled.
func (e *endpoint) Shutdown(ctx context.Context) error {
	e.shut.Store(true)
	for _, r := range e.desk.takeOut((*request).isJob) {
		r.drop()
	}
	if s := e.session.Load(); s != nil {
		if err := s.drain(ctx, e.lingers); err != nil {
			return err
		}
	}
	if err := e.late.wait(ctx); err != nil {
		return err
	}
	return e.desk.wait(ctx)
}

// lingers is for how much longer somebody may write to the own queue who has
// heard of this endpoint before.
func (e *endpoint) lingers() time.Duration {
	latest := e.latest.Load()
	if latest == 0 {
		return 0
	}
	return e.cfg.OwnQueueLinger - (time.Since(e.born) - time.Duration(latest))
}

func (e *endpoint) came() { e.latest.Store(int64(time.Since(e.born))) }

// drain ends the subscriptions from which requests come, that of the own queue
// when it need not linger any more, and returns when the last one that the broker
// has sent was looked at.
func (s *session) drain(ctx context.Context, lingers func() time.Duration) error {
	s.draining.Do(func() {
		s.stop()
		s.drained = drained(s.jobs)
	})
	if err := s.wait(ctx, s.drained); err != nil {
		return err
	}
	for left := lingers(); left > 0; left = lingers() {
		t := time.NewTimer(left)
		select {
		case <-t.C:
		case <-s.gone:
			return nil
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
	s.leaving.Do(func() { s.left = drained(s.own) })
	return s.wait(ctx, s.left)
}

// drained begins to end subscriptions, and returns what is closed when each has
// ended.
func drained(subs []*natsgo.Subscription) (all []chan struct{}) {
	for _, sub := range subs {
		done := make(chan struct{})
		sub.SetClosedHandler(func(string) { close(done) })
		if sub.Drain() == nil { // or it has ended with the connection
			all = append(all, done)
		}
	}
	return all
}

func (s *session) wait(ctx context.Context, all []chan struct{}) error {
	for _, done := range all {
		select {
		case <-done:
		case <-s.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Close implements [transport.Listener] and [transport.Exchanger]. Handlers end
// with their contexts and may still answer; requests that have not reached one
// are refused; exchanges under way fail.
func (e *endpoint) Close() error {
	e.closing.Do(func() {
		e.shut.Store(true)
		for _, d := range []*desk{&e.desk, &e.late} {
			for _, r := range d.close() {
				r.drop()
			}
		}
		e.stop()
		e.desk.ended.Wait()
		e.late.ended.Wait()
		e.cancel()
		<-e.kept
		e.hands.telling.Wait()
		close(e.closed)
	})
	<-e.closed
	return nil
}
