package sessiontest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

func testList(t *testing.T, s *store) {
	ctx := t.Context()
	if !s.Traits().Lists {
		if _, err := s.List(ctx, s.prefix, "", 1); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("List: %v, want errors.ErrUnsupported", err)
		}
		return // which is all that it promises
	}
	var want []string
	for i := range 250 {
		k := s.key(fmt.Sprintf("in/%d", i))
		must(t, s.Put(ctx, k, nil, time.Hour))
		want = append(want, k)
	}
	want = append(want, s.key("in/\xff"), s.key("in/Z"), s.key("in/_"), s.key("in/%"))
	for _, k := range want[250:] {
		must(t, s.Put(ctx, k, nil, 0))
	}
	slices.Sort(want)
	// Neighbours of the prefix, and what a pattern would take it for.
	for _, k := range []string{"in", "in.", "in0", "iN/1", "im/1", "i", "in\\/1"} {
		must(t, s.Put(ctx, s.key(k), nil, 0))
	}
	for _, limit := range []int{1, 7, 100, len(want), len(want) + 1, session.MaxListLimit} {
		got := s.pages(t, s.key("in/"), limit)
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: %d keys, want %d in ascending order", limit, len(got), len(want))
		}
	}
	if got := s.pages(t, s.key("none/"), 10); len(got) != 0 {
		t.Errorf("%d keys with a prefix that nothing has", len(got))
	}
	for _, prefix := range []string{"in/%", "in/_", "in/*", "in/?", "in/["} {
		for _, k := range s.pages(t, s.key(prefix), 10) {
			if k != s.key(prefix) {
				t.Errorf("prefix %q is taken for a pattern: it lists %q", prefix, k)
			}
		}
	}
	for _, limit := range []int{0, -1, session.MaxListLimit + 1} {
		if _, err := s.List(ctx, s.prefix, "", limit); err == nil {
			t.Errorf("limit %d is no error", limit)
		}
	}
}

func (s *store) pages(t *testing.T, prefix string, limit int) []string {
	t.Helper()
	var all []string
	for after := ""; ; {
		keys, err := s.List(t.Context(), prefix, after, limit)
		must(t, err)
		if len(keys) > limit {
			t.Fatalf("a page of %d keys, limit %d", len(keys), limit)
		}
		all = append(all, keys...)
		if len(keys) < limit {
			return all
		}
		after = keys[len(keys)-1]
	}
}
