package owtp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// The tests named TestRetry are PROTOCOL §8: one record per call, whoever loses
// what on the way. Over HTTP the library tries again by itself; on connections
// the caller's key lets it.

var callKey = []byte("0123456789abcdef")

// roomy is a proxy's configuration that takes what a node does by default.
func roomy(addr string) transport.Config {
	c := transporttest.Config(addr)
	c.MaxMessage, c.MaxConns, c.MaxConnsPerPeer = 4<<20, 4096, 256
	return c
}

// retryRig is a rig through a roomy proxy. Over HTTP a wire is in front of it,
// so that exchanges can break: a proxy can only answer for somebody else.
func retryRig(t *testing.T, m medium, g guard, cfg owtp.NodeConfig) *cutRig {
	t.Helper()
	b := newBank(t, cfg)
	r := &cutRig{rig: &rig{t: t, m: m, g: g, bank: b, client: newNode(t, owtp.NodeConfig{})}}
	r.through(b.listen(t, m, g))
	return r
}

type cutRig struct {
	*rig
	breaks func() // exchanges under way, before they reach the proxy; nil where there are none
}

// through connects the client by way of a proxy to addr.
func (r *cutRig) through(addr string) {
	r.t.Helper()
	r.proxy = transporttest.NewProxy(r.t, r.m.tr, roomy(r.m.listenAddr()), roomy(addr))
	cfg := r.connectConfig()
	cfg.Address = r.behindCutter()
	must(r.t, r.client.Connect("bank", cfg))
}

// behindCutter is the address by which clients reach the proxy so that cut can
// break their exchanges: over HTTP the sockets', on a queue those of the broker.
func (r *cutRig) behindCutter() string {
	switch r.m {
	case overHTTP:
		w := newWireCutter(r.t, r.proxy.Addr())
		r.breaks = w.cut
		return w.addr
	case overMQ:
		r.breaks = house.At(r.proxy.Addr()).CutExchanges
	}
	return r.proxy.Addr()
}

// cut breaks every connection and exchange, on both sides of the proxy.
func (r *cutRig) cut() {
	if r.breaks != nil {
		r.breaks()
	}
	r.proxy.CutAll()
}

// A wireCutter passes octets on, and closes all its sockets when it is told.
type wireCutter struct {
	addr string
	mu   sync.Mutex
	open map[net.Conn]bool
	over bool
}

func newWireCutter(t testing.TB, target string) *wireCutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w := &wireCutter{addr: l.Addr().String(), open: make(map[net.Conn]bool)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				near.Close()
				continue
			}
			w.mu.Lock()
			w.open[near], w.open[far] = true, true
			over := w.over
			w.mu.Unlock()
			if over {
				w.cut()
			}
			pipe := func(to, from net.Conn) {
				io.Copy(to, from)
				to.Close()
				from.Close()
				w.mu.Lock()
				delete(w.open, to)
				w.mu.Unlock()
			}
			wg.Go(func() { pipe(far, near) })
			wg.Go(func() { pipe(near, far) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.mu.Lock()
		w.over = true // also for what is being accepted now
		w.mu.Unlock()
		w.cut()
		wg.Wait()
	})
	return w
}

func (w *wireCutter) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.open {
		c.Close()
	}
}

// retried calls with a key on connections, where nothing is sent again without.
func (r *rig) retried(opts *owtp.CallOptions) *owtp.CallOptions {
	if !r.m.exchanges() {
		opts.CallKey = callKey
	}
	if opts.Timeout == 0 {
		opts.Timeout = patience
	}
	return opts
}

// losing drops the first messages with a call that go one way, and cuts what
// they were on.
func (r *cutRig) losing(dir transporttest.Direction, most int64) (lost *atomic.Int64) {
	lost = new(atomic.Int64)
	r.onCall(func(f transporttest.Flow) []transport.Message {
		if f.Dir != dir || lost.Load() >= most {
			return pass(f)
		}
		lost.Add(1)
		r.cut()
		return nil
	})
	return lost
}

// waits is a handler that begins once and answers when it is let go.
func (r *rig) waits(t *testing.T, method string, opts ...owtp.HandleOption) *sleeper {
	s := newSleeper(t)
	must(t, r.bank.HandleFunc(method, s.handle, opts...))
	return s
}

// result is what one call came to.
type result struct {
	resp *owtp.Response
	err  error
}

func (r *rig) start(method string, params any, opts *owtp.CallOptions) <-chan result {
	done := make(chan result, 1)
	go func() {
		resp, err := r.client.CallContext(context.Background(), "bank", method, params, opts)
		done <- result{resp, err}
	}()
	return done
}

// unknown fails unless the call ended 504, and so as one that may have run.
func (r result) unknown(t testing.TB) {
	t.Helper()
	err := r.err
	if err == nil {
		err = r.resp.Err()
	}
	if e := wantStatus(t, err, owtp.ErrOutcomeUnknown); !e.MayHaveRun {
		t.Errorf("the outcome is unknown, but it has not run: %v", e)
	}
}

