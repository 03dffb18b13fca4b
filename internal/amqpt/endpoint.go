package amqpt

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp/transport"
)

// maxName is the longest name of an AMQP queue.
const maxName = 255

// maxPrefetch is what AMQP can count.
const maxPrefetch = 1<<16 - 1

// An endpoint implements [transport.Endpoint]: two lines to the broker, the calls
// that wait for answers, and the requests in the handler's hands. All its methods
// are safe for concurrent use.
type endpoint struct {
	cfg       transport.Config
	at        address
	heartbeat time.Duration
	handler   transport.Handler // nil: it only calls
	queues    transport.Queues
	log       *slog.Logger

	// These end one after the other with Close: what handlers and callers do,
	// the publishing of the answers that handlers still gave, the lines.
	ctx, answering, lasting context.Context
	close                   context.CancelFunc
	endAnswers, endLines    context.CancelFunc

	tasks sync.WaitGroup // the two lines

	in      *line[*consumer]
	out     *line[*publisher]
	waiting waiters
	calls   calls
	work    *workload
	late    *workload    // requests in the own queue after Shutdown, which need no slot of those that run
	latest  atomic.Int64 // when a request came last, after born; 0: none has
	born    time.Time
	strays  strays
}

var _ transport.Endpoint = (*endpoint)(nil)

func (t *Transport) open(ctx context.Context, cfg transport.Config, h transport.Handler) (*endpoint, error) {
	at, err := parseAddress(cfg)
	if err != nil {
		return nil, transport.NotSent(err)
	}
	most := min(max(cfg.MaxDeliveries, 1), maxPrefetch)
	e := &endpoint{
		cfg: cfg, at: at, heartbeat: t.heartbeat, handler: h, log: cfg.Logger,
		work: newWorkload(most), late: newWorkload(min(most, maxLate)), born: time.Now(),
	}
	if err := e.nameQueues(); err != nil {
		return nil, transport.NotSent(err)
	}
	e.calls.byID = make(map[string]*call)
	e.ctx, e.close = context.WithCancel(context.Background())
	e.answering, e.endAnswers = context.WithCancel(context.Background())
	e.lasting, e.endLines = context.WithCancel(context.Background())
	e.in = newLine("consuming", &e.waiting, e.openConsumer)
	e.out = newLine("publishing", &e.waiting, e.openPublisher)
	if err = e.in.start(ctx); err == nil {
		if err = e.out.start(ctx); err != nil {
			e.in.session.close()
		}
	}
	if err != nil {
		e.close()
		e.endAnswers()
		e.endLines()
		return nil, transport.NotSent(err)
	}
	e.tasks.Go(func() { e.in.keep(e.lasting, e) })
	e.tasks.Go(func() { e.out.keep(e.lasting, e) })
	return e, nil
}

func (e *endpoint) nameQueues() error {
	rest := e.cfg.Name + "." + rand.Text()
	if e.handler != nil {
		e.queues.Shared = e.cfg.ReadQueueName
		e.queues.Own = transport.OwnQueuePrefix + rest
	}
	e.queues.Reply = transport.ReplyQueuePrefix + rest
	if len(e.queues.Shared)+len(deadSuffix) > maxName || len(e.queues.Reply) > maxName || len(e.cfg.Exchange) > maxName || len(e.cfg.WriteQueueName) > maxName {
		return fmt.Errorf("owtp: a name for RabbitMQ is longer than %d bytes", maxName)
	}
	if strings.HasPrefix(e.queues.Shared, "amq.") {
		return fmt.Errorf("owtp: queue %q: RabbitMQ keeps names that begin with amq. for itself", e.queues.Shared)
	}
	return nil
}

// Queues implements [transport.Endpoint].
func (e *endpoint) Queues() transport.Queues { return e.queues }

// RemoteAddr implements [transport.Exchanger]: the broker's host and port.
func (e *endpoint) RemoteAddr() string { return e.at.host }

// Addr implements [transport.Listener]. Its String is what others give as their
// address to reach the same virtual host.
func (e *endpoint) Addr() net.Addr { return e.at }

// Shutdown implements [transport.Endpoint].
func (e *endpoint) Shutdown(ctx context.Context) error {
	e.work.stop()
	if c, ok := e.in.now(); ok && c.drained != nil {
		select {
		case <-c.drained:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for _, idle := range []<-chan struct{}{e.late.end(), e.work.end()} {
		select {
		case <-idle:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Close implements [transport.Exchanger] and [transport.Listener]. Handlers that
// run have their contexts ended, and are waited for; what they still answer is
// published, within closePatience.
func (e *endpoint) Close() error {
	idle, late := e.work.end(), e.late.end()
	e.close()
	patience := time.AfterFunc(closePatience, e.endAnswers)
	<-idle
	<-late
	patience.Stop()
	e.endAnswers()
	e.endLines()
	e.tasks.Wait()
	return nil
}
