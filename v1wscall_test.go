package owtp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/legacy"
)

// The calling side of version 1 over WebSocket, and being called back there.

// A v1WSPeer accepts connections and leaves all of it to the test.
type v1WSPeer struct {
	t      testing.TB
	key    *identity.PrivateKey
	addr   string
	conns  chan *v1Conn
	header chan http.Header
}

func newV1WSPeer(t testing.TB) *v1WSPeer {
	t.Helper()
	key, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &v1WSPeer{t: t, key: key, conns: make(chan *v1Conn, 16), header: make(chan http.Header, 16)}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		p.header <- r.Header
		p.conns <- &v1Conn{t, ws}
	}))
	t.Cleanup(s.Close)
	p.addr = s.Listener.Addr().String()
	return p
}

func (p *v1WSPeer) id() string { return p.key.ID().String() }

// accept returns the next connection.
func (p *v1WSPeer) accept() *v1Conn {
	p.t.Helper()
	select {
	case c := <-p.conns:
		p.t.Cleanup(func() { c.ws.CloseNow() })
		return c
	case <-time.After(5 * time.Second):
		p.t.Fatal("nobody connects")
		return nil
	}
}

func (c *v1Conn) packet() *legacy.Packet {
	c.t.Helper()
	text := c.next()
	p, err := legacy.ParsePacket([]byte(text), 1<<20)
	if err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	return p
}

// A v1Stand is a node that has connected to a peer made of octets.
type v1Stand struct {
	t       testing.TB
	peer    *v1WSPeer
	node    *OWTPNode
	conn    *v1Conn
	session *legacy.Session // nil in the clear
	nonce   uint64
	ran     atomic.Int64
	last    atomic.Pointer[v1Seen]
}

