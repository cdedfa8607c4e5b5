/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MADV_WIPEONFORK and snapshots: a copy of a sandbox is to it what a child is to its parent, so
 * what a program wants wiped in a child is wiped in the copy, too. frozen.h has the interface.
 */
#include <errno.h>
#include <string.h>

#include "sentry/lib/page.h"
#include "sentry/mm/frozen.h"
#include "sentry/mm/internal.h"

void mm_wipe(struct mm *mm)
{
	struct vma *v = vma_find(mm, 0);

	for (; v; v = vma_next(v)) {
		if (v->flags & VMA_WIPEONFORK)
			pages_unmap(mm, v->start, v->end);
	}
}

/* A frame of @mm's own instead of one that others have as well. */
static int make_own(struct mm *mm, uaddr_t va, uint64_t *pte, uint64_t *value)
{
	gpa_t old = *value & PTE_ADDR, own = frame_alloc_dirty();

	if (own == GPA_NONE)
		return -ENOMEM;
	memcpy(phys_ptr(own), phys_ptr(old), PAGE_SIZE);
	*value = (*value & ~PTE_ADDR) | own;
	pte_write(pte, *value);
	mm->platform->type->as_invalidate(mm->as, va, PAGE_SIZE);
	frame_put(old);
	return 0;
}

int mm_for_wiped(struct mm *mm, void (*fn)(void *arg, gpa_t gpa), void *arg)
{
	struct vma *v = vma_find(mm, 0);
	uint64_t *pte, value;
	int err = 0;

	for (; v && !err; v = vma_next(v)) {
		uaddr_t va = v->start;

		if (!(v->flags & VMA_WIPEONFORK))
			continue;
		for (; !err && (pte = pt_next(&mm->pt, &va, v->end)); va += PAGE_SIZE) {
			value = pte_read(pte);
			if (!PTE_USED(value) || value & PTE_FILE ||
			    page_is_zero(phys_ptr(value & PTE_ADDR)))
				continue;
			if (frame_refs(value & PTE_ADDR) > 1)
				err = make_own(mm, va, pte, &value);
			if (!err)
				fn(arg, value & PTE_ADDR);
		}
	}
	return err;
}
