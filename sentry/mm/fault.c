/* SPDX-License-Identifier: Apache-2.0 */
/* Page faults: populate, copy on write, grow the stack, or say which signal. */
#include <errno.h>
#include <string.h>

#include "sentry/lib/physmem_frozen.h"
#include "sentry/mm/frozen.h"
#include "sentry/mm/internal.h"

#define COW_AROUND  8  /* neighbours copied along: a fault costs more than eight copies */
#define COW_MOST    64 /* of a program's data, which is soon all touched: doubles with each fault */
#define LENT_AROUND 64 /* that a copy makes its own at once, if the others wrote to them */

static int sigsegv(siginfo_t *info, uaddr_t addr, int code)
{
	info->si_signo = SIGSEGV;
	info->si_code = code;
	info->si_addr = (void *)addr;
	return -EFAULT;
}

static int sigbus(siginfo_t *info, uaddr_t addr)
{
	info->si_signo = SIGBUS;
	info->si_code = BUS_ADRERR;
	info->si_addr = (void *)addr;
	return -EFAULT;
}

/*
 * The stack below @addr's next vma may have to grow. Returns the vma that has @addr, or NULL. Excl.
 */
static struct vma *grow_stack(struct mm *mm, uaddr_t addr)
{
	struct vma *v = vma_find(mm, addr), *prev;
	uaddr_t start = PAGE_ALIGN_DOWN(addr);

	if (!v || v->start <= addr)
		return v;
	if (!(v->flags & VMA_GROWSDOWN))
		return NULL;
	if (v->end - start > mm->limits.stack ||
	    !as_limit_allows(mm, (v->start - start) >> PAGE_SHIFT))
		return NULL;
	prev = vma_prev(v);
	if (start < USER_MIN + STACK_GUARD_GAP ||
	    (prev && (prev->prot & (PROT_READ | PROT_WRITE | PROT_EXEC)) &&
	     !(prev->flags & VMA_GROWSDOWN) && prev->end + STACK_GUARD_GAP > start) ||
	    (prev && prev->end > start))
		return NULL;
	vma_resize(v, start, v->end);
	return v;
}

/* Several pages to be copied: into frames in one piece, at once, if there are such. */
struct copies {
	gpa_t from[COW_MOST];
	size_t n, used;
	gpa_t to; /* GPA_NONE: one by one */
};

static void copies_make(struct copies *c, const struct mm *mm)
{
	c->to = c->n > 1 ? frame_alloc_extent(c->n) : GPA_NONE;
	if (c->to != GPA_NONE)
		pages_copy(mm, c->to, c->from, c->n);
}

/* Is a copy of the page at @gpa next? They are taken in the order of from[]. */
static bool copies_have(const struct copies *c, gpa_t gpa)
{
	return c->used < c->n && c->from[c->used] == gpa;
}

/* That copy, or GPA_NONE. */
static gpa_t copies_take(struct copies *c)
{
	size_t i = c->used++;
	gpa_t own;

	if (c->to != GPA_NONE)
		return c->to + i * PAGE_SIZE;
	own = frame_alloc_dirty();
	if (own != GPA_NONE)
		memcpy(phys_ptr(own), phys_ptr(c->from[i]), PAGE_SIZE);
	return own;
}

static void copies_end(struct copies *c)
{
	if (c->to != GPA_NONE && c->used < c->n)
		frame_put_range(c->to + c->used * PAGE_SIZE, c->n - c->used);
}

static bool cow_must_copy(uint64_t pte)
{
	return (pte & PTE_FILE) || frame_refs(pte & PTE_ADDR) != 1;
}

/* Makes the entry writable: by copying, or because nobody else has the page. pt_lock excl. */
static int break_cow_one(struct vma *vma, uint64_t *pte, struct copies *copies)
{
	uint64_t old = pte_read(pte);
	gpa_t gpa = old & PTE_ADDR, own;

	/* One that had to be copied a moment ago need not any more, perhaps: but it has been. */
	if (!copies_have(copies, gpa)) {
		if (physmem_own(gpa, 1))
			return -ENOMEM;
		pte_write(pte, pte_make(gpa, vma_access(vma)));
		return 0;
	}
	own = copies_take(copies);
	if (own == GPA_NONE)
		return -ENOMEM;
	pte_write(pte, pte_make(own, vma_access(vma)));
	if (old & PTE_FILE) {
		atomic_fetch_sub(&vma->mm->nr_file_rss, 1);
		atomic_fetch_add(&vma->mm->nr_anon_rss, 1);
	}
	return 0;
}

