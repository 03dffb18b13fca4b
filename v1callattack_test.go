package owtp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mr-tron/base58"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/legacy"
)

// What a server can try against who calls it in version 1, and what somebody in
// between can. The numbers are those of the defects of version 1's own nodes
// (V1-WIRE §9).

// v1Answer200 is an answer that every caller would like.
const v1Answer200 = `{"status":200,"msg":"success","result":"forged"}`

// plainly answers a request in the clear.
func plainly(t testing.TB, q *legacy.Packet, data string) *legacy.Packet {
	t.Helper()
	p := &legacy.Packet{Kind: legacy.Response, Method: q.Method, Nonce: q.Nonce, Time: q.Time, Version: q.Version}
	if err := p.SetJSON([]byte(data)); err != nil {
		t.Fatal(err)
	}
	return p
}

// sealing answers as a peer with a key does, each time with the ephemeral that
// ephemeral gives.
func (p *v1Peer) sealing(q *legacy.Packet, ephemeral io.Reader, data string) (*legacy.Packet, *legacy.Session) {
	p.t.Helper()
	s, err := legacy.Respond(ephemeral, p.key, q.Keys)
	if err != nil {
		p.t.Fatal(err)
	}
	resp := plainly(p.t, q, "null")
	resp.Keys = s.ResponseKeys()
	if err := resp.SealJSON(s, []byte(data)); err != nil {
		p.t.Fatal(err)
	}
	return resp, s
}

// honest answers every request under one static ephemeral, as version 1's nodes
// do, and asks change what to make of the answer once the agreement is made.
func (p *v1Peer) honest(change func(q, resp *legacy.Packet, s *legacy.Session) *legacy.Packet) func(q *legacy.Packet) string {
	return func(q *legacy.Packet) string {
		resp, s := p.sealing(q, bytes.NewReader(p.key.Bytes()), `{"status":200,"msg":"success","result":"genuine, and longer than a block or two"}`)
		if q.Method != legacy.MethodAgree {
			resp = change(q, resp, s)
		}
		return v1Text(p.t, resp)
	}
}

// calledAt returns a node that has connected to a peer by its ID, or by a name
// if there is one.
func (p *v1Peer) calledAt(name string, mode ConnectConfig) (*OWTPNode, error) {
	p.t.Helper()
	n := newV1Caller(p.t, v1Now)
	return n, n.Connect(name, mode.at(p.addr, HTTP))
}

// illegitimate fails unless a call has failed with an error of ours that nobody
// has proved, and whose outcome is open.
func illegitimate(t testing.TB, what string, resp *Response, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Proved || !e.MayHaveRun {
		t.Errorf("%s: %+v, %v", what, resp, err)
	}
}

// 2, 3: answers without a method, to nobody's question, with another one's
// number; packets that are no answers. None is taken, and nothing stays behind.
func TestV1CallAttackAnswersOfNobody(t *testing.T) {
	t.Parallel()
	peer := newV1Peer(t, nil)
	n, err := peer.calledAt(peer.id(), ConnectConfig{})
	if err != nil {
		t.Fatal(err)
	}
	change := map[string]func(p *legacy.Packet){
		"no method": func(p *legacy.Packet) { p.Method = "" }, "another method": func(p *legacy.Packet) { p.Method = "other" },
		"another number": func(p *legacy.Packet) { p.Nonce++ }, "no number": func(p *legacy.Packet) { p.Nonce = 0 },
		"a request": func(p *legacy.Packet) { p.Kind = 1 }, "kind 0": func(p *legacy.Packet) { p.Kind = 0 }, "kind 3": func(p *legacy.Packet) { p.Kind = 3 },
		"data null": func(p *legacy.Packet) { p.Data = []byte("null") }, "a number": func(p *legacy.Packet) { p.Data = []byte("200") },
		"no status":      func(p *legacy.Packet) { p.Data = []byte(`{"msg":"","result":null}`) },
		"status twice":   func(p *legacy.Packet) { p.Data = []byte(`{"status":500,"status":200,"msg":"","result":null}`) },
		"status in text": func(p *legacy.Packet) { p.Data = []byte(`{"status":"200","msg":"","result":null}`) },
		"a long status":  func(p *legacy.Packet) { p.Data = []byte(`{"status":18446744073709551616,"msg":"","result":null}`) },
		"a deep result": func(p *legacy.Packet) {
			p.Data = []byte(`{"status":200,"msg":"","result":` + strings.Repeat("[", 120) + strings.Repeat("]", 120) + `}`)
		},
		"keys": func(p *legacy.Packet) { p.Keys.ResponderCheck = "1" },
	}
	for name, f := range change {
		peer.answers(func(q *legacy.Packet) string {
			p := plainly(t, q, v1Answer200)
			f(p)
			return v1Text(t, p)
		})
		resp, err := n.CallSync(peer.id(), "echo", 1)
		illegitimate(t, name, resp, err)
	}
	for _, body := range []string{`{"r":2}`, `{}`, `[]`, `null`, `2`, "{", "\x00", `{"r":2,"k":[]}`, strings.Repeat("[", 1<<16), `{"r":2,"m":"echo","n":99999999999999999999}`} {
		peer.answers(func(*legacy.Packet) string { return body })
		resp, err := n.CallSync(peer.id(), "echo", 1)
		illegitimate(t, fmt.Sprintf("%.30q", body), resp, err)
	}
	peer.answers(func(q *legacy.Packet) string { return v1Text(t, plainly(t, q, v1Answer200)) })
	if resp, err := n.CallSync(peer.id(), "echo", 1); err != nil || !resp.OK() {
		t.Error("afterwards:", resp, err)
	}
}

