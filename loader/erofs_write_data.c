/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File data of an EROFS image under construction.
 *
 * A file's blocks are appended as they come and hashed one by one. When the file ends, what to keep
 * is decided from the hashes (and checked by comparing bytes, so a hash collision costs nothing):
 *
 *   an equal contiguous file exists      its blocks are used, ours are forgotten
 *   holes, or 1/8 of the blocks known    the new blocks move together, the inode gets a table
 *   else                                 the blocks stay as they are
 *
 * What is a hole in the table of a file points to one block of zeroes, like any other block of
 * zeroes: it can be mapped, and fsck.erofs 1.5 loses holes when it extracts. Only files so large
 * that their chunks are larger than a block (4 GiB) have holes in the image.
 */
#include "loader/erofs_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "loader/erofs_write_internal.h"
#include "sentry/lib/hostio.h"

#define MAX_CHUNKS  (1U << 20) /* of one file: larger ones get larger chunks */
#define COMPARE_RUN 16U	       /* blocks */
#define SAVING_PAYS 8U	       /* a table if 1/8 of the blocks needn't be stored */

/* ---- blocks of the output ---- */

int store_flush(struct block_store *s)
{
	size_t len = (size_t)(s->next - s->buf_start) << EROFS_BLKSZBITS;
	int err = pwrite_all(s->fd, s->buf, len, (uint64_t)s->buf_start << EROFS_BLKSZBITS);

	if (!err)
		s->buf_start = s->next;
	return err;
}

uint8_t *store_slot(struct block_store *s, int *err)
{
	*err = 0;
	if (s->next - s->buf_start == STORE_BUF_BLOCKS)
		*err = store_flush(s);
	return *err ? NULL : s->buf + ((size_t)(s->next - s->buf_start) << EROFS_BLKSZBITS);
}

