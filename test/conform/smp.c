/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads on several CPUs at once: what one of them takes away must be gone for all when the call
 * returns, whatever they run; state that only the CPU has must survive signals, forks and more
 * threads than there are CPUs. Each of these runs for a while (MOMENT) and checks all the time.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>

#include "test/conform/conform.h"

#define MOMENT	 400 /* ms */
#define RW	 (PROT_READ | PROT_WRITE)
#define ANON	 (MAP_PRIVATE | MAP_ANONYMOUS)

static _Atomic int stop;

static void *fixed_page(void *at, int prot)
{
	return (void *)CHECK_OK(mmap(at, PAGE, prot, ANON | (at ? MAP_FIXED : 0), -1, 0));
}

/* ---- many threads ---- */

#define MANY 200

static pthread_barrier_t all_there;
static _Atomic long total;

/* Every thread keeps values in registers of all kinds across a barrier and lots of switching. */
static void *one_of_many(void *arg)
{
	long id = (long)arg;
	double d = 1.0 / (double)(id + 1), e = d;
	volatile long spin = 0;

	pthread_barrier_wait(&all_there);
	for (int i = 0; i < 20000; i++) {
		e = e * 1.5;
		e = e / 1.5;
		spin++;
		if (i % 5000 == 0)
			sched_yield();
	}
	if (e < d * 0.999 || e > d * 1.001 || spin != 20000)
		FAIL("thread %ld lost its registers", id);
	atomic_fetch_add(&total, id);
	return NULL;
}

