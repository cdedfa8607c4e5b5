/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots as files: what is stored of an image, and that it comes back the same; what is refused. */
#include <errno.h>
#include <fcntl.h>
#include <libfdt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sentry/snapshot_file.h"
#include "sentry/snapshot_image.h"
#include "test/unit/unit.h"

#define FIRST (IMAGE_META_SIZE / PAGE_SIZE)
#define PAGES 40000U /* of the image that tests use */

static uint8_t *image;

static uint8_t *page(uint32_t n)
{
	return image + (uint64_t)n * PAGE_SIZE;
}

/* An image without anything but a tree. */
static void reset(void)
{
	if (image)
		munmap(image, PAGES * PAGE_SIZE);
	image = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (image == MAP_FAILED)
		abort();
	if (fdt_create(image, IMAGE_META_SIZE) || fdt_finish_reservemap(image) ||
	    fdt_begin_node(image, "") ||
	    fdt_property_string(image, "compatible", SNAPSHOT_COMPATIBLE) ||
	    fdt_begin_node(image, "tasks") || fdt_property_u64(image, "threads", 3) ||
	    fdt_end_node(image) || fdt_end_node(image) || fdt_finish(image))
		abort();
}

static void fill(uint32_t n, uint32_t what)
{
	uint32_t *p = (void *)page(n);

	for (size_t i = 0; i < PAGE_SIZE / 4; i++)
		p[i] = what * 2654435761u + (uint32_t)i;
}

static bool build(struct snapshot_build *b)
{
	*b = (struct snapshot_build){.image = image};
	for (uint32_t n = FIRST; n < PAGES; n++) {
		if (snapshot_build_page(b, n))
			return false;
	}
	return true;
}

/* Writes the file of @b to @f, which has its descriptor. */
static bool write_file(const struct snapshot_build *b, struct snapshot_file *f, char why[256])
{
	int fd = memfd_create("snapshot", MFD_CLOEXEC);
	uint64_t data;
	size_t size;
	void *tree = snapshot_build_tree(b, image, "box", 1234567, &size, &data);

	if (!tree || fd < 0 || pwrite(fd, tree, size, 0) != (ssize_t)size ||
	    ftruncate(fd, (off_t)(data + b->nr_pages * PAGE_SIZE)))
		return false;
	for (size_t i = 0; i < b->nr_pages; i++) {
		if (pwrite(fd, page(b->pages[i]), PAGE_SIZE, (off_t)(data + i * PAGE_SIZE)) !=
		    (ssize_t)PAGE_SIZE)
			return false;
	}
	if (snapshot_file_parse(f, tree, size, data + b->nr_pages * PAGE_SIZE, why, 256))
		return false;
	f->fd = fd;
	return true;
}

