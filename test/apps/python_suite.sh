#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# python3 -m test of what leans on the kernel. Tests that python-expected.txt lists count as skipped.
# timeout: 7200
# long
BOX_LIMIT=1500
. "$(dirname "$0")/app.sh"
expected=$HERE/python-expected.txt

for module in ${PYTHON_SUITE:-test_os test_subprocess test_threading test_signal test_mmap}; do
	log=$SCRATCH/$module
	timeout -k 10 1500 bash -c "$(declare -f box); $(declare -p BOX_LIMIT KVMSBOX PLATFORM TEST_CACHE BOX_OPTS IMAGE TREE 2>/dev/null)"'
		box env HOME=/tmp LC_ALL=C.UTF-8 python3 -m test --timeout 300 -v "$1"' sh "$module" >"$log" 2>&1 </dev/null
	st=$?
	ok=$(grep -ac ' \.\.\. ok$' "$log")
	passed=$((passed + ok))
	echo "# $module: status $st, $ok ok, $(grep -ac ' \.\.\. skipped ' "$log") skipped by itself"
	bad=0
	while read -r t; do
		bad=$((bad + 1))
		why=$(awk -v t="$t" -v p="$PLATFORM" '$1 == t || $1 == t "@" p { $1 = ""; print; exit }' "$expected")
		if [ -n "$why" ]; then
			skip "$module $t" "expected failure:$why"
		else
			fail "$module $t" "$(grep -a -A 30 "^\(FAIL\|ERROR\): ${t##*.} " "$log" | grep -aE -m3 '^[A-Za-z]+(Error|Exception|Expired)?:|Error')"
		fi
	done < <(sed -n 's/^\(FAIL\|ERROR\): \([^ ]*\) (\([^)]*\)).*/\3 \2/p' "$log" |
		awk '{ n = $1; if (n !~ ("\\." $2 "$")) n = n "." $2; sub(/^test\./, "", n); print n }' | sort -u)
	if [ $st -ne 0 ] && [ $bad -eq 0 ]; then
		fail "$module: status $st" "$(tail -n 5 "$log")"
	elif [ "$ok" -eq 0 ] && [ $bad -eq 0 ]; then
		fail "$module: nothing ran" "$(tail -n 5 "$log")"
	fi
done
finish
