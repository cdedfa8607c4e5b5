/* SPDX-License-Identifier: Apache-2.0 */
/* flock(2). Record locks are in fcntl(2), fd.c. */
#include <sys/file.h>

#include "sentry/lib/err.h"
#include "sentry/syscalls/fileio.h"

long sys_flock(struct task *t, const uint64_t *a)
{
	int op = (int)a[1];
	struct file *file = fd_get(t->files, (int)a[0]);
	int err;

	if (!file)
		return -EBADF;
	err = file_flock(&t->vfs, file, op & ~LOCK_NB, op & LOCK_NB);
	file_put(file);
	return err;
}
