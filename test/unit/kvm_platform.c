/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KVM platform by itself: hand-assembled user code, page tables made by hand, no sentry above.
 * Exits with 77 and the reason where /dev/kvm is not usable. `-q N` is for QEMU's emulated machines:
 * it divides the numbers of rounds by N and leaves out exceptions that its CPU never raises.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "platform/kvm/internal.h"
#include "platform/platform.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"
#include "sentry/lib/physmem.h"

#define CODE_VA	 0x400000UL
#define DATA_VA	 0x600000UL
#define BULK_VA	 0x10000000UL
#define STACK_VA 0x7ffffb000000UL
#define NONCANON 0x0000900000000000UL
#define POISON	 0xdeadbeefdeadbeefUL

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "FAIL %s:%d: %s\n", __FILE__, __LINE__, #cond);            \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)
#define CHECK_EQ(a, b)                                                                             \
	do {                                                                                       \
		uint64_t a_ = (uint64_t)(a), b_ = (uint64_t)(b);                                   \
		if (a_ != b_) {                                                                    \
			fprintf(stderr, "FAIL %s:%d: %s is %#lx, not %#lx\n", __FILE__, __LINE__,  \
				#a, a_, b_);                                                       \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

/* User code, copied to CODE_VA as a whole. */
__asm__(".pushsection .rodata\n"
	"	.balign 16\n"
	"user_begin:\n"
	"user_calls:	syscall\n"
	"		jmp user_calls\n"
	"user_spin:	inc %rax\n"
	"		jmp user_spin\n"
	"user_load:	mov (%rdi), %rax\n"
	"		syscall\n"
	"user_store:	mov %rsi, (%rdi)\n"
	"		syscall\n"
	"user_jump:	jmp *%rdi\n"
	"user_ud:	ud2\n"
	"user_bp:	int3\n"
	"		nop\n"
	"user_of:	int $4\n"
	"		nop\n"
	"user_de:	xor %ecx, %ecx\n"
	"		div %ecx\n"
	"user_int80:	int $0x80\n"
	"user_intff:	int $0xff\n"
	"user_int13:	int $13\n"
	"user_hlt:	hlt\n"
	"user_out:	out %al, $0x10\n"
	"user_cr3:	mov %cr3, %rax\n"
	"user_push:	push %rax\n"
	"user_tf:	pushf\n"
	"		orl $0x100, (%rsp)\n"
	"		popf\n"
	"		nop\n"
	"user_tf_end:	nop\n"
	"user_ac:	pushf\n"
	"		orl $0x40000, (%rsp)\n"
	"		popf\n"
	"		mov 1(%rsp), %rax\n"
	"user_mf:	movw $0x373, -8(%rsp)\n" /* divide by zero unmasked */
	"		fldcw -8(%rsp)\n"
	"		fld1\n"
	"		fldz\n"
	"		fdivrp\n"
	"		fwait\n"
	"		nop\n"
	"user_xm:	movl $0x1d80, -8(%rsp)\n"
	"		ldmxcsr -8(%rsp)\n"
	"		mov $1, %eax\n"
	"		cvtsi2ss %eax, %xmm0\n"
	"		xorps %xmm1, %xmm1\n"
	"user_xm_at:	divss %xmm1, %xmm0\n"
	/* rsi words, one a page, from rdi: their sum in rbx */
	"user_sum:	xor %ebx, %ebx\n"
	"1:		add (%rdi), %rbx\n"
	"		add $4096, %rdi\n"
	"		dec %rsi\n"
	"		jnz 1b\n"
	"		syscall\n"
	/* Reads rsi pages from rdi over and over, counting rounds at (r9), until one holds r8. */
	"user_watch:	mov %rdi, %rdx\n"
	"		mov %rsi, %rcx\n"
	"2:		mov (%rdx), %rax\n"
	"		cmp %r8, %rax\n"
	"		je 3f\n"
	"		add $4096, %rdx\n"
	"		dec %rcx\n"
	"		jnz 2b\n"
	"		incq (%r9)\n"
	"		jmp user_watch\n"
	"3:		syscall\n"
	/* rdi rounds of arithmetic; everything it uses is checked afterwards. */
	"user_work:	xor %eax, %eax\n"
	"4:		add %rdi, %rax\n"
	"		paddq %xmm1, %xmm0\n"
	"		dec %rdi\n"
	"		jnz 4b\n"
	"		syscall\n"
	"user_fsbase:	rdfsbase %rax\n"
	"		rdgsbase %rbx\n"
	"		wrfsbase %rdi\n"
	"		wrgsbase %rsi\n"
	"		mov %fs:0, %r12\n"
	"		syscall\n"
	"user_xmm:	movdqa %xmm0, %xmm1\n"
	"		syscall\n"
	"user_zmm:	vmovdqu64 %zmm0, (%rdi)\n"
	"		vpaddq %zmm0, %zmm0, %zmm31\n"
	"		kmovw %k1, %eax\n"
	"		syscall\n"
	"user_ymm:	vmovdqu %ymm0, (%rdi)\n"
	"		vpaddq %xmm0, %xmm0, %xmm7\n"
	"		syscall\n"
	"user_rdtsc:	rdtsc\n"
	"		syscall\n"
	"user_sels:	mov %ds, %eax\n"
	"		mov %ss, %ebx\n"
	"		mov %cs, %r12d\n"
	"		syscall\n"
	"user_end:\n"
	".popsection\n");
extern const uint8_t user_begin[], user_end[];
#define USER(name)                                                                                 \
	({                                                                                         \
		extern const uint8_t user_##name[];                                                \
		CODE_VA + (uint64_t)(user_##name - user_begin);                                    \
	})

static struct platform *kvm;
static unsigned int quick = 1;

/* One address space with code, a stack, and one page of data. */
struct world {
	struct pagetable pt;
	struct address_space *as;
	gpa_t code, stack, data;
};

static gpa_t frame(void)
{
	gpa_t gpa = frame_alloc();

	CHECK(gpa != GPA_NONE);
	return gpa;
}

static void map(struct world *w, uaddr_t va, gpa_t gpa, unsigned int access)
{
	uint64_t *pte = pt_ensure(&w->pt, va);

	CHECK(pte);
	pte_write(pte, pte_make(gpa, access));
}

static void world_open(struct world *w)
{
	CHECK(!pt_init(&w->pt, &kvm->pt_alloc));
	w->as = kvm->type->as_create(kvm, &w->pt);
	CHECK(!IS_ERR(w->as));
	w->code = frame();
	w->stack = frame();
	w->data = frame();
	CHECK((size_t)(user_end - user_begin) <= PAGE_SIZE);
	memcpy(phys_ptr(w->code), user_begin, (size_t)(user_end - user_begin));
	map(w, CODE_VA, w->code, ACCESS_READ | ACCESS_EXEC);
	map(w, STACK_VA - PAGE_SIZE, w->stack, ACCESS_READ | ACCESS_WRITE);
	map(w, DATA_VA, w->data, ACCESS_READ | ACCESS_WRITE);
}

static void world_close(struct world *w)
{
	kvm->type->as_destroy(w->as);
	pt_fini(&w->pt);
	frame_put(w->code);
	frame_put(w->stack);
	frame_put(w->data);
}

static struct context *ctx_new(void)
{
	struct context *ctx = kvm->type->ctx_create(kvm);

	CHECK(!IS_ERR(ctx));
	return ctx;
}

static void ctx_free(struct context *ctx)
{
	kvm->type->ctx_destroy(ctx);
}

/* Runs to the next trap that is none of a shootdown's. */
static void run(struct context *ctx, struct world *w, struct arch_regs *regs, struct trap *trap)
{
	do {
		CHECK_EQ(kvm->type->ctx_run(ctx, w->as, regs, trap), 0);
	} while (trap->kind == TRAP_KICK);
}

static void start(struct arch_regs *regs, uaddr_t rip)
{
	arch_regs_init(regs, rip, STACK_VA - 512);
}

static uint64_t stat_of(const char *name)
{
	struct platform_stat stats[PLATFORM_MAX_STATS];
	size_t n = kvm->type->stats(kvm, stats);

	for (size_t i = 0; i < n; i++) {
		if (!strcmp(stats[i].name, name))
			return stats[i].value;
	}
	CHECK(!"no such statistic");
	return 0;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- registers ---- */

static void test_syscall(void)
{
	struct context *ctx = ctx_new();
	struct arch_regs regs, want;
	struct trap trap;
	struct world w;

	world_open(&w);
	start(&regs, USER(calls));
	regs.r15 = 15;
	regs.r14 = ~14UL;
	regs.r13 = 13;
	regs.r12 = ~12UL;
	regs.rbp = 0x8000000000000005;
	regs.rbx = 3;
	regs.r10 = ~10UL;
	regs.r9 = 9;
	regs.r8 = ~8UL;
	regs.rax = 39;
	regs.rdx = ~2UL;
	regs.rsi = 6;
	regs.rdi = ~7UL;
	regs.rsp = NONCANON; /* nobody looks at it */
	regs.eflags = 0x202 | 0x1 | 0x4 | 0x40 | 0x80 | 0x400 | 0x800 | 0x200000;
	want = regs;
	for (unsigned int i = 0; i < 100; i++) {
		run(ctx, &w, &regs, &trap);
		CHECK_EQ(trap.kind, TRAP_SYSCALL);
		CHECK_EQ(regs.orig_rax, want.rax);
		want.orig_rax = regs.orig_rax;
		want.rip = regs.rcx;
		want.rcx = USER(calls) + 2;
		want.r11 = want.eflags;
		CHECK_EQ(regs.rip, want.rcx);
		want.rip = regs.rip;
		CHECK_EQ(regs.eflags, want.eflags);
		CHECK(!memcmp(&regs, &want, sizeof(regs)));
		arch_set_return(&regs, (long)(0x1234567890 + i));
		regs.r15 += i;
		regs.rdx -= i;
		want = regs;
	}
	/* Going back to the instruction repeats the call. */
	arch_restart_syscall(&regs, 219);
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(arch_syscall_nr(&regs), 219);
	CHECK_EQ(regs.rip, USER(calls) + 2);

	start(&regs, USER(sels));
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(regs.rbx, ARCH_USER_SS);
	CHECK_EQ(regs.r12, ARCH_USER_CS);
	ctx_free(ctx);
	world_close(&w);
}

/* With TF set the trap comes behind the call, as on Linux. */
static void test_syscall_tf(void)
{
	struct context *ctx = ctx_new();
	struct arch_regs regs;
	struct trap trap;
	struct world w;

	world_open(&w);
	start(&regs, USER(calls));
	regs.eflags |= 0x100;
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_SYSCALL);
	CHECK(regs.eflags & 0x100);
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_EXCEPTION);
	CHECK_EQ(trap.vector, ARCH_EXC_DB);
	CHECK_EQ(regs.rip, USER(calls)); /* after the jump back */
	ctx_free(ctx);
	world_close(&w);
}

/* ---- faults ---- */

static void expect_fault(struct context *ctx, struct world *w, uaddr_t rip, uaddr_t rdi,
			 unsigned int access, bool present)
{
	struct arch_regs regs;
	struct trap trap;

	start(&regs, rip);
	regs.rdi = rdi;
	regs.rax = 0x1122334455667788;
	run(ctx, w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_FAULT);
	CHECK_EQ(trap.addr, rdi);
	CHECK_EQ(trap.access, access);
	CHECK_EQ(trap.present, present);
	CHECK_EQ(regs.rax, 0x1122334455667788);
	CHECK_EQ(regs.rdi, rdi);
	CHECK_EQ(regs.rsp, STACK_VA - 512);
	CHECK_EQ(regs.rip, access == ACCESS_EXEC ? rdi : rip);
	CHECK_EQ(regs.orig_rax, -1UL);
	CHECK(trap.error & 4);
}

static void expect_vector(struct context *ctx, struct world *w, uaddr_t rip, unsigned int vector,
			  uint64_t error, uaddr_t at)
{
	struct arch_regs regs;
	struct trap trap;

	start(&regs, rip);
	run(ctx, w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_EXCEPTION);
	CHECK_EQ(trap.vector, vector);
	/* QEMU's CPU counts 16 bytes to an IDT entry in the error code of INT n. */
	if (!(error & 2 && trap.error == (error - 2) * 2 + 2))
		CHECK_EQ(trap.error, error);
	CHECK_EQ(regs.rip, at);
}

static void test_faults(void)
{
	struct context *ctx = ctx_new();
	struct arch_regs regs;
	struct trap trap;
	struct world w;
	uint64_t lstar;

	world_open(&w);
	map(&w, DATA_VA + PAGE_SIZE, w.data, ACCESS_READ);
	for (int i = 0; i < 3; i++) {
		expect_fault(ctx, &w, USER(load), 0x1000, ACCESS_READ, false);
		expect_fault(ctx, &w, USER(load), BULK_VA + 8, ACCESS_READ, false);
		expect_fault(ctx, &w, USER(store), BULK_VA + 16, ACCESS_WRITE, false);
		expect_fault(ctx, &w, USER(store), DATA_VA + PAGE_SIZE + 8, ACCESS_WRITE, true);
		expect_fault(ctx, &w, USER(store), CODE_VA, ACCESS_WRITE, true);
		expect_fault(ctx, &w, USER(jump), DATA_VA + 4, ACCESS_EXEC, true);
		expect_fault(ctx, &w, USER(jump), BULK_VA + 4, ACCESS_EXEC, false);
		/* The kernel half, mapped or not. */
		expect_fault(ctx, &w, USER(load), TRAMP_VCPU_BASE, ACCESS_READ, true);
		expect_fault(ctx, &w, USER(store), TRAMP_VCPU_BASE + TRAMP_OFF_FRAME, ACCESS_WRITE,
			     true);
		expect_fault(ctx, &w, USER(load), TRAMP_DIRECT_BASE + 0x1000, ACCESS_READ, true);
		expect_fault(ctx, &w, USER(jump), TRAMP_VCPU_BASE + 0x40, ACCESS_EXEC, true);
		expect_fault(ctx, &w, USER(load), 0xffff800000000000, ACCESS_READ, true);
		expect_vector(ctx, &w, NONCANON, ARCH_EXC_GP, 0, NONCANON);
	}
	/* Resolved, a fault goes on where it was. */
	start(&regs, USER(load));
	regs.rdi = BULK_VA;
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_FAULT);
	*(uint64_t *)phys_ptr(w.data) = 4711;
	map(&w, BULK_VA, w.data, ACCESS_READ);
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_SYSCALL);
	CHECK_EQ(regs.orig_rax, 4711);

	/* A jump to where SYSCALL goes is a call and nothing else, or a fault: never ring 0. */
	lstar = kvm_vm.vcpus[to_kvm_ctx(ctx)->vcpu].va;
	start(&regs, USER(jump));
	regs.rdi = lstar;
	regs.rcx = USER(calls);
	run(ctx, &w, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL || (trap.kind == TRAP_FAULT && trap.addr == lstar));

	/* Non-canonical data is #GP, through the stack #SS (QEMU's CPU says #GP). */
	start(&regs, USER(load));
	regs.rdi = NONCANON;
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_EXCEPTION);
	CHECK_EQ(trap.vector, ARCH_EXC_GP);
	start(&regs, USER(push));
	regs.rsp = NONCANON;
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_EXCEPTION);
	CHECK(trap.vector == ARCH_EXC_SS || trap.vector == ARCH_EXC_GP);
	ctx_free(ctx);
	world_close(&w);
}

