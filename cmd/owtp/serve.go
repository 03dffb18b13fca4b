package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp"
)

const (
	defaultHTTP      = "127.0.0.1:9432"
	defaultWebSocket = "127.0.0.1:9433"

	// shutdownTime bounds how long requests that run may take to finish once
	// the node was asked to end. Service managers wait for 10 s at least.
	shutdownTime = 8 * time.Second
)

type serveOptions struct {
	keys            keyFlags
	http, ws        string
	queues          servedQueues
	v1              servedV1
	sign, encrypt   bool
	tlsCert, tlsKey string
	json, verbose   bool
}

func newServeCommand(c *console) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a node that others can call",
		Long: `Runs a node over HTTP, WebSocket and message queues at once. It serves

  echo      returns its parameters
  time      tells the time
  getInfo   says hello

which owtp describe lists. It prints its node ID and where it listens. Ctrl-C or
SIGTERM ends it: what runs may finish, for a few seconds. --sign and --encrypt are
demands: calls that are not signed or not sealed are refused.

--mq takes requests from a queue of a broker: owtp.node.ID, or the one after #
in the address. Several processes with one key share the work of one queue. That
a broker is away, or there again, is told on standard error.

--allow-v1 serves nodes of protocol version 1 as well. --sign and --encrypt are
demands on them too; without --sign they are whoever they say. Over RabbitMQ such
a node reads one queue and writes to another, and names an exchange: the first is
--v1-answer-queue here, the second the one after # in --mq, the third --exchange.`,
		Example: `  owtp serve
  owtp serve --key server.pem --sign --encrypt
  owtp serve --http 127.0.0.1:0 --ws "" --json      # any free port, HTTP only
  owtp serve --http :443 --ws :444 --tls-cert cert.pem --tls-key key.pem --key server.pem --sign
  owtp serve --http "" --ws "" --mq nats://node@127.0.0.1:4222 --password-file mq.secret --encrypt
  owtp serve --key server.pem --sign --allow-v1 --v1-cert-file face.pem
  owtp serve --key server.pem --allow-v1 --mq amqp://wallet@mq.example#to-server --v1-answer-queue to-client --exchange amq.direct
  owtp serve --mq amqps://wallet@mq.example/prod#orders --password-file mq.secret --key server.pem --sign`,
		Args: arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), c, o) },
	}
	o.keys.register(cmd, "a new one that is thrown away")
	f := cmd.Flags()
	f.StringVar(&o.http, "http", defaultHTTP, `where to listen for HTTP, as host:port; "" for nowhere`)
	f.StringVar(&o.ws, "ws", defaultWebSocket, `where to listen for WebSocket, as host:port; "" for nowhere`)
	must(f.SetAnnotation("http", mayBeEmpty, nil))
	must(f.SetAnnotation("ws", mayBeEmpty, nil))
	o.queues.register(cmd)
	o.v1.register(cmd)
	f.BoolVar(&o.sign, "sign", false, "refuse calls that are not signed")
	f.BoolVar(&o.encrypt, "encrypt", false, "refuse calls that are not sealed")
	f.StringVar(&o.tlsCert, "tls-cert", "", "TLS certificate (PEM); makes it https and wss")
	f.StringVar(&o.tlsKey, "tls-key", "", "key of the TLS certificate (PEM)")
	f.BoolVar(&o.json, "json", false, "print one JSON object for each listener")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "tell on standard error what happens")
	return cmd
}

func serve(ctx context.Context, c *console, o serveOptions) error {
	configs, err := o.listeners()
	if err != nil {
		return err
	}
	if err := o.v1.check(len(configs), o.queues.rabbits()); err != nil {
		return err
	}
	queues, err := o.queues.configs(ctx, c)
	if err != nil {
		return err
	}
	if err := o.v1.apply(ctx, c, configs, queues); err != nil {
		return err
	}
	for _, cfg := range queues {
		cfg.EnableSignature, cfg.EnableKeyAgreement = o.sign, o.encrypt
		configs = append(configs, cfg)
	}
	if len(configs) == 0 {
		return errors.New("there is nothing to listen on: --http and --ws are both empty, and there is no --mq")
	}
	node, err := o.newNode(ctx, c)
	if err != nil {
		return err
	}
	defer node.Close()
	if err := handleServed(node); err != nil {
		return err
	}
	for _, cfg := range configs {
		if err := node.Listen(cfg); err != nil {
			return listenError(cfg, err)
		}
	}
	for i, cfg := range configs {
		if err := o.announce(c, node, cfg, i == 0); err != nil {
			return err
		}
	}
	<-ctx.Done()
	c.note("Ending.")
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := node.Shutdown(bounded); err != nil {
		c.note("Some calls were cut off after %v: %v", shutdownTime, err)
	}
	return nil
}

