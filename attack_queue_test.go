package owtp_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// What only the owner of a broker can do, beside what TestAttack... does over
// every medium: the queues are the attacker's, and so is the broker's word.

var allModes = append([]guard{inOpen}, proofModes...)

// A queueRig is a client that calls a bank at a broker that is the attacker's.
type queueRig struct {
	*rig
	broker *transporttest.Broker
	addr   string
}

func newQueueRig(t *testing.T, g guard, cfg owtp.NodeConfig) *queueRig {
	t.Helper()
	r := &queueRig{rig: &rig{t: t, m: overMQ, g: g, bank: newBank(t, cfg), client: newNode(t, owtp.NodeConfig{})}}
	r.addr = r.bank.listen(t, overMQ, g)
	r.broker = house.At(r.addr)
	must(t, r.client.Connect("bank", r.bank.at(r.addr, overMQ, g)))
	return r
}

func eachMode(t *testing.T, modes []guard, f func(t *testing.T, g guard)) {
	each(t, []medium{overMQ}, modes, func(t *testing.T, _ medium, g guard) { f(t, g) })
}

// queueOf is the own queue of a node's connection, or with another prefix that
// for its answers. Of several it is the last.
func (r *queueRig) queueOf(prefix string, n *owtp.OWTPNode) (last string) {
	r.t.Helper()
	for _, q := range r.broker.Queues() {
		if strings.HasPrefix(q, prefix+n.NodeID()) {
			last = q
		}
	}
	if last == "" {
		r.t.Fatalf("%s has no queue %s...", n.NodeID(), prefix)
	}
	return last
}

// onRequest runs hook on each message but answers, hellos and their like.
func (r *queueRig) onRequest(hook func(q transporttest.Queued) []transporttest.Queued) {
	r.broker.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
		if q.Answer || isHello(q.Message) {
			return []transporttest.Queued{q}
		}
		return hook(q)
	})
}

// onAnswer runs hook on each answer to something else than a hello.
func (r *queueRig) onAnswer(hook func(q transporttest.Queued) []transporttest.Queued) {
	r.broker.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
		if !q.Answer || typeOf(q.Message) == wire.TypeHelloReply {
			return []transporttest.Queued{q}
		}
		return hook(q)
	})
}

// record keeps copies of what f makes pass through the broker, hellos too.
func (r *queueRig) record(f func()) (all []transporttest.Queued) {
	r.t.Helper()
	var mu sync.Mutex
	r.broker.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, copyOf(q))
		return []transporttest.Queued{q}
	})
	f()
	r.broker.OnMessage(nil)
	mu.Lock()
	defer mu.Unlock()
	if len(all) == 0 {
		r.t.Fatal("nothing was recorded")
	}
	return all
}

func copyOf(q transporttest.Queued) transporttest.Queued {
	q.Message.Data = bytes.Clone(q.Message.Data)
	return q
}

// deliver puts a message into a queue and waits until its consumer is done.
func (r *queueRig) deliver(queue string, q transporttest.Queued) transporttest.Queued {
	r.t.Helper()
	q = copyOf(q)
	q.To = queue
	answer, err := r.broker.Deliver(short(r.t), q)
	if err != nil {
		r.t.Fatalf("not delivered: %v", err)
	}
	return answer
}

// trap consumes a queue that is nobody's business, and counts what it gets.
func (r *queueRig) trap(name string) *atomic.Int64 {
	r.t.Helper()
	got := new(atomic.Int64)
	cfg := roomy(r.addr)
	cfg.Name, cfg.ReadQueueName = "trap", name
	e, err := r.broker.Open(short(r.t), cfg, transporttest.HandlerFuncs{
		Exchange: func(context.Context, transport.Remote, transport.Message) (transport.Message, error) {
			got.Add(1)
			return transport.Message{}, nil
		},
	})
	must(r.t, err)
	r.t.Cleanup(func() { e.Close() })
	return got
}

