/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making tasks and thread groups visible, and releasing them. What they do while they live is in
 * task_run.c, clone.c, task_exec.c and exit.c.
 */
#include "sentry/task.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/task_internal.h"

OBJTYPE(task_type, "task")
OBJTYPE(thread_group_type, "thread_group")

/* ---- per-user counters ---- */

/* Charges a task to @uid. NULL: out of memory. */
static struct user_counts *user_counts_charge(struct kernel *k, uid_t uid)
{
	struct user_counts *u;

	mutex_lock(&k->users_lock);
	list_for_each_entry (u, &k->users, node) {
		if (u->uid == uid) {
			refcount_get(&u->refs);
			goto out_charge;
		}
	}
	u = kzalloc(sizeof(*u));
	if (!u)
		goto out_unlock;
	u->uid = uid;
	refcount_init(&u->refs, 1);
	list_add(&u->node, &k->users);
out_charge:
	atomic_fetch_add(&u->tasks, 1);
out_unlock:
	mutex_unlock(&k->users_lock);
	return u;
}

static void user_counts_uncharge(struct kernel *k, struct user_counts *u)
{
	mutex_lock(&k->users_lock);
	atomic_fetch_sub(&u->tasks, 1);
	if (refcount_put(&u->refs)) {
		list_del(&u->node);
		kfree(u);
	}
	mutex_unlock(&k->users_lock);
}

/* Out of memory: it stays charged to the old user. */
static void task_set_user(struct task *t, uid_t uid)
{
	struct user_counts *u = user_counts_charge(t->kernel, uid);

	if (!u)
		return;
	user_counts_uncharge(t->kernel, t->user);
	t->user = u;
}

/* ---- thread groups ---- */

static struct thread_group *thread_group_alloc(const struct task_args *a)
{
	struct thread_group *tg = kzalloc(sizeof(*tg));

	if (!tg)
		return ERR_PTR(-ENOMEM);
	refcount_init(&tg->refs, 1);
	tg->kernel = a->kernel;
	tg->sighand = sighand_get(a->sighand);
	tg->exit_signal = a->exit_signal;
	list_init(&tg->threads);
	list_init(&tg->children);
	list_init(&tg->sibling);
	list_init(&tg->pgrp_node);
	list_init(&tg->session_node);
	sigqueue_init(&tg->shared_pending);
	waitq_init(&tg->child_wait);
	waitq_init(&tg->pidfd_wait);
	mutex_init(&tg->limits_lock, LOCK_OBJECT);
	memcpy(tg->limits, a->limits, sizeof(tg->limits));
	objtype_inc(&thread_group_type);
	return tg;
}

struct thread_group *thread_group_get(struct thread_group *tg)
{
	refcount_get(&tg->refs);
	return tg;
}

void thread_group_put(struct thread_group *tg)
{
	if (!tg || !refcount_put(&tg->refs))
		return;
	timers_exit(tg);
	cpu_limit_exit(tg);
	sigqueue_flush(&tg->shared_pending);
	tty_put(tg->tty);
	pid_put(tg->pgrp);
	pid_put(tg->session);
	pid_put(tg->pid);
	sighand_put(tg->sighand);
	mutex_fini(&tg->limits_lock);
	waitq_fini(&tg->child_wait);
	waitq_fini(&tg->pidfd_wait);
	kfree(tg);
	objtype_dec(&thread_group_type);
}

/* ---- tasks ---- */

static bool task_ctx_interrupted(const struct vfs_ctx *ctx)
{
	return task_interrupted(task_of(ctx));
}

static int task_ctx_wait(const struct vfs_ctx *ctx, struct waitq *wq, uint32_t events,
			 bool (*ready)(void *arg), void *arg)
{
	struct task *t = task_of(ctx);
	struct task_waiter tw;
	int err = 0;

	task_waiter_init(&tw, t, events);
	task_block_prepare(t);
	waitq_add(wq, &tw.w);
	while (!ready(arg)) {
		err = task_block(t, CLOCK_MONOTONIC, NULL);
		if (err)
			break;
		task_block_prepare(t);
	}
	waitq_remove(&tw.w);
	return err;
}

