package owtp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// v1Wire is the connection of a link under test: the test is the peer.
type v1Wire struct {
	in, out chan string
	pings   atomic.Value // func(context.Context) error
	once    sync.Once
	closed  chan struct{}
}

func (c *v1Wire) Send(ctx context.Context, m transport.Message) error {
	select {
	case c.out <- string(m.Data):
		return nil
	case <-c.closed:
		return net.ErrClosed
	}
}

func (c *v1Wire) Recv(ctx context.Context) (transport.Message, error) {
	select {
	case text := <-c.in:
		return transport.Message{Form: transport.JSON, Data: []byte(text)}, nil
	case <-c.closed:
		return transport.Message{}, net.ErrClosed
	case <-ctx.Done():
		return transport.Message{}, ctx.Err()
	}
}

func (c *v1Wire) Ping(ctx context.Context) error {
	return c.pings.Load().(func(context.Context) error)(ctx)
}

func (c *v1Wire) Close(string) error { c.once.Do(func() { close(c.closed) }); return nil }
func (*v1Wire) LocalAddr() string    { return "here" }
func (*v1Wire) RemoteAddr() string   { return "there" }

// plainV1 makes requests in the clear and takes every response.
type plainV1 struct{ n *OWTPNode }

func (c plainV1) request(p *wire.Packet) (*legacy.Packet, v1Answer, error) {
	nonce, err := c.n.v1Nonce()
	q := &legacy.Packet{Kind: legacy.Request, Method: p.Method, Nonce: nonce, Version: 1, Data: p.Data}
	return q, func(resp *legacy.Packet) (*wire.Packet, bool, error) {
		r, err := legacy.ParseResult(resp.Data)
		if err != nil {
			return nil, false, err
		}
		return &wire.Packet{Kind: wire.Response, Method: resp.Method, Status: r.Status, Data: r.Result}, false, nil
	}, err
}

