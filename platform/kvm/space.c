/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address spaces, and how a changed page-table entry reaches every vCPU.
 *
 * as_invalidate is called with the new entries already stored. Three things must follow before any
 * vCPU runs user code there again:
 *   (a) where KVM shadows page tables, ring 0 of some vCPU must store to them: `work`, kept in
 *	 as->ops until a vCPU on its way in takes it along (as->drainer until ring 0 reports done);
 *   (b) each vCPU must drop its own translations: as->gen counts invalidations, vcpu->gen is what a
 *	 vCPU has caught up with, and one that lags reloads CR3 (or drops the single pages of the
 *	 work it takes, if that is all it missed);
 *   (c) vCPUs that are running user code now must come out: they are interrupted and waited for.
 * So with one thread nothing happens until its next entry, which does (a) and (b) before its iretq.
 *
 * Entry and invalidation meet without a lock (both sides sequentially consistent):
 *	enter:	    in_guest = as; if (as->gen != mine) step back
 *	invalidate: as->gen++;	   for all vCPUs: if (in_guest == as) interrupt, wait
 */
#include "platform/kvm/internal.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/hostfutex.h"
#include "sentry/lib/log.h"

#define ENTRIES_EACH	8    /* changed entries of one table that are stored one by one */
#define ENTRIES_UNKNOWN 32   /* the same while it is unknown what else would do */
#define OPS_UNKNOWN	64   /* pending entries from which on it is worth while to find that out */
#define DIRTY_UNKNOWN	64   /* the same for freed tables, which can't be used again till then */
#define OPS_CAP		4096 /* pending; beyond it every table is done over */
#define RECYCLE_EACH	32   /* freed tables that ride along with other work */

struct address_space *kvm_as_create(struct platform *p, struct pagetable *pt)
{
	struct kvm_address_space *as = hzalloc(sizeof(*as));
	uint64_t *root = phys_ptr(pt->root);

	if (!as)
		return ERR_PTR(-ENOMEM);
	as->base.platform = p;
	as->pt = pt;
	as->id = atomic_fetch_add(&to_kvm(p)->next_as_id, 1) + 1;
	as->gen = 1;
	mutex_init(&as->lock, LOCK_PLATFORM);
	pte_write(&root[TRAMP_ROOT_SLOT], KERNEL_ROOT_ENTRY);
	return &as->base;
}

/* vCPUs may still hold the root in CR3: tables.c does not reuse it until they moved on. */
void kvm_as_destroy(struct address_space *base)
{
	struct kvm_address_space *as = to_kvm_as(base);

	mutex_fini(&as->lock);
	kfree(as->ops);
	kfree(as);
}

static void update_has_work(struct kvm_address_space *as)
{
	atomic_store(&as->has_work, as->nr_ops || as->all || as->drainer);
}

static enum mmu_kind as_mmu(struct kvm_address_space *as)
{
	return as->forced ? as->forced : atomic_load(&to_kvm(as->base.platform)->mmu);
}

bool space_wants_kind(struct kvm_address_space *as)
{
	struct kvm_platform *p = to_kvm(as->base.platform);

	return atomic_load_explicit(&p->mmu, memory_order_relaxed) == MMU_UNKNOWN && !as->forced &&
	       (atomic_load(&as->wants_kind) || atomic_load(&p->nr_dirty) >= DIRTY_UNKNOWN) &&
	       !atomic_load(&p->finding_mmu);
}

/* Instead of what is in the list, every table. */
static void give_up_list(struct kvm_address_space *as)
{
	as->all = true;
	as->all_next = 0;
	as->only_entries = false;
	as->has_tables = false;
	as->nr_ops = 0;
}

