package owtp_test

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// What a broker's owner can do to calls back, which use what the calls of the
// other direction have agreed on.

// counts is a handler of the client's that counts its runs.
func (r *queueRig) counts(method string) *atomic.Int64 {
	r.t.Helper()
	ran := new(atomic.Int64)
	must(r.t, r.client.HandleFunc(method, func(c *owtp.Context) {
		ran.Add(1)
		c.Response("called back", 0, "")
	}))
	return ran
}

func (r *queueRig) reconnect() {
	r.t.Helper()
	r.client.ClosePeer("bank")
	must(r.t, r.client.Connect("bank", r.bank.at(r.addr, overMQ, r.g)))
}

// Reflect requests into the queues of who sent them, and as their own answers: no
// node takes its own words for its peer's, in either direction.
func TestAttackQueueReflect(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		r := newQueueRig(t, g, owtp.NodeConfig{})
		own := r.counts("pay")
		must(t, r.bank.HandleFunc("back", func(*owtp.Context) { t.Error("the bank has run its own call back") }))
		back := r.counts("back")
		sent := r.record(func() {
			r.mustPay("a")
			answer(t, r.bank.OWTPNode, r.client.NodeID(), "back", payParams("b"))
		})
		reflected := 0
		for _, q := range sent {
			from := r.client
			if strings.Contains(q.From, r.bank.NodeID()) {
				from = r.bank.OWTPNode
			}
			queues := []string{r.queueOf(transport.OwnQueuePrefix, from)}
			if from == r.bank.OWTPNode {
				queues = append(queues, "owtp.node."+from.NodeID())
			}
			for _, queue := range queues {
				for _, q.Message.Redelivered = range []bool{false, true} {
					r.deliver(queue, q)
					reflected++
				}
			}
		}
		if reflected < 8 || own.Load() != 0 || back.Load() != 1 {
			t.Errorf("%d messages were reflected; the client has run its own %d times, and the call back %d times", reflected, own.Load(), back.Load())
		}
		// As the answer.
		var mirrored atomic.Int64
		r.onRequest(func(q transporttest.Queued) []transporttest.Queued {
			if mirrored.Add(1) > 1 {
				return []transporttest.Queued{q}
			}
			m := copyOf(q)
			m.To, m.Answer = q.ReplyTo, true
			return []transporttest.Queued{m}
		})
		if ok, err := r.pay("mirrored", 2*time.Second); mirrored.Load() == 0 || !ok && err == nil {
			t.Errorf("%d requests were mirrored: %v", mirrored.Load(), err)
		}
		if n := r.bank.runs.Load(); n > 2 {
			t.Errorf("%d runs of two calls", n)
		}
	})
}

// Send a call back's request to the other side of the agreement, and the other
// side's requests as calls back; and put what belongs to one peer into another's
// queues.
func TestAttackQueueForeignMessages(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		r := newQueueRig(t, g, owtp.NodeConfig{})
		second := newNode(t, owtp.NodeConfig{})
		for _, n := range []*owtp.OWTPNode{r.client, second} {
			for _, method := range []string{"pay", "back"} {
				must(t, n.HandleFunc(method, func(c *owtp.Context) {
					if n == r.client || method == "pay" {
						t.Errorf("what was not for it has run %q", method)
					}
				}))
			}
		}
		must(t, r.bank.HandleFunc("back", func(*owtp.Context) { t.Error("the bank has run a call back") }))
		must(t, second.Connect("bank", r.bank.at(r.addr, overMQ, g)))
		sent := r.record(func() {
			resp, err := second.CallContext(context.Background(), "bank", "pay", payParams("a"), &owtp.CallOptions{Meta: map[string]string{"purpose": purposeMark}})
			if !judge(t, "a", resp, err) {
				t.Fatal(err)
			}
			answer(t, r.bank.OWTPNode, second.NodeID(), "back", nil)
		})
		victim := r.queueOf(transport.OwnQueuePrefix, r.client)
		delivered := 0
		for _, q := range sent {
			r.deliver(victim, q)
			r.deliver(r.queueOf(transport.OwnQueuePrefix, r.bank.OWTPNode), q)
			delivered += 2
			q = copyOf(q)
			q.To = r.queueOf(transport.ReplyQueuePrefix, r.client)
			must(t, r.broker.Inject(q))
		}
		// A stranger with a key, a session and a good signature of its own.
		_, key := newKey(t)
		a := dialRaw(t, overMQ, r.addr, key)
		must(t, a.offer(secure.Offer{Mode: g.mode()}, nil))
		p := a.payment(r.bank, 7)
		p.Method = "back"
		p.Recipient = recipient(&bank{OWTPNode: r.client})
		for what, m := range a.inEveryForm(p) {
			got := r.deliver(victim, transporttest.Queued{ReplyTo: strayQueue, Message: m})
			delivered++
			if typeOf(got.Message) == wire.TypeHelloReply || typeOf(got.Message) == wire.TypeSealedReply {
				t.Errorf("a stranger's %s message was answered with one of type %d", what, typeOf(got.Message))
			}
		}
		if delivered < 8 {
			t.Errorf("only %d messages were delivered", delivered)
		}
		r.bank.ran(t, 1)
		r.mustPay("after")
	})
}

