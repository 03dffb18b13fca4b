package owtp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
)

// atOnce is how long what does not wait may take on a crowded machine: less than
// Close's patience with handlers.
const atOnce = 5 * time.Second

// Close ends calls that wait for an answer, with 430, and is not held up by them.
func TestCloseEndsCalls(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		sl := newSleeper(t)
		must(t, s.host.HandleFunc("sleep", sl.handle))
		s.connect(t)
		failed := make(chan error, 1)
		go func() {
			_, err := s.client.CallSync("testhost", "sleep", nil)
			failed <- err
		}()
		within(t, sl.began, "the handler")
		begin := time.Now()
		must(t, s.client.Close())
		if took := time.Since(begin); took > atOnce {
			t.Errorf("Close took %v", took)
		}
		wantStatus(t, within(t, failed, "the call's end"), owtp.ErrNetworkDisconnected)
	})
}

// Close while the program does everything else at the same moment: all of it
// ends, with an error that says why, and nothing touches what Close erases. The
// race detector is the judge.
func TestCloseWhileEverything(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		for round := range 12 {
			s := newStage(t, w)
			must(t, s.host.HandleFunc("echo", echo))
			s.connect(t)
			ctx := context.Background()
			var wg sync.WaitGroup
			start := make(chan struct{})
			do := func(what string, f func(i int) error) {
				wg.Go(func() {
					<-start
					for i := range 1000 {
						err := f(i)
						switch {
						case errors.Is(err, net.ErrClosed):
							return
						case owtp.StatusOf(err) == owtp.ErrTooManyRequests:
							return // so many connections before Close
						case err != nil:
							t.Errorf("%s: %v", what, err)
							return
						}
					}
				})
			}
			id := randomNode(t).NodeID()
			do("Connect", func(i int) error { return s.client.Connect(fmt.Sprint("alias", i), s.dial) })
			do("Identify", func(int) error { _, err := s.client.Identify(ctx, s.dial); return err })
			do("PinPeer", func(i int) error { return s.client.PinPeer(ctx, fmt.Sprint("pin", i), id) })
			do("Bindings", func(int) error { _, err := s.client.Bindings(ctx); return err })
			do("ForgetPeer", func(i int) error { return s.client.ForgetPeer(ctx, fmt.Sprint("pin", i)) })
			do("KeyAgreement", func(int) error { return s.client.KeyAgreement("testhost", "sm4") })
			do("Call", func(i int) error { _, err := s.client.CallSync("testhost", "echo", i); return err })
			close(start)
			time.Sleep(time.Duration(round) * time.Millisecond)
			must(t, s.client.Close())
			wg.Wait()
			if n := s.client.Remotes(); n != 0 {
				t.Errorf("%d peers are connected to a closed node", n)
			}
		}
	})
}

// A handler may close its own node, over every transport, without waiting for
// itself; and a callback may.
func TestCloseInsideAHandler(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		took := make(chan time.Duration, 1)
		must(t, s.host.HandleFunc("stop", func(c *owtp.Context) {
			begin := time.Now()
			if err := c.Node().Close(); err != nil {
				t.Error(err)
			}
			took <- time.Since(begin)
		}))
		s.connect(t)
		s.client.CallContext(background(t), "testhost", "stop", nil, &owtp.CallOptions{Timeout: time.Second}) // what it comes to is open
		if d := within(t, took, "Close"); d > atOnce {
			t.Errorf("Close within a handler took %v", d)
		}
		must(t, s.host.Close()) // waits for what is left
		if err := s.host.Listen(s.listen); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Listen after it: %v", err)
		}
		other := newStage(t, w)
		must(t, other.host.HandleFunc("echo", echo))
		other.connect(t)
		must(t, other.client.Call("testhost", "echo", 1, false, func(owtp.Response) {
			begin := time.Now()
			if err := other.client.Close(); err != nil {
				t.Error(err)
			}
			took <- time.Since(begin)
		}))
		if d := within(t, took, "Close within a callback"); d > atOnce {
			t.Errorf("Close within a callback took %v", d)
		}
	})
}

