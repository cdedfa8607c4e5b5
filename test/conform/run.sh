#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the conformance programs: natively, or inside kvmsbox on one platform, where every behaviour
# must come out as it does natively.
#
#	test/conform/run.sh native|kvm|systrap|ptrace [PROGRAM...]
#
# The programs are compiled when they are out of date. Inside means an image tar with BusyBox and
# the programs under /conform, made once and again when a program changes. Behaviours listed in
# expected-failures.txt count as skipped when they fail; their success is reported.
#
# The last line is "N passed, N failed, N skipped"; the exit status is 0 when nothing failed, 1 when
# something did, 2 when nothing could be run.
#
# Environment:
#	BUILD		build directory			(build)
#	KVMSBOX		the program under test		(BUILD/kvmsbox)
#	KVMSBOX_ARGS	more options for "exec"
#	CONFORM_IMAGE	an image instead of our own; must hold /conform
#	CONFORM_JOBS	how many programs run at once	(2)
#	CONFORM_TIMEOUT	seconds for one program		(60)
#	CONFORM_SECONDS	seconds for one behaviour	(10)
#	CONFORM_EXPECTED another list of expected failures
#	CC		the compiler			(gcc)
set -u
shopt -s nullglob

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export BUILD=${BUILD:-$root/build}
export CC=${CC:-gcc}
bin=$BUILD/test/conform
out=$BUILD/test/conform.out
image=${CONFORM_IMAGE:-$BUILD/test/conform.tar}
kvmsbox=${KVMSBOX:-$BUILD/kvmsbox}
expected=${CONFORM_EXPECTED:-$here/expected-failures.txt}
jobs=${CONFORM_JOBS:-2}
limit=${CONFORM_TIMEOUT:-60}

die() {
	echo "run.sh: $*" >&2
	exit 2
}

# Compiles one program if its source or a header is newer.
compile_one() {
	local src=$here/$1.c exe=$bin/$1 h stale=

	[ -f "$src" ] || die "no such program: $1"
	for h in "$src" "$here"/*.h; do
		[ "$h" -nt "$exe" ] && stale=1
	done
	[ -n "$stale" ] || return 0
	"$CC" -std=gnu11 -O2 -g -D_GNU_SOURCE -Wall -Wextra -static -pthread -I"$root" \
		-o "$exe.$$" "$src" && mv "$exe.$$" "$exe"
}

# An image with BusyBox, a few accounts and the programs.
make_image() {
	local stage busybox f lib applet

	if [ -f "$image" ]; then
		f=$(find "$bin" -type f -newer "$image" -print -quit)
		[ -z "$f" ] && return 0
	fi
	busybox=$(command -v busybox) || die "busybox is not installed"
	stage=$(mktemp -d "$BUILD/test/conform-image.XXXXXX") || die "cannot make $BUILD/test"
	mkdir -p "$stage"/{bin,conform,dev,etc,proc,root,sys,tmp,var}
	chmod 755 "$stage"
	chmod 1777 "$stage/tmp"
	chmod 700 "$stage/root"
	cp "$busybox" "$stage/bin/busybox"
	ldd "$busybox" 2>/dev/null | grep -o '/[^ ]*' | while read -r lib; do
		mkdir -p "$stage$(dirname "$lib")"
		cp -L "$lib" "$stage$lib"
	done
	for applet in sh ls cat echo true false sleep mkdir rm ps mount id env; do
		ln -s busybox "$stage/bin/$applet"
	done
	printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' \
		>"$stage/etc/passwd"
	printf 'root:x:0:\nnogroup:x:65534:\n' >"$stage/etc/group"
	for f in "$here"/*.c; do
		f=$(basename "$f" .c)
		[ -x "$bin/$f" ] && cp "$bin/$f" "$stage/conform/$f"
	done
	tar -C "$stage" --owner=0 --group=0 --numeric-owner --sort=name -cf "$image.$$" . &&
		mv "$image.$$" "$image"
	rm -rf "$stage"
	[ -f "$image" ] || die "cannot make $image"
}

# Runs one program; its lines go to $out/MODE/PROGRAM.txt.
run_one() {
	local mode=$1 prog=$2 res=$out/$1/$2.txt st env=()

	[ -n "${CONFORM_SECONDS:-}" ] && env=(-e "CONFORM_SECONDS=$CONFORM_SECONDS")
	if [ "$mode" = native ]; then
		timeout -k 5 "$limit" "$bin/$prog" >"$res.$$" 2>"$res.err" </dev/null
	else
		# shellcheck disable=SC2086
		timeout -k 5 "$limit" "$kvmsbox" exec --platform="$mode" ${KVMSBOX_ARGS:-} \
			"${env[@]}" "$image" -- "/conform/$prog" >"$res.$$" 2>"$res.err" </dev/null
	fi
	st=$?
	echo "# status $st" >>"$res.$$"
	mv "$res.$$" "$res"
}

# Prints the comparison of one program and adds its counts to the file $totals.
judge_one() {
	local mode=$1 prog=$2

	awk -v mode="$mode" -v prog="$prog" -v errfile="$out/$mode/$prog.txt.err" \
		-v totals="$totals" '
	function split_line(line,	s, i) {
		kind = ""; detail = ""
		if (line ~ /^ok /) { kind = "ok"; s = substr(line, 4) }
		else if (line ~ /^not ok /) { kind = "not ok"; s = substr(line, 8) }
		else if (line ~ /^skip /) { kind = "skip"; s = substr(line, 6) }
		else return 0
		i = index(s, ":")
		name = i ? substr(s, 1, i - 1) : s
		detail = i ? substr(s, i + 2) : ""
		return name ~ /^[a-zA-Z0-9_]+$/
	}
	BEGIN { passed = failed = skipped = 0; status = "?" }
	stage == 1 {					# expected failures
		if ($0 ~ /^[ \t]*(#|$)/) next
		key = $1; why = $0; sub(/^[^ \t]+[ \t]*/, "", why)
		n = split(key, part, "@")
		if (n > 1 && part[2] != mode) next
		expect[part[1]] = why
		next
	}
	stage == 2 {					# native
		if (split_line($0)) { native[name] = kind; if (!(name in seen)) order[++names] = name; seen[name] = 1 }
		next
	}
	{
		if (split_line($0)) { got[name] = kind; text[name] = detail; if (!(name in seen)) order[++names] = name; seen[name] = 1 }
		else if ($0 ~ /^# status /) status = $3
	}
	END {
		for (i = 1; i <= names; i++) {
			name = order[i]; id = prog "." name
			g = (name in got) ? got[name] : "missing"
			nat = (name in native) ? native[name] : "missing"
			if (g == "ok") {
				passed++
				if (id in expect) lines[++nl] = "  unexpected pass " id ": " expect[id]
			} else if (id in expect) {
				skipped++
				lines[++nl] = "  expected failure " id ": " expect[id]
			} else if (g == "skip" && (mode == "native" || nat == "skip")) {
				skipped++
				lines[++nl] = "  skip " id ": " text[name]
			} else if (g == "skip") {
				failed++
				lines[++nl] = "  not ok " id ": skipped inside (" text[name] "), but it runs natively"
			} else if (g == "missing") {
				failed++
				if (++nmissing <= 3) lines[++nl] = "  not ok " id ": no result (exit status " status ")"
			} else {
				failed++
				lines[++nl] = "  not ok " id ": " text[name] (nat == "not ok" && mode != "native" ? " [fails natively too]" : "")
			}
		}
		if (nmissing > 3) lines[++nl] = "  ... and " nmissing - 3 " more without a result"
		if (!names) { failed++; lines[++nl] = "  not ok " prog ": no output (exit status " status ")" }
		if (nmissing || !names) {
			for (k = 0; k < 3 && (getline line < errfile) > 0; k++) lines[++nl] = "    stderr: " line
		}
		printf "%-6s %-12s %d passed, %d failed, %d skipped\n", failed ? "FAIL" : "ok", prog, passed, failed, skipped
		for (i = 1; i <= nl; i++) print lines[i]
		print passed, failed, skipped >> totals
	}' stage=1 "$expected" stage=2 "$out/native/$prog.txt" stage=3 "$out/$mode/$prog.txt"
}

