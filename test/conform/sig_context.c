/* SPDX-License-Identifier: Apache-2.0 */
/* What a handler sees of the interrupted program and what it may change: registers, flags, FPU. */
#include <immintrin.h>
#include <pthread.h>
#include <ucontext.h>

#include "test/conform/conform.h"
#include "test/conform/fault.h"

static volatile sig_atomic_t count;
static volatile greg_t seen[NGREG];
static volatile siginfo_t seen_info;

static void on_count(int sig UNUSED)
{
	count++;
}

/* Skips a two-byte instruction and leaves a value in rax. */
static void on_skip(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;

	seen_info.si_signo = sig;
	seen_info.si_code = info->si_code;
	seen_info.si_addr = info->si_addr;
	for (int i = 0; i < NGREG; i++)
		seen[i] = uc->uc_mcontext.gregs[i];
	uc->uc_mcontext.gregs[REG_RIP] += 2;
	uc->uc_mcontext.gregs[REG_RAX] = 0x123456789abcdefL;
	count++;
}

TEST(illegal_instruction)
{
	uintptr_t at;
	long rax;

	on_siginfo(SIGILL, on_skip, 0);
	asm volatile("lea 1f(%%rip), %0\n1: ud2" : "=&r"(at), "=a"(rax));
	CHECK_EQ(count, 1);
	CHECK_EQ(seen_info.si_code, ILL_ILLOPN);
	CHECK_EQ((uintptr_t)seen_info.si_addr, at);
	CHECK_EQ(seen[REG_RIP], at);
	CHECK_EQ(rax, 0x123456789abcdefL);
}

TEST(divide_by_zero)
{
	uintptr_t at;

	on_siginfo(SIGFPE, on_skip, 0);
	asm volatile("lea 1f(%%rip), %0\n\t"
		     "xor %%ecx, %%ecx\n\t"
		     "mov $1, %%eax\n\t"
		     "xor %%edx, %%edx\n\t"
		     "1: div %%ecx"
		     : "=&r"(at) :: "rax", "rcx", "rdx", "cc");
	CHECK_EQ(count, 1);
	CHECK_EQ(seen_info.si_code, FPE_INTDIV);
	CHECK_EQ((uintptr_t)seen_info.si_addr, at);
	CHECK_EQ(seen[REG_TRAPNO], 0);
}

static void on_trap(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;

	seen_info.si_signo = sig;
	seen_info.si_code = info->si_code;
	seen[REG_RIP] = uc->uc_mcontext.gregs[REG_RIP];
	uc->uc_mcontext.gregs[REG_EFL] &= ~0x100L;
	count++;
}

TEST(breakpoint)
{
	uintptr_t after;

	on_siginfo(SIGTRAP, on_trap, 0);
	asm volatile("lea 1f(%%rip), %0\n\tint3\n1:" : "=&r"(after));
	CHECK_EQ(count, 1);
	CHECK_EQ(seen_info.si_code, SI_KERNEL);
	CHECK_EQ(seen[REG_RIP], after);
}

TEST(single_step_by_flag)
{
	uintptr_t after;

	on_siginfo(SIGTRAP, on_trap, 0);
	asm volatile("lea 1f(%%rip), %0\n\t"
		     "sub $128, %%rsp\n\t"
		     "pushfq\n\t"
		     "orl $0x100, (%%rsp)\n\t"
		     "popfq\n\t"
		     "nop\n"
		     "1: nop\n\t"
		     "add $128, %%rsp"
		     : "=&r"(after) :: "cc", "memory");
	CHECK_EQ(count, 1);
	CHECK_EQ(seen_info.si_code, TRAP_TRACE);
	CHECK_EQ(seen[REG_RIP], after);
}

TEST(privileged_instruction)
{
	on_siginfo(SIGSEGV, on_skip, 0);
	asm volatile("hlt\n\tnop" ::: "rax");
	CHECK_EQ(count, 1);
	CHECK_EQ(seen_info.si_code, SI_KERNEL);
	CHECK_EQ((uintptr_t)seen_info.si_addr, 0);
	CHECK_EQ(seen[REG_TRAPNO], 13);
}

