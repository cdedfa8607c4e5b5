/* SPDX-License-Identifier: Apache-2.0 */
/* Signal system calls: sigaction(2) and its relatives, kill(2) and its relatives. */
#include <string.h>

#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls.h"

#define MINSIGSTKSZ_ABI 2048
#define KSS_AUTODISARM	(1U << 31)
/* SA_* the x86-64 kernel knows; others are cleared so that programs can probe. */
#define KSA_KNOWN                                                                                  \
	(SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | 0x04000000UL | SA_ONSTACK | SA_RESTART |       \
	 SA_NODEFER | 0x80000000UL | 0x00000800UL)

long sys_rt_sigaction(struct task *t, const uint64_t *a)
{
	int signo = (int)a[0];
	struct ksigaction act, old;
	struct sighand *s;

	if (a[3] != 8 || signo < 1 || signo > NSIGS)
		return -EINVAL;
	if (a[1] && copy_in(t, &act, a[1], sizeof(act)))
		return -EFAULT;
	if (a[1] && (SIGMASK(signo) & SIG_UNBLOCKABLE))
		return -EINVAL;
	s = sighand_lock(t->tg);
	old = s->action[signo - 1];
	if (a[1]) {
		act.mask &= ~SIG_UNBLOCKABLE;
		act.flags &= KSA_KNOWN;
		s->action[signo - 1] = act;
		fast_action_set_locked(t, SIGMASK(signo));
		/* What is ignored now is discarded, blocked or not (POSIX 3.3.1.3). */
		if (act.handler == (uaddr_t)(uintptr_t)SIG_IGN ||
		    (act.handler == (uaddr_t)(uintptr_t)SIG_DFL &&
		     (signo == SIGCONT || signo == SIGCHLD || signo == SIGWINCH ||
		      signo == SIGURG)))
			signal_flush_locked(t->tg, SIGMASK(signo));
	}
	mutex_unlock(&s->lock);
	if (a[2] && copy_out(t, a[2], &old, sizeof(old)))
		return -EFAULT;
	return 0;
}

long sys_rt_sigprocmask(struct task *t, const uint64_t *a)
{
	uint64_t old = t->blocked, set, next = old;

	if (a[3] != 8)
		return -EINVAL;
	if (a[1]) {
		if (copy_in(t, &set, a[1], sizeof(set)))
			return -EFAULT;
		switch ((int)a[0]) {
		case SIG_BLOCK:
			next = old | set;
			break;
		case SIG_UNBLOCK:
			next = old & ~set;
			break;
		case SIG_SETMASK:
			next = set;
			break;
		default:
			return -EINVAL;
		}
		if ((next & ~SIG_UNBLOCKABLE) != old)
			signal_set_blocked(t, next);
	}
	if (a[2] && copy_out(t, a[2], &old, sizeof(old)))
		return -EFAULT;
	return 0;
}

long sys_rt_sigpending(struct task *t, const uint64_t *a)
{
	uint64_t set = signal_pending_set(t);

	if (a[1] > 8)
		return -EINVAL;
	return copy_out(t, a[0], &set, a[1]);
}

long sys_rt_sigsuspend(struct task *t, const uint64_t *a)
{
	uint64_t mask;
	int err = user_sigset(t, a[0], a[1], &mask);

	if (err)
		return err;
	task_set_temp_mask(t, mask);
	for (;;) {
		task_block_prepare(t);
		if (task_block(t, CLOCK_MONOTONIC, NULL))
			return -ERESTARTNOHAND;
	}
}

long sys_pause(struct task *t, const uint64_t *a)
{
	for (;;) {
		task_block_prepare(t);
		if (task_block(t, CLOCK_MONOTONIC, NULL))
			return -ERESTARTNOHAND;
	}
}

long sys_rt_sigtimedwait(struct task *t, const uint64_t *a)
{
	struct timespec ts, until, *deadline = NULL;
	uint64_t mask;
	siginfo_t info;
	int signo, err = user_sigset(t, a[0], a[3], &mask);

	if (err)
		return err;
	if (a[2]) {
		err = user_timespec(t, a[2], &ts);
		if (err)
			return err;
		task_deadline(t, &until, &ts);
		deadline = &until;
	}
	for (;;) {
		struct sighand *s;

		task_block_prepare(t);
		s = sighand_lock(t->tg);
		signo = signal_dequeue_locked(t, mask, &info);
		t->wait_mask = signo ? 0 : mask;
		mutex_unlock(&s->lock);
		if (signo || err)
			break;
		if (deadline && !ts.tv_sec && !ts.tv_nsec)
			err = -ETIMEDOUT;
		else
			err = task_block(t, CLOCK_MONOTONIC, deadline);
	}
	t->wait_mask = 0;
	if (!signo)
		return err == -ETIMEDOUT ? -EAGAIN : -EINTR;
	if (a[1] && copy_out(t, a[1], &info, sizeof(info)))
		return -EFAULT;
	return signo;
}

