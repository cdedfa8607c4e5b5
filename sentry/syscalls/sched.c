/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scheduling. The host schedules the sentry's threads; policies and priorities are recorded and
 * checked as sched(7) says, nice values and CPU masks likewise.
 */
#include <sched.h>
#include <string.h>

#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls.h"

/* A reference to the task numbered @nr, 0 being the caller. */
static struct task *get_target(struct task *t, pid_t nr)
{
	if (nr < 0)
		return NULL;
	return nr ? task_find(t->kernel, task_pid_ns(t), nr) : task_get(t);
}

static bool may_schedule(struct task *t, struct task *target)
{
	const struct cred *c = t->vfs.cred;
	struct cred *tc = task_get_cred(target);
	bool ok = c->euid == tc->euid || c->euid == tc->uid || cred_capable(c, CAP_SYS_NICE);

	cred_put(tc);
	return ok;
}

long sys_sched_yield(struct task *t, const uint64_t *a)
{
	sched_yield();
	return 0;
}

long sys_sched_getaffinity(struct task *t, const uint64_t *a)
{
	size_t size = a[1], bytes = MIN(size, sizeof(cpu_set_t));
	size_t need = ALIGN_UP((size_t)t->kernel->ncpus, 64) / 8;
	struct task *target;
	cpu_set_t set;

	if (size < need || size & 7)
		return -EINVAL;
	target = get_target(t, (pid_t)a[0]);
	if (!target)
		return -ESRCH;
	set = target->cpus;
	task_put(target);
	bytes = MIN(bytes, MAX(need, 8UL));
	return copy_out(t, a[2], &set, bytes) ? -EFAULT : (long)bytes;
}

long sys_sched_setaffinity(struct task *t, const uint64_t *a)
{
	struct task *target;
	cpu_set_t set, usable;
	long ret = 0;

	CPU_ZERO(&set);
	if (copy_in(t, &set, a[2], MIN(a[1], sizeof(set))))
		return -EFAULT;
	target = get_target(t, (pid_t)a[0]);
	if (!target)
		return -ESRCH;
	CPU_AND(&usable, &set, &t->kernel->cpus);
	if (!may_schedule(t, target))
		ret = -EPERM;
	else if (!CPU_COUNT(&usable))
		ret = -EINVAL;
	else
		target->cpus = usable;
	task_put(target);
	return ret;
}

static int priority_range(int policy, int *min, int *max)
{
	switch (policy) {
	case SCHED_FIFO:
	case SCHED_RR:
		*min = 1;
		*max = 99;
		return 0;
	case SCHED_OTHER:
	case SCHED_BATCH:
	case SCHED_IDLE:
	case 6 /* SCHED_DEADLINE */:
		*min = *max = 0;
		return 0;
	}
	return -EINVAL;
}

long sys_sched_get_priority_max(struct task *t, const uint64_t *a)
{
	int min, max, err = priority_range((int)a[0], &min, &max);

	return err ? err : max;
}

long sys_sched_get_priority_min(struct task *t, const uint64_t *a)
{
	int min, max, err = priority_range((int)a[0], &min, &max);

	return err ? err : min;
}

static long set_scheduler(struct task *t, pid_t nr, int policy, int priority)
{
	struct task *target;
	int min, max;
	long ret = 0;

	target = get_target(t, nr);
	if (!target)
		return nr < 0 ? -EINVAL : -ESRCH;
	if (policy < 0)
		policy = target->sched_policy;
	if (policy == 6 || priority_range(policy, &min, &max) || priority < min || priority > max)
		ret = -EINVAL;
	else if (!may_schedule(t, target))
		ret = -EPERM;
	else if (priority > 0 && !task_capable(t, CAP_SYS_NICE) &&
		 (uint64_t)priority > task_rlimit(t, RLIMIT_RTPRIO))
		ret = -EPERM;
	if (!ret) {
		target->sched_policy = policy;
		target->sched_priority = priority;
	}
	task_put(target);
	return ret;
}

