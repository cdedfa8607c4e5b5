/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations that make, remove and move names. Each walks to the parent, takes the parent's inode
 * lock and then decides; the order of the checks is Linux's, so that the errno is Linux's where
 * several apply. Events for inotify are sent after the locks are dropped.
 *
 * Locks: rename: super's rename_lock (two directories) → the directories, ancestor first → victim.
 */
#include <linux/fs.h>
#include <string.h>

#include "vfs/internal.h"

mode_t ctx_umask(const struct vfs_ctx *ctx)
{
	return ctx->fs ? ctx->fs->umask : 0;
}

void inode_inherit(const struct vfs_ctx *ctx, const struct inode *dir, mode_t *mode, uid_t *uid,
		   gid_t *gid)
{
	const struct cred *cred = ctx->cred;

	*uid = cred->fsuid;
	*gid = cred->fsgid;
	if (!(dir->mode & S_ISGID))
		return;
	*gid = dir->gid;
	if (S_ISDIR(*mode))
		*mode |= S_ISGID;
	else if ((*mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
		 !cred_in_group(cred, dir->gid) && !cred_capable(cred, CAP_FSETID))
		*mode &= ~(mode_t)S_ISGID;
}

int may_create(const struct vfs_ctx *ctx, struct dentry *dir)
{
	if (dir->flags & DENTRY_DEAD)
		return -ENOENT;
	return inode_permission(ctx, dir->inode, MAY_WRITE | MAY_EXEC);
}

int may_delete(const struct vfs_ctx *ctx, struct dentry *dir, struct dentry *victim, bool isdir)
{
	const struct inode *inode = victim->inode, *parent = dir->inode;
	int err = inode_permission(ctx, dir->inode, MAY_WRITE | MAY_EXEC);

	if (err)
		return err;
	if ((parent->mode & S_ISVTX) && ctx->cred->fsuid != inode->uid &&
	    ctx->cred->fsuid != parent->uid && !cred_capable(ctx->cred, CAP_FOWNER))
		return -EPERM;
	if (isdir && !S_ISDIR(inode->mode))
		return -ENOTDIR;
	if (!isdir && S_ISDIR(inode->mode))
		return -EISDIR;
	if (dir->flags & DENTRY_DEAD)
		return -ENOENT;
	return 0;
}

struct dentry *dir_create_locked(const struct vfs_ctx *ctx, struct dentry *dir, const char *name,
				 size_t len, mode_t mode, dev_t rdev, const char *symlink)
{
	const struct inode_ops *ops = dir->inode->ops;
	struct inode *inode;
	struct dentry *d;
	int err;

	if (!ops->create)
		return ERR_PTR(-EPERM);
	d = dentry_alloc(dir->super, dir, name, len);
	if (!d)
		return ERR_PTR(-ENOMEM);
	err = ops->create(ctx, dir->inode, d, mode, rdev, symlink, &inode);
	if (err) {
		dentry_unpin(d);
		dentry_put(d);
		return ERR_PTR(err);
	}
	dentry_add(d, inode);
	return d;
}

/* Makes the last name of @w, whatever it is to be. */
static int walk_create(struct walk *w, mode_t mode, dev_t rdev, const char *symlink)
{
	struct dentry *dir = w->cur.dentry, *d;
	int err;

	if (w->last_type != LAST_NORM)
		return -EEXIST;
	write_lock(&dir->inode->lock);
	d = dir_lookup_locked(dir, w->last, w->last_len);
	if (!IS_ERR(d)) {
		dentry_put(d);
		err = -EEXIST;
		goto out_unlock;
	}
	err = (int)PTR_ERR(d);
	if (err != -ENOENT || (w->trailing && !S_ISDIR(mode)))
		goto out_unlock;
	err = mount_writable(w->cur.mnt);
	if (!err)
		err = may_create(w->ctx, dir);
	if (err)
		goto out_unlock;
	err = -EPERM;
	if ((S_ISCHR(mode) || S_ISBLK(mode)) && rdev && !cred_capable(w->ctx->cred, CAP_MKNOD))
		goto out_unlock;
	d = dir_create_locked(w->ctx, dir, w->last, w->last_len, mode, rdev, symlink);
	err = PTR_ERR_OR_ZERO(d);
out_unlock:
	write_unlock(&dir->inode->lock);
	if (!err) {
		notify_dentry(d, IN_CREATE);
		dentry_put(d);
	}
	return err;
}

static int vfs_create(const struct vfs_ctx *ctx, const struct path *base, const char *name,
		      mode_t mode, dev_t rdev, const char *symlink)
{
	struct walk w;
	int err = walk_init(&w, ctx, base, name, 0);

	if (!err)
		err = walk_to_last(&w);
	if (!err)
		err = walk_create(&w, mode, rdev, symlink);
	walk_fini(&w);
	return err;
}

int vfs_mknod(const struct vfs_ctx *ctx, const struct path *base, const char *name, mode_t mode,
	      dev_t rdev)
{
	switch (mode & S_IFMT) {
	case 0:
		mode |= S_IFREG;
		break;
	case S_IFREG:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	case S_IFDIR:
		return -EPERM;
	default:
		return -EINVAL;
	}
	if (!S_ISCHR(mode) && !S_ISBLK(mode))
		rdev = 0;
	mode &= S_IFMT | 07777;
	return vfs_create(ctx, base, name, mode & ~ctx_umask(ctx), rdev, NULL);
}

int vfs_mkdir(const struct vfs_ctx *ctx, const struct path *base, const char *name, mode_t mode)
{
	mode &= 01777 & ~ctx_umask(ctx);
	return vfs_create(ctx, base, name, S_IFDIR | mode, 0, NULL);
}

int vfs_symlink(const struct vfs_ctx *ctx, const char *target, const struct path *base,
		const char *name)
{
	if (!*target)
		return -ENOENT;
	return vfs_create(ctx, base, name, S_IFLNK | 0777, 0, target);
}

/* The checks of link(2) that need the new directory's lock, and the deed. */
static struct dentry *link_locked(struct walk *w, const struct path *old)
{
	struct dentry *dir = w->cur.dentry, *d;
	struct inode *inode = old->dentry->inode;
	int err;

	d = dir_lookup_locked(dir, w->last, w->last_len);
	if (!IS_ERR(d)) {
		dentry_put(d);
		return ERR_PTR(-EEXIST);
	}
	if (PTR_ERR(d) != -ENOENT)
		return d;
	if (w->trailing)
		return ERR_PTR(-ENOENT);
	err = mount_writable(w->cur.mnt);
	if (!err && old->mnt != w->cur.mnt)
		err = -EXDEV;
	if (!err)
		err = may_create(w->ctx, dir);
	if (!err && (S_ISDIR(inode->mode) || !dir->inode->ops->link))
		err = -EPERM;
	if (!err && !inode->nlink && !(inode->flags & INODE_LINKABLE))
		err = -ENOENT;
	if (err)
		return ERR_PTR(err);
	d = dentry_alloc(dir->super, dir, w->last, w->last_len);
	if (!d)
		return ERR_PTR(-ENOMEM);
	write_lock_nested(&inode->lock);
	err = dir->inode->ops->link(inode, dir->inode, d);
	/* An O_TMPFILE is named once; after that it is a file like any other. */
	if (!err)
		atomic_fetch_and(&inode->flags, ~(unsigned int)INODE_LINKABLE);
	write_unlock(&inode->lock);
	if (err) {
		dentry_unpin(d);
		dentry_put(d);
		return ERR_PTR(err);
	}
	dentry_add(d, inode_get(inode));
	return d;
}

int vfs_link(const struct vfs_ctx *ctx, const struct path *old, const struct path *base,
	     const char *name)
{
	struct walk w;
	struct dentry *d;
	int err = walk_init(&w, ctx, base, name, 0);

	if (!err)
		err = walk_to_last(&w);
	if (!err && w.last_type != LAST_NORM)
		err = -EEXIST;
	if (err)
		goto out_fini;
	write_lock(&w.cur.dentry->inode->lock);
	d = link_locked(&w, old);
	write_unlock(&w.cur.dentry->inode->lock);
	err = PTR_ERR_OR_ZERO(d);
	if (!err) {
		notify_inode(old->dentry->inode, IN_ATTRIB);
		notify_dentry(d, IN_CREATE);
		dentry_put(d);
	}
out_fini:
	walk_fini(&w);
	return err;
}

/* unlink and rmdir behind the walk; the victim comes back for the events. */
static int remove_locked(struct walk *w, bool isdir, struct dentry **out)
{
	struct dentry *dir = w->cur.dentry, *d;
	const struct inode_ops *ops = dir->inode->ops;
	int err;

	d = dir_lookup_locked(dir, w->last, w->last_len);
	if (IS_ERR(d))
		return (int)PTR_ERR(d);
	*out = d;
	if (!isdir && w->trailing)
		return S_ISDIR(d->inode->mode) ? -EISDIR : -ENOTDIR;
	err = may_delete(w->ctx, dir, d, isdir);
	if (err)
		return err;
	if (isdir ? !ops->rmdir : !ops->unlink)
		return -EPERM;
	if (d->flags & DENTRY_MOUNTED)
		return -EBUSY;
	write_lock_nested(&d->inode->lock);
	err = isdir ? ops->rmdir(dir->inode, d) : ops->unlink(dir->inode, d);
	if (!err) {
		if (isdir)
			atomic_fetch_or(&d->flags, DENTRY_DEAD);
		dentry_remove(d);
	}
	write_unlock(&d->inode->lock);
	return err;
}

static int walk_remove(struct walk *w, bool isdir)
{
	struct inode *dir = w->cur.dentry->inode;
	struct dentry *d = NULL;
	int err = mount_writable(w->cur.mnt);

	if (err)
		return err;
	write_lock(&dir->lock);
	err = remove_locked(w, isdir, &d);
	write_unlock(&dir->lock);
	if (!err) {
		notify_name(dir, IN_DELETE, 0, d->name, isdir);
		if (!isdir)
			notify_inode(d->inode, IN_ATTRIB);
	}
	dentry_put(d);
	return err;
}

int vfs_unlink(const struct vfs_ctx *ctx, const struct path *base, const char *name)
{
	struct walk w;
	int err = walk_init(&w, ctx, base, name, 0);

	if (!err)
		err = walk_to_last(&w);
	if (!err)
		err = w.last_type == LAST_NORM ? walk_remove(&w, false) : -EISDIR;
	walk_fini(&w);
	return err;
}

int vfs_rmdir(const struct vfs_ctx *ctx, const struct path *base, const char *name)
{
	static const int special[] = {
		[LAST_DOT] = -EINVAL, [LAST_DOTDOT] = -ENOTEMPTY, [LAST_ROOT] = -EBUSY};
	struct walk w;
	int err = walk_init(&w, ctx, base, name, 0);

	if (!err)
		err = walk_to_last(&w);
	if (!err)
		err = w.last_type == LAST_NORM ? walk_remove(&w, true) : special[w.last_type];
	walk_fini(&w);
	return err;
}

/* ---- rename ---- */

struct rename {
	struct walk old_walk, new_walk;
	struct dentry *old_dir, *new_dir; /* borrowed from the walks */
	struct dentry *old, *target;	  /* references; target may be NULL */
	unsigned int flags;
};

/* Two directories: the ancestor first, else by address. rename_lock holds the tree still meanwhile.
 */
static void rename_lock_dirs(struct rename *r)
{
	struct inode *a = r->old_dir->inode, *b = r->new_dir->inode, *swap;

	if (a == b) {
		write_lock(&a->lock);
		return;
	}
	mutex_lock(&r->old_dir->super->rename_lock);
	if (dentry_is_under(r->old_dir, r->new_dir) ||
	    (!dentry_is_under(r->new_dir, r->old_dir) && b < a)) {
		swap = a;
		a = b;
		b = swap;
	}
	write_lock(&a->lock);
	write_lock_nested(&b->lock);
}

static void rename_unlock_dirs(struct rename *r)
{
	write_unlock(&r->old_dir->inode->lock);
	if (r->old_dir->inode == r->new_dir->inode)
		return;
	write_unlock(&r->new_dir->inode->lock);
	mutex_unlock(&r->old_dir->super->rename_lock);
}

static int rename_lookup_locked(struct rename *r)
{
	bool exchange = r->flags & RENAME_EXCHANGE;
	struct dentry *d;

	d = dir_lookup_locked(r->old_dir, r->old_walk.last, r->old_walk.last_len);
	if (IS_ERR(d))
		return (int)PTR_ERR(d);
	r->old = d;
	d = dir_lookup_locked(r->new_dir, r->new_walk.last, r->new_walk.last_len);
	if (!IS_ERR(d))
		r->target = d;
	else if (PTR_ERR(d) != -ENOENT || exchange)
		return (int)PTR_ERR(d);
	if ((r->flags & RENAME_NOREPLACE) && r->target)
		return -EEXIST;
	if (exchange && !S_ISDIR(r->target->inode->mode) && r->new_walk.trailing)
		return -ENOTDIR;
	if (!S_ISDIR(r->old->inode->mode) &&
	    (r->old_walk.trailing || (!exchange && r->new_walk.trailing)))
		return -ENOTDIR;
	if (r->old_dir == r->new_dir)
		return 0;
	if (S_ISDIR(r->old->inode->mode) && dentry_is_under(r->new_dir, r->old))
		return -EINVAL;
	if (r->target && S_ISDIR(r->target->inode->mode) && dentry_is_under(r->old_dir, r->target))
		return exchange ? -EINVAL : -ENOTEMPTY;
	return 0;
}

static int rename_check_locked(const struct vfs_ctx *ctx, struct rename *r)
{
	bool isdir = S_ISDIR(r->old->inode->mode), exchange = r->flags & RENAME_EXCHANGE;
	bool target_isdir = r->target && S_ISDIR(r->target->inode->mode);
	int err = may_delete(ctx, r->old_dir, r->old, isdir);

	if (err)
		return err;
	if (!r->target)
		err = may_create(ctx, r->new_dir);
	else
		err = may_delete(ctx, r->new_dir, r->target, exchange ? target_isdir : isdir);
	if (err)
		return err;
	if (!r->old_dir->inode->ops->rename)
		return -EPERM;
	/* A directory that moves has its ".." rewritten. */
	if (r->old_dir != r->new_dir) {
		if (isdir)
			err = inode_permission(ctx, r->old->inode, MAY_WRITE);
		if (!err && exchange && target_isdir)
			err = inode_permission(ctx, r->target->inode, MAY_WRITE);
		if (err)
			return err;
	}
	if ((r->old->flags & DENTRY_MOUNTED) || (r->target && (r->target->flags & DENTRY_MOUNTED)))
		return -EBUSY;
	return 0;
}

static int rename_in_fs(struct rename *r, struct dentry *to)
{
	struct inode *victim = to->inode;
	int err;

	if (victim)
		write_lock_nested(&victim->lock);
	err = r->old_dir->inode->ops->rename(r->old_dir->inode, r->old, r->new_dir->inode, to,
					     r->flags);
	if (victim)
		write_unlock(&victim->lock);
	return err;
}

static char *name_copy(const char *name, size_t len)
{
	char *s = kmalloc(len + 1);

	if (s) {
		memcpy(s, name, len);
		s[len] = '\0';
	}
	return s;
}

/* The filesystem's part and the names. What may fail comes first. */
static int rename_commit_locked(struct rename *r)
{
	struct walk *nw = &r->new_walk;
	struct dentry *to = r->target;
	bool exchange = r->flags & RENAME_EXCHANGE;
	char *name = name_copy(nw->last, nw->last_len), *old_name = NULL;
	int err = -ENOMEM;

	if (exchange)
		old_name = name_copy(r->old->name, r->old->name_len);
	/* Without a target the filesystem is told the new name by an unhashed negative dentry. */
	if (!to)
		to = dentry_alloc(r->new_dir->super, r->new_dir, nw->last, nw->last_len);
	if (name && to && (old_name || !exchange))
		err = rename_in_fs(r, to);
	if (err >= 0 && r->target && !exchange && S_ISDIR(r->target->inode->mode))
		atomic_fetch_or(&r->target->flags, DENTRY_DEAD);
	if (!err && exchange) {
		dentry_exchange(r->old, r->target, old_name, name);
		name = old_name = NULL;
	} else if (!err) {
		dentry_move(r->old, r->new_dir, name, nw->last_len, r->target, NULL);
		name = NULL;
	}
	if (to != r->target)
		dentry_put(to);
	kfree(name);
	kfree(old_name);
	return err < 0 ? err : 0;
}

static void rename_notify(struct rename *r, const char *old_name)
{
	bool isdir = S_ISDIR(r->old->inode->mode);
	uint32_t cookie = notify_move_cookie();

	notify_name(r->old_dir->inode, IN_MOVED_FROM, cookie, old_name, isdir);
	notify_name(r->new_dir->inode, IN_MOVED_TO, cookie, r->old->name, isdir);
	notify_inode(r->old->inode, IN_MOVE_SELF);
	if (r->target && !(r->flags & RENAME_EXCHANGE) && !isdir)
		notify_inode(r->target->inode, IN_ATTRIB);
}

static int rename_walks(const struct vfs_ctx *ctx, struct rename *r)
{
	enum walk_last type = r->new_walk.last_type;
	int err;

	if (r->old_walk.cur.mnt != r->new_walk.cur.mnt)
		return -EXDEV;
	if (r->old_walk.last_type != LAST_NORM)
		return -EBUSY;
	if (type != LAST_NORM)
		return (r->flags & RENAME_NOREPLACE) ? -EEXIST : -EBUSY;
	err = mount_writable(r->old_walk.cur.mnt);
	if (err)
		return err;
	r->old_dir = r->old_walk.cur.dentry;
	r->new_dir = r->new_walk.cur.dentry;
	return 0;
}

static int rename_run(const struct vfs_ctx *ctx, struct rename *r)
{
	char old_name[NAME_MAX_LEN + 1];
	bool done = false;
	int err = rename_walks(ctx, r);

	if (err)
		return err;
	rename_lock_dirs(r);
	err = rename_lookup_locked(r);
	/* Two names of one file: nothing to do, says POSIX. */
	if (!err && r->target && r->target->inode == r->old->inode)
		goto out_unlock;
	if (!err)
		err = rename_check_locked(ctx, r);
	if (err)
		goto out_unlock;
	memcpy(old_name, r->old->name, r->old->name_len + 1);
	err = rename_commit_locked(r);
	done = !err;
out_unlock:
	rename_unlock_dirs(r);
	if (done)
		rename_notify(r, old_name);
	return err;
}

int vfs_rename(const struct vfs_ctx *ctx, const struct path *old_base, const char *old_name,
	       const struct path *new_base, const char *new_name, unsigned int flags)
{
	struct rename r = {.flags = flags};
	int err;

	if (flags & ~(unsigned int)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	if ((flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)) && (flags & RENAME_EXCHANGE))
		return -EINVAL;
	/* Whiteouts are an overlay's inside; nothing in here makes them for applications. */
	if (flags & RENAME_WHITEOUT)
		return cred_capable(ctx->cred, CAP_MKNOD) ? -EINVAL : -EPERM;
	err = walk_init(&r.old_walk, ctx, old_base, old_name, 0);
	if (!err)
		err = walk_to_last(&r.old_walk);
	if (err)
		goto out_old;
	err = walk_init(&r.new_walk, ctx, new_base, new_name, 0);
	if (!err)
		err = walk_to_last(&r.new_walk);
	if (!err)
		err = rename_run(ctx, &r);
	dentry_put(r.old);
	dentry_put(r.target);
	walk_fini(&r.new_walk);
out_old:
	walk_fini(&r.old_walk);
	return err;
}

char *vfs_readlink(const struct vfs_ctx *ctx, const struct path *path)
{
	struct inode *inode = path->dentry->inode;

	if (!S_ISLNK(inode->mode) || (!inode->ops->readlink && !inode->ops->jump))
		return ERR_PTR(-EINVAL);
	path_accessed(path);
	if (!inode->ops->readlink) {
		struct path to, root;
		char *s;
		int err = inode->ops->jump(ctx, inode, &to);

		if (err)
			return ERR_PTR(err);
		fs_context_root(ctx->fs, &root);
		s = path_name(&to, &root);
		path_put(&root);
		path_put(&to);
		return s ? s : ERR_PTR(-ENOMEM);
	}
	return inode->ops->readlink(ctx, inode);
}
