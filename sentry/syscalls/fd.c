/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors: close, dup, fcntl(2), the ioctl(2)s that every file has. */
#include <asm/ioctls.h>
#include <linux/close_range.h>
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/pipe.h"
#include "sentry/syscalls/fileio.h"
#include "vfs/notify.h"

#define O_ASYNC_K  020000
#define SETFL_MASK (O_APPEND | O_NONBLOCK | O_ASYNC_K | O_DIRECT | O_NOATIME)

long fd_install_new(struct task *t, struct file *file, bool cloexec)
{
	if (IS_ERR(file))
		return PTR_ERR(file);
	return fd_install(t->files, file, 0, cloexec, task_rlimit(t, RLIMIT_NOFILE));
}

long sys_close(struct task *t, const uint64_t *a)
{
	int ret = fd_close(&t->vfs, t->files, (unsigned int)a[0]);

	/* The descriptor is gone whatever flush said: close(2) isn't restarted. */
	return ret == -ERESTARTSYS ? -EINTR : ret;
}

/* A descriptor table of the task's own. */
static int unshare_files(struct task *t)
{
	struct fd_table *old = t->files, *copy;

	if (refcount_read(&old->refs) == 1)
		return 0;
	copy = fd_table_copy(old);
	if (!copy)
		return -ENOMEM;
	mutex_lock(&t->own_lock);
	t->files = copy;
	mutex_unlock(&t->own_lock);
	fd_table_put(&t->vfs, old);
	return 0;
}

long sys_close_range(struct task *t, const uint64_t *a)
{
	unsigned int first = (unsigned int)a[0], last = (unsigned int)a[1];
	unsigned int flags = (unsigned int)a[2];
	int err;

	if ((flags & ~(unsigned int)(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)) || first > last)
		return -EINVAL;
	if (flags & CLOSE_RANGE_UNSHARE) {
		err = unshare_files(t);
		if (err)
			return err;
	}
	fd_close_range(&t->vfs, t->files, first, last, flags & CLOSE_RANGE_CLOEXEC);
	return 0;
}

static long dup_min(struct task *t, int fd, uint64_t min, bool cloexec)
{
	uint64_t nofile = task_rlimit(t, RLIMIT_NOFILE);
	struct file *file;

	file = fd_get_any(t->files, fd);
	if (!file)
		return -EBADF;
	if (min >= nofile && min) {
		file_put(file);
		return -EINVAL;
	}
	return fd_install(t->files, file, (unsigned int)min, cloexec, nofile);
}

long sys_dup(struct task *t, const uint64_t *a)
{
	return dup_min(t, (int)a[0], 0, false);
}

static long dup_to(struct task *t, int from, unsigned int to, bool cloexec)
{
	uint64_t nofile = task_rlimit(t, RLIMIT_NOFILE);
	struct file *file;

	if (to >= nofile)
		return -EBADF;
	file = fd_get_any(t->files, from);
	if (!file)
		return -EBADF;
	return fd_replace(&t->vfs, t->files, file, to, cloexec, nofile);
}

long sys_dup2(struct task *t, const uint64_t *a)
{
	int from = (int)a[0], to = (int)a[1];

	if (from == to) {
		struct file *file = fd_get_any(t->files, from);

		if (!file)
			return -EBADF;
		file_put(file);
		return to;
	}
	return dup_to(t, from, (unsigned int)to, false);
}

long sys_dup3(struct task *t, const uint64_t *a)
{
	if ((int)a[2] & ~O_CLOEXEC)
		return -EINVAL;
	if ((int)a[0] == (int)a[1])
		return -EINVAL;
	return dup_to(t, (int)a[0], (unsigned int)a[1], (int)a[2] & O_CLOEXEC);
}

/* ---- fcntl ---- */

static int file_set_flags(struct task *t, struct file *file, unsigned int flags)
{
	unsigned int old = file->flags, new;
	int err;

	if ((flags & O_NOATIME) && !(old & O_NOATIME) && t->vfs.cred->fsuid != file->inode->uid &&
	    !task_capable(t, CAP_FOWNER))
		return -EPERM;
	new = (old & ~(unsigned int)SETFL_MASK) | (flags & SETFL_MASK);
	if (file->ops->set_flags) {
		err = file->ops->set_flags(file, new);
		if (err)
			return err;
	}
	file->flags = new;
	return 0;
}

