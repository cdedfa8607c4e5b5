/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signalfd(2). Whose signals it shows depends on who asks, not on who made it, so readiness is
 * answered for the asking task (file_ops.poll_ctx). There is one queue for all: it is woken
 * whenever a signal is queued anywhere, as long as there are signalfds at all, and those who wait
 * look again.
 */
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#include "sentry/eventfd.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"

struct signalfd {
	_Atomic uint64_t mask;
};

static struct waitq signalfd_wq;
static pthread_once_t signalfd_once = PTHREAD_ONCE_INIT;
static _Atomic unsigned int nr_signalfds;

static void signalfd_start(void)
{
	waitq_init(&signalfd_wq);
}

void signalfd_notify(void)
{
	if (unlikely(atomic_load_explicit(&nr_signalfds, memory_order_relaxed)))
		waitq_wake(&signalfd_wq, EPOLLIN | EPOLLRDNORM);
}

static bool signalfd_take(struct task *t, uint64_t mask, siginfo_t *info)
{
	struct sighand *s = sighand_lock(t->tg);
	bool got = signal_dequeue_locked(t, mask, info) != 0;

	mutex_unlock(&s->lock);
	return got;
}

static void to_siginfo(const siginfo_t *info, struct signalfd_siginfo *out)
{
	memset(out, 0, sizeof(*out));
	out->ssi_signo = (uint32_t)info->si_signo;
	out->ssi_errno = info->si_errno;
	out->ssi_code = info->si_code;
	switch (info->si_code) {
	case SI_TIMER:
		out->ssi_tid = (uint32_t)info->si_timerid;
		out->ssi_overrun = (uint32_t)info->si_overrun;
		out->ssi_ptr = (uint64_t)(uintptr_t)info->si_ptr;
		out->ssi_int = info->si_int;
		return;
	case SI_QUEUE:
	case SI_MESGQ:
		out->ssi_ptr = (uint64_t)(uintptr_t)info->si_ptr;
		out->ssi_int = info->si_int;
		break;
	default:
		break;
	}
	if (info->si_code > 0 && (SIGMASK(info->si_signo) & SIG_SYNC_MASK)) {
		out->ssi_addr = (uint64_t)(uintptr_t)info->si_addr;
		return;
	}
	out->ssi_pid = (uint32_t)info->si_pid;
	out->ssi_uid = info->si_uid;
	if (info->si_signo == SIGCHLD && info->si_code > 0) {
		out->ssi_status = info->si_status;
		out->ssi_utime = (uint64_t)info->si_utime;
		out->ssi_stime = (uint64_t)info->si_stime;
	}
}

static ssize_t signalfd_read(struct kiocb *io, struct iov_iter *to)
{
	struct signalfd *s = io->file->private;
	struct task *t = io->ctx ? task_of(io->ctx) : NULL;
	ssize_t done = 0;

	if (to->count < sizeof(struct signalfd_siginfo))
		return -EINVAL;
	if (!t)
		return -EAGAIN;
	while (to->count >= sizeof(struct signalfd_siginfo)) {
		struct signalfd_siginfo ssi;
		siginfo_t info;

		if (!signalfd_take(t, atomic_load(&s->mask), &info))
			break;
		to_siginfo(&info, &ssi);
		if (iov_copy_to(to, &ssi, sizeof(ssi)) != sizeof(ssi))
			return done ? done : -EFAULT;
		done += sizeof(ssi);
	}
	return done ? done : -EAGAIN;
}

static uint32_t signalfd_poll(const struct vfs_ctx *ctx, struct file *file)
{
	struct signalfd *s = file->private;
	struct task *t = ctx ? task_of(ctx) : NULL;
	struct sighand *sh;
	uint64_t set;

	if (!t)
		return 0;
	sh = sighand_lock(t->tg);
	set = t->pending.set | t->tg->shared_pending.set;
	mutex_unlock(&sh->lock);
	return set & atomic_load(&s->mask) ? EPOLLIN | EPOLLRDNORM : 0;
}

static struct waitq *signalfd_pollq(struct file *file)
{
	return &signalfd_wq;
}

static void signalfd_release(struct file *file)
{
	atomic_fetch_sub(&nr_signalfds, 1);
	kfree(file->private);
}

static char *signalfd_show_fdinfo(struct file *file)
{
	struct signalfd *s = file->private;
	char *text = kmalloc(64);

	if (text)
		snprintf(text, 64, "sigmask:\t%016lx\n", (unsigned long)atomic_load(&s->mask));
	return text;
}

static const struct file_ops signalfd_ops = {
	.read = signalfd_read,
	.poll_ctx = signalfd_poll,
	.pollq = signalfd_pollq,
	.release = signalfd_release,
	.show_fdinfo = signalfd_show_fdinfo,
};

struct file *signalfd_create(struct task *t, uint64_t mask, unsigned int flags)
{
	struct signalfd *s = kzalloc(sizeof(*s));
	struct file *file;

	if (!s)
		return ERR_PTR(-ENOMEM);
	pthread_once(&signalfd_once, signalfd_start);
	atomic_store(&s->mask, mask);
	file = file_alloc_anon("anon_inode:[signalfd]", 0600, &signalfd_ops, s, O_RDWR | flags,
			       t->vfs.cred);
	if (IS_ERR(file))
		kfree(s);
	else
		atomic_fetch_add(&nr_signalfds, 1);
	return file;
}

int signalfd_set_mask(struct file *file, uint64_t mask)
{
	struct signalfd *s = file->private;

	if (file->ops != &signalfd_ops)
		return -EINVAL;
	atomic_store(&s->mask, mask);
	signalfd_notify();
	return 0;
}
