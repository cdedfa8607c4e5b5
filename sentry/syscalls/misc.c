/* SPDX-License-Identifier: Apache-2.0 */
/* What has no better place: names, limits, prctl(2), random numbers, system information. */
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "loader/vdso.h"
#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/physmem.h"
#include "sentry/objects.h"
#include "sentry/syscalls.h"

#define ARCH_SET_GS	0x1001
#define ARCH_SET_FS	0x1002
#define ARCH_GET_FS	0x1003
#define ARCH_GET_GS	0x1004
#define ARCH_CET_STATUS 0x3001

long sys_uname(struct task *t, const uint64_t *a)
{
	struct utsname u;

	memset(&u, 0, sizeof(u));
	strcpy(u.sysname, "Linux");
	strcpy(u.release, KERNEL_RELEASE);
	strcpy(u.version, KERNEL_VERSION);
	strcpy(u.machine, ARCH_UTS_MACHINE);
	mutex_lock(&t->uts->lock);
	memcpy(u.nodename, t->uts->nodename, sizeof(u.nodename));
	memcpy(u.domainname, t->uts->domainname, sizeof(u.domainname));
	mutex_unlock(&t->uts->lock);
	return copy_out(t, a[0], &u, sizeof(u));
}

static long set_name(struct task *t, const uint64_t *a, char *name)
{
	char buf[65] = {0};
	int len = (int)a[1];

	if (!task_capable(t, CAP_SYS_ADMIN))
		return -EPERM;
	if (len < 0 || len > 64)
		return -EINVAL;
	if (copy_in(t, buf, a[0], (size_t)len))
		return -EFAULT;
	mutex_lock(&t->uts->lock);
	memcpy(name, buf, sizeof(buf));
	mutex_unlock(&t->uts->lock);
	return 0;
}

long sys_sethostname(struct task *t, const uint64_t *a)
{
	return set_name(t, a, t->uts->nodename);
}

long sys_setdomainname(struct task *t, const uint64_t *a)
{
	return set_name(t, a, t->uts->domainname);
}

/* Bytes of the kernel's struct sysinfo; a libc's may have more. */
#define SYSINFO_SIZE 112
_Static_assert(sizeof(struct sysinfo) >= SYSINFO_SIZE && offsetof(struct sysinfo, mem_unit) == 104,
	       "struct sysinfo");

long sys_sysinfo(struct task *t, const uint64_t *a)
{
	struct physmem_stats pm;
	struct sysinfo si, host;
	struct timespec up;

	memset(&si, 0, sizeof(si));
	sysinfo(&host);
	physmem_stats(&pm);
	clock_gettime(CLOCK_BOOTTIME, &up);
	si.uptime = up.tv_sec;
	si.totalram = pm.limit ? pm.limit : (uint64_t)host.totalram * host.mem_unit;
	si.freeram = pm.limit ? (pm.limit > pm.resident ? pm.limit - pm.resident : 0)
			      : (uint64_t)host.freeram * host.mem_unit;
	si.mem_unit = 1;
	si.procs = (unsigned short)t->kernel->nr_tasks;
	return copy_out(t, a[0], &si, SYSINFO_SIZE);
}

long sys_getrandom(struct task *t, const uint64_t *a)
{
	uint8_t buf[256];
	size_t len = MIN(a[1], (size_t)33554431), done = 0;

	if (a[2] & ~(uint64_t)(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE) ||
	    (a[2] & (GRND_RANDOM | GRND_INSECURE)) == (GRND_RANDOM | GRND_INSECURE))
		return -EINVAL;
	while (done < len) {
		size_t n = MIN(len - done, sizeof(buf));

		if (getrandom(buf, n, 0) != (ssize_t)n)
			return done ? (long)done : -EAGAIN;
		if (copy_out(t, a[0] + done, buf, n))
			return done ? (long)done : -EFAULT;
		done += n;
		if (done < len && task_interrupted(t))
			break;
	}
	return (long)done;
}

long sys_getcpu(struct task *t, const uint64_t *a)
{
	unsigned int zero = 0;

	if (a[0] && copy_out(t, a[0], &zero, sizeof(zero)))
		return -EFAULT;
	if (a[1] && copy_out(t, a[1], &zero, sizeof(zero)))
		return -EFAULT;
	return 0;
}

long sys_personality(struct task *t, const uint64_t *a)
{
	unsigned long old = t->personality;

	if ((uint32_t)a[0] != 0xffffffffu)
		t->personality = (uint32_t)a[0];
	return (long)old;
}

