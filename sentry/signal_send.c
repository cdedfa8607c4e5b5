/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Generating signals: who may, what is dropped, where it is queued, and who is woken for it.
 */
#include <string.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/signal.h"

/* Stops waking: a continued group runs again and its parent hears of it. */
static void cont_group_locked(struct thread_group *tg)
{
	struct task *t;

	tg->cont_seq++;
	if (tg->stop == STOP_NONE)
		return;
	if (tg->stop == STOP_STOPPED)
		tg->cont_pending = true;
	tg->stop = STOP_NONE;
	tg->stop_count = 0;
	tg->stop_reported = true;
	list_for_each_entry (t, &tg->threads, tg_node) {
		atomic_store(&t->sigpending_hint, true);
		task_wake(t);
	}
}

void signal_group_exit_locked(struct thread_group *tg, int code, struct task *except)
{
	struct task *t;

	if (!except) {
		if (!tg->group_exit) {
			tg->group_exit = true;
			tg->group_exit_code = code;
		}
		tg->stop = STOP_NONE;
	}
	list_for_each_entry (t, &tg->threads, tg_node) {
		if (t == except)
			continue;
		atomic_store(&t->killed, true);
		signal_recalc_locked(t);
	}
}

/* Would @t take @signo soon if it were woken? */
static bool wants_signal(struct task *t, int signo)
{
	return !t->exiting && (!(t->blocked & SIGMASK(signo)) || (t->wait_mask & SIGMASK(signo)));
}

/* Wakes one thread that can take a group's @signo: the given one first, then any. */
static void wake_taker_locked(struct task *t, int signo, enum signal_target target)
{
	struct task *other;

	if (wants_signal(t, signo) || target == SIGNAL_THREAD) {
		signal_recalc_locked(t);
		if (t->wait_mask & SIGMASK(signo))
			task_wake(t);
		return;
	}
	list_for_each_entry (other, &t->tg->threads, tg_node) {
		if (wants_signal(other, signo)) {
			signal_recalc_locked(other);
			if (other->wait_mask & SIGMASK(signo))
				task_wake(other);
			return;
		}
	}
}

static int send_locked(struct task *t, const siginfo_t *info, enum signal_target target, bool force)
{
	struct thread_group *tg = t->tg;
	struct sigqueue_head *q = target == SIGNAL_THREAD ? &t->pending : &tg->shared_pending;
	int signo = info->si_signo;
	struct sigqueue *e;

	if (signo == SIGKILL) {
		signal_group_exit_locked(tg, SIGKILL, NULL);
		return 0;
	}
	if (SIGMASK(signo) & SIG_STOP_MASK) {
		signal_flush_locked(tg, SIGMASK(SIGCONT));
	} else if (signo == SIGCONT) {
		signal_flush_locked(tg, SIG_STOP_MASK);
		cont_group_locked(tg);
	}
	if (!force && signal_ignored_locked(t, signo) && !(t->wait_mask & SIGMASK(signo)))
		return 0;
	/* A standard signal that is pending already stays one. */
	if (signo < SIGRTMIN_KERNEL && (q->set & SIGMASK(signo)))
		return 0;
	e = NULL;
	if (q->count < tg->limits[RLIMIT_SIGPENDING].rlim_cur || signo < SIGRTMIN_KERNEL)
		e = kzalloc(sizeof(*e));
	if (!e && signo >= SIGRTMIN_KERNEL && info->si_code != SI_USER)
		return -EAGAIN;
	if (e) {
		e->info = *info;
		list_add_tail(&e->node, &q->list);
		q->count++;
	}
	q->set |= SIGMASK(signo);
	signalfd_notify();
	wake_taker_locked(t, signo, target);
	return 0;
}

/* The parent hears of a continued child outside of the child's sighand lock. */
static void after_send(struct thread_group *tg)
{
	struct kernel *k = tg->kernel;
	bool notify;

	if (!__atomic_load_n(&tg->cont_pending, __ATOMIC_RELAXED))
		return;
	mutex_lock(&k->tasklist);
	notify = tg->cont_pending && tg->stop_reported;
	if (notify) {
		tg->stop_reported = false;
		signal_notify_parent_jobctl(tg, CLD_CONTINUED);
	}
	mutex_unlock(&k->tasklist);
}

/* The same, for callers that hold tasklist. */
static void after_send_locked(struct thread_group *tg)
{
	if (tg->cont_pending && tg->stop_reported) {
		tg->stop_reported = false;
		signal_notify_parent_jobctl(tg, CLD_CONTINUED);
	}
}

int signal_send(struct task *t, const siginfo_t *info, enum signal_target target)
{
	struct sighand *s = sighand_lock(t->tg);
	int err = send_locked(t, info, target, false);

	mutex_unlock(&s->lock);
	after_send(t->tg);
	return err;
}

/* A live thread of @tg to send to, the leader if it lives. sighand->lock held. */
static struct task *any_thread_locked(struct thread_group *tg)
{
	struct task *t, *fallback = NULL;

	list_for_each_entry (t, &tg->threads, tg_node) {
		if (!t->exiting)
			return t;
		fallback = t;
	}
	return fallback;
}

