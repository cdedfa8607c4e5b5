#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Snapshots of named sandboxes as files: saved while they run, go on in the original and in restored
# copies; everything that is refused; what differs between copies; killed clients; inspect.
#
#	test/snapshot/run.sh ptrace|systrap|kvm [NAME-PATTERN]
. "$(dirname "$0")/../lib.sh"
platform=${1:-ptrace}
pattern=${2:-}
if [ "$platform" = kvm ]; then
	why=$(kvm_missing)
	[ -z "$why" ] || { skip "snapshots on kvm" "$why"; finish; }
fi
need_kvmsbox
busybox=$("$ROOT/test/images.sh" busybox) || { fail "make the BusyBox image"; finish; }
cache=$SCRATCH/cache
export KVMSBOX_STATE=$SCRATCH/state
edit=$ROOT/test/snapshot/edit.py
snaps=$SCRATCH/snaps
mkdir -p "$snaps"

k() { timeout -k 5 "${LIMIT:-60}" "$KVMSBOX" "$@"; }
run() { k run -d --platform="$platform" --cache "$cache" "$@"; }
wants() { [ -z "$pattern" ] || [[ $1 == *$pattern* ]]; }
until_true() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}
# bad NAME STATUS REGEX CMD…: one line on stderr that matches, nothing on stdout, the status.
bad() {
	local name=$1 want=$2 regex=$3 st err
	shift 3
	"$@" >"$SCRATCH/stdout" 2>"$SCRATCH/stderr" </dev/null
	st=$?
	err=$(cat "$SCRATCH/stderr")
	if [ $st -ne "$want" ]; then
		fail "$name" "exit status $st, not $want" "$err"
	elif [ "$(wc -l <"$SCRATCH/stderr")" -ne 1 ] || ! grep -Eq -- "$regex" <<<"$err"; then
		fail "$name" "want one line that matches: $regex" "$err"
	elif [ -s "$SCRATCH/stdout" ]; then
		fail "$name" "something on stdout" "$(head -c 200 "$SCRATCH/stdout")"
	else
		pass "$name"
	fi
}
# good NAME CMD…: status 0.
good() {
	local name=$1 out st
	shift
	out=$("$@" 2>&1 </dev/null)
	st=$?
	if [ $st -eq 0 ]; then pass "$name"; else fail "$name" "exit status $st" "$out"; fi
}
log() { cat "$KVMSBOX_STATE/$1/log"; }
value() { log "$1" | awk -v n="$2" '$1 == "value" && $2 == n { print $3 }'; }
# ended NAME SANDBOX STATUS: it ends, with that status.
ended() {
	local got st
	got=$(LIMIT=120 k wait "$2" 2>&1)
	st=$?
	if [ $st -eq "$3" ]; then pass "$1"; else fail "$1" "status $st, not $3: $got" "$(log "$2" | grep -av '^value\|^ok')"; fi
}
end_all() {
	local s
	[ "$BASHPID" = $$ ] || return 0
	for s in "$SCRATCH"/state*/[A-Za-z0-9]*; do
		[ ! -e "$s" ] || KVMSBOX_STATE=${s%/*} timeout 20 "$KVMSBOX" rm -f "${s##*/}" >/dev/null 2>&1
	done
}
trap 'end_all; scratch_remove' EXIT

# An image with the test's programs.
mkdir -p "$BUILD/test/snapshot" "$SCRATCH/add/bin"
for p in live grow; do
	exe=$BUILD/test/snapshot/$p
	if [ "$ROOT/test/snapshot/$p.c" -nt "$exe" ]; then
		"${CC:-gcc}" -std=gnu11 -O2 -g -D_GNU_SOURCE -Wall -Wextra -Wno-unused-parameter -static -pthread \
			-o "$exe.$$" "$ROOT/test/snapshot/$p.c" && mv "$exe.$$" "$exe"
	fi
	cp "$exe" "$SCRATCH/add/bin/" || { fail "build $p"; finish; }
done
image=$SCRATCH/image.tar
cp "$busybox" "$image" && tar -rf "$image" -C "$SCRATCH/add" --owner=0 --group=0 bin/live bin/grow
timeout 120 "$KVMSBOX" exec --platform="$platform" --cache "$cache" "$image" -- true </dev/null ||
	echo "# the image can't be run"

