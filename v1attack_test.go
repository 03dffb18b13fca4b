package owtp

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mr-tron/base58"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// What the nodes of version 1 have wrong (V1-WIRE §9), tried over HTTP against a
// node of ours. The numbers are that list's.

// refused fails unless an answer has that status and no handler ran.
func (h *v1Host) refused(what string, r legacy.Result, status uint64) {
	h.t.Helper()
	if r.Status != status {
		h.t.Errorf("%s: answered %d %q, want %d", what, r.Status, r.Msg, status)
	}
	h.untouched(what)
}

// 1: data that is no ciphertext, and keys that are none, in a packet and
// announced.
func TestV1AttackJunkCiphertext(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	c := newV1Stranger(t)
	c.agree(h)
	block := base64.StdEncoding.EncodeToString(make([]byte, 16))
	for _, data := range []string{"\n", "a", "AAAA", "====", block + "\n", strings.Repeat("A", 24), block, block + block, "null", " ", "not base64 !"} {
		for _, version := range []int64{0, 1, -1} {
			p := c.request("echo", "1")
			p.Version = version
			if err := p.SetText(data); err != nil {
				t.Fatal(err)
			}
			h.refused(fmt.Sprintf("d %q, v %d", data, version), c.opened(h.post(v1Text(t, p), c.announce())), 502)
		}
	}
	long := strings.Repeat("z", 88)
	for _, bad := range []string{"z", "1", long, base58.Encode(make([]byte, 64)), base58.Encode(bytes.Repeat([]byte{255}, 64))} {
		for name, set := range map[string]func(*legacy.Keys){
			"pk": func(k *legacy.Keys) { k.Initiator = bad }, "tpk": func(k *legacy.Keys) { k.InitiatorEphemeral = bad }, "sa": func(k *legacy.Keys) { k.InitiatorCheck = bad },
		} {
			p := c.request("echo", "1")
			set(&p.Keys)
			h.post(v1Text(t, p), "")
			h.post(v1Text(t, p), c.announce())
			p.Signature = long
			h.post(v1Text(t, p), "")
			h.untouched(name + " is " + bad)
		}
		if text := h.post(v1Text(t, c.request("echo", "1")), bad); json.Valid([]byte(text)) {
			t.Errorf("header a %.10s: %s", bad, text)
		}
	}
	h.untouched("junk in header a")
	if r := c.call(h, "echo", `{"still":"here"}`); r.Status != 200 || string(r.Result) != `{"still":"here"}` {
		t.Errorf("afterwards: %+v", r)
	}
}

// 2, 3: responses that nobody waits for; packets that are none.
func TestV1AttackUnaskedResponses(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	c := newV1Stranger(t)
	for _, body := range []string{
		`{"r":2}`, `{"r":2,"m":"","n":5}`, `{"r":2,"m":"echo","n":5,"d":{"status":200}}`, `{"r":3,"m":"echo"}`, `{"r":0,"m":"echo"}`, `{"m":"echo"}`,
		`{}`, `[]`, `1`, `"x"`, `null`, `{`, `hello`, `{"r":1,"m":"echo"} {"r":1,"m":"echo"}`, `{"r":1,"m":1}`, `{"r":-1,"m":"echo"}`, `{"r":1,"m":"echo","n":18446744073709551616}`,
		`{"r":1,"m":"` + strings.Repeat("e", 129) + `"}`, `{"r":1,"m":"echo","d":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`, "{\"r\":1,\"m\":\"echo\",\"d\":\"\xff\"}",
	} {
		if got := h.post(body, c.announce()); got != "" {
			t.Errorf("%.60s: answered %q", body, got)
		}
	}
	h.untouched("no requests")
	for body, status := range map[string]uint64{
		`{"r":1,"m":"echo","d":{"a":1,"a":2}}`: 400, `{"r":1,"m":"echo","d":"{\"a\":1,\"a\":2}"}`: 200, `{"r":1,"m":""}`: 404, `{"r":1,"m":"owtp.x"}`: 404, `{"r":1,"m":"internal_keyAgreement"}`: 404,
		`{"r":1,"m":"panic"}`: 500, // 4
	} {
		if r := c.opened(h.post(body, "")); r.Status != status || strings.Contains(r.Msg, "planted") {
			t.Errorf("%s: %+v", body, r)
		}
	}
	h.alive()
}