/* Consumes the references in @a. Also used on failure. */
static void task_args_put(const struct task_args *a)
{
	if (a->mm)
		mm_put(a->mm);
	if (a->files)
		fd_table_put(&(struct vfs_ctx){0}, a->files);
	if (a->fs)
		fs_context_put(a->fs);
	if (a->mnt_ns)
		mnt_ns_put(a->mnt_ns);
	uts_ns_put(a->uts);
	ipc_ns_put(a->ipc);
	net_ns_put(a->net);
	pid_ns_put(a->pid_ns);
	cred_put(a->cred);
	sighand_put(a->sighand);
}

/* RLIMIT_NPROC counts threads of the real user; root and the capable are exempt. */
static bool over_nproc(const struct task_args *a, struct thread_group *tg,
		       const struct user_counts *u)
{
	const struct cred *c = a->cred;
	uint64_t limit;

	if (c->uid == 0 || cred_capable(c, CAP_SYS_RESOURCE) || cred_capable(c, CAP_SYS_ADMIN))
		return false;
	mutex_lock(&tg->limits_lock);
	limit = tg->limits[RLIMIT_NPROC].rlim_cur;
	mutex_unlock(&tg->limits_lock);
	return (uint64_t)u->tasks > limit;
}

struct task *task_alloc(const struct task_args *a)
{
	struct kernel *k = a->kernel;
	struct thread_group *tg;
	struct task *t;
	long err;

	if (a->tg)
		tg = thread_group_get(a->tg);
	else
		tg = thread_group_alloc(a);
	err = PTR_ERR_OR_ZERO(tg);
	if (err)
		goto out_args;
	err = -ENOMEM;
	t = kzalloc(sizeof(*t));
	if (!t)
		goto out_tg;
	t->user = user_counts_charge(k, a->cred->uid);
	if (!t->user)
		goto out_task;
	err = -EAGAIN;
	if (over_nproc(a, tg, t->user))
		goto out_user;
	t->ctx = platform_ctx_create(k->platform);
	t->ctx_life = k->life;
	err = PTR_ERR_OR_ZERO(t->ctx);
	if (err)
		goto out_user;
	mutex_lock(&k->tasklist);
	err = -EAGAIN;
	if (k->max_tasks && k->nr_tasks >= k->max_tasks)
		goto out_ctx;
	t->pid = pid_alloc_locked(a->pid_ns, a->set_tid, a->set_tid_size);
	err = PTR_ERR_OR_ZERO(t->pid);
	if (err)
		goto out_ctx;
	k->nr_tasks++;
	mutex_unlock(&k->tasklist);

	refcount_init(&t->refs, 1);
	t->kernel = k;
	t->tg = tg;
	list_init(&t->tg_node);
	mutex_init(&t->own_lock, LOCK_OBJECT);
	waitq_init(&t->signalfd_wait);
	sigqueue_init(&t->pending);
	t->vfs = (struct vfs_ctx){
		.cred = a->cred,
		.fs = a->fs,
		.mnt_ns = a->mnt_ns,
		.um = &a->mm->um,
		.fsize_limit = tg->limits[RLIMIT_FSIZE].rlim_cur,
		.interrupted = task_ctx_interrupted,
		.wait = task_ctx_wait,
		.is_task = true,
	};
	t->mm = a->mm;
	t->files = a->files;
	t->uts = a->uts;
	t->ipc = a->ipc;
	t->net = a->net;
	t->pid_ns_children = a->pid_ns;
	t->syscall_nr = -1;
	t->altstack_flags = SS_DISABLE;
	fast_task_init(t);
	t->cpus = k->cpus;
	t->timer_slack = 50000;
	clock_gettime(CLOCK_BOOTTIME, &t->start_time);
	strncpy(t->comm, a->comm ? a->comm : "", sizeof(t->comm) - 1);
	if (!a->tg)
		tg->pid = pid_get(t->pid);
	/* The group took its own. */
	sighand_put(a->sighand);
	objtype_inc(&task_type);
	return t;

out_ctx:
	mutex_unlock(&k->tasklist);
	platform_ctx_destroy(t->ctx);
out_user:
	user_counts_uncharge(k, t->user);
out_task:
	kfree(t);
out_tg:
	thread_group_put(tg);
out_args:
	task_args_put(a);
	return ERR_PTR(err);
}

struct task *task_get(struct task *t)
{
	refcount_get(&t->refs);
	return t;
}