// Redirect replies: what the broker says about where they go counts for nothing
// beside what the message says, and a message cannot make a node write into
// queues that are not for replies.
func TestAttackQueueRedirectReplies(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, g guard) {
		r := newQueueRig(t, g, owtp.NodeConfig{})
		thief := newNode(t, owtp.NodeConfig{})
		must(t, thief.Connect("bank", r.bank.at(r.addr, overMQ, g)))
		loot := r.queueOf(transport.ReplyQueuePrefix, thief)
		var redirected, stolen atomic.Int64
		r.broker.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
			switch {
			case !q.Answer:
				redirected.Add(1)
				q.ReplyTo = loot
			case q.To == loot:
				stolen.Add(1)
			}
			return []transporttest.Queued{q}
		})
		r.mustPay("a")
		if redirected.Load() == 0 || stolen.Load() != 0 {
			t.Errorf("%d requests were redirected, %d answers were stolen", redirected.Load(), stolen.Load())
		}
		r.broker.OnMessage(nil)

		orders := r.trap("orders")
		own := r.queueOf(transport.OwnQueuePrefix, r.client)
		_, key := newKey(t)
		a := dialRaw(t, overMQ, r.addr, key)
		if !g.open() {
			must(t, a.offer(secure.Offer{Mode: g.mode()}, nil))
		}
		for i, queue := range []string{"orders", own, "owtp.node." + r.bank.NodeID(), "", "owtp.reply"} {
			p := a.payment(r.bank, byte(i+1))
			p.ReplyTo = queue
			for what, m := range a.inEveryForm(p) {
				answer := r.deliver("owtp.node."+r.bank.NodeID(), transporttest.Queued{ReplyTo: queue, Correlation: "x", Message: m})
				if answer.To != "" || answer.Refusal == nil || answer.Refusal.Status != 400 {
					t.Errorf("%s with replies to %q: answered to %q, %v", what, queue, answer.To, answer.Refusal)
				}
			}
		}
		if n := orders.Load(); n != 0 {
			t.Errorf("the bank has written %d messages into a queue of somebody else", n)
		}
		r.bank.ran(t, 1)
	})
}

// inEveryForm is one request open, signed and, where there is a session, sealed.
func (a *raw) inEveryForm(p *wire.Packet) map[string]transport.Message {
	a.t.Helper()
	open := *p
	open.Mode, open.Epoch, open.Recipient = 0, wire.Nonce{}, wire.ID{}
	signed := *p
	signed.Mode = wire.ModeSigned
	must(a.t, secure.Sign(zeroes{}, a.key, &signed))
	all := map[string]transport.Message{
		"open": packetAs(transport.JSON, &open), "open, binary": packetAs(transport.Binary, &open), "signed": packetAs(transport.Binary, &signed),
	}
	if a.session != nil {
		sealed := *p
		sealed.Handshake = a.session.Finish
		m, err := a.session.SealMessage(zeroes{}, sealed.Append(nil), wire.Nonce{})
		must(a.t, err)
		all["sealed"] = binary(m)
	}
	_, hello, err := secure.Start(secure.Local{Key: a.key, Rand: zeroes{}}, secure.Offer{
		Transport: uint8(transport.MQ), Mode: wire.ModeSealed, Suites: []*secure.Suite{secure.SM4}, Epoch: wire.Nonce{1}, ReplyQueue: p.ReplyTo,
	})
	must(a.t, err)
	all["hello"] = binary(hello)
	return all
}

// Swap answers by their correlation, between two calls of one caller and between
// two callers: nobody gets another's.
func TestAttackQueueSwapAnswers(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, g guard) {
		for _, two := range []bool{false, true} {
			r := newQueueRig(t, g, owtp.NodeConfig{})
			callers := []*rig{r.rig, r.rig}
			if two {
				other := *r.rig
				other.client = newNode(t, owtp.NodeConfig{})
				must(t, other.client.Connect("bank", r.bank.at(r.addr, overMQ, g)))
				callers[1] = &other
			}
			var mu sync.Mutex
			var held []transporttest.Queued
			swapped := 0
			r.onAnswer(func(q transporttest.Queued) []transporttest.Queued {
				mu.Lock()
				defer mu.Unlock()
				if swapped > 0 {
					return []transporttest.Queued{q} // further attempts
				}
				if held = append(held, copyOf(q)); len(held) < 2 {
					return nil
				}
				swapped = 2
				held[0].Message, held[1].Message = held[1].Message, held[0].Message
				return held
			})
			var wg sync.WaitGroup
			var right atomic.Int64
			for i, c := range callers {
				wg.Go(func() {
					if ok, _ := c.pay(fmt.Sprint(i), 5*time.Second); ok { // judged there
						right.Add(1)
					}
				})
			}
			wg.Wait()
			if swapped != 2 || g.open() && right.Load() != 0 {
				t.Errorf("two callers %v: %d answers were swapped, %d calls succeeded", two, swapped, right.Load())
			}
			r.bank.ran(t, 2) // attempts with proof find the kept answers
		}
	})
}

