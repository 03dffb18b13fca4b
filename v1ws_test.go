package owtp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/owtp-go/owtp/internal/legacy"
)

// Version 1 over WebSocket: the recorded connections, and what attackers do.

// A v1Conn is a connection of version 1 to a host, without anything of ours but
// the octets.
type v1Conn struct {
	t  testing.TB
	ws *websocket.Conn
}

func (h *v1Host) dial(announce string) *v1Conn {
	h.t.Helper()
	header := http.Header{}
	if announce != "" {
		header["A"] = []string{announce}
	}
	ws, _, err := websocket.Dial(h.t.Context(), "ws://"+h.addr+"/", &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { ws.CloseNow() })
	return &v1Conn{h.t, ws}
}

func (c *v1Conn) send(text string) {
	c.t.Helper()
	if err := c.ws.Write(c.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// next returns the next message, which must be text.
func (c *v1Conn) next() string {
	c.t.Helper()
	text, err := c.read(5 * time.Second)
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

func (c *v1Conn) read(patience time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	typ, b, err := c.ws.Read(ctx)
	if err == nil && typ != websocket.MessageText {
		err = fmt.Errorf("a message of type %v", typ)
	}
	return string(b), err
}

// ask sends a packet and returns what comes next.
func (c *v1Conn) ask(p *legacy.Packet) string {
	c.t.Helper()
	c.send(v1Text(c.t, p))
	return c.next()
}

// v1WSOtherwise are the recorded messages of the server that differ here.
var v1WSOtherwise = map[string]string{
	"ws_unauthorized_keyagreement/1": `plain {"status":401,"msg":"verify signature failed, unauthorized","result":null}`,
}

// Requests of the server are its own: their nonces differ, and nothing else.
func TestV1RecordedWebSocket(t *testing.T) {
	t.Parallel()
	r := readV1(t)
	same, called, otherwise := 0, 0, 0
	for _, s := range r.Scenarios {
		if s.WS == nil || strings.HasPrefix(s.Name, "ws_server_calls_client_") && strings.HasSuffix(s.Name, "signed") {
			continue // of the two, TestV1CallsNoSigner
		}
		h := recordedHost(t, r, ConnectConfig{ConnectType: Websocket, EnableSignature: s.Requires})
		h.static()
		c := h.dial(head(s.WS.Request, "a"))
		var back uint64 // the nonce of the server's request
		var asked string
		for i, m := range s.WS.Messages {
			if m.Opcode > 2 {
				continue // pings
			}
			name := fmt.Sprintf("%s/%d", s.Name, i)
			p, err := legacy.ParsePacket([]byte(m.Text), 1<<20)
			if err != nil {
				t.Fatal(name, err)
			}
			if m.From == "client" {
				h.now.Store(p.Time * 1000)
				if p.Kind == legacy.Response {
					c.send(h.answerAs(r, p, m, asked, back))
				} else {
					asked = m.Text
					if err := c.ws.Write(t.Context(), websocket.MessageType(m.Opcode), []byte(m.Text)); err != nil {
						t.Fatal(err)
					}
				}
				continue
			}
			h.now.Store(p.Time * 1000)
			got := c.next()
			switch want := v1WSOtherwise[name]; {
			case want != "":
				otherwise++
				if inside := h.inside(asked, got); inside != want {
					t.Errorf("%s: got %s\nwant %s", name, inside, want)
				}
			case p.Kind == legacy.Request:
				called++
				back = h.calledAs(name, m, p, got)
			case strings.Contains(m.Text, `"m":"callback"`):
				same++
				if want := h.inside(asked, m.Text); h.inside(asked, got) != want { // the order of its members is the program's
					if !sameJSON(h.inside(asked, got), want) {
						t.Errorf("%s: got %s\nwant %s", name, h.inside(asked, got), want)
					}
				}
			default:
				same++
				if got != m.Text {
					t.Errorf("%s: got\n%s\nrecorded\n%s", name, got, m.Text)
				}
			}
		}
	}
	if same < 28 || called != 2 || otherwise != len(v1WSOtherwise) {
		t.Errorf("%d messages are the recorded ones, %d calls back, %d others", same, called, otherwise)
	}
}

func sameJSON(a, b string) bool {
	cut := func(s string) string {
		_, rest, _ := strings.Cut(s, " ")
		var v any
		if json.Unmarshal([]byte(rest), &v) != nil {
			return s
		}
		text, _ := json.Marshal(v)
		return string(text)
	}
	return cut(a) == cut(b)
}

// calledAs compares a call back with the recorded one, and returns its nonce.
func (h *v1Host) calledAs(name string, m v1Frame, recorded *legacy.Packet, got string) uint64 {
	h.t.Helper()
	p, err := legacy.ParsePacket([]byte(got), 1<<20)
	if err != nil {
		h.t.Fatal(name, err)
	}
	if p.Kind != recorded.Kind || p.Method != recorded.Method || p.Time != recorded.Time || p.Version != recorded.Version || p.Signature != recorded.Signature || p.Keys != recorded.Keys {
		h.t.Errorf("%s: got\n%s\nrecorded\n%s", name, got, m.Text)
	}
	if recorded.Keys.CallbackCheck == "" && string(p.Data) != string(recorded.Data) {
		h.t.Errorf("%s: data %s, recorded %s", name, p.Data, recorded.Data)
	}
	return p.Nonce
}

// answerAs is the recorded response of the client, under the nonce of the call
// that was made here.
func (h *v1Host) answerAs(r v1Recorded, p *legacy.Packet, m v1Frame, asked string, nonce uint64) string {
	h.t.Helper()
	p.Nonce = nonce
	if m.Decrypted != nil {
		q, err := legacy.ParsePacket([]byte(asked), 1<<20)
		if err != nil {
			h.t.Fatal(err)
		}
		s := h.sessionOf(q.Keys)
		if err := p.SealJSON(s, []byte(*m.Decrypted)); err != nil {
			h.t.Fatal(err)
		}
	}
	return v1Text(h.t, p)
}

// The recorded clients that sign answer 401 to every call back. A node of ours
// says so before it makes one; whoever has only signed may be a copy.
func TestV1CallsNoSigner(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{ConnectType: Websocket, EnableSignature: true})
	c := newV1Stranger(t)
	c.signs = true
	conn := h.dial(c.announce())
	if r := c.opened(conn.ask(c.request("callback", "1"))); r.Status != 430 || !strings.Contains(r.Msg, "no such peer") {
		t.Errorf("a call back to who has only signed: %+v", r)
	}
	// With an agreement it is made, and the answer is what the client says.
	c.opened(conn.ask(c.begin()))
	if r := c.serves(conn, c.request("callback", `{"x":1}`), func(p *legacy.Packet) string { return `{"status":401,"msg":"no","result":null}` }); r.Status != 200 || !strings.Contains(string(r.Result), "401") {
		t.Errorf("a call back under an agreement: %+v", r)
	}
}

// serves makes a call during which it is called back once.
func (c *v1Stranger) serves(conn *v1Conn, p *legacy.Packet, answer func(*legacy.Packet) string) legacy.Result {
	c.t.Helper()
	conn.send(v1Text(c.t, p))
	q, err := legacy.ParsePacket([]byte(conn.next()), 1<<20)
	if err != nil || q.Kind != legacy.Request || q.Method != "ping" {
		c.t.Fatalf("not called back: %+v, %v", q, err)
	}
	out := &legacy.Packet{Kind: legacy.Response, Method: q.Method, Nonce: q.Nonce, Version: q.Version}
	text := answer(q)
	if c.session == nil {
		err = out.SetJSON([]byte(text))
	} else {
		if !c.session.IsCallback(q.Keys) {
			c.t.Fatal("the call back is not of the session")
		}
		out.Keys = c.session.ResponseKeys()
		err = out.SealJSON(c.session, []byte(text))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	conn.send(v1Text(c.t, out))
	return c.opened(conn.next())
}

// Calls back: plain, under an agreement, and what is no answer to them.
func TestV1CallBack(t *testing.T) {
	t.Parallel()
	const pong = `{"status":200,"msg":"success","result":{"pong":1}}`
	for _, agreed := range []bool{false, true} {
		h := newV1Host(t, ConnectConfig{ConnectType: Websocket, EnableKeyAgreement: agreed})
		c := newV1Stranger(t)
		conn := h.dial(c.announce())
		if agreed {
			c.opened(conn.ask(c.begin()))
		}
		if r := c.serves(conn, c.request("callback", `{"x":1}`), func(q *legacy.Packet) string {
			text, err := q.Text()
			if err == nil && agreed {
				b, oerr := c.session.Open(text, q.Version, q.Nonce)
				text, err = string(b), oerr
			}
			if err != nil || text != `{"x":1}` {
				t.Errorf("called back with %q: %v", text, err)
			}
			return pong
		}); r.Status != 200 || !strings.Contains(string(r.Result), `"pong":1`) {
			t.Errorf("agreed %v: %+v", agreed, r)
		}
	}
}

// 8: who announces a victim's key gets none of the calls that are for the
// victim, also with a copy of what it has signed, and closes no connection of it.
func TestV1AttackTakeOver(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{ConnectType: Websocket})
	victim := newV1Stranger(t)
	victim.signs = true
	conn := h.dial(victim.announce())
	victim.opened(conn.ask(victim.begin()))
	victim.opened(conn.ask(victim.request("echo", "1")))
	copied := victim.request("echo", "2")
	thief := h.dial(victim.announce())
	thief.ask(copied) // it comes first
	done := make(chan *Response, 1)
	go func() {
		resp, err := h.node.CallSync(victim.id(), "ping", 1)
		if err != nil {
			t.Error(err)
		}
		done <- resp
	}()
	q, err := legacy.ParsePacket([]byte(conn.next()), 1<<20)
	if err != nil || !victim.session.IsCallback(q.Keys) {
		t.Fatalf("the victim is not called: %+v, %v", q, err)
	}
	// What the thief says is not taken for an answer.
	thief.send(v1Text(t, &legacy.Packet{Kind: legacy.Response, Method: "ping", Nonce: q.Nonce, Version: 1, Data: []byte(`{"status":200,"msg":"thief","result":1}`)}))
	thief.ws.CloseNow()
	out := &legacy.Packet{Kind: legacy.Response, Method: "ping", Nonce: q.Nonce, Version: 1, Keys: victim.session.ResponseKeys()}
	if err := out.SealJSON(victim.session, []byte(`{"status":200,"msg":"victim","result":1}`)); err != nil {
		t.Fatal(err)
	}
	conn.send(v1Text(t, out))
	if resp := <-done; resp == nil || resp.Msg != "victim" {
		t.Errorf("the answer is %+v", resp)
	}
	if r := victim.opened(conn.ask(victim.request("echo", "3"))); r.Status != 200 {
		t.Errorf("the victim's connection after the thief's end: %+v", r)
	}
	conn.ws.CloseNow()
	for h.node.linkOf(victim.id()) != nil {
		time.Sleep(time.Millisecond)
	}
}

// What is no answer to a call back: in the clear, reflected, of another version,
// under another nonce or method.
func TestV1AttackAnswers(t *testing.T) {
	t.Parallel()
	const forged = `{"status":200,"msg":"forged","result":1}`
	for what, forge := range map[string]func(c *v1Stranger, q, out *legacy.Packet) error{
		"in the clear": func(_ *v1Stranger, _, out *legacy.Packet) error { return out.SetJSON([]byte(forged)) },
		"in the clear with keys": func(c *v1Stranger, _, out *legacy.Packet) error {
			out.Keys = c.session.ResponseKeys()
			return out.SetJSON([]byte(forged))
		},
		"reflected": func(c *v1Stranger, q, out *legacy.Packet) error {
			out.Keys, out.Data = c.session.ResponseKeys(), q.Data
			return nil
		},
		"of another version": func(c *v1Stranger, _, out *legacy.Packet) error {
			out.Version, out.Keys = 0, c.session.ResponseKeys()
			return out.SealJSON(c.session, []byte(forged))
		},
		"of another session": func(c *v1Stranger, _, out *legacy.Packet) error {
			i, err := legacy.Initiate(strings.NewReader(strings.Repeat("12345678901234567890123456789012", 4)), c.key)
			if err != nil {
				return err
			}
			s, err := legacy.Respond(strings.NewReader(strings.Repeat("22345678901234567890123456789012", 4)), c.key, i.Keys())
			if err != nil {
				return err
			}
			out.Keys = s.ResponseKeys()
			return out.SealJSON(s, []byte(forged))
		},
		"no response object": func(c *v1Stranger, _, out *legacy.Packet) error {
			out.Keys = c.session.ResponseKeys()
			return out.SealJSON(c.session, []byte(`{"anything":"else"}`))
		},
	} {
		h := newV1Host(t, ConnectConfig{ConnectType: Websocket})
		c := newV1Stranger(t)
		conn := h.dial(c.announce())
		c.opened(conn.ask(c.begin()))
		conn.send(v1Text(t, c.request("callback", "1")))
		q, err := legacy.ParsePacket([]byte(conn.next()), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		// Nobody waits for these.
		for _, body := range []string{`{"r":2}`, fmt.Sprintf(`{"r":2,"m":"","n":%d}`, q.Nonce), `{"r":2,"m":"ping","n":5}`, fmt.Sprintf(`{"r":2,"m":"other","n":%d,"d":%s}`, q.Nonce, forged)} {
			conn.send(body)
		}
		out := &legacy.Packet{Kind: legacy.Response, Method: "ping", Nonce: q.Nonce, Version: 1}
		if err := forge(c, q, out); err != nil {
			t.Fatal(what, err)
		}
		conn.send(v1Text(t, out))
		if r := c.opened(conn.next()); r.Status < 400 || strings.Contains(string(r.Result), "forged") {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

// One key and nonce seal requests and responses of both sides. Nobody makes this
// node seal an answer under a nonce of its own.
func TestV1AttackOwnNonce(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{ConnectType: Websocket})
	c := newV1Stranger(t)
	conn := h.dial(c.announce())
	c.opened(conn.ask(c.begin()))
	conn.send(v1Text(t, c.request("callback", "1")))
	q, err := legacy.ParsePacket([]byte(conn.next()), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	h.taken()
	for _, nonce := range []uint64{q.Nonce, -q.Nonce, 1 << 62, 1 << 63} {
		c.nonce = nonce - 1
		p, err := legacy.ParsePacket([]byte(conn.ask(c.request("echo", "1"))), 1<<20)
		if err != nil || p.Keys.ResponderCheck != "" {
			t.Fatalf("nonce %d: answered under the session: %+v, %v", nonce, p, err)
		}
		h.refused("a nonce of this node's", v1Result(t, p.Data), 409)
	}
	// The call back itself, sent back as a request.
	q.Keys.InitiatorCheck, q.Keys.CallbackCheck = q.Keys.CallbackCheck, ""
	p, err := legacy.ParsePacket([]byte(conn.ask(q)), 1<<20)
	if err != nil || p.Keys.ResponderCheck != "" {
		t.Errorf("reflected: %+v, %v", p, err)
	}
	h.untouched("reflected")
}

// 5, 6: an upgrade without a key is one of version 2, and one with a bad key
// ends at once; calls back wait for the peer's first sealed request.
func TestV1AttackUpgrade(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{ConnectType: Websocket})
	for _, bad := range []string{"0", "z", h.node.local.Key.Public().String()} {
		if text, err := h.dial(bad).read(5 * time.Second); err == nil {
			t.Errorf("header a %q: served: %s", bad, text)
		}
	}
	text, err := h.dial("").read(50 * time.Millisecond)
	if err == nil {
		t.Errorf("without a key: %s", text)
	}
	conn := h.dial("")
	conn.send(`{"r":1,"m":"echo","n":1}`)
	if text, err = conn.read(5 * time.Second); err == nil && !strings.Contains(text, `"v":2`) {
		t.Errorf("version 1 without a key: %s", text)
	}
	h.untouched("no key")
	if err := h.node.HandleFunc("nudge", func(ctx *Context) {
		ctx.Response(nil, 200, "")
		_, err := ctx.Node().CallSync(ctx.PID, "ping", nil)
		ctx.Response(nil, StatusOf(err), "")
	}); err != nil {
		t.Fatal(err)
	}
	c := newV1Stranger(t)
	conn = h.dial(c.announce())
	c.opened(conn.ask(c.begin()))
	c.session = nil // it forgets, and asks in plain
	if r := c.opened(conn.ask(c.request("nudge", "null"))); r.Status != 502 {
		t.Errorf("a call back before the key was used: %+v", r)
	}
}

// A connection of version 2 is not one of version 1 because somebody has put a
// header into its upgrade, and the other way round; both live side by side.
func TestV1BesideVersion2OnWebSocket(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{ConnectType: Websocket})
	c := newV1Stranger(t)
	conn := h.dial(c.announce())
	client := lifeNode(t, NodeConfig{Cert: NewRandomCertificate()})
	if err := client.Connect("host", ConnectConfig{Address: h.addr, ConnectType: Websocket, EnableKeyAgreement: true}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := c.opened(conn.ask(c.request("echo", "1"))); r.Status != 200 {
			t.Errorf("version 1: %+v", r)
		}
		if resp, err := client.CallSync("host", "echo", 2); err != nil || resp.JsonData().Raw != "2" {
			t.Errorf("version 2: %v, %v", resp, err)
		}
	}
	for _, s := range h.taken() {
		if strings.HasPrefix(s.pid, "anon:") == s.proved {
			t.Errorf("%+v", s)
		}
	}
	// A packet of version 2 on a connection of version 1 is nothing, and neither
	// does it end it.
	conn.send(`{"v":2,"r":7}`)
	if err := conn.ws.Write(t.Context(), websocket.MessageBinary, []byte{2, 1, 8, 2}); err != nil {
		t.Fatal(err)
	}
	conn.send(strings.Repeat("[", 1000))
	if r := c.opened(conn.ask(c.request("echo", "3"))); r.Status != 200 {
		t.Errorf("afterwards: %+v", r)
	}
	// Another listener, which does not allow version 1.
	n := lifeNode(t, NodeConfig{Cert: NewRandomCertificate()})
	if err := n.Listen(ConnectConfig{Address: "127.0.0.1:0", ConnectType: Websocket}); err != nil {
		t.Fatal(err)
	}
	h.addr = n.ListenerAddr(Websocket)
	conn = h.dial(c.announce())
	conn.send(v1Text(t, c.request("echo", "4")))
	if text, err := conn.read(5 * time.Second); err == nil && !strings.Contains(text, `"v":2`) {
		t.Errorf("version 1 to who does not allow it: %s", text)
	}
}

// Session keys are erased when their connection ends.
func TestV1LinkErasesKeys(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{ConnectType: Websocket})
	v := h.node.newV1Sessions(h.node.local.Key, true)
	c := newV1Stranger(t)
	p := c.begin()
	_, s, err := v.of(p)
	if err != nil {
		t.Fatal(err)
	}
	v.keep(s)
	v.release(s)
	secret := v.secret.octets
	v.erase()
	if string(secret) != string(make([]byte, len(secret))) {
		t.Error("the secret is not erased")
	}
	if err := s.use(func(s *legacy.Session) error { _, err := s.Seal([]byte("x"), 1, 1); return err }); err == nil {
		t.Error("the session still seals")
	}
	if _, _, err := v.of(p); err == nil {
		t.Error("something is agreed on after the end")
	}
}

// A v1Deaf is the connection of a peer that reads nothing.
type v1Deaf struct {
	*deafConn
	key string
}

func (c v1Deaf) Announced() (string, bool) { return c.key, true }

// Who reads nothing of what it asks for is cut off when what waits for it has
// reached its bound, or a message could not be written in time; whether handlers
// answer it or refusals do. It holds nothing afterwards, and nobody else waits.
func TestV1AttackDeaf(t *testing.T) {
	t.Parallel()
	for method, slow := range map[string]bool{"nosuch": false, "echo": false, "silent": true} {
		h := newV1Host(t, ConnectConfig{ConnectType: Websocket}, func(c *NodeConfig) {
			c.Limits.MaxRequestsPerPeer, c.Limits.MaxMessage, c.Limits.MaxQueued = 8, 64<<10, 128<<10
			if slow {
				c.Limits.BodyTimeout = 100 * time.Millisecond
			}
		})
		var l *listener
		h.node.mu.Lock()
		for l = range h.node.listeners {
		}
		h.node.mu.Unlock()
		c := newV1Stranger(t)
		conn := newDeafConn()
		over := make(chan struct{})
		go func() {
			defer close(over)
			l.ServeConn(t.Context(), v1Deaf{conn, c.announce()})
		}()
		deadline := time.After(20 * time.Second)
		for asked, cut := 0, false; !cut; {
			in := conn.in
			if slow && asked == 1 {
				in = nil // one answer is enough
			}
			select {
			case in <- []byte(v1Text(t, c.request(method, `{"x":"`+strings.Repeat("x", 500)+`"}`))):
				asked++
			case <-over:
				cut = true
			case <-deadline:
				t.Fatalf("%s: who reads nothing has asked %d times and is not cut off", method, asked)
			}
		}
		h.node.mu.Lock()
		links := len(h.node.links)
		h.node.mu.Unlock()
		if links != 0 {
			t.Errorf("%d links are left", links)
		}
		other := newV1Stranger(t)
		if r := other.opened(h.dial(other.announce()).ask(other.request("echo", "1"))); r.Status != 200 {
			t.Errorf("%s: others: %+v", method, r)
		}
	}
}
