/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks with an order. Each lock has a rank; a thread takes locks in rising rank only (equal ranks
 * only where lock_nested says so). Debug builds (-DLOCK_DEBUG, on in SAN=1) assert it.
 *
 * Outermost first. No lock is held across guest entry or a blocking host call.
 */
#ifndef SENTRY_LIB_LOCK_H
#define SENTRY_LIB_LOCK_H

#include <pthread.h>

#include "sentry/lib/types.h"

enum lock_rank {
	LOCK_EXEC,	/* thread group: execve/exit/clone exclusion */
	LOCK_EPOLL,	/* epoll sets; nests with itself down a chain of epoll files */
	LOCK_FILE_POS,	/* file position, like Linux's f_pos_lock; /proc looks at all below */
	LOCK_MNT,	/* mount tree, like Linux's namespace_sem */
	LOCK_RENAME,	/* one rename of directories at a time per super */
	LOCK_INODE,	/* directory contents or file contents of an inode; parents first */
	LOCK_STREAM,	/* pipe, socket or tty buffers: user copies happen under it */
	LOCK_DCACHE,	/* dentry hash and names */
	LOCK_MM,	/* vmas of one mm; user copies may take it to fault a page in */
	LOCK_MAPPING,	/* file pages and the list of mappings of an inode */
	LOCK_PT,	/* page-table entries of one mm; user copies hold it shared */
	LOCK_TASKLIST,	/* process tree, groups, sessions, PID namespaces */
	LOCK_SIGHAND,	/* handlers and pending signals of a thread group */
	LOCK_FS,	/* root, cwd, umask */
	LOCK_FDTABLE,	/* file descriptors */
	LOCK_OBJECT,	/* a leaf object that copies nothing under it: eventfd, timer, … */
	LOCK_FUTEX,	/* futex buckets */
	LOCK_WAITQ,	/* wait queues; callbacks run under it and may take only lower rows */
	LOCK_TASK_WAKE, /* a task's own wake state */
	LOCK_TIMER,	/* the timer heap */
	LOCK_PLATFORM,	/* contexts, vCPU pool, stubs */
	LOCK_PHYSMEM,	/* frame allocator; host calls under it only when over the memory limit */
	LOCK_ARENA,	/* allocator size classes */
	LOCK_LOG,
};

struct mutex {
	pthread_mutex_t m;
#ifdef LOCK_DEBUG
	enum lock_rank rank;
#endif
};

struct rwlock {
	pthread_rwlock_t rw;
#ifdef LOCK_DEBUG
	enum lock_rank rank;
#endif
};

void mutex_init(struct mutex *m, enum lock_rank rank);
void mutex_fini(struct mutex *m);
void rwlock_init(struct rwlock *l, enum lock_rank rank);
void rwlock_fini(struct rwlock *l);

#ifdef LOCK_DEBUG
void lock_debug_acquire(enum lock_rank rank, bool nested);
void lock_debug_release(enum lock_rank rank);
#else
#define lock_debug_acquire(rank, nested) ((void)0)
#define lock_debug_release(rank)	 ((void)0)
#endif

static inline void mutex_lock(struct mutex *m)
{
	lock_debug_acquire(m->rank, false);
	pthread_mutex_lock(&m->m);
}

/* A second lock of the same rank; the caller's comment says what orders the two. */
static inline void mutex_lock_nested(struct mutex *m)
{
	lock_debug_acquire(m->rank, true);
	pthread_mutex_lock(&m->m);
}

static inline bool mutex_trylock(struct mutex *m)
{
	if (pthread_mutex_trylock(&m->m))
		return false;
	lock_debug_acquire(m->rank, true);
	return true;
}

static inline void mutex_unlock(struct mutex *m)
{
	lock_debug_release(m->rank);
	pthread_mutex_unlock(&m->m);
}

static inline void read_lock(struct rwlock *l)
{
	lock_debug_acquire(l->rank, false);
	pthread_rwlock_rdlock(&l->rw);
}

static inline void read_unlock(struct rwlock *l)
{
	lock_debug_release(l->rank);
	pthread_rwlock_unlock(&l->rw);
}

static inline void write_lock(struct rwlock *l)
{
	lock_debug_acquire(l->rank, false);
	pthread_rwlock_wrlock(&l->rw);
}

static inline void write_lock_nested(struct rwlock *l)
{
	lock_debug_acquire(l->rank, true);
	pthread_rwlock_wrlock(&l->rw);
}

static inline void write_unlock(struct rwlock *l)
{
	lock_debug_release(l->rank);
	pthread_rwlock_unlock(&l->rw);
}

#endif
