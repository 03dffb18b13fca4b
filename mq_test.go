package owtp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// house is where addresses testmq://name find the test's broker of that name.
var house = new(transporttest.Brokers)

func init() { transport.RegisterBroker("testmq", house) }

var brokerNames atomic.Int64

// freshBroker is the address of a broker that nobody else uses.
func freshBroker() string { return fmt.Sprintf("testmq://broker%d", brokerNames.Add(1)) }

var mqWays = []way{{connect: owtp.MQ}, {connect: owtp.MQ, sign: true}, {connect: owtp.MQ, suite: "aes"}, {connect: owtp.MQ, sign: true, suite: "sm4"}}

// Without a queue's name a node ID is enough to be found, and an alias is not.
func TestQueueNames(t *testing.T) {
	address := freshBroker()
	host, client := randomNode(t), randomNode(t)
	must(t, host.HandleFunc("echo", echo))
	must(t, host.Listen(owtp.ConnectConfig{ConnectType: owtp.MQ, Address: address, EnableSignature: true}))
	dial := owtp.ConnectConfig{ConnectType: owtp.MQ, Address: address, EnableSignature: true}
	must(t, client.Connect(host.NodeID(), dial))
	answer(t, client, host.NodeID(), "echo", 1)
	err := client.Connect("testhost", dial)
	if err == nil || !strings.Contains(err.Error(), "WriteQueueName") || !strings.Contains(err.Error(), "PeerID") {
		t.Errorf("an alias without a queue: %v", err)
	}
	dial.PeerID = host.NodeID()
	must(t, client.Connect("testhost", dial))
	answer(t, client, "testhost", "echo", 2)
}

// The listening side calls back who has called it, as over WebSocket.
func TestCallBackOverAQueue(t *testing.T) {
	eachWay(t, mqWays, func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		var from, name atomic.Value
		must(t, s.client.HandleFunc("back", func(c *owtp.Context) {
			from.Store(c.PID)
			name.Store(c.Peer.Name)
			c.Response("called back", 0, "")
		}))
		s.connect(t)
		if !w.proved() {
			answer(t, s.client, "testhost", "echo", 1)
			if _, err := s.host.CallSync(s.client.NodeID(), "back", nil); owtp.StatusOf(err) != owtp.ErrNetworkDisconnected {
				t.Errorf("calling back somebody who has proved nothing: %v", err)
			}
			return
		}
		// Connect is enough; so is a call within a handler.
		for range 3 {
			r, err := s.host.CallSync(s.client.NodeID(), "back", nil)
			must(t, err)
			if r.JsonData().String() != "called back" || from.Load() != s.host.NodeID() || name.Load() != "testhost" {
				t.Errorf("%+v from %v, known as %v", r, from.Load(), name.Load())
			}
		}
		must(t, s.host.HandleFunc("both", func(c *owtp.Context) {
			r, err := c.Node().CallContext(c.Context(), c.PID, "back", nil, nil)
			if err != nil {
				c.Response(err.Error(), 600, "")
				return
			}
			c.Resp = *r
		}))
		if r := answer(t, s.client, "testhost", "both", nil); r.JsonData().String() != "called back" {
			t.Errorf("%+v", r)
		}
		s.host.ClosePeer(s.client.NodeID())
		if _, err := s.host.CallSync(s.client.NodeID(), "back", nil); owtp.StatusOf(err) != owtp.ErrNetworkDisconnected {
			t.Errorf("after ClosePeer: %v", err)
		}
	})
}

// ClosePeer within a handler that was called back takes effect afterwards.
func TestClosePeerWhileCalledBack(t *testing.T) {
	s := newStage(t, way{connect: owtp.MQ, suite: "sm4"})
	must(t, s.client.HandleFunc("bye", func(c *owtp.Context) {
		c.Node().ClosePeer(c.PID)
		c.Response("bye", 0, "")
	}))
	s.connect(t)
	r, err := s.host.CallSync(s.client.NodeID(), "bye", nil)
	must(t, err)
	if r.JsonData().String() != "bye" || s.client.IsConnectPeer("testhost") {
		t.Errorf("%+v", r)
	}
	eventually(t, "its queues are gone", func() bool { return len(house.At(s.listen.Address).Queues()) == 3 })
}

