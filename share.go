package owtp

import "time"

// shares count what peers have taken of something that comes back by itself
// when its time is over. They are not safe for concurrent use.
type shares struct {
	all, others *share // others: of peers that are not named
	by          map[string]*share
}

// bounds are the most that all peers may have, those that are not named, and
// one.
type bounds struct{ all, others, one int }

// A slot is whose something is, and until when.
type slot struct {
	peerID string
	named  bool // when it was taken
	end    time.Time
}

func newShares() *shares {
	return &shares{all: newShare(), others: newShare(), by: make(map[string]*share)}
}

// add takes n, unless that is more than one of the bounds.
func (s *shares) add(at slot, n int, now time.Time, b bounds) bool {
	one := s.by[at.peerID]
	if one == nil {
		one = newShare()
	}
	if !one.fits(n, now, b.one) || !s.all.fits(n, now, b.all) || !at.named && !s.others.fits(n, now, b.others) {
		return false
	}
	s.by[at.peerID] = one
	one.add(n, at.end)
	s.all.add(n, at.end)
	if !at.named {
		s.others.add(n, at.end)
	}
	return true
}

// remove gives n back before its end.
func (s *shares) remove(at slot, n int) {
	one := s.by[at.peerID]
	if one == nil || !one.remove(n, at.end) {
		return // its end has come
	}
	s.all.remove(n, at.end)
	if !at.named {
		s.others.remove(n, at.end)
	}
	if one.total == 0 {
		delete(s.by, at.peerID)
	}
}

func (s *shares) prune(now time.Time) {
	s.all.prune(now)
	s.others.prune(now)
	for peer, one := range s.by {
		if one.prune(now); one.total == 0 {
			delete(s.by, peer)
		}
	}
}

// A share remembers the ends of what was taken in steps, so that it stays small
// however much that is.
type share struct {
	ends  map[int64]int
	total int
}

const shareStep = 8 * time.Second

func newShare() *share { return &share{ends: make(map[int64]int)} }

func shareStepOf(t time.Time) int64 { return t.UnixNano() / int64(shareStep) }

// fits reports whether n more are at most most.
func (s *share) fits(n int, now time.Time, most int) bool {
	if s.total+n > most {
		s.prune(now)
	}
	return s.total+n <= most
}

func (s *share) add(n int, end time.Time) {
	s.ends[shareStepOf(end)] += n
	s.total += n
}

func (s *share) remove(n int, end time.Time) bool {
	step := shareStepOf(end)
	if s.ends[step] < n {
		return false
	}
	s.ends[step] -= n
	s.total -= n
	return true
}

func (s *share) prune(now time.Time) {
	past := shareStepOf(now)
	for step, n := range s.ends {
		if step < past {
			s.total -= n
			delete(s.ends, step)
		}
	}
}
