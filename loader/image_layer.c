/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One tar into the image's tree: a bare root file system, or one layer on top of those before it.
 *
 * A later member of the same name replaces an earlier one, but a directory stays a directory and
 * takes over the attributes. In a layer, ".wh.NAME" removes NAME and ".wh..wh..opq" all there is in
 * a directory, as far as it comes from the layers below (OCI image-spec, "Image Layer Filesystem
 * Changeset"); both may come before or after what the same layer puts there.
 */
#include "loader/image_internal.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define WHITEOUT	".wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"
#define WHITEOUT_META	".wh..wh." /* other notes of AUFS, meaningless here */

/* What is being read. */
struct layer {
	struct build *b;
	struct archive *a;
	struct input *in;
	enum layer_kind kind;
	const char *what;
	char name[PATH_MAX]; /* of the member, clean */
};

/* ---- whiteouts ---- */

/* Removes what earlier layers put below @dir. */
static void prune_children(struct build *b, struct enode *dir)
{
	struct rb_node *node = rb_first(&dir->dir.children), *next;

	for (; node; node = next) {
		struct ename *e = rb_entry(node, struct ename, node);
		bool is_dir = S_ISDIR(e->inode->mode);

		next = rb_next(node);
		if (is_dir)
			prune_children(b, e->inode);
		if (e->layer < b->layer && !(is_dir && e->inode->dir.children.node))
			enode_unlink(b->writer, e);
	}
}

static int apply_whiteout(struct layer *l)
{
	struct build *b = l->b;
	struct enode *dir;
	const char *name;
	struct ename *e;
	int err = tree_parent(b, l->name, false, l->name, &dir, &name);

	/* Nothing to hide. */
	if (err == -ENOENT || err == -ENOTDIR)
		return 0;
	if (err)
		return err;
	if (!strcmp(name, WHITEOUT_OPAQUE)) {
		prune_children(b, dir);
		return 0;
	}
	if (!strncmp(name, WHITEOUT_META, strlen(WHITEOUT_META)))
		return 0;
	name += strlen(WHITEOUT);
	e = enode_find(dir, name, strlen(name));
	if (!e)
		return 0;
	if (S_ISDIR(e->inode->mode))
		prune_children(b, e->inode);
	if (e->layer < b->layer && !(S_ISDIR(e->inode->mode) && e->inode->dir.children.node))
		enode_unlink(b->writer, e);
	return 0;
}

/* ---- members ---- */

static int set_attributes(struct layer *l, struct enode *inode, struct archive_entry *e)
{
	int64_t uid = archive_entry_uid(e), gid = archive_entry_gid(e);
	const char *name;
	const void *value;
	size_t size;

	/* The highest number means "none" to Linux. */
	if (uid < 0 || gid < 0 || uid >= UINT32_MAX || gid >= UINT32_MAX)
		return image_fail(l->b->err, -EINVAL,
				  "image %s: member %.200s has an owner or group that is no 32-bit "
				  "number",
				  l->b->name, l->name);
	inode->uid = (uint32_t)uid;
	inode->gid = (uint32_t)gid;
	inode->mode = (inode->mode & S_IFMT) | (archive_entry_mode(e) & 07777);
	inode->mtime = archive_entry_mtime(e);
	inode->mtime_nsec = (uint32_t)archive_entry_mtime_nsec(e);
	if (inode->mtime_nsec > 999999999)
		inode->mtime_nsec = 0;
	/* A time of -5.25 in a PAX header comes from libarchive as -5 s and 0.25 s. */
	if (inode->mtime < 0 && inode->mtime_nsec) {
		inode->mtime--;
		inode->mtime_nsec = 1000000000 - inode->mtime_nsec;
	}
	enode_clear_xattrs(l->b->writer, inode);
	archive_entry_xattr_reset(e);
	while (archive_entry_xattr_next(e, &name, &value, &size) == ARCHIVE_OK) {
		int err = enode_add_xattr(l->b->writer, inode, name, value, size);

		if (err)
			return build_write_failed(l->b, err, l->name);
	}
	return 0;
}

/*
 * Makes room for a member of type @mode under @name: *@inode is the directory that stays, or NULL
 * when the name is free.
 */
static void make_room(struct build *b, struct enode *dir, const char *name, uint32_t mode,
		      struct enode **inode)
{
	struct ename *e = enode_find(dir, name, strlen(name));

	*inode = NULL;
	if (!e)
		return;
	if (S_ISDIR(mode) && S_ISDIR(e->inode->mode)) {
		e->layer = b->layer;
		*inode = e->inode;
		return;
	}
	enode_unlink(b->writer, e);
}

/* Copies the member's data. @copy, if not NULL, takes its first @copy_size bytes as well. */
static int read_data(struct layer *l, uint64_t size, char *copy, size_t copy_size)
{
	struct build *b = l->b;
	int err = erofs_data_begin(b->writer, size);

	while (!err) {
		const void *buf;
		int64_t pos;
		size_t len;
		int r = archive_read_data_block(l->a, &buf, &len, &pos);

		if (r == ARCHIVE_EOF)
			break;
		if (r < ARCHIVE_WARN)
			return build_read_failed(b, l->a, l->in, l->what);
		if (!len)
			continue;
		err = build_charge_bytes(b, len);
		if (err)
			return err;
		if (copy && pos >= 0 && (uint64_t)pos <= copy_size &&
		    len <= copy_size - (size_t)pos)
			memcpy(copy + pos, buf, len);
		err = pos < 0 ? -EINVAL : erofs_data_write(b->writer, (uint64_t)pos, buf, len);
	}
	return err ? build_write_failed(b, err, l->name) : 0;
}

/* A regular file's contents. Returns 0, -errno, or LAYER_IS_ARCHIVE for a manifest. */
static int import_file(struct layer *l, struct archive_entry *e, struct enode *inode)
{
	int64_t size = archive_entry_size(e);
	bool probe = l->kind == LAYER_PROBE && size > 0 && size <= JSON_MAX &&
		     (!strcmp(l->name, "manifest.json") || !strcmp(l->name, "oci-layout"));
	char *copy = probe ? calloc(1, (size_t)size + 1) : NULL;
	int err;

	if (probe && !copy)
		return build_write_failed(l->b, -ENOMEM, l->name);
	if (size < 0)
		size = 0;
	err = read_data(l, (uint64_t)size, copy, (size_t)size);
	if (!err && probe && archive_is_manifest(l->name, copy, (size_t)size))
		err = LAYER_IS_ARCHIVE;
	free(copy);
	if (err)
		return err;
	err = erofs_data_end(l->b->writer, inode);
	return err ? build_write_failed(l->b, err, l->name) : 0;
}

static int import_hardlink(struct layer *l, const char *target)
{
	struct build *b = l->b;
	char path[PATH_MAX];
	struct enode *dir, *inode;
	const char *name;
	struct ename *e;
	int err = path_clean(b, target, path);

	if (err)
		return err;
	e = NULL;
	err = tree_parent(b, path, false, l->name, &dir, &name);
	if (err && err != -ENOENT)
		return err;
	if (!err)
		e = enode_find(dir, name, strlen(name));
	if (!e || S_ISDIR(e->inode->mode))
		return image_fail(b->err, -EINVAL,
				  "image %s: member %.200s is a hard link to %.200s, which is %s",
				  b->name, l->name, target,
				  e ? "a directory" : "not in the archive");
	inode = e->inode;
	err = tree_parent(b, l->name, true, l->name, &dir, &name);
	if (err)
		return err;
	e = enode_find(dir, name, strlen(name));
	if (e && e->inode == inode) {
		e->layer = b->layer;
		return 0;
	}
	/* The name given up may be the target's directory: hold the inode. */
	inode->names++;
	if (e)
		enode_unlink(b->writer, e);
	err = enode_link(b->writer, dir, name, strlen(name), b->layer, inode);
	inode->names--;
	if (err)
		enode_drop(b->writer, inode);
	return err ? build_write_failed(b, err, l->name) : 0;
}

/* Type-specific part of a new inode. 0, -errno, LAYER_IS_ARCHIVE. */
static int fill_inode(struct layer *l, struct archive_entry *e, struct enode *inode)
{
	const char *target;
	int err;

	switch (inode->mode & S_IFMT) {
	case S_IFREG:
		return import_file(l, e, inode);
	case S_IFLNK:
		target = archive_entry_symlink(e);
		err = enode_set_target(l->b->writer, inode, target ? target : "");
		return err ? build_write_failed(l->b, err, l->name) : 0;
	case S_IFCHR:
	case S_IFBLK:
		enode_set_rdev(inode, makedev((unsigned int)archive_entry_rdevmajor(e),
					      (unsigned int)archive_entry_rdevminor(e)));
		return 0;
	}
	return 0;
}

static int import_inode(struct layer *l, struct archive_entry *e)
{
	uint32_t type = archive_entry_filetype(e);
	struct build *b = l->b;
	struct enode *dir, *inode;
	const char *name;
	int err;

	if (!l->name[0]) {
		if (type != AE_IFDIR)
			return image_fail(b->err, -EINVAL,
					  "image %s: its root is a member that is no directory",
					  b->name);
		return set_attributes(l, erofs_writer_root(b->writer), e);
	}
	if (type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK && type != AE_IFCHR &&
	    type != AE_IFBLK && type != AE_IFIFO && type != AE_IFSOCK)
		return image_fail(b->err, -EINVAL,
				  "image %s: member %.200s is of a type that no file has", b->name,
				  l->name);
	err = tree_parent(b, l->name, true, l->name, &dir, &name);
	if (err)
		return err;
	make_room(b, dir, name, type, &inode);
	if (inode)
		return set_attributes(l, inode, e);
	err = enode_alloc(b->writer, type, &inode);
	if (err)
		return build_write_failed(b, err, l->name);
	err = set_attributes(l, inode, e);
	if (!err)
		err = fill_inode(l, e, inode);
	if (!err) {
		err = enode_link(b->writer, dir, name, strlen(name), b->layer, inode);
		if (err)
			err = build_write_failed(b, err, l->name);
	}
	if (err)
		enode_drop(b->writer, inode);
	return err;
}

static int import_member(struct layer *l, struct archive_entry *e, bool first)
{
	const char *raw = archive_entry_pathname(e), *hardlink, *base;
	int err;

	if (!raw)
		return image_fail(l->b->err, -EINVAL, "image %s: a member has no name", l->b->name);
	err = path_clean(l->b, raw, l->name);
	if (err)
		return err;
	if (l->kind == LAYER_PROBE && first && archive_looks_like(l->name))
		return LAYER_IS_ARCHIVE;
	l->b->member_mtime = archive_entry_mtime(e);
	base = strrchr(l->name, '/');
	base = base ? base + 1 : l->name;
	if (l->kind == LAYER_LAYER && !strncmp(base, WHITEOUT, strlen(WHITEOUT)))
		return apply_whiteout(l);
	hardlink = archive_entry_hardlink(e);
	return hardlink ? import_hardlink(l, hardlink) : import_inode(l, e);
}

/* ---- the tar ---- */

bool layer_ended(const struct input *in, struct archive *a, int64_t pos)
{
	if (in->gz || archive_filter_code(a, 0) != ARCHIVE_FILTER_NONE)
		return true; /* the compression knows its own end */
	return archive_filter_bytes(a, 0) - pos >= 512;
}

/* All members. @n: how many. */
static int import_members(struct layer *l, uint64_t *n)
{
	struct archive_entry *e;
	bool first = true;
	int64_t pos = 0;
	int r, err;

	for (*n = 0;; (*n)++) {
		r = archive_read_next_header(l->a, &e);
		if (r == ARCHIVE_RETRY)
			continue;
		if (r == ARCHIVE_EOF)
			break;
		if (r < ARCHIVE_WARN)
			return build_read_failed(l->b, l->a, l->in, l->what);
		err = build_charge_entry(l->b);
		if (!err)
			err = import_member(l, e, first);
		if (err)
			return err;
		if (l->name[0])
			first = false;
		if (archive_read_data_skip(l->a) < ARCHIVE_WARN)
			return build_read_failed(l->b, l->a, l->in, l->what);
		pos = archive_filter_bytes(l->a, 0);
	}
	if (l->kind == LAYER_LAYER || layer_ended(l->in, l->a, pos))
		return 0;
	return image_fail(
		l->b->err, -EINVAL,
		"image %s: the archive is truncated: it has no end marker; copy or make it "
		"again",
		l->b->name);
}

int layer_import(struct build *b, struct input *in, enum layer_kind kind, const char *what)
{
	struct layer l = {.b = b, .in = in, .kind = kind, .what = what};
	uint64_t n = 0;
	int err;

	l.a = input_open_tar(in, &err);
	if (!l.a)
		return build_write_failed(b, -ENOMEM, what);
	if (err)
		err = build_read_failed(b, l.a, in, what);
	else
		err = import_members(&l, &n);
	archive_read_free(l.a);
	if (!err && !n && kind != LAYER_LAYER)
		err = image_fail(b->err, -EINVAL, "image %s: the archive holds no files", b->name);
	return err;
}
