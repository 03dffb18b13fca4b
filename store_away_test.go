package owtp_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

// hasty are limits under which a store that does not answer is given up soon,
// and what it could not be told is tried again soon.
func hasty() owtp.Limits {
	l := quick
	l.StoreTimeout, l.Heartbeat = 50*time.Millisecond, 400*time.Millisecond
	return l
}

func (c *cluster) toldAll() {
	c.t.Helper()
	eventually(c.t, "the store has been told everything", func() bool {
		for _, b := range c.banks {
			if b.Postponed() != 0 {
				return false
			}
		}
		return true
	})
}

// soon fails if something that nobody works for was waited for until the lease
// ended.
func soon(t *testing.T, begin time.Time) {
	t.Helper()
	if d := time.Since(begin); d > owtp.RecordLease/2 {
		t.Errorf("it took %v", d)
	}
}

// The answer to the first write of a call's record is lost: the record is there,
// or comes later, or never, and nobody runs the call. Its caller may come again,
// and it runs once.
func TestStoreRecordUnheard(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		for what, set := range map[string]func(s *shared, is func(op, key string) bool){
			"there": func(s *shared, is func(op, key string) bool) { s.lose = is },
			"late":  func(s *shared, is func(op, key string) bool) { s.late = is },
			"never": func(s *shared, is func(op, key string) bool) { s.never = is },
		} {
			for _, again := range []string{"at once", "after the record was mended"} {
				t.Run(what+"/"+again, func(t *testing.T) {
					c := newCluster(t, m, g, clusterLimits(hasty()))
					c.mustPay("warm")
					c.lb.one(1)
					s := c.stores[1]
					s.mu.Lock()
					set(s, once("insert", isCall))
					s.mu.Unlock()
					opts := &owtp.CallOptions{CallKey: callKey, Timeout: patience}
					_, err := c.pay("a", opts)
					if e := wantStatus(t, err, owtp.ErrDenialOfService); !e.MayHaveRun {
						t.Errorf("the caller is told that it has not run: %v", e)
					}
					sent := c.lb.requests(noHello)
					if again != "at once" {
						c.toldAll()
						s.writing.Wait()
					}
					c.lb.one(2)
					begin := time.Now()
					if ok, err := c.pay("a", opts); !ok {
						t.Error(err)
					}
					soon(t, begin)
					c.mustHaveRun(2)
					c.toldAll()
					s.writing.Wait()
					for _, to := range c.lb.to { // the packet that was refused
						if _, err := to.Exchange(background(t), sent[len(sent)-1]); err != nil {
							t.Error(err)
						}
					}
					c.mustHaveRun(2)
				})
			}
		}
	})
}

// The same for a call that was refused before and is claimed by a further
// attempt.
func TestStoreClaimUnheard(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		c := newCluster(t, m, g, clusterLimits(hasty()))
		c.mustPay("warm")
		c.lb.one(1)
		opts := &owtp.CallOptions{CallKey: callKey, Timeout: patience}
		c.stores[1].hook(nil, once("insert", isCall))
		_, err := c.pay("a", opts)
		wantStatus(t, err, owtp.ErrDenialOfService)
		c.toldAll() // it is free
		var swaps atomic.Int64
		c.stores[1].hook(nil, func(op, key string) bool {
			return op == "swap" && isCall(key) && swaps.Add(1) == 2 // the first lists the attempt
		})
		_, err = c.pay("a", opts)
		wantStatus(t, err, owtp.ErrDenialOfService)
		c.mustHaveRun(1)
		c.lb.one(2)
		begin := time.Now()
		if ok, err := c.pay("a", opts); !ok {
			t.Error(err)
		}
		soon(t, begin)
		c.mustHaveRun(2)
	})
}

// The store goes away while a handler runs. Its caller gets the answer, and who
// has lost it gets the same one once the store is back, at any replica.
func TestStoreOutcomeIsKept(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		c := newCluster(t, m, g, clusterLimits(hasty()))
		c.mustPay("warm")
		var runs atomic.Int64
		for _, b := range c.banks {
			must(t, b.HandleFunc("once", func(ctx *owtp.Context) {
				for _, s := range c.stores {
					s.pause()
				}
				ctx.Response(runs.Add(1), 0, "")
			}))
		}
		call := func() (int64, error) {
			resp, err := c.client.CallContext(context.Background(), "bank", "once", nil, &owtp.CallOptions{CallKey: callKey, Timeout: patience})
			if err == nil {
				err = resp.Err()
			}
			if err != nil {
				return 0, err
			}
			return resp.JsonData().Int(), nil
		}
		if n, err := call(); err != nil || n != 1 {
			t.Fatalf("the answer is %d, %v", n, err)
		}
		_, err := call()
		if e := wantStatus(t, err, owtp.ErrDenialOfService); !e.MayHaveRun {
			t.Errorf("the caller is told that it has not run: %v", e)
		}
		for _, s := range c.stores {
			s.resume()
		}
		for i := range c.banks {
			c.lb.one(i)
			begin := time.Now()
			eventually(t, "the replica has noticed that the store is back", func() bool {
				n, err := call()
				if err == nil && n != 1 {
					t.Errorf("the answer is %d", n)
				}
				return err == nil
			})
			soon(t, begin)
		}
		if runs.Load() != 1 {
			t.Errorf("it has run %d times", runs.Load())
		}
	})
}

