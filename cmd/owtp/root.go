package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return notEmpty(cmd.Flags()) },
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if strings.HasPrefix(err.Error(), "unknown shorthand flag") {
			return fmt.Errorf("%w; see %s --help. What begins with a dash and is no option, as a negative number, stands behind --", err, cmd.CommandPath())
		}
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(
		newKeygenCommand(c), newIDCommand(c), newServeCommand(c), newCallCommand(c), newDescribeCommand(c), newPingCommand(c),
		newPeersCommand(c), newVerifyCommand(c), newBrokerCommand(c), newDemoCommand(c), newVersionCommand(c), exitCodesTopic(),
	)
	return root
}

// mayBeEmpty marks flags that "" means something to.
const mayBeEmpty = "owtp_may_be_empty"

// notEmpty refuses options with nothing in them. A script whose variable is not
// set would otherwise call without the --peer, the --encrypt or the --signer that
// it asks for.
func notEmpty(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		given := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			given = list.GetSlice()
		}
		if _, ok := f.Annotations[mayBeEmpty]; !ok && (len(given) == 0 || slices.Contains(given, "")) && err == nil {
			err = fmt.Errorf("--%s is empty: give it a value, or leave it out", f.Name)
		}
	})
	return err
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