// 7: the responder's keys are no points of the curve, or in no form that is
// allowed. No arithmetic is done with them.
func TestV1CallAttackPoints(t *testing.T) {
	t.Parallel()
	peer := newV1Peer(t, nil)
	real := peer.key.Public().Bytes()
	off := bytes.Clone(real)
	off[63] ^= 1
	prime, _ := new(big.Int).SetString("FFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF", 16)
	points := map[string][]byte{
		"off the curve": off, "zero": make([]byte, 64), "all ones": bytes.Repeat([]byte{255}, 64), "p": append(prime.FillBytes(make([]byte, 32)), real[32:]...),
		"short": real[:63], "long": append(bytes.Clone(real), 0), "compressed": append([]byte{2}, real[:32]...), "with 04": append([]byte{4}, real...)[:64], "empty": nil,
	}
	for name, point := range points {
		text := base58.Encode(point)
		for field, set := range map[string]func(*legacy.Keys){
			"pko": func(k *legacy.Keys) { k.Responder = text }, "tpo": func(k *legacy.Keys) { k.ResponderEphemeral = text },
			"both": func(k *legacy.Keys) { k.Responder, k.ResponderEphemeral = text, text },
		} {
			peer.answers(func(q *legacy.Packet) string {
				resp, _ := peer.sealing(q, rand.Reader, v1Answer200)
				set(&resp.Keys)
				return v1Text(t, resp)
			})
			if _, err := peer.calledAt(peer.id(), v1Modes["agreed"]); StatusOf(err) != ErrKeyAgreementFailed && (name != "long" || StatusOf(err) != ErrResponseMethodDiffer) {
				t.Errorf("%s is %s: %v", field, name, err)
			}
		}
	}
	if len(points) != 9 {
		t.Error(len(points))
	}
	// And not only at first.
	peer.answers(peer.honest(func(q, resp *legacy.Packet, _ *legacy.Session) *legacy.Packet {
		resp.Keys.ResponderEphemeral, resp.Keys.ResponderCheck = base58.Encode(off), base58.Encode(make([]byte, 32))
		return resp
	}))
	n, err := peer.calledAt(peer.id(), v1Modes["agreed"])
	if err != nil {
		t.Fatal(err)
	}
	resp, err := n.CallSync(peer.id(), "echo", 1)
	illegitimate(t, "another ephemeral", resp, err)
}

