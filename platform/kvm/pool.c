/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has which vCPU (the state machine is in internal.h).
 *
 * A context keeps its vCPU while it can. When there are no free ones and no more can be made, an
 * idle context loses its own: the thief moves the state to memory and the owner finds out by its
 * failing compare-and-swap. When all are running, contexts queue up; each vCPU that leaves the
 * guest is handed to the first in line, and one is called back when nothing has moved for
 * WAIT_SLICE_NS.
 */
#include "platform/kvm/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/clock.h"
#include "sentry/lib/hostfutex.h"
#include "sentry/lib/log.h"

#define WAIT_SLICE_NS 5000000
#define FREE_SEARCH   16 /* free vCPUs looked at for one that this thread ran before */

struct pool_waiter {
	struct list_head node;
	struct kvm_context *ctx;
	struct vcpu *v; /* granted, BUSY */
};

void pool_init(struct kvm_platform *p)
{
	mutex_init(&p->pool_lock, LOCK_PLATFORM);
	list_init(&p->free);
	list_init(&p->waiters);
}

static bool take_idle(struct vcpu *v, struct kvm_context *ctx)
{
	uintptr_t idle = (uintptr_t)ctx;

	return atomic_compare_exchange_strong(&v->owner, &idle, idle | VCPU_BUSY);
}

static void give(struct vcpu *v, struct kvm_context *ctx)
{
	if (atomic_load(&to_kvm(ctx->base.platform)->nr_waiters))
		atomic_store(&v->since, monotonic_ns());
	atomic_store(&v->owner, (uintptr_t)ctx | VCPU_BUSY);
	atomic_store(&ctx->vcpu, v->index);
}

/* @v is BUSY for its context or for nobody any more: the first in line gets it, or it is free. */
static void pass_on_locked(struct kvm_platform *p, struct vcpu *v)
{
	struct pool_waiter *w;

	atomic_store(&v->give_up, false);
	if (list_empty(&p->waiters)) {
		atomic_store(&v->owner, 0);
		list_add(&v->free_node, &p->free);
		return;
	}
	w = list_first_entry(&p->waiters, struct pool_waiter, node);
	list_del(&w->node);
	atomic_fetch_sub(&p->nr_waiters, 1);
	give(v, w->ctx);
	w->v = v;
	atomic_fetch_add(&w->ctx->wait_word, 1);
	host_futex_wake(&w->ctx->wait_word, 1);
}

/* Takes @v (BUSY) away from @victim, with its state safe in memory. */
static int detach(struct vcpu *v, struct kvm_context *victim)
{
	int err = vcpu_save(v, victim);

	if (err) {
		log_error("vCPU %d: can't save its state: %s", v->index, strerror(-err));
		return err;
	}
	victim->fpu_cpu = victim->bases_cpu = false;
	atomic_store(&victim->vcpu, -1);
	return 0;
}

static struct vcpu *take_free_locked(struct kvm_platform *p)
{
	pid_t self = (pid_t)syscall(SYS_gettid);
	struct vcpu *v, *found = NULL;
	int n = 0;

	/* Older kernels take milliseconds to move a vCPU to another thread. */
	list_for_each_entry (v, &p->free, free_node) {
		if (!found || atomic_load(&v->tid) == self)
			found = v;
		if (atomic_load(&found->tid) == self || ++n == FREE_SEARCH)
			break;
	}
	if (found)
		list_del(&found->free_node);
	return found;
}

static struct vcpu *steal_locked(struct kvm_platform *p)
{
	unsigned int n = atomic_load(&kvm_vm.nr_vcpus);

	for (unsigned int i = 0; i < n; i++) {
		struct vcpu *v = &kvm_vm.vcpus[p->hand++ % n];
		uintptr_t owner = atomic_load(&v->owner);
		struct kvm_context *victim = (struct kvm_context *)owner;

		if (!owner || owner & VCPU_BUSY || !take_idle(v, victim))
			continue;
		if (!detach(v, victim))
			return v;
		atomic_store(&v->owner, owner);
	}
	return NULL;
}

static int find_locked(struct kvm_platform *p, struct vcpu **out)
{
	int err;

	*out = take_free_locked(p);
	if (*out)
		return 0;
	err = vcpu_new(out);
	if (err != -EAGAIN)
		return err;
	*out = steal_locked(p);
	return *out ? 0 : -EAGAIN;
}

/*
 * Nothing moves: calls back one that has had its slice. The others may not have begun yet, where
 * moving a vCPU takes longer than a slice (pool_settle), and would never get to.
 */
static void hurry_locked(struct kvm_platform *p)
{
	unsigned int n = atomic_load(&kvm_vm.nr_vcpus);
	uint64_t now = monotonic_ns();

	for (unsigned int i = 0; i < n; i++) {
		struct vcpu *v = &kvm_vm.vcpus[p->hand++ % n];

		/* Its holder may have settled since we looked at the clock. */
		if ((int64_t)(now - atomic_load(&v->since)) < WAIT_SLICE_NS)
			continue;
		atomic_store(&v->give_up, true);
		vcpu_interrupt(v);
		return;
	}
}

