package owtp_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/internal/servers"
)

// rabbitStage is a stage whose broker is a real RabbitMQ.
func rabbitStage(t testing.TB, w way, s *servers.Server, setups ...setup) *stage {
	t.Helper()
	hc := owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: quick}
	cc := owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: quick}
	for _, f := range setups {
		f(&hc, &cc)
	}
	st := &stage{way: w, host: startNode(t, hc), client: startNode(t, cc)}
	st.listen = owtp.ConnectConfig{Address: s.DSN, ConnectType: owtp.MQ, EnableSignature: w.sign, DataFormat: w.format}
	must(t, st.host.Listen(st.listen))
	st.dial = st.listen
	st.dial.WriteQueueName = "owtp.node." + st.host.NodeID()
	return st
}

// The same calls as over the other transports, and back, through RabbitMQ.
func TestRabbitCalls(t *testing.T) {
	eachWay(t, mqWays, func(t *testing.T, w way) {
		s := rabbitStage(t, w, servers.RabbitMQ(t))
		must(t, s.host.HandleFunc("echo", echo))
		must(t, s.client.HandleFunc("back", func(c *owtp.Context) { c.Response(c.PID, 0, "") }))
		must(t, s.host.HandleFunc("ask", func(c *owtp.Context) {
			r, err := c.Node().CallContext(c.Context(), c.PID, "back", nil, nil)
			if err != nil {
				c.Response(nil, owtp.StatusOf(err), err.Error())
				return
			}
			c.Resp = *r
		}))
		noted := make(chan string, 1)
		must(t, s.host.HandleFunc("note", func(c *owtp.Context) { noted <- c.Params().String() }))
		s.connect(t)
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				for j := range 5 {
					text := fmt.Sprint(i, "/", j)
					if r, err := s.client.CallSync("testhost", "echo", text); err != nil || r.JsonData().String() != text {
						t.Errorf("echo of %s: %+v, %v", text, r, err)
					}
				}
			})
		}
		wg.Wait()
		if w.proved() {
			if r := answer(t, s.client, "testhost", "ask", nil); r.JsonData().String() != s.host.NodeID() {
				t.Errorf("called back by %+v", r)
			}
		}
		must(t, s.client.Notify(background(t), "testhost", "note", "one way"))
		if got := within(t, noted, "the note"); got != "one way" {
			t.Errorf("noted %q", got)
		}
	})
}

// Where there is no such queue, a call ends with 430 at once, and a node that
// must prove itself is not connected.
func TestRabbitNobodyThere(t *testing.T) {
	broker := servers.RabbitMQ(t)
	client, host := randomNode(t), randomNode(t)
	must(t, client.Connect("nobody", owtp.ConnectConfig{Address: broker.DSN, ConnectType: owtp.MQ, WriteQueueName: "owtp.nobody"}))
	_, err := client.CallSync("nobody", "echo", 1)
	if e := wantStatus(t, err, owtp.ErrNetworkDisconnected); e.MayHaveRun {
		t.Errorf("may have run: %v", err)
	}
	err = client.Connect(host.NodeID(), owtp.ConnectConfig{Address: broker.DSN, ConnectType: owtp.MQ})
	if e := wantStatus(t, err, owtp.ErrNetworkDisconnected); e.MayHaveRun {
		t.Errorf("may have run: %v", err)
	}
}

// The broker goes away and comes back, and is killed, under load in both formats:
// every call has one outcome, and none runs twice under one key.
func TestRabbitRestarts(t *testing.T) {
	broker := servers.NewRabbitMQ(t)
	ways := []way{{connect: owtp.MQ, sign: true}, {connect: owtp.MQ, suite: "sm4"}}
	ends := map[way]func(testing.TB){ways[0]: broker.Stop, ways[1]: broker.Kill}
	// RabbitMQ 3.10 writes down seconds later which queues it has, and never serves
	// one again that a crash has overtaken: all are there when it is stopped.
	stages := make(map[way][]*stage)
	for _, w := range ways {
		for _, v := range inBothFormats([]way{w}) {
			stages[w] = append(stages[w], rabbitStage(t, v, broker))
		}
	}
	for _, w := range ways { // one after the other, as the broker ends once for each
		t.Run(w.String(), func(t *testing.T) {
			var loads []*payments
			for _, s := range stages[w] {
				loads = append(loads, s.payAndPay(t))
			}
			pass := func() {
				for _, p := range loads {
					before := p.done.Load()
					for end := time.Now().Add(60 * time.Second); p.done.Load() < before+50; time.Sleep(5 * time.Millisecond) {
						if time.Now().After(end) {
							t.Errorf("%s: calls do not pass", p.way)
							break
						}
					}
				}
			}
			pass()
			ends[w](t)
			time.Sleep(100 * time.Millisecond)
			broker.Start(t)
			pass()
			for _, p := range loads {
				p.judge(t)
			}
		})
	}
}

