/* SPDX-License-Identifier: Apache-2.0 */
#include "sentry/lib/waitq.h"

void waitq_init(struct waitq *wq)
{
	mutex_init(&wq->lock, LOCK_WAITQ);
	list_init(&wq->waiters);
}

void waitq_fini(struct waitq *wq)
{
	mutex_fini(&wq->lock);
}

void waitq_add(struct waitq *wq, struct waiter *w)
{
	mutex_lock(&wq->lock);
	w->wq = wq;
	/* Exclusive waiters come last, so that all others hear of an event first. */
	if (w->exclusive)
		list_add_tail(&w->node, &wq->waiters);
	else
		list_add(&w->node, &wq->waiters);
	mutex_unlock(&wq->lock);
}

void waitq_remove(struct waiter *w)
{
	struct waitq *wq = w->wq;

	if (!wq)
		return;
	mutex_lock(&wq->lock);
	list_del(&w->node);
	w->wq = NULL;
	mutex_unlock(&wq->lock);
}

static void wake_locked(struct waitq *wq, uint32_t events)
{
	struct waiter *w, *tmp;

	list_for_each_entry_safe (w, tmp, &wq->waiters, node) {
		if (!(events & (w->mask | EPOLLERR | EPOLLHUP)))
			continue;
		if (w->fn(w, events) && w->exclusive)
			break;
	}
}

void waitq_wake(struct waitq *wq, uint32_t events)
{
	mutex_lock(&wq->lock);
	wake_locked(wq, events);
	mutex_unlock(&wq->lock);
}

void waitq_wake_nested(struct waitq *wq, uint32_t events)
{
	mutex_lock_nested(&wq->lock);
	wake_locked(wq, events);
	mutex_unlock(&wq->lock);
}

bool waitq_active(struct waitq *wq)
{
	bool active;

	mutex_lock(&wq->lock);
	active = !list_empty(&wq->waiters);
	mutex_unlock(&wq->lock);
	return active;
}
