/* SPDX-License-Identifier: Apache-2.0 */
/* The host's clock as a number. */
#ifndef SENTRY_LIB_CLOCK_H
#define SENTRY_LIB_CLOCK_H

#include <time.h>

#include "sentry/lib/types.h"

/* CLOCK_MONOTONIC in nanoseconds. */
static inline uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

#endif
