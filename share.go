package owtp

import "time"

// A share counts what somebody has taken of something that comes back by
// itself when its time is over. It remembers the ends in steps, so that it
// stays small however much is taken. It is not safe for concurrent use.
type share struct {
	ends  map[int64]int
	total int
}

const shareStep = 8 * time.Second

func newShare() *share { return &share{ends: make(map[int64]int)} }

func shareSlot(end time.Time) int64 { return end.UnixNano() / int64(shareStep) }

// add takes n until end, unless that is more than most in all.
func (s *share) add(n int, now, end time.Time, most int) bool {
	if s.total+n > most {
		s.prune(now)
	}
	if s.total+n > most {
		return false
	}
	s.ends[shareSlot(end)] += n
	s.total += n
	return true
}

// remove gives n back before its end.
func (s *share) remove(n int, end time.Time) {
	if slot := shareSlot(end); s.ends[slot] >= n {
		s.ends[slot] -= n
		s.total -= n
	}
}

func (s *share) prune(now time.Time) {
	past := shareSlot(now)
	for slot, n := range s.ends {
		if slot < past {
			s.total -= n
			delete(s.ends, slot)
		}
	}
}
