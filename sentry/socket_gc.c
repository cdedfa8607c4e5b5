/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets in flight. A socket that only queued messages refer to, in queues that nobody can read
 * any more, would stay for ever. Like Linux's unix_gc of old: candidates are sockets all of whose
 * file's references are in flight; references from candidates' own queues are taken away on trial;
 * what still has some, and all that can be reached from there, is alive. The files in the queues of
 * the rest are dropped, which closes them.
 *
 * A file being received is off the queue before its count falls (under gc_lock), so it can only
 * look more alive than it is.
 */
#include "sentry/lib/list.h"
#include "sentry/socket_unix.h"

static struct mutex gc_lock = {.m = PTHREAD_MUTEX_INITIALIZER,
#ifdef LOCK_DEBUG
			       .rank = LOCK_STREAM
#endif
};
static struct list_head inflight_socks = LIST_HEAD_INIT(inflight_socks); /* under gc_lock */
static _Atomic int nr_inflight;
static _Atomic bool gc_running;

static struct unix_sock *unix_of_file(const struct file *file)
{
	struct sock *sk = sock_of(file);

	return sk && sk->family == AF_UNIX ? unix_of(sk) : NULL;
}

void unix_inflight_add(struct file *file)
{
	struct unix_sock *u = unix_of_file(file);

	if (!u)
		return;
	mutex_lock(&gc_lock);
	if (!u->inflight++)
		list_add_tail(&u->inflight_node, &inflight_socks);
	atomic_fetch_add(&nr_inflight, 1);
	mutex_unlock(&gc_lock);
}

void unix_inflight_sub(struct file *file)
{
	struct unix_sock *u = unix_of_file(file);

	if (!u)
		return;
	mutex_lock(&gc_lock);
	if (!--u->inflight)
		list_del(&u->inflight_node);
	atomic_fetch_sub(&nr_inflight, 1);
	mutex_unlock(&gc_lock);
}

/* ---- going through queues; gc_lock held ---- */

typedef void visit_fn(struct unix_sock *child);

static void visit_queue(struct unix_sock *u, visit_fn *visit)
{
	struct unix_buf *b;

	list_for_each_entry (b, &u->queue, node) {
		for (unsigned int i = 0; b->scm.fds && i < b->scm.fds->n; i++) {
			struct unix_sock *child = unix_of_file(b->scm.fds->files[i]);

			if (child && child->candidate)
				visit(child);
		}
	}
}

/* The sockets in @u's queue, and in those of the connections that wait to be accepted from it. */
static void visit_children(struct unix_sock *u, visit_fn *visit)
{
	struct unix_sock *c;

	mutex_lock_nested(&u->sk.lock);
	visit_queue(u, visit);
	list_for_each_entry (c, &u->pending, pending_node) {
		mutex_lock_nested(&c->sk.lock);
		visit_queue(c, visit);
		mutex_unlock(&c->sk.lock);
	}
	mutex_unlock(&u->sk.lock);
}

static void trial_delete(struct unix_sock *child)
{
	child->trial--;
}

static bool found_live;

static void mark_live(struct unix_sock *child)
{
	if (!child->live) {
		child->live = true;
		found_live = true;
	}
}

/* Moves the messages with files out of @u's queue. */
static void steal_files(struct unix_sock *u, struct list_head *stolen)
{
	struct unix_buf *b, *tmp;

	list_for_each_entry_safe (b, tmp, &u->queue, node) {
		if (!b->scm.fds)
			continue;
		list_del(&b->node);
		u->rx_msgs--;
		u->rx_bytes -= b->len - b->off;
		list_add_tail(&b->node, stolen);
	}
}

static void steal_all(struct unix_sock *u, struct list_head *stolen)
{
	struct unix_sock *c;

	mutex_lock_nested(&u->sk.lock);
	steal_files(u, stolen);
	list_for_each_entry (c, &u->pending, pending_node) {
		mutex_lock_nested(&c->sk.lock);
		steal_files(c, stolen);
		mutex_unlock(&c->sk.lock);
	}
	mutex_unlock(&u->sk.lock);
}

static void collect_locked(struct list_head *stolen)
{
	struct unix_sock *u;

	list_for_each_entry (u, &inflight_socks, inflight_node) {
		u->trial = u->inflight;
		u->candidate = u->sk.file && refcount_read(&u->sk.file->refs) == u->inflight;
		u->live = false;
	}
	list_for_each_entry (u, &inflight_socks, inflight_node)
		if (u->candidate)
			visit_children(u, trial_delete);
	list_for_each_entry (u, &inflight_socks, inflight_node)
		u->live = !u->candidate || u->trial > 0;
	do {
		found_live = false;
		list_for_each_entry (u, &inflight_socks, inflight_node)
			if (u->live)
				visit_children(u, mark_live);
	} while (found_live);
	list_for_each_entry (u, &inflight_socks, inflight_node)
		if (!u->live)
			steal_all(u, stolen);
}

void unix_gc(void)
{
	struct list_head stolen = LIST_HEAD_INIT(stolen);

	if (!atomic_load(&nr_inflight) || atomic_exchange(&gc_running, true))
		return;
	mutex_lock(&gc_lock);
	collect_locked(&stolen);
	mutex_unlock(&gc_lock);
	while (!list_empty(&stolen)) {
		struct unix_buf *b = list_first_entry(&stolen, struct unix_buf, node);

		list_del(&b->node);
		unix_buf_free(b);
	}
	atomic_store(&gc_running, false);
}
