/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stub processes: binding to address spaces, handing threads to contexts, and the pool. States and
 * locks are in stub.h.
 */
#include "platform/stub/stub.h"

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"

void stub_proc_release(struct stub_platform *p, struct stub_proc *proc)
{
	bool keep;

	mutex_lock_nested(&p->lock);
	list_del(&proc->node);
	keep = !atomic_load(&proc->dead) && p->nr_pool < POOL_SIZE;
	if (keep) {
		list_add(&proc->node, &p->pool);
		p->nr_pool++;
	}
	mutex_unlock(&p->lock);
	if (!keep)
		p->ops->proc_end(p, proc);
}

/* as->lock held. Lets go of a process that died. */
static void unbind_dead_locked(struct stub_space *as)
{
	struct stub_platform *p = to_stub_platform(as->base.platform);
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

int stub_bind_locked(struct stub_space *as)
{
	struct stub_platform *p = to_stub_platform(as->base.platform);
	struct stub_proc *proc = NULL;
	int err;

	if (as->proc && !atomic_load(&as->proc->dead))
		return 0;
	if (as->proc)
		unbind_dead_locked(as);
	mutex_lock_nested(&p->lock);
	if (!list_empty(&p->pool)) {
		proc = list_first_entry(&p->pool, struct stub_proc, node);
		list_del(&proc->node);
		p->nr_pool--;
		atomic_fetch_add_explicit(&p->nr_reused, 1, memory_order_relaxed);
	}
	mutex_unlock(&p->lock);
	if (!proc) {
		err = p->ops->proc_new(p, &proc);
		if (err)
			return err;
	}
	mutex_lock_nested(&p->lock);
	list_add(&proc->node, &p->procs);
	atomic_store(&proc->as, as);
	mutex_unlock(&p->lock);
	as->proc = proc;
	stub_mapped_match(as);
	return 0;
}

struct stub_thread *stub_thread_take_locked(struct stub_space *as)
{
	struct stub_platform *p = to_stub_platform(as->base.platform);
	struct stub_proc *proc = as->proc;
	struct stub_thread *th = NULL;
	bool second;
	int err;

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
		if (second && p->ops->crowd)
			p->ops->crowd(p);
		if (th)
			return th;
		err = p->ops->thread_new(p, proc);
		if (err) {
			if (err == -ESRCH)
				atomic_store(&proc->dead, true);
			return ERR_PTR(err);
		}
	}
}

void stub_thread_leave(struct stub_thread *th)
{
	struct stub_platform *p = th->p;
	struct stub_proc *proc = th->proc;
	bool dead = th->dead, last;

	mutex_lock(&p->lock);
	list_del(&th->node);
	if (th->ctx)
		th->ctx->thread = NULL;
	th->ctx = NULL;
	th->driver = 0;
	if (!dead)
		list_add(&th->node, &proc->parked);
	proc->nr_attached--;
	p->nr_attached--;
	last = !proc->nr_attached && !atomic_load(&proc->as);
	mutex_unlock(&p->lock);
	/* Else it is no longer ours to look at. */
	if (dead)
		kfree(th);
	if (last)
		stub_proc_release(p, proc);
}

bool stub_adopt_locked(struct stub_context *ctx, struct stub_space *as)
{
	struct stub_platform *p = to_stub_platform(ctx->base.platform);
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
	stub_mapped_match(as);
	return true;
}
