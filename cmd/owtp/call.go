package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/identity"
)

type callOptions struct {
	dial     dialFlags
	security security
	v1       calledV1
	meta     []string
	save     string
	full     bool
	format   string
	method   string
	proto    protoFlags
}

func newCallCommand(c *console) *cobra.Command {
	var o callOptions
	cmd := &cobra.Command{
		Use:   "call ADDR METHOD [JSON]",
		Short: "Call a method of a node",
		Long: `Calls a method and prints its result as JSON.

ADDR is http://, https://, ws:// or wss:// with host and port, or a queue of a
message broker: amqps://host:port/vhost#queue or amqp:// for RabbitMQ,
tls://host:port#queue or nats:// for NATS. --peer ID alone means the queue that
this node takes requests from unless its operator names another,
owtp.node.ID. An account goes before the host (account@) or after --account;
its password is asked for or read from --password-file.
JSON is the argument itself, @FILE, or - for standard input; without it null is
sent.

--proto names the .proto file, or the FileDescriptorSet, with the method's
service. METHOD is then pkg.Service/Method, JSON and the result are its messages
in Protobuf's JSON mapping, and what is no such message is not sent. It goes well
with --format protobuf, and is not needed for it.

Who answers: with --sign, --encrypt, --peer or --accept-new, or if the address
is pinned or its queue named after a node ID, the peer must prove its node ID
before anything is sent. An address is pinned by owtp peers pin, or at first
contact: then you are asked, or, without a terminal, the call is refused unless
--accept-new is given. A peer that proves another ID than the pinned one is
always refused.
Otherwise the call is open: nobody proves anything and everybody on the way can
read and change it.

--v1, or v1+ before the address, calls a node that speaks protocol version 1. It
proves its node ID with --encrypt aes and not otherwise, and is pinned apart from
version 2, under v1+ADDR. Nothing falls back from one version to the other.

Only the result goes to standard output; a status that is no success goes to
standard error and ends with code 3 (owtp help exit-codes).`,
		Example: `  owtp call http://127.0.0.1:9432 echo '{"hello":"world"}'
  owtp call ws://node.example:9433 getInfo --encrypt aes
  owtp call https://node.example transfer @order.json --sign --save order.proof
  echo '[1,2]' | owtp call ws://127.0.0.1:9433 sum - --encrypt sm4 --accept-new
  owtp call http://127.0.0.1:9432 time --full | jq .status
  owtp call ws://127.0.0.1:9433 echo '{"n":18446744073709551615}' --format protobuf
  owtp call ws://127.0.0.1:9433 --proto wallet.proto --method wallet.v1.Wallet/Balance '{"account":"ada"}'
  owtp call nats://node@127.0.0.1:4222 time --peer 5Hue... --password-file mq.secret
  owtp call http://127.0.0.1:9432 getInfo --v1 --encrypt aes --peer 54dZ...
  owtp call amqps://wallet@mq.example/prod#orders transfer @order.json --sign --encrypt aes`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.method != "" {
				return arguments(1, 2, "with --method an address and at most one JSON value")(cmd, args)
			}
			return arguments(2, 3, "an address, a method and at most one JSON value")(cmd, args)
		},
		ValidArgsFunction: completeCall(&o.dial.known),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.method != "" {
				args = slices.Insert(args, 1, o.method)
			}
			return call(cmd.Context(), c, o, args)
		},
	}
	o.dial.register(cmd)
	o.dial.registerAcceptNew(cmd)
	o.security.register(cmd)
	o.v1.register(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&o.meta, "meta", nil, "metadata for the handler, as `key=value`; may be repeated")
	f.StringVar(&o.save, "save", "", "keep the signed call and answer in this new file, for owtp verify; needs --sign")
	f.StringVar(&o.format, "format", codec.NameJSON, "what carries parameters and result, `json|protobuf`; both are written and read as JSON here")
	f.StringVar(&o.method, "method", "", "the method, instead of METHOD")
	o.proto.register(cmd)
	f.BoolVar(&o.full, "full", false, `print {"status","msg","result"} instead of the result, whatever the status`)
	return cmd
}

