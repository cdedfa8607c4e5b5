/* SPDX-License-Identifier: Apache-2.0 */
/* The small objects that are only files: eventfd, timerfd, signalfd. */
#ifndef SENTRY_EVENTFD_H
#define SENTRY_EVENTFD_H

#include "sentry/task.h"

struct itimerspec;

struct file *eventfd_create(struct task *t, unsigned int initval, bool semaphore,
			    unsigned int flags);

struct file *timerfd_create_file(struct task *t, int clock, unsigned int flags);
bool file_is_timerfd(const struct file *file);
/* @abs: value is absolute. @old may be NULL. */
void timerfd_set(struct file *file, bool abs, const struct itimerspec *new, struct itimerspec *old);
void timerfd_get(struct file *file, struct itimerspec *cur);

struct file *signalfd_create(struct task *t, uint64_t mask, unsigned int flags);
/* Changes the mask; -EINVAL if it isn't one. */
int signalfd_set_mask(struct file *file, uint64_t mask);

#endif
