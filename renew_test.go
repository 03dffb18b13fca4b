package owtp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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

// The tests named TestRenew are PROTOCOL §4 and §6: keys end and nobody who
// calls notices.

// tally counts the records that each connection has sealed, each way.
type tally struct {
	mu      sync.Mutex
	records map[[2]int]int // by connection and direction
}

func (c *tally) hook(f transporttest.Flow) []transport.Message {
	if typeOf(f.Message) == wire.TypeRecord {
		c.mu.Lock()
		c.records[[2]int{f.Conn, int(f.Dir)}]++
		c.mu.Unlock()
	}
	return pass(f)
}

// counts returns how many connections there were and the most that one sealed.
func (c *tally) counts() (conns, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := make(map[int]bool)
	for k, n := range c.records {
		seen[k[0]] = true
		most = max(most, n)
	}
	return len(seen), most
}

// renewTime is how long the tests of renewal call: OWTP_SOAK_RENEW, or briefly.
func renewTime(t testing.TB) time.Duration {
	text := os.Getenv("OWTP_SOAK_RENEW")
	if text == "" {
		return 1500 * time.Millisecond
	}
	d, err := time.ParseDuration(text)
	must(t, err)
	return d
}

// Renewal by count and by time, both with limits that are very low, under calls
// both ways: no call fails, no handler of the program's runs, and nothing is
// sealed past the limit.
func TestRenewUnderLoad(t *testing.T) {
	const most = 100
	for _, w := range inBothFormats([]way{{connect: owtp.Websocket, suite: "aes"}, {connect: owtp.Memory, sign: true, suite: "sm4"}}) { // one after the other: each is a load
		t.Run(w.String(), func(t *testing.T) {
			// Each round has a proxy of its own, which remembers all it sees.
			const round = 15 * time.Second
			left := renewTime(t)
			var calls, conns int64
			for ; left > 0; left -= round {
				c, n := renewRound(t, w, owtp.Limits{MaxKeyRecords: most, MaxKeyAge: renewAge(t, w)}, 64, min(left, round))
				calls, conns = calls+c, conns+n
			}
			t.Logf("%d calls both ways on %d connections", calls, conns)
		})
	}
}

// renewAge is a second in the long form, or more where calls take long just now:
// after half of it all that is in flight must end in the other half, and keys
// that are used up cut off what does not.
func renewAge(t *testing.T, w way) time.Duration {
	if os.Getenv("OWTP_SOAK_RENEW") == "" {
		return 10 * time.Second
	}
	s := newStage(t, w)
	must(t, s.host.HandleFunc("echo", echo))
	s.connect(t)
	var worst atomic.Int64
	stop := time.Now().Add(time.Second)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for time.Now().Before(stop) {
				begin := time.Now()
				answer(t, s.client, "testhost", "echo", 1)
				for took := int64(time.Since(begin)); ; {
					if old := worst.Load(); old >= took || worst.CompareAndSwap(old, took) {
						break
					}
				}
			}
		})
	}
	wg.Wait()
	age := max(time.Second, 10*time.Duration(worst.Load()))
	t.Logf("64 calls at one time take %v at most: keys live %v", time.Duration(worst.Load()), age)
	return age
}

// Renewal by age alone, of keys that are hardly used.
func TestRenewByAge(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket, suite: "sm4"}, {connect: owtp.Memory, suite: "aes"}}, func(t *testing.T, w way) {
		renewRound(t, w, owtp.Limits{MaxKeyAge: 2 * time.Second}, 4, 3300*time.Millisecond)
	})
}

