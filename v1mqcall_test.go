package owtp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/servers"
)

// The calling side of version 1 over RabbitMQ.

// caller is the configuration of a node that calls who reads the other queue.
func (c *v1Queue) caller(address string, mode ConnectConfig) ConnectConfig {
	mode = mode.at(address, MQ)
	mode.Exchange, mode.ReadQueueName, mode.WriteQueueName = v1Exchange, c.read, c.write
	return mode
}

// newV1QueuePeer makes the place of a peer: the queue that it reads, bound, and
// that which it writes to, for others to make.
func newV1QueuePeer(t testing.TB, broker *servers.Server) *v1Queue {
	t.Helper()
	q := newV1Queue(t, broker, true)
	q.write = q.read + ".answers"
	t.Cleanup(func() { _, _ = q.ch.QueueDelete(q.write, false, false, false) })
	return q
}

// swapped is the place of the other side.
func (c *v1Queue) swapped() *v1Queue {
	return &v1Queue{t: c.t, ch: c.ch, read: c.write, write: c.read}
}

func (c *v1Queue) packet() *legacy.Packet {
	c.t.Helper()
	return packetOf(c.t, string(c.next().Body))
}

// Every mode, against our own listener, with both sides' queues as version 1 has
// them.
func TestV1CallsOurOwnQueue(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	for name, mode := range v1Modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newV1Queue(t, broker, false)
			h := newV1QueueHost(t, q, ConnectConfig{Address: broker.DSN, EnableSignature: mode.EnableSignature, EnableKeyAgreement: mode.EnableKeyAgreement})
			id := h.node.NodeID()
			n := newV1Caller(t, v1Now)
			if proved, err := n.Identify(t.Context(), q.caller(broker.DSN, mode)); err != nil || proved != id {
				t.Errorf("Identify: %q %v", proved, err)
			}
			if err := n.Connect(id, q.caller(broker.DSN, mode)); err != nil {
				t.Fatal(err)
			}
			for method, status := range map[string]uint64{"echo": 200, "fail": 600, "silent": 0, "nosuch": 404, "panic": 500} {
				resp, err := n.CallSync(id, method, json.RawMessage(`{"a":1}`))
				if err != nil || resp.Status != status || method == "echo" && resp.JsonData().Get("a").Int() != 1 {
					t.Errorf("%s: %+v %v, want %d", method, resp, err, status)
				}
			}
			seen := h.taken()
			if len(seen) != 4 {
				t.Errorf("handlers saw %+v", seen)
			}
			for _, s := range seen {
				if s.signed != mode.EnableSignature || s.sealed != mode.EnableKeyAgreement || s.proved && s.pid != "v1:"+n.NodeID() {
					t.Errorf("the handler saw %+v", s)
				}
			}
			var wait sync.WaitGroup
			for i := range 8 {
				wait.Go(func() {
					if resp, err := n.CallSync(id, "echo", i); err != nil || resp.JsonData().Int() != int64(i) {
						t.Error(i, resp, err)
					}
				})
			}
			wait.Wait()
			// Nobody else may read the queue, or would take answers.
			err := newV1Caller(t, v1Now).Connect(id, q.caller(broker.DSN, mode))
			if err == nil || !strings.Contains(err.Error(), "needs a queue of its own") {
				t.Errorf("a second reader: %v", err)
			}
			if err := n.KeyAgreement(id, "aes"); err != nil {
				t.Error(err)
			}
			h.taken()
			if resp, err := n.CallSync(id, "echo", 1); err != nil || !resp.OK() {
				t.Error(resp, err)
			}
			if seen := h.taken(); len(seen) != 1 || !seen[0].sealed {
				t.Errorf("after KeyAgreement: %+v", seen)
			}
		})
	}
}

