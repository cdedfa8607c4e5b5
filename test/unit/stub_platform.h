/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stub platform by itself: hand-assembled user code, a page table made by hand, and no sentry
 * above. Every test makes a platform and ends it, and at the end of each no process may be left.
 *
 * Who includes this defines PLATFORM_UNDER_TEST, PRECISE (faults on absent pages tell what was
 * wanted) and MORE_TESTS (rows of the table at the end).
 */
#ifndef TEST_UNIT_STUB_PLATFORM_H
#define TEST_UNIT_STUB_PLATFORM_H

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "platform/platform.h"
#include "platform/stub/stub.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/physmem.h"

#define CODE_VA	 0x400000UL
#define DATA_VA	 0x600000UL
#define STACK_VA 0x7ffffb000000UL

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
	"user_spin:	jmp user_spin\n"
	"user_load:	mov (%rdi), %al\n"
	"		syscall\n"
	"user_store:	mov %rsi, (%rdi)\n"
	"		syscall\n"
	"user_jump:	jmp *%rdi\n"
	"user_ud:	ud2\n"
	"user_bp:	int3\n"
	"		nop\n"
	"user_de:	xor %ecx, %ecx\n"
	"		div %ecx\n"
	"user_int80:	mov $20, %eax\n"
	"		int $0x80\n"
	"user_tf:	pushf\n"
	"		orl $0x100, (%rsp)\n"
	"		popf\n"
	"		nop\n"
	"		nop\n"
	"user_ac:	pushf\n"
	"		orl $0x40000, (%rsp)\n"
	"		popf\n"
	"		mov 1(%rsp), %rax\n"
	"user_xm:	movl $0x1d80, -8(%rsp)\n" /* divide by zero unmasked */
	"		ldmxcsr -8(%rsp)\n"
	"		mov $1, %eax\n"
	"		cvtsi2ss %eax, %xmm0\n"
	"		xorps %xmm1, %xmm1\n"
	"		divss %xmm1, %xmm0\n"
	"		syscall\n"
	"user_mf:	movw $0x037b, -8(%rsp)\n"
	"		fldcw -8(%rsp)\n"
	"		fld1\n"
	"		fldz\n"
	"		fdivrp\n"
	"		fwait\n"
	"		syscall\n"
	"user_count:	incq (%rdi)\n" /* rdi: counter; for ever */
	"		jmp user_count\n"
	"user_fpu:	movq %xmm0, %rax\n"
	"		movq %rbx, %xmm1\n"
	"		syscall\n"
	"		jmp user_fpu\n"
	"user_bases:	mov %fs:0, %rbx\n"
	"		mov %gs:0, %rbp\n"
	"		wrfsbase %rsi\n"
	"		syscall\n"
	"user_walk:	mov (%rdi), %al\n" /* rdi: start, rsi: end; a byte of each page */
	"		add $4096, %rdi\n"
	"		cmp %rsi, %rdi\n"
	"		jb user_walk\n"
	"		syscall\n"
	"user_end:\n"
	".popsection\n");
#define USER_LABEL(l) extern const char user_##l[] __attribute__((visibility("hidden")));
USER_LABEL(begin)
USER_LABEL(calls)
USER_LABEL(spin)
USER_LABEL(load)
USER_LABEL(store)
USER_LABEL(jump)
USER_LABEL(ud)
USER_LABEL(bp)
USER_LABEL(de)
USER_LABEL(int80)
USER_LABEL(tf)
USER_LABEL(ac)
USER_LABEL(xm)
USER_LABEL(mf)
USER_LABEL(count)
USER_LABEL(fpu)
USER_LABEL(bases)
USER_LABEL(walk)
USER_LABEL(end)
#define AT(l) (CODE_VA + (uaddr_t)(user_##l - user_begin))

static const struct platform_type *const type = &PLATFORM_UNDER_TEST;
static struct platform *plat;

/* An address space with the code, a stack page and whatever a test adds. */
struct space {
	struct pagetable pt;
	struct address_space *as;
	pthread_mutex_t lock; /* pt_lock */
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000UL + (uint64_t)ts.tv_nsec;
}

static void space_map(struct space *s, uaddr_t va, gpa_t gpa, unsigned int access)
{
	uint64_t *pte = pt_ensure(&s->pt, va);

	CHECK(pte);
	CHECK(!(pte_read(pte) & PTE_P));
	pte_write(pte, pte_make(gpa, access));
}

/* Changes or (access 0) removes a present entry, as mm does. */
static void space_change(struct space *s, uaddr_t va, gpa_t gpa, unsigned int access)
{
	uint64_t *pte = pt_find(&s->pt, va);

	pthread_mutex_lock(&s->lock);
	pte_write(pte, access ? pte_make(gpa, access) : 0);
	type->as_invalidate(s->as, va, PAGE_SIZE);
	pthread_mutex_unlock(&s->lock);
}

static gpa_t new_frame(void)
{
	gpa_t gpa = frame_alloc();

	CHECK(gpa != GPA_NONE);
	return gpa;
}

static uint64_t *word(gpa_t gpa)
{
	return phys_ptr(gpa);
}

static void space_init(struct space *s)
{
	gpa_t code = new_frame();

	pthread_mutex_init(&s->lock, NULL);
	CHECK(!pt_init(&s->pt, &plat->pt_alloc));
	s->as = type->as_create(plat, &s->pt);
	CHECK(!IS_ERR(s->as));
	memcpy(phys_ptr(code), user_begin, (size_t)(user_end - user_begin));
	space_map(s, CODE_VA, code, ACCESS_READ | ACCESS_EXEC);
	space_map(s, STACK_VA, new_frame(), ACCESS_READ | ACCESS_WRITE);
}

static void space_fini(struct space *s)
{
	uaddr_t va = 0;
	uint64_t *pte;

	pthread_mutex_lock(&s->lock);
	while ((pte = pt_next(&s->pt, &va, USER_TOP))) {
		frame_put(pte_read(pte) & PTE_ADDR);
		pte_write(pte, 0);
		va += PAGE_SIZE;
	}
	type->as_invalidate(s->as, USER_MIN, USER_TOP - USER_MIN);
	pthread_mutex_unlock(&s->lock);
	type->as_destroy(s->as);
	pt_fini(&s->pt);
}

