package natskv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp/contrib/internal/natslink"
)

// Pauses between attempts to connect again, random up to these.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// A link is the connection of a store. The client mends it; while it does, the
// store answers by itself, since the client dials with its lock held.
type link struct {
	nc     *natsgo.Conn
	dialer *natslink.Dialer
	cancel context.CancelFunc
	gone   chan struct{}        // closed when the client has ended
	living atomic.Pointer[life] // nil while there is no connection
	refuse atomic.Pointer[refusal]
}

// A life is one connection's.
type life struct {
	ctx context.Context
	end context.CancelFunc
}

func (l *link) begin() {
	ctx, end := context.WithCancel(context.Background())
	l.living.Store(&life{ctx, end})
}

func (l *link) end() {
	if last := l.living.Swap(nil); last != nil {
		last.end()
	}
}

// A refusal is what the server last did not permit.
type refusal struct {
	err error
	at  time.Time
}

func (l *link) open(ctx context.Context, o *options) error {
	living, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.dialer = natslink.NewDialer(living, o.timeout)
	stop := context.AfterFunc(ctx, func() { l.dialer.Abort() })
	c := natsgo.GetDefaultOptions()
	c.Servers, c.NoRandomize, c.Name, c.InboxPrefix = o.servers, true, "owtp store", o.inbox
	c.Timeout, c.FlusherTimeout, c.SkipHostLookup, c.CustomDialer = o.timeout, 0, true, l.dialer
	c.PingInterval, c.MaxPingsOut = 5*time.Second, 2
	// What is not sent at once is never sent: nobody would know of it any more.
	c.MaxReconnect, c.ReconnectBufSize, c.IgnoreAuthErrorAbort = -1, -1, true
	c.CustomReconnectDelayCB = func(attempts int) time.Duration {
		return rand.N(min(firstPause<<min(attempts, 10), lastPause))
	}
	if o.user != "" {
		c.User, c.Password = o.user, o.password
	} else {
		c.Token = o.password
	}
	if o.credentials != "" {
		if err := natsgo.UserCredentials(o.credentials)(&c); err != nil {
			return fmt.Errorf("nats: the file of credentials: %w", err)
		}
	}
	if o.tls != nil {
		c.Secure, c.TLSConfig = true, o.tls
	}
	gone := make(chan struct{})
	c.DisconnectedErrCB = func(*natsgo.Conn, error) { l.end() }
	c.ReconnectedCB = func(*natsgo.Conn) { l.begin() }
	c.ClosedCB = func(*natsgo.Conn) { l.end(); close(gone) }
	c.AsyncErrorCB = func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) {
		if errors.Is(err, natsgo.ErrPermissionViolation) {
			l.refuse.Store(&refusal{err, time.Now()})
		}
	}
	l.begin() // before the client can say that it has ended
	nc, err := c.Connect()
	if !stop() && err == nil {
		err = ctx.Err()
		nc.Close()
		<-gone
	}
	if err != nil {
		l.dialer.Abort()
		l.dialer.Wait()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("nats: connecting to %s: %w", o.host, l.dialer.Explain(err))
	}
	l.nc, l.gone = nc, gone
	return nil
}

// modern refuses a server in which a record cannot have a time to live of its own.
func (l *link) modern() error {
	version := l.nc.ConnectedServerVersion()
	parts := strings.SplitN(version, ".", 3)
	if len(parts) == 3 {
		major, err1 := strconv.Atoi(parts[0])
		minor, err2 := strconv.Atoi(parts[1])
		if err1 == nil && err2 == nil && (major > 2 || major == 2 && minor >= 11) {
			return nil
		}
	}
	return fmt.Errorf("nats: the server has version %.40q; a session store needs 2.11, the first in which each record has a time to live of its own", version)
}

// room waits until the connection takes more.
func (l *link) room(ctx context.Context) error { return l.dialer.Last().Room(ctx) }

// denied returns what the server has not permitted a moment ago: it does not answer
// the request itself.
func (l *link) denied() error {
	if r := l.refuse.Load(); r != nil && time.Since(r.at) < 10*time.Second {
		return r.err
	}
	return nil
}

func (l *link) close() {
	if l.nc != nil {
		l.nc.Close()
		<-l.gone
	}
	l.end()
	if l.cancel != nil {
		l.cancel()
	}
	if l.dialer != nil {
		l.dialer.Abort()
		l.dialer.Wait()
	}
}
