package owtp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// Shutdown lets finish what runs, answers the rest with 503, and returns.
func TestShutdownFinishesWhatRuns(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		sl := newSleeper(t)
		must(t, s.host.HandleFunc("sleep", sl.handle))
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		o := newOutcomes()
		must(t, s.client.Call("testhost", "sleep", nil, false, o.callback))
		within(t, sl.began, "the handler")
		down := make(chan error, 1)
		go func() { down <- s.host.Shutdown(background(t)) }()
		eventually(t, "new calls are refused", func() bool {
			r, err := s.client.CallContext(background(t), "testhost", "echo", 1, &owtp.CallOptions{Timeout: 100 * time.Millisecond})
			switch owtp.StatusOf(err) {
			case owtp.StatusSuccess:
				return r.Status == owtp.ErrDenialOfService
			case owtp.ErrDenialOfService, owtp.ErrNetworkDisconnected:
				return true
			case owtp.ErrRequestTimeout, owtp.ErrOutcomeUnknown: // it waits in the queue for another replica
				return w.connect == owtp.MQ
			}
			return false
		})
		if len(down) != 0 || o.n.Load() != 0 {
			t.Error("Shutdown did not wait for the handler")
		}
		sl.wake()
		if r := within(t, o.resp, "the answer"); r.Status != owtp.StatusSuccess {
			t.Errorf("what ran was answered with %d %s", r.Status, r.Msg)
		}
		if err := within(t, down, "Shutdown"); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := s.host.Listen(s.listen); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Listen after Shutdown: %v", err)
		}
		if err := s.host.Connect("x", s.dial); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Connect after Shutdown: %v", err)
		}
	})
}

// Shutdown always returns, also where a handler would run for ever.
func TestShutdownReturnsWhenItsContextEnds(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w, func(_, c *owtp.NodeConfig) { c.TimeoutSEC = 2 }) // a queue does not tell that nobody listens
		sl := newSleeper(t)
		must(t, s.host.HandleFunc("sleep", sl.handle))
		s.connect(t)
		o := newOutcomes()
		must(t, s.client.Call("testhost", "sleep", nil, false, o.callback))
		within(t, sl.began, "the handler")
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if err := s.host.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		if err := within(t, sl.ended, "the handler's end"); !errors.Is(err, context.Canceled) {
			t.Errorf("the handler ended with %v", err)
		}
		within(t, o.resp, "the outcome")
	})
}

func TestCloseIsIdempotentAndFinal(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		for range 3 {
			must(t, s.client.Close())
			must(t, s.host.Close())
		}
		if s.host.Listening(w.connect) || s.host.ListenerAddr(w.connect) != "" || s.client.IsConnectPeer("testhost") || len(s.client.OnlinePeers()) != 0 {
			t.Error("something is left of a closed node")
		}
		for name, err := range map[string]error{
			"Listen": s.host.Listen(s.listen), "Connect": s.client.Connect("x", s.dial),
			"Call": s.client.Call("testhost", "echo", 1, true, nil),
		} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s after Close: %v", name, err)
			}
		}
		s.client.ClosePeer("testhost")
		s.host.CloseListener(w.connect)
		s.host.SetOpenHandler(nil)
		s.host.SetCloseHandler(nil)
	})
}

func TestCloseListener(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		s.host.CloseListener(map[bool]string{true: owtp.HTTP, false: owtp.MQ}[w.connect == owtp.MQ]) // none there
		answer(t, s.client, "testhost", "echo", 1)
		s.host.CloseListener(w.connect)
		if s.host.Listening(w.connect) {
			t.Error("still listening")
		}
		if err := randomNode(t).Connect("testhost", s.dial); err == nil && (!w.exchanges() || w.connect == owtp.MQ && w.proved()) {
			t.Error("somebody still answers")
		}
		// Over HTTP a socket that closes at the wrong moment costs some attempts.
		_, err := s.client.CallContext(background(t), "testhost", "echo", 1, &owtp.CallOptions{Timeout: time.Second})
		if w.connect == owtp.MQ && !w.proved() {
			wantStatus(t, err, owtp.ErrRequestTimeout) // it waits in the queue
		} else if w.connect != owtp.MQ {
			wantStatus(t, err, owtp.ErrNetworkDisconnected)
		} else if err == nil {
			t.Error("answered by nobody")
		}
		// The address is free again, also for this node.
		eventually(t, "the address is bound again", func() bool { return s.host.Listen(s.listen) == nil })
		eventually(t, "the client comes back", func() bool {
			r, err := s.client.CallContext(background(t), "testhost", "echo", 1, &owtp.CallOptions{Timeout: time.Second})
			return err == nil && r.OK()
		})
	})
}

