/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wait4(2) and waitid(2). A parent looks through its children under tasklist and sleeps on its
 * group's child_wait, which every state change of a child wakes.
 */
#include "sentry/wait.h"

#include <string.h>
#include <sys/wait.h>

#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/task_internal.h"

#ifndef __WALL
#define __WALL	    0x40000000
#define __WCLONE    0x80000000
#define __WNOTHREAD 0x20000000
#endif

static bool child_matches(const struct wait_args *w, const struct thread_group *c)
{
	bool clone_child = c->exit_signal != SIGCHLD;

	if (!((w->options & __WALL) || clone_child == !!(w->options & __WCLONE)))
		return false;
	switch (w->type) {
	case P_PID:
	case P_PIDFD:
		return c->pid == w->pid;
	case P_PGID:
		return c->pgrp == w->pid;
	default:
		return true;
	}
}

static void fill_info(struct wait_result *r, struct task *t, struct thread_group *c, int code,
		      int status)
{
	memset(&r->info, 0, sizeof(r->info));
	r->info.si_signo = SIGCHLD;
	r->info.si_code = code;
	r->info.si_status = status;
	r->info.si_pid = pid_nr(c->pid, task_pid_ns(t));
	r->info.si_uid = c->leader ? c->leader->vfs.cred->uid : 0;
	r->nr = r->info.si_pid;
}

static void fill_rusage(struct wait_result *r, const struct thread_group *c)
{
	uint64_t ut = c->utime_ns + c->cutime_ns, st = c->stime_ns + c->cstime_ns;

	r->rusage = c->dead_ru;
	r->rusage.ru_utime.tv_sec = (time_t)(ut / 1000000000);
	r->rusage.ru_utime.tv_usec = (suseconds_t)(ut % 1000000000 / 1000);
	r->rusage.ru_stime.tv_sec = (time_t)(st / 1000000000);
	r->rusage.ru_stime.tv_usec = (suseconds_t)(st % 1000000000 / 1000);
	r->rusage.ru_maxrss = (long)(MAX(c->max_rss, c->child_max_rss) * (PAGE_SIZE / 1024));
}

static bool take_zombie(struct task *t, const struct wait_args *w, struct thread_group *c,
			struct wait_result *r, struct list_head *dead)
{
	int code = c->exit_code;

	if (!(w->options & WEXITED) || !c->is_zombie)
		return false;
	if (WIFEXITED(code))
		fill_info(r, t, c, CLD_EXITED, WEXITSTATUS(code));
	else
		fill_info(r, t, c, WCOREDUMP(code) ? CLD_DUMPED : CLD_KILLED, WTERMSIG(code));
	r->status = code;
	fill_rusage(r, c);
	if (!(w->options & WNOWAIT))
		thread_group_release_locked(c, dead);
	return true;
}

static bool take_stopped(struct task *t, const struct wait_args *w, struct thread_group *c,
			 struct wait_result *r)
{
	if (!(w->options & WUNTRACED) || c->stop != STOP_STOPPED || c->stop_reported)
		return false;
	fill_info(r, t, c, CLD_STOPPED, c->stop_signal);
	r->status = (c->stop_signal << 8) | 0x7f;
	fill_rusage(r, c);
	if (!(w->options & WNOWAIT))
		c->stop_reported = true;
	return true;
}

static bool take_continued(struct task *t, const struct wait_args *w, struct thread_group *c,
			   struct wait_result *r)
{
	if (!(w->options & WCONTINUED) || !c->cont_pending)
		return false;
	fill_info(r, t, c, CLD_CONTINUED, SIGCONT);
	r->status = 0xffff;
	fill_rusage(r, c);
	if (!(w->options & WNOWAIT))
		c->cont_pending = false;
	return true;
}

/* 1: @r filled; 0: children, but nothing to report; -ECHILD. */
static int scan_children(struct task *t, const struct wait_args *w, struct wait_result *r,
			 struct list_head *dead)
{
	struct thread_group *c;
	int ret = -ECHILD;

	list_for_each_entry (c, &t->tg->children, sibling) {
		if (!child_matches(w, c))
			continue;
		if (take_zombie(t, w, c, r, dead) || take_stopped(t, w, c, r) ||
		    take_continued(t, w, c, r))
			return 1;
		ret = 0;
	}
	return ret;
}

int task_wait_child(struct task *t, const struct wait_args *w, struct wait_result *r)
{
	struct list_head dead = LIST_HEAD_INIT(dead);
	struct task_waiter tw;
	int ret;

	task_waiter_init(&tw, t, EPOLLIN);
	waitq_add(&t->tg->child_wait, &tw.w);
	for (;;) {
		task_block_prepare(t);
		mutex_lock(&t->kernel->tasklist);
		ret = scan_children(t, w, r, &dead);
		mutex_unlock(&t->kernel->tasklist);
		if (ret || (w->options & WNOHANG))
			break;
		ret = task_block(t, CLOCK_MONOTONIC, NULL);
		if (ret)
			break;
	}
	waitq_remove(&tw.w);
	tasks_put_dead(&dead);
	return ret;
}
