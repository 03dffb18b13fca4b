package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/owtp-go/owtp"
)

// The promises about calls that nobody disturbs.

func (s *demoStage) proveOpen(ctx context.Context, kind string) error {
	name, word := "open "+kind, rand.Text()
	if err := s.connect(ctx, name, kind, s.taps[kind].address(), nil); err != nil {
		return err
	}
	if _, err := s.greetBy(ctx, name, word); err != nil {
		return err
	}
	// What shows that the eavesdropper's ears work; the sealed steps rely on it.
	if !s.taps[kind].heard(word) {
		return errors.New("the eavesdropper heard nothing, so the demonstration shows nothing")
	}
	return nil
}

func (s *demoStage) proveSigned(ctx context.Context, kind string) error {
	name := "signed " + kind
	err := s.connect(ctx, name, kind, s.taps[kind].address(), func(c *owtp.ConnectConfig) { c.EnableSignature = true })
	if err != nil {
		return err
	}
	resp, err := s.greetBy(ctx, name, rand.Text())
	if err != nil {
		return err
	}
	evidence, err := owtp.VerifyEvidence(resp.Evidence())
	if err != nil {
		return fmt.Errorf("the evidence does not verify: %w", err)
	}
	if evidence.Request.SignerID != s.client.NodeID() || evidence.Response.SignerID != s.server.NodeID() {
		return fmt.Errorf("the evidence is signed by %s and %s", evidence.Request.SignerID, evidence.Response.SignerID)
	}
	return nil
}

func (s *demoStage) proveSealed(ctx context.Context, kind, suite string) error {
	name, word := "sealed "+kind+" "+suite, rand.Text()
	err := s.connect(ctx, name, kind, s.taps[kind].address(), sealedWith(suite))
	if err != nil {
		return err
	}
	if _, err := s.greetBy(ctx, name, word); err != nil {
		return err
	}
	if s.taps[kind].heard(word) {
		return errors.New("the eavesdropper heard the answer")
	}
	return nil
}

func sealedWith(suite string) func(*owtp.ConnectConfig) {
	return func(c *owtp.ConnectConfig) {
		c.EnableKeyAgreement = true
		c.Suites = []string{suite}
	}
}

func (s *demoStage) proveCallBack(ctx context.Context) error {
	const name = "call back"
	if err := s.connect(ctx, name, owtp.Websocket, s.taps[owtp.Websocket].address(), sealedWith("aes")); err != nil {
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
