// Command bench measures this library beside its peers, beside a hand-written
// limit and beside what primitives alone cost: all in one run, in turns, client
// and server in one process over loopback. docs/BENCHMARKS.md says what is
// compared and how to read it.
//
//	bench [-rows regexp] [-all] [-write docs | -check docs/benchmarks.json]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/pprof"
	"time"
)

func main() {
	if spec := os.Getenv(childEnv); spec != "" {
		if err := runChild(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := bench(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// options are those of the command line.
type options struct {
	rows         string
	all          bool
	write, check string
	gobench      string
	profile      string
	memory       string
	runner
}

func bench(args []string, out, log io.Writer) error {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(log)
	flags.StringVar(&o.rows, "rows", "", "measure the groups, targets and rows that match this regular expression, with what they are compared with")
	flags.BoolVar(&o.all, "all", false, "measure the whole cross product as well")
	flags.StringVar(&o.write, "write", "", "write BENCHMARKS.md, benchmarks.json and benchmarks.svg in this folder")
	flags.StringVar(&o.check, "check", "", "compare the ratios with this benchmarks.json, and fail on a loss")
	flags.StringVar(&o.gobench, "gobench", "", "write each round in the form of go test -bench to this file, for benchstat")
	flags.StringVar(&o.profile, "cpuprofile", "", "write a profile of the whole run to this file")
	flags.StringVar(&o.memory, "memprofile", "", "write a profile of all allocations of the run to this file")
	flags.StringVar(&o.delayed, "plant", "", "delay the calls of this subject, to see that -check notices")
	flags.DurationVar(&o.delay, "plant-delay", 20*time.Millisecond, "by so much")
	flags.IntVar(&o.rounds, "rounds", 7, "rounds of each group")
	flags.DurationVar(&o.length, "length", 500*time.Millisecond, "length of each row's measurement in a round")
	flags.IntVar(&o.idle, "idle", 10_000, "idle connections to hold")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.rounds < 1 || o.length <= 0 || o.idle < 1 {
		return errors.New("bench takes flags only; -rounds, -length and -idle must be positive")
	}
	o.log = log
	t, results, err := o.measureAll()
	if err != nil {
		return err
	}
	if o.gobench != "" {
		if err := writeGoBench(o.gobench, results); err != nil {
			return err
		}
	}
	return o.report(t, out)
}

func (o *options) measureAll() (_ *table, results []*result, err error) {
	groups := plan()
	if o.all {
		groups = append(groups, everything()...)
	}
	if o.rows != "" {
		filter, err := regexp.Compile(o.rows)
		if err != nil {
			return nil, nil, err
		}
		if groups, err = selected(groups, filter); err != nil {
			return nil, nil, err
		}
	}
	if o.check != "" {
		if _, err := readTable(o.check); err != nil { // before minutes are spent
			return nil, nil, fmt.Errorf("nothing to compare with: %w", err)
		}
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return nil, nil, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, nil, err
		}
		defer pprof.StopCPUProfile()
	}
	if o.memory != "" {
		runtime.MemProfileRate = 16 << 10
		defer func() { err = errors.Join(err, writeAllocations(o.memory)) }()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o.env = newEnv()
	defer o.env.close()
	m := thisMachine()
	m.Rounds, m.RoundMS, m.Idle = o.rounds, o.length.Milliseconds(), o.idle
	begin := time.Now()
	for _, g := range groups {
		fmt.Fprintf(o.log, "\n%s\n", g.name)
		res, err := o.run(ctx, g)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, nil, err
		}
		results = append(results, res)
	}
	fmt.Fprintf(o.log, "\n%.0f s, %d processors\n", time.Since(begin).Seconds(), runtime.GOMAXPROCS(0))
	return newTable(m, results), results, nil
}

// writeAllocations writes what has been allocated, and by whom.
func writeAllocations(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

// report prints the targets and writes or compares what it was asked to.
func (o *options) report(t *table, out io.Writer) error {
	if o.write != "" {
		if err := t.write(filepath.Join(o.write, "benchmarks.json")); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(o.write, "benchmarks.svg"), []byte(t.plot()), 0o666); err != nil {
			return err
		}
		if err := writeMeasured(filepath.Join(o.write, "BENCHMARKS.md"), t.markdown()); err != nil {
			return err
		}
		fmt.Fprint(out, t.targetTable())
	} else {
		fmt.Fprint(out, t.markdown())
	}
	if o.check != "" {
		earlier, err := readTable(o.check)
		if err != nil {
			return err
		}
		if bad := t.losses(earlier); len(bad) > 0 {
			for _, line := range bad {
				fmt.Fprintln(out, line)
			}
			return fmt.Errorf("%d ratios have lost more than %.0f %% beyond the spread of %s", len(bad), 100*mostLoss, o.check)
		}
		fmt.Fprintf(out, "no ratio has lost more than %.0f %% beyond the spread of %s\n", 100*mostLoss, o.check)
	}
	if len(t.Missing) > 0 {
		return fmt.Errorf("%d rows could not be measured", len(t.Missing))
	}
	return nil
}

// writeGoBench writes what benchstat reads.
func writeGoBench(path string, results []*result) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, res := range results {
		for _, r := range res.rounds {
			for _, name := range res.rows {
				if v, ok := r.rows[name]; ok {
					fmt.Fprintf(f, "Benchmark%s-%d 1 %.0f ns/op %.0f calls/s %.1f p50-us %.1f p99-us %.2f cpu-us/op %.0f B/op %.1f allocs/op\n",
						benchName(name), runtime.GOMAXPROCS(0), 1e9/v.Rate, v.Rate, v.P50, v.P99, v.CPU, v.Bytes, v.Allocs)
				}
			}
		}
	}
	return f.Close()
}

// benchName is a row's name as go test would write it.
func benchName(row string) string {
	b := []byte(row)
	for i, c := range b {
		if c == ' ' {
			b[i] = '/'
		}
	}
	return string(b)
}
