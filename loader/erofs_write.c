/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finishing an EROFS image: every inode gets its place in the metadata area, breadth first, so that
 * what a directory lists lies together; then the directories' and long links' blocks are written,
 * then the metadata area, then the superblock.
 */
#include "loader/erofs_write.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "loader/erofs_write_internal.h"
#include "vfs/erofs.h"

#define DIRENT_SIZE sizeof(struct erofs_dirent)
#define META_START  64U /* nid 0 stays free: 0 is no inode number */

/* ---- appending bytes ---- */

/* A position in the output that is being appended to; the last block may be partial. */
struct out {
	struct block_store *store;
	uint64_t pos; /* since out began */
	size_t fill;  /* of the slot */
	int err;      /* sticky */
};

static void out_bytes(struct out *o, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len && !o->err) {
		uint8_t *slot = store_slot(o->store, &o->err);
		size_t n = MIN(EROFS_BLKSIZ - o->fill, len);

		if (!slot)
			return;
		if (p) {
			memcpy(slot + o->fill, p, n);
			p += n;
		} else {
			memset(slot + o->fill, 0, n);
		}
		o->fill += n;
		o->pos += n;
		len -= n;
		if (o->fill == EROFS_BLKSIZ) {
			o->err = store_push(o->store);
			o->fill = 0;
		}
	}
}

/* Zeroes up to @pos. */
static void out_pad_to(struct out *o, uint64_t pos)
{
	out_bytes(o, NULL, (size_t)(pos - o->pos));
}

static void out_finish_block(struct out *o)
{
	if (o->fill)
		out_bytes(o, NULL, EROFS_BLKSIZ - o->fill);
}

/* ---- directories ---- */

/* Walks a directory's names in their order, with "." and ".." among them. */
struct dir_iter {
	const struct enode *dir;
	struct rb_node *next;
	unsigned int dots;
	const char *name;
	size_t len;
	const struct enode *inode;
};

static void dir_iter_init(struct dir_iter *it, const struct enode *dir)
{
	memset(it, 0, sizeof(*it));
	it->dir = dir;
	it->next = rb_first(&dir->dir.children);
}

static bool dir_iter_next(struct dir_iter *it)
{
	struct ename *e = it->next ? rb_entry(it->next, struct ename, node) : NULL;
	size_t dots = it->dots + 1;

	if (it->dots < 2) {
		int c = e ? memcmp("..", e->name, MIN(dots, e->len)) : -1;

		if (c < 0 || (!c && dots < e->len)) {
			it->name = "..";
			it->len = dots;
			it->inode = it->dots++ ? it->dir->dir.parent : it->dir;
			return true;
		}
	}
	if (!e)
		return false;
	it->name = e->name;
	it->len = e->len;
	it->inode = e->inode;
	it->next = rb_next(it->next);
	return true;
}

static uint64_t dir_size(const struct enode *dir)
{
	uint64_t full = 0;
	size_t used = 0;
	struct dir_iter it;

	dir_iter_init(&it, dir);
	while (dir_iter_next(&it)) {
		if (used + DIRENT_SIZE + it.len > EROFS_BLKSIZ) {
			full++;
			used = 0;
		}
		used += DIRENT_SIZE + it.len;
	}
	return (full << EROFS_BLKSZBITS) + used;
}

static uint8_t file_type(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return EROFS_FT_REG;
	case S_IFDIR:
		return EROFS_FT_DIR;
	case S_IFCHR:
		return EROFS_FT_CHR;
	case S_IFBLK:
		return EROFS_FT_BLK;
	case S_IFIFO:
		return EROFS_FT_FIFO;
	case S_IFSOCK:
		return EROFS_FT_SOCK;
	case S_IFLNK:
		return EROFS_FT_LNK;
	}
	return EROFS_FT_UNKNOWN;
}

/*
 * Puts one block together from where @it stands, with the entry that is still in it->name if
 * *@pending. Returns the bytes used; 0 when there are no more.
 */
static size_t dir_block(struct dir_iter *it, bool *pending, uint8_t block[EROFS_BLKSIZ])
{
	struct dir_iter ahead = *it;
	size_t used = 0, count = 0, name_off;
	bool more = *pending || dir_iter_next(&ahead);

	if (!more)
		return 0;
	*it = ahead;
	/* How many entries fit. */
	do {
		if (used + DIRENT_SIZE + ahead.len > EROFS_BLKSIZ)
			break;
		used += DIRENT_SIZE + ahead.len;
		count++;
	} while (dir_iter_next(&ahead));
	memset(block, 0, EROFS_BLKSIZ);
	name_off = count * DIRENT_SIZE;
	*pending = false;
	for (size_t i = 0; i < count; i++) {
		struct erofs_dirent de = {0};

		de.nid = htole64(it->inode->offset / EROFS_SLOT);
		de.nameoff = htole16((uint16_t)name_off);
		de.file_type = file_type(it->inode->mode);
		memcpy(block + i * DIRENT_SIZE, &de, sizeof(de));
		memcpy(block + name_off, it->name, it->len);
		name_off += it->len;
		*pending = dir_iter_next(it);
	}
	return used;
}

