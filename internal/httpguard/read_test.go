package httpguard

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/owtp-go/owtp/transport"
)

func TestReadBody(t *testing.T) {
	const limit = 1 << 20
	for _, size := range []int{0, 1, smallRead - 1, smallRead, smallRead + 1, firstRead - 1, firstRead, firstRead + 1, limit - 1, limit, limit + 1} {
		for _, claimed := range []int64{-1, int64(size)} {
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"whole":  func(r io.Reader) io.Reader { return r },
				"halves": iotest.HalfReader,
				"eager":  iotest.DataErrReader,
			} {
				want := bytes.Repeat([]byte("x"), size)
				budget := transport.NewBudget(limit + 1)
				got, held, err := ReadBody(wrap(bytes.NewReader(want)), claimed, limit, budget)
				if cap(got) > freeRead && held < len(got) {
					t.Errorf("%d bytes %s: only %d are held", size, name, held)
				}
				budget.Give(held)
				if !budget.Take(limit + 1) {
					t.Errorf("%d bytes %s: not all that was taken is said to be held", size, name)
				}
				if size > limit {
					if !errors.Is(err, ErrTooLarge) {
						t.Errorf("%d bytes %s: got error %v", size, name, err)
					}
				} else if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes %s, %d claimed: got %d bytes, %v", size, name, claimed, len(got), err)
				}
			}
		}
	}
}

// TestReadBodyBelievesNoClaim sends one byte and claims a gigabyte.
func TestReadBodyBelievesNoClaim(t *testing.T) {
	got, _, err := ReadBody(strings.NewReader("x"), 1<<30, 1<<31-1, nil)
	if err != nil || cap(got) > firstRead+1 {
		t.Errorf("got %d bytes of room, %v", cap(got), err)
	}
}

// TestReadBodyAsksTheBudget leaves small messages alone when nothing is free.
func TestReadBodyAsksTheBudget(t *testing.T) {
	budget := transport.NewBudget(64 << 10)
	if !budget.Take(64 << 10) {
		t.Fatal("a fresh budget is empty")
	}
	small, large := strings.Repeat("x", 1000), strings.Repeat("x", 10_000)
	for _, claimed := range []int64{-1, 1000} {
		if got, _, err := ReadBody(strings.NewReader(small), claimed, 1<<20, budget); err != nil || len(got) != len(small) {
			t.Errorf("small, %d claimed: %d bytes, %v", claimed, len(got), err)
		}
	}
	for _, claimed := range []int64{-1, 10_000} {
		if _, held, err := ReadBody(strings.NewReader(large), claimed, 1<<20, budget); !errors.Is(err, ErrBusy) || held != 0 {
			t.Errorf("large, %d claimed: %d held, %v", claimed, held, err)
		}
	}
}

func TestReadBodyPassesErrorsOn(t *testing.T) {
	if _, _, err := ReadBody(iotest.ErrReader(io.ErrUnexpectedEOF), 10, 100, nil); err != io.ErrUnexpectedEOF {
		t.Errorf("got error %v", err)
	}
}

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"one":                     "one",
		"one\ntwo":                "one",
		"one\r\ntwo":              "one",
		"\x1b[2Jgone\x00\u202e":   "[2Jgone",
		strings.Repeat("x", 1000): strings.Repeat("x", maxReason),
	} {
		if got := Line(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