// 5: what never ends, and what is kept of those who come once.
func TestV1AttackBounds(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{}, func(c *NodeConfig) { c.Limits.MaxMessage = 64 << 10 })
	resp, err := v1Client.Post("http://"+h.addr, "application/json", strings.NewReader(`{"r":1,"m":"echo","d":"`+strings.Repeat("x", 64<<10)+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("more octets: status %d", resp.StatusCode)
	}
	h.untouched("too large")
	for range 50 {
		c := newV1Stranger(t)
		c.agree(h)
		if r := c.call(h, "echo", "1"); r.Status != 200 {
			t.Fatalf("%+v", r)
		}
	}
	h.node.mu.Lock()
	sessions, links, peers := len(h.node.v1Sessions), len(h.node.links), len(h.node.peers)
	h.node.mu.Unlock()
	if sessions != 1 || links != 0 || peers != 0 {
		t.Errorf("fifty peers over HTTP have left %d sessions, %d links, %d peers", sessions, links, peers)
	}
	// What the log has said is remembered within a bound.
	for i := range 3 * maxV1Told {
		h.node.v1Told.first(fmt.Sprint(i))
	}
	if n := len(h.node.v1Told.seen); n > maxV1Told {
		t.Errorf("%d peers are remembered", n)
	}
}

// 7: points off the curve and other encodings of one, before any arithmetic.
func TestV1AttackBadPoints(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	var v struct {
		Refusals []struct{ Note, PK, TPK string }
	}
	v1Vectors(t, "keyagreement.json", &v)
	taken := 0
	for i, e := range v.Refusals {
		k, err := json.Marshal(legacy.Keys{Initiator: e.PK, InitiatorEphemeral: e.TPK, Type: "aes"})
		if err != nil {
			t.Fatal(err)
		}
		for _, method := range []string{legacy.MethodAgree, "getInfo"} {
			answer := h.post(fmt.Sprintf(`{"r":1,"m":%q,"n":%d,"k":%s,"v":1}`, method, i+1, k), "")
			p, err := legacy.ParsePacket([]byte(answer), 1<<20)
			if err != nil {
				t.Fatal(e.Note, err)
			}
			if p.Keys.ResponderCheck != "" {
				taken++
			} else if r := v1Result(t, p.Data); r.Status != 502 {
				t.Errorf("%s: %+v", e.Note, r)
			}
		}
	}
	if taken != 2 { // the one point with X = 0, which is one
		t.Errorf("%d agreements with odd points", taken)
	}
	h.untouched("an agreement")
	// The zero point verifies signatures that nobody made, for others.
	c := newV1Stranger(t)
	c.signs = true
	p := c.request("getInfo", "null")
	for _, key := range []string{base58.Encode(make([]byte, 64)), h.node.local.Key.Public().String()} {
		p.Keys.Initiator = key
		h.refused("signed by "+key[:8], c.opened(h.post(v1Text(t, p), "")), 401)
	}
}

// 8, 9: who announces a key has not proved it, and neither has who puts it into
// a packet; and what is agreed on under it is worth nothing to others.
func TestV1AttackClaimedKey(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	victim, thief := newV1Stranger(t), newV1Stranger(t)
	victim.agree(h)
	if r := victim.call(h, "echo", "1"); r.Status != 200 {
		t.Fatalf("%+v", r)
	}
	h.taken()
	for what, p := range map[string]*legacy.Packet{"announced": thief.request("echo", "1"), "in the packet": func() *legacy.Packet {
		p := thief.request("echo", "1")
		p.Keys.Initiator = victim.announce()
		return p
	}()} {
		if r := thief.opened(h.post(v1Text(t, p), victim.announce())); r.Status != 200 {
			t.Errorf("%s: %+v", what, r)
		}
		seen := h.taken()
		if len(seen) != 1 || seen[0].proved || !strings.HasPrefix(seen[0].pid, "anon:") || strings.Contains(seen[0].pid, victim.key.ID().String()) {
			t.Errorf("%s: %+v", what, seen)
		}
	}
	// The thief's key in the packet, the victim's in the header, signed and agreed.
	thief.signs = true
	h.refused("two keys, signed", thief.opened(h.post(v1Text(t, thief.request("echo", "1")), victim.announce())), 401)
	thief.signs = false
	h.refused("two keys, agreed", thief.opened(h.post(v1Text(t, thief.begin()), victim.announce())), 502)
	// The victim's key with an ephemeral of the thief's. It gets a session that
	// it cannot use; and the victim keeps its own.
	p := thief.begin()
	p.Keys.Initiator = victim.announce()
	h.post(v1Text(t, p), victim.announce())
	h.untouched("an agreement under a claimed key")
	if r := victim.call(h, "echo", "2"); r.Status != 200 {
		t.Errorf("the victim's session is gone: %+v", r)
	}
	if seen := h.taken(); len(seen) != 1 || seen[0].proved || !seen[0].sealed {
		t.Errorf("unsigned under an agreement: %+v", seen)
	}
	// Nobody's word for an address is believed.
	r, err := http.NewRequest(http.MethodPost, "http://"+h.addr, strings.NewReader(`{"r":1,"m":"where"}`))
	if err != nil {
		t.Fatal(err)
	}
	where := make(chan string, 1)
	if err := h.node.HandleFunc("where", func(ctx *Context) { where <- ctx.RemoteAddress }); err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Content-Type": {"application/json"}, "X-Real-Ip": {"192.0.2.1"}, "X-Forwarded-For": {"192.0.2.1"}}
	resp, err := v1Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if at := <-where; !strings.HasPrefix(at, "127.0.0.1:") {
		t.Errorf("the request came from %s", at)
	}
}

