/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inotify. A watch joins an inode and a group (the inotify file); it is on the inode's list, the
 * group's and one of all, and holds the inode. Events are queued per group and read from its file.
 *
 * One lock for all of it: events are rare, and nobody comes here unless something is watched
 * (notify_active). Inode references are dropped after unlocking.
 */
#include "vfs/notify.h"

#include <asm/ioctls.h>
#include <string.h>

#include "vfs/internal.h"

#define QUEUE_MAX   16384u
#define WATCHES_MAX (1u << 18)

struct notify_group {
	struct waitq wq;
	struct list_head watches, events; /* under notify_lock, like the rest */
	unsigned int nr_events;
	size_t bytes; /* of the events as read */
	int next_wd;
};

struct inode_watch {
	struct inode_watch *next; /* of the same inode */
	struct list_head group_node, all_node;
	struct notify_group *group;
	struct inode *inode; /* reference */
	uint32_t mask;
	int wd;
};

struct notify_event {
	struct list_head node;
	struct event_head {
		int wd;
		uint32_t mask, cookie, len;
	} e; /* struct inotify_event without its name; len: the padded name's */
	char name[];
};

bool notify_active(void)
{
	return unlikely(atomic_load_explicit(&vfs_state->nr_watches, memory_order_relaxed));
}

uint32_t notify_move_cookie(void)
{
	return notify_active() ? atomic_fetch_add(&vfs_state->next_move_cookie, 1) + 1 : 0;
}

/* ---- queues ---- */

static bool event_repeats(struct notify_group *g, const struct event_head *e, const char *name)
{
	struct notify_event *last;

	if (list_empty(&g->events))
		return false;
	last = list_last_entry(&g->events, struct notify_event, node);
	return last->e.wd == e->wd && last->e.mask == e->mask && last->e.cookie == e->cookie &&
	       !strcmp(last->e.len ? last->name : "", name);
}

static void group_queue_locked(struct notify_group *g, int wd, uint32_t mask, uint32_t cookie,
			       const char *name)
{
	struct event_head e = {.wd = wd, .mask = mask, .cookie = cookie};
	struct notify_event *ev;
	size_t len;

	if (g->nr_events >= QUEUE_MAX) {
		e = (struct event_head){.wd = -1, .mask = IN_Q_OVERFLOW};
		name = "";
	}
	if (event_repeats(g, &e, name))
		return;
	/* Names are padded to whole headers, with at least one NUL. */
	len = *name ? ALIGN_UP(strlen(name) + 1, sizeof(e)) : 0;
	ev = kzalloc(sizeof(*ev) + len);
	if (!ev)
		return;
	e.len = (uint32_t)len;
	ev->e = e;
	memcpy(ev->name, name, *name ? strlen(name) : 0);
	list_add_tail(&ev->node, &g->events);
	g->nr_events++;
	g->bytes += sizeof(e) + len;
	waitq_wake(&g->wq, EPOLLIN | EPOLLRDNORM);
}

/* ---- watches ---- */

/* Takes @w off all lists and puts it on @gone; its inode reference is dropped by watches_free. */
static void watch_detach_locked(struct inode_watch *w, struct list_head *gone)
{
	struct inode_watch **link = &w->inode->watches;

	while (*link != w)
		link = &(*link)->next;
	*link = w->next;
	list_del(&w->group_node);
	list_del(&w->all_node);
	atomic_fetch_sub(&vfs_state->nr_watches, 1);
	list_add_tail(&w->all_node, gone);
}

static void watches_free(struct list_head *gone)
{
	struct inode_watch *w, *tmp;

	list_for_each_entry_safe (w, tmp, gone, all_node) {
		inode_put(w->inode);
		kfree(w);
	}
}

static void inode_event_locked(struct inode *inode, uint32_t mask, uint32_t cookie,
			       const char *name, struct list_head *gone)
{
	struct inode_watch *w, *next;

	for (w = inode->watches; w; w = next) {
		next = w->next;
		if (!(w->mask & mask & IN_ALL_EVENTS))
			continue;
		group_queue_locked(w->group, w->wd, mask, cookie, name);
		if (w->mask & IN_ONESHOT) {
			group_queue_locked(w->group, w->wd, IN_IGNORED, 0, "");
			watch_detach_locked(w, gone);
		}
	}
}

static void inode_event(struct inode *inode, uint32_t mask, uint32_t cookie, const char *name)
{
	struct list_head gone;

	if (!mask || !inode->watches)
		return;
	list_init(&gone);
	mutex_lock(&vfs_state->notify_lock);
	inode_event_locked(inode, mask, cookie, name, &gone);
	mutex_unlock(&vfs_state->notify_lock);
	watches_free(&gone);
}

