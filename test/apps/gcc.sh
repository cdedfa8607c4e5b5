#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# gcc: hello.c, several files with a library, static, threads.
# timeout: 120
. "$(dirname "$0")/app.sh"
app hello "hello, world" bash -c 'cd /tmp && cat >hello.c <<E
#include <stdio.h>
int main(void) { puts("hello, world"); return 0; }
E
gcc hello.c && ./a.out'
app static "hello, static" bash -c 'cd /tmp && cat >hello.c <<E
#include <stdio.h>
int main(void) { puts("hello, static"); return 0; }
E
gcc -O2 -static -pipe hello.c && ./a.out'
app library "42" bash -c 'mkdir /tmp/w && cd /tmp/w && echo "int f(void) { return 42; }" >f.c &&
	printf "#include <stdio.h>\nint f(void); int main(void) { printf(\"%%d\\\\n\", f()); }\n" >m.c &&
	gcc -c -O2 f.c && ar rcs libf.a f.o && gcc -shared -fPIC -o libg.so f.c &&
	gcc -o m m.c -L. -lg && LD_LIBRARY_PATH=. ./m'
app error "1" bash -c 'cd /tmp && echo "int main( {" >bad.c; gcc bad.c 2>/dev/null; echo $?'
app threads "4000000" bash -c 'cd /tmp && cat >t.c <<E
#include <pthread.h>
#include <stdio.h>
static long n; static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static void *run(void *a) { for (int i = 0; i < 1000000; i++) { pthread_mutex_lock(&m); n++; pthread_mutex_unlock(&m); } return a; }
int main(void) { pthread_t t[4]; for (int i = 0; i < 4; i++) pthread_create(t + i, 0, run, 0);
	for (int i = 0; i < 4; i++) pthread_join(t[i], 0); printf("%ld\n", n); }
E
gcc -O2 -pthread t.c && ./a.out'
finish
