/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names and files: the objects.
 *
 *   super	one filesystem instance
 *   inode	one file of it: type, owner, times, contents. Held by dentries, open files, mappings
 *   dentry	a name in a directory, linked to its inode. Held by paths, children, and pinned by
 *		in-memory filesystems, whose directories *are* their dentries
 *   mount	a super's (sub)tree placed somewhere in a mount namespace
 *   path	(mount, dentry): where a walk has come to. Holding one holds both
 *   file	an open file description (file.h)
 *
 * Who is asking is an explicit argument, struct vfs_ctx: the vfs knows no tasks. Layer 2.
 *
 * References are released: file → path → dentry → inode → super. Locks: lock.h
 * (LOCK_MNT, LOCK_RENAME, LOCK_INODE, LOCK_DCACHE, LOCK_MAPPING).
 */
#ifndef VFS_VFS_H
#define VFS_VFS_H

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#include "sentry/lib/err.h"
#include "sentry/lib/iov.h"
#include "sentry/lib/list.h"
#include "sentry/lib/lock.h"
#include "sentry/lib/radix.h"
#include "sentry/lib/refcount.h"
#include "sentry/lib/usermem.h"
#include "sentry/lib/waitq.h"
#include "vfs/cred.h"

struct dentry;
struct file;
struct fs_type;
struct inode;
struct mnt_ns;
struct mount;
struct super;

struct path {
	struct mount *mnt;
	struct dentry *dentry;
};

void path_get(const struct path *path);
/* Drops both references and clears @path; an empty path is fine. */
void path_put(struct path *path);

/* Root, working directory and umask; shared by CLONE_FS. */
struct fs_context {
	struct refcount refs;
	struct mutex lock;
	struct path root, cwd; /* under lock */
	mode_t umask;	       /* under lock */
};

/* Takes references of its own on both paths. Returns NULL when out of memory. */
struct fs_context *fs_context_alloc(const struct path *root, const struct path *cwd, mode_t umask);
struct fs_context *fs_context_copy(struct fs_context *old);
struct fs_context *fs_context_get(struct fs_context *fs);
void fs_context_put(struct fs_context *fs);
/* References to what is current now. */
void fs_context_root(struct fs_context *fs, struct path *out);
void fs_context_cwd(struct fs_context *fs, struct path *out);
/* Replace, taking references of their own. */
void fs_context_set_root(struct fs_context *fs, const struct path *path);
void fs_context_set_cwd(struct fs_context *fs, const struct path *path);

/*
 * Who is asking. Embedded in struct task (container_of finds it there, for terminals and /proc);
 * the sentry makes others for itself. Fields are stable for the length of a call.
 */
struct vfs_ctx {
	struct cred *cred;
	struct fs_context *fs;
	struct mnt_ns *mnt_ns;
	struct usermem *um;   /* the caller's memory; NULL for the sentry itself */
	uint64_t fsize_limit; /* RLIMIT_FSIZE; a write beyond it is -EFBIG (the caller signals) */
	/* Is a signal pending that should end a long operation? May be NULL. */
	bool (*interrupted)(const struct vfs_ctx *ctx);
	/*
	 * Sleeps until @wq reports any of @events. 0, or -ERESTARTSYS. For the few operations that
	 * can't be split into try and wait (FIFO open, file locks); NULL: such operations fail
	 * -EAGAIN.
	 */
	int (*wait)(const struct vfs_ctx *ctx, struct waitq *wq, uint32_t events,
		    bool (*ready)(void *arg), void *arg);
	bool is_task; /* container_of(ctx, struct task, vfs) is valid */
};

/* inode.flags: an O_TMPFILE that linkat may name. */
enum { INODE_LINKABLE = 1 };
enum inode_time { INODE_ATIME = 1, INODE_MTIME = 2, INODE_CTIME = 4 };

/*
 * Pages of a file, for the memory manager and for whoever reads through them.
 * Someone who maps pages registers a map_user; before a page's backing changes or goes
 * (truncate, hole punch, copy-up), the owner calls zap on all users whose range meets it.
 */
struct map_user {
	struct list_head node;	/* under mapping lock */
	uint64_t pgoff, npages; /* file pages mapped; under mapping lock */
	uaddr_t start;		/* where pgoff is mapped; under mapping lock */
	bool shared;
	/* Drops page-table entries of [pgoff, +n) (private copies stay unless @even_cow). */
	void (*zap)(struct map_user *user, uint64_t pgoff, uint64_t n, bool even_cow);
};

