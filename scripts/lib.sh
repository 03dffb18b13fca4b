# shellcheck shell=bash
# The checks themselves, used by test.sh and lint.sh on this repository and by
# gates.sh on planted faults: what is proved to fail there is what runs here.
# Each takes directories of modules and fails with a reason.

# TEST_TIMEOUT ends the tests of one package that hang.
: "${TEST_TIMEOUT:=12m}"

# fail says why a check does not pass.
fail() {
	printf '%s\n' "$*" >&2
	return 1
}

# modules prints the folders of all modules of the workspace.
modules() { go list -m -f '{{.Dir}}'; }

# go_files prints the Go files of one module, without those of modules inside.
go_files() {
	local module=$1 inner
	local -a skip=()
	while IFS= read -r inner; do
		skip+=(-not -path "$(dirname "$inner")/*")
	done < <(find "$module" -mindepth 2 -name go.mod -not -path '*/.*')
	find "$module" -name '*.go' -not -path "$module/.*" "${skip[@]}"
}

# check_format: every file looks as gofmt writes it.
check_format() {
	local module files bad
	for module in "$@"; do
		files=$(go_files "$module")
		[[ -n $files ]] || fail "$module: no Go files found" || return
		bad=$(tr '\n' '\0' <<<"$files" | xargs -0 gofmt -l) || fail "$module: gofmt does not parse it" || return
		[[ -z $bad ]] || fail "not formatted (gofmt -w):"$'\n'"$bad" || return
	done
}

# check_vet: go vet finds nothing.
check_vet() {
	local module
	for module in "$@"; do
		go -C "$module" vet ./... || return
	done
}

# check_32bit: it compiles where an int has 32 bits, tests too.
check_32bit() {
	local module
	for module in "$@"; do
		GOARCH=386 go -C "$module" vet ./... || return
	done
}

# check_tidy: go.mod names exactly what is imported.
check_tidy() {
	local module
	for module in "$@"; do
		GOWORK=off go -C "$module" mod tidy -diff || fail "$module: run go mod tidy" || return
	done
}