func TestRetryAnswerDropped(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := retryRig(t, m, g, owtp.NodeConfig{})
		for n := int64(1); n <= 3; n++ { // over HTTP there are four attempts
			lost := r.losing(transporttest.ToClient, n)
			opts := r.retried(&owtp.CallOptions{})
			if opts.CallKey != nil {
				opts.CallKey = bytes.Repeat([]byte{byte(n)}, 16)
			}
			if ok, err := r.payWith(fmt.Sprint("lost ", n), opts); !ok {
				t.Errorf("%d answers were dropped: %v", n, err)
			}
			if lost.Load() != n {
				t.Errorf("%d answers were dropped, want %d", lost.Load(), n)
			}
			r.bank.ran(t, n)
		}
	})
}

// On connections a call without a key is sent again only if its caller says that
// it is repeatable, and not for ever: its handler may be what ends the connection.
func TestRetryRepeatableOnConnections(t *testing.T) {
	each(t, longMedia, allModes, func(t *testing.T, m medium, g guard) {
		r := retryRig(t, m, g, owtp.NodeConfig{})
		ran := int64(0)
		for _, c := range []struct {
			repeatable bool
			lost, runs int64
		}{{true, 1, 2}, {true, 3, 4}, {true, 100, 4}, {false, 1, 1}} {
			lost := r.losing(transporttest.ToClient, c.lost)
			ok, err := r.payWith(fmt.Sprint(c), &owtp.CallOptions{Timeout: patience, Repeatable: c.repeatable})
			runs, want := c.runs, c.runs > c.lost
			if g.open() {
				runs, want = 1, false // nothing is sent twice
			}
			if ok != want || lost.Load() != min(c.lost, runs) {
				t.Errorf("%+v: ok %v, %v; %d answers were dropped", c, ok, err, lost.Load())
			}
			if !ok {
				if e := wantStatus(t, err, owtp.ErrNetworkDisconnected); !e.MayHaveRun {
					t.Errorf("%+v: it has not run: %v", c, e)
				}
			}
			ran += runs
			r.bank.ran(t, ran)
		}
	})
}

// A status line instead of an answer is somebody's word, and starts one attempt.
func TestRetryAnswerRefused(t *testing.T) {
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		for n := int64(1); n <= 2; n++ {
			lost := int64(0)
			r.onCall(func(f transporttest.Flow) []transport.Message {
				if f.Dir == transporttest.ToClient && lost < n {
					lost++
					return nil // 502
				}
				return pass(f)
			})
			ok, err := r.pay(fmt.Sprint(n), patience)
			if n == 1 && !ok {
				t.Error(err)
			}
			if n == 2 {
				if e := wantStatus(t, err, owtp.ErrKeyAgreementFailed); ok || !e.MayHaveRun || e.Proved {
					t.Errorf("%+v", e)
				}
			}
			r.bank.ran(t, n)
		}
	})
}

func TestRetryRequestDropped(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := retryRig(t, m, g, owtp.NodeConfig{})
		lost := r.losing(transporttest.ToServer, 1)
		if ok, err := r.payWith("a", r.retried(&owtp.CallOptions{})); !ok {
			t.Error(err)
		}
		if lost.Load() != 1 {
			t.Errorf("%d requests were dropped", lost.Load())
		}
		r.bank.ran(t, 1)
	})
}

// The exchange or connection breaks while the handler runs: it goes on, the
// next attempt waits for it, and nothing runs again.
func TestRetryWaitsForTheHandler(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := retryRig(t, m, g, owtp.NodeConfig{})
		s := r.waits(t, "sleep")
		done := r.start("sleep", nil, r.retried(&owtp.CallOptions{}))
		within(t, s.began, "the handler")
		r.cut()
		eventually(t, "the next attempt waits", func() bool { return r.bank.Waiting() == 1 })
		if len(s.ended) != 0 {
			t.Errorf("the handler has ended: %v", <-s.ended)
		}
		s.wake()
		if got := within(t, done, "the answer"); got.err != nil || got.resp.JsonData().String() != "slept" {
			t.Errorf("answer %+v, %v", got.resp, got.err)
		}
		if err := within(t, s.ended, "the handler's end"); err != nil {
			t.Errorf("the broken exchange has ended the handler: %v", err)
		}
		if len(s.began) != 0 {
			t.Error("the handler has run twice")
		}
		eventually(t, "nobody waits", func() bool { return r.bank.Waiting() == 0 })
	})
}