static void regs_init(struct arch_regs *regs, uaddr_t entry)
{
	arch_regs_init(regs, entry, STACK_VA + PAGE_SIZE - 128);
}

static struct context *new_context(void)
{
	struct context *ctx = type->ctx_create(plat);

	CHECK(!IS_ERR(ctx));
	return ctx;
}

static void run(struct context *ctx, struct space *s, struct arch_regs *regs, struct trap *trap)
{
	CHECK_EQ(type->ctx_run(ctx, s->as, regs, trap), 0);
}

static uint64_t stat_of(const char *name)
{
	struct platform_stat stats[PLATFORM_MAX_STATS];
	size_t n = type->stats(plat, stats), i;

	CHECK(n <= PLATFORM_MAX_STATS);
	for (i = 0; i < n; i++) {
		if (!strcmp(stats[i].name, name))
			return stats[i].value;
	}
	fprintf(stderr, "no row %s\n", name);
	_exit(1);
}

static void begin(void)
{
	const struct platform_config config = {.selftest = false};

	CHECK_EQ(type->create(&config, &plat), 0);
}

/* We are a subreaper: whatever is left comes to us. */
static void expect_no_process(void)
{
	int tries;

	for (tries = 0; tries < 2000; tries++) {
		pid_t pid = waitpid(-1, NULL, WNOHANG | __WALL);

		if (pid < 0 && errno == ECHILD)
			return;
		if (pid == 0)
			usleep(1000);
	}
	CHECK(!"a process is left");
}

static void end(void)
{
	type->destroy(plat);
	plat = NULL;
	expect_no_process();
}

static void test_probe(void)
{
	char why[256] = "";
	int err = type->probe(why, sizeof(why));

	if (err)
		fprintf(stderr, "%s\n", why);
	CHECK_EQ(err, 0);
	expect_no_process();
}

static void syscall_loop(const char *what)
{
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	uint64_t best = ~0UL, t0, injected;
	int round, i;

	begin();
	space_init(&s);
	ctx = new_context();
	regs_init(&regs, AT(calls));
	run(ctx, &s, &regs, &trap);
	injected = stat_of("trips for host calls in stubs");
	for (round = 0; round < 5; round++) {
		t0 = now_ns();
		for (i = 0; i < 4000; i++) {
			regs.rax = (uint64_t)i;
			run(ctx, &s, &regs, &trap);
			CHECK(trap.kind == TRAP_SYSCALL);
		}
		best = MIN(best, (now_ns() - t0) / 4000);
	}
	CHECK_EQ(stat_of("trips for host calls in stubs"), injected);
	printf("    system call round trip, %s: %lu ns\n", what, best);
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

static void test_syscall(void)
{
	struct context *ctx;
	struct arch_regs regs, before;
	struct trap trap;
	struct space s;
	int i;

	begin();
	space_init(&s);
	ctx = new_context();
	regs_init(&regs, AT(calls));
	regs.rax = 39;
	regs.rbx = 0x1111;
	regs.rdx = 0xdddd;
	regs.rsi = 0x5151;
	regs.rdi = 0xd1d1;
	regs.rbp = 0xbbbb;
	regs.r8 = 8;
	regs.r9 = 9;
	regs.r10 = 10;
	regs.r12 = 12;
	regs.r13 = 13;
	regs.r14 = 14;
	regs.r15 = ~0UL;
	before = regs;
	for (i = 0; i < 1000; i++) {
		run(ctx, &s, &regs, &trap);
		CHECK(trap.kind == TRAP_SYSCALL);
		CHECK_EQ(regs.orig_rax, before.rax);
		CHECK_EQ(regs.rip, AT(calls) + 2);
		CHECK_EQ(regs.rcx, regs.rip);
		CHECK_EQ(regs.rbx, before.rbx);
		CHECK_EQ(regs.rdx, before.rdx);
		CHECK_EQ(regs.rsi, before.rsi);
		CHECK_EQ(regs.rdi, before.rdi);
		CHECK_EQ(regs.rbp, before.rbp);
		CHECK_EQ(regs.rsp, before.rsp);
		CHECK_EQ(regs.r8, before.r8);
		CHECK_EQ(regs.r9, before.r9);
		CHECK_EQ(regs.r10, before.r10);
		CHECK_EQ(regs.r12, before.r12);
		CHECK_EQ(regs.r13, before.r13);
		CHECK_EQ(regs.r14, before.r14);
		CHECK_EQ(regs.r15, before.r15);
		CHECK_EQ(regs.cs, ARCH_USER_CS);
		CHECK_EQ(regs.ss, ARCH_USER_SS);
		/* Restart codes of the sentry mean nothing to the host. */
		regs.rax = before.rax = i % 7 ? (uint64_t)(i * 3) : (uint64_t)-512;
	}
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
	syscall_loop("on one CPU");
	setenv("KVMSBOX_STUB_PIN", "0", 1);
	syscall_loop("free to roam");
	unsetenv("KVMSBOX_STUB_PIN");
}

static void expect_fault(struct context *ctx, struct space *s, uaddr_t entry, uaddr_t addr,
			 unsigned int access, bool present)
{
	struct arch_regs regs;
	struct trap trap;
	int i;

	/* Not resolved, it is the same the second time. */
	regs_init(&regs, entry);
	regs.rdi = addr;
	for (i = 0; i < 2; i++) {
		run(ctx, s, &regs, &trap);
		CHECK(trap.kind == TRAP_FAULT);
		CHECK_EQ(trap.addr, addr);
		CHECK_EQ(trap.access, access);
		CHECK_EQ(trap.present, present);
		CHECK_EQ(regs.rip, access == ACCESS_EXEC ? addr : entry);
		CHECK_EQ(regs.rdi, addr);
	}
}

static void test_faults(void)
{
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	gpa_t ro = new_frame(), rw = new_frame(), late = new_frame();
	uint64_t sentry_faults, served;

	begin();
	space_init(&s);
	ctx = new_context();
	space_map(&s, DATA_VA, ro, ACCESS_READ);
	space_map(&s, DATA_VA + PAGE_SIZE, rw, ACCESS_READ | ACCESS_WRITE);
	*word(ro) = 0x41;

	expect_fault(ctx, &s, AT(load), DATA_VA + 0x10000, ACCESS_READ, false);
	expect_fault(ctx, &s, AT(load), 8, ACCESS_READ, false);
	expect_fault(ctx, &s, AT(store), DATA_VA + 0x10000, PRECISE ? ACCESS_WRITE : ACCESS_READ,
		     false);
	expect_fault(ctx, &s, AT(store), DATA_VA + 8, ACCESS_WRITE, true);
	expect_fault(ctx, &s, AT(jump), DATA_VA + 16, ACCESS_EXEC, true);
	expect_fault(ctx, &s, AT(jump), DATA_VA + PAGE_SIZE + 16, ACCESS_EXEC, true);
	expect_fault(ctx, &s, AT(jump), DATA_VA + 0x10000, ACCESS_EXEC, false);
	expect_fault(ctx, &s, AT(store), CODE_VA, ACCESS_WRITE, true);
	expect_fault(ctx, &s, AT(load), 0xffff800000001000UL, ACCESS_READ, false);
	expect_fault(ctx, &s, AT(load), USER_TOP - 1, ACCESS_READ, false);

	regs_init(&regs, AT(load));
	regs.rdi = 0x8000000000000000UL;
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_EXCEPTION);
	CHECK_EQ(trap.vector, ARCH_EXC_GP);

	regs_init(&regs, AT(load));
	regs.rdi = DATA_VA;
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	CHECK_EQ(regs.orig_rax, 0x41);

	/* A resolved one is not taken again, not even inside. */
	regs_init(&regs, AT(store));
	regs.rdi = DATA_VA + 0x20000;
	regs.rsi = 77;
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_FAULT);
	sentry_faults = stat_of("faults to the sentry");
	served = stat_of("faults served by mapping");
	space_map(&s, DATA_VA + 0x20000, late, ACCESS_READ | ACCESS_WRITE);
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	CHECK_EQ(*word(late), 77);
	CHECK_EQ(stat_of("faults to the sentry"), sentry_faults);
	CHECK_EQ(stat_of("faults served by mapping"), served);

	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

