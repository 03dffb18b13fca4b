package nats_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/contrib/nats"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/transport"
)

// One of three replicas behind NATS is shut down under load: every call is
// answered by a handler, once.
func TestShutdownCostsNoCall(t *testing.T) {
	p := installed(t)
	modes := map[string]owtp.ConnectConfig{
		"open": {}, "signed": {EnableSignature: true}, "sealed": {EnableKeyAgreement: true},
		"sealed and signed": {EnableKeyAgreement: true, EnableSignature: true},
	}
	for _, options := range []string{"", "?durable=true"} {
		for _, shared := range []bool{false, true} {
			for name, mode := range modes {
				t.Run(fmt.Sprintf("%s/shared store %v/%s", options, shared, name), func(t *testing.T) {
					t.Parallel()
					shutdownUnderLoad(t, p, options, shared, mode)
				})
			}
		}
	}
}

func shutdownUnderLoad(t *testing.T, p place, options string, shared bool, mode owtp.ConnectConfig) {
	cfg := owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: owtp.Limits{MaxHandshakeRate: 1 << 20}}
	if shared {
		m, err := memory.New(memory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		cfg.Store = sharedMemory{m}
	}
	mode.ConnectType, mode.Address, mode.Account, mode.Password = owtp.MQ, p.url+options, p.account, p.password
	var mu sync.Mutex
	runs := make(map[string]int)
	var served [3]atomic.Int64
	var replicas [3]*owtp.OWTPNode
	for i := range replicas {
		n, err := owtp.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		replicas[i] = n
		t.Cleanup(func() { n.Close() })
		n.HandleFunc("work", func(c *owtp.Context) {
			served[i].Add(1)
			mu.Lock()
			runs[c.Params().String()]++
			mu.Unlock()
			c.Response(c.Params().String(), 0, "")
		})
		if err := n.Listen(mode); err != nil {
			t.Fatal(err)
		}
	}
	id := replicas[0].NodeID()
	var clients [4]*owtp.OWTPNode
	for i := range clients {
		clients[i] = owtp.RandomOWTPNode()
		t.Cleanup(func() { clients[i].Close() })
		if err := clients[i].Connect(id, mode); err != nil {
			t.Fatal(err)
		}
	}
	var calls, unknown atomic.Int64
	call := func(n *owtp.OWTPNode, what string) {
		calls.Add(1)
		r, err := n.CallSync(id, "work", what)
		if err == nil && r.Status == owtp.ErrOutcomeUnknown && options != "" && !shared && !mode.EnableSignature && !mode.EnableKeyAgreement {
			// The stream says that it has delivered it before, and nobody has
			// proved that it was to a replica that did not run it.
			unknown.Add(1)
			return
		}
		if err != nil || !r.OK() || r.JsonData().String() != what {
			t.Errorf("call %s: %+v, %v", what, r, err)
		}
	}
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for i := range 6 {
		callers.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				default:
					call(clients[i%3], fmt.Sprint(i, "/", j))
				}
			}
		})
	}
	eventually(t, "calls pass", func() bool { return calls.Load() > 60 })
	call(clients[3], "idle, before")
	leaving := 0
	for i := range served {
		if served[i].Load() > served[leaving].Load() {
			leaving = i
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if err := replicas[leaving].Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	after, passed := served[leaving].Load(), calls.Load()
	call(clients[3], "idle, after")
	eventually(t, "calls pass", func() bool { return calls.Load() > passed+60 })
	close(stop)
	callers.Wait()
	if served[leaving].Load() != after || after == 0 {
		t.Errorf("who was shut down has served %d calls before and %d afterwards", after, served[leaving].Load()-after)
	}
	ran := int64(0)
	for what, n := range runs {
		if ran++; n != 1 {
			t.Errorf("call %s has run %d times", what, n)
		}
	}
	if lost := unknown.Load(); ran+lost != calls.Load() || lost > 6 {
		t.Errorf("%d handlers have run for %d calls, and of %d calls nothing is known", ran, calls.Load(), lost)
	}
}

// TestShutdownGivesJobsBack: what was fetched from the stream and waits for its
// turn is another replica's at once, while what runs still does.
func TestShutdownGivesJobsBack(t *testing.T) {
	durably(t, func(t *testing.T, p place) {
		cfg := p.config()
		cfg.MaxDeliveries = 1
		entered, proceed := make(chan struct{}, 10), make(chan struct{})
		e := listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
			entered <- struct{}{}
			<-proceed
			return message("the first"), nil
		})
		x := dial(t, cfg)
		answers := make(chan string, 2)
		ask := func(to string) {
			m := message("x")
			m.To = to
			go func() {
				m, err := send(t, x, m)
				if err != nil {
					m.Data = []byte(err.Error())
				}
				answers <- string(m.Data)
			}()
		}
		ask(e.Queues().Own) // takes the hand that a job was asked for
		<-entered
		ask("")
		eventually(t, "the job waits", func() bool { return nats.Waiting(e) == 1 })
		shut := make(chan error, 1)
		go func() { shut <- e.Shutdown(t.Context()) }()
		eventually(t, "nothing waits", func() bool { return nats.Waiting(e) == 0 })
		listen(t, cfg, func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
			if !m.Redelivered {
				t.Error("the stream does not say that it was delivered before")
			}
			return message("the second"), nil
		})
		if a := <-answers; a != "the second" {
			t.Errorf("the job was answered with %q", a)
		}
		close(proceed)
		if a := <-answers; a != "the first" {
			t.Errorf("what ran was answered with %q", a)
		}
		if err := <-shut; err != nil {
			t.Error(err)
		}
	})
}
