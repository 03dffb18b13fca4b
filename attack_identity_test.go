package owtp_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emmansun/gmsm/ecdh"
	"github.com/emmansun/gmsm/sm2"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// A raw is an attacker with a key of his own, who speaks the protocol as far as
// he likes.
type raw struct {
	t       *testing.T
	m       medium
	key     *identity.PrivateKey
	mode    wire.Mode
	conn    transport.Conn
	exch    transport.Exchanger
	session *secure.Session
	proof   *secure.Proof
	out, in *secure.Direction
}

// dialRaw connects and says nothing.
func dialRaw(t *testing.T, m medium, addr string, key *identity.PrivateKey) *raw {
	t.Helper()
	a := &raw{t: t, m: m, key: key}
	var err error
	if m.exchanges() {
		a.exch, err = m.tr.(transport.ExchangeDialer).DialExchange(short(t), transporttest.Config(addr))
		if err == nil {
			t.Cleanup(func() { a.exch.Close() })
		}
	} else {
		a.conn, err = m.tr.(transport.ConnDialer).DialConn(short(t), transporttest.Config(addr))
		if err == nil {
			t.Cleanup(func() { a.conn.Close("") })
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// replyQueue is where answers to the attacker go, on a queue, and "" elsewhere.
func (a *raw) replyQueue() string {
	if e, ok := a.exch.(transport.Endpoint); ok {
		return e.Queues().Reply
	}
	return ""
}

// ask sends one message and waits for the next.
func (a *raw) ask(m transport.Message) (transport.Message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if a.exch != nil {
		return a.exch.Exchange(ctx, m)
	}
	if err := a.conn.Send(ctx, m); err != nil {
		return m, err
	}
	return a.conn.Recv(ctx)
}

// offer begins a handshake; edit may change the hello before it goes out.
func (a *raw) offer(o secure.Offer, edit func(hello []byte)) (err error) {
	o.Transport, o.Epoch, o.Suites = uint8(a.m.tr.Kind()), wire.Nonce{1}, []*secure.Suite{secure.SM4}
	o.ReplyQueue = a.replyQueue()
	a.mode = o.Mode
	i, hello, err := secure.Start(secure.Local{Key: a.key, Rand: rand.Reader}, o)
	if err != nil {
		return err
	}
	if edit != nil {
		edit(hello)
	}
	answer, err := a.ask(binary(bytes.Clone(hello)))
	if err != nil {
		return err
	}
	if a.proof, a.session, err = i.Finish(answer.Data); err != nil {
		return err
	}
	if a.conn != nil {
		a.out, a.in, err = a.session.Directions()
	}
	return err
}

// newRaw is an attacker with a session or connection of his own.
func newRaw(t *testing.T, m medium, addr string, mode wire.Mode) *raw {
	t.Helper()
	_, key := newKey(t)
	a := dialRaw(t, m, addr, key)
	if err := a.offer(secure.Offer{Mode: mode}, nil); err != nil {
		t.Fatal(err)
	}
	if a.conn != nil {
		if _, err := a.send(&wire.Packet{Kind: wire.Heartbeat, Nonce: wire.Nonce{9}, Handshake: a.session.Finish}); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// send seals a packet as it is and returns what comes back, if anything does.
func (a *raw) send(p *wire.Packet) (*wire.Packet, error) {
	a.t.Helper()
	if a.exch != nil {
		if p.Handshake == nil && p.Signature == nil {
			p.Handshake = a.session.Finish
		}
		sealed, err := a.session.SealMessage(rand.Reader, p.Append(nil), wire.Nonce{})
		if err != nil {
			return nil, err
		}
		answer, err := a.ask(binary(sealed))
		if err != nil {
			return nil, err
		}
		if typeOf(answer) != wire.TypeSealedReply {
			return nil, fmt.Errorf("answer of type %d", typeOf(answer))
		}
		plain, err := a.session.OpenMessage(answer.Data, p.Nonce)
		if err != nil {
			return nil, err
		}
		return wire.ParsePacket(plain)
	}
	record, err := a.out.Seal(wire.AppendRecordPacket(wire.AppendHeader(nil, wire.TypeRecord), p.Append(nil)))
	if err != nil {
		return nil, err
	}
	answer, err := a.ask(binary(record))
	if err != nil {
		return nil, err
	}
	body, err := a.in.Open(answer.Data)
	if err != nil {
		return nil, err
	}
	packets, err := wire.ParseRecord(body)
	if err != nil {
		return nil, err
	}
	return packets[0], nil
}

// payment is a request that would be good if its proof were.
func (a *raw) payment(b *bank, nonce byte) *wire.Packet {
	return &wire.Packet{
		Kind: wire.Request, Method: "pay", Nonce: wire.Nonce{nonce}, Data: []byte(`{"token":"stolen"}`), Remaining: 5000,
		Time: uint64(time.Now().UnixMilli()), Mode: a.mode, Transport: uint8(a.m.tr.Kind()),
		Recipient: recipient(b), Epoch: a.epoch(), ReplyTo: a.replyQueue(),
	}
}

func (a *raw) epoch() wire.Nonce {
	if a.proof == nil {
		return wire.Nonce{1}
	}
	return a.proof.Epoch
}

func recipient(b *bank) wire.ID {
	id, err := identity.ParseID(b.NodeID())
	if err != nil {
		panic(err)
	}
	return wire.ID(id)
}

// Impersonate a pinned node or a bound alias: another genuine node, to which
// the attacker relays, is not the one that was meant. A pin counts in open mode
// too.
func TestAttackImpersonate(t *testing.T) {
	pins := map[string]func(c *owtp.OWTPNode, b *bank, cfg *owtp.ConnectConfig) (name string, err error){
		"by ID": func(_ *owtp.OWTPNode, b *bank, _ *owtp.ConnectConfig) (string, error) { return b.NodeID(), nil },
		"by PeerID": func(_ *owtp.OWTPNode, b *bank, cfg *owtp.ConnectConfig) (string, error) {
			cfg.PeerID = b.NodeID()
			return "bank", nil
		},
		"by PinPeer": func(c *owtp.OWTPNode, b *bank, _ *owtp.ConnectConfig) (string, error) {
			return "bank", c.PinPeer(context.Background(), "bank", b.NodeID())
		},
		"by first contact": func(c *owtp.OWTPNode, b *bank, cfg *owtp.ConnectConfig) (string, error) {
			real := *cfg
			real.Address, real.EnableSignature = b.ListenerAddr(cfg.ConnectType), true
			err := c.Connect("bank", real)
			c.ClosePeer("bank")
			return "bank", err
		},
	}
	each(t, media, append([]guard{inOpen}, proofModes...), func(t *testing.T, m medium, g guard) {
		for name, pin := range pins {
			r := bareRig(t, m, inOpen)
			r.g = g
			impostor := newBank(t, owtp.NodeConfig{})
			cfg := r.connectConfig()
			peer, err := pin(r.client, r.bank, &cfg)
			if err != nil {
				t.Fatal(err)
			}
			r.proxy.SetTarget(transporttest.Config(impostor.listen(t, m, inOpen)))
			if err := r.client.Connect(peer, cfg); err == nil {
				t.Errorf("%s: the impostor was taken for the bank", name)
			}
			if _, err := r.client.CallSync(peer, "pay", payParams("a")); err == nil {
				t.Errorf("%s: called the impostor", name)
			}
			if len(r.sent(transporttest.ToServer)) == 0 {
				t.Errorf("%s: the impostor was never asked", name)
			}
			for _, f := range r.sent(transporttest.ToServer) {
				if bytes.Contains(f.Message.Data, []byte(tokenMark)) {
					t.Errorf("%s: the impostor has read the request", name)
				}
			}
			// The right one still is.
			r.proxy.SetTarget(transporttest.Config(r.bank.ListenerAddr(m.name)))
			if err := r.client.Connect(peer, cfg); err != nil {
				t.Errorf("%s: the bank itself is refused: %v", name, err)
			}
			// And now in the middle of a conversation.
			before := r.bank.runs.Load()
			r.proxy.SetTarget(transporttest.Config(impostor.ListenerAddr(m.name)))
			r.proxy.CutAll()
			ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
			resp, err := r.client.CallContext(ctx, peer, "pay", payParams("b"), nil)
			cancel()
			if err == nil && resp.OK() {
				t.Errorf("%s: called the impostor that took over", name)
			}
			impostor.ran(t, 0)
			r.bank.ran(t, before)
		}
	})
}

// Impersonate with an answer that is signed as it should be, by somebody else.
func TestAttackImpersonateAnswer(t *testing.T) {
	_, key := newKey(t)
	forgeries := map[string]func(t *testing.T, r *wire.Packet, real []byte){
		"signed by the attacker": func(t *testing.T, p *wire.Packet, _ []byte) {
			if err := secure.Sign(rand.Reader, key, p); err != nil {
				t.Error(err)
			}
		},
		"signed by the attacker under the bank's key": func(t *testing.T, p *wire.Packet, real []byte) {
			if err := secure.Sign(rand.Reader, key, p); err != nil {
				t.Error(err)
			}
			p.SenderKey = real
		},
		"without a key": func(t *testing.T, p *wire.Packet, _ []byte) { p.Signature = bytes.Repeat([]byte{1}, 64) },
	}
	each(t, exchangeMedia, []guard{inSigned}, func(t *testing.T, m medium, g guard) {
		for name, forge := range forgeries {
			var forged atomic.Int64
			var b *bank
			r := relayRig(t, m, g, func(_ context.Context, m transport.Message, pass forward) (transport.Message, error) {
				req := unsealed(m)
				if req == nil {
					return pass(m)
				}
				forged.Add(1)
				p := &wire.Packet{
					Kind: wire.Response, Method: req.Method, Nonce: req.Nonce, Msg: "paid", Data: []byte(`{"receipt":"forged"}`),
					Digest: secure.RequestDigest(req), Mode: req.Mode, Transport: req.Transport, Epoch: req.Epoch, Time: req.Time,
				}
				sender, err := identity.ParsePublicKey(req.SenderKey)
				if err != nil {
					return pass(m)
				}
				p.Recipient = wire.ID(sender.ID())
				forge(t, p, b.Certificate().PublicKeyBytes())
				return packetAs(m.Form, p), nil
			})
			b = r.bank
			if ok, err := r.pay("a", 3*time.Second); ok || err == nil {
				t.Errorf("%s: the forged answer was believed: %v", name, err)
			}
			if forged.Load() == 0 {
				t.Errorf("%s: nothing was forged", name)
			}
			r.bank.ran(t, 0)
		}
	})
}

// Claim another's key: in a hello, under a signature, and with another's session.
// The listener lets in nobody but the victim.
func TestAttackClaimKey(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		cert, victim := newKey(t)
		b := newBank(t, owtp.NodeConfig{})
		if err := b.Listen(owtp.ConnectConfig{
			Address: m.listenAddr(), ConnectType: m.name, EnableSignature: g.sign, EnableKeyAgreement: g.seal, AllowPeers: []string{cert.ID()},
		}); err != nil {
			t.Fatal(err)
		}
		addr := b.ListenerAddr(m.name)
		_, key := newKey(t)

		// With his own key he does not come in.
		a := dialRaw(t, m, addr, key)
		if !m.exchanges() || g.seal {
			if err := a.offer(secure.Offer{Mode: g.mode()}, nil); err == nil {
				t.Error("a stranger has agreed on keys")
			}
		}
		// With the victim's key in the hello he gets an answer, and can do
		// nothing with it.
		a = dialRaw(t, m, addr, key)
		a.mode = g.mode()
		var answered transport.Message
		i, hello, err := secure.Start(secure.Local{Key: key, Rand: rand.Reader}, secure.Offer{
			Transport: uint8(m.tr.Kind()), Mode: g.mode(), Suites: []*secure.Suite{secure.SM4}, Epoch: wire.Nonce{1}, ReplyQueue: a.replyQueue(),
		})
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(hello, key.Public().Bytes())
		copy(hello[at:], victim.Public().Bytes())
		if !m.exchanges() || g.seal {
			if answered, err = a.ask(binary(bytes.Clone(hello))); err != nil || typeOf(answered) != wire.TypeHelloReply {
				t.Fatalf("the claim was never answered: %v", err)
			}
			if _, s, err := i.Finish(answered.Data); err == nil || s != nil {
				t.Error("a handshake under a claimed key was completed")
			}
			a.forgeUnder(answered, b)
		}
		// Signatures under the victim's key.
		if m.exchanges() {
			for name, p := range map[string]*wire.Packet{
				"signed by himself":            a.signed(b, key, nil),
				"signed by himself as another": a.signed(b, key, victim.Public().Bytes()),
				"with no signature":            func() *wire.Packet { p := a.signed(b, key, victim.Public().Bytes()); p.Signature = nil; return p }(),
				"with no key":                  func() *wire.Packet { p := a.signed(b, key, nil); p.SenderKey = nil; return p }(),
				"with a key that is none":      func() *wire.Packet { p := a.signed(b, key, bytes.Repeat([]byte{0xFF}, 64)); return p }(),
			} {
				for _, form := range []transport.Form{transport.JSON, transport.Binary} {
					answer, err := a.ask(packetAs(form, p))
					if err != nil {
						t.Errorf("%s: no answer: %v", name, err)
						continue
					}
					if resp, err := parsePlain(answer); err != nil || resp.Status != owtp.ErrUnauthorized && resp.Status != owtp.ErrSecretKeyInvalid {
						t.Errorf("%s: answered %+v, %v", name, resp, err)
					}
				}
			}
		}
		settle()
		b.ran(t, 0)
		// The victim itself comes in.
		client := newNode(t, owtp.NodeConfig{Cert: cert})
		r := &rig{t: t, m: m, g: g, bank: b, client: client}
		r.proxy = transporttest.NewProxy(t, m.tr, transporttest.Config(m.listenAddr()), transporttest.Config(addr))
		if err := r.connect(); err != nil {
			t.Fatal(err)
		}
		r.mustPay("victim")
		b.ran(t, 1)
	})
}

// unsealed returns the packet of a message that is not sealed, or nil.
func unsealed(m transport.Message) *wire.Packet {
	if typ := typeOf(m); typ != 0 && typ != wire.TypePackets {
		return nil
	}
	p, err := parsePlain(m)
	if err != nil {
		return nil
	}
	return p
}

func parsePlain(m transport.Message) (*wire.Packet, error) {
	if m.Form == transport.JSON {
		return wire.ParseJSON(m.Data)
	}
	_, body, err := wire.ParseHeader(m.Data)
	if err != nil {
		return nil, err
	}
	packets, err := wire.ParseRecord(body)
	if err != nil {
		return nil, err
	}
	return packets[0], nil
}

// signed is a request that is right but for who signs it.
func (a *raw) signed(b *bank, key *identity.PrivateKey, claim []byte) *wire.Packet {
	p := a.payment(b, 77)
	p.Mode = wire.ModeSigned
	if err := secure.Sign(rand.Reader, key, p); err != nil {
		a.t.Fatal(err)
	}
	if claim != nil {
		p.SenderKey = claim
	}
	return p
}

// forgeUnder goes on after an answer to a claimed key with the keys of a session
// that is the attacker's own: made with a bank of his, which he runs himself.
func (a *raw) forgeUnder(answer transport.Message, b *bank) {
	a.t.Helper()
	own := newBank(a.t, owtp.NodeConfig{})
	mine := newRaw(a.t, a.m, own.listen(a.t, a.m, inOpen), a.mode)
	p := a.payment(b, 5)
	p.Handshake = mine.session.Finish
	if a.mode.Signed() {
		if err := secure.Sign(rand.Reader, a.key, p); err != nil {
			a.t.Fatal(err)
		}
	}
	if a.exch != nil {
		_, body, _ := wire.ParseHeader(answer.Data)
		reply, err := wire.ParseHelloReply(body)
		if err != nil {
			a.t.Fatal(err)
		}
		mine.session.ID = reply.Session
		sealed, err := mine.session.SealMessage(rand.Reader, p.Append(nil), wire.Nonce{})
		if err != nil {
			a.t.Fatal(err)
		}
		got, err := a.ask(binary(sealed))
		if err != nil {
			a.t.Fatal(err)
		}
		if resp, err := parsePlain(got); err != nil || resp.Status != owtp.ErrSecretKeyInvalid {
			a.t.Errorf("the forged message was answered with %+v, %v", resp, err)
		}
		return
	}
	record, err := mine.out.Seal(wire.AppendRecordPacket(wire.AppendHeader(nil, wire.TypeRecord), p.Append(nil)))
	if err != nil {
		a.t.Fatal(err)
	}
	if err := a.conn.Send(short(a.t), binary(record)); err != nil {
		a.t.Fatal(err)
	}
	closes(a.t, a.conn, 3*time.Second)
}

// Come in without the proof that ends a handshake, or with one that is wrong.
func TestAttackSkipFinish(t *testing.T) {
	each(t, media, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		b := newBank(t, owtp.NodeConfig{})
		addr := b.listen(t, m, g)
		_, key := newKey(t)
		for name, spoil := range map[string]func(finish []byte) []byte{
			"none":            func([]byte) []byte { return nil },
			"another's":       func([]byte) []byte { return newRaw(t, m, addr, wire.ModeSealed).session.Finish },
			"wrong signature": func(f []byte) []byte { f[5] ^= 1; return f },
			"wrong MAC":       func(f []byte) []byte { f[len(f)-1] ^= 1; return f },
			"cut":             func(f []byte) []byte { return f[:40] },
		} {
			a := dialRaw(t, m, addr, key)
			if err := a.offer(secure.Offer{Mode: wire.ModeSealed}, nil); err != nil {
				t.Fatal(err)
			}
			p := a.payment(b, 1)
			p.Handshake = spoil(bytes.Clone(a.session.Finish))
			packet := p.Append(nil)
			if a.exch != nil {
				sealed, err := a.session.SealMessage(rand.Reader, packet, wire.Nonce{})
				if err != nil {
					t.Fatal(err)
				}
				answer, err := a.ask(binary(sealed))
				if err != nil {
					t.Fatal(err)
				}
				if resp, err := parsePlain(answer); err != nil || resp.OKStatus() {
					t.Errorf("%s: answered %+v, %v", name, resp, err)
				}
				continue
			}
			record, err := a.out.Seal(wire.AppendRecordPacket(wire.AppendHeader(nil, wire.TypeRecord), packet))
			if err != nil {
				t.Fatal(err)
			}
			if err := a.conn.Send(short(t), binary(record)); err != nil {
				t.Fatal(err)
			}
			closes(t, a.conn, 3*time.Second)
		}
		settle()
		b.ran(t, 0)
		// With the right one it comes in.
		a := newRaw(t, m, addr, wire.ModeSealed)
		if resp, err := a.send(a.payment(b, 2)); err != nil || !resp.OKStatus() {
			t.Errorf("the honest one is refused: %+v, %v", resp, err)
		}
		b.ran(t, 1)
	})
}

// Claim another's key inside a session of one's own.
func TestAttackClaimKeyInSession(t *testing.T) {
	each(t, media, []guard{inBoth}, func(t *testing.T, m medium, g guard) {
		_, victim := newKey(t)
		b := newBank(t, owtp.NodeConfig{})
		a := newRaw(t, m, b.listen(t, m, g), wire.ModeSealedSigned)
		try := func(nonce byte, edit func(p *wire.Packet)) *wire.Packet {
			p := a.payment(b, nonce)
			if m.exchanges() {
				p.Handshake = a.session.Finish
			}
			if err := secure.Sign(rand.Reader, a.key, p); err != nil {
				t.Fatal(err)
			}
			edit(p)
			resp, err := a.send(p)
			if err != nil {
				t.Fatal(err)
			}
			return resp
		}
		_, other := newKey(t)
		resign := func(key *identity.PrivateKey) func(p *wire.Packet) {
			return func(p *wire.Packet) {
				if err := secure.Sign(rand.Reader, key, p); err != nil {
					t.Fatal(err)
				}
			}
		}
		again := resign(a.key)
		for i, edit := range []func(p *wire.Packet){
			func(p *wire.Packet) { p.SenderKey = victim.Public().Bytes() },
			func(p *wire.Packet) { p.Signature = nil },
			func(p *wire.Packet) { p.SenderKey, p.Signature = nil, nil },
			func(p *wire.Packet) { p.Data = []byte(`{"token":"changed"}`) },
			resign(other),
			func(p *wire.Packet) { p.Recipient = wire.ID(other.ID()); again(p) },
			func(p *wire.Packet) { p.Recipient = wire.ID{}; again(p) },
			func(p *wire.Packet) { p.Mode = wire.ModeSigned; again(p) },
			func(p *wire.Packet) { p.Transport = p.Transport%3 + 1; again(p) },
			func(p *wire.Packet) { p.Epoch[0] ^= 1; again(p) },
			func(p *wire.Packet) { p.Epoch = wire.Nonce{}; again(p) },
		} {
			if resp := try(byte(10+i), edit); resp.OKStatus() {
				t.Errorf("forgery %d was accepted: %+v", i, resp)
			}
		}
		b.ran(t, 0)
		if resp := try(99, func(*wire.Packet) {}); !resp.OKStatus() {
			t.Errorf("the honest one was refused: %+v", resp)
		}
		b.ran(t, 1)
	})
}

// Use a claimed key to reach another peer's session data.
func TestAttackSessionData(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		const secret = "victims-secret-0451"
		b := newBank(t, owtp.NodeConfig{})
		addr := b.listen(t, m, inOpen) // everybody may call: it is the ID that counts
		cert, victim := newKey(t)
		client := newNode(t, owtp.NodeConfig{Cert: cert})
		if err := client.Connect("bank", b.at(addr, m, g)); err != nil {
			t.Fatal(err)
		}
		if resp, err := client.CallSync("bank", "keep", map[string]string{"secret": secret}); err != nil || !resp.OK() {
			t.Fatal(resp, err)
		}
		if resp, err := client.CallSync("bank", "fetch", nil); err != nil || resp.JsonData().Get("secret").String() != secret {
			t.Fatalf("the victim itself cannot read it: %+v, %v", resp, err)
		}
		asked := 0
		check := func(what string, answer []byte) {
			asked++
			if bytes.Contains(answer, []byte(secret)) {
				t.Errorf("%s has read the victim's data", what)
			}
		}
		fetch := func(n byte) *wire.Packet {
			p := &wire.Packet{Kind: wire.Request, Method: "fetch", Nonce: wire.Nonce{n}, Data: []byte("null")}
			if m == overMQ {
				p.ReplyTo = strayQueue
			}
			return p
		}
		claim := fetch(1)
		claim.SenderKey = victim.Public().Bytes()
		for _, form := range []transport.Form{transport.JSON, transport.Binary} {
			messages := []transport.Message{packetAs(form, fetch(2)), packetAs(form, claim)}
			if !m.exchanges() {
				messages = append([]transport.Message{packetAs(form, &wire.Packet{Kind: wire.Open})}, messages...)
			}
			for _, answer := range deliver(t, m, addr, messages) {
				if len(answer.Data) > 0 {
					check("somebody anonymous", answer.Data)
				}
			}
		}
		for _, mode := range []wire.Mode{wire.ModeSealed, wire.ModeSealedSigned} {
			a := newRaw(t, m, addr, mode)
			p := a.payment(b, 3)
			p.Method = "fetch"
			if mode.Signed() {
				p.Handshake = a.session.Finish
				if err := secure.Sign(rand.Reader, a.key, p); err != nil {
					t.Fatal(err)
				}
			}
			p.SenderKey = append([]byte(nil), p.SenderKey...)
			if !mode.Signed() {
				p.SenderKey = victim.Public().Bytes()
			}
			resp, err := a.send(p)
			if err != nil {
				t.Fatal(err)
			}
			check("another proved peer", resp.Data)
			if !resp.OKStatus() || !strings.Contains(string(resp.Data), a.key.ID().String()) {
				t.Errorf("%v: the other peer was not taken for itself: %+v", mode, resp)
			}
		}
		if asked < 5 {
			t.Errorf("only %d answers were looked at", asked)
		}
	})
}

