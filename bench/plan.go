package main

import (
	"fmt"
	"math"
	"regexp"
	"slices"
)

// A group is rows that are measured in turns, so that whatever else the machine
// does meets them alike, and the targets that compare them.
type group struct {
	name    string
	rows    []string
	targets []target
	// offered are rows that are then measured again at one fixed rate, half
	// of what the slowest of them has reached.
	offered []string
	// extra measures what is no row, once a round, into figures by name.
	extra func(r *runner, into map[string]float64) error
}

// A target is a bound on a ratio that one round measures.
type target struct {
	id, text string
	// of is the ratio; not a number where the round lacks what it needs.
	of     func(round) float64
	bound  float64
	atMost bool    // the bound is the most that is good, not the least
	least  float64 // what is still tolerable, or 0
	// processor is the same ratio by calls a second of processor time, where
	// that makes sense: others who use the machine change it less. It decides
	// nothing.
	processor func(round) float64
}

// compared is a target that is made of rows' calls a second.
func compared(id, text string, bound float64, ratio func(rate func(row string) float64) float64) target {
	return target{
		id: id, text: text, bound: bound,
		of: func(r round) float64 { return ratio(r.rate) },
		processor: func(r round) float64 {
			return ratio(func(row string) float64 { return r.field(row, func(f figures) float64 { return 1 / f.CPU }) })
		},
	}
}

// beside compares one row with another.
func beside(id, text, row, base string, bound float64) target {
	return compared(id, text, bound, func(rate func(string) float64) float64 { return rate(row) / rate(base) })
}

func (t target) most() target {
	t.atMost = true
	return t
}

func (t target) atLeast(least float64) target {
	t.least = least
	return t
}

// A round is what was measured of one group in one turn.
type round struct {
	rows  map[string]figures
	extra map[string]float64
}

// field reads a figure, or says that it is not there.
func (r round) field(row string, of func(figures) float64) float64 {
	if f, ok := r.rows[row]; ok {
		return of(f)
	}
	return math.NaN()
}

func (r round) rate(row string) float64 {
	return r.field(row, func(f figures) float64 { return f.Rate })
}

func (r round) value(name string) float64 {
	if v, ok := r.extra[name]; ok {
		return v
	}
	return math.NaN()
}

// medians is the quotient of two rows' p50.
func medians(a, b string) func(round) float64 {
	p50 := func(f figures) float64 { return f.P50 }
	return func(r round) float64 { return r.field(a, p50) / r.field(b, p50) }
}

func allocations(row string) func(round) float64 {
	return func(r round) float64 { return r.field(row, func(f figures) float64 { return f.Allocs }) }
}

func extraValue(name string) func(round) float64 {
	return func(r round) float64 { return r.value(name) }
}

func extraRatio(a, b string) func(round) float64 {
	return func(r round) float64 { return r.value(a) / r.value(b) }
}

// slowedBy is how much of the rate remains of what another cipher would leave:
// the time of a call without one cipher and with the other.
func slowedBy(row, with, than, without string) func(func(string) float64) float64 {
	return func(rate func(string) float64) float64 {
		left := 1 / (1/rate(than) - 1/rate(without) + 1/rate(with))
		return rate(row) / left
	}
}

// steepest is the most that a call's time grows from one size to the next, as
// part of how much the size grows.
func steepest(sizes []int, row func(octets int) string) func(func(string) float64) float64 {
	return func(rate func(string) float64) float64 {
		worst := 0.0
		for i := 1; i < len(sizes); i++ {
			grows := rate(row(sizes[i-1])) / rate(row(sizes[i]))
			worst = max(worst, grows/(float64(sizes[i])/float64(sizes[i-1])))
		}
		return worst
	}
}

var (
	allSizes   = []int{256, 4 << 10, 64 << 10, 1 << 20}
	allCallers = []int{1, 64, 1024}
)

// plan is what is measured unless somebody asks for something else: all that
// targets compare, and each peer at least once.
func plan() []*group { return append(callPlan(), dataPlan()...) }

