package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A subject is one way to make a call: a peer's, this library's in one form, or
// work without a network that sets a bound.
type subject struct {
	name    string
	setting string    // how it is tuned, for the reader of the table
	formats []*format // nil: work without a payload's format
	needs   string    // the broker that it goes through
	open    func(ctx context.Context, e *env, j job) (*line, error)
}

// A job is what a line is opened for.
type job struct {
	format  *format
	octets  int
	callers int
	value   any // of the format, of so many octets; nil until ready
}

// ready returns the job with its value.
func (j job) ready() job {
	if j.format != nil {
		j.value = j.format.sample(j.octets)
	}
	return j
}

// A line is a client that is connected to its server.
type line struct {
	// call makes one call for the caller of that number, which makes no
	// other at the same time.
	call func(ctx context.Context, caller int) error
	// close ends client and server.
	close func()
}

// A row is a subject with a job: one line of the table.
type row struct {
	*subject
	job
}

// name is "owtp/ws/sealed json 256B x64".
func (r *row) String() string {
	f := ""
	if r.format != nil {
		f = " " + r.format.name
	}
	return fmt.Sprintf("%s%s %s x%d", r.subject.name, f, sizeName(r.octets), r.callers)
}

func sizeName(octets int) string {
	switch {
	case octets >= 1<<20 && octets%(1<<20) == 0:
		return strconv.Itoa(octets>>20) + "MiB"
	case octets >= 1<<10 && octets%(1<<10) == 0:
		return strconv.Itoa(octets>>10) + "KiB"
	}
	return strconv.Itoa(octets) + "B"
}

// sizeOf reads what sizeName writes.
func sizeOf(text string) (int, error) {
	for _, unit := range []struct {
		name   string
		octets int
	}{{"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}} {
		if digits, ok := strings.CutSuffix(text, unit.name); ok {
			n, err := strconv.Atoi(digits)
			return n * unit.octets, err
		}
	}
	return 0, fmt.Errorf("%q is no size", text)
}

// rowOf finds the row of that name.
func rowOf(name string) (*row, error) {
	words := strings.Fields(name)
	if len(words) < 3 {
		return nil, fmt.Errorf("%q names no row", name)
	}
	r := new(row)
	for _, s := range subjects {
		if s.name == words[0] {
			r.subject = s
		}
	}
	if r.subject == nil {
		return nil, fmt.Errorf("%q: there is no subject %q", name, words[0])
	}
	if len(words) == 4 {
		for _, f := range r.formats {
			if f.name == words[1] {
				r.format = f
			}
		}
		if r.format == nil {
			return nil, fmt.Errorf("%q: %s does not carry %q", name, words[0], words[1])
		}
	} else if r.formats != nil {
		return nil, fmt.Errorf("%q names no format", name)
	}
	var err error
	if r.octets, err = sizeOf(words[len(words)-2]); err != nil {
		return nil, err
	}
	callers, ok := strings.CutPrefix(words[len(words)-1], "x")
	if r.callers, err = strconv.Atoi(callers); err != nil || !ok || r.callers < 1 {
		return nil, fmt.Errorf("%q names no number of callers", name)
	}
	return r, nil
}

// subjects are all there are.
var subjects = slices.Concat(peers, ours, bounds)

var errAnswer = errors.New("the answer is not what was sent")
