/* SPDX-License-Identifier: Apache-2.0 */
/* Reading, writing and seeking. */
#include <string.h>
#include <unistd.h>

#include "sentry/lib/err.h"
#include "sentry/socket.h"
#include "sentry/syscalls/fileio.h"

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif
#define RWF_VALID                                                                                  \
	(0x1 /* HIPRI */ | 0x2 /* DSYNC */ | 0x4 /* SYNC */ | 0x8 /* NOWAIT */ | 0x10 /* APPEND */)

struct rw_op {
	struct kiocb io;
	struct iov_iter *it;
};

static long read_once(void *arg)
{
	struct rw_op *op = arg;

	return file_read(&op->io, op->it);
}

static long write_once(void *arg)
{
	struct rw_op *op = arg;

	return file_write(&op->io, op->it);
}

static void send_self(struct task *t, int signo)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	info.si_signo = signo;
	info.si_code = SI_USER;
	info.si_pid = task_tgid_nr(t, task_pid_ns(t));
	info.si_uid = t->vfs.cred->uid;
	(void)!signal_send(t, &info, SIGNAL_THREAD);
}

void fileio_sigpipe(struct task *t)
{
	send_self(t, SIGPIPE);
}

static void op_init(struct rw_op *op, struct task *t, struct file *file, struct iov_iter *it,
		    const uint64_t *pos, unsigned int flags)
{
	op->io =
		(struct kiocb){.file = file, .ctx = &t->vfs, .pos = pos ? *pos : 0, .flags = flags};
	if (file->flags & O_NONBLOCK)
		op->io.flags |= IOCB_NONBLOCK;
	op->it = it;
}

/*
 * Waits until @once makes progress; SO_RCVTIMEO and SO_SNDTIMEO limit that, and then it is no
 * restart.
 */
static ssize_t wait_for(struct task *t, struct rw_op *op, bool write, long (*once)(void *arg))
{
	uint32_t events = write ? EPOLLOUT | EPOLLWRNORM : EPOLLIN | EPOLLRDNORM;
	struct file *file = op->io.file;
	struct sock *sk = sock_of(file);
	struct timespec deadline;
	bool timed = sk && sock_deadline(t, sk, write, &deadline);
	ssize_t n = task_retry(t, file_pollq(file), events | EPOLLHUP | EPOLLERR, false,
			       timed ? &deadline : NULL, once, op);

	return n == -ERESTARTSYS && timed ? -EINTR : n;
}

ssize_t fileio_read(struct task *t, struct file *file, struct iov_iter *to, uint64_t *pos,
		    unsigned int flags)
{
	struct rw_op op;
	ssize_t n;

	op_init(&op, t, file, to, pos, flags);
	n = read_once(&op);
	if (n == -EAGAIN && !(op.io.flags & IOCB_NONBLOCK))
		n = wait_for(t, &op, false, read_once);
	if (pos)
		*pos = op.io.pos;
	return n;
}

/* A socket that raises no SIGPIPE. */
static bool is_datagram(const struct file *file)
{
	struct sock *sk = sock_of(file);

	return sk && sk->type == SOCK_DGRAM;
}

ssize_t fileio_write(struct task *t, struct file *file, struct iov_iter *from, uint64_t *pos,
		     unsigned int flags)
{
	bool stream = !file->ops->llseek;
	struct rw_op op;
	ssize_t done = 0, n;

	op_init(&op, t, file, from, pos, flags);
	for (;;) {
		n = write_once(&op);
		if (n == -EAGAIN && !(op.io.flags & IOCB_NONBLOCK))
			n = wait_for(t, &op, true, write_once);
		if (n <= 0)
			break;
		done += n;
		/* A stream that we may wait for takes everything. */
		if (!stream || !from->count || (op.io.flags & IOCB_NONBLOCK))
			break;
	}
	if (pos)
		*pos = op.io.pos;
	if (n == -EPIPE && !is_datagram(file))
		fileio_sigpipe(t);
	else if (n == -EFBIG && !done)
		send_self(t, SIGXFSZ);
	return done ? done : n;
}

/* ---- the calls ---- */

static long do_read(struct task *t, int fd, struct iov_iter *it, uint64_t *pos, unsigned int flags)
{
	struct file *file = fd_get(t->files, fd);
	ssize_t n;

	if (!file)
		return -EBADF;
	n = fileio_read(t, file, it, pos, flags);
	file_put(file);
	return n;
}

