package owtp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/httpt"
	"github.com/owtp-go/owtp/internal/memt"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/internal/wst"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// through puts a proxy between the two and makes the client dial that.
func (s *stage) through(t testing.TB) *transporttest.Proxy {
	t.Helper()
	trs := map[string]transport.Transport{owtp.HTTP: httpt.New(), owtp.Websocket: wst.New(), owtp.Memory: memt.New(), owtp.MQ: house}
	listen := transporttest.Config("127.0.0.1:0")
	switch s.way.connect {
	case owtp.Memory:
		listen.Address = freshName(t)
	case owtp.MQ:
		listen.Address = freshBroker()
	}
	p := transporttest.NewProxy(t, trs[s.way.connect], listen, transporttest.Config(s.listen.Address))
	s.dial.Address = p.Addr()
	return p
}

// hellos counts the handshakes that a proxy has seen; proof hellos too.
func hellos(p *transporttest.Proxy) (n int) {
	for _, f := range p.Recorded() {
		if typ, _, err := wire.ParseHeader(f.Message.Data); err == nil && typ == wire.TypeHello && f.Dir == transporttest.ToServer {
			n++
		}
	}
	return n
}

// peerLog keeps what the open and close handlers are told.
type peerLog struct {
	mu             sync.Mutex
	opened, closed []owtp.PeerInfo
}

func (l *peerLog) watch(n *owtp.OWTPNode) {
	n.SetOpenHandler(func(_ *owtp.OWTPNode, p owtp.PeerInfo) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.opened = append(l.opened, p)
	})
	n.SetCloseHandler(func(_ *owtp.OWTPNode, p owtp.PeerInfo) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.closed = append(l.closed, p)
	})
}

func (l *peerLog) counts() (opened, closed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.opened), len(l.closed)
}

func (l *peerLog) waitFor(t testing.TB, opened, closed int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		o, c := l.counts()
		if o == opened && c == closed {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the handlers were told of %d opened and %d closed peers, want %d and %d", o, c, opened, closed)
		}
	}
	never(t, "a handler was called once more", func() bool { o, c := l.counts(); return o != opened || c != closed })
}

var longWays = []way{{connect: owtp.Websocket}, {connect: owtp.Websocket, sign: true}, {connect: owtp.Memory}, {connect: owtp.Memory, sign: true, suite: "aes"}}

func TestClosePeerInsideAnyStage(t *testing.T) {
	for _, where := range []string{"handler", "prepare", "finish", "middleware", "context"} {
		for _, w := range inBothFormats([]way{{connect: owtp.HTTP, sign: true}, {connect: owtp.Websocket}, {connect: owtp.Websocket, sign: true, suite: "sm4"}, {connect: owtp.Memory, suite: "aes"}, {connect: owtp.MQ}, {connect: owtp.MQ, sign: true, suite: "sm4"}}) {
			t.Run(where+"/"+w.String(), func(t *testing.T) {
				s := newStage(t, w)
				closeIt := func(at string, ctx *owtp.Context) {
					switch {
					case at != where:
					case at == "context":
						ctx.Close()
						ctx.Close()
					default:
						ctx.Node().ClosePeer(ctx.PID)
						ctx.Node().ClosePeer(ctx.PID) // idempotent
					}
				}
				s.host.HandlePrepareFunc(func(ctx *owtp.Context) { closeIt("prepare", ctx) })
				s.host.HandleFinishFunc(func(ctx *owtp.Context) { closeIt("finish", ctx) })
				s.host.Use(func(next owtp.HandlerFunc) owtp.HandlerFunc {
					return func(ctx *owtp.Context) { closeIt("middleware", ctx); next(ctx) }
				})
				must(t, s.host.HandleFunc("echo", func(ctx *owtp.Context) {
					closeIt("handler", ctx)
					closeIt("context", ctx)
					echo(ctx)
				}))
				s.connect(t)
				var log peerLog
				log.watch(s.host)
				// The answer arrives all the same.
				if r := answer(t, s.client, "testhost", "echo", "x"); r.JsonData().String() != "x" {
					t.Errorf("answer %+v", r)
				}
				if !w.exchanges() {
					eventually(t, "the peer is gone", func() bool { _, closed := log.counts(); return closed >= 1 })
					return
				}
				// No connection ends, but whom a queue lets this node call back is
				// gone, until it calls again.
				stays := w.callsBack() && where == "context"
				eventually(t, "the peer cannot be called back", func() bool { return s.host.IsConnectPeer(s.client.NodeID()) == stays })
				answer(t, s.client, "testhost", "echo", "again")
			})
		}
	}
}