struct mapping {
	struct mutex lock;	     /* LOCK_MAPPING */
	struct list_head users;	     /* struct map_user.node */
	struct radix pages;	     /* page offset → gpa of an owned frame, | MAPPING_DIRTY */
	uint64_t nr_shared_writable; /* users, for memfd write seals */
};

struct mapping_ops {
	/*
	 * Called with mapping->lock held. The page at @pgoff: *@gpa is its backing and *@n how many
	 * pages from there on are contiguous in both file and gpa (at least 1, at most *@n on
	 * entry). A RAM frame carries a reference for the caller (one per page). With @write the
	 * page may be stored to (shared mapping): the file owns it.
	 * -EFAULT beyond the end of file (the caller sends SIGBUS), -ENOMEM, -EIO.
	 */
	int (*get_pages)(struct inode *inode, uint64_t pgoff, bool write, gpa_t *gpa, size_t *n);
	/* msync/fsync of pages; NULL: nothing to do. */
	int (*writeback)(struct inode *inode, uint64_t pgoff, uint64_t n);
};

/* What a setattr changes. */
struct iattr_change {
	unsigned int valid; /* ATTR_* */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	uint64_t size;
	struct timespec atime, mtime;
	struct file *file; /* ftruncate */
};
enum {
	ATTR_MODE = 1,
	ATTR_UID = 2,
	ATTR_GID = 4,
	ATTR_SIZE = 8,
	ATTR_ATIME = 16,
	ATTR_MTIME = 32,
	ATTR_CTIME = 64,
	ATTR_TIMES_SET = 128, /* explicit times, not "now" */
};

struct inode_ops {
	/*
	 * Directories. Called with the directory's inode lock held exclusively (lookup: too).
	 * lookup returns a new inode reference for @name, ERR_PTR(-ENOENT), or another error.
	 * Names of in-memory filesystems are found in the dentry cache and never reach lookup.
	 */
	struct inode *(*lookup)(struct inode *dir, struct dentry *dentry);
	int (*create)(const struct vfs_ctx *ctx, struct inode *dir, struct dentry *dentry,
		      mode_t mode, dev_t rdev, const char *symlink, struct inode **out);
	int (*link)(struct inode *inode, struct inode *dir, struct dentry *dentry);
	int (*unlink)(struct inode *dir, struct dentry *dentry); /* not directories */
	int (*rmdir)(struct inode *dir, struct dentry *dentry);	 /* checks for emptiness */
	/* 0: moved, the names are the caller's to move; 1: the names have been moved too. */
	int (*rename)(struct inode *old_dir, struct dentry *old, struct inode *new_dir,
		      struct dentry *target, unsigned int flags);
	struct inode *(*tmpfile)(const struct vfs_ctx *ctx, struct inode *dir, mode_t mode);
	/* Symbolic links: a kmalloc'd string, or ERR_PTR. */
	char *(*readlink)(const struct vfs_ctx *ctx, struct inode *inode);
	/*
	 * Magic links (/proc/PID/fd/N, exe, cwd): jumps straight to a path. NULL for ordinary ones.
	 */
	int (*jump)(const struct vfs_ctx *ctx, struct inode *inode, struct path *out);
	/* Refreshes attributes in the inode from where they really are; NULL: they are there. */
	int (*getattr)(struct inode *inode);
	int (*setattr)(const struct vfs_ctx *ctx, struct inode *inode,
		       const struct iattr_change *c);
	int (*permission)(const struct vfs_ctx *ctx, struct inode *inode, unsigned int mask);
	/* Is a cached dentry still right? 1 yes, 0 look it up again. NULL: always right. */
	int (*revalidate)(struct dentry *dentry);
	ssize_t (*getxattr)(struct inode *inode, const char *name, void *value, size_t size);
	int (*setxattr)(struct inode *inode, const char *name, const void *value, size_t size,
			int flags); /* value NULL: remove */
	ssize_t (*listxattr)(struct inode *inode, char *list, size_t size);
	/* Opens: sets file->ops and file->private. NULL: inode->fops as they are. */
	int (*open)(const struct vfs_ctx *ctx, struct inode *inode, struct file *file);
	/* The last reference has gone: free what the filesystem hangs on the inode. */
	void (*evict)(struct inode *inode);
};

