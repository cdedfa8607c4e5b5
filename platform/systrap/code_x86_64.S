/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code page of systrap stubs, copied to STUB_CODE. All host calls of a stub are made here: the
 * filters (filter.c) let no others through.
 *
 * Leaders run systrap_leader. They keep nothing in memory that user code could write, and read none
 * of it: registers and the read-only request page are all they have.
 *	rbx  the last request done	r15  the request page
 *
 * User threads begin in systrap_user and are from then on either in user code or in
 * systrap_handler, on their own alternate stack, all signals blocked. Nothing there can be relied
 * on: user code may jump in anywhere, with any registers.
 *	rbx  the area
 */
#include "arch/x86_64/layout.h"
#include "platform/systrap/layout.h"

#define SYS_mmap	  9
#define SYS_munmap	  11
#define SYS_rt_sigprocmask 14
#define SYS_rt_sigreturn  15
#define SYS_pwrite64	  18
#define SYS_lseek	  8
#define SYS_pause	  34
#define SYS_getpid	  39
#define SYS_clone	  56
#define SYS_getppid	  110
#define SYS_sigaltstack	  131
#define SYS_prctl	  157
#define SYS_arch_prctl	  158
#define SYS_futex	  202
#define SYS_exit_group	  231
#define SYS_seccomp	  317

#define FD_CTL 1 /* STUB_FD_CTL */
#define REQUEST (STUB_BASE + 4096)
#define SCRATCH (STUB_BASE + 2 * 4096)

	.section .rodata.systrap, "a"
	.balign	64
	.globl	systrap_code, systrap_code_end, systrap_master, systrap_handler
systrap_code:

/* ---- leaders ---- */

	/* The master gives up the sentry's memory, and is a leader. */
systrap_master:
	mov	$SYS_munmap, %eax
	xor	%edi, %edi
	movabs	$STUB_BASE, %rsi
	syscall
	test	%rax, %rax
	jnz	systrap_die
	mov	$SYS_munmap, %eax
	movabs	$(SCRATCH + 4096), %rdi
	mov	$(STUB_BASE + STUB_SIZE - SCRATCH - 4096), %esi
	syscall
	test	%rax, %rax
	jnz	systrap_die

systrap_leader:
	mov	REQ_SEQ(%r15), %eax
	cmp	%ebx, %eax
	jne	1f
	lea	REQ_SEQ(%r15), %rdi
	xor	%esi, %esi		/* FUTEX_WAIT */
	mov	%ebx, %edx
	xor	%r10d, %r10d
	mov	$SYS_futex, %eax
	syscall
	jmp	systrap_leader
1:	mov	%eax, %ebx
	lea	REQ_CALLS(%r15), %r12
	mov	REQ_N(%r15), %r13d
	shl	$6, %r13
	add	%r12, %r13
	lea	REQ_ACK(%r15), %r14
2:	cmp	%r13, %r12
	je	3f
	mov	0(%r12), %rax
	mov	8(%r12), %rdi
	mov	16(%r12), %rsi
	mov	24(%r12), %rdx
	mov	32(%r12), %r10
	mov	40(%r12), %r8
	mov	48(%r12), %r9
	add	$64, %r12
	syscall
	cmp	$-4095, %rax
	jb	2b
	add	$4, %r14
	cmp	$-12, %rax		/* ENOMEM */
	je	4f
	add	$4, %r14
	jmp	4f
3:	cmpl	$REQ_OP_NONE, REQ_OP(%r15)
	jne	5f
4:	mov	$SYS_pwrite64, %eax
	mov	$FD_CTL, %edi
	mov	%r14, %rsi
	mov	$4, %edx
	mov	REQ_DONE_OFF(%r15), %r10
	syscall
	lea	REQ_DONE(%r15), %rdi
	mov	$1, %esi		/* FUTEX_WAKE */
	mov	$0x7fffffff, %edx
	mov	$SYS_futex, %eax
	syscall
	jmp	systrap_leader

	/*
	 * clone: a thread's id, or the error, is left as the file's position. A process's goes to
	 * the scratch page (CLONE_PARENT_SETTID).
	 */
5:	mov	$SYS_clone, %eax
	mov	REQ_FLAGS(%r15), %rdi
	mov	REQ_STACK(%r15), %rsi
	movabs	$(SCRATCH + SCRATCH_CHILD), %rdx
	xor	%r10d, %r10d
	xor	%r8d, %r8d
	mov	REQ_CHILD(%r15), %rbp
	syscall
	test	%rax, %rax
	jz	6f
	js	7f
	test	%rbp, %rbp
	jnz	4b
7:	lea	4096(%rax), %rsi
	mov	$SYS_lseek, %eax
	mov	$FD_CTL, %edi
	xor	%edx, %edx		/* SEEK_SET */
	syscall
	jmp	4b

