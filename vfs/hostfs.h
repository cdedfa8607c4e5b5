/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host directories as filesystems (--volume): what hostfs.c, hostfs_dir.c and hostfs_data.c share.
 *
 * Every inode holds an O_PATH descriptor of its host object, so an object stays itself whatever
 * happens to its names, and its (device, inode number) isn't reused while we know it. A host call
 * names one component at a time, relative to such a descriptor, with openat2 forbidding links: the
 * host never resolves a path for the guest, so no symbolic link, "..", rename or race of the two
 * leads out. The guest's ".." is our own dentries'.
 *
 * Only regular files and directories are opened on the host. Devices, pipes and sockets in a volume
 * are the guest's own (by number, by inode).
 */
#ifndef VFS_HOSTFS_H
#define VFS_HOSTFS_H

#include "sentry/lib/hostfd.h"
#include "vfs/internal.h"

#define HOSTFS_BUCKETS 1024u
#define HOSTFS_BOUNCE  (16u << 10) /* on the stack of the calling thread */

struct hostfs {
	int procfd; /* hostfd index of /proc/self/fd, or 0: how an O_PATH descriptor is opened again
		     */
	bool readonly;
	struct mutex lock; /* LOCK_OBJECT: inodes */
	struct list_head inodes[HOSTFS_BUCKETS];
};

struct hostfs_inode {
	struct list_head node; /* hostfs.inodes; under its lock */
	struct inode *inode;
	dev_t dev;
	uint64_t ino;
	int pathfd;		     /* hostfd index, O_PATH */
	struct mutex lock;	     /* LOCK_OBJECT: the two below are opened once */
	_Atomic int readfd, writefd; /* hostfd indices or 0; writefd can read too */
};

static inline struct hostfs *hostfs_of(const struct super *sb)
{
	return sb->private;
}
static inline struct hostfs_inode *hostfs_inode(const struct inode *inode)
{
	return inode->private;
}
static inline int hostfs_pathfd(const struct inode *inode)
{
	return hostfd_get(hostfs_inode(inode)->pathfd);
}

/* -errno for the guest. EINTR and EAGAIN of the host: -EAGAIN. */
int host_error(int err);

/* hostfs.c */
/* openat2 of one component, never through a link. The descriptor, or -errno. */
int hostfs_openat(int dirfd, const char *name, uint64_t flags, mode_t mode);
/* The inode of the object behind @pathfd (O_PATH, consumed). ERR_PTR. */
struct inode *hostfs_inode_get(struct super *sb, int pathfd);
/* The object's attributes as the host has them now. */
int hostfs_getattr(struct inode *inode);
void hostfs_evict(struct inode *inode);
char *hostfs_readlink(const struct vfs_ctx *ctx, struct inode *inode);
int hostfs_setattr(const struct vfs_ctx *ctx, struct inode *inode, const struct iattr_change *c);

/* hostfs_dir.c */
extern const struct inode_ops hostfs_dir_ops;
extern const struct file_ops hostfs_dir_fops;

/* hostfs_data.c */
extern const struct file_ops hostfs_file_fops;
extern const struct mapping_ops hostfs_mapping_ops;
int hostfs_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file);
/* A host descriptor for contents, readable or also writable. -errno. @dentry: a name, or NULL. */
int hostfs_iofd(struct inode *inode, struct dentry *dentry, bool write);
int hostfs_truncate_locked(struct inode *inode, uint64_t size);
void hostfs_drop_pages(struct inode *inode);

#endif
