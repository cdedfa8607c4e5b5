/* SPDX-License-Identifier: Apache-2.0 */
#include "vfs/erofs.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "vfs/erofs_fs.h"

/* @len bytes at @off of the image, or NULL if they aren't all in it. */
static const void *at(const struct erofs *fs, uint64_t off, uint64_t len)
{
	if (off > fs->size || len > fs->size - off)
		return NULL;
	return fs->base + off;
}

/* CRC-32C (Castagnoli, reflected), without the final inversion, as the format wants it. */
static uint32_t crc32c(uint32_t crc, const uint8_t *p, size_t len)
{
	/* Four bytes at once, by tables made from one of nibbles: this is part of every start. */
	static const uint32_t nibble[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
		0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
		0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};
	uint32_t t[4][256];

	for (uint32_t i = 0; i < 256; i++) {
		uint32_t low = nibble[i & 15] ^ i >> 4;

		t[0][i] = nibble[low & 15] ^ low >> 4;
	}
	for (size_t k = 1; k < 4; k++) {
		for (size_t i = 0; i < 256; i++)
			t[k][i] = t[0][t[k - 1][i] & 255] ^ t[k - 1][i] >> 8;
	}
	for (; len >= 4; p += 4, len -= 4) {
		crc ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
		       (uint32_t)p[3] << 24;
		crc = t[3][crc & 255] ^ t[2][crc >> 8 & 255] ^ t[1][crc >> 16 & 255] ^
		      t[0][crc >> 24];
	}
	while (len--) {
		crc ^= *p++;
		crc = t[0][crc & 255] ^ crc >> 8;
	}
	return crc;
}

uint32_t erofs_checksum(const void *block)
{
	uint8_t sb[EROFS_BLKSIZ - EROFS_SUPER_OFFSET];

	memcpy(sb, (const uint8_t *)block + EROFS_SUPER_OFFSET, sizeof(sb));
	memset(sb + offsetof(struct erofs_super_block, checksum), 0, sizeof(uint32_t));
	return crc32c(~0U, sb, sizeof(sb));
}

int erofs_open(struct erofs *fs, const void *base, size_t size)
{
	struct erofs_super_block sb;

	memset(fs, 0, sizeof(*fs));
	fs->base = base;
	fs->size = size;
	if (size < EROFS_BLKSIZ)
		return -EINVAL;
	memcpy(&sb, fs->base + EROFS_SUPER_OFFSET, sizeof(sb));
	if (sb.magic != EROFS_SUPER_MAGIC)
		return -EINVAL;
	if (sb.blkszbits != EROFS_BLKSZBITS || sb.dirblkbits ||
	    (sb.feature_incompat & ~EROFS_FEATURE_INCOMPAT_KNOWN))
		return -EOPNOTSUPP;
	fs->meta = (uint64_t)sb.meta_blkaddr << EROFS_BLKSZBITS;
	fs->xattr = (uint64_t)sb.xattr_blkaddr << EROFS_BLKSZBITS;
	fs->root_nid = sb.root_nid;
	fs->inos = sb.inos;
	fs->blocks = sb.blocks;
	fs->build_time.tv_sec = (time_t)sb.build_time;
	fs->build_time.tv_nsec = sb.build_time_nsec % 1000000000;
	if (fs->meta >= size || ((uint64_t)sb.blocks << EROFS_BLKSZBITS) > size)
		return -EUCLEAN;
	return 0;
}

static void from_compact(const struct erofs *fs, const struct erofs_inode_compact *d,
			 struct erofs_inode *out)
{
	out->mode = d->i_mode;
	out->nlink = d->i_nlink;
	out->size = d->i_size;
	out->uid = d->i_uid;
	out->gid = d->i_gid;
	out->ino = d->i_ino;
	out->mtime = fs->build_time;
}

static void from_extended(const struct erofs_inode_extended *d, struct erofs_inode *out)
{
	out->mode = d->i_mode;
	out->nlink = d->i_nlink;
	out->size = d->i_size;
	out->uid = d->i_uid;
	out->gid = d->i_gid;
	out->ino = d->i_ino;
	out->mtime.tv_sec = (time_t)d->i_mtime;
	out->mtime.tv_nsec = d->i_mtime_nsec % 1000000000;
}

