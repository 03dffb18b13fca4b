package wst

import "sync"

// A pile is a message in the making: the library does not say how long it will
// be, and nobody gets memory for octets that have only been announced. It is
// gathered in pieces, each about as large as all before it, that all connections
// share, so that an idle one holds none and the message is copied once.
type pile struct {
	pieces [maxPieces]*[]byte
	n      int
	octets int // read
	rest   [][]byte
}

const (
	smallestPiece = 4 << 10
	maxPieces     = 10 // 2 MiB, the largest of 1 MiB; the rest has as large ones of its own
)

// pieces are by size: the second is as large as the first, and each one behind it
// twice as large as the one before.
var pieces [maxPieces]sync.Pool

// next is how large the next piece is.
func (p *pile) next() int { return smallestPiece << max(0, min(p.n, maxPieces-1)-1) }

// more returns the next piece.
func (p *pile) more() []byte {
	if p.n == maxPieces {
		b := make([]byte, p.next())
		p.rest = append(p.rest, b)
		return b
	}
	b, ok := pieces[p.n].Get().(*[]byte)
	if !ok {
		fresh := make([]byte, p.next())
		b = &fresh
	}
	p.pieces[p.n] = b
	p.n++
	return *b
}

// join returns what was read in a buffer of just its size.
func (p *pile) join() []byte {
	data, left := make([]byte, 0, p.octets), p.octets
	take := func(b []byte) {
		b = b[:min(left, len(b))]
		data, left = append(data, b...), left-len(b)
	}
	for _, b := range p.pieces[:p.n] {
		take(*b)
	}
	for _, b := range p.rest {
		take(b)
	}
	return data
}

// release gives the pieces back; the message is a copy.
func (p *pile) release() {
	for i, b := range p.pieces[:p.n] {
		pieces[i].Put(b)
	}
}
