#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# vi driven through a terminal: insert, save, change of window size, leave; the file is what was typed.
# timeout: 90
. "$(dirname "$0")/app.sh"
BOX_OPTS=(--tty --env=TERM=xterm)
decl="$(declare -f box); $(declare -p BOX_LIMIT KVMSBOX PLATFORM TEST_CACHE BOX_OPTS IMAGE TREE 2>/dev/null)"
drive() {
	local name=$1 out
	shift
	if out=$(python3 "$HERE/terminal.py" "$@" 2>&1); then pass "$name"; else fail "$name" "$out"; fi
}
drive edit 'expect:~' 'send:ihello from vi\x1b' 'wait:0.5' 'send:o' 'send:second line\x1b' 'wait:0.3' \
	'send::wq\r' 'expect:RESULT hello from vi\|second line' 'status:0' -- \
	"$decl; box bash -c 'vi -u NONE /tmp/f; echo RESULT \$(paste -sd\\| /tmp/f)'"
drive resize 'expect:~' 'resize:12x50' 'wait:0.5' 'send::set lines? columns?\r' 'expect:lines=12' 'expect:columns=50' \
	'send:\r:q!\r' 'status:0' -- "$decl; box vi -u NONE /tmp/f"
drive suspend 'expect:# ' 'send:vi -u NONE /tmp/f\r' 'expect:~' 'send:\x1a' 'expect:Stopped' 'send:fg\r' 'expect:~' \
	'send::q!\r' 'wait:0.5' 'send:exit 3\r' 'status:3' -- "$decl; box bash --norc --noprofile -i"
finish
