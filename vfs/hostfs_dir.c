/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host directories: names. Nothing is cached beyond what is in use; a cached name is checked
 * against the host each time (revalidate), since the host may rename under us.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vfs/hostfs.h"

static struct inode *hostfs_lookup(struct inode *dir, struct dentry *dentry)
{
	int fd = hostfs_openat(hostfs_pathfd(dir), dentry->name, O_PATH, 0);

	return fd < 0 ? ERR_PTR(fd) : hostfs_inode_get(dir->super, fd);
}

static int hostfs_revalidate(struct dentry *dentry)
{
	struct hostfs_inode *hi = hostfs_inode(dentry->inode);
	struct stat st;

	if (fstatat(hostfs_pathfd(dentry->parent->inode), dentry->name, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	return st.st_dev == hi->dev && st.st_ino == hi->ino;
}

static int writable(const struct inode *dir)
{
	return hostfs_of(dir->super)->readonly ? -EROFS : 0;
}

/* Makes the name on the host. Devices would be the host's to open: refused. */
static int host_make(int dirfd, const char *name, mode_t mode, const char *symlink)
{
	int fd;

	switch (mode & S_IFMT) {
	case S_IFREG:
		fd = hostfs_openat(dirfd, name, O_CREAT | O_EXCL | O_RDWR, mode & 07777);
		if (fd < 0)
			return fd;
		close(fd);
		return 0;
	case S_IFDIR:
		return mkdirat(dirfd, name, mode & 07777) ? host_error(errno) : 0;
	case S_IFLNK:
		return symlinkat(symlink, dirfd, name) ? host_error(errno) : 0;
	case S_IFIFO:
	case S_IFSOCK:
		return mknodat(dirfd, name, mode, 0) ? host_error(errno) : 0;
	default:
		return -EPERM;
	}
}

static int hostfs_create(const struct vfs_ctx *ctx, struct inode *dir, struct dentry *dentry,
			 mode_t mode, dev_t rdev, const char *symlink, struct inode **out)
{
	struct inode *inode;
	int err = writable(dir);

	if (!err)
		err = host_make(hostfs_pathfd(dir), dentry->name, mode, symlink);
	if (err)
		return err;
	inode = hostfs_lookup(dir, dentry);
	if (IS_ERR(inode))
		return (int)PTR_ERR(inode);
	*out = inode;
	hostfs_getattr(dir);
	return 0;
}

static int hostfs_link(struct inode *inode, struct inode *dir, struct dentry *dentry)
{
	struct hostfs *fs = hostfs_of(dir->super);
	char name[16];
	int err = writable(dir);

	if (err)
		return err;
	if (!fs->procfd)
		return -EPERM;
	snprintf(name, sizeof(name), "%d", hostfs_pathfd(inode));
	if (linkat(hostfd_get(fs->procfd), name, hostfs_pathfd(dir), dentry->name,
		   AT_SYMLINK_FOLLOW))
		return host_error(errno);
	return hostfs_getattr(inode);
}

static int hostfs_remove(struct inode *dir, struct dentry *dentry, int flags)
{
	int err = writable(dir);

	if (!err && unlinkat(hostfs_pathfd(dir), dentry->name, flags))
		err = host_error(errno);
	if (!err) {
		hostfs_getattr(dentry->inode);
		hostfs_getattr(dir);
	}
	return err;
}

static int hostfs_unlink(struct inode *dir, struct dentry *dentry)
{
	return hostfs_remove(dir, dentry, 0);
}

static int hostfs_rmdir(struct inode *dir, struct dentry *dentry)
{
	return hostfs_remove(dir, dentry, AT_REMOVEDIR);
}

static int hostfs_rename(struct inode *old_dir, struct dentry *old, struct inode *new_dir,
			 struct dentry *target, unsigned int flags)
{
	int err = writable(old_dir);

	if (err)
		return err;
	if (syscall(SYS_renameat2, hostfs_pathfd(old_dir), old->name, hostfs_pathfd(new_dir),
		    target->name, flags))
		return host_error(errno);
	if (target->inode)
		hostfs_getattr(target->inode);
	return 0;
}

/* ---- reading: the file's private is the hostfd index of a readable directory ---- */

static int hostfs_dir_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file)
{
	int fd = hostfs_openat(hostfs_pathfd(inode), ".", O_RDONLY | O_DIRECTORY, 0);

	if (fd < 0)
		return fd;
	fd = hostfd_add(fd);
	if (fd < 0)
		return -ENOMEM;
	file->private = (void *)(intptr_t)fd;
	return 0;
}

static void hostfs_dir_release(struct file *file)
{
	hostfd_close((int)(intptr_t)file->private);
}

struct host_dirent {
	uint64_t ino;
	int64_t off;
	unsigned short reclen;
	unsigned char type;
	char name[];
};

static uint64_t parent_ino(struct file *file)
{
	struct dentry *parent = dentry_parent(file->path.dentry);
	uint64_t ino = parent->inode->ino;

	dentry_put(parent);
	return ino;
}

static int hostfs_iterate(const struct vfs_ctx *ctx, struct file *file, struct dir_sink *sink)
{
	int fd = hostfd_get((int)(intptr_t)file->private);
	char buf[HOSTFS_BOUNCE] __attribute__((aligned(8)));
	long n, at;

	if (lseek(fd, (off_t)file->pos, SEEK_SET) < 0)
		return host_error(errno);
	while ((n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0) {
		for (at = 0; at < n;) {
			struct host_dirent *d = (struct host_dirent *)(buf + at);
			/* The volume's parent on the host is none of the guest's business. */
			uint64_t ino = strcmp(d->name, "..") ? d->ino : parent_ino(file);

			if (!sink->emit(sink, d->name, strlen(d->name), ino, d->type,
					(uint64_t)d->off))
				return 0;
			file->pos = (uint64_t)d->off;
			at += d->reclen;
		}
	}
	return n < 0 ? host_error(errno) : 0;
}

static ssize_t hostfs_dir_read(struct kiocb *io, struct iov_iter *to)
{
	return -EISDIR;
}

static int64_t hostfs_dir_llseek(struct file *file, int64_t offset, int whence)
{
	if (whence == SEEK_CUR)
		offset += (int64_t)file->pos;
	else if (whence != SEEK_SET)
		return -EINVAL;
	if (offset < 0)
		return -EINVAL;
	file->pos = (uint64_t)offset;
	return offset;
}

static int hostfs_dir_fsync(struct file *file, bool datasync)
{
	return fsync(hostfd_get((int)(intptr_t)file->private)) ? host_error(errno) : 0;
}

const struct file_ops hostfs_dir_fops = {
	.read = hostfs_dir_read,
	.llseek = hostfs_dir_llseek,
	.iterate = hostfs_iterate,
	.fsync = hostfs_dir_fsync,
	.release = hostfs_dir_release,
};

const struct inode_ops hostfs_dir_ops = {
	.lookup = hostfs_lookup,
	.revalidate = hostfs_revalidate,
	.create = hostfs_create,
	.link = hostfs_link,
	.unlink = hostfs_unlink,
	.rmdir = hostfs_rmdir,
	.rename = hostfs_rename,
	.getattr = hostfs_getattr,
	.setattr = hostfs_setattr,
	.open = hostfs_dir_open,
	.evict = hostfs_evict,
};
