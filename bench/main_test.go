package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/owtp-go/owtp/internal/servers"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		if err := runChild(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(servers.RunMain(m))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Each subject answers in each format, and says so when the answer is wrong.
func TestEverySubjectAnswers(t *testing.T) {
	t.Parallel()
	e := newEnv()
	t.Cleanup(e.close)
	started := map[string]func(testing.TB) *servers.Server{"nats": servers.NATS, "rabbitmq": servers.RabbitMQ}
	seen := make(map[string]bool)
	for _, s := range subjects {
		if seen[s.name] || s.setting == "" {
			t.Errorf("%q is there twice, or does not say how it is set up", s.name)
		}
		seen[s.name] = true
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if s.needs != "" {
				server := started[s.needs](t) // or the test is skipped aloud
				e.mu.Lock()
				e.brokers[s.needs] = &broker{Server: server, stop: func() {}}
				e.mu.Unlock()
			}
			all := s.formats
			if all == nil {
				all = []*format{nil}
			}
			for _, f := range all {
				j := job{format: f, octets: 256, callers: 2}
				l, err := s.open(t.Context(), e, j.ready())
				must(t, err)
				for caller := range j.callers {
					if err := l.call(t.Context(), caller); err != nil {
						t.Errorf("caller %d: %v", caller, err)
					}
				}
				l.close()
			}
		})
	}
}

// A payload has the size that it says, and another one is noticed.
func TestPayloads(t *testing.T) {
	t.Parallel()
	for _, n := range allSizes[:3] {
		for _, f := range ourFormats {
			v := f.sample(n)
			b, err := f.encode(v)
			must(t, err)
			if len(b) != n {
				t.Errorf("%s of %d octets has %d", f.name, n, len(b))
			}
			back, err := f.decode(b)
			must(t, err)
			if !sameSize(back, v) {
				t.Errorf("%s of %d octets does not come back", f.name, n)
			}
			if other := f.sample(n / 2); sameSize(other, v) || sameSize(nil, v) {
				t.Errorf("%s of %d octets is taken for one of %d", f.name, n/2, n)
			}
		}
	}
	if m := protoPayload(256); len(m.Items) < 2 || proto.Size(m) != 256 {
		t.Errorf("the Protobuf payload is no list: %v", m)
	}
}

// What the plan names is there, and what targets compare is measured: without
// any one of the rows that it uses a target has no ratio.
func TestPlan(t *testing.T) {
	t.Parallel()
	ids := make(map[string]bool)
	used := make(map[string]bool)
	for _, g := range plan() {
		for _, name := range g.rows {
			r, err := rowOf(name)
			must(t, err)
			if r.String() != name {
				t.Errorf("%q is called %q", name, r)
			}
			used[r.subject.name] = true
		}
		for _, name := range g.offered {
			if !slices.Contains(g.rows, name) {
				t.Errorf("%s: %q is offered calls and not measured", g.name, name)
			}
		}
		for _, w := range g.targets {
			if ids[w.id] || w.id == "" || w.text == "" {
				t.Errorf("target %q is there twice, or says nothing", w.id)
			}
			ids[w.id] = true
			if g.extra == nil && !slices.ContainsFunc(g.rows, func(name string) bool { return uses(w, g.rows, name) }) {
				t.Errorf("target %s compares nothing", w.id)
			}
			if v := w.of(round{}); !math.IsNaN(v) {
				t.Errorf("target %s is %v where nothing was measured", w.id, v)
			}
		}
	}
	for _, s := range peers {
		if !used[s.name] {
			t.Errorf("%s is measured only by -all", s.name)
		}
	}
	for n := 1; n <= 9; n++ {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(ids)), func(id string) bool { return strings.HasPrefix(id, fmt.Sprint(n)) }) {
			t.Errorf("target %d is missing", n)
		}
	}
	for _, g := range everything() {
		for _, name := range g.rows {
			if _, err := rowOf(name); err != nil {
				t.Error(err)
			}
		}
	}
	for _, bad := range []string{"", "limit", "limit raw 256B", "nobody raw 256B x1", "limit xml 256B x1", "limit 256B x1", "limit raw 256 x1", "limit raw 256B x0", "geth-ws pb 256B x1", "sm2 256B 64"} {
		if _, err := rowOf(bad); err == nil {
			t.Errorf("%q names a row", bad)
		}
	}
}

