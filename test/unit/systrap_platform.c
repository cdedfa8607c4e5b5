/* SPDX-License-Identifier: Apache-2.0 */
/* The systrap platform by itself: stub_platform.h, and what hostile code may try. */
#define PLATFORM_UNDER_TEST systrap_platform
#define PRECISE		    true
#define MORE_TESTS                                                                                 \
	{"calls_from_stub", test_calls_from_stub, false}, {"scribble", test_scribble, false},      \
		{"deaf", test_deaf, false}, {"tables", test_tables, false},                        \
		{"status", test_status, false}, {"listener", test_listener, false},                \
		{"taken_back", test_taken_back, false},

static void test_calls_from_stub(void);
static void test_scribble(void);
static void test_deaf(void);
static void test_tables(void);
static void test_status(void);
static void test_listener(void);
static void test_taken_back(void);

#include "test/unit/stub_platform.h"

#include <linux/futex.h>
#include <signal.h>

#include "platform/systrap/internal.h"

extern const uint8_t systrap_code[] __attribute__((visibility("hidden")));
extern const uint8_t systrap_code_end[] __attribute__((visibility("hidden")));

static bool is_syscall(const uint8_t *at)
{
	return at[0] == 0x0f && at[1] == 0x05;
}

/* Every SYSCALL of the stub, with calls that user threads have no business making. */
static void test_calls_from_stub(void)
{
	static const struct {
		int nr;
		uint64_t arg[4];
	} calls[] = {
		{SYS_mmap, {DATA_VA, PAGE_SIZE, 3, 0x11}},
		{SYS_munmap, {STUB_REQUEST, PAGE_SIZE}},
		{SYS_mprotect, {STUB_CODE, PAGE_SIZE, 7}},
		{SYS_clone, {0x8600}},
		{SYS_pwrite64, {STUB_FD_CTL, STUB_CODE, 4, 0}},
		{SYS_lseek, {STUB_FD_CTL, 0, 0}},
		{SYS_recvmsg, {STUB_FD_SOCKET, DATA_VA}},
		{SYS_prctl, {PR_SET_PDEATHSIG, 0}},
		{SYS_arch_prctl, {0x1012, 0}}, /* ARCH_CET… and the like: not a base */
		{SYS_kill, {1, SIGKILL}},
		{SYS_tgkill, {1, 1, SIGKILL}},
		{SYS_ptrace, {0}},
		{SYS_openat, {0}},
		{SYS_execve, {0}},
		{SYS_seccomp, {1, 0, 0}},
		{SYS_sigaltstack, {0}},
		{SYS_rt_sigaction, {62, 0, 0, 8}},
		{SYS_getppid, {0}},
		{SYS_exit_group, {0}},
		{SYS_futex, {STUB_REQUEST, FUTEX_CMP_REQUEUE, 0, 1}},
		{SYS_futex, {STUB_REQUEST, FUTEX_LOCK_PI, 0, 0}},
		{SYS_close, {STUB_FD_CTL}},
		{SYS_ioctl, {STUB_FD_FIRST, 0xc0502100 /* SECCOMP_IOCTL_NOTIF_RECV */, DATA_VA}},
	};
	const uint8_t *at;
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	size_t i, n = 0;

	begin();
	space_init(&s);
	ctx = new_context();
	for (at = systrap_code; at < systrap_code_end; at++) {
		if (!is_syscall(at))
			continue;
		for (i = 0; i < ARRAY_SIZE(calls); i++) {
			uaddr_t va = STUB_CODE + (uaddr_t)(at - systrap_code);

			regs_init(&regs, va);
			regs.rax = (uint64_t)calls[i].nr;
			regs.rdi = calls[i].arg[0];
			regs.rsi = calls[i].arg[1];
			regs.rdx = calls[i].arg[2];
			regs.r10 = calls[i].arg[3];
			regs.r8 = STUB_FD_RAM;
			run(ctx, &s, &regs, &trap);
			CHECK(trap.kind == TRAP_SYSCALL);
			CHECK_EQ(regs.orig_rax, calls[i].nr);
			CHECK_EQ(regs.rip, va + 2);
			n++;
		}
	}
	CHECK(n >= 10 * ARRAY_SIZE(calls));
	/* None of them did anything. */
	regs_init(&regs, AT(calls));
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	CHECK_EQ(stat_of("stub processes made"), 1);
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

/*
 * User code writes all kinds of words over its area, control block and frames. Whatever comes of
 * it, the platform lives, and so does another address space.
 */
static void test_scribble(void)
{
	static const uint64_t words[] = {0,
					 1,
					 ~0UL,
					 4096,
					 0x7fUL,
					 STUB_AREAS,
					 STUB_AREAS + 0x1000,
					 STUB_CODE,
					 CODE_VA,
					 1UL << 47,
					 0x0001000100010001UL};
	struct context *ctx, *other;
	struct arch_regs regs;
	struct trap trap;
	struct space s, o;
	size_t i, off;
	int err, broken = 0;

	begin();
	space_init(&s);
	space_init(&o);
	ctx = new_context();
	other = new_context();
	regs_init(&regs, AT(calls));
	run(ctx, &s, &regs, &trap);
	for (i = 0; i < ARRAY_SIZE(words); i++) {
		for (off = 0; off < AREA_SIZE; off += off < CTL_SIZE ? 8 : 264) {
			regs_init(&regs, AT(store));
			regs.rdi = STUB_AREAS + off;
			regs.rsi = words[i];
			err = type->ctx_run(ctx, s.as, &regs, &trap);
			/* A second stop, in which the word is read. */
			if (!err)
				err = type->ctx_run(ctx, s.as, &regs, &trap);
			broken += err != 0;
			if (err)
				CHECK(err == -ESRCH || err == -EFAULT);
		}
	}
	/* While it is stopped, from another thread of its own, so to speak. */
	for (i = 0; i < ARRAY_SIZE(words); i++) {
		for (off = 8; off < AREA_SIZE; off += 8) {
			struct systrap_thread *th;

			regs_init(&regs, AT(calls));
			err = type->ctx_run(ctx, s.as, &regs, &trap);
			if (!err) {
				th = to_thread(to_stub_context(ctx)->thread);
				*(uint64_t *)(void *)((char *)th->ctl + off) = words[i];
				err = type->ctx_run(ctx, s.as, &regs, &trap);
			}
			broken += err != 0;
			if (err)
				CHECK(err == -ESRCH || err == -EFAULT);
			if (off > 512 && off < AREA_SIZE - 4096)
				off += 56;
		}
		regs_init(&regs, AT(calls));
		run(other, &o, &regs, &trap);
		CHECK(trap.kind == TRAP_SYSCALL);
	}
	printf("    broken by it: %d\n", broken);
	type->ctx_destroy(ctx);
	type->ctx_destroy(other);
	space_fini(&s);
	space_fini(&o);
	end();
}

static void *kick_later(void *arg)
{
	usleep(100000);
	type->ctx_kick(arg);
	return NULL;
}

/* Returns from a signal that never was, all signals blocked, to a loop. A kick ends it. */
static void test_deaf(void)
{
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	const uint8_t *at = systrap_code_end - 2;
	gpa_t data = new_frame();
	uint64_t t0 = now_ns();
	pthread_t t;

	begin();
	space_init(&s);
	space_map(&s, DATA_VA, data, ACCESS_READ | ACCESS_WRITE);
	while (!is_syscall(at))
		at--;
	/* struct ucontext at DATA_VA: sp, ip, flags, selectors, the mask. */
	word(data)[20] = STACK_VA + 2048;
	word(data)[21] = AT(spin);
	word(data)[22] = ARCH_EFLAGS_FIXED;
	word(data)[23] = (uint64_t)ARCH_USER_SS << 48 | ARCH_USER_CS;
	word(data)[37] = ~0UL;
	word(data)[3] = 2; /* SS_DISABLE: not even a stack for signals */
	regs_init(&regs, STUB_CODE + (uaddr_t)(at - systrap_code));
	regs.rax = SYS_rt_sigreturn;
	regs.rsp = DATA_VA;
	ctx = new_context();
	CHECK(!pthread_create(&t, NULL, kick_later, ctx));
	CHECK_EQ(type->ctx_run(ctx, s.as, &regs, &trap), -ESRCH);
	CHECK(now_ns() - t0 > KICK_PATIENCE * 500000000UL);
	CHECK(now_ns() - t0 < (KICK_PATIENCE + 5) * 1000000000UL);
	pthread_join(t, NULL);
	regs_init(&regs, AT(calls));
	do {
		run(ctx, &s, &regs, &trap);
	} while (trap.kind == TRAP_KICK);
	CHECK(trap.kind == TRAP_SYSCALL);
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

/* Page tables are not in the file that stubs have. */
static void test_tables(void)
{
	uint64_t seen[PT_ENTRIES];
	uint64_t offset;
	struct space s;
	size_t i;
	int fd;

	begin();
	space_init(&s);
	phys_backing(s.pt.root, &fd, &offset);
	CHECK_EQ(pread(fd, seen, sizeof(seen), (off_t)offset), sizeof(seen));
	for (i = 0; i < PT_ENTRIES; i++)
		CHECK_EQ(seen[i], 0);
	CHECK(word(s.pt.root)[0] & PTE_P);
	space_fini(&s);
	end();
}

static bool status_has(pid_t pid, pid_t tid, const char *what)
{
	char path[64], line[256];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	f = fopen(path, "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f))
		found = found || !strncmp(line, what, strlen(what));
	fclose(f);
	return found;
}

static void test_status(void)
{
	struct stub_thread *th;
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	pid_t pid;

	begin();
	space_init(&s);
	ctx = new_context();
	regs_init(&regs, AT(calls));
	run(ctx, &s, &regs, &trap);
	th = to_stub_context(ctx)->thread;
	pid = stub_pid(ctx);
	CHECK(status_has(pid, th->tid, "Seccomp:\t2"));
	CHECK(status_has(pid, th->tid, "Seccomp_filters:\t2"));
	CHECK(status_has(pid, th->tid, "NoNewPrivs:\t1"));
	CHECK(status_has(pid, th->tid, "CapPrm:\t0000000000000000"));
	CHECK(status_has(pid, th->tid, "TracerPid:\t0"));
	CHECK(status_has(pid, pid, "Seccomp_filters:\t1"));
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

/* ---- calls without registers ---- */

/* A context that has run as far as its first call, number 39. False: this host has no listeners. */
static bool first_call(struct context *ctx, struct space *s, struct arch_regs *regs,
		       struct trap *trap)
{
	ctx->takes_calls = true;
	regs_init(regs, AT(calls));
	regs->rax = 39;
	regs->rbx = 0x1111;
	regs->rdi = 0xd1d1d1d1d1d1;
	regs->rsi = 0x5151;
	regs->rdx = 0xdddd;
	regs->r10 = 10;
	regs->r8 = 8;
	regs->r9 = 9;
	run(ctx, s, regs, trap);
	if (to_thread(to_ctx(ctx)->stub.thread)->listener >= 0)
		return true;
	CHECK(trap->kind == TRAP_SYSCALL);
	printf("    skipped: no listeners here\n");
	return false;
}

static void expect_call(const struct trap *trap, int nr)
{
	CHECK(trap->kind == TRAP_CALL);
	CHECK_EQ(trap->nr, nr);
	CHECK_EQ(trap->addr, AT(calls) + 2);
	CHECK_EQ(trap->args[0], 0xd1d1d1d1d1d1);
	CHECK_EQ(trap->args[1], 0x5151);
	CHECK_EQ(trap->args[2], 0xdddd);
	CHECK_EQ(trap->args[3], 10);
	CHECK_EQ(trap->args[4], 8);
	CHECK_EQ(trap->args[5], 9);
}

static void expect_registers(const struct arch_regs *regs, uint64_t rax)
{
	CHECK_EQ(regs->rax, rax);
	CHECK_EQ(regs->rip, AT(calls) + 2);
	CHECK_EQ(regs->rbx, 0x1111);
	CHECK_EQ(regs->rdi, 0xd1d1d1d1d1d1);
	CHECK_EQ(regs->r9, 9);
}

/* The answer of each call is the number of the next. */
static void test_listener(void)
{
	static const int trapping[] = {SYS_rt_sigreturn,
				       SYS_clone,
				       SYS_fork,
				       SYS_vfork,
				       SYS_execve,
				       SYS_exit,
				       SYS_kill,
				       SYS_sigaltstack,
				       SYS_arch_prctl,
				       SYS_exit_group,
				       SYS_execveat,
				       SYS_clone3,
				       0x400,
				       -1,
				       -38};
	static const int telling[] = {0,   14,	16,  33,  35,  55,  61,	 63,  129,  132,
				      157, 159, 230, 232, 321, 323, 434, 436, 0x3ff};
	uint64_t fs, gs;
	struct context *ctx;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	size_t i;

	begin();
	space_init(&s);
	ctx = new_context();
	if (!first_call(ctx, &s, &regs, &trap))
		goto out;
	expect_call(&trap, 39);
	for (i = 0; i < ARRAY_SIZE(telling); i++) {
		type->ctx_answer(ctx, telling[i]);
		run(ctx, &s, &regs, &trap);
		expect_call(&trap, telling[i]);
	}
	for (i = 0; i < ARRAY_SIZE(trapping); i++) {
		type->ctx_answer(ctx, trapping[i]);
		run(ctx, &s, &regs, &trap);
		CHECK(trap.kind == TRAP_SYSCALL);
		CHECK_EQ((int)regs.orig_rax, trapping[i]);
		expect_registers(&regs, (uint64_t)(long)trapping[i]);
		regs.rax = 102;
		run(ctx, &s, &regs, &trap);
		expect_call(&trap, 102);
	}
	/* Without an answer: nothing is run. */
	for (i = 0; i < 100; i++) {
		run(ctx, &s, &regs, &trap);
		CHECK(trap.kind == TRAP_SYSCALL);
		CHECK_EQ(regs.orig_rax, 102);
		expect_registers(&regs, 102);
		run(ctx, &s, &regs, &trap);
		expect_call(&trap, 102);
	}
	/* A kick that comes while the call is with us. */
	type->ctx_kick(ctx);
	type->ctx_answer(ctx, 103);
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_KICK);
	expect_registers(&regs, 103);
	run(ctx, &s, &regs, &trap);
	expect_call(&trap, 103);
	/* One that nobody answers to: later. */
	type->ctx_kick(ctx);
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_KICK);
	run(ctx, &s, &regs, &trap);
	expect_call(&trap, 103);
	/* New bases go with the answer. */
	type->ctx_set_bases(ctx, 0x12345000, 0x6789a000);
	type->ctx_answer(ctx, 104);
	run(ctx, &s, &regs, &trap);
	expect_call(&trap, 104);
	run(ctx, &s, &regs, &trap);
	CHECK(trap.kind == TRAP_SYSCALL);
	type->ctx_get_bases(ctx, &fs, &gs);
	CHECK_EQ(fs, 0x12345000);
	CHECK_EQ(gs, 0x6789a000);
out:
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}

struct tormentor {
	struct context *ctx;
	_Atomic bool stop;
	unsigned int n;
};

static void *torment(void *arg)
{
	struct tormentor *m = arg;
	unsigned int i;
	cpu_set_t all;

	/* Whoever has made us is bound to its stub's processor. */
	memset(&all, 0xff, sizeof(all));
	CHECK(!sched_setaffinity(0, sizeof(all), &all));

	for (i = 0; !atomic_load(&m->stop); i++) {
		if (i % 3)
			type->ctx_kick(m->ctx);
		else
			stub_ctx_nudge(to_stub_context(m->ctx));
		for (volatile unsigned int j = 0; j < i * 3701 % 60000;)
			j++;
	}
	m->n = i;
	return NULL;
}

/* Signals take calls back at any moment: none is lost, none is made twice. */
static void test_taken_back(void)
{
	struct tormentor m = {0};
	unsigned int called = 0, trapped = 0, kicked = 0, i;
	int expected = 39;
	struct arch_regs regs;
	struct trap trap;
	struct space s;
	pthread_t t;

	begin();
	space_init(&s);
	m.ctx = new_context();
	if (!first_call(m.ctx, &s, &regs, &trap))
		goto out;
	CHECK(!pthread_create(&t, NULL, torment, &m));
	for (i = 0; i < 50000 && called < 40000; i++) {
		switch (trap.kind) {
		case TRAP_CALL:
			expect_call(&trap, expected);
			called++;
			if (i % 7 == 0)
				break;
			expected = 65 + (expected + 1) % 64;
			type->ctx_answer(m.ctx, expected);
			break;
		case TRAP_SYSCALL:
			CHECK_EQ(regs.orig_rax, expected);
			trapped++;
			expected = 65 + (expected + 1) % 64;
			regs.rax = (uint64_t)expected;
			break;
		case TRAP_KICK:
			CHECK_EQ(regs.rax, expected);
			kicked++;
			break;
		default:
			CHECK(false);
		}
		run(m.ctx, &s, &regs, &trap);
	}
	atomic_store(&m.stop, true);
	pthread_join(t, NULL);
	printf("    %u calls, %u traps, %u kicks of %u\n", called, trapped, kicked, m.n);
	CHECK(called >= 1000 && trapped >= 100 && kicked >= 100);
out:
	type->ctx_destroy(m.ctx);
	space_fini(&s);
	end();
}
