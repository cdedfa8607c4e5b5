/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing an EROFS image: a tree of inodes in memory, file data straight to the output.
 *
 *   erofs_writer_alloc          the tree is a root directory, the output block 0 (reserved)
 *   enode_*, erofs_data_*       names and inodes come and go; file data is appended to the output
 *   erofs_writer_finish         directories, inodes and the superblock are written
 *   erofs_writer_free
 *
 * Memory holds what is about names and inodes, and about 24 bytes per block of file data, never the
 * data. Equal contents are stored once: whole files share their blocks, and a file of which at
 * least an eighth is already there (or is zeroes) becomes a table of block addresses ("chunks"). A
 * file below that stays contiguous, because a contiguous file is one mapping for whoever runs it.
 *
 * The output is a function of the calls made: no clock, no randomness. Not thread-safe.
 * Functions return 0 or -errno: -ENOMEM; -E2BIG past a limit; what writing the output returns.
 */
#ifndef LOADER_EROFS_WRITE_H
#define LOADER_EROFS_WRITE_H

#include "sentry/lib/rbtree.h"
#include "sentry/lib/types.h"

#define ENODE_MAX_DEPTH 2048U	      /* of directories: walks may recurse */
#define EROFS_MAX_FILE	(16ULL << 40) /* bytes of a file, holes included */
#define EROFS_MAX_META	(1ULL << 30)  /* bytes of memory for names, links, xattrs, tables */

/* An inode. It lives as long as it has names (the root: as long as the writer). */
struct enode {
	uint32_t mode, uid, gid;
	uint32_t names; /* how many; nlink of all but directories */
	int64_t mtime;
	uint32_t mtime_nsec;
	uint32_t rdev;	 /* as the kernel packs it */
	uint64_t size;	 /* files and links; of directories once laid out */
	uint8_t *xattrs; /* encoded, with the header; NULL: none */
	uint32_t xattr_size;
	/* laid out by the writer */
	uint8_t layout;
	uint8_t chunk_bits; /* beyond the block's */
	uint32_t start;	    /* first block */
	uint64_t offset;    /* in the metadata area, 0: not laid out yet */
	union {
		struct {
			struct rb_root children;
			struct enode *parent;
			struct ename *name; /* its only one; NULL: the root */
			uint32_t depth, subdirs;
		} dir;
		struct {
			uint32_t *chunks;
			uint32_t nchunks;
		} file;
		char *target;
	};
};

/* A name in a directory. */
struct ename {
	struct rb_node node;
	struct enode *dir, *inode;
	uint32_t layer; /* which layer of the image put it there */
	uint16_t len;
	char name[];
};

struct erofs_stats {
	uint64_t inodes, names;
	uint64_t file_bytes;   /* sizes of all regular files given */
	uint64_t stored_bytes; /* blocks that their data takes */
};

struct erofs_writer;

/* Writes to @fd (read-write, empty, the caller's). @max_inodes: -E2BIG beyond. NULL: no memory. */
struct erofs_writer *erofs_writer_alloc(int fd, uint64_t max_inodes);
void erofs_writer_free(struct erofs_writer *w);
struct enode *erofs_writer_root(struct erofs_writer *w);
void erofs_writer_stats(const struct erofs_writer *w, struct erofs_stats *st);

/* A new inode of @mode without names: enode_link or enode_drop it. *@out is set on success. */
int enode_alloc(struct erofs_writer *w, uint32_t mode, struct enode **out) __must_check;
/* Frees @inode if it has no names (and, for a directory, no children). */
void enode_drop(struct erofs_writer *w, struct enode *inode);
struct ename *enode_find(const struct enode *dir, const char *name, size_t len);
/* Adds a name; there must be none such. -EMLINK for a second name of a directory. */
int enode_link(struct erofs_writer *w, struct enode *dir, const char *name, size_t len,
	       uint32_t layer, struct enode *inode) __must_check;
/* Removes a name, with all that is below it. */
void enode_unlink(struct erofs_writer *w, struct ename *name);
int enode_set_target(struct erofs_writer *w, struct enode *inode, const char *target) __must_check;
/*
 * Adds an attribute; one of that name that is already there stays. Attributes for which EROFS has
 * no name space are dropped.
 */
int enode_add_xattr(struct erofs_writer *w, struct enode *inode, const char *name,
		    const void *value, size_t size) __must_check;
void enode_clear_xattrs(struct erofs_writer *w, struct enode *inode);
void enode_set_rdev(struct enode *inode, dev_t rdev);

/*
 * The data of one file of @size bytes: begin, pieces in ascending order (what is between them is a
 * hole), end. In between nothing else is written. -EFBIG: larger than EROFS_MAX_FILE, -EINVAL: a
 * piece out of order or behind @size.
 */
int erofs_data_begin(struct erofs_writer *w, uint64_t size) __must_check;
int erofs_data_write(struct erofs_writer *w, uint64_t pos, const void *data,
		     size_t len) __must_check;
int erofs_data_end(struct erofs_writer *w, struct enode *file) __must_check;

/*
 * Writes the rest. *@size is the image's, a multiple of 4096; *@hashes (the writer's) has the
 * XXH3-64 of each of its blocks.
 */
int erofs_writer_finish(struct erofs_writer *w, const uint8_t uuid[16], uint64_t *size,
			const uint64_t **hashes) __must_check;

#endif
