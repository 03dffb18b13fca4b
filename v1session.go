package owtp

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/legacy"
)

// v1Sessions answer the key agreements that version 1 peers begin. What they
// keep for it is the same for one peer and for a million: a secret from which
// the ephemeral key of each agreement is derived, so that a later request opens
// without anything having been stored for its sender, who may be anybody.
//
// A connection has its own secret for its life. That of exchanges is drawn anew
// after half of a session's life, and the one before it is forgotten at its end;
// then nobody can open what was recorded.
type v1Sessions struct {
	key  *identity.PrivateKey
	rand io.Reader
	life time.Duration // of a secret; 0: as long as the connection

	mu     sync.Mutex
	secret v1Secret
	before v1Secret
	kept   *v1Session // of a connection: the last one that a request has opened
	offers bool       // an agreement was answered, and no request has used it yet
	closed bool
	asked  map[[sha256.Size]byte]uint64 // the nonce that keys have begun an agreement with

	// ephemeral, in tests, is what the responder's ephemeral is read from.
	ephemeral func() io.Reader
}

type v1Secret struct {
	octets []byte // nil if there is none
	born   time.Time
}

// maxV1Session bounds what a stolen secret opens, and how long the records that
// keep copies of sealed requests from running must last.
const maxV1Session = time.Hour

const (
	// maxV1Begun is how many keys that have begun an agreement are remembered;
	// then another takes the place of one by chance.
	maxV1Begun = 1 << 16
	// maxV1BegunConn is how many agreements may begin on one connection.
	maxV1BegunConn = 256
)

func (n *OWTPNode) newV1Sessions(key *identity.PrivateKey, ofConnection bool) *v1Sessions {
	v := &v1Sessions{key: key, rand: n.local.Rand, ephemeral: n.v1Ephemeral}
	if !ofConnection {
		v.life = min(n.cfg.Limits.SessionLifetime, maxV1Session)
	}
	return v
}

// A v1Session is an agreed session that several requests may use while somebody
// else ends it.
type v1Session struct {
	refs    int   // guarded by the lock of its v1Sessions
	version int64 // of its packets

	mu sync.RWMutex
	s  *legacy.Session
}

func (s *v1Session) use(f func(*legacy.Session) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return f(s.s)
}

func (s *v1Session) erase() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Erase()
}

// of returns the session that a request belongs to, which is nil if its sender
// has not proved that it knows one, and the session to answer it under. They
// differ where the secret has changed in between: the sender follows. Both are
// given back with release.
func (v *v1Sessions) of(p *legacy.Packet) (request, response *v1Session, err error) {
	k := p.Keys
	secret, before, err := v.secrets()
	if err != nil {
		return nil, nil, err
	}
	defer clear(secret)
	defer clear(before)
	response, err = v.respond(secret, p)
	switch {
	case err != nil:
		return nil, nil, err
	case k.InitiatorCheck == "":
		v.mu.Lock()
		v.offers = true
		v.mu.Unlock()
		return nil, response, nil
	case response.s.IsRequest(k):
		return response, response, nil
	case before == nil:
		return nil, response, nil
	}
	request, err = v.respond(before, p)
	if err != nil {
		response.erase()
		return nil, nil, err
	}
	if !request.s.IsRequest(k) {
		request.erase()
		request = nil
	}
	return request, response, nil
}

// first reports whether keys begin an agreement, and have not done so under
// another nonce. One key and nonce seal the answer to a beginning and that to a
// call, so that who is on the way could otherwise have this node seal a success
// under the number of a call that it never gets.
func (v *v1Sessions) first(p *legacy.Packet) bool {
	keys := sha256.Sum256([]byte(strconv.FormatInt(p.Version, 10) + "\x00" + p.Keys.Initiator + "\x00" + p.Keys.InitiatorEphemeral))
	v.mu.Lock()
	defer v.mu.Unlock()
	if nonce, ok := v.asked[keys]; ok {
		return nonce == p.Nonce // once more, perhaps by a broker: the answer is the same
	}
	switch {
	case v.asked == nil:
		v.asked = make(map[[sha256.Size]byte]uint64)
	case v.life == 0 && len(v.asked) >= maxV1BegunConn:
		return false
	case len(v.asked) >= maxV1Begun:
		for other := range v.asked { // the order is random
			delete(v.asked, other)
			break
		}
	}
	v.asked[keys] = p.Nonce
	return true
}

