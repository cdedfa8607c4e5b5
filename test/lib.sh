# SPDX-License-Identifier: Apache-2.0
# What the shell tests share (bash): counting, scratch space that is removed, and how kvmsbox is called.
#
# A script sources this, calls pass, fail, skip (or expect), and ends with `finish`, which prints the
# closing line "N passed, N failed, N skipped". Environment: BUILD, KVMSBOX, KVMSBOX_TEST_CACHE.
# shellcheck shell=bash disable=SC2034
set -u
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=${BUILD:-$ROOT/build}
KVMSBOX=${KVMSBOX:-$BUILD/kvmsbox}
case $KVMSBOX in /*) ;; *) KVMSBOX=$PWD/$KVMSBOX ;; esac
TEST_CACHE=${KVMSBOX_TEST_CACHE:-$HOME/.cache/kvmsbox-test}
LC_ALL=C.UTF-8
export LC_ALL
unset XDG_CACHE_HOME

passed=0 failed=0 skipped=0
pass() { printf 'ok %s\n' "$1"; passed=$((passed + 1)); }
fail() {
	printf 'not ok %s\n' "$1"
	shift
	[ $# -eq 0 ] || printf '%s\n' "$@" | head -n 12 | cut -c1-300 | sed 's/^/    /'
	failed=$((failed + 1))
}
skip() { printf 'skip %s: %s\n' "$1" "$2"; skipped=$((skipped + 1)); }
finish() {
	printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
	[ "$failed" -eq 0 ] && [ $((passed + skipped)) -gt 0 ]
	exit
}

# expect NAME WANT GOT: equal strings pass.
expect() {
	if [ "$2" = "$3" ]; then
		pass "$1"
	else
		fail "$1" "want: $2" "got:  $3"
	fi
}
# expect_match NAME REGEX GOT
expect_match() {
	if printf '%s\n' "$3" | grep -Eq -- "$2"; then
		pass "$1"
	else
		fail "$1" "want a match of: $2" "got:  $3"
	fi
}

SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/kvmsbox-test.XXXXXX") || exit 2
scratch_remove() {
	local m
	# A subshell that a signal ends early may still have this trap.
	[ "$BASHPID" = $$ ] || return 0
	awk -v s="$SCRATCH/" 'index($2, s) == 1 { print $2 }' /proc/self/mounts | sort -r |
		while read -r m; do umount -l "$m"; done
	rm -rf "$SCRATCH"
}
trap scratch_remove EXIT
trap 'exit 130' INT TERM

# kvm_missing prints why the KVM platform can't be tested here, or nothing.
kvm_missing() {
	if [ ! -e /dev/kvm ]; then
		echo "no /dev/kvm"
	elif ! (exec 3<>/dev/kvm) 2>/dev/null; then
		echo "/dev/kvm can't be opened"
	fi
}
need_kvmsbox() {
	[ -x "$KVMSBOX" ] || { echo "not ok $KVMSBOX is not built"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
}
