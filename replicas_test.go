package owtp_test

import (
	"context"
	"errors"
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

// The tests named TestReplicas and TestStore have three nodes of one key over
// one store, behind a balancer that gives each message to the next of them.

// shared is one replica's way to a store that others share. Its hooks run around
// the store's operations, and it can stop answering.
type shared struct {
	session.Provider
	writing sync.WaitGroup // late

	mu     sync.Mutex
	paused chan struct{} // closed when it goes on; nil while it runs
	before func(op, key string)
	never  func(op, key string) bool // the operation is not carried out, and nobody says so
	lose   func(op, key string) bool // the operation is carried out and its answer lost
	late   func(op, key string) bool // the same, but long after that
}

func (s *shared) Traits() session.Traits {
	t := s.Provider.Traits()
	t.Shared = true
	return t
}

func (s *shared) pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = make(chan struct{})
}

func (s *shared) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.paused)
	s.paused = nil
}

// hook sets what runs before each operation, and which answers are lost.
func (s *shared) hook(before func(op, key string), lose func(op, key string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.lose = before, lose
}

func (s *shared) begin(ctx context.Context, op, key string) error {
	s.mu.Lock()
	paused, before, never := s.paused, s.before, s.never
	s.mu.Unlock()
	if before != nil {
		before(op, key)
	}
	if never != nil && never(op, key) {
		<-ctx.Done()
	}
	if paused == nil {
		return ctx.Err()
	}
	select {
	case <-paused:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *shared) end(ctx context.Context, op, key string) error {
	s.mu.Lock()
	lose := s.lose
	s.mu.Unlock()
	if lose != nil && lose(op, key) {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (s *shared) Get(ctx context.Context, key string) (session.Record, error) {
	if err := s.begin(ctx, "get", key); err != nil {
		return session.Record{}, err
	}
	return s.Provider.Get(ctx, key)
}

func (s *shared) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	if err := s.begin(ctx, "insert", key); err != nil {
		return 0, err
	}
	s.mu.Lock()
	late := s.late
	s.mu.Unlock()
	if late != nil && late("insert", key) {
		value = slices.Clone(value)
		s.writing.Go(func() {
			time.Sleep(300 * time.Millisecond)
			s.Provider.PutIfAbsent(context.Background(), key, value, ttl)
		})
		<-ctx.Done()
		return 0, ctx.Err()
	}
	v, err := s.Provider.PutIfAbsent(ctx, key, value, ttl)
	return v, errors.Join(err, s.end(ctx, "insert", key))
}

func (s *shared) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (uint64, error) {
	if err := s.begin(ctx, "swap", key); err != nil {
		return 0, err
	}
	v, err := s.Provider.CompareAndSwap(ctx, key, version, value, ttl)
	return v, errors.Join(err, s.end(ctx, "swap", key))
}

func (s *shared) Delete(ctx context.Context, key string) error {
	if err := s.begin(ctx, "delete", key); err != nil {
		return err
	}
	return s.Provider.Delete(ctx, key)
}

func isCall(key string) bool    { return strings.Contains(key, "/call/") }
func isSession(key string) bool { return strings.Contains(key, "/session/") }

// once is true the first time that op comes for a key that is says yes to.
func once(op string, is func(string) bool) func(op, key string) bool {
	var done atomic.Bool
	return func(o, key string) bool { return o == op && is(key) && !done.Swap(true) }
}

// A cluster is three replicas, their balancer, and a client.
type cluster struct {
	t      *testing.T
	m      medium
	g      guard
	cert   owtp.Certificate
	limits owtp.Limits
	store  *memory.Store
	banks  []*bank
	stores []*shared
	lb     *balancer
	client *owtp.OWTPNode
}

// A balancer gives each message to the next replica, or to the one that it is
// told, and remembers what passed.
type balancer struct {
	addr string
	to   []transport.Exchanger

	mu   sync.Mutex
	next int
	only int // a replica, or -1
	hook relay
	seen []transport.Message // requests
}

func (b *balancer) one(i int) {
	b.mu.Lock()
	b.only = i
	b.mu.Unlock()
}

// by sets what stands between the client and the replica of each message.
func (b *balancer) by(f relay) {
	b.mu.Lock()
	b.hook = f
	b.mu.Unlock()
}

func (b *balancer) requests(is func(transport.Message) bool) (out []transport.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.seen {
		if is(m) {
			out = append(out, m)
		}
	}
	return out
}

func noHello(m transport.Message) bool { return !isHello(m) }

func (b *balancer) serve(ctx context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
	m.Data = slices.Clone(m.Data)
	b.mu.Lock()
	b.seen = append(b.seen, m)
	i := b.next % len(b.to)
	b.next++
	if b.only >= 0 {
		i = b.only
	}
	to, hook := b.to[i], b.hook
	b.mu.Unlock()
	pass := func(m transport.Message) (transport.Message, error) { return to.Exchange(ctx, m) }
	if hook != nil {
		return hook(ctx, m, pass)
	}
	return pass(m)
}

type option func(*cluster)

func clusterLimits(l owtp.Limits) option { return func(c *cluster) { c.limits = l } }

func newCluster(t *testing.T, m medium, g guard, options ...option) *cluster {
	t.Helper()
	return newClusterAt(t, m, g, memory.Options{}, nil, options...)
}

func newClusterAt(t *testing.T, m medium, g guard, o memory.Options, clocks []*movable, options ...option) *cluster {
	t.Helper()
	c := &cluster{t: t, m: m, g: g, cert: owtp.NewRandomCertificate(), limits: quick, store: newMemory(t, o)}
	for _, f := range options {
		f(c)
	}
	c.lb = &balancer{only: -1}
	for i := range 3 {
		now := time.Now
		if clocks != nil {
			now = clocks[i].now
		}
		s := &shared{Provider: c.store}
		b := newBankAt(t, owtp.NodeConfig{Cert: c.cert, Store: s, Limits: c.limits}, now)
		x, err := m.tr.(transport.ExchangeDialer).DialExchange(context.Background(), roomy(b.listen(t, m, g)))
		must(t, err)
		t.Cleanup(func() { x.Close() })
		c.banks, c.stores, c.lb.to = append(c.banks, b), append(c.stores, s), append(c.lb.to, x)
	}
	l, err := m.tr.Listen(context.Background(), roomy(m.listenAddr()), transporttest.HandlerFuncs{Exchange: c.lb.serve})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	c.lb.addr = l.Addr().String()
	c.client = newNode(t, owtp.NodeConfig{})
	c.join(c.client)
	return c
}

func (c *cluster) join(n *owtp.OWTPNode) {
	c.t.Helper()
	must(c.t, n.Connect("bank", c.banks[0].at(c.lb.addr, c.m, c.g)))
}

func (c *cluster) pay(token string, opts *owtp.CallOptions) (bool, error) {
	c.t.Helper()
	resp, err := c.client.CallContext(context.Background(), "bank", "pay", payParams(token), opts)
	ok := judge(c.t, token, resp, err)
	if err == nil {
		err = resp.Err()
	}
	return ok, err
}

func (c *cluster) mustPay(token string) {
	c.t.Helper()
	if ok, err := c.pay(token, &owtp.CallOptions{Timeout: patience}); !ok {
		c.t.Fatalf("call %q: %v", token, err)
	}
}

// ran is how often the handler has run, on all replicas.
func (c *cluster) ran() (runs int64) {
	for _, b := range c.banks {
		runs += b.runs.Load()
	}
	return runs
}

func (c *cluster) mustHaveRun(want int64) {
	c.t.Helper()
	if got := c.ran(); got != want {
		c.t.Errorf("the handlers have run %d times, want %d", got, want)
	}
}

// sessions is how many agreed sessions lie in the store.
func (c *cluster) sessions() int {
	keys, err := c.store.List(context.Background(), session.NodePrefix+c.cert.ID()+"/session/", "", 1000)
	must(c.t, err)
	return len(keys)
}

// agreements is how many handshakes there were; a hello that asks for a proof
// alone is none.
func (c *cluster) agreements() int {
	return len(c.lb.requests(func(m transport.Message) bool {
		typ, body, err := wire.ParseHeader(m.Data)
		if err != nil || typ != wire.TypeHello {
			return false
		}
		h, err := wire.ParseHello(body)
		must(c.t, err)
		return !h.Proof()
	}))
}

// half makes the next call the first one under a session that the first replica
// has agreed on, the call going to the second. Over a queue Connect has made such
// a call itself, and the session is agreed anew. It returns how many agreements
// do not count.
func (c *cluster) half() int {
	if c.m != overMQ {
		return 0
	}
	c.client.AgeSessions()
	c.lb.mu.Lock()
	c.lb.next = 0
	c.lb.mu.Unlock()
	return c.agreements()
}

// One agreement serves on all, whoever has which message of it first.
func TestReplicasShareASession(t *testing.T) {
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		c := newCluster(t, m, g)
		for range 30 {
			c.mustPay("a")
		}
		c.mustHaveRun(30)
		for i, b := range c.banks {
			if n := b.runs.Load(); n < 8 {
				t.Errorf("replica %d has run %d calls of 30", i, n)
			}
		}
		if n := c.agreements(); g.seal && n != 1 {
			t.Errorf("%d agreements, want one", n)
		}
	})
}

// The first packets of a session come to two replicas at one moment: both have
// read it half open, and both confirm it.
func TestReplicasConfirmAtOnce(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		c := newCluster(t, m, g)
		before := c.half()
		var both sync.WaitGroup
		both.Add(2)
		var met atomic.Int64
		for _, s := range c.stores[1:] {
			first := once("swap", isSession)
			s.hook(func(op, key string) {
				if first(op, key) {
					met.Add(1)
					both.Done()
					both.Wait()
				}
			}, nil)
		}
		var calls sync.WaitGroup
		for range 2 {
			calls.Go(func() { c.mustPay("a") }) // to the second and the third
		}
		calls.Wait()
		c.mustHaveRun(2)
		if n := c.agreements() - before; n != 1 || c.sessions() != 1 || met.Load() != 2 {
			t.Errorf("%d agreements and %d sessions; %d replicas have confirmed", n, c.sessions(), met.Load())
		}
		c.mustPay("b")
	})
}

