/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts: the run loop of one application thread.
 *
 *   ctx_run:  sync the cache → write registers → PTRACE_SYSEMU → wait → read registers → why?
 *                ^                                                                        |
 *                +---- a fault that the page table answers; a signal that is nobody's ----+
 *             a system call, fault, exception or kick returns to the sentry
 *
 * A kick is a latched flag plus a signal to the stub thread while `target` says that it runs. The
 * flag is set before `target` is read, and `target` is set before the flag is read, so either the
 * runner sees the flag or the kicker sees the target; a signal that comes before the thread is
 * resumed stays pending and stops it at once.
 */
#include "platform/ptrace/internal.h"

#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"

/* The same fault that the page table does not explain, with no change to the stub's mappings. */
#define MAX_REPEATS 16

enum { AGAIN = 1 };

struct context *ptrace_ctx_create(struct platform *base)
{
	struct ptrace_platform *p = to_platform(base);
	struct ptrace_context *ctx = kzalloc(sizeof(*ctx));

	if (!ctx)
		return ERR_PTR(-ENOMEM);
	/* Page-aligned from the arena when it is that large; 64 bytes are enough. */
	ctx->fpu = kzalloc(MAX(p->fpu_size, PAGE_SIZE));
	if (!ctx->fpu) {
		kfree(ctx);
		return ERR_PTR(-ENOMEM);
	}
	memcpy(ctx->fpu, p->fpu_init, p->fpu_size);
	ctx->fpu_valid = ctx->fpu_dirty = true;
	ctx->base.platform = base;
	atomic_store(&ctx->cpu, -1);
	mutex_lock(&p->lock);
	list_add(&ctx->node, &p->contexts);
	mutex_unlock(&p->lock);
	return &ctx->base;
}

void ptrace_ctx_destroy(struct context *base)
{
	struct ptrace_context *ctx = to_ctx(base);
	struct ptrace_platform *p = to_platform(base->platform);

	context_abandon(ctx);
	mutex_lock(&p->lock);
	list_del(&ctx->node);
	context_stats_add(&p->retired, &ctx->stats);
	mutex_unlock(&p->lock);
	kfree(ctx->fpu);
	kfree(ctx);
}

void ptrace_ctx_kick(struct context *base)
{
	struct ptrace_context *ctx = to_ctx(base);
	int saved = errno;
	uint64_t target;

	atomic_store(&ctx->kick, true);
	atomic_fetch_add(&ctx->kickers, 1);
	target = atomic_load(&ctx->target);
	if (target)
		syscall(SYS_tgkill, (pid_t)(target >> 32), (pid_t)target, PLATFORM_KICK_SIGNAL);
	atomic_fetch_sub(&ctx->kickers, 1);
	errno = saved;
}

void ptrace_ctx_get_bases(struct context *base, uint64_t *fs_base, uint64_t *gs_base)
{
	struct ptrace_context *ctx = to_ctx(base);

	*fs_base = ctx->regs.fs_base;
	*gs_base = ctx->regs.gs_base;
}

/*
 * The host refuses bases that an application could only have set by wrfsbase (the upper half):
 * they become 0.
 */
void ptrace_ctx_set_bases(struct context *base, uint64_t fs_base, uint64_t gs_base)
{
	struct ptrace_context *ctx = to_ctx(base);

	ctx->regs.fs_base = stub_base_valid(fs_base) ? fs_base : 0;
	ctx->regs.gs_base = stub_base_valid(gs_base) ? gs_base : 0;
	ctx->bases_dirty = true;
}

void ptrace_ctx_get_fpu(struct context *base, void *fpu)
{
	struct ptrace_context *ctx = to_ctx(base);
	struct ptrace_platform *p = to_platform(base->platform);
	size_t size = p->fpu_size;

	if (!ctx->fpu_valid && ctx->thread) {
		int err = stub_get_fpu(ctx->thread->tid, ctx->fpu, &size);

		if (err) /* it was killed: the next ctx_run says so */
			memcpy(ctx->fpu, p->fpu_init, p->fpu_size);
		ctx->fpu_valid = true;
	}
	stub_fpu_from_kernel(fpu, ctx->fpu, p->fpu_size);
}

