package transporttest

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/owtp-go/owtp/transport"
)

// link is one connection of a client and the one that belongs to it at the target.
type link struct {
	number int
	ctx    context.Context
	cancel context.CancelFunc
	ends   [2]transport.Conn // where messages of a Direction go
	sends  [2]sync.Mutex     // Inject sends between what is relayed
}

func (l *link) send(dir Direction, m transport.Message) error {
	l.sends[dir].Lock()
	defer l.sends[dir].Unlock()
	return l.ends[dir].Send(l.ctx, clone(m))
}

func (l *link) close() {
	l.cancel()
	_ = l.ends[ToServer].Close("")
	_ = l.ends[ToClient].Close("")
}

// serveConn relays one connection until one of its two sides has ended.
func (p *Proxy) serveConn(ctx context.Context, client transport.Conn) {
	number, err := p.enter()
	if err != nil {
		return
	}
	server, err := p.Dial(ctx)
	if err != nil {
		p.base.Logger.Debug("proxy: cannot reach the target", "error", err)
		return
	}
	l := &link{number: number, ends: [2]transport.Conn{ToServer: server, ToClient: client}}
	l.ctx, l.cancel = context.WithCancel(ctx)
	defer l.close()
	defer context.AfterFunc(p.ctx, l.close)()
	p.mu.Lock()
	p.links[number] = l
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, number)
		p.mu.Unlock()
	}()

	var back sync.WaitGroup
	back.Go(func() { p.relay(l, ToClient) })
	p.relay(l, ToServer)
	back.Wait()
}

// relay carries the messages of one direction. When its source has ended, so
// has the link; when only its destination has, the other direction may still
// have something to deliver, and will notice by itself.
func (p *Proxy) relay(l *link, dir Direction) {
	source := l.ends[1-dir]
	for n := 0; ; n++ {
		m, err := source.Recv(context.Background())
		if err != nil {
			l.close()
			return
		}
		out, err := p.pass(l.ctx, Flow{Dir: dir, Conn: l.number, N: n, Message: m})
		if err != nil {
			l.close()
			return
		}
		for _, m := range out {
			if err := l.send(dir, m); err != nil {
				_ = l.ends[dir].Close("")
				return
			}
		}
	}
}

// Inject sends m on a connection that the proxy relays, past hook and record.
func (p *Proxy) Inject(conn int, dir Direction, m transport.Message) error {
	p.mu.Lock()
	l := p.links[conn]
	p.mu.Unlock()
	if l == nil {
		return fmt.Errorf("proxy: no connection %d: %w", conn, net.ErrClosed)
	}
	return l.send(dir, m)
}

// Conns returns the numbers of the connections that are open, in no order.
func (p *Proxy) Conns() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	numbers := make([]int, 0, len(p.links))
	for n := range p.links {
		numbers = append(numbers, n)
	}
	return numbers
}
