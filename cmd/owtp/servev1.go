package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp"
)

// servedV1 says whether nodes of protocol version 1 may call as well.
type servedV1 struct {
	allow bool
	face  keyFlags
	peers []string
}

func (v *servedV1) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&v.allow, "allow-v1", false, "serve nodes of protocol version 1 as well, over HTTP and WebSocket")
	f.StringVar(&v.face.file, "v1-cert-file", "", "key file of this node towards them (default: the one of --key)")
	f.StringVar(&v.face.passphraseFile, "v1-passphrase-file", "", "read its passphrase from the one line of this file instead of asking")
	f.StringSliceVar(&v.peers, "v1-peer", nil, "node ID that may call in version 1, signed; may be given several times (default: anybody)")
}

// apply adds to configurations what the flags ask for.
func (v *servedV1) apply(ctx context.Context, c *console, configs []owtp.ConnectConfig) error {
	switch {
	case !v.allow && (v.face.file != "" || v.face.passphraseFile != "" || v.peers != nil):
		return errors.New("--v1-cert-file, --v1-passphrase-file and --v1-peer need --allow-v1")
	case !v.allow:
		return nil
	case v.face.file == "" && v.face.passphraseFile != "":
		return errors.New("--v1-passphrase-file needs --v1-cert-file")
	case len(configs) == 0:
		return errors.New("--allow-v1 needs --http or --ws")
	}
	var face owtp.Certificate
	if v.face.file != "" {
		key, err := v.face.load(ctx, c)
		if err != nil {
			return fmt.Errorf("--v1-cert-file: %w", err)
		}
		if face, err = certificate(key); err != nil {
			return err
		}
	}
	for i := range configs {
		configs[i].AllowV1, configs[i].V1Cert, configs[i].AllowV1Peers = true, face, v.peers
	}
	c.note("Note: nodes of protocol version 1 may call, with less protection: see docs/V1.md. -v tells who does.")
	return nil
}
