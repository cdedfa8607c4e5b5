/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Path resolution, as path_resolution(7) and openat2(2) say.
 *
 * A walk holds where it is (cur), what it may not leave (root) and a stack of what is still to be
 * read: the caller's name, and above it the bodies of the symbolic links met so far. It runs until
 * only one component is left in the whole stack (walk_to_last); whoever started it decides what
 * that one means: a name to look up, to create or to remove. If it turns out to be a link to be
 * followed its body is pushed and the walk goes on.
 *
 * A cached component costs a hash look-up under one stripe lock. A miss takes the directory's inode
 * lock and asks the filesystem, unless the directory *is* its cached names (no ops->lookup).
 */
#include <string.h>
#include <sys/mount.h>

#include "vfs/internal.h"

static int walk_start(struct walk *w, const struct path *base, const char *name)
{
	struct fs_context *fs = w->ctx->fs;

	if (w->scoped && *name == '/' && (w->flags & WALK_BENEATH))
		return -EXDEV;
	if ((w->scoped || *name != '/') && base)
		w->cur = *base;
	if (w->scoped) {
		if (base)
			path_get(&w->cur);
		else
			fs_context_cwd(fs, &w->cur);
		w->root = w->cur;
		path_get(&w->root);
		return 0;
	}
	fs_context_root(fs, &w->root);
	if (*name == '/') {
		w->cur = w->root;
		path_get(&w->cur);
	} else if (base) {
		path_get(&w->cur);
	} else {
		fs_context_cwd(fs, &w->cur);
	}
	return 0;
}

int walk_init(struct walk *w, const struct vfs_ctx *ctx, const struct path *base, const char *name,
	      unsigned int flags)
{
	w->ctx = ctx;
	w->flags = flags;
	w->cur = w->root = (struct path){0};
	w->nlinks = w->depth = 0;
	w->trailing = false;
	w->scoped = flags & (WALK_BENEATH | WALK_IN_ROOT);
	w->stack[0] = (struct walk_level){.pos = name};
	if (!*name && !(flags & WALK_EMPTY))
		return -ENOENT;
	return walk_start(w, base, name);
}

static void walk_pop(struct walk *w)
{
	kfree(w->stack[w->depth].body);
	w->depth--;
}

void walk_fini(struct walk *w)
{
	while (w->depth)
		walk_pop(w);
	path_put(&w->cur);
	path_put(&w->root);
}

static bool path_equal(const struct path *a, const struct path *b)
{
	return a->dentry == b->dentry && a->mnt == b->mnt;
}

/* Is anything but slashes left behind @pos in this level and those below? */
static bool walk_more(struct walk *w, const char *pos, bool *slash)
{
	unsigned int i = w->depth;

	for (;;) {
		for (; *pos == '/'; pos++)
			*slash = true;
		if (*pos)
			return true;
		if (!i)
			return false;
		pos = w->stack[--i].pos;
	}
}

void path_cross_mounts(struct path *path)
{
	while (unlikely(path->dentry->flags & DENTRY_MOUNTED)) {
		struct mount *mnt = mount_lookup(path);

		if (!mnt)
			return;
		dentry_get(mnt->root);
		path_put(path);
		path->mnt = mnt;
		path->dentry = mnt->root;
	}
}

struct dentry *dir_lookup_locked(struct dentry *dir, const char *name, size_t len)
{
	struct inode *inode = dir->inode;
	struct dentry *d = dentry_find(dir, name, len);

	if (d && d->inode && inode->ops->revalidate && !inode->ops->revalidate(d)) {
		dentry_remove(d);
		dentry_put(d);
		d = NULL;
	}
	if (d) {
		if (d->inode)
			return d;
		dentry_put(d);
		return ERR_PTR(-ENOENT);
	}
	if (!inode->ops->lookup || (dir->flags & DENTRY_DEAD))
		return ERR_PTR(-ENOENT);
	d = dentry_alloc(dir->super, dir, name, len);
	if (!d)
		return ERR_PTR(-ENOMEM);
	inode = inode->ops->lookup(inode, d);
	if (IS_ERR(inode)) {
		dentry_put(d);
		return ERR_PTR(PTR_ERR(inode));
	}
	dentry_add(d, inode);
	return d;
}