// 10: copies, also at one time, with digits moved, later, on another listener
// and to another face.
func TestV1AttackReplay(t *testing.T) {
	t.Parallel()
	for _, agreed := range []bool{false, true} {
		h := newV1Host(t, ConnectConfig{EnableSignature: true})
		c := newV1Stranger(t)
		c.signs = true
		if agreed {
			c.agree(h)
		}
		body := v1Text(t, c.request("echo", `{"x":1}`))
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { h.post(body, c.announce()) })
		}
		wg.Wait()
		if seen := h.taken(); len(seen) != 1 || !seen[0].proved || !seen[0].signed || seen[0].pid != c.id() || seen[0].data != `{"x":1}` || seen[0].sealed != agreed {
			t.Fatalf("five copies: %+v", seen)
		}
		other := h.listen(ConnectConfig{EnableSignature: true})
		first := h.addr
		h.refused("a copy", c.opened(h.post(body, c.announce())), 409)
		h.addr = other
		want := uint64(409)
		if agreed {
			want = 502 // the other one has not agreed on anything
		}
		h.refused("a copy elsewhere", c.opened(h.post(body, c.announce())), want)
		h.addr = first
		if !agreed {
			h.movedDigits(c)
		}
		h.now.Add((h.node.cfg.Window + 2*time.Second).Milliseconds())
		h.refused("an old copy", c.opened(h.post(body, c.announce())), 409)
	}
}

// movedDigits moves digits over every border of what is signed.
func (h *v1Host) movedDigits(c *v1Stranger) {
	h.t.Helper()
	p := c.request("echo", `{"x":2}`)
	p.Nonce, p.Time = 118107697745756569, v1Time
	if err := legacy.Sign(rand.Reader, c.key, p); err != nil {
		h.t.Fatal(err)
	}
	moved := *p
	moved.Nonce, moved.Time = 11810769774575656, 90000000000+v1Time // one digit of n begins t
	h.refused("a digit in t", c.opened(h.post(v1Text(h.t, &moved), c.announce())), 409)
	moved.Nonce, moved.Time = 1181076977457565691, int64(v1Time)%1000000000
	h.refused("a digit in n", c.opened(h.post(v1Text(h.t, &moved), c.announce())), 409)
	if r := c.opened(h.post(v1Text(h.t, p), c.announce())); r.Status != 200 {
		h.t.Errorf("the packet itself: %+v", r)
	}
	h.taken()
}

// What cannot be noticed: digits that move between method and nonce. The forged
// packet runs another method if there is one with such a name, and the sender's
// own is then the copy.
func TestV1CannotSeeMethodDigits(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{EnableSignature: true})
	ran := make(chan string, 2)
	if err := h.node.HandleFunc("getInfo1", func(ctx *Context) { ran <- ctx.Method }); err != nil {
		t.Fatal(err)
	}
	c := newV1Stranger(t)
	c.signs, c.nonce = true, 1234
	p := c.request("getInfo", "null")
	forged := *p
	forged.Method, forged.Nonce = "getInfo1", 235
	if r := c.opened(h.post(v1Text(t, &forged), c.announce())); r.Status != 0 || <-ran != "getInfo1" {
		t.Errorf("the forged packet: %+v", r)
	}
	h.refused("the sender's own", c.opened(h.post(v1Text(t, p), c.announce())), 409)
}

// 10: after a restart nothing is known of what was before it, so that nothing
// from before it is taken.
func TestV1AttackReplayAfterRestart(t *testing.T) {
	t.Parallel()
	cert := NewRandomCertificate()
	before := newV1Host(t, ConnectConfig{EnableSignature: true}, func(c *NodeConfig) { c.Cert = cert })
	c := newV1Stranger(t)
	c.signs = true
	body := v1Text(t, c.request("echo", "1"))
	if r := c.opened(before.post(body, c.announce())); r.Status != 200 {
		t.Fatalf("%+v", r)
	}
	after := newV1Host(t, ConnectConfig{EnableSignature: true}, func(c *NodeConfig) { c.Cert = cert })
	after.node.state.born = time.Unix(v1Time+1, 0)
	after.refused("a copy from before", c.opened(after.post(body, c.announce())), 409)
	// A flushed store is a restart as well.
	h := newV1Host(t, ConnectConfig{EnableSignature: true})
	if r := c.opened(h.post(body, c.announce())); r.Status != 200 {
		t.Fatalf("%+v", r)
	}
	h.taken()
	h.now.Add(2000)
	h.node.state.epochs = cachedEpoch{}
	for _, key := range []string{"epoch"} {
		if err := h.node.state.store.Delete(t.Context(), h.node.state.base+key); err != nil {
			t.Fatal(err)
		}
	}
	h.refused("a copy after a flush", c.opened(h.post(body, c.announce())), 409)
}

