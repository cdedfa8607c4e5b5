/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptor tables: numbers to open files. Two bitmaps say which numbers are taken and which close
 * on exec; `next` is a lower bound for the first free one.
 *
 * A file that leaves the table is flushed, its POSIX locks dropped and its reference put after the
 * table is unlocked, since all of that may take locks that come before LOCK_FDTABLE.
 */
#include <string.h>

#include "vfs/internal.h"

OBJTYPE(fd_table_objtype, "fd_table");

#define FD_FIRST_SIZE 64u
#define FD_MAX	      (1u << 20) /* like Linux's sysctl_nr_open */

static bool bit_get(const uint64_t *map, unsigned int i)
{
	return map[i / 64] >> (i % 64) & 1;
}

static void bit_put(uint64_t *map, unsigned int i, bool on)
{
	if (on)
		map[i / 64] |= 1ULL << (i % 64);
	else
		map[i / 64] &= ~(1ULL << (i % 64));
}

static int fd_arrays_alloc(struct fd_table *t, unsigned int size)
{
	t->files = kcalloc(size, sizeof(*t->files));
	t->used = kcalloc(size / 64, sizeof(uint64_t));
	t->cloexec = kcalloc(size / 64, sizeof(uint64_t));
	t->size = size;
	if (t->files && t->used && t->cloexec)
		return 0;
	kfree(t->files);
	kfree(t->used);
	kfree(t->cloexec);
	return -ENOMEM;
}

static struct fd_table *fd_table_make(unsigned int size)
{
	struct fd_table *t = kzalloc(sizeof(*t));

	if (!t)
		return NULL;
	if (fd_arrays_alloc(t, size)) {
		kfree(t);
		return NULL;
	}
	refcount_init(&t->refs, 1);
	rwlock_init(&t->lock, LOCK_FDTABLE);
	objtype_inc(&fd_table_objtype);
	return t;
}

struct fd_table *fd_table_alloc(void)
{
	return fd_table_make(FD_FIRST_SIZE);
}

/* Room for number @fd. Locked exclusively. */
static int fd_grow_locked(struct fd_table *t, unsigned int fd)
{
	struct fd_table bigger = {0};
	unsigned int size = t->size;

	if (fd < size)
		return 0;
	if (fd >= FD_MAX)
		return -EMFILE;
	while (size <= fd)
		size *= 2;
	if (fd_arrays_alloc(&bigger, size))
		return -ENOMEM;
	memcpy(bigger.files, t->files, t->size * sizeof(*t->files));
	memcpy(bigger.used, t->used, t->size / 8);
	memcpy(bigger.cloexec, t->cloexec, t->size / 8);
	kfree(t->files);
	kfree(t->used);
	kfree(t->cloexec);
	t->files = bigger.files;
	t->used = bigger.used;
	t->cloexec = bigger.cloexec;
	t->size = size;
	return 0;
}

/* The first number >= @fd that is in use, or -1. */
static int fd_next_locked(const struct fd_table *t, unsigned int fd)
{
	for (unsigned int i = fd / 64; fd < t->size && i < t->size / 64; i++) {
		uint64_t word = t->used[i];

		if (i == fd / 64)
			word &= ~0ULL << (fd % 64);
		if (word)
			return (int)(i * 64 + (unsigned int)__builtin_ctzll(word));
	}
	return -1;
}

static unsigned int fd_free_locked(const struct fd_table *t, unsigned int min)
{
	unsigned int i = min / 64;

	for (; i < t->size / 64; i++) {
		uint64_t word = ~t->used[i];

		if (i == min / 64)
			word &= ~0ULL << (min % 64);
		if (word)
			return i * 64 + (unsigned int)__builtin_ctzll(word);
	}
	return MAX(t->size, min);
}

struct fd_table *fd_table_copy(struct fd_table *old)
{
	struct fd_table *t;
	unsigned int size;

	for (;;) {
		read_lock(&old->lock);
		size = old->size;
		read_unlock(&old->lock);
		t = fd_table_make(size);
		if (!t)
			return NULL;
		read_lock(&old->lock);
		if (old->size == size)
			break;
		read_unlock(&old->lock);
		fd_table_put(NULL, t);
	}
	memcpy(t->used, old->used, size / 8);
	memcpy(t->cloexec, old->cloexec, size / 8);
	for (int fd = fd_next_locked(old, 0); fd >= 0;
	     fd = fd_next_locked(old, (unsigned int)fd + 1))
		t->files[fd] = file_get(old->files[fd]);
	t->next = old->next;
	read_unlock(&old->lock);
	return t;
}

struct fd_table *fd_table_get(struct fd_table *t)
{
	refcount_get(&t->refs);
	return t;
}

/* What close(2) does to a file that has left the table. Consumes @file. */
static int file_close(const struct vfs_ctx *ctx, struct fd_table *t, struct file *file)
{
	int err = 0;

	if (file->inode->locks && !(file->flags & O_PATH))
		file_locks_release(file, t);
	if (file->ops->flush)
		err = file->ops->flush(ctx, file);
	file_put(file);
	return err;
}

void fd_table_put(const struct vfs_ctx *ctx, struct fd_table *t)
{
	if (!t || !refcount_put(&t->refs))
		return;
	for (int fd = fd_next_locked(t, 0); fd >= 0; fd = fd_next_locked(t, (unsigned int)fd + 1))
		file_close(ctx, t, t->files[fd]);
	kfree(t->files);
	kfree(t->used);
	kfree(t->cloexec);
	rwlock_fini(&t->lock);
	objtype_dec(&fd_table_objtype);
	kfree(t);
}

