/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image below an in-memory filesystem: what memfs asks of the EROFS reader (vfs/erofs.h), in
 * memfs's words. Read-only and without state, so no locks.
 */
#ifndef VFS_MEMFS_LOWER_H
#define VFS_MEMFS_LOWER_H

#include <time.h>

#include "sentry/lib/types.h"
#include "vfs/erofs.h"

struct lower_fs;

/* One inode of the image: the reader's own notion of it, and what becomes the memfs inode. */
struct lower_inode {
	struct erofs_inode raw;
	uint64_t ino, size, nlink;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	dev_t rdev;
	struct timespec mtime;
};

struct lower_fs *lower_open(gpa_t gpa, size_t size);
void lower_close(struct lower_fs *fs);
uint64_t lower_pages(struct lower_fs *fs);
/* Above all inode numbers of the image. */
uint64_t lower_ino_end(struct lower_fs *fs);
int lower_root(struct lower_fs *fs, struct lower_inode *out);
int lower_lookup(struct lower_fs *fs, const struct lower_inode *dir, const char *name, size_t len,
		 struct lower_inode *out);
/* Does @dir have @name? */
bool lower_has(struct lower_fs *fs, const struct lower_inode *dir, const char *name, size_t len);
/* A kmalloc'd string or ERR_PTR. */
char *lower_readlink(struct lower_fs *fs, const struct lower_inode *inode);
/*
 * Where page @pgoff lies: 0 with *@gpa and *@n (contiguous pages, at most *@n on entry), or 1: it
 * can't be mapped as it is (a tail kept with the inode, a hole, small blocks), read it. What a
 * mapped last page has behind the end of the file is zero.
 */
int lower_map(struct lower_fs *fs, const struct lower_inode *inode, uint64_t pgoff, gpa_t *gpa,
	      size_t *n);
/* Reads up to @len bytes at @pos; what is behind the end is not written. Bytes read or -errno. */
ssize_t lower_read(struct lower_fs *fs, const struct lower_inode *inode, uint64_t pos, void *buf,
		   size_t len);
/*
 * Calls @emit for the entries from @pos (0: the first) on, without "." and "..", until it returns
 * false. @next is the position behind the entry.
 */
int lower_readdir(struct lower_fs *fs, const struct lower_inode *dir, uint64_t pos,
		  bool (*emit)(void *arg, const char *name, size_t len, uint64_t ino,
			       unsigned int type, uint64_t next),
		  void *arg);
/* As getxattr(2) and listxattr(2): size 0 asks for the length. */
ssize_t lower_getxattr(struct lower_fs *fs, const struct lower_inode *inode, const char *name,
		       void *value, size_t size);
ssize_t lower_listxattr(struct lower_fs *fs, const struct lower_inode *inode, char *list,
			size_t size);

#endif
