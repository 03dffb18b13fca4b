package owtp_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
)

func TestStagesRunInOrder(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		var mu sync.Mutex
		var order []string
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, what)
		}
		wrap := func(name string) func(owtp.HandlerFunc) owtp.HandlerFunc {
			return func(next owtp.HandlerFunc) owtp.HandlerFunc {
				return func(ctx *owtp.Context) {
					note(name + " in")
					next(ctx)
					note(name + " out")
				}
			}
		}
		s.host.Use(wrap("outer"), nil, wrap("middle"))
		s.host.Use(wrap("inner"))
		s.host.HandlePrepareFunc(func(ctx *owtp.Context) {
			note("prepare")
			ctx.Values = map[string]any{"k": "v"}
			if ctx.Method == "stopped" {
				ctx.ResponseStopRun("no", 601, "stopped")
			}
		})
		s.host.HandleFinishFunc(func(ctx *owtp.Context) {
			note(fmt.Sprint("finish ", ctx.Values["k"], " ", ctx.Resp.Status))
			ctx.Resp.Msg += ", finished"
		})
		handler := func(ctx *owtp.Context) {
			note("handler")
			ctx.Response("yes", 602, "handled")
		}
		must(t, s.host.HandleFunc("run", handler))
		must(t, s.host.HandleFunc("stopped", handler))
		s.connect(t)
		for _, c := range []struct {
			method, msg string
			status      uint64
			order       []string
		}{
			{"run", "handled, finished", 602, []string{"prepare", "outer in", "middle in", "inner in", "handler", "inner out", "middle out", "outer out", "finish v 602"}},
			{"stopped", "stopped, finished", 601, []string{"prepare", "finish v 601"}},
			{"absent", "no such method, finished", 404, []string{"prepare", "outer in", "middle in", "inner in", "inner out", "middle out", "outer out", "finish v 404"}},
		} {
			order = nil
			r := answer(t, s.client, "testhost", c.method, nil)
			mu.Lock()
			if r.Msg != c.msg || r.Status != c.status || !slices.Equal(order, c.order) {
				t.Errorf("%s: %d %q in the order %q", c.method, r.Status, r.Msg, order)
			}
			mu.Unlock()
		}
	})
}

func TestResponseStopRunInMiddleware(t *testing.T) {
	s := newStage(t, way{connect: owtp.Memory})
	s.host.Use(func(next owtp.HandlerFunc) owtp.HandlerFunc {
		return func(ctx *owtp.Context) {
			ctx.ResponseStopRun(nil, 601, "stopped")
			next(ctx)
		}
	})
	must(t, s.host.HandleFunc("run", func(*owtp.Context) { t.Error("the handler ran") }))
	s.connect(t)
	if r := answer(t, s.client, "testhost", "run", nil); r.Status != 601 {
		t.Errorf("status %d", r.Status)
	}
}

// A panic tells the log everything and the caller nothing.
func TestPanicsBecome500(t *testing.T) {
	const secret = "the vault's code is 1234"
	for _, where := range []string{"handler", "prepare", "middleware", "finish"} {
		eachWay(t, someWays(), func(t *testing.T, w way) {
			var book logBook
			s := newStage(t, w, func(h, _ *owtp.NodeConfig) { h.Logger = book.logger() })
			at := func(stage string, ctx *owtp.Context) {
				if stage == where && ctx.Method == "bad" {
					panic(errors.New(secret))
				}
			}
			finished := make(chan uint64, 2)
			s.host.HandlePrepareFunc(func(ctx *owtp.Context) { at("prepare", ctx) })
			s.host.HandleFinishFunc(func(ctx *owtp.Context) {
				finished <- ctx.Resp.Status
				at("finish", ctx)
			})
			s.host.Use(func(next owtp.HandlerFunc) owtp.HandlerFunc {
				return func(ctx *owtp.Context) { at("middleware", ctx); next(ctx) }
			})
			run := func(ctx *owtp.Context) {
				ctx.Response("partial", 200, "")
				at("handler", ctx)
			}
			must(t, s.host.HandleFunc("bad", run))
			must(t, s.host.HandleFunc("good", run))
			s.connect(t)
			r := answer(t, s.client, "testhost", "bad", nil)
			if r.Status != owtp.ErrInternalServerError || strings.Contains(fmt.Sprintf("%+v", r), secret) || r.JsonData().Raw != "null" {
				t.Errorf("%s: answer %+v", where, r)
			}
			if st := within(t, finished, "finish"); where != "finish" && st != 500 {
				t.Errorf("%s: finish saw status %d", where, st)
			}
			if text := book.text(); !strings.Contains(text, secret) || !strings.Contains(text, "api_handlers_test.go") {
				t.Errorf("%s: the log lacks panic or stack:\n%s", where, text)
			}
			if r := answer(t, s.client, "testhost", "good", nil); !r.OK() {
				t.Errorf("%s: afterwards %+v", where, r)
			}
		})
	}
}