// newV1Stand connects in a mode, under the peer's ID unless there is a name.
func newV1Stand(t testing.TB, name string, mode ConnectConfig) *v1Stand {
	t.Helper()
	s := &v1Stand{t: t, peer: newV1WSPeer(t), node: newV1Caller(t, v1Now), nonce: 2124528881292546048}
	err := s.node.HandleFunc("ping", func(ctx *Context) {
		s.ran.Add(1)
		s.last.Store(&v1Seen{ctx.Method, ctx.PID, string(ctx.Data()), ctx.Proved(), ctx.Signed(), ctx.Peer.EnableKeyAgreement()})
		ctx.Response(map[string]any{"pong": json.RawMessage(ctx.Data())}, StatusSuccess, "success")
	})
	if err != nil {
		t.Fatal(err)
	}
	if name == "" {
		name = s.peer.id()
	}
	done := make(chan error, 1)
	go func() { done <- s.node.Connect(name, mode.at(s.peer.addr, Websocket)) }()
	s.conn = s.peer.accept()
	if mode.EnableKeyAgreement {
		s.agree()
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return s
}

// agree answers the request for an agreement that comes next.
func (s *v1Stand) agree() {
	s.t.Helper()
	q := s.conn.packet()
	if q.Method != legacy.MethodAgree {
		s.t.Fatalf("%s instead of an agreement", q.Method)
	}
	var err error
	if s.session, err = legacy.Respond(bytes.NewReader(s.peer.key.Bytes()), s.peer.key, q.Keys); err != nil {
		s.t.Fatal(err)
	}
	s.conn.send(v1Text(s.t, s.answer(q, `{"status":200,"msg":"success","result":null}`)))
}

// answer answers as the peer.
func (s *v1Stand) answer(q *legacy.Packet, data string) *legacy.Packet {
	s.t.Helper()
	resp := plainly(s.t, q, data)
	if s.session != nil {
		resp.Keys = s.session.ResponseKeys()
		if err := resp.SealJSON(s.session, []byte(data)); err != nil {
			s.t.Fatal(err)
		}
	}
	return resp
}

// asks is a request of the peer's.
func (s *v1Stand) asks(data string, sign bool) *legacy.Packet {
	s.t.Helper()
	s.nonce++
	p := &legacy.Packet{Kind: legacy.Request, Method: "ping", Nonce: s.nonce, Time: v1Time, Version: 1}
	err := p.SetJSON([]byte(data))
	if s.session != nil {
		p.Keys = s.session.CallbackKeys()
		err = p.SealJSON(s.session, []byte(data))
	}
	if err == nil && sign {
		err = legacy.Sign(rand.Reader, s.peer.key, p)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// back sends a request of the peer's and returns the answer, and whether it was
// sealed.
func (s *v1Stand) back(p *legacy.Packet) (r legacy.Result, sealed bool) {
	s.t.Helper()
	s.conn.send(v1Text(s.t, p))
	resp := s.conn.packet()
	if resp.Kind != legacy.Response || resp.Nonce != p.Nonce || resp.Method != p.Method {
		s.t.Fatalf("no answer to it: %+v", resp)
	}
	text, err := resp.Text()
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.Keys.ResponderCheck == "" {
		return v1Result(s.t, []byte(text)), false
	}
	if !s.session.IsResponse(resp.Keys) {
		s.t.Fatal("sealed under another session")
	}
	b, err := s.session.Open(text, resp.Version, resp.Nonce)
	if err != nil {
		s.t.Fatal(err)
	}
	return v1Result(s.t, b), true
}

// refuses fails unless a request of the peer's is refused and runs nothing.
func (s *v1Stand) refuses(what string, p *legacy.Packet, status uint64) {
	s.t.Helper()
	before := s.ran.Load()
	if r, _ := s.back(p); r.Status != status {
		s.t.Errorf("%s: answered %d %q, want %d", what, r.Status, r.Msg, status)
	}
	if s.ran.Load() != before {
		s.t.Errorf("%s: a handler ran", what)
	}
}

// serves fails unless a request of the peer's runs.
func (s *v1Stand) serves(what string, p *legacy.Packet, want v1Seen) {
	s.t.Helper()
	before := s.ran.Load()
	if r, sealed := s.back(p); r.Status != 200 || sealed != (s.session != nil) {
		s.t.Errorf("%s: answered %+v, sealed %v", what, r, sealed)
	}
	if want.method = "ping"; s.ran.Load() != before+1 {
		s.t.Errorf("%s: the handler ran %d times", what, s.ran.Load()-before)
	} else if got := *s.last.Load(); strings.HasPrefix(got.pid, "anon:") && want.pid == "" {
		got.pid = ""
		if got != want {
			s.t.Errorf("%s: the handler saw %+v, want %+v", what, got, want)
		}
	} else if got != want {
		s.t.Errorf("%s: the handler saw %+v, want %+v", what, got, want)
	}
}

// call calls the peer, which answers as f says.
func (s *v1Stand) call(f func(q *legacy.Packet) []string) (*Response, error) {
	s.t.Helper()
	type result struct {
		resp *Response
		err  error
	}
	done := make(chan result, 1)
	go func() {
		resp, err := s.node.CallContext(s.t.Context(), s.peer.id(), "echo", 1, &CallOptions{Timeout: 5 * time.Second})
		done <- result{resp, err}
	}()
	q := s.conn.packet()
	for _, text := range f(q) {
		s.conn.send(text)
	}
	r := <-done
	return r.resp, r.err
}

// The recorded connections, played by the recorded server: the client says the
// same octets, but for signatures, and gets the same results.
func TestV1CallsAsRecordedWebSocket(t *testing.T) {
	t.Parallel()
	r := readV1(t)
	cert, err := NewCertificate(r.Client)
	if err != nil {
		t.Fatal(err)
	}
	// A recorded client that signs does not know the server's key and refuses
	// its calls. A node of ours knows whom it has dialled.
	otherwise := map[string]bool{"ws_server_calls_client_signed/2": true, "ws_server_calls_client_keyagreement_signed/4": true}
	same, different := 0, 0
	for _, s := range r.Scenarios {
		if s.WS == nil || s.Results == nil {
			continue
		}
		var at, nonce atomic.Int64
		n := newV1Caller(t, func() time.Time { return time.Unix(at.Load(), 0) }, func(c *NodeConfig) { c.Cert = cert })
		n.v1Numbers = func() uint64 { return uint64(nonce.Load()) }
		if err := n.HandleFunc("ping", func(ctx *Context) {
			ctx.Response(map[string]any{"pong": json.RawMessage(ctx.Data())}, StatusSuccess, "success")
		}); err != nil {
			t.Fatal(err)
		}
		if s.Agreement != nil {
			scalar := s.Agreement.scalar(t)
			n.v1Ephemeral = func() io.Reader { return bytes.NewReader(scalar) }
		}
		parsed := make([]*legacy.Packet, len(s.WS.Messages))
		var asked []v1Frame
		for i, m := range s.WS.Messages {
			if m.Opcode > 2 {
				continue
			}
			if parsed[i], err = legacy.ParsePacket([]byte(m.Text), 1<<20); err != nil {
				t.Fatal(err)
			}
			if m.From == "client" && parsed[i].Kind == legacy.Request && parsed[i].Method != legacy.MethodAgree {
				asked = append(asked, m)
			}
		}
		// clock makes the node's what it was when the client spoke next.
		clock := func(from int) {
			for i := from; i < len(parsed); i++ {
				if p := parsed[i]; p != nil && s.WS.Messages[i].From == "client" {
					at.Store(p.Time)
					if p.Kind == legacy.Request {
						nonce.Store(int64(p.Nonce))
					}
					return
				}
			}
		}
		clock(0)
		peer := newV1WSPeer(t)
		played := make(chan struct{})
		go func() {
			defer close(played)
			conn := peer.accept()
			if got := (<-peer.header).Get("A"); got != head(s.WS.Request, "a") {
				t.Errorf("%s: header a is %q", s.Name, got)
			}
			for i, m := range s.WS.Messages {
				name := fmt.Sprintf("%s/%d", s.Name, i)
				switch {
				case parsed[i] == nil:
				case m.From == "server":
					clock(i + 1)
					conn.send(m.Text)
				default:
					body := conn.next()
					if otherwise[name] {
						different++
						if p, err := legacy.ParsePacket([]byte(body), 1<<20); err != nil || p.Kind != legacy.Response || body == m.Text {
							t.Errorf("%s: sent %s", name, body)
						}
						continue
					}
					if parsed[i].Signature != "" {
						body = resigned(t, name, body, parsed[i].Signature)
					}
					if same++; body != m.Text {
						t.Errorf("%s: sent\n%s\nrecorded\n%s", name, body, m.Text)
					}
				}
			}
		}()
		err := n.Connect(r.ServerID, ConnectConfig{EnableSignature: s.Signs, EnableKeyAgreement: s.Agrees}.at(peer.addr, Websocket))
		if s.Name == "ws_unauthorized_keyagreement" {
			if StatusOf(err) != ErrUnauthorized {
				t.Errorf("%s: %v", s.Name, err)
			}
			<-played
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		for j, want := range s.Results {
			p, err := legacy.ParsePacket([]byte(asked[j].Text), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := n.CallSync(r.ServerID, p.Method, (&v1Body{Decrypted: asked[j].Decrypted}).params(t, p))
			if err != nil {
				t.Fatalf("%s: call %d: %v", s.Name, j, err)
			}
			var result any
			if err := json.Unmarshal(resp.Result.(json.RawMessage), &result); err != nil {
				t.Fatal(err)
			}
			if got := (v1ClientResult{p.Method, resp.Status, resp.Msg, result}); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: call %d gives %+v, recorded %+v", s.Name, j, got, want)
			}
		}
		<-played
		n.Close()
	}
	if same != 36 || different != len(otherwise) {
		t.Errorf("%d messages are the recorded ones, %d others", same, different)
	}
}

// Every mode, against our own listener, called back in the midst of a call.
func TestV1CallsOurOwnWebSocket(t *testing.T) {
	t.Parallel()
	for name, mode := range v1Modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newV1Host(t, ConnectConfig{ConnectType: Websocket, EnableSignature: mode.EnableSignature, EnableKeyAgreement: mode.EnableKeyAgreement})
			id := h.node.NodeID()
			n := newV1Caller(t, v1Now)
			var back atomic.Pointer[v1Seen]
			err := n.HandleFunc("ping", func(ctx *Context) {
				back.Store(&v1Seen{ctx.Method, ctx.PID, string(ctx.Data()), ctx.Proved(), ctx.Signed(), ctx.Peer.EnableKeyAgreement()})
				for _, name := range []string{id, ctx.PID} { // a call within a call within a call
					if resp, err := ctx.Node().CallSync(name, "echo", 7); err != nil || !resp.OK() {
						t.Error(resp, err)
					}
				}
				if err := ctx.SetSession("k", "v"); err != nil {
					t.Error(err)
				}
				ctx.Response(json.RawMessage(ctx.Data()), StatusSuccess, "success")
			})
			if err == nil {
				err = n.Connect(id, mode.at(h.addr, Websocket))
			}
			if err != nil {
				t.Fatal(err)
			}
			for method, status := range map[string]uint64{"echo": 200, "fail": 600, "silent": 0, "nosuch": 404, "panic": 500} {
				resp, err := n.CallSync(id, method, json.RawMessage(`{"a":1}`))
				if err != nil || resp.Status != status || method == "echo" && resp.JsonData().Get("a").Int() != 1 {
					t.Errorf("%s: %+v %v, want %d", method, resp, err, status)
				} else if e := resp.Err(); status >= 400 && e.(*Error).Proved != mode.EnableKeyAgreement {
					t.Errorf("%s: %#v", method, e)
				}
			}
			h.taken()
			resp, err := n.CallSync(id, "callback", json.RawMessage(`{"x":1}`))
			if name == "signed" { // nobody knows whether the caller is a copy: it is not called back
				if err != nil || resp.Status != 430 {
					t.Errorf("%+v %v", resp, err)
				}
				return
			}
			if err != nil || resp.JsonData().Get("result.x").Int() != 1 {
				t.Fatalf("%+v %v", resp, err)
			}
			want := v1Seen{method: "ping", data: `{"x":1}`, proved: mode.EnableSignature, signed: mode.EnableSignature, sealed: mode.EnableKeyAgreement}
			got := *back.Load()
			if want.proved == strings.HasPrefix(got.pid, "anon:") {
				t.Errorf("called back by %s", got.pid)
			}
			if want.proved {
				want.pid = "v1:" + id
			} else {
				got.pid = ""
			}
			if got != want {
				t.Errorf("called back: %+v, want %+v", got, want)
			}
			var wait sync.WaitGroup
			for i := range 16 {
				wait.Go(func() {
					if resp, err := n.CallSync(id, "echo", i); err != nil || resp.JsonData().Int() != int64(i) {
						t.Error(i, resp, err)
					}
				})
			}
			wait.Wait()
			if mode.EnableKeyAgreement { // known by what was proved, too
				if resp, err := n.CallSync("v1:"+id, "echo", 1); err != nil || !resp.OK() || n.GetOnlinePeer(id).PID() != "v1:"+id {
					t.Error(resp, err)
				}
			}
		})
	}
}

// KeyAgreement after Connect: calls wait for it, one connection follows the
// other, and what is agreed on is agreed on anew after a connection is lost.
func TestV1CallsReconnect(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{ConnectType: Websocket})
	id := h.node.NodeID()
	n := newV1Caller(t, v1Now)
	if err := n.Connect(id, ConnectConfig{}.at(h.addr, Websocket)); err != nil {
		t.Fatal(err)
	}
	call := func(opts *CallOptions) v1Seen {
		t.Helper()
		if resp, err := n.CallContext(t.Context(), id, "echo", 1, opts); err != nil || !resp.OK() {
			t.Fatal(resp, err)
		}
		return h.taken()[0]
	}
	if s := call(nil); s.sealed {
		t.Errorf("before: %+v", s)
	}
	var agreements sync.WaitGroup
	for range 4 {
		agreements.Go(func() {
			if err := n.KeyAgreement(id, "aes"); err != nil {
				t.Error(err)
			}
		})
	}
	agreements.Wait()
	if s := call(nil); !s.sealed {
		t.Errorf("after: %+v", s)
	}
	h.node.mu.Lock()
	links := h.node.allLinks()
	h.node.mu.Unlock()
	for _, l := range links {
		l.fail(errClosedHere)
	}
	for range 3 {
		if s := call(&CallOptions{Repeatable: true}); !s.sealed {
			t.Errorf("after a connection was lost: %+v", s)
		}
	}
	n.ClosePeer(id)
	if _, err := n.CallSync(id, "echo", 1); !errors.Is(err, ErrUnknownPeer) {
		t.Error(err)
	}
}