// Replay the answer of an earlier call to a later one, beside and in place of the
// right one.
func TestAttackQueueReplayAnswer(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, g guard) {
		r := newQueueRig(t, g, owtp.NodeConfig{})
		var old transport.Message
		for _, q := range r.record(func() { r.mustPay("first") }) {
			if q.Answer {
				old = q.Message
			}
		}
		var replayed atomic.Int64
		r.onAnswer(func(q transporttest.Queued) []transporttest.Queued {
			if replayed.Add(1) > 1 {
				return []transporttest.Queued{q}
			}
			replay := q
			replay.Message = transport.Message{Form: old.Form, Data: bytes.Clone(old.Data)}
			return []transporttest.Queued{replay, q}
		})
		ok, err := r.pay("second", 5*time.Second)
		if replayed.Load() == 0 || ok != (!g.open()) || !ok && err == nil {
			t.Errorf("%d answers were replayed: ok %v, %v", replayed.Load(), ok, err)
		}
		r.bank.ran(t, 2)
	})
}

// Deliver again what was refused, with the mark of a redelivery: its sender was
// told under proof that it has not run, and it never does.
func TestAttackQueueRedeliverRefused(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		for _, shared := range []bool{false, true} {
			cfg := owtp.NodeConfig{Limits: quick}
			cfg.Limits.MaxRequestsPerPeer = 1
			if shared {
				cfg.Store = sharedStore(t)
			}
			r := newQueueRig(t, g, cfg)
			s := r.waits(t, "sleep")
			done := r.start("sleep", nil, nil)
			within(t, s.began, "the handler")
			var refused []transporttest.Queued
			for _, q := range r.record(func() {
				resp, err := r.client.CallContext(context.Background(), "bank", "pay", payParams("a"), &owtp.CallOptions{Timeout: patience})
				if err != nil || resp.Status != owtp.ErrTooManyRequests {
					t.Errorf("the call was to be refused: %+v, %v", resp, err)
				}
			}) {
				if !q.Answer && !isHello(q.Message) {
					refused = append(refused, q)
				}
			}
			s.wake()
			within(t, done, "the other call's answer")
			if len(refused) != 1 {
				t.Fatalf("%d requests, want one", len(refused))
			}
			for _, refused[0].Message.Redelivered = range []bool{true, false, true} {
				r.deliver(refused[0].To, refused[0])
			}
			r.bank.ran(t, 0)
			r.mustPay("b")
			r.bank.ran(t, 1)
		}
	})
}