/* Drops what a task holds of others; at its exit, or when it never ran. */
void task_drop_resources(struct task *t)
{
	struct mm *mm;
	struct fd_table *files;
	struct fs_context *fs;
	struct mnt_ns *ns;

	mutex_lock(&t->own_lock);
	mm = t->mm;
	files = t->files;
	fs = t->vfs.fs;
	ns = t->vfs.mnt_ns;
	t->mm = NULL;
	t->files = NULL;
	t->vfs.fs = NULL;
	t->vfs.mnt_ns = NULL;
	t->vfs.um = NULL;
	mutex_unlock(&t->own_lock);
	if (mm)
		mm_put(mm);
	if (files)
		fd_table_put(&t->vfs, files);
	if (fs)
		fs_context_put(fs);
	if (ns)
		mnt_ns_put(ns);
	uts_ns_put(t->uts);
	ipc_ns_put(t->ipc);
	net_ns_put(t->net);
	t->uts = NULL;
	t->ipc = NULL;
	t->net = NULL;
}

void task_put(struct task *t)
{
	struct kernel *k;

	if (!t || !refcount_put(&t->refs))
		return;
	k = t->kernel;
	task_drop_resources(t);
	if (t->ctx && t->ctx_life == k->life)
		platform_ctx_destroy(t->ctx);
	mutex_lock(&k->tasklist);
	k->nr_tasks--;
	if (t->pid->task == t)
		t->pid->task = NULL;
	pid_release_locked(t->pid);
	mutex_unlock(&k->tasklist);
	pid_put(t->pid);
	pid_ns_put(t->pid_ns_children);
	sigqueue_flush(&t->pending);
	user_counts_uncharge(k, t->user);
	cred_put(t->vfs.cred);
	thread_group_put(t->tg);
	waitq_fini(&t->signalfd_wait);
	mutex_fini(&t->own_lock);
	kfree(t);
	objtype_dec(&task_type);
}

/* A new group: into the tree, a session of its own without a parent, else its parent's. */
static void publish_group_locked(struct task *t, struct thread_group *parent)
{
	struct thread_group *tg = t->tg;

	tg->leader = t;
	tg->pid->tg = tg;
	if (parent) {
		tg->parent = parent;
		list_add_tail(&tg->sibling, &parent->children);
		tg->pgrp = pid_get(parent->pgrp);
		tg->session = pid_get(parent->session);
		tg->tty = parent->tty ? tty_get(parent->tty) : NULL;
	} else {
		tg->pgrp = pid_get(tg->pid);
		tg->session = pid_get(tg->pid);
	}
	list_add_tail(&tg->pgrp_node, &tg->pgrp->pgrp_members);
	list_add_tail(&tg->session_node, &tg->session->session_members);
	if (!pid_ns_of(tg->pid)->init)
		pid_ns_of(tg->pid)->init = tg;
	t->kernel->forks++;
}

int task_publish_locked(struct task *t, struct thread_group *parent)
{
	struct kernel *k = t->kernel;
	struct thread_group *tg = t->tg;
	struct sighand *s = sighand_lock(tg);
	int err = 0;

	/* A group that is going away, or is replacing itself, takes no new threads. */
	if (tg->group_exit || tg->exec_task || (parent && parent->group_exit))
		err = -EINTR;
	else if (k->exited || pid_ns_of(t->pid)->dead)
		err = -ENOMEM;
	if (err) {
		mutex_unlock(&s->lock);
		return err;
	}
	list_add_tail(&t->tg_node, &tg->threads);
	tg->nr_threads++;
	tg->nr_live++;
	t->pid->task = t;
	if (tg->stop != STOP_NONE)
		atomic_store(&t->sigpending_hint, true);
	if (tg->stop == STOP_PENDING)
		tg->stop_count++;
	mutex_unlock(&s->lock);
	if (!tg->leader)
		publish_group_locked(t, parent);
	return 0;
}

int task_publish(struct task *t, struct thread_group *parent)
{
	int err;

	mutex_lock(&t->kernel->tasklist);
	err = task_publish_locked(t, parent);
	mutex_unlock(&t->kernel->tasklist);
	return err;
}

void task_unpublish_locked(struct task *t)
{
	struct thread_group *tg = t->tg;
	struct pid_ns *ns = pid_ns_of(tg->pid);
	struct sighand *s = sighand_lock(tg);

	BUG_ON(tg->leader != t || tg->parent || tg->nr_threads != 1);
	list_del(&t->tg_node);
	tg->nr_threads--;
	tg->nr_live--;
	mutex_unlock(&s->lock);
	list_del(&tg->pgrp_node);
	list_del(&tg->session_node);
	if (ns->init == tg)
		ns->init = NULL;
	/* Its numbers go with the task's last reference. */
	t->pid->task = NULL;
	tg->pid->tg = NULL;
	tg->leader = NULL;
	t->kernel->forks--;
}

