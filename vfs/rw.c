/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The common entry to reading and writing: the checks that don't depend on what is behind the file,
 * the position, the size limit, set-id bits, times and inotify. The file's own operation then moves
 * bytes between its pages and the iterator.
 *
 * Locks: pos_lock over a transfer that uses the file's own position (as POSIX asks of threads that
 * share it); streams (no llseek) have no position and no lock.
 */
#include <sys/mount.h>

#include "vfs/internal.h"

#define RW_MAX (0x7ffff000UL) /* what one call transfers at most, as Linux's MAX_RW_COUNT */

static bool file_has_pos(const struct file *file)
{
	return file->ops->llseek != NULL;
}

static int rw_check(const struct kiocb *io, struct iov_iter *it)
{
	if ((io->flags & IOCB_POSITIONED) && !file_has_pos(io->file))
		return -ESPIPE;
	if (it->count > RW_MAX)
		iov_truncate(it, RW_MAX);
	if (file_has_pos(io->file) && (int64_t)(io->pos + it->count) < 0)
		return -EINVAL;
	return 0;
}

static ssize_t file_read_at(struct kiocb *io, struct iov_iter *to)
{
	int err = rw_check(io, to);
	ssize_t n;

	if (err)
		return err;
	n = io->file->ops->read(io, to);
	if (n >= 0 && file_has_pos(io->file))
		file_accessed(io->file);
	return n;
}

ssize_t file_read(struct kiocb *io, struct iov_iter *to)
{
	struct file *file = io->file;
	ssize_t n;

	if (!file->readable)
		return -EBADF;
	if (!file->ops->read)
		return S_ISDIR(file->inode->mode) ? -EISDIR : -EINVAL;
	if ((io->flags & IOCB_POSITIONED) || !file_has_pos(file)) {
		n = file_read_at(io, to);
	} else {
		mutex_lock(&file->pos_lock);
		io->pos = file->pos;
		n = file_read_at(io, to);
		if (n > 0)
			file->pos = io->pos;
		mutex_unlock(&file->pos_lock);
	}
	if (n > 0 && unlikely(notify_active()))
		notify_dentry(file->path.dentry, IN_ACCESS);
	return n;
}

/* Cuts the write to what RLIMIT_FSIZE allows; -EFBIG when that is nothing. */
static int write_limit(const struct kiocb *io, struct iov_iter *from)
{
	uint64_t limit = io->ctx ? io->ctx->fsize_limit : UINT64_MAX, pos = io->pos;

	if (!S_ISREG(io->file->inode->mode) || limit > INT64_MAX)
		return 0;
	if (io->flags & IOCB_APPEND)
		pos = inode_size(io->file->inode);
	if (pos >= limit)
		return from->count ? -EFBIG : 0;
	if (from->count > limit - pos)
		iov_truncate(from, limit - pos);
	return 0;
}

static ssize_t file_write_at(struct kiocb *io, struct iov_iter *from)
{
	struct file *file = io->file;
	struct inode *inode = file->inode;
	int err;

	if (file->flags & O_APPEND)
		io->flags |= IOCB_APPEND;
	err = rw_check(io, from);
	if (!err)
		err = write_limit(io, from);
	if (err)
		return err;
	if (S_ISREG(inode->mode) && unlikely(inode_needs_strip(io->ctx, inode)) && from->count) {
		struct iattr_change c = {.valid = ATTR_MODE | ATTR_CTIME};

		write_lock(&inode->lock);
		if (inode_needs_strip(io->ctx, inode)) {
			c.mode = inode->mode & ~(mode_t)S_ISUID;
			if (c.mode & S_IXGRP)
				c.mode &= ~(mode_t)S_ISGID;
			if (inode->ops->setattr)
				err = inode->ops->setattr(io->ctx, inode, &c);
			else
				inode->mode = c.mode;
		}
		write_unlock(&inode->lock);
		if (err)
			return err;
	}
	return file->ops->write(io, from);
}

ssize_t file_write(struct kiocb *io, struct iov_iter *from)
{
	struct file *file = io->file;
	ssize_t n;

	if (!file->writable)
		return -EBADF;
	if (!file->ops->write)
		return -EINVAL;
	if ((io->flags & IOCB_POSITIONED) || !file_has_pos(file)) {
		n = file_write_at(io, from);
	} else {
		mutex_lock(&file->pos_lock);
		io->pos = file->pos;
		n = file_write_at(io, from);
		if (n > 0)
			file->pos = io->pos;
		mutex_unlock(&file->pos_lock);
	}
	if (n > 0 && unlikely(notify_active()))
		notify_dentry(file->path.dentry, IN_MODIFY);
	if (n > 0 && ((io->flags & IOCB_DSYNC) || (file->flags & O_DSYNC)) && file->ops->fsync) {
		int err = file->ops->fsync(file, !(file->flags & (O_SYNC & ~O_DSYNC)));

		if (err)
			return err;
	}
	return n;
}

ssize_t file_read_kernel(struct file *file, void *buf, size_t len, uint64_t pos)
{
	struct kiocb io = {.file = file, .pos = pos, .flags = IOCB_POSITIONED};
	struct iov_iter it;
	ssize_t n;

	if (!file->ops->read)
		return -EINVAL;
	if (!file_has_pos(file))
		io.flags = 0;
	iov_init_kernel(&it, buf, len);
	n = file_read_at(&io, &it);
	iov_fini(&it);
	return n;
}

ssize_t file_write_kernel(struct file *file, const void *buf, size_t len, uint64_t pos)
{
	struct kiocb io = {.file = file, .pos = pos, .flags = IOCB_POSITIONED};
	struct iov_iter it;
	ssize_t n;

	if (!file->ops->write)
		return -EINVAL;
	if (!file_has_pos(file))
		io.flags = 0;
	iov_init_kernel(&it, buf, len);
	n = file->ops->write(&io, &it);
	iov_fini(&it);
	return n;
}
