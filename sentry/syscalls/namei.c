/* SPDX-License-Identifier: Apache-2.0 */
/* Making, moving and removing names; the working directory and root. */
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls/fileio.h"

/* A name and where to start from, as the *at calls have them. */
struct at_name {
	char *name;
	struct path base;
};

static int at_get(struct task *t, int dirfd, uaddr_t uname, bool empty_ok, struct at_name *at)
{
	int err;

	at->name = user_path(t, uname, empty_ok);
	if (IS_ERR(at->name))
		return (int)PTR_ERR(at->name);
	err = user_base(t, dirfd, at->name, &at->base);
	if (err)
		kfree(at->name);
	return err;
}

static void at_put(struct at_name *at)
{
	path_put(&at->base);
	kfree(at->name);
}

static const struct path *at_base(const struct at_name *at)
{
	return at->base.mnt ? &at->base : NULL;
}

static long mkdir_at(struct task *t, int dirfd, uaddr_t name, mode_t mode)
{
	struct at_name at;
	int err = at_get(t, dirfd, name, false, &at);

	if (err)
		return err;
	err = vfs_mkdir(&t->vfs, at_base(&at), at.name, mode & 07777);
	at_put(&at);
	return err;
}

long sys_mkdir(struct task *t, const uint64_t *a)
{
	return mkdir_at(t, AT_FDCWD, a[0], (mode_t)a[1]);
}

long sys_mkdirat(struct task *t, const uint64_t *a)
{
	return mkdir_at(t, (int)a[0], a[1], (mode_t)a[2]);
}

/* The kernel's encoding of a device number in 32 bits is the low half of glibc's. */
static long mknod_at(struct task *t, int dirfd, uaddr_t name, mode_t mode, uint32_t dev)
{
	struct at_name at;
	int err;

	switch (mode & S_IFMT) {
	case 0:
		mode |= S_IFREG;
		break;
	case S_IFREG:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		break;
	case S_IFDIR:
		return -EPERM;
	default:
		return -EINVAL;
	}
	err = at_get(t, dirfd, name, false, &at);
	if (err)
		return err;
	err = vfs_mknod(&t->vfs, at_base(&at), at.name, mode & (S_IFMT | 07777), dev);
	at_put(&at);
	return err;
}

long sys_mknod(struct task *t, const uint64_t *a)
{
	return mknod_at(t, AT_FDCWD, a[0], (mode_t)a[1], (uint32_t)a[2]);
}

long sys_mknodat(struct task *t, const uint64_t *a)
{
	return mknod_at(t, (int)a[0], a[1], (mode_t)a[2], (uint32_t)a[3]);
}

static long unlink_at(struct task *t, int dirfd, uaddr_t name, bool dir)
{
	struct at_name at;
	int err = at_get(t, dirfd, name, false, &at);

	if (err)
		return err;
	err = dir ? vfs_rmdir(&t->vfs, at_base(&at), at.name)
		  : vfs_unlink(&t->vfs, at_base(&at), at.name);
	at_put(&at);
	return err;
}

long sys_unlink(struct task *t, const uint64_t *a)
{
	return unlink_at(t, AT_FDCWD, a[0], false);
}

long sys_rmdir(struct task *t, const uint64_t *a)
{
	return unlink_at(t, AT_FDCWD, a[0], true);
}

long sys_unlinkat(struct task *t, const uint64_t *a)
{
	if ((int)a[2] & ~AT_REMOVEDIR)
		return -EINVAL;
	return unlink_at(t, (int)a[0], a[1], (int)a[2] & AT_REMOVEDIR);
}

static long rename_at(struct task *t, int olddir, uaddr_t oldname, int newdir, uaddr_t newname,
		      unsigned int flags)
{
	struct at_name old, new;
	int err = at_get(t, olddir, oldname, false, &old);

	if (err)
		return err;
	err = at_get(t, newdir, newname, false, &new);
	if (!err) {
		err = vfs_rename(&t->vfs, at_base(&old), old.name, at_base(&new), new.name, flags);
		at_put(&new);
	}
	at_put(&old);
	return err;
}

long sys_rename(struct task *t, const uint64_t *a)
{
	return rename_at(t, AT_FDCWD, a[0], AT_FDCWD, a[1], 0);
}

