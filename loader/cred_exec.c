/* SPDX-License-Identifier: Apache-2.0 */
/* Credentials across execve: capabilities(7), "Transformation of capabilities during execve()". */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <linux/xattr.h>
#include <string.h>
#include <sys/mount.h>

#include "loader/exec.h"
#include "sentry/lib/err.h"

struct file_caps {
	uint64_t permitted, inheritable;
	bool effective, present;
};

/* security.capability of revision 2 or 3 (3's root user must be ours: 0). */
static int read_file_caps(struct file *file, struct file_caps *fc)
{
	struct vfs_ns_cap_data d;
	uint32_t magic;
	ssize_t n;

	memset(fc, 0, sizeof(*fc));
	if (!file->inode->ops->getxattr)
		return 0;
	n = file->inode->ops->getxattr(file->inode, XATTR_NAME_CAPS, &d, sizeof(d));
	if (n < 0)
		return 0;
	magic = d.magic_etc & VFS_CAP_REVISION_MASK;
	if (magic == VFS_CAP_REVISION_2	  ? n != XATTR_CAPS_SZ_2
	    : magic == VFS_CAP_REVISION_3 ? n != XATTR_CAPS_SZ_3
					  : true)
		return -EINVAL;
	if (magic == VFS_CAP_REVISION_3 && d.rootid)
		return 0;
	fc->present = true;
	fc->effective = d.magic_etc & VFS_CAP_FLAGS_EFFECTIVE;
	fc->permitted = (d.data[0].permitted | (uint64_t)d.data[1].permitted << 32) & CAP_FULL_SET;
	fc->inheritable =
		(d.data[0].inheritable | (uint64_t)d.data[1].inheritable << 32) & CAP_FULL_SET;
	return 0;
}

/* Set-id bits count on mounts that allow them, and not under no_new_privs. */
static void apply_set_id(struct cred *c, struct file *file, bool no_new_privs)
{
	const struct inode *inode = file->inode;

	if (no_new_privs || (file->path.mnt->flags & MS_NOSUID))
		return;
	if (inode->mode & S_ISUID)
		c->euid = inode->uid;
	if ((inode->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		c->egid = inode->gid;
}

struct cred *cred_exec(struct cred *old, struct file *file, bool no_new_privs, bool *secure)
{
	struct cred *c = cred_prepare(old);
	uint64_t permitted, inheritable;
	bool root_rules, gained;
	struct file_caps fc;
	int err;

	if (!c)
		return ERR_PTR(-ENOMEM);
	apply_set_id(c, file, no_new_privs);
	c->suid = c->fsuid = c->euid;
	c->sgid = c->fsgid = c->egid;
	err = read_file_caps(file, &fc);
	if (no_new_privs || (file->path.mnt->flags & MS_NOSUID))
		fc.present = fc.effective = false;
	if (!fc.present)
		fc.permitted = fc.inheritable = 0;
	permitted = (c->cap_inheritable & fc.inheritable) | (c->cap_bset & fc.permitted);
	if (fc.present && fc.effective && (fc.permitted & ~permitted))
		err = -EPERM;
	if (err) {
		cred_put(c);
		return ERR_PTR(err);
	}
	root_rules = !(c->securebits & SECBIT_NOROOT) && (c->uid == 0 || c->euid == 0);
	/* Set-user-id root with file capabilities of its own gets just those. */
	if (root_rules && !(fc.present && c->euid == 0 && c->uid != 0)) {
		inheritable = c->cap_inheritable;
		permitted = c->cap_bset | inheritable;
		fc.effective = c->euid == 0;
	}
	/* What was given up stays so, root or not. */
	if (no_new_privs)
		permitted &= old->cap_permitted;
	gained = c->euid != old->uid || c->egid != old->gid || fc.present;
	if (gained)
		c->cap_ambient = 0;
	c->cap_permitted = permitted | c->cap_ambient;
	c->cap_effective = fc.effective ? c->cap_permitted : c->cap_ambient;
	c->securebits &= ~(unsigned int)SECBIT_KEEP_CAPS;
	*secure = c->uid != c->euid || c->gid != c->egid ||
		  (c->uid && (fc.effective || (c->cap_permitted & ~c->cap_ambient)));
	return c;
}