long sys_arch_prctl(struct task *t, const uint64_t *a)
{
	const struct platform_type *pt = t->kernel->platform->type;
	uint64_t fs, gs;

	pt->ctx_get_bases(t->ctx, &fs, &gs);
	if (t->fast.box)
		gs = 0;
	switch ((int)a[0]) {
	case ARCH_SET_FS:
	case ARCH_SET_GS:
		if (a[1] >= USER_TOP)
			return -EPERM;
		if ((int)a[0] == ARCH_SET_GS)
			fast_give_up(t);
		else if (t->fast.box)
			gs = t->fast.box_va;
		if ((int)a[0] == ARCH_SET_FS)
			fs = a[1];
		else
			gs = a[1];
		pt->ctx_set_bases(t->ctx, fs, gs);
		return 0;
	case ARCH_GET_FS:
		return copy_out(t, a[1], &fs, sizeof(fs));
	case ARCH_GET_GS:
		return copy_out(t, a[1], &gs, sizeof(gs));
	}
	return -EINVAL;
}

/* ---- limits ---- */

static long set_limit(struct task *t, struct thread_group *tg, int which, const struct rlimit *new)
{
	struct rlimit *l = &tg->limits[which];
	struct task *other;
	long ret = 0;

	if (new->rlim_cur > new->rlim_max)
		return -EINVAL;
	if (which == RLIMIT_NOFILE && new->rlim_max > 1048576)
		return -EPERM;
	mutex_lock(&tg->limits_lock);
	if (new->rlim_max > l->rlim_max && !task_capable(t, CAP_SYS_RESOURCE))
		ret = -EPERM;
	else
		*l = *new;
	mutex_unlock(&tg->limits_lock);
	if (!ret && which == RLIMIT_CPU)
		cpu_limit_update(tg);
	if (!ret && which == RLIMIT_FSIZE) {
		struct sighand *s = sighand_lock(tg);

		list_for_each_entry (other, &tg->threads, tg_node)
			other->vfs.fsize_limit = new->rlim_cur;
		mutex_unlock(&s->lock);
	}
	return ret;
}

long sys_prlimit64(struct task *t, const uint64_t *a)
{
	int which = (int)a[1];
	struct task *target;
	struct rlimit new, old;
	long ret = 0;

	if ((unsigned int)which >= RLIM_NLIMITS)
		return -EINVAL;
	if (a[2] && copy_in(t, &new, a[2], sizeof(new)))
		return -EFAULT;
	target = a[0] ? task_find(t->kernel, task_pid_ns(t), (pid_t)a[0]) : task_get(t);
	if (!target)
		return -ESRCH;
	if (target->tg != t->tg && !task_capable(t, CAP_SYS_RESOURCE)) {
		const struct cred *c = t->vfs.cred;
		struct cred *tc = task_get_cred(target);

		if (c->uid != tc->euid || c->uid != tc->suid || c->uid != tc->uid ||
		    c->gid != tc->egid || c->gid != tc->sgid || c->gid != tc->gid)
			ret = -EPERM;
		cred_put(tc);
	}
	mutex_lock(&target->tg->limits_lock);
	old = target->tg->limits[which];
	mutex_unlock(&target->tg->limits_lock);
	if (!ret && a[2])
		ret = set_limit(t, target->tg, which, &new);
	task_put(target);
	if (!ret && a[3] && copy_out(t, a[3], &old, sizeof(old)))
		ret = -EFAULT;
	return ret;
}

long sys_getrlimit(struct task *t, const uint64_t *a)
{
	uint64_t args[6] = {0, a[0], 0, a[1]};

	return a[1] ? sys_prlimit64(t, args) : -EFAULT;
}

long sys_setrlimit(struct task *t, const uint64_t *a)
{
	uint64_t args[6] = {0, a[0], a[1], 0};

	return a[1] ? sys_prlimit64(t, args) : -EFAULT;
}

/* ---- prctl ---- */

static long prctl_name(struct task *t, const uint64_t *a)
{
	char name[TASK_COMM_LEN] = {0};

	if (a[0] == PR_GET_NAME) {
		mutex_lock(&t->own_lock);
		memcpy(name, t->comm, sizeof(name));
		mutex_unlock(&t->own_lock);
		return copy_out(t, a[1], name, sizeof(name));
	}
	if (strncpy_from_user(t->vfs.um, name, a[1], sizeof(name)) == -EFAULT)
		return -EFAULT;
	name[sizeof(name) - 1] = 0;
	mutex_lock(&t->own_lock);
	memcpy(t->comm, name, sizeof(name));
	mutex_unlock(&t->own_lock);
	return 0;
}