void ptrace_ctx_set_fpu(struct context *base, const void *fpu)
{
	struct ptrace_context *ctx = to_ctx(base);

	stub_fpu_to_kernel(ctx->fpu, to_platform(base->platform)->fpu_size, fpu);
	ctx->fpu_valid = ctx->fpu_dirty = true;
}

/* Writes what the stub thread lacks. */
static int write_state(struct ptrace_context *ctx, pid_t tid)
{
	struct ptrace_platform *p = to_platform(ctx->base.platform);
	int err = 0;

	if (ctx->regs_dirty || ctx->bases_dirty)
		err = stub_set_regs(tid, &ctx->regs, ctx->bases_dirty);
	if (!err && ctx->fpu_dirty)
		err = stub_set_fpu(tid, ctx->fpu, p->fpu_size);
	ctx->regs_dirty = ctx->bases_dirty = ctx->fpu_dirty = false;
	return err;
}

/*
 * Waits for the running stub thread. A signal to this host thread stops it, as a kick. Returns the
 * status or -ESRCH.
 */
static int wait_stop(struct ptrace_context *ctx, struct stub_thread *th)
{
	int status;

	for (;;) {
		pid_t got = waitpid(th->tid, &status, __WALL);

		if (likely(got == th->tid))
			return WIFSTOPPED(status) ? status : -ESRCH;
		if (got < 0 && errno == EINTR)
			ptrace_ctx_kick(&ctx->base);
		else if (got < 0)
			return -ESRCH;
	}
}

/* Maps and unmaps what is due. 0 or -errno. */
static int context_sync(struct ptrace_context *ctx, struct ptrace_as *as)
{
	bool mapped;
	int err;

	mutex_lock(&as->lock);
	if (as->proc != ctx->thread->proc)
		err = -ESRCH; /* it died */
	else
		err = as_sync_locked(as, ctx->thread, ctx->sync_addr, &mapped);
	mutex_unlock(&as->lock);
	ctx->sync_addr = 0;
	return err;
}

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/*
 * The stub's CPU clock can't be read from another process; it shares a processor with its tracer,
 * which sleeps meanwhile, so the time between resume and stop is close.
 */
uint64_t ptrace_ctx_user_ns(struct context *base)
{
	struct ptrace_context *ctx = to_ctx(base);
	uint64_t since = atomic_load_explicit(&ctx->running_since, memory_order_relaxed);
	uint64_t ns = atomic_load_explicit(&ctx->user_ns, memory_order_relaxed);

	return since ? ns + (monotonic_ns() - since) : ns;
}

/*
 * Lets the stub thread run. Returns its wait status (> 0), 0 when a kick was due before it started,
 * or -errno.
 */
static int run_once(struct ptrace_context *ctx, struct ptrace_as *as)
{
	struct ptrace_platform *p = to_platform(ctx->base.platform);
	struct stub_thread *th = ctx->thread;
	struct stub_proc *proc = th->proc;
	int status, err, cpu;
	uint64_t start;

	for (;;) {
		if (unlikely(ctx->sync_addr || atomic_load(&proc->nr_stale))) {
			err = context_sync(ctx, as);
			if (err)
				return err;
		}
		err = write_state(ctx, th->tid);
		if (err)
			return err;
		atomic_store(&ctx->target, (uint64_t)proc->pid << 32 | (uint32_t)th->tid);
		if (atomic_load(&ctx->kick) && atomic_exchange(&ctx->kick, false)) {
			atomic_store_explicit(&ctx->target, 0, memory_order_release);
			return 0;
		}
		atomic_fetch_add(&proc->nr_running, 1);
		if (likely(!atomic_load(&proc->nr_stale)))
			break;
		atomic_fetch_sub(&proc->nr_running, 1);
	}
	cpu = place_enter(ctx);
	ctx->fpu_valid = false;
	ctx->stats.enters++;
	start = monotonic_ns();
	atomic_store_explicit(&ctx->running_since, start, memory_order_relaxed);
	if (likely(!ptrace(PTRACE_SYSEMU, th->tid, NULL, NULL)))
		status = wait_stop(ctx, th);
	else
		status = errno == ESRCH ? stub_wait(th->tid) : -errno;
	atomic_store_explicit(&ctx->running_since, 0, memory_order_relaxed);
	atomic_fetch_add_explicit(&ctx->user_ns, monotonic_ns() - start, memory_order_relaxed);
	atomic_fetch_sub(&proc->nr_running, 1);
	atomic_store_explicit(&ctx->target, 0, memory_order_release);
	place_exit(p, cpu);
	if (likely(status > 0))
		err = stub_get_regs(th->tid, &ctx->regs);
	else
		err = status;
	return err ? err : status;
}

