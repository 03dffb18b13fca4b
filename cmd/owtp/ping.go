package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp/identity"
)

const maxPings = 1_000_000

type pingOptions struct {
	dial     dialFlags
	count    int
	interval time.Duration
}

func newPingCommand(c *console) *cobra.Command {
	var o pingOptions
	cmd := &cobra.Command{
		Use:   "ping ADDR",
		Short: "Measure round trips to a node that proves its ID",
		Long: `Connects, lets the peer prove its node ID, and measures round trips.

An ID that is pinned (owtp peers, --peer) must be the one that is proved. One
that is not is printed and not remembered.`,
		Example: `  owtp ping ws://127.0.0.1:9433
  owtp ping http://node.example:9432 -c 10 --interval 200ms
  owtp ping amqps://wallet@mq.example/prod --peer 5Hue... --password-file mq.secret`,
		Args:              arguments(1, 1, "an address"),
		ValidArgsFunction: completeAddress(&o.dial.known),
		RunE:              func(cmd *cobra.Command, args []string) error { return ping(cmd.Context(), c, o, args[0]) },
	}
	o.dial.register(cmd)
	f := cmd.Flags()
	f.IntVarP(&o.count, "count", "c", 4, "how many round trips")
	f.DurationVar(&o.interval, "interval", time.Second, "pause between them")
	return cmd
}

func ping(ctx context.Context, c *console, o pingOptions, text string) error {
	if err := o.dial.check(); err != nil {
		return err
	}
	a, err := o.dial.address(text)
	if err != nil {
		return err
	}
	if err := a.thisVersion("owtp ping"); err != nil {
		return err
	}
	if o.count < 1 || o.count > maxPings {
		return fmt.Errorf("--count is %d: want 1 to %d", o.count, maxPings)
	}
	if o.interval < 0 {
		return fmt.Errorf("--interval is %v: want 0 or more", o.interval)
	}
	key, err := o.dial.keys.loadOrDefault(ctx, c)
	if err != nil {
		return err
	}
	caller, err := newCaller(ctx, c, &o.dial, a, key)
	if err != nil {
		return err
	}
	defer caller.close()
	if err := caller.meetOnce(ctx, o.dial.peer); err != nil {
		return err
	}
	return caller.ping(ctx, o.count, o.interval)
}

// meetOnce connects to a peer that proves its ID, whichever that is if none is
// pinned.
func (c *caller) meetOnce(ctx context.Context, flag string) error {
	id, known, err := c.pinned(flag)
	if err != nil {
		return err
	}
	if !known {
		if id, err = c.identify(ctx); err != nil {
			return err
		}
	}
	c.config.PeerID = id.String()
	c.config.EnableSignature, c.config.EnableKeyAgreement = true, true // whatever the peer demands
	if err := c.within(ctx, c.connect); err != nil {
		return err
	}
	c.sayWho(id, known)
	return nil
}

func (c *caller) sayWho(id identity.ID, known bool) {
	pinned := "not pinned"
	if known {
		pinned = c.pinSource()
	}
	fmt.Fprintf(c.console.out, "%s is node %s (proved; %s)\n", c.address, id, pinned)
}

func (c *caller) ping(ctx context.Context, count int, interval time.Duration) error {
	var least, most, sum time.Duration
	answered := 0
	var last error
	for i := range count {
		if i > 0 && !pause(ctx, interval) {
			break
		}
		var d time.Duration
		last = c.within(ctx, func(ctx context.Context) (err error) {
			d, err = c.node.Ping(ctx, c.name())
			return err
		})
		if ctx.Err() != nil {
			break
		}
		if last != nil {
			c.console.note("%d: %s", i+1, printable(last.Error()))
			continue
		}
		fmt.Fprintf(c.console.out, "%d: %v\n", i+1, d.Round(time.Microsecond))
		if answered == 0 || d < least {
			least = d
		}
		most = max(most, d)
		sum += d
		answered++
	}
	if answered > 0 {
		fmt.Fprintf(c.console.out, "%d answered; min %v, avg %v, max %v\n", answered,
			least.Round(time.Microsecond), (sum / time.Duration(answered)).Round(time.Microsecond), most.Round(time.Microsecond))
	}
	if last != nil && ctx.Err() == nil {
		return classifyConnect(last)
	}
	if answered == 0 {
		return &codedError{exitConnect, errors.New("interrupted before the first answer")}
	}
	return nil
}

// pause waits and reports whether the context still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