static long prctl_subreaper(struct task *t, const uint64_t *a)
{
	int on;

	if (a[0] == PR_SET_CHILD_SUBREAPER) {
		mutex_lock(&t->kernel->tasklist);
		t->tg->child_subreaper = a[1];
		mutex_unlock(&t->kernel->tasklist);
		return 0;
	}
	on = t->tg->child_subreaper;
	return copy_out(t, a[1], &on, sizeof(on));
}

long sys_prctl(struct task *t, const uint64_t *a)
{
	long ret = prctl_cred(t, a);
	int v;

	if (ret != -ENOIOCTLCMD)
		return ret;
	switch ((int)a[0]) {
	case PR_SET_NAME:
	case PR_GET_NAME:
		return prctl_name(t, a);
	case PR_SET_PDEATHSIG:
		if (a[1] > NSIGS)
			return -EINVAL;
		t->pdeath_signal = (int)a[1];
		return 0;
	case PR_GET_PDEATHSIG:
		v = t->pdeath_signal;
		return copy_out(t, a[1], &v, sizeof(v));
	case PR_GET_DUMPABLE:
		return t->mm->dumpable;
	case PR_SET_DUMPABLE:
		if (a[1] > 1)
			return -EINVAL;
		t->mm->dumpable = a[1];
		return 0;
	case PR_SET_NO_NEW_PRIVS:
		if (a[1] != 1 || a[2] || a[3] || a[4])
			return -EINVAL;
		t->no_new_privs = true;
		return 0;
	case PR_GET_NO_NEW_PRIVS:
		return a[1] || a[2] || a[3] || a[4] ? -EINVAL : t->no_new_privs;
	case PR_SET_CHILD_SUBREAPER:
	case PR_GET_CHILD_SUBREAPER:
		return prctl_subreaper(t, a);
	case PR_SET_TIMERSLACK:
		t->timer_slack = (int64_t)a[1] > 0 ? a[1] : 50000;
		return 0;
	case PR_GET_TIMERSLACK:
		return (long)t->timer_slack;
	case PR_GET_TIMING:
		return 0;
	case PR_SET_TIMING:
		return a[1] ? -EINVAL : 0;
	case PR_GET_TID_ADDRESS:
		return copy_out(t, a[1], &t->clear_child_tid, sizeof(t->clear_child_tid));
	case PR_GET_SECCOMP:
		return 0;
	case PR_SET_THP_DISABLE:
		return a[2] || a[3] || a[4] ? -EINVAL : 0;
	case PR_GET_THP_DISABLE:
		return 0;
	case PR_MCE_KILL_GET:
		return 2;
	}
	return -EINVAL;
}

/* ---- the rest ---- */

long sys_syslog(struct task *t, const uint64_t *a)
{
	switch ((int)a[0]) {
	case 2: /* SYSLOG_ACTION_READ */
	case 3: /* SYSLOG_ACTION_READ_ALL */
	case 4: /* SYSLOG_ACTION_READ_CLEAR */
		if (!a[1] || (int)a[2] < 0)
			return -EINVAL;
		return task_capable(t, CAP_SYSLOG) ? 0 : -EPERM;
	case 9: /* SYSLOG_ACTION_SIZE_UNREAD */
		return 0;
	case 10: /* SYSLOG_ACTION_SIZE_BUFFER */
		return 65536;
	case 0:
	case 1:
	case 5:
	case 6:
	case 7:
	case 8:
		return task_capable(t, CAP_SYSLOG) ? 0 : -EPERM;
	}
	return -EINVAL;
}

/* Namespaces have no files here, so nothing can be a valid descriptor of one. */
long sys_setns(struct task *t, const uint64_t *a)
{
	struct file *file = fd_get(t->files, (int)a[0]);

	if (!file)
		return -EBADF;
	file_put(file);
	return -EINVAL;
}

long sys_vhangup(struct task *t, const uint64_t *a)
{
	return task_capable(t, CAP_SYS_TTY_CONFIG) ? 0 : -EPERM;
}

long sys_reboot(struct task *t, const uint64_t *a)
{
	return -EPERM;
}

long sys_iopl(struct task *t, const uint64_t *a)
{
	return -EPERM;
}

long sys_ioperm(struct task *t, const uint64_t *a)
{
	return -EPERM;
}
