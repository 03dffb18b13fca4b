package nats

import (
	"context"
	"sync"
)

// A desk lets so many requests at one time to the handler and keeps the next
// ones, up to a bound. It is safe for concurrent use.
type desk struct {
	most, room int // of requests that run, and that wait

	mu      sync.Mutex
	running int
	waiting []*request
	closed  bool
	idle    chan struct{} // closed when nothing runs or waits; nil if nobody asks
	freed   chan struct{} // closed when a hand is free; nil if nobody asks
}

// take keeps a request, or reports that there is no room.
func (d *desk) take(r *request) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return false
	case d.running < d.most:
		d.running++
		go d.run(r)
		return true
	case len(d.waiting) < d.room:
		d.waiting = append(d.waiting, r)
		return true
	}
	return false
}

// run serves one request, and then those that wait.
func (d *desk) run(r *request) {
	for ; r != nil; r = d.next() {
		r.serve()
		r.release()
	}
}

// next returns the request that waits longest, or nil, which ends the goroutine
// that asks.
func (d *desk) next() *request {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) == 0 {
		d.waiting = nil
		d.running--
		d.tell()
		return nil
	}
	r := d.waiting[0]
	d.waiting[0] = nil
	d.waiting = d.waiting[1:]
	return r
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
	return waiting
}
