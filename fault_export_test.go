package owtp

import (
	"context"
	"crypto/rand"
	"errors"
	"runtime"
	"strconv"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
)

// What the tests of faults need to see, or to move, inside a node.

const (
	RecordLease       = lease
	MaxKeptReply      = maxKeptReply
	MaxWaitersPerPeer = maxWaitersPerPeer
	MaxHalfOpen       = maxHalfOpen
	ProofAge          = proofAge
	ReplicaAge        = replicaAge
	ClockSlack        = clockSlack
	OrphanPatience    = orphanPatience
	MaxCallers        = maxCallers
)

// NewAt is New with a clock of the test's.
func NewAt(cfg NodeConfig, now func() time.Time) (*OWTPNode, error) {
	cfg, err := cfg.withDefaults(runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, err
	}
	return newNode(cfg, rand.Reader, now)
}

// AgeProofs makes all proofs that this caller has got older.
func (n *OWTPNode) AgeProofs(by time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.remotes {
		r.mu.Lock()
		r.proof.at = r.proof.at.Add(-by)
		r.mu.Unlock()
	}
}

// ProofIsStale reports whether the next call to a peer asks for a proof first.
func (n *OWTPNode) ProofIsStale(name string) bool {
	return !n.remoteOf(name).provedWithin(ProofAge)
}

// AgeSessions makes this caller agree anew before its next calls.
func (n *OWTPNode) AgeSessions() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.remotes {
		r.mu.Lock()
		if r.session != nil {
			r.session.renew = time.Now()
		}
		r.mu.Unlock()
	}
}

// Waiting is how many further attempts wait for calls that run here.
func (n *OWTPNode) Waiting() int {
	n.claims.waiters.mu.Lock()
	defer n.claims.waiters.mu.Unlock()
	return n.claims.waiters.inUse.n
}

// RenewLeases does what the sweep does in its time.
func (n *OWTPNode) RenewLeases() { n.tendCalls() }

// Postponed is how much of calls the store could not be told yet.
func (n *OWTPNode) Postponed() int {
	n.claims.mu.Lock()
	defer n.claims.mu.Unlock()
	return len(n.claims.later)
}

// RefuseAll makes the node refuse requests, as Shutdown does, and go on.
func (n *OWTPNode) RefuseAll() { n.closing.Store(true) }

// StoreEpoch is the epoch that the node tells its callers now.
func (n *OWTPNode) StoreEpoch(ctx context.Context) ([16]byte, error) { return n.state.epoch(ctx) }

// Held counts what strangers and peers make a node remember.
func (n *OWTPNode) Held() (links, halfOpen, sessions, requests int) {
	n.mu.Lock()
	links = len(n.links)
	n.mu.Unlock()
	n.state.mu.Lock()
	halfOpen, sessions = len(n.state.halfOpen), len(n.state.sessions)
	n.state.mu.Unlock()
	n.running.mu.Lock()
	defer n.running.mu.Unlock()
	return links, halfOpen, sessions, n.running.inUse.n
}

// ForgetSessions ends all agreed sessions on the server's side.
func (n *OWTPNode) ForgetSessions() {
	n.state.mu.Lock()
	var all []string
	for id := range n.state.sessions {
		all = append(all, id)
	}
	n.state.mu.Unlock()
	for _, id := range all {
		n.state.endSession(context.Background(), []byte(id))
	}
}

// FloodHalfOpen stores so many half-open sessions, as hellos over HTTP do, all
// made from one handshake because what counts is their number.
func (n *OWTPNode) FloodHalfOpen(count int) error {
	key, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	local := secure.Local{Key: key, Rand: rand.Reader}
	_, hello, err := secure.Start(local, secure.Offer{Transport: 1, Mode: wire.ModeSealed, Epoch: wire.Nonce{1}, Suites: []*secure.Suite{secure.SM4}})
	if err != nil {
		return err
	}
	_, body, err := wire.ParseHeader(hello)
	if err != nil {
		return err
	}
	h, err := wire.ParseHello(body)
	if err != nil {
		return err
	}
	id, err := n.state.newSessionID()
	if err != nil {
		return err
	}
	_, s, err := secure.Respond(n.local, h, body, secure.Reply{Session: id, Lifetime: 1000, Epoch: wire.Nonce{2}, Suites: secure.Suites()})
	if err != nil {
		return err
	}
	for range count {
		one := *s
		if one.ID, err = n.state.newSessionID(); err != nil {
			return err
		}
		if err := n.state.addSession(context.Background(), &one, nil, time.Minute); err != nil {
			return err
		}
	}
	return nil
}

