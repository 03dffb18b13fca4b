package owtp_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/httpt"
	"github.com/owtp-go/owtp/internal/memt"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/internal/wst"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// The tests named TestAttack are PROTOCOL §10, one line each: what somebody who
// owns the network must not be able to do. Each asserts that the attack was
// really delivered, so that none passes because nothing happened.

// A medium is a connect type and the transport under it, for the attacker.
type medium struct {
	name string
	tr   transport.Transport
}

var (
	overHTTP   = medium{owtp.HTTP, httpt.New()}
	overWS     = medium{owtp.Websocket, wst.New()}
	overMemory = medium{owtp.Memory, memt.New()}
	overMQ     = medium{owtp.MQ, house}

	media         = []medium{overHTTP, overWS, overMemory, overMQ}
	longMedia     = []medium{overWS, overMemory}
	exchangeMedia = []medium{overHTTP, overMQ}
)

func (m medium) exchanges() bool { return m.name == owtp.HTTP || m.name == owtp.MQ }

// listenAddr is where a new listener of the medium may bind.
func (m medium) listenAddr() string {
	switch m.name {
	case owtp.Memory:
		return fmt.Sprintf("attack-%d", memoryNames.Add(1))
	case owtp.MQ:
		return freshBroker()
	}
	return "127.0.0.1:0"
}

var memoryNames atomic.Int64

// A guard is what both sides ask for.
type guard struct {
	name       string
	sign, seal bool
	format     string // "" is JSON
}

var (
	inOpen   = guard{name: "open"}
	inSigned = guard{name: "signed", sign: true}
	inSealed = guard{name: "sealed", seal: true}
	inBoth   = guard{name: "sealed+signed", sign: true, seal: true}

	proofModes = []guard{inSigned, inSealed, inBoth}
)

func (g guard) open() bool { return !g.sign && !g.seal }

func (g guard) mode() wire.Mode {
	switch {
	case g.sign && g.seal:
		return wire.ModeSealedSigned
	case g.seal:
		return wire.ModeSealed
	case g.sign:
		return wire.ModeSigned
	}
	return wire.ModeOpen
}

func (g guard) protobuf() guard {
	g.name, g.format = g.name+"+"+codec.NameProtobuf, codec.NameProtobuf
	return g
}

// carrying has each mode with data in JSON and in Protobuf.
func carrying(modes []guard) []guard {
	var both []guard
	for _, g := range modes {
		both = append(both, g, g.protobuf())
	}
	return both
}

// each runs f for every medium, mode and data format.
func each(t *testing.T, over []medium, modes []guard, f func(t *testing.T, m medium, g guard)) {
	for _, m := range over {
		for _, g := range carrying(modes) {
			t.Run(m.name+"/"+g.name, func(t *testing.T) {
				t.Parallel()
				f(t, m, g)
			})
		}
	}
}

// quick are limits for tests: waits that the attacker causes end soon, and his
// many handshakes from one address are not turned away before they do harm.
var quick = owtp.Limits{HandshakeTimeout: 3 * time.Second, MaxReconnectDelay: 100 * time.Millisecond, MaxHandshakeRate: 1 << 20}

// A bank is a node whose one method must not run twice, and that remembers all
// it was asked for.
type bank struct {
	*owtp.OWTPNode
	runs atomic.Int64

	mu    sync.Mutex
	asked []payment
}

type payment struct {
	params, meta, peer string
	proved             bool
}

