/* SPDX-License-Identifier: Apache-2.0 */
/* Host directories: instances, inodes, attributes (hostfs.h says how the host is kept apart). */
#include "vfs/hostfs.h"

#include <errno.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vfs/rootfs.h"

int hostfs_openat(int dirfd, const char *name, uint64_t flags, mode_t mode)
{
	struct open_how how = {
		.flags = flags | O_NOFOLLOW | O_CLOEXEC,
		.mode = mode,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
	};
	long fd;

	do {
		fd = syscall(SYS_openat2, dirfd, name, &how, sizeof(how));
	} while (fd < 0 && (errno == EINTR || errno == EAGAIN));
	return fd < 0 ? host_error(errno) : (int)fd;
}

static void inode_from_stat(struct inode *inode, const struct stat *st)
{
	inode->mode = st->st_mode;
	inode->uid = st->st_uid;
	inode->gid = st->st_gid;
	inode->nlink = st->st_nlink;
	inode_set_size(inode, (uint64_t)st->st_size);
	inode->blocks = (uint64_t)st->st_blocks;
	inode->atime = st->st_atim;
	inode->mtime = st->st_mtim;
	inode->ctime = st->st_ctim;
}

int hostfs_getattr(struct inode *inode)
{
	struct stat st;

	if (fstatat(hostfs_pathfd(inode), "", &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
		return host_error(errno);
	inode_from_stat(inode, &st);
	return 0;
}

static struct list_head *hostfs_bucket(struct hostfs *fs, dev_t dev, uint64_t ino)
{
	struct list_head *head = &fs->inodes[(ino * 31 + dev) % HOSTFS_BUCKETS];

	if (!head->next)
		list_init(head);
	return head;
}

static struct inode *hostfs_find_locked(struct hostfs *fs, dev_t dev, uint64_t ino)
{
	struct hostfs_inode *hi;

	list_for_each_entry (hi, hostfs_bucket(fs, dev, ino), node)
		if (hi->dev == dev && hi->ino == ino && refcount_get_unless_zero(&hi->inode->refs))
			return hi->inode;
	return NULL;
}

static const struct inode_ops hostfs_file_ops = {
	.getattr = hostfs_getattr,
	.setattr = hostfs_setattr,
	.open = hostfs_open,
	.evict = hostfs_evict,
};

static const struct inode_ops hostfs_symlink_ops = {
	.getattr = hostfs_getattr,
	.setattr = hostfs_setattr,
	.readlink = hostfs_readlink,
	.evict = hostfs_evict,
};

/* Pipes, sockets and devices: nothing of theirs is the host's but the attributes. */
static const struct inode_ops hostfs_special_ops = {
	.getattr = hostfs_getattr,
	.setattr = hostfs_setattr,
	.evict = hostfs_evict,
};

static void hostfs_set_ops(struct inode *inode)
{
	switch (inode->mode & S_IFMT) {
	case S_IFDIR:
		inode->ops = &hostfs_dir_ops;
		inode->fops = &hostfs_dir_fops;
		break;
	case S_IFREG:
		inode->ops = &hostfs_file_ops;
		inode->fops = &hostfs_file_fops;
		inode->mops = &hostfs_mapping_ops;
		break;
	case S_IFLNK:
		inode->ops = &hostfs_symlink_ops;
		break;
	default:
		inode->ops = &hostfs_special_ops;
		break;
	}
}

/* A new inode for @st; takes over @index. NULL: out of memory, @index still the caller's. */
static struct inode *hostfs_inode_make(struct super *sb, const struct stat *st, int index)
{
	struct hostfs_inode *hi = kzalloc(sizeof(*hi));
	struct inode *inode = hi ? inode_alloc(sb, st->st_mode, st->st_uid, st->st_gid) : NULL;

	if (!inode) {
		kfree(hi);
		return NULL;
	}
	mutex_init(&hi->lock, LOCK_OBJECT);
	hi->inode = inode;
	hi->dev = st->st_dev;
	hi->ino = st->st_ino;
	hi->pathfd = index;
	list_init(&hi->node);
	inode->private = hi;
	inode->ino = st->st_ino;
	inode->rdev = st->st_rdev;
	inode_from_stat(inode, st);
	hostfs_set_ops(inode);
	return inode;
}

struct inode *hostfs_inode_get(struct super *sb, int pathfd)
{
	struct hostfs *fs = hostfs_of(sb);
	struct inode *inode, *made;
	struct stat st;
	int index;

	if (fstatat(pathfd, "", &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) {
		int err = host_error(errno);

		close(pathfd);
		return ERR_PTR(err);
	}
	index = hostfd_add(pathfd);
	if (index < 0)
		return ERR_PTR(-ENOMEM);
	made = hostfs_inode_make(sb, &st, index);
	if (!made) {
		hostfd_close(index);
		return ERR_PTR(-ENOMEM);
	}
	mutex_lock(&fs->lock);
	inode = hostfs_find_locked(fs, st.st_dev, st.st_ino);
	if (!inode) {
		list_add(&hostfs_inode(made)->node, hostfs_bucket(fs, st.st_dev, st.st_ino));
		inode = made;
		made = NULL;
	}
	mutex_unlock(&fs->lock);
	if (made) {
		inode_from_stat(inode, &st);
		inode_put(made);
	}
	return inode;
}

void hostfs_evict(struct inode *inode)
{
	struct hostfs *fs = hostfs_of(inode->super);
	struct hostfs_inode *hi = hostfs_inode(inode);

	if ((inode->fifo || inode->socket) && inode_special_evict_hook)
		inode_special_evict_hook(inode);
	mutex_lock(&fs->lock);
	list_del(&hi->node);
	mutex_unlock(&fs->lock);
	if (S_ISREG(inode->mode))
		hostfs_drop_pages(inode);
	if (hi->readfd)
		hostfd_close(hi->readfd);
	if (hi->writefd)
		hostfd_close(hi->writefd);
	hostfd_close(hi->pathfd);
	mutex_fini(&hi->lock);
	kfree(hi);
}

char *hostfs_readlink(const struct vfs_ctx *ctx, struct inode *inode)
{
	char buf[4096], *s;
	ssize_t n = readlinkat(hostfs_pathfd(inode), "", buf, sizeof(buf) - 1);

	if (n < 0)
		return ERR_PTR(host_error(errno));
	buf[n] = '\0';
	s = kstrdup(buf);
	return s ? s : ERR_PTR(-ENOMEM);
}

/* ---- attributes ---- */

/* The name of the inode's descriptor in /proc/self/fd. -EOPNOTSUPP without it. */
static int proc_name(struct inode *inode, char *name, size_t size)
{
	struct hostfs *fs = hostfs_of(inode->super);

	if (!fs->procfd)
		return -EOPNOTSUPP;
	snprintf(name, size, "%d", hostfs_pathfd(inode));
	return hostfd_get(fs->procfd);
}

static int hostfs_chmod(struct inode *inode, mode_t mode)
{
	char name[16];
	int fd = proc_name(inode, name, sizeof(name));

	/* The magic link leads to the very object, whatever its names. */
	if (fd < 0)
		return fd;
	return fchmodat(fd, name, mode & 07777, 0) ? host_error(errno) : 0;
}

static struct timespec time_or_omit(unsigned int valid, unsigned int bit, const struct timespec *ts)
{
	return (valid & bit) ? *ts : (struct timespec){.tv_nsec = UTIME_OMIT};
}

static int hostfs_utimes(struct inode *inode, const struct iattr_change *c)
{
	struct timespec ts[2] = {time_or_omit(c->valid, ATTR_ATIME, &c->atime),
				 time_or_omit(c->valid, ATTR_MTIME, &c->mtime)};

	if (syscall(SYS_utimensat, hostfs_pathfd(inode), "", ts, AT_EMPTY_PATH))
		return host_error(errno);
	return 0;
}

int hostfs_setattr(const struct vfs_ctx *ctx, struct inode *inode, const struct iattr_change *c)
{
	uid_t uid = (c->valid & ATTR_UID) ? c->uid : (uid_t)-1;
	gid_t gid = (c->valid & ATTR_GID) ? c->gid : (gid_t)-1;
	int err = 0;

	if (hostfs_of(inode->super)->readonly)
		return -EROFS;
	if (c->valid & ATTR_SIZE)
		err = hostfs_truncate_locked(inode, c->size);
	if (!err && (c->valid & (ATTR_UID | ATTR_GID)) &&
	    fchownat(hostfs_pathfd(inode), "", uid, gid, AT_EMPTY_PATH))
		err = host_error(errno);
	if (!err && (c->valid & ATTR_MODE))
		err = hostfs_chmod(inode, c->mode);
	if (!err && (c->valid & (ATTR_ATIME | ATTR_MTIME)) && !(c->valid & ATTR_SIZE))
		err = hostfs_utimes(inode, c);
	return err ? err : hostfs_getattr(inode);
}

/* ---- instances ---- */

static int hostfs_statfs(struct super *sb, struct statfs *st)
{
	struct inode *root = sb->root->inode;
	__typeof__(st->f_fsid) id = st->f_fsid;

	if (fstatfs(hostfs_pathfd(root), st))
		return host_error(errno);
	st->f_fsid = id;
	return 0;
}

static void hostfs_put_super(struct super *sb)
{
	struct hostfs *fs = hostfs_of(sb);

	if (!fs)
		return;
	if (fs->procfd)
		hostfd_close(fs->procfd);
	mutex_fini(&fs->lock);
	kfree(fs);
}

static const struct super_ops hostfs_sops = {
	.statfs = hostfs_statfs,
	.put_super = hostfs_put_super,
};

/* Not in the table: mounted by the sentry for --volume, never by an application. */
static const struct fs_type hostfs_type = {
	.name = "hostfs",
	.flags = FS_NODEV,
	.sops = &hostfs_sops,
};

static int hostfs_open_proc(struct hostfs *fs)
{
	int fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);

	/* Without it files that lost their name can't be opened again, nor modes changed. */
	if (fd < 0)
		return 0;
	fd = hostfd_add(fd);
	if (fd < 0)
		return -ENOMEM;
	fs->procfd = fd;
	return 0;
}

struct super *hostfs_mount(int hostfd, const char *source, bool readonly)
{
	struct super *sb = super_alloc(&hostfs_type, source);
	struct inode *inode;
	struct hostfs *fs;
	int err = -ENOMEM, fd;

	if (!sb)
		return ERR_PTR(-ENOMEM);
	fs = kzalloc(sizeof(*fs));
	if (!fs)
		goto out_super;
	mutex_init(&fs->lock, LOCK_OBJECT);
	sb->private = fs;
	fs->readonly = readonly;
	if (readonly)
		sb->flags |= MS_RDONLY;
	err = hostfs_open_proc(fs);
	if (err)
		goto out_super;
	/* Modes of what is made arrive as the application's umask left them. */
	umask(0);
	fd = fcntl(hostfd_get(hostfd), F_DUPFD_CLOEXEC, 3);
	if (fd < 0) {
		err = host_error(errno);
		goto out_super;
	}
	inode = hostfs_inode_get(sb, fd);
	err = PTR_ERR_OR_ZERO(inode);
	if (err)
		goto out_super;
	err = -ENOMEM;
	sb->root = dentry_alloc(sb, NULL, "", 0);
	if (!sb->root) {
		inode_put(inode);
		goto out_super;
	}
	sb->root->inode = inode;
	err = -ENOTDIR;
	if (!S_ISDIR(inode->mode) && !S_ISREG(inode->mode))
		goto out_super;
	sb->magic = 0x01021997; /* as a 9p share would show */
	return sb;

out_super:
	super_put(sb);
	return ERR_PTR(err);
}
