package owtp

import (
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/servers"
)

// Version 1 over RabbitMQ: the recorded exchanges, and what attackers do who have
// an account at the broker.

// A v1Queue is the place of a version 1 node at a broker: the queue that it reads
// and the one that it writes to, made as such nodes make them.
type v1Queue struct {
	t          testing.TB
	ch         *amqp.Channel
	read       string
	write      string
	deliveries <-chan amqp.Delivery
}

const v1Exchange = "amq.direct"

// newV1Queue declares the queue that the peer reads, and binds it where it is to
// get answers.
func newV1Queue(t testing.TB, broker *servers.Server, bind bool) *v1Queue {
	t.Helper()
	conn, err := amqp.Dial(broker.DSN)
	if err != nil {
		t.Fatal("the broker refuses the test's own connection")
	}
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	name := "v1." + strings.ReplaceAll(t.Name(), "/", ".") + fmt.Sprint(v1Queues.Add(1))
	c := &v1Queue{t: t, ch: ch, read: name + ".client", write: name + ".server"}
	if _, err := ch.QueueDeclare(c.read, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if bind {
		c.bind()
	}
	t.Cleanup(func() {
		for _, q := range []string{c.read, c.write, c.write + ".dead"} {
			_, _ = ch.QueueDelete(q, false, false, false)
		}
		_ = conn.Close()
	})
	return c
}

var v1Queues atomic.Int64

func (c *v1Queue) bind() {
	c.t.Helper()
	err := c.ch.QueueBind(c.read, c.read, v1Exchange, false, nil)
	if err == nil {
		c.deliveries, err = c.ch.Consume(c.read, "ctag-client-2", true, false, false, false, nil)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// config is that of a listener which this peer calls.
func (c *v1Queue) config(address string) ConnectConfig {
	return ConnectConfig{ConnectType: MQ, Address: address, Exchange: v1Exchange, ReadQueueName: c.write, WriteQueueName: c.read}
}

func (c *v1Queue) send(body string) {
	c.t.Helper()
	c.publish(c.write, amqp.Publishing{ContentType: "text/plain", Body: []byte(body)})
}

func (c *v1Queue) publish(queue string, m amqp.Publishing) {
	c.t.Helper()
	if err := c.ch.Publish(v1Exchange, queue, false, false, m); err != nil {
		c.t.Fatal(err)
	}
}

// next is the next message that comes to the peer.
func (c *v1Queue) next() amqp.Delivery {
	c.t.Helper()
	return v1Next(c.t, "a message to the peer", c.deliveries)
}

// v1Next is the next of a channel, which must come and not end.
func v1Next[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v, open := <-ch:
		if !open {
			t.Fatalf("%s: the channel has ended", what)
		}
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not come", what)
		panic("unreachable")
	}
}

// v1Soon waits for what must become true.
func v1Soon(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func (c *v1Queue) ask(body string) string {
	c.t.Helper()
	c.send(body)
	return string(c.next().Body)
}

// quiet fails if something has come that was not asked for. A last question that
// is answered shows that all before it was dealt with, or is about to be.
func (c *v1Queue) quiet(why string) {
	c.t.Helper()
	const last = `{"r":1,"m":"nosuch","n":77,"d":null,"v":1}`
	if got := c.ask(last); !strings.Contains(got, `"n":77,`) {
		c.t.Errorf("%s: there is an answer: %s", why, got)
	}
}

// dead takes the next dead letter.
func (c *v1Queue) dead() amqp.Delivery {
	c.t.Helper()
	var d amqp.Delivery
	v1Soon(c.t, "a dead letter", func() (ok bool) {
		var err error
		if d, ok, err = c.ch.Get(c.write+".dead", true); err != nil {
			c.t.Fatal(err)
		}
		return ok
	})
	return d
}

// newV1QueueHost is a host behind the queue that the peer writes to.
func newV1QueueHost(t testing.TB, c *v1Queue, cfg ConnectConfig, change ...func(*NodeConfig)) *v1Host {
	t.Helper()
	q := c.config(cfg.Address)
	cfg.ConnectType, cfg.Exchange, cfg.ReadQueueName, cfg.WriteQueueName = q.ConnectType, q.Exchange, q.ReadQueueName, q.WriteQueueName
	return newV1Host(t, cfg, change...)
}

// v1QueueRecorded are the recorded exchanges over RabbitMQ, as their server's
// connection shows them.
type v1QueueRecorded struct {
	Client    string `json:"client_private"`
	Server    string `json:"server_private"`
	Scenarios []struct {
		Name   string
		Server []v1QueueFrame `json:"server_connection"`
		Client []v1QueueFrame `json:"client_connection"`
		Agreed []string       `json:"agreed_keys"`
		Result v1ClientResult `json:"client_result"`
	}
}

type v1QueueFrame struct {
	From, Method, Queue, Body string
	Exchange                  string
	Durable, Exclusive        bool
	ContentType               string `json:"content_type"`
	Flags                     string `json:"property_flags_hex"`
}

// v1QueueOtherwise are the recorded answers that a node of ours does not give.
var v1QueueOtherwise = map[string]string{
	// The key that signs is in the packet: no header is needed to verify it.
	"mq_signed/0": `plain {"status":200,"msg":"success","result":{"from":"54dZTdotBmE9geGJmJcj7Qzm6fzNrEUJ2NcDwZYp2QEp","params":"{\"x\":1}"}}`,
}

func TestV1RecordedQueue(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	var r v1QueueRecorded
	v1Vectors(t, "transcripts_mq.json", &r)
	cert, err := NewCertificate(r.Server)
	if err != nil {
		t.Fatal(err)
	}
	same, otherwise := 0, 0
	for _, s := range r.Scenarios {
		if s.Server == nil { // the exchange without a name, which is refused: TestV1QueueConfigurations
			continue
		}
		c := newV1Queue(t, broker, true)
		h := newV1QueueHost(t, c, ConnectConfig{Address: broker.DSN, EnableSignature: s.Name == "mq_signed"}, func(c *NodeConfig) { c.Cert = cert })
		h.static()
		h.node.Use(recordedEcho)
		asked, n := "", 0
		for _, f := range s.Server {
			switch p, _ := legacy.ParsePacket([]byte(f.Body), 1<<20); {
			case f.Body == "":
			case f.From == "broker":
				asked = f.Body
				h.now.Store(p.Time * 1000)
			default:
				h.now.Store(p.Time * 1000)
				c.send(asked)
				d := c.next()
				name := fmt.Sprintf("%s/%d", s.Name, n)
				n++
				if d.ContentType != "text/plain" || d.CorrelationId != "" || d.ReplyTo != "" || d.Type != "" || d.Headers != nil || d.Exchange != v1Exchange || d.RoutingKey != c.read {
					t.Errorf("%s: answered as %+v", name, d)
				}
				if want := v1QueueOtherwise[name]; want != "" {
					otherwise++
					if inside := h.inside(asked, string(d.Body)); inside != want {
						t.Errorf("%s: got %s\nwant %s", name, inside, want)
					}
					continue
				}
				same++
				if string(d.Body) != f.Body {
					t.Errorf("%s: got\n%s\nrecorded\n%s", name, d.Body, f.Body)
				}
			}
		}
	}
	if same != 4 || otherwise != len(v1QueueOtherwise) {
		t.Errorf("%d answers are the recorded ones, %d others are not", same, otherwise)
	}
}

// recordedEcho answers as the recorded nodes' handlers did.
func recordedEcho(HandlerFunc) HandlerFunc {
	return func(ctx *Context) {
		if ctx.Method != "echo" {
			ctx.Response(nil, ErrNotFoundMethod, "can not find method")
			return
		}
		ctx.Response(struct {
			From   string `json:"from"`
			Params string `json:"params"`
		}{ctx.Node().NodeID(), string(ctx.Data())}, StatusSuccess, "success")
	}
}

// The modes over a queue, under every floor that they reach. Nothing is asked of
// version 1 peers that they do not do: no reply queue, no correlation, no
// confirmation.
func TestV1QueueModes(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	q := newV1Queue(t, broker, true)
	h := newV1QueueHost(t, q, ConnectConfig{Address: broker.DSN})
	for _, mode := range []struct{ signs, agrees bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		c := newV1Stranger(t)
		c.signs = mode.signs
		if mode.agrees {
			if r := c.opened(q.ask(v1Text(t, c.begin()))); r.Status != 200 || c.session == nil {
				t.Fatalf("%+v: no agreement: %+v", mode, r)
			}
		}
		for range 2 {
			if r := c.opened(q.ask(v1Text(t, c.request("echo", `{"x":1}`)))); r.Status != 200 || string(r.Result) != `{"x":1}` {
				t.Errorf("%+v: %+v", mode, r)
			}
		}
		for _, seen := range h.taken() {
			if seen.signed != mode.signs || seen.proved != mode.signs || seen.sealed != mode.agrees || mode.signs != (seen.pid == c.id()) {
				t.Errorf("%+v: the handler saw %+v", mode, seen)
			}
		}
		// Nobody can be called back: a queue belongs to no peer.
		if r := c.opened(q.ask(v1Text(t, c.request("callback", "1")))); r.Status != ErrNetworkDisconnected {
			t.Errorf("%+v: called back: %+v", mode, r)
		}
		h.taken()
	}
	// The first call before the peer's own queue is bound loses its answer, as it
	// does between version 1's own nodes, and no other.
	late := newV1Queue(t, broker, false)
	h = newV1QueueHost(t, late, ConnectConfig{Address: broker.DSN})
	ran := make(chan struct{}, 1)
	if err := h.node.HandleFunc("early", func(*Context) { ran <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	late.send(`{"r":1,"m":"early","n":1,"v":1}`)
	v1Next(t, "the early request's handler", ran)
	h.node.Shutdown(t.Context())
	late.bind()
	h = newV1QueueHost(t, late, ConnectConfig{Address: broker.DSN})
	late.quiet("before the queue was bound")
}

// What a listener for version 1 over a broker must be told, and in which words it
// refuses.
func TestV1QueueConfigurations(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	n := lifeNode(t, NodeConfig{Cert: NewRandomCertificate()})
	for want, set := range map[string]func(*ConnectConfig){
		"needs Exchange":                         func(c *ConnectConfig) { c.Exchange = "" },
		"needs WriteQueueName":                   func(c *ConnectConfig) { c.WriteQueueName = "" },
		`both "r"`:                               func(c *ConnectConfig) { c.WriteQueueName = c.ReadQueueName },
		"no other broker, not over testmq://":    func(c *ConnectConfig) { c.Address = "testmq://anywhere" },
		"WriteQueueName is for Connect":          func(c *ConnectConfig) { c.AllowV1 = false },
		"begins like a queue":                    func(c *ConnectConfig) { c.WriteQueueName = "owtp.reply.x" },
		`exchange "no.such.exchange"`:            func(c *ConnectConfig) { c.Exchange = "no.such.exchange" },
		"WriteQueueName: a name of 201 bytes":    func(c *ConnectConfig) { c.WriteQueueName = strings.Repeat("w", 201) },
		"V1Cert has no meaning without AllowV1":  func(c *ConnectConfig) { c.AllowV1, c.WriteQueueName, c.V1Cert = false, "", NewRandomCertificate() },
		"AllowV1 with AllowPeers needs AllowV1P": func(c *ConnectConfig) { c.AllowPeers = []string{n.NodeID()} },
	} {
		cfg := ConnectConfig{ConnectType: MQ, Address: broker.DSN, AllowV1: true, Exchange: v1Exchange, ReadQueueName: "r", WriteQueueName: "w"}
		set(&cfg)
		if err := n.Listen(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// Whatever a stranger at the broker writes, no answer goes elsewhere, nothing
// runs that is not a request, what cannot be read is kept for who looks after it,
// and the node goes on.
func TestV1AttackQueueJunk(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	q := newV1Queue(t, broker, true)
	h := newV1QueueHost(t, q, ConnectConfig{Address: broker.DSN}, func(c *NodeConfig) { c.Limits.MaxMessage = 64 << 10 })
	for _, body := range []string{
		"", "hello", "{", "[]", "1", `"x"`, "null", "\xff\xfe", strings.Repeat("[", 5000), `{"r":1,"m":1}`, `{"r":-1,"m":"echo"}`, `{"r":1,"m":"echo","n":18446744073709551616}`,
		`{"r":1,"m":"` + strings.Repeat("e", 129) + `"}`, `{"r":1,"m":"echo"} {"r":1,"m":"echo"}`, `{"r":1,"m":"echo","d":"` + strings.Repeat("x", 64<<10) + `"}`,
	} {
		q.send(body)
		if d := q.dead(); string(d.Body) != body {
			t.Errorf("%.40q: the dead letter is %.40q", body, d.Body)
		}
	}
	// Responses, of which this node waits for none, and kinds that do not exist.
	for _, body := range []string{`{"r":2}`, `{"r":2,"m":"","n":5}`, `{"r":2,"m":"echo","n":5,"d":{"status":200,"msg":"","result":1}}`, `{"r":3,"m":"echo"}`, `{"r":0,"m":"echo"}`, `{}`} {
		q.send(body)
	}
	q.quiet("responses")
	h.untouched("what is no request")
	// Queues that others read, named for the answer in all ways that there are.
	victim := newV1Queue(t, broker, true)
	reply, err := victim.ch.QueueDeclare("owtp.reply.victim."+fmt.Sprint(time.Now().UnixNano()), false, true, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, to := range []string{victim.read, victim.write, reply.Name, q.write, "amq.direct", strings.Repeat("x", 255)} {
		m := amqp.Publishing{
			ContentType: "text/plain", ReplyTo: to, CorrelationId: to, Type: "owtp.refusal", Headers: amqp.Table{"reply-to": to, "status": int32(200)},
			Body: fmt.Appendf(nil, `{"r":1,"m":"getInfo","n":%d,"reply":%q,"from":%[2]q,"to":%[2]q,"v":1}`, i+1, to),
		}
		for _, status := range []uint64{200, 409} { // once more it is a copy
			q.publish(q.write, m)
			d := q.next()
			if r := v1Result(t, packetOf(t, string(d.Body)).Data); r.Status != status || d.CorrelationId != "" || d.Headers != nil || d.Type != "" || d.RoutingKey != q.read {
				t.Errorf("answered %+v as %+v", r, d)
			}
		}
	}
	victim.deliverNothing(reply.Name)
	h.taken()
	q.quiet("all of it")
}

// deliverNothing fails if something has come to the peer or lies in a queue.
func (c *v1Queue) deliverNothing(queue string) {
	c.t.Helper()
	select {
	case d := <-c.deliveries:
		c.t.Errorf("a stranger's queue got %s", d.Body)
	default:
	}
	if q, err := c.ch.QueueDeclarePassive(queue, false, true, true, false, nil); err != nil || q.Messages != 0 {
		c.t.Errorf("a stranger's queue has %d messages, %v", q.Messages, err)
	}
}

func packetOf(t testing.TB, body string) *legacy.Packet {
	t.Helper()
	p, err := legacy.ParsePacket([]byte(body), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Copies of what has run, on this queue and on other ways, run nothing; neither
// does what is signed by somebody else, or by nobody.
func TestV1AttackQueueReplay(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	q := newV1Queue(t, broker, true)
	h := newV1QueueHost(t, q, ConnectConfig{Address: broker.DSN})
	h.addr = h.listen(ConnectConfig{})
	signed, sealed, victim := newV1Stranger(t), newV1Stranger(t), newV1Stranger(t)
	signed.signs = true
	sealed.opened(q.ask(v1Text(t, sealed.begin())))
	for what, body := range map[string]string{
		"plain": `{"r":1,"m":"echo","n":5,"t":1,"d":{"x":1},"v":1}`, "signed": v1Text(t, signed.request("echo", `{"x":1}`)), "sealed": v1Text(t, sealed.request("echo", `{"x":1}`)),
	} {
		c := map[string]*v1Stranger{"plain": victim, "signed": signed, "sealed": sealed}[what]
		if r := c.opened(q.ask(body)); r.Status != 200 || len(h.taken()) != 1 {
			t.Fatalf("%s: %+v", what, r)
		}
		for range 3 {
			h.refused("a copy of what is "+what, c.opened(q.ask(body)), 409)
		}
	}
	// What was signed for a queue is a copy over HTTP, and the other way round.
	body := v1Text(t, signed.request("echo", "1"))
	if r := signed.opened(q.ask(body)); r.Status != 200 {
		t.Fatalf("%+v", r)
	}
	h.taken()
	h.refused("a copy over HTTP", signed.opened(h.post(body, signed.announce())), 409)
	body = v1Text(t, signed.request("echo", "2"))
	if r := signed.opened(h.post(body, signed.announce())); r.Status != 200 {
		t.Fatalf("%+v", r)
	}
	h.taken()
	h.refused("a copy over a queue", signed.opened(q.ask(body)), 409)
	// Forged: another's key beside one's signature, one's key beside another's
	// packet, none at all.
	p := signed.request("echo", "3")
	p.Keys.Initiator = victim.announce()
	h.refused("another's key", signed.opened(q.ask(v1Text(t, p))), 401)
	p = signed.request("echo", "3")
	p.Keys.Initiator = ""
	h.refused("no key", signed.opened(q.ask(v1Text(t, p))), 401)
	p = signed.request("echo", "3")
	p.Method = "getInfo"
	h.refused("another method", signed.opened(q.ask(v1Text(t, p))), 401)
	p = victim.request("echo", "4")
	p.Keys.Initiator = signed.announce()
	if r := victim.opened(q.ask(v1Text(t, p))); r.Status != 200 {
		t.Errorf("%+v", r)
	}
	if seen := h.taken(); len(seen) != 1 || seen[0].proved || !strings.HasPrefix(seen[0].pid, "anon:") {
		t.Errorf("with another's key and no signature: %+v", seen)
	}
	// It may lie in a queue as long as its caller waits, and no longer.
	old := v1Text(t, signed.request("echo", "5"))
	older := v1Text(t, signed.request("echo", "6"))
	h.now.Add((h.node.timeout() - time.Second).Milliseconds())
	if r := signed.opened(q.ask(old)); r.Status != 200 {
		t.Errorf("after a minute in the queue: %+v", r)
	}
	h.taken()
	h.now.Add(3000)
	h.refused("a copy of it", signed.opened(q.ask(old)), 409)
	h.refused("when nobody waits", signed.opened(q.ask(older)), 409)
}

// viaRelay is a broker's address by way of a relay.
func viaRelay(t testing.TB, broker *servers.Server, r *servers.Relay) string {
	t.Helper()
	u, err := url.Parse(broker.DSN)
	if err != nil {
		t.Fatal("the broker's DSN is not a URL")
	}
	u.Host = r.Addr()
	return u.String()
}

// attemptsThatWait counts those that wait for a call that runs.
func (n *OWTPNode) attemptsThatWait() (waiting int) {
	n.claims.mu.Lock()
	defer n.claims.mu.Unlock()
	for _, c := range n.claims.running {
		waiting += int(c.waiting.Load())
	}
	return waiting
}

// What the broker delivers again runs once: on a node that knows it the second
// delivery waits for the first one's answer, and where nobody knows what became
// of it the caller is told so, and nothing runs.
func TestV1QueueRedelivery(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	relay := servers.NewRelay(t, broker.Addr)
	q := newV1Queue(t, broker, true)
	h := newV1QueueHost(t, q, ConnectConfig{Address: viaRelay(t, broker, relay)})
	began, wake := make(chan string, 16), make(chan struct{})
	slow := func(ctx *Context) {
		began <- ctx.PID
		<-wake
		ctx.Response("slow", 200, "success")
	}
	if err := h.node.HandleFunc("slow", slow); err != nil {
		t.Fatal(err)
	}
	signed, sealed, old, plain := newV1Stranger(t), newV1Stranger(t), newV1Stranger(t), newV1Stranger(t)
	signed.signs, old.version = true, 0
	all := []*v1Stranger{signed, sealed, old, plain}
	for _, c := range []*v1Stranger{sealed, old} {
		c.opened(q.ask(v1Text(t, c.begin())))
	}
	var who map[uint64]*v1Stranger // who has sent what was sent last
	// next is the next answer to one of these. What was answered before has its
	// answer once more if its acknowledgement was lost with the connection.
	next := func() (body string, nonce uint64) {
		for {
			body = string(q.next().Body)
			if nonce = packetOf(t, body).Nonce; who[nonce] != nil {
				return body, nonce
			}
		}
	}
	send := func() {
		who = make(map[uint64]*v1Stranger)
		for i, c := range all {
			c.nonce += uint64(i) << 10
			p := c.request("slow", `{"x":1}`)
			who[p.Nonce] = c
			q.send(v1Text(t, p))
		}
		for range all {
			v1Next(t, "a handler", began)
		}
	}
	send()
	relay.Cut(false) // the broker delivers all of them again, to the same node
	v1Soon(t, "the second deliveries wait", func() bool { return h.node.attemptsThatWait() == len(all) })
	close(wake)
	answers := make(map[uint64]int)
	for range 2 * len(all) { // each of the two deliveries is answered
		body, n := next()
		answers[n]++
		if r := who[n].opened(body); r.Status != 200 || string(r.Result) != `"slow"` {
			t.Errorf("%+v", r)
		}
	}
	if len(answers) != len(all) || len(began) != 0 {
		t.Errorf("answers %v; %d handlers ran again", answers, len(began))
	}
	// The process is gone, and with it what it knew.
	wake = make(chan struct{})
	send()
	relay.Cut(true)
	after := newV1QueueHost(t, q, ConnectConfig{Address: broker.DSN}, func(c *NodeConfig) { c.Cert = h.node.Certificate() })
	if err := after.node.HandleFunc("slow", slow); err != nil {
		t.Fatal(err)
	}
	after.node.state.born = time.Unix(v1Time+1, 0)
	for range all {
		body, n := next()
		if r := who[n].opened(body); r.Status != ErrOutcomeUnknown {
			t.Errorf("after a crash: %+v", r)
		}
	}
	close(wake)
	if len(began) != 0 {
		t.Error("a handler ran again")
	}
	after.untouched("what was delivered again")
}

// One queue, both versions: neither sees anything of the other, what is of one is
// nothing in the other's clothes, and the same key is two peers.
func TestV1BesideVersion2OnAQueue(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	q := newV1Queue(t, broker, true)
	h := newV1QueueHost(t, q, ConnectConfig{Address: broker.DSN}, func(c *NodeConfig) { c.Limits.MaxRequestsPerPeer = 4 })
	h.node.now = time.Now
	if err := h.node.HandleFunc("keep", v1Keep); err != nil {
		t.Fatal(err)
	}
	c := newV1Stranger(t)
	c.signs, c.now = true, time.Now().Unix()
	if r := c.opened(q.ask(v1Text(t, c.request("keep", "null")))); r.Status != 200 || string(r.Result) != `"`+c.id()+`"` {
		t.Errorf("version 1: %+v", r)
	}
	client := lifeNode(t, NodeConfig{Cert: Certificate{c.key}})
	if c.id() != v1ID(client.local.Key.ID()) {
		t.Fatal("not the same key")
	}
	for i, mode := range []ConnectConfig{{EnableSignature: true}, {EnableKeyAgreement: true}, {EnableSignature: true, EnableKeyAgreement: true}} {
		mode.ConnectType, mode.Address, mode.Exchange, mode.WriteQueueName = MQ, broker.DSN, v1Exchange, q.write
		name := fmt.Sprint("host", i)
		if err := client.Connect(name, mode); err != nil {
			t.Fatal(err)
		}
		resp, err := client.CallSync(name, "keep", nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := uint64(200 + 401*min(i, 1)); resp.Status != want || fmt.Sprint(resp.JsonData()) != client.NodeID() {
			t.Errorf("version 2, %v: %d %v", mode, resp.Status, resp.JsonData())
		}
	}
	if r := c.opened(q.ask(v1Text(t, c.request("keep", "null")))); r.Status != 601 || string(r.Result) != `"`+c.id()+`"` {
		t.Errorf("version 1 again: %+v", r)
	}
	// A packet of one as one of the other.
	for _, body := range h.version2("keep", c.key) {
		q.send(string(body))
	}
	q.quiet("packets of version 2 as version 1")
	for range 2 {
		q.dead()
	}
	for _, typ := range []string{"application/owtp", "application/owtp+json", "", "application/json", "text/plain; charset=utf-8"} {
		q.publish(q.write, amqp.Publishing{ContentType: typ, Body: []byte(v1Text(t, c.request("keep", "null")))})
		q.dead()
	}
	h.untouched("in the other's clothes")
	// Who is not proved has a share in each version, and uses up none in the other.
	wake, began := make(chan struct{}), make(chan struct{}, 64)
	if err := h.node.HandleFunc("hold", func(*Context) { began <- struct{}{}; <-wake }); err != nil {
		t.Fatal(err)
	}
	open := lifeNode(t, NodeConfig{Cert: NewRandomCertificate()})
	if err := open.Connect("open", ConnectConfig{ConnectType: MQ, Address: broker.DSN, Exchange: v1Exchange, WriteQueueName: q.write}); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		q.send(fmt.Sprintf(`{"r":1,"m":"hold","n":%d,"v":1}`, 100+i))
		v1Next(t, "a handler", began)
	}
	if r := v1Result(t, packetOf(t, q.ask(`{"r":1,"m":"hold","n":200,"v":1}`)).Data); r.Status != 429 {
		t.Errorf("over version 1's share: %+v", r)
	}
	if resp, err := open.CallSync("open", "echo", 2); err != nil || resp.JsonData().Raw != "2" {
		t.Errorf("version 2, while version 1 has used up its share: %+v, %v", resp, err)
	}
	close(wake)
	for range 4 {
		q.next()
	}
	if peers := h.node.OnlinePeers(); len(peers) != 0 {
		t.Errorf("peers over a queue are online: %v", peers)
	}
}

// v1Keep remembers its first caller under the caller's ID.
func v1Keep(ctx *Context) {
	if v := ctx.GetSession("k"); v != nil {
		ctx.Response(v, 601, "")
		return
	}
	ctx.Response(ctx.PID, 200, "")
	if err := ctx.SetSession("k", ctx.PID); err != nil {
		ctx.Response(nil, 602, err.Error())
	}
}