struct file *fd_get_any(struct fd_table *t, int fd)
{
	struct file *file = NULL;

	if (fd < 0)
		return NULL;
	read_lock(&t->lock);
	if ((unsigned int)fd < t->size && t->files[fd])
		file = file_get(t->files[fd]);
	read_unlock(&t->lock);
	return file;
}

struct file *fd_get(struct fd_table *t, int fd)
{
	struct file *file = fd_get_any(t, fd);

	if (file && unlikely(file->flags & O_PATH)) {
		file_put(file);
		return NULL;
	}
	return file;
}

static void fd_set_locked(struct fd_table *t, unsigned int fd, struct file *file, bool cloexec)
{
	t->files[fd] = file;
	bit_put(t->used, fd, true);
	bit_put(t->cloexec, fd, cloexec);
}

/* Takes what is at @fd out of the table, or NULL. */
static struct file *fd_take_locked(struct fd_table *t, unsigned int fd)
{
	struct file *file;

	if (fd >= t->size)
		return NULL;
	file = t->files[fd];
	if (!file)
		return NULL;
	t->files[fd] = NULL;
	bit_put(t->used, fd, false);
	bit_put(t->cloexec, fd, false);
	if (fd < t->next)
		t->next = fd;
	return file;
}

int fd_install(struct fd_table *t, struct file *file, unsigned int min, bool cloexec,
	       uint64_t nofile)
{
	unsigned int fd;
	int err;

	write_lock(&t->lock);
	fd = fd_free_locked(t, MAX(min, t->next));
	err = fd >= nofile ? -EMFILE : fd_grow_locked(t, fd);
	if (!err) {
		fd_set_locked(t, fd, file, cloexec);
		if (min <= t->next)
			t->next = fd + 1;
	}
	write_unlock(&t->lock);
	if (err) {
		file_put(file);
		return err;
	}
	return (int)fd;
}

int fd_replace(const struct vfs_ctx *ctx, struct fd_table *t, struct file *file, unsigned int fd,
	       bool cloexec, uint64_t nofile)
{
	struct file *old = NULL;
	int err;

	write_lock(&t->lock);
	err = fd >= nofile ? -EBADF : fd_grow_locked(t, fd);
	if (err == -EMFILE)
		err = -EBADF;
	if (!err) {
		old = fd_take_locked(t, fd);
		fd_set_locked(t, fd, file, cloexec);
	}
	write_unlock(&t->lock);
	if (err) {
		file_put(file);
		return err;
	}
	/* dup2 tells nobody about a failed flush. */
	if (old)
		file_close(ctx, t, old);
	return (int)fd;
}

int fd_close(const struct vfs_ctx *ctx, struct fd_table *t, unsigned int fd)
{
	struct file *file;

	write_lock(&t->lock);
	file = fd_take_locked(t, fd);
	write_unlock(&t->lock);
	return file ? file_close(ctx, t, file) : -EBADF;
}

int fd_get_cloexec(struct fd_table *t, int fd)
{
	int on = -EBADF;

	read_lock(&t->lock);
	if (fd >= 0 && (unsigned int)fd < t->size && t->files[fd])
		on = bit_get(t->cloexec, (unsigned int)fd);
	read_unlock(&t->lock);
	return on;
}

int fd_set_cloexec(struct fd_table *t, int fd, bool on)
{
	int err = -EBADF;

	write_lock(&t->lock);
	if (fd >= 0 && (unsigned int)fd < t->size && t->files[fd]) {
		bit_put(t->cloexec, (unsigned int)fd, on);
		err = 0;
	}
	write_unlock(&t->lock);
	return err;
}

void fd_close_range(const struct vfs_ctx *ctx, struct fd_table *t, unsigned int first,
		    unsigned int last, bool only_cloexec_mark)
{
	int fd;

	for (;;) {
		struct file *file = NULL;

		write_lock(&t->lock);
		fd = first < t->size ? fd_next_locked(t, first) : -1;
		if (fd < 0 || (unsigned int)fd > last) {
			write_unlock(&t->lock);
			return;
		}
		if (only_cloexec_mark)
			bit_put(t->cloexec, (unsigned int)fd, true);
		else
			file = fd_take_locked(t, (unsigned int)fd);
		write_unlock(&t->lock);
		if (file)
			file_close(ctx, t, file);
		first = (unsigned int)fd + 1;
	}
}

void fd_table_exec(const struct vfs_ctx *ctx, struct fd_table *t)
{
	for (unsigned int i = 0;; i++) {
		for (;;) {
			struct file *file;
			uint64_t marked;

			write_lock(&t->lock);
			if (i >= t->size / 64) {
				write_unlock(&t->lock);
				return;
			}
			marked = t->cloexec[i] & t->used[i];
			file = marked ? fd_take_locked(
						t, i * 64 + (unsigned int)__builtin_ctzll(marked))
				      : NULL;
			write_unlock(&t->lock);
			if (!file)
				break;
			file_close(ctx, t, file);
		}
	}
}

int fd_next(struct fd_table *t, int fd)
{
	int next;

	read_lock(&t->lock);
	next = fd < 0 ? fd_next_locked(t, 0) : fd_next_locked(t, (unsigned int)fd);
	read_unlock(&t->lock);
	return next;
}
