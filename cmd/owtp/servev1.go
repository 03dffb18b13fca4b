package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp"
)

// servedV1 says whether nodes of protocol version 1 may call as well.
type servedV1 struct {
	allow  bool
	face   keyFlags
	peers  []string
	answer string
	old    bool
}

func (v *servedV1) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&v.allow, "allow-v1", false, "serve nodes of protocol version 1 as well")
	f.StringVar(&v.face.file, "v1-cert-file", "", "key file of this node towards them (default: the one of --key)")
	f.StringVar(&v.face.passphraseFile, "v1-passphrase-file", "", "read its passphrase from the one line of this file instead of asking")
	f.StringSliceVar(&v.peers, "v1-peer", nil, "node ID that may call in version 1, signed; may be given several times (default: anybody)")
	f.StringVar(&v.answer, "v1-answer-queue", "", "`queue` of RabbitMQ that the version 1 node reads; with it --mq amqp://… serves version 1 too, on --exchange")
	f.BoolVar(&v.old, oldPacketsFlag, false, "take key agreements with old nodes of version 1, with one key for all that is sealed: see docs/V1.md")
}

// check finds flags that do not belong together, before anything is asked for.
func (v *servedV1) check(faces, rabbits int) error {
	switch {
	case !v.allow && v.old:
		return errors.New("--" + oldPacketsFlag + " needs --allow-v1")
	case !v.allow && (v.face.file != "" || v.face.passphraseFile != "" || v.peers != nil || v.answer != ""):
		return errors.New("--v1-cert-file, --v1-passphrase-file, --v1-peer and --v1-answer-queue need --allow-v1")
	case !v.allow:
		return nil
	case v.face.file == "" && v.face.passphraseFile != "":
		return errors.New("--v1-passphrase-file needs --v1-cert-file")
	case v.answer != "" && rabbits != 1:
		return fmt.Errorf("--v1-answer-queue is for one --mq amqp://… or amqps://…, and there are %d: version 1 exists over RabbitMQ and no other broker, and each of its nodes reads a queue of its own", rabbits)
	case faces == 0 && v.answer == "":
		return errors.New("--allow-v1 needs --http, --ws, or --mq amqp://… with --v1-answer-queue")
	}
	return nil
}

// apply adds to configurations what the flags ask for.
func (v *servedV1) apply(ctx context.Context, c *console, faces, queues []owtp.ConnectConfig) error {
	if !v.allow {
		return nil
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
	allow := func(cfg *owtp.ConnectConfig) {
		cfg.AllowV1, cfg.V1Cert, cfg.AllowV1Peers, cfg.InsecureV1PacketVersion0 = true, face, v.peers, v.old
	}
	for i := range faces {
		allow(&faces[i])
	}
	for i := range queues {
		if v.answer == "" || !overRabbit(queues[i].Address) {
			continue
		}
		if queues[i].Exchange == "" {
			return errors.New("--v1-answer-queue needs --exchange: nodes of version 1 publish to an exchange with a name, such as amq.direct")
		}
		queues[i].WriteQueueName = v.answer
		allow(&queues[i])
	}
	c.note("Note: nodes of protocol version 1 may call, with less protection: see docs/V1.md. -v tells who does.")
	return nil
}

// overRabbit tells RabbitMQ from other brokers by the scheme.
func overRabbit(address string) bool {
	return strings.HasPrefix(address, "amqp://") || strings.HasPrefix(address, "amqps://")
}
