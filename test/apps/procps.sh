#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# ps, top, free, uptime, pgrep, kill: what reads /proc.
# timeout: 90
. "$(dirname "$0")/app.sh"
app ps_tree "bash sleep " bash -c 'sleep 50 & ps -o comm= -p $$,$! | tr "\n" " "; kill $!'
app ps_args "sleep 51" bash -c 'sleep 51 & sleep 0.2; ps -o args= -p $!; kill $!'
app pgrep "1" bash -c 'sleep 52 & sleep 0.2; pgrep -x -P $$ sleep | wc -l; kill $!'
expect_match top 'load average' "$(box env TERM=xterm top -b -n 1 </dev/null 2>&1 | head -n 1)"
expect_match free '^Mem: +[1-9][0-9]+ +[0-9]+ +[1-9][0-9]+' "$(box free </dev/null 2>&1)"
expect_match uptime ' up .*load average' "$(box uptime </dev/null 2>&1)"
if [ "$PLATFORM" != native ]; then
	app ps_alone "1" bash -c 'ps -e -o pid= | grep -c "^ *1$"'
fi
finish
