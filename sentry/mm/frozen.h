/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page tables that can be set back (sentry/snapshot.h has the whole).
 *
 * When an address space is frozen its private pages are write-protected, so that each one that is
 * written to afterwards shows in the table. Setting the table back finds these pages, lets them be
 * set back (physmem_frozen.h), and from then on leaves them writable: they will be written to again.
 * Everything else that has changed in the table is undone, and the platform told.
 *
 * A record lies in the host's arena; it doesn't hold the mm, whose `users` its maker has raised.
 * Nobody runs meanwhile, no locks are taken but the platform's.
 */
#ifndef SENTRY_MM_FROZEN_H
#define SENTRY_MM_FROZEN_H

#include "sentry/mm/mm.h"

struct mm_frozen;

/*
 * What a program wants wiped in copies of it (MADV_WIPEONFORK; wipe.c). Either drops it here; or
 * tells @fn the frames that hold it, which are @mm's alone then, for an image without them while
 * @mm keeps them. 0 or -ENOMEM.
 */
void mm_wipe(struct mm *mm);
int mm_for_wiped(struct mm *mm, void (*fn)(void *arg, gpa_t gpa), void *arg) __must_check;
/* Write-protects what is private: once, before its pages are written to an image. */
void mm_freeze_protect(struct mm *mm);
/*
 * Notes what the table has now, and tells physmem which frames it watches: after physmem_freeze.
 * Private pages that are writable now are taken for such as will be written to. NULL: no memory.
 */
struct mm_frozen *mm_freeze(struct mm *mm);
/* Sets the table back. Returns how many entries were undone. */
size_t mm_rewind(struct mm_frozen *f);
void mm_frozen_free(struct mm_frozen *f);

/*
 * The pages that faults bring while this is on, up to a few thousand: what a run touches that the
 * frozen state didn't have. mm_train_replay brings them in, as far as there is a place for them now
 * and their mm is one of @mms, and forgets them: after mm_rewind and before the next freeze. Returns how
 * many it brought.
 */
void mm_train(bool on);
size_t mm_train_replay(struct mm *const *mms, size_t n);
void mm_train_note(struct mm *mm, uaddr_t addr, unsigned int access);
extern bool mm_training;

#endif
