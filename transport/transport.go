// Package transport is the seam between a node and the ways in which its
// messages travel. It knows nothing of packets, keys or methods: a transport
// carries whole messages and says where they came from.
//
// There are two capabilities, and a transport has one of them:
//
//   - a duplex connection ([Conn]) on which both sides send at any time
//     (WebSocket, in-memory);
//   - a one-shot exchange ([Exchanger]) of one message for one message (HTTP,
//     message queues).
//
// Who writes a new transport implements [Transport] and one of [ConnDialer]
// and [ExchangeDialer], and runs the suite in package transporttest.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Kind is a transport's number in hellos, signatures and additional data
// (PROTOCOL §3). It is signed, so a packet made for one kind is worth nothing
// on another.
type Kind uint8

const (
	HTTP      Kind = 1
	WebSocket Kind = 2
	Memory    Kind = 3
	MQ        Kind = 4
)

func (k Kind) String() string {
	switch k {
	case HTTP:
		return "http"
	case WebSocket:
		return "ws"
	case Memory:
		return "mem"
	case MQ:
		return "mq"
	}
	return fmt.Sprintf("transport(%d)", uint8(k))
}

// Form tells the two forms of a message apart: on HTTP by the content type, on
// WebSocket by text or binary.
type Form uint8

const (
	Binary Form = 1 // the strict binary form, hellos and sealed messages
	JSON   Form = 2 // the readable envelope
	Legacy Form = 3 // a packet of protocol version 1, JSON too; on connections any text has the form JSON
	Text   Form = 4 // what version 1 answers over HTTP in place of a packet
)

// A Message is one whole message: one HTTP body, one WebSocket message, one
// message of a queue. Send and Exchange are done with its Data when they
// return, and the sender may use the memory again; a receiver owns what it got,
// may keep it and write to it.
type Message struct {
	Form Form
	Data []byte

	// Announced is the public key that the sender of a Legacy message over
	// HTTP says to be its own, as it stands in header a. It proves nothing.
	Announced string

	// The rest is for message queues; other transports leave it zero.
	To          string        // queue that this message goes to; "" is the dialled one, of an answer the request's ReplyTo. Of a received one: where it came from
	ReplyTo     string        // queue that the sender wants the answer in; of a received message only
	Expires     time.Duration // the broker may drop the message after this time; 0 is when the sender's context ends
	Redelivered bool          // the broker says that it may have delivered it before
	Once        bool          // the broker keeps no copy that it could deliver again; of a received message only
	OneWay      bool          // nobody answers: Exchange returns once the broker has taken it
	Late        bool          // it came to the own queue of an endpoint after its Shutdown: the handler is to refuse it; of a received message only
}

// A Conn is a duplex connection that keeps the borders and the order of
// messages. At most one goroutine calls Send at a time, and at most one calls
// Recv; Close may be called by anybody at any time, any number of times, and
// makes the others return. After a Close by either side errors satisfy
// errors.Is(err, net.ErrClosed). An ended context may end the connection. Send
// returns within Config.BodyTimeout, with an error if nobody reads.
type Conn interface {
	Send(ctx context.Context, m Message) error
	Recv(ctx context.Context) (Message, error)
	// Close ends the connection at once. The reason is a short text for
	// people; the peer may or may not see it and must not rely on it.
	Close(reason string) error
	LocalAddr() string
	RemoteAddr() string
}

// A LegacyConn is an accepted Conn that version 1 may have opened.
type LegacyConn interface {
	Conn
	// Announced returns the public key in header a of the upgrade, "" if it
	// has none, and whether the other side can speak version 1 at all: who
	// offers this version's subprotocol does not.
	Announced() (key string, legacy bool)
}

// A Pinger is a Conn that can ask the other side for a sign of life below the
// messages. Ping returns when it is there; somebody must be in Recv meanwhile.
type Pinger interface {
	Ping(ctx context.Context) error
}

// An Exchanger sends one message and returns the answer to it. It is safe for
// concurrent use. An error for which errors.Is(err, ErrNotSent) holds promises
// that the peer cannot have received anything; a *Refusal is what the peer's
// transport (or somebody between) said instead of an answer, and is not proved.
type Exchanger interface {
	Exchange(ctx context.Context, m Message) (Message, error)
	RemoteAddr() string
	Close() error
}

// A Watcher is an Exchanger that notices connections to its peer which end, also
// between exchanges: the peer may have restarted and forgotten. Not to have the
// method costs a caller some calls after a restart, and no safety.
type Watcher interface {
	// Ended counts the connections that have ended, but for those of which
	// the peer had said so beforehand.
	Ended() uint64
}

// ErrNotSent marks errors after which nothing can have reached the peer, such
// as a refused dial.
var ErrNotSent = errors.New("owtp: not sent")

// NotSent wraps err so that it satisfies errors.Is(_, ErrNotSent).
func NotSent(err error) error {
	return notSentError{err}
}

type notSentError struct{ error }

func (e notSentError) Unwrap() error        { return e.error }
func (e notSentError) Is(target error) bool { return target == ErrNotSent }

// A Refusal is an answer that is no packet: an HTTP status line, a close code,
// a broker's return. Nobody signed it.
type Refusal struct {
	Status int    // as in PROTOCOL §9
	Reason string // one line for people
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("refused with status %d: %s", r.Status, r.Reason)
}

