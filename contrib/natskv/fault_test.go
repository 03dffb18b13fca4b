package natskv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/owtp-go/owtp/contrib/internal/brokertest"
	"github.com/owtp-go/owtp/contrib/nats/broker"
	"github.com/owtp-go/owtp/contrib/natskv"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

// TestOldServer: Debian's has no time to live for each record.
func TestOldServer(t *testing.T) {
	s := servers.NATS(t)
	p, err := connect(t.Context(), s.DSN)
	if err == nil {
		p.Close()
		t.Fatal("a server without a time to live for each record is taken")
	}
	if !strings.Contains(err.Error(), "2.11") || strings.Contains(err.Error(), s.Password) {
		t.Errorf("the error is %v", err)
	}
}

func TestRefused(t *testing.T) {
	b := brokertest.New(t, broker.Options{})
	plain := brokertest.New(t, broker.Options{})
	for _, c := range []struct{ name, url, want string }{
		{"wrong password", "nats://owtp:wr0ng-s3cret@" + b.Addr, "uthorization"},
		{"a token", "nats://:wr0ng-s3cret@" + b.Addr, "uthorization"},
		{"nobody", "nats://owtp:wr0ng-s3cret@127.0.0.1:1", "127.0.0.1:1"},
		{"no TLS there", strings.Replace(plain.URL(), "nats://", "tls://", 1), "secure"},
		{"no room for replicas", b.URL() + "?bucket=three&replicas=3", "replicas"},
	} {
		p, err := connect(t.Context(), c.url)
		if err == nil {
			p.Close()
			t.Errorf("%s: it opens", c.name)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), b.Password) || strings.Contains(err.Error(), plain.Password) {
			t.Errorf("%s: the error is %v", c.name, err)
		}
	}
}

func streams(t *testing.T, b *brokertest.Broker) jetstream.JetStream {
	t.Helper()
	gone := make(chan struct{})
	nc, err := natsgo.Connect("nats://"+b.Addr, natsgo.UserInfo(b.Account, b.Password), natsgo.NoReconnect(), natsgo.ClosedHandler(func(*natsgo.Conn) { close(gone) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close(); <-gone })
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// TestForeignStream: a stream that would forget records is not taken, and what
// others have put into ours is no record.
func TestForeignStream(t *testing.T) {
	b := brokertest.New(t, broker.Options{})
	js := streams(t, b)
	good := jetstream.StreamConfig{
		MaxMsgsPerSubject: 1, AllowMsgTTL: true, Discard: jetstream.DiscardNew, MaxMsgs: 100,
	}
	for i, change := range []func(*jetstream.StreamConfig){
		func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
		func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
		func(c *jetstream.StreamConfig) { c.AllowMsgTTL = false },
		func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 2 },
		func(c *jetstream.StreamConfig) { c.AllowDirect = true },
		func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy },
		func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "others") },
		nil,
	} {
		c, bucket := good, fmt.Sprint("b", i)
		c.Name, c.Subjects = "OWTPKV_"+bucket, []string{"owtp.kv." + bucket + ".*"}
		if change != nil {
			change(&c)
		}
		if _, err := js.CreateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		p, err := connect(t.Context(), b.URL()+"?bucket="+bucket)
		if err == nil {
			p.Close()
		}
		if (err == nil) != (change == nil) || err != nil && !strings.Contains(err.Error(), c.Name) {
			t.Errorf("stream %+v: %v", c, err)
		}
	}
	p := open(t, b.URL())
	for subject, m := range map[string]*natsgo.Msg{
		"owtp.kv.owtp.YQ": {Data: []byte("short")},                                                          // "a"
		"owtp.kv.owtp.Yg": {Data: bytes.Repeat([]byte{1}, 9), Header: natsgo.Header{"Nats-TTL": {"1h30m"}}}, // "b"
		"owtp.kv.owtp.!":  {Data: bytes.Repeat([]byte{1}, 9)},
	} {
		m.Subject = subject
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"a", "b"} {
		if _, err := p.Get(t.Context(), key); err == nil || errors.Is(err, session.ErrNotFound) {
			t.Errorf("a foreign message counts as a record: %v", err)
		}
	}
	if _, err := p.List(t.Context(), "", "", 10); err == nil {
		t.Error("a list of foreign messages")
	}
	if err := p.Put(t.Context(), "a", []byte("x"), 0); err != nil {
		t.Error(err)
	}
}

