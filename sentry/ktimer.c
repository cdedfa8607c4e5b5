/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers of the sentry: one heap for all, one host thread that sleeps until the first is due.
 *
 *   idle (index -1) ──arm──▶ in the heap ──due──▶ running (off the heap) ──▶ idle, or armed again
 *
 * The heap is ordered by CLOCK_MONOTONIC. A CLOCK_REALTIME expiry is converted when it is armed and
 * again when it comes up, so it is never early; a step of the host's clock is noticed then. The
 * thread starts with the first timer. Callbacks run on it without locks and must not sleep for
 * long.
 */
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/hostfutex.h"
#include "sentry/lib/log.h"
#include "sentry/lib/world.h"
#include "sentry/objects.h"

#define NSEC 1000000000L

struct heap_entry {
	int64_t due; /* ns of CLOCK_MONOTONIC */
	struct ktimer *timer;
};

static struct mutex lock = {.m = PTHREAD_MUTEX_INITIALIZER,
#ifdef LOCK_DEBUG
			    .rank = LOCK_TIMER
#endif
};
static struct heap_entry *heap; /* in the arena; under lock, like all below */
static size_t heap_size, heap_used;
static struct ktimer *running;
static __host_state bool started;
static __host_state _Atomic uint32_t kick;    /* futex: the thread looks again when it changes */
static __host_state _Atomic uint32_t run_seq; /* futex: a callback has ended */

static int64_t to_ns(const struct timespec *ts)
{
	if (ts->tv_sec > INT64_MAX / NSEC - 1)
		return INT64_MAX;
	return ts->tv_sec * NSEC + ts->tv_nsec;
}

static int64_t now_ns(int clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return to_ns(&ts);
}

/* When @timer is due on CLOCK_MONOTONIC. */
static int64_t due_time(const struct ktimer *timer)
{
	int64_t at = to_ns(&timer->expires), left;

	if (timer->clock == CLOCK_MONOTONIC || at == INT64_MAX)
		return at;
	left = at - now_ns(timer->clock);
	return now_ns(CLOCK_MONOTONIC) + left;
}

/* ---- the heap; lock held ---- */

static void heap_place(size_t i, struct heap_entry e)
{
	heap[i] = e;
	e.timer->index = (int)i;
}

static void heap_up(size_t i)
{
	struct heap_entry e = heap[i];

	while (i && heap[(i - 1) / 2].due > e.due) {
		heap_place(i, heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_place(i, e);
}

static void heap_down(size_t i)
{
	struct heap_entry e = heap[i];

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= heap_used)
			break;
		if (child + 1 < heap_used && heap[child + 1].due < heap[child].due)
			child++;
		if (heap[child].due >= e.due)
			break;
		heap_place(i, heap[child]);
		i = child;
	}
	heap_place(i, e);
}

static void heap_remove(struct ktimer *timer)
{
	size_t i = (size_t)timer->index;

	timer->index = -1;
	heap_used--;
	if (i == heap_used)
		return;
	heap_place(i, heap[heap_used]);
	heap_down(i);
	heap_up((size_t)heap[i].timer->index);
}

static void heap_insert(struct ktimer *timer)
{
	if (heap_used == heap_size) {
		size_t size = heap_size ? heap_size * 2 : 64;
		struct heap_entry *bigger = krealloc(heap, size * sizeof(*heap));

		/* A timer that can't be armed would be a wait that never ends. */
		BUG_ON(!bigger);
		heap = bigger;
		heap_size = size;
	}
	heap_place(heap_used, (struct heap_entry){.due = due_time(timer), .timer = timer});
	heap_up(heap_used++);
}

/* ---- the thread ---- */

/* Runs what is due. Nanoseconds until the next, -1: none. Lock held, dropped around callbacks. */
static int64_t run_due(void)
{
	while (heap_used) {
		struct ktimer *timer = heap[0].timer;
		int64_t left = heap[0].due - now_ns(CLOCK_MONOTONIC);
		bool again;

		if (left > 0)
			return left;
		heap_remove(timer);
		if (due_time(timer) > now_ns(CLOCK_MONOTONIC)) {
			heap_insert(timer);
			continue;
		}
		running = timer;
		mutex_unlock(&lock);
		again = timer->fn(timer);
		mutex_lock(&lock);
		/* Cancelled or armed anew meanwhile: then that counts. */
		if (running == timer && again && timer->index < 0)
			heap_insert(timer);
		running = NULL;
		atomic_fetch_add(&run_seq, 1);
		host_futex_wake(&run_seq, HOST_FUTEX_ALL);
	}
	return -1;
}

static void *timer_thread(void *arg)
{
	for (;;) {
		struct timespec ts, *timeout = NULL;
		uint32_t seen;
		int64_t left;

		world_enter();
		mutex_lock(&lock);
		seen = atomic_load(&kick);
		left = run_due();
		mutex_unlock(&lock);
		world_leave();
		if (left >= 0) {
			ts.tv_sec = left / NSEC;
			ts.tv_nsec = left % NSEC;
			timeout = &ts;
		}
		host_futex_wait(&kick, seen, timeout);
	}
	return NULL;
}

static void start_thread(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 << 10);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = pthread_create(&thread, &attr, timer_thread, NULL);
	pthread_attr_destroy(&attr);
	BUG_ON(err);
	started = true;
}

/* ---- interface ---- */

void ktimer_init(struct ktimer *timer, int clock, bool (*fn)(struct ktimer *timer))
{
	memset(timer, 0, sizeof(*timer));
	timer->clock = clock;
	timer->index = -1;
	timer->fn = fn;
}

void ktimer_arm(struct ktimer *timer, const struct timespec *expires)
{
	bool first;

	mutex_lock(&lock);
	if (!started)
		start_thread();
	if (timer->index >= 0)
		heap_remove(timer);
	timer->expires = *expires;
	heap_insert(timer);
	first = timer->index == 0;
	mutex_unlock(&lock);
	if (first) {
		atomic_fetch_add(&kick, 1);
		host_futex_wake(&kick, HOST_FUTEX_ALL);
	}
}

void ktimer_resync(void)
{
	mutex_lock(&lock);
	if (heap_used && !started)
		start_thread();
	mutex_unlock(&lock);
	atomic_fetch_add(&kick, 1);
	host_futex_wake(&kick, HOST_FUTEX_ALL);
}

void ktimer_cancel(struct ktimer *timer)
{
	mutex_lock(&lock);
	for (;;) {
		uint32_t seen;

		if (timer->index >= 0)
			heap_remove(timer);
		if (running != timer)
			break;
		/* Running: wait for its end, after which it may be armed again. */
		seen = atomic_load(&run_seq);
		mutex_unlock(&lock);
		host_futex_wait(&run_seq, seen, NULL);
		mutex_lock(&lock);
	}
	mutex_unlock(&lock);
}
