/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts: the run loop of one application thread.
 *
 *   ctx_run:  sync the cache → registers into the frame → RUN → wait for STOPPED → why?
 *                ^                                                                |
 *                +-- a fault that the page table answers; a signal of nobody's ---+
 *             a system call, fault, exception or kick returns to the sentry
 *
 * Handing over: state is RUN or STOPPED, each side changes it to the other's. A side that is about
 * to sleep says so first (asleep, waited) and then looks at the state again; one that has changed
 * the state looks whether the other sleeps.
 *
 * On one CPU the stub's wake-up of the sentry makes the host switch to it before the stub has gone
 * to sleep, more often than not; so in the other direction nothing has to be woken.
 */
#include "platform/systrap/internal.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"

/* How often one who waits for user code looks about: when others run as well, and alone. */
#define TICK_NS	     10000000UL
#define LONG_TICK_NS 1000000000UL

#define NR_URETPROBE 335

enum { AGAIN = 1 };

static __thread pid_t own_tid;

static pid_t own_id(void)
{
	if (!own_tid)
		own_tid = gettid();
	return own_tid;
}

struct context *systrap_ctx_create(struct platform *base)
{
	struct systrap_context *ctx = hzalloc(sizeof(*ctx));

	if (!ctx)
		return ERR_PTR(-ENOMEM);
	ctx->fpu = hzalloc(MAX(arch_fpu_size(), PAGE_SIZE));
	if (!ctx->fpu) {
		kfree(ctx);
		return ERR_PTR(-ENOMEM);
	}
	arch_fpu_init(ctx->fpu);
	ctx->fpu_valid = ctx->fpu_dirty = ctx->bases_dirty = true;
	stub_context_init(&ctx->stub, to_stub_platform(base));
	return &ctx->stub.base;
}

/* The stopped thread of @ctx is parked, with nothing left in it. */
static void thread_park(struct systrap_context *ctx)
{
	struct systrap_thread *th = to_thread(ctx->stub.thread);
	void *frame;

	stub_context_quiet(&ctx->stub);
	if (!frame_find(th, &frame))
		frame_scrub(to_platform(ctx->stub.base.platform), th, frame);
	stub_thread_leave(&th->stub);
}

static void context_detach(struct systrap_context *ctx)
{
	struct systrap_thread *th = to_thread(ctx->stub.thread);
	void *frame;

	if (!ctx->fpu_valid &&
	    (frame_find(th, &frame) ||
	     frame_get_fpu(to_platform(ctx->stub.base.platform), th, frame, ctx->fpu)))
		arch_fpu_init(ctx->fpu);
	ctx->fpu_valid = true;
	thread_park(ctx);
}

void systrap_ctx_destroy(struct context *base)
{
	struct systrap_context *ctx = to_ctx(base);

	/* Its host thread stays where it is: it ends, or is placed with its next context. */
	if (ctx->stub.thread)
		thread_park(ctx);
	stub_context_fini(&ctx->stub);
	kfree(ctx->fpu);
	kfree(ctx);
}

void systrap_ctx_get_bases(struct context *base, uint64_t *fs_base, uint64_t *gs_base)
{
	struct systrap_context *ctx = to_ctx(base);

	*fs_base = ctx->fs_base;
	*gs_base = ctx->gs_base;
}

/*
 * Those that the CPU could not load again (and, so that all hosts are alike, all of the upper half)
 * become 0.
 */
void systrap_ctx_set_bases(struct context *base, uint64_t fs_base, uint64_t gs_base)
{
	struct systrap_context *ctx = to_ctx(base);

	ctx->fs_base = stub_base_valid(fs_base) ? fs_base : 0;
	ctx->gs_base = stub_base_valid(gs_base) ? gs_base : 0;
	ctx->bases_dirty = true;
}

void systrap_ctx_get_fpu(struct context *base, void *fpu)
{
	struct systrap_context *ctx = to_ctx(base);
	void *frame;

	if (!ctx->fpu_valid) {
		struct systrap_thread *th = to_thread(ctx->stub.thread);

		if (frame_find(th, &frame) ||
		    frame_get_fpu(to_platform(base->platform), th, frame, ctx->fpu))
			arch_fpu_init(ctx->fpu);
		ctx->fpu_valid = true;
	}
	memcpy(fpu, ctx->fpu, arch_fpu_size());
}