// payments are calls that are made until they are judged.
type payments struct {
	way
	done, unknown, notRun atomic.Int64
	stop                  chan struct{}
	wg                    sync.WaitGroup
	mu                    sync.Mutex
	runs                  map[string]int
}

// payAndPay calls from eight callers.
func (s *stage) payAndPay(t testing.TB) *payments {
	p := &payments{way: s.way, stop: make(chan struct{}), runs: make(map[string]int)}
	must(t, s.host.HandleFunc("pay", func(c *owtp.Context) {
		p.mu.Lock()
		p.runs[c.Params().String()]++
		p.mu.Unlock()
		if got := c.DataFormat(); got != cmp.Or(p.format, codec.NameJSON) {
			t.Errorf("%s: called in %s", p.way, got)
		}
		c.Response("paid", 0, "")
	}))
	s.connect(t)
	for i := range 8 {
		p.wg.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-p.stop:
					return
				default:
				}
				r, err := s.client.CallContext(background(t), "testhost", "pay", fmt.Sprint(i, "/", j), &owtp.CallOptions{Timeout: 10 * time.Second})
				var e *owtp.Error
				switch {
				case err == nil && r.OK():
					p.done.Add(1)
				case err == nil && r.Status == owtp.ErrOutcomeUnknown, errors.As(err, &e) && e.MayHaveRun:
					p.unknown.Add(1)
				default:
					p.notRun.Add(1)
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	return p
}

func (p *payments) judge(t testing.TB) {
	close(p.stop)
	p.wg.Wait()
	t.Logf("%s: %d answered, %d unknown, %d not run", p.way, p.done.Load(), p.unknown.Load(), p.notRun.Load())
	p.mu.Lock()
	defer p.mu.Unlock()
	for what, n := range p.runs {
		if n > 1 {
			t.Errorf("%s: payment %s has run %d times", p.way, what, n)
		}
	}
}

func accountOf(t testing.TB, s *servers.Server) string {
	u, err := url.Parse(s.DSN)
	must(t, err)
	return u.User.Username()
}

// Errors about brokers say what is wrong and keep the password to themselves.
func TestRabbitBadInput(t *testing.T) {
	broker := servers.RabbitMQ(t)
	n := randomNode(t)
	const secret = "not-the-password-5f1c"
	for name, address := range map[string]string{
		"password": "amqp://" + accountOf(t, broker) + ":" + secret + "@" + broker.Addr + "/",
		"vhost":    strings.TrimRight(broker.DSN, "/") + "/no-such-vhost",
		"port":     "amqp://u:" + secret + "@127.0.0.1:1/",
		"tls":      "amqps://u:" + secret + "@" + broker.Addr + "/",
		"scheme":   "kafka://u:" + secret + "@" + broker.Addr + "/",
		"control":  "amqp://u:" + secret + "@\x7f/",
	} {
		for _, err := range []error{
			n.Listen(owtp.ConnectConfig{Address: address, ConnectType: owtp.MQ}),
			n.Connect("peer", owtp.ConnectConfig{Address: address, ConnectType: owtp.MQ, WriteQueueName: "q"}),
		} {
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	err := n.Connect("peer", owtp.ConnectConfig{Address: broker.DSN, ConnectType: owtp.MQ, WriteQueueName: "q", ReadQueueName: "r"})
	wantErr(t, err, "ReadQueueName", "listener")
	err = n.Listen(owtp.ConnectConfig{Address: broker.DSN, ConnectType: owtp.MQ, WriteQueueName: "q"})
	wantErr(t, err, "WriteQueueName", "Connect")
	err = n.Listen(owtp.ConnectConfig{Address: broker.DSN, ConnectType: owtp.MQ, Account: "a"})
	wantErr(t, err, "Account")
	err = n.Listen(owtp.ConnectConfig{Address: "amqp://" + broker.Addr, ConnectType: owtp.MQ, EnableSSL: true})
	wantErr(t, err, "EnableSSL", "amqps")
	err = n.Listen(owtp.ConnectConfig{Address: broker.DSN, ConnectType: owtp.MQ, ReadQueueName: "owtp.reply.x"})
	wantErr(t, err, "ReadQueueName", "owtp.reply.x")

	// What takes connections and says nothing.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err = n.ConnectContext(ctx, "peer", owtp.ConnectConfig{Address: "amqp://u:" + secret + "@" + silent.Addr().String(), ConnectType: owtp.MQ, WriteQueueName: "q"})
	if e := wantStatus(t, err, owtp.ErrRequestTimeout); e.MayHaveRun || strings.Contains(err.Error(), secret) {
		t.Errorf("a silent broker: %v (may have run: %v)", err, e.MayHaveRun)
	}
	wantErr(t, err, silent.Addr().String(), "did not answer in time", "is it RabbitMQ")
}