long sys_renameat(struct task *t, const uint64_t *a)
{
	return rename_at(t, (int)a[0], a[1], (int)a[2], a[3], 0);
}

long sys_renameat2(struct task *t, const uint64_t *a)
{
	return rename_at(t, (int)a[0], a[1], (int)a[2], a[3], (unsigned int)a[4]);
}

static long link_at(struct task *t, int olddir, uaddr_t oldname, int newdir, uaddr_t newname,
		    unsigned int flags)
{
	unsigned int walk = (flags & AT_SYMLINK_FOLLOW) ? WALK_FOLLOW : 0;
	struct at_name new;
	struct path old;
	int err;

	if (flags & ~(unsigned int)(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	if (flags & AT_EMPTY_PATH) {
		if (!task_capable(t, CAP_DAC_READ_SEARCH))
			return -ENOENT;
		walk |= WALK_EMPTY;
	}
	err = user_lookup(t, olddir, oldname, walk, &old);
	if (err)
		return err;
	err = at_get(t, newdir, newname, false, &new);
	if (!err) {
		err = vfs_link(&t->vfs, &old, at_base(&new), new.name);
		at_put(&new);
	}
	path_put(&old);
	return err;
}

long sys_link(struct task *t, const uint64_t *a)
{
	return link_at(t, AT_FDCWD, a[0], AT_FDCWD, a[1], 0);
}

long sys_linkat(struct task *t, const uint64_t *a)
{
	return link_at(t, (int)a[0], a[1], (int)a[2], a[3], (unsigned int)a[4]);
}

static long symlink_at(struct task *t, uaddr_t utarget, int dirfd, uaddr_t name)
{
	char *target = user_path(t, utarget, false);
	struct at_name at;
	int err;

	if (IS_ERR(target))
		return PTR_ERR(target);
	err = at_get(t, dirfd, name, false, &at);
	if (!err) {
		err = vfs_symlink(&t->vfs, target, at_base(&at), at.name);
		at_put(&at);
	}
	kfree(target);
	return err;
}

long sys_symlink(struct task *t, const uint64_t *a)
{
	return symlink_at(t, a[0], AT_FDCWD, a[1]);
}

long sys_symlinkat(struct task *t, const uint64_t *a)
{
	return symlink_at(t, a[0], (int)a[1], a[2]);
}

/* ---- the working directory and root ---- */

long sys_chdir(struct task *t, const uint64_t *a)
{
	struct path path;
	int err = user_lookup(t, AT_FDCWD, a[0], WALK_FOLLOW | WALK_DIRECTORY, &path);

	if (err)
		return err;
	err = inode_permission(&t->vfs, path.dentry->inode, MAY_EXEC);
	if (!err)
		fs_context_set_cwd(t->vfs.fs, &path);
	path_put(&path);
	return err;
}

long sys_fchdir(struct task *t, const uint64_t *a)
{
	struct file *file = fd_get_any(t->files, (int)a[0]);
	int err = -ENOTDIR;

	if (!file)
		return -EBADF;
	if (S_ISDIR(file->inode->mode)) {
		err = inode_permission(&t->vfs, file->inode, MAY_EXEC);
		if (!err)
			fs_context_set_cwd(t->vfs.fs, &file->path);
	}
	file_put(file);
	return err;
}

long sys_chroot(struct task *t, const uint64_t *a)
{
	struct path path;
	int err = user_lookup(t, AT_FDCWD, a[0], WALK_FOLLOW | WALK_DIRECTORY, &path);

	if (err)
		return err;
	err = inode_permission(&t->vfs, path.dentry->inode, MAY_EXEC);
	if (!err && !task_capable(t, CAP_SYS_CHROOT))
		err = -EPERM;
	if (!err)
		fs_context_set_root(t->vfs.fs, &path);
	path_put(&path);
	return err;
}

long sys_umask(struct task *t, const uint64_t *a)
{
	struct fs_context *fs = t->vfs.fs;
	mode_t old;

	mutex_lock(&fs->lock);
	old = fs->umask;
	fs->umask = (mode_t)a[0] & 0777;
	mutex_unlock(&fs->lock);
	return (long)old;
}