void notify_inode(struct inode *inode, uint32_t mask)
{
	if (notify_active())
		inode_event(inode, mask | (S_ISDIR(inode->mode) ? IN_ISDIR : 0), 0, "");
}

void notify_name(struct inode *dir, uint32_t mask, uint32_t cookie, const char *name, bool isdir)
{
	if (notify_active())
		inode_event(dir, mask | (isdir ? IN_ISDIR : 0), cookie, name);
}

void notify_dentry(struct dentry *d, uint32_t mask)
{
	struct dentry *parent;
	char name[NAME_MAX_LEN + 1];

	if (!mask || !notify_active() || !d->inode)
		return;
	if (S_ISDIR(d->inode->mode))
		mask |= IN_ISDIR;
	read_lock(&vfs_state->tree);
	parent = d->parent != d && (d->flags & DENTRY_HASHED) ? dentry_get(d->parent) : NULL;
	memcpy(name, d->name, MIN(d->name_len, NAME_MAX_LEN) + 1);
	name[NAME_MAX_LEN] = '\0';
	read_unlock(&vfs_state->tree);
	if (parent)
		inode_event(parent->inode, mask, 0, name);
	dentry_put(parent);
	/* A name's making is an event of the directory only. */
	if (!(mask & IN_CREATE))
		inode_event(d->inode, mask, 0, "");
}

void notify_inode_gone(struct inode *inode)
{
	struct list_head gone;
	uint32_t mask = IN_DELETE_SELF;

	if (!inode->watches)
		return;
	list_init(&gone);
	mutex_lock(&vfs_state->notify_lock);
	inode_event_locked(inode, mask, 0, "", &gone);
	while (inode->watches) {
		struct inode_watch *w = inode->watches;

		group_queue_locked(w->group, w->wd, IN_IGNORED, 0, "");
		watch_detach_locked(w, &gone);
	}
	mutex_unlock(&vfs_state->notify_lock);
	watches_free(&gone);
}

void notify_super_gone(struct super *sb)
{
	struct list_head gone;
	struct inode_watch *w, *tmp;

	list_init(&gone);
	mutex_lock(&vfs_state->notify_lock);
	list_for_each_entry_safe (w, tmp, &vfs_state->watches, all_node) {
		if (w->inode->super != sb)
			continue;
		group_queue_locked(w->group, w->wd, IN_UNMOUNT, 0, "");
		group_queue_locked(w->group, w->wd, IN_IGNORED, 0, "");
		watch_detach_locked(w, &gone);
	}
	mutex_unlock(&vfs_state->notify_lock);
	watches_free(&gone);
}

/* ---- the file ---- */

/* Takes the first event if it fits in @room; -EAGAIN without one, -EINVAL for too little room. */
static struct notify_event *group_pop(struct notify_group *g, size_t room)
{
	struct notify_event *ev = ERR_PTR(-EAGAIN);

	mutex_lock(&vfs_state->notify_lock);
	if (!list_empty(&g->events)) {
		ev = list_first_entry(&g->events, struct notify_event, node);
		if (sizeof(ev->e) + ev->e.len > room) {
			ev = ERR_PTR(-EINVAL);
		} else {
			list_del(&ev->node);
			g->nr_events--;
			g->bytes -= sizeof(ev->e) + ev->e.len;
		}
	}
	mutex_unlock(&vfs_state->notify_lock);
	return ev;
}

static ssize_t notify_read(struct kiocb *io, struct iov_iter *to)
{
	struct notify_group *g = io->file->private;
	size_t done = 0;

	for (;;) {
		struct notify_event *ev = group_pop(g, to->count);
		size_t len, n;

		if (IS_ERR(ev))
			return done ? (ssize_t)done : PTR_ERR(ev);
		len = sizeof(ev->e) + ev->e.len;
		n = iov_copy_to(to, &ev->e, sizeof(ev->e));
		if (n == sizeof(ev->e))
			n += iov_copy_to(to, ev->name, ev->e.len);
		kfree(ev);
		if (n < len)
			return done ? (ssize_t)done : -EFAULT;
		done += n;
	}
}

static uint32_t notify_poll(struct file *file)
{
	struct notify_group *g = file->private;
	bool any;

	mutex_lock(&vfs_state->notify_lock);
	any = !list_empty(&g->events);
	mutex_unlock(&vfs_state->notify_lock);
	return any ? EPOLLIN | EPOLLRDNORM : 0;
}

static struct waitq *notify_pollq(struct file *file)
{
	struct notify_group *g = file->private;

	return &g->wq;
}

