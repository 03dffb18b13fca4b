package redis

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// recheckAfter is how long a server is believed not to evict. Somebody may
// change it while it runs.
const recheckAfter = 10 * time.Second

// promises are what servers keep.
type promises struct {
	evicts  string // how a record may disappear, and what to do about it; "" if it may not
	durable bool   // writes go to a file
}

// learn asks all servers. An answer that does not say is the worse one.
func (s *Store) learn(ctx context.Context) (promises, error) {
	all := promises{durable: true}
	err := s.nodes(ctx, func(ctx context.Context, node *redis.Client) error {
		evicts, err := mayEvict(ctx, node)
		if err != nil {
			return err
		}
		if all.evicts == "" {
			all.evicts = evicts
		}
		aof, _, err := info(ctx, node, "persistence", "aof_enabled")
		if err != nil {
			return err
		}
		all.durable = all.durable && aof == "1"
		return nil
	})
	return all, err
}

// An asker is a client or a connection.
type asker interface {
	Process(ctx context.Context, cmd redis.Cmder) error
}

// mayEvict says how one server makes room, or "" if it refuses writes instead.
// Managed servers forbid CONFIG and tell it by INFO, others the other way round.
func mayEvict(ctx context.Context, server asker) (string, error) {
	const advice = `set "maxmemory-policy noeviction" there`
	policy, known, err := info(ctx, server, "memory", "maxmemory_policy")
	if err != nil {
		return "", err
	}
	if !known {
		if policy, known, err = configured(ctx, server, "maxmemory-policy"); err != nil {
			return "", err
		}
	}
	switch {
	case !known:
		return "the server does not say whether it evicts: let its user run INFO or CONFIG GET, and " + advice, nil
	case policy != "noeviction":
		return fmt.Sprintf("the server's maxmemory-policy is %.32q: %s", policy, advice), nil
	}
	return "", nil
}

// info returns a field of a section of INFO. A server that refuses to tell is no
// error.
func info(ctx context.Context, server asker, section, field string) (value string, known bool, err error) {
	cmd := redis.NewStringCmd(ctx, "info", section)
	if err := server.Process(ctx, cmd); err != nil {
		return "", false, unlessRefused(err)
	}
	for lines := bufio.NewScanner(strings.NewReader(cmd.Val())); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && name == field {
			return value, true, nil
		}
	}
	return "", false, nil
}

// configured is info by CONFIG GET.
func configured(ctx context.Context, server asker, name string) (value string, known bool, err error) {
	cmd := redis.NewMapStringStringCmd(ctx, "config", "get", name)
	if err := server.Process(ctx, cmd); err != nil {
		return "", false, unlessRefused(err)
	}
	value, known = cmd.Val()[name]
	return value, known, nil
}

// unlessRefused drops a server's refusal to tell: it cannot be learned. What goes
// wrong before the question, and a state that passes, is none.
func unlessRefused(err error) error {
	if _, answer := err.(redis.Error); !answer { // a connection's own trouble is wrapped
		return err
	}
	for _, other := range []string{"NOAUTH", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY", "BUSY"} {
		if redis.HasErrorPrefix(err, other) {
			return err
		}
	}
	return nil
}

// A guard sees to it that a store which was opened as one that does not evict
// stays so, although servers are reconfigured and replaced: it asks each new
// connection of a client of ours, and every ten seconds on the way of a call.
// Until the answer is good again, all calls fail.
type guard struct {
	strict atomic.Bool // the store was opened as one that does not evict
	begin  time.Time

	next   atomic.Int64 // when to ask again, since begin
	bad    atomic.Pointer[string]
	asking atomic.Bool // one call asks; others go on with what was known
}

func (g *guard) start(strict bool) {
	g.begin = time.Now()
	g.next.Store(int64(recheckAfter))
	g.strict.Store(strict)
}

// connected is asked by the driver before it uses a new connection.
func (g *guard) connected(ctx context.Context, conn *redis.Conn) error {
	if !g.strict.Load() {
		return nil
	}
	evicts, err := mayEvict(ctx, conn)
	if err != nil {
		return err
	}
	if evicts == "" {
		return nil
	}
	// The driver asks about sentinels too, which keep no records.
	mode, _, err := info(ctx, conn, "server", "redis_mode")
	if err != nil || mode == "sentinel" {
		return err
	}
	return evictsNow(evicts)
}

func evictsNow(evicts string) error {
	return fmt.Errorf("the store was opened as one that does not evict, and now it may: %s, or open it again", evicts)
}

// check is on the way of each call.
func (g *guard) check(ctx context.Context, s *Store) error {
	if !g.strict.Load() {
		return nil
	}
	if int64(time.Since(g.begin)) >= g.next.Load() && g.asking.CompareAndSwap(false, true) {
		err := g.ask(ctx, s)
		g.asking.Store(false)
		if err != nil {
			return s.failed(ctx, "asking the server whether it evicts", err)
		}
	}
	if bad := g.bad.Load(); bad != nil {
		return fmt.Errorf("redis: %w", evictsNow(*bad))
	}
	return nil
}

func (g *guard) ask(ctx context.Context, s *Store) error {
	now := int64(time.Since(g.begin))
	if now < g.next.Load() {
		return nil // somebody has just asked
	}
	var evicts string
	err := s.nodes(ctx, func(ctx context.Context, node *redis.Client) error {
		found, err := mayEvict(ctx, node)
		if evicts == "" {
			evicts = found
		}
		return err
	})
	if err != nil {
		return err
	}
	if evicts != "" {
		// The next call asks again, so that a repair is noticed at once.
		g.bad.Store(&evicts)
		return nil
	}
	g.bad.Store(nil)
	g.next.Store(now + int64(recheckAfter))
	return nil
}
