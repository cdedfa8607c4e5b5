/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories of the in-memory filesystem. What was made here, or has been looked up in the image,
 * is a pinned dentry; a name of the image that was removed or replaced is a pinned whiteout or the
 * replacement.
 *
 * Positions for getdents: 0 ".", 1 "..", then the image's entries (2 + the image's own position),
 * then what was made here, by the rising cookie of its dentry. None of them moves when entries come
 * and go, so a directory can be emptied while it is read.
 */
#include <dirent.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/mount.h>

#include "vfs/memfs.h"

#define POS_LOWER 2ULL
#define POS_UPPER (1ULL << 40)

static bool memfs_lower_has(struct inode *dir, const char *name, size_t len)
{
	struct memfs_node *node = memfs_node(dir);

	return node->has_lower && lower_has(memfs_of(dir->super)->lower, &node->lower, name, len);
}

/* ---- looking up in the image ---- */

struct inode *rootfs_inode(struct super *sb, const struct lower_inode *lower)
{
	struct inode *inode = memfs_inode(sb, lower->mode, lower->uid, lower->gid, lower->rdev);
	struct memfs_node *node;

	if (IS_ERR(inode))
		return inode;
	node = memfs_node(inode);
	node->has_lower = true;
	node->lower = *lower;
	node->lower_size = S_ISREG(lower->mode) ? lower->size : 0;
	inode->ino = lower->ino;
	inode->nlink = lower->nlink;
	inode->size = lower->size;
	inode->blocks = (lower->size + PAGE_SIZE - 1) / PAGE_SIZE * (PAGE_SIZE / 512);
	inode->atime = inode->mtime = inode->ctime = inode->btime = lower->mtime;
	memfs_set_ops(inode);
	return inode;
}

/* An inode with several names is one inode, whichever is looked up: kept until the last name goes.
 */
static struct inode *rootfs_linked_inode(struct super *sb, const struct lower_inode *lower)
{
	struct memfs *fs = memfs_of(sb);
	struct inode *inode, *other;
	int err = 0;

	mutex_lock(&fs->lock);
	other = (struct inode *)(uintptr_t)radix_get(&fs->links, lower->ino);
	if (other)
		inode_get(other);
	mutex_unlock(&fs->lock);
	if (other)
		return other;
	inode = rootfs_inode(sb, lower);
	if (IS_ERR(inode))
		return inode;
	/* The directories of two names have different locks: look again. */
	mutex_lock(&fs->lock);
	other = (struct inode *)(uintptr_t)radix_get(&fs->links, lower->ino);
	if (other) {
		inode_get(other);
	} else {
		err = radix_set(&fs->links, lower->ino, (uint64_t)(uintptr_t)inode);
		if (!err) {
			memfs_node(inode)->linked = true;
			inode_get(inode);
		}
	}
	mutex_unlock(&fs->lock);
	if (!other && !err)
		return inode;
	inode_put(inode);
	return other ? other : ERR_PTR(err);
}

/* The last name of a file with several has gone. */
static void memfs_unlinked(struct inode *inode)
{
	struct memfs *fs = memfs_of(inode->super);
	bool was = false;

	if (inode->nlink || !memfs_node(inode)->linked)
		return;
	mutex_lock(&fs->lock);
	if (memfs_node(inode)->linked) {
		memfs_node(inode)->linked = false;
		(void)!radix_set(&fs->links, memfs_node(inode)->lower.ino, 0);
		was = true;
	}
	mutex_unlock(&fs->lock);
	/* The dentry that is being removed still holds one. */
	if (was)
		inode_put(inode);
}

static struct inode *rootfs_lookup(struct inode *dir, struct dentry *dentry)
{
	struct lower_inode lower;
	struct inode *inode;
	int err = lower_lookup(memfs_of(dir->super)->lower, &memfs_node(dir)->lower, dentry->name,
			       dentry->name_len, &lower);

	if (err)
		return ERR_PTR(err);
	if (lower.nlink > 1 && !S_ISDIR(lower.mode))
		inode = rootfs_linked_inode(dir->super, &lower);
	else
		inode = rootfs_inode(dir->super, &lower);
	if (!IS_ERR(inode)) {
		atomic_fetch_or(&dentry->flags, DENTRY_LOWER);
		dentry_pin(dentry);
	}
	return inode;
}

/* ---- making and removing ---- */

static void dir_changed(struct inode *dir)
{
	inode_touch(dir, INODE_MTIME | INODE_CTIME);
}

