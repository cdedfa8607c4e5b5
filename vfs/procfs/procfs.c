/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc as a filesystem: instances, inodes, look-ups, listings, and files whose text is made on
 * read.
 */
#include "vfs/procfs/procfs.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "sentry/lib/arena.h"

#define PROC_SUPER_MAGIC 0x9fa0
#define WRITE_MAX	 4096

static const struct inode_ops proc_inode_ops, proc_magic_ops;
static const struct file_ops proc_dir_fops, proc_text_fops;

struct task *proc_task(const struct proc_node *node)
{
	struct kernel *k = node->instance->kernel;
	struct task *t = NULL;

	if (!node->pid)
		return NULL;
	mutex_lock(&k->tasklist);
	if (node->thread)
		t = node->pid->task;
	else if (node->pid->tg)
		t = node->pid->tg->leader;
	if (t && !refcount_get_unless_zero(&t->refs))
		t = NULL;
	mutex_unlock(&k->tasklist);
	return t;
}

/* ---- inodes ---- */

static struct inode *make_inode(struct super *sb, const struct proc_node *tmpl)
{
	const struct proc_entry *e = tmpl->entry;
	struct proc_node *node = kmemdup(tmpl, sizeof(*tmpl));
	struct inode *inode;

	if (!node)
		return ERR_PTR(-ENOMEM);
	inode = inode_alloc(sb, e->mode, 0, 0);
	if (!inode) {
		kfree(node);
		return ERR_PTR(-ENOMEM);
	}
	inode->ops = e->jump ? &proc_magic_ops : &proc_inode_ops;
	inode->private = node;
	if (S_ISDIR(e->mode)) {
		inode->fops = &proc_dir_fops;
		inode->nlink = 2;
	} else {
		inode->fops = e->fops ? e->fops : &proc_text_fops;
	}
	return inode;
}

static const struct proc_entry *table_find(const struct proc_entry *table, const char *name,
					   size_t len)
{
	for (; table && table->name; table++) {
		if (strlen(table->name) == len && !memcmp(table->name, name, len))
			return table;
	}
	return NULL;
}

static struct inode *proc_lookup(struct inode *dir, struct dentry *dentry)
{
	struct proc_node *d = proc_node(dir), node = *d;
	struct inode *inode;

	if (node.pid)
		pid_get(node.pid);
	node.entry = table_find(d->entry->children, dentry->name, dentry->name_len);
	if (!node.entry && d->entry->dir) {
		if (node.pid)
			pid_put(node.pid);
		node = *d;
		node.entry = d->entry->dir->lookup(d, dentry->name, dentry->name_len, &node);
		if (!node.entry)
			return ERR_PTR(-ENOENT);
	}
	if (!node.entry) {
		pid_put(node.pid);
		return ERR_PTR(-ENOENT);
	}
	inode = make_inode(dir->super, &node);
	if (IS_ERR(inode))
		pid_put(node.pid);
	return inode;
}

static void proc_evict(struct inode *inode)
{
	struct proc_node *node = proc_node(inode);

	if (!node)
		return;
	pid_put(node->pid);
	kfree(node);
	inode->private = NULL;
}

/* Names of processes and descriptors end with what they name. */
static int proc_revalidate(struct dentry *dentry)
{
	struct proc_node *node = proc_node(dentry->inode);
	struct proc_node *parent = proc_node(dentry->parent->inode);

	if (parent && parent->entry->dir && parent->entry->dir->alive &&
	    !table_find(parent->entry->children, dentry->name, dentry->name_len))
		return parent->entry->dir->alive(node);
	return 1;
}

/* What belongs to a process belongs to its user. */
static int proc_getattr(struct inode *inode)
{
	struct proc_node *node = proc_node(inode);
	struct task *t = proc_task(node);
	struct cred *cred;

	if (!t)
		return 0;
	cred = task_get_cred(t);
	if (S_ISLNK(inode->mode) && node->entry->mode_of)
		inode->mode = node->entry->mode_of(node);
	inode->uid = cred->euid;
	inode->gid = cred->egid;
	cred_put(cred);
	task_put(t);
	return 0;
}

static int may_look(const struct vfs_ctx *ctx, const struct proc_node *node)
{
	struct task *reader = task_of(ctx), *t;
	int err;

	if (!node->entry->private || !reader)
		return 0;
	t = proc_task(node);
	if (!t)
		return -ESRCH;
	err = task_may_access(reader, t);
	task_put(t);
	return err ? -EACCES : 0;
}