// 8: somebody else answers where a peer was dialled: at once, by another key in
// a later answer, with the caller's own key, under the name of an alias. None of
// it is believed, and nothing of a call reaches them.
func TestV1CallAttackSomebodyElse(t *testing.T) {
	t.Parallel()
	peer, other := newV1Peer(t, nil), newV1Peer(t, nil)
	same := func(_, resp *legacy.Packet, _ *legacy.Session) *legacy.Packet { return resp }
	peer.answers(peer.honest(same))
	other.answers(other.honest(same))
	distrusted := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrTrust) || StatusOf(err) != ErrUnauthorized {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := other.calledAt(peer.id(), v1Modes["agreed"])
	distrusted("another ID", err)
	cfg := v1Modes["agreed and signed"]
	cfg.PeerID = peer.id()
	_, err = other.calledAt("shop", cfg)
	distrusted("another PeerID", err)

	// The alias is bound to the first one. Then another one answers.
	n, err := peer.calledAt("shop", v1Modes["agreed"])
	if err != nil {
		t.Fatal(err)
	}
	n.ClosePeer("shop")
	distrusted("an alias that is bound", n.Connect("shop", v1Modes["agreed"].at(other.addr, HTTP)))
	if err := n.ForgetPeer(context.Background(), "v1:shop"); err != nil {
		t.Fatal(err)
	}
	if err := n.Connect("shop", v1Modes["agreed"].at(other.addr, HTTP)); err != nil {
		t.Error("after ForgetPeer:", err)
	}
	peer.taken()

	// Another key in the midst of it: the answer is nobody's.
	peer.answers(peer.honest(func(q, _ *legacy.Packet, _ *legacy.Session) *legacy.Packet {
		resp, _ := other.sealing(q, rand.Reader, v1Answer200)
		return resp
	}))
	n, err = peer.calledAt(peer.id(), v1Modes["agreed"])
	if err != nil {
		t.Fatal(err)
	}
	resp, err := n.CallSync(peer.id(), "echo", 1)
	illegitimate(t, "another key later", resp, err)

	// This node itself, and what it has sent, sent back.
	n = newV1Caller(t, v1Now)
	other.key = n.local.Key
	err = n.Connect("mirror", v1Modes["agreed"].at(other.addr, HTTP))
	distrusted("the caller's own key", err)
	other.answers(func(q *legacy.Packet) string {
		p := plainly(t, q, "null")
		p.Data, p.Keys = q.Data, legacy.Keys{Responder: q.Keys.Initiator, ResponderEphemeral: q.Keys.InitiatorEphemeral, ResponderCheck: q.Keys.InitiatorEphemeral}
		return v1Text(t, p)
	})
	if err := n.Connect("mirror2", v1Modes["agreed"].at(other.addr, HTTP)); StatusOf(err) != ErrResponseMethodDiffer {
		t.Error("a mirror:", err)
	}
	for _, q := range append(peer.taken(), other.taken()...) {
		if p, _ := legacy.ParsePacket([]byte(q.body), 1<<20); p.Method != legacy.MethodAgree && p.Keys.InitiatorCheck == "" {
			t.Errorf("a call went out: %s", q.body)
		}
	}
}

