/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot as a file: the image of a frozen sandbox (snapshot_image.h) without its holes. A
 * device tree in pages of its own, then pages:
 *
 *	/ …		as in the image
 *	/file		created (seconds, nanoseconds), sandbox (its name); data (offset in this
 *			file, size); pages (stored, shared: left out because an equal one is
 *			stored); chunks (XXH3-128 of each SNAPSHOT_CHUNK bytes of data); segments;
 *			hash (XXH3-128 of this tree with these 16 bytes zero)
 *
 * A segment is three cells: first page in the image, first page of the data, how many pages. They
 * are in the image's order and don't overlap there; in the data they may, where pages are alike.
 * What no segment covers is zero. Pages are mapped from the file, which must not change afterwards.
 *
 * A file is hostile input until it has been checked; what its pages hold is the kernel's state, and
 * can't be checked: whoever restores a snapshot trusts whoever made it (docs/snapshots.md).
 */
#ifndef SENTRY_SNAPSHOT_FILE_H
#define SENTRY_SNAPSHOT_FILE_H

#include "sentry/lib/types.h"

#define SNAPSHOT_CHUNK	      (1UL << 20)
#define SNAPSHOT_META_MAX     (512UL << 20)
#define SNAPSHOT_SEGMENTS_MAX (16UL << 20)
#define SNAPSHOT_HASH	      16

struct snapshot_segment {
	uint32_t image, data; /* pages */
	uint32_t n;
};

struct snapshot_file {
	int fd;
	void *fdt; /* malloc'd; what strings point into */
	size_t fdt_size;
	uint64_t size; /* of the file */
	uint64_t created;
	const char *name;
	uint64_t data, data_size; /* bytes */
	uint64_t stored, shared;  /* pages */
	const uint8_t *chunks;
	size_t nr_chunks;
	struct snapshot_segment *segments; /* malloc'd */
	size_t nr_segments;
};

/* ---- reading ---- */

/*
 * Checks the tree @fdt of @fdt_size bytes at the beginning of a file of @size bytes. Takes over
 * @fdt, malloc'd, also on failure. 0, or -EINVAL or -ENOMEM with one line in @why;
 * snapshot_file_close afterwards.
 */
int snapshot_file_parse(struct snapshot_file *f, void *fdt, size_t fdt_size, uint64_t size,
			char *why, size_t why_size) __must_check;
/* The same for the file @path, which stays open. Not its data: snapshot_file_verify. */
int snapshot_file_open(struct snapshot_file *f, const char *path, char *why,
		       size_t why_size) __must_check;
void snapshot_file_close(struct snapshot_file *f);
/*
 * Reads the data, and holds it against its hashes. 0, or -EINVAL or -errno with one line in @why.
 */
int snapshot_file_verify(const struct snapshot_file *f, char *why, size_t why_size) __must_check;

/* All of these are of bytes of the image [start, end), page multiples; 0 or -errno. */

/* Calls @fn with each range that something is stored for. */
int snapshot_file_for_data(const struct snapshot_file *f, uint64_t start, uint64_t end,
			   int (*fn)(void *arg, uint64_t offset, size_t len),
			   void *arg) __must_check;
/* Copies them to @to. Holes are zeroes. */
int snapshot_file_read(const struct snapshot_file *f, uint64_t start, uint64_t end,
		       void *to) __must_check;
/*
 * Maps them privately at @at, where nothing is mapped: long runs from the file, short ones are
 * copied, so that the host isn't asked for too many mappings.
 */
int snapshot_file_map(const struct snapshot_file *f, uint64_t start, uint64_t end,
		      void *at) __must_check;

/* ---- making ---- */

struct snapshot_build {
	const uint8_t *image;		   /* mapped, to read */
	struct snapshot_segment *segments; /* malloc'd, like all below */
	size_t nr_segments, cap_segments;
	uint32_t *pages; /* of the data: which page of the image it is */
	size_t nr_pages, cap_pages;
	uint32_t *table; /* hash table: place in pages + 1, 0: free */
	uint64_t *hashes;
	size_t table_size; /* a power of two */
	uint64_t shared;
};

/*
 * From a mapped image to what a file of it holds. Each page that has something is to be told once,
 * in ascending order; those that are zero are left out. 0 or -ENOMEM.
 */
int snapshot_build_page(struct snapshot_build *b, uint32_t page) __must_check;
void snapshot_build_free(struct snapshot_build *b);
/*
 * The file's tree: @meta is the image's, checked to be one. malloc'd, *@size bytes; *@data is where
 * the data begins. NULL: no memory, or @meta is nonsense.
 */
void *snapshot_build_tree(const struct snapshot_build *b, const void *meta, const char *name,
			  uint64_t seconds, size_t *size, uint64_t *data) __must_check;

#endif
