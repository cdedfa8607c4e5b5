/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address spaces: bringing page-table entries into the stub, and taking them out again.
 *
 * A fault maps the whole run around it whose frames are contiguous in one file and whose rights are
 * the same, and the near runs as well, in one trip into the stub. Changes to present entries are
 * remembered as stale ranges (stub.h); the next trip unmaps them and maps what is there now.
 */
#include "platform/stub/stub.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"
#include "sentry/lib/physmem.h"

/* How far the run of the faulting page is followed, and how far around it other runs are mapped. */
#define RUN_PAGES  2048
#define NEAR_PAGES 64
#define MAX_RUNS   32

/* Half a page is left to platforms' own use. */
_Static_assert((MAX_STALE + MAX_RUNS) * sizeof(struct stub_call) <= PAGE_SIZE - 512, "one trip");

#define PTE_MAPPED (PTE_P | PTE_US)

/* Reads entries and present bits, with the leaf table at hand. */
struct cursor {
	const struct stub_space *as;
	uaddr_t base; /* of the leaf table's span; 1: none yet */
	const uint64_t *leaf;
	const uint64_t *bits;
};

/* The entry of @va if the stub may map it and has not; else 0. */
static uint64_t cursor_read(struct cursor *c, uaddr_t va)
{
	size_t i = va % PT_LEAF_SPAN / PAGE_SIZE;
	uint64_t v;

	if (c->base != va - va % PT_LEAF_SPAN) {
		c->base = va - va % PT_LEAF_SPAN;
		c->leaf = pt_find(c->as->pt, c->base);
		c->bits = region_map_bits(&c->as->proc->present, c->base);
	}
	if (!c->leaf || (c->bits && (c->bits[i / 64] >> (i % 64) & 1)))
		return 0;
	v = pte_read(&c->leaf[i]);
	return (v & PTE_MAPPED) == PTE_MAPPED ? v : 0;
}

/* Follows the run to the right, to @limit at most. */
static void run_extend(struct cursor *c, struct stub_run *r, uaddr_t limit)
{
	while (r->end < limit &&
	       stub_run_continues(r, cursor_read(c, r->end), r->gpa + (r->end - r->start)))
		r->end += PAGE_SIZE;
}

static void run_extend_left(struct cursor *c, struct stub_run *r, uaddr_t limit)
{
	while (r->start > limit && r->gpa >= PAGE_SIZE &&
	       stub_run_continues(r, cursor_read(c, r->start - PAGE_SIZE), r->gpa - PAGE_SIZE)) {
		r->start -= PAGE_SIZE;
		r->gpa -= PAGE_SIZE;
	}
}

static bool run_start(struct cursor *c, struct stub_run *r, uaddr_t va)
{
	uint64_t v = cursor_read(c, va);

	*r = (struct stub_run){va, va + PAGE_SIZE, v & PTE_ADDR, v & STUB_PTE_RIGHTS,
			       phys_is_lent(v & PTE_ADDR)};
	return v != 0;
}

static uaddr_t pages_above(uaddr_t page, size_t n)
{
	return MIN(page + n * PAGE_SIZE, (uaddr_t)USER_TOP);
}

static uaddr_t pages_below(uaddr_t page, size_t n)
{
	return page >= USER_MIN + n * PAGE_SIZE ? page - n * PAGE_SIZE : USER_MIN;
}

/* The other runs in [from, to), added to @runs. */
static size_t runs_near(struct cursor *c, uaddr_t from, uaddr_t to, struct stub_run *runs, size_t n)
{
	while (from < to && n < MAX_RUNS) {
		if (!run_start(c, &runs[n], from)) {
			from += PAGE_SIZE;
			continue;
		}
		run_extend(c, &runs[n], to);
		from = runs[n++].end;
	}
	return n;
}

static bool run_contains(const struct stub_run *r, uaddr_t va)
{
	return va >= r->start && va < r->end;
}

/*
 * What the table has now where something became stale: write-protected or copied pages are wanted
 * back more often than not, and after exec this is the whole new program. Bounded by MAX_RUNS.
 */
static size_t runs_stale(struct cursor *c, const struct range *range, struct stub_run *runs,
			 size_t n)
{
	uaddr_t va = MAX(range->start, (uaddr_t)USER_MIN), end = MIN(range->end, (uaddr_t)USER_TOP);
	size_t i;

	while (va < end && n < MAX_RUNS && pt_next(c->as->pt, &va, end)) {
		for (i = 0; i < n && !run_contains(&runs[i], va); i++)
			;
		if (i < n) {
			va = runs[i].end;
			continue;
		}
		if (!run_start(c, &runs[n], va)) {
			va += PAGE_SIZE;
			continue;
		}
		run_extend(c, &runs[n], MIN(end, va + RUN_PAGES * PAGE_SIZE));
		va = runs[n++].end;
	}
	return n;
}

