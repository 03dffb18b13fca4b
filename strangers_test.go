package owtp_test

import (
	"bytes"
	"context"
	"crypto/rand"
	bigendian "encoding/binary"
	"errors"
	"fmt"
	"io"
	randv2 "math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// The tests named TestStrangers are what somebody can do who has proved nothing
// and has sockets, as many as he likes.

// strangers is how many flood: OWTP_SOAK_STRANGERS, or few.
func strangers(t testing.TB) (n int, long bool) {
	text := os.Getenv("OWTP_SOAK_STRANGERS")
	if text == "" {
		return 100, false
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n, true
}

// helloOf is a good hello of a key that nobody knows.
func helloOf(t testing.TB, kind transport.Kind, mode wire.Mode) (hello []byte, id identity.ID) {
	t.Helper()
	key, err := identity.GenerateKey(rand.Reader)
	must(t, err)
	o := secure.Offer{Transport: uint8(kind), Mode: mode, Epoch: wire.Nonce{1}, Suites: []*secure.Suite{secure.SM4}}
	if kind == transport.MQ {
		o.ReplyQueue = strayQueue
	}
	_, hello, err = secure.Start(secure.Local{Key: key, Rand: rand.Reader}, o)
	must(t, err)
	return hello, key.Public().ID()
}

func postOf(contentType string, body []byte) []byte {
	return append(fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", contentType, len(body)), body...)
}

const upgradeRequest = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

// frameOf is a masked binary frame, with a mask that changes nothing.
func frameOf(body []byte) []byte {
	b := []byte{0x82, 0x80 | 126, 0, 0, 0, 0, 0, 0}
	bigendian.BigEndian.PutUint16(b[2:], uint16(len(body)))
	return append(b, body...)
}

// from dials from one of many addresses, which Linux has on its loopback; where
// that does not work, and for a negative i, from the usual one.
func from(ctx context.Context, i int, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 2 * time.Second}
	if runtime.GOOS == "linux" && i >= 0 {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 1, byte(i/250), byte(i%250+1))}
	}
	return d.DialContext(ctx, "tcp", addr)
}