// known returns the kept session of a connection if the request is of it, in the
// packet version that it was agreed on with.
func (v *v1Sessions) known(p *legacy.Packet) *v1Session {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.kept == nil || v.kept.version != p.Version {
		return nil
	}
	is := false
	v.kept.use(func(s *legacy.Session) error {
		is = s.IsRequest(p.Keys)
		return nil
	})
	if !is {
		return nil
	}
	v.kept.refs++
	return v.kept
}

// secrets returns copies of the secret and of the one before it.
func (v *v1Sessions) secrets() (secret, before []byte, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, nil, errClosedHere
	}
	now := time.Now()
	v.age(now)
	if v.secret.octets == nil {
		drawn := make([]byte, sha256.Size)
		if _, err := io.ReadFull(v.rand, drawn); err != nil {
			return nil, nil, err
		}
		v.secret = v1Secret{drawn, now}
	}
	return bytes.Clone(v.secret.octets), bytes.Clone(v.before.octets), nil
}

// age puts the secret behind after half of its life, and forgets it at the end.
// It is called with the lock held.
func (v *v1Sessions) age(now time.Time) {
	if v.life == 0 {
		return
	}
	if v.secret.octets != nil && now.Sub(v.secret.born) > v.life/2 {
		clear(v.before.octets)
		v.before, v.secret = v.secret, v1Secret{}
	}
	if v.before.octets != nil && now.Sub(v.before.born) > v.life {
		clear(v.before.octets)
		v.before = v1Secret{}
	}
}

// sweep lets secrets end that nobody asks for.
func (v *v1Sessions) sweep(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.age(now)
}

// respond runs the agreement with the ephemeral that belongs to the initiator's
// keys and to the packet version, which nothing else protects: who takes it away
// has an agreement of another key, and never anything of this one's under the key
// that version 0 has for all packets.
func (v *v1Sessions) respond(secret []byte, p *legacy.Packet) (*v1Session, error) {
	k := p.Keys
	var source io.Reader
	if v.ephemeral != nil {
		source = v.ephemeral()
	} else {
		octets, err := hkdf.Expand(sha256.New, secret, "OWTP/1 ephemeral\x00"+strconv.FormatInt(p.Version, 10)+"\x00"+k.Initiator+"\x00"+k.InitiatorEphemeral, 4*identity.PrivateKeySize)
		if err != nil {
			return nil, err
		}
		defer clear(octets)
		source = bytes.NewReader(octets)
	}
	s, err := legacy.Respond(source, v.key, k)
	if err != nil {
		return nil, err
	}
	return &v1Session{s: s, refs: 1, version: p.Version}, nil
}

// keep makes a session that a request has opened the connection's. Calls back
// are made under it.
func (v *v1Sessions) keep(s *v1Session) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.life != 0 || v.closed || v.kept == s {
		return
	}
	v.drop(v.kept)
	s.refs++
	v.kept, v.offers = s, false
}

// begun reports whether the peer has a key that it has not used yet.
func (v *v1Sessions) begun() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.offers
}

// current returns the session of a connection, or nil. It is given back with
// release.
func (v *v1Sessions) current() *v1Session {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.kept != nil {
		v.kept.refs++
	}
	return v.kept
}

// release is told that somebody has no more use for a session.
func (v *v1Sessions) release(s *v1Session) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.drop(s)
}

// drop is called with the lock held.
func (v *v1Sessions) drop(s *v1Session) {
	if s == nil {
		return
	}
	if s.refs--; s.refs == 0 {
		s.erase()
	}
}

// erase forgets everything. Nothing is agreed on afterwards.
func (v *v1Sessions) erase() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.secret.octets)
	clear(v.before.octets)
	v.secret, v.before, v.asked, v.closed = v1Secret{}, v1Secret{}, nil, true
	if v.kept != nil {
		v.kept.erase()
		v.kept = nil
	}
}
