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
	"testing"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/legacy"
)

// The calling side of version 1: against the recorded exchanges, and against our
// own listener.

// newV1Caller is a node that calls in version 1, with the clock of a time.
func newV1Caller(t testing.TB, now func() time.Time, change ...func(*NodeConfig)) *OWTPNode {
	t.Helper()
	cfg := NodeConfig{Cert: NewRandomCertificate()}
	for _, f := range change {
		f(&cfg)
	}
	full, err := cfg.withDefaults(2)
	if err != nil {
		t.Fatal(err)
	}
	n, err := newNode(full, rand.Reader, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func v1Now() time.Time { return time.Unix(v1Time, 0) }

// v1Modes are those of version 1.
var v1Modes = map[string]ConnectConfig{
	"plain": {}, "signed": {EnableSignature: true}, "agreed": {EnableKeyAgreement: true}, "agreed and signed": {EnableSignature: true, EnableKeyAgreement: true},
}

// at is a configuration that dials a host in version 1.
func (c ConnectConfig) at(addr, connectType string) ConnectConfig {
	c.Address, c.ConnectType, c.Version = addr, connectType, 1
	return c
}

// A v1Peer answers over HTTP, octets by octets, as a test wants it to.
type v1Peer struct {
	t    testing.TB
	key  *identity.PrivateKey
	addr string

	mu     sync.Mutex
	got    []v1Got
	answer func(q *legacy.Packet) string
}

// v1Got is one request as it came.
type v1Got struct {
	header http.Header
	body   string
}

func newV1Peer(t testing.TB, answer func(q *legacy.Packet) string) *v1Peer {
	t.Helper()
	key, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &v1Peer{t: t, key: key, answer: answer}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.addr = s.Listener.Addr().String()
	return p
}

func (p *v1Peer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p.mu.Lock()
	p.got = append(p.got, v1Got{r.Header, string(body)})
	answer := p.answer
	p.mu.Unlock()
	q, err := legacy.ParsePacket(body, 1<<20)
	if err != nil {
		p.t.Errorf("the caller sends %q: %v", body, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, answer(q))
}

func (p *v1Peer) id() string { return p.key.ID().String() }

// taken returns what came since the last time.
func (p *v1Peer) taken() []v1Got {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

func (p *v1Peer) answers(f func(q *legacy.Packet) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// The recorded clients' requests are made octet by octet, but for signatures,
// which have a random part, and are verified; and the recorded answers give the
// recorded results.
func TestV1CallsAsRecordedHTTP(t *testing.T) {
	t.Parallel()
	r := readV1(t)
	cert, err := NewCertificate(r.Client)
	if err != nil {
		t.Fatal(err)
	}
	same, signed := 0, 0
	for _, s := range r.Scenarios {
		if s.HTTP == nil || s.Results == nil {
			continue
		}
		i := 0
		peer := newV1Peer(t, func(*legacy.Packet) string { i++; return s.HTTP[i-1].Response.Body })
		var sent []*legacy.Packet
		for _, e := range s.HTTP {
			p, err := legacy.ParsePacket([]byte(e.Request.Body), 1<<20)
			if err != nil {
				t.Fatal(s.Name, err)
			}
			sent = append(sent, p)
		}
		n := newV1Caller(t, func() time.Time { return time.Unix(sent[min(i, len(sent)-1)].Time, 0) }, func(c *NodeConfig) { c.Cert = cert })
		n.v1Numbers = func() uint64 { return sent[i].Nonce }
		if s.Agreement != nil {
			scalar := s.Agreement.scalar(t)
			n.v1Ephemeral = func() io.Reader { return bytes.NewReader(scalar) }
		}
		err := n.Connect(r.ServerID, ConnectConfig{EnableSignature: s.Signs, EnableKeyAgreement: s.Agrees}.at(peer.addr, HTTP))
		if s.Name == "http_unauthorized_keyagreement" {
			if !errors.As(err, new(*Error)) || StatusOf(err) != ErrUnauthorized || !strings.Contains(err.Error(), "verify signature failed") {
				t.Errorf("%s: %v", s.Name, err)
			}
		} else if err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		} else {
			for j, want := range s.Results {
				params := s.HTTP[i].Request.params(t, sent[i])
				resp, err := n.CallSync(r.ServerID, sent[i].Method, params)
				if err != nil {
					t.Fatalf("%s: call %d: %v", s.Name, j, err)
				}
				var result any
				if err := json.Unmarshal(resp.Result.(json.RawMessage), &result); err != nil {
					t.Fatal(err)
				}
				if got := (v1ClientResult{sent[i-1].Method, resp.Status, resp.Msg, result}); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: call %d gives %+v, recorded %+v", s.Name, j, got, want)
				}
			}
		}
		got := peer.taken()
		if len(got) != len(s.HTTP) {
			t.Fatalf("%s: %d requests, recorded %d", s.Name, len(got), len(s.HTTP))
		}
		for k, g := range got {
			name := fmt.Sprintf("%s/%d", s.Name, k)
			recorded := s.HTTP[k].Request
			for _, h := range []string{"A", "Content-Type"} {
				if g.header.Get(h) != head(recorded.Head, h) {
					t.Errorf("%s: header %s is %q, recorded %q", name, h, g.header.Get(h), head(recorded.Head, h))
				}
			}
			body := g.body
			if sent[k].Signature != "" {
				signed++
				body = resigned(t, name, body, sent[k].Signature)
			}
			if same++; body != recorded.Body {
				t.Errorf("%s: sent\n%s\nrecorded\n%s", name, g.body, recorded.Body)
			}
		}
	}
	if same != 25 || signed != 9 {
		t.Errorf("%d requests compared, %d of them signed", same, signed)
	}
}

// resigned verifies the signature of a request and puts another in its place.
func resigned(t testing.TB, name, body, signature string) string {
	t.Helper()
	p, err := legacy.ParsePacket([]byte(body), 1<<20)
	if err != nil {
		t.Fatal(name, err)
	}
	if _, err := legacy.Verify(p, nil); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return strings.Replace(body, p.Signature, signature, 1)
}

// params are what the recorded client was called with.
func (e *v1Body) params(t testing.TB, p *legacy.Packet) any {
	t.Helper()
	switch {
	case e.Decrypted == nil:
		return p.Data
	case json.Valid([]byte(*e.Decrypted)):
		return json.RawMessage(*e.Decrypted)
	}
	return *e.Decrypted
}

// Every mode, against our own listener: the result, who the peer takes the
// caller for, and that everything but plain calls is sealed or signed.
func TestV1CallsOurOwn(t *testing.T) {
	t.Parallel()
	for name, mode := range v1Modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newV1Host(t, ConnectConfig{EnableSignature: mode.EnableSignature, EnableKeyAgreement: mode.EnableKeyAgreement})
			n := newV1Caller(t, v1Now)
			if err := n.Connect(h.node.NodeID(), mode.at(h.addr, HTTP)); err != nil {
				t.Fatal(err)
			}
			for _, params := range []string{`{"a":1}`, `null`, `"bare"`, `"<&>\u2028"`, `[1.5e3,true]`, `-12345678901234567890`, `false`} {
				if mode.EnableKeyAgreement && params == `"bare"` {
					continue // version 1 takes the quotes away, and what is left is no JSON
				}
				resp, err := n.CallSync(h.node.NodeID(), "echo", json.RawMessage(params))
				if mode.EnableKeyAgreement && params[0] == '"' {
					if err != nil || resp.Status != 502 {
						t.Errorf("%s: %+v %v", params, resp, err)
					}
					continue
				}
				if err != nil || !resp.OK() || !sameJSON("x "+string(resp.Result.(json.RawMessage)), "x "+params) {
					t.Errorf("%s: %+v %v", params, resp, err)
				}
			}
			seen := h.taken()
			if len(seen) == 0 {
				t.Fatal("no handler ran")
			}
			for _, s := range seen {
				if s.signed != mode.EnableSignature || s.sealed != mode.EnableKeyAgreement || s.proved != mode.EnableSignature || s.proved && s.pid != "v1:"+n.NodeID() {
					t.Errorf("the handler saw %+v", s)
				}
			}
			for method, status := range map[string]uint64{"fail": 600, "silent": 0, "nosuch": 404, "panic": 500} {
				if resp, err := n.CallSync(h.node.NodeID(), method, nil); err != nil || resp.Status != status {
					t.Errorf("%s: %+v %v, want %d", method, resp, err, status)
				} else if e := resp.Err(); status >= 400 && (StatusOf(e) != status || e.(*Error).Proved != mode.EnableKeyAgreement) {
					t.Errorf("%s: %#v", method, e)
				}
			}
			var wait sync.WaitGroup
			for range 8 {
				wait.Go(func() {
					if resp, err := n.CallSync(h.node.NodeID(), "getInfo", nil); err != nil || resp.JsonData().Get("symbols.0.coin").String() != "btc" {
						t.Error(resp, err)
					}
				})
			}
			wait.Wait()
		})
	}
}

