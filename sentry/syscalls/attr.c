/* SPDX-License-Identifier: Apache-2.0 */
/* Changing attributes, sizes and times; making changes durable. */
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <utime.h>

#include "sentry/lib/err.h"
#include "sentry/syscalls/fileio.h"

static int setattr_at(struct task *t, int dirfd, uaddr_t name, unsigned int walk,
		      struct iattr_change *c)
{
	struct path path;
	int err = user_lookup(t, dirfd, name, walk, &path);

	if (err)
		return err;
	err = vfs_setattr(&t->vfs, &path, c);
	path_put(&path);
	return err;
}

static int setattr_fd(struct task *t, int fd, struct iattr_change *c)
{
	struct file *file = fd_get(t->files, fd);
	int err;

	if (!file)
		return -EBADF;
	err = vfs_setattr(&t->vfs, &file->path, c);
	file_put(file);
	return err;
}

static unsigned int at_walk(unsigned int flags)
{
	return ((flags & AT_SYMLINK_NOFOLLOW) ? 0 : WALK_FOLLOW) |
	       ((flags & AT_EMPTY_PATH) ? WALK_EMPTY : 0);
}

/* ---- mode ---- */

static long chmod_at(struct task *t, int dirfd, uaddr_t name, mode_t mode, unsigned int flags)
{
	struct iattr_change c = {.valid = ATTR_MODE, .mode = mode & 07777};

	return setattr_at(t, dirfd, name, at_walk(flags), &c);
}

long sys_chmod(struct task *t, const uint64_t *a)
{
	return chmod_at(t, AT_FDCWD, a[0], (mode_t)a[1], 0);
}

long sys_fchmodat(struct task *t, const uint64_t *a)
{
	return chmod_at(t, (int)a[0], a[1], (mode_t)a[2], 0);
}

long sys_fchmod(struct task *t, const uint64_t *a)
{
	struct iattr_change c = {.valid = ATTR_MODE, .mode = (mode_t)a[1] & 07777};

	return setattr_fd(t, (int)a[0], &c);
}

/* ---- owner ---- */

static void owner_change(struct iattr_change *c, uid_t uid, gid_t gid)
{
	memset(c, 0, sizeof(*c));
	if (uid != (uid_t)-1) {
		c->valid |= ATTR_UID;
		c->uid = uid;
	}
	if (gid != (gid_t)-1) {
		c->valid |= ATTR_GID;
		c->gid = gid;
	}
}

