/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memfd_create(2): an unnamed file of an in-memory filesystem that is mounted nowhere, and the
 * seals of fcntl(2), which in-memory files have.
 */
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#include "vfs/memfs.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x10U
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif
#define SEALS_ALL                                                                                  \
	(F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE |          \
	 F_SEAL_EXEC)
#define MEMFD_NAME_MAX 249

int memfd_init(void)
{
	struct super *sb = memfs_mount(&ramfs_type, "tmpfs", NULL);

	if (IS_ERR(sb))
		return (int)PTR_ERR(sb);
	sb->magic = 0x01021994;
	vfs_state->shm_mnt = mount_alloc(sb, sb->root, MNT_INTERNAL);
	super_put(sb);
	return vfs_state->shm_mnt ? 0 : -ENOMEM;
}

struct file *memfd_file(const struct vfs_ctx *ctx, const char *name, unsigned int flags)
{
	struct path path = {.mnt = vfs_state->shm_mnt};
	const struct cred *cred = ctx->cred;
	char text[MEMFD_NAME_MAX + 7];
	struct inode *inode;
	struct file *file;

	if (flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | MFD_EXEC))
		return ERR_PTR(-EINVAL);
	if ((flags & MFD_NOEXEC_SEAL) && (flags & MFD_EXEC))
		return ERR_PTR(-EINVAL);
	if (strlen(name) > MEMFD_NAME_MAX)
		return ERR_PTR(-EINVAL);
	inode = memfs_inode(path.mnt->super, S_IFREG | 0777, cred->fsuid, cred->fsgid, 0);
	if (IS_ERR(inode))
		return ERR_PTR(PTR_ERR(inode));
	inode->nlink = 0;
	if (flags & MFD_NOEXEC_SEAL) {
		inode->mode &= ~(mode_t)0111;
		memfs_node(inode)->seals = F_SEAL_EXEC;
	} else if (flags & MFD_ALLOW_SEALING) {
		memfs_node(inode)->seals = 0;
	}
	snprintf(text, sizeof(text), "memfd:%s", name);
	path.dentry = dentry_alloc(inode->super, path.mnt->root, text, strlen(text));
	if (!path.dentry) {
		inode_put(inode);
		return ERR_PTR(-ENOMEM);
	}
	path.dentry->inode = inode;
	file = file_alloc(&path, &memfs_file_fops, O_RDWR | 0100000 /* O_LARGEFILE */, ctx->cred);
	dentry_put(path.dentry);
	if (!file)
		return ERR_PTR(-ENOMEM);
	/* No writer in execve's eyes, as on Linux: fexecve of a memfd works. */
	return file;
}

static struct memfs_node *sealable(struct file *file)
{
	return file->inode->mops == &memfs_mapping_ops ? memfs_node(file->inode) : NULL;
}

int file_add_seals(struct file *file, unsigned int seals)
{
	struct memfs_node *node = sealable(file);
	struct inode *inode = file->inode;
	int err = -EPERM;

	if (!file->writable)
		return -EPERM;
	if (!node || (seals & ~(unsigned int)SEALS_ALL))
		return -EINVAL;
	write_lock(&inode->lock);
	if (node->seals & F_SEAL_SEAL)
		goto out_unlock;
	mutex_lock(&inode->mapping.lock);
	err = (seals & F_SEAL_WRITE) && inode->mapping.nr_shared_writable ? -EBUSY : 0;
	mutex_unlock(&inode->mapping.lock);
	if (err)
		goto out_unlock;
	/* What may not change its execute bits but has them may not be written either. */
	if ((seals & F_SEAL_EXEC) && (inode->mode & 0111))
		seals |= F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
	node->seals |= seals;
out_unlock:
	write_unlock(&inode->lock);
	return err;
}

int file_get_seals(struct file *file)
{
	struct memfs_node *node = sealable(file);

	return node ? (int)node->seals : -EINVAL;
}
