/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The in-memory filesystem: instances, options, inodes. tmpfs, ramfs and devtmpfs are it without an
 * image; the sandbox's root is it over one (rootfs.h).
 */
#include "vfs/memfs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "sentry/lib/physmem.h"
#include "vfs/rootfs.h"
#include "vfs/strbuf.h"

#define TMPFS_MAGIC	0x01021994
#define OVERLAYFS_MAGIC 0x794c7630
#define RAMFS_MAGIC	0x858458f6
#define F_SEAL_SEAL_BIT 1u
#define F_SEAL_EXEC_BIT 0x20u
/* What one inode costs is taken from the arena: the default limit, as tmpfs's, bounds it. */
#define INODES_PER_PAGE_DEFAULT 2

static int memfs_setattr(const struct vfs_ctx *ctx, struct inode *inode,
			 const struct iattr_change *c)
{
	if ((c->valid & ATTR_MODE) && (memfs_node(inode)->seals & F_SEAL_EXEC_BIT) &&
	    ((c->mode ^ inode->mode) & 0111))
		return -EPERM;
	if (c->valid & ATTR_SIZE) {
		int err = memfs_truncate_locked(inode, c->size);

		if (err)
			return err;
	}
	inode_setattr_copy(inode, c);
	return 0;
}

static char *memfs_readlink(const struct vfs_ctx *ctx, struct inode *inode)
{
	struct memfs_node *node = memfs_node(inode);
	char *s;

	if (!node->symlink)
		return lower_readlink(memfs_of(inode->super)->lower, &node->lower);
	s = kstrdup(node->symlink);
	return s ? s : ERR_PTR(-ENOMEM);
}

static const struct inode_ops memfs_file_ops = {
	.setattr = memfs_setattr,
	.getxattr = memfs_getxattr,
	.setxattr = memfs_setxattr,
	.listxattr = memfs_listxattr,
	.evict = memfs_evict,
};

static const struct inode_ops memfs_symlink_ops = {
	.setattr = memfs_setattr,
	.readlink = memfs_readlink,
	.getxattr = memfs_getxattr,
	.setxattr = memfs_setxattr,
	.listxattr = memfs_listxattr,
	.evict = memfs_evict,
};

void memfs_set_ops(struct inode *inode)
{
	switch (inode->mode & S_IFMT) {
	case S_IFDIR:
		inode->ops = memfs_node(inode)->has_lower ? &rootfs_dir_ops : &memfs_dir_ops;
		inode->fops = &memfs_dir_fops;
		break;
	case S_IFLNK:
		inode->ops = &memfs_symlink_ops;
		break;
	case S_IFREG:
		inode->ops = &memfs_file_ops;
		inode->fops = &memfs_file_fops;
		inode->mops = &memfs_mapping_ops;
		break;
	default:
		inode->ops = &memfs_file_ops;
		break;
	}
}

struct inode *memfs_inode(struct super *sb, mode_t mode, uid_t uid, gid_t gid, dev_t rdev)
{
	struct memfs *fs = memfs_of(sb);
	struct memfs_node *node;
	struct inode *inode;

	if (atomic_fetch_add(&fs->inodes, 1) >= fs->max_inodes && fs->max_inodes) {
		atomic_fetch_sub(&fs->inodes, 1);
		return ERR_PTR(-ENOSPC);
	}
	node = kzalloc(sizeof(*node));
	inode = node ? inode_alloc(sb, mode, uid, gid) : NULL;
	if (!inode) {
		kfree(node);
		atomic_fetch_sub(&fs->inodes, 1);
		return ERR_PTR(-ENOMEM);
	}
	list_init(&node->xattrs);
	node->seals = F_SEAL_SEAL_BIT;
	inode->private = node;
	inode->rdev = rdev;
	if (S_ISDIR(mode))
		inode->nlink = 2;
	memfs_set_ops(inode);
	return inode;
}

void memfs_evict(struct inode *inode)
{
	struct memfs_node *node = memfs_node(inode);

	if ((inode->fifo || inode->socket) && inode_special_evict_hook)
		inode_special_evict_hook(inode);
	if (S_ISREG(inode->mode))
		memfs_free_pages(inode, 0, UINT64_MAX);
	memfs_xattrs_free(node);
	kfree(node->symlink);
	kfree(node);
	atomic_fetch_sub(&memfs_of(inode->super)->inodes, 1);
}

void (*inode_special_evict_hook)(struct inode *inode);

/* ---- options ---- */

static uint64_t total_pages(void)
{
	struct physmem_stats st;

	physmem_stats(&st);
	return st.limit ? st.limit / PAGE_SIZE : vfs_state->host_pages;
}

/* "64m", "50%", "4096". */
static int parse_size(const char *s, uint64_t *out)
{
	char *end;
	uint64_t n;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	n = strtoull(s, &end, 0);
	if (errno)
		return -EINVAL;
	switch (*end) {
	case '%':
		n = total_pages() * PAGE_SIZE / 100 * n;
		end++;
		break;
	case 'g':
	case 'G':
		n <<= 10;
		/* fallthrough */
	case 'm':
	case 'M':
		n <<= 10;
		/* fallthrough */
	case 'k':
	case 'K':
		n <<= 10;
		end++;
		break;
	default:
		break;
	}
	*out = n;
	return *end ? -EINVAL : 0;
}