// A duration falls into a step that is not further from it than one hundredth.
func TestTimes(t *testing.T) {
	t.Parallel()
	last := -1
	for ns := uint64(0); ns < 1<<40; ns += ns/50 + 1 {
		step := stepOf(ns)
		if begin, end := stepBegin(step), stepBegin(step+1); step < last || float64(ns) < begin || float64(ns) >= end || end-begin > max(float64(ns)/100, 1) {
			t.Fatalf("%d ns fall into step %d, from %v to %v; before that %d", ns, step, begin, end, last)
		}
		last = step
	}
	var a, b times
	for i := range 1000 {
		if i%2 == 0 {
			a.add(time.Duration(i) * time.Microsecond)
		} else {
			b.add(time.Duration(i) * time.Microsecond)
		}
	}
	a.join(&b)
	for _, q := range []float64{.5, .99, .999} {
		if got := a.quantile(q); math.Abs(got-1000*q) > 10 {
			t.Errorf("quantile %v of 0 to 999 is %v", q, got)
		}
	}
}

// A server that stands still for a while has kept others from calling: at a
// fixed rate their times count, though each call by itself was quick.
func TestOfferedCountsWaiting(t *testing.T) {
	t.Parallel()
	var turn sync.Mutex
	var stalled sync.Once
	l := &line{call: func(context.Context, int) error {
		turn.Lock()
		defer turn.Unlock()
		stalled.Do(func() { time.Sleep(100 * time.Millisecond) })
		return nil
	}}
	seen, err := offered(t.Context(), l, 1000, 100*time.Millisecond)
	must(t, err)
	if p50 := seen.quantile(.5); seen.count != 100 || p50 < 30_000 {
		t.Errorf("%d calls, p50 %v us: the stall of 100 ms does not show", seen.count, p50)
	}
	broken := errors.New("broken")
	failing := &line{call: func(context.Context, int) error { return broken }}
	if _, err := offered(t.Context(), failing, 1000, 10*time.Millisecond); !errors.Is(err, broken) {
		t.Errorf("a call that fails: %v", err)
	}
	if _, err := closed(t.Context(), failing, 2, time.Millisecond, time.Millisecond); !errors.Is(err, broken) {
		t.Errorf("a call that fails: %v", err)
	}
}

// The whole way from the command line to the documents and back: what was
// written is compared, and a row that has become slow is a loss.
func TestCheckNoticesASlowRow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	document := filepath.Join(dir, "BENCHMARKS.md")
	must(t, os.WriteFile(document, []byte("before\n"+markBegin+"\nold\n"+markEnd+"\nafter\n"), 0o666))
	short := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := bench(append([]string{"-rounds", "2", "-length", "20ms", "-idle", "8"}, args...), &out, io.Discard)
		return out.String(), err
	}
	text, err := short("-rows", "^(2a|1d)$", "-write", dir, "-gobench", filepath.Join(dir, "gobench"))
	must(t, err)
	if !strings.Contains(text, "| 2a |") || !strings.Contains(text, "| 1d |") {
		t.Errorf("the targets are not told:\n%s", text)
	}
	for name, want := range map[string]string{"BENCHMARKS.md": "| limit raw 256B x64 |", "gobench": "Benchmarkbare-ws/raw/256B/x1-", "benchmarks.json": `"id": "2a"`, "benchmarks.svg": "owtp/ws/sealed raw"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s does not have %q:\n%s", name, want, b)
		}
		if strings.HasSuffix(name, ".svg") {
			must(t, xml.Unmarshal(b, new(struct{})))
		}
		if strings.HasSuffix(name, ".md") && (!bytes.HasPrefix(b, []byte("before\n")) || !bytes.HasSuffix(b, []byte("\nafter\n")) || bytes.Contains(b, []byte("\nold\n"))) {
			t.Errorf("what stands around the measured is not as it was:\n%s", b)
		}
	}
	checked := filepath.Join(dir, "benchmarks.json")
	text, err = short("-rows", "^2a$", "-check", checked, "-plant", "owtp/ws/sealed")
	if err == nil || !strings.Contains(text, "\n2a: ") || strings.Contains(text, "\n1d: ") {
		t.Errorf("a slow row: %v\n%s", err, text)
	}
	if _, err := short("-rows", "^3a$", "-check", checked); err == nil {
		t.Error("nothing was compared, and that is no failure")
	}
	if _, err := short("-check", filepath.Join(dir, "missing.json")); err == nil {
		t.Error("there is nothing to compare with, and that is no failure")
	}
	if _, err := short("-rows", "no such row"); err == nil {
		t.Error("nothing was measured, and that is no failure")
	}
}