struct inode {
	struct refcount refs;
	struct super *super; /* const; holds a reference */
	const struct inode_ops *ops;
	const struct file_ops *fops; /* what open gives regular files and directories */
	const struct mapping_ops *mops;
	uint64_t ino;	    /* const */
	dev_t rdev;	    /* const */
	struct rwlock lock; /* LOCK_INODE: contents, and the attributes below */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	uint64_t nlink;
	uint64_t size;	 /* also atomic, for readers without the lock */
	uint64_t blocks; /* 512-byte units */
	struct timespec atime, mtime, ctime, btime;
	struct mapping mapping;
	struct file_locks *locks;    /* flock/POSIX/OFD locks, made on first use (vfs/locks.c) */
	struct inode_watch *watches; /* inotify marks (vfs/notify.c) */
	void *fifo;		     /* pipe of a named pipe while it is open (sentry) */
	void *socket;		     /* bound AF_UNIX socket */
	_Atomic int writers;	     /* opens for writing; -1 and below: being executed (ETXTBSY) */
	_Atomic unsigned int flags;  /* INODE_* below */
	union {
		void *private;
		uint64_t private_u64;
	};
};

struct dentry {
	struct refcount refs;
	struct super *super;
	struct dentry *parent; /* itself for a root; holds a reference; under LOCK_DCACHE */
	struct inode *inode;   /* NULL: negative (a whiteout, or a name about to be created) */
	struct list_head hash; /* under LOCK_DCACHE */
	struct list_head children, sibling; /* in creation order; under LOCK_DCACHE */
	uint64_t cookie;	/* position in the directory for getdents; rises with creation */
	_Atomic uint32_t flags; /* DENTRY_* */
	uint32_t name_len;
	char *name; /* under LOCK_DCACHE */
};
enum {
	DENTRY_HASHED = 1,   /* findable by name */
	DENTRY_MOUNTED = 2,  /* some mount covers it (in some namespace) */
	DENTRY_PINNED = 4,   /* in-memory filesystem: the name itself holds a reference */
	DENTRY_WHITEOUT = 8, /* pinned negative: hides a name of the lower image */
	DENTRY_LOWER = 16,   /* a name of the lower image, not made here */
	DENTRY_DEAD = 32,    /* a removed directory: nothing can be made in it */
};

struct super {
	struct refcount refs;
	const struct fs_type *type;
	struct dentry *root; /* holds a reference to its inode, not to the super */
	dev_t dev;
	uint64_t magic;	     /* statfs f_type */
	unsigned long flags; /* ST_RDONLY … of the instance */
	struct mutex rename_lock;
	_Atomic uint64_t next_ino;
	char *source; /* as shown in /proc/mounts */
	void *private;
	struct refcount active; /* mounts and others that keep the names; refs keeps the memory */
};

struct super_ops {
	int (*statfs)(struct super *sb, struct statfs *st);
	int (*sync)(struct super *sb);
	void (*put_super)(struct super *sb);	 /* free private */
	char *(*show_options)(struct super *sb); /* kmalloc'd ",size=…" or NULL */
	/* Nobody can reach it any more: drop the inodes that the filesystem itself holds. */
	void (*shutdown)(struct super *sb);
};

/* One line per filesystem in the table of vfs/filesystems.c. */
struct fs_type {
	const char *name;
	unsigned int flags; /* FS_* */
	/* A new super from mount(2)'s source and option string. ERR_PTR on failure. */
	struct super *(*mount)(const struct vfs_ctx *ctx, const char *source, const char *options);
	const struct super_ops *sops;
};
enum {
	FS_NODEV = 1,	   /* "nodev" in /proc/filesystems */
	FS_USER_MOUNT = 2, /* applications may mount it */
};

struct mount {
	struct refcount refs;
	struct super *super;	   /* reference */
	struct dentry *root;	   /* reference */
	struct mnt_ns *ns;	   /* NULL once detached; under LOCK_MNT, like all below */
	struct mount *parent;	   /* itself for the namespace's root */
	struct dentry *mountpoint; /* in parent; reference */
	struct list_head children, sibling, ns_node, hash;
	unsigned long flags; /* MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC|MS_NOATIME… */
	int id;
	int group_id;	     /* propagation peer group, 0: private */
	_Atomic int writers; /* files open for writing: a read-only remount is -EBUSY */
};

/* Held by tasks and by processes being created. The last put unmounts the tree. */
struct mnt_ns {
	struct refcount refs;
	struct mount *root; /* reference */
	struct list_head mounts;
	uint64_t ino;
	struct waitq changed; /* poll on /proc/self/mounts */
};

