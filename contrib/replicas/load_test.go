package replicas_test

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
)

// loadCalls is how many calls there are: OWTP_REPLICA_CALLS, or few.
func loadCalls(t testing.TB) int {
	text := os.Getenv("OWTP_REPLICA_CALLS")
	if text == "" {
		return 600
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

const (
	firstLoad   = 1000 // their numbers follow those of the other parts
	loadCallers = 16
	loadClients = 4
	callTimeout = 10 * time.Second
)

// What a call came to. Each has one of these.
type outcome int32

const (
	none     outcome = iota
	answered         // with the right answer
	notRun           // an error that says so
	unknown          // an error that leaves it open
)

func outcomeOf(err error) outcome {
	var e *owtp.Error
	switch {
	case err == nil:
		return answered
	case errors.As(err, &e) && !e.MayHaveRun:
		return notRun
	}
	return unknown
}

// A load is many calls while replicas and their store fail.
type load struct {
	*cluster
	clients  []*owtp.OWTPNode
	outcomes []atomic.Int32
	finished atomic.Int64
	again    atomic.Int64 // a second outcome of a call, which must not be
	wrong    atomic.Int64 // an answer of another call

	mu    sync.Mutex
	stays map[string]int // what those are told whose calls stay unknown
}

// load kills a replica, restarts it, pauses the store and restarts that, while
// calls go on; and judges what came of each call.
func (c *cluster) load() {
	c.t.Helper()
	l := &load{cluster: c, outcomes: make([]atomic.Int32, loadCalls(c.t)), stays: make(map[string]int)}
	for range loadClients {
		l.clients = append(l.clients, c.connect(sealed, owtp.Limits{MaxHandshakeRate: 10_000}))
	}
	var callers sync.WaitGroup
	next := new(atomic.Int64)
	for range loadCallers {
		callers.Go(func() {
			for {
				call := int(next.Add(1)) - 1
				if call >= len(l.outcomes) {
					return
				}
				if l.call(call, true) != answered {
					time.Sleep(200 * time.Millisecond) // or an outage would use up all calls
				}
			}
		})
	}
	l.weather()
	callers.Wait()
	l.judge()
}

// weather is what happens while calls go on.
func (l *load) weather() {
	at := func(fifths int) {
		eventually(l.t, "some of the calls are over", func() bool { return l.finished.Load() >= int64(len(l.outcomes)*fifths/5) })
	}
	at(1)
	l.kill(1)
	at(2)
	l.restart(1)
	at(3)
	l.store.Pause(l.t)
	time.Sleep(3 * time.Second)
	l.store.Resume(l.t)
	at(4)
	l.store.Stop(l.t)
	time.Sleep(time.Second)
	l.store.Start(l.t)
}

// call makes one call, under its own key, and says what came of it.
func (l *load) call(call int, first bool) outcome {
	key := make([]byte, 16)
	binary.BigEndian.PutUint64(key, uint64(call)+1)
	n := l.clients[call%loadClients] // keys are each peer's own
	a, err := do(n, firstLoad+call, &owtp.CallOptions{CallKey: key, Timeout: callTimeout})
	o := outcomeOf(err)
	if err == nil && a.id != firstLoad+call {
		o = unknown
		l.wrong.Add(1)
	}
	if !first && err != nil {
		l.mu.Lock()
		l.stays[err.Error()]++
		l.mu.Unlock()
	}
	if first {
		if l.outcomes[call].Swap(int32(o)) != int32(none) {
			l.again.Add(1)
		}
		l.finished.Add(1)
	}
	return o
}

// judge compares what callers were told with what has run.
func (l *load) judge() {
	t := l.t
	counts := make(map[outcome]int)
	var open []int
	for call := range l.outcomes {
		o := outcome(l.outcomes[call].Load())
		counts[o]++
		if o != answered {
			open = append(open, call)
		}
	}
	ran := l.runs()
	told := make(map[int]bool) // calls whose callers know that they have not run
	for _, call := range open {
		if outcome(l.outcomes[call].Load()) == notRun {
			told[call] = true
			if ran[firstLoad+call] != 0 {
				t.Errorf("the caller of %d was told that it has not run", call)
			}
		}
	}
	// Whoever does not know asks again under the same key, once all is well.
	// What was in the hands of the replica that was killed stays unknown.
	for i := range replicaCount {
		l.lb.one(i)
		eventually(t, "the replica answers again", func() bool {
			_, err := do(l.clients[0], firstLoad-1, nil)
			return err == nil
		})
	}
	l.lb.one(-1)
	resolved := l.askAgain(open)
	ran = l.runs()
	total, most := 0, 0
	for call := range l.outcomes {
		runs := ran[firstLoad+call]
		total += runs
		most = max(most, runs)
		if runs > 1 || runs == 0 && outcome(l.outcomes[call].Load()) == answered {
			t.Errorf("call %d has run %d times, and its outcome is %d", call, runs, l.outcomes[call].Load())
		}
	}
	t.Logf("%s: %d calls: %d answered, %d not run, %d unknown; of the latter two %d were answered when asked again; %d handlers ran, at most %d for one call",
		l.config.Store, len(l.outcomes), counts[answered], counts[notRun], counts[unknown], resolved, total, most)
	if counts[none] != 0 || l.again.Load() != 0 || l.wrong.Load() != 0 {
		t.Errorf("%d calls without an outcome, %d with two, %d with the answer of another", counts[none], l.again.Load(), l.wrong.Load())
	}
	if counts[answered] < len(l.outcomes)/2 {
		t.Errorf("only %d of %d calls were answered", counts[answered], len(l.outcomes))
	}
	// A killed process takes with it what it ran: at most one call of each
	// caller. Everything else is known once somebody asks.
	if missing := len(open) - resolved; missing > loadCallers {
		t.Errorf("%d calls stay unknown: %v", missing, l.stays)
	}
}

// askAgain makes the calls once more and returns how many were answered.
func (l *load) askAgain(calls []int) int {
	var resolved atomic.Int64
	var wg sync.WaitGroup
	next := new(atomic.Int64)
	for range loadCallers {
		wg.Go(func() {
			for {
				j := int(next.Add(1)) - 1
				if j >= len(calls) {
					return
				}
				if l.call(calls[j], false) == answered {
					resolved.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return int(resolved.Load())
}