static void expect_exception(struct context *ctx, struct space *s, uaddr_t entry,
			     unsigned int vector, uaddr_t rip)
{
	struct arch_regs regs;
	struct trap trap;

	regs_init(&regs, entry);
	run(ctx, s, &regs, &trap);
	CHECK(trap.kind == TRAP_EXCEPTION);
	CHECK_EQ(trap.vector, vector);
	if (rip)
		CHECK_EQ(regs.rip, rip);
}

static void test_exceptions(void)
{
	void *fpu = NULL;
	struct context *ctx;
	struct space s;

	CHECK(!posix_memalign(&fpu, 64, arch_fpu_size()));
	begin();
	space_init(&s);
	ctx = new_context();
	expect_exception(ctx, &s, AT(ud), ARCH_EXC_UD, AT(ud));
	expect_exception(ctx, &s, AT(bp), ARCH_EXC_BP, AT(bp) + 1);
	expect_exception(ctx, &s, AT(de), ARCH_EXC_DE, AT(de) + 2);
	expect_exception(ctx, &s, AT(int80), ARCH_EXC_GP, AT(int80) + 5);
	expect_exception(ctx, &s, AT(tf), ARCH_EXC_DB, 0);
	expect_exception(ctx, &s, AT(ac), ARCH_EXC_AC, 0);
	expect_exception(ctx, &s, AT(xm), ARCH_EXC_XM, 0);
	arch_fpu_init(fpu);
	type->ctx_set_fpu(ctx, fpu);
	expect_exception(ctx, &s, AT(mf), ARCH_EXC_MF, 0);
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
	free(fpu);
}

struct kicker {
	struct context *ctx;
	_Atomic unsigned int seen;
	unsigned int n;
	bool spaced;
};

static void *kicker_main(void *arg)
{
	struct kicker *k = arg;
	unsigned int i;

	for (i = 0; i < k->n; i++) {
		uint64_t t0 = now_ns();

		type->ctx_kick(k->ctx);
		while (atomic_load(&k->seen) <= i) {
			CHECK(now_ns() - t0 < 5000000000UL);
			sched_yield();
		}
		if (k->spaced)
			usleep((useconds_t)(i % 50));
	}
	return NULL;
}

static void kick_round(uaddr_t entry, bool spaced)
{
	struct kicker k = {.n = 1000, .spaced = spaced};
	struct arch_regs regs, before;
	struct trap trap;
	struct space s;
	pthread_t t;

	begin();
	space_init(&s);
	k.ctx = new_context();
	regs_init(&regs, entry);
	CHECK(!pthread_create(&t, NULL, kicker_main, &k));
	while (atomic_load(&k.seen) < k.n) {
		before = regs;
		run(k.ctx, &s, &regs, &trap);
		if (trap.kind == TRAP_KICK) {
			atomic_fetch_add(&k.seen, 1);
			CHECK_EQ(regs.rsp, before.rsp);
		} else {
			CHECK(trap.kind == TRAP_SYSCALL);
		}
	}
	pthread_join(t, NULL);
	type->ctx_destroy(k.ctx);
	space_fini(&s);
	end();
}

static void test_kicks(void)
{
	kick_round(AT(spin), false);
	kick_round(AT(spin), true);
	kick_round(AT(calls), false);
}