// talk writes, reads what comes for a while, and hangs up.
func talk(ctx context.Context, i int, addr string, patience time.Duration, parts ...[]byte) (said []byte, err error) {
	c, err := from(ctx, i, addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetDeadline(time.Now().Add(patience))
	for _, p := range parts {
		if _, err := c.Write(p); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(c)
}

// A flood is many strangers, each of one of five kinds.
type flood struct {
	ws, http     string // addresses
	helloWS      [][]byte
	helloHTTP    [][]byte
	calm         atomic.Bool // they rest
	done, failed atomic.Int64
}

func (f *flood) stranger(ctx context.Context, i int) {
	garbage := make([]byte, 2000)
	rand.Read(garbage)
	for n := i; ctx.Err() == nil; n++ {
		if f.calm.Load() {
			sleepOr(ctx, 50*time.Millisecond)
			n--
			continue
		}
		addr := f.ws
		if n%2 == 0 {
			addr = f.http
		}
		var err error
		switch i % 5 {
		case 0: // a handshake that never ends
			_, err = talk(ctx, i, f.ws, time.Second, []byte(upgradeRequest), frameOf(f.helloWS[n%len(f.helloWS)]))
		case 1:
			_, err = talk(ctx, i, f.http, time.Second, postOf("application/owtp", f.helloHTTP[n%len(f.helloHTTP)]))
		case 2:
			_, err = talk(ctx, i, addr, time.Second, garbage)
		case 3: // half open
			_, err = talk(ctx, i, addr, time.Second, []byte("POST / HT"))
		case 4: // slow
			err = drip(ctx, i, addr)
		}
		if err != nil {
			f.failed.Add(1) // they are cut off, which is as it should be
		}
		f.done.Add(1)
		sleepOr(ctx, randv2.N(400*time.Millisecond))
	}
}

func drip(ctx context.Context, i int, addr string) error {
	c, err := from(ctx, i, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, b := range []byte(upgradeRequest) {
		if _, err := c.Write([]byte{b}); err != nil || ctx.Err() != nil {
			return err
		}
		sleepOr(ctx, 30*time.Millisecond)
	}
	return nil
}

// A crowd is honest callers that call again as soon as they are answered.
type crowd struct {
	client *owtp.OWTPNode
	names  []string
}

// p99 calls for so long from 64 callers and returns how long all but one of a
// hundred calls took at most, for each name.
func (c *crowd) p99(t testing.TB, length time.Duration) (p99 []time.Duration, calls int) {
	took := make([][]time.Duration, 64)
	stop := time.Now().Add(length)
	var wg sync.WaitGroup
	for i := range took {
		wg.Go(func() {
			for time.Now().Before(stop) {
				begin := time.Now()
				resp, err := c.client.CallContext(context.Background(), c.names[i%len(c.names)], "echo", i, &owtp.CallOptions{Timeout: patience})
				if err != nil || !resp.OK() {
					t.Errorf("an honest call to %s: %+v, %v", c.names[i%len(c.names)], resp, err)
					return
				}
				took[i] = append(took[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	for n := range c.names {
		var all []time.Duration
		for i := n; i < len(took); i += len(c.names) {
			all = append(all, took[i]...)
		}
		slices.Sort(all)
		calls += len(all)
		p99 = append(p99, all[len(all)*99/100])
	}
	return p99, calls
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A flood of handshakes, garbage, half-open and slow connections: honest callers
// go on, and when it is over nothing of it is left. A flood through a broker is
// TestAttackQueueFlood.
func TestStrangersFlood(t *testing.T) {
	count, long := strangers(t)
	length := time.Second
	if long {
		length = 4 * time.Second
	}
	const timeout = 2 * time.Second
	host := startNode(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: owtp.Limits{HandshakeTimeout: timeout, BodyTimeout: timeout, IdleTimeout: patience}, Window: time.Second})
	must(t, host.HandleFunc("echo", echo))
	must(t, host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.Websocket, EnableKeyAgreement: true}))
	must(t, host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP, EnableSignature: true}))
	f := &flood{ws: host.ListenerAddr(owtp.Websocket), http: host.ListenerAddr(owtp.HTTP)}
	for range 32 {
		h, _ := helloOf(t, transport.WebSocket, wire.ModeSealed)
		f.helloWS = append(f.helloWS, h)
		h, _ = helloOf(t, transport.HTTP, wire.ModeSealedSigned)
		f.helloHTTP = append(f.helloHTTP, h)
	}
	c := &crowd{client: randomNode(t), names: []string{"ws", "http"}}
	must(t, c.client.Connect("ws", owtp.ConnectConfig{Address: f.ws, ConnectType: owtp.Websocket, EnableKeyAgreement: true}))
	must(t, c.client.Connect("http", owtp.ConnectConfig{Address: f.http, ConnectType: owtp.HTTP, EnableSignature: true}))
	c.p99(t, length/4)
	empty, threads := heap(), runtime.NumGoroutine()
	unloaded, callsBefore := c.p99(t, length)
	// Honest calls over HTTP leave a record each, for a while.
	before := heap()
	aCall := (float64(before) - float64(empty)) / float64(callsBefore)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for i := range count {
		wg.Go(func() { f.stranger(ctx, i) })
	}
	eventually(t, "the flood has come", func() bool { return f.done.Load() > int64(count)/2 })
	// Others use the machine, too, so calm and flood take turns, and the round in
	// the middle counts.
	loaded, callsDuring := c.p99(t, length)
	ratios := make([][]float64, len(c.names))
	for round := 0; ; round++ {
		for i := range ratios {
			ratios[i] = append(ratios[i], float64(loaded[i])/float64(unloaded[i]))
			t.Logf("%d strangers, %s: p99 of honest calls %v unloaded, %v loaded, ratio %.2f", count, c.names[i], unloaded[i], loaded[i], ratios[i][round])
		}
		if !long || round == 4 {
			break
		}
		var calls, more int
		f.calm.Store(true)
		time.Sleep(time.Second) // what they are at takes no longer
		unloaded, calls = c.p99(t, length)
		f.calm.Store(false)
		time.Sleep(time.Second / 2)
		loaded, more = c.p99(t, length)
		callsDuring += calls + more
	}
	during := heap()
	cancel()
	wg.Wait()
	if f.done.Load() < int64(count) {
		t.Errorf("only %d attacks", f.done.Load())
	}
	// What strangers have begun ends with the handshake's timeout.
	eventually(t, "the strangers are forgotten", func() bool { links, _, _, _ := host.Held(); return links <= 1 })
	eventually(t, "their goroutines have ended", func() bool { return runtime.NumGoroutine() <= threads+16 })
	after := heap()
	c.p99(t, length/4)
	for i, name := range c.names {
		slices.Sort(ratios[i])
		if middle := ratios[i][len(ratios[i])/2]; long && middle > 3 {
			t.Errorf("%s: honest calls are slowed down %.2f times", name, middle)
		}
	}
	// What strangers leave are half-open sessions and their addresses.
	const room = 16 << 20
	expected := float64(before) + 1.5*max(aCall, 0)*float64(callsDuring)
	t.Logf("%d attacks, %d of them cut off; %d honest calls before and %d during; heap %.1f MiB before, %.1f during, %.1f after: %.2f of what the records of honest calls take",
		f.done.Load(), f.failed.Load(), callsBefore, callsDuring, mib(before), mib(during), mib(after), float64(after)/expected)
	if float64(after) > expected+room {
		t.Errorf("the heap has grown from %.1f to %.1f MiB, and honest calls account for %.1f", mib(before), mib(after), expected/(1<<20))
	}
	if float64(during) > expected+room+float64(count)*(128<<10) {
		t.Errorf("during the flood the heap had %.1f MiB, before %.1f", mib(during), mib(before))
	}
}

func mib(n uint64) float64 { return float64(n) / (1 << 20) }

// greet sends a good hello of a key that nobody knows, over HTTP from address i,
// and returns the status of what answers it; a hello's answer is 200.
func greet(ctx context.Context, t testing.TB, m medium, i int, addr string) (uint64, error) {
	t.Helper()
	hello, _ := helloOf(t, m.tr.Kind(), wire.ModeSealed)
	var said []byte
	if m == overMQ {
		answer, err := house.At(addr).Deliver(ctx, transporttest.Queued{ReplyTo: strayQueue, Message: binary(hello)})
		if err != nil {
			return 0, err
		}
		said = answer.Message.Data
	} else {
		answer, err := talk(ctx, i, addr, patience, postOf("application/owtp", hello))
		if err != nil {
			return 0, err
		}
		var ok bool
		if _, said, ok = bytes.Cut(answer, []byte("\r\n\r\n")); !ok || !bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) {
			return 0, fmt.Errorf("no answer of ours: %.200q", answer)
		}
	}
	typ, rest, err := wire.ParseHeader(said)
	if err != nil || typ == wire.TypeHelloReply {
		return 200, err
	}
	packets, err := wire.ParseRecord(rest)
	if err != nil {
		return 0, err
	}
	return packets[0].Status, nil
}

// Handshakes of one address have a rate: beyond it 429, while other addresses
// and who is known at the same one go on.
func TestStrangersRateByAddress(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs more than one address on the loopback")
	}
	const rate, burst = 5, 4
	b := newBank(t, owtp.NodeConfig{Limits: owtp.Limits{MaxHandshakeRate: rate}})
	addr := b.listen(t, overHTTP, inSealed)
	honest := &rig{t: t, m: overHTTP, g: inSealed, bank: b, client: newNode(t, owtp.NodeConfig{})}
	must(t, honest.client.Connect("bank", owtp.ConnectConfig{Address: addr, ConnectType: owtp.HTTP, EnableKeyAgreement: true}))
	honest.mustPay("a")
	for i := range 2 {
		begin := time.Now()
		counts := make(map[uint64]int)
		for range 3 * rate * burst {
			status, err := greet(short(t), t, overHTTP, i, addr)
			must(t, err)
			counts[status]++
		}
		most := rate*burst + 2 + int(rate*time.Since(begin).Seconds())
		if n := counts[200]; n < rate*burst || n > most || counts[owtp.ErrTooManyRequests] != 3*rate*burst-n {
			t.Errorf("address %d: answers %v, at most %d should be hellos", i, counts, most)
		}
	}
	// The flood was from other addresses; now from the honest one.
	for range 3 * rate * burst {
		_, err := greet(short(t), t, overHTTP, -1, addr)
		must(t, err)
	}
	b.ForgetSessions()
	honest.mustPay("b") // agrees anew
	b.ran(t, 2)
}

// Behind a broker nobody has an address of its own, so its strangers have one
// rate together: beyond it 429, also for who is honest and new, while who has
// proved itself there goes on.
func TestStrangersRateByBroker(t *testing.T) {
	t.Parallel()
	const rate, burst = 5, 4
	r := newQueueRig(t, inSealed, owtp.NodeConfig{Limits: owtp.Limits{MaxHandshakeRate: rate}})
	r.mustPay("a")
	begin := time.Now()
	counts := make(map[uint64]int)
	for range 3 * rate * burst {
		status, err := greet(short(t), t, overMQ, 0, r.addr)
		must(t, err)
		counts[status]++
	}
	// The honest client has used some of it when it was a stranger.
	most := rate*burst + 2 + int(rate*time.Since(begin).Seconds())
	if n := counts[200]; n < rate*burst-4 || n > most || counts[owtp.ErrTooManyRequests] != 3*rate*burst-n {
		t.Errorf("answers %v, at most %d should be hellos", counts, most)
	}
	r.bank.ForgetSessions()
	r.mustPay("b") // agrees anew
	r.bank.ran(t, 2)
	newcomer := newNode(t, owtp.NodeConfig{})
	wantStatus(t, newcomer.Connect("bank", r.bank.at(r.addr, overMQ, inSealed)), owtp.ErrTooManyRequests)
}

// stuck is a store that does not answer while it is held.
type stuck struct {
	session.Provider
	mu   sync.RWMutex
	held atomic.Bool
}

func (s *stuck) Traits() session.Traits {
	t := s.Provider.Traits()
	t.Shared = true
	return t
}

func (s *stuck) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.Provider.PutIfAbsent(ctx, key, value, ttl)
}

// One handshake runs, one waits, and the third is turned away at once.
func TestStrangersQueueFull(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		store := &stuck{Provider: newMemory(t, memory.Options{})}
		clock := new(movable)
		limits := owtp.Limits{MaxHandshakes: 1, MaxHandshakeQueue: 1, HandshakeTimeout: patience}
		if m == overMQ {
			limits.MaxHandshakeQueue = 4 // all come from the broker, and one address has a quarter
		}
		b := newBankAt(t, owtp.NodeConfig{Store: store, Limits: limits}, clock.now)
		addr := b.listen(t, m, g)
		// The epoch is asked for anew when it was read a while ago, within a worker.
		store.mu.Lock()
		clock.move(3 * time.Second)
		answers := make(chan uint64, 3)
		for i := range 3 {
			go func() {
				status, err := greet(background(t), t, m, i, addr)
				if err != nil {
					t.Error(err)
				}
				answers <- status
			}()
		}
		if got := within(t, answers, "the third handshake's refusal"); got != owtp.ErrDenialOfService {
			t.Errorf("answered %d", got)
		}
		if len(answers) != 0 {
			t.Error("the store is held, but a handshake was answered")
		}
		store.mu.Unlock()
		for range 2 {
			if got := within(t, answers, "the other handshakes"); got != 200 {
				t.Errorf("answered %d", got)
			}
		}
	})
}

