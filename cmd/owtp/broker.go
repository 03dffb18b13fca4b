package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp/contrib/nats/broker"
)

const defaultBroker = "127.0.0.1:4222"

type brokerOptions struct {
	listen          string
	account         string
	passwordFile    string
	tlsCert, tlsKey string
	store           string
	maxStore        size
	maxMessage      size
	json, verbose   bool
}

func newBrokerCommand(c *console) *cobra.Command {
	o := brokerOptions{maxStore: 1 << 30, maxMessage: 1 << 20}
	cmd := &cobra.Command{
		Use:   "broker",
		Short: "Run a message broker for nodes that reach only that",
		Long: `Runs a NATS server in this process, with one account, and prints how to reach
it. Ctrl-C or SIGTERM ends it.

Nodes that cannot reach each other reach it: owtp serve --mq, owtp call nats://.
What they promise each other does not lean on it: who runs the broker, or has its
password, cannot read sealed calls, change proved ones or repeat them. But it can
read open and signed ones, and deliver nothing at all.

Without --store nothing is kept: a request that nobody takes ends at once. With
it, requests of callers that add ?durable=true to the address lie in the store
while no server is there, as long as their callers wait; the server's address
needs it too.

It is one process on one machine. Accounts with narrow permissions, clusters and
more are nats-server's, whose clients need not change.`,
		Example: `  owtp broker --password-file mq.secret
  owtp broker --listen 127.0.0.1:0 --password-file mq.secret --json
  owtp broker --listen :4222 --tls-cert cert.pem --tls-key key.pem --password-file mq.secret --store /var/lib/owtp-broker`,
		Args: arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runBroker(cmd.Context(), c, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", defaultBroker, "where to listen, as host:port")
	f.StringVar(&o.account, "account", "node", "account that nodes log in with")
	f.StringVar(&o.passwordFile, "password-file", "", "read the account's password from the one line of this file instead of asking")
	f.StringVar(&o.tlsCert, "tls-cert", "", "TLS certificate (PEM); the address is then tls://")
	f.StringVar(&o.tlsKey, "tls-key", "", "key of the TLS certificate (PEM)")
	f.StringVar(&o.store, "store", "", "`folder` to keep requests in for ?durable=true")
	f.Var(&o.maxStore, "max-store", "the most that is kept there")
	f.Var(&o.maxMessage, "max-message", "the longest message with its headers, at most 64MiB")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "tell on standard error what happens")
	return cmd
}

func runBroker(ctx context.Context, c *console, o brokerOptions) error {
	options, err := o.broker(ctx, c)
	if err != nil {
		return err
	}
	b, err := broker.Start(options)
	if err != nil {
		return fmt.Errorf("%s; --listen names another address", strings.TrimPrefix(err.Error(), "broker: "))
	}
	defer b.Close()
	if err := o.announce(c, b); err != nil {
		return err
	}
	<-ctx.Done()
	c.note("Ending.")
	return b.Close()
}

// broker checks the flags, and asks for the password if no file has it.
func (o *brokerOptions) broker(ctx context.Context, c *console) (b broker.Options, err error) {
	switch {
	case o.account == "" || strings.ContainsAny(o.account, "@:/?#% \t\r\n"):
		return b, fmt.Errorf("--account %.60q: want a name without blanks and without @ : / ? # %%", printable(o.account))
	case o.listen == "":
		return b, errors.New("--listen is empty: want host:port")
	case o.maxStore <= 0 || o.maxMessage <= 0:
		return b, errors.New("--max-store and --max-message must be more than 0")
	case o.maxMessage > 64<<20:
		return b, fmt.Errorf("--max-message is %v: at most 64MiB", o.maxMessage)
	}
	pair, err := readTLS(o.tlsCert, o.tlsKey)
	if err != nil {
		return b, err
	}
	if pair != nil {
		b.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*pair}}
	}
	password, err := passphraseSource{c, o.passwordFile, "password"}.fresh(ctx)
	if err != nil {
		return b, err
	}
	defer clear(password)
	level := slog.LevelError
	if o.verbose {
		level = slog.LevelDebug
	}
	b.Address, b.Users = o.listen, []broker.User{{Name: o.account, Password: string(password)}}
	b.StoreDir, b.MaxStore, b.MaxPayload = o.store, int64(o.maxStore), int(o.maxMessage)
	b.Logger = slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level}))
	return b, nil
}

// A running is what is printed of a broker.
type running struct {
	URL     string `json:"url"`
	Account string `json:"account"`
	Address string `json:"address"`
	Store   string `json:"store,omitempty"`
}

func (o *brokerOptions) announce(c *console, b *broker.Broker) error {
	r := running{URL: b.URL(), Account: o.account, Address: b.Addr().String(), Store: o.store}
	if o.tlsCert == "" && !loopback(r.Address) {
		c.note("Warning: %s can be reached from other machines without TLS: the password and calls that are not sealed can be read on the way. Add --tls-cert and --tls-key, or listen on 127.0.0.1.", r.URL)
	}
	if o.json {
		return json.NewEncoder(c.out).Encode(r)
	}
	scheme, rest, _ := strings.Cut(r.URL, "://")
	to := scheme + "://" + o.account + "@" + rest
	kept := "Nothing is kept: no --store."
	if o.store != "" {
		kept = fmt.Sprintf("Requests with ?durable=true are kept in %s, at most %v.", o.store, o.maxStore)
	}
	_, err := fmt.Fprintf(c.out, `Broker %s
%s
Reach it with the same password by
  owtp serve --mq %s
  owtp call %[3]s METHOD --peer ID
`, r.URL, kept, to)
	return err
}

// readTLS reads a certificate and its key, or returns nil if none is named.
func readTLS(cert, key string) (*tls.Certificate, error) {
	if (cert == "") != (key == "") {
		return nil, errors.New("--tls-cert and --tls-key belong together: give both or none")
	}
	if cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("reading the TLS certificate %s and its key %s: %w", cert, key, err)
	}
	return &pair, nil
}

// A size is a number of bytes, as people write it.
type size int64

var sizeUnits = []struct {
	name string
	size size
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// Set implements pflag.Value.
func (s *size) Set(text string) error {
	unit := size(1)
	for _, u := range sizeUnits {
		if number, ok := strings.CutSuffix(text, u.name); ok {
			text, unit = number, u.size
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > int64(1<<62)/int64(unit) {
		return errors.New("want a number of bytes, or one with KiB, MiB or GiB")
	}
	*s = size(n) * unit
	return nil
}

// String implements pflag.Value.
func (s size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Type implements pflag.Value.
func (*size) Type() string { return "size" }
