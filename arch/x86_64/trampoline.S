/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ring 0 of the guest: all of it.
 *
 * On a KVM that shadows page tables each instruction here is emulated by the host at half a
 * microsecond, so there are as few as will do. General registers are not saved: KVM shares them with
 * the host at each exit. The host says where to go on by setting RIP and RSP:
 *   tramp_iret	  back to user code; RSP points at the five words in tramp_priv
 *   tramp_drain  page-table work first
 *
 * Position-independent, and it must be: the page is mapped once per vCPU, and `PRIV` and `FRAME` mean
 * the pages that follow the alias being executed.
 */
#include "arch/x86_64/trampoline.h"

#define FRAME(off) tramp_start + TRAMP_OFF_FRAME + (off)(%rip)
#define PRIV(off)  tramp_start + TRAMP_OFF_PRIV + (off)(%rip)

	.section .rodata.trampoline, "a"
	.balign	4096
	.globl	tramp_start, tramp_end, tramp_syscall, tramp_vectors, tramp_fault
	.globl	tramp_drain, tramp_drain_out, tramp_drain_iret, tramp_iret
tramp_start:

/*
 * LSTAR. In ring 0 with everything but RIP, CS, SS and RFLAGS the user's; RCX and R11 hold those.
 * Where SYSCALL leaves the CPU in user mode this page can't be executed and tramp_fault runs instead.
 */
tramp_syscall:
	out	%al, $TRAMP_PORT_SYSCALL
	ud2

/* Exceptions but #PF. The CPU has pushed the iret words, and for some an error code below. */
	.balign	TRAMP_STUB_SIZE
tramp_vectors:
	.set	vector, 0
	.rept	TRAMP_NR_VECTORS
	out	%al, $(TRAMP_PORT_VECTOR + vector)
	ud2
	.set	vector, vector + 1
	.endr

tramp_fault:
	cmpl	$TRAMP_PF_FETCH, (%rsp)
	jne	1f
	out	%al, $TRAMP_PORT_FETCH
1:	mov	%rax, FRAME(TRAMP_FRAME_RAX)
	mov	%cr2, %rax
	mov	%rax, FRAME(TRAMP_FRAME_CR2)
	out	%al, $TRAMP_PORT_FAULT
	ud2

/*
 * Page-table work. The host has stored the new entries already; what counts here is that ring 0
 * stores, because that is what a shadowing KVM watches. OR with 0 stores what is there now, whatever
 * else changed it meanwhile, so that the work may be done late, twice or by several vCPUs.
 *   rdi  struct tramp_op[]: first the entries, then the tables
 *   rcx  number of entries: an aligned 8-byte store each, and invlpg
 *   rdx  number of tables: a 2-byte store each, which makes a shadowing KVM forget the table
 *   rsi  new CR3, or 0
 *   r9   where to go on: tramp_drain_out or tramp_drain_iret of this alias
 */
tramp_drain:
	jrcxz	2f
1:	mov	(%rdi), %rax
	lock orq $0, (%rax)
	mov	8(%rdi), %rax
	invlpg	(%rax)
	add	$TRAMP_OP_SIZE, %rdi
	loop	1b
2:	mov	%rdx, %rcx
	jrcxz	4f
3:	mov	(%rdi), %rax
	lock orw $0, (%rax)
	add	$TRAMP_OP_SIZE, %rdi
	loop	3b
4:	mov	%rsi, %rcx
	jrcxz	5f
	mov	%rsi, %cr3
5:	movl	$1, PRIV(TRAMP_PRIV_DRAINED)
	jmp	*%r9

tramp_drain_out:
	out	%al, $TRAMP_PORT_DRAINED
	ud2

tramp_drain_iret:
	mov	FRAME(TRAMP_REGS_RAX), %rax
	mov	FRAME(TRAMP_REGS_RCX), %rcx
	mov	FRAME(TRAMP_REGS_RDX), %rdx
	mov	FRAME(TRAMP_REGS_RSI), %rsi
	mov	FRAME(TRAMP_REGS_RDI), %rdi
	mov	FRAME(TRAMP_REGS_R9), %r9
tramp_iret:
	iretq
	ud2
tramp_end:
	/* An error here: it does not fit. */
	.org	tramp_start + TRAMP_CODE_MAX, 0xcc
	.org	tramp_start + 4096, 0xcc

	.section .note.GNU-stack, "", @progbits
