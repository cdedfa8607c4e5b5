/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro rows: memory. Per page where the row touches pages, per call where it maps.
 *
 * The mappings ask for nothing (no MAP_POPULATE, no madvise): this is what programs do.
 */
#include "tools/bench/guest/guest.h"

#include <sys/mman.h>
#include <unistd.h>

#define PAGE	    4096ul
#define TOUCH_PAGES 16384ul

static volatile char *map_pages(uint64_t n)
{
	void *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		fail("mmap");
	return p;
}

/* One operation is one page of a fresh mapping, in order. */
static uint64_t run_touch(uint64_t n)
{
	volatile char *p = map_pages(n);
	uint64_t i, start = now_ns(), took;

	for (i = 0; i < n; i++)
		p[i * PAGE] = 1;
	took = now_ns() - start;
	munmap((void *)p, n * PAGE);
	return took;
}

/* One operation is a page of a program that maps 1 MiB, uses it and gives it back. */
static uint64_t run_touch_1m(uint64_t n)
{
	uint64_t done = 0, i, start = now_ns();
	volatile char *p;

	while (done < n) {
		p = map_pages(256);
		for (i = 0; i < 256; i++)
			p[i * PAGE] = 1;
		munmap((void *)p, 256 * PAGE);
		done += 256;
	}
	return (uint64_t)((double)(now_ns() - start) * (double)n / (double)done);
}

static uint64_t run_mmap(uint64_t n)
{
	uint64_t i, start = now_ns();

	for (i = 0; i < n; i++)
		munmap((void *)map_pages(16), 16 * PAGE);
	return now_ns() - start;
}

/* One page, read-only and back. */
static uint64_t run_mprotect(uint64_t n)
{
	volatile char *p = map_pages(1);
	uint64_t i, start, took;

	*p = 1;
	start = now_ns();
	for (i = 0; i < n; i++) {
		if (mprotect((void *)p, PAGE, PROT_READ) ||
		    mprotect((void *)p, PAGE, PROT_READ | PROT_WRITE))
			fail("mprotect");
		*p = 2;
	}
	took = now_ns() - start;
	munmap((void *)p, PAGE);
	return took;
}

static uint64_t run_brk(uint64_t n)
{
	uint64_t i, start = now_ns();

	for (i = 0; i < n; i++) {
		if (sbrk((intptr_t)PAGE) == (void *)-1 || sbrk(-(intptr_t)PAGE) == (void *)-1)
			fail("brk");
	}
	return now_ns() - start;
}

const struct micro memory_rows[] = {
	{"touch", run_touch, TOUCH_PAGES},
	{"touch-1m", run_touch_1m, 0},
	{"mmap-munmap", run_mmap, 0},
	{"mprotect", run_mprotect, 0},
	{"brk", run_brk, 0},
	{NULL, NULL, 0},
};
