/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the ptrace platform depends on the CPU: the code in the stub's one page, the registers
 * that make it do something, and how signals name exceptions. stub_x86_64.c defines it.
 */
#ifndef PLATFORM_PTRACE_STUB_ARCH_H
#define PLATFORM_PTRACE_STUB_ARCH_H

#include "platform/stub/stub.h"

#define STUB_MAX_CALLS (PAGE_SIZE / sizeof(struct stub_call))

/* Words of struct arch_regs that are written back on a resume: all before fs_base. */
#define STUB_REGS_CORE offsetof(struct arch_regs, fs_base)

/* The regset that holds the extended state. */
#define STUB_REGSET_FPU 0x202 /* NT_X86_XSTATE */

/* The code of the stub page. */
const void *stub_code(size_t *size);
/* Where the master's set-up jumps to when it is traced: a breakpoint. */
uaddr_t stub_entry(void);

/* Registers that make one host call and stop. */
void stub_regs_call(struct arch_regs *regs, const struct stub_call *call);
/* The same for clone: the child (thread or process) parks itself. */
void stub_regs_spawn(struct arch_regs *regs, uint64_t flags);
/* Registers that make the first @n calls of the request page and stop; at the first error at once.
 */
void stub_regs_batch(struct arch_regs *regs, size_t n);
/* Registers of a thread that sleeps in the stub page for good. */
void stub_regs_park(struct arch_regs *regs);
/* Is this the stop that ends one of the above? */
bool stub_regs_stopped(const struct arch_regs *regs);
/* Result of the last call made: value or -errno. */
long stub_regs_result(const struct arch_regs *regs);
/* How many calls of a batch were made, the failed one included. */
size_t stub_regs_batch_done(const struct arch_regs *regs);

/*
 * A system-call stop: false when it was not the ABI's system-call instruction (int $0x80 and the
 * like); then @regs are put back to that instruction.
 */
bool stub_syscall_is_native(struct arch_regs *regs);
/*
 * Fills @trap for a signal that is not a page fault. @tid is stopped and ours (x87 or SSE: its
 * state is looked at).
 */
void stub_exception_trap(pid_t tid, const siginfo_t *info, struct trap *trap);
/* True if @info, of a SIGSEGV or SIGBUS, is a page fault with an address. */
bool stub_signal_is_fault(const siginfo_t *info);
/* seccomp: the host calls that a stub may make, from the stub page only. Returns 0 or -errno. */
int stub_seccomp(void);

#endif