func TestEmbedding(t *testing.T) {
	eachWay(t, []way{{connect: owtp.HTTP}, {connect: owtp.HTTP, sign: true}, {connect: owtp.Websocket}, {connect: owtp.Websocket, sign: true}}, func(t *testing.T, w way) {
		host, client := randomNode(t), randomNode(t)
		must(t, host.HandleFunc("echo", echo))
		mount := map[string]func(owtp.ConnectConfig) (http.Handler, error){owtp.HTTP: host.HTTPHandler, owtp.Websocket: host.WebsocketHandler}[w.connect]
		face, err := mount(owtp.ConnectConfig{EnableSignature: w.sign, DataFormat: w.format})
		must(t, err)
		mux := http.NewServeMux()
		mux.Handle("/", face)
		mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "fine") })
		server := httptest.NewServer(mux)
		defer server.Close()
		must(t, client.Connect("testhost", owtp.ConnectConfig{
			Address: strings.TrimPrefix(server.URL, "http://"), ConnectType: w.connect, EnableSignature: w.sign, DataFormat: w.format,
		}))
		must(t, client.KeyAgreement("testhost", "aes"))
		answer(t, client, "testhost", "echo", 1)
		resp, err := server.Client().Get(server.URL + "/health")
		must(t, err)
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "fine" {
			t.Errorf("the route beside it answers %q", body)
		}
		_, err = mount(owtp.ConnectConfig{ConnectType: owtp.Memory})
		wantErr(t, err, owtp.Memory, w.connect)
		_, err = mount(owtp.ConnectConfig{EnableSSL: true})
		wantErr(t, err, "EnableSSL")
		must(t, client.Close())
		must(t, host.Close())
	})
}

func TestSSL(t *testing.T) {
	serverTLS, clientTLS := transporttest.TLSConfigs(t)
	eachWay(t, []way{{connect: owtp.HTTP}, {connect: owtp.HTTP, sign: true, suite: "aes"}, {connect: owtp.Websocket}, {connect: owtp.Websocket, sign: true, suite: "sm4"}}, func(t *testing.T, w way) {
		var protocol atomic.Value
		watching := serverTLS.Clone()
		watching.VerifyConnection = func(c tls.ConnectionState) error { protocol.Store(c.NegotiatedProtocol); return nil }
		host, client := randomNode(t), randomNode(t)
		must(t, host.HandleFunc("echo", echo))
		must(t, host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: w.connect, EnableSignature: w.sign, DataFormat: w.format, EnableSSL: true, TLS: watching}))
		cfg := owtp.ConnectConfig{Address: host.ListenerAddr(w.connect), ConnectType: w.connect, EnableSignature: w.sign, DataFormat: w.format, EnableSSL: true, TLS: clientTLS}
		must(t, client.Connect("testhost", cfg))
		if w.suite != "" {
			must(t, client.KeyAgreement("testhost", w.suite))
		}
		answer(t, client, "testhost", "echo", 1)
		if got := protocol.Load(); (got == "h2") != (w.connect == owtp.HTTP) {
			t.Errorf("the connection speaks %q", got)
		}
		// The system's roots do not know this certificate, and nobody talks
		// plain to a TLS listener.
		for name, change := range map[string]func(*owtp.ConnectConfig){
			"system's roots": func(c *owtp.ConnectConfig) { c.TLS = nil },
			"without TLS":    func(c *owtp.ConnectConfig) { c.TLS, c.EnableSSL = nil, false },
		} {
			bad := cfg
			change(&bad)
			n := randomNode(t)
			err := n.Connect("testhost", bad)
			if err == nil {
				_, err = n.CallSync("testhost", "echo", 1)
			}
			if err == nil {
				t.Errorf("%s: the call passed", name)
			}
		}
	})
}

// restart makes a new server with the same key at the same address.
func (s *stage) restart(t testing.TB) *owtp.OWTPNode {
	t.Helper()
	n := startNode(t, owtp.NodeConfig{Cert: s.host.Certificate()})
	must(t, n.HandleFunc("echo", echo))
	eventually(t, "the port is free again", func() bool { return n.Listen(s.listen) == nil })
	return n
}

func TestReconnectAfterTheServerRestarts(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w, func(_, c *owtp.NodeConfig) { c.Limits.MaxReconnectDelay = 100 * time.Millisecond })
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		answer(t, s.client, "testhost", "echo", 1)
		must(t, s.host.Close())
		if w.connect == owtp.MQ { // a call waits in the queue
			s.restart(t)
			if w.proved() {
				// The first one is returned from the queue of who is gone,
				// by the word of the broker only.
				_, err := s.client.CallSync("testhost", "echo", 2)
				if e := wantStatus(t, err, owtp.ErrOutcomeUnknown); !e.MayHaveRun {
					t.Errorf("%+v", e)
				}
			}
			answer(t, s.client, "testhost", "echo", 2)
			return
		}
		eventually(t, "the client has noticed", func() bool {
			_, err := s.client.CallContext(background(t), "testhost", "echo", 1, &owtp.CallOptions{Timeout: 30 * time.Millisecond})
			return owtp.StatusOf(err) == owtp.ErrNetworkDisconnected
		})
		if w.connect == owtp.HTTP {
			s.restart(t)
			answer(t, s.client, "testhost", "echo", 2)
			return
		}
		// A call that waits long enough is answered by the next server.
		o := newOutcomes()
		must(t, s.client.Call("testhost", "echo", 2, false, o.callback))
		never(t, "a call was answered by nobody", func() bool { return o.n.Load() != 0 })
		s.restart(t)
		o.once(t, owtp.StatusSuccess)
		if p := s.client.GetOnlinePeer("testhost"); p == nil || p.EnableKeyAgreement() != w.proved() || p.Proved() != w.proved() {
			t.Error("the new connection is weaker than the old one")
		}
	})
}

