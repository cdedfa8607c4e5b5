/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inotify(7): watches on inodes, events from the operations of the vfs, a queue that is a file.
 *
 * Event sources call notify_* after the change and without locks of rank LOCK_OBJECT or later. An
 * inode without watches costs one load.
 */
#ifndef VFS_NOTIFY_H
#define VFS_NOTIFY_H

#include <sys/inotify.h>

#include "vfs/file.h"

/* inotify_init1(2): @flags IN_NONBLOCK (IN_CLOEXEC is the caller's). ERR_PTR on failure. */
struct file *notify_create(const struct vfs_ctx *ctx, int flags);
/* inotify_add_watch(2) on what @path names; the watch descriptor or -errno. */
int notify_add_watch(const struct vfs_ctx *ctx, struct file *file, const struct path *path,
		     uint32_t mask);
int notify_rm_watch(struct file *file, int wd);

/* Is anything watched at all? The gate in front of the rest. */
bool notify_active(void);
/* An event of @inode itself. @mask IN_*; IN_ISDIR is added here. */
void notify_inode(struct inode *inode, uint32_t mask);
/* An event of the entry @dentry: told to its directory's watches, by name, and to its own. */
void notify_dentry(struct dentry *dentry, uint32_t mask);
/* An event of the name @name in @dir (create, delete, move). */
void notify_name(struct inode *dir, uint32_t mask, uint32_t cookie, const char *name, bool isdir);
uint32_t notify_move_cookie(void);
/* The inode has lost its last name or the super its last mount: watches end with IN_IGNORED. */
void notify_inode_gone(struct inode *inode);
void notify_super_gone(struct super *sb);

#endif
