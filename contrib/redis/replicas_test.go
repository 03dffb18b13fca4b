package redis_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	driver "github.com/redis/go-redis/v9"

	"github.com/owtp-go/owtp/internal/servers"
)

// groupPassword is that of servers which must have the same.
const groupPassword = "group-password"

// member starts a server of a group.
func member(t testing.TB, args ...string) *servers.Server {
	t.Helper()
	return servers.NewRedis(t, append([]string{"--requirepass", groupPassword, "--masterauth", groupPassword}, args...)...)
}

// replicaOf starts a replica that has caught up.
func replicaOf(t testing.TB, master *servers.Server) *servers.Server {
	t.Helper()
	r := member(t, "--replicaof", "127.0.0.1 "+master.Port(), "--repl-diskless-sync-delay", "0")
	linked(t, r)
	return r
}

func linked(t testing.TB, replica *servers.Server) {
	t.Helper()
	c := memberClient(t, replica)
	eventually(t, "the replica is linked", func() error {
		info, err := c.Info(bounded(t, time.Second), "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = errors.New(info)
		}
		return err
	})
}

func memberClient(t testing.TB, s *servers.Server) *driver.Client {
	t.Helper()
	c := driver.NewClient(&driver.Options{Addr: s.Addr, Password: groupPassword, Protocol: 2, PipelinePoolSize: -1})
	t.Cleanup(func() { c.Close() })
	return c
}

func memberURL(s *servers.Server) string { return "redis://:" + groupPassword + "@" + s.Addr }

// TestWaitForReplicas: a write is done when a replica has it, and otherwise
// nobody knows.
func TestWaitForReplicas(t *testing.T) {
	master := member(t)
	replica := replicaOf(t, master)
	p := open(t, memberURL(master)+"?wait_replicas=1&wait_timeout=500ms")
	r := memberClient(t, replica)
	ctx := t.Context()

	var version uint64
	steps := map[string]func(key string) error{
		"Put": func(key string) error { return p.Put(ctx, key, []byte("1"), time.Hour) },
		"PutIfAbsent": func(key string) (err error) {
			version, err = p.PutIfAbsent(ctx, key+"2", []byte("2"), time.Hour)
			return err
		},
		"CompareAndSwap": func(key string) (err error) {
			version, err = p.CompareAndSwap(ctx, "swap", version, []byte("3"), time.Hour)
			return err
		},
		"Touch":  func(key string) error { return second(p.Touch(ctx, "swap", version, time.Minute)) },
		"Delete": func(key string) error { return p.Delete(ctx, "swap") },
	}
	order := []string{"Put", "PutIfAbsent", "CompareAndSwap", "Touch", "Delete"}
	reset := func(t *testing.T) {
		t.Helper()
		must(t, p.Put(ctx, "swap", nil, time.Hour))
		got, err := p.Get(ctx, "swap")
		must(t, err)
		version = got.Version
	}
	reset(t)
	for _, name := range order {
		if name == "CompareAndSwap" {
			reset(t)
		}
		if err := steps[name]("good"); err != nil {
			t.Errorf("%s with a replica: %v", name, err)
		}
	}
	// What is done is there, without waiting.
	if n := r.Exists(ctx, "owtp:good", "owtp:good2", "owtp:swap").Val(); n != 2 {
		t.Errorf("the replica has %d of the records, want 2 and not the deleted one", n)
	}
	reset(t)
	before, err := p.Get(ctx, "swap")
	must(t, err)
	replica.Pause(t)
	for _, name := range order {
		if name == "CompareAndSwap" {
			version = before.Version
		}
		if name == "Touch" {
			got, err := p.Get(ctx, "swap")
			must(t, err)
			version = got.Version
		}
		err := steps[name]("bad")
		if err == nil || !strings.Contains(err.Error(), "0 of 1 replicas") {
			t.Errorf("%s without a replica: %v", name, err)
		}
	}
	// What changes nothing waits for nobody.
	if v, err := p.CompareAndSwap(ctx, "absent", 1, nil, 0); v != 0 || err != nil {
		t.Errorf("CompareAndSwap of nothing: %d, %v", v, err)
	}
	if v, err := p.PutIfAbsent(ctx, "good", nil, 0); v != 0 || err != nil {
		t.Errorf("PutIfAbsent over a record: %d, %v", v, err)
	}
	replica.Resume(t)
	linked(t, replica)
	eventually(t, "it recovers", func() error { return p.Put(ctx, "good", nil, time.Hour) })
}

// TestFailover kills a master under load. With wait_replicas nothing that was
// reported as done is lost, and the store finds the new master by itself.
func TestFailover(t *testing.T) {
	master := member(t)
	replica := replicaOf(t, master)
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	must(t, os.WriteFile(conf, []byte(fmt.Sprintf(`sentinel monitor cups 127.0.0.1 %s 1
sentinel auth-pass cups %s
sentinel down-after-milliseconds cups 1000
sentinel failover-timeout cups 5000
`, master.Port(), groupPassword)), 0o600))
	sentinel := servers.NewRedis(t, conf, "--sentinel")
	watch := admin(t, sentinel)
	eventually(t, "the sentinel knows the replica", func() error {
		known, err := watch.Do(t.Context(), "sentinel", "replicas", "cups").Slice()
		if err == nil && len(known) != 1 {
			err = fmt.Errorf("%d replicas", len(known))
		}
		return err
	})

	p := open(t, fmt.Sprintf("redis://:%s@%s?master_name=cups&password=%s&wait_replicas=1&wait_timeout=500ms&dial_timeout=1s&read_timeout=1s&pool_timeout=1s",
		sentinel.Password, sentinel.Addr, groupPassword))
	l := &load{p: p, bound: 2 * time.Second}
	ctx, stop := context.WithCancel(t.Context())
	wait := l.run(ctx, 8)
	defer wait()
	defer stop()
	l.grows(t, "calls to the first master succeed", &l.good)
	master.Kill(t)
	l.grows(t, "calls without a master fail", &l.failed)
	eventually(t, "the replica becomes the master", func() error {
		role, err := memberClient(t, replica).Do(t.Context(), "role").Slice()
		if err == nil && role[0] != "master" {
			err = fmt.Errorf("it is %v", role[0])
		}
		return err
	})
	// It has no replica yet: nothing is done.
	master.Start(t)
	l.grows(t, "calls to the second master succeed when it has a replica", &l.good)
	stop()
	wait()
	l.check(t)
}