func TestClosePeerInsideACallback(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		done := make(chan owtp.Response, 1)
		must(t, s.client.Call("testhost", "echo", 1, true, func(r owtp.Response) {
			s.client.ClosePeer("testhost")
			s.client.ClosePeer("testhost")
			done <- r
		}))
		if r := within(t, done, "the callback"); !r.OK() {
			t.Errorf("answer %+v", r)
		}
		if s.client.IsConnectPeer("testhost") {
			t.Error("the peer is still connected")
		}
		s.connect(t) // and may come back
		answer(t, s.client, "testhost", "echo", 1)
	})
}

// ClosePeer waits for nobody, not even for a handler of that peer which sleeps.
func TestClosePeerWaitsForNobody(t *testing.T) {
	eachWay(t, longWays, func(t *testing.T, w way) {
		s := newStage(t, w)
		sl := newSleeper(t)
		must(t, s.host.HandleFunc("sleep", sl.handle))
		s.connect(t)
		o := newOutcomes()
		must(t, s.client.Call("testhost", "sleep", nil, false, o.callback))
		pid := within(t, sl.began, "the handler")
		s.host.ClosePeer(pid) // returns while the handler sleeps
		sl.wake()
		if r := within(t, o.resp, "the answer"); r.Status != owtp.StatusSuccess {
			t.Errorf("what ran when ClosePeer was called ended with %d %s", r.Status, r.Msg)
		}
	})
}

func TestClosePeerEndsEveryConnectionOfTheID(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket, sign: true}, {connect: owtp.Memory, suite: "aes"}}, func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		must(t, s.client.Connect("second", s.dial))
		if w.suite != "" {
			must(t, s.client.KeyAgreement("second", w.suite))
		}
		answer(t, s.client, "second", "echo", 1)
		s.client.ClosePeer(s.host.NodeID())
		eventually(t, "nobody is online", func() bool { return len(s.client.OnlinePeers()) == 0 })
		never(t, "the closed peer came back", func() bool { return len(s.client.OnlinePeers()) != 0 })
		for _, name := range []string{"testhost", "second", s.host.NodeID()} {
			if s.client.IsConnectPeer(name) {
				t.Errorf("%s is still connected", name)
			}
		}
	})
}

// A ClosePeer that comes while the peer is dialled leaves no connection behind.
func TestClosePeerWhileDialling(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket, sign: true}, {connect: owtp.Memory, sign: true}}, func(t *testing.T, w way) {
		s := newStage(t, w)
		p := s.through(t)
		hold, seen := make(chan struct{}), make(chan struct{})
		var once sync.Once
		p.OnMessage(func(f transporttest.Flow) []transport.Message {
			if f.Dir == transporttest.ToClient {
				once.Do(func() { close(seen) })
				<-hold
			}
			return []transport.Message{f.Message}
		})
		connected := make(chan error, 1)
		go func() { connected <- s.client.Connect("testhost", s.dial) }()
		within(t, seen, "the handshake")
		s.client.ClosePeer("testhost")
		close(hold)
		if err := within(t, connected, "Connect"); err == nil {
			t.Error("Connect returned nil for a peer that was closed meanwhile")
		}
		eventually(t, "nobody is online", func() bool { return len(s.client.OnlinePeers()) == 0 })
		never(t, "the peer came back", func() bool { return len(s.client.OnlinePeers()) != 0 || s.client.IsConnectPeer("testhost") })
	})
}

