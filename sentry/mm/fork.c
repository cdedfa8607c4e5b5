/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork's copy of an address space. A copy-on-write fault costs some hundred times a page copy, and
 * write-protecting the parent makes it fault as well. So a process with one thread and few resident
 * private pages has them copied outright, its own table untouched; others share them copy-on-write.
 */
#include <errno.h>
#include <string.h>

#include "sentry/mm/internal.h"
#include "sentry/mm/sites.h"

#define RESIDENT_WINDOW 512 /* pages per look at the host's residency */
#define RESIDENT_FEW	4   /* taken for resident without a look */

size_t mm_fork_copy_pages = 2048; /* 8 MiB: 0.2 to 0.6 ms of copying */

/*
 * Which of @n pages from @gpa the host really holds: the rest reads as zero. To ask costs more than
 * copying a few pages.
 */
static void residency(gpa_t gpa, size_t n, unsigned char *vec)
{
	if (n <= RESIDENT_FEW)
		memset(vec, 1, n);
	else
		frames_resident(gpa, n, vec);
}

/* The run of anonymous private entries at *@va: contiguous in both. Returns its length. */
static size_t anon_run(struct mm *mm, uaddr_t va, uaddr_t end, const uint64_t *pte)
{
	gpa_t gpa = pte_read(pte) & PTE_ADDR;
	size_t n = 1;

	while (n < RESIDENT_WINDOW && va + n * PAGE_SIZE < end &&
	       ((va + n * PAGE_SIZE) & (PT_LEAF_SPAN - 1))) {
		uint64_t v = pte_read(pte + n);

		if ((v & PTE_FILE) || (v & PTE_ADDR) != gpa + n * PAGE_SIZE)
			break;
		n++;
	}
	return n;
}

/* Copies @n pages, RESIDENT_WINDOW at most, of which both sides are contiguous. */
static void copy_pages(const struct mm *mm, gpa_t to, gpa_t gpa, size_t n)
{
	gpa_t from[RESIDENT_WINDOW];

	for (size_t i = 0; i < n; i++)
		from[i] = gpa + i * PAGE_SIZE;
	pages_copy(mm, to, from, n);
}

/*
 * Copies the resident ones of @n pages from @gpa to the child at @va. The child gets an extent for
 * the whole run: what the parent never touched costs it no memory, and no fault later. A run that
 * nobody touched is left to the child's own faults.
 */
static int copy_run(struct vma *child, uaddr_t va, gpa_t gpa, size_t n)
{
	unsigned char vec[RESIDENT_WINDOW];
	struct mm *mm = child->mm;
	size_t first = 0, last = n, i, run;
	uint64_t *pte;
	gpa_t own;

	residency(gpa, n, vec);
	while (first < n && !(vec[first] & 1))
		first++;
	if (first == n)
		return 0;
	if (memory_tight()) {
		while (!(vec[last - 1] & 1))
			last--;
	} else {
		first = 0;
	}
	pte = pt_ensure(&mm->pt, va + first * PAGE_SIZE);
	if (!pte)
		return -ENOMEM;
	own = last - first == 1 ? frame_alloc_dirty() : frame_alloc_extent(last - first);
	if (own == GPA_NONE)
		return -ENOMEM;
	for (i = first; i < last; i += run) {
		run = 1;
		if (!(vec[i] & 1))
			continue;
		while (i + run < last && (vec[i + run] & 1))
			run++;
		copy_pages(mm, own + (i - first) * PAGE_SIZE, gpa + i * PAGE_SIZE, run);
	}
	for (i = first; i < last; i++) {
		uint64_t e = pte_make(own + (i - first) * PAGE_SIZE, vma_access(child));

		pte_write(pte + i - first, vma_access(child) ? e : e & ~PTE_P);
	}
	atomic_fetch_add(&mm->nr_anon_rss, last - first);
	return 0;
}

/* Shares one entry; returns what the parent's must become. */
static uint64_t share_entry(struct vma *vma, uint64_t value, bool private_anon)
{
	frame_get(value & PTE_ADDR);
	if (!private_anon)
		return value;
	return (value & ~PTE_RW) | PTE_COW;
}

