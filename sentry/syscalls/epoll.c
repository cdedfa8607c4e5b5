/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls of epoll(7). */
#include "sentry/epoll.h"

#include "sentry/lib/err.h"
#include "sentry/syscalls.h"

#define EP_MAX_EVENTS ((int)(INT32_MAX / sizeof(struct epoll_event)))

static long epoll_new(struct task *t, bool cloexec)
{
	struct file *file = epoll_create_file(t);

	if (IS_ERR(file))
		return PTR_ERR(file);
	return fd_install(t->files, file, 0, cloexec, task_rlimit(t, RLIMIT_NOFILE));
}

long sys_epoll_create(struct task *t, const uint64_t *a)
{
	return (int)a[0] <= 0 ? -EINVAL : epoll_new(t, false);
}

long sys_epoll_create1(struct task *t, const uint64_t *a)
{
	if ((int)a[0] & ~EPOLL_CLOEXEC)
		return -EINVAL;
	return epoll_new(t, (int)a[0] & EPOLL_CLOEXEC);
}

long sys_epoll_ctl(struct task *t, const uint64_t *a)
{
	int op = (int)a[1];
	struct epoll_event ev = {0};
	struct file *file;
	long ret;

	if (op != EPOLL_CTL_DEL && copy_in(t, &ev, a[3], sizeof(ev)))
		return -EFAULT;
	file = fd_get(t->files, (int)a[0]);
	if (!file)
		return -EBADF;
	if (file_is_epoll(file)) {
		ret = epoll_control(t, file, op, (int)a[2], &ev);
	} else {
		struct file *target = fd_get(t->files, (int)a[2]);

		ret = target ? -EINVAL : -EBADF;
		file_put(target);
	}
	file_put(file);
	return ret;
}

static long epoll_wait_common(struct task *t, const uint64_t *a, const struct timespec *deadline,
			      bool nowait)
{
	int max = (int)a[2];
	struct file *file;
	long ret = -EINVAL;

	if (max <= 0 || max > EP_MAX_EVENTS)
		return -EINVAL;
	file = fd_get(t->files, (int)a[0]);
	if (!file)
		return -EBADF;
	if (file_is_epoll(file))
		ret = epoll_wait_events(t, file, a[1], max, deadline, nowait);
	file_put(file);
	return ret;
}

static long epoll_wait_ms(struct task *t, const uint64_t *a)
{
	int ms = (int)a[3];
	struct timespec ts, until;

	if (ms <= 0)
		return epoll_wait_common(t, a, NULL, ms == 0);
	ts.tv_sec = ms / 1000;
	ts.tv_nsec = ms % 1000 * 1000000L;
	task_deadline(t, &until, &ts);
	return epoll_wait_common(t, a, &until, false);
}

long sys_epoll_wait(struct task *t, const uint64_t *a)
{
	return epoll_wait_ms(t, a);
}

/* The mask argument of epoll_pwait and epoll_pwait2. */
static int epoll_mask(struct task *t, const uint64_t *a)
{
	uint64_t mask;
	int err;

	if (!a[4])
		return 0;
	err = user_sigset(t, a[4], a[5], &mask);
	if (!err)
		task_set_temp_mask(t, mask);
	return err;
}

long sys_epoll_pwait(struct task *t, const uint64_t *a)
{
	int err = epoll_mask(t, a);

	return err ? err : epoll_wait_ms(t, a);
}

long sys_epoll_pwait2(struct task *t, const uint64_t *a)
{
	struct timespec ts, until;
	int err;

	if (a[3]) {
		err = user_timespec(t, a[3], &ts);
		if (err)
			return err;
		task_deadline(t, &until, &ts);
	}
	err = epoll_mask(t, a);
	if (err)
		return err;
	return epoll_wait_common(t, a, a[3] ? &until : NULL, a[3] && !ts.tv_sec && !ts.tv_nsec);
}
