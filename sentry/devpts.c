/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devpts filesystem: an in-memory one in which names come and go with pty pairs. Each mount is
 * an instance with numbers of its own and a ptmx node; /dev/ptmx elsewhere means the instance
 * mounted on "pts" beside it, as on Linux.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "sentry/lib/err.h"
#include "sentry/tty.h"
#include "vfs/memfs.h"

#define PTS_MAX 4096

struct devpts {
	struct list_head node; /* in instances */
	struct super *super;
	struct mutex lock; /* LOCK_OBJECT */
	struct radix ttys; /* index → struct tty (borrowed: removed before it goes); under lock */
	unsigned int mode, ptmxmode;
	uid_t uid;
	gid_t gid;
	bool uid_set, gid_set;
};

static struct list_head instances = LIST_HEAD_INIT(instances);
static struct mutex instances_lock = {.m = PTHREAD_MUTEX_INITIALIZER,
#ifdef LOCK_DEBUG
				      .rank = LOCK_OBJECT
#endif
};

static const struct fs_type devpts_type;
/* An in-memory directory in which nobody but us makes names. */
static struct inode_ops devpts_dir_ops;

struct devpts *devpts_of(const struct super *sb)
{
	struct devpts *fs, *found = NULL;

	if (sb->type != &devpts_type)
		return NULL;
	mutex_lock(&instances_lock);
	list_for_each_entry (fs, &instances, node) {
		if (fs->super == sb)
			found = fs;
	}
	mutex_unlock(&instances_lock);
	return found;
}

static int parse_option(struct devpts *fs, const char *key, const char *value)
{
	bool octal = strstr(key, "mode");
	unsigned long n;
	char *end;

	if (!strcmp(key, "newinstance") || !strcmp(key, "max"))
		return 0;
	if (!value || *value < '0' || *value > '9')
		return -EINVAL;
	n = strtoul(value, &end, octal ? 8 : 10);
	if (*end || n > UINT32_MAX)
		return -EINVAL;
	if (!strcmp(key, "mode")) {
		fs->mode = n & 0777;
	} else if (!strcmp(key, "ptmxmode")) {
		fs->ptmxmode = n & 0777;
	} else if (!strcmp(key, "uid")) {
		fs->uid = (uid_t)n;
		fs->uid_set = true;
	} else if (!strcmp(key, "gid")) {
		fs->gid = (gid_t)n;
		fs->gid_set = true;
	} else {
		return -EINVAL;
	}
	return 0;
}

static int parse_options(struct devpts *fs, const char *options)
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

static struct super *devpts_mount(const struct vfs_ctx *ctx, const char *source,
				  const char *options)
{
	struct devpts *fs = kzalloc(sizeof(*fs));
	struct dentry *ptmx;
	struct super *sb;
	int err;

	if (!fs)
		return ERR_PTR(-ENOMEM);
	fs->mode = 0600;
	err = parse_options(fs, options);
	if (err)
		goto out_free;
	sb = memfs_mount(&devpts_type, source, "mode=755");
	err = PTR_ERR_OR_ZERO(sb);
	if (err)
		goto out_free;
	mutex_init(&fs->lock, LOCK_OBJECT);
	fs->super = sb;
	sb->magic = 0x1cd1; /* DEVPTS_SUPER_MAGIC */
	sb->root->inode->ops = &devpts_dir_ops;
	mutex_lock(&instances_lock);
	list_add_tail(&fs->node, &instances);
	mutex_unlock(&instances_lock);
	ptmx = memfs_add(sb->root, "ptmx", S_IFCHR | fs->ptmxmode, makedev(5, 2), NULL);
	if (IS_ERR(ptmx)) {
		super_put(sb); /* frees fs */
		return ERR_PTR(PTR_ERR(ptmx));
	}
	return sb;

out_free:
	kfree(fs);
	return ERR_PTR(err);
}

static void devpts_put_super(struct super *sb)
{
	struct devpts *fs = devpts_of(sb);

	if (fs) {
		mutex_lock(&instances_lock);
		list_del(&fs->node);
		mutex_unlock(&instances_lock);
		radix_fini(&fs->ttys);
		mutex_fini(&fs->lock);
		kfree(fs);
	}
	memfs_sops.put_super(sb);
}

static int devpts_statfs(struct super *sb, struct statfs *st)
{
	return 0;
}

