/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mapping pages before they are asked for. A fault costs an exit to the sentry (25–90 µs under
 * shadow paging), an entry that is there already costs nothing until it is touched, and then only
 * the host's own demand paging. So:
 *   - anonymous memory is sparse extents of the memory file, mapped up to ANON_EAGER at once and by
 *     windows of up to 2 MiB beyond;
 *   - but where first touches are dear (platform_type.dear_touch), memory that is walked through
 *     upwards is also made resident by windows that double up to TOUCH_MAX, like readahead: at most
 *     twice what is used. On shadow-paging KVM that makes 5 µs of 26 per page, because a shadow
 *     fault then brings eight neighbours along;
 *   - file pages are mapped in the contiguous runs that the file offers, up to FILE_WINDOW;
 *   - the small writable segments of programs (.data, .got) are copied at once: each of their pages
 *     would cost a copy-on-write fault.
 * When the sandbox has handed out as much memory as its limit, windows shrink to one page.
 */
#include <errno.h>
#include <string.h>

#include "sentry/mm/internal.h"

#define ANON_EAGER	(4UL << 20) /* mapped at mmap time when not larger */
#define ANON_WINDOW_MIN (128UL << 10)
#define ANON_WINDOW_MAX (2UL << 20)
#define TOUCH_MIN	(64UL << 10) /* made resident at once, and on a walk's first fault */
#define TOUCH_MAX	(2UL << 20)
#define TOUCH_NEW_MAX	(1UL << 20) /* larger mappings wait for the first fault */
#define TOUCH_STACK	(32UL << 10)
#define FILE_WINDOW	(2UL << 20)
#define SHARED_WINDOW	(64UL << 10) /* writable shared pages are real memory, not holes */
#define DATA_EAGER	(64UL << 10) /* private writable file mappings copied at once */
#define IMAGE_EAGER	(32UL << 20) /* of an image's read-only segments, at mmap time */
#define EXTENT_PAGES	512UL

bool memory_tight(void)
{
	struct physmem_stats st;

	physmem_limits(&st);
	return st.limit && st.frames * PAGE_SIZE > st.limit;
}

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

/*
 * Private copies of @n pages of a file (DATA_EAGER at most) from @gpa, in one piece at @va, for
 * each entry that is unused; the references on the file's pages are dropped.
 */
static int install_copies(struct vma *vma, uaddr_t va, gpa_t gpa, size_t n)
{
	gpa_t own = n == 1 ? frame_alloc_dirty() : frame_alloc_extent(n);
	gpa_t from[DATA_EAGER / PAGE_SIZE];
	struct mm *mm = vma->mm;
	size_t i;

	for (i = 0; i < n; i++)
		from[i] = gpa + i * PAGE_SIZE;
	if (own != GPA_NONE)
		pages_copy(mm, own, from, n);
	for (i = 0; i < n && own != GPA_NONE; i++, va += PAGE_SIZE) {
		uint64_t *pte = pt_ensure(&mm->pt, va);

		if (!pte)
			break;
		if (PTE_USED(pte_read(pte))) {
			frame_put(own + i * PAGE_SIZE); /* somebody was faster */
			continue;
		}
		pte_write(pte, pte_make(own + i * PAGE_SIZE, vma_access(vma)));
		atomic_fetch_add(&mm->nr_anon_rss, 1);
	}
	if (own != GPA_NONE && i < n)
		frame_put_range(own + i * PAGE_SIZE, n - i);
	frame_put_range(gpa, n);
	return i < n ? -ENOMEM : 0;
}

/*
 * Entries for @n pages of a file from @gpa at @va; their references go to the table or are dropped.
 */
static int install_file(struct vma *vma, uaddr_t va, gpa_t gpa, size_t n, bool writable)
{
	struct mm *mm = vma->mm;
	unsigned int access = vma_access(vma);
	bool private = !(vma->flags & VMA_SHARED);
	uint64_t *pte = NULL;
	size_t i;

	if (!writable)
		access &= ~(unsigned int)ACCESS_WRITE;
	for (i = 0; i < n; i++, va += PAGE_SIZE) {
		gpa_t page = gpa + i * PAGE_SIZE;

		pte = pte && (va & (PT_LEAF_SPAN - 1)) ? pte + 1 : pt_ensure(&mm->pt, va);
		if (!pte) {
			frame_put_range(page, n - i);
			return -ENOMEM;
		}
		if (PTE_USED(pte_read(pte))) {
			frame_put(page); /* somebody was faster */
			continue;
		}
		pte_write(pte, pte_make(page, access) | PTE_FILE | (private ? PTE_COW : 0));
		atomic_fetch_add(&mm->nr_file_rss, 1);
	}
	return 0;
}