// 10, without signatures: what is sealed runs once too, whatever an observer
// changes of what is not.
func TestV1AttackReplaySealed(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{EnableKeyAgreement: true})
	c := newV1Stranger(t)
	c.agree(h)
	p := c.request("echo", `{"x":1}`)
	if r := c.opened(h.post(v1Text(t, p), c.announce())); r.Status != 200 {
		t.Fatalf("%+v", r)
	}
	h.taken()
	for what, change := range map[string]func(*legacy.Packet){
		"nothing": func(*legacy.Packet) {}, "the time": func(p *legacy.Packet) { p.Time += 40 }, "the method": func(p *legacy.Packet) { p.Method = "getInfo" },
		"the sign of n": func(p *legacy.Packet) { p.Nonce = -p.Nonce }, "the label": func(p *legacy.Packet) { p.Keys.Type = "x" },
	} {
		copied := *p
		change(&copied)
		if r := c.opened(h.post(v1Text(t, &copied), c.announce())); r.Status != 409 {
			t.Errorf("a copy with %s changed: %+v", what, r)
		}
	}
	for what, change := range map[string]func(*legacy.Packet){
		"n": func(p *legacy.Packet) { p.Nonce++ }, "v": func(p *legacy.Packet) { p.Version = 0 }, // 13
	} {
		copied := *p
		change(&copied)
		if r := c.opened(h.post(v1Text(t, &copied), c.announce())); r.Status != 502 {
			t.Errorf("a copy with %s changed: %+v", what, r)
		}
	}
	h.untouched("copies")
}