// 2, 3: answers that nobody waits for, and packets that are none, between the
// right ones; answers in another order. The connection lives on.
func TestV1CallAttackConnAnswers(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"plain", "agreed"} {
		s := newV1Stand(t, "", v1Modes[mode])
		junk := []string{
			`{"r":2}`, `{"r":2,"m":"","n":99}`, `{"r":2,"m":"echo","n":0,"d":{"status":200,"msg":"","result":1}}`, `{"r":3}`, `{}`, `[]`, `null`, "", "{", `{"r":2,"k":[]}`,
			`{"r":2,"m":"echo","n":18446744073709551616}`, strings.Repeat("[", 1<<14),
		}
		resp, err := s.call(func(q *legacy.Packet) []string {
			wrong := plainly(t, q, v1Answer200)
			wrong.Method = ""
			other := plainly(t, q, v1Answer200)
			other.Nonce++
			return append(append([]string{}, junk...), v1Text(t, wrong), v1Text(t, other), v1Text(t, s.answer(q, `{"status":200,"msg":"","result":"right"}`)), v1Text(t, s.answer(q, v1Answer200)))
		})
		if err != nil || resp.JsonData().String() != "right" {
			t.Errorf("%s: %+v %v", mode, resp, err)
		}
		// What answers the call and is not acceptable ends it, and no other.
		resp, err = s.call(func(q *legacy.Packet) []string {
			p := s.answer(q, v1Answer200)
			p.Data = []byte(`{"status":200}`)
			return []string{v1Text(t, p)}
		})
		illegitimate(t, mode, resp, err)
		if mode == "agreed" {
			resp, err = s.call(func(q *legacy.Packet) []string { return []string{v1Text(t, plainly(t, q, v1Answer200))} })
			illegitimate(t, "in the clear", resp, err)
			resp, err = s.call(func(q *legacy.Packet) []string {
				p := s.answer(q, v1Answer200)
				p.Data = q.Data
				return []string{v1Text(t, p)}
			})
			illegitimate(t, "the request itself", resp, err)
		}
		results := make(chan string, 3)
		for i := range cap(results) {
			go func() {
				resp, err := s.node.CallSync(s.peer.id(), fmt.Sprint("m", i), i)
				results <- fmt.Sprint(i, resp.Msg, err)
			}()
		}
		var asked []*legacy.Packet
		for range cap(results) {
			asked = append(asked, s.conn.packet())
		}
		for i := range asked { // the last one first
			q := asked[len(asked)-1-i]
			s.conn.send(v1Text(t, s.answer(q, `{"status":200,"msg":"`+q.Method+`","result":null}`)))
		}
		for range cap(results) {
			if r := <-results; r != fmt.Sprintf("%cm%c<nil>", r[0], r[0]) {
				t.Errorf("%s: %s", mode, r)
			}
		}
	}
}

