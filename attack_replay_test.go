package owtp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// onCall runs hook on each message that belongs to a call: on connections what
// comes after the handshake and its acceptance, on HTTP what is no hello and no
// answer to one.
func (r *rig) onCall(hook func(f transporttest.Flow) []transport.Message) {
	r.proxy.OnMessage(func(f transporttest.Flow) []transport.Message {
		typ := typeOf(f.Message)
		if typ == wire.TypeHello || typ == wire.TypeHelloReply || !r.m.exchanges() && f.N < r.firstCall() {
			return pass(f)
		}
		return hook(f)
	})
}

// firstCall is the number of a connection's first message with a call in it.
func (r *rig) firstCall() int {
	if r.g.open() {
		return 1 // after open
	}
	return 2 // after the hello and the finish, or their answers
}

// recover pays until that works again, after so many runs. A call that fails on
// the way may have run as well, once, and perhaps later.
func (r *rig) recover(token string, ran int64) {
	r.t.Helper()
	tries := int64(0)
	waitFor(r.t, "calls work again", func() bool {
		tries++
		ok, _ := r.pay(token, 3*time.Second)
		return ok
	})
	if n := r.bank.runs.Load(); n < ran+1 || n > ran+tries {
		r.t.Errorf("the handler has run %d times, %d before and then for %d calls", n, ran, tries)
	}
}

// deliver brings messages to a listener as if they came from anybody: all of
// them on one new connection, or each in an exchange of its own.
func deliver(t *testing.T, m medium, addr string, messages []transport.Message) (answers []transport.Message) {
	t.Helper()
	ctx := short(t)
	if m == overMQ {
		return deliverQueued(ctx, t, addr, messages)
	}
	if d, ok := m.tr.(transport.ExchangeDialer); ok {
		x, err := d.DialExchange(ctx, transporttest.Config(addr))
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		for _, msg := range messages {
			msg.Data = bytes.Clone(msg.Data)
			answer, err := x.Exchange(ctx, msg)
			var refusal *transport.Refusal
			if err != nil && !errors.As(err, &refusal) {
				t.Fatalf("not delivered: %v", err)
			}
			answers = append(answers, answer)
		}
		return answers
	}
	c, err := m.tr.(transport.ConnDialer).DialConn(ctx, transporttest.Config(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close("")
	for i, msg := range messages {
		msg.Data = bytes.Clone(msg.Data)
		if err := c.Send(ctx, msg); err != nil {
			if i == 0 {
				t.Fatalf("not delivered: %v", err)
			}
			break // it has closed on us
		}
		rctx, cancel := context.WithTimeout(ctx, time.Second) // who says nothing hangs up
		answer, err := c.Recv(rctx)
		cancel()
		if err != nil {
			break
		}
		answers = append(answers, answer)
	}
	return answers
}

// strayQueue is a reply queue that nobody consumes.
const strayQueue = transport.ReplyQueuePrefix + "nobody"

// deliverQueued is deliver for messages that lay in a queue. Their answers go
// where they say themselves, and are seen on the way.
func deliverQueued(ctx context.Context, t *testing.T, broker string, messages []transport.Message) (answers []transport.Message) {
	t.Helper()
	for _, msg := range messages {
		answer, err := house.At(broker).Deliver(ctx, transporttest.Queued{ReplyTo: strayQueue, Correlation: "a copy", Message: msg})
		if err != nil {
			t.Fatalf("not delivered: %v", err)
		}
		answers = append(answers, answer.Message)
	}
	return answers
}

// toServer is everything that the client has sent.
func (r *rig) toServer() (out []transport.Message) {
	for _, f := range r.sent(transporttest.ToServer) {
		out = append(out, f.Message)
	}
	return out
}

// Drop a request: nothing runs for it. Over HTTP the call is sent again and
// runs once; a connection ends, and the next call works.
func TestAttackDropRequest(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		var dropped atomic.Int64
		r.onCall(func(f transporttest.Flow) []transport.Message {
			if f.Dir == transporttest.ToServer && dropped.Add(1) == 1 {
				return nil
			}
			return pass(f)
		})
		patience := 250 * time.Millisecond
		if m.exchanges() {
			patience = 5 * time.Second // it is sent again
		}
		ok, err := r.pay("lost", patience)
		if dropped.Load() == 0 {
			t.Error("nothing was dropped")
		}
		want := int64(0)
		if ok {
			want = 1
		}
		if ok != m.exchanges() {
			t.Errorf("ok %v, error %v", ok, err)
		}
		r.bank.ran(t, want)
		r.recover("after", want)
		r.bank.onlyAsked(t, r.client.NodeID(), "lost", "after")
	})
}