/* ---- inodes, supers, dentries (vfs/inode.c, super.c, dentry.c) ---- */
struct super *super_alloc(const struct fs_type *type, const char *source);
/* super_alloc's reference, super_get and super_put keep it usable; inodes only keep its memory. */
struct super *super_get(struct super *sb);
void super_put(struct super *sb);
/* A new inode with one reference, nlink 1, all times now. NULL: out of memory. */
struct inode *inode_alloc(struct super *sb, mode_t mode, uid_t uid, gid_t gid);
struct inode *inode_get(struct inode *inode);
void inode_put(struct inode *inode);
void inode_touch(struct inode *inode, unsigned int times); /* INODE_* set to now */
struct dentry *dentry_alloc(struct super *sb, struct dentry *parent, const char *name, size_t len);
struct dentry *dentry_get(struct dentry *dentry);
void dentry_put(struct dentry *dentry);
/* Gives an unhashed dentry its inode (reference consumed; NULL: negative) and makes it findable. */
void dentry_add(struct dentry *dentry, struct inode *inode);
/* In-memory filesystems: the name holds a reference from pin until unpin or dentry_remove. */
void dentry_pin(struct dentry *dentry);
void dentry_unpin(struct dentry *dentry);
/* Takes the name out of its directory. */
void dentry_remove(struct dentry *dentry);
/*
 * Gives @dentry the name @name (kmalloc'd, consumed) in @parent, in place of @replaced (or NULL),
 * and leaves @whiteout (or NULL, an unhashed negative dentry of the old name) behind: seen by all
 * at once. Both directories' inode locks are held. For filesystems whose rename moves the names
 * itself.
 */
void dentry_move(struct dentry *dentry, struct dentry *parent, char *name, size_t len,
		 struct dentry *replaced, struct dentry *whiteout);
/* Swaps two names; @name_a is a copy of @a's name, @name_b of @b's, both kmalloc'd and consumed. */
void dentry_exchange(struct dentry *a, struct dentry *b, char *name_a, char *name_b);
/* A removed name: path_name says " (deleted)". */
static inline bool dentry_unhashed(const struct dentry *dentry)
{
	return !(dentry->flags & DENTRY_HASHED) && dentry->parent != dentry;
}
/* Execution forbids opens for writing: 0 or -ETXTBSY. Undone by inode_allow_write. */
int inode_deny_write(struct inode *inode) __must_check;
void inode_allow_write(struct inode *inode);
/*
 * "/a/b" of @path as seen from @root (or "(unreachable)…"; " (deleted)" appended if so). kmalloc'd.
 */
char *path_name(const struct path *path, const struct path *root);

/* ---- walking (vfs/walk.c) ---- */
enum {
	WALK_FOLLOW = 1,      /* follow a final symlink */
	WALK_DIRECTORY = 2,   /* must be a directory */
	WALK_NO_SYMLINKS = 4, /* RESOLVE_NO_SYMLINKS */
	WALK_NO_MAGIC = 8,    /* RESOLVE_NO_MAGICLINKS */
	WALK_BENEATH = 16,    /* RESOLVE_BENEATH */
	WALK_IN_ROOT = 32,    /* RESOLVE_IN_ROOT */
	WALK_NO_XDEV = 64,    /* RESOLVE_NO_XDEV */
	WALK_EMPTY = 128,     /* AT_EMPTY_PATH */
	WALK_NO_AUTOMOUNT = 256,
};
/*
 * Resolves @name from @base (NULL: cwd; absolute names from root) as path_resolution(7).
 * On success @out holds references.
 */
int path_lookup(const struct vfs_ctx *ctx, const struct path *base, const char *name,
		unsigned int flags, struct path *out) __must_check;
/*
 * Resolves all but the last component. @last gets the (kmalloc'd) last name without trailing
 * slashes; *@trailing tells whether it had some. For "." and ".." and "/" @last is that.
 */
int path_parent(const struct vfs_ctx *ctx, const struct path *base, const char *name,
		unsigned int flags, struct path *parent, char **last, bool *trailing) __must_check;
/* May @ctx access @inode as @mask (MAY_*)? 0, -EACCES, -EPERM, -EROFS by the mount is elsewhere. */
enum { MAY_EXEC = 1, MAY_WRITE = 2, MAY_READ = 4 };
int inode_permission(const struct vfs_ctx *ctx, struct inode *inode, unsigned int mask);

/* ---- operations on names: the bodies of the system calls (vfs/namei_ops.c …) ---- */
int vfs_mknod(const struct vfs_ctx *ctx, const struct path *base, const char *name, mode_t mode,
	      dev_t rdev);
int vfs_mkdir(const struct vfs_ctx *ctx, const struct path *base, const char *name, mode_t mode);
int vfs_symlink(const struct vfs_ctx *ctx, const char *target, const struct path *base,
		const char *name);
