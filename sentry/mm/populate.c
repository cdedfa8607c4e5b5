/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mapping pages before they are asked for. A fault costs an exit to the sentry (25–90 µs under
 * shadow paging), an entry that is there already costs nothing until it is touched, and then only
 * the host's own demand paging. So:
 *   - anonymous memory is sparse extents of the memory file, mapped up to ANON_EAGER at once and by
 *     windows of up to 2 MiB beyond;
 *   - file pages are mapped in the contiguous runs that the file offers, up to FILE_WINDOW;
 *   - the small writable segments of programs (.data, .got) are copied at once: each of their pages
 *     would cost a copy-on-write fault.
 * When the sandbox has handed out as much memory as its limit, windows shrink to one page.
 */
#include <string.h>

#include "sentry/mm/internal.h"

#define ANON_EAGER	 (4UL << 20)  /* mapped at mmap time when not larger */
#define ANON_WINDOW_MIN	 (128UL << 10)
#define ANON_WINDOW_MAX	 (2UL << 20)
#define FILE_WINDOW	 (2UL << 20)
#define SHARED_WINDOW	 (64UL << 10) /* writable shared pages are real memory, not holes */
#define DATA_EAGER	 (64UL << 10) /* private writable file mappings copied at once */
#define EXTENT_PAGES	 512UL

/* Anonymous pages for the hole [start, end) of the table. pt_lock held exclusively. */
static int fill_anon(struct mm *mm, uaddr_t start, uaddr_t end, unsigned int access)
{
	while (start < end) {
		/* A run within one leaf table, so that large extents stay aligned with it. */
		uaddr_t stop = MIN(end, ALIGN_DOWN(start, PT_LEAF_SPAN) + PT_LEAF_SPAN);
		size_t n = (stop - start) >> PAGE_SHIFT;
		uint64_t *pte = pt_ensure(&mm->pt, start);
		gpa_t gpa;

		if (!pte)
			return -ENOMEM;
		gpa = n == 1 ? frame_alloc() : frame_alloc_extent(MIN(n, EXTENT_PAGES));
		if (gpa == GPA_NONE)
			return -ENOMEM;
		for (size_t i = 0; i < n; i++)
			pte_write(pte + i, pte_make(gpa + i * PAGE_SIZE, access));
		atomic_fetch_add(&mm->nr_anon_rss, n);
		start = stop;
	}
	return 0;
}

static int populate_anon(struct vma *vma, uaddr_t start, uaddr_t end)
{
	struct mm *mm = vma->mm;
	unsigned int access = vma_access(vma);
	uaddr_t va = start;
	int err = 0;

	write_lock(&mm->pt_lock);
	while (va < end && !err) {
		uaddr_t hole = va;

		if (!pt_next(&mm->pt, &va, end))
			va = end;
		if (va > hole)
			err = fill_anon(mm, hole, va, access);
		va += PAGE_SIZE;
	}
	write_unlock(&mm->pt_lock);
	return err;
}

/* A private copy of the file page at @gpa. */
static gpa_t copy_page(gpa_t gpa)
{
	gpa_t copy = frame_alloc_dirty();

	if (copy != GPA_NONE)
		memcpy(phys_ptr(copy), phys_ptr(gpa), PAGE_SIZE);
	return copy;
}

/* Entries for @n pages of a file from @gpa at @va. mapping->lock and pt_lock held. */
static int install_file(struct vma *vma, uaddr_t va, gpa_t gpa, size_t n, bool writable, bool copy)
{
	struct mm *mm = vma->mm;
	unsigned int access = vma_access(vma);
	bool private = !(vma->flags & VMA_SHARED);
	uint64_t *pte = NULL;

	if (!writable)
		access &= ~(unsigned int)ACCESS_WRITE;
	for (size_t i = 0; i < n; i++, va += PAGE_SIZE) {
		gpa_t page = gpa + i * PAGE_SIZE;

		pte = pte && (va & (PT_LEAF_SPAN - 1)) ? pte + 1 : pt_ensure(&mm->pt, va);
		if (!pte || PTE_USED(pte_read(pte))) {
			/* Out of memory, or somebody was faster: not needed. */
			frame_put(page);
			if (!pte)
				return -ENOMEM;
			continue;
		}
		if (copy) {
			gpa_t own = copy_page(page);

			frame_put(page);
			if (own == GPA_NONE)
				return -ENOMEM;
			pte_write(pte, pte_make(own, vma_access(vma)));
			atomic_fetch_add(&mm->nr_anon_rss, 1);
		} else {
			pte_write(pte, pte_make(page, access) | PTE_FILE | (private ? PTE_COW : 0));
			atomic_fetch_add(&mm->nr_file_rss, 1);
		}
	}
	return 0;
}