/* The same as a call's own, which the freezer may interrupt halfway: task_call_resume. */
static ssize_t write_whole(struct task *t, struct file *file, struct iov_iter *from, uint64_t *pos,
			   unsigned int flags)
{
	size_t before = task_call_done(t);
	ssize_t n;

	iov_advance(from, before);
	n = fileio_write(t, file, from, pos, flags);
	if (n < 0 && n != -ERESTARTSYS && n != -EINTR)
		return before ? (ssize_t)before : n;
	if (n >= 0)
		before += (size_t)n;
	if (before && from->count && !file->ops->llseek && !(file->flags & O_NONBLOCK) &&
	    task_call_resume(t, before))
		return -ERESTARTNOINTR;
	return before ? (ssize_t)before : n;
}

static long do_write(struct task *t, int fd, struct iov_iter *it, uint64_t *pos, unsigned int flags)
{
	struct file *file = fd_get(t->files, fd);
	ssize_t n;

	if (!file)
		return -EBADF;
	n = write_whole(t, file, it, pos, flags);
	file_put(file);
	return n;
}

long sys_read(struct task *t, const uint64_t *a)
{
	struct iov_iter it;

	iov_init_user(&it, t->vfs.um, a[1], a[2]);
	return do_read(t, (int)a[0], &it, NULL, 0);
}

long sys_write(struct task *t, const uint64_t *a)
{
	struct iov_iter it;

	iov_init_user(&it, t->vfs.um, a[1], a[2]);
	return do_write(t, (int)a[0], &it, NULL, 0);
}

long sys_pread64(struct task *t, const uint64_t *a)
{
	struct iov_iter it;
	uint64_t pos = a[3];

	if ((int64_t)pos < 0)
		return -EINVAL;
	iov_init_user(&it, t->vfs.um, a[1], a[2]);
	return do_read(t, (int)a[0], &it, &pos, IOCB_POSITIONED);
}

long sys_pwrite64(struct task *t, const uint64_t *a)
{
	struct iov_iter it;
	uint64_t pos = a[3];

	if ((int64_t)pos < 0)
		return -EINVAL;
	iov_init_user(&it, t->vfs.um, a[1], a[2]);
	return do_write(t, (int)a[0], &it, &pos, IOCB_POSITIONED);
}

static long vec_io(struct task *t, const uint64_t *a, bool write, uint64_t *pos, unsigned int flags)
{
	struct iov_iter it;
	/* The descriptor is checked first. */
	struct file *file = fd_get(t->files, (int)a[0]);
	long ret;

	if (!file)
		return -EBADF;
	ret = iov_init_user_vec(&it, t->vfs.um, a[1], a[2]);
	if (!ret) {
		ret = write ? write_whole(t, file, &it, pos, flags)
			    : fileio_read(t, file, &it, pos, flags);
		iov_fini(&it);
	}
	file_put(file);
	return ret;
}

long sys_readv(struct task *t, const uint64_t *a)
{
	return vec_io(t, a, false, NULL, 0);
}

long sys_writev(struct task *t, const uint64_t *a)
{
	return vec_io(t, a, true, NULL, 0);
}

static long pvec_io(struct task *t, const uint64_t *a, bool write)
{
	uint64_t pos = a[3];

	if ((int64_t)pos < 0)
		return -EINVAL;
	return vec_io(t, a, write, &pos, IOCB_POSITIONED);
}

long sys_preadv(struct task *t, const uint64_t *a)
{
	return pvec_io(t, a, false);
}

long sys_pwritev(struct task *t, const uint64_t *a)
{
	return pvec_io(t, a, true);
}

/* On x86-64 the offset is one argument; the fifth is unused. */
static long pvec2_io(struct task *t, const uint64_t *a, bool write)
{
	unsigned int rwf = (unsigned int)a[5], flags = 0;
	uint64_t pos = a[3];

	if (rwf & ~(unsigned int)RWF_VALID)
		return -EOPNOTSUPP;
	if (rwf & 0x6)
		flags |= IOCB_DSYNC;
	if (rwf & 0x8)
		flags |= IOCB_NONBLOCK;
	if ((rwf & 0x10) && write)
		flags |= IOCB_APPEND;
	if (pos == UINT64_MAX)
		return vec_io(t, a, write, NULL, flags);
	if ((int64_t)pos < 0)
		return -EINVAL;
	return vec_io(t, a, write, &pos, flags | IOCB_POSITIONED);
}

long sys_preadv2(struct task *t, const uint64_t *a)
{
	return pvec2_io(t, a, false);
}

long sys_pwritev2(struct task *t, const uint64_t *a)
{
	return pvec2_io(t, a, true);
}

long sys_lseek(struct task *t, const uint64_t *a)
{
	struct file *file = fd_get(t->files, (int)a[0]);
	int64_t pos;

	if (!file)
		return -EBADF;
	pos = (unsigned int)a[2] > SEEK_HOLE ? -EINVAL
					     : file_llseek(file, (int64_t)a[1], (int)a[2]);
	file_put(file);
	return pos;
}
