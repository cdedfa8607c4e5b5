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
	.globl	callstub_returned
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
callstub_end:
	/* An error here: it does not fit. */
	.org	callstub_start + CALLSTUB_CHUNK, 0xcc

	.section .note.GNU-stack, "", @progbits
