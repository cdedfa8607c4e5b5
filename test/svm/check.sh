#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The KVM platform on emulated hardware virtualization: the same kvmsbox binary and conformance
# programs run inside the SVM lane (test/svm/run.sh), and must give the lines they give natively here.
#
#	test/svm/check.sh [PROGRAM…]
#
# Without PROGRAM: all of them, which takes the emulated CPU about two minutes.
. "$(dirname "$0")/../lib.sh"
need_kvmsbox
programs=("$@")
if [ $# -eq 0 ]; then
	for p in "$ROOT"/test/conform/*.c; do programs+=("$(basename "$p" .c)"); done
fi
busybox_tar=$("$ROOT/test/images.sh" busybox) || { fail "make the BusyBox image"; finish; }

# Natively first: it says what there is to pass, and builds the programs.
"$ROOT/test/conform/run.sh" native "${programs[@]}" >"$SCRATCH/native" 2>&1 ||
	echo "# natively: $(tail -n 1 "$SCRATCH/native")"
image=$SCRATCH/conform.tar
mkdir -p "$SCRATCH/d/conform"
for p in "${programs[@]}"; do cp "$BUILD/test/conform/$p" "$SCRATCH/d/conform/"; done
strip "$SCRATCH"/d/conform/* 2>/dev/null
# What makes system calls by number, for the exits that each of them costs.
mkdir "$SCRATCH/d/bench" "$SCRATCH/d/snapshot"
if "${CC:-gcc}" -std=gnu11 -O2 -D_GNU_SOURCE -static -pthread -o "$SCRATCH/d/snapshot/live" "$ROOT/test/snapshot/live.c"; then
	strip "$SCRATCH/d/snapshot/live"
else
	fail "build live"
fi
if "${MAKE:-make}" -C "$ROOT" -s BUILD="$BUILD" "$BUILD/bench-guest/micro" >"$SCRATCH/make" 2>&1; then
	cp "$BUILD/bench-guest/micro" "$SCRATCH/d/bench/"
else
	fail "build bench-guest/micro" "$(tail -n 3 "$SCRATCH/make")"
fi
# A function that is frozen, set back and copied.
fn_cc="${CC:-gcc} -I$ROOT -D_GNU_SOURCE -O1 -Wno-maybe-uninitialized -static -pthread"
if $fn_cc -o "$SCRATCH/d/conform/scribble" "$ROOT/test/function/scribble.c" >"$SCRATCH/make" 2>&1 &&
	$fn_cc -o "$SCRATCH/tiny" "$ROOT/test/function/tiny.c" >>"$SCRATCH/make" 2>&1; then
	strip "$SCRATCH/d/conform/scribble" "$SCRATCH/tiny"
else
	fail "build test/function" "$(tail -n 3 "$SCRATCH/make")"
fi
cp "$busybox_tar" "$image"
tar -C "$SCRATCH/d" --owner=0 --group=0 -rf "$image" conform bench snapshot
cp "$KVMSBOX" "$SCRATCH/kvmsbox"
# The platform's own tests, too, where they are built.
unit=()
if "${MAKE:-make}" -C "$ROOT" -s BUILD="$BUILD" "$BUILD/plain/test/unit/kvm_platform" >"$SCRATCH/make" 2>&1; then
	cp "$BUILD/plain/test/unit/kvm_platform" "$SCRATCH/kvm_platform"
	strip --strip-debug "$SCRATCH/kvm_platform"
	unit=(-f "$SCRATCH/kvm_platform")
else
	fail "build test/unit/kvm_platform" "$(tail -n 3 "$SCRATCH/make")"
fi
strip --strip-debug "$SCRATCH/kvmsbox"
cp "$(dirname "$KVMSBOX")/kvmsbox-import" "$SCRATCH/kvmsbox-import"
strip --strip-debug "$SCRATCH/kvmsbox-import"

cat >"$SCRATCH/inside.sh" <<'E'
k="./kvmsbox exec --cache /tmp/cache"
echo "=== doctor"
./kvmsbox doctor --brief 2>&1
# Where this takes long, it says how far it is.
echo "=== import"
./kvmsbox image import --cache /tmp/cache conform.tar 2>&1
echo "status $?"
echo "=== true"
$k --platform=kvm conform.tar -- true 2>&1
echo "status $?"
echo "=== pipeline"
$k --platform=kvm conform.tar -- sh -c 'seq 100 | grep 7 | wc -l; id -u; cat /etc/motd' 2>&1
echo "status $?"
for how in rewritten plain; do
	echo "=== exits $how"
	[ $how = plain ] && o="--poll off --no-rewrite" || o="--poll off"
	for call in getppid read-4k; do
		for n in 100 1100; do
			$k --platform=kvm --stats $o conform.tar -- /bench/micro -n $n $call 2>&1 >/dev/null |
				sed -n 's/^kvm exits: doorbell //p' | awk -v c="$call" -v n=$n '{ s += $NF } END { print c, n, s }'
		done
	done
done
echo "=== function"
timeout 300 ./tiny ./kvmsbox kvm conform.tar /conform/scribble 4 1 2>&1
echo "status $?"
echo "=== unit"
[ ! -f kvm_platform ] || timeout 300 ./kvm_platform -q 8 2>&1
echo "status $?"
export KVMSBOX_STATE=/tmp/state
echo "=== snapshot"
./kvmsbox run -d --name one --platform=kvm --cache /tmp/cache conform.tar -- /snapshot/live 45
until ./kvmsbox logs one | grep -q started || [ $((tries += 1)) -gt 120 ]; do sleep 0.5; done
sleep 3
./kvmsbox snapshot one /tmp/one && ./kvmsbox restore -d --name two /tmp/one
./kvmsbox snapshot two /tmp/two
for s in one two; do ./kvmsbox wait $s; done
./kvmsbox restore -d --name three /tmp/two
./kvmsbox wait three
for s in one two three; do
	echo "=== snapshot $s"
	./kvmsbox logs $s 2>&1
	./kvmsbox rm -f $s
done
for p in "$@"; do
	echo "=== conform $p"
	timeout 300 $k --platform=kvm -e CONFORM_SECONDS=120 conform.tar -- /conform/$p 2>/tmp/err </dev/null
	echo "status $?"
	head -n 3 /tmp/err
done
echo "=== end"
E
st=0
"$ROOT/test/svm/run.sh" -m 2048 -t "${SVM_TIMEOUT:-900}" -f "$SCRATCH/kvmsbox:/test/kvmsbox" -f "$image:/test/conform.tar" \
	-f "$SCRATCH/inside.sh:/test/inside.sh" -f "$SCRATCH/kvmsbox-import:/test/kvmsbox-import" -f "$SCRATCH/tiny:/test/tiny" "${unit[@]}" -- sh inside.sh "${programs[@]}" >"$SCRATCH/log" 2>&1 || st=$?
mkdir -p "$BUILD/test"
cp "$SCRATCH/log" "$BUILD/test/svm.log"
if [ $st -eq 77 ]; then
	skip "svm lane" "$(sed -n 's/^SKIP svm lane: //p' "$SCRATCH/log" | head -n 1)"
	finish
fi
section() { awk -v s="=== $1" '$0 == s { on = 1; next } /^=== / { on = 0 } on' "$SCRATCH/log"; }
if grep -q '^=== end' "$SCRATCH/log"; then pass "the emulated machine ran everything"; else fail "the emulated machine ran everything" "$(tail -n 5 "$SCRATCH/log")"; fi
expect "import" "status 0" "$(section import | tail -n 1)"
expect "true" "status 0" "$(section true)"
expect "pipeline" "19 0 a file of the image status 0" "$(section pipeline | paste -sd' ')"
# Exits of a thousand calls more: none where the program answers itself, else one each, exactly.
per_call() { section "exits $1" | awk -v c="$2" '$1 == c { n[$2] = $3 } END { print n[1100] - n[100] }'; }
expect "exits of 1000 getppid, rewritten" 0 "$(per_call rewritten getppid)"
expect "exits of 1000 getppid, plain" 1000 "$(per_call plain getppid)"
expect "exits of 1000 pread, nobody polling" 1000 "$(per_call rewritten read-4k)"
expect "exits of 1000 pread, plain" 1000 "$(per_call plain read-4k)"
section function >"$SCRATCH/got"
n=$(grep -c '^ok ' "$SCRATCH/got")
passed=$((passed + n))
if grep -q '^status 0$' "$SCRATCH/got"; then pass "functions: $n checks"; else fail "functions" "$(tail -n 8 "$SCRATCH/got")"; fi
# Saved in the middle, and the copy saved again: all come to the same end.
for s in one two three; do
	section "snapshot $s" >"$SCRATCH/got"
	expect "snapshot: $s" "16 end 0" "$(grep -c '^ok ' "$SCRATCH/got") $(grep '^end' "$SCRATCH/got")"
done
# Said at the end of its part: emulated, the second one may be there before it is saved.
wiped() { section "snapshot $1" | sed -n 's/^value wiped //p'; }
third=$(wiped three)
expect "snapshot: what is wiped" "no yes yes" "$(wiped one) $(wiped two) ${third:-$(wiped two)}"
section unit >"$SCRATCH/got"
passed=$((passed + $(grep -c '^ok ' "$SCRATCH/got")))
if grep -q '^status 0$' "$SCRATCH/got"; then pass "unit test of the platform"; else fail "unit test of the platform" "$(tail -n 4 "$SCRATCH/got")"; fi
expected=$ROOT/test/conform/expected-failures.txt
for p in "${programs[@]}"; do
	section "conform $p" >"$SCRATCH/got"
	while read -r name; do
		if grep -q "^ok $name\(:\|$\)" "$SCRATCH/got"; then
			passed=$((passed + 1))
		elif why=$(grep -m1 "^skip $name: no AVX" "$SCRATCH/got"); then
			# The emulated CPU has less than this one.
			skip "$p.$name" "${why#*: }"
		elif grep -Eq "^$p\.$name(@kvm)?[[:space:]]" "$expected" 2>/dev/null; then
			skip "$p.$name" "expected failure"
		else
			fail "$p.$name" "$(grep -m1 "^\(not ok\|skip\) $name" "$SCRATCH/got" || tail -n 2 "$SCRATCH/got")"
		fi
	done < <(sed -n 's/^ok \([a-zA-Z0-9_]*\).*/\1/p' "$BUILD/test/conform.out/native/$p.txt")
	echo "ok $p done: $(grep -c '^ok ' "$SCRATCH/got") lines, $(grep -m1 '^status' "$SCRATCH/got")"
done
finish