# --- everything at once: the original and two copies come to the same end
live() {
	local s st
	run --name orig "$image" -- live 12 >/dev/null || { fail live_run; return; }
	until_true 10 grep -q started "$KVMSBOX_STATE/orig/log"
	sleep 0.7
	good live_snapshot k snapshot orig "$snaps/live"
	sleep 0.5
	good live_snapshot_again k snapshot orig "$snaps/live2"
	good live_restore_1 k restore -d --name copy1 "$snaps/live"
	good live_snapshot_of_copy k snapshot copy1 "$snaps/live3"
	good live_restore_2 k restore -d --name copy2 "$snaps/live2"
	for s in orig copy1 copy2; do
		ended "live_end_$s" $s 0
		expect "live_parts_$s" "16 0" "$(log $s | grep -ac '^ok ') $(log $s | grep -ac '^not ok ')"
	done
	# All of its time limits have passed meanwhile, and one process after another notices.
	good live_restore_late k restore -d --name copy3 "$snaps/live3"
	ended live_end_copy3 copy3 0
	expect live_parts_copy3 "16 0" "$(log copy3 | grep -ac '^ok ') $(log copy3 | grep -ac '^not ok ')"
	# The original's waits end when they should have, whatever came between.
	for s in epoll_wait poll select sigtimedwait recv futex nanosleep timerfd; do
		st=$(value orig late-$s)
		if [ -n "$st" ] && awk -v t="$st" 'BEGIN { exit !(t < 1.0) }'; then
			pass "live_in_time_$s"
		else
			fail "live_in_time_$s" "late by ${st:-?} s"
		fi
	done
	# In a copy that goes on after all of them, none waits any more.
	expect_match live_late '^8 [01]\.' "$(log copy3 | awk '$2 ~ /^late-/ { n++; if (!min || $3 < min) min = $3; if ($3 > max) max = $3 }
		END { printf "%d %.3f\n", n, max - min }')"
	expect live_wiped "no yes yes yes" "$(value orig wiped) $(value copy1 wiped) $(value copy2 wiped) $(value copy3 wiped)"
	for s in getrandom urandom at-random; do
		expect "live_differs_$s" 4 "$(for n in orig copy1 copy2 copy3; do value $n $s; done | sort -u | grep -c .)"
	done
	st=$(value copy3 realtime)
	st=$(($(date +%s) - ${st:-0}))
	if [ $st -ge 0 ] && [ $st -lt 30 ]; then pass live_realtime; else fail live_realtime "off by $st s"; fi
	k rm -f orig copy1 copy2 copy3
}
wants live && live

# --- one sandbox that counts, for all that follows
count='i=0; trap "exit 5" TERM; while :; do i=$((i + 1)); echo $i; sleep 0.05; done'
run --name box "$image" -- sh -c "$count" >/dev/null || fail run_box
until_true 10 grep -qx 5 "$KVMSBOX_STATE/box/log"
expect_match snapshot_says "^$snaps/box: [0-9.]+ MiB; [0-9]+ pages stored, [0-9]+ more equal to one of them$" \
	"$(k snapshot box "$snaps/box" 2>&1)"
expect snapshot_mode 600 "$(stat -c %a "$snaps/box")"
expect snapshot_alone "$snaps/box" "$(ls -Ad "$snaps"/.[!.]* "$snaps"/b* 2>/dev/null)"
n=$(log box | tail -n 1)
until_true 10 grep -qx $((n + 5)) "$KVMSBOX_STATE/box/log"
expect goes_on "$(seq $((n + 5)))" "$(log box | head -n $((n + 5)))"