static int parse_id(const char *s, unsigned int base, unsigned int *out)
{
	char *end;
	unsigned long n;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	n = strtoul(s, &end, (int)base);
	*out = (unsigned int)n;
	return *end || n > UINT32_MAX ? -EINVAL : 0;
}

static int parse_option(struct memfs *fs, const char *key, const char *value)
{
	uint64_t n;
	int err;

	/* What changes nothing here is accepted, as Linux's tmpfs built without it does. */
	if (!strncmp(key, "huge", 4) || !strcmp(key, "inode32") || !strcmp(key, "inode64") ||
	    !strcmp(key, "noswap") || !strcmp(key, "mpol"))
		return 0;
	if (!value)
		return -EINVAL;
	if (!strcmp(key, "size") || !strcmp(key, "nr_blocks")) {
		err = parse_size(value, &n);
		fs->max_pages = key[0] == 's' ? (n + PAGE_SIZE - 1) / PAGE_SIZE : n;
		fs->show_size = true;
		return err;
	}
	if (!strcmp(key, "nr_inodes")) {
		err = parse_size(value, &n);
		fs->max_inodes = n;
		fs->show_inodes = true;
		return err;
	}
	if (!strcmp(key, "mode")) {
		err = parse_id(value, 8, &fs->mode);
		fs->mode &= 07777;
		return err;
	}
	if (!strcmp(key, "uid"))
		return parse_id(value, 10, &fs->uid);
	if (!strcmp(key, "gid"))
		return parse_id(value, 10, &fs->gid);
	return -EINVAL;
}

static int parse_options(struct memfs *fs, const char *options)
{
	char *copy, *save = NULL, *word, *value;
	int err = 0;

	if (!options || !*options)
		return 0;
	copy = kstrdup(options);
	if (!copy)
		return -ENOMEM;
	for (word = strtok_r(copy, ",", &save); word && !err; word = strtok_r(NULL, ",", &save)) {
		value = strchr(word, '=');
		if (value)
			*value++ = '\0';
		err = parse_option(fs, word, value);
	}
	kfree(copy);
	return err;
}

/* ---- instances ---- */

static int memfs_statfs(struct super *sb, struct statfs *st)
{
	struct memfs *fs = memfs_of(sb);
	uint64_t pages = fs->pages, inodes = fs->inodes;
	uint64_t max = fs->max_pages ? fs->max_pages : total_pages();
	uint64_t lower = fs->lower ? lower_pages(fs->lower) : 0;

	st->f_blocks = max + lower;
	st->f_bfree = st->f_bavail = max > pages ? max - pages : 0;
	st->f_files = fs->max_inodes ? fs->max_inodes : max;
	st->f_ffree = st->f_files > inodes ? st->f_files - inodes : 0;
	return 0;
}

static char *memfs_show_options(struct super *sb)
{
	struct memfs *fs = memfs_of(sb);
	struct strbuf b = {0};

	if (fs->show_size)
		strbuf_printf(&b, ",size=%luk", (unsigned long)(fs->max_pages * 4));
	if (fs->show_inodes)
		strbuf_printf(&b, ",nr_inodes=%lu", (unsigned long)fs->max_inodes);
	if (fs->mode != 01777 && !fs->lower)
		strbuf_printf(&b, ",mode=%03o", fs->mode);
	if (fs->uid)
		strbuf_printf(&b, ",uid=%u", fs->uid);
	if (fs->gid)
		strbuf_printf(&b, ",gid=%u", fs->gid);
	return strbuf_finish(&b);
}

/* Inodes with several names in the image are held until here, or until the last name is removed. */
static void memfs_shutdown(struct super *sb)
{
	struct memfs *fs = memfs_of(sb);
	uint64_t index = 0, value;

	while (fs && radix_next(&fs->links, &index, &value)) {
		struct inode *inode = (struct inode *)(uintptr_t)value;

		(void)!radix_set(&fs->links, index, 0);
		memfs_node(inode)->linked = false;
		inode_put(inode);
	}
}

static void memfs_put_super(struct super *sb)
{
	struct memfs *fs = memfs_of(sb);

	if (!fs)
		return;
	if (fs->lower)
		lower_close(fs->lower);
	radix_fini(&fs->links);
	mutex_fini(&fs->lock);
	kfree(fs);
}

const struct super_ops memfs_sops = {
	.statfs = memfs_statfs,
	.put_super = memfs_put_super,
	.show_options = memfs_show_options,
	.shutdown = memfs_shutdown,
};

