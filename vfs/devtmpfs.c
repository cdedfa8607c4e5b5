/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /dev: an in-memory filesystem that starts with the devices everybody expects. Nodes carry numbers
 * only; who drives tty, ptmx and console registers with chrdev_register. shm and pts are empty
 * directories for others to mount on.
 */
#include <sys/mount.h>
#include <sys/sysmacros.h>

#include "vfs/memfs.h"

struct dev_entry {
	const char *name;
	mode_t mode;
	unsigned int major, minor;
	const char *symlink;
};

static const struct dev_entry dev_entries[] = {
	{"null", S_IFCHR | 0666, 1, 3, NULL},
	{"zero", S_IFCHR | 0666, 1, 5, NULL},
	{"full", S_IFCHR | 0666, 1, 7, NULL},
	{"random", S_IFCHR | 0666, 1, 8, NULL},
	{"urandom", S_IFCHR | 0666, 1, 9, NULL},
	{"kmsg", S_IFCHR | 0644, 1, 11, NULL},
	{"tty", S_IFCHR | 0666, 5, 0, NULL},
	{"console", S_IFCHR | 0600, 5, 1, NULL},
	{"ptmx", S_IFCHR | 0666, 5, 2, NULL},
	{"pts", S_IFDIR | 0755, 0, 0, NULL},
	{"shm", S_IFDIR | 01777, 0, 0, NULL},
	{"mqueue", S_IFDIR | 01777, 0, 0, NULL},
	{"fd", S_IFLNK | 0777, 0, 0, "/proc/self/fd"},
	{"stdin", S_IFLNK | 0777, 0, 0, "/proc/self/fd/0"},
	{"stdout", S_IFLNK | 0777, 0, 0, "/proc/self/fd/1"},
	{"stderr", S_IFLNK | 0777, 0, 0, "/proc/self/fd/2"},
};

static struct super *devtmpfs_mount(const struct vfs_ctx *ctx, const char *source,
				    const char *options)
{
	struct super *sb = memfs_mount(&devtmpfs_type, source, options ? options : "mode=755");

	if (IS_ERR(sb))
		return sb;
	for (size_t i = 0; i < ARRAY_SIZE(dev_entries); i++) {
		const struct dev_entry *e = &dev_entries[i];
		struct dentry *d = memfs_add(sb->root, e->name, e->mode,
					     makedev(e->major, e->minor), e->symlink);

		if (IS_ERR(d)) {
			super_put(sb);
			return ERR_PTR(PTR_ERR(d));
		}
	}
	return sb;
}

const struct fs_type devtmpfs_type = {
	.name = "devtmpfs",
	.flags = FS_NODEV | FS_USER_MOUNT,
	.mount = devtmpfs_mount,
	.sops = &memfs_sops,
};