// 12, 13: answers that were changed on their way, or are others': every octet of
// the ciphertext, its version, its length; the request itself; an earlier answer;
// answers in the clear. Nothing of it is an answer.
func TestV1CallAttackAnswers(t *testing.T) {
	t.Parallel()
	peer := newV1Peer(t, nil)
	var change func(q, resp *legacy.Packet, s *legacy.Session) *legacy.Packet
	peer.answers(peer.honest(func(q, resp *legacy.Packet, s *legacy.Session) *legacy.Packet { return change(q, resp, s) }))
	n, err := peer.calledAt(peer.id(), v1Modes["agreed"])
	if err != nil {
		t.Fatal(err)
	}
	call := func() (*Response, error) { return n.CallSync(peer.id(), "echo", `{"status":200,"msg":"","result":1}`) }
	tampered := func(what string, f func(q, resp *legacy.Packet, s *legacy.Session) *legacy.Packet) {
		t.Helper()
		change = f
		resp, err := call()
		illegitimate(t, what, resp, err)
	}
	var first *legacy.Packet
	change = func(_, resp *legacy.Packet, _ *legacy.Session) *legacy.Packet { first = resp; return resp }
	if resp, err := call(); err != nil || !resp.OK() || !resp.proved {
		t.Fatal(resp, err)
	}
	sealed, err := first.Text()
	if err != nil {
		t.Fatal(err)
	}
	octets, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil || len(octets) != 96 {
		t.Fatal(len(octets), err)
	}
	inside := func(f func(octets []byte) []byte) func(q, resp *legacy.Packet, s *legacy.Session) *legacy.Packet {
		return func(_, resp *legacy.Packet, _ *legacy.Session) *legacy.Packet {
			text, _ := resp.Text()
			b, _ := base64.StdEncoding.DecodeString(text)
			if err := resp.SetText(base64.StdEncoding.EncodeToString(f(b))); err != nil {
				t.Error(err)
			}
			return resp
		}
	}
	for i := range octets {
		tampered(fmt.Sprint("octet ", i), inside(func(b []byte) []byte { b[i] ^= 1 << (i % 8); return b }))
	}
	for i := range octets { // where padding is looked at
		tampered(fmt.Sprint("length ", i), inside(func(b []byte) []byte { return b[:i] }))
	}
	text := func(s string) func(q, resp *legacy.Packet, _ *legacy.Session) *legacy.Packet {
		return func(_, resp *legacy.Packet, _ *legacy.Session) *legacy.Packet { resp.SetText(s); return resp }
	}
	for _, s := range []string{"", "\n", "=", "not base64", v1Answer200, sealed, sealed + "\n"} {
		tampered(fmt.Sprintf("%.20q", s), text(s))
	}
	tampered("the request itself", func(q, resp *legacy.Packet, _ *legacy.Session) *legacy.Packet { resp.Data = q.Data; return resp })
	tampered("an earlier answer", func(q, _ *legacy.Packet, _ *legacy.Session) *legacy.Packet {
		p := *first
		p.Nonce = q.Nonce
		return &p
	})
	tampered("an earlier answer as it was", func(*legacy.Packet, *legacy.Packet, *legacy.Session) *legacy.Packet { return first })
	for _, version := range []int64{0, 2, -1} {
		tampered(fmt.Sprint("version ", version), func(q, resp *legacy.Packet, s *legacy.Session) *legacy.Packet {
			resp.Version = version
			if err := resp.SealJSON(s, []byte(v1Answer200)); err != nil {
				t.Error(err)
			}
			return resp
		})
	}
	tampered("in the clear", func(q, _ *legacy.Packet, _ *legacy.Session) *legacy.Packet { return plainly(t, q, v1Answer200) })
	tampered("status 0 in the clear", func(q, _ *legacy.Packet, _ *legacy.Session) *legacy.Packet {
		return plainly(t, q, `{"status":0,"msg":"","result":null}`)
	})
	tampered("in the clear, with keys", func(q, resp *legacy.Packet, _ *legacy.Session) *legacy.Packet {
		p := plainly(t, q, v1Answer200)
		p.Keys = resp.Keys
		return p
	})
	tampered("without keys", func(_, resp *legacy.Packet, _ *legacy.Session) *legacy.Packet {
		resp.Keys = legacy.Keys{}
		return resp
	})
	for status, want := range map[string]uint64{"401": 401, "500": 500, "502": 502, "700": 700} {
		change = func(q, _ *legacy.Packet, _ *legacy.Session) *legacy.Packet {
			return plainly(t, q, `{"status":`+status+`,"msg":"no","result":null}`)
		}
		resp, err := call()
		if StatusOf(err) != want || !strings.Contains(err.Error(), "not proved") {
			t.Errorf("status %s in the clear: %v", status, err)
		}
		illegitimate(t, "status "+status+" in the clear", resp, err)
	}
	change = func(_, resp *legacy.Packet, _ *legacy.Session) *legacy.Packet { return resp }
	if resp, err := call(); err != nil || !resp.OK() {
		t.Error("afterwards:", resp, err)
	}
}

