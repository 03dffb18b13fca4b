package redis_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	driver "github.com/redis/go-redis/v9"

	"github.com/owtp-go/owtp/contrib/redis"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

func TestTraits(t *testing.T) {
	for policy, evicts := range map[string]bool{
		"noeviction": false, "allkeys-lru": true, "allkeys-lfu": true, "allkeys-random": true, "volatile-lru": true, "volatile-ttl": true,
	} {
		for _, aof := range []string{"yes", "no"} {
			if evicts && aof == "no" {
				continue
			}
			s := servers.NewRedis(t, "--maxmemory-policy", policy, "--appendonly", aof)
			got := open(t, s.DSN).Traits()
			if got.Name != "redis" || !got.Shared || !got.Lists || got.MayEvict != evicts || got.Durable != (aof == "yes") {
				t.Errorf("%s, appendonly %s: %+v", policy, aof, got)
			}
			if evicts != strings.Contains(got.Evicts, policy) || evicts != strings.Contains(got.Evicts, "noeviction") {
				t.Errorf("%s: an operator is told %q", policy, got.Evicts)
			}
		}
	}
}

// TestNodeRefusesStoreThatEvicts: a node does not keep its state there, its user
// sessions it may.
func TestNodeRefusesStoreThatEvicts(t *testing.T) {
	s := servers.NewRedis(t, "--maxmemory-policy", "allkeys-lru")
	store := open(t, s.DSN)
	cert := owtp.NewRandomCertificate()
	_, err := owtp.New(owtp.NodeConfig{Cert: cert, Store: store})
	if err == nil {
		t.Fatal("the node keeps its state where it may be evicted")
	}
	for _, word := range []string{"redis", "allkeys-lru", "maxmemory-policy noeviction"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not mention %q: %v", word, err)
		}
	}
	m, err := owtp.NewSessionManager("redis", &session.ManagerConfig{ProviderConfig: s.DSN})
	must(t, err)
	defer m.Close()
	node, err := owtp.New(owtp.NodeConfig{Cert: cert, Peerstore: m})
	must(t, err)
	must(t, node.Close())
	must(t, m.Session("peer").Set(t.Context(), "user", "alice"))
}

// TestPolicyChanges: a store that does not evict fails from the moment on that
// its server may, until it no longer may.
func TestPolicyChanges(t *testing.T) {
	s := servers.NewRedis(t)
	a := admin(t, s)
	store := open(t, s.DSN).(*redis.Store)
	own, err := redis.New(t.Context(), a, redis.Options{})
	must(t, err)
	ctx := t.Context()
	for name, p := range map[string]*redis.Store{"opened by URL": store, "on a client": own} {
		t.Run(name, func(t *testing.T) {
			must(t, p.Put(ctx, "a", []byte("1"), time.Hour))
			must(t, a.ConfigSet(ctx, "maxmemory-policy", "allkeys-lru").Err())
			redis.AskNow(p)
			for _, err := range []error{p.Put(ctx, "a", nil, 0), second(p.Get(ctx, "a")), second(p.PutIfAbsent(ctx, "b", nil, 0)), p.Delete(ctx, "a")} {
				if err == nil || !strings.Contains(err.Error(), "allkeys-lru") || errors.Is(err, session.ErrNotFound) {
					t.Errorf("after the policy changed: %v", err)
				}
			}
			must(t, a.ConfigSet(ctx, "maxmemory-policy", "noeviction").Err())
			if _, err := p.Get(ctx, "a"); err != nil {
				t.Errorf("after the policy was repaired: %v", err)
			}
		})
	}
}

