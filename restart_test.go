package owtp_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
	_ "github.com/owtp-go/owtp/session/file"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// lives are one server, met in exchanges, whose store is a file, in one life after
// the other, and a caller that stays.
type lives struct {
	*cutRig
	clock    movable
	cert     owtp.Certificate
	path     string
	sessions *owtp.SessionManager
}

func newLives(t *testing.T, m medium, g guard) *lives {
	l := &lives{cutRig: &cutRig{rig: &rig{t: t, m: m, g: g}}, cert: owtp.NewRandomCertificate(), path: filepath.Join(t.TempDir(), "store")}
	l.rig.client = newNodeAt(t, owtp.NodeConfig{}, l.clock.now)
	l.begin()
	l.through(l.bank.ListenerAddr(m.name))
	return l
}

// begin is the server's start.
func (l *lives) begin() {
	l.t.Helper()
	m, err := owtp.NewSessionManager("file", &session.ManagerConfig{ProviderConfig: l.path, Now: l.clock.now})
	must(l.t, err)
	l.t.Cleanup(func() { m.Close() })
	l.sessions = m
	l.bank = newBankAt(l.t, owtp.NodeConfig{Cert: l.cert, Peerstore: m}, l.clock.now)
	l.bank.listen(l.t, l.m, l.g)
}

// restart ends the server and begins the next one. After a kill there is what
// the file was when the last method returned.
func (l *lives) restart(kill bool) {
	l.t.Helper()
	// A slow disk makes it write down later what it has answered.
	eventually(l.t, "the file has been told everything", func() bool { return l.bank.Postponed() == 0 })
	file, err := os.ReadFile(l.path)
	must(l.t, err)
	must(l.t, l.bank.Close())
	must(l.t, l.sessions.Close())
	if kill {
		must(l.t, os.WriteFile(l.path, file, 0o600))
	}
	l.begin()
	l.proxy.SetTarget(transporttest.Config(l.bank.ListenerAddr(l.m.name)))
}

func (l *lives) keys(part string) []string {
	l.t.Helper()
	keys, err := l.sessions.Provider().List(context.Background(), session.NodePrefix+l.cert.ID()+"/"+part, "", 1000)
	must(l.t, err)
	return keys
}

// A node whose store is a file goes on where it was: its epoch, its agreed
// sessions, the calls it has answered, its bindings and its users' sessions.
func TestRestartWithAFile(t *testing.T) {
	for _, kill := range []bool{false, true} {
		each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
			l := newLives(t, m, g)
			ctx := background(t)
			key := &owtp.CallOptions{CallKey: []byte("0123456789abcdef")}
			if ok, err := l.payWith("a", key); !ok {
				t.Fatal(err)
			}
			must(t, l.bank.PinPeer(ctx, "friend", l.client.NodeID()))
			must(t, l.sessions.Put(l.client.NodeID(), "user", "kkk"))
			saved := l.toServer()
			secrets := l.rig.client.SessionSecrets()
			epoch, err := l.bank.StoreEpoch(ctx)
			must(t, err)
			if agreed := l.keys("session/"); g.seal != (len(agreed) == 1) {
				t.Errorf("agreed sessions are kept under %q", agreed)
			}

			l.restart(kill)
			if again, err := l.bank.StoreEpoch(ctx); err != nil || again != epoch {
				t.Errorf("another epoch after the restart, or %v", err)
			}
			deliver(t, m, l.bank.ListenerAddr(m.name), saved)
			l.bank.ran(t, 0)
			resp, err := l.rig.client.CallContext(ctx, "bank", "pay", payParams("a"), &owtp.CallOptions{CallKey: key.CallKey, Meta: key.Meta})
			if !judge(t, "a", resp, err) {
				t.Errorf("a retried call does not get its answer: %+v, %v", resp, err)
			}
			l.bank.ran(t, 0)
			l.mustPay("b")
			l.bank.ran(t, 1)
			// Nobody knows at a queue that the one who has gone is back, so its
			// callers go to whoever is there and agree with him.
			same := slices.EqualFunc(l.rig.client.SessionSecrets(), secrets, bytes.Equal)
			if same == (m == overMQ && g.seal) {
				t.Errorf("the caller goes on with the same session: %v", same)
			}
			fresh := l.withhold("fresh")
			deliver(t, m, l.bank.ListenerAddr(m.name), []transport.Message{fresh, fresh})
			l.bank.ran(t, 2) // so that what is delivered does run, if it is no copy
			if all, err := l.bank.Bindings(ctx); err != nil || all["friend"] != l.client.NodeID() {
				t.Errorf("bindings: %v, %v", all, err)
			}
			if got := l.sessions.GetString(l.client.NodeID(), "user"); got != "kkk" {
				t.Errorf("a user's session has %q", got)
			}
		})
	}
}

// The clock is set back while the server is down. What it has seen would be
// fresh again when its records have gone: it begins a new epoch, once.
func TestRestartSetBack(t *testing.T) {
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		l := newLives(t, m, g)
		ctx := short(t)
		l.mustPay("a")
		saved := l.toServer()
		epoch, err := l.bank.StoreEpoch(ctx)
		must(t, err)

		// All that was recorded expires and goes, and the time comes again.
		l.clock.move(10 * time.Minute)
		for len(l.keys("call/")) > 0 {
			_, err := l.sessions.Provider().Sweep(ctx, 1000)
			must(t, err)
		}
		_, err = l.sessions.Provider().Sweep(ctx, 1000)
		must(t, err)
		l.clock.move(-10 * time.Minute)
		l.restart(true)
		now, err := l.bank.StoreEpoch(ctx)
		if must(t, err); now == epoch {
			t.Error("the clock was set back by ten minutes, and the epoch is the same")
		}
		deliver(t, m, l.bank.ListenerAddr(m.name), saved)
		l.bank.ran(t, 0)
		l.recover("b", 0)
		l.mustPay("c")
		l.mustPay("d")
		if again, _ := l.bank.StoreEpoch(ctx); again != now {
			t.Error("one step has begun two epochs")
		}

		// A small step is the slack's, and forward is no step back.
		l.clock.move(11 * time.Minute)
		l.mustPay("e")
		before, err := l.bank.StoreEpoch(ctx)
		must(t, err)
		l.clock.move(-owtp.ClockSlack / 2)
		l.restart(false)
		if again, err := l.bank.StoreEpoch(ctx); err != nil || again != before {
			t.Errorf("a step within the slack has begun a new epoch, or %v", err)
		}
	})
}

// A durable store that cannot say when it was last used may have been set back.
func TestRestartUnknownClock(t *testing.T) {
	l := newLives(t, overHTTP, inSigned)
	ctx := short(t)
	epoch, err := l.bank.StoreEpoch(ctx)
	must(t, err)
	must(t, l.bank.Close())
	b := newBankAt(t, owtp.NodeConfig{Cert: l.cert, Store: timeless{l.sessions.Provider()}}, l.clock.now)
	if now, err := b.StoreEpoch(ctx); err != nil || now == epoch {
		t.Errorf("the epoch goes on, or %v", err)
	}
}

type timeless struct{ session.Provider }

func (p timeless) Traits() session.Traits {
	t := p.Provider.Traits()
	t.LastUsed = time.Time{}
	return t
}
