/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character devices: drivers by number. The inode only has the number; opening finds the driver,
 * which puts its operations into the file. Registered before the first task runs, never removed.
 */
#include <sys/sysmacros.h>

#include "vfs/internal.h"

void chrdev_register(struct chrdev *dev)
{
	dev->next = vfs_state->chrdevs;
	vfs_state->chrdevs = dev;
}

int chrdev_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file)
{
	unsigned int maj = major(inode->rdev), min = minor(inode->rdev);

	for (struct chrdev *dev = vfs_state->chrdevs; dev; dev = dev->next)
		if (dev->major == maj && min >= dev->minor && min - dev->minor < dev->nminors)
			return dev->open(ctx, inode, file);
	return -ENXIO;
}
