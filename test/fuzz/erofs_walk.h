/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that can be read of an EROFS image, read. Shared by the fuzz targets. */
#ifndef TEST_FUZZ_EROFS_WALK_H
#define TEST_FUZZ_EROFS_WALK_H

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vfs/erofs.h"

#define WALK_INODES 2000U /* a hostile image may hold cycles */
#define WALK_READ   (128U << 10)

struct walk {
	const struct erofs *fs;
	unsigned int inodes, depth, left; /* left: entries until walk_emit stops */
	bool strict; /* the image is ours: whatever fails is a bug */
	uint64_t nids[512];
	unsigned int types[512], n;
	char last[256];
	size_t last_len;
	const struct erofs_inode *dir;
};

static inline void walk_wants(const struct walk *w, bool good)
{
	if (w->strict && !good)
		__builtin_trap();
}

/* What the reader returns is memory of the image: touch it. */
static inline void walk_touch(const void *p, size_t n)
{
	static volatile uint8_t sum;

	for (size_t i = 0; i < n; i++)
		sum ^= ((const uint8_t *)p)[i];
}

static bool walk_emit(void *arg, const char *name, size_t len, uint64_t nid, unsigned int type,
		      uint64_t next)
{
	struct walk *w = arg;
	unsigned int found_type;
	uint64_t found;
	int err;

	walk_touch(name, len);
	err = erofs_lookup(w->fs, w->dir, name, len, &found, &found_type);
	walk_wants(w, !err && found == nid && found_type == type && next && len && len < 256);
	if (w->strict) {
		size_t n = w->last_len < len ? w->last_len : len;
		int c = memcmp(w->last, name, n);

		walk_wants(w, c < 0 || (!c && w->last_len < len));
		memcpy(w->last, name, len);
		w->last_len = len;
	}
	if (w->n < 512 && !(len == 1 && name[0] == '.') && !(len == 2 && !memcmp(name, "..", 2))) {
		w->types[w->n] = type;
		w->nids[w->n++] = nid;
	}
	return ++w->inodes < WALK_INODES && --w->left;
}

static void walk_file(struct walk *w, const struct erofs_inode *inode)
{
	static uint8_t buf[70000];
	const uint64_t places[] = {0,
				   1,
				   4095,
				   4096,
				   inode->size / 2,
				   inode->size - 1,
				   inode->size,
				   inode->size + 1,
				   UINT64_MAX - 1,
				   1ULL << 47};
	uint64_t pos = 0, off, len;
	ssize_t n = 0;

	while (pos < inode->size && pos < WALK_READ) {
		n = erofs_read(w->fs, inode, pos, buf, sizeof(buf));
		if (n <= 0)
			break;
		pos += (uint64_t)n;
	}
	walk_wants(w, pos == inode->size || pos >= WALK_READ);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		int err = erofs_map(w->fs, inode, places[i], &off, &len);

		walk_wants(w, !err == (places[i] < inode->size));
		if (err)
			continue;
		if (!len || len > inode->size - places[i])
			__builtin_trap();
		if (off != UINT64_MAX && (off > w->fs->size || len > w->fs->size - off))
			__builtin_trap();
		n = erofs_read(w->fs, inode, places[i], buf, 100);
		walk_wants(w, n > 0);
	}
}

static void walk_xattrs(struct walk *w, const struct erofs_inode *inode)
{
	ssize_t len = erofs_listxattr(w->fs, inode, NULL, 0), n, m;
	static char value[1 << 16];
	unsigned int count = 0;
	char *list;

	walk_wants(w, len >= 0);
	if (len <= 0)
		return;
	list = malloc((size_t)len);
	if (erofs_listxattr(w->fs, inode, list, (size_t)len) != len)
		__builtin_trap();
	if (len > 1 && erofs_listxattr(w->fs, inode, list, (size_t)len - 1) != -ERANGE)
		__builtin_trap();
	/* The last call has filled all but the last name. */
	erofs_listxattr(w->fs, inode, list, (size_t)len);
	if (list[len - 1])
		__builtin_trap();
	for (char *p = list; p < list + len && count++ < 32; p += strlen(p) + 1) {
		n = erofs_getxattr(w->fs, inode, p, NULL, 0);
		m = erofs_getxattr(w->fs, inode, p, value, sizeof(value));
		walk_wants(w, n >= 0 && n == m);
		if (n > 1 && erofs_getxattr(w->fs, inode, p, value, 1) != -ERANGE)
			__builtin_trap();
	}
	free(list);
	erofs_getxattr(w->fs, inode, "user.none", value, sizeof(value));
}

static void walk_inode(struct walk *w, uint64_t nid, unsigned int type)
{
	struct erofs_inode inode;
	static char target[5000];
	unsigned int t;
	uint64_t found;
	ssize_t n;
	int err;

	if (w->inodes++ >= WALK_INODES)
		return;
	err = erofs_inode_read(w->fs, nid, &inode);
	walk_wants(w, !err && (S_ISDIR(inode.mode)) == (type == 2));
	if (err)
		return;
	walk_xattrs(w, &inode);
	walk_file(w, &inode);
	n = erofs_readlink(w->fs, &inode, target, sizeof(target));
	if (n > (ssize_t)sizeof(target))
		__builtin_trap();
	walk_wants(w, S_ISLNK(inode.mode) == (n > 0));
	erofs_lookup(w->fs, &inode, "nothing", 7, &found, &t);
	erofs_lookup(w->fs, &inode, "", 0, &found, &t);
	if (S_ISDIR(inode.mode) && w->depth < 40) {
		struct walk *below = calloc(1, sizeof(*below));

		below->fs = w->fs;
		below->strict = w->strict;
		below->dir = &inode;
		below->depth = w->depth + 1;
		below->inodes = w->inodes;
		below->left = UINT_MAX;
		err = erofs_readdir(w->fs, &inode, 0, walk_emit, below);
		walk_wants(w, !err);
		below->strict = false;
		below->left = 10;
		erofs_readdir(w->fs, &inode, 3, walk_emit, below);
		erofs_readdir(w->fs, &inode, UINT64_MAX - 5, walk_emit, below);
		below->strict = w->strict;
		for (unsigned int i = 0; i < below->n; i++) {
			/* Many names of one inode show nothing new. */
			if (i > 3 && below->nids[i] == below->nids[i - 1])
				continue;
			walk_inode(below, below->nids[i], below->types[i]);
		}
		w->inodes = below->inodes;
		free(below);
	}
}

/* Reads all of the image. @strict: it must be a sound one. */
static void walk_image(const void *image, size_t size, bool strict)
{
	struct walk w = {.strict = strict};
	struct erofs fs;
	int err = erofs_open(&fs, image, size);

	w.fs = &fs;
	walk_wants(&w, !err);
	if (!err)
		walk_inode(&w, fs.root_nid, 2);
}

#endif
