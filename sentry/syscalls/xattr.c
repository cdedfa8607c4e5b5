/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes, xattr(7). */
#include <linux/limits.h>
#include <linux/xattr.h>
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls/fileio.h"

#define XATTR_NAME_SIZE (XATTR_NAME_MAX + 1)

static int xattr_name(struct task *t, uaddr_t addr, char *name)
{
	ssize_t n = strncpy_from_user(t->vfs.um, name, addr, XATTR_NAME_SIZE);

	if (n == -ENAMETOOLONG || n == 0)
		return -ERANGE;
	return n < 0 ? (int)n : 0;
}

/* The path a call is about: by name, following a last link or not, or by descriptor. */
enum xattr_at { AT_NAME, AT_LINK, AT_FD };

static int xattr_path(struct task *t, enum xattr_at at, uint64_t arg, struct path *path)
{
	struct file *file;

	if (at != AT_FD)
		return user_lookup(t, AT_FDCWD, arg, at == AT_NAME ? WALK_FOLLOW : 0, path);
	file = fd_get(t->files, (int)arg);
	if (!file)
		return -EBADF;
	*path = file->path;
	path_get(path);
	file_put(file);
	return 0;
}

static long do_setxattr(struct task *t, enum xattr_at at, const uint64_t *a)
{
	char name[XATTR_NAME_SIZE];
	int flags = (int)a[4], err;
	struct path path;
	void *value;

	if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	err = xattr_name(t, a[1], name);
	if (err)
		return err;
	if (a[3] > XATTR_SIZE_MAX)
		return -E2BIG;
	value = kmalloc(a[3] + 1);
	if (!value)
		return -ENOMEM;
	err = copy_in(t, value, a[2], a[3]);
	if (!err)
		err = xattr_path(t, at, a[0], &path);
	if (!err) {
		err = vfs_setxattr(&t->vfs, &path, name, value, a[3], flags);
		path_put(&path);
	}
	kfree(value);
	return err;
}

long sys_setxattr(struct task *t, const uint64_t *a)
{
	return do_setxattr(t, AT_NAME, a);
}

long sys_lsetxattr(struct task *t, const uint64_t *a)
{
	return do_setxattr(t, AT_LINK, a);
}

long sys_fsetxattr(struct task *t, const uint64_t *a)
{
	return do_setxattr(t, AT_FD, a);
}

static long do_getxattr(struct task *t, enum xattr_at at, const uint64_t *a)
{
	size_t size = MIN(a[3], (size_t)XATTR_SIZE_MAX);
	char name[XATTR_NAME_SIZE];
	struct path path;
	char *value = NULL;
	long ret = xattr_name(t, a[1], name);

	if (!ret)
		ret = xattr_path(t, at, a[0], &path);
	if (ret)
		return ret;
	if (size) {
		value = kmalloc(size);
		if (!value)
			ret = -ENOMEM;
	}
	if (!ret)
		ret = vfs_getxattr(&t->vfs, &path, name, value, size);
	path_put(&path);
	if (ret > 0 && size && copy_out(t, a[2], value, (size_t)ret))
		ret = -EFAULT;
	kfree(value);
	return ret;
}

long sys_getxattr(struct task *t, const uint64_t *a)
{
	return do_getxattr(t, AT_NAME, a);
}

long sys_lgetxattr(struct task *t, const uint64_t *a)
{
	return do_getxattr(t, AT_LINK, a);
}

long sys_fgetxattr(struct task *t, const uint64_t *a)
{
	return do_getxattr(t, AT_FD, a);
}

static long do_listxattr(struct task *t, enum xattr_at at, const uint64_t *a)
{
	size_t size = MIN(a[2], (size_t)XATTR_LIST_MAX);
	struct path path;
	char *list = NULL;
	long ret = xattr_path(t, at, a[0], &path);

	if (ret)
		return ret;
	if (size) {
		list = kmalloc(size);
		if (!list)
			ret = -ENOMEM;
	}
	if (!ret)
		ret = vfs_listxattr(&t->vfs, &path, list, size);
	path_put(&path);
	if (ret > 0 && size && copy_out(t, a[1], list, (size_t)ret))
		ret = -EFAULT;
	kfree(list);
	return ret;
}

long sys_listxattr(struct task *t, const uint64_t *a)
{
	return do_listxattr(t, AT_NAME, a);
}

long sys_llistxattr(struct task *t, const uint64_t *a)
{
	return do_listxattr(t, AT_LINK, a);
}

long sys_flistxattr(struct task *t, const uint64_t *a)
{
	return do_listxattr(t, AT_FD, a);
}

static long do_removexattr(struct task *t, enum xattr_at at, const uint64_t *a)
{
	char name[XATTR_NAME_SIZE];
	struct path path;
	int err = xattr_name(t, a[1], name);

	if (!err)
		err = xattr_path(t, at, a[0], &path);
	if (err)
		return err;
	err = vfs_removexattr(&t->vfs, &path, name);
	path_put(&path);
	return err;
}

long sys_removexattr(struct task *t, const uint64_t *a)
{
	return do_removexattr(t, AT_NAME, a);
}

long sys_lremovexattr(struct task *t, const uint64_t *a)
{
	return do_removexattr(t, AT_LINK, a);
}

long sys_fremovexattr(struct task *t, const uint64_t *a)
{
	return do_removexattr(t, AT_FD, a);
}