// Nobody comes again: the handler's context ends, though not at once. On a queue
// nobody can see that a caller is gone, and the handler has until its deadline.
func TestRetryOrphanEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the time that orphans are given")
	}
	each(t, []medium{overHTTP, overWS}, []guard{inBoth}, func(t *testing.T, m medium, g guard) {
		r := retryRig(t, m, g, owtp.NodeConfig{})
		s := r.waits(t, "sleep")
		ctx, cancel := context.WithCancel(context.Background())
		go r.client.CallContext(ctx, "bank", "sleep", nil, &owtp.CallOptions{CallKey: callKey})
		within(t, s.began, "the handler")
		begin := time.Now()
		r.proxy.SetDown(true)
		r.cut()
		cancel()
		if err := within(t, s.ended, "the handler's end"); !errors.Is(err, context.Canceled) || time.Since(begin) < time.Second {
			t.Errorf("the handler ended after %v with %v", time.Since(begin), err)
		}
	})
}

// Many callers with one key, and over HTTP copies of each of their packets too:
// one run, one answer.
func TestRetryManyAtOnce(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := retryRig(t, m, g, owtp.NodeConfig{})
		var runs atomic.Int64
		must(t, r.bank.HandleFunc("count", func(c *owtp.Context) {
			n := runs.Add(1)
			time.Sleep(20 * time.Millisecond)
			c.Response(n, 0, "")
		}))
		if m.exchanges() {
			r.onCall(func(f transporttest.Flow) []transport.Message {
				if f.Dir == transporttest.ToServer {
					return []transport.Message{f.Message, {Form: f.Message.Form, Data: bytes.Clone(f.Message.Data)}}
				}
				return pass(f)
			})
		}
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				resp, err := r.client.CallContext(context.Background(), "bank", "count", nil, &owtp.CallOptions{CallKey: callKey, Timeout: patience})
				if err != nil || !resp.OK() || resp.JsonData().Int() != 1 {
					t.Errorf("answer %+v, %v", resp, err)
				}
			})
		}
		wg.Wait()
		if m.exchanges() {
			deliver(t, m, r.bank.ListenerAddr(m.name), r.toServer())
		}
		if n := runs.Load(); n != 1 {
			t.Errorf("the handler has run %d times", n)
		}
	})
}

// Another call under the same key is refused, whatever differs, and neither runs
// nor harms the first one's answer.
func TestRetryOtherContent(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		opts := func(purpose string) *owtp.CallOptions {
			return &owtp.CallOptions{CallKey: callKey, Meta: map[string]string{"purpose": purpose}}
		}
		call := func(method, token, purpose string) *owtp.Response {
			resp, err := r.client.CallContext(context.Background(), "bank", method, payParams(token), opts(purpose))
			must(t, err)
			return resp
		}
		if resp := call("pay", "a", "x"); !resp.OK() {
			t.Fatal(resp)
		}
		for what, resp := range map[string]*owtp.Response{
			"data": call("pay", "b", "x"), "method": call("keep", "a", "x"), "metadata": call("pay", "a", "y"),
		} {
			if resp.Status != owtp.ErrReplayAttack {
				t.Errorf("other %s: %+v", what, resp)
			}
		}
		if resp := call("pay", "a", "x"); !resp.OK() || resp.JsonData().Get("receipt").String() != receipt(tokenMark+"a") {
			t.Errorf("the first call's answer is now %+v", resp)
		}
		r.bank.ran(t, 1)
	})
}

// Copies of a packet are told so, with proof; with a nonce of its own a packet
// is an attempt; and of those there is an end.
func TestRetryCopiesAndTooMany(t *testing.T) {
	each(t, media, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		b := newBank(t, owtp.NodeConfig{})
		a := newRaw(t, m, b.listen(t, m, g), wire.ModeSealed)
		send := func(nonce byte) *wire.Packet {
			p := a.payment(b, nonce)
			p.CallKey = wire.Nonce(callKey)
			resp, err := a.send(p)
			must(t, err)
			return resp
		}
		if resp := send(1); resp.Status != 0 {
			t.Fatalf("%+v", resp)
		}
		for range 3 {
			if resp := send(1); resp.Status != owtp.ErrReplayAttack || resp.Reason != wire.ReasonCopy {
				t.Errorf("a copy was answered with %d, reason %d", resp.Status, resp.Reason)
			}
		}
		for n := 2; n <= wire.MaxAttempts; n++ {
			if resp := send(byte(n)); resp.Status != 0 || !strings.Contains(string(resp.Data), "receipt-for") {
				t.Fatalf("attempt %d was answered with %d %s", n, resp.Status, resp.Data)
			}
		}
		if resp := send(wire.MaxAttempts + 1); resp.Status != owtp.ErrTooManyRequests {
			t.Errorf("one attempt more was answered with %d", resp.Status)
		}
		if resp := send(7); resp.Reason != wire.ReasonCopy {
			t.Errorf("a copy of an attempt was answered with %d, reason %d", resp.Status, resp.Reason)
		}
		b.ran(t, 1)
	})
}

