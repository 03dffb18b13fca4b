package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
)

// A table is what a run has measured, as it is checked in.
type table struct {
	Machine machine        `json:"machine"`
	Targets []targetResult `json:"targets"`
	Rows    []rowResult    `json:"rows"`
	Offered []offeredTimes `json:"offered,omitempty"`
	// Idle are the figures of idle connections, by name.
	Idle map[string]float64 `json:"idle,omitempty"`
	// Missing are rows that could not be measured, and why.
	Missing map[string]string `json:"missing,omitempty"`
}

// A spread is the median of what rounds have measured, with the extremes.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

type targetResult struct {
	ID     string  `json:"id"`
	Text   string  `json:"text"`
	Ratio  *spread `json:"ratio"` // nil: not measured
	Bound  float64 `json:"bound"`
	Least  float64 `json:"least,omitempty"`
	AtMost bool    `json:"atMost,omitempty"` // the bound is the most that is good
	Met    bool    `json:"met"`
	// Processor is the ratio by processor time a call, where it is known.
	Processor *spread `json:"byProcessorTime,omitempty"`
}

type rowResult struct {
	Group   string  `json:"group"`
	Row     string  `json:"row"`
	Rate    spread  `json:"rate"`
	Figures figures `json:"figures"` // each the median of its own
}

// spread returns the median, the least and the most of what rounds give, and
// whether any gave something.
func (res *result) spread(of func(round) float64) (spread, float64, bool) {
	var all []float64
	for _, r := range res.rounds {
		if v := of(r); !math.IsNaN(v) && !math.IsInf(v, 0) {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return spread{}, 0, false
	}
	slices.Sort(all)
	m := (all[(len(all)-1)/2] + all[len(all)/2]) / 2
	return spread{m, all[0], all[len(all)-1]}, m, true
}

// median is that of one figure of a row.
func (res *result) median(row string, of func(figures) float64) float64 {
	_, m, _ := res.spread(func(r round) float64 { return r.field(row, of) })
	return m
}

func newTable(m machine, results []*result) *table {
	t := &table{Machine: m, Idle: make(map[string]float64), Missing: make(map[string]string)}
	for _, res := range results {
		for _, w := range res.targets {
			out := targetResult{ID: w.id, Text: w.text, Bound: w.bound, Least: w.least, AtMost: w.atMost}
			if s, median, ok := res.spread(w.of); ok {
				out.Ratio = &s
				out.Met = median >= w.bound
				if w.atMost {
					out.Met = median <= w.bound
				}
			}
			if w.processor != nil {
				if s, _, ok := res.spread(w.processor); ok {
					out.Processor = &s
				}
			}
			t.Targets = append(t.Targets, out)
		}
		for _, name := range res.rows {
			rate, _, ok := res.spread(func(r round) float64 { return r.rate(name) })
			if !ok {
				continue
			}
			m := func(of func(figures) float64) float64 { return res.median(name, of) }
			t.Rows = append(t.Rows, rowResult{Group: res.name, Row: name, Rate: rate, Figures: figures{
				Rate: rate.Median,
				P50:  m(func(f figures) float64 { return f.P50 }), P99: m(func(f figures) float64 { return f.P99 }), P999: m(func(f figures) float64 { return f.P999 }),
				CPU: m(func(f figures) float64 { return f.CPU }), Bytes: m(func(f figures) float64 { return f.Bytes }), Allocs: m(func(f figures) float64 { return f.Allocs }),
				Goroutines: m(func(f figures) float64 { return f.Goroutines }),
			}})
		}
		t.Offered = append(t.Offered, res.loaded...)
		for _, r := range res.rounds {
			maps.Copy(t.Idle, r.extra)
		}
		for _, lacks := range []map[string]error{res.failed, res.missing} {
			for name, err := range lacks {
				t.Missing[name] = err.Error()
			}
		}
	}
	slices.SortFunc(t.Targets, func(a, b targetResult) int { return strings.Compare(a.ID, b.ID) })
	return t
}

func readTable(path string) (*table, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t := new(table)
	if err := json.Unmarshal(text, t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func (t *table) write(path string) error {
	text, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o666)
}

// mostLoss is the part of a ratio that may be lost beyond the spread that was
// seen when the table was made.
const mostLoss = 0.15

// losses says which ratios have become worse than those of an earlier table.
// Times are not compared: they belong to a machine.
func (t *table) losses(earlier *table) (bad []string) {
	now := make(map[string]targetResult)
	for _, w := range t.Targets {
		now[w.ID] = w
	}
	compared := 0
	for _, then := range earlier.Targets {
		w, measured := now[then.ID]
		if then.Ratio == nil || !measured {
			continue // nothing to lose, or not asked for
		}
		compared++
		if w.Ratio == nil {
			bad = append(bad, fmt.Sprintf("%s: not measured any more; it was %.2f (%s)", w.ID, then.Ratio.Median, w.Text))
			continue
		}
		least, most := then.Ratio.Min*(1-mostLoss), then.Ratio.Max/(1-mostLoss)
		switch {
		case !then.AtMost && w.Ratio.Median < least:
			bad = append(bad, fmt.Sprintf("%s: %.2f now, it was %.2f to %.2f; less than %.2f is a loss (%s)", w.ID, w.Ratio.Median, then.Ratio.Min, then.Ratio.Max, least, w.Text))
		case then.AtMost && w.Ratio.Median > most+0.01: // what was nothing may be next to nothing
			bad = append(bad, fmt.Sprintf("%s: %.2f now, it was %.2f to %.2f; more than %.2f is a loss (%s)", w.ID, w.Ratio.Median, then.Ratio.Min, then.Ratio.Max, most, w.Text))
		}
	}
	if compared == 0 {
		bad = append(bad, "the tables have no target in common: nothing was compared")
	}
	return bad
}