static void test_exceptions(void)
{
	struct context *ctx = ctx_new();
	struct arch_regs regs;
	struct trap trap;
	struct world w;

	world_open(&w);
	for (int i = 0; i < 3; i++) {
		expect_vector(ctx, &w, USER(ud), ARCH_EXC_UD, 0, USER(ud));
		expect_vector(ctx, &w, USER(bp), ARCH_EXC_BP, 0, USER(bp) + 1);
		expect_vector(ctx, &w, USER(of), ARCH_EXC_OF, 0, USER(of) + 2);
		expect_vector(ctx, &w, USER(de), ARCH_EXC_DE, 0, USER(de) + 2);
		expect_vector(ctx, &w, USER(int80), ARCH_EXC_GP, 0x80 * 8 + 2, USER(int80));
		expect_vector(ctx, &w, USER(intff), ARCH_EXC_GP, 0xff * 8 + 2, USER(intff));
		expect_vector(ctx, &w, USER(int13), ARCH_EXC_GP, 13 * 8 + 2, USER(int13));
		expect_vector(ctx, &w, USER(hlt), ARCH_EXC_GP, 0, USER(hlt));
		expect_vector(ctx, &w, USER(out), ARCH_EXC_GP, 0, USER(out));
		expect_vector(ctx, &w, USER(cr3), ARCH_EXC_GP, 0, USER(cr3));
		if (quick == 1)
			expect_vector(ctx, &w, USER(xm), ARCH_EXC_XM, 0, USER(xm_at));
	}
	expect_vector(ctx, &w, USER(tf), ARCH_EXC_DB, 0, USER(tf_end));

	start(&regs, USER(mf));
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_EXCEPTION);
	CHECK_EQ(trap.vector, ARCH_EXC_MF);

	if (quick > 1) {
		printf("  (emulated: no #AC, no #XM)\n");
		goto out;
	}
	start(&regs, USER(ac));
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_EXCEPTION);
	CHECK_EQ(trap.vector, ARCH_EXC_AC);
	CHECK(regs.eflags & 0x40000);
