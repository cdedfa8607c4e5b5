/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening: flags are checked as openat2(2) says, the walk ends in a file (found, made, or unnamed
 * for O_TMPFILE), the file is checked against the caller's wish, and its kind decides what is
 * behind the new open file. The order of the checks is Linux's.
 */
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#include "vfs/internal.h"

int (*fifo_open_hook)(const struct vfs_ctx *ctx, struct inode *inode, struct file *file);

#define O_TMPFILE_BIT (O_TMPFILE & ~O_DIRECTORY)
#define O_LARGEFILE_X 0100000
#define O_ASYNC_X     020000
#define OPEN_VALID                                                                                 \
	(O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_SYNC |      \
	 O_ASYNC_X | O_DIRECT | O_LARGEFILE_X | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | \
	 O_PATH | O_TMPFILE)
#define OPEN_PATH_VALID (O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC)
#define OPEN_NOT_KEPT	(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC)
#define RESOLVE_VALID                                                                              \
	(RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH |         \
	 RESOLVE_IN_ROOT | RESOLVE_CACHED)

struct open_op {
	unsigned int flags;  /* O_* */
	unsigned int access; /* MAY_* */
	unsigned int walk;   /* WALK_* */
	mode_t mode;
	bool created;
};

void open_how_init(struct open_how *how, unsigned int flags, mode_t mode)
{
	*how = (struct open_how){.flags = (flags & OPEN_VALID) | O_LARGEFILE_X};
	if (flags & O_PATH)
		how->flags = flags & OPEN_PATH_VALID;
	else if (flags & (O_CREAT | O_TMPFILE_BIT))
		how->mode = mode & 07777;
}

static unsigned int walk_flags(uint64_t resolve)
{
	static const struct {
		uint64_t resolve;
		unsigned int walk;
	} map[] = {
		{RESOLVE_NO_XDEV, WALK_NO_XDEV},
		{RESOLVE_NO_MAGICLINKS, WALK_NO_MAGIC},
		{RESOLVE_NO_SYMLINKS, WALK_NO_SYMLINKS | WALK_NO_MAGIC},
		{RESOLVE_BENEATH, WALK_BENEATH},
		{RESOLVE_IN_ROOT, WALK_IN_ROOT},
	};
	unsigned int walk = 0;

	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (resolve & map[i].resolve)
			walk |= map[i].walk;
	return walk;
}

static unsigned int open_access(unsigned int flags)
{
	static const unsigned int modes[] = {MAY_READ, MAY_WRITE, MAY_READ | MAY_WRITE,
					     MAY_READ | MAY_WRITE};
	unsigned int access = modes[flags & O_ACCMODE];

	if (flags & O_TRUNC)
		access |= MAY_WRITE;
	return access;
}

static int open_op_init(struct open_op *op, const struct open_how *how)
{
	uint64_t flags = how->flags;
	bool creates = flags & (O_CREAT | O_TMPFILE_BIT);

	if ((flags & ~(uint64_t)OPEN_VALID) || (how->resolve & ~(uint64_t)RESOLVE_VALID))
		return -EINVAL;
	if ((how->resolve & RESOLVE_BENEATH) && (how->resolve & RESOLVE_IN_ROOT))
		return -EINVAL;
	if (creates ? how->mode & ~07777ULL : how->mode)
		return -EINVAL;
	if ((flags & (O_DIRECTORY | O_CREAT)) == (O_DIRECTORY | O_CREAT))
		return -EINVAL;
	op->flags = (unsigned int)flags;
	op->access = open_access(op->flags);
	if (flags & O_TMPFILE_BIT) {
		if ((flags & (O_TMPFILE | O_CREAT)) != O_TMPFILE || !(op->access & MAY_WRITE))
			return -EINVAL;
	}
	if (flags & O_PATH) {
		if (flags & ~(uint64_t)OPEN_PATH_VALID)
			return -EINVAL;
		op->access = 0;
	}
	if (how->resolve & RESOLVE_CACHED) {
		/* What makes or truncates can't promise not to wait. */
		if (flags & (O_TRUNC | O_CREAT | O_TMPFILE_BIT))
			return -EAGAIN;
	}
	op->walk = walk_flags(how->resolve);
	if (!(flags & O_NOFOLLOW) && (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL))
		op->walk |= WALK_FOLLOW;
	op->mode = (mode_t)how->mode;
	op->created = false;
	return 0;
}

/* May what was found be opened so? */
static int may_open(const struct vfs_ctx *ctx, const struct path *path, const struct open_op *op)
{
	struct inode *inode = path->dentry->inode;
	int err;

	switch (inode->mode & S_IFMT) {
	case S_IFLNK:
		return -ELOOP;
	case S_IFDIR:
		if (op->access & MAY_WRITE)
			return -EISDIR;
		break;
	case S_IFCHR:
	case S_IFBLK:
		if (path->mnt->flags & MS_NODEV)
			return -EACCES;
		break;
	default:
		break;
	}
	if (!op->created) {
		err = inode_permission(ctx, inode, op->access);
		if (err)
			return err;
	}
	if ((op->flags & O_NOATIME) && ctx->cred->fsuid != inode->uid &&
	    !cred_capable(ctx->cred, CAP_FOWNER))
		return -EPERM;
	return 0;
}

