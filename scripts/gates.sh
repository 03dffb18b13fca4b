#!/usr/bin/env bash
# Proves that the checks of lib.sh can fail: plants one fault after the other
# in a module of its own and demands that the check notices it. A gate that has
# never been seen to close is not known to be one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=scripts/services.sh
source scripts/services.sh

repo=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GOWORK=off GOFLAGS=-mod=mod
bad=0

# plant begins a new module with what stands on standard input as its test.
plant() {
	rm -rf "$work/m"
	mkdir -p "$work/m"
	printf 'module gates\n\ngo 1.26\n' >"$work/m/go.mod"
	printf 'package gates\n' >"$work/m/gates.go"
	cat >"$work/m/gates_test.go"
}

# closes NAME TEXT COMMAND...: the command must fail and say TEXT.
closes() {
	local name=$1 text=$2 rc=0
	shift 2
	"$@" >"$work/out" 2>&1 || rc=$?
	if ((rc == 0)); then
		printf 'NOT NOTICED: %s\n' "$name"
		bad=1
	elif ! grep -q -- "$text" "$work/out"; then
		printf 'noticed for another reason: %s\n' "$name"
		cat "$work/out"
		bad=1
	else
		printf 'noticed: %s\n' "$name"
	fi
}

# opens NAME COMMAND...: without the fault the command must succeed.
opens() {
	local name=$1
	shift
	if ! "$@" >"$work/out" 2>&1; then
		printf 'fails without a fault: %s\n' "$name"
		cat "$work/out"
		bad=1
	fi
}

plant <<'GO'
package gates

import "testing"

func TestNothing(t *testing.T) {}
GO
opens "tests" check_tests "$work/m"
opens "gofmt" check_format "$work/m"
opens "vet" check_vet "$work/m"
opens "vet for 32 bits" check_32bit "$work/m"
opens "tidy" check_tidy "$work/m"
closes "a module without fuzz targets" "no fuzz target ran" check_fuzz "$work/m"
closes "a module without goroutines, where some are expected" "was found" check_leakchecks "$work/m"

# What a document names has run: a test, a part of which fails elsewhere, a fuzz
# target with its seeds; but not one that skips, nor one that there is not.
plant <<'GO'
package gates

import "testing"

func TestRuns(t *testing.T) { t.Run("part", func(t *testing.T) {}) }

func TestSkips(t *testing.T) { t.Skip("planted") }

func FuzzRuns(f *testing.F) { f.Fuzz(func(*testing.T, []byte) {}) }
GO
mkdir "$work/m/inner"
printf 'package inner\n\nimport "testing"\n\nfunc TestInner(t *testing.T) {}\n' >"$work/m/inner/inner_test.go"
: >"$work/ran"
RAN_FILE=$work/ran opens "tests of which some are named" check_tests "$work/m"
# shellcheck disable=SC2016
printf 'a `TestRuns` b `FuzzRuns`, `inner.TestInner`\n' >"$work/doc"
opens "named tests" check_ran "$work/doc" gates "$work/ran"
# shellcheck disable=SC2016
for name in '`TestSkips`' '`TestMissing`' '`TestInner`' '`inner.TestRuns`'; do
	printf 'a `TestRuns` %s\n' "$name" >"$work/doc"
	closes "a named test that has not run, $name" "has not run" check_ran "$work/doc" gates "$work/ran"
done
echo nothing >"$work/doc"
closes "a document that names no test" "names no test" check_ran "$work/doc" gates "$work/ran"

plant <<'GO'
package gates

import "testing"

func TestRace(t *testing.T) {
	n, done := 0, make(chan bool)
	go func() { n++; done <- true }()
	n++
	<-done
}
GO
closes "a data race" "DATA RACE" check_tests "$work/m"

# The leak check is the one that the packages here use.
plant <<'GO'
package gates

import (
	"os"
	"testing"

	"gates/leakcheck"
)

func TestMain(m *testing.M) { os.Exit(leakcheck.RunMain(m)) }

func TestLeak(t *testing.T) { go func() { select {} }() }
GO
mkdir "$work/m/leakcheck"
cp "$repo/internal/leakcheck/leakcheck.go" "$work/m/leakcheck/"
closes "a goroutine that is left behind" "1 goroutines are left" check_tests "$work/m"

plant <<'GO'
package gates

import "testing"

func TestNothing(t *testing.T) {}
GO
printf 'package gates\n\nfunc f() {\n\tgo f()\n}\n' >"$work/m/gates.go"
closes "a package that starts goroutines and does not count them" "calls RunMain" check_leakchecks "$work/m"

plant <<'GO'
package gates

import "testing"

func TestFails(t *testing.T) { t.Fatal("planted") }
GO
closes "a test that fails" "planted" check_tests "$work/m"

plant <<'GO'
package gates

import "testing"

func TestHangs(t *testing.T) { <-make(chan int) }
GO
TEST_TIMEOUT=2s closes "a test that hangs" "panic: test timed out" check_tests "$work/m"

plant <<'GO'
package gates
GO
closes "a test file without tests" "no test ran" check_tests "$work/m"
rm "$work/m/gates_test.go"
closes "a module without test files" "no test ran" check_tests "$work/m"
rm "$work/m/gates.go"
closes "a module without Go files" "no Go files" check_format "$work/m"

plant <<'GO'
package gates

func  f( ) {}
GO
closes "a file that is not formatted" "not formatted" check_format "$work/m"

plant <<'GO'
package gates

import (
	"fmt"
	"testing"
)

func TestVet(t *testing.T) { fmt.Printf("%d\n", "text") }
GO
closes "what go vet complains about" "wrong type" check_vet "$work/m"

plant <<'GO'
package gates

import "testing"

func TestWide(t *testing.T) { t.Log(int(1 << 40)) }
GO
opens "vet where an int has 64 bits" check_vet "$work/m"
closes "a number that is too large for 32 bits" "overflows" check_32bit "$work/m"

plant <<'GO'
package gates

import "testing"

func TestNothing(t *testing.T) {}
GO
printf 'module gates\n\ngo 1.26\n\nrequire gates/unused v1.0.0\n\nreplace gates/unused => ./unused\n' >"$work/m/go.mod"
mkdir "$work/m/unused"
printf 'module gates/unused\n\ngo 1.26\n' >"$work/m/unused/go.mod"
closes "a go.mod with what nobody imports" "run go mod tidy" check_tidy "$work/m"

plant <<'GO'
package gates

import "testing"

func TestNothing(t *testing.T) {}
GO
mkdir "$work/m/identity" "$work/m/session"
printf 'package session\n' >"$work/m/session/session.go"
printf 'package identity\n' >"$work/m/identity/identity.go"
opens "layers" check_layers "$work/m"
printf 'package identity\n\nimport _ "gates/session"\n' >"$work/m/identity/identity.go"
closes "an import that does not point down" "not below it" check_layers "$work/m"
mkdir "$work/m/utils"
printf 'package utils\n' >"$work/m/utils/utils.go"
closes "a package without a layer" "has no layer" check_layers "$work/m"

plant <<'GO'
package gates

import "testing"

func FuzzCrash(f *testing.F) {
	f.Add([]byte("a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 2 {
			t.Fatal("planted crash")
		}
	})
}
GO
FUZZ_TIME=20s closes "an input that a fuzz target fails on" "planted crash" check_fuzz "$work/m"

services_missing=(redis)
CI='' opens "a server that is missing, where somebody reads what was left out" check_services
CI=true closes "a server that is missing in CI" "missing.*redis" check_services

if ((bad != 0)); then
	fail "a check does not notice what it is for"
fi