out:
	ctx_free(ctx);
	world_close(&w);
}

/* ---- kicks ---- */

struct kick_test {
	struct world w;
	struct context *ctx;
	uaddr_t rip;
	_Atomic uint64_t sent, seen, calls;
	_Atomic bool stop;
};

static void *kick_thread(void *arg)
{
	struct kick_test *t = arg;
	struct arch_regs regs;
	struct trap trap;

	start(&regs, t->rip);
	while (!atomic_load(&t->stop)) {
		CHECK_EQ(kvm->type->ctx_run(t->ctx, t->w.as, &regs, &trap), 0);
		if (trap.kind == TRAP_KICK)
			atomic_fetch_add(&t->seen, 1);
		else
			atomic_fetch_add(&t->calls, 1);
	}
	return NULL;
}

/* Each kick must be answered; the next is sent only then. */
static void kick_rounds(uaddr_t rip, unsigned int rounds)
{
	static struct kick_test t;
	pthread_t thread;

	memset(&t, 0, sizeof(t));
	world_open(&t.w);
	t.ctx = ctx_new();
	t.rip = rip;
	CHECK(!pthread_create(&thread, NULL, kick_thread, &t));
	for (unsigned int i = 0; i < rounds; i++) {
		uint64_t before = atomic_load(&t.seen), deadline = now_ns() + 20000000000;

		if (i % 3 == 0)
			usleep(i % 7 * 10);
		kvm->type->ctx_kick(t.ctx);
		while (atomic_load(&t.seen) == before) {
			CHECK(now_ns() < deadline);
			usleep(1);
		}
	}
	atomic_store(&t.stop, true);
	kvm->type->ctx_kick(t.ctx);
	CHECK(!pthread_join(thread, NULL));
	CHECK(t.seen >= rounds);
	ctx_free(t.ctx);
	world_close(&t.w);
}

static void test_kick(void)
{
	struct context *ctx = ctx_new();
	struct arch_regs regs;
	struct trap trap;
	struct world w;

	/* One that comes before is kept, and only one. */
	world_open(&w);
	start(&regs, USER(calls));
	kvm->type->ctx_kick(ctx);
	kvm->type->ctx_kick(ctx);
	CHECK_EQ(kvm->type->ctx_run(ctx, w.as, &regs, &trap), 0);
	CHECK_EQ(trap.kind, TRAP_KICK);
	CHECK_EQ(regs.rip, USER(calls));
	CHECK_EQ(kvm->type->ctx_run(ctx, w.as, &regs, &trap), 0);
	CHECK_EQ(trap.kind, TRAP_SYSCALL);
	ctx_free(ctx);
	world_close(&w);
	kick_rounds(USER(spin), 1000 / quick);
	kick_rounds(USER(calls), 1000 / quick);
}

/* Registers survive being stopped anywhere: user_work's sum comes out right. */
static void *kicker_thread(void *arg)
{
	struct kick_test *t = arg;

	while (!atomic_load(&t->stop)) {
		kvm->type->ctx_kick(t->ctx);
		usleep(50);
	}
	return NULL;
}

static void test_kick_registers(void)
{
	static struct kick_test t;
	struct arch_regs regs;
	struct trap trap;
	pthread_t thread;
	uint64_t n = 1000000 / quick;

	memset(&t, 0, sizeof(t));
	world_open(&t.w);
	t.ctx = ctx_new();
	CHECK(!pthread_create(&thread, NULL, kicker_thread, &t));
	for (unsigned int i = 0; i < 20; i++) {
		start(&regs, USER(work));
		regs.rdi = n;
		regs.r12 = i;
		run(t.ctx, &t.w, &regs, &trap);
		CHECK_EQ(trap.kind, TRAP_SYSCALL);
		CHECK_EQ(regs.orig_rax, n * (n + 1) / 2);
		CHECK_EQ(regs.r12, i);
	}
	atomic_store(&t.stop, true);
	CHECK(!pthread_join(thread, NULL));
	ctx_free(t.ctx);
	world_close(&t.w);
}

/* ---- page tables ---- */

static uint64_t load(struct context *ctx, struct world *w, uaddr_t va, struct trap *trap)
{
	struct arch_regs regs;

	start(&regs, USER(load));
	regs.rdi = va;
	run(ctx, w, &regs, trap);
	return trap->kind == TRAP_SYSCALL ? regs.orig_rax : 0;
}

