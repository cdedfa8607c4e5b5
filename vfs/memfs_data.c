/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contents of in-memory files (memfs.h says what mapping.pages holds).
 *
 *   image page ──write/map writable──▶ owned frame ──truncate, punch──▶ hole
 *   hole ──write/map──▶ owned frame
 *
 * inode->lock: shared to read, exclusive to write, truncate and punch: pages go only under it
 * exclusively, so a reader needs no references on frames. mapping.lock: pages and map_users; page
 * faults have only this one, and may bring pages in at any time. User copies happen under
 * inode->lock and never under mapping.lock.
 *
 * Before a page's backing changes, every mapping of it is zapped under mapping.lock.
 */
#include <linux/falloc.h>
#include <string.h>

#include "sentry/lib/physmem.h"
#include "vfs/memfs.h"

#define EXTENT_PAGES	   512u /* what frame_alloc_extent gives at most */
#define WRITE_EXTENT_PAGES 16u	/* smaller writes take single frames */
#define READ_RUN_PAGES	   512u
#define BLOCKS_PER_PAGE	   (PAGE_SIZE / 512)

bool memfs_charge(struct memfs *fs, uint64_t pages)
{
	if (atomic_fetch_add(&fs->pages, pages) + pages > fs->max_pages && fs->max_pages) {
		atomic_fetch_sub(&fs->pages, pages);
		return false;
	}
	return true;
}

void memfs_uncharge(struct memfs *fs, uint64_t pages)
{
	atomic_fetch_sub(&fs->pages, pages);
}

static uint64_t pages_of(uint64_t bytes)
{
	return bytes / PAGE_SIZE + (bytes % PAGE_SIZE != 0);
}

/* The pages below this come from the image unless mapping.pages says otherwise. */
static uint64_t lower_end(const struct memfs_node *node)
{
	return pages_of(node->lower_size);
}

static void mapping_zap(struct inode *inode, uint64_t pgoff, uint64_t n, bool even_cow)
{
	struct map_user *user;

	list_for_each_entry (user, &inode->mapping.users, node) {
		uint64_t from = MAX(user->pgoff, pgoff);
		uint64_t to = MIN(user->pgoff + user->npages, pgoff + n);

		if (from < to)
			user->zap(user, from, to - from, even_cow);
	}
}

/* How far from @pgoff nothing is in mapping.pages, at most @max. */
static uint64_t absent_run(struct inode *inode, uint64_t pgoff, uint64_t max)
{
	uint64_t index = pgoff, value;

	if (max > 1 && radix_next(&inode->mapping.pages, &index, &value))
		return MIN(max, index - pgoff);
	return max;
}

/* How far from @pgoff on owned frames lie one behind the other. */
static size_t owned_run(struct inode *inode, uint64_t pgoff, gpa_t gpa, size_t max)
{
	size_t n = 1;

	while (n < max && radix_get(&inode->mapping.pages, pgoff + n) == gpa + n * PAGE_SIZE)
		n++;
	return n;
}

/* Fills @page with page @pgoff of the image; what the image doesn't have is zero. */
static int read_lower_page(struct inode *inode, uint64_t pgoff, void *page)
{
	struct memfs_node *node = memfs_node(inode);
	uint64_t pos = pgoff * PAGE_SIZE;
	size_t want = MIN(PAGE_SIZE, node->lower_size - pos);
	ssize_t n = lower_read(memfs_of(inode->super)->lower, &node->lower, pos, page, want);

	if (n < 0 || (size_t)n < want)
		return -EIO;
	memset((char *)page + want, 0, PAGE_SIZE - want);
	return 0;
}

/* Copies page @pgoff of the image into a frame of the file's. Mapping locked; zaps. */
static int copy_up_page(struct inode *inode, uint64_t pgoff, gpa_t *out)
{
	struct memfs *fs = memfs_of(inode->super);
	gpa_t gpa;
	int err;

	if (!memfs_charge(fs, 1))
		return -ENOSPC;
	err = -ENOMEM;
	gpa = frame_alloc_dirty();
	if (gpa == GPA_NONE)
		goto out_uncharge;
	err = read_lower_page(inode, pgoff, phys_ptr(gpa));
	if (!err)
		err = radix_set(&inode->mapping.pages, pgoff, gpa);
	if (err)
		goto out_frame;
	mapping_zap(inode, pgoff, 1, false);
	*out = gpa;
	return 0;

out_frame:
	frame_put(gpa);
out_uncharge:
	memfs_uncharge(fs, 1);
	return err;
}

