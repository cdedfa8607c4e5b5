/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clone(2), unshare(2) and execve(2) with every allocation, every frame and every marked step
 * failing in turn: the caller sees ENOMEM or EAGAIN, goes on as it was, and no count has changed.
 * Then what execve leaves of the old program (fact 35 of docs/create-process.md).
 */
#include <linux/sched.h>
#include <sys/personality.h>

#include "sentry/task_internal.h"
#include "test/unit/process_support.h"

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif

static struct world w;
static struct task *t;	/* the caller: init's only thread, on this host thread */
static uaddr_t scratch; /* memory of its to pass things in, below its stack */

#define NR_SCRATCH 0x8000UL

/* An operation; ended by @undo if it succeeds. */
struct operation {
	const char *name;
	long (*run)(void);
	void (*undo)(long ret);
	bool steps; /* has marked steps */
};

/* ---- clone ---- */

static struct clone_params params;

static long run_clone(void)
{
	return task_clone(t, &params);
}

/* The child has ended by itself. Its parent ignores SIGCHLD: nothing is left to wait for. */
static void undo_clone(long ret)
{
	if (params.flags & CLONE_PIDFD) {
		int fd = -1;

		if (copy_in(t, &fd, params.pidfd, sizeof(fd)) ||
		    fd_close(&t->vfs, t->files, (unsigned int)fd))
			CHECK("pidfd", false);
	}
	kernel_wait(w.k);
}

static long fork_plain(void)
{
	params = (struct clone_params){.exit_signal = SIGCHLD};
	return run_clone();
}

static long fork_shared(void)
{
	params = (struct clone_params){.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND,
				       .exit_signal = SIGCHLD,
				       .stack = scratch};
	return run_clone();
}

static long fork_vfork(void)
{
	long ret;

	params = (struct clone_params){.flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD};
	ret = run_clone();
	/* As the run loop does. */
	while (ret >= 0 && t->vfork_child && !task_vfork_wait(t))
		;
	return ret;
}

static long fork_thread(void)
{
	params = (struct clone_params){.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
						CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
						CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
				       .stack = scratch,
				       .parent_tid = scratch,
				       .child_tid = scratch};
	return run_clone();
}

static long fork_namespaces(void)
{
	params = (struct clone_params){.flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC |
						CLONE_NEWPID | CLONE_NEWNET | CLONE_PIDFD |
						CLONE_CLEAR_SIGHAND | CLONE_PARENT_SETTID |
						CLONE_CHILD_SETTID,
				       .exit_signal = SIGCHLD,
				       .pidfd = scratch + 8,
				       .parent_tid = scratch,
				       .child_tid = scratch + 16};
	return run_clone();
}

/* ---- unshare ---- */

static struct {
	struct fs_context *fs;
	struct fd_table *files;
	struct mnt_ns *mnt;
	struct uts_ns *uts;
	struct ipc_ns *ipc;
	struct net_ns *net;
	struct pid_ns *pid;
} shared;

static long unshare_all(void)
{
	return task_unshare(t, CLONE_FS | CLONE_FILES | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC |
				       CLONE_NEWNET | CLONE_NEWPID);
}

/* Back to what was shared; references of their own keep it. */
static void share_again(long ret)
{
#define BACK(field, slot, get, put)                                                                \
	do {                                                                                       \
		put(slot);                                                                         \
		slot = get(shared.field);                                                          \
	} while (0)
	BACK(fs, t->vfs.fs, fs_context_get, fs_context_put);
	fd_table_put(&t->vfs, t->files);
	t->files = fd_table_get(shared.files);
	BACK(mnt, t->vfs.mnt_ns, mnt_ns_get, mnt_ns_put);
	BACK(uts, t->uts, uts_ns_get, uts_ns_put);
	BACK(ipc, t->ipc, ipc_ns_get, ipc_ns_put);
	BACK(net, t->net, net_ns_get, net_ns_put);
	BACK(pid, t->pid_ns_children, pid_ns_get, pid_ns_put);
#undef BACK
}

static void remember_shared(void)
{
	shared.fs = fs_context_get(t->vfs.fs);
	shared.files = fd_table_get(t->files);
	shared.mnt = mnt_ns_get(t->vfs.mnt_ns);
	shared.uts = uts_ns_get(t->uts);
	shared.ipc = ipc_ns_get(t->ipc);
	shared.net = net_ns_get(t->net);
	shared.pid = pid_ns_get(t->pid_ns_children);
}

