package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// plotted are the rows of the plot: one payload, one number of callers.
const plotted = " 256B x64"

// plot draws the calls a second of rows on a logarithmic axis, the median as a
// point and the extremes of the rounds as a line, the fastest first.
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
	const left, width, right, step, top = 230, 560, 90, 22, 60
	lowest, highest := 1e2, 1e6
	for _, r := range rows {
		for r.Rate.Min < lowest && lowest > 1 {
			lowest /= 10
		}
		for r.Rate.Max > highest {
			highest *= 10
		}
	}
	x := func(rate float64) float64 {
		return left + width*math.Log(max(rate, lowest)/lowest)/math.Log(highest/lowest)
	}
	bottom := top + step*len(rows)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", left+width+right, bottom+10)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	fmt.Fprintf(&b, `<text x="10" y="20" font-size="14">Calls a second, 256 B, 64 callers, %d processors for client and server together; logarithmic</text>`+"\n", t.Machine.Processors)
	for rate := lowest; rate <= highest; rate *= 10 {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#dddddd"/><text x="%.1f" y="%d" text-anchor="middle" fill="#666666">%s</text>`+"\n",
			x(rate), x(rate), top-8, bottom, x(rate), top-14, thousands(rate))
	}
	for i, r := range rows {
		y := top + step*i + step/2
		colour := "#7a8694"
		if strings.HasPrefix(r.Row, "owtp/") {
			colour = "#1f5fa8"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+4, html.EscapeString(strings.TrimSuffix(r.Row, plotted)))
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s" stroke-width="2"/>`, x(r.Rate.Min), x(r.Rate.Max), y, y, colour)
		fmt.Fprintf(&b, `<circle cx="%.1f" cy="%d" r="5" fill="%s"/>`, x(r.Rate.Median), y, colour)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", x(r.Rate.Max)+10, y+4, thousands(r.Rate.Median))
	}
	b.WriteString("</svg>\n")
	return b.String()
}
