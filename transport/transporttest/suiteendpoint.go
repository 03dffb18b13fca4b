package transporttest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/owtp-go/owtp/transport"
)

// testEndpointShutdown: what runs is finished; what waits for its turn in the
// shared queue costs nobody its answer; what comes to the own queue is given to
// the handler as late, though all its turns are taken, until that queue is gone
// and says so at once; and the endpoint's own exchanges go on.
func (s *suite) testEndpointShutdown(t *testing.T) {
	cfg := Config(s.addr(t))
	cfg.TLS = s.opts.ServerTLS
	s.tune(&cfg)
	if cfg.ReadQueueName == "" {
		cfg.ReadQueueName, cfg.WriteQueueName = "shutdown", "shutdown"
	}
	cfg.MaxDeliveries, cfg.OwnQueueLinger = 2, 300*time.Millisecond
	open := func(h transport.Handler) transport.Endpoint {
		t.Helper()
		cfg := cfg
		if h == nil {
			cfg.ReadQueueName = ""
		}
		e, err := s.new().(transport.Broker).Open(t.Context(), cfg, h)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close() })
		return e
	}
	entered, proceed := make(chan struct{}, 16), make(chan struct{})
	leaving := open(HandlerFuncs{Exchange: func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
		if m.Late {
			return say("late"), nil
		}
		entered <- struct{}{}
		<-proceed
		return say("in time"), nil
	}})
	x := open(nil)
	ask := func(x transport.Exchanger, queue string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		m := say("x")
		m.To = queue
		answer, err := x.Exchange(ctx, m)
		return string(answer.Data), err
	}
	answers := make(chan string, 16)
	begin := func() {
		go func() {
			text, err := ask(x, "")
			if err != nil {
				text = err.Error()
			}
			answers <- text
		}()
	}
	for range 2 {
		begin()
		within(t, "a handler runs", entered)
	}
	for range 3 {
		begin()
	}
	time.Sleep(50 * time.Millisecond) // for these to have been delivered, if they are
	shut := make(chan error, 1)
	go func() { shut <- leaving.Shutdown(context.Background()) }()
	own := leaving.Queues().Own
	for range 2 { // if the first comes before Shutdown, it is late then
		if text, err := ask(x, own); text != "late" || err != nil {
			t.Errorf("what comes to the own queue while Shutdown waits: %q, %v", text, err)
		}
	}
	open(HandlerFuncs{Exchange: func(context.Context, transport.Remote, transport.Message) (transport.Message, error) {
		return say("another"), nil
	}})
	select {
	case err := <-shut:
		t.Fatalf("Shutdown has not waited for what runs: %v", err)
	default:
	}
	close(proceed)
	for range 5 {
		if text := within(t, "all are answered", answers); text != "in time" && text != "another" {
			t.Errorf("answered %q", text)
		}
	}
	if err := within(t, "Shutdown returns", shut); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	_, err := ask(x, own)
	var refusal *transport.Refusal
	if !errors.Is(err, transport.ErrNotSent) || !errors.As(err, &refusal) || refusal.Status != 430 {
		t.Errorf("after Shutdown the own queue is to be gone: %v", err)
	}
	if text, err := ask(leaving, ""); text != "another" || err != nil {
		t.Errorf("an exchange of its own after Shutdown: %q, %v", text, err)
	}
	if err := leaving.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown once more: %v", err)
	}
}

func say(text string) transport.Message {
	return transport.Message{Form: transport.Binary, Data: []byte(text)}
}