int vfs_link(const struct vfs_ctx *ctx, const struct path *old, const struct path *base,
	     const char *name);
int vfs_unlink(const struct vfs_ctx *ctx, const struct path *base, const char *name);
int vfs_rmdir(const struct vfs_ctx *ctx, const struct path *base, const char *name);
int vfs_rename(const struct vfs_ctx *ctx, const struct path *old_base, const char *old_name,
	       const struct path *new_base, const char *new_name, unsigned int flags);
/* The link's target, kmalloc'd. */
char *vfs_readlink(const struct vfs_ctx *ctx, const struct path *path);
int vfs_setattr(const struct vfs_ctx *ctx, const struct path *path, struct iattr_change *change);
int vfs_truncate(const struct vfs_ctx *ctx, const struct path *path, uint64_t size);
int vfs_access(const struct vfs_ctx *ctx, const struct path *path, unsigned int mask);
int vfs_getattr(const struct path *path, struct statx *stx);
int vfs_statfs(const struct path *path, struct statfs *st);
ssize_t vfs_getxattr(const struct vfs_ctx *ctx, const struct path *path, const char *name,
		     void *value, size_t size);
int vfs_setxattr(const struct vfs_ctx *ctx, const struct path *path, const char *name,
		 const void *value, size_t size, int flags);
int vfs_removexattr(const struct vfs_ctx *ctx, const struct path *path, const char *name);
ssize_t vfs_listxattr(const struct vfs_ctx *ctx, const struct path *path, char *list, size_t size);

/* ---- mounts (vfs/mount.c, mnt_ns.c) ---- */
struct mount *mount_get(struct mount *mnt);
void mount_put(struct mount *mnt);
/* A namespace whose root is @sb (reference consumed). ERR_PTR on failure. */
struct mnt_ns *mnt_ns_alloc(struct super *sb, unsigned long flags);
/* A copy for CLONE_NEWNS; @fs's root and cwd are moved to the copy. */
struct mnt_ns *mnt_ns_copy(struct mnt_ns *old, struct fs_context *fs);
struct mnt_ns *mnt_ns_get(struct mnt_ns *ns);
void mnt_ns_put(struct mnt_ns *ns);
/* The namespace's root with a reference: what is mounted topmost there. */
void mnt_ns_root(struct mnt_ns *ns, struct path *out);
/* Nothing may be executed from there (MS_NOEXEC); set-id bits don't count (MS_NOSUID). */
bool path_noexec(const struct path *path);
bool path_nosuid(const struct path *path);
/*
 * pivot_root moved @from's root to @to: whoever else has @from as root or working directory follows
 * (the sentry goes over its tasks; the caller's own context is done). Set once; may stay NULL.
 */
extern void (*vfs_chroot_hook)(const struct path *from, const struct path *to);
/* mount(2)'s doings; privilege is checked by the caller. mount_new consumes @sb, on failure too. */
int mount_new(const struct vfs_ctx *ctx, struct super *sb, const struct path *at,
	      unsigned long flags);
int mount_bind(const struct vfs_ctx *ctx, const struct path *from, const struct path *at,
	       bool recursive);
int mount_remount(const struct vfs_ctx *ctx, const struct path *at, unsigned long flags, bool bind);
int mount_move(const struct vfs_ctx *ctx, const struct path *from, const struct path *at);
/* MS_SHARED, MS_PRIVATE, MS_SLAVE or MS_UNBINDABLE. Recorded and shown; events don't propagate. */
int mount_set_propagation(const struct vfs_ctx *ctx, const struct path *at, unsigned long type,
			  bool recursive);
int mount_umount(const struct vfs_ctx *ctx, const struct path *at, int flags);
int mount_pivot_root(const struct vfs_ctx *ctx, const struct path *new_root,
		     const struct path *put_old);
/* Text of /proc/PID/mounts (style 0), mountinfo (1), mountstats (2), kmalloc'd. */
char *mnt_ns_show(struct mnt_ns *ns, const struct path *root, int style);

const struct fs_type *fs_type_find(const char *name);
/* The types that are known, in order; NULL past the last. */
const struct fs_type *fs_type_at(size_t i);
/* Adds a type of a higher layer (procfs, devpts, sysfs). Before the first mount; -ENOSPC. */
int fs_type_register(const struct fs_type *type) __must_check;
/* Starts the vfs: caches, anonymous super. Once, after arena_init. */
int vfs_init(void) __must_check;

#endif
