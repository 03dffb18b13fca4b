package owtp_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// The tests named TestNamed are what many peers can do who have each proved a
// key of their own, to one that the node's configuration names.

// A signer posts signed requests, as cheaply as an attacker who has many keys.
type signer struct {
	t    *testing.T
	host *owtp.OWTPNode
	addr string
	to   wire.ID
	now  func() time.Time
}

func newSigner(t *testing.T, host *owtp.OWTPNode, now func() time.Time) *signer {
	t.Helper()
	must(t, host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP, EnableSignature: true}))
	id, err := identity.ParseID(host.NodeID())
	must(t, err)
	return &signer{t: t, host: host, addr: host.ListenerAddr(owtp.HTTP), to: wire.ID(id), now: now}
}

func freshKey(t *testing.T) *identity.PrivateKey {
	t.Helper()
	key, err := identity.GenerateKey(rand.Reader)
	must(t, err)
	return key
}

// call makes one attempt and returns its answer. A zero callKey makes a call of
// its own.
func (s *signer) call(key *identity.PrivateKey, method string, callKey byte, data any) *wire.Packet {
	params, err := json.Marshal(data)
	if err != nil {
		s.t.Error(err)
		return &wire.Packet{}
	}
	p := &wire.Packet{
		Kind: wire.Request, Method: method, Data: params, Mode: wire.ModeSigned, Transport: uint8(transport.HTTP),
		Recipient: s.to, Time: uint64(s.now().UnixMilli()), Remaining: 5000,
	}
	rand.Read(p.Nonce[:])
	if callKey != 0 {
		p.CallKey = wire.Nonce(bytes.Repeat([]byte{callKey}, 16))
	}
	epoch, err := s.host.StoreEpoch(context.Background())
	if err == nil {
		p.Epoch = epoch
		err = secure.Sign(rand.Reader, key, p)
	}
	if err != nil {
		s.t.Error(err)
		return &wire.Packet{}
	}
	body := wire.AppendRecordPacket(wire.AppendHeader(nil, wire.TypePackets), p.Append(nil))
	resp, err := http.Post("http://"+s.addr+"/", "application/owtp", bytes.NewReader(body))
	if err != nil {
		s.t.Error(err)
		return &wire.Packet{}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil {
		_, b, err = wire.ParseHeader(b)
	}
	packets, err2 := wire.ParseRecord(b)
	if err != nil || err2 != nil || resp.StatusCode != http.StatusOK {
		s.t.Errorf("answered %s, %v, %v", resp.Status, err, err2)
		return &wire.Packet{}
	}
	return packets[0]
}

// hostile makes one call from each of so many keys and counts the answers.
func (s *signer) hostile(keys int, method string, data any) map[uint64]int {
	counts := make(map[uint64]int)
	for range keys {
		counts[s.call(freshKey(s.t), method, 0, data).Status]++
	}
	return counts
}

const fast = 1_000_000 // handshakes a second

// namedHost is a node with little room, which names the partner.
func namedHost(t *testing.T, partner *identity.PrivateKey, limits owtp.Limits) (*owtp.OWTPNode, *signer, *movable) {
	t.Helper()
	clock := new(movable)
	limits.MaxHandshakeRate = fast
	host := newNodeAt(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: limits, Window: time.Second}, clock.now)
	must(t, host.PinPeer(context.Background(), "partner", partner.Public().ID().String()))
	must(t, host.HandleFunc("echo", echo))
	must(t, host.HandleFunc("large", func(c *owtp.Context) { c.Response(strings.Repeat("x", 1000), 0, "") }))
	return host, newSigner(t, host, clock.now), clock
}

// nothingTaken fails unless all comes back.
func nothingTaken(t *testing.T, host *owtp.OWTPNode, clock *movable) {
	t.Helper()
	clock.move(time.Minute)
	if records, replies, waiters, requests, octets := host.Taken(); records+replies+waiters+requests+octets != 0 {
		t.Errorf("%d records, %d octets of answers, %d waiters, %d requests and %d octets do not come back", records, replies, waiters, requests, octets)
	}
}

