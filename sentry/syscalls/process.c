/* SPDX-License-Identifier: Apache-2.0 */
/* Process system calls: clone, exit, wait, identities, groups and sessions. */
#include <string.h>
#include <sys/wait.h>

#include "sentry/clone.h"
#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/syscalls.h"
#include "sentry/wait.h"

#define CLONE_LEGACY_FLAGS 0xffffffffULL

long sys_clone(struct task *t, const uint64_t *a)
{
	struct clone_params p = {
		.flags = (a[0] & CLONE_LEGACY_FLAGS) & ~(uint64_t)CSIGNAL,
		.exit_signal = (int)(a[0] & CSIGNAL),
		.stack = a[1],
		.parent_tid = a[2],
		.child_tid = a[3],
		.tls = a[4],
	};

	if (p.flags & CLONE_PIDFD) {
		if (p.flags & CLONE_PARENT_SETTID)
			return -EINVAL;
		p.pidfd = a[2];
	}
	/* Ignored for half a century of kernels. */
	p.flags &= ~(uint64_t)CLONE_DETACHED;
	return task_clone(t, &p);
}

long sys_fork(struct task *t, const uint64_t *a)
{
	struct clone_params p = {.exit_signal = SIGCHLD};

	return task_clone(t, &p);
}

long sys_vfork(struct task *t, const uint64_t *a)
{
	struct clone_params p = {.flags = CLONE_VFORK | CLONE_VM, .exit_signal = SIGCHLD};

	return task_clone(t, &p);
}

long sys_clone3(struct task *t, const uint64_t *a)
{
	struct {
		uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls,
			set_tid, set_tid_size, cgroup;
	} args = {0};
	struct clone_params p = {0};
	size_t size = a[1];
	uint8_t extra;

	if (size < 64)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	if (copy_in(t, &args, a[0], MIN(size, sizeof(args))))
		return -EFAULT;
	for (size_t i = sizeof(args); i < size; i++) {
		if (copy_in(t, &extra, a[0] + i, 1))
			return -EFAULT;
		if (extra)
			return -E2BIG;
	}
	if ((args.flags & (CSIGNAL | CLONE_DETACHED)))
		return -EINVAL;
	if (args.exit_signal > NSIGS ||
	    ((args.flags & (CLONE_THREAD | CLONE_PARENT)) && args.exit_signal))
		return -EINVAL;
	if (!args.stack != !args.stack_size)
		return -EINVAL;
	if (args.set_tid_size > 32 || !args.set_tid != !args.set_tid_size)
		return -EINVAL;
	if (args.set_tid_size &&
	    copy_in(t, p.set_tid, args.set_tid, args.set_tid_size * sizeof(pid_t)))
		return -EFAULT;
	p.flags = args.flags;
	p.pidfd = args.pidfd;
	p.child_tid = args.child_tid;
	p.parent_tid = args.parent_tid;
	p.exit_signal = (int)args.exit_signal;
	p.stack = args.stack ? args.stack + args.stack_size : 0;
	p.tls = args.tls;
	p.set_tid_size = args.set_tid_size;
	return task_clone(t, &p);
}

long sys_unshare(struct task *t, const uint64_t *a)
{
	return task_unshare(t, a[0]);
}

long sys_exit(struct task *t, const uint64_t *a)
{
	task_exit_thread(t, ((int)a[0] & 0xff) << 8);
	return 0;
}

long sys_exit_group(struct task *t, const uint64_t *a)
{
	task_exit_group(t, ((int)a[0] & 0xff) << 8);
	return 0;
}

long sys_set_tid_address(struct task *t, const uint64_t *a)
{
	t->clear_child_tid = a[0];
	return task_tid_nr(t, task_pid_ns(t));
}

/* ---- wait ---- */

/* A reference to the pid with number @nr in the caller's namespace, or NULL. */
static struct pid *pid_lookup(struct task *t, pid_t nr)
{
	struct pid *pid;

