package redis_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	driver "github.com/redis/go-redis/v9"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/sessiontest"
)

// A cluster is three masters, and one replica of the first.
type cluster struct {
	nodes   []*servers.Server
	clients []*driver.Client
	ids     []string
}

const clusterSlots = 16384

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := new(cluster)
	for range 4 {
		s := member(t, "--cluster-enabled", "yes", "--cluster-port", freePort(t), "--cluster-node-timeout", "5000", "--repl-diskless-sync-delay", "0")
		c.nodes = append(c.nodes, s)
		c.clients = append(c.clients, memberClient(t, s))
	}
	ctx := t.Context()
	for i, client := range c.clients {
		id, err := client.Do(ctx, "cluster", "myid").Text()
		must(t, err)
		c.ids = append(c.ids, id)
		if i < 3 {
			must(t, client.ClusterAddSlotsRange(ctx, i*clusterSlots/3, (i+1)*clusterSlots/3-1).Err())
		}
		bus, err := client.ConfigGet(ctx, "cluster-port").Result()
		must(t, err)
		must(t, c.clients[0].Do(ctx, "cluster", "meet", "127.0.0.1", c.nodes[i].Port(), bus["cluster-port"]).Err())
	}
	c.settled(t, func(i int, info string) bool { return strings.Contains(info, "cluster_known_nodes:4") })
	must(t, c.clients[3].Do(ctx, "cluster", "replicate", c.ids[0]).Err())
	linked(t, c.nodes[3])
	c.settled(t, func(i int, info string) bool { return strings.Contains(info, "cluster_state:ok") })
	return c
}

func (c *cluster) settled(t *testing.T, is func(i int, info string) bool) {
	t.Helper()
	for i, client := range c.clients {
		eventually(t, "the cluster settles", func() error {
			info, err := client.ClusterInfo(t.Context()).Result()
			if err == nil && !is(i, info) {
				err = errors.New(info)
			}
			return err
		})
	}
}

func (c *cluster) url() string {
	return memberURL(c.nodes[0]) + "?addr=" + c.nodes[1].Addr + "&addr=" + c.nodes[2].Addr
}

// slot is the slot of a store's key.
func (c *cluster) slot(t *testing.T, key string) int64 {
	t.Helper()
	slot, err := c.clients[0].ClusterKeySlot(t.Context(), "owtp:"+key).Result()
	must(t, err)
	return slot
}

// keyIn finds a key with a slot of the node, whose name nobody has used.
func (c *cluster) keyIn(t *testing.T, node int, name string) string {
	t.Helper()
	for i := 0; ; i++ {
		key := name + strconv.Itoa(i)
		if int(c.slot(t, key))*3/clusterSlots == node {
			return key
		}
	}
}

func TestCluster(t *testing.T) {
	// The suite's other processes come here too, and want no cluster.
	started := sync.OnceValue(func() *cluster { return newCluster(t) })
	t.Run("Conformance", func(t *testing.T) {
		sessiontest.Run(t, func(t *testing.T) session.Provider { return open(t, started().url()) }, sessiontest.Options{
			Sessions: 500,
			Config:   func(t *testing.T) string { return started().url() },
			Connect: func(ctx context.Context, dsn string) (session.Provider, error) {
				return session.Open(ctx, "redis", &session.ManagerConfig{ProviderConfig: dsn})
			},
		})
	})
	if os.Getenv("OWTP_SESSIONTEST_CHILD") != "" {
		return
	}
	c := started()
	t.Run("OneAddress", func(t *testing.T) {
		p := open(t, memberURL(c.nodes[2])+"?cluster=true")
		for node := range 3 {
			key := c.keyIn(t, node, "one")
			must(t, p.Put(t.Context(), key, []byte(key), time.Hour))
			if n := c.clients[node].Exists(t.Context(), "owtp:"+key).Val(); n != 1 {
				t.Errorf("node %d does not have %s", node, key)
			}
		}
	})
	t.Run("LeastUser", func(t *testing.T) {
		args := []any{"acl", "setuser", "owtp", "reset"}
		for _, rule := range append(documentedACL(t), "+cluster|slots", "+asking") {
			args = append(args, rule)
		}
		for _, client := range c.clients {
			must(t, client.Do(t.Context(), args...).Err())
		}
		must(t, everything(t, strings.Replace(c.url(), ":"+groupPassword+"@", "owtp:password@", 1)))
	})
	t.Run("MovingKeys", c.testMovingKeys)
	t.Run("Wait", c.testWait)
	t.Run("OneNodeEvicts", func(t *testing.T) {
		must(t, c.clients[1].ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err())
		defer c.clients[1].ConfigSet(t.Context(), "maxmemory-policy", "noeviction")
		if got := open(t, c.url()).Traits(); !got.MayEvict || !strings.Contains(got.Evicts, "allkeys-lru") {
			t.Errorf("one of three nodes may evict: %+v", got)
		}
	})
}

