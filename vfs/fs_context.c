/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root, working directory and umask of a process. Shared by CLONE_FS, copied by fork. Paths are
 * handed out with references, so a chdir by another thread never pulls one away.
 */
#include "vfs/internal.h"

OBJTYPE(fs_context_objtype, "fs_context");

struct fs_context *fs_context_alloc(const struct path *root, const struct path *cwd, mode_t umask)
{
	struct fs_context *fs = kzalloc(sizeof(*fs));

	if (!fs)
		return NULL;
	refcount_init(&fs->refs, 1);
	mutex_init(&fs->lock, LOCK_FS);
	fs->root = *root;
	fs->cwd = *cwd;
	path_get(&fs->root);
	path_get(&fs->cwd);
	fs->umask = umask & 0777;
	objtype_inc(&fs_context_objtype);
	return fs;
}

struct fs_context *fs_context_copy(struct fs_context *old)
{
	struct path root, cwd;
	struct fs_context *fs;
	mode_t umask;

	mutex_lock(&old->lock);
	root = old->root;
	cwd = old->cwd;
	path_get(&root);
	path_get(&cwd);
	umask = old->umask;
	mutex_unlock(&old->lock);
	fs = fs_context_alloc(&root, &cwd, umask);
	path_put(&root);
	path_put(&cwd);
	return fs;
}

struct fs_context *fs_context_get(struct fs_context *fs)
{
	refcount_get(&fs->refs);
	return fs;
}

void fs_context_put(struct fs_context *fs)
{
	if (!fs || !refcount_put(&fs->refs))
		return;
	path_put(&fs->root);
	path_put(&fs->cwd);
	mutex_fini(&fs->lock);
	objtype_dec(&fs_context_objtype);
	kfree(fs);
}

static void fs_context_read(struct fs_context *fs, const struct path *from, struct path *out)
{
	mutex_lock(&fs->lock);
	*out = *from;
	path_get(out);
	mutex_unlock(&fs->lock);
}

void fs_context_root(struct fs_context *fs, struct path *out)
{
	fs_context_read(fs, &fs->root, out);
}

void fs_context_cwd(struct fs_context *fs, struct path *out)
{
	fs_context_read(fs, &fs->cwd, out);
}

static void fs_context_write(struct fs_context *fs, struct path *to, const struct path *path)
{
	struct path old;

	path_get(path);
	mutex_lock(&fs->lock);
	old = *to;
	*to = *path;
	mutex_unlock(&fs->lock);
	path_put(&old);
}

void fs_context_set_root(struct fs_context *fs, const struct path *path)
{
	fs_context_write(fs, &fs->root, path);
}

void fs_context_set_cwd(struct fs_context *fs, const struct path *path)
{
	fs_context_write(fs, &fs->cwd, path);
}