// Say of a delivery that it is the second, and of a second one nothing: the
// handler runs once at most, and who asked is not told that it has not if it has.
func TestAttackQueueFalseRedelivery(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, g guard) {
		for _, shared := range []bool{false, true} {
			for _, then := range []string{"mark the first", "copy without a mark", "copy with a mark", "mark all"} {
				cfg := owtp.NodeConfig{}
				if shared {
					cfg.Store = sharedStore(t)
				}
				r := newQueueRig(t, g, cfg)
				var hit atomic.Int64
				r.onRequest(func(q transporttest.Queued) []transporttest.Queued {
					second := copyOf(q)
					first := hit.Add(1) == 1
					switch {
					case then == "mark all", then == "mark the first" && first:
						q.Message.Redelivered = true
					case !first:
					case then == "copy with a mark":
						second.Message.Redelivered = true
						return []transporttest.Queued{q, second}
					case then == "copy without a mark":
						return []transporttest.Queued{q, second}
					}
					return []transporttest.Queued{q}
				})
				resp, err := r.client.CallContext(context.Background(), "bank", "pay", payParams("a"), &owtp.CallOptions{Timeout: 5 * time.Second, Meta: map[string]string{"purpose": purposeMark}})
				ok := judge(t, "a", resp, err)
				ran := r.bank.runs.Load()
				switch unknown := err == nil && resp.Status == owtp.ErrOutcomeUnknown; {
				case hit.Load() == 0:
					t.Errorf("%s: nothing was delivered", then)
				case ran > 1:
					t.Errorf("shared %v, %s: the handler has run %d times", shared, then, ran)
				case !shared && strings.HasPrefix(then, "mark"):
					if !unknown || ran != 0 {
						t.Errorf("%s: nobody can know whether it ran, but %+v, %v after %d runs", then, resp, err, ran)
					}
				case unknown && !shared && then == "copy with a mark": // it came first
				case g.open() && err == nil && resp.Status == owtp.ErrReplayAttack: // so did the copy
				case !ok || ran != 1:
					t.Errorf("shared %v, %s: %+v, %v after %d runs", shared, then, resp, err, ran)
				}
			}
		}
	})
}

// Deliver one request to two replicas that know nothing of each other, through
// their own queues and the shared one, marked or not: one of them runs it.
func TestAttackQueueTwoReplicas(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		r := newQueueRig(t, g, owtp.NodeConfig{})
		other := newBank(t, owtp.NodeConfig{Cert: r.bank.Certificate()})
		must(t, other.Listen(owtp.ConnectConfig{Address: r.addr, ConnectType: owtp.MQ, EnableSignature: g.sign, EnableKeyAgreement: g.seal, DataFormat: g.format}))
		sent := r.record(func() { r.mustPay("a") })
		r.bank.ran(t, 1)
		other.ran(t, 0)
		delivered := 0
		for _, queue := range r.broker.Queues() {
			if !strings.Contains(queue, r.bank.NodeID()) || strings.HasPrefix(queue, transport.ReplyQueuePrefix) {
				continue
			}
			for _, q := range sent {
				for _, q.Message.Redelivered = range []bool{false, true} {
					if q.Answer {
						continue
					}
					answer := r.deliver(queue, q)
					if !strings.HasPrefix(answer.To, transport.ReplyQueuePrefix+r.client.NodeID()) {
						t.Errorf("a copy was answered to %q", answer.To)
					}
					delivered++
				}
			}
		}
		if delivered < 3*2 {
			t.Errorf("only %d copies were delivered", delivered)
		}
		r.bank.ran(t, 1)
		other.ran(t, 0)
		r.mustPay("b")
	})
}

// Deliver a request and return it as one that nobody takes: the caller does not
// believe that it has not run, and no other replica runs it.
func TestAttackQueueFalseReturn(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		for _, c := range []struct {
			name            string
			shared, another bool // store, replica
			want            uint64
		}{
			{"one node", false, false, 0},
			{"replicas with stores of their own", false, true, owtp.ErrOutcomeUnknown},
			{"replicas with a shared store", true, true, owtp.ErrNetworkDisconnected},
		} {
			cfg := owtp.NodeConfig{}
			if c.shared {
				cfg.Store = sharedStore(t)
			}
			r := newQueueRig(t, g, cfg)
			banks := []*bank{r.bank}
			if c.another {
				cfg.Cert = r.bank.Certificate()
				banks = append(banks, newBank(t, cfg))
				must(t, banks[1].Listen(owtp.ConnectConfig{Address: r.addr, ConnectType: owtp.MQ, EnableSignature: g.sign, EnableKeyAgreement: g.seal, DataFormat: g.format}))
			}
			runs := func() (n int64) {
				for _, b := range banks {
					n += b.runs.Load()
				}
				return n
			}
			r.mustPay("warm")
			var lied atomic.Bool
			asked := ""
			r.broker.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
				switch {
				case q.Answer:
				case !isHello(q.Message) && !lied.Swap(true):
					asked = q.To
					must(t, r.broker.Inject(copyOf(q)))
					eventually(t, "it has run", func() bool { return runs() == 2 })
					q.To = "owtp.own.nobody"
				case len(banks) > 1 && asked != "" && q.To == "owtp.node."+r.bank.NodeID() && !c.shared:
					// And now for the other replica.
					for _, queue := range r.broker.Queues() {
						if strings.HasPrefix(queue, transport.OwnQueuePrefix+r.bank.NodeID()) && queue != asked {
							q.To = queue
						}
					}
				}
				return []transporttest.Queued{q}
			})
			ok, err := r.pay("a", 5*time.Second)
			if !lied.Load() {
				t.Errorf("%s: nothing was returned", c.name)
			}
			if n := runs(); n != 2 {
				t.Errorf("%s: the handler has run %d times for two calls", c.name, n)
			}
			if c.want == 0 {
				if !ok {
					t.Errorf("%s: %v", c.name, err)
				}
			} else if e := wantStatus(t, err, c.want); !e.MayHaveRun {
				t.Errorf("%s: the handler has run, but the caller is told: %v", c.name, err)
			}
			r.broker.OnMessage(nil)
			r.mustPay("after")
		}
	})
}

