package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/identity"
)

// keyFlags say who this side is.
type keyFlags struct {
	file           string
	passphraseFile string
}

func (k *keyFlags) register(cmd *cobra.Command, defaultText string) {
	f := cmd.Flags()
	f.StringVar(&k.file, "key", "", "key file of this node (default: "+defaultText+")")
	f.StringVar(&k.passphraseFile, "passphrase-file", "", "read the key's passphrase from the one line of this file instead of asking")
}

// load reads the named key file.
func (k keyFlags) load(ctx context.Context, c *console) (*identity.PrivateKey, error) {
	return readKeyFile(k.file, func() ([]byte, error) {
		return passphraseSource{console: c, file: k.passphraseFile}.existing(ctx, k.file)
	})
}

// loadOrDefault reads the named key file or the default one, and returns nil if
// none is named and the default one does not exist.
func (k keyFlags) loadOrDefault(ctx context.Context, c *console) (*identity.PrivateKey, error) {
	if k.file == "" {
		path, err := defaultKeyFile()
		if err != nil {
			return nil, nil // no folder for settings, so no default key
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if k.passphraseFile != "" {
				return nil, fmt.Errorf("--passphrase-file is given, but there is no key file: %s does not exist", path)
			}
			return nil, nil
		}
		k.file = path
	}
	return k.load(ctx, c)
}

// certificate turns a key into what a node takes; nil gives a new identity that
// ends with the process.
func certificate(key *identity.PrivateKey) (owtp.Certificate, error) {
	if key == nil {
		return owtp.NewRandomCertificate(), nil
	}
	return owtp.NewCertificate(key.Text())
}
