/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that the stub's code and the sentry share. Included by C and assembly; the C side asserts
 * the offsets against its structures (internal.h).
 */
#ifndef PLATFORM_SYSTRAP_LAYOUT_H
#define PLATFORM_SYSTRAP_LAYOUT_H

/*
 * struct request: what a leader is to do. The stub can only read it; a leader answers by pwrite to
 * the file, which user code can't do.
 */
#define REQ_SEQ	     0x00 /* a new request when it changes; the leader's futex */
#define REQ_N	     0x04 /* calls */
#define REQ_OP	     0x08 /* then: REQ_OP_* */
#define REQ_PPID     0x0c /* of every stub process: the sentry */
#define REQ_FLAGS    0x10 /* of the clone */
#define REQ_STACK    0x18
#define REQ_CHILD    0x20 /* where the child's request page is in the file; 0: a thread */
#define REQ_ACK	     0x28 /* what to write as the answer: all well, ENOMEM, anything else */
#define REQ_DONE     0x34 /* the answer; the sentry's futex */
#define REQ_DONE_OFF 0x38 /* where that is in the file */
#define REQ_CALLS    0x80

/*
 * The end of the scratch page, which only the master has: the last process it made. The id of a
 * thread, and an error, is left as the file's position, which all leaders share; so a process may
 * make its first thread before anybody has asked what the process is.
 */
#define SCRATCH_CHILD 0xffc

#define REQ_OP_NONE  0
#define REQ_OP_CLONE 1

/*
 * struct area: a user thread's, in memory that user code can write. Its first bytes are the control
 * block, the rest is the stack that signals come in on.
 */
#define AREA_SIZE    8192
#define CTL_STATE    0x00 /* STATE_*; a futex for both sides */
#define CTL_ASLEEP   0x04 /* the stub sleeps, or is about to */
#define CTL_WAITED   0x08 /* the sentry does */
#define CTL_SPIN     0x0c /* how often the stub looks before it sleeps */
#define CTL_SIG	     0x10 /* why it stopped */
#define CTL_BASES    0x14 /* the segment bases below are to be loaded */
#define CTL_FRAME    0x18 /* the signal frame */
#define CTL_FS	     0x20
#define CTL_GS	     0x28
#define CTL_STACK    0x30 /* stack_t, for the thread's start */
#define CTL_NOTIFY   0x48 /* it is to make a listener; and then, it has */
#define CTL_LISTENER 0x4c /* its descriptor, in the stubs' table */
#define CTL_SIZE     0x100

#define STATE_STOPPED 0 /* the sentry's turn */
#define STATE_RUN     1

/* The code page: code, then these. */
#define CODE_DATA	 0x800
#define CODE_MASK	 0x800 /* no signals blocked: 8 bytes */
#define CODE_FSGSBASE	 0x808 /* the CPU and the host kernel know RDFSBASE and its like: 4 bytes */
#define CODE_PROG	 0x810 /* struct sock_fprog of user threads */
#define CODE_PROG_NOTIFY 0x820 /* and of those with a listener */
#define CODE_FILTER	 0x840 /* the instructions of both */

#endif
