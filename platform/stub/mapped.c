/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stub process has mapped that its next address space may have just so: the child of a fork
 * mostly has what its elder sibling had, whose process it gets from the pool. A note is true of the
 * stub whatever happens to frames and page tables; it goes when anything becomes stale there.
 */
#include "platform/stub/stub.h"

#include <string.h>

#include "sentry/lib/physmem.h"

void stub_mapped_forget(struct stub_proc *proc, uaddr_t start, uaddr_t end)
{
	size_t n = 0;

	for (size_t i = 0; i < proc->nr_mapped; i++) {
		const struct stub_run *r = &proc->mapped[i];

		if (r->end <= start || r->start >= end)
			proc->mapped[n++] = *r;
	}
	proc->nr_mapped = n;
}

void stub_mapped_note(struct stub_proc *proc, const struct stub_run *run)
{
	size_t i;

	stub_mapped_forget(proc, run->start, run->end);
	/* A lent page's file is another as soon as the page isn't lent any more. */
	if (run->lent || proc->nr_mapped == MAX_MAPPED)
		return;
	for (i = proc->nr_mapped++; i && proc->mapped[i - 1].start > run->start; i--)
		proc->mapped[i] = proc->mapped[i - 1];
	proc->mapped[i] = *run;
}

/* Has the page table of @as just @run? */
static bool has_run(const struct stub_space *as, const struct stub_run *run)
{
	const uint64_t *pte = NULL;
	gpa_t gpa = run->gpa;

	for (uaddr_t va = run->start; va < run->end; va += PAGE_SIZE, gpa += PAGE_SIZE) {
		pte = pte && va % PT_LEAF_SPAN ? pte + 1 : pt_find(as->pt, va);
		if (!pte || !stub_run_continues(run, pte_read(pte), gpa))
			return false;
	}
	return true;
}

/* [start, end) is stale, if it isn't empty. */
static void add_stale(struct stub_proc *proc, unsigned int *n, uaddr_t start, uaddr_t end)
{
	if (start < end)
		proc->stale[(*n)++] = (struct range){start, end};
}

void stub_mapped_match(struct stub_space *as)
{
	struct stub_proc *proc = as->proc;
	unsigned int stale = 0;
	uaddr_t from = 0;
	size_t n = 0;

	region_map_reset(&proc->present);
	for (size_t i = 0; i < proc->nr_mapped; i++) {
		const struct stub_run *r = &proc->mapped[i];

		/* Room for the gap before this one and for the one behind all. */
		if (stale + 2 > MAX_STALE || !has_run(as, r))
			continue;
		if (region_map_set(&proc->present, r->start, r->end)) {
			region_map_reset(&proc->present);
			n = stale = 0;
			from = 0;
			break;
		}
		add_stale(proc, &stale, from, r->start);
		from = r->end;
		proc->mapped[n++] = *r;
	}
	add_stale(proc, &stale, from, USER_TOP);
	proc->nr_mapped = n;
	atomic_store(&proc->nr_stale, stale);
}