void systrap_ctx_set_fpu(struct context *base, const void *fpu)
{
	struct systrap_context *ctx = to_ctx(base);

	memcpy(ctx->fpu, fpu, arch_fpu_size());
	ctx->fpu_valid = ctx->fpu_dirty = true;
}

/* Binds @as to a process if need be and takes a thread of it. */
static int context_attach(struct systrap_context *ctx, struct stub_space *as)
{
	struct systrap_platform *p = to_platform(ctx->stub.base.platform);
	struct stub_thread *th = NULL;
	unsigned int tries;
	int err = 0;

	if (ctx->stub.thread) {
		bool adopted;

		mutex_lock(&as->lock);
		adopted = stub_adopt_locked(&ctx->stub, as);
		mutex_unlock(&as->lock);
		if (adopted)
			return 0;
		context_detach(ctx);
	}
	/* A process from the pool may have been killed from outside unnoticed. */
	for (tries = 0; tries <= POOL_SIZE; tries++) {
		mutex_lock(&as->lock);
		err = stub_bind_locked(as);
		if (!err) {
			th = stub_thread_take_locked(as);
			err = PTR_ERR_OR_ZERO(th);
		}
		mutex_unlock(&as->lock);
		if (err != -ESRCH)
			break;
	}
	if (err) {
		log_debug("systrap: no stub thread: %s", strerror(-err));
		place_leave(&ctx->stub);
		return err;
	}
	place_context(&ctx->stub, th->tid);
	mutex_lock(&p->stub.lock);
	th->driver = own_id();
	th->ctx = &ctx->stub;
	ctx->stub.thread = th;
	list_add(&th->node, &to_proc(th->proc)->attached);
	mutex_unlock(&p->stub.lock);
	ctx->bases_dirty = ctx->fpu_dirty = true;
	return 0;
}

/* What the stub thread is to go on with. 0 or -EFAULT. */
static int write_state(struct systrap_context *ctx, const struct arch_regs *regs)
{
	struct systrap_platform *p = to_platform(ctx->stub.base.platform);
	struct systrap_thread *th = to_thread(ctx->stub.thread);
	void *frame;
	int err = frame_find(th, &frame);

	if (err)
		return err;
	frame_set_regs(frame, regs);
	if (ctx->bases_dirty) {
		atomic_store_explicit(&th->ctl->fs_base, ctx->fs_base, memory_order_relaxed);
		atomic_store_explicit(&th->ctl->gs_base, ctx->gs_base, memory_order_relaxed);
		atomic_store_explicit(&th->ctl->bases, 1, memory_order_relaxed);
		ctx->bases_dirty = false;
	}
	if (ctx->fpu_dirty) {
		err = frame_set_fpu(p, th, frame, ctx->fpu);
		ctx->fpu_dirty = false;
	}
	return err;
}

/*
 * The wait took a while. Now and then somebody compares the CPUs; and one who doesn't heed kicks,
 * which is possible only on purpose, is ended.
 */
static void wait_tick(struct systrap_context *ctx, struct systrap_thread *th, uint64_t waited)
{
	struct stub_platform *p = to_stub_platform(ctx->stub.base.platform);

	if (p->place.pin && atomic_load_explicit(&p->nr_attached, memory_order_relaxed) > 1)
		place_balance(p);
	if (waited / 1000000000 >= KICK_PATIENCE && atomic_load(&ctx->stub.kick)) {
		log_debug("systrap: a thread blocks kicks");
		systrap_proc_kill(p, th->stub.proc);
	}
}

/* Until the stub thread has stopped. A signal to this host thread stops it, as a kick. */
static int wait_stop(struct systrap_context *ctx, struct systrap_thread *th)
{
	struct systrap_platform *p = to_platform(ctx->stub.base.platform);
	struct control *ctl = th->ctl;
	uint64_t ns, waited = 0;
	unsigned int i;
	int err;

	for (i = 0; i < p->spin; i++) {
		if (atomic_load_explicit(&ctl->state, memory_order_acquire) == STATE_STOPPED)
			goto out;
		__builtin_ia32_pause();
	}
	atomic_store(&ctl->waited, 1);
	while (atomic_load(&ctl->state) == STATE_RUN) {
		ns = atomic_load_explicit(&p->stub.nr_attached, memory_order_relaxed) > 1
			     ? TICK_NS
			     : LONG_TICK_NS;
		err = shared_futex_wait(&ctl->state, STATE_RUN, ns);
		if (err == -EINTR)
			stub_ctx_kick(&ctx->stub.base);
		if (err == -ETIMEDOUT) {
			/* The time since the last kick at least. */
			waited = atomic_load(&ctx->stub.kick) ? waited + ns : 0;
			wait_tick(ctx, th, waited);
		}
	}
	atomic_store_explicit(&ctl->waited, 0, memory_order_relaxed);
out:
	return atomic_load(&th->stub.proc->dead) ? -ESRCH : 0;
}