func renewRound(t *testing.T, w way, limits owtp.Limits, callers int, length time.Duration) (calls, conns int64) {
	limits.MaxHandshakeRate = 10000
	most := limits.MaxKeyRecords
	var book logBook
	s := newStage(t, w, func(h, c *owtp.NodeConfig) {
		h.Limits, c.Limits, h.Logger, c.Logger = limits, limits, book.logger(), book.logger()
	})
	p := s.through(t)
	count := tally{records: make(map[[2]int]int)}
	p.OnMessage(count.hook)
	var hostLog, clientLog peerLog
	hostLog.watch(s.host)
	clientLog.watch(s.client)
	must(t, s.host.HandleFunc("echo", echo))
	must(t, s.client.HandleFunc("echo", echo))
	s.connect(t)
	var failed, done atomic.Int64
	stop := time.Now().Add(length)
	var wg sync.WaitGroup
	for i := range callers {
		from, to := s.client, "testhost"
		if i%2 == 1 {
			from, to = s.host, s.client.NodeID()
		}
		wg.Go(func() {
			for n := 0; time.Now().Before(stop); n++ {
				want := fmt.Sprintf(`"%d of %d"`, n, i)
				resp, err := from.CallContext(context.Background(), to, "echo", json.RawMessage(want), &owtp.CallOptions{Timeout: patience})
				if err != nil || !resp.OK() || resp.JsonData().Raw != want {
					if failed.Add(1) <= 5 {
						t.Errorf("call %d of caller %d: %+v, %v", n, i, resp, err)
					}
				}
				done.Add(1)
				if callers < 64 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d calls failed", n, done.Load())
		for line := range strings.Lines(book.text()) {
			if strings.Contains(line, "connection ended") && !strings.Contains(line, "closed") || strings.Contains(line, "WARN") {
				t.Log(line)
			}
		}
	}
	n, worst := count.counts()
	if most > 0 && worst > most {
		t.Errorf("%d records were sealed with one key, at most %d", worst, most)
	}
	if n < 2 {
		t.Errorf("%d connections: nothing was renewed", n)
	}
	hostOpened, hostClosed := hostLog.counts()
	clientOpened, clientClosed := clientLog.counts()
	// The first connection is open if the agreement comes later; then one peer
	// goes and another comes, and that is all however often keys are renewed.
	if hostOpened < 1 || hostOpened > 2 || clientOpened > 2 || hostClosed > 1 || clientClosed > 1 {
		t.Errorf("handlers ran: %d opened and %d closed at the host, %d and %d at the client", hostOpened, hostClosed, clientOpened, clientClosed)
	}
	must(t, s.client.Close())
	must(t, s.host.Close())
	return done.Load(), int64(n)
}

// The accepting side asks for a new connection at the moment at which it is made
// anyway: its question is not taken for the word that it has finished, and its
// call on the old connection is answered there.
func TestRenewQuestionCrossesTheRenewal(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket, suite: "sm4"}, {connect: owtp.Memory, sign: true, suite: "sm4"}}, func(t *testing.T, w way) {
		for _, ask := range []bool{true, false} {
			s := newStage(t, w)
			sl := newSleeper(t)
			must(t, s.client.HandleFunc("sleep", sl.handle))
			s.connect(t)
			eventually(t, "there is one connection", func() bool { links, _, _, _ := s.client.Held(); return links == 1 })
			done := make(chan result, 1)
			go func() {
				resp, err := s.host.CallSync(s.client.NodeID(), "sleep", nil)
				done <- result{resp, err}
			}()
			within(t, sl.began, "the handler")
			must(t, s.client.ReplaceLinks())
			if ask {
				s.host.AskForRenewal()
			}
			never(t, "the old connection has ended under a call", func() bool { return len(done)+len(sl.ended) != 0 })
			sl.wake()
			if got := within(t, done, "the answer"); got.err != nil || !got.resp.OK() {
				t.Errorf("%+v, %v", got.resp, got.err)
			}
			eventually(t, "the old connection has ended", func() bool {
				links, _, _, _ := s.client.Held()
				other, _, _, _ := s.host.Held()
				return links == 1 && other == 1
			})
		}
	})
}