static uint64_t sum(struct context *ctx, struct world *w, uaddr_t va, size_t n)
{
	struct arch_regs regs;
	struct trap trap;

	start(&regs, USER(sum));
	regs.rdi = va;
	regs.rsi = n;
	run(ctx, w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_SYSCALL);
	return regs.rbx;
}

/* As after fork: read-only, then a copy, writable. */
static void test_cow(void)
{
	struct context *ctx = ctx_new();
	struct arch_regs regs;
	struct trap trap;
	struct world w;
	gpa_t copy = frame();

	world_open(&w);
	for (uint64_t i = 0; i < 50; i++) {
		uint64_t *old = phys_ptr(w.data), *new = phys_ptr(copy);

		*old = i;
		CHECK_EQ(load(ctx, &w, DATA_VA, &trap), i);
		pte_write(pt_find(&w.pt, DATA_VA), pte_make(w.data, ACCESS_READ));
		kvm->type->as_invalidate(w.as, DATA_VA, PAGE_SIZE);
		start(&regs, USER(store));
		regs.rdi = DATA_VA;
		regs.rsi = i + 1000;
		run(ctx, &w, &regs, &trap);
		CHECK_EQ(trap.kind, TRAP_FAULT);
		CHECK_EQ(trap.access, ACCESS_WRITE);
		*new = *old;
		pte_write(pt_find(&w.pt, DATA_VA), pte_make(copy, ACCESS_READ | ACCESS_WRITE));
		kvm->type->as_invalidate(w.as, DATA_VA, PAGE_SIZE);
		run(ctx, &w, &regs, &trap);
		CHECK_EQ(trap.kind, TRAP_SYSCALL);
		CHECK_EQ(*old, i);
		CHECK_EQ(*new, i + 1000);
		pte_write(pt_find(&w.pt, DATA_VA), pte_make(w.data, ACCESS_READ | ACCESS_WRITE));
		kvm->type->as_invalidate(w.as, DATA_VA, PAGE_SIZE);
	}
	frame_put(copy);
	ctx_free(ctx);
	world_close(&w);
}

static void fill(struct world *w, uaddr_t va, size_t n, size_t step, gpa_t gpa)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t *pte = pt_ensure(&w->pt, va + i * step);

		CHECK(pte);
		pte_write(pte, gpa ? pte_make(gpa, ACCESS_READ) : 0);
	}
}

/* Many entries at once, dense and one per table, changed and unmapped. */
static void bulk(struct context *ctx, struct world *w, size_t n, size_t step, gpa_t a, gpa_t b)
{
	struct arch_regs regs;
	struct trap trap;

	fill(w, BULK_VA, n, step, a);
	for (size_t i = 0; i < n; i += n / 16)
		CHECK_EQ(load(ctx, w, BULK_VA + i * step, &trap), 1);
	if (step == PAGE_SIZE)
		CHECK_EQ(sum(ctx, w, BULK_VA, n), n);
	fill(w, BULK_VA, n, step, b);
	kvm->type->as_invalidate(w->as, BULK_VA, n * step);
	for (size_t i = 0; i < n; i += n / 16)
		CHECK_EQ(load(ctx, w, BULK_VA + i * step, &trap), 2);
	if (step == PAGE_SIZE)
		CHECK_EQ(sum(ctx, w, BULK_VA, n), 2 * n);
	fill(w, BULK_VA, n, step, 0);
	kvm->type->as_invalidate(w->as, BULK_VA, n * step);
	for (size_t i = 0; i < n; i += n / 16) {
		start(&regs, USER(load));
		regs.rdi = BULK_VA + i * step;
		run(ctx, w, &regs, &trap);
		CHECK_EQ(trap.kind, TRAP_FAULT);
		CHECK_EQ(trap.addr, BULK_VA + i * step);
		CHECK(!trap.present);
	}
}

static void test_bulk(void)
{
	struct context *ctx = ctx_new();
	gpa_t a = frame(), b = frame();
	struct world w;
	uint64_t *pte;

	world_open(&w);
	*(uint64_t *)phys_ptr(a) = 1;
	*(uint64_t *)phys_ptr(b) = 2;
	bulk(ctx, &w, 512, PAGE_SIZE, a, b);
	bulk(ctx, &w, 2048, PAGE_SIZE, a, b);
	/* More tables than go in one round; and more work than is remembered piece by piece. */
	bulk(ctx, &w, 1000, PT_LEAF_SPAN, a, b);
	fill(&w, BULK_VA, 5000, PT_LEAF_SPAN, a);
	for (size_t i = 0; i < 5000; i += 500) {
		struct trap trap;

		CHECK_EQ(load(ctx, &w, BULK_VA + i * PT_LEAF_SPAN, &trap), 1);
	}
	for (size_t i = 0; i < 5000; i++) {
		uaddr_t va = BULK_VA + i * PT_LEAF_SPAN;

		pte = pt_find(&w.pt, va);
		pte_write(pte, pte_make(b, ACCESS_READ));
		kvm->type->as_invalidate(w.as, va, PAGE_SIZE);
	}
	for (size_t i = 0; i < 5000; i += 50) {
		struct trap trap;

		CHECK_EQ(load(ctx, &w, BULK_VA + i * PT_LEAF_SPAN, &trap), 2);
	}
	frame_put(a);
	frame_put(b);
	ctx_free(ctx);
	world_close(&w);
}

/* Where every entry has to be stored, fewer of them. */
static void test_bulk_stores(void)
{
	struct context *ctx = ctx_new();
	gpa_t a = frame(), b = frame();
	struct world w;

	world_open(&w);
	*(uint64_t *)phys_ptr(a) = 1;
	*(uint64_t *)phys_ptr(b) = 2;
	bulk(ctx, &w, 512, PAGE_SIZE, a, b);
	bulk(ctx, &w, 4608, PAGE_SIZE, a, b);
	bulk(ctx, &w, 32, PT_LEAF_SPAN, a, b);
	frame_put(a);
	frame_put(b);
	ctx_free(ctx);
	world_close(&w);
}

/* Page-table work that is cut short again and again is done all the same. */
static void test_kicked_drain(void)
{
	const size_t n = 9 * PT_LEAF_SPAN / PAGE_SIZE; /* more than is remembered piece by piece */
	struct kick_test k = {.ctx = ctx_new()};
	gpa_t frames[2] = {frame(), frame()};
	struct arch_regs regs;
	struct trap trap;
	pthread_t thread;
	struct world w;

	world_open(&w);
	*(uint64_t *)phys_ptr(frames[0]) = 1;
	*(uint64_t *)phys_ptr(frames[1]) = 2;
	fill(&w, BULK_VA, n, PAGE_SIZE, frames[0]);
	CHECK_EQ(sum(k.ctx, &w, BULK_VA, n), n);
	CHECK(!pthread_create(&thread, NULL, kicker_thread, &k));
	for (unsigned int i = 1; i < 1 + 8 / quick; i++) {
		fill(&w, BULK_VA, n, PAGE_SIZE, frames[i % 2]);
		kvm->type->as_invalidate(w.as, BULK_VA, n * PAGE_SIZE);
		start(&regs, USER(sum));
		regs.rdi = BULK_VA;
		regs.rsi = n;
		do {
			CHECK_EQ(kvm->type->ctx_run(k.ctx, w.as, &regs, &trap), 0);
		} while (trap.kind == TRAP_KICK);
		CHECK_EQ(trap.kind, TRAP_SYSCALL);
		CHECK_EQ(regs.rbx, n * (1 + i % 2));
	}
	atomic_store(&k.stop, true);
	CHECK(!pthread_join(thread, NULL));
	frame_put(frames[0]);
	frame_put(frames[1]);
	ctx_free(k.ctx);
	world_close(&w);
}

