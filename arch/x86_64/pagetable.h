/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page tables in the CPU's own four-level format, kept in frames of guest physical memory.
 *
 * They are the single truth about which page is where, on every platform: KVM lets the CPU walk
 * them, the stub platforms mirror them with mmap on demand, and the sentry walks them for user
 * copies. A platform is therefore a cache of the table, like a TLB:
 *   - storing a leaf entry that was not present needs nothing further;
 *   - after changing or removing present ones, call platform as_invalidate for the range before
 *     the frames they pointed to are released (kvm-notes: page-table update rule).
 * Tables are never freed before the address space is; entries just become 0.
 *
 * Locking: the owner's (mm->pt_lock), exclusive for changes.
 */
#ifndef ARCH_X86_64_PAGETABLE_H
#define ARCH_X86_64_PAGETABLE_H

#include "sentry/lib/types.h"

#define PTE_P  0x001UL
#define PTE_RW 0x002UL
#define PTE_US 0x004UL
#define PTE_A  0x020UL
#define PTE_D  0x040UL
#define PTE_PS 0x080UL
/* Software bits. */
#define PTE_COW	 0x200UL /* shared private page: copy before writing (RW is off) */
#define PTE_STUB 0x400UL /* stub platforms: the stub has this page mapped with these rights */
#define PTE_FILE 0x800UL /* page of a shared or file mapping: not this mm's to copy at fork */
#define PTE_NX	 (1UL << 63)
#define PTE_ADDR 0x000ffffffffff000UL

#define PT_ENTRIES   512
#define PT_LEAF_SPAN (PT_ENTRIES * PAGE_SIZE) /* what one leaf table covers: 2 MiB */

/* Where tables come from; embedded by who makes page tables (platform). */
struct pt_allocator {
	/* A zeroed table frame that no CPU has cached, or GPA_NONE. */
	gpa_t (*alloc)(struct pt_allocator *a);
	void (*free)(struct pt_allocator *a, gpa_t table);
};

struct pagetable {
	gpa_t root;
	struct pt_allocator *alloc;
};

/* Makes an empty table. Returns 0 or -ENOMEM. */
int pt_init(struct pagetable *pt, struct pt_allocator *alloc) __must_check;
/* Frees the tables of the user half and the root; the caller has dropped what leaves pointed to. */
void pt_fini(struct pagetable *pt);
/* The leaf entry of @va, or NULL when its table doesn't exist. */
uint64_t *pt_find(const struct pagetable *pt, uaddr_t va);
/* The leaf entry of @va, with tables made as needed; NULL when out of memory. */
uint64_t *pt_ensure(struct pagetable *pt, uaddr_t va) __must_check;
/*
 * The first leaf entry at or after *@va and below @end whose value is not 0: sets *@va and returns
 * it; NULL when there is none. Skips absent tables quickly.
 */
uint64_t *pt_next(const struct pagetable *pt, uaddr_t *va, uaddr_t end);
/* gpa of the leaf table that covers @va, or GPA_NONE. */
gpa_t pt_leaf_table(const struct pagetable *pt, uaddr_t va);

/*
 * The first leaf table that covers an address in [*@va, @end): returns its gpa and moves *@va to
 * the first such address, or returns GPA_NONE. Safe without the lock: tables only come until the
 * end.
 */
gpa_t pt_next_table(const struct pagetable *pt, uaddr_t *va, uaddr_t end);

/* Leaf value for @gpa with ACCESS_* rights. Atomic access to entries: other CPUs set A and D. */
uint64_t pte_make(gpa_t gpa, unsigned int access);
static inline uint64_t pte_read(const uint64_t *pte)
{
	return __atomic_load_n(pte, __ATOMIC_RELAXED);
}
static inline void pte_write(uint64_t *pte, uint64_t value)
{
	__atomic_store_n(pte, value, __ATOMIC_RELAXED);
}

#endif
