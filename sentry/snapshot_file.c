/* SPDX-License-Identifier: Apache-2.0 */
/* Reading snapshots from files: see snapshot_file.h. */
#include "sentry/snapshot_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "sentry/lib/hostio.h"
#include "sentry/snapshot_image.h"

#define MAPPINGS_MAX 16384 /* the host allows 65530 for all of a process, unless told otherwise */
#define MAP_MIN	     8	   /* pages: fewer are copied about as fast as they are mapped */

static int bad(char *why, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int bad(char *why, size_t size, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, size, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* ---- the tree ---- */

static bool get_u64s(const void *fdt, int node, const char *name, uint64_t *v, size_t n)
{
	int len;
	const fdt64_t *p = fdt_getprop(fdt, node, name, &len);

	if (!p || len != (int)(n * sizeof(*p)))
		return false;
	for (size_t i = 0; i < n; i++)
		v[i] = fdt64_ld(&p[i]);
	return true;
}

/* Does the tree have the hash that it says? */
static bool check_hash(const struct snapshot_file *f, int node)
{
	uint8_t want[SNAPSHOT_HASH];
	XXH128_canonical_t got;
	int len;
	/* The tree is our own copy. */
	void *p = (void *)(uintptr_t)fdt_getprop(f->fdt, node, "hash", &len);

	if (!p || len != SNAPSHOT_HASH)
		return false;
	memcpy(want, p, sizeof(want));
	memset(p, 0, sizeof(want));
	XXH128_canonicalFromHash(&got, XXH3_128bits(f->fdt, f->fdt_size));
	memcpy(p, want, sizeof(want));
	return !memcmp(want, &got, sizeof(want));
}

static bool check_compatible(const struct snapshot_file *f, char *why, size_t size)
{
	int len;
	const char *s = fdt_getprop(f->fdt, 0, "compatible", &len);

	if (!s || len < 1 || strnlen(s, (size_t)len) != (size_t)len - 1 ||
	    strncmp(s, SNAPSHOT_FAMILY, strlen(SNAPSHOT_FAMILY))) {
		bad(why, size, "not a kvmsbox snapshot");
		return false;
	}
	if (strcmp(s, SNAPSHOT_COMPATIBLE)) {
		bad(why, size, "a snapshot of version %.20s, and this kvmsbox reads %s",
		    s + strlen(SNAPSHOT_FAMILY), SNAPSHOT_VERSION);
		return false;
	}
	return true;
}

/* The segments, in order and within what there is. */
static int get_segments(struct snapshot_file *f, int node)
{
	int len;
	const fdt32_t *p = fdt_getprop(f->fdt, node, "segments", &len);
	uint64_t from = IMAGE_META_SIZE / PAGE_SIZE, pages = f->data_size / PAGE_SIZE;
	size_t n = p ? (size_t)len / 12 : 0;

	if (!p || len % 12 || n > SNAPSHOT_SEGMENTS_MAX)
		return -EINVAL;
	f->segments = malloc((n + 1) * sizeof(*f->segments));
	if (!f->segments)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct snapshot_segment s = {fdt32_ld(&p[3 * i]), fdt32_ld(&p[3 * i + 1]),
					     fdt32_ld(&p[3 * i + 2])};

		if (!s.n || s.image < from || (uint64_t)s.image + s.n > IMAGE_SIZE / PAGE_SIZE ||
		    (uint64_t)s.data + s.n > pages)
			return -EINVAL;
		from = (uint64_t)s.image + s.n;
		f->segments[i] = s;
	}
	f->nr_segments = n;
	return 0;
}

static int get_file(struct snapshot_file *f, int node, char *why, size_t size)
{
	uint64_t created[2], data[2], pages[2];
	int len, err;
	const char *name = fdt_getprop(f->fdt, node, "sandbox", &len);

	if (!name || len < 1 || strnlen(name, (size_t)len) != (size_t)len - 1 ||
	    !get_u64s(f->fdt, node, "created", created, 2) ||
	    !get_u64s(f->fdt, node, "data", data, 2) || !get_u64s(f->fdt, node, "pages", pages, 2))
		return bad(why, size, "a damaged snapshot: its metadata is incomplete");
	f->name = name;
	f->created = created[0];
	f->data = data[0];
	f->data_size = data[1];
	f->stored = pages[0];
	f->shared = pages[1];
	if (f->data % PAGE_SIZE || f->data_size % PAGE_SIZE || f->data < f->fdt_size ||
	    f->data_size / PAGE_SIZE > UINT32_MAX || f->data > UINT64_MAX / 2 ||
	    f->stored != f->data_size / PAGE_SIZE)
		return bad(why, size, "a damaged snapshot: its sizes make no sense");
	if (f->data + f->data_size > f->size)
		return bad(why, size, "a truncated snapshot: %lu bytes of %lu", f->size,
			   f->data + f->data_size);
	f->chunks = fdt_getprop(f->fdt, node, "chunks", &len);
	f->nr_chunks = (f->data_size + SNAPSHOT_CHUNK - 1) / SNAPSHOT_CHUNK;
	if (!f->chunks || (uint64_t)len != f->nr_chunks * SNAPSHOT_HASH)
		return bad(why, size, "a damaged snapshot: its hashes are incomplete");
	err = get_segments(f, node);
	if (err == -ENOMEM)
		snprintf(why, size, "out of memory");
	else if (err)
		bad(why, size, "a damaged snapshot: its segments make no sense");
	return err;
}

int snapshot_file_parse(struct snapshot_file *f, void *fdt, size_t fdt_size, uint64_t size,
			char *why, size_t why_size)
{
	int node;

	*f = (struct snapshot_file){.fd = -1, .fdt = fdt, .fdt_size = fdt_size, .size = size};
	if (fdt_size < sizeof(struct fdt_header) || fdt_magic(fdt) != FDT_MAGIC)
		return bad(why, why_size, "not a kvmsbox snapshot");
	if (fdt_totalsize(fdt) != fdt_size || fdt_check_full(fdt, fdt_size))
		return bad(why, why_size, "a damaged snapshot: its metadata can't be read");
	if (!check_compatible(f, why, why_size))
		return -EINVAL;
	node = fdt_path_offset(fdt, "/file");
	if (node < 0 || !check_hash(f, node))
		return bad(why, why_size,
			   "a damaged snapshot: its metadata doesn't have the hash that it should");
	return get_file(f, node, why, why_size);
}

/* ---- the file ---- */

static int read_all(int fd, void *buf, size_t n, uint64_t offset)
{
	return pread_all(fd, buf, n, offset, -EIO);
}

/* Reads the tree of the open file @fd and checks it. */
static int read_tree(struct snapshot_file *f, int fd, uint64_t size, char *why, size_t why_size)
{
	struct fdt_header h;
	size_t total;
	void *fdt;
	int err;

	if (size < sizeof(h) || read_all(fd, &h, sizeof(h), 0) || fdt_magic(&h) != FDT_MAGIC)
		return bad(why, why_size, "not a kvmsbox snapshot");
	total = fdt_totalsize(&h);
	if (total < sizeof(h) || total > SNAPSHOT_META_MAX)
		return bad(why, why_size, "a damaged snapshot: its metadata can't be read");
	if (total > size)
		return bad(why, why_size,
			   "a truncated snapshot: %lu bytes, and its metadata alone has %zu", size,
			   total);
	fdt = malloc(total);
	err = fdt ? read_all(fd, fdt, total, 0) : -ENOMEM;
	if (err) {
		free(fdt);
		snprintf(why, why_size, "%s", strerror(-err));
		return err;
	}
	return snapshot_file_parse(f, fdt, total, size, why, why_size);
}

int snapshot_file_open(struct snapshot_file *f, const char *path, char *why, size_t why_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), err;
	struct stat st;

	*f = (struct snapshot_file){.fd = -1};
	if (fd < 0 || fstat(fd, &st)) {
		err = -errno;
		snprintf(why, why_size, "%s", strerror(errno));
		goto out_fd;
	}
	err = S_ISREG(st.st_mode) ? 0 : bad(why, why_size, "not a kvmsbox snapshot: not a file");
	if (!err)
		err = read_tree(f, fd, (uint64_t)st.st_size, why, why_size);
	if (!err) {
		f->fd = fd;
		return 0;
	}
	snapshot_file_close(f);
out_fd:
	if (fd >= 0)
		close(fd);
	return err;
}

