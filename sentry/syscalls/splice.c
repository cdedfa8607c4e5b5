/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving bytes between files without the program's memory: sendfile(2), copy_file_range(2),
 * splice(2), tee(2), vmsplice(2). The sentry's own memory is in between; what was taken from a pipe
 * and could not be passed on goes back to its front.
 */
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/pipe.h"
#include "sentry/syscalls/fileio.h"

#define CHUNK	     65536u
#define SPLICE_VALID (SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT)

static size_t chunk_len(size_t len, long room)
{
	len = MIN(len, (size_t)room);
	return MIN(len, (size_t)CHUNK);
}

/* ---- waiting for a pipe ---- */

struct pipe_op {
	struct pipe *pipe;
	void *buf;
	size_t len, skip;
};

static long room_once(void *arg)
{
	return pipe_room(((struct pipe_op *)arg)->pipe);
}

static long take_once(void *arg)
{
	struct pipe_op *op = arg;

	return pipe_take(op->pipe, op->buf, op->len);
}

static long peek_once(void *arg)
{
	struct pipe_op *op = arg;

	return pipe_peek(op->pipe, op->skip, op->buf, op->len);
}

static long wait_room(struct task *t, struct pipe *p, bool nonblock)
{
	struct pipe_op op = {.pipe = p};
	long n = task_retry(t, pipe_waitq(p), EPOLLOUT | EPOLLWRNORM, nonblock, NULL, room_once,
			    &op);

	if (n == -EPIPE)
		fileio_sigpipe(t);
	return n;
}

/* ---- from file to file ---- */

static ssize_t read_chunk(struct task *t, struct file *in, void *buf, size_t len, uint64_t *pos,
			  unsigned int flags)
{
	struct iov_iter it;

	iov_init_kernel(&it, buf, len);
	return fileio_read(t, in, &it, pos, flags | (pos ? IOCB_POSITIONED : 0));
}

static ssize_t write_chunk(struct task *t, struct file *out, const void *buf, size_t len,
			   uint64_t *pos, unsigned int flags)
{
	struct iov_iter it;

	iov_init_kernel(&it, buf, len);
	return fileio_write(t, out, &it, pos, flags | (pos ? IOCB_POSITIONED : 0));
}

/*
 * Copies up to @len bytes from @in at *@in_pos to @out (at *@out_pos, or its own position).
 * *@in_pos is left behind what has been written. The bytes, or the error that came first.
 */
static ssize_t copy_files(struct task *t, struct file *in, uint64_t *in_pos, struct file *out,
			  uint64_t *out_pos, size_t len)
{
	char *buf = kmalloc(MIN(len, (size_t)CHUNK) + 1);
	size_t done = 0;
	ssize_t n = 0;

	if (!buf)
		return -ENOMEM;
	while (done < len) {
		uint64_t pos = *in_pos;
		ssize_t got, put;

		got = read_chunk(t, in, buf, MIN(len - done, (size_t)CHUNK), &pos, 0);
		n = got;
		if (got <= 0)
			break;
		put = write_chunk(t, out, buf, (size_t)got, out_pos, 0);
		n = put;
		if (put <= 0)
			break;
		*in_pos += (uint64_t)put;
		done += (size_t)put;
		if (put < got || task_interrupted(t))
			break;
	}
	kfree(buf);
	return done ? (ssize_t)done : n;
}

/* The position a call uses: at *@addr, or the file's own. */
static int pos_get(struct task *t, struct file *file, uaddr_t addr, uint64_t *pos)
{
	if (addr) {
		if (copy_in(t, pos, addr, sizeof(*pos)))
			return -EFAULT;
		return (int64_t)*pos < 0 ? -EINVAL : 0;
	}
	mutex_lock(&file->pos_lock);
	*pos = file->pos;
	mutex_unlock(&file->pos_lock);
	return 0;
}

static int pos_put(struct task *t, struct file *file, uaddr_t addr, uint64_t pos)
{
	if (addr)
		return copy_out(t, addr, &pos, sizeof(pos));
	mutex_lock(&file->pos_lock);
	file->pos = pos;
	mutex_unlock(&file->pos_lock);
	return 0;
}

long sys_sendfile(struct task *t, const uint64_t *a)
{
	struct file *out = NULL, *in = fd_get(t->files, (int)a[1]);
	size_t len = MIN(a[3], (uint64_t)0x7ffff000);
	uint64_t pos;
	long ret = -EBADF;

	if (!in || !in->readable)
		goto out_put;
	out = fd_get(t->files, (int)a[0]);
	if (!out || !out->writable)
		goto out_put;
	ret = -EINVAL;
	if (!in->ops->llseek || !in->ops->read || (out->flags & O_APPEND) ||
	    S_ISDIR(in->inode->mode))
		goto out_put;
	ret = pos_get(t, in, a[2], &pos);
	if (ret)
		goto out_put;
	ret = copy_files(t, in, &pos, out, NULL, len);
	if (pos_put(t, in, a[2], pos))
		ret = -EFAULT;
out_put:
	file_put(in);
	file_put(out);
	return ret;
}

