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

// A peerAddress is where a peer listens. Its text is the same however a person
// wrote it, so that it can be looked up.
type peerAddress struct {
	scheme string
	host   string // as in a URL's host:port, in lower case
	port   string
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
}

const addressHelp = "write http://host:port, https://host:port, ws://host:port or wss://host:port"

// parseAddress reads and normalises the address of a peer.
func parseAddress(text string) (peerAddress, error) {
	fail := func(format string, args ...any) (peerAddress, error) {
		return peerAddress{}, fmt.Errorf("address %.100q %s", printable(text), fmt.Sprintf(format, args...))
	}
	scheme, _, ok := strings.Cut(text, "://")
	if !ok {
		return fail("has no scheme: %s", addressHelp)
	}
	scheme = strings.ToLower(scheme)
	switch scheme {
	case "amqp", "amqps", "nats":
		return fail("names a message queue, which this tool cannot call yet: %s", addressHelp)
	}
	kind, ok := schemes[scheme]
	if !ok {
		return fail("has the unknown scheme %q: %s", scheme, addressHelp)
	}
	u, err := url.Parse(text)
	if err != nil {
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			err = urlErr.Err
		}
		return fail("cannot be read (%v): %s", err, addressHelp)
	}
	switch {
	case u.User != nil:
		// Not fail: what stands there may be a password.
		return peerAddress{}, errors.New("the address has a user name in it: a node is known by its key (--key), not by a password")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return fail("has something after the port: %s", addressHelp)
	}
	a := peerAddress{scheme: scheme, host: strings.ToLower(u.Hostname()), port: u.Port()}
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
	return a, nil
}

func (a peerAddress) hostPort() string { return net.JoinHostPort(a.host, a.port) }
func (a peerAddress) String() string   { return a.scheme + "://" + a.hostPort() }
func (a peerAddress) tls() bool        { return schemes[a.scheme].tls }

// config returns what dials the address.
func (a peerAddress) config(roots *x509.CertPool) owtp.ConnectConfig {
	c := owtp.ConnectConfig{
		Address:     a.hostPort(),
		ConnectType: schemes[a.scheme].connectType,
		EnableSSL:   a.tls(),
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
		return nil, fmt.Errorf("--ca is for https and wss; %s uses no TLS", a)
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
