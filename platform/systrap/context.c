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
 * With a listener a hand-over is a notification and its answer instead: of the handler (STOPPED),
 * or of a call that user code makes (IN_CALL). A signal takes such a call back, even while it is
 * being answered, so none may be on its way then: `target` is 0 while a call is with the sentry,
 * and if `kick` or `nudged` say that somebody saw it before that, the thread is led to the handler
 * instead (leave_call).
 *
 * On one CPU the stub's wake-up of the sentry makes the host switch to it before the stub has gone
 * to sleep, more often than not; so in the other direction nothing has to be woken.
 */
#include "platform/systrap/internal.h"

#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"

#define NR_URETPROBE 335
#define LOOK_NS	     20000000UL /* user code may have seen to it that nobody is woken */

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

/* User code may have set them itself. */
static void get_bases(struct systrap_context *ctx, const struct systrap_thread *th)
{
	if (ctx->bases_dirty || !to_platform(ctx->stub.base.platform)->fsgsbase)
		return;
	ctx->fs_base = atomic_load_explicit(&th->ctl->fs_base, memory_order_relaxed);
	ctx->gs_base = atomic_load_explicit(&th->ctl->gs_base, memory_order_relaxed);
}

/* ---- handing over ---- */

enum { STOPPED, IN_CALL, TAKEN_BACK };

/*
 * What the thread does next: STOPPED in the handler, or IN_CALL with @n. A signal to this host
 * thread is a kick. -ESRCH: it is dead, or out of its mind.
 */
static int listen_for(struct systrap_context *ctx, struct systrap_thread *th,
		      struct seccomp_notif *n)
{
	static const struct timespec moment = {.tv_nsec = 50000};

	for (;;) {
		memset(n, 0, sizeof(*n));
		if (!ioctl(th->listener, SECCOMP_IOCTL_NOTIF_RECV, n))
			break;
		if (errno == EINTR) {
			stub_ctx_kick(&ctx->stub.base);
		} else if (errno != ENOENT || atomic_load(&th->stub.proc->dead)) {
			return -ESRCH;
		} else {
			/* Taken back for a kick; or it has just died, and the reaper will tell. */
			nanosleep(&moment, NULL);
		}
	}
	if ((pid_t)n->pid != th->stub.tid)
		return -ESRCH;
	if (!filter_is_stop(n->data.nr, n->data.instruction_pointer))
		return IN_CALL;
	th->stop_id = n->id;
	return STOPPED;
}