// Replicas that share a store share the work of one queue; what one of them has
// not answered when it dies is not run by the other.
func TestQueueReplicasWithASharedStore(t *testing.T) {
	eachWay(t, mqWays[1:], func(t *testing.T, w way) {
		store := sharedStore(t)
		s := newStage(t, w, func(h, _ *owtp.NodeConfig) { h.Store = store })
		second := startNode(t, owtp.NodeConfig{Cert: s.host.Certificate(), Store: store})
		must(t, second.Listen(s.listen))
		var runs [2]atomic.Int64
		for i, n := range []*owtp.OWTPNode{s.host, second} {
			must(t, n.HandleFunc("work", func(c *owtp.Context) { runs[i].Add(1) }))
		}
		s.connect(t)
		for i := range 20 {
			answer(t, s.client, "testhost", "work", i)
		}
		if a, b := runs[0].Load(), runs[1].Load(); a+b != 20 || a == 0 || b == 0 {
			t.Errorf("the replicas have run %d and %d calls of 20", a, b)
		}
	})
}

// Replicas without a shared store: each answers who agreed with it, at a queue
// of its own; when it dies, the next call finds the other one.
func TestQueueReplicasWithStoresOfTheirOwn(t *testing.T) {
	eachWay(t, mqWays[1:], func(t *testing.T, w way) {
		s := newStage(t, w)
		second := startNode(t, owtp.NodeConfig{Cert: s.host.Certificate()})
		must(t, second.Listen(s.listen))
		var runs [2]atomic.Int64
		began, wake := make(chan int, 4), make(chan struct{})
		for i, n := range []*owtp.OWTPNode{s.host, second} {
			must(t, n.HandleFunc("work", func(c *owtp.Context) { runs[i].Add(1) }))
			must(t, n.HandleFunc("sleep", func(c *owtp.Context) {
				began <- i
				select {
				case <-wake:
				case <-c.Context().Done():
				}
			}))
		}
		defer close(wake)
		s.connect(t)
		for i := range 10 {
			answer(t, s.client, "testhost", "work", i)
		}
		if a, b := runs[0].Load(), runs[1].Load(); a+b != 10 || a != 0 && b != 0 {
			t.Errorf("the replicas have run %d and %d calls of 10: one of them should have", a, b)
		}
		// The one that was asked dies with a call in its hands.
		b := house.At(s.listen.Address)
		var asked atomic.Value
		b.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
			if !q.Answer {
				asked.Store(q.To)
			}
			return []transporttest.Queued{q}
		})
		done := make(chan error, 1)
		go func() {
			_, err := s.client.CallContext(background(t), "testhost", "sleep", nil, &owtp.CallOptions{Timeout: time.Second})
			done <- err
		}()
		within(t, began, "the handler")
		b.Lose(transport.ReplyQueuePrefix + strings.TrimPrefix(asked.Load().(string), transport.OwnQueuePrefix))
		wantStatus(t, within(t, done, "the outcome"), owtp.ErrOutcomeUnknown)
		for i := range 3 {
			answer(t, s.client, "testhost", "work", i)
		}
		if a, b := runs[0].Load(), runs[1].Load(); a+b != 13 || a != 3 && b != 3 {
			t.Errorf("the replicas have run %d and %d calls of 13", a, b)
		}
	})
}