struct dentry *dir_lookup(struct dentry *dir, const char *name, size_t len)
{
	struct inode *inode = dir->inode;
	struct dentry *d = dentry_find(dir, name, len);

	if (likely(d)) {
		if (!d->inode) {
			dentry_put(d);
			return ERR_PTR(-ENOENT);
		}
		if (likely(!inode->ops->revalidate))
			return d;
		/* Asked for under the lock, where what is stale can be replaced. */
		dentry_put(d);
	} else if (!inode->ops->lookup) {
		return ERR_PTR(-ENOENT);
	}
	write_lock(&inode->lock);
	d = dir_lookup_locked(dir, name, len);
	write_unlock(&inode->lock);
	return d;
}

/* After a ".." in a scoped walk: is cur still inside, though somebody may have renamed things? */
static bool walk_in_scope(struct walk *w)
{
	struct path p = w->cur;
	bool inside;

	path_get(&p);
	while (p.mnt != w->root.mnt) {
		if (!path_up_mount(&p))
			break;
	}
	inside = p.mnt == w->root.mnt && dentry_is_under(p.dentry, w->root.dentry);
	path_put(&p);
	return inside;
}

static int walk_dotdot(struct walk *w)
{
	struct mount *start = w->cur.mnt;
	struct dentry *parent;

	if (path_equal(&w->cur, &w->root))
		return (w->flags & WALK_BENEATH) ? -EXDEV : 0;
	while (w->cur.dentry == w->cur.mnt->root) {
		if (!path_up_mount(&w->cur))
			return 0; /* the top of everything is its own parent */
		if (path_equal(&w->cur, &w->root))
			goto out;
	}
	parent = dentry_parent(w->cur.dentry);
	dentry_put(w->cur.dentry);
	w->cur.dentry = parent;
out:
	path_cross_mounts(&w->cur);
	if ((w->flags & WALK_NO_XDEV) && w->cur.mnt != start)
		return -EXDEV;
	if (w->scoped && !walk_in_scope(w))
		return -EXDEV;
	return 0;
}

/* Pushes @body, or moves to root for an absolute one. Consumes @body. */
static int walk_push(struct walk *w, char *body)
{
	int err = -ENOENT;

	if (!*body)
		goto out_free;
	if (*body == '/') {
		err = -EXDEV;
		if (w->flags & WALK_BENEATH)
			goto out_free;
		if ((w->flags & WALK_NO_XDEV) && w->cur.mnt != w->root.mnt)
			goto out_free;
		path_put(&w->cur);
		w->cur = w->root;
		path_get(&w->cur);
	}
	w->stack[++w->depth] = (struct walk_level){.pos = body, .body = body};
	return 1;

out_free:
	kfree(body);
	return err;
}

int walk_follow(struct walk *w, struct dentry *link)
{
	struct inode *inode = link->inode;
	char *body;
	int err = -ELOOP;

	if (w->nlinks++ >= SYMLINKS_MAX || (w->flags & WALK_NO_SYMLINKS) ||
	    (w->cur.mnt->flags & MS_NOSYMFOLLOW))
		goto out_put;
	if (inode->ops->jump) {
		struct path to;

		if (w->flags & WALK_NO_MAGIC)
			goto out_put;
		err = inode->ops->jump(w->ctx, inode, &to);
		if (err)
			goto out_put;
		if (w->scoped || ((w->flags & WALK_NO_XDEV) && to.mnt != w->cur.mnt)) {
			path_put(&to);
			err = -EXDEV;
			goto out_put;
		}
		path_put(&w->cur);
		w->cur = to;
		goto out_put;
	}
	err = -EINVAL;
	if (!inode->ops->readlink)
		goto out_put;
	path_accessed(&(struct path){w->cur.mnt, link});
	body = inode->ops->readlink(w->ctx, inode);
	dentry_put(link);
	return IS_ERR(body) ? (int)PTR_ERR(body) : walk_push(w, body);

out_put:
	dentry_put(link);
	return err;
}

