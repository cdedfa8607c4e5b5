/* SPDX-License-Identifier: Apache-2.0 */
/* Walking and growing four-level page tables. SDM vol. 3, 4.5 "4-level paging". */
#include "arch/x86_64/pagetable.h"

#include <errno.h>

#include "arch/x86_64/arch.h"
#include "sentry/lib/physmem.h"

#define LEVELS	   4
#define USER_SLOTS 256 /* entries of the root that map user addresses */

static unsigned int slot(uaddr_t va, int level)
{
	return (unsigned int)(va >> (PAGE_SHIFT + 9 * level)) & (PT_ENTRIES - 1);
}

static uint64_t *table(gpa_t gpa)
{
	return phys_ptr(gpa);
}

int pt_init(struct pagetable *pt, struct pt_allocator *alloc)
{
	pt->alloc = alloc;
	pt->root = alloc->alloc(alloc);
	return pt->root == GPA_NONE ? -ENOMEM : 0;
}

static void free_level(struct pagetable *pt, gpa_t gpa, int level)
{
	uint64_t *t = table(gpa);

	for (int i = 0; level && i < (level == LEVELS - 1 ? USER_SLOTS : PT_ENTRIES); i++) {
		uint64_t e = pte_read(&t[i]);

		if (e & PTE_P)
			free_level(pt, e & PTE_ADDR, level - 1);
	}
	pt->alloc->free(pt->alloc, gpa);
}

void pt_fini(struct pagetable *pt)
{
	if (pt->root != GPA_NONE)
		free_level(pt, pt->root, LEVELS - 1);
	pt->root = GPA_NONE;
}

uint64_t *pt_find(const struct pagetable *pt, uaddr_t va)
{
	gpa_t gpa = pt_leaf_table(pt, va);

	return gpa == GPA_NONE ? NULL : &table(gpa)[slot(va, 0)];
}

gpa_t pt_leaf_table(const struct pagetable *pt, uaddr_t va)
{
	gpa_t gpa = pt->root;

	for (int level = LEVELS - 1; level > 0; level--) {
		uint64_t e = pte_read(&table(gpa)[slot(va, level)]);

		if (!(e & PTE_P))
			return GPA_NONE;
		gpa = e & PTE_ADDR;
	}
	return gpa;
}

uint64_t *pt_ensure(struct pagetable *pt, uaddr_t va)
{
	gpa_t gpa = pt->root;

	for (int level = LEVELS - 1; level > 0; level--) {
		uint64_t *e = &table(gpa)[slot(va, level)], value = pte_read(e);

		if (!(value & PTE_P)) {
			gpa_t next = pt->alloc->alloc(pt->alloc);

			if (next == GPA_NONE)
				return NULL;
			/* Rights are decided at the leaf; A is set so that the CPU need not. */
			value = next | PTE_P | PTE_RW | PTE_US | PTE_A;
			pte_write(e, value);
		}
		gpa = value & PTE_ADDR;
	}
	return &table(gpa)[slot(va, 0)];
}

/*
 * The leaf table for *@va, or else NULL and *@va moves to where the next one may be: behind the
 * absent entry that was met and those that follow it in the same table.
 */
static uint64_t *leaf_or_skip(const struct pagetable *pt, uaddr_t *va, uaddr_t end, gpa_t *leaf)
{
	gpa_t gpa = pt->root;

	for (int level = LEVELS - 1; level > 0; level--) {
		const uint64_t *t = table(gpa);
		unsigned int i = slot(*va, level);
		uint64_t span = PAGE_SIZE << (9 * level), e = pte_read(&t[i]);

		if (e & PTE_P) {
			gpa = e & PTE_ADDR;
			continue;
		}
		*va = ALIGN_DOWN(*va, span);
		do
			*va += span;
		while (*va < end && ++i < PT_ENTRIES && !(pte_read(&t[i]) & PTE_P));
		return NULL;
	}
	*leaf = gpa;
	return table(gpa);
}

gpa_t pt_next_table(const struct pagetable *pt, uaddr_t *va, uaddr_t end)
{
	gpa_t leaf;

	while (*va < end) {
		if (leaf_or_skip(pt, va, end, &leaf))
			return leaf;
	}
	return GPA_NONE;
}

uint64_t *pt_next(const struct pagetable *pt, uaddr_t *va, uaddr_t end)
{
	gpa_t leaf;

	while (*va < end) {
		uint64_t *t = leaf_or_skip(pt, va, end, &leaf);
		unsigned int i;

		if (!t)
			continue;
		for (i = slot(*va, 0); i < PT_ENTRIES && *va < end; i++, *va += PAGE_SIZE) {
			if (pte_read(&t[i]))
				return &t[i];
		}
	}
	return NULL;
}

uint64_t pte_make(gpa_t gpa, unsigned int access)
{
	uint64_t pte = gpa | PTE_P | PTE_US | PTE_A;

	if (access & ACCESS_WRITE)
		pte |= PTE_RW | PTE_D;
	if (!(access & ACCESS_EXEC))
		pte |= PTE_NX;
	return pte;
}