TEST(two_hundred_threads)
{
	pthread_t t[MANY];
	pthread_attr_t attr;

	CHECK_ZERO(pthread_barrier_init(&all_there, NULL, MANY));
	CHECK_ZERO(pthread_attr_init(&attr));
	CHECK_ZERO(pthread_attr_setstacksize(&attr, 65536));
	for (long i = 0; i < MANY; i++)
		CHECK_ZERO(pthread_create(&t[i], &attr, one_of_many, (void *)i));
	for (int i = 0; i < MANY; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
	CHECK_EQ(total, MANY * (MANY - 1) / 2);
}

/* ---- pages that come and go ---- */

/*
 * The changer counts up `phase`: 4n+1 page n is there and holds n; 4n+3 it is taken away; even ones:
 * changing. A reader that sees the same odd phase before and after an access knows what it must have
 * come to.
 */
static _Atomic unsigned long phase;
static unsigned long *page;
static _Atomic long seen_there, seen_gone;
static __thread sigjmp_buf back;

static void jump_back(int sig UNUSED, siginfo_t *info, void *uc UNUSED)
{
	if ((void *)((uintptr_t)info->si_addr & -PAGE) != (void *)page)
		FAIL("fault at %p, not at the page", info->si_addr);
	siglongjmp(back, 1);
}

static void *read_always(void *arg UNUSED)
{
	while (!stop) {
		volatile bool faulted = true;
		volatile unsigned long value = 0;
		volatile unsigned long before = phase;
		unsigned long after;

		if (!sigsetjmp(back, 0)) {
			value = *(volatile unsigned long *)page;
			faulted = false;
		}
		after = phase;
		if (before != after || !(before & 1))
			continue;
		if (before % 4 == 1) {
			if (faulted || value != before / 4)
				FAIL("phase %lu: faulted %d, read %lu", before, faulted, value);
			seen_there++;
		} else {
			if (!faulted)
				FAIL("phase %lu: read %lu from a page that is gone", before, value);
			seen_gone++;
		}
	}
	return NULL;
}

static void *write_always(void *arg UNUSED)
{
	while (!stop) {
		volatile bool faulted = true;
		volatile unsigned long before = phase;
		unsigned long after;

		if (!sigsetjmp(back, 0)) {
			((volatile unsigned long *)page)[8] = before;
			faulted = false;
		}
		after = phase;
		if (before != after || !(before & 1))
			continue;
		if (before % 4 == 1) {
			if (faulted)
				FAIL("phase %lu: can't write to a writable page", before);
			seen_there++;
		} else {
			if (!faulted)
				FAIL("phase %lu: wrote to a page that is read-only", before);
			seen_gone++;
		}
	}
	return NULL;
}

static void hold_still(void)
{
	for (volatile int i = 0; i < 20000; i++)
		;
}

/*
 * Lets the others look at this phase: for a moment, and now and then until one has, which needs it
 * to fault twice meanwhile.
 */
static void let_look(unsigned long n, const _Atomic long *seen)
{
	int64_t end = now_ms() + 5;
	long before = *seen;

	hold_still();
	while (n % 64 == 0 && *seen == before && now_ms() < end)
		;
}

static void change_always(void *(*watch)(void *), void (*give)(unsigned long), void (*take)(void))
{
	int64_t end = now_ms() + MOMENT;
	pthread_t t[3];

	on_siginfo(SIGSEGV, jump_back, SA_NODEFER);
	page = fixed_page(NULL, RW);
	for (int i = 0; i < 3; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, watch, NULL));
	for (unsigned long n = 1; now_ms() < end || (seen_there < 3 || seen_gone < 3); n++) {
		if (now_ms() > end + 5000)
			FAIL("seen there %ld, gone %ld", seen_there, seen_gone);
		give(n);
		phase = 4 * n + 1;
		let_look(n, &seen_there);
		phase = 4 * n + 2;
		take();
		phase = 4 * n + 3;
		let_look(n, &seen_gone);
		phase = 4 * n + 4;
	}
	stop = 1;
	for (int i = 0; i < 3; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
}

static void give_map(unsigned long n)
{
	fixed_page(page, RW);
	*page = n;
}

static void take_unmap(void)
{
	CHECK_OK(munmap(page, PAGE));
}

TEST(munmap_under_fire)
{
	change_always(read_always, give_map, take_unmap);
}

static void give_none(unsigned long n)
{
	CHECK_OK(mprotect(page, PAGE, RW));
	*page = n;
}

static void take_none(void)
{
	CHECK_OK(mprotect(page, PAGE, PROT_NONE));
}

TEST(protnone_under_fire)
{
	change_always(read_always, give_none, take_none);
}

static void give_write(unsigned long n UNUSED)
{
	CHECK_OK(mprotect(page, PAGE, RW));
}

static void take_write(void)
{
	CHECK_OK(mprotect(page, PAGE, PROT_READ));
}

TEST(mprotect_under_fire)
{
	change_always(write_always, give_write, take_write);
}

static void *elsewhere;

static void give_move(unsigned long n)
{
	*(unsigned long *)elsewhere = n;
	CHECK(mremap(elsewhere, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page) == page);
}

static void take_move(void)
{
	elsewhere = fixed_page(elsewhere, RW);
	CHECK(mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere) == elsewhere);
}

TEST(mremap_under_fire)
{
	elsewhere = fixed_page(NULL, RW);
	change_always(read_always, give_move, take_move);
}

static void give_value(unsigned long n)
{
	*page = n;
}

static void take_zero(void)
{
	CHECK_OK(madvise(page, PAGE, MADV_DONTNEED));
}

static void *read_zero(void *arg UNUSED)
{
	while (!stop) {
		unsigned long before = phase, value = *(volatile unsigned long *)page, after = phase;

		if (before != after || !(before & 1))
			continue;
		if (value != (before % 4 == 1 ? before / 4 : 0))
			FAIL("phase %lu: read %lu", before, value);
		if (before % 4 == 1)
			seen_there++;
		else
			seen_gone++;
	}
	return NULL;
}

TEST(dontneed_under_fire)
{
	change_always(read_zero, give_value, take_zero);
}

/* ---- fork while others write ---- */