// Sessions over HTTP and over queues end by age and are agreed anew in time, under
// calls: none fails, and callers share one agreement.
func TestRenewExchangeSession(t *testing.T) {
	eachWay(t, []way{{connect: owtp.HTTP, suite: "sm4"}, {connect: owtp.HTTP, sign: true, suite: "aes"}, {connect: owtp.MQ, suite: "aes"}, {connect: owtp.MQ, sign: true, suite: "sm4"}}, func(t *testing.T, w way) {
		life := time.Second
		if os.Getenv("OWTP_SOAK_RENEW") != "" {
			life = renewAge(t, w) // an eighth of it is what a call has to arrive
		}
		s := newStage(t, w, hostLimits(owtp.Limits{SessionLifetime: life, MaxHandshakeRate: 10000}))
		p := s.through(t)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		var failed, done atomic.Int64
		length := 2*time.Second + renewTime(t)/2
		begin := time.Now()
		var wg sync.WaitGroup
		for range 16 { // as many as the proxy's pool
			wg.Go(func() {
				for time.Since(begin) < length {
					resp, err := s.client.CallContext(context.Background(), "testhost", "echo", 1, nil)
					if err != nil || !resp.OK() {
						if failed.Add(1) <= 5 {
							t.Errorf("%+v, %v", resp, err)
						}
					}
					done.Add(1)
				}
			})
		}
		wg.Wait()
		if failed.Load() > 0 {
			t.Errorf("%d of %d calls failed", failed.Load(), done.Load())
		}
		// A session is used for 7/8 of its life: one agreement for each, some
		// for a slow machine, and not one for each caller.
		agreed, want := hellos(p), int(length/(life*7/8))
		if agreed < 2 || agreed > 3*want+4 {
			t.Errorf("%d hellos in %v", agreed, time.Since(begin))
		}
		if _, _, held, _ := s.host.Held(); held > 16 {
			t.Errorf("%d sessions of one peer are held", held)
		}
		t.Logf("%d calls, %d agreements", done.Load(), agreed)
	})
}

// Many callers find at one moment that their session is gone: they agree anew
// once, and do not end each other's.
func TestRenewSessionLostByTheServer(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, _ guard) {
		s := newStage(t, way{connect: m.name, suite: "sm4"})
		p := transporttest.NewProxy(t, m.tr, roomy(m.listenAddr()), roomy(s.listen.Address))
		s.dial.Address = p.Addr()
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		for range 5 {
			answer(t, s.client, "testhost", "echo", 1)
			before := hellos(p)
			s.host.ForgetSessions()
			var wg sync.WaitGroup
			for range 64 {
				wg.Go(func() {
					if resp, err := s.client.CallContext(context.Background(), "testhost", "echo", 1, nil); err != nil || !resp.OK() {
						t.Errorf("%+v, %v", resp, err)
					}
				})
			}
			wg.Wait()
			if n := hellos(p) - before; n < 1 || n > 3 {
				t.Errorf("64 callers made %d agreements", n)
			}
		}
	})
}

// What KeyAgreement demands of a name outlives connections and the server's
// restarts, until ClosePeer.
func TestRenewDemandsSurviveReconnects(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket, suite: "sm4"}, {connect: owtp.Memory, suite: "sm4"}, {connect: owtp.HTTP, suite: "sm4"}, {connect: owtp.MQ, suite: "sm4"}}, func(t *testing.T, w way) {
		s := newStage(t, w, func(_, c *owtp.NodeConfig) { c.Limits.MaxReconnectDelay = 20 * time.Millisecond })
		p := s.through(t)
		sealedCalls := make(chan bool, 64)
		must(t, s.host.HandleFunc("sealed", func(c *owtp.Context) { sealedCalls <- c.Peer.EnableKeyAgreement() }))
		s.connect(t)
		readable := func() (n int) {
			for _, f := range p.Recorded() {
				if f.Dir == transporttest.ToServer && strings.Contains(string(f.Message.Data), "sealed") {
					n++
				}
			}
			return n
		}
		for range 3 {
			p.CutAll()
			eventually(t, "a call works again", func() bool { // one may go out before the cut is noticed
				_, err := s.client.CallSync("testhost", "sealed", nil)
				return err == nil
			})
			if !<-sealedCalls || readable() != 0 {
				t.Error("after a cut a call went out unsealed")
			}
		}
		s.client.ClosePeer("testhost")
		must(t, s.client.ForgetPeer(background(t), "testhost"))
		must(t, s.client.Connect("testhost", s.dial))
		answer(t, s.client, "testhost", "sealed", nil)
		if <-sealedCalls || readable() == 0 {
			t.Error("ClosePeer has not ended the demand, or the test does not see what is readable")
		}
	})
}

