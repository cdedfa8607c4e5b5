/* SPDX-License-Identifier: Apache-2.0 */
/* Epoll sets, for the system calls. */
#ifndef SENTRY_EPOLL_H
#define SENTRY_EPOLL_H

#include "sentry/task.h"

struct file *epoll_create_file(struct task *t);
bool file_is_epoll(const struct file *file);
/* epoll_ctl(2) on the set behind @epfile; @event as copied in. */
int epoll_control(struct task *t, struct file *epfile, int op, int fd,
		  const struct epoll_event *event);
/*
 * epoll_wait(2): stores up to @max events at @events. A count, -EFAULT or -EINTR. @deadline on
 * CLOCK_MONOTONIC; NULL: none. @poll: doesn't wait.
 */
int epoll_wait_events(struct task *t, struct file *epfile, uaddr_t events, int max,
		      const struct timespec *deadline, bool poll);
/* epoll_release_hook. */
void epoll_file_released(struct file *file);

#endif
