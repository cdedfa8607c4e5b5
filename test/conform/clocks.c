/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks, sleeping, interval timers, POSIX timers and the vDSO. */
#include <elf.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/times.h>
#include <sys/timex.h>

#include "test/conform/conform.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static int64_t ns(struct timespec ts)
{
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static int64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	CHECK_OK(clock_gettime(id, &ts));
	CHECK(ts.tv_nsec >= 0 && ts.tv_nsec < 1000000000);
	return ns(ts);
}

static int64_t raw_ns(clockid_t id)
{
	struct timespec ts;

	CHECK_OK(syscall(SYS_clock_gettime, id, &ts));
	return ns(ts);
}

TEST(all_clocks_answer)
{
	static const clockid_t ids[] = {
		CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID,
		CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME,
		CLOCK_TAI,
	};

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		int64_t a = clock_ns(ids[i]), b = clock_ns(ids[i]);

		CHECK(b >= a);
	}
}

TEST(monotonic_never_goes_back)
{
	int64_t prev = clock_ns(CLOCK_MONOTONIC), t;

	for (int i = 0; i < 5000; i++) {
		t = clock_ns(CLOCK_MONOTONIC);
		CHECK(t >= prev);
		prev = t;
	}
}

TEST(monotonic_agrees_with_the_system_call)
{
	for (int i = 0; i < 200; i++) {
		int64_t a = clock_ns(CLOCK_MONOTONIC), b = raw_ns(CLOCK_MONOTONIC);
		int64_t c = clock_ns(CLOCK_MONOTONIC), d = raw_ns(CLOCK_MONOTONIC);

		CHECK(a <= b && b <= c && c <= d);
	}
}

TEST(realtime_agrees_with_the_system_call)
{
	for (int i = 0; i < 100; i++) {
		int64_t a = clock_ns(CLOCK_REALTIME), b = raw_ns(CLOCK_REALTIME);
		int64_t c = clock_ns(CLOCK_REALTIME);

		CHECK(a <= b && b <= c);
	}
}

TEST(boottime_is_not_behind_monotonic)
{
	int64_t m = clock_ns(CLOCK_MONOTONIC);

	CHECK(clock_ns(CLOCK_BOOTTIME) >= m);
}

TEST(coarse_clocks_lag_a_little)
{
	int64_t c = clock_ns(CLOCK_MONOTONIC_COARSE), m = clock_ns(CLOCK_MONOTONIC);

	CHECK(c <= m && m - c < 1000000000LL);
}

TEST(realtime_and_time_and_gettimeofday)
{
	struct timeval tv;
	time_t t = time(NULL), t2;

	CHECK_OK(gettimeofday(&tv, NULL));
	CHECK(tv.tv_sec >= t && tv.tv_sec - t < 5);
	CHECK(tv.tv_usec >= 0 && tv.tv_usec < 1000000);
	CHECK(clock_ns(CLOCK_REALTIME) >= tv.tv_sec * 1000000000LL);
	t2 = 0;
	CHECK(time(&t2) > 0 && t2 >= t);
	CHECK(t > 1600000000);
	t2 = syscall(SYS_time, NULL);
	CHECK(t2 >= t && t2 - t < 5);
	CHECK_OK(syscall(SYS_gettimeofday, &tv, NULL));
}

TEST(clock_errors)
{
	struct timespec ts;

	CHECK_ERRNO(clock_gettime(99, &ts), EINVAL);
	CHECK_ERRNO(syscall(SYS_clock_gettime, CLOCK_REALTIME, 8L), EFAULT);
	CHECK_ERRNO(clock_getres(99, &ts), EINVAL);
	CHECK_ERRNO(clock_settime(CLOCK_MONOTONIC, &ts), EINVAL);
}

TEST(clock_getres_values)
{
	struct timespec ts;

	CHECK_OK(clock_getres(CLOCK_MONOTONIC, &ts));
	CHECK_EQ(ns(ts), 1);
	CHECK_OK(clock_getres(CLOCK_REALTIME, &ts));
	CHECK_EQ(ns(ts), 1);
	CHECK_OK(clock_getres(CLOCK_MONOTONIC_COARSE, &ts));
	CHECK(ns(ts) >= 1000000 && ns(ts) <= 10000000);
	CHECK_OK(clock_getres(CLOCK_MONOTONIC, NULL));
}

