package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// maxDeliveries is how often a request is given to a handler. One that has
	// ended so many replicas, or was left by them, is put aside.
	maxDeliveries = 5

	// clockAllowance is how far this machine's clock may be ahead of the server's
	// before requests look older than they are: the window of PROTOCOL §8.
	clockAllowance = 30 * time.Second

	// nakPause is when a request that had no room comes again, here or elsewhere.
	nakPause = time.Second

	headerReason     = "Owtp-Dead-Reason"
	headerDeliveries = "Owtp-Dead-Deliveries"
)

// delivered is called with each request from the stream, one after the other, and
// does not wait.
func (e *endpoint) delivered(s *session, m *natsgo.Msg) {
	j, err := e.store.jobOf(m)
	if err != nil {
		e.cfg.Logger.Error("owtp: a request was dropped", "error", err)
		return
	}
	e.came()
	r := e.newRequest(s, m, e.queues.Shared)
	r.job, r.message.Redelivered = j, j.again
	if reply := one(m.Header, headerReply); reply == "" {
		r.message.OneWay = true
	} else if queue, mark, ok := splitReply(reply); ok {
		r.message.ReplyTo, r.mark = queue, mark
	} else {
		j.doom = "it wants its answer elsewhere than in a reply queue"
	}
	r.until = j.sent.Add(patience(r.mark, e.cfg.MaxQueueTime)).Add(clockAllowance)
	switch refusal := r.admit(m.Header); {
	case j.count > maxDeliveries:
		j.doom = fmt.Sprintf("it was delivered %d times and never finished", j.count-1)
	case refusal != nil && refusal.Status == 503:
		r.again(nakPause)
		return
	case refusal != nil && j.doom == "":
		j.doom, r.refused = refusal.Reason, refusal
	}
	e.hands.add(e, j.ack)
	leaving := e.shut.Load()
	if !e.desk.take(r, !leaving) {
		if leaving {
			r.again(0) // others have room
		} else {
			r.again(nakPause)
		}
		r.release()
	}
}

// done tells the stream to forget the request.
func (r *request) done() { r.settle("+ACK") }

// again gives the request to whoever asks next, at once or after a pause.
func (r *request) again(pause time.Duration) {
	if pause > 0 {
		r.settle(fmt.Sprintf(`-NAK {"delay": %d}`, int64(pause)))
	} else {
		r.settle("-NAK")
	}
}

// settle says what becomes of the request. If that is lost, or there is no
// connection, the stream gives the request to somebody after ackWait.
func (r *request) settle(verb string) {
	r.e.hands.remove(r.job.ack)
	if s := r.e.session.Load(); s != nil {
		_ = s.nc.Publish(r.job.ack, []byte(verb))
	}
}

// bury puts a request aside that nobody can handle, for people to look at, and
// tells its sender. If that fails it comes again, but for a server that refuses to
// keep it: the request is dropped then, or a storage full of such requests would
// never be emptied.
func (r *request) bury() {
	h := maps.Clone(r.header)
	if h == nil {
		h = make(natsgo.Header)
	}
	h[headerReason], h[headerDeliveries] = []string{line(r.job.doom)}, []string{strconv.FormatUint(r.job.count, 10)}
	ctx, cancel := context.WithTimeout(r.e.handling, r.e.cfg.HandshakeTimeout)
	defer cancel()
	s, err := r.e.connected(ctx)
	if err == nil {
		_, err = s.js.PublishMsg(ctx, &natsgo.Msg{Subject: r.e.store.deadSubject, Header: h, Data: r.message.Data})
	}
	var noRoom *jetstream.APIError
	switch {
	case errors.As(err, &noRoom):
		r.e.cfg.Logger.Error("owtp: a request that cannot be handled was dropped, since the server does not put it aside", "queue", r.message.To, "reason", r.job.doom, "error", err)
	case err != nil:
		r.e.cfg.Logger.Error("owtp: a request that cannot be handled could not be put aside either", "queue", r.message.To, "reason", r.job.doom, "error", err)
		r.again(nakPause)
		return
	default:
		r.e.cfg.Logger.Error("owtp: a request was put aside", "queue", r.message.To, "reason", r.job.doom, "stream", r.e.store.deadStream)
	}
	if r.refused != nil {
		r.refuse(r.refused.Status, r.refused.Reason)
	} else {
		r.refuse(504, "the request was put aside: "+r.job.doom)
	}
	r.settle("+TERM")
}

// hands are the requests from the stream that are waiting or running here. While
// there are any, a goroutine tells the stream that they are in good hands. It is
// safe for concurrent use.
type hands struct {
	mu      sync.Mutex
	acks    map[string]struct{}
	telling sync.WaitGroup
}

func (h *hands) add(e *endpoint, ack string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.acks == nil {
		h.acks = make(map[string]struct{})
		h.telling.Go(func() { h.tell(e) })
	}
	h.acks[ack] = struct{}{}
}

func (h *hands) remove(ack string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.acks, ack)
}

// tell ends when it finds nothing in hand.
func (h *hands) tell(e *endpoint) {
	t := time.NewTicker(ackWait / 3)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-e.ctx.Done():
			return
		}
		acks := h.held()
		if acks == nil {
			return
		}
		if s := e.session.Load(); s != nil && s.pipe.HasRoom() {
			for _, ack := range acks {
				_ = s.nc.Publish(ack, []byte("+WPI"))
			}
		}
	}
}

func (h *hands) held() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.acks) == 0 {
		h.acks = nil
		return nil
	}
	acks := make([]string, 0, len(h.acks))
	for ack := range h.acks {
		acks = append(acks, ack)
	}
	return acks
}