// What is smaller than asked for is refused by our listener, and the caller is
// told so in its words.
func TestV1CallsWeakerThanAsked(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{EnableSignature: true, EnableKeyAgreement: true})
	for name, status := range map[string]uint64{"plain": 401, "signed": 402, "agreed": 401} {
		n := newV1Caller(t, v1Now)
		err := n.Connect("host", v1Modes[name].at(h.addr, HTTP))
		if err == nil {
			var resp *Response
			if resp, err = n.CallSync("host", "echo", 1); err == nil {
				err = resp.Err()
			}
		}
		if StatusOf(err) != status {
			t.Errorf("%s: %v, want %d", name, err, status)
		}
	}
	h.untouched("weaker calls")
}

// KeyAgreement after Connect seals what follows. Connect in version 2 and in
// version 1 to one listener stay two things.
func TestV1CallsKeyAgreement(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	n := newV1Caller(t, v1Now)
	id := h.node.NodeID()
	for name, cfg := range map[string]ConnectConfig{"one": ConnectConfig{}.at(h.addr, HTTP), "two": {Address: h.addr, ConnectType: HTTP, EnableSignature: true}} {
		if err := n.Connect(name, cfg); err != nil {
			t.Fatal(err)
		}
	}
	call := func(name string) v1Seen {
		t.Helper()
		if resp, err := n.CallSync(name, "echo", 1); err != nil || !resp.OK() {
			t.Fatal(resp, err)
		}
		return h.taken()[0]
	}
	if s := call("one"); s.sealed || s.proved {
		t.Errorf("before: %+v", s)
	}
	for _, suite := range []string{"sm4", "AES", ""} {
		if err := n.KeyAgreement("one", suite); err == nil {
			t.Errorf("suite %q", suite)
		}
	}
	if s := call("one"); s.sealed {
		t.Errorf("after what is no suite of version 1: %+v", s)
	}
	if err := n.KeyAgreement("one", "aes"); err != nil {
		t.Fatal(err)
	}
	if s := call("one"); !s.sealed {
		t.Errorf("after: %+v", s)
	}
	if s := call("two"); s.pid != n.NodeID() || !s.signed {
		t.Errorf("version 2: %+v", s)
	}
	if s := call(id); s.pid != n.NodeID() { // who is called by ID is called as the ID was proved
		t.Errorf("by ID: %+v", s)
	}
	all, err := n.Bindings(context.Background())
	if err != nil || all["two"] != id || all["v1:one"] != id || len(all) != 2 {
		t.Errorf("bindings are %v, %v", all, err)
	}
	n.ClosePeer("one")
	if _, err := n.CallSync("one", "echo", 1); !errors.Is(err, ErrUnknownPeer) {
		t.Error(err)
	}
	if s := call("two"); s.pid != n.NodeID() {
		t.Errorf("version 2: %+v", s)
	}
}