# check_leakchecks: every package that starts goroutines counts them in its
# tests' TestMain.
check_leakchecks() {
	local module dir found=0 bad=0
	for module in "$@"; do
		while IFS= read -r dir; do
			found=$((found + 1))
			if ! grep -qs 'RunMain(m)' "$dir"/*_test.go; then
				printf '%s starts goroutines, but no TestMain of it calls RunMain\n' "$dir" >&2
				bad=1
			fi
		done < <(go_files "$module" | grep -v -e _test.go -e /testdata/ | tr '\n' '\0' |
			xargs -0 grep -lE '^[[:space:]]+(go (func\(|[A-Za-z_.]+\()|.*\.spawn\(|.*AfterFunc\()' | xargs -rn1 dirname | sort -u)
	done
	((found > 0)) || fail "no package that starts goroutines was found" || return
	return "$bad"
}

# layer_of prints the layer of a package of the library, by its folder
# (docs/ARCHITECTURE.md, "Layers"), or nothing.
layer_of() {
	case $1 in
	internal/leakcheck | internal/loglimit | internal/atrest | internal/testpb | proto/owtppb) echo 0 ;;
	internal/wire | identity | transport | session) echo 1 ;;
	transport/transporttest | session/sessiontest | codec | internal/stubs | internal/httpguard | internal/servers) echo 2 ;;
	internal/secure | internal/httpt | internal/wst | internal/memt | internal/amqpt | internal/legacy | session/memory | session/file) echo 3 ;;
	.) echo 4 ;;
	contrib/* | internal/teststubs | examples/stubs/walletpb) echo 5 ;;
	cmd/* | examples | examples/* | bench | bench/* | proto/generate) echo 6 ;;
	esac
}

# check_layers: in the module of a folder, imports point down.
check_layers() {
	local module=$1 name package imports import own other bad=0
	name=$(GOWORK=off go -C "$module" list -m) || return
	while read -r package imports; do
		own=$(layer_of "$(folder_of "$package" "$name")")
		[[ -n $own ]] || fail "$package has no layer: add it to ARCHITECTURE.md and scripts/lib.sh" || return
		for import in $imports; do
			[[ $import == "$name" || $import == "$name"/* ]] || continue
			other=$(layer_of "$(folder_of "$import" "$name")")
			if [[ -z $other ]] || ((other >= own)); then
				printf '%s imports %s, which is not below it\n' "$package" "$import" >&2
				bad=1
			fi
		done
	done < <(go -C "$module" list -f '{{.ImportPath}} {{join .Imports " "}}' ./...)
	[[ -n ${own:-} ]] || fail "$module: no packages found" || return
	return "$bad"
}

# folder_of prints the folder of a package within its module.
folder_of() {
	if [[ $1 == "$2" ]]; then echo .; else echo "${1#"$2"/}"; fi
}

# check_tests: all tests pass under the race detector, and every module has some.
# Most of their time they wait, so more run side by side than there are processors.
# RAN_FILE, if it is set, is told the tests that passed, "package test", one a line.
check_tests() {
	local module json out rc bad=0
	json=$(mktemp) out=$(mktemp)
	for module in "$@"; do
		printf -- '--- tests of %s\n' "$module"
		rc=0
		go -C "$module" test -race -count=1 -parallel 8 -timeout "$TEST_TIMEOUT" -json ./... 2>&1 | tee "$json" | said_of_packages | tee "$out" || rc=$?
		said_of_failed "$json" | tee -a "$out"
		note_passed <"$json"
		if ((rc == 0)) && ! grep -E '^ok[[:space:]]' "$out" | grep -qv 'no tests to run'; then
			fail "$module: no test ran" || rc=$?
		fi
		((rc == 0)) || once_more "$module" "$out" || bad=1
	done
	rm -f "$json" "$out"
	return "$bad"
}

# said turns the output events of go test -json into what was put out.
said() {
	local line
	sed -nE 's/^\{.*"Action":"(build-)?output".*"Output":"(.*)"\}$/\2/p' | while IFS= read -r line; do
		printf '%b' "$line"
	done
}

# said_of_packages prints what packages and builds say, and no test of them; and
# what is no event at all.
said_of_packages() {
	local line
	grep -v -e '"Test":"' -e '"Output":"PASS.n"' | while IFS= read -r line; do
		if [[ $line == '{"'* ]]; then said <<<"$line"; else printf '%s\n' "$line"; fi
	done
}

# said_of_failed prints what the tests said that failed or never came to an end.
said_of_failed() {
	local package name
	while read -r package name; do
		grep -F -e "\"Package\":\"$package\",\"Test\":\"$name\"" -e "\"Package\":\"$package\",\"Test\":\"$name/" "$1" | said
	done < <(comm -23 <(events run <"$1") <(events 'pass|skip' <"$1"))
}

# events prints "package test" of the tests, not of parts of them, to which that
# happened.
events() {
	sed -nE 's/^\{.*"Action":"('"$1"')","Package":"([^"]*)","Test":"([^"/]*)"[,}].*/\2 \3/p' | sort -u
}

note_passed() {
	if [[ -n ${RAN_FILE:-} ]]; then events pass >>"$RAN_FILE"; else cat >/dev/null; fi
}

