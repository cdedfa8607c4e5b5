/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names. A dentry is made unhashed (dentry_alloc), becomes findable with dentry_add, and loses its
 * name with dentry_remove (unlink) or gets another with dentry_move (rename). With the last
 * reference it goes. In-memory filesystems pin theirs: the name holds a reference until removal.
 *
 * The hash maps (parent, name) to the dentry. A look-up locks one stripe of it, so threads that
 * walk different names rarely meet; see internal.h for the order of locks.
 */
#include <string.h>

#include "vfs/internal.h"

OBJTYPE(dentry_objtype, "dentry");

int dcache_init(void)
{
	vfs_state->nr_buckets = DCACHE_FIRST;
	vfs_state->buckets = kcalloc(DCACHE_FIRST, sizeof(*vfs_state->buckets));
	if (!vfs_state->buckets)
		return -ENOMEM;
	rwlock_init(&vfs_state->tree, LOCK_DCACHE);
	for (unsigned int i = 0; i < DCACHE_STRIPES; i++)
		mutex_init(&vfs_state->stripes[i], LOCK_DCACHE);
	vfs_state->next_cookie = 1;
	return 0;
}

uint32_t name_hash(const struct dentry *parent, const char *name, size_t len)
{
	uint64_t h = (uint64_t)(uintptr_t)parent >> 5;
	uint64_t chunk;

	for (; len >= 8; name += 8, len -= 8) {
		memcpy(&chunk, name, 8);
		h = (h ^ chunk) * 0x9e3779b97f4a7c15ULL;
		h ^= h >> 32;
	}
	chunk = len;
	for (size_t i = 0; i < len; i++)
		chunk = chunk << 8 | (unsigned char)name[i];
	h = (h ^ chunk) * 0x9e3779b97f4a7c15ULL;
	return (uint32_t)(h >> 32);
}

static uint32_t dentry_hash(const struct dentry *d)
{
	return name_hash(d->parent, d->name, d->name_len);
}

static struct mutex *stripe_of(uint32_t hash)
{
	return &vfs_state->stripes[hash % DCACHE_STRIPES];
}

struct dentry *dentry_alloc(struct super *sb, struct dentry *parent, const char *name, size_t len)
{
	/* The name lies behind the dentry until a rename replaces it. */
	struct dentry *d = kmalloc(sizeof(*d) + len + 1);

	if (!d)
		return NULL;
	memset(d, 0, sizeof(*d));
	refcount_init(&d->refs, 1);
	d->super = sb;
	d->parent = parent ? dentry_get(parent) : d;
	d->name = (char *)(d + 1);
	d->name_len = (uint32_t)len;
	memcpy(d->name, name, len);
	d->name[len] = '\0';
	list_init(&d->hash);
	list_init(&d->children);
	list_init(&d->sibling);
	objtype_inc(&dentry_objtype);
	return d;
}

struct dentry *dentry_get(struct dentry *dentry)
{
	refcount_get(&dentry->refs);
	return dentry;
}

static void bucket_insert(struct dentry *d)
{
	struct list_head *head = &vfs_state->buckets[dentry_hash(d) & (vfs_state->nr_buckets - 1)];

	if (!head->next)
		list_init(head);
	list_add(&d->hash, head);
}

static void dentry_free(struct dentry *d)
{
	if (d->name != (char *)(d + 1))
		kfree(d->name);
	objtype_dec(&dentry_objtype);
	kfree(d);
}

/* Takes a hashed name out of hash and directory. Tree lock held exclusively. */
static void dentry_unhash_locked(struct dentry *d)
{
	if (d->flags & DENTRY_HASHED) {
		struct mutex *stripe = stripe_of(dentry_hash(d));

		mutex_lock_nested(stripe);
		list_del(&d->hash);
		vfs_state->nr_names--;
		atomic_fetch_and(&d->flags, ~(uint32_t)DENTRY_HASHED);
		mutex_unlock(stripe);
	}
	list_del(&d->sibling);
}

