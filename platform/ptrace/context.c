/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts: the run loop of one application thread.
 *
 *   ctx_run:  sync the cache → write registers → PTRACE_SYSEMU → wait → read registers → why?
 *                ^                                                                        |
 *                +---- a fault that the page table answers; a signal that is nobody's ----+
 *             a system call, fault, exception or kick returns to the sentry
 *
 * A kick's signal that comes before the thread is resumed stays pending and stops it at once.
 */
#include "platform/ptrace/internal.h"

#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"

enum { AGAIN = 1 };

struct context *ptrace_ctx_create(struct platform *base)
{
	struct ptrace_platform *p = to_platform(base);
	struct ptrace_context *ctx = hzalloc(sizeof(*ctx));

	if (!ctx)
		return ERR_PTR(-ENOMEM);
	/* Page-aligned from the arena when it is that large; 64 bytes are enough. */
	ctx->fpu = hzalloc(MAX(p->fpu_size, PAGE_SIZE));
	if (!ctx->fpu) {
		kfree(ctx);
		return ERR_PTR(-ENOMEM);
	}
	memcpy(ctx->fpu, p->fpu_init, p->fpu_size);
	ctx->fpu_valid = ctx->fpu_dirty = true;
	stub_context_init(&ctx->stub, &p->stub);
	return &ctx->stub.base;
}

void ptrace_ctx_destroy(struct context *base)
{
	struct ptrace_context *ctx = to_ctx(base);

	context_abandon(ctx);
	stub_context_fini(&ctx->stub);
	kfree(ctx->fpu);
	kfree(ctx);
}

void ptrace_ctx_leave(struct context *base)
{
	struct ptrace_context *ctx = to_ctx(base);

	if (!ctx->stub.thread)
		return;
	context_detach(ctx);
	place_leave(&ctx->stub);
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

	if (!ctx->fpu_valid && ctx->stub.thread) {
		int err = stub_get_fpu(ctx->stub.thread->tid, ctx->fpu, &size);

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
	struct ptrace_platform *p = to_platform(ctx->stub.base.platform);
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
			stub_ctx_kick(&ctx->stub.base);
		else if (got < 0)
			return -ESRCH;
	}
}

/*
 * Lets the stub thread run. Returns its wait status (> 0), 0 when a kick was due before it started,
 * or -errno.
 */
static int run_once(struct ptrace_context *ctx, struct stub_space *as)
{
	struct ptrace_platform *p = to_platform(ctx->stub.base.platform);
	struct stub_thread *th = ctx->stub.thread;
	struct stub_proc *proc = th->proc;
	int status, err, cpu;

	for (;;) {
		if (unlikely(ctx->stub.sync_addr || atomic_load(&proc->nr_stale))) {
			err = stub_context_sync(&ctx->stub, as);
			if (err)
				return err;
		}
		err = write_state(ctx, th->tid);
		if (err)
			return err;
		atomic_store(&ctx->stub.target, (uint64_t)proc->pid << 32 | (uint32_t)th->tid);
		if (atomic_load(&ctx->stub.kick) && atomic_exchange(&ctx->stub.kick, false)) {
			atomic_store_explicit(&ctx->stub.target, 0, memory_order_release);
			return 0;
		}
		atomic_fetch_add(&proc->nr_running, 1);
		if (likely(!atomic_load(&proc->nr_stale)))
			break;
		atomic_fetch_sub(&proc->nr_running, 1);
	}
	cpu = place_enter(&ctx->stub);
	ctx->fpu_valid = false;
	ctx->stub.stats.enters++;
	stub_clock_start(&ctx->stub);
	if (likely(!ptrace(PTRACE_SYSEMU, th->tid, NULL, NULL)))
		status = wait_stop(ctx, th);
	else
		status = errno == ESRCH ? stub_wait(th->tid) : -errno;
	stub_clock_stop(&ctx->stub);
	atomic_fetch_sub(&proc->nr_running, 1);
	atomic_store_explicit(&ctx->stub.target, 0, memory_order_release);
	place_exit(&p->stub.place, cpu);
	if (likely(status > 0))
		err = stub_get_regs(th->tid, &ctx->regs);
	else
		err = status;
	return err ? err : status;
}

/*
 * The stub has the page with the entry's rights, and faulted. The right that is missing tells the
 * access; if none is, another thread has mapped it meanwhile.
 */
