package nats_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/transport"
)

// TestNobodyAnswers: who subscribes to a node's subject and never answers keeps
// nobody for longer than the call's own time, and nothing counts as not sent.
func TestNobodyAnswers(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		t.Parallel()
		cfg := p.config()
		heard := listenOnly(t, p, cfg.WriteQueueName)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := dial(t, cfg).Exchange(ctx, message("x")); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, transport.ErrNotSent) {
			t.Errorf("got error %v, want that of the context, and that it may have been sent", err)
		}
		if heard.Load() != 1 {
			t.Errorf("the subscriber has heard %d messages", heard.Load())
		}
		for _, sign := range []bool{false, true} {
			testNodeFallsSilent(t, p, owtp.ConnectConfig{EnableSignature: sign})
		}
		client := owtp.RandomOWTPNode()
		defer client.Close()
		if err := client.Connect("nobody", owtp.ConnectConfig{ConnectType: owtp.MQ, Address: p.url, Account: p.account, Password: p.password, WriteQueueName: cfg.WriteQueueName}); err != nil {
			t.Fatal(err)
		}
		_, err := client.CallContext(t.Context(), "nobody", "echo", 1, &owtp.CallOptions{Timeout: 150 * time.Millisecond})
		var e *owtp.Error
		if !errors.As(err, &e) || e.Status != owtp.ErrRequestTimeout || !e.MayHaveRun {
			t.Errorf("an open call: got %v; want status 408, and that it may have run", err)
		}
	})
}

// testNodeFallsSilent puts somebody who never answers in the place of a node.
func testNodeFallsSilent(t *testing.T, p place, mode owtp.ConnectConfig) {
	t.Helper()
	host, client := nodes(t, p, "", mode)
	call := func() (*owtp.Response, error) {
		return client.CallContext(t.Context(), host.NodeID(), "echo", 1, &owtp.CallOptions{Timeout: 150 * time.Millisecond})
	}
	if r, err := call(); err != nil || !r.OK() {
		t.Fatal(r, err)
	}
	if err := host.Close(); err != nil {
		t.Error(err)
	}
	heard := listenOnly(t, p, "owtp.node."+host.NodeID())
	for range 2 {
		start := time.Now()
		r, err := call()
		var e *owtp.Error
		if !errors.As(err, &e) || e.Status != owtp.ErrRequestTimeout {
			t.Errorf("signed %v: got %+v, %v; want status 408", mode.EnableSignature, r, err)
		}
		if took := time.Since(start); took > patience/2 {
			t.Errorf("it took %v", took)
		}
	}
	if heard.Load() == 0 {
		t.Error("the subscriber has heard nothing")
	}
}

// listenOnly counts what comes to a subject, and answers nothing.
func listenOnly(t *testing.T, p place, subject string) *atomic.Int32 {
	t.Helper()
	heard := new(atomic.Int32)
	nc := raw(t, p)
	if _, err := nc.QueueSubscribe(subject, "owtp", func(*natsgo.Msg) { heard.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return heard
}

// TestHangingHandlers: a call whose handler does not return ends by its own time,
// its request is settled when the handler ends, and nobody else waits for it.
func TestHangingHandlers(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		for _, options := range []string{"", "?durable=true"} {
			t.Run("options"+options, func(t *testing.T) {
				t.Parallel()
				testHangingHandlers(t, p, options)
			})
		}
	})
}

func testHangingHandlers(t *testing.T, p place, options string) {
	m, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	host, client := nodesOver(t, p, options, owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Store: sharedMemory{m}}, owtp.ConnectConfig{EnableSignature: true})
	proceed := make(chan struct{})
	release := sync.OnceFunc(func() { close(proceed) })
	defer release()
	call := func(method string, timeout time.Duration) (*owtp.Response, error) {
		return client.CallContext(t.Context(), host.NodeID(), method, 1, &owtp.CallOptions{Timeout: timeout})
	}
	left := func() uint64 { return 0 } // requests in the stream
	if options != "" {
		s := streamOf(t, streams(t, p), "owtp.durable.owtp.node."+host.NodeID())
		left = func() uint64 { return count(t, s) }
	}
	var runs, ended atomic.Int32
	hang := func(until func(*owtp.Context)) owtp.HandlerFunc {
		return func(c *owtp.Context) {
			runs.Add(1)
			until(c)
			c.Response("too late", 0, "")
			ended.Add(1)
		}
	}
	for _, c := range []struct {
		method string
		until  func(*owtp.Context)
		holds  uint64 // requests that its calls leave in the stream
	}{
		{"obedient", func(c *owtp.Context) { <-c.Context().Done() }, 0},
		{"stubborn", func(*owtp.Context) { <-proceed }, 2},
	} {
		if err := host.HandleFunc(c.method, hang(c.until)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			r, err := call(c.method, 150*time.Millisecond)
			var e *owtp.Error
			if !errors.As(err, &e) || e.Status != owtp.ErrRequestTimeout || !e.MayHaveRun {
				t.Errorf("%s: got %+v, %v; want status 408, and that it may have run", c.method, r, err)
			}
		}
		if r, err := call("echo", patience); err != nil || !r.OK() {
			t.Errorf("after %s: %+v, %v", c.method, r, err)
		}
		if options != "" {
			eventually(t, "what has ended is settled, and nothing else", func() bool { return left() == c.holds })
		}
	}
	release()
	eventually(t, "all handlers have ended", func() bool { return ended.Load() == 4 })
	eventually(t, "all requests are settled", func() bool { return left() == 0 })
	if r, err := call("echo", patience); err != nil || !r.OK() || runs.Load() != 4 {
		t.Errorf("afterwards: %+v, %v; four calls have run %d times", r, err, runs.Load())
	}
}

// sharedMemory says that other replicas use it too: callers then stay with the
// shared queue.
type sharedMemory struct{ *memory.Store }

func (s sharedMemory) Traits() session.Traits {
	t := s.Store.Traits()
	t.Shared = true
	return t
}
