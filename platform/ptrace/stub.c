/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stub processes and their threads: binding to address spaces, handing threads to contexts, and the
 * pool. States and locks are in internal.h.
 *
 *   thread:  parked --seize--> attached --detach--> parked      (dead from either)
 *   process: pool --as_bind--> bound --as_destroy--> draining --last thread parks--> pool
 *                                ^                      |
 *                                +---- adopted (exec) --+
 *
 * A stub thread is parked by the host thread that traces it: when its context goes on to another
 * address space, when the context is destroyed by that thread, or at the end of that thread.
 */
#include "platform/ptrace/internal.h"

#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"

/* What this host thread traces, the warden's leaders aside. */
static __thread struct list_head own_threads;
static __thread pid_t own_tid;

static struct list_head *own_list(void)
{
	if (!own_threads.next)
		list_init(&own_threads);
	return &own_threads;
}

static pid_t own_id(void)
{
	if (!own_tid)
		own_tid = gettid();
	return own_tid;
}

struct stub_thread *stub_thread_find_own(const struct stub_proc *proc)
{
	struct stub_thread *th;

	list_for_each_entry (th, own_list(), node) {
		if (th->proc == proc && !th->dead)
			return th;
	}
	return NULL;
}

void stub_proc_release(struct ptrace_platform *p, struct stub_proc *proc)
{
	struct warden_request kill_req = {.op = WARDEN_KILL, .proc = proc};
	bool keep;

	stub_proc_forget(proc);
	mutex_lock_nested(&p->lock);
	list_del(&proc->node);
	keep = !atomic_load(&proc->dead) && p->nr_pool < POOL_SIZE;
	if (keep) {
		list_add(&proc->node, &p->pool);
		p->nr_pool++;
	}
	mutex_unlock(&p->lock);
	if (!keep)
		warden_call(p, &kill_req);
}

/* as->lock held. Lets go of a process that died. */
static void as_unbind_dead_locked(struct ptrace_as *as)
{
	struct ptrace_platform *p = to_platform(as->base.platform);
	struct stub_proc *proc = as->proc;
	bool last;

	as->proc = NULL;
	mutex_lock_nested(&p->lock);
	atomic_store(&proc->as, NULL);
	last = !proc->nr_attached;
	mutex_unlock(&p->lock);
	if (last)
		stub_proc_release(p, proc);
}

int as_bind_locked(struct ptrace_as *as)
{
	struct ptrace_platform *p = to_platform(as->base.platform);
	struct warden_request req = {.op = WARDEN_NEW_PROC};
	struct stub_proc *proc = NULL;
	long err;

	if (as->proc && !atomic_load(&as->proc->dead))
		return 0;
	if (as->proc)
		as_unbind_dead_locked(as);
	mutex_lock_nested(&p->lock);
	if (!list_empty(&p->pool)) {
		proc = list_first_entry(&p->pool, struct stub_proc, node);
		list_del(&proc->node);
		p->nr_pool--;
		atomic_fetch_add_explicit(&p->nr_reused, 1, memory_order_relaxed);
	}
	mutex_unlock(&p->lock);
	if (!proc) {
		err = warden_call(p, &req);
		if (err)
			return (int)err;
		proc = req.proc;
		stub_proc_forget(proc);
	}
	mutex_lock_nested(&p->lock);
	list_add(&proc->node, &p->procs);
	atomic_store(&proc->as, as);
	mutex_unlock(&p->lock);
	as->proc = proc;
	return 0;
}

/* A parked thread of the bound process, counted as attached. as->lock held. ERR_PTR. */
static struct stub_thread *thread_take_locked(struct ptrace_as *as)
{
	struct ptrace_platform *p = to_platform(as->base.platform);
	struct stub_proc *proc = as->proc;
	struct warden_request req = {.op = WARDEN_SPAWN, .proc = proc};
	struct stub_thread *th = NULL;
	bool second;
	long err;

	for (;;) {
		mutex_lock_nested(&p->lock);
		if (!list_empty(&proc->parked)) {
			th = list_first_entry(&proc->parked, struct stub_thread, node);
			list_del(&th->node);
			proc->nr_attached++;
			p->nr_attached++;
		}
		second = th && p->nr_attached == 2;
		mutex_unlock(&p->lock);
		if (second)
			warden_wake(p);
		if (th)
			return th;
		err = warden_call(p, &req);
		if (err) {
			if (err == -ESRCH)
				atomic_store(&proc->dead, true);
			return ERR_PTR(err);
		}
	}
}

/* @th, of this host thread, is detached (or dead): gives up its place in the process. */
static void thread_leave(struct stub_thread *th)
{
	struct ptrace_platform *p = th->p;
	struct stub_proc *proc = th->proc;
	bool last;

	mutex_lock(&p->lock);
	list_del(&th->node);
	if (th->ctx)
		th->ctx->thread = NULL;
	th->ctx = NULL;
	th->tracer = 0;
	if (!th->dead)
		list_add(&th->node, &proc->parked);
	proc->nr_attached--;
	p->nr_attached--;
	last = !proc->nr_attached && !atomic_load(&proc->as);
	mutex_unlock(&p->lock);
	if (th->dead)
		kfree(th);
	if (last)
		stub_proc_release(p, proc);
}