restore() {
	local out first
	# In the foreground, its output here.
	out=$(k restore --timeout 1 "$snaps/box" 2>&1)
	expect restore_timeout 124 $?
	first=${out%%$'\n'*}
	expect restore_output "$(seq "$first" $((first + $(wc -l <<<"$out") - 1)))" "$out"
	if [ "$first" -gt 1 ]; then pass restore_where_it_was; else fail restore_where_it_was "$first"; fi
	# Signals go to its first process, whose status it ends with.
	LIMIT=20 timeout -s TERM -k 10 1 "$KVMSBOX" restore "$snaps/box" >/dev/null 2>&1
	timeout -k 5 20 "$KVMSBOX" restore "$snaps/box" >"$SCRATCH/o" 2>&1 &
	local pid=$!
	until_true 10 test -s "$SCRATCH/o"
	pkill_child "$pid" TERM
	wait $pid
	expect restore_signal 5 $?
	# As named sandboxes are.
	good restore_named k restore -d --name again "$snaps/box"
	expect_match restore_ps "^again +running +[0-9]+ +$platform +box +sh -c i=0; trap" "$(k ps)"
	expect_match restore_enter '^1 sh .*in$' "$(k enter again sh -c 'read a b c </proc/1/stat; echo $a $(cat /proc/1/comm) in' 2>&1)"
	k enter again sh -c 'echo new >/tmp/new'
	good restore_snapshot k snapshot again "$snaps/again"
	good restore_restored k restore -d --name third "$snaps/again"
	expect restore_keeps_files new "$(k enter third cat /tmp/new 2>&1)"
	k kill again
	ended restore_kill again 5
	k rm -f again third
	# Without stdio; with a file and a pipe instead of what they were.
	k restore --timeout 0.5 "$snaps/box" >&- 2>&- <&-
	expect restore_closed 124 $?
	k restore --timeout 0.5 "$snaps/box" >"$SCRATCH/o" 2>&1 </dev/null
	expect_match restore_to_file '^[0-9]+$' "$(tail -n 1 "$SCRATCH/o")"
	bad restore_name_taken 125 'box' k restore -d --name box "$snaps/box"
	bad restore_d_no_name 125 'restore: -d needs a name' k restore -d "$snaps/box"
	bad restore_no_file 125 'no snapshot given' k restore
	bad restore_two 125 'too many arguments' k restore "$snaps/box" "$snaps/box"
	bad restore_fd_alone 125 'image-fd and --channel' k restore --image-fd 5
}
# The sandbox's process, which timeout(1) has started.
pkill_child() {
	local c
	c=$(ps -o pid= --ppid "$1" | head -n 1)
	kill "-$2" "$c"
}
wants restore && restore

others() {
	local p out
	for p in ptrace systrap; do
		[ $p != "$platform" ] || continue
		out=$(k restore --platform=$p --timeout 1.5 "$snaps/box" 2>&1)
		expect "others_$p" 124 $?
		expect_match "others_${p}_output" '^[0-9]+$' "$(tail -n 1 <<<"$out")"
	done
	[ -e /dev/kvm ] || bad others_kvm 125 'restore: .*: .*kvm' k restore --platform=kvm "$snaps/box"
}
wants others && others

# --- what is in it
inspect() {
	local out listed
	out=$(k inspect "$snaps/box" 2>&1)
	expect inspect_status 0 $?
	expect_match inspect_name '^sandbox +box$' "$out"
	expect_match inspect_hashes '^hashes +right$' "$out"
	expect_match inspect_process '^ +1 +1  sh -c i=0; trap' "$out"
	expect_match inspect_no_verify '^hashes +not looked at$' "$(k inspect --no-verify "$snaps/box")"
	# Its child, a sleep, is not always there: as many as are listed.
	listed=$(grep -cE '^ +[0-9]+ +[0-9]+  ' <<<"$out")
	expect_match inspect_processes '^[12]$' "$listed"
	expect inspect_json "box $platform True $listed $listed 1 1" "$(k inspect --json "$snaps/box" | python3 -c '
import json, sys, os
d = json.load(sys.stdin)
p = d["processes"]
print(d["name"], d["platform"], d["whole"], d["nr_processes"], len(p), p[0]["pid"], p[0]["threads"])
assert d["size"] == os.stat(sys.argv[1]).st_size and d["image"].endswith(".erofs")
assert d["guest_memory"] + d["kernel_memory"] + d["page_tables"] == 4096 * (d["pages_stored"] + d["pages_equal"])
' "$snaps/box" 2>&1)"
	bad inspect_nothing 125 'no snapshot given' k inspect
	bad inspect_missing 125 'No such file' k inspect "$snaps/none"
}
wants inspect && inspect