func call(ctx context.Context, c *console, o callOptions, args []string) error {
	p, err := checkCall(ctx, c, o, args)
	if err != nil {
		return err
	}
	caller, err := o.newCaller(ctx, c, p.address)
	if err != nil {
		return err
	}
	defer caller.close()
	var evidence *evidenceFile
	if o.save != "" {
		// Before the call: to find after it that the evidence cannot be kept
		// would be too late.
		if evidence, err = createEvidence(o.save); err != nil {
			return err
		}
		defer evidence.discard()
	}
	caller.config.DataFormat = o.format
	if err := caller.meet(ctx, &o.dial, &o.security); err != nil {
		return err
	}
	var resp *owtp.Response
	err = caller.within(ctx, func(ctx context.Context) error {
		if err := caller.connect(ctx); err != nil {
			return caller.withHint(err, owtp.StatusOf(err))
		}
		resp, err = caller.node.CallContext(ctx, caller.name(), args[1], p.params, &owtp.CallOptions{Timeout: o.dial.timeout, Meta: p.meta, Repeatable: p.typed.repeatable()})
		return caller.callError(err)
	})
	if err != nil {
		return err
	}
	if evidence != nil {
		if err := evidence.keep(resp.Evidence()); err != nil {
			return err
		}
	}
	return o.report(caller, resp, p)
}

// A plannedCall is what is going to be sent.
type plannedCall struct {
	address peerAddress
	typed   *protoMethod
	params  any
	meta    map[string]string
}

// bareText says whether the parameters are a string, to a node of version 1.
func (p *plannedCall) bareText() bool {
	raw, ok := p.params.(json.RawMessage)
	return ok && p.address.v1 && strings.HasPrefix(strings.TrimSpace(string(raw)), `"`)
}

// checkCall reads everything that can be wrong before anything is sent.
func checkCall(ctx context.Context, c *console, o callOptions, args []string) (p plannedCall, err error) {
	if err = errors.Join(o.dial.check(), o.security.check()); err != nil {
		return
	}
	if p.address, err = o.dial.address(args[0]); err != nil {
		return
	}
	if err = o.v1.apply(&p.address, &o); err != nil {
		return
	}
	if args[1] == "" {
		err = errors.New("the method is empty")
		return
	}
	if o.save != "" && !o.security.sign {
		err = errors.New("--save needs --sign: without signatures there is no evidence to keep")
		return
	}
	if _, err = codec.Lookup(o.format); err != nil {
		err = fmt.Errorf("--format: %w", err)
		return
	}
	if p.meta, err = parseMeta(o.meta); err != nil {
		return
	}
	if p.typed, err = o.proto.method(ctx, args[1]); err != nil {
		return
	}
	text, err := readParams(c, args[2:])
	if p.params = text; err == nil && p.typed != nil {
		p.params, err = p.typed.params(text)
	}
	return p, err
}

// newCaller loads the key that the call needs. An open call needs none, so
// nobody is asked for a passphrase.
func (o *callOptions) newCaller(ctx context.Context, c *console, a peerAddress) (*caller, error) {
	known, err := knownFile(o.dial.known)
	if err != nil {
		return nil, err
	}
	_, pinned, err := known.find(a)
	if err != nil {
		return nil, err
	}
	if _, ok := a.owner(); ok {
		pinned = true
	}
	var key *identity.PrivateKey
	if o.dial.keys.file != "" || pinned || o.dial.wantsProof(&o.security) {
		if key, err = o.dial.keys.loadOrDefault(ctx, c); err != nil {
			return nil, err
		}
		if key == nil {
			c.note("Note: no key; this call is made by a node that nobody knows and that ends with it (owtp keygen makes a key).")
		}
	}
	return newCaller(ctx, c, &o.dial, a, key)
}

// wantsProof says whether the flags ask for a peer that proves who it is.
func (d *dialFlags) wantsProof(s *security) bool { return s.proves() || d.peer != "" || d.acceptNew }