/*
 * Runs to map for a fault at @addr (0: none), first the one with @addr in it; with @more also those
 * near and those that became stale.
 */
static size_t runs_collect(const struct stub_space *as, uaddr_t addr, bool more,
			   struct stub_run *runs)
{
	struct cursor c = {.as = as, .base = 1};
	uaddr_t page = PAGE_ALIGN_DOWN(addr);
	unsigned int stale = atomic_load(&as->proc->nr_stale), i;
	size_t n = 0;

	if (addr && page < USER_TOP && run_start(&c, &runs[0], page)) {
		n = 1;
		run_extend(&c, &runs[0], pages_above(page, RUN_PAGES));
		run_extend_left(&c, &runs[0], pages_below(page, RUN_PAGES));
	}
	if (more && n) {
		n = runs_near(&c, runs[0].end, pages_above(page, NEAR_PAGES), runs, n);
		n = runs_near(&c, pages_below(page, NEAR_PAGES), runs[0].start, runs, n);
	}
	for (i = 0; more && i < stale; i++)
		n = runs_stale(&c, &as->proc->stale[i], runs, n);
	return n;
}

static int stub_fd_of(struct stub_platform *p, int fd)
{
	unsigned int i;
	long ret;

	mutex_lock_nested(&p->lock);
	for (i = 0; i < p->nr_fds && p->fds[i].host != fd; i++)
		;
	ret = i < p->nr_fds ? p->fds[i].stub : -ENOENT;
	if (ret < 0 && p->nr_fds == MAX_FDS)
		ret = -EMFILE;
	mutex_unlock(&p->lock);
	if (ret != -ENOENT)
		return (int)ret;
	ret = p->ops->pass_fd(p, fd);
	if (ret < 0)
		return (int)ret;
	/* Two may have passed the same one: harmless, the first row wins. */
	mutex_lock_nested(&p->lock);
	if (p->nr_fds < MAX_FDS) {
		p->fds[p->nr_fds].host = fd;
		p->fds[p->nr_fds++].stub = (int)ret;
	}
	mutex_unlock(&p->lock);
	return (int)ret;
}

static void backing(const struct stub_run *r, gpa_t gpa, int *fd, uint64_t *offset)
{
	if (r->lent)
		phys_lent_backing(gpa, fd, offset);
	else
		phys_backing(gpa, fd, offset);
}

/*
 * Is there memory behind all of @r already? One call is cheaper than a page fault for each then,
 * which writing causes; reading has the host map many at a time anyway.
 */
static bool maps_at_once(const struct stub_run *r)
{
	size_t n = (r->end - r->start) / PAGE_SIZE;

	return r->rights & PTE_RW && !r->lent && n > 1 && phys_is_ram(r->gpa) &&
	       frames_are_warm(r->gpa, n);
}

/* Writes the mmap of @r into @call. Shortens it at the end of its file. 0 or -errno. */
static int run_call(struct stub_platform *p, struct stub_run *r, struct stub_call *call)
{
	/* A sealed file isn't mapped shared by older kernels. */
	uint64_t flags = (r->lent ? MAP_PRIVATE : MAP_SHARED) | MAP_FIXED;
	uint64_t prot = PROT_READ, offset, last;
	int fd, last_fd, stub_fd;

	/*
	 * Pages may have become the sandbox's own since the run was collected: whoever did that is
	 * about to invalidate them, and waits for as->lock.
	 */
	backing(r, r->gpa, &fd, &offset);
	backing(r, r->gpa + (r->end - r->start) - PAGE_SIZE, &last_fd, &last);
	if (last_fd != fd || last - offset != r->end - r->start - PAGE_SIZE)
		r->end = r->start + PAGE_SIZE;
	stub_fd = stub_fd_of(p, fd);
	if (stub_fd < 0)
		return stub_fd;
	if (r->rights & PTE_RW && !r->lent)
		prot |= PROT_WRITE;
	if (!(r->rights & PTE_NX))
		prot |= PROT_EXEC;
	if (maps_at_once(r))
		flags |= MAP_POPULATE;
	*call = (struct stub_call){
		.nr = SYS_mmap,
		.args = {r->start, r->end - r->start, prot, flags, (uint64_t)stub_fd, offset},
	};
	return 0;
}

static bool range_covered(const struct range *r, const struct stub_run *runs, size_t nr_runs)
{
	size_t i;

	for (i = 0; i < nr_runs; i++) {
		if (runs[i].start <= r->start && r->end <= runs[i].end)
			return true;
	}
	return false;
}

