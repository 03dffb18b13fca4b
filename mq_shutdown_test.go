package owtp_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// One of three replicas behind RabbitMQ is shut down under load: every call is
// answered by a handler, once. A caller that was idle meanwhile loses nothing
// either.
func TestRabbitShutdownCostsNoCall(t *testing.T) {
	broker := servers.RabbitMQ(t)
	ways := []way{{connect: owtp.MQ}, {connect: owtp.MQ, sign: true}, {connect: owtp.MQ, suite: "aes"}, {connect: owtp.MQ, suite: "sm4", sign: true}}
	for _, shared := range []bool{false, true} {
		store := map[bool]string{false: "stores of their own", true: "a shared store"}[shared]
		eachWay(t, ways, func(t *testing.T, w way) {
			t.Run(store, func(t *testing.T) {
				t.Parallel()
				shutdownUnderLoad(t, broker, w, shared)
			})
		})
	}
}

func shutdownUnderLoad(t *testing.T, broker *servers.Server, w way, shared bool) {
	cfg := owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: quick}
	if shared {
		cfg.Store = sharedStore(t)
	}
	var mu sync.Mutex
	runs := make(map[string]int)
	work := func(c *owtp.Context) {
		mu.Lock()
		runs[c.Params().String()]++
		mu.Unlock()
		time.Sleep(2 * time.Millisecond)
		c.Response(c.Params().String(), 0, "")
	}
	// Without a proof a broker that takes a request back, which it has delivered to
	// who stops consuming at the same moment, leaves the next replica in the dark.
	unknown, mayBeUnknown := atomic.Int64{}, !w.proved() && !shared
	var served [3]atomic.Int64
	s := rabbitStage(t, w, broker, func(h, _ *owtp.NodeConfig) { *h = cfg })
	replicas := []*owtp.OWTPNode{s.host, startNode(t, cfg), startNode(t, cfg)}
	for i, n := range replicas {
		must(t, n.HandleFunc("work", func(c *owtp.Context) {
			served[i].Add(1)
			work(c)
		}))
		if i > 0 {
			must(t, n.Listen(s.listen))
		}
	}
	clients := []*owtp.OWTPNode{s.client, randomNode(t), randomNode(t), randomNode(t)}
	for _, c := range clients {
		s.connectNode(t, c)
	}
	idle := clients[3]
	total := func() (n int64) {
		for i := range served {
			n += served[i].Load()
		}
		return n
	}
	call := func(n *owtp.OWTPNode, what string) {
		r, err := n.CallSync("testhost", "work", what)
		if mayBeUnknown && err == nil && r.Status == owtp.ErrOutcomeUnknown {
			unknown.Add(1)
			return
		}
		if err != nil || !r.OK() || r.JsonData().String() != what {
			t.Errorf("call %s: %+v, %v", what, r, err)
		}
	}
	stop := make(chan struct{})
	var calls atomic.Int64
	var callers sync.WaitGroup
	for i := range 6 {
		callers.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				default:
					call(clients[i%3], fmt.Sprint(i, "/", j))
					calls.Add(1)
				}
			}
		})
	}
	eventually(t, "calls pass", func() bool { return calls.Load() > 30 })
	before := [3]int64{served[0].Load(), served[1].Load(), served[2].Load()}
	call(idle, "idle, before")
	// With stores of their own, the one that the idle caller knows.
	leaving := 0
	for i := range served {
		if served[i].Load()-before[i] > served[leaving].Load()-before[leaving] {
			leaving = i
		}
	}
	must(t, replicas[leaving].Shutdown(background(t)))
	after := served[leaving].Load()
	call(idle, "idle, after")
	passed := calls.Load()
	eventually(t, "calls pass", func() bool { return calls.Load() > passed+30 })
	close(stop)
	callers.Wait()
	if served[leaving].Load() != after || after == 0 {
		t.Errorf("who was shut down has served %d calls before and %d afterwards", after, served[leaving].Load()-after)
	}
	if n, lost := total(), unknown.Load(); n+lost != calls.Load()+2 || lost > 6 {
		t.Errorf("%d handlers have run for %d calls, and of %d calls nothing is known", n, calls.Load()+2, lost)
	}
	for what, n := range runs {
		if n != 1 {
			t.Errorf("call %s has run %d times", what, n)
		}
	}
}