// ctx.Close ends the connection of this request and no other of that peer.
func TestContextCloseEndsThisConnectionOnly(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket, sign: true}, {connect: owtp.Memory, sign: true}}, func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("end", func(ctx *owtp.Context) { ctx.Close() }))
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		twin := startNode(t, owtp.NodeConfig{Cert: s.client.Certificate()})
		must(t, twin.Connect("testhost", s.dial))
		var log peerLog
		log.watch(s.host)
		log.waitFor(t, 1, 0)
		answer(t, twin, "testhost", "end", nil)
		eventually(t, "the connection has ended", func() bool { return !twin.IsConnectPeer("testhost") })
		answer(t, s.client, "testhost", "echo", 1)
		log.waitFor(t, 1, 0) // the peer itself is still there
	})
}

func TestTwoConnectionsOfOneIDAndCallTakesTheNewest(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket, sign: true}, {connect: owtp.Memory, sign: true}}, func(t *testing.T, w way) {
		s := newStage(t, w)
		var log peerLog
		log.watch(s.host)
		name := func(n *owtp.OWTPNode, who string) {
			must(t, n.HandleFunc("who", func(ctx *owtp.Context) { ctx.Response(who, 200, "") }))
			must(t, n.Connect("testhost", s.dial))
		}
		name(s.client, "first")
		twin := startNode(t, owtp.NodeConfig{Cert: s.client.Certificate()})
		name(twin, "second")
		id := s.client.NodeID()
		if r := answer(t, s.host, id, "who", nil); r.JsonData().String() != "second" {
			t.Errorf("the call took %v", r.JsonData())
		}
		must(t, twin.Close())
		eventually(t, "the older connection takes over", func() bool {
			r, err := s.host.CallSync(id, "who", nil)
			return err == nil && r.JsonData().String() == "first"
		})
		log.waitFor(t, 1, 0)
		must(t, s.client.Close())
		log.waitFor(t, 1, 1)
	})
}

func TestConnectionsOfOneIDAreBounded(t *testing.T) {
	s := newStage(t, way{connect: owtp.Websocket, sign: true}, hostLimits(owtp.Limits{MaxConnsPerPeer: 2}))
	must(t, s.host.HandleFunc("echo", echo))
	s.connect(t)
	for i := range 2 {
		n := startNode(t, owtp.NodeConfig{Cert: s.client.Certificate()})
		err := n.Connect("testhost", s.dial)
		if i == 0 {
			must(t, err)
		} else {
			wantStatus(t, err, owtp.ErrTooManyRequests)
		}
	}
	answer(t, s.client, "testhost", "echo", 1)
}

// The close handler runs once per peer, after its handlers ended.
func TestCloseHandlerAfterHandlers(t *testing.T) {
	eachWay(t, longWays, func(t *testing.T, w way) {
		s := newStage(t, w)
		sl := newSleeper(t)
		var running, wrong atomic.Int64
		must(t, s.host.HandleFunc("sleep", func(ctx *owtp.Context) {
			running.Add(1)
			defer running.Add(-1)
			sl.handle(ctx)
			time.Sleep(20 * time.Millisecond)
		}))
		closed := make(chan owtp.PeerInfo, 8)
		s.connect(t)
		if w.suite != "" { // the anonymous connection before it is drained and told of
			eventually(t, "only the proved peer is left", func() bool { return len(s.host.OnlinePeers()) == 1 })
		}
		s.host.SetCloseHandler(func(_ *owtp.OWTPNode, p owtp.PeerInfo) {
			wrong.Add(running.Load())
			closed <- p
		})
		for range 3 {
			must(t, s.client.Call("testhost", "sleep", nil, false, nil))
			within(t, sl.began, "the handler")
		}
		must(t, s.client.Close())
		p := within(t, closed, "the close handler")
		if wrong.Load() != 0 {
			t.Errorf("%d handlers ran when the close handler was called", wrong.Load())
		}
		if (p.ID == s.client.NodeID()) != w.proved() || p.Config.ConnectType != w.connect {
			t.Errorf("told of %v", p)
		}
		if err := within(t, sl.ended, "the handler's end"); !errors.Is(err, context.Canceled) {
			t.Errorf("the handler ended with %v", err)
		}
		never(t, "the close handler ran twice", func() bool { return len(closed) > 0 })
	})
}