TEST(cpu_clocks_advance_only_with_work)
{
	int64_t a = clock_ns(CLOCK_PROCESS_CPUTIME_ID), b;

	msleep(150);
	b = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	CHECK(b - a < 100000000);
	while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < b + 20000000)
		burn();
	CHECK(clock_ns(CLOCK_PROCESS_CPUTIME_ID) >= b + 10000000);
}

TEST(cpu_clock_of_another_process)
{
	struct gate g;
	clockid_t id;
	pid_t pid;

	GATE_INIT(&g);
	pid = FORK();
	if (!pid) {
		while (clock_ns(CLOCK_PROCESS_CPUTIME_ID) < 30000000)
			burn();
		GATE_OPEN(&g);
		for (;;)
			pause();
	}
	GATE_WAIT(&g);
	CHECK_ZERO(clock_getcpuclockid(pid, &id));
	CHECK(clock_ns(id) >= 25000000);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
}

TEST(nanosleep_sleeps_long_enough)
{
	int64_t t = clock_ns(CLOCK_MONOTONIC);
	struct timespec ts = { 0, 30000000 };

	CHECK_OK(nanosleep(&ts, NULL));
	CHECK(clock_ns(CLOCK_MONOTONIC) - t >= 30000000);
}

TEST(nanosleep_errors)
{
	struct timespec ts = { 0, 1000000000 };

	CHECK_ERRNO(nanosleep(&ts, NULL), EINVAL);
	ts = (struct timespec){ -1, 0 };
	CHECK_ERRNO(nanosleep(&ts, NULL), EINVAL);
	CHECK_ERRNO(syscall(SYS_nanosleep, 8L, NULL), EFAULT);
	ts = (struct timespec){ 0, 0 };
	CHECK_OK(nanosleep(&ts, NULL));
}

TEST(clock_nanosleep_absolute)
{
	struct timespec ts;
	int64_t target = clock_ns(CLOCK_MONOTONIC) + 30000000;

	ts = (struct timespec){ target / 1000000000, target % 1000000000 };
	CHECK_ZERO(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL));
	CHECK(clock_ns(CLOCK_MONOTONIC) >= target);
	CHECK_ZERO(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL));
	target = clock_ns(CLOCK_REALTIME) + 20000000;
	ts = (struct timespec){ target / 1000000000, target % 1000000000 };
	CHECK_ZERO(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &ts, NULL));
	CHECK(clock_ns(CLOCK_REALTIME) >= target);
	CHECK_EQ(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &ts, NULL), EINVAL);
	CHECK_EQ(clock_nanosleep(99, 0, &ts, NULL), EINVAL);
}

static volatile sig_atomic_t count, last_code, last_value, last_overrun, last_tid;

static void on_tick(int sig UNUSED, siginfo_t *info, void *uc UNUSED)
{
	count++;
	last_code = info->si_code;
	last_value = info->si_value.sival_int;
	last_overrun = info->si_overrun;
	last_tid = syscall(SYS_gettid);
}

TEST(alarm_delivers_and_returns_rest)
{
	on_siginfo(SIGALRM, on_tick, 0);
	CHECK_EQ(alarm(100), 0);
	CHECK(alarm(1) >= 99);
	CHECK_ERRNO(pause(), EINTR);
	CHECK_EQ(count, 1);
	CHECK_EQ(last_code, SI_KERNEL);
	CHECK_EQ(alarm(0), 0);
}

TEST(itimer_real_once_and_repeated)
{
	struct itimerval it = { { 0, 10000 }, { 0, 10000 } }, old;

	on_siginfo(SIGALRM, on_tick, 0);
	CHECK_OK(setitimer(ITIMER_REAL, &it, NULL));
	EVENTUALLY(count >= 3);
	it = (struct itimerval){ { 0, 0 }, { 0, 0 } };
	CHECK_OK(setitimer(ITIMER_REAL, &it, &old));
	CHECK_EQ(old.it_interval.tv_usec, 10000);
	count = 0;
	msleep(40);
	CHECK_EQ(count, 0);
}