// Half-open sessions are bounded, and make room among themselves only.
func TestStrangersHalfOpen(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		r.mustPay("a")
		must(t, r.bank.FloodHalfOpen(owtp.MaxHalfOpen+1000))
		_, halfOpen, sessions, _ := r.bank.Held()
		if halfOpen != owtp.MaxHalfOpen || sessions > owtp.MaxHalfOpen+1 {
			t.Errorf("%d half-open sessions and %d in all are held, at most %d", halfOpen, sessions, owtp.MaxHalfOpen)
		}
		before := len(r.hellos())
		r.mustPay("b")
		if n := len(r.hellos()) - before; n != 0 {
			t.Errorf("the honest session was pushed out: %d new agreements", n)
		}
		r.bank.ForgetSessions()
		r.mustPay("c") // among thousands of others, it is the one that is confirmed
		r.bank.ran(t, 3)
	})
}

// Strangers that connect and stop, at each stage, are gone after the handshake's
// timeout, with all that was held for them. Over a queue nobody is connected to
// this node, and what a hello leaves is a half-open session.
func TestStrangersIdle(t *testing.T) {
	const timeout = 300 * time.Millisecond
	b := newBank(t, owtp.NodeConfig{Limits: owtp.Limits{HandshakeTimeout: timeout, BodyTimeout: timeout, MaxHandshakeRate: 10000}})
	addr := b.listen(t, overWS, inSealed)
	threads := runtime.NumGoroutine()
	ctx := background(t)
	stages := [][][]byte{
		{[]byte("")}, {[]byte(upgradeRequest)[:50]}, {[]byte(upgradeRequest)}, {[]byte(upgradeRequest), frameOf([]byte{2, 1, 0})[:9]}, nil,
	}
	var wg sync.WaitGroup
	for i := range 60 {
		parts := stages[i%len(stages)]
		if parts == nil {
			hello, _ := helloOf(t, transport.WebSocket, wire.ModeSealed)
			parts = [][]byte{[]byte(upgradeRequest), frameOf(hello)}
		}
		wg.Go(func() {
			begin := time.Now()
			if _, err := talk(ctx, i, addr, patience, parts...); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("stage %d: still open after %v", i%len(stages), time.Since(begin))
			}
		})
	}
	wg.Wait()
	eventually(t, "nothing is held for them", func() bool {
		links, _, _, requests := b.Held()
		return links == 0 && requests == 0 && runtime.NumGoroutine() <= threads+8
	})
}