/* Lets the thread go on with @result. False: it doesn't wait there any more. */
static bool reply(struct systrap_thread *th, uint64_t id, long result)
{
	struct seccomp_notif_resp r = {.id = id};

	if (result < 0 && result >= -4095)
		r.error = (int)result;
	else
		r.val = result;
	return !ioctl(th->listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
}

/* Until the stub thread has stopped. A signal to this host thread stops it, as a kick. */
static int wait_stop(struct systrap_context *ctx, struct systrap_thread *th)
{
	struct systrap_platform *p = to_platform(ctx->stub.base.platform);
	struct control *ctl = th->ctl;
	unsigned int i;

	for (i = 0; i < p->spin; i++) {
		if (atomic_load_explicit(&ctl->state, memory_order_acquire) == STATE_STOPPED)
			return STOPPED;
		__builtin_ia32_pause();
	}
	atomic_store(&ctl->waited, 1);
	while (atomic_load(&ctl->state) == STATE_RUN) {
		if (shared_futex_wait(&ctl->state, STATE_RUN, LOOK_NS) == -EINTR)
			stub_ctx_kick(&ctx->stub.base);
	}
	atomic_store_explicit(&ctl->waited, 0, memory_order_relaxed);
	return STOPPED;
}

/* The thread goes on, from the handler or from its call, until STOPPED or IN_CALL with @n. */
static int hand_over(struct systrap_context *ctx, struct systrap_thread *th,
		     struct seccomp_notif *n)
{
	uint64_t id = th->stop_id;
	int ret;

	atomic_store(&th->ctl->state, STATE_RUN);
	if (th->listener < 0) {
		if (atomic_load(&th->ctl->asleep))
			shared_futex_wake(&th->ctl->state);
		return wait_stop(ctx, th);
	}
	if (!id) {
		/* It has come up, and nobody has listened yet. */
		ret = listen_for(ctx, th, n);
		if (ret)
			return -ESRCH;
		id = th->stop_id;
	}
	th->stop_id = 0;
	reply(th, id, 0);
	return listen_for(ctx, th, n);
}

/* The thread runs, or is about to: kicks find it, and ticks come. */
static void set_target(struct systrap_context *ctx, uint64_t target)
{
	struct systrap_platform *p = to_platform(ctx->stub.base.platform);

	atomic_store(&ctx->stub.target, target);
	/* Looked at behind that: who stops them looks for targets again afterwards. */
	if (unlikely(!atomic_load(&p->tick_ms)))
		systrap_tick_start(p);
}

/* The call has been answered: the same from there. TAKEN_BACK: it has been left. */
static int hand_over_answer(struct systrap_context *ctx, struct systrap_thread *th, uint64_t target,
			    struct seccomp_notif *n)
{
	uint64_t id = ctx->call.id;

	/* Before anyone can send it a signal, which would take the call and its answer back. */
	if (!reply(th, id, ctx->call.answer)) {
		/* A signal from outside has. */
		atomic_store(&ctx->stub.nudged, true);
		return TAKEN_BACK;
	}
	ctx->call.id = 0;
	set_target(ctx, target);
	if (atomic_load(&ctx->stub.kick))
		syscall(SYS_tgkill, (pid_t)(target >> 32), (pid_t)target, PLATFORM_KICK_SIGNAL);
	return listen_for(ctx, th, n);
}

/* The thread is in a call that it told of. */
static void call_begins(struct systrap_context *ctx, const struct seccomp_notif *n)
{
	ctx->call.id = n->id;
	ctx->call.after = n->data.instruction_pointer;
	ctx->call.nr = n->data.nr;
	ctx->call.answered = false;
	ctx->stub.stats.syscalls++;
	ctx->stub.stats.calls++;
}

/*
 * The thread leaves its call for the handler, which makes its registers those in the frame: @regs
 * as behind the call. 0 or -errno.
 */
static int leave_call(struct systrap_context *ctx, struct arch_regs *regs)
{
	struct systrap_thread *th = to_thread(ctx->stub.thread);
	pid_t pid = th->stub.proc->pid, tid = th->stub.tid;
	struct seccomp_notif n;
	void *frame;
	int err;

	/* If it doesn't heed this, the reaper sees so. */
	set_target(ctx, (uint64_t)pid << 32 | (uint32_t)tid);
	stub_ctx_nudge(&ctx->stub);
	err = listen_for(ctx, th, &n);
	stub_context_quiet(&ctx->stub);
	ctx->call.id = 0;
	if (err == STOPPED)
		err = frame_find(th, &frame);
	else
		err = -ESRCH;
	if (err)
		return err;
	atomic_store(&ctx->stub.nudged, false);
	frame_get_regs(frame, regs);
	get_bases(ctx, th);
	ctx->fpu_valid = false;
	regs->rip = ctx->call.after;
	regs->orig_rax = (uint64_t)ctx->call.nr;
	regs->rax = ctx->call.answered ? (uint64_t)ctx->call.answer : (uint64_t)ctx->call.nr;
	return 0;
}

/* Can the call go on with its answer as it is? No signal is on its way to take it back, then. */
static bool answer_suffices(const struct systrap_context *ctx)
{
	return !atomic_load(&ctx->stub.kick) && !atomic_load(&ctx->stub.nudged) &&
	       !ctx->bases_dirty && !ctx->fpu_dirty;
}

enum { NOT_STARTED, RAN, CALLS, LEFT_CALL };

/*
 * Lets the stub thread run: RAN until it stopped, CALLS with @n, NOT_STARTED because a kick was
 * due, LEFT_CALL before the answer, or -errno.
 */
static int run_once(struct systrap_context *ctx, struct stub_space *as, struct arch_regs *regs,
		    struct seccomp_notif *n)
{
	struct systrap_platform *p = to_platform(ctx->stub.base.platform);
	struct stub_context *sctx = &ctx->stub;
	struct systrap_thread *th = to_thread(sctx->thread);
	struct stub_proc *proc = th->stub.proc;
	uint64_t target = (uint64_t)proc->pid << 32 | (uint32_t)th->stub.tid;
	int ret = 0, cpu;

	for (;;) {
		if (unlikely(sctx->sync_addr || atomic_load(&proc->nr_stale))) {
			ret = stub_context_sync(sctx, as);
			if (ret)
				return ret;
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
	if (!ctx->call.id) {
		ret = write_state(ctx, regs);
		if (ret)
			goto out;
		set_target(ctx, target);
		if (atomic_load(&sctx->kick) && atomic_exchange(&sctx->kick, false)) {
			stub_context_quiet(sctx);
			ret = NOT_STARTED;
			goto out;
		}
	}
	cpu = place_enter(sctx);
	ctx->fpu_valid = false;
	sctx->stats.enters++;
	stub_clock_start(sctx);
	if (ctx->call.id)
		ret = hand_over_answer(ctx, th, target, n);
	else
		ret = hand_over(ctx, th, n);
	stub_clock_stop(sctx);
	stub_context_quiet(sctx);
	place_exit(&p->stub.place, cpu);
	if (unlikely(atomic_load(&proc->dead)))
		ret = -ESRCH;
	else if (ret >= 0)
		ret = ret == IN_CALL ? CALLS : ret == STOPPED ? RAN : LEFT_CALL;
out:
	atomic_fetch_sub(&proc->nr_running, 1);
	return ret;
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
	get_bases(ctx, th);
	frame_get_stop(th, frame, &stop);
	atomic_store_explicit(&ctx->stub.nudged, false, memory_order_relaxed);
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
	ctx->call.id = 0;
	stub_context_quiet(&ctx->stub);
	stub_thread_leave(ctx->stub.thread);
	place_leave(&ctx->stub);
}

void systrap_ctx_answer(struct context *base, long result)
{
	struct systrap_context *ctx = to_ctx(base);

	ctx->call.answered = true;
	ctx->call.answer = result;
}

/* The thread is in a call that isn't answered: as if it had trapped. 0 or -errno. */
static int call_trap(struct systrap_context *ctx, struct arch_regs *regs, struct trap *trap)
{
	int err = leave_call(ctx, regs);

	if (err)
		return err;
	trap->kind = TRAP_SYSCALL;
	return 0;
}

/* A call has come in @n: 0 with @trap, or -errno. */
static int handle_call(struct systrap_context *ctx, const struct seccomp_notif *n,
		       struct arch_regs *regs, struct trap *trap)
{
	call_begins(ctx, n);
	if (!ctx->stub.base.takes_calls)
		return call_trap(ctx, regs, trap);
	trap->kind = TRAP_CALL;
	trap->addr = ctx->call.after;
	trap->nr = ctx->call.nr;
	for (int i = 0; i < 6; i++)
		trap->args[i] = n->data.args[i];
	return 0;
}

/* The thread is in a call: AGAIN if it is to go on, 0 with @trap, or -errno. */
static int resume_call(struct systrap_context *ctx, struct arch_regs *regs, struct trap *trap)
{
	int err;

	if (!ctx->call.answered)
		return call_trap(ctx, regs, trap);
	if (likely(answer_suffices(ctx)))
		return AGAIN;
	err = leave_call(ctx, regs);
	if (err)
		return err;
	return atomic_exchange(&ctx->stub.kick, false) ? stub_kick_trap(&ctx->stub, trap) : AGAIN;
}

static bool attached(const struct systrap_context *ctx, const struct stub_space *as)
{
	return ctx->stub.thread && atomic_load(&ctx->stub.thread->proc->as) == as;
}

void systrap_ctx_prepare(struct context *base, struct address_space *as_base)
{
	struct systrap_context *ctx = to_ctx(base);
	struct stub_space *as = to_stub_space(as_base);

	if (!attached(ctx, as) && context_attach(ctx, as))
		return;
	if (atomic_load(&ctx->stub.thread->proc->nr_stale) && stub_context_sync(&ctx->stub, as))
		log_debug("systrap: nothing could be prepared");
}

int systrap_ctx_run(struct context *base, struct address_space *as_base, struct arch_regs *regs,
		    struct trap *trap)
{
	struct systrap_context *ctx = to_ctx(base);
	struct stub_space *as = to_stub_space(as_base);
	struct stub_thread *th = ctx->stub.thread;
	struct seccomp_notif n;
	int ret = AGAIN;

	if (unlikely(th && atomic_load(&th->proc->dead))) {
		context_lost(ctx);
		return -ESRCH;
	}
	if (unlikely(!attached(ctx, as))) {
		ret = context_attach(ctx, as);
		if (ret)
			return ret;
		ret = AGAIN;
	}
	memset(trap, 0, sizeof(*trap));
	if (ctx->call.id)
		ret = resume_call(ctx, regs, trap);
	while (ret == AGAIN) {
		ret = run_once(ctx, as, regs, &n);
		if (ret == RAN)
			ret = handle_stop(ctx, as, regs, trap);
		else if (ret == CALLS)
			ret = handle_call(ctx, &n, regs, trap);
		else if (ret == LEFT_CALL)
			ret = resume_call(ctx, regs, trap);
		else if (ret == NOT_STARTED)
			ret = stub_kick_trap(&ctx->stub, trap);
	}
	/* Its frame makes no sense, or memory can't be mapped: nobody else shall have it. */
	if (unlikely(ret < 0))
		context_lost(ctx);
	return ret;
}
