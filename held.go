package owtp

import (
	"context"
	"slices"

	"github.com/owtp-go/owtp/identity"
)

// What a process holds of agreed sessions, beside what its store says: bounded,
// and wrong for cacheAge at most where others share the store.

// held returns what is held of a session, or nil.
func (st *state) held(id []byte) *heldSession {
	st.mu.Lock()
	defer st.mu.Unlock()
	h := st.sessions[string(id)]
	if h != nil && st.now().After(h.expires) {
		delete(st.sessions, string(id))
		delete(st.halfOpen, string(id))
		h = nil
	}
	return h
}

// A question is what the store is being asked about a session. One that ends
// meanwhile must not be held for what the store has said before.
type question struct {
	askers int
	ended  bool
}

func (st *state) ask(id []byte) *question {
	st.mu.Lock()
	defer st.mu.Unlock()
	q := st.questions[string(id)]
	if q == nil {
		q = new(question)
		st.questions[string(id)] = q
	}
	q.askers++
	return q
}

func (st *state) answered(id []byte, q *question) {
	st.mu.Lock()
	st.answeredLocked(string(id), q)
	st.mu.Unlock()
}

func (st *state) answeredLocked(id string, q *question) {
	if q.askers--; q.askers == 0 && st.questions[id] == q {
		delete(st.questions, id)
	}
}

// hold keeps what the store has answered. Where there are too many, others make
// room: of those that are half open one by chance, so that a flood pushes out
// itself mostly; of one peer's the oldest.
func (st *state) hold(ctx context.Context, h *heldSession, q *question) {
	id := string(h.ID)
	var out *heldSession
	var over []string
	st.mu.Lock()
	st.answeredLocked(id, q)
	switch {
	case q.ended:
	case h.proved:
		st.sessions[id] = h
		delete(st.halfOpen, id)
		over = st.count(h)
	default:
		st.sessions[id] = h
		out = st.makeRoom(id)
		st.halfOpen[id] = struct{}{}
	}
	st.mu.Unlock()
	if out != nil {
		st.pushOut(ctx, out)
	}
	for _, id := range over {
		st.endSession(ctx, []byte(id))
	}
}

// makeRoom returns who must go for one more, with the lock held.
func (st *state) makeRoom(id string) *heldSession {
	if _, counted := st.halfOpen[id]; counted || len(st.halfOpen) < maxHalfOpen {
		return nil
	}
	for other := range st.halfOpen { // the order is random
		delete(st.halfOpen, other)
		return st.sessions[other]
	}
	return nil
}

// count counts a session of its peer and returns those that are too many, with
// the lock held. What other replicas have confirmed counts once it was used
// here.
func (st *state) count(h *heldSession) (over []string) {
	peer := h.PeerKey.ID()
	mine := slices.DeleteFunc(st.byPeer[peer], func(id string) bool { return st.sessions[id] == nil })
	if !slices.Contains(mine, string(h.ID)) {
		mine = append(mine, string(h.ID))
	}
	slices.SortStableFunc(mine, func(a, b string) int { return st.sessions[a].expires.Compare(st.sessions[b].expires) })
	if len(mine) > st.maxSessions {
		over = slices.Clone(mine[:len(mine)-st.maxSessions])
		mine = mine[len(mine)-st.maxSessions:]
	}
	st.agreed += len(mine) - len(st.byPeer[peer])
	st.byPeer[peer] = mine
	if st.agreed > st.maxAgreed {
		over = append(over, st.crowdedOut(peer)...)
	}
	return over
}

// maxAgreed is the most agreed sessions that are held: about 2 KiB each.
const maxAgreed = 1 << 16

// crowdedOut returns a session that must go because there are too many, with the
// lock held: the oldest of another peer that is not named. Its caller agrees
// anew, and a flood pushes out itself mostly.
func (st *state) crowdedOut(newest identity.ID) []string {
	for peer, ids := range st.byPeer { // the order is random
		if peer == newest || st.named.has(peer.String()) {
			continue
		}
		st.agreed--
		if len(ids) == 1 {
			delete(st.byPeer, peer)
		} else {
			st.byPeer[peer] = slices.Clone(ids[1:])
		}
		return ids[:1]
	}
	return nil
}

func (st *state) dropHeld(id []byte) {
	st.mu.Lock()
	delete(st.sessions, string(id))
	delete(st.halfOpen, string(id))
	if q := st.questions[string(id)]; q != nil {
		q.ended = true
		delete(st.questions, string(id))
	}
	st.mu.Unlock()
}

// sweep forgets what has expired; the store forgets by itself.
func (st *state) sweep() {
	now := st.now()
	st.mu.Lock()
	defer st.mu.Unlock()
	for id, h := range st.sessions {
		if now.After(h.expires) {
			delete(st.sessions, id)
			delete(st.halfOpen, id)
		}
	}
	for peer, ids := range st.byPeer {
		ids = slices.DeleteFunc(ids, func(id string) bool { return st.sessions[id] == nil })
		if len(ids) == 0 {
			delete(st.byPeer, peer)
		} else {
			st.byPeer[peer] = ids
		}
	}
	st.agreed = 0
	for _, ids := range st.byPeer {
		st.agreed += len(ids)
	}
}
