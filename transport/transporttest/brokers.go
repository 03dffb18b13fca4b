package transporttest

import (
	"context"
	"sync"

	"github.com/owtp-go/owtp/transport"
)

// Brokers is a transport over many brokers in this process: each address is one
// of its own, which comes to be when it is first named. The zero value is ready.
type Brokers struct {
	mu   sync.Mutex
	byAt map[string]*Broker
}

// At returns the broker with that address.
func (h *Brokers) At(address string) *Broker {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byAt == nil {
		h.byAt = make(map[string]*Broker)
	}
	b := h.byAt[address]
	if b == nil {
		b = NewBroker()
		h.byAt[address] = b
	}
	return b
}

// Kind implements [transport.Transport].
func (h *Brokers) Kind() transport.Kind { return transport.MQ }

// Listen implements [transport.Transport].
func (h *Brokers) Listen(ctx context.Context, cfg transport.Config, handler transport.Handler) (transport.Listener, error) {
	return h.At(cfg.Address).Listen(ctx, cfg, handler)
}

// Open implements [transport.Broker].
func (h *Brokers) Open(ctx context.Context, cfg transport.Config, handler transport.Handler) (transport.Endpoint, error) {
	return h.At(cfg.Address).Open(ctx, cfg, handler)
}

// DialExchange implements [transport.ExchangeDialer].
func (h *Brokers) DialExchange(ctx context.Context, cfg transport.Config) (transport.Exchanger, error) {
	return h.At(cfg.Address).DialExchange(ctx, cfg)
}
