#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Everything that `make check` (short) and `make check-long` (long) run, group by group, going on after
# a failure.
#
#	test/check.sh short|long [GROUP…]
#
# A group is a command that ends with "N passed, N failed, N skipped"; one that doesn't counts as a
# failure more. Output goes to BUILD/check/GROUP.log, what failed or was skipped to stdout. At the end
# come a table, what failed once more, and as the last line the sum. The exit status is 0 only if
# nothing failed.
. "$(dirname "$0")/lib.sh"
cd "$ROOT" || exit 2
length=${1:-short}
case $length in
short | long) shift ;;
*) echo "usage: check.sh short|long [GROUP…]" >&2; exit 2 ;;
esac
only=" $* "
logs=$BUILD/check
mkdir -p "$logs"
table=$SCRATCH/table failures=$SCRATCH/failures
: >"$failures"
MAKE=${MAKE:-make}
jobs=-j$(getconf _NPROCESSORS_ONLN)
export BUILD KVMSBOX

wanted() { [ "$only" = "  " ] || [[ $only == *" $1 "* ]]; }

note() {
	passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
	printf '%-16s %6d %6d %6d   %4d s%s\n' "$1" "$2" "$3" "$4" "$5" "${6:+   $6}" >>"$table"
}

# group NAME SECONDS COMMAND…
group() {
	local name=$1 limit=$2 log=$logs/$1.log st=0 start=$SECONDS line p f s why=
	shift 2
	wanted "$name" || return 0
	echo "== $name"
	timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null || st=$?
	grep -aE '^ *(not ok|skip|unexpected pass) ' -A 3 "$log" | grep -avE '^--|^(ok|FAIL) ' | head -n "${CHECK_LINES:-60}"
	line=$(tail -n 1 "$log")
	if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
		p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[3]}
		if [ $st -ne 0 ] && [ "$f" -eq 0 ]; then
			f=1 why="exit status $st"
		fi
	else
		p=$(grep -ac '^ok ' "$log") f=$(($(grep -ac '^not ok ' "$log") + 1))
		s=$(grep -ac '^skip ' "$log")
		why="no closing line, exit status $st"
		[ $st -ne 124 ] || why="no end within $limit s"
		echo "not ok $name: $why"
		tail -n 5 "$log" | sed 's/^/    /'
	fi
	grep -aE '^ *not ok ' -A 3 "$log" | grep -avE '^(--|ok|FAIL) ?|passed, ' | head -n 40 | cut -c1-200 | sed "s/^/$name: /" >>"$failures"
	echo "$p passed, $f failed, $s skipped ($name)"
	note "$name" "$p" "$f" "$s" $((SECONDS - start)) "$why"
}

# step NAME SECONDS COMMAND…: one test, passed when the command succeeds.
step() {
	local name=$1 limit=$2 log=$logs/$1.log st=0 start=$SECONDS
	shift 2
	wanted "$name" || return 0
	echo "== $name"
	timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null || st=$?
	if [ $st -eq 0 ]; then
		note "$name" 1 0 0 $((SECONDS - start))
		return 0
	fi
	echo "not ok $name: exit status $st"
	grep -aE 'error|Error|rror:|not ok|missing' "$log" | head -n 15 | sed 's/^/    /'
	tail -n 3 "$log" | sed 's/^/    /'
	note "$name" 0 1 0 $((SECONDS - start)) "exit status $st"
	return 1
}

# kvm_group: a group, or one named skip where there is no KVM.
kvm_group() {
	local why
	wanted "$1" || return 0
	why=$(kvm_missing)
	if [ -n "$why" ]; then
		echo "skip $1: $why"
		note "$1" 0 0 1 0 "$why"
		return
	fi
	group "$@"
}

step deps 1800 tools/install-deps.sh build test svm
step images 3600 test/images.sh debian
step build 1800 "$MAKE" $jobs all
step clang 1800 "$MAKE" $jobs clang
group layers 60 tools/check-layers.sh
group layers-self 60 tools/check-layers.sh --self-test
group lint 600 tools/lint.sh
group libc 300 test/libc/run.sh
step unit-build 1800 "$MAKE" $jobs unit-build
group unit 3600 "$MAKE" -s unit-run
group conform-native 1200 test/conform/run.sh native
group conform-ptrace 2400 test/conform/run.sh ptrace
group conform-systrap 2400 test/conform/run.sh systrap
kvm_group conform-kvm 2400 test/conform/run.sh kvm
# systrap as it is where the host has no listeners for it.
group unit-futex 600 env KVMSBOX_STUB_NOTIFY=0 test/unit/run.sh "$BUILD/plain/test/unit/systrap_platform"
# shellcheck disable=SC2046
group conform-futex 2400 env KVMSBOX_STUB_NOTIFY=0 test/conform/run.sh systrap \
	$([ "$length" = long ] || echo callsite proc_fork sig_basic sig_block sig_context threads)
