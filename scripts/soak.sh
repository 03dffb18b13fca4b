#!/usr/bin/env bash
# The long forms of the fault tests: 20,000 calls over each transport while the
# server is restarted and messages are lost, renewal with very low limits under
# the race detector, strangers that flood while honest callers work, ten thousand
# connections that are held meanwhile, 10,000 calls over each shared store while
# a replica is killed and the store paused and restarted, and 10,000 over each
# broker for each thing that fails there. Prints what came of the calls.
#
#   SOAK_CALLS=n     calls over each transport, default 20000; each store,
#                    and each fault of message queues, 10000
#   SOAK_RENEW=time  of renewal, over each transport; default 3m
#   SOAK_CONNS=n     connections that are held; default 10000, which two
#                    processes need a limit of 11,000 open files for, each
#   SOAK_ONLY=name   one of: faults, renew, strangers, idle, replicas, queues;
#                    default: all
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

only=${SOAK_ONLY:-}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
ran=0

# soak NAME FOLDER ARGUMENTS...: runs go test there and shows what the tests say.
soak() {
	local name=$1 folder=$2 rc=0
	shift 2
	[[ -z $only || $only == "$name" ]] || return 0
	printf '=== %s: go test %s\n' "$name" "$*"
	go -C "$folder" test -count=1 -v -timeout 2h "$@" . >"$log" 2>&1 || rc=$?
	grep -v '^=== ' "$log"
	((rc == 0)) || fail "$name failed" || return
	! grep -q -e 'no tests to run' -e '^ *--- SKIP' "$log" || fail "$name: a test did not run" || return
	ran=$((ran + 1))
}

OWTP_SOAK_CALLS=${SOAK_CALLS:-20000} soak faults . -run '^TestFaultSoak$'
OWTP_SOAK_RENEW=${SOAK_RENEW:-3m} soak renew . -race -run '^TestRenewUnderLoad$|^TestRenewExchangeSession$'
OWTP_SOAK_STRANGERS=1000 soak strangers . -run '^TestStrangers'
OWTP_SOAK_CONNS=${SOAK_CONNS:-10000} soak idle . -run '^TestIdleConnections$'
OWTP_REPLICA_CALLS=${SOAK_CALLS:-10000} soak replicas contrib/replicas -run '^TestReplicas$'
OWTP_QUEUE_CALLS=${SOAK_CALLS:-10000} soak queues contrib/replicas -run '^TestQueueFaults$'
((ran > 0)) || fail "nothing is called \"$only\": faults, renew, strangers, idle, replicas or queues"
