/* SPDX-License-Identifier: Apache-2.0 */
/* What stub platforms and their contexts have in common, how they end, and what they count. */
#include "platform/stub/stub.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/clock.h"
#include "sentry/lib/err.h"
#include "sentry/lib/physmem.h"

static gpa_t pt_table_alloc(struct pt_allocator *a)
{
	return table_alloc();
}

static void pt_table_free(struct pt_allocator *a, gpa_t table)
{
	table_free(table);
}

void stub_block_signals(sigset_t *old)
{
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGABRT);
	pthread_sigmask(SIG_SETMASK, &all, old);
}

int stub_control_file(size_t size)
{
	int fd = memfd_create("kvmsbox-stubs", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, (off_t)size))
		return fd;
	close(fd);
	return -ENOMEM;
}

int stub_platform_init(struct stub_platform *p, const struct platform_type *type,
		       const struct stub_ops *ops, int ctl_fd, size_t ctl_size)
{
	if (ctl_fd < 0)
		return ctl_fd;
	p->ctl_fd = ctl_fd;
	p->ctl_size = ctl_size;
	p->ctl =
		mmap(NULL, ctl_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ctl_fd, 0);
	if (p->ctl == MAP_FAILED) {
		close(ctl_fd);
		return -ENOMEM;
	}
	p->base.type = type;
	p->base.pt_alloc = (struct pt_allocator){.alloc = pt_table_alloc, .free = pt_table_free};
	p->ops = ops;
	mutex_init(&p->lock, LOCK_PLATFORM);
	list_init(&p->contexts);
	list_init(&p->pool);
	list_init(&p->procs);
	place_init(&p->place);
	stub_fds_are(p, STUB_FD_RAM, STUB_FD_FILE);
	return 0;
}

void stub_fds_are(struct stub_platform *p, int ram, int file)
{
	p->fds[0].host = physmem_fd();
	p->fds[0].stub = ram;
	p->fds[1].host = physmem_file_fd();
	p->fds[1].stub = file;
	p->nr_fds = p->fds[1].host < 0 ? 1 : 2;
}

void stub_platform_fini(struct stub_platform *p)
{
	munmap(p->ctl, p->ctl_size);
	close(p->ctl_fd);
	place_fini(&p->place);
	mutex_fini(&p->lock);
}

void stub_pool_end(struct stub_platform *p)
{
	struct stub_proc *proc;

	while (!list_empty(&p->pool)) {
		proc = list_first_entry(&p->pool, struct stub_proc, node);
		list_del(&proc->node);
		p->ops->proc_end(p, proc);
	}
}

int stub_slot_alloc(uint64_t *slots, size_t n)
{
	size_t i;

	for (i = 0; i < n / 64; i++) {
		if (~slots[i]) {
			unsigned int bit = (unsigned int)__builtin_ctzl(~slots[i]);

			slots[i] |= 1UL << bit;
			return (int)(i * 64 + bit);
		}
	}
	return -EAGAIN;
}

void stub_slot_free(uint64_t *slots, unsigned int slot)
{
	slots[slot / 64] &= ~(1UL << (slot % 64));
}

void stub_context_init(struct stub_context *ctx, struct stub_platform *p)
{
	ctx->base.platform = &p->base;
	atomic_store(&ctx->cpu, -1);
	mutex_lock(&p->lock);
	list_add(&ctx->node, &p->contexts);
	mutex_unlock(&p->lock);
}

static void stats_add(struct context_stats *sum, const struct context_stats *st)
{
	sum->enters += st->enters;
	sum->syscalls += st->syscalls;
	sum->calls += st->calls;
	sum->faults += st->faults;
	sum->faults_mapped += st->faults_mapped;
	sum->exceptions += st->exceptions;
	sum->kicks += st->kicks;
	sum->injections += st->injections;
	sum->mmaps += st->mmaps;
	sum->munmaps += st->munmaps;
	sum->pages += st->pages;
	sum->moves += st->moves;
}

void stub_context_fini(struct stub_context *ctx)
{
	struct stub_platform *p = to_stub_platform(ctx->base.platform);

	mutex_lock(&p->lock);
	list_del(&ctx->node);
	stats_add(&p->retired, &ctx->stats);
	mutex_unlock(&p->lock);
}

void stub_context_quiet(struct stub_context *ctx)
{
	atomic_store(&ctx->target, 0);
	while (atomic_load(&ctx->kickers))
		sched_yield();
}

