/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's physical address space: what a page-table entry can point to.
 *
 *   [0, PHYS_RAM_SIZE)      the memory file: one sparse memfd, mapped once in the sentry. All
 *                           application memory and file contents made here are its 4 KiB frames.
 *                           Frames are reference-counted. The last GiB is not the file's: page
 *                           tables, in ordinary memory of this process.
 *   [PHYS_FILE_BASE, …)     read-only host files (the image), mapped whole; not counted.
 *
 * On KVM a gpa_t is what the guest's page tables hold; on ptrace and systrap the same tables are
 * kept in software, and (fd, offset) of a gpa is what is mapped into the stub.
 *
 * The frame at gpa 0 is never handed out.
 */
#ifndef SENTRY_LIB_PHYSMEM_H
#define SENTRY_LIB_PHYSMEM_H

#include "sentry/lib/lock.h"
#include "sentry/lib/types.h"

#define PHYS_RAM_SIZE  (192UL << 30) /* address space; the file is sparse */
#define PHYS_FILE_BASE (256UL << 30)
#define PHYS_FILE_END  (512UL << 30) /* 39 bits: the least MAXPHYADDR we ask for */
#define PHYS_MAX_FILES 8

struct phys_file {
	gpa_t base;
	size_t size; /* page multiple */
};

/* Told about gpa ranges that are about to be used (KVM adds memory slots). */
struct physmem_listener {
	/* [gpa, gpa+len) becomes used. Returns 0 or -errno. Called without locks, idempotent. */
	int (*add_range)(struct physmem_listener *l, gpa_t gpa, size_t len);
};

struct physmem;
extern struct physmem *physmem; /* the sandbox's one */

/*
 * Makes the memory file. @limit is the most bytes that applications may have resident (--memory),
 * 0 for none. Returns 0 or -errno.
 */
int physmem_init(size_t limit) __must_check;
void physmem_set_listener(struct physmem_listener *l);
/* Adds a read-only host file of @size bytes; the fd stays the caller's and must stay open. */
int physmem_add_file(int fd, size_t size, gpa_t *gpa) __must_check;

/*
 * Announces that page tables are going to point into [gpa, gpa+len): a no-op for RAM and for what
 * was announced before. To be called before entries for file ranges are installed. 0 or -errno.
 */
int phys_use_range(gpa_t gpa, size_t len) __must_check;

int physmem_fd(void);
/* The first file that was added, or -1. */
int physmem_file_fd(void);
/* Host address of @gpa. RAM and files are each contiguous; for all of them it is a fixed one. */
void *phys_ptr(gpa_t gpa);
static inline bool phys_is_ram(gpa_t gpa)
{
	return gpa < PHYS_RAM_SIZE;
}
/* What backs @gpa, which isn't lent: the fd and the offset in it. */
void phys_backing(gpa_t gpa, int *fd, uint64_t *offset);

/*
 * Frames that are lent: this sandbox is a copy, and what they hold is still the snapshot's, to be
 * read only (physmem_frozen.h). Once a frame isn't, it never is again.
 */
extern struct phys_lent {
	uint64_t *map; /* bit per frame below end; NULL: none are */
	uint32_t end;
} phys_lent;
static inline bool phys_is_lent(gpa_t gpa)
{
	uint64_t frame = gpa >> PAGE_SHIFT;

	return phys_lent.map && frame < phys_lent.end &&
	       __atomic_load_n(&phys_lent.map[frame / 64], __ATOMIC_ACQUIRE) >> (frame % 64) & 1;
}
/* What backs a frame as long as it is lent. */
void phys_lent_backing(gpa_t gpa, int *fd, uint64_t *offset);

/* One frame with one reference, zeroed. Returns its gpa or GPA_NONE. */
gpa_t frame_alloc(void) __must_check;
/* The same without promising zeroes. */
gpa_t frame_alloc_dirty(void) __must_check;
/*
 * @n contiguous zeroed frames, mostly not yet resident (the host pages in on first touch), aligned
 * to their size rounded down to a power of two, at most 2 MiB. Each has one reference of its own.
 */
gpa_t frame_alloc_extent(size_t n) __must_check;
/* A zeroed page for a page table, or GPA_NONE. They are no frames: not counted, not backed. */
gpa_t table_alloc(void) __must_check;
void table_free(gpa_t table);
/* Frames outside RAM (files) are ignored by get and put. */
void frame_get(gpa_t gpa);
/* Drops a reference; the last one frees the frame and gives the memory back to the host. */
void frame_put(gpa_t gpa);
uint32_t frame_refs(gpa_t gpa);
/* Makes the host hold @n contiguous frames of RAM from @gpa, as if they had been touched. */
void frames_populate(gpa_t gpa, size_t n);
/*
 * Copies @n pages into as many contiguous frames of RAM, fresh ones: cheaper than by memcpy, whose
 * page faults cost the host more than the copying, but our own mapping of them stays to be touched.
 */
void frames_copy(gpa_t to, const gpa_t *from, size_t n);
/*
 * Which of @n contiguous frames from @gpa hold something, as mincore(2) says it: vec[i] is 1 or 0.
 * The host may also hold frames that read as zero and that nobody has touched since they were
 * handed out; these are not counted. Frames of files always are.
 */
void frames_resident(gpa_t gpa, size_t n, unsigned char *vec);
/* For tests: of the calls that hand out frames the @n-th fails, as arena_fail_at says it. */
long frame_fail_at(long n);
/* Drops one reference on each of @n frames from @gpa: one host call per freed run. */
void frame_put_range(gpa_t gpa, size_t n);
/* Does the host hold all @n contiguous frames from @gpa, which come from one frame_alloc_extent? */
bool frames_are_warm(gpa_t gpa, size_t n);

/*
 * Freed memory that comes and goes is kept, up to 64 MiB, as long as it does: @tell is called when
 * there is more of it than a little, from whichever thread that freed some, with any locks held.
 * From then on physmem_settle is to be called about once a second until it returns false: it gives
 * all back to the host when none has come or gone since the last time. NULL, as it is at first: it
 * is never more than a little.
 */
void physmem_on_hoard(void (*tell)(void));
bool physmem_settle(void);

struct physmem_stats {
	uint64_t limit;	   /* bytes, 0: none */
	uint64_t resident; /* bytes of the memory file that the host really holds */
	uint64_t frames;   /* handed out, resident or not */
};
void physmem_stats(struct physmem_stats *st);
/* The same without asking the host: resident is not set. */
void physmem_limits(struct physmem_stats *st);
/* True when resident memory is over the limit. */
bool physmem_over_limit(void);

#endif
