/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run loop: the host thread of a task enters user code, and serves what comes out.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sentry/freezer.h"
#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/lib/hostfutex.h"
#include "sentry/syscalls.h"
#include "sentry/task_internal.h"

/* Enough for the deepest path walk or signal frame; a sandbox may have thousands of threads. */
#define TASK_STACK_SIZE (256UL << 10)

static void send_fault(struct task *t, const siginfo_t *info, const struct trap *trap)
{
	t->fault_trapno = trap->kind == TRAP_FAULT ? ARCH_EXC_PF : trap->vector;
	t->fault_err = trap->error;
	t->fault_cr2 = trap->kind == TRAP_FAULT ? trap->addr : 0;
	signal_force(t, info);
}

_Atomic bool task_out_of_memory;

static void out_of_memory(struct task *t)
{
	atomic_store(&task_out_of_memory, true);
	log_warn("memory limit reached: killed process %d (%s)",
		 pid_nr(t->tg->pid, t->kernel->root_pid_ns), t->comm);
	task_exit_group(t, SIGKILL);
}

static void handle_trap(struct task *t, const struct trap *trap)
{
	siginfo_t info;
	int err;

	switch (trap->kind) {
	case TRAP_SYSCALL:
		fast_trapped(t);
		syscall_dispatch(t);
		break;
	case TRAP_FAULT:
		memset(&info, 0, sizeof(info));
		err = mm_fault(t->mm, trap->addr, trap->access, &info);
		if (err == -ENOMEM)
			out_of_memory(t);
		else if (err)
			send_fault(t, &info, trap);
		break;
	case TRAP_EXCEPTION:
		memset(&info, 0, sizeof(info));
		arch_exception_signal(trap->vector, &t->regs, &info);
		send_fault(t, &info, trap);
		break;
	case TRAP_KICK:
	case TRAP_CALL:
		break;
	}
}

/* From entering to leaving user code. 0 or -errno. */
static int run_user(struct task *t, struct trap *trap)
{
	const struct platform_type *pt = t->kernel->platform->type;
	int err;

	t->ctx->takes_calls = pt->ctx_answer;
	fast_enter(t);
	err = pt->ctx_run(t->ctx, t->mm->as, &t->regs, trap);
	fast_leave(t);
	return err;
}

/*
 * The program waits in a call, and its registers with it. True: it can go on with fast.result.
 * False: they are wanted, for the call, or if it is @made, for a signal or the like after it.
 */
static bool make_call(struct task *t, const struct trap *trap, bool *made)
{
	enum fast_call what = fast_call_begin(t, trap);

	if (what == FAST_CALL_TRAP)
		return false;
	if (what == FAST_CALL_MAKE) {
		t->fast.result = syscall_make(t, trap->nr, trap->args);
		t->syscall_nr = -1;
		t->fast.nr = (uint64_t)trap->nr;
		t->fast.result_pending = true;
	}
	*made = true;
	return !freezer_active() && fast_may_answer(t, t->fast.result);
}

/* One trip into user code, over all calls that it can make on the way, and what it leads to. */
static void run_once(struct task *t)
{
	const struct platform_type *pt = t->kernel->platform->type;
	struct trap trap = {.kind = TRAP_KICK};
	bool made = false;
	int err = 0;

	for (;;) {
		/* A signal that comes before in_user is seen in the hint; one after it kicks. */
		atomic_fetch_add(&t->user_seq, 1);
		atomic_store(&t->in_user, true);
		if (atomic_load(&t->sigpending_hint))
			break;
		if (made) {
			pt->ctx_answer(t->ctx, t->fast.result);
			t->fast.result_pending = made = false;
		}
		err = run_user(t, &trap);
		if (err || trap.kind != TRAP_CALL)
			break;
		atomic_store(&t->in_user, false);
		if (!make_call(t, &trap, &made))
			break;
	}
	/* The call's registers. */
	if (!err && trap.kind == TRAP_CALL)
		err = run_user(t, &trap);
	atomic_store(&t->in_user, false);
	if (err) {
		log_error("%s platform can't run process %d (%s): %s; killed", pt->name,
			  pid_nr(t->tg->pid, t->kernel->root_pid_ns), t->comm, strerror(-err));
		task_exit_group(t, SIGKILL);
		return;
	}
	if (t->mm->sites && fast_fixup(t, &trap))
		/* Dealt with. */;
	else if (made)
		fast_call_finish(t);
	else
		handle_trap(t, &trap);
	if (atomic_load_explicit(&t->mm->oom, memory_order_relaxed))
		out_of_memory(t);
}

/* ---- host threads ---- */

/*
 * A host thread whose task has ended waits a while for the next task: waking one costs a fraction
 * of making one. Its record is on its own stack, and in the list while it may be taken.
 */
struct parked {
	struct parked *next;
	struct task *task;	 /* what it is to go on with */
	_Atomic uint32_t wakeup; /* futex: 1 once task is there */
};

#define PARKED_MAX 16
#define PARKED_NS  2000000000L

static struct {
	pthread_mutex_t lock;
	struct parked *first;
	unsigned int n;
} parked = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Takes @me out of the list; false: somebody was faster and has given it a task. */
static bool parked_remove(struct parked *me)
{
	struct parked **p;
	bool found;

	pthread_mutex_lock(&parked.lock);
	for (p = &parked.first; *p && *p != me; p = &(*p)->next)
		;
	found = *p;
	if (found) {
		*p = me->next;
		parked.n--;
	}
	pthread_mutex_unlock(&parked.lock);
	return found;
}

