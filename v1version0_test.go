package owtp

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/legacy"
)

// Packets of version 0 under a key agreement, as old nodes send them: taken with
// InsecureV1PacketVersion0 and not without, and never as those of a peer whose
// packets are of version 1. (V1-WIRE §9, 13.)

// A listener without the option refuses such a peer, in words that name what is
// wrong, and tells its owner what would take it.
func TestV1PacketVersion0Refused(t *testing.T) {
	var text [3]bytes.Buffer
	for i, kind := range []string{HTTP, Websocket, MQ} {
		t.Run(kind, func(t *testing.T) {
			w := &lockedWriter{w: &text[i]}
			oneV1Way(t, kind, ConnectConfig{}, func(t *testing.T, h *v1Way) {
				for _, signs := range []bool{false, true} {
					for _, version := range []int64{0, 2, -1} {
						c := newV1Stranger(t)
						c.signs, c.version = signs, version
						begin := c.begin()
						if signs {
							if err := legacy.Sign(rand.Reader, c.key, begin); err != nil {
								t.Fatal(err)
							}
						}
						r := h.send(c, begin)
						h.refused("an agreement in packets of another version", r, 502)
						if c.session != nil || !strings.Contains(r.Msg, "packets of this version (v) are not taken here under an agreement") {
							t.Errorf("version %d: %+v", version, r)
						}
						// In the clear nothing depends on the version.
						if r := h.call(c, "echo", "1"); r.Status != 200 {
							t.Errorf("version %d, in the clear: %+v", version, r)
						}
						h.taken()
					}
				}
				h.well(newV1Stranger(t))
			}, func(c *NodeConfig) { c.Logger = testLogger(w) })
			w.mu.Lock()
			defer w.mu.Unlock()
			if !strings.Contains(text[i].String(), "InsecureV1PacketVersion0") {
				t.Errorf("the log does not name the option: %s", text[i].String())
			}
		})
	}
}

// With it such peers are served in both modes of an agreement. A copy of what is
// signed does not run.
func TestV1PacketVersion0(t *testing.T) {
	eachV1Way(t, ConnectConfig{InsecureV1PacketVersion0: true}, func(t *testing.T, w *v1Way) {
		for _, signs := range []bool{false, true} {
			c := newV1Stranger(t)
			c.signs, c.version = signs, 0
			w.agree(c)
			p := c.request("echo", `{"x":1}`)
			answer := w.ask(c.announce(), v1Text(t, p))
			if !strings.HasSuffix(answer, `"v":0}`) {
				t.Errorf("answered in another version: %s", answer)
			}
			if r := c.opened(answer); r.Status != 200 || string(r.Result) != `{"x":1}` {
				t.Errorf("signs %v: %+v", signs, r)
			}
			if seen := w.taken(); len(seen) != 1 || !seen[0].sealed || seen[0].signed != signs || signs != (seen[0].pid == c.id()) {
				t.Errorf("signs %v: %+v", signs, seen)
			}
			if signs {
				w.refused("a copy", w.send(c, p), 409)
			}
			if r := w.call(c, "getInfo", "null"); r.Status != 200 {
				t.Errorf("signs %v: %+v", signs, r)
			}
			w.taken()
			// Data that is not there says nothing about the version.
			empty := c.request("getInfo", `""`)
			w.refused("no data", w.send(c, empty), 502)
			w.agree(c)
			w.refused("data as an answer has it", w.send(c, reflected(c.request("echo", "1"), packetOf(t, answer))), 502)
			for _, version := range []int64{1, 2} {
				other := *c.request("echo", `{"x":1}`)
				other.Version = version
				w.refused("another version than was agreed on", w.send(c, &other), 502)
				w.agree(c)
			}
		}
		// Beside them the others are what they were.
		c := newV1Stranger(t)
		w.agree(c)
		p := c.request("echo", "1")
		if r := w.send(c, p); r.Status != 200 {
			t.Errorf("a peer of version 1: %+v", r)
		}
		w.taken()
		w.refused("a copy of what it has sealed", w.send(c, p), 409)
		w.well(c)
	})
}

