/* SPDX-License-Identifier: Apache-2.0 */
/* The two ends of a pty as files: /dev/ptmx makes a pair, its slave is opened by name. */
#include <asm/ioctls.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/tty.h"

#define CHUNK 512u

#define EV_IN  (EPOLLIN | EPOLLRDNORM)
#define EV_OUT (EPOLLOUT | EPOLLWRNORM)

/* ---- the slave ---- */

static bool slave_dead(struct tty *tty, const struct file *file)
{
	return file->pos != tty->hangups || !tty->master_open;
}

/* Which read is it? Not 0; differs from one system call to the next. */
static uint64_t read_id(const struct task *t)
{
	return ((uint64_t)(uintptr_t)t << 20) ^ atomic_load(&t->user_seq) ^ 1;
}

static void vtimer_start(struct tty *tty)
{
	struct timespec at;
	unsigned int tenths = tty->termios.cc[VTIME];

	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += tenths / 10;
	at.tv_nsec += tenths % 10 * 100000000L;
	if (at.tv_nsec >= 1000000000) {
		at.tv_nsec -= 1000000000;
		at.tv_sec++;
	}
	tty->vtime_passed = false;
	ktimer_arm(&tty->vtimer, &at);
}

/*
 * Non-canonical mode: is it time to return what there is (termios(3), VMIN and VTIME)? Lock held.
 */
static bool raw_read_done(struct tty *tty, const struct task *t, size_t len, bool nonblock)
{
	size_t min = tty->termios.cc[VMIN], avail = ldisc_inq(tty);
	unsigned int time = tty->termios.cc[VTIME];
	uint64_t id;

	if (avail && (avail >= MIN(min, len) || nonblock))
		return true;
	if (!min && !time)
		return true;
	if (!time || nonblock || !t || (min && !avail))
		return false;
	/*
	 * The clock runs from the start of the read, or anew from each byte if there is a minimum.
	 */
	id = read_id(t) + (min ? avail << 1 : 0);
	if (tty->vread != id) {
		tty->vread = id;
		vtimer_start(tty);
		return false;
	}
	return tty->vtime_passed;
}

static ssize_t slave_take(struct tty *tty, struct kiocb *io, uint8_t *buf, size_t len)
{
	struct task *t = io->ctx ? task_of(io->ctx) : NULL;
	bool nonblock = (io->flags & IOCB_NONBLOCK) || !t;
	ssize_t n;

	if (!(tty->termios.lflag & ICANON)) {
		if (!raw_read_done(tty, t, len, nonblock))
			return -EAGAIN;
		tty->vread = 0;
		n = ldisc_read(tty, buf, len);
		return n == -EAGAIN ? 0 : n;
	}
	return ldisc_read(tty, buf, len);
}

static ssize_t slave_read(struct kiocb *io, struct iov_iter *to)
{
	struct tty *tty = io->file->private;
	uint8_t buf[TTY_IN_SIZE];
	size_t len = MIN(to->count, sizeof(buf));
	ssize_t n;

	if (!len)
		return 0;
	n = tty_check_change(io->ctx, tty, SIGTTIN);
	if (n)
		return n;
	mutex_lock(&tty->lock);
	if (slave_dead(tty, io->file))
		n = 0;
	else
		n = slave_take(tty, io, buf, len);
	mutex_unlock(&tty->lock);
	if (n <= 0)
		return n;
	waitq_wake(&tty->master_wq, EV_OUT);
	n = (ssize_t)iov_copy_to(to, buf, (size_t)n);
	return n ? n : -EFAULT;
}

