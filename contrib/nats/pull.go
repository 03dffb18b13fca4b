package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

const (
	// pullTime is how long the server keeps a pull for which it has nothing. A
	// pull that it has lost is noticed pullGrace later.
	pullTime  = 10 * time.Second
	pullGrace = 3 * time.Second

	// maxPull bounds what one pull asks for.
	maxPull = 256
)

// A puller asks the stream for requests: never for more than the handler has
// hands for, so that what waits, waits where every replica can get it.
type puller struct {
	e *endpoint
	s *session

	mu   sync.Mutex
	n    uint64 // number of the pull that counts
	left int    // that it may still bring
	over chan ending
}

// An ending is why a pull is over.
type ending uint8

const (
	exhausted ending = iota // it has brought all, or nothing came in its time
	lost                    // the stream or its consumer is not there at the moment
	stopped                 // nothing more is wanted
)

// run pulls until the session ends or nothing more is wanted. The stream is known
// to be there if ready says so.
func (p *puller) run(ready bool) {
	defer close(p.s.pulled)
	for gap := firstPause; ; {
		if !ready {
			if !pause(p.s.work, rand.N(gap)) {
				return
			}
			if err := p.ensure(); err != nil {
				gap = min(2*gap, lastPause)
				continue
			}
			ready, gap = true, firstPause
		}
		n := p.e.desk.free(p.s.work)
		if n == 0 {
			return
		}
		switch p.pull(min(n, maxPull)) {
		case stopped:
			return
		case lost:
			ready = false
		}
	}
}

func (p *puller) ensure() error {
	ctx, cancel := context.WithTimeout(p.s.work, p.e.cfg.HandshakeTimeout)
	defer cancel()
	err := p.e.store.ensure(ctx, p.s)
	if err != nil && p.s.work.Err() == nil {
		p.e.cfg.Logger.Warn("owtp: no requests can be taken from the stream yet", "error", err)
	}
	return err
}

// pull asks for up to n requests and returns when they are there, or will not come.
func (p *puller) pull(n int) ending {
	p.mu.Lock()
	p.n++
	number := p.n
	p.left, p.over = n, make(chan ending, 1)
	over := p.over
	p.mu.Unlock()
	order, _ := json.Marshal(map[string]int64{"batch": int64(n), "expires": int64(pullTime)})
	api := "$JS.API.CONSUMER.MSG.NEXT." + p.e.store.stream + "." + consumerName
	if err := p.s.nc.PublishRequest(api, p.inbox()+strconv.FormatUint(number, 10), order); err != nil {
		return lost
	}
	t := time.NewTimer(pullTime + pullGrace)
	defer t.Stop()
	select {
	case why := <-over:
		return why
	case <-t.C:
		return exhausted
	case <-p.s.work.Done():
		return stopped
	}
}

func (p *puller) inbox() string { return p.e.inbox + ".pull." }

// came is called with all that pulls bring, one after the other.
func (p *puller) came(m *natsgo.Msg) {
	if number, ok := strings.CutPrefix(m.Subject, p.inbox()); ok {
		p.end(number, one(m.Header, "Status"), one(m.Header, "Description"))
		return
	}
	if m.Subject != p.e.store.subject {
		return
	}
	p.mu.Lock()
	if p.left--; p.left == 0 {
		p.over <- exhausted
	}
	p.mu.Unlock()
	p.e.delivered(p.s, m)
}

// end reads the server's word about a pull.
func (p *puller) end(number, status, description string) {
	why := lost
	switch status {
	case "100": // it is still there
		return
	case "404", "408":
		why = exhausted
	case "409":
		if !strings.Contains(description, "Deleted") && !strings.Contains(description, "Leadership") && !strings.Contains(description, "Shutdown") {
			p.e.cfg.Logger.Warn("owtp: the NATS server does not hand out requests", "reason", line(description))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if number == strconv.FormatUint(p.n, 10) && p.left > 0 {
		p.left = 0
		p.over <- why
	}
}

// A job is a request's place in the stream.
type job struct {
	ack   string // subject for what becomes of it
	doom  string // why it cannot be handled, ever
	count uint64 // deliveries, this one included
	again bool   // it may have been delivered before
	sent  time.Time
}

// jobOf reads where a message comes from. An acknowledgement is not published
// just anywhere.
func (st *store) jobOf(m *natsgo.Msg) (*job, error) {
	meta, err := m.Metadata()
	if err != nil || meta.Stream != st.stream || meta.Consumer != consumerName {
		return nil, fmt.Errorf("owtp: a message of the stream %s does not come from its consumer", st.stream)
	}
	again := meta.NumDelivered > 1 || meta.Sequence.Stream <= st.horizon.Load()
	return &job{ack: m.Reply, count: meta.NumDelivered, again: again, sent: meta.Timestamp}, nil
}
