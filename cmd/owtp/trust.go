package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/identity"
)

// pinned returns the ID that the peer must prove: the one of --peer, the one that
// the address is pinned to, or the one that its queue is named after. ok is false
// at first contact.
func (c *caller) pinned(flag string) (id identity.ID, ok bool, err error) {
	stored, known, err := c.known.find(c.address)
	if err != nil {
		return id, false, err
	}
	if flag == "" && !known {
		id, ok = c.address.owner()
		return id, ok, nil
	}
	if flag == "" {
		return stored, true, nil
	}
	if id, err = identity.ParseID(flag); err != nil {
		return id, false, fmt.Errorf("--peer: %w", err)
	}
	if known && stored != id {
		return id, false, withCode(exitTrust, "--peer says that %s is %s, but %s pins it to %s: one of them is wrong. If --peer is right, run owtp peers forget %[1]s", c.address, id, c.known.path, stored)
	}
	return id, true, nil
}

// identify asks whoever answers at the address to prove an ID. It remembers
// nothing and believes nothing.
func (c *caller) identify(ctx context.Context) (id identity.ID, err error) {
	cfg := c.config
	cfg.PeerID = ""
	err = c.within(ctx, func(ctx context.Context) error {
		text, err := c.node.Identify(ctx, cfg)
		if err != nil {
			return classifyConnect(err)
		}
		id, err = identity.ParseID(text)
		return err
	})
	return id, err
}

// firstContact decides about a peer that nobody has pinned: a person does, or
// --accept-new did beforehand, or it is refused. An accepted peer is pinned
// before anything is sent to it.
func (c *caller) firstContact(ctx context.Context, acceptNew bool) (identity.ID, error) {
	if err := c.knownOtherwise(); err != nil {
		return identity.ID{}, err
	}
	id, err := c.identify(ctx)
	if err != nil {
		return id, err
	}
	if err := c.accept(ctx, id, acceptNew); err != nil {
		return id, err
	}
	return id, c.known.pin(c.address, id, "")
}

func (c *caller) accept(ctx context.Context, id identity.ID, acceptNew bool) error {
	if acceptNew {
		c.console.note("First contact with %s: it proved to be %s, which is pinned from now on.", c.address, id)
		return nil
	}
	if !c.console.interactive() {
		return withCode(exitTrust, `the peer at %s is not known, and there is no terminal to ask on.
It proved to be node %s.
If that is the ID its operator gave you, run owtp peers pin %[1]s %[2]s
or call with --peer %[2]s; --accept-new believes whoever answers first`, c.address, id)
	}
	fmt.Fprintf(c.console.asking(), "First contact with %s.\nIt proved to be node %s.\nCompare that with the ID its operator gave you (owtp id prints it there).\n", c.address, id)
	yes, err := c.console.confirm(ctx, "Believe and pin it?")
	if err != nil {
		return err
	}
	if !yes {
		return withCode(exitTrust, "not accepted; nothing was sent")
	}
	return nil
}

// whyNot explains why a pinned peer could not be connected. A node that is
// called by another node's name refuses without proving anything, so it is
// asked who it is: another ID is said loudly, anything else is err.
func (c *caller) whyNot(ctx context.Context, err error) error {
	switch owtp.StatusOf(err) {
	case owtp.ErrNetworkDisconnected, owtp.ErrRequestTimeout:
		return classifyConnect(err) // nobody there to ask
	}
	// Only to tell the person more; what fails here changes nothing.
	id, idErr := c.identify(context.WithoutCancel(ctx))
	switch {
	case idErr == nil && id.String() != c.config.PeerID:
		return c.refused(id.String())
	case idErr != nil && errors.Is(err, owtp.ErrTrust):
		return c.refused("")
	}
	return classifyConnect(err)
}

// refused is the error about a peer that proved another ID than the pinned one,
// or none.
func (c *caller) refused(proved string) error {
	now := "and whoever answers there did not prove any ID"
	if proved != "" {
		now = "but it proved to be " + proved
	}
	return withCode(exitTrust, changedText, c.address, c.config.PeerID, c.pinSource(), now)
}

const changedText = `the peer is refused
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    THE PEER AT THIS ADDRESS IS NOT THE ONE THAT IS PINNED    @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
%[1]s must be node %[2]s
(%[3]s),
%[4]s.
Somebody may be answering in its place. Nothing was sent to it.
If its key was replaced, its operator can say so, by another way than this
connection: owtp id prints the ID there. Only then run
  owtp peers forget %[1]s
  owtp peers pin %[1]s NEW-ID`

// pinSource says where the pinned ID came from.
func (c *caller) pinSource() string {
	if id, ok, err := c.known.find(c.address); err == nil && ok && id.String() == c.config.PeerID {
		return "as pinned in " + c.known.path
	}
	if id, ok := c.address.owner(); ok && id.String() == c.config.PeerID {
		return "as the name of its queue says"
	}
	return "as --peer says"
}