TEST(port_io_is_refused)
{
	on_siginfo(SIGSEGV, on_skip, 0);
	asm volatile("in $0x80, %%al" ::: "rax");
	CHECK_EQ(count, 1);
	CHECK_EQ(seen[REG_TRAPNO], 13);
}

TEST(page_fault_registers)
{
	char *p = (char *)CHECK_OK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	on_siginfo(SIGSEGV, on_skip, 0);
	asm volatile("movb %%cl, (%0)" :: "S"(p), "c"(1) : "memory", "rax");
	CHECK_EQ(count, 1);
	CHECK_EQ(seen[REG_TRAPNO], 14);
	CHECK_EQ(seen[REG_CR2], (long)p);
	CHECK_EQ(seen[REG_ERR] & 6, 6);
	CHECK_EQ(seen[REG_RSI], (long)p);
}

TEST(general_registers_survive)
{
	uint64_t out[8];

	on_signal(SIGALRM, on_count);
	TICK_START();
	asm volatile("mov $0x1111111111111111, %%r8\n\t"
		     "mov $0x2222222222222222, %%r9\n\t"
		     "mov $0x3333333333333333, %%r10\n\t"
		     "mov $0x4444444444444444, %%r11\n\t"
		     "mov $0x5555555555555555, %%r12\n\t"
		     "mov $0x6666666666666666, %%r13\n\t"
		     "mov $0x7777777777777777, %%r14\n\t"
		     "mov $0x0888888888888888, %%r15\n\t"
		     "mov $0x0999999999999999, %%rcx\n"
		     "1: cmpl $3, %[count]\n\t"
		     "jl 1b\n\t"
		     "mov %%r8, (%[out])\n\t"
		     "mov %%r9, 8(%[out])\n\t"
		     "mov %%r10, 16(%[out])\n\t"
		     "mov %%r11, 24(%[out])\n\t"
		     "mov %%r12, 32(%[out])\n\t"
		     "mov %%r13, 40(%[out])\n\t"
		     "add %%r14, %%r15\n\t"
		     "mov %%r15, 48(%[out])\n\t"
		     "mov %%rcx, 56(%[out])\n\t"
		     :: [out] "D"(out), [count] "m"(count)
		     : "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rcx", "memory", "cc");
	TICK_STOP();
	CHECK_EQ(out[0], 0x1111111111111111);
	CHECK_EQ(out[1], 0x2222222222222222);
	CHECK_EQ(out[2], 0x3333333333333333);
	CHECK_EQ(out[3], 0x4444444444444444);
	CHECK_EQ(out[4], 0x5555555555555555);
	CHECK_EQ(out[5], 0x6666666666666666);
	CHECK_EQ(out[6], 0x7777777777777777 + 0x0888888888888888);
	CHECK_EQ(out[7], 0x0999999999999999);
}

static volatile uintptr_t interrupted_sp, handler_sp;

static void on_sp(int sig UNUSED, siginfo_t *info UNUSED, void *ctx)
{
	ucontext_t *uc = ctx;

	interrupted_sp = uc->uc_mcontext.gregs[REG_RSP];
	handler_sp = (uintptr_t)__builtin_frame_address(0);
	count++;
}

TEST(red_zone_is_kept)
{
	on_siginfo(SIGUSR1, on_sp, 0);
	CHECK_OK(raise(SIGUSR1));
	CHECK(handler_sp < interrupted_sp - 128);
	/* A function's frame address is its entry sp - 8, and the entry sp is 8 below alignment. */
	CHECK_EQ(handler_sp & 15, 0);
}

static void on_redzone_fill(int sig UNUSED)
{
	volatile char fill[2048];

	memset((char *)(uintptr_t)fill, 0xee, sizeof(fill));
	count++;
}

