package owtp

import (
	"sync"

	"github.com/owtp-go/owtp/identity"
)

// named are the peers that the program's configuration knows by their ID:
// AllowPeers of a listener, and who must answer a Connect, which is the name,
// PeerID, or what the alias was bound to before; and the pins of PinPeer. Of
// what proved peers share, a quarter is left to them: anybody can make keys and
// prove them, ten thousand as well as one. An alias that is bound at first
// contact counts from the next Connect on, when somebody could have looked.
type named struct {
	mu   sync.RWMutex
	of   map[string]int // by node ID: in how many places
	pins map[string]identity.ID
}

func newNamed() *named {
	return &named{of: make(map[string]int), pins: make(map[string]identity.ID)}
}

func (s *named) has(peerID string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.of[peerID] > 0
}

// some reports whether there is anybody to leave something to.
func (s *named) some() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.of) > 0
}

func (s *named) add(ids ...identity.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.addLocked(id)
	}
}

func (s *named) addLocked(id identity.ID) {
	if !id.IsZero() {
		s.of[id.String()]++
	}
}

// addText is add for IDs that are no node IDs: those of version 1 peers.
func (s *named) addText(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.of[id]++
	}
}

func (s *named) removeText(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.takeLocked(id)
	}
}

func (s *named) remove(ids ...identity.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.removeLocked(id)
	}
}

func (s *named) removeLocked(id identity.ID) {
	if !id.IsZero() {
		s.takeLocked(id.String())
	}
}

func (s *named) takeLocked(name string) {
	if s.of[name] > 1 {
		s.of[name]--
	} else {
		delete(s.of, name)
	}
}

// pin names a peer until the alias is forgotten.
func (s *named) pin(alias string, id identity.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pins[alias] == id {
		return
	}
	s.removeLocked(s.pins[alias])
	s.pins[alias] = id
	s.addLocked(id)
}

func (s *named) unpin(alias string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(s.pins[alias])
	delete(s.pins, alias)
}

// part is what peers that are not named may take of so much, all together.
func (s *named) part(all int) int {
	if s.some() {
		return all - all/4
	}
	return all
}
