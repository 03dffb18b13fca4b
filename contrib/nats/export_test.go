package nats

import (
	"slices"

	"github.com/owtp-go/owtp/transport"
)

// Waiting is how many requests wait for a hand.
func Waiting(e transport.Endpoint) int {
	d := &e.(*endpoint).desk
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting)
}

// HangUp ends the connection of now: the client knows of it at once, the endpoint a
// moment later.
func HangUp(e transport.Endpoint) { e.(*endpoint).session.Load().nc.Close() }

// Connected reports whether there is a connection.
func Connected(e transport.Endpoint) bool { return e.(*endpoint).session.Load() != nil }

const AckWait = ackWait

// Knows reports whether the present connection's server has told of another one.
func Knows(e any, addr string) bool {
	s := e.(*endpoint).session.Load()
	return s != nil && slices.Contains(s.nc.DiscoveredServers(), "nats://"+addr)
}

// Server is the address of the server that an endpoint is connected to.
func Server(e any) string {
	if s := e.(*endpoint).session.Load(); s != nil {
		return s.nc.ConnectedAddr()
	}
	return ""
}