/* Stores @n consecutive frames from @gpa at @pgoff; all or nothing. */
static int store_run(struct inode *inode, uint64_t pgoff, gpa_t gpa, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!radix_set(&inode->mapping.pages, pgoff + i, gpa + i * PAGE_SIZE))
			continue;
		while (i--)
			(void)!radix_set(&inode->mapping.pages, pgoff + i, 0);
		return -ENOMEM;
	}
	return 0;
}

/* Puts zeroed frames into a hole of *@n pages at @pgoff, fewer if it must be. Mapping locked. */
static int fill_hole(struct inode *inode, uint64_t pgoff, size_t *n, gpa_t *out)
{
	struct memfs *fs = memfs_of(inode->super);
	size_t want = MIN(*n, EXTENT_PAGES);
	gpa_t gpa;
	int err = -ENOMEM;

	while (!memfs_charge(fs, want)) {
		if (want == 1)
			return -ENOSPC;
		want /= 2;
	}
	gpa = want > 1 ? frame_alloc_extent(want) : frame_alloc();
	if (gpa == GPA_NONE)
		goto out_uncharge;
	err = store_run(inode, pgoff, gpa, want);
	if (err) {
		frame_put_range(gpa, want);
		goto out_uncharge;
	}
	__atomic_fetch_add(&inode->blocks, want * BLOCKS_PER_PAGE, __ATOMIC_RELAXED);
	*n = want;
	*out = gpa;
	return 0;

out_uncharge:
	memfs_uncharge(fs, want);
	return err;
}

enum page_kind { PAGE_OWNED, PAGE_LOWER, PAGE_ABSENT };

/* What page @pgoff is, and for how many pages of *@n that holds. Mapping locked. */
static enum page_kind page_classify(struct inode *inode, uint64_t pgoff, gpa_t *gpa, size_t *n)
{
	uint64_t value = radix_get(&inode->mapping.pages, pgoff),
		 low = lower_end(memfs_node(inode));

	if (value == MEMFS_HOLE) {
		*n = 1;
		return PAGE_ABSENT;
	}
	if (value) {
		*gpa = value;
		*n = owned_run(inode, pgoff, value, *n);
		return PAGE_OWNED;
	}
	if (pgoff < low) {
		*n = absent_run(inode, pgoff, MIN(*n, low - pgoff));
		return PAGE_LOWER;
	}
	*n = absent_run(inode, pgoff, *n);
	return PAGE_ABSENT;
}

static int memfs_get_pages(struct inode *inode, uint64_t pgoff, bool write, gpa_t *gpa, size_t *n)
{
	struct memfs_node *node = memfs_node(inode);
	uint64_t end = pages_of(inode_size(inode));
	int err = 0;

	if (pgoff >= end)
		return -EFAULT;
	*n = MIN(*n, end - pgoff);
	switch (page_classify(inode, pgoff, gpa, n)) {
	case PAGE_OWNED:
		break;
	case PAGE_LOWER:
		if (!write &&
		    !lower_map(memfs_of(inode->super)->lower, &node->lower, pgoff, gpa, n))
			return 0; /* the image isn't counted */
		*n = 1;
		err = copy_up_page(inode, pgoff, gpa);
		break;
	case PAGE_ABSENT:
		err = fill_hole(inode, pgoff, n, gpa);
		break;
	}
	/* A full filesystem is a SIGBUS to who maps it. */
	if (err)
		return err == -ENOSPC ? -EFAULT : err;
	for (size_t i = 0; i < *n; i++)
		frame_get(*gpa + i * PAGE_SIZE);
	return 0;
}

const struct mapping_ops memfs_mapping_ops = {.get_pages = memfs_get_pages};