func TestLosses(t *testing.T) {
	t.Parallel()
	ratio := func(median, low, high float64) *spread { return &spread{median, low, high} }
	earlier := &table{Targets: []targetResult{
		{ID: "1", Ratio: ratio(2, 1.8, 2.2)}, {ID: "2", AtMost: true, Ratio: ratio(1.2, 1.1, 1.3)}, {ID: "3", AtMost: true, Ratio: ratio(0, 0, 0)}, {ID: "4"},
	}}
	if bad := earlier.losses(earlier); len(bad) > 0 {
		t.Errorf("a table is worse than itself: %q", bad)
	}
	for _, c := range []struct {
		name string
		now  []targetResult
		lost string
	}{
		{"within the spread", []targetResult{{ID: "1", Ratio: ratio(1.6, 1, 2)}, {ID: "2", AtMost: true, Ratio: ratio(1.5, 1, 2)}}, ""},
		{"better", []targetResult{{ID: "1", Ratio: ratio(9, 9, 9)}, {ID: "2", AtMost: true, Ratio: ratio(.1, .1, .1)}}, ""},
		{"slower", []targetResult{{ID: "1", Ratio: ratio(1.5, 1, 2)}}, "1: "},
		{"longer", []targetResult{{ID: "2", AtMost: true, Ratio: ratio(1.6, 1, 2)}}, "2: "},
		{"something from nothing", []targetResult{{ID: "3", AtMost: true, Ratio: ratio(1, 1, 1)}}, "3: "},
		{"not measured any more", []targetResult{{ID: "1"}}, "1: "},
		{"nothing in common", []targetResult{{ID: "4", Ratio: ratio(1, 1, 1)}}, "nothing was compared"},
	} {
		bad := (&table{Targets: c.now}).losses(earlier)
		if (len(bad) > 0) != (c.lost != "") || len(bad) > 0 && !strings.Contains(bad[0], c.lost) {
			t.Errorf("%s: %q", c.name, bad)
		}
	}
	if _, err := replaceMeasured("no marks", "text"); err == nil {
		t.Error("a document without marks is written over")
	}
	w := targetResult{Ratio: ratio(2.1, 2, 3), Bound: 2.5, Least: 2}
	if m := w.mark(); !strings.Contains(m, "not met") || !strings.Contains(m, "least") {
		t.Errorf("between the least and the bound: %q", m)
	}
}

// Idle connections are weighed in other processes, and come back at once.
func TestIdle(t *testing.T) {
	t.Parallel()
	r := &runner{length: 5 * time.Millisecond, idle: 8, log: io.Discard}
	got := make(map[string]float64)
	must(t, idleGroup.extra(r, got))
	for _, w := range idleGroup.targets {
		if v := w.of(round{extra: got}); math.IsNaN(v) || v < 0 {
			t.Errorf("%s (%s) is %v; measured were %v", w.id, w.text, v, got)
		}
	}
	if got["goroutines "+idleBare] < 1 || got["seconds to come back "+idleSealed] <= 0 {
		t.Errorf("measured were %v", got)
	}
	if _, err := json.Marshal(got); err != nil {
		t.Error(err)
	}
}