static long check_copy(struct file *in, struct file *out, uint64_t in_pos, uint64_t out_pos,
		       size_t len)
{
	if (S_ISDIR(in->inode->mode) || S_ISDIR(out->inode->mode))
		return -EISDIR;
	if (!S_ISREG(in->inode->mode) || !S_ISREG(out->inode->mode))
		return -EINVAL;
	if (!in->readable || !out->writable || (out->flags & O_APPEND))
		return -EBADF;
	if (in_pos + len < in_pos || out_pos + len < out_pos)
		return -EOVERFLOW;
	if (in->inode == out->inode && out_pos + len > in_pos && out_pos < in_pos + len)
		return -EINVAL;
	return 0;
}

long sys_copy_file_range(struct task *t, const uint64_t *a)
{
	struct file *in = fd_get(t->files, (int)a[0]), *out = fd_get(t->files, (int)a[2]);
	size_t len = MIN(a[4], (uint64_t)0x7ffff000);
	uint64_t in_pos, out_pos;
	long ret = -EBADF;

	if (!in || !out)
		goto out_put;
	ret = (unsigned int)a[5] ? -EINVAL : pos_get(t, in, a[1], &in_pos);
	if (!ret)
		ret = pos_get(t, out, a[3], &out_pos);
	if (!ret)
		ret = check_copy(in, out, in_pos, out_pos, len);
	if (ret)
		goto out_put;
	ret = copy_files(t, in, &in_pos, out, &out_pos, len);
	if (ret > 0 && (pos_put(t, in, a[1], in_pos) || pos_put(t, out, a[3], out_pos)))
		ret = -EFAULT;
out_put:
	file_put(in);
	file_put(out);
	return ret;
}

/* ---- splice ---- */

static ssize_t splice_pipe_to_pipe(struct task *t, struct pipe *in, struct pipe *out, size_t len,
				   bool nonblock)
{
	struct pipe_op op = {.pipe = in};
	long n = wait_room(t, out, nonblock);

	if (n <= 0)
		return n;
	op.len = chunk_len(len, n);
	op.buf = kmalloc(op.len);
	if (!op.buf)
		return -ENOMEM;
	n = task_retry(t, pipe_waitq(in), EPOLLIN | EPOLLRDNORM, nonblock, NULL, take_once, &op);
	if (n > 0) {
		int err = pipe_put(out, op.buf, (size_t)n);

		if (err) {
			(void)!pipe_unget(in, op.buf, (size_t)n);
			if (err == -EPIPE)
				fileio_sigpipe(t);
			n = err;
		}
	}
	kfree(op.buf);
	return n;
}

static ssize_t splice_from_pipe(struct task *t, struct pipe *in, struct file *out, uint64_t *pos,
				size_t len, bool nonblock)
{
	struct pipe_op op = {.pipe = in, .len = MIN(len, (size_t)CHUNK)};
	ssize_t n, put;

	op.buf = kmalloc(op.len);
	if (!op.buf)
		return -ENOMEM;
	n = task_retry(t, pipe_waitq(in), EPOLLIN | EPOLLRDNORM, nonblock, NULL, take_once, &op);
	if (n > 0) {
		put = write_chunk(t, out, op.buf, (size_t)n, pos, nonblock ? IOCB_NONBLOCK : 0);
		if (put < n) {
			size_t kept = put > 0 ? (size_t)put : 0;

			(void)!pipe_unget(in, (char *)op.buf + kept, (size_t)n - kept);
		}
		n = put;
	}
	kfree(op.buf);
	return n;
}

static ssize_t splice_to_pipe(struct task *t, struct file *in, uint64_t *pos, struct pipe *out,
			      size_t len, bool nonblock)
{
	long n = wait_room(t, out, nonblock);
	void *buf;

	if (n <= 0)
		return n;
	len = chunk_len(len, n);
	buf = kmalloc(len);
	if (!buf)
		return -ENOMEM;
	n = read_chunk(t, in, buf, len, pos, nonblock ? IOCB_NONBLOCK : 0);
	if (n > 0) {
		int err = pipe_put(out, buf, (size_t)n);

		if (err == -EPIPE)
			fileio_sigpipe(t);
		if (err)
			n = err;
	}
	kfree(buf);
	return n;
}

