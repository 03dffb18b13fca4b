package wst

import (
	"bytes"
	"testing"
)

// What is read in pieces is what was written, at every size at which one more
// piece begins, and what is held is no more than twice as much as was read.
func TestPile(t *testing.T) {
	sizes := []int{0, 1, 5<<20 + 7}
	for size := smallestPiece; size <= 4<<20; size *= 2 {
		sizes = append(sizes, size-1, size, size+1)
	}
	for _, size := range sizes {
		for round := range byte(2) { // the second time in pieces that were used before
			want := make([]byte, size)
			for i := range want {
				want[i] = byte(i>>8) ^ byte(i) ^ round<<7
			}
			var p pile
			held := p.next()
			room := p.more()
			for left := want; len(left) > 0; {
				n := copy(room, left[:min(len(left), 1<<13)])
				left, room, p.octets = left[n:], room[n:], p.octets+n
				if len(room) == 0 {
					held += p.next()
					room = p.more()
				}
			}
			got := p.join()
			p.release()
			if !bytes.Equal(got, want) || cap(got) > size+size/4+8 {
				t.Errorf("%d octets: %d are read, in a buffer of %d", size, len(got), cap(got))
			}
			if held > 2*size+2*smallestPiece {
				t.Errorf("%d octets: %d are held", size, held)
			}
		}
	}
}