func TestOpenHandlerIsToldOfOpenPeersOnce(t *testing.T) {
	eachWay(t, longWays, func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		answer(t, s.client, "testhost", "echo", 1)
		eventually(t, "one peer is online", func() bool { return len(s.host.OnlinePeers()) == 1 })
		var log peerLog
		log.watch(s.host)
		log.waitFor(t, 1, 0)
		log.watch(s.host)
		log.waitFor(t, 1, 0)
		var own peerLog
		own.watch(s.client)
		own.waitFor(t, 1, 0)
		if p := own.opened[0]; p.Name != "testhost" || p.Config.Address != s.dial.Address || w.proved() && p.ID != s.host.NodeID() {
			t.Errorf("the dialler is told of %v", p)
		}
		s.client.ClosePeer("testhost")
		log.waitFor(t, 1, 1)
		own.waitFor(t, 1, 1)
		s.connectNode(t, s.client)
		answer(t, s.client, "testhost", "echo", 1)
		eventually(t, "the peer is told of again", func() bool { o, _ := log.counts(); return o >= 2 })
	})
}

// HTTP has no connections and no such handlers.
func TestNoPeerHandlersOverHTTP(t *testing.T) {
	s := newStage(t, way{connect: owtp.HTTP, sign: true, suite: "aes"})
	must(t, s.host.HandleFunc("echo", echo))
	var log peerLog
	log.watch(s.host)
	log.watch(s.client)
	s.connect(t)
	answer(t, s.client, "testhost", "echo", 1)
	log.waitFor(t, 0, 0)
	if len(s.host.OnlinePeers())+len(s.client.OnlinePeers()) != 0 {
		t.Error("a peer over HTTP is online")
	}
}

