/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open file descriptions and descriptor tables.
 *
 * Operations never block: they return -EAGAIN when nothing can be done now, and the system-call
 * layer waits on pollq and tries again unless the file is non-blocking (sentry/task_block.c). A
 * partial transfer returns its count. The few that can't be split use ctx->wait.
 *
 * Who holds a file: descriptor tables, mappings (vma), SCM_RIGHTS messages in flight, epoll does
 * *not* (it watches, and is told by release). Released: the last put calls ops->release.
 */
#ifndef VFS_FILE_H
#define VFS_FILE_H

#include "vfs/vfs.h"

/* One read or write. */
struct kiocb {
	struct file *file;
	const struct vfs_ctx *ctx;
	uint64_t pos;	    /* updated; ignored by streams */
	unsigned int flags; /* IOCB_* */
};
enum {
	IOCB_APPEND = 1,
	IOCB_NONBLOCK = 2, /* caller won't wait: for objects that behave differently then */
	IOCB_DSYNC = 4,
	IOCB_POSITIONED = 8, /* pread/pwrite: pos is the caller's */
};

/*
 * Receives directory entries; returns false when it is full (the entry is given again next time).
 */
struct dir_sink {
	bool (*emit)(struct dir_sink *sink, const char *name, size_t len, uint64_t ino,
		     unsigned int type /* DT_* */, uint64_t next_pos);
};

struct file_ops {
	ssize_t (*read)(struct kiocb *io, struct iov_iter *to);
	ssize_t (*write)(struct kiocb *io, struct iov_iter *from);
	/* NULL: -ESPIPE. file_llseek_generic serves regular files and directories. */
	int64_t (*llseek)(struct file *file, int64_t offset, int whence);
	/* Entries from file->pos on; sets file->pos. Called with the file's pos lock held. */
	int (*iterate)(const struct vfs_ctx *ctx, struct file *file, struct dir_sink *sink);
	/* -ENOTTY: unknown. @arg is an integer or an address in ctx->um. */
	long (*ioctl)(const struct vfs_ctx *ctx, struct file *file, unsigned int cmd,
		      unsigned long arg);
	/* Readiness now, EPOLL bits. NULL: always readable and writable. */
	uint32_t (*poll)(struct file *file);
	/* The same for files whose readiness depends on who asks (signalfd); @ctx may be NULL. */
	uint32_t (*poll_ctx)(const struct vfs_ctx *ctx, struct file *file);
	/* Where changes of readiness are announced. NULL: never changes. */
	struct waitq *(*pollq)(struct file *file);
	/*
	 * May the file be mapped so? NULL: -ENODEV. Returns 0 to go on with inode->mops, or 1 to
	 * make the mapping anonymous instead (/dev/zero).
	 */
	int (*mmap)(struct file *file, bool shared, unsigned int prot);
	int (*fsync)(struct file *file, bool datasync);
	int (*fallocate)(struct file *file, int mode, uint64_t offset, uint64_t len);
	/* On every close(2) of a descriptor of it; an error is close's. */
	int (*flush)(const struct vfs_ctx *ctx, struct file *file);
	void (*release)(struct file *file);
	/* F_SETFL changed O_NONBLOCK/O_APPEND/O_ASYNC: rarely needed. */
	int (*set_flags)(struct file *file, unsigned int flags);
	/* Lines for /proc/PID/fdinfo behind the common ones; kmalloc'd or NULL. */
	char *(*show_fdinfo)(struct file *file);
};

struct file {
	struct refcount refs;
	const struct file_ops *ops;
	struct path path;    /* references; anonymous objects have one in the anonymous super */
	struct inode *inode; /* path.dentry->inode */
	struct cred *cred;   /* opener's; reference */
	_Atomic unsigned int
		flags; /* O_* status and access mode, no O_CLOEXEC, no creation flags */
	bool readable, writable;
	struct mutex pos_lock;
	uint64_t pos; /* under pos_lock */
	void *private;
	bool noctty;			/* opened with O_NOCTTY: for a terminal's open */
	bool counted_writer;		/* counts in inode->writers and mount->writers */
	struct list_head epoll_watches; /* struct epoll_item.file_node, under epoll's lock */
	/* F_SETOWN / F_SETSIG. */
	int owner_type;
	pid_t owner;
	int owner_sig;
};