// However many keys somebody has, call records are left for the named peer, and
// the room comes back.
func TestNamedCallRecords(t *testing.T) {
	partner := freshKey(t)
	host, s, clock := namedHost(t, partner, owtp.Limits{})
	host.SetRooms(40, 1<<20, 64)
	for round := range 2 {
		if got := s.hostile(200, "echo", 1); got[200]+got[0] != 30 || got[owtp.ErrTooManyRequests] != 170 {
			t.Fatalf("round %d: 200 peers with a key each had %v, want 30 calls and 170 refusals", round, got)
		}
		for i := range 10 {
			if got := s.call(partner, "echo", 0, i); !got.OKStatus() || string(got.Data) != fmt.Sprint(i) {
				t.Errorf("round %d: call %d of the named peer: status %d %s", round, i, got.Status, got.Msg)
			}
		}
		if got := s.call(partner, "echo", 0, 1).Status; got != owtp.ErrTooManyRequests {
			t.Errorf("one record more than there is room for: status %d", got)
		}
		nothingTaken(t, host, clock)
	}
	// Forgotten, it is one of the others; and with nobody named they have all.
	must(t, host.ForgetPeer(context.Background(), "partner"))
	if got := s.hostile(60, "echo", 1); got[200]+got[0] != 40 {
		t.Errorf("nobody is named, but 60 peers had %v, want 40 calls", got)
	}
	if got := s.call(partner, "echo", 0, 1).Status; got != owtp.ErrTooManyRequests {
		t.Errorf("a peer that is not named any more has a share: status %d", got)
	}
}

// Records grow with the attempts of their calls, so attempts count.
func TestNamedAttemptsCountAsRecords(t *testing.T) {
	partner, hostile := freshKey(t), freshKey(t)
	host, s, clock := namedHost(t, partner, owtp.Limits{})
	host.SetRooms(40, 1<<20, 64)
	counts := make(map[uint64]int)
	for range 50 {
		counts[s.call(hostile, "echo", 7, 1).Status]++
	}
	if counts[owtp.ErrTooManyRequests] != 30 {
		t.Errorf("50 attempts of one peer, which has 20: %v", counts)
	}
	// What is refused takes nothing.
	if records, _, _, _, _ := host.Taken(); records != 20 {
		t.Errorf("%d are taken, want 20", records)
	}
	nothingTaken(t, host, clock)
}

// Answers are kept for the named peer when those of others fill the rest.
func TestNamedKeptAnswers(t *testing.T) {
	partner := freshKey(t)
	host, s, clock := namedHost(t, partner, owtp.Limits{})
	host.SetRooms(1000, 16<<10, 64)
	var dropped int
	for range 20 {
		key := freshKey(t)
		if got := s.call(key, "large", 1, nil); !got.OKStatus() {
			t.Fatalf("status %d %s", got.Status, got.Msg)
		}
		if s.call(key, "large", 1, nil).Status == owtp.ErrOutcomeUnknown {
			dropped++
		}
	}
	if dropped != 8 { // 12 answers of a little over 1000 octets are 12 KiB
		t.Errorf("%d of 20 answers of others are not kept, want 8", dropped)
	}
	for i := range 3 {
		first, again := s.call(partner, "large", byte(i+1), nil), s.call(partner, "large", byte(i+1), nil)
		if !first.OKStatus() || !again.OKStatus() || !bytes.Equal(first.Data, again.Data) {
			t.Errorf("the answer of call %d of the named peer is not kept: status %d %s", i, again.Status, again.Msg)
		}
	}
	nothingTaken(t, host, clock)
}

// Attempts of others that wait leave a place to wait.
func TestNamedWaiters(t *testing.T) {
	partner := freshKey(t)
	host, s, clock := namedHost(t, partner, owtp.Limits{})
	host.SetRooms(1000, 1<<20, 8)
	sl := newSleeper(t)
	must(t, host.HandleFunc("sleep", sl.handle))
	answers := make(chan uint64, 100)
	ask := func(key *identity.PrivateKey) {
		go func() { answers <- s.call(key, "sleep", 1, nil).Status }()
	}
	for range 10 {
		key := freshKey(t)
		ask(key)
		within(t, sl.began, "a handler")
		ask(key)
	}
	for range 4 {
		if got := within(t, answers, "a refusal"); got != owtp.ErrTooManyRequests {
			t.Errorf("one that should not find a place had status %d", got)
		}
	}
	eventually(t, "six wait", func() bool { return host.Waiting() == 6 })
	ask(partner)
	within(t, sl.began, "the named peer's handler")
	ask(partner)
	eventually(t, "the named peer's attempt waits", func() bool { return host.Waiting() == 7 })
	sl.wake()
	for range 10 + 6 + 2 {
		if got := within(t, answers, "an answer"); got != owtp.StatusSuccess {
			t.Errorf("status %d", got)
		}
	}
	nothingTaken(t, host, clock)
}

