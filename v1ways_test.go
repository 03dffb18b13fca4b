package owtp

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/servers"
)

// What the nodes of version 1 have wrong (V1-WIRE §9), tried over every way by
// which they come in. v1attack_test.go goes deeper over HTTP, v1ws_test.go and
// v1mq_test.go into what exists there alone. The numbers are that list's.

// A v1Way is a host and one of the ways to it.
type v1Way struct {
	*v1Host
	kind   string
	broker *servers.Server // MQ
	queue  *v1Queue
	conns  map[string]*v1Conn // by what they announce
}

func eachV1Way(t *testing.T, cfg ConnectConfig, test func(t *testing.T, w *v1Way), change ...func(*NodeConfig)) {
	t.Parallel()
	for _, kind := range []string{HTTP, Websocket, MQ} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			oneV1Way(t, kind, cfg, test, change...)
		})
	}
}

// oneV1Way is eachV1Way for one of them.
func oneV1Way(t *testing.T, kind string, cfg ConnectConfig, test func(t *testing.T, w *v1Way), change ...func(*NodeConfig)) {
	t.Helper()
	w := &v1Way{kind: kind, conns: make(map[string]*v1Conn)}
	cfg.ConnectType = kind
	if kind == MQ {
		w.broker = servers.RabbitMQ(t)
		w.queue = newV1Queue(t, w.broker, true)
		cfg.Address = w.broker.DSN
		w.v1Host = newV1QueueHost(t, w.queue, cfg, change...)
	} else {
		w.v1Host = newV1Host(t, cfg, change...)
	}
	w.t = t
	test(t, w)
}

// ask sends a packet as a peer would who announces a key, where that is done.
func (w *v1Way) ask(announce, body string) string {
	w.t.Helper()
	switch w.kind {
	case MQ:
		return w.queue.ask(body)
	case HTTP:
		return w.post(body, announce)
	}
	conn := w.conn(announce)
	conn.send(body)
	return conn.next()
}

func (w *v1Way) conn(announce string) *v1Conn {
	w.t.Helper()
	if w.conns[announce] == nil {
		w.conns[announce] = w.dial(announce)
	}
	return w.conns[announce]
}

