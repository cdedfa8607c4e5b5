/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an image holds between its holes. The host knows, but two calls for each run of pages are a
 * good part of what a copy costs, so a function's image has a list of them, made once.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/hostio.h"
#include "sentry/snapshot_image.h"
#include "sentry/snapshot_internal.h"

#define MAX_RUNS ((IMAGE_RUNS_MAX - sizeof(struct image_runs)) / sizeof(struct image_run))

struct collected {
	struct image_runs *runs;
	size_t cap;
};

/* Calls @fn with each range of [start, end) of the file that holds data. */
static int for_data(int fd, uint64_t start, uint64_t end,
		    int (*fn)(void *arg, uint64_t offset, size_t len), void *arg)
{
	while (start < end) {
		off_t data = lseek(fd, (off_t)start, SEEK_DATA), hole;
		int err;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		if ((uint64_t)data >= end)
			return 0;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		err = fn(arg, (uint64_t)data, MIN((uint64_t)hole, end) - (uint64_t)data);
		if (err)
			return err;
		start = (uint64_t)hole;
	}
	return 0;
}

static size_t runs_size(size_t n)
{
	return sizeof(struct image_runs) + n * sizeof(struct image_run);
}

static int collect(void *arg, uint64_t offset, size_t len)
{
	struct collected *c = arg;
	struct image_runs *r = c->runs;

	if (!r || r->n == c->cap) {
		size_t cap = r ? c->cap * 2 : 256;

		if (cap > MAX_RUNS)
			return -EFBIG;
		r = hrealloc(r, runs_size(cap));
		if (!r)
			return -ENOMEM;
		if (!c->runs)
			r->n = 0;
		c->runs = r;
		c->cap = cap;
	}
	r->v[r->n++] =
		(struct image_run){(uint32_t)(offset / PAGE_SIZE), (uint32_t)(len / PAGE_SIZE)};
	return 0;
}

int snapshot_store_runs(int fd)
{
	struct collected c = {0};
	int err = for_data(fd, IMAGE_KERNEL, IMAGE_SIZE, collect, &c);

	if (!err && c.runs)
		err = pwrite_all(fd, c.runs, runs_size(c.runs->n), IMAGE_RUNS);
	kfree(c.runs);
	return err;
}

int snapshot_for_runs(const struct image_runs *r, uint64_t start, uint64_t end,
		      int (*fn)(void *arg, uint64_t offset, size_t len), void *arg)
{
	int err = 0;

	for (uint64_t i = 0; i < r->n && !err; i++) {
		uint64_t from = MAX((uint64_t)r->v[i].page * PAGE_SIZE, start);
		uint64_t to = MIN(((uint64_t)r->v[i].page + r->v[i].n) * PAGE_SIZE, end);

		if (from < to)
			err = fn(arg, from, to - from);
	}
	return err;
}
