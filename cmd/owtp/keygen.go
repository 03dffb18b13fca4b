package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp/identity"
)

type keygenOptions struct {
	file           string
	encrypt        bool
	passphraseFile string
}

func newKeygenCommand(c *console) *cobra.Command {
	var o keygenOptions
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make a new node key",
		Long: `Makes a new SM2 key and prints the ID of the node that has it.

The key is a PEM file (PKCS#8) that only you can read. With --encrypt it is
encrypted under a passphrase (scrypt, AES-256-CBC). An existing file is never
overwritten: a node that loses its key loses its name.`,
		Example: `  owtp keygen                      # the default key of this account
  owtp keygen -o server.pem
  owtp keygen -o wallet.pem --encrypt
  owtp keygen -o wallet.pem --encrypt --passphrase-file /run/secrets/wallet`,
		Args: arguments(0, 0, "no arguments (the file goes after -o)"),
		RunE: func(cmd *cobra.Command, _ []string) error { return keygen(cmd.Context(), c, o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "out", "o", "", "file to create (default: node.pem in the owtp folder of your settings)")
	f.BoolVar(&o.encrypt, "encrypt", false, "encrypt the key under a passphrase")
	f.StringVar(&o.passphraseFile, "passphrase-file", "", "read the passphrase from the one line of this file instead of asking")
	return cmd
}

func keygen(ctx context.Context, c *console, o keygenOptions) error {
	if o.passphraseFile != "" && !o.encrypt {
		return errors.New("--passphrase-file without --encrypt would leave the key unencrypted: give both or none")
	}
	if o.file == "" {
		path, err := defaultKeyFile()
		if err != nil {
			return err
		}
		if err := makePrivateDir(path); err != nil {
			return err
		}
		o.file = path
	}
	if err := mustNotExist(o.file, "key file"); err != nil {
		return err // before anybody types a passphrase
	}
	var passphrase []byte
	if o.encrypt {
		var err error
		if passphrase, err = (passphraseSource{console: c, file: o.passphraseFile}).fresh(ctx); err != nil {
			return err
		}
		defer clear(passphrase)
	}
	key, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if err := writeKeyFile(o.file, key, passphrase); err != nil {
		return err
	}
	c.note("Key written to %s. Keep a copy in a safe place: it is the node's name.", o.file)
	fmt.Fprintln(c.out, key.ID())
	return nil
}
