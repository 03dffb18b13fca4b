#!/usr/bin/env bash
# Measures this library beside its peers in one run (bench/), and writes
# docs/BENCHMARKS.md, docs/benchmarks.json and docs/benchmarks.svg. Client, server
# and brokers share the machine: what else runs on it shows in the figures.
#
#   BENCH=regexp    the groups, targets and rows that match, printed only ('^1', 'HTTP', 'owtp/ws/.* x64')
#   BENCH_ALL=1     the whole cross product too: an hour
#   BENCH_FLAGS=... further flags of the program (go run ./bench -help)
#   BENCH_OUT=file  keeps each round in the form of go test -bench, for benchstat
#
#   scripts/bench.sh check   compares the ratios with docs/benchmarks.json instead
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/services.sh
source scripts/services.sh

flags=()
if [[ -n ${BENCH:-} ]]; then flags+=(-rows "$BENCH"); fi
if [[ -n ${BENCH_ALL:-} ]]; then flags+=(-all); fi
if [[ -n ${BENCH_OUT:-} ]]; then flags+=(-gobench "$BENCH_OUT"); fi
case ${1:-} in
check) flags+=(-check docs/benchmarks.json) ;;
"") if [[ -z ${BENCH:-} ]]; then flags+=(-write docs); fi ;;
*)
	printf 'usage: scripts/bench.sh [check]\n' >&2
	exit 2
	;;
esac
read -ra more <<<"${BENCH_FLAGS:-}"

work=$(mktemp -d)
trap 'stop_services; rm -rf "$work"' EXIT
services=(nats rabbitmq) # the others are measured by bench-stores.sh
prepare_services >&2
# Ten thousand connections are held by one process.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
go build -C bench -o "$work/bench" .
"$work/bench" "${flags[@]}" "${more[@]}"
