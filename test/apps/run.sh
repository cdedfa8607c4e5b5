#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the application tests on one platform, each script under its own time limit.
#
#	test/apps/run.sh [--short | --long] native|ptrace|systrap|kvm [NAME…]
#
# --short (the default) leaves out the scripts marked "# long". Ends with the sum of what they say.
. "$(dirname "$0")/../lib.sh"
long=
case ${1:-} in
--short) shift ;;
--long) long=1; shift ;;
esac
platform=${1:-}
case $platform in
native | ptrace | systrap | kvm) shift ;;
*) echo "usage: run.sh [--short|--long] native|ptrace|systrap|kvm [NAME…]" >&2; exit 2 ;;
esac
here=$ROOT/test/apps
if [ "$platform" = kvm ]; then
	why=$(kvm_missing)
	[ -z "$why" ] || { skip "apps on kvm" "$why"; finish; }
fi
[ "$platform" = native ] || need_kvmsbox
# The image first, outside anybody's time limit.
"$ROOT/test/images.sh" debian >/dev/null || { fail "make the Debian image"; finish; }
if [ "$platform" != native ]; then
	"$KVMSBOX" exec --platform="$platform" --cache "$TEST_CACHE/cache" \
		"$("$ROOT/test/images.sh" debian)" -- /bin/true >"$SCRATCH/first" 2>&1 ||
		echo "# /bin/true in the Debian image: status $? $(head -n 1 "$SCRATCH/first")"
fi

if [ $# -gt 0 ]; then
	names=("$@")
else
	names=()
	for f in "$here"/*.sh; do
		case $(basename "$f" .sh) in app | run) continue ;; esac
		[ -z "$long" ] && grep -q '^# long' "$f" && continue
		names+=("$(basename "$f" .sh)")
	done
fi
for name in "${names[@]}"; do
	limit=$(sed -n 's/^# timeout: //p' "$here/$name.sh")
	start=$SECONDS st=0
	timeout -k 10 "${limit:-120}" bash "$here/$name.sh" "$platform" >"$SCRATCH/out" 2>&1 </dev/null || st=$?
	sed "/ passed, .* failed, .* skipped\$/d; s/^\\(ok\\|not ok\\|skip\\) /\\1 $name: /" "$SCRATCH/out"
	line=$(tail -n 1 "$SCRATCH/out")
	if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
		passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
		skipped=$((skipped + BASH_REMATCH[3]))
	else
		passed=$((passed + $(grep -ac '^ok ' "$SCRATCH/out")))
		failed=$((failed + $(grep -ac '^not ok ' "$SCRATCH/out")))
		skipped=$((skipped + $(grep -ac '^skip ' "$SCRATCH/out")))
		why="exit status $st"
		[ $st -ne 124 ] && [ $st -ne 137 ] || why="no end within ${limit:-120} s"
		fail "$name: $why"
	fi
	echo "# $name: $((SECONDS - start)) s"
done
finish
