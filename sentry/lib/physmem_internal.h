/* SPDX-License-Identifier: Apache-2.0 */
/* What physmem.c and physmem_frozen.c share. */
#ifndef SENTRY_LIB_PHYSMEM_INTERNAL_H
#define SENTRY_LIB_PHYSMEM_INTERNAL_H

#include <stdatomic.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/physmem.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_READ  22 /* Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif

#define NR_FRAMES  (PHYS_RAM_SIZE >> PAGE_SHIFT)
#define REFS_BASE  (ARENA_BASE + ARENA_SIZE)
#define LINKS_BASE (REFS_BASE + NR_FRAMES * sizeof(uint32_t))
#define KEPT_BASE  (LINKS_BASE + NR_FRAMES * sizeof(struct free_link))
/*
 * Where all this is mapped in the sentry: the memory file, the tables, and behind them the files.
 */
#define VIEW_BASE	 0x300000000000UL
#define FIRST_CHUNK	 (64UL << 20)
#define EXTENT_MAX	 512	 /* frames: 2 MiB */
#define WARM_FRAMES	 1024	 /* freed and still resident: 4 MiB */
#define KEPT_MIN	 512UL	 /* may be resident in free extents: 2 MiB */
#define KEPT_MAX	 16384UL /* the same where memory comes and goes: 64 MiB */
#define KEPT_OF_LIMIT	 8	 /* but no more than an eighth of the memory limit */
#define ZERO_ALL	 8	 /* so few are zeroed without asking which are resident */
#define NR_ORDERS	 10	 /* free extents of 2^0 … 2^9 frames */
#define FILE_USE_WINDOW	 (64UL << 20)
#define MAX_FILE_WINDOWS ((PHYS_FILE_END - PHYS_FILE_BASE) / FILE_USE_WINDOW)
#define TABLES_SIZE	 (1UL << 30) /* for 512 GiB of mappings, all address spaces together */
#define TABLES_BASE	 (PHYS_RAM_SIZE - TABLES_SIZE)
#define FIRST_TABLES	 (16UL << 20) /* announced at first; doubles */
#define TABLES_BATCH	 (32UL << 10) /* made resident at once */

/* Per frame: set for the first one of a free block, which reads as zero; else all zero. */
struct free_link {
	uint64_t next : 28, prev : 28; /* frame numbers; 0: none */
	uint64_t size : 8;	       /* the block's order + 1 */
};
_Static_assert(NR_FRAMES <= 1UL << 28, "frame numbers fit");

struct physmem {
	struct mutex lock; /* LOCK_PHYSMEM */
	uint64_t limit;
	gpa_t next;		  /* never used from here on; under lock, like the rest */
	uint32_t free[NR_ORDERS]; /* frame number of the first block, 0: none */
	gpa_t warm[WARM_FRAMES];
	size_t nr_warm;
	size_t nr_kept;	 /* bits in kept[] of free frames */
	size_t keep;	 /* so many may be */
	size_t given;	 /* given back because of that, and not asked for since */
	uint64_t turns;	 /* extents that came or went */
	uint64_t looked; /* turns at the last physmem_settle */
	bool hoards;	 /* more than KEPT_MIN are kept, and somebody has been told */
	_Atomic uint64_t frames;
	struct phys_file files[PHYS_MAX_FILES];
	size_t nr_files;
	gpa_t next_file;
};

/* What of it is this process's and not the sandbox's. */
struct phys_host {
	int fd;	      /* the memory file; -1: private memory over a snapshot */
	int statm;    /* /proc/self/statm, where there is no memory file */
	gpa_t opened; /* announced up to here; under physmem->lock */
	struct physmem_listener *listener;
	void (*tell)(void); /* see physmem_on_hoard */
	int file_fds[PHYS_MAX_FILES];
	uint64_t file_windows[MAX_FILE_WINDOWS / 64]; /* announced; atomic */
};
extern struct phys_host phys_host;

/* Memory for page tables: not the sandbox's state but this process's. */
struct phys_tables {
	struct mutex lock; /* LOCK_PHYSMEM */
	gpa_t next;	   /* never used from here on */
	gpa_t opened;	   /* announced up to here */
	gpa_t free; /* the first freed one, which begins with the next one's; GPA_NONE: none */
};
extern struct phys_tables tables;

static _Atomic uint32_t *const refs = (_Atomic uint32_t *)REFS_BASE;
static struct free_link *const links = (struct free_link *)LINKS_BASE; /* under lock */
/*
 * A bit for each frame: resident since a former life, and zero unless somebody has touched it. Set
 * when it is freed, kept when it is handed out in an extent: see frames_resident. Under lock.
 */
static uint64_t *const kept = (uint64_t *)KEPT_BASE;

/* ---- physmem.c: what every process with a sandbox in it makes, in its own place ---- */
/* The memory file, mapped. 0 or -errno: then there is none. */
int physmem_open_file(void) __must_check;
/* Room for page tables, all unused. 0 or -errno. */
int physmem_open_tables(void) __must_check;

/* ---- physmem_frozen.c ---- */
extern bool physmem_tracking; /* frames that are handed out are noted */
void physmem_note_taken(gpa_t gpa, size_t n);
/* Were all of @n frames from @gpa in use at the freeze? */
bool physmem_comes_back(gpa_t gpa, size_t n);
/*
 * mincore(2) of @n frames from @gpa: bit 0 of each in @vec. A frame without it reads as zero. Also
 * set for what lies in a file beneath, read already or not.
 */
void physmem_incore(gpa_t gpa, size_t n, unsigned char *vec);
/* The same on a host that swaps: mincore doesn't know of what was swapped out. */
void physmem_incore_or_swapped(gpa_t gpa, size_t n, unsigned char *vec);
/* The memory of [gpa, gpa+n frames) goes back to the host; it reads as zero. */
void physmem_punch(gpa_t gpa, size_t n);
/* Is what the frame held at the freeze in the image? Else it was zero. */
bool physmem_is_stored(uint32_t frame);
/* Marks a free frame as resident and zero. pm->lock held, or nobody else is there. */
void physmem_kept_set(uint32_t frame);

/* ---- physmem_lend.c ---- */
/* From now on all frames ever handed out are lent, by the image that is in @fd. 0 or -errno. */
int physmem_lend(int fd, uint64_t offset) __must_check;
/* Free frames that are handed out: zero, and no longer lent. 0 or -ENOMEM. */
int physmem_own_new(gpa_t gpa, size_t n) __must_check;
/* How many of @n frames from @gpa are alike in being lent (*@lent) or not. */
size_t physmem_lent_run(gpa_t gpa, size_t n, bool *lent);

#endif
