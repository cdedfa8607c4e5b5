/* SPDX-License-Identifier: Apache-2.0 */
/* From an image to what a file of it holds: see snapshot_file.h. */
#include <errno.h>
#include <libfdt.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "sentry/lib/page.h"
#include "sentry/snapshot_file.h"
#include "sentry/snapshot_image.h"

#define TREE_DEPTH 8 /* of the image's */

static const uint8_t *image_page(const struct snapshot_build *b, uint32_t page)
{
	return b->image + (uint64_t)page * PAGE_SIZE;
}

/* ---- equal pages ---- */

/* Where in the table @hash is looked for first. */
static size_t first_slot(const struct snapshot_build *b, uint64_t hash)
{
	return (size_t)hash & (b->table_size - 1);
}

static void enter(struct snapshot_build *b, uint64_t hash, uint32_t place)
{
	size_t i = first_slot(b, hash);

	while (b->table[i])
		i = (i + 1) & (b->table_size - 1);
	b->table[i] = place + 1;
	b->hashes[i] = hash;
}

/* Twice as large; at most half of it is used. */
static int grow_table(struct snapshot_build *b)
{
	size_t old_size = b->table_size, size = old_size ? old_size * 2 : 4096;
	uint32_t *table = calloc(size, sizeof(*table)), *old = b->table;
	uint64_t *hashes = malloc(size * sizeof(*hashes)), *old_hashes = b->hashes;

	if (!table || !hashes) {
		free(table);
		free(hashes);
		return -ENOMEM;
	}
	b->table = table;
	b->hashes = hashes;
	b->table_size = size;
	for (size_t i = 0; i < old_size; i++) {
		if (old[i])
			enter(b, old_hashes[i], old[i] - 1);
	}
	free(old);
	free(old_hashes);
	return 0;
}

/* The place of an equal page in the data, or -1. */
static long find_equal(const struct snapshot_build *b, uint64_t hash, const uint8_t *page)
{
	for (size_t i = first_slot(b, hash); b->table_size && b->table[i];
	     i = (i + 1) & (b->table_size - 1)) {
		uint32_t place = b->table[i] - 1;

		if (b->hashes[i] == hash &&
		    !memcmp(image_page(b, b->pages[place]), page, PAGE_SIZE))
			return place;
	}
	return -1;
}

