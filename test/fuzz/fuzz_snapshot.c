/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot's tree: refused with one line, or one whose segments lie within the file and the image,
 * in order, so that what is read and mapped by them does, too. The input is taken as it is; as the
 * values of a tree of the right form and hash; and as the image's own metadata.
 */
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "sentry/lib/physmem_frozen.h"
#include "sentry/lib/world.h"
#include "sentry/snapshot_file.h"
#include "sentry/snapshot_image.h"
#include "sentry/snapshot_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- what snapshot_meta.c asks of this process ---- */

static const uint8_t build_id[20] = "a build like others";

size_t snapshot_build_id(const uint8_t **id)
{
	*id = build_id;
	return sizeof(build_id);
}

void snapshot_cpu(uint64_t cpu[SNAPSHOT_CPU_WORDS])
{
	memset(cpu, 0, SNAPSHOT_CPU_WORDS * 8);
}

unsigned int world_statics(struct world_piece pieces[2])
{
	pieces[0] = (struct world_piece){(void *)0x10000, 4096};
	return 1;
}

/* Those of the half that makes trees aren't called. */
size_t arena_extent(void)
{
	abort();
}

gpa_t physmem_extent(void)
{
	abort();
}

void physmem_tables(gpa_t *from, gpa_t *to)
{
	abort();
}

gpa_t physmem_tables_free(void)
{
	abort();
}

size_t mm_copy_remote(struct mm *mm, uaddr_t addr, void *buf, size_t len, bool write, bool force)
{
	abort();
}

pid_t pid_nr(const struct pid *pid, const struct pid_ns *ns)
{
	abort();
}

/* ---- the checks ---- */

static void check_line(const char *why)
{
	if (!why[0] || strchr(why, '\n'))
		__builtin_trap();
}

static int check_range(void *arg, uint64_t offset, size_t len)
{
	uint64_t *end = arg;

	if (offset < *end || offset % PAGE_SIZE || !len || len % PAGE_SIZE ||
	    offset + len > IMAGE_SIZE)
		__builtin_trap();
	*end = offset + len;
	return 0;
}

/* Consumes @fdt. */
static void check_file(void *fdt, size_t fdt_size, uint64_t size)
{
	char why[256] = "";
	struct snapshot_file f;
	uint64_t end = IMAGE_META_SIZE;

	if (snapshot_file_parse(&f, fdt, fdt_size, size, why, sizeof(why))) {
		check_line(why);
		snapshot_file_close(&f);
		return;
	}
	if (f.data < fdt_size || f.data + f.data_size > size)
		__builtin_trap();
	for (size_t i = 0; i < f.nr_segments; i++) {
		const struct snapshot_segment *s = &f.segments[i];

		if (!s->n || ((uint64_t)s->data + s->n) * PAGE_SIZE > f.data_size)
			__builtin_trap();
	}
	if (snapshot_file_for_data(&f, IMAGE_META_SIZE, IMAGE_SIZE, check_range, &end))
		__builtin_trap();
	/* Through the middle of segments, too. */
	end = IMAGE_RAM + 5 * PAGE_SIZE;
	if (snapshot_file_for_data(&f, end, end + (1UL << 30), check_range, &end))
		__builtin_trap();
	snapshot_file_close(&f);
}

static void check_meta(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(IMAGE_META_SIZE);
	struct snapshot_meta m;
	char why[256] = "";

	memset(copy, 0, IMAGE_META_SIZE);
	memcpy(copy, data, size < IMAGE_META_SIZE ? size : IMAGE_META_SIZE);
	if (snapshot_meta_parse(copy, IMAGE_META_SIZE, &m, why, sizeof(why)))
		check_line(why);
	else if (strlen(m.root_path) > IMAGE_META_SIZE || strlen(m.platform) > IMAGE_META_SIZE ||
		 strlen(m.boot_id) > IMAGE_META_SIZE || m.arena > ARENA_SIZE ||
		 m.tables > IMAGE_TABLES_MAX || m.stdio[0] > SNAPSHOT_MAX_STDIO)
		__builtin_trap();
	free(copy);
}

struct input {
	const uint8_t *data;
	size_t size;
};

/* Takes @n bytes from the input; zeroes when there are no more. */
static void take(struct input *in, void *to, size_t n)
{
	size_t have = n < in->size ? n : in->size;

	memset(to, 0, n);
	memcpy(to, in->data, have);
	in->data += have;
	in->size -= have;
}

/* One byte of the input that says what is odd about a value: 255 is. */
static bool odd(struct input *in)
{
	uint8_t b;

	take(in, &b, 1);
	return b == 255;
}

/* A property of @n 64-bit cells: those in @v, or if the input says so its own. */
static int put_cells(void *fdt, struct input *in, const char *name, const uint64_t *v, int n)
{
	fdt64_t cells[4];

	for (int i = 0; i < n; i++)
		cells[i] = cpu_to_fdt64(v[i]);
	if (odd(in))
		take(in, cells, sizeof(cells));
	return fdt_property(fdt, name, cells, 8 * (odd(in) ? n - 1 : n));
}