// Who may not come in is told so before anything is computed for him: neither a
// hello nor a signature of his is looked at.
func TestStrangersAuthorizeComesFirst(t *testing.T) {
	each(t, media, []guard{inSigned, inSealed}, func(t *testing.T, m medium, g guard) {
		var mu sync.Mutex
		var asked []string
		b := newBank(t, owtp.NodeConfig{})
		must(t, b.Listen(owtp.ConnectConfig{
			Address: m.listenAddr(), ConnectType: m.name, EnableSignature: g.sign, EnableKeyAgreement: g.seal,
			Authorize: func(id, remote string) error {
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, id)
				return errors.New("nobody is")
			},
		}))
		addr := b.ListenerAddr(m.name)
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(asked) }
		var messages []transport.Message
		var ids []string
		for _, mode := range []wire.Mode{wire.ModeSigned, wire.ModeSealedSigned, wire.ModeSealed} {
			hello, id := helloOf(t, m.tr.Kind(), mode)
			messages, ids = append(messages, binary(hello)), append(ids, id.String())
		}
		if m.exchanges() && !g.seal {
			// A signed packet whose key is not even a point, and whose signature
			// is junk: nobody has looked.
			_, key := newKey(t)
			a := dialRaw(t, m, addr, key)
			p := a.signed(b, key, bytes.Repeat([]byte{0xff}, 64))
			p.Signature = bytes.Repeat([]byte{1}, 64)
			messages, ids = append(messages, packetAs(transport.Binary, p)), append(ids, "")
		}
		for i, msg := range messages {
			before := count()
			answers := deliver(t, m, addr, []transport.Message{msg})
			if len(answers) != 1 || typeOf(answers[0]) == wire.TypeHelloReply {
				t.Fatalf("message %d: %d answers: %.200v", i, len(answers), answers)
			}
			if p, err := parsePlain(answers[0]); err != nil || p.Status != owtp.ErrUnauthorized {
				t.Errorf("message %d was answered with %+v, %v", i, p, err)
			}
			if n := count() - before; n != 1 {
				p, err := parsePlain(answers[0])
				t.Fatalf("message %d: Authorize was asked %d times; it was answered with %+v, %v", i, n, p, err)
			}
			if ids[i] != "" && asked[len(asked)-1] != ids[i] {
				t.Errorf("message %d: Authorize was asked about %s", i, asked[len(asked)-1])
			}
		}
		if links, halfOpen, sessions, _ := b.Held(); halfOpen+sessions != 0 || links > 1 {
			t.Errorf("%d links, %d half-open, %d sessions are held for who may not come in", links, halfOpen, sessions)
		}
		b.ran(t, 0)
	})
}