/*
 * Lets the stub thread run. Returns 1 when it stopped, 0 when a kick was due before it started, or
 * -errno.
 */
static int run_once(struct systrap_context *ctx, struct stub_space *as, struct arch_regs *regs)
{
	struct stub_context *sctx = &ctx->stub;
	struct systrap_thread *th = to_thread(sctx->thread);
	struct stub_proc *proc = th->stub.proc;
	int err, cpu;

	for (;;) {
		if (unlikely(sctx->sync_addr || atomic_load(&proc->nr_stale))) {
			err = stub_context_sync(sctx, as);
			if (err)
				return err;
		}
		atomic_fetch_add(&proc->nr_running, 1);
		if (unlikely(atomic_load(&proc->nr_stale))) {
			atomic_fetch_sub(&proc->nr_running, 1);
			continue;
		}
		if (likely(!atomic_load(&proc->dead)))
			break;
		atomic_fetch_sub(&proc->nr_running, 1);
		return -ESRCH;
	}
	err = write_state(ctx, regs);
	if (err)
		goto out;
	atomic_store(&sctx->target, (uint64_t)proc->pid << 32 | (uint32_t)th->stub.tid);
	if (atomic_load(&sctx->kick) && atomic_exchange(&sctx->kick, false)) {
		atomic_store_explicit(&sctx->target, 0, memory_order_release);
		goto out;
	}
	cpu = place_enter(sctx);
	ctx->fpu_valid = false;
	sctx->stats.enters++;
	stub_clock_start(sctx);
	atomic_store(&th->ctl->state, STATE_RUN);
	if (atomic_load(&th->ctl->asleep))
		shared_futex_wake(&th->ctl->state);
	err = wait_stop(ctx, th);
	stub_clock_stop(sctx);
	atomic_store_explicit(&sctx->target, 0, memory_order_release);
	place_exit(&to_stub_platform(sctx->base.platform)->place, cpu);
	err = err ? err : 1;
out:
	atomic_fetch_sub(&proc->nr_running, 1);
	return err;
}

/* Does @pte (present) allow @access? */
static bool pte_allows(uint64_t pte, unsigned int access)
{
	switch (access) {
	case ACCESS_WRITE:
		return pte & PTE_RW;
	case ACCESS_EXEC:
		return !(pte & PTE_NX);
	default:
		return true;
	}
}

/* A page fault in the stub: AGAIN when it was the cache's, 0 with @trap, or -errno. */
static int handle_fault(struct stub_context *ctx, struct stub_space *as,
			const struct frame_stop *stop, struct trap *trap)
{
	uaddr_t page = PAGE_ALIGN_DOWN(stop->addr);
	unsigned int access = stop->error & 16	? ACCESS_EXEC
			      : stop->error & 2 ? ACCESS_WRITE
						: ACCESS_READ;
	const uint64_t *entry;
	uint64_t pte = 0, generation;
	bool mapped, had;
	int err = 0;

	if (stop->addr >= USER_TOP)
		return stub_fault_trap(ctx, trap, stop->addr, access, false);
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
	if (pte && !had && pte_allows(pte, access))
		err = stub_sync_locked(as, ctx->thread, page, &mapped);
	mutex_unlock(&as->lock);
	if (err)
		return err;
	if (!pte || !pte_allows(pte, access))
		return stub_fault_trap(ctx, trap, stop->addr, access, pte != 0);
	if (!had) {
		ctx->stats.faults_mapped++;
		return AGAIN;
	}
	if (stop->sig == SIGBUS) {
		log_debug("systrap: the host can't back a page");
		return -ENOMEM;
	}
	err = stub_unexplained_fault(ctx, as, stop->addr, generation);
	return err ? err : AGAIN;
}

static int exception_trap(struct stub_context *ctx, unsigned int vector, uint64_t error,
			  struct trap *trap)
{
	trap->kind = TRAP_EXCEPTION;
	trap->vector = vector;
	trap->error = error;
	ctx->stats.exceptions++;
	return 0;
}

