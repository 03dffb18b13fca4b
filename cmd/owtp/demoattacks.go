package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/owtp-go/owtp"
)

// The promises about calls that an attacker disturbs. Each first shows that
// the call works without the attack, so that it does not merely fail for some
// other reason.

// proveTamper changes one bit of a sealed message on its way to the server
// (there) or back.
func (s *demoStage) proveTamper(ctx context.Context, there bool) error {
	name := fmt.Sprintf("tampered %v", there)
	if err := s.connect(ctx, name, owtp.HTTP, s.proxy.address(), sealedWith("aes")); err != nil {
		return err
	}
	if _, err := s.greetBy(ctx, name, rand.Text()); err != nil {
		return fmt.Errorf("without the attack: %w", err)
	}
	before := s.greeted.Load()
	s.proxy.tamper(there, !there)
	_, err := s.greetBy(ctx, name, rand.Text())
	touched := s.proxy.stop()
	switch {
	case touched == 0:
		return errors.New("the attacker changed nothing, so the demonstration shows nothing")
	case err == nil:
		return errors.New("the call went through as if nothing had happened")
	case there && s.greeted.Load() != before:
		return errors.New("the server ran a call that was changed on its way")
	}
	return nil
}

// proveReplay sends a recorded request again.
func (s *demoStage) proveReplay(ctx context.Context) error {
	const name = "replayed"
	err := s.connect(ctx, name, owtp.HTTP, s.proxy.address(), func(c *owtp.ConnectConfig) { c.EnableSignature = true })
	if err != nil {
		return err
	}
	s.proxy.record()
	if _, err := s.greetBy(ctx, name, rand.Text()); err != nil {
		return fmt.Errorf("without the attack: %w", err)
	}
	recorded := s.proxy.recorded()
	if len(recorded) == 0 {
		return errors.New("the attacker recorded nothing, so the demonstration shows nothing")
	}
	before := s.greeted.Load()
	for _, r := range recorded {
		if err := s.proxy.send(ctx, r); err != nil {
			return fmt.Errorf("sending the copy: %w", err)
		}
	}
	if n := s.greeted.Load() - before; n > 0 {
		return fmt.Errorf("the server ran it %d more times", n)
	}
	return nil
}

// proveImpostor dials another node under the server's ID.
func (s *demoStage) proveImpostor(ctx context.Context, kind string) error {
	name := "impostor " + kind
	pin := func(c *owtp.ConnectConfig) { c.PeerID = s.server.NodeID() }
	if err := s.connect(ctx, name+" (the real one)", kind, s.server.ListenerAddr(kind), pin); err != nil {
		return fmt.Errorf("without the attack: %w", err)
	}
	address := s.impostor.ListenerAddr(kind)
	if err := s.connect(ctx, name, kind, address, pin); err == nil {
		return errors.New("the client connected to the impostor")
	}
	// It answers, and proves what it can prove: its own name. So it was refused
	// for who it is.
	id, err := s.client.Identify(ctx, owtp.ConnectConfig{Address: address, ConnectType: kind})
	if err != nil || id != s.impostor.NodeID() {
		return fmt.Errorf("the impostor proved to be %q (%v)", id, err)
	}
	if _, err := s.greetBy(ctx, name, rand.Text()); err == nil || s.fooled.Load() > 0 {
		return errors.New("the impostor was called")
	}
	return nil
}
