/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of vfs/ share with each other and nobody else: the caches' state and the steps
 * between a path walk and the operations that end it.
 *
 * The state is one arena block, so that a snapshot has it; vfs_state only points there.
 *
 * The hash grows with the names: hash % DCACHE_STRIPES says the stripe whatever its size.
 *
 * Locks inside LOCK_DCACHE: tree (structure: parents, names, children) before a stripe (one part of
 * the hash). A look-up takes one stripe only; whoever adds, removes or moves a name takes tree
 * exclusively and the stripes concerned, in rising order.
 */
#ifndef VFS_INTERNAL_H
#define VFS_INTERNAL_H

#include <sys/mount.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "vfs/file.h"
#include "vfs/notify.h"

#define DCACHE_FIRST   1024u /* buckets to start with: a power of two */
#define DCACHE_STRIPES 64u
#define MNT_BUCKETS    64u
#define NAME_MAX_LEN   255u
#define SYMLINKS_MAX   40
#define INODE_LOCKS    8u

struct vfs_state {
	struct rwlock tree;		      /* LOCK_DCACHE */
	struct mutex stripes[DCACHE_STRIPES]; /* LOCK_DCACHE, after tree */
	struct list_head *buckets;	      /* changed with tree and all stripes held */
	unsigned int nr_buckets;	      /* a power of two, at least DCACHE_STRIPES */
	unsigned int nr_names;		      /* hashed; under tree */
	_Atomic uint64_t next_cookie;
	struct rwlock mnt;			/* LOCK_MNT: the fields of mounts and namespaces */
	struct list_head mnt_hash[MNT_BUCKETS]; /* under mnt; {0} is empty */
	int next_mnt_id, next_group;		/* under mnt */
	_Atomic uint64_t next_ns_ino;
	_Atomic unsigned int next_dev;
	struct super *anon;
	struct mount *anon_mnt;
	struct mount *shm_mnt; /* memfd's */
	uint64_t host_pages;   /* of the machine: what a filesystem without a limit reports */
	struct chrdev *chrdevs;
	struct mutex notify_lock; /* LOCK_OBJECT: watches and queues of inotify */
	struct list_head watches; /* all of them; under notify_lock */
	_Atomic unsigned int nr_watches;
	_Atomic uint32_t next_move_cookie;
	struct mutex lock_graph; /* LOCK_OBJECT: POSIX locks that wait */
	struct list_head lock_waiters;
};
extern struct vfs_state *vfs_state;

/* Internal bits of mount.flags, above those of mount(2). */
#define MNT_EXPIRE_MARK (1UL << 40)
#define MNT_INTERNAL	(1UL << 41) /* in no namespace, never shown */
#define MNT_FLAGS_USER                                                                             \
	(MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_RELATIME | \
	 MS_STRICTATIME | MS_NOSYMFOLLOW)
#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

/* ---- inode.c, super.c ---- */
extern const struct inode_ops inode_ops_none;
static inline uint64_t inode_size(const struct inode *inode)
{
	return __atomic_load_n(&inode->size, __ATOMIC_RELAXED);
}
static inline void inode_set_size(struct inode *inode, uint64_t size)
{
	__atomic_store_n(&inode->size, size, __ATOMIC_RELAXED);
}
void timespec_now(struct timespec *ts);
/* The memory of a super, as inodes hold it; super_get/put keep it mounted. */
void super_hold(struct super *sb);
void super_release(struct super *sb);
/* ETXTBSY's two sides: 0 or -ETXTBSY. */
int inode_get_write(struct inode *inode);
void inode_put_write(struct inode *inode);

/* ---- dentry.c ---- */
int dcache_init(void) __must_check;
uint32_t name_hash(const struct dentry *parent, const char *name, size_t len);
/* The cached name with a reference, or NULL. May be negative (a whiteout). */
struct dentry *dentry_find(struct dentry *parent, const char *name, size_t len);
struct dentry *dentry_parent(struct dentry *dentry); /* returns a reference */
bool dentry_is_under(struct dentry *dentry, struct dentry *ancestor);
/* Drops every name of a super that is going. */
void dentry_tree_drop(struct dentry *root);

/* ---- walk.c ---- */
enum walk_last { LAST_NORM, LAST_DOT, LAST_DOTDOT, LAST_ROOT };
struct walk_level {
	const char *pos;
	char *body; /* of a symlink; the first level's name is the caller's */
};
struct walk {
	const struct vfs_ctx *ctx;
	unsigned int flags;
	struct path cur, root; /* references */
	const char *last;      /* the last component, not terminated */
	size_t last_len;
	enum walk_last last_type;
	bool trailing; /* slashes behind the last component */
	bool scoped;   /* BENEATH or IN_ROOT */
	unsigned int nlinks, depth;
	struct walk_level stack[SYMLINKS_MAX + 1];
};
int walk_init(struct walk *w, const struct vfs_ctx *ctx, const struct path *base, const char *name,
	      unsigned int flags) __must_check;