/* The whiteout of that name, or NULL; with a reference. */
static struct dentry *whiteout_find(struct dentry *dir, const char *name, size_t len)
{
	struct dentry *d = dentry_find(dir, name, len);

	if (d && !d->inode)
		return d;
	dentry_put(d);
	return NULL;
}

/* An unhashed whiteout, already pinned; the caller hashes it. */
static struct dentry *whiteout_alloc(struct dentry *dir, const char *name, size_t len)
{
	struct dentry *w = dentry_alloc(dir->super, dir, name, len);

	if (!w)
		return NULL;
	atomic_fetch_or(&w->flags, DENTRY_WHITEOUT);
	dentry_pin(w);
	return w;
}

static int memfs_create(const struct vfs_ctx *ctx, struct inode *dir, struct dentry *dentry,
			mode_t mode, dev_t rdev, const char *symlink, struct inode **out)
{
	struct dentry *whiteout;
	struct inode *inode;
	uid_t uid;
	gid_t gid;

	inode_inherit(ctx, dir, &mode, &uid, &gid);
	inode = memfs_inode(dir->super, mode, uid, gid, rdev);
	if (IS_ERR(inode))
		return (int)PTR_ERR(inode);
	if (symlink) {
		memfs_node(inode)->symlink = kstrdup(symlink);
		if (!memfs_node(inode)->symlink) {
			inode_put(inode);
			return -ENOMEM;
		}
		inode->size = strlen(symlink);
	}
	whiteout = whiteout_find(dentry->parent, dentry->name, dentry->name_len);
	if (whiteout) {
		dentry_remove(whiteout);
		dentry_put(whiteout);
	}
	if (S_ISDIR(mode))
		dir->nlink++;
	dir_changed(dir);
	dentry_pin(dentry);
	*out = inode;
	return 0;
}

static struct inode *memfs_tmpfile(const struct vfs_ctx *ctx, struct inode *dir, mode_t mode)
{
	struct inode *inode;
	uid_t uid;
	gid_t gid;

	inode_inherit(ctx, dir, &mode, &uid, &gid);
	inode = memfs_inode(dir->super, mode, uid, gid, 0);
	if (!IS_ERR(inode))
		inode->nlink = 0;
	return inode;
}

static int memfs_link(struct inode *inode, struct inode *dir, struct dentry *dentry)
{
	struct dentry *whiteout = whiteout_find(dentry->parent, dentry->name, dentry->name_len);

	if (whiteout) {
		dentry_remove(whiteout);
		dentry_put(whiteout);
	}
	inode->nlink++;
	inode_touch(inode, INODE_CTIME);
	dir_changed(dir);
	dentry_pin(dentry);
	return 0;
}

/* Leaves a whiteout if the image has the name: it is found first from now on. */
static int memfs_hide_lower(struct inode *dir, struct dentry *dentry)
{
	struct dentry *w;

	if (!(dentry->flags & DENTRY_LOWER) &&
	    !memfs_lower_has(dir, dentry->name, dentry->name_len))
		return 0;
	w = whiteout_alloc(dentry->parent, dentry->name, dentry->name_len);
	if (!w)
		return -ENOMEM;
	dentry_add(w, NULL);
	dentry_put(w);
	return 0;
}

static int memfs_unlink(struct inode *dir, struct dentry *dentry)
{
	struct inode *inode = dentry->inode;
	int err = memfs_hide_lower(dir, dentry);

	if (err)
		return err;
	inode->nlink--;
	inode_touch(inode, INODE_CTIME);
	dir_changed(dir);
	memfs_unlinked(inode);
	return 0;
}

struct empty_check {
	struct dentry *dir;
	bool empty;
};

static bool empty_emit(void *arg, const char *name, size_t len, uint64_t ino, unsigned int type,
		       uint64_t next)
{
	struct empty_check *check = arg;
	struct dentry *d = dentry_find(check->dir, name, len);

	/* Positive ones have been counted among the children. */
	if (!d)
		check->empty = false;
	dentry_put(d);
	return check->empty;
}

/* No names but whiteouts, here or in the image. The directory's lock is held. */
static int memfs_dir_empty(struct dentry *dir)
{
	struct empty_check check = {.dir = dir, .empty = true};
	struct memfs_node *node = memfs_node(dir->inode);
	struct dentry *child;
	int err = 0;

	read_lock(&vfs_state->tree);
	list_for_each_entry (child, &dir->children, sibling) {
		if (child->inode) {
			check.empty = false;
			break;
		}
	}
	read_unlock(&vfs_state->tree);
	if (check.empty && node->has_lower)
		err = lower_readdir(memfs_of(dir->super)->lower, &node->lower, 0, empty_emit,
				    &check);
	if (err)
		return err;
	return check.empty ? 0 : -ENOTEMPTY;
}