/* What is behind the file, by its kind. */
static int file_attach(const struct vfs_ctx *ctx, struct inode *inode, struct file *file)
{
	if (inode->ops->open) {
		if (inode->fops)
			file->ops = inode->fops;
		return inode->ops->open(ctx, inode, file);
	}
	switch (inode->mode & S_IFMT) {
	case S_IFCHR:
		return chrdev_open(ctx, inode, file);
	case S_IFBLK:
		return -ENXIO;
	case S_IFIFO:
		return fifo_open_hook ? fifo_open_hook(ctx, inode, file) : -ENXIO;
	case S_IFSOCK:
		return -ENXIO;
	default:
		/* Anonymous objects can't be opened again through /proc/PID/fd. */
		if (!inode->fops)
			return -ENXIO;
		file->ops = inode->fops;
		return 0;
	}
}

/* Counts the file as a writer: -EROFS, -ETXTBSY. */
static int file_claim_write(struct file *file)
{
	int err;

	if (!S_ISREG(file->inode->mode))
		return 0;
	err = mount_writable(file->path.mnt);
	if (!err)
		err = inode_get_write(file->inode);
	if (err)
		return err;
	atomic_fetch_add(&file->path.mnt->writers, 1);
	file->counted_writer = true;
	return 0;
}

/*
 * Drops a file that never became one: its owner must not see a release for an open that it refused,
 * nor may inotify see a close.
 */
static void file_abandon(struct file *file)
{
	static const struct file_ops none;

	file->ops = &none;
	file->flags |= O_PATH;
	file_put(file);
}

static struct file *open_found(const struct vfs_ctx *ctx, const struct path *path,
			       const struct open_op *op)
{
	struct inode *inode = path->dentry->inode;
	struct file *file;
	int err;

	if (op->flags & O_PATH) {
		file = file_alloc(path, NULL, op->flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW),
				  ctx->cred);
		return file ? file : ERR_PTR(-ENOMEM);
	}
	if ((op->flags & O_TRUNC) && S_ISREG(inode->mode) && !op->created) {
		err = mount_writable(path->mnt);
		if (err)
			return ERR_PTR(err);
	}
	err = may_open(ctx, path, op);
	if (err)
		return ERR_PTR(err);
	file = file_alloc(path, NULL, op->flags & ~(unsigned int)OPEN_NOT_KEPT, ctx->cred);
	if (!file)
		return ERR_PTR(-ENOMEM);
	file->noctty = op->flags & O_NOCTTY;
	if (op->access & MAY_WRITE) {
		err = file_claim_write(file);
		if (err)
			goto out_abandon;
	}
	/* The truncation comes first: it needs only the inode, and can fail without a release. */
	if ((op->flags & O_TRUNC) && S_ISREG(inode->mode) && !op->created) {
		struct iattr_change c = {
			.valid = ATTR_SIZE | ATTR_MTIME | ATTR_CTIME,
			.file = file,
		};

		err = vfs_setattr(ctx, path, &c);
		if (err)
			goto out_abandon;
	}
	err = file_attach(ctx, inode, file);
	if (err)
		goto out_abandon;
	if (notify_active())
		notify_dentry(path->dentry, IN_OPEN);
	return file;

out_abandon:
	file_abandon(file);
	return ERR_PTR(err);
}

/*
 * The last step of a creating walk. 0: w->cur is the file; 1: a link was pushed; -errno.
 */
static int open_create_last(struct walk *w, struct open_op *op)
{
	struct dentry *dir = w->cur.dentry, *d;
	int err;

	if (w->last_type != LAST_NORM || w->trailing)
		return -EISDIR;
	/* Most files that are opened so exist: no lock for them. */
	d = dentry_find(dir, w->last, w->last_len);
	if (d && d->inode && !dir->inode->ops->revalidate)
		goto found;
	dentry_put(d);
	write_lock(&dir->inode->lock);
	d = dir_lookup_locked(dir, w->last, w->last_len);
	if (IS_ERR(d) && PTR_ERR(d) == -ENOENT) {
		err = mount_writable(w->cur.mnt);
		if (!err)
			err = may_create(w->ctx, dir);
		if (err)
			d = ERR_PTR(err);
		else
			d = dir_create_locked(w->ctx, dir, w->last, w->last_len,
					      S_IFREG | (op->mode & ~ctx_umask(w->ctx)), 0, NULL);
		op->created = !IS_ERR(d);
	}
	write_unlock(&dir->inode->lock);
	if (IS_ERR(d))
		return (int)PTR_ERR(d);
	if (op->created)
		notify_dentry(d, IN_CREATE);
found:
	if (!op->created && (op->flags & O_EXCL)) {
		dentry_put(d);
		return -EEXIST;
	}
	if (S_ISLNK(d->inode->mode) && (op->walk & WALK_FOLLOW))
		return walk_follow(w, d);
	dentry_put(w->cur.dentry);
	w->cur.dentry = d;
	path_cross_mounts(&w->cur);
	return S_ISDIR(w->cur.dentry->inode->mode) ? -EISDIR : 0;
}

