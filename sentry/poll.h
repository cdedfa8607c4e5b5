/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for several files at once, the part below poll(2), ppoll(2), select(2) and pselect6(2).
 */
#ifndef SENTRY_POLL_H
#define SENTRY_POLL_H

#include <poll.h>

#include "sentry/task.h"

/*
 * Fills revents of @fds. Returns how many are not 0, or -EBADF if @bad_fd_fails and a descriptor
 * isn't open, -ENOMEM, or -ERESTARTNOHAND when a signal came first. @deadline on CLOCK_MONOTONIC,
 * NULL: none; @poll: doesn't wait.
 */
int poll_wait(struct task *t, struct pollfd *fds, unsigned int n, const struct timespec *deadline,
	      bool poll, bool bad_fd_fails);

#endif
