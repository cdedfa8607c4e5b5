/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects that are files without a name anywhere: pipes, sockets, eventfds, epoll sets. Each has an
 * inode and an unhashed dentry in one super that is mounted nowhere; the dentry's name is what
 * /proc/PID/fd shows.
 */
#include <stdio.h>
#include <string.h>

#include "vfs/internal.h"

static const struct fs_type anon_type = {.name = "anon_inodefs", .flags = FS_NODEV};

int anon_init(void)
{
	struct super *sb = super_alloc(&anon_type, "anon_inodefs");
	struct inode *inode;
	struct dentry *root;

	if (!sb)
		return -ENOMEM;
	sb->magic = 0x09041934; /* ANON_INODE_FS_MAGIC */
	inode = inode_alloc(sb, S_IFDIR | 0700, 0, 0);
	root = dentry_alloc(sb, NULL, "", 0);
	if (!inode || !root)
		return -ENOMEM;
	root->inode = inode;
	sb->root = root;
	vfs_state->anon = sb;
	vfs_state->anon_mnt = mount_alloc(sb, root, MNT_INTERNAL | MS_NOATIME);
	return vfs_state->anon_mnt ? 0 : -ENOMEM;
}

struct file *file_alloc_anon(const char *name, mode_t mode, const struct file_ops *ops,
			     void *private, unsigned int flags, struct cred *cred)
{
	struct super *sb = vfs_state->anon;
	struct path path = {.mnt = vfs_state->anon_mnt};
	const char *number = strstr(name, "%lu");
	struct inode *inode;
	struct file *file;
	char text[64];

	inode = inode_alloc(sb, mode, cred ? cred->fsuid : 0, cred ? cred->fsgid : 0);
	if (!inode)
		return ERR_PTR(-ENOMEM);
	if (number)
		snprintf(text, sizeof(text), "%.*s%lu%s", (int)(number - name), name,
			 (unsigned long)inode->ino, number + 3);
	else
		snprintf(text, sizeof(text), "%s", name);
	path.dentry = dentry_alloc(sb, NULL, text, strlen(text));
	if (!path.dentry) {
		inode_put(inode);
		return ERR_PTR(-ENOMEM);
	}
	path.dentry->inode = inode;
	file = file_alloc(&path, ops, flags, cred);
	dentry_put(path.dentry);
	if (!file)
		return ERR_PTR(-ENOMEM);
	file->private = private;
	return file;
}