/* ---- layout ---- */

/* All inodes in the order in which they lie in the metadata area. */
struct order {
	struct enode **inodes;
	size_t n, cap;
	uint64_t end;	 /* bytes of the metadata area so far */
	uint64_t blocks; /* of directories and links, outside the area */
};

/* Bytes that lie with the inode and must not cross a block. */
static uint32_t tail_size(const struct enode *inode)
{
	return inode->layout == EROFS_FLAT_INLINE ? (uint32_t)(inode->size & (EROFS_BLKSIZ - 1))
						  : 0;
}

/* Decides how a directory's or link's data is laid out. */
static void choose_layout(struct enode *inode)
{
	uint32_t tail = (uint32_t)(inode->size & (EROFS_BLKSIZ - 1));
	uint32_t head = (uint32_t)sizeof(struct erofs_inode_extended) + inode->xattr_size;

	inode->layout = tail && head + tail <= EROFS_BLKSIZ ? EROFS_FLAT_INLINE : EROFS_FLAT_PLAIN;
}

/* Blocks outside the metadata area. */
static uint64_t data_blocks(const struct enode *inode)
{
	return (inode->size - tail_size(inode) + EROFS_BLKSIZ - 1) >> EROFS_BLKSZBITS;
}

static int order_add(struct order *o, struct enode *inode)
{
	uint32_t head = (uint32_t)sizeof(struct erofs_inode_extended) + inode->xattr_size, tail;
	uint64_t at = ALIGN_UP(o->end, (uint64_t)EROFS_SLOT);

	if (o->n == o->cap) {
		size_t cap = o->cap ? o->cap * 2 : 1024;
		struct enode **grown = realloc(o->inodes, cap * sizeof(struct enode *));

		if (!grown)
			return -ENOMEM;
		o->inodes = grown;
		o->cap = cap;
	}
	if (S_ISDIR(inode->mode))
		inode->size = dir_size(inode);
	if (S_ISDIR(inode->mode) || S_ISLNK(inode->mode)) {
		choose_layout(inode);
		inode->start = (uint32_t)o->blocks;
		o->blocks += data_blocks(inode);
		if (o->blocks > UINT32_MAX / 2)
			return -EFBIG;
	}
	tail = tail_size(inode);
	/* The inode itself doesn't cross a block, nor does an inline tail. */
	if ((at & (EROFS_BLKSIZ - 1)) > EROFS_BLKSIZ - sizeof(struct erofs_inode_extended) ||
	    (tail && ((at + head) & (EROFS_BLKSIZ - 1)) + tail > EROFS_BLKSIZ))
		at = ALIGN_UP(at, (uint64_t)EROFS_BLKSIZ);
	inode->offset = at;
	o->end = at + head + tail;
	if (inode->layout == EROFS_CHUNK_BASED)
		o->end = ALIGN_UP(o->end, 4) + 4ULL * inode->file.nchunks;
	o->inodes[o->n++] = inode;
	return 0;
}

static int order_all(struct erofs_writer *w, struct order *o)
{
	int err;

	o->end = META_START;
	err = order_add(o, w->root);
	for (size_t i = 0; !err && i < o->n; i++) {
		struct rb_node *node;

		if (!S_ISDIR(o->inodes[i]->mode))
			continue;
		rb_for_each (node, &o->inodes[i]->dir.children) {
			struct enode *child = rb_entry(node, struct ename, node)->inode;

			/* A second name of the same inode. */
			if (child->offset)
				continue;
			err = order_add(o, child);
			if (err)
				break;
		}
	}
	return err;
}

/* ---- writing ---- */

/* The blocks of a directory or link that lie outside the metadata area. */
static void write_data(struct out *o, struct enode *inode, uint8_t *block)
{
	uint64_t n = data_blocks(inode);
	struct dir_iter it;
	bool pending = false;

	if (S_ISLNK(inode->mode) && n) {
		out_bytes(o, inode->target, (size_t)inode->size);
		out_finish_block(o);
	} else if (S_ISDIR(inode->mode)) {
		dir_iter_init(&it, inode);
		while (n--) {
			dir_block(&it, &pending, block);
			out_bytes(o, block, EROFS_BLKSIZ);
		}
	}
}

static void write_tail(struct out *o, struct enode *inode, uint8_t *block)
{
	uint32_t tail = tail_size(inode);
	struct dir_iter it;
	bool pending = false;

	if (S_ISLNK(inode->mode)) {
		out_bytes(o, inode->target, tail);
		return;
	}
	dir_iter_init(&it, inode);
	for (uint64_t n = data_blocks(inode) + 1; n; n--)
		dir_block(&it, &pending, block);
	out_bytes(o, block, tail);
}