// meet settles who the peer must be and how the call is protected. A peer of
// which an ID is known is never called openly.
func (c *caller) meet(ctx context.Context, d *dialFlags, s *security) error {
	id, known, err := c.pinned(d.peer)
	if err != nil {
		return err
	}
	s.apply(&c.config)
	switch {
	case known && c.address.v1 && s.encrypt == "":
		return c.noProof(id.String())
	case known:
	case c.address.v1 && s.encrypt == "":
		if err := c.knownOtherwise(); err != nil {
			return err
		}
		c.console.note("Note: version 1 without --encrypt aes: nobody proves who answers, and others may read and change it.")
		return nil
	case d.wantsProof(s):
		if id, err = c.firstContact(ctx, d.acceptNew); err != nil {
			return err
		}
	default:
		c.console.note("Note: an open call: nobody proves who answers, and others may read and change it (--sign, --encrypt).")
		return nil
	}
	c.config.PeerID = id.String()
	if !s.proves() {
		c.config.EnableSignature = true
	}
	return nil
}

// callError adds what a person can do about an error of the node's.
func (c *caller) callError(err error) error {
	err = classify(err)
	switch {
	case exitCode(err) == exitUnknown:
		return fmt.Errorf("%w\nThe call was sent, and nobody knows whether it ran. Ask the peer before repeating it", c.withHint(err, owtp.StatusOf(err)))
	case err != nil:
		return c.withHint(err, owtp.StatusOf(err))
	}
	return nil
}

func (c *caller) withHint(err error, status uint64) error {
	switch {
	case status == owtp.ErrUnauthorized:
		return fmt.Errorf("%w\nThe peer may demand signatures (--sign) or not allow this node", err)
	case status == owtp.ErrSecretKeyInvalid && c.address.v1:
		return fmt.Errorf("%w\nThe peer demands sealed calls: add --encrypt aes", err)
	case status == owtp.ErrSecretKeyInvalid:
		return fmt.Errorf("%w\nThe peer demands sealed calls: add --encrypt aes or --encrypt sm4", err)
	case status == owtp.ErrReplayAttack:
		return fmt.Errorf("%w\nThe clocks may differ: compare date on both machines", err)
	}
	return err
}

// report prints the answer and says how the tool ends.
func (o *callOptions) report(by *caller, resp *owtp.Response, p plannedCall) error {
	c, typed := by.console, p.typed
	var err error
	switch {
	case o.full:
		var raw []byte
		if raw, err = fullJSON(resp, typed); err == nil {
			err = c.printJSON(raw)
		}
	case resp.OK():
		var raw []byte
		if raw, err = typed.resultJSON(resp); err == nil {
			err = c.printJSON(raw)
		}
	}
	if err != nil || resp.OK() {
		return err
	}
	msg := resp.Msg
	if msg == "" {
		msg = owtp.StatusText(resp.Status)
	}
	err = by.withHint(withCode(exitStatus, "the peer answered with status %d: %s", resp.Status, printable(msg)), resp.Status)
	if resp.Status == owtp.ErrKeyAgreementFailed && p.bareText() && o.security.encrypt != "" {
		err = fmt.Errorf("%w\nVersion 1 seals a string without its quotes, and many nodes do not take that: send an object, as {\"text\":…}", err)
	}
	if resp.Status == owtp.ErrNotFoundMethod && !by.address.v1 {
		err = fmt.Errorf("%w\nowtp describe lists what the peer serves, if it tells", err)
	}
	if details := resp.JsonData().Raw; !o.full && details != "" && details != "null" {
		err = fmt.Errorf("%w\nIt sent details: --full prints them", err)
	}
	return err
}

func parseMeta(pairs []string) (map[string]string, error) {
	meta := make(map[string]string)
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--meta %.60q: want key=value", printable(p))
		}
		if _, ok := meta[k]; ok {
			return nil, fmt.Errorf("--meta %q is given twice", printable(k))
		}
		meta[k] = v
	}
	return meta, nil
}