/* What kind of MMU it is, is found out when it begins to matter, and not before. */
static void test_find_mmu(void)
{
	struct kvm_platform *p = (struct kvm_platform *)kvm;
	struct context *ctx = ctx_new();
	gpa_t a = frame(), b = frame();
	struct trap trap;
	struct world w;

	world_open(&w);
	*(uint64_t *)phys_ptr(a) = 1;
	*(uint64_t *)phys_ptr(b) = 2;
	fill(&w, BULK_VA, 4, PAGE_SIZE, a);
	CHECK_EQ(load(ctx, &w, BULK_VA, &trap), 1);
	fill(&w, BULK_VA, 4, PAGE_SIZE, b);
	kvm->type->as_invalidate(w.as, BULK_VA, 4 * PAGE_SIZE);
	CHECK_EQ(load(ctx, &w, BULK_VA, &trap), 2);
	CHECK_EQ(p->mmu, MMU_UNKNOWN);
	CHECK_EQ(stat_of("vCPUs created"), 1);
	fill(&w, BULK_VA, 4, PAGE_SIZE, 0);
	kvm->type->as_invalidate(w.as, BULK_VA, 4 * PAGE_SIZE);
	bulk(ctx, &w, 512, PAGE_SIZE, a, b);
	CHECK(p->mmu != MMU_UNKNOWN);
	/* Its guest ran on the vCPU that was there. */
	CHECK_EQ(stat_of("vCPUs created"), 1);
	frame_put(a);
	frame_put(b);
	ctx_free(ctx);
	world_close(&w);
}

/* ---- several vCPUs in one address space ---- */

#define WATCHED 24

struct stress {
	struct world w;
	pthread_mutex_t lock; /* like mm->pt_lock */
	gpa_t now[WATCHED], last[WATCHED];
	_Atomic bool stop;
	_Atomic uint64_t faults;
};

struct watcher {
	struct stress *s;
	struct context *ctx;
	unsigned int number;
	pthread_t thread;
};

/* Looks at all pages without pause. Any page whose table entry is 0 faults and is put back. */
static void *watcher_thread(void *arg)
{
	struct watcher *me = arg;
	struct stress *s = me->s;
	struct arch_regs regs;
	struct trap trap;

	start(&regs, USER(watch));
	regs.rdi = regs.rdx = BULK_VA;
	regs.rsi = WATCHED;
	regs.r8 = POISON;
	regs.r9 = DATA_VA + 64 * me->number;
	while (!atomic_load(&s->stop)) {
		CHECK_EQ(kvm->type->ctx_run(me->ctx, s->w.as, &regs, &trap), 0);
		if (trap.kind == TRAP_KICK)
			continue;
		CHECK_EQ(trap.kind, TRAP_FAULT);
		CHECK(trap.addr >= BULK_VA && trap.addr < BULK_VA + WATCHED * PAGE_SIZE);
		pthread_mutex_lock(&s->lock);
		map(&s->w, trap.addr, s->now[(trap.addr - BULK_VA) / PAGE_SIZE], ACCESS_READ);
		pthread_mutex_unlock(&s->lock);
		atomic_fetch_add(&s->faults, 1);
	}
	return NULL;
}

/* Gives pages [first, first+n) new frames; what was there is poison from then on. */
static void stress_change(struct stress *s, unsigned int first, unsigned int n, bool unmap)
{
	for (unsigned int i = first; i < first + n; i++) {
		gpa_t gpa = s->last[i];

		*(uint64_t *)phys_ptr(gpa) = i;
		s->last[i] = s->now[i];
		s->now[i] = gpa;
		pte_write(pt_find(&s->w.pt, BULK_VA + i * PAGE_SIZE),
			  unmap ? 0 : pte_make(gpa, ACCESS_READ));
	}
	kvm->type->as_invalidate(s->w.as, BULK_VA + first * PAGE_SIZE, n * PAGE_SIZE);
	for (unsigned int i = first; i < first + n; i++)
		*(volatile uint64_t *)phys_ptr(s->last[i]) = POISON;
}

static void stress_run(unsigned int nr_watchers, unsigned int rounds)
{
	static struct stress s;
	struct watcher watchers[8];
	uint64_t seen[8];
	uint32_t seed = 1;

	memset(&s, 0, sizeof(s));
	pthread_mutex_init(&s.lock, NULL);
	world_open(&s.w);
	for (unsigned int i = 0; i < WATCHED; i++) {
		s.now[i] = frame();
		s.last[i] = frame();
		map(&s.w, BULK_VA + i * PAGE_SIZE, s.now[i], ACCESS_READ);
	}
	for (unsigned int i = 0; i < nr_watchers; i++) {
		watchers[i] = (struct watcher){.s = &s, .ctx = ctx_new(), .number = i};
		CHECK(!pthread_create(&watchers[i].thread, NULL, watcher_thread, &watchers[i]));
	}
	/* A loaded machine may take longer until a watcher looks while a page is away. */
	for (unsigned int i = 0; i < rounds || (!atomic_load(&s.faults) && i < 100 * rounds); i++) {
		unsigned int first, n;

		seed = seed * 1103515245 + 12345;
		first = (seed >> 16) % WATCHED;
		n = i % 3 == 0 ? 1 + (seed >> 8) % (WATCHED - first) : 1;
		pthread_mutex_lock(&s.lock);
		stress_change(&s, first, n, i % 5 == 0);
		pthread_mutex_unlock(&s.lock);
		if (i % 8 == 0)
			usleep(seed >> 20 & 0x1ff);
	}
	/* All of them still run and look. */
	for (unsigned int i = 0; i < nr_watchers; i++)
		seen[i] = *(volatile uint64_t *)((uint8_t *)phys_ptr(s.w.data) + 64 * i);
	for (unsigned int i = 0; i < nr_watchers; i++) {
		uint64_t deadline = now_ns() + 60000000000;

		while (*(volatile uint64_t *)((uint8_t *)phys_ptr(s.w.data) + 64 * i) == seen[i]) {
			CHECK(now_ns() < deadline);
			usleep(1000);
		}
	}
	atomic_store(&s.stop, true);
	for (unsigned int i = 0; i < nr_watchers; i++) {
		kvm->type->ctx_kick(watchers[i].ctx);
		CHECK(!pthread_join(watchers[i].thread, NULL));
		ctx_free(watchers[i].ctx);
	}
	CHECK(s.faults > 0);
	for (unsigned int i = 0; i < WATCHED; i++) {
		frame_put(s.now[i]);
		frame_put(s.last[i]);
	}
	world_close(&s.w);
}

static void test_shootdown(void)
{
	uint64_t before = stat_of("shootdowns");

	stress_run(2, 1500 / quick);
	CHECK(stat_of("shootdowns") > before);
}

static void test_shootdown_many(void)
{
	stress_run(5, 400 / quick);
}

/* ---- state that is not in arch_regs ---- */