// 6: who calls back before there is an agreement is refused, and the agreement
// is made. Who sends other things without end is left.
func TestV1CallAttackBeforeTheAgreement(t *testing.T) {
	t.Parallel()
	peer := newV1WSPeer(t)
	n := newV1Caller(t, v1Now)
	var ran atomic.Int64
	if err := n.HandleFunc("ping", func(*Context) { ran.Add(1) }); err != nil {
		t.Fatal(err)
	}
	connect := func() (chan error, *v1Conn, *legacy.Packet) {
		done := make(chan error, 1)
		go func() { done <- n.Connect(peer.id(), v1Modes["agreed"].at(peer.addr, Websocket)) }()
		conn := peer.accept()
		return done, conn, conn.packet()
	}
	done, conn, _ := connect()
	for i := range maxV1Aside {
		conn.send(fmt.Sprintf(`{"r":2,"m":"other","n":%d}`, i))
	}
	if err := <-done; StatusOf(err) != ErrResponseMethodDiffer {
		t.Errorf("%d others: %v", maxV1Aside, err)
	}
	done, conn, q := connect()
	s := &v1Stand{t: t, peer: peer, node: n, conn: conn, nonce: 2124528881292546048}
	for range 3 {
		if r, _ := s.back(s.asks("1", false)); r.Status != ErrKeyAgreementFailed {
			t.Errorf("called back before the agreement: %+v", r)
		}
	}
	conn.send("junk")
	var err error
	if s.session, err = legacy.Respond(rand.Reader, peer.key, q.Keys); err != nil {
		t.Fatal(err)
	}
	conn.send(v1Text(t, s.answer(q, `{"status":200,"msg":"","result":null}`)))
	if err := <-done; err != nil || ran.Load() != 0 {
		t.Fatal(err, ran.Load())
	}
	if r, sealed := s.back(s.asks("1", false)); r.Status != 0 || !sealed || ran.Load() != 1 {
		t.Errorf("called back after it: %+v", r)
	}
	n.ClosePeer(peer.id())
	go func() { done <- n.Connect(peer.id(), v1Modes["agreed"].at(peer.addr, Websocket)) }()
	peer.accept().ws.CloseNow() // in the midst of it
	if err := <-done; err == nil || StatusOf(err) != ErrNetworkDisconnected {
		t.Error(err)
	}
}

