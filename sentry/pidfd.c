/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pidfd_open(2): a file that stands for a process and becomes readable when it ends. It holds the
 * identity and the thread group, so the group's queue stays as long as somebody may be on it.
 * clone(2) makes one before the process is visible: then the group is found at the first use.
 */
#include <stdio.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"

struct pidfd {
	struct kernel *kernel;
	struct pid *pid;	 /* reference */
	struct thread_group *tg; /* reference, or NULL until found; under tasklist */
	struct waitq none;	 /* who waits for a process that is gone already */
};

static const struct file_ops pidfd_ops;

static void pidfd_find_locked(struct pidfd *p)
{
	if (!p->tg && p->pid->tg)
		p->tg = thread_group_get(p->pid->tg);
}

static uint32_t pidfd_poll(struct file *file)
{
	struct pidfd *p = file->private;
	uint32_t ev = 0;

	mutex_lock(&p->kernel->tasklist);
	pidfd_find_locked(p);
	if (p->tg && p->tg->is_zombie)
		ev = EPOLLIN | EPOLLRDNORM;
	if (!p->pid->tg)
		ev = EPOLLIN | EPOLLRDNORM | EPOLLHUP;
	mutex_unlock(&p->kernel->tasklist);
	return ev;
}

static struct waitq *pidfd_pollq(struct file *file)
{
	struct pidfd *p = file->private;
	struct thread_group *tg;

	mutex_lock(&p->kernel->tasklist);
	pidfd_find_locked(p);
	tg = p->tg;
	mutex_unlock(&p->kernel->tasklist);
	return tg ? &tg->pidfd_wait : &p->none;
}

static void pidfd_free(struct pidfd *p)
{
	thread_group_put(p->tg);
	pid_put(p->pid);
	waitq_fini(&p->none);
	kfree(p);
}

static void pidfd_release(struct file *file)
{
	pidfd_free(file->private);
}

static char *pidfd_show_fdinfo(struct file *file)
{
	struct pidfd *p = file->private;
	char *text = kmalloc(64);
	pid_t nr = -1;

	if (!text)
		return NULL;
	mutex_lock(&p->kernel->tasklist);
	if (p->pid->tg)
		nr = p->pid->numbers[0].nr;
	mutex_unlock(&p->kernel->tasklist);
	snprintf(text, 64, "Pid:\t%d\nNSpid:\t%d\n", nr, nr);
	return text;
}

static const struct file_ops pidfd_ops = {
	.poll = pidfd_poll,
	.pollq = pidfd_pollq,
	.release = pidfd_release,
	.show_fdinfo = pidfd_show_fdinfo,
};

struct pid *pidfd_pid(struct file *file)
{
	return file->ops == &pidfd_ops ? ((struct pidfd *)file->private)->pid : NULL;
}

struct file *pidfd_alloc(struct task *t, struct pid *pid, unsigned int flags)
{
	struct pidfd *p = kzalloc(sizeof(*p));
	struct file *file;

	if (!p)
		return ERR_PTR(-ENOMEM);
	p->kernel = t->kernel;
	p->pid = pid_get(pid);
	waitq_init(&p->none);
	mutex_lock(&t->kernel->tasklist);
	pidfd_find_locked(p);
	mutex_unlock(&t->kernel->tasklist);
	file = file_alloc_anon("anon_inode:[pidfd]", 0600, &pidfd_ops, p, O_RDWR | flags,
			       t->vfs.cred);
	if (IS_ERR(file))
		pidfd_free(p);
	return file;
}