/* A file with one reference over @path (references of its own) with no more than that set. */
struct file *file_alloc(const struct path *path, const struct file_ops *ops, unsigned int flags,
			struct cred *cred);
/*
 * An anonymous object (pipe, eventfd, socket, …): a file with its own inode of @mode in the
 * anonymous super, called "@name" in /proc/PID/fd ("anon_inode:[eventfd]", "pipe:[%lu]" with the
 * inode number for %lu). ERR_PTR on failure.
 */
struct file *file_alloc_anon(const char *name, mode_t mode, const struct file_ops *ops,
			     void *private, unsigned int flags, struct cred *cred);
struct file *file_get(struct file *file);
void file_put(struct file *file);

/*
 * openat(2) with @how as openat2's. ERR_PTR on failure. Handles O_CREAT, O_TMPFILE, O_PATH, FIFOs.
 */
struct open_how;
struct file *file_open(const struct vfs_ctx *ctx, const struct path *base, const char *name,
		       const struct open_how *how);
/* Fills @how as open(2) and openat(2) do: unknown flags and bits of @mode are dropped. */
void open_how_init(struct open_how *how, unsigned int flags, mode_t mode);
/* Opens what a path already names. */
struct file *file_open_path(const struct vfs_ctx *ctx, const struct path *path, unsigned int flags);
/*
 * Opens a program: a regular file that @ctx may execute (-EACCES otherwise), from a mount without
 * MS_NOEXEC; the file is read-only. Writers are kept out by inode_deny_write, which is the
 * caller's. @flags: WALK_*.
 */
struct file *file_open_exec(const struct vfs_ctx *ctx, const struct path *base, const char *name,
			    unsigned int flags);
/* ftruncate(2): -EINVAL unless writable and regular. */
int file_truncate(const struct vfs_ctx *ctx, struct file *file, uint64_t size);
/* getdents: calls iterate under the position lock. -ENOTDIR, -ENOENT for a removed directory. */
int file_iterate(const struct vfs_ctx *ctx, struct file *file, struct dir_sink *sink);
/* lseek(2) under the position lock. */
int64_t file_llseek(struct file *file, int64_t offset, int whence);
int file_fallocate(const struct vfs_ctx *ctx, struct file *file, int mode, int64_t offset,
		   int64_t len);
int file_fsync(struct file *file, bool datasync);
/*
 * Opens a named pipe and an AF_UNIX socket's inode: the sentry's, set once before the first open.
 * The hook sets file->ops and file->private. NULL: -ENXIO.
 */
extern int (*fifo_open_hook)(const struct vfs_ctx *ctx, struct inode *inode, struct file *file);
/* The last reference on a FIFO's or socket's inode has gone and left inode->fifo or socket set. */
extern void (*inode_special_evict_hook)(struct inode *inode);
/* memfd_create(2): @flags MFD_* (MFD_CLOEXEC is the caller's). ERR_PTR on failure. */
struct file *memfd_file(const struct vfs_ctx *ctx, const char *name, unsigned int flags);
/* fcntl F_ADD_SEALS and F_GET_SEALS; -EINVAL for what can't be sealed. */
int file_add_seals(struct file *file, unsigned int seals);
int file_get_seals(struct file *file);

/* Reads for the sentry itself (exec headers, …); blocking kinds return -EAGAIN. */
ssize_t file_read_kernel(struct file *file, void *buf, size_t len, uint64_t pos);
ssize_t file_write_kernel(struct file *file, const void *buf, size_t len, uint64_t pos);
/*
 * The common read/write entry: checks mode, O_APPEND, RLIMIT_FSIZE, updates times. May be -EAGAIN.
 */