// callPlan has what compares ways to call.
func callPlan() []*group {
	return []*group{
		{
			name: "sealed WebSocket",
			rows: []string{
				"limit raw 256B x64", "limit pb 256B x64", "limit-apart raw 256B x64", "limit-apart pb 256B x64", "grpc-tls raw 256B x64", "grpc-tls pb 256B x64",
				"owtp/ws/sealed raw 256B x64", "owtp/ws/sealed pb 256B x64", "owtp/ws/sealed json 256B x64",
			},
			targets: []target{
				beside("1a", "sealed WebSocket, Protobuf: calls/s beside grpc-go over TLS 1.3", "owtp/ws/sealed pb 256B x64", "grpc-tls pb 256B x64", 2.5).atLeast(2),
				beside("1b", "sealed WebSocket, raw octets: calls/s beside grpc-go over TLS 1.3", "owtp/ws/sealed raw 256B x64", "grpc-tls raw 256B x64", 2.5).atLeast(2),
				beside("1c", "sealed WebSocket, Protobuf: calls/s beside the limit", "owtp/ws/sealed pb 256B x64", "limit pb 256B x64", .75),
				beside("1d", "sealed WebSocket, raw octets: calls/s beside the limit", "owtp/ws/sealed raw 256B x64", "limit raw 256B x64", .75),
				beside("1e", "sealed WebSocket, JSON: calls/s beside grpc-go over TLS 1.3 with Protobuf", "owtp/ws/sealed json 256B x64", "grpc-tls pb 256B x64", 1.5),
			},
			offered: []string{"limit pb 256B x64", "grpc-tls pb 256B x64", "owtp/ws/sealed pb 256B x64", "owtp/ws/sealed json 256B x64"},
		},
		{
			name: "open calls",
			rows: []string{"geth-ws json 256B x64", "owtp/ws/open json 256B x64", "owtp/ws/open pb 256B x64", "owtp/mem/open json 256B x64", "owtp/mem/sealed json 256B x64",
				"grpc pb 256B x64", "connect pb 256B x64", "net/rpc raw 256B x64", "bare-ws json 256B x64"},
			targets: []target{
				beside("1f", "open WebSocket, JSON: calls/s beside go-ethereum's rpc over WebSocket", "owtp/ws/open json 256B x64", "geth-ws json 256B x64", 2),
			},
			offered: []string{"geth-ws json 256B x64", "owtp/ws/open json 256B x64"},
		},
		{
			name: "one caller",
			rows: []string{"bare-ws raw 256B x1", "bare-ws json 256B x1", "owtp/ws/sealed raw 256B x1", "owtp/ws/sealed json 256B x1", "owtp/ws/open json 256B x1", "limit raw 256B x1", "grpc-tls pb 256B x1"},
			targets: []target{
				{id: "2a", text: "one caller, sealed WebSocket, raw octets: p50 beside the bare WebSocket echo", of: medians("owtp/ws/sealed raw 256B x1", "bare-ws raw 256B x1"), bound: 1.3, atMost: true},
				{id: "2b", text: "one caller, sealed WebSocket, JSON: p50 beside the bare WebSocket echo", of: medians("owtp/ws/sealed json 256B x1", "bare-ws json 256B x1"), bound: 1.3, atMost: true},
				{id: "8a", text: "allocations per sealed WebSocket call, client and server together, JSON", of: allocations("owtp/ws/sealed json 256B x1"), bound: 12, atMost: true},
			},
		},
		{
			name: "HTTP",
			rows: []string{"net/http json 256B x64", "owtp/http/open json 256B x64", "owtp/http/sealed json 256B x64", "geth-http json 256B x64"},
			targets: []target{
				beside("3a", "HTTP, open, JSON: calls/s beside the net/http echo", "owtp/http/open json 256B x64", "net/http json 256B x64", .9),
				beside("3b", "HTTP, sealed, JSON: calls/s beside the net/http echo", "owtp/http/sealed json 256B x64", "net/http json 256B x64", .8),
			},
			offered: []string{"net/http json 256B x64", "owtp/http/open json 256B x64", "owtp/http/sealed json 256B x64"},
		},
		{
			name: "signatures",
			rows: []string{"sm2 256B x64", "owtp/http/signed json 256B x64", "owtp/ws/signed json 256B x64", "owtp/ws/sealed+signed json 256B x64"},
			targets: []target{
				beside("4a", "signed both ways over WebSocket: calls/s beside SM2 alone", "owtp/ws/signed json 256B x64", "sm2 256B x64", .8),
				beside("4b", "sealed and signed both ways over WebSocket: calls/s beside SM2 alone", "owtp/ws/sealed+signed json 256B x64", "sm2 256B x64", .8),
				beside("4c", "signed both ways over HTTP: calls/s beside SM2 alone", "owtp/http/signed json 256B x64", "sm2 256B x64", .8),
			},
		},
		{
			name: "brokers",
			rows: []string{"bare-amqp raw 256B x64", "owtp/amqp/open raw 256B x64", "owtp/amqp/sealed json 256B x64", "bare-nats raw 256B x64", "owtp/nats/open raw 256B x64", "owtp/nats/sealed json 256B x64"},
			targets: []target{
				beside("5a", "RabbitMQ, open, raw octets: calls/s beside the bare client", "owtp/amqp/open raw 256B x64", "bare-amqp raw 256B x64", .9),
				beside("5b", "NATS, open, raw octets: calls/s beside the bare client", "owtp/nats/open raw 256B x64", "bare-nats raw 256B x64", .7),
			},
		},
		{
			name: "many callers",
			rows: []string{"owtp/ws/sealed json 256B x64", "owtp/ws/sealed json 256B x1024", "owtp/http/open json 256B x64", "owtp/http/open json 256B x1024", "grpc-tls pb 256B x1024", "limit pb 256B x1024"},
			targets: []target{
				beside("6a", "sealed WebSocket, JSON: 1,024 callers beside 64", "owtp/ws/sealed json 256B x1024", "owtp/ws/sealed json 256B x64", .95),
				beside("6b", "HTTP, open, JSON: 1,024 callers beside 64", "owtp/http/open json 256B x1024", "owtp/http/open json 256B x64", .95),
			},
		},
	}
}