// What is open then: copies of what is only sealed run, and who reads sees what
// begins alike; to a node that calls, an answer can be put in another's place.
func TestV1OpenPacketVersion0(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{InsecureV1PacketVersion0: true, InsecureV1TrustAgreement: true})
	c := newV1Stranger(t)
	c.version = 0
	c.agree(h)
	p, alike := c.request("echo", `{"amount":10,"to":"ada"}`), c.request("echo", `{"amount":10,"to":"bob"}`)
	if one, other := string(p.Data), string(alike.Data); one[:20] != other[:20] || one == other {
		t.Errorf("%s and %s", one, other)
	}
	for range 2 {
		if r := c.opened(h.post(v1Text(t, p), c.announce())); r.Status != 200 {
			t.Errorf("%+v", r)
		}
	}
	if seen := h.taken(); len(seen) != 2 || seen[1].pid != c.id() {
		t.Errorf("a copy is told from a second call: %+v", seen)
	}

	peer := newV1Peer(t, nil)
	first := ""
	peer.answers(func(q *legacy.Packet) string {
		resp, _ := peer.sealing(q, bytes.NewReader(peer.key.Bytes()), fmt.Sprintf(`{"status":200,"msg":"","result":%d}`, q.Nonce))
		if q.Method == "echo" && first == "" {
			first = string(resp.Data)
		}
		if q.Method == "echo" {
			resp.Data = json.RawMessage(first)
		}
		return v1Text(t, resp)
	})
	mode := v1Modes["agreed"]
	mode.InsecureV1PacketVersion0 = true
	n, err := peer.calledAt(peer.id(), mode)
	if err != nil {
		t.Fatal(err)
	}
	var results []string
	for range 2 {
		resp, err := n.CallSync(peer.id(), "echo", 1)
		if err != nil || !resp.OK() {
			t.Fatal(resp, err)
		}
		results = append(results, string(resp.Result.(json.RawMessage)))
	}
	if results[0] != results[1] {
		t.Errorf("the first answer does not pass as the second: %v", results)
	}
	// The node's own parameters do not pass as an answer: such are not sent.
	peer.taken()
	_, err = n.CallSync(peer.id(), "echo", json.RawMessage(v1Answer200))
	if StatusOf(err) != ErrBadRequest || !strings.Contains(err.Error(), "have the form of an answer") || len(peer.taken()) != 0 {
		t.Errorf("parameters like an answer: %v", err)
	}
}

// Nobody is called back under such an agreement: one key is that of both
// directions, and what one side asks could be sent back as what the other does.
func TestV1PacketVersion0CallsNobodyBack(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{ConnectType: Websocket, InsecureV1PacketVersion0: true})
	c := newV1Stranger(t)
	c.version = 0
	conn := h.dial(c.announce())
	c.opened(conn.ask(c.begin()))
	for _, signs := range []bool{false, true} {
		c.signs = signs
		if r := c.opened(conn.ask(c.request("callback", "1"))); r.Status != ErrKeyAgreementFailed || !strings.Contains(r.Msg, "Only peers that send packets of version 1 can be called back") {
			t.Errorf("signs %v: %+v", signs, r)
		}
	}
	// The same peer with current packets is.
	c.version, c.signs = 1, false
	c.opened(conn.ask(c.begin()))
	if r := c.serves(conn, c.request("callback", "1"), func(*legacy.Packet) string { return `{"status":200,"msg":"","result":1}` }); r.Status != 200 {
		t.Errorf("in packets of version 1: %+v", r)
	}

	mode := v1Modes["agreed"]
	mode.InsecureV1PacketVersion0 = true
	s := newV1Stand(t, "", mode)
	for _, signs := range []bool{false, true} {
		for _, version := range []int64{0, 1} {
			p := s.asks("1", false)
			p.Version = version
			if err := p.SealJSON(s.session, []byte("1")); err != nil {
				t.Fatal(err)
			}
			if signs {
				if err := legacy.Sign(rand.Reader, s.peer.key, p); err != nil {
					t.Fatal(err)
				}
			}
			s.refuses(fmt.Sprintf("called back in version %d, signed %v", version, signs), p, 502)
		}
	}
	resp, err := s.call(func(q *legacy.Packet) []string {
		if q.Version != 0 {
			t.Errorf("called in version %d", q.Version)
		}
		return []string{v1Text(t, s.answer(q, `{"status":200,"msg":"","result":1}`))}
	})
	if err != nil || !resp.OK() {
		t.Error("afterwards:", resp, err)
	}
}

