package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// ErrEnded says that the session which this [Session] had seen was destroyed or
// has expired in the meantime, and that nothing was written.
var ErrEnded = errors.New("session: the session has ended meanwhile")

// A Session is one request's view of one peer's session. [Manager.Session]
// makes it without asking the store; it is safe for concurrent use and needs
// no closing.
//
// It belongs to the session that it sees first: from then on, reads find
// nothing in another session of the same peer, and writes into another one, or
// where there is none any more, fail with [ErrEnded] and store nothing. So a
// request that began when a user was logged in cannot bring the session back
// after the user has logged out, however late it writes. A view that has not
// seen a session yet joins the one that is there, and Set creates one where
// there is none. Destroy ends the view's tie, too: a later Set through it may
// create a new session.
//
// Take one for each request, and another for the next one. If a method returns
// an error that is none of this package's, the store could not answer, and a
// change may or may not have been made.
type Session struct {
	m   *Manager
	id  string
	key string
	err error // of the ID; every method returns it

	mu   sync.Mutex
	seen uint64 // birth mark of the session that the view belongs to; 0 is none yet
}

// ID returns the ID that the view was made for.
func (s *Session) ID() string { return s.id }

// Get returns a field's value, or [ErrNotFound] where there is no session or no
// such field. The value is the caller's own. It has the type that was stored;
// a type that is not registered in this program is [ErrUnstorable]. Reading
// keeps the session alive.
func (s *Session) Get(ctx context.Context, name string) (any, error) {
	if err := s.check(ctx, name); err != nil {
		return nil, err
	}
	rec, stale, err := s.m.read(ctx, s.key)
	if err != nil {
		return nil, err
	}
	l, fields, err := parseLife(rec.Value)
	if err != nil {
		return nil, err
	}
	if s.m.ended(l) || !s.joins(l) {
		return nil, ErrNotFound
	}
	s.m.slide(ctx, s.key, rec, stale, l)
	data, found, err := findField(fields, name)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, ErrNotFound
	}
	return decodeValue(data)
}

// Get returns a field's value as a T. It is [ErrNotFound] where there is no such
// field, and [ErrUnstorable] where the field has another type.
func Get[T any](ctx context.Context, s *Session, name string) (T, error) {
	var zero T
	v, err := s.Get(ctx, name)
	if err != nil {
		return zero, err
	}
	t, ok := v.(T)
	if !ok {
		return zero, fmt.Errorf("%w: field %.80q is a %T, not a %T", ErrUnstorable, name, v, zero)
	}
	return t, nil
}

// Set gives a field a value; [RegisterType] says which there are. Names have up
// to 1024 bytes of any content. It fails with [ErrUnstorable], [ErrTooLarge],
// [ErrFull] or [ErrEnded], and then the session is as before.
func (s *Session) Set(ctx context.Context, name string, v any) error {
	if err := s.check(ctx, name); err != nil {
		return err
	}
	data, err := encodeValue(v, s.m.cfg.MaxSessionBytes)
	if err != nil {
		return err
	}
	return s.change(ctx, true, func(r *record) bool { r.set(name, data); return true })
}

// Delete removes a field. One that is not there is no error, nor is a session
// that has ended.
func (s *Session) Delete(ctx context.Context, name string) error {
	if err := s.check(ctx, name); err != nil {
		return err
	}
	return s.change(ctx, false, func(r *record) bool { return r.remove(name) })
}

// Destroy ends the peer's session, whichever it is: what was seen, or a newer
// one. No session is no error.
func (s *Session) Destroy(ctx context.Context) error {
	if err := s.check(ctx, ""); err != nil {
		return err
	}
	if err := s.m.p.Delete(ctx, s.key); err != nil {
		return err
	}
	s.mu.Lock()
	s.seen = 0
	s.mu.Unlock()
	return nil
}

func (s *Session) check(ctx context.Context, name string) error {
	if s.err != nil {
		return s.err
	}
	if s.m.ctx.Err() != nil {
		return ErrClosed
	}
	if len(name) > maxFieldName {
		return fmt.Errorf("%w: a field's name has %d bytes, at most %d are allowed", ErrKey, len(name), maxFieldName)
	}
	return ctx.Err()
}

// joins reports whether l is the life that this view belongs to, and makes it
// so if the view has none yet.
func (s *Session) joins(l life) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == 0 {
		s.seen = l.birth
	}
	return s.seen == l.birth
}

func (s *Session) joined() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen != 0
}

// change applies edit to the session until a compare-and-swap takes it. edit
// reports false if there is nothing to write. Of the writers that meet, one
// always succeeds, so the loop ends unless ctx does before.
func (s *Session) change(ctx context.Context, create bool, edit func(*record) bool) error {
	for attempt := 0; ; attempt++ {
		done, err := s.try(ctx, create, edit)
		if done || err != nil {
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return err
		}
	}
}

// try makes one attempt; false without an error means that another writer was
// faster.
func (s *Session) try(ctx context.Context, create bool, edit func(*record) bool) (bool, error) {
	rec, stale, err := s.m.read(ctx, s.key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	absent := err != nil
	var r record
	if !absent {
		if r, err = parseRecord(rec.Value); err != nil {
			return false, err
		}
	}
	if absent || s.m.ended(r.life) {
		if !create {
			return true, nil
		}
		if s.joined() {
			return false, ErrEnded
		}
		r = record{life: s.m.newLife()}
		edit(&r)
		return s.write(ctx, r, rec.Version)
	}
	if !s.joins(r.life) {
		if !create {
			return true, nil
		}
		return false, ErrEnded
	}
	if !edit(&r) {
		s.m.slide(ctx, s.key, rec, stale, r.life)
		return true, nil
	}
	return s.write(ctx, r, rec.Version)
}

// write stores r in place of the given version; 0 is that of no record.
func (s *Session) write(ctx context.Context, r record, version uint64) (bool, error) {
	value, err := s.m.seal(s.key, r.encode())
	if err != nil {
		return false, err
	}
	if len(value) > s.m.cfg.MaxSessionBytes {
		return false, fmt.Errorf("%w: the session would have %d bytes, at most %d are allowed", ErrTooLarge, len(value), s.m.cfg.MaxSessionBytes)
	}
	ttl := s.m.ttl(r.life)
	if version == 0 {
		version, err = s.m.p.PutIfAbsent(ctx, s.key, value, ttl)
	} else {
		version, err = s.m.p.CompareAndSwap(ctx, s.key, version, value, ttl)
	}
	if err != nil || version == 0 {
		return false, err
	}
	s.joins(r.life)
	return true, nil
}

// pause lets other writers pass: not at all at first, then for a random time
// that grows to 8 ms, which is a shared store's round trip or two.
func pause(ctx context.Context, attempt int) error {
	if attempt < 2 {
		return ctx.Err()
	}
	longest := time.Millisecond << min(attempt-2, 3)
	t := time.NewTimer(time.Duration(rand.Int64N(int64(longest))))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
