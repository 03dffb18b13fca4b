package amqpt

import (
	"time"

	"github.com/owtp-go/owtp/transport"
)

// NewWithHeartbeat makes a silent broker known sooner.
func NewWithHeartbeat(d time.Duration) *Transport { return &Transport{heartbeat: d} }

// MaxAbandoned, MaxWaiting and DeliveryLimit are for tests that reach them.
const (
	MaxAbandoned  = maxAbandoned
	MaxWaiting    = maxWaiting
	DeliveryLimit = deliveryLimit
)

// Strays returns how many answers came that nobody waited for.
func Strays(e any) uint64 { return e.(*endpoint).strays.n.Load() }

// Lanes returns the channels that an endpoint publishes on at present.
func Lanes(e any) [2]any {
	p, _ := e.(*endpoint).out.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	return [2]any{p.requests, p.answers}
}

// ParseAddress reads an address and writes it again.
func ParseAddress(text string) (host, vhost, again string, err error) {
	a, err := parseAddress(transport.Config{Address: text})
	return a.host, a.vhost, a.String(), err
}
