#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The whole tree: names, contents and attributes are the host's copy's. /etc/hosts is the sandbox's own
# where the image has none, so it is looked at apart.
# timeout: 300
BOX_LIMIT=200
. "$(dirname "$0")/app.sh"
tree=$("$ROOT/test/images.sh" debian-tree) || { fail "the Debian tree"; finish; }

host_find() {
	(cd "$tree" && find . -xdev \( -path ./dev -o -path ./proc -o -path ./sys \) -prune -print -o -print) |
		sed 's/^\.//; s/^$/\//' | grep -vx /etc/hosts | LC_ALL=C sort
}
want=$(host_find | sha256sum)
got=$(box bash -c 'find / -xdev | grep -vx /etc/hosts | LC_ALL=C sort | sha256sum' </dev/null 2>&1)
expect find_names "$want" "$got"
if [ "$want" != "$got" ]; then
	box bash -c 'find / -xdev | grep -vx /etc/hosts | LC_ALL=C sort' </dev/null 2>&1 | diff <(host_find) - | head -n 5 | sed 's/^/    /'
fi

host_stat() { (cd "$tree" && find ./etc ./usr/bin ./usr/lib/python3 ./var -xdev ! -path ./etc/hosts -printf '%P %y %m %U %G %s %n %l %T@\n') | grep -v ' d ' | LC_ALL=C sort | sed 's/\.[0-9]*$//' | sha256sum; }
expect attributes "$(host_stat)" "$(box bash -c '(cd / && find ./etc ./usr/bin ./usr/lib/python3 ./var -xdev ! -path ./etc/hosts -printf "%P %y %m %U %G %s %n %l %T@\n") | grep -v " d " | LC_ALL=C sort | sed "s/\.[0-9]*\$//" | sha256sum' </dev/null 2>&1)"
sums='find usr/bin usr/lib/x86_64-linux-gnu etc -xdev -type f ! -path etc/hosts -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum'
expect contents "$(cd "$tree" && bash -c "$sums")" "$(box bash -c "cd / && $sums" </dev/null 2>&1)"
if [ -e "$tree/etc/hosts" ]; then
	expect hosts "$(cat "$tree/etc/hosts")" "$(box cat /etc/hosts </dev/null 2>&1)"
else
	expect_match hosts '^127\.0\.0\.1[[:space:]]+localhost' "$(box cat /etc/hosts </dev/null 2>&1)"
fi
finish
