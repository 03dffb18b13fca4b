package owtp_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// A place is one message of a fresh conversation: the nth in its direction.
type place struct {
	dir transporttest.Direction
	n   int
}

// conversation connects anew and calls once, while hook sees the messages of
// each connection, numbered from its hello on. A connection of the conversation
// before may still try to come back; hooks treat it like the new one.
func (r *rig) conversation(token string, hook func(p place, m transport.Message) []transport.Message) (bool, error) {
	r.t.Helper()
	r.client.ClosePeer("bank")
	var counts [2]int
	begun := false
	r.proxy.OnMessage(func(f transporttest.Flow) []transport.Message {
		if !begun && isHello(f.Message) {
			begun = true
		}
		switch {
		case !r.m.exchanges():
			return hook(place{f.Dir, f.N}, f.Message)
		case !begun:
			return pass(f)
		}
		p := place{f.Dir, counts[f.Dir]}
		counts[f.Dir]++
		return hook(p, f.Message)
	})
	defer r.proxy.OnMessage(nil)
	if err := r.connect(); err != nil {
		return judge(r.t, token, nil, err), err
	}
	return r.pay(token, 5*time.Second)
}

// spread returns positions over a whole message: the first head octets, the last
// ones, where tags and MACs stand, and every step-th between.
func spread(size, head, step int) []int {
	var out []int
	for i := range size {
		if i < head || i >= size-33 || i%step == 0 {
			out = append(out, i)
		}
	}
	return out
}

// Change: whichever octet of whichever message is changed, the call fails or
// recovers; it never gets a wrong answer, and no handler sees changed input.
func TestAttackChangeEveryByte(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		sizes := make(map[place]int)
		if ok, err := r.conversation("size", func(p place, m transport.Message) []transport.Message {
			sizes[p] = len(m.Data)
			return []transport.Message{m}
		}); !ok {
			t.Fatal(err)
		}
		if want := 4; len(sizes) < want {
			t.Fatalf("%d messages in a conversation, want at least %d", len(sizes), want)
		}
		step := 97
		if testing.Short() {
			step = 401
		}
		tokens := []string{"size"}
		failed, recovered := 0, 0
		for at, size := range sizes {
			if !m.exchanges() && at.n > 2 {
				continue // going away; the call is over
			}
			head := 12
			if m.exchanges() && g.seal && at.n > 0 {
				head = wire.HeaderSize + wire.SessionIDSize + 24 // and the random octets
			}
			for k, i := range spread(size, head, step) {
				if g.format != "" && k%4 != 0 {
					continue // seals and signatures are over octets, whatever they mean
				}
				token := fmt.Sprintf("%s-%d-%d", at.dir, at.n, i)
				tokens = append(tokens, token)
				var changed atomic.Bool
				before := r.bank.runs.Load()
				ok, err := r.conversation(token, func(p place, m transport.Message) []transport.Message {
					if p == at && i < len(m.Data) {
						changed.Store(true)
						m.Data[i] ^= 1 << (i % 8)
					}
					return []transport.Message{m}
				})
				if !changed.Load() && i < size-4 { // sizes differ a little from call to call
					t.Fatalf("octet %d of message %d %s was never changed: %v", i, at.n, at.dir, err)
				}
				switch ran := r.bank.runs.Load() - before; {
				case ran > 1:
					t.Fatalf("%s: the handler has run %d times", token, ran)
				case ok && ran != 1:
					t.Fatalf("%s: an answer, though the handler has not run", token)
				case ok:
					recovered++
				default:
					failed++
				}
			}
		}
		r.bank.onlyAsked(t, r.client.NodeID(), tokens...)
		if failed == 0 {
			t.Error("no change had any effect: the test changes nothing that counts")
		}
		t.Logf("%d changes: %d calls failed, %d recovered", failed+recovered, failed, recovered)
		// And afterwards everything works as before.
		r.client.ClosePeer("bank")
		if err := r.connect(); err != nil {
			t.Fatal(err)
		}
		r.mustPay("after")
	})
}

