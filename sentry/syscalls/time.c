/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clocks and sleeping. Wall and monotonic time come from the vDSO's own arithmetic, so that a
 * program sees one time whichever way it asks.
 */
#include <string.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <time.h>

#include "loader/vdso.h"
#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls.h"
#include "sentry/wait.h"

static void ns_to_ts(uint64_t ns, struct timespec *ts)
{
	ts->tv_sec = (time_t)(ns / 1000000000);
	ts->tv_nsec = (long)(ns % 1000000000);
}

/* A CPU-time clock of another process or thread, by its clockid (clock_getcpuclockid(3)). */
static int cpu_clock(struct task *t, clockid_t clock, struct timespec *ts)
{
	pid_t nr = (pid_t) ~((unsigned int)clock >> 3 | 0xe0000000u);
	bool thread = clock & 4;
	struct task *other = t;
	uint64_t u, s;

	if ((clock & 3) == 3)
		return -EINVAL;
	if (nr) {
		other = task_find(t->kernel, task_pid_ns(t), nr);
		if (!other)
			return -EINVAL;
	}
	if (thread && other->tg != t->tg) {
		task_put(other);
		return -EINVAL;
	}
	if (thread)
		task_times(other, &u, &s);
	else
		thread_group_times(other->tg, &u, &s);
	if (other != t)
		task_put(other);
	ns_to_ts((clock & 3) == 1 ? u : u + s, ts);
	return 0;
}

int task_clock_gettime(struct task *t, clockid_t clock, struct timespec *ts)
{
	uint64_t u, s;

	switch (clock) {
	case CLOCK_PROCESS_CPUTIME_ID:
		thread_group_times(t->tg, &u, &s);
		ns_to_ts(u + s, ts);
		return 0;
	case CLOCK_THREAD_CPUTIME_ID:
		task_times(t, &u, &s);
		ns_to_ts(u + s, ts);
		return 0;
	case CLOCK_REALTIME:
	case CLOCK_MONOTONIC:
	case CLOCK_MONOTONIC_RAW:
	case CLOCK_REALTIME_COARSE:
	case CLOCK_MONOTONIC_COARSE:
	case CLOCK_BOOTTIME:
		return vdso_clock_gettime(clock, ts);
	case CLOCK_REALTIME_ALARM:
	case CLOCK_BOOTTIME_ALARM:
	case CLOCK_TAI:
		return clock_gettime(clock, ts) ? -EINVAL : 0;
	}
	if (clock < 0)
		return cpu_clock(t, clock, ts);
	return -EINVAL;
}

long sys_clock_gettime(struct task *t, const uint64_t *a)
{
	struct timespec ts;
	int err = task_clock_gettime(t, (clockid_t)a[0], &ts);

	return err ? err : copy_out(t, a[1], &ts, sizeof(ts));
}

long sys_clock_getres(struct task *t, const uint64_t *a)
{
	clockid_t clock = (clockid_t)a[0];
	struct timespec ts = {.tv_nsec = 1};
	int err = task_clock_gettime(t, clock, &ts);

	if (err)
		return err;
	ts = (struct timespec){.tv_nsec = 1};
	if (clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC_COARSE)
		ts.tv_nsec = 4000000;
	return a[1] ? copy_out(t, a[1], &ts, sizeof(ts)) : 0;
}

long sys_clock_settime(struct task *t, const uint64_t *a)
{
	struct timespec ts;
	int err = user_timespec(t, a[1], &ts);

	if (err)
		return err;
	if ((clockid_t)a[0] != CLOCK_REALTIME)
		return -EINVAL;
	/* The host's clock is not the sandbox's to set: as in a container. */
	return -EPERM;
}

long sys_settimeofday(struct task *t, const uint64_t *a)
{
	return -EPERM;
}

long sys_adjtimex(struct task *t, const uint64_t *a)
{
	struct timex tx;
	int ret;

	if (copy_in(t, &tx, a[0], sizeof(tx)))
		return -EFAULT;
	if (tx.modes)
		return -EPERM;
	ret = adjtimex(&tx);
	if (ret < 0)
		return -EPERM;
	return copy_out(t, a[0], &tx, sizeof(tx)) ? -EFAULT : ret;
}

