/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SENTRY_WAIT_H
#define SENTRY_WAIT_H

#include "sentry/task.h"

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
