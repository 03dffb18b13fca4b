package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// The documents keep what people have written; what a run has measured stands
// between two marks.
const (
	markBegin = "<!-- measured: begin, written by make bench -->"
	markEnd   = "<!-- measured: end -->"
)

// replaceMeasured puts text between the marks of a document.
func replaceMeasured(document, text string) (string, error) {
	begin, end := strings.Index(document, markBegin), strings.Index(document, markEnd)
	if begin < 0 || end < begin {
		return "", fmt.Errorf("the marks %q and %q are missing", markBegin, markEnd)
	}
	return document[:begin+len(markBegin)] + "\n\n" + strings.TrimSpace(text) + "\n\n" + document[end:], nil
}

func writeMeasured(path, text string) error {
	document, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	out, err := replaceMeasured(string(document), text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(out), 0o666)
}

// mark says in a word whether a target is met.
func (w *targetResult) mark() string {
	switch {
	case w.Ratio == nil:
		return "not measured"
	case w.Met:
		return "met"
	case w.Least != 0 && w.Ratio.Median >= w.Least:
		return fmt.Sprintf("**not met** (the least, %s, is)", plain(w.Least))
	}
	return "**not met**"
}

func (w *targetResult) bound() string {
	if w.AtMost {
		return "≤ " + plain(w.Bound)
	}
	return "≥ " + plain(w.Bound)
}

// plain writes a number as short as it is.
func plain(v float64) string { return strings.TrimSuffix(fmt.Sprintf("%.4g", v), ".0") }

// thousands writes a whole number with commas.
func thousands(v float64) string {
	digits := fmt.Sprintf("%.0f", v)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// targetTable is the targets as Markdown.
func (t *table) targetTable() string {
	var b strings.Builder
	b.WriteString("| | what | bound | ratio | min to max | by processor time | |\n|---|---|---|---|---|---|---|\n")
	for _, w := range t.Targets {
		ratio, between, used := "", "", ""
		if w.Ratio != nil {
			ratio, between = fmt.Sprintf("%.2f", w.Ratio.Median), fmt.Sprintf("%.2f to %.2f", w.Ratio.Min, w.Ratio.Max)
		}
		if w.Processor != nil {
			used = fmt.Sprintf("%.2f", w.Processor.Median)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", w.ID, w.Text, w.bound(), ratio, between, used, w.mark())
	}
	return b.String()
}

// markdown is all that was measured.
func (t *table) markdown() string {
	var b strings.Builder
	m := &t.Machine
	fmt.Fprintf(&b, "%s, %d processors, %s, %s, commit %s, load before it began %s. %d rounds of %d ms for each row.\n\n",
		m.Processor, m.Processors, m.System, m.Go, m.Commit, m.Load, m.Rounds, m.RoundMS)
	for i, name := range slices.Sorted(maps.Keys(m.Versions)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "`%s` %s", name, m.Versions[name])
	}
	b.WriteString(".\n\n### Targets\n\n" + t.targetTable() + "\n![calls a second](benchmarks.svg)\n")
	group := ""
	for _, r := range t.Rows {
		if r.Group != group {
			group = r.Group
			fmt.Fprintf(&b, "\n### Rows: %s\n\n| row | calls/s | min to max | p50 µs | p99 µs | p99.9 µs | processor µs/call | bytes/call | allocations/call | goroutines |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n", group)
		}
		f := &r.Figures
		fmt.Fprintf(&b, "| %s | %s | %s to %s | %.0f | %.0f | %.0f | %.1f | %s | %.1f | %.0f |\n", r.Row, thousands(r.Rate.Median), thousands(r.Rate.Min), thousands(r.Rate.Max),
			f.P50, f.P99, f.P999, f.CPU, thousands(f.Bytes), f.Allocs, f.Goroutines)
	}
	if len(t.Offered) > 0 {
		b.WriteString("\n### At a fixed rate\n\nCalls are due at this rate whatever became of those before, and a time counts from when its call was due.\n\n| row | calls/s | p50 µs | p99 µs | p99.9 µs |\n|---|--:|--:|--:|--:|\n")
		for _, o := range t.Offered {
			fmt.Fprintf(&b, "| %s | %s | %.0f | %.0f | %.0f |\n", o.Row, thousands(o.Rate), o.P50, o.P99, o.P999)
		}
	}
	if len(t.Idle) > 0 {
		fmt.Fprintf(&b, "\n### %s idle connections\n\n| | |\n|---|--:|\n", thousands(float64(m.Idle)))
		for _, name := range slices.Sorted(maps.Keys(t.Idle)) {
			fmt.Fprintf(&b, "| %s | %.2f |\n", name, t.Idle[name])
		}
	}
	b.WriteString("\n### How the peers are set up\n\n")
	told := make(map[string]bool)
	for _, r := range t.Rows {
		name, _, _ := strings.Cut(r.Row, " ")
		for _, s := range subjects {
			if s.name == name && !told[s.setting] {
				told[s.setting] = true
				if strings.HasPrefix(name, "owtp/") && name != "owtp/connect" {
					name = "owtp/…"
				}
				fmt.Fprintf(&b, "- `%s`: %s.\n", name, s.setting)
			}
		}
	}
	if len(t.Missing) > 0 {
		b.WriteString("\n### Not measured\n\n")
		for _, name := range slices.Sorted(maps.Keys(t.Missing)) {
			fmt.Fprintf(&b, "- %s: %s\n", name, t.Missing[name])
		}
	}
	return b.String()
}