TEST(itimer_get)
{
	struct itimerval it = { { 7, 0 }, { 100, 0 } }, got;

	CHECK_OK(setitimer(ITIMER_REAL, &it, NULL));
	CHECK_OK(getitimer(ITIMER_REAL, &got));
	CHECK(got.it_value.tv_sec >= 98 && got.it_value.tv_sec <= 100);
	CHECK_EQ(got.it_interval.tv_sec, 7);
	CHECK(alarm(0) >= 99);	/* the same timer */
	CHECK_ERRNO(getitimer(9, &got), EINVAL);
	it.it_value.tv_usec = 1000000;
	CHECK_ERRNO(setitimer(ITIMER_REAL, &it, NULL), EINVAL);
}

TEST(itimer_virtual_and_prof)
{
	struct itimerval it = { { 0, 0 }, { 0, 20000 } };

	on_siginfo(SIGVTALRM, on_tick, 0);
	on_siginfo(SIGPROF, on_tick, 0);
	CHECK_OK(setitimer(ITIMER_VIRTUAL, &it, NULL));
	while (!count)
		;
	CHECK_OK(setitimer(ITIMER_PROF, &it, NULL));
	while (count < 2)
		;
}

static timer_t make_timer(clockid_t clock, int notify, int sig, int value)
{
	struct sigevent ev = { .sigev_notify = notify, .sigev_signo = sig,
			       .sigev_value.sival_int = value };
	timer_t id;

	if (notify == SIGEV_THREAD_ID)
		ev.sigev_notify_thread_id = syscall(SYS_gettid);
	CHECK_OK(timer_create(clock, &ev, &id));
	return id;
}

TEST(timer_signal)
{
	struct itimerspec its = { { 0, 0 }, { 0, 20000000 } };
	timer_t id;

	on_siginfo(SIGUSR1, on_tick, 0);
	id = make_timer(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGUSR1, 4242);
	CHECK_OK(timer_settime(id, 0, &its, NULL));
	EVENTUALLY(count == 1);
	CHECK_EQ(last_code, SI_TIMER);
	CHECK_EQ(last_value, 4242);
	CHECK_OK(timer_delete(id));
	CHECK_ERRNO(timer_delete(id), EINVAL);
}

TEST(timer_none)
{
	struct itimerspec its = { { 3, 0 }, { 100, 0 } }, got;
	timer_t id = make_timer(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0);

	CHECK_OK(timer_settime(id, 0, &its, NULL));
	CHECK_OK(timer_gettime(id, &got));
	CHECK(got.it_value.tv_sec >= 98 && got.it_value.tv_sec <= 100);
	CHECK_EQ(got.it_interval.tv_sec, 3);
	CHECK_EQ(timer_getoverrun(id), 0);
}

TEST(timer_thread_id)
{
	struct itimerspec its = { { 0, 0 }, { 0, 10000000 } };
	timer_t id;

	on_siginfo(SIGUSR2, on_tick, 0);
	id = make_timer(CLOCK_MONOTONIC, SIGEV_THREAD_ID, SIGUSR2, 1);
	CHECK_OK(timer_settime(id, 0, &its, NULL));
	EVENTUALLY(count == 1);
	CHECK_EQ(last_tid, (int)syscall(SYS_gettid));
}

TEST(timer_overrun)
{
	struct itimerspec its = { { 0, 5000000 }, { 0, 5000000 } };
	sigset_t set = sigset_of(SIGUSR1);
	siginfo_t info;
	timer_t id;

	BLOCK(SIGUSR1);
	id = make_timer(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGUSR1, 0);
	CHECK_OK(timer_settime(id, 0, &its, NULL));
	msleep(100);
	CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR1);
	CHECK(info.si_overrun >= 10);
	CHECK_EQ(timer_getoverrun(id), info.si_overrun);
}

TEST(timer_absolute_in_the_past)
{
	struct itimerspec its = { { 0, 0 }, { 1, 0 } };
	timer_t id;

	on_siginfo(SIGUSR1, on_tick, 0);
	id = make_timer(CLOCK_REALTIME, SIGEV_SIGNAL, SIGUSR1, 0);
	CHECK_OK(timer_settime(id, TIMER_ABSTIME, &its, NULL));
	EVENTUALLY(count == 1);
}

