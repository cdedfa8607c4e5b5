/* SPDX-License-Identifier: Apache-2.0 */
/* vmas: the tree, splitting and joining, and their registration with the files they map. */
#include <errno.h>
#include <string.h>

#include "sentry/mm/internal.h"

OBJTYPE(vma_type, "vma")

struct vma *vma_find(struct mm *mm, uaddr_t addr)
{
	struct rb_node *n = mm->vmas.node;
	struct vma *found = NULL;

	while (n) {
		struct vma *v = rb_entry(n, struct vma, node);

		if (addr < v->end) {
			found = v;
			if (addr >= v->start)
				break;
			n = n->left;
		} else {
			n = n->right;
		}
	}
	return found;
}

struct vma *vma_at(struct mm *mm, uaddr_t addr)
{
	struct vma *v = vma_find(mm, addr);

	return v && v->start <= addr ? v : NULL;
}

struct vma *vma_next(struct vma *vma)
{
	struct rb_node *n = rb_next(&vma->node);

	return n ? rb_entry(n, struct vma, node) : NULL;
}

struct vma *vma_prev(struct vma *vma)
{
	struct rb_node *n = rb_prev(&vma->node);

	return n ? rb_entry(n, struct vma, node) : NULL;
}

unsigned int vma_access(const struct vma *vma)
{
	unsigned int a = 0;

	/* The CPU can't map write-only or execute-only pages: either implies reading. */
	if (vma->prot & (PROT_READ | PROT_WRITE | PROT_EXEC))
		a |= ACCESS_READ;
	if (vma->prot & PROT_WRITE)
		a |= ACCESS_WRITE;
	if (vma->prot & PROT_EXEC)
		a |= ACCESS_EXEC;
	return a;
}

/* File pages [pgoff, +n) of the user's file go: drop them here. mapping->lock is held. */
static void vma_zap(struct map_user *user, uint64_t pgoff, uint64_t n, bool even_cow)
{
	struct vma *vma = container_of(user, struct vma, user);
	uint64_t first = MAX(pgoff, user->pgoff);
	uint64_t end = n > UINT64_MAX - pgoff ? UINT64_MAX : pgoff + n;
	uaddr_t base = user->start;

	end = MIN(end, user->pgoff + user->npages);
	if (first >= end)
		return;
	pages_zap(vma->mm, base + ((first - user->pgoff) << PAGE_SHIFT),
		  base + ((end - user->pgoff) << PAGE_SHIFT), even_cow);
}

struct vma *vma_alloc(struct mm *mm, uaddr_t start, uaddr_t end, unsigned long prot,
		      unsigned long flags, struct file *file, uint64_t pgoff)
{
	struct vma *v = kzalloc(sizeof(*v));

	if (!v)
		return NULL;
	v->mm = mm;
	v->start = start;
	v->end = end;
	v->prot = prot;
	v->flags = flags;
	v->file = file ? file_get(file) : NULL;
	v->pgoff = pgoff;
	list_init(&v->user.node);
	v->user.zap = vma_zap;
	objtype_inc(&vma_type);
	return v;
}

static void user_set(struct vma *v)
{
	v->user.pgoff = v->pgoff;
	v->user.npages = (v->end - v->start) >> PAGE_SHIFT;
	v->user.start = v->start;
	v->user.shared = v->flags & VMA_SHARED;
}

static bool counts_as_writer(const struct vma *v)
{
	return (v->flags & VMA_SHARED) && !(v->flags & VMA_DENY_WRITE);
}

void vma_account(struct vma *v, int sign)
{
	uint64_t pages = (v->end - v->start) >> PAGE_SHIFT;
	struct mm *mm = v->mm;

	if (sign < 0)
		pages = -pages;
	mm->total_vm += pages;
	if (v->flags & VMA_LOCKED)
		mm->locked_vm += pages;
	if (v->flags & VMA_STACK)
		mm->stack_vm += pages;
	else if (vma_private_writable(v))
		mm->data_vm += pages;
}