// clockStage is a server and a caller that meet in signed or sealed exchanges and
// whose clocks the test moves, and the caller's log.
type clockStage struct {
	*cutRig
	client, server movable
	book           *logBook
}

// newClockStage makes one whose server has its state in a store, nil being one of
// its own.
func newClockStage(t *testing.T, m medium, g guard, store session.Provider) *clockStage {
	t.Helper()
	c := &clockStage{cutRig: &cutRig{rig: &rig{t: t, m: m, g: g}}, book: new(logBook)}
	c.bank = newBankAt(t, owtp.NodeConfig{Store: store}, c.server.now)
	c.rig.client = newNodeAt(t, owtp.NodeConfig{Logger: c.book.logger()}, c.client.now)
	c.through(c.bank.listen(t, m, g))
	return c
}

// tooLate fails unless a call was refused because its packet was too old. On a
// queue that is what a clock that is behind looks like: the packet may have lain
// there, and nobody corrects himself for that.
func (c *clockStage) tooLate(token string) {
	c.t.Helper()
	resp, err := c.rig.client.CallContext(context.Background(), "bank", "pay", payParams(token), &owtp.CallOptions{Timeout: patience})
	if err != nil || resp.Status != owtp.ErrRequestTimeout || !strings.Contains(resp.Msg, "check both clocks") {
		c.t.Errorf("a call that is too late: %+v, %v", resp, err)
	}
}

// requestsOf counts the requests that f makes, hellos left out.
func (r *rig) requestsOf(f func()) int {
	before := len(r.requests())
	f()
	return len(r.requests()) - before
}

// A caller whose clock is wrong is told so once, corrects itself for that peer,
// and logs it.
func TestRenewClockRepair(t *testing.T) {
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		for _, off := range []time.Duration{10 * time.Minute, -10 * time.Minute, 23 * time.Hour} {
			t.Run(off.String(), func(t *testing.T) {
				t.Parallel()
				c := newClockStage(t, m, g, nil)
				c.client.move(off)
				if m == overMQ && off < 0 {
					if n := c.requestsOf(func() { c.tooLate("a") }); n != 1 {
						t.Errorf("%d requests for a call that is too late", n)
					}
					c.bank.ran(t, 0)
					c.client.move(-off)
					c.mustPay("b")
					c.bank.ran(t, 1)
					return
				}
				if n := c.requestsOf(func() { c.mustPay("a") }); n != 2 {
					t.Errorf("%d requests for the first call", n)
				}
				if n := c.requestsOf(func() { c.mustPay("b") }); n != 1 {
					t.Errorf("%d requests for the second call: the correction was forgotten", n)
				}
				if n := strings.Count(c.book.text(), "clocks differ by"); n != 1 {
					t.Errorf("it was logged %d times", n)
				}
				c.bank.ran(t, 2)
				// The clock is set right: repaired again, and on a queue with the
				// call after the one that is too late for its correction.
				c.client.move(-off)
				if m == overMQ {
					c.tooLate("late")
				}
				c.mustPay("c")
				c.bank.ran(t, 3)
			})
		}
	})
}

// No peer talks a caller into another day: beyond the bound the refusal stands.
func TestRenewClockRepairIsBounded(t *testing.T) {
	each(t, exchangeMedia, []guard{inSigned}, func(t *testing.T, m medium, g guard) {
		for _, off := range []time.Duration{25 * time.Hour, -25 * time.Hour} {
			c := newClockStage(t, m, g, nil)
			c.client.move(off)
			want := uint64(owtp.ErrReplayAttack)
			if m == overMQ && off < 0 {
				want = owtp.ErrRequestTimeout // it may have lain in the queue
			}
			n := c.requestsOf(func() {
				resp, err := c.rig.client.CallContext(context.Background(), "bank", "pay", payParams("a"), nil)
				if err != nil || resp.Status != want {
					t.Errorf("%+v, %v", resp, err)
				}
			})
			if n != 1 || strings.Contains(c.book.text(), "corrected") {
				t.Errorf("%d requests; the log: %s", n, c.book.text())
			}
			c.bank.ran(t, 0)
		}
	})
}