static char *proc_readlink(const struct vfs_ctx *ctx, struct inode *inode)
{
	struct proc_node *node = proc_node(inode);
	struct path path;
	int err = may_look(ctx, node);
	char *s;

	if (err)
		return ERR_PTR(err);
	if (node->entry->readlink)
		return node->entry->readlink(ctx, node);
	err = node->entry->jump(ctx, node, &path);
	if (err)
		return ERR_PTR(err);
	s = proc_path_text(ctx, &path);
	path_put(&path);
	return s ? s : ERR_PTR(-ENOMEM);
}

static int proc_jump(const struct vfs_ctx *ctx, struct inode *inode, struct path *out)
{
	struct proc_node *node = proc_node(inode);
	int err;

	err = may_look(ctx, node);
	return err ? err : node->entry->jump(ctx, node, out);
}

/* Nothing is ever made here by name. */
static int proc_create(const struct vfs_ctx *ctx, struct inode *dir, struct dentry *dentry,
		       mode_t mode, dev_t rdev, const char *symlink, struct inode **out)
{
	return -ENOENT;
}

static int proc_setattr(const struct vfs_ctx *ctx, struct inode *inode,
			const struct iattr_change *c)
{
	/* O_TRUNC on a writable file is harmless. */
	return c->valid & ~(unsigned int)(ATTR_SIZE | ATTR_MTIME | ATTR_CTIME) ? -EPERM : 0;
}

static const struct inode_ops proc_inode_ops = {
	.lookup = proc_lookup,
	.create = proc_create,
	.readlink = proc_readlink,
	.getattr = proc_getattr,
	.setattr = proc_setattr,
	.revalidate = proc_revalidate,
	.evict = proc_evict,
};

/* Links that lead to an open file or a directory, not to a name. */
static const struct inode_ops proc_magic_ops = {
	.readlink = proc_readlink,
	.jump = proc_jump,
	.getattr = proc_getattr,
	.setattr = proc_setattr,
	.revalidate = proc_revalidate,
	.evict = proc_evict,
};

/* ---- directories ---- */

/* Positions: 0 and 1 the dots, then the table, then made-up names by number. */
#define POS_DYNAMIC 1000

static bool emit_dots(struct file *file, struct dir_sink *sink)
{
	for (; file->pos < 2; file->pos++) {
		const char *name = file->pos ? ".." : ".";

		if (!sink->emit(sink, name, file->pos + 1, file->inode->ino, DT_DIR, file->pos + 1))
			return false;
	}
	return true;
}

static bool emit_table(struct file *file, const struct proc_entry *table, struct dir_sink *sink)
{
	uint64_t i = 2;

	for (; table && table->name; table++, i++) {
		if (i < file->pos)
			continue;
		if (!sink->emit(sink, table->name, strlen(table->name), i + 10,
				(table->mode & S_IFMT) >> 12, i + 1))
			return false;
		file->pos = i + 1;
	}
	return true;
}

static int proc_iterate(const struct vfs_ctx *ctx, struct file *file, struct dir_sink *sink)
{
	struct proc_node *node = proc_node(file->inode);
	const struct proc_dir_ops *dir = node->entry->dir;
	uint64_t nr;
	char name[24];
	int len;

	if (file->pos < POS_DYNAMIC) {
		if (!emit_dots(file, sink) || !emit_table(file, node->entry->children, sink))
			return 0;
		file->pos = POS_DYNAMIC;
	}
	if (!dir)
		return 0;
	for (nr = file->pos - POS_DYNAMIC; dir->next(node, ctx, &nr); nr++) {
		len = snprintf(name, sizeof(name), "%lu", nr);
		if (!sink->emit(sink, name, (size_t)len, nr + 100000, dir->type,
				POS_DYNAMIC + nr + 1))
			return 0;
		file->pos = POS_DYNAMIC + nr + 1;
	}
	return 0;
}

static const struct file_ops proc_dir_fops = {
	.iterate = proc_iterate,
	.llseek = file_llseek_generic,
};

/* An open /proc/PID also stands for its process: pidfd_send_signal(2). Not its threads'. */
struct pid *proc_dir_pid(struct file *file)
{
	struct proc_node *node;

