package wire

import (
	"bytes"
	"hash/maphash"
)

// jsonSpan says where the n octets of a name are: in b, or among the rewritten
// names of the scanner if the top bit of from is set.
type jsonSpan struct{ from, n uint32 }

const jsonRewritten = 1 << 31

func (s *jsonScanner) rewrite(raw []byte, fold bool) jsonSpan {
	if len(raw) <= len(s.fixed)-s.nfixed {
		from := s.nfixed
		n := len(appendUnescaped(s.fixed[from:from], raw, fold))
		s.nfixed += n
		return jsonSpan{uint32(from) | jsonRewritten, uint32(n)}
	}
	from := len(s.over)
	s.over = appendUnescaped(s.over, raw, fold)
	return jsonSpan{uint32(len(s.fixed)+from) | jsonRewritten, uint32(len(s.over) - from)}
}

func (s *jsonScanner) text(sp jsonSpan) []byte {
	if sp.from&jsonRewritten == 0 {
		return s.b[sp.from : sp.from+sp.n]
	}
	from, n := int(sp.from&^jsonRewritten), int(sp.n)
	if from < len(s.fixed) { // a rewritten name is never empty
		return s.fixed[from : from+n]
	}
	from -= len(s.fixed)
	return s.over[from : from+n]
}

// jsonFew is the number of names that are compared one by one.
const jsonFew = 16

// jsonFrame holds the names of an object that is being read.
type jsonFrame struct {
	n      int
	fold   bool
	nfixed int // state of the scanner's rewritten names before this object
	nover  int
	few    [jsonFew]jsonSpan
	table  *jsonTable // all names, once there are more than few
}

func (f *jsonFrame) init(s *jsonScanner, depth int) {
	f.fold = depth > s.foldFloor
	f.nfixed, f.nover = s.nfixed, len(s.over)
}

// leave forgets the names.
func (f *jsonFrame) leave(s *jsonScanner) {
	s.nfixed, s.over = f.nfixed, s.over[:f.nover]
	if f.table != nil {
		s.spare = f.table
	}
}

// add notes a name and reports whether it is new.
func (f *jsonFrame) add(s *jsonScanner, sp jsonSpan) bool {
	if f.table == nil {
		name := s.text(sp)
		for _, old := range f.few[:f.n] {
			if old.n == sp.n && bytes.Equal(s.text(old), name) {
				return false
			}
		}
		if f.n < len(f.few) {
			f.few[f.n] = sp
			f.n++
			return true
		}
		if f.table = s.spare; f.table == nil {
			f.table = new(jsonTable)
		}
		s.spare = nil
		f.table.reset()
		for _, old := range f.few {
			f.table.add(s, old)
		}
	}
	f.n++
	return f.table.add(s, sp)
}

// jsonTable is an open-addressed hash table of names. Its seed is drawn anew
// for every object, so that nobody can prepare names that collide.
type jsonTable struct {
	seed  maphash.Seed
	names []jsonSpan
	slots []uint64 // 0, or 32 bits of the hash above the index in names plus one
}

func (t *jsonTable) reset() {
	t.seed = maphash.MakeSeed()
	t.names = t.names[:0]
	// A large table that is used again for a small object must not be
	// cleared beyond what that object needs.
	t.resize(4 * jsonFew)
}

func (t *jsonTable) resize(n int) {
	old := t.slots
	if n <= cap(old) && len(t.names) == 0 {
		t.slots = old[:n]
		clear(t.slots)
		return
	}
	t.slots = make([]uint64, n)
	for _, slot := range old {
		if slot != 0 {
			t.put(slot)
		}
	}
}

func (t *jsonTable) put(slot uint64) {
	mask := len(t.slots) - 1
	i := int(slot>>32) & mask
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = slot
}

func (t *jsonTable) add(s *jsonScanner, sp jsonSpan) bool {
	name := s.text(sp)
	hash := maphash.Bytes(t.seed, name) >> 32
	mask := len(t.slots) - 1
	for i := int(hash) & mask; t.slots[i] != 0; i = (i + 1) & mask {
		slot := t.slots[i]
		if slot>>32 == hash && bytes.Equal(s.text(t.names[uint32(slot)-1]), name) {
			return false
		}
	}
	t.names = append(t.names, sp)
	if 2*len(t.names) > len(t.slots) {
		t.resize(2 * len(t.slots))
	}
	t.put(hash<<32 | uint64(len(t.names)))
	return true
}
