/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of before the snapshot, each changed in another way after it: by the program, by the sentry, by
 * a child, after a change of its protection or its place. In a copy they are the snapshot's until
 * then (sentry/lib/physmem_lend.c), and whoever had one mapped has to see the new one. Answers "ok".
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  4096
#define PAGES 300

static uint8_t *area;	 /* written, anonymous */
static uint8_t *hidden;	 /* written, then PROT_NONE */
static uint8_t *shared;	 /* MAP_SHARED, anonymous */
static uint8_t *file;	 /* a private mapping of a file in /tmp */
static uint8_t *unread;	 /* mapped, never touched */
static _Atomic int word; /* futex */
static char why[200];
static int output[2];

#define CHECK(what, good)                                                                          \
	do {                                                                                       \
		if (!(good) && !why[0])                                                            \
			snprintf(why, sizeof(why), "%s (line %d)\n", what, __LINE__);              \
	} while (0)

static uint8_t mark(int i)
{
	return (uint8_t)(i * 7 + 1);
}

static uint8_t *map(int flags, int fd)
{
	void *p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		exit(9);
	return p;
}

static void prepare(void)
{
	char name[] = "/tmp/pagesXXXXXX";
	int fd = mkstemp(name), i;

	unlink(name);
	if (fd < 0 || ftruncate(fd, PAGES * PAGE) || pipe(output))
		exit(9);
	area = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	hidden = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	shared = map(MAP_SHARED | MAP_ANONYMOUS, -1);
	unread = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	file = map(MAP_PRIVATE, fd);
	for (i = 0; i < PAGES; i++) {
		memset(area + i * PAGE, mark(i), PAGE);
		memset(hidden + i * PAGE, mark(i), PAGE);
		memset(shared + i * PAGE, mark(i), PAGE);
		if (pwrite(fd, area + i * PAGE, PAGE, i * PAGE) != PAGE)
			exit(9);
		if (i % 2)
			file[i * PAGE + 5] = 3;
	}
	mprotect(hidden, PAGES * PAGE, PROT_NONE);
}

/* All of page @i is as it was, but for its byte @except. */
static int is_old(const uint8_t *p, int i, int except)
{
	int k;

	for (k = 0; k < PAGE; k++) {
		if (k != except && p[i * PAGE + k] != mark(i))
			return 0;
	}
	return 1;
}

/* Reads a byte into @p by a call, after the page was looked at. */
static void by_call(uint8_t *p, uint8_t value)
{
	volatile uint8_t before = *p;
	struct iovec local = {&value, 1}, remote = {p, 1};

	(void)before;
	switch (value % 3) {
	case 0:
		CHECK("pipe", write(output[1], &value, 1) == 1 && read(output[0], p, 1) == 1);
		break;
	case 1:
		CHECK("process_vm_writev", process_vm_writev(getpid(), &local, 1, &remote, 1, 0) == 1);
		break;
	default:
		/* To itself through /proc: as a debugger writes. */
		CHECK("mem", pwrite(64, &value, 1, (off_t)(uintptr_t)p) == 1);
	}
	CHECK("what a call wrote", *(volatile uint8_t *)p == value);
}

static _Atomic int watching, stop;

/* Another thread has the page mapped, and looks at it all the time. */
static void *watch(void *arg)
{
	volatile uint8_t *p = arg;
	uint8_t old = *p;

	atomic_store(&watching, 1);
	while (*p == old && !atomic_load(&stop))
		;
	return (void *)(uintptr_t)*p;
}

static void with_watcher(int i, int call)
{
	pthread_t t;
	void *seen;

	atomic_store(&watching, 0);
	atomic_store(&stop, 0);
	if (pthread_create(&t, NULL, watch, area + i * PAGE)) {
		CHECK("thread", 0);
		return;
	}
	while (!atomic_load(&watching))
		;
	if (call)
		by_call(area + i * PAGE, 251);
	else
		area[i * PAGE] = 251;
	usleep(100000);
	atomic_store(&stop, 1);
	pthread_join(t, &seen);
	CHECK("what another thread sees", (uintptr_t)seen == 251);
	CHECK("the rest of the page", is_old(area, i, 0));
}

static void with_child(int i)
{
	pid_t pid = fork();
	int status = -1;

	if (!pid) {
		area[i * PAGE] = 9;
		hidden[i * PAGE] = 9;
		shared[i * PAGE] = 9;
		_exit(is_old(area, i, 0) && is_old(shared, i, 0) ? 0 : 1);
	}
	CHECK("fork", pid > 0 && waitpid(pid, &status, 0) == pid && !status);
	CHECK("a child's write", is_old(area, i, -1) && is_old(hidden, i, 1));
	CHECK("a child's shared write", shared[i * PAGE] == 9 && is_old(shared, i, 0));
	area[i * PAGE] = 10;
	CHECK("a write after the child", is_old(area, i, 0));
}

static void request(void)
{
	uint8_t *moved;
	int i;

	for (i = 0; i < PAGES; i++)
		CHECK("the frozen state", is_old(area, i, -1) && is_old(shared, i, -1));
	/* Some pages here and there, some in a row. */
	for (i = 0; i < 200; i += i < 60 ? 1 : 9) {
		area[i * PAGE + i] = 77;
		CHECK("a written page", area[i * PAGE + i] == 77 && is_old(area, i, i));
	}
	for (i = 200; i < 212; i++)
		by_call(area + i * PAGE, (uint8_t)i);
	with_watcher(220, 0);
	with_watcher(221, 1);
	with_watcher(222, 1);
	mprotect(hidden, PAGES * PAGE, PROT_READ | PROT_WRITE);
	for (i = 0; i < PAGES; i += 3) {
		hidden[i * PAGE + 1] = 5;
		CHECK("a hidden page", is_old(hidden, i, 1) && (i < 2 || is_old(hidden, i - 1, -1)));
	}
	for (i = 0; i < PAGES; i++) {
		CHECK("a file's page", file[i * PAGE + 5] == (i % 2 ? 3 : mark(i)));
		file[i * PAGE] = 200;
		CHECK("a written file's page", file[i * PAGE] == 200 && file[i * PAGE + 1] == mark(i));
		unread[i * PAGE] = 1;
	}
	for (i = 230; i < 240; i++)
		with_child(i);
	madvise(area + 250 * PAGE, PAGE, MADV_DONTNEED);
	CHECK("dropped", !area[250 * PAGE]);
	area[250 * PAGE] = 1;
	moved = mremap(area + 260 * PAGE, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE);
	CHECK("mremap", moved != MAP_FAILED);
	moved[0] = moved[5 * PAGE] = 6;
	CHECK("a moved page", moved[1] == mark(260) && moved[3 * PAGE] == mark(263));
	munmap(area + 270 * PAGE, 8 * PAGE);
	CHECK("mapped anew", mmap(area + 270 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
	CHECK("which is empty", !area[270 * PAGE] && !area[277 * PAGE + 4095]);
	memset(area + 270 * PAGE, 1, 8 * PAGE);
	CHECK("nobody waits", syscall(SYS_futex, &word, FUTEX_WAKE_OP, 1, 1, &word,
				      FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 0)) == 0 && word == 3);
}

int main(void)
{
	static char buf[100];
	char name[32];

	prepare();
	snprintf(name, sizeof(name), "/proc/%d/mem", getpid());
	if (dup2(open(name, O_RDWR), 64) < 0)
		return 9;
	while (read(0, buf, sizeof(buf)) > 0)
		;
	request();
	fputs(why[0] ? why : "ok\n", stdout);
	return 0;
}