// The calling side, every mode over every way, to a listener with the option; and
// to one without.
func TestV1CallsPacketVersion0(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{HTTP, Websocket, MQ} {
		for name, mode := range v1Modes {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				mode.InsecureV1PacketVersion0 = true
				for _, take := range []bool{true, false} {
					oneV1Way(t, kind, ConnectConfig{EnableSignature: mode.EnableSignature, EnableKeyAgreement: mode.EnableKeyAgreement, InsecureV1PacketVersion0: take}, func(t *testing.T, w *v1Way) {
						n := newV1Caller(t, v1Now)
						id := w.node.NodeID()
						err := n.Connect(id, w.callerOf(mode))
						if !take && mode.EnableKeyAgreement {
							if StatusOf(err) != ErrKeyAgreementFailed || !strings.Contains(err.Error(), "packets of this version (v) are not taken here") {
								t.Errorf("to a listener without the option: %v", err)
							}
							w.untouched("an agreement that is refused")
							return
						}
						if err != nil {
							t.Fatal(err)
						}
						for range 2 {
							resp, err := n.CallSync(id, "echo", json.RawMessage(`{"a":1}`))
							if err != nil || resp.JsonData().Get("a").Int() != 1 {
								t.Errorf("%+v %v", resp, err)
							}
						}
						for _, s := range w.taken() {
							if s.signed != mode.EnableSignature || s.sealed != mode.EnableKeyAgreement {
								t.Errorf("the handler saw %+v", s)
							}
						}
					})
				}
			})
		}
	}
}

// Who answers a packet of version 1 as old nodes do, which do not know of it, is
// not believed; the error says what it is, and what would take it.
func TestV1CallsPacketVersion0Refused(t *testing.T) {
	t.Parallel()
	peer := newV1Peer(t, nil)
	peer.answers(func(q *legacy.Packet) string {
		q.Version = 0
		resp, _ := peer.sealing(q, bytes.NewReader(peer.key.Bytes()), `{"status":200,"msg":"success","result":null}`)
		return v1Text(t, resp)
	})
	for _, name := range []string{"agreed", "agreed and signed"} {
		_, err := peer.calledAt(peer.id(), v1Modes[name])
		if StatusOf(err) != ErrResponseMethodDiffer || !strings.Contains(err.Error(), "packet version 0") || !strings.Contains(err.Error(), "ConnectConfig.InsecureV1PacketVersion0") {
			t.Errorf("%s, over HTTP: %v", name, err)
		}
		mode := v1Modes[name]
		mode.InsecureV1PacketVersion0 = true
		n, err := peer.calledAt(peer.id(), mode)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := n.CallSync(peer.id(), "echo", 1); err != nil || !resp.OK() {
			t.Errorf("%s, with the option: %+v %v", name, resp, err)
		}
	}
	ws := newV1WSPeer(t)
	n := newV1Caller(t, v1Now)
	done := make(chan error, 1)
	go func() { done <- n.Connect(ws.id(), v1Modes["agreed"].at(ws.addr, Websocket)) }()
	conn := ws.accept()
	q := conn.packet()
	q.Version = 0
	s := &v1Stand{t: t, peer: ws}
	var err error
	if s.session, err = legacy.Respond(rand.Reader, ws.key, q.Keys); err != nil {
		t.Fatal(err)
	}
	conn.send(v1Text(t, s.answer(q, v1Answer200)))
	if err := <-done; StatusOf(err) != ErrResponseMethodDiffer || !strings.Contains(err.Error(), "ConnectConfig.InsecureV1PacketVersion0") {
		t.Errorf("over WebSocket: %v", err)
	}
}

