/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages a stub has mapped: a bit per page, in regions of one leaf table's span. It is exact
 * and belongs to the stub process, so it doesn't matter where else a page-table entry was copied
 * to. Regions are found by open addressing; one whose bits are all clear is dropped when the table
 * grows.
 */
#include "platform/stub/stub.h"

#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"

#define MIN_SLOTS 16

static uint64_t key_of(uaddr_t va)
{
	return va / PT_LEAF_SPAN + 1;
}

static uaddr_t base_of(uint64_t key)
{
	return (key - 1) * PT_LEAF_SPAN;
}

/* The slot of @key, or the free one where it would go. Needs a free slot to end. */
static struct region *slot_find(const struct region_map *m, uint64_t key)
{
	size_t i = (size_t)(key * 0x9e3779b97f4a7c15UL >> 20) & (m->size - 1);

	while (m->slots[i].key && m->slots[i].key != key)
		i = (i + 1) & (m->size - 1);
	return &m->slots[i];
}

static struct region *region_find(const struct region_map *m, uint64_t key)
{
	struct region *r;

	if (!m->size)
		return NULL;
	r = slot_find(m, key);
	return r->key ? r : NULL;
}

static bool region_empty(const struct region *r)
{
	uint64_t any = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(r->bits); i++)
		any |= r->bits[i];
	return !any;
}

static int map_grow(struct region_map *m)
{
	struct region_map old = *m;
	size_t live = 0, size = MIN_SLOTS, i;

	for (i = 0; i < old.size; i++)
		live += old.slots[i].key && !region_empty(&old.slots[i]);
	while (size < live * 2 + 2)
		size *= 2;
	m->slots = hcalloc(size, sizeof(*m->slots));
	if (!m->slots) {
		m->slots = old.slots;
		return -ENOMEM;
	}
	m->size = size;
	m->used = live;
	for (i = 0; i < old.size; i++) {
		if (old.slots[i].key && !region_empty(&old.slots[i]))
			*slot_find(m, old.slots[i].key) = old.slots[i];
	}
	kfree(old.slots);
	return 0;
}

static struct region *region_ensure(struct region_map *m, uint64_t key)
{
	struct region *r = region_find(m, key);

	if (r)
		return r;
	if (m->used * 4 >= m->size * 3 && map_grow(m))
		return NULL;
	r = slot_find(m, key);
	r->key = key;
	m->used++;
	return r;
}

const uint64_t *region_map_bits(const struct region_map *m, uaddr_t va)
{
	const struct region *r = region_find(m, key_of(va));

	return r ? r->bits : NULL;
}

bool region_map_test(const struct region_map *m, uaddr_t va)
{
	const uint64_t *bits = region_map_bits(m, va);
	size_t bit = va % PT_LEAF_SPAN / PAGE_SIZE;

	return bits && (bits[bit / 64] >> (bit % 64) & 1);
}

/* Bits [from, to) of word @w as a mask. */
static uint64_t word_mask(size_t w, size_t from, size_t to)
{
	size_t lo = MAX(from, w * 64), hi = MIN(to, (w + 1) * 64);

	if (lo >= hi)
		return 0;
	return (hi - lo == 64 ? ~0UL : (1UL << (hi - lo)) - 1) << (lo - w * 64);
}

/* The part of [start, end) in the region of @key, as bit numbers. */
static void bit_range(uint64_t key, uaddr_t start, uaddr_t end, size_t *from, size_t *to)
{
	uaddr_t base = base_of(key);

	*from = start > base ? (start - base) / PAGE_SIZE : 0;
	*to = MIN((uaddr_t)REGION_PAGES, (end - base) / PAGE_SIZE);
}

int region_map_set(struct region_map *m, uaddr_t start, uaddr_t end)
{
	uint64_t first = key_of(start), last = key_of(end - 1), key;
	size_t from, to, w;

	for (key = first; key <= last; key++) {
		struct region *r = region_ensure(m, key);

		if (!r)
			return -ENOMEM;
		bit_range(key, start, end, &from, &to);
		for (w = 0; w < ARRAY_SIZE(r->bits); w++)
			r->bits[w] |= word_mask(w, from, to);
	}
	return 0;
}

static void region_clear_one(struct region *r, uaddr_t start, uaddr_t end, uaddr_t *lo, uaddr_t *hi)
{
	uaddr_t base = base_of(r->key);
	size_t from, to, w;

	bit_range(r->key, start, end, &from, &to);
	for (w = 0; w < ARRAY_SIZE(r->bits); w++) {
		uint64_t hit = r->bits[w] & word_mask(w, from, to);
		uaddr_t first, last;

		if (!hit)
			continue;
		first = base + (w * 64 + (size_t)__builtin_ctzl(hit)) * PAGE_SIZE;
		last = base + (w * 64 + 63 - (size_t)__builtin_clzl(hit)) * PAGE_SIZE;
		*lo = MIN(*lo, first);
		*hi = MAX(*hi, last + PAGE_SIZE);
		r->bits[w] &= ~hit;
	}
}

bool region_map_clear(struct region_map *m, uaddr_t *start, uaddr_t *end)
{
	uint64_t first = key_of(*start), last = key_of(*end - 1), key;
	uaddr_t lo = ~0UL, hi = 0;
	size_t i;

	if (*start >= *end)
		return false;
	if (last - first < m->size) {
		for (key = first; key <= last; key++) {
			struct region *r = region_find(m, key);

			if (r)
				region_clear_one(r, *start, *end, &lo, &hi);
		}
	} else {
		for (i = 0; i < m->size; i++) {
			struct region *r = &m->slots[i];

			if (r->key >= first && r->key <= last)
				region_clear_one(r, *start, *end, &lo, &hi);
		}
	}
	*start = lo;
	*end = hi;
	return hi != 0;
}

void region_map_reset(struct region_map *m)
{
	if (m->size)
		memset(m->slots, 0, m->size * sizeof(*m->slots));
	m->used = 0;
}

void region_map_fini(struct region_map *m)
{
	kfree(m->slots);
	m->slots = NULL;
	m->size = m->used = 0;
}
