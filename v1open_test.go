package owtp

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

// What version 1 leaves open, and no receiver can close. docs/V1.md says so; these
// tests fail if one day it is not true any more.

// Plain: a copy runs, and so does what was changed. A broker alone cannot bring a
// packet twice.
func TestV1OpenPlain(t *testing.T) {
	eachV1Way(t, ConnectConfig{}, func(t *testing.T, w *v1Way) {
		c := newV1Stranger(t)
		p := c.request("echo", `{"to":"bob"}`)
		if r := w.send(c, p); r.Status != 200 {
			t.Fatalf("%+v", r)
		}
		again := uint64(200)
		if w.kind == MQ {
			again = 409
		}
		if r := w.send(c, p); r.Status != again {
			t.Errorf("a copy: %+v", r)
		}
		p.Data = json.RawMessage(`{"to":"eve"}`)
		if r := w.send(c, p); r.Status != 200 || string(r.Result) != `{"to":"eve"}` {
			t.Errorf("changed: %+v", r)
		}
	})
}

// Under an agreement without a signature whoever is on the way chooses the
// method; where InsecureV1TrustAgreement is set, in the peer's name.
func TestV1OpenSealedMethod(t *testing.T) {
	t.Parallel()
	for _, trust := range []bool{false, true} {
		h := newV1Host(t, ConnectConfig{EnableKeyAgreement: true, InsecureV1TrustAgreement: trust})
		c := newV1Stranger(t)
		c.agree(h)
		p := c.request("echo", `{"x":1}`)
		p.Method = "getInfo"
		if r := c.opened(h.post(v1Text(t, p), c.announce())); r.Status != 200 {
			t.Errorf("%+v", r)
		}
		if seen := h.taken(); len(seen) != 1 || seen[0].method != "getInfo" || seen[0].data != `{"x":1}` || seen[0].proved != trust || trust != (seen[0].pid == c.id()) {
			t.Errorf("trust %v: %+v", trust, seen)
		}
		// The peer's own is the copy then.
		p.Method = "echo"
		h.refused("the peer's own", c.opened(h.post(v1Text(t, p), c.announce())), 409)
	}
	// And so it is with calls back, on both ends.
	mode := v1Modes["agreed"]
	mode.InsecureV1TrustAgreement = true
	s := newV1Stand(t, "", mode)
	if err := s.node.HandleFunc("other", func(ctx *Context) { ctx.Response(ctx.PID, 200, "") }); err != nil {
		t.Fatal(err)
	}
	q := s.asks("1", false) // "ping"
	q.Method = "other"
	if r, sealed := s.back(q); r.Status != 200 || !sealed || string(r.Result) != `"v1:`+s.peer.id()+`"` {
		t.Errorf("called back: %+v", r)
	}
}

// Digits that move from the number into the method change the key of what is
// sealed: they are noticed, but where InsecureV1BareText takes packets whose d is
// empty, which is not sealed.
func TestV1OpenSealedDigits(t *testing.T) {
	t.Parallel()
	for _, take := range []bool{false, true} {
		v1MoveSealedDigits(t, take)
	}
}

func v1MoveSealedDigits(t *testing.T, take bool) {
	t.Helper()
	h := newV1Host(t, ConnectConfig{EnableSignature: true, EnableKeyAgreement: true, InsecureV1BareText: take})
	if err := h.node.HandleFunc("getInfo1", func(ctx *Context) { ctx.Response(ctx.Method, 200, "") }); err != nil {
		t.Fatal(err)
	}
	c := newV1Stranger(t)
	c.signs = true
	c.agree(h)
	for _, empty := range []bool{false, true} {
		c.nonce = 1234
		if empty {
			c.nonce = 1300
		}
		p := c.request("getInfo", `{"x":1}`)
		if empty {
			p.Data = json.RawMessage(`""`)
			if err := legacy.Sign(rand.Reader, c.key, p); err != nil {
				t.Fatal(err)
			}
		}
		forged := *p
		forged.Method, forged.Nonce = "getInfo1", p.Nonce-1000
		want, own := uint64(502), uint64(200)
		switch {
		case empty && take:
			want, own = 200, 409
		case empty:
			own = 502
		}
		if r := c.opened(h.post(v1Text(t, &forged), c.announce())); r.Status != want {
			t.Errorf("take %v, empty %v, the forged packet: %+v", take, empty, r)
		}
		if r := c.opened(h.post(v1Text(t, p), c.announce())); r.Status != own {
			t.Errorf("take %v, empty %v, the sender's own: %+v", take, empty, r)
		}
	}
}

