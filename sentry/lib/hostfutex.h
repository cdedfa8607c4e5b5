/* SPDX-License-Identifier: Apache-2.0 */
/* The host's futexes, of words that only this process uses. */
#ifndef SENTRY_LIB_HOSTFUTEX_H
#define SENTRY_LIB_HOSTFUTEX_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/types.h"

#define HOST_FUTEX_ALL INT_MAX

/*
 * Sleeps while @word is @value, for @most at most (NULL: for ever). 0 when woken, perhaps for no
 * reason; -EAGAIN, -EINTR or -ETIMEDOUT.
 */
static inline int host_futex_wait(_Atomic uint32_t *word, uint32_t value,
				  const struct timespec *most)
{
	return syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, most, NULL, 0) ? -errno : 0;
}

/* The same until @deadline on CLOCK_MONOTONIC, or on CLOCK_REALTIME. */
static inline int host_futex_wait_until(_Atomic uint32_t *word, uint32_t value, int clock,
					const struct timespec *deadline)
{
	int op = FUTEX_WAIT_BITSET_PRIVATE | (clock == CLOCK_REALTIME ? FUTEX_CLOCK_REALTIME : 0);

	return syscall(SYS_futex, word, op, value, deadline, NULL, FUTEX_BITSET_MATCH_ANY) ? -errno
											   : 0;
}

/* Wakes @n sleepers at most. Returns how many. */
static inline int host_futex_wake(_Atomic uint32_t *word, int n)
{
	return (int)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

#endif