// 11: the node's private key, stolen later, opens nothing that was recorded.
func TestV1AttackStolenKey(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	c := newV1Stranger(t)
	seen := make(map[string]bool)
	for range 3 {
		c.agree(h)
		request := c.request("echo", `{"secret":true}`)
		answer, err := legacy.ParsePacket([]byte(h.post(v1Text(t, request), c.announce())), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if seen[answer.Keys.ResponderEphemeral] || answer.Keys.ResponderEphemeral == answer.Keys.Responder {
			t.Error("the ephemeral was seen before")
		}
		seen[answer.Keys.ResponderEphemeral] = true
		stolen, err := legacy.Respond(bytes.NewReader(h.node.local.Key.Bytes()), h.node.local.Key, request.Keys)
		if err != nil || stolen.IsRequest(request.Keys) || stolen.IsResponse(answer.Keys) {
			t.Fatal("the static key is the session's", err)
		}
		for _, p := range []*legacy.Packet{request, answer} {
			sealed, _ := p.Text()
			if text, err := stolen.Open(sealed, p.Version, p.Nonce); err == nil && json.Valid(text) {
				t.Errorf("%q opens", text)
			}
		}
	}
	// The secret that ephemerals are made of does not stay.
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	for v := range h.node.v1Sessions {
		if v.secret.octets == nil {
			t.Fatal("no secret")
		}
		first := v.secret.octets
		v.sweep(time.Now().Add(v.life/2 + time.Second))
		v.sweep(time.Now().Add(v.life + time.Second))
		if v.secret.octets != nil || v.before.octets != nil || !bytes.Equal(first, make([]byte, sha256.Size)) {
			t.Error("the secret is not erased after its life")
		}
	}
}

// 12, 13: whatever bit is flipped in sealed data, no handler sees what is no
// JSON; under a signature none sees anything. Whether padding or form was wrong
// looks the same.
func TestV1AttackFlippedBits(t *testing.T) {
	t.Parallel()
	for _, signed := range []bool{false, true} {
		h := newV1Host(t, ConnectConfig{EnableKeyAgreement: true, EnableSignature: signed}, func(c *NodeConfig) { c.Limits.MaxHandshakeRate = 1 << 20 })
		c := newV1Stranger(t)
		c.signs = signed
		c.agree(h)
		p := c.request("echo", `{"amount":10,"to":"somebody"}`)
		sealed, err := p.Text()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(sealed)
		if err != nil {
			t.Fatal(err)
		}
		said := make(map[string]bool)
		for i := range len(raw) * 8 {
			changed := bytes.Clone(raw)
			changed[i/8] ^= 1 << (i % 8)
			q := *p
			if err := q.SetText(base64.StdEncoding.EncodeToString(changed)); err != nil {
				t.Fatal(err)
			}
			r := c.opened(h.post(v1Text(t, &q), c.announce()))
			if r.Status != 200 && r.Status != 409 {
				said[fmt.Sprint(r.Status, r.Msg)] = true
			}
		}
		for _, s := range h.taken() {
			if signed || !json.Valid([]byte(s.data)) {
				t.Errorf("signed %v: a handler has seen %q", signed, s.data)
			}
		}
		if len(said) != 1 {
			t.Errorf("the refusals differ: %v", said)
		}
	}
}

// 12: who has seen a packet knows its check value. Alone it is worth nothing.
func TestV1AttackCheckValue(t *testing.T) {
	t.Parallel()
	for _, trust := range []bool{false, true} {
		h := newV1Host(t, ConnectConfig{InsecureV1TrustAgreement: trust})
		c := newV1Stranger(t)
		c.agree(h)
		if r := c.call(h, "echo", "1"); r.Status != 200 {
			t.Fatalf("%+v", r)
		}
		if seen := h.taken(); len(seen) != 1 || seen[0].proved != trust || trust && seen[0].pid != c.id() {
			t.Errorf("trust %v: %+v", trust, seen)
		}
		p := c.request("getInfo", "null")
		for _, data := range []string{`""`, "null", "{}", `"bm9ub25ub25ub25ub25ubg=="`} {
			p.Nonce++
			p.Data = json.RawMessage(data)
			h.refused("d "+data, c.opened(h.post(v1Text(t, p), c.announce())), 502)
		}
	}
}

// 10, 12: a signature of the peer's that was made for a packet in the clear, for
// another node perhaps, is put beside its check value. Without data nothing would
// tell it from what the peer seals; that is taken for a bare text, where such are.
func TestV1AttackSignatureFromElsewhere(t *testing.T) {
	t.Parallel()
	for _, take := range []bool{false, true} {
		h := newV1Host(t, ConnectConfig{EnableSignature: true, EnableKeyAgreement: true, InsecureV1BareText: take})
		c := newV1Stranger(t)
		c.signs = true
		c.agree(h)
		seen := c.request("echo", "1")
		if r := c.opened(h.post(v1Text(t, seen), c.announce())); r.Status != 200 || len(h.taken()) != 1 {
			t.Fatalf("%+v", r)
		}
		session := c.session
		c.session = nil
		elsewhere := c.request("getInfo", "null") // to another node, which asks for no agreement
		c.session = session
		want := uint64(502)
		if take {
			want = 200
		}
		for _, data := range []string{`""`, "null", ""} {
			p := *elsewhere
			p.Keys, p.Data = seen.Keys, json.RawMessage(data)
			if data == "" {
				p.Data = nil
			}
			if r := c.opened(h.post(v1Text(t, &p), c.announce())); r.Status != want {
				t.Errorf("take %v, d %s: %+v", take, data, r)
			}
			if ran := len(h.taken()); (ran == 1) != (want == 200) {
				t.Errorf("take %v, d %s: %d handlers ran", take, data, ran)
			}
			if take {
				want = 409 // once
			}
		}
		// The peer's own without parameters are sealed, and run.
		if r := c.call(h, "getInfo", "null"); r.Status != 200 {
			t.Errorf("take %v: the peer's own: %+v", take, r)
		}
	}
}

// 14: plain requests after an agreement are plain requests, or none where an
// agreement is asked for.
func TestV1AttackFloors(t *testing.T) {
	t.Parallel()
	outsider := newV1Stranger(t)
	insider := newV1Stranger(t)
	for _, c := range []struct {
		name          string
		cfg           ConnectConfig
		sign, agree   bool
		caller        *v1Stranger
		want          uint64
		atTheRequest  bool // and not at the agreement already
		unreadableToo bool
	}{
		{name: "plain, to a floor of agreement", cfg: ConnectConfig{EnableKeyAgreement: true}, caller: outsider, want: 402},
		{name: "signed, to a floor of agreement", cfg: ConnectConfig{EnableKeyAgreement: true}, sign: true, caller: outsider, want: 402},
		{name: "agreed, to a floor of signatures", cfg: ConnectConfig{EnableSignature: true}, agree: true, caller: outsider, want: 401},
		{name: "agreed, to both", cfg: ConnectConfig{EnableSignature: true, EnableKeyAgreement: true}, agree: true, caller: outsider, want: 401},
		{name: "signed, to both", cfg: ConnectConfig{EnableSignature: true, EnableKeyAgreement: true}, sign: true, caller: outsider, want: 402},
		{name: "both, to both", cfg: ConnectConfig{EnableSignature: true, EnableKeyAgreement: true}, sign: true, agree: true, caller: outsider, want: 200},
		{name: "signed by an outsider", cfg: ConnectConfig{AllowV1Peers: []string{insider.key.ID().String()}}, sign: true, caller: outsider, want: 401},
		{name: "signed by an insider", cfg: ConnectConfig{AllowV1Peers: []string{insider.key.ID().String()}}, sign: true, caller: insider, want: 200},
		{name: "announced by an insider", cfg: ConnectConfig{AllowV1Peers: []string{insider.key.ID().String()}}, caller: insider, want: 401},
		{name: "agreed by an insider", cfg: ConnectConfig{AllowV1Peers: []string{insider.key.ID().String()}}, agree: true, caller: insider, want: 401},
		{name: "agreed by an insider, and trusted", cfg: ConnectConfig{AllowV1Peers: []string{insider.key.ID().String()}, InsecureV1TrustAgreement: true}, agree: true, caller: insider, want: 200},
		{name: "agreed by an outsider, and trusted", cfg: ConnectConfig{AllowV1Peers: []string{insider.key.ID().String()}, InsecureV1TrustAgreement: true}, agree: true, caller: outsider, want: 502},
		{name: "plain, where the agreed are trusted", cfg: ConnectConfig{AllowV1Peers: []string{insider.key.ID().String()}, InsecureV1TrustAgreement: true}, caller: insider, want: 401},
		{name: "not authorized", cfg: ConnectConfig{Authorize: func(id, _ string) error {
			if id != outsider.id() {
				return errors.New("no")
			}
			return nil
		}}, sign: true, caller: insider, want: 401},
		{name: "not authorized by a panic", cfg: ConnectConfig{Authorize: func(string, string) error { panic("planted") }}, sign: true, caller: insider, want: 401},
		{name: "plain, where somebody authorizes", cfg: ConnectConfig{Authorize: func(string, string) error { return nil }}, caller: insider, want: 401},
	} {
		h := newV1Host(t, c.cfg)
		caller := *c.caller
		caller.t, caller.signs, caller.session = t, c.sign, nil
		var r legacy.Result
		if c.agree {
			r = caller.opened(h.post(v1Text(t, caller.begin()), caller.announce()))
		}
		if !c.agree || r.Status == 200 {
			r = caller.call(h, "getInfo", "null")
		}
		if r.Status != c.want {
			t.Errorf("%s: %+v, want %d", c.name, r, c.want)
		}
		if seen := h.taken(); (len(seen) == 1) != (c.want == 200) {
			t.Errorf("%s: %+v", c.name, seen)
		}
	}
}

// A bare text under an agreement is refused, since junk is one too, unless the
// listener was told to take it.
func TestV1BareText(t *testing.T) {
	t.Parallel()
	for _, take := range []bool{false, true} {
		h := newV1Host(t, ConnectConfig{InsecureV1BareText: take})
		c := newV1Stranger(t)
		c.agree(h)
		r := c.call(h, "echo", `"a plain word"`)
		if take && (r.Status != 200 || string(r.Result) != `"a plain word"`) || !take && r.Status != 502 {
			t.Errorf("take %v: %+v", take, r)
		}
	}
}

// InsecureV1AnyTime takes what clocks say otherwise, and still no copy.
func TestV1AnyTime(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{InsecureV1AnyTime: true})
	c := newV1Stranger(t)
	c.signs, c.now = true, 1000000000
	body := v1Text(t, c.request("echo", "1"))
	if r := c.opened(h.post(body, c.announce())); r.Status != 200 {
		t.Errorf("%+v", r)
	}
	h.taken()
	h.now.Add((50 * time.Minute).Milliseconds())
	h.refused("a copy", c.opened(h.post(body, c.announce())), 409)
}

