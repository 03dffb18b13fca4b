package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/owtp-go/owtp"
)

// The promises about calls through a message broker whose owner is the attacker.

// connectQueue dials the server's queue: nobody knows a port of it.
func (s *demoStage) connectQueue(ctx context.Context, name string, change func(*owtp.ConnectConfig)) error {
	cfg := s.queue.config("client")
	cfg.PeerID = s.queue.replicas[0].NodeID()
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(ctx, demoCallTime)
	defer cancel()
	return s.client.ConnectContext(ctx, name, cfg)
}

func (s *demoStage) proveQueueOpen(ctx context.Context) error {
	const name = "queue open"
	if err := s.connectQueue(ctx, name, nil); err != nil {
		return err
	}
	return s.listenIn(ctx, name, true)
}

func (s *demoStage) proveQueueSealed(ctx context.Context, suite string) error {
	name := "queue sealed " + suite
	if err := s.connectQueue(ctx, name, sealedWith(suite)); err != nil {
		return err
	}
	return s.listenIn(ctx, name, false)
}

// listenIn makes a call and compares what the broker's owner hears of it with
// what it should hear.
func (s *demoStage) listenIn(ctx context.Context, name string, want bool) error {
	word := rand.Text()
	heard, err := s.queue.overhear(ctx, func() error {
		_, err := s.greetBy(ctx, name, word)
		return err
	})
	switch {
	case err != nil:
		return err
	case want && !heard.says(word):
		return errors.New("the broker's owner cannot read, so the demonstration shows nothing")
	case heard.says(word) && !want:
		return errors.New("the broker's owner read the call")
	}
	return nil
}

func (s *demoStage) proveQueueCallBack(ctx context.Context) error {
	const name = "queue call back"
	if err := s.connectQueue(ctx, name, sealedWith("aes")); err != nil {
		return err
	}
	resp, err := s.call(ctx, name, "introduce", nil)
	if err != nil {
		return err
	}
	if met := resp.JsonData().Get("met").String(); met != "the client" {
		return fmt.Errorf("the server met %q", met)
	}
	return nil
}

// proveQueueReplay lets the broker's owner send a sealed call again.
func (s *demoStage) proveQueueReplay(ctx context.Context) error {
	const name = "queue replayed"
	if err := s.connectQueue(ctx, name, sealedWith("aes")); err != nil {
		return err
	}
	heard, err := s.queue.overhear(ctx, func() error {
		_, err := s.greetBy(ctx, name, rand.Text())
		return err
	})
	if err != nil {
		return fmt.Errorf("without the attack: %w", err)
	}
	before := s.greeted.Load()
	// The server answers each copy, and its owner hears that.
	if _, err := s.queue.overhear(ctx, func() error { return s.queue.send(heard.requests()) }); err != nil {
		return fmt.Errorf("sending the copy: %w", err)
	}
	if n := s.greeted.Load() - before; n > 0 {
		return fmt.Errorf("the server ran it %d more times", n)
	}
	return nil
}

// maxCallers is how many first contacts may go to one replica by chance.
const maxCallers = 64

// proveQueueReplicas ends one of the two replicas, so it comes last.
func (s *demoStage) proveQueueReplicas(ctx context.Context) error {
	q := s.queue
	asked := map[int]string{} // who asks which replica
	for i := 0; len(asked) < len(q.replicas); i++ {
		if i == maxCallers {
			return fmt.Errorf("one of the two replicas got none of %d calls", i)
		}
		name := fmt.Sprintf("queue caller %d", i)
		if err := s.connectQueue(ctx, name, sealedWith("aes")); err != nil {
			return err
		}
		before := q.served[1].Load()
		if _, err := s.greetBy(ctx, name, rand.Text()); err != nil {
			return err
		}
		asked[int(q.served[1].Load()-before)] = name
	}
	// Who subscribes to everything keeps the broker from saying that nobody is
	// there, and callers would wait for their deadline.
	if err := errors.Join(q.ear.Unsubscribe(), q.owner.Flush(), q.replicas[0].Shutdown(ctx)); err != nil {
		return err
	}
	// That nobody had the call is the broker's word only, so that one which must
	// not run twice would end with an unknown outcome here.
	before := q.served[1].Load()
	resp, err := s.client.CallContext(ctx, asked[0], "greet", nil, &owtp.CallOptions{Timeout: demoCallTime, Repeatable: true})
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return fmt.Errorf("with one replica ended: %w", err)
	}
	if q.served[1].Load() != before+1 {
		return errors.New("the other replica has not served the call")
	}
	return nil
}
