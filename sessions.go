package owtp

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
)

// A heldSession is a responder's agreed session, read from the store once and
// believed until it ends or, where others share the store, for cacheAge.
type heldSession struct {
	*secure.Session
	retires []byte
	expires time.Time
	read    time.Time

	mu sync.Mutex // orders confirmations; the rest does not change
}

var (
	errUnknownSession = errors.New("unknown session")
)

// newSessionID draws an ID that the vault recognises.
func (st *state) newSessionID() ([]byte, error) { return st.vault.NewSessionID(st.rand) }

func (st *state) sessionKey(id []byte) string { return st.base + "session/" + hex.EncodeToString(id) }

// maxHalfOpen is the most sessions whose initiator is not proved yet: about
// 1 KiB each, for the handshake's timeout.
const maxHalfOpen = 4096

// addSession stores a session that is half open. It lives for the handshake's
// timeout only, until confirmSession. Where there are too many, one of the
// others makes room by chance: a flood pushes out itself mostly.
func (st *state) addSession(ctx context.Context, s *secure.Session, retires []byte, life time.Duration) error {
	var out string
	st.mu.Lock()
	if len(st.halfOpen) >= maxHalfOpen {
		for id := range st.halfOpen { // the order is random
			out = id
			break
		}
		delete(st.halfOpen, out)
	}
	st.halfOpen[string(s.ID)] = struct{}{}
	st.mu.Unlock()
	if out != "" && !st.confirmedElsewhere(ctx, []byte(out)) {
		st.endSession(ctx, []byte(out))
	}
	return st.writeSession(ctx, &heldSession{Session: s, retires: retires, expires: st.now().Add(life)}, life)
}

// confirmedElsewhere reports whether another replica has seen the initiator's
// finish of a session that is half open here.
func (st *state) confirmedElsewhere(ctx context.Context, id []byte) bool {
	if !st.store.Traits().Shared {
		return false
	}
	got, err := st.get(ctx, purposeSession, st.sessionKey(id))
	if err != nil {
		return false
	}
	defer clear(got.value)
	rec, err := wire.ParseSessionRecord(got.value)
	return err == nil && rec.InitiatorMAC == nil
}

func (st *state) writeSession(ctx context.Context, h *heldSession, life time.Duration) error {
	rec := h.Record()
	rec.Expires = uint64(h.expires.UnixMilli())
	rec.Retires = h.retires
	plain := rec.Append(nil)
	defer clear(plain)
	key := st.sessionKey(h.ID)
	sealed, err := st.vault.Seal(st.rand, purposeSession, key, plain)
	if err != nil {
		return err
	}
	if err := st.store.Put(ctx, key, sealed, life); err != nil {
		return err
	}
	h.read = st.now()
	st.mu.Lock()
	st.sessions[string(h.ID)] = h
	st.mu.Unlock()
	return nil
}

// session finds the session of that ID.
func (st *state) session(ctx context.Context, own identity.ID, id []byte) (*heldSession, error) {
	if !st.vault.CheckSessionID(id) {
		return nil, errUnknownSession
	}
	now := st.now()
	st.mu.Lock()
	h := st.sessions[string(id)]
	if h != nil && now.After(h.expires) {
		delete(st.sessions, string(id))
		delete(st.halfOpen, string(id))
		h = nil
	}
	st.mu.Unlock()
	if h != nil && (!st.store.Traits().Shared || now.Sub(h.read) < cacheAge) {
		return h, nil
	}
	got, err := st.get(ctx, purposeSession, st.sessionKey(id))
	if errors.Is(err, session.ErrNotFound) {
		st.dropHeld(id)
		return nil, errUnknownSession
	}
	if err != nil {
		return nil, err
	}
	defer clear(got.value)
	rec, err := wire.ParseSessionRecord(got.value)
	if err != nil {
		return nil, err
	}
	s, err := secure.Restore(slices.Clone(id), own, rec)
	if err != nil {
		return nil, err
	}
	h = &heldSession{Session: s, retires: slices.Clone(rec.Retires), expires: time.UnixMilli(int64(rec.Expires)), read: now}
	if now.After(h.expires) {
		return nil, errUnknownSession
	}
	st.mu.Lock()
	st.sessions[string(id)] = h
	st.mu.Unlock()
	return h, nil
}

// confirm verifies the initiator's finish, once. Then it stores the session for
// its whole life, ends the one that it takes over from, and the peer's oldest
// if it has too many.
func (st *state) confirm(ctx context.Context, h *heldSession, finish []byte, life time.Duration, most int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Confirmed {
		return nil
	}
	if err := h.Confirm(finish); err != nil {
		// Whoever sealed this knows the keys and still cannot prove who it
		// is: one try is all it gets.
		st.endSession(ctx, h.ID)
		return err
	}
	// A new value, since others may be reading the old one.
	c := &heldSession{Session: h.Session, expires: st.now().Add(life)}
	if err := st.writeSession(ctx, c, life); err != nil {
		return err
	}
	peer := h.PeerKey.ID()
	var over []string
	st.mu.Lock()
	delete(st.halfOpen, string(h.ID))
	mine := append(st.byPeer[peer], string(h.ID))
	mine = slices.DeleteFunc(mine, func(id string) bool { return st.sessions[id] == nil })
	if len(mine) > most {
		over = slices.Clone(mine[:len(mine)-most])
		mine = mine[len(mine)-most:]
	}
	st.byPeer[peer] = mine
	st.mu.Unlock()
	for _, id := range over {
		st.endSession(ctx, []byte(id))
	}
	if h.retires != nil {
		st.retire(ctx, h)
	}
	return nil
}

// retire ends the session that h takes over from, if it is the same peer's. It
// still answers what it has received: whoever holds it goes on holding it.
func (st *state) retire(ctx context.Context, h *heldSession) {
	st.mu.Lock()
	old := st.sessions[string(h.retires)]
	st.mu.Unlock()
	if old != nil && old.PeerKey.Equal(h.PeerKey) {
		st.endSession(ctx, h.retires)
	}
}

func (st *state) endSession(ctx context.Context, id []byte) {
	st.dropHeld(id)
	st.store.Delete(ctx, st.sessionKey(id))
}

func (st *state) dropHeld(id []byte) {
	st.mu.Lock()
	delete(st.sessions, string(id))
	delete(st.halfOpen, string(id))
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
}