// Handlers of others that do not return, and the octets that they hold, leave
// room for the named peer's.
func TestNamedHandlersOctets(t *testing.T) {
	const message = 64 << 10
	partner := freshKey(t)
	host, s, clock := namedHost(t, partner, owtp.Limits{MaxMessage: message, MaxReceiving: 4 * message})
	sl := newSleeper(t)
	must(t, host.HandleFunc("sleep", sl.handle))
	large := strings.Repeat("x", 30_000)
	var wg sync.WaitGroup
	ask := func(key *identity.PrivateKey) {
		wg.Go(func() {
			if got := s.call(key, "sleep", 0, large).Status; got != owtp.StatusSuccess {
				t.Errorf("status %d", got)
			}
		})
		within(t, sl.began, "a handler")
	}
	for range 6 { // of 30,000 each, in three quarters of 262,144
		ask(freshKey(t))
	}
	for range 5 {
		if got := s.call(freshKey(t), "sleep", 0, large).Status; got != owtp.ErrTooManyRequests {
			t.Errorf("others hold more than their part: status %d", got)
		}
	}
	ask(partner)
	ask(partner)
	sl.wake()
	wg.Wait()
	nothingTaken(t, host, clock)
}

// Proved strangers that keep all handlers busy, over every transport and in
// every mode with proof, leave some for the named peer, which is served at once.
func TestNamedRunningRequests(t *testing.T) {
	each(t, media, []guard{inSigned, inSealed}, func(t *testing.T, m medium, g guard) {
		limits := quick
		limits.MaxRequests, limits.MaxRequestsPerPeer, limits.MaxHandshakeRate = 16, 4, fast
		b := newBank(t, owtp.NodeConfig{Limits: limits})
		s := newSleeper(t)
		must(t, b.HandleFunc("sleep", s.handle))
		partner := newNode(t, owtp.NodeConfig{})
		must(t, b.Listen(owtp.ConnectConfig{Address: owtp.Memory + freshName(t), ConnectType: owtp.Memory, EnableSignature: true, AllowPeers: []string{partner.NodeID()}}))
		addr := m.listenAddr()
		must(t, b.Listen(owtp.ConnectConfig{Address: addr, ConnectType: m.name, EnableSignature: g.sign, EnableKeyAgreement: g.seal, DataFormat: g.format}))
		if m.name != owtp.Memory {
			addr = b.ListenerAddr(m.name)
		}
		connect := func(n *owtp.OWTPNode) {
			must(t, n.Connect("bank", b.at(addr, m, g)))
		}
		answers := make(chan uint64, 32)
		call := func(n *owtp.OWTPNode) {
			go func() {
				resp, err := n.CallContext(context.Background(), "bank", "sleep", nil, &owtp.CallOptions{Timeout: patience})
				if err != nil {
					answers <- owtp.StatusOf(err)
					return
				}
				answers <- resp.Status
			}()
		}
		for range 6 {
			hostile := newNode(t, owtp.NodeConfig{})
			connect(hostile)
			for range 4 {
				call(hostile)
			}
		}
		for range 12 {
			within(t, s.began, "a handler")
		}
		for range 12 {
			if got := within(t, answers, "a refusal"); got != owtp.ErrTooManyRequests {
				t.Errorf("others have more than their part: status %d", got)
			}
		}
		connect(partner)
		for range 4 {
			call(partner)
			within(t, s.began, "the named peer's handler")
		}
		s.wake()
		for range 16 {
			if got := within(t, answers, "an answer"); got != owtp.StatusSuccess {
				t.Errorf("status %d", got)
			}
		}
		eventually(t, "all comes back", func() bool { _, _, _, requests := b.Held(); return requests == 0 })
	})
}

