package transporttest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/owtp-go/owtp/transport"
)

// Direction says where a message was going.
type Direction uint8

const (
	ToServer Direction = iota
	ToClient
)

func (d Direction) String() string {
	if d == ToServer {
		return "to server"
	}
	return "to client"
}

// A Flow is one message as it came to the proxy.
type Flow struct {
	Dir     Direction
	Conn    int // number of the connection, or of the exchange, from 0
	N       int // number of the message in its direction on its connection, from 0
	Message transport.Message
}

// A Hook decides what becomes of a message: what it returns is sent instead.
// Nothing drops the message; two duplicate it; an older one replays. A hook may
// change the bytes of the message that it got.
//
// On exchanges a dropped request, and a dropped answer, give the client status
// 502. Of several answers the first is passed on.
type Hook func(f Flow) []transport.Message

// Pick says which answer goes back when a hook has duplicated a request.
type Pick uint8

const (
	FirstAnswer Pick = iota
	LastAnswer
)

// A Proxy is a man in the middle at the level of messages, over any transport.
// All its methods are safe for concurrent use.
type Proxy struct {
	dial     transport.Transport
	base     transport.Config // of the listener
	listener transport.Listener
	ctx      context.Context
	cancel   context.CancelFunc

	hooking sync.Mutex // held while a hook runs, so that hooks need no locks of their own

	mu         sync.Mutex
	hook       Hook
	target     transport.Config
	exchanger  transport.Exchanger // to target, once it was needed
	exchangers []transport.Exchanger
	recorded   []Flow
	links      map[int]*link
	exchanges  map[int]context.CancelFunc
	next       int
	pick       Pick
	down       bool
	paused     chan struct{} // closed by Resume; nil when running
}

// NewProxy listens with tr as listen says and relays to target. It ends with the test.
func NewProxy(t testing.TB, tr transport.Transport, listen, target transport.Config) *Proxy {
	t.Helper()
	p := &Proxy{
		dial:      tr,
		base:      listen,
		target:    target,
		links:     make(map[int]*link),
		exchanges: make(map[int]context.CancelFunc),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	l, err := tr.Listen(p.ctx, listen, HandlerFuncs{Conn: p.serveConn, Exchange: p.serveExchange})
	if err != nil {
		p.cancel()
		t.Fatalf("proxy: %v", err)
	}
	p.listener = l
	t.Cleanup(p.stop)
	return p
}

func (p *Proxy) stop() {
	p.cancel()
	p.CutAll()
	_ = p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.exchangers {
		_ = x.Close()
	}
}

// Addr is what clients dial.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// OnMessage sets the hook, and nil takes it away. Hooks run one at a time. A
// hook may call the proxy's other methods.
func (p *Proxy) OnMessage(h func(f Flow) []transport.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = h
}

// SetPick says which answer goes back when a hook has duplicated a request.
func (p *Proxy) SetPick(k Pick) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pick = k
}

// SetTarget sends new connections and exchanges elsewhere.
func (p *Proxy) SetTarget(target transport.Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target, p.exchanger = target, nil
}

// SetDown makes the proxy refuse new connections and exchanges, or take them again.
func (p *Proxy) SetDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

// Recorded returns all that came to the proxy up to now, in the order of
// arrival and before any hook has touched it. What hooks and Inject made up is
// not in it.
func (p *Proxy) Recorded() []Flow {
	p.mu.Lock()
	defer p.mu.Unlock()
	flows := slices.Clone(p.recorded)
	for i := range flows {
		flows[i].Message = clone(flows[i].Message)
	}
	return flows
}

// Pause holds all messages, requests and answers; Resume lets them go on.
func (p *Proxy) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused == nil {
		p.paused = make(chan struct{})
	}
}

// Resume ends a Pause.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused != nil {
		close(p.paused)
		p.paused = nil
	}
}

// CutAll ends all connections on both sides and all exchanges under way. New
// ones are taken.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for _, l := range p.links {
		links = append(links, l)
	}
	for _, cancel := range p.exchanges {
		cancel()
	}
	p.mu.Unlock()
	for _, l := range links {
		l.close()
	}
}

// Exchange sends m straight to the target, past hook and record.
func (p *Proxy) Exchange(ctx context.Context, m transport.Message) (transport.Message, error) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	return p.ExchangeWith(ctx, target, m)
}

// ExchangeWith is Exchange with another target.
func (p *Proxy) ExchangeWith(ctx context.Context, target transport.Config, m transport.Message) (transport.Message, error) {
	d, ok := p.dial.(transport.ExchangeDialer)
	if !ok {
		return transport.Message{}, errors.New("proxy: the transport has no exchanges")
	}
	x, err := d.DialExchange(ctx, target)
	if err != nil {
		return transport.Message{}, err
	}
	defer x.Close()
	return x.Exchange(ctx, clone(m))
}

// Dial opens a connection straight to the target, past hook and record. The
// caller closes it.
func (p *Proxy) Dial(ctx context.Context) (transport.Conn, error) {
	d, ok := p.dial.(transport.ConnDialer)
	if !ok {
		return nil, errors.New("proxy: the transport has no connections")
	}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	return d.DialConn(ctx, target)
}

// enter numbers a new connection or exchange.
func (p *Proxy) enter() (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down || p.ctx.Err() != nil {
		return 0, &transport.Refusal{Status: http.StatusBadGateway, Reason: "the proxy is down"}
	}
	n = p.next
	p.next++
	return n, nil
}

// pass waits while the proxy is paused, records the message and asks the hook.
func (p *Proxy) pass(ctx context.Context, f Flow) ([]transport.Message, error) {
	p.mu.Lock()
	for p.paused != nil {
		paused := p.paused
		p.mu.Unlock()
		select {
		case <-paused:
		case <-ctx.Done():
			return nil, fmt.Errorf("proxy: %w", net.ErrClosed)
		}
		p.mu.Lock()
	}
	kept := f
	kept.Message = clone(f.Message)
	p.recorded = append(p.recorded, kept)
	hook := p.hook
	p.mu.Unlock()
	if hook == nil {
		return []transport.Message{f.Message}, nil
	}
	p.hooking.Lock()
	defer p.hooking.Unlock()
	return hook(f), nil
}
