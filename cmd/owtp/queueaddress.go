package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/owtp-go/owtp/identity"
)

// nodeQueue begins the name of the queue that a node takes requests from unless
// its operator names another; its ID follows (PROTOCOL §7.5).
const nodeQueue = "owtp.node."

// readBroker reads what only addresses of brokers have. Two people who mean the
// same queue get the same text, whatever their accounts are.
func (a *peerAddress) readBroker(u *url.URL) (err error) {
	if u.User != nil {
		if _, set := u.User.Password(); set {
			return errors.New("has a password in it, which other programs of this machine can read: leave it out, you are asked for it, or give --password-file")
		}
		if a.account = u.User.Username(); a.account == "" {
			return errors.New("has an @ without an account before it")
		}
	}
	amqp := strings.HasPrefix(a.scheme, "amqp")
	switch {
	case amqp:
		if a.vhost, err = readVhost(u.EscapedPath()); err != nil {
			return err
		}
		if u.RawQuery != "" || u.ForceQuery {
			return errors.New("has options after a question mark, which RabbitMQ's have not")
		}
	case u.Path != "" && u.Path != "/":
		return errors.New("has a path, which NATS does not know: write the queue after #")
	default:
		if a.options, err = readOptions(u.RawQuery); err != nil {
			return err
		}
	}
	a.queue = u.Fragment
	return checkQueue(a.queue)
}

// readVhost returns a virtual host of RabbitMQ as it stands in an address. No
// path and "/%2f" are the same one, "/".
func readVhost(path string) (string, error) {
	name := strings.TrimPrefix(path, "/")
	if strings.Contains(name, "/") {
		return "", errors.New("has a virtual host with a slash: write it as %2F")
	}
	name, err := url.PathUnescape(name)
	if err != nil {
		return "", errors.New("has a virtual host that cannot be read")
	}
	if name == "" || name == "/" {
		return "", nil
	}
	return "/" + strings.ReplaceAll(url.PathEscape(name), "@", "%40"), nil
}

// readOptions checks the options of NATS before anything is dialled.
func readOptions(query string) (string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", errors.New("has options after the question mark that cannot be read")
	}
	for name, v := range values {
		switch {
		case name != "durable" && name != "creds":
			return "", fmt.Errorf("has the unknown option %.20q: known are durable=true and creds=FILE", printable(name))
		case len(v) > 1:
			return "", fmt.Errorf("has the option %s twice", name)
		case name == "creds" && v[0] == "":
			return "", errors.New("has the option creds without a file")
		case name == "durable":
			if _, err := strconv.ParseBool(v[0]); err != nil {
				return "", fmt.Errorf("has durable=%.20q: want true or false", printable(v[0]))
			}
		}
	}
	return values.Encode(), nil
}

// checkQueue refuses names that would not be themselves in an address. What else
// a broker does not take the library says.
func checkQueue(name string) error {
	if (&url.URL{Fragment: name}).EscapedFragment() != name || strings.Contains(name, "@") {
		return fmt.Errorf("names the queue %.60q: letters, digits and . _ - : / are allowed", printable(name))
	}
	return nil
}

// broker is the address without the queue, as the library dials it.
func (a peerAddress) broker() string {
	text := a.scheme + "://" + a.hostPort() + a.vhost
	if a.options != "" {
		text += "?" + a.options
	}
	return text
}

// owner returns the node whose queue this is by its name. Who gives such an
// address has said whom to believe.
func (a peerAddress) owner() (id identity.ID, ok bool) {
	text, ok := strings.CutPrefix(a.queue, nodeQueue)
	if !ok {
		return id, false
	}
	id, err := identity.ParseID(text)
	return id, err == nil
}

// parsePeer is parseAddress for what must name one peer.
func parsePeer(text string) (peerAddress, error) {
	a, err := parseAddress(text)
	if err == nil && a.mq() && a.queue == "" {
		err = fmt.Errorf("%s is a broker, where many nodes can be: write the queue after #, as in %[1]s#%s and the node's ID", a, nodeQueue)
	}
	return a, err
}

// clear reports whether what is said to the broker can be read on a network.
func (a peerAddress) clear() bool {
	if a.tls() || a.host == "localhost" {
		return false
	}
	ip := net.ParseIP(a.host)
	return ip == nil || !ip.IsLoopback()
}
