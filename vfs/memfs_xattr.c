/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes of in-memory files: a list per inode. The image's are used until the first
 * change, which copies them all, so that a removal needs no marker.
 */
#include <string.h>
#include <linux/xattr.h>

#include "vfs/memfs.h"

/* What one inode may keep; names and values come from the arena. */
#define XATTR_TOTAL_MAX (128u << 10)

static bool xattrs_from_lower(const struct memfs_node *node)
{
	return node->has_lower && !node->xattrs_own;
}

static struct memfs_xattr *xattr_find(struct memfs_node *node, const char *name)
{
	struct memfs_xattr *x;

	list_for_each_entry (x, &node->xattrs, node)
		if (!strcmp(x->name, name))
			return x;
	return NULL;
}

static struct memfs_xattr *xattr_alloc(const char *name, const void *value, size_t size)
{
	size_t len = strlen(name) + 1;
	struct memfs_xattr *x = kmalloc(sizeof(*x) + size + len);

	if (!x)
		return NULL;
	list_init(&x->node);
	x->size = size;
	memcpy(x->value, value, size);
	x->name = x->value + size;
	memcpy(x->name, name, len);
	return x;
}

void memfs_xattrs_free(struct memfs_node *node)
{
	struct memfs_xattr *x, *tmp;

	list_for_each_entry_safe (x, tmp, &node->xattrs, node) {
		list_del(&x->node);
		kfree(x);
	}
}

ssize_t memfs_getxattr(struct inode *inode, const char *name, void *value, size_t size)
{
	struct memfs_node *node = memfs_node(inode);
	struct memfs_xattr *x;

	if (xattrs_from_lower(node))
		return lower_getxattr(memfs_of(inode->super)->lower, &node->lower, name, value,
				      size);
	x = xattr_find(node, name);
	if (!x)
		return -ENODATA;
	if (!size)
		return (ssize_t)x->size;
	if (size < x->size)
		return -ERANGE;
	memcpy(value, x->value, x->size);
	return (ssize_t)x->size;
}

/* Makes the list complete: all of the image's, or none on failure. */
static int xattrs_copy_up(struct inode *inode)
{
	struct lower_fs *fs = memfs_of(inode->super)->lower;
	struct memfs_node *node = memfs_node(inode);
	ssize_t len = lower_listxattr(fs, &node->lower, NULL, 0);
	char *names = NULL, *value = NULL;
	int err = 0;

	if (len < 0)
		return (int)len;
	if (!len)
		goto out;
	err = -ENOMEM;
	names = kmalloc((size_t)len);
	value = kmalloc(XATTR_TOTAL_MAX);
	if (!names || !value)
		goto out;
	err = 0;
	len = lower_listxattr(fs, &node->lower, names, (size_t)len);
	for (char *name = names; !err && len > 0 && name < names + len; name += strlen(name) + 1) {
		ssize_t n = lower_getxattr(fs, &node->lower, name, value, XATTR_TOTAL_MAX);
		struct memfs_xattr *x = n < 0 ? NULL : xattr_alloc(name, value, (size_t)n);

		if (x)
			list_add_tail(&x->node, &node->xattrs);
		else
			err = n < 0 ? (int)n : -ENOMEM;
	}
	if (err)
		memfs_xattrs_free(node);
out:
	kfree(names);
	kfree(value);
	if (!err)
		node->xattrs_own = true;
	return err;
}

static bool xattr_fits(struct memfs_node *node, const struct memfs_xattr *old, size_t size)
{
	size_t total = size;
	struct memfs_xattr *x;

	list_for_each_entry (x, &node->xattrs, node)
		if (x != old)
			total += x->size + strlen(x->name) + 1;
	return total <= XATTR_TOTAL_MAX;
}

int memfs_setxattr(struct inode *inode, const char *name, const void *value, size_t size, int flags)
{
	struct memfs_node *node = memfs_node(inode);
	struct memfs_xattr *old, *x = NULL;
	int err;

	if (xattrs_from_lower(node)) {
		err = xattrs_copy_up(inode);
		if (err)
			return err;
	}
	old = xattr_find(node, name);
	if (old && (flags & XATTR_CREATE))
		return -EEXIST;
	if (!old && (flags & XATTR_REPLACE))
		return -ENODATA;
	if (value) {
		if (!xattr_fits(node, old, size + strlen(name) + 1))
			return -ENOSPC;
		x = xattr_alloc(name, value, size);
		if (!x)
			return -ENOMEM;
		list_add_tail(&x->node, &node->xattrs);
	}
	if (old) {
		list_del(&old->node);
		kfree(old);
	}
	return 0;
}

ssize_t memfs_listxattr(struct inode *inode, char *list, size_t size)
{
	struct memfs_node *node = memfs_node(inode);
	struct memfs_xattr *x;
	size_t total = 0;

	if (xattrs_from_lower(node))
		return lower_listxattr(memfs_of(inode->super)->lower, &node->lower, list, size);
	list_for_each_entry (x, &node->xattrs, node) {
		size_t len = strlen(x->name) + 1;

		if (size && total + len > size)
			return -ERANGE;
		if (size)
			memcpy(list + total, x->name, len);
		total += len;
	}
	return (ssize_t)total;
}