// A session that this node has lost costs one call.
func TestV1AgreesAnew(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	c := newV1Stranger(t)
	c.agree(h)
	h.node.mu.Lock()
	for v := range h.node.v1Sessions {
		v.sweep(time.Now().Add(v.life/2 + time.Second)) // the secret changes: nothing is lost
	}
	h.node.mu.Unlock()
	before := c.session
	if r := c.call(h, "echo", "1"); r.Status != 200 || c.session == before {
		t.Errorf("with the secret before: %+v, followed %v", r, c.session != before)
	}
	h.node.mu.Lock()
	for v := range h.node.v1Sessions {
		v.sweep(time.Now().Add(v.life/2 + time.Second))
		v.sweep(time.Now().Add(2 * v.life))
	}
	h.node.mu.Unlock()
	h.taken()
	h.refused("under a lost session", c.call(h, "echo", "1"), 502)
	if r := c.call(h, "echo", "1"); r.Status != 200 {
		t.Errorf("the call after it: %+v", r)
	}
}

// One listener, both versions: neither sees anything of the other, and the same
// key is two peers.
func TestV1BesideVersion2(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{}, func(c *NodeConfig) { c.Limits = Limits{} })
	h.node.now = time.Now
	if err := h.node.HandleFunc("keep", v1Keep); err != nil {
		t.Fatal(err)
	}
	c := newV1Stranger(t)
	c.signs, c.now = true, time.Now().Unix()
	if r := c.call(h, "keep", "null"); r.Status != 200 || string(r.Result) != `"`+c.id()+`"` {
		t.Errorf("version 1: %+v", r)
	}
	client := lifeNode(t, NodeConfig{Cert: Certificate{c.key}})
	if c.id() != v1ID(client.local.Key.ID()) {
		t.Fatal("not the same key")
	}
	for i, mode := range []ConnectConfig{{EnableSignature: true}, {EnableKeyAgreement: true}, {EnableSignature: true, EnableKeyAgreement: true}} {
		mode.ConnectType, mode.Address = HTTP, h.addr
		name := fmt.Sprint("host", i)
		if err := client.Connect(name, mode); err != nil {
			t.Fatal(err)
		}
		resp, err := client.CallSync(name, "keep", nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := uint64(200 + 401*min(i, 1)); resp.Status != want || fmt.Sprint(resp.JsonData()) != client.NodeID() {
			t.Errorf("version 2, %v: %d %v", mode, resp.Status, resp.JsonData())
		}
	}
	if r := c.call(h, "keep", "null"); r.Status != 601 || string(r.Result) != `"`+c.id()+`"` {
		t.Errorf("version 1 again: %+v", r)
	}
	if h.node.IsConnectPeer(c.id()) || h.node.GetOnlinePeer(c.id()) != nil {
		t.Error("a peer over HTTP is connected")
	}
}