/* Each has two counters: in one cache line, in one page, in two pages. */
#define WRITERS 3
#define APART	(2 * PAGE / sizeof(long))

static const size_t distance[WRITERS] = {1, PAGE / sizeof(long) - 1, PAGE / sizeof(long)};
static volatile long *counters;

static volatile long *counter(int writer, int which)
{
	return counters + writer * APART + which * distance[writer];
}

static void *count_always(void *arg)
{
	volatile long *first = counter((int)(long)arg, 0), *second = counter((int)(long)arg, 1);

	/* The second follows the first: nobody may see it ahead, or behind by more than one. */
	for (long i = 1; !stop; i++) {
		if (*first != i - 1 || *second != i - 1)
			FAIL("writer %ld: %ld, %ld instead of %ld", (long)arg, *first, *second,
			     i - 1);
		*first = i;
		*second = i;
	}
	return NULL;
}

static void look_at_copy(void)
{
	long copy[WRITERS][2];

	for (int i = 0; i < WRITERS; i++) {
		copy[i][0] = *counter(i, 0);
		copy[i][1] = *counter(i, 1);
		if (copy[i][0] - copy[i][1] > 1 || copy[i][0] < copy[i][1])
			FAIL("writer %d: the copy is torn: %ld, %ld", i, copy[i][0], copy[i][1]);
	}
	burn();
	for (int i = 0; i < WRITERS; i++) {
		if (*counter(i, 0) != copy[i][0] || *counter(i, 1) != copy[i][1])
			FAIL("the parent writes to the child's copy");
		*counter(i, 0) = -1;
	}
}

TEST(fork_under_fire)
{
	int64_t end = now_ms() + MOMENT;
	pthread_t t[WRITERS];
	int rounds = 0;

	counters = (long *)CHECK_OK(mmap(NULL, WRITERS * 2 * PAGE, RW, ANON, -1, 0));
	for (long i = 0; i < WRITERS; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, count_always, (void *)i));
	while (now_ms() < end || rounds < 3) {
		pid_t pid = FORK();

		if (!pid) {
			look_at_copy();
			_exit(0);
		}
		JOIN(pid);
		rounds++;
	}
	stop = 1;
	for (int i = 0; i < WRITERS; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
}

/* ---- registers across signals and forks ---- */

/* Vector registers hold @seed-dependent values for @turns of a loop that makes no calls. */
static bool vectors_hold(unsigned long seed, unsigned long turns)
{
	unsigned long out[8], want[8];

	for (int i = 0; i < 8; i++)
		want[i] = seed * 0x9e3779b97f4a7c15UL + (unsigned long)i;
	if (__builtin_cpu_supports("avx512f")) {
		unsigned int mask;

		__asm__ volatile("vmovdqu64 (%3), %%zmm17\n\tkmovw %k2, %%k3\n"
				 "1:\tdec %0\n\tjnz 1b\n\t"
				 "kmovw %%k3, %1\n\tvmovdqu64 %%zmm17, (%4)\n\t"
				 : "+r"(turns), "=&r"(mask)
				 : "r"(seed), "r"(want), "r"(out)
				 : "memory");
		if (mask != (seed & 0xffff))
			return false;
	} else if (__builtin_cpu_supports("avx")) {
		__asm__ volatile("vmovdqu (%1), %%ymm0\n\tvmovdqu 32(%1), %%ymm15\n"
				 "1:\tdec %0\n\tjnz 1b\n\t"
				 "vmovdqu %%ymm0, (%2)\n\tvmovdqu %%ymm15, 32(%2)\n\t"
				 : "+r"(turns)
				 : "r"(want), "r"(out)
				 : "xmm0", "xmm15", "memory");
	} else {
		__asm__ volatile("movdqu (%1), %%xmm0\n\tmovdqu 16(%1), %%xmm1\n\t"
				 "movdqu 32(%1), %%xmm8\n\tmovdqu 48(%1), %%xmm15\n"
				 "1:\tdec %0\n\tjnz 1b\n\t"
				 "movdqu %%xmm0, (%2)\n\tmovdqu %%xmm1, 16(%2)\n\t"
				 "movdqu %%xmm8, 32(%2)\n\tmovdqu %%xmm15, 48(%2)\n\t"
				 : "+r"(turns)
				 : "r"(want), "r"(out)
				 : "xmm0", "xmm1", "xmm8", "xmm15", "memory");
	}
	return !memcmp(out, want, sizeof(want));
}

