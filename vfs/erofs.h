/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading an EROFS image that lies in memory. Pure functions on bytes that may be hostile: every
 * offset is checked against the image's size, and a damaged image gives -EIO or -EUCLEAN, never a
 * wild read (test/fuzz/fuzz_erofs.c). No locks, no allocation.
 */
#ifndef VFS_EROFS_H
#define VFS_EROFS_H

#include <time.h>

#include "sentry/lib/types.h"

struct erofs {
	const uint8_t *base;
	size_t size;
	uint64_t meta;	/* byte offset of nid 0 */
	uint64_t xattr; /* of shared extended attributes */
	uint64_t root_nid, inos, blocks;
	struct timespec build_time;
};

struct erofs_inode {
	uint64_t nid, size;
	uint32_t mode, uid, gid, nlink, ino;
	dev_t rdev;
	struct timespec mtime;
	unsigned int layout; /* enum erofs_layout */
	uint32_t blkaddr;    /* flat layouts */
	unsigned int chunk_bits;
	bool chunk_indexes;
	uint64_t xattr_off, xattr_size; /* inline attributes with their header */
	uint64_t tail_off;		/* what follows them: inline tail, chunk table */
};

/* 0, -EINVAL (no EROFS), -EUCLEAN (damaged), -EOPNOTSUPP (features we don't read). */
int erofs_open(struct erofs *fs, const void *base, size_t size);
int erofs_inode_read(const struct erofs *fs, uint64_t nid, struct erofs_inode *out);
/* The entry @name of @dir. 0, -ENOENT, -ENOTDIR, -EUCLEAN. */
int erofs_lookup(const struct erofs *fs, const struct erofs_inode *dir, const char *name,
		 size_t len, uint64_t *nid, unsigned int *type);
/* Types are EROFS's: 1 file, 2 directory, 3 character, 4 block, 5 FIFO, 6 socket, 7 link. */
/*
 * Entries from @pos (0: the first) until @emit returns false; @next is the position behind the
 * entry. "." and ".." come, too.
 */
int erofs_readdir(const struct erofs *fs, const struct erofs_inode *dir, uint64_t pos,
		  bool (*emit)(void *arg, const char *name, size_t len, uint64_t nid,
			       unsigned int type, uint64_t next),
		  void *arg);
/*
 * Where the byte at @pos lies: *@off in the image and *@len bytes from there on that are contiguous
 * (never past the end of the file's data). *@off of UINT64_MAX: a hole of *@len bytes.
 */
int erofs_map(const struct erofs *fs, const struct erofs_inode *inode, uint64_t pos, uint64_t *off,
	      uint64_t *len);
/* The link's target without a NUL. Its length, -EINVAL (no link) or -ERANGE. */
ssize_t erofs_readlink(const struct erofs *fs, const struct erofs_inode *inode, char *buf,
		       size_t size);
/* Above every nid of the image. */
uint64_t erofs_nid_end(const struct erofs *fs);
/* Copies up to @len bytes at @pos. Bytes copied or -errno. */
ssize_t erofs_read(const struct erofs *fs, const struct erofs_inode *inode, uint64_t pos, void *buf,
		   size_t len);
/* Value or list sizes as getxattr(2) and listxattr(2): @size 0 asks; -ENODATA, -ERANGE. */
ssize_t erofs_getxattr(const struct erofs *fs, const struct erofs_inode *inode, const char *name,
		       void *value, size_t size);
ssize_t erofs_listxattr(const struct erofs *fs, const struct erofs_inode *inode, char *list,
			size_t size);

/* The superblock's checksum for the 4096-byte block 0 at @block. */
uint32_t erofs_checksum(const void *block);
/*
 * Splits an attribute's full name for struct erofs_xattr_entry: the number of its prefix, with
 * *@suffix set to the rest; 0 if EROFS has no such prefix.
 */
unsigned int erofs_xattr_index(const char *name, const char **suffix);

#endif