func TestPanicsOfCallbacksHarmNobody(t *testing.T) {
	var book logBook
	s := newStage(t, way{connect: owtp.Websocket, sign: true}, func(h, c *owtp.NodeConfig) { h.Logger, c.Logger = book.logger(), book.logger() })
	must(t, s.host.HandleFunc("echo", echo))
	s.host.SetOpenHandler(func(*owtp.OWTPNode, owtp.PeerInfo) { panic("in open") })
	closed := make(chan bool, 1)
	s.host.SetCloseHandler(func(*owtp.OWTPNode, owtp.PeerInfo) { closed <- true; panic("in close") })
	s.connect(t)
	must(t, s.client.Call("testhost", "echo", 1, true, func(owtp.Response) { panic("in callback") }))
	answer(t, s.client, "testhost", "echo", 1)
	s.client.ClosePeer("testhost")
	within(t, closed, "the close handler")
	eventually(t, "all three are logged", func() bool {
		text := book.text()
		return strings.Contains(text, "in open") && strings.Contains(text, "in close") && strings.Contains(text, "in callback")
	})
}

func TestResultsThatCannotBeSent(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w, hostLimits(owtp.Limits{MaxMessage: 256 << 10}))
		must(t, s.host.HandleFunc("channel", func(ctx *owtp.Context) { ctx.Response(make(chan int), 200, "") }))
		must(t, s.host.HandleFunc("raw", func(ctx *owtp.Context) { ctx.Response(json.RawMessage("{"), 200, "") }))
		must(t, s.host.HandleFunc("large", func(ctx *owtp.Context) { ctx.Response(strings.Repeat("x", 256<<10), 200, "") }))
		must(t, s.host.HandleFunc("wordy", func(ctx *owtp.Context) { ctx.Response(nil, 200, strings.Repeat("\xffw", 10_000)) }))
		must(t, s.host.HandleFunc("panics", func(ctx *owtp.Context) { ctx.Response(panicsWhenEncoded{}, 200, "") }))
		s.connect(t)
		for method, want := range map[string]uint64{"channel": 500, "raw": 500, "large": 413, "wordy": 200, "panics": 500} {
			if r := answer(t, s.client, "testhost", method, nil); r.Status != want {
				t.Errorf("%s: %d %q, want %d", method, r.Status, r.Msg, want)
			}
		}
	})
}

type panicsWhenEncoded struct{}

func (panicsWhenEncoded) MarshalJSON() ([]byte, error) { panic("in MarshalJSON") }

