/* SPDX-License-Identifier: Apache-2.0 */
/* madvise(2), mlock(2) as accounting, mincore(2), msync(2). */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "sentry/mm/internal.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLD
#define MADV_COLD    20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

int mm_sync_vma(struct vma *v, uaddr_t start, uaddr_t end)
{
	struct inode *inode = v->file ? v->file->inode : NULL;

	if (!inode || !(v->flags & VMA_SHARED) || !inode->mops || !inode->mops->writeback)
		return 0;
	return inode->mops->writeback(inode, vma_pgoff(v, start), (end - start) >> PAGE_SHIFT);
}

/* Calls @fn for each vma's part of [start, end). -ENOMEM in the end if there were gaps. Held. */
static int for_each_part(struct mm *mm, uaddr_t start, uaddr_t end,
			 int (*fn)(struct vma *v, uaddr_t s, uaddr_t e, void *arg), void *arg)
{
	struct vma *v = vma_find(mm, start), *next;
	int gaps = 0, err = 0;

	if (!v)
		return -ENOMEM;
	for (; v && start < end && !err; v = next) {
		next = vma_next(v);
		if (v->start > start)
			gaps = -ENOMEM;
		if (v->start >= end)
			break;
		start = MAX(start, v->start);
		{
			uaddr_t stop = MIN(end, v->end);

			err = fn(v, start, stop, arg);
			start = stop;
		}
	}
	if (!err && start < end)
		gaps = -ENOMEM;
	return err ? err : gaps;
}

static int dontneed(struct vma *v, uaddr_t s, uaddr_t e, void *arg)
{
	if ((v->flags & (VMA_LOCKED | VMA_PINNED)) && *(int *)arg != MADV_DONTNEED_LOCKED)
		return -EINVAL;
	if (*(int *)arg == MADV_FREE && (v->file || (v->flags & VMA_SHARED)))
		return -EINVAL;
	pages_unmap(v->mm, s, e);
	/* What the window had grown to is forgotten: the next use starts small again. */
	v->populated = 0;
	v->ahead = s;
	return 0;
}

/* May MADV_REMOVE punch a hole into @v's file? */
static int punch_check(const struct vma *v)
{
	if (!v->file || !(v->flags & VMA_SHARED))
		return -EINVAL;
	if (v->flags & VMA_DENY_WRITE)
		return -EACCES;
	return v->file->ops->fallocate ? 0 : -EOPNOTSUPP;
}

static int populate_part(struct vma *v, uaddr_t s, uaddr_t e, void *arg)
{
	bool write = *(int *)arg == MADV_POPULATE_WRITE;
	unsigned int access = write ? ACCESS_WRITE : ACCESS_READ;

	int err;

	if ((vma_access(v) & access) != access)
		return -EINVAL;
	err = populate(v, s, e, access);
	for (; write && !err && s < e; s += PAGE_SIZE)
		err = fault_resolve(v, s, access);
	return err;
}

/* Written pages of [start, end) are there now, and the host has the memory. Held. */
static void make_resident(struct mm *mm, uaddr_t start, uaddr_t end)
{
	for (struct vma *v = vma_find(mm, start); v && v->start < end; v = vma_next(v)) {
		uaddr_t s = MAX(v->start, start), e = MIN(v->end, end);

		if (vma_access(v) && !populate(v, s, e, ACCESS_READ))
			(void)!pages_touch(mm, s, e);
	}
}

/* What is locked can't be told to go. */
static int refuse_locked(struct vma *v, uaddr_t s, uaddr_t e, void *arg)
{
	return v->flags & VMA_LOCKED ? -EINVAL : 0;
}

struct flag_change {
	unsigned long set, clear;
	bool anon_only;
};

static int change_flags(struct vma *v, uaddr_t s, uaddr_t e, void *arg)
{
	struct flag_change *c = arg;
	struct mm *mm = v->mm;
	int err;

	if (c->anon_only && (v->file || (v->flags & VMA_SHARED)))
		return -EINVAL;
	err = vma_split_at(mm, s);
	if (!err)
		err = vma_split_at(mm, e);
	if (err)
		return err;
	v = vma_at(mm, s);
	vma_account(v, -1);
	v->flags = (v->flags | c->set) & ~c->clear;
	vma_account(v, 1);
	return 0;
}

static int flags_for(int advice, struct flag_change *c)
{
	memset(c, 0, sizeof(*c));
	switch (advice) {
	case MADV_DONTFORK:
		c->set = VMA_DONTFORK;
		return 1;
	case MADV_DOFORK:
		c->clear = VMA_DONTFORK;
		return 1;
	case MADV_WIPEONFORK:
		c->set = VMA_WIPEONFORK;
		c->anon_only = true;
		return 1;
	case MADV_KEEPONFORK:
		c->clear = VMA_WIPEONFORK;
		return 1;
	case MADV_DONTDUMP:
		c->set = VMA_DONTDUMP;
		return 1;
	case MADV_DODUMP:
		c->clear = VMA_DONTDUMP;
		return 1;
	}
	return 0;
}

