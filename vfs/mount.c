/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts: trees of supers' subtrees. The hash leads from a mountpoint dentry to what covers it;
 * DENTRY_MOUNTED on the dentry saves everybody else the look-up.
 *
 * A mount is attached (in a namespace, which holds a reference) or detached (held by paths only;
 * its own top). Detaching takes the whole subtree apart, so an attached mount's parent is always
 * attached. Everything here is under vfs_state->mnt; references are dropped after unlocking,
 * because the last one may evict inodes.
 *
 * Differs from Linux: propagation types are recorded and shown, but a mount event stays in its own
 * namespace.
 */
#include <string.h>
#include <sys/mount.h>

#include "vfs/internal.h"

OBJTYPE(mount_objtype, "mount");

void (*vfs_chroot_hook)(const struct path *from, const struct path *to);

struct mount *mount_alloc(struct super *sb, struct dentry *root, unsigned long flags)
{
	struct mount *mnt = kzalloc(sizeof(*mnt));

	if (!mnt)
		return NULL;
	refcount_init(&mnt->refs, 1);
	mnt->super = super_get(sb);
	mnt->root = dentry_get(root);
	mnt->parent = mnt;
	mnt->flags = flags;
	list_init(&mnt->children);
	list_init(&mnt->sibling);
	list_init(&mnt->ns_node);
	list_init(&mnt->hash);
	objtype_inc(&mount_objtype);
	return mnt;
}

struct mount *mount_get(struct mount *mnt)
{
	refcount_get(&mnt->refs);
	return mnt;
}

void mount_put(struct mount *mnt)
{
	if (!mnt || !refcount_put(&mnt->refs))
		return;
	dentry_put(mnt->mountpoint);
	dentry_put(mnt->root);
	super_put(mnt->super);
	objtype_dec(&mount_objtype);
	kfree(mnt);
}

static struct list_head *mnt_bucket(const struct dentry *mountpoint)
{
	uint64_t h = ((uint64_t)(uintptr_t)mountpoint >> 5) * 0x9e3779b97f4a7c15ULL;
	struct list_head *head = &vfs_state->mnt_hash[(h >> 32) % MNT_BUCKETS];

	if (!head->next)
		list_init(head);
	return head;
}

bool mount_find_child_locked(struct mount *parent, struct dentry *mountpoint, struct mount **out)
{
	struct mount *mnt;

	list_for_each_entry (mnt, mnt_bucket(mountpoint), hash) {
		if (mnt->parent == parent && mnt->mountpoint == mountpoint) {
			*out = mnt;
			return true;
		}
	}
	return false;
}

struct mount *mount_lookup(const struct path *path)
{
	struct mount *mnt = NULL;

	read_lock(&vfs_state->mnt);
	if (mount_find_child_locked(path->mnt, path->dentry, &mnt))
		mount_get(mnt);
	read_unlock(&vfs_state->mnt);
	return mnt;
}

bool path_up_mount(struct path *path)
{
	struct path up;

	read_lock(&vfs_state->mnt);
	if (path->mnt->parent == path->mnt) {
		read_unlock(&vfs_state->mnt);
		return false;
	}
	up.mnt = path->mnt->parent;
	up.dentry = path->mnt->mountpoint;
	path_get(&up);
	read_unlock(&vfs_state->mnt);
	path_put(path);
	*path = up;
	return true;
}

void mount_attach_locked(struct mount *mnt, struct mount *parent, struct dentry *mountpoint)
{
	mnt->parent = parent;
	mnt->mountpoint = dentry_get(mountpoint);
	atomic_fetch_or(&mountpoint->flags, DENTRY_MOUNTED);
	list_add_tail(&mnt->sibling, &parent->children);
	list_add(&mnt->hash, mnt_bucket(mountpoint));
}

