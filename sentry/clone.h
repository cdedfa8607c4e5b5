/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SENTRY_CLONE_H
#define SENTRY_CLONE_H

#include "sentry/task.h"

/* clone3(2)'s arguments, already copied in. */
struct clone_params {
	uint64_t flags; /* CLONE_*, no signal number */
	uaddr_t pidfd, child_tid, parent_tid;
	int exit_signal;
	uaddr_t stack; /* the new stack pointer, 0: as the parent's */
	uaddr_t tls;
	pid_t set_tid[33];
	size_t set_tid_size;
};

/*
 * Returns the child's number in the caller's namespace, or -errno. vfork's end is waited for by the
 * run loop.
 */
long task_clone(struct task *t, const struct clone_params *p);
/* unshare(2) and setns(2)'s flags on the caller itself. */
long task_unshare(struct task *t, uint64_t flags);

#endif
