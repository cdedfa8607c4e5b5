/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic on times, saturating far in the future. */
#ifndef SENTRY_TIMESPEC_H
#define SENTRY_TIMESPEC_H

#include <time.h>

#include "sentry/lib/types.h"

#define TS_MAX_SEC (INT64_MAX / 1000000000 - 1)

static inline bool ts_is_zero(const struct timespec *ts)
{
	return !ts->tv_sec && !ts->tv_nsec;
}

static inline bool ts_before(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec < b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec < b->tv_nsec);
}

static inline struct timespec ts_add(const struct timespec *a, const struct timespec *b)
{
	struct timespec sum;

	sum.tv_nsec = a->tv_nsec + b->tv_nsec;
	if (__builtin_add_overflow(a->tv_sec, b->tv_sec, &sum.tv_sec) || sum.tv_sec > TS_MAX_SEC)
		sum.tv_sec = TS_MAX_SEC;
	if (sum.tv_nsec >= 1000000000) {
		sum.tv_nsec -= 1000000000;
		sum.tv_sec++;
	}
	return sum;
}

/* From @now until @until; at least 1 ns, as a timer that is armed never reports 0. */
static inline struct timespec ts_left(const struct timespec *until, const struct timespec *now)
{
	struct timespec left = {.tv_nsec = 1};

	if (!ts_before(now, until))
		return left;
	left.tv_sec = until->tv_sec - now->tv_sec;
	left.tv_nsec = until->tv_nsec - now->tv_nsec;
	if (left.tv_nsec < 0) {
		left.tv_nsec += 1000000000;
		left.tv_sec--;
	}
	return left;
}

static inline int64_t ts_ns(const struct timespec *ts)
{
	return ts->tv_sec > TS_MAX_SEC ? INT64_MAX : ts->tv_sec * 1000000000 + ts->tv_nsec;
}

static inline struct timespec ts_from_ns(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

/* Moves @next on by whole intervals until it is after @now. How many (0: it was already). */
static inline uint64_t ts_forward(struct timespec *next, const struct timespec *interval,
				  const struct timespec *now)
{
	int64_t step = ts_ns(interval), behind = ts_ns(now) - ts_ns(next);
	struct timespec d;
	uint64_t n;

	if (behind < 0 || step <= 0)
		return 0;
	n = (uint64_t)(behind / step) + 1;
	d = ts_from_ns((int64_t)n * step);
	*next = ts_add(next, &d);
	return n;
}

#endif
