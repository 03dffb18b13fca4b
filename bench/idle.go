package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/owtp-go/owtp"
)

// Idle connections: the server is one process and its peers are another, so that
// what is measured is the server's alone. This process calls the server while
// they are idle, and while all of them come back at once.

// kinds of servers whose idle connections are held.
const (
	idleBare   = "bare-ws"
	idleOpen   = "owtp/ws/open"
	idleSealed = "owtp/ws/sealed"
)

var idleGroup = &group{
	name: "idle connections",
	targets: []target{
		{id: "7a", text: "an idle open WebSocket peer: memory beside a connection of the bare library", of: extraRatio("bytes "+idleOpen, "bytes "+idleBare), bound: 1.3, atMost: true},
		{id: "7b", text: "an idle sealed WebSocket peer: memory beside a connection of the bare library", of: extraRatio("bytes "+idleSealed, "bytes "+idleBare), bound: 1.3, atMost: true},
		{id: "7c", text: "goroutines of an idle sealed peer, its reader among them", of: extraValue("goroutines " + idleSealed), bound: 1, atMost: true},
		{id: "7d", text: "timers of an idle sealed peer; a heartbeat needs one for a moment", of: extraValue("timers " + idleSealed), bound: .1, atMost: true},
		{id: "7e", text: "p50 of sealed calls beside idle peers, beside p50 without them", of: extraRatio("p50 held "+idleSealed, "p50 alone "+idleSealed), bound: 1.2, atMost: true},
		{id: "7f", text: "p99 of sealed calls beside idle peers, beside p99 without them", of: extraRatio("p99 held "+idleSealed, "p99 alone "+idleSealed), bound: 1.2, atMost: true},
	},
	extra: func(r *runner, into map[string]float64) error {
		for _, kind := range []string{idleBare, idleOpen, idleSealed} {
			if err := r.holdIdle(kind, into); err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
		}
		return nil
	},
}

// footprint is what a server has, per process, after a collection.
type footprint struct {
	Address    string
	Bytes      float64 // heap and stacks
	Goroutines float64
	Timers     float64
}

func (r *runner) holdIdle(kind string, into map[string]float64) (err error) {
	server, err := startChild("serve", kind, r.idle)
	if err != nil {
		return err
	}
	defer server.end(&err)
	var at, before, held footprint
	if err := server.ask("where", &at); err != nil {
		return err
	}
	var client *owtp.OWTPNode
	if kind == idleSealed {
		if client, err = owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: roomy()}); err != nil {
			return err
		}
		defer client.Close()
		if err := client.Connect("host", idleDial(kind, at.Address)); err != nil {
			return err
		}
		if err := r.honest(client, "alone "+kind, into, nil); err != nil {
			return err
		}
	}
	if err := server.ask("weigh", &before); err != nil {
		return err
	}
	holder, err := startChild("hold", kind+" "+at.Address, r.idle)
	if err != nil {
		return err
	}
	defer holder.end(&err)
	var took float64
	if err := holder.ask("hold", &took); err != nil {
		return err
	}
	if err := server.ask("weigh", &held); err != nil {
		return err
	}
	n := float64(r.idle)
	into["bytes "+kind] = (held.Bytes - before.Bytes) / n
	into["goroutines "+kind] = (held.Goroutines - before.Goroutines) / n
	into["timers "+kind] = max(held.Timers-before.Timers, 0) / n
	into["seconds to connect "+kind] = took
	if client != nil {
		if err := r.honest(client, "held "+kind, into, nil); err != nil {
			return err
		}
		back := make(chan error, 1)
		go func() { back <- holder.ask("again", &took) }()
		if err := r.honest(client, "while all come back "+kind, into, back); err != nil {
			return err
		}
		into["seconds to come back "+kind] = took
	}
	fmt.Fprintf(r.log, "%d idle connections, %s: %.0f bytes, %.2f goroutines, %.2f timers each\n", r.idle, kind, into["bytes "+kind], into["goroutines "+kind], into["timers "+kind])
	return nil
}

// honest measures a few callers, thrice as long as a round or until done says
// something.
func (r *runner) honest(client *owtp.OWTPNode, when string, into map[string]float64, done chan error) error {
	const callers = 4
	value := formatJSON.sample(256)
	l := &line{call: func(ctx context.Context, _ int) error {
		resp, err := client.CallContext(ctx, "host", "echo", value, nil)
		if err == nil {
			err = resp.Err()
		}
		return err
	}}
	ctx := context.Background()
	crew := newCrew(callers)
	for n := 0; ; n++ {
		if err := crew.run(ctx, l, r.length); err != nil {
			return err
		}
		if n == 0 && done == nil {
			crew.forget() // it was to warm up
		}
		select {
		case err := <-done:
			if err != nil {
				return err
			}
		default:
			if done != nil || n < 3 {
				continue
			}
		}
		break
	}
	t := crew.times()
	into["p50 "+when], into["p99 "+when] = t.quantile(.5), t.quantile(.99)
	return nil
}