static ssize_t do_splice(struct task *t, struct file *in, uint64_t *in_pos, struct file *out,
			 uint64_t *out_pos, size_t len, unsigned int flags)
{
	struct pipe *from = pipe_of(in), *to = pipe_of(out);
	bool nb_in = (flags & SPLICE_F_NONBLOCK) || (from && (in->flags & O_NONBLOCK));
	bool nb_out = (flags & SPLICE_F_NONBLOCK) || (to && (out->flags & O_NONBLOCK));

	if (from && to) {
		if (in_pos || out_pos)
			return -ESPIPE;
		return from == to ? -EINVAL
				  : splice_pipe_to_pipe(t, from, to, len, nb_in || nb_out);
	}
	if (from) {
		if (in_pos)
			return -ESPIPE;
		if (out_pos && !out->ops->llseek)
			return -EINVAL;
		if (out->flags & O_APPEND)
			return -EINVAL;
		return splice_from_pipe(t, from, out, out_pos, len, nb_in);
	}
	if (to) {
		if (out_pos)
			return -ESPIPE;
		if (in_pos && !in->ops->llseek)
			return -EINVAL;
		return splice_to_pipe(t, in, in_pos, to, len, nb_out);
	}
	return -EINVAL;
}

static int splice_pos(struct task *t, uaddr_t addr, uint64_t *pos, uint64_t **arg)
{
	*arg = NULL;
	if (!addr)
		return 0;
	if (copy_in(t, pos, addr, sizeof(*pos)))
		return -EFAULT;
	*arg = pos;
	return (int64_t)*pos < 0 ? -EINVAL : 0;
}

long sys_splice(struct task *t, const uint64_t *a)
{
	uint64_t in_pos, out_pos, *inp, *outp;
	struct file *in, *out;
	long ret = -EBADF;

	if (!a[4])
		return 0;
	if ((unsigned int)a[5] & ~(unsigned int)SPLICE_VALID)
		return -EINVAL;
	in = fd_get(t->files, (int)a[0]);
	out = fd_get(t->files, (int)a[2]);
	if (!in || !out || !in->readable || !out->writable)
		goto out_put;
	ret = -ESPIPE;
	if ((pipe_of(in) && a[1]) || (pipe_of(out) && a[3]))
		goto out_put;
	ret = splice_pos(t, a[1], &in_pos, &inp);
	if (!ret)
		ret = splice_pos(t, a[3], &out_pos, &outp);
	if (!ret)
		ret = do_splice(t, in, inp, out, outp, a[4], (unsigned int)a[5]);
	if (ret >= 0 && inp && copy_out(t, a[1], inp, sizeof(*inp)))
		ret = -EFAULT;
	if (ret >= 0 && outp && copy_out(t, a[3], outp, sizeof(*outp)))
		ret = -EFAULT;
out_put:
	file_put(in);
	file_put(out);
	return ret;
}

static long do_tee(struct task *t, struct pipe *in, struct pipe *out, size_t len, bool nonblock)
{
	struct pipe_op op = {.pipe = in};
	long n;

	if (in == out)
		return -EINVAL;
	n = wait_room(t, out, nonblock);
	if (n <= 0)
		return n;
	op.len = chunk_len(len, n);
	op.buf = kmalloc(op.len);
	if (!op.buf)
		return -ENOMEM;
	n = task_retry(t, pipe_waitq(in), EPOLLIN | EPOLLRDNORM, nonblock, NULL, peek_once, &op);
	if (n > 0) {
		int err = pipe_put(out, op.buf, (size_t)n);

		if (err == -EPIPE)
			fileio_sigpipe(t);
		if (err)
			n = err;
	}
	kfree(op.buf);
	return n;
}

long sys_tee(struct task *t, const uint64_t *a)
{
	unsigned int flags = (unsigned int)a[3];
	struct file *in, *out;
	long ret = -EBADF;

	if (flags & ~(unsigned int)SPLICE_VALID)
		return -EINVAL;
	if (!a[2])
		return 0;
	in = fd_get(t->files, (int)a[0]);
	out = fd_get(t->files, (int)a[1]);
	if (!in || !out || !in->readable || !out->writable)
		goto out_put;
	ret = -EINVAL;
	if (pipe_of(in) && pipe_of(out))
		ret = do_tee(t, pipe_of(in), pipe_of(out), a[2],
			     (flags & SPLICE_F_NONBLOCK) ||
				     ((in->flags | out->flags) & O_NONBLOCK));
out_put:
	file_put(in);
	file_put(out);
	return ret;
}

long sys_vmsplice(struct task *t, const uint64_t *a)
{
	unsigned int flags = (unsigned int)a[3];
	unsigned int io = (flags & SPLICE_F_NONBLOCK) ? IOCB_NONBLOCK : 0;
	struct iov_iter it;
	struct file *file;
	long ret;

	if (flags & ~(unsigned int)SPLICE_VALID)
		return -EINVAL;
	file = fd_get(t->files, (int)a[0]);
	if (!file)
		return -EBADF;
	ret = -EBADF;
	if (!pipe_of(file) || file->readable == file->writable)
		goto out_put;
	ret = iov_init_user_vec(&it, t->vfs.um, a[1], a[2]);
	if (ret)
		goto out_put;
	ret = file->writable ? fileio_write(t, file, &it, NULL, io)
			     : fileio_read(t, file, &it, NULL, io);
	iov_fini(&it);
out_put:
	file_put(file);
	return ret;
}
