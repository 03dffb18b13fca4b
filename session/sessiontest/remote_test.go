package sessiontest_test

import (
	"context"
	"errors"
	"net"
	"net/rpc"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

// A remote is a store that other processes share: a memory store in the process
// that serves it, asked over a socket. It has all that the suite has to try, and
// needs no server.
type remote struct {
	client *rpc.Client
	closed atomic.Bool
}

// serve serves a new memory store, changed by wrap, and returns its address.
func serve(t *testing.T, wrap func(session.Provider) session.Provider) string {
	t.Helper()
	store, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer()
	if err := server.RegisterName("Store", &service{wrap(store)}); err != nil {
		t.Fatal(err)
	}
	address := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { server.ServeConn(conn) })
		}
	})
	t.Cleanup(func() { ln.Close(); serving.Wait(); store.Close() })
	return address
}

func dial(_ context.Context, address string) (session.Provider, error) {
	client, err := rpc.Dial("unix", address)
	if err != nil {
		return nil, err
	}
	return &remote{client: client}, nil
}

// known are the errors that keep their identity on the way.
var known = []error{session.ErrNotFound, session.ErrFull, session.ErrKey, session.ErrTooLarge, session.ErrTTL}

type Args struct {
	Key, Value, After string
	Version           uint64
	TTL               time.Duration
	Max               int
}

type Reply struct {
	Record session.Record
	Keys   []string
	N      int
	OK     bool
	Known  int // 1 + index of an error in known
	Other  string
}

type service struct{ p session.Provider }

func (r *Reply) fail(err error) error {
	for i, k := range known {
		if errors.Is(err, k) {
			r.Known = i + 1
			return nil
		}
	}
	return err
}

func (s *service) Get(a Args, r *Reply) (err error) {
	r.Record, err = s.p.Get(context.Background(), a.Key)
	return r.fail(err)
}

func (s *service) Put(a Args, r *Reply) error {
	return r.fail(s.p.Put(context.Background(), a.Key, []byte(a.Value), a.TTL))
}

func (s *service) PutIfAbsent(a Args, r *Reply) (err error) {
	r.Record.Version, err = s.p.PutIfAbsent(context.Background(), a.Key, []byte(a.Value), a.TTL)
	return r.fail(err)
}

func (s *service) CompareAndSwap(a Args, r *Reply) (err error) {
	r.Record.Version, err = s.p.CompareAndSwap(context.Background(), a.Key, a.Version, []byte(a.Value), a.TTL)
	return r.fail(err)
}

func (s *service) Touch(a Args, r *Reply) (err error) {
	r.OK, err = s.p.Touch(context.Background(), a.Key, a.Version, a.TTL)
	return r.fail(err)
}

func (s *service) Delete(a Args, r *Reply) error {
	return r.fail(s.p.Delete(context.Background(), a.Key))
}

func (s *service) List(a Args, r *Reply) (err error) {
	r.Keys, err = s.p.List(context.Background(), a.Key, a.After, a.Max)
	return r.fail(err)
}

func (s *service) Sweep(a Args, r *Reply) (err error) {
	r.N, err = s.p.Sweep(context.Background(), a.Max)
	return r.fail(err)
}

func (p *remote) ask(ctx context.Context, method string, a Args) (r Reply, err error) {
	if err := ctx.Err(); err != nil {
		return r, err
	}
	if p.closed.Load() {
		return r, session.ErrClosed
	}
	if len(a.Key) > 2*session.MaxKeyLen {
		return r, session.ErrKey
	}
	if err := p.client.Call("Store."+method, a, &r); err != nil {
		return r, err
	}
	if r.Known > 0 {
		return r, known[r.Known-1]
	}
	return r, nil
}

func (p *remote) Get(ctx context.Context, key string) (session.Record, error) {
	r, err := p.ask(ctx, "Get", Args{Key: key})
	return r.Record, err
}

func (p *remote) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	_, err := p.ask(ctx, "Put", Args{Key: key, Value: string(value), TTL: ttl})
	return err
}

func (p *remote) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	r, err := p.ask(ctx, "PutIfAbsent", Args{Key: key, Value: string(value), TTL: ttl})
	return r.Record.Version, err
}

func (p *remote) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (uint64, error) {
	r, err := p.ask(ctx, "CompareAndSwap", Args{Key: key, Version: version, Value: string(value), TTL: ttl})
	return r.Record.Version, err
}

func (p *remote) Touch(ctx context.Context, key string, version uint64, ttl time.Duration) (bool, error) {
	r, err := p.ask(ctx, "Touch", Args{Key: key, Version: version, TTL: ttl})
	return r.OK, err
}

func (p *remote) Delete(ctx context.Context, key string) error {
	_, err := p.ask(ctx, "Delete", Args{Key: key})
	return err
}

func (p *remote) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	r, err := p.ask(ctx, "List", Args{Key: prefix, After: after, Max: limit})
	return r.Keys, err
}

func (p *remote) Sweep(ctx context.Context, max int) (int, error) {
	r, err := p.ask(ctx, "Sweep", Args{Max: max})
	return r.N, err
}

// Traits are true of the processes that dial: the store outlives them.
func (p *remote) Traits() session.Traits {
	return session.Traits{Name: "remote", Shared: true, Durable: true, Lists: true}
}

func (p *remote) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	return p.client.Close()
}
