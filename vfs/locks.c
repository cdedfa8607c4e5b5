/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks on files: flock(2), POSIX record locks and open-file-description locks. A lock is a range
 * with an owner; flock's cover everything and belong to the file, POSIX's belong to the process
 * (its descriptor table), OFD's to the file. flock and record locks don't see each other.
 *
 * Whoever must wait sleeps on the inode's queue and tries again after each release. POSIX waits are
 * also entered into a list of all (who waits for whom), in which a circle is EDEADLK. file_locks
 * are made with an inode's first lock and live as long as the inode.
 */
#include <string.h>
#include <sys/file.h>

#include "vfs/internal.h"

struct file_lock {
	struct list_head node;
	const void *owner;
	struct file *file;   /* opened through; not a reference: the locks go before the file */
	uint64_t start, end; /* end included; UINT64_MAX: to the end of everything */
	short type;	     /* F_RDLCK, F_WRLCK */
	bool ofd;
	pid_t pid;
};

struct file_locks {
	struct mutex lock; /* LOCK_OBJECT */
	struct waitq wq;
	struct list_head flocks, ranges; /* ranges by start */
};

/* A POSIX lock that waits; on the waiter's stack, in vfs_state->lock_waiters. */
struct lock_waiter {
	struct list_head node;
	const void *owner, *blocker;
};

#define EVENT_LOCKS EPOLLIN

static struct file_locks *inode_locks(struct inode *inode)
{
	struct file_locks *locks = __atomic_load_n(&inode->locks, __ATOMIC_ACQUIRE), *other = NULL;