static int fault_trap(struct ptrace_context *ctx, struct trap *trap, uaddr_t addr,
		      unsigned int access, bool present)
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

/*
 * The stub has the page with the entry's rights, and faulted. The right that is missing tells the
 * access; if none is, another thread has mapped it meanwhile.
 */
static int protection_fault(struct ptrace_context *ctx, uint64_t pte, uint64_t generation,
			    const siginfo_t *info, struct trap *trap)
{
	uaddr_t addr = (uaddr_t)(uintptr_t)info->si_addr;
	bool fetch = stub_fault_is_fetch(&ctx->regs, addr);

	if (info->si_signo == SIGBUS) {
		log_debug("ptrace: the host can't back a page");
		return -ENOMEM;
	}
	if (addr == ctx->last_fault && generation == ctx->last_generation)
		ctx->repeats++;
	else
		ctx->repeats = 0;
	ctx->last_fault = addr;
	ctx->last_generation = generation;
	if (info->si_code == SEGV_ACCERR || ctx->repeats > MAX_REPEATS) {
		if (addr == ctx->regs.rip && (pte & PTE_NX))
			return fault_trap(ctx, trap, addr, ACCESS_EXEC, true);
		if (!(pte & PTE_RW))
			return fault_trap(ctx, trap, addr, ACCESS_WRITE, true);
		if (fetch && (pte & PTE_NX))
			return fault_trap(ctx, trap, addr, ACCESS_EXEC, true);
	}
	return ctx->repeats > MAX_REPEATS ? -EFAULT : AGAIN;
}

/* A page fault in the stub: AGAIN when it was the cache's, 0 with @trap, or -errno. */
static int handle_fault(struct ptrace_context *ctx, struct ptrace_as *as, const siginfo_t *info,
			struct trap *trap)
{
	uaddr_t addr = (uaddr_t)(uintptr_t)info->si_addr, page = PAGE_ALIGN_DOWN(addr);
	bool fetch = addr == ctx->regs.rip, mapped, had;
	const uint64_t *entry;
	uint64_t pte = 0, generation;
	int err = 0;

	if (addr >= USER_TOP)
		return fault_trap(ctx, trap, addr, fetch ? ACCESS_EXEC : ACCESS_READ, false);
	if (info->si_signo == SIGSEGV && info->si_code != SEGV_MAPERR &&
	    info->si_code != SEGV_ACCERR) {
		/* Protection keys: the application's own doing, nothing to resolve. */
		stub_exception_trap(ctx->thread->tid, info, trap);
		return 0;
	}
	mutex_lock(&as->lock);
	if (as->proc != ctx->thread->proc) {
		mutex_unlock(&as->lock);
		return -ESRCH;
	}
	had = region_map_test(&as->proc->present, page);
	generation = as->proc->generation;
	entry = pt_find(as->pt, page);
	if (entry)
		pte = pte_read(entry);
	if ((pte & (PTE_P | PTE_US)) != (PTE_P | PTE_US))
		pte = 0;
	if (pte && !had)
		err = as_sync_locked(as, ctx->thread, page, &mapped);
	mutex_unlock(&as->lock);
	if (err)
		return err;
	if (!pte)
		return fault_trap(ctx, trap, addr, fetch ? ACCESS_EXEC : ACCESS_READ, false);
	if (!had) {
		ctx->stats.faults_mapped++;
		return AGAIN;
	}
	return protection_fault(ctx, pte, generation, info, trap);
}

