/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who runs a request of kind stdio: the thread that receives it, the runner. None has to be woken
 * for it, or at its end. What else may be needed meanwhile (its time is over, the server cancels it
 * or is gone, output to pass on) the main thread sees to, the minder. It looks every MINDER_MS
 * while there are requests, and takes the loop over from a runner that is still in the program
 * then. At the program's end the runner comes for it again.
 *
 * Who has the lock is the loop. The runner doesn't have it while it is in the program.
 */
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "sentry/function_internal.h"
#include "sentry/lib/hostfutex.h"
#include "sentry/lib/world.h"
#include "sentry/task.h"

#define MINDER_MS    2 /* between two looks */
#define RUNNER_STACK (256UL << 10)

enum { ASLEEP, AWAKE, LEAVE };

static __host_state struct {
	pthread_mutex_t lock;
	struct task *next; /* to be run; under lock */
	bool started;
	_Atomic uint32_t runs;	 /* odd: the runner is in the program */
	_Atomic uint32_t minder; /* futex: ASLEEP, AWAKE; LEAVE: the loop has come to its end */
} runner = {.lock = PTHREAD_MUTEX_INITIALIZER};

bool runner_started(void)
{
	return runner.started;
}

struct task **runner_next(void)
{
	return &runner.next;
}

static void minder_wake(void)
{
	host_futex_wake(&runner.minder, 1);
}

static void minder_wait(uint32_t state, const struct timespec *most)
{
	host_futex_wait(&runner.minder, state, most);
}

void runner_run(void)
{
	struct task *t = runner.next;

	if (!t)
		return;
	runner.next = NULL;
	atomic_fetch_add(&runner.runs, 1);
	if (atomic_exchange(&runner.minder, AWAKE) == ASLEEP)
		minder_wake();
	pthread_mutex_unlock(&runner.lock);
	task_run_here(t);
	pthread_mutex_lock(&runner.lock);
	atomic_fetch_add(&runner.runs, 1);
}

static void *runner_main(void *unused)
{
	bool asleep = false;

	pthread_mutex_lock(&runner.lock);
	while (function_turn(&asleep))
		;
	atomic_store(&runner.minder, LEAVE);
	minder_wake();
	pthread_mutex_unlock(&runner.lock);
	return unused;
}

bool runner_start(void)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, RUNNER_STACK);
	runner.started = true;
	if (pthread_create(&thread, &attr, runner_main, NULL))
		runner.started = false;
	pthread_attr_destroy(&attr);
	return runner.started;
}

/* The loop for the request that the runner was in at @run. False: leave. */
static bool take_over(uint32_t run)
{
	bool asleep = false, go_on = true;

	pthread_mutex_lock(&runner.lock);
	while (go_on && atomic_load(&runner.runs) == run && function_serving())
		go_on = function_turn(&asleep);
	pthread_mutex_unlock(&runner.lock);
	return go_on;
}

void runner_mind(void)
{
	static const struct timespec pause = {.tv_nsec = MINDER_MS * 1000000L};
	uint32_t seen = 0, now, state;

	while ((state = atomic_load(&runner.minder)) != LEAVE) {
		now = atomic_load(&runner.runs);
		if (now != seen) {
			seen = now;
			minder_wait(state, &pause);
		} else if (now & 1) {
			if (!take_over(now))
				return;
			seen = 0;
		} else if (state == AWAKE) {
			/* None since the last look. Whoever begins one after this wakes us. */
			atomic_compare_exchange_strong(&runner.minder, &state, ASLEEP);
		} else {
			minder_wait(ASLEEP, NULL);
		}
	}
}
