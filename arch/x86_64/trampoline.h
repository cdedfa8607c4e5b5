/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ring 0 of the guest and the host share: the addresses of the kernel half, the pages of a
 * vCPU, the doorbell's ports. Included by C and assembly; the C side asserts the offsets against
 * its structures.
 *
 * Kernel half, the last root entry of every address space, the same everywhere:
 *
 *   TRAMP_DIRECT_BASE  every RAM frame by its gpa, 2 MiB pages, so that ring 0 can store page-table
 *			entries by address
 *   TRAMP_VCPU_BASE    TRAMP_VCPU_STRIDE bytes per vCPU, four pages:
 *			+0x0000 the trampoline, the one code page under another name: RIP-relative
 *				addresses reach the pages of the vCPU that executes it, without GS
 *			+0x1000 the trap frame (struct tramp_frame), also the mailbox
 *			+0x2000 private to ring 0 and the host (struct tramp_priv): IDT, TSS, stack,
 *				page-table work
 *			+0x3000 the GDT, one for all, read-only
 */
#ifndef ARCH_X86_64_TRAMPOLINE_H
#define ARCH_X86_64_TRAMPOLINE_H

#define TRAMP_ROOT_SLOT	  511
#define TRAMP_DIRECT_BASE 0xffffff8000000000
#define TRAMP_VCPU_BASE	  0xffffffff80000000
#define TRAMP_VCPU_STRIDE 0x4000
#define TRAMP_OFF_FRAME	  0x1000
#define TRAMP_OFF_PRIV	  0x2000
#define TRAMP_OFF_GDT	  0x3000
#define TRAMP_CODE_MAX	  2048

/* Selectors; the user ones are Linux's (ARCH_USER_CS, ARCH_USER_SS). */
#define TRAMP_KERNEL_CS 0x10
#define TRAMP_KERNEL_SS 0x18
#define TRAMP_TSS_SEL	0x40

/*
 * The doorbell: `out` to one of these ports. The port says what happened, so that ring 0 need not
 * store it. They avoid 0x7e and 0x80, which KVM treats specially.
 */
#define TRAMP_PORT_SYSCALL 0x10 /* from LSTAR; the stack is the user's */
#define TRAMP_PORT_DRAINED 0x11 /* page-table work done, to be continued by the host */
#define TRAMP_PORT_FETCH   0x12 /* #PF with error TRAMP_PF_FETCH; cr2 not read */
#define TRAMP_PORT_FAULT   0x13 /* other #PF; rax and cr2 are in the trap frame */
#define TRAMP_PORT_VECTOR  0x20 /* + exception vector; up to 0x3f */

#define TRAMP_NR_VECTORS 32
#define TRAMP_STUB_SIZE	 4 /* bytes of code per vector */

/* Present, user, instruction fetch: how SYSCALL at CPL 3 shows itself (kvm-notes' LSTAR rule). */
#define TRAMP_PF_FETCH 0x15

/* struct tramp_frame */
#define TRAMP_FRAME_CR2	 0x18
#define TRAMP_FRAME_RAX	 0x20
#define TRAMP_FRAME_REGS 0x40
#define TRAMP_REGS_RAX	 (TRAMP_FRAME_REGS + 80)
#define TRAMP_REGS_RCX	 (TRAMP_FRAME_REGS + 88)
#define TRAMP_REGS_RDX	 (TRAMP_FRAME_REGS + 96)
#define TRAMP_REGS_RSI	 (TRAMP_FRAME_REGS + 104)
#define TRAMP_REGS_RDI	 (TRAMP_FRAME_REGS + 112)
#define TRAMP_REGS_R9	 (TRAMP_FRAME_REGS + 64)

/* struct tramp_priv */
#define TRAMP_PRIV_TSS	   0x200
#define TRAMP_PRIV_DRAINED 0x280
#define TRAMP_PRIV_IRET	   0x3d8 /* five words: rip cs rflags rsp ss */
#define TRAMP_PRIV_STACK   0x400 /* top of the stack: the CPU pushes the words above */
#define TRAMP_PRIV_OPS	   0x400
#define TRAMP_OPS_MAX	   192
#define TRAMP_OP_SIZE	   16

#ifndef __ASSEMBLER__

#include <assert.h>

#include "arch/x86_64/arch.h"

/* Who owns the registers in a trap frame: the state word. */
enum tramp_state {
	TRAMP_STATE_GUEST, /* user code runs, or may run */
	TRAMP_STATE_CALL,  /* user code posted a call and waits for the answer (exitless) */
	TRAMP_STATE_HOST,  /* the host works on the trap */
	TRAMP_STATE_DONE,  /* the answer is there; the guest goes on by itself (exitless) */
};

