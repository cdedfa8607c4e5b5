/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Epoll sets.
 *
 * An item watches one (file, fd) pair: its waiter sits on the file's queue, and its callback puts
 * the item on the set's ready list. Whoever waits takes the ready list, asks each file what it is
 * ready for, reports that, and puts level-triggered items back. A set is itself a file that can be
 * watched.
 *
 *   idle ──callback, ADD, MOD──▶ ready ──taken by a waiter, polled──▶ idle (ET), ready (LT),
 *                                                                     disabled (ONESHOT, until MOD)
 *
 * Locks: tree_lock (adding a set to a set; loop check) → ep->lock (items; nests down the chain of
 * sets) → watch_lock (every file's list of items) and the watched object's own locks; ready_lock
 * (LOCK_TASK_WAKE) is taken by callbacks under the watched queue's lock.
 *
 * An item holds its set but not the file. A file that is being released finds its items in
 * file->epoll_watches and marks them `dying` under watch_lock; from then on only the releaser frees
 * them. The releaser needs ep->lock, so a file is there as long as ep->lock is held and its item is
 * in the set.
 */
#include "sentry/epoll.h"

#include <stdio.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/radix.h"
#include "sentry/objects.h"
#include "sentry/syscalls.h"

#define EP_PRIVATE  (EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE)
#define EP_MAX_NEST 5
#define EP_EXCLUSIVE_OK                                                                            \
	(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE)

struct epoll {
	struct refcount refs;	 /* the file, and each item */
	struct mutex lock;	 /* LOCK_EPOLL */
	struct radix items;	 /* fd → first of its items; under lock */
	struct mutex ready_lock; /* LOCK_TASK_WAKE */
	struct list_head ready;	 /* items by ready_node; under ready_lock */
	struct waitq wq;	 /* who waits for events, and who watches the set */
	struct file *file;	 /* NULL once released; under watch_lock */
};

struct epoll_item {
	struct epoll *ep; /* reference */
	struct file *file;
	int fd;
	struct epoll_item *next;     /* another file under the same number; under ep->lock */
	struct list_head file_node;  /* in file->epoll_watches; under watch_lock */
	struct list_head ready_node; /* in ep->ready or a waiter's list; under ready_lock */
	bool is_ready;		     /* on one of those; under ready_lock */
	bool dying;		     /* the file's releaser frees it; under watch_lock */
	_Atomic uint32_t events;
	uint64_t data; /* under ep->lock */
	struct waiter w;
};

OBJTYPE(epoll_type, "epoll")
OBJTYPE(epoll_item_type, "epoll_item")

static struct mutex tree_lock = {.m = PTHREAD_MUTEX_INITIALIZER,
#ifdef LOCK_DEBUG
				 .rank = LOCK_EPOLL
#endif
};
static struct mutex watch_lock = {.m = PTHREAD_MUTEX_INITIALIZER,
#ifdef LOCK_DEBUG
				  .rank = LOCK_OBJECT
#endif
};

static const struct file_ops epoll_ops;

static void epoll_put(struct epoll *ep)
{
	if (!refcount_put(&ep->refs))
		return;
	radix_fini(&ep->items);
	waitq_fini(&ep->wq);
	mutex_fini(&ep->ready_lock);
	mutex_fini(&ep->lock);
	objtype_dec(&epoll_type);
	kfree(ep);
}

bool file_is_epoll(const struct file *file)
{
	return file->ops == &epoll_ops;
}

/* ---- the ready list ---- */

/* Puts @item on the ready list unless it is on one. */
static void item_make_ready(struct epoll_item *item)
{
	struct epoll *ep = item->ep;

	mutex_lock(&ep->ready_lock);
	if (!item->is_ready) {
		item->is_ready = true;
		list_add_tail(&item->ready_node, &ep->ready);
	}
	mutex_unlock(&ep->ready_lock);
}

static void item_unready(struct epoll_item *item)
{
	struct epoll *ep = item->ep;

	mutex_lock(&ep->ready_lock);
	list_del(&item->ready_node);
	item->is_ready = false;
	mutex_unlock(&ep->ready_lock);
}

static bool epoll_has_ready(struct epoll *ep)
{
	bool any;

	mutex_lock(&ep->ready_lock);
	any = !list_empty(&ep->ready);
	mutex_unlock(&ep->ready_lock);
	return any;
}

/* The watched queue's callback, under that queue's lock. */
static bool item_woken(struct waiter *w, uint32_t events)
{
	struct epoll_item *item = container_of(w, struct epoll_item, w);
	uint32_t want = atomic_load(&item->events);

	if (!(want & ~EP_PRIVATE) || (events && !(events & (want | EPOLLERR | EPOLLHUP))))
		return false;
	item_make_ready(item);
	waitq_wake_nested(&item->ep->wq, EPOLLIN | EPOLLRDNORM);
	return true;
}

/* What the item's file is ready for and asked for. ep->lock held. */
static uint32_t item_poll(const struct vfs_ctx *ctx, struct epoll_item *item)
{
	uint32_t want = atomic_load(&item->events);

	if (!(want & ~EP_PRIVATE))
		return 0;
	return file_poll_ctx(ctx, item->file) & (want | EPOLLERR | EPOLLHUP);
}

/* ---- items; ep->lock held ---- */

static struct epoll_item *item_find(struct epoll *ep, const struct file *file, int fd)
{
	struct epoll_item *item = (void *)(uintptr_t)radix_get(&ep->items, (uint64_t)fd);

	while (item && item->file != file)
		item = item->next;
	return item;
}

static int item_insert(struct epoll *ep, struct epoll_item *item)
{
	item->next = (void *)(uintptr_t)radix_get(&ep->items, (uint64_t)item->fd);
	return radix_set(&ep->items, (uint64_t)item->fd, (uint64_t)(uintptr_t)item);
}

static void item_detach(struct epoll_item *item)
{
	struct epoll *ep = item->ep;
	struct epoll_item *i = (void *)(uintptr_t)radix_get(&ep->items, (uint64_t)item->fd);

	if (i == item) {
		(void)!radix_set(&ep->items, (uint64_t)item->fd, (uint64_t)(uintptr_t)item->next);
	} else {
		while (i && i->next != item)
			i = i->next;
		if (i)
			i->next = item->next;
	}
	item_unready(item);
}

/* Frees @item, whose waiter is off its queue, and drops its reference on the set. */
static void item_free(struct epoll_item *item)
{
	struct epoll *ep = item->ep;

	objtype_dec(&epoll_item_type);
	kfree(item);
	epoll_put(ep);
}

/* Removes @item, or leaves that to the releaser of its file. The set has another reference. */
static void item_remove(struct epoll_item *item)
{
	bool ours;

	/* While the item is on the file's list, the file and its queue stay. */
	waitq_remove(&item->w);
	mutex_lock(&watch_lock);
	ours = !item->dying;
	if (ours)
		list_del(&item->file_node);
	mutex_unlock(&watch_lock);
	if (!ours)
		return;
	item_detach(item);
	item_free(item);
}

void epoll_file_released(struct file *file)
{
	for (;;) {
		struct epoll_item *item = NULL;
		struct epoll *ep;

		mutex_lock(&watch_lock);
		if (!list_empty(&file->epoll_watches)) {
			item = list_first_entry(&file->epoll_watches, struct epoll_item, file_node);
			item->dying = true;
		}
		mutex_unlock(&watch_lock);
		if (!item)
			return;
		ep = item->ep;
		mutex_lock(&ep->lock);
		waitq_remove(&item->w);
		mutex_lock(&watch_lock);
		list_del(&item->file_node);
		mutex_unlock(&watch_lock);
		item_detach(item);
		mutex_unlock(&ep->lock);
		item_free(item);
	}
}

/* ---- sets in sets ---- */

/* Levels of sets above @file. watch_lock held. */
static int depth_above_locked(struct file *file, int limit)
{
	struct epoll_item *item;
	int deepest = 0;

	if (limit <= 0)
		return 1;
	list_for_each_entry (item, &file->epoll_watches, file_node) {
		if (item->ep->file) {
			int d = 1 + depth_above_locked(item->ep->file, limit - 1);

			deepest = MAX(deepest, d);
		}
	}
	return deepest;
}

/*
 * Levels of sets from @file down, itself included; -ELOOP when @top is among them. tree_lock held.
 */
static int depth_below(struct file *file, struct epoll *top, int limit)
{
	struct epoll *ep = file->private;
	uint64_t fd = 0, value;
	int deepest = 1;

	if (ep == top || limit <= 0)
		return -ELOOP;
	mutex_lock_nested(&ep->lock);
	for (; radix_next(&ep->items, &fd, &value); fd++) {
		struct epoll_item *item = (void *)(uintptr_t)value;

		for (; item; item = item->next) {
			int d;

			if (!file_is_epoll(item->file))
				continue;
			d = depth_below(item->file, top, limit - 1);
			if (d < 0) {
				mutex_unlock(&ep->lock);
				return d;
			}
			deepest = MAX(deepest, d + 1);
		}
	}
	mutex_unlock(&ep->lock);
	return deepest;
}

static int nesting_allowed(struct epoll *ep, struct file *target)
{
	int below = depth_below(target, ep, EP_MAX_NEST), above;

	if (below < 0)
		return below;
	mutex_lock(&watch_lock);
	above = ep->file ? depth_above_locked(ep->file, EP_MAX_NEST) : 0;
	mutex_unlock(&watch_lock);
	return below + above + 1 > EP_MAX_NEST ? -ELOOP : 0;
}

/* ---- epoll_ctl ---- */

static int epoll_add(const struct vfs_ctx *ctx, struct epoll *ep, struct file *file, int fd,
		     const struct epoll_event *event)
{
	struct waitq *wq = file_pollq(file);
	struct epoll_item *item;
	int err;

	if (item_find(ep, file, fd))
		return -EEXIST;
	item = kzalloc(sizeof(*item));
	if (!item)
		return -ENOMEM;
	item->file = file;
	item->fd = fd;
	item->ep = ep;
	item->data = event->data.u64;
	atomic_store(&item->events, event->events);
	list_init(&item->file_node);
	list_init(&item->ready_node);
	list_init(&item->w.node);
	item->w.mask = ~0u;
	item->w.exclusive = event->events & EPOLLEXCLUSIVE;
	item->w.fn = item_woken;
	err = item_insert(ep, item);
	if (err) {
		kfree(item);
		return err;
	}
	refcount_get(&ep->refs);
	objtype_inc(&epoll_item_type);
	mutex_lock(&watch_lock);
	list_add_tail(&item->file_node, &file->epoll_watches);
	mutex_unlock(&watch_lock);
	if (wq)
		waitq_add(wq, &item->w);
	if (item_poll(ctx, item)) {
		item_make_ready(item);
		waitq_wake(&ep->wq, EPOLLIN | EPOLLRDNORM);
	}
	return 0;
}

static int epoll_modify(const struct vfs_ctx *ctx, struct epoll_item *item,
			const struct epoll_event *event)
{
	if ((atomic_load(&item->events) | event->events) & EPOLLEXCLUSIVE)
		return -EINVAL;
	item->data = event->data.u64;
	atomic_store(&item->events, event->events);
	if (item_poll(ctx, item)) {
		item_make_ready(item);
		waitq_wake(&item->ep->wq, EPOLLIN | EPOLLRDNORM);
	}
	return 0;
}

static int control_locked(struct task *t, struct epoll *ep, int op, struct file *file, int fd,
			  struct epoll_event *ev)
{
	struct epoll_item *item = item_find(ep, file, fd);

	ev->events |= EPOLLERR | EPOLLHUP;
	switch (op) {
	case EPOLL_CTL_ADD:
		return epoll_add(&t->vfs, ep, file, fd, ev);
	case EPOLL_CTL_MOD:
		return item ? epoll_modify(&t->vfs, item, ev) : -ENOENT;
	case EPOLL_CTL_DEL:
		if (!item)
			return -ENOENT;
		item_remove(item);
		return 0;
	default:
		return -EINVAL;
	}
}

/* Can readiness of @file be waited for at all? */
static bool file_can_poll(const struct file *file)
{
	mode_t mode = file->inode->mode;

	return (file->ops->poll || file->ops->poll_ctx) && !S_ISREG(mode) && !S_ISDIR(mode);
}

int epoll_control(struct task *t, struct file *epfile, int op, int fd,
		  const struct epoll_event *event)
{
	struct epoll_event ev = event ? *event : (struct epoll_event){0};
	struct epoll *ep = epfile->private;
	struct file *file = fd_get(t->files, fd);
	bool nested;
	int err;

	if (!file)
		return -EBADF;
	err = -EPERM;
	if (!file_can_poll(file))
		goto out_put;
	err = -EINVAL;
	if (file == epfile || !file_is_epoll(epfile))
		goto out_put;
	if (op != EPOLL_CTL_DEL && (ev.events & EPOLLEXCLUSIVE)) {
		if (op == EPOLL_CTL_MOD || file_is_epoll(file) || (ev.events & ~EP_EXCLUSIVE_OK))
			goto out_put;
	}
	ev.events &= ~(uint32_t)EPOLLWAKEUP;
	nested = op == EPOLL_CTL_ADD && file_is_epoll(file);
	if (nested) {
		mutex_lock(&tree_lock);
		err = nesting_allowed(ep, file);
		if (err)
			goto out_tree;
	}
	mutex_lock_nested(&ep->lock);
	err = control_locked(t, ep, op, file, fd, &ev);
	mutex_unlock(&ep->lock);
out_tree:
	if (nested)
		mutex_unlock(&tree_lock);
out_put:
	file_put(file);
	return err;
}

/* ---- epoll_wait ---- */

/* What is on the ready list goes to @batch, which the caller works through under ep->lock. */
static void ready_take(struct epoll *ep, struct list_head *batch)
{
	mutex_lock(&ep->ready_lock);
	list_splice_tail(&ep->ready, batch);
	mutex_unlock(&ep->ready_lock);
}

/* Puts what is left of @batch back in front. True if anything is ready now. */
static bool ready_give_back(struct epoll *ep, struct list_head *batch)
{
	bool any;

	mutex_lock(&ep->ready_lock);
	list_splice_tail(&ep->ready, batch);
	list_splice_tail(batch, &ep->ready);
	any = !list_empty(&ep->ready);
	mutex_unlock(&ep->ready_lock);
	return any;
}

static struct epoll_item *batch_pop(struct epoll *ep, struct list_head *batch)
{
	struct epoll_item *item = NULL;

	mutex_lock(&ep->ready_lock);
	if (!list_empty(batch)) {
		item = list_first_entry(batch, struct epoll_item, ready_node);
		list_del(&item->ready_node);
		item->is_ready = false;
	}
	mutex_unlock(&ep->ready_lock);
	return item;
}

/* Reports up to @max events. A count, or -EFAULT. */
static int epoll_harvest(struct task *t, struct epoll *ep, uaddr_t events, int max)
{
	struct list_head batch = LIST_HEAD_INIT(batch);
	struct epoll_item *item;
	bool more;
	int n = 0;

	if (!epoll_has_ready(ep))
		return 0;
	mutex_lock(&ep->lock);
	ready_take(ep, &batch);
	while (n < max && (item = batch_pop(ep, &batch))) {
		struct epoll_event ev = {.events = item_poll(&t->vfs, item),
					 .data.u64 = item->data};
		uint32_t want = atomic_load(&item->events);

		if (!ev.events)
			continue;
		if (copy_out(t, events + (uint64_t)n * sizeof(ev), &ev, sizeof(ev))) {
			item_make_ready(item);
			n = n ? n : -EFAULT;
			break;
		}
		n++;
		if (want & EPOLLONESHOT)
			atomic_fetch_and(&item->events, EP_PRIVATE);
		else if (!(want & EPOLLET))
			item_make_ready(item);
	}
	more = ready_give_back(ep, &batch);
	mutex_unlock(&ep->lock);
	if (more)
		waitq_wake(&ep->wq, EPOLLIN | EPOLLRDNORM);
	return n;
}

int epoll_wait_events(struct task *t, struct file *epfile, uaddr_t events, int max,
		      const struct timespec *deadline, bool poll)
{
	struct epoll *ep = epfile->private;
	struct task_waiter tw;
	int err = 0;

	task_waiter_init(&tw, t, EPOLLIN);
	tw.w.exclusive = true;
	for (;;) {
		int n = epoll_harvest(t, ep, events, max);

		if (n || poll || err == -ETIMEDOUT)
			return n;
		if (err)
			return -EINTR;
		task_block_prepare(t);
		waitq_add(&ep->wq, &tw.w);
		if (!epoll_has_ready(ep))
			err = task_block(t, CLOCK_MONOTONIC, deadline);
		else if (task_interrupted(t))
			err = -EINTR;
		waitq_remove(&tw.w);
	}
}

/* ---- the set as a file ---- */

static uint32_t epoll_poll(const struct vfs_ctx *ctx, struct file *file)
{
	struct list_head batch = LIST_HEAD_INIT(batch);
	struct epoll *ep = file->private;
	struct epoll_item *item;
	uint32_t ev = 0;

	if (!epoll_has_ready(ep))
		return 0;
	mutex_lock_nested(&ep->lock);
	ready_take(ep, &batch);
	while (!ev && (item = batch_pop(ep, &batch))) {
		if (item_poll(ctx, item)) {
			item_make_ready(item);
			ev = EPOLLIN | EPOLLRDNORM;
		}
	}
	ready_give_back(ep, &batch);
	mutex_unlock(&ep->lock);
	return ev;
}

static uint32_t epoll_poll_plain(struct file *file)
{
	return epoll_poll(NULL, file);
}

static struct waitq *epoll_pollq(struct file *file)
{
	return &((struct epoll *)file->private)->wq;
}

static void epoll_release(struct file *file)
{
	struct epoll *ep = file->private;
	uint64_t fd = 0, value;

	mutex_lock(&watch_lock);
	ep->file = NULL;
	mutex_unlock(&watch_lock);
	mutex_lock(&ep->lock);
	for (; radix_next(&ep->items, &fd, &value); fd++) {
		struct epoll_item *item = (void *)(uintptr_t)value, *next;

		for (; item; item = next) {
			next = item->next;
			item_remove(item);
		}
	}
	mutex_unlock(&ep->lock);
	epoll_put(ep);
}

static char *epoll_show_fdinfo(struct file *file)
{
	struct epoll *ep = file->private;
	size_t size = 8192, len = 0;
	char *text = kzalloc(size);
	uint64_t fd = 0, value;

	if (!text)
		return NULL;
	mutex_lock(&ep->lock);
	for (; radix_next(&ep->items, &fd, &value); fd++) {
		struct epoll_item *item = (void *)(uintptr_t)value;

		for (; item && size - len > 128; item = item->next)
			len += (size_t)snprintf(text + len, size - len,
						"tfd: %8d events: %8x data: %16lx  pos:%lu ino:%lx "
						"sdev:%x\n",
						item->fd, atomic_load(&item->events),
						(unsigned long)item->data,
						(unsigned long)item->file->pos,
						(unsigned long)item->file->inode->ino,
						(unsigned int)item->file->inode->super->dev);
	}
	mutex_unlock(&ep->lock);
	return text;
}

static const struct file_ops epoll_ops = {
	.poll = epoll_poll_plain,
	.poll_ctx = epoll_poll,
	.pollq = epoll_pollq,
	.release = epoll_release,
	.show_fdinfo = epoll_show_fdinfo,
};

struct file *epoll_create_file(struct task *t)
{
	struct epoll *ep = kzalloc(sizeof(*ep));
	struct file *file;

	if (!ep)
		return ERR_PTR(-ENOMEM);
	refcount_init(&ep->refs, 1);
	mutex_init(&ep->lock, LOCK_EPOLL);
	mutex_init(&ep->ready_lock, LOCK_TASK_WAKE);
	list_init(&ep->ready);
	waitq_init(&ep->wq);
	objtype_inc(&epoll_type);
	file = file_alloc_anon("anon_inode:[eventpoll]", 0600, &epoll_ops, ep, O_RDWR, t->vfs.cred);
	if (IS_ERR(file))
		epoll_put(ep);
	else
		ep->file = file;
	return file;
}
