package owtp

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/loglimit"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// An OWTPNode is one end of the protocol: it listens, dials, handles and calls.
// All its methods are safe for concurrent use.
type OWTPNode struct {
	err     error        // of the configuration; then every method returns it
	cfg     *NodeConfig  // a pointer, at which fmt stops: a program may print what holds the node
	log     *slog.Logger // bounded: what others cause must not fill a disk
	told    *slog.Logger // whole: what the program alone causes and must be told
	state   *state
	local   secure.Local
	now     func() time.Time
	router  router
	named   *named
	claims  claims
	passing passing

	v1nonces v1Nonces

	ctx       context.Context // ends with Close
	cancel    context.CancelCauseFunc
	tasks     tracker // handlers, callbacks and goroutines of the node
	oneWay    tracker // handlers that no exchange waits for; Shutdown does
	running   *quota  // requests
	refusals  *quota  // of requests, that cost a signature
	receiving *transport.Budget
	unread    *transport.Budget // octets that unproved peers make this node queue
	gate      gate              // handshakes
	closing   atomic.Bool
	ending    sync.Once
	ended     chan struct{} // closed when Close has done its work; then endErr is set
	endErr    error
	leasing   atomic.Bool // tendCalls runs

	mu        sync.Mutex // guards what follows; never held across I/O or a callback
	peerstore Peerstore
	ownStore  *SessionManager // made because none was given; closed with the node
	used      bool            // Listen or Connect was called
	listeners map[*listener]struct{}
	remotes   map[string]*remote     // by the name given to Connect
	byID      map[identity.ID]string // names by proved ID, the newest
	peers     map[string]*peerEntry  // open connections by peer ID
	leaving   map[string]*peerEntry  // the newest that is not in peers any more, until its close handler has returned
	links     map[*link]struct{}     // all that are served, registered or not
	callers   map[string]*caller     // over message queues, by peer ID
	handlers  peerHandlers
	sweeping  bool

	v1Sessions  map[*v1Sessions]struct{} // of listeners and faces
	v1Links     map[string]*link         // accepted, by the ID that their peer has proved
	v1Epoch     v1Epoch
	v1Told      v1Told
	v1Ephemeral func() io.Reader // in tests: what version 1's ephemerals are read from
	v1Numbers   func() uint64    // in tests: the nonces of requests in version 1
}

var errNodeClosed = fmt.Errorf("owtp: the node is closed: %w", net.ErrClosed)

// New returns a node, or what is wrong with its configuration.
func New(cfg NodeConfig) (*OWTPNode, error) {
	processors := runtime.GOMAXPROCS(0)
	cfg, err := cfg.withDefaults(processors)
	if err != nil {
		return nil, err
	}
	return newNode(cfg, rand.Reader, time.Now)
}

func newNode(cfg NodeConfig, rand io.Reader, now func() time.Time) (*OWTPNode, error) {
	names := newNamed()
	n := &OWTPNode{
		cfg: &cfg, log: slog.New(loglimit.New(cfg.Logger.Handler())).With("node", cfg.Cert.ID()), told: cfg.Logger.With("node", cfg.Cert.ID()), now: now,
		local:     secure.Local{Key: cfg.Cert.key, Rand: rand},
		peerstore: cfg.Peerstore,
		running:   newQuota(cfg.Limits.MaxRequestsPerPeer, cfg.Limits.MaxRequests, cfg.Limits.MaxReceiving, names),
		refusals:  newQuota(maxRefusalsPerPeer, maxRefusals, 0, names),
		receiving: transport.NewBudget(cfg.Limits.MaxReceiving),
		unread:    transport.NewBudget(cfg.Limits.MaxReceiving),
		named:     names,
		ended:     make(chan struct{}),
		claims:    newClaims(cfg.Limits, names),
		gate:      newGate(cfg.Limits, names),
		listeners: make(map[*listener]struct{}), remotes: make(map[string]*remote),
		byID: make(map[identity.ID]string), peers: make(map[string]*peerEntry), leaving: make(map[string]*peerEntry), links: make(map[*link]struct{}), callers: make(map[string]*caller),
		v1Sessions: make(map[*v1Sessions]struct{}), v1Links: make(map[string]*link),
	}
	n.router.fold()
	if cfg.Describe {
		if err := n.router.bind(describeMethod, n.describe, Repeatable()); err != nil {
			return nil, err
		}
	}
	if n.peerstore == nil {
		m, err := NewSessionManager("memory", nil)
		if err != nil {
			return nil, err
		}
		n.peerstore, n.ownStore = m, m
	}
	err := n.giveKeys(n.peerstore)
	if err == nil {
		n.state, err = newState(n.cfg, names, rand, now)
	}
	if err != nil {
		n.closeOwnStore()
		return nil, err
	}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	return n, nil
}

// NewNode returns a node. If its configuration is wrong, every method of it
// that returns an error returns what is wrong, and the others do nothing.
func NewNode(cfg NodeConfig) *OWTPNode {
	n, err := New(cfg)
	if err != nil {
		return brokenNode(err)
	}
	return n
}

func brokenNode(err error) *OWTPNode { return &OWTPNode{err: err, cfg: new(NodeConfig)} }