/* The pages of the hole [va, end) that the file has in one piece; *@va moves behind them. */
static int populate_run(struct vma *vma, uaddr_t *va, uaddr_t end)
{
	bool write = (vma->flags & VMA_SHARED) && (vma->prot & PROT_WRITE);
	bool copy = vma_private_writable(vma) && (vma->flags & VMA_IMAGE) &&
		    vma->end - vma->start <= DATA_EAGER && !memory_tight();
	struct inode *inode = vma->file->inode;
	size_t n = (end - *va) >> PAGE_SHIFT;
	gpa_t gpa;
	int err;

	err = inode->mops->get_pages(inode, vma_pgoff(vma, *va), write, &gpa, &n);
	if (err)
		return err;
	err = phys_use_range(gpa, n * PAGE_SIZE);
	if (err) {
		frame_put_range(gpa, n);
		return err;
	}
	write_lock(&vma->mm->pt_lock);
	err = copy ? install_copies(vma, *va, gpa, n) : install_file(vma, *va, gpa, n, write);
	write_unlock(&vma->mm->pt_lock);
	*va += n * PAGE_SIZE;
	return err;
}

static int populate_file(struct vma *vma, uaddr_t start, uaddr_t end)
{
	struct mapping *m = &vma->file->inode->mapping;
	struct mm *mm = vma->mm;
	uaddr_t va = start;
	int err = 0;

	if (!vma->file->inode->mops)
		return -EFAULT;
	mutex_lock(&m->lock);
	while (va < end && !err) {
		uaddr_t next = va;

		read_lock(&mm->pt_lock);
		if (!pt_next(&mm->pt, &next, end))
			next = end;
		read_unlock(&mm->pt_lock);
		if (next == va)
			va += PAGE_SIZE;
		else
			err = populate_run(vma, &va, next);
	}
	mutex_unlock(&m->lock);
	/* Beyond the end of the file is an error only for who asked for just that. */
	return err == -EFAULT && va > start ? 0 : err;
}

int populate(struct vma *vma, uaddr_t start, uaddr_t end, unsigned int access)
{
	if (!vma_access(vma))
		return 0;
	return vma->file ? populate_file(vma, start, end) : populate_anon(vma, start, end);
}

/* Is the page at @va one of the image's, which the host's page cache has and nobody pays for? */
static bool is_image_page(struct vma *vma, uaddr_t va)
{
	struct mm *mm = vma->mm;
	uint64_t *pte;
	bool image;

	read_lock(&mm->pt_lock);
	pte = pt_find(&mm->pt, va);
	image = pte && PTE_USED(pte_read(pte)) && !phys_is_ram(pte_read(pte) & PTE_ADDR);
	read_unlock(&mm->pt_lock);
	return image;
}

/* A new private file mapping: a window of any file, more of an image's. */
static void populate_new_file(struct vma *vma)
{
	uaddr_t stop = MIN(vma->end, vma->start + FILE_WINDOW);
	uaddr_t last = MIN(vma->end, vma->start + IMAGE_EAGER);

	if (populate(vma, vma->start, MIN(vma->end, vma->start + PAGE_SIZE), ACCESS_READ))
		return;
	/* What must be copied or read by the host is not fetched ahead of a large mapping's use. */
	if (!is_image_page(vma, vma->start) && vma->end - vma->start > FILE_WINDOW)
		return;
	if (is_image_page(vma, vma->start))
		stop = last;
	(void)!populate(vma, vma->start, stop, ACCESS_READ);
}

/* Is @vma memory whose walkers are to be run ahead of? */
static bool touches_ahead(const struct vma *vma)
{
	return vma->mm->platform->type->dear_touch && !vma->file && !(vma->flags & VMA_STACK) &&
	       (vma->prot & PROT_WRITE) && !memory_tight();
}

/* Maps @window bytes from @start, @addr among them, and makes the host hold them. Held. */
static int populate_ahead(struct vma *vma, uaddr_t start, uaddr_t addr, size_t window)
{
	uaddr_t end = vma->end;
	int err;

	if (end - start > window) {
		end = ALIGN_DOWN(start + window, window);
		if (end <= addr)
			end = start + window;
	}
	err = populate(vma, start, end, ACCESS_WRITE);
	if (err)
		return err;
	(void)!pages_touch(vma->mm, start, end);
	__atomic_store_n(&vma->ahead, end, __ATOMIC_RELAXED);
	__atomic_store_n(&vma->populated, window, __ATOMIC_RELAXED);
	return 0;
}