// The recorded requests octet by octet, and the properties that they have; the
// recorded answers give the recorded results. Of the agreement the client's
// ephemeral key was not recorded: the request that begins it is compared but for
// that, and the session in which the rest was said is made with the server's key.
func TestV1CallsAsRecordedQueue(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	var r v1QueueRecorded
	v1Vectors(t, "transcripts_mq.json", &r)
	cert, err := NewCertificate(r.Client)
	if err != nil {
		t.Fatal(err)
	}
	server, err := NewCertificate(r.Server)
	if err != nil {
		t.Fatal(err)
	}
	requests, answers := 0, 0
	for _, s := range r.Scenarios {
		var asked, answered []string
		for _, f := range s.Client {
			switch {
			case f.Body == "":
			case f.From == "client":
				asked = append(asked, f.Body)
			default:
				answered = append(answered, f.Body)
			}
		}
		if s.Server == nil { // published to an exchange that is not there: TestV1CallsQueueTrouble
			if len(asked) != 1 || answered != nil {
				t.Errorf("%s: %q, %q", s.Name, asked, answered)
			}
			continue
		}
		var at atomic.Int32
		sent := func() *legacy.Packet { return packetOf(t, asked[at.Load()]) }
		peer := newV1QueuePeer(t, broker)
		n := newV1Caller(t, func() time.Time { return time.Unix(sent().Time, 0) }, func(c *NodeConfig) { c.Cert = cert })
		n.v1Numbers = func() uint64 { return sent().Nonce }
		// compare takes the next message, which must be a recorded request.
		compare := func(change func(body string, recorded *legacy.Packet) string) {
			t.Helper()
			d := peer.next()
			if d.ContentType != "text/plain" || d.CorrelationId != "" || d.ReplyTo != "" || d.Type != "" || d.Headers != nil || d.DeliveryMode != 0 || d.Exchange != v1Exchange || d.Expiration == "" {
				t.Errorf("%s: sent as %+v", s.Name, d)
			}
			body, recorded := string(d.Body), sent()
			if recorded.Signature != "" {
				body = resigned(t, s.Name, body, recorded.Signature)
			}
			if change != nil {
				body = change(body, recorded)
			}
			if requests++; body != asked[at.Load()] {
				t.Errorf("%s: sent\n%s\nrecorded\n%s", s.Name, d.Body, asked[at.Load()])
			}
		}
		mode := ConnectConfig{EnableSignature: sent().Signature != "", EnableKeyAgreement: s.Agreed != nil}
		name := "peer"
		if mode.EnableKeyAgreement {
			name = server.ID()
		}
		connected := make(chan error, 1)
		go func() { connected <- n.Connect(name, peer.swapped().caller(broker.DSN, mode)) }()
		if mode.EnableKeyAgreement {
			stand := &v1Stand{t: t}
			compare(func(body string, recorded *legacy.Packet) string {
				p := packetOf(t, body)
				if stand.session, err = legacy.Respond(bytes.NewReader(server.key.Bytes()), server.key, p.Keys); err != nil {
					t.Fatal(err)
				}
				peer.send(v1Text(t, stand.answer(p, `{"status":200,"msg":"success","result":null}`)))
				return strings.Replace(body, p.Keys.InitiatorEphemeral, recorded.Keys.InitiatorEphemeral, 1)
			})
			at.Add(1)
		}
		if err := <-connected; err != nil {
			t.Fatal(s.Name, err)
		}
		params, timeout := json.RawMessage(sent().Data), 20*time.Second
		if mode.EnableKeyAgreement {
			n.v1Recorded(t, name, server, sent(), asked[0], answered[0])
			params = json.RawMessage(`{"x":1}`) // as the others
			answered = answered[1:]
			answers++
		}
		if answered == nil {
			timeout = time.Second
		}
		type result struct {
			resp *Response
			err  error
		}
		done := make(chan result, 1)
		go func() {
			resp, err := n.CallContext(t.Context(), name, sent().Method, params, &CallOptions{Timeout: timeout})
			done <- result{resp, err}
		}()
		compare(nil)
		if answered == nil { // as recorded, it was published before the client's queue was bound
			if got := <-done; StatusOf(got.err) != s.Result.Status {
				t.Errorf("%s: %+v %v, recorded %+v", s.Name, got.resp, got.err, s.Result)
			}
			continue
		}
		peer.send(answered[0])
		answers++
		var value any
		switch got := <-done; {
		case got.err != nil:
			t.Errorf("%s: %v", s.Name, got.err)
		case json.Unmarshal(got.resp.Result.(json.RawMessage), &value) != nil || got.resp.Status != s.Result.Status || got.resp.Msg != s.Result.Msg || !reflect.DeepEqual(value, s.Result.Result):
			t.Errorf("%s: %+v, recorded %+v", s.Name, got.resp, s.Result)
		}
	}
	if requests != 5 || answers != 4 {
		t.Errorf("%d requests and %d answers were compared", requests, answers)
	}
}

