/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Delivering signals, on the way back to user code: stop, end, or push a frame and run a handler.
 * A system call that was interrupted is resolved here: restarted, or EINTR.
 */
#include <stdlib.h>
#include <string.h>

#include "sentry/freezer.h"
#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/signal.h"
#include "sentry/syscalls.h"

#define SIG_COREDUMP_MASK                                                                          \
	(SIGMASK(SIGQUIT) | SIGMASK(SIGILL) | SIGMASK(SIGTRAP) | SIGMASK(SIGABRT) |                \
	 SIGMASK(SIGFPE) | SIGMASK(SIGSEGV) | SIGMASK(SIGBUS) | SIGMASK(SIGSYS) |                  \
	 SIGMASK(SIGXCPU) | SIGMASK(SIGXFSZ))
#define SIG_IGNORE_MASK (SIGMASK(SIGCHLD) | SIGMASK(SIGURG) | SIGMASK(SIGWINCH) | SIGMASK(SIGCONT))

#define KSA_ONSTACK    0x08000000UL
#define KSA_NODEFER    0x40000000UL
#define KSA_RESETHAND  0x80000000UL
#define KSA_RESTART    0x10000000UL
#define KSS_AUTODISARM (1U << 31)

/*
 * One buffer of extended state per host thread: signal frames and fork pass through it. Outside the
 * arena: it never lives across a system call.
 */
void *task_fpu_buffer(void)
{
	static _Thread_local void *buf;

	if (!buf) {
		buf = aligned_alloc(64, ALIGN_UP(arch_fpu_size(), 64));
		BUG_ON(!buf);
	}
	return buf;
}

void signal_notify_parent_jobctl(struct thread_group *tg, int why)
{
	struct thread_group *parent = tg->parent;
	siginfo_t info;
	struct ksigaction *sa;

	if (!parent)
		return;
	memset(&info, 0, sizeof(info));
	info.si_signo = SIGCHLD;
	info.si_code = why;
	info.si_pid = pid_nr(tg->pid, pid_ns_of(parent->pid));
	info.si_uid = tg->leader ? tg->leader->vfs.cred->uid : 0;
	info.si_status = why == CLD_CONTINUED ? SIGCONT : tg->stop_signal;
	sa = &parent->sighand->action[SIGCHLD - 1];
	if (sa->handler != (uaddr_t)(uintptr_t)SIG_IGN && !(sa->flags & SA_NOCLDSTOP))
		(void)!signal_send_group_tasklist(parent, &info);
	waitq_wake(&parent->child_wait, EPOLLIN);
}

/* One thread less to wait for in a group stop. Returns true if it was the last. */
static bool stop_arrive_locked(struct thread_group *tg)
{
	if (tg->stop != STOP_PENDING || --tg->stop_count > 0)
		return false;
	tg->stop = STOP_STOPPED;
	tg->stop_reported = false;
	return true;
}

void signal_task_leaves_locked(struct task *t)
{
	stop_arrive_locked(t->tg);
}

static void stop_notify(struct thread_group *tg)
{
	mutex_lock(&tg->kernel->tasklist);
	if (tg->stop == STOP_STOPPED)
		signal_notify_parent_jobctl(tg, CLD_STOPPED);
	mutex_unlock(&tg->kernel->tasklist);
}

/* Begins a group stop for @signo. sighand->lock held. */
static void stop_begin_locked(struct task *t, int signo)
{
	struct thread_group *tg = t->tg;
	struct task *other;

	if (tg->stop != STOP_NONE)
		return;
	tg->stop = STOP_PENDING;
	tg->stop_signal = signo;
	tg->stop_count = 0;
	tg->cont_pending = false;
	list_for_each_entry (other, &tg->threads, tg_node) {
		if (other->exiting)
			continue;
		tg->stop_count++;
		if (other != t)
			signal_recalc_locked(other);
	}
}

/* Takes part in a group stop: sleeps until continued or killed. */
static void stop_take_part(struct task *t)
{
	struct thread_group *tg = t->tg;
	struct sighand *s = sighand_lock(tg);
	bool last;

	if (tg->stop == STOP_NONE || tg->group_exit || atomic_load(&t->killed)) {
		mutex_unlock(&s->lock);
		return;
	}
	last = stop_arrive_locked(tg);
	for (;;) {
		task_block_prepare(t);
		mutex_unlock(&s->lock);
		if (last)
			stop_notify(tg);
		last = false;
		/* Who sees the state T in /proc finds SIGCHLD sent. */
		atomic_store(&t->state, TASK_STOPPED);
		task_wait_wake(t);
		s = sighand_lock(tg);
		if (tg->stop == STOP_NONE || tg->group_exit || atomic_load(&t->killed) ||
		    freezer_active())
			break;
	}
	atomic_store(&t->state, TASK_RUNNING);
	mutex_unlock(&s->lock);
}