// testMovingKeys moves a slot from one node to another while it is used.
func (c *cluster) testMovingKeys(t *testing.T) {
	ctx := t.Context()
	p := open(t, c.url())
	waiting := open(t, c.url()+"&wait_replicas=1&wait_timeout=500ms")
	// Two keys of one slot, by the braces. The new node is the one with a
	// replica.
	tag := c.keyIn(t, 1, "tag")
	slot := c.slot(t, tag)
	first, last := "{owtp:"+tag+"}1", "{owtp:"+tag+"}2"
	if c.slot(t, first) != slot {
		t.Fatal("the keys have different slots")
	}
	from, to := c.clients[1], c.clients[0]
	must(t, p.Put(ctx, first, []byte("1"), time.Hour))
	must(t, p.Put(ctx, last, []byte("2"), time.Hour))
	if err := waiting.Put(ctx, first, nil, time.Hour); err == nil || !strings.Contains(err.Error(), "0 of 1 replicas") {
		t.Errorf("a node without a replica: %v", err)
	}
	must(t, to.Do(ctx, "cluster", "setslot", slot, "importing", c.ids[1]).Err())
	must(t, from.Do(ctx, "cluster", "setslot", slot, "migrating", c.ids[0]).Err())
	must(t, from.Do(ctx, "migrate", "127.0.0.1", c.nodes[0].Port(), "owtp:"+first, 0, 5000, "auth", groupPassword).Err())
	for _, key := range []string{first, last} {
		r, err := p.Get(ctx, key)
		must(t, err)
		v, err := p.CompareAndSwap(ctx, key, r.Version, []byte("moved "+key), time.Hour)
		if v == 0 || err != nil {
			t.Errorf("%s in the middle of its move: %d, %v", key, v, err)
		}
	}
	if v, err := p.PutIfAbsent(ctx, "{owtp:"+tag+"}3", nil, time.Hour); v == 0 || err != nil {
		t.Errorf("a new key in the middle of the move: %d, %v", v, err)
	}
	must(t, from.Do(ctx, "migrate", "127.0.0.1", c.nodes[0].Port(), "owtp:"+last, 0, 5000, "auth", groupPassword).Err())
	for _, client := range []*driver.Client{to, from, c.clients[2]} {
		must(t, client.Do(ctx, "cluster", "setslot", slot, "node", c.ids[0]).Err())
	}
	for _, key := range []string{first, last} {
		if r, err := p.Get(ctx, key); err != nil || string(r.Value) != "moved "+key {
			t.Errorf("%s after its move: %q, %v", key, r.Value, err)
		}
	}
	// The other store still believes in the old place.
	if err := waiting.Put(ctx, first, []byte("waited"), time.Hour); err != nil {
		t.Errorf("waiting for the new place's replica: %v", err)
	}
}

func (c *cluster) testWait(t *testing.T) {
	p := open(t, c.url()+"&wait_replicas=1&wait_timeout=500ms")
	for node := range 3 {
		err := p.Put(t.Context(), c.keyIn(t, node, "wait"), nil, time.Hour)
		if (err == nil) != (node == 0) {
			t.Errorf("node %d, of which the first has a replica: %v", node, err)
		}
		if err != nil && !strings.Contains(err.Error(), "0 of 1 replicas") {
			t.Errorf("node %d: %v", node, err)
		}
	}
	list, err := p.List(t.Context(), "wait", "", 10)
	if err != nil || len(list) != 3 {
		t.Errorf("%q, %v", list, fmt.Sprint(err))
	}
}
