#!/usr/bin/env bash
# Fuzzes every target of every module: FUZZ_TIME each (default 1m), and no new
# one after FUZZ_TOTAL seconds if that is set. What makes a target fail is kept
# under testdata/fuzz and is a test from then on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

mapfile -t modules < <(modules)
((${#modules[@]} > 0)) || fail "go.work names no module"
FUZZ_TIME=${FUZZ_TIME:-1m} check_fuzz "${modules[@]}"