// A leavingRig is two replicas with stores of their own, the first of which a
// client has called. While it goes away, all that comes to its own queue is late.
type leavingRig struct {
	*queueRig
	banks [2]*bank // the one that leaves is first
	left  string   // its own queue
	other string   // that of the one that stays
}

func newLeavingRig(t *testing.T, g guard) *leavingRig {
	t.Helper()
	r := &leavingRig{queueRig: newQueueRig(t, g, owtp.NodeConfig{})}
	other := newBank(t, owtp.NodeConfig{Cert: r.bank.Certificate()})
	must(t, other.Listen(owtp.ConnectConfig{Address: r.addr, ConnectType: owtp.MQ, EnableSignature: g.sign, EnableKeyAgreement: g.seal}))
	for _, q := range r.record(func() { r.mustPay("warm") }) {
		if !q.Answer && !isHello(q.Message) {
			r.left = q.To
		}
	}
	if r.banks = [2]*bank{r.bank, other}; other.runs.Load() > 0 {
		r.banks = [2]*bank{other, r.bank}
	}
	if !strings.HasPrefix(r.left, transport.OwnQueuePrefix) || r.banks[0].runs.Load() != 1 {
		t.Fatalf("the call went to %q, and has run %d times there", r.left, r.banks[0].runs.Load())
	}
	for _, q := range r.broker.Queues() {
		if strings.HasPrefix(q, transport.OwnQueuePrefix+r.bank.NodeID()) && q != r.left {
			r.other = q
		}
	}
	return r
}

// leave makes the first replica go away, and gives hook what passes.
func (r *leavingRig) leave(hook func(q transporttest.Queued) []transporttest.Queued) {
	r.broker.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
		switch q.To {
		case r.left:
			q.Message.Late = true
		case "owtp.node." + r.bank.NodeID():
			q.To = r.other // nobody else consumes it any more
		}
		return hook(q)
	})
}

func (r *leavingRig) ran(first, second int64) {
	r.t.Helper()
	if a, b := r.banks[0].runs.Load(), r.banks[1].runs.Load(); a != first || b != second {
		r.t.Errorf("the replica that leaves has run %d calls and the other %d, want %d and %d", a, b, first, second)
	}
}

// A replica that goes away refuses a call under proof, and the same call goes on
// at another one, with a store of its own, also under a key of the caller's.
func TestQueueReplicaLeaves(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		for _, keyed := range []bool{false, true} {
			r := newLeavingRig(t, g)
			refused := 0
			r.leave(func(q transporttest.Queued) []transporttest.Queued {
				if q.To == r.left && !isHello(q.Message) {
					refused++
				}
				return []transporttest.Queued{q}
			})
			opts := &owtp.CallOptions{Timeout: 5 * time.Second}
			if keyed {
				opts.CallKey = []byte("a key of mine :)")
			}
			for range 2 { // with the key, the second one is the same call
				if ok, err := r.payWith("a", opts); !ok {
					t.Errorf("keyed %v: %v", keyed, err)
				}
			}
			r.ran(1, map[bool]int64{false: 2, true: 1}[keyed])
			if refused != 1 {
				t.Errorf("who leaves was asked %d times", refused)
			}
		}
	})
}

// A hello to a replica that goes away takes its caller to another one.
func TestQueueReplicaLeavesBeforeAHello(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		r := newLeavingRig(t, g)
		asked := 0
		r.leave(func(q transporttest.Queued) []transporttest.Queued {
			if q.To == r.left && !isHello(q.Message) {
				asked++
			}
			return []transporttest.Queued{q}
		})
		r.client.AgeProofs(owtp.ReplicaAge) // far less than to a node that has no replicas
		r.mustPay("a")
		r.ran(1, 1)
		if asked != 0 {
			t.Errorf("who leaves was sent %d requests", asked)
		}
	})
}

// Nobody waits for the answer to a one-way message, and so who goes away runs it.
func TestQueueReplicaLeavesOneWay(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		r := newLeavingRig(t, g)
		noted := make(chan struct{}, 2)
		must(t, r.banks[0].HandleFunc("note", func(*owtp.Context) { noted <- struct{}{} }))
		r.leave(func(q transporttest.Queued) []transporttest.Queued { return []transporttest.Queued{q} })
		must(t, r.client.Notify(short(t), "bank", "note", payParams("a")))
		within(t, noted, "the note")
	})
}

