#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds every test/fuzz/fuzz_*.c with libFuzzer, ASan and UBSan and runs each for some seconds.
# Prints ok/not ok per target and a closing line. The inputs that found something new stay in
# BUILD/fuzz/corpus-NAME, those that failed in BUILD/fuzz/NAME-crash-*.
#
#	test/fuzz/run.sh [SECONDS [NAME…]]	default: FUZZ_SECONDS, else 10; all
set -u
cd "$(dirname "$0")/../.."
seconds=${1:-${FUZZ_SECONDS:-10}}
case $seconds in
'' | *[!0-9]*) echo "usage: run.sh [SECONDS [NAME…]]" >&2; exit 2 ;;
esac
[ $# -eq 0 ] || shift
only=" $* "
out=${BUILD:-build}/fuzz
mkdir -p "$out"
passed=0 failed=0 skipped=0
if ! command -v clang >/dev/null; then
	echo "skip fuzz: clang is not installed"
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
fi
sources() {
	case $1 in
	fuzz_elf) echo loader/elf.c ;;
	fuzz_dtb) echo sentry/config.c ;;
	fuzz_control) echo sentry/control_msg.c ;;
	fuzz_snapshot) echo sentry/snapshot_file.c sentry/snapshot_meta.c ;;
	fuzz_response) echo tools/kvmsbox-load/response.c ;;
	fuzz_erofs) ls vfs/erofs.c loader/erofs_write*.c sentry/lib/rbtree.c ;;
	fuzz_http) ls tools/kvmsbox-serve/head.c tools/kvmsbox-serve/buf.c ;;
	fuzz_manifest) ls tools/kvmsbox-serve/config*.c tools/kvmsbox-serve/fields.c tools/kvmsbox-serve/buf.c ;;
	fuzz_image) ls loader/image*.c loader/erofs_write*.c vfs/erofs.c sentry/lib/rbtree.c sentry/lib/log.c ;;
	esac
}
for f in test/fuzz/fuzz_*.c; do
	name=$(basename "$f" .c)
	[ "$only" = "  " ] || [[ $only == *" $name "* ]] || continue
	# shellcheck disable=SC2046
	if ! clang -std=gnu11 -O1 -g -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -Iarch/x86_64 \
		-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
		-o "$out/$name" "$f" $(sources "$name") \
		-lhttp_parser -larchive -lxxhash -lfdt -ljansson -lcrypto -lz 2>"$out/$name.log"; then
		echo "not ok $name: does not build (see $out/$name.log)"
		failed=$((failed + 1))
		continue
	fi
	mkdir -p "$out/corpus-$name"
	if timeout -k 10 $((seconds + 60)) "$out/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
		-artifact_prefix="$out/$name-" "$out/corpus-$name" >"$out/$name.log" 2>&1; then
		echo "ok $name"
		passed=$((passed + 1))
	else
		echo "not ok $name: $(grep -m1 -E 'ERROR|SUMMARY|runtime error' "$out/$name.log")"
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