/* Is it an error to be at a directory or not, as the flags and slashes ask? */
static int open_check_kind(const struct open_op *op, const struct walk *w, bool dir_wanted)
{
	mode_t mode = w->cur.dentry->inode->mode;

	if (dir_wanted && !S_ISDIR(mode))
		return -ENOTDIR;
	if ((op->flags & O_CREAT) && S_ISDIR(mode))
		return -EISDIR;
	return 0;
}

static struct file *open_tmpfile(const struct vfs_ctx *ctx, const struct path *dir,
				 const struct open_op *op)
{
	struct inode *inode;
	struct open_op made = *op;
	struct path path = {.mnt = dir->mnt};
	struct file *file;
	char name[32];
	int err;

	if (!S_ISDIR(dir->dentry->inode->mode))
		return ERR_PTR(-ENOTDIR);
	err = mount_writable(dir->mnt);
	if (!err)
		err = inode_permission(ctx, dir->dentry->inode, MAY_WRITE | MAY_EXEC);
	if (err)
		return ERR_PTR(err);
	if (!dir->dentry->inode->ops->tmpfile)
		return ERR_PTR(-EOPNOTSUPP);
	inode = dir->dentry->inode->ops->tmpfile(ctx, dir->dentry->inode,
						 S_IFREG | (op->mode & ~ctx_umask(ctx)));
	if (IS_ERR(inode))
		return ERR_PTR(PTR_ERR(inode));
	snprintf(name, sizeof(name), "#%lu", (unsigned long)inode->ino);
	path.dentry = dentry_alloc(inode->super, dir->dentry, name, strlen(name));
	if (!path.dentry) {
		inode_put(inode);
		return ERR_PTR(-ENOMEM);
	}
	path.dentry->inode = inode;
	if (!(op->flags & O_EXCL))
		atomic_fetch_or(&inode->flags, INODE_LINKABLE);
	made.created = true;
	made.flags &= ~(unsigned int)O_TRUNC;
	file = open_found(ctx, &path, &made);
	dentry_put(path.dentry);
	return file;
}

struct file *file_open(const struct vfs_ctx *ctx, const struct path *base, const char *name,
		       const struct open_how *how)
{
	struct open_op op;
	struct file *file;
	struct walk w;
	bool dir_wanted;
	int err = open_op_init(&op, how);

	if (err)
		return ERR_PTR(err);
	dir_wanted = op.flags & O_DIRECTORY;
	err = walk_init(&w, ctx, base, name, op.walk);
	if (err)
		goto out_fini;
	do {
		err = walk_to_last(&w);
		if (err)
			break;
		dir_wanted |= w.trailing;
		if (op.flags & O_CREAT)
			err = open_create_last(&w, &op);
		else
			err = walk_last(&w, op.walk & WALK_FOLLOW);
	} while (err == 1);
	if (!err)
		err = open_check_kind(&op, &w, dir_wanted);
	if (err)
		goto out_fini;
	if (op.flags & O_TMPFILE_BIT)
		file = open_tmpfile(ctx, &w.cur, &op);
	else
		file = open_found(ctx, &w.cur, &op);
	walk_fini(&w);
	return file;

out_fini:
	walk_fini(&w);
	return ERR_PTR(err);
}

struct file *file_open_path(const struct vfs_ctx *ctx, const struct path *path, unsigned int flags)
{
	struct open_how how;
	struct open_op op;
	int err;

	open_how_init(&how, flags & ~(unsigned int)(O_CREAT | O_EXCL), 0);
	how.mode = 0;
	err = open_op_init(&op, &how);
	if (err)
		return ERR_PTR(err);
	if ((flags & O_DIRECTORY) && !S_ISDIR(path->dentry->inode->mode))
		return ERR_PTR(-ENOTDIR);
	return open_found(ctx, path, &op);
}

struct file *file_open_exec(const struct vfs_ctx *ctx, const struct path *base, const char *name,
			    unsigned int flags)
{
	struct open_op op = {.flags = O_RDONLY | O_LARGEFILE_X, .access = MAY_EXEC};
	struct inode *inode;
	struct file *file;
	struct path path;
	int err = path_lookup(ctx, base, name, flags, &path);

	if (err)
		return ERR_PTR(err);
	inode = path.dentry->inode;
	err = S_ISLNK(inode->mode) ? -ELOOP : -EACCES;
	if (!S_ISREG(inode->mode) || path_noexec(&path))
		goto out_put;
	file = open_found(ctx, &path, &op);
	path_put(&path);
	return file;

out_put:
	path_put(&path);
	return ERR_PTR(err);
}