/* The entry at @va if a fault at @addr makes it writable as well; else NULL. */
static uint64_t *cow_entry(struct vma *vma, uaddr_t va, uaddr_t addr)
{
	uint64_t *pte = pt_find(&vma->mm->pt, va), old = pte ? pte_read(pte) : 0;

	if (!(old & PTE_P) || (old & PTE_RW) || !(old & PTE_COW))
		return NULL;
	/* An untouched page of a file goes on showing the file, but for a program's own. */
	if (va != addr && (old & PTE_FILE) && !(vma->flags & VMA_IMAGE))
		return NULL;
	return pte;
}

/* How many bytes around a fault; for a program's data more each time. pt_lock excl. */
static size_t cow_window(struct vma *vma)
{
	size_t window = MAX(COW_AROUND * PAGE_SIZE, vma->populated);

	if (memory_tight())
		return PAGE_SIZE;
	if (!vma->file || !(vma->flags & VMA_IMAGE))
		return COW_AROUND * PAGE_SIZE;
	window = MIN(window, COW_MOST * PAGE_SIZE);
	vma->populated = window * 2;
	return window;
}

/*
 * Copy on write at @addr and a few neighbours in the same state. 0, or -ENOMEM. pt_lock excl.
 */
static int break_cow(struct vma *vma, uaddr_t addr)
{
	struct copies copies;
	struct mm *mm = vma->mm;
	gpa_t freed[COW_MOST];
	size_t around = cow_window(vma), nfreed = 0;
	uaddr_t base, end, va;
	uint64_t *pte, old;
	int err = 0;

	addr = PAGE_ALIGN_DOWN(addr);
	base = MAX(ALIGN_DOWN(addr, around), vma->start);
	end = MIN(ALIGN_DOWN(addr, around) + around, vma->end);
	copies.n = copies.used = 0;
	for (va = base; va < end; va += PAGE_SIZE) {
		pte = cow_entry(vma, va, addr);
		if (pte && cow_must_copy(pte_read(pte)))
			copies.from[copies.n++] = pte_read(pte) & PTE_ADDR;
	}
	copies_make(&copies, mm);
	for (va = base; va < end; va += PAGE_SIZE) {
		pte = cow_entry(vma, va, addr);
		if (!pte)
			continue;
		old = pte_read(pte);
		err = break_cow_one(vma, pte, &copies);
		if (err && va == addr)
			break;
		err = 0;
		if ((pte_read(pte) ^ old) & PTE_ADDR)
			freed[nfreed++] = old & PTE_ADDR;
	}
	mm->platform->type->as_invalidate(mm->as, base, end - base);
	while (nfreed)
		frame_put(freed[--nfreed]);
	copies_end(&copies);
	return err;
}

/* A write to a shared file's page that is mapped read-only so far: the file makes it its own. */
static int make_shared_writable(struct vma *vma, uaddr_t addr)
{
	struct inode *inode = vma->file->inode;
	struct mm *mm = vma->mm;
	uaddr_t va = PAGE_ALIGN_DOWN(addr);
	size_t n = 1;
	uint64_t *pte, old;
	gpa_t gpa;
	int err;

	mutex_lock(&inode->mapping.lock);
	err = inode->mops->get_pages(inode, vma_pgoff(vma, va), true, &gpa, &n);
	if (err)
		goto out_unlock;
	write_lock(&mm->pt_lock);
	pte = pt_ensure(&mm->pt, va);
	old = pte ? pte_read(pte) : 0;
	if (pte) {
		pte_write(pte, pte_make(gpa, vma_access(vma)) | PTE_FILE);
		if (old & PTE_P)
			mm->platform->type->as_invalidate(mm->as, va, PAGE_SIZE);
		else
			atomic_fetch_add(&mm->nr_file_rss, 1);
	}
	write_unlock(&mm->pt_lock);
	if (!pte) {
		frame_put(gpa);
		err = -ENOMEM;
	} else if (PTE_USED(old)) {
		frame_put(old & PTE_ADDR);
	}
out_unlock:
	mutex_unlock(&inode->mapping.lock);
	return err;
}

/* The entry at @va if it is of a lent page that is going to be written to anyway; else NULL. */
static uint64_t *lent_entry(struct mm *mm, uaddr_t va)
{
	uint64_t *pte = pt_find(&mm->pt, va), value = pte ? pte_read(pte) : 0;

	return (value & (PTE_P | PTE_RW | PTE_COW | PTE_FILE)) == PTE_P &&
			       physmem_is_lent_hot(value & PTE_ADDR)
		       ? pte
		       : NULL;
}