static struct super *memfs_super(const struct fs_type *type, const char *source,
				 const char *options)
{
	struct super *sb = super_alloc(type, source);
	struct memfs *fs;
	int err;

	if (!sb)
		return ERR_PTR(-ENOMEM);
	fs = kzalloc(sizeof(*fs));
	if (!fs) {
		super_put(sb);
		return ERR_PTR(-ENOMEM);
	}
	mutex_init(&fs->lock, LOCK_OBJECT);
	sb->private = fs;
	sb->magic = TMPFS_MAGIC;
	fs->mode = 01777;
	err = parse_options(fs, options);
	if (err) {
		super_put(sb);
		return ERR_PTR(err);
	}
	return sb;
}

/* Hangs a root directory of @inode (reference consumed) into the super. */
static int memfs_set_root(struct super *sb, struct inode *inode)
{
	struct dentry *root = dentry_alloc(sb, NULL, "", 0);

	if (!root) {
		inode_put(inode);
		return -ENOMEM;
	}
	root->inode = inode;
	sb->root = root;
	return 0;
}

struct super *memfs_mount(const struct fs_type *type, const char *source, const char *options)
{
	struct super *sb = memfs_super(type, source, options);
	struct inode *inode;
	struct memfs *fs;
	int err;

	if (IS_ERR(sb))
		return sb;
	fs = memfs_of(sb);
	if (!fs->show_size && type == &tmpfs_type)
		fs->max_pages = total_pages() / 2;
	if (!fs->show_inodes && type != &ramfs_type)
		fs->max_inodes = total_pages() / INODES_PER_PAGE_DEFAULT;
	inode = memfs_inode(sb, S_IFDIR | fs->mode, fs->uid, fs->gid, 0);
	err = IS_ERR(inode) ? (int)PTR_ERR(inode) : memfs_set_root(sb, inode);
	if (err) {
		super_put(sb);
		return ERR_PTR(err);
	}
	return sb;
}

struct dentry *memfs_add(struct dentry *dir, const char *name, mode_t mode, dev_t rdev,
			 const char *symlink)
{
	struct inode *inode = memfs_inode(dir->super, mode, 0, 0, rdev);
	struct dentry *d;

	if (IS_ERR(inode))
		return ERR_PTR(PTR_ERR(inode));
	if (symlink) {
		memfs_node(inode)->symlink = kstrdup(symlink);
		inode->size = strlen(symlink);
		if (!memfs_node(inode)->symlink)
			goto out_inode;
	}
	d = dentry_alloc(dir->super, dir, name, strlen(name));
	if (!d)
		goto out_inode;
	write_lock(&dir->inode->lock);
	dentry_pin(d);
	dentry_add(d, inode);
	if (S_ISDIR(mode))
		dir->inode->nlink++;
	write_unlock(&dir->inode->lock);
	dentry_put(d);
	return d;

out_inode:
	inode_put(inode);
	return ERR_PTR(-ENOMEM);
}

static struct super *tmpfs_mount(const struct vfs_ctx *ctx, const char *source, const char *options)
{
	return memfs_mount(&tmpfs_type, source, options);
}

static struct super *ramfs_mount(const struct vfs_ctx *ctx, const char *source, const char *options)
{
	struct super *sb = memfs_mount(&ramfs_type, source, options);

	if (!IS_ERR(sb))
		sb->magic = RAMFS_MAGIC;
	return sb;
}

const struct fs_type tmpfs_type = {
	.name = "tmpfs",
	.flags = FS_NODEV | FS_USER_MOUNT,
	.mount = tmpfs_mount,
	.sops = &memfs_sops,
};

const struct fs_type ramfs_type = {
	.name = "ramfs",
	.flags = FS_NODEV | FS_USER_MOUNT,
	.mount = ramfs_mount,
	.sops = &memfs_sops,
};

/* ---- the root filesystem ---- */

/* Not in the table: there is one image, and it is mounted by the sentry. */
const struct fs_type rootfs_type = {
	.name = "overlay",
	.flags = FS_NODEV,
	.sops = &memfs_sops,
};

struct super *rootfs_mount(gpa_t image_gpa, size_t image_size)
{
	struct super *sb = memfs_super(&rootfs_type, "overlay", NULL);
	struct lower_inode root;
	struct inode *inode;
	struct lower_fs *lower;
	int err;

	if (IS_ERR(sb))
		return sb;
	lower = lower_open(image_gpa, image_size);
	if (IS_ERR(lower)) {
		super_put(sb);
		return ERR_PTR(PTR_ERR(lower));
	}
	memfs_of(sb)->lower = lower;
	sb->magic = OVERLAYFS_MAGIC;
	/* Inode numbers of the image are its own; new ones come behind all of them. */
	sb->next_ino = lower_ino_end(lower);
	err = lower_root(lower, &root);
	if (!err && !S_ISDIR(root.mode))
		err = -EINVAL;
	if (err)
		goto out_super;
	inode = rootfs_inode(sb, &root);
	if (IS_ERR(inode)) {
		err = (int)PTR_ERR(inode);
		goto out_super;
	}
	err = memfs_set_root(sb, inode);
	if (err)
		goto out_super;
	return sb;

out_super:
	super_put(sb);
	return ERR_PTR(err);
}
