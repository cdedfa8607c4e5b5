/* SPDX-License-Identifier: Apache-2.0 */
/* Red-black trees as in Cormen et al., chapter 13, with NULL leaves. */
#include "sentry/lib/rbtree.h"

static void replace_child(struct rb_root *root, struct rb_node *old, struct rb_node *new_node)
{
	if (!old->parent)
		root->node = new_node;
	else if (old->parent->left == old)
		old->parent->left = new_node;
	else
		old->parent->right = new_node;
	if (new_node)
		new_node->parent = old->parent;
}

static void rotate_left(struct rb_root *root, struct rb_node *x)
{
	struct rb_node *y = x->right;

	x->right = y->left;
	if (y->left)
		y->left->parent = x;
	replace_child(root, x, y);
	y->left = x;
	x->parent = y;
}

static void rotate_right(struct rb_root *root, struct rb_node *x)
{
	struct rb_node *y = x->left;

	x->left = y->right;
	if (y->right)
		y->right->parent = x;
	replace_child(root, x, y);
	y->right = x;
	x->parent = y;
}

static bool is_red(const struct rb_node *n)
{
	return n && n->red;
}

void rb_insert_color(struct rb_root *root, struct rb_node *n)
{
	n->red = true;
	while (is_red(n->parent)) {
		struct rb_node *p = n->parent, *g = p->parent;
		bool left = p == g->left;
		struct rb_node *uncle = left ? g->right : g->left;

		if (is_red(uncle)) {
			p->red = false;
			uncle->red = false;
			g->red = true;
			n = g;
			continue;
		}
		if (n == (left ? p->right : p->left)) {
			n = p;
			if (left)
				rotate_left(root, n);
			else
				rotate_right(root, n);
			p = n->parent;
		}
		p->red = false;
		g->red = true;
		if (left)
			rotate_right(root, g);
		else
			rotate_left(root, g);
	}
	root->node->red = false;
}

/* @n (maybe NULL, child of @p) lacks one black on its path. */
static void erase_fixup(struct rb_root *root, struct rb_node *n, struct rb_node *p)
{
	while (n != root->node && !is_red(n)) {
		bool left = n == p->left;
		struct rb_node *s = left ? p->right : p->left, *near, *far;

		if (s->red) {
			s->red = false;
			p->red = true;
			if (left)
				rotate_left(root, p);
			else
				rotate_right(root, p);
			s = left ? p->right : p->left;
		}
		near = left ? s->left : s->right;
		far = left ? s->right : s->left;
		if (!is_red(near) && !is_red(far)) {
			s->red = true;
			n = p;
			p = n->parent;
			continue;
		}
		if (!is_red(far)) {
			near->red = false;
			s->red = true;
			if (left)
				rotate_right(root, s);
			else
				rotate_left(root, s);
			s = left ? p->right : p->left;
			far = left ? s->right : s->left;
		}
		s->red = p->red;
		p->red = false;
		far->red = false;
		if (left)
			rotate_left(root, p);
		else
			rotate_right(root, p);
		n = root->node;
	}
	if (n)
		n->red = false;
}

void rb_erase(struct rb_root *root, struct rb_node *z)
{
	struct rb_node *y = z, *x, *p;
	bool red;

	if (z->left && z->right) {
		y = z->right;
		while (y->left)
			y = y->left;
	}
	x = y->left ? y->left : y->right;
	p = y->parent;
	red = y->red;
	replace_child(root, y, x);
	if (y != z) {
		if (p == z)
			p = y;
		y->red = z->red;
		y->left = z->left;
		y->right = z->right;
		replace_child(root, z, y);
		if (y->left)
			y->left->parent = y;
		if (y->right)
			y->right->parent = y;
	}
	if (!red)
		erase_fixup(root, x, p);
}

struct rb_node *rb_first(const struct rb_root *root)
{
	struct rb_node *n = root->node;

	while (n && n->left)
		n = n->left;
	return n;
}

struct rb_node *rb_last(const struct rb_root *root)
{
	struct rb_node *n = root->node;

	while (n && n->right)
		n = n->right;
	return n;
}

struct rb_node *rb_next(const struct rb_node *node)
{
	struct rb_node *n = node->right;

	if (n) {
		while (n->left)
			n = n->left;
		return n;
	}
	for (n = node->parent; n && node == n->right; n = n->parent)
		node = n;
	return n;
}

struct rb_node *rb_prev(const struct rb_node *node)
{
	struct rb_node *n = node->left;

	if (n) {
		while (n->right)
			n = n->right;
		return n;
	}
	for (n = node->parent; n && node == n->left; n = n->parent)
		node = n;
	return n;
}