// Call back through what was recorded before ClosePeer: it ends what the other
// side may do, on both sides, and no copy of anything brings it back.
func TestAttackQueueClosedPeer(t *testing.T) {
	eachMode(t, proofModes, func(t *testing.T, g guard) {
		r := newQueueRig(t, g, owtp.NodeConfig{})
		back := r.counts("back")
		all := r.record(func() {
			r.mustPay("a")
			answer(t, r.bank.OWTPNode, r.client.NodeID(), "back", nil)
		})
		// A call back that its peer has never seen, for after ClosePeer.
		var held []transporttest.Queued
		r.onRequest(func(q transporttest.Queued) []transporttest.Queued { held = append(held, copyOf(q)); return nil })
		if _, err := r.bank.CallContext(short(t), r.client.NodeID(), "back", nil, &owtp.CallOptions{Timeout: 50 * time.Millisecond}); err == nil {
			t.Error("a call back that was dropped has been answered")
		}
		r.broker.OnMessage(nil)
		before := r.queueOf(transport.OwnQueuePrefix, r.client)
		r.reconnect()
		after := ""
		eventually(t, "the old queues are gone", func() bool {
			after = r.queueOf(transport.OwnQueuePrefix, r.client)
			return after != before
		})
		if len(held) == 0 {
			t.Fatal("nothing was held back")
		}
		for _, q := range append(all, held...) {
			if !q.Answer {
				r.deliver(after, q)
			}
		}
		// One that is signed and still fresh is the peer's own request, which
		// may come once; what was sealed for the session that ended may not.
		most := int64(1)
		if !g.seal {
			most = 2
		}
		if n := back.Load(); n > most {
			t.Errorf("calls back have run %d times, want %d at most", n, most)
		}
		// The other side.
		r.mustPay("b")
		all = append(all, r.record(func() { r.mustPay("c") })...)
		r.bank.ClosePeer(r.client.NodeID())
		for _, q := range all {
			if !q.Answer {
				r.deliver("owtp.node."+r.bank.NodeID(), q)
			}
		}
		if _, err := r.bank.CallSync(r.client.NodeID(), "back", nil); owtp.StatusOf(err) != owtp.ErrNetworkDisconnected {
			t.Errorf("copies have brought back a peer that was closed: %v", err)
		}
		r.bank.ran(t, 3)
		time.Sleep(2 * time.Millisecond) // what bears the same time is not taken for later
		r.mustPay("d")                   // a new call does
		answer(t, r.bank.OWTPNode, r.client.NodeID(), "back", nil)
	})
}