TEST(timer_disarm_and_old_value)
{
	struct itimerspec its = { { 0, 0 }, { 50, 0 } }, zero = { { 0, 0 }, { 0, 0 } }, old;
	timer_t id = make_timer(CLOCK_BOOTTIME, SIGEV_SIGNAL, SIGUSR1, 0);

	CHECK_OK(timer_settime(id, 0, &its, NULL));
	CHECK_OK(timer_settime(id, 0, &zero, &old));
	CHECK(old.it_value.tv_sec >= 48);
	CHECK_OK(timer_gettime(id, &old));
	CHECK_EQ(ns(old.it_value), 0);
}

TEST(timer_default_event_is_sigalrm)
{
	struct itimerspec its = { { 0, 0 }, { 0, 10000000 } };
	timer_t id;

	on_siginfo(SIGALRM, on_tick, 0);
	CHECK_OK(timer_create(CLOCK_MONOTONIC, NULL, &id));
	CHECK_OK(timer_settime(id, 0, &its, NULL));
	EVENTUALLY(count == 1);
	CHECK_EQ(last_code, SI_TIMER);
}

TEST(timer_cpu_clock)
{
	struct itimerspec its = { { 0, 0 }, { 0, 20000000 } };
	timer_t id;

	on_siginfo(SIGUSR1, on_tick, 0);
	id = make_timer(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, SIGUSR1, 0);
	CHECK_OK(timer_settime(id, 0, &its, NULL));
	while (!count)
		;
}

TEST(timer_errors)
{
	struct itimerspec its = { { 0, 0 }, { 0, 1000000000 } };
	struct sigevent ev = { .sigev_notify = 77 };
	timer_t id;

	CHECK_ERRNO(timer_create(99, NULL, &id), EINVAL);
	CHECK_ERRNO(timer_create(CLOCK_MONOTONIC, &ev, &id), EINVAL);
	ev = (struct sigevent){ .sigev_notify = SIGEV_SIGNAL, .sigev_signo = 99 };
	CHECK_ERRNO(timer_create(CLOCK_MONOTONIC, &ev, &id), EINVAL);
	id = make_timer(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0);
	CHECK_ERRNO(timer_settime(id, 0, &its, NULL), EINVAL);
	CHECK_ERRNO(syscall(SYS_timer_gettime, 12345, &its), EINVAL);
}

TEST(timers_are_not_inherited)
{
	timer_t id = make_timer(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0);
	struct itimerspec its;
	pid_t pid = FORK();

	if (!pid) {
		CHECK_ERRNO(timer_gettime(id, &its), EINVAL);
		_exit(0);
	}
	JOIN(pid);
	CHECK_OK(timer_gettime(id, &its));
}

TEST(times_ticks)
{
	struct tms t;
	clock_t a = times(&t), b;

	CHECK(a != -1);
	msleep(60);
	b = times(&t);
	CHECK(b - a >= 4);
	CHECK(times(NULL) >= b);
}

TEST(adjtimex_reads)
{
	struct timex tx = { .modes = 0 };

	CHECK(adjtimex(&tx) >= 0);
	CHECK(tx.tick > 0);
}

/* Finds a symbol in the image's dynamic table. */
static void *vdso_symbol(const char *name)
{
	char *base = (char *)getauxval(AT_SYSINFO_EHDR);
	Elf64_Ehdr *eh = (Elf64_Ehdr *)base;
	Elf64_Phdr *ph = (Elf64_Phdr *)(base + eh->e_phoff);
	Elf64_Dyn *dyn = NULL;
	Elf64_Sym *sym = NULL;
	const char *str = NULL;
	uint32_t *hash = NULL, *gnu = NULL;
	intptr_t slide = 0;
	size_t n = 0;

	for (int i = 0; i < eh->e_phnum; i++) {
		if (ph[i].p_type == PT_LOAD)
			slide = (intptr_t)base + ph[i].p_offset - ph[i].p_vaddr;
		if (ph[i].p_type == PT_DYNAMIC)
			dyn = (Elf64_Dyn *)(base + ph[i].p_offset);
	}
	for (; dyn && dyn->d_tag; dyn++) {
		if (dyn->d_tag == DT_SYMTAB)
			sym = (Elf64_Sym *)(slide + dyn->d_un.d_ptr);
		if (dyn->d_tag == DT_STRTAB)
			str = (char *)(slide + dyn->d_un.d_ptr);
		if (dyn->d_tag == DT_HASH)
			hash = (uint32_t *)(slide + dyn->d_un.d_ptr);
		if (dyn->d_tag == DT_GNU_HASH)
			gnu = (uint32_t *)(slide + dyn->d_un.d_ptr);
	}
	if (!sym || !str || (!hash && !gnu))
		return NULL;
	if (hash) {
		n = hash[1];
	} else {
		uint32_t *buckets = gnu + 4 + 2 * gnu[2], *chain = buckets + gnu[0];

		for (uint32_t i = 0; i < gnu[0]; i++)
			if (buckets[i] > n)
				n = buckets[i];
		if (n)
			while (!(chain[n - gnu[1]] & 1))
				n++;
		n++;
	}
	for (size_t i = 0; i < n; i++)
		if (sym[i].st_shndx && !strcmp(str + sym[i].st_name, name))
			return (void *)(slide + sym[i].st_value);
	return NULL;
}