// A session that ends while another replica confirms it stays dead.
func TestReplicasConfirmationRevivesNothing(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		c := newCluster(t, m, g)
		before := c.half()
		first := once("swap", isSession)
		c.stores[1].hook(func(op, key string) {
			if first(op, key) {
				c.banks[0].ForgetSessions()
				if n := c.sessions(); n != 0 {
					t.Errorf("%d sessions were not ended", n)
				}
			}
		}, nil)
		c.mustPay("a") // agrees anew
		c.mustHaveRun(1)
		if n := c.agreements() - before; n != 2 || c.sessions() != 1 {
			t.Errorf("%d agreements, want 2; %d sessions are in the store, want the new one alone", n, c.sessions())
		}
	})
}

// The store's answer to a confirmation is lost: nobody is told that there was
// no agreement, and the next packet finds that there is one.
func TestReplicasConfirmationUnheard(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		limits := quick
		limits.StoreTimeout = 50 * time.Millisecond
		c := newCluster(t, m, g, clusterLimits(limits))
		before := c.half()
		c.lb.one(1)
		unheard := make(chan bool, 1)
		first := once("swap", isSession)
		c.stores[1].hook(nil, func(op, key string) bool {
			lose := first(op, key)
			if lose {
				unheard <- true
			}
			return lose
		})
		c.mustPay("a") // the refusal is nobody's, so that it is tried once more
		c.mustHaveRun(1)
		if n := c.agreements() - before; n != 1 || len(unheard) != 1 {
			t.Errorf("%d agreements; %d answers of the store were lost", n, len(unheard))
		}
	})
}