// A v1Between stands between a caller and a host over HTTP, and changes the packet
// versions of what passes.
type v1Between struct {
	t        testing.TB
	addr     string
	requests atomic.Int64 // which requests it changes from here on: none, all, all but agreements
	to, back string       // "v" of requests and of answers; "" as it is
	passed   atomic.Int64 // answers that were sealed
}

const (
	v1ChangeNone = iota
	v1ChangeAll
	v1ChangeCalls
)

func newV1Between(t testing.TB, h *v1Host) *v1Between {
	t.Helper()
	b := &v1Between{t: t}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		change := b.requests.Load()
		agrees := strings.Contains(string(body), `"m":"`+legacy.MethodAgree+`"`)
		turn := change == v1ChangeAll || change == v1ChangeCalls && !agrees
		set := func(text, v string) string {
			i := strings.LastIndex(text, `"v":`)
			if v == "" || !turn || i < 0 {
				return text
			}
			return text[:i] + `"v":` + v + "}"
		}
		answer := h.post(set(string(body), b.to), r.Header.Get("A"))
		if p, err := legacy.ParsePacket([]byte(answer), 1<<20); err == nil && p.Keys.ResponderCheck != "" {
			b.passed.Add(1)
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, set(answer, b.back))
	}))
	t.Cleanup(s.Close)
	b.addr = s.Listener.Addr().String()
	return b
}

// Whoever takes the version away on the way, or gives one, gets nothing: no
// handler runs, no agreement is made, and nothing that is sealed under a key of
// the one version is under that of the other. Both sides of this library, with and
// without the option on either.
func TestV1AttackPacketVersionChanged(t *testing.T) {
	t.Parallel()
	for _, own := range []int64{1, 0} {
		for _, signs := range []bool{false, true} {
			for _, take := range []bool{false, true} {
				if own == 0 && !take {
					continue // refused anyhow
				}
				for _, change := range []int64{v1ChangeAll, v1ChangeCalls} {
					for _, restore := range []bool{false, true} {
						t.Run(fmt.Sprintf("own %d signs %v take %v change %d restore %v", own, signs, take, change, restore), func(t *testing.T) {
							h := newV1Host(t, ConnectConfig{InsecureV1PacketVersion0: take})
							b := newV1Between(t, h)
							b.to = fmt.Sprint(1 - own)
							if restore {
								b.back = fmt.Sprint(own)
							}
							n := newV1Caller(t, v1Now)
							mode := ConnectConfig{EnableKeyAgreement: true, EnableSignature: signs, InsecureV1PacketVersion0: own == 0}
							if change == v1ChangeAll {
								b.requests.Store(change)
								if err := n.Connect(h.node.NodeID(), mode.at(b.addr, HTTP)); err == nil {
									t.Error("an agreement was made")
								}
								if own == 1 && !take && b.passed.Load() != 0 {
									t.Error("something was sealed in a version that is not taken")
								}
								h.untouched("an agreement of another version")
								return
							}
							if err := n.Connect(h.node.NodeID(), mode.at(b.addr, HTTP)); err != nil {
								t.Fatal(err)
							}
							b.requests.Store(change)
							for _, params := range []any{map[string]int{"x": 1}, nil} {
								resp, err := n.CallContext(t.Context(), h.node.NodeID(), "echo", params, &CallOptions{Timeout: 5 * time.Second})
								if err == nil {
									t.Errorf("%v: %+v", params, resp)
								}
								h.untouched("a call whose version was changed")
							}
							b.requests.Store(v1ChangeNone)
							for range 2 { // an agreement that failed costs one call at most
								if resp, err := n.CallSync(h.node.NodeID(), "echo", 1); err == nil && resp.OK() {
									return
								}
							}
							t.Error("afterwards no call passes")
						})
					}
				}
			}
		}
	}
}

