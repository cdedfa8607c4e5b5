/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this KVM is like, found out by running a guest: how a changed page-table entry is made
 * visible (enum mmu_kind), as soon as an address space wants to know, and for `doctor` whether
 * calls, faults and exceptions work.
 *
 * Nested paging is believed only if the kernel module says so and the test agrees: a shadowing KVM
 * may happen to look coherent, and taking it for such would corrupt memory.
 */
#include "platform/kvm/internal.h"

#include <errno.h>
#include <string.h>

#include "sentry/lib/err.h"
#include "sentry/lib/log.h"

#define CODE_VA 0x400000UL
#define DATA_VA 0x600000UL
#define NR_DATA 16 /* pages: enough to be changed as a table, not entry by entry */
#define OTHER	9  /* the second page that is looked at */
#define VALUE_A 0x1111111111111111UL
#define VALUE_B 0x2222222222222222UL

static const uint8_t user_code[] = {
	0x48, 0x8b, 0x07,	/* 0: mov (%rdi), %rax */
	0x48, 0x8b, 0x1e,	/*	 mov (%rsi), %rbx */
	0x0f, 0x05,		/*	 syscall */
	0x0f, 0x0b,		/* 8: ud2 */
	0x66, 0x0f, 0x6f, 0x07, /* 10: movdqa (%rdi), %xmm0 */
	0x0f, 0x05,		/*	 syscall */
};
#define CODE_UD	  8
#define CODE_SIMD 10

struct guest {
	struct kvm_platform *p;
	struct pagetable pt;
	struct address_space *as;
	struct context *ctx;
	gpa_t code, a, b;
};

static int run_at(struct guest *g, uaddr_t rip, uaddr_t first, uaddr_t second,
		  struct arch_regs *regs, struct trap *trap)
{
	int err;

	arch_regs_init(regs, rip, 0);
	regs->rdi = first;
	regs->rsi = second;
	do {
		err = kvm_ctx_run(g->ctx, g->as, regs, trap);
	} while (!err && trap->kind == TRAP_KICK);
	return err;
}

/* Does user code see @value in both pages? 1, 0 or -errno. */
static int sees(struct guest *g, uint64_t first, uint64_t second)
{
	struct arch_regs regs;
	struct trap trap;
	int err = run_at(g, CODE_VA, DATA_VA, DATA_VA + OTHER * PAGE_SIZE, &regs, &trap);

	if (err)
		return err;
	return trap.kind == TRAP_SYSCALL && regs.orig_rax == first && regs.rbx == second;
}

static void map_all(struct guest *g, gpa_t frame)
{
	for (size_t i = 0; i < NR_DATA; i++)
		pte_write(pt_find(&g->pt, DATA_VA + i * PAGE_SIZE), pte_make(frame, ACCESS_READ));
}

static int try_kind(struct guest *g, enum mmu_kind kind)
{
	int ok;

	to_kvm_as(g->as)->forced = kind;
	ok = sees(g, VALUE_A, VALUE_A);
	if (ok <= 0)
		return ok;
	map_all(g, g->b);
	kvm_as_invalidate(g->as, DATA_VA, NR_DATA * PAGE_SIZE);
	ok = sees(g, VALUE_B, VALUE_B);
	if (ok <= 0)
		return ok;
	pte_write(pt_find(&g->pt, DATA_VA), pte_make(g->a, ACCESS_READ));
	kvm_as_invalidate(g->as, DATA_VA, PAGE_SIZE);
	return sees(g, VALUE_A, VALUE_B);
}

static int find_kind(struct guest *g)
{
	enum mmu_kind kind = kvm_vm.nested ? MMU_COHERENT : MMU_POKE;

	for (;; kind++) {
		int ok = try_kind(g, kind);

		if (ok < 0)
			return ok;
		if (ok) {
			atomic_store(&g->p->mmu, kind);
			return 0;
		}
		log_debug("KVM: page-table changes are not seen (kind %d)", kind);
		if (kind == MMU_STORE)
			break;
		/* Start over where nothing is cached. */
		to_kvm_as(g->as)->forced = MMU_STORE;
		map_all(g, g->a);
		kvm_as_invalidate(g->as, DATA_VA, NR_DATA * PAGE_SIZE);
	}
	log_error("this KVM does not see changes of page tables, by any means known");
	return -EOPNOTSUPP;
}

