/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking pages away. Entries are cleared in batches; the platform's caches are told; then the
 * frames go, runs of neighbours in one call.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "sentry/mm/internal.h"

#define BATCH 512

void pages_copy(const struct mm *mm, gpa_t to, const gpa_t *from, size_t n)
{
	/* Where the guest uses our own mapping of memory, the page faults are wanted anyway. */
	if (n > 1 && !mm->platform->type->own_memory && !frames_are_warm(to, n)) {
		frames_copy(to, from, n);
		return;
	}
	for (size_t i = 0; i < n; i++)
		memcpy(phys_ptr(to + i * PAGE_SIZE), phys_ptr(from[i]), PAGE_SIZE);
}

struct batch {
	gpa_t gpa[BATCH];
	size_t n;
};

static void put_batch(struct batch *b)
{
	size_t i = 0;

	while (i < b->n) {
		size_t run = 1;

		while (i + run < b->n && b->gpa[i + run] == b->gpa[i] + run * PAGE_SIZE)
			run++;
		frame_put_range(b->gpa[i], run);
		i += run;
	}
	b->n = 0;
}

static void count_gone(struct mm *mm, uint64_t pte)
{
	atomic_fetch_sub(pte & PTE_FILE ? &mm->nr_file_rss : &mm->nr_anon_rss, 1);
}

static void take_away(struct mm *mm, uaddr_t start, uaddr_t end, bool files, bool anon)
{
	struct platform *p = mm->platform;
	struct batch b = {.n = 0};
	uaddr_t va = start, first = start;
	uint64_t *pte;
	bool present = false;

	while ((pte = pt_next(&mm->pt, &va, end))) {
		uint64_t value = pte_read(pte);

		if (value & PTE_FILE ? files : anon) {
			pte_write(pte, 0);
			present |= value & PTE_P;
			count_gone(mm, value);
			b.gpa[b.n++] = value & PTE_ADDR;
		}
		va += PAGE_SIZE;
		if (b.n == BATCH) {
			if (present)
				p->type->as_invalidate(mm->as, first, va - first);
			put_batch(&b);
			first = va;
			present = false;
		}
	}
	if (present)
		p->type->as_invalidate(mm->as, first, end - first);
	put_batch(&b);
}

void pages_unmap(struct mm *mm, uaddr_t start, uaddr_t end)
{
	write_lock(&mm->pt_lock);
	take_away(mm, start, end, true, true);
	write_unlock(&mm->pt_lock);
}

void pages_zap(struct mm *mm, uaddr_t start, uaddr_t end, bool even_cow)
{
	write_lock(&mm->pt_lock);
	take_away(mm, start, end, true, even_cow);
	write_unlock(&mm->pt_lock);
}

int pages_touch(struct mm *mm, uaddr_t start, uaddr_t end)
{
	uaddr_t va = start;

	for (;;) {
		gpa_t gpa[BATCH];
		size_t n = 0, i = 0, run;
		uint64_t *pte;

		if (physmem_over_limit())
			return -ENOMEM;
		/* Held, so that the frames stay ours: nobody may store to one that is free. */
		read_lock(&mm->pt_lock);
		while (n < BATCH && (pte = pt_next(&mm->pt, &va, end))) {
			if (phys_is_ram(pte_read(pte) & PTE_ADDR))
				gpa[n++] = pte_read(pte) & PTE_ADDR;
			va += PAGE_SIZE;
		}
		for (; i < n; i += run) {
			for (run = 1; i + run < n && gpa[i + run] == gpa[i] + run * PAGE_SIZE;)
				run++;
			frames_populate(gpa[i], run);
		}
		read_unlock(&mm->pt_lock);
		if (!n)
			return 0;
	}
}
