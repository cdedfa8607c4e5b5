#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Named sandboxes as their users see them: run, enter, ps, logs, kill, wait, rm; what is left when one
# dies; two who want the same name.
#
#	test/cli/named.sh ptrace|systrap|kvm [NAME-PATTERN]
. "$(dirname "$0")/../lib.sh"
platform=${1:-ptrace}
pattern=${2:-}
if [ "$platform" = kvm ]; then
	why=$(kvm_missing)
	[ -z "$why" ] || { skip "named on kvm" "$why"; finish; }
fi
need_kvmsbox
image=$("$ROOT/test/images.sh" busybox) || { fail "make the BusyBox image"; finish; }
chmod 755 "$SCRATCH"
cache=$SCRATCH/cache
export KVMSBOX_STATE=$SCRATCH/state
terminal=$ROOT/test/cli/terminal.py

k() { timeout -k 5 "${LIMIT:-30}" "$KVMSBOX" "$@"; }
run() { k run --platform="$platform" --cache "$cache" "$@"; }
wants() { [ -z "$pattern" ] || [[ $1 == *$pattern* ]]; }
# field NAME FIELD: of kvmsbox ps --json.
field() { k ps --json | python3 -c '
import json, sys
for s in json.load(sys.stdin):
    if s["name"] == sys.argv[1]: print(json.dumps(s.get(sys.argv[2])))' "$1" "$2"; }
# idle NAME OPTION…: a sandbox in the background that does nothing.
idle() {
	local name=$1
	shift
	run -d --name "$name" "$@" "$image" -- sleep 1000 || echo "# can't start $name"
}
# until_true SECONDS COMMAND…
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
	wants "$name" || return 0
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
# entered NAME WANT OPTION… -- CMD…: what entering sandbox "box" prints; status 0.
entered() {
	local name=$1 want=$2 got st
	shift 2
	wants "$name" || return 0
	got=$(k enter box "$@" 2>&1 </dev/null)
	st=$?
	if [ $st -ne 0 ]; then fail "$name" "exit status $st" "$got"; else expect "$name" "$want" "$got"; fi
}
entered_status() {
	local name=$1 want=$2 got st
	shift 2
	wants "$name" || return 0
	got=$(k enter box "$@" 2>&1 </dev/null)
	st=$?
	if [ $st -eq "$want" ]; then pass "$name"; else fail "$name" "exit status $st, not $want" "$got"; fi
}
# The sandboxes' processes end with the test, whatever happens.
end_all() {
	local s
	# A subshell that a signal ends early may still have this trap.
	[ "$BASHPID" = $$ ] || return 0
	for s in "$SCRATCH"/state*/[A-Za-z0-9]*; do
		[ ! -e "$s" ] || KVMSBOX_STATE=${s%/*} timeout 20 "$KVMSBOX" rm -f "${s##*/}" >/dev/null 2>&1
	done
}
trap 'end_all; scratch_remove' EXIT

timeout 120 "$KVMSBOX" exec --platform="$platform" --cache "$cache" "$image" -- true </dev/null ||
	echo "# the image can't be run"

# --- starting
expect ps_nothing "NAME  STATUS  PID  PLATFORM  IMAGE  COMMAND  UP" "$(k ps)"
expect ps_nothing_json "[]" "$(k ps --json)"
start=$(date +%s%N)
run -d --name box -e INIT=1 --hostname boxhost "$image" -- sh -c 'echo out; echo err >&2; trap "exit 5" TERM; while :; do sleep 0.1; done' \
	>"$SCRATCH/o" 2>&1 </dev/null
st=$?
took=$((($(date +%s%N) - start) / 1000000))
expect run_d "0 " "$st $(cat "$SCRATCH/o")"
if [ $took -lt 5000 ]; then pass run_d_returns; else fail run_d_returns "after $took ms"; fi
expect state_dir_mode 700 "$(stat -c %a "$KVMSBOX_STATE")"
expect state_box_mode "700 600 600 600" "$(cd "$KVMSBOX_STATE/box" && stat -c %a . state.json log exit | paste -sd' ')"
expect_match ps_line "^box +running +[0-9]+ +$platform +busybox.tar +sh -c echo out.* [0-9]+s$" "$(k ps)"
pid=$(field box pid)
expect ps_json '"running" null 1' "$(field box status) $(field box exit_status) $(field box version)"
expect_match ps_json_tasks '^[2-9]$' "$(field box tasks)"
expect_match ps_json_memory '^[1-9][0-9]+$' "$(field box memory)"
expect ps_json_command '"echo out; echo err >&2; trap \"exit 5\" TERM; while :; do sleep 0.1; done"' "$(k ps --json | python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)[0]["command"][2]))')"
expect daemon_is_apart "1" "$(ps -o pid=,ppid=,sid=,tty= -p "$pid" | awk -v s="$(ps -o sid= -p $$)" '{ print $2 != '$$' && $3 != s && $4 == "?" }')"
expect daemon_cwd / "$(readlink "/proc/$pid/cwd")"
expect daemon_start_time "$(awk '{ print $22 }' "/proc/$pid/stat")" "$(field box start_time)"
until_true 5 grep -q err "$KVMSBOX_STATE/box/log"
expect logs "out err" "$(k logs box | paste -sd' ')"

# --- names
long=$(printf 'n%.0s' {1..64})
bad name_none 125 'no name given' run -d "$image" -- true
for n in "" . .. .x -x _x a/b "a b" a$'\n'b é "${long}x"; do
	bad "name_bad_$(printf %.9s "${n//[^a-zA-Z0-9.-]/_}")" 125 'letter' run -d "--name=$n" "$image" -- true
done
if wants name_longest; then
	run -d --name "$long" "$image" -- true </dev/null && k wait "$long" >/dev/null
	expect name_longest "0 0" "$? $(k rm "$long"; echo $?)"
fi
bad no_image 125 'no image given' run -d --name x
bad name_taken 125 'sandbox box is running.*enter box.*rm -f box' run -d --name box "$image" -- true
bad name_taken_foreground 125 'sandbox box is running' run --name box "$image" -- true
for c in enter logs kill wait rm; do
	more=()
	[ $c != enter ] || more=(true)
	bad "${c}_nothing" 125 "^kvmsbox: $c: no sandbox given" k $c
	bad "${c}_missing" 125 "^kvmsbox: $c: there is no sandbox nosuch: kvmsbox ps" k $c nosuch ${more[@]+"${more[@]}"}
	bad "${c}_bad_name" 125 "^kvmsbox: $c: \"\.\./x\" can't be" k $c ../x ${more[@]+"${more[@]}"}
	bad "${c}_option" 125 "$c: unknown option --frob: see kvmsbox $c --help" k $c --frob
	if wants help; then
		out=$(k $c --help)
		expect "help_$c" "0 yes" "$? $(grep -q "^usage: kvmsbox $c" <<<"$out" && grep -q -- --state <<<"$out" && echo yes)"
	fi
done 2>/dev/null
bad ps_argument 125 'ps: too many' k ps box
bad logs_two 125 'logs: too many' k logs box box

# --- failing to start: reason, status, nothing left
bad start_not_found 127 'nosuchprogram: command not found' run -d --name f1 "$image" -- nosuchprogram
bad start_not_executable 126 '/etc/motd.*ermission' run -d --name f1 "$image" -- /etc/motd
bad start_cwd 125 '/no/such/dir.*No such file' run -d --name f1 --cwd /no/such/dir "$image" -- true
bad start_user 125 'nobodyhere' run -d --name f1 --user nobodyhere "$image" -- true
bad start_image 125 'nosuch.tar.*No such file' run -d --name f1 "$SCRATCH/nosuch.tar" -- true
bad start_foreground 127 'nosuchprogram: command not found' run --name f1 "$image" -- nosuchprogram
expect start_nothing_left box "$(ls "$KVMSBOX_STATE")"

# --- entering
entered enter_output hi -- echo hi
entered enter_without_dashes hi echo hi
if wants enter_option_first; then expect enter_option_first /etc "$(k enter --cwd /etc box pwd 2>&1)"; fi
if wants enter_stdin; then expect enter_stdin HELLO "$(echo hello | k enter box tr a-z A-Z 2>&1)"; fi
entered_status enter_status_7 7 sh -c 'exit 7'
entered_status enter_status_143 143 sh -c 'kill -TERM $$'
entered_status enter_status_137 137 sh -c 'kill -KILL $$'
bad enter_not_found 127 'nosuchprogram: command not found' k enter box nosuchprogram
bad enter_not_found_path 127 '/bin/nosuch' k enter box /bin/nosuch
bad enter_not_executable 126 '/etc/motd.*ermission' k enter box /etc/motd
bad enter_no_command 125 'no command given' k enter box
bad enter_no_command_2 125 'no command given' k enter box -t --
entered enter_cwd /etc --cwd /etc pwd
bad enter_cwd_missing 125 '/no/such.*No such file' k enter box --cwd /no/such true
bad enter_cwd_relative 125 'absolute' k enter box --cwd etc true
entered enter_env "1 x y 0" -e A=x -e B=y -- sh -c 'echo $INIT $A $B ${#HOST}'
entered enter_env_replaced "2" -e INIT=2 -- sh -c 'echo $INIT'
entered enter_env_clean "" sh -c 'echo $KVMSBOX_STATE$XDG_RUNTIME_DIR'
if wants enter_env_passed; then expect enter_env_passed mine "$(HOST=mine k enter box -e HOST -- sh -c 'echo $HOST' 2>&1)"; fi
entered enter_home /root sh -c 'echo $HOME'
entered enter_home_user /home/user --user user sh -c 'echo $HOME'
entered enter_user "1000 1000 1001" --user user -- sh -c 'echo $(id -u) $(id -g) $(awk "/^Groups/ { print \$2 }" /proc/self/status)'
entered enter_user_numbers "7 8" --user 7:8 -- sh -c 'echo $(id -u) $(id -g)'
bad enter_user_unknown 125 'nobodyhere' k enter box --user nobodyhere true
entered enter_umask_default 0022 sh -c umask
entered enter_umask 0077 --umask 077 sh -c umask
entered enter_no_new_privs 1 --no-new-privs awk '/NoNewPrivs/ { print $2 }' /proc/self/status
entered enter_hostname boxhost hostname
entered enter_sees_init yes sh -c 'tr "\0" " " </proc/1/cmdline | grep -q "sh -c echo out" && echo yes'
entered enter_no_parent "0 yes" sh -c 'echo $(awk "/^PPid/ { print \$2 }" /proc/self/status | { read p; awk "/^PPid/ { print \$2 }" /proc/$$/status; }) $([ "$(cut -d" " -f6 /proc/$$/stat)" = $$ ] && echo yes)'
entered enter_no_orphans "" sh -c 'sleep 0.2 & exit 0'
if wants enter_files; then
	k enter box sh -c 'echo kept >/tmp/kept'
	expect enter_files kept "$(k enter box cat /tmp/kept)"
fi
if wants enter_streams; then
	k enter box sh -c 'echo out; echo err >&2' >"$SCRATCH/o" 2>"$SCRATCH/e" </dev/null
	expect enter_stdout_stderr "out err" "$(cat "$SCRATCH/o") $(cat "$SCRATCH/e")"
	echo first >"$SCRATCH/o"
	k enter box echo second >>"$SCRATCH/o" </dev/null
	expect enter_append "first second" "$(paste -sd' ' "$SCRATCH/o")"
	want=$(head -c 30000000 /dev/zero | tr '\0' x | sha256sum)
	expect enter_30MB "$want" "$(head -c 30000000 /dev/zero | tr '\0' x | LIMIT=60 k enter box cat 2>&1 | sha256sum)"
	expect enter_stdout_closed_early y "$(k enter box yes 2>/dev/null </dev/null | head -n 1)"
	k enter box sh -c 'read x; echo $?' <&- >"$SCRATCH/o" 2>/dev/null
	expect enter_stdin_closed 1 "$(cat "$SCRATCH/o")"
	expect enter_args_many 3000 "$(k enter box sh -c 'echo $#' sh $(seq 3000))"
	args=$(head -c 100000 /dev/zero | tr '\0' y)
	expect enter_args_long 500000 "$(k enter box sh -c 'echo $((${#1} + ${#2} + ${#3} + ${#4} + ${#5}))' sh "$args" "$args" "$args" "$args" "$args" 2>&1)"
fi
if wants enter_many; then
	for i in $(seq 12); do
		{ echo "$i" | k enter box sh -c 'read i; sleep 0.3; echo $i; exit $i' >"$SCRATCH/many.$i" 2>&1; echo $? >>"$SCRATCH/many.$i"; } &
		jobs_[i]=$!
	done
	wait "${jobs_[@]}"
	expect enter_many "$(for i in $(seq 12); do echo "$i $i"; done)" "$(for i in $(seq 12); do paste -sd' ' "$SCRATCH/many.$i"; done)"
	until_true 5 test "$(field box entered)" = 0
	expect enter_many_gone 0 "$(field box entered)"
fi

# --- entering, signals
# signal_entered NAME SIGNAL WANT SCRIPT: what is printed, and the status.
signal_entered() {
	local name=$1 sig=$2 want=$3 script=$4 p st
	wants "$name" || return 0
	: >"$SCRATCH/o"
	"$KVMSBOX" enter box sh -c "$script" >"$SCRATCH/o" 2>&1 </dev/null &
	p=$!
	until_true 10 grep -q ready "$SCRATCH/o"
	kill -"$sig" $p
	( sleep 15; kill -KILL $p ) 2>/dev/null &
	local watchdog=$!
	wait $p
	st=$?
	kill $watchdog 2>/dev/null
	wait $watchdog 2>/dev/null
	expect "$name" "$want" "$(grep -v ready "$SCRATCH/o" | paste -sd' ') $st"
}
signal_entered enter_term TERM " 143" 'echo ready; exec sleep 20'
signal_entered enter_int INT " 130" 'trap - INT; echo ready; exec sleep 20'
signal_entered enter_term_handler TERM "got 5" 'trap "echo got; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
signal_entered enter_usr1_handler USR1 "usr1 7" 'trap "echo usr1; exit 7" USR1; echo ready; while :; do sleep 0.1; done'
# What becomes of a command whose kvmsbox is killed.
orphan() {
	local p
	: >"$SCRATCH/o"
	"$KVMSBOX" enter box sh -c "$1" >"$SCRATCH/o" 2>&1 </dev/null &
	p=$!
	until_true 10 grep -q ready "$SCRATCH/o"
	kill -KILL $p
	wait $p 2>/dev/null
}
if wants enter_hangup; then
	orphan 'trap "echo hup >/tmp/hup; exit" HUP; echo ready; while :; do sleep 0.1; done'
	until_true 5 k enter box test -s /tmp/hup
	expect enter_hangup hup "$(k enter box cat /tmp/hup)"
	orphan 'sleep 777 & echo ready; wait'
	until_true 5 k enter box sh -c '! ps | grep "[s]leep 777"'
	expect enter_hangup_group "" "$(k enter box sh -c 'ps | grep "[s]leep 777"')"
	orphan 'trap "" HUP; echo ready; exec sleep 778'
	sleep 0.5
	expect_match enter_hangup_ignored '[0-9] root +sleep 778' "$(k enter box sh -c 'ps | grep "[s]leep 778"')"
	k enter box sh -c 'kill $(ps | awk "/[s]leep 778/ { print \$1 }")'
	until_true 5 test "$(field box entered)" = 0
	expect enter_hangup_gone 0 "$(field box entered)"
fi

# --- terminals
# on_terminal NAME REGEX CMD… <script
on_terminal() {
	local name=$1 regex=$2 out
	shift 2
	wants "$name" || { cat >/dev/null; return 0; }
	out=$(python3 "$terminal" 30 "$@" | tr '\n' ' ')
	expect_match "$name" "$regex" "$out"
}
on_terminal tty_default '/dev/pts/[0-9]+ .*status 9' "$KVMSBOX" enter box sh <<'END'
wait #
send tty; exit 9\r
END
on_terminal tty_raw_meanwhile '^raw .*status 0' "$KVMSBOX" enter box sh -c 'echo begin; read x' <<'END'
wait begin
sleep 0.3
stty
send \r
END
on_terminal tty_restored '^cooked ' sh -c "$KVMSBOX enter box true; echo done; sleep 5" <<'END'
wait done
stty
kill KILL
END
on_terminal tty_restored_after_death '^cooked .*137' sh -c "$KVMSBOX enter box sh -c 'kill -9 \$\$'; echo \$? done; sleep 5" <<'END'
wait done
stty
kill KILL
END
on_terminal tty_size 'size 33 99 .*status 0' "$KVMSBOX" enter box sh -c 'trap : WINCH; until stty size | grep -q "33 99"; do sleep 0.1; done; echo size $(stty size)' <<'END'
size 24 80
sleep 0.5
size 33 99
END
on_terminal tty_interrupt 'status 130' "$KVMSBOX" enter box sleep 50 <<'END'
sleep 0.7
send \x03
END
on_terminal tty_controlling 'opened .*status 0' "$KVMSBOX" enter box sh -c 'echo opened >/dev/tty' <<'END'
END
on_terminal tty_none 'not a tty .*status 1' "$KVMSBOX" enter box --no-tty tty <<'END'
END
on_terminal tty_term 'TERM is special .*status 0' env TERM=special "$KVMSBOX" enter box sh -c 'echo TERM is $TERM' <<'END'
END
on_terminal tty_typed_ahead 'mine later' sh -c "$KVMSBOX enter box true; sleep 0.5; read x; echo mine \$x" <<'END'
sleep 1
send later\r
END
if wants tty_option; then
	expect_match tty_option '^/dev/pts/[0-9]+' "$(k enter box --tty tty </dev/null)"
	expect tty_output 200000 "$(k enter box -t sh -c 'yes | head -n 100000' </dev/null | tr -d '\r' | wc -c)"
fi
if wants tty_two; then
	python3 "$terminal" 30 "$KVMSBOX" enter box sh >"$SCRATCH/t1" <<'END' &
wait #
send echo one `tty` ; sleep 1; exit 1\r
END
	t=$!
	python3 "$terminal" 30 "$KVMSBOX" enter box sh >"$SCRATCH/t2" <<'END'
wait #
send echo two `tty` ; sleep 1; exit 2\r
END
	wait $t
	expect tty_two "one status 1 two status 2 2" "$(for i in 1 2; do echo $(grep -oE '^(one|two) /dev' "$SCRATCH/t$i" | cut -d' ' -f1) $(tail -n 1 "$SCRATCH/t$i"); done | paste -sd' ') $(cat "$SCRATCH"/t[12] | grep -oE '^(one|two) /dev/pts/[0-9]+' | cut -d' ' -f2 | sort -u | wc -l)"
fi
if wants tty_hangup; then
	printf 'wait begin\nclose\n' | python3 "$terminal" 30 "$KVMSBOX" enter box sh -c 'trap "echo hup >/tmp/thup; exit" HUP; echo begin; while :; do sleep 0.1; done' >/dev/null
	until_true 5 k enter box test -s /tmp/thup
	expect tty_hangup hup "$(k enter box cat /tmp/thup)"
fi
# A relayed terminal without -t: the program sees a pipe, and reads what is typed.
on_terminal no_tty_relay 'got typed .*status 0' sh -c "$KVMSBOX enter box sh -c 'echo begin >&2; read x; echo got \$x' | cat" <<'END'
wait begin
send typed\r
END

# --- kill, wait
if wants kill; then
	k wait box >"$SCRATCH/w1" 2>&1 &
	w=$!
	k enter box sleep 100 >"$SCRATCH/e1" 2>&1 </dev/null &
	e=$!
	k logs -f box >"$SCRATCH/l1" 2>&1 &
	l=$!
	until_true 5 test "$(field box entered)" = 1
	k kill -s WINCH box
	expect kill_winch 0 $?
	expect kill_winch_lives '"running"' "$(field box status)"
	k kill box
	expect kill 0 $?
	wait $w
	expect wait_status "5 5" "$? $(cat "$SCRATCH/w1")"
	wait $e
	expect enter_when_it_ends "137 " "$? $(cat "$SCRATCH/e1")"
	wait $l
	expect logs_follow "0 out err" "$? $(paste -sd' ' "$SCRATCH/l1")"
	expect wait_again "5" "$(k wait box)"
	expect_match ps_exited '^box +exited \(5\) +- ' "$(k ps | tail -n 1)"
	expect ps_exited_json '"exited" 5' "$(field box status) $(field box exit_status)"
	bad kill_ended 125 'box is not running: exited \(5\)' k kill box
	bad enter_ended 125 'box is not running: exited \(5\)' k enter box true
	bad name_ended 125 'has ended, exited \(5\): kvmsbox rm box' run -d --name box "$image" -- true
	expect logs_ended "out err" "$(k logs box | paste -sd' ')"
	until_true 5 sh -c "! kill -0 $pid"
	expect process_gone gone "$(kill -0 "$pid" 2>/dev/null || echo gone)"
	k rm box
	expect rm "0 " "$? $(ls "$KVMSBOX_STATE")"
fi
bad kill_bad_signal 125 'FROB' k kill -s FROB box
if wants kill_kill; then
	idle victim
	k kill -s SIGKILL victim
	expect kill_kill "137 137" "$(k wait victim) $?"
	k rm victim
fi
if wants exit_codes; then
	run -d --name quick "$image" -- sh -c 'exit 0' </dev/null
	expect wait_0 "0 0" "$(k wait quick) $?"
	k rm quick
	run -d --name quick --timeout 0.5 "$image" -- sleep 100 </dev/null
	expect wait_timeout "124 124" "$(k wait quick) $?"
	k rm quick
fi
if wants logs_f; then
	run -d --name talk "$image" -- sh -c 'for i in 1 2 3 4 5; do echo $i; sleep 0.2; done' </dev/null
	expect logs_f_all "1 2 3 4 5" "$(k logs -f talk | paste -sd' ')"
	k rm talk
	run -d --name talk "$image" -- sh -c 'yes | head -c 3000000' </dev/null
	expect logs_f_large 3000000 "$(k logs -f talk | wc -c)"
	k rm talk
	run -d --name talk "$image" -- sh -c 'yes' </dev/null
	expect logs_f_closed y "$(k logs -f talk 2>/dev/null | head -n 1)"
	k rm -f talk
	run -d -t --name talk "$image" -- tty </dev/null
	expect_match run_d_tty '^/dev/pts/0' "$(k logs -f talk)"
	k rm talk
fi

# --- rm
if wants rm; then
	idle keep
	bad rm_running 125 'keep is running: kvmsbox kill keep first, or rm -f' k rm keep
	expect rm_refused '"running"' "$(field keep status)"
	idle keep2
	k rm -f keep keep2
	expect rm_force "0 " "$? $(ls "$KVMSBOX_STATE")"
fi
if wants rm_stopped; then
	# A sentry that doesn't answer.
	idle stuck
	p=$(field stuck pid)
	kill -STOP "$p"
	k rm -f stuck
	expect rm_stopped "0 " "$? $(ls "$KVMSBOX_STATE")"
	until_true 5 sh -c "! kill -0 $p"
	expect rm_stopped_gone gone "$(kill -0 "$p" 2>/dev/null || echo gone)"
fi

# --- dying
if wants died; then
	idle dead
	p=$(field dead pid)
	k enter dead sh -c 'echo ready; sleep 100' >"$SCRATCH/o" 2>"$SCRATCH/e" </dev/null &
	e=$!
	k wait dead >"$SCRATCH/w" 2>&1 &
	w=$!
	until_true 10 grep -q ready "$SCRATCH/o"
	kill -KILL "$p"
	wait $e
	expect died_enter 137 $?
	expect_match died_enter_says 'enter: sandbox dead died' "$(cat "$SCRATCH/e")"
	wait $w
	expect died_wait 125 $?
	expect_match died_wait_says 'dead died: its process was killed or crashed' "$(cat "$SCRATCH/w")"
	expect_match died_ps '^dead +died +- ' "$(k ps | tail -n 1)"
	expect died_json '"died" null "its process was killed or crashed"' "$(field dead status) $(field dead exit_status) $(field dead reason)"
	bad died_enter_later 125 'dead is not running: died' k enter dead true
	bad died_name 125 'has ended, died: kvmsbox rm dead' run -d --name dead "$image" -- true
	k rm dead
	expect died_rm "0 " "$? $(ls "$KVMSBOX_STATE")"
fi
if wants stale; then
	# Somebody else's process has the number now; the folder of one that was killed while it was made.
	mkdir -p "$KVMSBOX_STATE/stale" "$KVMSBOX_STATE/empty" "$KVMSBOX_STATE/damaged"
	printf '{"version":1,"name":"stale","pid":%d,"start_time":12345,"platform":"kvm","image":"/x/y.tar","command":["sleep"],"created":1.5}\n' $$ >"$KVMSBOX_STATE/stale/state.json"
	: >"$KVMSBOX_STATE/stale/lock"
	: >"$KVMSBOX_STATE/stale/exit"
	head -c 5000 /dev/urandom >"$KVMSBOX_STATE/damaged/state.json"
	printf '[{"name": 3' >"$KVMSBOX_STATE/damaged/exit"
	expect stale_ps "damaged died empty died stale died" "$(k ps | awk 'NR > 1 { print $1, $2 }' | paste -sd' ')"
	expect stale_reason '"its state is missing or damaged"' "$(field damaged reason)"
	bad stale_wait 125 'stale died' k wait stale
	bad stale_kill 125 'stale is not running: died' k kill stale
	bad stale_logs 125 'stale has no log' k logs stale
	k rm -f stale empty damaged
	expect stale_rm "0 " "$? $(ls "$KVMSBOX_STATE")"
	printf '{"pid":1,"start_time":1,"command":5,"image":7,"created":"x","platform":[]}' >"$SCRATCH/odd"
	mkdir "$KVMSBOX_STATE/odd" && cp "$SCRATCH/odd" "$KVMSBOX_STATE/odd/state.json"
	expect_match stale_odd '^odd +died +- +\? +\? ' "$(k ps | tail -n 1)"
	expect stale_odd_json '"died"' "$(field odd status)"
	k rm odd
fi

# --- the state directory
if wants state; then
	mkdir -m 755 "$SCRATCH/state.open"
	bad state_open 125 'state.open is open to others \(mode 0755\): chmod 700' k run -d --state "$SCRATCH/state.open" --name x "$image" -- true
	bad state_open_ps 125 'open to others' k ps --state "$SCRATCH/state.open"
	bad state_missing_parent 125 "can't make the state directory /no/such/dir" k run -d --state /no/such/dir --name x "$image" -- true
	bad state_is_file 125 'busybox.tar: Not a directory' k ps --state "$image"
	expect state_missing "NAME  STATUS  PID  PLATFORM  IMAGE  COMMAND  UP" "$(k ps --state "$SCRATCH/state.none")"
	expect state_not_made "no" "$([ -e "$SCRATCH/state.none" ] || echo no)"
	deep=$SCRATCH/state.$(printf 'd%.0s' {1..200})
	expect state_long_path "0 deep" "$(run -d --state "$deep" --name deep "$image" -- sleep 100 </dev/null; echo $? "$(k enter --state "$deep" deep echo deep)")"
	k rm -f --state "$deep" deep
	if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
		as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups env -u KVMSBOX_STATE "$@"; }
		bad state_no_runtime_dir 125 'XDG_RUNTIME_DIR is not set; give --state' as_nobody env -u XDG_RUNTIME_DIR "$KVMSBOX" ps
		mkdir -m 700 "$SCRATCH/runtime" "$SCRATCH/nobodycache"
		chown 65534:65534 "$SCRATCH/runtime" "$SCRATCH/nobodycache"
		cp "$image" "$SCRATCH/public.tar"
		chmod 644 "$SCRATCH/public.tar"
		if [ "$platform" != kvm ]; then
			nb() { as_nobody env XDG_RUNTIME_DIR="$SCRATCH/runtime" timeout 60 "$KVMSBOX" "$@"; }
			nb run -d --platform="$platform" --cache "$SCRATCH/nobodycache" --name theirs "$SCRATCH/public.tar" -- sleep 1000 </dev/null
			expect state_unprivileged "0 700 hi" "$? $(stat -c %a "$SCRATCH/runtime/kvmsbox") $(nb enter theirs echo hi 2>&1 </dev/null)"
			expect state_root_may "root" "$(k enter --state "$SCRATCH/runtime/kvmsbox" theirs echo root 2>&1 </dev/null)"
			nb rm -f theirs
			expect state_unprivileged_rm "0 0" "$? $(ls "$SCRATCH/runtime/kvmsbox" | wc -l)"
		fi
		bad state_of_another 125 'ermission denied|belongs to' as_nobody "$KVMSBOX" ps --state "$KVMSBOX_STATE"
		# Were the directories open, the sandbox itself would still refuse.
		idle mine
		chmod 711 "$KVMSBOX_STATE" "$KVMSBOX_STATE/mine"
		chmod 666 "$KVMSBOX_STATE/mine/control.sock"
		expect peer_refused "refused" "$(as_nobody python3 -c '
import socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
try:
    s.send(struct.pack("4I48x", 1, 4, 0, 0))
    print("answered" if s.recv(100) else "refused")
except (BrokenPipeError, ConnectionResetError):
    print("refused")' "$KVMSBOX_STATE/mine/control.sock")"
		chmod 700 "$KVMSBOX_STATE" "$KVMSBOX_STATE/mine"
		expect peer_same_user '2' "$(field mine tasks | sed 's/1/2/')"
		k rm -f mine
	else
		skip state_users "needs root"
	fi
fi

# --- strange clients
if wants client; then
	idle odd
	# Whatever is sent, each packet is answered or the connection closed, and the sandbox lives.
	expect client_garbage "alive" "$(python3 - "$KVMSBOX_STATE/odd/control.sock" <<'END'
import array, os, random, socket, struct, sys
random.seed(7)
def connect():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(sys.argv[1])
    s.settimeout(5)
    return s
def msg(version=1, kind=4, flags=0, length=0, body=b""):
    return struct.pack("4I", version, kind, flags, length) + body.ljust(48, b"\0")
def ask(s, data, fds=()):
    s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
    r = s.recv(4096)
    return struct.unpack("4I", r[:16])[1]
FAILED, STATUS_IS = 65, 68
s = connect()
bad = [b"x", msg()[:-1], msg() + b"x", msg() * 3, msg(version=2), msg(kind=0), msg(kind=6), msg(kind=64),
       msg(flags=1), msg(length=1), msg(kind=2, body=struct.pack("i", 0)), msg(kind=2, body=struct.pack("i", 65)),
       msg(kind=2, body=struct.pack("i", 15)), msg(kind=3), msg(kind=1, body=struct.pack("I", 100)), b"y" * 60000]
for b in bad:
    assert ask(s, b) == FAILED, b[:20]
null = os.open("/dev/null", os.O_RDWR)
assert ask(s, msg(), [null]) == FAILED
enter = lambda n: msg(kind=1, body=struct.pack("I", n))
assert ask(s, enter(100), [null]) == FAILED
assert ask(s, enter(100), [null] * 5) == FAILED
def memfd(data, seal=True):
    fd = os.memfd_create("t", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    if seal:
        import fcntl
        fcntl.fcntl(fd, 1033, 0xf)
    return fd
m = memfd(os.urandom(1000))
assert ask(s, enter(1000), [m]) == FAILED
assert ask(s, enter(2000), [m]) == FAILED
assert ask(s, enter(1 << 30), [m]) == FAILED
assert ask(s, enter(1000), [memfd(b"x" * 1000, False)]) == FAILED
for i in range(300):
    b = bytearray(msg(kind=random.randrange(7)))
    for _ in range(random.randrange(4)):
        b[random.randrange(16, 64)] = random.randrange(256)
    ask(s, bytes(b))
many = [connect() for _ in range(100)]
for c in many:
    assert ask(c, msg()) == STATUS_IS
s.close()
for c in many[::2]:
    c.close()
assert ask(connect(), msg()) == STATUS_IS
print("alive")
END
)"
	expect client_then "hi" "$(k enter odd echo hi)"
	p=$(field odd pid)
	before=$(ls "/proc/$p/fd" | wc -l)
	for _ in 1 2 3 4 5; do k enter odd true </dev/null; k enter odd nosuch </dev/null; k enter odd -t true </dev/null; done >/dev/null 2>&1
	until_true 3 test "$(ls "/proc/$p/fd" | wc -l)" -le "$before"
	expect client_descriptors "$before" "$(ls "/proc/$p/fd" | wc -l)"
	k rm -f odd
fi

# --- in the foreground
if wants foreground; then
	run --name fore "$image" -- sh -c 'echo ready; read x; echo got $x; exit 4' >"$SCRATCH/o" 2>&1 < <(sleep 2; echo line) &
	f=$!
	until_true 10 grep -q ready "$SCRATCH/o"
	expect_match fore_ps '^fore +running ' "$(k ps | tail -n 1)"
	expect fore_enter 'sh' "$(k enter fore sh -c 'cut -d" " -f2 /proc/1/stat | tr -d "()"')"
	wait $f
	expect fore_status "4 ready got line" "$? $(paste -sd' ' "$SCRATCH/o")"
	expect fore_exited '"exited" 4' "$(field fore status) $(field fore exit_status)"
	k rm fore
	run --name fore "$image" -- sleep 100 </dev/null &
	f=$!
	until_true 10 k enter fore true
	k rm -f fore
	wait $f
	expect fore_removed 137 $?
fi
on_terminal fore_tty '^cooked .*raw .*status 3' sh -c "stty -echo; echo begin; sleep 0.5; $KVMSBOX run --platform=$platform --cache $cache --name foretty $image -- sh -c 'echo running; read x; exit 3'" <<'END'
wait begin
stty
wait running
sleep 0.2
stty
send x\r
END
k rm foretty >/dev/null 2>&1
# A sandbox in the background of the same terminal: entering still reads what is typed.
on_terminal fore_same_tty 'typed here .*status 0' sh -c "$KVMSBOX run --platform=$platform --cache $cache --no-tty --name bg $image -- sleep 1000 >/dev/null 2>&1 & until $KVMSBOX enter bg true 2>/dev/null; do sleep 0.1; done; $KVMSBOX enter bg sh -c 'echo begin; read x; echo typed \$x'; $KVMSBOX rm -f bg" <<'END'
wait begin
send here\r
END

# --- several at once
if wants race; then
	lost=0 wins=
	for round in 1 2 3 4 5; do
		for i in $(seq 6); do
			( run -d --name same "$image" -- sh -c "echo $i; sleep 1000" >"$SCRATCH/r.$i" 2>&1 </dev/null; echo $? >>"$SCRATCH/r.$i" ) &
			r[i]=$!
		done
		wait "${r[@]}"
		won=$(for i in $(seq 6); do [ "$(cat "$SCRATCH/r.$i")" != 0 ] || echo "$i"; done | paste -sd' ')
		said=$(for i in $(seq 6); do head -n 1 "$SCRATCH/r.$i"; done | grep -c 'a sandbox same is running')
		until_true 5 test -s "$KVMSBOX_STATE/same/log"
		[ "$(k logs same)" = "$won" ] && [ "$said" = 5 ] || { lost=$((lost + 1)); wins="won: $won, told: $said"; }
		k rm -f same
	done
	expect race_same_name "0 " "$lost $wins"
	# Starts and removals of one name, with others who look.
	( while [ ! -e "$SCRATCH/stop" ]; do k ps >/dev/null 2>>"$SCRATCH/pserr"; done ) &
	looker=$!
	odd=
	for i in $(seq 4); do
		( for _ in 1 2 3 4 5; do
			out=$(run -d --name churn "$image" -- sleep 1000 2>&1 </dev/null) || grep -q 'sandbox churn' <<<"$out" || echo "run: $out"
			out=$(k rm -f churn 2>&1) || grep -q 'no sandbox churn' <<<"$out" || echo "rm: $out"
		done ) >"$SCRATCH/churn.$i" 2>&1 &
		r[i]=$!
	done
	wait "${r[@]:1:4}"
	: >"$SCRATCH/stop"
	wait $looker
	expect race_churn "" "$(cat "$SCRATCH"/churn.* "$SCRATCH/pserr" | head -n 5)"
	k rm -f churn >/dev/null 2>&1
	expect race_left "" "$(ls "$KVMSBOX_STATE")"
fi

# --- nothing stays
if wants nothing_left; then
	cat >"$SCRATCH/life" <<END
k=$KVMSBOX
\$k run -d --platform=$platform --cache $cache --name life $image -- sh -c 'sleep 100 & sleep 100' || exit
\$k enter life sh -c 'sleep 100 & sleep 0.2'
\$k kill -s KILL life
\$k wait life >/dev/null
\$k rm life
END
	out=$(python3 "$ROOT/test/cli/subreaper.py" 0 timeout 60 sh "$SCRATCH/life" 2>&1)
	expect nothing_left "0 " "$? $out"
	sed -i 's/^\$k kill.*/kill -9 $($k ps | awk "\\$1 == \\"life\\" { print \\$3 }"); sleep 0.5/; /^\$k wait/d' "$SCRATCH/life"
	out=$(python3 "$ROOT/test/cli/subreaper.py" 0 timeout 60 sh "$SCRATCH/life" 2>&1)
	expect nothing_left_killed "0 " "$? $out"
	expect nothing_left_state "" "$(ls "$KVMSBOX_STATE")"
fi
finish