// End another peer's session by naming it in a handshake of one's own.
func TestAttackRetireForeignSession(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		r.mustPay("a")
		sent := r.requests()
		id, err := secure.SessionOf(sent[len(sent)-1].Data)
		if err != nil {
			t.Fatal(err)
		}
		_, key := newKey(t)
		a := dialRaw(t, m, r.bank.ListenerAddr(m.name), key)
		if err := a.offer(secure.Offer{Mode: wire.ModeSealed, Retires: bytes.Clone(id)}, nil); err != nil {
			t.Fatal(err)
		}
		if resp, err := a.send(a.payment(r.bank, 1)); err != nil || !resp.OKStatus() {
			t.Fatalf("the attacker's own session does not work: %+v, %v", resp, err)
		}
		before := len(r.hellos())
		r.mustPay("b")
		if n := len(r.hellos()) - before; n != 0 {
			t.Errorf("the victim had to agree anew %d times", n)
		}
	})
}

// Low-order, off-curve, infinity and own points in a hello: none completes an
// agreement or gets an answer that is one.
func TestAttackBadPoints(t *testing.T) {
	n := sm2.P256().Params().N
	p := sm2.P256().Params().P
	fill := func(v *big.Int, b []byte) []byte { v.FillBytes(b); return b }
	each(t, media, []guard{inOpen}, func(t *testing.T, m medium, g guard) {
		b := newBank(t, owtp.NodeConfig{})
		addr := b.listen(t, m, g)
		own := b.Certificate().PublicKeyBytes()
		_, key := newKey(t)
		good := key.Public().Bytes()
		eph, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		ephemeral := eph.PublicKey().Bytes()[1:]

		// A static key that cancels out the ephemeral one: the exchange's
		// point is infinity, and everybody could know the secret. t = d + x̄·r
		// with x̄ = 2^127 + (x mod 2^127) (GB/T 32918.3 §6) is made zero.
		x := new(big.Int).SetBytes(ephemeral[:32])
		half := new(big.Int).Lsh(big.NewInt(1), 127)
		x.Mod(x, half).Add(x, half)
		d := new(big.Int).SetBytes(eph.Bytes())
		d.Mul(d, x).Neg(d).Mod(d, n)
		cancelling, err := ecdh.P256().NewPrivateKey(fill(d, make([]byte, 32)))
		if err != nil {
			t.Fatal(err)
		}

		flipped := bytes.Clone(ephemeral)
		flipped[63] ^= 1
		overP := append(fill(p, make([]byte, 32)), ephemeral[32:]...)
		// The same x with p added, where that still fits, is the same point
		// written twice.
		zeroX := make([]byte, 64)
		copy(zeroX[32:], ephemeral[32:])
		nist := []byte("\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96" +
			"\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5")
		attacks := []struct {
			name           string
			key, ephemeral []byte
		}{
			{"infinity as zeros, ephemeral", good, make([]byte, 64)},
			{"infinity as zeros, static", make([]byte, 64), ephemeral},
			{"all ones, ephemeral", good, bytes.Repeat([]byte{0xFF}, 64)},
			{"all ones, static", bytes.Repeat([]byte{0xFF}, 64), ephemeral},
			{"off the curve, ephemeral", good, flipped},
			{"off the curve, static", flipped, ephemeral},
			{"x = p, ephemeral", good, overP},
			{"x = p, static", overP, ephemeral},
			{"x = 0, ephemeral", good, zeroX},
			{"of another curve, ephemeral", good, nist},
			{"of another curve, static", nist, ephemeral},
			{"the bank's own key, static", own, ephemeral},
			{"the bank's own key, ephemeral", good, own},
			{"static and ephemeral the same", good, good},
			{"the exchange ends in infinity", cancelling.PublicKey().Bytes()[1:], ephemeral},
		}
		say := func(key *identity.PrivateKey, hello func(replyTo string) []byte) (transport.Message, error) {
			a := dialRaw(t, m, addr, key)
			return a.ask(binary(hello(a.replyQueue())))
		}
		hello := func(key, ephemeral []byte, proof bool) func(replyTo string) []byte {
			h := wire.Hello{
				Transport: uint8(m.tr.Kind()), Mode: wire.ModeSealed, Suites: []string{secure.SM4.Name}, Key: key,
				Random: [32]byte{1}, Ephemeral: ephemeral, Epoch: wire.Nonce{1},
			}
			if proof {
				h.Suites, h.Ephemeral = nil, nil
			}
			return func(replyTo string) []byte {
				h.ReplyQueue = replyTo
				return h.Append(wire.AppendHeader(nil, wire.TypeHello))
			}
		}
		for _, a := range attacks {
			answer, err := say(key, hello(a.key, a.ephemeral, false))
			if err != nil {
				t.Errorf("%s: no refusal: %v", a.name, err)
				continue
			}
			if resp, err := parsePlain(answer); typeOf(answer) == wire.TypeHelloReply || err != nil || resp.OKStatus() {
				t.Errorf("%s: answered with a message of type %d: %+v, %v", a.name, typeOf(answer), resp, err)
			}
			if strings.HasSuffix(a.name, "static") {
				if answer, err := say(key, hello(a.key, nil, true)); err != nil || typeOf(answer) == wire.TypeHelloReply {
					t.Errorf("%s: a proof hello was answered: %v", a.name, err)
				}
			}
		}
		// The same hello with good points is answered.
		if answer, err := say(key, hello(good, ephemeral, false)); err != nil || typeOf(answer) != wire.TypeHelloReply {
			t.Errorf("good points are refused: %v", err)
		}
	})
}

