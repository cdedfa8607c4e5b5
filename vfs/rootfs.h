/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The in-memory filesystem, plain (tmpfs) or over a read-only image (the sandbox's root).
 *
 * The upper layer of an overlay is not a second filesystem here: an inode of a memfs may have a
 * *lower* inode in an EROFS image. A name that the dentry tree doesn't hold is looked up in the
 * lower directory and becomes an ordinary memfs inode whose contents still come from the image:
 * pages are mapped from it and copied up one by one when written. Removing such a name leaves a
 * whiteout dentry. Rename, hard links, inode numbers and d_type need no special cases that way.
 */
#ifndef VFS_ROOTFS_H
#define VFS_ROOTFS_H

#include "vfs/vfs.h"

/* A root filesystem over the image mapped at @image_gpa (physmem_add_file). ERR_PTR on failure. */
struct super *rootfs_mount(gpa_t image_gpa, size_t image_size);
/*
 * A host directory (by hostfd index, O_PATH|O_DIRECTORY) as a filesystem. @readonly refuses writes.
 */
struct super *hostfs_mount(int hostfd, const char *source, bool readonly);
/* A file over a host fd that is passed in: stdin, stdout, stderr. */
struct file;
struct file *hostfile_alloc(int hostfd, unsigned int flags, struct cred *cred);
/*
 * What such a file shares with others over the same descriptor; kernel state, there as long as the
 * descriptor is.
 */
struct hostfile;
struct hostfile *hostfile_state(struct file *file);
/* In a restored sandbox: another descriptor is at its index. 0 or -EBADF. */
int hostfile_reopened(struct hostfile *h) __must_check;
/*
 * A terminal's ioctls that are about processes (TIOCSCTTY, TIOCGPGRP, TIOCSPGRP, TIOCGSID, …),
 * which are the sentry's to answer. Set once; NULL: -ENOTTY.
 */
extern long (*hostfile_tty_hook)(const struct vfs_ctx *ctx, struct file *file, unsigned int cmd,
				 unsigned long arg);

#endif
