package owtp

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Both versions on one listener: what one of them does is nothing to the other.

// A flood of strangers of one version uses up nothing of the other's, from the
// same address.
func TestV1FloodsTakeNothingFromVersion2(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{}, func(c *NodeConfig) { c.Limits.MaxHandshakeRate = 3 })
	h.node.now = time.Now
	dial := ConnectConfig{ConnectType: HTTP, Address: h.addr, EnableKeyAgreement: true}
	flood := func() (refused int) {
		for range 60 {
			c := newV1Stranger(t)
			if r := c.opened(h.post(v1Text(t, c.begin()), c.announce())); r.Status == 429 {
				refused++
			}
		}
		return refused
	}
	if flood() == 0 {
		t.Fatal("no flood")
	}
	meet := func() error {
		client := lifeNode(t, NodeConfig{Cert: NewRandomCertificate()})
		if err := client.Connect("host", dial); err != nil {
			return err
		}
		_, err := client.CallSync("host", "echo", 1)
		return err
	}
	if err := meet(); err != nil {
		t.Errorf("a stranger of version 2 while version 1 is flooded: %v", err)
	}
	// And the other way round, once version 1's share is there again.
	h.node.gate.mu.Lock()
	clear(h.node.gate.due)
	h.node.gate.mu.Unlock()
	refused := 0
	for range 60 {
		if meet() != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Fatal("no flood of version 2")
	}
	c := newV1Stranger(t)
	c.signs, c.now = true, time.Now().Unix()
	if r := c.call(h, "echo", "1"); r.Status != 200 {
		t.Errorf("a stranger of version 1 while version 2 is flooded: %+v", r)
	}
}

// On a connection and off it: the same key is two peers, which neither count nor
// close each other, and lists say so.
func TestV1ClosesNothingOfVersion2(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{ConnectType: Websocket}, func(c *NodeConfig) { c.Limits.MaxConnsPerPeer = 1; c.Limits.MaxRequestsPerPeer = 4 })
	h.node.now = time.Now
	closed := make(chan string, 4)
	h.node.SetCloseHandler(func(_ *OWTPNode, p PeerInfo) { closed <- p.ID })
	for method, f := range map[string]HandlerFunc{
		"keep": v1Keep,
		"bye":  func(ctx *Context) { ctx.Close(); ctx.Response("bye", 200, "") },
	} {
		if err := h.node.HandleFunc(method, f); err != nil {
			t.Fatal(err)
		}
	}
	c := newV1Stranger(t)
	c.signs, c.now = true, time.Now().Unix()
	conn := h.dial(c.announce())
	c.opened(conn.ask(c.begin()))
	client := lifeNode(t, NodeConfig{Cert: Certificate{c.key}})
	if c.id() != v1ID(client.local.Key.ID()) {
		t.Fatal("not the same key")
	}
	if err := client.Connect("host", ConnectConfig{ConnectType: Websocket, Address: h.addr, EnableKeyAgreement: true}); err != nil {
		t.Fatalf("version 1's connection counts as one of version 2's: %v", err)
	}
	if r := c.opened(conn.ask(c.request("keep", "1"))); r.Status != 200 || string(r.Result) != `"`+c.id()+`"` {
		t.Errorf("version 1: %+v", r)
	}
	if resp, err := client.CallSync("host", "keep", 1); err != nil || resp.Status != 200 || fmt.Sprint(resp.JsonData()) != client.NodeID() {
		t.Errorf("version 2 finds version 1's session: %+v, %v", resp, err)
	}
	two, one := h.node.linkOf(client.NodeID()), h.node.linkOf(c.id())
	if two == nil || one == nil || two == one {
		t.Fatalf("one peer: %v, %v", one, two)
	}
	named := 0
	for _, p := range h.node.OnlinePeers() {
		if p.PID() == client.NodeID() {
			if named++; p.link != two {
				t.Error("version 1's connection is listed as version 2's peer")
			}
		}
	}
	if named != 1 {
		t.Errorf("version 2's peer is listed %d times", named)
	}
	// Version 2's limit is not used up by what version 1 runs.
	wake, began := make(chan struct{}), make(chan struct{}, 8)
	if err := h.node.HandleFunc("hold", func(*Context) { began <- struct{}{}; <-wake }); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		conn.send(v1Text(t, c.request("hold", "1")))
		v1Next(t, "a handler", began)
	}
	if r := c.opened(conn.ask(c.request("echo", "1"))); r.Status != 429 {
		t.Errorf("over version 1's limit: %+v", r)
	}
	if resp, err := client.CallSync("host", "echo", 1); err != nil || resp.Status != 200 {
		t.Errorf("version 2 over version 1's limit: %+v, %v", resp, err)
	}
	close(wake)
	for range 4 {
		conn.next()
	}
	// Either ends alone, by itself, by its handler or by ClosePeer.
	c.opened(conn.ask(c.request("bye", "1")))
	if text, err := conn.read(10 * time.Second); err == nil {
		t.Errorf("after its handler has closed it: %s", text)
	}
	if resp, err := client.CallSync("host", "echo", 2); err != nil || resp.Status != 200 {
		t.Errorf("version 2 after version 1's end: %+v, %v", resp, err)
	}
	conn = h.dial(c.announce())
	c.opened(conn.ask(c.begin()))
	if r := c.opened(conn.ask(c.request("echo", "1"))); r.Status != 200 {
		t.Fatalf("%+v", r)
	}
	h.node.ClosePeer(client.NodeID())
	for id := v1Next(t, "the close handler", closed); id != client.NodeID(); id = v1Next(t, "the close handler", closed) {
		if id == c.key.ID().String() {
			t.Errorf("closed: %s", id)
		}
	}
	if r := c.opened(conn.ask(c.request("keep", "1"))); r.Status != 601 || string(r.Result) != `"`+c.id()+`"` {
		t.Errorf("version 1 after ClosePeer of version 2: %+v", r)
	}
	h.node.ClosePeer(c.id())
	if text, err := conn.read(10 * time.Second); err == nil {
		t.Errorf("ClosePeer of version 1 closes nothing: %s", text)
	}
}

