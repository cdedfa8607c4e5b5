/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The common part of rewritten call sites: see callstub.h. User code, position-independent, copied
 * to the start of every area of slots.
 *
 * On entry RCX is where to go on and EAX the number. RCX and R11 are free, as for SYSCALL. The flags
 * are the caller's: hence LEA to count, JRCXZ to test, XCHG to withdraw.
 */
#include "arch/x86_64/callstub.h"

	.section .rodata.callstub, "a"
	.balign	64
	.globl	callstub_start, callstub_end, callstub_enter, callstub_post, callstub_wait
	.globl	callstub_bell, callstub_bell0, callstub_refused, callstub_done, callstub_taken
	.globl	callstub_returned, callstub_sigaction, callstub_sigaction_saved
	.globl	callstub_sigaction_half, callstub_sigaction_back
callstub_start:
callstub_enter:
	mov	%rcx, %gs:CALLBOX_AFTER
	mov	%rax, %gs:CALLBOX_NR
	mov	%rdi, %gs:CALLBOX_ARGS
	mov	%rsi, %gs:CALLBOX_ARGS + 8
	mov	%rdx, %gs:CALLBOX_ARGS + 16
	mov	%r10, %gs:CALLBOX_ARGS + 24
	mov	%r8, %gs:CALLBOX_ARGS + 32
	mov	%r9, %gs:CALLBOX_ARGS + 40
	mov	%gs:CALLBOX_SPIN, %ecx
	jrcxz	callstub_bell0
	mov	%rcx, %r11
callstub_post:
	movl	$CALLBOX_CALL, %gs:CALLBOX_STATE
callstub_wait:
	mov	%gs:CALLBOX_STATE, %ecx
	jrcxz	callstub_done
	lea	-1(%r11), %rcx
	mov	%rcx, %r11
	jrcxz	1f
	jmp	callstub_wait
	/* The budget is used up. A call that is being carried out has one more. */
1:	mov	%gs:CALLBOX_STATE, %ecx
	lea	-CALLBOX_TAKEN(%rcx), %rcx
	jrcxz	callstub_taken
	/* Given up: the call is withdrawn, unless it was answered in this moment. */
callstub_give_up:
	mov	$CALLBOX_BELL, %ecx
	xchg	%ecx, %gs:CALLBOX_STATE
	jrcxz	callstub_done
callstub_bell:
	syscall
	jmp	callstub_returned

callstub_done:
	mov	%gs:CALLBOX_NR, %rax
	mov	%gs:CALLBOX_AFTER, %rcx
	jmp	*%rcx

	/* Nobody answers, or not this call. Not posted, or as if it weren't. */
callstub_refused:
	mov	%gs:CALLBOX_AFTER2, %rcx
	mov	%rcx, %gs:CALLBOX_AFTER
callstub_bell0:
	syscall
	/* Back with the result, unless the sentry has set RIP to AFTER itself. */
callstub_returned:
	mov	%gs:CALLBOX_AFTER, %rcx
	jmp	*%rcx

callstub_taken:
	mov	$CALLSTUB_PATIENCE, %r11d
1:	mov	%gs:CALLBOX_STATE, %ecx
	jrcxz	2f
	lea	-1(%r11), %rcx
	mov	%rcx, %r11
	jrcxz	3f
	jmp	1b
2:	jmp	callstub_done
3:	jmp	callstub_give_up

	/*
	 * rt_sigaction(sig, NULL, old, 8): without the sentry if the action is all default. libc
	 * asks for all of them in every posix_spawn, Python when it starts. Done again from the
	 * start as a real call if it is interrupted, or OLD can't be written.
	 */
callstub_sigaction:
	mov	%rcx, %gs:CALLBOX_AFTER
	seto	%al
	lahf
callstub_sigaction_saved:
	test	%rsi, %rsi
	jnz	2f
	cmp	$8, %r10
	jne	2f
	lea	-1(%rdi), %ecx
	cmp	$63, %ecx
	ja	2f
	mov	%gs:CALLINFO + CALLINFO_DEFAULT, %r11
	bt	%rcx, %r11
	jnc	2f
	test	%rdx, %rdx
	jz	1f
	xor	%ecx, %ecx
	mov	%rcx, (%rdx)
	mov	%rcx, 8(%rdx)
	mov	%rcx, 16(%rdx)
	mov	%rcx, 24(%rdx)
1:	mov	%gs:CALLBOX_COUNT, %rcx
	lea	1(%rcx), %rcx
	mov	%rcx, %gs:CALLBOX_COUNT
	mov	%gs:CALLBOX_AFTER, %r11
	xor	%ecx, %ecx
	jmp	3f
2:	lea	callstub_enter(%rip), %r11
	mov	$CALLSTUB_SIGACTION, %ecx
	/* On to R11, with RCX in RAX. */
3:	add	$0x7f, %al		/* the overflow flag */
callstub_sigaction_half:
	sahf
callstub_sigaction_back:
	mov	%rcx, %rax
	mov	%gs:CALLBOX_AFTER, %rcx
	jmp	*%r11
callstub_end:
	/* An error here: it does not fit. */
	.org	callstub_start + CALLSTUB_COMMON, 0xcc

	.section .note.GNU-stack, "", @progbits