static int check_traps(struct guest *g)
{
	struct arch_regs regs;
	struct trap trap;
	int err;

	for (size_t i = 0; i < NR_DATA; i++)
		pte_write(pt_find(&g->pt, DATA_VA + i * PAGE_SIZE), 0);
	kvm_as_invalidate(g->as, DATA_VA, NR_DATA * PAGE_SIZE);
	err = run_at(g, CODE_VA, DATA_VA, DATA_VA, &regs, &trap);
	if (err)
		return err;
	if (trap.kind != TRAP_FAULT || trap.addr != DATA_VA || trap.access != ACCESS_READ ||
	    trap.present || regs.rip != CODE_VA) {
		log_error("KVM self-test: a read of an absent page came out as trap %d at %#lx",
			  trap.kind, trap.addr);
		return -EIO;
	}
	err = run_at(g, CODE_VA + CODE_UD, 0, 0, &regs, &trap);
	if (err)
		return err;
	if (trap.kind != TRAP_EXCEPTION || trap.vector != ARCH_EXC_UD) {
		log_error("KVM self-test: an invalid opcode came out as trap %d, vector %u",
			  trap.kind, trap.vector);
		return -EIO;
	}
	err = run_at(g, CODE_VA + CODE_SIMD, CODE_VA, 0, &regs, &trap);
	if (err)
		return err;
	if (trap.kind != TRAP_SYSCALL || regs.rip != CODE_VA + sizeof(user_code)) {
		log_error("KVM self-test: a SIMD instruction came out as trap %d, vector %u",
			  trap.kind, trap.vector);
		return -EIO;
	}
	return 0;
}

static int guest_init(struct guest *g, struct kvm_platform *p)
{
	uint64_t *pte;

	memset(g, 0, sizeof(*g));
	g->p = p;
	g->code = frame_alloc();
	g->a = frame_alloc();
	g->b = frame_alloc();
	if (g->code == GPA_NONE || g->a == GPA_NONE || g->b == GPA_NONE)
		return -ENOMEM;
	if (pt_init(&g->pt, &p->base.pt_alloc))
		return -ENOMEM;
	memcpy(phys_ptr(g->code), user_code, sizeof(user_code));
	*(uint64_t *)phys_ptr(g->a) = VALUE_A;
	*(uint64_t *)phys_ptr(g->b) = VALUE_B;
	pte = pt_ensure(&g->pt, CODE_VA);
	if (!pte || !pt_ensure(&g->pt, DATA_VA))
		return -ENOMEM;
	pte_write(pte, pte_make(g->code, ACCESS_READ | ACCESS_EXEC));
	map_all(g, g->a);
	g->as = kvm_as_create(&p->base, &g->pt);
	if (IS_ERR(g->as))
		return (int)PTR_ERR(g->as);
	g->ctx = kvm_ctx_create(&p->base);
	if (IS_ERR(g->ctx))
		return (int)PTR_ERR(g->ctx);
	return 0;
}

static void guest_fini(struct guest *g)
{
	if (g->ctx && !IS_ERR(g->ctx))
		kvm_ctx_destroy(g->ctx);
	if (g->as && !IS_ERR(g->as))
		kvm_as_destroy(g->as);
	if (g->pt.alloc)
		pt_fini(&g->pt);
	if (g->code != GPA_NONE && g->code)
		frame_put(g->code);
	if (g->a != GPA_NONE && g->a)
		frame_put(g->a);
	if (g->b != GPA_NONE && g->b)
		frame_put(g->b);
}

int kvm_selftest(struct kvm_platform *p)
{
	struct guest g;
	int err = guest_init(&g, p);

	if (!err)
		err = find_kind(&g);
	if (!err)
		err = check_traps(&g);
	guest_fini(&g);
	return err;
}

int kvm_find_mmu(struct kvm_platform *p, struct kvm_context *ctx)
{
	struct guest g;
	int err;

	if (atomic_exchange(&p->finding_mmu, true))
		return 0;
	err = guest_init(&g, p);
	if (!err) {
		pool_hand_over(ctx, to_kvm_ctx(g.ctx));
		err = find_kind(&g);
	}
	guest_fini(&g);
	/* Nothing is lost but speed when there is no memory for it. */
	if (err == -ENOMEM) {
		atomic_store(&p->mmu, MMU_STORE);
		err = 0;
	}
	atomic_store(&p->finding_mmu, false);
	return err;
}