/* @va: the first address that it is about. */
static void push_op(struct kvm_address_space *as, gpa_t gpa, uaddr_t va)
{
	if (as->all) {
		/* Rounds that did the tables up to there were too early for this. */
		as->all_next = MIN(as->all_next, va);
		return;
	}
	if (as->nr_ops == as->cap_ops) {
		size_t cap = as->cap_ops ? as->cap_ops * 2 : 64;
		struct as_op *ops = NULL;

		if (cap <= OPS_CAP)
			ops = hrealloc(as->ops, cap * sizeof(*ops));
		if (!ops) {
			give_up_list(as);
			return;
		}
		as->ops = ops;
		as->cap_ops = cap;
	}
	as->ops[as->nr_ops++] = (struct as_op){gpa, va};
	as->has_tables |= gpa & OP_TABLE;
}

static void push_table(struct kvm_address_space *as, gpa_t table, uaddr_t va)
{
	size_t n = MIN(as->nr_ops, (size_t)8);

	as->only_entries = false;
	/* Neighbouring calls of one system call hit the same table. */
	for (size_t i = 1; i <= n; i++) {
		if (as->ops[as->nr_ops - i].gpa == (table | OP_TABLE))
			return;
	}
	push_op(as, table | OP_TABLE, va);
}

static void push_range(struct kvm_address_space *as, uaddr_t va, uaddr_t end)
{
	enum mmu_kind mmu = as_mmu(as);
	size_t each = mmu == MMU_UNKNOWN ? ENTRIES_UNKNOWN : ENTRIES_EACH;
	gpa_t table;

	while ((table = pt_next_table(as->pt, &va, end)) != GPA_NONE) {
		uaddr_t next = MIN(ALIGN_DOWN(va, PT_LEAF_SPAN) + PT_LEAF_SPAN, end);

		if (mmu == MMU_STORE || next - va <= each * PAGE_SIZE) {
			for (; va < next; va += PAGE_SIZE)
				push_op(as, table + (va >> PAGE_SHIFT) % PT_ENTRIES * 8, va);
		} else if (mmu == MMU_COHERENT) {
			as->only_entries = false;
		} else {
			push_table(as, table, va);
			if (mmu == MMU_UNKNOWN)
				atomic_store(&as->wants_kind, true);
		}
		va = next;
	}
	if (mmu == MMU_UNKNOWN && as->nr_ops >= OPS_UNKNOWN)
		atomic_store(&as->wants_kind, true);
}

/* ---- shootdown ---- */

static bool is_inside(struct vcpu *v, struct kvm_address_space *as, uint64_t gen)
{
	return atomic_load(&v->in_guest) == as && atomic_load(&v->entered_gen) < gen;
}

/* Returns when no vCPU runs user code of @as that it entered before @gen. as->lock held. */
static void shoot_down(struct kvm_address_space *as, uint64_t gen)
{
	unsigned int n = atomic_load(&kvm_vm.nr_vcpus);
	bool any = false;

	for (unsigned int i = 0; i < n; i++) {
		if (is_inside(&kvm_vm.vcpus[i], as, gen)) {
			any = true;
			break;
		}
	}
	if (!any)
		return;
	atomic_fetch_add_explicit(&to_kvm(as->base.platform)->shootdowns, 1, memory_order_relaxed);
	atomic_fetch_add(&as->watchers, 1);
	for (unsigned int i = 0; i < n; i++) {
		if (is_inside(&kvm_vm.vcpus[i], as, gen))
			vcpu_interrupt(&kvm_vm.vcpus[i]);
	}
	for (unsigned int i = 0; i < n; i++) {
		struct vcpu *v = &kvm_vm.vcpus[i];

		for (;;) {
			uint32_t left = atomic_load(&as->left);

			if (!is_inside(v, as, gen))
				break;
			host_futex_wait(&as->left, left, NULL);
		}
	}
	atomic_fetch_sub(&as->watchers, 1);
}