// What one replica ends is dead on the others within two seconds.
func TestReplicasEndedSession(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		clocks := []*movable{new(movable), new(movable), new(movable)}
		c := newClusterAt(t, m, g, memory.Options{}, clocks)
		for range 3 {
			c.mustPay("a")
		}
		request := c.lb.requests(noHello)[2]
		c.banks[0].ForgetSessions()
		for i := range c.banks[1:] {
			clocks[i+1].move(2 * time.Second)
		}
		for i := range c.banks {
			answer, err := c.lb.to[i].Exchange(background(t), request)
			must(t, err)
			if status := openStatus(t, answer); status != owtp.ErrSecretKeyInvalid {
				t.Errorf("replica %d answers %d under a session that has ended", i, status)
			}
		}
		c.mustHaveRun(3)
	})
}

// openStatus is the status of an answer that nobody has sealed.
func openStatus(t *testing.T, m transport.Message) uint64 {
	t.Helper()
	if typ := typeOf(m); typ != wire.TypePackets {
		t.Fatalf("an answer of type %d", typ)
	}
	_, body, err := wire.ParseHeader(m.Data)
	must(t, err)
	packets, err := wire.ParseRecord(body)
	must(t, err)
	return packets[0].Status
}

// A new session retires the one before it, which another replica has made and
// confirmed; and no other peer's.
func TestReplicasRetire(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		c := newCluster(t, m, g)
		c.lb.one(0)
		c.mustPay("a")
		other := newNode(t, owtp.NodeConfig{})
		c.join(other)
		if _, err := other.CallSync("bank", "pay", payParams("x")); err != nil {
			t.Fatal(err)
		}
		c.client.AgeSessions()
		c.lb.one(1)
		c.mustPay("b")
		if n := c.sessions(); n != 2 {
			t.Errorf("%d sessions are in the store, want the new one and the other peer's", n)
		}
	})
}