/* Whiteouts are names too: a removed directory sheds them, and with them their hold on it. */
static void memfs_drop_whiteouts(struct dentry *dir)
{
	for (;;) {
		struct dentry *child = NULL;

		read_lock(&vfs_state->tree);
		if (!list_empty(&dir->children)) {
			child = list_first_entry(&dir->children, struct dentry, sibling);
			dentry_get(child);
		}
		read_unlock(&vfs_state->tree);
		if (!child)
			return;
		dentry_remove(child);
		dentry_put(child);
	}
}

static int memfs_rmdir(struct inode *dir, struct dentry *dentry)
{
	int err = memfs_dir_empty(dentry);

	if (!err)
		err = memfs_hide_lower(dir, dentry);
	if (err)
		return err;
	memfs_drop_whiteouts(dentry);
	dentry->inode->nlink = 0;
	inode_touch(dentry->inode, INODE_CTIME);
	dir->nlink--;
	dir_changed(dir);
	return 0;
}

static int memfs_swap(struct inode *old_dir, struct dentry *old, struct inode *new_dir,
		      struct dentry *target)
{
	bool a = S_ISDIR(old->inode->mode), b = S_ISDIR(target->inode->mode);

	if (old_dir != new_dir && a != b) {
		old_dir->nlink += b ? 1 : -1ULL;
		new_dir->nlink += a ? 1 : -1ULL;
	}
	inode_touch(old->inode, INODE_CTIME);
	inode_touch(target->inode, INODE_CTIME);
	dir_changed(old_dir);
	dir_changed(new_dir);
	return 0;
}

static void memfs_rename_counts(struct inode *old_dir, struct dentry *old, struct inode *new_dir,
				struct inode *victim)
{
	bool isdir = S_ISDIR(old->inode->mode);

	if (victim) {
		victim->nlink = isdir ? 0 : victim->nlink - 1;
		inode_touch(victim, INODE_CTIME);
		if (isdir)
			new_dir->nlink--;
		else
			memfs_unlinked(victim);
	}
	if (isdir && old_dir != new_dir) {
		old_dir->nlink--;
		new_dir->nlink++;
	}
	inode_touch(old->inode, INODE_CTIME);
	dir_changed(old_dir);
	dir_changed(new_dir);
}

static int memfs_rename(struct inode *old_dir, struct dentry *old, struct inode *new_dir,
			struct dentry *target, unsigned int flags)
{
	struct inode *victim = target->inode;
	struct dentry *replaced = NULL, *whiteout = NULL;
	char *name;
	int err;

	if (flags & RENAME_EXCHANGE)
		return memfs_swap(old_dir, old, new_dir, target);
	if (victim && S_ISDIR(victim->mode)) {
		err = memfs_dir_empty(target);
		if (err)
			return err;
	}
	name = kstrdup(target->name);
	if (!name)
		return -ENOMEM;
	if ((old->flags & DENTRY_LOWER) || memfs_lower_has(old_dir, old->name, old->name_len)) {
		whiteout = whiteout_alloc(old->parent, old->name, old->name_len);
		if (!whiteout) {
			kfree(name);
			return -ENOMEM;
		}
	}
	if (victim && S_ISDIR(victim->mode))
		memfs_drop_whiteouts(target);
	replaced = victim ? dentry_get(target)
			  : whiteout_find(target->parent, target->name, target->name_len);
	memfs_rename_counts(old_dir, old, new_dir, victim);
	dentry_move(old, target->parent, name, target->name_len, replaced, whiteout);
	dentry_put(replaced);
	dentry_put(whiteout);
	return 1;
}

/* ---- reading ---- */

struct dir_read {
	struct dir_sink *sink;
	struct file *file;
	struct dentry *dir;
	bool full;
};

static bool lower_emit(void *arg, const char *name, size_t len, uint64_t ino, unsigned int type,
		       uint64_t next)
{
	struct dir_read *r = arg;
	struct dentry *d = dentry_find(r->dir, name, len);
	bool shown = !d || (d->inode && (d->flags & DENTRY_LOWER));

	dentry_put(d);
	if (shown && !r->sink->emit(r->sink, name, len, ino, type, POS_LOWER + next)) {
		r->full = true;
		return false;
	}
	r->file->pos = POS_LOWER + next;
	return true;
}

