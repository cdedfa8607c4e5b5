/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving a sandbox that then goes on as if nothing had happened: no threads are given up, nothing
 * is tracked, no memory is mapped otherwise. Tasks wait at their safe point meanwhile (freezer.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sentry/fastcall.h"
#include "sentry/freezer.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/hostfd.h"
#include "sentry/lib/physmem_frozen.h"
#include "sentry/lib/world.h"
#include "sentry/mm/frozen.h"
#include "sentry/snapshot.h"
#include "sentry/snapshot_image.h"
#include "sentry/snapshot_internal.h"

#define SAVE_MS 5000 /* for tasks to come to their safe point */

/* A bit for each frame that is not to be in the image. */
struct wiped {
	uint64_t *omit;
	size_t frames; /* that it has bits for */
};

static void note_wiped(void *arg, gpa_t gpa)
{
	struct wiped *w = arg;
	size_t frame = gpa >> PAGE_SHIFT;

	if (frame < w->frames)
		w->omit[frame / 64] |= 1UL << (frame % 64);
}

static void ignore_wiped(void *arg, gpa_t gpa)
{
}

static int find_wiped(struct wiped *w, const struct frozen *f)
{
	int err = 0;

	/* Once to make the frames their own, which may take more of them; then all are there. */
	for (size_t i = 0; i < f->nr_mms && !err; i++)
		err = mm_for_wiped(f->mms[i], ignore_wiped, NULL);
	if (err)
		return err;
	w->frames = physmem_extent() >> PAGE_SHIFT;
	w->omit = hcalloc(w->frames / 64 + 1, sizeof(*w->omit));
	if (!w->omit)
		return -ENOMEM;
	for (size_t i = 0; i < f->nr_mms && !err; i++)
		err = mm_for_wiped(f->mms[i], note_wiped, w);
	return err;
}

static int write_image(int fd, const struct frozen *f)
{
	struct wiped w = {0};
	int err;

	err = find_wiped(&w, f);
	/* It reads command lines, which may change page tables. */
	if (!err)
		err = snapshot_store_meta(fd, f);
	if (!err)
		err = physmem_store(fd, IMAGE_RAM, w.omit);
	/* Kernel state last: it says what the rest is. */
	if (!err)
		err = snapshot_store_kernel(fd);
	kfree(w.omit);
	return err ? err : snapshot_seal(fd);
}

static void note_stdio(struct frozen *f)
{
	const struct kernel *k = f->kernel;

	for (int i = 0; i < 3; i++) {
		if (hostfd_use(k->stdio[i].index) != HOSTFD_STDIO)
			continue;
		f->stdio[i].index = k->stdio[i].index;
		f->stdio[i].file = k->stdio[i].file;
	}
}

/* All tasks are parked, the world held. Returns the image or -errno. */
static int save_held(struct kernel *k)
{
	struct frozen *f = snapshot_frozen_alloc(k);
	int fd, err;

	if (IS_ERR(f))
		return (int)PTR_ERR(f);
	/* A restored one's pollers are others. */
	poller_forget();
	snapshot_save_contexts(f);
	note_stdio(f);
	snapshot_frozen = f;
	fd = snapshot_memfd();
	err = fd < 0 ? fd : write_image(fd, f);
	if (err < 0 && fd >= 0)
		close(fd);
	snapshot_frozen = NULL;
	for (size_t i = 0; i < f->nr_tasks; i++) {
		if (f->tasks[i].task->fast.box && poller_enabled)
			poller_add(f->tasks[i].task);
	}
	snapshot_frozen_free(f);
	return err < 0 ? err : fd;
}

int snapshot_save(struct kernel *k, char *why, size_t size)
{
	int fd, err = freezer_stop(k, false, SAVE_MS);

	if (err) {
		snprintf(why, size, "a task doesn't come to rest: %s", strerror(-err));
		return err;
	}
	world_hold();
	fd = save_held(k);
	world_release();
	if (fd >= 0)
		return fd;
	freezer_thaw();
	snprintf(why, size, "can't make its image: %s", strerror(-fd));
	return fd;
}