/* The next task for this thread, or NULL when none came. */
static struct task *next_task(const struct platform_type *pt)
{
	static const struct timespec patience = {.tv_nsec = PARKED_NS % 1000000000,
						 .tv_sec = PARKED_NS / 1000000000};
	struct parked me = {.task = NULL};

	if (pt->thread_idle)
		pt->thread_idle();
	pthread_mutex_lock(&parked.lock);
	if (parked.n == PARKED_MAX) {
		pthread_mutex_unlock(&parked.lock);
		return NULL;
	}
	me.next = parked.first;
	parked.first = &me;
	parked.n++;
	pthread_mutex_unlock(&parked.lock);
	while (!atomic_load(&me.wakeup)) {
		if (host_futex_wait(&me.wakeup, 0, &patience) == -ETIMEDOUT && parked_remove(&me))
			return NULL;
	}
	return me.task;
}

/*
 * Gives @t to a parked thread; false: there is none. It stays on the CPU where it is, and its last
 * stub thread with it: moving them each time costs more than what is gained by being near.
 */
static bool start_parked(struct task *t)
{
	struct parked *p;

	pthread_mutex_lock(&parked.lock);
	p = parked.first;
	if (p) {
		parked.first = p->next;
		parked.n--;
	}
	pthread_mutex_unlock(&parked.lock);
	if (!p)
		return false;
	p->task = t;
	atomic_store(&p->wakeup, 1);
	host_futex_wake(&p->wakeup, 1);
	return true;
}

bool (*task_last_exit)(struct task *t);

bool task_vfork_wait(struct task *t)
{
	for (;;) {
		task_block_prepare(t);
		if (atomic_load(&t->vfork_child->vfork_done) || atomic_load(&t->killed))
			break;
		if (task_block_killable(t) && freezer_active())
			return false;
	}
	task_put(t->vfork_child);
	t->vfork_child = NULL;
	return true;
}

/* Others may look at the context now, and another host thread may be the next to run it. */
static void leave_context(struct task *t)
{
	const struct platform_type *pt = t->kernel->platform->type;

	if (pt->ctx_leave)
		pt->ctx_leave(t->ctx);
}

/* Parks at the safe point. True: discarded. */
static bool park(struct task *t)
{
	leave_context(t);
	return freezer_park(t);
}

/* Is @t's end that of the sandbox's request, which sets all back? Then it is discarded, too. */
static bool is_last_exit(struct task *t, bool again)
{
	if (!task_last_exit || !task_last_exit(t))
		return false;
	if (!again)
		leave_context(t);
	return true;
}

/* A futex: 1 while no user code runs. */
static _Atomic uint32_t barred;

void tasks_bar(bool bar)
{
	atomic_store(&barred, bar);
	if (!bar)
		host_futex_wake(&barred, HOST_FUTEX_ALL);
}

static void wait_unbarred(struct task *t)
{
	const struct platform_type *pt = t->kernel->platform->type;

	if (pt->ctx_prepare)
		pt->ctx_prepare(t->ctx, t->mm->as);
	while (atomic_load(&barred))
		host_futex_wait(&barred, 1, NULL);
}

/* @again: if it is discarded, it will be resumed here or by this thread. */
static void run_task(struct task *t, bool again)
{
	struct kernel *k = t->kernel;
	const struct platform_type *pt = k->platform->type;
	bool discarded = false;
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	t->host_ns = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	t->host_tid = gettid();
	atomic_store(&t->state, TASK_RUNNING);
	if (unlikely(atomic_load(&barred)))
		wait_unbarred(t);
	while (!discarded) {
		if (freezer_active() && park(t))
			discarded = true;
		else if (t->vfork_child && !task_vfork_wait(t))
			continue;
		else if (signal_deliver(t))
			run_once(t);
		else if (is_last_exit(t, again))
			discarded = true;
		else
			break;
	}
	if (discarded) {
		if (pt->ctx_rest)
			pt->ctx_rest(t->ctx);
	} else {
		/* A reset may bring back a task that has ended, for another host thread to run. */
		if (task_last_exit)
			leave_context(t);
		task_exit(t);
		kernel_thread_ended(k);
	}
	freezer_task_ended();
}

void task_run_here(struct task *t)
{
	freezer_task_begins();
	run_task(t, true);
}

static void *task_thread(void *arg)
{
	struct task *t = arg;
	const struct platform_type *pt = t->kernel->platform->type;

	for (; t; t = next_task(pt))
		run_task(t, false);
	return NULL;
}

int task_start(struct task *t)
{
	if (kernel_fail_point("host thread"))
		return -EAGAIN;
	atomic_fetch_add(&t->kernel->nr_threads_running, 1);
	if (!task_resume(t))
		return 0;
	kernel_thread_ended(t->kernel);
	return -EAGAIN;
}

int task_resume(struct task *t)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	leave_context(t);
	freezer_task_begins();
	if (start_parked(t))
		return 0;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, TASK_STACK_SIZE);
	err = pthread_create(&thread, &attr, task_thread, t);
	pthread_attr_destroy(&attr);
	if (err)
		freezer_task_ended();
	return err ? -EAGAIN : 0;
}
