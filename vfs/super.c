/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filesystem instances. Two counts: `active` (mounts and whoever got one from super_alloc or
 * super_get) keeps the tree of names alive; `refs` (inodes, and one for all of `active`) keeps the
 * memory. Life: active → last super_put drops the names → last inode frees private and the super.
 */
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include "vfs/internal.h"

OBJTYPE(super_objtype, "super");

struct vfs_state *vfs_state;

struct super *super_alloc(const struct fs_type *type, const char *source)
{
	struct super *sb = kzalloc(sizeof(*sb));

	if (!sb)
		return NULL;
	sb->source = kstrdup(source && *source ? source : "none");
	if (!sb->source) {
		kfree(sb);
		return NULL;
	}
	refcount_init(&sb->refs, 1);
	refcount_init(&sb->active, 1);
	sb->type = type;
	sb->dev = makedev(0, atomic_fetch_add(&vfs_state->next_dev, 1));
	sb->next_ino = 1;
	mutex_init(&sb->rename_lock, LOCK_RENAME);
	objtype_inc(&super_objtype);
	return sb;
}

void super_hold(struct super *sb)
{
	refcount_get(&sb->refs);
}

void super_release(struct super *sb)
{
	if (!refcount_put(&sb->refs))
		return;
	if (sb->type && sb->type->sops && sb->type->sops->put_super)
		sb->type->sops->put_super(sb);
	mutex_fini(&sb->rename_lock);
	kfree(sb->source);
	objtype_dec(&super_objtype);
	kfree(sb);
}

struct super *super_get(struct super *sb)
{
	refcount_get(&sb->active);
	return sb;
}

void super_put(struct super *sb)
{
	if (!sb || !refcount_put(&sb->active))
		return;
	if (notify_active())
		notify_super_gone(sb);
	if (sb->type && sb->type->sops && sb->type->sops->shutdown)
		sb->type->sops->shutdown(sb);
	if (sb->root) {
		struct dentry *root = sb->root;

		sb->root = NULL;
		dentry_tree_drop(root);
	}
	super_release(sb);
}

int vfs_statfs(const struct path *path, struct statfs *st)
{
	struct super *sb = path->dentry->super;
	unsigned long flags = path->mnt->flags;
	int err = 0;

	*st = (struct statfs){
		.f_type = (long)sb->magic,
		.f_bsize = PAGE_SIZE,
		.f_frsize = PAGE_SIZE,
		.f_namelen = NAME_MAX_LEN,
	};
	st->f_fsid.__val[0] = (int)sb->dev;
	if (sb->type && sb->type->sops && sb->type->sops->statfs)
		err = sb->type->sops->statfs(sb, st);
	st->f_flags = 0x20; /* ST_VALID */
	if ((flags & MS_RDONLY) || (sb->flags & MS_RDONLY))
		st->f_flags |= ST_RDONLY;
	if (flags & MS_NOSUID)
		st->f_flags |= ST_NOSUID;
	if (flags & MS_NODEV)
		st->f_flags |= ST_NODEV;
	if (flags & MS_NOEXEC)
		st->f_flags |= ST_NOEXEC;
	if (flags & MS_NOATIME)
		st->f_flags |= ST_NOATIME;
	if (flags & MS_NODIRATIME)
		st->f_flags |= ST_NODIRATIME;
	if (!(flags & (MS_NOATIME | MS_STRICTATIME)))
		st->f_flags |= ST_RELATIME;
	return err;
}

void path_get(const struct path *path)
{
	mount_get(path->mnt);
	dentry_get(path->dentry);
}

void path_put(struct path *path)
{
	struct mount *mnt = path->mnt;
	struct dentry *dentry = path->dentry;

	path->mnt = NULL;
	path->dentry = NULL;
	dentry_put(dentry);
	mount_put(mnt);
}
