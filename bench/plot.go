package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// plotted are the rows of the plot: one payload, one number of callers.
const plotted = " 256B x64"

// plot draws the calls a second of rows as bars, with the extremes of the rounds
// as a line across the end, the fastest first.
func (t *table) plot() string {
	var rows []rowResult
	for _, r := range t.Rows {
		bound := slices.ContainsFunc(bounds, func(s *subject) bool { return strings.HasPrefix(r.Row, s.name+" ") })
		seen := slices.ContainsFunc(rows, func(o rowResult) bool { return o.Row == r.Row })
		if strings.HasSuffix(r.Row, plotted) && !bound && !seen {
			rows = append(rows, r)
		}
	}
	slices.SortStableFunc(rows, func(a, b rowResult) int {
		switch {
		case a.Rate.Median > b.Rate.Median:
			return -1
		case a.Rate.Median < b.Rate.Median:
			return 1
		}
		return 0
	})
	const left, width, right, step, bar, top = 230, 520, 90, 22, 14, 40
	most := 1.0
	for _, r := range rows {
		most = max(most, r.Rate.Max)
	}
	x := func(rate float64) float64 { return left + rate/most*width }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", left+width+right, top+step*len(rows)+10)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	fmt.Fprintf(&b, `<text x="10" y="20" font-size="14">Calls a second, 256 B, 64 callers, %d processors, client and server together</text>`+"\n", t.Machine.Processors)
	for i, r := range rows {
		y := top + step*i
		colour := "#9aa5b1"
		if strings.HasPrefix(r.Row, "owtp/") {
			colour = "#2563a8"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+bar-2, html.EscapeString(strings.TrimSuffix(r.Row, plotted)))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, left, y, x(r.Rate.Median)-left, bar, colour)
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="black"/>`, x(r.Rate.Min), x(r.Rate.Max), y+bar/2, y+bar/2)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", x(r.Rate.Max)+6, y+bar-2, thousands(r.Rate.Median))
	}
	b.WriteString("</svg>\n")
	return b.String()
}