// listeners returns the configurations that the flags ask for.
func (o *serveOptions) listeners() ([]owtp.ConnectConfig, error) {
	base := owtp.ConnectConfig{EnableSignature: o.sign, EnableKeyAgreement: o.encrypt}
	pair, err := readTLS(o.tlsCert, o.tlsKey)
	if err != nil {
		return nil, err
	}
	if pair != nil {
		base.EnableSSL, base.TLS = true, &tls.Config{Certificates: []tls.Certificate{*pair}}
	}
	var configs []owtp.ConnectConfig
	for _, l := range []struct{ kind, address string }{{owtp.HTTP, o.http}, {owtp.Websocket, o.ws}} {
		if l.address != "" {
			cfg := base
			cfg.ConnectType, cfg.Address = l.kind, l.address
			configs = append(configs, cfg)
		}
	}
	return configs, nil
}

func (o *serveOptions) newNode(ctx context.Context, c *console) (*owtp.OWTPNode, error) {
	cfg := owtp.NodeConfig{Logger: o.logger(c), Describe: true}
	if o.keys.file == "" {
		if o.keys.passphraseFile != "" {
			return nil, errors.New("--passphrase-file needs --key")
		}
		cfg.Cert = owtp.NewRandomCertificate()
		c.note("Note: no --key, so this node has a new ID that ends with it (owtp keygen makes a key that stays).")
		return owtp.New(cfg)
	}
	key, err := o.keys.load(ctx, c)
	if err != nil {
		return nil, err
	}
	if cfg.Cert, err = certificate(key); err != nil {
		return nil, err
	}
	return owtp.New(cfg)
}

func (o *serveOptions) logger(c *console) *slog.Logger {
	level := slog.LevelError
	switch {
	case o.verbose:
		level = slog.LevelDebug
	case len(o.queues.addresses) > 0:
		level = slog.LevelWarn // that a broker is away, and there again
	}
	return slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level}))
}

// A listening is what is printed for one listener.
type listening struct {
	NodeID    string `json:"nodeID"`
	Transport string `json:"transport"`
	URL       string `json:"url"`
	Address   string `json:"address"`
	Mode      string `json:"mode"`
}

// exposed reports whether strangers on the network may call without a proof. Who
// reaches a broker is not known here, wherever it runs.
func (l listening) exposed() bool {
	return l.Mode == modeOpen && (l.Transport == owtp.MQ || !loopback(l.Address))
}

const modeOpen = "open"

func (o *serveOptions) announce(c *console, node *owtp.OWTPNode, cfg owtp.ConnectConfig, first bool) error {
	l := listening{NodeID: node.NodeID(), Transport: cfg.ConnectType, Mode: o.mode()}
	if cfg.ConnectType == owtp.MQ {
		l.Address, l.URL = queueURL(cfg, node.NodeID())
	} else {
		l.Address = node.ListenerAddr(cfg.ConnectType)
	}
	for scheme, s := range schemes {
		if l.URL == "" && s.connectType == cfg.ConnectType && s.tls == cfg.EnableSSL {
			l.URL = scheme + "://" + l.Address
		}
	}
	switch {
	case l.exposed() && l.Transport == owtp.MQ:
		c.note("Warning: %s is open: whoever has an account at the broker can call it, and nobody is asked who they are. Add --sign, --encrypt or both.", l.URL)
	case l.exposed():
		c.note("Warning: %s can be reached from other machines and is open: anybody can call it, and nobody is asked who they are. Add --sign, --encrypt or both, or listen on 127.0.0.1.", l.URL)
	}
	if o.json {
		return json.NewEncoder(c.out).Encode(l)
	}
	if first {
		fmt.Fprintf(c.out, "Node %s\n", l.NodeID)
	}
	_, err := fmt.Fprintf(c.out, "Listening on %s (%s)\n", l.URL, l.Mode)
	return err
}

// mode is what the listeners demand of callers.
func (o *serveOptions) mode() string {
	switch {
	case o.sign && o.encrypt:
		return "sealed and signed"
	case o.encrypt:
		return "sealed"
	case o.sign:
		return "signed"
	}
	return modeOpen
}

// loopback reports whether an address that is bound can be reached from this
// machine only.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func listenError(cfg owtp.ConnectConfig, err error) error {
	flag := "--http"
	switch cfg.ConnectType {
	case owtp.MQ:
		return err // it names the broker
	case owtp.Websocket:
		flag = "--ws"
	}
	return fmt.Errorf("listening on %s: %w; %s names another address, as in %[3]s 127.0.0.1:0 for any free port", cfg.Address, err, flag)
}
