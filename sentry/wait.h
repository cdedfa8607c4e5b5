/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SENTRY_WAIT_H
#define SENTRY_WAIT_H

#include "sentry/task.h"

/* Bytes of the kernel's struct rusage; a libc's may have more. */
#define RUSAGE_SIZE 144
_Static_assert(sizeof(struct rusage) >= RUSAGE_SIZE &&
		       offsetof(struct rusage, ru_nivcsw) + sizeof(long) == RUSAGE_SIZE,
	       "struct rusage");

struct wait_args {
	int type;	 /* P_ALL, P_PID, P_PGID, P_PIDFD */
	struct pid *pid; /* for all but P_ALL; borrowed; NULL matches nobody */
	int options;	 /* WNOHANG, WEXITED, WUNTRACED, WCONTINUED, WNOWAIT, __WALL, __WCLONE */
};

struct wait_result {
	pid_t nr;
	int status; /* as wait4 has it */
	siginfo_t info;
	struct rusage rusage;
};

/*
 * Waits for a child's change of state. 1: @r is filled; 0: WNOHANG and nothing; -ECHILD;
 * -ERESTARTSYS.
 */
int task_wait_child(struct task *t, const struct wait_args *w, struct wait_result *r);

#endif