// Downgrade: whoever strips, adds or swaps suites, changes the mode or the
// version, or turns a handshake into an open connection, ends it.
func TestAttackDowngrade(t *testing.T) {
	editHello := func(edit func(h *wire.Hello)) func(place, transport.Message) (transport.Message, bool) {
		return func(_ place, m transport.Message) (transport.Message, bool) {
			if !isHello(m) {
				return m, false
			}
			_, body, _ := wire.ParseHeader(m.Data)
			h, err := wire.ParseHello(body)
			if err != nil {
				return m, false
			}
			edit(h)
			m.Data = h.Append(wire.AppendHeader(nil, wire.TypeHello))
			return m, true
		}
	}
	editReply := func(edit func(h *wire.HelloReply)) func(place, transport.Message) (transport.Message, bool) {
		return func(_ place, m transport.Message) (transport.Message, bool) {
			if typeOf(m) != wire.TypeHelloReply {
				return m, false
			}
			_, body, _ := wire.ParseHeader(m.Data)
			h, err := wire.ParseHelloReply(body)
			if err != nil {
				return m, false
			}
			edit(h)
			m.Data = h.Append(wire.AppendHeader(nil, wire.TypeHelloReply))
			return m, true
		}
	}
	first := func(want place, data func(m transport.Message) transport.Message) func(place, transport.Message) (transport.Message, bool) {
		return func(p place, m transport.Message) (transport.Message, bool) {
			if p != want {
				return m, false
			}
			return data(m), true
		}
	}
	const aes, sm4 = "SM2-MLKEM768-AES256GCM", "SM2-SM4GCM"
	attacks := []struct {
		name  string
		apply func(place, transport.Message) (transport.Message, bool)
		seal  bool // only where the medium agrees on keys in the handshake
		long  bool
	}{
		{"strip the hybrid suite", editHello(func(h *wire.Hello) { h.Suites = []string{sm4} }), true, false},
		{"strip the hybrid suite and its key", editHello(func(h *wire.Hello) { h.Suites, h.KEM = []string{sm4}, nil }), true, false},
		{"reverse the suites", editHello(func(h *wire.Hello) { h.Suites = []string{sm4, aes} }), true, false},
		{"offer an unknown suite first", editHello(func(h *wire.Hello) { h.Suites = append([]string{"NULL"}, h.Suites...) }), true, false},
		{"make a proof hello of it", editHello(func(h *wire.Hello) { h.Suites, h.KEM, h.Ephemeral = nil, nil, nil }), true, false},
		{"name another suite in the answer", editReply(func(h *wire.HelloReply) { h.Suite = sm4 }), true, false},
		{"name another suite and drop the ciphertext", editReply(func(h *wire.HelloReply) { h.Suite, h.KEM = sm4, nil }), true, false},
		{"name no suite in the answer", editReply(func(h *wire.HelloReply) {
			h.Suite, h.KEM, h.Ephemeral, h.MAC, h.Session, h.Lifetime = "", nil, nil, nil, nil, 0
		}), true, false},
		{"another epoch in the answer", editReply(func(h *wire.HelloReply) { h.Epoch[3] ^= 1 }), false, false},
		{"another clock in the answer", editReply(func(h *wire.HelloReply) { h.Time += 3600_000 }), false, false},
		{"change the mode to signed", editHello(func(h *wire.Hello) {
			if h.Mode = wire.ModeSigned + wire.ModeSealedSigned - h.Mode; h.Mode == wire.ModeSealed {
				h.Mode = wire.ModeSealedSigned
			}
		}), true, false},
		{"another transport in the hello", editHello(func(h *wire.Hello) { h.Transport = h.Transport%4 + 1 }), false, false},
		{"no recipient in the hello", editHello(func(h *wire.Hello) { h.Recipient = wire.ID{} }), false, false},
		{"version 1", first(place{transporttest.ToServer, 0}, func(m transport.Message) transport.Message { m.Data[0] = 1; return m }), false, false},
		{"version 1 in the hello", first(place{transporttest.ToServer, 0}, func(m transport.Message) transport.Message { m.Data[3] = 1; return m }), false, false},
		{"version 3", first(place{transporttest.ToClient, 0}, func(m transport.Message) transport.Message { m.Data[0] = 3; return m }), false, false},
		{"open instead of the hello", first(place{transporttest.ToServer, 0}, func(transport.Message) transport.Message {
			return packetAs(transport.Binary, &wire.Packet{Kind: wire.Open})
		}), false, false},
		{"open instead of the answer", first(place{transporttest.ToClient, 0}, func(transport.Message) transport.Message {
			return packetAs(transport.Binary, &wire.Packet{Kind: wire.Open})
		}), false, false},
		{"JSON open instead of the answer", first(place{transporttest.ToClient, 0}, func(transport.Message) transport.Message {
			return packetAs(transport.JSON, &wire.Packet{Kind: wire.Open})
		}), false, false},
		{"success instead of the answer", first(place{transporttest.ToClient, 0}, func(transport.Message) transport.Message {
			return packetAs(transport.JSON, &wire.Packet{Kind: wire.Response, Status: 200, Data: []byte("{}")})
		}), false, false},
		{"open pong instead of the acceptance", first(place{transporttest.ToClient, 1}, func(transport.Message) transport.Message {
			return packetAs(transport.Binary, &wire.Packet{Kind: wire.Heartbeat, Nonce: wire.Nonce{1}, Reason: wire.ReasonPong})
		}), false, true},
	}
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g) // the alias is bound: a recipient stands in each hello
		for i, a := range attacks {
			if a.long && m.exchanges() || a.seal && m.exchanges() && !g.seal {
				continue
			}
			var done atomic.Int64
			token := fmt.Sprint("downgrade-", i)
			ok, err := r.conversation(token, func(p place, m transport.Message) []transport.Message {
				m, hit := a.apply(p, m)
				if hit {
					done.Add(1)
				}
				return []transport.Message{m}
			})
			if ok || err == nil {
				t.Errorf("%s: the call went through", a.name)
			}
			if done.Load() == 0 {
				t.Errorf("%s: never delivered", a.name)
			}
		}
		r.bank.ran(t, 0)
		if err := r.connect(); err != nil {
			t.Fatal(err)
		}
		r.mustPay("after")
	})
}

// Downgrade of an answer: a success that is weaker than the request is not an
// answer, whatever it says.
func TestAttackDowngradeAnswer(t *testing.T) {
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		for _, form := range []transport.Form{transport.JSON, transport.Binary} {
			for _, status := range []uint64{0, 200, 600} {
				t.Run(fmt.Sprint("form ", form, "/status ", status), func(t *testing.T) {
					t.Parallel()
					var forged atomic.Int64
					r := relayRig(t, m, g, func(_ context.Context, m transport.Message, pass forward) (transport.Message, error) {
						if isHello(m) {
							return pass(m)
						}
						forged.Add(1)
						p := &wire.Packet{Kind: wire.Response, Status: status, Method: "pay", Msg: "paid", Data: []byte(`{"receipt":"forged"}`)}
						if req := unsealed(m); req != nil {
							p.Nonce = req.Nonce
						}
						return packetAs(form, p), nil
					})
					if ok, err := r.pay("a", 5*time.Second); ok || err == nil {
						t.Errorf("an open answer with status %d was believed: %v", status, err)
					}
					if forged.Load() == 0 {
						t.Error("nothing was forged")
					}
					r.bank.ran(t, 0)
				})
			}
		}
	})
}
