package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func newIDCommand(c *console) *cobra.Command {
	var keys keyFlags
	var public bool
	cmd := &cobra.Command{
		Use:   "id [KEYFILE]",
		Short: "Print the node ID of a key",
		Long: `Prints the node ID of a key file: what others pin to be sure that they talk
to this node. It may be known to everybody.`,
		Example: `  owtp id
  owtp id server.pem
  owtp id server.pem --public      # and the public key, X and Y in base58`,
		Args: arguments(0, 1, "at most one key file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if keys.file != "" {
					return errors.New("two key files are named: give one, as the argument or after --key")
				}
				keys.file = args[0]
			}
			return printID(cmd.Context(), c, keys, public)
		},
	}
	keys.register(cmd, "node.pem in the owtp folder of your settings")
	cmd.Flags().BoolVar(&public, "public", false, "print the public key as well, on a second line")
	return cmd
}

func printID(ctx context.Context, c *console, keys keyFlags, public bool) error {
	key, err := keys.loadOrDefault(ctx, c)
	if err != nil {
		return err
	}
	if key == nil {
		path, err := defaultKeyFile()
		if err != nil {
			return err
		}
		return fmt.Errorf("there is no key at %s: owtp keygen makes one, or name another file", path)
	}
	fmt.Fprintln(c.out, key.ID())
	if public {
		fmt.Fprintln(c.out, key.Public())
	}
	return nil
}