// A peer whose clock jumps all the time is not followed without end: once a call.
func TestRenewClockRepairOnceACall(t *testing.T) {
	each(t, exchangeMedia, []guard{inSigned}, func(t *testing.T, m medium, g guard) {
		jump := time.Hour
		if m == overMQ {
			jump = -jump // only the future is corrected for
		}
		c := newClockStage(t, m, g, sharedStore(t)) // or each step back would begin an epoch
		c.onCall(func(f transporttest.Flow) []transport.Message {
			if f.Dir == transporttest.ToServer {
				c.server.move(jump)
			}
			return pass(f)
		})
		n := c.requestsOf(func() {
			// The first packet was ahead of the peer's clock and may become fresh, so
			// the outcome is not known.
			result{resp: nil, err: callOnly(c.rig.client)}.unknown(t)
		})
		if n != 2 {
			t.Errorf("%d requests", n)
		}
		c.bank.ran(t, 0)
	})
}

func callOnly(n *owtp.OWTPNode) error {
	resp, err := n.CallContext(context.Background(), "bank", "pay", payParams("a"), nil)
	if err == nil {
		err = resp.Err()
	}
	return err
}

// The window's edges: exactly as far as configured is fresh, one millisecond
// more is not, on both sides. What comes out of a queue may be as old as its
// caller waits, too, and is then refused and not repaired.
func TestRenewWindowEdges(t *testing.T) {
	const window = 7 * time.Second
	const brief, most = window / 2, window + 3*time.Second // what calls wait
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, edge := range []struct {
		off    time.Duration
		wait   time.Duration // the call's own time
		http   int           // requests until it has run
		queues int           // the same, or 0 if it never does
	}{
		{window, brief, 1, 1}, {-window, brief, 1, 1}, {0, brief, 1, 1},
		{window + time.Millisecond, brief, 2, 2}, {-window - time.Millisecond, brief, 2, 0},
		{-window - time.Second, most, 2, 1}, {-most - time.Millisecond, most, 2, 0}, {most, most, 2, 2},
	} {
		each(t, exchangeMedia, []guard{inSigned}, func(t *testing.T, m medium, g guard) {
			r := &cutRig{rig: &rig{t: t, m: m, g: g}}
			off := new(movable) // over a queue Connect sends a packet, which has a time
			r.bank = newBankAt(t, owtp.NodeConfig{Window: window}, func() time.Time { return noon })
			r.client = newNodeAt(t, owtp.NodeConfig{}, func() time.Time { return noon.Add(time.Duration(off.by.Load())) })
			r.through(r.bank.listen(t, m, g))
			off.move(edge.off)
			want := edge.http
			if m == overMQ {
				want = edge.queues
			}
			n := r.requestsOf(func() {
				if ok, err := r.pay("a", edge.wait); ok != (want > 0) {
					t.Errorf("%v off, a call of %v: %v, %v", edge.off, edge.wait, ok, err)
				}
			})
			if n != max(want, 1) {
				t.Errorf("%v off: %d requests, want %d", edge.off, n, want)
			}
			r.bank.ran(t, int64(min(want, 1)))
		})
	}
}

