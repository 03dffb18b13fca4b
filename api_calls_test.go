package owtp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
)

// outcomes counts how often a callback ran.
type outcomes struct {
	n    atomic.Int64
	resp chan owtp.Response
}

func newOutcomes() *outcomes { return &outcomes{resp: make(chan owtp.Response, 16)} }

func (o *outcomes) callback(r owtp.Response) {
	o.n.Add(1)
	o.resp <- r
}

// once waits for the one outcome, which must have the status.
func (o *outcomes) once(t *testing.T, statuses ...uint64) {
	t.Helper()
	r := within(t, o.resp, "the callback")
	found := false
	for _, s := range statuses {
		found = found || r.Status == s
	}
	if !found {
		t.Errorf("status %d %q, want one of %v", r.Status, r.Msg, statuses)
	}
	never(t, "the callback ran twice", func() bool { return o.n.Load() != 1 })
}

func TestCallAnswersEveryFailureOnce(t *testing.T) {
	short := func(_, c *owtp.NodeConfig) { c.TimeoutSEC = 1 }
	for _, c := range []struct {
		name     string
		setups   []setup
		fail     func(s *stage)
		statuses []uint64
	}{
		{"timeout", []setup{short}, func(*stage) {}, []uint64{owtp.ErrRequestTimeout}},
		{"the peer dies", nil, func(s *stage) { s.host.Close() }, []uint64{owtp.ErrNetworkDisconnected, owtp.StatusSuccess}},
		{"the node closes", nil, func(s *stage) { s.client.Close() }, []uint64{owtp.ErrNetworkDisconnected}},
		{"the peer is closed", nil, func(s *stage) { s.client.ClosePeer("testhost") }, []uint64{owtp.ErrNetworkDisconnected, owtp.StatusSuccess}},
	} {
		for _, w := range inBothFormats(someWays()) {
			t.Run(c.name+"/"+w.String(), func(t *testing.T) {
				t.Parallel()
				c := c
				if w.connect == owtp.MQ && c.name == "the peer dies" {
					// A queue does not tell; the call waits for its deadline.
					c.setups = []setup{func(_, c *owtp.NodeConfig) { c.TimeoutSEC = 2 }}
					c.statuses = []uint64{owtp.ErrRequestTimeout, owtp.ErrOutcomeUnknown, owtp.StatusSuccess}
				}
				s := newStage(t, w, c.setups...)
				sl := newSleeper(t)
				sl.stubborn = c.name == "timeout"
				must(t, s.host.HandleFunc("sleep", sl.handle))
				s.connect(t)
				o := newOutcomes()
				must(t, s.client.Call("testhost", "sleep", nil, false, o.callback))
				within(t, sl.began, "the handler")
				c.fail(s)
				if strings.HasSuffix(c.name, "is closed") {
					sl.wake() // over HTTP what runs is left to its end
				}
				o.once(t, c.statuses...)
			})
		}
	}
}

