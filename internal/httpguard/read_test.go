package httpguard

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
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
				got, err := ReadBody(wrap(bytes.NewReader(want)), claimed, limit)
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
	got, err := ReadBody(strings.NewReader("x"), 1<<30, 1<<31-1)
	if err != nil || cap(got) > firstRead+1 {
		t.Errorf("got %d bytes of room, %v", cap(got), err)
	}
}

func TestReadBodyPassesErrorsOn(t *testing.T) {
	if _, err := ReadBody(iotest.ErrReader(io.ErrUnexpectedEOF), 10, 100); err != io.ErrUnexpectedEOF {
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