# check_ran DOCUMENT MODULE RAN: every test that the document names has run and
# passed. Names are "folder.Test", or "Test" in the module's own folder; RAN is
# what check_tests wrote. A test that skips has not run.
check_ran() {
	local name folder test found=0 bad=0
	# shellcheck disable=SC2016
	local named='`([a-z0-9/]+\.)?(Test|Fuzz)[A-Za-z0-9_]+`'
	while IFS= read -r name; do
		found=$((found + 1))
		folder='' test=$name
		if [[ $name == *.* ]]; then folder=/${name%.*} test=${name##*.}; fi
		if ! grep -qxF "$2$folder $test" "$3"; then
			printf '%s is named in %s and has not run, or did not pass\n' "$name" "$1" >&2
			bad=1
		fi
	done < <(grep -oE "$named" "$1" | tr -d '`' | sort -u)
	((found > 0)) || fail "$1 names no test" || return
	((bad == 0)) || return
	printf '%d tests that %s names have run and passed\n' "$found" "$1"
}

# once_more MODULE OUTPUT: tests of real sockets and clocks on a crowded machine
# may fail once for want of time. Up to three that failed run twice more, and
# must pass both times; they are named so that somebody looks. A race, a panic, a
# leak or a build that fails gets no second chance.
once_more() {
	local names
	! grep -qE 'DATA RACE|^panic:|goroutine|build failed|setup failed' "$2" || return 1
	names=$(sed -nE 's/^--- FAIL: (Test[A-Za-z0-9_]+) .*/\1/p' "$2" | sort -u)
	[[ -n $names ]] && (($(wc -l <<<"$names") <= 3)) || return 1
	go -C "$1" test -race -count=2 -timeout "$TEST_TIMEOUT" -json -run "^($(paste -sd '|' <<<"$names"))\$" ./... >"$2" || return 1
	note_passed <"$2"
	printf 'unsteady, failed once and passed twice after that: %s\n' "${names//$'\n'/ }"
}

# fuzz_targets prints "module package function", one a line.
fuzz_targets() {
	local module file name
	for module in "$@"; do
		while IFS= read -r file; do
			while IFS= read -r name; do
				printf '%s ./%s %s\n' "$module" "$(realpath -m --relative-to="$module" "$(dirname "$file")")" "$name"
			done < <(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\([a-z]+ \*testing\.F\).*/\1/p' "$file")
		done < <(go_files "$module" | grep '_test\.go$' | grep -v /testdata/ | sort)
	done
}

# check_fuzz runs each target for FUZZ_TIME, and no new one after FUZZ_TOTAL
# seconds. Targets that were left out are printed as "not fuzzed: ...". A package
# is built once for all its targets: starting go for each takes as long as they run.
# With FUZZ_PLAIN, those of modules other than the first fuzz without being guided
# by coverage: for that all that they import is compiled once more.
check_fuzz() {
	local module package name folder built='' guided work ran=0 start=$SECONDS
	work=$(mktemp -d)
	while read -r module package name; do
		if ((SECONDS - start >= ${FUZZ_TOTAL:-100000})); then
			printf 'not fuzzed: %s %s\n' "$package" "$name"
			continue
		fi
		folder=$module/$package
		if [[ $built != "$folder" ]]; then
			guided=(-fuzz=.)
			[[ -z ${FUZZ_PLAIN:-} || $module == "$1" ]] || guided=()
			go -C "$folder" test -c "${guided[@]}" -o "$work/fuzz.test" . || fail "building $package for fuzzing failed" || return
			built=$folder
		fi
		# The end of the fuzzing time is now and then reported as a failure
		# although nothing was found.
		if ! (cd "$folder" && "$work/fuzz.test" -test.run '^$' -test.fuzz "^$name\$" -test.fuzztime "${FUZZ_TIME:-5s}" \
			-test.fuzzminimizetime 10x -test.fuzzcachedir "$(go env GOCACHE)/fuzz/$(go list .)") >"$work/out" 2>&1 &&
			! only_deadline "$work/out"; then
			cat "$work/out"
			rm -rf "$work"
			fail "fuzzing $package $name failed"
			return
		fi
		printf 'fuzzed %-12s %-24s %s\n' "${package#./}" "$name" "$(sed -nE 's/.*(execs: [0-9]+).*/\1/p' "$work/out" | tail -1)"
		ran=$((ran + 1))
	done < <(fuzz_targets "$@")
	rm -rf "$work"
	((ran > 0)) || fail "no fuzz target ran"
}

# only_deadline: the fuzzer's own end of time, and neither a crasher nor a panic.
only_deadline() {
	grep -q '^    context deadline exceeded$' "$1" && ! grep -qE 'Failing input written|panic|_test\.go:[0-9]+:' "$1"
}

# check_compiler: the race detector needs cgo, and that a C compiler.
check_compiler() {
	local cc work rc=0
	cc=$(go env CC)
	if [[ $(go env CGO_ENABLED) != 1 ]]; then
		fail "The race detector needs cgo, which is off (CGO_ENABLED=0, or no C compiler \"$cc\"). On Debian: apt-get install gcc libc6-dev"
		return
	fi
	work=$(mktemp -d)
	printf '#include <stdlib.h>\nint main(void) { return 0; }\n' >"$work/a.c"
	$cc -o "$work/a" "$work/a.c" >"$work/out" 2>&1 || rc=$?
	if ((rc != 0)); then
		cat "$work/out" >&2
		fail "The race detector needs a C compiler with its headers, and \"$cc\" does not work. On Debian: apt-get install gcc libc6-dev" || true
	fi
	rm -rf "$work"
	return "$rc"
}
