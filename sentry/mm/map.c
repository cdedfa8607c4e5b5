/* SPDX-License-Identifier: Apache-2.0 */
/* mmap(2), munmap(2), brk(2): where mappings go and come from. */
#include <errno.h>
#include <string.h>

#include "sentry/mm/internal.h"
#include "sentry/mm/sites.h"

#ifndef MAP_32BIT
#define MAP_32BIT 0x40
#endif
#define MAP_KNOWN_SHARED                                                                           \
	(MAP_SHARED | MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_32BIT | MAP_GROWSDOWN |        \
	 MAP_DENYWRITE | MAP_EXECUTABLE | MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE |              \
	 MAP_NONBLOCK | MAP_STACK | MAP_FIXED_NOREPLACE | MAP_SYNC)

struct file *(*mm_shmem_file)(size_t size);

/* Room that must stay free below @v: a stack's guard. */
static uaddr_t low_end(const struct vma *v)
{
	if (!(v->flags & VMA_GROWSDOWN))
		return v->start;
	return v->start > STACK_GUARD_GAP ? v->start - STACK_GUARD_GAP : 0;
}

/* The highest gap of @len bytes in [low, high). */
static uaddr_t gap_below(struct mm *mm, size_t len, uaddr_t low, uaddr_t high)
{
	uaddr_t top = high;
	struct vma *v = vma_find(mm, high - 1);

	/* @v is the vma at or above high; everything below it comes one by one. */
	if (!v) {
		struct rb_node *n = rb_last(&mm->vmas);

		v = n ? rb_entry(n, struct vma, node) : NULL;
	}
	for (; v; v = vma_prev(v)) {
		if (v->end <= top && top - v->end >= len)
			break;
		top = MIN(top, low_end(v));
		if (top < low + len)
			return 0;
	}
	return top >= low + len ? top - len : 0;
}

/* The lowest gap of @len bytes in [low, high). */
static uaddr_t gap_above(struct mm *mm, size_t len, uaddr_t low, uaddr_t high)
{
	uaddr_t at = low;

	for (struct vma *v = vma_find(mm, low); v; v = vma_next(v)) {
		if (low_end(v) >= at && low_end(v) - at >= len)
			break;
		at = MAX(at, v->end);
	}
	return at + len <= high ? at : 0;
}

static bool range_free(struct mm *mm, uaddr_t start, size_t len)
{
	struct vma *v = vma_find(mm, start);

	return !v || v->start >= start + len;
}

uaddr_t mm_find_gap_locked(struct mm *mm, size_t len, uaddr_t hint)
{
	uaddr_t at;

	hint = PAGE_ALIGN_DOWN(hint);
	if (hint >= USER_MIN && len <= USER_TOP - hint && range_free(mm, hint, len)) {
		struct vma *v = vma_find(mm, hint);

		if (!v || low_end(v) >= hint + len)
			return hint;
	}
	at = gap_below(mm, len, USER_MIN, mm->mmap_base);
	return at ? at : gap_above(mm, len, mm->mmap_base, USER_TOP);
}

int unmap_locked(struct mm *mm, uaddr_t start, uaddr_t end)
{
	struct vma *v, *next;
	int err;

	v = vma_find(mm, start);
	if (!v || v->start >= end)
		return 0;
	err = vma_split_at(mm, start);
	if (!err)
		err = vma_split_at(mm, end);
	if (err)
		return err;
	for (v = vma_find(mm, start); v && v->start < end; v = vma_next(v)) {
		if (v->flags & VMA_SEALED)
			return -EPERM;
	}
	for (v = vma_find(mm, start); v && v->start < end; v = vma_next(v)) {
		if (v->file && (v->flags & VMA_SHARED))
			mm_sync_vma(v, v->start, v->end);
	}
	sites_forget(mm, start, end, false);
	for (v = vma_find(mm, start); v && v->start < end; v = next) {
		next = vma_next(v);
		/*
		 * First the pages, then the registration: a truncation in between finds nothing.
		 * With mm->lock held exclusively no fault can bring new ones.
		 */
		pages_unmap(mm, v->start, v->end);
		vma_remove(v);
	}
	return 0;
}

/* What the file's mode and mount allow. */
static int check_file(struct file *file, unsigned long prot, unsigned long *vflags, bool shared)
{
	if (!file->readable)
		return -EACCES;
	if ((prot & PROT_EXEC) && path_noexec(&file->path))
		return -EPERM;
	if (!file->ops->mmap)
		return -ENODEV;
	if (!shared)
		return 0;
	if ((prot & PROT_WRITE) && !file->writable)
		return -EACCES;
	if (!file->writable)
		*vflags |= VMA_DENY_WRITE;
	return 0;
}

struct map_request {
	uaddr_t addr;
	size_t len;
	unsigned long prot, flags, vflags;
	struct file *file; /* borrowed */
	uint64_t pgoff;
};

bool as_limit_allows(const struct mm *mm, uint64_t pages)
{
	return mm->total_vm + pages <= mm->limits.as >> PAGE_SHIFT;
}