// What a stranger at the broker, or the peer itself, puts into the queue: nothing
// of it is an answer, runs anything, or ends anything.
func TestV1CallAttackQueue(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	for _, mode := range []string{"plain", "agreed"} {
		peer := newV1QueuePeer(t, broker)
		s := &v1Stand{t: t, peer: &v1WSPeer{key: newV1Stranger(t).key}, node: newV1Caller(t, v1Now), nonce: 2124528881292546048}
		var ran atomic.Int64
		if err := s.node.HandleFunc("ping", func(ctx *Context) { ran.Add(1); ctx.Response(ctx.PID, 200, "") }); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		// The queue is there already, with what came before.
		if _, err := peer.ch.QueueDeclare(peer.write, true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		if err := peer.ch.QueueBind(peer.write, peer.write, v1Exchange, false, nil); err != nil {
			t.Fatal(err)
		}
		for i := range 2 * maxV1Aside {
			peer.send(fmt.Sprintf(`{"r":2,"m":"internal_keyAgreement","n":%d,"d":{"status":200,"msg":"","result":1},"v":1}`, i))
		}
		peer.send(`{"r":1,"m":"ping","n":2124528881292546000,"d":null,"v":1}`)
		go func() {
			done <- s.node.Connect(s.peer.id(), peer.swapped().caller(broker.DSN, v1Modes[mode]))
		}()
		if mode == "agreed" {
			q := peer.packet()
			var err error
			if s.session, err = legacy.Respond(bytes.NewReader(s.peer.key.Bytes()), s.peer.key, q.Keys); err != nil {
				t.Fatal(err)
			}
			peer.send(v1Text(t, s.answer(q, `{"status":200,"msg":"success","result":null}`)))
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want, runs := uint64(200), int64(1)
		if mode == "agreed" {
			want, runs = 402, 0
		}
		if r := v1Result(t, peer.packet().Data); r.Status != want || ran.Load() != runs {
			t.Errorf("%s: what lay in the queue: %+v, %d runs", mode, r, ran.Load())
		}
		peer.send(`{"r":1,"m":"ping","n":2124528881292546000,"d":null,"v":1}`)
		if r := v1Result(t, peer.packet().Data); r.Status == 200 || ran.Load() != runs {
			t.Errorf("%s: a copy of it: %+v", mode, r)
		}
		call := func(answers func(q *legacy.Packet) []amqp.Publishing) (*Response, error) {
			t.Helper()
			type result struct {
				resp *Response
				err  error
			}
			got := make(chan result, 1)
			go func() {
				resp, err := s.node.CallSync(s.peer.id(), "echo", 1)
				got <- result{resp, err}
			}()
			for _, m := range answers(peer.packet()) {
				peer.publish(peer.write, m)
			}
			r := <-got
			return r.resp, r.err
		}
		text := func(body string) amqp.Publishing {
			return amqp.Publishing{ContentType: "text/plain", Body: []byte(body)}
		}
		resp, err := call(func(q *legacy.Packet) []amqp.Publishing {
			right := v1Text(t, s.answer(q, `{"status":200,"msg":"","result":"right"}`))
			forged := v1Text(t, plainly(t, q, v1Answer200))
			other := plainly(t, q, v1Answer200)
			other.Method = ""
			return []amqp.Publishing{
				text("junk"), text(""), text(`{"r":2}`), text(v1Text(t, other)), text(`{"r":1,"m":"ping"`), text(strings.Repeat("x", 5<<20)),
				{ContentType: "application/owtp", Body: []byte(forged)}, {Body: []byte(forged)}, {ContentType: "text/plain", ContentEncoding: "gzip", Body: []byte(forged)},
				text(right), text(right), text(forged),
			}
		})
		if err != nil || resp.JsonData().String() != "right" {
			t.Errorf("%s: %+v %v", mode, resp, err)
		}
		if mode == "plain" {
			continue
		}
		for what, forge := range map[string]func(q *legacy.Packet) *legacy.Packet{
			"in the clear": func(q *legacy.Packet) *legacy.Packet { return plainly(t, q, v1Answer200) },
			"mirrored": func(q *legacy.Packet) *legacy.Packet {
				p := s.answer(q, v1Answer200)
				p.Data = q.Data
				return p
			},
		} {
			resp, err = call(func(q *legacy.Packet) []amqp.Publishing { return []amqp.Publishing{text(v1Text(t, forge(q)))} })
			illegitimate(t, what, resp, err)
		}
		// The node's own requests, put back into its own queue: sealed as they are.
		resp, err = call(func(q *legacy.Packet) []amqp.Publishing {
			mine := *q
			mine.Method = "ping"
			return []amqp.Publishing{text(v1Text(t, &mine)), text(v1Text(t, s.answer(q, `{"status":200,"msg":"","result":1}`)))}
		})
		if err != nil || !resp.OK() {
			t.Error(resp, err)
		}
		if r := v1Result(t, peer.packet().Data); r.Status != 502 || ran.Load() != runs {
			t.Errorf("the node's own request: %+v", r)
		}
	}
}

// The peer calls too, and begins agreements of its own, as version 1 has it over
// brokers: only who was dialled, and as strongly as this side's calls.
func TestV1CallsBackQueue(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	peer, c := newV1QueuePeer(t, broker), newV1Stranger(t)
	n := newV1Caller(t, v1Now)
	seen := make(chan v1Seen, 8)
	if err := n.HandleFunc("ping", func(ctx *Context) {
		seen <- v1Seen{ctx.Method, ctx.PID, string(ctx.Data()), ctx.Proved(), ctx.Signed(), ctx.Peer.EnableKeyAgreement()}
		ctx.Response(json.RawMessage(ctx.Data()), 200, "")
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- n.Connect(c.key.ID().String(), peer.swapped().caller(broker.DSN, v1Modes["agreed and signed"]))
	}()
	q := peer.packet()
	if _, err := legacy.Verify(q, nil); err != nil {
		t.Error(err)
	}
	s := &v1Stand{t: t, peer: &v1WSPeer{key: c.key}}
	var err error
	if s.session, err = legacy.Respond(bytes.NewReader(c.key.Bytes()), c.key, q.Keys); err != nil {
		t.Fatal(err)
	}
	peer.send(v1Text(t, s.answer(q, `{"status":200,"msg":"success","result":null}`)))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ask := func(c *v1Stranger, p *legacy.Packet) legacy.Result {
		t.Helper()
		return c.opened(peer.ask(v1Text(t, p)))
	}
	c.signs = true
	if r := ask(c, c.begin()); r.Status != 200 {
		t.Fatalf("the peer's agreement: %+v", r)
	}
	p := c.request("ping", `{"x":1}`)
	if r := ask(c, p); r.Status != 200 {
		t.Errorf("the peer's call: %+v", r)
	}
	want := v1Seen{"ping", c.id(), `{"x":1}`, true, true, true}
	if got := v1Next(t, "the handler", seen); got != want {
		t.Errorf("the handler saw %+v, want %+v", got, want)
	}
	if r := ask(c, p); r.Status == 200 && len(seen) > 0 {
		t.Errorf("a copy: %+v", r)
	}
	c.signs = false
	if r := ask(c, c.request("ping", `{"x":1}`)); r.Status != 401 {
		t.Errorf("unsigned: %+v", r)
	}
	other := newV1Stranger(t)
	other.signs = true
	if r := v1Result(t, packetOf(t, peer.ask(v1Text(t, other.begin()))).Data); r.Status != 401 {
		t.Errorf("somebody else: %+v", r)
	}
	if len(seen) > 0 {
		t.Errorf("a handler ran: %+v", <-seen)
	}
}

// Two nodes that both dial, as version 1's own have it, call each other; in
// packets of version 0 as well, since each begins an agreement of its own.
func TestV1CallsEachOtherQueue(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	for _, old := range []bool{false, true} {
		v1CallEachOther(t, broker, old)
	}
}

func v1CallEachOther(t *testing.T, broker *servers.Server, old bool) {
	t.Helper()
	mode := v1Modes["agreed and signed"]
	mode.InsecureV1PacketVersion0 = old
	q := newV1Queue(t, broker, false)
	_, err := q.ch.QueueDeclare(q.write, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	var nodes [2]*OWTPNode
	for i := range nodes {
		nodes[i] = newV1Caller(t, v1Now)
		if err := nodes[i].HandleFunc("who", func(ctx *Context) { ctx.Response(ctx.PID, 200, "") }); err != nil {
			t.Fatal(err)
		}
	}
	var ends sync.WaitGroup
	for i, place := range []*v1Queue{q, q.swapped()} {
		if err := q.ch.QueueBind(place.read, place.read, v1Exchange, false, nil); err != nil {
			t.Fatal(err)
		}
		ends.Go(func() {
			if err := nodes[i].Connect(nodes[1-i].NodeID(), place.caller(broker.DSN, mode)); err != nil {
				t.Error(err)
			}
		})
	}
	ends.Wait()
	for range 3 {
		for i := range nodes {
			resp, err := nodes[i].CallSync(nodes[1-i].NodeID(), "who", nil)
			if err != nil || resp.JsonData().String() != "v1:"+nodes[i].NodeID() {
				t.Fatalf("%+v %v", resp, err)
			}
		}
	}
}

// What the broker says against it, in words that help; and a connection that is
// lost is made again.
func TestV1CallsQueueTrouble(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	n := newV1Caller(t, v1Now)
	q := newV1Queue(t, broker, false)
	for want, set := range map[string]func(*ConnectConfig){
		"needs Exchange":                      func(c *ConnectConfig) { c.Exchange = "" },
		"needs WriteQueueName":                func(c *ConnectConfig) { c.WriteQueueName = "" },
		"needs ReadQueueName":                 func(c *ConnectConfig) { c.ReadQueueName = "" },
		"are both":                            func(c *ConnectConfig) { c.WriteQueueName = c.ReadQueueName },
		"no other broker, not over testmq://": func(c *ConnectConfig) { c.Address = "testmq://anywhere" },
		`exchange "no.such.exchange"`:         func(c *ConnectConfig) { c.Exchange = "no.such.exchange" },
		"begins like a queue":                 func(c *ConnectConfig) { c.ReadQueueName = "owtp.reply.x" },
		"the login of account":                func(c *ConnectConfig) { c.Address, c.Account, c.Password = "amqp://"+broker.Addr, "nobody", "wrong" },
		"the peer makes it when it comes":     func(c *ConnectConfig) { c.WriteQueueName, c.EnableKeyAgreement = q.write+".nobody", true },
	} {
		cfg := q.caller(broker.DSN, ConnectConfig{})
		set(&cfg)
		if err := n.Connect("peer", cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	h := newV1QueueHost(t, q, ConnectConfig{Address: broker.DSN, EnableKeyAgreement: true})
	if err := n.Connect("peer", q.caller(broker.DSN, v1Modes["agreed"])); err != nil {
		t.Fatal(err)
	}
	if _, err := q.ch.QueueDelete(q.read, false, false, false); err != nil { // the broker ends the consuming
		t.Fatal(err)
	}
	v1Soon(t, "a call after the queue was deleted", func() bool {
		resp, err := n.CallContext(t.Context(), "peer", "echo", 1, &CallOptions{Timeout: 5 * time.Second, Repeatable: true})
		return err == nil && resp.OK()
	})
	if seen := h.taken(); len(seen) == 0 || !seen[0].sealed {
		t.Errorf("%+v", seen)
	}
}