long sys_clock_adjtime(struct task *t, const uint64_t *a)
{
	uint64_t args[6] = {a[1]};

	return (clockid_t)a[0] == CLOCK_REALTIME ? sys_adjtimex(t, args) : -EINVAL;
}

long sys_gettimeofday(struct task *t, const uint64_t *a)
{
	struct timezone tz = {0};
	struct timeval tv;
	struct timespec ts;

	vdso_clock_gettime(CLOCK_REALTIME, &ts);
	tv.tv_sec = ts.tv_sec;
	tv.tv_usec = ts.tv_nsec / 1000;
	if (a[0] && copy_out(t, a[0], &tv, sizeof(tv)))
		return -EFAULT;
	if (a[1] && copy_out(t, a[1], &tz, sizeof(tz)))
		return -EFAULT;
	return 0;
}

long sys_time(struct task *t, const uint64_t *a)
{
	struct timespec ts;

	vdso_clock_gettime(CLOCK_REALTIME, &ts);
	if (a[0] && copy_out(t, a[0], &ts.tv_sec, sizeof(ts.tv_sec)))
		return -EFAULT;
	return ts.tv_sec;
}

/* Clock ticks of 1/100 s. */
static clock_t ticks(uint64_t ns)
{
	return (clock_t)(ns / 10000000);
}

