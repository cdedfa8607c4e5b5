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
finish