# --- what is refused
# damaged NAME REGEX EDIT…: restore, and inspect, of an edited copy.
damaged() {
	local name=$1 regex=$2
	shift 2
	python3 "$edit" "$snaps/box" "$SCRATCH/bad" "$@" || { fail "$name" "can't edit it"; return; }
	bad "$name" 125 "^kvmsbox: restore: $SCRATCH/bad: $regex" k restore "$SCRATCH/bad"
}
refused() {
	local size
	size=$(stat -c %s "$snaps/box")
	bad refuse_missing 125 'No such file' k restore "$snaps/none"
	bad refuse_directory 125 'not a kvmsbox snapshot' k restore "$snaps"
	bad refuse_device 125 'not a kvmsbox snapshot' k restore /dev/null
	bad refuse_other_file 125 'not a kvmsbox snapshot$' k restore "$KVMSBOX"
	printf 'short' >"$SCRATCH/bad"
	bad refuse_short 125 'not a kvmsbox snapshot$' k restore "$SCRATCH/bad"
	: >"$SCRATCH/bad"
	bad refuse_empty 125 'not a kvmsbox snapshot$' k restore "$SCRATCH/bad"
	damaged refuse_other_tree 'not a kvmsbox snapshot$' reseal set / compatible 's:linux,dummy'
	damaged refuse_truncated 'a truncated snapshot: [0-9]+ bytes of [0-9]+$' truncate $((size - 4096))
	damaged refuse_truncated_meta 'a truncated snapshot: 1000 bytes, and its metadata alone has [0-9]+$' truncate 1000
	damaged refuse_meta_bit "a damaged snapshot: its metadata" flip 1000
	damaged refuse_meta_hash "a damaged snapshot: its metadata doesn't have the hash" noseal set / platform s:other
	damaged refuse_data "a damaged snapshot: the [0-9]+ bytes at [0-9]+ don't have the hash that they should$" flip $((size - 5000))
	damaged refuse_version 'a snapshot of version 2, and this kvmsbox reads 1$' reseal set / compatible s:kvmsbox,snapshot-2
	damaged refuse_build 'made by another build of kvmsbox: ' reseal set / build b:0011223344556677889900112233445566778899
	damaged refuse_cpu 'made on a CPU with other features' reseal set / cpu b:"$(printf '00%.0s' {1..32})"
	damaged refuse_boot "made on another host, or before this one was booted: " reseal set / boot-id s:00000000-0000-0000-0000-000000000000
	damaged refuse_image "the image /no/such/image.erofs, which the snapshot stands on: No such file" reseal set /image path s:/no/such/image.erofs
	damaged refuse_image_size "the image .*, which the snapshot stands on, has [0-9]+ bytes instead of 4096$" reseal set /image size b:0000000000001000
	damaged refuse_image_other "the image .*, which the snapshot stands on, has other contents than it had$" reseal set /image hash b:00112233445566778899001122334455
	damaged refuse_platform 'unknown platform|no platform|vmware' reseal set / platform s:vmware
	damaged refuse_statics 'a damaged snapshot: its metadata is incomplete' reseal set /kernel statics b:00
	damaged refuse_sizes 'a damaged snapshot: its sizes make no sense' reseal set /kernel arena b:7000000000000000
	damaged refuse_stdio 'a damaged snapshot: its metadata is incomplete' reseal set /stdio index b:"$(printf '00000000000000ff%.0s' {1..3})"
	damaged refuse_chunks 'a damaged snapshot: its hashes are incomplete' reseal set /file chunks b:00
	damaged refuse_segments 'a damaged snapshot: its segments make no sense' reseal set /file segments b:00000001000000000000000100
	damaged refuse_segment_order 'a damaged snapshot: its segments make no sense' reseal set /file segments b:000001100000000000000002000001110000000000000001
	damaged refuse_segment_data 'a damaged snapshot: its segments make no sense' reseal set /file segments b:0000011000fffffff0000000010
	damaged refuse_segment_beyond 'a damaged snapshot: its segments make no sense' reseal set /file segments b:000001100fffffff00000001
	damaged refuse_segment_image 'a damaged snapshot: its segments make no sense' reseal set /file segments b:ffffffff0000000000000001
	# Without the data's hashes it is the caller's affair.
	python3 "$edit" "$snaps/box" "$SCRATCH/bad" flip $((size - 5000))
	expect_match inspect_damaged '^hashes +wrong$' "$(k inspect "$SCRATCH/bad" 2>/dev/null)"
	k inspect "$SCRATCH/bad" >/dev/null 2>"$SCRATCH/e"
	expect inspect_damaged_status 125 $?
	expect_match inspect_damaged_why "don't have the hash" "$(cat "$SCRATCH/e")"
	python3 "$edit" "$snaps/box" "$SCRATCH/bad" dataflip chunks
	k restore --no-verify --timeout 0.5 "$SCRATCH/bad" >/dev/null 2>&1
	expect no_verify 124 $?
	# The root file system's file is gone.
	local erofs
	erofs=$(k inspect --json "$snaps/box" | python3 -c 'import json, sys; print(json.load(sys.stdin)["image"])')
	mv "$erofs" "$erofs.away"
	bad refuse_image_gone 125 'the image .*, which the snapshot stands on: No such file' k restore "$snaps/box"
	mv "$erofs.away" "$erofs"
	# Sandboxes that can't be saved go on.
	mkdir -p "$SCRATCH/vol"
	run --name vol -v "$SCRATCH/vol:/vol" "$image" -- sh -c "$count" >/dev/null
	bad refuse_volume 125 "can't be saved: the host's $SCRATCH/vol is mounted in it" k snapshot vol "$snaps/vol"
	until_true 10 grep -qx 20 "$KVMSBOX_STATE/vol/log" && pass volume_goes_on || fail volume_goes_on
	run --name term -t "$image" -- sh -c "$count" >/dev/null
	bad refuse_terminal 125 "can't be saved: it has a terminal" k snapshot term "$snaps/term"
	k rm -f vol term
	k enter box sh -c 'sleep 3' &
	local pid=$!
	until_true 5 sh -c "\"$KVMSBOX\" ps --json | grep -q '\"entered\": 1'"
	bad refuse_entered 125 "can't be saved: a command that has entered runs in it" k snapshot box "$snaps/no"
	wait $pid
	k enter box sh -c 'sleep 2 &'
	bad refuse_left 125 "can't be saved: it has [0-9]+ of the host's descriptors that came with a command" k snapshot box "$snaps/no"
	sleep 2.2
	good saved_afterwards k snapshot box "$snaps/box3"
	bad refuse_no_sandbox 125 'there is no sandbox' k snapshot nobody "$snaps/no"
	bad refuse_no_args 125 'want a sandbox and a file' k snapshot box
	bad refuse_target_dir 125 'is there, and is not a file' k snapshot box "$snaps"
	bad refuse_target_gone 125 "can't make a file" k snapshot box "$snaps/no/where"
	bad refuse_full 125 "can't make a file|can't write" k snapshot box /proc/no
	run --name short "$image" -- true >/dev/null
	k wait short >/dev/null
	bad refuse_ended 125 'is not running: exited \(0\)' k snapshot short "$snaps/no"
	k rm short
	expect nothing_left "" "$(ls -A "$snaps" | grep -e no -e '^\.')"
}
wants refused && refused