int store_push(struct block_store *s)
{
	const uint8_t *slot = s->buf + ((size_t)(s->next - s->buf_start) << EROFS_BLKSZBITS);

	if (s->next == s->hashes_cap) {
		size_t cap = s->hashes_cap ? s->hashes_cap * 2 : 1024;
		uint64_t *grown;

		if (s->next >= UINT32_MAX / 2)
			return -EFBIG;
		grown = realloc(s->hashes, cap * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		s->hashes = grown;
		s->hashes_cap = cap;
	}
	s->hashes[s->next++] = XXH3_64bits(slot, EROFS_BLKSIZ);
	return 0;
}

int store_read(struct block_store *s, uint32_t block, uint8_t *buf, uint32_t n)
{
	uint64_t pos = (uint64_t)block << EROFS_BLKSZBITS;
	uint32_t on_disk = block < s->buf_start ? MIN(n, s->buf_start - block) : 0;
	size_t want = (size_t)on_disk << EROFS_BLKSZBITS;

	if (on_disk < n)
		memcpy(buf + want,
		       s->buf + ((size_t)(block + on_disk - s->buf_start) << EROFS_BLKSZBITS),
		       (size_t)(n - on_disk) << EROFS_BLKSZBITS);
	while (want) {
		ssize_t r = pread(s->fd, buf, want, (off_t)pos);

		if (r <= 0) {
			if (r < 0 && errno == EINTR)
				continue;
			return r < 0 ? -errno : -EIO;
		}
		buf += r;
		pos += (uint64_t)r;
		want -= (size_t)r;
	}
	return 0;
}

int store_write(struct block_store *s, uint32_t block, const uint8_t *buf)
{
	if (block < s->buf_start)
		return pwrite_all(s->fd, buf, EROFS_BLKSIZ, (uint64_t)block << EROFS_BLKSZBITS);
	memcpy(s->buf + ((size_t)(block - s->buf_start) << EROFS_BLKSZBITS), buf, EROFS_BLKSIZ);
	return 0;
}

void store_truncate(struct block_store *s, uint32_t next)
{
	s->next = next;
	if (s->buf_start > next)
		s->buf_start = next;
}

int store_set_first(struct block_store *s, const uint8_t *block)
{
	s->hashes[0] = XXH3_64bits(block, EROFS_BLKSIZ);
	return pwrite_all(s->fd, block, EROFS_BLKSIZ, 0);
}

/* 1 if the @n blocks from @a and @b on are the same, 0 if not, -errno. */
static int store_equal(struct block_store *s, uint32_t a, uint32_t b, uint32_t n)
{
	uint8_t x[COMPARE_RUN * EROFS_BLKSIZ], y[COMPARE_RUN * EROFS_BLKSIZ];

	if (memcmp(s->hashes + a, s->hashes + b, n * sizeof(*s->hashes)))
		return 0;
	while (n) {
		uint32_t run = MIN(n, COMPARE_RUN);
		int err = store_read(s, a, x, run);

		if (!err)
			err = store_read(s, b, y, run);
		if (err)
			return err;
		if (memcmp(x, y, (size_t)run << EROFS_BLKSZBITS))
			return 0;
		a += run;
		b += run;
		n -= run;
	}
	return 1;
}

/* ---- hash to block ---- */

static size_t map_place(const struct block_map *m, uint64_t key)
{
	size_t i = (size_t)key & (m->cap - 1);

	while (m->keys[i] && m->keys[i] != key)
		i = (i + 1) & (m->cap - 1);
	return i;
}

/* The block, or 0: there is none. */
static uint32_t map_get(const struct block_map *m, uint64_t key)
{
	if (!m->cap)
		return 0;
	key = key ? key : 1;
	return m->blocks[map_place(m, key)];
}

static int map_grow(struct block_map *m)
{
	struct block_map grown = {.cap = m->cap ? m->cap * 2 : 1024, .used = m->used};

	grown.keys = calloc(grown.cap, sizeof(*grown.keys));
	grown.blocks = calloc(grown.cap, sizeof(*grown.blocks));
	if (!grown.keys || !grown.blocks) {
		free(grown.keys);
		free(grown.blocks);
		return -ENOMEM;
	}
	for (size_t i = 0; i < m->cap; i++) {
		if (m->keys[i]) {
			size_t at = map_place(&grown, m->keys[i]);

			grown.keys[at] = m->keys[i];
			grown.blocks[at] = m->blocks[i];
		}
	}
	free(m->keys);
	free(m->blocks);
	*m = grown;
	return 0;
}

static int map_set(struct block_map *m, uint64_t key, uint32_t block)
{
	size_t i;

	if (m->used * 4 >= m->cap * 3) {
		int err = map_grow(m);

		if (err)
			return err;
	}
	key = key ? key : 1;
	i = map_place(m, key);
	if (!m->keys[i])
		m->used++;
	m->keys[i] = key;
	m->blocks[i] = block;
	return 0;
}

/* ---- one file ---- */

static uint64_t blocks_of(uint64_t size)
{
	return (size + EROFS_BLKSIZ - 1) >> EROFS_BLKSZBITS;
}

int erofs_data_begin(struct erofs_writer *w, uint64_t size)
{
	struct data_state *d = &w->data;

	if (size > EROFS_MAX_FILE)
		return -EFBIG;
	d->open = true;
	d->gap = d->filling = false;
	d->size = size;
	d->pos = 0;
	d->base = w->store.next;
	d->chunk_bits = 0;
	while (blocks_of(size) >> d->chunk_bits > MAX_CHUNKS)
		d->chunk_bits++;
	return 0;
}

/* Appends the block that was being filled, which is block d->current of the file. */
static int data_push(struct erofs_writer *w)
{
	struct data_state *d = &w->data;
	size_t n = w->store.next - d->base;

	if (n == d->index_cap) {
		size_t cap = d->index_cap ? d->index_cap * 2 : 1024;
		uint32_t *grown = realloc(d->index, cap * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		d->index = grown;
		d->index_cap = cap;
	}
	d->index[n] = d->current;
	d->filling = false;
	return store_push(&w->store);
}

static int data_push_zero(struct erofs_writer *w, uint32_t index)
{
	int err;
	uint8_t *slot = store_slot(&w->store, &err);

	if (!slot)
		return err;
	memset(slot, 0, EROFS_BLKSIZ);
	w->data.current = index;
	return data_push(w);
}

/* The file block behind the last one appended. */
static uint32_t data_next(const struct erofs_writer *w)
{
	uint32_t n = w->store.next - w->data.base;

	return n ? w->data.index[n - 1] + 1 : 0;
}

/* Makes @index the block to fill. Whole chunks are stored, so a chunk's rest becomes zeroes. */
static int data_seek(struct erofs_writer *w, uint32_t index)
{
	struct data_state *d = &w->data;
	uint32_t mask = (1U << d->chunk_bits) - 1, next;
	uint8_t *slot;
	int err = 0;

	if (d->filling)
		err = data_push(w);
	if (err)
		return err;
	next = data_next(w);
	if (index > next) {
		while (!err && (next & mask) && next < index)
			err = data_push_zero(w, next++);
		if (!err && next < (index & ~mask)) {
			d->gap = true;
			next = index & ~mask;
		}
		while (!err && next < index)
			err = data_push_zero(w, next++);
		if (err)
			return err;
	}
	slot = store_slot(&w->store, &err);
	if (!slot)
		return err;
	memset(slot, 0, EROFS_BLKSIZ);
	d->current = index;
	d->filling = true;
	return 0;
}

int erofs_data_write(struct erofs_writer *w, uint64_t pos, const void *data, size_t len)
{
	struct data_state *d = &w->data;
	const uint8_t *p = data;
	int err;

	if (pos < d->pos || pos > d->size || len > d->size - pos)
		return -EINVAL;
	while (len) {
		uint32_t index = (uint32_t)(pos >> EROFS_BLKSZBITS);
		size_t off = (size_t)(pos & (EROFS_BLKSIZ - 1));
		size_t n = MIN(EROFS_BLKSIZ - off, len);
		uint8_t *slot;

		if (!d->filling || d->current != index) {
			err = data_seek(w, index);
			if (err)
				return err;
		}
		slot = store_slot(&w->store, &err);
		if (!slot)
			return err;
		memcpy(slot + off, p, n);
		p += n;
		pos += n;
		len -= n;
	}
	d->pos = pos;
	return 0;
}

/* ---- what becomes of the blocks ---- */

#define INDEX_HOLES UINT32_MAX /* a block of zeroes for all the file's holes */

/* The key of a file without holes: its size and its blocks. */
static uint64_t file_key(const struct erofs_writer *w, uint32_t n)
{
	return XXH3_64bits_withSeed(w->store.hashes + w->data.base, n * sizeof(uint64_t),
				    w->data.size);
}

/* Finds a contiguous file with the same blocks. 1 found, 0, -errno. */
static int find_file(struct erofs_writer *w, uint64_t key, uint32_t n, uint32_t *start)
{
	*start = map_get(&w->files, key);
	if (!*start || *start + n > w->data.base)
		return 0;
	return store_equal(&w->store, *start, w->data.base, n);
}

/*
 * Fills @place: for each of the @n blocks where its contents already lie (before the file or
 * earlier in it), or its own block. New contents are made known. Returns how many blocks needn't be
 * stored, or -errno.
 */
static long place_blocks(struct erofs_writer *w, uint32_t n, uint32_t *place)
{
	struct block_store *s = &w->store;
	long saved = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t own = w->data.base + i, known = map_get(&w->blocks, s->hashes[own]);
		int r;

		place[i] = own;
		if (known)
			r = store_equal(s, known, own, 1);
		else
			r = map_set(&w->blocks, s->hashes[own], own);
		if (r < 0)
			return r;
		if (known && r) {
			place[i] = known;
			saved++;
		}
	}
	return saved;
}

/* Moves the blocks that stay together; @place becomes final. */
static int compact(struct erofs_writer *w, uint32_t n, uint32_t *place)
{
	struct block_store *s = &w->store;
	uint32_t base = w->data.base, next = base;
	uint8_t buf[EROFS_BLKSIZ];
	int err;

	for (uint32_t i = 0; i < n; i++) {
		if (place[i] != base + i) {
			if (place[i] >= base)
				place[i] = place[place[i] - base];
			continue;
		}
		if (next != base + i) {
			err = store_read(s, base + i, buf, 1);
			if (!err)
				err = store_write(s, next, buf);
			if (!err && map_get(&w->blocks, s->hashes[base + i]) == base + i)
				err = map_set(&w->blocks, s->hashes[base + i], next);
			if (err)
				return err;
			s->hashes[next] = s->hashes[base + i];
		}
		place[i] = next++;
	}
	store_truncate(s, next);
	return 0;
}

/* Gives @file its chunk table: for chunk_bits > 0 whole chunks were stored. */
static int set_chunks(struct erofs_writer *w, struct enode *file, uint32_t n, const uint32_t *place)
{
	struct data_state *d = &w->data;
	uint32_t count =
		(uint32_t)((blocks_of(d->size) + (1U << d->chunk_bits) - 1) >> d->chunk_bits);
	uint32_t *chunks, hole = EROFS_NULL_ADDR;
	int err = writer_charge(w, count * sizeof(*chunks));

	if (err)
		return err;
	chunks = malloc(count * sizeof(*chunks));
	if (!chunks) {
		w->meta_bytes -= count * sizeof(*chunks);
		return -ENOMEM;
	}
	if (n && d->index[n - 1] == INDEX_HOLES)
		hole = place[--n];
	for (uint32_t i = 0; i < count; i++)
		chunks[i] = hole;
	for (uint32_t i = 0; i < n; i++) {
		if (!(d->index[i] & ((1U << d->chunk_bits) - 1)))
			chunks[d->index[i] >> d->chunk_bits] = place[i];
	}
	file->file.chunks = chunks;
	file->file.nchunks = count;
	file->chunk_bits = d->chunk_bits;
	file->layout = EROFS_CHUNK_BASED;
	w->chunked = true;
	return 0;
}

/* Decides for a file of @n > 0 stored blocks or with holes. */
static int data_settle(struct erofs_writer *w, struct enode *file, uint32_t n)
{
	struct data_state *d = &w->data;
	uint64_t key = file_key(w, n);
	uint32_t *place;
	long saved;
	int err;

	if (!d->gap) {
		err = find_file(w, key, n, &file->start);
		if (err < 0)
			return err;
		if (err) {
			store_truncate(&w->store, d->base);
			return 0;
		}
	}
	place = malloc((n ? n : 1) * sizeof(*place));
	if (!place)
		return -ENOMEM;
	if (d->chunk_bits) {
		for (uint32_t i = 0; i < n; i++)
			place[i] = d->base + i;
		saved = 0;
	} else {
		saved = place_blocks(w, n, place);
	}
	err = saved < 0 ? (int)saved : 0;
	if (err)
		goto out;
	if (d->gap || (uint64_t)saved * SAVING_PAYS >= n) {
		err = compact(w, n, place);
		if (!err)
			err = set_chunks(w, file, n, place);
	} else {
		file->start = d->base;
		err = map_set(&w->files, key, d->base);
	}
out:
	free(place);
	return err;
}

int erofs_data_end(struct erofs_writer *w, struct enode *file)
{
	struct data_state *d = &w->data;
	uint32_t blocks = (uint32_t)blocks_of(d->size), mask = (1U << d->chunk_bits) - 1, next;
	int err = 0;

	if (d->filling)
		err = data_push(w);
	/* What follows the last piece is a hole, but a chunk is stored whole. */
	next = data_next(w);
	while (!err && (next & mask) && next < blocks)
		err = data_push_zero(w, next++);
	if (err)
		return err;
	if (next < blocks)
		d->gap = true;
	if (d->gap && !d->chunk_bits) {
		err = data_push_zero(w, INDEX_HOLES);
		if (err)
			return err;
	}
	d->open = false;
	file->layout = EROFS_FLAT_PLAIN;
	if (blocks)
		err = data_settle(w, file, w->store.next - d->base);
	if (err)
		return err;
	file->size = d->size;
	w->stats.file_bytes += d->size;
	return 0;
}