// TestNewConnectionIsAsked: the server comes back with another configuration, or
// another one takes its address.
func TestNewConnectionIsAsked(t *testing.T) {
	s := servers.NewRedis(t)
	p := open(t, s.DSN)
	ctx := t.Context()
	must(t, p.Put(ctx, "a", []byte("1"), time.Hour))
	a := admin(t, s)
	must(t, a.ConfigSet(ctx, "maxmemory-policy", "volatile-lru").Err())
	must(t, a.Do(ctx, "client", "kill", "type", "normal", "skipme", "yes").Err())
	eventually(t, "a new connection to a server that evicts is used", func() error {
		_, err := p.Get(ctx, "a")
		if err == nil || !strings.Contains(err.Error(), "volatile-lru") {
			return errors.New("no such error: " + errorText(err))
		}
		return nil
	})
	must(t, a.ConfigSet(ctx, "maxmemory-policy", "noeviction").Err())
	eventually(t, "it recovers", func() error { return second(p.Get(ctx, "a")) })
}

func second[T any](_ T, err error) error { return err }

func errorText(err error) string {
	if err == nil {
		return "none"
	}
	return err.Error()
}

// TestFull: a server without room refuses and loses nothing.
func TestFull(t *testing.T) {
	s := servers.NewRedis(t)
	p := open(t, s.DSN)
	ctx := t.Context()
	must(t, p.Put(ctx, "a", []byte("1"), time.Hour))
	r, err := p.Get(ctx, "a")
	must(t, err)
	must(t, admin(t, s).ConfigSet(ctx, "maxmemory", "1mb").Err())
	big := make([]byte, 1<<20)
	for i := 0; ; i++ {
		if i == 20 {
			t.Fatal("the server has taken 20 MiB in 1 MiB")
		}
		if err = p.Put(ctx, "big", big, time.Hour); err != nil {
			break
		}
	}
	for what, err := range map[string]error{
		"Put": err, "PutIfAbsent": second(p.PutIfAbsent(ctx, "b", nil, 0)), "CompareAndSwap": second(p.CompareAndSwap(ctx, "a", r.Version, big, 0)),
	} {
		if !errors.Is(err, session.ErrFull) {
			t.Errorf("%s: %v, want ErrFull", what, err)
		}
	}
	if got, err := p.Get(ctx, "a"); err != nil || string(got.Value) != "1" || got.Version != r.Version {
		t.Errorf("the old record: %q, %v", got.Value, err)
	}
	if ok, err := p.Touch(ctx, "a", r.Version, time.Minute); !ok || err != nil {
		t.Errorf("Touch: %v, %v", ok, err)
	}
	must(t, p.Delete(ctx, "a"))
}

// TestClientOfTheProgram: New refuses what breaks promises, and does not close
// what is not its own.
func TestClientOfTheProgram(t *testing.T) {
	s := servers.Redis(t)
	a := admin(t, s)
	ring := driver.NewRing(&driver.RingOptions{Addrs: map[string]string{"a": s.Addr}, Password: s.Password})
	defer ring.Close()
	if _, err := redis.New(t.Context(), ring, redis.Options{}); err == nil || !strings.Contains(err.Error(), "Ring") {
		t.Errorf("a Ring: %v", err)
	}
	for _, o := range []redis.Options{
		{WaitReplicas: -1}, {WaitReplicas: 101}, {WaitTimeout: -1}, {WaitTimeout: 1}, {Prefix: strings.Repeat("x", 129)}, {WaitReplicas: 1, WaitTimeout: time.Minute},
	} {
		if _, err := redis.New(t.Context(), a, o); err == nil {
			t.Errorf("New with %+v is no error", o)
		}
	}
	p, err := redis.New(t.Context(), a, redis.Options{Prefix: "mine:"})
	must(t, err)
	must(t, p.Put(t.Context(), "a", []byte("1"), time.Minute))
	if n := a.Exists(t.Context(), "mine:a").Val(); n != 1 {
		t.Error("the record is not under its prefix")
	}
	must(t, p.Close())
	must(t, a.Ping(t.Context()).Err())
	if err := p.Put(t.Context(), "a", nil, 0); !errors.Is(err, session.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