static int set_layout(struct erofs_inode *out, uint32_t u)
{
	switch (out->mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
		break;
	case S_IFCHR:
	case S_IFBLK:
		/* The kernel's "new" encoding. */
		out->rdev = makedev((u & 0xfff00) >> 8, (u & 0xff) | ((u >> 12) & 0xfff00));
		return 0;
	case S_IFIFO:
	case S_IFSOCK:
		return 0;
	default:
		return -EUCLEAN;
	}
	if (out->size > INT64_MAX)
		return -EUCLEAN;
	switch (out->layout) {
	case EROFS_FLAT_PLAIN:
	case EROFS_FLAT_INLINE:
		out->blkaddr = u;
		return 0;
	case EROFS_CHUNK_BASED:
		out->chunk_bits = EROFS_BLKSZBITS + (u & EROFS_CHUNK_FORMAT_BITS);
		out->chunk_indexes = u & EROFS_CHUNK_FORMAT_INDEXES;
		return out->chunk_bits < 48 ? 0 : -EUCLEAN;
	default:
		return -EOPNOTSUPP;
	}
}

int erofs_inode_read(const struct erofs *fs, uint64_t nid, struct erofs_inode *out)
{
	struct erofs_inode_compact compact;
	struct erofs_inode_extended extended;
	uint64_t off, isize;
	uint16_t format, icount;
	const void *p;
	uint32_t u;

	memset(out, 0, sizeof(*out));
	if (nid > fs->size / EROFS_SLOT)
		return -EUCLEAN;
	off = fs->meta + nid * EROFS_SLOT;
	p = at(fs, off, sizeof(compact));
	if (!p)
		return -EUCLEAN;
	memcpy(&compact, p, sizeof(compact));
	format = compact.i_format;
	icount = compact.i_xattr_icount;
	out->nid = nid;
	out->layout = (format >> 1) & 7;
	if (format & 1) {
		p = at(fs, off, sizeof(extended));
		if (!p)
			return -EUCLEAN;
		memcpy(&extended, p, sizeof(extended));
		from_extended(&extended, out);
		u = extended.i_u;
		isize = sizeof(extended);
	} else {
		from_compact(fs, &compact, out);
		u = compact.i_u;
		isize = sizeof(compact);
	}
	out->xattr_off = off + isize;
	out->xattr_size = icount ? sizeof(struct erofs_xattr_ibody_header) + (icount - 1u) * 4u : 0;
	out->tail_off = out->xattr_off + out->xattr_size;
	return set_layout(out, u);
}

/* ---- data ---- */

#define MAX_RUN (8ULL << 20) /* bytes of small chunks given as one */

static int map_chunk(const struct erofs *fs, const struct erofs_inode *inode, uint64_t pos,
		     uint64_t *off, uint64_t *len)
{
	uint64_t chunk = pos >> inode->chunk_bits, size = 1ULL << inode->chunk_bits;
	uint64_t unit = inode->chunk_indexes ? sizeof(struct erofs_chunk_index) : 4, table;
	uint64_t inside = pos & (size - 1), left = MIN(size - inside, inode->size - pos);
	uint32_t blkaddr;
	const uint8_t *p;

	table = ALIGN_UP(inode->tail_off, unit);
	if (chunk > fs->size / unit)
		return -EUCLEAN;
	p = at(fs, table + chunk * unit, unit);
	if (!p)
		return -EUCLEAN;
	memcpy(&blkaddr, p + (inode->chunk_indexes ? 4 : 0), sizeof(blkaddr));
	*len = left;
	*off = blkaddr == EROFS_NULL_ADDR ? UINT64_MAX
					  : ((uint64_t)blkaddr << EROFS_BLKSZBITS) + inside;
	/* Chunks that follow each other are one run, but looking for its end has one, too. */
	while (pos + *len < inode->size && *len < MAX_RUN) {
		uint32_t next;

		p = at(fs, table + (++chunk) * unit, unit);
		if (!p)
			break;
		memcpy(&next, p + (inode->chunk_indexes ? 4 : 0), sizeof(next));
		if (blkaddr == EROFS_NULL_ADDR ? next != EROFS_NULL_ADDR
					       : ((uint64_t)next << EROFS_BLKSZBITS) != *off + *len)
			break;
		*len += MIN(size, inode->size - pos - *len);
	}
	return *off == UINT64_MAX || at(fs, *off, *len) ? 0 : -EUCLEAN;
}

