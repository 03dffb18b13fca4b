package natskv

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	defaultBucket  = "owtp"
	defaultTimeout = 2 * time.Second // as long as a manager waits for one operation
	defaultPort    = "4222"

	maxURL   = 16 << 10 // bytes
	maxAddrs = 100
)

// options are what a URL says. They are checked.
type options struct {
	host           string   // the first server, with its port
	servers        []string // all of them, as the client wants them
	user, password string
	tls            *tls.Config // nil without
	bucket         string
	inbox          string
	credentials    string // a file
	replicas       int
	maxRecords     int64
	maxBytes       int64
	timeout        time.Duration
}

var (
	// errURL does not repeat any of it: what looks like a path or a port may be a
	// part of the password.
	errURL = errors.New(`nats: ProviderConfig is not a URL like "nats://user:password@host:4222?bucket=owtp" (write special characters of a password as %XX)`)

	bucketName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)
	inboxName  = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
)

func parse(text string) (*options, error) {
	if len(text) > maxURL {
		return nil, fmt.Errorf("nats: ProviderConfig has %d bytes, at most %d are allowed", len(text), maxURL)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "" || u.Opaque != "" || u.Path != "" && u.Path != "/" || u.Fragment != "" {
		return nil, errURL
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errURL
	}
	o := &options{bucket: defaultBucket, inbox: "_INBOX", replicas: 1, timeout: defaultTimeout}
	if u.User != nil {
		o.user = u.User.Username()
		o.password, _ = u.User.Password()
	}
	if err := o.places(u.Host, query["addr"]); err != nil {
		return nil, err
	}
	delete(query, "addr")
	files := make(map[string]string)
	for name, values := range query {
		if len(values) > 1 {
			return nil, errors.New("nats: ProviderConfig has a parameter twice")
		}
		if err := o.take(name, values[0], files); err != nil {
			return nil, err
		}
	}
	if u.Scheme == "tls" {
		return o, o.secure(files)
	}
	if len(files) > 0 {
		return nil, errors.New("nats: ProviderConfig names certificates, and its URL begins with nats://; write tls://")
	}
	return o, nil
}

// places are the servers to try, the first one first.
func (o *options) places(first string, more []string) error {
	if len(more) > maxAddrs {
		return fmt.Errorf("nats: ProviderConfig has %d further servers, at most %d are allowed", len(more), maxAddrs)
	}
	for _, text := range append([]string{first}, more...) {
		u, err := url.Parse("nats://" + text)
		if err != nil || u.User != nil || u.Hostname() == "" || u.Host != text {
			return errors.New("nats: addr in ProviderConfig is not of the form host:port")
		}
		port := u.Port()
		if port == "" {
			port = defaultPort
		}
		o.servers = append(o.servers, "nats://"+net.JoinHostPort(u.Hostname(), port))
	}
	o.host = strings.TrimPrefix(o.servers[0], "nats://")
	return nil
}

func (o *options) take(name, value string, files map[string]string) error {
	var err error
	number := func(least, most int64) (n int64) {
		if n, err = strconv.ParseInt(value, 10, 64); err != nil || n < least || n > most {
			err = fmt.Errorf("nats: the parameter %s is no number from %d to %d", name, least, most)
		}
		return n
	}
	switch name {
	case "bucket":
		if o.bucket = value; !bucketName.MatchString(value) {
			err = errors.New("nats: the parameter bucket is no name of letters, digits, - and _")
		}
	case "inbox":
		if o.inbox = value; len(value) > 200 || !inboxName.MatchString(value) {
			err = errors.New("nats: the parameter inbox is no subject of letters, digits, - and _ between its dots")
		}
	case "replicas":
		o.replicas = int(number(1, 5))
	case "max_records":
		o.maxRecords = number(1, 1<<40)
	case "max_bytes":
		o.maxBytes = number(1, 1<<50)
	case "timeout":
		if o.timeout, err = time.ParseDuration(value); err != nil || o.timeout <= 0 {
			err = errors.New("nats: the parameter timeout is no duration like 2s")
		}
	case "creds":
		o.credentials = value
	case "ca_file", "cert_file", "key_file", "server_name":
		files[name] = value
	default:
		known := []string{"addr", "bucket", "ca_file", "cert_file", "creds", "inbox", "key_file", "max_bytes", "max_records", "replicas", "server_name", "timeout"}
		// Not repeated: it may be what follows a ? in a password.
		err = fmt.Errorf("nats: ProviderConfig has an unknown parameter (known: %s; in a password a ? is written %%3F)", strings.Join(slices.Sorted(slices.Values(known)), ", "))
	}
	return err
}

func (o *options) secure(files map[string]string) error {
	o.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: files["server_name"]}
	if o.tls.ServerName == "" {
		// Servers that the first one has named are known by their addresses alone.
		o.tls.ServerName, _, _ = net.SplitHostPort(o.host)
	}
	if name := files["ca_file"]; name != "" {
		pem, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("nats: ca_file: %w", err)
		}
		o.tls.RootCAs = x509.NewCertPool()
		if !o.tls.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("nats: ca_file %s has no certificate in it", name)
		}
	}
	if files["cert_file"] != "" || files["key_file"] != "" {
		pair, err := tls.LoadX509KeyPair(files["cert_file"], files["key_file"])
		if err != nil {
			return fmt.Errorf("nats: cert_file and key_file: %w", err)
		}
		o.tls.Certificates = []tls.Certificate{pair}
	}
	return nil
}
