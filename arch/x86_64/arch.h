/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU and its ABI, as the rest of the house sees it. arch/x86_64 is chosen by the include path
 * ("arch.h"); a second CPU defines the same names. Sources: Intel SDM vol. 3, the System V psABI,
 * Linux arch/x86.
 */
#ifndef ARCH_X86_64_ARCH_H
#define ARCH_X86_64_ARCH_H

#include <signal.h>

#include "arch/x86_64/layout.h"
#include "sentry/lib/types.h"
#include "sentry/lib/usermem.h"

#define ARCH_ELF_MACHINE 62 /* EM_X86_64 */
#define ARCH_UTS_MACHINE "x86_64"
#define ARCH_PLATFORM	 "x86_64" /* AT_PLATFORM */

/* User registers, in the order and with the meaning of Linux's struct user_regs_struct. */
struct arch_regs {
	uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8;
	uint64_t rax, rcx, rdx, rsi, rdi, orig_rax;
	uint64_t rip, cs, eflags, rsp, ss;
	/*
	 * Valid only where a platform call says so (context get_bases/set_bases): user code changes
	 * them with wrfsbase, unseen.
	 */
	uint64_t fs_base, gs_base;
	uint64_t ds, es, fs, gs;
};

#define ARCH_USER_CS 0x33
#define ARCH_USER_SS 0x2b
/* Flags an application may set: CF PF AF ZF SF TF DF OF NT RF AC ID; IF is always on. */
#define ARCH_EFLAGS_USER  0x00254dd5UL
#define ARCH_EFLAGS_FIXED 0x202UL

/* Extended state (XSAVE standard format). Its size is the machine's, asked for once. */
size_t arch_fpu_size(void);
/* The initial state: as after execve. */
void arch_fpu_init(void *fpu);
/* Makes hostile bytes loadable: reserved MXCSR bits and unsupported components cleared. */
void arch_fpu_sanitize(void *fpu);
/* si_code (FPE_*) of an x87 (MF) or SIMD (XM) exception with that state; 0: spurious. */
int arch_fpu_exception_code(unsigned int vector, const void *fpu);
/* The XCR0 value applications run with (a subset of the host's). */
uint64_t arch_xcr0(void);

/* Registers as after execve: everything zero but these. */
void arch_regs_init(struct arch_regs *regs, uaddr_t entry, uaddr_t sp);

static inline long arch_syscall_nr(const struct arch_regs *regs)
{
	return (long)regs->orig_rax;
}

static inline uint64_t arch_syscall_arg(const struct arch_regs *regs, unsigned int i)
{
	switch (i) {
	case 0:
		return regs->rdi;
	case 1:
		return regs->rsi;
	case 2:
		return regs->rdx;
	case 3:
		return regs->r10;
	case 4:
		return regs->r8;
	default:
		return regs->r9;
	}
}

static inline void arch_set_return(struct arch_regs *regs, long value)
{
	regs->rax = (uint64_t)value;
}

/* Goes back to the syscall instruction, with call number @nr (the same, or restart_syscall). */
static inline void arch_restart_syscall(struct arch_regs *regs, long nr)
{
	regs->rax = (uint64_t)nr;
	regs->rip -= 2;
}

/* What a fault wanted to do. */
enum {
	ACCESS_READ = 1,
	ACCESS_WRITE = 2,
	ACCESS_EXEC = 4,
};

/* Exceptions, by their vector. */
enum {
	ARCH_EXC_DE = 0,
	ARCH_EXC_DB = 1,
	ARCH_EXC_BP = 3,
	ARCH_EXC_OF = 4,
	ARCH_EXC_BR = 5,
	ARCH_EXC_UD = 6,
	ARCH_EXC_NM = 7,
	ARCH_EXC_DF = 8,
	ARCH_EXC_TS = 10,
	ARCH_EXC_NP = 11,
	ARCH_EXC_SS = 12,
	ARCH_EXC_GP = 13,
	ARCH_EXC_PF = 14,
	ARCH_EXC_MF = 16,
	ARCH_EXC_AC = 17,
	ARCH_EXC_XM = 19,
	ARCH_NR_EXC = 32,
};

/* The signal, si_code and si_addr (rip or 0) that Linux sends for exception @vector. */
void arch_exception_signal(unsigned int vector, const struct arch_regs *regs, siginfo_t *info);

/*
 * Signal frames, in Linux's layout (struct rt_sigframe with XSAVE state).
 */
struct arch_sigframe {
	uaddr_t handler, restorer;
	uint64_t flags; /* sa_flags */
	uint64_t mask;	/* blocked signals to restore on return */
	const siginfo_t *info;
	uaddr_t altstack_sp; /* as given to sigaltstack, for uc_stack */
	uint64_t altstack_size;
	int altstack_flags;
	bool switch_stack; /* start on the alternate stack */
	/* For uc_mcontext of synchronous faults; 0 otherwise. */
	uint64_t trapno, err, cr2;
};

/*
 * Pushes a frame and points @regs at the handler; @fpu is the interrupted extended state, and is
 * reset to what a handler starts with. Returns 0 or -EFAULT (the stack can't take it), with @regs
 * untouched.
 */
int arch_sigframe_push(struct usermem *um, struct arch_regs *regs, void *fpu,
		       const struct arch_sigframe *frame) __must_check;
/*
 * Undoes it (rt_sigreturn): @regs, @fpu, @mask and the uc_stack fields are read from the frame at
 * regs->rsp. Returns 0 or -EFAULT. Selectors and flags are forced to sane values.
 */
int arch_sigframe_pop(struct usermem *um, struct arch_regs *regs, void *fpu, uint64_t *mask,
		      uaddr_t *altstack_sp, uint64_t *altstack_size,
		      int *altstack_flags) __must_check;

/* AT_HWCAP, AT_HWCAP2 and AT_MINSIGSTKSZ. */
uint64_t arch_hwcap(void);
uint64_t arch_hwcap2(void);
uint64_t arch_minsigstksz(void);

#endif
