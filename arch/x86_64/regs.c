/* SPDX-License-Identifier: Apache-2.0 */
/* Registers at execve, and what Linux's exception handlers make of a fault in user code. */
#include "arch/x86_64/arch.h"

#include <string.h>

void arch_regs_init(struct arch_regs *regs, uaddr_t entry, uaddr_t sp)
{
	memset(regs, 0, sizeof(*regs));
	regs->rip = entry;
	regs->rsp = sp;
	regs->cs = ARCH_USER_CS;
	regs->ss = ARCH_USER_SS;
	regs->eflags = ARCH_EFLAGS_FIXED;
	regs->orig_rax = (uint64_t)-1;
}

/*
 * By vector. Code 0 stands for SI_KERNEL without an address, as Linux's force_sig sends it; the
 * x87 and SIMD codes are a guess that arch_fpu_exception_code makes exact.
 */
static const struct exception_signal {
	uint8_t signo;
	uint8_t code;
	bool addr; /* si_addr is rip */
} exception_signals[ARCH_NR_EXC] = {
	[ARCH_EXC_DE] = {SIGFPE, FPE_INTDIV, true},
	[ARCH_EXC_DB] = {SIGTRAP, TRAP_TRACE, true},
	[ARCH_EXC_BP] = {SIGTRAP, 0, false},
	[ARCH_EXC_OF] = {SIGSEGV, 0, false},
	[ARCH_EXC_BR] = {SIGSEGV, 0, false},
	[ARCH_EXC_UD] = {SIGILL, ILL_ILLOPN, true},
	[ARCH_EXC_NM] = {SIGILL, ILL_COPROC, true},
	[ARCH_EXC_DF] = {SIGSEGV, 0, false},
	[ARCH_EXC_TS] = {SIGSEGV, 0, false},
	[ARCH_EXC_NP] = {SIGBUS, 0, false},
	[ARCH_EXC_SS] = {SIGBUS, 0, false},
	[ARCH_EXC_GP] = {SIGSEGV, 0, false},
	[ARCH_EXC_PF] = {SIGSEGV, SEGV_MAPERR, false},
	[ARCH_EXC_MF] = {SIGFPE, FPE_FLTINV, true},
	[ARCH_EXC_AC] = {SIGBUS, BUS_ADRALN, false},
	[ARCH_EXC_XM] = {SIGFPE, FPE_FLTINV, true},
};

void arch_exception_signal(unsigned int vector, const struct arch_regs *regs, siginfo_t *info)
{
	static const struct exception_signal other = {SIGSEGV, 0, false};
	const struct exception_signal *e = &other;

	if (vector < ARCH_NR_EXC && exception_signals[vector].signo)
		e = &exception_signals[vector];
	memset(info, 0, sizeof(*info));
	info->si_signo = e->signo;
	info->si_code = e->code ? e->code : SI_KERNEL;
	if (e->addr)
		info->si_addr = (void *)regs->rip;
}