// dataPlan has what compares data, ciphers and what connections cost.
func dataPlan() []*group {
	return []*group{
		{
			name: "sizes",
			rows: []string{"owtp/ws/sealed raw 256B x64", "owtp/ws/sealed raw 4KiB x64", "owtp/ws/sealed raw 64KiB x64", "owtp/ws/sealed raw 1MiB x64",
				"aes-gcm 1MiB x64", "limit raw 1MiB x64", "grpc-tls raw 1MiB x64"},
			targets: []target{
				beside("6c", "1 MiB sealed over WebSocket, raw octets: calls/s beside AES-GCM from memory to memory", "owtp/ws/sealed raw 1MiB x64", "aes-gcm 1MiB x64", .6),
				compared("6d", "sealed WebSocket, raw octets, 256 B to 1 MiB: a call's time grows no more than its size", 1, steepest(allSizes, func(n int) string { return "owtp/ws/sealed raw " + sizeName(n) + " x64" })).most(),
			},
		},
		{
			name: "data formats",
			rows: []string{
				"owtp/ws/sealed struct-json 256B x64", "owtp/ws/sealed struct-pb 256B x64", "owtp/ws/sealed pb 256B x64",
				"owtp/ws/sealed struct-json 64KiB x64", "owtp/ws/sealed struct-pb 64KiB x64", "owtp/ws/sealed pb 64KiB x64",
			},
			targets: []target{
				beside("10a", "typed handlers, sealed WebSocket, 256 B: calls/s of Protobuf messages beside structs in JSON", "owtp/ws/sealed pb 256B x64", "owtp/ws/sealed struct-json 256B x64", 1),
				beside("10b", "the same, 64 KiB of structured data", "owtp/ws/sealed pb 64KiB x64", "owtp/ws/sealed struct-json 64KiB x64", 2),
				beside("10c", "typed handlers, sealed WebSocket, 256 B: calls/s of structs in Protobuf beside structs in JSON", "owtp/ws/sealed struct-pb 256B x64", "owtp/ws/sealed struct-json 256B x64", 1),
				beside("10d", "the same, 64 KiB of structured data", "owtp/ws/sealed struct-pb 64KiB x64", "owtp/ws/sealed struct-json 64KiB x64", 2).atLeast(1.5),
			},
		},
		{
			name: "SM4",
			rows: []string{"owtp/ws/sealed raw 4KiB x64", "owtp/ws/sealed-sm4 raw 4KiB x64", "owtp/ws/sealed json 256B x64", "owtp/ws/sealed-sm4 json 256B x64", "aes-gcm 256B x64", "sm4-gcm 256B x64", "aes-gcm 4KiB x64", "sm4-gcm 4KiB x64"},
			targets: []target{
				compared("6e", "sealed with SM4 over WebSocket, 256 B: calls/s beside what SM4-GCM in the place of AES-GCM leaves", .8, slowedBy("owtp/ws/sealed-sm4 json 256B x64", "sm4-gcm 256B x64", "owtp/ws/sealed json 256B x64", "aes-gcm 256B x64")),
				compared("6f", "the same, 4 KiB", .8, slowedBy("owtp/ws/sealed-sm4 raw 4KiB x64", "sm4-gcm 4KiB x64", "owtp/ws/sealed raw 4KiB x64", "aes-gcm 4KiB x64")),
			},
		},
		{
			name: "handshakes",
			rows: []string{"handshake 0B x64", "handshake-parts 0B x64", "owtp/connect 0B x64"},
			targets: []target{
				beside("9", "a hybrid handshake, both sides: time beside the sum of its primitives", "handshake-parts 0B x64", "handshake 0B x64", 1.5).most(),
			},
		},
		idleGroup,
	}
}

