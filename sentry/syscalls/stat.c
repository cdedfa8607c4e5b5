/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What files say of themselves: stat, statx, statfs, access, readlink, getcwd, directory entries.
 */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls/fileio.h"

#define LOOKUP_FLAGS (AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH)

int user_lookup(struct task *t, int dirfd, uaddr_t uname, unsigned int walk, struct path *out)
{
	char *name = user_path(t, uname, walk & WALK_EMPTY);
	struct path base;
	int err;

	if (IS_ERR(name))
		return (int)PTR_ERR(name);
	err = user_base(t, dirfd, name, &base);
	if (!err) {
		err = path_lookup(&t->vfs, base.mnt ? &base : NULL, name, walk, out);
		path_put(&base);
	}
	kfree(name);
	return err;
}

/* ---- stat ---- */

static uint64_t stx_dev(uint32_t maj, uint32_t min)
{
	return makedev(maj, min);
}

static struct timespec stx_ts(struct statx_timestamp s)
{
	return (struct timespec){.tv_sec = s.tv_sec, .tv_nsec = s.tv_nsec};
}

/* glibc's struct stat is the kernel's on x86-64. */
_Static_assert(sizeof(struct stat) == 144, "struct stat of x86-64");

static int stat_path(struct task *t, const struct path *path, uaddr_t out)
{
	struct statx stx;
	struct stat st;
	int err = vfs_getattr(path, &stx);

	if (err)
		return err;
	memset(&st, 0, sizeof(st));
	st.st_dev = stx_dev(stx.stx_dev_major, stx.stx_dev_minor);
	st.st_ino = stx.stx_ino;
	st.st_nlink = stx.stx_nlink;
	st.st_mode = stx.stx_mode;
	st.st_uid = stx.stx_uid;
	st.st_gid = stx.stx_gid;
	st.st_rdev = stx_dev(stx.stx_rdev_major, stx.stx_rdev_minor);
	st.st_size = (off_t)stx.stx_size;
	st.st_blksize = stx.stx_blksize;
	st.st_blocks = (blkcnt_t)stx.stx_blocks;
	st.st_atim = stx_ts(stx.stx_atime);
	st.st_mtim = stx_ts(stx.stx_mtime);
	st.st_ctim = stx_ts(stx.stx_ctime);
	return copy_out(t, out, &st, sizeof(st));
}

static long stat_name(struct task *t, int dirfd, uaddr_t name, unsigned int walk, uaddr_t out)
{
	struct path path;
	int err = user_lookup(t, dirfd, name, walk, &path);

	if (err)
		return err;
	err = stat_path(t, &path, out);
	path_put(&path);
	return err;
}

long sys_stat(struct task *t, const uint64_t *a)
{
	return stat_name(t, AT_FDCWD, a[0], WALK_FOLLOW, a[1]);
}

long sys_lstat(struct task *t, const uint64_t *a)
{
	return stat_name(t, AT_FDCWD, a[0], 0, a[1]);
}

static long fstat_fd(struct task *t, int fd, uaddr_t out)
{
	struct file *file = fd_get_any(t->files, fd);
	long ret;

	if (!file)
		return -EBADF;
	ret = stat_path(t, &file->path, out);
	file_put(file);
	return ret;
}

long sys_fstat(struct task *t, const uint64_t *a)
{
	return fstat_fd(t, (int)a[0], a[1]);
}

static unsigned int at_walk(unsigned int flags)
{
	unsigned int walk = (flags & AT_SYMLINK_NOFOLLOW) ? 0 : WALK_FOLLOW;

	return walk | ((flags & AT_EMPTY_PATH) ? WALK_EMPTY : 0);
}

long sys_newfstatat(struct task *t, const uint64_t *a)
{
	unsigned int flags = (unsigned int)a[3];
	char first;

	if (flags & ~(unsigned int)LOOKUP_FLAGS)
		return -EINVAL;
	/* glibc's fstat. */
	if ((flags & AT_EMPTY_PATH) && (int)a[0] >= 0 && !copy_in(t, &first, a[1], 1) && !first)
		return fstat_fd(t, (int)a[0], a[2]);
	return stat_name(t, (int)a[0], a[1], at_walk(flags), a[2]);
}