TEST(vdso_is_an_elf_image)
{
	char *base = (char *)getauxval(AT_SYSINFO_EHDR);

	CHECK(base);
	CHECK(!memcmp(base, ELFMAG, SELFMAG));
	CHECK_EQ(((Elf64_Ehdr *)base)->e_type, ET_DYN);
	CHECK_EQ(((Elf64_Ehdr *)base)->e_machine, EM_X86_64);
}

TEST(vdso_has_the_functions)
{
	CHECK(vdso_symbol("__vdso_clock_gettime"));
	CHECK(vdso_symbol("__vdso_gettimeofday"));
	CHECK(vdso_symbol("__vdso_time"));
	CHECK(vdso_symbol("__vdso_getcpu"));
	CHECK(!vdso_symbol("__vdso_nonsense"));
}

TEST(vdso_clock_gettime_agrees)
{
	int (*fn)(clockid_t, struct timespec *) =
		(int (*)(clockid_t, struct timespec *))vdso_symbol("__vdso_clock_gettime");
	struct timespec ts;

	CHECK(fn);
	for (int i = 0; i < 100; i++) {
		int64_t a = raw_ns(CLOCK_MONOTONIC), b;

		CHECK_EQ(fn(CLOCK_MONOTONIC, &ts), 0);
		b = raw_ns(CLOCK_MONOTONIC);
		CHECK(a <= ns(ts) && ns(ts) <= b);
		a = raw_ns(CLOCK_REALTIME);
		CHECK_EQ(fn(CLOCK_REALTIME, &ts), 0);
		b = raw_ns(CLOCK_REALTIME);
		CHECK(a <= ns(ts) && ns(ts) <= b);
	}
	CHECK_EQ(fn(99, &ts), -EINVAL);
	CHECK_EQ(fn(CLOCK_PROCESS_CPUTIME_ID, &ts), 0);	/* falls back to the call */
}

TEST(vdso_getcpu_agrees)
{
	int (*fn)(unsigned int *, unsigned int *, void *) =
		(int (*)(unsigned int *, unsigned int *, void *))vdso_symbol("__vdso_getcpu");
	unsigned int a, b, node;
	cpu_set_t set;

	CHECK(fn);
	CHECK_OK(sched_getaffinity(0, sizeof(set), &set));
	CHECK_EQ(fn(&a, &node, NULL), 0);
	CHECK(a < CPU_SETSIZE);
	CHECK_OK(syscall(SYS_getcpu, &b, NULL, NULL));
	CHECK(b < CPU_SETSIZE);
}

static void *read_clock(void *arg)
{
	int64_t *last = arg;

	for (int i = 0; i < 2000; i++) {
		int64_t seen = __atomic_load_n(last, __ATOMIC_SEQ_CST);
		int64_t t = clock_ns(CLOCK_MONOTONIC);

		if (t < seen)
			return (void *)1;
		/* Keep the maximum of what anyone saw. */
		while (t > seen && !__atomic_compare_exchange_n(last, &seen, t, false,
								__ATOMIC_SEQ_CST,
								__ATOMIC_SEQ_CST))
			;
	}
	return NULL;
}

TEST(monotonic_across_threads)
{
	int64_t last = 0;
	pthread_t t[4];
	void *r;

	for (int i = 0; i < 4; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, read_clock, &last));
	for (int i = 0; i < 4; i++) {
		CHECK_ZERO(pthread_join(t[i], &r));
		CHECK(!r);
	}
}