long sys_rt_sigreturn(struct task *t, const uint64_t *a)
{
	const struct platform_type *pt = t->kernel->platform->type;
	void *fpu = task_fpu_buffer();
	uint64_t mask, size;
	uaddr_t sp;
	int flags;

	pt->ctx_get_fpu(t->ctx, fpu);
	if (arch_sigframe_pop(t->vfs.um, &t->regs, fpu, &mask, &sp, &size, &flags)) {
		siginfo_t info = {.si_signo = SIGSEGV, .si_code = SI_KERNEL};

		signal_force(t, &info);
		return SYSCALL_REGS_SET;
	}
	pt->ctx_set_fpu(t->ctx, fpu);
	/* Bad stack fields in the frame are ignored, as on Linux. */
	if (!(flags & ~(int)(SS_DISABLE | SS_ONSTACK | KSS_AUTODISARM))) {
		if (flags & SS_DISABLE) {
			t->altstack_sp = 0;
			t->altstack_size = 0;
			t->altstack_flags = SS_DISABLE;
		} else if (size >= MINSIGSTKSZ_ABI) {
			t->altstack_sp = sp;
			t->altstack_size = size;
			t->altstack_flags = flags & (int)KSS_AUTODISARM;
		}
	}
	t->restore_mask = false;
	signal_set_blocked(t, mask);
	return SYSCALL_REGS_SET;
}

long sys_sigaltstack(struct task *t, const uint64_t *a)
{
	struct {
		uint64_t sp;
		int32_t flags, pad;
		uint64_t size;
	} ss, old = {.sp = t->altstack_sp, .size = t->altstack_size};
	uaddr_t sp = t->regs.rsp;
	bool on = t->altstack_size && !(t->altstack_flags & (int)KSS_AUTODISARM) &&
		  sp > t->altstack_sp && sp - t->altstack_sp <= t->altstack_size;
	int mode;

	old.flags = !t->altstack_size
			    ? SS_DISABLE
			    : (on ? SS_ONSTACK : 0) | (t->altstack_flags & (int)KSS_AUTODISARM);
	if (a[0]) {
		if (copy_in(t, &ss, a[0], sizeof(ss)))
			return -EFAULT;
		if (on)
			return -EPERM;
		mode = ss.flags & ~(int)KSS_AUTODISARM;
		if (mode != 0 && mode != SS_ONSTACK && mode != SS_DISABLE)
			return -EINVAL;
		if (mode == SS_DISABLE) {
			ss.sp = 0;
			ss.size = 0;
		} else if (ss.size < MINSIGSTKSZ_ABI) {
			return -ENOMEM;
		}
		t->altstack_sp = ss.sp;
		t->altstack_size = ss.size;
		t->altstack_flags =
			mode == SS_DISABLE ? SS_DISABLE : ss.flags & (int)KSS_AUTODISARM;
	}
	if (a[1] && copy_out(t, a[1], &old, sizeof(old)))
		return -EFAULT;
	return 0;
}

static void user_info(struct task *t, siginfo_t *info, int signo, int code)
{
	memset(info, 0, sizeof(*info));
	info->si_signo = signo;
	info->si_code = code;
	info->si_pid = task_tgid_nr(t, task_pid_ns(t));
	info->si_uid = t->vfs.cred->uid;
}

long sys_kill(struct task *t, const uint64_t *a)
{
	int signo = (int)a[1];
	siginfo_t info;

	if (signo < 0 || signo > NSIGS)
		return -EINVAL;
	user_info(t, &info, signo, SI_USER);
	return signal_kill(t, (pid_t)a[0], &info);
}

static long send_thread(struct task *t, pid_t tgid, pid_t tid, siginfo_t *info)
{
	struct task *target;
	long ret = 0;

	if (tid <= 0 || tgid == 0 || tgid < -1 || info->si_signo < 0 || info->si_signo > NSIGS)
		return -EINVAL;
	target = task_find(t->kernel, task_pid_ns(t), tid);
	if (!target)
		return -ESRCH;
	if (tgid != -1 && task_tgid_nr(target, task_pid_ns(t)) != tgid)
		ret = -ESRCH;
	else if (!signal_permitted(t, target, info->si_signo))
		ret = -EPERM;
	else if (info->si_signo && !target->exiting)
		ret = signal_send(target, info, SIGNAL_THREAD);
	task_put(target);
	return ret;
}

long sys_tgkill(struct task *t, const uint64_t *a)
{
	siginfo_t info;

	if ((pid_t)a[0] <= 0)
		return -EINVAL;
	user_info(t, &info, (int)a[2], SI_TKILL);
	return send_thread(t, (pid_t)a[0], (pid_t)a[1], &info);
}

long sys_tkill(struct task *t, const uint64_t *a)
{
	siginfo_t info;

	user_info(t, &info, (int)a[1], SI_TKILL);
	return send_thread(t, -1, (pid_t)a[0], &info);
}

/* A siginfo of the application's making may not pose as the kernel's or kill's to others. */
static int copy_info(struct task *t, uaddr_t addr, int signo, pid_t pid, siginfo_t *info)
{
	if (copy_in(t, info, addr, sizeof(*info)))
		return -EFAULT;
	if (signo < 0 || signo > NSIGS)
		return -EINVAL;
	info->si_signo = signo;
	if ((info->si_code >= 0 || info->si_code == SI_TKILL) &&
	    pid != task_tgid_nr(t, task_pid_ns(t)))
		return -EPERM;
	return 0;
}

long sys_rt_sigqueueinfo(struct task *t, const uint64_t *a)
{
	siginfo_t info;
	int err = copy_info(t, a[2], (int)a[1], (pid_t)a[0], &info);

	return err ? err : (pid_t)a[0] <= 0 ? -ESRCH : signal_kill(t, (pid_t)a[0], &info);
}

long sys_rt_tgsigqueueinfo(struct task *t, const uint64_t *a)
{
	siginfo_t info;
	int err = copy_info(t, a[3], (int)a[2], (pid_t)a[0], &info);

	if (err)
		return err;
	if ((pid_t)a[0] <= 0)
		return -EINVAL;
	return send_thread(t, (pid_t)a[0], (pid_t)a[1], &info);
}