/* Where XSAVE puts component @i: Intel's and AMD's processors differ behind AVX. */
static unsigned int xsave_offset(unsigned int i)
{
	unsigned int size, offset, c, d;

	__cpuid_count(0xd, i, size, offset, c, d);
	return offset;
}

static void test_fpu(void)
{
	static uint8_t fpu[8192] __attribute__((aligned(64))), got[8192] __attribute__((aligned(64)));
	struct context *ctx = ctx_new(), *other = ctx_new();
	bool avx = arch_xcr0() & 4, avx512 = (arch_xcr0() & 0xe0) == 0xe0;
	uint64_t bv = arch_xcr0(), *data, *xmm = (uint64_t *)(fpu + 160);
	struct arch_regs regs;
	struct trap trap;
	struct world w;

	CHECK(arch_fpu_size() <= sizeof(fpu));
	world_open(&w);
	data = phys_ptr(w.data);
	/* Initial, before and after it first runs. */
	arch_fpu_init(fpu);
	kvm->type->ctx_get_fpu(ctx, got);
	CHECK(!memcmp(got, fpu, arch_fpu_size()));
	CHECK_EQ(load(ctx, &w, DATA_VA, &trap), 0);
	kvm->type->ctx_get_fpu(ctx, got);
	CHECK_EQ(*(uint16_t *)got, 0x37f);
	CHECK_EQ(*(uint32_t *)(got + 24), 0x1f80);
	CHECK_EQ(*(uint64_t *)(got + 160), 0);

	memcpy(fpu + 512, &bv, 8);
	for (unsigned int i = 0; i < 32; i++)
		xmm[i] = 0x0101010101010101 * i;
	xmm[0] = 0x1234;
	xmm[1] = 0x5678;
	if (avx512) { /* k1; the high half of zmm0 */
		*(uint64_t *)(fpu + xsave_offset(5) + 8) = 0xabcd;
		*(uint64_t *)(fpu + xsave_offset(6) + 24) = 0x77;
	}
	if (avx)
		*(uint64_t *)(fpu + 576 + 8) = 0x99; /* high half of ymm0 */
	kvm->type->ctx_set_fpu(ctx, fpu);
	kvm->type->ctx_get_fpu(ctx, got);
	CHECK(!memcmp(got + 160, fpu + 160, 256));
	/* Another context on another vCPU sees nothing of it. */
	start(&regs, USER(xmm));
	run(other, &w, &regs, &trap);
	kvm->type->ctx_get_fpu(other, got);
	CHECK_EQ(*(uint64_t *)(got + 160 + 16), 0);

	start(&regs, avx512 ? USER(zmm) : avx ? USER(ymm) : USER(xmm));
	regs.rdi = DATA_VA;
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_SYSCALL);
	kvm->type->ctx_get_fpu(ctx, got);
	CHECK_EQ(*(uint64_t *)(got + 160), 0x1234);
	CHECK_EQ(*(uint64_t *)(got + 160 + 15 * 16), 0x0101010101010101 * 30);
	if (avx) {
		CHECK_EQ(data[0], 0x1234);
		CHECK_EQ(data[1], 0x5678);
		CHECK_EQ(data[3], 0x99);
	}
	if (avx512) {
		CHECK_EQ(data[7], 0x77);
		CHECK_EQ(regs.orig_rax, 0xabcd);
		/* zmm31 = 2 * zmm0 */
		CHECK_EQ(*(uint64_t *)(got + xsave_offset(7) + 15 * 64), 0x2468);
		CHECK_EQ(*(uint64_t *)(got + xsave_offset(7) + 15 * 64 + 56), 0xee);
	}
	printf("  (state of %zu bytes%s%s)\n", arch_fpu_size(), avx ? ", AVX" : "",
	       avx512 ? ", AVX-512" : "");

	/* Hostile bytes are made loadable. */
	memset(fpu, 0xff, sizeof(fpu));
	kvm->type->ctx_set_fpu(ctx, fpu);
	CHECK_EQ(load(ctx, &w, DATA_VA + 8, &trap), avx ? 0x5678 : 0);
	ctx_free(other);
	ctx_free(ctx);

	/* A vCPU that is used again has forgotten it all. */
	ctx = ctx_new();
	start(&regs, USER(xmm));
	run(ctx, &w, &regs, &trap);
	kvm->type->ctx_get_fpu(ctx, got);
	for (unsigned int i = 0; i < 32; i++)
		CHECK_EQ(((uint64_t *)(got + 160))[i], 0);
	CHECK_EQ(*(uint32_t *)(got + 24), 0x1f80);
	ctx_free(ctx);
	world_close(&w);
}

static void test_bases(void)
{
	struct context *ctx = ctx_new();
	struct arch_regs regs;
	uint64_t fs, gs;
	struct trap trap;
	struct world w;

	if (!(arch_hwcap2() & 2)) {
		printf("  (no FSGSBASE here)\n");
		ctx_free(ctx);
		return;
	}
	world_open(&w);
	*(uint64_t *)phys_ptr(w.data) = 0xfeed;
	kvm->type->ctx_get_bases(ctx, &fs, &gs);
	CHECK(!fs && !gs);
	kvm->type->ctx_set_bases(ctx, 0x7f0012345000, 0x7f00abcde000);
	for (int i = 0; i < 3; i++) {
		start(&regs, USER(fsbase));
		regs.rdi = DATA_VA;
		regs.rsi = 0x1000 * (uint64_t)i;
		run(ctx, &w, &regs, &trap);
		CHECK_EQ(trap.kind, TRAP_SYSCALL);
		CHECK_EQ(regs.orig_rax, i == 1 ? DATA_VA : 0x7f0012345000);
		CHECK_EQ(regs.rbx, i == 1 ? 0 : 0x7f00abcde000);
		CHECK_EQ(regs.r12, 0xfeed);
		kvm->type->ctx_get_bases(ctx, &fs, &gs);
		CHECK_EQ(fs, DATA_VA);
		CHECK_EQ(gs, 0x1000 * (uint64_t)i);
		if (i == 1)
			kvm->type->ctx_set_bases(ctx, 0x7f0012345000, 0x7f00abcde000);
	}
	ctx_free(ctx);
	ctx = ctx_new();
	start(&regs, USER(fsbase));
	regs.rdi = DATA_VA;
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(regs.orig_rax, 0);
	CHECK_EQ(regs.rbx, 0);
	ctx_free(ctx);
	world_close(&w);
}

/* Where the host itself doesn't trust it, KVM shifts it as vCPUs move between processors. */
static bool tsc_is_stable(void)
{
	FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
	char name[32] = "";

	if (f) {
		if (fscanf(f, "%31s", name) != 1)
			name[0] = 0;
		fclose(f);
	}
	return !strcmp(name, "tsc") || !strcmp(name, "kvm-clock");
}

static void test_tsc(void)
{
	bool stable = tsc_is_stable();
	struct context *ctx = ctx_new();
	uint64_t before, after, guest;
	struct arch_regs regs;
	struct trap trap;
	struct world w;

	world_open(&w);
	if (!stable)
		printf("  (the host's TSC is unstable: only read)\n");
	for (int i = 0; i < 3; i++) {
		start(&regs, USER(rdtsc));
		before = __builtin_ia32_rdtsc();
		run(ctx, &w, &regs, &trap);
		after = __builtin_ia32_rdtsc();
		guest = regs.rdx << 32 | (uint32_t)regs.orig_rax;
		CHECK(!stable || (guest >= before && guest <= after));
	}
	ctx_free(ctx);
	world_close(&w);
}