// Bad points in the answer to a hello, and the caller's own: the caller refuses.
func TestAttackBadPointsInAnswer(t *testing.T) {
	each(t, media, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		r := bareRig(t, m, g)
		var hello *wire.Hello
		edits := map[string]func(reply *wire.HelloReply){
			"infinity as zeros":           func(h *wire.HelloReply) { h.Ephemeral = make([]byte, 64) },
			"infinity as zeros, static":   func(h *wire.HelloReply) { h.Key = make([]byte, 64) },
			"off the curve":               func(h *wire.HelloReply) { h.Ephemeral[63] ^= 1 },
			"all ones":                    func(h *wire.HelloReply) { h.Ephemeral = bytes.Repeat([]byte{0xFF}, 64) },
			"the caller's own ephemeral":  func(h *wire.HelloReply) { h.Ephemeral = hello.Ephemeral },
			"the caller's own static key": func(h *wire.HelloReply) { h.Key = hello.Key },
			"the caller's keys, swapped":  func(h *wire.HelloReply) { h.Key, h.Ephemeral = hello.Ephemeral, hello.Key },
			"its static key twice":        func(h *wire.HelloReply) { h.Ephemeral = h.Key },
		}
		for name, edit := range edits {
			edited := false
			r.proxy.OnMessage(func(f transporttest.Flow) []transport.Message {
				_, body, _ := wire.ParseHeader(f.Message.Data)
				if isHello(f.Message) {
					hello, _ = wire.ParseHello(bytes.Clone(body))
				}
				if typeOf(f.Message) != wire.TypeHelloReply {
					return pass(f)
				}
				reply, err := wire.ParseHelloReply(body)
				if err != nil {
					return pass(f)
				}
				edit(reply)
				edited = true
				return []transport.Message{binary(reply.Append(wire.AppendHeader(nil, wire.TypeHelloReply)))}
			})
			err := r.connect()
			var e *owtp.Error
			if !errors.As(err, &e) || e.Proved {
				t.Errorf("%s: connected, or wrong error: %v", name, err)
			}
			done := make(chan bool, 1)
			r.proxy.OnMessage(nil) // waits for no hook, but the answer has come
			done <- edited
			if !<-done {
				t.Errorf("%s: never delivered", name)
			}
		}
	})
}
