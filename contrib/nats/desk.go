package nats

import (
	"context"
	"sync"
)

// keptHands is how many goroutines with nothing to do stay for the next request.
// A new one would first have to grow its stack to what a handler needs, which
// costs as much as all else here.
const keptHands = 64

// A desk lets so many requests at one time to the handler and keeps the next
// ones, up to a bound. It is safe for concurrent use.
type desk struct {
	most, room int // of requests that run, and that wait

	mu      sync.Mutex
	running int
	waiting []*request
	hands   []chan *request // goroutines that wait for work, the last to come is the first to go
	closed  bool
	idle    chan struct{} // closed when nothing runs or waits; nil if nobody asks
	freed   chan struct{} // closed when a hand is free; nil if nobody asks
	ended   sync.WaitGroup
}

// take keeps a request, or reports that there is no room, or no hand for one that
// may not wait.
func (d *desk) take(r *request, mayWait bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch last := len(d.hands) - 1; {
	case d.closed:
		return false
	case d.running >= d.most:
		if !mayWait || len(d.waiting) >= d.room {
			return false
		}
		d.waiting = append(d.waiting, r)
		return true
	case last >= 0:
		d.hands[last] <- r // has room for one
		d.hands = d.hands[:last]
	default:
		d.ended.Go(func() { d.run(r) })
	}
	d.running++
	return true
}

// takeOut returns those of the requests that wait, and they wait no longer.
func (d *desk) takeOut(those func(*request) bool) (out []*request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var rest []*request
	for _, r := range d.waiting {
		if those(r) {
			out = append(out, r)
		} else {
			rest = append(rest, r)
		}
	}
	d.waiting = rest
	return out
}

// run serves one request, then those that wait, and then those that come.
func (d *desk) run(r *request) {
	more := make(chan *request, 1)
	for r != nil {
		r.serve()
		r.release()
		if r = d.next(more); r == nil {
			r = <-more // nil from a closed channel
		}
	}
}

// next returns the request that waits longest. If there is none, the next one, or
// the end, comes through the channel.
func (d *desk) next(more chan *request) *request {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) > 0 {
		r := d.waiting[0]
		d.waiting[0] = nil
		d.waiting = d.waiting[1:]
		return r
	}
	d.waiting = nil
	d.running--
	d.tell()
	if d.closed || len(d.hands) >= keptHands {
		close(more)
	} else {
		d.hands = append(d.hands, more)
	}
	return nil
}

func (d *desk) tell() {
	if d.running == 0 && d.idle != nil {
		close(d.idle)
		d.idle = nil
	}
	if d.freed != nil {
		close(d.freed)
		d.freed = nil
	}
}

// free waits until a request would be served at once, and returns how many would
// be; 0 when ctx has ended.
func (d *desk) free(ctx context.Context) int {
	for ctx.Err() == nil {
		d.mu.Lock()
		if n := d.most - d.running; n > 0 {
			d.mu.Unlock()
			return n
		}
		if d.freed == nil {
			d.freed = make(chan struct{})
		}
		freed := d.freed
		d.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
		}
	}
	return 0
}

// wait returns when nothing runs or waits, or when ctx ends.
func (d *desk) wait(ctx context.Context) error {
	d.mu.Lock()
	if d.running == 0 {
		d.mu.Unlock()
		return nil
	}
	if d.idle == nil {
		d.idle = make(chan struct{})
	}
	idle := d.idle
	d.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close takes no more requests and returns those that wait.
func (d *desk) close() []*request {
	d.mu.Lock()
	defer d.mu.Unlock()
	waiting := d.waiting
	d.waiting, d.closed = nil, true
	for _, more := range d.hands {
		close(more)
	}
	d.hands = nil
	return waiting
}
