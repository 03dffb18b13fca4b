package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/owtp-go/owtp"
)

// A peerAddress is where a peer takes calls: a socket, or a queue of a message
// broker. Its text is the same however a person wrote it, so that it can be
// looked up.
type peerAddress struct {
	scheme string
	host   string // as in a URL's host:port, in lower case
	port   string
	v1     bool // it is called in protocol version 1

	// Of a broker alone.
	vhost string // "/" and the virtual host as URLs write it; "" is the one named "/"
	queue string // where the peer takes requests; "" as long as nobody has said it

	// How a broker is reached, not who is there: not in the text.
	account string
	options string // as "durable=true"
	answers string // queue that answers of version 1 come to

	old bool // packets of version 0, for old nodes of version 1
}

// schemes are the transports by URL scheme, with the port that a URL without
// one means.
var schemes = map[string]struct {
	connectType string
	tls         bool
	port        string
}{
	"http":  {owtp.HTTP, false, "80"},
	"https": {owtp.HTTP, true, "443"},
	"ws":    {owtp.Websocket, false, "80"},
	"wss":   {owtp.Websocket, true, "443"},
	"amqp":  {owtp.MQ, false, "5672"},
	"amqps": {owtp.MQ, true, "5671"},
	"nats":  {owtp.MQ, false, "4222"},
	"tls":   {owtp.MQ, true, "4222"},
}

const addressHelp = "write http://host:port, https://, ws:// or wss://, or for a queue amqps://host:port/vhost#queue, amqp://, tls://host:port#queue or nats://"

// maxAddress keeps an address fit for a peer's name.
const maxAddress = 255

// parseAddress reads and normalises the address of a peer, or that of a broker,
// which names no queue yet.
func parseAddress(text string) (peerAddress, error) {
	fail := func(format string, args ...any) (peerAddress, error) {
		shown := text
		if i := strings.LastIndexByte(text, '@'); i >= 0 {
			shown = "..." + text[i:] // what stands before it may be a password
		}
		return peerAddress{}, fmt.Errorf("address %.100q %s", printable(shown), fmt.Sprintf(format, args...))
	}
	rest, v1 := cutV1(text)
	scheme, _, ok := strings.Cut(rest, "://")
	if !ok {
		return fail("has no scheme: %s", addressHelp)
	}
	scheme = strings.ToLower(scheme)
	kind, ok := schemes[scheme]
	if !ok {
		return fail("has the unknown scheme %.20q: %s", printable(scheme), addressHelp)
	}
	u, err := url.Parse(rest)
	switch {
	case err != nil && strings.Contains(text, "@"):
		return fail("cannot be read (write special characters of an account as %%XX): %s", addressHelp)
	case err != nil:
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			err = urlErr.Err
		}
		return fail("cannot be read (%v): %s", err, addressHelp)
	case u.User == nil && strings.Contains(text, "@"):
		return fail("has an @ where none belongs: write it as %%40")
	}
	a := peerAddress{scheme: scheme, host: strings.ToLower(u.Hostname()), port: u.Port(), v1: v1}
	if u.Host == "" {
		return fail("names no host: %s", addressHelp)
	}
	if a.host == "" {
		a.host = "localhost" // as the library dials it
	}
	if strings.ContainsAny(a.host, " \t\r\n#") {
		return fail("has a host name with blanks or # in it")
	}
	if a.port == "" {
		if strings.HasSuffix(u.Host, ":") {
			return fail("has no port after the colon")
		}
		a.port = kind.port
	}
	n, err := strconv.ParseUint(a.port, 10, 16)
	if err != nil || n == 0 {
		return fail("has the port %q: want 1 to 65535", a.port)
	}
	a.port = strconv.FormatUint(n, 10) // 09432 is 9432
	if a.mq() {
		err = a.readBroker(u)
	} else {
		err = readSocket(u)
	}
	if err == nil {
		err = a.checkV1()
	}
	if err != nil {
		return fail("%v", err)
	}
	if len(a.String()) > maxAddress {
		return fail("is too long: at most %d bytes", maxAddress)
	}
	return a, nil
}

// readSocket checks what a URL of HTTP or WebSocket must not have.
func readSocket(u *url.URL) error {
	switch {
	case u.User != nil:
		return errors.New("has a user name in it: a node is known by its key (--key), not by a password")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return errors.New("has something after the port: " + addressHelp)
	}
	return nil
}

func (a peerAddress) hostPort() string { return net.JoinHostPort(a.host, a.port) }
func (a peerAddress) tls() bool        { return schemes[a.scheme].tls }
func (a peerAddress) mq() bool         { return schemes[a.scheme].connectType == owtp.MQ }

func (a peerAddress) String() string {
	text := a.scheme + "://" + a.hostPort() + a.vhost
	if a.queue != "" {
		text += "#" + a.queue
	}
	if a.v1 {
		text = v1Prefix + text
	}
	return text
}

// config returns what dials the address.
func (a peerAddress) config(roots *x509.CertPool) owtp.ConnectConfig {
	c := owtp.ConnectConfig{
		Address:     a.hostPort(),
		ConnectType: schemes[a.scheme].connectType,
		EnableSSL:   a.tls(),
	}
	if a.v1 {
		c.Version, c.InsecureV1PacketVersion0 = 1, a.old
	}
	if a.mq() {
		c.Address, c.Account, c.WriteQueueName, c.ReadQueueName = a.broker(), a.account, a.queue, a.answers
	}
	if roots != nil && a.tls() {
		c.TLS = &tls.Config{RootCAs: roots, ServerName: a.host}
	}
	return c
}

// readRoots reads the certificates that a TLS server may be signed by instead
// of the system's. No file means the system's.
func readRoots(path string, a peerAddress) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	if !a.tls() {
		return nil, fmt.Errorf("--ca is for https, wss, amqps and tls; %s uses no TLS", a)
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading --ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca %s holds no PEM certificate", path)
	}
	return pool, nil
}