void vma_insert(struct vma *v)
{
	struct rb_node **link = &v->mm->vmas.node, *parent = NULL;

	while (*link) {
		parent = *link;
		link = v->start < rb_entry(parent, struct vma, node)->start ? &parent->left
									    : &parent->right;
	}
	rb_link_node(&v->node, parent, link);
	rb_insert_color(&v->mm->vmas, &v->node);
	v->mm->nr_vmas++;
	vma_account(v, 1);
	if (v->file) {
		struct mapping *m = &v->file->inode->mapping;

		mutex_lock(&m->lock);
		user_set(v);
		list_add_tail(&v->user.node, &m->users);
		if (counts_as_writer(v))
			m->nr_shared_writable++;
		mutex_unlock(&m->lock);
	}
}

void vma_remove(struct vma *v)
{
	if (v->file) {
		struct mapping *m = &v->file->inode->mapping;

		mutex_lock(&m->lock);
		list_del(&v->user.node);
		if (counts_as_writer(v))
			m->nr_shared_writable--;
		mutex_unlock(&m->lock);
	}
	vma_account(v, -1);
	rb_erase(&v->mm->vmas, &v->node);
	v->mm->nr_vmas--;
	v->next_dead = v->mm->dead;
	v->mm->dead = v;
}

/*
 * Files are released without the lock: the last reference may take locks that come before it
 * (an inode's, to free what it holds).
 */
void mm_write_unlock(struct mm *mm)
{
	struct vma *dead = mm->dead, *next;

	mm->dead = NULL;
	write_unlock(&mm->lock);
	for (; dead; dead = next) {
		next = dead->next_dead;
		if (dead->file)
			file_put(dead->file);
		kfree(dead);
		objtype_dec(&vma_type);
	}
}

void vma_resize(struct vma *v, uaddr_t start, uaddr_t end)
{
	struct mapping *m = v->file ? &v->file->inode->mapping : NULL;

	vma_account(v, -1);
	if (m)
		mutex_lock(&m->lock);
	/*
	 * pgoff belongs to start, for anonymous memory too: it decides whether two can be joined.
	 */
	v->pgoff += (uint64_t)((int64_t)(start - v->start) >> PAGE_SHIFT);
	v->start = start;
	v->end = end;
	if (m) {
		user_set(v);
		mutex_unlock(&m->lock);
	}
	vma_account(v, 1);
}

int vma_split_at(struct mm *mm, uaddr_t addr)
{
	struct vma *v = vma_at(mm, addr), *upper;

	if (!v || v->start == addr)
		return 0;
	if (mm->nr_vmas >= MAX_VMAS)
		return -ENOMEM;
	upper = vma_alloc(mm, addr, v->end, v->prot, v->flags, v->file, vma_pgoff(v, addr));
	if (!upper)
		return -ENOMEM;
	upper->name = v->name;
	upper->populated = v->populated;
	upper->ahead = v->ahead;
	/* In this order: a truncation must find every page registered at any time. */
	vma_insert(upper);
	vma_resize(v, v->start, addr);
	return 0;
}

static bool can_join(const struct vma *a, const struct vma *b)
{
	return a->end == b->start && a->prot == b->prot && a->flags == b->flags &&
	       a->file == b->file && a->name == b->name && !(a->flags & VMA_PINNED) &&
	       a->pgoff + ((a->end - a->start) >> PAGE_SHIFT) == b->pgoff;
}

void vma_merge_around(struct mm *mm, uaddr_t start, uaddr_t end)
{
	struct vma *v = vma_find(mm, start ? start - 1 : 0), *next;

	for (; v && v->start <= end; v = next) {
		next = vma_next(v);
		if (next && can_join(v, next)) {
			uaddr_t new_end = next->end;

			/* Of two walks the one that has not come to its end. */
			if (next->ahead && (!v->ahead || v->ahead == v->end)) {
				v->ahead = next->ahead;
				v->populated = next->populated;
			}
			vma_resize(v, v->start, new_end);
			vma_remove(next);
			next = v;
		}
	}
}
