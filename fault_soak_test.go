package owtp_test

import (
	"bytes"
	"context"
	bigendian "encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// soakCalls is how many calls each transport gets: OWTP_SOAK_CALLS, or few.
func soakCalls(t testing.TB) int {
	text := os.Getenv("OWTP_SOAK_CALLS")
	if text == "" {
		return 200
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// TestFaultSoak calls from 64 callers through a proxy that drops, duplicates,
// holds back and cuts, while the server is restarted again and again. Whatever
// happens, each call has one outcome, and what its caller is told is true.
func TestFaultSoak(t *testing.T) {
	var tables []string
	for _, m := range media {
		for _, v := range soakForms[m.name] {
			store := "new store"
			if v.keep {
				store = "kept store"
			}
			name := fmt.Sprintf("%s/%s/%s", m.name, v.g.name, store)
			t.Run(name, func(t *testing.T) {
				s := newSoak(t, m, v.g, v.keep, soakCalls(t)/len(soakForms[m.name]))
				s.run()
				s.judge()
				tables = append(tables, s.table(name))
			})
		}
	}
	t.Logf("\n%s", strings.Join(tables, "\n"))
}

type soakForm struct {
	g    guard
	keep bool // the store outlives the server
}

var soakForms = map[string][]soakForm{
	owtp.HTTP:      inBothForms(soakForm{inSealed, true}, soakForm{inSigned, false}),
	owtp.Websocket: inBothForms(soakForm{inBoth, true}, soakForm{inSealed, false}),
	owtp.Memory:    inBothForms(soakForm{inSealed, true}, soakForm{inSigned, false}),
	owtp.MQ:        inBothForms(soakForm{inSealed, true}, soakForm{inSigned, false}),
}

func inBothForms(forms ...soakForm) (both []soakForm) {
	for _, f := range forms {
		both = append(both, f, soakForm{f.g.protobuf(), f.keep})
	}
	return both
}

const (
	soakCallers = 64
	soakClients = 4
)

// A soak is one server that is restarted, its callers, and the weather between.
type soak struct {
	*cutRig
	keep    bool
	cert    owtp.Certificate
	store   session.Provider
	server  *owtp.OWTPNode
	clients []*owtp.OWTPNode

	runs     []atomic.Int32 // by logical call
	calls    []logical
	finished atomic.Int64

	restarts, cuts, pauses, dropped, doubled, sent atomic.Int64
}

// A logical call is what one caller wanted once.
type logical struct {
	outcomes  atomic.Int32
	repeats   bool // it may run twice
	mayRun    bool // the caller was not told that it has not
	success   bool
	refused   uint64 // the peer's own status
	what      string // for the table
	wrong     string // an answer that is not its own
	keyed     bool
	callbacks bool
}

func newSoak(t *testing.T, m medium, g guard, keep bool, calls int) *soak {
	s := &soak{
		cutRig: &cutRig{rig: &rig{t: t, m: m, g: g}}, keep: keep, cert: owtp.NewRandomCertificate(),
		runs: make([]atomic.Int32, calls), calls: make([]logical, calls),
	}
	s.store = newMemory(t, memory.Options{})
	addr := s.begin()
	s.proxy = transporttest.NewProxy(t, m.tr, roomy(m.listenAddr()), roomy(addr))
	s.bank = &bank{OWTPNode: s.server}
	to := s.behindCutter()
	for range soakClients {
		c := newNode(t, owtp.NodeConfig{Limits: soakLimits})
		must(t, c.Connect("server", s.bank.at(to, m, g)))
		s.clients = append(s.clients, c)
	}
	return s
}

var soakLimits = owtp.Limits{HandshakeTimeout: 2 * time.Second, MaxReconnectDelay: 50 * time.Millisecond, MaxHandshakeRate: 10000, Heartbeat: time.Second}

// begin starts the server, for the first time or again, and returns its address.
func (s *soak) begin() string {
	cfg := owtp.NodeConfig{Cert: s.cert, Limits: soakLimits}
	if s.keep {
		cfg.Store = s.store
	}
	n, err := owtp.New(cfg)
	must(s.t, err)
	handle := func(c *owtp.Context) {
		id := c.Params().Get("id").Int()
		run := s.runs[id].Add(1)
		if id%8 == 0 {
			sleepOr(c.Context(), time.Duration(id%64)*200*time.Microsecond)
		}
		c.Response(map[string]any{"id": id, "run": run}, 0, "")
	}
	must(s.t, n.HandleFunc("do", handle))
	must(s.t, n.HandleFunc("redo", handle, owtp.Repeatable()))
	must(s.t, n.Listen(owtp.ConnectConfig{Address: s.m.listenAddr(), ConnectType: s.m.name, EnableSignature: s.g.sign, EnableKeyAgreement: s.g.seal}))
	s.server = n
	return n.ListenerAddr(s.m.name)
}

func sleepOr(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// restart ends the server, gently or not, and begins another one of its key.
func (s *soak) restart(gently bool) {
	s.proxy.SetDown(true)
	if gently {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		_ = s.server.Shutdown(ctx) // its context may end first
		cancel()
	}
	must(s.t, s.server.Close())
	s.proxy.SetTarget(roomy(s.begin()))
	s.proxy.SetDown(false)
	s.restarts.Add(1)
}

func (s *soak) run() {
	// On a connection every lost record costs the whole of it.
	every := int64(33)
	if !s.m.exchanges() {
		every = 100
	}
	s.proxy.OnMessage(func(f transporttest.Flow) []transport.Message {
		switch s.sent.Add(1) % every {
		case every / 4:
			s.dropped.Add(1)
			return nil
		case every / 2:
			s.doubled.Add(1)
			return []transport.Message{f.Message, {Form: f.Message.Form, Data: bytes.Clone(f.Message.Data)}}
		}
		return pass(f)
	})
	over := make(chan struct{})
	var weather, callers sync.WaitGroup
	weather.Go(func() { s.weather(over) })
	next := new(atomic.Int64)
	for i := range soakCallers {
		callers.Go(func() {
			for {
				id := int(next.Add(1)) - 1
				if id >= len(s.calls) {
					return
				}
				// Not all at once, so that there are many records and some time.
				time.Sleep(rand.N(time.Duration(max(20, 6000/len(s.calls))) * time.Millisecond))
				s.one(s.clients[i%soakClients], id)
				s.finished.Add(1)
			}
		})
	}
	callers.Wait()
	close(over)
	weather.Wait()
	s.proxy.OnMessage(nil)
	for _, c := range s.clients {
		must(s.t, c.Close())
	}
	must(s.t, s.server.Close()) // waits for handlers: nothing runs any more
}

// weather goes by how much has been called, so that each form has its share.
func (s *soak) weather(over <-chan struct{}) {
	chance := rand.New(rand.NewPCG(2, uint64(len(s.calls))))
	restartAt := int64(len(s.calls) / 5)
	every := int64(max(len(s.calls)/5, 40))
	if every > 700 {
		every = 700
		restartAt = every
	}
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Duration(10+chance.IntN(60)) * time.Millisecond):
		}
		switch done := s.finished.Load(); {
		case done >= restartAt:
			restartAt = done + every
			s.restart(chance.IntN(2) == 0)
		case chance.IntN(3) == 0:
			s.cuts.Add(1)
			s.cut()
		case chance.IntN(2) == 0:
			s.pauses.Add(1)
			s.proxy.Pause()
			time.Sleep(time.Duration(5+chance.IntN(30)) * time.Millisecond)
			s.proxy.Resume()
		}
	}
}

// one makes one logical call.
func (s *soak) one(from *owtp.OWTPNode, id int) {
	c := &s.calls[id]
	method := "do"
	opts := &owtp.CallOptions{Timeout: 4 * time.Second}
	c.keyed = id%10 >= 2 && id%10 <= 6
	attempts := 1
	switch {
	case id%10 == 0:
		s.async(from, id)
		return
	case id%10 == 1:
		method, opts.Repeatable, c.repeats = "redo", true, true
	case c.keyed:
		attempts = 1 + id%10%3 // who has a key may come again
	}
	if c.keyed || c.repeats {
		opts.CallKey = make([]byte, 16)
		bigendian.BigEndian.PutUint64(opts.CallKey[8:], uint64(id)+1)
	}
	var resp *owtp.Response
	var err error
	for range attempts {
		resp, err = from.CallContext(context.Background(), "server", method, map[string]int{"id": id}, opts)
		var e *owtp.Error
		if c.mayRun = c.mayRun || err == nil || !errors.As(err, &e) || e.MayHaveRun; err == nil {
			break
		}
	}
	c.outcomes.Add(1)
	if err != nil {
		c.what = fmt.Sprintf("error %d, may have run", owtp.StatusOf(err))
		if !c.mayRun {
			c.what = fmt.Sprintf("error %d, not run", owtp.StatusOf(err))
		}
		return
	}
	s.note(c, id, *resp)
}

func (s *soak) note(c *logical, id int, resp owtp.Response) {
	if !resp.OK() {
		c.refused, c.what = resp.Status, fmt.Sprintf("peer says %d", resp.Status)
		return
	}
	c.success, c.what = true, "answered"
	if got := resp.JsonData(); got.Get("id").Int() != int64(id) || !c.repeats && got.Get("run").Int() != 1 {
		c.wrong = got.Raw
	}
}

// async makes a call with a callback, which hears a status only.
func (s *soak) async(from *owtp.OWTPNode, id int) {
	c := &s.calls[id]
	c.callbacks = true
	done := make(chan struct{})
	err := from.Call("server", "do", map[string]int{"id": id}, false, func(resp owtp.Response) {
		if c.outcomes.Add(1) > 1 {
			return
		}
		defer close(done)
		c.mayRun = true
		if resp.OK() {
			s.note(c, id, resp)
			return
		}
		c.what = fmt.Sprintf("callback with %d", resp.Status)
	})
	if err != nil {
		c.outcomes.Add(1)
		c.what = "nothing sent"
		return
	}
	select {
	case <-done:
	case <-time.After(90 * time.Second): // a call's own time is 60
		s.t.Errorf("call %d: the callback has not run", id)
	}
}

func (s *soak) judge() {
	t := s.t
	answered := 0
	for id := range s.calls {
		c, runs := &s.calls[id], s.runs[id].Load()
		if n := c.outcomes.Load(); n != 1 {
			t.Errorf("call %d has %d outcomes", id, n)
		}
		if runs > 1 && !c.repeats {
			t.Errorf("call %d has run %d times (%s)", id, runs, c.what)
		}
		if c.success && runs == 0 {
			t.Errorf("call %d was answered and has not run", id)
		}
		if !c.mayRun && runs != 0 {
			t.Errorf("call %d has run, and its caller was told that it has not (%s)", id, c.what)
		}
		if c.refused != 0 && c.refused != owtp.ErrOutcomeUnknown && runs != 0 {
			t.Errorf("call %d has run, and its caller was told that it was refused with %d", id, c.refused)
		}
		if c.wrong != "" {
			t.Errorf("call %d was answered with %s", id, c.wrong)
		}
		if c.success {
			answered++
		}
	}
	if answered < len(s.calls)/4 {
		t.Errorf("only %d of %d calls were answered: a fault has no end", answered, len(s.calls))
	}
	if s.restarts.Load() == 0 || s.dropped.Load() == 0 {
		t.Errorf("%d restarts, %d messages dropped: nothing has gone wrong", s.restarts.Load(), s.dropped.Load())
	}
}

// table says what came of the calls.
func (s *soak) table(name string) string {
	outcomes := make(map[string]int)
	runs := make(map[int32]int)
	twice, repeated := 0, 0
	for id := range s.calls {
		c := &s.calls[id]
		outcomes[c.what]++
		n := s.runs[id].Load()
		runs[n]++
		if n > 1 && !c.repeats {
			twice++
		} else if n > 1 {
			repeated++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d calls, %d messages, %d dropped, %d doubled, %d cuts, %d pauses, %d restarts\n",
		name, len(s.calls), s.sent.Load(), s.dropped.Load(), s.doubled.Load(), s.cuts.Load(), s.pauses.Load(), s.restarts.Load())
	for _, what := range slices.Sorted(maps.Keys(outcomes)) {
		fmt.Fprintf(&b, "  %-28s %6d\n", what, outcomes[what])
	}
	fmt.Fprintf(&b, "  %-28s %6d never, %d once, %d twice or more as they may, %d as they may not\n", "handler runs per call", runs[0], runs[1], repeated, twice)
	return b.String()
}