	if (file->ops != &proc_dir_fops)
		return NULL;
	node = proc_node(file->inode);
	return node->entry == &proc_pid_entry ? node->pid : NULL;
}

/* ---- texts ---- */

/* References: the open file, under its inode's mapping.lock, and each reader while it copies. */
struct proc_text {
	struct refcount refs;
	char *s;
	size_t len;
};

static void text_put(struct proc_text *text)
{
	if (!text || !refcount_put(&text->refs))
		return;
	kfree(text->s);
	kfree(text);
}

/* Makes the text anew, with one reference. The reader is @ctx. ERR_PTR. */
static struct proc_text *make_text(const struct vfs_ctx *ctx, struct file *file)
{
	struct proc_node *node = proc_node(file->inode);
	struct task *reader = task_of(ctx);
	struct proc_show s = {
		.node = node,
		.reader = ctx,
		.ns = node->instance->ns,
		.kernel = node->instance->kernel,
	};
	struct proc_text *text;
	int err;

	(void)reader;
	err = may_look(ctx, node);
	if (err)
		return ERR_PTR(err);
	if (node->pid) {
		s.task = proc_task(node);
		if (!s.task)
			return ERR_PTR(-ESRCH);
	}
	err = node->entry->show(&s);
	task_put(s.task);
	text = kzalloc(sizeof(*text));
	if (!text)
		err = -ENOMEM;
	if (err) {
		kfree(strbuf_finish(&s.b));
		kfree(text);
		return ERR_PTR(err);
	}
	refcount_init(&text->refs, 1);
	text->len = s.b.len;
	text->s = strbuf_finish(&s.b);
	if (!text->s) {
		kfree(text);
		return ERR_PTR(-ENOMEM);
	}
	return text;
}

/*
 * The text for a read at @pos, with a reference: made at the start of the file, else the last one.
 */
static struct proc_text *text_get(const struct vfs_ctx *ctx, struct file *file, loff_t pos)
{
	struct mutex *lock = &file->inode->mapping.lock;
	struct proc_text *text, *old;

	mutex_lock(lock);
	text = file->private;
	if (text && pos) {
		refcount_get(&text->refs);
		mutex_unlock(lock);
		return text;
	}
	mutex_unlock(lock);
	/* Without the lock: what is shown has locks of its own, that come before. */
	text = make_text(ctx, file);
	if (IS_ERR(text))
		return text;
	refcount_get(&text->refs);
	mutex_lock(lock);
	old = file->private;
	file->private = text;
	mutex_unlock(lock);
	text_put(old);
	return text;
}

static ssize_t text_read(struct kiocb *io, struct iov_iter *to)
{
	struct file *file = io->file;
	struct proc_text *text;
	size_t n = 0, want = 0;

	if (!proc_node(file->inode)->entry->show)
		return -EINVAL;
	text = text_get(io->ctx, file, io->pos);
	if (IS_ERR(text))
		return PTR_ERR(text);
	if (io->pos < text->len) {
		want = MIN(to->count, text->len - io->pos);
		n = iov_copy_to(to, text->s + io->pos, want);
	}
	text_put(text);
	if (!n && want)
		return -EFAULT;
	io->pos += n;
	return (ssize_t)n;
}

static ssize_t text_write(struct kiocb *io, struct iov_iter *from)
{
	struct proc_node *node = proc_node(io->file->inode);
	size_t len = MIN(from->count, (size_t)WRITE_MAX - 1);
	ssize_t ret;
	char *text;

	if (!node->entry->write)
		return -EIO;
	text = kzalloc(len + 1);
	if (!text)
		return -ENOMEM;
	ret = -EFAULT;
	if (iov_copy_from(from, text, len) == len)
		ret = node->entry->write(io->ctx, node, text, len);
	kfree(text);
	return ret;
}

static void text_release(struct file *file)
{
	text_put(file->private);
}

static const struct file_ops proc_text_fops = {
	.read = text_read,
	.write = text_write,
	.llseek = file_llseek_generic,
	.release = text_release,
};

/* ---- instances ---- */