// InsecureV1BareText: with no form to tell it by, what was cut reaches the handler.
func TestV1OpenBareText(t *testing.T) {
	t.Parallel()
	for _, take := range []bool{false, true} {
		h := newV1Host(t, ConnectConfig{InsecureV1BareText: take})
		c := newV1Stranger(t)
		c.agree(h)
		p := c.request("echo", "null")
		sealed, err := c.session.Seal([]byte(strings.Repeat("a", 15)+"\x01and the rest of it"), p.Version, p.Nonce)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(sealed)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.SetText(base64.StdEncoding.EncodeToString(raw[:16])); err != nil {
			t.Fatal(err)
		}
		r := c.opened(h.post(v1Text(t, p), c.announce()))
		if take && (r.Status != 200 || string(r.Result) != `"aaaaaaaaaaaaaaa"`) || !take && r.Status != 502 {
			t.Errorf("take %v: %+v", take, r)
		}
	}
}

// InsecureV1AnyTime: a copy runs again after a restart.
func TestV1OpenAnyTime(t *testing.T) {
	t.Parallel()
	for _, take := range []bool{false, true} {
		cert := NewRandomCertificate()
		use := func(c *NodeConfig) { c.Cert = cert }
		before := newV1Host(t, ConnectConfig{EnableSignature: true, InsecureV1AnyTime: take}, use)
		c := newV1Stranger(t)
		c.signs = true
		body := v1Text(t, c.request("echo", "1"))
		if r := c.opened(before.post(body, c.announce())); r.Status != 200 {
			t.Fatalf("%+v", r)
		}
		after := newV1Host(t, ConnectConfig{EnableSignature: true, InsecureV1AnyTime: take}, use)
		after.now.Add(3600_000)
		want := uint64(409)
		if take {
			want = 200
		}
		if r := c.opened(after.post(body, c.announce())); r.Status != want {
			t.Errorf("take %v: %+v", take, r)
		}
	}
}

// A signature of version 1 names no recipient: a copy runs at another node, and
// at one with the same key that keeps its records elsewhere. Where the records
// are shared it does not, and what is sealed opens nowhere else.
func TestV1OpenAnotherNode(t *testing.T) {
	t.Parallel()
	cert, store := NewRandomCertificate(), v1SharedStore(t)
	shared := func(c *NodeConfig) { c.Cert, c.Store = cert, store }
	hosts := []*v1Host{newV1Host(t, ConnectConfig{}, shared), newV1Host(t, ConnectConfig{}, shared), newV1Host(t, ConnectConfig{}, func(c *NodeConfig) { c.Cert = cert }), newV1Host(t, ConnectConfig{})}
	for _, mode := range []struct {
		signs, agrees bool
		want          []uint64
	}{
		{true, false, []uint64{200, 409, 200, 200}}, {false, true, []uint64{200, 502, 502, 502}}, {true, true, []uint64{200, 502, 502, 502}},
	} {
		c := newV1Stranger(t)
		c.signs = mode.signs
		if mode.agrees {
			c.agree(hosts[0])
		}
		body := v1Text(t, c.request("echo", `{"x":1}`))
		for i, h := range hosts {
			r := c.opened(h.post(body, c.announce()))
			if ran := len(h.taken()); r.Status != mode.want[i] || (ran == 1) != (r.Status == 200) {
				t.Errorf("%+v: at node %d: %+v, and %d handlers ran", mode, i, r, ran)
			}
		}
	}
}

// v1SharedStore is a store that says of itself that others use it, too.
func v1SharedStore(t testing.TB) session.Provider {
	t.Helper()
	m, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return v1Shared{m}
}

type v1Shared struct{ *memory.Store }

func (s v1Shared) Traits() session.Traits {
	traits := s.Store.Traits()
	traits.Shared = true
	return traits
}
