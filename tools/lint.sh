#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Static checks beyond the compilers' warnings: line length and white space, the SPDX line, scripts'
# syntax, typedefs of structs, then cppcheck and clang-format as far as they are installed.
# Ends with "N passed, N failed, N skipped".
set -u
cd "$(dirname "$0")/.." || exit 2
passed=0 failed=0 skipped=0
sources=$(find arch platform vfs loader sentry tools test -name '*.[ch]' | sort)
scripts=$(find tools test .ci -name '*.sh' -o -path '.ci/run' | sort)

# result NAME OUTPUT: no output is a pass.
result() {
	if [ -z "$2" ]; then
		echo "ok $1"
		passed=$((passed + 1))
	else
		echo "not ok $1"
		printf '%s\n' "$2" | head -n 15 | sed 's/^/    /'
		failed=$((failed + 1))
	fi
}

# shellcheck disable=SC2086
result "lines of at most 100 columns" "$(awk '{ s = $0; n = 0
	for (i = 1; i <= length(s); i++) n += substr(s, i, 1) == "\t" ? 8 - n % 8 : 1
	if (n > 100 && s !~ /[^ -~\t]/) print FILENAME ":" FNR ": " n " columns" }' $(echo "$sources" | grep -v ^test/))"
# shellcheck disable=SC2086
result "no white space at line ends" "$(grep -nE '[ 	]+$' $sources $scripts | cut -c1-100)"
# shellcheck disable=SC2086
result "SPDX first" "$(for f in $sources $scripts; do
	head -n 2 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' || echo "$f"; done)"
# shellcheck disable=SC2086
result "no typedef of a struct" "$(grep -nE '^[ 	]*typedef[ 	]+(struct|union|enum)' $sources)"
# shellcheck disable=SC2086
result "scripts parse" "$(for f in $scripts; do
	case $(head -n 8 "$f")$f in *bash* | *test/apps/*) bash -n "$f" 2>&1 ;; *) sh -n "$f" 2>&1 ;; esac; done)"
if command -v cppcheck >/dev/null; then
	result cppcheck "$(cppcheck -q -j 2 --inline-suppr --enable=warning,portability --std=c11 \
		--suppress=missingInclude --suppress=unknownMacro --suppress=uninitvar \
		--suppress=nullPointerArithmetic --suppress=comparePointers --suppress=internalAstError \
		-I. -Iarch/x86_64 -D_GNU_SOURCE -D__x86_64__ --template='{file}:{line}: {id}: {message}' \
		arch platform vfs loader sentry tools 2>&1 | grep -v '^nofile')"
else
	echo "skip cppcheck: not installed"
	skipped=$((skipped + 1))
fi
if command -v clang-format >/dev/null; then
	# shellcheck disable=SC2086
	result "clang-format" "$(clang-format --dry-run $(echo "$sources" | grep -v ^test/) 2>&1 |
		grep warning | cut -c1-120)"
else
	echo "skip clang-format: not installed"
	skipped=$((skipped + 1))
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
