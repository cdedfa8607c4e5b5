/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open file descriptions: made by open, by anonymous objects and by the sentry; the last put
 * releases what the file's owner hung on it, then path and credentials.
 */
#include <string.h>
#include <sys/mount.h>

#include "vfs/internal.h"

OBJTYPE(file_objtype, "file");

static const struct file_ops file_ops_none;

void (*epoll_release_hook)(struct file *file);

struct file *file_alloc(const struct path *path, const struct file_ops *ops, unsigned int flags,
			struct cred *cred)
{
	struct file *file = kzalloc(sizeof(*file));

	if (!file)
		return NULL;
	refcount_init(&file->refs, 1);
	file->ops = ops ? ops : &file_ops_none;
	file->path = *path;
	path_get(&file->path);
	file->inode = path->dentry->inode;
	file->cred = cred ? cred_get(cred) : NULL;
	file->flags = flags;
	if (!(flags & O_PATH)) {
		file->readable = (flags & O_ACCMODE) == O_RDONLY || (flags & O_ACCMODE) == O_RDWR;
		file->writable = (flags & O_ACCMODE) == O_WRONLY || (flags & O_ACCMODE) == O_RDWR;
	}
	mutex_init(&file->pos_lock, LOCK_FILE_POS);
	list_init(&file->epoll_watches);
	/* Use ends an expiry (umount2 MNT_EXPIRE). Read first: the line is shared by all. */
	if (unlikely(path->mnt->flags & MNT_EXPIRE_MARK))
		path->mnt->flags &= ~MNT_EXPIRE_MARK;
	objtype_inc(&file_objtype);
	return file;
}

struct file *file_get(struct file *file)
{
	refcount_get(&file->refs);
	return file;
}

void file_put(struct file *file)
{
	if (!file || !refcount_put(&file->refs))
		return;
	if (unlikely(!list_empty(&file->epoll_watches)) && epoll_release_hook)
		epoll_release_hook(file);
	if (notify_active() && !(file->flags & O_PATH))
		notify_dentry(file->path.dentry,
			      file->writable ? IN_CLOSE_WRITE : IN_CLOSE_NOWRITE);
	if (file->inode->locks)
		file_locks_drop_file(file);
	if (file->ops->release)
		file->ops->release(file);
	if (file->counted_writer) {
		inode_put_write(file->inode);
		atomic_fetch_sub(&file->path.mnt->writers, 1);
	}
	path_put(&file->path);
	cred_put(file->cred);
	mutex_fini(&file->pos_lock);
	objtype_dec(&file_objtype);
	kfree(file);
}

uint32_t file_poll(struct file *file)
{
	if (file->ops->poll)
		return file->ops->poll(file);
	return EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM;
}

int file_iterate(const struct vfs_ctx *ctx, struct file *file, struct dir_sink *sink)
{
	int err;

	if (!file->ops->iterate || !S_ISDIR(file->inode->mode))
		return -ENOTDIR;
	mutex_lock(&file->pos_lock);
	err = -ENOENT;
	if (!(file->path.dentry->flags & DENTRY_DEAD))
		err = file->ops->iterate(ctx, file, sink);
	mutex_unlock(&file->pos_lock);
	if (!err) {
		file_accessed(file);
		if (notify_active())
			notify_dentry(file->path.dentry, IN_ACCESS);
	}
	return err;
}

int64_t file_llseek_generic(struct file *file, int64_t offset, int whence)
{
	int64_t size = (int64_t)inode_size(file->inode), pos;

	switch (whence) {
	case SEEK_SET:
		pos = offset;
		break;
	case SEEK_CUR:
		if (__builtin_add_overflow((int64_t)file->pos, offset, &pos))
			return -EOVERFLOW;
		break;
	case SEEK_END:
		if (__builtin_add_overflow(size, offset, &pos))
			return -EOVERFLOW;
		break;
	case SEEK_DATA:
		if (offset < 0 || offset >= size)
			return -ENXIO;
		pos = offset;
		break;
	case SEEK_HOLE:
		if (offset < 0 || offset >= size)
			return -ENXIO;
		pos = size;
		break;
	default:
		return -EINVAL;
	}
	if (pos < 0)
		return -EINVAL;
	file->pos = (uint64_t)pos;
	return pos;
}

int64_t file_llseek(struct file *file, int64_t offset, int whence)
{
	int64_t pos;

	if (file->flags & O_PATH)
		return -EBADF;
	if (!file->ops->llseek)
		return -ESPIPE;
	mutex_lock(&file->pos_lock);
	pos = file->ops->llseek(file, offset, whence);
	mutex_unlock(&file->pos_lock);
	return pos;
}

int file_fsync(struct file *file, bool datasync)
{
	if (file->ops->fsync)
		return file->ops->fsync(file, datasync);
	return S_ISREG(file->inode->mode) || S_ISDIR(file->inode->mode) ? 0 : -EINVAL;
}

int file_fallocate(const struct vfs_ctx *ctx, struct file *file, int mode, int64_t offset,
		   int64_t len)
{
	struct inode *inode = file->inode;
	int err;

	if (offset < 0 || len <= 0)
		return -EINVAL;
	if (!file->writable)
		return -EBADF;
	if (S_ISFIFO(inode->mode))
		return -ESPIPE;
	if (S_ISDIR(inode->mode))
		return -EISDIR;
	if (!S_ISREG(inode->mode))
		return -ENODEV;
	if (offset > INT64_MAX - len)
		return -EFBIG;
	if (!(mode & 1 /* FALLOC_FL_KEEP_SIZE */) && (uint64_t)(offset + len) > inode_size(inode) &&
	    (uint64_t)(offset + len) > ctx->fsize_limit)
		return -EFBIG;
	if (!file->ops->fallocate)
		return -EOPNOTSUPP;
	err = file->ops->fallocate(file, mode, (uint64_t)offset, (uint64_t)len);
	if (!err && notify_active())
		notify_dentry(file->path.dentry, IN_MODIFY);
	return err;
}