static ssize_t slave_write(struct kiocb *io, struct iov_iter *from)
{
	struct tty *tty = io->file->private;
	uint8_t buf[CHUNK];
	ssize_t done = 0;
	bool stop = false;
	int err = 0;

	mutex_lock(&tty->lock);
	stop = tty->termios.lflag & TOSTOP;
	mutex_unlock(&tty->lock);
	if (stop) {
		err = tty_check_change(io->ctx, tty, SIGTTOU);
		if (err)
			return err;
	}
	while (from->count && !err) {
		size_t got = iov_copy_from(from, buf, sizeof(buf)), used = 0;

		if (!got) {
			err = -EFAULT;
			break;
		}
		mutex_lock(&tty->lock);
		if (slave_dead(tty, io->file))
			err = -EIO;
		else
			used = ldisc_write(tty, buf, got);
		mutex_unlock(&tty->lock);
		done += (ssize_t)used;
		iov_revert(from, got - used);
		if (used < got)
			break;
	}
	if (done)
		waitq_wake(&tty->master_wq, EV_IN);
	if (done || err)
		return done ? done : err;
	return from->count ? -EAGAIN : 0;
}

static uint32_t slave_poll(struct file *file)
{
	struct tty *tty = file->private;
	uint32_t ev = 0;

	mutex_lock(&tty->lock);
	if (slave_dead(tty, file)) {
		ev = EV_IN | EV_OUT | EPOLLERR | EPOLLHUP;
	} else {
		if (ldisc_readable(tty, true))
			ev |= EV_IN;
		if (!tty->stopped && tty_out_used(tty) < TTY_OUT_SIZE / 2)
			ev |= EV_OUT;
	}
	mutex_unlock(&tty->lock);
	return ev;
}

static struct waitq *slave_pollq(struct file *file)
{
	return &((struct tty *)file->private)->slave_wq;
}

static long slave_ioctl(const struct vfs_ctx *ctx, struct file *file, unsigned int cmd,
			unsigned long arg)
{
	struct tty *tty = file->private;
	bool dead;

	mutex_lock(&tty->lock);
	dead = slave_dead(tty, file);
	mutex_unlock(&tty->lock);
	if (dead)
		return cmd == TIOCSPGRP ? -ENOTTY : -EIO;
	return tty_ioctl(ctx, tty, file, false, cmd, arg);
}

static void slave_release(struct file *file)
{
	struct tty *tty = file->private;

	mutex_lock(&tty->lock);
	tty->slaves--;
	mutex_unlock(&tty->lock);
	waitq_wake(&tty->master_wq, EV_IN | EPOLLHUP);
	tty_put(tty);
}

const struct file_ops pty_slave_ops = {
	.read = slave_read,
	.write = slave_write,
	.ioctl = slave_ioctl,
	.poll = slave_poll,
	.pollq = slave_pollq,
	.release = slave_release,
};

int pty_slave_attach(const struct vfs_ctx *ctx, struct tty *tty, struct file *file)
{
	int err = 0;

	mutex_lock(&tty->lock);
	if (tty->locked || !tty->master_open)
		err = -EIO;
	else if (tty->exclusive && !cred_capable(ctx->cred, CAP_SYS_ADMIN))
		err = -EBUSY;
	if (!err) {
		tty->slaves++;
		tty->slave_was_open = true;
		file->pos = tty->hangups;
	}
	mutex_unlock(&tty->lock);
	if (err)
		return err;
	file->private = tty_get(tty);
	file->ops = &pty_slave_ops;
	tty_opened(ctx, tty, file);
	waitq_wake(&tty->master_wq, EV_OUT);
	return 0;
}

int pts_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file)
{
	struct devpts *fs = devpts_of(inode->super);
	struct tty *tty = fs ? devpts_get_tty(fs, (int)minor(inode->rdev)) : NULL;
	int err = -EIO;

	if (tty)
		err = pty_slave_attach(ctx, tty, file);
	tty_put(tty);
	return err;
}

/* ---- the master ---- */

/* Copies what the master may read now into @buf. Lock held. */
static ssize_t master_take(struct tty *tty, uint8_t *buf, size_t len)
{
	size_t n = 0;

	if (tty->packet) {
		if (tty->pktstatus) {
			buf[0] = tty->pktstatus;
			tty->pktstatus = 0;
			return 1;
		}
		if (tty_out_used(tty))
			buf[n++] = TIOCPKT_DATA;
	}
	while (n < len && tty_out_used(tty))
		buf[n++] = tty->out[tty->out_tail++ % TTY_OUT_SIZE];
	if (n)
		return (ssize_t)n;
	return tty->slave_was_open && !tty->slaves ? -EIO : -EAGAIN;
}

