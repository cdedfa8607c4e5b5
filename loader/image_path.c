/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of an archive's members. They never touch the host's file system: a name is walked in the
 * image's own tree, where a symbolic link leads what it would lead to inside the sandbox.
 */
#include "loader/image_internal.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#define MAX_LINKS 40 /* as Linux */

int path_clean(struct build *b, const char *name, char *out)
{
	const char *p = name;
	size_t used = 0;

	if (*p == '/')
		return image_fail(b->err, -EINVAL,
				  "image %s: member %.200s has an absolute name: make the archive "
				  "with tar -C DIR -cf ARCHIVE .",
				  b->name, name);
	while (*p) {
		size_t len = strcspn(p, "/");

		if (len == 2 && !memcmp(p, "..", 2))
			return image_fail(
				b->err, -EINVAL,
				"image %s: member %.200s leads out of the image by \"..\"", b->name,
				name);
		if (len && !(len == 1 && *p == '.')) {
			if (len > NAME_MAX || used + len + 2 > PATH_MAX)
				return image_fail(b->err, -ENAMETOOLONG,
						  "image %s: member %.60s… has too long a name",
						  b->name, name);
			if (used)
				out[used++] = '/';
			memcpy(out + used, p, len);
			used += len;
		}
		p += len;
		p += strspn(p, "/");
	}
	out[used] = 0;
	return 0;
}

/* A directory that no member of its own describes. */
static int make_directory(struct build *b, struct enode *dir, const char *name, size_t len,
			  const char *member, struct enode **out)
{
	int err = enode_alloc(b->writer, S_IFDIR | 0755, out);

	if (!err) {
		(*out)->mtime = b->member_mtime;
		err = enode_link(b->writer, dir, name, len, b->layer, *out);
		if (err)
			enode_drop(b->writer, *out);
	}
	return err ? build_write_failed(b, err, member) : 0;
}

/* Where a walk is: in @dir, with @rest of the path ahead. Up to @link_end it comes from a link. */
struct walk {
	struct enode *dir;
	char rest[2 * PATH_MAX];
	const char *at, *link_end;
	unsigned int links;
};

/* Puts @link's target in front of what follows @next. */
static int walk_follow(struct build *b, struct walk *w, const struct enode *link, const char *next,
		       const char *member)
{
	size_t len = (size_t)link->size, tail = strlen(next);

	if (++w->links > MAX_LINKS || len + tail + 2 > sizeof(w->rest))
		return image_fail(b->err, -ELOOP,
				  "image %s: member %.200s lies behind too many symbolic links",
				  b->name, member);
	memmove(w->rest + len + 1, next, tail + 1);
	memcpy(w->rest, link->target, len);
	w->rest[len] = '/';
	w->at = w->rest;
	w->link_end = w->rest + len;
	if (link->target[0] == '/')
		w->dir = erofs_writer_root(b->writer);
	return 0;
}

static int walk_step(struct build *b, struct walk *w, bool create, const char *member)
{
	size_t len = strcspn(w->at, "/");
	const char *name = w->at, *next = name + len + strspn(name + len, "/");
	struct enode *child;
	struct ename *e;
	int err;

	if (!len || (len == 1 && name[0] == '.')) {
		w->at = next;
		return 0;
	}
	if (len == 2 && name[0] == '.' && name[1] == '.') {
		if (w->dir == erofs_writer_root(b->writer))
			return image_fail(
				b->err, -EINVAL,
				"image %s: member %.200s lies behind a symbolic link that "
				"leads out of the image",
				b->name, member);
		w->dir = w->dir->dir.parent;
		w->at = next;
		return 0;
	}
	e = enode_find(w->dir, name, len);
	if (e) {
		child = e->inode;
	} else if (create && name >= w->link_end) {
		err = make_directory(b, w->dir, name, len, member, &child);
		if (err)
			return err;
	} else {
		return image_fail(
			b->err, -ENOENT,
			"image %s: member %.200s lies behind a symbolic link that leads to "
			"nothing in the image",
			b->name, member);
	}
	if (S_ISLNK(child->mode))
		return walk_follow(b, w, child, next, member);
	if (!S_ISDIR(child->mode))
		return image_fail(b->err, -ENOTDIR,
				  "image %s: member %.200s lies in \"%.*s\", which is no directory",
				  b->name, member, (int)len, name);
	w->dir = child;
	w->at = next;
	return 0;
}

int tree_parent(struct build *b, const char *path, bool create, const char *member,
		struct enode **dir, const char **name)
{
	const char *slash = strrchr(path, '/');
	struct walk w = {.dir = erofs_writer_root(b->writer)};
	int err;

	*name = slash ? slash + 1 : path;
	if (slash) {
		memcpy(w.rest, path, (size_t)(slash - path));
		w.rest[slash - path] = 0;
	}
	w.at = w.link_end = w.rest;
	while (*w.at) {
		err = walk_step(b, &w, create, member);
		if (err)
			return err;
	}
	*dir = w.dir;
	return 0;
}