func TestKeyAgreementJoinsConcurrentCalls(t *testing.T) {
	eachWay(t, []way{{connect: owtp.HTTP}, {connect: owtp.Websocket}, {connect: owtp.Memory}, {connect: owtp.MQ}}, func(t *testing.T, w way) {
		s := newStage(t, w)
		p := s.through(t)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		before := hellos(p)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if err := s.client.KeyAgreement("testhost", "aes"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		must(t, s.client.KeyAgreement("testhost", "aes")) // a fresh session is there
		answer(t, s.client, "testhost", "echo", 1)
		if n := hellos(p) - before; n != 1 {
			t.Errorf("%d handshakes", n)
		}
	})
}

func TestKeyAgreementErrors(t *testing.T) {
	s := newStage(t, way{connect: owtp.Websocket})
	if err := s.client.KeyAgreement("testhost", "aes"); !errors.Is(err, owtp.ErrUnknownPeer) {
		t.Errorf("unknown peer: %v", err)
	}
	s.connect(t)
	wantErr(t, s.client.KeyAgreement("testhost", "rot13"), "rot13", "aes", "sm4")
	eachWay(t, []way{{connect: owtp.HTTP}, {connect: owtp.Websocket}, {connect: owtp.Memory}}, func(t *testing.T, w way) {
		// The server does not offer what the client wants.
		s := newStage(t, w)
		s.host.CloseListener(w.connect)
		s.listen.Suites = []string{"sm4"}
		if w.connect != owtp.Memory {
			s.listen.Address = "127.0.0.1:0"
		}
		must(t, s.host.Listen(s.listen))
		s.dial.Address = s.host.ListenerAddr(w.connect)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		wantStatus(t, s.client.KeyAgreement("testhost", "aes"), owtp.ErrKeyAgreementFailed)
		// And nothing goes out in the clear after it.
		_, err := s.client.CallContext(background(t), "testhost", "echo", 1, &owtp.CallOptions{Timeout: 50 * time.Millisecond})
		if st := owtp.StatusOf(err); st != owtp.ErrKeyAgreementFailed && st != owtp.ErrNetworkDisconnected {
			t.Errorf("a call after a failed agreement: %v", err)
		}
		must(t, s.client.KeyAgreement("testhost", "sm4"))
		answer(t, s.client, "testhost", "echo", 1)
	})
}

// While an agreement is under way, calls wait for it instead of going out in
// the clear.
func TestNothingInTheClearDuringKeyAgreement(t *testing.T) {
	eachWay(t, []way{{connect: owtp.HTTP}, {connect: owtp.Websocket}, {connect: owtp.Memory}, {connect: owtp.MQ}}, func(t *testing.T, w way) {
		s := newStage(t, w)
		p := s.through(t)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		hold, seen := make(chan struct{}), make(chan struct{})
		var once sync.Once
		p.OnMessage(func(f transporttest.Flow) []transport.Message {
			if typ, _, err := wire.ParseHeader(f.Message.Data); err == nil && typ == wire.TypeHello {
				once.Do(func() { close(seen) })
				<-hold
			}
			return []transport.Message{f.Message}
		})
		agreed := make(chan error, 1)
		go func() { agreed <- s.client.KeyAgreement("testhost", "aes") }()
		within(t, seen, "the hello")
		o := newOutcomes()
		const secret = "attack at dawn"
		for range 10 {
			must(t, s.client.Call("testhost", "echo", secret, false, o.callback))
		}
		never(t, "a call was answered before the agreement", func() bool { return o.n.Load() != 0 })
		close(hold)
		must(t, within(t, agreed, "the agreement"))
		for range 10 {
			if r := within(t, o.resp, "the answers"); r.JsonData().String() != secret {
				t.Errorf("answer %+v", r)
			}
		}
		for _, f := range p.Recorded() {
			if strings.Contains(string(f.Message.Data), secret) {
				t.Errorf("%s, message %d, is in the clear", f.Dir, f.N)
			}
		}
	})
}

func TestConnectTwice(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		must(t, s.client.Connect("testhost", s.dial)) // equal
		other := s.dial
		other.WriteBufferSize = 1 << 16
		wantErr(t, s.client.Connect("testhost", other), "testhost", "another configuration")
		answer(t, s.client, "testhost", "echo", 1)
		s.client.ClosePeer("testhost")
		must(t, s.client.Connect("testhost", other))
		answer(t, s.client, "testhost", "echo", 1)
	})
}

// "Connected" is what a peer is not any more that closed for good: the same
// Connect brings it back, with the demands that were made before.
func TestConnectAgainAfterThePeerClosed(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket}, {connect: owtp.Websocket, sign: true}, {connect: owtp.Memory, suite: "aes"}}, func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		eventually(t, "only one connection is left", func() bool { return len(s.host.OnlinePeers()) == 1 })
		s.host.ClosePeer(s.host.OnlinePeers()[0].PID())
		eventually(t, "the client has noticed", func() bool { return !s.client.IsConnectPeer("testhost") })
		never(t, "the client came back unasked", func() bool { return s.client.IsConnectPeer("testhost") })
		_, err := s.client.CallSync("testhost", "echo", 1)
		wantStatus(t, err, owtp.ErrNetworkDisconnected)
		must(t, s.client.Connect("testhost", s.dial))
		answer(t, s.client, "testhost", "echo", 1)
		if p := s.client.GetOnlinePeer("testhost"); w.suite != "" && (p == nil || !p.EnableKeyAgreement()) {
			t.Error("the demand for the seal is forgotten")
		}
	})
}

