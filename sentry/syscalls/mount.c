/* SPDX-License-Identifier: Apache-2.0 */
/* mount(2), umount2(2), pivot_root(2). */
#include <string.h>
#include <sys/mount.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls/fileio.h"

#define MS_MGC_VAL_X   0xc0ed0000UL
#define MS_MGC_MSK_X   0xffff0000UL
#define MS_PROPAGATION (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE)
#define UMOUNT_VALID   (MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW)

/* An optional string argument: NULL stays NULL. */
static int optional_string(struct task *t, uaddr_t addr, char **out)
{
	char *s;

	*out = NULL;
	if (!addr)
		return 0;
	s = user_path(t, addr, true);
	if (IS_ERR(s))
		return (int)PTR_ERR(s);
	*out = s;
	return 0;
}

/* The data argument: a page that need not be terminated nor all there. */
static int mount_data(struct task *t, uaddr_t addr, char **out)
{
	char *s;
	size_t n;

	*out = NULL;
	if (!addr)
		return 0;
	s = kzalloc(PAGE_SIZE + 1);
	if (!s)
		return -ENOMEM;
	n = (t->vfs.um->ops->copy_in)(t->vfs.um, s, addr, PAGE_SIZE);
	if (!n) {
		kfree(s);
		return -EFAULT;
	}
	*out = s;
	return 0;
}

static int mount_bind_from(struct task *t, const char *source, const struct path *at, bool rec)
{
	struct path from;
	int err;

	if (!source || !*source)
		return -EINVAL;
	err = path_lookup(&t->vfs, NULL, source, WALK_FOLLOW, &from);
	if (err)
		return err;
	err = mount_bind(&t->vfs, &from, at, rec);
	path_put(&from);
	return err;
}

static int mount_move_from(struct task *t, const char *source, const struct path *at)
{
	struct path from;
	int err;

	if (!source || !*source)
		return -EINVAL;
	err = path_lookup(&t->vfs, NULL, source, WALK_FOLLOW, &from);
	if (err)
		return err;
	err = mount_move(&t->vfs, &from, at);
	path_put(&from);
	return err;
}

static int mount_fresh(struct task *t, const char *type, const char *source, const char *data,
		       const struct path *at, unsigned long flags)
{
	const struct fs_type *fs;
	struct super *sb;

	if (!type)
		return -EINVAL;
	fs = fs_type_find(type);
	if (!fs)
		return -ENODEV;
	if (!(fs->flags & FS_USER_MOUNT))
		return -EPERM;
	sb = fs->mount(&t->vfs, source ? source : "none", data);
	if (IS_ERR(sb))
		return (int)PTR_ERR(sb);
	return mount_new(&t->vfs, sb, at, flags);
}

long sys_mount(struct task *t, const uint64_t *a)
{
	unsigned long flags = a[3];
	char *source, *type, *data;
	struct path at;
	int err;

	if ((flags & MS_MGC_MSK_X) == MS_MGC_VAL_X)
		flags &= ~MS_MGC_MSK_X;
	if (!(flags & (MS_NOATIME | MS_STRICTATIME)))
		flags |= MS_RELATIME;
	err = optional_string(t, a[0], &source);
	if (err)
		return err;
	err = optional_string(t, a[2], &type);
	if (err)
		goto out_source;
	err = mount_data(t, a[4], &data);
	if (err)
		goto out_type;
	err = user_lookup(t, AT_FDCWD, a[1], WALK_FOLLOW, &at);
	if (err)
		goto out_data;
	if (!task_capable(t, CAP_SYS_ADMIN))
		err = -EPERM;
	else if (flags & MS_REMOUNT)
		err = mount_remount(&t->vfs, &at, flags & ~(unsigned long)(MS_REMOUNT | MS_BIND),
				    flags & MS_BIND);
	else if (flags & MS_BIND)
		err = mount_bind_from(t, source, &at, flags & MS_REC);
	else if (flags & MS_PROPAGATION)
		err = mount_set_propagation(&t->vfs, &at, flags & MS_PROPAGATION, flags & MS_REC);
	else if (flags & MS_MOVE)
		err = mount_move_from(t, source, &at);
	else
		err = mount_fresh(t, type, source, data, &at, flags);
	path_put(&at);
out_data:
	kfree(data);
out_type:
	kfree(type);
out_source:
	kfree(source);
	return err;
}

long sys_umount2(struct task *t, const uint64_t *a)
{
	int flags = (int)a[1];
	struct path at;
	int err;

	if (flags & ~UMOUNT_VALID)
		return -EINVAL;
	err = user_lookup(t, AT_FDCWD, a[0], (flags & UMOUNT_NOFOLLOW) ? 0 : WALK_FOLLOW, &at);
	if (err)
		return err;
	/* Consumes nothing: our own reference must not keep the mount busy. */
	if (!task_capable(t, CAP_SYS_ADMIN))
		err = -EPERM;
	else
		err = mount_umount(&t->vfs, &at, flags);
	path_put(&at);
	return err;
}

long sys_pivot_root(struct task *t, const uint64_t *a)
{
	struct path new_root, put_old;
	int err;

	if (!task_capable(t, CAP_SYS_ADMIN))
		return -EPERM;
	err = user_lookup(t, AT_FDCWD, a[0], WALK_FOLLOW | WALK_DIRECTORY, &new_root);
	if (err)
		return err;
	err = user_lookup(t, AT_FDCWD, a[1], WALK_FOLLOW | WALK_DIRECTORY, &put_old);
	if (!err) {
		err = mount_pivot_root(&t->vfs, &new_root, &put_old);
		path_put(&put_old);
	}
	path_put(&new_root);
	return err;
}
