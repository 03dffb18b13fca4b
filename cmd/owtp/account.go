package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/identity"

	_ "github.com/owtp-go/owtp/contrib/nats" // nats:// and tls://
)

// queueFlags say which queue of a broker is meant, and as whom it is reached.
type queueFlags struct {
	queue        string
	exchange     string
	account      string
	passwordFile string
}

func (q *queueFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&q.queue, "queue", "", "queue of the peer at a broker (default: owtp.node. and the ID after --peer)")
	f.StringVar(&q.exchange, "exchange", "", "exchange of RabbitMQ to publish to (default: its nameless one)")
	f.StringVar(&q.account, "account", "", "account at the broker; it may also stand in the address, as in nats://account@host")
	f.StringVar(&q.passwordFile, "password-file", "", "read the account's password from the one line of this file instead of asking")
}

// apply completes the address of a peer. peer is what --peer says.
func (q *queueFlags) apply(a *peerAddress, peer string) error {
	if !a.mq() {
		if *q != (queueFlags{}) {
			return fmt.Errorf("--queue, --exchange, --account and --password-file are for brokers, and %s is none", a)
		}
		return nil
	}
	if q.queue != "" && a.queue != "" && q.queue != a.queue {
		return fmt.Errorf("the address names the queue %s and --queue names %s: give one of them", a.queue, printable(q.queue))
	}
	if q.queue != "" {
		if err := checkQueue(q.queue); err != nil {
			return fmt.Errorf("--queue %w", err)
		}
		a.queue = q.queue
	}
	if a.queue == "" && peer == "" {
		return fmt.Errorf("%s is a broker, where many nodes can be: name the peer by --peer ID, or its queue by --queue NAME or after # in the address", a)
	}
	if a.queue == "" {
		id, err := identity.ParseID(peer)
		if err != nil {
			return fmt.Errorf("--peer: %w", err)
		}
		a.queue = nodeQueue + id.String()
	}
	if len(a.String()) > maxAddress {
		return fmt.Errorf("the address with its queue is too long: at most %d bytes", maxAddress)
	}
	return a.login(q.account)
}

// login adds the account of a flag to an address.
func (a *peerAddress) login(account string) error {
	if account != "" && a.account != "" && account != a.account {
		return fmt.Errorf("the address names the account %s and --account names %s: give one of them", printable(a.account), printable(account))
	}
	if account != "" {
		a.account = account
	}
	return nil
}

// dial puts into a configuration what the library needs to log in. A password is
// in no argument and in no variable of the environment: other programs of the
// same machine can read those.
func (a peerAddress) dial(ctx context.Context, c *console, cfg *owtp.ConnectConfig, exchange, passwordFile string) error {
	if !a.mq() {
		return nil
	}
	amqp := strings.HasPrefix(a.scheme, "amqp")
	if exchange != "" && !amqp {
		return fmt.Errorf("--exchange is for RabbitMQ, and %s is NATS", a)
	}
	cfg.Exchange = exchange
	if passwordFile == "" && a.account == "" {
		return nil // RabbitMQ's guest, a server that asks nobody, or a file of credentials
	}
	if a.account == "" && amqp {
		return errors.New("--password-file without an account: give --account too")
	}
	password, err := a.password(ctx, c, passwordFile)
	if err != nil {
		return err
	}
	defer clear(password)
	cfg.Password = string(password)
	if a.clear() {
		c.note("Warning: the password goes to %s unencrypted. Use %s.", a.broker(), map[bool]string{true: "amqps://", false: "tls://"}[amqp])
	}
	return nil
}

func (a peerAddress) password(ctx context.Context, c *console, file string) ([]byte, error) {
	if file != "" {
		return readSecretFile(file, "password")
	}
	if !c.interactive() {
		return nil, fmt.Errorf("there is no terminal to ask for the password of %s at %s: give --password-file", printable(a.account), a.broker())
	}
	p, err := c.readSecret(ctx, fmt.Sprintf("Password of %s at %s: ", printable(a.account), a.broker()))
	if err != nil {
		return nil, fmt.Errorf("reading the password: %w", err)
	}
	if len(p) == 0 {
		return nil, errors.New("no password was given")
	}
	return p, nil
}
