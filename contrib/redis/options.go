package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/owtp-go/owtp/session"
)

const (
	defaultPrefix      = "owtp:"
	maxPrefix          = 128 // bytes
	defaultWaitTimeout = time.Second
	maxWaitReplicas    = 100

	// waitMargin is how much longer than the server's wait for its replicas the
	// driver must wait for the server.
	waitMargin = 500 * time.Millisecond
)

// Options say how a [Store] uses a server. The zero value is the default of
// everything.
type Options struct {
	// Prefix begins every key in the server; "" means "owtp:". Up to 128 bytes.
	// Stores with different prefixes, neither of which begins the other, do not
	// see each other's records.
	Prefix string

	// WaitReplicas is how many replicas must have a write before it counts as
	// done; 0 means none, up to 100. With fewer the method returns an error
	// after WaitTimeout, and nobody knows whether the write will last. In a
	// cluster it is the replicas of the key's shard.
	WaitReplicas int

	// WaitTimeout is how long the server waits for its replicas; 0 means one
	// second. It must be at least half a second shorter than the client's read
	// timeout.
	WaitTimeout time.Duration
}

func (o Options) checked() (Options, error) {
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if len(o.Prefix) > maxPrefix {
		return o, fmt.Errorf("redis: Prefix has %d bytes, at most %d are allowed", len(o.Prefix), maxPrefix)
	}
	if o.WaitReplicas < 0 || o.WaitReplicas > maxWaitReplicas {
		return o, fmt.Errorf("redis: WaitReplicas is %d; it must be within 0 and %d", o.WaitReplicas, maxWaitReplicas)
	}
	if o.WaitTimeout == 0 {
		o.WaitTimeout = defaultWaitTimeout
	}
	// The server counts in milliseconds, and 0 would be for ever.
	if o.WaitTimeout < time.Millisecond {
		return o, fmt.Errorf("redis: WaitTimeout is %v; it must be a millisecond at least, or 0 for %v", o.WaitTimeout, defaultWaitTimeout)
	}
	return o, nil
}

// checkClient refuses what would break a promise of the store.
func checkClient(client redis.UniversalClient, o Options) error {
	var readTimeout time.Duration
	switch c := client.(type) {
	case *redis.Client:
		readTimeout = c.Options().ReadTimeout
	case *redis.ClusterClient:
		readTimeout = c.Options().ReadTimeout
	default:
		// A Ring moves keys to other servers when one does not answer: a
		// second PutIfAbsent would not find the first.
		return fmt.Errorf("redis: the client is a %T; use a *redis.Client (single or sentinel) or a *redis.ClusterClient", client)
	}
	if o.WaitReplicas > 0 && readTimeout > 0 && readTimeout < o.WaitTimeout+waitMargin {
		return fmt.Errorf("redis: the client gives up reading after %v, and servers wait %v for their replicas; the former must be %v longer",
			readTimeout, o.WaitTimeout, waitMargin)
	}
	return nil
}

// New returns a store on a client of the program's own, which stays the
// program's to close. It asks the server, or each of a cluster, what it
// promises, and ctx bounds that. Clients that shard by themselves
// ([redis.Ring]) are refused.
//
// Set the client's ContextTimeoutEnabled: without it a call waits for the
// client's ReadTimeout, whatever its context says.
func New(ctx context.Context, client redis.UniversalClient, o Options) (*Store, error) {
	o, err := o.checked()
	if err != nil {
		return nil, err
	}
	s := &Store{options: o, client: client}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Open is the [session.Opener] of this package, registered as "redis" when the
// package is imported. ProviderConfig is a URL as the package documents it.
func Open(ctx context.Context, cfg *session.ManagerConfig) (session.Provider, error) {
	if cfg == nil || cfg.ProviderConfig == "" {
		return nil, errors.New(`redis: ProviderConfig is empty; it is a URL like "redis://user:password@host:6379/0"`)
	}
	c, err := parse(cfg.ProviderConfig)
	if err != nil {
		return nil, err
	}
	o, err := c.options.checked()
	if err != nil {
		return nil, err
	}
	s := &Store{options: o, owned: true}
	s.client = c.dial(s.guard.connected)
	if err := s.open(ctx); err != nil {
		s.client.Close()
		return nil, err
	}
	return s, nil
}

func init() { session.Register("redis", Open) }
