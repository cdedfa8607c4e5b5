/* SPDX-License-Identifier: Apache-2.0 */
/* mprotect(2). */
#include <errno.h>

#include "sentry/mm/internal.h"
#include "sentry/mm/sites.h"

uint64_t pte_reprotect(const struct vma *vma, uint64_t pte)
{
	unsigned int access = vma_access(vma);
	uint64_t next = pte & ~(PTE_P | PTE_RW | PTE_NX | PTE_STUB);

	if (!access)
		return next; /* kept, unreachable */
	next |= PTE_P | PTE_US | PTE_A;
	/* Pages that are not this mm's alone, or lent, stay read-only until the first write. */
	if ((access & ACCESS_WRITE) && !(pte & (PTE_COW | PTE_FILE)) &&
	    !phys_is_lent(pte & PTE_ADDR))
		next |= PTE_RW | PTE_D;
	if (!(access & ACCESS_EXEC))
		next |= PTE_NX;
	/* A private file page may become writable now: then it must be copied first. */
	if ((pte & PTE_FILE) && !(vma->flags & VMA_SHARED))
		next |= PTE_COW;
	return next;
}

void pages_reprotect(struct vma *vma, uaddr_t start, uaddr_t end)
{
	struct mm *mm = vma->mm;
	bool present = false;
	uaddr_t va = start;
	uint64_t *pte;

	write_lock(&mm->pt_lock);
	while ((pte = pt_next(&mm->pt, &va, end))) {
		uint64_t old = pte_read(pte), next = pte_reprotect(vma, old);

		if ((old ^ next) & ~(PTE_STUB | PTE_A | PTE_D)) {
			pte_write(pte, next);
			present |= old & PTE_P;
		}
		va += PAGE_SIZE;
	}
	if (present)
		mm->platform->type->as_invalidate(mm->as, start, end - start);
	write_unlock(&mm->pt_lock);
}

/* May @v get @prot in [start, end)? */
static int check(const struct vma *v, uaddr_t start, uaddr_t end, unsigned long prot)
{
	if (v->flags & VMA_SEALED)
		return -EPERM;
	if ((prot & PROT_WRITE) && (v->flags & VMA_DENY_WRITE))
		return -EACCES;
	if ((prot & PROT_EXEC) && v->file && path_noexec(&v->file->path))
		return -EACCES;
	if ((prot & PROT_WRITE) && !(v->prot & PROT_WRITE) &&
	    !(v->flags & (VMA_SHARED | VMA_STACK)) &&
	    !data_limit_allows(v->mm, (end - start) >> PAGE_SHIFT))
		return -ENOMEM;
	return 0;
}

/* Gives @v's part of [start, end) its new protection. */
static int protect_part(struct vma *v, uaddr_t start, uaddr_t end, unsigned long prot)
{
	struct mm *mm = v->mm;
	unsigned long old = v->prot;
	int err;

	if (old == prot)
		return 0;
	err = vma_split_at(mm, start);
	if (!err)
		err = vma_split_at(mm, end);
	if (err)
		return err;
	v = vma_at(mm, start);
	if ((prot & PROT_WRITE) || !(prot & PROT_EXEC))
		sites_forget(mm, start, end, true);
	vma_account(v, -1);
	v->prot = prot;
	vma_account(v, 1);
	pages_reprotect(v, start, end);
	/* What was reserved with PROT_NONE and is opened now gets its pages at once. */
	if (!(old & (PROT_READ | PROT_WRITE | PROT_EXEC)))
		populate_new(v);
	return 0;
}

/* Like Linux: what lies before a gap or a refusal has changed already when the error returns. */
static int protect_locked(struct mm *mm, uaddr_t start, uaddr_t end, unsigned long prot)
{
	uaddr_t at = start;
	int err = 0;

	while (at < end && !err) {
		struct vma *v = vma_at(mm, at);
		uaddr_t stop = v ? MIN(v->end, end) : at;

		err = v ? check(v, at, stop, prot) : -ENOMEM;
		if (!err)
			err = protect_part(v, at, stop, prot);
		at = stop;
	}
	vma_merge_around(mm, start, end);
	return err;
}

int mm_mprotect(struct mm *mm, uaddr_t addr, size_t len, unsigned long prot)
{
	uaddr_t end;
	int err;

	if (prot & ~(unsigned long)(PROT_READ | PROT_WRITE | PROT_EXEC | PROT_GROWSDOWN |
				    PROT_GROWSUP | 8 /* PROT_SEM */))
		return -EINVAL;
	if ((prot & PROT_GROWSDOWN) && (prot & PROT_GROWSUP))
		return -EINVAL;
	if (addr & ~PAGE_MASK)
		return -EINVAL;
	if (!len)
		return 0;
	end = addr + PAGE_ALIGN_UP(len);
	if (end <= addr || end > USER_TOP)
		return -ENOMEM;
	write_lock(&mm->lock);
	if (prot & PROT_GROWSDOWN) {
		struct vma *v = vma_at(mm, addr);

		if (!v || !(v->flags & VMA_GROWSDOWN)) {
			mm_write_unlock(mm);
			return -EINVAL;
		}
		addr = v->start;
	}
	err = protect_locked(mm, addr, end, prot & (PROT_READ | PROT_WRITE | PROT_EXEC));
	mm_write_unlock(mm);
	return err;
}
