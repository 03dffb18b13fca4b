package owtp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/legacy"
)

// What tests of version 1 have in common. The callers here are made of
// internal/legacy alone, so that they can do what no node of ours would.

// A v1Host is a node that version 1 peers may call.
type v1Host struct {
	t    testing.TB
	node *OWTPNode
	addr string
	now  atomic.Int64 // Unix milliseconds

	mu   sync.Mutex
	seen []v1Seen
}

// v1Seen is what a handler saw of one request.
type v1Seen struct {
	method, pid, data      string
	proved, signed, sealed bool
}

// v1Time is when tests of version 1 take place, and v1Start when their nodes
// begin.
const (
	v1Time  int64 = 1795362133
	v1Start       = v1Time - 10
)

func newV1Host(t testing.TB, cfg ConnectConfig, change ...func(*NodeConfig)) *v1Host {
	t.Helper()
	h := &v1Host{t: t}
	h.now.Store(v1Start * 1000)
	nodeConfig := NodeConfig{Cert: NewRandomCertificate()}
	for _, f := range change {
		f(&nodeConfig)
	}
	full, err := nodeConfig.withDefaults(2)
	if err != nil {
		t.Fatal(err)
	}
	h.node, err = newNode(full, rand.Reader, func() time.Time { return time.UnixMilli(h.now.Load()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.node.Close() })
	h.handle()
	h.addr = h.listen(cfg)
	h.now.Store(v1Time * 1000)
	return h
}

// listen opens one more listener.
func (h *v1Host) listen(cfg ConnectConfig) string {
	h.t.Helper()
	if cfg.ConnectType == "" {
		cfg.ConnectType = HTTP
	}
	if cfg.Address == "" {
		cfg.Address = "127.0.0.1:0"
	}
	cfg.AllowV1 = true
	l, tcfg, tr, err := h.node.newListener(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	if l.tl, err = tr.Listen(context.Background(), tcfg, l); err != nil {
		h.t.Fatal(err)
	}
	l.name()
	h.node.mu.Lock()
	h.node.listeners[l] = struct{}{}
	h.node.startSweeping()
	h.node.mu.Unlock()
	return l.tl.Addr().String()
}

// handle has the handlers of the recorded exchanges.
func (h *v1Host) handle() {
	note := func(ctx *Context) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.seen = append(h.seen, v1Seen{ctx.Method, ctx.PID, string(ctx.Data()), ctx.Proved(), ctx.Signed(), ctx.Peer.EnableKeyAgreement()})
	}
	for method, f := range map[string]HandlerFunc{
		"echo": func(ctx *Context) { ctx.Response(json.RawMessage(ctx.Data()), StatusSuccess, "success") },
		"getInfo": func(ctx *Context) {
			ctx.Response(json.RawMessage(`{"symbols":[{"coin":"btc","walletID":"w1"}]}`), StatusSuccess, "success")
		},
		"fail":        func(ctx *Context) { ctx.Response(nil, 600, "handler failed on purpose") },
		"silent":      func(*Context) {},
		"unencodable": func(ctx *Context) { ctx.Response(make(chan int), StatusSuccess, "success") },
		"panic":       func(*Context) { panic("planted") },
		"callback": func(ctx *Context) {
			resp, err := ctx.Node().CallSync(ctx.PID, "ping", json.RawMessage(ctx.Data()))
			if err != nil {
				ctx.Response(nil, StatusOf(err), err.Error())
				return
			}
			ctx.Response(map[string]any{"status": resp.Status, "msg": resp.Msg, "result": resp.Result}, StatusSuccess, "success")
		},
	} {
		if err := h.node.HandleFunc(method, func(ctx *Context) { note(ctx); f(ctx) }); err != nil {
			h.t.Fatal(err)
		}
	}
}

// taken returns what handlers have seen since the last time.
func (h *v1Host) taken() []v1Seen {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := h.seen
	h.seen = nil
	return seen
}

// untouched fails if a handler ran.
func (h *v1Host) untouched(why string) {
	h.t.Helper()
	if seen := h.taken(); len(seen) > 0 {
		h.t.Errorf("%s: a handler ran: %+v", why, seen)
	}
}

// alive fails if the host does not serve any more.
func (h *v1Host) alive() {
	h.t.Helper()
	body := h.post(`{"r":1,"m":"nosuch","n":1,"d":null,"v":1}`, newV1Stranger(h.t).announce())
	if body == "" {
		h.t.Error("the host does not serve any more")
	}
}

var v1Client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Second}}

