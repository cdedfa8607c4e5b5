/* SPDX-License-Identifier: Apache-2.0 */
/* What many system-call bodies share: paths, times, masks out of application memory. */
#include <limits.h>
#include <string.h>
#include <time.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls.h"

char *user_path(struct task *t, uaddr_t addr, bool empty_ok)
{
	char stack_buf[512], *path;
	ssize_t n = strncpy_from_user(t->vfs.um, stack_buf, addr, sizeof(stack_buf));

	if (n >= 0) {
		path = kmemdup(stack_buf, (size_t)n + 1);
		if (!path)
			return ERR_PTR(-ENOMEM);
	} else {
		if (n != -ENAMETOOLONG)
			return ERR_PTR(n);
		path = kmalloc(PATH_MAX);
		if (!path)
			return ERR_PTR(-ENOMEM);
		n = strncpy_from_user(t->vfs.um, path, addr, PATH_MAX);
		if (n < 0) {
			kfree(path);
			return ERR_PTR(n);
		}
	}
	if (!n && !empty_ok) {
		kfree(path);
		return ERR_PTR(-ENOENT);
	}
	return path;
}

int user_base(struct task *t, int dirfd, const char *name, struct path *out)
{
	struct file *file;

	memset(out, 0, sizeof(*out));
	if (name[0] == '/' || dirfd == AT_FDCWD)
		return 0;
	file = fd_get_any(t->files, dirfd);
	if (!file)
		return -EBADF;
	if (name[0] && !S_ISDIR(file->inode->mode)) {
		file_put(file);
		return -ENOTDIR;
	}
	*out = file->path;
	path_get(out);
	file_put(file);
	return 0;
}

int user_timespec(struct task *t, uaddr_t addr, struct timespec *ts)
{
	int err = copy_in(t, ts, addr, sizeof(*ts));

	if (err)
		return err;
	if (ts->tv_sec < 0 || ts->tv_nsec < 0 || ts->tv_nsec >= 1000000000)
		return -EINVAL;
	return 0;
}

struct timespec monotonic_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now;
}

void deadline_after(struct timespec *deadline, const struct timespec *ts)
{
	struct timespec now = monotonic_now();

	deadline->tv_nsec = now.tv_nsec + ts->tv_nsec;
	if (__builtin_add_overflow(now.tv_sec, ts->tv_sec, &deadline->tv_sec) ||
	    deadline->tv_sec > INT64_MAX / 1000000000 - 1)
		deadline->tv_sec = INT64_MAX / 1000000000 - 1;
	if (deadline->tv_nsec >= 1000000000) {
		deadline->tv_nsec -= 1000000000;
		deadline->tv_sec++;
	}
}

int user_sigset(struct task *t, uaddr_t addr, size_t size, uint64_t *mask)
{
	if (size != sizeof(*mask))
		return -EINVAL;
	if (copy_in(t, mask, addr, sizeof(*mask)))
		return -EFAULT;
	*mask &= ~SIG_UNBLOCKABLE;
	return 0;
}
