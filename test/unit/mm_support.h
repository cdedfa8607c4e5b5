/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the memory manager's and the loader's tests share: a platform that runs nothing, but is as
 * forgetful about nothing as a TLB. Every access that a test makes as "the application" goes through
 * its cache; an entry stays there until as_invalidate names it. tlb_check finds entries that the
 * table no longer backs: a missed invalidation.
 */
#ifndef TEST_UNIT_MM_SUPPORT_H
#define TEST_UNIT_MM_SUPPORT_H

#include <sys/mman.h>

#include "sentry/mm/internal.h"
#include "test/unit/vfs_support.h"

/* The cache covers this range; tests map their things here. */
#define TLB_BASE  0x10000000000UL
#define TLB_PAGES 2048UL
#define AT(page)  (TLB_BASE + (page)*PAGE_SIZE)

struct fake_as {
	struct address_space base;
	struct pagetable *pt;
	uint64_t tlb[TLB_PAGES];
	unsigned long invalidations;
};

static struct {
	struct platform base;
	long tables, spaces;
} fake;

static gpa_t fake_table_alloc(struct pt_allocator *a)
{
	gpa_t gpa = frame_alloc();

	(void)a;
	fake.tables += gpa != GPA_NONE;
	return gpa;
}

static void fake_table_free(struct pt_allocator *a, gpa_t table)
{
	(void)a;
	fake.tables--;
	frame_put(table);
}

static struct address_space *fake_as_create(struct platform *p, struct pagetable *pt)
{
	struct fake_as *as = kzalloc(sizeof(*as));

	if (!as)
		return ERR_PTR(-ENOMEM);
	as->base.platform = p;
	as->pt = pt;
	fake.spaces++;
	return &as->base;
}

static void fake_as_destroy(struct address_space *as)
{
	fake.spaces--;
	kfree(container_of(as, struct fake_as, base));
}

static void fake_as_invalidate(struct address_space *base, uaddr_t va, size_t len)
{
	struct fake_as *as = container_of(base, struct fake_as, base);
	uaddr_t end = MIN(va + len, AT(TLB_PAGES));

	as->invalidations++;
	for (va = MAX(PAGE_ALIGN_DOWN(va), TLB_BASE); va < end; va += PAGE_SIZE)
		__atomic_store_n(&as->tlb[(va - TLB_BASE) >> PAGE_SHIFT], 0, __ATOMIC_RELAXED);
}

static const struct platform_type fake_platform = {
	.name = "fake",
	.as_create = fake_as_create,
	.as_destroy = fake_as_destroy,
	.as_invalidate = fake_as_invalidate,
};

static struct vfs_env mm_env;

static inline struct file *test_shmem_file(size_t size)
{
	struct file *file = memfd_file(&mm_env.ctx, "zero", 0);

	if (!IS_ERR(file) && file_truncate(&mm_env.ctx, file, size)) {
		file_put(file);
		return ERR_PTR(-ENOMEM);
	}
	return file;
}

static inline void fake_start(void)
{
	fake.base.type = &fake_platform;
	fake.base.pt_alloc.alloc = fake_table_alloc;
	fake.base.pt_alloc.free = fake_table_free;
	mm_shmem_file = test_shmem_file;
}

static inline struct mm *xmm(void)
{
	struct mm *mm = mm_alloc(&fake.base);

	if (IS_ERR(mm)) {
		printf("not ok mm_alloc\n");
		exit(1);
	}
	return mm;
}

/* Every entry of the cache is one that the table still backs. */
static inline bool tlb_check(struct mm *mm)
{
	struct fake_as *as = container_of(mm->as, struct fake_as, base);

	for (size_t i = 0; i < TLB_PAGES; i++) {
		uint64_t cached = as->tlb[i], *pte, now;

		if (!cached)
			continue;
		pte = pt_find(&mm->pt, AT(i));
		now = pte ? pte_read(pte) : 0;
		if (!(now & PTE_P) || ((now ^ cached) & PTE_ADDR) ||
		    ((cached & PTE_RW) && !(now & PTE_RW))) {
			printf("# page %zu: cached %#lx, table %#lx\n", i, cached, now);
			return false;
		}
	}
	return true;
}

/*
 * One byte read or written by the application: 0, or the signal that it gets (-1: out of memory).
 */
static inline int app_access(struct mm *mm, uaddr_t va, unsigned int access, uint8_t *byte)
{
	struct fake_as *as = container_of(mm->as, struct fake_as, base);
	bool in = va >= TLB_BASE && va < AT(TLB_PAGES);
	uint64_t *slot = in ? &as->tlb[(va - TLB_BASE) >> PAGE_SHIFT] : NULL;

	for (int tries = 0; tries < 100; tries++) {
		uint64_t pte = slot ? *slot : 0, *entry;
		siginfo_t info;
		int err;

		if (!pte && (entry = pt_find(&mm->pt, va)))
			pte = pte_read(entry);
		if ((pte & PTE_P) && (!(access & ACCESS_WRITE) || (pte & PTE_RW)) &&
		    (!(access & ACCESS_EXEC) || !(pte & PTE_NX))) {
			uint8_t *p = (uint8_t *)phys_ptr(pte & PTE_ADDR) + (va & ~PAGE_MASK);

			if (slot)
				*slot = pte;
			if (access & ACCESS_WRITE)
				*p = *byte;
			else
				*byte = *p;
			return 0;
		}
		/* As a CPU does: a fault drops what was cached for the page. */
		if (slot)
			*slot = 0;
		memset(&info, 0, sizeof(info));
		err = mm_fault(mm, va, access, &info);
		if (err == -ENOMEM)
			return -1;
		if (err)
			return info.si_signo;
	}
	printf("# endless fault at %#lx\n", va);
	return -2;
}

static inline int app_read(struct mm *mm, uaddr_t va)
{
	uint8_t b = 0;
	int sig = app_access(mm, va, ACCESS_READ, &b);

	return sig ? -sig : b;
}

static inline int app_write(struct mm *mm, uaddr_t va, uint8_t value)
{
	return -app_access(mm, va, ACCESS_WRITE, &value);
}

static inline uint64_t frames_now(void)
{
	struct physmem_stats st;

	physmem_limits(&st);
	return st.frames;
}

#define ANON  (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW    (PROT_READ | PROT_WRITE)

/* Runs @tests twice: after the second all objects, frames, tables and spaces are where they were. */
static inline int mm_test_main(void (*tests)(void))
{
	struct live before;
	uint64_t frames;

	vfs_start();
	fake_start();
	env_open(&mm_env);
	tests();
	before = live_now();
	frames = frames_now();
	tests();
	check_live("everything released", &before);
	CHECK_EQ("frames back to the start", frames_now(), frames);
	CHECK_EQ("no table left", fake.tables, 0);
	CHECK_EQ("no address space left", fake.spaces, 0);
	env_close(&mm_env);
	return failures != 0;
}

#endif