/*
 * The first name made here whose cookie is above @after, with a reference; or NULL. The children
 * are in cookie order; @hint is one that was returned before (reference consumed), from which to go
 * on.
 */
static struct dentry *upper_next(struct dentry *dir, uint64_t after, struct dentry *hint)
{
	struct dentry *child, *found = NULL;
	struct list_head *pos = &dir->children;

	read_lock(&vfs_state->tree);
	if (hint && hint->parent == dir && (hint->flags & DENTRY_HASHED) && hint->cookie <= after)
		pos = &hint->sibling;
	for (pos = pos->next; pos != &dir->children; pos = pos->next) {
		child = list_entry(pos, struct dentry, sibling);
		if (child->cookie > after && child->inode && !(child->flags & DENTRY_LOWER)) {
			found = dentry_get(child);
			break;
		}
	}
	read_unlock(&vfs_state->tree);
	dentry_put(hint);
	return found;
}

static void upper_read(struct dir_read *r)
{
	struct file *file = r->file;
	struct dentry *d = NULL;
	uint64_t after = file->pos > POS_UPPER ? file->pos - POS_UPPER : 0;

	while ((d = upper_next(r->dir, after, d)) != NULL) {
		struct inode *inode = d->inode;

		if (!r->sink->emit(r->sink, d->name, d->name_len, inode->ino, IFTODT(inode->mode),
				   POS_UPPER + d->cookie)) {
			dentry_put(d);
			return;
		}
		after = d->cookie;
		file->pos = POS_UPPER + after;
	}
}

/*
 * Holds the directory's lock shared: no name comes, goes or moves meanwhile. The sink may copy to
 * the caller's memory.
 */
static int memfs_iterate(const struct vfs_ctx *ctx, struct file *file, struct dir_sink *sink)
{
	struct dentry *dir = file->path.dentry, *parent;
	struct memfs_node *node = memfs_node(dir->inode);
	struct dir_read r = {.sink = sink, .file = file, .dir = dir};
	uint64_t ino;
	int err = 0;

	read_lock(&dir->inode->lock);
	if (file->pos == 0) {
		if (!sink->emit(sink, ".", 1, dir->inode->ino, DT_DIR, 1))
			goto out_unlock;
		file->pos = 1;
	}
	if (file->pos == 1) {
		parent = dentry_parent(dir);
		ino = parent->inode->ino;
		dentry_put(parent);
		if (!sink->emit(sink, "..", 2, ino, DT_DIR, POS_LOWER))
			goto out_unlock;
		file->pos = POS_LOWER;
	}
	if (file->pos < POS_UPPER) {
		if (node->has_lower)
			err = lower_readdir(memfs_of(dir->super)->lower, &node->lower,
					    file->pos - POS_LOWER, lower_emit, &r);
		if (err || r.full)
			goto out_unlock;
		file->pos = POS_UPPER;
	}
	upper_read(&r);
out_unlock:
	read_unlock(&dir->inode->lock);
	return err;
}

static ssize_t memfs_dir_read(struct kiocb *io, struct iov_iter *to)
{
	return -EISDIR;
}

static int64_t memfs_dir_llseek(struct file *file, int64_t offset, int whence)
{
	if (whence == SEEK_CUR)
		offset += (int64_t)file->pos;
	else if (whence != SEEK_SET)
		return -EINVAL;
	if (offset < 0)
		return -EINVAL;
	file->pos = (uint64_t)offset;
	return offset;
}

const struct file_ops memfs_dir_fops = {
	.read = memfs_dir_read,
	.llseek = memfs_dir_llseek,
	.iterate = memfs_iterate,
};

#define MEMFS_DIR_OPS                                                                              \
	.create = memfs_create, .link = memfs_link, .unlink = memfs_unlink, .rmdir = memfs_rmdir,  \
	.rename = memfs_rename, .tmpfile = memfs_tmpfile, .getxattr = memfs_getxattr,              \
	.setxattr = memfs_setxattr, .listxattr = memfs_listxattr, .evict = memfs_evict

const struct inode_ops memfs_dir_ops = {MEMFS_DIR_OPS};
const struct inode_ops rootfs_dir_ops = {MEMFS_DIR_OPS, .lookup = rootfs_lookup};