// What was sealed on one connection means nothing on another, of the same peer or
// of two, nor in an exchange.
func TestV1AttackSplice(t *testing.T) {
	t.Parallel()
	for _, signed := range []bool{false, true} {
		h := newV1Host(t, ConnectConfig{ConnectType: Websocket})
		faces := map[string]string{"ws": h.addr, "http": h.listen(ConnectConfig{})}
		c, other := newV1Stranger(t), newV1Stranger(t)
		c.signs = signed
		first := h.dial(c.announce())
		c.opened(first.ask(c.begin()))
		if r := c.opened(first.ask(c.request("echo", "1"))); r.Status != 200 {
			t.Fatalf("%+v", r)
		}
		h.taken()
		begun := c.begun
		h.addr = faces["http"]
		for _, where := range []func(body string) string{
			h.dialAt(faces["ws"], c.announce()).askText, h.dialAt(faces["ws"], other.announce()).askText,
			func(body string) string { return h.post(body, c.announce()) }, func(body string) string { return h.post(body, "") },
		} {
			p := c.request("echo", `{"x":1}`)
			q := packetOf(t, where(v1Text(t, p)))
			if q.Keys.ResponderCheck == "" {
				if r := v1Result(t, q.Data); r.Status != 401 && r.Status != 502 {
					t.Errorf("signed %v: elsewhere: %+v", signed, r)
				}
			} else if s, err := begun.Finish(q.Keys, h.node.local.Key.Public()); err != nil || s.IsRequest(p.Keys) {
				t.Errorf("signed %v: elsewhere it is the same session: %v", signed, err)
			}
			h.untouched("a packet of another connection")
		}
	}
}

func (h *v1Host) dialAt(addr, announce string) *v1Conn {
	at := h.addr
	h.addr = addr
	defer func() { h.addr = at }()
	return h.dial(announce)
}

func (c *v1Conn) askText(body string) string {
	c.t.Helper()
	c.send(body)
	return c.next()
}