// Agreed sessions of any number of peers are bounded, and push out each other and
// not the named peer's.
func TestNamedSessions(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		const most = 10
		b := newBank(t, owtp.NodeConfig{})
		b.SetMaxAgreed(most)
		addr := b.listen(t, m, g)
		partner := newNode(t, owtp.NodeConfig{})
		must(t, b.PinPeer(context.Background(), "partner", partner.NodeID()))
		r := &rig{t: t, m: m, g: g, bank: b, client: partner}
		r.proxy = transporttest.NewProxy(t, m.tr, transporttest.Config(m.listenAddr()), transporttest.Config(addr))
		must(t, r.connect())
		r.mustPay("a")
		hellos := len(r.hellos())
		others := make([]*rig, 5*most)
		for i := range others {
			others[i] = &rig{t: t, m: m, g: g, bank: b, client: newNode(t, owtp.NodeConfig{})}
			must(t, others[i].client.Connect("bank", b.at(addr, m, g)))
			others[i].mustPay("b")
			if n := b.Agreed(); n > most {
				t.Fatalf("%d agreed sessions are held, at most %d", n, most)
			}
		}
		if _, _, sessions, _ := b.Held(); sessions > most {
			t.Errorf("%d sessions are held, at most %d", sessions, most)
		}
		r.mustPay("c")
		if n := len(r.hellos()); n != hellos {
			t.Errorf("the named peer's session was pushed out: %d hellos more", n-hellos)
		}
		for _, o := range others[:most] {
			o.mustPay("d") // agrees anew
		}
	})
}

// Who is named, and for how long.
func TestNamedBy(t *testing.T) {
	ctx := context.Background()
	n := newNode(t, owtp.NodeConfig{})
	ids := make([]string, 5)
	for i := range ids {
		ids[i] = freshKey(t).Public().ID().String()
	}
	want := func(what string, named ...bool) {
		t.Helper()
		for i, id := range ids {
			if got := n.Named(id); got != (i < len(named) && named[i]) {
				t.Errorf("%s: peer %d named: %v", what, i, got)
			}
		}
	}
	want("at first")
	must(t, n.Listen(owtp.ConnectConfig{Address: freshName(t), ConnectType: owtp.Memory, EnableSignature: true, AllowPeers: ids[:2]}))
	must(t, n.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP, EnableSignature: true, AllowPeers: ids[1:3]}))
	want("AllowPeers", true, true, true)
	must(t, n.PinPeer(ctx, "alias", ids[3]))
	must(t, n.PinPeer(ctx, "alias", ids[3]))
	want("PinPeer", true, true, true, true)
	n.CloseListener(owtp.Memory)
	want("CloseListener", false, true, true, true)
	must(t, n.ForgetPeer(ctx, "alias"))
	want("ForgetPeer", false, true, true)
	if err := n.Listen(owtp.ConnectConfig{Address: n.ListenerAddr(owtp.HTTP), ConnectType: owtp.HTTP, EnableSignature: true, AllowPeers: ids[4:]}); err == nil {
		t.Fatal("a port was bound twice")
	}
	want("a listener that did not come to be", false, true, true)
	n.CloseListener(owtp.HTTP)
	want("at last")

	// Connect: by ID, by PeerID, by an alias that is bound; not at first contact.
	peers := make([]*owtp.OWTPNode, 3)
	for i := range peers {
		peers[i] = newNode(t, owtp.NodeConfig{})
		ids[i] = peers[i].NodeID()
		must(t, peers[i].Listen(owtp.ConnectConfig{Address: fmt.Sprint(t.Name(), i), ConnectType: owtp.Memory, EnableSignature: true}))
	}
	config := func(i int, peerID string) owtp.ConnectConfig {
		return owtp.ConnectConfig{Address: fmt.Sprint(t.Name(), i), ConnectType: owtp.Memory, EnableSignature: true, PeerID: peerID}
	}
	must(t, n.Connect(ids[0], config(0, "")))
	must(t, n.Connect("one", config(1, ids[1])))
	must(t, n.Connect("two", config(2, "")))
	want("Connect", true, true, false)
	n.ClosePeer("two")
	must(t, n.Connect("two", config(2, "")))
	must(t, n.Connect("two", config(2, "")))
	want("Connect to a bound alias", true, true, true)
	for _, name := range []string{ids[0], "one", "two", "two"} {
		n.ClosePeer(name)
	}
	want("ClosePeer")
	if err := n.Connect("nobody", owtp.ConnectConfig{Address: freshName(t), ConnectType: owtp.Memory, PeerID: ids[4]}); err == nil {
		t.Fatal("nobody answered")
	}
	want("a Connect that failed")
}