TEST(red_zone_is_not_overwritten)
{
	long v = 0;

	on_signal(SIGALRM, on_redzone_fill);
	TICK_START();
	asm volatile("movq $0x5a5a, -8(%%rsp)\n\t"
		     "movq $0x5b5b, -128(%%rsp)\n"
		     "1: cmpl $3, %[count]\n\t"
		     "jl 1b\n\t"
		     "movq -8(%%rsp), %[v]\n\t"
		     "addq -128(%%rsp), %[v]"
		     : [v] "+r"(v) : [count] "m"(count) : "memory", "cc");
	TICK_STOP();
	CHECK_EQ(v, 0x5a5a + 0x5b5b);
}

TEST(ucontext_mask_is_restored)
{
	sigset_t set;

	on_siginfo(SIGUSR1, on_sp, 0);
	CHECK_OK(raise(SIGUSR1));
	CHECK_OK(sigprocmask(SIG_BLOCK, NULL, &set));
	CHECK(!sigismember(&set, SIGUSR1));
}

static void on_change_mask(int sig UNUSED, siginfo_t *info UNUSED, void *ctx)
{
	ucontext_t *uc = ctx;

	sigaddset(&uc->uc_sigmask, SIGHUP);
}

TEST(handler_may_change_the_mask)
{
	sigset_t set;

	on_siginfo(SIGUSR1, on_change_mask, 0);
	CHECK_OK(raise(SIGUSR1));
	CHECK_OK(sigprocmask(SIG_BLOCK, NULL, &set));
	CHECK(sigismember(&set, SIGHUP));
	CHECK(!sigismember(&set, SIGUSR1));
}

static void on_set_regs(int sig UNUSED, siginfo_t *info UNUSED, void *ctx)
{
	greg_t *r = ((ucontext_t *)ctx)->uc_mcontext.gregs;

	r[REG_RIP] += 2;
	r[REG_RBX] = 11;
	r[REG_RCX] = 22;
	r[REG_RDX] = 33;
	r[REG_R8] = 44;
	r[REG_R11] = 55;
	r[REG_R15] = 66;
}

TEST(handler_may_change_registers)
{
	long b, c, d, r8v, r11v, r15v;

	on_siginfo(SIGILL, on_set_regs, 0);
	asm volatile("ud2\n\t"
		     "mov %%r8, %[r8]\n\t"
		     "mov %%r11, %[r11]\n\t"
		     "mov %%r15, %[r15]"
		     : "=b"(b), "=c"(c), "=d"(d), [r8] "=m"(r8v), [r11] "=m"(r11v),
		       [r15] "=m"(r15v)
		     :: "r8", "r11", "r15");
	CHECK_EQ(b, 11);
	CHECK_EQ(c, 22);
	CHECK_EQ(d, 33);
	CHECK_EQ(r8v, 44);
	CHECK_EQ(r11v, 55);
	CHECK_EQ(r15v, 66);
}

static volatile unsigned long handler_flags;

static void on_flags(int sig UNUSED, siginfo_t *info UNUSED, void *ctx UNUSED)
{
	unsigned long f;

	asm volatile("pushfq\n\tpopq %0" : "=r"(f));
	handler_flags = f;
	count++;
}

TEST(direction_flag_is_clear_in_handler)
{
	unsigned long after;

	on_siginfo(SIGUSR1, on_flags, 0);
	asm volatile("sub $128, %%rsp\n\t"
		     "std\n\t"
		     "syscall\n\t"
		     "pushfq\n\t"
		     "popq %0\n\t"
		     "cld\n\t"
		     "add $128, %%rsp"
		     : "=r"(after)
		     : "a"(SYS_kill), "D"(getpid()), "S"(SIGUSR1)
		     : "rcx", "r11", "memory", "cc");
	CHECK_EQ(count, 1);
	CHECK_EQ(handler_flags & 0x400, 0);
	CHECK_EQ(after & 0x400, 0x400);
}