func newNode(t *testing.T, cfg owtp.NodeConfig) *owtp.OWTPNode {
	t.Helper()
	if cfg.Cert.ID() == "" {
		cfg.Cert = owtp.NewRandomCertificate()
	}
	if cfg.Limits == (owtp.Limits{}) {
		cfg.Limits = quick
	}
	n, err := owtp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func newBank(t *testing.T, cfg owtp.NodeConfig) *bank {
	t.Helper()
	b := &bank{OWTPNode: newNode(t, cfg)}
	handle := func(method string, f owtp.HandlerFunc) {
		if err := b.HandleFunc(method, f); err != nil {
			t.Fatal(err)
		}
	}
	handle("pay", func(c *owtp.Context) {
		b.runs.Add(1)
		b.mu.Lock()
		b.asked = append(b.asked, payment{c.Params().Raw, c.Meta("purpose"), c.PID, c.Proved()})
		b.mu.Unlock()
		c.Response(map[string]string{"receipt": receipt(c.Params().Get("token").String())}, 0, "paid")
	})
	handle("keep", func(c *owtp.Context) {
		if err := c.SetSession("secret", c.Params().Get("secret").String()); err != nil {
			c.Response(nil, owtp.ErrCustomError, err.Error())
		}
	})
	handle("fetch", func(c *owtp.Context) {
		c.Response(map[string]any{"secret": c.GetSession("secret"), "peer": c.PID}, 0, "")
	})
	return b
}

func receipt(token string) string { return "receipt-for-" + token }

// listen makes the bank listen and returns the address.
func (b *bank) listen(t *testing.T, m medium, g guard) string {
	t.Helper()
	err := b.Listen(owtp.ConnectConfig{Address: m.listenAddr(), ConnectType: m.name, EnableSignature: g.sign, EnableKeyAgreement: g.seal, DataFormat: g.format})
	if err != nil {
		t.Fatal(err)
	}
	return b.ListenerAddr(m.name)
}

const (
	tokenMark   = "tok-5d0c1e" // stands in every request's data
	purposeMark = "purpose-77af2b"
)

// payParams are what a call with a token carries.
func payParams(token string) map[string]string { return map[string]string{"token": tokenMark + token} }

// onlyAsked fails if a handler saw anything that the caller never said.
func (b *bank) onlyAsked(t *testing.T, caller string, tokens ...string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.asked {
		known := slices.ContainsFunc(tokens, func(token string) bool { return p.params == fmt.Sprintf(`{"token":%q}`, tokenMark+token) })
		if !known || p.meta != purposeMark {
			t.Errorf("a handler ran with what nobody asked for: %+v", p)
		}
		if caller != "" && p.peer != caller {
			t.Errorf("a handler ran for %s, the caller is %s", p.peer, caller)
		}
	}
}

// ran fails unless the handler has run exactly so many times.
func (b *bank) ran(t *testing.T, want int64) {
	t.Helper()
	if got := b.runs.Load(); got != want {
		t.Errorf("the handler has run %d times, want %d", got, want)
	}
}

// A rig is a client that calls a bank through a man in the middle.
type rig struct {
	t      *testing.T
	m      medium
	g      guard
	bank   *bank
	client *owtp.OWTPNode
	proxy  *transporttest.Proxy
	suites []string
}

func newRig(t *testing.T, m medium, g guard) *rig {
	t.Helper()
	r := bareRig(t, m, g)
	if err := r.connect(); err != nil {
		t.Fatalf("connecting through a proxy that changes nothing: %v", err)
	}
	return r
}

// bareRig has not connected.
func bareRig(t *testing.T, m medium, g guard) *rig {
	t.Helper()
	r := &rig{t: t, m: m, g: g, bank: newBank(t, owtp.NodeConfig{})}
	addr := r.bank.listen(t, m, g)
	r.proxy = transporttest.NewProxy(t, m.tr, transporttest.Config(m.listenAddr()), transporttest.Config(addr))
	r.client = newNode(t, owtp.NodeConfig{})
	return r
}

func (r *rig) connectConfig() owtp.ConnectConfig {
	cfg := r.bank.at(r.proxy.Addr(), r.m, r.g)
	cfg.Suites = r.suites
	return cfg
}

// at is how others reach the bank by way of an address.
func (b *bank) at(addr string, m medium, g guard) owtp.ConnectConfig {
	cfg := owtp.ConnectConfig{Address: addr, ConnectType: m.name, EnableSignature: g.sign, EnableKeyAgreement: g.seal, DataFormat: g.format}
	if m == overMQ {
		cfg.WriteQueueName = "owtp.node." + b.NodeID()
	}
	return cfg
}

func (r *rig) connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return r.client.ConnectContext(ctx, "bank", r.connectConfig())
}

