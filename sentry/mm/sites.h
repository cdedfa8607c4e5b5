/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rewritten system-call sites of an address space, and the call boxes of its threads: the memory
 * side of arch/callstub.h.
 *
 * A site is rewritten once it has trapped as often as the platform says (rewrite_after): its page
 * becomes a private copy with a jump in it, to a slot in an area (a small mapping of its own,
 * "[kvmsbox]" in maps) within reach of the jump. Only text that can't be written is touched, so no
 * program sees its own stores go astray; text that becomes writable, or is written to by a
 * debugger, gets its bytes back first. System calls, /proc/PID/mem and process_vm_readv see the
 * original bytes always (sites_overlay).
 *
 * The table is shared by a fork's two sides until one of them changes it; areas are shared too, and
 * not added to after that.
 */
#ifndef SENTRY_MM_SITES_H
#define SENTRY_MM_SITES_H

#include "arch/x86_64/callstub.h"
#include "sentry/mm/mm.h"

enum site_wish {
	SITE_NEVER,
	SITE_LATER, /* not now: ask again when it has trapped as often once more */
	SITE_NOW,
};

/*
 * The SYSCALL ending at @after has trapped in user code: counts it and perhaps rewrites the site.
 * @wanted: is the call with number @nr to be rewritten? -1: the site's number isn't known.
 */
void mm_site_trapped(struct mm *mm, uaddr_t after, enum site_wish (*wanted)(int nr));

enum site_place {
	SITE_NONE,   /* not ours */
	SITE_COMMON, /* in an area's common code: spot.at is the offset in it */
	SITE_START,  /* in a slot, nothing done yet: as if at spot.at, the site's start */
	/* in the middle of a patch: the instruction meant is at spot.at, in the slot */
	SITE_INTERIOR,
};
struct site_spot {
	uaddr_t at;
	/* SITE_START: the number that the site loads, and its SYSCALL. */
	int nr;
	uaddr_t syscall;
};
/* What @rip is to do with rewritten sites. */
enum site_place mm_site_place(struct mm *mm, uaddr_t rip, struct site_spot *spot);

/* Is @rip in an area's common code? At *@off of it, then. */
bool mm_site_common(struct mm *mm, uaddr_t rip, size_t *off);

/* Address of the common code's copy for this mm; 0: nothing is rewritten. */
uaddr_t mm_site_stub(struct mm *mm);
/* Every site gets its bytes back and none is rewritten again. */
void mm_sites_stop(struct mm *mm);

/*
 * A call box for a thread: its address for user code in @va, the sentry's in the result; NULL when
 * out of memory. Zeroed. The box lasts as long as the mm or until mm_box_free.
 */
struct callbox *mm_box_alloc(struct mm *mm, uaddr_t *va);
void mm_box_free(struct mm *mm, uaddr_t va);
/* The information that belongs to the box at @va; the sentry's address, NULL if there is none. */
struct callinfo *mm_box_info(struct mm *mm, uaddr_t va);

/* ---- for sentry/mm ---- */
/*
 * Text in [start, end) is about to be unmapped (@restore false: the bytes are going away) or to
 * become writable. Excl.
 */
void sites_forget(struct mm *mm, uaddr_t start, uaddr_t end, bool restore);
/*
 * Puts the original bytes into @buf, which was read from [@addr, @addr+@len) in one page. pt_lock
 * held; mm->sites is not NULL.
 */
void sites_overlay(struct mm *mm, uaddr_t addr, uint8_t *buf, size_t len);
/* fork: @to gets what @from has. @from held. */
void sites_fork(struct mm *from, struct mm *to);
void sites_free(struct mm *mm);

#endif
