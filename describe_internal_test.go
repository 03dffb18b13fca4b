package owtp

import (
	"testing"

	"google.golang.org/protobuf/types/descriptorpb"
)

// A file that does not fit is made once for an answer, not for each of its methods:
// whoever may call would make a node work for a second by a few octets.
func TestDescribedFilesAreMadeOnce(t *testing.T) {
	f := descriptorpb.File_google_protobuf_descriptor_proto
	for octets, want := range map[int]bool{1000: false, 1 << 20: true} {
		files := newDescribedFiles(octets)
		if got := files.add(f); got != want {
			t.Fatalf("%d octets: added %v, want %v", octets, got, want)
		}
		if n := testing.AllocsPerRun(1, func() {
			if files.add(f) != want {
				t.Error("another answer the second time")
			}
		}); n > 10 {
			t.Errorf("%d octets: it was made again, with %v allocations", octets, n)
		}
	}
}