static int kick_trap(struct ptrace_context *ctx, struct trap *trap)
{
	trap->kind = TRAP_KICK;
	ctx->stats.kicks++;
	return 0;
}

static int handle_signal(struct ptrace_context *ctx, struct ptrace_as *as, int sig,
			 struct trap *trap)
{
	siginfo_t info;

	switch (sig) {
	case SIGSEGV:
	case SIGBUS:
	case SIGILL:
	case SIGFPE:
	case SIGTRAP:
		if (ptrace(PTRACE_GETSIGINFO, ctx->thread->tid, NULL, &info))
			return -errno;
		if (info.si_code <= 0)
			return AGAIN; /* sent by someone, not by the CPU */
		if (stub_signal_is_fault(&info))
			return handle_fault(ctx, as, &info, trap);
		stub_exception_trap(ctx->thread->tid, &info, trap);
		ctx->stats.exceptions++;
		return 0;
	case PLATFORM_KICK_SIGNAL:
		if (atomic_exchange(&ctx->kick, false))
			return kick_trap(ctx, trap);
		return AGAIN;
	default:
		return AGAIN; /* stubs get no signals */
	}
}

/* Why it stopped: 0 with @trap filled, AGAIN, or -errno. */
static int handle_stop(struct ptrace_context *ctx, struct ptrace_as *as, int status,
		       struct trap *trap)
{
	if (likely(WSTOPSIG(status) == (SIGTRAP | 0x80))) {
		if (likely(stub_syscall_is_native(&ctx->regs))) {
			trap->kind = TRAP_SYSCALL;
			ctx->stats.syscalls++;
			return 0;
		}
		trap->kind = TRAP_EXCEPTION;
		trap->vector = ARCH_EXC_GP;
		ctx->stats.exceptions++;
		ctx->regs_dirty = true;
		return 0;
	}
	if (status >> 16)
		return AGAIN; /* a stop of the whole group, from outside: goes on */
	return handle_signal(ctx, as, WSTOPSIG(status), trap);
}

/* Takes over what the sentry changed. The bases stay: they have calls of their own. */
static void take_regs(struct ptrace_context *ctx, const struct arch_regs *regs)
{
	if (memcmp(&ctx->regs, regs, STUB_REGS_CORE)) {
		memcpy(&ctx->regs, regs, STUB_REGS_CORE);
		ctx->regs_dirty = true;
	}
	/* Otherwise the host kernel might take it for a system call to restart. */
	if (ctx->regs.orig_rax != (uint64_t)-1) {
		ctx->regs.orig_rax = (uint64_t)-1;
		ctx->regs_dirty = true;
	}
}

/* The stub thread died, from outside or by our despair. The next run gets another. */
static void context_lost(struct ptrace_context *ctx)
{
	stub_thread_died(ctx->thread);
	context_detach(ctx);
	place_leave(ctx);
}

int ptrace_ctx_run(struct context *base, struct address_space *as_base, struct arch_regs *regs,
		   struct trap *trap)
{
	struct ptrace_context *ctx = to_ctx(base);
	struct ptrace_as *as = to_as(as_base);
	struct stub_thread *th = ctx->thread;
	int ret;

	if (unlikely(th && (th->dead || atomic_load(&th->proc->dead)))) {
		context_lost(ctx);
		return -ESRCH;
	}
	if (unlikely(!th || atomic_load(&th->proc->as) != as)) {
		ret = context_attach(ctx, as);
		if (ret)
			return ret;
	}
	take_regs(ctx, regs);
	memset(trap, 0, sizeof(*trap));
	do {
		ret = run_once(ctx, as);
		if (ret > 0)
			ret = handle_stop(ctx, as, ret, trap);
		else if (ret == 0)
			ret = kick_trap(ctx, trap);
	} while (ret == AGAIN);
	*regs = ctx->regs;
	if (unlikely(ret == -ESRCH))
		context_lost(ctx);
	return ret;
}
