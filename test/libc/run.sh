#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# kvmsbox is built with musl, its unit tests with glibc, and what programs are given has the
# kernel's layout: structures and constants are the same in both builds, but for known differences.
. "$(dirname "$0")/../lib.sh"
if ! command -v musl-gcc >/dev/null; then
	skip "libc" "there is no musl-gcc: install musl-tools"
	finish
fi
for what in structures constants known; do
	if out=$(cd "$ROOT" && python3 test/libc/compare.py "$what" "$BUILD" 2>&1); then
		pass "$what: $out"
	else
		fail "$what" "$out"
	fi
done

# What sentry/lib/musl.c adds to musl.
(
	cd "$ROOT" || exit 1
	gcc -O2 -o "$SCRATCH/glibc" test/libc/functions.c &&
		musl-gcc -static -O2 -D_GNU_SOURCE -I. -I"$BUILD/gen" -isystem "$BUILD/musl/include" \
			-include sentry/lib/musl.h -o "$SCRATCH/musl" test/libc/functions.c \
			sentry/lib/musl.c
) >"$SCRATCH/compiler" 2>&1 || fail "functions are compiled" "$(cat "$SCRATCH/compiler")"
"$SCRATCH/glibc" >"$SCRATCH/want"
"$SCRATCH/musl" >"$SCRATCH/got"
expect functions "" "$(diff "$SCRATCH/want" "$SCRATCH/got" 2>&1)"
expect functions_compare "compared wrongly: 0" "$(tail -n 1 "$SCRATCH/got")"
finish