static void test_cow(void)
{
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	gpa_t a = new_frame(), b = new_frame();
	uint64_t t0;
	int i;

	begin();
	space_init(&s);
	ctx = new_context();
	*word(a) = 1;
	space_map(&s, DATA_VA, a, ACCESS_READ);
	regs_init(&regs, AT(load));
	regs.rdi = DATA_VA;
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	CHECK_EQ(regs.orig_rax & 0xff, 1);

	regs_init(&regs, AT(store));
	regs.rdi = DATA_VA;
	regs.rsi = 2;
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_FAULT);
	CHECK_EQ(trap.access, ACCESS_WRITE);
	memcpy(phys_ptr(b), phys_ptr(a), PAGE_SIZE);
	space_change(&s, DATA_VA, b, ACCESS_READ | ACCESS_WRITE);
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	CHECK_EQ(*word(a), 1);
	CHECK_EQ(*word(b), 2);

	/* Write protection again (fork), many times. */
	t0 = now_ns();
	for (i = 0; i < 100; i++) {
		space_change(&s, DATA_VA, b, ACCESS_READ);
		regs_init(&regs, AT(store));
		regs.rdi = DATA_VA;
		regs.rsi = (uint64_t)i;
		run(ctx, &s, &regs, &trap);
		CHECK(trap.kind == TRAP_FAULT);
		CHECK_EQ(trap.access, ACCESS_WRITE);
		space_change(&s, DATA_VA, b, ACCESS_READ | ACCESS_WRITE);
		run(ctx, &s, &regs, &trap);
		CHECK(trap.kind == TRAP_SYSCALL);
		CHECK_EQ(*word(b), i);
	}
	printf("    write fault, resolved, and system call: %lu ns\n", (now_ns() - t0) / 100);
	frame_put(a);
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