// 12, 13, 14: what is called back under an agreement: in the clear, under another
// key or none, copies, the client's own requests, changed ones, without data.
func TestV1CallAttackCalledBack(t *testing.T) {
	t.Parallel()
	s := newV1Stand(t, "", v1Modes["agreed"])
	unproved := v1Seen{data: `{"x":1}`, sealed: true}
	first := s.asks(`{"x":1}`, false)
	s.serves("an honest one", first, unproved)
	s.refuses("a copy", first, 409)
	same := *first
	same.Method, same.Time = "ping", v1Time+1
	s.refuses("a copy at another time", &same, 409)
	signed := s.asks(`{"x":1}`, true)
	s.serves("a signed one", signed, v1Seen{pid: "v1:" + s.peer.id(), data: `{"x":1}`, proved: true, signed: true, sealed: true})
	s.refuses("a copy of it", signed, 409)
	stripped := *signed
	stripped.Signature = ""
	s.refuses("a copy without the signature", &stripped, 409)
	s.refuses("a signed one without data", s.asks(`""`, true), 502)

	for what, change := range map[string]func(p *legacy.Packet) uint64{
		"in the clear":                 func(p *legacy.Packet) uint64 { p.Keys = legacy.Keys{}; p.SetJSON([]byte("1")); return 402 },
		"keys of the client and no s2": func(p *legacy.Packet) uint64 { p.Keys.CallbackCheck = ""; return 402 },
		"sa in the place of s2": func(p *legacy.Packet) uint64 {
			p.Keys.InitiatorCheck, p.Keys.CallbackCheck = p.Keys.CallbackCheck, ""
			return 402
		},
		"another s2": func(p *legacy.Packet) uint64 {
			p.Keys.CallbackCheck = s.session.ResponseKeys().ResponderCheck
			return 502
		},
		"no data":                    func(p *legacy.Packet) uint64 { p.SetText(""); return 502 },
		"data null":                  func(p *legacy.Packet) uint64 { p.Data = []byte("null"); return 502 },
		"data that is no ciphertext": func(p *legacy.Packet) uint64 { p.SetText("AAAA"); return 502 },
		"data that is not encrypted": func(p *legacy.Packet) uint64 { p.SetJSON([]byte(`{"x":1}`)); return 502 },
		"packet version 0": func(p *legacy.Packet) uint64 {
			p.Version = 0
			p.SealJSON(s.session, []byte("1"))
			return 502
		},
		"packet version 0 of a packet of version 1": func(p *legacy.Packet) uint64 { p.Version = 0; return 502 },
		"another number": func(p *legacy.Packet) uint64 { p.Nonce++; s.nonce++; return 502 },
		"a bare text": func(p *legacy.Packet) uint64 {
			p.SealJSON(s.session, []byte(`"bare"`))
			return 502
		},
		"a wrong signature": func(p *legacy.Packet) uint64 { p.Signature = "1"; return 401 },
		"a stranger's signature": func(p *legacy.Packet) uint64 {
			if err := legacy.Sign(rand.Reader, newV1Stranger(t).key, p); err != nil {
				t.Error(err)
			}
			return 401
		},
		"an old one, signed": func(p *legacy.Packet) uint64 {
			p.Time -= 3600
			legacy.Sign(rand.Reader, s.peer.key, p)
			return 409
		},
	} {
		p := s.asks(`{"x":1}`, false)
		status := change(p)
		s.refuses(what, p, status)
	}
	// The client's own request, sent back under its own number and check value.
	resp, err := s.call(func(q *legacy.Packet) []string {
		mirrored := *q
		mirrored.Method = "ping"
		mirrored.Keys.CallbackCheck, mirrored.Keys.InitiatorCheck = q.Keys.InitiatorCheck, ""
		s.refuses("the client's own request", &mirrored, 409)
		return []string{v1Text(t, s.answer(q, `{"status":200,"msg":"","result":1}`))}
	})
	if err != nil || !resp.OK() {
		t.Error(resp, err)
	}
	s.serves("an honest one, afterwards", s.asks(`{"x":1}`, false), unproved)
	if s.ran.Load() != 3 {
		t.Errorf("the handler ran %d times", s.ran.Load())
	}
	// Data that is not there is a bare text.
	mode := v1Modes["agreed"]
	mode.InsecureV1BareText = true
	s = newV1Stand(t, "", mode)
	empty := s.asks(`""`, true)
	s.serves("a signed one without data", empty, v1Seen{pid: "v1:" + s.peer.id(), data: "null", proved: true, signed: true})
	s.refuses("a copy of that", empty, 409)
	stripped = *empty
	stripped.Data = nil
	s.refuses("a copy of that with other data that is none", &stripped, 409)
	stripped.Data = empty.Data
	stripped.Signature = ""
	s.refuses("a copy of that without the signature", &stripped, 502)
}

