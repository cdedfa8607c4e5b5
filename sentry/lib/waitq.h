/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wait queues: who wants to hear that an object became ready. The events are poll's (EPOLLIN …).
 *
 * An operation that would block returns -EAGAIN; the system-call layer adds a waiter, tries again
 * and sleeps until the callback has fired (sentry/task_block.c). Poll and epoll use the same queue.
 */
#ifndef SENTRY_LIB_WAITQ_H
#define SENTRY_LIB_WAITQ_H

#include <sys/epoll.h>

#include "sentry/lib/list.h"
#include "sentry/lib/lock.h"

struct waitq {
	struct mutex lock;
	struct list_head waiters; /* struct waiter.node, under lock */
};

struct waiter {
	struct list_head node; /* under the queue's lock */
	struct waitq *wq;      /* the queue it is on, or NULL; owned by who adds and removes it */
	uint32_t mask;	       /* events wanted; EPOLLERR and EPOLLHUP are always delivered */
	bool exclusive;	       /* wake at most one of these (EPOLLEXCLUSIVE, accept) */
	/*
	 * Called with the queue locked, from any thread; must not block nor touch this queue.
	 * Returns true if it woke somebody (counts against an exclusive wake-up).
	 */
	bool (*fn)(struct waiter *w, uint32_t events);
};

void waitq_init(struct waitq *wq);
void waitq_fini(struct waitq *wq);
void waitq_add(struct waitq *wq, struct waiter *w);
/* After return the callback is not running and will not be called. Not on a queue: nothing. */
void waitq_remove(struct waiter *w);
/* Calls the callbacks that want any of @events. */
void waitq_wake(struct waitq *wq, uint32_t events);
/*
 * The same from a callback of another queue (epoll sets that are watched themselves; no circles).
 */
void waitq_wake_nested(struct waitq *wq, uint32_t events);
bool waitq_active(struct waitq *wq);

#endif
