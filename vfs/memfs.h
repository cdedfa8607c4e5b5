/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The in-memory filesystem's inside (see rootfs.h for the idea). Directories are their pinned
 * dentries; contents are frames in inode->mapping.pages; an inode over an image keeps the rest of
 * its contents there until they are written.
 *
 * mapping.pages holds, by file page: the gpa of a frame that the file owns, or MEMFS_HOLE for a
 * hole punched over the image. What is absent comes from the image below lower_size, else it is a
 * hole.
 */
#ifndef VFS_MEMFS_H
#define VFS_MEMFS_H

#include "vfs/internal.h"
#include "vfs/memfs_lower.h"

#define MEMFS_HOLE 1ULL

extern const struct fs_type tmpfs_type, devtmpfs_type, ramfs_type, rootfs_type;
extern const struct super_ops memfs_sops;

struct memfs {
	uint64_t max_pages, max_inodes; /* 0: no limit; remount isn't offered */
	_Atomic uint64_t pages, inodes;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	bool show_size, show_inodes;
	struct lower_fs *lower; /* the image, or NULL */
	struct mutex lock;	/* LOCK_OBJECT: links */
	struct radix links;	/* lower inode number → inode with several names; references */
};

struct memfs_xattr {
	struct list_head node;
	char *name;
	size_t size;
	char value[];
};

struct memfs_node {
	struct lower_inode lower;
	bool has_lower;	     /* an inode of the image is below */
	bool linked;	     /* in memfs.links */
	bool xattrs_own;     /* xattrs are complete; the image's don't count */
	unsigned int seals;  /* F_SEAL_* */
	uint64_t lower_size; /* contents below this still come from the image; under inode lock */
	char *symlink;
	struct list_head xattrs; /* under inode lock */
};

static inline struct memfs *memfs_of(const struct super *sb)
{
	return sb->private;
}
static inline struct memfs_node *memfs_node(const struct inode *inode)
{
	return inode->private;
}

/* memfs.c */
/* A super with an empty root directory. @options as mount(2)'s. ERR_PTR on failure. */
struct super *memfs_mount(const struct fs_type *type, const char *source, const char *options);
/* A new inode with its node, counted; ERR_PTR(-ENOSPC, -ENOMEM). */
struct inode *memfs_inode(struct super *sb, mode_t mode, uid_t uid, gid_t gid, dev_t rdev);
/* Puts the operations for its type into @inode. */
void memfs_set_ops(struct inode *inode);
/*
 * For filesystems that fill themselves: makes @name in @dir, a pinned name, and returns its dentry,
 * which stays valid as long as the name does. ERR_PTR on failure. @symlink: target or NULL.
 */
struct dentry *memfs_add(struct dentry *dir, const char *name, mode_t mode, dev_t rdev,
			 const char *symlink);
void memfs_evict(struct inode *inode);

/* memfs_dir.c */
/* An inode over one of the image. ERR_PTR. */
struct inode *rootfs_inode(struct super *sb, const struct lower_inode *lower);
extern const struct inode_ops memfs_dir_ops, rootfs_dir_ops;
extern const struct file_ops memfs_dir_fops;

/* memfs_data.c */
extern const struct file_ops memfs_file_fops;
extern const struct mapping_ops memfs_mapping_ops;
int memfs_truncate_locked(struct inode *inode, uint64_t size);
void memfs_free_pages(struct inode *inode, uint64_t first, uint64_t last);
bool memfs_charge(struct memfs *fs, uint64_t pages);
void memfs_uncharge(struct memfs *fs, uint64_t pages);

/* memfs_xattr.c */
ssize_t memfs_getxattr(struct inode *inode, const char *name, void *value, size_t size);
int memfs_setxattr(struct inode *inode, const char *name, const void *value, size_t size,
		   int flags);
ssize_t memfs_listxattr(struct inode *inode, char *list, size_t size);
void memfs_xattrs_free(struct memfs_node *node);

#endif