// SessionSecrets are the traffic secrets of all sessions over HTTP that a node
// holds, as caller and as server.
func (n *OWTPNode) SessionSecrets() (secrets [][]byte) {
	add := func(s *secure.Session) {
		r := s.Record()
		secrets = append(secrets, append([]byte(nil), r.Send...), append([]byte(nil), r.Receive...))
	}
	n.mu.Lock()
	for _, r := range n.remotes {
		r.mu.Lock()
		if r.session != nil {
			add(r.session.Session)
		}
		r.mu.Unlock()
	}
	n.mu.Unlock()
	n.state.mu.Lock()
	defer n.state.mu.Unlock()
	for _, h := range n.state.sessions {
		add(h.Session)
	}
	return secrets
}

// ReplaceLinks makes a new connection in place of each that this node dialled.
func (n *OWTPNode) ReplaceLinks() (err error) {
	n.mu.Lock()
	links := n.allLinks()
	n.mu.Unlock()
	for _, l := range links {
		if l.remote != nil {
			err = errors.Join(err, l.remote.swap(l))
		}
	}
	return err
}

// AskForRenewal sends the question for a new connection on all that were
// accepted, also where it comes too late.
func (n *OWTPNode) AskForRenewal() {
	n.mu.Lock()
	links := n.allLinks()
	n.mu.Unlock()
	for _, l := range links {
		if l.remote == nil {
			l.renewing.Store(true)
			l.control(&wire.Packet{Kind: wire.GoingAway, Reason: wire.ReasonRenew})
		}
	}
}

// SetRooms makes what peers share small: call records, octets of kept answers,
// and attempts that wait.
func (n *OWTPNode) SetRooms(records, replies, waiters int) {
	n.state.callRoom = records
	n.claims.mu.Lock()
	n.claims.room = replies
	n.claims.mu.Unlock()
	n.claims.waiters.mu.Lock()
	n.claims.waiters.most = waiters
	n.claims.waiters.mu.Unlock()
}

// Taken is what peers have of what they share.
func (n *OWTPNode) Taken() (records, replies, waiters, requests, octets int) {
	n.claims.sweep(n.now())
	n.claims.mu.Lock()
	records, replies = n.claims.records.all.total, n.claims.replies.all.total
	n.claims.mu.Unlock()
	n.running.mu.Lock()
	requests, octets = n.running.inUse.n, n.running.inUse.octets
	n.running.mu.Unlock()
	return records, replies, n.Waiting(), requests, octets
}

// SetMaxAgreed makes the bound of agreed sessions small, and Agreed counts them.
func (n *OWTPNode) SetMaxAgreed(most int) {
	n.state.mu.Lock()
	defer n.state.mu.Unlock()
	n.state.maxAgreed = most
}

func (n *OWTPNode) Agreed() int {
	n.state.mu.Lock()
	defer n.state.mu.Unlock()
	return n.state.agreed
}

// Named reports whether a peer has a share of the named ones.
func (n *OWTPNode) Named(peerID string) bool { return n.named.has(peerID) }

// Err is why the node has ended, or nil.
func (n *OWTPNode) Err() error { return context.Cause(n.ctx) }

// Leaving is how many peers are gone whose close handlers have not returned.
func (n *OWTPNode) Leaving() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.leaving)
}

// Remotes is how many peers are connected by name.
func (n *OWTPNode) Remotes() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.remotes)
}

// ListenerAddrs are the addresses of all listeners.
func (n *OWTPNode) ListenerAddrs() (addrs []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.listeners {
		addrs = append(addrs, l.tl.Addr().String())
	}
	return addrs
}

// Callers is the number of peers that can be called back over message queues, or
// could be before they were closed.
func (n *OWTPNode) Callers() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.callers)
}

// FillCallers makes it as large as it may get, by peers that are not there.
func (n *OWTPNode) FillCallers() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := len(n.callers); i < maxCallers; i++ {
		n.callers[strconv.Itoa(i)] = &caller{seen: time.Now()}
	}
}
