/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sparse array: 64-bit index to 64-bit value, 0 meaning absent. For file pages, PIDs, inode
 * numbers. Memory comes from the arena. No locking.
 */
#ifndef SENTRY_LIB_RADIX_H
#define SENTRY_LIB_RADIX_H

#include "sentry/lib/types.h"

struct radix_node;
struct radix {
	struct radix_node *root;
	unsigned int height; /* levels of 64-way nodes; 0 is empty */
};

uint64_t radix_get(const struct radix *r, uint64_t index);
/* Stores @value (0 removes). Returns 0 or -ENOMEM (never when removing). */
int radix_set(struct radix *r, uint64_t index, uint64_t value) __must_check;
/* First index >= *@index that is present: true, with *@index and *@value set; else false. */
bool radix_next(const struct radix *r, uint64_t *index, uint64_t *value);
/* Frees all nodes; the values are the caller's. */
void radix_fini(struct radix *r);

#endif