/* Calls that unmap what is stale, but for what mapping @runs will replace. */
static size_t stale_calls(const struct stub_proc *proc, struct stub_call *calls,
			  const struct stub_run *runs, size_t nr_runs)
{
	unsigned int stale = atomic_load(&proc->nr_stale), i;
	size_t n = 0;

	for (i = 0; i < stale; i++) {
		const struct range *r = &proc->stale[i];

		if (!range_covered(r, runs, nr_runs))
			calls[n++] = (struct stub_call){
				.nr = SYS_munmap,
				.args = {r->start, r->end - r->start},
			};
	}
	return n;
}

/* Returns 0 or -errno; -ESRCH when the stub is gone. */
static int batch_run(struct stub_platform *p, struct stub_proc *proc, struct stub_thread *th,
		     size_t n)
{
	int err;

	proc->generation++;
	if (th && th->ctx)
		th->ctx->stats.injections++;
	err = p->ops->batch(p, proc, th, n);
	if (err == -ESRCH)
		atomic_store(&proc->dead, true);
	/* The application can read the page: nothing of the layout of memory stays there. */
	memset(proc->request, 0, n * sizeof(*proc->request));
	return err;
}

/* Empties the stub's address space. */
static int stub_proc_flush(struct stub_platform *p, struct stub_proc *proc, struct stub_thread *th)
{
	int err;

	proc->request[0] = (struct stub_call){.nr = SYS_munmap, .args = {0, USER_TOP}};
	err = batch_run(p, proc, th, 1);
	if (err)
		return err;
	region_map_reset(&proc->present);
	atomic_store(&proc->nr_stale, 0);
	proc->nr_mapped = 0;
	return 0;
}

/* Remembers what was mapped. -ENOMEM: the record is incomplete. */
static int runs_mark(struct stub_proc *proc, const struct stub_run *runs, size_t n,
		     struct context_stats *st)
{
	size_t i;

	for (i = 0; i < n; i++) {
		int err = region_map_set(&proc->present, runs[i].start, runs[i].end);

		if (err)
			return err;
		stub_mapped_note(proc, &runs[i]);
		st->mmaps++;
		st->pages += (runs[i].end - runs[i].start) / PAGE_SIZE;
	}
	return 0;
}

/* One trip: what is stale, then @runs. */
static int sync_once(struct stub_platform *p, struct stub_proc *proc, struct stub_thread *th,
		     struct stub_run *runs, size_t nr_runs)
{
	struct context_stats *st = &th->ctx->stats;
	struct stub_call maps[MAX_RUNS];
	size_t stale = 0, n = 0, i;
	int err;

	/* The mappings first, since a run may turn out shorter; they are moved behind below. */
	for (i = 0; i < nr_runs; i++) {
		err = run_call(p, &runs[i], &maps[i]);
		if (err)
			return err;
	}
	stale = stale_calls(proc, proc->request, runs, nr_runs);
	memcpy(proc->request + stale, maps, nr_runs * sizeof(*maps));
	n = stale + nr_runs;
	if (!n) {
		atomic_store(&proc->nr_stale, 0);
		return 0;
	}
	err = batch_run(p, proc, th, n);
	if (err)
		return err;
	atomic_store(&proc->nr_stale, 0);
	st->munmaps += stale;
	return runs_mark(proc, runs, nr_runs, st);
}

int stub_sync_locked(struct stub_space *as, struct stub_thread *th, uaddr_t addr, bool *mapped)
{
	struct stub_platform *p = to_stub_platform(as->base.platform);
	struct stub_proc *proc = as->proc;
	struct stub_run runs[MAX_RUNS];
	size_t n = runs_collect(as, addr, true, runs);
	int err;

	err = sync_once(p, proc, th, runs, n);
	if (err == -ENOMEM) {
		/* Too many mappings for the host: begin again with the one that is needed. */
		err = stub_proc_flush(p, proc, th);
		n = runs_collect(as, addr, false, runs);
		if (!err)
			err = sync_once(p, proc, th, runs, n);
	}
	if (err && err != -ESRCH)
		log_debug("%s: can't map memory into a stub: %s", p->ops->name, strerror(-err));
	*mapped = n > 0;
	return err;
}

/* Maps and unmaps what is due. 0 or -errno. */
int stub_context_sync(struct stub_context *ctx, struct stub_space *as)
{
	bool mapped;
	int err;

	mutex_lock(&as->lock);
	if (as->proc != ctx->thread->proc)
		err = -ESRCH; /* it died */
	else
		err = stub_sync_locked(as, ctx->thread, ctx->sync_addr, &mapped);
	mutex_unlock(&as->lock);
	ctx->sync_addr = 0;
	return err;
}

struct address_space *stub_as_create(struct platform *base, struct pagetable *pt)
{
	struct stub_space *as = hzalloc(sizeof(*as));

	if (!as)
		return ERR_PTR(-ENOMEM);
	as->base.platform = base;
	as->pt = pt;
	mutex_init(&as->lock, LOCK_PLATFORM);
	return &as->base;
}

