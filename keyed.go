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
	inUse map[wire.Nonce]int // calls under way
}

type keyedCall struct {
	epoch wire.Nonce
	by    *retry    // the only call of this key that was bound, as long as it lasts; nil if there were others
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

// enter counts a call of a key until leave.
func (k *keyedCalls) enter(key wire.Nonce, t *retry) (leave func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inUse == nil {
		k.inUse = make(map[wire.Nonce]int)
	}
	k.inUse[key]++
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if c, ok := k.byKey[key]; ok && c.by == t {
			c.by = nil
			k.byKey[key] = c
		}
		if k.inUse[key]--; k.inUse[key] == 0 {
			delete(k.inUse, key)
		}
	}
}

// unsent forgets the epoch of a key whose attempts were all refused, under proof,
// or not sent, and reports whether that is right: they were all one call's.
func (k *keyedCalls) unsent(key wire.Nonce, by *retry) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inUse[key] > 1 || k.byKey[key].by != by {
		return false
	}
	delete(k.byKey, key)
	return true
}

// bind remembers the epoch that a call of a key is about to be sent in, and by
// whom, and returns the epoch that the key belongs to: of two calls at one time
// that have met different replicas, the second is told that of the first.
func (k *keyedCalls) bind(key, epoch wire.Nonce, life time.Duration, by *retry) wire.Nonce {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if c, ok := k.byKey[key]; ok && now.Before(c.until) {
		if c.by != by {
			c.by = nil
			k.byKey[key] = c
		}
		return c.epoch
	}
	if k.byKey == nil {
		k.byKey = make(map[wire.Nonce]keyedCall)
	}
	k.byKey[key] = keyedCall{epoch, by, now.Add(life)}
	return epoch
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