// Drop answers: one run, whatever the caller does about it and whatever somebody
// does with copies; who hears nothing is told that the handler may have run.
func TestAttackDropAnswer(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		for _, most := range []int64{1, 1000} {
			r := newRig(t, m, g)
			var dropped atomic.Int64
			r.onCall(func(f transporttest.Flow) []transport.Message {
				if f.Dir == transporttest.ToClient && dropped.Load() < most {
					dropped.Add(1)
					return nil
				}
				return pass(f)
			})
			patience := 250 * time.Millisecond
			if m.exchanges() && most == 1 {
				patience = 5 * time.Second // there is an answer to wait for
			}
			ok, err := r.pay("unheard", patience)
			var e *owtp.Error
			if !ok && (!errors.As(err, &e) || !e.MayHaveRun) {
				t.Errorf("the handler has run, but the caller is told: %v (%+v)", err, e)
			}
			if ok != (m.exchanges() && most == 1) {
				t.Errorf("%d answers dropped: ok %v, error %v", dropped.Load(), ok, err)
			}
			if dropped.Load() == 0 {
				t.Error("nothing was dropped")
			}
			r.bank.ran(t, 1)
			deliver(t, m, r.bank.ListenerAddr(m.name), r.toServer())
			settle()
			r.bank.ran(t, 1)
			r.proxy.OnMessage(nil)
			r.recover("after", 1)
		}
	})
}

// Run a handler twice by dropping answers: a caller that tries again and again
// under one call key, over new connections and sessions, runs it once.
func TestAttackRunTwice(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		var dropped atomic.Int64
		r.onCall(func(f transporttest.Flow) []transport.Message {
			if f.Dir == transporttest.ToClient && dropped.Load() < 3 {
				dropped.Add(1)
				return nil
			}
			return pass(f)
		})
		key := []byte("0123456789abcdef")
		for range 6 {
			ok, err := r.payWith("once", &owtp.CallOptions{Timeout: 150 * time.Millisecond, CallKey: key})
			var e *owtp.Error
			if !ok && err != nil && errors.As(err, &e) && !e.MayHaveRun && e.Status != owtp.ErrNetworkDisconnected && r.bank.runs.Load() > 0 {
				t.Errorf("told that nothing has run: %v", err)
			}
		}
		if dropped.Load() < 1 {
			t.Error("nothing was dropped")
		}
		r.bank.ran(t, 1)
		deliver(t, m, r.bank.ListenerAddr(m.name), r.toServer())
		settle()
		r.bank.ran(t, 1)
	})
}

// Duplicate a request: one run, and the caller of HTTP gets the answer, or is
// told that it does not know; that it was refused is not true.
func TestAttackDuplicateRequest(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		for _, pick := range []transporttest.Pick{transporttest.FirstAnswer, transporttest.LastAnswer} {
			r := newRig(t, m, g)
			r.proxy.SetPick(pick)
			var doubled atomic.Int64
			r.onCall(func(f transporttest.Flow) []transport.Message {
				if f.Dir == transporttest.ToServer && doubled.Add(1) == 1 {
					return []transport.Message{f.Message, f.Message}
				}
				return pass(f)
			})
			ok, err := r.pay("twice", 5*time.Second)
			if doubled.Load() == 0 {
				t.Error("nothing was duplicated")
			}
			if n := r.bank.runs.Load(); n > 1 || m.exchanges() && n != 1 {
				t.Errorf("the handler has run %d times", n)
			}
			if m.exchanges() && pick == transporttest.FirstAnswer && !ok {
				t.Errorf("the answer to the first copy was lost: %v", err)
			}
			var e *owtp.Error
			if r.bank.runs.Load() > 0 && !ok && (!errors.As(err, &e) || !e.MayHaveRun) {
				t.Errorf("the handler has run, but the caller is told of a refusal (error %v)", err)
			}
		}
	})
}

// Duplicate an answer: on HTTP nobody gets the second, on connections it ends
// them; no call gets it.
func TestAttackDuplicateAnswer(t *testing.T) {
	each(t, longMedia, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		var doubled atomic.Int64
		r.onCall(func(f transporttest.Flow) []transport.Message {
			if f.Dir == transporttest.ToClient && doubled.Add(1) == 1 {
				return []transport.Message{f.Message, f.Message}
			}
			return pass(f)
		})
		r.pay("a", 3*time.Second) // right or lost; judged there
		if doubled.Load() == 0 {
			t.Error("nothing was duplicated")
		}
		r.recover("b", 1)
		if n := len(r.hellos()); n < 2 {
			t.Errorf("%d handshakes: the connection has survived a repeated record", n)
		}
	})
}

