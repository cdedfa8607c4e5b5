/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contents of host files: read and written on host descriptors that are opened with the first need.
 *
 * Mappings need frames: mapping.pages holds copies of the pages that somebody maps, | PAGE_DIRTY
 * once mapped writable and shared. While a copy exists reads come from it and writes go to both, so
 * that the guest sees one file. Dirty copies are written back by msync, fsync and the last release,
 * and all copies are dropped when the file is opened and nobody maps it, so what the host did in
 * between shows.
 *
 * Locks as in memfs_data.c. Host I/O happens under inode->lock and, for faults, under mapping.lock:
 * it is a file on a local disk.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "sentry/lib/physmem.h"
#include "vfs/hostfs.h"

#define PAGE_DIRTY 1ULL

/* Opens by @dentry's name if that still is @inode. */
static int open_by_name(struct inode *inode, struct dentry *dentry, uint64_t flags)
{
	struct hostfs_inode *hi = hostfs_inode(inode);
	struct dentry *parent;
	struct stat st;
	int fd;

	if (!dentry || dentry->parent == dentry)
		return -ESTALE;
	parent = dentry_parent(dentry);
	fd = hostfs_openat(hostfs_pathfd(parent->inode), dentry->name, flags | O_NONBLOCK, 0);
	dentry_put(parent);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) || st.st_dev != hi->dev || st.st_ino != hi->ino) {
		close(fd);
		return -ESTALE;
	}
	return fd;
}