// Attempts that wait are bounded: the others are told so at once and those that
// wait get their answers.
func TestRetryWaitersAreBounded(t *testing.T) {
	each(t, media, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		r := retryRig(t, m, g, owtp.NodeConfig{})
		s := r.waits(t, "sleep")
		const perCall = 40
		results := make(chan result, 3*perCall)
		call := func(key byte) {
			opts := &owtp.CallOptions{CallKey: bytes.Repeat([]byte{key}, 16), Timeout: patience}
			resp, err := r.client.CallContext(context.Background(), "bank", "sleep", nil, opts)
			results <- result{resp, err}
		}
		for key := byte(1); key <= 2; key++ {
			go call(key)
			within(t, s.began, "the handler")
			for range perCall {
				go call(key)
			}
		}
		for range 2*perCall - owtp.MaxWaitersPerPeer {
			// Who refuses says 429; the caller may add that an attempt of its own
			// under that key runs.
			got := within(t, results, "a refusal")
			if got.err == nil && got.resp.Status != owtp.ErrTooManyRequests || got.err != nil && owtp.StatusOf(got.err) != owtp.ErrOutcomeUnknown {
				t.Errorf("one too many: %+v, %v", got.resp, got.err)
			}
		}
		eventually(t, "the others wait", func() bool { return r.bank.Waiting() == owtp.MaxWaitersPerPeer })
		s.wake()
		for range 2 + owtp.MaxWaitersPerPeer {
			if got := within(t, results, "an answer"); got.err != nil || !got.resp.OK() {
				t.Errorf("%+v, %v", got.resp, got.err)
			}
		}
		if len(s.began) != 0 {
			t.Error("an attempt has run the handler")
		}
		eventually(t, "nobody waits", func() bool { return r.bank.Waiting() == 0 })
	})
}

// An answer that is too large to keep is delivered once; who comes again is told
// that nobody has it any more.
func TestRetryReplyTooLarge(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := retryRig(t, m, g, owtp.NodeConfig{})
		var runs atomic.Int64
		must(t, r.bank.HandleFunc("large", func(c *owtp.Context) {
			runs.Add(1)
			c.Response(strings.Repeat("x", owtp.MaxKeptReply+1), 0, "")
		}))
		resp, err := r.client.CallSync("bank", "large", nil)
		if err != nil || len(resp.JsonData().String()) != owtp.MaxKeptReply+1 {
			t.Fatalf("without a fault: %v", err)
		}
		lost := r.losing(transporttest.ToClient, 1)
		got := within(t, r.start("large", nil, r.retried(&owtp.CallOptions{})), "the outcome")
		got.unknown(t)
		if got.err != nil {
			t.Errorf("the peer knows that it has run and should have said so itself: %v", got.err)
		}
		if runs.Load() != 2 || lost.Load() != 1 {
			t.Errorf("%d runs of two calls, %d answers dropped", runs.Load(), lost.Load())
		}
	})
}

// mortal is a store that its process can no longer reach once it is dead: what
// happens to a replica that is killed.
type mortal struct {
	session.Provider
	dead atomic.Bool
}

var errDead = errors.New("this process is dead")

func (m *mortal) Traits() session.Traits {
	t := m.Provider.Traits()
	t.Shared = true
	return t
}

func (m *mortal) Get(ctx context.Context, key string) (session.Record, error) {
	if m.dead.Load() {
		return session.Record{}, errDead
	}
	return m.Provider.Get(ctx, key)
}

func (m *mortal) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (uint64, error) {
	if m.dead.Load() {
		return 0, errDead
	}
	return m.Provider.CompareAndSwap(ctx, key, version, value, ttl)
}

func (m *mortal) Delete(ctx context.Context, key string) error {
	if m.dead.Load() {
		return errDead
	}
	return m.Provider.Delete(ctx, key)
}

// A movable is the wall clock, and as much as the test adds to it.
type movable struct{ by atomic.Int64 }

func (c *movable) now() time.Time        { return time.Now().Add(time.Duration(c.by.Load())) }
func (c *movable) move(by time.Duration) { c.by.Add(int64(by)) }