// InsecureV1TrustAgreement takes who has agreed for whoever calls back.
func TestV1CallsBackTrusted(t *testing.T) {
	t.Parallel()
	mode := v1Modes["agreed"]
	mode.InsecureV1TrustAgreement = true
	s := newV1Stand(t, "", mode)
	s.serves("sealed", s.asks("1", false), v1Seen{pid: "v1:" + s.peer.id(), data: "1", proved: true, sealed: true})
	s.refuses("in the clear", func() *legacy.Packet {
		p := s.asks("1", false)
		p.Keys = legacy.Keys{}
		p.SetJSON([]byte("1"))
		return p
	}(), 402)
}

// What may be called back in the other modes, and by whom.
func TestV1CallAttackCalledBackInTheClear(t *testing.T) {
	t.Parallel()
	s := newV1Stand(t, "", ConnectConfig{})
	s.serves("plain", s.asks("1", false), v1Seen{data: "1"})
	named := v1Seen{pid: "v1:" + s.peer.id(), data: "1", proved: true, signed: true}
	p := s.asks("1", true)
	s.serves("plain, signed by who was dialled", p, named)
	s.refuses("a copy of it", p, 409)
	for what, set := range map[string]func(p *legacy.Packet){
		"that begins an agreement": func(p *legacy.Packet) {
			i, err := legacy.Initiate(rand.Reader, s.peer.key)
			if err != nil {
				t.Fatal(err)
			}
			p.Keys = i.Keys()
		},
		"with s2": func(p *legacy.Packet) { p.Keys.CallbackCheck = "1" },
		"with sa": func(p *legacy.Packet) { p.Keys.InitiatorCheck = "1" },
	} {
		p := s.asks("1", false)
		set(p)
		s.refuses(what, p, 502)
	}

	s = newV1Stand(t, "", v1Modes["signed"])
	s.refuses("unsigned, where signatures are asked for", s.asks("1", false), 401)
	s.serves("signed", s.asks("1", true), v1Seen{pid: "v1:" + s.peer.id(), data: "1", proved: true, signed: true})
	mine := s.peer.key
	s.peer.key = newV1Stranger(t).key
	s.refuses("signed by somebody else", s.asks("1", true), 401)
	s.peer.key = s.node.local.Key
	s.refuses("signed by the client itself", s.asks("1", true), 401)
	s.peer.key = mine

	s = newV1Stand(t, "alias", v1Modes["signed"])
	s.refuses("signed, where nobody knows who was dialled", s.asks("1", true), 401)
}