/* Opens the object itself, through its descriptor's magic link. */
static int open_by_proc(struct inode *inode, uint64_t flags)
{
	struct hostfs *fs = hostfs_of(inode->super);
	char name[16];
	int fd;

	if (!fs->procfd)
		return -ESTALE;
	snprintf(name, sizeof(name), "%d", hostfs_pathfd(inode));
	fd = openat(hostfd_get(fs->procfd), name, (int)flags | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? host_error(errno) : fd;
}

int hostfs_iofd(struct inode *inode, struct dentry *dentry, bool write)
{
	struct hostfs_inode *hi = hostfs_inode(inode);
	_Atomic int *slot = write ? &hi->writefd : &hi->readfd;
	uint64_t flags = write ? O_RDWR : O_RDONLY;
	int fd, index;

	if (*slot)
		return hostfd_get(*slot);
	if (!write && hi->writefd)
		return hostfd_get(hi->writefd);
	if (!S_ISREG(inode->mode))
		return -ENXIO;
	fd = open_by_proc(inode, flags);
	if (fd < 0)
		fd = open_by_name(inode, dentry, flags);
	if (fd < 0)
		return fd;
	index = hostfd_add(fd);
	if (index < 0)
		return -ENOMEM;
	mutex_lock(&hi->lock);
	if (!*slot) {
		*slot = index;
		index = 0;
	}
	mutex_unlock(&hi->lock);
	if (index)
		hostfd_close(index);
	return hostfd_get(*slot);
}

/* ---- pages ---- */

/* Writes one dirty copy back, up to the end of the file. Mapping locked. */
static int write_page(struct inode *inode, uint64_t pgoff, gpa_t gpa)
{
	uint64_t pos = pgoff * PAGE_SIZE, size = inode_size(inode);
	int fd = hostfs_iofd(inode, NULL, true);
	size_t len, done = 0;

	if (pos >= size)
		return 0;
	if (fd < 0)
		return fd;
	len = MIN(PAGE_SIZE, size - pos);
	while (done < len) {
		ssize_t n =
			pwrite(fd, (char *)phys_ptr(gpa) + done, len - done, (off_t)(pos + done));

		if (n < 0 && errno != EINTR)
			return host_error(errno);
		if (n > 0)
			done += (size_t)n;
	}
	return 0;
}

/* The mark stays: who maps the page writable can store again at any time. */
static int hostfs_writeback(struct inode *inode, uint64_t pgoff, uint64_t n)
{
	uint64_t index = pgoff, value;
	int err = 0;

	mutex_lock(&inode->mapping.lock);
	while (radix_next(&inode->mapping.pages, &index, &value) && index - pgoff < n) {
		if (value & PAGE_DIRTY) {
			int e = write_page(inode, index, value & PAGE_MASK);

			err = err ? err : e;
		}
		if (++index == 0)
			break;
	}
	mutex_unlock(&inode->mapping.lock);
	return err;
}

static void drop_from_locked(struct inode *inode, uint64_t first)
{
	uint64_t index = first, value;

	while (radix_next(&inode->mapping.pages, &index, &value)) {
		(void)!radix_set(&inode->mapping.pages, index, 0);
		frame_put(value & PAGE_MASK);
		index++;
	}
}

void hostfs_drop_pages(struct inode *inode)
{
	if (!inode->mapping.pages.root)
		return;
	hostfs_writeback(inode, 0, UINT64_MAX);
	mutex_lock(&inode->mapping.lock);
	if (list_empty(&inode->mapping.users))
		drop_from_locked(inode, 0);
	mutex_unlock(&inode->mapping.lock);
}

static int load_page(struct inode *inode, uint64_t pgoff, gpa_t *out)
{
	int fd = hostfs_iofd(inode, NULL, false), err;
	size_t done = 0;
	ssize_t n = 1;
	gpa_t gpa;

	if (fd < 0)
		return fd == -ENOMEM ? fd : -EIO;
	gpa = frame_alloc();
	if (gpa == GPA_NONE)
		return -ENOMEM;
	while (done < PAGE_SIZE && n) {
		n = pread(fd, (char *)phys_ptr(gpa) + done, PAGE_SIZE - done,
			  (off_t)(pgoff * PAGE_SIZE + done));
		if (n < 0 && errno != EINTR) {
			frame_put(gpa);
			return -EIO;
		}
		if (n > 0)
			done += (size_t)n;
	}
	err = radix_set(&inode->mapping.pages, pgoff, gpa);
	if (err) {
		frame_put(gpa);
		return err;
	}
	*out = gpa;
	return 0;
}

static int hostfs_get_pages(struct inode *inode, uint64_t pgoff, bool write, gpa_t *gpa, size_t *n)
{
	uint64_t size = inode_size(inode), value;
	int err;

	if (pgoff >= size / PAGE_SIZE + (size % PAGE_SIZE != 0))
		return -EFAULT;
	*n = 1;
	value = radix_get(&inode->mapping.pages, pgoff);
	if (!value) {
		err = load_page(inode, pgoff, &value);
		if (err)
			return err;
	}
	*gpa = value & PAGE_MASK;
	if (write && !(value & PAGE_DIRTY)) {
		err = radix_set(&inode->mapping.pages, pgoff, value | PAGE_DIRTY);
		if (err)
			return err;
	}
	frame_get(*gpa);
	return 0;
}

const struct mapping_ops hostfs_mapping_ops = {
	.get_pages = hostfs_get_pages,
	.writeback = hostfs_writeback,
};

/* ---- reading and writing ---- */

/* The copy of the page at @pos, or NULL. It stays: pages go only with inode->lock exclusive. */
static char *page_copy(struct inode *inode, uint64_t pos)
{
	uint64_t value = 0;

	if (inode->mapping.pages.root) {
		mutex_lock(&inode->mapping.lock);
		value = radix_get(&inode->mapping.pages, pos / PAGE_SIZE);
		mutex_unlock(&inode->mapping.lock);
	}
	return value ? phys_ptr(value & PAGE_MASK) : NULL;
}

/* Puts what somebody's mapping has over what was read from the host. */
static void overlay_copies(struct inode *inode, char *buf, uint64_t pos, size_t len, bool to_copies)
{
	size_t done = 0;

	while (inode->mapping.pages.root && done < len) {
		uint64_t at = pos + done;
		size_t n = MIN(len - done, PAGE_SIZE - at % PAGE_SIZE);
		char *page = page_copy(inode, at);

		if (page && to_copies)
			memcpy(page + at % PAGE_SIZE, buf + done, n);
		else if (page)
			memcpy(buf + done, page + at % PAGE_SIZE, n);
		done += n;
	}
}

static ssize_t hostfs_read(struct kiocb *io, struct iov_iter *to)
{
	struct inode *inode = io->file->inode;
	int fd = hostfs_iofd(inode, io->file->path.dentry, false);
	size_t done = 0, copied;
	char buf[HOSTFS_BOUNCE];
	ssize_t n = 0;

	if (fd < 0)
		return fd;
	read_lock(&inode->lock);
	while (to->count) {
		n = pread(fd, buf, MIN(to->count, sizeof(buf)), (off_t)io->pos);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		overlay_copies(inode, buf, io->pos, (size_t)n, false);
		copied = iov_copy_to(to, buf, (size_t)n);
		done += copied;
		io->pos += copied;
		if (copied < (size_t)n) {
			if (!done)
				n = -EFAULT;
			break;
		}
	}
	read_unlock(&inode->lock);
	if (n < 0 && n != -EFAULT)
		n = host_error(errno);
	return done ? (ssize_t)done : n;
}

static ssize_t write_chunk(struct kiocb *io, int fd, char *buf, size_t len)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	struct inode *inode = io->file->inode;
	struct stat st;
	ssize_t n;

	do {
		if (io->flags & IOCB_APPEND)
			n = pwritev2(fd, &iov, 1, 0, RWF_APPEND);
		else
			n = pwrite(fd, buf, len, (off_t)io->pos);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return host_error(errno);
	if ((io->flags & IOCB_APPEND) && !fstat(fd, &st))
		io->pos = (uint64_t)(st.st_size - n);
	overlay_copies(inode, buf, io->pos, (size_t)n, true);
	io->pos += (size_t)n;
	if (io->pos > inode_size(inode))
		inode_set_size(inode, io->pos);
	return n;
}

static ssize_t hostfs_write(struct kiocb *io, struct iov_iter *from)
{
	struct inode *inode = io->file->inode;
	int fd = hostfs_iofd(inode, io->file->path.dentry, true);
	char buf[HOSTFS_BOUNCE];
	size_t done = 0;
	ssize_t n = 0;

	if (fd < 0)
		return fd;
	write_lock(&inode->lock);
	while (from->count) {
		size_t want = MIN(from->count, sizeof(buf)), got = iov_copy_from(from, buf, want);

		n = got ? write_chunk(io, fd, buf, got) : -EFAULT;
		if (n <= 0)
			break;
		done += (size_t)n;
		if ((size_t)n < want)
			break;
	}
	write_unlock(&inode->lock);
	return done ? (ssize_t)done : n;
}

int hostfs_truncate_locked(struct inode *inode, uint64_t size)
{
	int fd = hostfs_iofd(inode, NULL, true);
	uint64_t first = size / PAGE_SIZE + (size % PAGE_SIZE != 0);
	struct map_user *user;
	char *page;

	if (fd < 0)
		return fd;
	if (ftruncate(fd, (off_t)size))
		return host_error(errno);
	page = size % PAGE_SIZE ? page_copy(inode, size) : NULL;
	if (page)
		memset(page + size % PAGE_SIZE, 0, PAGE_SIZE - size % PAGE_SIZE);
	inode_set_size(inode, size);
	mutex_lock(&inode->mapping.lock);
	list_for_each_entry (user, &inode->mapping.users, node) {
		uint64_t from = MAX(user->pgoff, first), to = user->pgoff + user->npages;

		if (from < to)
			user->zap(user, from, to - from, true);
	}
	drop_from_locked(inode, first);
	mutex_unlock(&inode->mapping.lock);
	return 0;
}

/* ---- the file ---- */

int hostfs_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file)
{
	int fd;

	if (file->writable && hostfs_of(inode->super)->readonly)
		return -EROFS;
	fd = hostfs_iofd(inode, file->path.dentry, file->writable);
	if (fd < 0)
		return fd;
	write_lock(&inode->lock);
	hostfs_drop_pages(inode);
	hostfs_getattr(inode);
	write_unlock(&inode->lock);
	return 0;
}