/* ---- looking at tasks ---- */

uint64_t task_rlimit(struct task *t, int which)
{
	uint64_t v;

	mutex_lock(&t->tg->limits_lock);
	v = t->tg->limits[which].rlim_cur;
	mutex_unlock(&t->tg->limits_lock);
	return v;
}

bool task_capable(struct task *t, int cap)
{
	return cred_capable(t->vfs.cred, cap);
}

pid_t task_tid_nr(struct task *t, struct pid_ns *ns)
{
	return pid_nr(t->pid, ns);
}

pid_t task_tgid_nr(struct task *t, struct pid_ns *ns)
{
	return pid_nr(t->tg->pid, ns);
}

void task_set_cred(struct task *t, struct cred *cred)
{
	struct cred *old;

	mutex_lock(&t->own_lock);
	old = t->vfs.cred;
	t->vfs.cred = cred;
	mutex_unlock(&t->own_lock);
	if (old->uid != cred->uid)
		task_set_user(t, cred->uid);
	fast_info_changed(t);
	cred_put(old);
}

int task_may_access(struct task *t, struct task *target)
{
	const struct cred *c = t->vfs.cred;
	struct cred *tc;
	struct mm *mm;
	bool ok;

	if (t->tg == target->tg || cred_capable(c, CAP_SYS_PTRACE))
		return 0;
	tc = task_get_cred(target);
	ok = c->uid == tc->uid && c->uid == tc->euid && c->uid == tc->suid && c->gid == tc->gid &&
	     c->gid == tc->egid && c->gid == tc->sgid && !(tc->cap_permitted & ~c->cap_permitted);
	cred_put(tc);
	mm = task_get_mm(target);
	if (mm) {
		ok = ok && mm->dumpable;
		mm_put(mm);
	}
	return ok ? 0 : -EPERM;
}

struct mm *task_get_mm(struct task *t)
{
	struct mm *mm;

	mutex_lock(&t->own_lock);
	mm = t->mm ? mm_get(t->mm) : NULL;
	mutex_unlock(&t->own_lock);
	return mm;
}

struct fd_table *task_get_files(struct task *t)
{
	struct fd_table *files;

	mutex_lock(&t->own_lock);
	files = t->files ? fd_table_get(t->files) : NULL;
	mutex_unlock(&t->own_lock);
	return files;
}

struct cred *task_get_cred(struct task *t)
{
	struct cred *cred;

	mutex_lock(&t->own_lock);
	cred = cred_get(t->vfs.cred);
	mutex_unlock(&t->own_lock);
	return cred;
}

struct task *task_find(struct kernel *k, struct pid_ns *ns, pid_t tid)
{
	struct task *t = NULL;
	struct pid *pid;

	mutex_lock(&k->tasklist);
	pid = pid_find_locked(ns, tid);
	if (pid && pid->task && refcount_get_unless_zero(&pid->task->refs))
		t = pid->task;
	mutex_unlock(&k->tasklist);
	return t;
}

void task_times(struct task *t, uint64_t *utime_ns, uint64_t *stime_ns)
{
	const struct platform_type *pt = t->kernel->platform->type;
	struct timespec ts;
	uint64_t host;
	clockid_t clock;

	*utime_ns = t->utime_ns;
	*stime_ns = t->stime_ns;
	/* The clock of a host thread by its ID (CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED). */
	clock = (clockid_t)((~(unsigned int)t->host_tid << 3) | 6);
	if (!t->host_tid || t->exiting || clock_gettime(clock, &ts))
		return;
	host = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec - t->host_ns;
	if (pt->ctx_user_ns) {
		*utime_ns += pt->ctx_user_ns(t->ctx);
		*stime_ns += host;
	} else {
		/* User code and the sentry's work for it are one clock here. */
		*utime_ns += host;
	}
}

void thread_group_times(struct thread_group *tg, uint64_t *utime, uint64_t *stime)
{
	struct task *t;

	mutex_lock(&tg->kernel->tasklist);
	*utime = tg->utime_ns;
	*stime = tg->stime_ns;
	list_for_each_entry (t, &tg->threads, tg_node) {
		uint64_t u, s;

		if (t->exiting)
			continue;
		task_times(t, &u, &s);
		*utime += u;
		*stime += s;
	}
	mutex_unlock(&tg->kernel->tasklist);
}