bool data_limit_allows(const struct mm *mm, uint64_t pages)
{
	return mm->data_vm + pages <= mm->limits.data >> PAGE_SHIFT;
}

/* Pages that are mapped in [start, end). */
static uint64_t pages_in(struct mm *mm, uaddr_t start, uaddr_t end)
{
	uint64_t pages = 0;

	for (struct vma *v = vma_find(mm, start); v && v->start < end; v = vma_next(v))
		pages += (MIN(v->end, end) - MAX(v->start, start)) >> PAGE_SHIFT;
	return pages;
}

/* May @r be mapped at @at? Before what is there goes, so that a failure changes nothing. */
static int check_limits(struct mm *mm, const struct map_request *r, uaddr_t at)
{
	uint64_t pages = r->len >> PAGE_SHIFT;
	bool data = !(r->vflags & (VMA_SHARED | VMA_STACK)) && (r->prot & PROT_WRITE);

	if (mm->nr_vmas >= MAX_VMAS)
		return -ENOMEM;
	/* Locked memory is for who may lock some; it is counted even where it replaces some. */
	if ((r->flags & MAP_LOCKED) && !mm->limits.memlock)
		return -EPERM;
	if ((r->vflags & VMA_LOCKED) && mm->locked_vm + pages > mm->limits.memlock >> PAGE_SHIFT)
		return -EAGAIN;
	if (!as_limit_allows(mm, pages) &&
	    !as_limit_allows(mm, pages - pages_in(mm, at, at + r->len)))
		return -ENOMEM;
	if (data && !data_limit_allows(mm, pages))
		return -ENOMEM;
	/* More than there could ever be, as overcommit's heuristic refuses. */
	if (data && !(r->vflags & VMA_NORESERVE) && r->len > PHYS_RAM_SIZE)
		return -ENOMEM;
	return 0;
}

static long place(struct mm *mm, const struct map_request *r)
{
	if (r->flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
		if (r->addr & ~PAGE_MASK)
			return -EINVAL;
		if (r->len > USER_TOP || r->addr > USER_TOP - r->len)
			return -ENOMEM;
		if (r->addr < USER_MIN)
			return -EPERM;
		if ((r->flags & MAP_FIXED_NOREPLACE) && !range_free(mm, r->addr, r->len))
			return -EEXIST;
		return (long)r->addr;
	}
	if (r->flags & MAP_32BIT) {
		uaddr_t at = gap_above(mm, r->len, 0x40000000, 0x80000000);

		return at ? (long)at : -ENOMEM;
	}
	return (long)mm_find_gap_locked(mm, r->len, r->addr) ?: -ENOMEM;
}

static long map_locked(struct mm *mm, struct map_request *r)
{
	struct vma *v;
	long at = place(mm, r);
	int err;

	if (at < 0)
		return at;
	err = check_limits(mm, r, (uaddr_t)at);
	if (!err && (r->flags & MAP_FIXED))
		err = unmap_locked(mm, (uaddr_t)at, (uaddr_t)at + r->len);
	if (err)
		return err;
	/* Anonymous memory numbers its pages by address, so that neighbours join. */
	if (!r->file)
		r->pgoff = (uaddr_t)at >> PAGE_SHIFT;
	v = vma_alloc(mm, (uaddr_t)at, (uaddr_t)at + r->len, r->prot, r->vflags, r->file, r->pgoff);
	if (!v)
		return -ENOMEM;
	vma_insert(v);
	if ((r->vflags & VMA_LOCKED) || ((r->flags & MAP_POPULATE) && !(r->flags & MAP_NONBLOCK))) {
		(void)!populate(v, v->start, v->end, ACCESS_READ);
		(void)!pages_touch(mm, v->start, v->end);
	} else {
		populate_new(v);
	}
	vma_merge_around(mm, (uaddr_t)at, (uaddr_t)at + r->len);
	return at;
}

long mm_mmap(struct mm *mm, uaddr_t addr, size_t len, unsigned long prot, unsigned long flags,
	     struct file *file, uint64_t offset)
{
	unsigned long type = flags & MAP_TYPE;
	struct file *shmem = NULL;
	struct map_request r = {
		.addr = addr,
		.prot = prot & (PROT_READ | PROT_WRITE | PROT_EXEC),
		.flags = flags,
		.vflags = mm->def_flags,
		.file = file,
		.pgoff = offset >> PAGE_SHIFT,
	};
	bool shared = type == MAP_SHARED || type == MAP_SHARED_VALIDATE;
	long ret;

