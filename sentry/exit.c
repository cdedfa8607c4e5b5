/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of threads and processes.
 *
 * A thread ends in task_exit, on its own host thread: it wakes whoever waits for its TID, drops its
 * resources and leaves the group. A leader's struct task stays with the group until the group is
 * reaped. With the last live thread the group becomes a zombie: its children get a new parent, its
 * parent gets the exit signal, and wait(2) (or auto-reaping) calls thread_group_release_locked.
 *
 * Groups without a parent (init, and what kernel_create_process made) release themselves; whoever
 * holds a reference reads exit_code.
 */
#include <string.h>
#include <time.h>

#include "sentry/freezer.h"
#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/task_internal.h"

void task_exit_group(struct task *t, int code)
{
	struct sighand *s = sighand_lock(t->tg);

	signal_group_exit_locked(t->tg, code, NULL);
	mutex_unlock(&s->lock);
}

void task_exit_thread(struct task *t, int code)
{
	t->exit_code = code;
	atomic_store(&t->killed, true);
	atomic_store(&t->sigpending_hint, true);
}

void task_vfork_release(struct task *t)
{
	struct task *parent = t->vfork_child_of;

	if (!parent)
		return;
	t->vfork_child_of = NULL;
	atomic_store(&t->vfork_done, 1);
	task_wake(parent);
	task_put(parent);
}

/* Where orphans of @tg go: the nearest living subreaper above, else init of its namespace. */
static struct thread_group *find_reaper_locked(struct thread_group *tg)
{
	struct pid_ns *ns = pid_ns_of(tg->pid);
	struct thread_group *p;

	for (p = tg->parent; p && pid_ns_of(p->pid) == ns; p = p->parent) {
		if (p->child_subreaper && !p->group_exit && !p->is_zombie)
			return p;
	}
	if (ns->init && ns->init != tg && !ns->init->is_zombie)
		return ns->init;
	return NULL;
}

static void fill_child_info(const struct thread_group *tg, const struct thread_group *parent,
			    siginfo_t *info)
{
	int code = tg->exit_code;

	memset(info, 0, sizeof(*info));
	info->si_signo = tg->exit_signal;
	info->si_pid = pid_nr(tg->pid, pid_ns_of(parent->pid));
	info->si_uid = tg->leader->vfs.cred->uid;
	info->si_utime = (clock_t)(tg->utime_ns / 10000000);
	info->si_stime = (clock_t)(tg->stime_ns / 10000000);
	if (WIFEXITED(code)) {
		info->si_code = CLD_EXITED;
		info->si_status = WEXITSTATUS(code);
	} else {
		info->si_code = WCOREDUMP(code) ? CLD_DUMPED : CLD_KILLED;
		info->si_status = WTERMSIG(code);
	}
}

/* Tells the parent. Returns true if nobody will wait: release at once. tasklist held. */
static bool notify_parent_locked(struct thread_group *tg)
{
	struct thread_group *parent = tg->parent;
	const struct ksigaction *sa;
	bool autoreap = false;
	siginfo_t info;

	if (!parent)
		return true;
	sa = &parent->sighand->action[SIGCHLD - 1];
	if (tg->exit_signal == SIGCHLD &&
	    (sa->handler == (uaddr_t)(uintptr_t)SIG_IGN || (sa->flags & SA_NOCLDWAIT)))
		autoreap = true;
	if (tg->exit_signal && !(autoreap && sa->handler == (uaddr_t)(uintptr_t)SIG_IGN)) {
		fill_child_info(tg, parent, &info);
		(void)!signal_send_group_tasklist(parent, &info);
	}
	waitq_wake(&parent->child_wait, EPOLLIN);
	return autoreap;
}

/*
 * A process's exit or reparenting may orphan a process group: one with stopped members gets SIGHUP
 * and SIGCONT. tasklist held.
 */
static void check_orphaned_pgrp_locked(struct thread_group *tg, struct thread_group *old_parent)
{
	struct pid *pgrp = tg->pgrp;
	struct thread_group *m;
	bool stopped = false;
	siginfo_t info;

	if (!old_parent || old_parent->session != tg->session || old_parent->pgrp == pgrp)
		return;
	if (!pgrp_is_orphaned_locked(pgrp))
		return;
	list_for_each_entry (m, &pgrp->pgrp_members, pgrp_node) {
		if (m->stop == STOP_STOPPED)
			stopped = true;
	}
	if (!stopped)
		return;
	memset(&info, 0, sizeof(info));
	info.si_code = SI_KERNEL;
	info.si_signo = SIGHUP;
	signal_send_pgrp_locked(pgrp, &info);
	info.si_signo = SIGCONT;
	signal_send_pgrp_locked(pgrp, &info);
}

