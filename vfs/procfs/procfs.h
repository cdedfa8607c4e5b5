/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc, inside. A directory is a table of struct proc_entry, or makes its names up (processes,
 * threads, descriptors). Each inode carries a struct proc_node that says which entry it is and,
 * below a process, whose.
 *
 * Layer 6: looks at everything, nobody includes it (the sentry registers proc_fs_type).
 */
#ifndef VFS_PROCFS_PROCFS_H
#define VFS_PROCFS_PROCFS_H

#include "sentry/kernel.h"
#include "sentry/objects.h"
#include "vfs/file.h"
#include "vfs/strbuf.h"

struct proc_node;

/* What one text is made for. */
struct proc_show {
	struct strbuf b;
	struct proc_node *node;
	struct task *task;	      /* of the process or thread, or NULL: has ended */
	const struct vfs_ctx *reader; /* who reads */
	struct pid_ns *ns;	      /* numbers are shown as in here */
	struct kernel *kernel;
};

struct proc_entry {
	const char *name; /* NULL ends a table */
	mode_t mode;	  /* type and permissions */
	/* Regular files. An error is read(2)'s. */
	int (*show)(struct proc_show *s);
	ssize_t (*write)(const struct vfs_ctx *ctx, struct proc_node *node, char *text, size_t len);
	const struct file_ops *fops; /* instead of show/write */
	/* Directories. */
	const struct proc_entry *children;
	const struct proc_dir_ops *dir;
	/* Symbolic links: a kmalloc'd string; or a jump. */
	char *(*readlink)(const struct vfs_ctx *ctx, struct proc_node *node);
	int (*jump)(const struct vfs_ctx *ctx, struct proc_node *node, struct path *out);
	mode_t (*mode_of)(struct proc_node *node); /* links whose mode changes: fd/N */
	bool private;				   /* only for who may trace the process */
};

/* A directory that makes names up, beside its table. */
struct proc_dir_ops {
	/* The entry of @name, with @node->pid/fd set as needed (references). NULL: no such name. */
	const struct proc_entry *(*lookup)(const struct proc_node *dir, const char *name,
					   size_t len, struct proc_node *node);
	/* The first name with number >= *@nr: writes it and returns true. */
	bool (*next)(const struct proc_node *dir, const struct vfs_ctx *ctx, uint64_t *nr);
	unsigned int type; /* DT_* of those names */
	bool (*alive)(const struct proc_node *node);
};

struct proc_node {
	const struct proc_entry *entry;
	struct proc_instance *instance;
	struct pid *pid; /* reference; NULL outside of processes */
	bool thread;	 /* below task/ */
	int fd;		 /* below fd/, fdinfo/ */
};

/* One mount: shows one PID namespace. */
struct proc_instance {
	struct pid_ns *ns; /* reference */
	struct kernel *kernel;
};

static inline struct proc_node *proc_node(struct inode *inode)
{
	return inode->private;
}

/* A path as its reader sees it, kmalloc'd; NULL: out of memory. */
char *proc_path_text(const struct vfs_ctx *ctx, const struct path *path);
/*
 * The task behind a node with a reference: a process's leader, or the thread. NULL: it has ended.
 */
struct task *proc_task(const struct proc_node *node);

extern const struct proc_entry proc_root_entry, proc_pid_entry, proc_thread_entry;
extern const struct proc_entry proc_sys_children[], proc_net_children[];
extern const struct proc_dir_ops proc_root_dir, proc_task_dir, proc_fd_dir, proc_fdinfo_dir;
extern const struct fs_type proc_fs_type, sysfs_fs_type;

#endif
