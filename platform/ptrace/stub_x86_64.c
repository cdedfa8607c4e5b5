/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stub's code page and register conventions on x86-64.
 *
 * Everything in the page is position-independent, uses no stack and writes no memory: the page is
 * all that a stub has, and the application can read it. The application may also jump into it:
 * under PTRACE_SYSEMU its system-call instructions are the application's own calls and its
 * breakpoints the application's own SIGTRAPs, so nothing there needs hiding.
 */
#include "platform/ptrace/stub_arch.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <unistd.h>

#include "sentry/lib/err.h"

_Static_assert(sizeof(struct arch_regs) == sizeof(struct user_regs_struct), "NT_PRSTATUS layout");
_Static_assert(offsetof(struct arch_regs, orig_rax) == offsetof(struct user_regs_struct, orig_rax),
	       "NT_PRSTATUS layout");
_Static_assert(offsetof(struct arch_regs, fs_base) == offsetof(struct user_regs_struct, fs_base),
	       "NT_PRSTATUS layout");
_Static_assert(sizeof(struct stub_call) == 64, "the batch loop steps by 64");
_Static_assert(SYS_pause == 34, "the park loop");

/*
 * call:  one call, then stop.
 * spawn: one clone, then stop; the child falls into park.
 * park:  sleep for good. Signals are ignored (but for the tracer), so only the tracer ends it.
 * batch: r12 is the next struct stub_call, r13 the end.
 */
__asm__(".pushsection .rodata\n"
	"	.balign 16\n"
	"stub_code_begin:\n"
	"stub_code_call:\n"
	"	syscall\n"
	"stub_code_entry:\n"
	"	int3\n"
	"stub_code_spawn:\n"
	"	syscall\n"
	"	test %rax, %rax\n"
	"	jnz stub_code_entry\n"
	"stub_code_park:\n"
	"	mov $34, %eax\n"
	"	syscall\n"
	"	jmp stub_code_park\n"
	"stub_code_batch:\n"
	"	cmp %r13, %r12\n"
	"	je stub_code_entry\n"
	"	mov 0(%r12), %rax\n"
	"	mov 8(%r12), %rdi\n"
	"	mov 16(%r12), %rsi\n"
	"	mov 24(%r12), %rdx\n"
	"	mov 32(%r12), %r10\n"
	"	mov 40(%r12), %r8\n"
	"	mov 48(%r12), %r9\n"
	"	add $64, %r12\n"
	"	syscall\n"
	"	cmp $-4095, %rax\n"
	"	jb stub_code_batch\n"
	"	jmp stub_code_entry\n"
	"stub_code_end:\n"
	".popsection\n");

extern const char stub_code_begin[] __attribute__((visibility("hidden")));
extern const char stub_code_call[] __attribute__((visibility("hidden")));
extern const char stub_code_entry[] __attribute__((visibility("hidden")));
extern const char stub_code_spawn[] __attribute__((visibility("hidden")));
extern const char stub_code_park[] __attribute__((visibility("hidden")));
extern const char stub_code_batch[] __attribute__((visibility("hidden")));
extern const char stub_code_end[] __attribute__((visibility("hidden")));

static uaddr_t code_at(const char *label)
{
	return STUB_CODE + (uaddr_t)(label - stub_code_begin);
}

const void *stub_code(size_t *size)
{
	*size = (size_t)(stub_code_end - stub_code_begin);
	return stub_code_begin;
}

uaddr_t stub_entry(void)
{
	return code_at(stub_code_entry);
}

static void regs_at(struct arch_regs *regs, const char *label)
{
	memset(regs, 0, sizeof(*regs));
	regs->rip = code_at(label);
	regs->cs = ARCH_USER_CS;
	regs->ss = ARCH_USER_SS;
	regs->eflags = ARCH_EFLAGS_FIXED;
	regs->orig_rax = (uint64_t)-1;
}

void stub_regs_call(struct arch_regs *regs, const struct stub_call *call)
{
	regs_at(regs, stub_code_call);
	regs->rax = call->nr;
	regs->rdi = call->args[0];
	regs->rsi = call->args[1];
	regs->rdx = call->args[2];
	regs->r10 = call->args[3];
	regs->r8 = call->args[4];
	regs->r9 = call->args[5];
}

void stub_regs_spawn(struct arch_regs *regs, uint64_t flags)
{
	regs_at(regs, stub_code_spawn);
	regs->rax = SYS_clone;
	regs->rdi = flags;
}

