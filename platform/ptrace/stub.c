/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stub threads, and handing them to contexts. States and locks are in platform/stub/stub.h.
 *
 *   thread:  parked --seize--> attached --detach--> parked      (dead from either)
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
	stub_thread_leave(th);
}

void context_detach(struct ptrace_context *ctx)
{
	struct ptrace_platform *p = to_platform(ctx->stub.base.platform);
	struct stub_thread *th = ctx->stub.thread;
	size_t size = p->fpu_size;

	if (!th->dead && !ctx->fpu_valid && stub_get_fpu(th->tid, ctx->fpu, &size))
		stub_thread_died(th);
	ctx->fpu_valid = true;
	stub_context_quiet(&ctx->stub);
	thread_park(th);
}

void context_abandon(struct ptrace_context *ctx)
{
	struct ptrace_platform *p = to_platform(ctx->stub.base.platform);
	struct stub_thread *th;
	bool own;

	stub_context_quiet(&ctx->stub);
	mutex_lock(&p->stub.lock);
	th = ctx->stub.thread;
	own = th && th->driver == own_id();
	if (th && !own)
		th->ctx = NULL;
	mutex_unlock(&p->stub.lock);
	if (own) {
		thread_park(th);
		place_leave(&ctx->stub);
	}
	ctx->stub.thread = NULL;
}

void stub_threads_park_all(void *unused)
{
	struct stub_thread *th, *tmp;

	list_for_each_entry_safe (th, tmp, own_list(), node) {
		thread_park(th);
	}
}

/* Seizes @th for @ctx. 0, or -errno with @th given up. */
static int thread_attach(struct stub_thread *th, struct ptrace_context *ctx)
{
	struct ptrace_platform *p = ptrace_of(th->p);
	int err;

	/* First of all, so that stopping it is a switch on this CPU already. */
	place_context(&ctx->stub, th->tid);
	err = stub_seize(th->tid);
	mutex_lock(&p->stub.lock);
	list_add(&th->node, own_list());
	th->driver = own_id();
	if (!err) {
		th->ctx = &ctx->stub;
		ctx->stub.thread = th;
	}
	mutex_unlock(&p->stub.lock);
	if (err) {
		stub_thread_died(th);
		stub_thread_leave(th);
		return err;
	}
	/* Any value but NULL: it makes the destructor run. */
	pthread_setspecific(p->exit_key, p);
	ctx->regs_dirty = ctx->bases_dirty = ctx->fpu_dirty = true;
	return 0;
}

int context_attach(struct ptrace_context *ctx, struct stub_space *as)
{
	struct stub_thread *th = ctx->stub.thread;
	unsigned int tries;
	int err = 0;

	/* A context belongs to one host thread. */
	if (th && th->driver != own_id())
		return -EINVAL;
	if (th) {
		bool adopted;

		mutex_lock(&as->lock);
		adopted = stub_adopt_locked(&ctx->stub, as);
		mutex_unlock(&as->lock);
		if (adopted)
			return 0;
		context_detach(ctx);
	}
	/* A process from the pool may have been killed from outside unnoticed. */
	for (tries = 0; tries <= POOL_SIZE; tries++) {
		mutex_lock(&as->lock);
		err = stub_bind_locked(as);
		if (!err) {
			th = stub_thread_take_locked(as);
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
		place_leave(&ctx->stub);
	}
	return err;
}