// The same without a key of anybody's: an agreement of each version is one of its
// own, so that the version taken away from a packet leaves one of no agreement,
// also where nobody has sealed anything; and on a connection.
func TestV1AttackPacketVersionsApart(t *testing.T) {
	eachV1Way(t, ConnectConfig{InsecureV1PacketVersion0: true}, func(t *testing.T, w *v1Way) {
		c := newV1Stranger(t)
		c.signs = true
		ephemerals := make(map[string]bool)
		begin := c.begin()
		for _, version := range []int64{1, 0} {
			p := *begin
			p.Version = version
			p.Nonce += uint64(version)
			if err := legacy.Sign(rand.Reader, c.key, &p); err != nil {
				t.Fatal(err)
			}
			answer := packetOf(t, w.ask(c.announce(), v1Text(t, &p)))
			if answer.Version != version || answer.Keys.ResponderCheck == "" {
				t.Fatalf("%+v", answer)
			}
			ephemerals[answer.Keys.ResponderEphemeral] = true
		}
		if len(ephemerals) != 2 {
			t.Error("both versions have one key")
		}
		w.agree(c)
		for _, data := range []string{`{"x":1}`, `""`} {
			p := c.request("getInfo", data)
			turned := *p
			turned.Version = 0
			answer := packetOf(t, w.ask(c.announce(), v1Text(t, &turned)))
			if c.session.IsResponse(answer.Keys) {
				t.Errorf("d %s: answered under the key of version 1, in version %d", data, answer.Version)
			}
			w.untouched("d " + data + " with the version taken away")
			if r := w.send(c, c.request("echo", `1`)); r.Status != 200 {
				t.Errorf("the peer's own, afterwards: %+v", r)
			}
			w.taken()
		}
	})
}

// The log says of such a peer, and of who is called so, what that leaves open.
func TestV1PacketVersion0IsLogged(t *testing.T) {
	t.Parallel()
	var served, called bytes.Buffer
	a, b := &lockedWriter{w: &served}, &lockedWriter{w: &called}
	h := newV1Host(t, ConnectConfig{InsecureV1PacketVersion0: true}, func(c *NodeConfig) { c.Logger = testLogger(a) })
	n := newV1Caller(t, v1Now, func(c *NodeConfig) { c.Logger = testLogger(b) })
	mode := v1Modes["agreed and signed"]
	mode.InsecureV1PacketVersion0 = true
	if err := n.Connect("host", mode.at(h.addr, HTTP)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := n.CallSync("host", "echo", 1); err != nil {
			t.Fatal(err)
		}
	}
	for w, text := range map[*lockedWriter]*bytes.Buffer{a: &served, b: &called} {
		w.mu.Lock()
		if got := strings.Count(text.String(), "one key encrypts all of"); got != 1 {
			t.Errorf("said %d times: %s", got, text)
		}
		w.mu.Unlock()
	}
}