func idleDial(kind, address string) owtp.ConnectConfig {
	return owtp.ConnectConfig{ConnectType: owtp.Websocket, Address: address, EnableKeyAgreement: kind == idleSealed}
}

func serveIdle(kind string, n int) (answer func(string) (any, error), stop func(), err error) {
	var address string
	if kind == idleBare {
		address, stop, err = serveHTTP(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
			if err != nil {
				return
			}
			defer c.CloseNow()
			for {
				if _, _, err := c.Read(context.Background()); err != nil {
					return
				}
			}
		})})
	} else {
		limits := roomy()
		limits.MaxConns, limits.MaxConnsPerPeer = 2*n+1000, 2*n+1000
		var host *owtp.OWTPNode
		if host, err = owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: limits}); err != nil {
			return nil, nil, err
		}
		stop = func() { host.Close() }
		if err = host.HandleFunc("echo", func(c *owtp.Context) { c.Response(json.RawMessage(c.Data()), owtp.StatusSuccess, "") }); err == nil {
			err = host.Listen(idleDial(kind, "127.0.0.1:0"))
		}
		address = host.ListenerAddr(owtp.Websocket)
	}
	if err != nil {
		return nil, nil, err
	}
	return func(what string) (any, error) {
		f := footprint{Address: address}
		switch what {
		case "where":
		case "weigh":
			// What is allocated from here on until it is weighed again is
			// recorded without exception, so that timers can be counted.
			runtime.GC()
			time.Sleep(100 * time.Millisecond) // what a handshake has left behind ends
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			f.Bytes, f.Goroutines, f.Timers = float64(m.HeapAlloc+m.StackInuse), float64(runtime.NumGoroutine()), timersInUse()
			if runtime.MemProfileRate == 1 {
				runtime.MemProfileRate = 0
			} else {
				runtime.MemProfileRate = 1
			}
		default:
			return nil, fmt.Errorf("asked to %q", what)
		}
		return f, nil
	}, stop, nil
}

// timersInUse counts the timers that were made while every allocation was
// recorded, and are still reachable.
func timersInUse() (n float64) {
	records := make([]runtime.MemProfileRecord, 1<<14)
	most, ok := runtime.MemProfile(records, false)
	if !ok {
		return -1
	}
	for _, rec := range records[:most] {
		frames := runtime.CallersFrames(rec.Stack())
		for {
			f, more := frames.Next()
			if slices.Contains([]string{"time.NewTimer", "time.AfterFunc", "time.NewTicker", "time.newTimer"}, f.Function) {
				n += float64(rec.InUseObjects())
				break
			}
			if !more {
				break
			}
		}
	}
	return n
}

// holdConns has n peers, each with a node of its own where it proves itself.
func holdConns(kind, address string, n int) (answer func(string) (any, error), stop func(), err error) {
	peers := make([]idlePeer, n)
	newPeer := func() (idlePeer, error) { return &barePeer{address: address}, nil }
	if kind != idleBare {
		newPeer = func() (idlePeer, error) {
			node, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: roomy()})
			return &ownPeer{node, idleDial(kind, address)}, err
		}
	}
	for i := range peers {
		if peers[i], err = newPeer(); err != nil {
			return nil, nil, err
		}
	}
	stop = func() {
		_ = inTurns(peers, func(p idlePeer) error { p.part(); return nil })
	}
	return func(what string) (any, error) {
		if what != "hold" && what != "again" {
			return nil, fmt.Errorf("asked to %q", what)
		}
		if what == "again" {
			if err := inTurns(peers, func(p idlePeer) error { p.part(); return nil }); err != nil {
				return nil, err
			}
		}
		begin := time.Now()
		err := inTurns(peers, idlePeer.join)
		return time.Since(begin).Seconds(), err
	}, stop, nil
}

// inTurns does it for all, some hundreds at a time.
func inTurns(peers []idlePeer, f func(idlePeer) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range min(512, len(peers)) {
		all.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(peers) && failed.Load() == nil; i = next.Add(1) - 1 {
				if err := f(peers[i]); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

type idlePeer interface {
	join() error
	part()
}

// A barePeer reads, so that the library answers pings.
type barePeer struct {
	address string
	conn    *websocket.Conn
}

func (p *barePeer) join() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p.conn, _, err = websocket.Dial(ctx, "ws://"+p.address+"/", &websocket.DialOptions{CompressionMode: websocket.CompressionDisabled})
	if err == nil {
		p.conn.CloseRead(context.Background())
	}
	return err
}

func (p *barePeer) part() {
	if p.conn != nil {
		_ = p.conn.CloseNow()
	}
}

type ownPeer struct {
	node *owtp.OWTPNode
	at   owtp.ConnectConfig
}

func (p *ownPeer) join() error {
	err := errors.New("not tried")
	// A server that is flooded says 503, which asks for another attempt.
	for range 20 {
		if err = p.node.Connect("host", p.at); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

func (p *ownPeer) part() { p.node.ClosePeer("host") }
