package owtp

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
)

// A heldSession is a responder's agreed session, read from the store once and
// believed until it ends. Where others share the store it is believed for
// cacheAge, and while it is half open not at all: another replica may have seen
// the initiator's finish by now.
type heldSession struct {
	*secure.Session
	retires []byte
	expires time.Time
	read    time.Time
	version uint64
	proved  bool // so says the store; Session.Confirmed may be ahead of it

	mu        sync.Mutex   // orders confirmations; the rest does not change
	confirmed *heldSession // what took its place
}

var errUnknownSession = errors.New("unknown session")

// newSessionID draws an ID that the vault recognises.
func (st *state) newSessionID() ([]byte, error) { return st.vault.NewSessionID(st.rand) }

func (st *state) sessionKey(id []byte) string { return st.base + "session/" + hex.EncodeToString(id) }

// maxHalfOpen is the most sessions whose initiator is not proved yet: about
// 1 KiB each, for the handshake's timeout.
const maxHalfOpen = 4096

// addSession stores a session that is half open. It lives for the handshake's
// timeout only, until it is confirmed.
func (st *state) addSession(ctx context.Context, s *secure.Session, retires []byte, life time.Duration) error {
	h := &heldSession{Session: s, retires: retires, expires: st.now().Add(life)}
	version, err := st.writeSession(ctx, h, 0, life)
	if err != nil {
		return err
	}
	if version == 0 {
		return fmt.Errorf("%w: its ID is taken", secure.ErrRecord)
	}
	h.version, h.read = version, st.now()
	st.hold(ctx, h, new(question)) // nobody knows it yet, nobody can have ended it
	return nil
}

// writeSession stores a session in place of the given version; 0 is that of no
// record. It returns the new version, or 0 if somebody else was quicker.
func (st *state) writeSession(ctx context.Context, h *heldSession, version uint64, life time.Duration) (uint64, error) {
	rec := h.Record()
	rec.Expires = uint64(h.expires.UnixMilli())
	rec.Retires = h.retires
	plain := rec.Append(nil)
	defer clear(plain)
	if version == 0 {
		return st.insert(ctx, purposeSession, st.sessionKey(h.ID), plain, life)
	}
	return st.swap(ctx, purposeSession, st.sessionKey(h.ID), version, plain, life)
}

// session finds the session of that ID.
func (st *state) session(ctx context.Context, id []byte) (*heldSession, error) {
	if !st.vault.CheckSessionID(id) {
		return nil, errUnknownSession
	}
	h := st.held(id)
	if h != nil && (!st.shared || h.proved && st.now().Sub(h.read) < cacheAge) {
		return h, nil
	}
	q := st.ask(id)
	h, err := st.readSession(ctx, id)
	if err != nil {
		st.answered(id, q)
		if errors.Is(err, errUnknownSession) {
			st.dropHeld(id)
		}
		return nil, err
	}
	st.hold(ctx, h, q)
	return h, nil
}

// readSession asks the store, whatever is held.
func (st *state) readSession(ctx context.Context, id []byte) (*heldSession, error) {
	now := st.now()
	got, err := st.get(ctx, purposeSession, st.sessionKey(id))
	if errors.Is(err, session.ErrNotFound) || err == nil && len(got.value) == 0 { // see pushOut
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
	s, err := secure.Restore(slices.Clone(id), st.own, rec)
	if err != nil {
		return nil, err
	}
	h := &heldSession{
		Session: s, retires: slices.Clone(rec.Retires), expires: time.UnixMilli(int64(rec.Expires)),
		read: now, version: got.version, proved: s.Confirmed,
	}
	if now.After(h.expires) {
		return nil, errUnknownSession
	}
	return h, nil
}

// confirm verifies the initiator's finish, once. Then it stores the session for
// its whole life and ends the one that it takes over from. The store takes a
// confirmation only in place of what was read of it, so that a session which
// another replica has ended meanwhile stays dead.
func (st *state) confirm(ctx context.Context, h *heldSession, finish []byte, life time.Duration) (*heldSession, error) {
	if h.proved {
		return h, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.confirmed != nil {
		return h.confirmed, nil
	}
	if err := h.Confirm(finish); err != nil {
		// Whoever sealed this knows the keys and still cannot prove who it
		// is: one try is all it gets.
		st.pushOut(ctx, h)
		return nil, err
	}
	// A new value, since others may be reading the old one.
	c := &heldSession{Session: h.Session, expires: st.now().Add(life), read: st.now(), proved: true}
	q := st.ask(h.ID)
	var err error
	if c.version, err = st.writeSession(ctx, c, h.version, life); err == nil && c.version == 0 {
		// Another replica has confirmed it, or ended it, or this one has
		// confirmed it and never heard of that.
		if c, err = st.readSession(ctx, h.ID); err == nil && !c.proved {
			err = errUnknownSession
		}
	}
	if err != nil {
		st.answered(h.ID, q)
		return nil, err
	}
	st.hold(ctx, c, q)
	h.confirmed = c
	if h.retires != nil {
		st.retire(ctx, h)
	}
	return c, nil
}

// retire ends the session that h takes over from, whichever replica made it, if
// it is the same peer's. It still answers what it has received: whoever holds it
// goes on holding it.
func (st *state) retire(ctx context.Context, h *heldSession) {
	if !st.vault.CheckSessionID(h.retires) {
		return
	}
	if old, err := st.readSession(ctx, h.retires); err == nil && old.PeerKey.Equal(h.PeerKey) {
		st.endSession(ctx, h.retires)
	}
}

// endSession makes a session unknown here at once, and to other replicas within
// cacheAge.
func (st *state) endSession(ctx context.Context, id []byte) {
	st.store.Delete(context.WithoutCancel(ctx), st.sessionKey(id))
	st.dropHeld(id)
}

// pushOut ends a session that is half open, unless another replica has seen its
// initiator's finish. Stores cannot delete by version, so that nothing takes its
// place for a moment.
func (st *state) pushOut(ctx context.Context, h *heldSession) {
	st.swap(context.WithoutCancel(ctx), purposeSession, st.sessionKey(h.ID), h.version, nil, time.Millisecond)
	st.dropHeld(h.ID)
}