// A broker that delivers a request again, because its consumer was lost, makes
// nobody run it twice.
func TestQueueRedelivery(t *testing.T) {
	eachWay(t, mqWays, func(t *testing.T, w way) {
		for _, shared := range []bool{true, false} {
			setups := []setup{}
			if shared {
				setups = append(setups, func(h, _ *owtp.NodeConfig) { h.Store = sharedStore(t) })
			}
			s := newStage(t, w, setups...)
			var runs atomic.Int64
			must(t, s.host.HandleFunc("pay", func(c *owtp.Context) { runs.Add(1); c.Response("paid", 0, "") }))
			s.connect(t)
			b := house.At(s.listen.Address)
			first := true
			b.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
				if !first || q.Answer || !strings.Contains(q.To, s.host.NodeID()) {
					return []transporttest.Queued{q}
				}
				first = false
				must(t, b.Inject(q))
				eventually(t, "the first delivery has run", func() bool { return runs.Load() == 1 })
				q.Message.Redelivered = true
				return []transporttest.Queued{q}
			})
			r, err := s.client.CallSync("testhost", "pay", nil)
			must(t, err)
			if r.JsonData().String() != "paid" {
				t.Errorf("%+v", r)
			}
			// Only the second delivery, whose first one nobody here has seen.
			b.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
				if !q.Answer && strings.Contains(q.To, s.host.NodeID()) {
					q.Message.Redelivered = true
				}
				return []transporttest.Queued{q}
			})
			before := runs.Load()
			r, err = s.client.CallContext(background(t), "testhost", "pay", nil, &owtp.CallOptions{Timeout: 2 * time.Second})
			must(t, err)
			if want := map[bool]uint64{true: 0, false: owtp.ErrOutcomeUnknown}[shared]; r.Status != want {
				t.Errorf("shared %v: status %d, want %d", shared, r.Status, want)
			}
			if ran := runs.Load(); before != 1 || shared != (ran == 2) {
				t.Errorf("shared %v: the handler has run %d times after the first call, %d after the second", shared, before, ran)
			}
		}
	})
}

// What a peer demands holds for who calls it back, too.
func TestNobodyElseCallsBack(t *testing.T) {
	eachWay(t, mqWays[1:], func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.client.HandleFunc("back", func(*owtp.Context) { t.Error("somebody else has called back") }))
		s.connect(t)
		var own string
		b := house.At(s.listen.Address)
		for _, q := range b.Queues() {
			if strings.HasPrefix(q, transport.OwnQueuePrefix+s.client.NodeID()) {
				own = q
			}
		}
		for _, sign := range []bool{false, true} {
			stranger := randomNode(t)
			cfg := owtp.ConnectConfig{ConnectType: owtp.MQ, Address: s.listen.Address, WriteQueueName: "x", EnableSignature: sign}
			if err := stranger.Connect("victim", cfg); !sign {
				must(t, err) // open: nothing was sent yet
			}
			b.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
				if q.To == "x" {
					q.To = own
				}
				return []transporttest.Queued{q}
			})
			cfg.WriteQueueName = "x"
			stranger.Connect("again", cfg)
			for _, name := range []string{"victim", "again"} {
				if r, err := stranger.CallContext(background(t), name, "back", nil, &owtp.CallOptions{Timeout: time.Second}); err == nil && r.OK() {
					t.Error("answered")
				}
			}
		}
	})
}

func sharedStore(t testing.TB) sharedMemory {
	t.Helper()
	m, err := memory.New(memory.Options{})
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return sharedMemory{m}
}

// sharedMemory is a store that says of itself that others use it, too.
type sharedMemory struct{ *memory.Store }

func (s sharedMemory) Traits() session.Traits {
	t := s.Store.Traits()
	t.Shared = true
	return t
}

// Close and Shutdown within a handler, also one that was called back, wait for
// nothing that waits for them; the other side's call has an outcome.
func TestEndWithinQueueHandlers(t *testing.T) {
	for _, w := range inBothFormats([]way{{connect: owtp.MQ, sign: true, suite: "sm4"}}) {
		for _, calledBack := range []bool{false, true} {
			for _, gently := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/called back=%v/gently=%v", w, calledBack, gently), func(t *testing.T) {
					t.Parallel()
					endWithinQueueHandler(t, w, calledBack, gently)
				})
			}
		}
	}
}