void dentry_put(struct dentry *d)
{
	while (d && refcount_put(&d->refs)) {
		struct dentry *parent = d->parent;

		if (d->flags & DENTRY_HASHED) {
			write_lock(&vfs_state->tree);
			dentry_unhash_locked(d);
			write_unlock(&vfs_state->tree);
		}
		if (d->inode && !d->inode->nlink && notify_active())
			notify_inode_gone(d->inode);
		inode_put(d->inode);
		if (parent == d)
			parent = NULL;
		dentry_free(d);
		d = parent;
	}
}

struct dentry *dentry_find(struct dentry *parent, const char *name, size_t len)
{
	uint32_t hash = name_hash(parent, name, len);
	struct mutex *stripe = stripe_of(hash);
	struct dentry *found = NULL;
	struct list_head *head, *pos;

	mutex_lock(stripe);
	head = &vfs_state->buckets[hash & (vfs_state->nr_buckets - 1)];
	if (head->next) {
		list_for_each (pos, head) {
			struct dentry *d = list_entry(pos, struct dentry, hash);

			if (d->parent == parent && d->name_len == len &&
			    !memcmp(d->name, name, len)) {
				/* One that is on its way out is as good as gone. */
				if (refcount_get_unless_zero(&d->refs))
					found = d;
				break;
			}
		}
	}
	mutex_unlock(stripe);
	return found;
}

/* Hashes @d as its directory's newest name. Tree and stripe locked. */
static void dentry_insert_locked(struct dentry *d)
{
	d->cookie = atomic_fetch_add(&vfs_state->next_cookie, 1);
	list_add_tail(&d->sibling, &d->parent->children);
	bucket_insert(d);
	vfs_state->nr_names++;
	atomic_fetch_or(&d->flags, DENTRY_HASHED);
}

/*
 * Twice the buckets, when there are twice as many names as buckets; without memory it stays as it
 * is. Tree lock held exclusively.
 */
static void hash_grow_locked(void)
{
	unsigned int old_nr = vfs_state->nr_buckets;
	struct list_head *old = vfs_state->buckets, *bigger, *pos, *next;

	if (likely(vfs_state->nr_names <= 2 * old_nr))
		return;
	bigger = kcalloc(2 * (size_t)old_nr, sizeof(*bigger));
	if (!bigger)
		return;
	for (unsigned int i = 0; i < DCACHE_STRIPES; i++)
		mutex_lock_nested(&vfs_state->stripes[i]);
	vfs_state->buckets = bigger;
	vfs_state->nr_buckets = 2 * old_nr;
	for (unsigned int i = 0; i < old_nr; i++) {
		if (!old[i].next)
			continue;
		for (pos = old[i].next; pos != &old[i]; pos = next) {
			next = pos->next;
			bucket_insert(list_entry(pos, struct dentry, hash));
		}
	}
	for (unsigned int i = 0; i < DCACHE_STRIPES; i++)
		mutex_unlock(&vfs_state->stripes[i]);
	kfree(old);
}

void dentry_add(struct dentry *d, struct inode *inode)
{
	struct mutex *stripe = stripe_of(dentry_hash(d));

	d->inode = inode;
	write_lock(&vfs_state->tree);
	hash_grow_locked();
	mutex_lock_nested(stripe);
	dentry_insert_locked(d);
	mutex_unlock(stripe);
	write_unlock(&vfs_state->tree);
}

void dentry_pin(struct dentry *d)
{
	if (!(atomic_fetch_or(&d->flags, DENTRY_PINNED) & DENTRY_PINNED))
		dentry_get(d);
}

void dentry_unpin(struct dentry *d)
{
	if (atomic_fetch_and(&d->flags, ~(uint32_t)DENTRY_PINNED) & DENTRY_PINNED)
		dentry_put(d);
}

void dentry_remove(struct dentry *d)
{
	write_lock(&vfs_state->tree);
	dentry_unhash_locked(d);
	write_unlock(&vfs_state->tree);
	dentry_unpin(d);
}

/* Both stripes of a move, the lower address first; they may be the same. */
static void stripes_lock(struct mutex *a, struct mutex *b)
{
	mutex_lock_nested(a < b ? a : b);
	if (a != b)
		mutex_lock_nested(a < b ? b : a);
}

