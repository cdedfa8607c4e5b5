/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree of an EROFS image under construction: inodes, and per directory a search tree of names,
 * which is also the order in which a directory is written.
 */
#include "loader/erofs_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "loader/erofs_write_internal.h"
#include "vfs/erofs.h"

int writer_charge(struct erofs_writer *w, uint64_t n)
{
	if (n > EROFS_MAX_META - w->meta_bytes)
		return -E2BIG;
	w->meta_bytes += n;
	return 0;
}

int enode_alloc(struct erofs_writer *w, uint32_t mode, struct enode **out)
{
	struct enode *inode;
	int err;

	if (w->stats.inodes >= w->max_inodes)
		return -E2BIG;
	err = writer_charge(w, sizeof(*inode));
	if (err)
		return err;
	inode = calloc(1, sizeof(*inode));
	if (!inode)
		return -ENOMEM;
	inode->mode = mode;
	w->stats.inodes++;
	*out = inode;
	return 0;
}

static void enode_free(struct erofs_writer *w, struct enode *inode)
{
	w->meta_bytes -= sizeof(*inode) + inode->xattr_size;
	if (S_ISREG(inode->mode)) {
		w->meta_bytes -= inode->file.nchunks * sizeof(uint32_t);
		w->stats.file_bytes -= inode->size;
		free(inode->file.chunks);
	} else if (S_ISLNK(inode->mode)) {
		w->meta_bytes -= inode->target ? inode->size + 1 : 0;
		free(inode->target);
	}
	free(inode->xattrs);
	free(inode);
	w->stats.inodes--;
}

void enode_drop(struct erofs_writer *w, struct enode *inode)
{
	if (inode && !inode->names && inode != w->root &&
	    !(S_ISDIR(inode->mode) && inode->dir.children.node))
		enode_free(w, inode);
}

static int name_compare(const char *a, size_t alen, const char *b, size_t blen)
{
	int c = memcmp(a, b, MIN(alen, blen));

	return c ? c : (alen > blen) - (alen < blen);
}

struct ename *enode_find(const struct enode *dir, const char *name, size_t len)
{
	struct rb_node *node = dir->dir.children.node;

	while (node) {
		struct ename *e = rb_entry(node, struct ename, node);
		int c = name_compare(name, len, e->name, e->len);

		if (!c)
			return e;
		node = c < 0 ? node->left : node->right;
	}
	return NULL;
}