// startV1Link runs a link whose peer is the test.
func startV1Link(t *testing.T, limits Limits, serve v1Server) (*link, *v1Wire) {
	t.Helper()
	n, err := New(NodeConfig{Cert: NewRandomCertificate(), Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	c := &v1Wire{in: make(chan string, 4096), out: make(chan string, 4096), closed: make(chan struct{})}
	c.pings.Store(func(context.Context) error { return nil })
	l := n.newV1Link(c, transport.WebSocket, plainV1{n}, serve)
	l.peer.id = "anon:peer"
	if r := n.register(l); r != nil {
		t.Fatal(r.msg)
	}
	if err := n.startLink(l, nil); err != nil {
		t.Fatal(err)
	}
	return l, c
}

func (c *v1Wire) sent(t *testing.T) *legacy.Packet {
	t.Helper()
	select {
	case text := <-c.out:
		p, err := legacy.ParsePacket([]byte(text), 1<<20)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		return p
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was sent")
		return nil
	}
}

const v1Done = `{"status":200,"msg":"","result":%d}`

// Answers are their requests' by nonce and method, in any order; whatever else
// comes in between changes nothing.
func TestV1LinkMatchesAnswers(t *testing.T) {
	t.Parallel()
	l, c := startV1Link(t, Limits{}, nil)
	const calls = 20
	var done sync.WaitGroup
	for i := range calls {
		done.Go(func() {
			p := &wire.Packet{Kind: wire.Request, Method: fmt.Sprint("m", i), Data: []byte("null")}
			resp, sent, _, err := l.callV1(t.Context(), p)
			if err != nil || !sent || string(resp.Data) != fmt.Sprint(i) {
				t.Errorf("call %d: %v %v %v", i, resp, sent, err)
			}
		})
	}
	asked := make([]*legacy.Packet, calls)
	for i := range asked {
		asked[i] = c.sent(t)
	}
	for range 500 { // V1-WIRE §9.2, 9.3
		c.in <- `{"r":2}`
	}
	c.in <- `{"r":2,"m":"","n":12345}`
	c.in <- `{"r":3,"m":"m1","n":1}`
	c.in <- "junk"
	c.in <- "\xff\xfe"
	c.in <- strings.Repeat("[", 5000)
	for i := range asked { // right nonce, wrong method
		c.in <- fmt.Sprintf(`{"r":2,"m":"other","n":%d,"d":`+v1Done+`}`, asked[i].Nonce, 99)
		c.in <- fmt.Sprintf(`{"r":2,"m":"","n":%d,"d":`+v1Done+`}`, asked[i].Nonce, 99)
	}
	for i := range asked {
		q := asked[calls-1-i]
		var number int
		fmt.Sscanf(q.Method, "m%d", &number)
		answer := fmt.Sprintf(`{"r":2,"m":%q,"n":%d,"d":`+v1Done+`}`, q.Method, q.Nonce, number)
		c.in <- answer
		c.in <- answer // once more, when nobody waits
	}
	done.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.calls) != 0 || l.err != nil {
		t.Errorf("%d calls still wait, %v", len(l.calls), l.err)
	}
}

// A call that is given up leaves nothing, and what comes late is dropped.
func TestV1LinkCallEnds(t *testing.T) {
	t.Parallel()
	l, c := startV1Link(t, Limits{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { c.sent(t); cancel() }()
	p := &wire.Packet{Kind: wire.Request, Method: "slow", Data: []byte("null")}
	if _, sent, _, err := l.callV1(ctx, p); !errors.Is(err, context.Canceled) || !sent {
		t.Errorf("cancelled: %v %v", sent, err)
	}
	if err := l.notify(t.Context(), p); err == nil {
		t.Error("one-way messages do not exist")
	}
	go func() { c.sent(t); c.Close("") }()
	if _, sent, _, err := l.callV1(t.Context(), p); !sent || StatusOf(err) != ErrNetworkDisconnected {
		t.Errorf("when the connection ends: %v %v", sent, err)
	}
	if _, sent, _, err := l.callV1(t.Context(), p); sent || err == nil {
		t.Errorf("after its end: %v %v", sent, err)
	}
}

// Requests run side by side, within the limits, and one packet is one message.
func TestV1LinkServes(t *testing.T) {
	t.Parallel()
	release, silent := make(chan struct{}), make(chan struct{})
	serve := func(ctx context.Context, of *link, p *legacy.Packet) (*legacy.Packet, bool) {
		if p.Method == "silent" {
			close(silent)
			return nil, false
		}
		<-release
		return of.node.v1Refusal(p, refuse(600, 0, "done")), p.Method == "bye"
	}
	l, c := startV1Link(t, Limits{MaxRequestsPerPeer: 3}, serve)
	c.in <- `{"r":1,"m":"silent","n":9}`
	<-silent
	if err := l.active.wait(t.Context()); err != nil { // its place is free again
		t.Fatal(err)
	}
	for i := range 3 {
		c.in <- fmt.Sprintf(`{"r":1,"m":"a","n":%d,"v":1}`, i)
	}
	c.in <- `{"r":1,"m":"a","n":77}`
	if p := c.sent(t); p.Nonce != 77 || p.Kind != legacy.Response || p.Version != 0 || !strings.Contains(string(p.Data), `"status":429`) {
		t.Errorf("over the limit: %+v", p)
	}
	close(release)
	for range 3 {
		if p := c.sent(t); p.Method != "a" || p.Version != 1 || !strings.Contains(string(p.Data), `"status":600`) {
			t.Errorf("got %+v", p)
		}
	}
	c.in <- `{"r":1,"m":"bye","n":5}`
	c.sent(t)
	select {
	case <-l.ctx.Done():
	case <-time.After(10 * time.Second):
		t.Error("the link stays although its handler has closed it")
	}
}

// A peer that gives no sign of life is given up; one that does is asked on.
func TestV1LinkPings(t *testing.T) {
	t.Parallel()
	l, c := startV1Link(t, Limits{Heartbeat: 20 * time.Millisecond}, nil)
	var mu sync.Mutex
	asked, dead := 0, false
	c.pings.Store(func(ctx context.Context) error {
		mu.Lock()
		asked++
		silent := dead
		mu.Unlock()
		if silent {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	l.v1.pinged.Store(0) // it is time
	deadline := time.Now().Add(10 * time.Second)
	for n := 0; n < 3 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		mu.Lock()
		n = asked
		mu.Unlock()
	}
	if l.ended() {
		t.Fatal("a peer that answers is given up")
	}
	mu.Lock()
	dead = true
	mu.Unlock()
	select {
	case <-l.ctx.Done():
	case <-time.After(10 * time.Second):
		t.Error("a dead peer is not given up")
	}
}
