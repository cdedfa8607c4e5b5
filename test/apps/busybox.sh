#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# BusyBox's shell and applets, in its own image (static, no libraries).
# timeout: 120
. "$(dirname "$0")/app.sh"
if [ "$PLATFORM" = native ]; then
	# The same program, on the host's own tree.
	bb=$(command -v busybox) || { fail "busybox is missing"; finish; }
	box() { (cd / && env -i PATH=/bin:/usr/bin TMP="$SCRATCH" "$bb" "$@"); }
else
	IMAGE=$("$ROOT/test/images.sh" busybox) || { fail "make the BusyBox image"; finish; }
	BOX_OPTS=(--env=TMP=/tmp)
fi
app functions "5! = 120" sh -c 'f() { [ $1 -le 1 ] && echo 1 || echo $(($1 * $(f $(($1 - 1))))); }; echo "5! = $(f 5)"'
app loop_case "odd even odd" sh -c 'for i in 1 2 3; do case $((i % 2)) in 1) o="$o odd" ;; *) o="$o even" ;; esac; done; echo ${o# }'
app trap_exit "in
out 3" sh -c '(trap "echo out \$?" EXIT; echo in; exit 3); true'
app background "1
0" sh -c 'sleep 0.2 & p=$!; kill -0 $p; wait $p; s=$?; ls /proc/self/fd >/dev/null; echo 1; echo $s'
app read_while "a-1 b-2" sh -c 'printf "a 1\nb 2\n" | while read x y; do printf "%s-%s " $x $y; done | sed "s/ $//"'
app heredoc "x=5" sh -c 'v=5; cat <<E
x=$v
E'
app awk "15" awk 'BEGIN { for (i = 1; i <= 5; i++) s += i; print s }'
app sort_uniq "2 a 1 b" sh -c 'printf "a\nb\na\n" | sort | uniq -c | sort -rn | awk "{ printf \"%s%s %s\", n++ ? \" \" : \"\", \$1, \$2 }"'
app tar_gzip "same" sh -c 'cd $TMP && mkdir -p t/d && seq 1000 >t/a && ln -s a t/l && tar czf t.tgz t && mkdir u && tar xzf t.tgz -C u &&
	cmp t/a u/t/a && [ "$(readlink u/t/l)" = a ] && rm -r t u t.tgz && echo same'
app find_xargs "100" sh -c 'cd $TMP && mkdir f && cd f && for i in $(seq 100); do : >$i; done; find . -type f | xargs -n 7 ls | wc -l; cd .. && rm -r f'
app dd_md5 "b6d81b360a5672d80c27430f39153e2c" sh -c 'dd if=/dev/zero bs=1k count=1024 2>/dev/null | md5sum | cut -d " " -f 1'
app sed_ed "2b 3c" sh -c 'printf "1a\n2b\n3c\n" | sed -n "2,\$p" | tr "\n" " " | sed "s/ $//"'
app pipe_signal "141 0" sh -c 'set -o pipefail; yes 2>/dev/null | head -n 1 >/dev/null; echo $? $(yes | head -n 0 | wc -c)'
app mkfifo "through" sh -c 'mkfifo $TMP/q && { echo through >$TMP/q & } && cat $TMP/q && rm $TMP/q'
app timeout "143" sh -c 'timeout 0.3 sleep 20 2>/dev/null; echo $?'
if [ "$PLATFORM" != native ]; then
	app ps "1 sh" sh -c 'ps -o pid,comm | awk "\$1 == 1 { print \$1, \$2 }"; :'
	app mounts "/ /proc" sh -c 'awk "\$2 == \"/\" || \$2 == \"/proc\" { printf \"%s%s\", n++ ? \" \" : \"\", \$2 }" /proc/mounts'
fi
finish
