/* SPDX-License-Identifier: Apache-2.0 */
/* Opening files, and the calls that make descriptors without a name: memfd_create(2). */
#include <linux/openat2.h>
#include <string.h>
#include <sys/mman.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls/fileio.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#define MFD_EXEC	16u
#endif

static long open_common(struct task *t, int dirfd, uaddr_t uname, const struct open_how *how)
{
	char *name = user_path(t, uname, false);
	struct file *file;
	struct path base;
	long ret;

	if (IS_ERR(name))
		return PTR_ERR(name);
	/* With RESOLVE_IN_ROOT an absolute name starts at the directory, too. */
	ret = user_base(t, dirfd, how->resolve & RESOLVE_IN_ROOT ? "" : name, &base);
	if (!ret) {
		file = file_open(&t->vfs, base.mnt ? &base : NULL, name, how);
		path_put(&base);
		ret = fd_install_new(t, file, how->flags & O_CLOEXEC);
	}
	kfree(name);
	return ret;
}

static long open_legacy(struct task *t, int dirfd, uaddr_t name, unsigned int flags, mode_t mode)
{
	struct open_how how;

	open_how_init(&how, flags, mode);
	return open_common(t, dirfd, name, &how);
}

long sys_open(struct task *t, const uint64_t *a)
{
	return open_legacy(t, AT_FDCWD, a[0], (unsigned int)a[1], (mode_t)a[2]);
}

long sys_openat(struct task *t, const uint64_t *a)
{
	return open_legacy(t, (int)a[0], a[1], (unsigned int)a[2], (mode_t)a[3]);
}

long sys_creat(struct task *t, const uint64_t *a)
{
	return open_legacy(t, AT_FDCWD, a[0], O_CREAT | O_WRONLY | O_TRUNC, (mode_t)a[1]);
}

/*
 * A structure that may grow in later versions: what is missing is 0, what is more must be 0.
 * 0, -EFAULT, -EINVAL or -E2BIG.
 */
static int copy_in_extensible(struct task *t, void *dst, size_t size, uaddr_t src, size_t usize)
{
	uint8_t byte;

	if (usize > PAGE_SIZE)
		return -E2BIG;
	memset(dst, 0, size);
	if (copy_in(t, dst, src, MIN(size, usize)))
		return -EFAULT;
	for (size_t i = size; i < usize; i++) {
		if (copy_in(t, &byte, src + i, 1))
			return -EFAULT;
		if (byte)
			return -E2BIG;
	}
	return 0;
}

long sys_openat2(struct task *t, const uint64_t *a)
{
	struct open_how how;
	int err;

	if (a[3] < 24 /* OPEN_HOW_SIZE_VER0 */)
		return -EINVAL;
	err = copy_in_extensible(t, &how, sizeof(how), a[2], a[3]);
	if (err)
		return err;
	return open_common(t, (int)a[0], a[1], &how);
}

#define MFD_NAME_MAX 249

long sys_memfd_create(struct task *t, const uint64_t *a)
{
	unsigned int flags = (unsigned int)a[1];
	char name[MFD_NAME_MAX + 1];
	ssize_t n;

	if (flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_NOEXEC_SEAL | MFD_EXEC))
		return -EINVAL;
	if (flags & MFD_HUGETLB)
		return -ENODEV;
	n = strncpy_from_user(t->vfs.um, name, a[0], sizeof(name));
	if (n < 0)
		return n == -ENAMETOOLONG ? -EINVAL : n;
	return fd_install_new(t, memfd_file(&t->vfs, name, flags & ~MFD_CLOEXEC),
			      flags & MFD_CLOEXEC);
}
