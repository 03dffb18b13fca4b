package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/owtp-go/owtp/contrib/internal/brokertest"
	"github.com/owtp-go/owtp/contrib/nats/broker"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
)

const (
	storageRoom = 64 << 10 // what little there is to keep requests in
	storedSize  = 8 << 10  // of one of them
)

// bounded is a server of the test's own, with a bound for all that it keeps and what
// it says of its account.
func bounded(t testing.TB, all, account string) place {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "conf")
	conf := fmt.Sprintf("jetstream { store_dir: %q, max_mem: 0, max_file: %s }\naccounts { A { jetstream: %s, users: [ { user: a, password: s3cret } ] } }\n",
		dir, all, account)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s := servers.NewNATS(t, "-c", file)
	return place{url: "nats://" + s.Addr, account: "a", password: "s3cret"}
}

// cramped are servers that have storageRoom for the requests to a queue, by whose
// bound that is, and the code by which they say that it is used up.
var cramped = []struct {
	name, code string
	at         func(testing.TB) place
	bound      func(jetstream.StreamConfig) jetstream.StreamConfig // of the stream, by its operator
}{
	{name: "server's", code: "10023", at: func(t testing.TB) place { return bounded(t, fmt.Sprint(storageRoom), "enabled") }},
	{name: "account's", code: "10002", at: func(t testing.TB) place { return bounded(t, "1G", fmt.Sprintf("{ max_file: %d }", storageRoom)) }},
	{name: "embedded server's", code: "10023", at: func(t testing.TB) place { return placeAt(brokertest.New(t, broker.Options{MaxStore: storageRoom})) }},
	{name: "stream's", code: "maximum bytes exceeded", at: installed, bound: streamBound},
	{name: "embedded stream's", code: "maximum bytes exceeded", at: embedded, bound: streamBound},
}

func streamBound(c jetstream.StreamConfig) jetstream.StreamConfig {
	c.MaxBytes = storageRoom
	return c
}

// inCramped prepares a queue at each of them.
func inCramped(t *testing.T, test func(t *testing.T, cfg transport.Config, js jetstream.JetStream, code string)) {
	for _, c := range cramped {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := c.at(t)
			p.url += "?durable=true"
			cfg := p.config()
			prepare(t, cfg)
			js := streams(t, p)
			if c.bound != nil {
				if _, err := js.UpdateStream(t.Context(), c.bound(streamOf(t, js, "owtp.durable."+cfg.ReadQueueName).CachedInfo().Config)); err != nil {
					t.Fatal(err)
				}
			}
			test(t, cfg, js, c.code)
		})
	}
}

// fill sends until that is refused, and returns how often it was not and why not
// any more.
func fill(t *testing.T, send func() error) (taken int, full error) {
	t.Helper()
	for taken = 0; ; taken++ {
		if full = send(); full != nil {
			return taken, full
		}
		if taken > 2*storageRoom/storedSize {
			t.Fatal("the room has no end")
		}
	}
}

// TestOutOfStorage: a request for which a server has no storage is refused at once
// and was not sent, what was taken before is handled, and then there is room again.
func TestOutOfStorage(t *testing.T) {
	inCramped(t, func(t *testing.T, cfg transport.Config, js jetstream.JetStream, code string) {
		x := dial(t, cfg)
		m := message(strings.Repeat("x", storedSize))
		taken, full := fill(t, func() error {
			m := m
			m.OneWay = true
			_, err := send(t, x, m)
			return err
		})
		start := time.Now()
		_, err := send(t, x, m)
		for _, err := range []error{full, err} {
			wantRefusal(t, "one too many", err, 503, true)
			if !strings.Contains(err.Error(), code) || !strings.Contains(err.Error(), cfg.WriteQueueName) {
				t.Errorf("the error does not name the queue and say %q: %v", code, err)
			}
		}
		if took := time.Since(start); took > patience/2 {
			t.Errorf("it took %v", took)
		}
		if n := count(t, streamOf(t, js, "owtp.durable."+cfg.ReadQueueName)); n != uint64(taken) || taken == 0 {
			t.Errorf("%d requests were taken, and the stream has %d", taken, n)
		}
		var handled atomic.Int32
		listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
			if m.OneWay {
				handled.Add(1)
			}
			return echo(ctx, r, m)
		})
		eventually(t, "those that were taken are handled", func() bool { return int(handled.Load()) == taken })
		eventually(t, "there is room again", func() bool { _, err := send(t, x, m); return err == nil })
	})
}

// TestStorageFullOfJunk: requests that cannot be handled, and for which there is no
// room where they would be put aside, do not keep their place for ever.
func TestStorageFullOfJunk(t *testing.T) {
	inCramped(t, func(t *testing.T, cfg transport.Config, js jetstream.JetStream, _ string) {
		reply := transport.ReplyQueuePrefix + "test.r.AAAAAAAAAAAAAAAA"
		told := make(chan *natsgo.Msg, 64)
		if _, err := js.Conn().ChanSubscribe(reply, told); err != nil {
			t.Fatal(err)
		}
		junk := &natsgo.Msg{Subject: "owtp.durable." + cfg.ReadQueueName, Data: bytes.Repeat([]byte("x"), storedSize),
			Header: natsgo.Header{"Content-Type": {"text/plain"}, "Owtp-Reply": {reply}}}
		taken, full := fill(t, func() error { _, err := js.PublishMsg(t.Context(), junk); return err })
		var refused *jetstream.APIError
		if !errors.As(full, &refused) || taken == 0 {
			t.Fatalf("after %d: %v", taken, full)
		}
		listen(t, cfg, echo)
		requests := streamOf(t, js, "owtp.durable."+cfg.ReadQueueName)
		eventually(t, "there is room again", func() bool { return count(t, requests) == 0 })
		mustEcho(t, dial(t, cfg))
		for i := range taken {
			select {
			case m := <-told:
				if s := m.Header.Get("Owtp-Status"); s != "415" {
					t.Errorf("a sender was told %q", s)
				}
			case <-time.After(patience):
				t.Fatalf("only %d senders of %d were told", i, taken)
			}
		}
	})
}