// tell sends what nobody answers. Whether that is so shows with the next ask.
func (w *v1Way) tell(announce, body string) {
	w.t.Helper()
	switch w.kind {
	case MQ:
		w.queue.send(body)
	case HTTP:
		if got := w.post(body, announce); got != "" {
			w.t.Errorf("%.60q is answered: %.200s", body, got)
		}
	default:
		if err := w.conn(announce).ws.Write(w.t.Context(), websocket.MessageText, []byte(body)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// call makes a packet and sends it.
func (w *v1Way) call(c *v1Stranger, method, data string) legacy.Result {
	w.t.Helper()
	return w.send(c, c.request(method, data))
}

func (w *v1Way) send(c *v1Stranger, p *legacy.Packet) legacy.Result {
	w.t.Helper()
	r := c.opened(w.ask(c.announce(), v1Text(w.t, p)))
	return r
}

func (w *v1Way) agree(c *v1Stranger) {
	w.t.Helper()
	if r := w.send(c, c.begin()); r.Status != 200 || c.session == nil {
		w.t.Fatalf("no agreement: %+v", r)
	}
}

// well fails unless a peer, and one who comes now, are served.
func (w *v1Way) well(c *v1Stranger) {
	w.t.Helper()
	for _, who := range []*v1Stranger{c, newV1Stranger(w.t)} {
		if r := w.call(who, "echo", `{"still":"here"}`); r.Status != 200 || string(r.Result) != `{"still":"here"}` {
			w.t.Errorf("afterwards: %+v", r)
		}
	}
	w.taken()
}

// 1, 2, 3, 4, 17: what kills today's nodes, or makes them hang or silent.
func TestV1WaysAttackCrash(t *testing.T) {
	eachV1Way(t, ConnectConfig{}, func(t *testing.T, w *v1Way) {
		c := newV1Stranger(t)
		for _, body := range []string{
			`{"r":2}`, `{"r":2,"m":"","n":5}`, `{"r":2,"m":"echo","n":5,"d":{"status":200,"msg":"","result":1}}`, `{"r":2,"m":"echo","n":5,"d":"AAAA"}`,
			`{"r":3,"m":"echo"}`, `{"r":0,"m":"echo"}`, `{"m":"echo"}`, `{}`, "[]", "hello", "{", `{"r":1,"m":1}`, `{"r":1,"m":"echo"}{"r":1,"m":"echo"}`, strings.Repeat("[", 1000),
		} {
			for range 3 {
				w.tell(c.announce(), body)
			}
		}
		w.well(c)
		w.untouched("responses and junk")
		w.agree(c)
		block := base64.StdEncoding.EncodeToString(make([]byte, 16))
		for _, data := range []string{"\n", "a", "AAAA", "====", block + "\n", strings.Repeat("A", 24), block, block + block, " ", "not base64 !"} {
			p := c.request("echo", "1")
			if err := p.SetText(data); err != nil {
				t.Fatal(err)
			}
			w.refused(fmt.Sprintf("d %q", data), w.send(c, p), 502)
		}
		long := strings.Repeat("z", 88)
		for _, bad := range []string{"z", "1", "0", long} {
			p := newV1Stranger(t).request("echo", "1")
			for _, keys := range []legacy.Keys{{Initiator: bad, InitiatorEphemeral: c.announce()}, {Initiator: c.announce(), InitiatorEphemeral: bad}, {Initiator: bad, InitiatorCheck: bad}} {
				p.Keys = keys
				p.Nonce++
				w.refused("keys that are none", w.send(c, p), 502)
				p.Signature = long
				w.refused("a signature that is none", w.send(c, p), 401)
				p.Signature = ""
			}
		}
		for method, status := range map[string]uint64{"panic": 500, "unencodable": 500, "nosuch": 404, "owtp.x": 404, "": 404} {
			if r := w.call(c, method, "1"); r.Status != status || strings.Contains(r.Msg, "planted") {
				t.Errorf("%q: %+v", method, r)
			}
		}
		w.well(c)
		// Those that leave take nobody with them.
		for announce, conn := range w.conns {
			conn.send(`{"r":2}`)
			conn.ws.CloseNow()
			delete(w.conns, announce)
		}
		w.well(newV1Stranger(t))
	})
}

// 7: points that are none, before any arithmetic.
func TestV1WaysAttackBadPoints(t *testing.T) {
	eachV1Way(t, ConnectConfig{}, func(t *testing.T, w *v1Way) {
		var v struct {
			Refusals []struct{ Note, PK, TPK string }
		}
		v1Vectors(t, "keyagreement.json", &v)
		c := newV1Stranger(t)
		refused := 0
		for i, e := range v.Refusals {
			k, err := json.Marshal(legacy.Keys{Initiator: e.PK, InitiatorEphemeral: e.TPK, Type: "aes"})
			if err != nil {
				t.Fatal(err)
			}
			announce := e.PK // which must be the one that is announced, where one is
			if _, err := legacy.ParseKey(announce); err != nil {
				announce = c.announce()
			}
			p := packetOf(t, w.ask(announce, fmt.Sprintf(`{"r":1,"m":%q,"n":%d,"k":%s,"v":1}`, legacy.MethodAgree, i+1, k)))
			if p.Keys.ResponderCheck == "" && v1Result(t, p.Data).Status == 502 {
				refused++
			}
		}
		if len(v.Refusals) != 13 || refused != 12 { // one is a point
			t.Errorf("%d of %d refused", refused, len(v.Refusals))
		}
		w.well(c)
	})
}

// 9, 10, 13, 14: who somebody is, and what has been seen before.
func TestV1WaysAttackIdentity(t *testing.T) {
	eachV1Way(t, ConnectConfig{EnableSignature: true}, func(t *testing.T, w *v1Way) {
		c := newV1Stranger(t)
		c.signs = true
		c.nonce += 9 - c.nonce%10 // the next one ends with 0, and the one after it does not
		c.nonce++
		body := v1Text(t, c.request("echo", "1"))
		// Somebody says so, unsigned, and with the victim's next number (E16).
		forged := newV1Stranger(t).request("echo", "1")
		forged.Keys.Initiator, forged.Nonce = c.announce(), c.nonce
		w.refused("unsigned", w.send(c, forged), 401)
		forged.Signature = packetOf(t, body).Signature
		forged.Method = "getInfo"
		w.refused("another's signature", w.send(c, forged), 401)
		if r := c.opened(w.ask(c.announce(), body)); r.Status != 200 {
			t.Fatalf("after that, the victim's own: %+v", r)
		}
		if seen := w.taken(); len(seen) != 1 || seen[0].pid != c.id() || !seen[0].signed {
			t.Errorf("%+v", seen)
		}
		for range 3 {
			w.refused("a copy", c.opened(w.ask(c.announce(), body)), 409)
		}
		moved := packetOf(t, body)
		moved.Nonce, moved.Time = moved.Nonce/10, 10000000000*int64(moved.Nonce%10)+moved.Time
		w.refused("a digit of n in t", w.send(c, moved), 409)
		moved = packetOf(t, body)
		moved.Version, moved.Keys.Type = 0, "x" // not signed
		w.refused("a copy with what is not signed changed", w.send(c, moved), 409)
		old := *c
		old.now -= 3600
		w.refused("an old packet", w.send(&old, old.request("echo", "1")), 409)
		old.now += 7200
		w.refused("a packet of the future", w.send(&old, old.request("echo", "1")), 409)
		none := *c
		none.nonce = ^uint64(0)
		w.refused("no number", w.send(&none, none.request("echo", "1")), 409)
		// An agreement that nobody signed changes nothing for who has one (E10).
		w.agree(c)
		if r := w.call(c, "echo", "2"); r.Status != 200 {
			t.Fatalf("%+v", r)
		}
		w.taken()
		thief := newV1Stranger(t)
		begin := thief.begin()
		w.refused("an agreement of somebody else", w.send(c, begin), 401)
		begin.Keys.Initiator = c.announce()
		w.refused("an agreement in the victim's name", w.send(c, begin), 401)
		before := c.session
		if r := w.call(c, "echo", "3"); r.Status != 200 || c.session != before {
			t.Errorf("the victim's session after that: %+v", r)
		}
		if seen := w.taken(); len(seen) != 1 || seen[0].pid != c.id() || !seen[0].sealed || !seen[0].signed {
			t.Errorf("%+v", seen)
		}
		// A plain packet of a peer that has agreed is a plain one, and seen as such.
		c.session = nil
		if r := w.call(c, "echo", "4"); r.Status != 200 {
			t.Errorf("%+v", r)
		}
		if seen := w.taken(); len(seen) != 1 || seen[0].sealed {
			t.Errorf("a plain packet after an agreement: %+v", seen)
		}
	})
}

// 12, 13, 14: sealed data that was changed, or left out.
func TestV1WaysAttackSealed(t *testing.T) {
	eachV1Way(t, ConnectConfig{EnableKeyAgreement: true}, func(t *testing.T, w *v1Way) {
		c := newV1Stranger(t)
		plain := *c
		w.refused("plain, to a floor of agreement", w.call(&plain, "echo", "1"), 402)
		w.agree(c)
		p := c.request("echo", `{"amount":10,"to":"somebody"}`)
		sealed, err := p.Text()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(sealed)
		if err != nil {
			t.Fatal(err)
		}
		// Who reads sees the method and the length.
		secret := c.request("echo", `{"secret":"of the user"}`)
		answer := w.ask(c.announce(), v1Text(t, secret))
		if strings.Contains(v1Text(t, secret)+answer, "secret") || !strings.Contains(answer, `"m":"echo"`) {
			t.Errorf("on the way: %s", answer)
		}
		if r := c.opened(answer); r.Status != 200 || !strings.Contains(string(r.Result), "secret") {
			t.Errorf("%+v", r)
		}
		for i := range raw {
			changed := bytes.Clone(raw)
			changed[i] ^= 0x10
			q := *p
			if err := q.SetText(base64.StdEncoding.EncodeToString(changed)); err != nil {
				t.Fatal(err)
			}
			w.send(c, &q)
		}
		for _, s := range w.taken() {
			if !json.Valid([]byte(s.data)) {
				t.Errorf("a handler has seen %q", s.data)
			}
		}
		fresh := func() *legacy.Packet { return c.request("getInfo", "null") }
		for what, change := range map[string]func(*legacy.Packet){
			"an empty d":       func(q *legacy.Packet) { q.Data = json.RawMessage(`""`) },
			"no d":             func(q *legacy.Packet) { q.Data = nil },
			"d in the clear":   func(q *legacy.Packet) { q.Data = json.RawMessage(`{}`) },
			"another n":        func(q *legacy.Packet) { q.Nonce++ },
			"v taken away":     func(q *legacy.Packet) { q.Version = 0 },
			"sa of nobody":     func(q *legacy.Packet) { q.Keys.InitiatorCheck = c.session.ResponseKeys().ResponderCheck },
			"sa in z's place":  func(q *legacy.Packet) { q.Keys.InitiatorCheck = "" },
			"data of an other": func(q *legacy.Packet) { q.Data = p.Data },
		} {
			q := fresh()
			change(q)
			w.refused(what, w.send(c, q), 502)
			w.agree(c)
		}
		copied := c.request("echo", "7")
		if r := w.send(c, copied); r.Status != 200 {
			t.Fatalf("%+v", r)
		}
		w.taken()
		copied.Time += 40
		copied.Method = "getInfo"
		w.refused("a copy with what is not sealed changed", w.send(c, copied), 409)
		if r := w.call(c, "echo", "8"); r.Status != 200 {
			t.Errorf("afterwards: %+v", r)
		}
	})
}

// 5, 18: what is too large, and who is slow, hold up nobody.
func TestV1WaysAttackSlow(t *testing.T) {
	eachV1Way(t, ConnectConfig{}, func(t *testing.T, w *v1Way) {
		began, wake := make(chan struct{}, 3), make(chan struct{})
		if err := w.node.HandleFunc("slow", func(*Context) { began <- struct{}{}; <-wake }); err != nil {
			t.Fatal(err)
		}
		c, slow := newV1Stranger(t), newV1Stranger(t)
		done := make(chan struct{}, 3)
		for range 3 {
			body := v1Text(t, slow.request("slow", "1"))
			if w.kind == HTTP {
				go func() { w.post(body, slow.announce()); done <- struct{}{} }()
			} else {
				w.tell(slow.announce(), body)
			}
			v1Next(t, "a slow handler", began)
		}
		begin := time.Now()
		w.well(c)
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("others wait %v for slow handlers", d)
		}
		close(wake)
		for range 3 {
			switch w.kind {
			case HTTP:
				v1Next(t, "a slow answer", done)
			case MQ:
				w.queue.next()
			default:
				w.conn(slow.announce()).next()
			}
		}
		large := `{"r":1,"m":"echo","n":9,"d":"` + strings.Repeat("x", 64<<10) + `","v":1}`
		switch w.kind {
		case HTTP: // TestV1AttackBounds
		case MQ:
			w.queue.send(large)
			if d := w.queue.dead(); string(d.Body) != large {
				t.Errorf("the dead letter has %d octets", len(d.Body))
			}
		default:
			giant := w.dial(newV1Stranger(t).announce())
			_ = giant.ws.Write(t.Context(), websocket.MessageText, []byte(large))
			if text, err := giant.read(10 * time.Second); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
				t.Errorf("a giant is answered %q, %v", text, err)
			}
		}
		w.untouchedBy("echo", 2)
		w.well(c)
	}, func(c *NodeConfig) { c.Limits.MaxMessage = 64 << 10 })
}

// untouchedBy fails if more than so many calls of a method have run.
func (h *v1Host) untouchedBy(method string, most int) {
	h.t.Helper()
	n := 0
	for _, s := range h.taken() {
		if s.method == method {
			n++
		}
	}
	if n > most {
		h.t.Errorf("%s has run %d times", method, n)
	}
}
