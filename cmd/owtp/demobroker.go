package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/contrib/nats/broker"
)

// A demoBroker is a message broker with its owner, who is the attacker, and the
// two replicas of a server that listen nowhere else.
type demoBroker struct {
	broker   *broker.Broker
	password string
	owner    *natsgo.Conn
	ear      *natsgo.Subscription
	replicas [2]*owtp.OWTPNode
	served   [2]atomic.Int64 // greetings, by replica

	mu   sync.Mutex
	seen conversation
}

// start returns what ends it, in the order in which it has to be ended last to
// first, also when it fails.
func (d *demoBroker) start(client string, handle func(n *owtp.OWTPNode, greeted func()) error) (closers []func(), err error) {
	cert := owtp.NewRandomCertificate()
	d.password = rand.Text()
	d.broker, err = broker.Start(broker.Options{Users: []broker.User{
		{Name: "owner", Password: d.password},
		allowedNode("server", d.password, cert.ID(), cert.ID()),
		allowedNode("client", d.password, client, cert.ID()),
	}})
	if err != nil {
		return nil, err
	}
	closers = append(closers, func() { d.broker.Close() })
	gone := make(chan struct{})
	d.owner, err = natsgo.Connect(d.broker.URL(), natsgo.UserInfo("owner", d.password), natsgo.NoReconnect(),
		natsgo.ClosedHandler(func(*natsgo.Conn) { close(gone) }))
	if err != nil {
		return closers, err
	}
	closers = append(closers, func() { d.owner.Close(); <-gone })
	if d.ear, err = d.owner.Subscribe(">", d.see); err != nil {
		return closers, err
	}
	for i := range d.replicas {
		n, err := owtp.New(owtp.NodeConfig{Cert: cert})
		if err != nil {
			return closers, err
		}
		d.replicas[i] = n
		closers = append(closers, func() { n.Close() })
		if err := handle(n, func() { d.served[i].Add(1) }); err != nil {
			return closers, err
		}
		if err := n.Listen(d.config("server")); err != nil {
			return closers, err
		}
	}
	return closers, d.owner.Flush()
}

// allowedNode is an account that may do what a node needs, and no more. serves is
// the queue of its own or of the node that it calls.
func allowedNode(name, password, id, serves string) broker.User {
	u := broker.User{
		Name: name, Password: password,
		Publish:   []string{"owtp.own.>", "owtp.reply.>"},
		Subscribe: []string{"owtp.own." + id + ".>", "owtp.reply." + id + ".>"},
	}
	if id == serves {
		u.Subscribe = append(u.Subscribe, nodeQueue+id+" owtp")
	} else {
		u.Publish = append(u.Publish, nodeQueue+serves)
	}
	return u
}

func (d *demoBroker) config(account string) owtp.ConnectConfig {
	return owtp.ConnectConfig{ConnectType: owtp.MQ, Address: d.broker.URL(), Account: account, Password: d.password}
}

// see is called with whatever passes the broker.
func (d *demoBroker) see(m *natsgo.Msg) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = append(d.seen, m)
}

// A conversation is what the broker's owner has seen.
type conversation []*natsgo.Msg

// requests are what wants an answer.
func (c conversation) requests() (all conversation) {
	for _, m := range c {
		if m.Reply != "" {
			all = append(all, m)
		}
	}
	return all
}

// answers is how many answers to the request there are.
func (c conversation) answers(request *natsgo.Msg) (n int) {
	for _, m := range c {
		if m.Subject == request.Reply {
			n++
		}
	}
	return n
}

func (c conversation) says(word string) bool {
	for _, m := range c {
		if bytes.Contains(m.Data, []byte(word)) {
			return true
		}
	}
	return false
}

// complete reports whether there is a request and each one is answered as often
// as it was made: the owner hears an answer later than who asked.
func (c conversation) complete() bool {
	asked := make(map[string]int)
	for _, m := range c.requests() {
		if asked[m.Reply]++; asked[m.Reply] > c.answers(m) {
			return false
		}
	}
	return len(asked) > 0
}

// demoQuiet is how long nothing is said when somebody has finished.
const demoQuiet = 10 * time.Millisecond

// overhear returns what is said while talk runs, to its end.
func (d *demoBroker) overhear(ctx context.Context, talk func() error) (conversation, error) {
	ctx, cancel := context.WithTimeout(ctx, demoCallTime)
	defer cancel()
	before := -1
	for now := d.length(); now != before; now = d.length() {
		before = now
		pause(ctx, demoQuiet)
	}
	if err := talk(); err != nil {
		return nil, err
	}
	for last := -1; ; {
		d.mu.Lock()
		heard := conversation(d.seen[before:])
		d.mu.Unlock()
		if len(heard) == last && heard.complete() {
			return heard, nil
		}
		last = len(heard)
		if !pause(ctx, demoQuiet) {
			return nil, errors.New("the broker's owner has not heard the call, so the demonstration shows nothing")
		}
	}
}

func (d *demoBroker) length() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.seen)
}

// send sends recorded requests again, bit for bit.
func (d *demoBroker) send(requests conversation) error {
	for _, m := range requests {
		if err := d.owner.PublishMsg(&natsgo.Msg{Subject: m.Subject, Reply: m.Reply, Header: m.Header, Data: m.Data}); err != nil {
			return err
		}
	}
	return d.owner.Flush()
}