void stub_thread_died(struct stub_thread *th)
{
	pid_t got;
	int status;

	th->dead = true;
	atomic_store(&th->proc->dead, true);
	/* All of it goes; the leader can't be collected before its threads have been. */
	kill(th->proc->pid, SIGKILL);
	do {
		got = waitpid(th->tid, &status, __WALL);
	} while ((got < 0 && errno == EINTR) || (got > 0 && WIFSTOPPED(status)));
}

/* Detaches @th, which is stopped, into the park loop. */
static void thread_park(struct stub_thread *th)
{
	struct arch_regs regs;

	if (!th->dead) {
		stub_regs_park(&regs);
		if (stub_set_regs(th->tid, &regs, true) ||
		    ptrace(PTRACE_DETACH, th->tid, NULL, NULL))
			stub_thread_died(th);
	}
	thread_leave(th);
}

/* No ctx_kick uses the stub thread's id any more. */
static void kickers_wait(struct ptrace_context *ctx)
{
	atomic_store(&ctx->target, 0);
	while (atomic_load(&ctx->kickers))
		sched_yield();
}

void context_detach(struct ptrace_context *ctx)
{
	struct ptrace_platform *p = to_platform(ctx->base.platform);
	struct stub_thread *th = ctx->thread;
	size_t size = p->fpu_size;

	if (!th->dead && !ctx->fpu_valid && stub_get_fpu(th->tid, ctx->fpu, &size))
		stub_thread_died(th);
	ctx->fpu_valid = true;
	kickers_wait(ctx);
	thread_park(th);
}

void context_abandon(struct ptrace_context *ctx)
{
	struct ptrace_platform *p = to_platform(ctx->base.platform);
	struct stub_thread *th;
	bool own;

	kickers_wait(ctx);
	mutex_lock(&p->lock);
	th = ctx->thread;
	own = th && th->tracer == own_id();
	if (th && !own)
		th->ctx = NULL;
	mutex_unlock(&p->lock);
	if (own) {
		thread_park(th);
		place_leave(ctx);
	}
	ctx->thread = NULL;
}

void stub_threads_park_all(void *unused)
{
	struct stub_thread *th, *tmp;

	list_for_each_entry_safe (th, tmp, own_list(), node) {
		thread_park(th);
	}
}

/*
 * After exec the old address space is gone and this context is the only one in its process: the
 * process becomes the new one's, without a hand-over. as->lock held.
 */
static bool adopt_locked(struct ptrace_context *ctx, struct ptrace_as *as)
{
	struct ptrace_platform *p = to_platform(ctx->base.platform);
	struct stub_thread *th = ctx->thread;
	struct stub_proc *proc = th->proc;
	bool ok;

	if (as->proc || th->dead || atomic_load(&proc->dead))
		return false;
	mutex_lock_nested(&p->lock);
	ok = !atomic_load(&proc->as) && proc->nr_attached == 1;
	if (ok)
		atomic_store(&proc->as, as);
	mutex_unlock(&p->lock);
	if (!ok)
		return false;
	as->proc = proc;
	stub_proc_forget(proc);
	return true;
}

/* Seizes @th for @ctx. 0, or -errno with @th given up. */
static int thread_attach(struct stub_thread *th, struct ptrace_context *ctx)
{
	struct ptrace_platform *p = th->p;
	int err;

	/* First of all, so that stopping it is a switch on this CPU already. */
	place_context(ctx, th->tid);
	err = stub_seize(th->tid);
	mutex_lock(&p->lock);
	list_add(&th->node, own_list());
	th->tracer = own_id();
	if (!err) {
		th->ctx = ctx;
		ctx->thread = th;
	}
	mutex_unlock(&p->lock);
	if (err) {
		stub_thread_died(th);
		thread_leave(th);
		return err;
	}
	/* Any value but NULL: it makes the destructor run. */
	pthread_setspecific(p->exit_key, p);
	ctx->regs_dirty = ctx->bases_dirty = ctx->fpu_dirty = true;
	return 0;
}

int context_attach(struct ptrace_context *ctx, struct ptrace_as *as)
{
	struct stub_thread *th = ctx->thread;
	unsigned int tries;
	int err = 0;

	/* A context belongs to one host thread. */
	if (th && th->tracer != own_id())
		return -EINVAL;
	if (th) {
		bool adopted;

		mutex_lock(&as->lock);
		adopted = adopt_locked(ctx, as);
		mutex_unlock(&as->lock);
		if (adopted)
			return 0;
		context_detach(ctx);
	}
	/* A process from the pool may have been killed from outside unnoticed. */
	for (tries = 0; tries <= POOL_SIZE; tries++) {
		mutex_lock(&as->lock);
		err = as_bind_locked(as);
		if (!err) {
			th = thread_take_locked(as);
			err = PTR_ERR_OR_ZERO(th);
		}
		mutex_unlock(&as->lock);
		if (!err)
			err = thread_attach(th, ctx);
		if (err != -ESRCH)
			break;
	}
	if (err) {
		log_debug("ptrace: no stub thread: %s", strerror(-err));
		place_leave(ctx);
	}
	return err;
}
