package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp"
)

// A demoStage is everybody who plays: a server, a client, an impostor, and what
// an attacker holds, the wires between them and a message broker.
type demoStage struct {
	server, client, impostor *owtp.OWTPNode

	taps    map[string]*tap // by transport
	queue   *demoBroker
	proxy   *tamperProxy
	greeted atomic.Int64 // how often the server ran a greeting
	fooled  atomic.Int64 // how often the impostor was called
	closers []func()
}

// demoCallTime bounds one call.
const demoCallTime = 5 * time.Second

func newDemoStage() (*demoStage, error) {
	s := &demoStage{taps: make(map[string]*tap), queue: new(demoBroker)}
	if err := s.start(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *demoStage) start() (err error) {
	for _, node := range []**owtp.OWTPNode{&s.server, &s.client, &s.impostor} {
		n, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate()})
		if err != nil {
			return err
		}
		*node = n
		s.closers = append(s.closers, func() { n.Close() })
	}
	if err := errors.Join(
		s.server.HandleFunc("greet", s.greet),
		s.server.HandleFunc("introduce", introduce),
		s.client.HandleFunc("whoAreYou", func(ctx *owtp.Context) {
			ctx.Response("the client", owtp.StatusSuccess, "success")
		}),
		s.impostor.HandleFunc("greet", func(ctx *owtp.Context) { s.fooled.Add(1); s.greet(ctx) }),
	); err != nil {
		return err
	}
	for _, kind := range []string{owtp.HTTP, owtp.Websocket} {
		for _, node := range []*owtp.OWTPNode{s.server, s.impostor} {
			if err := node.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: kind}); err != nil {
				return err
			}
		}
		t, err := newTap(s.server.ListenerAddr(kind))
		if err != nil {
			return err
		}
		s.closers = append(s.closers, t.close)
		s.taps[kind] = t
	}
	if s.proxy, err = newTamperProxy(s.server.ListenerAddr(owtp.HTTP)); err != nil {
		return err
	}
	s.closers = append(s.closers, s.proxy.close)
	closers, err := s.queue.start(s.client.NodeID(), s.handleQueue)
	s.closers = append(s.closers, closers...)
	return err
}

// handleQueue binds the same methods to a server behind the broker.
func (s *demoStage) handleQueue(n *owtp.OWTPNode, greeted func()) error {
	return errors.Join(
		n.HandleFunc("greet", func(ctx *owtp.Context) { greeted(); s.greet(ctx) }),
		n.HandleFunc("introduce", introduce),
	)
}

// close ends everybody, the wires first.
func (s *demoStage) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}

// greet answers with a word of the caller's, so that the eavesdropper has
// something to look for.
func (s *demoStage) greet(ctx *owtp.Context) {
	s.greeted.Add(1)
	ctx.Response(map[string]any{"greeting": "hello " + ctx.Params().Get("name").String()}, owtp.StatusSuccess, "success")
}

// introduce asks the caller in turn.
func introduce(ctx *owtp.Context) {
	resp, err := ctx.Node().CallContext(ctx.Context(), ctx.PID, "whoAreYou", nil, nil)
	if err != nil {
		ctx.Response(nil, owtp.ErrInternalServerError, err.Error())
		return
	}
	ctx.Response(map[string]any{"met": resp.JsonData().String()}, owtp.StatusSuccess, "success")
}

func (s *demoStage) parts() []demoPart {
	modes := func(kind string) []demoStep {
		return []demoStep{
			{textOpen, func(ctx context.Context) error { return s.proveOpen(ctx, kind) }},
			{textSigned, func(ctx context.Context) error { return s.proveSigned(ctx, kind) }},
			{textSealedAES, func(ctx context.Context) error { return s.proveSealed(ctx, kind, "aes") }},
			{textSealedSM4, func(ctx context.Context) error { return s.proveSealed(ctx, kind, "sm4") }},
		}
	}
	return []demoPart{
		{textHTTP, modes(owtp.HTTP)},
		{textWebSocket, append(modes(owtp.Websocket), demoStep{textCallBack, s.proveCallBack})},
		{textQueue, []demoStep{
			{textQueueOpen, s.proveQueueOpen},
			{textQueueSealed, func(ctx context.Context) error {
				return errors.Join(s.proveQueueSealed(ctx, "aes"), s.proveQueueSealed(ctx, "sm4"))
			}},
			{textQueueCallBack, s.proveQueueCallBack},
			{textQueueReplay, s.proveQueueReplay},
			{textQueueReplicas, s.proveQueueReplicas},
		}},
		{textAttacks, []demoStep{
			{textTamperThere, func(ctx context.Context) error { return s.proveTamper(ctx, true) }},
			{textTamperBack, func(ctx context.Context) error { return s.proveTamper(ctx, false) }},
			{textReplay, s.proveReplay},
			{textImpostorHTTP, func(ctx context.Context) error { return s.proveImpostor(ctx, owtp.HTTP) }},
			{textImpostorWebSocket, func(ctx context.Context) error { return s.proveImpostor(ctx, owtp.Websocket) }},
		}},
	}
}

// connect dials under a name of its own, so that no step leans on another.
func (s *demoStage) connect(ctx context.Context, name, kind, address string, change func(*owtp.ConnectConfig)) error {
	cfg := owtp.ConnectConfig{Address: address, ConnectType: kind}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(ctx, demoCallTime)
	defer cancel()
	return s.client.ConnectContext(ctx, name, cfg)
}

// call calls and checks that the answer is a success.
func (s *demoStage) call(ctx context.Context, name, method string, params any) (*owtp.Response, error) {
	resp, err := s.client.CallContext(ctx, name, method, params, &owtp.CallOptions{Timeout: demoCallTime})
	if err != nil {
		return nil, err
	}
	return resp, resp.Err()
}

// greetBy calls greet with a word and checks that the word comes back.
func (s *demoStage) greetBy(ctx context.Context, name, word string) (*owtp.Response, error) {
	resp, err := s.call(ctx, name, "greet", map[string]string{"name": word})
	if err != nil {
		return nil, err
	}
	if got := resp.JsonData().Get("greeting").String(); got != "hello "+word {
		raw, _ := json.Marshal(got)
		return nil, fmt.Errorf("the answer is %s", raw)
	}
	return resp, nil
}