// NewOWTPNode returns a node with an identity and defaults. The sizes are those
// of ConnectConfig and are ignored here.
func NewOWTPNode(cert Certificate, readBufferSize, writeBufferSize int) *OWTPNode {
	return NewNode(NodeConfig{Cert: cert})
}

// RandomOWTPNode returns a node with a new identity and defaults. Further
// arguments are the names of suites, as for NewCertificate.
func RandomOWTPNode(suites ...string) *OWTPNode {
	if _, err := NewCertificate(RandomPrivateKey(), suites...); err != nil {
		return brokenNode(err)
	}
	return NewNode(NodeConfig{Cert: NewRandomCertificate()})
}

// NodeID returns the node's ID.
func (n *OWTPNode) NodeID() string { return n.cfg.Cert.ID() }

// Format prints the node's ID, whatever the verb: nothing of its keys.
func (n *OWTPNode) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "OWTPNode(%s)", n.NodeID()) }

// Certificate returns the node's identity.
func (n *OWTPNode) Certificate() Certificate { return n.cfg.Cert }

// Peerstore returns what keeps user sessions.
func (n *OWTPNode) Peerstore() Peerstore {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.peerstore
}

// SetPeerstore sets what keeps user sessions. After Listen, Connect or PinPeer
// it returns an error and changes nothing. If NodeConfig.Store was nil, a
// SessionManager whose store can also keeps the node's own state. A manager that
// has no key and needs one gets the node's; one that has another node's is an
// error.
func (n *OWTPNode) SetPeerstore(p Peerstore) error {
	if n.err != nil {
		return n.err
	}
	if p == nil {
		return errors.New("owtp: SetPeerstore: the store is nil")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.used {
		return errors.New("owtp: SetPeerstore after Listen, Connect or PinPeer; call it before")
	}
	if n.closing.Load() {
		return errNodeClosed
	}
	if err := n.giveKeys(p); err != nil {
		return err
	}
	if n.cfg.Store == nil {
		cfg := *n.cfg
		cfg.Peerstore = p
		st, err := newState(&cfg, n.named, n.local.Rand, n.now)
		if err != nil {
			return err
		}
		n.state.close()
		n.state = st
	}
	n.closeOwnStore()
	n.peerstore = p
	return nil
}

// giveKeys gives a session manager that has no key of its own the node's.
func (n *OWTPNode) giveKeys(p Peerstore) error {
	if m, ok := p.(*SessionManager); ok && (m == nil || m.Manager == nil) {
		return errors.New("owtp: the Peerstore is a SessionManager that is nil: NewSessionManager returned an error")
	}
	m, ok := p.(interface {
		UseStoreKey(key, previous []byte) error
	})
	if !ok {
		return nil // it seals or not by itself
	}
	if err := m.UseStoreKey(n.cfg.StoreKey, n.cfg.PreviousStoreKey); err != nil {
		return fmt.Errorf("owtp: the Peerstore does not take the node's StoreKey: %w", err)
	}
	return nil
}

func (n *OWTPNode) closeOwnStore() {
	if n.ownStore != nil {
		n.ownStore.Close()
		n.ownStore = nil
	}
}

// use marks the node as used, which fixes its stores.
func (n *OWTPNode) use() error {
	if n.err != nil {
		return n.err
	}
	if n.closing.Load() {
		return errNodeClosed
	}
	n.mu.Lock()
	first := !n.used
	n.used = true
	n.mu.Unlock()
	if first && n.cfg.PreviousStoreKey != nil {
		n.spawn(n.moveRecords)
	}
	return nil
}

// timeout is how long a call waits unless it says otherwise.
func (n *OWTPNode) timeout() time.Duration { return time.Duration(n.cfg.TimeoutSEC) * time.Second }

// maxRemaining bounds what a caller can make a record or a context last: who
// waits longer than an hour for one answer should ask for it later instead.
const maxRemaining = time.Hour

// remaining is how long the caller of p still waits.
func (n *OWTPNode) remaining(p *wire.Packet) time.Duration {
	if p.Remaining == 0 {
		return n.timeout()
	}
	if p.Remaining > uint64(maxRemaining/time.Millisecond) {
		return maxRemaining
	}
	return time.Duration(p.Remaining) * time.Millisecond
}

// nonce draws 16 random octets.
func (n *OWTPNode) nonce() (wire.Nonce, error) {
	var v wire.Nonce
	if n.local.Rand == rand.Reader {
		_, err := rand.Read(v[:]) // which, unlike a Reader, leaves v where it is
		return v, err
	}
	_, err := io.ReadFull(n.local.Rand, v[:])
	return v, err
}

// anonymousID draws an ID for a peer that has proved nothing. Its colon keeps
// it apart from node IDs.
func (n *OWTPNode) anonymousID() (string, error) {
	v, err := n.nonce()
	return "anon:" + hex.EncodeToString(v[:]), err
}

// spawn runs f on a goroutine that Close waits for, unless the node is closed.
func (n *OWTPNode) spawn(f func()) bool {
	if !n.tasks.begin() {
		return false
	}
	go func() {
		defer n.tasks.end()
		f()
	}()
	return true
}