static void forget_shared(void)
{
	fs_context_put(shared.fs);
	fd_table_put(&t->vfs, shared.files);
	mnt_ns_put(shared.mnt);
	uts_ns_put(shared.uts);
	ipc_ns_put(shared.ipc);
	net_ns_put(shared.net);
	pid_ns_put(shared.pid);
}

/* ---- execve ---- */

static uint64_t exec_argv[6]; /* as the system call gets them */

/* Puts what execve is given into the caller's memory, wherever that is now. */
static void push_exec_args(const char *name)
{
	uint64_t pointers[5];
	uaddr_t at;

	scratch = PAGE_ALIGN_DOWN(t->regs.rsp - NR_SCRATCH);
	at = scratch;
	if (mm_copy_remote(t->mm, at, (void *)(uintptr_t)name, strlen(name) + 1, true, true) == 0 ||
	    mm_copy_remote(t->mm, at + 256, (void *)(uintptr_t) "VAR=value", 10, true, true) == 0)
		CHECK("memory to pass things in", false);
	pointers[0] = at;
	pointers[1] = at;
	pointers[2] = 0;
	pointers[3] = at + 256;
	pointers[4] = 0;
	mm_copy_remote(t->mm, at + 512, pointers, sizeof(pointers), true, true);
	exec_argv[0] = at;
	exec_argv[1] = at + 512;
	exec_argv[2] = at + 512 + 24;
}

static struct fd_table *exec_files;
static struct sighand *exec_sighand;

/* With a descriptor table and handlers that others have, too. */
static long exec_script(void)
{
	return sys_execve(t, exec_argv);
}

static void share_exec(void)
{
	/* The shared pieces are left to the others; share this task's again. */
	if (exec_files) {
		if (t->files == exec_files)
			CHECK("35: descriptors are unshared", false);
		fd_table_put(&t->vfs, t->files);
		t->files = fd_table_get(exec_files);
	}
	if (exec_sighand) {
		if (t->tg->sighand == exec_sighand)
			CHECK("35: handlers are unshared", false);
		sighand_put(t->tg->sighand);
		t->tg->sighand = sighand_get(exec_sighand);
	}
	push_exec_args("/bin/script");
}

/* The new image may lack what it can get later, when it is touched: another one has it all. */
static void exec_again(long ret)
{
	share_exec();
	if (exec_script() != SYSCALL_REGS_SET)
		CHECK("execve again", false);
	share_exec();
}

/* ---- injection ---- */

static const struct operation operations[] = {
	{"fork", fork_plain, undo_clone, true},
	{"sharing fork", fork_shared, undo_clone, true},
	{"vfork", fork_vfork, undo_clone, true},
	{"thread", fork_thread, undo_clone, true},
	{"fork into namespaces", fork_namespaces, undo_clone, true},
	{"unshare", unshare_all, share_again, false},
	{"execve", exec_script, exec_again, false},
};

static long step_fail_at(long n)
{
	return atomic_exchange(&kernel_fail_step, (int)n);
}

static const struct {
	const char *name;
	long (*fail_at)(long n);
} injectors[] = {{"allocation", arena_fail_at}, {"frame", frame_fail_at}, {"step", step_fail_at}};

static void run_well(const struct operation *op)
{
	long ret = op->run();

	if (ret < 0 && ret != SYSCALL_REGS_SET)
		CHECK(op->name, false);
	else
		op->undo(ret);
}

static void inject(const struct operation *op, size_t i)
{
	struct counts before;
	int failed = 0, got_along = 0;
	bool clean = true, right = true, reached = true;
	struct task before_task;
	char name[128];
	long n;

	/* Once for what stays, then what comes and goes. */
	run_well(op);
	run_well(op);
	before = counts_now(&w);
	for (n = 1; reached && n < 2000; n++) {
		uint64_t pending = t->tg->shared_pending.set;
		long ret;

		before_task = *t;
		injectors[i].fail_at(n);
		ret = op->run();
		reached = injectors[i].fail_at(0) <= 0;
		if (ret >= 0 || ret == SYSCALL_REGS_SET) {
			got_along += reached;
			op->undo(ret);
		} else {
			failed++;
			kernel_wait(w.k);
			if (ret != -ENOMEM && ret != -EAGAIN) {
				printf("# %s: %s %ld: %ld\n", op->name, injectors[i].name, n, ret);
				right = false;
			}
			/* The caller is as it was. */
			if (t->mm != before_task.mm || t->files != before_task.files ||
			    t->vfs.fs != before_task.vfs.fs ||
			    t->vfs.cred != before_task.vfs.cred ||
			    memcmp(&t->regs, &before_task.regs, sizeof(t->regs)) ||
			    t->tg->shared_pending.set != pending || t->tg->nr_threads != 1 ||
			    !list_empty(&t->tg->children))
				right = false;
		}
		if (!counts_same(&w, &before)) {
			printf("# %s: after %s %ld: %ld\n", op->name, injectors[i].name, n, ret);
			clean = false;
			before = counts_now(&w);
		}
	}
	snprintf(name, sizeof(name), "%s: %s by %s: %d failed, %d got along with", op->name,
		 injectors[i].name, injectors[i].name, failed, got_along);
	/* What shares its memory needs no frames. */
	CHECK(name, failed > 0 || got_along > 0 || injectors[i].fail_at == frame_fail_at);
	snprintf(name, sizeof(name), "%s: ENOMEM or EAGAIN, and a caller as before", op->name);
	CHECK(name, right);
	snprintf(name, sizeof(name), "%s: every failed %s leaves all counts as they were", op->name,
		 injectors[i].name);
	CHECK(name, clean);
}

