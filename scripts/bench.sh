#!/usr/bin/env bash
# Measures calls over every transport in every mode, and prints a table. Client
# and server share the machine: what else runs on it shows in the figures, so
# run it several times and look at the spread.
#
#   BENCH=regexp    which benchmarks; default: all ('Call/ws/.*/64/256B')
#   BENCH_COUNT=n   how often each runs; default 1
#   BENCH_OUT=file  also keeps what go test prints, for benchstat
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Long enough that the garbage collector's rounds even out, and fixed, so that
# two tables compare.
readonly benchtime=2s

out=$(mktemp)
trap 'rm -f "$out"' EXIT
begin=$SECONDS
# All of it takes some minutes: whoever watches sees each line as it comes.
show() { if [[ -t 2 ]]; then tee "$out" >&2; else cat >"$out"; fi; }
if ! go test -run '^$' -bench "${BENCH:-.}" -benchtime "$benchtime" -count "${BENCH_COUNT:-1}" -timeout 2h . | show; then
	[[ -t 2 ]] || cat "$out" >&2
	exit 1
fi
if [[ -n ${BENCH_OUT:-} ]]; then
	cp "$out" "$BENCH_OUT"
fi
if ! grep -q '^Benchmark' "$out"; then
	printf 'no benchmark matches %s\n' "${BENCH:-.}" >&2
	exit 1
fi

printf '%s, %s processors, %s, load %s, commit %s\n\n' "$(sed -n 's/^cpu: //p' "$out")" \
	"$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)" "$(go env GOVERSION)" \
	"$(uptime | sed 's/.*average[s]*: //')" "$(git rev-parse --short HEAD 2>/dev/null || printf 'unknown')"
awk '
function value(unit,   i) {
	for (i = 3; i < NF; i += 2) if ($(i + 1) == unit) return $i
	return "-"
}
BEGIN { printf "%-34s %10s %12s %12s %12s %11s\n", "benchmark", "calls/s", "p50 us", "p99 us", "B/call", "allocs/call" }
/^Benchmark/ {
	name = $1
	sub(/^Benchmark/, "", name)
	sub(/-[0-9]+$/, "", name)
	rate = value("calls/s")
	if (rate == "-") rate = value("calls/s-bound") # what the machine could do in signatures alone
	printf "%-34s %10.0f %12s %12s %12s %11s\n", name, rate, value("p50-us"), value("p99-us"), value("B/op"), value("allocs/op")
}' "$out"
printf '\nSM2 is the bound that signatures alone set on calls signed both ways. %d s.\n' "$((SECONDS - begin))"