/* ---- memory ---- */

static void test_memory(void)
{
	struct context *ctx = ctx_new();
	struct trap trap;
	struct world w;
	gpa_t extents[100], file, far;
	char name[] = "/tmp/kvm_platform.XXXXXX";
	int fd = mkstemp(name), err;
	struct arch_regs regs;
	uint64_t value = 42;

	world_open(&w);
	/* Past the first chunk, so another memory slot. */
	for (size_t i = 0; i < ARRAY_SIZE(extents); i++) {
		extents[i] = frame_alloc_extent(512);
		CHECK(extents[i] != GPA_NONE);
	}
	far = extents[ARRAY_SIZE(extents) - 1] + 511 * PAGE_SIZE;
	CHECK(far > 128UL << 20);
	map(&w, BULK_VA, far, ACCESS_READ | ACCESS_WRITE);
	start(&regs, USER(store));
	regs.rdi = BULK_VA;
	regs.rsi = 77;
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_SYSCALL);
	CHECK_EQ(*(uint64_t *)phys_ptr(far), 77);
	/* Page tables from up there, changed from ring 0. */
	pte_write(pt_find(&w.pt, BULK_VA), 0);
	kvm->type->as_invalidate(w.as, BULK_VA, PAGE_SIZE);
	load(ctx, &w, BULK_VA, &trap);
	CHECK_EQ(trap.kind, TRAP_FAULT);

	/* A file, over several windows, read-only whatever the page table says. */
	CHECK(fd >= 0 && !unlink(name) && !ftruncate(fd, 200 << 20));
	CHECK_EQ(pwrite(fd, &value, 8, (150 << 20) + 8), 8);
	CHECK(!physmem_add_file(fd, 200 << 20, &file));
	CHECK(!phys_use_range(file + (150 << 20), PAGE_SIZE));
	CHECK(!phys_use_range(file + (60 << 20), 100 << 20));
	CHECK(!phys_use_range(file + (60 << 20), 100 << 20));
	map(&w, BULK_VA, file + (150 << 20), ACCESS_READ | ACCESS_EXEC);
	CHECK_EQ(load(ctx, &w, BULK_VA + 8, &trap), 42);
	start(&regs, USER(store));
	regs.rdi = BULK_VA + 8;
	run(ctx, &w, &regs, &trap);
	CHECK_EQ(trap.kind, TRAP_FAULT);
	CHECK(trap.present);
	map(&w, BULK_VA + PAGE_SIZE, file + (150 << 20), ACCESS_READ | ACCESS_WRITE);
	regs.rdi = BULK_VA + PAGE_SIZE;
	log_level = -1; /* the message is expected */
	do {
		err = kvm->type->ctx_run(ctx, w.as, &regs, &trap);
	} while (!err && trap.kind == TRAP_KICK);
	log_level = LOG_DEBUG;
	CHECK(err < 0);
	for (size_t i = 0; i < ARRAY_SIZE(extents); i++)
		frame_put_range(extents[i], 512);
	ctx_free(ctx);
	world_close(&w);
}

/* The same tables come back for other address spaces, with nothing of the old in them. */
static void test_recycled_tables(void)
{
	struct context *ctx = ctx_new();
	struct physmem_stats before, after;
	unsigned int rounds = 120 / MIN(quick, 4U);
	struct trap trap;

	physmem_stats(&before);
	for (unsigned int i = 0; i < rounds; i++) {
		gpa_t a = frame();
		struct world w;

		world_open(&w);
		*(uint64_t *)phys_ptr(a) = 1000 + i;
		/* Different places each time, so that tables change their level and content. */
		for (uaddr_t j = 0; j < 10; j++)
			map(&w, BULK_VA + ((i * 7 + j * j) % 64 << (i % 3 ? 21 : 30)), a, ACCESS_READ);
		for (uaddr_t j = 0; j < 64; j++) {
			uaddr_t va = BULK_VA + (j << (i % 3 ? 21 : 30));
			uint64_t *pte = pt_find(&w.pt, va), value;

			if (quick > 1 && j % 8)
				continue;
			value = load(ctx, &w, va, &trap);
			if (pte && pte_read(pte))
				CHECK_EQ(value, 1000 + i);
			else
				CHECK_EQ(trap.kind, TRAP_FAULT);
		}
		frame_put(a);
		world_close(&w);
	}
	physmem_stats(&after);
	/* A round uses some 20 tables: without reuse this would be thousands of frames. */
	CHECK(after.frames - before.frames < 200);
	ctx_free(ctx);
}

/* A context goes from one address space to another (execve), also after it was stopped in user code. */
static void test_switch(void)
{
	struct context *ctx = ctx_new();
	struct world w[3];
	struct arch_regs regs;
	struct trap trap;

	for (unsigned int i = 0; i < 3; i++) {
		world_open(&w[i]);
		*(uint64_t *)phys_ptr(w[i].data) = i + 10;
	}
	for (unsigned int i = 0; i < 60; i++) {
		CHECK_EQ(load(ctx, &w[i % 3], DATA_VA, &trap), i % 3 + 10);
		if (i % 7 == 0) {
			kvm->type->ctx_kick(ctx);
			start(&regs, USER(spin));
			CHECK_EQ(kvm->type->ctx_run(ctx, w[i % 3].as, &regs, &trap), 0);
			CHECK_EQ(trap.kind, TRAP_KICK);
		}
	}
	for (unsigned int i = 0; i < 3; i++)
		world_close(&w[i]);
	ctx_free(ctx);
}

/* ---- more contexts than vCPUs ---- */

#define SHARERS 6

struct sharer {
	struct world *w;
	struct context *ctx;
	unsigned int number, rounds;
	pthread_t thread;
};

static void *sharer_thread(void *arg)
{
	static _Thread_local uint8_t fpu[8192] __attribute__((aligned(64)));
	struct sharer *me = arg;
	uint64_t *xmm = (uint64_t *)(fpu + 160), fs, gs, count = 0;
	struct arch_regs regs;
	struct trap trap;

	arch_fpu_init(fpu);
	xmm[2] = me->number + 1; /* xmm1, added to xmm0 over and over */
	kvm->type->ctx_set_fpu(me->ctx, fpu);
	kvm->type->ctx_set_bases(me->ctx, 0x100000 + me->number, 0x200000 + me->number);
	for (unsigned int i = 0; i < me->rounds; i++) {
		uint64_t n = i % 10 ? 1000 : 20000000 / quick; /* the latter for several slices */

		start(&regs, USER(work));
		regs.rdi = n;
		regs.r12 = me->number;
		run(me->ctx, me->w, &regs, &trap);
		count += n;
		CHECK_EQ(trap.kind, TRAP_SYSCALL);
		CHECK_EQ(regs.orig_rax, n * (n + 1) / 2);
		CHECK_EQ(regs.r12, me->number);
		if (i % 5 == 0) {
			kvm->type->ctx_get_fpu(me->ctx, fpu);
			CHECK_EQ(xmm[0], count * (me->number + 1));
			CHECK_EQ(xmm[2], me->number + 1);
			kvm->type->ctx_get_bases(me->ctx, &fs, &gs);
			CHECK_EQ(fs, 0x100000 + me->number);
			CHECK_EQ(gs, 0x200000 + me->number);
		}
		if (i % 16 == me->number)
			usleep(300);
	}
	return NULL;
}

