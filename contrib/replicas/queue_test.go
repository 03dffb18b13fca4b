package replicas_test

import (
	"errors"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/servers"
)

// queueCalls is how many calls each fault gets: OWTP_QUEUE_CALLS, or few.
func queueCalls(t testing.TB) int {
	text := os.Getenv("OWTP_QUEUE_CALLS")
	if text == "" {
		return 150
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// queueTimeout is shorter than a fault, so that calls end while it lasts.
const queueTimeout = 2 * time.Second

var brokers = []struct {
	name    string
	start   func(t testing.TB) *servers.Server
	options string // of the address
}{
	{"rabbitmq", func(t testing.TB) *servers.Server { return servers.NewRabbitMQ(t) }, ""},
	{"nats", func(t testing.TB) *servers.Server { return servers.NewNATS(t) }, ""},
	{"durable nats", func(t testing.TB) *servers.Server { return servers.NewNATS(t) }, "durable=true"},
}

// TestQueueFaults calls three replicas through a broker while one thing after the
// other fails, with a store for all of them and with one for each.
func TestQueueFaults(t *testing.T) {
	for _, broker := range brokers {
		for _, store := range []backing{{name: "memory"}, backings[0]} {
			t.Run(broker.name+"/"+store.name, func(t *testing.T) {
				t.Parallel()
				newQueueCluster(t, broker.start(t), broker.options, store).faults()
			})
		}
	}
}

// A queueCluster is a cluster behind a broker. The network between the broker
// and callers, and that between the broker and replicas, fails by itself.
type queueCluster struct {
	*cluster
	broker         *servers.Server
	callers, hosts *servers.Relay
	clients        []*owtp.OWTPNode
	calls          []queueCall
}

// A queueCall is what one caller wanted once.
type queueCall struct {
	outcome  atomic.Int32
	outcomes atomic.Int32 // how many it has had, which must be one
}

// repeatable says of every fourth call that it may run twice.
func repeatable(call int) bool { return call%4 == 0 }

func newQueueCluster(t *testing.T, broker *servers.Server, options string, store backing) *queueCluster {
	q := &queueCluster{broker: broker, callers: servers.NewRelay(t, broker.Addr), hosts: servers.NewRelay(t, broker.Addr)}
	q.cluster = startCluster(t, store, by(t, broker, q.hosts, options))
	for range loadClients {
		n, err := owtp.New(owtp.NodeConfig{
			Cert:   owtp.NewRandomCertificate(),
			Limits: owtp.Limits{MaxReconnectDelay: 200 * time.Millisecond},
		})
		must(t, err)
		t.Cleanup(func() { must(t, n.Close()) })
		must(t, n.Connect("cluster", owtp.ConnectConfig{
			Address: by(t, broker, q.callers, options), ConnectType: owtp.MQ, PeerID: q.nodeID, EnableKeyAgreement: true,
		}))
		q.clients = append(q.clients, n)
	}
	return q
}

// by is the broker's address by way of a relay.
func by(t testing.TB, broker *servers.Server, r *servers.Relay, options string) string {
	u, err := url.Parse(broker.DSN)
	must(t, err)
	u.Host, u.RawQuery = r.Addr(), options
	return u.String()
}

// faults has as many calls for each fault: some before, some while it lasts, and
// some afterwards.
func (q *queueCluster) faults() {
	faults := []struct {
		name string
		fail func(some func())
		free bool // it costs no call anything
	}{
		{name: "replica shut down", free: true, fail: func(some func()) {
			i := q.serving()
			wait := q.shutDown(i)
			some()
			wait()
			q.restart(i)
		}},
		{name: "broker restarted", fail: func(some func()) {
			q.broker.Stop(q.t)
			some()
			q.broker.Start(q.t)
		}},
		// After a restart, since RabbitMQ 3.10 writes down seconds later which
		// queues it has, and never serves one again that a crash has overtaken.
		{name: "broker killed", fail: func(some func()) {
			q.broker.Kill(q.t)
			some()
			q.broker.Start(q.t)
		}},
		{name: "connections cut", fail: func(some func()) {
			for range 3 {
				q.callers.Cut(false)
				some()
				q.hosts.Cut(false)
				some()
			}
		}},
		{name: "replica killed", fail: func(some func()) {
			i := q.serving()
			q.kill(i)
			some()
			q.restart(i)
		}},
		{name: "replica stuck", fail: func(some func()) {
			p := q.replicas[q.serving()].cmd.Process
			must(q.t, p.Signal(servers.PauseSignal))
			outlast()
			must(q.t, p.Signal(servers.ResumeSignal))
		}},
		{name: "network stalled", fail: func(some func()) {
			for _, r := range []*servers.Relay{q.callers, q.hosts} {
				r.Stall(true)
				outlast()
				r.Stall(false)
				some()
			}
		}},
	}
	each := queueCalls(q.t)
	q.calls = make([]queueCall, each*len(faults))
	for i, f := range faults {
		q.under(f.name, i*each, each, f.fail)
	}
	outlast()
	ran := q.runs() // now, since what was in a queue may run after its fault
	for i, f := range faults {
		q.judge(f.name, i*each, each, ran, f.free)
	}
}

// under makes calls, a third of them before a fault, a third while it lasts, and
// the others when it is over.
func (q *queueCluster) under(name string, first, count int, fail func(some func())) {
	var next, finished atomic.Int64
	over := make(chan struct{})
	var all sync.WaitGroup
	for i := range loadCallers {
		all.Go(func() {
			for {
				call := int(next.Add(1)) - 1
				if call >= count {
					return
				}
				if call >= count*2/3 {
					<-over
				}
				if q.call(i, first+call) != answered {
					time.Sleep(100 * time.Millisecond) // or an outage would use up all calls
				}
				finished.Add(1)
			}
		})
	}
	eventually(q.t, "some calls are over", func() bool { return finished.Load() >= int64(count/3) })
	fail(func() {
		// Some calls pass, or the fault lasts longer than a call may.
		enough := min(finished.Load()+loadCallers, int64(count*2/3))
		for end := time.Now().Add(queueTimeout + time.Second); finished.Load() < enough && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
	})
	for _, n := range q.clients {
		eventually(q.t, "calls are answered again after: "+name, func() bool {
			_, err := do(n, len(q.calls), &owtp.CallOptions{Timeout: queueTimeout, Repeatable: true})
			return err == nil
		})
	}
	close(over)
	all.Wait()
	again := 0
	for i := first + count*2/3; i < first+count; i++ {
		if outcome(q.calls[i].outcome.Load()) == answered {
			again++
		}
	}
	if after := count - count*2/3; again < after*9/10 {
		q.t.Errorf("%s: only %d of %d calls after it were answered", name, again, after)
	}
}

// outlast waits until every call has ended that began before.
func outlast() { time.Sleep(queueTimeout + time.Second) }

// serving is a replica that has answered a call: with stores of their own some
// have no callers, and nobody would notice what becomes of them.
func (q *queueCluster) serving() int {
	a, err := do(q.clients[0], len(q.calls), &owtp.CallOptions{Repeatable: true})
	must(q.t, err)
	return slices.IndexFunc(q.replicas, func(p *process) bool { return p.cmd.Process.Pid == a.pid })
}

func (q *queueCluster) call(caller, call int) outcome {
	opts := &owtp.CallOptions{Timeout: queueTimeout, Repeatable: repeatable(call)}
	a, err := do(q.clients[caller%loadClients], call, opts)
	if err == nil && a.id != call {
		err = errors.New("the answer of another call")
		q.t.Errorf("the answer of call %d came to call %d", a.id, call)
	}
	o := outcomeOf(err)
	q.calls[call].outcome.Store(int32(o))
	q.calls[call].outcomes.Add(1)
	return o
}

// judge compares what callers were told with what has run.
func (q *queueCluster) judge(name string, first, count int, ran map[int]int, free bool) {
	var counts [unknown + 1]int
	var runs, most, mostRepeatable, outcomes int
	for call := first; call < first+count; call++ {
		o := outcome(q.calls[call].outcome.Load())
		counts[o]++
		outcomes += int(q.calls[call].outcomes.Load())
		runs += ran[call]
		if repeatable(call) {
			mostRepeatable = max(mostRepeatable, ran[call])
		} else {
			most = max(most, ran[call])
		}
		if o == answered && ran[call] == 0 || o == notRun && ran[call] != 0 {
			q.t.Errorf("%s: call %d has run %d times, and its outcome is %d", name, call, ran[call], o)
		}
	}
	q.t.Logf("%s: %d calls: %d completed, %d ended with a status, %d outcome unknown; %d handlers ran, at most %d for one call, %d for one that is repeatable",
		name, count, counts[answered], counts[notRun], counts[unknown], runs, most, mostRepeatable)
	if counts[none] != 0 || outcomes != count {
		q.t.Errorf("%s: %d calls had %d outcomes, %d of them none", name, count, outcomes, counts[none])
	}
	if free && counts[answered] != count {
		q.t.Errorf("%s: %d of %d calls were not answered", name, count-counts[answered], count)
	}
	if most > 1 {
		q.t.Errorf("%s: a call that is not repeatable has run %d times", name, most)
	}
}