/* Leaves mnt->mountpoint's reference in place for mount_put: nothing is freed under the lock. */
void mount_detach_locked(struct mount *mnt)
{
	struct dentry *mountpoint = mnt->mountpoint;
	struct mount *other;

	list_del(&mnt->sibling);
	list_del(&mnt->hash);
	mnt->parent = mnt;
	if (!mountpoint)
		return;
	list_for_each_entry (other, mnt_bucket(mountpoint), hash)
		if (other->mountpoint == mountpoint)
			return;
	atomic_fetch_and(&mountpoint->flags, ~(uint32_t)DENTRY_MOUNTED);
}

struct mount *mount_next_locked(struct mount *pos, struct mount *root)
{
	if (!list_empty(&pos->children))
		return list_first_entry(&pos->children, struct mount, sibling);
	while (pos != root) {
		struct mount *parent = pos->parent;

		if (pos->sibling.next != &parent->children)
			return list_entry(pos->sibling.next, struct mount, sibling);
		pos = parent;
	}
	return NULL;
}

void mount_tree_dissolve_locked(struct mount *top, struct list_head *out)
{
	struct list_head all;
	struct mount *mnt, *tmp;

	list_init(&all);
	for (mnt = top; mnt; mnt = mount_next_locked(mnt, top)) {
		mnt->ns = NULL;
		list_del(&mnt->ns_node);
		list_add_tail(&mnt->ns_node, &all);
	}
	list_for_each_entry_safe (mnt, tmp, &all, ns_node) {
		mount_detach_locked(mnt);
		list_move_tail(&mnt->ns_node, out);
	}
}

void mount_release_list(struct list_head *list)
{
	while (!list_empty(list)) {
		struct mount *mnt = list_first_entry(list, struct mount, ns_node);

		list_del(&mnt->ns_node);
		mount_put(mnt);
	}
}

struct mount *mount_clone_locked(struct mount *old, struct dentry *root)
{
	struct mount *mnt = mount_alloc(old->super, root, old->flags & ~MNT_EXPIRE_MARK);

	if (!mnt)
		return NULL;
	mnt->group_id = old->group_id;
	mnt->id = vfs_state->next_mnt_id++;
	return mnt;
}

bool path_is_mount_root(const struct path *path)
{
	return path->dentry == path->mnt->root;
}

int mount_writable(const struct mount *mnt)
{
	return ((mnt->flags | mnt->super->flags) & MS_RDONLY) ? -EROFS : 0;
}

bool path_noexec(const struct path *path)
{
	return path->mnt->flags & MS_NOEXEC;
}

bool path_nosuid(const struct path *path)
{
	return path->mnt->flags & MS_NOSUID;
}

/*
 * Places the tree at @top (whose mounts' first references become the namespace's) on @at. The
 * mountpoint may have been covered meanwhile; what is topmost is covered then. Lock held.
 */
static int mount_graft_locked(struct mount *top, const struct path *at)
{
	struct mount *parent = at->mnt, *mnt;
	struct dentry *mountpoint = at->dentry;
	struct mnt_ns *ns = parent->ns;

	if (!ns)
		return -EINVAL;
	if (S_ISDIR(mountpoint->inode->mode) != S_ISDIR(top->root->inode->mode))
		return -ENOTDIR;
	if (dentry_unhashed(mountpoint))
		return -ENOENT;
	while (mount_find_child_locked(parent, mountpoint, &mnt)) {
		parent = mnt;
		mountpoint = mnt->root;
	}
	mount_attach_locked(top, parent, mountpoint);
	for (mnt = top; mnt; mnt = mount_next_locked(mnt, top)) {
		if (!mnt->id)
			mnt->id = vfs_state->next_mnt_id++;
		mnt->ns = ns;
		list_add_tail(&mnt->ns_node, &ns->mounts);
	}
	return 0;
}

static bool mount_visible(const struct vfs_ctx *ctx, const struct mount *mnt)
{
	return mnt->ns && (!ctx->mnt_ns || mnt->ns == ctx->mnt_ns);
}

static void mnt_ns_changed(struct mnt_ns *ns)
{
	if (ns)
		waitq_wake(&ns->changed, EPOLLERR | EPOLLPRI);
}