int erofs_map(const struct erofs *fs, const struct erofs_inode *inode, uint64_t pos, uint64_t *off,
	      uint64_t *len)
{
	uint64_t whole;

	if (pos >= inode->size)
		return -EINVAL;
	if (inode->layout == EROFS_CHUNK_BASED)
		return map_chunk(fs, inode, pos, off, len);
	whole = inode->layout == EROFS_FLAT_INLINE ? inode->size & ~(uint64_t)(EROFS_BLKSIZ - 1)
						   : inode->size;
	if (pos < whole) {
		*off = ((uint64_t)inode->blkaddr << EROFS_BLKSZBITS) + pos;
		*len = whole - pos;
	} else {
		*off = inode->tail_off + (pos - whole);
		*len = inode->size - pos;
	}
	return at(fs, *off, *len) ? 0 : -EUCLEAN;
}

ssize_t erofs_readlink(const struct erofs *fs, const struct erofs_inode *inode, char *buf,
		       size_t size)
{
	if (!S_ISLNK(inode->mode))
		return -EINVAL;
	if (inode->size > size)
		return -ERANGE;
	return erofs_read(fs, inode, 0, buf, inode->size);
}

uint64_t erofs_nid_end(const struct erofs *fs)
{
	return (fs->size - fs->meta) / EROFS_SLOT + 1;
}

ssize_t erofs_read(const struct erofs *fs, const struct erofs_inode *inode, uint64_t pos, void *buf,
		   size_t len)
{
	size_t done = 0;

	if (pos >= inode->size)
		return 0;
	len = MIN(len, inode->size - pos);
	while (done < len) {
		uint64_t off, run;
		int err = erofs_map(fs, inode, pos + done, &off, &run);
		size_t n;

		if (err)
			return done ? (ssize_t)done : err;
		n = MIN(run, len - done);
		if (off == UINT64_MAX)
			memset((uint8_t *)buf + done, 0, n);
		else
			memcpy((uint8_t *)buf + done, fs->base + off, n);
		done += n;
	}
	return (ssize_t)done;
}

/* ---- directories ---- */

/* One block of a directory. */
struct dir_block {
	const uint8_t *p;
	size_t size;
	unsigned int count;
};

static int dir_block(const struct erofs *fs, const struct erofs_inode *dir, uint64_t block,
		     struct dir_block *b)
{
	uint64_t pos = block << EROFS_BLKSZBITS, off, len;
	struct erofs_dirent first;
	int err = erofs_map(fs, dir, pos, &off, &len);

	if (err)
		return err;
	b->size = MIN(dir->size - pos, (uint64_t)EROFS_BLKSIZ);
	if (off == UINT64_MAX || len < b->size || b->size < sizeof(first))
		return -EUCLEAN;
	b->p = fs->base + off;
	memcpy(&first, b->p, sizeof(first));
	b->count = first.nameoff / (unsigned int)sizeof(first);
	if (!b->count || first.nameoff % sizeof(first) || first.nameoff >= b->size)
		return -EUCLEAN;
	return 0;
}

/* Entry @i of @b. */
static int dir_entry(const struct dir_block *b, unsigned int i, struct erofs_dirent *de,
		     const char **name, size_t *len)
{
	struct erofs_dirent next;
	size_t end = b->size;

	memcpy(de, b->p + i * sizeof(*de), sizeof(*de));
	if (i + 1 < b->count) {
		memcpy(&next, b->p + (i + 1) * sizeof(next), sizeof(next));
		end = next.nameoff;
	}
	if (de->nameoff >= end || end > b->size)
		return -EUCLEAN;
	*name = (const char *)b->p + de->nameoff;
	*len = i + 1 < b->count ? end - de->nameoff : strnlen(*name, end - de->nameoff);
	return 0;
}

