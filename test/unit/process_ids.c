/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Thread groups, tasks, IDs, sessions and how they end: facts 25 to 30 of docs/create-process.md.
 */
#include "test/unit/process_support.h"

static struct world w;
#define CTX (&w.env.ctx)

/* ---- 25: thread groups ---- */

static void test_25_groups(void)
{
	struct rlimit limits[RLIM_NLIMITS];
	struct create_process_args a;
	struct thread_group *tg;
	struct counts before;
	struct task *t;
	uint32_t refs;
	pid_t nr;

	world_open_init(&w);
	before = counts_now(&w);
	refs = refcount_read(&w.k->root_pid_ns->refs);
	t = make_task(&w, NULL, NULL);
	nr = task_tid_nr(t, w.k->root_pid_ns);
	CHECK_EQ("25: references on the PID namespace", refcount_read(&w.k->root_pid_ns->refs),
		 refs + 2);
	CHECK("25: invisible at first", !task_find(w.k, w.k->root_pid_ns, nr) && !t->pid->tg &&
						list_empty(&w.init->children));
	CHECK_EQ("25: published", task_publish(t, w.init), 0);
	CHECK("25: visible with its task", task_find(w.k, w.k->root_pid_ns, nr) == t &&
						   t->pid->tg == t->tg && t->tg->leader == t);
	task_put(t);
	CHECK("25: a child of its parent",
	      t->tg->parent == w.init && !list_empty(&w.init->children));
	task_never_ran(t);
	CHECK("25: gone without a word",
	      list_empty(&w.init->children) && !w.init->shared_pending.set);
	CHECK_COUNTS("25: all of it", &w, &before);

	memcpy(limits, kernel_default_limits, sizeof(limits));
	limits[RLIMIT_CPU] = (struct rlimit){10, 20};
	a = world_args(&w);
	a.limits = limits;
	tg = xcreate(&w, &a);
	CHECK("25: a CPU limit has its timer", tg->cpu_limit);
	CHECK("25: and needs none without", !w.init->cpu_limit);
	drop_process(&w, tg);
	world_close(&w);
}

/* ---- 26: RLIMIT_NPROC ---- */

static void test_26_nproc(void)
{
	struct rlimit limits[RLIM_NLIMITS];
	struct create_process_args a;
	struct thread_group *tg[3];
	struct counts before;
	struct task *t;
	struct cred *capable = cred_alloc(1000, 1000, NULL, 0, 0);

	world_open_init(&w);
	memcpy(limits, kernel_default_limits, sizeof(limits));
	limits[RLIMIT_NPROC] = (struct rlimit){2, 2};
	for (int i = 0; i < 2; i++) {
		a = world_args(&w);
		a.cred = w.user;
		a.limits = limits;
		tg[i] = xcreate(&w, &a);
	}
	CHECK_EQ("26: processes of a user", tg[0]->leader->user->tasks, 2);
	CHECK("26: counted together", tg[0]->leader->user == tg[1]->leader->user &&
					      tg[0]->leader->user != w.init->leader->user);
	before = counts_now(&w);
	a = world_args(&w);
	a.cred = w.user;
	a.limits = limits;
	CHECK_EQ("26: one too many", failing(&w, &a), -EAGAIN);
	CHECK_COUNTS("26: leaves nothing", &w, &before);
	CHECK_EQ("26: nor is it counted", tg[0]->leader->user->tasks, 2);
	t = make_task(&w, tg[0], NULL);
	CHECK_EQ("26: nor another thread, as on Linux", PTR_ERR_OR_ZERO(t), -EAGAIN);
	CHECK_COUNTS("26: which leaves nothing", &w, &before);
	tg[0]->limits[RLIMIT_NPROC].rlim_cur = 3;
	t = make_task(&w, tg[0], NULL);
	CHECK_EQ("26: a thread within the limit", tg[0]->leader->user->tasks, 3);
	task_put(t);
	/* Ambient: what survives an execve without file capabilities. */
	capable->cap_permitted = capable->cap_effective = capable->cap_inheritable =
		capable->cap_ambient = CAP_BIT(CAP_SYS_RESOURCE);
	a = world_args(&w);
	a.cred = capable;
	a.limits = limits;
	tg[2] = xcreate(&w, &a);
	CHECK_EQ("26: the capable may", tg[2]->leader->user->tasks, 3);
	drop_process(&w, tg[2]);
	drop_process(&w, tg[1]);
	a = world_args(&w);
	a.cred = w.user;
	a.limits = limits;
	tg[1] = xcreate(&w, &a);
	CHECK_EQ("26: room again", tg[1]->leader->user->tasks, 2);
	drop_process(&w, tg[1]);
	drop_process(&w, tg[0]);
	limits[RLIMIT_NPROC] = (struct rlimit){0, 0};
	a = world_args(&w);
	a.limits = limits;
	tg[0] = xcreate(&w, &a);
	CHECK_EQ("26: root isn't limited", tg[0]->leader->user->uid, 0);
	drop_process(&w, tg[0]);
	cred_put(capable);
	world_close(&w);
}