int mount_new(const struct vfs_ctx *ctx, struct super *sb, const struct path *at,
	      unsigned long flags)
{
	struct mount *mnt = mount_alloc(sb, sb->root, flags & MNT_FLAGS_USER);
	int err;

	super_put(sb);
	if (!mnt)
		return -ENOMEM;
	write_lock(&vfs_state->mnt);
	err = mount_visible(ctx, at->mnt) ? mount_graft_locked(mnt, at) : -EINVAL;
	write_unlock(&vfs_state->mnt);
	if (err)
		mount_put(mnt);
	else
		mnt_ns_changed(at->mnt->ns);
	return err;
}

unsigned int mount_depth_locked(const struct mount *mnt, const struct mount *top)
{
	unsigned int depth = 0;

	for (; mnt != top; mnt = mnt->parent)
		depth++;
	return depth;
}

struct mount *mount_above_locked(struct mount *mnt, const struct mount *top, unsigned int depth)
{
	for (unsigned int have = mount_depth_locked(mnt, top); have > depth; have--)
		mnt = mnt->parent;
	return mnt;
}

/* A copy of the mounts at and below @from. NULL: out of memory, nothing left. Lock held. */
static struct mount *mount_copy_tree_locked(const struct path *from, bool recursive)
{
	struct mount *src = from->mnt, *top, *copy, *pos, *dst;
	struct list_head gone;

	top = mount_clone_locked(src, from->dentry);
	if (!top || !recursive)
		return top;
	dst = top;
	for (pos = mount_next_locked(src, src); pos; pos = mount_next_locked(pos, src)) {
		struct mount *up;

		/* Children outside the subtree, and what hangs on them, are left out. */
		for (up = pos; up->parent != src; up = up->parent)
			;
		if (!dentry_is_under(up->mountpoint, from->dentry))
			continue;
		copy = mount_clone_locked(pos, pos->root);
		if (!copy)
			goto out_dissolve;
		dst = mount_above_locked(dst, top, mount_depth_locked(pos, src) - 1);
		mount_attach_locked(copy, dst, pos->mountpoint);
		dst = copy;
	}
	return top;

out_dissolve:
	list_init(&gone);
	mount_tree_dissolve_locked(top, &gone);
	/* Roots and mountpoints are held by the originals: no put here is the last but the mount's.
	 */
	mount_release_list(&gone);
	return NULL;
}

int mount_bind(const struct vfs_ctx *ctx, const struct path *from, const struct path *at,
	       bool recursive)
{
	struct list_head gone;
	struct mount *top;
	int err = -EINVAL;

	list_init(&gone);
	write_lock(&vfs_state->mnt);
	if (!mount_visible(ctx, at->mnt) || !mount_visible(ctx, from->mnt) ||
	    (from->mnt->flags & MS_UNBINDABLE))
		goto out_unlock;
	err = -ENOENT;
	if (dentry_unhashed(from->dentry))
		goto out_unlock;
	err = -ENOMEM;
	top = mount_copy_tree_locked(from, recursive);
	if (!top)
		goto out_unlock;
	err = mount_graft_locked(top, at);
	if (err)
		mount_tree_dissolve_locked(top, &gone);
out_unlock:
	write_unlock(&vfs_state->mnt);
	mount_release_list(&gone);
	if (!err)
		mnt_ns_changed(at->mnt->ns);
	return err;
}

int mount_remount(const struct vfs_ctx *ctx, const struct path *at, unsigned long flags, bool bind)
{
	struct mount *mnt = at->mnt;
	int err = -EINVAL;

	write_lock(&vfs_state->mnt);
	if (!path_is_mount_root(at) || !mount_visible(ctx, mnt))
		goto out_unlock;
	err = -EBUSY;
	if ((flags & MS_RDONLY) && mnt->writers > 0)
		goto out_unlock;
	err = 0;
	if (!bind) {
		/* A read-only super can't be talked into writing: its filesystem says so with
		 * EROFS. */
		if (flags & MS_RDONLY)
			mnt->super->flags |= MS_RDONLY;
		else
			mnt->super->flags &= ~MS_RDONLY;
	}
	mnt->flags = (mnt->flags & ~(unsigned long)MNT_FLAGS_USER) | (flags & MNT_FLAGS_USER);
out_unlock:
	write_unlock(&vfs_state->mnt);
	if (!err)
		mnt_ns_changed(mnt->ns);
	return err;
}

