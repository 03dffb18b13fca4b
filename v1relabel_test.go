package owtp

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/legacy"
)

// What is sealed says nothing of the method: who is on the way can put one answer
// of a peer's in the place of another that has the same number.

// The answer to an agreement is a success of which anybody can choose the number.
// A node of ours gives one to each key that begins, so that none is left for a
// call.
func TestV1AttackAgreementAsAnswer(t *testing.T) {
	eachV1Way(t, ConnectConfig{}, func(t *testing.T, w *v1Way) {
		for _, signs := range []bool{false, true} {
			c := newV1Stranger(t)
			c.signs = signs
			begin := c.begin()
			again := *begin
			again.Signature = ""
			if signs {
				if err := legacy.Sign(rand.Reader, c.key, begin); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // a broker may bring it twice
				if r := w.send(c, begin); r.Status != 200 {
					t.Fatalf("%+v", r)
				}
			}
			call := c.request("echo", "1") // which is kept back
			again.Nonce = call.Nonce
			for what, set := range map[string]func(k *legacy.Keys){
				"as it is": func(*legacy.Keys) {}, "with a check value of nobody": func(k *legacy.Keys) { k.InitiatorCheck = k.Initiator[:44] },
				"with another label": func(k *legacy.Keys) { k.Type = "x" }, "as a call back": func(k *legacy.Keys) { k.CallbackCheck = c.session.RequestKeys().InitiatorCheck },
			} {
				p := again
				set(&p.Keys)
				w.refused("the agreement under the number of a call, "+what, w.send(c, &p), 502)
			}
			if r := w.send(c, call); r.Status != 200 || string(r.Result) != "1" {
				t.Errorf("the call: %+v", r)
			}
			w.taken()
		}
		// Whoever fills the memory of a connection fills his own.
		c := newV1Stranger(t)
		if w.kind != Websocket {
			return
		}
		conn, refused := w.conn(c.announce()), 0
		for range maxV1BegunConn + 8 {
			w.node.gate.mu.Lock()
			clear(w.node.gate.due)
			w.node.gate.mu.Unlock()
			if r := c.opened(conn.ask(c.begin())); r.Status == 502 {
				refused++
			}
		}
		if refused != 8 {
			t.Errorf("%d agreements on one connection are refused", refused)
		}
		w.well(newV1Stranger(t))
	})
	t.Run("memory", func(t *testing.T) {
		v := &v1Sessions{life: time.Hour}
		p := &legacy.Packet{Version: 1}
		for i := range maxV1Begun + 100 {
			p.Nonce, p.Keys.Initiator = uint64(i), fmt.Sprint(i)
			if !v.first(p) {
				t.Fatal(i)
			}
		}
		if len(v.asked) > maxV1Begun {
			t.Errorf("%d keys are remembered", len(v.asked))
		}
	})
}

// between is somebody between a caller of ours and a host, who makes one request
// of another, and gives the answer to that as the answer to the first.
func (h *v1Host) between(t testing.TB, mode ConnectConfig, change func(q *legacy.Packet)) (*Response, error) {
	t.Helper()
	middle := newV1Peer(t, nil)
	middle.answers(func(q *legacy.Packet) string {
		if q.Method == legacy.MethodAgree {
			return h.post(v1Text(t, q), q.Keys.Initiator)
		}
		p := *q
		change(&p)
		answer := packetOf(t, h.post(v1Text(t, &p), p.Keys.Initiator))
		answer.Method, answer.Nonce = q.Method, q.Nonce
		return v1Text(t, answer)
	})
	n := newV1Caller(t, v1Now)
	if err := n.Connect(h.node.NodeID(), mode.at(middle.addr, HTTP)); err != nil {
		t.Fatal(err)
	}
	resp, err := n.CallSync(h.node.NodeID(), "echo", map[string]int{"x": 1})
	if err == nil && resp.OK() {
		return resp, nil
	}
	if err == nil {
		err = resp.Err()
	}
	return nil, err
}

// An answer of a host of ours to something else, and whether the caller takes it.
// Where the host asks for signatures, and the caller signs, it takes none.
func TestV1CallOpenAnotherAnswer(t *testing.T) {
	t.Parallel()
	changes := map[string]func(q *legacy.Packet){
		"another method": func(q *legacy.Packet) { q.Method, q.Signature = "getInfo", "" },
		"an agreement": func(q *legacy.Packet) {
			q.Method, q.Data, q.Signature = legacy.MethodAgree, []byte("null"), ""
			q.Keys = legacy.Keys{Initiator: q.Keys.Initiator, InitiatorEphemeral: q.Keys.InitiatorEphemeral}
		},
		"without parameters": func(q *legacy.Packet) { q.Data, q.Signature = []byte(`""`), "" },
		"another number":     func(q *legacy.Packet) { q.Nonce++ },
	}
	for what, change := range changes {
		for _, signs := range []bool{false, true} {
			for _, asked := range []bool{false, true} {
				if asked && !signs {
					continue
				}
				h := newV1Host(t, ConnectConfig{EnableSignature: asked, EnableKeyAgreement: true})
				resp, err := h.between(t, ConnectConfig{EnableKeyAgreement: true, EnableSignature: signs}, change)
				open := what == "another method" && !asked
				if open != (err == nil) || open && (resp.JsonData().Get("symbols.0.coin").String() != "btc" || !resp.proved) {
					t.Errorf("%s, signed %v, asked for %v: %+v %v", what, signs, asked, resp, err)
				}
			}
		}
	}
	// Version 1's own nodes answer an agreement as often as they are asked, and
	// run a method without parameters for who has seen the check value.
	peer := newV1Peer(t, nil)
	peer.answers(func(q *legacy.Packet) string {
		resp, _ := peer.sealing(q, bytes.NewReader(peer.key.Bytes()), `{"status":200,"msg":"success","result":null}`)
		return v1Text(t, resp)
	})
	n, err := peer.calledAt(peer.id(), v1Modes["agreed and signed"])
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := n.CallSync(peer.id(), "pay", map[string]int{"x": 1}); err != nil || !resp.OK() || !resp.proved {
		t.Errorf("an agreement's answer as a call's: %+v %v", resp, err)
	}
}

