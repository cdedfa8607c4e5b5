/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attributes: who may change them, what a change drags along (set-id bits, ctime), and how they are
 * shown. A filesystem that keeps them in the inode needs no operation of its own.
 */
#include <string.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

#include "vfs/internal.h"

static bool inode_owned(const struct vfs_ctx *ctx, const struct inode *inode)
{
	return ctx->cred->fsuid == inode->uid || cred_capable(ctx->cred, CAP_FOWNER);
}

bool inode_needs_strip(const struct vfs_ctx *ctx, const struct inode *inode)
{
	mode_t mode = inode->mode;

	if (!S_ISREG(mode) || !(mode & (S_ISUID | S_ISGID)))
		return false;
	if (ctx && cred_capable(ctx->cred, CAP_FSETID))
		return false;
	return (mode & S_ISUID) || (mode & S_IXGRP);
}

static mode_t mode_without_setid(mode_t mode)
{
	mode &= ~(mode_t)S_ISUID;
	if (mode & S_IXGRP)
		mode &= ~(mode_t)S_ISGID;
	return mode;
}

void inode_strip_privs_locked(const struct vfs_ctx *ctx, struct inode *inode)
{
	if (inode_needs_strip(ctx, inode))
		inode->mode = mode_without_setid(inode->mode);
}

/* The rules of chown(2), chmod(2) and utimensat(2). */
static int setattr_allowed(const struct vfs_ctx *ctx, struct inode *inode,
			   const struct iattr_change *c)
{
	const struct cred *cred = ctx->cred;
	bool owner = cred->fsuid == inode->uid;

	if ((c->valid & ATTR_UID) && !(owner && c->uid == inode->uid) &&
	    !cred_capable(cred, CAP_CHOWN))
		return -EPERM;
	if ((c->valid & ATTR_GID) &&
	    !(owner && (cred_in_group(cred, c->gid) || c->gid == inode->gid)) &&
	    !cred_capable(cred, CAP_CHOWN))
		return -EPERM;
	if ((c->valid & ATTR_MODE) && !inode_owned(ctx, inode))
		return -EPERM;
	/* The times that a truncation drags along ask nobody. */
	if (!(c->valid & (ATTR_ATIME | ATTR_MTIME)) || (c->valid & ATTR_SIZE))
		return 0;
	if (inode_owned(ctx, inode))
		return 0;
	if (c->valid & ATTR_TIMES_SET)
		return -EPERM;
	return inode_permission(ctx, inode, MAY_WRITE);
}

/* Works out what really is to change; the result needs no more permission. */
static void setattr_derive(const struct vfs_ctx *ctx, struct inode *inode, struct iattr_change *c)
{
	struct timespec now;

	timespec_now(&now);
	if (!(c->valid & ATTR_TIMES_SET)) {
		if (c->valid & ATTR_ATIME)
			c->atime = now;
		if (c->valid & ATTR_MTIME)
			c->mtime = now;
	}
	if (c->valid & ATTR_MODE) {
		gid_t gid = (c->valid & ATTR_GID) ? c->gid : inode->gid;

		c->mode = (inode->mode & S_IFMT) | (c->mode & 07777);
		if (!cred_in_group(ctx->cred, gid) && !cred_capable(ctx->cred, CAP_FSETID))
			c->mode &= ~(mode_t)S_ISGID;
	} else if ((c->valid & (ATTR_UID | ATTR_GID)) && !S_ISDIR(inode->mode) &&
		   (inode->mode & (S_ISUID | S_ISGID))) {
		c->mode = mode_without_setid(inode->mode);
		c->valid |= ATTR_MODE;
	} else if ((c->valid & ATTR_SIZE) && inode_needs_strip(ctx, inode)) {
		c->mode = mode_without_setid(inode->mode);
		c->valid |= ATTR_MODE;
	}
	c->valid |= ATTR_CTIME;
}

void inode_setattr_copy(struct inode *inode, const struct iattr_change *c)
{
	if (c->valid & ATTR_MODE)
		inode->mode = c->mode;
	if (c->valid & ATTR_UID)
		inode->uid = c->uid;
	if (c->valid & ATTR_GID)
		inode->gid = c->gid;
	if (c->valid & ATTR_ATIME)
		inode->atime = c->atime;
	if (c->valid & ATTR_MTIME)
		inode->mtime = c->mtime;
	if (c->valid & ATTR_CTIME)
		inode_touch(inode, INODE_CTIME);
}

static uint32_t setattr_events(const struct iattr_change *c)
{
	uint32_t mask = 0;

	if (c->valid & (ATTR_UID | ATTR_GID | ATTR_MODE))
		mask |= IN_ATTRIB;
	if (c->valid & ATTR_SIZE)
		mask |= IN_MODIFY;
	else if ((c->valid & (ATTR_ATIME | ATTR_MTIME)) == (ATTR_ATIME | ATTR_MTIME))
		mask |= IN_ATTRIB;
	else if (c->valid & ATTR_ATIME)
		mask |= IN_ACCESS;
	else if (c->valid & ATTR_MTIME)
		mask |= IN_MODIFY;
	return mask;
}