// post sends a body, with header a unless it is "".
func (h *v1Host) post(body, announce string) string {
	h.t.Helper()
	r, err := http.NewRequest(http.MethodPost, "http://"+h.addr+"/", strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header["Content-Type"] = []string{"application/json; charset=UTF-8"}
	if announce != "" {
		r.Header["A"] = []string{announce}
	}
	resp, err := v1Client.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		h.t.Fatalf("status %d, %v: %s", resp.StatusCode, err, text)
	}
	return string(text)
}

// A v1Stranger is a version 1 peer with a key, made of internal/legacy alone.
type v1Stranger struct {
	t       testing.TB
	key     *identity.PrivateKey
	begun   *legacy.Initiator
	session *legacy.Session
	nonce   uint64
	now     int64
	version int64
	signs   bool
}

var v1Strangers atomic.Uint64 // so that no two begin with one nonce

func newV1Stranger(t testing.TB) *v1Stranger {
	t.Helper()
	key, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &v1Stranger{t: t, key: key, nonce: 2124528881292546048 + v1Strangers.Add(1)<<22, now: v1Time, version: 1}
}

func (c *v1Stranger) announce() string { return c.key.Public().String() }
func (c *v1Stranger) id() string       { return v1ID(c.key.ID()) }

// request makes a packet, sealed if an agreement was made and signed if the
// caller signs.
func (c *v1Stranger) request(method, data string) *legacy.Packet {
	c.t.Helper()
	c.nonce++
	p := &legacy.Packet{Kind: legacy.Request, Method: method, Nonce: c.nonce, Time: c.now, Version: c.version}
	err := p.SetJSON([]byte(data))
	if c.session != nil {
		p.Keys = c.session.RequestKeys()
		err = p.SealJSON(c.session, []byte(data))
	}
	if err == nil && c.signs {
		err = legacy.Sign(rand.Reader, c.key, p)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// begin makes the packet that asks for an agreement.
func (c *v1Stranger) begin() *legacy.Packet {
	c.t.Helper()
	var err error
	if c.begun, err = legacy.Initiate(rand.Reader, c.key); err != nil {
		c.t.Fatal(err)
	}
	c.session = nil
	p := c.request(legacy.MethodAgree, "null")
	p.Keys = c.begun.Keys()
	return p
}

func v1Text(t testing.TB, p *legacy.Packet) string {
	t.Helper()
	b, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// opened reads an answer, and takes over a new session as version 1's clients
// do.
func (c *v1Stranger) opened(body string) legacy.Result {
	c.t.Helper()
	p, err := legacy.ParsePacket([]byte(body), 1<<20)
	if err != nil || p.Kind != legacy.Response {
		c.t.Fatalf("no response: %q, %v", body, err)
	}
	if p.Keys.ResponderCheck == "" {
		return v1Result(c.t, []byte(p.Data))
	}
	if c.session == nil || !c.session.IsResponse(p.Keys) {
		if c.session, err = c.begun.Finish(p.Keys, nil); err != nil {
			c.t.Fatal(err)
		}
	}
	sealed, err := p.Text()
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := c.session.Open(sealed, p.Version, p.Nonce)
	if err != nil {
		c.t.Fatalf("the answer does not open: %v", err)
	}
	return v1Result(c.t, text)
}

func v1Result(t testing.TB, text []byte) legacy.Result {
	t.Helper()
	r, err := legacy.ParseResult(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return *r
}

// call makes a call over HTTP.
func (c *v1Stranger) call(h *v1Host, method, data string) legacy.Result {
	c.t.Helper()
	return c.opened(h.post(v1Text(c.t, c.request(method, data)), c.announce()))
}

// agree makes an agreement over HTTP.
func (c *v1Stranger) agree(h *v1Host) {
	c.t.Helper()
	if r := c.opened(h.post(v1Text(c.t, c.begin()), c.announce())); r.Status != 200 || c.session == nil {
		c.t.Fatalf("no agreement: %+v", r)
	}
}

// v1Vectors reads a file of recorded exchanges.
func v1Vectors(t testing.TB, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("internal", "legacy", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(into); err != nil {
		t.Fatal(name, err)
	}
}

func testLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(&lockedWriter{w: w}, nil))
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
