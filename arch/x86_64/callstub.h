/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls without a trap: what rewritten call sites, the user-mode stub and the sentry share.
 * Included by C and assembly; the C side asserts the offsets against its structures.
 *
 * A site `mov $nr,%eax; syscall` becomes a jump to its slot in a page near it; the slot loads what
 * SYSCALL would (RCX = where to go on, EAX = the number) and jumps to callstub_enter at the head of
 * that area. There the call is posted in the thread's call box, which %gs:0 points to, and user
 * code spins for the answer, for as long as the box's budget says; without an answer it executes
 * SYSCALL after all. Nothing but RCX and R11 is changed, as by SYSCALL itself; the flags are not
 * even used.
 *
 * A box is user memory: the sentry copies from it once and trusts nothing in it. Who may act for a
 * thread is decided elsewhere (task.fast_owner).
 *
 * What RIP means when a thread is stopped in the stub (arch_callstub_where):
 *
 *	enter .. post	not posted: as if about to execute the site's SYSCALL
 *	wait .. done	posted: answered or not, as the sentry knows
 *	done ..		answered: the result is in the box
 *	returned ..	behind SYSCALL: the result is in RAX
 *	taken ..	as wait
 *	sigaction ..	as enter
 *
 * States of a box:
 *
 *	DONE --guest--> CALL --poller claims--> TAKEN --poller--> DONE
 *			  |			  |
 *			  +-----guest gives up----+--> BELL, and SYSCALL
 */
#ifndef ARCH_X86_64_CALLSTUB_H
#define ARCH_X86_64_CALLSTUB_H

#define CALLBOX_DONE  0
#define CALLBOX_CALL  1
#define CALLBOX_TAKEN 2
#define CALLBOX_BELL  3

/*
 * struct callbox. What goes to and fro is in its first cache line; the result comes back where the
 * number went.
 */
#define CALLBOX_STATE  0x00
#define CALLBOX_SPIN   0x04
#define CALLBOX_NR     0x08
#define CALLBOX_ARGS   0x10
#define CALLBOX_AFTER  0x40
#define CALLBOX_AFTER2 0x48
#define CALLBOX_COUNT  0x50
#define CALLBOX_SIZE   0x100 /* a box's share of its page */
/* struct callinfo, in the read-only page that follows the boxes' */
#define CALLINFO	 0x1000
#define CALLINFO_PID	 0x00
#define CALLINFO_TID	 0x04
#define CALLINFO_PPID	 0x08
#define CALLINFO_UID	 0x0c
#define CALLINFO_EUID	 0x10
#define CALLINFO_GID	 0x14
#define CALLINFO_EGID	 0x18
#define CALLINFO_DEFAULT 0x20 /* a bit for each signal whose action is known to be all 0 */

/* An area of slots: pages of code, in chunks of one second-lowest address byte each. */
#define CALLSTUB_PAGES	   4
#define CALLSTUB_CHUNK	   256
#define CALLSTUB_COMMON	   512 /* the first of them hold the common code */
#define CALLSTUB_UNIT	   32
#define CALLSTUB_SIGACTION 13 /* the number of rt_sigaction */
/* Looks at a call that is being carried out, beyond the box's budget: what 64 KiB take, copied. */
#define CALLSTUB_PATIENCE 20000

#ifndef __ASSEMBLER__

#include "arch/x86_64/arch.h"

struct callbox {
	_Atomic uint32_t state; /* CALLBOX_* */
	_Atomic uint32_t spin;	/* how often to look before giving up; 0: nobody answers */
	uint64_t nr;		/* and then the result */
	uint64_t args[6];	/* in the order of syscall arguments */
	uint64_t after;		/* where the caller goes on */
	uint64_t after2;	/* the same, while `after` leads to callstub_refused */
	uint64_t count;		/* calls answered by the slots themselves */
	uint64_t reserved[21];
};

/* What the slots answer from. */
struct callinfo {
	_Atomic uint32_t pid, tid, ppid, uid, euid, gid, egid;
	uint32_t reserved;
	_Atomic uint64_t default_actions;
	uint64_t reserved2[27];
};