# The sentry with the sanitizers and the lock order watching it; leaks can't be looked for in lockdown.
step san-build 1800 "$MAKE" $jobs san
group conform-san 2400 env KVMSBOX="$BUILD/san/kvmsbox" ASAN_OPTIONS=detect_leaks=0 CONFORM_TIMEOUT=180 \
	CONFORM_SECONDS=60 test/conform/run.sh systrap
kvm_group conform-san-kvm 2400 env KVMSBOX="$BUILD/san/kvmsbox" ASAN_OPTIONS=detect_leaks=0 CONFORM_TIMEOUT=180 \
	CONFORM_SECONDS=60 test/conform/run.sh kvm
group serve-san 1200 env KVMSBOX_SERVE="$BUILD/san/kvmsbox-serve" test/serve/run.sh
group image 1200 test/image/run.sh
group load 600 test/load/run.sh
fn_requests=$([ "$length" = long ] && echo 4000 || echo 40)
group function-ptrace 3600 test/function/run.sh ptrace "$fn_requests"
group function-systrap 3600 test/function/run.sh systrap "$fn_requests"
kvm_group function-kvm 3600 test/function/run.sh kvm "$fn_requests"
group function-san 1200 env KVMSBOX="$BUILD/san/kvmsbox" ASAN_OPTIONS=detect_leaks=0 test/function/run.sh systrap 4
group serve 900 test/serve/run.sh
serve_load=$([ "$length" = long ] && echo 60 100000 || echo 3)
# shellcheck disable=SC2086
group serve-ptrace 7200 test/serve/sandboxes.sh ptrace $serve_load
# shellcheck disable=SC2086
group serve-systrap 7200 test/serve/sandboxes.sh systrap $serve_load
# shellcheck disable=SC2086
kvm_group serve-kvm 7200 test/serve/sandboxes.sh kvm $serve_load
[ "$length" = short ] || group soak-systrap 5400 test/serve/sandboxes.sh systrap 3 0 60
group cli-ptrace 1200 test/cli/run.sh ptrace
group cli-systrap 1200 test/cli/run.sh systrap
kvm_group cli-kvm 1200 test/cli/run.sh kvm
group named-ptrace 1200 test/cli/named.sh ptrace
group named-systrap 1200 test/cli/named.sh systrap
kvm_group named-kvm 1200 test/cli/named.sh kvm
group snapshot-ptrace 1200 test/snapshot/run.sh ptrace
group snapshot-systrap 1200 test/snapshot/run.sh systrap
kvm_group snapshot-kvm 1200 test/snapshot/run.sh kvm
if [ "$length" = long ]; then
	group apps-ptrace 21600 test/apps/run.sh ptrace
	group apps-systrap 21600 test/apps/run.sh systrap
	kvm_group apps-kvm 21600 test/apps/run.sh kvm
	group kill-ptrace 3600 test/kill/run.sh ptrace 200
	group kill-systrap 3600 test/kill/run.sh systrap 200
	kvm_group kill-kvm 3600 test/kill/run.sh kvm 200
	group fuzz 3600 "$MAKE" -s fuzz
else
	group apps-ptrace 3600 test/apps/run.sh --short ptrace
	group apps-systrap 3600 test/apps/run.sh --short systrap
	kvm_group apps-kvm 3600 test/apps/run.sh --short kvm
	group kill-ptrace 600 test/kill/run.sh ptrace 20
	group kill-systrap 600 test/kill/run.sh systrap 20
	kvm_group kill-kvm 600 test/kill/run.sh kvm 20
fi
group bench-selftest 600 "$MAKE" -s bench-selftest
group svm 3600 test/svm/check.sh

echo
printf '%-16s %6s %6s %6s %6s\n' group passed failed skipped time
cat "$table"
# Once more, where nobody has to look for it.
[ ! -s "$failures" ] || { echo; head -n 100 "$failures"; }
echo
finish