/* ---- reading ---- */

/* Copies @len bytes at @pos of the image that can't be pointed to. */
static size_t read_lower_slow(struct inode *inode, uint64_t pos, size_t len, struct iov_iter *to)
{
	struct memfs_node *node = memfs_node(inode);
	char buf[PAGE_SIZE];
	ssize_t n;

	len = MIN(len, sizeof(buf));
	memset(buf, 0, len);
	if (pos < node->lower_size) {
		n = lower_read(memfs_of(inode->super)->lower, &node->lower, pos, buf,
			       MIN(len, node->lower_size - pos));
		if (n < 0)
			return 0;
	}
	return iov_copy_to(to, buf, len);
}

/* One run of pages of the same kind. Returns bytes copied; *@want is what it tried. */
static size_t read_run(struct inode *inode, uint64_t pos, size_t *want, struct iov_iter *to)
{
	struct memfs_node *node = memfs_node(inode);
	uint64_t pgoff = pos / PAGE_SIZE, in_page = pos % PAGE_SIZE;
	size_t n = MIN(pages_of(in_page + *want), READ_RUN_PAGES);
	enum page_kind kind;
	gpa_t gpa = 0;

	mutex_lock(&inode->mapping.lock);
	kind = page_classify(inode, pgoff, &gpa, &n);
	mutex_unlock(&inode->mapping.lock);
	if (kind == PAGE_LOWER &&
	    lower_map(memfs_of(inode->super)->lower, &node->lower, pgoff, &gpa, &n)) {
		*want = MIN(*want, PAGE_SIZE - in_page);
		return read_lower_slow(inode, pos, *want, to);
	}
	*want = MIN(*want, n * PAGE_SIZE - in_page);
	if (kind == PAGE_ABSENT)
		return iov_zero(to, *want);
	return iov_copy_to(to, (char *)phys_ptr(gpa) + in_page, *want);
}

static ssize_t memfs_read(struct kiocb *io, struct iov_iter *to)
{
	struct inode *inode = io->file->inode;
	size_t done = 0, count;
	uint64_t size;

	read_lock(&inode->lock);
	size = inode_size(inode);
	count = io->pos < size ? MIN(to->count, size - io->pos) : 0;
	while (done < count) {
		size_t want = count - done, n;

		n = read_run(inode, io->pos, &want, to);
		done += n;
		io->pos += n;
		if (n < want)
			break;
	}
	read_unlock(&inode->lock);
	return done || !count ? (ssize_t)done : -EFAULT;
}

/* ---- writing ---- */

/* A whole page into a hole: filled first and shown then, so it needn't be zeroed. */
static ssize_t write_new_page(struct inode *inode, uint64_t pgoff, struct iov_iter *from)
{
	struct memfs *fs = memfs_of(inode->super);
	gpa_t gpa, other;
	size_t n;
	int err = -ENOSPC;

	if (!memfs_charge(fs, 1))
		return err;
	err = -ENOMEM;
	gpa = frame_alloc_dirty();
	if (gpa == GPA_NONE)
		goto out_uncharge;
	n = iov_copy_from(from, phys_ptr(gpa), PAGE_SIZE);
	err = -EFAULT;
	if (!n)
		goto out_frame;
	memset((char *)phys_ptr(gpa) + n, 0, PAGE_SIZE - n);
	mutex_lock(&inode->mapping.lock);
	other = radix_get(&inode->mapping.pages, pgoff);
	if (other && other != MEMFS_HOLE) {
		/* A fault brought one in meanwhile. */
		memcpy(phys_ptr(other), phys_ptr(gpa), n);
		err = 1;
	} else {
		err = radix_set(&inode->mapping.pages, pgoff, gpa);
		if (!err)
			__atomic_fetch_add(&inode->blocks, BLOCKS_PER_PAGE, __ATOMIC_RELAXED);
	}
	mutex_unlock(&inode->mapping.lock);
	if (!err)
		return (ssize_t)n;
	if (err < 0)
		iov_revert(from, n);
out_frame:
	frame_put(gpa);
out_uncharge:
	memfs_uncharge(fs, 1);
	return err == 1 ? (ssize_t)n : err;
}