static void platform_fails(const struct operation *op)
{
	struct counts before = counts_now(&w);
	char name[128];

	fake.fail_context = true;
	snprintf(name, sizeof(name), "%s: no context", op->name);
	CHECK_EQ(name, op->run(), -EAGAIN);
	CHECK_COUNTS(name, &w, &before);
	if (op->run == fork_plain || op->run == fork_namespaces) {
		fake.fail_space = true;
		snprintf(name, sizeof(name), "%s: no address space", op->name);
		CHECK_EQ(name, op->run(), -ENOMEM);
		CHECK_COUNTS(name, &w, &before);
	}
}

static void open_caller(void)
{
	struct create_process_args a;

	world_open(&w);
	a = world_args(&w);
	a.filename = "/bin/dynamic";
	w.init = xcreate(&w, &a);
	t = w.init->leader;
	/* It is this thread that makes its calls: what the run loop would have set. */
	atomic_store(&t->state, TASK_RUNNING);
	w.init->sighand->action[SIGCHLD - 1].handler = (uaddr_t)(uintptr_t)SIG_IGN;
	fake.user_code = user_exits;
	/* One image is to take as many page tables as the next. */
	t->personality = ADDR_NO_RANDOMIZE;
	push_exec_args("/bin/script");
}

static void close_caller(void)
{
	atomic_store(&t->state, TASK_NEW);
	fake.user_code = NULL;
	world_close(&w);
}

static void test_failures(void)
{
	open_caller();
	remember_shared();
	for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
		const struct operation *op = &operations[i];

		if (op->run == exec_script) {
			exec_files = fd_table_get(t->files);
			exec_sighand = sighand_get(t->tg->sighand);
			push_exec_args("/bin/script");
		}
		for (size_t j = 0; j < ARRAY_SIZE(injectors); j++) {
			if (op->steps || injectors[j].fail_at != step_fail_at)
				inject(op, j);
		}
		if (op->steps)
			platform_fails(op);
	}
	fd_table_put(&t->vfs, exec_files);
	sighand_put(exec_sighand);
	exec_files = NULL;
	exec_sighand = NULL;
	forget_shared();
	close_caller();
}

