/* SPDX-License-Identifier: Apache-2.0 */
/* eventfd(2), signalfd(2), timerfd_create(2), pidfd_open(2) and relatives. */
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "sentry/eventfd.h"
#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/syscalls/fileio.h"

/* ---- eventfd ---- */

static long eventfd_new(struct task *t, unsigned int initval, int flags)
{
	if (flags & ~(EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE))
		return -EINVAL;
	return fd_install_new(
		t,
		eventfd_create(t, initval, flags & EFD_SEMAPHORE, (unsigned int)flags & O_NONBLOCK),
		flags & EFD_CLOEXEC);
}

long sys_eventfd(struct task *t, const uint64_t *a)
{
	return eventfd_new(t, (unsigned int)a[0], 0);
}

long sys_eventfd2(struct task *t, const uint64_t *a)
{
	return eventfd_new(t, (unsigned int)a[0], (int)a[1]);
}

/* ---- signalfd ---- */

static long signalfd_common(struct task *t, int fd, uaddr_t umask, size_t size, int flags)
{
	struct file *file;
	uint64_t mask;
	long ret;

	if (flags & ~(SFD_CLOEXEC | SFD_NONBLOCK))
		return -EINVAL;
	ret = user_sigset(t, umask, size, &mask);
	if (ret)
		return ret;
	if (fd == -1)
		return fd_install_new(t, signalfd_create(t, mask, (unsigned int)flags & O_NONBLOCK),
				      flags & SFD_CLOEXEC);
	file = fd_get(t->files, fd);
	if (!file)
		return -EBADF;
	ret = signalfd_set_mask(file, mask);
	file_put(file);
	return ret ? ret : fd;
}

long sys_signalfd(struct task *t, const uint64_t *a)
{
	return signalfd_common(t, (int)a[0], a[1], a[2], 0);
}

long sys_signalfd4(struct task *t, const uint64_t *a)
{
	return signalfd_common(t, (int)a[0], a[1], a[2], (int)a[3]);
}

/* ---- timerfd ---- */

long sys_timerfd_create(struct task *t, const uint64_t *a)
{
	int clock = (int)a[0], flags = (int)a[1];

	if (flags & ~(TFD_CLOEXEC | TFD_NONBLOCK))
		return -EINVAL;
	switch (clock) {
	case CLOCK_REALTIME_ALARM:
	case CLOCK_BOOTTIME_ALARM:
		if (!task_capable(t, CAP_WAKE_ALARM))
			return -EPERM;
		break;
	case CLOCK_REALTIME:
	case CLOCK_MONOTONIC:
	case CLOCK_BOOTTIME:
		break;
	default:
		return -EINVAL;
	}
	return fd_install_new(t, timerfd_create_file(t, clock, (unsigned int)flags & O_NONBLOCK),
			      flags & TFD_CLOEXEC);
}

static bool timespec_valid(const struct timespec *ts)
{
	return ts->tv_sec >= 0 && ts->tv_nsec >= 0 && ts->tv_nsec < 1000000000;
}

/* The timerfd at @fd with a reference, or ERR_PTR. */
static struct file *timerfd_get_file(struct task *t, int fd)
{
	struct file *file = fd_get(t->files, fd);

	if (!file)
		return ERR_PTR(-EBADF);
	if (!file_is_timerfd(file)) {
		file_put(file);
		return ERR_PTR(-EINVAL);
	}
	return file;
}

long sys_timerfd_settime(struct task *t, const uint64_t *a)
{
	struct itimerspec new, old;
	struct file *file;

	if (copy_in(t, &new, a[2], sizeof(new)))
		return -EFAULT;
	if (((int)a[1] & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)) ||
	    !timespec_valid(&new.it_value) || !timespec_valid(&new.it_interval))
		return -EINVAL;
	file = timerfd_get_file(t, (int)a[0]);
	if (IS_ERR(file))
		return PTR_ERR(file);
	timerfd_set(file, (int)a[1] & TFD_TIMER_ABSTIME, &new, &old);
	file_put(file);
	return a[3] ? copy_out(t, a[3], &old, sizeof(old)) : 0;
}

long sys_timerfd_gettime(struct task *t, const uint64_t *a)
{
	struct file *file = timerfd_get_file(t, (int)a[0]);
	struct itimerspec cur;

	if (IS_ERR(file))
		return PTR_ERR(file);
	timerfd_get(file, &cur);
	file_put(file);
	return copy_out(t, a[1], &cur, sizeof(cur));
}