static void stripes_unlock(struct mutex *a, struct mutex *b)
{
	mutex_unlock(a);
	if (a != b)
		mutex_unlock(b);
}

static void dentry_set_name(struct dentry *d, char *name, size_t len)
{
	if (d->name != (char *)(d + 1))
		kfree(d->name);
	d->name = name;
	d->name_len = (uint32_t)len;
}

static void dentry_take_locked(struct dentry *d)
{
	list_del(&d->hash);
	list_del(&d->sibling);
	vfs_state->nr_names--;
	atomic_fetch_and(&d->flags, ~(uint32_t)(DENTRY_HASHED | DENTRY_LOWER));
}

void dentry_move(struct dentry *d, struct dentry *parent, char *name, size_t len,
		 struct dentry *replaced, struct dentry *whiteout)
{
	struct dentry *old_parent = d->parent;
	struct mutex *from, *to;

	dentry_get(parent);
	write_lock(&vfs_state->tree);
	from = stripe_of(dentry_hash(d));
	to = stripe_of(name_hash(parent, name, len));
	stripes_lock(from, to);
	if (replaced)
		dentry_take_locked(replaced);
	dentry_take_locked(d);
	dentry_set_name(d, name, len);
	d->parent = parent;
	dentry_insert_locked(d);
	if (whiteout)
		dentry_insert_locked(whiteout);
	stripes_unlock(from, to);
	write_unlock(&vfs_state->tree);
	dentry_put(old_parent);
	if (replaced)
		dentry_unpin(replaced);
}

void dentry_exchange(struct dentry *a, struct dentry *b, char *name_a, char *name_b)
{
	size_t len_a = a->name_len, len_b = b->name_len;
	struct mutex *sa, *sb;
	struct dentry *parent;

	write_lock(&vfs_state->tree);
	sa = stripe_of(dentry_hash(a));
	sb = stripe_of(dentry_hash(b));
	stripes_lock(sa, sb);
	dentry_take_locked(a);
	dentry_take_locked(b);
	dentry_set_name(a, name_b, len_b);
	dentry_set_name(b, name_a, len_a);
	parent = a->parent;
	a->parent = b->parent;
	b->parent = parent;
	dentry_insert_locked(a);
	dentry_insert_locked(b);
	stripes_unlock(sa, sb);
	write_unlock(&vfs_state->tree);
}

struct dentry *dentry_parent(struct dentry *d)
{
	struct dentry *parent;

	read_lock(&vfs_state->tree);
	parent = dentry_get(d->parent);
	read_unlock(&vfs_state->tree);
	return parent;
}

bool dentry_is_under(struct dentry *d, struct dentry *ancestor)
{
	bool under = true;

	read_lock(&vfs_state->tree);
	while (d != ancestor) {
		if (d->parent == d) {
			under = false;
			break;
		}
		d = d->parent;
	}
	read_unlock(&vfs_state->tree);
	return under;
}

/*
 * Nobody can walk here any more. Leaves first: each pinned name gives up its reference; what
 * somebody still holds (a bug of ours) stays behind unhashed.
 */
void dentry_tree_drop(struct dentry *root)
{
	struct dentry *d = root;

	dentry_get(root);
	for (;;) {
		struct dentry *child = NULL, *parent;

		write_lock(&vfs_state->tree);
		if (!list_empty(&d->children)) {
			child = list_first_entry(&d->children, struct dentry, sibling);
			if (!refcount_get_unless_zero(&child->refs)) {
				list_del(&child->sibling);
				write_unlock(&vfs_state->tree);
				continue;
			}
		} else {
			dentry_unhash_locked(d);
		}
		write_unlock(&vfs_state->tree);
		if (child) {
			d = child;
			continue;
		}
		if (d == root)
			break;
		/* The parent is the one that we came from: it has our reference too. */
		parent = d->parent;
		dentry_unpin(d);
		dentry_put(d);
		d = parent;
	}
	dentry_put(root);
	dentry_unpin(root);
	dentry_put(root);
}
