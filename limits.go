package owtp

import (
	"fmt"
	"math"
	"reflect"
	"time"

	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/session"
)

// Limits bound what peers can make a node do. A zero field means the default,
// which is safe for a small machine on the open Internet; a negative one is an
// error. What happens at each limit stands in docs/SECURITY.md.
type Limits struct {
	// MaxMessage is the most bytes of one message. 4 MiB: enough for data
	// that people pass in calls; a thousand such at once still fit in memory.
	MaxMessage int
	// MaxReceiving is the most bytes of messages over 4 KiB that are being
	// received at one time, by all listeners together, and as many again may
	// be in the hands of handlers, a quarter of them one peer's, and a quarter
	// left to the peers that the program names. 256 MiB: ten
	// thousand halves of large messages must not use up the memory. More get
	// 503, or 429 where the handler's share is used up.
	MaxReceiving int
	// MaxRequests is the most requests that run at one time on the node.
	// 4096: a goroutine and a few KiB each. A quarter is left to the peers
	// that the program names, if it names any: AllowPeers, Connect, PinPeer.
	// More get 429.
	MaxRequests int
	// MaxRequestsPerPeer is the same for one peer. 256: one peer cannot take
	// the whole node. More get 429, nested calls too, so that two nodes that
	// call each other cannot block each other for ever.
	MaxRequestsPerPeer int
	// MaxCalls is the most calls of the node's own that wait on one
	// connection. 65536: they cost memory on this side only. More end 429.
	MaxCalls int
	// MaxConns is the most sockets that one listener holds. 16384: an idle
	// WebSocket peer costs about 32 KiB. More wait in the kernel's queue.
	MaxConns int
	// MaxConnsPerPeer is the most connections of one proved peer. 8: two live
	// side by side when one replaces the other, some for several programs
	// with one key. A further one is refused with 429. It also bounds the
	// pooled HTTP connections to one peer, times 32.
	MaxConnsPerPeer int
	// MaxHandshakes is the most handshakes of strangers that run at one time.
	// Default: one for two processors, so that a flood leaves half of the
	// machine; each costs about 0.5 ms. Peers that have proved themselves
	// lately and those in AllowPeers have twice as many of their own.
	// MaxHandshakeQueue more wait (64: worked off within the handshake's
	// timeout); the others get 503.
	MaxHandshakes     int
	MaxHandshakeQueue int
	// MaxHandshakeRate is the most handshakes of strangers a second from one
	// address, and four times that at once. 100: a fleet behind one address
	// comes back within a minute. One key at one address has as much, known
	// or not. More get 429.
	MaxHandshakeRate int
	// MaxSessions is the most agreed sessions of one peer on HTTP. 16.
	MaxSessions int
	// MaxHeader is the most bytes of HTTP headers. 16 KiB: browsers and
	// proxies send far less than the library's 1 MiB.
	MaxHeader int
	// MaxDeliveries is the most requests that one listener on a message queue
	// holds at one time. 256: enough to keep the handlers busy, and few that
	// wait for this replica while another is idle.
	MaxDeliveries int
	// MaxQueueLength is the most messages that lie in the node's queue at the
	// broker. 100,000: what a node works off in a minute. More are refused
	// with 503.
	MaxQueueLength int
	// MaxQueued is the most bytes that wait to be written on one connection.
	// 8 MiB, and always room for one message; then senders wait.
	MaxQueued int

	// HandshakeTimeout bounds TLS, HTTP headers, the WebSocket upgrade and the
	// protocol's handshake, each. 10 s: slow mobile networks need three.
	HandshakeTimeout time.Duration
	// BodyTimeout bounds the reading of an HTTP body and the writing of one
	// message. 30 s: 4 MiB at 140 KiB/s.
	BodyTimeout time.Duration
	// IdleTimeout ends HTTP connections between requests. 90 s: longer than
	// the usual client keeps them, so that the client closes first.
	IdleTimeout time.Duration
	// Heartbeat is the interval after which a silent peer is asked whether it
	// lives; after two it is dead. 15 s: below the 30 to 60 s after which
	// routers forget a connection.
	Heartbeat time.Duration
	// SessionLifetime ends agreed sessions on HTTP. One hour, at most a day.
	SessionLifetime time.Duration
	// MaxKeyRecords, MaxKeyBytes and MaxKeyAge end the keys of a long
	// connection (PROTOCOL §6). At half of any of them a new connection takes
	// over and the old one drains; at the whole the old one is closed. 2^24
	// records and 64 GiB are far below what the ciphers bear, and cannot be
	// raised; one hour bounds what a stolen key reveals, at most a day.
	MaxKeyRecords int
	MaxKeyBytes   int
	MaxKeyAge     time.Duration
	// StoreTimeout bounds one operation of a Store outside this process. 2 s,
	// at most a minute: a store in the same network answers in milliseconds,
	// and what needs it gets 503 before its caller gives up. After five
	// timeouts in a row it gets 503 at once, until the store answers again.
	StoreTimeout time.Duration
	// MaxReconnectDelay bounds the growing pause between two attempts to
	// reconnect. 30 s.
	MaxReconnectDelay time.Duration
}

