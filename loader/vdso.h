/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vDSO and its time. The sentry keeps the vvar page: a conversion of the TSC to nanoseconds
 * that follows the host's clocks. clock_gettime(2) answers by the same page, so a program sees one
 * time whichever way it asks. The page is unusable until somebody asks: the first question, a
 * system call, starts the thread that keeps it.
 */
#ifndef LOADER_VDSO_H
#define LOADER_VDSO_H

#include <time.h>

#include "sentry/mm/mm.h"

/* Makes the frames. Once, after physmem_init. 0 or -errno. */
int vdso_init(void) __must_check;
/* Asks the host which clock it has. Before lockdown, and before user code may want the time. */
void vdso_begin(void);
/* Maps vvar and vDSO somewhere into @mm and sets mm->vdso. 0 or -errno. */
int vdso_map(struct mm *mm) __must_check;
/*
 * In a process that is going to restore: asks the host what has to be opened, so that it doesn't
 * take time, or a right, then.
 */
void vdso_restore_prepare(void);
/* The page is another process's that has been restored here: begins anew with the host's clocks. */
void vdso_restored(void);
/* The frame that the clocks are published in: the sentry's, whatever becomes of the sandbox. */
gpa_t vdso_clock_frame(void);
/* CLOCK_REALTIME, MONOTONIC, their coarse kinds, RAW, BOOTTIME: as the vDSO says. 0 or -EINVAL. */
int vdso_clock_gettime(clockid_t clock, struct timespec *ts);

#endif