// hellos returns the handshakes that have begun. Where both agree on keys, proof
// hellos are none of these: over a queue a client sends one each other second.
func (r *rig) hellos() (out []transporttest.Flow) {
	r.t.Helper()
	for _, f := range r.sent(transporttest.ToServer) {
		if !isHello(f.Message) {
			continue
		}
		_, body, err := wire.ParseHeader(f.Message.Data)
		if err != nil {
			r.t.Fatal(err)
		}
		h, err := wire.ParseHello(body)
		if err != nil {
			r.t.Fatal(err)
		}
		if !r.g.seal || !h.Proof() {
			out = append(out, f)
		}
	}
	return out
}

// Reorder: two requests or two answers in the wrong order end a connection with
// proof. In open mode each answer still finds its own call.
func TestAttackReorder(t *testing.T) {
	each(t, longMedia, append([]guard{inOpen}, proofModes...), func(t *testing.T, m medium, g guard) {
		for _, dir := range []transporttest.Direction{transporttest.ToServer, transporttest.ToClient} {
			r := newRig(t, m, g)
			held := make(chan transport.Message, 1)
			var state atomic.Int64 // messages seen
			r.onCall(func(f transporttest.Flow) []transport.Message {
				if f.Dir != dir {
					return pass(f)
				}
				switch state.Add(1) {
				case 1:
					held <- f.Message
					return nil
				case 2:
					return []transport.Message{f.Message, <-held}
				}
				return pass(f)
			})
			var wg sync.WaitGroup
			results := make([]bool, 2)
			for i := range results {
				wg.Go(func() { results[i], _ = r.pay(fmt.Sprint(i), 5*time.Second) })
				waitFor(t, "the message has come", func() bool { return state.Load() > int64(i) })
			}
			wg.Wait()
			if state.Load() < 2 {
				t.Error("nothing was reordered")
			}
			if g.open() {
				if !results[0] || !results[1] {
					t.Errorf("%s: open calls failed: %v", dir, results)
				}
				continue
			}
			if results[0] && results[1] {
				t.Errorf("%s: records in the wrong order were accepted", dir)
			}
			r.bank.onlyAsked(t, r.client.NodeID(), "0", "1")
			if n := r.bank.runs.Load(); n > 2 {
				t.Errorf("%d runs of two calls", n)
			}
			r.recover("after", r.bank.runs.Load())
		}
	})
}

// Swap the answers of two calls that run at the same time.
func TestAttackSwapAnswers(t *testing.T) {
	for _, m := range exchangeMedia {
		for _, g := range carrying(append([]guard{inOpen}, proofModes...)) {
			t.Run(m.name+"/"+g.name, func(t *testing.T) {
				t.Parallel()
				var swapping atomic.Bool
				var swapped atomic.Int64
				mine := [2]chan transport.Message{make(chan transport.Message, 1), make(chan transport.Message, 1)}
				var turn atomic.Int64
				r := relayRig(t, m, g, func(ctx context.Context, m transport.Message, pass forward) (transport.Message, error) {
					answer, err := pass(m)
					if err != nil || isHello(m) || !swapping.Load() {
						return answer, err
					}
					i := turn.Add(1) - 1
					if i > 1 {
						return answer, nil // a second attempt
					}
					mine[1-i] <- answer
					select {
					case answer = <-mine[i]:
						swapped.Add(1)
						return answer, nil
					case <-ctx.Done():
						return answer, ctx.Err()
					}
				})
				r.mustPay("warm")
				swapping.Store(true)
				var wg sync.WaitGroup
				var right atomic.Int64
				for i := range 2 {
					wg.Go(func() {
						if ok, _ := r.pay(fmt.Sprint(i), 5*time.Second); ok { // judged there
							right.Add(1)
						}
					})
				}
				wg.Wait()
				if swapped.Load() != 2 {
					t.Errorf("%d answers were swapped, want 2", swapped.Load())
				}
				if right.Load() != 0 && g.open() {
					t.Errorf("%d open calls succeeded, though nobody got its own answer", right.Load())
				}
				r.bank.ran(t, 3) // attempts with proof may follow and find the kept answers
			})
		}
	}
}