// pay calls the bank and judges the outcome: success must be the right answer,
// and what is not proved must not be said to be. It reports success.
func (r *rig) pay(token string, timeout time.Duration) (bool, error) {
	return r.payWith(token, &owtp.CallOptions{Timeout: timeout})
}

func (r *rig) payWith(token string, opts *owtp.CallOptions) (bool, error) {
	r.t.Helper()
	opts.Meta = map[string]string{"purpose": purposeMark}
	resp, err := r.client.CallContext(context.Background(), "bank", "pay", payParams(token), opts)
	return judge(r.t, token, resp, err), err
}

func judge(t *testing.T, token string, resp *owtp.Response, err error) bool {
	t.Helper()
	if err != nil {
		var e *owtp.Error
		if !errors.As(err, &e) {
			t.Errorf("the error is no *owtp.Error: %v", err)
		} else if e.Proved {
			t.Errorf("said to be proved: %v", err)
		}
		return false
	}
	if !resp.OK() {
		return false
	}
	if got, want := resp.JsonData().Get("receipt").String(), receipt(tokenMark+token); got != want || resp.Msg != "paid" {
		t.Errorf("wrong answer: %q with message %q, want %q", got, resp.Msg, want)
	}
	return true
}

// mustPay fails unless the call succeeds.
func (r *rig) mustPay(token string) {
	r.t.Helper()
	if ok, err := r.pay(token, 10*time.Second); !ok {
		r.t.Fatalf("call %q failed: %v", token, err)
	}
}

// sent returns what has passed towards the server or the client.
func (r *rig) sent(dir transporttest.Direction) []transporttest.Flow {
	return slices.DeleteFunc(r.proxy.Recorded(), func(f transporttest.Flow) bool { return f.Dir != dir })
}

// requests returns the messages with calls in them: all that is no handshake.
func (r *rig) requests() []transport.Message {
	var out []transport.Message
	for _, f := range r.sent(transporttest.ToServer) {
		if !isHello(f.Message) {
			out = append(out, f.Message)
		}
	}
	return out
}

func typeOf(m transport.Message) wire.MessageType {
	if m.Form == transport.JSON {
		return 0
	}
	typ, _, _ := wire.ParseHeader(m.Data)
	return typ
}

func isHello(m transport.Message) bool { return typeOf(m) == wire.TypeHello }

func binary(data []byte) transport.Message {
	return transport.Message{Form: transport.Binary, Data: data}
}

func pass(f transporttest.Flow) []transport.Message { return []transport.Message{f.Message} }

// waitFor polls, since some effects have no event to wait for.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting until %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// settle gives an attack that is under way the time to show an effect.
func settle() { time.Sleep(30 * time.Millisecond) }

