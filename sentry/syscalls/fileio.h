/* SPDX-License-Identifier: Apache-2.0 */
/* What the file system calls share with each other: blocking reads and writes, installing files. */
#ifndef SENTRY_SYSCALLS_FILEIO_H
#define SENTRY_SYSCALLS_FILEIO_H

#include "sentry/syscalls.h"

/*
 * read(2) and write(2) as a program sees them: wait unless the file or @flags (IOCB_*) says
 * otherwise, write a stream to the end, raise SIGPIPE and SIGXFSZ. @pos is used and updated if
 * @flags has IOCB_POSITIONED. A count, -errno or -ERESTARTSYS.
 */
ssize_t fileio_read(struct task *t, struct file *file, struct iov_iter *to, uint64_t *pos,
		    unsigned int flags);
ssize_t fileio_write(struct task *t, struct file *file, struct iov_iter *from, uint64_t *pos,
		     unsigned int flags);
/* SIGPIPE to the caller, as write(2) raises it. */
void fileio_sigpipe(struct task *t);
/* The lowest free descriptor for @file (consumed; an ERR_PTR is passed through). */
long fd_install_new(struct task *t, struct file *file, bool cloexec);
/*
 * The path that the *at calls with AT_EMPTY_PATH mean: @dirfd's own for an empty name, else looked
 * up with @walk (WALK_*). @out holds references.
 */
int user_lookup(struct task *t, int dirfd, uaddr_t name, unsigned int walk, struct path *out);

#endif