void snapshot_file_close(struct snapshot_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f->fdt);
	free(f->segments);
	*f = (struct snapshot_file){.fd = -1};
}

int snapshot_file_verify(const struct snapshot_file *f, char *why, size_t why_size)
{
	uint8_t *buf = malloc(SNAPSHOT_CHUNK);
	int err = 0;

	if (!buf) {
		snprintf(why, why_size, "out of memory");
		return -ENOMEM;
	}
	for (size_t i = 0; i < f->nr_chunks && !err; i++) {
		uint64_t at = i * SNAPSHOT_CHUNK;
		size_t n = MIN(SNAPSHOT_CHUNK, f->data_size - at);
		XXH128_canonical_t hash;

		err = read_all(f->fd, buf, n, f->data + at);
		if (err) {
			snprintf(why, why_size, "can't read %zu bytes at %lu: %s", n, f->data + at,
				 strerror(-err));
			break;
		}
		XXH128_canonicalFromHash(&hash, XXH3_128bits(buf, n));
		if (memcmp(&hash, f->chunks + i * SNAPSHOT_HASH, sizeof(hash)))
			err = bad(why, why_size,
				  "a damaged snapshot: the %zu bytes at %lu don't have the hash "
				  "that they should",
				  n, f->data + at);
	}
	free(buf);
	return err;
}

