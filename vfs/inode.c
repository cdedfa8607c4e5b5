/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inodes: made by a filesystem's lookup, create or tmpfile, held by dentries and files, evicted
 * with the last reference. An inode holds its super's memory, so it may outlive the mount (a futex
 * key or a mapping can be the last holder).
 */
#include <string.h>

#include "vfs/internal.h"

OBJTYPE(inode_objtype, "inode");

const struct inode_ops inode_ops_none;

void timespec_now(struct timespec *ts)
{
	clock_gettime(CLOCK_REALTIME_COARSE, ts);
}

struct inode *inode_alloc(struct super *sb, mode_t mode, uid_t uid, gid_t gid)
{
	struct inode *inode = kzalloc(sizeof(*inode));

	if (!inode)
		return NULL;
	refcount_init(&inode->refs, 1);
	super_hold(sb);
	inode->super = sb;
	inode->ops = &inode_ops_none;
	inode->ino = atomic_fetch_add(&sb->next_ino, 1);
	inode->mode = mode;
	inode->uid = uid;
	inode->gid = gid;
	inode->nlink = 1;
	timespec_now(&inode->mtime);
	inode->atime = inode->ctime = inode->btime = inode->mtime;
	rwlock_init(&inode->lock, LOCK_INODE);
	mutex_init(&inode->mapping.lock, LOCK_MAPPING);
	list_init(&inode->mapping.users);
	objtype_inc(&inode_objtype);
	return inode;
}

struct inode *inode_get(struct inode *inode)
{
	refcount_get(&inode->refs);
	return inode;
}

void inode_put(struct inode *inode)
{
	struct super *sb;

	if (!inode || !refcount_put(&inode->refs))
		return;
	sb = inode->super;
	if (inode->ops->evict)
		inode->ops->evict(inode);
	inode_locks_free(inode);
	radix_fini(&inode->mapping.pages);
	mutex_fini(&inode->mapping.lock);
	rwlock_fini(&inode->lock);
	objtype_dec(&inode_objtype);
	kfree(inode);
	super_release(sb);
}

void inode_touch(struct inode *inode, unsigned int times)
{
	struct timespec now;

	timespec_now(&now);
	if (times & INODE_ATIME)
		inode->atime = now;
	if (times & INODE_MTIME)
		inode->mtime = now;
	if (times & INODE_CTIME)
		inode->ctime = now;
}

int inode_get_write(struct inode *inode)
{
	int old = atomic_load(&inode->writers);

	do {
		if (old < 0)
			return -ETXTBSY;
	} while (!atomic_compare_exchange_weak(&inode->writers, &old, old + 1));
	return 0;
}

void inode_put_write(struct inode *inode)
{
	atomic_fetch_sub(&inode->writers, 1);
}

int inode_deny_write(struct inode *inode)
{
	int old = atomic_load(&inode->writers);

	do {
		if (old > 0)
			return -ETXTBSY;
	} while (!atomic_compare_exchange_weak(&inode->writers, &old, old - 1));
	return 0;
}

void inode_allow_write(struct inode *inode)
{
	atomic_fetch_add(&inode->writers, 1);
}

int inode_permission(const struct vfs_ctx *ctx, struct inode *inode, unsigned int mask)
{
	const struct cred *cred = ctx->cred;
	mode_t mode = inode->mode;
	unsigned int granted;

	if (inode->ops->permission)
		return inode->ops->permission(ctx, inode, mask);
	if (cred->fsuid == inode->uid)
		granted = mode >> 6;
	else if (((mode >> 3) ^ mode) & 7 && cred_in_group(cred, inode->gid))
		granted = mode >> 3;
	else
		granted = mode;
	if (!(mask & ~granted & 7))
		return 0;
	if (S_ISDIR(mode)) {
		if (!(mask & MAY_WRITE) && cred_capable(cred, CAP_DAC_READ_SEARCH))
			return 0;
		return cred_capable(cred, CAP_DAC_OVERRIDE) ? 0 : -EACCES;
	}
	if (mask == MAY_READ && cred_capable(cred, CAP_DAC_READ_SEARCH))
		return 0;
	/* Nobody executes what has no execute bit at all. */
	if ((!(mask & MAY_EXEC) || (mode & 0111)) && cred_capable(cred, CAP_DAC_OVERRIDE))
		return 0;
	return -EACCES;
}
