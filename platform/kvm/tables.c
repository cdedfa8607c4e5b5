/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page-table pages, and how they are used again.
 *
 * A freed table may still be known to the CPU: a shadowing KVM keeps what it made of it, and a vCPU
 * that has not moved on keeps a dead root in CR3. So tables stay tables for the life of the
 * sandbox:
 *
 *   fresh table -> in use -> dirty -> (no CR3 holds it) zeroed -> poked by some vCPU -> clean -> in
 *   use
 *
 * The poke rides along with whatever page-table work a vCPU does next (space.c). With nested paging
 * there is none to do and zeroing is enough.
 */
#include "platform/kvm/internal.h"

#include <string.h>

#include "sentry/lib/arena.h"

#define PRESSING 256 /* dirty tables: 1 MiB */

static bool list_push(struct gpa_list *l, gpa_t gpa)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 64;
		gpa_t *v = hrealloc(l->v, cap * sizeof(*v));

		if (!v)
			return false;
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n++] = gpa;
	return true;
}

static bool is_loaded(gpa_t table)
{
	unsigned int n = atomic_load(&kvm_vm.nr_vcpus);

	for (unsigned int i = 0; i < n; i++) {
		struct vcpu *v = &kvm_vm.vcpus[i];

		if (atomic_load(&v->cr3[0]) == table || atomic_load(&v->cr3[1]) == table)
			return true;
	}
	return false;
}

/* With nested paging: what no CR3 holds is as good as new. tables_lock held. */
static void wash_locked(struct kvm_platform *p)
{
	size_t kept = 0;

	for (size_t i = 0; i < p->dirty.n; i++) {
		gpa_t gpa = p->dirty.v[i];

		if (is_loaded(gpa)) {
			p->dirty.v[kept++] = gpa;
			continue;
		}
		memset(phys_ptr(gpa), 0, PAGE_SIZE);
		if (!list_push(&p->clean, gpa))
			p->dirty.v[kept++] = gpa;
	}
	p->dirty.n = kept;
	atomic_store(&p->nr_dirty, kept);
}

static gpa_t tables_alloc(struct pt_allocator *a)
{
	struct kvm_platform *p = container_of(a, struct kvm_platform, base.pt_alloc);
	gpa_t gpa = GPA_NONE;

	mutex_lock(&p->tables_lock);
	if (!p->clean.n && p->dirty.n && atomic_load(&p->mmu) == MMU_COHERENT)
		wash_locked(p);
	if (p->clean.n)
		gpa = p->clean.v[--p->clean.n];
	mutex_unlock(&p->tables_lock);
	return gpa == GPA_NONE ? table_alloc() : gpa;
}

static void tables_free(struct pt_allocator *a, gpa_t table)
{
	struct kvm_platform *p = container_of(a, struct kvm_platform, base.pt_alloc);

	mutex_lock(&p->tables_lock);
	/* If the list can't grow, the table is lost until the sandbox ends. */
	if (list_push(&p->dirty, table))
		atomic_store(&p->nr_dirty, p->dirty.n);
	mutex_unlock(&p->tables_lock);
}

size_t tables_take_dirty(struct kvm_platform *p, struct tramp_op *ops, size_t max)
{
	size_t n = 0, kept = 0, i;

	/* Where every entry would have to be stored, reuse costs more than a new frame. */
	if (atomic_load(&p->mmu) != MMU_POKE || !max || !atomic_load(&p->nr_dirty))
		return 0;
	mutex_lock_nested(&p->tables_lock);
	for (i = 0; i < p->dirty.n && n < max; i++) {
		gpa_t gpa = p->dirty.v[i];

		if (is_loaded(gpa)) {
			p->dirty.v[kept++] = gpa;
			continue;
		}
		memset(phys_ptr(gpa), 0, PAGE_SIZE);
		ops[n].addr = direct_va(gpa);
		ops[n++].va = 0;
	}
	memmove(&p->dirty.v[kept], &p->dirty.v[i], (p->dirty.n - i) * sizeof(gpa_t));
	p->dirty.n -= i - kept;
	atomic_store(&p->nr_dirty, p->dirty.n);
	mutex_unlock(&p->tables_lock);
	return n;
}

void tables_put_back(struct kvm_platform *p, const struct tramp_op *ops, size_t n, bool clean)
{
	struct gpa_list *l = clean ? &p->clean : &p->dirty;

	mutex_lock_nested(&p->tables_lock);
	for (size_t i = 0; i < n; i++)
		list_push(l, ops[i].addr - TRAMP_DIRECT_BASE);
	atomic_store(&p->nr_dirty, p->dirty.n);
	mutex_unlock(&p->tables_lock);
}

bool tables_pressing(struct kvm_platform *p)
{
	return atomic_load_explicit(&p->nr_dirty, memory_order_relaxed) >= PRESSING &&
	       atomic_load(&p->mmu) == MMU_POKE;
}

void tables_init(struct kvm_platform *p)
{
	mutex_init(&p->tables_lock, LOCK_PLATFORM);
	p->base.pt_alloc.alloc = tables_alloc;
	p->base.pt_alloc.free = tables_free;
}

static void list_fini(struct gpa_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		table_free(l->v[i]);
	kfree(l->v);
}

void tables_fini(struct kvm_platform *p)
{
	list_fini(&p->clean);
	list_fini(&p->dirty);
	mutex_fini(&p->tables_lock);
}