/* Failures that aren't of memory. */
static void test_refusals(void)
{
	struct counts before;
	struct mm *mm;

	open_caller();
	run_well(&operations[0]);
	run_well(&operations[3]);
	before = counts_now(&w);
	t->tg->group_exit = true;
	CHECK_EQ("fork of an exiting process", fork_plain(), -ERESTARTNOINTR);
	CHECK_COUNTS("leaves nothing", &w, &before);
	CHECK_EQ("a thread of one", fork_thread(), -ERESTARTNOINTR);
	CHECK_COUNTS("leaves nothing", &w, &before);
	t->tg->group_exit = false;
	w.k->max_tasks = w.k->nr_tasks;
	CHECK_EQ("at the most tasks there may be", fork_plain(), -EAGAIN);
	CHECK_COUNTS("leaves nothing", &w, &before);
	w.k->max_tasks = 0;
	params = (struct clone_params){.flags = CLONE_PIDFD, .exit_signal = SIGCHLD, .pidfd = 16};
	CHECK_EQ("a pidfd that can't be written", run_clone(), -EFAULT);
	CHECK_COUNTS("leaves nothing", &w, &before);
	params = (struct clone_params){.flags = CLONE_PIDFD | CLONE_PARENT_SETTID,
				       .exit_signal = SIGCHLD,
				       .pidfd = scratch,
				       .parent_tid = 16};
	CHECK_EQ("a number that can't be written", run_clone(), -EFAULT);
	CHECK_COUNTS("leaves nothing", &w, &before);
	t->tg->limits[RLIMIT_NOFILE].rlim_cur = 0;
	params = (struct clone_params){
		.flags = CLONE_PIDFD, .exit_signal = SIGCHLD, .pidfd = scratch};
	CHECK_EQ("no descriptor for a pidfd", run_clone(), -EMFILE);
	CHECK_COUNTS("leaves nothing", &w, &before);
	t->tg->limits[RLIMIT_NOFILE].rlim_cur = 1024;

	mm = t->mm;
	push_exec_args("/bin/script");
	exec_argv[1] = 16;
	CHECK_EQ("execve with a bad argv", exec_script(), -EFAULT);
	exec_argv[1] = 0;
	exec_argv[2] = 16;
	CHECK_EQ("with a bad environment", exec_script(), -EFAULT);
	exec_argv[2] = 0;
	t->tg->exec_task = t;
	CHECK_EQ("during another one", exec_script(), -EINTR);
	t->tg->exec_task = NULL;
	push_exec_args("/work/text");
	CHECK_EQ("of what can't be run", exec_script(), -EACCES);
	push_exec_args("/no");
	CHECK_EQ("of what isn't there", exec_script(), -ENOENT);
	CHECK("leaves the program", t->mm == mm);
	CHECK_COUNTS("and all counts", &w, &before);
	close_caller();
}

/* ---- 35 ---- */

static bool has_timer(void)
{
	uint64_t first[6] = {0};

	return sys_timer_getoverrun(t, first) == 0;
}

static void test_35_exec(void)
{
	uint64_t timer_args[6] = {CLOCK_MONOTONIC};
	struct fd_table *files;
	struct sighand *s;
	struct file *f;
	int keep, gone;
	long ret;

	open_caller();
	s = w.init->sighand;
	s->action[SIGUSR1 - 1].handler = 0x1234;
	s->action[SIGUSR2 - 1].handler = (uaddr_t)(uintptr_t)SIG_IGN;
	t->blocked = SIGMASK(SIGTERM);
	t->altstack_sp = 0x1000;
	t->altstack_size = 0x4000;
	t->altstack_flags = 0;
	t->clear_child_tid = scratch;
	t->robust.head = scratch;
	t->mm->dumpable = false;
	f = xopen(&w.env, "/bin/prog", O_RDONLY);
	keep = fd_install(t->files, file_get(f), 0, false, 1024);
	gone = fd_install(t->files, file_get(f), 0, true, 1024);
	timer_args[2] = scratch;
	CHECK_EQ("35: a timer", sys_timer_create(t, timer_args), 0);
	CHECK("35: is there", has_timer());

	push_exec_args("/bin/dynamic");
	ret = exec_script();
	CHECK_EQ("35: execve", ret, SYSCALL_REGS_SET);
	CHECK("35: caught signals are at their default",
	      !w.init->sighand->action[SIGUSR1 - 1].handler);
	CHECK("35: ignored ones stay ignored",
	      w.init->sighand->action[SIGUSR2 - 1].handler == (uaddr_t)(uintptr_t)SIG_IGN);
	CHECK_EQ("35: the mask stays", t->blocked, SIGMASK(SIGTERM));
	CHECK("35: no alternate stack", t->altstack_flags == SS_DISABLE && !t->altstack_sp);
	CHECK("35: no word to clear, no robust list", !t->clear_child_tid && !t->robust.head);
	CHECK("35: dumpable", t->mm->dumpable);
	CHECK("35: timers are gone", !has_timer());
	CHECK("35: descriptors closed on exec", fd_get_cloexec(t->files, gone) == -EBADF);
	CHECK("35: others stay", fd_get_cloexec(t->files, keep) == 0);
	CHECK("35: a descriptor table that others have is left to them", t->files != w.files);
	CHECK("35: the name", !strcmp(t->comm, "dynamic"));
	CHECK("35: has executed", t->tg->did_exec);
	files = t->files;
	push_exec_args("/bin/script");
	CHECK_EQ("35: again", exec_script(), SYSCALL_REGS_SET);
	CHECK("35: its own table stays", t->files == files);
	fd_close(&t->vfs, t->files, (unsigned int)keep);
	file_put(f);
	close_caller();
}

static void tests(void)
{
	test_failures();
	test_refusals();
	test_35_exec();
}

int main(void)
{
	return process_test_main(tests);
}
