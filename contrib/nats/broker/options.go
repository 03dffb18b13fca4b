package broker

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Options of a server. Users is needed; the zero value of the others is a server
// on loopback that keeps nothing.
type Options struct {
	// Address is the host and port to listen on. Empty means 127.0.0.1 and a
	// free port; a port of 0 is a free one.
	Address string

	// Users are those who may connect. There must be one at least, also on
	// loopback: other programs of the machine, and web pages in its browser,
	// reach that too.
	Users []User

	// TLS, if not nil, is demanded of clients.
	TLS *tls.Config

	// StoreDir is the folder in which streams are kept. Empty means that the
	// server has no JetStream: neither "?durable=true" nor the session store
	// "nats" works. One server at a time may have it.
	StoreDir string

	// MaxStore bounds what is kept in StoreDir, in bytes; 0 means 1 GiB.
	MaxStore int64

	// MaxPayload is the longest message with its headers, in bytes; 0 means
	// 1 MiB, and 64 MiB is the most.
	MaxPayload int

	// MaxConns bounds the connections; 0 means 1024.
	MaxConns int

	// Logger gets what the server says; nil means nobody.
	Logger *slog.Logger
}

// A User may connect.
type User struct {
	Name, Password string

	// Publish and Subscribe are the subjects that the user may publish and
	// subscribe to, with the wildcards * and >; for a queue group, the subject, a
	// blank and the group. Nil means all.
	Publish, Subscribe []string
}

const (
	defaultStore   = 1 << 30
	defaultPayload = 1 << 20
	maxPayload     = 64 << 20
	defaultConns   = 1024
)

func (o Options) checked() (*server.Options, error) {
	opts := &server.Options{
		NoSigs:                 true, // they are the program's
		DisableJetStreamBanner: true,
		MaxPayload:             int32(cmp.Or(o.MaxPayload, defaultPayload)),
		MaxConn:                cmp.Or(o.MaxConns, defaultConns),
		// A client that does not read is cut off, and its buffer with it.
		WriteDeadline: 10 * time.Second,
	}
	if o.MaxPayload < 0 || o.MaxPayload > maxPayload || o.MaxConns < 0 || o.MaxStore < 0 {
		return nil, fmt.Errorf("broker: a bound is negative or too large: MaxPayload %d (up to %d), MaxConns %d, MaxStore %d",
			o.MaxPayload, maxPayload, o.MaxConns, o.MaxStore)
	}
	// What one client may have waiting: a few of the longest messages.
	opts.MaxPending = max(server.MAX_PAYLOAD_MAX_SIZE, 4*int64(opts.MaxPayload))
	if err := o.listen(opts); err != nil {
		return nil, err
	}
	if err := o.users(opts); err != nil {
		return nil, err
	}
	if o.TLS != nil {
		opts.TLSConfig = o.TLS.Clone()
		opts.TLS = true
		opts.TLSTimeout = 5 // seconds
	}
	return opts, o.store(opts)
}

func (o Options) listen(opts *server.Options) error {
	host, port, err := net.SplitHostPort(cmp.Or(o.Address, "127.0.0.1:0"))
	if err != nil {
		return fmt.Errorf("broker: the address %q is not of the form host:port", o.Address)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("broker: %q is no port", port)
	}
	opts.Host, opts.Port = cmp.Or(host, "0.0.0.0"), int(n)
	if n == 0 {
		opts.Port = server.RANDOM_PORT
	}
	return nil
}

func (o Options) users(opts *server.Options) error {
	if len(o.Users) == 0 {
		return errors.New("broker: there are no Users; a server that everybody may use is none for money")
	}
	seen := make(map[string]bool)
	for _, u := range o.Users {
		if u.Name == "" || u.Password == "" || seen[u.Name] {
			return fmt.Errorf("broker: the user %q has no name or no password, or is there twice", u.Name)
		}
		seen[u.Name] = true
		user := &server.User{Username: u.Name, Password: u.Password}
		if u.Publish != nil || u.Subscribe != nil {
			user.Permissions = &server.Permissions{Publish: permission(u.Publish), Subscribe: permission(u.Subscribe)}
		}
		opts.Users = append(opts.Users, user)
	}
	return nil
}

// permission makes of an empty list that nothing is allowed: for the server it
// would be everything.
func permission(subjects []string) *server.SubjectPermission {
	switch {
	case subjects == nil:
		return nil
	case len(subjects) == 0:
		return &server.SubjectPermission{Deny: []string{">"}}
	}
	return &server.SubjectPermission{Allow: subjects}
}

func (o Options) store(opts *server.Options) error {
	if o.StoreDir == "" {
		return nil
	}
	dir, err := filepath.Abs(o.StoreDir)
	if err != nil {
		return fmt.Errorf("broker: the folder of the store: %w", err)
	}
	// Requests of callers who do not encrypt lie in it.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("broker: the folder of the store: %w", err)
	}
	opts.JetStream, opts.StoreDir = true, dir
	opts.JetStreamMaxStore = cmp.Or(o.MaxStore, defaultStore)
	opts.JetStreamMaxMemory = 0
	return nil
}
