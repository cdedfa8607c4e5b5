/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctx_run: into the guest and out again.
 *
 * Ways in, by where the vCPU stopped and what is due first:
 *   RING_KERNEL		the iret words are filled in, RIP = tramp_iret
 *   RING_KERNEL, work due	RIP = tramp_drain, which goes on to iretq; in several rounds if
 *				there is much (tramp_drain_out)
 *   RING_USER			a signal stopped it in user code: registers are set where they are
 *
 * Ways out: the doorbell, with the port saying what happened; or a signal (EINTR), which may find
 * the vCPU in user code, in ring 0 before its iretq (user code did not run), or in ring 0 on its
 * way to the doorbell, where it is left to finish.
 */
#include "platform/kvm/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sentry/lib/hostfutex.h"
#include "sentry/lib/log.h"

#define RFLAGS_KERNEL	   0x2
#define PF_PRESENT	   0x01
#define PF_WRITE	   0x02
#define PF_RESERVED	   0x08
#define PF_FETCH	   0x10
#define VECTORS_WITH_ERROR 0x60227d00U /* 8 10-14 17 21 29 30 */

/* What a return to the guest comes to; positive, beside -errno. */
enum run_result {
	RUN_TRAP = 1, /* *trap is filled in */
	RUN_AGAIN,    /* enter again with the same registers */
	RUN_SIGNAL,   /* a signal; registers are up to date */
};

struct run {
	struct kvm_context *ctx;
	struct kvm_address_space *as;
	struct vcpu *v;
	struct arch_regs *regs;
	struct trap *trap;
};

static bool is_canonical(uint64_t addr)
{
	return (uint64_t)((int64_t)(addr << 16) >> 16) == addr;
}

/* ---- in ---- */

static void put_general(struct kvm_regs *k, const struct arch_regs *r)
{
	k->rax = r->rax;
	k->rbx = r->rbx;
	k->rcx = r->rcx;
	k->rdx = r->rdx;
	k->rsi = r->rsi;
	k->rdi = r->rdi;
	k->rbp = r->rbp;
	k->r8 = r->r8;
	k->r9 = r->r9;
	k->r10 = r->r10;
	k->r11 = r->r11;
	k->r12 = r->r12;
	k->r13 = r->r13;
	k->r14 = r->r14;
	k->r15 = r->r15;
}

static void get_general(struct arch_regs *r, const struct kvm_regs *k)
{
	r->rax = k->rax;
	r->rbx = k->rbx;
	r->rcx = k->rcx;
	r->rdx = k->rdx;
	r->rsi = k->rsi;
	r->rdi = k->rdi;
	r->rbp = k->rbp;
	r->r8 = k->r8;
	r->r9 = k->r9;
	r->r10 = k->r10;
	r->r11 = k->r11;
	r->r12 = k->r12;
	r->r13 = k->r13;
	r->r14 = k->r14;
	r->r15 = k->r15;
}

/* Registers for user code: directly, or through the iret words. */
static void put_user(struct vcpu *v, const struct arch_regs *regs)
{
	struct kvm_regs *k = &v->run->s.regs.regs;
	uint64_t eflags = (regs->eflags & ARCH_EFLAGS_USER) | ARCH_EFLAGS_FIXED;

	put_general(k, regs);
	if (v->ring == RING_USER) {
		k->rip = regs->rip;
		k->rsp = regs->rsp;
		k->rflags = eflags;
	} else {
		v->priv->iret = (struct tramp_iret){
			.rip = regs->rip,
			.cs = ARCH_USER_CS,
			.rflags = eflags,
			.rsp = regs->rsp,
			.ss = ARCH_USER_SS,
		};
		k->rip = vcpu_label(v, tramp_iret);
		k->rsp = v->va + TRAMP_OFF_PRIV + TRAMP_PRIV_IRET;
		k->rflags = RFLAGS_KERNEL;
	}
	v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
}

/* Work first, then on to @next. */
static void put_drain(struct vcpu *v, const struct arch_regs *regs, const uint8_t *next)
{
	struct kvm_regs *k = &v->run->s.regs.regs;

	v->frame->regs = *regs; /* tramp_drain_iret takes back from here what is used below */
	k->rdi = v->va + TRAMP_OFF_PRIV + TRAMP_PRIV_OPS;
	k->rcx = v->nr_entries;
	k->rdx = v->nr_tables;
	k->rsi = v->next_cr3;
	k->r9 = vcpu_label(v, next);
	k->rip = vcpu_label(v, tramp_drain);
	k->rsp = v->va + TRAMP_OFF_PRIV + TRAMP_PRIV_IRET;
	k->rflags = RFLAGS_KERNEL;
	v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
}

