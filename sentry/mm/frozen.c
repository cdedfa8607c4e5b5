/* SPDX-License-Identifier: Apache-2.0 */
/* See frozen.h. All static state here is the host process's. */
#include "sentry/mm/frozen.h"

#include <pthread.h>
#include <string.h>

#include "sentry/lib/physmem_frozen.h"
#include "sentry/lib/world.h"
#include "sentry/mm/internal.h"

#define MAX_TRAINED 4096

/* What the CPU may set by itself. */
#define PTE_AD (PTE_A | PTE_D)

struct leaf {
	uaddr_t va;
	uint64_t ref[PT_ENTRIES];	/* the entries to go back to */
	uint64_t cold[PT_ENTRIES / 64]; /* write-protected by us alone */
};

struct mm_frozen {
	struct address_space *as;
	struct pagetable pt;
	size_t nr_leaves, cap_leaves;
	struct leaf **leaves; /* by va */
};

/* Is what @vma has to be write-protected? Boxes and the like are written to by the sentry. */
static bool is_watched(const struct vma *vma)
{
	return !(vma->flags & (VMA_SHARED | VMA_PINNED | VMA_SEALED));
}

static bool is_private(uint64_t pte)
{
	return PTE_USED(pte) && !(pte & PTE_FILE);
}

void mm_freeze_protect(struct mm *mm)
{
	struct vma *v = vma_find(mm, 0);

	for (; v; v = vma_next(v)) {
		uaddr_t va = v->start;
		bool any = false;
		uint64_t *pte;

		if (!is_watched(v) || !vma_private_writable(v))
			continue;
		for (; (pte = pt_next(&mm->pt, &va, v->end)); va += PAGE_SIZE) {
			uint64_t value = pte_read(pte);

			if (!is_private(value) || !(value & PTE_RW))
				continue;
			physmem_lent_hot(value & PTE_ADDR);
			pte_write(pte, value & ~PTE_RW);
			any = true;
		}
		if (any)
			mm->platform->type->as_invalidate(mm->as, v->start, v->end - v->start);
	}
}

static struct leaf *add_leaf(struct mm_frozen *f, uaddr_t va)
{
	struct leaf *l;

	if (f->nr_leaves == f->cap_leaves) {
		size_t cap = f->cap_leaves ? f->cap_leaves * 2 : 32;
		struct leaf **v = hrealloc(f->leaves, cap * sizeof(*v));

		if (!v)
			return NULL;
		f->leaves = v;
		f->cap_leaves = cap;
	}
	l = hzalloc(sizeof(*l));
	if (l) {
		l->va = va;
		f->leaves[f->nr_leaves++] = l;
	}
	return l;
}

/* Tells physmem about the entries of @l, which lie in watched areas. */
static void watch_leaf(struct mm *mm, struct leaf *l)
{
	struct vma *v = vma_find(mm, l->va);

	for (; v && v->start < l->va + PT_LEAF_SPAN; v = vma_next(v)) {
		uaddr_t va = MAX(v->start, l->va), end = MIN(v->end, l->va + PT_LEAF_SPAN);

		if (!is_watched(v))
			continue;
		for (; va < end; va += PAGE_SIZE) {
			size_t i = (va - l->va) / PAGE_SIZE;
			uint64_t pte = l->ref[i];

			if (!is_private(pte))
				continue;
			physmem_frozen_tracked(pte & PTE_ADDR);
			if (pte & PTE_RW)
				(void)!physmem_make_hot(pte & PTE_ADDR);
			else if (vma_private_writable(v) && !(pte & PTE_COW))
				l->cold[i / 64] |= 1UL << (i % 64);
		}
	}
}

struct mm_frozen *mm_freeze(struct mm *mm)
{
	struct mm_frozen *f = hzalloc(sizeof(*f));
	uaddr_t va = 0;
	gpa_t table;

	if (!f)
		return NULL;
	f->as = mm->as;
	f->pt = mm->pt;
	while ((table = pt_next_table(&mm->pt, &va, USER_TOP)) != GPA_NONE) {
		struct leaf *l = add_leaf(f, ALIGN_DOWN(va, PT_LEAF_SPAN));

		if (!l) {
			mm_frozen_free(f);
			return NULL;
		}
		memcpy(l->ref, phys_ptr(table), sizeof(l->ref));
		watch_leaf(mm, l);
		va = l->va + PT_LEAF_SPAN;
	}
	return f;
}