static void test_unmap(void)
{
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	gpa_t big = frame_alloc_extent(512);
	uint64_t served;
	size_t i;

	CHECK(big != GPA_NONE);
	begin();
	space_init(&s);
	ctx = new_context();
	for (i = 0; i < 512; i++)
		space_map(&s, DATA_VA + i * PAGE_SIZE, big + i * PAGE_SIZE,
			  ACCESS_READ | ACCESS_WRITE);
	/* One contiguous run, across a leaf table: one fault. */
	regs_init(&regs, AT(load));
	regs.rdi = DATA_VA + 100 * PAGE_SIZE;
	run(ctx, &s, &regs, &trap);
	served = stat_of("faults served by mapping");
	regs_init(&regs, AT(walk));
	regs.rdi = DATA_VA;
	regs.rsi = DATA_VA + 512 * PAGE_SIZE;
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	CHECK_EQ(stat_of("faults served by mapping"), served);

	/* Scattered holes, more than the stale list holds. */
	for (i = 0; i < 512; i += 4)
		space_change(&s, DATA_VA + i * PAGE_SIZE, 0, 0);
	for (i = 0; i < 512; i++) {
		regs_init(&regs, AT(load));
		regs.rdi = DATA_VA + i * PAGE_SIZE;
		run(ctx, &s, &regs, &trap);
		CHECK(trap.kind == (i % 4 ? TRAP_SYSCALL : TRAP_FAULT));
		if (i % 4 == 0)
			CHECK_EQ(trap.access, ACCESS_READ);
	}
	for (i = 0; i < 512; i += 4)
		frame_put(big + i * PAGE_SIZE);
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

/* More mappings than the host allows in one process. */
static void test_too_many(void)
{
	enum { PAGES = 70000 };
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	gpa_t frame = new_frame();
	uint64_t t0;
	size_t i;

	begin();
	space_init(&s);
	ctx = new_context();
	*word(frame) = 7;
	for (i = 0; i < PAGES; i++) {
		frame_get(frame);
		space_map(&s, DATA_VA + i * PAGE_SIZE, frame, ACCESS_READ);
	}
	t0 = now_ns();
	for (i = 0; i < 2; i++) {
		regs_init(&regs, AT(walk));
		regs.rdi = DATA_VA;
		regs.rsi = DATA_VA + PAGES * PAGE_SIZE;
		run(ctx, &s, &regs, &trap);
		CHECK(trap.kind == TRAP_SYSCALL);
	}
	printf("    scattered pages, mapped and touched: %lu ns each\n",
	       (now_ns() - t0) / (2 * PAGES));
	frame_put(frame);
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

struct runner {
	struct space *s;
	struct context *ctx;
	uaddr_t counter;
	_Atomic bool stop;
	_Atomic unsigned int faults;
	pthread_t thread;
	bool destroy; /* the context, by the runner itself */
};

static void *runner_main(void *arg)
{
	struct runner *r = arg;
	struct arch_regs regs;
	struct trap trap;

	regs_init(&regs, AT(count));
	regs.rdi = r->counter;
	while (!atomic_load(&r->stop)) {
		run(r->ctx, r->s, &regs, &trap);
		if (trap.kind == TRAP_FAULT)
			atomic_fetch_add(&r->faults, 1);
		else
			CHECK(trap.kind == TRAP_KICK);
	}
	if (r->destroy)
		type->ctx_destroy(r->ctx);
	return NULL;
}

static void runner_start(struct runner *r, struct space *s, uaddr_t counter)
{
	r->s = s;
	r->ctx = new_context();
	r->counter = counter;
	CHECK(!pthread_create(&r->thread, NULL, runner_main, r));
}

static void runner_stop(struct runner *r)
{
	atomic_store(&r->stop, true);
	type->ctx_kick(r->ctx);
	pthread_join(r->thread, NULL);
	if (!r->destroy)
		type->ctx_destroy(r->ctx);
}

static void wait_moving(const uint64_t *counter)
{
	uint64_t v = __atomic_load_n(counter, __ATOMIC_RELAXED), t0 = now_ns();

	while (__atomic_load_n(counter, __ATOMIC_RELAXED) == v) {
		CHECK(now_ns() - t0 < 5000000000UL);
		sched_yield();
	}
}

/*
 * Two threads count in a page while a third host thread, which has no stub thread, moves the page
 * between two frames. After each invalidation the old frame must stand still.
 */
static void test_threads(void)
{
	struct runner r[2] = {{.destroy = true}, {.destroy = false}};
	struct space s;
	gpa_t frames[2] = {new_frame(), new_frame()};
	unsigned int i, k;
	uint64_t was[2];

	begin();
	space_init(&s);
	space_map(&s, DATA_VA, frames[0], ACCESS_READ | ACCESS_WRITE);
	for (k = 0; k < 2; k++)
		runner_start(&r[k], &s, DATA_VA + k * 64);
	for (i = 1; i <= 1000; i++) {
		gpa_t old = frames[(i - 1) % 2], cur = frames[i % 2];

		if (i % 16 == 1) {
			wait_moving(word(old));
			wait_moving(word(old) + 8);
		}
		space_change(&s, DATA_VA, cur, ACCESS_READ | ACCESS_WRITE);
		for (k = 0; k < 2; k++)
			was[k] = __atomic_load_n(word(old) + k * 8, __ATOMIC_RELAXED);
		if (i % 16 == 1)
			wait_moving(word(cur));
		else
			usleep(i % 100);
		for (k = 0; k < 2; k++)
			CHECK_EQ(__atomic_load_n(word(old) + k * 8, __ATOMIC_RELAXED), was[k]);
	}
	CHECK(stat_of("invalidations with a thread running") > 0);
	/* Removed altogether: both fault to the sentry. */
	space_change(&s, DATA_VA, 0, 0);
	for (k = 0; k < 2; k++) {
		uint64_t t0 = now_ns();

		while (!atomic_load(&r[k].faults))
			CHECK(now_ns() - t0 < 5000000000UL);
	}
	for (k = 0; k < 2; k++) {
		runner_stop(&r[k]);
		frame_put(frames[k]);
	}
	space_fini(&s);
	end();
}

/* The invalidating thread has a stopped stub thread of its own there, the other one runs. */
static void test_invalidate_own(void)
{
	struct runner r = {.destroy = true};
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	gpa_t frames[2] = {new_frame(), new_frame()};
	unsigned int i;

	begin();
	space_init(&s);
	ctx = new_context();
	space_map(&s, DATA_VA, frames[0], ACCESS_READ | ACCESS_WRITE);
	space_map(&s, DATA_VA + PAGE_SIZE, new_frame(), ACCESS_READ | ACCESS_WRITE);
	runner_start(&r, &s, DATA_VA);
	regs_init(&regs, AT(calls));
	for (i = 1; i <= 500; i++) {
		gpa_t old = frames[(i - 1) % 2];
		uint64_t was;

		run(ctx, &s, &regs, &trap);
		space_change(&s, DATA_VA, frames[i % 2], ACCESS_READ | ACCESS_WRITE);
		was = __atomic_load_n(word(old), __ATOMIC_RELAXED);
		if (i % 16 == 0)
			wait_moving(word(frames[i % 2]));
		CHECK_EQ(__atomic_load_n(word(old), __ATOMIC_RELAXED), was);
	}
	frame_put(frames[1]);
	runner_stop(&r);
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

static void test_fpu_and_bases(void)
{
	uint64_t fs, gs, value = 0x1122334455667788UL;
	struct context *ctx, *child;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	unsigned char *fpu = NULL;
	void *raw = NULL;
	gpa_t data = new_frame();
	uint64_t xstate = 3;

	CHECK(!posix_memalign(&raw, 64, arch_fpu_size()));
	fpu = raw;
	begin();
	space_init(&s);
	space_map(&s, DATA_VA, data, ACCESS_READ | ACCESS_WRITE);
	ctx = new_context();
	arch_fpu_init(fpu);
	memcpy(fpu + 160, &value, 8); /* xmm0 */
	memcpy(fpu + 512, &xstate, 8);
	type->ctx_set_fpu(ctx, fpu);
	regs_init(&regs, AT(fpu));
	regs.rbx = 0xabcdef;
	run(ctx, &s, &regs, &trap);
	CHECK_EQ(regs.orig_rax, value);
	memset(fpu, 0xff, arch_fpu_size());
	type->ctx_get_fpu(ctx, fpu);
	CHECK(!memcmp(fpu + 160, &value, 8));
	CHECK_EQ(*(uint64_t *)(void *)(fpu + 176), 0xabcdef);
	/* fork: the child starts with the parent's state */
	child = new_context();
	type->ctx_set_fpu(child, fpu);
	regs_init(&regs, AT(fpu));
	run(child, &s, &regs, &trap);
	CHECK_EQ(regs.orig_rax, value);
	type->ctx_destroy(child);
	/* and a new one without any */
	child = new_context();
	regs_init(&regs, AT(fpu));
	run(child, &s, &regs, &trap);
	CHECK_EQ(regs.orig_rax, 0);
	type->ctx_destroy(child);
	/* the parent's is still there, and survives injected calls and mappings */
	space_change(&s, CODE_VA, pte_read(pt_find(&s.pt, CODE_VA)) & PTE_ADDR,
		     ACCESS_READ | ACCESS_EXEC);
	regs_init(&regs, AT(fpu));
	run(ctx, &s, &regs, &trap);
	CHECK_EQ(regs.orig_rax, value);

	word(data)[0] = 0xf5;
	word(data)[1] = 0x65;
	type->ctx_set_bases(ctx, DATA_VA, DATA_VA + 8);
	regs_init(&regs, AT(bases));
	regs.rsi = DATA_VA + 0x800;
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	CHECK_EQ(regs.rbx, 0xf5);
	CHECK_EQ(regs.rbp, 0x65);
	type->ctx_get_bases(ctx, &fs, &gs);
	/* A CPU may have the instruction although the host's kernel doesn't know. */
	if (arch_hwcap2() & 2)
		CHECK_EQ(fs, DATA_VA + 0x800);
	CHECK_EQ(gs, DATA_VA + 8);
	/* A base that the host would not let us set does no harm. */
	type->ctx_set_bases(ctx, DATA_VA, DATA_VA + 8);
	regs_init(&regs, AT(bases));
	regs.rsi = 0xffff800000000000UL;
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	type->ctx_get_bases(ctx, &fs, &gs);
	regs_init(&regs, AT(calls));
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	type->ctx_set_bases(ctx, fs, gs);
	run(ctx, &s, &regs, &trap);
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
	free(raw);
}

/* execve: the same context goes on elsewhere, before or after the old address space ends. */
static void test_switch(void)
{
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s[2];
	uint64_t value = 0x77, xstate = 3;
	void *fpu = NULL;
	int i;

	CHECK(!posix_memalign(&fpu, 64, arch_fpu_size()));
	begin();
	ctx = new_context();
	arch_fpu_init(fpu);
	memcpy((char *)fpu + 160, &value, 8);
	memcpy((char *)fpu + 512, &xstate, 8);
	type->ctx_set_fpu(ctx, fpu);
	space_init(&s[0]);
	space_init(&s[1]);
	space_map(&s[0], DATA_VA, new_frame(), ACCESS_READ);
	for (i = 0; i < 20; i++) {
		regs_init(&regs, AT(fpu));
		run(ctx, &s[i % 2], &regs, &trap);
		CHECK_EQ(regs.orig_rax, value);
	}
	space_fini(&s[0]);
	space_fini(&s[1]);
	for (i = 0; i < 20; i++) {
		space_init(&s[0]);
		if (i % 2)
			space_map(&s[0], DATA_VA, new_frame(), ACCESS_READ);
		regs_init(&regs, AT(load));
		regs.rdi = DATA_VA;
		run(ctx, &s[0], &regs, &trap);
		CHECK(trap.kind == (i % 2 ? TRAP_SYSCALL : TRAP_FAULT));
		regs_init(&regs, AT(fpu));
		run(ctx, &s[0], &regs, &trap);
		CHECK_EQ(regs.orig_rax, value);
		space_fini(&s[0]);
	}
	/* All of that by three processes at most. */
	CHECK(stat_of("stub processes made") <= 3);
	type->ctx_destroy(ctx);
	end();
	free(fpu);
}

/* A page here and there, the next one two further on: some alike from one space to the next. */
#define SLOTS  12
#define FRAMES 16

struct slot {
	int frame; /* index, or -1: nothing there */
	bool writable;
};

static uaddr_t slot_va(int i)
{
	return DATA_VA + (uaddr_t)(i / 2 * 4 + i % 2) * PAGE_SIZE;
}

/* Another space with @slots, what a process finds in it, and its end. */
static void live_once(const struct slot *slots, const gpa_t *frames, uint64_t *expected)
{
	struct context *ctx = new_context();
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	uint64_t *pte;
	uaddr_t va = 0;

	space_init(&s);
	for (int i = 0; i < SLOTS; i++) {
		if (slots[i].frame < 0)
			continue;
		frame_get(frames[slots[i].frame]);
		space_map(&s, slot_va(i), frames[slots[i].frame],
			  ACCESS_READ | (slots[i].writable ? ACCESS_WRITE : 0));
	}
	for (int i = 0; i < SLOTS; i++) {
		int f = slots[i].frame;

		regs_init(&regs, AT(load));
		regs.rdi = slot_va(i);
		run(ctx, &s, &regs, &trap);
		CHECK((trap.kind == TRAP_SYSCALL) == (f >= 0));
		if (f >= 0)
			CHECK_EQ(regs.orig_rax & 0xff, expected[f] & 0xff);
		regs_init(&regs, AT(store));
		regs.rdi = slot_va(i);
		regs.rsi = (uint64_t)(f * 5 + i + 1);
		run(ctx, &s, &regs, &trap);
		CHECK((trap.kind == TRAP_SYSCALL) == (f >= 0 && slots[i].writable));
		if (trap.kind == TRAP_SYSCALL)
			expected[f] = regs.rsi;
	}
	for (int f = 0; f < FRAMES; f++)
		CHECK_EQ(*word(frames[f]), expected[f]);
	type->ctx_destroy(ctx);
	/* As mm does it: without a word to the platform. */
	while ((pte = pt_next(&s.pt, &va, USER_TOP))) {
		frame_put(pte_read(pte) & PTE_ADDR);
		pte_write(pte, 0);
		va += PAGE_SIZE;
	}
	type->as_destroy(s.as);
	pt_fini(&s.pt);
}

/* A process that has served one address space serves the next. */
static void test_succession(void)
{
	gpa_t frames[FRAMES];
	uint64_t expected[FRAMES], before;
	struct slot slots[SLOTS];
	unsigned int seed = 1;

	begin();
	for (int f = 0; f < FRAMES; f++) {
		frames[f] = new_frame();
		*word(frames[f]) = expected[f] = (uint64_t)(100 + f);
	}
	for (int i = 0; i < SLOTS; i++)
		slots[i] = (struct slot){i, i % 3};
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < SLOTS && round; i++) {
			if (rand_r(&seed) % 4)
				continue;
			slots[i].frame = rand_r(&seed) % (FRAMES + 2) - 2;
			slots[i].writable = rand_r(&seed) % 2;
		}
		live_once(slots, frames, expected);
	}
	CHECK(stat_of("stub processes made") <= 2);
	/* Of what stays alike next to nothing is mapped again: its code and stack may be new. */
	live_once(slots, frames, expected);
	before = stat_of("mmaps in stubs");
	for (int round = 0; round < 10; round++)
		live_once(slots, frames, expected);
	CHECK(stat_of("mmaps in stubs") - before <= 20);
	for (int f = 0; f < FRAMES; f++)
		frame_put(frames[f]);
	end();
}

static void test_many(void)
{
	enum { N = 100 };
	static struct space s[N];
	static struct context *ctx[N];
	struct arch_regs regs;
	struct trap trap;
	uint64_t t0;
	int i;

	begin();
	t0 = now_ns();
	for (i = 0; i < N; i++) {
		space_init(&s[i]);
		ctx[i] = new_context();
		regs_init(&regs, AT(calls));
		run(ctx[i], &s[i], &regs, &trap);
	}
	printf("    the first time: %lu ns\n", (now_ns() - t0) / N);
	for (i = 0; i < N; i++) {
		space_fini(&s[i]);
		type->ctx_destroy(ctx[i]);
	}
	/* One after the other: the pool serves them. */
	t0 = now_ns();
	for (i = 0; i < N; i++) {
		space_init(&s[0]);
		ctx[0] = new_context();
		regs_init(&regs, AT(calls));
		run(ctx[0], &s[0], &regs, &trap);
		type->ctx_destroy(ctx[0]);
		space_fini(&s[0]);
	}
	printf("    address space and context, made, entered, ended: %lu ns\n",
	       (now_ns() - t0) / N);
	CHECK(stat_of("stub processes made") <= N);
	end();
}

/* Host threads that end without destroying their contexts. */
static void *one_call(void *arg)
{
	struct runner *r = arg;
	struct arch_regs regs;
	struct trap trap;

	regs_init(&regs, AT(calls));
	run(r->ctx, r->s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	return NULL;
}

static void test_thread_exit(void)
{
	struct runner r[8] = {{.s = NULL}};
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	int i, k;

	begin();
	space_init(&s);
	ctx = new_context();
	regs_init(&regs, AT(calls));
	for (i = 0; i < 20; i++) {
		for (k = 0; k < 8; k++) {
			r[k].s = &s;
			r[k].ctx = new_context();
			CHECK(!pthread_create(&r[k].thread, NULL, one_call, &r[k]));
		}
		run(ctx, &s, &regs, &trap);
		for (k = 0; k < 8; k++) {
			pthread_join(r[k].thread, NULL);
			type->ctx_destroy(r[k].ctx);
		}
	}
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	CHECK_EQ(stat_of("stub processes made"), 1);
	CHECK(stat_of("stub threads made") <= 9);
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

static pid_t stub_pid(struct context *ctx)
{
	return to_stub_context(ctx)->thread->proc->pid;
}

/* Someone kills stubs from outside: an error, and the next run works again. */
static void test_stub_killed(void)
{
	struct context *ctx, *other;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	int i, err;

	begin();
	space_init(&s);
	ctx = new_context();
	other = new_context();
	for (i = 0; i < 5; i++) {
		regs_init(&regs, AT(calls));
		run(other, &s, &regs, &trap);
		run(ctx, &s, &regs, &trap);
		CHECK(trap.kind == TRAP_SYSCALL);
		kill(stub_pid(ctx), SIGKILL);
		if (i % 2)
			space_change(&s, CODE_VA, pte_read(pt_find(&s.pt, CODE_VA)) & PTE_ADDR,
				     ACCESS_READ | ACCESS_EXEC);
		err = type->ctx_run(ctx, s.as, &regs, &trap);
		CHECK_EQ(err, -ESRCH);
		regs_init(&regs, AT(calls));
		run(ctx, &s, &regs, &trap);
		CHECK(trap.kind == TRAP_SYSCALL);
		/* The other one still has its thread in the dead process. */
		CHECK_EQ(type->ctx_run(other, s.as, &regs, &trap), -ESRCH);
	}
	type->ctx_destroy(ctx);
	type->ctx_destroy(other);
	space_fini(&s);
	end();
}

/* Host signals to stubs and to the host thread do no harm. */
static void on_signal(int sig)
{
}

static void *signal_storm(void *arg)
{
	struct runner *r = arg;
	pid_t pid = stub_pid(r->ctx), tid = to_stub_context(r->ctx)->thread->tid;
	int sigs[] = {SIGUSR1, SIGINT,	SIGSEGV, SIGTRAP, SIGSTOP,
		      SIGCONT, SIGTSTP, SIGHUP,	 SIGCHLD};
	int i;

	for (i = 0; i < 900; i++) {
		syscall(SYS_tgkill, pid, tid, sigs[(size_t)i % ARRAY_SIZE(sigs)]);
		if (i % 10 == 0)
			pthread_kill(r->thread, SIGUSR1);
		usleep(20);
	}
	atomic_store(&r->stop, true);
	return NULL;
}

static void test_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct runner r = {.thread = pthread_self()};
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	pthread_t t;
	unsigned int calls = 0, kicks = 0;

	sigaction(SIGUSR1, &sa, NULL);
	begin();
	space_init(&s);
	r.ctx = new_context();
	regs_init(&regs, AT(calls));
	run(r.ctx, &s, &regs, &trap);
	CHECK(!pthread_create(&t, NULL, signal_storm, &r));
	while (!atomic_load(&r.stop)) {
		run(r.ctx, &s, &regs, &trap);
		if (trap.kind == TRAP_KICK) {
			kicks++;
		} else {
			CHECK(trap.kind == TRAP_SYSCALL);
			calls++;
			if (calls % 100 == 0)
				space_change(&s, STACK_VA,
					     pte_read(pt_find(&s.pt, STACK_VA)) & PTE_ADDR,
					     ACCESS_READ | ACCESS_WRITE);
		}
	}
	pthread_join(t, NULL);
	CHECK(calls > 0);
	type->ctx_destroy(r.ctx);
	space_fini(&s);
	end();
}

/* Files that are added to physical memory after the platform was made. */
static void test_file(void)
{
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	char name[] = "/tmp/stub_platform.XXXXXX";
	int fd = mkstemp(name);
	char page[PAGE_SIZE];
	size_t i;
	gpa_t gpa;

	CHECK(fd >= 0);
	unlink(name);
	for (i = 0; i < 40; i++) {
		memset(page, (int)(i + 1), sizeof(page));
		CHECK_EQ(write(fd, page, sizeof(page)), sizeof(page));
	}
	begin();
	space_init(&s);
	ctx = new_context();
	regs_init(&regs, AT(calls));
	run(ctx, &s, &regs, &trap);
	CHECK(!physmem_add_file(fd, 40 * PAGE_SIZE, &gpa));
	for (i = 0; i < 40; i++)
		space_map(&s, DATA_VA + i * PAGE_SIZE, gpa + i * PAGE_SIZE, ACCESS_READ);
	for (i = 0; i < 40; i++) {
		regs_init(&regs, AT(load));
		regs.rdi = DATA_VA + i * PAGE_SIZE + 5;
		run(ctx, &s, &regs, &trap);
		CHECK(trap.kind == TRAP_SYSCALL);
		CHECK_EQ(regs.orig_rax & 0xff, i + 1);
	}
	expect_fault(ctx, &s, AT(store), DATA_VA, ACCESS_WRITE, true);
	CHECK_EQ(stat_of("mmaps in stubs"), 3); /* code, stack, the file */
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

/* Nothing but the stub's own pages and the application's is mapped. */
static void test_nothing_visible(void)
{
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	char path[64], line[512];
	FILE *f;

	begin();
	space_init(&s);
	ctx = new_context();
	regs_init(&regs, AT(calls));
	run(ctx, &s, &regs, &trap);
	snprintf(path, sizeof(path), "/proc/%d/maps", stub_pid(ctx));
	f = fopen(path, "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long start;
		char rights[5];

		CHECK(sscanf(line, "%lx-%*x %4s", &start, rights) == 2);
		/* The areas of systrap's threads are data, never code. */
		if (start >= STUB_AREAS && start < STUB_BASE)
			CHECK(rights[2] == '-');
		else if (start >= STUB_BASE && start < STUB_BASE + STUB_SIZE)
			CHECK(rights[1] == '-');
		else if (!strstr(line, "[vsyscall]"))
			CHECK(start == CODE_VA || start == STACK_VA);
	}
	fclose(f);
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

/* Runs @fn in a child that may do to itself what it likes. */
static void in_child(void (*fn)(void))
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
		CHECK(!physmem_init(0));
		fn();
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	expect_no_process();
}

static void as_nobody(void)
{
	if (getuid() == 0) {
		CHECK(!setgroups(0, NULL));
		CHECK(!setresgid(65534, 65534, 65534));
		CHECK(!setresuid(65534, 65534, 65534));
	}
	test_probe();
	test_syscall();
	test_faults();
	test_threads();
	test_file();
}

/* A sentry drops what it can between the set-up and the first user code. */
static void without_capabilities(void)
{
	struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2];
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s[2];
	int i;

	memset(none, 0, sizeof(none));
	begin();
	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!syscall(SYS_capset, &hdr, none));
	CHECK(!prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
	ctx = new_context();
	for (i = 0; i < 2; i++) {
		space_init(&s[i]);
		regs_init(&regs, AT(calls));
		run(ctx, &s[i], &regs, &trap);
		CHECK(trap.kind == TRAP_SYSCALL);
	}
	type->ctx_destroy(ctx);
	for (i = 0; i < 2; i++)
		space_fini(&s[i]);
	end();
}

static void test_dropped(void)
{
	in_child(without_capabilities);
}

static void test_unprivileged(void)
{
	in_child(as_nobody);
}

/* kill -9 at some moment of a busy life. */
static void test_sentry_killed(void)
{
	int round;

	for (round = 0; round < 30; round++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (!pid) {
			CHECK(!physmem_init(0));
			for (;;) {
				struct runner r[3] = {{.destroy = true}, {.destroy = false}};
				struct space s[2];
				int k;

				begin();
				space_init(&s[0]);
				space_init(&s[1]);
				for (k = 0; k < 2; k++)
					space_map(&s[k], DATA_VA, new_frame(),
						  ACCESS_READ | ACCESS_WRITE);
				for (k = 0; k < 3; k++)
					runner_start(&r[k], &s[k % 2], DATA_VA);
				usleep(1000);
				for (k = 0; k < 3; k++)
					runner_stop(&r[k]);
				space_fini(&s[0]);
				space_fini(&s[1]);
				type->destroy(plat);
			}
		}
		usleep((useconds_t)(round * 317 % 9000));
		kill(pid, SIGKILL);
		expect_no_process();
	}
}

/* Threads that never leave user code are spread over the CPUs. */
static void test_balance(void)
{
	struct runner r[2] = {{.destroy = true}, {.destroy = true}};
	struct space s;
	int cpu[2] = {0, 0}, tries, k;

	begin();
	if (!to_stub_platform(plat)->place.pin) {
		printf("    skipped: one CPU\n");
		end();
		return;
	}
	space_init(&s);
	space_map(&s, DATA_VA, new_frame(), ACCESS_READ | ACCESS_WRITE);
	for (k = 0; k < 2; k++)
		runner_start(&r[k], &s, DATA_VA + (uaddr_t)k * 64);
	for (tries = 0; tries < 2000; tries++) {
		usleep(1000);
		for (k = 0; k < 2; k++)
			cpu[k] = atomic_load(&to_stub_context(r[k].ctx)->cpu);
		if (cpu[0] >= 0 && cpu[1] >= 0 && cpu[0] != cpu[1])
			break;
	}
	CHECK(cpu[0] != cpu[1]);
	for (k = 0; k < 2; k++)
		runner_stop(&r[k]);
	space_fini(&s);
	end();
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*fn)(void);
		bool own_physmem;
	} tests[] = {{"unprivileged", test_unprivileged, true},
		     {"dropped", test_dropped, true},
		     {"sentry_killed", test_sentry_killed, true},
		     {"probe", test_probe, false},
		     {"syscall", test_syscall, false},
		     {"faults", test_faults, false},
		     {"exceptions", test_exceptions, false},
		     {"kicks", test_kicks, false},
		     {"cow", test_cow, false},
		     {"unmap", test_unmap, false},
		     {"too_many", test_too_many, false},
		     {"threads", test_threads, false},
		     {"invalidate_own", test_invalidate_own, false},
		     {"fpu_and_bases", test_fpu_and_bases, false},
		     {"switch", test_switch, false},
		     {"succession", test_succession, false},
		     {"many", test_many, false},
		     {"thread_exit", test_thread_exit, false},
		     {"stub_killed", test_stub_killed, false},
		     {"signals", test_signals, false},
		     {"file", test_file, false},
		     {"nothing_visible", test_nothing_visible, false},
		     {"balance", test_balance, false},
		     MORE_TESTS};
	bool have_physmem = false;
	size_t i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	CHECK(!arena_init());
	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		size_t in_use;
		uint64_t t0 = now_ns();

		if (argc > 1 && strcmp(argv[1], tests[i].name))
			continue;
		if (!tests[i].own_physmem && !have_physmem) {
			CHECK(!physmem_init(0));
			have_physmem = true;
		}
		in_use = arena_in_use();
		tests[i].fn();
		/* frame_alloc keeps a little for itself */
		CHECK(arena_in_use() < in_use + (1 << 20));
		printf("ok %s (%lu ms)\n", tests[i].name, (now_ns() - t0) / 1000000);
	}
	return 0;
}

#endif