// Both options for peers that can do little, together: a bare text is taken, and
// nobody is taken for proved by one, since junk may be one.
func TestV1AttackBareTextTrusted(t *testing.T) {
	eachV1Way(t, ConnectConfig{InsecureV1BareText: true, InsecureV1TrustAgreement: true}, func(t *testing.T, w *v1Way) {
		c := newV1Stranger(t)
		w.agree(c)
		for data, trusted := range map[string]bool{`{"x":1}`: true, `"a word"`: false, "12": true, `"12"`: true} {
			if r := w.call(c, "echo", data); r.Status != 200 {
				t.Errorf("%s: %+v", data, r)
			}
			if seen := w.taken(); len(seen) != 1 || seen[0].proved != trusted || trusted != (seen[0].pid == c.id()) || !seen[0].sealed {
				t.Errorf("%s: %+v", data, seen)
			}
		}
		c.signs = true
		if r := w.call(c, "echo", `"a word"`); r.Status != 200 || string(r.Result) != `"a word"` {
			t.Errorf("signed: %+v", r)
		}
		if seen := w.taken(); len(seen) != 1 || seen[0].pid != c.id() {
			t.Errorf("signed: %+v", seen)
		}
	})
	t.Run("allowed peers", func(t *testing.T) {
		c := newV1Stranger(t)
		h := newV1Host(t, ConnectConfig{InsecureV1BareText: true, InsecureV1TrustAgreement: true, AllowV1Peers: []string{c.key.ID().String()}})
		c.agree(h)
		h.refused("a bare text", c.call(h, "echo", `"a word"`), 401)
		if r := c.call(h, "echo", "[1]"); r.Status != 200 || len(h.taken()) != 1 {
			t.Errorf("JSON: %+v", r)
		}
	})
	t.Run("called back", func(t *testing.T) {
		mode := v1Modes["agreed"]
		mode.InsecureV1TrustAgreement, mode.InsecureV1BareText = true, true
		s := newV1Stand(t, "", mode)
		s.serves("JSON", s.asks("1", false), v1Seen{pid: "v1:" + s.peer.id(), data: "1", proved: true, sealed: true})
		// The handler of this stand repeats what it gets.
		s.serves("a bare text", s.asks(`"a word"`, false), v1Seen{data: `"a word"`, sealed: true})
	})
}

// 18, 4: who answers slowly, or never, holds up no other call of this node, of the
// same peer or of others; each ends when its own time is over, and callbacks may
// call meanwhile.
func TestV1CallAttackSlowPeer(t *testing.T) {
	for _, kind := range []string{HTTP, Websocket, MQ} {
		for name, mode := range v1Modes {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				oneV1Way(t, kind, ConnectConfig{}, func(t *testing.T, w *v1Way) {
					began, wake := make(chan struct{}, 8), make(chan struct{})
					if err := w.node.HandleFunc("slow", func(*Context) { began <- struct{}{}; <-wake }); err != nil {
						t.Fatal(err)
					}
					defer close(wake)
					n := newV1Caller(t, v1Now)
					id := w.node.NodeID()
					if err := n.Connect(id, w.callerOf(mode)); err != nil {
						t.Fatal(err)
					}
					other := newV1Host(t, ConnectConfig{})
					if err := n.Connect("other", mode.at(other.addr, HTTP)); err != nil {
						t.Fatal(err)
					}
					const patience = 5 * time.Second
					ended := make(chan time.Duration, 4)
					for range 4 {
						go func() {
							start := time.Now()
							_, err := n.CallContext(t.Context(), id, "slow", 1, &CallOptions{Timeout: patience})
							if StatusOf(err) != ErrRequestTimeout {
								t.Errorf("a slow call: %v", err)
							}
							ended <- time.Since(start)
						}()
						v1Next(t, "a slow handler", began)
					}
					done := make(chan string, 1)
					err := n.Call(id, "echo", json.RawMessage(`{"a":1}`), false, func(resp Response) {
						if !resp.OK() {
							t.Errorf("beside slow ones: %+v", resp)
						}
						inner, err := n.CallSync("other", "echo", "2") // from within a callback
						if err != nil || !inner.OK() && !strings.Contains(inner.Msg, "Decrypt") {
							t.Errorf("another peer: %+v %v", inner, err)
						}
						done <- string(resp.Result.(json.RawMessage))
					})
					if err != nil {
						t.Fatal(err)
					}
					if got := v1Next(t, "the callback", done); got != `{"a":1}` {
						t.Errorf("answered %s", got)
					}
					if len(ended) != 0 {
						t.Error("a call beside slow ones has waited for them")
					}
					for range 4 {
						if d := v1Next(t, "a slow call's end", ended); d < patience || d > 3*patience {
							t.Errorf("a call of %v ended after %v", patience, d)
						}
					}
				})
			})
		}
	}
}
