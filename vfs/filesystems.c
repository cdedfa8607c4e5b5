/* SPDX-License-Identifier: Apache-2.0 */
/* The table of filesystem types, and the start of the vfs. */
#include <string.h>
#include <unistd.h>

#include "vfs/internal.h"
#include "vfs/memfs.h"

#define FS_TYPES_MAX 24

static const struct fs_type *fs_types[FS_TYPES_MAX] = {
	&tmpfs_type,
	&devtmpfs_type,
	&ramfs_type,
};

const struct fs_type *fs_type_at(size_t i)
{
	return i < FS_TYPES_MAX ? fs_types[i] : NULL;
}

const struct fs_type *fs_type_find(const char *name)
{
	for (size_t i = 0; i < FS_TYPES_MAX && fs_types[i]; i++)
		if (!strcmp(fs_types[i]->name, name))
			return fs_types[i];
	return NULL;
}

int fs_type_register(const struct fs_type *type)
{
	if (fs_type_find(type->name))
		return -EEXIST;
	for (size_t i = 0; i < FS_TYPES_MAX; i++) {
		if (!fs_types[i]) {
			fs_types[i] = type;
			return 0;
		}
	}
	return -ENOSPC;
}

int vfs_init(void)
{
	long pages = sysconf(_SC_PHYS_PAGES);
	int err;

	vfs_state = kzalloc(sizeof(*vfs_state));
	if (!vfs_state)
		return -ENOMEM;
	rwlock_init(&vfs_state->mnt, LOCK_MNT);
	vfs_state->next_mnt_id = 20;
	vfs_state->next_group = 1;
	vfs_state->next_dev = 20;
	vfs_state->host_pages = pages > 0 ? (uint64_t)pages : 1u << 18;
	mutex_init(&vfs_state->notify_lock, LOCK_OBJECT);
	list_init(&vfs_state->watches);
	mutex_init(&vfs_state->lock_graph, LOCK_OBJECT);
	list_init(&vfs_state->lock_waiters);
	err = dcache_init();
	if (!err)
		err = anon_init();
	if (!err)
		err = memfd_init();
	if (!err)
		memdev_register();
	return err;
}