/* ---- pidfd ---- */

long sys_pidfd_open(struct task *t, const uint64_t *a)
{
	pid_t nr = (pid_t)a[0];
	struct file *file;
	struct pid *pid;
	bool leader = false;

	if ((unsigned int)a[1] & ~(unsigned int)O_NONBLOCK)
		return -EINVAL;
	if (nr <= 0)
		return -EINVAL;
	mutex_lock(&t->kernel->tasklist);
	pid = pid_find_locked(task_pid_ns(t), nr);
	if (pid) {
		leader = pid->tg;
		pid_get(pid);
	}
	mutex_unlock(&t->kernel->tasklist);
	if (!pid)
		return -ESRCH;
	file = leader ? pidfd_alloc(t, pid, (unsigned int)a[1]) : ERR_PTR(-EINVAL);
	pid_put(pid);
	return fd_install_new(t, file, true);
}

/*
 * The pid behind descriptor @fd, with @proc also a /proc/PID, with a reference, or ERR_PTR(-EBADF).
 */
static struct pid *pidfd_get_pid(struct task *t, int fd, bool proc)
{
	struct file *file = fd_get(t->files, fd);
	struct pid *pid;

	if (!file)
		return ERR_PTR(-EBADF);
	pid = pidfd_pid(file);
	if (!pid && proc)
		pid = proc_dir_pid(file);
	pid = pid ? pid_get(pid) : ERR_PTR(-EBADF);
	file_put(file);
	return pid;
}

/* The leader of @pid's process with a reference, or NULL. */
static struct task *pid_leader(struct kernel *k, struct pid *pid)
{
	struct task *leader = NULL;

	mutex_lock(&k->tasklist);
	if (pid->tg && pid->tg->leader)
		leader = task_get(pid->tg->leader);
	mutex_unlock(&k->tasklist);
	return leader;
}

static int pidfd_siginfo(struct task *t, struct task *target, int signo, uaddr_t uinfo,
			 siginfo_t *info)
{
	memset(info, 0, sizeof(*info));
	if (!uinfo) {
		info->si_signo = signo;
		info->si_code = SI_USER;
		info->si_pid = task_tgid_nr(t, task_pid_ns(target));
		info->si_uid = t->vfs.cred->uid;
		return 0;
	}
	if (copy_in(t, info, uinfo, sizeof(*info)))
		return -EFAULT;
	if (info->si_signo != signo)
		return -EINVAL;
	/* Nobody else may be told that it came from the kernel. */
	if (target->tg != t->tg && (info->si_code >= 0 || info->si_code == SI_TKILL))
		return -EPERM;
	return 0;
}

long sys_pidfd_send_signal(struct task *t, const uint64_t *a)
{
	int signo = (int)a[1];
	struct task *target;
	struct pid *pid;
	siginfo_t info;
	long ret;

	if (a[3] || signo < 0 || signo > NSIGS)
		return -EINVAL;
	pid = pidfd_get_pid(t, (int)a[0], true);
	if (IS_ERR(pid))
		return PTR_ERR(pid);
	target = pid_leader(t->kernel, pid);
	pid_put(pid);
	if (!target)
		return -ESRCH;
	ret = pidfd_siginfo(t, target, signo, a[2], &info);
	if (!ret && !signal_permitted(t, target, signo))
		ret = -EPERM;
	if (!ret && signo)
		ret = signal_send_group(target->tg, &info);
	task_put(target);
	return ret;
}

long sys_pidfd_getfd(struct task *t, const uint64_t *a)
{
	struct fd_table *files;
	struct task *target;
	struct file *file;
	struct pid *pid;
	long ret;

	if ((unsigned int)a[2])
		return -EINVAL;
	pid = pidfd_get_pid(t, (int)a[0], false);
	if (IS_ERR(pid))
		return PTR_ERR(pid);
	target = pid_leader(t->kernel, pid);
	pid_put(pid);
	if (!target)
		return -ESRCH;
	ret = task_may_access(t, target);
	if (!ret) {
		files = task_get_files(target);
		ret = files ? -EBADF : -ESRCH;
		file = files ? fd_get_any(files, (int)a[1]) : NULL;
		if (file)
			ret = fd_install_new(t, file, true);
		if (files)
			fd_table_put(&target->vfs, files);
	}
	task_put(target);
	return ret;
}
