/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: the whole of a sandbox's state as memory.
 *
 *	kernel state	the arena with the frame allocator's tables; the kernel's static variables
 *	guest memory	what frames hold
 *	page tables
 *	tasks		registers are in the arena; segment bases and extended state are put there
 *
 * A frozen sandbox has all of it in an *image*, a sealed memory file (snapshot_image.h has its
 * layout), and can be *set back* to that in place as often as wanted, at a cost that goes with what
 * has changed since. Kernel state is mapped privately from the image, so the host knows which of
 * its pages have changed; guest memory is told apart by write protection (sentry/mm/frozen.h).
 *
 * What belongs to the host process goes on through all this: threads, descriptors, vCPUs and stubs
 * (arena.h: the host's arena), clocks.
 *
 * Everything here is called by one thread that is no task's, and that holds no locks.
 */
#ifndef SENTRY_SNAPSHOT_H
#define SENTRY_SNAPSHOT_H

#include "sentry/lib/types.h"

struct kernel;
struct task;

/*
 * What has to be opened while that is still allowed: before lockdown, in a sandbox that is going to
 * be frozen. 0 or -errno.
 */
int snapshot_prepare(void) __must_check;
/* The part of it that doesn't depend on which sandbox it will be. */
int snapshot_prepare_track(void) __must_check;

/*
 * Stops all tasks and makes this the frozen state; no task runs afterwards. Again later, with the
 * state set back, for what mm_train_replay has added. 0, or -errno with one line in @why: the
 * sandbox goes on then.
 */
int snapshot_freeze(struct kernel *k, char *why, size_t size) __must_check;
/*
 * What a sandbox that is to be saved needs to know of the host: before lockdown. 0 or -errno.
 */
int snapshot_prepare_save(void) __must_check;
/*
 * Stops all tasks and saves the sandbox, which is then as it was: returns its image, sealed, the
 * caller's. Tasks stay stopped until freezer_thaw. -errno with one line in @why: the sandbox goes
 * on.
 */
int snapshot_save(struct kernel *k, char *why, size_t size) __must_check;

/* Is there a frozen state? */
bool snapshot_exists(void);
/* The image; the snapshot's. */
int snapshot_image(void);

/*
 * Lets the frozen tasks run; but for one, left in *@here for task_run_here if that isn't NULL. 0 or
 * -EAGAIN: no host thread to be had; set it back.
 */
int snapshot_resume(struct kernel *k, struct task **here) __must_check;

struct snapshot_rewound {
	size_t kernel_pages; /* set back */
	size_t frames, looked, zeroed;
	size_t entries; /* of page tables */
};
/*
 * Stops all tasks and sets everything back. 0, or -errno: the sandbox can't be used any more.
 */
int snapshot_rewind(struct kernel *k, struct snapshot_rewound *r) __must_check;
/*
 * The next run notes what faults bring, and after its snapshot_rewind snapshot_learn makes that
 * part of the frozen state. Returns how many pages that were, or -errno: as snapshot_freeze.
 */
void snapshot_train(void);
long snapshot_learn(struct kernel *k);

/*
 * A process that is going to restore something on @platform ("auto" for the usual one) does what
 * can be done before it knows what. snapshot_restore does it, if need be; to do it in vain costs no
 * more than time. NULL, with one line in @why: it can't.
 */
const struct platform_type *snapshot_restore_prepare(const char *platform, char *why, size_t size);
/*
 * Instead of booting: this process becomes the sandbox of the image @fd, which it keeps; @root: the
 * file that its root file system is in, or -1: it is opened. @platform:
 * NULL for the one it was made on. Before lockdown; then snapshot_adopt makes it the frozen state,
 * for snapshot_resume. 0, or -errno with one line in @why.
 */
int snapshot_restore(int fd, int root, const char *platform, struct kernel **out, char *why,
		     size_t size) __must_check;
/*
 * The same from a file, which must stay open; it becomes an ordinary sandbox. @stdio: host
 * descriptors that take the places of init's, the caller's also afterwards. After lockdown
 * snapshot_start lets it run. 0, or -errno with one line in @why.
 */
struct snapshot_file;
int snapshot_restore_file(const struct snapshot_file *file, const char *platform,
			  const int stdio[3], struct kernel **out, char *why,
			  size_t size) __must_check;
/* 0 or -EAGAIN: not all of it runs, end the process. */
int snapshot_start(struct kernel *k) __must_check;
/*
 * What is mapped from @fd is the frozen state from now on. Nothing runs yet. The pages of kernel
 * state that hold something have been told by snapshot_mark_stored. 0 or -errno.
 */
int snapshot_adopt(struct kernel *k, int fd) __must_check;

#endif