static int enter(struct vcpu *v)
{
	vcpu_count(v, VSTAT_ENTERS, 1);
	return ioctl(v->fd, KVM_RUN, 0) < 0 ? -errno : 0;
}

/* ---- out ---- */

/* The vehicle is broken: names what KVM said. */
static int broken(struct vcpu *v, const char *what)
{
	const struct kvm_run *run = v->run;

	switch (run->exit_reason) {
	case KVM_EXIT_MMIO:
		log_error("vCPU %d: %s: %s of guest physical %#llx, which has no memory", v->index,
			  what, run->mmio.is_write ? "write" : "read", run->mmio.phys_addr);
		break;
	case KVM_EXIT_SHUTDOWN:
		log_error("vCPU %d: %s: triple fault at %#llx, entered %s%s", v->index, what,
			  run->s.regs.regs.rip, v->ring == RING_USER ? "in user code" : "by iretq",
			  v->draining ? " after page-table work" : "");
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		log_error("vCPU %d: %s: KVM internal error %u at %#llx", v->index, what,
			  run->internal.suberror, run->s.regs.regs.rip);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		log_error("vCPU %d: %s: entry failed, hardware reason %#llx", v->index, what,
			  run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		log_error("vCPU %d: %s: exit reason %u at %#llx", v->index, what, run->exit_reason,
			  run->s.regs.regs.rip);
	}
	return -EIO;
}

static int take_syscall(struct run *r, uint64_t rsp)
{
	struct arch_regs *regs = r->regs;

	regs->orig_rax = regs->rax;
	regs->rip = regs->rcx;
	regs->eflags = regs->r11;
	regs->rsp = rsp;
	r->trap->kind = TRAP_SYSCALL;
	vcpu_count(r->v, VSTAT_SYSCALLS, 1);
	return RUN_TRAP;
}

static void take_iret(struct arch_regs *regs, const struct tramp_iret *iret)
{
	regs->orig_rax = (uint64_t)-1;
	regs->rip = iret->rip;
	regs->eflags = iret->rflags;
	regs->rsp = iret->rsp;
}

static int take_fault(struct run *r, uint64_t error, uint64_t cr2)
{
	if (cr2 >= USER_TOP) {
		/*
		 * Like Linux: what the kernel half has mapped is nobody's business. kvm-pvm says
		 * "reserved bit" for parts of it that are the host's.
		 */
		error = (error & ~(uint64_t)PF_RESERVED) | PF_PRESENT;
	} else if (error & PF_RESERVED) {
		log_error("vCPU %d: reserved bit in the page table for %#lx", r->v->index, cr2);
		return -EIO;
	}
	take_iret(r->regs, &r->v->priv->iret);
	r->trap->kind = TRAP_FAULT;
	r->trap->addr = cr2;
	r->trap->access = error & PF_FETCH   ? ACCESS_EXEC
			  : error & PF_WRITE ? ACCESS_WRITE
					     : ACCESS_READ;
	r->trap->present = error & PF_PRESENT;
	r->trap->vector = ARCH_EXC_PF;
	r->trap->error = error;
	vcpu_count(r->v, VSTAT_FAULTS, 1);
	return RUN_TRAP;
}

/* Byte at @va of user code that just ran; a look without a lock at a page that may be changing. */
static int user_byte(struct kvm_address_space *as, uaddr_t va)
{
	uint64_t *pte = va < USER_TOP ? pt_find(as->pt, va) : NULL, e = pte ? pte_read(pte) : 0;

	return e & PTE_P ? ((const uint8_t *)phys_ptr(e & PTE_ADDR))[va % PAGE_SIZE] : -1;
}

/*
 * kvm-pvm emulates INT n, for n without a gate for user code, as #UD; it is #GP. No CPU raises #UD
 * for it, so this can't go wrong elsewhere.
 */
static bool is_int_n(struct run *r, unsigned int *n)
{
	uint64_t rip = r->v->priv->iret.rip;
	int second;

	if (user_byte(r->as, rip) != 0xcd)
		return false;
	second = user_byte(r->as, rip + 1);
	*n = (unsigned int)second;
	return second >= 0;
}

static int take_exception(struct run *r, unsigned int vector)
{
	unsigned int n;

	take_iret(r->regs, &r->v->priv->iret);
	if (vector == ARCH_EXC_UD && is_int_n(r, &n)) {
		vector = ARCH_EXC_GP;
		r->v->priv->error = n * 8 + 2;
	}
	r->trap->kind = TRAP_EXCEPTION;
	r->trap->vector = vector;
	r->trap->error = VECTORS_WITH_ERROR >> vector & 1 ? r->v->priv->error : 0;
	vcpu_count(r->v, VSTAT_EXCEPTIONS, 1);
	return RUN_TRAP;
}

/* An `out` from the trampoline. */
static int take_doorbell(struct run *r)
{
	struct vcpu *v = r->v;
	const struct kvm_regs *k = &v->run->s.regs.regs;
	unsigned int port = v->run->io.port;

	v->ring = RING_KERNEL;
	v->frame->trap = port;
	if (port == TRAMP_PORT_DRAINED) {
		vcpu_count(v, VSTAT_DRAIN_EXITS, 1);
		return RUN_AGAIN;
	}
	get_general(r->regs, k);
	*r->trap = (struct trap){.kind = TRAP_KICK};
	if (port == TRAMP_PORT_SYSCALL)
		return take_syscall(r, k->rsp);
	if (v->priv->iret.cs != ARCH_USER_CS) {
		log_error("vCPU %d: exception %u in the trampoline at %#lx", v->index,
			  port - TRAMP_PORT_VECTOR, v->priv->iret.rip);
		return -EIO;
	}
	switch (port) {
	case TRAMP_PORT_FETCH:
		if (v->priv->iret.rip == vcpu_label(v, tramp_syscall)) {
			return take_syscall(r, v->priv->iret.rsp);
		} else {
			struct kvm_sregs s;

			if (ioctl(v->fd, KVM_GET_SREGS, &s))
				return -errno;
			return take_fault(r, v->priv->error, s.cr2);
		}
	case TRAMP_PORT_FAULT:
		r->regs->rax = v->frame->rax;
		return take_fault(r, v->priv->error, v->frame->cr2);
	default:
		if (port - TRAMP_PORT_VECTOR < TRAMP_NR_VECTORS)
			return take_exception(r, port - TRAMP_PORT_VECTOR);
		return broken(v, "unknown doorbell");
	}
}

/* A signal stopped it in user code, or while the CPU was delivering an exception from there. */
static int stopped_in_user(struct run *r)
{
	const struct kvm_regs *k = &r->v->run->s.regs.regs;
	struct kvm_vcpu_events ev;

	if (ioctl(r->v->fd, KVM_GET_VCPU_EVENTS, &ev))
		return -errno;
	if (ev.exception.injected || ev.exception.pending)
		return 0;
	r->v->ring = RING_USER;
	get_general(r->regs, k);
	r->regs->rip = k->rip;
	r->regs->rsp = k->rsp;
	r->regs->eflags = k->rflags;
	r->regs->orig_rax = (uint64_t)-1;
	return RUN_SIGNAL;
}

/* Stopped in page-table work: what is done stays done, or a storm of signals would never end it. */
static void note_progress(struct vcpu *v)
{
	uint64_t first = v->va + TRAMP_OFF_PRIV + TRAMP_PRIV_OPS, rdi = v->run->s.regs.regs.rdi;
	size_t n = v->nr_entries + v->nr_tables;

	/* Behind the work rdi is the user's again. */
	if (!space_drained(v) && rdi - first <= n * TRAMP_OP_SIZE)
		v->nr_done = (rdi - first) / TRAMP_OP_SIZE;
}

/* After EINTR. 0: the vCPU is on its way to the doorbell, let it get there. */
static int take_signal(struct run *r)
{
	struct vcpu *v = r->v;
	uint64_t rip = v->run->s.regs.regs.rip, off;
	struct kvm_sregs s;

	if (rip < 1ULL << 63)
		return stopped_in_user(r);
	if (ioctl(v->fd, KVM_GET_SREGS, &s))
		return -errno;
	/* SYSCALL about to fault its way in, or a jump to where nothing is. */
	if (s.cs.selector & 3)
		return 0;
	off = rip - v->va;
	if (off >= (uint64_t)(tramp_drain - tramp_start) &&
	    off <= (uint64_t)(tramp_iret - tramp_start)) {
		/* User code has not run since we came in: registers are as they were. */
		v->ring = RING_KERNEL;
		if (v->draining)
			note_progress(v);
		return RUN_SIGNAL;
	}
	return 0;
}

/* Runs until the doorbell, or a signal that found user registers. */
static int run_vcpu(struct run *r)
{
	struct vcpu *v = r->v;

	for (;;) {
		int err = enter(v), res;

		v->run->kvm_dirty_regs = 0;
		if (!err && v->run->exit_reason == KVM_EXIT_IO &&
		    v->run->io.direction == KVM_EXIT_IO_OUT)
			return take_doorbell(r);
		if (!err && v->run->exit_reason != KVM_EXIT_INTR)
			return broken(v, "unexpected exit");
		if (err && err != -EINTR && err != -EAGAIN) {
			log_error("vCPU %d: KVM_RUN: %s", v->index, strerror(-err));
			return err;
		}
		__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		res = take_signal(r);
		if (res)
			return res;
	}
}

static void leave(struct vcpu *v, struct kvm_address_space *as)
{
	atomic_store(&v->in_guest, NULL);
	if (unlikely(atomic_load(&as->watchers))) {
		atomic_fetch_add(&as->left, 1);
		host_futex_wake(&as->left, HOST_FUTEX_ALL);
	}
}

/* Work that does not fit at once: rounds that come straight back. */
static int drain_rounds(struct run *r)
{
	struct vcpu *v = r->v;
	bool more;
	int res;

	for (;;) {
		space_prepare(v, r->as, &more);
		if (!more)
			return 0;
		put_drain(v, r->regs, tramp_drain_out);
		res = run_vcpu(r);
		space_finish(v, r->as);
		if (res != RUN_AGAIN)
			return res == RUN_TRAP ? broken(v, "trap while draining") : res;
	}
}

/* One trip. Registers in r->regs go in and come out. */
static int run_once(struct run *r)
{
	struct kvm_context *ctx = r->ctx;
	struct kvm_address_space *as = r->as;
	struct vcpu *v = r->v;
	uint64_t gen;
	int res;

	if (unlikely(!space_is_current(v, as))) {
		if (v->ring == RING_USER) {
			res = vcpu_to_kernel(v);
			if (res)
				return res;
		}
		res = drain_rounds(r);
		if (res)
			return res;
	}
	put_user(v, r->regs);
	if (v->draining)
		put_drain(v, r->regs, tramp_drain_iret);
	gen = v->draining ? v->next_gen : v->gen;

	v->frame->state = TRAMP_STATE_GUEST;
	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	atomic_store(&v->entered_gen, gen);
	atomic_store(&v->in_guest, as);
	if (unlikely(atomic_load(&as->gen) != gen)) {
		res = RUN_AGAIN;
	} else if (unlikely(atomic_load(&ctx->kicked))) {
		res = RUN_SIGNAL;
	} else {
		ctx->fpu_mem = ctx->bases_mem = ctx->fpu_initial = false;
		res = run_vcpu(r);
	}
	leave(v, as);
	v->frame->state = TRAMP_STATE_HOST;
	if (v->draining)
		space_finish(v, as);
	return res;
}

int kvm_ctx_run(struct context *base, struct address_space *as_base, struct arch_regs *regs,
		struct trap *trap)
{
	struct kvm_context *ctx = to_kvm_ctx(base);
	struct run r = {.ctx = ctx, .as = to_kvm_as(as_base), .regs = regs, .trap = trap};
	static _Thread_local pid_t tid;
	int res;

	if (unlikely(!tid))
		tid = (pid_t)syscall(SYS_gettid);
	for (;;) {
		if (unlikely(space_wants_kind(r.as))) {
			res = kvm_find_mmu(to_kvm(base->platform), ctx);
			if (res)
				return res;
		}
		res = pool_acquire(ctx, &r.v);
		if (res == -EINTR)
			break;
		if (res)
			return res;
		if (atomic_load_explicit(&r.v->tid, memory_order_relaxed) != tid)
			pool_settle(to_kvm(base->platform), r.v, tid);
		atomic_store(&ctx->active, r.v);
		if (unlikely(!is_canonical(regs->rip))) {
			*trap = (struct trap){.kind = TRAP_EXCEPTION, .vector = ARCH_EXC_GP};
			res = RUN_TRAP;
		} else {
			res = run_once(&r);
		}
		atomic_store(&ctx->active, NULL);
		/*
		 * An interruption for as_invalidate or for a waiting context looks like a kick,
		 * too: a signal for the host may have come at the same time, and must not be lost.
		 */
		if (res == RUN_SIGNAL)
			vcpu_count(r.v, VSTAT_KICKS, 1);
		if (res == RUN_AGAIN)
			vcpu_count(r.v, VSTAT_RETRIES, 1);
		if (unlikely(atomic_load_explicit(&r.v->give_up, memory_order_relaxed)))
			atomic_store(&r.v->give_up, false);
		pool_release(ctx, r.v);
		if (res == RUN_TRAP)
			return 0;
		if (res == RUN_SIGNAL)
			break;
		if (res < 0)
			return res;
	}
	atomic_store(&ctx->kicked, false);
	*trap = (struct trap){.kind = TRAP_KICK};
	return 0;
}

void kvm_ctx_kick(struct context *base)
{
	struct kvm_context *ctx = to_kvm_ctx(base);
	struct vcpu *v;

	atomic_store(&ctx->kicked, true);
	v = atomic_load(&ctx->active);
	if (v)
		vcpu_interrupt(v);
	if (atomic_load(&ctx->waiting)) {
		atomic_fetch_add(&ctx->wait_word, 1);
		host_futex_wake(&ctx->wait_word, 1);
	}
}