static int protection_fault(struct ptrace_context *ctx, struct stub_space *as, uint64_t pte,
			    uint64_t generation, const siginfo_t *info, struct trap *trap)
{
	uaddr_t addr = (uaddr_t)(uintptr_t)info->si_addr;
	bool fetch = stub_fault_is_fetch(&ctx->regs, addr);
	int err;

	if (info->si_signo == SIGBUS) {
		log_debug("ptrace: the host can't back a page");
		return -ENOMEM;
	}
	if (info->si_code == SEGV_ACCERR) {
		if (addr == ctx->regs.rip && (pte & PTE_NX))
			return stub_fault_trap(&ctx->stub, trap, addr, ACCESS_EXEC, true);
		if (!(pte & PTE_RW))
			return stub_fault_trap(&ctx->stub, trap, addr, ACCESS_WRITE, true);
		if (fetch && (pte & PTE_NX))
			return stub_fault_trap(&ctx->stub, trap, addr, ACCESS_EXEC, true);
	}
	err = stub_unexplained_fault(&ctx->stub, as, addr, generation);
	return err ? err : AGAIN;
}

/* A page fault in the stub: AGAIN when it was the cache's, 0 with @trap, or -errno. */
static int handle_fault(struct ptrace_context *ctx, struct stub_space *as, const siginfo_t *info,
			struct trap *trap)
{
	uaddr_t addr = (uaddr_t)(uintptr_t)info->si_addr, page = PAGE_ALIGN_DOWN(addr);
	bool fetch = addr == ctx->regs.rip, mapped, had;
	const uint64_t *entry;
	uint64_t pte = 0, generation;
	int err = 0;

	if (addr >= USER_TOP)
		return stub_fault_trap(&ctx->stub, trap, addr, fetch ? ACCESS_EXEC : ACCESS_READ,
				       false);
	if (info->si_signo == SIGSEGV && info->si_code != SEGV_MAPERR &&
	    info->si_code != SEGV_ACCERR) {
		/* Protection keys: the application's own doing, nothing to resolve. */
		stub_exception_trap(ctx->stub.thread->tid, info, trap);
		return 0;
	}
	mutex_lock(&as->lock);
	if (as->proc != ctx->stub.thread->proc) {
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
		err = stub_sync_locked(as, ctx->stub.thread, page, &mapped);
	mutex_unlock(&as->lock);
	if (err)
		return err;
	if (!pte)
		return stub_fault_trap(&ctx->stub, trap, addr, fetch ? ACCESS_EXEC : ACCESS_READ,
				       false);
	if (!had) {
		ctx->stub.stats.faults_mapped++;
		return AGAIN;
	}
	return protection_fault(ctx, as, pte, generation, info, trap);
}

static int handle_signal(struct ptrace_context *ctx, struct stub_space *as, int sig,
			 struct trap *trap)
{
	siginfo_t info;

	switch (sig) {
	case SIGSEGV:
	case SIGBUS:
	case SIGILL:
	case SIGFPE:
	case SIGTRAP:
		if (ptrace(PTRACE_GETSIGINFO, ctx->stub.thread->tid, NULL, &info))
			return -errno;
		if (info.si_code <= 0)
			return AGAIN; /* sent by someone, not by the CPU */
		if (stub_signal_is_fault(&info))
			return handle_fault(ctx, as, &info, trap);
		stub_exception_trap(ctx->stub.thread->tid, &info, trap);
		ctx->stub.stats.exceptions++;
		return 0;
	case PLATFORM_KICK_SIGNAL:
		if (atomic_exchange(&ctx->stub.kick, false))
			return stub_kick_trap(&ctx->stub, trap);
		return AGAIN;
	default:
		return AGAIN; /* stubs get no signals */
	}
}

/* Why it stopped: 0 with @trap filled, AGAIN, or -errno. */
static int handle_stop(struct ptrace_context *ctx, struct stub_space *as, int status,
		       struct trap *trap)
{
	if (likely(WSTOPSIG(status) == (SIGTRAP | 0x80))) {
		if (likely(stub_syscall_is_native(&ctx->regs))) {
			trap->kind = TRAP_SYSCALL;
			ctx->stub.stats.syscalls++;
			return 0;
		}
		trap->kind = TRAP_EXCEPTION;
		trap->vector = ARCH_EXC_GP;
		ctx->stub.stats.exceptions++;
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
	stub_thread_died(ctx->stub.thread);
	context_detach(ctx);
	place_leave(&ctx->stub);
}

int ptrace_ctx_run(struct context *base, struct address_space *as_base, struct arch_regs *regs,
		   struct trap *trap)
{
	struct ptrace_context *ctx = to_ctx(base);
	struct stub_space *as = to_stub_space(as_base);
	struct stub_thread *th = ctx->stub.thread;
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
			ret = stub_kick_trap(&ctx->stub, trap);
	} while (ret == AGAIN);
	*regs = ctx->regs;
	if (unlikely(ret == -ESRCH))
		context_lost(ctx);
	return ret;
}