static int no_op(struct vma *v, uaddr_t s, uaddr_t e, void *arg)
{
	return 0;
}

int mm_madvise(struct mm *mm, uaddr_t addr, size_t len, int advice)
{
	uaddr_t end = addr + PAGE_ALIGN_UP(len);
	struct flag_change change;
	int err;

	if ((addr & ~PAGE_MASK) || (len && PAGE_ALIGN_UP(len) == 0) || end < addr)
		return -EINVAL;
	switch (advice) {
	case MADV_NORMAL:
	case MADV_RANDOM:
	case MADV_SEQUENTIAL:
	case MADV_WILLNEED:
	case MADV_HUGEPAGE:
	case MADV_NOHUGEPAGE:
	case MADV_MERGEABLE:
	case MADV_UNMERGEABLE:
	case MADV_COLD:
	case MADV_PAGEOUT:
	case MADV_COLLAPSE:
	case MADV_DONTNEED:
	case MADV_DONTNEED_LOCKED:
	case MADV_FREE:
	case MADV_REMOVE:
	case MADV_POPULATE_READ:
	case MADV_POPULATE_WRITE:
		break;
	default:
		if (!flags_for(advice, &change))
			return -EINVAL;
	}
	if (addr == end)
		return 0;
	if (flags_for(advice, &change)) {
		write_lock(&mm->lock);
		err = for_each_part(mm, addr, end, change_flags, &change);
		vma_merge_around(mm, addr, end);
		mm_write_unlock(mm);
		return err;
	}
	if (advice == MADV_REMOVE) {
		struct vma *v;
		struct file *file;
		uint64_t offset;

		/* The file's zap needs no mm lock, and its inode lock is outside of ours. */
		read_lock(&mm->lock);
		v = vma_at(mm, addr);
		err = !v ? -ENOMEM : v->end < end ? -EINVAL : punch_check(v);
		file = err ? NULL : file_get(v->file);
		offset = err ? 0 : vma_pgoff(v, addr) << PAGE_SHIFT;
		read_unlock(&mm->lock);
		if (err)
			return err;
		err = file->ops->fallocate(file, 3, offset, end - addr);
		file_put(file);
		return err;
	}
	read_lock(&mm->lock);
	if (advice == MADV_DONTNEED || advice == MADV_DONTNEED_LOCKED || advice == MADV_FREE)
		err = for_each_part(mm, addr, end, dontneed, &advice);
	else if (advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE)
		err = for_each_part(mm, addr, end, populate_part, &advice);
	else if (advice == MADV_COLD || advice == MADV_PAGEOUT)
		err = for_each_part(mm, addr, end, refuse_locked, NULL);
	else
		err = for_each_part(mm, addr, end, no_op, NULL);
	if (!err && (advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE))
		err = pages_touch(mm, addr, end);
	read_unlock(&mm->lock);
	return err;
}

/* ---- locking: nothing is swapped here, so it is bookkeeping ---- */

/* Pages of [start, end) that are locked already. Held. */
static uint64_t locked_pages(struct mm *mm, uaddr_t start, uaddr_t end)
{
	uint64_t pages = 0;

	for (struct vma *v = vma_find(mm, start); v && v->start < end; v = vma_next(v)) {
		if (v->flags & VMA_LOCKED)
			pages += (MIN(v->end, end) - MAX(v->start, start)) >> PAGE_SHIFT;
	}
	return pages;
}

static int lock_range(struct mm *mm, uaddr_t addr, size_t len, bool lock, bool onfault,
		      bool capable)
{
	struct flag_change c = {.set = lock ? VMA_LOCKED : 0, .clear = lock ? 0 : VMA_LOCKED};
	uaddr_t end = PAGE_ALIGN_UP(addr + len);
	int err;

	addr = PAGE_ALIGN_DOWN(addr);
	if (end < addr)
		return -EINVAL;
	if (end == addr)
		return 0;
	write_lock(&mm->lock);
	if (lock && !capable) {
		uint64_t pages = ((end - addr) >> PAGE_SHIFT) - locked_pages(mm, addr, end);

		if (!mm->limits.memlock) {
			err = -EPERM;
			goto out_unlock;
		}
		if (mm->limits.memlock != UINT64_MAX &&
		    (mm->locked_vm + pages) * PAGE_SIZE > mm->limits.memlock) {
			err = -ENOMEM;
			goto out_unlock;
		}
	}
	err = for_each_part(mm, addr, end, change_flags, &c);
	if (lock && !onfault)
		make_resident(mm, addr, end);
	vma_merge_around(mm, addr, end);
out_unlock:
	mm_write_unlock(mm);
	return err;
}