void stub_regs_batch(struct arch_regs *regs, size_t n)
{
	regs_at(regs, stub_code_batch);
	regs->r12 = STUB_REQUEST;
	regs->r13 = STUB_REQUEST + n * sizeof(struct stub_call);
}

void stub_regs_park(struct arch_regs *regs)
{
	regs_at(regs, stub_code_park);
}

bool stub_regs_stopped(const struct arch_regs *regs)
{
	return regs->rip == code_at(stub_code_entry) + 1;
}

long stub_regs_result(const struct arch_regs *regs)
{
	return (long)regs->rax;
}

size_t stub_regs_batch_done(const struct arch_regs *regs)
{
	return (regs->r12 - STUB_REQUEST) / sizeof(struct stub_call);
}

/*
 * SYSCALL leaves the return address in rcx. An int $0x80 could imitate that, and would then be
 * taken for a 64-bit call: that fools nobody but the application itself.
 */
bool stub_syscall_is_native(struct arch_regs *regs)
{
	if (likely(regs->rcx == regs->rip))
		return true;
	regs->rip -= 2;
	regs->rax = regs->orig_rax;
	return false;
}

bool stub_signal_is_fault(const siginfo_t *info)
{
	if (info->si_signo == SIGSEGV)
		return info->si_code > 0 && info->si_code != SI_KERNEL;
	return info->si_signo == SIGBUS && info->si_code != BUS_ADRALN &&
	       info->si_code != SI_KERNEL;
}

/* #MF and #XM both are SIGFPE: an x87 exception is pending if its status says so. */
static unsigned int fpe_vector(pid_t tid, const siginfo_t *info)
{
	struct user_fpregs_struct fp;

	if (info->si_code == FPE_INTDIV)
		return ARCH_EXC_DE;
	if (!ptrace(PTRACE_GETFPREGS, tid, NULL, &fp) && (fp.swd & ~fp.cwd & 0x3f))
		return ARCH_EXC_MF;
	return ARCH_EXC_XM;
}

void stub_exception_trap(pid_t tid, const siginfo_t *info, struct trap *trap)
{
	trap->kind = TRAP_EXCEPTION;
	switch (info->si_signo) {
	case SIGILL:
		trap->vector = ARCH_EXC_UD;
		break;
	case SIGFPE:
		trap->vector = fpe_vector(tid, info);
		break;
	case SIGTRAP:
		trap->vector = info->si_code == SI_KERNEL ? ARCH_EXC_BP : ARCH_EXC_DB;
		break;
	case SIGBUS:
		trap->vector = info->si_code == BUS_ADRALN ? ARCH_EXC_AC : ARCH_EXC_SS;
		break;
	default:
		trap->vector = ARCH_EXC_GP;
		break;
	}
}

/*
 * Only the stub page may call, and only what is injected there. Under SYSEMU the application's
 * calls never get as far as the filter; it is for the day that something else goes wrong.
 */
int stub_seccomp(void)
{
	static const unsigned int calls[] = {SYS_mmap,	  SYS_munmap, SYS_clone,	  SYS_pause,
					     SYS_recvmsg, SYS_rseq,   SYS_restart_syscall};
	struct sock_filter filter[16 + ARRAY_SIZE(calls)];
	struct sock_fprog prog = {.filter = filter};
	size_t n = ARRAY_SIZE(calls), k = 0, i;
	unsigned int ip = offsetof(struct seccomp_data, instruction_pointer);

	/* Jump offsets count from the next instruction; the last two rows are deny and allow. */
	size_t deny = 8 + n;

#define LOAD(off)    (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (off))
#define JEQ(v, t, f) (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (v), (t), (f))
	filter[k++] = LOAD(offsetof(struct seccomp_data, arch));
	filter[k] = JEQ(AUDIT_ARCH_X86_64, 0, (uint8_t)(deny - k - 1));
	k++;
	filter[k++] = LOAD(ip + 4);
	filter[k] = JEQ((uint32_t)(STUB_BASE >> 32), 0, (uint8_t)(deny - k - 1));
	k++;
	filter[k++] = LOAD(ip);
	filter[k++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, (uint32_t)PAGE_MASK);
	filter[k] = JEQ((uint32_t)STUB_CODE, 0, (uint8_t)(deny - k - 1));
	k++;
	filter[k++] = LOAD(offsetof(struct seccomp_data, nr));
	for (i = 0; i < n; i++, k++)
		filter[k] = JEQ(calls[i], (uint8_t)(deny - k), 0);
	filter[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	filter[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
#undef LOAD
#undef JEQ
	prog.len = (unsigned short)k;
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &prog))
		return -errno;
	return 0;
}