long sys_sched_setscheduler(struct task *t, const uint64_t *a)
{
	int priority, policy = (int)a[1] & ~SCHED_RESET_ON_FORK;

	if (policy < 0 || !a[2])
		return -EINVAL;
	if (copy_in(t, &priority, a[2], sizeof(priority)))
		return -EFAULT;
	return set_scheduler(t, (pid_t)a[0], policy, priority);
}

long sys_sched_setparam(struct task *t, const uint64_t *a)
{
	int priority;

	if (!a[1])
		return -EINVAL;
	if (copy_in(t, &priority, a[1], sizeof(priority)))
		return -EFAULT;
	return set_scheduler(t, (pid_t)a[0], -1, priority);
}

long sys_sched_getscheduler(struct task *t, const uint64_t *a)
{
	struct task *target = get_target(t, (pid_t)a[0]);
	int policy;

	if (!target)
		return (pid_t)a[0] < 0 ? -EINVAL : -ESRCH;
	policy = target->sched_policy;
	task_put(target);
	return policy;
}

long sys_sched_getparam(struct task *t, const uint64_t *a)
{
	struct task *target = get_target(t, (pid_t)a[0]);
	int priority;

	if (!a[1] || (pid_t)a[0] < 0) {
		task_put(target);
		return -EINVAL;
	}
	if (!target)
		return -ESRCH;
	priority = target->sched_priority;
	task_put(target);
	return copy_out(t, a[1], &priority, sizeof(priority));
}

long sys_sched_rr_get_interval(struct task *t, const uint64_t *a)
{
	struct task *target = get_target(t, (pid_t)a[0]);
	struct timespec ts = {0};

	if (!target)
		return (pid_t)a[0] < 0 ? -EINVAL : -ESRCH;
	if (target->sched_policy == SCHED_RR)
		ts.tv_nsec = 100000000;
	else if (target->sched_policy == SCHED_OTHER)
		ts.tv_nsec = 4000000;
	task_put(target);
	return copy_out(t, a[1], &ts, sizeof(ts));
}

struct sched_attr_abi {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};

long sys_sched_getattr(struct task *t, const uint64_t *a)
{
	struct sched_attr_abi attr = {0};
	struct task *target;

	if (!a[1] || (pid_t)a[0] < 0 || a[2] < 48 || a[2] > PAGE_SIZE || a[3])
		return -EINVAL;
	target = get_target(t, (pid_t)a[0]);
	if (!target)
		return -ESRCH;
	attr.size = (uint32_t)MIN(a[2], sizeof(attr));
	attr.policy = (uint32_t)target->sched_policy;
	attr.nice = target->nice;
	attr.priority = (uint32_t)target->sched_priority;
	task_put(target);
	return copy_out(t, a[1], &attr, attr.size);
}

long sys_sched_setattr(struct task *t, const uint64_t *a)
{
	struct sched_attr_abi attr = {0};
	struct task *target;
	uint32_t size;
	long ret;

	if (!a[1] || (pid_t)a[0] < 0 || a[2])
		return -EINVAL;
	if (copy_in(t, &size, a[1], sizeof(size)))
		return -EFAULT;
	if (!size)
		size = 48;
	if (size < 48 || size > PAGE_SIZE)
		return -E2BIG;
	if (copy_in(t, &attr, a[1], MIN(size, sizeof(attr))))
		return -EFAULT;
	if (attr.nice < -20 || attr.nice > 19)
		return -EINVAL;
	ret = set_scheduler(t, (pid_t)a[0], (int)attr.policy, (int)attr.priority);
	if (ret)
		return ret;
	target = get_target(t, (pid_t)a[0]);
	if (target && attr.policy == SCHED_OTHER)
		target->nice = attr.nice;
	task_put(target);
	return 0;
}

/* ---- nice values ---- */