func newMemory(t testing.TB, o memory.Options) *memory.Store {
	t.Helper()
	s, err := memory.New(o)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// replicas are two nodes of one key over one store, and a caller that reaches
// them through one proxy, the first of them to begin with.
type replicas struct {
	*cutRig
	other  *bank
	clock  *movable
	stores [2]*mortal
	addr   string // the other's
}

func newReplicas(t *testing.T, m medium, g guard) *replicas {
	t.Helper()
	x := &replicas{cutRig: &cutRig{rig: &rig{t: t, m: m, g: g}}, clock: new(movable)}
	store := newMemory(t, memory.Options{})
	cert := owtp.NewRandomCertificate()
	var banks [2]*bank
	var addrs [2]string
	for i := range banks {
		x.stores[i] = &mortal{Provider: store}
		banks[i] = newBankAt(t, owtp.NodeConfig{Cert: cert, Store: x.stores[i]}, x.clock.now)
		addrs[i] = banks[i].listen(t, m, g)
	}
	x.bank, x.other, x.addr = banks[0], banks[1], addrs[1]
	x.client = newNodeAt(t, owtp.NodeConfig{}, x.clock.now)
	x.through(addrs[0])
	return x
}

func newNodeAt(t *testing.T, cfg owtp.NodeConfig, now func() time.Time) *owtp.OWTPNode {
	t.Helper()
	if cfg.Cert.ID() == "" {
		cfg.Cert = owtp.NewRandomCertificate()
	}
	if cfg.Limits == (owtp.Limits{}) {
		cfg.Limits = quick
	}
	n, err := owtp.NewAt(cfg, now)
	must(t, err)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func newBankAt(t *testing.T, cfg owtp.NodeConfig, now func() time.Time) *bank {
	t.Helper()
	b := &bank{OWTPNode: newNodeAt(t, cfg, now)}
	must(t, b.HandleFunc("pay", func(c *owtp.Context) {
		b.runs.Add(1)
		c.Response(map[string]string{"receipt": receipt(c.Params().Get("token").String())}, 0, "paid")
	}))
	return b
}

// Fail over: what the first replica has answered, unheard, the other one tells.
func TestRetryAtTheOtherReplica(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		x := newReplicas(t, m, g)
		x.mustPay("warm")
		lost := false
		x.onCall(func(f transporttest.Flow) []transport.Message {
			if f.Dir == transporttest.ToServer || lost {
				return pass(f)
			}
			lost = true
			x.proxy.SetTarget(roomy(x.addr))
			x.cut()
			return nil
		})
		if ok, err := x.payWith("a", x.retried(&owtp.CallOptions{})); !ok || !lost {
			t.Errorf("lost %v, %v", lost, err)
		}
		x.bank.ran(t, 2)
		x.other.ran(t, 0)
		x.proxy.OnMessage(nil)
		x.mustPay("after") // the other replica takes part in the session, too
		x.other.ran(t, 1)
	})
}

// An attempt at the other replica waits while the first one runs the call and
// renews its lease, however long that takes.
func TestRetryWaitsForTheOtherReplica(t *testing.T) {
	each(t, media, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		x := newReplicas(t, m, g)
		s := x.waits(t, "sleep")
		must(t, x.other.HandleFunc("sleep", func(*owtp.Context) { t.Error("the other replica has run it") }))
		done := x.start("sleep", nil, x.retried(&owtp.CallOptions{}))
		within(t, s.began, "the handler")
		x.proxy.SetTarget(roomy(x.addr))
		x.cut()
		eventually(t, "the attempt waits there", func() bool { return x.other.Waiting() == 1 })
		s.wake()
		if got := within(t, done, "the answer"); got.err != nil || got.resp.JsonData().String() != "slept" {
			t.Errorf("%+v, %v", got.resp, got.err)
		}
	})
}

// The replica that runs a call dies: when its lease has lapsed, nobody knows the
// outcome, and only a method that says so is run again.
func TestRetryOwnerDies(t *testing.T) {
	each(t, media, []guard{inSigned, inSealed}, func(t *testing.T, m medium, g guard) {
		for _, repeatable := range []bool{false, true} {
			x := newReplicas(t, m, g)
			var opts []owtp.HandleOption
			if repeatable {
				opts = append(opts, owtp.Repeatable())
			}
			s := x.waits(t, "sleep", opts...)
			s.stubborn = true
			var runs atomic.Int64
			must(t, x.other.HandleFunc("sleep", func(c *owtp.Context) {
				runs.Add(1)
				c.Response("again", 0, "")
			}, opts...))
			done := x.start("sleep", nil, x.retried(&owtp.CallOptions{}))
			within(t, s.began, "the handler")
			x.stores[0].dead.Store(true)
			x.proxy.SetTarget(roomy(x.addr))
			x.cut()
			eventually(t, "the attempt waits at the other replica", func() bool { return x.other.Waiting() == 1 })
			never(t, "the call was taken from a living owner", func() bool { return runs.Load() != 0 || len(done) != 0 })
			x.clock.move(owtp.RecordLease + time.Second)
			got := within(t, done, "the outcome")
			s.wake()
			switch {
			case !repeatable:
				got.unknown(t)
				if runs.Load() != 0 {
					t.Error("the call has run twice")
				}
			case got.err != nil || got.resp.JsonData().String() != "again" || runs.Load() != 1:
				t.Errorf("%d runs, %+v, %v", runs.Load(), got.resp, got.err)
			}
		}
	})
}