func TestAliasAndIDAddressThePeer(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		answer(t, s.client, "testhost", "echo", 1)
		if _, err := s.client.CallSync(s.host.NodeID(), "echo", 1); (err == nil) != w.proved() {
			t.Errorf("by node ID: %v", err)
		}
		if online := s.client.OnlinePeers(); len(online) == 1 {
			answer(t, s.client, online[0].PID(), "echo", 1) // an anonymous peer has an ID too
		}
		all, err := s.client.Bindings(background(t))
		if must(t, err); (all["testhost"] == s.host.NodeID()) != w.proved() {
			t.Errorf("bindings %v", all)
		}
	})
}

// In the dialler's handlers PID is the peer's ID and the name is that of
// Connect.
func TestCallBackIntoTheDialler(t *testing.T) {
	for _, w := range inBothFormats(allWays()) {
		if !w.callsBack() {
			continue
		}
		t.Run(w.String(), func(t *testing.T) {
			s := newStage(t, w)
			must(t, s.client.HandleFunc("who", func(ctx *owtp.Context) {
				ctx.Response([]any{ctx.PID, ctx.Peer.Name, ctx.Peer.IsHost(), ctx.Proved(), ctx.Signed()}, 200, "")
			}))
			must(t, s.host.HandleFunc("ask", func(ctx *owtp.Context) {
				r, err := ctx.Node().CallSync(ctx.PID, "who", nil)
				if err != nil {
					ctx.Response(nil, owtp.StatusOf(err), err.Error())
					return
				}
				ctx.Resp = *r
			}))
			s.connect(t)
			r := answer(t, s.client, "testhost", "ask", nil)
			got := r.JsonData()
			if !r.OK() || got.Get("1").String() != "testhost" || !got.Get("2").Bool() || got.Get("3").Bool() != w.proved() || got.Get("4").Bool() != w.sign ||
				w.proved() && got.Get("0").String() != s.host.NodeID() {
				t.Errorf("the dialler's handler saw %s %+v", got.Raw, r)
			}
		})
	}
}

func TestPinningAndForgetting(t *testing.T) {
	eachWay(t, []way{{connect: owtp.HTTP, sign: true}, {connect: owtp.Websocket, suite: "aes"}, {connect: owtp.Memory, sign: true}, {connect: owtp.MQ, suite: "sm4"}}, func(t *testing.T, w way) {
		ctx := background(t)
		s, impostor := newStage(t, w), newStage(t, w)
		connect := func(n *owtp.OWTPNode, name string, cfg owtp.ConnectConfig) error {
			err := n.Connect(name, cfg)
			if err == nil && w.suite != "" {
				err = n.KeyAgreement(name, w.suite)
			}
			return err
		}
		// Bound at first contact, refused later.
		must(t, connect(s.client, "testhost", s.dial))
		s.client.ClosePeer("testhost")
		// Another honest node refuses to be who it is not, and the error says
		// whom it was asked for and what to do.
		err := connect(s.client, "testhost", impostor.dial)
		wantErr(t, err, s.host.NodeID(), "ForgetPeer")
		s.client.ClosePeer("testhost")
		must(t, s.client.ForgetPeer(ctx, "testhost"))
		must(t, connect(s.client, "testhost", impostor.dial))
		// Pinned by name, by config and beforehand.
		wrong := s.host.NodeID()
		if err := connect(randomNode(t), wrong, impostor.dial); err == nil {
			t.Error("an impostor passed as the ID that was dialled")
		}
		cfg := impostor.dial
		cfg.PeerID = wrong
		if err := connect(randomNode(t), "x", cfg); err == nil {
			t.Error("an impostor passed as ConnectConfig.PeerID")
		}
		n := randomNode(t)
		must(t, n.PinPeer(ctx, "x", wrong))
		must(t, n.PinPeer(ctx, "x", wrong))
		if err := n.PinPeer(ctx, "x", impostor.host.NodeID()); !errors.Is(err, owtp.ErrTrust) {
			t.Errorf("a second pin: %v", err)
		}
		if err := connect(n, "x", impostor.dial); err == nil {
			t.Error("an impostor passed as the pinned ID")
		}
		n.ClosePeer("x")
		must(t, connect(n, "x", s.dial))
		for _, bad := range [][2]string{{"", wrong}, {"y", "nonsense"}, {wrong, wrong}, {strings.Repeat("a", 256), wrong}, {"anon:x", wrong}} {
			if err := n.PinPeer(ctx, bad[0], bad[1]); err == nil {
				t.Errorf("PinPeer(%.20q, %.20q) was accepted", bad[0], bad[1])
			}
		}
	})
}