6:	test	%rbp, %rbp
	jz	systrap_user
	/* A new leader. */
	mov	$SYS_prctl, %eax
	mov	$1, %edi		/* PR_SET_PDEATHSIG */
	mov	$9, %esi
	syscall
	mov	$SYS_getppid, %eax
	syscall
	cmp	REQ_PPID(%r15), %eax
	jne	systrap_die
	mov	$SYS_mmap, %eax
	mov	%r15, %rdi
	mov	$4096, %esi
	mov	$1, %edx		/* PROT_READ */
	mov	$0x11, %r10d		/* MAP_SHARED | MAP_FIXED */
	mov	$FD_CTL, %r8d
	mov	%rbp, %r9
	syscall
	cmp	%r15, %rax
	jne	systrap_die
	xor	%ebx, %ebx
	jmp	systrap_leader

systrap_die:
	mov	$SYS_exit_group, %eax
	mov	$1, %edi
	syscall
	jmp	systrap_die

/* ---- user threads ---- */

/* rsp: the area. The filter comes before any signal can. */
systrap_user:
	lea	CTL_STACK(%rsp), %rdi
	xor	%esi, %esi
	mov	$SYS_sigaltstack, %eax
	syscall
	cmpl	$0, CTL_NOTIFY(%rsp)
	je	2f
	mov	$SYS_seccomp, %eax
	mov	$1, %edi		/* SECCOMP_SET_MODE_FILTER */
	mov	$12, %esi		/* ..._FLAG_SPEC_ALLOW | NEW_LISTENER */
	lea	systrap_code + CODE_PROG_NOTIFY(%rip), %rdx
	syscall
	mov	%eax, CTL_LISTENER(%rsp)
	test	%eax, %eax
	jns	3f
	/* Somebody around us listens already, or has no descriptors left. */
	movl	$0, CTL_NOTIFY(%rsp)
2:	mov	$SYS_seccomp, %eax
	mov	$1, %edi
	mov	$4, %esi		/* SECCOMP_FILTER_FLAG_SPEC_ALLOW */
	lea	systrap_code + CODE_PROG(%rip), %rdx
	syscall
	test	%rax, %rax
	jnz	systrap_die
3:	mov	$SYS_rt_sigprocmask, %eax
	mov	$2, %edi		/* SIG_SETMASK */
	lea	systrap_code + CODE_MASK(%rip), %rsi
	xor	%edx, %edx
	mov	$8, %r10d
	syscall
	/* Into the handler, by a call that is not allowed here. */
1:	mov	$SYS_getpid, %eax
	syscall
	jmp	1b

/* rsp: the signal frame, edi: the signal. */
systrap_handler:
	mov	%rsp, %rbx
	and	$-AREA_SIZE, %rbx
	mov	%edi, CTL_SIG(%rbx)
	mov	%rsp, CTL_FRAME(%rbx)
	testl	$1, systrap_code + CODE_FSGSBASE(%rip)
	jz	1f
	rdfsbase %rax
	mov	%rax, CTL_FS(%rbx)
	rdgsbase %rax
	mov	%rax, CTL_GS(%rbx)
1:	xor	%eax, %eax		/* STATE_STOPPED */
	xchg	%eax, CTL_STATE(%rbx)
	cmpl	$0, CTL_WAITED(%rbx)
	je	2f
	lea	CTL_STATE(%rbx), %rdi
	mov	$1, %esi		/* FUTEX_WAKE */
	mov	$1, %edx
	mov	$SYS_futex, %eax
	syscall
	/* A notification: the sentry answers it when it has said run. Without a listener, ENOSYS. */
2:	mov	$SYS_pause, %eax
	syscall
	test	%eax, %eax
	jnz	3f
	cmpl	$STATE_RUN, CTL_STATE(%rbx)
	jne	2b
	jmp	5f
3:	mov	CTL_SPIN(%rbx), %ecx
3:	cmpl	$STATE_RUN, CTL_STATE(%rbx)
	je	5f
	sub	$1, %ecx
	jb	4f
	pause
	jmp	3b
4:	mov	$1, %eax
	xchg	%eax, CTL_ASLEEP(%rbx)
	lea	CTL_STATE(%rbx), %rdi
	xor	%esi, %esi		/* FUTEX_WAIT */
	xor	%edx, %edx		/* STATE_STOPPED */
	xor	%r10d, %r10d
	cmpl	$STATE_RUN, CTL_STATE(%rbx)
	je	5f
	mov	$SYS_futex, %eax
	syscall
	cmpl	$STATE_RUN, CTL_STATE(%rbx)
	jne	4b
5:	movl	$0, CTL_ASLEEP(%rbx)
	cmpl	$0, CTL_BASES(%rbx)
	je	7f
	movl	$0, CTL_BASES(%rbx)
	mov	CTL_FS(%rbx), %rsi
	testl	$1, systrap_code + CODE_FSGSBASE(%rip)
	jz	6f
	wrfsbase %rsi
	mov	CTL_GS(%rbx), %rsi
	wrgsbase %rsi
	jmp	7f
6:	mov	$SYS_arch_prctl, %eax
	mov	$0x1002, %edi		/* ARCH_SET_FS */
	syscall
	mov	CTL_GS(%rbx), %rsi
	mov	$SYS_arch_prctl, %eax
	mov	$0x1001, %edi		/* ARCH_SET_GS */
	syscall
7:	add	$8, %rsp
	mov	$SYS_rt_sigreturn, %eax
	syscall
	ud2
systrap_code_end:
	.org	systrap_code + CODE_DATA, 0xcc

	.section .note.GNU-stack, "", @progbits
