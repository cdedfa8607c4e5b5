#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tar and xz: a round trip keeps names, contents, modes, links and times.
# timeout: 180
. "$(dirname "$0")/app.sh"
app round_trip "same 0" bash -c 'cd /tmp && mkdir in out && cp -a /etc /usr/share/perl5 /usr/lib/python3.11/json in &&
	ln in/etc/passwd in/hard && ln -s nowhere in/dangling && mkfifo in/fifo && chmod 4711 in/hard &&
	tar --format=posix -cf - in | xz -1 -T2 >a.tar.xz && xz -t a.tar.xz && tar -C out -xJf a.tar.xz &&
	list() { (cd $1 && find . -printf "%P %y %m %U %G %l %n %T@\n" | grep -v " d " | LC_ALL=C sort); } &&
	diff <(list in) <(list out/in) && find in -type f | (while read -r f; do cmp "$f" "out/$f" || exit 1; done) && echo same $?'
app sparse "10485760 0" bash -c 'cd /tmp && truncate -s 10M s && tar -cSf s.tar s && rm s && tar -xf s.tar &&
	stat -c "%s" s | tr "\n" " "; cmp -n 10485760 s /dev/zero; echo $?'
app dd_copy "same" bash -c 'cd /tmp && dd if=/dev/urandom of=a bs=1M count=40 status=none && cp a b && cat b >c && cmp a c && echo same'
finish