// Hold a request back: as long as its caller waits it is good, however long that
// is, and afterwards it runs nothing.
func TestAttackQueueHold(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		const window = 100 * time.Millisecond
		r := newQueueRig(t, g, owtp.NodeConfig{Window: window})
		held := make(chan transporttest.Queued, 8)
		hold := func(q transporttest.Queued) []transporttest.Queued { held <- copyOf(q); return nil }
		r.onRequest(hold)
		done := r.start("pay", payParams("long"), &owtp.CallOptions{Timeout: patience, Meta: map[string]string{"purpose": purposeMark}})
		q := within(t, held, "the request")
		time.Sleep(3 * window)
		r.deliver(q.To, q)
		if got := within(t, done, "the answer"); got.err != nil || !got.resp.OK() {
			t.Errorf("held for longer than the window, and its caller waited: %+v, %v", got.resp, got.err)
		}
		r.bank.ran(t, 1)

		_, err := r.pay("short", window/2)
		if e := wantStatus(t, err, owtp.ErrRequestTimeout); !e.MayHaveRun {
			t.Errorf("a request that is still on its way cannot be said not to run: %v", e)
		}
		q = within(t, held, "the request")
		time.Sleep(3 * window)
		answer := r.deliver(q.To, q)
		if answer.To == "" || answer.Refusal != nil {
			t.Errorf("no answer that says so: %+v", answer)
		}
		r.bank.ran(t, 1)
		r.broker.OnMessage(nil)
		r.mustPay("after")
		r.bank.onlyAsked(t, r.client.NodeID(), "long", "after")
	})
}

// Replay one-way messages, which nobody answers: each runs once, in open mode
// too, where it is the broker's own copies that are meant.
func TestAttackQueueReplayOneWay(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, g guard) {
		r := newQueueRig(t, g, owtp.NodeConfig{})
		var ran atomic.Int64
		must(t, r.bank.HandleFunc("note", func(*owtp.Context) { ran.Add(1) }))
		sent := r.record(func() {
			must(t, r.client.Notify(short(t), "bank", "note", payParams("a")))
			eventually(t, "the note has come", func() bool { return ran.Load() == 1 })
		})
		note := sent[len(sent)-1]
		for _, note.Message.Redelivered = range []bool{false, true, false} {
			if answer := r.deliver("owtp.node."+r.bank.NodeID(), note); len(answer.Message.Data) != 0 {
				t.Errorf("a one-way message was answered to %q", answer.To)
			}
		}
		settle()
		if n := ran.Load(); n != 1 {
			t.Errorf("the handler has run %d times", n)
		}
	})
}