int mm_mlock(struct mm *mm, uaddr_t addr, size_t len, unsigned int flags, bool capable)
{
	return lock_range(mm, addr, len, true, flags & MLOCK_ONFAULT, capable);
}

int mm_munlock(struct mm *mm, uaddr_t addr, size_t len)
{
	return lock_range(mm, addr, len, false, false, true);
}

int mm_mlockall(struct mm *mm, int flags, bool capable)
{
	struct rb_node *n;
	int err = 0;

	if (flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) || flags == MCL_ONFAULT)
		return -EINVAL;
	write_lock(&mm->lock);
	if (flags && !capable && !mm->limits.memlock) {
		err = -EPERM;
	} else if ((flags & MCL_CURRENT) && !capable && mm->limits.memlock != UINT64_MAX &&
		   mm->total_vm * PAGE_SIZE > mm->limits.memlock) {
		err = -ENOMEM;
	} else {
		mm->def_flags = flags & MCL_FUTURE ? VMA_LOCKED : 0;
		rb_for_each (n, &mm->vmas) {
			struct vma *v = rb_entry(n, struct vma, node);

			vma_account(v, -1);
			if (!flags)
				v->flags &= ~(unsigned long)VMA_LOCKED;
			else if (flags & MCL_CURRENT)
				v->flags |= VMA_LOCKED;
			vma_account(v, 1);
		}
		if ((flags & MCL_CURRENT) && !(flags & MCL_ONFAULT))
			make_resident(mm, 0, USER_TOP);
	}
	mm_write_unlock(mm);
	return err;
}

/* ---- mincore, msync ---- */

#define MINCORE_CHUNK 512

/* Are the pages of [addr, +n) there? -ENOMEM at an address where nothing is mapped. Held. */
static int mincore_chunk(struct mm *mm, uaddr_t addr, size_t n, unsigned char *vec)
{
	size_t i = 0;
	int err = 0;

	memset(vec, 0, n);
	read_lock(&mm->pt_lock);
	while (i < n && !err) {
		uaddr_t va = addr + i * PAGE_SIZE, stop = addr + n * PAGE_SIZE;
		struct vma *v = vma_at(mm, va);
		uint64_t *pte;

		if (!v) {
			err = -ENOMEM;
			break;
		}
		stop = MIN(stop, v->end);
		while ((pte = pt_next(&mm->pt, &va, stop))) {
			/* Memory is mapped ahead of use: the host knows what is there. */
			frames_resident(pte_read(pte) & PTE_ADDR, 1,
					&vec[(va - addr) >> PAGE_SHIFT]);
			va += PAGE_SIZE;
		}
		i = (stop - addr) >> PAGE_SHIFT;
	}
	read_unlock(&mm->pt_lock);
	return err;
}

int mm_mincore(struct mm *mm, uaddr_t addr, size_t len, uaddr_t vec)
{
	unsigned char chunk[MINCORE_CHUNK];
	size_t pages;

	if (addr & ~PAGE_MASK)
		return -EINVAL;
	if (addr > USER_TOP || len > USER_TOP - addr)
		return -ENOMEM;
	pages = PAGE_ALIGN_UP(len) >> PAGE_SHIFT;
	if (vec > USER_TOP || pages > USER_TOP - vec)
		return -EFAULT;
	while (pages) {
		size_t n = MIN(pages, (size_t)MINCORE_CHUNK);
		int err;

		read_lock(&mm->lock);
		err = mincore_chunk(mm, addr, n, chunk);
		read_unlock(&mm->lock);
		if (err)
			return err;
		if (copy_to_user(&mm->um, vec, chunk, n))
			return -EFAULT;
		addr += n * PAGE_SIZE;
		vec += n;
		pages -= n;
	}
	return 0;
}

static int sync_part(struct vma *v, uaddr_t s, uaddr_t e, void *arg)
{
	int flags = *(int *)arg;

	if ((flags & MS_INVALIDATE) && (v->flags & VMA_LOCKED))
		return -EBUSY;
	return flags & (MS_SYNC | MS_ASYNC) ? mm_sync_vma(v, s, e) : 0;
}

int mm_msync(struct mm *mm, uaddr_t addr, size_t len, int flags)
{
	int err;

	if (flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) || (addr & ~PAGE_MASK) ||
	    ((flags & MS_ASYNC) && (flags & MS_SYNC)))
		return -EINVAL;
	len = PAGE_ALIGN_UP(len);
	if (addr + len < addr)
		return -ENOMEM;
	if (!len)
		return 0;
	read_lock(&mm->lock);
	err = for_each_part(mm, addr, addr + len, sync_part, &flags);
	read_unlock(&mm->lock);
	return err;
}