func TestCallErrorMeansNothingSent(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		s.connect(t)
		callback := func(owtp.Response) { t.Error("the callback ran after an error") }
		e := wantStatus(t, s.client.Call("nobody", "m", nil, true, callback), owtp.ErrNetworkDisconnected)
		if !errors.Is(e, owtp.ErrUnknownPeer) || e.MayHaveRun || e.Method != "m" || e.PeerID != "nobody" {
			t.Errorf("error %#v", e)
		}
		for _, method := range []string{"", strings.Repeat("m", 129), "bad\x00name", "\xff"} {
			wantStatus(t, s.client.Call("testhost", method, nil, true, callback), owtp.ErrBadRequest)
		}
		wantStatus(t, s.client.Call("testhost", "m", func() {}, true, callback), owtp.ErrBadRequest)
		wantStatus(t, s.client.Call("testhost", "m", json.RawMessage(`{"a":1,"a":2}`), true, callback), owtp.ErrBadRequest)
		wantStatus(t, s.client.Call("testhost", "m", strings.Repeat("x", 5<<20), true, callback), owtp.ErrTooLarge)
		s.client.ClosePeer("testhost")
		if err := s.client.Call("testhost", "m", nil, true, callback); !errors.Is(err, owtp.ErrUnknownPeer) {
			t.Errorf("after ClosePeer: %v", err)
		}
		must(t, s.client.Close())
		if err := s.client.Call("testhost", "m", nil, true, callback); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// A peer that has only called over HTTP is nobody who could be called.
func TestCallToHTTPCallerIsAnError(t *testing.T) {
	s := newStage(t, way{connect: owtp.HTTP, sign: true})
	var pid atomic.Value
	must(t, s.host.HandleFunc("hello", func(ctx *owtp.Context) { pid.Store(ctx.PID) }))
	s.connect(t)
	answer(t, s.client, "testhost", "hello", nil)
	err := s.host.Call(pid.Load().(string), "m", nil, true, func(owtp.Response) { t.Error("callback") })
	if !errors.Is(err, owtp.ErrUnknownPeer) || s.host.IsConnectPeer(pid.Load().(string)) {
		t.Errorf("error %v", err)
	}
	s.host.ClosePeer(pid.Load().(string)) // does nothing
	answer(t, s.client, "testhost", "hello", nil)
}

func TestCallSyncWaitsAndAsyncDoesNot(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		sl := newSleeper(t)
		must(t, s.host.HandleFunc("sleep", sl.handle))
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		o := newOutcomes()
		must(t, s.client.Call("testhost", "sleep", nil, false, o.callback)) // returns while the handler sleeps
		within(t, sl.began, "the handler")
		ran := false
		must(t, s.client.Call("testhost", "echo", 1, true, func(owtp.Response) { ran = true }))
		if !ran {
			t.Error("a sync call returned before its callback")
		}
		must(t, s.client.Call("testhost", "echo", 1, true, nil))
		must(t, s.client.Call("testhost", "echo", 1, false, nil))
		sl.wake()
		o.once(t, owtp.StatusSuccess)
	})
}

func TestCallbacksAndHandlersMayCall(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		var depth func(n int) string
		depth = func(n int) (got string) {
			must(t, s.client.Call("testhost", "echo", n, true, func(r owtp.Response) {
				if got = r.JsonData().Raw; n > 0 {
					got += depth(n - 1)
				}
			}))
			return got
		}
		if got := depth(4); got != "43210" {
			t.Errorf("nested calls gave %q", got)
		}
		if !w.callsBack() {
			return
		}
		// Ping-pong through handlers of both sides.
		bounce := func(ctx *owtp.Context) {
			n := ctx.Params().Int()
			if n == 0 {
				ctx.Response("end", 200, "")
				return
			}
			r, err := ctx.Node().CallContext(ctx.Context(), ctx.PID, "bounce", n-1, nil)
			if err != nil {
				ctx.Response(nil, owtp.StatusOf(err), err.Error())
				return
			}
			ctx.Response(r.Result, r.Status, r.Msg)
		}
		must(t, s.host.HandleFunc("bounce", bounce))
		must(t, s.client.HandleFunc("bounce", bounce))
		if r := answer(t, s.client, "testhost", "bounce", 20); r.JsonData().String() != "end" {
			t.Errorf("ping-pong: %+v", r)
		}
	})
}

// Two nodes that call each other without end stop at the limit instead of
// waiting for each other.
func TestNestedCallsOverTheLimitGet429(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket, suite: "aes"}, {connect: owtp.Memory, suite: "aes"}}, func(t *testing.T, w way) {
		limit := owtp.Limits{MaxRequestsPerPeer: 3}
		s := newStage(t, w, func(h, c *owtp.NodeConfig) { h.Limits, c.Limits = limit, limit })
		deeper := func(ctx *owtp.Context) {
			r, err := ctx.Node().CallContext(ctx.Context(), ctx.PID, "deeper", nil, nil)
			if err != nil {
				ctx.Response(nil, owtp.StatusOf(err), err.Error())
				return
			}
			ctx.Response(nil, r.Status, r.Msg)
		}
		must(t, s.host.HandleFunc("deeper", deeper))
		must(t, s.client.HandleFunc("deeper", deeper))
		s.connect(t)
		if r := answer(t, s.client, "testhost", "deeper", nil); r.Status != owtp.ErrTooManyRequests {
			t.Errorf("status %d %q", r.Status, r.Msg)
		}
	})
}