// closes fails unless the other side ends the connection.
func closes(t *testing.T, c transport.Conn, patience time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range 1000 {
		if _, err := c.Recv(ctx); err != nil {
			if ctx.Err() != nil {
				t.Error("the connection is still open")
			}
			return
		}
	}
	t.Error("the other side goes on talking")
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// newKey returns an identity in both of its forms.
func newKey(t *testing.T) (owtp.Certificate, *identity.PrivateKey) {
	t.Helper()
	cert := owtp.NewRandomCertificate()
	key, err := identity.NewPrivateKey(cert.PrivateKeyBytes())
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// A relay is a man in the middle for exchanges who decides what he answers.
type relay func(ctx context.Context, m transport.Message, pass forward) (transport.Message, error)

type forward func(m transport.Message) (transport.Message, error)

// packetAs is a message with one packet that nobody has sealed.
func packetAs(form transport.Form, p *wire.Packet) transport.Message {
	if form == transport.JSON {
		b, err := p.AppendJSON(nil)
		if err != nil {
			panic(err)
		}
		return transport.Message{Form: form, Data: b}
	}
	return binary(wire.AppendRecordPacket(wire.AppendHeader(nil, wire.TypePackets), p.Append(nil)))
}

// relayTo serves a relay in front of target and returns its address.
func relayTo(t *testing.T, m medium, target string, f relay) string {
	t.Helper()
	x, err := m.tr.(transport.ExchangeDialer).DialExchange(context.Background(), transporttest.Config(target))
	if err != nil {
		t.Fatal(err)
	}
	l, err := m.tr.Listen(context.Background(), transporttest.Config(m.listenAddr()), transporttest.HandlerFuncs{
		Exchange: func(ctx context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
			return f(ctx, m, func(m transport.Message) (transport.Message, error) {
				m.Data = slices.Clone(m.Data)
				return x.Exchange(ctx, m)
			})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		x.Close()
	})
	return l.Addr().String()
}

// relayRig is a client that has connected and calls a bank through a relay.
func relayRig(t *testing.T, m medium, g guard, f relay) *rig {
	t.Helper()
	r := &rig{t: t, m: m, g: g, bank: newBank(t, owtp.NodeConfig{}), client: newNode(t, owtp.NodeConfig{})}
	var connected atomic.Bool
	addr := relayTo(t, m, r.bank.listen(t, m, g), func(ctx context.Context, m transport.Message, pass forward) (transport.Message, error) {
		if !connected.Load() {
			return pass(m)
		}
		return f(ctx, m, pass)
	})
	if err := r.client.Connect("bank", r.bank.at(addr, m, g)); err != nil {
		t.Fatal(err)
	}
	connected.Store(true)
	return r
}

// Read: in sealed modes, and on long connections in signed mode too, nothing of
// data, method, metadata or answer stands in any message.
func TestAttackRead(t *testing.T) {
	secret := []string{tokenMark, purposeMark, "receipt-for", "pay", "paid", "token"}
	see := func(t *testing.T, r *rig) (seen []string) {
		r.mustPay("a")
		r.mustPay("b")
		if n := len(r.requests()); n < 2 {
			t.Fatalf("the proxy has seen %d requests", n)
		}
		for _, f := range r.proxy.Recorded() {
			for _, s := range secret {
				// Two or three letters occur in random octets by chance.
				if len(s) > 5 && strings.Contains(string(f.Message.Data), s) {
					seen = append(seen, s)
				}
			}
			if f.Message.Form == transport.JSON {
				seen = append(seen, "json")
			}
		}
		return seen
	}
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		seen := see(t, newRig(t, m, g))
		if m.exchanges() && !g.seal {
			if !slices.Contains(seen, tokenMark) {
				t.Error("signed exchanges are readable, and the test should have seen so")
			}
			return
		}
		if len(seen) > 0 {
			t.Errorf("readable on the wire: %q", seen)
		}
	})
	// The same eyes see everything in open mode: they work.
	each(t, media, []guard{inOpen}, func(t *testing.T, m medium, g guard) {
		if seen := see(t, newRig(t, m, g)); !slices.Contains(seen, tokenMark) || !slices.Contains(seen, purposeMark) {
			t.Errorf("the test is blind: it has seen only %q of an open call", seen)
		}
	})
}

// Stolen transcript: no key, and no octets of one, stand in any message.
func TestAttackReadKeys(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		r.mustPay("a")
		flows := r.proxy.Recorded()
		if len(flows) < 4 {
			t.Fatalf("only %d messages were seen", len(flows))
		}
		public := 0
		for _, f := range flows {
			for _, n := range []*owtp.OWTPNode{r.client, r.bank.OWTPNode} {
				cert := n.Certificate()
				text, _ := cert.KeyPair()
				if strings.Contains(string(f.Message.Data), string(cert.PrivateKeyBytes())) || strings.Contains(string(f.Message.Data), text) {
					t.Errorf("a private key in a message of type %d %s", typeOf(f.Message), f.Dir)
				}
				if strings.Contains(string(f.Message.Data), string(cert.PublicKeyBytes())) {
					public++
				}
			}
		}
		if public == 0 {
			t.Error("not even the public keys were found: the test looks in the wrong place")
		}
	})
}