int mount_set_propagation(const struct vfs_ctx *ctx, const struct path *at, unsigned long type,
			  bool recursive)
{
	struct mount *mnt;
	int err = -EINVAL;

	if (type != MS_SHARED && type != MS_PRIVATE && type != MS_SLAVE && type != MS_UNBINDABLE)
		return -EINVAL;
	write_lock(&vfs_state->mnt);
	if (!path_is_mount_root(at) || !mount_visible(ctx, at->mnt))
		goto out_unlock;
	for (mnt = at->mnt; mnt; mnt = recursive ? mount_next_locked(mnt, at->mnt) : NULL) {
		mnt->flags &= ~(unsigned long)MS_UNBINDABLE;
		if (type == MS_SHARED) {
			if (!mnt->group_id)
				mnt->group_id = vfs_state->next_group++;
		} else {
			mnt->group_id = 0;
		}
		if (type == MS_UNBINDABLE)
			mnt->flags |= MS_UNBINDABLE;
	}
	err = 0;
out_unlock:
	write_unlock(&vfs_state->mnt);
	return err;
}

/* Is @mnt inside the tree at @top? */
static bool mount_is_under(const struct mount *mnt, const struct mount *top)
{
	while (mnt != top) {
		if (mnt->parent == mnt)
			return false;
		mnt = mnt->parent;
	}
	return true;
}

/* Detaches @mnt alone, with its children; its old mountpoint's reference goes to @old. */
static void mount_lift_locked(struct mount *mnt, struct dentry **old)
{
	*old = mnt->mountpoint;
	mount_detach_locked(mnt);
	mnt->mountpoint = NULL;
}

int mount_move(const struct vfs_ctx *ctx, const struct path *from, const struct path *at)
{
	struct mount *mnt = from->mnt, *parent = at->mnt, *over;
	struct dentry *mountpoint = at->dentry, *old = NULL;
	int err = -EINVAL;

	write_lock(&vfs_state->mnt);
	if (!path_is_mount_root(from) || mnt->parent == mnt || !mount_visible(ctx, mnt) ||
	    !mount_visible(ctx, parent))
		goto out_unlock;
	if (S_ISDIR(mountpoint->inode->mode) != S_ISDIR(mnt->root->inode->mode))
		goto out_unlock;
	err = -ENOENT;
	if (dentry_unhashed(mountpoint))
		goto out_unlock;
	while (mount_find_child_locked(parent, mountpoint, &over)) {
		parent = over;
		mountpoint = over->root;
	}
	err = -ELOOP;
	if (mount_is_under(parent, mnt))
		goto out_unlock;
	mount_lift_locked(mnt, &old);
	mount_attach_locked(mnt, parent, mountpoint);
	err = 0;
out_unlock:
	write_unlock(&vfs_state->mnt);
	dentry_put(old);
	if (!err)
		mnt_ns_changed(at->mnt->ns);
	return err;
}

int mount_umount(const struct vfs_ctx *ctx, const struct path *at, int flags)
{
	struct mount *mnt = at->mnt;
	struct mnt_ns *ns;
	struct list_head gone;
	int err = -EINVAL;

	if (flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW))
		return -EINVAL;
	if ((flags & MNT_EXPIRE) && (flags & (MNT_FORCE | MNT_DETACH)))
		return -EINVAL;
	list_init(&gone);
	write_lock(&vfs_state->mnt);
	ns = mnt->ns;
	if (!path_is_mount_root(at) || !mount_visible(ctx, mnt))
		goto out_unlock;
	if (mnt->parent == mnt) {
		err = (flags & (MNT_DETACH | MNT_EXPIRE)) ? -EINVAL : -EBUSY;
		goto out_unlock;
	}
	if (!(flags & MNT_DETACH)) {
		/* One reference is the namespace's, one the caller's path. */
		err = -EBUSY;
		if (!list_empty(&mnt->children) || refcount_read(&mnt->refs) > 2)
			goto out_unlock;
		if ((flags & MNT_EXPIRE) && !(mnt->flags & MNT_EXPIRE_MARK)) {
			mnt->flags |= MNT_EXPIRE_MARK;
			err = -EAGAIN;
			goto out_unlock;
		}
	}
	mount_tree_dissolve_locked(mnt, &gone);
	err = 0;
