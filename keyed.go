package owtp

import (
	"sync"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
)

// keyedCalls remembers in which epoch of the peer a call with a key of the
// caller's was first sent. All attempts of one call belong to one epoch
// (PROTOCOL §8), also those that the program makes in a call of its own after
// an error: a peer that has lost its memory in between would run it again.
type keyedCalls struct {
	mu    sync.Mutex
	byKey map[wire.Nonce]keyedCall
}

type keyedCall struct {
	epoch wire.Nonce
	until time.Time // the peer forgets the call then, too
}

// maxKeyedCalls bounds them: 64 bytes each. More than that many keys in use at
// one time are refused before anything is sent.
const maxKeyedCalls = 1 << 16

// first returns the epoch of the key's first attempt, or the zero epoch.
func (k *keyedCalls) first(key wire.Nonce) (wire.Nonce, error) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.byKey[key]; ok && now.Before(c.until) {
		return c.epoch, nil
	}
	if len(k.byKey) >= maxKeyedCalls {
		for old, c := range k.byKey {
			if !now.Before(c.until) {
				delete(k.byKey, old)
			}
		}
	}
	if len(k.byKey) >= maxKeyedCalls {
		return wire.Nonce{}, newError(ErrTooManyRequests, "%d call keys are in use towards one peer already", len(k.byKey))
	}
	return wire.Nonce{}, nil
}

// sent remembers the epoch of the key's first attempt.
func (k *keyedCalls) sent(key, epoch wire.Nonce, life time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if c, ok := k.byKey[key]; ok && now.Before(c.until) {
		return
	}
	if k.byKey == nil {
		k.byKey = make(map[wire.Nonce]keyedCall)
	}
	k.byKey[key] = keyedCall{epoch, now.Add(life)}
}

// recordLife is how long the record of a call is kept.
func (n *OWTPNode) recordLife(p *wire.Packet) time.Duration { return n.remaining(p) + n.replayable() }

// replayable is how long a packet can be fresh after another clock has found it
// so: from one edge of the window to the other, and as much longer as clocks may
// be wrong. Where replicas share the store, each judges by a clock of its own.
func (n *OWTPNode) replayable() time.Duration {
	d := 2*n.cfg.Window + clockSlack
	if n.state.shared {
		d += n.cfg.Window
	}
	return d
}