// Say instead of a replica that it does not run a call, without proof, after it
// has run: nobody else is asked, and the caller does not believe it.
func TestAttackQueueFalseLeaving(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		for name, lie := range map[string]func(q transporttest.Queued) transporttest.Queued{
			"packet": func(q transporttest.Queued) transporttest.Queued {
				q.Message = packetAs(transport.Binary, &wire.Packet{Kind: wire.Response, Status: owtp.ErrDenialOfService, Reason: wire.ReasonNotRun, Method: "pay", Msg: "shutting down", Data: []byte("null")})
				return q
			},
			"refusal": func(q transporttest.Queued) transporttest.Queued {
				q.Message, q.Refusal = transport.Message{}, &transport.Refusal{Status: 503, Reason: "shutting down"}
				return q
			},
		} {
			for _, lies := range []int{1, 1000} {
				r := newLeavingRig(t, g)
				told := 0
				r.onAnswer(func(q transporttest.Queued) []transporttest.Queued {
					if told++; told <= lies {
						q = lie(q)
					}
					return []transporttest.Queued{q}
				})
				ok, err := r.pay("a", 5*time.Second)
				r.ran(2, 0)
				var e *owtp.Error
				if !ok && (!errors.As(err, &e) || !e.MayHaveRun) || told == 0 {
					t.Errorf("%s, %d times: the call has run, and its caller is told: %v", name, told, err)
				}
			}
		}
	})
}

// Repeat the true refusal of one attempt to another attempt, that has run: it
// says nothing of that, nor of another call.
func TestAttackQueueReplayLeaving(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		for _, another := range []bool{false, true} {
			r := newLeavingRig(t, g)
			var refusal transport.Message
			replayed := 0
			r.leave(func(q transporttest.Queued) []transporttest.Queued {
				switch {
				case !q.Answer || typeOf(q.Message) == wire.TypeHelloReply:
				case refusal.Data == nil:
					refusal = copyOf(q).Message
				default:
					if !another || replayed > 0 { // the answer of this call, or of the next
						q.Message = refusal
					}
					replayed++
				}
				return []transporttest.Queued{q}
			})
			ok, err := r.pay("a", time.Second)
			if another {
				if !ok {
					t.Errorf("the first call: %v", err)
				}
				ok, err = r.pay("b", time.Second)
			}
			var e *owtp.Error
			if ok || !errors.As(err, &e) || !e.MayHaveRun || replayed < 2 {
				t.Errorf("another call %v: the call has run, a refusal was repeated %d times, and its caller is told: %v, %v", another, replayed, ok, err)
			}
			r.ran(1, map[bool]int64{false: 1, true: 2}[another])
		}
	})
}

// Deliver what a replica has refused, or that and what followed, again to all
// queues of both replicas, marked or not, while it leaves and afterwards.
func TestAttackQueueRedeliverLeft(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		r := newLeavingRig(t, g)
		var mu sync.Mutex
		var sent []transporttest.Queued
		r.leave(func(q transporttest.Queued) []transporttest.Queued {
			mu.Lock()
			defer mu.Unlock()
			if !q.Answer && !isHello(q.Message) {
				sent = append(sent, copyOf(q))
			}
			return []transporttest.Queued{q}
		})
		r.mustPay("a")
		r.ran(1, 1)
		if len(sent) < 2 || sent[0].To != r.left {
			t.Fatalf("%d requests, the first to %q", len(sent), sent[0].To)
		}
		r.broker.OnMessage(nil)
		delivered := 0
		for _, late := range []bool{true, false} {
			for _, queue := range r.broker.Queues() {
				if !strings.Contains(queue, r.bank.NodeID()) || strings.HasPrefix(queue, transport.ReplyQueuePrefix) {
					continue
				}
				for _, q := range sent {
					for _, q.Message.Redelivered = range []bool{false, true} {
						q.Message.Late = late
						r.deliver(queue, q)
						delivered++
					}
				}
			}
		}
		r.ran(1, 1)
		if delivered < 3*2*2*2 {
			t.Errorf("only %d copies were delivered", delivered)
		}
	})
}