void kvm_as_invalidate(struct address_space *base, uaddr_t va, size_t len)
{
	struct kvm_address_space *as = to_kvm_as(base);
	uint64_t gen;

	if (!len)
		return;
	mutex_lock(&as->lock);
	gen = atomic_load(&as->gen);
	if (!as->nr_ops && !as->all && !as->drainer) {
		as->base_gen = gen;
		as->only_entries = true;
	}
	push_range(as, PAGE_ALIGN_DOWN(va), PAGE_ALIGN_UP(va + len));
	atomic_store(&as->gen, gen + 1);
	update_has_work(as);
	shoot_down(as, gen + 1);
	mutex_unlock(&as->lock);
	atomic_fetch_add_explicit(&to_kvm(base->platform)->invalidations, 1, memory_order_relaxed);
}

/* ---- entry ---- */

bool space_is_current(struct vcpu *v, struct kvm_address_space *as)
{
	return v->as == as && v->as_id == as->id && v->gen == atomic_load(&as->gen) &&
	       !atomic_load(&as->has_work) && !tables_pressing(to_kvm(as->base.platform));
}

/*
 * Turns "every table" back into a list, from the address where the last round stopped. What does
 * not fit stays for the next round.
 */
static size_t take_all(struct kvm_address_space *as, struct tramp_op *ops, size_t max, bool *tables)
{
	enum mmu_kind mmu = as_mmu(as);
	bool stores = mmu == MMU_STORE || mmu == MMU_UNKNOWN;
	size_t n = 0;
	gpa_t table;

	*tables = !stores;
	while (n < max) {
		table = pt_next_table(as->pt, &as->all_next, USER_TOP);
		if (table == GPA_NONE) {
			as->all = false;
			as->all_next = 0;
			break;
		}
		if (stores) {
			uaddr_t va = as->all_next;

			ops[n].addr = direct_va(table) + (va >> PAGE_SHIFT) % PT_ENTRIES * 8;
			ops[n++].va = va;
			as->all_next += PAGE_SIZE;
		} else {
			ops[n].addr = direct_va(table);
			ops[n++].va = as->all_next;
			as->all_next = ALIGN_DOWN(as->all_next, PT_LEAF_SPAN) + PT_LEAF_SPAN;
		}
	}
	return n;
}

static void take_work(struct vcpu *v, struct kvm_address_space *as)
{
	struct tramp_op *ops = v->priv->ops;
	size_t n = MIN(as->nr_ops, (size_t)TRAMP_OPS_MAX), first = as->nr_ops - n;

	v->nr_entries = v->nr_tables = 0;
	if (as->has_tables && (as_mmu(as) == MMU_STORE || as_mmu(as) == MMU_UNKNOWN))
		give_up_list(as);
	if (as->all) {
		bool tables;

		n = take_all(as, ops, TRAMP_OPS_MAX, &tables);
		*(tables ? &v->nr_tables : &v->nr_entries) = n;
		return;
	}
	for (size_t i = first; i < as->nr_ops; i++) {
		if (as->ops[i].gpa & OP_TABLE)
			continue;
		ops[v->nr_entries].addr = direct_va(as->ops[i].gpa);
		ops[v->nr_entries++].va = as->ops[i].va;
	}
	for (size_t i = first; i < as->nr_ops; i++) {
		if (!(as->ops[i].gpa & OP_TABLE))
			continue;
		ops[v->nr_entries + v->nr_tables].addr = direct_va(as->ops[i].gpa - OP_TABLE);
		ops[v->nr_entries + v->nr_tables++].va = as->ops[i].va;
	}
	as->nr_ops = first;
	as->has_tables &= first > 0;
}

/* Waits until no other vCPU has work of @as under way in its ring 0. */
static void wait_for_drainer(struct kvm_address_space *as)
{
	while (as->drainer) {
		if (space_drained(as->drainer)) {
			as->drainer = NULL;
			break;
		}
		/* It is a few instructions from done, or about to put the work back. */
		mutex_unlock(&as->lock);
		sched_yield();
		mutex_lock(&as->lock);
	}
}