// A peer may have another ephemeral for every answer, as nodes of ours have for
// every agreement. What is not under its key is not taken.
func TestV1CallAttackEveryAnswerAnotherKey(t *testing.T) {
	t.Parallel()
	peer := newV1Peer(t, nil)
	peer.answers(func(q *legacy.Packet) string {
		resp, _ := peer.sealing(q, rand.Reader, `{"status":200,"msg":"success","result":1}`)
		return v1Text(t, resp)
	})
	n, err := peer.calledAt(peer.id(), v1Modes["agreed"])
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if resp, err := n.CallSync(peer.id(), "echo", 1); err != nil || !resp.OK() {
			t.Fatal(resp, err)
		}
	}
	check := map[string]func(k *legacy.Keys){
		"sb": func(k *legacy.Keys) { k.ResponderCheck = base58.Encode(make([]byte, 32)) }, "tpo": func(k *legacy.Keys) { k.ResponderEphemeral = k.Responder },
		"no pko": func(k *legacy.Keys) { k.Responder = "" }, "no tpo": func(k *legacy.Keys) { k.ResponderEphemeral = "" },
	}
	for name, set := range check {
		peer.answers(func(q *legacy.Packet) string {
			resp, _ := peer.sealing(q, rand.Reader, v1Answer200)
			if q.Method != legacy.MethodAgree {
				set(&resp.Keys)
			}
			return v1Text(t, resp)
		})
		resp, err := n.CallSync(peer.id(), "echo", 1)
		illegitimate(t, name, resp, err)
	}
}

// 15: while an agreement is wanted or under way, nothing goes out but it, in
// whatever way it ends.
func TestV1CallAttackNothingInTheClear(t *testing.T) {
	t.Parallel()
	peer := newV1Peer(t, nil)
	var hold atomic.Pointer[chan struct{}]
	answered := make(chan struct{}, 64)
	peer.answers(func(q *legacy.Packet) string {
		if q.Method != legacy.MethodAgree && q.Keys.InitiatorCheck == "" {
			return v1Text(t, plainly(t, q, `{"status":200,"msg":"","result":"in the clear"}`))
		}
		if c := hold.Load(); c != nil {
			answered <- struct{}{}
			<-*c
			return v1Text(t, plainly(t, q, `{"status":502,"msg":"no","result":null}`))
		}
		resp, _ := peer.sealing(q, bytes.NewReader(peer.key.Bytes()), `{"status":200,"msg":"","result":"sealed"}`)
		return v1Text(t, resp)
	})
	n, err := peer.calledAt(peer.id(), ConnectConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := n.CallSync(peer.id(), "echo", 1); err != nil || resp.JsonData().String() != "in the clear" {
		t.Fatal("before:", resp, err)
	}
	peer.taken()
	held := make(chan struct{})
	hold.Store(&held)
	agreement := make(chan error, 1)
	go func() { agreement <- n.KeyAgreement(peer.id(), "aes") }()
	<-answered // it is under way
	results := make(chan error, 4)
	for range cap(results) {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			_, err := n.CallContext(ctx, peer.id(), "echo", 1, nil)
			results <- err
		}()
	}
	for range cap(results) {
		if err := <-results; StatusOf(err) != ErrRequestTimeout || err.(*Error).MayHaveRun {
			t.Errorf("a call meanwhile: %v", err)
		}
	}
	close(held)
	if err := <-agreement; StatusOf(err) != ErrKeyAgreementFailed {
		t.Error("the agreement that is refused:", err)
	}
	if _, err := n.CallSync(peer.id(), "echo", 1); StatusOf(err) != ErrKeyAgreementFailed {
		t.Error("a call after it:", err)
	}
	hold.Store(nil)
	if resp, err := n.CallSync(peer.id(), "echo", 1); err != nil || resp.JsonData().String() != "sealed" {
		t.Error("a call that can agree:", resp, err)
	}
	for _, g := range peer.taken() {
		if q, _ := legacy.ParsePacket([]byte(g.body), 1<<20); q.Keys.InitiatorCheck == "" && q.Method != legacy.MethodAgree {
			t.Errorf("in the clear: %s", g.body)
		}
	}
}