// A lease is renewed as long as its owner lives, beyond its first end.
func TestRetryLeaseIsRenewed(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		x := newReplicas(t, m, g)
		s := x.waits(t, "sleep")
		must(t, x.other.HandleFunc("sleep", func(*owtp.Context) { t.Error("the other replica has run it") }, owtp.Repeatable()))
		done := x.start("sleep", nil, x.retried(&owtp.CallOptions{}))
		within(t, s.began, "the handler")
		x.proxy.SetTarget(roomy(x.addr))
		x.cut()
		eventually(t, "the attempt waits", func() bool { return x.other.Waiting() == 1 })
		for range 5 {
			x.clock.move(owtp.RecordLease / 2)
			time.Sleep(2 * time.Millisecond) // not before the sweep has come, or the lease really lapses
			x.bank.RenewLeases()
		}
		s.wake()
		if got := within(t, done, "the answer"); got.err != nil || got.resp.JsonData().String() != "slept" {
			t.Errorf("%+v, %v", got.resp, got.err)
		}
	})
}

// The server restarts between two attempts and has lost its memory: only a call
// that may run twice is sent to it again.
func TestRetryServerRestarts(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		for _, repeatable := range []bool{false, true} {
			r := retryRig(t, m, g, owtp.NodeConfig{})
			again := newBank(t, owtp.NodeConfig{Cert: r.bank.Certificate()})
			addr := again.listen(t, m, g)
			lost := false
			r.onCall(func(f transporttest.Flow) []transport.Message {
				if f.Dir == transporttest.ToServer || lost {
					return pass(f)
				}
				lost = true
				r.proxy.SetTarget(roomy(addr))
				r.cut()
				return nil
			})
			got := within(t, r.start("pay", payParams("a"), r.retried(&owtp.CallOptions{Repeatable: repeatable, Meta: map[string]string{"purpose": purposeMark}})), "the outcome")
			r.bank.ran(t, 1)
			if repeatable {
				if got.err != nil || !got.resp.OK() {
					t.Errorf("repeatable: %+v, %v", got.resp, got.err)
				}
				again.ran(t, 1)
				continue
			}
			got.unknown(t)
			again.ran(t, 0)
			r.bank = again
			r.recover("after", 0)
		}
	})
}

// A reverse proxy finds nobody and says 502, before or after the server that is
// there then knows neither session nor epoch: a repeatable call is brought to its
// end, any other one is not sent to a peer that cannot know, and says so.
func TestRetryProxyThenRestart(t *testing.T) {
	scripts := map[string][]string{ // of what happens to one message after the other
		"lost":                 {"lost"},
		"lost, nobody":         {"lost", "nobody"},
		"lost, nobody, nobody": {"lost", "nobody", "nobody"},
		"lost, hello, nobody":  {"lost", "pass", "nobody"},
		"nobody, nobody":       {"nobody", "nobody"},
		"restart, nobody":      {"pass", "nobody"},
	}
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		for name, script := range scripts {
			for _, repeatable := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/repeatable=%v", name, repeatable), func(t *testing.T) {
					again := newBank(t, owtp.NodeConfig{})
					there, err := m.tr.(transport.ExchangeDialer).DialExchange(background(t), transporttest.Config(again.listen(t, m, g)))
					must(t, err)
					t.Cleanup(func() { there.Close() })
					var step atomic.Int64
					step.Store(-1)
					old := newBank(t, owtp.NodeConfig{Cert: again.Certificate()})
					r := &rig{t: t, m: m, g: g, bank: old, client: newNode(t, owtp.NodeConfig{})}
					addr := relayTo(t, m, old.listen(t, m, g), func(ctx context.Context, m transport.Message, pass forward) (transport.Message, error) {
						at := step.Load()
						if at < 0 || at == 0 && isHello(m) { // it may ask for a proof first
							return pass(m)
						}
						step.Add(1)
						what := "pass"
						if int(at) < len(script) {
							what = script[at]
						}
						if what == "lost" {
							pass(m)
						}
						if what != "pass" {
							return transport.Message{}, &transport.Refusal{Status: http.StatusBadGateway, Reason: "nobody there"}
						}
						m.Data = slices.Clone(m.Data)
						return there.Exchange(ctx, m)
					})
					must(t, r.client.Connect("bank", old.at(addr, m, g)))
					r.mustPay("before")
					step.Store(0)
					resp, err := r.client.CallContext(background(t), "bank", "pay", payParams("a"), &owtp.CallOptions{Repeatable: repeatable, Meta: map[string]string{"purpose": purposeMark}})
					if n := int(step.Load()); n < len(script) && repeatable {
						t.Fatalf("only %d messages came, the proxy has not refused all it should", n)
					}
					if repeatable {
						if err != nil || !resp.OK() {
							t.Fatalf("repeatable: %+v, %v", resp, err)
						}
						again.ran(t, 1)
					} else {
						var e *owtp.Error
						if !errors.As(err, &e) || !e.MayHaveRun || e.Proved {
							t.Errorf("not repeatable: %+v, %v", resp, err)
						}
						again.ran(t, 0)
					}
					r.bank = again
					r.recover("after", again.runs.Load())
				})
			}
		}
	})
}

