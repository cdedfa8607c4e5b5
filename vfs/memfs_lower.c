/* SPDX-License-Identifier: Apache-2.0 */
/* Between memfs and the EROFS reader: types, page runs, positions. */
#include "vfs/memfs_lower.h"

#include <dirent.h>
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/physmem.h"

#define SYMLINK_MAX_LEN 4095

struct lower_fs {
	struct erofs erofs;
	gpa_t gpa;
	uint64_t size;
};

struct lower_fs *lower_open(gpa_t gpa, size_t size)
{
	struct lower_fs *fs = kzalloc(sizeof(*fs));
	int err;

	if (!fs)
		return ERR_PTR(-ENOMEM);
	fs->gpa = gpa;
	fs->size = size;
	err = erofs_open(&fs->erofs, phys_ptr(gpa), size);
	if (err) {
		kfree(fs);
		return ERR_PTR(err);
	}
	return fs;
}

void lower_close(struct lower_fs *fs)
{
	kfree(fs);
}

uint64_t lower_pages(struct lower_fs *fs)
{
	return fs->size / PAGE_SIZE;
}

uint64_t lower_ino_end(struct lower_fs *fs)
{
	return erofs_nid_end(&fs->erofs);
}

static int lower_inode_read(struct lower_fs *fs, uint64_t nid, struct lower_inode *out)
{
	int err = erofs_inode_read(&fs->erofs, nid, &out->raw);

	if (err)
		return err;
	out->ino = nid;
	out->size = out->raw.size;
	out->nlink = out->raw.nlink;
	out->mode = out->raw.mode;
	out->uid = out->raw.uid;
	out->gid = out->raw.gid;
	out->rdev = out->raw.rdev;
	out->mtime = out->raw.mtime;
	return 0;
}

int lower_root(struct lower_fs *fs, struct lower_inode *out)
{
	return lower_inode_read(fs, fs->erofs.root_nid, out);
}

int lower_lookup(struct lower_fs *fs, const struct lower_inode *dir, const char *name, size_t len,
		 struct lower_inode *out)
{
	unsigned int type;
	uint64_t nid;
	int err = erofs_lookup(&fs->erofs, &dir->raw, name, len, &nid, &type);

	return err ? err : lower_inode_read(fs, nid, out);
}

bool lower_has(struct lower_fs *fs, const struct lower_inode *dir, const char *name, size_t len)
{
	unsigned int type;
	uint64_t nid;

	return !erofs_lookup(&fs->erofs, &dir->raw, name, len, &nid, &type);
}

char *lower_readlink(struct lower_fs *fs, const struct lower_inode *inode)
{
	ssize_t n;
	char *s;

	if (inode->size > SYMLINK_MAX_LEN)
		return ERR_PTR(-ENAMETOOLONG);
	s = kmalloc(inode->size + 1);
	if (!s)
		return ERR_PTR(-ENOMEM);
	n = erofs_read(&fs->erofs, &inode->raw, 0, s, inode->size);
	if (n < 0) {
		kfree(s);
		return ERR_PTR(n);
	}
	s[n] = '\0';
	return s;
}

/* Is what the page of the file's last byte has behind it zero? */
static bool tail_is_zero(const struct lower_fs *fs, uint64_t end)
{
	uint64_t page_end = ALIGN_UP(end, PAGE_SIZE);

	if (page_end > fs->erofs.size)
		return false;
	for (; end < page_end; end++)
		if (fs->erofs.base[end])
			return false;
	return true;
}

int lower_map(struct lower_fs *fs, const struct lower_inode *inode, uint64_t pgoff, gpa_t *gpa,
	      size_t *n)
{
	uint64_t pos = pgoff * PAGE_SIZE, off, len, more_off, more;
	size_t pages;

	if (pos >= inode->size || erofs_map(&fs->erofs, &inode->raw, pos, &off, &len) ||
	    off == UINT64_MAX || off % PAGE_SIZE)
		return 1;
	/* Chunks that follow each other in the image are one run. */
	while (len / PAGE_SIZE < *n && !(len % PAGE_SIZE) && pos + len < inode->size) {
		if (erofs_map(&fs->erofs, &inode->raw, pos + len, &more_off, &more) || !more ||
		    more_off != off + len)
			break;
		len += more;
	}
	pages = len / PAGE_SIZE;
	if (len % PAGE_SIZE && pages < *n && pos + len == inode->size &&
	    tail_is_zero(fs, off + len))
		pages++;
	if (!pages)
		return 1;
	*n = MIN(*n, pages);
	*gpa = fs->gpa + off;
	return 0;
}

ssize_t lower_read(struct lower_fs *fs, const struct lower_inode *inode, uint64_t pos, void *buf,
		   size_t len)
{
	return erofs_read(&fs->erofs, &inode->raw, pos, buf, len);
}

struct lower_emit {
	bool (*emit)(void *arg, const char *name, size_t len, uint64_t ino, unsigned int type,
		     uint64_t next);
	void *arg;
};

static bool lower_emit_one(void *arg, const char *name, size_t len, uint64_t nid, unsigned int type,
			   uint64_t next)
{
	static const unsigned char types[] = {DT_UNKNOWN, DT_REG,  DT_DIR,  DT_CHR,
					      DT_BLK,	  DT_FIFO, DT_SOCK, DT_LNK};
	const struct lower_emit *e = arg;

	if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
		return true;
	return e->emit(e->arg, name, len, nid, type < ARRAY_SIZE(types) ? types[type] : DT_UNKNOWN,
		       next);
}

int lower_readdir(struct lower_fs *fs, const struct lower_inode *dir, uint64_t pos,
		  bool (*emit)(void *arg, const char *name, size_t len, uint64_t ino,
			       unsigned int type, uint64_t next),
		  void *arg)
{
	struct lower_emit e = {.emit = emit, .arg = arg};

	return erofs_readdir(&fs->erofs, &dir->raw, pos, lower_emit_one, &e);
}

ssize_t lower_getxattr(struct lower_fs *fs, const struct lower_inode *inode, const char *name,
		       void *value, size_t size)
{
	return erofs_getxattr(&fs->erofs, &inode->raw, name, value, size);
}

ssize_t lower_listxattr(struct lower_fs *fs, const struct lower_inode *inode, char *list,
			size_t size)
{
	return erofs_listxattr(&fs->erofs, &inode->raw, list, size);
}