/* A process group without a member whose parent is in another group of the session: orphaned. */
bool pgrp_is_orphaned_locked(struct pid *pgrp)
{
	struct thread_group *tg;

	list_for_each_entry (tg, &pgrp->pgrp_members, pgrp_node) {
		if (tg->is_zombie || !tg->parent)
			continue;
		if (tg->parent->pgrp != pgrp && tg->parent->session == tg->session)
			return false;
	}
	return true;
}

static bool pgrp_orphaned(struct task *t)
{
	bool orphaned;

	mutex_lock(&t->kernel->tasklist);
	orphaned = pgrp_is_orphaned_locked(t->tg->pgrp);
	mutex_unlock(&t->kernel->tasklist);
	return orphaned;
}

/* What the interrupted system call returns now that a handler with @sa_flags will run. */
static void resolve_restart_for_handler(struct task *t, uint64_t sa_flags)
{
	struct arch_regs *r = &t->regs;

	if (t->syscall_nr < 0)
		return;
	switch (-(long)r->rax) {
	case ERESTARTNOHAND:
	case ERESTART_RESTARTBLOCK:
		arch_set_return(r, -EINTR);
		break;
	case ERESTARTSYS:
		if (!(sa_flags & KSA_RESTART)) {
			arch_set_return(r, -EINTR);
			break;
		}
		/* fallthrough */
	case ERESTARTNOINTR:
		arch_restart_syscall(r, t->syscall_nr);
		break;
	}
	t->syscall_nr = -1;
}

static void resolve_restart_no_handler(struct task *t)
{
	struct arch_regs *r = &t->regs;

	if (t->syscall_nr < 0)
		return;
	switch (-(long)r->rax) {
	case ERESTARTNOHAND:
	case ERESTARTSYS:
	case ERESTARTNOINTR:
		arch_restart_syscall(r, t->syscall_nr);
		break;
	case ERESTART_RESTARTBLOCK:
		arch_restart_syscall(r, 219 /* restart_syscall */);
		break;
	}
	t->syscall_nr = -1;
}

static bool on_altstack(struct task *t, uaddr_t sp)
{
	return t->altstack_size && sp > t->altstack_sp && sp - t->altstack_sp <= t->altstack_size;
}

/* Pushes the frame of handler @sa. Returns false when the stack can't take it. */
static bool push_frame(struct task *t, const struct ksigaction *sa, const siginfo_t *info,
		       uint64_t restore_mask)
{
	const struct platform_type *pt = t->kernel->platform->type;
	void *fpu = task_fpu_buffer();
	struct arch_sigframe f = {
		.handler = sa->handler,
		.restorer = sa->restorer,
		.flags = sa->flags,
		.mask = restore_mask,
		.info = info,
		.altstack_sp = t->altstack_sp,
		.altstack_size = t->altstack_size,
		.altstack_flags = t->altstack_size ? t->altstack_flags : SS_DISABLE,
		.trapno = t->fault_trapno,
		.err = t->fault_err,
		.cr2 = t->fault_cr2,
	};

	f.switch_stack =
		(sa->flags & KSA_ONSTACK) && t->altstack_size &&
		!((t->altstack_flags & (int)KSS_AUTODISARM) ? false : on_altstack(t, t->regs.rsp));
	pt->ctx_get_fpu(t->ctx, fpu);
	if (arch_sigframe_push(t->vfs.um, &t->regs, fpu, &f))
		return false;
	pt->ctx_set_fpu(t->ctx, fpu);
	if (t->altstack_flags & (int)KSS_AUTODISARM) {
		t->altstack_sp = 0;
		t->altstack_size = 0;
		t->altstack_flags = SS_DISABLE;
	}
	return true;
}

