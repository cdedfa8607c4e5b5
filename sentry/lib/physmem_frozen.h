/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Setting guest memory back to what it was (sentry/snapshot.h has the whole).
 *
 * The frames' contents at the freeze are in an image file. From then on the frames are told apart
 * by how one finds out that they have changed:
 *
 *   tracked	user memory that is write-protected: whoever writes comes through a fault, and the
 *		page tables tell (sentry/mm/frozen.c calls physmem_set_back)
 *   hot	was tracked, has been written to: left writable, and set back every time
 *   checked	what the sentry itself writes to, files above all: compared every time
 *   taken	handed out since: zeroed, as free memory is
 *
 * In a copy whose stubs map the memory file, frames are lent at first: the sentry and the stubs map
 * the image instead, and no page-table entry lets anybody write. Whoever makes such an entry, or
 * writes past the tables, calls physmem_own before, and invalidates what caches know of the page
 * afterwards. So a copy has memory for what it has changed only.
 *
 * Nobody else runs when these are called (tasks discarded, world held), but for what is noted while
 * they run: physmem_note_taken.
 */
#ifndef SENTRY_LIB_PHYSMEM_FROZEN_H
#define SENTRY_LIB_PHYSMEM_FROZEN_H

#include "sentry/lib/physmem.h"

/*
 * Writes what frames hold to @fd from @offset on (holes are zeroes), and takes this for the state
 * to go back to. @view: where the file from @offset on is mapped, to read. Every used frame is
 * `checked` until physmem_frozen_tracked. Drops an earlier frozen state. 0 or -errno.
 */
int physmem_freeze(int fd, uint64_t offset, const void *view) __must_check;
/*
 * Just writes them, for an image that somebody else is restored from. @omit: NULL, or a bit for
 * each frame below physmem_extent that is to be zero there.
 */
int physmem_store(int fd, uint64_t offset, const uint64_t *omit) __must_check;
/* The frame is found by page tables when it changes. */
void physmem_frozen_tracked(gpa_t gpa);
/* The frame isn't set back at all: it belongs to the sentry's clock. */
void physmem_frozen_skip(gpa_t gpa);
/* After the last physmem_frozen_tracked. 0 or -ENOMEM. */
int physmem_frozen_ready(void) __must_check;

/* A tracked frame may have changed: sets it back now. True: it had. */
bool physmem_set_back(gpa_t gpa);
/* As that, and from now on in every physmem_rewind. False: there are too many of those. */
bool physmem_make_hot(gpa_t gpa);
/* Written to by the sentry past the page tables (a debugger's access). */
void physmem_note_written(gpa_t gpa);

struct physmem_rewound {
	size_t copied; /* frames that had changed and were set back */
	size_t looked; /* frames that were compared */
	size_t zeroed; /* frames that were handed out since */
};
/*
 * Sets back hot and checked frames, zeroes taken ones. To be followed by the kernel state's own
 * return; then physmem_rewind_done.
 */
void physmem_rewind(struct physmem_rewound *r);
void physmem_rewind_done(void);

/*
 * About to write to @n frames from @gpa: what of them is lent becomes this sandbox's own. 0, or
 * -ENOMEM: the host has none.
 */
int physmem_own(gpa_t gpa, size_t n) __must_check;
/* A lent frame that was writable in the frozen state, because requests write to it; is it one? */
void physmem_lent_hot(gpa_t gpa);
bool physmem_is_lent_hot(gpa_t gpa);

/* Where a restored sandbox's memory comes from. All return 0 or -errno. */
typedef int (*phys_data_fn)(void *arg, gpa_t gpa, size_t len);
struct phys_source {
	/*
	 * The platform's guest uses this process's mappings: memory is the source's, mapped, until
	 * it is written to. Else it is lent, or copied.
	 */
	bool share;
	/* A file that has it from @offset on, for stubs to map; -1: it must be copied. */
	int fd;
	uint64_t offset;
	/* Calls back with each range that holds something. */
	int (*for_data)(const struct phys_source *s, phys_data_fn fn, void *arg);
	/* Maps [gpa, gpa+len) privately at @at, where nothing is. With share. */
	int (*map)(const struct phys_source *s, void *at, gpa_t gpa, size_t len);
	/* Copies it. Without share or fd. */
	int (*read)(const struct phys_source *s, void *to, gpa_t gpa, size_t len);
};
/*
 * In a process that is going to restore a snapshot, instead of physmem_init: what belongs to the
 * process. @share: as the source has it. 0 or -errno.
 */
int physmem_restore_prepare(bool share) __must_check;
/*
 * The allocator's state is there now (it is kernel state). @view: where the source can be read, for
 * physmem_rewind; NULL: there won't be one. Then as after physmem_freeze. 0 or -errno.
 */
int physmem_restore(const struct phys_source *s, const void *view, gpa_t tables_end,
		    gpa_t tables_free) __must_check;
/* Announces what is in use, to a listener that is there now. 0 or -errno. */
int physmem_announce(void) __must_check;
/* Maps file number @i, which the sandbox had, again. 0 or -errno. */
int physmem_reopen_file(size_t i, int fd) __must_check;

/* For tests: looks at every frame, and sets back and counts what physmem_rewind has missed. */
size_t physmem_verify(void);

/* How far frames were ever handed out: all beyond reads as zero. */
gpa_t physmem_extent(void);
/* The memory in use for page tables: from where, and to where. */
void physmem_tables(gpa_t *from, gpa_t *to);
/* The first of their freed pages (table_free), GPA_NONE: none. */
gpa_t physmem_tables_free(void);
/* The allocator's own tables behind the arena, as far as they are in use. */
struct phys_region {
	uintptr_t start, end;
};
#define PHYS_KERNEL_REGIONS 3
void physmem_kernel_regions(struct phys_region r[PHYS_KERNEL_REGIONS]);
/* The end of all that may ever be. */
uintptr_t physmem_kernel_end(void);

#endif