static int name_cmp(const char *a, size_t alen, const char *b, size_t blen)
{
	int c = memcmp(a, b, MIN(alen, blen));

	return c ? c : alen < blen ? -1 : alen > blen;
}

int erofs_lookup(const struct erofs *fs, const struct erofs_inode *dir, const char *name,
		 size_t len, uint64_t *nid, unsigned int *type)
{
	uint64_t low = 0, high = (dir->size + EROFS_BLKSIZ - 1) >> EROFS_BLKSZBITS;
	struct erofs_dirent de;
	struct dir_block b;
	const char *n;
	size_t nlen;
	int err;

	if (!S_ISDIR(dir->mode))
		return -ENOTDIR;
	/* The last block whose first name is not above the wanted one. */
	while (low + 1 < high) {
		uint64_t mid = low + (high - low) / 2;

		err = dir_block(fs, dir, mid, &b);
		if (!err)
			err = dir_entry(&b, 0, &de, &n, &nlen);
		if (err)
			return err;
		if (name_cmp(n, nlen, name, len) <= 0)
			low = mid;
		else
			high = mid;
	}
	if (!dir->size)
		return -ENOENT;
	err = dir_block(fs, dir, low, &b);
	if (err)
		return err;
	low = 0;
	high = b.count;
	while (low < high) {
		unsigned int mid = (unsigned int)(low + (high - low) / 2);
		int c;

		err = dir_entry(&b, mid, &de, &n, &nlen);
		if (err)
			return err;
		c = name_cmp(n, nlen, name, len);
		if (!c) {
			*nid = de.nid;
			*type = de.file_type;
			return 0;
		}
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return -ENOENT;
}

/* A position is block << 12 | entry, which fits: a block holds at most 341 entries. */
int erofs_readdir(const struct erofs *fs, const struct erofs_inode *dir, uint64_t pos,
		  bool (*emit)(void *arg, const char *name, size_t len, uint64_t nid,
			       unsigned int type, uint64_t next),
		  void *arg)
{
	uint64_t blocks = (dir->size + EROFS_BLKSIZ - 1) >> EROFS_BLKSZBITS;
	unsigned int i = (unsigned int)(pos & (EROFS_BLKSIZ - 1));

	if (!S_ISDIR(dir->mode))
		return -ENOTDIR;
	for (uint64_t block = pos >> EROFS_BLKSZBITS; block < blocks; block++, i = 0) {
		struct dir_block b;
		int err = dir_block(fs, dir, block, &b);

		if (err)
			return err;
		for (; i < b.count; i++) {
			uint64_t next = i + 1 < b.count ? (block << EROFS_BLKSZBITS) + i + 1
							: (block + 1) << EROFS_BLKSZBITS;
			struct erofs_dirent de;
			const char *name;
			size_t len;

			err = dir_entry(&b, i, &de, &name, &len);
			if (err)
				return err;
			if (!emit(arg, name, len, de.nid, de.file_type, next))
				return 0;
		}
	}
	return 0;
}

/* ---- extended attributes ---- */

static const char *const xattr_prefixes[] = {
	[1] = "user.",
	[2] = "system.posix_acl_access",
	[3] = "system.posix_acl_default",
	[4] = "trusted.",
	[6] = "security.",
};

unsigned int erofs_xattr_index(const char *name, const char **suffix)
{
	for (unsigned int i = 1; i < ARRAY_SIZE(xattr_prefixes); i++) {
		size_t len = xattr_prefixes[i] ? strlen(xattr_prefixes[i]) : 0;

		if (!len || strncmp(name, xattr_prefixes[i], len))
			continue;
		*suffix = name + len;
		/* A whole name has nothing behind it, a prefix has something. */
		if ((xattr_prefixes[i][len - 1] == '.') == (**suffix != 0))
			return i;
	}
	return 0;
}

struct xattr_view {
	const char *prefix, *name;
	size_t name_len;
	const uint8_t *value;
	size_t value_size;
	uint64_t next;
};

/* The entry at @off. */
static int xattr_entry(const struct erofs *fs, uint64_t off, struct xattr_view *v)
{
	struct erofs_xattr_entry e;
	const uint8_t *p = at(fs, off, sizeof(e));

	if (!p)
		return -EUCLEAN;
	memcpy(&e, p, sizeof(e));
	p = at(fs, off, sizeof(e) + e.e_name_len + e.e_value_size);
	if (!p)
		return -EUCLEAN;
	v->prefix =
		e.e_name_index < ARRAY_SIZE(xattr_prefixes) ? xattr_prefixes[e.e_name_index] : NULL;
	v->name = (const char *)p + sizeof(e);
	v->name_len = e.e_name_len;
	v->value = p + sizeof(e) + e.e_name_len;
	v->value_size = e.e_value_size;
	v->next = off + ALIGN_UP(sizeof(e) + e.e_name_len + e.e_value_size, (uint64_t)4);
	return 0;
}

/* Calls @fn for every attribute until it returns non-zero, which is the result. */
static ssize_t xattr_for_each(const struct erofs *fs, const struct erofs_inode *inode,
			      ssize_t (*fn)(const struct xattr_view *v, void *arg), void *arg)
{
	struct erofs_xattr_ibody_header h;
	struct xattr_view v;
	uint64_t off, end;
	const uint8_t *p;
	ssize_t ret = 0;
	int err;

	if (inode->xattr_size < sizeof(h))
		return 0;
	p = at(fs, inode->xattr_off, inode->xattr_size);
	if (!p)
		return -EUCLEAN;
	memcpy(&h, p, sizeof(h));
	off = inode->xattr_off + sizeof(h);
	end = inode->xattr_off + inode->xattr_size;
	for (unsigned int i = 0; i < h.h_shared_count && !ret; i++, off += 4) {
		uint32_t id;

		if (off + 4 > end)
			return -EUCLEAN;
		memcpy(&id, fs->base + off, sizeof(id));
		err = xattr_entry(fs, fs->xattr + (uint64_t)id * 4, &v);
		if (err)
			return err;
		if (v.prefix)
			ret = fn(&v, arg);
	}
	while (!ret && off + sizeof(struct erofs_xattr_entry) <= end) {
		err = xattr_entry(fs, off, &v);
		if (err || v.next > end)
			return -EUCLEAN;
		if (v.prefix)
			ret = fn(&v, arg);
		off = v.next;
	}
	return ret;
}

struct xattr_request {
	const char *name; /* getxattr */
	char *buf;
	size_t size, used;
};

/* Result + 1 of a match, so that an empty value ends the search, too. */
static ssize_t xattr_match(const struct xattr_view *v, void *arg)
{
	struct xattr_request *r = arg;
	size_t plen = strlen(v->prefix);

	if (strncmp(r->name, v->prefix, plen) || strlen(r->name) != plen + v->name_len ||
	    memcmp(r->name + plen, v->name, v->name_len))
		return 0;
	if (r->size && r->size < v->value_size)
		return -ERANGE;
	if (r->size)
		memcpy(r->buf, v->value, v->value_size);
	return (ssize_t)v->value_size + 1;
}

ssize_t erofs_getxattr(const struct erofs *fs, const struct erofs_inode *inode, const char *name,
		       void *value, size_t size)
{
	struct xattr_request r = {.name = name, .buf = value, .size = size};
	ssize_t ret = xattr_for_each(fs, inode, xattr_match, &r);

	return ret > 0 ? ret - 1 : ret ? ret : -ENODATA;
}

static ssize_t xattr_list(const struct xattr_view *v, void *arg)
{
	struct xattr_request *r = arg;
	size_t plen = strlen(v->prefix), n = plen + v->name_len + 1;

	if (r->size) {
		if (r->size - r->used < n)
			return -ERANGE;
		memcpy(r->buf + r->used, v->prefix, plen);
		memcpy(r->buf + r->used + plen, v->name, v->name_len);
		r->buf[r->used + n - 1] = 0;
	}
	r->used += n;
	return 0;
}

ssize_t erofs_listxattr(const struct erofs *fs, const struct erofs_inode *inode, char *list,
			size_t size)
{
	struct xattr_request r = {.buf = list, .size = size};
	ssize_t ret = xattr_for_each(fs, inode, xattr_list, &r);

	return ret ? ret : (ssize_t)r.used;
}