// An ordinary restart costs no honest call anything: a caller that has heard
// nothing for a while asks for a proof before it sends.
func TestRetryIdleCallerNoticesARestart(t *testing.T) {
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		r := newRig(t, m, g)
		r.mustPay("before")
		again := newBank(t, owtp.NodeConfig{Cert: r.bank.Certificate()})
		r.proxy.SetTarget(transporttest.Config(again.listen(t, m, g)))
		must(t, r.bank.Close())
		r.client.AgeProofs(owtp.ProofAge + time.Second)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if ok, err := r.pay(fmt.Sprint("after ", i), patience); !ok {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		again.ran(t, 8)
	})
}

// Somebody in between delivers a request, keeps its answer, and delivers the
// same request again to the server that has restarted meanwhile. That one says,
// under its proof, that the packet belongs to another epoch; it cannot know what
// its predecessor did, and so the call must not be sent again.
func TestAttackDeliverAcrossRestart(t *testing.T) {
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		for _, repeatable := range []bool{false, true} {
			r := retryRig(t, m, g, owtp.NodeConfig{})
			r.mustPay("warm")
			again := newBank(t, owtp.NodeConfig{Cert: r.bank.Certificate()})
			addr := again.listen(t, m, g)
			first := true
			r.onCall(func(f transporttest.Flow) []transport.Message {
				if f.Dir == transporttest.ToServer && first {
					first = false
					deliver(t, m, r.bank.ListenerAddr(m.name), []transport.Message{f.Message})
					r.proxy.SetTarget(roomy(addr))
				}
				return pass(f)
			})
			got := within(t, r.start("pay", payParams("a"), &owtp.CallOptions{Repeatable: repeatable, Meta: map[string]string{"purpose": purposeMark}}), "the outcome")
			r.bank.ran(t, 2)
			if repeatable {
				if got.err != nil || !got.resp.OK() {
					t.Errorf("repeatable: %+v, %v", got.resp, got.err)
				}
				continue
			}
			got.unknown(t)
			again.ran(t, 0)
		}
	})
}

// A server that restarts ends its connections, and a caller that sees one end
// asks for a proof before it sends, however fresh the last one is: the restart
// costs nobody anything.
func TestRetryBusyCallerNoticesARestart(t *testing.T) {
	eachWay(t, []way{{connect: owtp.HTTP, sign: true}, {connect: owtp.HTTP, suite: "aes"}, {connect: owtp.HTTP, sign: true, suite: "sm4"}}, func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		for i := range 3 {
			answer(t, s.client, "testhost", "echo", i)
			must(t, s.host.Close())
			s.host = s.restart(t)
			eventually(t, "the caller has seen the connection end", func() bool { return s.client.ProofIsStale("testhost") })
			answer(t, s.client, "testhost", "echo", i)
		}
	})
}

// On a queue no connection ends with a server that restarts, and that its queue
// has gone is the broker's word alone. So a call that went there may have run:
// only one that may run twice finds the server again, and any other is the last
// to be lost.
func TestRetryBusyCallerMeetsARestart(t *testing.T) {
	eachWay(t, mqWays[1:], func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		for _, repeatable := range []bool{true, false} {
			answer(t, s.client, "testhost", "echo", 1)
			must(t, s.host.Close())
			s.host = s.restart(t)
			resp, err := s.client.CallContext(background(t), "testhost", "echo", 2, &owtp.CallOptions{Repeatable: repeatable})
			if !repeatable {
				result{resp, err}.unknown(t)
			} else if err != nil || !resp.OK() {
				t.Errorf("repeatable: %+v, %v", resp, err)
			}
			answer(t, s.client, "testhost", "echo", 3)
		}
	})
}

// Who cancels while a further attempt waits ends the handler that the first one
// began.
func TestRetryCancelEndsTheHandler(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := retryRig(t, m, g, owtp.NodeConfig{})
		s := r.waits(t, "sleep")
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		failed := make(chan error, 1)
		go func() {
			_, err := r.client.CallContext(ctx, "bank", "sleep", nil, r.retried(&owtp.CallOptions{}))
			failed <- err
		}()
		within(t, s.began, "the handler")
		r.cut()
		eventually(t, "the next attempt waits", func() bool { return r.bank.Waiting() == 1 })
		begin := time.Now()
		cancel()
		err := within(t, failed, "the call's end")
		if e := wantStatus(t, err, owtp.ErrRequestTimeout); !e.MayHaveRun || !errors.Is(err, context.Canceled) {
			t.Errorf("%+v", e)
		}
		if err := within(t, s.ended, "the handler's end"); !errors.Is(err, context.Canceled) || time.Since(begin) > 3*time.Second {
			t.Errorf("the handler ended after %v with %v", time.Since(begin), err)
		}
	})
}

