package owtp

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp/identity"
)

// A gate decides how much of the node's work strangers get (PROTOCOL §6). Who
// has proved itself from an address lately, and who the listener's
// configuration names, is no stranger there and has workers of its own: a flood
// takes nothing from them. Of those, the ones that are known and named have
// workers of their own again, since anybody can prove any number of keys. What
// is claimed counts only together with the address that it is claimed from, so
// that nobody can use up somebody else's share by claiming to be him.
type gate struct {
	strangers budget
	known     budget
	partners  budget // named, and known
	named     *named
	rate      int // handshakes a second and address

	mu     sync.Mutex
	due    map[string]time.Time // when a source's allowance is full again
	proved map[string]time.Time // since when, by source
	inside map[string]int       // that work or wait now, by network
}

const (
	// maxSources bounds each of the gate's tables: about 10 MiB in all. When
	// one is full, another source makes room by chance.
	maxSources = 1 << 16
	// knownAge is how long a proof makes a source known.
	knownAge = time.Hour
	// burst is how many seconds' allowance may be used at once: a fleet that
	// reconnects behind one address after a cut.
	burst = 4
)

var errRate = errors.New("too many handshakes from one address")

func newGate(l Limits, names *named) gate {
	return gate{
		strangers: newBudget(l.MaxHandshakes, l.MaxHandshakeQueue),
		known:     newBudget(2*l.MaxHandshakes, l.MaxHandshakeQueue),
		partners:  newBudget(2*l.MaxHandshakes, l.MaxHandshakeQueue),
		named:     names,
		rate:      l.MaxHandshakeRate,
		due:       make(map[string]time.Time), proved: make(map[string]time.Time), inside: make(map[string]int),
	}
}

func source(remote string, id identity.ID) string { return network(remote) + "\x00" + string(id[:]) }

// network is what counts as one address: an IPv4 address, or the 64 bits of an
// IPv6 address that one customer has at least.
func network(remote string) string {
	h := host(remote)
	if a, err := netip.ParseAddr(h); err == nil && a.Is6() && !a.Is4In6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return h
}

// enter waits for a worker. Who enters calls leave.
func (g *gate) enter(ctx context.Context, remote string, id identity.ID, configured, near bool) (leave func(), err error) {
	from := source(remote, id)
	b := &g.strangers
	known := g.isKnown(from)
	switch {
	case known && g.named.has(id.String()):
		b = &g.partners
	case configured || known:
		b = &g.known
	}
	if near { // within one process nobody is at another address
		return b.give, b.take(ctx)
	}
	if known && !g.allow("known\x00"+network(remote), 4*g.rate) {
		return nil, errRate
	}
	if !known && !g.allow(network(remote), g.rate) || !g.allow(from, g.rate) {
		return nil, errRate
	}
	// One address has a quarter of a queue, however many keys it has proved.
	switch from = network(remote); b {
	case &g.known:
		from = "known\x00" + from
	case &g.partners:
		from = "named\x00" + from
	}
	if !g.step(from, int(b.queue)/4+1) {
		return nil, errBusy
	}
	if err := b.take(ctx); err != nil {
		g.leave(from)
		return nil, err
	}
	return func() {
		b.give()
		g.leave(from)
	}, nil
}

func (g *gate) step(from string, most int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside[from] >= most {
		return false
	}
	g.inside[from]++
	return true
}

func (g *gate) leave(from string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside[from]--; g.inside[from] <= 0 {
		delete(g.inside, from)
	}
}

// allow takes one from a source's allowance of so many a second.
func (g *gate) allow(from string, rate int) bool {
	now, step := time.Now(), time.Second/time.Duration(rate)
	g.mu.Lock()
	defer g.mu.Unlock()
	due := g.due[from]
	if due.Before(now) {
		due = now
		g.makeRoom(g.due)
	}
	if due.Sub(now) > burst*time.Second {
		return false
	}
	g.due[from] = due.Add(step)
	return true
}

func (g *gate) isKnown(from string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, ok := g.proved[from]
	return ok && time.Since(at) < knownAge
}

// remember makes a source known, which has proved itself.
func (g *gate) remember(remote string, id identity.ID) {
	from := source(remote, id)
	g.mu.Lock()
	defer g.mu.Unlock()
	if at, ok := g.proved[from]; ok && time.Since(at) < knownAge/2 {
		return
	}
	g.makeRoom(g.proved)
	g.proved[from] = time.Now()
}

// forget makes a source a stranger again, which has sent what does not verify.
func (g *gate) forget(remote string, id identity.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.proved, source(remote, id))
}

func (g *gate) makeRoom(table map[string]time.Time) {
	if len(table) < maxSources {
		return
	}
	for from := range table { // the order is random
		delete(table, from)
		return
	}
}

// sweep forgets sources whose allowance is full and whose proof is old.
func (g *gate) sweep() {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for from, due := range g.due {
		if due.Before(now) {
			delete(g.due, from)
		}
	}
	for from, at := range g.proved {
		if now.Sub(at) > knownAge {
			delete(g.proved, from)
		}
	}
}

// A budget bounds expensive work: some of it runs, some waits, the rest is
// turned away at once.
type budget struct {
	slots   chan struct{}
	waiting *atomic.Int64
	queue   int64
}

var errBusy = errors.New("too many handshakes at one time")

func newBudget(workers, queue int) budget {
	return budget{slots: make(chan struct{}, workers), waiting: new(atomic.Int64), queue: int64(queue)}
}

// take waits for a slot. Who has one gives it back.
func (b *budget) take(ctx context.Context) error {
	select {
	case b.slots <- struct{}{}:
		return nil
	default:
	}
	if b.waiting.Add(1) > b.queue {
		b.waiting.Add(-1)
		return errBusy
	}
	defer b.waiting.Add(-1)
	select {
	case b.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *budget) give() { <-b.slots }