static int handle_syscall(struct stub_context *ctx, const struct frame_stop *stop,
			  struct arch_regs *regs, struct trap *trap)
{
	if (unlikely(!stop->native)) {
		/* int $0x80, as if the CPU didn't have it. */
		regs->rip -= 2;
		return exception_trap(ctx, ARCH_EXC_GP, 0, trap);
	}
	/* The whole register, but for calls that were none: vsyscalls, and see handle_stop. */
	regs->orig_rax = (int)regs->rax == stop->nr ? regs->rax : (uint64_t)stop->nr;
	trap->kind = TRAP_SYSCALL;
	ctx->stats.syscalls++;
	return 0;
}

/* Why it stopped: 0 with @trap filled, AGAIN, or -errno. */
static int handle_stop(struct systrap_context *ctx, struct stub_space *as, struct arch_regs *regs,
		       struct trap *trap)
{
	struct systrap_thread *th = to_thread(ctx->stub.thread);
	struct frame_stop stop;
	void *frame;
	int err = frame_find(th, &frame);

	if (err)
		return err;
	frame_get_regs(frame, regs);
	if (!ctx->bases_dirty && to_platform(ctx->stub.base.platform)->fsgsbase) {
		ctx->fs_base = atomic_load_explicit(&th->ctl->fs_base, memory_order_relaxed);
		ctx->gs_base = atomic_load_explicit(&th->ctl->gs_base, memory_order_relaxed);
	}
	frame_get_stop(th, frame, &stop);
	if (stop.sig == PLATFORM_KICK_SIGNAL)
		return atomic_exchange(&ctx->stub.kick, false) ? stub_kick_trap(&ctx->stub, trap)
							       : AGAIN;
	if (stop.code <= 0)
		return AGAIN; /* sent by someone, not by the CPU */
	switch (stop.sig) {
	case SIGSYS:
		return handle_syscall(&ctx->stub, &stop, regs, trap);
	case SIGSEGV:
	case SIGBUS:
		if (stop.vector == ARCH_EXC_PF)
			return handle_fault(&ctx->stub, as, &stop, trap);
		return exception_trap(&ctx->stub, stop.vector, stop.error, trap);
	case SIGILL:
		if (stop.code == SI_KERNEL) {
			/*
			 * Linux lets uretprobe(2) and uprobe(2) pass by all filters; they don't
			 * return to who isn't probed. Nor are they called by anyone else.
			 */
			stop.nr = NR_URETPROBE;
			stop.native = true;
			return handle_syscall(&ctx->stub, &stop, regs, trap);
		}
		return exception_trap(&ctx->stub, stop.vector, stop.error, trap);
	case SIGFPE:
	case SIGTRAP:
		return exception_trap(&ctx->stub, stop.vector, stop.error, trap);
	default:
		return AGAIN;
	}
}

/* The stub thread's process died, from outside or by our despair. The next run gets another. */
static void context_lost(struct systrap_context *ctx)
{
	systrap_proc_kill(to_stub_platform(ctx->stub.base.platform), ctx->stub.thread->proc);
	atomic_store(&ctx->stub.thread->proc->dead, true);
	if (!ctx->fpu_valid)
		arch_fpu_init(ctx->fpu);
	ctx->fpu_valid = true;
	stub_context_quiet(&ctx->stub);
	stub_thread_leave(ctx->stub.thread);
	place_leave(&ctx->stub);
}

int systrap_ctx_run(struct context *base, struct address_space *as_base, struct arch_regs *regs,
		    struct trap *trap)
{
	struct systrap_context *ctx = to_ctx(base);
	struct stub_space *as = to_stub_space(as_base);
	struct stub_thread *th = ctx->stub.thread;
	int ret;

	if (unlikely(th && atomic_load(&th->proc->dead))) {
		context_lost(ctx);
		return -ESRCH;
	}
	if (unlikely(!th || atomic_load(&th->proc->as) != as)) {
		ret = context_attach(ctx, as);
		if (ret)
			return ret;
	}
	memset(trap, 0, sizeof(*trap));
	do {
		ret = run_once(ctx, as, regs);
		if (ret > 0)
			ret = handle_stop(ctx, as, regs, trap);
		else if (ret == 0)
			ret = stub_kick_trap(&ctx->stub, trap);
	} while (ret == AGAIN);
	/* Its frame makes no sense, or memory can't be mapped: nobody else shall have it. */
	if (unlikely(ret < 0))
		context_lost(ctx);
	return ret;
}