/*
 * The trap frame. A doorbell leaves most registers where KVM shares them with the host anyway (the
 * kvm_run page), because every store in ring 0 is emulated on some hosts; an exitless call stores
 * them here. Nothing in this page may be trusted by ring 0 as an address: it is laid out so that it
 * can be made visible to user code.
 */
struct tramp_frame {
	uint32_t state; /* enum tramp_state; atomic */
	uint32_t trap;	/* TRAMP_PORT_* */
	uint64_t error;
	uint64_t seq; /* calls posted */
	uint64_t cr2;
	uint64_t rax; /* spilled by the #PF entry */
	uint64_t reserved[3];
	struct arch_regs regs;
};

struct tramp_tss {
	uint32_t reserved0;
	uint32_t rsp0[2], rsp1[2], rsp2[2]; /* 64-bit words at 4 mod 8 */
	uint32_t reserved1[2];
	uint32_t ist[7][2];
	uint32_t reserved2[2];
	uint16_t reserved3, iomap;
};

struct tramp_iret {
	uint64_t rip, cs, rflags, rsp, ss;
};

/* One piece of page-table work; see tramp_drain. */
struct tramp_op {
	uint64_t addr; /* kernel address of the entry, or of the table */
	uint64_t va;   /* entries: for invlpg */
};

struct tramp_priv {
	uint64_t idt[TRAMP_NR_VECTORS][2];
	struct tramp_tss tss;
	uint8_t pad0[TRAMP_PRIV_DRAINED - TRAMP_PRIV_TSS - sizeof(struct tramp_tss)];
	uint32_t drained; /* set by ring 0 when the work is done */
	uint8_t stack[TRAMP_PRIV_IRET - TRAMP_PRIV_DRAINED - 4 - 8];
	uint64_t error;
	struct tramp_iret iret;
	struct tramp_op ops[TRAMP_OPS_MAX];
};

static_assert(offsetof(struct tramp_frame, cr2) == TRAMP_FRAME_CR2, "frame");
static_assert(offsetof(struct tramp_frame, rax) == TRAMP_FRAME_RAX, "frame");
static_assert(offsetof(struct tramp_frame, regs) == TRAMP_FRAME_REGS, "frame");
static_assert(offsetof(struct tramp_frame, regs.rax) == TRAMP_REGS_RAX, "frame");
static_assert(offsetof(struct tramp_frame, regs.rcx) == TRAMP_REGS_RCX, "frame");
static_assert(offsetof(struct tramp_frame, regs.rdx) == TRAMP_REGS_RDX, "frame");
static_assert(offsetof(struct tramp_frame, regs.rsi) == TRAMP_REGS_RSI, "frame");
static_assert(offsetof(struct tramp_frame, regs.rdi) == TRAMP_REGS_RDI, "frame");
static_assert(offsetof(struct tramp_frame, regs.r9) == TRAMP_REGS_R9, "frame");
static_assert(sizeof(struct tramp_frame) <= PAGE_SIZE, "frame");
static_assert(sizeof(struct tramp_tss) == 0x68, "TSS");
static_assert(offsetof(struct tramp_priv, tss) == TRAMP_PRIV_TSS, "priv");
static_assert(offsetof(struct tramp_priv, drained) == TRAMP_PRIV_DRAINED, "priv");
static_assert(offsetof(struct tramp_priv, iret) == TRAMP_PRIV_IRET, "priv");
static_assert(offsetof(struct tramp_priv, error) == TRAMP_PRIV_IRET - 8, "priv");
static_assert(TRAMP_PRIV_IRET + sizeof(struct tramp_iret) == TRAMP_PRIV_STACK, "priv");
static_assert(TRAMP_PRIV_STACK % 16 == 0, "the CPU aligns the stack before it pushes");
static_assert(offsetof(struct tramp_priv, ops) == TRAMP_PRIV_OPS, "priv");
static_assert(sizeof(struct tramp_op) == TRAMP_OP_SIZE, "op");
static_assert(sizeof(struct tramp_priv) <= PAGE_SIZE, "priv");

/* The code, TRAMP_CODE_MAX bytes from tramp_start; the labels are entry points in it. */
extern const uint8_t tramp_start[], tramp_end[];
extern const uint8_t tramp_syscall[], tramp_vectors[], tramp_fault[];
extern const uint8_t tramp_drain[], tramp_drain_out[], tramp_drain_iret[], tramp_iret[];

#endif
#endif
