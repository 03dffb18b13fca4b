#!/usr/bin/env bash
# The checks that run no code of the library: format, vet, also for 32 bits, go.mod, leak checks
# in place, layers, shell scripts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

mapfile -t modules < <(modules)
((${#modules[@]} > 0)) || fail "go.work names no module"
check_format "${modules[@]}"
check_vet "${modules[@]}"
check_32bit "${modules[@]}"
check_tidy "${modules[@]}"
check_leakchecks "${modules[@]}"
check_layers "$PWD"
if command -v shellcheck >/dev/null; then
	shellcheck -x scripts/*.sh .ci/run
else
	echo "shellcheck is not installed: the shell scripts were not checked"
fi
printf 'lint: %d modules are clean\n' "${#modules[@]}"
