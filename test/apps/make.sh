#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make with two jobs builds a small C project of 20 files, and again nothing; a job that fails stops it.
# The image has no make: the host's is lent to it.
# timeout: 120
. "$(dirname "$0")/app.sh"
if ! command -v make >/dev/null; then
	skip make "the host has none to lend"
	finish
fi
mkdir "$SCRATCH/lend"
cp "$(command -v make)" "$SCRATCH/lend/"
BOX_OPTS=("--volume=$SCRATCH/lend:/lend:ro")
# $(…) and $@ are make's.
# shellcheck disable=SC2016
project='mkdir /tmp/p && cd /tmp/p && export PATH=$PATH:/lend
for i in $(seq 20); do echo "int f$i(void) { return $i; }" >f$i.c; d="$d int f$i(void);" s="$s + f$i()"; done
printf "#include <stdio.h>\n%s\nint main(void) { printf(\"%%d\\\\n\", 0%s); return 0; }\n" "$d" "$s" >main.c
printf "O = \$(patsubst %%.c,%%.o,\$(wildcard *.c))\nsum: \$O\n\tgcc -o \$@ \$O\n%%.o: %%.c\n\tgcc -O1 -c -o \$@ \$<\nbad:\n\tsleep 0.1; exit 3\n" >Makefile'
app parallel "21 objects
210" bash -c "$project"'
make -s -j2 sum && echo "$(ls *.o | wc -l) objects" && ./sum'
app nothing_to_do "make: 'sum' is up to date.
gcc -O1 -c -o f7.o f7.c" bash -c "$project"'
make -s -j2 sum; make sum; sleep 0.05; touch f7.c; make sum | head -n 1'
app failure "make: *** [Makefile:7: bad] Error 3
2" bash -c "$project"'
make -s bad; echo $?'
finish