void thread_group_release_locked(struct thread_group *tg, struct list_head *dead)
{
	struct task *leader = tg->leader;
	struct thread_group *parent = tg->parent;
	struct pid *pids[] = {tg->pid, tg->pgrp, tg->session};

	BUG_ON(!tg->is_zombie);
	if (parent) {
		parent->cutime_ns += tg->utime_ns + tg->cutime_ns;
		parent->cstime_ns += tg->stime_ns + tg->cstime_ns;
		parent->child_max_rss = MAX(parent->child_max_rss, tg->max_rss);
	}
	list_del(&tg->sibling);
	list_del(&tg->pgrp_node);
	list_del(&tg->session_node);
	tg->parent = NULL;
	tg->pid->tg = NULL;
	tg->pid->task = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++)
		pid_release_locked(pids[i]);
	if (leader->tg_node.next != &leader->tg_node) {
		struct sighand *s = sighand_lock(tg);

		list_del(&leader->tg_node);
		tg->nr_threads--;
		mutex_unlock(&s->lock);
	}
	/* The group's reference on its leader: dropped by the caller without tasklist. */
	list_add_tail(&leader->tg_node, dead);
	waitq_wake(&tg->pidfd_wait, EPOLLIN | EPOLLHUP);
}

void tasks_put_dead(struct list_head *dead)
{
	while (!list_empty(dead)) {
		struct task *t = list_first_entry(dead, struct task, tg_node);

		list_del(&t->tg_node);
		task_put(t);
	}
}

/* Gives @tg's children to a reaper. tasklist held. */
static void reparent_children_locked(struct thread_group *tg, struct list_head *dead)
{
	struct thread_group *reaper = find_reaper_locked(tg), *c, *tmp;
	struct task *t;

	list_for_each_entry_safe (c, tmp, &tg->children, sibling) {
		list_del(&c->sibling);
		c->parent = reaper;
		list_for_each_entry (t, &c->threads, tg_node)
			fast_info_changed_locked(t);
		if (reaper) {
			list_add_tail(&c->sibling, &reaper->children);
			c->exit_signal = SIGCHLD;
		}
		if (c->leader && c->leader->pdeath_signal && !c->is_zombie) {
			siginfo_t info = {.si_signo = c->leader->pdeath_signal, .si_code = SI_USER};

			(void)!signal_send_group_tasklist(c, &info);
		}
		if (c->is_zombie) {
			if (notify_parent_locked(c))
				thread_group_release_locked(c, dead);
		} else {
			check_orphaned_pgrp_locked(c, tg);
		}
	}
}

/* The end of a PID namespace's init ends everybody in it. tasklist held. */
static void kill_pid_ns_locked(struct pid_ns *ns, struct thread_group *init)
{
	siginfo_t info = {.si_signo = SIGKILL, .si_code = SI_KERNEL};
	struct pid *pid;

	ns->dead = true;
	ns->init = NULL;
	for (uint64_t nr = 1; (pid = pid_next_locked(ns, &nr)); nr++) {
		if (pid->tg && pid->tg != init && !pid->tg->is_zombie)
			(void)!signal_send_group_tasklist(pid->tg, &info);
	}
}

static void group_dies_locked(struct task *t, struct list_head *dead)
{
	struct thread_group *tg = t->tg;
	struct kernel *k = t->kernel;
	struct pid_ns *ns = pid_ns_of(tg->pid);

	tg->is_zombie = true;
	tg->exit_code = tg->group_exit ? tg->group_exit_code : tg->leader->exit_code;
	if (ns->init == tg)
		kill_pid_ns_locked(ns, tg);
	reparent_children_locked(tg, dead);
	if (tg->parent)
		check_orphaned_pgrp_locked(tg, tg->parent);
	waitq_wake(&tg->pidfd_wait, EPOLLIN);
	if (tg == k->init) {
		k->exited = true;
		k->exit_status = tg->exit_code;
	}
	if (notify_parent_locked(tg))
		thread_group_release_locked(tg, dead);
}

/* Adds what the thread used to its group. tasklist held. */
static void account_locked(struct task *t, uint64_t utime, uint64_t stime)
{
	struct thread_group *tg = t->tg;

	t->utime_ns = utime;
	t->stime_ns = stime;
	tg->utime_ns += utime;
	tg->stime_ns += stime;
	tg->dead_ru.ru_nvcsw += (long)t->nvcsw;
	tg->dead_ru.ru_nivcsw += (long)t->nivcsw;
}

static bool last_thread(struct task *t)
{
	struct sighand *s = sighand_lock(t->tg);
	bool last = t->tg->nr_live == 1;

	mutex_unlock(&s->lock);
	return last;
}

/* Is it the last of all, with memory that the host takes back faster than mm_put? */
static bool leaves_memory(struct task *t)
{
	struct kernel *k = t->kernel;

	return t->mm && k->ends_process && t->tg == k->init &&
	       atomic_load(&k->nr_threads_running) == 1;
}