static char *devpts_show_options(struct super *sb)
{
	struct devpts *fs = devpts_of(sb);
	char *text = kzalloc(128);
	int n = 0;

	if (!text || !fs)
		return text;
	if (fs->uid_set)
		n += snprintf(text + n, 128 - (size_t)n, ",uid=%u", fs->uid);
	if (fs->gid_set)
		n += snprintf(text + n, 128 - (size_t)n, ",gid=%u", fs->gid);
	snprintf(text + n, 128 - (size_t)n, ",mode=%03o,ptmxmode=%03o", fs->mode, fs->ptmxmode);
	return text;
}

static void devpts_shutdown(struct super *sb)
{
	memfs_sops.shutdown(sb);
}

static const struct super_ops devpts_sops = {
	.statfs = devpts_statfs,
	.put_super = devpts_put_super,
	.show_options = devpts_show_options,
	.shutdown = devpts_shutdown,
};

static const struct fs_type devpts_type = {
	.name = "devpts",
	.flags = FS_NODEV | FS_USER_MOUNT,
	.mount = devpts_mount,
	.sops = &devpts_sops,
};

int devpts_find(const struct vfs_ctx *ctx, struct file *ptmx, struct path *out)
{
	struct super *sb = ptmx->inode->super;
	struct path dir;
	int err;

	if (devpts_of(sb)) {
		*out = (struct path){.mnt = ptmx->path.mnt, .dentry = sb->root};
		path_get(out);
		return 0;
	}
	dir.mnt = mount_get(ptmx->path.mnt);
	dir.dentry = dentry_parent(ptmx->path.dentry);
	err = path_lookup(ctx, &dir, "pts", WALK_FOLLOW | WALK_DIRECTORY, out);
	path_put(&dir);
	if (err)
		return err;
	if (!devpts_of(out->dentry->super) || out->dentry != out->dentry->super->root) {
		path_put(out);
		return -ENODEV;
	}
	return 0;
}

int devpts_add(struct devpts *fs, struct tty *tty, struct cred *cred)
{
	uint64_t index = 0;
	struct dentry *d;
	char name[16];
	int err;

	mutex_lock(&fs->lock);
	while (index < PTS_MAX && radix_get(&fs->ttys, index))
		index++;
	err = index < PTS_MAX ? radix_set(&fs->ttys, index, (uint64_t)(uintptr_t)tty) : -ENOSPC;
	mutex_unlock(&fs->lock);
	if (err)
		return err;
	tty->index = (int)index;
	snprintf(name, sizeof(name), "%d", tty->index);
	d = memfs_add(fs->super->root, name, S_IFCHR | fs->mode,
		      makedev(PTS_MAJOR, (unsigned int)index), NULL);
	if (IS_ERR(d)) {
		mutex_lock(&fs->lock);
		(void)!radix_set(&fs->ttys, index, 0);
		mutex_unlock(&fs->lock);
		return (int)PTR_ERR(d);
	}
	write_lock(&d->inode->lock);
	d->inode->uid = fs->uid_set ? fs->uid : cred->fsuid;
	d->inode->gid = fs->gid_set ? fs->gid : cred->fsgid;
	write_unlock(&d->inode->lock);
	tty->name = dentry_get(d);
	return 0;
}

void devpts_remove(struct devpts *fs, struct tty *tty)
{
	struct dentry *d = tty->name;
	struct inode *dir = fs->super->root->inode;

	tty->name = NULL;
	mutex_lock(&fs->lock);
	(void)!radix_set(&fs->ttys, (uint64_t)tty->index, 0);
	mutex_unlock(&fs->lock);
	write_lock(&dir->lock);
	(void)!memfs_dir_ops.unlink(dir, d);
	dentry_remove(d);
	write_unlock(&dir->lock);
	dentry_put(d);
}

struct tty *devpts_get_tty(struct devpts *fs, int index)
{
	struct tty *tty;

	mutex_lock(&fs->lock);
	tty = (void *)(uintptr_t)radix_get(&fs->ttys, (uint64_t)index);
	/* Its master holds a reference until after it has been removed here. */
	if (tty)
		tty_get(tty);
	mutex_unlock(&fs->lock);
	return tty;
}

int devpts_init(void)
{
	devpts_dir_ops = memfs_dir_ops;
	devpts_dir_ops.create = NULL;
	devpts_dir_ops.link = NULL;
	devpts_dir_ops.unlink = NULL;
	devpts_dir_ops.rmdir = NULL;
	devpts_dir_ops.rename = NULL;
	devpts_dir_ops.tmpfile = NULL;
	return fs_type_register(&devpts_type);
}
