/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive balanced search tree (red-black). The caller compares: find the place with rb_link_node
 * as in Linux, then rb_insert_color. No locking.
 */
#ifndef SENTRY_LIB_RBTREE_H
#define SENTRY_LIB_RBTREE_H

#include "sentry/lib/types.h"

struct rb_node {
	struct rb_node *parent, *left, *right;
	bool red;
};

struct rb_root {
	struct rb_node *node;
};

#define rb_entry(ptr, type, member) container_of(ptr, type, member)

static inline void rb_link_node(struct rb_node *node, struct rb_node *parent, struct rb_node **link)
{
	node->parent = parent;
	node->left = node->right = NULL;
	*link = node;
}

/* Rebalances after rb_link_node put @node at a leaf. */
void rb_insert_color(struct rb_root *root, struct rb_node *node);
void rb_erase(struct rb_root *root, struct rb_node *node);
struct rb_node *rb_first(const struct rb_root *root);
struct rb_node *rb_last(const struct rb_root *root);
struct rb_node *rb_next(const struct rb_node *node);
struct rb_node *rb_prev(const struct rb_node *node);

#define rb_for_each(n, root) for ((n) = rb_first(root); (n); (n) = rb_next(n))

#endif
