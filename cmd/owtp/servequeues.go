package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp"
)

// servedQueues are the queues that owtp serve takes requests from.
type servedQueues struct {
	addresses     []string
	account       string
	exchange      string
	passwordFiles []string
	ca            string
}

func (q *servedQueues) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&q.addresses, "mq", nil, "`address` of a broker whose queue to serve; may be repeated")
	must(cmd.RegisterFlagCompletionFunc("mq", cobra.FixedCompletions([]cobra.Completion{
		cobra.CompletionWithDesc("nats://"+defaultBroker, "NATS on this machine (owtp broker)"),
		cobra.CompletionWithDesc("amqp://127.0.0.1:5672", "RabbitMQ on this machine"),
		cobra.CompletionWithDesc("amqps://", "RabbitMQ over TLS"), cobra.CompletionWithDesc("tls://", "NATS over TLS"),
	}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace)))
	f.StringVar(&q.account, "account", "", "account at the brokers whose address has none")
	f.StringVar(&q.exchange, "exchange", "", "exchange of RabbitMQ to bind the queues to (default: its nameless one)")
	f.StringArrayVar(&q.passwordFiles, "password-file", nil, "read the account's password from the one line of this file instead of asking; with several brokers once for each, in the same order")
	f.StringVar(&q.ca, "ca", "", "PEM file with the certificates that sign the brokers' TLS (default: the system's)")
}

// rabbits counts the brokers that are RabbitMQ.
func (q *servedQueues) rabbits() (n int) {
	for _, text := range q.addresses {
		if overRabbit(text) {
			n++
		}
	}
	return n
}

// configs asks for passwords where no file has them.
func (q *servedQueues) configs(ctx context.Context, c *console) ([]owtp.ConnectConfig, error) {
	if len(q.addresses) == 0 {
		if q.account != "" || q.exchange != "" || q.passwordFiles != nil || q.ca != "" {
			return nil, errors.New("--account, --exchange, --password-file and --ca are for brokers: give --mq too")
		}
		return nil, nil
	}
	if n := len(q.passwordFiles); n != 0 && n != len(q.addresses) {
		// One broker must not be told the password of another.
		return nil, fmt.Errorf("there are %d --mq and %d --password-file: give one for each broker, in the same order", len(q.addresses), n)
	}
	var configs []owtp.ConnectConfig
	seen := make(map[string]bool)
	for i, text := range q.addresses {
		a, err := parseAddress(text)
		switch {
		case err != nil:
			return nil, err
		case !a.mq():
			return nil, fmt.Errorf("--mq %s names no broker: write amqps://host:port/vhost, amqp://, tls://host:port or nats://", a)
		case seen[a.String()]:
			return nil, fmt.Errorf("--mq %s is given twice", a)
		}
		seen[a.String()] = true
		if a.account == "" {
			a.account = q.account
		}
		cfg, err := q.config(ctx, c, a, i)
		if err != nil {
			return nil, err
		}
		configs = append(configs, cfg)
	}
	return configs, nil
}

func (q *servedQueues) config(ctx context.Context, c *console, a peerAddress, i int) (cfg owtp.ConnectConfig, err error) {
	ca := q.ca
	if len(q.addresses) > 1 && !a.tls() {
		ca = "" // it is for the others
	}
	roots, err := readRoots(ca, a)
	if err != nil {
		return cfg, err
	}
	cfg = a.config(roots)
	cfg.ReadQueueName, cfg.WriteQueueName = a.queue, ""
	file := ""
	if i < len(q.passwordFiles) {
		file = q.passwordFiles[i]
	}
	return cfg, a.dial(ctx, c, &cfg, q.exchange, file)
}

// queueURL returns the broker's host and port, and what callers give to owtp
// call. The account is left out: each has one of its own.
func queueURL(cfg owtp.ConnectConfig, id string) (hostPort, url string) {
	a, err := parseAddress(cfg.Address)
	if err != nil {
		return "", cfg.Address // it was read before
	}
	if a.queue = cfg.ReadQueueName; a.queue == "" {
		a.queue = nodeQueue + id
	}
	return a.hostPort(), a.String()
}