// Remote says where a message came from.
type Remote struct {
	Addr      string // host:port of the socket, or of the client that a trusted proxy names
	LocalAddr string
}

// A Handler is given what a listener receives. Its methods are called on
// goroutines of the transport and may block.
type Handler interface {
	// ServeConn owns c until it returns; the transport then closes c.
	ServeConn(ctx context.Context, c Conn)
	// ServeExchange answers one message. A *Refusal as the error says that m
	// was no packet; the transport tells the peer in its own way (HTTP: the
	// status line). ctx ends when the peer is gone.
	ServeExchange(ctx context.Context, from Remote, m Message) (Message, error)
}

// A Listener is bound and accepting when Listen returns it.
type Listener interface {
	Addr() net.Addr
	// Shutdown stops accepting and waits for the exchanges under way, or
	// until ctx ends. It does not end connections: they are the handler's.
	Shutdown(ctx context.Context) error
	// Close stops accepting and ends everything at once, connections too,
	// and returns when no goroutine of the listener is left.
	Close() error
}

// A Transport carries messages for a node.
type Transport interface {
	Kind() Kind
	Listen(ctx context.Context, cfg Config, h Handler) (Listener, error)
}

// A ConnDialer is a Transport with duplex connections.
type ConnDialer interface {
	Transport
	DialConn(ctx context.Context, cfg Config) (Conn, error)
}

// An ExchangeDialer is a Transport with one-shot exchanges.
type ExchangeDialer interface {
	Transport
	DialExchange(ctx context.Context, cfg Config) (Exchanger, error)
}

// An Endpoint is a node's place at a message broker. It publishes to the queues
// of others and consumes its own, and restores both after the connection or the
// broker was away. Exchange fails meanwhile with ErrNotSent.
type Endpoint interface {
	Exchanger
	// Shutdown of an endpoint ends the consuming of the shared queue: what was
	// delivered and would have to wait for its turn goes back, for other
	// replicas. What is or comes in the own queue still goes to the handler,
	// marked as late, until nothing has come for Config.OwnQueueLinger. Then
	// that queue is gone, and messages to it are returned at once. Answers to
	// the endpoint's own messages come in until Close.
	Listener
	Queues() Queues
}

// Queues are the names of an endpoint's own queues, the same for its whole
// life. They go into hellos and requests, where they are signed.
type Queues struct {
	Shared string // the node's, which all its replicas consume; "" if it was not asked for
	Own    string // of this endpoint only: requests for this very process; "" without a handler
	Reply  string // of this endpoint only: answers to what it has sent
}

// A Broker is a Transport over a message broker. Listen is Open with a handler
// and a shared queue.
type Broker interface {
	Transport
	// Open connects and declares queues: the shared one if cfg.ReadQueueName
	// names one, an own one if h is not nil, and a reply queue. Requests from
	// the first two are given to h.ServeExchange.
	Open(ctx context.Context, cfg Config, h Handler) (Endpoint, error)
}

// Names of queues that an endpoint makes for itself begin so, and both go on
// with the same: Config.Name, a dot and random letters. So who is named one
// knows the other (PROTOCOL §7.5). An answer to a request that nobody has
// proved goes to a queue of the first kind only.
const (
	ReplyQueuePrefix = "owtp.reply."
	OwnQueuePrefix   = "owtp.own."
)

// Config is what a transport needs to know of one listener or one peer. The
// node fills every number; a transport has no defaults of its own.
type Config struct {
	Address string      // "host:port", where an empty host was resolved by the node; a name for Memory
	Path    string      // of the URL to dial over HTTP and WebSocket, "/" at least
	TLS     *tls.Config // nil: no TLS

	LegacyKey string // to dial in protocol version 1: the public key to announce, in base58; "" is version 2

	MaxMessage       int           // bytes of one message; more is refused with 413
	MaxHeader        int           // bytes of HTTP headers
	HandshakeTimeout time.Duration // for TLS, HTTP headers and the WebSocket upgrade
	BodyTimeout      time.Duration // from the end of the headers to the end of the body, and for one message to be written
	IdleTimeout      time.Duration // for an HTTP connection between two requests
	Receiving        *Budget       // of all listeners, for messages over 4 KiB; nil: no bound. Over it they are refused with 503
	MaxConns         int           // sockets accepted at one time; more wait in the kernel's queue
	MaxConnsPerPeer  int           // pooled HTTP connections to one peer
	ReadBufferSize   int           // bytes, 0 is the library's own
	WriteBufferSize  int           // bytes, 0 is the library's own

	AllowedOrigins []string       // Origins (scheme://host[:port]) that may call from a web page
	AllowedHosts   []string       // further Host names on a loopback listener
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed

	Legacy bool // to listen: messages of protocol version 1 are taken too

	// For message queues. Address is a URL without user and password.
	Account, Password, Exchange   string
	WriteQueueName, ReadQueueName string
	Name                          string        // of the node, in names of queues and connections: letters and digits
	MaxDeliveries                 int           // requests of the broker's that are in the handler's hands at one time
	MaxQueueLength                int           // messages in the shared queue; more are refused with 503
	MaxQueueTime                  time.Duration // that a message may lie in a queue
	OwnQueueLinger                time.Duration // for which no request must have come before Shutdown ends the own queue; 0: at once

	Logger *slog.Logger // never nil
}