/* ---- 27: groups that are going ---- */

static void test_27_interrupted(void)
{
	struct counts before;
	struct task *t;

	world_open_init(&w);
	before = counts_now(&w);
	w.init->group_exit = true;
	t = make_task(&w, w.init, NULL);
	CHECK_EQ("27: a thread for an exiting group", task_publish(t, NULL), -EINTR);
	task_put(t);
	t = make_task(&w, NULL, NULL);
	CHECK_EQ("27: a child of one", task_publish(t, w.init), -EINTR);
	task_put(t);
	w.init->group_exit = false;
	w.init->exec_task = w.init->leader;
	t = make_task(&w, w.init, NULL);
	CHECK_EQ("27: a thread during an exec", task_publish(t, NULL), -EINTR);
	task_put(t);
	w.init->exec_task = NULL;
	CHECK_COUNTS("27: leave nothing", &w, &before);
	world_close(&w);
}

/* ---- 28: IDs ---- */

static struct pid *new_pid(struct pid_ns *ns)
{
	struct pid *pid;

	mutex_lock(&w.k->tasklist);
	pid = pid_alloc_locked(ns, NULL, 0);
	mutex_unlock(&w.k->tasklist);
	return pid;
}

static void old_pid(struct pid *pid)
{
	mutex_lock(&w.k->tasklist);
	pid_release_locked(pid);
	mutex_unlock(&w.k->tasklist);
	pid_put(pid);
}

static pid_t next_nr(struct pid_ns *ns)
{
	struct pid *pid = new_pid(ns);
	pid_t nr = PTR_ERR_OR_ZERO(pid);

	if (!nr) {
		nr = pid_nr(pid, ns);
		old_pid(pid);
	}
	return nr;
}

static void test_28_nested(void)
{
	struct pid_ns *a, *b;
	struct create_process_args args;
	struct thread_group *tg;
	struct counts before;
	struct pid *pid;
	int pids;

	world_open_init(&w);
	a = pid_ns_alloc(w.k, w.k->root_pid_ns);
	b = pid_ns_alloc(w.k, a);
	pid = new_pid(b);
	CHECK("28: a number in every ancestor",
	      pid_nr(pid, b) == 1 && pid_nr(pid, a) == 1 && pid_nr(pid, w.k->root_pid_ns) == 2);
	old_pid(pid);
	args = world_args(&w);
	args.pid_ns = a;
	tg = xcreate(&w, &args);
	CHECK("28: a process in a namespace", pid_nr(tg->pid, a) == 2 && pid_nr(tg->pid, b) == 0 &&
						      pid_nr(tg->pid, w.k->root_pid_ns) == 3);
	CHECK("28: is its init, not the kernel's", a->init == tg && w.k->init != tg);

	/* The outermost namespace is asked last: what the inner ones gave goes back. */
	before = counts_now(&w);
	pids = a->nr_pids + b->nr_pids;
	w.k->root_pid_ns->pid_max = 2;
	pid = new_pid(b);
	CHECK_EQ("28: an ancestor is full", PTR_ERR_OR_ZERO(pid), -EAGAIN);
	CHECK_EQ("28: the inner numbers are free again", a->nr_pids + b->nr_pids, pids);
	args = world_args(&w);
	args.pid_ns = b;
	CHECK_EQ("28: no process either", failing(&w, &args), -EAGAIN);
	w.k->root_pid_ns->pid_max = PID_MAX_DEFAULT;
	CHECK_COUNTS("28: nothing is left", &w, &before);

	drop_process(&w, tg);
	CHECK("28: with its init the namespace dies", a->dead && !w.k->exited);
	args = world_args(&w);
	args.pid_ns = a;
	CHECK_EQ("28: in a dead one", failing(&w, &args), -ENOMEM);
	args = world_args(&w);
	args.pid_ns = b;
	CHECK_EQ("28: and below a dead one", failing(&w, &args), -ENOMEM);
	pid_ns_put(b);
	pid_ns_put(a);
	world_close(&w);
}

