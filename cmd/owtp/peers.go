package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp/identity"
)

func newPeersCommand(c *console) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "List, pin and forget known peers",
		Long: `Known peers are like SSH's known hosts: a text file with one line a peer,

  address nodeID [comment]

A peer whose address is pinned must prove that ID before anything is sent.

At a message broker the address of a peer is the broker and the queue that the
peer takes requests from, as in amqps://mq.example:5671/prod#orders: other
queues there are other peers. Accounts, exchanges and options do not belong to
it. A queue that is called owtp.node. and an ID is that node's, and needs no
pin.`,
		Example: `  owtp peers pin https://node.example 5Hue...
  owtp peers list
  owtp peers forget https://node.example`,
		Args: arguments(0, 0, "one of list, pin and forget"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPeersListCommand(c), newPeersPinCommand(c), newPeersForgetCommand(c))
	return cmd
}

func newPeersListCommand(c *console) *cobra.Command {
	var d dialFlags
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "Print the pinned peers",
		Example: `  owtp peers list | grep node.example`,
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			known, err := knownFile(d.known)
			if err != nil {
				return err
			}
			peers, err := known.list()
			if err != nil {
				return err
			}
			for _, p := range peers {
				fmt.Fprintln(c.out, strings.TrimSpace(p.address+" "+p.id.String()+" "+printable(p.comment)))
			}
			if len(peers) == 0 {
				c.note("No peers are pinned in %s.", known.path)
			}
			return nil
		},
	}
	d.registerKnown(cmd)
	return cmd
}

func newPeersPinCommand(c *console) *cobra.Command {
	var d dialFlags
	var comment string
	cmd := &cobra.Command{
		Use:   "pin ADDR [ID]",
		Short: "Pin the node ID of an address",
		Long: `Pins the node ID that the peer at an address must prove. Without an ID it asks
the peer to prove one and shows it to you; compare it with what the peer's
operator says (owtp id prints it there) before you answer yes.`,
		Example: `  owtp peers pin https://node.example 5Hue... --comment "the exchange"
  owtp peers pin ws://127.0.0.1:9433
  owtp peers pin ws://127.0.0.1:9433 --accept-new    # in a script on a safe network`,
		Args:              arguments(1, 2, "an address and, if you know it, a node ID"),
		ValidArgsFunction: completeAddress(&d.known),
		RunE: func(cmd *cobra.Command, args []string) error {
			return pinPeer(cmd.Context(), c, d, args, comment)
		},
	}
	d.registerReach(cmd)
	d.registerAcceptNew(cmd)
	cmd.Flags().StringVar(&comment, "comment", "", "text to keep with the ID")
	return cmd
}

func pinPeer(ctx context.Context, c *console, d dialFlags, args []string, comment string) error {
	if len(args) == 2 {
		d.peer = args[1]
	}
	if err := d.check(); err != nil {
		return err
	}
	a, err := d.address(args[0])
	if err != nil {
		return err
	}
	if err := checkComment(comment); err != nil {
		return err
	}
	known, err := knownFile(d.known)
	if err != nil {
		return err
	}
	var id identity.ID
	if d.peer != "" {
		id, err = identity.ParseID(d.peer)
	} else {
		id, err = askPeer(ctx, c, d, a)
	}
	if err != nil {
		return err
	}
	if err := known.pin(a, id, comment); err != nil {
		return err
	}
	c.note("%s is pinned to %s in %s.", a, id, known.path)
	return nil
}

// askPeer lets whoever answers prove an ID, and a person say whether it is the
// right one.
func askPeer(ctx context.Context, c *console, d dialFlags, a peerAddress) (identity.ID, error) {
	if a.v1 && a.mq() {
		return identity.ID{}, errors.New("give the ID as well: a node of version 1 is not asked for it over a broker but by owtp call")
	}
	caller, err := newCaller(ctx, c, &d, a, nil)
	if err != nil {
		return identity.ID{}, err
	}
	defer caller.close()
	id, err := caller.identify(ctx)
	if err != nil {
		return id, err
	}
	stored, ok, err := caller.pinned("")
	if err != nil || ok && stored == id {
		return id, err
	}
	if ok {
		caller.config.PeerID = stored.String()
		return id, caller.refused(id.String())
	}
	return id, caller.accept(ctx, id, d.acceptNew)
}

func newPeersForgetCommand(c *console) *cobra.Command {
	var d dialFlags
	cmd := &cobra.Command{
		Use:   "forget ADDR",
		Short: "Remove the pin of an address",
		Long: `Removes the pin of an address. Do it when the peer's operator has told you that
its key was replaced; the next contact is a first contact again.`,
		Example:           `  owtp peers forget https://node.example`,
		Args:              arguments(1, 1, "an address"),
		ValidArgsFunction: completeAddress(&d.known),
		RunE: func(_ *cobra.Command, args []string) error {
			a, err := parsePeer(args[0])
			if err != nil {
				return err
			}
			known, err := knownFile(d.known)
			if err != nil {
				return err
			}
			if err := known.forget(a); err != nil {
				return err
			}
			c.note("%s is forgotten.", a)
			return nil
		},
	}
	d.registerKnown(cmd)
	return cmd
}