// Junk and too much of everything, into all queues of both sides, also as the
// answer to a call that waits: nothing runs, nothing stays, and calls go on.
func TestAttackQueueJunk(t *testing.T) {
	limits := quick
	limits.MaxMessage = 128 << 10
	r := newQueueRig(t, inBoth, owtp.NodeConfig{Limits: limits})
	r.client.ClosePeer("bank")
	r.client = newNode(t, owtp.NodeConfig{Limits: limits})
	must(t, r.client.Connect("bank", r.bank.at(r.addr, overMQ, inBoth)))
	must(t, r.client.HandleFunc("pay", func(*owtp.Context) { t.Error("junk has run a handler of the client") }))
	must(t, r.client.HandleFunc("back", echo))
	r.mustPay("before")
	before := runtime.NumGoroutine()
	pieces := append(junk(), binary(make([]byte, 1<<20)), transport.Message{Form: transport.JSON, Data: make([]byte, 128<<10+1)})
	for _, n := range []*owtp.OWTPNode{r.bank.OWTPNode, r.client} {
		queues := []string{r.queueOf(transport.OwnQueuePrefix, n)}
		if n == r.bank.OWTPNode {
			queues = append(queues, "owtp.node."+n.NodeID())
		}
		reply := r.queueOf(transport.ReplyQueuePrefix, n)
		for i, m := range pieces {
			must(t, r.broker.Inject(transporttest.Queued{To: reply, Correlation: fmt.Sprint(i), Message: m}))
			for _, queue := range queues {
				answer := r.deliver(queue, transporttest.Queued{ReplyTo: strayQueue, Message: m})
				if answer.Refusal == nil && (typeOf(answer.Message) == wire.TypeHelloReply || typeOf(answer.Message) == wire.TypeSealedReply) {
					t.Errorf("junk %d was answered with a message of type %d", i, typeOf(answer.Message))
				}
			}
		}
	}
	// With the correlation of a call that waits, before its own answer.
	for i, m := range pieces {
		if i%40 != 0 && i < len(pieces)-2 {
			continue
		}
		var hit atomic.Int64
		r.onAnswer(func(q transporttest.Queued) []transporttest.Queued {
			if hit.Add(1) > 1 {
				return []transporttest.Queued{q}
			}
			return []transporttest.Queued{{From: q.From, To: q.To, Answer: true, Correlation: q.Correlation, Message: m}, q}
		})
		if ok, err := r.pay(fmt.Sprint("junk ", i), 5*time.Second); !ok || hit.Load() == 0 {
			t.Errorf("junk %d, delivered %d times: %v", i, hit.Load(), err)
		}
	}
	r.broker.OnMessage(nil)
	r.mustPay("after")
	answer(t, r.bank.OWTPNode, r.client.NodeID(), "back", 1)
	goroutines(t, before)
}

// A flood of hellos, each of another key and good, while honest callers work:
// all of these are served, and the strangers leave nothing behind for long.
func TestAttackQueueFlood(t *testing.T) {
	limits := quick
	limits.MaxHandshakes, limits.MaxHandshakeQueue = 1, 4
	r := newQueueRig(t, inSealed, owtp.NodeConfig{Limits: limits})
	must(t, r.client.HandleFunc("back", echo))
	r.mustPay("warm")
	var hellos []transporttest.Queued
	for range 150 {
		hello, _ := helloOf(t, transport.MQ, wire.ModeSealed)
		hellos = append(hellos, transporttest.Queued{To: "owtp.node." + r.bank.NodeID(), ReplyTo: strayQueue, Message: binary(hello)})
	}
	over := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				if err := r.broker.Inject(copyOf(hellos[i%len(hellos)])); err != nil {
					time.Sleep(time.Millisecond) // the queue is full
				}
				if i%16 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	for i := range 30 {
		ok, err := r.pay(fmt.Sprint("flood ", i), patience)
		if !ok {
			t.Errorf("an honest call failed: %v", err)
		}
		if i%10 == 9 {
			r.client.AgeProofs(owtp.ProofAge + time.Second) // a proof is asked for in between
			answer(t, r.bank.OWTPNode, r.client.NodeID(), "back", i)
		}
	}
	close(over)
	wg.Wait()
	if n := r.bank.Callers(); n != 1 {
		t.Errorf("%d peers can be called back, one has proved itself", n)
	}
	r.bank.ran(t, 31)
}
