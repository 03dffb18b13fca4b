package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// A runner measures groups.
type runner struct {
	env    *env
	rounds int
	length time.Duration // of the measurement of one row in one round
	idle   int           // connections that are held
	log    io.Writer
	// delayed is the subject whose calls wait for so long before they are
	// made: a fault to see that it is noticed.
	delayed string
	delay   time.Duration
}

// A result is what was measured of one group.
type result struct {
	*group
	rounds  []round
	loaded  []offeredTimes
	failed  map[string]error // by row
	missing map[string]error // brokers that are not there, by row
}

// offeredTimes are the times of a row at a fixed rate.
type offeredTimes struct {
	Row  string  `json:"row"`
	Rate float64 `json:"callsPerSecond"`
	P50  float64 `json:"p50us"`
	P99  float64 `json:"p99us"`
	P999 float64 `json:"p999us"`
}

func (r *runner) run(ctx context.Context, g *group) (*result, error) {
	res := &result{group: g, failed: make(map[string]error), missing: make(map[string]error)}
	rows := make([]*row, len(g.rows))
	for i, name := range g.rows {
		var err error
		if rows[i], err = rowOf(name); err != nil {
			return nil, err
		}
		if rows[i].needs != "" {
			if _, err := r.env.broker(rows[i].needs); err != nil {
				res.missing[name] = err
			}
		}
	}
	for n := range r.rounds {
		turn := round{rows: make(map[string]figures), extra: make(map[string]float64)}
		for i := range rows {
			// Each begins once in so many rounds, so that none always
			// follows the same other.
			row := rows[(i+n)%len(rows)]
			name := row.String()
			if res.failed[name] != nil || res.missing[name] != nil {
				continue
			}
			f, err := r.measure(ctx, row)
			if err != nil {
				res.failed[name] = err
				fmt.Fprintf(r.log, "%s: %v\n", name, err)
				continue
			}
			turn.rows[name] = f
			fmt.Fprintf(r.log, "%-44s %10.0f calls/s  p50 %8.1f  p99 %8.1f us  cpu %7.2f us  %7.1f allocs\n", name, f.Rate, f.P50, f.P99, f.CPU, f.Allocs)
		}
		if g.extra != nil && (n == 0 || len(rows) > 0) {
			if err := g.extra(r, turn.extra); err != nil {
				res.failed[g.name] = err
				fmt.Fprintf(r.log, "%s: %v\n", g.name, err)
			}
		}
		res.rounds = append(res.rounds, turn)
		if len(rows) == 0 {
			break // what is no row takes long, and is measured once
		}
	}
	if err := r.offer(ctx, res); err != nil {
		return nil, err
	}
	return res, nil
}

// measure opens a row, measures it and closes it.
func (r *runner) measure(ctx context.Context, row *row) (figures, error) {
	l, err := row.open(ctx, r.env, row.ready())
	if err != nil {
		return figures{}, err
	}
	defer l.close()
	if row.subject.name == r.delayed {
		call := l.call
		l.call = func(ctx context.Context, caller int) error {
			time.Sleep(r.delay)
			return call(ctx, caller)
		}
	}
	return closed(ctx, l, row.callers, r.length/4, r.length)
}

// offer measures a group's rows once more at the same fixed rate, thrice as long
// as a round.
func (r *runner) offer(ctx context.Context, res *result) error {
	rate := 0.0
	for _, name := range res.offered {
		if _, m, _ := res.spread(func(t round) float64 { return t.rate(name) }); m > 0 && (rate == 0 || m < rate) {
			rate = m
		}
	}
	rate /= 2
	for _, name := range res.offered {
		if rate == 0 || res.failed[name] != nil || res.missing[name] != nil {
			continue
		}
		row, err := rowOf(name)
		if err != nil {
			return err
		}
		row.callers = max(row.callers, offeredCallers)
		l, err := row.open(ctx, r.env, row.ready())
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		_, err = offered(ctx, l, rate, r.length/2) // to warm up
		var t *times
		if err == nil {
			t, err = offered(ctx, l, rate, 3*r.length)
		}
		l.close()
		if err != nil {
			return fmt.Errorf("%s at %.0f calls/s: %w", name, rate, err)
		}
		res.loaded = append(res.loaded, offeredTimes{name, rate, t.quantile(.5), t.quantile(.99), t.quantile(.999)})
		fmt.Fprintf(r.log, "%-44s at %.0f calls/s: p50 %.1f  p99 %.1f  p99.9 %.1f us\n", name, rate, t.quantile(.5), t.quantile(.99), t.quantile(.999))
	}
	return nil
}