// One peer's sessions are counted wherever they were made.
func TestReplicasMaxSessions(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		limits := quick
		limits.MaxSessions = 2
		c := newCluster(t, m, g, clusterLimits(limits))
		cert := owtp.NewRandomCertificate()
		var programs []*owtp.OWTPNode
		for i := range 4 {
			c.lb.one(i % 3)
			n := newNode(t, owtp.NodeConfig{Cert: cert})
			c.join(n)
			programs = append(programs, n)
			if _, err := n.CallSync("bank", "pay", payParams("a")); err != nil {
				t.Fatal(err)
			}
		}
		c.lb.one(0)
		for _, n := range programs[1:] {
			if _, err := n.CallSync("bank", "pay", payParams("b")); err != nil {
				t.Fatal(err)
			}
		}
		if n := c.sessions(); n > 3 { // the cluster's own client has one that is half open
			t.Errorf("%d sessions are in the store", n)
		}
	})
}

// A copy of a request runs nothing on any replica.
func TestReplicasRefuseCopies(t *testing.T) {
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		c := newCluster(t, m, g)
		c.mustPay("a")
		for _, m := range c.lb.requests(noHello) {
			for _, to := range c.lb.to {
				if _, err := to.Exchange(background(t), m); err != nil {
					t.Error(err)
				}
			}
		}
		c.mustHaveRun(1)
	})
}

