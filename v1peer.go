package owtp

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
)

// v1Prefix begins the ID of a peer that is known by version 1, in sessions,
// records, aliases and Context.PID: its proof is worth less than version 2's.
const v1Prefix = "v1:"

// v1ID is the peer ID of a key that was proved by version 1.
func v1ID(id identity.ID) string { return v1Prefix + id.String() }

// v1Nonces are the numbers of requests in version 1, which are keys to the data
// as well (V1-WIRE §5). None comes twice, whatever the random source does, and
// nobody can foresee one and use it up at a peer: 36 bits count and 27 are random.
type v1Nonces struct {
	mu    sync.Mutex
	count uint64 // how many were drawn
}

const (
	v1Random    = 27
	maxV1Nonces = 1<<(63-v1Random) - 1
)

var errV1Nonces = errors.New("owtp: this node has made as many calls in version 1 as there are nonces; restart it")

// next returns a number from 1 to 2^63-1.
func (s *v1Nonces) next(rand io.Reader) (uint64, error) {
	var low [4]byte
	if _, err := io.ReadFull(rand, low[:]); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count >= maxV1Nonces {
		return 0, errV1Nonces
	}
	s.count++
	return s.count<<v1Random | uint64(binary.BigEndian.Uint32(low[:]))>>(32-v1Random), nil
}

// v1Nonce draws the nonce of a request in version 1.
func (n *OWTPNode) v1Nonce() (uint64, error) {
	if n.v1Numbers != nil {
		return n.v1Numbers(), nil
	}
	return n.v1nonces.next(n.local.Rand)
}

// v1Key is a nonce of version 1 where those of version 2 are kept.
func v1Key(nonce uint64) (key wire.Nonce) {
	binary.BigEndian.PutUint64(key[len(key)-8:], nonce)
	return key
}
