package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func newRootCommand(c *console) *cobra.Command {
	root := &cobra.Command{
		Use:   "owtp",
		Short: "Keys, calls and evidence for OWTP nodes",
		Long: `owtp is the command line of OWTP, a protocol in which two nodes prove who they
are, agree on keys and call each other's methods, over HTTP, WebSocket and
message queues (RabbitMQ, NATS).

A node is an SM2 key; its ID is made from the public key. Calls are open
(nobody proves anything), signed (--sign) or sealed (--encrypt), or both.`,
		Example: `  # See what the protocol does, in five seconds
  owtp demo

  # Run a node, and call it from another terminal
  owtp serve
  owtp call http://127.0.0.1:9432 echo '{"hello":"world"}'

  # Make a key, and prove who calls and who answers
  owtp keygen
  owtp call ws://127.0.0.1:9433 getInfo --sign --encrypt aes`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %.40q: owtp help lists the commands", printable(args[0]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(
		newKeygenCommand(c), newIDCommand(c), newServeCommand(c), newCallCommand(c), newDescribeCommand(c), newPingCommand(c),
		newPeersCommand(c), newVerifyCommand(c), newBrokerCommand(c), newDemoCommand(c), newVersionCommand(c), exitCodesTopic(),
	)
	return root
}

// arguments checks how many there are and says what they are.
func arguments(min, max int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		name := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
		switch {
		case len(args) < min:
			return fmt.Errorf("%s needs %s; see %s --help", name, want, cmd.CommandPath())
		case len(args) > max:
			return fmt.Errorf("%s: unexpected argument %.60q: it takes %s; quote an argument that has blanks in it", name, printable(args[max]), want)
		}
		return nil
	}
}
