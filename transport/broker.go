package transport

import (
	"maps"
	"slices"
	"sync"
)

var brokers = struct {
	sync.RWMutex
	byScheme map[string]Broker
}{byScheme: make(map[string]Broker)}

// RegisterBroker makes a broker known for addresses with that URL scheme
// ("nats"), as image formats and database drivers are: packages call it from
// their init function, so that importing one is enough. It panics if the scheme
// is empty or taken, or b is nil, since these are mistakes in the program.
func RegisterBroker(scheme string, b Broker) {
	brokers.Lock()
	defer brokers.Unlock()
	if scheme == "" || b == nil || brokers.byScheme[scheme] != nil {
		panic("transport: RegisterBroker needs a broker and a scheme that is not taken: " + scheme)
	}
	brokers.byScheme[scheme] = b
}

// BrokerFor returns what is registered for a URL scheme, or nil.
func BrokerFor(scheme string) Broker {
	brokers.RLock()
	defer brokers.RUnlock()
	return brokers.byScheme[scheme]
}

// BrokerSchemes returns the registered schemes in ascending order.
func BrokerSchemes() []string {
	brokers.RLock()
	defer brokers.RUnlock()
	return slices.Sorted(maps.Keys(brokers.byScheme))
}