// everything is the whole cross product, without targets.
func everything() []*group {
	var groups []*group
	for _, s := range slices.Concat(peers, ours) {
		g := &group{name: "all of " + s.name}
		for _, f := range s.formats {
			for _, n := range allSizes {
				for _, c := range allCallers {
					g.rows = append(g.rows, (&row{s, job{format: f, octets: n, callers: c}}).String())
				}
			}
		}
		groups = append(groups, g)
	}
	return groups
}

// selected leaves what matches: groups whose name does, targets whose number or
// text does with the rows they compare, and rows.
func selected(groups []*group, filter *regexp.Regexp) ([]*group, error) {
	var some []*group
	for _, g := range groups {
		if filter.MatchString(g.name) {
			some = append(some, g)
			continue
		}
		part := &group{name: g.name}
		for _, t := range g.targets {
			if filter.MatchString(t.id) || filter.MatchString(t.text) {
				part.targets = append(part.targets, t)
			}
		}
		for _, name := range g.rows {
			if filter.MatchString(name) || slices.ContainsFunc(part.targets, func(t target) bool { return uses(t, g.rows, name) }) {
				part.rows = append(part.rows, name)
			}
		}
		for _, name := range g.offered {
			if filter.MatchString(name) {
				part.offered = append(part.offered, name)
			}
		}
		if g.extra != nil && len(part.targets) > 0 {
			part.extra = g.extra
		}
		if len(part.rows) > 0 || part.extra != nil {
			some = append(some, part)
		}
	}
	if len(some) == 0 {
		return nil, fmt.Errorf("no group, target or row matches %q", filter)
	}
	return some, nil
}

// uses reports whether a target needs a row: without it there is no ratio.
func uses(t target, all []string, name string) bool {
	r := round{rows: make(map[string]figures)}
	for _, other := range all {
		r.rows[other] = figures{Rate: 1, P50: 1, CPU: 1, Allocs: 1}
	}
	delete(r.rows, name)
	return math.IsNaN(t.of(r))
}