ssize_t file_read(struct kiocb *io, struct iov_iter *to);
ssize_t file_write(struct kiocb *io, struct iov_iter *from);
int64_t file_llseek_generic(struct file *file, int64_t offset, int whence);
uint32_t file_poll(struct file *file);
static inline uint32_t file_poll_ctx(const struct vfs_ctx *ctx, struct file *file)
{
	return file->ops->poll_ctx ? file->ops->poll_ctx(ctx, file) : file_poll(file);
}
/* The queue of @file, or NULL. */
static inline struct waitq *file_pollq(struct file *file)
{
	return file->ops->pollq ? file->ops->pollq(file) : NULL;
}
/* A watched file is being released: drops it from the epoll sets. The sentry's, set once. */
extern void (*epoll_release_hook)(struct file *file);

/* Character devices: a driver by major and minor number. */
struct chrdev {
	unsigned int major, minor, nminors;
	const char *name;
	int (*open)(const struct vfs_ctx *ctx, struct inode *inode, struct file *file);
	struct chrdev *next;
};
void chrdev_register(struct chrdev *dev);

/* ---- descriptor tables (vfs/fdtable.c) ---- */
struct fd_table {
	struct refcount refs;
	struct rwlock lock; /* LOCK_FDTABLE, guards all below */
	struct file **files;
	uint64_t *cloexec; /* bitmaps */
	uint64_t *used;
	unsigned int size;
	unsigned int next; /* nothing free below */
};

struct fd_table *fd_table_alloc(void);
/* A private copy (fork; unshare). */
struct fd_table *fd_table_copy(struct fd_table *old);
struct fd_table *fd_table_get(struct fd_table *t);
/* The last put closes everything. */
void fd_table_put(const struct vfs_ctx *ctx, struct fd_table *t);
/*
 * A reference to descriptor @fd, or NULL (-EBADF). fd_get skips O_PATH files, fd_get_any doesn't.
 */
struct file *fd_get(struct fd_table *t, int fd);
struct file *fd_get_any(struct fd_table *t, int fd);
/* Installs @file (reference consumed, on failure too) at the lowest free number >= @min. */
int fd_install(struct fd_table *t, struct file *file, unsigned int min, bool cloexec,
	       uint64_t nofile) __must_check;
/* Puts @file at exactly @fd, closing what was there. Consumes @file. */
int fd_replace(const struct vfs_ctx *ctx, struct fd_table *t, struct file *file, unsigned int fd,
	       bool cloexec, uint64_t nofile) __must_check;
int fd_close(const struct vfs_ctx *ctx, struct fd_table *t, unsigned int fd);
int fd_get_cloexec(struct fd_table *t, int fd); /* 0, 1 or -EBADF */
int fd_set_cloexec(struct fd_table *t, int fd, bool on);
void fd_close_range(const struct vfs_ctx *ctx, struct fd_table *t, unsigned int first,
		    unsigned int last, bool only_cloexec_mark);
/* exec: closes what is marked. */
void fd_table_exec(const struct vfs_ctx *ctx, struct fd_table *t);
/* The first descriptor in use at or after @fd, or -1. */
int fd_next(struct fd_table *t, int fd);

/* ---- locks on files (vfs/locks.c) ---- */
/* flock(2): @op LOCK_SH/EX/UN without LOCK_NB; blocks through ctx->wait unless @nonblock. */
int file_flock(const struct vfs_ctx *ctx, struct file *file, int op, bool nonblock);
/* fcntl locks: @owner identifies the process (POSIX: its fd table) or the file itself (OFD). */
int file_setlk(const struct vfs_ctx *ctx, struct file *file, const void *owner, pid_t pid,
	       struct flock *fl, bool wait);
int file_getlk(struct file *file, const void *owner, struct flock *fl);
/* close(2) of any descriptor of the inode drops the process's POSIX locks. */
void file_locks_release(struct file *file, const void *owner);

#endif