# --- the end of the original
stop() {
	local last first
	k restore -d --name stopping "$snaps/box" || fail stop_run
	until_true 5 test -s "$KVMSBOX_STATE/stopping/log"
	good stop k snapshot --stop stopping "$snaps/stopped"
	k wait stopping >/dev/null 2>&1
	expect stop_status 137 $?
	last=$(log stopping | tail -n 1)
	first=$(k restore --timeout 1 "$snaps/stopped" | head -n 1)
	expect stop_goes_on_there "$((last + 1))" "$first"
	k rm stopping
	# What can't be written lets it go on.
	bad stop_fails 125 "can't make a file" k snapshot --stop box "$snaps/no/where"
	last=$(log box | tail -n 1)
	until_true 5 grep -qx $((last + 3)) "$KVMSBOX_STATE/box/log" && pass stop_fails_goes_on || fail stop_fails_goes_on
}
wants stop && stop

# --- several clients; one that is killed
clients() {
	local i pids=() st=0 delay hit=
	for i in 1 2 3; do
		k snapshot box "$snaps/p$i" >/dev/null &
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i" || st=1; done
	expect parallel 0 $st
	for i in 1 2 3; do good "parallel_$i" k inspect "$snaps/p$i"; done
	good overwrites k snapshot box "$snaps/p1"
	# Enough memory to be killed in the middle.
	run --name big "$image" -- grow 300 >/dev/null || fail big_run
	until_true 60 grep -q grown "$KVMSBOX_STATE/big/log"
	for delay in 0.4 0.2 0.1 0.3 0.15 0.05; do
		"$KVMSBOX" snapshot big "$snaps/killed" >/dev/null 2>&1 &
		i=$!
		sleep $delay
		kill -9 $i 2>/dev/null
		wait $i 2>/dev/null
		[ -e "$snaps/killed" ] || { hit=1; break; }
		rm -f "$snaps/killed"
	done
	expect killed_in_the_middle "1 " "$hit $(ls -A "$snaps" | grep -e killed -e '^\.')"
	"$KVMSBOX" snapshot --stop big "$snaps/killed" >/dev/null 2>&1 &
	i=$!
	sleep 0.3
	kill -9 $i 2>/dev/null
	wait $i 2>/dev/null
	st=$(log big | wc -l)
	if [ -e "$snaps/killed" ]; then
		skip killed_holder "it was too fast"
	else
		until_true 10 sh -c "[ \$(wc -l <'$KVMSBOX_STATE/big/log') -gt $((st + 2)) ]" && pass killed_holder || fail killed_holder
	fi
	LIMIT=120 good big_snapshot k snapshot big "$snaps/big"
	expect_match big_size '^3[0-9][0-9]$' "$(($(stat -c %s "$snaps/big") >> 20))"
	LIMIT=120 good big_restore k restore -d --name big2 "$snaps/big"
	for i in big big2; do
		k kill $i
		ended "big_right_$i" $i 6
	done
	k rm -f big big2
	rm -f "$snaps/big"
}
wants clients && clients