static int64_t hostfs_llseek(struct file *file, int64_t offset, int whence)
{
	int fd;
	off_t pos;

	switch (whence) {
	case SEEK_END:
		hostfs_getattr(file->inode);
		return file_llseek_generic(file, offset, whence);
	case SEEK_DATA:
	case SEEK_HOLE:
		fd = hostfs_iofd(file->inode, file->path.dentry, file->writable);
		if (fd < 0)
			return fd;
		/* The descriptor's own position is never used: pread and pwrite. */
		pos = lseek(fd, offset, whence);
		if (pos < 0)
			return host_error(errno);
		file->pos = (uint64_t)pos;
		return pos;
	default:
		return file_llseek_generic(file, offset, whence);
	}
}

static int hostfs_fsync(struct file *file, bool datasync)
{
	struct hostfs_inode *hi = hostfs_inode(file->inode);
	int index = hi->writefd ? hi->writefd : hi->readfd;
	int err = hostfs_writeback(file->inode, 0, UINT64_MAX);

	if (err || !index)
		return err;
	if (datasync ? fdatasync(hostfd_get(index)) : fsync(hostfd_get(index)))
		return host_error(errno);
	return 0;
}

static int hostfs_fallocate(struct file *file, int mode, uint64_t offset, uint64_t len)
{
	struct inode *inode = file->inode;
	int fd = hostfs_iofd(inode, file->path.dentry, true), err = 0;

	if (fd < 0)
		return fd;
	/* Punching would have to reach mapped copies too; growing doesn't. */
	if (mode & ~1 /* FALLOC_FL_KEEP_SIZE */)
		return -EOPNOTSUPP;
	write_lock(&inode->lock);
	if (fallocate(fd, mode, (off_t)offset, (off_t)len))
		err = host_error(errno);
	else
		err = hostfs_getattr(inode);
	write_unlock(&inode->lock);
	return err;
}

static int hostfs_mmap(struct file *file, bool shared, unsigned int prot)
{
	return 0;
}

const struct file_ops hostfs_file_fops = {
	.read = hostfs_read,
	.write = hostfs_write,
	.llseek = hostfs_llseek,
	.mmap = hostfs_mmap,
	.fsync = hostfs_fsync,
	.fallocate = hostfs_fallocate,
};
