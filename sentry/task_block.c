/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping and waking.
 *
 * A task sleeps on its own host futex, t->wake: 0 from task_block_prepare on, 1 once somebody has
 * woken it. Whoever makes a signal deliverable sets t->sigpending_hint first and wakes second, and
 * task_block looks at the hint after prepare, so neither kind of wake-up is lost.
 */
#include <linux/futex.h>
#include <unistd.h>

#include "sentry/freezer.h"
#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/lib/hostfutex.h"
#include "sentry/task.h"

void task_block_prepare(struct task *t)
{
	atomic_store(&t->wake, 0);
}

bool task_interrupted(struct task *t)
{
	return freezer_active() || atomic_load(&t->killed) ||
	       (atomic_load(&t->sigpending_hint) && signal_pending(t));
}

void task_wake(struct task *t)
{
	if (atomic_exchange(&t->wake, 1) == 0)
		host_futex_wake(&t->wake, 1);
}

/* What ends a wait that only a deadly signal may. */
static bool must_give_up(struct task *t)
{
	return atomic_load(&t->killed) || freezer_active();
}

static int block(struct task *t, int clock, const struct timespec *deadline, bool killable_only)
{
	const struct platform_type *pt = t->kernel->platform->type;
	int ret = 0;

	if (pt->ctx_waits)
		pt->ctx_waits(t->ctx);
	atomic_store(&t->state, killable_only ? TASK_DISKSLEEP : TASK_SLEEPING);
	t->nvcsw++;
	poller_blocks();
	while (!atomic_load(&t->wake)) {
		if (killable_only ? must_give_up(t) : task_interrupted(t)) {
			ret = -ERESTARTSYS;
			break;
		}
		if (host_futex_wait_until(&t->wake, 0, clock, deadline) == -ETIMEDOUT) {
			ret = -ETIMEDOUT;
			break;
		}
		/*
		 * A signal's wake-up sets the word too. Unless it is deliverable this is a plain
		 * wake-up: the caller tests its condition again.
		 */
	}
	if (!ret && (killable_only ? must_give_up(t) : task_interrupted(t)))
		ret = -ERESTARTSYS;
	atomic_store(&t->state, TASK_RUNNING);
	return ret;
}

int task_block(struct task *t, int clock, const struct timespec *deadline)
{
	return block(t, clock, deadline, false);
}

int task_block_killable(struct task *t)
{
	return block(t, CLOCK_MONOTONIC, NULL, true);
}

void task_wait_wake(struct task *t)
{
	while (!atomic_load(&t->wake))
		host_futex_wait(&t->wake, 0, NULL);
}

static bool task_waiter_fn(struct waiter *w, uint32_t events)
{
	struct task_waiter *tw = container_of(w, struct task_waiter, w);

	atomic_fetch_or(&tw->events, events);
	task_wake(tw->t);
	return true;
}

void task_waiter_init(struct task_waiter *tw, struct task *t, uint32_t mask)
{
	list_init(&tw->w.node);
	tw->w.wq = NULL;
	tw->w.mask = mask;
	tw->w.exclusive = false;
	tw->w.fn = task_waiter_fn;
	tw->t = t;
	atomic_store(&tw->events, 0);
}

long task_retry(struct task *t, struct waitq *wq, uint32_t events, bool nonblock,
		const struct timespec *deadline, long (*op)(void *arg), void *arg)
{
	struct task_waiter tw;
	long ret = op(arg);
	int err;

	if (ret != -EAGAIN || nonblock || !wq)
		return ret;
	task_waiter_init(&tw, t, events);
	task_block_prepare(t);
	waitq_add(wq, &tw.w);
	for (;;) {
		ret = op(arg);
		if (ret != -EAGAIN)
			break;
		err = task_block(t, CLOCK_MONOTONIC, deadline);
		if (err) {
			/* What became ready in the same moment wins, as on Linux. */
			ret = op(arg);
			if (ret == -EAGAIN && err != -ETIMEDOUT)
				ret = err;
			break;
		}
		task_block_prepare(t);
	}
	waitq_remove(&tw.w);
	return ret;
}