// A peer whose secret has changed answers under a new key, which the caller
// takes over. One that has forgotten the old one says 502 under it: what may run
// twice is called again, anything else is not.
func TestV1CallsWhoForgets(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	n := newV1Caller(t, v1Now)
	if err := n.Connect("host", v1Modes["agreed"].at(h.addr, HTTP)); err != nil {
		t.Fatal(err)
	}
	secret := func(change func(v *v1Sessions)) {
		h.node.mu.Lock()
		defer h.node.mu.Unlock()
		for v := range h.node.v1Sessions {
			v.mu.Lock()
			change(v)
			v.mu.Unlock()
		}
	}
	call := func(opts *CallOptions) (*Response, error) {
		return n.CallContext(context.Background(), "host", "echo", 1, opts)
	}
	if resp, err := call(nil); err != nil || !resp.OK() {
		t.Fatal(resp, err)
	}
	secret(func(v *v1Sessions) { v.before, v.secret = v.secret, v1Secret{} })
	for range 2 {
		if resp, err := call(nil); err != nil || !resp.OK() {
			t.Fatal("under the next secret:", resp, err)
		}
	}
	h.taken()
	forget := func(v *v1Sessions) { v.before, v.secret = v1Secret{}, v1Secret{} }
	secret(forget)
	_, err := call(nil)
	if e := (*Error)(nil); !errors.As(err, &e) || e.Status != ErrOutcomeUnknown || !e.MayHaveRun {
		t.Errorf("to who has forgotten: %v", err)
	}
	h.untouched("a call under a key that is forgotten")
	if resp, err := call(nil); err != nil || !resp.OK() {
		t.Error("the next call:", resp, err)
	}
	h.taken()
	secret(forget)
	if resp, err := call(&CallOptions{Repeatable: true}); err != nil || !resp.OK() || len(h.taken()) != 1 {
		t.Error("a call that may run twice:", resp, err)
	}
}

