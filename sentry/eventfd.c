/* SPDX-License-Identifier: Apache-2.0 */
/* eventfd(2): a counter that writes add to and reads take from, at most UINT64_MAX - 1. */
#include "sentry/eventfd.h"

#include <stdio.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"

struct eventfd {
	struct mutex lock; /* LOCK_OBJECT */
	uint64_t count;
	bool semaphore; /* const */
	struct waitq wq;
};

static ssize_t eventfd_read(struct kiocb *io, struct iov_iter *to)
{
	struct eventfd *e = io->file->private;
	uint64_t value;

	if (to->count < sizeof(value))
		return -EINVAL;
	mutex_lock(&e->lock);
	value = e->semaphore && e->count ? 1 : e->count;
	e->count -= value;
	mutex_unlock(&e->lock);
	if (!value)
		return -EAGAIN;
	waitq_wake(&e->wq, EPOLLOUT | EPOLLWRNORM);
	return iov_copy_to(to, &value, sizeof(value)) == sizeof(value) ? (ssize_t)sizeof(value)
								       : -EFAULT;
}

static ssize_t eventfd_write(struct kiocb *io, struct iov_iter *from)
{
	struct eventfd *e = io->file->private;
	bool fits;
	uint64_t value;

	if (from->count < sizeof(value))
		return -EINVAL;
	if (iov_copy_from(from, &value, sizeof(value)) != sizeof(value))
		return -EFAULT;
	if (value == UINT64_MAX)
		return -EINVAL;
	mutex_lock(&e->lock);
	fits = UINT64_MAX - e->count > value;
	if (fits)
		e->count += value;
	mutex_unlock(&e->lock);
	if (!fits) {
		iov_revert(from, sizeof(value));
		return -EAGAIN;
	}
	waitq_wake(&e->wq, EPOLLIN | EPOLLRDNORM);
	return sizeof(value);
}

static uint32_t eventfd_poll(struct file *file)
{
	struct eventfd *e = file->private;
	uint32_t ev = 0;

	mutex_lock(&e->lock);
	if (e->count)
		ev |= EPOLLIN | EPOLLRDNORM;
	if (e->count < UINT64_MAX - 1)
		ev |= EPOLLOUT | EPOLLWRNORM;
	mutex_unlock(&e->lock);
	return ev;
}

static struct waitq *eventfd_pollq(struct file *file)
{
	return &((struct eventfd *)file->private)->wq;
}

static void eventfd_release(struct file *file)
{
	struct eventfd *e = file->private;

	waitq_fini(&e->wq);
	mutex_fini(&e->lock);
	kfree(e);
}

static char *eventfd_show_fdinfo(struct file *file)
{
	struct eventfd *e = file->private;
	char *text = kmalloc(64);

	if (text) {
		mutex_lock(&e->lock);
		snprintf(text, 64, "eventfd-count: %16lx\n", (unsigned long)e->count);
		mutex_unlock(&e->lock);
	}
	return text;
}

static const struct file_ops eventfd_ops = {
	.read = eventfd_read,
	.write = eventfd_write,
	.poll = eventfd_poll,
	.pollq = eventfd_pollq,
	.release = eventfd_release,
	.show_fdinfo = eventfd_show_fdinfo,
};

struct file *eventfd_create(struct task *t, unsigned int initval, bool semaphore,
			    unsigned int flags)
{
	struct eventfd *e = kzalloc(sizeof(*e));
	struct file *file;

	if (!e)
		return ERR_PTR(-ENOMEM);
	mutex_init(&e->lock, LOCK_OBJECT);
	waitq_init(&e->wq);
	e->count = initval;
	e->semaphore = semaphore;
	file = file_alloc_anon("anon_inode:[eventfd]", 0600, &eventfd_ops, e, O_RDWR | flags,
			       t->vfs.cred);
	if (IS_ERR(file)) {
		waitq_fini(&e->wq);
		mutex_fini(&e->lock);
		kfree(e);
	}
	return file;
}
