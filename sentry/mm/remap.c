/* SPDX-License-Identifier: Apache-2.0 */
/* mremap(2). Pages move by their entries; nothing is copied. */
#include <errno.h>

#include "sentry/mm/internal.h"
#include "sentry/mm/sites.h"

#define REMAP_BATCH 512

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

/*
 * Moves the entries of [from, from+len) to @to. Excl. Returns 0 or -ENOMEM with all back in place.
 */
static int move_entries(struct mm *mm, uaddr_t from, uaddr_t to, size_t len)
{
	uaddr_t va;
	uint64_t *pte;
	bool present = false;
	int err = 0;

	write_lock(&mm->pt_lock);
	/* All tables first, so that nothing fails half-way. */
	for (va = from; (pte = pt_next(&mm->pt, &va, from + len)); va += PAGE_SIZE) {
		if (!pt_ensure(&mm->pt, va - from + to)) {
			err = -ENOMEM;
			goto out_unlock;
		}
	}
	for (va = from; (pte = pt_next(&mm->pt, &va, from + len)); va += PAGE_SIZE) {
		uint64_t value = pte_read(pte);

		pte_write(pt_ensure(&mm->pt, va - from + to), value & ~PTE_STUB);
		pte_write(pte, 0);
		present |= value & PTE_P;
	}
	/* Frames keep their references: only what maps them has changed. */
	if (present)
		mm->platform->type->as_invalidate(mm->as, from, len);
out_unlock:
	write_unlock(&mm->pt_lock);
	return err;
}

static long move_locked(struct mm *mm, struct vma *v, uaddr_t old, size_t old_len, size_t new_len,
			uaddr_t to, bool keep)
{
	uint64_t pgoff = v->file ? vma_pgoff(v, old) : to >> PAGE_SHIFT;
	struct vma *n;
	int err;

	/* The move may split the old one twice. */
	if (mm->nr_vmas >= MAX_VMAS - 3)
		return -ENOMEM;
	n = vma_alloc(mm, to, to + new_len, v->prot, v->flags, v->file, pgoff);
	if (!n)
		return -ENOMEM;
	if (v->flags & VMA_PINNED)
		n->name = v->name;
	sites_forget(mm, old, old + old_len, true);
	vma_insert(n);
	err = move_entries(mm, old, to, MIN(old_len, new_len));
	if (err) {
		vma_remove(n);
		return err;
	}
	if (mm->vdso == old && !keep)
		mm->vdso = to;
	/* Out of memory here: the pages have moved, what stays behind is empty. */
	if (!keep)
		(void)!unmap_locked(mm, old, old + old_len);
	populate_new(n);
	vma_merge_around(mm, to, to + new_len);
	return (long)to;
}

/* Can @v grow in place to @new_end? */
static bool room_to_grow(struct mm *mm, struct vma *v, uaddr_t new_end)
{
	struct vma *next = vma_next(v);

	return new_end <= USER_TOP && (!next || next->start >= new_end);
}

static int check_growth(struct mm *mm, struct vma *v, size_t more)
{
	uint64_t pages = more >> PAGE_SHIFT;

	if ((v->flags & VMA_LOCKED) && mm->locked_vm + pages > mm->limits.memlock >> PAGE_SHIFT)
		return -EAGAIN;
	if (!as_limit_allows(mm, pages))
		return -ENOMEM;
	if (vma_private_writable(v) && !(v->flags & VMA_STACK) && !data_limit_allows(mm, pages))
		return -ENOMEM;
	/* More than there could ever be, as mmap refuses it. */
	if (vma_private_writable(v) && !(v->flags & VMA_NORESERVE) && more > PHYS_RAM_SIZE)
		return -ENOMEM;
	return 0;
}

static long remap_locked(struct mm *mm, uaddr_t old, size_t old_len, size_t new_len,
			 unsigned long flags, uaddr_t new_addr)
{
	struct vma *v;
	uaddr_t to;
	int err;

	if (flags & MREMAP_FIXED) {
		err = unmap_locked(mm, new_addr, new_addr + new_len);
		if (err)
			return err;
	}
	v = vma_at(mm, old);
	if (!v)
		return -EFAULT;
	/* An old length of 0 makes a second mapping of shared pages. */
	if (!old_len && !(v->flags & VMA_SHARED))
		return -EINVAL;
	if (v->flags & VMA_SEALED)
		return -EPERM;
	if ((flags & MREMAP_DONTUNMAP) && (v->flags & VMA_PINNED))
		return -EINVAL;
	if (old_len > new_len && !(flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))) {
		err = unmap_locked(mm, old + new_len, old + old_len);
		return err ? err : (long)old;
	}
	if (old_len > new_len) {
		err = unmap_locked(mm, old + new_len, old + old_len);
		if (err)
			return err;
		old_len = new_len;
		v = vma_at(mm, old);
	}
	if (old + old_len > v->end)
		return -EFAULT;
	err = check_growth(mm, v, new_len - old_len);
	if (err)
		return err;
	if (!(flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))) {
		if (new_len == old_len)
			return (long)old;
		if (old_len && v->end == old + old_len && room_to_grow(mm, v, old + new_len)) {
			uaddr_t end = v->end;

			vma_resize(v, v->start, old + new_len);
			populate_grown(v, end);
			vma_merge_around(mm, old, old + new_len);
			return (long)old;
		}
		if (!(flags & MREMAP_MAYMOVE))
			return -ENOMEM;
	}
	if (flags & MREMAP_FIXED) {
		to = new_addr;
	} else {
		to = mm_find_gap_locked(mm, new_len, flags & MREMAP_DONTUNMAP ? new_addr : 0);
		if (!to)
			return -ENOMEM;
	}
	return move_locked(mm, v, old, old_len, new_len, to,
			   !old_len || (flags & MREMAP_DONTUNMAP));
}

long mm_mremap(struct mm *mm, uaddr_t old, size_t old_len, size_t new_len, unsigned long flags,
	       uaddr_t new_addr)
{
	long ret;

	if (flags & ~(unsigned long)(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP))
		return -EINVAL;
	if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && !(flags & MREMAP_MAYMOVE))
		return -EINVAL;
	if ((flags & MREMAP_DONTUNMAP) && old_len != new_len)
		return -EINVAL;
	if ((old & ~PAGE_MASK) || !new_len || new_len > USER_TOP || old_len > USER_TOP)
		return -EINVAL;
	old_len = PAGE_ALIGN_UP(old_len);
	new_len = PAGE_ALIGN_UP(new_len);
	if (old > USER_TOP - old_len)
		return -EFAULT;
	if (flags & MREMAP_FIXED) {
		if ((new_addr & ~PAGE_MASK) || new_addr > USER_TOP - new_len || new_addr < USER_MIN)
			return -EINVAL;
		if (new_addr < old + old_len && old < new_addr + new_len)
			return -EINVAL;
	}
	write_lock(&mm->lock);
	ret = remap_locked(mm, old, old_len, new_len, flags, new_addr);
	mm_write_unlock(mm);
	return ret;
}
