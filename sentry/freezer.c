/* SPDX-License-Identifier: Apache-2.0 */
/* See freezer.h. All state here is the host process's. */
#include "sentry/freezer.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "sentry/kernel.h"
#include "sentry/task.h"

#define NUDGE_MS 2 /* how often those that haven't come are told again */

_Atomic int freezer_state;

static struct {
	pthread_mutex_t lock;
	pthread_cond_t arrived, decided;
	_Atomic int live; /* host threads that drive a task */
	int parked;	  /* of them; under lock, like the rest */
	uint64_t round;	  /* counts decisions */
	bool discard;	  /* what was decided last */
} fz = {.lock = PTHREAD_MUTEX_INITIALIZER,
	.arrived = PTHREAD_COND_INITIALIZER,
	.decided = PTHREAD_COND_INITIALIZER};

void freezer_task_begins(void)
{
	atomic_fetch_add(&fz.live, 1);
}

void freezer_task_ended(void)
{
	atomic_fetch_sub(&fz.live, 1);
	if (!freezer_active())
		return;
	pthread_mutex_lock(&fz.lock);
	pthread_cond_signal(&fz.arrived);
	pthread_mutex_unlock(&fz.lock);
}

bool freezer_park(struct task *t)
{
	bool discard = false;
	uint64_t round;

	pthread_mutex_lock(&fz.lock);
	/* Who is about to end does so, unless nothing of it will be left anyway. */
	if (atomic_load(&freezer_state) == FREEZER_RUNNING ||
	    (!freezer_discarding() && (atomic_load(&t->killed) || t->tg->group_exit))) {
		pthread_mutex_unlock(&fz.lock);
		return false;
	}
	round = fz.round;
	fz.parked++;
	pthread_cond_signal(&fz.arrived);
	while (round == fz.round)
		pthread_cond_wait(&fz.decided, &fz.lock);
	fz.parked--;
	discard = fz.discard;
	pthread_mutex_unlock(&fz.lock);
	return discard;
}

/* Kicks and wakes everyone. */
static void nudge(struct kernel *k)
{
	const struct platform_type *pt = k->platform->type;
	struct pid *pid;

	mutex_lock(&k->tasklist);
	for (uint64_t nr = 1; (pid = pid_next_locked(k->root_pid_ns, &nr)); nr++) {
		struct task *t = pid->task;

		if (!t || !t->ctx)
			continue;
		if (atomic_load(&t->in_user))
			pt->ctx_kick(t->ctx);
		task_wake(t);
	}
	mutex_unlock(&k->tasklist);
}

static bool all_parked_locked(void)
{
	return fz.parked == atomic_load(&fz.live);
}

/* Until all are parked or @ms are over. */
static bool wait_a_moment(unsigned int ms)
{
	struct timespec until;
	bool all;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)ms * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&fz.lock);
	while (!(all = all_parked_locked())) {
		if (pthread_cond_timedwait(&fz.arrived, &fz.lock, &until))
			break;
	}
	pthread_mutex_unlock(&fz.lock);
	return all;
}

void freezer_thaw(void)
{
	pthread_mutex_lock(&fz.lock);
	fz.discard = false;
	fz.round++;
	atomic_store(&freezer_state, FREEZER_RUNNING);
	pthread_cond_broadcast(&fz.decided);
	pthread_mutex_unlock(&fz.lock);
}

int freezer_stop(struct kernel *k, bool discard, unsigned int ms)
{
	atomic_store(&freezer_state, discard ? FREEZER_DISCARDING : FREEZER_FREEZING);
	for (unsigned int waited = 0;; waited += NUDGE_MS) {
		pthread_mutex_lock(&fz.lock);
		if (all_parked_locked()) {
			pthread_mutex_unlock(&fz.lock);
			return 0;
		}
		pthread_mutex_unlock(&fz.lock);
		if (waited >= ms)
			break;
		nudge(k);
		if (wait_a_moment(NUDGE_MS))
			return 0;
	}
	freezer_thaw();
	return -ETIMEDOUT;
}

void freezer_discard(void)
{
	pthread_mutex_lock(&fz.lock);
	fz.discard = true;
	fz.round++;
	pthread_cond_broadcast(&fz.decided);
	while (atomic_load(&fz.live))
		pthread_cond_wait(&fz.arrived, &fz.lock);
	atomic_store(&freezer_state, FREEZER_RUNNING);
	pthread_mutex_unlock(&fz.lock);
}