void space_prepare(struct vcpu *v, struct kvm_address_space *as, bool *more)
{
	struct kvm_platform *p = to_kvm(as->base.platform);
	bool mine = v->as == as && v->as_id == as->id, lags, reload;
	size_t max;

	v->nr_done = 0;
	mutex_lock(&as->lock);
	wait_for_drainer(as);
	v->next_gen = atomic_load(&as->gen);
	lags = v->gen != v->next_gen;
	/* Dropping single pages will do if those in the list are all that @v missed. */
	if (lags && as->nr_ops && as->only_entries && v->gen == as->base_gen)
		lags = false;
	take_work(v, as);
	v->more = *more = as->nr_ops || as->all;
	reload = !*more && (!mine || lags || v->nr_tables);
	if (v->nr_entries || v->nr_tables)
		as->drainer = v;
	max = TRAMP_OPS_MAX - v->nr_entries - v->nr_tables;
	if (!tables_pressing(p))
		max = MIN(max, (size_t)RECYCLE_EACH);
	v->nr_recycled = tables_take_dirty(p, &v->priv->ops[v->nr_entries + v->nr_tables], max);
	v->nr_tables += v->nr_recycled;
	v->next_cr3 = reload ? as->pt->root : 0;
	BUG_ON(!mine && !reload && !*more);
	v->draining = v->nr_entries || v->nr_tables || reload;
	if (v->draining) {
		if (reload)
			atomic_store(&v->cr3[1], v->next_cr3);
		__atomic_store_n(&v->priv->drained, 0, __ATOMIC_RELEASE);
	}
	update_has_work(as);
	mutex_unlock(&as->lock);
}

static void count_work(struct vcpu *v)
{
	vcpu_count(v, VSTAT_DRAINS, 1);
	vcpu_count(v, VSTAT_PTE_STORES, v->nr_entries);
	vcpu_count(v, VSTAT_POKES, v->nr_tables);
	if (v->next_cr3)
		vcpu_count(v, VSTAT_CR3_LOADS, 1);
}

/* The work was cut short by a signal: the rest goes back, perhaps with one piece that is done. */
static void requeue_locked(struct vcpu *v, struct kvm_address_space *as)
{
	const struct tramp_op *ops = v->priv->ops;
	size_t n = v->nr_entries + v->nr_tables - v->nr_recycled;

	as->only_entries = false;
	for (size_t i = v->nr_done; i < n; i++) {
		gpa_t gpa = ops[i].addr - TRAMP_DIRECT_BASE;

		push_op(as, i < v->nr_entries ? gpa : gpa | OP_TABLE, ops[i].va);
	}
}

void space_finish(struct vcpu *v, struct kvm_address_space *as)
{
	struct kvm_platform *p = to_kvm(as->base.platform);
	const struct tramp_op *ops = v->priv->ops;
	bool done = space_drained(v);

	if (!v->draining)
		return;
	v->draining = false;
	tables_put_back(p, &ops[v->nr_entries + v->nr_tables - v->nr_recycled], v->nr_recycled,
			done);
	if (done) {
		count_work(v);
		if (v->next_cr3)
			atomic_store(&v->cr3[0], v->next_cr3);
		if (v->more) {
			v->as = NULL; /* the last round has to load CR3 */
		} else {
			v->as = as;
			v->as_id = as->id;
			v->gen = v->next_gen;
		}
	} else if (v->next_cr3) {
		struct kvm_sregs s;

		/* Which of the two it is now must not be forgotten. */
		v->as = NULL;
		if (!ioctl(v->fd, KVM_GET_SREGS, &s))
			atomic_store(&v->cr3[0], s.cr3 & PTE_ADDR);
	}
	mutex_lock(&as->lock);
	if (!done)
		requeue_locked(v, as);
	if (as->drainer == v)
		as->drainer = NULL;
	update_has_work(as);
	mutex_unlock(&as->lock);
}