static void test_sharing(void)
{
	struct sharer sharers[SHARERS];
	struct world w[2];

	for (unsigned int i = 0; i < 2; i++)
		world_open(&w[i]);
	for (unsigned int i = 0; i < SHARERS; i++) {
		sharers[i] = (struct sharer){
			.w = &w[i % 2], .ctx = ctx_new(), .number = i, .rounds = 60 / MIN(quick, 3U)};
		CHECK(!pthread_create(&sharers[i].thread, NULL, sharer_thread, &sharers[i]));
	}
	for (unsigned int i = 0; i < SHARERS; i++) {
		CHECK(!pthread_join(sharers[i].thread, NULL));
		ctx_free(sharers[i].ctx);
	}
	CHECK_EQ(stat_of("vCPUs created"), 2);
	for (unsigned int i = 0; i < 2; i++)
		world_close(&w[i]);
}

/* Kicks reach contexts that wait for a vCPU, too. */
static void test_sharing_kick(void)
{
	static struct kick_test t[4];
	pthread_t threads[4];

	for (unsigned int i = 0; i < 4; i++) {
		memset(&t[i], 0, sizeof(t[i]));
		world_open(&t[i].w);
		t[i].ctx = ctx_new();
		t[i].rip = USER(spin);
		CHECK(!pthread_create(&threads[i], NULL, kick_thread, &t[i]));
	}
	for (unsigned int i = 0; i < 200 / quick; i++) {
		struct kick_test *k = &t[i % 4];
		uint64_t before = atomic_load(&k->seen), deadline = now_ns() + 20000000000;

		kvm->type->ctx_kick(k->ctx);
		while (atomic_load(&k->seen) == before) {
			CHECK(now_ns() < deadline);
			usleep(1);
		}
	}
	for (unsigned int i = 0; i < 4; i++) {
		atomic_store(&t[i].stop, true);
		kvm->type->ctx_kick(t[i].ctx);
		CHECK(!pthread_join(threads[i], NULL));
		ctx_free(t[i].ctx);
		world_close(&t[i].w);
	}
}

/* ---- */

static void bench(void)
{
	enum { N = 3000 };
	static uint64_t ns[N];
	struct context *ctx = ctx_new();
	struct arch_regs regs;
	struct trap trap;
	struct world w;

	world_open(&w);
	start(&regs, USER(calls));
	for (int i = 0; i < N; i++) {
		uint64_t t = now_ns();

		run(ctx, &w, &regs, &trap);
		ns[i] = now_ns() - t;
	}
	for (int i = 1; i < N; i++) {
		uint64_t x = ns[i];
		int j = i;

		for (; j && ns[j - 1] > x; j--)
			ns[j] = ns[j - 1];
		ns[j] = x;
	}
	printf("doorbell round trip: %lu ns (median of %d), best %lu\n", ns[N / 2], N, ns[0]);
	ctx_free(ctx);
	world_close(&w);
}

static const struct {
	const char *name;
	void (*fn)(void);
	unsigned int vcpus; /* limit, 0: none */
	enum { TESTED, LAZY, STORES } mmu; /* kind known, not known yet, or the worst that there is */
} tests[] = {
	{"syscall round trip keeps registers", test_syscall, 0, TESTED},
	{"single-stepping over a call", test_syscall_tf, 0, TESTED},
	{"faults of all kinds", test_faults, 0, TESTED},
	{"exceptions", test_exceptions, 0, TESTED},
	{"kicks are not lost", test_kick, 0, TESTED},
	{"kicks keep registers", test_kick_registers, 0, TESTED},
	{"copy-on-write change is seen", test_cow, 0, TESTED},
	{"bulk changes are seen", test_bulk, 0, TESTED},
	{"invalidation with two running vCPUs", test_shootdown, 0, TESTED},
	{"invalidation with five running vCPUs", test_shootdown_many, 0, TESTED},
	{"extended state", test_fpu, 0, TESTED},
	{"segment bases", test_bases, 0, TESTED},
	{"time stamp counter", test_tsc, 0, TESTED},
	{"memory slots", test_memory, 0, TESTED},
	{"recycled page tables", test_recycled_tables, 0, TESTED},
	{"switching address spaces", test_switch, 0, TESTED},
	{"six threads share two vCPUs", test_sharing, 2, TESTED},
	{"kicks while sharing", test_sharing_kick, 2, TESTED},
	{"invalidation while sharing", test_shootdown_many, 2, TESTED},
	{"kicks during page-table work", test_kicked_drain, 0, TESTED},
	{"kind of MMU found late", test_find_mmu, 0, LAZY},
	{"copy-on-write, kind not known", test_cow, 0, LAZY},
	{"invalidation, kind not known", test_shootdown_many, 0, LAZY},
	{"recycled page tables, kind not known", test_recycled_tables, 0, LAZY},
	{"copy-on-write, entry stores", test_cow, 0, STORES},
	{"bulk changes, entry stores", test_bulk_stores, 0, STORES},
	{"kicks during entry stores", test_kicked_drain, 0, STORES},
	{"invalidation, entry stores", test_shootdown_many, 0, STORES},
};

static void open_platform(unsigned int vcpus, int mmu)
{
	const struct platform_config config = {.selftest = mmu != LAZY};

	kvm_vcpu_limit = vcpus;
	CHECK_EQ(kvm_platform.create(&config, &kvm), 0);
	CHECK_EQ(kvm_platform.ready(kvm), 0);
	if (mmu == STORES)
		((struct kvm_platform *)kvm)->mmu = MMU_STORE;
}

int main(int argc, char **argv)
{
	const char *only = NULL;
	unsigned int asked = 1;
	size_t in_use = 0;
	char why[160];

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-q") && i + 1 < argc)
			asked = (unsigned int)atoi(argv[++i]);
		else
			only = argv[i];
	}
	log_level = LOG_DEBUG;
	CHECK(!arena_init() && !physmem_init(0));
	if (kvm_platform.probe(why, sizeof(why))) {
		printf("SKIP kvm_platform: %s\n", why);
		return 77;
	}
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
		struct physmem_stats before, after;
		uint64_t t = now_ns();

		if (only && !strstr(tests[i].name, only))
			continue;
		/* Older kernels take tens of milliseconds to move a vCPU to another thread. */
		quick = asked > 1 && tests[i].vcpus ? 5 * asked : asked;
		physmem_stats(&before);
		in_use = arena_in_use();
		open_platform(tests[i].vcpus, tests[i].mmu);
		tests[i].fn();
		kvm->type->destroy(kvm);
		physmem_stats(&after);
		CHECK_EQ(after.frames, before.frames);
		/* The frame allocator keeps notes on free extents there; ours would show in numbers. */
		CHECK(arena_in_use() < in_use + 65536);
		printf("ok %zu - %s (%lu ms)\n", i + 1, tests[i].name, (now_ns() - t) / 1000000);
	}
	if (!only || !strcmp(only, "bench")) {
		open_platform(0, TESTED);
		bench();
		kvm->type->destroy(kvm);
	}
	printf("kvm_platform: all passed\n");
	return 0;
}
