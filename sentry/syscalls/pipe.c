/* SPDX-License-Identifier: Apache-2.0 */
/* pipe(2). Splicing is in splice.c. */
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/syscalls/fileio.h"

static long do_pipe(struct task *t, uaddr_t ufds, unsigned int flags)
{
	bool cloexec = flags & O_CLOEXEC;
	struct file *rd, *wr;
	int fds[2];
	int err;

	if (flags & ~(unsigned int)(O_CLOEXEC | O_NONBLOCK | O_DIRECT))
		return -EINVAL;
	err = pipe_create(t, flags & (O_NONBLOCK | O_DIRECT), &rd, &wr);
	if (err)
		return err;
	fds[0] = (int)fd_install_new(t, rd, cloexec);
	if (fds[0] < 0) {
		file_put(wr);
		return fds[0];
	}
	fds[1] = (int)fd_install_new(t, wr, cloexec);
	err = fds[1] < 0 ? fds[1] : copy_out(t, ufds, fds, sizeof(fds));
	if (!err)
		return 0;
	fd_close(&t->vfs, t->files, (unsigned int)fds[0]);
	if (fds[1] >= 0)
		fd_close(&t->vfs, t->files, (unsigned int)fds[1]);
	return err;
}

long sys_pipe(struct task *t, const uint64_t *a)
{
	return do_pipe(t, a[0], 0);
}

long sys_pipe2(struct task *t, const uint64_t *a)
{
	return do_pipe(t, a[0], (unsigned int)a[1]);
}