static long fcntl_lock(struct task *t, struct file *file, int cmd, uaddr_t arg)
{
	bool ofd = cmd == F_OFD_GETLK || cmd == F_OFD_SETLK || cmd == F_OFD_SETLKW;
	const void *owner = ofd ? (const void *)file : (const void *)t->files;
	struct flock fl;
	int err;

	if (copy_in(t, &fl, arg, sizeof(fl)))
		return -EFAULT;
	if (cmd == F_GETLK || cmd == F_OFD_GETLK) {
		err = file_getlk(file, owner, &fl);
		return err ? err : copy_out(t, arg, &fl, sizeof(fl));
	}
	err = file_setlk(&t->vfs, file, owner, task_tgid_nr(t, task_pid_ns(t)), &fl,
			 cmd == F_SETLKW || cmd == F_OFD_SETLKW);
	return err;
}

static long fcntl_owner_ex(struct task *t, struct file *file, int cmd, uaddr_t arg)
{
	struct f_owner_ex ex;

	if (cmd == F_SETOWN_EX) {
		if (copy_in(t, &ex, arg, sizeof(ex)))
			return -EFAULT;
		if ((unsigned int)ex.type > F_OWNER_PGRP)
			return -EINVAL;
		file->owner_type = ex.type;
		file->owner = ex.pid;
		return 0;
	}
	ex.type = file->owner_type;
	ex.pid = file->owner;
	return copy_out(t, arg, &ex, sizeof(ex));
}

static long fcntl_setown(struct file *file, int who)
{
	if (who == INT32_MIN)
		return -EINVAL;
	file->owner_type = who < 0 ? F_OWNER_PGRP : F_OWNER_PID;
	file->owner = who < 0 ? -who : who;
	return 0;
}

static long fcntl_pipe(struct task *t, struct file *file, int cmd, uint64_t arg)
{
	struct pipe *p = pipe_of(file);

	if (!p)
		return -EBADF;
	return cmd == F_GETPIPE_SZ
		       ? pipe_size(p)
		       : pipe_set_size(p, (unsigned int)arg, task_capable(t, CAP_SYS_RESOURCE));
}

static long fcntl_file(struct task *t, struct file *file, int cmd, uint64_t arg)
{
	switch (cmd) {
	case F_SETFL:
		return file_set_flags(t, file, (unsigned int)arg);
	case F_GETLK:
	case F_SETLK:
	case F_SETLKW:
	case F_OFD_GETLK:
	case F_OFD_SETLK:
	case F_OFD_SETLKW:
		return fcntl_lock(t, file, cmd, arg);
	case F_SETOWN:
		return fcntl_setown(file, (int)arg);
	case F_GETOWN:
		return file->owner_type == F_OWNER_PGRP ? -file->owner : file->owner;
	case F_SETOWN_EX:
	case F_GETOWN_EX:
		return fcntl_owner_ex(t, file, cmd, arg);
	case F_SETSIG:
		if (arg > NSIGS)
			return -EINVAL;
		file->owner_sig = (int)arg;
		return 0;
	case F_GETSIG:
		return file->owner_sig;
	case F_GETPIPE_SZ:
	case F_SETPIPE_SZ:
		return fcntl_pipe(t, file, cmd, arg);
	case F_ADD_SEALS:
		return file_add_seals(file, (unsigned int)arg);
	case F_GET_SEALS:
		return file_get_seals(file);
	case F_GETLEASE:
		return F_UNLCK;
	case F_SETLEASE:
		/* Nobody is given a lease; giving none back is as on a filesystem without them. */
		return -EINVAL;
	default:
		return -EINVAL;
	}
}

long sys_fcntl(struct task *t, const uint64_t *a)
{
	int fd = (int)a[0], cmd = (int)a[1];
	uint64_t arg = a[2];
	struct file *file = fd_get_any(t->files, fd);
	long ret;

	if (!file)
		return -EBADF;
	switch (cmd) {
	case F_DUPFD:
	case F_DUPFD_CLOEXEC:
		ret = dup_min(t, fd, (unsigned int)arg, cmd == F_DUPFD_CLOEXEC);
		break;
	case F_GETFD:
		ret = fd_get_cloexec(t->files, fd);
		break;
	case F_SETFD:
		ret = fd_set_cloexec(t->files, fd, arg & FD_CLOEXEC);
		break;
	case F_GETFL:
		ret = (long)file->flags;
		break;
	default:
		ret = (file->flags & O_PATH) ? -EBADF : fcntl_file(t, file, cmd, arg);
	}
	file_put(file);
	return ret;
}