// What is said once of each peer that is called.
func TestV1CallsAreLogged(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	var text bytes.Buffer
	w := &lockedWriter{w: &text}
	n := newV1Caller(t, v1Now, func(c *NodeConfig) { c.Logger = testLogger(w) })
	for range 3 {
		for name, mode := range v1Modes {
			if err := n.Connect(name, func() ConnectConfig { m := mode; m.PeerID = h.node.NodeID(); return m.at(h.addr, HTTP) }()); err != nil {
				t.Fatal(err)
			}
			n.ClosePeer(name)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for risk, times := range map[string]int{
		"a peer is called in version 1": 4, "who answers is not known": 2, "who answers is known": 2, "not_proved=" + h.node.NodeID(): 2,
	} {
		if got := strings.Count(text.String(), risk); got != times {
			t.Errorf("%q stands %d times in the log, want %d", risk, got, times)
		}
	}
}

// Identify makes an agreement, which proves the ID, and remembers nothing.
func TestV1CallsIdentify(t *testing.T) {
	t.Parallel()
	for _, connectType := range []string{HTTP, Websocket} {
		h := newV1Host(t, ConnectConfig{ConnectType: connectType, EnableSignature: true})
		n := newV1Caller(t, v1Now)
		identify := func(cfg ConnectConfig) (string, error) {
			return n.Identify(t.Context(), cfg.at(h.addr, connectType))
		}
		if id, err := identify(v1Modes["signed"]); err != nil || id != h.node.NodeID() {
			t.Errorf("%s: %q %v", connectType, id, err)
		}
		if id, err := identify(ConnectConfig{}); StatusOf(err) != ErrUnauthorized || strings.Contains(err.Error(), "is not trusted") {
			t.Errorf("%s, unsigned: %q %v", connectType, id, err)
		}
		other := v1Modes["signed"]
		other.PeerID = n.NodeID()
		if id, err := identify(other); !errors.Is(err, ErrTrust) {
			t.Errorf("%s, another one: %q %v", connectType, id, err)
		}
		own := v1Modes["signed"]
		own.V1Cert = h.node.Certificate()
		if id, err := identify(own); err == nil {
			t.Errorf("%s, itself: %q", connectType, id)
		}
		if all, err := n.Bindings(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("%s: %v %v", connectType, all, err)
		}
		h.untouched("Identify")
	}
}
