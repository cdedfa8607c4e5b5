#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# bash: pipelines, substitutions, traps, and job control without and with a terminal.
# timeout: 120
. "$(dirname "$0")/app.sh"

app pipeline "997 987 979 " bash -c 'seq 1000 | grep 7 | sort -rn | head -3 | tr "\n" " "'
app pipestatus "0 1 0 3" bash -c 'true | false | true | (exit 3); echo ${PIPESTATUS[*]}'
app substitution "same 6" bash -c 'diff <(seq 3) <(seq 3) && echo same $(($(seq 3 | paste -sd+)))'
app heredoc "HELLO" bash -c 'tr a-z A-Z <<E
hello
E'
app trap "got USR1
end" bash -c 'trap "echo got USR1" USR1; trap "echo end" EXIT; kill -USR1 $$'
app background "3 2 1 " bash -c 'for i in 1 2 3; do (sleep 0.$((4 - i)); echo -n "$i ") & done; wait'
app wait_status "7 143" bash -c '(exit 7) & wait $!; a=$?; sleep 100 & kill $!; wait $!; echo $a $?'
app jobs "[1]+  Stopped                 sleep 100
[1]+  Running                 sleep 100 &
143" bash -c '# Bash may also tell on stderr that the job has stopped, on any system.
	exec 2>/dev/null; set -m; sleep 100 & p=$!; kill -STOP $p; while [ "$(ps -o stat= -p $p | cut -c1)" != T ]; do :; done; jobs
	kill -CONT $p; while [ "$(ps -o stat= -p $p | cut -c1)" = T ]; do :; done; jobs
	kill $p; wait $p 2>/dev/null; echo $?'
app big_pipe "104857600" bash -c 'head -c 100M /dev/zero | cat | wc -c'
app many_forks "500" bash -c 'n=0; for i in $(seq 500); do n=$((n + $(echo 1))); done; echo $n'

BOX_OPTS=(--tty --env=TERM=xterm "--env=PS1=ready> ")
export -f box
if out=$(python3 "$HERE/terminal.py" 'expect:ready> ' 'send:sleep 100\r' 'wait:0.7' 'send:\x1a' \
	'expect:Stopped +sleep 100' 'send:jobs\r' 'expect:\[1\]\+ +Stopped +sleep 100' 'send:fg\r' \
	'expect:sleep 100' 'wait:0.7' 'send:\x03' 'expect:ready> ' 'send:echo status=$?\r' \
	'expect:status=130' 'send:cat\r' 'wait:0.5' 'send:abc\x7fd\r' 'expect:\nabd\r\n' 'send:\x04' 'expect:ready> ' \
	'send:stty size\r' 'expect:31 97' 'resize:40x111' 'send:stty size\r' 'expect:40 111' \
	'send:exit 5\r' 'status:5' -- \
	"$(declare -f box); $(declare -p BOX_LIMIT KVMSBOX PLATFORM TEST_CACHE BOX_OPTS IMAGE TREE 2>/dev/null); box bash --norc --noprofile -i" 2>&1); then
	pass terminal_job_control
else
	fail terminal_job_control "$out"
fi
finish