// version2 are signed packets of version 2, in all their forms, and a hello.
func (h *v1Host) version2(method string, key *identity.PrivateKey) [][]byte {
	h.t.Helper()
	epoch, err := h.node.state.epoch(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	p := &wire.Packet{
		Kind: wire.Request, Method: method, Nonce: wire.Nonce{1}, Data: []byte("1"), Mode: wire.ModeSigned, Transport: uint8(transport.HTTP),
		Recipient: wire.ID(h.node.local.Key.ID()), Epoch: epoch, Time: uint64(h.now.Load()),
	}
	if err := secure.Sign(rand.Reader, key, p); err != nil {
		h.t.Fatal(err)
	}
	envelope, err := p.AppendJSON(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return [][]byte{envelope, p.Append(wire.AppendHeader(nil, wire.TypePackets)), wire.AppendHeader(nil, wire.TypeHello)}
}

// Nobody turns one version into the other on the way.
func TestV1AttackTurnVersion(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	key := NewRandomCertificate().key
	for _, body := range h.version2("echo", key) {
		if got := h.post(string(body), key.Public().String()); got != "" {
			t.Errorf("version 2 as version 1: %s", got)
		}
	}
	h.untouched("a packet of version 2")
	// And the other way round.
	c := newV1Stranger(t)
	c.signs = true
	for _, typ := range []string{"application/owtp", "application/owtp+json"} {
		resp, err := v1Client.Post("http://"+h.addr, typ, strings.NewReader(v1Text(t, c.request("echo", "1"))))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("version 1 as %s: status %d", typ, resp.StatusCode)
		}
	}
	h.untouched("a packet of version 1")
	// Where version 1 was not allowed it does not exist.
	n := lifeNode(t, NodeConfig{Cert: NewRandomCertificate()})
	if err := n.Listen(ConnectConfig{Address: "127.0.0.1:0", ConnectType: HTTP}); err != nil {
		t.Fatal(err)
	}
	resp, err := v1Client.Post("http://"+n.ListenerAddr(HTTP), "application/json", strings.NewReader(v1Text(t, c.request("echo", "1"))))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 415 {
		t.Errorf("version 1 to who does not allow it: status %d", resp.StatusCode)
	}
}

// A face of its own for version 1 has its own key, and does not answer under the
// node's.
func TestV1Certificate(t *testing.T) {
	t.Parallel()
	face := NewRandomCertificate()
	h := newV1Host(t, ConnectConfig{V1Cert: face})
	c := newV1Stranger(t)
	p, err := legacy.ParsePacket([]byte(h.post(v1Text(t, c.begin()), c.announce())), 1<<20)
	if err != nil || p.Keys.Responder != face.key.Public().String() {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := c.begun.Finish(p.Keys, face.key.Public()); err != nil {
		t.Error(err)
	}
}

// The log says once of each peer what it cannot be protected from, and nothing
// of what passes.
func TestV1IsLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	h := newV1Host(t, ConnectConfig{}, func(c *NodeConfig) { c.Logger = testLogger(&log) })
	c := newV1Stranger(t)
	c.signs = true
	for range 3 {
		if r := c.call(h, "echo", `"the user's data"`); r.Status != 200 {
			t.Fatalf("%+v", r)
		}
	}
	c.agree(h)
	c.call(h, "echo", `{"the user's":"data"}`)
	h.node.Close()
	text := log.String()
	if n := strings.Count(text, "speaks version 1"); n != 2 || strings.Count(text, c.id()) != 2 {
		t.Errorf("the log says it %d times:\n%s", n, text)
	}
	if strings.Contains(text, "user's") {
		t.Errorf("the log holds what passes:\n%s", text)
	}
}

// Strangers have their share and no more, and peers that are known have theirs.
func TestV1AttackFlood(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{}, func(c *NodeConfig) { c.Limits.MaxHandshakeRate = 10 })
	known := newV1Stranger(t)
	known.signs = true
	if r := known.call(h, "echo", "1"); r.Status != 200 {
		t.Fatalf("%+v", r)
	}
	refused := 0
	for i := range 100 {
		c := newV1Stranger(t)
		p := c.begin()
		if i%2 == 0 {
			c.signs, c.session = true, nil
			p = c.request("echo", "1")
			p.Nonce++
		}
		if r := c.opened(h.post(v1Text(t, p), c.announce())); r.Status == 429 {
			refused++
		}
	}
	if refused < 30 {
		t.Errorf("%d of 100 strangers at one time were turned away", refused)
	}
	for range 20 {
		if r := known.call(h, "echo", "1"); r.Status != 200 {
			t.Fatalf("who is known: %+v", r)
		}
	}
}