// A peer that forgets, on a connection: it answers under another key.
func TestV1CallsWhoForgetsOnAConnection(t *testing.T) {
	t.Parallel()
	s := newV1Stand(t, "", v1Modes["agreed"])
	again := func(q *legacy.Packet) {
		t.Helper()
		var err error
		if s.session, err = legacy.Respond(rand.Reader, s.peer.key, q.Keys); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := s.call(func(q *legacy.Packet) []string {
		again(q)
		return []string{v1Text(t, s.answer(q, `{"status":200,"msg":"","result":"anew"}`))}
	})
	if err != nil || resp.JsonData().String() != "anew" {
		t.Error(resp, err)
	}
	s.serves("called back under the new key", s.asks(`1`, false), v1Seen{data: "1", sealed: true})
	resp, err = s.call(func(q *legacy.Packet) []string {
		if !s.session.IsRequest(q.Keys) {
			t.Error("not under the new key")
		}
		again(q)
		return []string{v1Text(t, s.answer(q, `{"status":502,"msg":"Decrypt data error","result":null}`))}
	})
	if StatusOf(err) != ErrOutcomeUnknown {
		t.Error(resp, err)
	}
	done := make(chan error, 1)
	go func() {
		resp, err := s.node.CallContext(context.Background(), s.peer.id(), "echo", 1, &CallOptions{Repeatable: true})
		if err == nil {
			err = resp.Err()
		}
		done <- err
	}()
	q := s.conn.packet()
	again(q)
	s.conn.send(v1Text(t, s.answer(q, `{"status":502,"msg":"Decrypt data error","result":null}`)))
	q = s.conn.packet()
	if !s.session.IsRequest(q.Keys) {
		t.Error("the second attempt is not under the new key")
	}
	s.conn.send(v1Text(t, s.answer(q, `{"status":200,"msg":"","result":1}`)))
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// 15: KeyAgreement on a connection in the clear: nothing goes out on it any more,
// and on the next one nothing before the agreement.
func TestV1CallAttackConnNothingInTheClear(t *testing.T) {
	t.Parallel()
	s := newV1Stand(t, "", ConnectConfig{})
	agreement := make(chan error, 1)
	go func() { agreement <- s.node.KeyAgreement(s.peer.id(), "aes") }()
	old := s.conn
	s.conn = s.peer.accept()
	q := s.conn.packet()
	calls := make(chan error, 4)
	for range cap(calls) {
		go func() {
			resp, err := s.node.CallSync(s.peer.id(), "echo", 1)
			if err == nil {
				err = resp.Err()
			}
			calls <- err
		}()
	}
	if text, err := s.conn.read(50 * time.Millisecond); err == nil {
		t.Errorf("before the agreement: %s", text)
	}
	if text, err := old.read(time.Second); err == nil {
		t.Errorf("on the connection before: %s", text)
	}
	// The time is up that a reader had; another connection, which the node makes.
	s.conn.ws.CloseNow()
	if err := <-agreement; err == nil {
		t.Error("an agreement whose connection has ended")
	}
	s.conn = s.peer.accept()
	s.agree()
	for range cap(calls) {
		q = s.conn.packet()
		if !s.session.IsRequest(q.Keys) {
			t.Errorf("in the clear: %+v", q)
		}
		s.conn.send(v1Text(t, s.answer(q, `{"status":200,"msg":"","result":1}`)))
	}
	for range cap(calls) {
		if err := <-calls; err != nil {
			t.Error(err)
		}
	}
}

// Over WebSocket nothing falls back from one version to the other either.
func TestV1CallAttackConnNoFallback(t *testing.T) {
	t.Parallel()
	h := newV1Caller(t, v1Now)
	var ran atomic.Int64
	if err := h.HandleFunc("echo", func(*Context) { ran.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if err := h.Listen(ConnectConfig{Address: "127.0.0.1:0", ConnectType: Websocket}); err != nil {
		t.Fatal(err)
	}
	n := newV1Caller(t, v1Now)
	for name, mode := range v1Modes {
		err := n.Connect(name, mode.at(h.ListenerAddr(Websocket), Websocket))
		if err == nil {
			_, err = n.CallContext(t.Context(), name, "echo", 1, &CallOptions{Timeout: time.Second})
		}
		if StatusOf(err) != ErrNetworkDisconnected || !strings.Contains(err.Error(), "allow it with ConnectConfig.AllowV1 only") {
			t.Errorf("%s: %v", name, err)
		}
		n.ClosePeer(name)
	}
	if ran.Load() != 0 {
		t.Error("a handler ran")
	}
}

// A server that calls back more than a peer may is answered 429, and takes
// nothing from this node's own calls.
func TestV1CallAttackFlood(t *testing.T) {
	t.Parallel()
	const most = 4
	peer := newV1WSPeer(t)
	n := newV1Caller(t, v1Now, func(c *NodeConfig) { c.Limits.MaxRequestsPerPeer = most })
	hold := make(chan struct{})
	var ran atomic.Int64
	if err := n.HandleFunc("ping", func(*Context) { ran.Add(1); <-hold }); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.Connect(peer.id(), ConnectConfig{}.at(peer.addr, Websocket)) }()
	s := &v1Stand{t: t, peer: peer, node: n, conn: peer.accept(), nonce: 2124528881292546048}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		s.conn.send(v1Text(t, s.asks("1", false)))
		if i < most {
			continue
		}
		if r := v1Result(t, s.conn.packet().Data); r.Status != ErrTooManyRequests {
			t.Fatalf("request %d: %+v", i, r)
		}
	}
	resp, err := s.call(func(q *legacy.Packet) []string { return []string{v1Text(t, s.answer(q, v1Answer200))} })
	if err != nil || !resp.OK() {
		t.Error(resp, err)
	}
	close(hold)
	for range most {
		if r := v1Result(t, s.conn.packet().Data); r.Status != 0 {
			t.Errorf("%+v", r)
		}
	}
	if ran.Load() != most {
		t.Errorf("%d handlers ran", ran.Load())
	}
}

// 8: somebody else at the other end of a connection: it is left, and nothing of a
// call is sent on it, at first and after it was lost.
func TestV1CallAttackConnSomebodyElse(t *testing.T) {
	t.Parallel()
	s := newV1Stand(t, "", v1Modes["agreed"])
	id := s.peer.id()
	s.peer.key = newV1Stranger(t).key
	s.conn.ws.CloseNow()
	v1Soon(t, "the loss of the connection", func() bool { return s.node.linkOf(id) == nil })
	done := make(chan error, 1)
	go func() {
		_, err := s.node.CallContext(t.Context(), id, "echo", 1, &CallOptions{Timeout: 300 * time.Millisecond})
		done <- err
	}()
	s.conn = s.peer.accept()
	s.agree()
	if text, err := s.conn.read(5 * time.Second); err == nil {
		t.Errorf("said to somebody else: %s", text)
	}
	if err := <-done; err == nil || err.(*Error).MayHaveRun {
		t.Error(err)
	}
	n := newV1Caller(t, v1Now)
	go func() { done <- n.Connect(id, v1Modes["agreed"].at(s.peer.addr, Websocket)) }()
	for err := error(nil); err == nil; { // the node from before is dialling as well
		s.conn = s.peer.accept()
		s.agree()
		select {
		case err = <-done:
			if !errors.Is(err, ErrTrust) {
				t.Error(err)
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// The keys of an agreement are forgotten with the connection, and over HTTP when
// nobody uses it any more.
func TestV1CallsForgetKeys(t *testing.T) {
	t.Parallel()
	s := newV1Stand(t, "", v1Modes["agreed"])
	l := s.node.linkOf(s.peer.id())
	a := l.v1.caller.(*v1Line).agreement
	held := a.sessions.current()
	s.node.ClosePeer(s.peer.id())
	v1Soon(t, "no key after ClosePeer", func() bool { return a.sessions.current() == nil })
	held.use(func(s *legacy.Session) error {
		if _, err := s.Seal([]byte("x"), 1, 1); err == nil {
			t.Error("a key is there after its connection")
		}
		return nil
	})
	h := newV1Host(t, ConnectConfig{})
	n := newV1Caller(t, v1Now)
	if err := n.Connect("host", v1Modes["agreed"].at(h.addr, HTTP)); err != nil {
		t.Fatal(err)
	}
	d := n.remoteOf("host").v1
	first, err := d.agreed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d.note(first, false)
	if resp, err := n.CallSync("host", "echo", 1); err != nil || !resp.OK() { // under another agreement
		t.Fatal(resp, err)
	}
	if first.sessions.current() == nil {
		t.Error("a key is forgotten that somebody uses")
	}
	d.leave(first)
	if first.sessions.current() != nil {
		t.Error("a key is there that nobody uses")
	}
	second := d.agreement
	n.ClosePeer("host")
	if second.sessions.current() != nil {
		t.Error("a key is there after ClosePeer")
	}
}