// An attempt may have run at a replica that then goes away: its refusal of a
// further attempt takes the call to nobody else.
func TestAttackQueueLeavesAfterAnAttempt(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		r := newLeavingRig(t, g)
		var held transporttest.Queued
		r.onRequest(func(q transporttest.Queued) []transporttest.Queued {
			if q.To == r.left && held.To == "" {
				held = copyOf(q)
				return []transporttest.Queued{{To: q.From, Answer: true, Correlation: q.Correlation, Refusal: &transport.Refusal{Status: 502, Reason: "gone"}}}
			}
			q.Message.Late = q.To == r.left
			return []transporttest.Queued{q}
		})
		ok, err := r.pay("a", 3*time.Second)
		if e := wantStatus(t, err, owtp.ErrOutcomeUnknown); ok || !e.MayHaveRun {
			t.Errorf("the first attempt is still on its way: %v, %v", ok, err)
		}
		r.broker.OnMessage(nil)
		r.deliver(r.left, held)
		if a, b := r.banks[0].runs.Load(), r.banks[1].runs.Load(); a+b > 2 || b > 0 {
			t.Errorf("the call has run %d times here and %d times there", a-1, b)
		}
	})
}

// Two calls under one key: while the first goes from a replica that has refused it
// to another one, the second runs there, and by then the first meets yet another.
func TestQueueReplicasLeaveTwoCallsOfAKey(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		r := newLeavingRig(t, g)
		shared := "owtp.node." + r.bank.NodeID()
		var leaving, staying atomic.Value
		steer := func(from, to string) { leaving.Store(from); staying.Store(to) }
		steer("", r.left)
		r.broker.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
			q.Message.Late = q.To == leaving.Load()
			if q.To == shared {
				q.To = staying.Load().(string)
			}
			return []transporttest.Queued{q}
		})
		keyed := func() (bool, error) {
			return r.payWith("a", &owtp.CallOptions{Timeout: 5 * time.Second, CallKey: []byte("a key of mine :)")})
		}
		var between atomic.Bool
		r.client = newNode(t, owtp.NodeConfig{Logger: slog.New(onLog(func(line string) {
			if line != "call is tried again" || !between.CompareAndSwap(false, true) {
				return
			}
			if ok, err := keyed(); !ok {
				t.Errorf("the second call: %v", err)
			}
			steer(r.other, r.left)
			r.mustPay("b") // finds the other one leaving, and then this one
		}))})
		must(t, r.client.Connect("bank", r.bank.at(r.addr, overMQ, g)))
		r.mustPay("warm again")
		steer(r.left, r.other)
		ok, err := keyed()
		if e := wantStatus(t, err, owtp.ErrOutcomeUnknown); ok || !e.MayHaveRun || !between.Load() {
			t.Errorf("the first call: %v, %v", ok, err)
		}
		r.ran(3, 1)
	})
}

// onLog is told each line of a node's log, on the goroutine that writes it.
type onLog func(line string)

func (onLog) Enabled(context.Context, slog.Level) bool { return true }

func (f onLog) Handle(_ context.Context, r slog.Record) error {
	f(r.Message)
	return nil
}

func (f onLog) WithAttrs([]slog.Attr) slog.Handler { return f }

func (f onLog) WithGroup(string) slog.Handler { return f }

// Shutdown waits for one-way messages that run, as it does for requests.
func TestShutdownWaitsForOneWay(t *testing.T) {
	for _, w := range []way{{connect: owtp.HTTP, sign: true}, {connect: owtp.MQ, sign: true}, {connect: owtp.Websocket, sign: true}} {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, w)
			sl := newSleeper(t)
			must(t, s.host.HandleFunc("sleep", sl.handle))
			s.connect(t)
			must(t, s.client.Notify(background(t), "testhost", "sleep", nil))
			within(t, sl.began, "the handler")
			done := make(chan error, 1)
			go func() { done <- s.host.Shutdown(context.Background()) }()
			never(t, "Shutdown has not waited", func() bool { return len(done) > 0 })
			sl.wake()
			if err := within(t, sl.ended, "the handler's end"); err != nil {
				t.Errorf("the handler was told to end: %v", err)
			}
			must(t, within(t, done, "Shutdown"))
		})
	}
}
