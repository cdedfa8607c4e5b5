#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs unit-test programs, each under a time limit, and counts what they say.
#
#	test/unit/run.sh PROGRAM…
#
# A program prints "ok NAME", "not ok NAME" and "skip NAME: REASON" lines, or nothing at all; its exit
# status decides then. Status 77 is a skip of the whole program. A failing status always counts.
. "$(dirname "$0")/../lib.sh"
limit=${UNIT_TIMEOUT:-120}
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0:abort_on_error=0:allocator_may_return_null=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
[ $# -gt 0 ] || { fail "no unit test was given"; finish; }

for exe in "$@"; do
	name=$(basename "$exe") out=$SCRATCH/out st=0
	case $name in
	kvm_*)
		why=$(kvm_missing)
		if [ -n "$why" ]; then
			skip "$name" "$why"
			continue
		fi
		;;
	esac
	timeout -k 5 "$limit" "$exe" >"$out" 2>&1 </dev/null || st=$?
	ok=$(grep -c '^ok ' "$out")
	bad=$(grep -c '^not ok ' "$out")
	skips=$(grep -c '^skip ' "$out")
	if [ $st -eq 77 ] && [ "$bad" -eq 0 ]; then
		skip "$name" "$(tail -n 1 "$out")"
		continue
	fi
	passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skips))
	grep -a '^skip ' "$out" | sed "s/^skip /skip $name: /"
	if [ $st -ne 0 ]; then
		grep -a -A 2 '^not ok ' "$out" | sed "s/^not ok /not ok $name: /" | head -n 40
		if [ "$bad" -eq 0 ]; then
			why="exit status $st"
			[ $st -ne 124 ] || why="no end within $limit s"
			fail "$name: $why" "$(grep -a -m1 -A 12 -E 'FAIL|ERROR|runtime error|ssert' "$out" || tail -n 8 "$out")"
		fi
	elif [ "$bad" -gt 0 ]; then
		grep -a -A 2 '^not ok ' "$out" | sed "s/^not ok /not ok $name: /" | head -n 40
	elif [ $((ok + skips)) -eq 0 ]; then
		pass "$name"
		continue
	fi
	[ $st -ne 0 ] || [ "$bad" -gt 0 ] || echo "ok $name ($ok)"
done
finish
