package nats

import "github.com/owtp-go/owtp/transport"

// Waiting is how many requests wait for a hand.
func Waiting(e transport.Endpoint) int {
	d := &e.(*endpoint).desk
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting)
}

const AckWait = ackWait