	if (flags & MAP_ANONYMOUS)
		file = r.file = NULL;
	if (!len || (offset & ~PAGE_MASK) || (type != MAP_PRIVATE && !shared))
		return -EINVAL;
	/* The validating kind is for files; anonymous memory knows no flags that matter. */
	if (type == MAP_SHARED_VALIDATE && !file)
		return -EINVAL;
	if (type == MAP_SHARED_VALIDATE &&
	    ((flags & ~(MAP_KNOWN_SHARED | MAP_TYPE)) || (flags & MAP_SYNC)))
		return -EOPNOTSUPP;
	r.len = PAGE_ALIGN_UP(len);
	if (!r.len || r.len > USER_TOP)
		return -ENOMEM;
	if (file && (offset > INT64_MAX || r.len > INT64_MAX - offset))
		return -EOVERFLOW;
	/* There are no huge pages, as on a machine where none are reserved. */
	if (flags & MAP_HUGETLB)
		return file ? -EINVAL : -ENOMEM;
	if (shared)
		r.vflags |= VMA_SHARED;
	if (flags & MAP_GROWSDOWN) {
		if (file || shared)
			return -EINVAL;
		r.vflags |= VMA_GROWSDOWN | VMA_STACK;
	}
	if ((flags & MAP_DENYWRITE) && file)
		r.vflags |= VMA_IMAGE;
	if (flags & MAP_NORESERVE)
		r.vflags |= VMA_NORESERVE;
	if (flags & MAP_LOCKED)
		r.vflags |= VMA_LOCKED;
	if (file) {
		ret = check_file(file, r.prot, &r.vflags, shared);
		if (!ret)
			ret = file->ops->mmap(file, shared, (unsigned int)r.prot);
		if (ret < 0)
			return ret;
		if (ret == 1)
			r.file = NULL; /* /dev/zero */
	}
	if (!r.file && shared) {
		shmem = mm_shmem_file ? mm_shmem_file(r.len) : ERR_PTR(-ENOMEM);
		if (IS_ERR(shmem))
			return PTR_ERR(shmem);
		r.file = shmem;
		r.pgoff = 0;
		r.vflags |= VMA_SHMEM;
	}
	write_lock(&mm->lock);
	ret = map_locked(mm, &r);
	mm_write_unlock(mm);
	if (shmem)
		file_put(shmem);
	return ret;
}

int mm_map_frames_locked(struct mm *mm, uaddr_t addr, const gpa_t *frames, size_t n,
			 unsigned long prot, const char *name)
{
	struct vma *v;
	int err = 0;

	v = vma_alloc(mm, addr, addr + n * PAGE_SIZE, prot, VMA_PINNED, NULL, addr >> PAGE_SHIFT);
	if (!v)
		return -ENOMEM;
	v->name = name;
	vma_insert(v);
	write_lock(&mm->pt_lock);
	for (size_t i = 0; i < n && !err; i++) {
		uint64_t *pte = pt_ensure(&mm->pt, addr + i * PAGE_SIZE);

		if (!pte) {
			err = -ENOMEM;
			break;
		}
		frame_get(frames[i]);
		/* As a file's page: shared with children, never copied. */
		pte_write(pte, pte_make(frames[i], vma_access(v)) | PTE_FILE);
		atomic_fetch_add(&mm->nr_file_rss, 1);
	}
	write_unlock(&mm->pt_lock);
	return err;
}

int mm_map_frames(struct mm *mm, uaddr_t addr, const gpa_t *frames, size_t n, unsigned long prot,
		  const char *name)
{
	int err;

	write_lock(&mm->lock);
	err = mm_map_frames_locked(mm, addr, frames, n, prot, name);
	mm_write_unlock(mm);
	return err;
}

int mm_munmap(struct mm *mm, uaddr_t addr, size_t len)
{
	int err;

	if ((addr & ~PAGE_MASK) || !len || len > USER_TOP || addr > USER_TOP - len)
		return -EINVAL;
	len = PAGE_ALIGN_UP(len);
	write_lock(&mm->lock);
	err = unmap_locked(mm, addr, addr + len);
	mm_write_unlock(mm);
	return err;
}

static uaddr_t brk_locked(struct mm *mm, uaddr_t brk)
{
	uaddr_t old = PAGE_ALIGN_UP(mm->brk), next = PAGE_ALIGN_UP(brk);
	struct map_request r = {.prot = PROT_READ | PROT_WRITE, .vflags = mm->def_flags};
	struct vma *v;

	if (brk < mm->brk_start || next < brk)
		return mm->brk;
	if (brk - mm->brk_start > mm->limits.data)
		return mm->brk;
	if (next < old) {
		if (unmap_locked(mm, next, old))
			return mm->brk;
	} else if (next > old) {
		struct vma *above = vma_find(mm, old);

		r.len = next - old;
		if (next > USER_TOP || (above && low_end(above) < next + PAGE_SIZE) ||
		    check_limits(mm, &r, old))
			return mm->brk;
		v = vma_alloc(mm, old, next, r.prot, r.vflags, NULL, old >> PAGE_SHIFT);
		if (!v)
			return mm->brk;
		v->name = "[heap]";
		vma_insert(v);
		populate_new(v);
		vma_merge_around(mm, old, next);
	}
	mm->brk = brk;
	return brk;
}

uaddr_t mm_brk(struct mm *mm, uaddr_t brk)
{
	uaddr_t ret;

	write_lock(&mm->lock);
	ret = brk_locked(mm, brk);
	mm_write_unlock(mm);
	return ret;
}