// Another server at the same address is not the peer, and calls to it end.
func TestReconnectFindsAnotherNode(t *testing.T) {
	ways := []way{{connect: owtp.Websocket, sign: true}, {connect: owtp.Websocket, suite: "aes"}, {connect: owtp.HTTP, sign: true}, {connect: owtp.MQ, sign: true}, {connect: owtp.MQ, suite: "aes"}}
	eachWay(t, ways, func(t *testing.T, w way) {
		s := newStage(t, w, func(_, c *owtp.NodeConfig) { c.Limits.MaxReconnectDelay = 20 * time.Millisecond })
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		answer(t, s.client, "testhost", "echo", 1)
		must(t, s.host.Close())
		if w.connect == owtp.MQ {
			s.listen.ReadQueueName = s.dial.WriteQueueName // the impostor takes what is for the host
		}
		impostor := randomNode(t)
		must(t, impostor.HandleFunc("echo", func(*owtp.Context) { t.Error("the call reached another node") }))
		eventually(t, "the port is free again", func() bool { return impostor.Listen(s.listen) == nil })
		for range 3 {
			if r, err := s.client.CallContext(background(t), "testhost", "echo", 1, &owtp.CallOptions{Timeout: 100 * time.Millisecond}); err == nil {
				t.Errorf("answer %+v", r)
			}
		}
	})
}

// A peer that does not answer is known within two intervals, on both sides.
func TestHeartbeatFindsADeadPeer(t *testing.T) {
	eachWay(t, longWays, func(t *testing.T, w way) {
		const interval = 400 * time.Millisecond
		limit := func(h, c *owtp.NodeConfig) { h.Limits.Heartbeat, c.Limits.Heartbeat = interval, interval }
		s := newStage(t, w, limit)
		p := s.through(t)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		// Silence alone kills nobody: heartbeats pass.
		for end := time.Now().Add(3 * interval); time.Now().Before(end); time.Sleep(interval / 8) {
			if !s.client.IsConnectPeer("testhost") || len(s.host.OnlinePeers()) == 0 {
				t.Fatal("a silent peer was given up although it lives")
			}
		}
		gone := make(chan time.Time, 4)
		s.host.SetCloseHandler(func(*owtp.OWTPNode, owtp.PeerInfo) { gone <- time.Now() })
		s.client.SetCloseHandler(func(*owtp.OWTPNode, owtp.PeerInfo) { gone <- time.Now() })
		answer(t, s.client, "testhost", "echo", 1)
		begin := time.Now()
		p.Pause()
		for range 2 {
			// Half an interval more than promised, for a busy machine.
			if d := within(t, gone, "a close handler").Sub(begin); d > 2*interval+interval/2 {
				t.Errorf("the dead peer was known after %v, two intervals are %v", d, 2*interval)
			}
		}
		p.CutAll()
		p.Resume()
		eventually(t, "the client is back", func() bool {
			r, err := s.client.CallContext(background(t), "testhost", "echo", 1, &owtp.CallOptions{Timeout: time.Second})
			return err == nil && r.OK()
		})
	})
}

// The reload handler says where a peer has moved to. Who it is it cannot say.
func TestReloadPeerInfoHandler(t *testing.T) {
	eachWay(t, longWays, func(t *testing.T, w way) {
		s := newStage(t, w, func(_, c *owtp.NodeConfig) { c.Limits.MaxReconnectDelay = 20 * time.Millisecond })
		must(t, s.host.HandleFunc("echo", echo))
		var newAddress atomic.Value
		newAddress.Store("")
		asked := make(chan owtp.PeerInfo, 256)
		s.client.SetReloadPeerInfoHandler(func(n *owtp.OWTPNode, p owtp.PeerInfo) owtp.PeerInfo {
			select {
			case asked <- p:
			default:
			}
			if a := newAddress.Load().(string); a != "" {
				p.Config.Address = a
				p.Config.EnableSignature = false // not for it to decide
			}
			return p
		})
		s.connect(t)
		must(t, s.host.Close())
		p := within(t, asked, "the reload handler")
		if p.Name != "testhost" || p.Config.Address != s.dial.Address || w.proved() && p.ID != s.host.NodeID() {
			t.Errorf("asked about %v", p)
		}
		if w.connect == owtp.Memory {
			s.listen.Address = freshName(t)
		} else {
			s.listen.Address = "127.0.0.1:0"
		}
		moved := s.restart(t)
		newAddress.Store(moved.ListenerAddr(w.connect))
		eventually(t, "the client has found the new address", func() bool {
			r, err := s.client.CallContext(background(t), "testhost", "echo", 1, &owtp.CallOptions{Timeout: time.Second})
			return err == nil && r.OK()
		})
		if p := s.client.GetOnlinePeer("testhost"); p.Proved() != w.proved() {
			t.Error("the reload handler has changed the mode")
		}
	})
}