/* One run of pages. Returns bytes copied or -errno; *@want is what it tried. */
static ssize_t write_run(struct inode *inode, uint64_t pos, size_t *want, struct iov_iter *from)
{
	uint64_t pgoff = pos / PAGE_SIZE, in_page = pos % PAGE_SIZE;
	size_t n = MIN(pages_of(in_page + *want), EXTENT_PAGES), done;
	gpa_t gpa = 0;
	int err = 0;

	mutex_lock(&inode->mapping.lock);
	switch (page_classify(inode, pgoff, &gpa, &n)) {
	case PAGE_OWNED:
		break;
	case PAGE_LOWER:
		n = 1;
		err = copy_up_page(inode, pgoff, &gpa);
		break;
	case PAGE_ABSENT:
		if (n < WRITE_EXTENT_PAGES && !in_page && *want >= PAGE_SIZE) {
			mutex_unlock(&inode->mapping.lock);
			*want = PAGE_SIZE;
			return write_new_page(inode, pgoff, from);
		}
		err = fill_hole(inode, pgoff, &n, &gpa);
		break;
	}
	mutex_unlock(&inode->mapping.lock);
	if (err)
		return err;
	*want = MIN(*want, n * PAGE_SIZE - in_page);
	done = iov_copy_from(from, (char *)phys_ptr(gpa) + in_page, *want);
	return done ? (ssize_t)done : -EFAULT;
}

/* What somebody stored behind the end through a mapping must not show when the file grows. */
static void zero_tail(struct inode *inode, uint64_t size)
{
	uint64_t value;

	if (!(size % PAGE_SIZE))
		return;
	mutex_lock(&inode->mapping.lock);
	value = radix_get(&inode->mapping.pages, size / PAGE_SIZE);
	if (value && value != MEMFS_HOLE)
		memset((char *)phys_ptr(value) + size % PAGE_SIZE, 0, PAGE_SIZE - size % PAGE_SIZE);
	mutex_unlock(&inode->mapping.lock);
}

static ssize_t memfs_write_locked(struct kiocb *io, struct iov_iter *from)
{
	struct inode *inode = io->file->inode;
	unsigned int seals = memfs_node(inode)->seals;
	uint64_t size = inode_size(inode);
	size_t count, done = 0;
	ssize_t n = 0;

	if (io->flags & IOCB_APPEND)
		io->pos = size;
	count = from->count;
	if (!count)
		return 0;
	if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return -EPERM;
	if ((seals & F_SEAL_GROW) && io->pos + count > size) {
		if (io->pos >= size)
			return -EPERM;
		count = size - io->pos;
	}
	if (io->pos >= INT64_MAX)
		return -EFBIG;
	if (io->pos > size)
		zero_tail(inode, size);
	while (done < count) {
		size_t want = count - done;

		n = write_run(inode, io->pos, &want, from);
		if (n < 0)
			break;
		done += (size_t)n;
		io->pos += (size_t)n;
		if ((size_t)n < want)
			break;
	}
	if (!done)
		return n;
	if (io->pos > size)
		inode_set_size(inode, io->pos);
	inode_touch(inode, INODE_MTIME | INODE_CTIME);
	return (ssize_t)done;
}

static ssize_t memfs_write(struct kiocb *io, struct iov_iter *from)
{
	struct inode *inode = io->file->inode;
	ssize_t n;

	write_lock(&inode->lock);
	n = memfs_write_locked(io, from);
	write_unlock(&inode->lock);
	return n;
}

/* ---- truncating, punching, filling ---- */

