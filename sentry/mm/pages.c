/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking pages away. Entries are cleared in batches; the platform's caches are told; then the frames
 * go, runs of neighbours in one call.
 */
#include "sentry/mm/internal.h"

#define BATCH 512

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