func TestOverTheLimitGets429AndRecovers(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w, hostLimits(owtp.Limits{MaxRequestsPerPeer: 2}))
		sl := newSleeper(t)
		must(t, s.host.HandleFunc("sleep", sl.handle))
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		o := newOutcomes()
		for range 2 {
			must(t, s.client.Call("testhost", "sleep", nil, false, o.callback))
			within(t, sl.began, "the handler")
		}
		if r := answer(t, s.client, "testhost", "echo", 1); r.Status != owtp.ErrTooManyRequests {
			t.Errorf("status %d %q", r.Status, r.Msg)
		}
		sl.wake()
		within(t, o.resp, "the first answer")
		within(t, o.resp, "the second answer")
		eventually(t, "a call passes again", func() bool {
			return answer(t, s.client, "testhost", "echo", 1).OK()
		})
	})
}

func TestSlowHandlerDelaysNobody(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		sl := newSleeper(t)
		must(t, s.host.HandleFunc("sleep", sl.handle))
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		o := newOutcomes()
		for range 20 {
			must(t, s.client.Call("testhost", "sleep", nil, false, o.callback))
		}
		for range 20 {
			within(t, sl.began, "the handler")
			answer(t, s.client, "testhost", "echo", 1)
		}
		if o.n.Load() != 0 {
			t.Error("a sleeping handler has answered")
		}
		sl.wake()
		for range 20 {
			within(t, o.resp, "the sleepers' answers")
		}
	})
}

func TestThousandCallsOnOneConnection(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket}, {connect: owtp.Websocket, suite: "aes"}, {connect: owtp.Memory, suite: "sm4"}, {connect: owtp.HTTP, suite: "aes"}, {connect: owtp.MQ, suite: "sm4"}}, func(t *testing.T, w way) {
		s := newStage(t, w, hostLimits(owtp.Limits{MaxRequestsPerPeer: 2000}))
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		var all sync.WaitGroup
		for i := range 1000 {
			all.Go(func() {
				r, err := s.client.CallSync("testhost", "echo", i)
				if err != nil || r.JsonData().Raw != fmt.Sprint(i) {
					t.Errorf("call %d: %v %v", i, r, err)
				}
			})
		}
		all.Wait()
		if n := len(s.host.OnlinePeers()); !w.exchanges() && n != 1 {
			t.Errorf("%d peers online, want 1", n)
		}
	})
}

func TestCancelEndsTheHandlerAcrossTheWire(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		sl := newSleeper(t)
		must(t, s.host.HandleFunc("sleep", sl.handle))
		s.connect(t)
		ctx, cancel := context.WithCancel(context.Background())
		failed := make(chan error, 1)
		go func() {
			_, err := s.client.CallContext(ctx, "testhost", "sleep", nil, nil)
			failed <- err
		}()
		within(t, sl.began, "the handler")
		cancel()
		err := within(t, failed, "the call's end")
		e := wantStatus(t, err, owtp.ErrRequestTimeout)
		if !errors.Is(err, context.Canceled) || !e.MayHaveRun || e.Proved {
			t.Errorf("error %#v", e)
		}
		if err := within(t, sl.ended, "the handler's end"); !errors.Is(err, context.Canceled) {
			t.Errorf("the handler ended with %v", err)
		}
	})
}

func TestDeadlineTravels(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w, func(h, c *owtp.NodeConfig) { h.TimeoutSEC, c.TimeoutSEC = 500, 3000 })
		left := make(chan time.Duration, 1)
		must(t, s.host.HandleFunc("left", func(ctx *owtp.Context) {
			d, _ := ctx.Context().Deadline()
			left <- time.Until(d)
		}))
		s.connect(t)
		ask := func(ctx context.Context, opts *owtp.CallOptions) time.Duration {
			_, err := s.client.CallContext(ctx, "testhost", "left", nil, opts)
			must(t, err)
			return within(t, left, "the handler")
		}
		between := func(what string, got, low, high time.Duration) {
			t.Helper()
			if got <= low || got > high {
				t.Errorf("%s: the handler has %v, want more than %v and at most %v", what, got, low, high)
			}
		}
		between("node's timeout", ask(context.Background(), nil), 1000*time.Second, 3000*time.Second)
		between("option", ask(context.Background(), &owtp.CallOptions{Timeout: 100 * time.Second}), 50*time.Second, 100*time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		defer cancel()
		between("context", ask(ctx, nil), 10*time.Second, 40*time.Second)
		between("the earlier of two", ask(ctx, &owtp.CallOptions{Timeout: 90 * time.Second}), 10*time.Second, 40*time.Second)
	})
}