/* Frees owned frames of [@first, @last), contiguous ones at once. Returns how many entries went. */
static uint64_t free_owned(struct inode *inode, uint64_t first, uint64_t last, uint64_t *in_lower)
{
	struct radix *pages = &inode->mapping.pages;
	uint64_t index = first, value, low = lower_end(memfs_node(inode)), freed = 0;
	gpa_t run = 0;
	size_t n = 0;

	while (index < last && radix_next(pages, &index, &value) && index < last) {
		(void)!radix_set(pages, index, 0);
		if (in_lower && index < low)
			++*in_lower;
		index++;
		if (value == MEMFS_HOLE)
			continue;
		freed++;
		if (n && value == run + n * PAGE_SIZE) {
			n++;
			continue;
		}
		if (n)
			frame_put_range(run, n);
		run = value;
		n = 1;
	}
	if (n)
		frame_put_range(run, n);
	return freed;
}

void memfs_free_pages(struct inode *inode, uint64_t first, uint64_t last)
{
	memfs_uncharge(memfs_of(inode->super), free_owned(inode, first, last, NULL));
}

/* Drops [@first, @last) from the file and from everybody's view. Mapping locked. */
static void drop_pages(struct inode *inode, uint64_t first, uint64_t last)
{
	uint64_t low = lower_end(memfs_node(inode)), in_lower = 0, freed, unowned = 0;

	if (first >= last)
		return;
	mapping_zap(inode, first, last - first, true);
	freed = free_owned(inode, first, last, &in_lower);
	if (first < low)
		unowned = MIN(low, last) - first - in_lower;
	memfs_uncharge(memfs_of(inode->super), freed);
	__atomic_fetch_sub(&inode->blocks, (freed + unowned) * BLOCKS_PER_PAGE, __ATOMIC_RELAXED);
}

/* Zeroes [@from, @to) of one page, which becomes the file's own if it was the image's. */
static int zero_part_locked(struct inode *inode, uint64_t from, uint64_t to)
{
	uint64_t pgoff = from / PAGE_SIZE;
	size_t n = 1;
	gpa_t gpa;
	int err;

	switch (page_classify(inode, pgoff, &gpa, &n)) {
	case PAGE_LOWER:
		err = copy_up_page(inode, pgoff, &gpa);
		if (err)
			return err;
		break;
	case PAGE_ABSENT:
		return 0;
	default:
		break;
	}
	memset((char *)phys_ptr(gpa) + from % PAGE_SIZE, 0, to - from);
	return 0;
}

int memfs_truncate_locked(struct inode *inode, uint64_t size)
{
	struct memfs_node *node = memfs_node(inode);
	uint64_t old = inode_size(inode);
	int err = 0;

	if ((size < old && (node->seals & F_SEAL_SHRINK)) ||
	    (size > old && (node->seals & F_SEAL_GROW)))
		return -EPERM;
	if (size > INT64_MAX)
		return -EFBIG;
	if (size >= old) {
		if (size > old)
			zero_tail(inode, old);
		inode_set_size(inode, size);
		return 0;
	}
	mutex_lock(&inode->mapping.lock);
	/* First what can fail. */
	if (size % PAGE_SIZE)
		err = zero_part_locked(inode, size,
				       MIN(ALIGN_UP(size, PAGE_SIZE), ALIGN_UP(old, PAGE_SIZE)));
	if (!err) {
		inode_set_size(inode, size);
		drop_pages(inode, pages_of(size), pages_of(old));
		node->lower_size = MIN(node->lower_size, size);
	}
	mutex_unlock(&inode->mapping.lock);
	return err;
}

static int punch_locked(struct inode *inode, uint64_t from, uint64_t to)
{
	struct memfs_node *node = memfs_node(inode);
	uint64_t first = pages_of(from), last = to / PAGE_SIZE, low, i;
	int err = 0;

	if (from % PAGE_SIZE)
		err = zero_part_locked(inode, from, MIN(to, ALIGN_UP(from, PAGE_SIZE)));
	if (!err && to % PAGE_SIZE && to / PAGE_SIZE >= first)
		err = zero_part_locked(inode, ALIGN_DOWN(to, PAGE_SIZE), to);
	if (err || first >= last)
		return err;
	drop_pages(inode, first, last);
	low = lower_end(node);
	for (i = first; i < MIN(last, low) && !err; i++)
		err = radix_set(&inode->mapping.pages, i, MEMFS_HOLE);
	return err;
}