void stub_as_destroy(struct address_space *base)
{
	struct stub_platform *p = to_stub_platform(base->platform);
	struct stub_space *as = to_stub_space(base);
	struct stub_proc *proc;
	bool last = false;

	mutex_lock(&as->lock);
	proc = as->proc;
	as->proc = NULL;
	if (proc) {
		mutex_lock_nested(&p->lock);
		atomic_store(&proc->as, NULL);
		last = !proc->nr_attached;
		mutex_unlock(&p->lock);
	}
	mutex_unlock(&as->lock);
	if (last)
		stub_proc_release(p, proc);
	mutex_fini(&as->lock);
	kfree(as);
}

/* Adds [start, end), whose present bits are clear, to what must go. as->lock held. */
static void stale_add(struct stub_proc *proc, uaddr_t start, uaddr_t end)
{
	unsigned int n = atomic_load(&proc->nr_stale), i;
	struct range *r;

	stub_mapped_forget(proc, start, end);
	for (i = 0; i < n; i++) {
		r = &proc->stale[i];
		if (start <= r->end && end >= r->start) {
			r->start = MIN(r->start, start);
			r->end = MAX(r->end, end);
			return;
		}
	}
	if (n < MAX_STALE) {
		proc->stale[n] = (struct range){start, end};
		atomic_store(&proc->nr_stale, n + 1);
		return;
	}
	/* No room: all become one, with what lies between them. */
	r = &proc->stale[0];
	for (i = 1; i < n; i++) {
		r->start = MIN(r->start, proc->stale[i].start);
		r->end = MAX(r->end, proc->stale[i].end);
	}
	r->start = MIN(r->start, start);
	r->end = MAX(r->end, end);
	start = r->start;
	end = r->end;
	stub_mapped_forget(proc, start, end);
	region_map_clear(&proc->present, &start, &end);
	atomic_store(&proc->nr_stale, 1);
}

/* A thread is in user code: unmaps what is stale now. as->lock held. */
static void stale_drop_locked(struct stub_platform *p, struct stub_proc *proc)
{
	struct stub_thread *th = p->ops->own_thread ? p->ops->own_thread(proc) : NULL;
	size_t n = stale_calls(proc, proc->request, NULL, 0);
	int err = batch_run(p, proc, th, n);

	if (!err) {
		atomic_store(&proc->nr_stale, 0);
		if (th && th->ctx)
			th->ctx->stats.munmaps += n;
	} else if (err == -ESRCH || stub_proc_flush(p, proc, th)) {
		/* Gone, or beyond help: it must not run on with what it has. */
		atomic_store(&proc->dead, true);
		p->ops->proc_kill(p, proc);
		while (atomic_load(&proc->nr_running))
			sched_yield();
	}
}

void stub_as_invalidate(struct address_space *base, uaddr_t va, size_t len)
{
	struct stub_platform *p = to_stub_platform(base->platform);
	struct stub_space *as = to_stub_space(base);
	uaddr_t start = PAGE_ALIGN_DOWN(va), end = PAGE_ALIGN_UP(va + len);

	atomic_fetch_add_explicit(&p->nr_invalidates, 1, memory_order_relaxed);
	mutex_lock(&as->lock);
	if (as->proc && region_map_clear(&as->proc->present, &start, &end)) {
		stale_add(as->proc, start, end);
		if (atomic_load(&as->proc->nr_running)) {
			atomic_fetch_add_explicit(&p->nr_stale_hits, 1, memory_order_relaxed);
			stale_drop_locked(p, as->proc);
		}
	}
	mutex_unlock(&as->lock);
}

int stub_unexplained_fault(struct stub_context *ctx, struct stub_space *as, uaddr_t addr,
			   uint64_t generation)
{
	uaddr_t start = PAGE_ALIGN_DOWN(addr), end = start + PAGE_SIZE;
	struct stub_proc *proc = ctx->thread->proc;
	bool mapped;
	int err;

	if (addr == ctx->last_fault && generation == ctx->last_generation)
		ctx->repeats++;
	else
		ctx->repeats = 0;
	ctx->last_fault = addr;
	ctx->last_generation = generation;
	if (!ctx->repeats)
		return 0;
	if (ctx->repeats > MAX_REPEATS)
		return -EFAULT;
	mutex_lock(&as->lock);
	if (as->proc != proc) {
		err = -ESRCH;
	} else {
		if (region_map_clear(&proc->present, &start, &end))
			stale_add(proc, start, end);
		err = stub_sync_locked(as, ctx->thread, PAGE_ALIGN_DOWN(addr), &mapped);
		ctx->last_generation = proc->generation;
	}
	mutex_unlock(&as->lock);
	return err;
}