#define CALLBOX_PER_PAGE (PAGE_SIZE / CALLBOX_SIZE)

_Static_assert(sizeof(struct callbox) == CALLBOX_SIZE, "box");
_Static_assert(sizeof(struct callinfo) == CALLBOX_SIZE, "info");
_Static_assert(offsetof(struct callbox, spin) == CALLBOX_SPIN, "box");
_Static_assert(offsetof(struct callbox, nr) == CALLBOX_NR, "box");
_Static_assert(offsetof(struct callbox, args) == CALLBOX_ARGS, "box");
_Static_assert(offsetof(struct callbox, after) == CALLBOX_AFTER, "box");
_Static_assert(offsetof(struct callbox, after2) == CALLBOX_AFTER2, "box");
_Static_assert(offsetof(struct callbox, count) == CALLBOX_COUNT, "box");
_Static_assert(offsetof(struct callinfo, egid) == CALLINFO_EGID, "info");
_Static_assert(offsetof(struct callinfo, default_actions) == CALLINFO_DEFAULT, "info");

/* The common code, copied to the start of every area. */
extern const uint8_t callstub_start[], callstub_end[], callstub_enter[], callstub_post[];
extern const uint8_t callstub_wait[], callstub_bell[], callstub_bell0[], callstub_refused[];
extern const uint8_t callstub_done[], callstub_taken[], callstub_returned[];
extern const uint8_t callstub_sigaction[], callstub_sigaction_saved[];
extern const uint8_t callstub_sigaction_half[], callstub_sigaction_back[];

/* Where in the common code an offset from its start is. */
enum callstub_where {
	CALLSTUB_OUTSIDE,  /* in a slot, or nowhere */
	CALLSTUB_FIRST,	   /* nothing stored yet: RCX has what `after` will */
	CALLSTUB_UNPOSTED, /* `after` is right, the call not posted */
	CALLSTUB_REFUSED,  /* the same, with after2 */
	CALLSTUB_POSTED,   /* waiting, or given up */
	CALLSTUB_ANSWERED, /* about to go on */
	CALLSTUB_RETURNED, /* the same, and the result is in RAX already */
	/* `after` is right; RAX and perhaps the flags are for arch_callstub_unwind to restore */
	CALLSTUB_ANSWERING,
};
enum callstub_where arch_callstub_where(size_t off);
/* CALLSTUB_ANSWERING: RAX and the flags of @regs as they came to the common code. */
void arch_callstub_unwind(size_t off, struct arch_regs *regs);
/* Is @off just behind one of its SYSCALL instructions? */
bool arch_callstub_trapped(size_t off);

/* How a call site can be rewritten. */
struct arch_site {
	/* Where the patch begins: bytes before `after`, the address behind SYSCALL. */
	uint8_t start;
	uint8_t len;	   /* bytes that belong to the patch; 5 are overwritten by a jump */
	uint8_t moved_len; /* bytes behind SYSCALL that the slot executes instead */
	bool returns;	   /* and they end in RET */
	uint8_t moved[24];
	int nr; /* if the patch includes loading it; -1 */
};

/*
 * Looks at the SYSCALL that ends at @after, an offset in the @size bytes at @text (a page): fills
 * @site if it can be rewritten without leaving the page.
 */
bool arch_site_decode(const uint8_t *text, size_t size, size_t after, struct arch_site *site);
/* Units of the slot for @site. */
unsigned int arch_site_units(const struct arch_site *site);
/*
 * May the slot be at @slot? A jump into the patch must end in an invalid instruction, where someone
 * may jump to; that depends on the distance.
 */
bool arch_site_fits(const struct arch_site *site, uint64_t site_va, uint64_t slot_va);
/*
 * Writes the slot that will be at @slot_va (@units units at @out) for the site whose patch begins
 * at @site_va, with the common code at @stub_va. Returns the address where the caller goes on.
 */
uint64_t arch_slot_write(const struct arch_site *site, uint64_t site_va, uint64_t slot_va,
			 uint64_t stub_va, uint8_t *out);
/* The five bytes of a jump from @from to @to. */
void arch_jump_write(uint8_t out[5], uint64_t from, uint64_t to);

#endif
#endif
