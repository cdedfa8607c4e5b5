/* SPDX-License-Identifier: Apache-2.0 */
/* Locks; with -DLOCK_DEBUG each thread remembers the ranks it holds and the order is asserted. */
#include "sentry/lib/lock.h"

#include "sentry/lib/log.h"

void mutex_init(struct mutex *m, enum lock_rank rank)
{
	pthread_mutex_init(&m->m, NULL);
#ifdef LOCK_DEBUG
	m->rank = rank;
#endif
}

void mutex_fini(struct mutex *m)
{
	pthread_mutex_destroy(&m->m);
}

void rwlock_init(struct rwlock *l, enum lock_rank rank)
{
	pthread_rwlock_init(&l->rw, NULL);
#ifdef LOCK_DEBUG
	l->rank = rank;
#endif
}

void rwlock_fini(struct rwlock *l)
{
	pthread_rwlock_destroy(&l->rw);
}

#ifdef LOCK_DEBUG
static _Thread_local uint8_t held[LOCK_LOG + 1];

void lock_debug_acquire(enum lock_rank rank, bool nested)
{
	for (unsigned int r = rank + (nested ? 1u : 0u); r <= LOCK_LOG; r++) {
		if (held[r])
			log_error("lock order: taking rank %u while holding rank %u", rank, r);
		BUG_ON(held[r]);
	}
	held[rank]++;
}

void lock_debug_release(enum lock_rank rank)
{
	BUG_ON(!held[rank]);
	held[rank]--;
}
#endif
