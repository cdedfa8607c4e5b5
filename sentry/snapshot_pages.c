/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel state's pages and how they are set back. They are a private mapping of the image: what has
 * been written to is a page of this process's own from then on, and is copied from the image's view
 * if it differs.
 *
 * Which are its own the host tells, and none becomes so without a page fault of this process: as
 * long as the host counts no new ones the list from last time holds.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/log.h"
#include "sentry/lib/page.h"
#include "sentry/lib/world.h"
#include "sentry/snapshot.h"
#include "sentry/snapshot_image.h"
#include "sentry/snapshot_internal.h"

#define MAX_OWN 512 /* ranges that are remembered */

/* Linux 6.7: <linux/fs.h> of Debian 12 doesn't have it. */
#define PAGEMAP_SCAN_IOCTL 0xc0606610UL
#define PM_IS_FILE	   4UL
#define PM_IS_PRESENT	   8UL
#define PM_IS_SWAPPED	   16UL
struct pm_region {
	uint64_t start, end, categories;
};
struct pm_scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
		category_mask, category_anyof_mask, return_mask;
};
_Static_assert(sizeof(struct pm_scan) == 0x60, "as the kernel has it");

static __host_large struct {
	int pagemap; /* of this process; 0: not opened */
	bool no_scan;
	uint64_t *stored; /* bit per page from ARENA_BASE: it is in the image, the rest was zero */
	/* This process's own ranges when it had had so many faults. */
	struct pm_region own[MAX_OWN];
	size_t nr_own;
	long faults; /* -1: not known */
} pages = {.faults = -1};

int snapshot_prepare_track(void)
{
	if (!pages.pagemap) {
		int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return -errno;
		pages.pagemap = fd;
	}
	if (!pages.stored)
		pages.stored = hcalloc((physmem_kernel_end() - ARENA_BASE) / PAGE_SIZE / 64 + 1, 8);
	return pages.stored ? 0 : -ENOMEM;
}

static size_t page_index(uintptr_t addr)
{
	return (addr - ARENA_BASE) / PAGE_SIZE;
}

void snapshot_mark_stored(uintptr_t start, size_t len)
{
	if (!pages.stored)
		return;
	for (uintptr_t at = start; at < start + len; at += PAGE_SIZE)
		pages.stored[page_index(at) / 64] |= 1UL << (page_index(at) % 64);
}

void snapshot_mark_none(void)
{
	if (pages.stored)
		memset(pages.stored, 0, (physmem_kernel_end() - ARENA_BASE) / PAGE_SIZE / 8 + 8);
}

void snapshot_kernel_regions(struct phys_region r[SNAPSHOT_REGIONS])
{
	r[0] = (struct phys_region){ARENA_BASE, ARENA_BASE + arena_extent()};
	physmem_kernel_regions(&r[1]);
}

int snapshot_map_kernel(int fd)
{
	void *p =
		mmap((void *)ARENA_BASE, physmem_kernel_end() - ARENA_BASE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd, IMAGE_KERNEL);

	pages.faults = -1;
	return p == MAP_FAILED ? -errno : 0;
}

static const uint8_t *view_of(uintptr_t addr)
{
	return (const uint8_t *)IMAGE_VIEW + IMAGE_KERNEL + (addr - ARENA_BASE);
}

/* A page that is no longer the image's: true if it had changed. */
static bool restore_page(uintptr_t at)
{
	void *page = (void *)at;

	if (!(pages.stored[page_index(at) / 64] >> (page_index(at) % 64) & 1)) {
		if (page_is_zero(page))
			return false;
		memset(page, 0, PAGE_SIZE);
		return true;
	}
	if (!memcmp(page, view_of(at), PAGE_SIZE))
		return false;
	memcpy(page, view_of(at), PAGE_SIZE);
	return true;
}

static void restore_range(const struct pm_region *range, size_t *restored)
{
	for (uintptr_t at = range->start; at < range->end; at += PAGE_SIZE)
		*restored += restore_page(at);
}

