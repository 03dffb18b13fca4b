#!/usr/bin/env bash
# Measures stores and what is in memory beside the bare clients, by go test, and
# prints tables. What else runs on the machine shows in the figures, so run it
# several times and look at the spread. Calls are measured by bench.sh.
#
#   BENCH=regexp    which benchmarks; default: all ('Store', 'Growth')
#   BENCH_COUNT=n   how often each runs; default 1
#   BENCH_OUT=file  also keeps what go test prints, for benchstat
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=scripts/services.sh
source scripts/services.sh

# Long enough that the garbage collector's rounds even out, and fixed, so that
# two tables compare.
readonly benchtime=2s

out=$(mktemp)
trap 'stop_services; rm -f "$out"' EXIT
begin=$SECONDS

# packages prints module and package of what is measured: the stores, and all
# that has benchmarks in other modules. The parts of the library have benchmarks
# too, for who works on them (go test -bench).
packages() {
	local module package
	printf '%s %s\n' "$PWD" ./session/memory "$PWD" ./session/file
	while IFS= read -r module; do
		[[ $module != "$PWD" ]] || continue
		while IFS= read -r package; do
			printf '%s %s\n' "$module" "./${package#"$module"/}"
		done < <(go_files "$module" | grep _test.go | tr '\n' '\0' | xargs -0 grep -l '^func Benchmark' | xargs -rn1 dirname | sort -u)
	done < <(modules)
}

# All of it takes some minutes: whoever watches sees each line as it comes.
show() { if [[ -t 2 ]]; then tee -a "$out" >&2; else cat >>"$out"; fi; }
prepare_services >&2
bad=0
while read -r module package; do
	go -C "$module" test -run '^$' -bench "${BENCH:-.}" -benchtime "$benchtime" -count "${BENCH_COUNT:-1}" -timeout 2h "$package" </dev/null | show || bad=1
done < <(packages)
if ((bad)); then
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

printf '%s, %s processors, %s, load %s, commit %s\n' "$(sed -n 's/^cpu: //p' "$out" | head -1)" \
	"$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)" "$(go env GOVERSION)" \
	"$(uptime | sed 's/.*average[s]*: //')" "$(git rev-parse --short HEAD 2>/dev/null || printf 'unknown')"
awk '
function value(unit,   i) {
	for (i = 3; i < NF; i += 2) if ($(i + 1) == unit) return $i
	return "-"
}
function row(table, line) { rows[table] = rows[table] line "\n" }
BEGIN {
	heads["calls"] = sprintf("%-46s %10s %12s %12s %12s %11s", "calls", "calls/s", "p50 us", "p99 us", "B/call", "allocs/call")
	heads["queues"] = sprintf("%-46s %10s %12s %12s %12s", "queues: calls a second, bare requests in turns", "calls/s", "bare/s", "ratio", "allocs/call")
	heads["stores"] = sprintf("%-46s %10s %12s %12s", "stores: one call, and by how many at a time", "us", "bare us", "ratio to bare")
	heads["growth"] = sprintf("%-46s %10s %12s %12s", "sessions: one call where there are so many", "get us", "set us", "B/session")
	heads["memory"] = sprintf("%-46s %10s %12s %12s", "memory: 64 goroutines", "ops/s", "two free CPUs", "allocs/op")
	heads["others"] = sprintf("%-46s %10s %12s %12s", "others", "us/op", "B/op", "allocs/op")
	tables = split("calls queues stores growth memory others", order, " ")
}
END {
	for (i = 1; i <= tables; i++) if (rows[order[i]] != "") printf "\n%s\n%s", heads[order[i]], rows[order[i]]
}
/^pkg: / {
	of = $2
	sub(/.*\/owtp$/, "", of)
	sub(/.*\//, "", of)
}
/^Benchmark/ {
	name = $1
	sub(/^Benchmark/, "", name)
	sub(/-[0-9]+$/, "", name)
	if (of != "") name = of " " name
	rate = value("calls/s")
	if (value("call/bare") != "-")
		row("queues", sprintf("%-46s %10.0f %12.0f %12.2f %12s", name, rate, value("bare-calls/s"), value("call/bare"), value("allocs/op")))
	else if (rate != "-")
		row("calls", sprintf("%-46s %10.0f %12s %12s %12s %11s", name, rate, value("p50-us"), value("p99-us"), value("B/op"), value("allocs/op")))
	else if (value("store-us") != "-")
		row("stores", sprintf("%-46s %10.2f %12s %12s", name, value("store-us"), value("bare-us"), value("store/bare")))
	else if (value("get-us") != "-")
		row("growth", sprintf("%-46s %10.2f %12s %12s", name, value("get-us"), value("set-us"), value("B/session")))
	else if (value("ops/s") != "-")
		row("memory", sprintf("%-46s %10.0f %12.0f %12s", name, value("ops/s"), value("ops/s-on-two"), value("allocs/op")))
	else
		row("others", sprintf("%-46s %10.1f %12s %12s", name, value("ns/op") / 1000, value("B/op"), value("allocs/op")))
}' "$out"
printf '\n"two free CPUs" is what the processor time used comes to.\n'
for name in "${services_missing[@]}"; do
	printf 'not measured: what needs %s, which is not available\n' "$name"
done
printf '%d s\n' "$((SECONDS - begin))"