// A store that does not answer: what needs it gets 503, what does not need it
// goes on, nothing runs unrecorded, and no restart is needed afterwards.
func TestStoreAway(t *testing.T) {
	s := &shared{Provider: newMemory(t, memory.Options{})}
	m, err := session.ManagerOf(s, &session.ManagerConfig{StoreTimeout: 50 * time.Millisecond})
	must(t, err)
	t.Cleanup(func() { m.Close() })
	b := newBank(t, owtp.NodeConfig{Peerstore: &owtp.SessionManager{Manager: m}, Limits: hasty()})
	addrs := make(map[string]string)
	for _, m := range []medium{overHTTP, overWS, overMQ} {
		addrs[m.name] = b.listen(t, m, inOpen)
	}
	connect := func(m medium, g guard) *owtp.OWTPNode {
		n := newNode(t, owtp.NodeConfig{})
		must(t, n.Connect("bank", b.at(addrs[m.name], m, g)))
		return n
	}
	open, long := connect(overHTTP, inOpen), connect(overWS, inSealed)
	recorded := []*owtp.OWTPNode{ // open ones out of a queue, too, since a broker delivers again
		connect(overHTTP, inSigned), connect(overHTTP, inSealed),
		connect(overMQ, inOpen), connect(overMQ, inSigned), connect(overMQ, inSealed),
	}
	call := func(n *owtp.OWTPNode, method string, key []byte) error {
		resp, err := n.CallContext(context.Background(), "bank", method, map[string]string{"token": "a", "secret": "s"}, &owtp.CallOptions{Timeout: patience, CallKey: key})
		if err != nil {
			return err
		}
		return resp.Err()
	}
	for _, n := range append(recorded, open, long) {
		must(t, call(n, "pay", nil))
	}
	refused := func(err error) {
		if owtp.StatusOf(err) != owtp.ErrDenialOfService {
			t.Errorf("error %v, want one with status %d", err, owtp.ErrDenialOfService)
		}
	}
	ran := b.runs.Load()
	s.pause()
	var wg sync.WaitGroup
	for i := range 40 {
		for _, n := range recorded {
			wg.Go(func() { refused(call(n, "pay", nil)) })
		}
		wg.Go(func() { refused(call(long, "pay", fmt.Appendf(nil, "0123456789abcd%02d", i))) })
	}
	wg.Wait()
	b.ran(t, ran)
	for range 20 {
		must(t, call(open, "pay", nil))
		must(t, call(long, "pay", nil))
	}
	b.ran(t, ran+40)
	wantStatus(t, call(long, "keep", nil), owtp.ErrCustomError) // SetSession says so
	s.resume()
	for _, n := range recorded {
		eventually(t, "calls are recorded again", func() bool { return call(n, "pay", nil) == nil })
	}
	must(t, call(long, "keep", nil))
	must(t, call(long, "pay", callKey))
	eventually(t, "the store has been told everything", func() bool { return b.Postponed() == 0 })
}

// Peers that hang up in the middle of a write leave no record behind that nobody
// runs, and do not make the store count as away.
func TestStoreCallersHangUp(t *testing.T) {
	each(t, exchangeMedia, []guard{inSealed}, func(t *testing.T, m medium, g guard) {
		limits := quick
		limits.StoreTimeout = time.Second
		c := newCluster(t, m, g, clusterLimits(limits))
		c.mustPay("warm")
		c.lb.one(1)
		var hangUp atomic.Pointer[context.CancelFunc]
		c.stores[1].hook(func(op, key string) {
			if f := hangUp.Load(); f != nil && op == "insert" && isCall(key) {
				(*f)()
				time.Sleep(20 * time.Millisecond) // until the server has noticed
			}
		}, nil)
		for i := range 8 {
			ctx, cancel := context.WithCancel(context.Background())
			hangUp.Store(&cancel)
			key := fmt.Appendf(nil, "0123456789abcde%d", i)
			_, err := c.client.CallContext(ctx, "bank", "pay", payParams("a"), &owtp.CallOptions{CallKey: key})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("call %d: %v", i, err)
			}
			hangUp.Store(nil)
			before := c.ran()
			begin := time.Now()
			if ok, err := c.pay("a", &owtp.CallOptions{CallKey: key, Timeout: patience}); !ok {
				t.Errorf("call %d: %v", i, err)
			}
			soon(t, begin)
			if n := c.ran() - before; n > 1 {
				t.Errorf("it has run %d times", n)
			}
		}
		c.mustHaveRun(9)
	})
}