static void write_chunks(struct out *o, const struct enode *inode)
{
	out_pad_to(o, ALIGN_UP(o->pos, 4));
	for (uint32_t i = 0; i < inode->file.nchunks; i++) {
		uint32_t entry = htole32(inode->file.chunks[i]);

		out_bytes(o, &entry, sizeof(entry));
	}
}

static uint32_t inode_u(const struct enode *inode, uint32_t dirs_start)
{
	switch (inode->mode & S_IFMT) {
	case S_IFCHR:
	case S_IFBLK:
		return inode->rdev;
	case S_IFREG:
		return inode->layout == EROFS_CHUNK_BASED ? inode->chunk_bits : inode->start;
	case S_IFDIR:
	case S_IFLNK:
		return inode->start + dirs_start;
	}
	return 0;
}

static void write_inode(struct out *o, struct enode *inode, uint32_t ino, uint32_t dirs_start,
			uint8_t *block)
{
	bool has_data = S_ISREG(inode->mode) || S_ISDIR(inode->mode) || S_ISLNK(inode->mode);
	uint32_t nlink = S_ISDIR(inode->mode) ? 2 + inode->dir.subdirs : inode->names;
	uint16_t xattr_count = 0;
	struct erofs_inode_extended e = {0};

	if (inode->xattrs)
		xattr_count = (uint16_t)((inode->xattr_size - XATTR_HEADER) / 4 + 1);
	e.i_format =
		htole16((uint16_t)(EROFS_I_EXTENDED | (inode->layout << EROFS_I_LAYOUT_SHIFT)));
	e.i_xattr_icount = htole16(xattr_count);
	e.i_mode = htole16((uint16_t)inode->mode);
	e.i_size = htole64(has_data ? inode->size : 0);
	e.i_u = htole32(inode_u(inode, dirs_start));
	e.i_ino = htole32(ino);
	e.i_uid = htole32(inode->uid);
	e.i_gid = htole32(inode->gid);
	e.i_mtime = htole64((uint64_t)inode->mtime);
	e.i_mtime_nsec = htole32(inode->mtime_nsec);
	e.i_nlink = htole32(nlink);
	out_pad_to(o, inode->offset);
	out_bytes(o, &e, sizeof(e));
	if (inode->xattrs)
		out_bytes(o, inode->xattrs, inode->xattr_size);
	if (inode->layout == EROFS_FLAT_INLINE)
		write_tail(o, inode, block);
	else if (inode->layout == EROFS_CHUNK_BASED)
		write_chunks(o, inode);
}

static int write_super(struct erofs_writer *w, const struct order *order, uint32_t meta,
		       const uint8_t uuid[16])
{
	uint8_t block[EROFS_BLKSIZ] = {0};
	struct erofs_super_block sb = {0};
	uint32_t crc;

	sb.magic = htole32(EROFS_SUPER_MAGIC);
	sb.feature_compat = htole32(EROFS_FEATURE_COMPAT_SB_CHKSUM | EROFS_FEATURE_COMPAT_MTIME);
	sb.feature_incompat = htole32(w->chunked ? EROFS_FEATURE_INCOMPAT_CHUNKED_FILE : 0);
	sb.blkszbits = EROFS_BLKSZBITS;
	sb.root_nid = htole16(META_START / EROFS_SLOT);
	sb.inos = htole64(order->n);
	sb.blocks = htole32(w->store.next);
	sb.meta_blkaddr = htole32(meta);
	memcpy(sb.uuid, uuid, sizeof(sb.uuid));
	memcpy(block + EROFS_SUPER_OFFSET, &sb, sizeof(sb));
	crc = htole32(erofs_checksum(block));
	memcpy(block + EROFS_SUPER_OFFSET + offsetof(struct erofs_super_block, checksum), &crc,
	       sizeof(crc));
	return store_set_first(&w->store, block);
}

int erofs_writer_finish(struct erofs_writer *w, const uint8_t uuid[16], uint64_t *size,
			const uint64_t **hashes)
{
	uint32_t dirs_start = w->store.next, meta;
	struct out out = {.store = &w->store};
	uint8_t block[EROFS_BLKSIZ];
	struct order order = {0};
	int err;

	w->first_meta_block = w->store.next;
	err = order_all(w, &order);
	if (err)
		goto out;
	for (size_t i = 0; i < order.n; i++)
		write_data(&out, order.inodes[i], block);
	meta = w->store.next;
	out.pos = 0;
	for (size_t i = 0; i < order.n; i++)
		write_inode(&out, order.inodes[i], (uint32_t)i + 1, dirs_start, block);
	out_finish_block(&out);
	err = out.err;
	if (!err)
		err = store_flush(&w->store);
	if (!err)
		err = write_super(w, &order, meta, uuid);
	*size = (uint64_t)w->store.next << EROFS_BLKSZBITS;
	*hashes = w->store.hashes;
out:
	free(order.inodes);
	return err;
}
