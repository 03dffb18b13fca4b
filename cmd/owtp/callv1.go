package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp/codec"
)

// v1Prefix begins the address of a peer that is called in protocol version 1,
// where it is pinned too: its key there may be another one.
const v1Prefix = "v1+"

// cutV1 takes the prefix off.
func cutV1(text string) (rest string, v1 bool) {
	if len(text) > len(v1Prefix) && strings.EqualFold(text[:len(v1Prefix)], v1Prefix) {
		return text[len(v1Prefix):], true
	}
	return text, false
}

// checkV1 refuses addresses at which nobody speaks version 1.
func (a peerAddress) checkV1() error {
	if a.v1 && a.mq() && !strings.HasPrefix(a.scheme, "amqp") {
		return errors.New("is of a broker that version 1 does not know: it has RabbitMQ, amqps:// and amqp://")
	}
	return nil
}

// thisVersion refuses an address of version 1 where only this one is spoken.
func (a peerAddress) thisVersion(what string) error {
	if a.v1 {
		return fmt.Errorf("%s speaks version 2 only, and %s is of version 1: leave out %s", what, a, v1Prefix)
	}
	return nil
}

// calledV1 says whether a call is one of version 1.
type calledV1 struct {
	flag    bool
	answers string
	old     bool
}

// oldPacketsFlag is what takes packets of version 0.
const oldPacketsFlag = "insecure-v1-packet-version-0"

func (v *calledV1) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&v.flag, "v1", false, "call a node that speaks protocol version 1; it proves who it is with --encrypt aes only")
	cmd.Flags().StringVar(&v.answers, "v1-answer-queue", "", "`queue` of RabbitMQ that the version 1 node writes to, which this node alone reads")
	cmd.Flags().BoolVar(&v.old, oldPacketsFlag, false, "call an old node of version 1, with one key for all that is sealed: see docs/V1.md")
}

// apply makes the address one of version 1, and refuses what does not exist
// there.
func (v *calledV1) apply(a *peerAddress, o *callOptions) error {
	a.v1 = a.v1 || v.flag
	s := &o.security
	switch {
	case v.answers != "" && !(a.v1 && a.mq()):
		return errors.New("--v1-answer-queue is for --v1 with amqps:// or amqp://")
	case v.old && !(a.v1 && s.encrypt != ""):
		return errors.New("--" + oldPacketsFlag + " is for --v1 with --encrypt aes: what is not sealed is the same in both packet versions")
	case !a.v1:
		return nil
	case o.save != "":
		return errors.New("--save does not exist in version 1: its answers are not signed, so that there is no evidence")
	case o.format != "" && o.format != codec.NameJSON:
		return fmt.Errorf("--format %.40s does not exist in version 1: it has json", printable(o.format))
	case o.meta != nil:
		return errors.New("--meta does not exist in version 1")
	case s.encrypt != "" && s.encrypt != "aes":
		return fmt.Errorf("--encrypt %s does not exist in version 1: it has aes", s.encrypt)
	case s.encrypt == "" && o.dial.acceptNew:
		return errors.New("--accept-new needs --encrypt aes in version 1: nothing else proves who answers")
	}
	if err := a.checkV1(); err != nil {
		return fmt.Errorf("address %s %w", a, err)
	}
	if a.mq() && (v.answers == "" || o.dial.queue.exchange == "") {
		return errors.New("version 1 over RabbitMQ needs --exchange and --v1-answer-queue, as the node that is called has them in its configuration: its ExchangeName and the queue that it writes to")
	}
	a.answers, a.old = v.answers, v.old
	return nil
}

// oldPackets adds the flag to an error that names the option.
func oldPackets(err error) error {
	if err != nil && strings.Contains(err.Error(), "InsecureV1PacketVersion0") {
		return fmt.Errorf("%w\nThe option is --%s here", err, oldPacketsFlag)
	}
	return err
}

// noProof is about a peer that is known and would not be asked for a proof.
func (c *caller) noProof(id string) error {
	return withCode(exitTrust, "%s must be node %s, and version 1 proves that with --encrypt aes only; nothing was sent", c.address, id)
}

// knownOtherwise refuses a first contact in version 1 with a peer that is known
// in this one.
func (c *caller) knownOtherwise() error {
	if !c.address.v1 {
		return nil
	}
	other := c.address
	other.v1 = false
	id, ok, err := c.known.find(other)
	if err != nil || !ok {
		return err
	}
	return withCode(exitTrust, "%s is pinned to %s. In version 1 it may have another key: say who it must be with --peer, or run owtp peers pin %s and the ID that its operator gives you", other, id, c.address)
}