/* How many pages from @va on are in frames one after the other from @gpa. */
static size_t run_of(struct mm *mm, gpa_t gpa, uaddr_t va, uaddr_t end)
{
	size_t n = 1;

	for (va += PAGE_SIZE; va < end; va += PAGE_SIZE, n++) {
		if ((pte_read(pt_find(&mm->pt, va)) & PTE_ADDR) != gpa + n * PAGE_SIZE)
			break;
	}
	return n;
}

/*
 * A page that is only write-protected so that its first write is seen. One that is lent comes with
 * those around it that each request writes to. 0, or -ENOMEM. pt_lock excl.
 */
static int make_writable(struct vma *vma, uaddr_t addr)
{
	uaddr_t page = PAGE_ALIGN_DOWN(addr), start = page, end = page + PAGE_SIZE, va;
	uaddr_t low = MAX(vma->start, ALIGN_DOWN(page, LENT_AROUND * PAGE_SIZE));
	uaddr_t high =
		MIN(vma->end, ALIGN_DOWN(page, LENT_AROUND * PAGE_SIZE) + LENT_AROUND * PAGE_SIZE);
	struct mm *mm = vma->mm;
	uint64_t *pte, value;
	int err = 0;

	if (lent_entry(mm, page)) {
		while (start > low && lent_entry(mm, start - PAGE_SIZE))
			start -= PAGE_SIZE;
		while (end < high && lent_entry(mm, end))
			end += PAGE_SIZE;
	}
	for (va = start; va < end && !err; va += PAGE_SIZE) {
		pte = pt_find(&mm->pt, va);
		value = pte_read(pte);
		if (phys_is_lent(value & PTE_ADDR))
			err = physmem_own(value & PTE_ADDR, run_of(mm, value & PTE_ADDR, va, end));
		if (!err)
			pte_write(pte, value | PTE_RW | PTE_D);
	}
	mm->platform->type->as_invalidate(mm->as, start, end - start);
	return err;
}

int fault_resolve(struct vma *vma, uaddr_t addr, unsigned int access)
{
	struct mm *mm = vma->mm;
	uint64_t *pte, value;
	int err = 0;

	read_lock(&mm->pt_lock);
	pte = pt_find(&mm->pt, addr);
	value = pte ? pte_read(pte) : 0;
	read_unlock(&mm->pt_lock);
	if (!PTE_USED(value)) {
		err = populate_fault(vma, addr, access);
		if (err || !(access & ACCESS_WRITE))
			return err;
		read_lock(&mm->pt_lock);
		pte = pt_find(&mm->pt, addr);
		value = pte ? pte_read(pte) : 0;
		read_unlock(&mm->pt_lock);
	}
	if (!(access & ACCESS_WRITE) || (value & PTE_RW))
		return 0; /* somebody was faster, or a cache of the platform's was behind */
	if (vma->flags & VMA_SHARED)
		return vma->file ? make_shared_writable(vma, addr) : 0;
	write_lock(&mm->pt_lock);
	pte = pt_find(&mm->pt, addr);
	value = pte ? pte_read(pte) : 0;
	if ((value & PTE_P) && !(value & PTE_RW)) {
		if (value & PTE_COW) {
			err = break_cow(vma, addr);
		} else {
			err = make_writable(vma, addr);
		}
	}
	write_unlock(&mm->pt_lock);
	return err;
}

static bool allowed(const struct vma *vma, unsigned int access)
{
	return (vma_access(vma) & access) == access;
}

int mm_fault(struct mm *mm, uaddr_t addr, unsigned int access, siginfo_t *info)
{
	struct vma *v;
	int err;

	info->si_signo = 0;
	if (addr >= USER_TOP)
		return sigsegv(info, addr, SEGV_MAPERR);
	atomic_fetch_add(&mm->min_flt, 1);
	read_lock(&mm->lock);
	v = vma_at(mm, addr);
	if (!v) {
		read_unlock(&mm->lock);
		write_lock(&mm->lock);
		v = grow_stack(mm, addr);
		mm_write_unlock(mm);
		if (!v)
			return sigsegv(info, addr, SEGV_MAPERR);
		read_lock(&mm->lock);
		v = vma_at(mm, addr);
	}
	if (!v)
		err = sigsegv(info, addr, SEGV_MAPERR);
	else if (!allowed(v, access))
		err = sigsegv(info, addr, SEGV_ACCERR);
	else if (physmem_over_limit())
		err = -ENOMEM;
	else
		err = fault_resolve(v, addr, access);
	read_unlock(&mm->lock);
	if (unlikely(mm_training) && !err)
		mm_train_note(mm, addr, access);
	if (err == -EIO || (err == -EFAULT && !info->si_signo))
		err = sigbus(info, addr);
	return err;
}
