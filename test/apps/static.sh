#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A static binary of musl and a static PIE, in a volume: threads, signals, fork.
# timeout: 60
. "$(dirname "$0")/app.sh"
command -v musl-gcc >/dev/null || { skip musl "musl-gcc is not installed"; finish; }
cat >"$SCRATCH/m.c" <<'E'
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile int hits;
static void on(int s) { hits++; }
static void *run(void *p) { *(int *)p = 7; return p; }
int main(int argc, char **argv)
{
	pthread_t t;
	int v = 0, st = 0;
	struct utsname u;
	signal(SIGUSR1, on);
	raise(SIGUSR1);
	pthread_create(&t, 0, run, &v);
	pthread_join(t, 0);
	if (!fork())
		_exit(9);
	wait(&st);
	uname(&u);
	printf("static %d %d %d %s %s\n", hits, v, WEXITSTATUS(st), u.sysname, argc > 1 ? argv[1] : "");
	return 0;
}
E
for kind in static static-pie; do
	cc=musl-gcc
	[ $kind = static ] || cc=gcc	# musl-gcc makes no static PIE
	$cc -O2 -$kind -pthread -o "$SCRATCH/$kind" "$SCRATCH/m.c" 2>"$SCRATCH/err" || { fail "compile_$kind" "$(head -n1 "$SCRATCH/err")"; continue; }
	BOX_OPTS=("--volume=$SCRATCH:/vol:ro")
	app "$kind" "static 1 7 9 Linux arg" /vol/$kind arg
done
finish