/* Goes to the child @name of cur. 0, 1 (a link was pushed) or -errno. */
static int walk_child(struct walk *w, const char *name, size_t len, bool follow)
{
	struct dentry *d = dir_lookup(w->cur.dentry, name, len);

	if (IS_ERR(d))
		return (int)PTR_ERR(d);
	if (follow && S_ISLNK(d->inode->mode))
		return walk_follow(w, d);
	dentry_put(w->cur.dentry);
	w->cur.dentry = d;
	if (unlikely(d->flags & DENTRY_MOUNTED)) {
		struct mount *before = w->cur.mnt;

		path_cross_mounts(&w->cur);
		if ((w->flags & WALK_NO_XDEV) && w->cur.mnt != before)
			return -EXDEV;
	}
	return 0;
}

static enum walk_last name_type(const char *name, size_t len)
{
	if (name[0] != '.' || len > 2)
		return LAST_NORM;
	if (len == 1)
		return LAST_DOT;
	return name[1] == '.' ? LAST_DOTDOT : LAST_NORM;
}

int walk_to_last(struct walk *w)
{
	w->trailing = false;
	for (;;) {
		struct walk_level *level = &w->stack[w->depth];
		const char *p = level->pos;
		enum walk_last type;
		size_t len;
		int err;

		while (*p == '/')
			p++;
		if (!*p) {
			if (!w->depth) {
				w->last_type = LAST_ROOT; /* "/", or what a link ended in */
				w->last = "/";
				w->last_len = 1;
				return 0;
			}
			walk_pop(w);
			continue;
		}
		len = strcspn(p, "/");
		level->pos = p + len;
		if (!S_ISDIR(w->cur.dentry->inode->mode))
			return -ENOTDIR;
		err = inode_permission(w->ctx, w->cur.dentry->inode, MAY_EXEC);
		if (err)
			return err;
		if (len > NAME_MAX_LEN)
			return -ENAMETOOLONG;
		type = name_type(p, len);
		if (!walk_more(w, level->pos, &w->trailing)) {
			w->last = p;
			w->last_len = len;
			w->last_type = type;
			return 0;
		}
		w->trailing = false;
		if (type == LAST_NORM)
			err = walk_child(w, p, len, true);
		else if (type == LAST_DOTDOT)
			err = walk_dotdot(w);
		if (err < 0)
			return err;
	}
}

int walk_last(struct walk *w, bool follow)
{
	switch (w->last_type) {
	case LAST_NORM:
		return walk_child(w, w->last, w->last_len, follow || w->trailing);
	case LAST_DOTDOT:
		return walk_dotdot(w);
	default:
		return 0;
	}
}

int path_lookup(const struct vfs_ctx *ctx, const struct path *base, const char *name,
		unsigned int flags, struct path *out)
{
	struct walk w;
	bool dir = flags & WALK_DIRECTORY;
	int err;

	err = walk_init(&w, ctx, base, name, flags);
	if (err)
		goto out_fini;
	if (!*name)
		goto out_found;
	do {
		err = walk_to_last(&w);
		if (!err) {
			dir |= w.trailing;
			err = walk_last(&w, flags & WALK_FOLLOW);
		}
	} while (err == 1);
	if (err)
		goto out_fini;
out_found:
	err = -ENOTDIR;
	if (dir && !S_ISDIR(w.cur.dentry->inode->mode))
		goto out_fini;
	*out = w.cur;
	w.cur = (struct path){0};
	err = 0;
out_fini:
	walk_fini(&w);
	return err;
}

int path_parent(const struct vfs_ctx *ctx, const struct path *base, const char *name,
		unsigned int flags, struct path *parent, char **last, bool *trailing)
{
	struct walk w;
	int err;

	err = walk_init(&w, ctx, base, name, flags & ~(unsigned int)WALK_EMPTY);
	if (!err)
		err = walk_to_last(&w);
	if (err)
		goto out_fini;
	err = -ENOMEM;
	*last = kmalloc(w.last_len + 1);
	if (!*last)
		goto out_fini;
	memcpy(*last, w.last, w.last_len);
	(*last)[w.last_len] = '\0';
	*trailing = w.trailing;
	*parent = w.cur;
	w.cur = (struct path){0};
	err = 0;
out_fini:
	walk_fini(&w);
	return err;
}