// Nothing falls back from one version to the other, whatever answers.
func TestV1CallAttackNoFallback(t *testing.T) {
	t.Parallel()
	h := newV1Caller(t, v1Now)
	var ran atomic.Int64
	if err := h.HandleFunc("echo", func(ctx *Context) { ran.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if err := h.Listen(ConnectConfig{Address: "127.0.0.1:0", ConnectType: HTTP}); err != nil {
		t.Fatal(err)
	}
	n := newV1Caller(t, v1Now)
	for name, mode := range v1Modes { // version 1 to who does not allow it
		err := n.Connect(name, mode.at(h.ListenerAddr(HTTP), HTTP))
		if err == nil {
			_, err = n.CallSync(name, "echo", 1)
		}
		if StatusOf(err) != ErrUnsupportedType || !strings.Contains(err.Error(), "allow it with ConnectConfig.AllowV1 only") {
			t.Errorf("%s: %v", name, err)
		}
	}
	peer := newV1Peer(t, func(q *legacy.Packet) string { return v1Text(t, plainly(t, q, v1Answer200)) })
	peer.t = discard{t}
	for name, mode := range v1Modes { // and this version to who has only the other
		mode.Address, mode.ConnectType = peer.addr, HTTP
		err := n.Connect("two "+name, mode)
		if err == nil {
			_, err = n.CallSync("two "+name, "echo", 1)
		}
		if err == nil {
			t.Errorf("version 2, %s: an answer", name)
		}
	}
	for _, g := range peer.taken() {
		if g.header.Get("A") != "" || strings.HasPrefix(g.header.Get("Content-Type"), "application/json") {
			t.Errorf("version 1 was spoken: %v", g.header)
		}
	}
	if ran.Load() != 0 {
		t.Error("a handler ran")
	}
}

// discard is a test that does not mind packets of another version.
type discard struct{ testing.TB }

func (discard) Errorf(string, ...any) {}

// What version 1 says in place of a packet is the caller's error, in its words.
func TestV1CallComplaints(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	n := newV1Caller(t, v1Now)
	if err := n.Connect("host", ConnectConfig{}.at(h.addr+"/nowhere?a=b", HTTP)); err == nil {
		t.Error("an address with a query")
	}
	if err := n.Connect("host", ConnectConfig{}.at(h.addr, HTTP)); err != nil {
		t.Fatal(err)
	}
	for _, opts := range []*CallOptions{{Meta: map[string]string{"a": "b"}}, {Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {CallKey: bytes.Repeat([]byte{1}, 16)}} {
		_, err := n.CallContext(context.Background(), "host", "echo", 1, opts)
		if StatusOf(err) != ErrBadRequest || !strings.Contains(err.Error(), "version 1 carries no") || err.(*Error).MayHaveRun {
			t.Errorf("%+v: %v", opts, err)
		}
	}
	if err := n.Notify(context.Background(), "host", "echo", 1); StatusOf(err) != ErrBadRequest || !strings.Contains(err.Error(), "one-way") {
		t.Error(err)
	}
	if _, err := n.Ping(context.Background(), "host"); StatusOf(err) != ErrBadRequest {
		t.Error(err)
	}
	if err := n.Connect("self", ConnectConfig{PeerID: n.NodeID()}.at(h.addr, HTTP)); !errors.Is(err, ErrTrust) {
		t.Error(err)
	}
	h.untouched("what version 1 does not have")
}

// Who trusts pinned peers only calls nobody in version 1 who does not prove it.
// Who is bound in this version is not met as a stranger in version 1.
func TestV1CallsTrust(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	id := h.node.NodeID()
	n := newV1Caller(t, v1Now, func(c *NodeConfig) { c.Trust = TrustPinned })
	for name, mode := range v1Modes {
		err := n.Connect(id, mode.at(h.addr, HTTP))
		if mode.EnableKeyAgreement != (err == nil) || err != nil && (!errors.Is(err, ErrTrust) || !strings.Contains(err.Error(), "EnableKeyAgreement")) {
			t.Errorf("%s: %v", name, err)
		}
		n.ClosePeer(id)
		if err := n.Connect("alias", mode.at(h.addr, HTTP)); !errors.Is(err, ErrTrust) {
			t.Errorf("%s, an alias: %v", name, err)
		}
	}
	n = newV1Caller(t, v1Now)
	if err := n.PinPeer(context.Background(), "alias", id); err != nil {
		t.Fatal(err)
	}
	for name, mode := range v1Modes {
		if err := n.Connect("alias", mode.at(h.addr, HTTP)); !errors.Is(err, ErrTrust) || !strings.Contains(err.Error(), "PeerID") {
			t.Errorf("%s, a pinned alias: %v", name, err)
		}
		mode.PeerID = id
		if err := n.Connect("alias", mode.at(h.addr, HTTP)); err != nil {
			t.Errorf("%s, with PeerID: %v", name, err)
		}
		n.ClosePeer("alias")
		if err := n.ForgetPeer(context.Background(), "v1:alias"); err != nil {
			t.Fatal(err)
		}
	}
	h.untouched("connecting")
}

// The caller has a key of its own for version 1 where it is told to.
func TestV1CallsWithAKeyOfItsOwn(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	n, face := newV1Caller(t, v1Now), NewRandomCertificate()
	cfg := v1Modes["agreed and signed"]
	cfg.V1Cert = face
	if err := n.Connect("host", cfg.at(h.addr, HTTP)); err != nil {
		t.Fatal(err)
	}
	if resp, err := n.CallSync("host", "echo", 1); err != nil || !resp.OK() {
		t.Fatal(resp, err)
	}
	if seen := h.taken(); len(seen) != 1 || seen[0].pid != "v1:"+face.ID() {
		t.Errorf("%+v", seen)
	}
}

// What version 1 cannot keep from anybody in between, so that what docs/V1.md
// says stays true: answers that are not sealed are whatever somebody wants them
// to be, under whatever ID was dialled.
func TestV1CallOpenForgedAnswers(t *testing.T) {
	t.Parallel()
	peer := newV1Peer(t, func(q *legacy.Packet) string { return v1Text(t, plainly(t, q, v1Answer200)) })
	asked := NewRandomCertificate().ID()
	for _, name := range []string{"plain", "signed"} {
		n, err := peer.calledAt(asked, v1Modes[name])
		if err != nil {
			t.Fatal(err)
		}
		resp, err := n.CallSync(asked, "echo", 1)
		if err != nil || !resp.OK() || resp.JsonData().String() != "forged" {
			t.Errorf("%s: %+v %v", name, resp, err)
		}
		if resp.proved || resp.Evidence() != nil {
			t.Errorf("%s: a forged answer counts as proved", name)
		}
	}
}

// And what was recorded opens with the private key of one of version 1's nodes,
// which have no other secret. Where a node of ours answers, it does not.
func TestV1CallOpenRecordings(t *testing.T) {
	t.Parallel()
	peer := newV1Peer(t, nil)
	peer.answers(peer.honest(func(_, resp *legacy.Packet, _ *legacy.Session) *legacy.Packet { return resp }))
	opens := func(key *identity.PrivateKey, g v1Got) bool {
		q, err := legacy.ParsePacket([]byte(g.body), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		s, err := legacy.Respond(bytes.NewReader(key.Bytes()), key, q.Keys)
		if err != nil {
			t.Fatal(err)
		}
		sealed, _ := q.Text()
		text, err := s.Open(sealed, q.Version, q.Nonce)
		return err == nil && string(text) == `"secret"` || string(text) == "secret"
	}
	n, err := peer.calledAt(peer.id(), v1Modes["agreed"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CallSync(peer.id(), "echo", "secret"); err != nil {
		t.Fatal(err)
	}
	if got := peer.taken(); len(got) != 2 || !opens(peer.key, got[1]) {
		t.Error("a recording does not open with the peer's key any more: docs/V1.md says that it does")
	}
	peer.answers(func(q *legacy.Packet) string { // as a node of ours
		resp, _ := peer.sealing(q, rand.Reader, v1Answer200)
		return v1Text(t, resp)
	})
	n, err = peer.calledAt(peer.id(), v1Modes["agreed"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CallSync(peer.id(), "echo", "secret"); err != nil {
		t.Fatal(err)
	}
	if got := peer.taken(); len(got) != 2 || opens(peer.key, got[1]) {
		t.Error("a recording opens with our key")
	}
}

// An answer of the largest size, and one over it; a request that grows over it
// by being sealed.
func TestV1CallSizes(t *testing.T) {
	t.Parallel()
	peer := newV1Peer(t, nil)
	const most = 1 << 16
	n := newV1Caller(t, v1Now, func(c *NodeConfig) { c.Limits.MaxMessage = most })
	for name, mode := range v1Modes {
		if !mode.EnableKeyAgreement {
			continue
		}
		peer.answers(peer.honest(func(q, resp *legacy.Packet, s *legacy.Session) *legacy.Packet {
			var size int
			text, _ := q.Text()
			plain, err := s.Open(text, q.Version, q.Nonce)
			if err == nil {
				err = json.Unmarshal(plain, &size)
			}
			if err != nil {
				return plainly(t, q, `{"status":400,"msg":"`+err.Error()+`","result":null}`)
			}
			if err := resp.SealJSON(s, []byte(`{"status":200,"msg":"","result":"`+strings.Repeat("x", size)+`"}`)); err != nil {
				t.Error(err)
			}
			return resp
		}))
		if err := n.Connect(name, mode.at(peer.addr, HTTP)); err != nil {
			t.Fatal(err)
		}
		if resp, err := n.CallSync(name, "size", most/2); err != nil || len(resp.JsonData().String()) != most/2 {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := n.CallSync(name, "size", most); StatusOf(err) != ErrTooLarge {
			t.Errorf("%s: an answer that is too large: %v", name, err)
		}
		_, err := n.CallSync(name, "size", strings.Repeat("x", most-8192))
		if StatusOf(err) != ErrTooLarge || err.(*Error).MayHaveRun {
			t.Errorf("%s: a request that is too large: %v", name, err)
		}
	}
}

// Answers that are dropped make no handler run twice: only what may run twice is
// sent twice.
func TestV1CallAttackDroppedAnswers(t *testing.T) {
	t.Parallel()
	for name, mode := range v1Modes {
		peer := newV1Peer(t, nil)
		drop := false
		peer.answers(func(q *legacy.Packet) string {
			if drop && q.Method != legacy.MethodAgree {
				panic(http.ErrAbortHandler)
			}
			if q.Keys.InitiatorEphemeral == "" {
				return v1Text(t, plainly(t, q, v1Answer200))
			}
			resp, _ := peer.sealing(q, bytes.NewReader(peer.key.Bytes()), v1Answer200)
			return v1Text(t, resp)
		})
		n, err := peer.calledAt(peer.id(), mode)
		if err != nil {
			t.Fatal(name, err)
		}
		drop = true
		for repeatable, want := range map[bool]int{false: 1, true: maxAttempts} {
			if repeatable && name == "plain" {
				want = 1 // as in version 2
			}
			peer.taken()
			_, err := n.CallContext(context.Background(), peer.id(), "echo", 1, &CallOptions{Repeatable: repeatable})
			sent := map[string]bool{}
			for _, g := range peer.taken() {
				if p, _ := legacy.ParsePacket([]byte(g.body), 1<<20); p.Method != legacy.MethodAgree {
					sent[fmt.Sprint(p.Nonce)] = true
				}
			}
			if e := (*Error)(nil); !errors.As(err, &e) || e.Status != ErrNetworkDisconnected || !e.MayHaveRun || len(sent) != want {
				t.Errorf("%s, repeatable %v: %v, sent %d times", name, repeatable, err, len(sent))
			}
		}
	}
}

// Who is on the way can have a request run and then provoke a genuine refusal of
// it, by a copy that he has damaged. So no refusal of version 1 says that nothing
// has run.
func TestV1CallOpenFalseRefusal(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	middle := newV1Peer(t, nil)
	middle.answers(func(q *legacy.Packet) string {
		answer := h.post(v1Text(t, q), "")
		if q.Method == legacy.MethodAgree {
			return answer
		}
		q.Data = []byte(`""`)
		return h.post(v1Text(t, q), "")
	})
	n := newV1Caller(t, v1Now)
	if err := n.Connect(h.node.NodeID(), v1Modes["agreed"].at(middle.addr, HTTP)); err != nil {
		t.Fatal(err)
	}
	resp, err := n.CallSync(h.node.NodeID(), "echo", 1)
	if err != nil || resp.Status != ErrKeyAgreementFailed || !resp.proved || len(h.taken()) != 1 {
		t.Fatalf("%+v %v", resp, err)
	}
	if e := resp.Err().(*Error); !e.MayHaveRun || !e.Proved {
		t.Errorf("%+v", e)
	}
}