void task_exit(struct task *t)
{
	struct thread_group *tg = t->tg;
	struct kernel *k = t->kernel;
	struct list_head dead = LIST_HEAD_INIT(dead);
	uint64_t utime, stime, rss;
	bool drop_self = true;
	struct sighand *s;

	atomic_store(&t->killed, true);
	if (t->mm) {
		futex_exit_robust(t);
		if (t->clear_child_tid) {
			uint32_t zero = 0;

			if (!copy_to_user(t->vfs.um, t->clear_child_tid, &zero, sizeof(zero)))
				futex_wake_addr(t, t->clear_child_tid, true, 1);
		}
		rss = MAX(atomic_load(&t->mm->nr_anon_rss) + atomic_load(&t->mm->nr_file_rss),
			  atomic_load(&t->mm->max_rss));
		tg->max_rss = MAX(tg->max_rss, rss);
	}
	task_vfork_release(t);
	/* The last thread out gives up the terminal while there still is a session to speak of. */
	if (last_thread(t) && tg->session == tg->pid)
		tty_disassociate(tg);
	fast_detach(t);
	if (leaves_memory(t))
		mm_get(t->mm);
	task_drop_resources(t);
	task_times(t, &utime, &stime);

	mutex_lock(&k->tasklist);
	s = sighand_lock(tg);
	t->exiting = true;
	signal_task_leaves_locked(t);
	/* A group signal this thread was woken for must not die with it. */
	if (tg->shared_pending.set) {
		struct task *other;

		list_for_each_entry (other, &tg->threads, tg_node) {
			if (other != t && !other->exiting)
				signal_recalc_locked(other);
		}
	}
	tg->nr_live--;
	if (t != tg->leader) {
		list_del(&t->tg_node);
		tg->nr_threads--;
	}
	mutex_unlock(&s->lock);
	account_locked(t, utime, stime);
	atomic_store(&t->state, TASK_ZOMBIE);
	if (t == tg->leader)
		drop_self = false; /* the group keeps it until it is reaped */
	else if (t->pid->task == t)
		t->pid->task = NULL;
	if (tg->nr_live == 0)
		group_dies_locked(t, &dead);
	else if (tg->exec_task)
		task_wake(tg->exec_task);
	mutex_unlock(&k->tasklist);

	tasks_put_dead(&dead);
	if (drop_self)
		task_put(t);
}

void task_never_ran(struct task *t)
{
	struct thread_group *tg = t->tg, *parent;

	/* Whoever wanted it gets an error instead of a child: there is nobody to wait for it. */
	mutex_lock(&t->kernel->tasklist);
	parent = tg->leader == t ? tg->parent : NULL;
	if (parent) {
		list_del(&tg->sibling);
		tg->parent = NULL;
		waitq_wake(&parent->child_wait, EPOLLIN);
	}
	mutex_unlock(&t->kernel->tasklist);
	t->clear_child_tid = 0; /* nor a thread to join */
	t->exit_code = SIGKILL;
	task_exit(t);
}

int task_zap_other_threads(struct task *t)
{
	struct thread_group *tg = t->tg;
	struct sighand *s = sighand_lock(tg);
	int ret = 0;

	if (tg->group_exit || tg->exec_task) {
		mutex_unlock(&s->lock);
		return -EINTR;
	}
	if (tg->nr_live == 1) {
		mutex_unlock(&s->lock);
		goto take_over;
	}
	tg->exec_task = t;
	signal_group_exit_locked(tg, 0, t);
	for (;;) {
		task_block_prepare(t);
		if (tg->nr_live == 1 || tg->group_exit || freezer_discarding())
			break;
		mutex_unlock(&s->lock);
		task_wait_wake(t);
		s = sighand_lock(tg);
	}
	tg->exec_task = NULL;
	if (tg->group_exit || freezer_discarding())
		ret = -EINTR;
	mutex_unlock(&s->lock);
	if (ret)
		return ret;
take_over:
	if (tg->leader != t)
		task_take_leadership(t);
	return 0;
}

void task_take_leadership(struct task *t)
{
	struct thread_group *tg = t->tg;
	struct kernel *k = t->kernel;
	struct task *old;
	struct sighand *s;
	struct pid *pid;

	mutex_lock(&k->tasklist);
	s = sighand_lock(tg);
	old = tg->leader;
	pid = old->pid;
	old->pid = t->pid;
	t->pid = pid;
	pid->task = t;
	old->pid->task = NULL;
	tg->leader = t;
	list_del(&old->tg_node);
	tg->nr_threads--;
	mutex_unlock(&s->lock);
	mutex_unlock(&k->tasklist);
	task_put(old);
}