TEST(syscall_preserves_registers)
{
	long ok;

	asm volatile("mov $1, %%ebx\n\t"
		     "mov $2, %%edx\n\t"
		     "mov $3, %%esi\n\t"
		     "mov $4, %%edi\n\t"
		     "mov $5, %%r8d\n\t"
		     "mov $6, %%r9d\n\t"
		     "mov $7, %%r10d\n\t"
		     "mov $8, %%r12d\n\t"
		     "mov %[nr], %%eax\n\t"
		     "syscall\n\t"
		     "lea (%%rbx,%%rdx), %%rax\n\t"
		     "add %%rsi, %%rax\n\t"
		     "add %%rdi, %%rax\n\t"
		     "add %%r8, %%rax\n\t"
		     "add %%r9, %%rax\n\t"
		     "add %%r10, %%rax\n\t"
		     "add %%r12, %%rax"
		     : "=&a"(ok) : [nr] "i"(SYS_getppid)
		     : "rbx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "rcx", "cc");
	CHECK_EQ(ok, 36);
}

TEST(syscall_sets_rcx_and_r11)
{
	unsigned long rcx, r11, rip;

	asm volatile("lea 1f(%%rip), %2\n\t"
		     "mov %[nr], %%eax\n\t"
		     "syscall\n"
		     "1: mov %%r11, %1"
		     : "=&c"(rcx), "=&r"(r11), "=&r"(rip) : [nr] "i"(SYS_getppid)
		     : "rax", "r11", "memory");
	CHECK_EQ(rcx, rip);
	CHECK_EQ(r11 & 0x202, 0x202);
}

static void on_clobber_fpu(int sig UNUSED)
{
	asm volatile("pxor %%xmm0, %%xmm0\n\t"
		     "pcmpeqd %%xmm1, %%xmm1\n\t"
		     "pcmpeqd %%xmm15, %%xmm15\n\t"
		     "fninit\n\t"
		     "fldpi\n\t"
		     ::: "xmm0", "xmm1", "xmm15",
			 "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");
	count++;
}

TEST(sse_survives_signals)
{
	double a = 1.25, b = 2.5, ra, rb;

	on_signal(SIGALRM, on_clobber_fpu);
	TICK_START();
	asm volatile("movsd %[a], %%xmm0\n\t"
		     "movsd %[b], %%xmm15\n"
		     "1: cmpl $3, %[count]\n\t"
		     "jl 1b\n\t"
		     "movsd %%xmm0, %[ra]\n\t"
		     "movsd %%xmm15, %[rb]"
		     : [ra] "=m"(ra), [rb] "=m"(rb)
		     : [a] "m"(a), [b] "m"(b), [count] "m"(count)
		     : "xmm0", "xmm15", "memory", "cc");
	TICK_STOP();
	CHECK(ra == 1.25 && rb == 2.5);
}

TEST(x87_survives_signals)
{
	double r;

	on_signal(SIGALRM, on_clobber_fpu);
	TICK_START();
	asm volatile("fldl2e\n\t"
		     "fld1\n"
		     "1: cmpl $3, %[count]\n\t"
		     "jl 1b\n\t"
		     "faddp\n\t"
		     "fstpl %[r]"
		     : [r] "=m"(r) : [count] "m"(count) : "memory", "cc",
		       "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");
	TICK_STOP();
	CHECK(r > 2.4426 && r < 2.4427);
}

TEST(rounding_modes_survive_and_handlers_get_them)
{
	unsigned int mxcsr = 0x1f80 | 0x6000, back;
	unsigned short cw = 0x0c7f, cwback;

	on_signal(SIGUSR1, on_clobber_fpu);
	asm volatile("ldmxcsr %0" :: "m"(mxcsr));
	asm volatile("fldcw %0" :: "m"(cw));
	CHECK_OK(raise(SIGUSR1));
	asm volatile("stmxcsr %0" : "=m"(back));
	asm volatile("fnstcw %0" : "=m"(cwback));
	CHECK_EQ(back & 0xe000, 0x6000);
	CHECK_EQ(cwback, 0x0c7f);
}

static void on_clobber_avx(int sig UNUSED)
{
	asm volatile("vxorps %%ymm3, %%ymm3, %%ymm3\n\tvzeroupper" ::: "xmm3");
	count++;
}

TEST(avx_survives_signals)
{
	float in[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, out[8];

	if (!__builtin_cpu_supports("avx"))
		SKIP("no AVX");
	on_signal(SIGALRM, on_clobber_avx);
	TICK_START();
	asm volatile("vmovups %[in], %%ymm3\n"
		     "1: cmpl $3, %[count]\n\t"
		     "jl 1b\n\t"
		     "vmovups %%ymm3, %[out]\n\t"
		     "vzeroupper"
		     : [out] "=m"(out) : [in] "m"(in), [count] "m"(count)
		     : "xmm3", "memory", "cc");
	TICK_STOP();
	CHECK(!memcmp(in, out, sizeof(in)));
}

TEST(avx_survives_fork)
{
	float in[8] = { 8, 7, 6, 5, 4, 3, 2, 1 }, out[8];
	long pid;

	if (!__builtin_cpu_supports("avx"))
		SKIP("no AVX");
	asm volatile("vmovups %[in], %%ymm3\n\t"
		     "syscall\n\t"
		     "vmovups %%ymm3, %[out]\n\t"
		     "vzeroupper"
		     : "=a"(pid), [out] "=m"(out) : "a"(SYS_fork), [in] "m"(in)
		     : "rcx", "r11", "xmm3", "memory");
	if (!pid)
		_exit(memcmp(in, out, sizeof(in)) ? 1 : 0);
	CHECK(pid > 0);
	JOIN((pid_t)pid);
	CHECK(!memcmp(in, out, sizeof(in)));
}

__attribute__((target("avx512f"))) static void on_clobber_avx512(int sig UNUSED)
{
	asm volatile("vpxorq %%zmm20, %%zmm20, %%zmm20\n\tkxorw %%k1, %%k1, %%k1" ::: "memory");
	count++;
}

TEST(avx512_survives_signals)
{
	uint64_t in[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, out[8];
	uint32_t k;

	if (!__builtin_cpu_supports("avx512f"))
		SKIP("no AVX-512");
	on_signal(SIGALRM, on_clobber_avx512);
	TICK_START();
	asm volatile("vmovdqu64 %[in], %%zmm20\n\t"
		     "mov $0x5a5a, %%eax\n\t"
		     "kmovw %%eax, %%k1\n"
		     "1: cmpl $3, %[count]\n\t"
		     "jl 1b\n\t"
		     "kmovw %%k1, %[k]\n\t"
		     "vmovdqu64 %%zmm20, %[out]"
		     : [out] "=m"(out), [k] "=&r"(k) : [in] "m"(in), [count] "m"(count)
		     : "rax", "memory", "cc");
	TICK_STOP();
	CHECK(!memcmp(in, out, sizeof(in)));
	CHECK_EQ(k, 0x5a5a);
}

static void on_set_xmm(int sig UNUSED, siginfo_t *info UNUSED, void *ctx)
{
	ucontext_t *uc = ctx;

	uc->uc_mcontext.fpregs->_xmm[2].element[0] = 0x40200000;	/* 2.5f */
	uc->uc_mcontext.gregs[REG_RIP] += 2;
}

TEST(handler_may_change_sse)
{
	float f = 1.0f;

	on_siginfo(SIGILL, on_set_xmm, 0);
	asm volatile("movss %0, %%xmm2\n\tud2\n\tmovss %%xmm2, %0" : "+m"(f) :: "xmm2");
	CHECK(f == 2.5f);
}

TEST(fpu_survives_fork)
{
	double a = 3.75, r;
	long pid;

	asm volatile("movsd %[a], %%xmm7\n\t"
		     "syscall\n\t"
		     "movsd %%xmm7, %[r]"
		     : "=a"(pid), [r] "=m"(r) : "a"(SYS_fork), [a] "m"(a)
		     : "rcx", "r11", "xmm7", "memory");
	if (!pid)
		_exit(r == 3.75 ? 0 : 1);
	CHECK(pid > 0);
	JOIN((pid_t)pid);
	CHECK(r == 3.75);
}

HELPER(fresh_fpu)
{
	unsigned int mxcsr;
	unsigned short cw;

	asm volatile("stmxcsr %0" : "=m"(mxcsr));
	asm volatile("fnstcw %0" : "=m"(cw));
	return (mxcsr & ~0x3fU) == 0x1f80 && cw == 0x37f ? 0 : 1;
}

TEST(exec_resets_the_fpu)
{
	unsigned int mxcsr = 0x1f80 | 0x6000;
	pid_t pid = FORK();

	if (!pid) {
		asm volatile("ldmxcsr %0" :: "m"(mxcsr));
		execl(conform_self, conform_self, "--helper", "fresh_fpu", NULL);
		_exit(9);
	}
	JOIN(pid);
}

static void *fpu_worker(void *arg)
{
	double x = *(int *)arg, y = x;

	for (int i = 0; i < 200000; i++) {
		y = y * 1.0000001 + x;
		asm volatile("" : "+x"(y));
		y = (y - x) / 1.0000001;
	}
	return y > x - 0.01 && y < x + 0.01 ? NULL : (void *)1;
}

TEST(fpu_is_per_thread)
{
	int args[4] = { 1, 20, 300, 4000 };
	pthread_t t[4];
	void *r;

	on_signal_flags(SIGALRM, on_clobber_fpu, SA_RESTART);
	TICK_START();
	for (int i = 0; i < 4; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, fpu_worker, &args[i]));
	for (int i = 0; i < 4; i++) {
		CHECK_ZERO(pthread_join(t[i], &r));
		CHECK(r == NULL);
	}
	TICK_STOP();
}

TEST(restarted_syscall_has_its_number)
{
	int fd[2];
	pid_t pid;
	long r;
	char c = 0;

	/* The interrupted read is restarted with all six argument registers intact. */
	CHECK_OK(pipe(fd));
	on_signal_flags(SIGALRM, on_count, SA_RESTART);
	pid = FORK();
	if (!pid) {
		msleep(100);
		_exit(write(fd[1], "R", 1) == 1 ? 0 : 1);
	}
	TICK_START();
	asm volatile("syscall" : "=a"(r) : "a"(SYS_read), "D"(fd[0]), "S"(&c), "d"(1)
		     : "rcx", "r11", "memory");
	TICK_STOP();
	CHECK_EQ(r, 1);
	CHECK_EQ(c, 'R');
	JOIN(pid);
}

TEST(sigreturn_with_garbage_is_segv)
{
	pid_t pid = FORK();

	if (!pid) {
		asm volatile("mov $64, %%rsp\n\tmov %0, %%eax\n\tsyscall\n\tud2"
			     :: "i"(SYS_rt_sigreturn) : "rax", "rcx", "r11", "memory");
	}
	CHECK_SIGNALED(pid, SIGSEGV);
}

static void on_bad_rip(int sig UNUSED, siginfo_t *info UNUSED, void *ctx)
{
	((ucontext_t *)ctx)->uc_mcontext.gregs[REG_RIP] = 0x123;
}

TEST(bad_return_address_is_segv_there)
{
	static volatile char *fault_at;

	on_siginfo(SIGUSR1, on_bad_rip, 0);
	CHECK(FAULTED(SIGSEGV, raise(SIGUSR1)));
	fault_at = (volatile char *)fault_info.si_addr;
	CHECK_EQ((uintptr_t)fault_at, 0x123);
}

static void on_smuggle(int sig UNUSED, siginfo_t *info UNUSED, void *ctx)
{
	greg_t *r = ((ucontext_t *)ctx)->uc_mcontext.gregs;

	r[REG_RIP] += 2;
	r[REG_EFL] = (r[REG_EFL] | 0x3000) & ~0x200L;	/* I/O privilege 3, interrupts off */
}

TEST(kernel_flags_cannot_be_smuggled)
{
	pid_t pid = FORK();

	/* Privileged flag bits in a returned frame are ignored, not obeyed. */
	if (!pid) {
		unsigned long f;

		on_siginfo(SIGILL, on_smuggle, 0);
		asm volatile("ud2");
		asm volatile("pushfq\n\tpopq %0" : "=r"(f));
		_exit((f & 0x3000) == 0 && (f & 0x200) ? 0 : 1);
	}
	JOIN(pid);
}