// 12: the signature is taken off a copy of what is signed and sealed. Whichever
// comes first, the other does not run, also where both would be taken.
func TestV1AttackSignatureTakenOff(t *testing.T) {
	t.Parallel()
	for _, trust := range []bool{false, true} {
		for _, first := range []bool{false, true} {
			h := newV1Host(t, ConnectConfig{InsecureV1TrustAgreement: trust})
			c := newV1Stranger(t)
			c.agree(h)
			c.signs = true
			whole := c.request("echo", `{"pay":1}`)
			stripped := *whole
			stripped.Signature = ""
			order := []*legacy.Packet{whole, &stripped}
			if first {
				order[0], order[1] = order[1], order[0]
			}
			if r := c.opened(h.post(v1Text(t, order[0]), c.announce())); r.Status != 200 || len(h.taken()) != 1 {
				t.Fatalf("trust %v, without its signature %v: %+v", trust, first, r)
			}
			for range 2 {
				for _, p := range order {
					h.refused("a copy", c.opened(h.post(v1Text(t, p), c.announce())), 409)
				}
			}
			if r := c.call(h, "echo", `{"pay":2}`); r.Status != 200 {
				t.Errorf("the next one: %+v", r)
			}
		}
	}
}

// What a signature of version 1 does not cover is the agreement: where a listener
// does not ask for one it can be taken off, and a handler gets the ciphertext as
// a text, once. docs/V1.md says so.
func TestV1OpenAgreementTakenOff(t *testing.T) {
	t.Parallel()
	for _, asked := range []bool{false, true} {
		h := newV1Host(t, ConnectConfig{EnableSignature: true, EnableKeyAgreement: asked})
		c := newV1Stranger(t)
		c.signs = true
		c.agree(h)
		p := c.request("echo", `{"pay":1}`)
		sealed := string(p.Data)
		p.Keys = legacy.Keys{Initiator: p.Keys.Initiator}
		r := v1Result(t, []byte(readData(t, h.post(v1Text(t, p), c.announce()))))
		seen := h.taken()
		if asked && (r.Status != 402 || len(seen) != 0) || !asked && (r.Status != 200 || len(seen) != 1 || seen[0].data != sealed || seen[0].pid != c.id()) {
			t.Errorf("asked %v: %+v %+v", asked, r, seen)
		}
	}
}

func readData(t testing.TB, body string) string {
	t.Helper()
	p, err := legacy.ParsePacket([]byte(body), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return string(p.Data)
}

// A face that the program serves itself takes version 1 as a listener does, and
// its keys end with the node.
func TestV1Faces(t *testing.T) {
	t.Parallel()
	h := newV1Host(t, ConnectConfig{})
	plain, err := h.node.HTTPHandler(ConnectConfig{AllowV1: true, EnableSignature: true})
	if err != nil {
		t.Fatal(err)
	}
	ws, err := h.node.WebsocketHandler(ConnectConfig{AllowV1: true, EnableKeyAgreement: true})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/plain", plain)
	mux.Handle("/", ws)
	server := httptest.NewServer(mux)
	defer server.Close()
	h.addr = strings.TrimPrefix(server.URL, "http://")
	c := newV1Stranger(t)
	conn := h.dial(c.announce())
	c.opened(conn.ask(c.begin()))
	if r := c.opened(conn.ask(c.request("echo", "1"))); r.Status != 200 {
		t.Errorf("over WebSocket: %+v", r)
	}
	h.addr += "/plain" // v1Host.post adds a slash
	mux.Handle("/plain/", plain)
	c.session = nil
	if r := c.opened(h.post(v1Text(t, c.request("echo", "1")), c.announce())); r.Status != 401 {
		t.Errorf("not signed, where that is asked for: %+v", r)
	}
	c.signs = true
	c.agree(h)
	if r := c.call(h, "echo", "2"); r.Status != 200 {
		t.Errorf("over HTTP: %+v", r)
	}
	var all []*v1Sessions
	h.node.mu.Lock()
	for v := range h.node.v1Sessions {
		all = append(all, v)
	}
	h.node.mu.Unlock()
	h.node.Close()
	if len(all) != 3 { // of the listener and two faces
		t.Errorf("%d keep secrets", len(all))
	}
	for _, v := range all {
		if _, _, err := v.secrets(); err == nil {
			t.Error("something is agreed on after the node's end")
		}
	}
	if _, err := conn.read(10 * time.Second); err == nil {
		t.Error("the connection has outlived the node")
	}
}