// Replay a request of an earlier connection, with other queues and of a weaker
// mode, that is fresh still: calls back go where the peer is and as it is asked
// now.
func TestAttackQueueCallBackDowngrade(t *testing.T) {
	t.Parallel()
	r := newQueueRig(t, inOpen, owtp.NodeConfig{})
	back := r.counts("back")
	r.g = inSigned
	r.reconnect()
	old := r.record(func() { r.mustPay("signed") })
	r.g = inSealed
	r.reconnect()
	r.mustPay("sealed")
	var copies, readable atomic.Int64
	for _, q := range old {
		if !q.Answer {
			r.deliver("owtp.node."+r.bank.NodeID(), q)
			copies.Add(1)
		}
	}
	r.broker.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
		if bytes.Contains(q.Message.Data, []byte(tokenMark)) {
			readable.Add(1)
		}
		return []transporttest.Queued{q}
	})
	answer(t, r.bank.OWTPNode, r.client.NodeID(), "back", payParams("secret"))
	if copies.Load() == 0 || readable.Load() != 0 || back.Load() != 1 {
		t.Errorf("after %d copies the call back was readable %d times and has run %d times", copies.Load(), readable.Load(), back.Load())
	}
	r.bank.ran(t, 2)
}

// Hold back the refusal of a clock that is ahead: what its caller learns from it
// is wrong by as long as it was held, and is unlearned after the next refusal.
func TestAttackQueueDelayedClock(t *testing.T) {
	eachMode(t, []guard{inSigned, inSealed}, func(t *testing.T, g guard) {
		const window = 200 * time.Millisecond
		r := &queueRig{rig: &rig{t: t, m: overMQ, g: g, bank: newBank(t, owtp.NodeConfig{Window: window})}}
		r.addr = r.bank.listen(t, overMQ, g)
		r.broker = house.At(r.addr)
		clock := new(movable)
		r.client = newNodeAt(t, owtp.NodeConfig{Window: window}, clock.now)
		must(t, r.client.Connect("bank", r.bank.at(r.addr, overMQ, g)))
		r.mustPay("warm")
		clock.move(10 * window)
		var held atomic.Int64
		r.onAnswer(func(q transporttest.Queued) []transporttest.Queued {
			if held.Add(1) == 1 {
				time.Sleep(4 * window)
			}
			return []transporttest.Queued{q}
		})
		r.pay("a", 2*window+4*window)
		if held.Load() == 0 {
			t.Error("no refusal was held back")
		}
		eventually(t, "calls work again, however short", func() bool {
			ok, _ := r.pay("short", window/2)
			return ok
		})
	})
}

// Whoever can make keys can be called back; that takes a bounded place, and who
// is pushed out is back with its next call.
func TestAttackQueueCallersAreBounded(t *testing.T) {
	t.Parallel()
	r := newQueueRig(t, inSigned, owtp.NodeConfig{})
	r.counts("back")
	r.bank.ClosePeer(r.client.NodeID())
	r.bank.FillCallers()
	for range 3 {
		n := newNode(t, owtp.NodeConfig{})
		must(t, n.Connect("bank", r.bank.at(r.addr, overMQ, inSigned)))
		r.mustPay("a")
		answer(t, r.bank.OWTPNode, r.client.NodeID(), "back", nil)
		if got := r.bank.Callers(); got != owtp.MaxCallers {
			t.Errorf("%d peers can be called back, want %d", got, owtp.MaxCallers)
		}
	}
}

// The listener is closed and another one takes its place, at the same broker: a
// peer that calls again is called back through the new one.
func TestCallBackAfterListeningAgain(t *testing.T) {
	t.Parallel()
	r := newQueueRig(t, inSealed, owtp.NodeConfig{Store: sharedStore(t)})
	r.counts("back")
	answer(t, r.bank.OWTPNode, r.client.NodeID(), "back", nil)
	r.bank.CloseListener(owtp.MQ)
	must(t, r.bank.Listen(owtp.ConnectConfig{Address: r.addr, ConnectType: owtp.MQ, EnableKeyAgreement: true}))
	r.mustPay("again")
	answer(t, r.bank.OWTPNode, r.client.NodeID(), "back", nil)
}