/* What a file gives for pages [from, to) is what the image has. */
static bool same(const struct snapshot_file *f, uint32_t from, uint32_t to)
{
	uint64_t start = from * PAGE_SIZE, end = to * PAGE_SIZE;
	uint8_t *buf = malloc(end - start);
	void *at = mmap(NULL, end - start, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ok;

	memset(buf, 0xaa, end - start);
	ok = !snapshot_file_read(f, start, end, buf) && !memcmp(buf, page(from), end - start);
	munmap(at, end - start);
	ok = ok && !snapshot_file_map(f, start, end, at) && !memcmp(at, page(from), end - start);
	munmap(at, end - start);
	free(buf);
	return ok;
}

TEST(empty)
{
	struct snapshot_build b;
	struct snapshot_file f;
	char why[256];

	reset();
	CHECK(build(&b));
	CHECK(!b.nr_pages && !b.nr_segments && !b.shared);
	CHECK(write_file(&b, &f, why));
	CHECK(!f.nr_segments && !f.nr_chunks && f.created == 1234567 && !strcmp(f.name, "box"));
	CHECK(!snapshot_file_verify(&f, why, sizeof(why)));
	CHECK(same(&f, FIRST, FIRST + 100));
	snapshot_file_close(&f);
	snapshot_build_free(&b);
}

TEST(segments)
{
	struct snapshot_build b;

	reset();
	/* A run, a hole, a page that is zero but for its end, equal pages, an equal run. */
	for (uint32_t i = 0; i < 10; i++)
		fill(FIRST + 5 + i, i);
	page(FIRST + 20)[PAGE_SIZE - 1] = 1;
	fill(FIRST + 30, 3);
	fill(FIRST + 31, 3);
	for (uint32_t i = 0; i < 10; i++)
		fill(FIRST + 40 + i, i);
	CHECK(build(&b));
	CHECK(b.nr_pages == 11 && b.shared == 12);
	CHECK(b.nr_segments == 5);
	CHECK(b.segments[0].image == FIRST + 5 && b.segments[0].data == 0 && b.segments[0].n == 10);
	CHECK(b.segments[1].image == FIRST + 20 && b.segments[1].data == 10 &&
	      b.segments[1].n == 1);
	CHECK(b.segments[2].data == 3 && b.segments[2].n == 1);
	CHECK(b.segments[3].data == 3 && b.segments[3].n == 1);
	CHECK(b.segments[4].image == FIRST + 40 && b.segments[4].data == 0 &&
	      b.segments[4].n == 10);
	snapshot_build_free(&b);
}

static int add_len(void *arg, uint64_t offset, size_t len)
{
	*(uint64_t *)arg += len;
	return 0;
}

TEST(comes_back)
{
	struct snapshot_build b;
	struct snapshot_file f;
	uint64_t sum = 0;
	char why[256];

	reset();
	srand(1);
	/* Some 20000 pages in runs of all lengths, a third of them equal to others. */
	for (uint32_t n = FIRST; n < PAGES;) {
		uint32_t run = 1 + (uint32_t)rand() % (rand() % 8 ? 6 : 200);

		for (; run && n < PAGES; run--, n++)
			fill(n, rand() % 3 ? n : (uint32_t)rand() % 50);
		n += (uint32_t)rand() % 40;
	}
	CHECK(build(&b));
	CHECK(b.shared > 1000 && b.nr_segments > 1000);
	CHECK(write_file(&b, &f, why));
	CHECK(!snapshot_file_verify(&f, why, sizeof(why)));
	CHECK(same(&f, FIRST, PAGES));
	for (int i = 0; i < 200; i++) {
		uint32_t from = FIRST + (uint32_t)rand() % (PAGES - FIRST - 1);
		uint32_t to = from + 1 + (uint32_t)rand() % MIN(300u, PAGES - from);

		CHECK(same(&f, from, MIN(to, PAGES)));
	}
	CHECK(!snapshot_file_for_data(&f, 0, PAGES * PAGE_SIZE, add_len, &sum));
	CHECK(sum == (b.nr_pages + b.shared) * PAGE_SIZE);
	snapshot_file_close(&f);
	snapshot_build_free(&b);
}

TEST(too_many_runs)
{
	struct snapshot_build b;
	struct snapshot_file f;
	char why[256], line[512];
	long maps = 0;
	void *at;
	FILE *m;

	reset();
	/* 9 pages and a hole, nearly 4000 times: all are mapped. */
	for (uint32_t n = FIRST; n < PAGES; n++) {
		if (n % 10)
			fill(n, n);
	}
	CHECK(build(&b));
	CHECK(write_file(&b, &f, why));
	CHECK(same(&f, FIRST, PAGES));
	snapshot_file_close(&f);
	snapshot_build_free(&b);
	/* Pages one by one: none is. */
	reset();
	for (uint32_t n = FIRST; n < PAGES; n += 2)
		fill(n, n);
	CHECK(build(&b));
	CHECK(write_file(&b, &f, why));
	at = mmap(NULL, PAGES * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(at, PAGES * PAGE_SIZE);
	CHECK(!snapshot_file_map(&f, 0, PAGES * PAGE_SIZE, at));
	CHECK(!memcmp((uint8_t *)at + IMAGE_META_SIZE, page(FIRST), (PAGES - FIRST) * PAGE_SIZE));
	m = fopen("/proc/self/maps", "re");
	while (m && fgets(line, sizeof(line), m))
		maps++;
	fclose(m);
	CHECK(maps < 1000);
	munmap(at, PAGES * PAGE_SIZE);
	snapshot_file_close(&f);
	snapshot_build_free(&b);
}

TEST(data_is_watched)
{
	struct snapshot_build b;
	struct snapshot_file f;
	char why[256];
	uint8_t byte;

	reset();
	for (uint32_t i = 0; i < 700; i++)
		fill(FIRST + i, i);
	CHECK(build(&b));
	CHECK(write_file(&b, &f, why));
	CHECK(f.nr_chunks == 3);
	for (int i = 0; i < 5; i++) {
		off_t at = (off_t)(f.data + (uint64_t)i * (f.data_size - 1) / 4);

		CHECK(pread(f.fd, &byte, 1, at) == 1);
		byte ^= 0x10;
		CHECK(pwrite(f.fd, &byte, 1, at) == 1);
		CHECK(snapshot_file_verify(&f, why, sizeof(why)) == -EINVAL);
		CHECK(strstr(why, "don't have the hash") && !strchr(why, '\n'));
		byte ^= 0x10;
		CHECK(pwrite(f.fd, &byte, 1, at) == 1);
		CHECK(!snapshot_file_verify(&f, why, sizeof(why)));
	}
	CHECK(!ftruncate(f.fd, (off_t)(f.data + f.data_size - 1)));
	CHECK(snapshot_file_verify(&f, why, sizeof(why)) && strstr(why, "can't read"));
	snapshot_file_close(&f);
	snapshot_build_free(&b);
}

TEST(tree_is_watched)
{
	struct snapshot_build b;
	struct snapshot_file f;
	char why[256];
	uint64_t data;
	size_t size;
	uint8_t *tree;

	reset();
	fill(FIRST, 1);
	CHECK(build(&b));
	tree = snapshot_build_tree(&b, image, "box", 1, &size, &data);
	CHECK(tree);
	/* Every bit of it. */
	for (size_t i = 0; i < size * 8; i++) {
		uint8_t *copy = malloc(size);

		memcpy(copy, tree, size);
		copy[i / 8] ^= (uint8_t)(1 << (i % 8));
		why[0] = 0;
		if (!snapshot_file_parse(&f, copy, size, data + PAGE_SIZE, why, sizeof(why)) ||
		    !why[0] || strchr(why, '\n')) {
			printf("# bit %zu\n", i);
			CHECK(false);
		}
		snapshot_file_close(&f);
	}
	/* Every length. */
	for (size_t i = 0; i < size; i++) {
		uint8_t *copy = malloc(i + 1);

		memcpy(copy, tree, i);
		CHECK(snapshot_file_parse(&f, copy, i, data + PAGE_SIZE, why, sizeof(why)) ==
		      -EINVAL);
		snapshot_file_close(&f);
	}
	CHECK(snapshot_file_parse(&f, tree, size, data + PAGE_SIZE - 1, why, sizeof(why)) ==
	      -EINVAL);
	CHECK(strstr(why, "truncated"));
	snapshot_file_close(&f);
	snapshot_build_free(&b);
}

/* A sandbox may send any tree: no more than so deep. */
TEST(deep_tree)
{
	struct snapshot_build b;
	uint64_t data;
	size_t size;

	reset();
	CHECK(build(&b));
	CHECK(!fdt_create(image, IMAGE_META_SIZE) && !fdt_finish_reservemap(image));
	for (int i = 0; i < 30; i++)
		CHECK(!fdt_begin_node(image, i ? "x" : ""));
	for (int i = 0; i < 30; i++)
		CHECK(!fdt_end_node(image));
	CHECK(!fdt_finish(image));
	CHECK(!snapshot_build_tree(&b, image, "box", 1, &size, &data));
	snapshot_build_free(&b);
}

int main(void)
{
	return unit_run();
}