	mutex_lock(&t->kernel->tasklist);
	pid = pid_find_locked(task_pid_ns(t), nr);
	if (pid)
		pid_get(pid);
	mutex_unlock(&t->kernel->tasklist);
	return pid;
}

long sys_wait4(struct task *t, const uint64_t *a)
{
	pid_t nr = (pid_t)a[0];
	int options = (int)a[2];
	struct wait_args w = {.type = P_ALL, .options = options | WEXITED};
	struct wait_result r;
	long ret;

	if (options & ~(WNOHANG | WUNTRACED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL))
		return -EINVAL;
	if (nr == INT32_MIN)
		return -ESRCH;
	if (nr > 0) {
		w.type = P_PID;
		w.pid = pid_lookup(t, nr);
	} else if (nr < -1) {
		w.type = P_PGID;
		w.pid = pid_lookup(t, -nr);
	} else if (nr == 0) {
		w.type = P_PGID;
		w.pid = pid_get(t->tg->pgrp);
	}
	ret = task_wait_child(t, &w, &r);
	pid_put(w.pid);
	if (ret <= 0)
		return ret;
	if (a[1] && copy_out(t, a[1], &r.status, sizeof(r.status)))
		return -EFAULT;
	if (a[3] && copy_out(t, a[3], &r.rusage, RUSAGE_SIZE))
		return -EFAULT;
	return r.nr;
}

long sys_waitid(struct task *t, const uint64_t *a)
{
	int type = (int)a[0], options = (int)a[3];
	pid_t nr = (pid_t)a[1];
	struct wait_args w = {.type = type, .options = options};
	struct wait_result r;
	siginfo_t info;
	long ret;

	if (options & ~(WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | __WNOTHREAD |
			__WCLONE | __WALL))
		return -EINVAL;
	if (!(options & (WEXITED | WSTOPPED | WCONTINUED)))
		return -EINVAL;
	switch (type) {
	case P_ALL:
		break;
	case P_PID:
		if (nr <= 0)
			return -EINVAL;
		w.pid = pid_lookup(t, nr);
		break;
	case P_PGID:
		if (nr < 0)
			return -EINVAL;
		w.pid = nr ? pid_lookup(t, nr) : pid_get(t->tg->pgrp);
		break;
	case P_PIDFD: {
		struct file *file;

		if (nr < 0)
			return -EINVAL;
		file = fd_get(t->files, nr);
		if (!file)
			return -EBADF;
		w.pid = pidfd_pid(file);
		if (w.pid)
			pid_get(w.pid);
		if (atomic_load(&file->flags) & O_NONBLOCK)
			w.options |= WNOHANG;
		file_put(file);
		if (!w.pid)
			return -EBADF;
		break;
	}
	default:
		return -EINVAL;
	}
	ret = task_wait_child(t, &w, &r);
	pid_put(w.pid);
	if (ret < 0)
		return ret;
	if (!ret && (w.options & WNOHANG) && !(options & WNOHANG))
		return -EAGAIN;
	memset(&info, 0, sizeof(info));
	if (ret > 0)
		info = r.info;
	if (ret > 0 && a[4] && copy_out(t, a[4], &r.rusage, RUSAGE_SIZE))
		return -EFAULT;
	if (a[2] && copy_out(t, a[2], &info, sizeof(info)))
		return -EFAULT;
	return 0;
}

/* ---- who am I ---- */

long sys_getpid(struct task *t, const uint64_t *a)
{
	return task_tgid_nr(t, task_pid_ns(t));
}

long sys_gettid(struct task *t, const uint64_t *a)
{
	return task_tid_nr(t, task_pid_ns(t));
}

long sys_getppid(struct task *t, const uint64_t *a)
{
	long ret;

	mutex_lock(&t->kernel->tasklist);
	ret = t->tg->parent ? pid_nr(t->tg->parent->pid, task_pid_ns(t)) : 0;
	mutex_unlock(&t->kernel->tasklist);
	return ret;
}