func endWithinQueueHandler(t *testing.T, w way, calledBack, gently bool) {
	s := newStage(t, w)
	s.connect(t)
	ends, calls, pid := s.host, s.client, "testhost"
	if calledBack {
		ends, calls, pid = s.client, s.host, s.client.NodeID()
	}
	ended := make(chan struct{})
	must(t, ends.HandleFunc("end", func(c *owtp.Context) {
		defer close(ended)
		if gently {
			must(t, c.Node().Shutdown(c.Context()))
		} else {
			must(t, c.Node().Close())
		}
		c.Response("ended", 0, "")
	}))
	r, err := calls.CallContext(background(t), pid, "end", nil, &owtp.CallOptions{Timeout: 500 * time.Millisecond})
	within(t, ended, "the handler's end")
	if gently && !calledBack && (err != nil || r.JsonData().String() != "ended") {
		t.Errorf("Shutdown has lost the answer: %+v, %v", r, err)
	}
	var e *owtp.Error
	if err != nil && (!errors.As(err, &e) || !e.MayHaveRun) {
		t.Errorf("the handler has run, but the caller is told: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- ends.Close() }()
	must(t, within(t, done, "Close"))
	eventually(t, "its queues are gone", func() bool {
		for _, q := range house.At(s.listen.Address).Queues() {
			if strings.Contains(q, ends.NodeID()) && !strings.HasPrefix(q, "owtp.node.") {
				return false
			}
		}
		return true
	})
}

// The session that a call back runs under ends, and another one takes its place,
// while its handler works: the answer still finds its way.
func TestSessionEndsWhileCalledBack(t *testing.T) {
	t.Parallel()
	s := newStage(t, way{connect: owtp.MQ, suite: "aes"})
	sl := newSleeper(t)
	must(t, s.host.HandleFunc("echo", echo))
	must(t, s.client.HandleFunc("sleep", sl.handle))
	s.connect(t)
	done := make(chan error, 1)
	go func() {
		r, err := s.host.CallContext(background(t), s.client.NodeID(), "sleep", nil, nil)
		if err == nil && r.JsonData().String() != "slept" {
			err = fmt.Errorf("answered %+v", r)
		}
		done <- err
	}()
	within(t, sl.began, "the handler")
	for i := range 3 {
		s.client.AgeSessions()
		answer(t, s.client, "testhost", "echo", i)
	}
	sl.wake()
	must(t, within(t, done, "the answer"))
	r, err := s.host.CallSync(s.client.NodeID(), "sleep", nil)
	must(t, err)
	if r.JsonData().String() != "slept" {
		t.Errorf("%+v", r)
	}
}

// What a broker cannot deliver again has no record in open mode. A cancel finds its
// handler all the same, and no second one begins while that runs. In proved modes
// it makes no difference what the broker says.
func TestQueueWithoutRedelivery(t *testing.T) {
	eachWay(t, mqWays, func(t *testing.T, w way) {
		s := newStage(t, w)
		sl := newSleeper(t)
		must(t, s.host.HandleFunc("sleep", sl.handle))
		s.connect(t)
		b := house.At(s.listen.Address)
		var last atomic.Pointer[transporttest.Queued]
		b.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
			if !q.Answer {
				q.Message.Once = true
				last.Store(&q)
			}
			return []transporttest.Queued{q}
		})
		ctx, cancel := context.WithCancel(background(t))
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := s.client.CallContext(ctx, "testhost", "sleep", nil, nil)
			done <- err
		}()
		within(t, sl.began, "the handler")
		second := copyOf(*last.Load())
		second.Correlation = "nobody waits for this"
		if a, err := b.Deliver(background(t), second); err != nil || a.Refusal != nil || len(a.Message.Data) == 0 {
			t.Errorf("a copy was answered with %+v, %v", a, err)
		}
		cancel()
		if err := within(t, done, "the call's end"); !errors.Is(err, context.Canceled) {
			t.Errorf("the call ended with %v", err)
		}
		if err := within(t, sl.ended, "the handler's end"); !errors.Is(err, context.Canceled) {
			t.Errorf("the handler ended with %v", err)
		}
		if len(sl.began) != 0 {
			t.Error("a copy has run while the first one did")
		}
		if w.proved() {
			return
		}
		sl.wake()
		if _, err := b.Deliver(background(t), second); err != nil || len(sl.began) != 1 {
			t.Errorf("something is kept of a call that is over: %d further ones have run, %v", len(sl.began), err)
		}
	})
}
