package servers

import (
	"net"
	"sync"
	"testing"
)

// A Relay is a network between clients and a server that a test may cut and stall. It
// ends with the test.
type Relay struct {
	l      net.Listener
	target string
	all    sync.WaitGroup

	mu    sync.Mutex
	going *sync.Cond
	conns map[net.Conn]struct{}
	still bool // nothing is forwarded
	cut   bool // nobody gets through any more
}

// NewRelay forwards to target, host:port.
func NewRelay(t testing.TB, target string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{l: l, target: target, conns: make(map[net.Conn]struct{})}
	r.going = sync.NewCond(&r.mu)
	r.all.Go(r.accept)
	t.Cleanup(func() {
		l.Close()
		r.Cut(true)
		r.Stall(false)
		r.all.Wait()
	})
	return r
}

// Addr is the host and port to connect to instead.
func (r *Relay) Addr() string { return r.l.Addr().String() }

func (r *Relay) accept() {
	for {
		client, err := r.l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.target)
		if err != nil || !r.join(client, server) {
			client.Close()
			if err == nil {
				server.Close()
			}
			continue
		}
		r.all.Go(func() { r.forward(client, server) })
		r.all.Go(func() { r.forward(server, client) })
	}
}

func (r *Relay) join(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		r.conns[c] = struct{}{}
	}
	if r.cut {
		for _, c := range conns {
			delete(r.conns, c)
		}
	}
	return !r.cut
}

func (r *Relay) forward(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		for r.still {
			r.going.Wait()
		}
		r.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Cut ends all connections, and new ones too if for good.
func (r *Relay) Cut(forGood bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = forGood
	for c := range r.conns {
		c.Close()
	}
	clear(r.conns)
}

// Stall stops or resumes the forwarding.
func (r *Relay) Stall(still bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.still = still
	r.going.Broadcast()
}

// Mend lets new connections through again.
func (r *Relay) Mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}