// AllowPeers is asked before Authorize and before the handshakes' budget: who is
// not on the list uses up nobody's share.
func TestStrangersAllowPeersComesFirst(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		var asked atomic.Int64
		b := newBank(t, owtp.NodeConfig{Limits: owtp.Limits{MaxHandshakes: 1, MaxHandshakeQueue: 1, MaxHandshakeRate: 5}})
		client := newNode(t, owtp.NodeConfig{})
		must(t, b.Listen(owtp.ConnectConfig{
			Address: m.listenAddr(), ConnectType: m.name, EnableKeyAgreement: true, AllowPeers: []string{client.NodeID()},
			Authorize: func(string, string) error { asked.Add(1); return nil },
		}))
		addr := b.ListenerAddr(m.name)
		for range 100 {
			status, err := greet(background(t), t, m, -1, addr)
			if must(t, err); status != owtp.ErrUnauthorized {
				t.Fatalf("answered %d", status)
			}
		}
		if n := asked.Load(); n != 0 {
			t.Errorf("Authorize was asked %d times about who is not on the list", n)
		}
		r := &rig{t: t, m: m, g: g, bank: b, client: client}
		must(t, client.Connect("bank", b.at(addr, m, g)))
		r.mustPay("a")
		if asked.Load() == 0 {
			t.Error("Authorize was not asked about who is on it")
		}
	})
}
