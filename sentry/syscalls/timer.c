/* SPDX-License-Identifier: Apache-2.0 */
/* setitimer(2), alarm(2), timer_create(2) and relatives. */
#include <string.h>
#include <sys/time.h>

#include "sentry/lib/err.h"
#include "sentry/syscalls.h"
#include "sentry/timers.h"

#define SEC_MAX (INT64_MAX / 1000000000 - 1)

static int64_t tv_ns(const struct timeval *tv)
{
	return MIN(tv->tv_sec, (time_t)SEC_MAX) * 1000000000 + tv->tv_usec * 1000;
}

/* Rounded up: a timer that runs never shows 0. */
static struct timeval ns_tv(int64_t ns)
{
	int64_t us = ns / 1000 + (ns % 1000 != 0);

	return (struct timeval){.tv_sec = us / 1000000, .tv_usec = us % 1000000};
}

static bool timeval_valid(const struct timeval *tv)
{
	return tv->tv_sec >= 0 && tv->tv_usec >= 0 && tv->tv_usec < 1000000;
}

static long put_itimer(struct task *t, uaddr_t addr, const struct itimer_value *v)
{
	struct itimerval iv = {.it_interval = ns_tv(v->interval), .it_value = ns_tv(v->value)};

	return copy_out(t, addr, &iv, sizeof(iv));
}

long sys_getitimer(struct task *t, const uint64_t *a)
{
	struct itimer_value cur;
	int err;

	if ((unsigned int)a[0] > ITIMER_PROF)
		return -EINVAL;
	err = itimer_exchange(t->tg, (int)a[0], NULL, &cur);
	return err ? err : put_itimer(t, a[1], &cur);
}

long sys_setitimer(struct task *t, const uint64_t *a)
{
	struct itimer_value new = {0}, old;
	struct itimerval iv;
	int err;

	if ((unsigned int)a[0] > ITIMER_PROF)
		return -EINVAL;
	if (a[1]) {
		if (copy_in(t, &iv, a[1], sizeof(iv)))
			return -EFAULT;
		if (!timeval_valid(&iv.it_value) || !timeval_valid(&iv.it_interval))
			return -EINVAL;
		new.value = tv_ns(&iv.it_value);
		new.interval = tv_ns(&iv.it_interval);
	}
	err = itimer_exchange(t->tg, (int)a[0], &new, &old);
	if (err)
		return err;
	return a[2] ? put_itimer(t, a[2], &old) : 0;
}

long sys_alarm(struct task *t, const uint64_t *a)
{
	struct itimer_value new = {.value = (int64_t)(unsigned int)a[0] * 1000000000}, old;
	int err = itimer_exchange(t->tg, ITIMER_REAL, &new, &old);
	int64_t sec;

	if (err)
		return 0;
	/* Rounded to the nearest second, but not to 0. */
	sec = old.value / 1000000000;
	if ((!sec && old.value) || old.value % 1000000000 >= 500000000)
		sec++;
	return sec;
}

/* ---- POSIX timers ---- */

struct ksigevent { /* of the kernel's ABI */
	uint64_t value;
	int signo, notify, tid;
	int pad[11];
};

long sys_timer_create(struct task *t, const uint64_t *a)
{
	struct timer_event ev = {.notify = SIGEV_SIGNAL, .signo = SIGALRM, .value_is_id = true};
	struct ksigevent se;
	int id;

	if (a[1]) {
		if (copy_in(t, &se, a[1], sizeof(se)))
			return -EFAULT;
		ev = (struct timer_event){
			.notify = se.notify, .signo = se.signo, .tid = se.tid, .value = se.value};
	}
	id = ptimer_create(t, (clockid_t)a[0], &ev);
	if (id < 0)
		return id;
	if (copy_out(t, a[2], &id, sizeof(id))) {
		(void)!ptimer_delete(t, id);
		return -EFAULT;
	}
	return 0;
}

static bool timespec_valid(const struct timespec *ts)
{
	return ts->tv_sec >= 0 && ts->tv_nsec >= 0 && ts->tv_nsec < 1000000000;
}

long sys_timer_settime(struct task *t, const uint64_t *a)
{
	struct itimerspec new, old;
	int err;

	if (!a[2])
		return -EINVAL;
	if (copy_in(t, &new, a[2], sizeof(new)))
		return -EFAULT;
	if (!timespec_valid(&new.it_value) || !timespec_valid(&new.it_interval))
		return -EINVAL;
	err = ptimer_set(t, (int)a[0], (int)a[1] & TIMER_ABSTIME, &new, a[3] ? &old : NULL);
	if (err || !a[3])
		return err;
	return copy_out(t, a[3], &old, sizeof(old));
}

long sys_timer_gettime(struct task *t, const uint64_t *a)
{
	struct itimerspec cur;
	int err = ptimer_get(t, (int)a[0], &cur);

	return err ? err : copy_out(t, a[1], &cur, sizeof(cur));
}

long sys_timer_getoverrun(struct task *t, const uint64_t *a)
{
	return ptimer_overrun(t, (int)a[0]);
}

long sys_timer_delete(struct task *t, const uint64_t *a)
{
	return ptimer_delete(t, (int)a[0]);
}