/* The entries of @old into @child. old->mm's pt_lock is held exclusively. */
static int copy_entries(struct vma *old, struct vma *child, bool outright, bool *protected)
{
	struct mm *from = old->mm, *to = child->mm;
	bool private = !(old->flags & VMA_SHARED);
	uaddr_t va = old->start;
	uint64_t *pte;

	while ((pte = pt_next(&from->pt, &va, old->end))) {
		uint64_t value = pte_read(pte), next, *dst;
		bool anon = private && !(value & PTE_FILE);

		if (anon && outright) {
			size_t n = anon_run(from, va, old->end, pte);
			int err = copy_run(child, va, value & PTE_ADDR, n);

			if (err)
				return err;
			va += n * PAGE_SIZE;
			continue;
		}
		dst = pt_ensure(&to->pt, va);
		if (!dst)
			return -ENOMEM;
		next = share_entry(old, value, anon);
		pte_write(dst, next & ~PTE_STUB);
		atomic_fetch_add(value & PTE_FILE ? &to->nr_file_rss : &to->nr_anon_rss, 1);
		if (next != value) {
			pte_write(pte, next);
			*protected = true;
		}
		va += PAGE_SIZE;
	}
	return 0;
}

static int copy_vma(struct vma *old, struct mm *to, bool outright, bool *protected)
{
	struct vma *child;
	int err = 0;

	if (old->flags & VMA_DONTFORK)
		return 0;
	child = vma_alloc(to, old->start, old->end, old->prot,
			  old->flags & ~(unsigned long)VMA_LOCKED, old->file, old->pgoff);
	if (!child)
		return -ENOMEM;
	child->name = old->name;
	vma_insert(child);
	if (old->flags & VMA_WIPEONFORK)
		return 0;
	/*
	 * Files: mapping->lock keeps a truncation from passing between the two tables. Shared and
	 * image pages are taken over, too: faulting them again would cost more.
	 */
	if (old->file)
		mutex_lock(&old->file->inode->mapping.lock);
	write_lock(&old->mm->pt_lock);
	err = copy_entries(old, child, outright, protected);
	write_unlock(&old->mm->pt_lock);
	if (old->file)
		mutex_unlock(&old->file->inode->mapping.lock);
	return err;
}

struct mm *mm_fork(struct mm *old)
{
	struct mm *mm = mm_alloc(old->platform);
	bool outright, protected = false;
	struct rb_node *n;
	int err = 0;

	if (IS_ERR(mm))
		return mm;
	write_lock(&old->lock);
	/* Nobody else writes to what is copied: else it might show the later of two stores. */
	outright = refcount_read(&old->users) == 1 &&
		   (atomic_load(&old->nr_anon_rss) <= mm_fork_copy_pages ||
		    resident_anon(old, 0, USER_TOP, mm_fork_copy_pages) <= mm_fork_copy_pages);
	for (n = rb_first(&old->vmas); n && !err; n = rb_next(n))
		err = copy_vma(rb_entry(n, struct vma, node), mm, outright, &protected);
	if (protected) {
		write_lock(&old->pt_lock);
		old->platform->type->as_invalidate(old->as, 0, USER_TOP);
		write_unlock(&old->pt_lock);
	}
	mm->mmap_base = old->mmap_base;
	mm->brk_start = old->brk_start;
	mm->brk = old->brk;
	mm->stack_top = old->stack_top;
	mm->arg_start = old->arg_start;
	mm->arg_end = old->arg_end;
	mm->env_start = old->env_start;
	mm->env_end = old->env_end;
	mm->vdso = old->vdso;
	memcpy(mm->auxv, old->auxv, sizeof(mm->auxv));
	mm->auxv_len = old->auxv_len;
	mm->limits = old->limits;
	mm->dumpable = old->dumpable;
	atomic_store(&mm->membarrier, atomic_load(&old->membarrier));
	sites_fork(old, mm);
	if (!err && old->exe)
		err = mm_set_exe(mm, old->exe);
	mm_write_unlock(old);
	if (err) {
		mm_put(mm);
		return ERR_PTR(err);
	}
	return mm;
}

size_t resident_anon(struct mm *mm, uaddr_t start, uaddr_t end, size_t enough)
{
	unsigned char vec[RESIDENT_WINDOW];
	uaddr_t va = start;
	size_t total = 0;
	uint64_t *pte;

	read_lock(&mm->pt_lock);
	while (total <= enough && (pte = pt_next(&mm->pt, &va, end))) {
		size_t n = 1;

		if (!(pte_read(pte) & PTE_FILE)) {
			n = anon_run(mm, va, end, pte);
			frames_resident(pte_read(pte) & PTE_ADDR, n, vec);
			for (size_t i = 0; i < n; i++)
				total += vec[i] & 1;
		}
		va += n * PAGE_SIZE;
	}
	read_unlock(&mm->pt_lock);
	return total;
}