	if (locks)
		return locks;
	locks = kzalloc(sizeof(*locks));
	if (!locks)
		return NULL;
	mutex_init(&locks->lock, LOCK_OBJECT);
	waitq_init(&locks->wq);
	list_init(&locks->flocks);
	list_init(&locks->ranges);
	if (__atomic_compare_exchange_n(&inode->locks, &other, locks, false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		return locks;
	waitq_fini(&locks->wq);
	mutex_fini(&locks->lock);
	kfree(locks);
	return other;
}

static void lock_list_free(struct list_head *list)
{
	struct file_lock *l, *tmp;

	list_for_each_entry_safe (l, tmp, list, node)
		kfree(l);
}

void inode_locks_free(struct inode *inode)
{
	struct file_locks *locks = inode->locks;

	if (!locks)
		return;
	lock_list_free(&locks->flocks);
	lock_list_free(&locks->ranges);
	waitq_fini(&locks->wq);
	mutex_fini(&locks->lock);
	kfree(locks);
	inode->locks = NULL;
}

/* ---- flock ---- */

static bool flock_conflicts(struct file_locks *locks, const struct file *file, short type)
{
	struct file_lock *l;

	list_for_each_entry (l, &locks->flocks, node)
		if (l->owner != file && (type == F_WRLCK || l->type == F_WRLCK))
			return true;
	return false;
}

static struct file_lock *flock_find(struct file_locks *locks, const struct file *file)
{
	struct file_lock *l;

	list_for_each_entry (l, &locks->flocks, node)
		if (l->owner == file)
			return l;
	return NULL;
}

/* Drops the file's lock. True if there was one. */
static bool flock_drop_locked(struct file_locks *locks, const struct file *file)
{
	struct file_lock *l = flock_find(locks, file);

	if (!l)
		return false;
	list_del(&l->node);
	kfree(l);
	return true;
}

/* 0, or -EAGAIN when it must wait. *@spare is used for a new lock. */
static int flock_try(struct file_locks *locks, struct file *file, short type,
		     struct file_lock **spare)
{
	struct file_lock *l;
	bool released = false;
	int err = 0;

	mutex_lock(&locks->lock);
	l = flock_find(locks, file);
	if (l && l->type == type)
		goto out_unlock;
	/* A conversion isn't atomic: the old lock goes first, as flock(2) warns. */
	released = flock_drop_locked(locks, file);
	if (type == F_UNLCK)
		goto out_unlock;
	err = -EAGAIN;
	if (flock_conflicts(locks, file, type))
		goto out_unlock;
	l = *spare;
	*spare = NULL;
	l->owner = l->file = file;
	l->type = type;
	list_add_tail(&l->node, &locks->flocks);
	err = 0;
out_unlock:
	mutex_unlock(&locks->lock);
	if (released)
		waitq_wake(&locks->wq, EVENT_LOCKS);
	return err;
}

struct flock_wait {
	struct file_locks *locks;
	struct file *file;
	short type;
};

static bool flock_ready(void *arg)
{
	struct flock_wait *w = arg;
	bool ready;

	mutex_lock(&w->locks->lock);
	ready = !flock_conflicts(w->locks, w->file, w->type);
	mutex_unlock(&w->locks->lock);
	return ready;
}

int file_flock(const struct vfs_ctx *ctx, struct file *file, int op, bool nonblock)
{
	struct file_locks *locks;
	struct file_lock *spare;
	struct flock_wait wait = {.file = file};
	int err;

	switch (op & ~LOCK_NB) {
	case LOCK_SH:
		wait.type = F_RDLCK;
		break;
	case LOCK_EX:
		wait.type = F_WRLCK;
		break;
	case LOCK_UN:
		wait.type = F_UNLCK;
		break;
	default:
		return -EINVAL;
	}
	if (file->flags & O_PATH)
		return -EBADF;
	locks = wait.locks = inode_locks(file->inode);
	spare = kzalloc(sizeof(*spare));
	err = -ENOMEM;
	while (locks && spare) {
		err = flock_try(locks, file, wait.type, &spare);
		if (err != -EAGAIN || nonblock || !ctx->wait)
			break;
		err = ctx->wait(ctx, &locks->wq, EVENT_LOCKS, flock_ready, &wait);
		if (err)
			break;
	}
	kfree(spare);
	return err;
}

/* ---- record locks ---- */

static bool ranges_meet(const struct file_lock *a, const struct file_lock *b)
{
	return a->start <= b->end && b->start <= a->end;
}

static bool same_owner(const struct file_lock *a, const struct file_lock *b)
{
	return a->owner == b->owner && a->ofd == b->ofd;
}

static struct file_lock *range_conflict(struct file_locks *locks, const struct file_lock *want)
{
	struct file_lock *l;

	list_for_each_entry (l, &locks->ranges, node)
		if (!same_owner(l, want) && ranges_meet(l, want) &&
		    (l->type == F_WRLCK || want->type == F_WRLCK))
			return l;
	return NULL;
}

static void range_insert(struct file_locks *locks, struct file_lock *new)
{
	struct list_head *pos;

	list_for_each (pos, &locks->ranges)
		if (list_entry(pos, struct file_lock, node)->start > new->start)
			break;
	list_add_tail(&new->node, pos);
}

/*
 * Cuts @want's range out of the owner's locks. A lock that sticks out on both sides becomes two,
 * the second from *@spare. True if anything changed.
 */
static bool ranges_cut(struct file_locks *locks, const struct file_lock *want,
		       struct file_lock **spare)
{
	struct file_lock *l, *tmp;
	bool changed = false;

	list_for_each_entry_safe (l, tmp, &locks->ranges, node) {
		if (!same_owner(l, want) || !ranges_meet(l, want))
			continue;
		changed = true;
		if (l->start < want->start && l->end > want->end) {
			struct file_lock *right = *spare;

			*spare = NULL;
			*right = *l;
			list_init(&right->node);
			right->start = want->end + 1;
			l->end = want->start - 1;
			range_insert(locks, right);
			break;
		}
		if (l->start < want->start) {
			l->end = want->start - 1;
		} else if (l->end > want->end) {
			l->start = want->end + 1;
			list_del(&l->node);
			range_insert(locks, l);
			/* The next in the list may be visited again: harmless, it doesn't meet. */
		} else {
			list_del(&l->node);
			kfree(l);
		}
	}
	return changed;
}

/* Grows @new over its owner's neighbours of the same type. */
static void range_merge(struct file_locks *locks, struct file_lock *new)
{
	struct file_lock *l, *tmp;

	list_for_each_entry_safe (l, tmp, &locks->ranges, node) {
		if (l == new || !same_owner(l, new) || l->type != new->type)
			continue;
		if ((l->end != UINT64_MAX && l->end + 1 == new->start) ||
		    (new->end != UINT64_MAX &&new->end + 1 == l->start)) {
			new->start = MIN(new->start, l->start);
			new->end = MAX(new->end, l->end);
			list_del(&l->node);
			kfree(l);
		}
	}
	list_del(&new->node);
	range_insert(locks, new);
}

/* 0, or -EAGAIN with *@blocker set. @spares: two locks, used as needed. */
static int range_try(struct file_locks *locks, const struct file_lock *want,
		     struct file_lock **spares, const void **blocker)
{
	struct file_lock *other, *new;
	bool changed;

	mutex_lock(&locks->lock);
	if (want->type != F_UNLCK) {
		other = range_conflict(locks, want);
		if (other) {
			*blocker = other->owner;
			mutex_unlock(&locks->lock);
			return -EAGAIN;
		}
	}
	changed = ranges_cut(locks, want, &spares[0]);
	if (want->type != F_UNLCK) {
		new = spares[1];
		spares[1] = NULL;
		*new = *want;
		list_init(&new->node);
		range_insert(locks, new);
		range_merge(locks, new);
	}
	mutex_unlock(&locks->lock);
	if (changed)
		waitq_wake(&locks->wq, EVENT_LOCKS);
	return 0;
}

/* Would @owner, waiting for @blocker, wait for itself? Graph locked. */
static bool would_deadlock(const void *owner, const void *blocker)
{
	struct lock_waiter *w;
	/* A process with several threads may wait more than once; the bound ends any other circle.
	 */
	for (int hops = 0; hops < 64; hops++) {
		const void *next = NULL;

		if (blocker == owner)
			return true;
		list_for_each_entry (w, &vfs_state->lock_waiters, node) {
			if (w->owner == blocker) {
				next = w->blocker;
				break;
			}
		}
		if (!next)
			return false;
		blocker = next;
	}
	return false;
}

struct range_wait {
	struct file_locks *locks;
	const struct file_lock *want;
};

static bool range_ready(void *arg)
{
	struct range_wait *w = arg;
	bool ready;

	mutex_lock(&w->locks->lock);
	ready = !range_conflict(w->locks, w->want);
	mutex_unlock(&w->locks->lock);
	return ready;
}

static int range_sleep(const struct vfs_ctx *ctx, struct file_locks *locks,
		       const struct file_lock *want, const void *blocker)
{
	struct lock_waiter waiter = {.owner = want->owner, .blocker = blocker};
	struct range_wait wait = {.locks = locks, .want = want};
	int err;

	/* Linux looks for circles among POSIX locks only. */
	if (!want->ofd) {
		mutex_lock(&vfs_state->lock_graph);
		if (would_deadlock(want->owner, blocker)) {
			mutex_unlock(&vfs_state->lock_graph);
			return -EDEADLK;
		}
		list_add_tail(&waiter.node, &vfs_state->lock_waiters);
		mutex_unlock(&vfs_state->lock_graph);
	}
	err = ctx->wait(ctx, &locks->wq, EVENT_LOCKS, range_ready, &wait);
	if (!want->ofd) {
		mutex_lock(&vfs_state->lock_graph);
		list_del(&waiter.node);
		mutex_unlock(&vfs_state->lock_graph);
	}
	return err;
}

/* struct flock to [start, end]. -EINVAL, -EOVERFLOW. */
static int range_decode(struct file *file, const struct flock *fl, struct file_lock *out)
{
	int64_t start = 0, end;

	switch (fl->l_whence) {
	case SEEK_SET:
		break;
	case SEEK_CUR:
		start = (int64_t)__atomic_load_n(&file->pos, __ATOMIC_RELAXED);
		break;
	case SEEK_END:
		start = (int64_t)inode_size(file->inode);
		break;
	default:
		return -EINVAL;
	}
	if (__builtin_add_overflow(start, fl->l_start, &start))
		return -EOVERFLOW;
	if (start < 0)
		return -EINVAL;
	if (fl->l_len > 0) {
		if (__builtin_add_overflow(start, fl->l_len - 1, &end))
			return -EOVERFLOW;
		out->start = (uint64_t)start;
		out->end = (uint64_t)end;
	} else if (fl->l_len < 0) {
		if (start + fl->l_len < 0)
			return -EINVAL;
		out->start = (uint64_t)(start + fl->l_len);
		out->end = (uint64_t)(start - 1);
	} else {
		out->start = (uint64_t)start;
		out->end = UINT64_MAX;
	}
	return 0;
}

int file_setlk(const struct vfs_ctx *ctx, struct file *file, const void *owner, pid_t pid,
	       struct flock *fl, bool wait)
{
	struct file_lock want = {.owner = owner, .file = file, .type = fl->l_type, .pid = pid};
	struct file_lock *spares[2] = {NULL, NULL};
	struct file_locks *locks;
	const void *blocker = NULL;
	int err;

	want.ofd = owner == file;
	if (want.ofd && fl->l_pid)
		return -EINVAL;
	err = range_decode(file, fl, &want);
	if (err)
		return err;
	if (fl->l_type != F_RDLCK && fl->l_type != F_WRLCK && fl->l_type != F_UNLCK)
		return -EINVAL;
	if ((fl->l_type == F_RDLCK && !file->readable) ||
	    (fl->l_type == F_WRLCK && !file->writable))
		return -EBADF;
	locks = inode_locks(file->inode);
	spares[0] = kzalloc(sizeof(*spares[0]));
	spares[1] = kzalloc(sizeof(*spares[1]));
	err = -ENOMEM;
	while (locks && spares[0] && spares[1]) {
		err = range_try(locks, &want, spares, &blocker);
		if (err != -EAGAIN || !wait || !ctx->wait)
			break;
		err = range_sleep(ctx, locks, &want, blocker);
		if (err)
			break;
	}
	kfree(spares[0]);
	kfree(spares[1]);
	return err;
}

int file_getlk(struct file *file, const void *owner, struct flock *fl)
{
	struct file_lock want = {.owner = owner, .type = fl->l_type}, *other = NULL;
	struct file_locks *locks = file->inode->locks;
	int err;

	want.ofd = owner == file;
	if (want.ofd && fl->l_pid)
		return -EINVAL;
	if (fl->l_type != F_RDLCK && fl->l_type != F_WRLCK && (fl->l_type != F_UNLCK || !want.ofd))
		return -EINVAL;
	err = range_decode(file, fl, &want);
	if (err)
		return err;
	if (!locks) {
		fl->l_type = F_UNLCK;
		return 0;
	}
	mutex_lock(&locks->lock);
	other = range_conflict(locks, &want);
	if (!other) {
		fl->l_type = F_UNLCK;
	} else {
		fl->l_type = other->type;
		fl->l_whence = SEEK_SET;
		fl->l_start = (off_t)other->start;
		fl->l_len = other->end == UINT64_MAX ? 0 : (off_t)(other->end - other->start + 1);
		fl->l_pid = other->ofd ? -1 : other->pid;
	}
	mutex_unlock(&locks->lock);
	return 0;
}

/* Drops the record locks of @owner, or those of @file's own if @owner is the file. */
static bool ranges_drop_locked(struct file_locks *locks, const void *owner)
{
	struct file_lock *l, *tmp;
	bool changed = false;

	list_for_each_entry_safe (l, tmp, &locks->ranges, node) {
		if (l->owner != owner)
			continue;
		list_del(&l->node);
		kfree(l);
		changed = true;
	}
	return changed;
}

void file_locks_release(struct file *file, const void *owner)
{
	struct file_locks *locks = __atomic_load_n(&file->inode->locks, __ATOMIC_ACQUIRE);
	bool changed;

	if (!locks)
		return;
	mutex_lock(&locks->lock);
	changed = ranges_drop_locked(locks, owner);
	mutex_unlock(&locks->lock);
	if (changed)
		waitq_wake(&locks->wq, EVENT_LOCKS);
}

void file_locks_drop_file(struct file *file)
{
	struct file_locks *locks = file->inode->locks;
	bool changed;

	mutex_lock(&locks->lock);
	changed = flock_drop_locked(locks, file);
	changed |= ranges_drop_locked(locks, file);
	mutex_unlock(&locks->lock);
	if (changed)
		waitq_wake(&locks->wq, EVENT_LOCKS);
}
