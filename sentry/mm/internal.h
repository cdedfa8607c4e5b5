/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of sentry/mm share. Locking words: "held" means mm->lock, "excl" exclusively. */
#ifndef SENTRY_MM_INTERNAL_H
#define SENTRY_MM_INTERNAL_H

#include <sys/mman.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/physmem.h"
#include "sentry/mm/mm.h"

#define MAX_VMAS	65530		    /* Linux's default vm.max_map_count */
#define STACK_GUARD_GAP (256UL * PAGE_SIZE) /* kept free below what grows down */

/* An entry that points to a page, present or (PROT_NONE) not. */
#define PTE_USED(pte) ((pte)&PTE_ADDR)

/* ---- vma.c ---- */
/* The vma that contains @addr or else the next one above it; NULL. Held. */
struct vma *vma_find(struct mm *mm, uaddr_t addr);
/* The vma that contains @addr; NULL. Held. */
struct vma *vma_at(struct mm *mm, uaddr_t addr);
struct vma *vma_next(struct vma *vma);
struct vma *vma_prev(struct vma *vma);
/* A new vma, not yet in the tree; takes a reference on @file. */
struct vma *vma_alloc(struct mm *mm, uaddr_t start, uaddr_t end, unsigned long prot,
		      unsigned long flags, struct file *file, uint64_t pgoff);
/* Links it in, registers its mapping, and counts it. Excl. */
void vma_insert(struct vma *vma);
/* Takes it out; mm_write_unlock frees it. Its pages are gone already. Excl. */
void vma_remove(struct vma *vma);
/* Ends an exclusive hold of mm->lock: what vma_remove took out is freed. */
void mm_write_unlock(struct mm *mm);
/* Makes @addr a boundary between two vmas. 0 or -ENOMEM. Excl. */
int vma_split_at(struct mm *mm, uaddr_t addr);
/* Joins what has become alike around [start, end). Excl. */
void vma_merge_around(struct mm *mm, uaddr_t start, uaddr_t end);
/* Moves its ends; the mapping's registration follows. Excl. */
void vma_resize(struct vma *vma, uaddr_t start, uaddr_t end);
unsigned int vma_access(const struct vma *vma); /* ACCESS_* its protection allows */
static inline uint64_t vma_pgoff(const struct vma *vma, uaddr_t addr)
{
	return vma->pgoff + ((addr - vma->start) >> PAGE_SHIFT);
}
static inline bool vma_private_writable(const struct vma *vma)
{
	return !(vma->flags & VMA_SHARED) && (vma->prot & PROT_WRITE);
}
/* Adds (sign 1) or removes (-1) @vma's pages from the mm's counts. */
void vma_account(struct vma *vma, int sign);

/* ---- pages.c ---- */
/* Copies @n pages to fresh frames in one piece. */
void pages_copy(const struct mm *mm, gpa_t to, const gpa_t *from, size_t n);
/* Drops every page of [start, end): entries, caches, frames. Held. */
void pages_unmap(struct mm *mm, uaddr_t start, uaddr_t end);
/* The same for pages of files only, unless @even_cow. Takes pt_lock only. */
void pages_zap(struct mm *mm, uaddr_t start, uaddr_t end, bool even_cow);

/* The entry @pte as @vma's protection wants it: rights change, the page stays. */
uint64_t pte_reprotect(const struct vma *vma, uint64_t pte);
/* Rewrites the entries of @vma in [start, end) so. Excl. */
void pages_reprotect(struct vma *vma, uaddr_t start, uaddr_t end);
/* Makes the host hold the memory of what is mapped in [start, end): MAP_POPULATE, mlock. Held. */
int pages_touch(struct mm *mm, uaddr_t start, uaddr_t end);

/* ---- populate.c ---- */
/* Has the sandbox handed out what it may use? Then nothing is mapped or copied ahead. */
bool memory_tight(void);
/* Maps what is missing of [start, end), within @vma. 0, -ENOMEM, -EFAULT (beyond a file). Held. */
int populate(struct vma *vma, uaddr_t start, uaddr_t end, unsigned int access);
/* What a new mapping gets at once. Held. */
void populate_new(struct vma *vma);
/* The same for what @vma has grown by from @from on. Held. */
void populate_grown(struct vma *vma, uaddr_t from);
/* A fault's window around @addr. Held. */
int populate_fault(struct vma *vma, uaddr_t addr, unsigned int access);

/* ---- fault.c ---- */
/* Makes the page at @addr what @access (allowed by @vma) needs. 0, -ENOMEM, -EFAULT, -EIO. Held. */
int fault_resolve(struct vma *vma, uaddr_t addr, unsigned int access);

/* ---- fork.c ---- */
/* Resident private pages in [start, end), counted up to a little over @enough. Held. */
size_t resident_anon(struct mm *mm, uaddr_t start, uaddr_t end, size_t enough);

/* ---- copy.c ---- */
extern const struct usermem_ops mm_usermem_ops;

/* ---- advise.c ---- */
/* Writes shared file pages of [start, end) back to where they belong. */
int mm_sync_vma(struct vma *vma, uaddr_t start, uaddr_t end);

/* ---- map.c ---- */
/* Does @pages more fit RLIMIT_AS? */
bool as_limit_allows(const struct mm *mm, uint64_t pages);
/* The same for RLIMIT_DATA and private writable memory. */
bool data_limit_allows(const struct mm *mm, uint64_t pages);
int unmap_locked(struct mm *mm, uaddr_t start, uaddr_t end);

#endif