static void test_28_numbers(void)
{
	enum { MAX = 400 };
	static struct pid *pids[MAX];
	struct create_process_args a;
	struct thread_group *leader;
	struct pid_ns *ns;
	struct task *t;
	pid_t nr;
	int n = 0;

	world_open_init(&w);
	ns = pid_ns_alloc(w.k, w.k->root_pid_ns);
	CHECK_EQ("28: the first number", next_nr(ns), 1);
	CHECK_EQ("28: numbers aren't used again at once", next_nr(ns), 2);
	ns->pid_max = MAX;
	ns->last = MAX - 1;
	CHECK_EQ("28: wrapping leaves the low ones to boot", next_nr(ns), 300);
	while (n < MAX && !IS_ERR(pids[n] = new_pid(ns)))
		n++;
	CHECK_EQ("28: but not when they are needed: all but init's", n, MAX - 2);
	CHECK_EQ("28: full", PTR_ERR_OR_ZERO(pids[n]), -EAGAIN);
	while (n)
		old_pid(pids[--n]);
	ns->pid_max = 10;
	ns->last = 9;
	CHECK_EQ("28: wrapping restarts behind init", next_nr(ns), 2);
	pid_ns_put(ns);

	/* A group keeps its leader's number after the leader's end. */
	a = world_args(&w);
	leader = xcreate(&w, &a);
	nr = pid_nr(leader->pid, w.k->root_pid_ns);
	t = make_task(&w, NULL, NULL);
	CHECK_EQ("29: a child", task_publish(t, leader), 0);
	CHECK("29: inherits session and group",
	      t->tg->session == leader->pid && t->tg->pgrp == leader->pid);
	drop_process(&w, leader);
	w.k->root_pid_ns->last = nr - 1;
	CHECK("28: numbers of groups and sessions are skipped",
	      next_nr(w.k->root_pid_ns) != nr && t->tg->pgrp->hashed);
	task_never_ran(t);
	w.k->root_pid_ns->last = nr - 1;
	CHECK_EQ("28: until the last member has gone", next_nr(w.k->root_pid_ns), nr);
	world_close(&w);
}

/* ---- 29: sessions ---- */

static void test_29_sessions(void)
{
	struct create_process_args a;
	struct file *master, *slave;
	struct thread_group *tg;
	struct task *t;

	world_open(&w);
	xmount(&w, "devpts", NULL, "/dev/pts");
	CHECK_EQ("29: a terminal", tty_create_console(w.k, w.env.ns, &master, &slave), 0);
	a = world_args(&w);
	a.tty = tty_of_file(slave);
	w.init = xcreate(&w, &a);
	a = world_args(&w);
	tg = xcreate(&w, &a);
	CHECK("29: a session of its own", tg->session == tg->pid && tg->session != w.init->session);
	CHECK("29: and a process group", tg->pgrp == tg->pid);
	drop_process(&w, tg);
	t = make_task(&w, NULL, NULL);
	CHECK_EQ("29: a child", task_publish(t, w.init), 0);
	CHECK("29: has its parent's", t->tg->session == w.init->pid && t->tg->pgrp == w.init->pid);
	CHECK("29: and its terminal", t->tg->tty && t->tg->tty == w.init->tty);
	task_never_ran(t);
	CHECK("29: which stays the parent's", w.init->tty && w.init->tty->session == w.init->pid);
	drop_process(&w, w.init);
	w.init = NULL;
	file_put(slave);
	file_put(master);
	world_close(&w);
}