out_unlock:
	write_unlock(&vfs_state->mnt);
	mount_release_list(&gone);
	if (!err)
		mnt_ns_changed(ns);
	return err;
}

/* The conditions of pivot_root(2). Lock held. */
static int pivot_check_locked(const struct vfs_ctx *ctx, const struct path *root,
			      const struct path *new_root, const struct path *put_old)
{
	const struct mount *up = put_old->mnt;

	if (!mount_visible(ctx, new_root->mnt) || !mount_visible(ctx, root->mnt) ||
	    !mount_visible(ctx, put_old->mnt))
		return -EINVAL;
	if (!S_ISDIR(new_root->dentry->inode->mode) || !S_ISDIR(put_old->dentry->inode->mode))
		return -ENOTDIR;
	if (dentry_unhashed(new_root->dentry) || dentry_unhashed(put_old->dentry))
		return -ENOENT;
	if (new_root->mnt == root->mnt || put_old->mnt == root->mnt)
		return -EBUSY;
	if (!path_is_mount_root(root) || !path_is_mount_root(new_root) ||
	    new_root->mnt->parent == new_root->mnt)
		return -EINVAL;
	if (!mount_is_under(new_root->mnt, root->mnt) || !mount_is_under(up, new_root->mnt))
		return -EINVAL;
	return 0;
}

static void pivot_locked(const struct path *root, const struct path *new_root,
			 const struct path *put_old, struct dentry **old_new,
			 struct dentry **old_root)
{
	struct mount *old = root->mnt, *new = new_root->mnt, *parent = old->parent, *over;
	struct mount *put_mnt = put_old->mnt;
	struct dentry *put = put_old->dentry, *mountpoint = old->mountpoint;
	struct mnt_ns *ns = old->ns;

	mount_lift_locked(new, old_new);
	if (parent != old) {
		mount_lift_locked(old, old_root);
		mount_attach_locked(new, parent, mountpoint);
	} else {
		/* The namespace's own root: its reference moves too. */
		ns->root = mount_get(new);
	}
	while (mount_find_child_locked(put_mnt, put, &over)) {
		put_mnt = over;
		put = over->root;
	}
	mount_attach_locked(old, put_mnt, put);
}

int mount_pivot_root(const struct vfs_ctx *ctx, const struct path *new_root,
		     const struct path *put_old)
{
	struct path root, cwd;
	struct dentry *old_new = NULL, *old_root = NULL;
	struct mount *drop = NULL;
	int err;

	fs_context_root(ctx->fs, &root);
	write_lock(&vfs_state->mnt);
	err = pivot_check_locked(ctx, &root, new_root, put_old);
	if (!err) {
		if (root.mnt->parent == root.mnt)
			drop = root.mnt;
		pivot_locked(&root, new_root, put_old, &old_new, &old_root);
	}
	write_unlock(&vfs_state->mnt);
	if (err)
		goto out_put;
	dentry_put(old_new);
	dentry_put(old_root);
	mount_put(drop);
	fs_context_cwd(ctx->fs, &cwd);
	if (cwd.mnt == root.mnt && cwd.dentry == root.dentry)
		fs_context_set_cwd(ctx->fs, new_root);
	path_put(&cwd);
	fs_context_set_root(ctx->fs, new_root);
	if (vfs_chroot_hook)
		vfs_chroot_hook(&root, new_root);
	mnt_ns_changed(new_root->mnt->ns);
out_put:
	path_put(&root);
	return err;
}
