#!/usr/bin/env bash
# The long forms of the fault tests: 20,000 calls over each transport while the
# server is restarted and messages are lost, renewal with very low limits under
# the race detector, and strangers that flood while honest callers work. Prints
# what came of the calls.
#
#   SOAK_CALLS=n     calls over each transport; default 20000
#   SOAK_RENEW=time  of renewal, over each transport; default 3m
#   SOAK_ONLY=name   one of: faults, renew, strangers; default: all
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

only=${SOAK_ONLY:-}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
ran=0

# soak NAME ARGUMENTS...: runs go test and shows what the tests say.
soak() {
	local name=$1 rc=0
	shift
	[[ -z $only || $only == "$name" ]] || return 0
	printf '=== %s: go test %s\n' "$name" "$*"
	go test -count=1 -v -timeout 2h "$@" . >"$log" 2>&1 || rc=$?
	grep -v '^=== ' "$log"
	((rc == 0)) || fail "$name failed" || return
	! grep -q 'no tests to run' "$log" || fail "$name: no test ran" || return
	ran=$((ran + 1))
}

OWTP_SOAK_CALLS=${SOAK_CALLS:-20000} soak faults -run '^TestFaultSoak$'
OWTP_SOAK_RENEW=${SOAK_RENEW:-3m} soak renew -race -run '^TestRenewUnderLoad$|^TestRenewHTTPSession$'
OWTP_SOAK_STRANGERS=1000 soak strangers -run '^TestStrangers'
((ran > 0)) || fail "nothing is called \"$only\": faults, renew or strangers"