/* ---- 30: ends ---- */

/* What was still there when the descriptors were closed. */
static struct {
	int calls;
	long spaces;
	uint32_t fs_refs, ns_refs, uts_refs, ipc_refs, net_refs, pid_ns_refs;
} at_close;
static struct fs_context *watched_fs;

static int watch_flush(const struct vfs_ctx *ctx, struct file *file)
{
	at_close.calls++;
	at_close.spaces = fake.spaces;
	at_close.ns_refs = refcount_read(&w.env.ns->refs);
	at_close.uts_refs = refcount_read(&w.k->root_uts->refs);
	at_close.ipc_refs = refcount_read(&w.k->root_ipc->refs);
	at_close.net_refs = refcount_read(&w.k->root_net->refs);
	at_close.pid_ns_refs = refcount_read(&w.k->root_pid_ns->refs);
	at_close.fs_refs = refcount_read(&watched_fs->refs);
	return 0;
}

static const struct file_ops watch_ops = {.flush = watch_flush};

static void test_30_end(void)
{
	struct mnt_ns *ns;
	struct fs_context *fs;
	struct create_process_args a;
	struct thread_group *tg;
	struct fd_table *files;
	struct counts before;
	struct file *file;
	struct live live;
	struct task *t;

	world_open_init(&w);
	/* A namespace that only the process has: its tree goes with it. */
	fs = fs_context_copy(w.env.ctx.fs);
	live = live_now();
	ns = mnt_ns_copy(w.env.ns, NULL);
	a = world_args(&w);
	mnt_ns_put(a.mnt_ns);
	a.mnt_ns = ns;
	tg = xcreate(&w, &a);
	CHECK_EQ("30: the only reference", refcount_read(&ns->refs), 1);
	drop_process(&w, tg);
	check_live("30: the last one unmounts the tree", &live);
	a = world_args(&w);
	mnt_ns_put(a.mnt_ns);
	a.mnt_ns = mnt_ns_copy(w.env.ns, NULL);
	a.filename = "/no";
	CHECK_EQ("30: a failure", failing(&w, &a), -ENOENT);
	check_live("30: is the last one, too", &live);
	fs_context_put(fs);

	/* The order at the end. */
	files = fd_table_alloc();
	file = file_alloc_anon("watch", S_IFREG | 0600, &watch_ops, NULL, O_RDWR, w.env.ctx.cred);
	CHECK_EQ("30: a file that watches", fd_install(files, file, 0, false, 1024), 0);
	a = world_args(&w);
	a.files = files;
	tg = xcreate(&w, &a);
	t = task_get(tg->leader);
	watched_fs = fs_context_get(t->vfs.fs);
	fd_table_put(CTX, files);
	before = counts_now(&w);
	memset(&at_close, 0, sizeof(at_close));
	CHECK_EQ("30: ended", kernel_abort_process(w.k, tg), 0);
	CHECK_EQ("30: closes once", at_close.calls, 1);
	CHECK_EQ("30: the address space goes before", at_close.spaces, before.spaces - 1);
	CHECK_EQ("30: the fs context after", at_close.fs_refs, 2);
	CHECK_EQ("30: mounts after", at_close.ns_refs, before.ns);
	CHECK_EQ("30: UTS after", at_close.uts_refs, before.uts);
	CHECK_EQ("30: IPC after", at_close.ipc_refs, before.ipc);
	CHECK_EQ("30: network after", at_close.net_refs, before.net);
	CHECK("30: nothing is left with the task",
	      !t->mm && !t->files && !t->vfs.fs && !t->vfs.mnt_ns && !t->uts && !t->ipc && !t->net);
	fs_context_put(watched_fs);
	task_put(t);
	thread_group_put(tg);
	world_close(&w);
}

static void tests(void)
{
	test_25_groups();
	test_26_nproc();
	test_27_interrupted();
	test_28_nested();
	test_28_numbers();
	test_29_sessions();
	test_30_end();
}

int main(void)
{
	return process_test_main(tests);
}
