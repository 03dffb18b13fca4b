package redis

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/owtp-go/owtp/session"
)

// scanCount is how many keys the server looks at before it lets others go on.
const scanCount = 1000

// List implements [session.Provider]. It walks over all keys of the database, on
// every server of a cluster, for each page; of a cluster whose keys are on the
// move it may miss some.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := session.CheckLimit(limit); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	found := lowest{limit: limit}
	pattern := escapePattern(s.options.Prefix+prefix) + "*"
	err := s.nodes(ctx, func(ctx context.Context, node *redis.Client) error {
		// A cursor means something to one server only: if the connection
		// breaks, the next one may lead to another.
		conn := node.Conn()
		defer conn.Close()
		return scan(ctx, conn, pattern, func(key string) {
			// What matches a pattern is not taken for having the prefix.
			if key, ok := strings.CutPrefix(key, s.options.Prefix); ok && strings.HasPrefix(key, prefix) && key > after {
				found.add(key)
			}
		})
	})
	if err != nil {
		return nil, s.failed(ctx, "list", err)
	}
	return found.sorted(), nil
}

// scan calls f for the keys that match, for some of them more than once.
func scan(ctx context.Context, conn *redis.Conn, pattern string, f func(key string)) error {
	for cursor := "0"; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		cmd := redis.NewCmd(ctx, "scan", cursor, "match", pattern, "count", strconv.Itoa(scanCount))
		if err := conn.Process(ctx, once{cmd}); err != nil {
			return err
		}
		reply, ok := cmd.Val().([]any)
		if !ok || len(reply) != 2 {
			return errReply
		}
		keys, ok := reply[1].([]any)
		if !ok {
			return errReply
		}
		for _, k := range keys {
			key, ok := k.(string)
			if !ok {
				return errReply
			}
			f(key)
		}
		if cursor, ok = reply[0].(string); !ok {
			return errReply
		}
		if cursor == "0" {
			return nil
		}
	}
}

// escapePattern makes a glob that matches just s.
func escapePattern(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(`*?[]^-\`, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// lowest keeps the limit lowest of the keys that it is given, in room for twice
// as many.
type lowest struct {
	limit int
	keys  []string
	bound string // once it is set, nothing from it on is wanted
}

func (l *lowest) add(key string) {
	if l.bound != "" && key >= l.bound {
		return
	}
	l.keys = append(l.keys, key)
	if len(l.keys) >= 2*l.limit {
		l.sorted()
	}
}

func (l *lowest) sorted() []string {
	slices.Sort(l.keys)
	l.keys = slices.Compact(l.keys)
	if len(l.keys) >= l.limit {
		clear(l.keys[l.limit:])
		l.keys = l.keys[:l.limit]
		l.bound = l.keys[l.limit-1]
	}
	return l.keys
}