/* Queues up. 0 with w->v granted, or -EINTR when kicked. */
static int wait_in_line(struct kvm_platform *p, struct kvm_context *ctx, struct pool_waiter *w)
{
	static const struct timespec slice = {.tv_nsec = WAIT_SLICE_NS};
	struct vcpu *v;
	int err = 0;

	w->ctx = ctx;
	w->v = NULL;
	list_add_tail(&w->node, &p->waiters);
	atomic_store(&ctx->waiting, true);
	atomic_fetch_add(&p->nr_waiters, 1);
	/* One that went idle before it could see us. */
	v = steal_locked(p);
	if (v)
		pass_on_locked(p, v);
	while (!w->v) {
		uint32_t word = atomic_load(&ctx->wait_word);

		if (atomic_load(&ctx->kicked)) {
			list_del(&w->node);
			atomic_fetch_sub(&p->nr_waiters, 1);
			err = -EINTR;
			break;
		}
		mutex_unlock(&p->pool_lock);
		err = host_futex_wait(&ctx->wait_word, word, &slice);
		mutex_lock(&p->pool_lock);
		if (!w->v && err == -ETIMEDOUT)
			hurry_locked(p);
		err = 0;
	}
	atomic_store(&ctx->waiting, false);
	return err;
}

int pool_acquire(struct kvm_context *ctx, struct vcpu **out)
{
	struct kvm_platform *p = to_kvm(ctx->base.platform);
	int index = atomic_load(&ctx->vcpu), err;
	struct pool_waiter w;
	struct vcpu *v = NULL;

	if (likely(index >= 0)) {
		v = &kvm_vm.vcpus[index];
		if (likely(take_idle(v, ctx)))
			goto out_load;
	}
	err = kvm_vm_wait();
	if (err)
		return err;
	mutex_lock(&p->pool_lock);
	index = atomic_load(&ctx->vcpu);
	if (index >= 0) {
		/* Under the lock no thief is at work. */
		v = &kvm_vm.vcpus[index];
		BUG_ON(!take_idle(v, ctx));
		mutex_unlock(&p->pool_lock);
		goto out_load;
	}
	/* First come, first served. */
	err = list_empty(&p->waiters) ? find_locked(p, &v) : -EAGAIN;
	if (!err) {
		give(v, ctx);
	} else if (err == -EAGAIN) {
		err = wait_in_line(p, ctx, &w);
		v = w.v;
	}
	mutex_unlock(&p->pool_lock);
	if (err)
		return err;
	vcpu_count(v, VSTAT_BINDS, 1);
	err = vcpu_adopt(v, ctx);
	if (err)
		goto out_release;
out_load:
	err = vcpu_load(v, ctx);
	if (err)
		goto out_release;
	*out = v;
	return 0;

out_release:
	log_error("vCPU %d: can't load its state: %s", v->index, strerror(-err));
	pool_release(ctx, v);
	return err;
}

void pool_release(struct kvm_context *ctx, struct vcpu *v)
{
	struct kvm_platform *p = to_kvm(ctx->base.platform);

	atomic_store(&v->owner, (uintptr_t)ctx);
	if (likely(!atomic_load(&p->nr_waiters)))
		return;
	mutex_lock(&p->pool_lock);
	if (!list_empty(&p->waiters) && atomic_load(&ctx->vcpu) == v->index && take_idle(v, ctx)) {
		if (detach(v, ctx))
			atomic_store(&v->owner, (uintptr_t)ctx);
		else
			pass_on_locked(p, v);
	}
	mutex_unlock(&p->pool_lock);
}

struct vcpu *pool_hold(struct kvm_context *ctx)
{
	struct kvm_platform *p = to_kvm(ctx->base.platform);
	int index = atomic_load(&ctx->vcpu);

	if (index < 0)
		return NULL;
	if (take_idle(&kvm_vm.vcpus[index], ctx))
		return &kvm_vm.vcpus[index];
	/* A thief is saving our state: wait until it is in memory. */
	mutex_lock(&p->pool_lock);
	index = atomic_load(&ctx->vcpu);
	BUG_ON(index >= 0 && !take_idle(&kvm_vm.vcpus[index], ctx));
	mutex_unlock(&p->pool_lock);
	return index < 0 ? NULL : &kvm_vm.vcpus[index];
}

void pool_settle(struct kvm_platform *p, struct vcpu *v, pid_t self)
{
	pid_t before = atomic_exchange(&v->tid, self);

	if (!before || !atomic_load(&p->nr_waiters))
		return;
	/* The move happens in KVM_RUN, which then comes back at once. */
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	(void)!ioctl(v->fd, KVM_RUN, 0);
	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	atomic_store(&v->since, monotonic_ns());
}

void pool_unbind(struct kvm_context *ctx)
{
	struct kvm_platform *p = to_kvm(ctx->base.platform);
	int index;

	mutex_lock(&p->pool_lock);
	index = atomic_load(&ctx->vcpu);
	if (index >= 0) {
		atomic_store(&ctx->vcpu, -1);
		pass_on_locked(p, &kvm_vm.vcpus[index]);
	}
	mutex_unlock(&p->pool_lock);
}

void pool_hand_over(struct kvm_context *from, struct kvm_context *to)
{
	struct kvm_platform *p = to_kvm(from->base.platform);
	struct vcpu *v;
	int index;

	mutex_lock(&p->pool_lock);
	index = atomic_load(&from->vcpu);
	v = index >= 0 ? &kvm_vm.vcpus[index] : NULL;
	if (v && take_idle(v, from)) {
		if (detach(v, from)) {
			atomic_store(&v->owner, (uintptr_t)from);
		} else if (vcpu_adopt(v, to)) {
			pass_on_locked(p, v);
		} else {
			atomic_store(&to->vcpu, v->index);
			atomic_store(&v->owner, (uintptr_t)to);
		}
	}
	mutex_unlock(&p->pool_lock);
}