// Replay the answer of an earlier call to a later one.
func TestAttackReplayAnswer(t *testing.T) {
	each(t, media, append([]guard{inOpen}, proofModes...), func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		var old transport.Message
		var replayed atomic.Int64
		r.onCall(func(f transporttest.Flow) []transport.Message {
			if f.Dir != transporttest.ToClient {
				return pass(f)
			}
			if old.Data == nil {
				old = f.Message
				old.Data = bytes.Clone(old.Data)
				return pass(f)
			}
			if replayed.Add(1) == 1 {
				return []transport.Message{{Form: old.Form, Data: bytes.Clone(old.Data)}}
			}
			return pass(f)
		})
		r.mustPay("first")
		ok, err := r.pay("second", time.Second)
		if ok && replayed.Load() == 1 {
			t.Error("a call was answered with the answer of an earlier one")
		}
		if !ok && err == nil {
			t.Error("the replay was taken for a refusal of the peer")
		}
		if replayed.Load() == 0 {
			t.Error("nothing was replayed")
		}
		if n := r.bank.runs.Load(); n != 2 {
			t.Errorf("%d runs of two calls", n)
		}
	})
}

// Reflect messages to their sender: it never takes its own words for its
// peer's, as a handshake, as an answer or as a request.
func TestAttackReflect(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		var own atomic.Int64
		if err := r.client.HandleFunc("pay", func(c *owtp.Context) { own.Add(1) }); err != nil {
			t.Fatal(err)
		}
		var reflected atomic.Int64
		if m.exchanges() {
			last := transport.Message{}
			r.proxy.OnMessage(func(f transporttest.Flow) []transport.Message {
				if f.Dir == transporttest.ToServer {
					last = transport.Message{Form: f.Message.Form, Data: bytes.Clone(f.Message.Data)}
					return pass(f)
				}
				reflected.Add(1)
				return []transport.Message{last}
			})
		} else {
			r.proxy.OnMessage(func(f transporttest.Flow) []transport.Message {
				reflected.Add(1)
				if err := r.proxy.Inject(f.Conn, 1-f.Dir, transport.Message{Form: f.Message.Form, Data: bytes.Clone(f.Message.Data)}); err != nil {
					reflected.Add(-1)
				}
				return nil
			})
		}
		// A call on what is agreed already, and a whole new conversation.
		if ok, err := r.pay("a", 250*time.Millisecond); ok || err == nil {
			t.Errorf("a reflected request was taken for an answer: %v", err)
		}
		r.client.ClosePeer("bank")
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := r.client.ConnectContext(ctx, "bank", r.connectConfig()); err == nil {
			t.Error("a reflected hello was taken for an answer")
		}
		if reflected.Load() < 2 {
			t.Errorf("%d messages were reflected", reflected.Load())
		}
		if own.Load() != 0 {
			t.Error("the client has run its own handler for its own request")
		}
		r.proxy.OnMessage(nil)
		if err := r.connect(); err != nil {
			t.Fatal(err)
		}
		r.recover("after", r.bank.runs.Load())
		r.bank.onlyAsked(t, r.client.NodeID(), "a", "after")
	})
}

// Replay requests to the same node: within their connection, on a new one, and
// a hundred times.
func TestAttackReplaySameNode(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		r.mustPay("a")
		all := r.toServer()
		for range 5 {
			deliver(t, m, r.bank.ListenerAddr(m.name), all)
		}
		settle()
		r.bank.ran(t, 1)
		if m.exchanges() {
			r.mustPay("b")
			r.bank.ran(t, 2)
			return
		}
		conns := r.proxy.Conns()
		if len(conns) != 1 {
			t.Fatalf("%d connections", len(conns))
		}
		last := r.requests()
		if err := r.proxy.Inject(conns[0], transporttest.ToServer, last[len(last)-1]); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the connection ends", func() bool {
			now := r.proxy.Conns()
			return len(now) != 1 || now[0] != conns[0]
		})
		r.bank.ran(t, 1)
		r.recover("b", 1)
	})
}

// Replay a one-way message, which has no answer that anybody could miss.
func TestAttackReplayOneWay(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		var ran atomic.Int64
		if err := r.bank.HandleFunc("note", func(*owtp.Context) { ran.Add(1) }); err != nil {
			t.Fatal(err)
		}
		if err := r.client.Notify(short(t), "bank", "note", payParams("a")); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the note has come", func() bool { return ran.Load() == 1 })
		for range 3 {
			deliver(t, m, r.bank.ListenerAddr(m.name), r.toServer())
		}
		settle()
		if n := ran.Load(); n != 1 {
			t.Errorf("the handler has run %d times", n)
		}
	})
}