// maxKeyBytes is less where an int cannot count as far.
const maxKeyBytes = min(secure.MaxOctets, math.MaxInt)

func defaultLimits(processors int) Limits {
	return Limits{
		MaxMessage: 4 << 20, MaxReceiving: 256 << 20, MaxRequests: 4096, MaxRequestsPerPeer: 256, MaxCalls: 65536,
		MaxConns: 16384, MaxConnsPerPeer: 8, MaxHandshakes: max(processors/2, 1), MaxHandshakeQueue: 64, MaxHandshakeRate: 100,
		MaxDeliveries: 256, MaxQueueLength: 100_000, MaxSessions: 16, MaxHeader: 16 << 10, MaxQueued: 8 << 20,
		HandshakeTimeout: 10 * time.Second, BodyTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second,
		MaxKeyRecords: secure.MaxRecords, MaxKeyBytes: maxKeyBytes, MaxKeyAge: time.Hour,
		Heartbeat: 15 * time.Second, SessionLifetime: time.Hour, MaxReconnectDelay: 30 * time.Second,
		StoreTimeout: session.DefaultStoreTimeout,
	}
}

// withDefaults fills every zero field and refuses negative ones.
func (l Limits) withDefaults(processors int) (Limits, error) {
	defaults := defaultLimits(processors)
	defaults.MaxReceiving = max(defaults.MaxReceiving, 4*l.MaxMessage)
	v, d := reflect.ValueOf(&l).Elem(), reflect.ValueOf(defaults)
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case f.Int() < 0:
			return l, fmt.Errorf("owtp: Limits.%s is %v; it must be positive, or zero for the default %v",
				v.Type().Field(i).Name, f.Interface(), d.Field(i).Interface())
		case f.Int() == 0:
			f.Set(d.Field(i))
		}
	}
	switch {
	case l.MaxMessage < 4096:
		return l, fmt.Errorf("owtp: Limits.MaxMessage is %d; a handshake needs 4096", l.MaxMessage)
	case l.MaxMessage > 1<<30:
		return l, fmt.Errorf("owtp: Limits.MaxMessage is %d; at most 1 GiB", l.MaxMessage)
	case l.MaxReceiving < 4*l.MaxMessage:
		return l, fmt.Errorf("owtp: Limits.MaxReceiving is %d; it must be at least four times MaxMessage, which is %d", l.MaxReceiving, l.MaxMessage)
	case l.MaxKeyRecords > secure.MaxRecords || l.MaxKeyBytes > maxKeyBytes || l.MaxKeyAge > 24*time.Hour:
		return l, fmt.Errorf("owtp: Limits: MaxKeyRecords %d, MaxKeyBytes %d and MaxKeyAge %v may be at most %d, %d and 24h", l.MaxKeyRecords, l.MaxKeyBytes, l.MaxKeyAge, secure.MaxRecords, maxKeyBytes)
	case l.MaxKeyRecords < 16:
		return l, fmt.Errorf("owtp: Limits.MaxKeyRecords is %d; a connection needs 16", l.MaxKeyRecords)
	case l.StoreTimeout < time.Millisecond || l.StoreTimeout > time.Minute:
		return l, fmt.Errorf("owtp: Limits.StoreTimeout is %v; it must be 1ms to 1m", l.StoreTimeout)
	case l.SessionLifetime > 24*time.Hour:
		return l, fmt.Errorf("owtp: Limits.SessionLifetime is %v; at most 24h", l.SessionLifetime)
	}
	return l, nil
}
