/* SPDX-License-Identifier: Apache-2.0 */
/* The vDSO: user code that tells the time without a system call. */
#include <stddef.h>
#include <sys/time.h>
#include <time.h>

#include "arch/x86_64/vdso/vvar.h"

/* Placed by vdso.lds, one page before the first of the image. */
extern const volatile struct vvar_data vvar_page __attribute__((visibility("hidden")));

long __vdso_clock_gettime(clockid_t clock, struct timespec *ts);
long __vdso_gettimeofday(struct timeval *tv, struct timezone *tz);
time_t __vdso_time(time_t *t);
long __vdso_getcpu(unsigned int *cpu, unsigned int *node, void *unused);
long __vdso_clock_getres(clockid_t clock, struct timespec *ts);

static long call2(long nr, long a, long b)
{
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b) : "rcx", "r11", "memory");
	return ret;
}

long __vdso_clock_gettime(clockid_t clock, struct timespec *ts)
{
	uint64_t ns = vvar_clock_ns(&vvar_page, clock);

	if (!ns)
		return call2(228, clock, (long)ts);
	ts->tv_sec = (time_t)(ns / 1000000000);
	ts->tv_nsec = (long)(ns % 1000000000);
	return 0;
}

long __vdso_gettimeofday(struct timeval *tv, struct timezone *tz)
{
	uint64_t ns = vvar_clock_ns(&vvar_page, 0);

	if (!ns)
		return call2(96, (long)tv, (long)tz);
	if (tv) {
		tv->tv_sec = (time_t)(ns / 1000000000);
		tv->tv_usec = (suseconds_t)(ns % 1000000000 / 1000);
	}
	if (tz) {
		tz->tz_minuteswest = 0;
		tz->tz_dsttime = 0;
	}
	return 0;
}

time_t __vdso_time(time_t *t)
{
	uint64_t ns = vvar_clock_ns(&vvar_page, 0);
	time_t s = ns ? (time_t)(ns / 1000000000) : call2(201, 0, 0);

	if (t)
		*t = s;
	return s;
}

long __vdso_getcpu(unsigned int *cpu, unsigned int *node, void *unused)
{
	(void)unused;
	if (cpu)
		*cpu = vvar_page.cpu;
	if (node)
		*node = vvar_page.node;
	return 0;
}

long __vdso_clock_getres(clockid_t clock, struct timespec *ts)
{
	long ns;

	switch (clock) {
	case CLOCK_REALTIME:
	case CLOCK_MONOTONIC:
	case CLOCK_MONOTONIC_RAW:
	case CLOCK_BOOTTIME:
		ns = 1;
		break;
	case CLOCK_REALTIME_COARSE:
	case CLOCK_MONOTONIC_COARSE:
		ns = 4000000;
		break;
	default:
		return call2(229, clock, (long)ts);
	}
	if (ts) {
		ts->tv_sec = 0;
		ts->tv_nsec = ns;
	}
	return 0;
}

/* The names without a prefix, as Linux has them. */
#define ALIAS(name)                                                                                \
	extern __typeof__(__vdso_##name) vdso_##name##_alias __asm__(#name)                        \
		__attribute__((weak, alias("__vdso_" #name)))
ALIAS(clock_gettime);
ALIAS(gettimeofday);
ALIAS(time);
ALIAS(getcpu);
ALIAS(clock_getres);
