#!/usr/bin/env bash
# Everything that CI runs, on a machine that has Go, gcc and make. It goes on
# after a failure, and its last lines say what ran, what failed and what did not
# run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=scripts/services.sh
source scripts/services.sh

command -v go >/dev/null || fail "Go is not installed: see https://go.dev/dl/"
check_compiler
mapfile -t modules < <(modules)
((${#modules[@]} > 0)) || fail "go.work names no module"

log=$(mktemp) RAN_FILE=$(mktemp)
trap 'stop_services; rm -f "$log" "$RAN_FILE"' EXIT
passed=() failed=() left_out=()

# step NAME COMMAND...: runs it in a shell of its own, in which errors end it.
step() {
	local name=$1 rc begin=$SECONDS
	shift
	printf '\n=== %s\n' "$name"
	set +e
	(
		set -e
		"$@"
	) 2>&1 | tee "$log"
	rc=${PIPESTATUS[0]}
	set -e
	if ((rc == 0)); then
		passed+=("$name ($((SECONDS - begin)) s)")
	else
		failed+=("$name")
	fi
}

# demo runs what the README tells people to run.
demo() { make --no-print-directory demo; }

step "gates: planted faults are noticed" scripts/gates.sh
step "format" check_format "${modules[@]}"
step "vet" check_vet "${modules[@]}"
step "go.mod is tidy" check_tidy "${modules[@]}"
step "leak checks are in place" check_leakchecks "${modules[@]}"
step "layers" check_layers "$PWD"
if command -v shellcheck >/dev/null; then
	step "shellcheck" shellcheck -x scripts/*.sh .ci/run
else
	left_out+=("shellcheck (not installed)")
fi
step "demo" demo
printf '\n=== servers that the tests run against\n'
prepare_services
step "servers" check_services
for name in "${services_missing[@]}"; do
	left_out+=("tests against $name, which is not available: see \"servers\" above")
done
step "tests with the race detector" check_tests "${modules[@]}"
for document in SECURITY V1; do
	step "tests that $document.md names have run" check_ran "docs/$document.md" "$(go list -m -f '{{.Path}}' | head -1)" "$RAN_FILE"
done
# Each target briefly, and as many as a minute has time for; the tests before
# have run their seeds. make fuzz takes its time.
export FUZZ_TIME=${FUZZ_TIME:-1s} FUZZ_TOTAL=${FUZZ_TOTAL:-60} FUZZ_PLAIN=1
step "fuzzing, $FUZZ_TIME each" check_fuzz "${modules[@]}"
while IFS= read -r line; do
	left_out+=("$line")
done < <(grep '^not fuzzed: ' "$log" || true)
left_out+=("long fuzzing (make fuzz)" "long faults and floods (make soak)" "benchmarks (make bench)")

printf '\n=== summary, %d s, %s, %d modules\n' "$SECONDS" "$(go env GOVERSION)" "${#modules[@]}"
printf 'ran:     %s\n' "${passed[@]}"
printf 'not run: %s\n' "${left_out[@]}"
if ((${#failed[@]} > 0)); then
	printf 'FAILED:  %s\n' "${failed[@]}"
	exit 1
fi
echo "All checks passed."