// What was refused has left no record: the same call may come again.
func TestRetryRefusalsLeaveNoRecord(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := retryRig(t, m, g, owtp.NodeConfig{Limits: owtp.Limits{MaxRequestsPerPeer: 1}})
		call := func(method string, key byte) *owtp.Response {
			resp, err := r.client.CallContext(context.Background(), "bank", method, nil, &owtp.CallOptions{CallKey: bytes.Repeat([]byte{key}, 16)})
			must(t, err)
			return resp
		}
		if resp := call("late", 1); resp.Status != owtp.ErrNotFoundMethod {
			t.Errorf("%+v", resp)
		}
		s := r.waits(t, "sleep")
		must(t, r.bank.HandleFunc("late", echo))
		if resp := call("late", 1); !resp.OK() {
			t.Errorf("the method is there now: %+v", resp)
		}
		// An answer may arrive before its place is free again.
		eventually(t, "nothing runs", func() bool {
			_, _, _, requests := r.bank.Held()
			return requests == 0
		})
		done := r.start("sleep", nil, nil)
		within(t, s.began, "the handler")
		if resp := call("late", 2); resp.Status != owtp.ErrTooManyRequests {
			t.Errorf("%+v", resp)
		}
		s.wake()
		within(t, done, "the sleeper")
		eventually(t, "the same call goes through", func() bool {
			resp := call("late", 2)
			if !resp.OK() && resp.Status != owtp.ErrTooManyRequests {
				t.Fatalf("%+v", resp)
			}
			return resp.OK()
		})
	})
}

// A node that is full or goes away refuses a further attempt, and truly so. It
// is not the fate of the call, whose first attempt has run.
func TestRetryRefusedAttemptIsNotTheOutcome(t *testing.T) {
	for _, why := range []string{"full", "going away"} {
		each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
			r := retryRig(t, m, g, owtp.NodeConfig{Limits: owtp.Limits{MaxRequestsPerPeer: 1}})
			s := r.waits(t, "sleep")
			s.stubborn = true
			done := r.start("sleep", nil, r.retried(&owtp.CallOptions{Timeout: time.Second}))
			within(t, s.began, "the handler")
			if why == "going away" {
				r.bank.RefuseAll()
			}
			r.cut()
			got := within(t, done, "the outcome")
			if got.err == nil && (got.resp.Status == owtp.ErrTooManyRequests || got.resp.Status == owtp.ErrDenialOfService) {
				t.Errorf("%s: the call runs, but the caller is told that it was refused: %d %s", why, got.resp.Status, got.resp.Msg)
			}
			var e *owtp.Error
			if got.err != nil && errors.As(got.err, &e) && !e.MayHaveRun {
				t.Errorf("%s: the call runs, but the caller is told that it does not: %v", why, got.err)
			}
			s.wake()
		})
	}
}

// What a peer keeps of calls is bounded by its store; when that is full, calls
// are refused and have not run, and nothing that is kept is thrown away.
func TestRetryStoreFull(t *testing.T) {
	each(t, media, []guard{inSigned}, func(t *testing.T, m medium, g guard) {
		r := &rig{t: t, m: m, g: g, client: newNode(t, owtp.NodeConfig{})}
		r.bank = newBank(t, owtp.NodeConfig{Store: newMemory(t, memory.Options{MaxEntries: 16})})
		r.proxy = transporttest.NewProxy(t, m.tr, transporttest.Config(m.listenAddr()), transporttest.Config(r.bank.listen(t, m, g)))
		must(t, r.connect())
		call := func(key byte) *owtp.Response {
			resp, err := r.client.CallContext(context.Background(), "bank", "pay", payParams("a"), &owtp.CallOptions{CallKey: bytes.Repeat([]byte{key}, 16), Meta: map[string]string{"purpose": purposeMark}})
			must(t, err)
			return resp
		}
		kept := byte(0)
		for key := byte(1); key <= 20; key++ {
			switch resp := call(key); {
			case resp.OK() && kept == key-1:
				kept = key
			case resp.Status != owtp.ErrTooManyRequests:
				t.Fatalf("call %d: %+v", key, resp)
			}
		}
		if kept == 0 || kept == 20 {
			t.Fatalf("%d calls were kept", kept)
		}
		r.bank.ran(t, int64(kept))
		for key := byte(1); key <= kept; key++ {
			if resp := call(key); !resp.OK() {
				t.Errorf("the answer of call %d is gone: %+v", key, resp)
			}
		}
		r.bank.ran(t, int64(kept))
	})
}
