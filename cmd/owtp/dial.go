package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/identity"
)

// maxTimeout is what a person may wait for one call.
const maxTimeout = 24 * time.Hour

// suiteNames are the ciphers that --encrypt takes.
var suiteNames = []string{"aes", "sm4"}

// dialFlags say whom to reach, how, and whom to believe.
type dialFlags struct {
	keys      keyFlags
	queue     queueFlags
	peer      string
	known     string
	ca        string
	acceptNew bool
	timeout   time.Duration
}

// register adds the flags of what connects to a peer as a node of its own.
func (d *dialFlags) register(cmd *cobra.Command) {
	d.keys.register(cmd, "node.pem in the owtp folder of your settings if it exists, else one that is thrown away")
	cmd.Flags().StringVar(&d.peer, "peer", "", "node `ID` that the peer must prove")
	must(cmd.RegisterFlagCompletionFunc("peer", completeIDs(&d.known)))
	d.registerReach(cmd)
}

// registerReach adds the flags of what asks a peer at all.
func (d *dialFlags) registerReach(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&d.ca, "ca", "", "PEM file with the certificates that sign the TLS server (default: the system's)")
	d.queue.register(cmd)
	f.DurationVar(&d.timeout, "timeout", 10*time.Second, "how long to wait, as in 500ms, 10s, 2m")
	d.registerKnown(cmd)
}

func (d *dialFlags) registerKnown(cmd *cobra.Command) {
	cmd.Flags().StringVar(&d.known, "known-peers", "", "file of pinned peers (default: known_peers in the owtp folder of your settings)")
}

func (d *dialFlags) registerAcceptNew(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&d.acceptNew, "accept-new", false, "believe and pin a peer that is met for the first time; never one that has changed")
}

// check refuses flags that make no sense before anything is read or sent.
func (d *dialFlags) check() error {
	if d.timeout <= 0 || d.timeout > maxTimeout {
		return fmt.Errorf("--timeout is %v: want more than 0 and at most %v", d.timeout, maxTimeout)
	}
	if d.peer != "" {
		if _, err := identity.ParseID(d.peer); err != nil {
			return fmt.Errorf("--peer: %w", err)
		}
	}
	return nil
}

// address reads the address of a peer and completes it by the flags.
func (d *dialFlags) address(text string) (peerAddress, error) {
	a, err := parseAddress(text)
	if err == nil {
		err = d.queue.apply(&a, d.peer)
	}
	return a, err
}

// knownFile returns the file of pinned peers.
func knownFile(flag string) (knownPeers, error) {
	if flag != "" {
		return knownPeers{flag}, nil
	}
	path, err := defaultKnownPeers()
	return knownPeers{path}, err
}

// security is how a call is protected.
type security struct {
	sign    bool
	encrypt string // "", "aes" or "sm4"
}

func (s *security) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&s.sign, "sign", false, "sign the call and demand a signed answer")
	f.StringVar(&s.encrypt, "encrypt", "", "agree on keys and seal the call: `aes` (hybrid post-quantum) or sm4")
	must(cmd.RegisterFlagCompletionFunc("encrypt", cobra.FixedCompletions([]cobra.Completion{
		cobra.CompletionWithDesc("aes", "SM2 and ML-KEM-768, AES-256-GCM"),
		cobra.CompletionWithDesc("sm4", "SM2, SM4-GCM"),
	}, cobra.ShellCompDirectiveNoFileComp)))
}

func (s *security) check() error {
	if s.encrypt != "" && !slices.Contains(suiteNames, s.encrypt) {
		return fmt.Errorf("--encrypt %.40q is unknown: known are %s", printable(s.encrypt), strings.Join(suiteNames, " and "))
	}
	return nil
}

func (s *security) proves() bool { return s.sign || s.encrypt != "" }

func (s *security) apply(cfg *owtp.ConnectConfig) {
	cfg.EnableSignature = s.sign
	if s.encrypt != "" {
		cfg.EnableKeyAgreement = true
		cfg.Suites = []string{s.encrypt}
	}
}

// A caller is a node that is about to call one peer.
type caller struct {
	console *console
	node    *owtp.OWTPNode
	address peerAddress
	config  owtp.ConnectConfig
	timeout time.Duration
	known   knownPeers
}

// newCaller starts a node with the key for one address. key may be nil.
func newCaller(ctx context.Context, c *console, d *dialFlags, a peerAddress, key *identity.PrivateKey) (*caller, error) {
	roots, err := readRoots(d.ca, a)
	if err != nil {
		return nil, err
	}
	known, err := knownFile(d.known)
	if err != nil {
		return nil, err
	}
	cfg := a.config(roots)
	if err := a.dial(ctx, c, &cfg, d.queue.exchange, d.queue.passwordFile); err != nil {
		return nil, err
	}
	cert, err := certificate(key)
	if err != nil {
		return nil, err
	}
	node, err := owtp.New(owtp.NodeConfig{Cert: cert})
	if err != nil {
		return nil, err
	}
	return &caller{c, node, a, cfg, d.timeout, known}, nil
}

func (c *caller) close() { c.node.Close() }

// within runs one stage of network work with the time that it may take. A
// question to a person lies between stages and costs nothing of it.
func (c *caller) within(ctx context.Context, work func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return oldPackets(work(ctx))
}

// connect dials. The address serves as the name of the peer, so that errors
// show it.
func (c *caller) connect(ctx context.Context) error {
	err := c.node.ConnectContext(ctx, c.name(), c.config)
	if err != nil && c.config.PeerID != "" {
		return c.whyNot(ctx, err)
	}
	return classifyConnect(err)
}

func (c *caller) name() string { return c.address.String() }

// classifyConnect gives errors before any call their exit code: whatever went
// wrong, no handler ran.
func classifyConnect(err error) error {
	var e *owtp.Error
	if errors.As(err, &e) && e.MayHaveRun {
		return &codedError{exitConnect, oneLine{err}}
	}
	err = classify(err)
	var coded *codedError
	if err != nil && !errors.As(err, &coded) {
		return &codedError{exitConnect, err}
	}
	return err
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