// All that a handler sees without asking for the transport's name is the same
// on every transport.
func TestHandlerCannotTellTheTransport(t *testing.T) {
	type view struct {
		pid, method, params, meta, trace string
		proved, signed, deadline         bool
		resp                             owtp.Response
		session                          any
		data                             string
	}
	cert := owtp.NewRandomCertificate()
	for _, form := range inBothFormats([]way{{sign: true}, {sign: true, suite: "aes"}, {sign: true, suite: "sm4"}}) {
		views := make(map[string]view)
		for _, connect := range []string{owtp.HTTP, owtp.Websocket, owtp.Memory, owtp.MQ} {
			s := newStage(t, form.over(connect), func(_, c *owtp.NodeConfig) { c.Cert = cert })
			var got view
			must(t, s.host.HandleFunc("look", func(ctx *owtp.Context) {
				must(t, ctx.SetSession("k", 7))
				_, deadline := ctx.Context().Deadline()
				got = view{ctx.PID, ctx.Method, ctx.Params().Raw, ctx.Meta("m"), ctx.Trace(), ctx.Proved(), ctx.Signed(), deadline, ctx.Resp, ctx.GetSession("k"), string(ctx.Data())}
			}))
			s.connect(t)
			_, err := s.client.CallContext(background(t), "testhost", "look", []int{1}, &owtp.CallOptions{Meta: map[string]string{"m": "v"}, Trace: "t"})
			must(t, err)
			views[connect] = got
		}
		for connect, v := range views {
			if got, want := fmt.Sprint(v), fmt.Sprint(views[owtp.HTTP]); got != want {
				t.Errorf("%v: the handler sees\n%s over %s\n%s over HTTP", form, got, connect, want)
			}
		}
	}
}

func TestEvidence(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		request := make(chan []byte, 2)
		must(t, s.host.HandleFunc("pay", func(ctx *owtp.Context) {
			request <- ctx.Evidence()
			ctx.Response(map[string]int{"paid": 7}, 600, "thanks")
		}))
		s.connect(t)
		begin := time.Now()
		r := answer(t, s.client, "testhost", "pay", map[string]int{"amount": 7})
		saved, half := r.Evidence(), within(t, request, "the handler")
		var viaCall []byte
		must(t, s.client.Call("testhost", "pay", nil, true, func(r owtp.Response) { viaCall = r.Evidence() }))
		if !w.sign {
			if saved != nil || half != nil || viaCall != nil {
				t.Error("evidence of what nobody signed")
			}
			return
		}
		for _, b := range [][]byte{viaCall, half} {
			if _, err := owtp.VerifyEvidence(b); err != nil {
				t.Error(err)
			}
		}
		e, err := owtp.VerifyEvidence(saved)
		must(t, err)
		q, p := e.Request, e.Response
		if q.SignerID != s.client.NodeID() || q.RecipientID != s.host.NodeID() || p.SignerID != s.host.NodeID() || p.RecipientID != s.client.NodeID() ||
			q.Method != "pay" || p.Method != "pay" || string(q.Data) != w.octets(t, `{"amount":7}`) || string(p.Data) != w.octets(t, `{"paid":7}`) || p.Status != 600 || p.Msg != "thanks" ||
			q.Nonce != p.Nonce || q.Transport != w.connect || q.Time.Before(begin.Add(-time.Minute)) || q.Format != cmp.Or(w.format, "json") || p.Format != q.Format {
			t.Errorf("evidence %+v\n%+v", q, p)
		}
		for i := range saved {
			edited := slices.Clone(saved)
			edited[i] ^= 1
			if _, err := owtp.VerifyEvidence(edited); !errors.Is(err, owtp.ErrEvidence) {
				t.Fatalf("octet %d changed: %v", i, err)
			}
			if i%16 == 0 && i != len(half) { // the request alone is evidence too
				if _, err := owtp.VerifyEvidence(saved[:i]); !errors.Is(err, owtp.ErrEvidence) {
					t.Fatalf("cut off at octet %d: %v", i, err)
				}
			}
		}
		// A response of one call does not prove another.
		if _, err := owtp.VerifyEvidence(append(slices.Clone(half), viaCall[2:]...)); !errors.Is(err, owtp.ErrEvidence) {
			t.Errorf("two calls in one: %v", err)
		}
		if _, err := owtp.VerifyEvidence(append(slices.Clone(saved), saved[2:]...)); !errors.Is(err, owtp.ErrEvidence) {
			t.Errorf("twice the same: %v", err)
		}
	})
}