int vfs_setattr(const struct vfs_ctx *ctx, const struct path *path, struct iattr_change *c)
{
	struct inode *inode = path->dentry->inode;
	int err = mount_writable(path->mnt);

	if (err)
		return err;
	if ((c->valid & ATTR_MODE) && S_ISLNK(inode->mode))
		return -EOPNOTSUPP;
	if (inode->ops->getattr) {
		err = inode->ops->getattr(inode);
		if (err)
			return err;
	}
	write_lock(&inode->lock);
	err = setattr_allowed(ctx, inode, c);
	if (err)
		goto out_unlock;
	setattr_derive(ctx, inode, c);
	if (inode->ops->setattr)
		err = inode->ops->setattr(ctx, inode, c);
	else if (c->valid & ATTR_SIZE)
		err = -EINVAL;
	else
		inode_setattr_copy(inode, c);
out_unlock:
	write_unlock(&inode->lock);
	if (!err)
		notify_dentry(path->dentry, setattr_events(c));
	return err;
}

/* Cuts or grows a regular file that may be written to. */
static int truncate_common(const struct vfs_ctx *ctx, const struct path *path, struct file *file,
			   uint64_t size)
{
	struct iattr_change c = {
		.valid = ATTR_SIZE | ATTR_MTIME | ATTR_CTIME,
		.size = size,
		.file = file,
	};

	if (size > INT64_MAX)
		return -EINVAL;
	if (size > ctx->fsize_limit && size > inode_size(path->dentry->inode))
		return -EFBIG;
	return vfs_setattr(ctx, path, &c);
}

int vfs_truncate(const struct vfs_ctx *ctx, const struct path *path, uint64_t size)
{
	struct inode *inode = path->dentry->inode;
	int err;

	if (S_ISDIR(inode->mode))
		return -EISDIR;
	if (!S_ISREG(inode->mode))
		return -EINVAL;
	err = mount_writable(path->mnt);
	if (!err)
		err = inode_permission(ctx, inode, MAY_WRITE);
	if (!err)
		err = inode_get_write(inode);
	if (err)
		return err;
	err = truncate_common(ctx, path, NULL, size);
	inode_put_write(inode);
	return err;
}

int file_truncate(const struct vfs_ctx *ctx, struct file *file, uint64_t size)
{
	if (!S_ISREG(file->inode->mode) || !file->writable)
		return -EINVAL;
	return truncate_common(ctx, &file->path, file, size);
}

int vfs_access(const struct vfs_ctx *ctx, const struct path *path, unsigned int mask)
{
	struct inode *inode = path->dentry->inode;
	mode_t mode = inode->mode;
	int err;

	if (!mask)
		return 0;
	if ((mask & MAY_EXEC) && S_ISREG(mode) && path_noexec(path))
		return -EACCES;
	err = inode_permission(ctx, inode, mask);
	if (err || !(mask & MAY_WRITE))
		return err;
	/* Devices, pipes and sockets can be written on a read-only filesystem. */
	return (S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode)) ? mount_writable(path->mnt) : 0;
}

static struct statx_timestamp stx_time(const struct timespec *ts)
{
	return (struct statx_timestamp){.tv_sec = ts->tv_sec, .tv_nsec = (uint32_t)ts->tv_nsec};
}

int vfs_getattr(const struct path *path, struct statx *stx)
{
	struct inode *inode = path->dentry->inode;

	if (inode->ops->getattr) {
		int err = inode->ops->getattr(inode);

		if (err)
			return err;
	}
	memset(stx, 0, sizeof(*stx));
	read_lock(&inode->lock);
	stx->stx_mask = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID;
	stx->stx_blksize = PAGE_SIZE;
	stx->stx_nlink = (uint32_t)inode->nlink;
	stx->stx_uid = inode->uid;
	stx->stx_gid = inode->gid;
	stx->stx_mode = (uint16_t)inode->mode;
	stx->stx_ino = inode->ino;
	stx->stx_size = inode_size(inode);
	stx->stx_blocks = inode->blocks;
	stx->stx_atime = stx_time(&inode->atime);
	stx->stx_mtime = stx_time(&inode->mtime);
	stx->stx_ctime = stx_time(&inode->ctime);
	stx->stx_btime = stx_time(&inode->btime);
	read_unlock(&inode->lock);
	stx->stx_rdev_major = major(inode->rdev);
	stx->stx_rdev_minor = minor(inode->rdev);
	stx->stx_dev_major = major(inode->super->dev);
	stx->stx_dev_minor = minor(inode->super->dev);
	stx->stx_mnt_id = (uint64_t)path->mnt->id;
	stx->stx_attributes_mask = STATX_ATTR_MOUNT_ROOT;
	if (path_is_mount_root(path))
		stx->stx_attributes |= STATX_ATTR_MOUNT_ROOT;
	return 0;
}

#define ATIME_STALE (24 * 60 * 60)

/* relatime: once after each change, and once a day. */
void path_accessed(const struct path *path)
{
	struct inode *inode = path->dentry->inode;
	unsigned long flags = path->mnt->flags;
	struct timespec now;

	if (flags & (MS_NOATIME | MNT_INTERNAL))
		return;
	if (S_ISDIR(inode->mode) && (flags & MS_NODIRATIME))
		return;
	if ((flags | inode->super->flags) & MS_RDONLY)
		return;
	timespec_now(&now);
	if (!(flags & MS_STRICTATIME) && now.tv_sec - inode->atime.tv_sec < ATIME_STALE &&
	    (inode->atime.tv_sec > inode->mtime.tv_sec ||
	     (inode->atime.tv_sec == inode->mtime.tv_sec &&
	      inode->atime.tv_nsec > inode->mtime.tv_nsec)) &&
	    (inode->atime.tv_sec > inode->ctime.tv_sec ||
	     (inode->atime.tv_sec == inode->ctime.tv_sec &&
	      inode->atime.tv_nsec > inode->ctime.tv_nsec)))
		return;
	inode->atime = now;
}

void file_accessed(struct file *file)
{
	if (!(file->flags & O_NOATIME))
		path_accessed(&file->path);
}