func TestTrustPinnedOnly(t *testing.T) {
	eachWay(t, []way{{connect: owtp.HTTP, sign: true}, {connect: owtp.Websocket}, {connect: owtp.HTTP}, {connect: owtp.MQ, sign: true}}, func(t *testing.T, w way) {
		pinnedOnly := func(_, c *owtp.NodeConfig) { c.Trust = owtp.TrustPinned }
		s := newStage(t, w, pinnedOnly)
		must(t, s.host.HandleFunc("who", func(ctx *owtp.Context) { ctx.Response(ctx.Proved(), 200, "") }))
		if err := s.client.Connect("testhost", s.dial); !errors.Is(err, owtp.ErrTrust) {
			t.Errorf("an unknown alias: %v", err)
		}
		must(t, s.client.PinPeer(background(t), "testhost", s.host.NodeID()))
		must(t, s.client.Connect("testhost", s.dial))
		// A known peer is asked for proof, whatever the flags say.
		if r := answer(t, s.client, "testhost", "who", nil); !r.JsonData().Bool() {
			t.Error("an open call to a pinned peer")
		}
		must(t, s.client.Connect(s.host.NodeID(), s.dial))
	})
}

func TestFirstContactIsLogged(t *testing.T) {
	var book logBook
	s := newStage(t, way{connect: owtp.HTTP, sign: true}, func(_, c *owtp.NodeConfig) { c.Logger = book.logger() })
	s.connect(t)
	if text := book.text(); !strings.Contains(text, "first contact") || !strings.Contains(text, s.host.NodeID()) {
		t.Errorf("the log is\n%s", text)
	}
}

func TestAllowPeersAndAuthorize(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		var ran atomic.Int64
		must(t, s.host.HandleFunc("hit", func(*owtp.Context) { ran.Add(1) }))
		for name, restrict := range map[string]func(*owtp.ConnectConfig){
			"AllowPeers": func(c *owtp.ConnectConfig) { c.AllowPeers = []string{s.client.NodeID()} },
			"Authorize": func(c *owtp.ConnectConfig) {
				c.Authorize = func(id, remote string) error {
					if id == s.client.NodeID() && remote != "" {
						return nil
					}
					return fmt.Errorf("%s at %s is a stranger", id, remote)
				}
			},
		} {
			s.host.CloseListener(w.connect)
			cfg := s.listen
			if w.connect != owtp.Memory && w.connect != owtp.MQ {
				cfg.Address = "127.0.0.1:0"
			}
			restrict(&cfg)
			must(t, s.host.Listen(cfg))
			dial := s.dial
			dial.Address = s.host.ListenerAddr(w.connect)
			try := func(n *owtp.OWTPNode) error {
				if err := n.Connect(name, dial); err != nil {
					return err
				}
				if w.suite != "" {
					if err := n.KeyAgreement(name, w.suite); err != nil {
						return err
					}
				}
				r, err := n.CallSync(name, "hit", nil)
				if err != nil {
					return err
				}
				return r.Err()
			}
			before := ran.Load()
			if err := try(s.client); (err == nil) != w.proved() {
				t.Errorf("%s: the allowed peer: %v", name, err)
			}
			allowed := ran.Load() - before
			err := try(randomNode(t))
			wantStatus(t, err, owtp.ErrUnauthorized)
			if ran.Load() != before+allowed {
				t.Errorf("%s: a stranger's call ran", name)
			}
		}
	})
}