// The recorded exchange with an old node's client, octet by octet in both roles.
// Without the option it is refused; the recorded ephemeral key of the client is
// not known, so that what it begins with is compared but for that.
func TestV1RecordedPacketVersion0(t *testing.T) {
	t.Parallel()
	r := readV1(t)
	var s v1Scenario
	for _, s = range r.Scenarios {
		if s.Name == "http_keyagreement_v0" {
			break
		}
	}
	if len(s.HTTP) != 2 {
		t.Fatalf("%d exchanges", len(s.HTTP))
	}
	for _, take := range []bool{true, false} {
		h := recordedHost(t, r, ConnectConfig{InsecureV1PacketVersion0: take})
		h.static()
		for i, e := range s.HTTP {
			p := packetOf(t, e.Response.Body)
			h.now.Store(p.Time * 1000)
			got := h.post(e.Request.Body, head(e.Request.Head, "a"))
			if take && got != e.Response.Body {
				t.Errorf("exchange %d: got\n%s\nrecorded\n%s", i, got, e.Response.Body)
			}
			if !take && v1Result(t, packetOf(t, got).Data).Status != ErrKeyAgreementFailed {
				t.Errorf("exchange %d without the option: %s", i, got)
			}
		}
		if seen := h.taken(); take != (len(seen) == 1) {
			t.Errorf("take %v: %+v", take, seen)
		}
	}

	// The calling side.
	client, err := NewCertificate(r.Client)
	if err != nil {
		t.Fatal(err)
	}
	server, err := NewCertificate(r.Server)
	if err != nil {
		t.Fatal(err)
	}
	begun, asked := packetOf(t, s.HTTP[0].Request.Body), packetOf(t, s.HTTP[1].Request.Body)
	peer := newV1Peer(t, nil)
	peer.key = server.key
	peer.answers(peer.honest(nil)) // of the agreement
	var nonce atomic.Uint64
	nonce.Store(begun.Nonce)
	n := newV1Caller(t, func() time.Time { return time.Unix(asked.Time, 0) }, func(c *NodeConfig) { c.Cert = client })
	n.v1Numbers = nonce.Load
	mode := v1Modes["agreed"]
	mode.InsecureV1PacketVersion0 = true
	if err := n.Connect(r.ServerID, mode.at(peer.addr, HTTP)); err != nil {
		t.Fatal(err)
	}
	got := peer.taken()[0].body
	if got = strings.Replace(got, packetOf(t, got).Keys.InitiatorEphemeral, begun.Keys.InitiatorEphemeral, 1); got != s.HTTP[0].Request.Body {
		t.Errorf("sent\n%s\nrecorded\n%s", got, s.HTTP[0].Request.Body)
	}
	n.v1Recorded(t, r.ServerID, server, asked, s.HTTP[0].Request.Body, s.HTTP[0].Response.Body)
	nonce.Store(asked.Nonce)
	peer.answers(func(*legacy.Packet) string { return s.HTTP[1].Response.Body })
	resp, err := n.CallSync(r.ServerID, asked.Method, json.RawMessage(*s.HTTP[1].Request.Decrypted))
	if err != nil || resp.Status != 200 || resp.Msg != "success" || string(resp.Result.(json.RawMessage)) != `{"x":1}` {
		t.Errorf("%+v %v", resp, err)
	}
	if got := peer.taken()[0].body; got != s.HTTP[1].Request.Body {
		t.Errorf("sent\n%s\nrecorded\n%s", got, s.HTTP[1].Request.Body)
	}
}

// v1Recorded puts the recorded session of a request in the place of the one that
// a peer was agreed on with, which only the recorded client could make: the
// server's scalars are known, and give the same keys. The recorded answer to its
// agreement opens as one then.
func (n *OWTPNode) v1Recorded(t testing.TB, name string, server Certificate, q *legacy.Packet, begun, answer string) {
	t.Helper()
	s, err := legacy.Respond(bytes.NewReader(server.key.Bytes()), server.key, q.Keys)
	if err != nil {
		t.Fatal(err)
	}
	if !s.IsRequest(q.Keys) {
		t.Fatal("the request is not of that session")
	}
	n.mu.Lock()
	r := n.remotes[name]
	n.mu.Unlock()
	a := r.v1.agreement
	if a == nil {
		r.mu.Lock()
		a = r.link.v1.caller.(*v1Line).agreement
		r.mu.Unlock()
	}
	held := &v1Session{s: s, refs: 1, version: q.Version}
	a.sessions.keep(held)
	a.sessions.release(held)
	p, proved, err := r.v1.open(a, packetOf(t, begun), packetOf(t, answer))
	if err != nil || !proved || p.Status != StatusSuccess || p.Msg != "success" {
		t.Errorf("the recorded answer to the agreement: %+v, %v", p, err)
	}
}

// callerOf is the configuration of a node of ours that calls the host this way.
func (w *v1Way) callerOf(mode ConnectConfig) ConnectConfig {
	if w.kind == MQ {
		if err := w.queue.ch.Cancel("ctag-client-2", false); err != nil { // who calls reads alone
			w.t.Fatal(err)
		}
		return w.queue.caller(w.broker.DSN, mode)
	}
	return mode.at(w.addr, w.kind)
}
