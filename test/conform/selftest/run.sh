#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks the checkers: the harness must notice every way to fail, and run.sh must count failures,
# missing results, expected failures and unexpected passes. Its last line counts as one test.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
bad() {
	echo "not ok conform-selftest: $*"
	echo "0 passed, 1 failed, 0 skipped"
	exit 1
}

"${CC:-gcc}" -std=gnu11 -O2 -D_GNU_SOURCE -Wall -Wextra -static -pthread -I"$root" \
	-o "$work/harness" "$here/harness.c" || exit 2
CONFORM_SECONDS=1 CONFORM_TMP=$work timeout 60 "$work/harness" >"$work/out" && bad "exit status 0"
# Each line must begin as the expected one does.
paste -d '\n' "$here/harness.txt" "$work/out" | while IFS= read -r want && IFS= read -r got; do
	[ "${got#"$want"}" != "$got" ] || bad "expected \"$want\", got \"$got\""
done || exit 1
[ "$(wc -l <"$work/out")" = "$(wc -l <"$here/harness.txt")" ] || bad "wrong number of lines"
[ -z "$(find "$work" -name 'conform-*')" ] || bad "a temporary directory was left behind"

# A box that claims things: the runner must believe the right ones.
mkdir -p "$work/b"
cat >"$work/box" <<'BOX'
#!/bin/sh
echo "ok uptime"
echo "not ok meminfo: broken"
echo "skip cpuinfo: inside only"
echo "not ok loadavg: known"
echo "ok filesystems"
exit 1
BOX
chmod +x "$work/box"
echo "procfs.loadavg reason one" >"$work/expected"
echo "procfs.filesystems@kvm reason two" >>"$work/expected"
echo "procfs.meminfo@ptrace not for this platform" >>"$work/expected"
: >"$work/image"
BUILD=$work/b KVMSBOX=$work/box CONFORM_IMAGE=$work/image CONFORM_EXPECTED=$work/expected \
	"$root/test/conform/run.sh" kvm procfs >"$work/log" && bad "run.sh succeeded"
total=$("$work/b/test/conform/procfs" --list | wc -l)
grep -q "unexpected pass procfs.filesystems: reason two" "$work/log" || bad "no unexpected pass"
grep -q "expected failure procfs.loadavg: reason one" "$work/log" || bad "no expected failure"
grep -q "not ok procfs.meminfo: broken" "$work/log" || bad "the failure is not shown"
grep -q "not ok procfs.cpuinfo: skipped inside" "$work/log" || bad "a skip inside is believed"
[ "$(tail -n 1 "$work/log")" = "2 passed, $((total - 3)) failed, 1 skipped" ] ||
	bad "wrong totals: $(tail -n 1 "$work/log")"
echo "1 passed, 0 failed, 0 skipped"