/* Runs a handler for @info. Returns false if the frame could not be built. */
static bool handle(struct task *t, const struct ksigaction *sa, const siginfo_t *info)
{
	int signo = info->si_signo;
	uint64_t restore = t->restore_mask ? t->saved_mask : t->blocked;
	uint64_t blocked;

	resolve_restart_for_handler(t, sa->flags);
	/* What comes next is the handler's. */
	t->redo.again = t->redo.timed = false;
	t->redo.done = 0;
	if (!push_frame(t, sa, info, restore))
		return false;
	t->restore_mask = false;
	blocked = t->blocked | sa->mask;
	if (!(sa->flags & KSA_NODEFER))
		blocked |= SIGMASK(signo);
	signal_set_blocked(t, blocked);
	return true;
}

/* A frame didn't fit: SIGSEGV, fatal if that was what we tried to deliver. */
static void frame_failed(struct task *t, int signo)
{
	siginfo_t info;
	struct sighand *s;

	memset(&info, 0, sizeof(info));
	info.si_signo = SIGSEGV;
	info.si_code = SI_KERNEL;
	if (signo == SIGSEGV) {
		s = sighand_lock(t->tg);
		t->tg->sighand->action[SIGSEGV - 1].handler = (uaddr_t)(uintptr_t)SIG_DFL;
		mutex_unlock(&s->lock);
	}
	signal_force(t, &info);
}

/* Default action of a signal that isn't caught. Returns false if the task must exit. */
static bool default_action(struct task *t, const siginfo_t *info, uint32_t cont_seq)
{
	int signo = info->si_signo;
	uint64_t bit = SIGMASK(signo);
	struct sighand *s;

	if (bit & SIG_IGNORE_MASK)
		return true;
	if (bit & SIG_STOP_MASK) {
		if (signo != SIGSTOP && pgrp_orphaned(t))
			return true;
		s = sighand_lock(t->tg);
		/* A SIGCONT that came since the signal was taken cancels it. */
		if (!t->tg->group_exit && t->tg->cont_seq == cont_seq)
			stop_begin_locked(t, signo);
		mutex_unlock(&s->lock);
		return true;
	}
	/* RLIMIT_CORE is 0 in a sandbox: the core-dump bit is never set. */
	task_exit_group(t, signo);
	return false;
}

static void restore_saved_mask(struct task *t)
{
	if (!t->restore_mask)
		return;
	t->restore_mask = false;
	signal_set_blocked(t, t->saved_mask);
}

bool signal_deliver(struct task *t)
{
	long ret = (long)t->regs.rax;
	bool handled = false;

	/* A call that succeeded under a temporary mask (ppoll): its own mask holds again. */
	if (t->restore_mask && t->syscall_nr >= 0 && ret != -EINTR &&
	    !(ret <= -ERESTARTSYS && ret >= -ERESTART_RESTARTBLOCK))
		restore_saved_mask(t);
	while (signal_pending(t)) {
		struct thread_group *tg = t->tg;
		struct ksigaction sa;
		struct sighand *s;
		uint32_t cont_seq;
		siginfo_t info;
		int signo;

		if (atomic_load(&t->killed) || tg->group_exit)
			return false;
		if (tg->stop != STOP_NONE) {
			/* Frozen as well: it parks, and is stopped again if it goes on. */
			if (freezer_active())
				return true;
			stop_take_part(t);
			continue;
		}
		s = sighand_lock(tg);
		signo = signal_dequeue_locked(t, ~t->blocked, &info);
		if (!signo) {
			mutex_unlock(&s->lock);
			continue;
		}
		sa = tg->sighand->action[signo - 1];
		cont_seq = tg->cont_seq;
		if ((sa.flags & KSA_RESETHAND) && sa.handler > 1)
			tg->sighand->action[signo - 1].handler = (uaddr_t)(uintptr_t)SIG_DFL;
		mutex_unlock(&s->lock);

		if (t->kernel->strace.enabled)
			strace_signal(t, &info);
		if (sa.handler == (uaddr_t)(uintptr_t)SIG_IGN)
			continue;
		if (sa.handler == (uaddr_t)(uintptr_t)SIG_DFL) {
			if (!default_action(t, &info, cont_seq))
				return false;
			continue;
		}
		if (handle(t, &sa, &info))
			handled = true;
		else
			frame_failed(t, signo);
	}
	if (!handled) {
		resolve_restart_no_handler(t);
		restore_saved_mask(t);
	}
	t->syscall_nr = -1;
	return !atomic_load(&t->killed) && !t->tg->group_exit;
}
