package owtp

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
)

// TestOwnCalls: the node's own records behave as those of a store do.
func TestOwnCalls(t *testing.T) {
	ctx := context.Background()
	c := newOwnCalls()
	p := &wire.Packet{Nonce: wire.Nonce{1}}
	key := c.key("peer", p)
	if other := c.key("peer", &wire.Packet{Nonce: wire.Nonce{2}, CallKey: wire.Nonce{1}}); other != key {
		t.Errorf("a further attempt is recorded under %q, the first under %q", other, key)
	}
	rec := wire.CallRecord{State: wire.CallRunning, Attempts: []wire.Nonce{{1}}}
	first, err := c.insert(ctx, key, &rec, time.Minute)
	if err != nil || first == 0 {
		t.Fatalf("insert: version %d, %v", first, err)
	}
	if v, err := c.insert(ctx, key, &rec, time.Minute); v != 0 || err != nil {
		t.Errorf("inserted twice: version %d, %v", v, err)
	}
	got, err := c.get(ctx, key)
	if err != nil || got.version != first || got.ttl <= 0 || got.ttl > time.Minute {
		t.Fatalf("get: %+v, %v", got, err)
	}
	mine, err := c.get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	mine.Attempts = append(mine.Attempts, wire.Nonce{2})
	got.Attempts = append(got.Attempts, wire.Nonce{3})
	if mine.Attempts[1] != (wire.Nonce{2}) {
		t.Error("two that read a record write into each other's")
	}
	mine.State = wire.CallDone
	second, err := c.swap(ctx, key, first, &mine.CallRecord, time.Minute)
	if err != nil || second == 0 || second == first {
		t.Fatalf("swap: version %d, %v", second, err)
	}
	if v, err := c.swap(ctx, key, first, &got.CallRecord, time.Minute); v != 0 || err != nil {
		t.Errorf("swapped what another has changed: version %d, %v", v, err)
	}
	if got, err := c.get(ctx, key); err != nil || got.State != wire.CallDone || len(got.Attempts) != 2 {
		t.Errorf("after the swap: %+v, %v", got, err)
	}
	// Everything comes back, and what was there before does not.
	version := second
	for _, want := range []wire.CallRecord{
		{State: wire.CallFree, Owner: wire.Nonce{7}, Lease: 8, Digest: wire.Digest{9}, Attempts: []wire.Nonce{{1}}, Reply: []byte("reply")},
		{State: wire.CallDone, Attempts: []wire.Nonce{{1}, {2}, {3}}, Reply: []byte{}},
		{State: wire.CallDone, Attempts: []wire.Nonce{}},
		{State: wire.CallRunning, Attempts: []wire.Nonce{{4}}},
	} {
		if version, err = c.swap(ctx, key, version, &want, time.Minute); err != nil || version == 0 {
			t.Fatalf("swap: version %d, %v", version, err)
		}
		if got, err := c.get(ctx, key); err != nil || !reflect.DeepEqual(got.CallRecord, want) || got.version != version {
			t.Errorf("got %+v, version %d, %v; want %+v, version %d", got.CallRecord, got.version, err, want, version)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.insert(ended, "other", &rec, time.Minute); !errors.Is(err, context.Canceled) || maybeWritten(err) {
		t.Errorf("insert with a context that has ended: %v", err)
	}
}

// TestOwnCallsEnd: a record ends with its time, is forgotten by the sweep after
// that, and not before if it was made to last longer.
func TestOwnCallsEnd(t *testing.T) {
	ctx := context.Background()
	c := newOwnCalls()
	rec := wire.CallRecord{State: wire.CallRunning, Attempts: []wire.Nonce{{1}}}
	insert := func(key string, ttl time.Duration) uint64 {
		v, err := c.insert(ctx, key, &rec, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for i := range 1000 {
		insert(fmt.Sprint("short", i), shareStep/2)
	}
	longer := insert("longer", shareStep/2)
	if v, err := c.swap(ctx, "longer", longer, &rec, 10*shareStep); v == 0 || err != nil {
		t.Fatalf("swap: version %d, %v", v, err)
	}
	insert("long", 10*shareStep)
	full := insert("full", shareStep/2)
	if v, err := c.swap(ctx, "full", full, &wire.CallRecord{State: wire.CallDone, Attempts: []wire.Nonce{{1}, {2}}, Reply: []byte("reply")}, shareStep/2); v == 0 || err != nil {
		t.Fatalf("swap: version %d, %v", v, err)
	}
	c.born = c.born.Add(-shareStep / 2)
	if _, err := c.get(ctx, "short0"); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("after its time: %v", err)
	}
	if v, err := c.swap(ctx, "short0", 1, &rec, time.Minute); v != 0 || err != nil {
		t.Errorf("swapped after its time: version %d, %v", v, err)
	}
	again := insert("short1", 10*shareStep)
	if again == 0 {
		t.Error("what has ended is still in the way")
	}
	c.born = c.born.Add(-shareStep)
	c.sweep()
	left, lists := 0, 0
	for i := range c.shards {
		s := &c.shards[i]
		left += len(s.records)
		lists += len(s.ends)
		if len(s.attempts)+len(s.replies) != 0 || s.most > len(s.records) {
			t.Errorf("shard %d: %d lists of attempts and %d replies are left, and room for %d records", i, len(s.attempts), len(s.replies), s.most)
		}
	}
	if left != 3 || lists > 3 {
		t.Errorf("%d records and %d lists are left, want 3 and as many", left, lists)
	}
	for _, key := range []string{"longer", "long", "short1"} {
		if _, err := c.get(ctx, key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	c.born = c.born.Add(-20 * shareStep)
	c.sweep()
	for i := range c.shards {
		if s := &c.shards[i]; len(s.records)+len(s.ends) != 0 {
			t.Errorf("shard %d: %d records and %d lists are left", i, len(s.records), len(s.ends))
		}
	}
}