void walk_fini(struct walk *w);
/* Walks until only the last component is left. */
int walk_to_last(struct walk *w) __must_check;
/*
 * Takes the last step. 0: w->cur is there. 1: it was a symbolic link to follow; go on with
 * walk_to_last. -errno.
 */
int walk_last(struct walk *w, bool follow) __must_check;
/* 1 and a pushed body, or 0 when the link jumped: @link (reference consumed) stands in w->cur. */
int walk_follow(struct walk *w, struct dentry *link) __must_check;
/*
 * The name @name in @dir: a positive dentry with a reference, ERR_PTR(-ENOENT) or an error.
 * _locked: the directory's inode lock is held exclusively.
 */
struct dentry *dir_lookup(struct dentry *dir, const char *name, size_t len);
struct dentry *dir_lookup_locked(struct dentry *dir, const char *name, size_t len);
/* Moves @path down into what is mounted on it. */
void path_cross_mounts(struct path *path);

/* ---- mount.c ---- */
struct mount *mount_alloc(struct super *sb, struct dentry *root, unsigned long flags);
/* The mount on @path with a reference, or NULL. */
struct mount *mount_lookup(const struct path *path);
/* Steps from a mount's root to where it is mounted: false at a namespace's root. */
bool path_up_mount(struct path *path);
bool mount_find_child_locked(struct mount *parent, struct dentry *mountpoint, struct mount **out);
void mount_attach_locked(struct mount *mnt, struct mount *parent, struct dentry *mountpoint);
void mount_detach_locked(struct mount *mnt);
/* Takes the tree at @mnt apart; the mounts, whose namespace references are now the caller's, are on
 * @out. */
void mount_tree_dissolve_locked(struct mount *mnt, struct list_head *out);
void mount_release_list(struct list_head *list);
struct mount *mount_next_locked(struct mount *pos, struct mount *root);
/* Levels between @mnt and @top above it; and the one of @mnt's ancestors at level @depth. */
unsigned int mount_depth_locked(const struct mount *mnt, const struct mount *top);
/* In a copy made in pre-order the parent of the next is the last one or above it. */
struct mount *mount_above_locked(struct mount *mnt, const struct mount *top, unsigned int depth);
struct mount *mount_clone_locked(struct mount *old, struct dentry *root);
bool path_is_mount_root(const struct path *path);
/* -EROFS when nothing may be written through @mnt. */
int mount_writable(const struct mount *mnt);

/* ---- attr.c ---- */
/* Drops set-user-id and set-group-id as a write by @ctx does. Inode lock held exclusively. */
void inode_strip_privs_locked(const struct vfs_ctx *ctx, struct inode *inode);
bool inode_needs_strip(const struct vfs_ctx *ctx, const struct inode *inode);
void file_accessed(struct file *file);
void path_accessed(const struct path *path);
/* Copies what @c changes, but not the size, into the inode. Lock held exclusively. */
void inode_setattr_copy(struct inode *inode, const struct iattr_change *c);
/* The group and mode a new inode gets in @dir. */
void inode_inherit(const struct vfs_ctx *ctx, const struct inode *dir, mode_t *mode, uid_t *uid,
		   gid_t *gid);

/* ---- namei_ops.c ---- */
/* May @ctx remove or replace @victim in @dir? */
int may_delete(const struct vfs_ctx *ctx, struct dentry *dir, struct dentry *victim, bool isdir);
int may_create(const struct vfs_ctx *ctx, struct dentry *dir);
/* Makes the name @name in @dir, whose lock is held; returns a positive dentry or ERR_PTR. */
struct dentry *dir_create_locked(const struct vfs_ctx *ctx, struct dentry *dir, const char *name,
				 size_t len, mode_t mode, dev_t rdev, const char *symlink);
mode_t ctx_umask(const struct vfs_ctx *ctx);

/* ---- chrdev.c, anon.c, devices, filesystems ---- */
int chrdev_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file);
void memdev_register(void);
int anon_init(void) __must_check;
int memfd_init(void) __must_check;
/* ---- locks.c ---- */
void inode_locks_free(struct inode *inode);
void file_locks_drop_file(struct file *file);

#endif