/* The window after one of @populated bytes. */
static size_t next_window(uint64_t populated)
{
	return MIN(MAX(TOUCH_MIN, populated * 2), TOUCH_MAX);
}

/* A fault at @addr, if it is the next step of a walk. 0: mapped. */
static int populate_walk(struct vma *vma, uaddr_t addr)
{
	uaddr_t ahead = __atomic_load_n(&vma->ahead, __ATOMIC_RELAXED);
	uint64_t populated = __atomic_load_n(&vma->populated, __ATOMIC_RELAXED);

	if (ahead >= vma->start && addr >= ahead && addr - ahead < TOUCH_MIN)
		return populate_ahead(vma, ahead, addr, next_window(populated));
	if (addr == vma->start)
		return populate_ahead(vma, addr, addr, TOUCH_MIN);
	return -EAGAIN;
}

/* What @vma has got from @from on, by growing or as the neighbour of what it will be joined to. */
static void touch_grown(struct vma *vma, uaddr_t from)
{
	struct vma *before = from > vma->start ? vma : vma_prev(vma);
	size_t window = TOUCH_MIN;

	if (vma->end - from > TOUCH_NEW_MAX)
		return;
	/* Growth of what has been walked through to its end is going to be, too. */
	if (before && before->ahead == from)
		window = next_window(before->populated);
	(void)!populate_ahead(vma, from, from, window);
}

void populate_grown(struct vma *vma, uaddr_t from)
{
	if (!vma_access(vma) || vma->file || memory_tight() || (vma->flags & VMA_PINNED))
		return;
	if (touches_ahead(vma))
		touch_grown(vma, from);
	else if (vma->end - from <= ANON_EAGER)
		(void)!populate(vma, from, vma->end, ACCESS_READ);
}

void populate_new(struct vma *vma)
{
	if (!vma_access(vma) || (vma->flags & VMA_PINNED))
		return;
	if (!vma->file)
		populate_grown(vma,
			       vma->flags & VMA_STACK
				       ? MAX(vma->start, vma->end - MIN(vma->end, ANON_WINDOW_MIN))
				       : vma->start);
	else if (!(vma->flags & VMA_SHARED))
		populate_new_file(vma);
	if (vma->flags & VMA_STACK && vma->mm->platform->type->dear_touch && !memory_tight())
		(void)!pages_touch(vma->mm, vma->end - MIN(vma->end - vma->start, TOUCH_STACK),
				   vma->end);
}

static size_t fault_window(const struct vma *vma)
{
	/* Read-only pages of files cost no memory of the sandbox's. */
	if (vma->file && !(vma->prot & PROT_WRITE))
		return FILE_WINDOW;
	if (memory_tight())
		return PAGE_SIZE;
	if (vma->file)
		return vma->flags & VMA_SHARED ? SHARED_WINDOW : FILE_WINDOW;
	if (vma->mm->platform->type->dear_touch)
		return ANON_WINDOW_MAX;
	/* Two threads may set it at a time: any value will do. */
	return MIN(MAX(ANON_WINDOW_MIN, __atomic_load_n(&vma->populated, __ATOMIC_RELAXED)),
		   ANON_WINDOW_MAX);
}

int populate_fault(struct vma *vma, uaddr_t addr, unsigned int access)
{
	size_t window = fault_window(vma);
	bool ahead = touches_ahead(vma);
	uaddr_t start, end;

	addr = PAGE_ALIGN_DOWN(addr);
	if (ahead && !populate_walk(vma, addr))
		return 0;
	start = MAX(ALIGN_DOWN(addr, window), vma->start);
	end = MIN(ALIGN_DOWN(addr, window) + window, vma->end);
	/* Doubled each time: memory that is walked through is soon mapped 2 MiB at a time. */
	if (!ahead)
		__atomic_store_n(&vma->populated, MIN(window * 2, ANON_WINDOW_MAX),
				 __ATOMIC_RELAXED);
	/* The window in one piece, so that its extent is as aligned as it is. */
	if (!vma->file && !populate(vma, start, end, access))
		return 0;
	if (vma->file && window > PAGE_SIZE) {
		/*
		 * Around it, as far as there is something: what counts is the page itself, below.
		 */
		(void)!populate(vma, addr, end, access);
		(void)!populate(vma, start, addr, access);
	}
	return populate(vma, addr, addr + PAGE_SIZE, access);
}
