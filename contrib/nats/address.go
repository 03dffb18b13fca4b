package nats

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/owtp-go/owtp/transport"
)

const defaultPort = "4222"

// An address is a parsed Config.Address. Its parts have been checked.
type address struct {
	host        string // with the port
	name        string // without
	tls         bool   // demanded
	durable     bool
	credentials string // a file
}

// url is what the address is without its options.
func (a address) url() string {
	if a.tls {
		return "tls://" + a.host
	}
	return "nats://" + a.host
}

// parseAddress quotes nothing that may be a password.
func parseAddress(cfg transport.Config) (a address, err error) {
	// However odd the rest is, a password may stand before an @.
	if strings.Contains(cfg.Address, "@") {
		return a, errors.New("owtp: the address has an @ in it; it is nats://host:port, user and password belong into Account and Password, and in a file's name an @ is written %40")
	}
	u, err := url.Parse(cfg.Address)
	if err != nil {
		return a, errors.New("owtp: the address is no URL; a NATS server is named by nats://host:port or tls://host:port")
	}
	if u.Scheme != "nats" && u.Scheme != "tls" {
		return a, fmt.Errorf("owtp: %q is no address of a NATS server: it begins neither with nats:// nor with tls://", cfg.Address)
	}
	if u.Hostname() == "" || u.Opaque != "" || u.Path != "" && u.Path != "/" || u.Fragment != "" {
		return a, fmt.Errorf("owtp: the address %q is not of the form %s://host:port", cfg.Address, u.Scheme)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil && strings.Contains(u.Hostname(), ":") {
		return a, fmt.Errorf("owtp: %q is neither a host's name nor its address", u.Hostname())
	}
	port := u.Port()
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return a, fmt.Errorf("owtp: %q is no port of a NATS server", port)
	}
	a.name, a.host, a.tls = u.Hostname(), net.JoinHostPort(u.Hostname(), port), u.Scheme == "tls" || cfg.TLS != nil
	return a, a.options(u.RawQuery)
}

func (a *address) options(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("owtp: the options of the address, after its question mark, cannot be read")
	}
	for name, v := range values {
		if len(v) > 1 {
			return errors.New("owtp: the address has an option twice")
		}
		switch name {
		case "durable":
			if a.durable, err = strconv.ParseBool(v[0]); err != nil {
				return errors.New("owtp: durable= in the address is neither true nor false")
			}
		case "creds":
			if a.credentials = v[0]; a.credentials == "" {
				return errors.New("owtp: creds= in the address names no file")
			}
		default:
			// Not repeated: it may be what follows a ? in a password.
			return errors.New("owtp: the address has an unknown option (known: creds, durable)")
		}
	}
	return nil
}

// Network implements [net.Addr].
func (address) Network() string { return "nats" }

// String implements [net.Addr]: what to dial to reach the same place.
func (a address) String() string {
	options := make(url.Values)
	if a.durable {
		options.Set("durable", "true")
	}
	if a.credentials != "" {
		options.Set("creds", a.credentials)
	}
	if len(options) == 0 {
		return a.url()
	}
	return a.url() + "?" + options.Encode()
}

// server is the address as the client wants it. Whether TLS is demanded is an
// option of its own.
func (a address) server() string { return "nats://" + a.host }