static int put_string(void *fdt, struct input *in, const char *name)
{
	char s[16];

	take(in, s, sizeof(s));
	if (!odd(in))
		s[sizeof(s) - 1] = 0;
	return fdt_property(fdt, name, s, odd(in) ? sizeof(s) : (int)strnlen(s, 15) + 1);
}

/* Segments of small steps, now and then of any. */
static int put_segments(void *fdt, struct input *in)
{
	static fdt32_t cells[3 * 4096];
	uint32_t at = IMAGE_META_SIZE / PAGE_SIZE;
	size_t n = 0;

	for (; in->size && n < 4096; n++) {
		uint32_t any[3];
		uint8_t b[3];

		take(in, b, 3);
		at += b[0];
		if (b[0] == 254)
			at = IMAGE_RAM / PAGE_SIZE;
		cells[3 * n] = cpu_to_fdt32(at);
		cells[3 * n + 1] = cpu_to_fdt32(b[1]);
		cells[3 * n + 2] = cpu_to_fdt32(b[2]);
		at += b[2];
		if (b[0] != 255)
			continue;
		take(in, any, sizeof(any));
		memcpy(&cells[3 * n], any, sizeof(any));
	}
	return fdt_property(fdt, "segments", cells, (int)(n * 12));
}

static int put_image(void *fdt, struct input *in)
{
	static const uint64_t statics[2] = {0x10000, 4096}, tables = 4096, index[3] = {1, 2, 3};
	static const uint64_t none[4];
	int err;

	err = fdt_property(fdt, "build", build_id, odd(in) ? 19 : 20);
	err = err ?: put_cells(fdt, in, "cpu", none, 4);
	err = err ?: put_string(fdt, in, "platform");
	err = err ?: put_string(fdt, in, "boot-id");
	err = err ?: fdt_begin_node(fdt, "image");
	err = err ?: put_string(fdt, in, "path");
	err = err ?: put_cells(fdt, in, "size", &tables, 1);
	err = err ?: fdt_property(fdt, "hash", none, odd(in) ? 15 : 16);
	err = err ?: fdt_end_node(fdt);
	err = err ?: fdt_begin_node(fdt, "kernel");
	err = err ?: put_cells(fdt, in, "statics", statics, 2);
	err = err ?: put_cells(fdt, in, "arena", &tables, 1);
	err = err ?: fdt_end_node(fdt);
	err = err ?: fdt_begin_node(fdt, "memory");
	err = err ?: put_cells(fdt, in, "extent", &tables, 1);
	err = err ?: put_cells(fdt, in, "tables", &tables, 1);
	err = err ?: put_cells(fdt, in, "tables-free", &tables, 1);
	err = err ?: fdt_end_node(fdt);
	err = err ?: fdt_begin_node(fdt, "stdio");
	err = err ?: put_cells(fdt, in, "index", index, 3);
	return err ?: fdt_end_node(fdt);
}

static int put_file(void *fdt, struct input *in, uint64_t *file_size)
{
	uint64_t v[2] = {0, 0}, data[2];
	uint8_t b, chunks[64] = {0};
	int err = fdt_begin_node(fdt, "file");

	err = err ?: put_cells(fdt, in, "created", v, 2);
	err = err ?: put_string(fdt, in, "sandbox");
	take(in, &b, 1);
	data[0] = IMAGE_META_SIZE;
	data[1] = b * PAGE_SIZE;
	err = err ?: put_cells(fdt, in, "data", data, 2);
	*file_size = data[0] + data[1] - odd(in);
	v[0] = b;
	err = err ?: put_cells(fdt, in, "pages", v, 2);
	err = err ?: fdt_property(fdt, "chunks", chunks, odd(in) ? 64 : b ? 16 : 0);
	err = err ?: put_segments(fdt, in);
	err = err ?: fdt_property(fdt, "hash", chunks, 16);
	return err ?: fdt_end_node(fdt);
}

/* A tree of the right form and hash, whose values are the input. */
static void *make_tree(const uint8_t *data, size_t size, uint64_t *file_size)
{
	struct input in = {data, size};
	uint8_t *fdt = malloc(IMAGE_META_SIZE);
	XXH128_canonical_t hash;
	int err = fdt_create(fdt, IMAGE_META_SIZE);

	err = err ?: fdt_finish_reservemap(fdt);
	err = err ?: fdt_begin_node(fdt, "");
	err = err ?: fdt_property_string(fdt, "compatible", SNAPSHOT_COMPATIBLE);
	err = err ?: put_image(fdt, &in);
	err = err ?: put_file(fdt, &in, file_size);
	err = err ?: fdt_end_node(fdt);
	err = err ?: fdt_finish(fdt);
	if (err)
		__builtin_trap();
	XXH128_canonicalFromHash(&hash, XXH3_128bits(fdt, fdt_totalsize(fdt)));
	fdt_setprop_inplace(fdt, fdt_path_offset(fdt, "/file"), "hash", &hash, 16);
	return fdt;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	uint64_t file_size;
	void *fdt;

	memcpy(copy, data, size);
	check_file(copy, size, size + 65536);
	check_meta(data, size);
	fdt = make_tree(data, size, &file_size);
	check_meta(fdt, fdt_totalsize(fdt));
	check_file(fdt, fdt_totalsize(fdt), file_size);
	return 0;
}