/* Calls @fn for every process that (which, who) names; tasklist held. -ESRCH: none. */
static long for_each_prio(struct task *t, int which, int who,
			  long (*fn)(struct task *t, struct task *target, long acc, int arg),
			  int arg)
{
	struct pid_ns *ns = task_pid_ns(t);
	struct thread_group *tg;
	struct pid *pid;
	long acc = -ESRCH;

	switch (which) {
	case PRIO_PROCESS:
		pid = who ? pid_find_locked(ns, who) : t->pid;
		return pid && pid->task ? fn(t, pid->task, acc, arg) : acc;
	case PRIO_PGRP:
		pid = who ? pid_find_locked(ns, who) : t->tg->pgrp;
		if (!pid)
			return acc;
		list_for_each_entry (tg, &pid->pgrp_members, pgrp_node)
			acc = fn(t, tg->leader, acc, arg);
		return acc;
	case PRIO_USER:
		for (uint64_t nr = 1; (pid = pid_next_locked(ns, &nr)); nr++) {
			if (pid->task &&
			    pid->task->vfs.cred->uid == (who ? (uid_t)who : t->vfs.cred->uid))
				acc = fn(t, pid->task, acc, arg);
		}
		return acc;
	}
	return -EINVAL;
}

static long prio_get(struct task *t, struct task *target, long acc, int arg)
{
	return MAX(acc, 20 - target->nice);
}

long sys_getpriority(struct task *t, const uint64_t *a)
{
	long ret;

	if ((int)a[0] < PRIO_PROCESS || (int)a[0] > PRIO_USER)
		return -EINVAL;
	mutex_lock(&t->kernel->tasklist);
	ret = for_each_prio(t, (int)a[0], (int)a[1], prio_get, 0);
	mutex_unlock(&t->kernel->tasklist);
	return ret;
}

static long prio_set(struct task *t, struct task *target, long acc, int nice)
{
	const struct cred *c = t->vfs.cred, *tc = target->vfs.cred;

	if (c->euid != tc->euid && c->euid != tc->uid && !cred_capable(c, CAP_SYS_NICE))
		return -EPERM;
	if (nice < target->nice && !cred_capable(c, CAP_SYS_NICE) &&
	    (uint64_t)(20 - nice) > t->tg->limits[RLIMIT_NICE].rlim_cur)
		return -EACCES;
	target->nice = nice;
	return acc == -ESRCH ? 0 : acc;
}

long sys_setpriority(struct task *t, const uint64_t *a)
{
	int nice = MAX(-20, MIN(19, (int)a[2]));
	long ret;

	if ((int)a[0] < PRIO_PROCESS || (int)a[0] > PRIO_USER)
		return -EINVAL;
	mutex_lock(&t->kernel->tasklist);
	ret = for_each_prio(t, (int)a[0], (int)a[1], prio_set, nice);
	mutex_unlock(&t->kernel->tasklist);
	return ret;
}

long sys_ioprio_get(struct task *t, const uint64_t *a)
{
	struct task *target;
	long ret;

	if ((int)a[0] != 1)
		return (int)a[0] == 2 || (int)a[0] == 3 ? (long)t->io_prio : -EINVAL;
	target = get_target(t, (pid_t)a[1]);
	if (!target)
		return -ESRCH;
	ret = target->io_prio;
	task_put(target);
	return ret;
}

long sys_ioprio_set(struct task *t, const uint64_t *a)
{
	unsigned int class = (unsigned int)a[2] >> 13;
	struct task *target;

	if (class > 3 || (class == 1 && !task_capable(t, CAP_SYS_ADMIN)))
		return class > 3 ? -EINVAL : -EPERM;
	if ((int)a[0] != 1)
		return (int)a[0] == 2 || (int)a[0] == 3 ? 0 : -EINVAL;
	target = get_target(t, (pid_t)a[1]);
	if (!target)
		return -ESRCH;
	target->io_prio = (unsigned int)a[2];
	task_put(target);
	return 0;
}
