package broker_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp/contrib/nats/broker"
	"github.com/owtp-go/owtp/transport/transporttest"
)

func TestMain(m *testing.M) { os.Exit(transporttest.RunMain(m)) }

var someone = broker.User{Name: "node", Password: "correct horse"}

func start(t *testing.T, o broker.Options) *broker.Broker {
	t.Helper()
	if o.Users == nil {
		o.Users = []broker.User{someone}
	}
	b, err := broker.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func connect(t *testing.T, b *broker.Broker, u broker.User, opts ...natsgo.Option) (*natsgo.Conn, error) {
	t.Helper()
	gone := make(chan struct{})
	opts = append(opts, natsgo.UserInfo(u.Name, u.Password), natsgo.NoReconnect(), natsgo.ClosedHandler(func(*natsgo.Conn) { close(gone) }))
	nc, err := natsgo.Connect(b.URL(), opts...)
	if err == nil {
		t.Cleanup(func() { nc.Close(); <-gone })
	}
	return nc, err
}

func TestStart(t *testing.T) {
	b := start(t, broker.Options{})
	host, _, err := net.SplitHostPort(b.Addr().String())
	if err != nil || host != "127.0.0.1" {
		t.Errorf("it listens on %s, %v", b.Addr(), err)
	}
	if b.URL() != "nats://"+b.Addr().String() || strings.Contains(b.URL(), someone.Password) {
		t.Errorf("its URL is %s", b.URL())
	}
	nc, err := connect(t, b, someone)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := nc.SubscribeSync("a")
	if err == nil {
		err = nc.Publish("a", []byte("x"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if m, err := sub.NextMsg(5 * time.Second); err != nil || string(m.Data) != "x" {
		t.Errorf("got %v, %v", m, err)
	}
	for _, u := range []broker.User{{}, {Name: "node", Password: "wrong"}, {Name: "other", Password: someone.Password}} {
		if _, err := connect(t, b, u); !errors.Is(err, natsgo.ErrAuthorization) {
			t.Errorf("user %q with %q: %v", u.Name, u.Password, err)
		}
	}
	for range 2 {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPermissions(t *testing.T) {
	b := start(t, broker.Options{Users: []broker.User{
		{Name: "some", Password: "p", Publish: []string{"a.>"}, Subscribe: []string{"b q"}},
		{Name: "none", Password: "p", Publish: []string{}, Subscribe: []string{}},
	}})
	for _, c := range []struct {
		user, verb, subject, queue string
		allowed                    bool
	}{
		{"some", "publish", "a.b", "", true}, {"some", "publish", "b", "", false},
		{"some", "subscribe", "b", "q", true}, {"some", "subscribe", "b", "", false}, {"some", "subscribe", "a.b", "", false},
		{"none", "publish", "a", "", false}, {"none", "subscribe", "a", "", false},
	} {
		nc, err := connect(t, b, broker.User{Name: c.user, Password: "p"}, natsgo.ErrorHandler(func(*natsgo.Conn, *natsgo.Subscription, error) {}))
		if err != nil {
			t.Fatal(err)
		}
		if c.verb == "publish" {
			err = nc.Publish(c.subject, nil)
		} else {
			_, err = nc.QueueSubscribeSync(c.subject, c.queue)
		}
		if err == nil {
			err = nc.Flush()
		}
		if err == nil {
			err = nc.LastError()
		}
		if (err == nil) != c.allowed || err != nil && !errors.Is(err, natsgo.ErrPermissionViolation) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	keep := func() natsgo.JetStreamContext {
		b := start(t, broker.Options{StoreDir: dir, MaxStore: 1 << 20})
		nc, err := connect(t, b, someone)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		js, err := nc.JetStream()
		if err != nil {
			t.Fatal(err)
		}
		return js
	}
	t.Run("Write", func(t *testing.T) {
		js := keep()
		if _, err := js.AddStream(&natsgo.StreamConfig{Name: "S", Subjects: []string{"s"}, MaxBytes: 2 << 20}); err == nil {
			t.Error("a stream may be larger than the store")
		}
		if _, err := js.AddStream(&natsgo.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish("s", []byte("kept")); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("ReadAfterRestart", func(t *testing.T) {
		m, err := keep().GetMsg("S", 1)
		if err != nil || string(m.Data) != "kept" {
			t.Errorf("got %v, %v", m, err)
		}
	})
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info, err)
	}
}

func TestBadOptions(t *testing.T) {
	busy := start(t, broker.Options{})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	users := []broker.User{someone}
	var log bytes.Buffer
	for _, c := range []struct {
		name string
		o    broker.Options
		want string
	}{
		{"no users", broker.Options{}, "no Users"},
		{"no password", broker.Options{Users: []broker.User{{Name: "a"}}}, "no password"},
		{"twice", broker.Options{Users: []broker.User{someone, someone}}, "twice"},
		{"address", broker.Options{Users: users, Address: "localhost"}, "localhost"},
		{"port", broker.Options{Users: users, Address: "127.0.0.1:99999"}, "99999"},
		{"taken", broker.Options{Users: users, Address: busy.Addr().String(), Logger: slog.New(slog.NewTextHandler(&log, nil))}, busy.Addr().String()},
		{"negative", broker.Options{Users: users, MaxStore: -1}, "-1"},
		{"large", broker.Options{Users: users, MaxPayload: 1 << 30}, "MaxPayload"},
		{"store", broker.Options{Users: users, StoreDir: file}, file},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := broker.Start(c.o)
			if err == nil {
				b.Close()
				t.Fatal("it starts")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), someone.Password) {
				t.Errorf("the error is %q, it should speak of %s", err, c.want)
			}
		})
	}
	if strings.Contains(log.String(), someone.Password) {
		t.Error("the log has a password in it")
	}
}