static long chown_at(struct task *t, int dirfd, uaddr_t name, const uint64_t *ids,
		     unsigned int flags)
{
	struct iattr_change c;

	if (flags & ~(unsigned int)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	owner_change(&c, (uid_t)ids[0], (gid_t)ids[1]);
	return setattr_at(t, dirfd, name, at_walk(flags), &c);
}

long sys_chown(struct task *t, const uint64_t *a)
{
	return chown_at(t, AT_FDCWD, a[0], a + 1, 0);
}

long sys_lchown(struct task *t, const uint64_t *a)
{
	return chown_at(t, AT_FDCWD, a[0], a + 1, AT_SYMLINK_NOFOLLOW);
}

long sys_fchownat(struct task *t, const uint64_t *a)
{
	return chown_at(t, (int)a[0], a[1], a + 2, (unsigned int)a[4]);
}

long sys_fchown(struct task *t, const uint64_t *a)
{
	struct iattr_change c;

	owner_change(&c, (uid_t)a[1], (gid_t)a[2]);
	return setattr_fd(t, (int)a[0], &c);
}

/* ---- times ---- */

/* What @ts (or NULL: now) asks for. */
static int times_change(const struct timespec *ts, struct iattr_change *c)
{
	memset(c, 0, sizeof(*c));
	c->valid = ATTR_ATIME | ATTR_MTIME;
	if (!ts)
		return 0;
	for (int i = 0; i < 2; i++) {
		if (ts[i].tv_nsec != UTIME_NOW && ts[i].tv_nsec != UTIME_OMIT &&
		    (ts[i].tv_nsec < 0 || ts[i].tv_nsec >= 1000000000))
			return -EINVAL;
	}
	if (ts[0].tv_nsec == UTIME_NOW && ts[1].tv_nsec == UTIME_NOW)
		return 0;
	c->valid |= ATTR_TIMES_SET;
	c->atime = ts[0];
	c->mtime = ts[1];
	if (ts[0].tv_nsec == UTIME_NOW)
		clock_gettime(CLOCK_REALTIME, &c->atime);
	if (ts[1].tv_nsec == UTIME_NOW)
		clock_gettime(CLOCK_REALTIME, &c->mtime);
	if (ts[0].tv_nsec == UTIME_OMIT)
		c->valid &= ~(unsigned int)ATTR_ATIME;
	if (ts[1].tv_nsec == UTIME_OMIT)
		c->valid &= ~(unsigned int)ATTR_MTIME;
	return 0;
}

static long utimes_at(struct task *t, int dirfd, uaddr_t name, const struct timespec *ts,
		      unsigned int flags)
{
	struct iattr_change c;
	int err = times_change(ts, &c);

	if (err)
		return err;
	if (flags & ~(unsigned int)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	if (!name && dirfd != AT_FDCWD)
		return flags ? -EINVAL : setattr_fd(t, dirfd, &c);
	return setattr_at(t, dirfd, name, at_walk(flags), &c);
}

long sys_utimensat(struct task *t, const uint64_t *a)
{
	struct timespec ts[2];

	if (a[2] && copy_in(t, ts, a[2], sizeof(ts)))
		return -EFAULT;
	/* Nothing to do, not even looking: utimensat(2), C library/kernel notes. */
	if (a[2] && ts[0].tv_nsec == UTIME_OMIT && ts[1].tv_nsec == UTIME_OMIT)
		return 0;
	return utimes_at(t, (int)a[0], a[1], a[2] ? ts : NULL, (unsigned int)a[3]);
}

static long utimes_tv(struct task *t, int dirfd, uaddr_t name, uaddr_t utv)
{
	struct timeval tv[2];
	struct timespec ts[2];

	if (!utv)
		return utimes_at(t, dirfd, name, NULL, 0);
	if (copy_in(t, tv, utv, sizeof(tv)))
		return -EFAULT;
	for (int i = 0; i < 2; i++) {
		if (tv[i].tv_usec < 0 || tv[i].tv_usec >= 1000000)
			return -EINVAL;
		ts[i].tv_sec = tv[i].tv_sec;
		ts[i].tv_nsec = tv[i].tv_usec * 1000;
	}
	return utimes_at(t, dirfd, name, ts, 0);
}

long sys_utimes(struct task *t, const uint64_t *a)
{
	return utimes_tv(t, AT_FDCWD, a[0], a[1]);
}

long sys_futimesat(struct task *t, const uint64_t *a)
{
	return utimes_tv(t, (int)a[0], a[1], a[2]);
}

long sys_utime(struct task *t, const uint64_t *a)
{
	struct timespec ts[2] = {{0}, {0}};
	struct utimbuf ub;

	if (!a[1])
		return utimes_at(t, AT_FDCWD, a[0], NULL, 0);
	if (copy_in(t, &ub, a[1], sizeof(ub)))
		return -EFAULT;
	ts[0].tv_sec = ub.actime;
	ts[1].tv_sec = ub.modtime;
	return utimes_at(t, AT_FDCWD, a[0], ts, 0);
}

/* ---- sizes ---- */

static long size_result(struct task *t, long ret)
{
	siginfo_t info;

	if (ret != -EFBIG)
		return ret;
	memset(&info, 0, sizeof(info));
	info.si_signo = SIGXFSZ;
	info.si_code = SI_USER;
	info.si_pid = task_tgid_nr(t, task_pid_ns(t));
	(void)!signal_send(t, &info, SIGNAL_THREAD);
	return ret;
}

long sys_truncate(struct task *t, const uint64_t *a)
{
	struct path path;
	int err;

	if ((int64_t)a[1] < 0)
		return -EINVAL;
	err = user_lookup(t, AT_FDCWD, a[0], WALK_FOLLOW, &path);
	if (err)
		return err;
	err = vfs_truncate(&t->vfs, &path, a[1]);
	path_put(&path);
	return size_result(t, err);
}

long sys_ftruncate(struct task *t, const uint64_t *a)
{
	struct file *file;
	int err;

	if ((int64_t)a[1] < 0)
		return -EINVAL;
	file = fd_get(t->files, (int)a[0]);
	if (!file)
		return -EBADF;
	err = file_truncate(&t->vfs, file, a[1]);
	file_put(file);
	return size_result(t, err);
}

long sys_fallocate(struct task *t, const uint64_t *a)
{
	struct file *file = fd_get(t->files, (int)a[0]);
	int err;

	if (!file)
		return -EBADF;
	err = file_fallocate(&t->vfs, file, (int)a[1], (int64_t)a[2], (int64_t)a[3]);
	file_put(file);
	return size_result(t, err);
}

/* ---- durability and hints ---- */

static long fsync_fd(struct task *t, int fd, bool datasync)
{
	struct file *file = fd_get(t->files, fd);
	int err;

	if (!file)
		return -EBADF;
	err = file_fsync(file, datasync);
	file_put(file);
	return err;
}

long sys_fsync(struct task *t, const uint64_t *a)
{
	return fsync_fd(t, (int)a[0], false);
}

long sys_fdatasync(struct task *t, const uint64_t *a)
{
	return fsync_fd(t, (int)a[0], true);
}

long sys_syncfs(struct task *t, const uint64_t *a)
{
	struct file *file = fd_get(t->files, (int)a[0]);
	struct super *sb;
	int err = 0;

	if (!file)
		return -EBADF;
	sb = file->inode->super;
	if (sb->type && sb->type->sops && sb->type->sops->sync)
		err = sb->type->sops->sync(sb);
	file_put(file);
	return err;
}

/* Filesystems in memory are as durable as they get; host volumes are synced one by one. */
long sys_sync(struct task *t, const uint64_t *a)
{
	struct mnt_ns *ns = t->vfs.mnt_ns;
	struct path root;

	mnt_ns_root(ns, &root);
	if (root.mnt->super->type->sops && root.mnt->super->type->sops->sync)
		(void)!root.mnt->super->type->sops->sync(root.mnt->super);
	path_put(&root);
	return 0;
}

/* Is @fd something with pages? */
static long check_hint(struct task *t, int fd, int64_t offset, int64_t len)
{
	struct file *file = fd_get(t->files, fd);
	mode_t mode;

	if (!file)
		return -EBADF;
	mode = file->inode->mode;
	file_put(file);
	if (S_ISFIFO(mode) || S_ISSOCK(mode))
		return -ESPIPE;
	if (offset < 0 || len < 0 || offset > INT64_MAX - len)
		return -EINVAL;
	return 0;
}

long sys_sync_file_range(struct task *t, const uint64_t *a)
{
	long ret;

	struct file *file = fd_get(t->files, (int)a[0]);

	if (!file)
		return -EBADF;
	file_put(file);
	if ((unsigned int)a[3] & ~7u)
		return -EINVAL;
	ret = check_hint(t, (int)a[0], (int64_t)a[1], (int64_t)a[2]);
	return ret ? ret : fsync_fd(t, (int)a[0], true);
}

long sys_fadvise64(struct task *t, const uint64_t *a)
{
	long ret = check_hint(t, (int)a[0], 0, (int64_t)a[2]);

	if (!ret && (unsigned int)a[3] > POSIX_FADV_NOREUSE)
		ret = -EINVAL;
	return ret;
}

long sys_readahead(struct task *t, const uint64_t *a)
{
	struct file *file = fd_get(t->files, (int)a[0]);
	long ret = 0;

	if (!file || !file->readable)
		ret = -EBADF;
	else if (!S_ISREG(file->inode->mode))
		ret = -EINVAL;
	file_put(file);
	return ret;
}