/* Appends @page to the data. Its place, or -ENOMEM. */
static long add_data(struct snapshot_build *b, uint32_t page, uint64_t hash)
{
	if (b->nr_pages == b->cap_pages) {
		size_t cap = b->cap_pages ? b->cap_pages * 2 : 4096;
		uint32_t *v = realloc(b->pages, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		b->pages = v;
		b->cap_pages = cap;
	}
	if (b->nr_pages * 2 >= b->table_size && grow_table(b))
		return -ENOMEM;
	b->pages[b->nr_pages] = page;
	enter(b, hash, (uint32_t)b->nr_pages);
	return (long)b->nr_pages++;
}

/* ---- segments ---- */

static int add_segment(struct snapshot_build *b, uint32_t image, uint32_t data)
{
	struct snapshot_segment *last = b->nr_segments ? &b->segments[b->nr_segments - 1] : NULL;

	if (last && last->image + last->n == image && last->data + last->n == data) {
		last->n++;
		return 0;
	}
	if (b->nr_segments == b->cap_segments) {
		size_t cap = b->cap_segments ? b->cap_segments * 2 : 1024;
		struct snapshot_segment *v = realloc(b->segments, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		b->segments = v;
		b->cap_segments = cap;
	}
	b->segments[b->nr_segments++] = (struct snapshot_segment){image, data, 1};
	return 0;
}

int snapshot_build_page(struct snapshot_build *b, uint32_t page)
{
	const uint8_t *p = image_page(b, page);
	uint64_t hash;
	long place;

	if (page_is_zero(p))
		return 0;
	hash = XXH3_64bits(p, PAGE_SIZE);
	place = find_equal(b, hash, p);
	if (place >= 0)
		b->shared++;
	else
		place = add_data(b, page, hash);
	return place < 0 ? (int)place : add_segment(b, page, (uint32_t)place);
}

void snapshot_build_free(struct snapshot_build *b)
{
	free(b->segments);
	free(b->pages);
	free(b->table);
	free(b->hashes);
	*b = (struct snapshot_build){0};
}

/* ---- the tree ---- */

static int put_u64s(void *fdt, const char *name, const uint64_t *v, size_t n)
{
	fdt64_t cells[8];

	for (size_t i = 0; i < n; i++)
		cells[i] = cpu_to_fdt64(v[i]);
	return fdt_property(fdt, name, cells, (int)(n * sizeof(cells[0])));
}

/* What is in @node of @from, without the node itself. */
static int copy_node(void *fdt, const void *from, int node, unsigned int depth)
{
	int prop, child, err = 0;

	if (depth > TREE_DEPTH)
		return -FDT_ERR_BADSTRUCTURE;
	fdt_for_each_property_offset(prop, from, node)
	{
		const char *name;
		int len;
		const void *value = fdt_getprop_by_offset(from, prop, &name, &len);

		err = err ?: value ? fdt_property(fdt, name, value, len) : -FDT_ERR_BADSTRUCTURE;
	}
	fdt_for_each_subnode (child, from, node) {
		const char *name = fdt_get_name(from, child, NULL);

		err = err ?: name ? fdt_begin_node(fdt, name) : -FDT_ERR_BADSTRUCTURE;
		err = err ?: copy_node(fdt, from, child, depth + 1);
		err = err ?: fdt_end_node(fdt);
	}
	return err;
}

static int put_segments(void *fdt, const struct snapshot_build *b)
{
	fdt32_t *cells;
	void *p;
	int err = fdt_property_placeholder(fdt, "segments", (int)(b->nr_segments * 12), &p);

	cells = p;
	for (size_t i = 0; i < b->nr_segments && !err; i++) {
		fdt32_st(&cells[3 * i], b->segments[i].image);
		fdt32_st(&cells[3 * i + 1], b->segments[i].data);
		fdt32_st(&cells[3 * i + 2], b->segments[i].n);
	}
	return err;
}

/* The hashes of the data, piece by piece. */
static int put_chunks(void *fdt, const struct snapshot_build *b, XXH3_state_t *state)
{
	const size_t per = SNAPSHOT_CHUNK / PAGE_SIZE;
	size_t n = (b->nr_pages + per - 1) / per;
	uint8_t *out;
	void *p;
	int err = fdt_property_placeholder(fdt, "chunks", (int)(n * SNAPSHOT_HASH), &p);

	out = p;
	for (size_t i = 0; i < n && !err; i++) {
		XXH128_canonical_t hash;

		XXH3_128bits_reset(state);
		for (size_t k = i * per; k < MIN((i + 1) * per, b->nr_pages); k++)
			XXH3_128bits_update(state, image_page(b, b->pages[k]), PAGE_SIZE);
		XXH128_canonicalFromHash(&hash, XXH3_128bits_digest(state));
		memcpy(out + i * SNAPSHOT_HASH, &hash, SNAPSHOT_HASH);
	}
	return err;
}

static int put_file(void *fdt, const struct snapshot_build *b, const char *name, uint64_t seconds,
		    uint64_t data, XXH3_state_t *state)
{
	const uint8_t no_hash[SNAPSHOT_HASH] = {0};
	uint64_t v[2] = {seconds, 0};
	int err;

	err = fdt_begin_node(fdt, "file");
	err = err ?: put_u64s(fdt, "created", v, 2);
	err = err ?: fdt_property_string(fdt, "sandbox", name);
	v[0] = data;
	v[1] = b->nr_pages * PAGE_SIZE;
	err = err ?: put_u64s(fdt, "data", v, 2);
	v[0] = b->nr_pages;
	v[1] = b->shared;
	err = err ?: put_u64s(fdt, "pages", v, 2);
	err = err ?: put_segments(fdt, b);
	err = err ?: put_chunks(fdt, b, state);
	err = err ?: fdt_property(fdt, "hash", no_hash, SNAPSHOT_HASH);
	return err ?: fdt_end_node(fdt);
}

/* Puts the tree's hash into it. */
static int seal(void *fdt)
{
	XXH128_canonical_t hash;
	int node = fdt_path_offset(fdt, "/file");

	XXH128_canonicalFromHash(&hash, XXH3_128bits(fdt, fdt_totalsize(fdt)));
	return node < 0 ? node : fdt_setprop_inplace(fdt, node, "hash", &hash, SNAPSHOT_HASH);
}

void *snapshot_build_tree(const struct snapshot_build *b, const void *meta, const char *name,
			  uint64_t seconds, size_t *size, uint64_t *data)
{
	size_t room = IMAGE_META_SIZE + strlen(name) + b->nr_segments * 12 +
		      (b->nr_pages * PAGE_SIZE / SNAPSHOT_CHUNK + 1) * SNAPSHOT_HASH + 4096;
	XXH3_state_t *state = XXH3_createState();
	void *fdt = room <= SNAPSHOT_META_MAX ? malloc(room) : NULL;
	int err;

	if (!fdt || !state)
		goto out_free;
	*data = ALIGN_UP((uint64_t)room, (uint64_t)PAGE_SIZE);
	err = fdt_create(fdt, (int)room);
	err = err ?: fdt_finish_reservemap(fdt);
	err = err ?: fdt_begin_node(fdt, "");
	err = err ?: copy_node(fdt, meta, 0, 0);
	err = err ?: put_file(fdt, b, name, seconds, *data, state);
	err = err ?: fdt_end_node(fdt);
	err = err ?: fdt_finish(fdt);
	err = err ?: seal(fdt);
	if (err)
		goto out_free;
	XXH3_freeState(state);
	*size = fdt_totalsize(fdt);
	return fdt;

out_free:
	XXH3_freeState(state);
	free(fdt);
	return NULL;
}
