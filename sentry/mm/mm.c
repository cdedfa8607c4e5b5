/* SPDX-License-Identifier: Apache-2.0 */
/* Address spaces: made, shared, torn down. */
#include "sentry/mm/mm.h"

#include <string.h>

#include "sentry/mm/internal.h"
#include "sentry/mm/sites.h"

OBJTYPE(mm_type, "mm")

struct mm *mm_alloc(struct platform *platform)
{
	struct mm *mm = kzalloc(sizeof(*mm));
	long err = -ENOMEM;

	if (!mm)
		return ERR_PTR(-ENOMEM);
	refcount_init(&mm->users, 1);
	mm->um.ops = &mm_usermem_ops;
	mm->platform = platform;
	rwlock_init(&mm->lock, LOCK_MM);
	rwlock_init(&mm->pt_lock, LOCK_PT);
	mm->limits = (struct mm_limits){UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
	mm->mmap_base = USER_TOP - (256UL << 20);
	mm->stack_top = USER_TOP - PAGE_SIZE;
	if (pt_init(&mm->pt, &platform->pt_alloc))
		goto out_mm;
	mm->as = platform_as_create(platform, &mm->pt);
	if (IS_ERR(mm->as)) {
		err = PTR_ERR(mm->as);
		goto out_pt;
	}
	objtype_inc(&mm_type);
	return mm;

out_pt:
	pt_fini(&mm->pt);
out_mm:
	kfree(mm);
	return ERR_PTR(err);
}

struct mm *mm_get(struct mm *mm)
{
	refcount_get(&mm->users);
	return mm;
}

/* Frames of the whole table, without telling caches: the address space is gone already. */
static void put_all_frames(struct mm *mm)
{
	uaddr_t va = 0;
	gpa_t run = GPA_NONE;
	size_t n = 0;
	uint64_t *pte;

	while ((pte = pt_next(&mm->pt, &va, USER_TOP))) {
		gpa_t gpa = pte_read(pte) & PTE_ADDR;

		pte_write(pte, 0);
		if (n && gpa == run + n * PAGE_SIZE) {
			n++;
		} else {
			if (n)
				frame_put_range(run, n);
			run = gpa;
			n = 1;
		}
		va += PAGE_SIZE;
	}
	if (n)
		frame_put_range(run, n);
}

void mm_put(struct mm *mm)
{
	struct rb_node *n;

	if (!mm || !refcount_put(&mm->users))
		return;
	write_lock(&mm->lock);
	while ((n = rb_first(&mm->vmas))) {
		struct vma *v = rb_entry(n, struct vma, node);

		/* A file's truncation may still come by until the vma is off its list. */
		if (v->file && (v->flags & VMA_SHARED))
			mm_sync_vma(v, v->start, v->end);
		vma_remove(v);
	}
	mm_write_unlock(mm);
	/* Entries become 0 without a word to the platform: nobody runs here any more. */
	put_all_frames(mm);
	platform_as_destroy(mm->as);
	pt_fini(&mm->pt);
	sites_free(mm);
	if (mm->exe) {
		inode_allow_write(mm->exe->inode);
		file_put(mm->exe);
	}
	rwlock_fini(&mm->lock);
	rwlock_fini(&mm->pt_lock);
	kfree(mm);
	objtype_dec(&mm_type);
}

int mm_set_exe(struct mm *mm, struct file *file)
{
	int err = inode_deny_write(file->inode);

	if (!err)
		mm->exe = file_get(file);
	return err;
}

uint64_t mm_rss(struct mm *mm)
{
	uint64_t rss, max;

	/* What is mapped ahead of use is no memory yet: the host knows what is there. */
	read_lock(&mm->lock);
	rss = resident_anon(mm, 0, USER_TOP, SIZE_MAX) + atomic_load(&mm->nr_file_rss);
	read_unlock(&mm->lock);
	max = atomic_load(&mm->max_rss);
	while (rss > max && !atomic_compare_exchange_weak(&mm->max_rss, &max, rss))
		;
	return rss;
}