long sys_statx(struct task *t, const uint64_t *a)
{
	unsigned int flags = (unsigned int)a[2], mask = (unsigned int)a[3];
	struct statx stx;
	struct path path;
	int err;

	if (mask & STATX__RESERVED)
		return -EINVAL;
	if ((flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE)
		return -EINVAL;
	if (flags & ~(unsigned int)(LOOKUP_FLAGS | AT_STATX_SYNC_TYPE))
		return -EINVAL;
	err = user_lookup(t, (int)a[0], a[1], at_walk(flags), &path);
	if (err)
		return err;
	err = vfs_getattr(&path, &stx);
	path_put(&path);
	return err ? err : copy_out(t, a[4], &stx, sizeof(stx));
}

/* ---- statfs ---- */

static int statfs_path(struct task *t, const struct path *path, uaddr_t out)
{
	struct statfs st;
	int err = vfs_statfs(path, &st);

	return err ? err : copy_out(t, out, &st, sizeof(st));
}

long sys_statfs(struct task *t, const uint64_t *a)
{
	struct path path;
	int err = user_lookup(t, AT_FDCWD, a[0], WALK_FOLLOW, &path);

	if (err)
		return err;
	err = statfs_path(t, &path, a[1]);
	path_put(&path);
	return err;
}

long sys_fstatfs(struct task *t, const uint64_t *a)
{
	struct file *file = fd_get_any(t->files, (int)a[0]);
	int err;

	if (!file)
		return -EBADF;
	err = statfs_path(t, &file->path, a[1]);
	file_put(file);
	return err;
}

/* ---- access ---- */

/* The caller with its real IDs in place of the effective ones, for access(2). */
static struct cred *real_cred(const struct cred *cred)
{
	struct cred *c = cred_prepare(cred);

	if (!c)
		return NULL;
	c->fsuid = c->uid;
	c->fsgid = c->gid;
	c->cap_effective = c->uid ? 0 : c->cap_permitted;
	return c;
}

static long access_at(struct task *t, int dirfd, uaddr_t name, unsigned int mode,
		      unsigned int flags)
{
	const struct cred *old = t->vfs.cred;
	bool real =
		!(flags & AT_EACCESS) &&
		(old->fsuid != old->uid || old->fsgid != old->gid ||
		 (old->uid ? old->cap_effective != 0 : old->cap_effective != old->cap_permitted));
	struct cred *saved = t->vfs.cred;
	struct path path;
	int err;

	if (mode & ~(unsigned int)(R_OK | W_OK | X_OK))
		return -EINVAL;
	if (flags & ~(unsigned int)(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	if (real) {
		struct vfs_ctx ctx = t->vfs;
		struct path base;
		char *text;

		ctx.cred = real_cred(saved);
		if (!ctx.cred)
			return -ENOMEM;
		ctx.is_task = false;
		text = user_path(t, name, flags & AT_EMPTY_PATH);
		err = PTR_ERR_OR_ZERO(text);
		if (!err) {
			err = user_base(t, dirfd, text, &base);
			if (!err) {
				err = path_lookup(&ctx, base.mnt ? &base : NULL, text,
						  at_walk(flags), &path);
				path_put(&base);
			}
			if (!err) {
				err = vfs_access(&ctx, &path, mode);
				path_put(&path);
			}
			kfree(text);
		}
		cred_put(ctx.cred);
		return err;
	}
	err = user_lookup(t, dirfd, name, at_walk(flags), &path);
	if (err)
		return err;
	err = vfs_access(&t->vfs, &path, mode);
	path_put(&path);
	return err;
}

long sys_access(struct task *t, const uint64_t *a)
{
	return access_at(t, AT_FDCWD, a[0], (unsigned int)a[1], 0);
}

long sys_faccessat(struct task *t, const uint64_t *a)
{
	return access_at(t, (int)a[0], a[1], (unsigned int)a[2], 0);
}

long sys_faccessat2(struct task *t, const uint64_t *a)
{
	return access_at(t, (int)a[0], a[1], (unsigned int)a[2], (unsigned int)a[3]);
}

/* ---- links, the working directory's name ---- */

static long readlink_at(struct task *t, int dirfd, uaddr_t name, uaddr_t buf, int size)
{
	struct path path;
	char *target;
	size_t n;
	long ret;

	if (size <= 0)
		return -EINVAL;
	ret = user_lookup(t, dirfd, name, WALK_EMPTY, &path);
	if (ret)
		return ret;
	if (!S_ISLNK(path.dentry->inode->mode)) {
		char first;

		/* An empty name is only good for a link's own descriptor. */
		ret = copy_in(t, &first, name, 1) || first ? -EINVAL : -ENOENT;
		path_put(&path);
		return ret;
	}
	target = vfs_readlink(&t->vfs, &path);
	path_put(&path);
	if (IS_ERR(target))
		return PTR_ERR(target);
	n = MIN(strlen(target), (size_t)size);
	ret = copy_out(t, buf, target, n) ? -EFAULT : (long)n;
	kfree(target);
	return ret;
}

long sys_readlink(struct task *t, const uint64_t *a)
{
	return readlink_at(t, AT_FDCWD, a[0], a[1], (int)a[2]);
}

long sys_readlinkat(struct task *t, const uint64_t *a)
{
	return readlink_at(t, (int)a[0], a[1], a[2], (int)a[3]);
}

long sys_getcwd(struct task *t, const uint64_t *a)
{
	struct path cwd, root;
	char *name;
	size_t n;
	long ret = -ENOENT;

	fs_context_cwd(t->vfs.fs, &cwd);
	fs_context_root(t->vfs.fs, &root);
	name = dentry_unhashed(cwd.dentry) ? ERR_PTR(-ENOENT) : path_name(&cwd, &root);
	path_put(&cwd);
	path_put(&root);
	if (!name)
		return -ENOMEM;
	if (IS_ERR(name))
		return PTR_ERR(name);
	n = strlen(name) + 1;
	ret = n > a[1] ? -ERANGE : copy_out(t, a[0], name, n) ? -EFAULT : (long)n;
	kfree(name);
	return ret;
}

/* ---- directory entries ---- */

#define GETDENTS_MAX 65536u

struct old_dirent { /* of getdents(2): the type is the last byte */
	uint64_t ino;
	uint64_t off;
	uint16_t reclen;
	char name[];
};

struct dirent_sink {
	struct dir_sink sink;
	uint8_t *buf;
	size_t size, used;
	bool old, too_small;
};

static bool dirent_emit(struct dir_sink *sink, const char *name, size_t len, uint64_t ino,
			unsigned int type, uint64_t next_pos)
{
	struct dirent_sink *s = container_of(sink, struct dirent_sink, sink);
	size_t head =
		s->old ? offsetof(struct old_dirent, name) : offsetof(struct dirent64, d_name);
	size_t reclen = ALIGN_UP(head + len + (s->old ? 2 : 1), 8);
	uint8_t *rec = s->buf + s->used;

	if (reclen > s->size - s->used) {
		s->too_small = !s->used;
		return false;
	}
	memset(rec, 0, reclen);
	if (s->old) {
		struct old_dirent *d = (void *)rec;

		d->ino = ino;
		d->off = next_pos;
		d->reclen = (uint16_t)reclen;
		rec[reclen - 1] = (uint8_t)type;
	} else {
		struct dirent64 *d = (void *)rec;

		d->d_ino = ino;
		d->d_off = (off64_t)next_pos;
		d->d_reclen = (uint16_t)reclen;
		d->d_type = (uint8_t)type;
	}
	memcpy(rec + head, name, len);
	s->used += reclen;
	return true;
}

static long getdents_common(struct task *t, const uint64_t *a, bool old)
{
	struct dirent_sink s = {.sink.emit = dirent_emit, .old = old};
	struct file *file;
	uint64_t pos;
	long ret;

	file = fd_get(t->files, (int)a[0]);
	if (!file)
		return -EBADF;
	s.size = MIN((uint32_t)a[2], GETDENTS_MAX);
	s.buf = kmalloc(s.size ? s.size : 1);
	ret = -ENOMEM;
	if (!s.buf)
		goto out_put;
	pos = file->pos;
	ret = file_iterate(&t->vfs, file, &s.sink);
	if (ret)
		goto out_free;
	ret = s.too_small ? -EINVAL : (long)s.used;
	if (ret > 0 && copy_out(t, a[1], s.buf, s.used)) {
		file_llseek(file, (int64_t)pos, SEEK_SET);
		ret = -EFAULT;
	}
out_free:
	kfree(s.buf);
out_put:
	file_put(file);
	return ret;
}

long sys_getdents(struct task *t, const uint64_t *a)
{
	return getdents_common(t, a, true);
}

long sys_getdents64(struct task *t, const uint64_t *a)
{
	return getdents_common(t, a, false);
}
