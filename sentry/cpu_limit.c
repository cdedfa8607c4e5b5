/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RLIMIT_CPU: a process with a finite limit has a timer that looks at its CPU time ten times a
 * second. Past the soft limit it gets SIGXCPU every second, past the hard limit SIGKILL
 * (setrlimit(2)).
 */
#include <string.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/objects.h"
#include "sentry/syscalls.h"

#define LOOK_NS 100000000

struct cpu_limit {
	struct ktimer timer;
	struct thread_group *tg; /* borrowed: cancelled before the group goes */
	uint64_t warned;	 /* seconds at the last SIGXCPU */
};

static void next_look(struct ktimer *timer)
{
	struct timespec step = {.tv_nsec = LOOK_NS};

	deadline_after(&timer->expires, &step);
}

static bool look(struct ktimer *timer)
{
	struct cpu_limit *cl = container_of(timer, struct cpu_limit, timer);
	struct thread_group *tg = cl->tg;
	struct rlimit limit;
	uint64_t u, s, seconds;
	siginfo_t info;

	thread_group_times(tg, &u, &s);
	seconds = (u + s) / 1000000000;
	mutex_lock(&tg->limits_lock);
	limit = tg->limits[RLIMIT_CPU];
	mutex_unlock(&tg->limits_lock);
	memset(&info, 0, sizeof(info));
	info.si_code = SI_KERNEL;
	if (seconds >= limit.rlim_max) {
		info.si_signo = SIGKILL;
		(void)!signal_send_group(tg, &info);
	} else if (seconds >= limit.rlim_cur && seconds > cl->warned) {
		cl->warned = seconds;
		info.si_signo = SIGXCPU;
		(void)!signal_send_group(tg, &info);
	}
	if (limit.rlim_cur == RLIM_INFINITY && limit.rlim_max == RLIM_INFINITY)
		return false;
	next_look(timer);
	return true;
}

void cpu_limit_update(struct thread_group *tg)
{
	struct cpu_limit *cl, *none = NULL;
	bool finite;

	mutex_lock(&tg->limits_lock);
	finite = tg->limits[RLIMIT_CPU].rlim_cur != RLIM_INFINITY ||
		 tg->limits[RLIMIT_CPU].rlim_max != RLIM_INFINITY;
	mutex_unlock(&tg->limits_lock);
	if (!finite || __atomic_load_n(&tg->cpu_limit, __ATOMIC_ACQUIRE))
		return;
	/* Out of memory: no limit is enforced, as nothing can be refused any more here. */
	cl = kzalloc(sizeof(*cl));
	if (!cl)
		return;
	cl->tg = tg;
	ktimer_init(&cl->timer, CLOCK_MONOTONIC, look);
	if (!__atomic_compare_exchange_n(&tg->cpu_limit, &none, cl, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE)) {
		kfree(cl);
		return;
	}
	next_look(&cl->timer);
	ktimer_arm(&cl->timer, &cl->timer.expires);
}

void cpu_limit_exit(struct thread_group *tg)
{
	struct cpu_limit *cl = tg->cpu_limit;

	if (!cl)
		return;
	ktimer_cancel(&cl->timer);
	kfree(cl);
	tg->cpu_limit = NULL;
}