// The receiver's clock is set back: what it has seen would look fresh again when
// its records have gone, so it begins a new epoch, once. Saved packets are
// refused and honest calls go on.
func TestRenewReceiverSetBack(t *testing.T) {
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		c := newClockStage(t, m, g, nil)
		c.mustPay("a")
		fresh := c.withhold("fresh")
		saved := append(c.toServer(), fresh)
		ctx := short(t)
		before, err := c.bank.StoreEpoch(ctx)
		must(t, err)
		c.server.move(-owtp.ClockSlack / 2)
		if now, _ := c.bank.StoreEpoch(ctx); now != before {
			t.Error("a step within the slack has begun a new epoch")
		}
		c.server.move(-time.Minute)
		c.mustPay("b")
		now, err := c.bank.StoreEpoch(ctx)
		if must(t, err); now == before {
			t.Fatal("the clock was set back by a minute, and the epoch is the same")
		}
		ran := c.bank.runs.Load()
		deliver(t, m, c.bank.ListenerAddr(m.name), saved)
		c.bank.ran(t, ran)
		for i := range 3 {
			c.mustPay(fmt.Sprint("after ", i))
		}
		c.bank.ran(t, ran+3)
		if again, _ := c.bank.StoreEpoch(ctx); again != now {
			t.Error("one step has begun two epochs")
		}
		// Forward again, in steps as large: nothing that is valid dies.
		c.server.move(time.Minute)
		if m == overMQ {
			c.tooLate("forward") // by as much as its caller has corrected itself
		}
		c.mustPay("forward")
		if again, _ := c.bank.StoreEpoch(ctx); again != now {
			t.Error("a step forward has begun an epoch")
		}
	})
}

// A call that may have run stays one when the receiver's clock is set back
// between its attempts.
func TestRenewReceiverSetBackBetweenAttempts(t *testing.T) {
	each(t, exchangeMedia, []guard{inSigned}, func(t *testing.T, m medium, g guard) {
		for _, repeatable := range []bool{false, true} {
			c := newClockStage(t, m, g, nil)
			c.mustPay("warm")
			lost := false
			c.onCall(func(f transporttest.Flow) []transport.Message {
				if f.Dir == transporttest.ToServer || lost {
					return pass(f)
				}
				lost = true
				c.server.move(-time.Minute)
				c.cut()
				return nil
			})
			got := within(t, c.start("pay", payParams("a"), &owtp.CallOptions{Repeatable: repeatable, Timeout: patience}), "the outcome")
			if !repeatable {
				got.unknown(t)
			} else if got.err != nil || !got.resp.OK() {
				t.Errorf("%+v, %v", got.resp, got.err)
			}
			c.bank.ran(t, 2) // the record is still there, although the epoch is another one
		}
	})
}

// Where replicas share a store, the clock of one of them is no reason to throw
// away what all of them know.
func TestRenewSharedStoreKeepsItsEpoch(t *testing.T) {
	each(t, exchangeMedia, []guard{inSigned}, func(t *testing.T, m medium, g guard) {
		x := newReplicas(t, m, g)
		ctx := short(t)
		before, err := x.bank.StoreEpoch(ctx)
		must(t, err)
		x.clock.move(-time.Hour)
		for _, b := range []*bank{x.bank, x.other} {
			if now, err := b.StoreEpoch(ctx); err != nil || now != before {
				t.Errorf("another epoch, or %v", err)
			}
		}
		x.mustPay("a")
	})
}

// A store that fails while the epoch is replaced: calls are refused until it
// can, and never run in the old one.
func TestRenewStoreFailsWhileSetBack(t *testing.T) {
	each(t, exchangeMedia, []guard{inSigned}, func(t *testing.T, m medium, g guard) {
		store := &private{mortal{Provider: newMemory(t, memory.Options{})}}
		c := newClockStage(t, m, g, store)
		c.mustPay("a")
		before, err := c.bank.StoreEpoch(short(t))
		must(t, err)
		store.dead.Store(true)
		c.server.move(-time.Minute)
		for range 3 {
			if ok, err := c.pay("b", time.Second); ok {
				t.Error("a call ran in the old epoch")
			} else if e := new(owtp.Error); !errors.As(err, &e) || e.Proved {
				t.Errorf("%v", err)
			}
		}
		c.bank.ran(t, 1)
		store.dead.Store(false)
		waitFor(t, "calls work again", func() bool { ok, _ := c.pay("c", time.Second); return ok })
		if now, err := c.bank.StoreEpoch(short(t)); err != nil || now == before {
			t.Errorf("the epoch was not replaced (%v)", err)
		}
	})
}

// private is a mortal store that nobody else shares.
type private struct{ mortal }

func (p *private) Traits() session.Traits { return p.Provider.Traits() }
