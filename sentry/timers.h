/* SPDX-License-Identifier: Apache-2.0 */
/* Interval timers and POSIX timers, for the system calls. */
#ifndef SENTRY_TIMERS_H
#define SENTRY_TIMERS_H

#include <time.h>

#include "sentry/task.h"

/* Nanoseconds; an interval timer as setitimer(2) has it. */
struct itimer_value {
	int64_t value, interval;
};
/* @which: ITIMER_*. @new or @old may be NULL. 0 or -ENOMEM. */
int itimer_exchange(struct thread_group *tg, int which, const struct itimer_value *new,
		    struct itimer_value *old);

/* timer_create(2)'s sigevent as the kernel has it. */
struct timer_event {
	int notify, signo, tid;
	uint64_t value;
	bool value_is_id; /* no sigevent given */
};
/* All return 0 (create: the ID) or -errno. */
int ptimer_create(struct task *t, clockid_t clock, const struct timer_event *ev);
int ptimer_set(struct task *t, int id, bool abs, const struct itimerspec *new,
	       struct itimerspec *old);
int ptimer_get(struct task *t, int id, struct itimerspec *cur);
int ptimer_overrun(struct task *t, int id);
int ptimer_delete(struct task *t, int id);

#endif
