#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds every test/fuzz/fuzz_*.c with libFuzzer and runs each for FUZZ_SECONDS (default 10).
# Prints ok/not ok per target and a closing line.
set -u
cd "$(dirname "$0")/../.."
seconds=${FUZZ_SECONDS:-10}
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
	fuzz_erofs) echo vfs/erofs.c ;;
	fuzz_image) ls loader/image*.c loader/erofs_write*.c vfs/erofs.c sentry/lib/log.c ;;
	esac
}
for f in test/fuzz/fuzz_*.c; do
	name=$(basename "$f" .c)
	# shellcheck disable=SC2046
	if ! clang -std=gnu11 -O1 -g -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -Iarch/x86_64 \
		-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
		-o "$out/$name" "$f" $(sources "$name") \
		-larchive -lxxhash -lfdt -ljansson -lcrypto 2>"$out/$name.log"; then
		echo "not ok $name: does not build (see $out/$name.log)"
		failed=$((failed + 1))
		continue
	fi
	mkdir -p "$out/corpus-$name"
	if timeout $((seconds + 30)) "$out/$name" -max_total_time="$seconds" -rss_limit_mb=2048 \
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