if [ "${1:-}" = --compile ]; then
	compile_one "$2"
	exit
fi
if [ "${1:-}" = --run ]; then
	run_one "$2" "$3"
	exit
fi

mode=${1:-}
case $mode in
native | kvm | systrap | ptrace) shift ;;
*) die "usage: run.sh native|kvm|systrap|ptrace [PROGRAM...]" ;;
esac
if [ $# -gt 0 ]; then
	progs=("$@")
else
	progs=()
	for f in "$here"/*.c; do
		progs+=("$(basename "$f" .c)")
	done
fi
[ -f "$expected" ] || expected=/dev/null
mkdir -p "$bin" "$out/native" "$out/$mode" || die "cannot make $bin"
# Ordinary users must be able to execute what the tests execute.
chmod a+rx "$bin" 2>/dev/null

printf '%s\n' "${progs[@]}" | xargs -P "$jobs" -n 1 "$0" --compile || die "compilation failed"

if [ "$mode" = native ]; then
	printf '%s\n' "${progs[@]}" | xargs -P "$jobs" -n 1 "$0" --run native
else
	[ -x "$kvmsbox" ] || die "$kvmsbox is not built"
	for p in "${progs[@]}"; do
		[ "$out/native/$p.txt" -nt "$bin/$p" ] || echo "$p"
	done | xargs -r -P "$jobs" -n 1 "$0" --run native
	[ -n "${CONFORM_IMAGE:-}" ] || make_image
	printf '%s\n' "${progs[@]}" | xargs -P "$jobs" -n 1 "$0" --run "$mode"
fi

totals=$(mktemp "$BUILD/test/conform-totals.XXXXXX") || die "cannot write to $BUILD/test"
for p in "${progs[@]}"; do
	judge_one "$mode" "$p"
done
awk '{ p += $1; f += $2; s += $3 }
     END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f || !p }' "$totals"
st=$?
rm -f "$totals"
exit $st