# --- shell and python
shells() {
	run --name sh "$image" -- sh -c '(i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo line $i; sleep 0.05; done; echo end) |
		while read -r a b; do echo "got $a $b"; done | awk "{ print NR, \$0; fflush() }" & wait; echo "done $?"' >/dev/null
	until_true 10 grep -q 'line 5$' "$KVMSBOX_STATE/sh/log"
	good sh_snapshot k snapshot sh "$snaps/sh"
	good sh_restore k restore -d --name sh2 "$snaps/sh"
	ended sh_end sh 0
	ended sh2_end sh2 0
	expect sh_lines "$(for i in $(seq 60); do echo "$i got line $i"; done; echo "61 got end "; echo "done 0")" "$(log sh)"
	expect sh2_end_lines "61 got end  done 0" "$(log sh2 | tail -n 2 | paste -sd' ')"
	expect sh2_lines "$(log sh | tail -n "$(log sh2 | wc -l)")" "$(log sh2)"
	k rm -f sh sh2
}
wants shells && shells

python() {
	local debian
	debian=$("$ROOT/test/images.sh" debian) || { fail python "no Debian image"; return; }
	LIMIT=300 run --name py --cache "$TEST_CACHE/cache" "$debian" -- python3 -u -c '
import threading, subprocess, asyncio, multiprocessing, hashlib, time, random, os, sys
def work(q, n):
    h = hashlib.sha256()
    for i in range(n):
        h.update(str(i).encode()); time.sleep(0.002)
    q.put(h.hexdigest())
async def tick():
    t = time.monotonic(); n = 0
    while time.monotonic() - t < 4:
        await asyncio.sleep(0.02); n += 1
    return n > 50
random.seed(1)
q = multiprocessing.Queue()
p = multiprocessing.Process(target=work, args=(q, 1500)); p.start()
got = []
t = threading.Thread(target=lambda: got.append(sum(len(l) for l in subprocess.Popen(
    ["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done"], stdout=subprocess.PIPE).stdout)))
t.start()
data = {i: str(i) * 3 for i in range(20000)}
print("started")
a = asyncio.run(tick())
t.join(); d = q.get(); p.join()
print(a, got, d[:8], random.random(), sum(len(v) for v in data.values()), p.exitcode)
' >/dev/null || { fail python_run; return; }
	until_true 60 grep -q started "$KVMSBOX_STATE/py/log"
	sleep 1
	LIMIT=120 good python_snapshot k snapshot py "$snaps/py"
	LIMIT=120 good python_restore k restore -d --name py2 "$snaps/py"
	LIMIT=120 good python_restore_2 k restore -d --name py3 "$snaps/py"
	ended python_end py 0
	ended python_end_2 py2 0
	ended python_end_3 py3 0
	expect_match python_right '^True \[16\] [0-9a-f]{8} 0.13436424411240122 [0-9]+ 0$' "$(log py | tail -n 1)"
	expect python_same "$(log py | tail -n 1)" "$(log py2 | tail -n 1)"
	expect python_same_2 "$(log py | tail -n 1)" "$(log py3 | tail -n 1)"
	k rm -f py py2 py3
}
wants python && python

last=$(log box | tail -n 1)
expect box_undisturbed "$(seq "$last" | md5sum)" "$(log box | head -n "$last" | md5sum)"
k rm -f box
finish