// A handler may shut its node down: its caller gets the answer, and then the
// node closes.
func TestShutdownInsideAHandler(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("stop", func(c *owtp.Context) {
			begin := time.Now()
			if err := c.Node().Shutdown(c.Context()); err != nil || time.Since(begin) > atOnce {
				t.Errorf("Shutdown within a handler: %v after %v", err, time.Since(begin))
			}
			c.Response("stopping", owtp.StatusSuccess, "")
		}))
		s.connect(t)
		if got := answer(t, s.client, "testhost", "stop", nil); !got.OK() {
			t.Errorf("the handler's answer: %+v", got)
		}
		eventually(t, "the node is closed", func() bool { return errors.Is(s.host.Err(), net.ErrClosed) })
		must(t, s.host.Close())
	})
}

// A peer that comes back while its last life is still being closed is told of
// in this order: open, close, open, close.
func TestOpenAfterClose(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket, suite: "aes"}, {connect: owtp.Memory, suite: "aes"}}, func(t *testing.T, w way) {
		connect := w.connect
		host := startNode(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate()})
		must(t, host.HandleFunc("echo", echo))
		listen := owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: connect, EnableKeyAgreement: true, DataFormat: w.format}
		if connect == owtp.Memory {
			listen.Address = freshName(t)
		}
		must(t, host.Listen(listen))
		events := make(chan string, 100)
		slow := make(chan struct{})
		host.SetOpenHandler(func(*owtp.OWTPNode, owtp.PeerInfo) { events <- "open" })
		host.SetCloseHandler(func(*owtp.OWTPNode, owtp.PeerInfo) {
			<-slow
			events <- "close"
		})
		cert := owtp.NewRandomCertificate()
		dial := owtp.ConnectConfig{Address: host.ListenerAddr(connect), ConnectType: connect, EnableKeyAgreement: true, DataFormat: w.format}
		if connect == owtp.Memory {
			dial.Address = listen.Address
		}
		const lives = 4
		for range lives {
			c := startNode(t, owtp.NodeConfig{Cert: cert})
			must(t, c.Connect("host", dial))
			answer(t, c, "host", "echo", 1) // nobody waits for a close handler but the next open handler
			must(t, c.Close())
			eventually(t, "the host knows", func() bool { return len(host.OnlinePeers()) == 0 })
		}
		if got := within(t, events, "the first life"); got != "open" {
			t.Errorf("first %s", got)
		}
		never(t, "the next life is told of before the last one's end", func() bool { return len(events) > 0 })
		close(slow)
		for i := 1; i < 2*lives; i++ {
			if got := within(t, events, "the lives after it"); got != []string{"open", "close"}[i%2] {
				t.Errorf("event %d: %s", i, got)
			}
		}
		if n := len(events); n != 0 {
			t.Errorf("%d events too many", n)
		}
		eventually(t, "nothing is kept of the lives", func() bool { return host.Leaving() == 0 })
	})
}

// Without an open handler, close handlers of one peer run one after the other,
// too.
func TestClosesOneAfterTheOther(t *testing.T) {
	host := startNode(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate()})
	at := owtp.ConnectConfig{Address: freshName(t), ConnectType: owtp.Memory, EnableSignature: true}
	must(t, host.Listen(at))
	began, release := make(chan int, 10), make(chan struct{})
	var running, most atomic.Int64
	host.SetCloseHandler(func(*owtp.OWTPNode, owtp.PeerInfo) {
		most.Store(max(most.Load(), running.Add(1)))
		began <- 1
		<-release
		running.Add(-1)
	})
	cert := owtp.NewRandomCertificate()
	for range 3 {
		c := startNode(t, owtp.NodeConfig{Cert: cert})
		must(t, c.Connect("host", at))
		must(t, c.Close())
		eventually(t, "the host knows", func() bool { return len(host.OnlinePeers()) == 0 })
	}
	within(t, began, "the first close handler")
	never(t, "a second one begins", func() bool { return len(began) > 0 })
	close(release)
	for range 2 {
		within(t, began, "the others")
	}
	if most.Load() != 1 {
		t.Errorf("%d close handlers of one peer ran at one time", most.Load())
	}
}