void mm_frozen_free(struct mm_frozen *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->nr_leaves; i++)
		kfree(f->leaves[i]);
	kfree(f->leaves);
	kfree(f);
}

/* A run of entries that were undone and that caches may know. */
struct undone {
	struct address_space *as;
	uaddr_t start, end;
	size_t n;
};

static void undone_flush(struct undone *u)
{
	if (u->end > u->start)
		u->as->platform->type->as_invalidate(u->as, u->start, u->end - u->start);
	u->start = u->end = 0;
}

static void undone_add(struct undone *u, uaddr_t va)
{
	if (u->end != va) {
		undone_flush(u);
		u->start = va;
	}
	u->end = va + PAGE_SIZE;
}

/* The entry of @va in @table differs from @l's (NULL: there was no such table). */
static void rewind_entry(uint64_t *pte, struct leaf *l, size_t i, uaddr_t va, struct undone *u)
{
	uint64_t now = pte_read(pte), ref = l ? l->ref[i] : 0;
	bool cold = l && l->cold[i / 64] >> (i % 64) & 1, same, changed;

	/* The frame may have been written to, also while it was mapped otherwise. */
	changed = is_private(ref) && physmem_set_back(ref & PTE_ADDR);
	same = (now & ~PTE_AD) == ((ref | PTE_RW) & ~PTE_AD);
	/* What programs unmap at their end is set back anyway, and mostly written to before. */
	if (cold && (same || changed) && physmem_make_hot(ref & PTE_ADDR)) {
		ref = same ? now : ref | PTE_RW;
		l->ref[i] = ref;
		l->cold[i / 64] &= ~(1UL << (i % 64));
		if (same)
			return;
	}
	pte_write(pte, ref);
	u->n++;
	if (now & PTE_P)
		undone_add(u, va);
}

static void rewind_leaf(uint64_t *table, struct leaf *l, uaddr_t va, struct undone *u)
{
	if (l && !memcmp(table, l->ref, sizeof(l->ref)))
		return;
	for (size_t i = 0; i < PT_ENTRIES; i++) {
		uint64_t now = pte_read(&table[i]), ref = l ? l->ref[i] : 0;

		if ((now ^ ref) & ~PTE_AD)
			rewind_entry(&table[i], l, i, va + i * PAGE_SIZE, u);
	}
}

size_t mm_rewind(struct mm_frozen *f)
{
	struct undone u = {.as = f->as};
	size_t i = 0;
	uaddr_t va = 0;
	gpa_t table;

	/* Tables only ever come, so all of then are there. */
	while ((table = pt_next_table(&f->pt, &va, USER_TOP)) != GPA_NONE) {
		uaddr_t base = ALIGN_DOWN(va, PT_LEAF_SPAN);
		struct leaf *l = NULL;

		if (i < f->nr_leaves && f->leaves[i]->va == base)
			l = f->leaves[i++];
		rewind_leaf(phys_ptr(table), l, base, &u);
		va = base + PT_LEAF_SPAN;
	}
	undone_flush(&u);
	return u.n;
}

/* ---- training ---- */

__host_state bool mm_training;

static __host_large struct {
	pthread_mutex_t lock;
	size_t n;
	struct {
		struct mm *mm;
		uaddr_t addr;
		unsigned int access;
	} v[MAX_TRAINED];
} trained = {.lock = PTHREAD_MUTEX_INITIALIZER};

void mm_train(bool on)
{
	mm_training = on;
	trained.n = 0;
}

void mm_train_note(struct mm *mm, uaddr_t addr, unsigned int access)
{
	pthread_mutex_lock(&trained.lock);
	if (trained.n < MAX_TRAINED) {
		trained.v[trained.n].mm = mm;
		trained.v[trained.n].addr = addr;
		trained.v[trained.n++].access = access;
	}
	pthread_mutex_unlock(&trained.lock);
}

size_t mm_train_replay(struct mm *const *mms, size_t n)
{
	size_t done = 0;

	mm_training = false;
	for (size_t i = 0; i < trained.n; i++) {
		siginfo_t info;

		for (size_t k = 0; k < n; k++) {
			/* Others were of processes that are no more. */
			if (mms[k] == trained.v[i].mm)
				done += !mm_fault(mms[k], trained.v[i].addr, trained.v[i].access,
						  &info);
		}
	}
	trained.n = 0;
	return done;
}