func TestTimeoutsToTheMillisecond(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		sl := newSleeper(t)
		sl.stubborn = true
		must(t, s.host.HandleFunc("sleep", sl.handle))
		s.connect(t)
		order := make(chan time.Duration, 3)
		var all sync.WaitGroup
		for _, d := range []time.Duration{600 * time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond} {
			all.Go(func() {
				begin := time.Now()
				_, err := s.client.CallContext(context.Background(), "testhost", "sleep", nil, &owtp.CallOptions{Timeout: d})
				order <- d
				wantStatus(t, err, owtp.ErrRequestTimeout)
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) < d {
					t.Errorf("a timeout of %v ended after %v with %v", d, time.Since(begin), err)
				}
			})
		}
		all.Wait()
		for _, want := range []time.Duration{20 * time.Millisecond, 200 * time.Millisecond, 600 * time.Millisecond} {
			if got := <-order; got != want {
				t.Errorf("the timeout of %v ended where that of %v should", got, want)
			}
		}
	})
}

func TestStatusZeroIsCarriedUnchanged(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("nothing", func(*owtp.Context) {}))
		must(t, s.host.HandleFunc("success", func(ctx *owtp.Context) { ctx.Response(nil, owtp.StatusSuccess, "") }))
		must(t, s.host.HandleFunc("mine", func(ctx *owtp.Context) { ctx.Response("r", 18446744073709551615, "m") }))
		s.connect(t)
		r := answer(t, s.client, "testhost", "nothing", nil)
		if r.Status != 0 || !r.OK() || r.Err() != nil || r.JsonData().Raw != "null" {
			t.Errorf("a handler that sets nothing answers %+v", r)
		}
		if r := answer(t, s.client, "testhost", "success", nil); r.Status != 200 || !r.OK() {
			t.Errorf("200 arrives as %+v", r)
		}
		if r := answer(t, s.client, "testhost", "mine", nil); r.Status != 18446744073709551615 || r.OK() || r.Msg != "m" || r.JsonData().String() != "r" {
			t.Errorf("the largest status arrives as %+v", r)
		}
		if r := answer(t, s.client, "testhost", "absent", nil); r.Status != owtp.ErrNotFoundMethod {
			t.Errorf("an absent method answers %+v", r)
		}
	})
}

// Data is octets: nobody re-encodes it on the way.
func TestDataIsCarriedUnchanged(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		if w.format == codec.NameProtobuf {
			for _, raw := range []string{
				"\x4a\x12\x0a\x07\x0a\x01b\x12\x02\x18\x00\x0a\x07\x0a\x01a\x12\x02\x18\x01",             // a map in its writer's order
				"\x29\x00\x00\x00\x00\x00\x00\x00\x80", "\x32\x00", "\x08\x00", "\x52\x08\x0a\x06no.one", // -0, no text, null, a message that nobody knows
			} {
				r := answer(t, s.client, "testhost", "echo", codec.Raw{Format: w.format, Data: []byte(raw)})
				if got, ok := r.Result.(codec.Raw); !ok || string(got.Data) != raw {
					t.Errorf("%x came back as %v", raw, r.Result)
				}
			}
			return
		}
		for _, raw := range []string{
			`{"b":1.0,"a":1e2, "n":123456789012345678901234567890}`, `"\u00e9é\/"`, `[ ]`, `-0`, `null`, `true`, `{"deep":[[[{}]]]}`,
		} {
			if r := answer(t, s.client, "testhost", "echo", json.RawMessage(raw)); string(r.Result.(json.RawMessage)) != raw {
				t.Errorf("%s came back as %s", raw, r.Result)
			}
		}
	})
}