static long notify_ioctl(const struct vfs_ctx *ctx, struct file *file, unsigned int cmd,
			 unsigned long arg)
{
	struct notify_group *g = file->private;
	int bytes;

	if (cmd != FIONREAD)
		return -ENOTTY;
	mutex_lock(&vfs_state->notify_lock);
	bytes = (int)g->bytes;
	mutex_unlock(&vfs_state->notify_lock);
	return copy_to_user(ctx->um, arg, &bytes, sizeof(bytes));
}

static void notify_release(struct file *file)
{
	struct notify_group *g = file->private;
	struct notify_event *ev, *tmp;
	struct list_head gone;

	list_init(&gone);
	mutex_lock(&vfs_state->notify_lock);
	while (!list_empty(&g->watches))
		watch_detach_locked(list_first_entry(&g->watches, struct inode_watch, group_node),
				    &gone);
	mutex_unlock(&vfs_state->notify_lock);
	watches_free(&gone);
	list_for_each_entry_safe (ev, tmp, &g->events, node)
		kfree(ev);
	waitq_fini(&g->wq);
	kfree(g);
}

static const struct file_ops notify_ops = {
	.read = notify_read,
	.ioctl = notify_ioctl,
	.poll = notify_poll,
	.pollq = notify_pollq,
	.release = notify_release,
};

struct file *notify_create(const struct vfs_ctx *ctx, int flags)
{
	struct notify_group *g;
	struct file *file;

	if (flags & ~(IN_NONBLOCK | IN_CLOEXEC))
		return ERR_PTR(-EINVAL);
	g = kzalloc(sizeof(*g));
	if (!g)
		return ERR_PTR(-ENOMEM);
	waitq_init(&g->wq);
	list_init(&g->watches);
	list_init(&g->events);
	g->next_wd = 1;
	file = file_alloc_anon("anon_inode:inotify", 0600, &notify_ops, g,
			       O_RDONLY | ((unsigned int)flags & IN_NONBLOCK), ctx->cred);
	if (IS_ERR(file)) {
		waitq_fini(&g->wq);
		kfree(g);
	}
	return file;
}

#define MASK_KEPT (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK)

static struct inode_watch *watch_find_locked(struct notify_group *g, struct inode *inode)
{
	struct inode_watch *w;

	for (w = inode->watches; w; w = w->next)
		if (w->group == g)
			return w;
	return NULL;
}

int notify_add_watch(const struct vfs_ctx *ctx, struct file *file, const struct path *path,
		     uint32_t mask)
{
	struct inode *inode = path->dentry->inode;
	struct notify_group *g = file->private;
	struct inode_watch *w, *spare;
	int ret;

	if (file->ops != &notify_ops || !(mask & IN_ALL_EVENTS) ||
	    (mask & (IN_MASK_ADD | IN_MASK_CREATE)) == (IN_MASK_ADD | IN_MASK_CREATE))
		return -EINVAL;
	if ((mask & IN_ONLYDIR) && !S_ISDIR(inode->mode))
		return -ENOTDIR;
	ret = inode_permission(ctx, inode, MAY_READ);
	if (ret)
		return ret;
	spare = kzalloc(sizeof(*spare));
	if (!spare)
		return -ENOMEM;
	mutex_lock(&vfs_state->notify_lock);
	w = watch_find_locked(g, inode);
	if (w) {
		ret = (mask & IN_MASK_CREATE) ? -EEXIST : w->wd;
		if (ret >= 0)
			w->mask = (mask & MASK_KEPT) | ((mask & IN_MASK_ADD) ? w->mask : 0);
	} else if (vfs_state->nr_watches >= WATCHES_MAX) {
		ret = -ENOSPC;
	} else {
		w = spare;
		spare = NULL;
		w->group = g;
		w->inode = inode_get(inode);
		w->mask = mask & MASK_KEPT;
		w->wd = ret = g->next_wd++;
		w->next = inode->watches;
		inode->watches = w;
		list_add_tail(&w->group_node, &g->watches);
		list_add_tail(&w->all_node, &vfs_state->watches);
		atomic_fetch_add(&vfs_state->nr_watches, 1);
	}
	mutex_unlock(&vfs_state->notify_lock);
	kfree(spare);
	return ret;
}

int notify_rm_watch(struct file *file, int wd)
{
	struct notify_group *g = file->private;
	struct inode_watch *w;
	struct list_head gone;
	int err = -EINVAL;

	if (file->ops != &notify_ops)
		return -EINVAL;
	list_init(&gone);
	mutex_lock(&vfs_state->notify_lock);
	list_for_each_entry (w, &g->watches, group_node) {
		if (w->wd == wd) {
			group_queue_locked(g, wd, IN_IGNORED, 0, "");
			watch_detach_locked(w, &gone);
			err = 0;
			break;
		}
	}
	mutex_unlock(&vfs_state->notify_lock);
	watches_free(&gone);
	return err;
}
