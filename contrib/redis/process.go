package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// once is a command that the driver sends once: it does not try again after an
// error that leaves open whether the server has run it. (It still follows a
// cluster's redirections: a server that redirects has done nothing.)
type once struct{ *redis.Cmd }

// NoRetry is what the driver asks.
func (once) NoRetry() bool { return true }

// read runs a script that changes nothing and returns a string. The driver may
// try again. The result is the caller's.
func (s *Store) read(ctx context.Context, sc *script, key string) ([]byte, error) {
	return run(sc, key, nil, func(args []any) ([]byte, error) {
		cmd := redis.NewStringCmd(ctx, args...)
		err := s.client.Process(ctx, cmd)
		if err != nil {
			return nil, err
		}
		return cmd.Bytes()
	})
}

// writeScript runs a script that writes.
func (s *Store) writeScript(ctx context.Context, sc *script, key string, more ...any) (any, error) {
	return run(sc, key, more, func(args []any) (any, error) {
		return s.write(ctx, key, args)
	})
}

// run runs a script by its name, and with its text where the server does not
// know it, which it says before it does anything.
func run[T any](sc *script, key string, more []any, process func(args []any) (T, error)) (T, error) {
	args := append(append(make([]any, 0, 4+len(more)), "evalsha", sc.sha, 1, key), more...)
	reply, err := process(args)
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		args[0], args[1] = "eval", sc.text
		reply, err = process(args)
	}
	return reply, err
}

// write runs a command that writes to key, once, and waits for the replicas if
// there are to be any.
func (s *Store) write(ctx context.Context, key string, args []any) (any, error) {
	if s.options.WaitReplicas > 0 {
		return s.writeAndWait(ctx, key, args)
	}
	cmd := redis.NewCmd(ctx, args...)
	err := s.client.Process(ctx, once{cmd})
	return cmd.Val(), err
}

const (
	maxMoves  = 5
	movePause = 100 * time.Millisecond
)

// writeAndWait sends the command and WAIT on one connection, as the latter is
// about what its connection has written.
func (s *Store) writeAndWait(ctx context.Context, key string, args []any) (any, error) {
	for move := 1; ; move++ {
		node, err := s.node(ctx, key)
		if err != nil {
			return nil, err
		}
		cmd := redis.NewCmd(ctx, args...)
		pipe := node.Pipeline()
		pipe.Process(ctx, once{cmd})
		wait := pipe.Do(ctx, "wait", s.options.WaitReplicas, milliseconds(s.options.WaitTimeout))
		pipe.Exec(ctx) // its error is the first of the commands'
		err = cmd.Err()
		switch {
		case moved(err) && move < maxMoves:
			// Nothing was done there. The driver learns the cluster's
			// shape in the background.
			s.client.(*redis.ClusterClient).ReloadState(ctx)
			if err := pause(ctx, movePause); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return nil, err
		case changedNothing(cmd.Val()):
			return cmd.Val(), nil
		}
		return cmd.Val(), s.enough(wait)
	}
}

// enough looks at WAIT's answer.
func (s *Store) enough(wait *redis.Cmd) error {
	have, err := wait.Int64()
	if err != nil {
		return fmt.Errorf("waiting for replicas: %w", err)
	}
	if have < int64(s.options.WaitReplicas) {
		return fmt.Errorf("%d of %d replicas have the write after %v; nobody knows whether it will last", have, s.options.WaitReplicas, s.options.WaitTimeout)
	}
	return nil
}

// changedNothing: a script or a deletion that found nothing to do. Its answer
// may rest on a write of somebody else's that is on its way to the replicas;
// that one waits for it.
func changedNothing(reply any) bool { return reply == int64(0) }

// moved: another server of the cluster has the key, now or in a moment.
func moved(err error) bool {
	return redis.HasErrorPrefix(err, "MOVED ") || redis.HasErrorPrefix(err, "ASK ") || redis.HasErrorPrefix(err, "TRYAGAIN")
}

// node returns the client of the server that has the key.
func (s *Store) node(ctx context.Context, key string) (*redis.Client, error) {
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, key)
	}
	return s.client.(*redis.Client), nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// errReply is an answer that no Redis gives.
var errReply = errors.New("the server's answer makes no sense")