// No web page calls a node in version 1, whatever type it says its text has, and
// none is told that it may read the answer.
func TestV1AttackWebPage(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	const body = `{"r":1,"m":"getInfo","n":1,"v":1}`
	for _, typ := range []string{"application/json", "application/json; charset=UTF-8", "text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", ""} {
		for _, origin := range []string{"https://evil.example", "null", "", "http://" + h.addr, "http://localhost"} {
			r, err := http.NewRequest(http.MethodPost, "http://"+h.addr+"/", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header["Content-Type"], r.Header["Origin"] = []string{typ}, []string{origin}
			resp, err := v1Client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 403 || resp.Header.Get("Access-Control-Allow-Origin") != "" || resp.Header.Get("Access-Control-Allow-Headers") != "" {
				t.Errorf("type %q, origin %q: status %d, %v", typ, origin, resp.StatusCode, resp.Header)
			}
		}
	}
	r, err := http.NewRequest(http.MethodPost, "http://"+h.addr+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "evil.example"
	r.Header.Set("Content-Type", "application/json")
	if resp, err := v1Client.Do(r); err != nil || resp.Body.Close() != nil || resp.StatusCode < 400 {
		t.Errorf("a rebound name: %+v, %v", resp, err)
	}
	addr := h.listen(ConnectConfig{ConnectType: Websocket})
	for _, origin := range []string{"https://evil.example", "null", "http://" + addr} {
		ws, resp, err := websocket.Dial(t.Context(), "ws://"+addr, &websocket.DialOptions{HTTPHeader: http.Header{"A": {newV1Stranger(t).announce()}, "Origin": {origin}}})
		if err == nil {
			ws.CloseNow()
		}
		if err == nil || resp == nil || resp.StatusCode != 403 {
			t.Errorf("origin %q over WebSocket: %v", origin, err)
		}
	}
	h.untouched("a web page's call")
	h.alive()
}

// Who is on the way makes version 1 of what passes: of the type of an exchange,
// and of the upgrade of a connection. Version 2's caller takes no answer to that,
// and no handler runs.
func TestV1AttackTurnedOnTheWay(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{HTTP, Websocket} {
		for _, mode := range []ConnectConfig{{}, {EnableSignature: true}, {EnableKeyAgreement: true}, {EnableSignature: true, EnableKeyAgreement: true}} {
			t.Run(kind+" "+mode.mode().String(), func(t *testing.T) {
				t.Parallel()
				h := newV1Host(t, ConnectConfig{ConnectType: kind})
				h.node.now = time.Now
				mode.ConnectType = kind
				if err := h.callThrough(t, mode, false, 20*time.Second); err != nil {
					t.Fatal("nothing is turned, and yet:", err)
				}
				if seen := h.taken(); len(seen) == 0 {
					t.Fatal("no handler ran")
				}
				if err := h.callThrough(t, mode, true, time.Second); err == nil {
					t.Error("the call has passed")
				}
				h.untouched("version 2 as version 1")
			})
		}
	}
}

// callThrough makes a call of version 2 by way of somebody who makes version 1 of
// it, or leaves it as it is.
func (h *v1Host) callThrough(t *testing.T, mode ConnectConfig, turn bool, patience time.Duration) error {
	t.Helper()
	turned := make(chan struct{}, 64)
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", h.addr, h.addr
		if turn {
			r.Out.Header["A"] = []string{newV1Stranger(t).announce()}
			r.Out.Header.Del("Sec-WebSocket-Protocol")
			if mode.ConnectType == HTTP {
				r.Out.Header.Set("Content-Type", "application/json; charset=UTF-8")
			}
		}
		turned <- struct{}{}
	}, ErrorLog: log.New(io.Discard, "", 0)})
	defer proxy.Close()
	client := lifeNode(t, NodeConfig{TimeoutSEC: int(patience / time.Second), Limits: Limits{HandshakeTimeout: patience}})
	defer client.Close()
	mode.Address = strings.TrimPrefix(proxy.URL, "http://")
	err := client.Connect("host", mode)
	if err == nil {
		_, err = client.CallSync("host", "echo", 1)
	}
	v1Next(t, "what passes by", turned)
	return err
}