static ssize_t master_read(struct kiocb *io, struct iov_iter *to)
{
	struct tty *tty = io->file->private;
	uint8_t buf[4096];
	size_t len = MIN(to->count, sizeof(buf));
	ssize_t n;

	if (!len)
		return 0;
	mutex_lock(&tty->lock);
	n = master_take(tty, buf, len);
	mutex_unlock(&tty->lock);
	if (n <= 0)
		return n;
	waitq_wake(&tty->slave_wq, EV_OUT);
	n = (ssize_t)iov_copy_to(to, buf, (size_t)n);
	return n ? n : -EFAULT;
}

/* Types @len bytes: how many were taken. */
static size_t master_type(struct tty *tty, const uint8_t *buf, size_t len)
{
	size_t n = 0;

	mutex_lock(&tty->lock);
	while (n < len) {
		int sig = ldisc_receive(tty, buf[n]);

		if (sig < 0)
			break;
		n++;
		/* In order with what is typed before and after. */
		if (sig)
			tty_signal_pgrp(tty, sig);
	}
	mutex_unlock(&tty->lock);
	return n;
}

static ssize_t master_write(struct kiocb *io, struct iov_iter *from)
{
	struct tty *tty = io->file->private;
	uint8_t buf[CHUNK];
	ssize_t done = 0;
	int err = 0;

	while (from->count) {
		size_t got = iov_copy_from(from, buf, sizeof(buf)), used;

		if (!got) {
			err = -EFAULT;
			break;
		}
		used = master_type(tty, buf, got);
		done += (ssize_t)used;
		iov_revert(from, got - used);
		if (used < got) {
			err = -EAGAIN;
			break;
		}
	}
	if (done) {
		waitq_wake(&tty->slave_wq, EV_IN | EV_OUT);
		waitq_wake(&tty->master_wq, EV_IN | EPOLLPRI);
	}
	return done ? done : err;
}

static uint32_t master_poll(struct file *file)
{
	struct tty *tty = file->private;
	uint32_t ev = 0;

	mutex_lock(&tty->lock);
	if (tty_out_used(tty))
		ev |= EV_IN;
	if (tty->packet && tty->pktstatus)
		ev |= EV_IN | EPOLLPRI;
	if (tty->slave_was_open && !tty->slaves)
		ev |= EPOLLHUP;
	if (tty->head - tty->tail < TTY_IN_SIZE / 2 || !tty->lines)
		ev |= EV_OUT;
	mutex_unlock(&tty->lock);
	return ev;
}

static struct waitq *master_pollq(struct file *file)
{
	return &((struct tty *)file->private)->master_wq;
}

static long master_ioctl(const struct vfs_ctx *ctx, struct file *file, unsigned int cmd,
			 unsigned long arg)
{
	return tty_ioctl(ctx, file->private, file, true, cmd, arg);
}

static void master_release(struct file *file)
{
	struct tty *tty = file->private;

	devpts_remove(tty->fs, tty);
	mutex_lock(&tty->lock);
	tty->master_open = false;
	mutex_unlock(&tty->lock);
	tty_hangup(tty);
	tty_put(tty);
}

const struct file_ops pty_master_ops = {
	.read = master_read,
	.write = master_write,
	.ioctl = master_ioctl,
	.poll = master_poll,
	.pollq = master_pollq,
	.release = master_release,
};

int ptmx_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file)
{
	struct path pts;
	struct tty *tty;
	int err = devpts_find(ctx, file, &pts);

	if (err)
		return err;
	tty = tty_alloc(the_kernel, &pts, ctx->cred);
	path_put(&pts);
	if (IS_ERR(tty))
		return (int)PTR_ERR(tty);
	file->private = tty;
	file->ops = &pty_master_ops;
	return 0;
}