/* Leaves @flag, and stops the thread if it runs. */
static void send_kick(struct stub_context *ctx, _Atomic bool *flag)
{
	int saved = errno;
	uint64_t target;

	atomic_store(flag, true);
	atomic_fetch_add(&ctx->kickers, 1);
	target = atomic_load(&ctx->target);
	if (target)
		syscall(SYS_tgkill, (pid_t)(target >> 32), (pid_t)target, PLATFORM_KICK_SIGNAL);
	atomic_fetch_sub(&ctx->kickers, 1);
	errno = saved;
}

void stub_ctx_kick(struct context *base)
{
	struct stub_context *ctx = to_stub_context(base);

	send_kick(ctx, &ctx->kick);
}

void stub_ctx_nudge(struct stub_context *ctx)
{
	send_kick(ctx, &ctx->nudged);
}

void stub_clock_start(struct stub_context *ctx)
{
	atomic_store_explicit(&ctx->running_since, monotonic_ns(), memory_order_relaxed);
}

void stub_clock_stop(struct stub_context *ctx)
{
	uint64_t start = atomic_load_explicit(&ctx->running_since, memory_order_relaxed);

	atomic_store_explicit(&ctx->running_since, 0, memory_order_relaxed);
	atomic_fetch_add_explicit(&ctx->user_ns, monotonic_ns() - start, memory_order_relaxed);
}

/*
 * The stub's CPU clock can't be read from another process; it shares a processor with its driver,
 * which sleeps meanwhile, so the time between resume and stop is close.
 */
uint64_t stub_ctx_user_ns(struct context *base)
{
	struct stub_context *ctx = to_stub_context(base);
	uint64_t since = atomic_load_explicit(&ctx->running_since, memory_order_relaxed);
	uint64_t ns = atomic_load_explicit(&ctx->user_ns, memory_order_relaxed);

	return since ? ns + (monotonic_ns() - since) : ns;
}

void stub_ctx_waits(struct context *base)
{
	place_waits(to_stub_context(base));
}

void stub_ctx_rest(struct context *base)
{
	place_rest(to_stub_context(base));
}

int stub_fault_trap(struct stub_context *ctx, struct trap *trap, uaddr_t addr, unsigned int access,
		    bool present)
{
	trap->kind = TRAP_FAULT;
	trap->addr = addr;
	trap->access = access;
	trap->present = present;
	trap->error = stub_fault_error(present, access);
	ctx->stats.faults++;
	/* Whatever the sentry installs there is brought into the stub before it runs again. */
	if (addr < USER_TOP)
		ctx->sync_addr = PAGE_ALIGN_DOWN(addr);
	return 0;
}

int stub_kick_trap(struct stub_context *ctx, struct trap *trap)
{
	trap->kind = TRAP_KICK;
	ctx->stats.kicks++;
	return 0;
}

size_t stub_stats(struct stub_platform *p, struct platform_stat stats[PLATFORM_MAX_STATS])
{
	struct context_stats sum;
	struct stub_context *ctx;
	size_t n = 0;

	mutex_lock(&p->lock);
	sum = p->retired;
	list_for_each_entry (ctx, &p->contexts, node) {
		stats_add(&sum, &ctx->stats);
	}
	mutex_unlock(&p->lock);
	stats[n++] = (struct platform_stat){"enters", sum.enters};
	stats[n++] = (struct platform_stat){"system calls", sum.syscalls};
	stats[n++] = (struct platform_stat){"system calls without registers", sum.calls};
	stats[n++] = (struct platform_stat){"faults to the sentry", sum.faults};
	stats[n++] = (struct platform_stat){"faults served by mapping", sum.faults_mapped};
	stats[n++] = (struct platform_stat){"exceptions", sum.exceptions};
	stats[n++] = (struct platform_stat){"kicks", sum.kicks};
	stats[n++] = (struct platform_stat){"trips for host calls in stubs", sum.injections};
	stats[n++] = (struct platform_stat){"mmaps in stubs", sum.mmaps};
	stats[n++] = (struct platform_stat){"munmaps in stubs", sum.munmaps};
	stats[n++] = (struct platform_stat){"pages mapped", sum.pages};
	stats[n++] = (struct platform_stat){"invalidations", atomic_load(&p->nr_invalidates)};
	stats[n++] = (struct platform_stat){"invalidations with a thread running",
					    atomic_load(&p->nr_stale_hits)};
	stats[n++] = (struct platform_stat){"stub processes made", atomic_load(&p->nr_procs)};
	stats[n++] = (struct platform_stat){"stub processes reused", atomic_load(&p->nr_reused)};
	stats[n++] = (struct platform_stat){"stub threads made", atomic_load(&p->nr_threads)};
	stats[n++] =
		(struct platform_stat){"requests to other stubs", atomic_load(&p->nr_requests)};
	stats[n++] = (struct platform_stat){"moves to another CPU", sum.moves};
	return n;
}