long sys_times(struct task *t, const uint64_t *a)
{
	struct timespec now = monotonic_now();
	struct tms tms;
	uint64_t u, s;

	thread_group_times(t->tg, &u, &s);
	tms.tms_utime = ticks(u);
	tms.tms_stime = ticks(s);
	tms.tms_cutime = ticks(t->tg->cutime_ns);
	tms.tms_cstime = ticks(t->tg->cstime_ns);
	if (a[0] && copy_out(t, a[0], &tms, sizeof(tms)))
		return -EFAULT;
	return ticks((uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
}

static void ns_to_tv(uint64_t ns, struct timeval *tv)
{
	tv->tv_sec = (time_t)(ns / 1000000000);
	tv->tv_usec = (suseconds_t)(ns % 1000000000 / 1000);
}

long sys_getrusage(struct task *t, const uint64_t *a)
{
	struct thread_group *tg = t->tg;
	uint64_t u = 0, s = 0, rss;
	struct rusage ru;

	memset(&ru, 0, sizeof(ru));
	switch ((int)a[0]) {
	case RUSAGE_SELF:
		thread_group_times(tg, &u, &s);
		ru.ru_nvcsw = tg->dead_ru.ru_nvcsw + (long)t->nvcsw;
		ru.ru_nivcsw = tg->dead_ru.ru_nivcsw + (long)t->nivcsw;
		rss = atomic_load(&t->mm->max_rss);
		break;
	case RUSAGE_THREAD:
		task_times(t, &u, &s);
		ru.ru_nvcsw = (long)t->nvcsw;
		ru.ru_nivcsw = (long)t->nivcsw;
		rss = atomic_load(&t->mm->max_rss);
		break;
	case RUSAGE_CHILDREN:
		u = tg->cutime_ns;
		s = tg->cstime_ns;
		rss = tg->child_max_rss;
		break;
	default:
		return -EINVAL;
	}
	if ((int)a[0] != RUSAGE_CHILDREN) {
		rss = MAX(rss, mm_rss(t->mm));
		ru.ru_minflt = (long)atomic_load(&t->mm->min_flt);
		ru.ru_majflt = (long)atomic_load(&t->mm->maj_flt);
	}
	ns_to_tv(u, &ru.ru_utime);
	ns_to_tv(s, &ru.ru_stime);
	ru.ru_maxrss = (long)(rss * (PAGE_SIZE / 1024));
	return copy_out(t, a[1], &ru, RUSAGE_SIZE);
}

/* ---- sleeping ---- */

/* What is left until @until, never negative. */
static void remaining(int clock, const struct timespec *until, struct timespec *left)
{
	struct timespec now;
	int64_t ns;

	clock_gettime(clock, &now);
	ns = (until->tv_sec - now.tv_sec) * 1000000000 + (until->tv_nsec - now.tv_nsec);
	ns_to_ts(ns > 0 ? (uint64_t)ns : 0, left);
}

/* Sleeps until @until; a signal restarts it there, with what is left stored at @rem. */
static long sleep_until(struct task *t, int clock, const struct timespec *until, uaddr_t rem,
			bool absolute);

static long sleep_restart(struct task *t, struct restart_block *rb)
{
	struct timespec until = rb->until;

	return sleep_until(t, rb->clock, &until, rb->arg[0], false);
}

static long sleep_until(struct task *t, int clock, const struct timespec *until, uaddr_t rem,
			bool absolute)
{
	struct timespec left;
	int ret;

	do {
		task_block_prepare(t);
		ret = task_block(t, clock, until);
	} while (!ret);
	if (ret == -ETIMEDOUT)
		return 0;
	if (absolute)
		return -ERESTARTNOHAND;
	if (rem) {
		remaining(clock, until, &left);
		if (copy_out(t, rem, &left, sizeof(left)))
			return -EFAULT;
	}
	t->restart.fn = sleep_restart;
	t->restart.arg[0] = rem;
	t->restart.clock = clock;
	t->restart.until = *until;
	return -ERESTART_RESTARTBLOCK;
}

long sys_nanosleep(struct task *t, const uint64_t *a)
{
	struct timespec ts, until;
	int err = user_timespec(t, a[0], &ts);

	if (err)
		return err;
	deadline_after(&until, &ts);
	return sleep_until(t, CLOCK_MONOTONIC, &until, a[1], false);
}

/* Sleeping on a CPU-time clock: by looking again as the clock advances. */
static long sleep_cpu(struct task *t, clockid_t clock, const struct timespec *until)
{
	for (;;) {
		struct timespec now, wait = {.tv_nsec = 1000000}, deadline;
		int ret = task_clock_gettime(t, clock, &now);

		if (ret)
			return ret;
		if (now.tv_sec > until->tv_sec ||
		    (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec))
			return 0;
		deadline_after(&deadline, &wait);
		task_block_prepare(t);
		ret = task_block(t, CLOCK_MONOTONIC, &deadline);
		if (ret && ret != -ETIMEDOUT)
			return -ERESTARTNOHAND;
	}
}

long sys_clock_nanosleep(struct task *t, const uint64_t *a)
{
	clockid_t clock = (clockid_t)a[0];
	bool absolute = a[1] & TIMER_ABSTIME;
	struct timespec ts, until, now;
	int err;

	if (a[1] & ~(uint64_t)TIMER_ABSTIME)
		return -EINVAL;
	if (clock == CLOCK_THREAD_CPUTIME_ID)
		return -EINVAL;
	err = task_clock_gettime(t, clock, &now);
	if (err)
		return err;
	err = user_timespec(t, a[2], &ts);
	if (err)
		return err;
	switch (clock) {
	case CLOCK_REALTIME:
	case CLOCK_MONOTONIC:
		break;
	case CLOCK_BOOTTIME:
	case CLOCK_TAI:
		if (absolute) {
			/*
			 * Same rate as CLOCK_MONOTONIC while the host is awake: sleep the
			 * difference.
			 */
			struct timespec rel;
			int64_t ns =
				(ts.tv_sec - now.tv_sec) * 1000000000 + (ts.tv_nsec - now.tv_nsec);

			ns_to_ts(ns > 0 ? (uint64_t)ns : 0, &rel);
			deadline_after(&until, &rel);
			return sleep_until(t, CLOCK_MONOTONIC, &until, 0, true);
		}
		break;
	case CLOCK_PROCESS_CPUTIME_ID:
		if (!absolute) {
			ts.tv_sec += now.tv_sec;
			ts.tv_nsec += now.tv_nsec;
			if (ts.tv_nsec >= 1000000000) {
				ts.tv_nsec -= 1000000000;
				ts.tv_sec++;
			}
		}
		return sleep_cpu(t, clock, &ts);
	default:
		return -EOPNOTSUPP;
	}
	if (absolute)
		return sleep_until(t, clock, &ts, 0, true);
	deadline_after(&until, &ts);
	return sleep_until(t, CLOCK_MONOTONIC, &until, a[3], false);
}

long sys_restart_syscall(struct task *t, const uint64_t *a)
{
	struct restart_block rb = t->restart;

	t->restart.fn = NULL;
	return rb.fn ? rb.fn(t, &rb) : -EINTR;
}