// withhold makes a call whose request never arrives, and returns it: fresh, and
// good for its own place only.
func (r *rig) withhold(token string) transport.Message {
	r.t.Helper()
	got := make(chan transport.Message, 1)
	r.onCall(func(f transporttest.Flow) []transport.Message {
		if f.Dir == transporttest.ToClient {
			return pass(f)
		}
		select {
		case got <- transport.Message{Form: f.Message.Form, Data: bytes.Clone(f.Message.Data)}:
		default: // further attempts arrive nowhere either
		}
		return nil
	})
	defer r.proxy.OnMessage(nil)
	timeout := patience // an exchange that is dropped is refused, so the call ends by itself
	if !r.m.exchanges() {
		timeout = 100 * time.Millisecond
	}
	for ; ; timeout *= 2 {
		if ok, _ := r.pay(token, timeout); ok {
			r.t.Fatal("the call went through")
		}
		select {
		case m := <-got:
			return m
		default:
			if timeout > patience {
				r.t.Fatal("no request has come")
			}
		}
	}
}

// Replay to another node, to a node of the same key with a store of its own, and
// after a restart. On HTTP the request was never used before, and at last it
// works in its own place: it is the place that is wrong, and nothing else.
func TestAttackReplayElsewhere(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		r.mustPay("a")
		var fresh []transport.Message
		if m.exchanges() {
			fresh = append(fresh, r.withhold("fresh"))
		}
		all := append(fresh, r.toServer()...)
		for name, cfg := range map[string]owtp.NodeConfig{
			"another node":                     {},
			"the same key, a store of its own": {Cert: r.bank.Certificate()},
			"the same key and store key":       {Cert: r.bank.Certificate(), StoreKey: bytes.Repeat([]byte{7}, 32)},
		} {
			other := newBank(t, cfg)
			addr := other.listen(t, m, g)
			deliver(t, m, addr, all)
			settle()
			if n := other.runs.Load(); n != 0 {
				t.Errorf("%s has run the handler %d times", name, n)
			}
		}
		if m.exchanges() {
			deliver(t, m, r.bank.ListenerAddr(m.name), fresh)
			r.bank.ran(t, 2)
			fresh = append(fresh, r.withhold("fresh2"))
			all = append(all, fresh[1])
		}
		before := r.bank.runs.Load()
		if err := r.bank.Close(); err != nil {
			t.Fatal(err)
		}
		r.bank.ran(t, before)
		again := newBank(t, owtp.NodeConfig{Cert: r.bank.Certificate()})
		addr := again.listen(t, m, g)
		deliver(t, m, addr, all)
		settle()
		again.ran(t, 0)
		// The honest caller goes on, and its call runs once.
		r.bank = again
		r.proxy.SetTarget(transporttest.Config(addr))
		r.recover("after", 0)
		again.onlyAsked(t, r.client.NodeID(), "after")
	})
}

// Replay on another transport of the same node.
func TestAttackReplayOtherTransport(t *testing.T) {
	for _, g := range carrying(proofModes) {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			b := newBank(t, owtp.NodeConfig{})
			rigs := make([]*rig, len(media))
			for i, m := range media {
				addr := b.listen(t, m, g)
				r := &rig{t: t, m: m, g: g, bank: b, client: newNode(t, owtp.NodeConfig{})}
				r.proxy = transporttest.NewProxy(t, m.tr, transporttest.Config(m.listenAddr()), transporttest.Config(addr))
				if err := r.connect(); err != nil {
					t.Fatal(err)
				}
				r.mustPay("a")
				rigs[i] = r
			}
			before := b.runs.Load()
			for _, from := range rigs {
				all := from.toServer()
				if from.m.exchanges() {
					all = append([]transport.Message{from.withhold("fresh")}, all...)
				}
				for _, to := range rigs {
					if from == to {
						continue
					}
					// The other kind may want to see an open first.
					deliver(t, to.m, b.ListenerAddr(to.m.name), all)
					deliver(t, to.m, b.ListenerAddr(to.m.name), append([]transport.Message{packetAs(all[0].Form, &wire.Packet{Kind: wire.Open})}, all...))
				}
				settle()
				b.ran(t, before)
				if from.m.exchanges() {
					deliver(t, from.m, b.ListenerAddr(from.m.name), all[:1])
					before++
					b.ran(t, before)
				}
			}
		})
	}
}

