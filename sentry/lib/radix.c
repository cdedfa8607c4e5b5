/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 64-way radix tree. Nodes that hold nothing are freed, on removal and when an insertion fails,
 * and the tree is no higher than its largest index needs: what memory it holds depends on its
 * contents only.
 */
#include "sentry/lib/radix.h"

#include <errno.h>

#include "sentry/lib/arena.h"

#define RADIX_BITS 6
#define RADIX_WAYS (1u << RADIX_BITS)

struct radix_node {
	unsigned int used;
	union {
		struct radix_node *child[RADIX_WAYS];
		uint64_t value[RADIX_WAYS];
	};
};

/* Largest index that @height levels can hold. */
static uint64_t height_max(unsigned int height)
{
	return height * RADIX_BITS >= 64 ? UINT64_MAX : (1ULL << (height * RADIX_BITS)) - 1;
}

static unsigned int slot_of(uint64_t index, unsigned int level)
{
	return (unsigned int)(index >> (level * RADIX_BITS)) & (RADIX_WAYS - 1);
}

uint64_t radix_get(const struct radix *r, uint64_t index)
{
	const struct radix_node *n = r->root;

	if (!n || index > height_max(r->height))
		return 0;
	for (unsigned int level = r->height - 1; level > 0 && n; level--)
		n = n->child[slot_of(index, level)];
	return n ? n->value[slot_of(index, 0)] : 0;
}

static int grow(struct radix *r, uint64_t index)
{
	while (!r->root || index > height_max(r->height)) {
		struct radix_node *n = kzalloc(sizeof(*n));

		if (!n)
			return -ENOMEM;
		if (r->root) {
			n->child[0] = r->root;
			n->used = 1;
		}
		r->root = n;
		r->height++;
	}
	return 0;
}

/* Frees the empty nodes on the way to @index, and roots that only lengthen the way. */
static void prune(struct radix *r, uint64_t index)
{
	struct radix_node *path[12], *n;
	unsigned int level = r->height, top = r->height - 1;

	if (!r->root)
		return;
	for (n = r->root; n; n = level ? n->child[slot_of(index, level)] : NULL)
		path[--level] = n;
	for (; level < top && !path[level]->used; level++) {
		kfree(path[level]);
		path[level + 1]->child[slot_of(index, level + 1)] = NULL;
		path[level + 1]->used--;
	}
	while (r->height > 1 && r->root->used == 1 && r->root->child[0]) {
		n = r->root;
		r->root = n->child[0];
		r->height--;
		kfree(n);
	}
	if (!r->root->used) {
		kfree(r->root);
		r->root = NULL;
		r->height = 0;
	}
}

static void remove_index(struct radix *r, uint64_t index)
{
	struct radix_node *n = r->root;

	if (!radix_get(r, index))
		return;
	for (unsigned int level = r->height - 1; level > 0; level--)
		n = n->child[slot_of(index, level)];
	n->value[slot_of(index, 0)] = 0;
	n->used--;
	prune(r, index);
}

int radix_set(struct radix *r, uint64_t index, uint64_t value)
{
	struct radix_node *n;

	if (!value) {
		remove_index(r, index);
		return 0;
	}
	if (grow(r, index))
		goto out_prune;
	n = r->root;
	for (unsigned int level = r->height - 1; level > 0; level--) {
		struct radix_node **slot = &n->child[slot_of(index, level)];

		if (!*slot) {
			*slot = kzalloc(sizeof(**slot));
			if (!*slot)
				goto out_prune;
			n->used++;
		}
		n = *slot;
	}
	if (!n->value[slot_of(index, 0)])
		n->used++;
	n->value[slot_of(index, 0)] = value;
	return 0;

out_prune:
	prune(r, index);
	return -ENOMEM;
}

/* First present index >= *@index below @n, which covers [base, …) at @level. */
static bool next_in(const struct radix_node *n, unsigned int level, uint64_t base, uint64_t *index,
		    uint64_t *value)
{
	unsigned int i =
		*index > base ? (unsigned int)((*index - base) >> (level * RADIX_BITS)) : 0;

	for (; i < RADIX_WAYS; i++) {
		uint64_t start = base + ((uint64_t)i << (level * RADIX_BITS));

		if (!level) {
			if (n->value[i]) {
				*index = start;
				*value = n->value[i];
				return true;
			}
		} else if (n->child[i] && next_in(n->child[i], level - 1, start, index, value)) {
			return true;
		}
	}
	return false;
}

bool radix_next(const struct radix *r, uint64_t *index, uint64_t *value)
{
	if (!r->root || *index > height_max(r->height))
		return false;
	return next_in(r->root, r->height - 1, 0, index, value);
}

static void free_node(struct radix_node *n, unsigned int level)
{
	for (unsigned int i = 0; level && i < RADIX_WAYS; i++) {
		if (n->child[i])
			free_node(n->child[i], level - 1);
	}
	kfree(n);
}

void radix_fini(struct radix *r)
{
	if (r->root)
		free_node(r->root, r->height - 1);
	r->root = NULL;
	r->height = 0;
}