static _Atomic long signals_seen;

/* The handler's own vector registers are others. */
static void spoil(int sig UNUSED)
{
	if (!vectors_hold((unsigned long)signals_seen + 77, 10))
		FAIL("the handler lost its registers");
	signals_seen++;
}

static void *hold_vectors(void *arg)
{
	for (unsigned long n = 0; !stop; n++) {
		if (!vectors_hold((unsigned long)arg * 1000000 + n, 20000))
			FAIL("thread %ld lost vector registers", (long)arg);
	}
	return NULL;
}

TEST(vectors_survive_signals)
{
	int64_t end = now_ms() + MOMENT;
	pthread_t t[4];
	unsigned long sent = 0;

	on_signal(SIGUSR1, spoil);
	for (long i = 0; i < 4; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, hold_vectors, (void *)(i + 1)));
	while (now_ms() < end) {
		CHECK_ZERO(pthread_kill(t[sent++ % 4], SIGUSR1));
		hold_still();
	}
	EVENTUALLY(signals_seen > 3);
	stop = 1;
	for (int i = 0; i < 4; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
}

/* fork is made without a library call, so that the vectors are live across it. */
TEST(vectors_survive_fork)
{
	for (unsigned long n = 1; n < 20; n++) {
		unsigned long want[4] = {n, n * 3, n * 5, n * 7}, out[4];
		long ret;

		__asm__ volatile("movdqu (%1), %%xmm3\n\tmovdqu 16(%1), %%xmm12\n\tmov %3, %%eax\n\t"
				 "syscall\n\t"
				 "movdqu %%xmm3, (%2)\n\tmovdqu %%xmm12, 16(%2)\n\t"
				 : "=&a"(ret)
				 : "r"(want), "r"(out), "i"(SYS_fork)
				 : "rcx", "r11", "xmm3", "xmm12", "memory");
		if (ret < 0 || memcmp(want, out, sizeof(want)))
			FAIL("fork %ld: registers differ", ret);
		if (!ret)
			_exit(0);
		JOIN((pid_t)ret);
	}
}

/* Every one of these must arrive, also when it comes while the thread enters or leaves user mode. */
static _Atomic long pings, pongs;
static pthread_t pinger;

static void on_ping(int sig UNUSED)
{
	pings++;
	pthread_kill(pinger, SIGUSR2);
}

static void on_pong(int sig UNUSED)
{
	pongs++;
}

static void *spin_until_stopped(void *arg UNUSED)
{
	while (!stop)
		;
	return NULL;
}

TEST(signals_to_spinning_threads_arrive)
{
	int64_t end = now_ms() + MOMENT;
	pthread_t t;
	long n = 0;

	pinger = pthread_self();
	on_signal(SIGUSR1, on_ping);
	on_signal(SIGUSR2, on_pong);
	CHECK_ZERO(pthread_create(&t, NULL, spin_until_stopped, NULL));
	while (now_ms() < end) {
		CHECK_ZERO(pthread_kill(t, SIGUSR1));
		n++;
		for (int64_t late = now_ms() + 3000; pongs < n;) {
			if (now_ms() > late)
				FAIL("signal %ld is lost: %ld pings, %ld pongs", n, pings, pongs);
		}
	}
	stop = 1;
	CHECK_ZERO(pthread_join(t, NULL));
	CHECK_EQ(pings, n);
}
