/* SPDX-License-Identifier: Apache-2.0 */
/* Memory across fork: copy-on-write in both directions, what is shared and what is not. */
#include <pthread.h>

#include "test/conform/conform.h"
#include "test/conform/fault.h"

#define RW	(PROT_READ | PROT_WRITE)
#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)

static char *map_pages(int pages, int flags)
{
	return (char *)CHECK_OK(mmap(NULL, pages * PAGE, RW, flags, -1, 0));
}

TEST(child_write_is_private)
{
	char *p = map_pages(1, ANON);
	pid_t pid;

	p[0] = 'p';
	pid = FORK();
	if (!pid) {
		CHECK_EQ(p[0], 'p');
		p[0] = 'c';
		CHECK_EQ(p[0], 'c');
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(p[0], 'p');
}

TEST(parent_write_is_private)
{
	char *p = map_pages(1, ANON);
	struct gate g;
	pid_t pid;

	GATE_INIT(&g);
	p[0] = 'o';
	pid = FORK();
	if (!pid) {
		GATE_WAIT(&g);
		CHECK_EQ(p[0], 'o');
		_exit(0);
	}
	p[0] = 'n';
	GATE_OPEN(&g);
	JOIN(pid);
}

TEST(write_by_the_kernel_copies)
{
	char *p = map_pages(1, ANON);
	int fd[2];
	pid_t pid;

	memcpy(p, "old", 4);
	CHECK_OK(pipe(fd));
	pid = FORK();
	if (!pid) {
		CHECK_EQ(write(fd[1], "new", 4), 4);
		CHECK_EQ(read(fd[0], p, 4), 4);
		CHECK_STR(p, "new");
		_exit(0);
	}
	JOIN(pid);
	CHECK_STR(p, "old");
}

TEST(grandchildren)
{
	char *p = map_pages(8, ANON);
	pid_t pid;

	memset(p, 1, 8 * PAGE);
	pid = FORK();
	if (!pid) {
		pid_t pid2;

		memset(p, 2, 4 * PAGE);
		pid2 = FORK();
		if (!pid2) {
			memset(p, 3, 2 * PAGE);
			CHECK_EQ(p[0], 3);
			CHECK_EQ(p[3 * PAGE], 2);
			CHECK_EQ(p[7 * PAGE], 1);
			_exit(0);
		}
		JOIN(pid2);
		CHECK_EQ(p[0], 2);
		CHECK_EQ(p[4 * PAGE], 1);
		_exit(0);
	}
	JOIN(pid);
	for (int i = 0; i < 8; i++)
		CHECK_EQ(p[i * PAGE], 1);
}

TEST(page_touched_after_siblings_exit)
{
	char *p = map_pages(1, ANON);

	p[0] = 1;
	for (int i = 0; i < 5; i++) {
		pid_t pid = FORK();

		if (!pid) {
			p[0] += 100;
			_exit(p[0] == 101 + i ? 0 : 1);
		}
		JOIN(pid);
		p[0]++;
	}
	CHECK_EQ(p[0], 6);
}

TEST(zero_page_after_fork)
{
	char *p = map_pages(2, ANON);
	pid_t pid;

	CHECK_EQ(peek(p), 0);
	pid = FORK();
	if (!pid) {
		CHECK_EQ(p[0], 0);
		p[0] = 1;
		p[PAGE] = 1;
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(p[0], 0);
	CHECK_EQ(p[PAGE], 0);
}

TEST(shared_anon_is_shared)
{
	volatile char *p = map_pages(2, MAP_SHARED | MAP_ANONYMOUS);
	pid_t pid;

	p[0] = 'a';
	pid = FORK();
	if (!pid) {
		CHECK_EQ(p[0], 'a');
		p[0] = 'b';
		p[PAGE] = 'z';	/* first touched by the child */
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(p[0], 'b');
	CHECK_EQ(p[PAGE], 'z');
}

TEST(shared_anon_survives_unmap_in_child)
{
	volatile char *p = map_pages(1, MAP_SHARED | MAP_ANONYMOUS);
	pid_t pid = FORK();

	if (!pid) {
		p[0] = 'u';
		CHECK_OK(munmap((void *)p, PAGE));
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(p[0], 'u');
}

TEST(shared_counter_by_atomics)
{
	volatile int *n = (volatile int *)map_pages(1, MAP_SHARED | MAP_ANONYMOUS);
	pid_t pid[4];

	for (int i = 0; i < 4; i++) {
		pid[i] = FORK();
		if (!pid[i]) {
			for (int j = 0; j < 10000; j++)
				__atomic_add_fetch(n, 1, __ATOMIC_SEQ_CST);
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++)
		JOIN(pid[i]);
	CHECK_EQ(*n, 40000);
}

TEST(shared_file_is_shared)
{
	int fd = CHECK_OK(open("f", O_RDWR | O_CREAT, 0644));
	volatile char *p;
	pid_t pid;
	char c;

	CHECK_OK(ftruncate(fd, PAGE));
	p = (char *)CHECK_OK(mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0));
	pid = FORK();
	if (!pid) {
		p[5] = 's';
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(p[5], 's');
	CHECK_EQ(pread(fd, &c, 1, 5), 1);
	CHECK_EQ(c, 's');
}

TEST(private_file_copy_is_inherited)
{
	int fd = CHECK_OK(open("f", O_RDWR | O_CREAT, 0644));
	char *p;
	pid_t pid;

	CHECK_OK(ftruncate(fd, PAGE));
	p = (char *)CHECK_OK(mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0));
	p[0] = 'p';
	pid = FORK();
	if (!pid) {
		CHECK_EQ(p[0], 'p');
		p[0] = 'c';
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(p[0], 'p');
}

TEST(stack_is_copied)
{
	volatile int local = 1;
	pid_t pid = FORK();

	if (!pid) {
		local = 2;
		_exit(local);
	}
	CHECK_EXIT(pid, 2);
	CHECK_EQ(local, 1);
}

TEST(heap_is_copied)
{
	char *p = malloc(100000);
	pid_t pid;

	memset(p, 'h', 100000);
	pid = FORK();
	if (!pid) {
		memset(p, 'c', 100000);
		free(p);
		_exit(0);
	}
	JOIN(pid);
	for (int i = 0; i < 100000; i++)
		if (p[i] != 'h')
			FAIL("byte %d changed", i);
}

static int data_word = 5;
static int bss_word;

TEST(data_and_bss_are_copied)
{
	pid_t pid = FORK();

	if (!pid) {
		data_word = 6;
		bss_word = 7;
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(data_word, 5);
	CHECK_EQ(bss_word, 0);
}

TEST(protection_is_inherited)
{
	char *p = map_pages(1, ANON);
	pid_t pid;

	CHECK_OK(mprotect(p, PAGE, PROT_READ));
	pid = FORK();
	if (!pid) {
		CHECK_FAULT(SIGSEGV, SEGV_ACCERR, p, poke(p, 1));
		CHECK_OK(mprotect(p, PAGE, RW));
		p[0] = 1;
		_exit(0);
	}
	JOIN(pid);
	CHECK_FAULT(SIGSEGV, SEGV_ACCERR, p, poke(p, 1));
}

TEST(mprotect_does_not_break_sharing)
{
	char *p = map_pages(1, ANON);
	pid_t pid;

	p[0] = 'x';
	pid = FORK();
	if (!pid) {
		CHECK_OK(mprotect(p, PAGE, PROT_READ));
		CHECK_OK(mprotect(p, PAGE, RW));
		p[0] = 'y';
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(p[0], 'x');
}

TEST(mremap_of_shared_copy)
{
	char *p = map_pages(2, ANON), *q;
	pid_t pid;

	p[0] = 'm';
	pid = FORK();
	if (!pid) {
		q = (char *)CHECK_OK(mremap(p, PAGE, 4 * PAGE, MREMAP_MAYMOVE));
		CHECK_EQ(q[0], 'm');
		q[0] = 'n';
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(p[0], 'm');
}

TEST(dontneed_in_child_only)
{
	char *p = map_pages(1, ANON);
	pid_t pid;

	p[0] = 'd';
	pid = FORK();
	if (!pid) {
		CHECK_OK(madvise(p, PAGE, MADV_DONTNEED));
		CHECK_EQ(p[0], 0);
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(p[0], 'd');
}

TEST(mlock_is_not_inherited)
{
	char *p = map_pages(2, ANON), buf[4096], *s;
	pid_t pid;

	CHECK_OK(mlock(p, 2 * PAGE));
	pid = FORK();
	if (!pid) {
		CHECK(get_file("/proc/self/status", buf, sizeof(buf)) > 0);
		s = strstr(buf, "VmLck:");
		CHECK(s);
		CHECK_EQ(atol(s + 6), 0);
		_exit(0);
	}
	JOIN(pid);
}

TEST(large_area_both_directions)
{
	int pages = 2048;
	char *p = map_pages(pages, ANON);
	struct gate g, back;
	pid_t pid;

	GATE_INIT(&g);
	GATE_INIT(&back);
	for (int i = 0; i < pages; i++)
		p[i * PAGE] = (char)i;
	pid = FORK();
	if (!pid) {
		for (int i = 0; i < pages; i += 2)
			p[i * PAGE] = (char)(i + 1);
		GATE_OPEN(&back);
		GATE_WAIT(&g);
		for (int i = 0; i < pages; i++)
			if (p[i * PAGE] != (char)(i + !(i & 1)))
				FAIL("child page %d is %d", i, p[i * PAGE]);
		_exit(0);
	}
	GATE_WAIT(&back);
	for (int i = 1; i < pages; i += 2)
		p[i * PAGE] = (char)(i + 7);
	GATE_OPEN(&g);
	JOIN(pid);
	for (int i = 0; i < pages; i++)
		if (p[i * PAGE] != (char)(i & 1 ? i + 7 : i))
			FAIL("parent page %d is %d", i, p[i * PAGE]);
}

static char *cow_page;
static volatile int cow_stop;

static void *cow_writer(void *arg UNUSED)
{
	while (!cow_stop)
		__atomic_add_fetch((int *)cow_page, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

TEST(fork_while_a_thread_writes)
{
	pthread_t t;

	cow_page = map_pages(1, ANON);
	CHECK_ZERO(pthread_create(&t, NULL, cow_writer, NULL));
	for (int i = 0; i < 10; i++) {
		pid_t pid = FORK();

		if (!pid) {
			/* Nobody writes here: only one thread was copied. */
			int v = *(volatile int *)cow_page;

			for (int j = 0; j < 1000; j++)
				if (*(volatile int *)cow_page != v)
					_exit(1);
			_exit(0);
		}
		JOIN(pid);
	}
	cow_stop = 1;
	CHECK_ZERO(pthread_join(t, NULL));
}

TEST(vfork_shares_memory)
{
	volatile int *p = (volatile int *)map_pages(1, ANON);
	pid_t pid = vfork();

	if (!pid) {
		*p = 77;
		_exit(0);
	}
	CHECK(pid > 0);
	CHECK_EQ(*p, 77);
	JOIN(pid);
}