static int preallocate_locked(struct inode *inode, uint64_t from, uint64_t to)
{
	uint64_t pgoff = from / PAGE_SIZE, last = pages_of(to);

	while (pgoff < last) {
		size_t n = MIN(last - pgoff, EXTENT_PAGES);
		enum page_kind kind;
		gpa_t gpa;
		int err;

		mutex_lock(&inode->mapping.lock);
		kind = page_classify(inode, pgoff, &gpa, &n);
		err = kind == PAGE_ABSENT ? fill_hole(inode, pgoff, &n, &gpa) : 0;
		mutex_unlock(&inode->mapping.lock);
		if (err)
			return err;
		pgoff += n;
	}
	return 0;
}

static int memfs_fallocate_locked(struct inode *inode, int mode, uint64_t offset, uint64_t len)
{
	unsigned int seals = memfs_node(inode)->seals;
	uint64_t end = offset + len, size = inode_size(inode);
	int err = 0;

	if (mode & FALLOC_FL_PUNCH_HOLE) {
		if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
			return -EPERM;
		mutex_lock(&inode->mapping.lock);
		if (offset < size)
			err = punch_locked(inode, offset, MIN(end, ALIGN_UP(size, PAGE_SIZE)));
		mutex_unlock(&inode->mapping.lock);
		return err;
	}
	if (end > size && !(mode & FALLOC_FL_KEEP_SIZE) && (seals & F_SEAL_GROW))
		return -EPERM;
	err = preallocate_locked(inode, offset, end);
	if (!err && end > size && !(mode & FALLOC_FL_KEEP_SIZE)) {
		zero_tail(inode, size);
		inode_set_size(inode, end);
	}
	return err;
}

static int memfs_fallocate(struct file *file, int mode, uint64_t offset, uint64_t len)
{
	struct inode *inode = file->inode;
	int err;

	if (mode != 0 && mode != FALLOC_FL_KEEP_SIZE &&
	    mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	write_lock(&inode->lock);
	err = memfs_fallocate_locked(inode, mode, offset, len);
	if (!err)
		inode_touch(inode, INODE_MTIME | INODE_CTIME);
	write_unlock(&inode->lock);
	return err;
}

/* ---- the rest of the file's operations ---- */

/* SEEK_DATA and SEEK_HOLE over the pages. */
static int64_t seek_pages(struct inode *inode, uint64_t offset, bool data)
{
	uint64_t size = inode_size(inode), pgoff = offset / PAGE_SIZE, end = pages_of(size);
	int64_t pos = data ? -ENXIO : (int64_t)size;

	mutex_lock(&inode->mapping.lock);
	while (pgoff < end) {
		size_t n = end - pgoff;
		gpa_t gpa;

		if ((page_classify(inode, pgoff, &gpa, &n) != PAGE_ABSENT) == data) {
			pos = (int64_t)MAX(pgoff * PAGE_SIZE, offset);
			break;
		}
		pgoff += n;
	}
	mutex_unlock(&inode->mapping.lock);
	return pos > (int64_t)size ? (int64_t)size : pos;
}

static int64_t memfs_llseek(struct file *file, int64_t offset, int whence)
{
	struct inode *inode = file->inode;
	int64_t pos;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return file_llseek_generic(file, offset, whence);
	if (offset < 0 || (uint64_t)offset >= inode_size(inode))
		return -ENXIO;
	pos = seek_pages(inode, (uint64_t)offset, whence == SEEK_DATA);
	if (pos >= 0)
		file->pos = (uint64_t)pos;
	return pos;
}

static int memfs_mmap(struct file *file, bool shared, unsigned int prot)
{
	unsigned int seals = memfs_node(file->inode)->seals;

	if (shared && (prot & 2 /* PROT_WRITE */) && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)))
		return -EPERM;
	return 0;
}

static int memfs_fsync(struct file *file, bool datasync)
{
	return 0;
}

const struct file_ops memfs_file_fops = {
	.read = memfs_read,
	.write = memfs_write,
	.llseek = memfs_llseek,
	.mmap = memfs_mmap,
	.fsync = memfs_fsync,
	.fallocate = memfs_fallocate,
};