/* Remembers what the scan has found, as far as there is room: false if there is none. */
static bool remember(const struct pm_region *found, size_t n)
{
	if (pages.nr_own + n > MAX_OWN)
		return false;
	memcpy(&pages.own[pages.nr_own], found, n * sizeof(*found));
	pages.nr_own += n;
	return true;
}

/*
 * By one host call for many pages. *@complete becomes false if they aren't all remembered. -errno:
 * it can't be done so.
 */
static int restore_scan(const struct phys_region *r, size_t *restored, bool *complete)
{
	struct pm_region found[64];
	struct pm_scan scan = {
		.size = sizeof(scan),
		.start = r->start,
		.end = r->end,
		.vec = (uintptr_t)found,
		.vec_len = ARRAY_SIZE(found),
		.category_inverted = PM_IS_FILE,
		.category_mask = PM_IS_FILE,
		.category_anyof_mask = PM_IS_PRESENT | PM_IS_SWAPPED,
		.return_mask = PM_IS_PRESENT,
	};

	while (scan.start < r->end) {
		int n = ioctl(pages.pagemap, PAGEMAP_SCAN_IOCTL, &scan);

		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++)
			restore_range(&found[i], restored);
		*complete = *complete && remember(found, (size_t)n);
		scan.start = scan.walk_end;
	}
	return 0;
}

/* By /proc/self/pagemap: bit 61 says that a page is the file's, 63 that it is there. */
static int restore_read(const struct phys_region *r, size_t *restored)
{
	uint64_t entries[512];
	size_t n;

	for (uintptr_t at = r->start; at < r->end; at += n * PAGE_SIZE) {
		ssize_t got;

		n = MIN(ARRAY_SIZE(entries), (r->end - at) / PAGE_SIZE);
		got = pread(pages.pagemap, entries, n * 8, (off_t)(at / PAGE_SIZE * 8));
		if (got != (ssize_t)(n * 8))
			return got < 0 ? -errno : -EIO;
		for (size_t i = 0; i < n; i++) {
			if (entries[i] >> 62 && !(entries[i] >> 61 & 1))
				*restored += restore_page(at + i * PAGE_SIZE);
		}
	}
	return 0;
}

/* Of all threads so far, the host's own faults on our memory (copies from and to it) included. */
static long count_faults(void)
{
	struct rusage ru;

	return getrusage(RUSAGE_SELF, &ru) ? -1 : ru.ru_minflt + ru.ru_majflt;
}

/* False: the host has no such call. */
static bool restore_by_scan(const struct phys_region r[SNAPSHOT_REGIONS], size_t *restored)
{
	long faults = count_faults();
	bool complete = true;

	if (faults >= 0 && faults == pages.faults) {
		for (size_t i = 0; i < pages.nr_own; i++)
			restore_range(&pages.own[i], restored);
		return true;
	}
	pages.nr_own = 0;
	for (int i = 0; i < SNAPSHOT_REGIONS; i++) {
		if (restore_scan(&r[i], restored, &complete))
			return false;
	}
	pages.faults = complete ? faults : -1;
	return true;
}

int snapshot_restore_kernel(size_t *restored)
{
	struct phys_region r[SNAPSHOT_REGIONS];
	int err = 0;

	snapshot_kernel_regions(r);
	if (!pages.no_scan && restore_by_scan(r, restored))
		return 0;
	pages.no_scan = true;
	for (int i = 0; i < SNAPSHOT_REGIONS && !err; i++)
		err = restore_read(&r[i], restored);
	return err;
}

size_t snapshot_verify_kernel(void)
{
	struct phys_region r[SNAPSHOT_REGIONS];
	size_t wrong = 0;

	snapshot_kernel_regions(r);
	for (int i = 0; i < SNAPSHOT_REGIONS; i++) {
		for (uintptr_t at = r[i].start; at < r[i].end; at += PAGE_SIZE) {
			if (!restore_page(at))
				continue;
			log_error("page %#lx of kernel state was not set back", at);
			wrong++;
		}
	}
	return wrong;
}