// TestCrash: what was acknowledged is there when a server that was killed comes
// back, and what was deleted is not; meanwhile every method fails at once.
func TestCrash(t *testing.T) {
	b := brokertest.New(t, broker.Options{})
	p := open(t, b.URL())
	ctx := t.Context()
	const records = 200
	versions := make(map[string]uint64)
	for i := range records {
		key := fmt.Sprint("key", i)
		v, err := p.PutIfAbsent(ctx, key, []byte("old"), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			v, err = p.CompareAndSwap(ctx, key, v, []byte("new"), time.Hour)
		}
		if i%3 == 0 && err == nil {
			err = p.Delete(ctx, key)
			v = 0
		}
		if err != nil {
			t.Fatal(err)
		}
		versions[key] = v
	}
	b.Kill(t)
	ended := time.Now()
	for time.Since(ended) < 300*time.Millisecond {
		start := time.Now()
		if _, err := p.Get(ctx, "key1"); err == nil || errors.Is(err, session.ErrNotFound) || time.Since(start) > 5*time.Second {
			t.Fatalf("from a server that is not there: %v after %v", err, time.Since(start))
		}
		if _, err := p.PutIfAbsent(ctx, "late", []byte("x"), 0); err == nil {
			t.Fatal("a server that is not there takes a record")
		}
	}
	b.Start(t)
	eventually(t, "the store is there again", func() bool { _, err := p.Get(ctx, "key1"); return err == nil })
	for key, version := range versions {
		r, err := p.Get(ctx, key)
		switch {
		case version == 0 && !errors.Is(err, session.ErrNotFound):
			t.Errorf("%s was deleted: %v, %v", key, r, err)
		case version != 0 && (err != nil || r.Version != version):
			t.Errorf("%s had version %d: %v, %v", key, version, r, err)
		}
	}
	if _, err := p.Get(ctx, "late"); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("a write that has failed was done later: %v", err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestPausedServer: every method ends with its context, and Close ends.
func TestPausedServer(t *testing.T) {
	b := brokertest.New(t, broker.Options{})
	p := open(t, b.URL())
	if err := p.Put(t.Context(), "a", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	r, err := p.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	b.Pause(t)
	defer b.Resume(t)
	value := make([]byte, 64<<10)
	var all sync.WaitGroup
	for i := range 300 { // more than the buffers on the way take
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			start := time.Now()
			var err error
			switch i % 6 {
			case 0:
				_, err = p.Get(ctx, "a")
			case 1:
				err = p.Put(ctx, "a", value, 0)
			case 2:
				_, err = p.PutIfAbsent(ctx, fmt.Sprint(i), value, 0)
			case 3:
				_, err = p.CompareAndSwap(ctx, "a", r.Version, value, 0)
			case 4:
				_, err = p.List(ctx, "", "", 10)
			default:
				err = p.Delete(ctx, "a")
			}
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
				t.Errorf("method %d: %v after %v", i%6, err, time.Since(start))
			}
		})
	}
	all.Wait()
	start := time.Now()
	if err := p.Close(); err != nil || time.Since(start) > 5*time.Second {
		t.Errorf("Close: %v after %v", err, time.Since(start))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if p, err := connect(ctx, b.URL()); err == nil {
		p.Close()
		t.Error("a paused server opens")
	}
}

// TestLargestValue: MaxValue is what the server takes, to the octet.
func TestLargestValue(t *testing.T) {
	b := brokertest.New(t, broker.Options{})
	p := open(t, b.URL())
	key := strings.Repeat("\xff", session.MaxKeyLen)
	value := bytes.Repeat([]byte{7}, p.Traits().MaxValue)
	if err := p.Put(t.Context(), key, value, time.Hour); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Get(t.Context(), key); err != nil || !bytes.Equal(r.Value, value) {
		t.Errorf("got %d octets of %d, %v", len(r.Value), len(value), err)
	}
	if err := p.Put(t.Context(), key, append(value, 7), 0); !errors.Is(err, session.ErrTooLarge) {
		t.Errorf("one octet more: %v", err)
	}
}

// TestServersStore: the server's disk is full before the bounds of the stream.
func TestServersStore(t *testing.T) {
	b := brokertest.New(t, broker.Options{MaxStore: 1 << 20})
	p := open(t, b.URL())
	var err error
	for i := 0; err == nil && i < 100; i++ {
		err = p.Put(t.Context(), fmt.Sprint(i), make([]byte, 64<<10), 0)
	}
	if !errors.Is(err, session.ErrFull) {
		t.Errorf("got error %v, want that the store is full", err)
	}
	if r, err := p.Get(t.Context(), "0"); err != nil || len(r.Value) != 64<<10 {
		t.Errorf("what is kept: %d octets, %v", len(r.Value), err)
	}
}

// TestFull: a full store refuses new records and nothing else, and has room again
// when the mark of a deleted one has expired.
func TestFull(t *testing.T) {
	b := brokertest.New(t, broker.Options{})
	p := open(t, b.URL()+"?max_records=50")
	natskv.SetMarkTTL(p, time.Second)
	ctx := t.Context()
	for i := range 50 {
		if _, err := p.PutIfAbsent(ctx, fmt.Sprint(i), []byte("x"), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.PutIfAbsent(ctx, "new", []byte("x"), 0); !errors.Is(err, session.ErrFull) {
		t.Errorf("PutIfAbsent: %v", err)
	}
	if err := p.Put(ctx, "new", []byte("x"), 0); !errors.Is(err, session.ErrFull) {
		t.Errorf("Put: %v", err)
	}
	r, err := p.Get(ctx, "0")
	if err != nil {
		t.Fatal(err)
	}
	v, err := p.CompareAndSwap(ctx, "0", r.Version, []byte("a much longer value"), time.Hour)
	if v == 0 || err != nil {
		t.Errorf("CompareAndSwap: %d, %v", v, err)
	}
	if ok, err := p.Touch(ctx, "0", v, time.Minute); !ok || err != nil {
		t.Errorf("Touch: %v, %v", ok, err)
	}
	if err := p.Put(ctx, "1", []byte("y"), 0); err != nil {
		t.Errorf("Put over a record: %v", err)
	}
	if err := p.Delete(ctx, "2"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if _, err := p.PutIfAbsent(ctx, "2", []byte("z"), 0); err != nil {
		t.Errorf("the deleted one again: %v", err)
	}
	if err := p.Delete(ctx, "2"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	eventually(t, "there is room", func() bool { _, err := p.PutIfAbsent(ctx, "new", []byte("x"), 0); return err == nil })
	if keys, err := p.List(ctx, "", "", 100); len(keys) != 50 || err != nil {
		t.Errorf("%d records of 50, %v", len(keys), err)
	}
}

// TestReplicasBegin: any number of replicas may make the store at one time.
func TestReplicasBegin(t *testing.T) {
	b := brokertest.New(t, broker.Options{})
	for i := range 10 {
		var all sync.WaitGroup
		for range 12 {
			all.Go(func() {
				p, err := connect(t.Context(), b.URL()+"?bucket=b"+fmt.Sprint(i))
				if err != nil {
					t.Error(err)
					return
				}
				if err := p.Put(t.Context(), "a", nil, 0); err != nil {
					t.Error(err)
				}
				p.Close()
			})
		}
		all.Wait()
	}
}
