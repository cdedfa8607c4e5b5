/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The freezer: stops all tasks at a safe point, where nothing of them is on a host stack: the top
 * of the run loop. User code is kicked out; calls that wait are interrupted and, once the task goes
 * on, restarted as if nothing had happened.
 *
 *	RUNNING --freezer_stop--> stopping --all parked--> FROZEN --freezer_thaw--> RUNNING
 *				      \			      \--freezer_discard--> EMPTY
 *				       \--- time over: RUNNING			      |
 *	RUNNING <-------------------------- task_resume (each task) ------------------+
 *
 * After freezer_discard no host thread drives any task: their structs are memory and nothing else,
 * and may be saved or replaced. task_resume makes one run again.
 *
 * One thread at a time stops and goes on; it isn't a task's.
 */
#ifndef SENTRY_FREEZER_H
#define SENTRY_FREEZER_H

#include <stdatomic.h>

#include "sentry/lib/types.h"

struct kernel;
struct task;

enum freezer_state {
	FREEZER_RUNNING,
	FREEZER_FREEZING,   /* tasks park, those that are ending end */
	FREEZER_DISCARDING, /* nobody is going on: waits give up at once, vfork's too */
};

extern _Atomic int freezer_state;

static inline bool freezer_active(void)
{
	return unlikely(atomic_load_explicit(&freezer_state, memory_order_relaxed) !=
			FREEZER_RUNNING);
}

static inline bool freezer_discarding(void)
{
	return unlikely(atomic_load_explicit(&freezer_state, memory_order_relaxed) ==
			FREEZER_DISCARDING);
}

/* ---- for the run loop ---- */
/* A host thread begins to drive a task (before it exists), and has nothing to do with it any more.
 */
void freezer_task_begins(void);
void freezer_task_ended(void);
/*
 * At the safe point while freezer_active: waits for what comes. True: the task was discarded, the
 * caller forgets it (and calls freezer_task_ended).
 */
bool freezer_park(struct task *t);

/* ---- for who stops ---- */
/*
 * Stops all tasks. With @discard they must not go on: every wait gives up. Returns 0, or -ETIMEDOUT
 * when some task didn't come to its safe point within @ms (all run again).
 */
int freezer_stop(struct kernel *k, bool discard, unsigned int ms) __must_check;
/* All go on. */
void freezer_thaw(void);
/* All host threads let go of their tasks; returns when they have. */
void freezer_discard(void);

#endif