static int populate_file(struct vma *vma, uaddr_t start, uaddr_t end, unsigned int access)
{
	struct inode *inode = vma->file->inode;
	struct mapping *m = &inode->mapping;
	struct mm *mm = vma->mm;
	bool shared_write = (vma->flags & VMA_SHARED) && (vma->prot & PROT_WRITE);
	bool copy = vma_private_writable(vma) && vma->end - vma->start <= DATA_EAGER;
	uaddr_t va = start;
	int err = 0;

	mutex_lock(&m->lock);
	while (va < end) {
		uaddr_t hole = va, next = va;
		uint64_t *pte;
		size_t n;
		gpa_t gpa;

		read_lock(&mm->pt_lock);
		pte = pt_next(&mm->pt, &next, end);
		read_unlock(&mm->pt_lock);
		if (!pte)
			next = end;
		if (next == hole) {
			va += PAGE_SIZE;
			continue;
		}
		n = (next - hole) >> PAGE_SHIFT;
		err = inode->mops->get_pages(inode, vma_pgoff(vma, hole), shared_write, &gpa, &n);
		if (!err)
			err = phys_use_range(gpa, n * PAGE_SIZE);
		if (err)
			break;
		write_lock(&mm->pt_lock);
		err = install_file(vma, hole, gpa, n, shared_write, copy);
		write_unlock(&mm->pt_lock);
		if (err)
			break;
		va = hole + n * PAGE_SIZE;
	}
	mutex_unlock(&m->lock);
	/* Beyond the end of the file is an error only for who asked for just that. */
	return err == -EFAULT && va > start ? 0 : err;
}

int populate(struct vma *vma, uaddr_t start, uaddr_t end, unsigned int access)
{
	if (!vma_access(vma))
		return 0;
	return vma->file ? populate_file(vma, start, end, access) : populate_anon(vma, start, end);
}

/* Has the sandbox handed out what it may use? Then nothing is mapped ahead. */
static bool memory_tight(void)
{
	struct physmem_stats st;

	physmem_limits(&st);
	return st.limit && st.frames * PAGE_SIZE > st.limit;
}

void populate_new(struct vma *vma)
{
	size_t len = vma->end - vma->start;

	if (!vma_access(vma) || memory_tight() || (vma->flags & VMA_PINNED))
		return;
	if (!vma->file) {
		if (vma->flags & VMA_STACK)
			len = MIN(len, ANON_WINDOW_MIN);
		else if (len > ANON_EAGER || (vma->flags & VMA_NORESERVE))
			return;
		(void)!populate(vma, vma->end - len, vma->end, ACCESS_READ);
	} else if (vma->flags & VMA_SHARED) {
		return;
	} else if (len <= FILE_WINDOW || vma_private_writable(vma)) {
		(void)!populate(vma, vma->start, vma->start + MIN(len, FILE_WINDOW), ACCESS_READ);
	}
}

int populate_fault(struct vma *vma, uaddr_t addr, unsigned int access)
{
	uaddr_t start, end;
	size_t window;
	int err;

	addr = PAGE_ALIGN_DOWN(addr);
	if (memory_tight())
		window = PAGE_SIZE;
	else if (vma->file)
		window = vma->flags & VMA_SHARED && vma->prot & PROT_WRITE ? SHARED_WINDOW
									  : FILE_WINDOW;
	else
		window = MIN(MAX(ANON_WINDOW_MIN, vma->populated), ANON_WINDOW_MAX);
	start = MAX(ALIGN_DOWN(addr, window), vma->start);
	end = MIN(ALIGN_DOWN(addr, window) + window, vma->end);
	/* Doubled each time: memory that is walked through is soon mapped 2 MiB at a time. */
	vma->populated = MIN(window * 2, ANON_WINDOW_MAX);
	err = populate(vma, addr, addr + PAGE_SIZE, access);
	if (err || window == PAGE_SIZE)
		return err;
	(void)!populate(vma, addr, end, access);
	(void)!populate(vma, start, addr, access);
	return 0;
}