func TestMetaTravels(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("meta", func(ctx *owtp.Context) {
			ctx.Response([]string{ctx.Meta("tenant"), ctx.Meta("absent"), ctx.Trace()}, 200, "")
		}))
		s.connect(t)
		r, err := s.client.CallContext(background(t), "testhost", "meta", nil, &owtp.CallOptions{Meta: map[string]string{"tenant": "né", "b": "2"}, Trace: "00-aa-bb-01"})
		must(t, err)
		if got := r.JsonData().Raw; got != `["né","","00-aa-bb-01"]` {
			t.Errorf("got %s", got)
		}
		for name, opts := range map[string]*owtp.CallOptions{
			"long key":   {Meta: map[string]string{strings.Repeat("k", 65): ""}},
			"long value": {Meta: map[string]string{"k": strings.Repeat("v", 1025)}},
			"long trace": {Trace: strings.Repeat("t", 513)},
			"short key":  {CallKey: []byte("short")},
			"zero key":   {CallKey: make([]byte, 16)},
		} {
			if _, err := s.client.CallContext(background(t), "testhost", "meta", nil, opts); owtp.StatusOf(err) != owtp.ErrBadRequest {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// One call key runs the handler once: the second packet gets the first one's
// reply, and another call under the same key is refused.
func TestCallKeyRunsOnce(t *testing.T) {
	for _, w := range inBothFormats(allWays()) {
		if !w.proved() {
			continue // call keys count for proved peers only
		}
		t.Run(w.String(), func(t *testing.T) {
			s := newStage(t, w)
			var ran atomic.Int64
			must(t, s.host.HandleFunc("count", func(ctx *owtp.Context) { ctx.Response(ran.Add(1), 200, "") }))
			s.connect(t)
			opts := &owtp.CallOptions{CallKey: []byte("0123456789abcdef")}
			for range 2 {
				r, err := s.client.CallContext(background(t), "testhost", "count", nil, opts)
				if err != nil || r.Status != 200 || r.JsonData().Int() != 1 || ran.Load() != 1 {
					t.Errorf("the handler ran %d times, answer %v, %v", ran.Load(), r, err)
				}
			}
			if r, err := s.client.CallContext(background(t), "testhost", "count", "other", opts); err != nil || r.Status != owtp.ErrReplayAttack {
				t.Errorf("another call under the same key: %v, %v", r, err)
			}
		})
	}
}

func TestNotify(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		got := make(chan string, 1)
		must(t, s.host.HandleFunc("note", func(ctx *owtp.Context) {
			got <- ctx.Params().String()
			ctx.Response("nobody hears this", 600, "")
		}))
		s.connect(t)
		must(t, s.client.Notify(background(t), "testhost", "note", "psst"))
		if v := within(t, got, "the handler"); v != "psst" {
			t.Errorf("got %q", v)
		}
		if err := s.client.Notify(background(t), "nobody", "note", nil); !errors.Is(err, owtp.ErrUnknownPeer) {
			t.Errorf("notify of an unknown peer: %v", err)
		}
	})
}

// The handler of a one-way message outlives the exchange that brought it.
func TestNotifyDoesNotWaitForTheHandler(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		sl := newSleeper(t)
		must(t, s.host.HandleFunc("sleep", sl.handle))
		s.connect(t)
		must(t, s.client.Notify(background(t), "testhost", "sleep", nil))
		within(t, sl.began, "the handler")
		sl.wake()
		if err := within(t, sl.ended, "the handler's end"); err != nil {
			t.Errorf("the handler was cancelled: %v", err)
		}
	})
}

func TestPingAndIdentify(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		id, err := s.client.Identify(background(t), s.dial)
		if err != nil || id != s.host.NodeID() {
			t.Errorf("Identify: %s, %v", id, err)
		}
		if all, err := s.client.Bindings(background(t)); err != nil || len(all) != 0 {
			t.Errorf("Identify has bound something: %v %v", all, err)
		}
		wrong := s.dial
		wrong.PeerID = s.client.NodeID()
		if id, err := randomNode(t).Identify(background(t), wrong); err == nil {
			t.Errorf("Identify with another PeerID gives %s", id)
		}
		s.connect(t)
		if d, err := s.client.Ping(background(t), "testhost"); err != nil || d <= 0 {
			t.Errorf("Ping: %v, %v", d, err)
		}
		if _, err := s.client.Ping(background(t), "nobody"); !errors.Is(err, owtp.ErrUnknownPeer) {
			t.Errorf("Ping of an unknown peer: %v", err)
		}
	})
}