/* ---- ioctl ---- */

static long ioctl_flag(struct task *t, struct file *file, uaddr_t arg, unsigned int flag)
{
	unsigned int flags = file->flags & SETFL_MASK;
	int on;

	if (copy_in(t, &on, arg, sizeof(on)))
		return -EFAULT;
	flags = on ? flags | flag : flags & ~flag;
	return file_set_flags(t, file, flags);
}

static long ioctl_file(struct task *t, struct file *file, unsigned int cmd, uint64_t arg)
{
	switch (cmd) {
	case FIONBIO:
		return ioctl_flag(t, file, arg, O_NONBLOCK);
	case FIOASYNC:
		return ioctl_flag(t, file, arg, O_ASYNC_K);
	case FIOQSIZE:
		if (S_ISREG(file->inode->mode) || S_ISDIR(file->inode->mode)) {
			int64_t size = (int64_t)file->inode->size;

			return copy_out(t, arg, &size, sizeof(size));
		}
		return -ENOTTY;
	case FIONREAD:
		if (S_ISREG(file->inode->mode) && !file->ops->ioctl) {
			int left = (int)(file->inode->size - file->pos);

			return copy_out(t, arg, &left, sizeof(left));
		}
		break;
	}
	return file->ops->ioctl ? file->ops->ioctl(&t->vfs, file, cmd, arg) : -ENOTTY;
}

struct ioctl_op {
	struct task *t;
	struct file *file;
	unsigned int cmd;
	uint64_t arg;
};

static long ioctl_once(void *arg)
{
	struct ioctl_op *op = arg;

	return ioctl_file(op->t, op->file, op->cmd, op->arg);
}

long sys_ioctl(struct task *t, const uint64_t *a)
{
	unsigned int cmd = (unsigned int)a[1];
	struct ioctl_op op = {.t = t, .cmd = cmd, .arg = a[2]};
	long ret;

	op.file = fd_get(t->files, (int)a[0]);
	if (!op.file)
		return -EBADF;
	if (cmd == FIOCLEX || cmd == FIONCLEX) {
		ret = fd_set_cloexec(t->files, (int)a[0], cmd == FIOCLEX);
	} else {
		ret = ioctl_once(&op);
		/* Those that wait for output to drain (TCSETSW, TCSBRK). */
		if (ret == -EAGAIN)
			ret = task_retry(t, file_pollq(op.file), EPOLLOUT, false, NULL, ioctl_once,
					 &op);
	}
	file_put(op.file);
	return ret;
}

/* ---- inotify ---- */

static long inotify_new(struct task *t, int flags)
{
	if (flags & ~(IN_CLOEXEC | IN_NONBLOCK))
		return -EINVAL;
	return fd_install_new(t, notify_create(&t->vfs, flags & IN_NONBLOCK), flags & IN_CLOEXEC);
}

long sys_inotify_init(struct task *t, const uint64_t *a)
{
	return inotify_new(t, 0);
}

long sys_inotify_init1(struct task *t, const uint64_t *a)
{
	return inotify_new(t, (int)a[0]);
}

long sys_inotify_add_watch(struct task *t, const uint64_t *a)
{
	uint32_t mask = (uint32_t)a[2];
	unsigned int walk = 0;
	struct file *file;
	struct path path;
	char *name;
	long ret;

	if (!(mask & (IN_ALL_EVENTS | IN_UNMOUNT)))
		return -EINVAL;
	if (!(mask & IN_DONT_FOLLOW))
		walk |= WALK_FOLLOW;
	if (mask & IN_ONLYDIR)
		walk |= WALK_DIRECTORY;
	file = fd_get(t->files, (int)a[0]);
	if (!file)
		return -EBADF;
	name = user_path(t, a[1], false);
	ret = PTR_ERR_OR_ZERO(name);
	if (ret)
		goto out_file;
	ret = path_lookup(&t->vfs, NULL, name, walk, &path);
	kfree(name);
	if (ret)
		goto out_file;
	ret = notify_add_watch(&t->vfs, file, &path, mask);
	path_put(&path);
out_file:
	file_put(file);
	return ret;
}

long sys_inotify_rm_watch(struct task *t, const uint64_t *a)
{
	struct file *file = fd_get(t->files, (int)a[0]);
	long ret;

	if (!file)
		return -EBADF;
	ret = notify_rm_watch(file, (int)a[1]);
	file_put(file);
	return ret;
}