/* Calls @get on the process with number @nr (0: the caller's) under tasklist. */
static long with_group(struct task *t, pid_t nr, struct pid *(*get)(struct thread_group *))
{
	struct thread_group *tg = t->tg;
	long ret = -ESRCH;

	mutex_lock(&t->kernel->tasklist);
	if (nr) {
		struct pid *pid = pid_find_locked(task_pid_ns(t), nr);

		tg = pid ? (pid->tg ? pid->tg : pid->task ? pid->task->tg : NULL) : NULL;
	}
	if (tg)
		ret = pid_nr(get(tg), task_pid_ns(t));
	mutex_unlock(&t->kernel->tasklist);
	return ret;
}

static struct pid *get_pgrp(struct thread_group *tg)
{
	return tg->pgrp;
}

static struct pid *get_session(struct thread_group *tg)
{
	return tg->session;
}

long sys_getpgid(struct task *t, const uint64_t *a)
{
	return with_group(t, (pid_t)a[0], get_pgrp);
}

long sys_getpgrp(struct task *t, const uint64_t *a)
{
	return with_group(t, 0, get_pgrp);
}

long sys_getsid(struct task *t, const uint64_t *a)
{
	return with_group(t, (pid_t)a[0], get_session);
}

/* Moves @tg to @pgrp. tasklist held. */
static void set_pgrp_locked(struct thread_group *tg, struct pid *pgrp)
{
	struct pid *old = tg->pgrp;

	if (old == pgrp)
		return;
	list_del(&tg->pgrp_node);
	tg->pgrp = pid_get(pgrp);
	list_add_tail(&tg->pgrp_node, &pgrp->pgrp_members);
	pid_release_locked(old);
	pid_put(old);
}

static long setpgid_locked(struct task *t, pid_t nr, pid_t pgid)
{
	struct pid_ns *ns = task_pid_ns(t);
	struct thread_group *tg = t->tg, *member;
	struct pid *pid, *pgrp;

	if (nr) {
		pid = pid_find_locked(ns, nr);
		tg = pid ? pid->tg : NULL;
	}
	if (!tg || (tg != t->tg && tg->parent != t->tg))
		return -ESRCH;
	if (tg != t->tg) {
		if (tg->session != t->tg->session)
			return -EPERM;
		if (tg->did_exec)
			return -EACCES;
	}
	if (tg->session == tg->pid)
		return -EPERM;
	pgrp = pgid ? pid_find_locked(ns, pgid) : tg->pid;
	if (pgrp != tg->pid) {
		if (!pgrp || list_empty(&pgrp->pgrp_members))
			return -EPERM;
		member = list_first_entry(&pgrp->pgrp_members, struct thread_group, pgrp_node);
		if (member->session != t->tg->session)
			return -EPERM;
	}
	set_pgrp_locked(tg, pgrp);
	return 0;
}

long sys_setpgid(struct task *t, const uint64_t *a)
{
	pid_t nr = (pid_t)a[0], pgid = (pid_t)a[1];
	long ret;

	if (pgid < 0)
		return -EINVAL;
	mutex_lock(&t->kernel->tasklist);
	ret = setpgid_locked(t, nr, pgid);
	mutex_unlock(&t->kernel->tasklist);
	return ret;
}

long sys_setsid(struct task *t, const uint64_t *a)
{
	struct thread_group *tg = t->tg;
	struct tty *tty = NULL;
	struct pid *old;
	long ret = -EPERM;

	mutex_lock(&t->kernel->tasklist);
	if (tg->session == tg->pid || !list_empty(&tg->pid->pgrp_members))
		goto out_unlock;
	set_pgrp_locked(tg, tg->pid);
	old = tg->session;
	list_del(&tg->session_node);
	tg->session = pid_get(tg->pid);
	list_add_tail(&tg->session_node, &tg->pid->session_members);
	pid_release_locked(old);
	pid_put(old);
	tty = tg->tty;
	tg->tty = NULL;
	ret = pid_nr(tg->pid, task_pid_ns(t));
out_unlock:
	mutex_unlock(&t->kernel->tasklist);
	tty_put(tty);
	return ret;
}