int enode_link(struct erofs_writer *w, struct enode *dir, const char *name, size_t len,
	       uint32_t layer, struct enode *inode)
{
	struct rb_node **link = &dir->dir.children.node, *parent = NULL;
	struct ename *e;
	int err;

	if (!len || len > EROFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (S_ISDIR(inode->mode)) {
		if (inode->names)
			return -EMLINK;
		if (dir->dir.depth + 1 > ENODE_MAX_DEPTH)
			return -ELOOP;
	}
	err = writer_charge(w, sizeof(*e) + len);
	if (err)
		return err;
	e = malloc(sizeof(*e) + len);
	if (!e) {
		w->meta_bytes -= sizeof(*e) + len;
		return -ENOMEM;
	}
	e->dir = dir;
	e->inode = inode;
	e->layer = layer;
	e->len = (uint16_t)len;
	memcpy(e->name, name, len);
	while (*link) {
		struct ename *at = rb_entry(*link, struct ename, node);

		parent = *link;
		link = name_compare(name, len, at->name, at->len) < 0 ? &parent->left
								      : &parent->right;
	}
	rb_link_node(&e->node, parent, link);
	rb_insert_color(&dir->dir.children, &e->node);
	inode->names++;
	w->stats.names++;
	if (S_ISDIR(inode->mode)) {
		inode->dir.parent = dir;
		inode->dir.name = e;
		inode->dir.depth = dir->dir.depth + 1;
		dir->dir.subdirs++;
	}
	return 0;
}

/* Removes one name whose inode, if a directory, is empty. */
static void unlink_one(struct erofs_writer *w, struct ename *e)
{
	struct enode *inode = e->inode;

	rb_erase(&e->dir->dir.children, &e->node);
	if (S_ISDIR(inode->mode))
		e->dir->dir.subdirs--;
	w->meta_bytes -= sizeof(*e) + e->len;
	w->stats.names--;
	free(e);
	inode->names--;
	enode_drop(w, inode);
}

/* Empties @top without recursion: down while there is a child, up when there is none. */
static void remove_children(struct erofs_writer *w, struct enode *top)
{
	struct enode *dir = top;

	for (;;) {
		struct rb_node *first = dir->dir.children.node;
		struct ename *e;

		if (!first) {
			if (dir == top)
				return;
			e = dir->dir.name;
			dir = dir->dir.parent;
			unlink_one(w, e);
			continue;
		}
		e = rb_entry(first, struct ename, node);
		if (S_ISDIR(e->inode->mode) && e->inode->dir.children.node)
			dir = e->inode;
		else
			unlink_one(w, e);
	}
}

void enode_unlink(struct erofs_writer *w, struct ename *e)
{
	if (S_ISDIR(e->inode->mode))
		remove_children(w, e->inode);
	unlink_one(w, e);
}

int enode_set_target(struct erofs_writer *w, struct enode *inode, const char *target)
{
	size_t len = strlen(target);
	int err;

	if (!len || len >= EROFS_BLKSIZ)
		return -ENAMETOOLONG;
	err = writer_charge(w, len + 1);
	if (err)
		return err;
	inode->target = strdup(target);
	inode->size = len;
	if (inode->target)
		return 0;
	w->meta_bytes -= len + 1;
	return -ENOMEM;
}

void enode_set_rdev(struct enode *inode, dev_t rdev)
{
	inode->rdev = (minor(rdev) & 0xff) | ((major(rdev) & 0xfff) << 8) |
		      ((minor(rdev) & 0xfff00) << 12);
}

/* Is there an attribute with this prefix and suffix in the area of @inode? */
static bool xattr_present(const struct enode *inode, unsigned int index, const char *suffix,
			  size_t len)
{
	uint32_t pos = XATTR_HEADER;

	while (pos < inode->xattr_size) {
		const uint8_t *e = inode->xattrs + pos;
		uint32_t size = 4U + e[0] + e[2] + (e[3] << 8);

		if (e[0] == len && e[1] == index && !memcmp(e + 4, suffix, len))
			return true;
		pos += ALIGN_UP(size, EROFS_XATTR_ALIGN);
	}
	return false;
}

int enode_add_xattr(struct erofs_writer *w, struct enode *inode, const char *name,
		    const void *value, size_t size)
{
	uint32_t old = inode->xattr_size, start = old ? old : XATTR_HEADER;
	const char *suffix;
	unsigned int index = erofs_xattr_index(name, &suffix);
	size_t len, need;
	uint8_t *grown, *e;
	int err;

	if (!index)
		return 0;
	len = strlen(suffix);
	if (xattr_present(inode, index, suffix, len))
		return 0;
	need = ALIGN_UP(sizeof(struct erofs_xattr_entry) + len + size, EROFS_XATTR_ALIGN);
	/* The count in the inode has 16 bits, in units of 4 bytes. */
	if (len > UINT8_MAX || size > UINT16_MAX ||
	    start + need > XATTR_HEADER + 4U * (UINT16_MAX - 1U))
		return -ERANGE;
	err = writer_charge(w, start + need - old);
	if (err)
		return err;
	grown = realloc(inode->xattrs, start + need);
	if (!grown) {
		w->meta_bytes -= start + need - old;
		return -ENOMEM;
	}
	memset(grown + old, 0, start + need - old);
	e = grown + start;
	e[0] = (uint8_t)len;
	e[1] = (uint8_t)index;
	e[2] = (uint8_t)size;
	e[3] = (uint8_t)(size >> 8);
	memcpy(e + 4, suffix, len);
	if (size)
		memcpy(e + 4 + len, value, size);
	inode->xattrs = grown;
	inode->xattr_size = (uint32_t)(start + need);
	return 0;
}

void enode_clear_xattrs(struct erofs_writer *w, struct enode *inode)
{
	w->meta_bytes -= inode->xattr_size;
	free(inode->xattrs);
	inode->xattrs = NULL;
	inode->xattr_size = 0;
}

static void map_free(struct block_map *m)
{
	free(m->keys);
	free(m->blocks);
}

struct erofs_writer *erofs_writer_alloc(int fd, uint64_t max_inodes)
{
	struct erofs_writer *w = calloc(1, sizeof(*w));
	int err = 0;

	if (!w)
		return NULL;
	w->max_inodes = max_inodes;
	w->store.fd = fd;
	w->store.buf = malloc((size_t)STORE_BUF_BLOCKS * EROFS_BLKSIZ);
	if (!w->store.buf || enode_alloc(w, S_IFDIR | 0755, &w->root))
		goto fail;
	w->root->dir.parent = w->root;
	/* Block 0 is written last. */
	if (!store_slot(&w->store, &err))
		goto fail;
	memset(w->store.buf, 0, EROFS_BLKSIZ);
	if (store_push(&w->store))
		goto fail;
	return w;
fail:
	erofs_writer_free(w);
	return NULL;
}

void erofs_writer_free(struct erofs_writer *w)
{
	if (!w)
		return;
	if (w->root) {
		remove_children(w, w->root);
		enode_free(w, w->root);
	}
	map_free(&w->blocks);
	map_free(&w->files);
	free(w->store.buf);
	free(w->store.hashes);
	free(w->data.index);
	free(w);
}

struct enode *erofs_writer_root(struct erofs_writer *w)
{
	return w->root;
}

void erofs_writer_stats(const struct erofs_writer *w, struct erofs_stats *st)
{
	*st = w->stats;
	if (w->first_meta_block)
		st->stored_bytes = (w->first_meta_block - 1) << EROFS_BLKSZBITS;
}