static int send_group(struct thread_group *tg, const siginfo_t *info)
{
	struct sighand *s = sighand_lock(tg);
	struct task *t = any_thread_locked(tg);
	int err = t ? send_locked(t, info, SIGNAL_GROUP, false) : 0;

	mutex_unlock(&s->lock);
	return err;
}

int signal_send_group(struct thread_group *tg, const siginfo_t *info)
{
	int err = send_group(tg, info);

	after_send(tg);
	return err;
}

int signal_send_group_tasklist(struct thread_group *tg, const siginfo_t *info)
{
	int err = send_group(tg, info);

	after_send_locked(tg);
	return err;
}

static void kernel_info(siginfo_t *info, int signo)
{
	memset(info, 0, sizeof(*info));
	info->si_signo = signo;
	info->si_code = SI_KERNEL;
}

void signal_send_kernel(struct task *t, int signo)
{
	siginfo_t info;

	kernel_info(&info, signo);
	(void)!signal_send(t, &info, SIGNAL_THREAD);
}

void signal_send_pgrp_locked(struct pid *pgrp, const siginfo_t *info)
{
	struct thread_group *tg;

	list_for_each_entry (tg, &pgrp->pgrp_members, pgrp_node)
		(void)!signal_send_group_tasklist(tg, info);
}

void signal_send_pgrp(struct kernel *k, struct pid *pgrp, int signo)
{
	siginfo_t info;

	kernel_info(&info, signo);
	mutex_lock(&k->tasklist);
	signal_send_pgrp_locked(pgrp, &info);
	mutex_unlock(&k->tasklist);
}

void signal_force(struct task *t, const siginfo_t *info)
{
	struct sighand *s = sighand_lock(t->tg);
	int signo = info->si_signo;
	struct ksigaction *sa = &t->tg->sighand->action[signo - 1];
	bool blocked = t->blocked & SIGMASK(signo);

	if (blocked || sa->handler == (uaddr_t)(uintptr_t)SIG_IGN) {
		sa->handler = (uaddr_t)(uintptr_t)SIG_DFL;
		t->blocked &= ~SIGMASK(signo);
	}
	(void)!send_locked(t, info, SIGNAL_THREAD, true);
	mutex_unlock(&s->lock);
}

bool signal_permitted(struct task *t, struct task *target, int signo)
{
	const struct cred *c = t->vfs.cred;
	struct cred *tc;
	bool ok;

	if (t->tg == target->tg)
		return true;
	tc = task_get_cred(target);
	ok = cred_capable(c, CAP_KILL) || !tc || c->euid == tc->suid || c->euid == tc->uid ||
	     c->uid == tc->suid || c->uid == tc->uid;
	cred_put(tc);
	if (!ok && signo == SIGCONT && t->tg->session == target->tg->session)
		ok = true;
	return ok;
}

/* One group of a kill(2). tasklist held. */
static int kill_group_locked(struct task *t, struct thread_group *tg, const siginfo_t *info)
{
	if (tg->leader && !signal_permitted(t, tg->leader, info->si_signo))
		return -EPERM;
	if (!info->si_signo || tg->is_zombie)
		return 0;
	return signal_send_group_tasklist(tg, info);
}

static int kill_pgrp_locked(struct task *t, struct pid *pgrp, const siginfo_t *info)
{
	struct thread_group *tg;
	int err = -ESRCH;

	if (!pgrp)
		return -ESRCH;
	list_for_each_entry (tg, &pgrp->pgrp_members, pgrp_node) {
		int e = kill_group_locked(t, tg, info);

		if (!e || err == -ESRCH)
			err = e;
	}
	return err;
}

/* kill(-1): everything visible but init and the caller's own process. */
static int kill_all_locked(struct task *t, const siginfo_t *info)
{
	struct pid_ns *ns = task_pid_ns(t);
	struct pid *pid;
	int err = -ESRCH;

	for (uint64_t nr = 2; (pid = pid_next_locked(ns, &nr)); nr++) {
		int e;

		if (!pid->tg || pid->tg == t->tg)
			continue;
		e = kill_group_locked(t, pid->tg, info);
		if (e != -EPERM)
			err = e;
	}
	return err;
}

int signal_kill(struct task *t, pid_t nr, const siginfo_t *info)
{
	struct kernel *k = t->kernel;
	struct pid_ns *ns = task_pid_ns(t);
	struct pid *pid;
	int err;

	if (nr == INT32_MIN)
		return -ESRCH;
	mutex_lock(&k->tasklist);
	if (nr > 0) {
		pid = pid_find_locked(ns, nr);
		if (pid && !pid->tg && pid->task)
			err = kill_group_locked(t, pid->task->tg, info);
		else if (pid && pid->tg)
			err = kill_group_locked(t, pid->tg, info);
		else
			err = -ESRCH;
	} else if (nr == -1) {
		err = kill_all_locked(t, info);
	} else {
		pid = nr ? pid_find_locked(ns, -nr) : t->tg->pgrp;
		err = kill_pgrp_locked(t, pid, info);
	}
	mutex_unlock(&k->tasklist);
	return err;
}
