/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes: which name belongs to whom, as xattr(7) says. The values are the
 * filesystem's. There are no POSIX ACLs.
 */
#include <string.h>
#include <linux/xattr.h>

#include "vfs/internal.h"

#define XATTR_VALUE_MAX 65536

static bool has_prefix(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

static int xattr_name_check(const char *name)
{
	size_t len = strnlen(name, NAME_MAX_LEN + 1);

	return !len || len > NAME_MAX_LEN ? -ERANGE : 0;
}

static int user_xattr_allowed(const struct vfs_ctx *ctx, struct inode *inode, bool write)
{
	/* Only where mode bits mean access to contents. */
	if (!S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
		return write ? -EPERM : -ENODATA;
	if (write && S_ISDIR(inode->mode) && (inode->mode & S_ISVTX) &&
	    ctx->cred->fsuid != inode->uid && !cred_capable(ctx->cred, CAP_FOWNER))
		return -EPERM;
	return inode_permission(ctx, inode, write ? MAY_WRITE : MAY_READ);
}

static int xattr_allowed(const struct vfs_ctx *ctx, struct inode *inode, const char *name,
			 bool write)
{
	const struct cred *cred = ctx->cred;

	if (has_prefix(name, XATTR_USER_PREFIX) && name[XATTR_USER_PREFIX_LEN])
		return user_xattr_allowed(ctx, inode, write);
	if (has_prefix(name, XATTR_TRUSTED_PREFIX) && name[XATTR_TRUSTED_PREFIX_LEN]) {
		if (cred_capable(cred, CAP_SYS_ADMIN))
			return 0;
		return write ? -EPERM : -ENODATA;
	}
	if (has_prefix(name, XATTR_SECURITY_PREFIX) && name[XATTR_SECURITY_PREFIX_LEN]) {
		int cap = strcmp(name, "security.capability") ? CAP_SYS_ADMIN : CAP_SETFCAP;

		return !write || cred_capable(cred, cap) ? 0 : -EPERM;
	}
	return -EOPNOTSUPP;
}

ssize_t vfs_getxattr(const struct vfs_ctx *ctx, const struct path *path, const char *name,
		     void *value, size_t size)
{
	struct inode *inode = path->dentry->inode;
	int err = xattr_name_check(name);
	ssize_t n;

	if (!err)
		err = xattr_allowed(ctx, inode, name, false);
	if (err)
		return err;
	if (!inode->ops->getxattr)
		return -EOPNOTSUPP;
	read_lock(&inode->lock);
	n = inode->ops->getxattr(inode, name, value, size);
	read_unlock(&inode->lock);
	return n;
}

static int xattr_change(const struct vfs_ctx *ctx, const struct path *path, const char *name,
			const void *value, size_t size, int flags)
{
	struct inode *inode = path->dentry->inode;
	int err = mount_writable(path->mnt);

	if (!err)
		err = xattr_allowed(ctx, inode, name, true);
	if (err)
		return err;
	if (!inode->ops->setxattr)
		return -EOPNOTSUPP;
	write_lock(&inode->lock);
	err = inode->ops->setxattr(inode, name, value, size, flags);
	if (!err)
		inode_touch(inode, INODE_CTIME);
	write_unlock(&inode->lock);
	if (!err)
		notify_dentry(path->dentry, IN_ATTRIB);
	return err;
}

int vfs_setxattr(const struct vfs_ctx *ctx, const struct path *path, const char *name,
		 const void *value, size_t size, int flags)
{
	int err;

	if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) || flags == (XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	err = xattr_name_check(name);
	if (err)
		return err;
	if (size > XATTR_VALUE_MAX)
		return -E2BIG;
	return xattr_change(ctx, path, name, value ? value : "", size, flags);
}

int vfs_removexattr(const struct vfs_ctx *ctx, const struct path *path, const char *name)
{
	int err = xattr_name_check(name);

	return err ? err : xattr_change(ctx, path, name, NULL, 0, XATTR_REPLACE);
}

ssize_t vfs_listxattr(const struct vfs_ctx *ctx, const struct path *path, char *list, size_t size)
{
	struct inode *inode = path->dentry->inode;
	bool trusted = cred_capable(ctx->cred, CAP_SYS_ADMIN);
	ssize_t len, out = 0;
	char *all;

	if (!inode->ops->listxattr)
		return 0;
	read_lock(&inode->lock);
	len = inode->ops->listxattr(inode, NULL, 0);
	if (len <= 0) {
		read_unlock(&inode->lock);
		return len;
	}
	all = kmalloc((size_t)len);
	if (all)
		len = inode->ops->listxattr(inode, all, (size_t)len);
	read_unlock(&inode->lock);
	if (!all)
		return -ENOMEM;
	for (char *name = all; len > 0 && name < all + len; name += strlen(name) + 1) {
		size_t n = strlen(name) + 1;

		if (!trusted && has_prefix(name, XATTR_TRUSTED_PREFIX))
			continue;
		if (size && (size_t)out + n > size) {
			out = -ERANGE;
			break;
		}
		if (size)
			memcpy(list + out, name, n);
		out += (ssize_t)n;
	}
	if (len < 0)
		out = len;
	kfree(all);
	return out;
}