/* ---- ranges ---- */

/* The first segment that ends after @page of the image. */
static size_t find_segment(const struct snapshot_file *f, uint64_t page)
{
	size_t low = 0, high = f->nr_segments;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if ((uint64_t)f->segments[mid].image + f->segments[mid].n <= page)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* A piece of a segment: in the image, in the file, bytes. */
struct piece {
	uint64_t image, file;
	size_t len;
};

/* What of segment @i lies in [start, end). False: nothing, and nothing of those behind it. */
static bool get_piece(const struct snapshot_file *f, size_t i, uint64_t start, uint64_t end,
		      struct piece *p)
{
	const struct snapshot_segment *s = &f->segments[i];
	uint64_t from, to;

	if (i >= f->nr_segments || (uint64_t)s->image * PAGE_SIZE >= end)
		return false;
	from = MAX((uint64_t)s->image * PAGE_SIZE, start);
	to = MIN(((uint64_t)s->image + s->n) * PAGE_SIZE, end);
	p->image = from;
	p->file = f->data + (uint64_t)s->data * PAGE_SIZE + (from - (uint64_t)s->image * PAGE_SIZE);
	p->len = to - from;
	return true;
}

int snapshot_file_for_data(const struct snapshot_file *f, uint64_t start, uint64_t end,
			   int (*fn)(void *arg, uint64_t offset, size_t len), void *arg)
{
	struct piece p;
	int err = 0;

	for (size_t i = find_segment(f, start / PAGE_SIZE); !err && get_piece(f, i, start, end, &p);
	     i++)
		err = fn(arg, p.image, p.len);
	return err;
}

int snapshot_file_read(const struct snapshot_file *f, uint64_t start, uint64_t end, void *to)
{
	uint64_t done = start;
	struct piece p;
	int err = 0;

	for (size_t i = find_segment(f, start / PAGE_SIZE); !err && get_piece(f, i, start, end, &p);
	     i++) {
		memset((uint8_t *)to + (done - start), 0, p.image - done);
		err = read_all(f->fd, (uint8_t *)to + (p.image - start), p.len, p.file);
		done = p.image + p.len;
	}
	if (!err)
		memset((uint8_t *)to + (done - start), 0, end - done);
	return err;
}

/* Runs of how many pages are mapped, so that they don't become too many. */
static uint32_t shortest_mapped(const struct snapshot_file *f)
{
	uint32_t shortest = MAP_MIN;

	for (;; shortest *= 2) {
		size_t n = 0;

		for (size_t i = 0; i < f->nr_segments; i++)
			n += f->segments[i].n >= shortest;
		if (n <= MAPPINGS_MAX)
			return shortest;
	}
}

int snapshot_file_map(const struct snapshot_file *f, uint64_t start, uint64_t end, void *at)
{
	uint64_t shortest = shortest_mapped(f) * PAGE_SIZE;
	struct piece p;
	int err = 0;

	if (mmap(at, end - start, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
		 0) == MAP_FAILED)
		return -errno;
	for (size_t i = find_segment(f, start / PAGE_SIZE); !err && get_piece(f, i, start, end, &p);
	     i++) {
		uint8_t *to = (uint8_t *)at + (p.image - start);

		if (p.len < shortest)
			err = read_all(f->fd, to, p.len, p.file);
		else if (mmap(to, p.len, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, f->fd,
			      (off_t)p.file) == MAP_FAILED)
			err = -errno;
	}
	return err;
}