// Replay of signed packets that their receiver kept as evidence: inside the
// seal nobody else sees them, but a receiver may turn hostile.
func TestAttackReplayEvidence(t *testing.T) {
	modes := []guard{inSigned, inBoth}
	each(t, media, modes, func(t *testing.T, m medium, g guard) {
		kept := make(chan []byte, 1)
		r := bareRig(t, m, g)
		if err := r.bank.HandleFunc("keep evidence", func(c *owtp.Context) { kept <- c.Evidence() }); err != nil {
			t.Fatal(err)
		}
		if err := r.connect(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.client.CallSync("bank", "keep evidence", nil); err != nil {
			t.Fatal(err)
		}
		saved := <-kept
		if _, err := owtp.VerifyEvidence(saved); err != nil {
			t.Fatalf("the evidence is not even good: %v", err)
		}
		_, body, _ := wire.ParseHeader(saved)
		packets, err := wire.ParseRecord(body)
		if err != nil {
			t.Fatal(err)
		}
		var ran atomic.Int64
		victims := []*owtp.OWTPNode{r.bank.OWTPNode, newNode(t, owtp.NodeConfig{})}
		if err := victims[1].HandleFunc("keep evidence", func(*owtp.Context) { ran.Add(1) }); err != nil {
			t.Fatal(err)
		}
		for _, v := range victims {
			for _, over := range media {
				if !v.Listening(over.name) {
					if err := v.Listen(owtp.ConnectConfig{Address: over.listenAddr(), ConnectType: over.name, EnableSignature: true}); err != nil {
						t.Fatal(err)
					}
				}
				for _, form := range []transport.Form{transport.Binary, transport.JSON} {
					deliver(t, over, v.ListenerAddr(over.name), []transport.Message{packetAs(form, packets[0])})
					deliver(t, over, v.ListenerAddr(over.name), []transport.Message{packetAs(form, &wire.Packet{Kind: wire.Open}), packetAs(form, packets[0])})
				}
				// Inside the sealed connection of somebody else.
				mallory := newRaw(t, over, v.ListenerAddr(over.name), wire.ModeSealedSigned)
				mallory.send(packets[0])
			}
		}
		settle()
		if n := len(kept) + int(ran.Load()); n != 0 {
			t.Errorf("saved packets were run again %d times", n)
		}
	})
}

// Splice two sessions: what belongs to one means nothing in the other, be it of
// another peer or of the same.
func TestAttackSplice(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		if m.exchanges() && !g.seal {
			t.Skip("signed exchanges have no sessions")
		}
		for _, same := range []bool{false, true} {
			a := newRig(t, m, g)
			a.mustPay("warm")
			cfg := owtp.NodeConfig{}
			if same {
				cfg.Cert = a.client.Certificate()
			}
			b := &rig{t: t, m: m, g: g, bank: a.bank, client: newNode(t, cfg)}
			b.proxy = transporttest.NewProxy(t, m.tr, transporttest.Config(m.listenAddr()), transporttest.Config(a.bank.ListenerAddr(m.name)))
			if err := b.connect(); err != nil {
				t.Fatal(err)
			}
			b.mustPay("warm")
			fresh := a.withhold("fresh")
			if !m.exchanges() {
				conns := b.proxy.Conns()
				if err := b.proxy.Inject(conns[0], transporttest.ToServer, fresh); err != nil {
					t.Fatal(err)
				}
				waitFor(t, "the connection ends", func() bool {
					now := b.proxy.Conns()
					return len(now) != 1 || now[0] != conns[0]
				})
				a.bank.ran(t, 2)
				continue
			}
			other := b.requests()
			spliced := transport.Message{Form: fresh.Form, Data: bytes.Clone(fresh.Data)}
			copy(spliced.Data[wire.HeaderSize:], other[len(other)-1].Data[wire.HeaderSize:wire.HeaderSize+wire.SessionIDSize])
			if bytes.Equal(spliced.Data, fresh.Data) {
				t.Fatal("both have the same session")
			}
			deliver(t, m, a.bank.ListenerAddr(m.name), []transport.Message{spliced})
			a.bank.ran(t, 2)
			deliver(t, m, a.bank.ListenerAddr(m.name), []transport.Message{fresh})
			a.bank.ran(t, 3) // it was good in its own session
		}
	})
}