// Clocks of replicas that are apart by a window open no gap: the record of a
// call lives until the last of them finds its packet too old.
func TestReplicasClocksApart(t *testing.T) {
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		clocks := []*movable{new(movable), new(movable), new(movable)}
		caller, storeClock := new(movable), new(movable)
		caller.move(29 * time.Second) // as far ahead as the first replica takes it
		clocks[2].move(-28 * time.Second)
		c := newClusterAt(t, m, g, memory.Options{Now: storeClock.now}, clocks)
		c.client = newNodeAt(t, owtp.NodeConfig{}, caller.now)
		c.lb.one(0)
		c.join(c.client)
		if ok, err := c.pay("a", &owtp.CallOptions{Timeout: 2 * time.Second}); !ok {
			t.Fatal(err)
		}
		sent := c.lb.requests(noHello)
		for range 20 {
			for _, m := range append(clocks, storeClock) {
				m.move(5 * time.Second)
			}
			if _, err := c.lb.to[2].Exchange(background(t), sent[len(sent)-1]); err != nil {
				t.Error(err)
			}
		}
		c.mustHaveRun(1)
	})
}

// The exchange with the replica that runs a call breaks, and a further attempt
// waits at another one: the handler goes on for it. On a queue nobody sees that an
// exchange has broken (TestRetryWaitsForTheOtherReplica).
func TestReplicasOrphanIsWantedElsewhere(t *testing.T) {
	c := newCluster(t, overHTTP, inSealed)
	s := newSleeper(t)
	must(t, c.banks[0].HandleFunc("sleep", s.handle))
	for _, b := range c.banks[1:] {
		must(t, b.HandleFunc("sleep", func(*owtp.Context) { t.Error("another replica has run it") }))
	}
	c.mustPay("warm")
	c.lb.one(0)
	key := []byte("fedcba9876543210")
	gone, leave := context.WithCancel(context.Background())
	c.lb.by(func(ctx context.Context, m transport.Message, pass forward) (transport.Message, error) {
		broken, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(gone, cancel)()
		return c.lb.to[0].Exchange(broken, m) // no cancel packet: the wire is cut
	})
	done := make(chan result, 1)
	go func() {
		resp, err := c.client.CallContext(context.Background(), "bank", "sleep", nil, &owtp.CallOptions{CallKey: key, Timeout: patience})
		done <- result{resp, err}
	}()
	within(t, s.began, "the handler")
	c.lb.by(nil)
	c.lb.one(1)
	leave()
	eventually(t, "the next attempt waits at the second replica", func() bool { return c.banks[1].Waiting() == 1 })
	time.Sleep(owtp.OrphanPatience + 500*time.Millisecond)
	if len(s.ended) != 0 {
		t.Fatalf("the handler has ended: %v", <-s.ended)
	}
	s.wake()
	if got := within(t, done, "the answer"); got.err != nil || got.resp.JsonData().String() != "slept" {
		t.Errorf("%+v, %v", got.resp, got.err)
	}
}

// Two replicas meet a name for the first time, at one moment and at different
// nodes: one is bound, and the other replica refuses its own.
func TestReplicasFirstContactAtOnce(t *testing.T) {
	each(t, media, []guard{inSigned}, func(t *testing.T, m medium, g guard) {
		store := newMemory(t, memory.Options{})
		cert := owtp.NewRandomCertificate()
		var both sync.WaitGroup
		both.Add(2)
		var wg sync.WaitGroup
		var failed atomic.Int64
		for range 2 {
			first := once("insert", func(key string) bool { return strings.Contains(key, "/bind/") })
			s := &shared{Provider: store}
			s.hook(func(op, key string) {
				if first(op, key) {
					both.Done()
					both.Wait()
				}
			}, nil)
			n := newNode(t, owtp.NodeConfig{Cert: cert, Store: s})
			b := newBank(t, owtp.NodeConfig{})
			to := b.at(b.listen(t, m, g), m, g)
			wg.Go(func() {
				err := n.Connect("exchange", to)
				if errors.Is(err, owtp.ErrTrust) {
					failed.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if failed.Load() != 1 {
			t.Errorf("%d of two nodes were refused under one name", failed.Load())
		}
	})
}