static struct super *instance_mount(const struct vfs_ctx *ctx, const struct fs_type *type,
				    const char *source, const struct proc_entry *root_entry,
				    uint64_t magic)
{
	struct task *t = task_of(ctx);
	struct proc_instance *inst = kzalloc(sizeof(*inst));
	struct super *sb = super_alloc(type, source ? source : type->name);
	struct proc_node node = {.entry = root_entry, .instance = inst};
	struct inode *inode;

	if (!inst || !sb)
		goto out_nomem;
	inst->kernel = the_kernel;
	inst->ns = pid_ns_get(t ? t->pid_ns_children : the_kernel->root_pid_ns);
	sb->magic = magic;
	sb->private = inst;
	inode = make_inode(sb, &node);
	if (IS_ERR(inode))
		goto out_nomem;
	sb->root = dentry_alloc(sb, NULL, "", 0);
	if (!sb->root) {
		inode_put(inode);
		goto out_nomem;
	}
	sb->root->inode = inode;
	return sb;

out_nomem:
	if (inst && !(sb && sb->private))
		kfree(inst);
	if (sb)
		super_put(sb);
	return ERR_PTR(-ENOMEM);
}

static struct super *proc_mount(const struct vfs_ctx *ctx, const char *source, const char *options)
{
	return instance_mount(ctx, &proc_fs_type, source, &proc_root_entry, PROC_SUPER_MAGIC);
}

static void proc_put_super(struct super *sb)
{
	struct proc_instance *inst = sb->private;

	if (!inst)
		return;
	pid_ns_put(inst->ns);
	kfree(inst);
	sb->private = NULL;
}

static const struct super_ops proc_sops = {.put_super = proc_put_super};

const struct fs_type proc_fs_type = {
	.name = "proc",
	.flags = FS_NODEV | FS_USER_MOUNT,
	.mount = proc_mount,
	.sops = &proc_sops,
};

/* ---- sysfs: the few things programs look for ---- */

static int show_cpu_range(struct proc_show *s)
{
	if (s->kernel->ncpus > 1)
		strbuf_printf(&s->b, "0-%u\n", s->kernel->ncpus - 1);
	else
		strbuf_printf(&s->b, "0\n");
	return 0;
}

static int show_thp(struct proc_show *s)
{
	strbuf_printf(&s->b, "always [madvise] never\n");
	return 0;
}

static int show_thp_size(struct proc_show *s)
{
	strbuf_printf(&s->b, "2097152\n");
	return 0;
}

#define SYS_FILE(n, fn)                                                                            \
	{                                                                                          \
		.name = n, .mode = S_IFREG | 0444, .show = fn                                      \
	}
#define SYS_DIR(n, c)                                                                              \
	{                                                                                          \
		.name = n, .mode = S_IFDIR | 0555, .children = c                                   \
	}

static const struct proc_entry sys_cpu[] = {SYS_FILE("online", show_cpu_range),
					    SYS_FILE("possible", show_cpu_range),
					    SYS_FILE("present", show_cpu_range),
					    {0}};
static const struct proc_entry sys_system[] = {SYS_DIR("cpu", sys_cpu), {0}};
static const struct proc_entry sys_devices[] = {SYS_DIR("system", sys_system), {0}};
static const struct proc_entry sys_thp[] = {
	SYS_FILE("enabled", show_thp), SYS_FILE("hpage_pmd_size", show_thp_size), {0}};
static const struct proc_entry sys_mm[] = {SYS_DIR("transparent_hugepage", sys_thp), {0}};
static const struct proc_entry sys_empty[] = {{0}};
static const struct proc_entry sys_fs[] = {SYS_DIR("cgroup", sys_empty), {0}};
static const struct proc_entry sys_kernel[] = {SYS_DIR("mm", sys_mm), {0}};
static const struct proc_entry sys_root[] = {
	SYS_DIR("block", sys_empty),   SYS_DIR("bus", sys_empty),	SYS_DIR("class", sys_empty),
	SYS_DIR("dev", sys_empty),     SYS_DIR("devices", sys_devices), SYS_DIR("fs", sys_fs),
	SYS_DIR("kernel", sys_kernel), SYS_DIR("module", sys_empty),	{0}};
static const struct proc_entry sysfs_root_entry = SYS_DIR("", sys_root);

static struct super *sysfs_mount(const struct vfs_ctx *ctx, const char *source, const char *options)
{
	return instance_mount(ctx, &sysfs_fs_type, source, &sysfs_root_entry, 0x62656572);
}

const struct fs_type sysfs_fs_type = {
	.name = "sysfs",
	.flags = FS_NODEV | FS_USER_MOUNT,
	.mount = sysfs_mount,
	.sops = &proc_sops,
};
