package owtp

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/owtp-go/owtp/transport"
)

// nodeQueue is the queue from which all replicas of a node take requests,
// unless its owner names another.
func nodeQueue(id string) string { return "owtp.node." + id }

// maxQueueName leaves room for what brokers add to a name, such as ".dead":
// AMQP allows 255 bytes.
const maxQueueName = 200

// checkBroker finds the broker that the address names and takes user and
// password out of it. Without a scheme it is amqps.
func (s *spec) checkBroker() error {
	text := s.Address
	if !strings.Contains(text, "://") {
		text = "amqps://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Fragment != "" {
		// The parser's error would repeat a password.
		return fmt.Errorf("owtp: the broker's address cannot be read: want amqps://host:port/vhost or %s", otherSchemes())
	}
	if u.User != nil {
		if s.Account != "" || s.Password != "" {
			return errors.New("owtp: the broker's address holds a user, and Account or Password is set as well; use one of the two")
		}
		s.Account = u.User.Username()
		s.Password, _ = u.User.Password()
		u.User = nil
	}
	u.Scheme = strings.ToLower(u.Scheme)
	if s.broker = brokerFor(u.Scheme); s.broker == nil {
		return fmt.Errorf("owtp: unknown broker scheme %.20q; known are %s (those of other brokers come with the import of their package)", u.Scheme, strings.Join(brokerSchemes(), ", "))
	}
	switch overTLS := u.Scheme == "amqps" || u.Scheme == "tls"; {
	case overTLS:
		s.EnableSSL = true
	case s.EnableSSL:
		return fmt.Errorf("owtp: EnableSSL contradicts the scheme %s:// of the broker's address; write amqps:// or tls://", u.Scheme)
	}
	if u.Hostname() == "" {
		u.Host = net.JoinHostPort("localhost", u.Port())
		u.Host = strings.TrimSuffix(u.Host, ":")
	}
	s.Address = u.String()
	for name, queue := range map[string]string{"WriteQueueName": s.WriteQueueName, "ReadQueueName": s.ReadQueueName, "Exchange": s.Exchange} {
		if err := checkQueueName(queue); queue != "" && err != nil {
			return fmt.Errorf("owtp: ConnectConfig.%s: %w", name, err)
		}
	}
	return nil
}

func otherSchemes() string { return strings.Join(brokerSchemes(), "://…, ") + "://…" }

// checkQueueName lets through what is a plain name to every broker.
func checkQueueName(name string) error {
	if len(name) > maxQueueName {
		return fmt.Errorf("a name of %d bytes; at most %d are allowed", len(name), maxQueueName)
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`*>"'\`, c) >= 0 {
			return fmt.Errorf("%.60q has the character %q; letters, digits and . _ - : / are allowed", name, c)
		}
	}
	if strings.HasPrefix(name, transport.ReplyQueuePrefix) || strings.HasPrefix(name, transport.OwnQueuePrefix) {
		return fmt.Errorf("%.60q begins like a queue that a connection makes for itself", name)
	}
	return nil
}

// writeQueue fills in where requests to the dialled peer go.
func (s *spec) writeQueue(name string) error {
	switch {
	case s.broker == nil || s.WriteQueueName != "":
	case s.peer.IsZero():
		return fmt.Errorf("owtp: the queue of %q is not known: an alias over MQ needs ConnectConfig.WriteQueueName or PeerID until it is bound", name)
	default:
		s.WriteQueueName = nodeQueue(s.peer.String())
	}
	return nil
}
